//! Forward and backward pass of a [`Net`] over a batch, on flat packed parameters.
//!
//! A batch is cut into micro-batches, these into parts, which may be on different threads, and parts into chunks that stay
//! in the cache. Sums run through a part chunk by chunk and are then added part by part, so that the number of threads
//! decides no bit. Nothing is allocated per step on one thread.

pub(crate) mod activation;
pub(crate) mod aligned_buffer;
pub(crate) mod backward;
pub(crate) mod backward_buffers;
pub(crate) mod direct_conv;
pub(crate) mod forward;
pub(crate) mod ghost_batch;
pub(crate) mod image_range;
pub(crate) mod layer;
pub(crate) mod loss;
pub(crate) mod norm;
pub(crate) mod norm_backward;
pub(crate) mod parallel;
pub(crate) mod pooling;
pub(crate) mod simd;
pub(crate) mod weight_grad;
pub(crate) mod winograd;
pub(crate) mod workspace;

use std::mem::take;

use ergodic_common::config::Loss;
use ergodic_common::net::Net;

use super::data::ImageBatch;
use super::engine::aligned_buffer::AlignedBuffer;
use super::engine::backward_buffers::{BackwardBuffers, BackwardPart};
use super::engine::image_range::ImageRange;
use super::engine::layer::{LayerPass, LayerState, RunningStatistics};
use super::engine::loss::{LossTally, Objective, argmax};
use super::engine::parallel::{Parallelism, add_elementwise};
use super::engine::simd::{Simd16, round_up_to_block};
use super::engine::workspace::{WeightScratch, Workspace};
use super::network::params::ParamLayout;
use super::network::plan;
use super::network::shape::HaloGrid;

/// A network with the memory to run it.
pub(crate) struct CpuEngine {
    /// The layout of the packed parameters.
    pub(crate) layout: ParamLayout,
    /// Images whose activations are held at a time in training.
    micro_batch: usize,
    layers: Vec<LayerState>,
    logits: AlignedBuffer,
    objective: Objective,
    /// The weights of the current layer, as its kernels read them.
    weight_scratch: WeightScratch,
    parallelism: Parallelism,
    /// The buffers of each thread.
    workspaces: Vec<Workspace>,
}

impl CpuEngine {
    /// An engine for training batches of `batch` images and passes without gradient of up to `test` images, on `threads` threads of
    /// the pool that it runs in.
    pub(crate) fn new(net: &Net, loss: Loss, batch: usize, test: usize, threads: usize) -> Self {
        let plans = plan::plan_layers(net);
        let layout = ParamLayout::new(net, &plans);
        let micro_batch = net.micro_batch_size(batch as u64) as usize;
        let capacity = micro_batch.max(test);
        let layers: Vec<_> = plans
            .into_iter()
            .enumerate()
            .map(|(at, plan)| LayerState::new(at, net, plan, &layout, micro_batch, capacity))
            .collect();

        let parallelism = Parallelism::new(threads);
        let workspaces = parallelism
            .make_workspaces(|| Workspace::new(&layers, |plan| batch > plan.part_images));

        Self {
            layout,
            micro_batch,
            logits: AlignedBuffer::zeros(capacity * round_up_to_block(net.classes)),
            objective: Objective {
                outputs: net.classes,
                loss,
            },
            weight_scratch: WeightScratch::new(&layers),
            layers,
            parallelism,
            workspaces,
        }
    }

    /// Loss of a batch in training mode, and the gradient of its mean over the batch.
    pub(crate) fn compute_gradient<S: Simd16>(
        &mut self,
        s: S,
        weights: &[f32],
        batch: &ImageBatch<'_>,
        gradient: &mut [f32],
    ) -> LossTally {
        gradient.fill(0.0);
        self.layers
            .iter_mut()
            .for_each(LayerState::reset_batch_sums);
        let mut tally = LossTally::default();
        let batch_images = batch.len();

        for micro_batch in batch.micro_batches(self.micro_batch) {
            self.forward_training(s, weights, &micro_batch);
            tally.add(self.compute_loss_gradient(&micro_batch, batch_images));
            self.backward(s, weights, &micro_batch, batch_images, gradient);
        }

        tally
    }

