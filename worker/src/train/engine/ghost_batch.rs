//! What a norm over ghost batches adds up over those of a batch. Each ghost batch is a micro-batch: it is normalized by its own
//! statistics alone, so its forward and backward pass are those of batch norm on these images.

use super::norm::ChannelMoments;
use super::norm_backward::GradientSums;

/// Sums over the ghost batches of a batch so far, per channel.
#[derive(Debug)]
pub(crate) struct GhostBatchTotals {
    /// Number of ghost batches.
    count: usize,
    mean: Vec<f64>,
    unbiased_variance: Vec<f64>,
    /// Sums for the gradients of the scale and the shift.
    gradient_sums: GradientSums,
}

impl GhostBatchTotals {
    pub(crate) fn new(width: usize) -> Self {
        Self {
            count: 0,
            mean: vec![0.0; width],
            unbiased_variance: vec![0.0; width],
            gradient_sums: GradientSums::new(width),
        }
    }

    pub(crate) fn reset(&mut self) {
        self.count = 0;
        self.mean.fill(0.0);
        self.unbiased_variance.fill(0.0);
        self.gradient_sums.reset();
    }

    /// Adds the statistics of another ghost batch.
    pub(crate) fn add_statistics(&mut self, moments: &ChannelMoments) {
        self.count += 1;
        let sums = self.mean.iter_mut().zip(&mut self.unbiased_variance);
        for ((mean_sum, variance_sum), (mean, variance)) in sums.zip(moments.unbiased_statistics())
        {
            *mean_sum += mean;
            *variance_sum += variance;
        }
    }

    /// The means over the ghost batches of mean and unbiased variance.
    pub(crate) fn mean_statistics(&self) -> impl Iterator<Item = (f64, f64)> {
        let count = self.count as f64;
        self.mean
            .iter()
            .zip(&self.unbiased_variance)
            .map(move |(mean, variance)| (mean / count, variance / count))
    }

    /// Adds the sums of another ghost batch, which are reset for the next one; returns those over all.
    pub(crate) fn take_gradient_sums(&mut self, sums: &mut GradientSums) -> &GradientSums {
        self.gradient_sums.add(sums);
        sums.reset();
        &self.gradient_sums
    }
}
