//! Bytes that training and measuring a network take.

use crate::config::TrialConfig;
use crate::metric::{MeasurementPass, Metric};
use crate::net::{NOISE_BATCHES, Net, Pool, TEST_BATCH};
use crate::spec::measure::Measure;
use crate::spec::saved_moments::SavedMoments;

/// Number of copies of the weights in memory while their file is written.
const SAVED_COPIES: u64 = 3;

impl Net {
    /// Bytes that a trial needs besides the dataset, on one thread: weights with gradient, optimizer state and
    /// average; the largest layer in the forms that kernels read and write, three of which take up to 16 numbers for
    /// 9; the sums of a batch, or of the test images evaluated at a time; and the gradients of a batch.
    pub fn train_bytes(&self, config: &TrialConfig) -> u64 {
        let images = self.micro_batch_size(u64::from(config.effective_batch_size()));
        let kept =
            images.max(TEST_BATCH.min(u64::from(config.data.test.max(config.data.validation))));
        let activations: u64 = (0..self.layers.len())
            .map(|layer| {
                kept * self.layers[layer].output.len() as u64
                    + images * self.gradient_numbers(layer) as u64
            })
            .sum();

        let state = if config.train.adam.is_some() { 2 } else { 1 };
        // Added noise takes another copy of the weights and of a gradient, and a sum in f64.
        let noise = if config.train.added_noise.is_some() {
            4
        } else {
            0
        };
        // What the optimizer takes is another gradient if it is clipped, or at other weights, of which there is a copy.
        let taken = match (config.train.sam, config.train.clip_norm) {
            (Some(_), _) => 2,
            (None, Some(_)) => 1,
            (None, None) => 0,
        };
        let copies = 2 + state + noise + taken + u64::from(config.train.average.is_some());
        let largest = self
            .layers
            .iter()
            .map(|l| l.fan_in() * l.output.channels)
            .max()
            .unwrap_or(0) as u64;

        4 * (copies * self.param_counts().0
            + largest
            + (3 * 16 * largest).div_ceil(9)
            + activations)
    }

    /// Number of values per image of a layer's gradients: of the output, again for an added layer, and before
    /// pooling.
    fn gradient_numbers(&self, layer: usize) -> usize {
        let l = &self.layers[layer];
        let streams = if self.adding_layer(layer).is_some() {
            2
        } else {
            1
        };
        let pooled = if l.pool == Pool::None {
            0
        } else {
            l.activation_shape().len()
        };
        streams * l.output.len() + pooled
    }

    /// Further bytes that the metric `hessian_top` needs: both passes over a batch with their tangents, and some
    /// vectors, in f64.
    pub fn curvature_bytes(&self, config: &TrialConfig) -> u64 {
        let images = self.micro_batch_size(u64::from(config.effective_batch_size()));
        let activations: u64 = self
            .layers
            .iter()
            .map(|l| {
                // A smooth activation function needs its gradient and the tangent before it, too.
                let copies = if l.activation.is_homogeneous() { 5 } else { 7 };
                (copies * l.output.len() + 3 * l.activation_shape().len()) as u64
            })
            .sum();
        8 * (images * activations
            + u64::from(config.effective_batch_size()) * self.input.len() as u64
            + 7 * self.param_counts().0)
    }

    /// Bytes that a trial needs besides the dataset, including everything that is measured and kept.
    pub fn trial_bytes(&self, config: &TrialConfig, measure: &Measure) -> u64 {
        let saved = if measure.save.is_empty() {
            0
        } else {
            SAVED_COPIES * self.weights_file_bytes(config, &measure.save)
        };

        let curvature = if measure.needs_pass(MeasurementPass::Curvature) {
            self.curvature_bytes(config)
        } else {
            0
        };
        let differences = if measure.metrics.contains(&Metric::GradNoiseDim) {
            self.noise_dimension_bytes()
        } else {
            0
        };
        self.train_bytes(config)
            + saved
            + curvature
            + differences
            + self.start_bytes(config, measure)
    }

    /// Further bytes that a start from the weights of other trials needs: their sum in f64, one of them, and each of those of a cell
    /// if they are compared.
    fn start_bytes(&self, config: &TrialConfig, measure: &Measure) -> u64 {
        let Some(start) = &config.results_start else {
            return 0;
        };
        let compared = measure.metrics.iter().any(Metric::is_of_parts);
        let parts = start.selection.trials as usize * start.selection.at.len();
        let copies = 4 + u64::from(compared) * parts as u64;
        4 * copies * self.param_counts().0
    }

    /// Further bytes that the metric `grad_noise_dim` needs: the differences of all pairs of gradients.
    fn noise_dimension_bytes(&self) -> u64 {
        4 * NOISE_BATCHES / 2 * self.param_counts().0
    }

    /// Bytes of a file of trained weights: parameters and the running statistics of norms at each moment, and the average at
    /// the end.
    pub fn weights_file_bytes(&self, config: &TrialConfig, save: &SavedMoments) -> u64 {
        let moments = save.steps_in_trial(config).len() as u64;
        let has_average = config.train.average.is_some() && save.includes_end(config);
        let normed = self
            .layers
            .iter()
            .filter(|l| l.norm.is_some_and(|norm| norm.has_running_statistics()));
        let statistics: usize = normed.map(|l| 2 * l.output.channels).sum();
        let of_moment = self.param_counts().0 + statistics as u64;
        4 * (moments * of_moment + u64::from(has_average) * self.param_counts().0)
    }
}
