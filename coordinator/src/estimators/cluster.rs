//! Summaries of the values of one repeat, and of the uncertainty of a mean.

use super::rounding::clear_rounding;

/// The values of one repeat.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RepeatCluster {
    /// Sum of the values' differences from the sample's mean.
    pub deviation_sum: f64,
    /// Number of values.
    pub n: u32,
}

/// The sums of one repeat while its values are added.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ClusterSum {
    cluster: RepeatCluster,
    rounding: f64,
}

impl ClusterSum {
    /// Adds the difference of a value from the mean, which has this rounding.
    pub(super) fn add_deviation(&mut self, deviation: f64, rounding: f64) {
        self.cluster.deviation_sum += deviation;
        self.cluster.n += 1;
        self.rounding += rounding;
    }

    /// The sums. Deviations that cancel but for rounding have the sum 0.
    pub(super) fn finish_sum(self) -> RepeatCluster {
        RepeatCluster {
            deviation_sum: clear_rounding(self.cluster.deviation_sum, self.rounding),
            ..self.cluster
        }
    }
}

/// The uncertainty of a mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanUncertainty {
    /// Variance of the mean.
    pub variance: f64,
    /// Degrees of freedom of its estimate.
    pub degrees: f64,
}
