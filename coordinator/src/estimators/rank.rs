//! Which cells are better than others: by the ranks of their trials within each repeat.
//!
//! The trials of a repeat share their random streams, so that they are ranked among each other, a diverged one last, equals
//! sharing their mean rank; a cell is as good as the mean of its ranks. Unlike means, ranks have a place for trials without a
//! value, and no single trial outweighs all others. Whatever chooses cells does so by this: halving, the star of tables,
//! `--top`, and the probability that a cell is the best.
//!
//! Where cells have different repeats, because some lag behind, each repeat is ranked among the cells that have it, and its ranks
//! are moved by how strong these are: a cell's rank in a repeat is that of its own strength against the mean strength of those that
//! it met, and strengths are fitted to all ranks by least squares, as in an incomplete block design. So all repeats count, and
//! having met the weak alone is worth nothing. A cell that lacks repeats and has fewer than twenty is then taken as if it had
//! been the last one in two more: to have been lucky a few times is not to be the best. What it lacks is not held against it
//! otherwise.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TrialEnd {
    /// With this value, which may be infinite; without a number, it counts as diverged.
    Completed(f64),
    /// The trial diverged: worse than any value.
    Diverged,
    /// The trial failed, which says nothing about its cell.
    Failed,
}

/// Ranks of contenders within repeats.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranks {
    contenders: usize,
    /// The repeats that any of them has.
    repeats: Vec<u32>,
    by_repeat: Vec<RepeatRanks>,
    /// Whether larger values are better.
    larger_is_better: bool,
    /// Mean of the finite values.
    means: Vec<Option<f64>>,
}

/// A repeat.
#[derive(Debug, Clone, PartialEq)]
struct RepeatRanks {
    /// Each contender that has it, in order, with twice the number of contenders that did better, equals counting half; NaN where it
    /// failed. Where others failed, or lack it, this is scaled to as many contenders as there are, so that whole numbers stay whole.
    beaten_by: Vec<(usize, f64)>,
    /// What is to be added to it, because those that have the repeat are better than all are; 0 where all have it.
    strength: f64,
}

impl Ranks {
    /// Ranks contenders, each with its ends in the order of repeats.
    pub fn from_ends(contenders: &[&[(u32, TrialEnd)]], larger_is_better: bool) -> Self {
        let size = contenders.len();
        let (repeats, mut by_repeat): (Vec<u32>, Vec<RepeatRanks>) = group_by_repeat(contenders)
            .into_iter()
            .map(|(repeat, ends)| {
                let ranks = RepeatRanks {
                    beaten_by: rank_repeat(&ends, size, larger_is_better),
                    strength: 0.0,
                };
                (repeat, ranks)
            })
            .unzip();
        if by_repeat.iter().any(|round| round.beaten_by.len() < size) {
            fit_strengths(&mut by_repeat, size);
        }

        let means = contenders.iter().map(|own| mean_of_finite(own)).collect();
        Self {
            contenders: size,
            repeats,
            by_repeat,
            larger_is_better,
            means,
        }
    }

    /// The repeats that any contender has.
    pub fn repeats(&self) -> &[u32] {
        &self.repeats
    }

    /// Mean rank of each contender with so much weight on each repeat; none where it has no weight. 1 is the best there is, but for
    /// what strengths of others add to it.
    pub fn mean_ranks(&self, weights: &[f64]) -> Vec<Option<f64>> {
        let mut sums = vec![WeightedRankSum::default(); self.contenders];
        for (weight, round) in weights
            .iter()
            .zip(&self.by_repeat)
            .filter(|(weight, _)| **weight > 0.0)
        {
            for (at, beaten) in &round.beaten_by {
                sums[*at].add_repeat(*weight, beaten + round.strength);
            }
        }

        let most = sums
            .iter()
            .fold(0.0, |most: f64, sum| most.max(sum.present_weight))
            .min(WELL_KNOWN_REPEATS);
        let worst = 2.0 * (self.contenders as f64 - 1.0);
        sums.iter()
            .map(|sum| Some(1.0 + 0.5 * sum.penalized_mean(most, worst)?))
            .collect()
    }

    /// Mean rank of each contender over all repeats.
    pub fn unweighted_mean_ranks(&self) -> Vec<Option<f64>> {
        self.mean_ranks(&vec![1.0; self.repeats.len()])
    }

