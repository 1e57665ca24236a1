//! What the values of one repeat, and a mean, come down to.

/// The values of one repeat.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RepeatCluster {
    /// Sum of the values' differences from the sample's mean.
    pub deviation_sum: f64,
    /// Number of values.
    pub n: u32,
}

/// How well a mean is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanUncertainty {
    /// Variance of the mean.
    pub variance: f64,
    /// Degrees of freedom of its estimate.
    pub degrees: f64,
}
