//! Comparison of two cells repeat by repeat. Trials of one repeat share their random streams.

use std::cmp::Ordering;

use super::Sample;
use super::crossed::Crossing;
use super::rounding::{clear_rounding, rounding_of_difference, shortest_decimal_between};
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
        let differences =
            Sample::new(rounded.clone()).with_cleared_mean(rounding_of_mean(pairs, &rounded));
        let count =
            |sign: Ordering| rounded.iter().filter(|d| d.total_cmp(&0.0) == sign).count() as u64;
        let above = count(Ordering::Greater);

        let below = count(Ordering::Less);
        let enough = pairs.len() > 1;
        let covariation = Covariation::new(&cell, &baseline, pairs);
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
            correlation: covariation.and_then(Covariation::pearson_correlation),
            unpaired_repeats: covariation
                .zip(differences.variance())
                .and_then(|(covariation, paired)| covariation.unpaired_repeats(paired)),
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
        let rounded = rounded_differences(pairs);
        let rounding = rounding_of_mean(pairs, &rounded);
        self.interval = Sample::from_crossed(rounded, repeats, crossing)
            .with_cleared_mean(rounding)
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

/// The differences of pairs. One that is within the rounding of its values is 0, and if all are equal within it, they are one number.
fn rounded_differences(pairs: &[(f64, f64)]) -> Vec<f64> {
    let cleared = pairs
        .iter()
        .map(|pair| clear_rounding(pair.0 - pair.1, rounding_bound(pair)));
    let differences: Vec<f64> = cleared.collect();
    match find_common_difference(pairs, &differences) {
        Some(common) => vec![common; pairs.len()],
        None => differences,
    }
}

/// The difference that all pairs have if their values are not rounded; `None` if there is none, or no rounding.
fn find_common_difference(pairs: &[(f64, f64)], differences: &[f64]) -> Option<f64> {
    let is_plain = differences.iter().all(|d| *d == differences[0]);
    if is_plain || !differences.iter().all(|d| d.is_finite()) {
        return None;
    }

    let [mut low, mut high] = [f64::NEG_INFINITY, f64::INFINITY];
    for pair in pairs {
        low = low.max(pair.0 - pair.1 - rounding_bound(pair));
        high = high.min(pair.0 - pair.1 + rounding_bound(pair));
    }
    (low <= high).then(|| shortest_decimal_between(low, high))
}

/// What rounding alone can make of the mean of these differences. Those that are exactly 0 are not rounded.
fn rounding_of_mean(pairs: &[(f64, f64)], differences: &[f64]) -> f64 {
    let rounded = pairs
        .iter()
        .zip(differences)
        .filter(|(_, difference)| **difference != 0.0);
    let sum: f64 = rounded.map(|(pair, _)| rounding_bound(pair)).sum();
    sum / pairs.len() as f64
}

fn rounding_bound((cell, baseline): &(f64, f64)) -> f64 {
    rounding_of_difference(*cell, *baseline)
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

/// How the values of two cells vary together.
#[derive(Debug, Clone, Copy)]
struct Covariation {
    n: f64,
    /// The variances of both cells.
    variances: [f64; 2],
    covariance: f64,
    /// The largest rounding of a value.
    rounding: f64,
}

impl Covariation {
    /// `None` for fewer than two pairs, or infinite values.
    fn new(cell: &Sample, baseline: &Sample, pairs: &[(f64, f64)]) -> Option<Self> {
        let variances = [cell.variance()?, baseline.variance()?];
        let [mean, other_mean] = [cell.mean()?, baseline.mean()?];
        let products = pairs.iter().map(|(a, b)| (a - mean) * (b - other_mean));
        let n = pairs.len() as f64;

        Some(Self {
            n,
            variances,
            covariance: super::sample::compensated_sum(products) / (n - 1.0),
            rounding: pairs.iter().map(rounding_bound).fold(0.0, f64::max),
        })
    }

    /// Pearson's correlation; `None` if a cell is constant.
    fn pearson_correlation(self) -> Option<f64> {
        let [a, b] = self.variances.map(f64::sqrt);
        if a * b <= 0.0 {
            return None;
        }
        if self.covariance.abs() <= self.rounding * (a + b) {
            return Some(0.0);
        }

        let correlation = (self.covariance / (a * b)).clamp(-1.0, 1.0);
        let is_whole = 1.0 - correlation.abs() <= 8.0 * f64::EPSILON;
        Some(if is_whole {
            correlation.signum()
        } else {
            correlation
        })
    }

    /// The repeats that an unpaired comparison needs if the differences have this variance; `None` if that is 0.
    fn unpaired_repeats(self, of_differences: f64) -> Option<f64> {
        let [a, b] = self.variances;
        let deviations = a.sqrt() + b.sqrt() + of_differences.sqrt();
        let is_same = (a + b - of_differences).abs() <= self.rounding * deviations;
        (of_differences > 0.0).then(|| match is_same {
            true => self.n,
            false => self.n * (a + b) / of_differences,
        })
    }
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
    fn differences_that_rounding_alone_tells_apart_are_one() {
        let pairs = [(0.17, 0.18), (0.18, 0.19), (0.18, 0.19)];
        let paired = PairedDifferences::from_pairs(&pairs, 0.95);
        assert_eq!(
            (paired.difference, paired.std, paired.interval),
            (Some(-0.01), Some(0.0), Some((-0.01, -0.01)))
        );
        assert_eq!((paired.unpaired_repeats, paired.below), (None, 3));
        assert_eq!(paired.correlation, Some(1.0));

        // One more digit is no rounding.
        let apart = [(0.17, 0.18), (0.18, 0.19), (0.180_000_000_001, 0.19)];
        let apart = PairedDifferences::from_pairs(&apart, 0.95);
        assert!(apart.std.is_some_and(|std| std > 1e-13), "{apart:?}");
    }

    #[test]
    fn a_mean_difference_and_a_saving_that_are_rounding_are_zero() {
        let pairs = [(0.93, 0.92), (0.91, 0.92), (0.18, 0.17), (0.18, 0.19)];
        let paired = PairedDifferences::from_pairs(&pairs, 0.95);
        assert_eq!(paired.difference, Some(0.0));
        assert!(
            paired.interval.is_some_and(|(low, high)| low == -high),
            "{paired:?}"
        );

        // The values of both cells are unrelated, so that pairing saves nothing.
        let pairs = [(0.1, 0.1), (0.1, 0.3), (0.3, 0.1), (0.3, 0.3)];
        let unrelated = PairedDifferences::from_pairs(&pairs, 0.95);
        assert_eq!(
            (unrelated.correlation, unrelated.saved_repeats()),
            (Some(0.0), Some(0.0))
        );

        // Large equal values round no difference of others.
        let pairs = [(1e10, 1e10), (1e-7, 0.0), (2e-7, 0.0)];
        let mixed = PairedDifferences::from_pairs(&pairs, 0.95);
        assert!(mixed.difference.is_some_and(|d| (d - 1e-7).abs() < 1e-20));
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
