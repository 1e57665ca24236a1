//! Comparison of two cells repeat by repeat. Trials of one repeat share their random streams.

use std::cmp::Ordering;

use super::Sample;
use super::crossed::Crossing;
use super::special::{fair_binomial_cdf, normal_upper_tail};

/// The differences between two cells over their common repeats. Values are `None` if there are too
/// few repeats.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PairedDifferences {
    /// Number of common repeats.
    pub n: u64,
    /// Mean of the cell over the common repeats.
    pub mean: Option<f64>,
    /// Mean of the baseline over the common repeats.
    pub baseline: Option<f64>,
    /// Mean difference, cell minus baseline.
    pub difference: Option<f64>,
    /// Standard deviation of the differences; from 2 repeats on.
    pub std: Option<f64>,
    /// Confidence interval of the mean difference by Student's t; from 2 repeats on.
    pub interval: Option<(f64, f64)>,
    /// Number of repeats in which the cell is above the baseline.
    pub above: u64,
    /// Number of repeats in which the cell is below the baseline.
    pub below: u64,
    /// Two-sided p of the sign test, equal repeats left out; from 2 repeats on.
    pub sign_p: Option<f64>,
    /// Wilcoxon's signed-rank test, two-sided; from 2 repeats on.
    pub wilcoxon: Option<SignedRankTest>,
    /// Pearson correlation between cell and baseline; `None` also if one of them is constant.
    pub correlation: Option<f64>,
    /// Number of repeats of each cell that an unpaired comparison would need for the same standard
    /// error; `None` also if all differences are equal.
    pub unpaired_repeats: Option<f64>,
}

impl PairedDifferences {
    /// Compares values of common repeats: (cell, baseline).
    pub fn from_pairs(pairs: &[(f64, f64)], level: f64) -> Self {
        let cell = Sample::new(pairs.iter().map(|(cell, _)| *cell).collect());
        let baseline = Sample::new(pairs.iter().map(|(_, baseline)| *baseline).collect());
        let rounded = rounded_differences(pairs);
        let differences = Sample::new(rounded.clone());
        let count =
            |sign: Ordering| rounded.iter().filter(|d| d.total_cmp(&0.0) == sign).count() as u64;
        let above = count(Ordering::Greater);

        let below = count(Ordering::Less);
        let enough = pairs.len() > 1;
        let variances = cell.variance().zip(baseline.variance());
        Self {
            n: pairs.len() as u64,
            mean: cell.mean(),
            baseline: baseline.mean(),
            difference: differences.mean(),
            std: differences.std(),
            interval: differences.t_interval(level),
            above,
            below,
            sign_p: enough.then(|| sign_test(above, below)),
            wilcoxon: enough.then(|| {
                wilcoxon_signed_rank(
                    &rounded,
                    &pairs.iter().map(rounding_bound).collect::<Vec<_>>(),
                )
            }),
            correlation: pearson_correlation(&cell, &baseline),
            unpaired_repeats: variances
                .zip(differences.variance())
                .and_then(|((a, b), paired)| {
                    (paired > 0.0).then(|| pairs.len() as f64 * (a + b) / paired)
                }),
        }
    }

    /// Replaces the interval by that of crossed streams, and removes the statistics that assume
    /// independent repeats.
    pub fn apply_crossing(
        &mut self,
        pairs: &[(f64, f64)],
        repeats: &[u32],
        crossing: &Crossing,
        level: f64,
    ) {
        self.interval = Sample::from_crossed(rounded_differences(pairs), repeats, crossing)
            .t_interval(level)
            .filter(|_| self.n > 1);
        (self.sign_p, self.wilcoxon, self.unpaired_repeats) = (None, None, None);
    }

    /// Number of repeats of each cell that pairing saved; negative if it cost some.
    pub fn saved_repeats(&self) -> Option<f64> {
        self.unpaired_repeats
            .map(|unpaired| unpaired - self.n as f64)
    }
}

/// The differences of pairs, with those set to 0 that are within the rounding of their values.
fn rounded_differences(pairs: &[(f64, f64)]) -> Vec<f64> {
    pairs
        .iter()
        .map(|pair| {
            let difference = pair.0 - pair.1;
            if difference.abs() <= rounding_bound(pair) {
                0.0
            } else {
                difference
            }
        })
        .collect()
}

/// Largest difference that rounding can make between equal values, or between equal differences,
/// such as 0.93 − 0.92 and 0.91 − 0.9. It depends on the pair itself, because large values in
/// another repeat round nothing in this one.
fn rounding_bound((cell, baseline): &(f64, f64)) -> f64 {
    4.0 * f64::EPSILON * cell.abs().max(baseline.abs())
}

/// Two-sided p of the sign test: twice the probability that the rarer sign is as rare or rarer. 1
/// without any sign.
pub fn sign_test(above: u64, below: u64) -> f64 {
    (2.0 * fair_binomial_cdf(above.min(below), above + below)).min(1.0)
}