    /// Losses of a micro-batch, and their gradient in the logits, scaled for the mean over `batch_images`.
    fn compute_loss_gradient(
        &mut self,
        micro_batch: &ImageBatch<'_>,
        batch_images: usize,
    ) -> LossTally {
        let head = self.layers.last_mut().expect("a network has a head");
        self.objective.sum_losses_with_gradient(
            &self.logits,
            head.plan.output_len(),
            micro_batch.targets(),
            1.0 / batch_images as f64,
            &mut head.gradient,
        )
    }

    /// Losses of a batch under the running statistics.
    pub(crate) fn evaluate_batch<S: Simd16>(
        &mut self,
        s: S,
        weights: &[f32],
        statistics: &[f32],
        batch: &ImageBatch<'_>,
    ) -> LossTally {
        self.forward(s, weights, batch, Some(statistics));
        self.objective.sum_losses(
            &self.logits,
            round_up_to_block(self.objective.outputs),
            batch.targets(),
        )
    }

    /// Classes that the last pass predicts for its first images.
    pub(crate) fn predicted_classes(&self, images: usize) -> impl Iterator<Item = u8> {
        self.logits
            .chunks_exact(round_up_to_block(self.objective.outputs))
            .take(images)
            .map(|logits| argmax(&logits[..self.objective.outputs]) as u8)
    }

    /// Logits of an image of the last pass.
    #[cfg(test)]
    pub(crate) fn image_logits(&self, image: usize) -> &[f32] {
        &self.logits[image * round_up_to_block(self.objective.outputs)..][..self.objective.outputs]
    }

    /// The forward pass in training mode.
    fn forward_training<S: Simd16>(&mut self, s: S, weights: &[f32], micro_batch: &ImageBatch<'_>) {
        self.forward(s, weights, micro_batch, None);
        self.layers
            .iter_mut()
            .for_each(LayerState::add_ghost_statistics);
    }

    /// The forward pass: z of every layer, and the logits. `running` are the statistics of an evaluation; a training pass
    /// has none.
    fn forward<S: Simd16>(
        &mut self,
        s: S,
        weights: &[f32],
        batch: &ImageBatch<'_>,
        running: Option<&[f32]>,
    ) {
        self.workspaces
            .iter_mut()
            .flat_map(|workspace| &mut workspace.layers)
            .for_each(|layer| layer.written_chunk = None);

        for at in 0..self.layers.len() {
            self.forward_layer(s, at, weights, batch, running.is_none());
            self.set_coefficients(at, weights, running);
        }

        let head = self.layers.last().expect("a network has a head");
        let grid = HaloGrid::single_pixel(head.plan.output_len());
        head.write_activations(
            s,
            ImageRange::whole_batch(batch.len()),
            grid,
            &mut self.logits,
        );
    }

    /// Computes z of a layer, and its moments.
    fn forward_layer<S: Simd16>(
        &mut self,
        s: S,
        at: usize,
        weights: &[f32],
        batch: &ImageBatch<'_>,
        training: bool,
    ) {
        let mut buffers = self.layers[at].take_forward_buffers();
        let mut moments = take(&mut self.layers[at].moments);
        moments.reset();

        let layer = &self.layers[at];
        let pass = LayerPass {
            at,
            layers: &self.layers,
            weights: layer.transform_weights(s, weights, &mut self.weight_scratch.transformed),
            batch,
            training,
        };

        self.parallelism.process_and_merge(
            &mut self.workspaces,
            buffers.split_into_parts(batch.len(), layer.plan.part_images),
            |workspace, part| layer.forward_part(s, &pass, workspace, part),
            |workspace| moments.add(&workspace.layers[at].moments),
        );

        self.layers[at].moments = moments;
        self.layers[at].restore_forward_buffers(buffers);
    }

    /// Sets what turns a layer's z into its activation.
    fn set_coefficients(&mut self, at: usize, weights: &[f32], running: Option<&[f32]>) {
        let range = self.layout.running_mean_ranges[at].as_ref();
        let running = running.zip(range).map(|(all, mean)| RunningStatistics {
            mean: &all[mean.clone()],
            variance: &all[mean.end..mean.end + mean.len()],
        });

        let (before, rest) = self.layers.split_at_mut(at);
        rest[0].set_coefficients(before, weights, running);
    }

