//! Which cells are better than others: by the ranks of their trials within each repeat.
//!
//! The trials of a repeat share their random streams, so that they are ranked among each other, a diverged one last, equals
//! sharing their mean rank; a cell is as good as the mean of its ranks. Unlike means, ranks have a place for trials without a
//! value, and no single trial outweighs all others. Whatever chooses cells does so by this: halving, the star of tables,
//! `--top`, and the probability that a cell is the best.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    /// With this value, which may be infinite; without a number, it counts as diverged.
    Completed(f64),
    /// It diverged: worse than any value.
    Diverged,
    /// It failed, which says nothing about its cell.
    Failed,
}

/// Ranks of contenders within the repeats that all of them have.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranks {
    contenders: usize,
    /// The repeats.
    repeats: Vec<u32>,
    /// `[repeat][contender]`, twice the number of contenders that did better, equals counting half; NaN where it failed.
    /// Where others failed, it is scaled to as many contenders as there are at most, so that whole numbers stay whole.
    beaten: Vec<f64>,
    /// Whether larger values are better.
    larger: bool,
    /// Mean of the finite values over these repeats.
    means: Vec<Option<f64>>,
}

impl Ranks {
    /// Ranks contenders, each with its ends in the order of repeats. A repeat counts if all have it, failed or not.
    pub fn of(contenders: &[&[(u32, End)]], larger: bool) -> Self {
        let repeats = common(contenders);
        let size = contenders.len();
        let mut beaten = Vec::with_capacity(repeats.len() * size);
        let (mut sums, mut counts) = (vec![0.0; size], vec![0.0; size]);
        let mut next: Vec<usize> = vec![0; size];
        for repeat in &repeats {
            let ends = contenders.iter().zip(&mut next).map(|(ends, next)| {
                *next += ends[*next..].iter().take_while(|(other, _)| other < repeat).count();
                ends[*next].1
            });
            let ends: Vec<End> = ends.collect();
            for (at, end) in ends.iter().enumerate() {
                if let End::Completed(value) = end
                    && value.is_finite()
                {
                    sums[at] += value;
                    counts[at] += 1.0;
                }
            }
            beaten.extend(ranked(&ends, larger));
        }
        let means = sums.iter().zip(&counts).map(|(sum, n)| (*n > 0.0).then(|| sum / n)).collect();
        Self { contenders: size, repeats, beaten, larger, means }
    }

    /// The repeats that all contenders have.
    pub fn repeats(&self) -> &[u32] {
        &self.repeats
    }

    /// Mean rank of each contender, 1 being the best there is, with so much weight on each repeat; none where it has no weight.
    pub fn mean_ranks(&self, weights: &[f64]) -> Vec<Option<f64>> {
        let (mut sums, mut counts) = (vec![0.0; self.contenders], vec![0.0; self.contenders]);
        let rows = self.beaten.chunks_exact(self.contenders.max(1));
        for (weight, row) in weights.iter().zip(rows).filter(|(weight, _)| **weight > 0.0) {
            for (at, beaten) in row.iter().enumerate().filter(|(_, beaten)| !beaten.is_nan()) {
                sums[at] += weight * beaten;
                counts[at] += weight;
            }
        }
        sums.iter().zip(&counts).map(|(sum, n)| (*n > 0.0).then(|| 1.0 + 0.5 * sum / n)).collect()
    }

    /// Mean rank of each contender over all repeats.
    pub fn plain(&self) -> Vec<Option<f64>> {
        self.mean_ranks(&vec![1.0; self.repeats.len()])
    }

    /// Contenders by their mean ranks, the best one first; equals by their means, and then in their own order.
    pub fn order(&self, mean_ranks: &[Option<f64>]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.contenders).collect();
        order.sort_by(|a, b| self.compare(mean_ranks, *a, *b).then(a.cmp(b)));
        order
    }

    /// Which of two is better, by mean ranks and then by means.
    pub fn compare(&self, mean_ranks: &[Option<f64>], a: usize, b: usize) -> Ordering {
        let sign = if self.larger { -1.0 } else { 1.0 };
        let mean = |at: usize| self.means[at].map(|mean| sign * mean);
        least_first(mean_ranks[a], mean_ranks[b]).then_with(|| least_first(mean(a), mean(b)))
    }

    /// What a contender did in a repeat, as the share of the others that did better; none where it failed.
    pub fn share(&self, repeat: u32, contender: usize) -> Option<f64> {
        let row = self.repeats.binary_search(&repeat).ok()?;
        let beaten = self.beaten[row * self.contenders + contender];
        (!beaten.is_nan()).then(|| 0.5 * beaten / (self.contenders as f64 - 1.0).max(1.0))
    }
}