/// The outcome of Wilcoxon's signed-rank test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignedRankTest {
    /// Two-sided p.
    pub p: f64,
    /// Whether p is exact, or from the normal approximation with the correction for ties.
    pub exact: bool,
}

/// Maximum sample size for an exact p without zeros and ties.
const MAX_EXACT: usize = 50;
/// Maximum sample size for an exact p with zeros or ties.
const MAX_EXACT_WITH_TIES: usize = 13;

/// Wilcoxon's signed-rank test (1945), two-sided. Zeros are left out, and equal sizes share their
/// mean rank. It is exact for at most 50 differences without zeros and ties, and for at most 13
/// with them, and otherwise uses the normal approximation with correction for ties and without
/// continuity correction, as `scipy.stats.wilcoxon` does by default. `close` has the rounding of
/// each difference; sizes that differ by no more than the rounding of either are ties. Without any
/// difference, p is 1.
pub fn wilcoxon_signed_rank(differences: &[f64], close: &[f64]) -> SignedRankTest {
    let both = differences.iter().copied().zip(close.iter().copied());
    let mut signed: Vec<(f64, f64)> = both.filter(|(d, _)| *d != 0.0).collect();
    signed.sort_unstable_by(|(a, x), (b, y)| a.abs().total_cmp(&b.abs()).then(x.total_cmp(y)));

    // Ranks are doubled, so that tied ranks are integers.
    let mut ranks = Vec::with_capacity(signed.len());
    let mut ties = 0.0;

    while ranks.len() < signed.len() {
        let from = ranks.len();
        let same = count_leading_ties(&signed[from..]);
        ranks.extend(std::iter::repeat_n(2 * from + 1 + same, same));
        ties += (same as f64).powi(3) - same as f64;
    }

    let plus: usize = ranks
        .iter()
        .zip(&signed)
        .filter(|(_, (d, _))| *d > 0.0)
        .map(|(rank, _)| rank)
        .sum();

    let plain = ties == 0.0 && signed.len() == differences.len();
    let most = if plain {
        MAX_EXACT
    } else {
        MAX_EXACT_WITH_TIES
    };
    if differences.len() <= most || signed.is_empty() {
        return SignedRankTest {
            p: exact_signed_rank_p(&ranks, plus),
            exact: true,
        };
    }

    let n = signed.len() as f64;
    let variance = (n * (n + 1.0) * (2.0 * n + 1.0) - 0.5 * ties) / 24.0;
    let z = (0.5 * plus as f64 - 0.25 * n * (n + 1.0)) / variance.sqrt();
    SignedRankTest {
        p: 2.0 * normal_upper_tail(z.abs()),
        exact: false,
    }
}

/// Number of leading differences that are ties of each other, whatever lies between. The
/// differences are sorted by size, each with its rounding.
fn count_leading_ties(sorted: &[(f64, f64)]) -> usize {
    let least = sorted[0].0.abs();
    let mut reach = f64::INFINITY;
    sorted
        .iter()
        .take_while(|(difference, close)| {
            let size = difference.abs();
            let is_tied = size - least <= *close || size <= reach;
            reach = reach.min(size + close);
            is_tied
        })
        .count()
}

/// Twice the smaller tail of the sum of the ranks with a positive sign, if both signs are equally
/// likely.
fn exact_signed_rank_p(ranks: &[usize], plus: usize) -> f64 {
    let most: usize = ranks.iter().sum();
    // `ways[s]` counts the subsets of ranks with sum s. At most 2^50 in all, so `u64` suffices.
    let mut ways = vec![0_u64; most + 1];
    ways[0] = 1;
    let mut reached = 0;

    for rank in ranks {
        reached += rank;
        for sum in (*rank..=reached).rev() {
            ways[sum] += ways[sum - rank];
        }
    }

    // Under the null the distribution is symmetric, so the smaller tail can be summed from 0.
    let tail: u64 = ways[..=plus.min(most - plus)].iter().sum();
    (2.0 * tail as f64 / 2.0_f64.powi(ranks.len() as i32)).min(1.0)
}

fn pearson_correlation(a: &Sample, b: &Sample) -> Option<f64> {
    let mean_a = a.mean()?;
    let mean_b = b.mean()?;
    let products = a
        .values()
        .iter()
        .zip(b.values())
        .map(|(a, b)| (a - mean_a) * (b - mean_b));

    let scale = a.std()? * b.std()? * (a.n() as f64 - 1.0);
    (scale > 0.0).then(|| (super::sample::compensated_sum(products) / scale).clamp(-1.0, 1.0))
}

/// Holm's correction (1979) for the tests that were made: the k-th smallest of m p-values is
/// multiplied by m − k + 1, and none becomes smaller than one that was smaller before.
pub fn holm_correction(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<usize> = (0..p.len()).filter(|at| p[*at].is_some()).collect();
    order.sort_by(|a, b| p[*a].unwrap_or(1.0).total_cmp(&p[*b].unwrap_or(1.0)));
    let mut adjusted = vec![None; p.len()];
    let mut least = 0.0_f64;

    for (rank, at) in order.iter().enumerate() {
        least = least
            .max((order.len() - rank) as f64 * p[*at].unwrap_or(1.0))
            .min(1.0);
        adjusted[*at] = Some(least);
    }

    adjusted
}

