//! Forward and backward pass of a [`Net`] over a batch, on flat packed parameters.
//!
//! Sums run through a part of the batch, chunk by chunk, and are added part by part; parts may be on different threads.
//! Nothing is allocated per step on one thread.

pub(crate) mod direct_conv;
pub(crate) mod layer;
pub(crate) mod loss;
pub(crate) mod norm;
pub(crate) mod parallel;
pub(crate) mod pooling;
pub(crate) mod simd;
pub(crate) mod weight_grad;
pub(crate) mod winograd;

use std::mem::take;

use ergodic_common::config::Loss;
use ergodic_common::net::{Net, Pool};

use super::data::ImageBatch;
use super::engine::layer::{
    BackwardPart, ForwardPart, ImageRange, LayerPass, LayerState, RunningStatistics, WeightScratch,
    Workspace,
};
use super::engine::loss::{LossTally, Objective, argmax};
use super::engine::parallel::{Parallelism, add_elementwise, chunks_or_empty};
use super::engine::simd::{AlignedBuffer, Simd16, round_up_to_block};
use super::network::params::ParamLayout;
use super::network::plan;
use super::network::plan::HaloGrid;

/// A network with the memory to run it.
pub(crate) struct CpuEngine {
    /// Where parameters stand.
    pub(crate) layout: ParamLayout,
    /// Images whose activations are kept at a time.
    micro_batch: usize,
    layers: Vec<LayerState>,
    logits: AlignedBuffer,
    objective: Objective,
    /// The weights of the layer at work, as its kernels read them.
    weight_scratch: WeightScratch,
    parallelism: Parallelism,
    workspaces: Vec<Workspace>,
}

impl CpuEngine {
    /// For training batches of `batch` images and passes without gradient of up to `test` images, on `threads` threads of
    /// the pool that it runs in.
    pub(crate) fn new(net: &Net, loss: Loss, batch: usize, test: usize, threads: usize) -> Self {
        let plans = plan::plan_layers(net);
        let layout = ParamLayout::new(net, &plans);
        let part_of = net.micro_batch_size(batch as u64) as usize;
        let capacity = part_of.max(test);
        let state = |(at, plan)| LayerState::new(at, net, plan, &layout, part_of, capacity);
        let layers: Vec<_> = plans.into_iter().enumerate().map(state).collect();

        let objective = Objective {
            classes: net.classes,
            loss,
        };
        let logits = AlignedBuffer::zeros(capacity * round_up_to_block(net.classes));
        let parallelism = Parallelism::new(threads);
        let workspaces = parallelism
            .make_workspaces(|| Workspace::new(&layers, |plan| batch > plan.part_images));

        let weight_scratch = WeightScratch::new(&layers);
        Self {
            layout,
            micro_batch: part_of,
            layers,
            logits,
            objective,
            weight_scratch,
            parallelism,
            workspaces,
        }
    }

    /// Loss of a batch in training mode, and the gradient of its mean over the batch.
    pub(crate) fn compute_gradient<S: Simd16>(
        &mut self,
        s: S,
        weights: &[f32],
        source: &ImageBatch<'_>,
        gradient: &mut [f32],
    ) -> LossTally {
        gradient.fill(0.0);
        self.layers.iter_mut().for_each(|l| l.gradient_sums.reset());
        let mut tally = LossTally::default();
        let images = source.len();
        let share = 1.0 / source.len() as f64;

        for part in source.micro_batches(self.micro_batch) {
            self.forward(s, weights, &part, None);
            let last = self.layers.last_mut().expect("a network has a head");
            let len = last.plan.output_len();
            tally.add(self.objective.sum_losses_with_gradient(
                &self.logits,
                len,
                part.labels(),
                share,
                &mut last.gradient,
            ));

            self.backward(s, weights, &part, images, gradient);
        }

        tally
    }

    /// Losses of a batch under the running statistics.
    pub(crate) fn evaluate_batch<S: Simd16>(
        &mut self,
        s: S,
        weights: &[f32],
        statistics: &[f32],
        source: &ImageBatch<'_>,
    ) -> LossTally {
        self.forward(s, weights, source, Some(statistics));
        self.objective.sum_losses(
            &self.logits,
            round_up_to_block(self.objective.classes),
            source.labels(),
        )
    }

