//! Buffers that a layer's backward pass writes, split into parts of the batch.

use std::mem::take;

use ergodic_common::net::Pool;

use super::aligned_buffer::AlignedBuffer;
use super::image_range::ImageRange;
use super::layer::LayerState;
use super::norm_backward::{GradientMeans, GradientSums};
use super::parallel::chunks_or_empty;

/// A part of a batch in a layer's backward pass, and where its results go.
pub(crate) struct BackwardPart<'a> {
    pub(crate) part: ImageRange,
    /// Gradient of the layer's weight, if this part is the only one; the workspace holds it otherwise.
    pub(crate) weight_gradient: Option<&'a mut [f32]>,
    /// Gradient of the z that the layer adds to its own.
    pub(crate) added_gradient: &'a mut [f32],
    /// Gradient of the activations that the layer reads.
    pub(crate) input_gradient: &'a mut [f32],
    /// Gradient of the same activations after pooling.
    pub(crate) pooled_gradient: &'a mut [f32],
    /// Means of ∂L/∂x and of ∂L/∂x·x for the norm of those activations, where it runs over single images.
    pub(crate) gradient_mean: &'a mut [f32],
    pub(crate) gradient_mean_x: &'a mut [f32],
}

impl<'a> BackwardPart<'a> {
    /// A part of the last layer's activations, whose gradient the loss has written.
    pub(crate) fn for_head(part: ImageRange, gradient: &'a mut [f32]) -> Self {
        Self {
            part,
            weight_gradient: None,
            added_gradient: &mut [],
            input_gradient: gradient,
            pooled_gradient: &mut [],
            gradient_mean: &mut [],
            gradient_mean_x: &mut [],
        }
    }
}

/// Buffers that a layer's backward pass writes for the layers before it, moved out of them while
/// all threads read them.
pub(crate) struct BackwardBuffers {
    pub(crate) per_image: ImageGradients,
    /// Sums over the batch for the norm of the layer that is read.
    pub(crate) gradient_sums: GradientSums,
}

/// The gradients with numbers for every image of the batch; those that do not occur are empty.
#[derive(Default)]
pub(crate) struct ImageGradients {
    input: AlignedBuffer,
    pooled: AlignedBuffer,
    means: GradientMeans,
    added: AlignedBuffer,
    /// Numbers per image of each buffer, 0 for those that do not occur.
    input_len: usize,
    pooled_len: usize,
    means_len: usize,
    added_len: usize,
}

impl ImageGradients {
    /// The parts of a batch of `images` images, each with its share of the buffers. `weight_gradient` goes to the first.
    pub(crate) fn split_into_parts<'a>(
        &'a mut self,
        images: usize,
        part_images: usize,
        mut weight_gradient: Option<&'a mut [f32]>,
    ) -> impl Iterator<Item = BackwardPart<'a>> {
        let GradientMeans { mean, mean_x } = &mut self.means;
        let mut input = chunks_or_empty(&mut self.input, part_images * self.input_len);
        let mut pooled = chunks_or_empty(&mut self.pooled, part_images * self.pooled_len);
        let mut mean = chunks_or_empty(mean, part_images * self.means_len);
        let mut mean_x = chunks_or_empty(mean_x, part_images * self.means_len);
        let mut added = chunks_or_empty(&mut self.added, part_images * self.added_len);

        ImageRange::whole_batch(images)
            .split_by(part_images)
            .map_while(move |part| {
                Some(BackwardPart {
                    part,
                    weight_gradient: weight_gradient.take(),
                    added_gradient: added.next()?,
                    input_gradient: input.next()?,
                    pooled_gradient: pooled.next()?,
                    gradient_mean: mean.next()?,
                    gradient_mean_x: mean_x.next()?,
                })
            })
    }
}

impl BackwardBuffers {
    /// Moves the buffers that the backward pass of layer `at` writes out of the layers that it
    /// reads and adds.
    pub(crate) fn take_from(layers: &mut [LayerState], at: usize) -> Self {
        let added_len = layers[at].plan.output_len();
        let source = layers[at].source;
        let add = layers[at].add;
        let mut per_image = ImageGradients::default();
        let mut gradient_sums = GradientSums::default();

        if let Some(source) = source.map(|source| &mut layers[source]) {
            let is_pooled = source.pool != Pool::None;
            per_image.input = take(&mut source.gradient);
            per_image.pooled = take(&mut source.pooled_gradient);
            per_image.means = take(&mut source.gradient_means);
            per_image.input_len = source.plan.output_len();
            per_image.pooled_len = if is_pooled {
                source.plan.activation_len
            } else {
                0
            };
            per_image.means_len = source.coefficients.image_stride;
            gradient_sums = take(&mut source.gradient_sums);
        }

        if let Some(added) = add.map(|added| &mut layers[added]) {
            per_image.added = take(added.residual_gradient_mut());
            per_image.added_len = added_len;
        }

        Self {
            per_image,
            gradient_sums,
        }
    }

    /// Moves the buffers back that [`Self::take_from`] has taken.
    pub(crate) fn restore_to(self, layers: &mut [LayerState], at: usize) {
        let source = layers[at].source;
        let add = layers[at].add;

        if let Some(source) = source.map(|source| &mut layers[source]) {
            source.gradient = self.per_image.input;
            source.pooled_gradient = self.per_image.pooled;
            source.gradient_means = self.per_image.means;
            source.gradient_sums = self.gradient_sums;
        }

        if let Some(added) = add.map(|added| &mut layers[added]) {
            *added.residual_gradient_mut() = self.per_image.added;
        }
    }
}
