//! Statistics of one sample. Values are in the order of cells and repeats.

use std::collections::BTreeMap;

use super::cluster::{ClusterSum, MeanUncertainty, RepeatCluster};
use super::crossed::Crossing;
use super::rounding::{clear_rounding, rounding_of_difference};
use super::special::student_t_quantile;

/// The values of a sample that are numbers, in the order of summation. With infinite values, which
/// a loss can have, there are quantiles and an infinite mean, but no spread.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    values: Vec<f64>,
    mean: f64,
    squares: f64,
    /// Sums by repeat of a pooled sample, because the values of one repeat are not independent.
    repeats: Option<Vec<RepeatCluster>>,
    /// The uncertainty of the mean under crossed streams: `None` without crossed streams,
    /// `Some(None)` if it is unknown.
    crossed: Option<Option<MeanUncertainty>>,
}

impl Sample {
    /// Creates a sample of independent values. Sums are compensated (Neumaier 1974). Squares are
    /// taken around the mean and corrected for its rounding (Chan, Golub and LeVeque 1983).
    pub fn new(values: Vec<f64>) -> Self {
        let n = values.len() as f64;
        let first = first_mean(&values);
        let mut drift = CompensatedSum::default();
        let mut squares = CompensatedSum::default();
        for x in &values {
            drift.add_value(x - first);
            squares.add_value((x - first) * (x - first));
        }
        let drift = drift.total();
        let squares = squares.total() - drift * drift / n.max(1.0);

        // With an infinite value, the sum is infinite or undefined.
        if !first.is_finite() && values.iter().any(|x| x.is_infinite()) {
            return Self {
                mean: compensated_sum(values.iter().copied()),
                squares: f64::NAN,
                values,
                ..Self::default()
            };
        }

        // Rounding would give equal values a slightly different mean and a spread.
        let equal = values.iter().all(|x| *x == values[0]);
        let mean = if equal {
            least_of_equal(&values)
        } else {
            first + drift / n
        };
        Self {
            values,
            mean,
            squares: if equal { 0.0 } else { squares.max(0.0) },
            ..Self::default()
        }
    }

    /// Creates a sample of several cells, with the repeat of each value. Trials of a repeat share
    /// their random streams, so only repeats are independent; standard error and intervals are
    /// those of whole repeats.
    pub fn from_pooled(values: Vec<f64>, repeats: &[u32]) -> Self {
        let mut sample = Self::new(values);
        sample.repeats = Some(sample.cluster_by_repeat(repeats).into_values().collect());
        sample
    }

    /// Creates a sample of a sweep with crossed streams, with the repeat of each value. Standard
    /// error and intervals are those of the streams.
    pub fn from_crossed(values: Vec<f64>, repeats: &[u32], crossing: &Crossing) -> Self {
        let mut sample = Self::new(values);
        let clusters: Vec<(u32, RepeatCluster)> =
            sample.cluster_by_repeat(repeats).into_iter().collect();
        sample.crossed = Some(if sample.squares == 0.0 && sample.n() > 1 {
            // With a variance of 0 the number of degrees of freedom does not matter.
            Some(MeanUncertainty {
                variance: 0.0,
                degrees: 1.0,
            })
        } else {
            sample.estimate_crossed_uncertainty(&clusters, crossing)
        });

        sample.repeats = Some(clusters.into_iter().map(|(_, cluster)| cluster).collect());
        sample
    }

    /// Returns the sample with the mean of its cells' means as mean, so that cells count alike
    /// whatever their numbers of values. `cells` has the cell of each value. Spread and quantiles
    /// stay those of all values.
    #[must_use]
    pub fn with_equal_cell_weights(
        mut self,
        repeats: &[u32],
        cells: &[u64],
        crossing: Option<&Crossing>,
    ) -> Self {
        let mut by_cell: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        cells
            .iter()
            .zip(&self.values)
            .for_each(|(cell, x)| by_cell.entry(*cell).or_default().push(*x));
        let values = self.n() as f64;

        let count = by_cell.len() as f64;
        let means: BTreeMap<u64, (f64, f64)> = by_cell
            .into_iter()
            .map(|(cell, of_cell)| (cell, (of_cell.len() as f64, Self::new(of_cell).mean)))
            .collect();
        let mut sums: BTreeMap<u32, ClusterSum> = BTreeMap::new();

        for ((x, repeat), cell) in self.values.iter().zip(repeats).zip(cells) {
            let (n, mean) = means[cell];
            let sum = sums.entry(*repeat).or_default();
            let rounding = rounding_of_difference(*x, mean);
            sum.add_deviation(
                (x - mean) * values / (count * n),
                rounding * values / (count * n),
            );
        }
        let clusters: Vec<(u32, RepeatCluster)> = sums
            .into_iter()
            .map(|(repeat, sum)| (repeat, sum.finish_sum()))
            .collect();

        if count > 0.0 {
            self.mean = Self::new(means.into_values().map(|(_, mean)| mean).collect()).mean;
        }

        if self.crossed.is_some() {
            self.crossed =
                Some(crossing.and_then(|c| self.estimate_crossed_uncertainty(&clusters, c)));
        }

        self.repeats = Some(clusters.into_iter().map(|(_, cluster)| cluster).collect());
        self
    }