    /// Classes that the last pass gives its first images.
    pub(crate) fn predicted_classes(&self, images: usize) -> impl Iterator<Item = u8> {
        let logits = self
            .logits
            .chunks_exact(round_up_to_block(self.objective.classes))
            .take(images);
        logits.map(|logits| argmax(&logits[..self.objective.classes]) as u8)
    }

    /// Logits of an image of the last pass.
    #[cfg(test)]
    pub(crate) fn image_logits(&self, image: usize) -> &[f32] {
        &self.logits[image * round_up_to_block(self.objective.classes)..][..self.objective.classes]
    }

    /// Fills z of every layer, and the logits.
    fn forward<S: Simd16>(
        &mut self,
        s: S,
        weights: &[f32],
        source: &ImageBatch<'_>,
        running: Option<&[f32]>,
    ) {
        self.workspaces
            .iter_mut()
            .flat_map(|desk| &mut desk.layers)
            .for_each(|layer| layer.written_chunk = None);

        for at in 0..self.layers.len() {
            self.forward_layer(s, at, weights, source, running.is_none());
            let statistics = running.zip(self.layout.running_mean_ranges[at].as_ref());
            let statistics = statistics.map(|(all, mean)| RunningStatistics {
                mean: &all[mean.clone()],
                variance: &all[mean.end..mean.end + mean.len()],
            });

            let (before, rest) = self.layers.split_at_mut(at);
            rest[0].set_coefficients(before, weights, statistics);
        }

        let last = self.layers.last().expect("a network has a head");
        let grid = HaloGrid::single_pixel(last.plan.output_len());
        last.write_activations(
            s,
            ImageRange {
                first: 0,
                images: source.len(),
            },
            grid,
            &mut self.logits,
        );
    }

    /// Fills z of a layer, and takes its moments.
    fn forward_layer<S: Simd16>(
        &mut self,
        s: S,
        at: usize,
        weights: &[f32],
        source: &ImageBatch<'_>,
        training: bool,
    ) {
        let layer = &mut self.layers[at];
        let mut z = take(&mut layer.z);
        let mut moments = take(&mut layer.moments);
        let mut mean = take(&mut layer.coefficients.mean);
        let mut inv = take(&mut layer.coefficients.inv_std);
        moments.reset();

        let layer = &self.layers[at];
        let weights = layer.transform_weights(s, weights, &mut self.weight_scratch.transformed);
        let pass = LayerPass {
            layers: &self.layers,
            weights,
            batch: source,
            training,
        };

        let part = layer.plan.part_images;
        let stride = layer.coefficients.image_stride;
        let parts = ImageRange {
            first: 0,
            images: source.len(),
        }
        .split_by(part);
        let parts = parts.zip(chunks_or_empty(&mut z, part * layer.plan.output_len()));
        let parts = parts.zip(
            chunks_or_empty(&mut mean, part * stride).zip(chunks_or_empty(&mut inv, part * stride)),
        );
        let parts = parts.map(|((part, z), (mean, inv))| ForwardPart {
            part,
            z,
            mean,
            inv_std: inv,
        });
        self.parallelism.process_and_merge(
            &mut self.workspaces,
            parts,
            |desk, part| layer.forward_part(s, at, &pass, desk, part),
            |desk| moments.add(&desk.layers[at].moments),
        );

        let layer = &mut self.layers[at];
        (layer.z, layer.moments) = (z, moments);
        (layer.coefficients.mean, layer.coefficients.inv_std) = (mean, inv);
    }

    /// `whole`: images of the batch of which these are a part.
    fn backward<S: Simd16>(
        &mut self,
        s: S,
        weights: &[f32],
        source: &ImageBatch<'_>,
        whole: usize,
        gradient: &mut [f32],
    ) {
        let images = source.len();
        self.begin_backward(s, images);

        for at in (0..self.layers.len()).rev() {
            let (_, rest) = self.layers.split_at_mut(at);
            let (layer, after) = rest.split_first_mut().expect("the index is a layer's");
            layer.finish_gradient_sums(after, at + 1, images, gradient);
            let place = layer.param_ranges.weight.clone();
            let alone = whole <= layer.plan.part_images;
            self.backward_layer(s, at, weights, source, alone, &mut gradient[place]);
        }
    }

