//! Statistics of one sample, from its values in the order of cells and repeats.

use std::collections::BTreeMap;

use super::special::t_quantile;

/// Finite values, in the order in which they are added up, and sorted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    values: Vec<f64>,
    sorted: Vec<f64>,
    mean: f64,
    squares: f64,
    /// What the values of a repeat have in common with each other makes them no independent ones.
    repeats: Option<Vec<Cluster>>,
}

/// The values of one repeat.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cluster {
    /// Sum of what they are above the sample's mean.
    pub above: f64,
    /// How many.
    pub n: u32,
}

impl Sample {
    /// A sample of finite values. Sums are compensated (Neumaier 1974); the squares are those around the mean, corrected
    /// for the mean's rounding (Chan, Golub and LeVeque 1983).
    pub fn new(values: Vec<f64>) -> Self {
        let n = values.len() as f64;
        let first = if values.is_empty() { 0.0 } else { sum(values.iter().copied()) / n };
        let drift = sum(values.iter().map(|x| x - first));
        let squares = sum(values.iter().map(|x| (x - first) * (x - first))) - drift * drift / n.max(1.0);
        let mut sorted = values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let equal = sorted.first() == sorted.last();
        // Equal values have their own value as mean, and no spread, whatever rounding says.
        let mean = if equal { sorted.first().copied().unwrap_or(0.0) } else { first + drift / n };
        Self { values, sorted, mean, squares: if equal { 0.0 } else { squares.max(0.0) }, repeats: None }
    }

    /// A sample of values of several cells, each with the number of its repeat: the trials of a repeat share their random
    /// streams, so that only repeats are independent of each other. Standard error and intervals are those of whole repeats.
    pub fn pooled(values: Vec<f64>, repeats: &[u32]) -> Self {
        let mut sample = Self::new(values);
        let mut clusters: BTreeMap<u32, Cluster> = BTreeMap::new();
        for (x, repeat) in sample.values.iter().zip(repeats) {
            let cluster = clusters.entry(*repeat).or_default();
            cluster.above += x - sample.mean;
            cluster.n += 1;
        }
        sample.repeats = Some(clusters.into_values().collect());
        sample
    }

    /// Repeats of a pooled sample.
    pub fn repeats(&self) -> Option<&[Cluster]> {
        self.repeats.as_deref()
    }

    /// Number of values.
    pub fn n(&self) -> usize {
        self.values.len()
    }

    /// The values in the order in which they came.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Arithmetic mean; from 1 value on.
    pub fn mean(&self) -> Option<f64> {
        (self.n() > 0).then_some(self.mean)
    }

    /// Variance, n − 1 in the denominator; from 2 values on.
    pub fn variance(&self) -> Option<f64> {
        (self.n() > 1).then(|| self.squares / (self.n() as f64 - 1.0))
    }

    /// Standard deviation; from 2 values on.
    pub fn std(&self) -> Option<f64> {
        self.variance().map(f64::sqrt)
    }

    /// Standard error of the mean, std/√n; from 2 values on. Pooled, √(R/(R − 1)·Σₖuₖ²)/n of R repeats with sums uₖ of what
    /// their values are above the mean (Liang and Zeger 1986); from 2 repeats on.
    pub fn standard_error(&self) -> Option<f64> {
        let Some(repeats) = &self.repeats else { return self.std().map(|std| std / (self.n() as f64).sqrt()) };
        let count = repeats.len() as f64;
        let squares = sum(repeats.iter().map(|repeat| repeat.above * repeat.above));
        (count > 1.0).then(|| (count / (count - 1.0) * squares).sqrt() / self.n() as f64)
    }

    /// Confidence interval of the mean by Student's t, n − 1 degrees of freedom; from 2 values on. Pooled, of repeats.
    pub fn t_interval(&self, level: f64) -> Option<(f64, f64)> {
        let independent = self.repeats.as_ref().map_or(self.n(), Vec::len) as f64;
        let half = t_quantile(0.5 + 0.5 * level, (independent - 1.0).max(1.0)) * self.standard_error()?;
        Some((self.mean - half, self.mean + half))
    }

    /// Quantile of a share in [0, 1]: the value at position share·(n − 1) of the sorted ones, counted from 0, between two
    /// of them by a straight line (type 7 of Hyndman and Fan 1996, NumPy's `linear`); from 1 value on.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let position = share * (self.n() as f64 - 1.0);
        let below = position.floor().max(0.0);
        let a = *self.sorted.get(below as usize)?;
        let b = self.sorted.get(below as usize + 1).copied().unwrap_or(a);
        let part = position - below;
        Some(if part < 0.5 { a + (b - a) * part } else { b - (b - a) * (1.0 - part) })
    }

    /// Mean of what is left when ⌊share·n⌋ values are taken off at each end; from 1 value on.
    pub fn trimmed_mean(&self, share: f64) -> Option<f64> {
        let cut = (share * self.n() as f64 + 1e-9) as usize;
        let kept = self.sorted.get(cut..self.n().checked_sub(cut)?).filter(|kept| !kept.is_empty())?;
        Some(sum(kept.iter().copied()) / kept.len() as f64)
    }

    /// Smallest value.
    pub fn min(&self) -> Option<f64> {
        self.sorted.first().copied()
    }

    /// Largest value.
    pub fn max(&self) -> Option<f64> {
        self.sorted.last().copied()
    }
}