    /// The uncertainty of the mean under crossed streams. One that rounding alone can make is 0.
    fn estimate_crossed_uncertainty(
        &self,
        clusters: &[(u32, RepeatCluster)],
        crossing: &Crossing,
    ) -> Option<MeanUncertainty> {
        let found = crossing.estimate_uncertainty(clusters)?;
        let values = self.values.iter();
        let rounding = values.fold(0.0_f64, |most, x| most.max(rounding_of_difference(*x, *x)));
        let is_rounding = found.variance.sqrt() <= rounding;
        Some(MeanUncertainty {
            variance: if is_rounding { 0.0 } else { found.variance },
            ..found
        })
    }

    /// Returns the sample with a mean of 0 if rounding alone can make the mean of 0.
    #[must_use]
    pub fn with_cleared_mean(self, rounding: f64) -> Self {
        Self {
            mean: clear_rounding(self.mean, rounding),
            ..self
        }
    }

    /// Returns the sample with the uncertainty of another one, which has the values of some of its
    /// repeats.
    #[must_use]
    pub fn with_uncertainty_of(self, some: Self) -> Self {
        Self {
            repeats: some.repeats,
            crossed: some.crossed,
            ..self
        }
    }

    fn cluster_by_repeat(&self, repeats: &[u32]) -> BTreeMap<u32, RepeatCluster> {
        let mut sums: BTreeMap<u32, ClusterSum> = BTreeMap::new();
        for (x, repeat) in self.values.iter().zip(repeats) {
            let rounding = rounding_of_difference(*x, self.mean);
            let sum = sums.entry(*repeat).or_default();
            sum.add_deviation(x - self.mean, rounding);
        }
        sums.into_iter()
            .map(|(repeat, sum)| (repeat, sum.finish_sum()))
            .collect()
    }

    /// Whether the repeats share crossed streams.
    pub fn is_crossed(&self) -> bool {
        self.crossed.is_some()
    }

    /// Sums by repeat of a pooled sample.
    pub fn repeat_clusters(&self) -> Option<&[RepeatCluster]> {
        self.repeats.as_deref()
    }

    /// Whether all values are finite.
    pub fn is_finite(&self) -> bool {
        !self.squares.is_nan()
    }

    /// Number of values.
    pub fn n(&self) -> usize {
        self.values.len()
    }

    /// The values in their original order.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The value at an index in ascending order, and the next one, which is the same at the end.
    /// They are selected, which takes less time than sorting all values.
    fn select_neighbors(&self, at: usize) -> Option<(f64, f64)> {
        if at >= self.n() {
            return None;
        }

        let mut values = self.values.clone();
        let (_, here, above) = values.select_nth_unstable_by(at, f64::total_cmp);
        let next = above.iter().copied().min_by(f64::total_cmp);
        Some((*here, next.unwrap_or(*here)))
    }

    /// Arithmetic mean; from 1 value on.
    pub fn mean(&self) -> Option<f64> {
        (self.n() > 0 && !self.mean.is_nan()).then_some(self.mean)
    }

    /// Variance, n − 1 in the denominator; from 2 values on.
    pub fn variance(&self) -> Option<f64> {
        (self.n() > 1 && self.is_finite()).then(|| self.squares / (self.n() as f64 - 1.0))
    }

    /// Standard deviation; from 2 values on.
    pub fn std(&self) -> Option<f64> {
        self.variance().map(f64::sqrt)
    }

    /// Standard error of the mean, std/√n; from 2 values on. Of a pooled sample √(R/(R −
    /// 1)·Σₖuₖ²)/n, for R repeats with sums uₖ of deviations from the mean (Liang and Zeger 1986);
    /// from 2 repeats on. With crossed streams, that of [`Crossing::estimate_uncertainty`].
    pub fn standard_error(&self) -> Option<f64> {
        if !self.is_finite() {
            return None;
        }
        if let Some(crossed) = self.crossed {
            return crossed.map(|spread| spread.variance.sqrt());
        }

        let Some(repeats) = &self.repeats else {
            return self.std().map(|std| std / (self.n() as f64).sqrt());
        };
        let count = repeats.len() as f64;
        let squares = compensated_sum(
            repeats
                .iter()
                .map(|repeat| repeat.deviation_sum * repeat.deviation_sum),
        );

        let values: f64 = repeats.iter().map(|repeat| f64::from(repeat.n)).sum();
        (count > 1.0).then(|| (count / (count - 1.0) * squares).sqrt() / values)
    }