    /// Contenders by their mean ranks, the best one first; equals by their means, and then in their own order.
    pub fn order_best_first(&self, mean_ranks: &[Option<f64>]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.contenders).collect();
        order.sort_by(|a, b| self.compare_contenders(mean_ranks, *a, *b).then(a.cmp(b)));
        order
    }

    /// Which of two is better, by mean ranks and then by means.
    pub fn compare_contenders(&self, mean_ranks: &[Option<f64>], a: usize, b: usize) -> Ordering {
        better_first(
            (mean_ranks[a], self.means[a]),
            (mean_ranks[b], self.means[b]),
            self.larger_is_better,
        )
    }

    /// What a contender did in a repeat, as the share of the others that did better, of those that have it; none where it failed.
    pub fn share_beaten_by(&self, repeat: u32, contender: usize) -> Option<f64> {
        let round = &self.by_repeat[self.repeats.binary_search(&repeat).ok()?];
        let at = match round.beaten_by.len() == self.contenders {
            true => contender,
            false => round
                .beaten_by
                .binary_search_by_key(&contender, |(at, _)| *at)
                .ok()?,
        };
        let beaten = round.beaten_by[at].1;

        (!beaten.is_nan()).then(|| 0.5 * beaten / (self.contenders as f64 - 1.0).max(1.0))
    }
}

/// Which of two is better, each with its mean rank and its mean.
pub fn better_first(
    a: (Option<f64>, Option<f64>),
    b: (Option<f64>, Option<f64>),
    larger: bool,
) -> Ordering {
    let sign = if larger { -1.0 } else { 1.0 };
    least_first(a.0, b.0)
        .then_with(|| least_first(a.1.map(|mean| sign * mean), b.1.map(|mean| sign * mean)))
}

/// The smaller one first; nothing last.
fn least_first(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// Repeats at the worst that are added for a contender that lacks some. With two, one of 5 to 100 equal contenders that has 1 to all of
/// 10 to 50 repeats comes first about as often as each of the others, or less; with one up to three times as often.
const WORST_CASE_REPEATS: f64 = 2.0;

/// Repeats from which on a contender is known by what it did, and none are added: of many contenders, those would outweigh that it
/// beats another one in all that both have.
const WELL_KNOWN_REPEATS: f64 = 20.0;

/// What a contender did in weighted repeats.
#[derive(Debug, Clone, Copy, Default)]
struct WeightedRankSum {
    beaten_by: f64,
    /// Weight of the repeats in which it did not fail.
    weight: f64,
    /// Weight of those that it has.
    present_weight: f64,
}

impl WeightedRankSum {
    fn add_repeat(&mut self, weight: f64, beaten: f64) {
        self.present_weight += weight;
        if !beaten.is_nan() {
            self.beaten_by += weight * beaten;
            self.weight += weight;
        }
    }

    /// The mean; of whoever has less than this weight, with repeats at the worst, on the scale of those that have it, which these
    /// would move alike.
    fn penalized_mean(&self, most: f64, worst: f64) -> Option<f64> {
        let mean = Some(self.beaten_by / self.weight).filter(|_| self.weight > 0.0)?;
        if self.present_weight >= most {
            return Some(mean);
        }
        let with_the_worst = (self.present_weight * mean + WORST_CASE_REPEATS * worst)
            / (self.present_weight + WORST_CASE_REPEATS);
        Some(((most + WORST_CASE_REPEATS) * with_the_worst - WORST_CASE_REPEATS * worst) / most)
    }
}

fn mean_of_finite(ends: &[(u32, TrialEnd)]) -> Option<f64> {
    let finite = ends.iter().filter_map(|(_, end)| match end {
        TrialEnd::Completed(value) => Some(*value).filter(|x| x.is_finite()),
        _ => None,
    });
    let (sum, n) = finite.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    (n > 0.0).then(|| sum / n)
}

/// The ends of each repeat, each with the index of its contender.
fn group_by_repeat(contenders: &[&[(u32, TrialEnd)]]) -> BTreeMap<u32, Vec<(usize, TrialEnd)>> {
    let mut ends: BTreeMap<u32, Vec<(usize, TrialEnd)>> = BTreeMap::new();
    for (at, own) in contenders.iter().enumerate() {
        for (repeat, end) in *own {
            ends.entry(*repeat).or_default().push((at, *end));
        }
    }
    ends
}

/// For each end of one repeat, twice the number of the `size` contenders that did better; see [`RepeatRanks::beaten`].
fn rank_repeat(ends: &[(usize, TrialEnd)], size: usize, larger: bool) -> Vec<(usize, f64)> {
    let sign = if larger { -1.0 } else { 1.0 };
    // The smaller, the better; diverged after all values, infinite ones too.
    let key = |end: &TrialEnd| match end {
        TrialEnd::Completed(value) if !value.is_nan() => Some((false, sign * value + 0.0)),
        TrialEnd::Completed(_) | TrialEnd::Diverged => Some((true, 0.0)),
        TrialEnd::Failed => None,
    };
    let mut present: Vec<((bool, f64), usize)> = ends
        .iter()
        .enumerate()
        .filter_map(|(at, (_, end))| Some((key(end)?, at)))
        .collect();
    present.sort_unstable_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));

    let others = present.len().saturating_sub(1) as f64;
    let scale = if others > 0.0 {
        (size as f64 - 1.0) / others
    } else {
        0.0
    };

    let mut beaten: Vec<(usize, f64)> = ends
        .iter()
        .map(|(contender, _)| (*contender, f64::NAN))
        .collect();
    let mut from = 0;
    while from < present.len() {
        let same = present[from..]
            .iter()
            .take_while(|(key, _)| *key == present[from].0)
            .count();
        for (_, at) in &present[from..from + same] {
            beaten[*at].1 = scale * (2 * from + same - 1) as f64;
        }

        from += same;
    }

    // A contender without others is neither good nor bad.
    if present.len() == 1 && size > 1 {
        beaten[present[0].1].1 = size as f64 - 1.0;
    }

    beaten
}