#[cfg(test)]
mod tests {
    use crate::estimators::paired::*;

    #[test]
    fn differences_within_rounding_are_ties_and_zeros() {
        let pairs = [
            (0.93, 0.92),
            (0.91, 0.9),
            (0.5, 0.49),
            (0.3, 0.1 + 0.2),
            (0.7, 0.72),
        ];
        let paired = PairedDifferences::from_pairs(&pairs, 0.95);
        assert_eq!((paired.above, paired.below), (3, 1));

        // Ranks 2, 2, 2 with a plus and 4 with a minus: a sum of 4 or less has 1 + 3 + 3 + 1 of 16 signs.
        assert_eq!(
            paired.wilcoxon,
            Some(SignedRankTest {
                p: 1.0,
                exact: true
            })
        );

        assert_eq!(paired.sign_p, Some(0.625));
    }

    #[test]
    fn a_large_value_elsewhere_makes_no_difference_equal() {
        let small = [
            (3e-47, 1e-47),
            (1e-47, 2e-47),
            (8e-47, 4e-47),
            (9e-47, 1e-47),
        ];
        let mut pairs = small.to_vec();
        pairs.push((3e-21, 1e-21));

        let paired = PairedDifferences::from_pairs(&pairs, 0.95);
        assert_eq!((paired.above, paired.below), (4, 1));
        assert!(
            paired.sign_p.is_some_and(|p| (p - 0.375).abs() < 1e-12),
            "{paired:?}"
        );

        // Of the ranks 1 to 5, the least has a minus: 2 of 32 ways.
        assert_eq!(
            paired.wilcoxon,
            Some(SignedRankTest {
                p: 0.125,
                exact: true
            })
        );

        // A size that is rounded itself ties with its neighbours, and makes no ties of these.
        let narrow = [(1.0, 1e-9), (1.5, 0.6), (2.0, 1e-9)];
        assert_eq!(
            [
                count_leading_ties(&narrow),
                count_leading_ties(&narrow[1..]),
                count_leading_ties(&narrow[2..])
            ],
            [2, 2, 1]
        );

        assert_eq!(
            count_leading_ties(&[
                (1.0, 1e-9),
                (-1.0 - 1e-10, 1e-9),
                (1.0 + 5e-10, 1e-9),
                (1.1, 1e-9)
            ]),
            3
        );
    }

    #[test]
    fn what_is_too_little_or_constant_is_none_and_never_nan() {
        assert_eq!(
            PairedDifferences::from_pairs(&[], 0.95),
            PairedDifferences::default()
        );
        let one = PairedDifferences::from_pairs(&[(0.9, 0.8)], 0.95);
        assert_eq!(
            (one.n, one.std, one.interval, one.sign_p, one.wilcoxon),
            (1, None, None, None, None)
        );

        assert_eq!((one.correlation, one.unpaired_repeats), (None, None));
        let same = PairedDifferences::from_pairs(&[(0.9, 0.9), (0.8, 0.8)], 0.95);
        assert_eq!(
            (same.difference, same.sign_p, same.unpaired_repeats),
            (Some(0.0), Some(1.0), None)
        );

        assert_eq!(same.wilcoxon.map(|w| w.p), Some(1.0));
        assert!(same.correlation > Some(1.0 - 1e-15));
        let shifted = PairedDifferences::from_pairs(&[(2.0, 1.0), (3.0, 2.0), (4.0, 3.0)], 0.95);
        assert_eq!(
            (shifted.std, shifted.interval, shifted.unpaired_repeats),
            (Some(0.0), Some((1.0, 1.0)), None)
        );
    }

    #[test]
    fn pairing_saves_what_the_variances_say() {
        // Variances 5/3 and 5/3; of the differences, which are 1 and -1, 4/3.
        let pairs = [(2.0, 1.0), (1.0, 2.0), (4.0, 3.0), (3.0, 4.0)];
        let paired = PairedDifferences::from_pairs(&pairs, 0.95);
        assert!(
            paired
                .unpaired_repeats
                .is_some_and(|n| (n - 10.0).abs() < 1e-12),
            "{paired:?}"
        );

        assert!(
            paired
                .saved_repeats()
                .is_some_and(|n| (n - 6.0).abs() < 1e-12)
        );
    }

    #[test]
    fn tests_that_were_not_made_are_not_counted() {
        let adjusted = holm_correction(&[Some(0.01), None, Some(0.04), Some(0.03)]);
        assert_eq!(adjusted, [Some(0.03), None, Some(0.06), Some(0.06)]);
        assert_eq!(
            holm_correction(&[Some(0.7), Some(0.9)]),
            [Some(1.0), Some(1.0)]
        );
    }
}