    /// Confidence interval of the mean by Student's t with n − 1 degrees of freedom; from 2 values
    /// on. For a pooled sample n counts repeats; crossed streams have degrees of freedom of their
    /// own.
    pub fn t_interval(&self, level: f64) -> Option<(f64, f64)> {
        let half = student_t_quantile(0.5 + 0.5 * level, self.degrees_of_freedom())
            * self.standard_error()?;
        Some((self.mean - half, self.mean + half))
    }

    /// Degrees of freedom of the standard error.
    pub fn degrees_of_freedom(&self) -> f64 {
        let independent = || self.repeats.as_ref().map_or(self.n(), Vec::len) as f64;
        match self.crossed.flatten() {
            Some(spread) => spread.degrees.max(1.0),
            None => (independent() - 1.0).max(1.0),
        }
    }

    /// Quantile of a share in [0, 1]: the value at position share·(n − 1) of the sorted values,
    /// counted from 0, with linear interpolation (type 7 of Hyndman and Fan 1996, NumPy's
    /// `linear`); from 1 value on.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let position = share * (self.n() as f64 - 1.0);
        let below = position.floor().max(0.0);
        let (a, b) = self.select_neighbors(below as usize)?;
        let part = position - below;
        if part == 0.0 || a == b {
            return Some(a);
        }

        if a.is_infinite() || b.is_infinite() {
            return Some(if a.is_infinite() { a } else { b });
        }

        Some(if part < 0.5 {
            a + (b - a) * part
        } else {
            b - (b - a) * (1.0 - part)
        })
    }

    /// Mean without the ⌊share·n⌋ smallest and largest values; from 1 value on.
    pub fn trimmed_mean(&self, share: f64) -> Option<f64> {
        let cut = (share * self.n() as f64 + 1e-9) as usize;
        let mut sorted = self.values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted
            .get(cut..self.n().checked_sub(cut)?)
            .filter(|middle| !middle.is_empty())?;
        Self::new(middle.to_vec()).mean()
    }

    /// Smallest value.
    pub fn min(&self) -> Option<f64> {
        self.values.iter().copied().min_by(f64::total_cmp)
    }

    /// Largest value.
    pub fn max(&self) -> Option<f64> {
        self.values.iter().copied().max_by(f64::total_cmp)
    }
}

/// Confidence interval of a share, given `hits` of `n` ≥ 1 (Wilson 1927, without continuity
/// correction).
pub fn wilson_interval(hits: u64, n: u64, level: f64) -> (f64, f64) {
    let (n, share) = (n as f64, hits as f64 / n as f64);
    let z = super::special::normal_quantile(0.5 + 0.5 * level);
    let weight = 1.0 + z * z / n;
    let middle = (share + z * z / (2.0 * n)) / weight;
    let half = z / weight * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    // At 0 and at 1 that end of the Wilson interval is exact, and rounding must not move it.
    let low = if share == 0.0 { 0.0 } else { middle - half };
    (low, if share == 1.0 { 1.0 } else { middle + half })
}

/// The sum of values over their number; corrected by what they are above it, it is their mean.
fn first_mean(values: &[f64]) -> f64 {
    match values.len() {
        0 => 0.0,
        n => compensated_sum(values.iter().copied()) / n as f64,
    }
}

/// The mean of equal values. Of zeros with different signs, which are equal, it is the least.
fn least_of_equal(values: &[f64]) -> f64 {
    values.iter().copied().min_by(f64::total_cmp).unwrap_or(0.0)
}

/// The mean of finite values as a [`Sample`] of them has it; `None` without values.
pub(crate) fn mean_of_finite_values(values: &[f64]) -> Option<f64> {
    let equal = values.first()?;
    if values.iter().all(|x| x == equal) {
        return Some(least_of_equal(values));
    }
    let first = first_mean(values);
    let drift = compensated_sum(values.iter().map(|x| x - first));
    Some(first + drift / values.len() as f64)
}

/// Compensated sum.
pub(crate) fn compensated_sum(values: impl Iterator<Item = f64>) -> f64 {
    let mut sum = CompensatedSum::default();
    values.for_each(|x| sum.add_value(x));
    sum.total()
}

