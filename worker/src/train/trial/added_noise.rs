//! Noise that is added to the gradient of a step, with the covariance of a batch's gradient.

use candle_core::Result;
use ergodic_common::config::AddedNoise;
use ergodic_common::random_streams::{Purpose, RandomStream, Streams};

use super::Training;
use crate::train::data::augment;
use crate::train::engine::simd::Simd16;
use crate::train::measure::gradient_stats::draw_batch_indices;
use crate::train::optim::tensor::with_tensor_data;

/// The random numbers of one step's noise: the images and weights of its pairs, and the transforms of the images.
struct NoiseStreams {
    order: RandomStream,
    augment: RandomStream,
}

impl NoiseStreams {
    fn open_at_step(streams: &Streams, step: u64) -> Self {
        let detail = format!("added noise {step}");
        Self {
            order: streams.open_stream(Purpose::Order, detail.as_bytes()),
            augment: streams.open_stream(Purpose::Augment, detail.as_bytes()),
        }
    }
}

impl<S: Simd16> Training<'_, S> {
    /// Adds the noise of a step, counted from 0, to its gradient. The running statistics must have been updated before.
    pub(super) fn add_gradient_noise(&mut self, noise: AddedNoise, step: u64) -> Result<()> {
        let mut streams = NoiseStreams::open_at_step(self.job.streams, step);
        let weights = with_tensor_data(&self.state.weights, <[f32]>::to_vec)?;
        let mut gradient = vec![0.0; weights.len()];
        let mut sum = vec![0.0; weights.len()];
        let scale = 1.0 / (2.0 * f64::from(noise.pairs)).sqrt();

        for _ in 0..noise.pairs {
            let factor = scale * streams.order.next_normal();
            for signed_factor in [factor, -factor] {
                self.draw_gradient(noise, &weights, &mut streams, &mut gradient)?;
                sum.iter_mut()
                    .zip(&gradient)
                    .for_each(|(sum, g)| *sum += signed_factor * f64::from(*g));
            }
        }

        self.state.add_to_gradient(&sum)
    }

    /// Writes the gradient of a batch of training images that are drawn with replacement.
    fn draw_gradient(
        &mut self,
        noise: AddedNoise,
        weights: &[f32],
        streams: &mut NoiseStreams,
        gradient: &mut [f32],
    ) -> Result<()> {
        let images = noise.images as usize;
        let mut indices = Vec::with_capacity(images);
        let mut transforms = Vec::new();
        let subset = self.data.train_indices();
        draw_batch_indices(subset, images, &mut streams.order, &mut indices);
        augment::draw_transforms(
            self.job.config.data.augment,
            images,
            &mut streams.augment,
            &mut transforms,
        );

        let batch = self.data.train_batch(&indices).with_transforms(&transforms);
        self.engine
            .compute_gradient(self.s, weights, &batch, gradient)?;
        Ok(())
    }
}