/// Most steps towards the strengths. Those of parts that have hardly a repeat in common take many; stopped early, parts are taken as
/// more alike than they are.
const MAX_STEPS: usize = 300;

/// Finds what each repeat's ranks have to be moved by: the mean strength of those that have it, each being as strong as its ranks,
/// moved so, are better than the middle. A failed trial counts as one of its contender's strength.
fn fit_strengths(rounds: &mut [RepeatRanks], size: usize) {
    let middle = size as f64 - 1.0;
    for _ in 0..MAX_STEPS {
        let mut sums = vec![WeightedRankSum::default(); size];
        for round in rounds.iter() {
            round
                .beaten_by
                .iter()
                .for_each(|(at, beaten)| sums[*at].add_repeat(1.0, beaten + round.strength));
        }

        let above: Vec<Option<f64>> = sums
            .iter()
            .map(|sum| (sum.weight > 0.0).then(|| sum.beaten_by / sum.weight - middle))
            .collect();
        let of_all = mean_of_present(above.iter().copied());
        let mut moved = 0.0_f64;

        for round in rounds.iter_mut() {
            let strength =
                mean_of_present(round.beaten_by.iter().map(|(at, _)| above[*at])) - of_all;
            moved = moved.max((strength - round.strength).abs());
            round.strength = strength;
        }

        if moved <= 1e-10 * middle {
            break;
        }
    }
}

/// Mean of what there is, 0 of nothing.
fn mean_of_present(values: impl Iterator<Item = Option<f64>>) -> f64 {
    let (sum, n) = values
        .flatten()
        .fold((0.0, 0.0_f64), |(sum, n), x| (sum + x, n + 1.0));
    sum / n.max(1.0)
}

/// What a cell's trials came to, in the order of repeats.
pub type CellEnds = Vec<(u32, TrialEnd)>;

#[cfg(test)]
mod tests {
    use super::TrialEnd::{Completed, Diverged, Failed};
    use crate::estimators::rank::*;

    fn ends(list: &[TrialEnd]) -> Vec<(u32, TrialEnd)> {
        (0..).zip(list.iter().copied()).collect()
    }

    fn order(cells: &[&[TrialEnd]], larger: bool) -> (Vec<usize>, Vec<Option<f64>>) {
        let cells: Vec<Vec<(u32, TrialEnd)>> = cells.iter().map(|cell| ends(cell)).collect();
        let ranks = Ranks::from_ends(&cells.iter().map(Vec::as_slice).collect::<Vec<_>>(), larger);
        let mean_ranks = ranks.unweighted_mean_ranks();
        (ranks.order_best_first(&mean_ranks), mean_ranks)
    }

    #[test]
    fn a_cell_in_which_all_diverged_is_last_whatever_the_others_lost() {
        // An overconfident network loses more than one that knows nothing, ln 10 = 2.3.
        let (order, ranks) = order(
            &[
                &[Diverged; 3],
                &[Completed(9.0); 3],
                &[Completed(f64::INFINITY); 3],
            ],
            false,
        );

        assert_eq!(
            (order, ranks),
            (vec![1, 2, 0], vec![Some(3.0), Some(1.0), Some(2.0)])
        );
    }