    /// Takes the slopes of the last layer, whose gradient the loss has written.
    fn begin_backward<S: Simd16>(&mut self, s: S, images: usize) {
        let last = self.layers.last_mut().expect("a network has a head");
        let desk = &mut self.workspaces[0];
        let mut gradient = take(&mut last.gradient);
        let mut sums = take(&mut last.gradient_sums);

        for part in (ImageRange { first: 0, images }).split_by(last.plan.chunk_images) {
            let gradient = part.slice_within_mut(
                ImageRange { first: 0, images },
                &mut gradient,
                last.plan.output_len(),
            );

            let weights = None;
            let passed = &mut [][..];
            let pooled = &mut [][..];
            let slopes = (&mut [][..], &mut [][..]);
            let mut to = BackwardPart {
                part,
                weight_gradient: weights,
                added_gradient: passed,
                input_gradient: gradient,
                pooled_gradient: pooled,
                gradient_means: slopes,
            };

            last.add_gradient_sums(s, part, &mut to, &mut sums, &mut desk.image_gradient_sums);
        }

        (last.gradient, last.gradient_sums) = (gradient, sums);
    }

    /// The backward pass over a layer: adds to the gradient of its weight, and to those of the layers it reads.
    fn backward_layer<S: Simd16>(
        &mut self,
        s: S,
        at: usize,
        weights: &[f32],
        source: &ImageBatch<'_>,
        alone: bool,
        total: &mut [f32],
    ) {
        let reads = self.layers[at].source;
        let adds = self.layers[at].add;
        let mut lent = reads
            .map(|before| self.layers[before].take_gradient_buffers())
            .unwrap_or_default();
        let mut passed = adds
            .map(|before| take(self.layers[before].residual_gradient_mut()))
            .unwrap_or_default();

        {
            let layer = &self.layers[at];
            let weights = layer.transpose_weights(s, weights, &mut self.weight_scratch);
            let pass = LayerPass {
                layers: &self.layers,
                weights,
                batch: source,
                training: true,
            };

            let part = layer.plan.part_images;
            let read = |len: fn(&LayerState) -> usize| {
                reads.map_or(0, |before| part * len(&self.layers[before]))
            };
            let inner = read(|l| l.plan.output_len());
            let stride = read(|l| l.coefficients.image_stride);

            let pooled = read(|l| {
                if l.pool == Pool::None {
                    0
                } else {
                    l.plan.activation_len
                }
            });

            let added = if adds.is_some() {
                part * layer.plan.output_len()
            } else {
                0
            };

            // A single part writes where the sum of all belongs.
            let (mut direct, mut total) = if alone {
                (Some(total), None)
            } else {
                (None, Some(total))
            };

            let parts = ImageRange {
                first: 0,
                images: source.len(),
            }
            .split_by(part)
            .zip(chunks_or_empty(&mut passed, added));
            let parts = parts.zip(
                chunks_or_empty(&mut lent.gradient, inner)
                    .zip(chunks_or_empty(&mut lent.pooled_gradient, pooled)),
            );

            let slopes = chunks_or_empty(&mut lent.gradient_means.mean, stride)
                .zip(chunks_or_empty(&mut lent.gradient_means.mean_x, stride));
            let parts = parts
                .zip(slopes)
                .map(
                    |(((part, passed), (gradient, pooled)), slopes)| BackwardPart {
                        part,
                        weight_gradient: direct.take(),
                        added_gradient: passed,
                        input_gradient: gradient,
                        pooled_gradient: pooled,
                        gradient_means: slopes,
                    },
                );

            self.parallelism.process_and_merge(
                &mut self.workspaces,
                parts,
                |desk, part| layer.backward_part(s, at, &pass, desk, part),
                |desk| {
                    lent.gradient_sums.add(&desk.gradient_sums);
                    if let (Some(total), true) = (&mut total, layer.trained) {
                        add_elementwise(total, &desk.weight_gradient);
                    }
                },
            );
        }

        if let Some(before) = reads {
            self.layers[before].restore_gradient_buffers(lent);
        }
        if let Some(before) = adds {
            *self.layers[before].residual_gradient_mut() = passed;
        }
    }

    /// Passes over a batch in training mode, for its statistics.
    pub(crate) fn collect_statistics<S: Simd16>(
        &mut self,
        s: S,
        weights: &[f32],
        source: &ImageBatch<'_>,
    ) {
        self.forward(s, weights, source, None);
    }

    /// Mean and unbiased variance of the last training batch before a layer's norm.
    pub(crate) fn batch_statistics(&self, layer: usize) -> impl Iterator<Item = (f64, f64)> {
        self.layers[layer].moments.unbiased_statistics()
    }
}