    /// The backward pass over a micro-batch of a batch of `batch_images`: adds to the gradient of every parameter.
    fn backward<S: Simd16>(
        &mut self,
        s: S,
        weights: &[f32],
        micro_batch: &ImageBatch<'_>,
        batch_images: usize,
        gradient: &mut [f32],
    ) {
        self.begin_backward(s, micro_batch.len());

        for at in (0..self.layers.len()).rev() {
            self.finish_gradient_sums(at, micro_batch.len(), gradient);

            let layer = &self.layers[at];
            let has_one_part = batch_images <= layer.plan.part_images;
            let weight_gradient = &mut gradient[layer.param_ranges.weight.clone()];
            self.backward_layer(s, at, weights, micro_batch, has_one_part, weight_gradient);
        }
    }

    /// The sums of the last layer, whose gradient the loss has written.
    fn begin_backward<S: Simd16>(&mut self, s: S, images: usize) {
        let head = self.layers.last_mut().expect("a network has a head");
        let mut gradient = take(&mut head.gradient);
        let mut sums = take(&mut head.gradient_sums);
        let image_sums = &mut self.workspaces[0].image_gradient_sums;
        let whole = ImageRange::whole_batch(images);

        for chunk in whole.split_by(head.plan.chunk_images) {
            let gradient = chunk.slice_within_mut(whole, &mut gradient, head.plan.output_len());
            let mut to = BackwardPart::for_head(chunk, gradient);
            head.add_gradient_sums(s, chunk, &mut to, &mut sums, image_sums);
        }

        head.gradient = gradient;
        head.gradient_sums = sums;
    }

    /// The gradients of a layer's scale, shift and bias, whose sums are complete now.
    fn finish_gradient_sums(&mut self, at: usize, images: usize, gradient: &mut [f32]) {
        let (up_to, after) = self.layers.split_at_mut(at + 1);
        up_to[at].finish_gradient_sums(after, at + 1, images, gradient);
    }

    /// The backward pass over a layer: adds to the gradient of its weight, and to those of the layers that it reads.
    fn backward_layer<S: Simd16>(
        &mut self,
        s: S,
        at: usize,
        weights: &[f32],
        micro_batch: &ImageBatch<'_>,
        has_one_part: bool,
        weight_gradient: &mut [f32],
    ) {
        let mut buffers = BackwardBuffers::take_from(&mut self.layers, at);
        let mut bias_gradient = take(&mut self.layers[at].bias_gradient);
        let WeightScratch {
            transformed,
            transposed,
        } = &mut self.weight_scratch;
        let layer = &self.layers[at];
        let pass = LayerPass {
            at,
            layers: &self.layers,
            weights: layer.transpose_weights(s, weights, transformed, transposed),
            batch: micro_batch,
            training: true,
        };

        // If there is one part, it writes straight into the sum and saves an addition.
        let (only, mut total) = if has_one_part {
            (Some(weight_gradient), None)
        } else {
            (None, Some(weight_gradient))
        };
        let gradients = &mut buffers.per_image;
        let parts = gradients.split_into_parts(micro_batch.len(), layer.plan.part_images, only);

        self.parallelism.process_and_merge(
            &mut self.workspaces,
            parts,
            |workspace, part| layer.backward_part(s, &pass, workspace, part),
            |workspace| {
                buffers.gradient_sums.add(&workspace.gradient_sums);
                if let (Some(total), true) = (&mut total, layer.trained) {
                    add_elementwise(total, &workspace.weight_gradient);
                }
                if layer.bias_flow.enters_z {
                    let sums = bias_gradient.iter_mut();
                    sums.zip(&workspace.z_gradient_sums)
                        .for_each(|(sum, x)| *sum += x);
                }
            },
        );

        buffers.restore_to(&mut self.layers, at);
        self.layers[at].bias_gradient = bias_gradient;
    }

    /// Runs a forward pass over a batch in training mode, for its statistics.
    pub(crate) fn collect_statistics<S: Simd16>(
        &mut self,
        s: S,
        weights: &[f32],
        batch: &ImageBatch<'_>,
    ) {
        self.layers
            .iter_mut()
            .for_each(LayerState::reset_batch_sums);
        for micro_batch in batch.micro_batches(self.micro_batch) {
            self.forward_training(s, weights, &micro_batch);
        }
    }

    /// Mean and unbiased variance of the last training batch before a layer's norm; their means over ghost batches.
    pub(crate) fn batch_statistics(&self, layer: usize) -> impl Iterator<Item = (f64, f64)> {
        self.layers[layer].batch_statistics()
    }
}