    #[test]
    fn survivors_of_many_that_diverged_do_not_win() {
        let survivor = [Completed(0.9), Diverged, Diverged, Diverged];
        let (best, _) = order(
            &[
                &survivor,
                &[
                    Completed(0.5),
                    Completed(0.6),
                    Completed(0.5),
                    Completed(0.6),
                ],
            ],
            true,
        );

        assert_eq!(best, [1, 0]);
    }

    #[test]
    fn equals_share_their_rank_and_go_by_their_means() {
        let (best, ranks) = order(
            &[
                &[Completed(1.0), Completed(2.0)],
                &[Completed(3.0), Completed(1.0)],
            ],
            true,
        );
        assert_eq!((best, ranks), (vec![1, 0], vec![Some(1.5), Some(1.5)]));

        let (best, ranks) = order(
            &[
                &[Completed(1.0); 2],
                &[Completed(1.0); 2],
                &[Completed(0.0); 2],
            ],
            true,
        );
        assert_eq!(
            (best, ranks),
            (vec![0, 1, 2], vec![Some(1.5), Some(1.5), Some(3.0)])
        );

        let (_, ranks) = order(&[&[Completed(0.0)], &[Completed(-0.0)]], true);
        assert_eq!(ranks, [Some(1.5), Some(1.5)]);
    }

    #[test]
    fn failures_say_nothing() {
        let a = [(0, Completed(1.0)), (2, Completed(0.0))];
        let b = [(0, Completed(2.0)), (2, Failed)];
        let c = [(0, Completed(3.0)), (2, Completed(3.0))];
        let ranks = Ranks::from_ends(&[&a, &b, &c], false);
        assert_eq!(ranks.repeats(), [0, 2]);
        assert_eq!(
            ranks.unweighted_mean_ranks(),
            [Some(1.0), Some(2.0), Some(3.0)],
            "of two that are left, the last is the last"
        );

        assert_eq!(
            (
                ranks.share_beaten_by(2, 1),
                ranks.share_beaten_by(0, 1),
                ranks.share_beaten_by(1, 1)
            ),
            (None, Some(0.5), None)
        );

        assert_eq!(ranks.mean_ranks(&[0.0, 1.0]), [Some(1.0), None, Some(3.0)]);
        assert_eq!(
            ranks.order_best_first(&ranks.mean_ranks(&[0.0, 1.0])),
            [0, 2, 1]
        );
        let lone = Ranks::from_ends(&[&a[..1], &[(0, Failed)]], true);
        assert_eq!(
            (
                lone.unweighted_mean_ranks(),
                lone.order_best_first(&lone.unweighted_mean_ranks())
            ),
            (vec![Some(1.5), None], vec![0, 1])
        );
    }

    /// Ranks of cells, each with its values by repeat, of which more is better.
    fn lacking(cells: &[Vec<(u32, f64)>]) -> Ranks {
        let cells: Vec<Vec<(u32, TrialEnd)>> = cells
            .iter()
            .map(|cell| {
                cell.iter()
                    .map(|(repeat, value)| (*repeat, Completed(*value)))
                    .collect()
            })
            .collect();

        Ranks::from_ends(&cells.iter().map(Vec::as_slice).collect::<Vec<_>>(), true)
    }

    #[test]
    fn a_cell_that_lags_takes_no_repeat_from_the_others_and_gains_nothing_by_it() {
        // In the one repeat that all have, the best of the three is the last one, and who lags has won.
        let of = |value: f64| {
            (0..12)
                .map(|repeat| (repeat, if repeat == 0 { -value } else { value }))
                .collect()
        };
        let mut cells: Vec<Vec<(u32, f64)>> = vec![of(1.0), of(2.0), of(3.0), vec![(0, 9.0)]];
        let ranks = lacking(&cells);
        let order = ranks.order_best_first(&ranks.unweighted_mean_ranks());
        assert_eq!(
            order
                .iter()
                .filter(|at| **at < 3)
                .copied()
                .collect::<Vec<_>>(),
            [2, 1, 0]
        );

        assert_eq!(
            order[0],
            2,
            "who won one repeat is not the best: {:?}",
            ranks.unweighted_mean_ranks()
        );

        // What it did not measure says nothing against it: with half of the repeats, all won, it is the best.
        cells[3] = (0..6).map(|repeat| (repeat, 9.0)).collect();
        let ranks = lacking(&cells);
        assert_eq!(
            ranks.order_best_first(&ranks.unweighted_mean_ranks())[0],
            3,
            "{:?}",
            ranks.unweighted_mean_ranks()
        );

        assert_eq!(ranks.share_beaten_by(11, 3), None);
        // Whatever it does, having done it in more repeats is no worse.
        for value in [0.5, 1.5, 2.5, 9.0] {
            let mut rank_with = |n: u32| {
                let of = |repeat: u32| (repeat, if repeat == 0 { value - 4.0 } else { value });
                cells[3] = (0..n).map(of).collect();
                lacking(&cells).unweighted_mean_ranks()[3].expect("ranked")
            };
            let ranks = [3, 6, 9, 12].map(&mut rank_with);
            assert!(
                ranks.windows(2).all(|two| two[0] + 1e-8 >= two[1]),
                "{value}: {ranks:?}"
            );
        }
    }

