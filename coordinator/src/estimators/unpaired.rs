//! Comparison of two cells whose trials share no random streams.

use super::Sample;
use super::rounding::{clear_rounding, rounding_of_difference};
use super::special::{student_t_cdf, student_t_quantile};

/// The difference between the means of two independent samples (Welch 1947). Values are `None` if there are too few repeats.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UnpairedDifference {
    /// Number of values of the cell.
    pub n: u64,
    /// Number of values of the baseline.
    pub baseline_n: u64,
    /// Mean of the cell.
    pub mean: Option<f64>,
    /// Mean of the baseline.
    pub baseline: Option<f64>,
    /// Difference of the means, cell minus baseline.
    pub difference: Option<f64>,
    /// Confidence interval of the difference; from 2 values of each on.
    pub interval: Option<(f64, f64)>,
    /// Two-sided p of Welch's t-test; `None` also if both samples are constant.
    pub p: Option<f64>,
}

impl UnpairedDifference {
    /// Compares the values of a cell with those of its baseline; `level` is a share.
    pub fn from_values(cell: Vec<f64>, baseline: Vec<f64>, level: f64) -> Self {
        let cell = Sample::new(cell);
        let baseline = Sample::new(baseline);
        let means = cell.mean().zip(baseline.mean());
        let difference = means.map(|(a, b)| clear_rounding(a - b, rounding_of_difference(a, b)));
        let error = WelchError::from_samples(&cell, &baseline);

        Self {
            n: cell.n() as u64,
            baseline_n: baseline.n() as u64,
            mean: cell.mean(),
            baseline: baseline.mean(),
            difference,
            interval: difference
                .zip(error)
                .map(|(difference, error)| error.interval_around(difference, level)),
            p: difference
                .zip(error)
                .and_then(|(difference, error)| error.two_sided_p(difference)),
        }
    }

    /// Removes what assumes independent repeats.
    pub fn without_inference(self) -> Self {
        Self {
            interval: None,
            p: None,
            ..self
        }
    }
}

/// The standard error of a difference of means, and its degrees of freedom by Satterthwaite's approximation (1946).
#[derive(Debug, Clone, Copy)]
struct WelchError {
    standard_error: f64,
    degrees: f64,
}

impl WelchError {
    /// `None` if a sample has fewer than two values.
    fn from_samples(cell: &Sample, baseline: &Sample) -> Option<Self> {
        if cell.n() < 2 || baseline.n() < 2 {
            return None;
        }
        let here = cell.variance()? / cell.n() as f64;
        let there = baseline.variance()? / baseline.n() as f64;
        // The share of the cell, because squares of small variances would be 0.
        let share = if here + there > 0.0 {
            here / (here + there)
        } else {
            0.5
        };
        let rest = 1.0 - share;
        let degrees_below =
            share * share / (cell.n() - 1) as f64 + rest * rest / (baseline.n() - 1) as f64;

        Some(Self {
            standard_error: (here + there).sqrt(),
            degrees: degrees_below.recip(),
        })
    }

    fn interval_around(self, difference: f64, level: f64) -> (f64, f64) {
        if self.standard_error == 0.0 {
            return (difference, difference);
        }
        let half = student_t_quantile(0.5 + level / 2.0, self.degrees) * self.standard_error;
        (difference - half, difference + half)
    }

    fn two_sided_p(self, difference: f64) -> Option<f64> {
        if self.standard_error == 0.0 {
            return None;
        }
        let t = difference.abs() / self.standard_error;
        Some(2.0 * student_t_cdf(-t, self.degrees))
    }
}

#[cfg(test)]
mod tests {
    use crate::estimators::unpaired::*;

    /// Expected values: `scipy.stats.ttest_ind(a, b, equal_var=False)` and its `confidence_interval(0.95)`, SciPy 1.17.
    #[test]
    fn differences_agree_with_scipy() {
        let a = vec![0.91, 0.93, 0.92, 0.95, 0.90];
        let b = vec![0.88, 0.89, 0.93];
        let compared = UnpairedDifference::from_values(a, b, 0.95);

        let close = |x: Option<f64>, expected: f64| {
            assert!(
                x.is_some_and(|x| (x - expected).abs() < 1e-9),
                "{x:?} {expected}"
            );
        };
        close(compared.difference, 0.022);
        close(compared.p, 0.2909436906542525);
        close(compared.interval.map(|ends| ends.0), -0.03099994380839855);
        close(compared.interval.map(|ends| ends.1), 0.07499994380839858);
        assert_eq!((compared.n, compared.baseline_n), (5, 3));
    }

    #[test]
    fn the_unit_of_the_values_makes_no_difference() {
        let p = |unit: f64| {
            let scaled = |values: &[f64]| values.iter().map(|x| x * unit).collect();
            let cell = scaled(&[0.91, 0.93, 0.92, 0.95, 0.90]);
            UnpairedDifference::from_values(cell, scaled(&[0.88, 0.89, 0.93]), 0.95).p
        };
        let plain = p(1.0).expect("a test");
        assert!(p(1e-120).is_some_and(|small| (small - plain).abs() < 1e-9));
    }

    #[test]
    fn one_value_gives_no_interval_and_constants_no_p() {
        let one = UnpairedDifference::from_values(vec![1.0], vec![2.0, 3.0], 0.95);
        assert_eq!(
            (one.difference, one.interval, one.p),
            (Some(-1.5), None, None)
        );

        let constant = UnpairedDifference::from_values(vec![1.0; 3], vec![0.5; 2], 0.95);
        assert_eq!((constant.interval, constant.p), (Some((0.5, 0.5)), None));

        let nothing = UnpairedDifference::from_values(vec![], vec![1.0], 0.95);
        assert_eq!((nothing.difference, nothing.mean), (None, None));
    }
}