/// Confidence interval of a share of which `hits` of `n` were seen (Wilson 1927, without continuity correction), `n` ≥ 1.
pub fn wilson(hits: u64, n: u64, level: f64) -> (f64, f64) {
    let (n, share) = (n as f64, hits as f64 / n as f64);
    let z = super::special::normal_quantile(0.5 + 0.5 * level);
    let weight = 1.0 + z * z / n;
    let middle = (share + z * z / (2.0 * n)) / weight;
    let half = z / weight * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    // Where nothing or everything was hit, that end is exact.
    let low = if share == 0.0 { 0.0 } else { middle - half };
    (low, if share == 1.0 { 1.0 } else { middle + half })
}

/// Compensated sum.
pub(super) fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let (mut total, mut lost) = (0.0_f64, 0.0);
    for x in values {
        let next = total + x;
        lost += if total.abs() >= x.abs() { (total - next) + x } else { (x - next) + total };
        total = next;
    }
    total + lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_sample_by_hand() {
        let s = Sample::new(vec![3.0, 1.0, 2.0, 4.0]);
        assert_eq!((s.n(), s.mean(), s.min(), s.max()), (4, Some(2.5), Some(1.0), Some(4.0)));
        assert_eq!((s.quantile(0.5), s.quantile(0.0), s.quantile(1.0)), (Some(2.5), Some(1.0), Some(4.0)));
        assert_eq!((s.trimmed_mean(0.25), s.trimmed_mean(0.1)), (Some(2.5), Some(2.5)));
        assert_eq!(s.variance(), Some(5.0 / 3.0));
    }

    #[test]
    fn too_few_values_give_none_and_never_nan() {
        let none = Sample::new(Vec::new());
        assert_eq!((none.mean(), none.std(), none.quantile(0.5), none.trimmed_mean(0.25)), (None, None, None, None));
        assert_eq!((none.min(), none.max(), none.t_interval(0.95)), (None, None, None));
        let one = Sample::new(vec![2.0]);
        assert_eq!((one.mean(), one.std(), one.t_interval(0.95)), (Some(2.0), None, None));
        assert_eq!((one.quantile(0.95), one.trimmed_mean(0.25)), (Some(2.0), Some(2.0)));
        let equal = Sample::new(vec![0.1; 7]);
        assert_eq!((equal.mean(), equal.std(), equal.t_interval(0.95)), (Some(0.1), Some(0.0), Some((0.1, 0.1))));
    }

    #[test]
    fn pooled_values_are_as_many_as_their_repeats() {
        // Two cells whose trials have all in common but an offset: as much is known as of one cell.
        let of_a: Vec<f64> = vec![1.0, 4.0, 2.0, 9.0];
        let values: Vec<f64> = of_a.iter().flat_map(|x| [*x, x + 100.0]).collect();
        let pooled = Sample::pooled(values.clone(), &[0, 0, 1, 1, 2, 2, 3, 3]);
        let one = Sample::new(of_a);
        let near = |a: Option<f64>, b: Option<f64>| (a.expect("defined") - b.expect("defined")).abs() < 1e-12;
        assert!(
            near(pooled.standard_error(), one.standard_error()) && near(pooled.mean(), one.mean().map(|x| x + 50.0))
        );
        let (low, high) = pooled.t_interval(0.95).expect("four repeats");
        let (wanted_low, wanted_high) = one.t_interval(0.95).expect("four values");
        assert!((high - low - (wanted_high - wanted_low)).abs() < 1e-12);
        assert_eq!(pooled.std(), Sample::new(values).std());
        // Each in a repeat of its own, they are a plain sample.
        let alone = Sample::pooled(vec![1.0, 4.0, 2.0, 9.0], &[7, 1, 2, 3]);
        assert!(near(alone.standard_error(), one.standard_error()));
        assert_eq!(Sample::pooled(vec![1.0, 4.0], &[3, 3]).t_interval(0.95), None, "one repeat");
    }

    #[test]
    fn shares_at_the_ends_have_exact_ends() {
        assert_eq!(wilson(0, 5, 0.95).0, 0.0);
        assert_eq!(wilson(5, 5, 0.95).1, 1.0);
        assert!(wilson(0, 5, 0.95).1 > 0.4);
    }
}