    #[test]
    fn who_met_the_weak_alone_is_not_the_best() {
        // Ten cells that were added are better than the twenty that go on without them.
        let value =
            |cell: u32, repeat: u32| f64::from(cell) + f64::from((cell * 7 + repeat * 5) % 4);
        let old = (0..20).map(|cell| {
            (0..50)
                .map(|repeat| (repeat, value(cell, repeat)))
                .collect()
        });

        let added =
            (24..34).map(|cell| (0..8).map(|repeat| (repeat, value(cell, repeat))).collect());
        let cells: Vec<Vec<(u32, f64)>> = old.chain(added).collect();
        let ranks = lacking(&cells);
        let order = ranks.order_best_first(&ranks.unweighted_mean_ranks());
        assert_eq!(
            order[..3],
            [29, 28, 27],
            "{:?}",
            ranks.unweighted_mean_ranks()
        );

        // A contender that met the worst of them in a repeat that no other one has.
        let mut cells: Vec<Vec<(u32, f64)>> = cells[..20].to_vec();
        cells[0].push((50, 0.0));
        cells.push(vec![(50, 1.0)]);
        let ranks = lacking(&cells);
        assert!(
            ranks.order_best_first(&ranks.unweighted_mean_ranks())[..5]
                .iter()
                .all(|at| *at < 20),
            "{:?}",
            ranks.unweighted_mean_ranks()
        );
    }

    #[test]
    fn who_beats_another_in_all_repeats_of_many_is_before_it_however_many_there_are() {
        // A steady cell is known after 40 repeats, a noisy one that is always worse goes on.
        let noisy = |repeat: u32| 0.93 + 0.01 * f64::from(repeat * 7 % 10) / 10.0;
        let mut cells: Vec<Vec<(u32, f64)>> = vec![
            (0..40).map(|repeat| (repeat, 0.95)).collect(),
            (0..500).map(|repeat| (repeat, noisy(repeat))).collect(),
        ];
        let others = (2..250).map(|cell| {
            (0..40)
                .map(|repeat| (repeat, 0.9 - 0.001 * f64::from(cell)))
                .collect()
        });
        cells.extend(others);

        let ranks = lacking(&cells);
        assert_eq!(
            ranks.order_best_first(&ranks.unweighted_mean_ranks())[..3],
            [0, 1, 2],
            "{:?}",
            &ranks.unweighted_mean_ranks()[..3]
        );
    }

    #[test]
    fn in_complete_repeats_the_mean_rank_counts_those_that_won() {
        // Against the definition: one more than the number of others that did better, half of those that did as well.
        let mut stream = ergodic_common::random_streams::fixed_stream("ranks", 0);
        let cells: Vec<Vec<(u32, TrialEnd)>> = (0..7)
            .map(|_| {
                let mut end = || match stream.next_below(5) {
                    0 => Diverged,
                    value => Completed(f64::from(value)),
                };
                (0..11).map(|repeat| (repeat, end())).collect()
            })
            .collect();
        let ranks = Ranks::from_ends(&cells.iter().map(Vec::as_slice).collect::<Vec<_>>(), true)
            .unweighted_mean_ranks();

        let good = |end: TrialEnd| {
            if let Completed(value) = end {
                value
            } else {
                f64::NEG_INFINITY
            }
        };

        for (at, cell) in cells.iter().enumerate() {
            let wins = |(repeat, end): &(u32, TrialEnd)| {
                let others = cells.iter().enumerate().filter(|(other, _)| *other != at);
                others
                    .map(|(_, other)| {
                        match good(other[*repeat as usize].1).total_cmp(&good(*end)) {
                            Ordering::Greater => 1.0,
                            Ordering::Equal => 0.5,
                            Ordering::Less => 0.0,
                        }
                    })
                    .sum::<f64>()
            };
            let wanted = 1.0 + cell.iter().map(wins).sum::<f64>() / 11.0;

            assert!((ranks[at].expect("ranked") - wanted).abs() < 1e-12, "{at}");
        }
    }
}
