//! Summaries of the values of one repeat, and of the uncertainty of a mean.

/// The values of one repeat.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RepeatCluster {
    /// Sum of the values' differences from the sample's mean.
    pub deviation_sum: f64,
    /// Number of values.
    pub n: u32,
}

/// The uncertainty of a mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanUncertainty {
    /// Variance of the mean.
    pub variance: f64,
    /// Degrees of freedom of its estimate.
    pub degrees: f64,
}
