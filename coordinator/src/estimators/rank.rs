//! Ranking of cells by the ranks of their trials within each repeat.
//!
//! The trials of a repeat share their random streams, so they are ranked among each other. Diverged
//! ones come last, and equal ones share their mean rank. A cell is ordered by its mean rank. Unlike
//! means, ranks have a place for trials without a value, and no single trial outweighs all others.
//! Every choice among cells uses this order: halving, the star of tables, `--top`, and the
//! probability that a cell is the best.
//!
//! If cells have different repeats, because some lag behind, each repeat is ranked among the cells
//! that have it, and its ranks are shifted by the strength of these. A cell's rank in a repeat
//! compares its own strength with the mean strength of those that it met, and strengths are fitted
//! to all ranks by least squares, as in an incomplete block design. So all repeats count, and
//! having met only weak cells gains nothing. A cell that lacks repeats and has fewer than twenty is
//! treated as if it had been last in two more, because a few lucky repeats do not make it the best.
//! Missing repeats have no other effect.

use std::cmp::Ordering;

/// The end of a trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TrialEnd {
    /// The trial completed with this value, which may be infinite. NaN counts as diverged.
    Completed(f64),
    /// The trial diverged, which is worse than any value.
    Diverged,
    /// The trial failed, which says nothing about its cell.
    Failed,
}

/// Ranks of contenders within repeats.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranks {
    contenders: usize,
    /// Repeats that any contender has.
    repeats: Vec<u32>,
    by_repeat: Vec<RepeatRanks>,
    /// Whether larger values are better.
    larger_is_better: bool,
    /// Mean of each contender's finite values.
    means: Vec<Option<f64>>,
}

/// The ranks within a repeat.
#[derive(Debug, Clone, PartialEq)]
struct RepeatRanks {
    /// Each contender with the repeat, in order, with twice the number of contenders that did
    /// better; equal ones count half, and failed ones have NaN. If others failed or lack the
    /// repeat, the number is scaled to all contenders. Doubling keeps whole numbers whole.
    beaten_by: Vec<(usize, f64)>,
    /// Shift of the ranks for the strength of the contenders that have the repeat; 0 if all have
    /// it.
    strength: f64,
}

impl Ranks {
    /// Ranks contenders by their ends, which are in the order of repeats.
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

    /// Mean rank of each contender with these weights of repeats; `None` without weight. 1 is the
    /// best rank, apart from shifts for strength.
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