/// A sum with the part that rounding took from it (Neumaier 1974).
#[derive(Debug, Clone, Copy, Default)]
struct CompensatedSum {
    rounded: f64,
    lost: f64,
}

impl CompensatedSum {
    fn add_value(&mut self, x: f64) {
        let next = self.rounded + x;
        self.lost += if self.rounded.abs() >= x.abs() {
            (self.rounded - next) + x
        } else {
            (x - next) + self.rounded
        };
        self.rounded = next;
    }

    fn total(self) -> f64 {
        // A sum that was infinite once stays so or becomes undefined, and what it lost is no number.
        if self.rounded.is_finite() {
            self.rounded + self.lost
        } else {
            self.rounded
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::estimators::sample::*;

    #[test]
    fn a_small_sample_by_hand() {
        let s = Sample::new(vec![3.0, 1.0, 2.0, 4.0]);
        assert_eq!(
            (s.n(), s.mean(), s.min(), s.max()),
            (4, Some(2.5), Some(1.0), Some(4.0))
        );
        assert_eq!(
            (s.quantile(0.5), s.quantile(0.0), s.quantile(1.0)),
            (Some(2.5), Some(1.0), Some(4.0))
        );

        assert_eq!(
            (s.trimmed_mean(0.25), s.trimmed_mean(0.1)),
            (Some(2.5), Some(2.5))
        );
        assert_eq!(s.variance(), Some(5.0 / 3.0));
    }

    #[test]
    fn equal_sums_of_repeats_leave_no_uncertainty() {
        let repeats = [0, 1, 0, 1, 0, 1];
        let values = vec![0.12, 0.14, 0.14, 0.13, 0.13, 0.12];
        let pooled = Sample::from_pooled(values.clone(), &repeats);
        assert_eq!(
            (pooled.mean(), pooled.standard_error()),
            (Some(0.13), Some(0.0))
        );
        assert_eq!(pooled.t_interval(0.95), Some((0.13, 0.13)));
        assert!(pooled.std().is_some_and(|std| std > 0.008));

        let weighted = pooled.with_equal_cell_weights(&repeats, &[0, 0, 1, 1, 2, 2], None);
        assert_eq!(weighted.standard_error(), Some(0.0));

        let crossed = Sample::from_crossed(
            vec![0.12, 0.14, 0.14, 0.12],
            &[0, 1, 2, 3],
            &Crossing::new(&[2, 2]),
        );
        assert!(
            crossed
                .standard_error()
                .is_some_and(|error| error == 0.0 || error > 1e-3)
        );
    }

    #[test]
    fn too_few_values_give_none_and_never_nan() {
        let none = Sample::new(Vec::new());
        assert_eq!(
            (
                none.mean(),
                none.std(),
                none.quantile(0.5),
                none.trimmed_mean(0.25)
            ),
            (None, None, None, None)
        );

        assert_eq!(
            (none.min(), none.max(), none.t_interval(0.95)),
            (None, None, None)
        );
        let one = Sample::new(vec![2.0]);
        assert_eq!(
            (one.mean(), one.std(), one.t_interval(0.95)),
            (Some(2.0), None, None)
        );

        assert_eq!(
            (one.quantile(0.95), one.trimmed_mean(0.25)),
            (Some(2.0), Some(2.0))
        );
        let equal = Sample::new(vec![0.1; 7]);
        assert_eq!(
            (equal.mean(), equal.std(), equal.t_interval(0.95)),
            (Some(0.1), Some(0.0), Some((0.1, 0.1)))
        );
    }

    #[test]
    fn infinite_values_have_quantiles_and_no_spread() {
        let some = Sample::new(vec![1.0, f64::INFINITY, 2.0, f64::INFINITY, 3.0]);
        assert_eq!(
            (some.n(), some.mean(), some.std(), some.t_interval(0.95)),
            (5, Some(f64::INFINITY), None, None)
        );
        let quantiles = [0.0, 0.5, 0.6, 0.9, 1.0].map(|share| some.quantile(share));
        assert_eq!(
            quantiles,
            [1.0, 3.0, f64::INFINITY, f64::INFINITY, f64::INFINITY].map(Some)
        );

        assert_eq!(
            (some.min(), some.max(), some.trimmed_mean(0.4)),
            (Some(1.0), Some(f64::INFINITY), Some(3.0))
        );
        let all = Sample::from_pooled(vec![f64::INFINITY; 3], &[0, 1, 2]);
        assert_eq!(
            (all.mean(), all.std(), all.standard_error()),
            (Some(f64::INFINITY), None, None)
        );

        assert_eq!(
            Sample::new(vec![f64::INFINITY, f64::NEG_INFINITY]).mean(),
            None
        );
    }

    #[test]
    fn cells_that_count_alike_have_the_mean_of_their_means() {
        // One of the first cell's three trials diverged.
        let values = vec![1.0, 3.0, 10.0, 11.0, 15.0];
        let repeats = [0, 2, 0, 1, 2];
        let cells = [0, 0, 1, 1, 1];
        let trials = Sample::from_pooled(values.clone(), &repeats);
        let alike = trials
            .clone()
            .with_equal_cell_weights(&repeats, &cells, None);
        assert_eq!(
            (trials.mean(), alike.mean(), alike.std()),
            (Some(8.0), Some(7.0), trials.std())
        );

        // By hand: (1 − 2)/4 + (10 − 12)/6, (11 − 12)/6, (3 − 2)/4 + (15 − 12)/6, and 3/2 of the sum of their squares.
        let of_repeats: [f64; 3] = [-7.0 / 12.0, -1.0 / 6.0, 0.75];
        let wanted = (1.5 * of_repeats.iter().map(|x| x * x).sum::<f64>()).sqrt();
        assert!((alike.standard_error().expect("three repeats") - wanted).abs() < 1e-12);

        // Where all cells have all repeats, both are the same.
        let values = vec![1.0, 3.0, 10.0, 15.0];
        let repeats = [0, 1, 0, 1];
        let cells = [0, 0, 1, 1];
        let trials = Sample::from_pooled(values, &repeats);
        let alike = trials
            .clone()
            .with_equal_cell_weights(&repeats, &cells, None);

        let near = |a: Option<f64>, b: Option<f64>| {
            (a.expect("defined") - b.expect("defined")).abs() < 1e-12
        };
        assert!(
            near(trials.mean(), alike.mean())
                && near(trials.standard_error(), alike.standard_error())
        );
    }

    #[test]
    fn pooled_values_are_as_many_as_their_repeats() {
        // Two cells whose trials have all in common but an offset: as much is known as of one cell.
        let of_a: Vec<f64> = vec![1.0, 4.0, 2.0, 9.0];
        let values: Vec<f64> = of_a.iter().flat_map(|x| [*x, x + 100.0]).collect();
        let pooled = Sample::from_pooled(values.clone(), &[0, 0, 1, 1, 2, 2, 3, 3]);
        let one = Sample::new(of_a);
        let near = |a: Option<f64>, b: Option<f64>| {
            (a.expect("defined") - b.expect("defined")).abs() < 1e-12
        };
        assert!(
            near(pooled.standard_error(), one.standard_error())
                && near(pooled.mean(), one.mean().map(|x| x + 50.0))
        );

        let (low, high) = pooled.t_interval(0.95).expect("four repeats");
        let (wanted_low, wanted_high) = one.t_interval(0.95).expect("four values");
        assert!((high - low - (wanted_high - wanted_low)).abs() < 1e-12);
        assert_eq!(pooled.std(), Sample::new(values).std());

        // Each in a repeat of its own, they are a plain sample.
        let alone = Sample::from_pooled(vec![1.0, 4.0, 2.0, 9.0], &[7, 1, 2, 3]);
        assert!(near(alone.standard_error(), one.standard_error()));
        assert_eq!(
            Sample::from_pooled(vec![1.0, 4.0], &[3, 3]).t_interval(0.95),
            None,
            "one repeat"
        );

        // Known by some of its repeats, it has their standard error and degrees of freedom.
        let more = Sample::from_pooled(
            vec![51.0, 151.0, 54.0, 154.0, 52.0, 152.0, 59.0, 159.0, 1e3],
            &[0, 0, 1, 1, 2, 2, 3, 3, 4],
        );
        let mean = more.mean();
        let known = more.with_uncertainty_of(pooled.clone());
        assert_eq!(
            (known.mean(), known.n(), known.degrees_of_freedom()),
            (mean, 9, 3.0)
        );

        assert!(near(known.standard_error(), pooled.standard_error()));
        assert_eq!(
            pooled
                .with_uncertainty_of(Sample::from_pooled(Vec::new(), &[]))
                .t_interval(0.95),
            None,
            "no repeat"
        );
    }

    #[test]
    fn shares_at_the_ends_have_exact_ends() {
        assert_eq!(wilson_interval(0, 5, 0.95).0, 0.0);
        assert_eq!(wilson_interval(5, 5, 0.95).1, 1.0);
        assert!(wilson_interval(0, 5, 0.95).1 > 0.4);
    }
}
