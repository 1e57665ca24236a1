//! Statistics of one sample.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Mean, spread and order statistics of a sample; `None` where it has too few values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Number of values.
    pub n: u64,
    /// Arithmetic mean; from 1 value on.
    pub mean: Option<f64>,
    /// Standard deviation, n − 1 in the denominator; from 2 values on.
    pub std: Option<f64>,
    /// 95 % confidence interval of the mean by Student's t, n − 1 degrees of freedom; from 2 values on.
    pub ci95: Option<(f64, f64)>,
    /// Smallest value.
    pub min: Option<f64>,
    /// Median: the middle value, or the mean of the two middle ones.
    pub median: Option<f64>,
    /// Largest value.
    pub max: Option<f64>,
}

impl Summary {
    /// Summarises finite values. The variance is the two-pass one with the correction of Chan, Golub and LeVeque
    /// (1983), sums are compensated (Neumaier 1974).
    pub fn of(values: &[f64]) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        let n = values.len() as f64;
        let mean = sum(values.iter().copied()) / n;
        let squares = sum(values.iter().map(|x| (x - mean) * (x - mean)));
        let drift = sum(values.iter().map(|x| x - mean));
        let std = (values.len() > 1).then(|| ((squares - drift * drift / n) / (n - 1.0)).max(0.0).sqrt());
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let ci95 = std.map(|std| {
            let half = t_975(n - 1.0) * std / n.sqrt();
            (mean - half, mean + half)
        });
        Self {
            n: values.len() as u64,
            mean: Some(mean),
            std,
            ci95,
            min: sorted.first().copied(),
            median: Some(median(&sorted)),
            max: sorted.last().copied(),
        }
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// 97.5 % quantile of Student's t.
fn t_975(degrees: f64) -> f64 {
    let t = StudentsT::new(0.0, 1.0, degrees).expect("degrees of freedom are at least 1");
    t.inverse_cdf(0.975)
}

/// Compensated sum.
fn sum(values: impl Iterator<Item = f64>) -> f64 {
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
        let s = Summary::of(&[3.0, 1.0, 2.0, 4.0]);
        assert_eq!((s.n, s.mean, s.median, s.min, s.max), (4, Some(2.5), Some(2.5), Some(1.0), Some(4.0)));
        let std = (5.0_f64 / 3.0).sqrt();
        assert!((s.std.expect("four values") - std).abs() < 1e-15);
        // 3.182446305284263 is the 97.5 % quantile of t with 3 degrees of freedom (SciPy 1.14, stats.t.ppf).
        let half = 3.182_446_305_284_263 * std / 2.0;
        let (low, high) = s.ci95.expect("four values");
        assert!((low - (2.5 - half)).abs() < 1e-9 && (high - (2.5 + half)).abs() < 1e-9, "{low} {high}");
    }

    #[test]
    fn an_offset_costs_no_digits() {
        let values: Vec<f64> = (0..100_000).map(|i| 1e6 + f64::from(i % 10)).collect();
        let s = Summary::of(&values);
        assert!((s.mean.expect("values") - (1e6 + 4.5)).abs() < 1e-9);
        let variance = 8.25 * 100_000.0 / 99_999.0;
        assert!((s.std.expect("values").powi(2) / variance - 1.0).abs() < 1e-12);
    }

    #[test]
    fn too_few_values_give_none_and_never_nan() {
        assert_eq!(Summary::of(&[]), Summary::default());
        let one = Summary::of(&[2.0]);
        assert_eq!((one.n, one.mean, one.std, one.ci95), (1, Some(2.0), None, None));
        assert_eq!(Summary::of(&[2.0, 2.0]).ci95, Some((2.0, 2.0)));
    }
}