    /// Orders contenders by mean rank, best first; ties by their means, and then by position.
    pub fn order_best_first(&self, mean_ranks: &[Option<f64>]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.contenders).collect();
        order.sort_by(|a, b| self.compare_contenders(mean_ranks, *a, *b).then(a.cmp(b)));
        order
    }

    /// Compares two contenders by mean rank and then by mean.
    pub fn compare_contenders(&self, mean_ranks: &[Option<f64>], a: usize, b: usize) -> Ordering {
        better_first(
            (mean_ranks[a], self.means[a]),
            (mean_ranks[b], self.means[b]),
            self.larger_is_better,
        )
    }

    /// Share of the other contenders of a repeat that did better; `None` if the contender failed or
    /// lacks the repeat.
    pub fn share_beaten_by(&self, repeat: u32, contender: usize) -> Option<f64> {
        let round = &self.by_repeat[find_repeat(&self.repeats, repeat, |there| *there)?];
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

/// The index of a repeat in a list in the order of repeats.
pub fn find_repeat<T>(list: &[T], repeat: u32, repeat_of: impl Fn(&T) -> u32) -> Option<usize> {
    // A list normally has all repeats from 0 on, so the repeat is found without a search.
    let at = repeat as usize;
    if list.get(at).is_some_and(|there| repeat_of(there) == repeat) {
        return Some(at);
    }
    list.binary_search_by_key(&repeat, repeat_of).ok()
}

/// Compares two contenders, each with its mean rank and mean; the better one is less.
pub fn better_first(
    a: (Option<f64>, Option<f64>),
    b: (Option<f64>, Option<f64>),
    larger: bool,
) -> Ordering {
    let sign = if larger { -1.0 } else { 1.0 };
    least_first(a.0, b.0)
        .then_with(|| least_first(a.1.map(|mean| sign * mean), b.1.map(|mean| sign * mean)))
}

/// Orders the smaller value first and `None` last.
fn least_first(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// Number of worst-case repeats that are added for a contender that lacks some. With two, one of 5
/// to 100 equal contenders that has 1 to all of 10 to 50 repeats comes first about as often as each
/// of the others, or less; with one, up to three times as often.
const WORST_CASE_REPEATS: f64 = 2.0;

/// Number of repeats from which on no worst-case repeats are added. With many contenders, they
/// would outweigh that a contender beats another one in all common repeats.
const WELL_KNOWN_REPEATS: f64 = 20.0;

/// The weighted ranks of a contender.
#[derive(Debug, Clone, Copy, Default)]
struct WeightedRankSum {
    beaten_by: f64,
    /// Weight of the repeats in which the contender did not fail.
    weight: f64,
    /// Weight of the repeats that the contender has.
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

    /// The mean, with worst-case repeats added for a contender with less than the weight `most`.
    /// The added repeats are on the scale of contenders that have a repeat, whose ranks its strength would
    /// shift alike.
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

/// The ends of one repeat, each with the index of its contender.
type RepeatEnds = Vec<(usize, TrialEnd)>;

/// Groups the ends by repeat, in the order of repeats.
fn group_by_repeat(contenders: &[&[(u32, TrialEnd)]]) -> Vec<(u32, RepeatEnds)> {
    let mut groups: Vec<(u32, RepeatEnds)> = Vec::new();
    for (contender, own) in contenders.iter().enumerate() {
        let mut next = 0;
        for (repeat, end) in *own {
            // Contenders normally have the same repeats, so the next group is found without a
            // search.
            let at = match groups.get(next) {
                Some((there, _)) if there == repeat => next,
                _ => groups
                    .binary_search_by_key(repeat, |(there, _)| *there)
                    .unwrap_or_else(|at| {
                        groups.insert(at, (*repeat, Vec::with_capacity(contenders.len())));
                        at
                    }),
            };

            groups[at].1.push((contender, *end));
            next = at + 1;
        }
    }

    groups
}

/// A key by which the better ends of a repeat come first; `None` for a failed trial.
fn order_key(end: &TrialEnd, larger_is_better: bool) -> Option<i64> {
    let sign = if larger_is_better { -1.0 } else { 1.0 };
    match end {
        // Adding 0.0 makes both zeros equal.
        TrialEnd::Completed(value) if !value.is_nan() => Some(ordered_bits(sign * value + 0.0)),
        // Divergence comes after every value, even an infinite one.
        TrialEnd::Completed(_) | TrialEnd::Diverged => Some(i64::MAX),
        TrialEnd::Failed => None,
    }
}

/// The bits of a double as a number, so that numbers have the order of [`f64::total_cmp`]. Numbers
/// are sorted faster.
fn ordered_bits(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

/// For each end of one repeat, twice the number of the `size` contenders that did better; see [`RepeatRanks::beaten`].
fn rank_repeat(ends: &[(usize, TrialEnd)], size: usize, larger: bool) -> Vec<(usize, f64)> {
    let mut present: Vec<(i64, usize)> = Vec::with_capacity(ends.len());
    present.extend(
        ends.iter()
            .enumerate()
            .filter_map(|(at, (_, end))| Some((order_key(end, larger)?, at))),
    );
    present.sort_unstable_by_key(|(key, _)| *key);

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

    // A contender alone in its repeat gets the middle rank, because it was compared with nobody.
    if present.len() == 1 && size > 1 {
        beaten[present[0].1].1 = size as f64 - 1.0;
    }

    beaten
}

/// Maximum number of steps in fitting strengths. Groups with hardly a common repeat take many;
/// after an early stop they count as more alike than they are.
const MAX_STEPS: usize = 300;

/// Fits the shift of each repeat: the mean strength of the contenders that have it, where each is
/// as strong as its shifted ranks are better than the middle. A failed trial counts with its
/// contender's strength.
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

/// Mean of the present values; 0 if there are none.
fn mean_of_present(values: impl Iterator<Item = Option<f64>>) -> f64 {
    let (sum, n) = values
        .flatten()
        .fold((0.0, 0.0_f64), |(sum, n), x| (sum + x, n + 1.0));
    sum / n.max(1.0)
}

/// The ends of a cell's trials, in the order of repeats.
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
