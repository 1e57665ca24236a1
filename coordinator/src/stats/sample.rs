//! Statistics of one sample, from its values in the order of cells and repeats.

use super::special::t_quantile;

/// Finite values, in the order in which they are added up, and sorted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    values: Vec<f64>,
    sorted: Vec<f64>,
    mean: f64,
    squares: f64,
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
        Self { values, sorted, mean, squares: if equal { 0.0 } else { squares.max(0.0) } }
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

    /// Standard error of the mean, std/√n; from 2 values on.
    pub fn standard_error(&self) -> Option<f64> {
        self.std().map(|std| std / (self.n() as f64).sqrt())
    }

    /// Confidence interval of the mean by Student's t, n − 1 degrees of freedom; from 2 values on.
    pub fn t_interval(&self, level: f64) -> Option<(f64, f64)> {
        let half = t_quantile(0.5 + 0.5 * level, (self.n() as f64 - 1.0).max(1.0)) * self.standard_error()?;
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
    fn shares_at_the_ends_have_exact_ends() {
        assert_eq!(wilson(0, 5, 0.95).0, 0.0);
        assert_eq!(wilson(5, 5, 0.95).1, 1.0);
        assert!(wilson(0, 5, 0.95).1 > 0.4);
    }
}