/// The smaller one first; nothing last.
fn least_first(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// Repeats that all have.
fn common(contenders: &[&[(u32, End)]]) -> Vec<u32> {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for (repeat, _) in contenders.iter().flat_map(|ends| ends.iter()) {
        *counts.entry(*repeat).or_default() += 1;
    }
    counts.into_iter().filter(|(_, n)| *n == contenders.len()).map(|(repeat, _)| repeat).collect()
}

/// Of the ends of one repeat, how many others did better, twice; see [`Ranks::beaten`].
fn ranked(ends: &[End], larger: bool) -> Vec<f64> {
    let sign = if larger { -1.0 } else { 1.0 };
    // The smaller, the better; diverged after all values, infinite ones too.
    let key = |end: &End| match end {
        End::Completed(value) if !value.is_nan() => Some((false, sign * value + 0.0)),
        End::Completed(_) | End::Diverged => Some((true, 0.0)),
        End::Failed => None,
    };
    let mut present: Vec<((bool, f64), usize)> =
        ends.iter().enumerate().filter_map(|(at, end)| Some((key(end)?, at))).collect();
    present.sort_unstable_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let others = present.len().saturating_sub(1) as f64;
    let scale = if others > 0.0 { (ends.len() as f64 - 1.0) / others } else { 0.0 };
    let mut beaten = vec![f64::NAN; ends.len()];
    let mut from = 0;
    while from < present.len() {
        let same = present[from..].iter().take_while(|(key, _)| *key == present[from].0).count();
        for (_, at) in &present[from..from + same] {
            beaten[*at] = scale * (2 * from + same - 1) as f64;
        }
        from += same;
    }
    // Whoever is alone is neither good nor bad.
    if present.len() == 1 && ends.len() > 1 {
        beaten[present[0].1] = ends.len() as f64 - 1.0;
    }
    beaten
}

#[cfg(test)]
mod tests {
    use super::End::{Completed, Diverged, Failed};
    use super::*;

    fn ends(list: &[End]) -> Vec<(u32, End)> {
        (0..).zip(list.iter().copied()).collect()
    }

    fn order(cells: &[&[End]], larger: bool) -> (Vec<usize>, Vec<Option<f64>>) {
        let cells: Vec<Vec<(u32, End)>> = cells.iter().map(|cell| ends(cell)).collect();
        let ranks = Ranks::of(&cells.iter().map(Vec::as_slice).collect::<Vec<_>>(), larger);
        let mean_ranks = ranks.plain();
        (ranks.order(&mean_ranks), mean_ranks)
    }

    #[test]
    fn a_cell_in_which_all_diverged_is_last_whatever_the_others_lost() {
        // An overconfident network loses more than one that knows nothing, ln 10 = 2.3.
        let (order, ranks) = order(&[&[Diverged; 3], &[Completed(9.0); 3], &[Completed(f64::INFINITY); 3]], false);
        assert_eq!((order, ranks), (vec![1, 2, 0], vec![Some(3.0), Some(1.0), Some(2.0)]));
    }

    #[test]
    fn survivors_of_many_that_diverged_do_not_win() {
        let survivor = [Completed(0.9), Diverged, Diverged, Diverged];
        let (best, _) = order(&[&survivor, &[Completed(0.5), Completed(0.6), Completed(0.5), Completed(0.6)]], true);
        assert_eq!(best, [1, 0]);
    }

    #[test]
    fn equals_share_their_rank_and_go_by_their_means() {
        let (best, ranks) = order(&[&[Completed(1.0), Completed(2.0)], &[Completed(3.0), Completed(1.0)]], true);
        assert_eq!((best, ranks), (vec![1, 0], vec![Some(1.5), Some(1.5)]));
        let (best, ranks) = order(&[&[Completed(1.0); 2], &[Completed(1.0); 2], &[Completed(0.0); 2]], true);
        assert_eq!((best, ranks), (vec![0, 1, 2], vec![Some(1.5), Some(1.5), Some(3.0)]));
        let (_, ranks) = order(&[&[Completed(0.0)], &[Completed(-0.0)]], true);
        assert_eq!(ranks, [Some(1.5), Some(1.5)]);
    }

    #[test]
    fn only_repeats_that_all_have_count_and_failures_say_nothing() {
        let a = [(0, Completed(1.0)), (1, Completed(0.0)), (2, Completed(0.0))];
        let (b, c) = ([(0, Completed(2.0)), (2, Failed), (7, Completed(0.0))], ends(&[Completed(3.0); 3]));
        let ranks = Ranks::of(&[&a, &b, &c], false);
        assert_eq!(ranks.repeats(), [0, 2]);
        assert_eq!(ranks.plain(), [Some(1.0), Some(2.0), Some(3.0)], "of two that are left, the last is the last");
        assert_eq!((ranks.share(2, 1), ranks.share(0, 1), ranks.share(1, 1)), (None, Some(0.5), None));
        assert_eq!(ranks.mean_ranks(&[0.0, 1.0]), [Some(1.0), None, Some(3.0)]);
        assert_eq!(ranks.order(&ranks.mean_ranks(&[0.0, 1.0])), [0, 2, 1]);
        let lone = Ranks::of(&[&a[..1], &[(0, Failed)]], true);
        assert_eq!((lone.plain(), lone.order(&lone.plain())), (vec![Some(1.5), None], vec![0, 1]));
    }

    #[test]
    fn in_complete_repeats_the_mean_rank_counts_those_that_won() {
        // Against the definition: one more than the number of others that did better, half of those that did as well.
        let mut stream = ergodic_common::seed::fixed_stream("ranks", 0);
        let cells: Vec<Vec<(u32, End)>> = (0..7)
            .map(|_| {
                let mut end = || match stream.below(5) {
                    0 => Diverged,
                    value => Completed(f64::from(value)),
                };
                (0..11).map(|repeat| (repeat, end())).collect()
            })
            .collect();
        let ranks = Ranks::of(&cells.iter().map(Vec::as_slice).collect::<Vec<_>>(), true).plain();
        let good = |end: End| if let Completed(value) = end { value } else { f64::NEG_INFINITY };
        for (at, cell) in cells.iter().enumerate() {
            let wins = |(repeat, end): &(u32, End)| {
                let others = cells.iter().enumerate().filter(|(other, _)| *other != at);
                others
                    .map(|(_, other)| match good(other[*repeat as usize].1).total_cmp(&good(*end)) {
                        Ordering::Greater => 1.0,
                        Ordering::Equal => 0.5,
                        Ordering::Less => 0.0,
                    })
                    .sum::<f64>()
            };
            let wanted = 1.0 + cell.iter().map(wins).sum::<f64>() / 11.0;
            assert!((ranks[at].expect("ranked") - wanted).abs() < 1e-12, "{at}");
        }
    }
}
