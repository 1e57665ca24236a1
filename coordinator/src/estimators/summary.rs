//! The summary statistics of every table.

use super::Sample;

/// Mean, spread and order statistics of a sample; `None` where it has too few values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Number of values.
    pub n: u64,
    /// Arithmetic mean; from 1 value on.
    pub mean: Option<f64>,
    /// Standard deviation, n − 1 in the denominator; from 2 values on.
    pub std: Option<f64>,
    /// 95 % confidence interval of the mean by Student's t; from 2 values on.
    pub ci95: Option<(f64, f64)>,
    /// Smallest value.
    pub min: Option<f64>,
    /// Median: the middle value, or the mean of the two middle ones.
    pub median: Option<f64>,
    /// Largest value.
    pub max: Option<f64>,
}

impl Summary {
    /// Summarises a sample, with the interval at this level of Student's t.
    pub fn from_sample(sample: &Sample, level: f64) -> Self {
        Self {
            n: sample.n() as u64,
            mean: sample.mean(),
            std: sample.std(),
            ci95: sample.t_interval(level),
            min: sample.min(),
            median: sample.quantile(0.5),
            max: sample.max(),
        }
    }
}
