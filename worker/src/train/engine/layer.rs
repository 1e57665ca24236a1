//! One layer of a network at work: its buffers, and its passes over a part of a batch.
//!
//! Of a layer, only its map's output z is kept for the whole batch. Activations and ∂L/∂z are made chunk by chunk in
//! buffers that stay in the cache, just before the kernels that read them: forward once, backward once more.

use std::mem::take;
use std::ops::Range;

use ergodic_common::net::{Net, NormScope, NormSpec, ParamRole, Pool};

use super::direct_conv::{DirectConvKernel, InitialSum};
use super::norm::{
    ActivationKernel, ChannelCoefficients, ChannelMoments, GradientMeans, GradientSums,
    GradientSumsKernel, MomentsKernel, NormBackwardKernel, set_mean_and_inv_std,
};
use super::pooling::{PoolInput, PooledActivationKernel, UnpoolKernel};
use super::simd::{AlignedBuffer, BLOCK, Simd16};
use super::weight_grad::WeightGradientKernel;
use super::winograd;
use super::winograd::{WeightGatherKernel, WeightTransformKernel, WinogradPlan, WinogradWorkspace};
use crate::train::data::ImageBatch;
use crate::train::network::params::ParamLayout;
use crate::train::network::plan::{
    ConvAlgorithm, DirectConvPlan, HaloGrid, LayerPlan, TransposedConvPlan,
};

/// What the weights of a layer are turned into, with room for any layer's.
pub(crate) struct WeightScratch {
    /// At the points of tiles.
    pub(crate) transformed: AlignedBuffer,
    /// With inputs and outputs exchanged.
    transposed: AlignedBuffer,
}

impl WeightScratch {
    pub(crate) fn new(layers: &[LayerState]) -> Self {
        let most = |len: fn(&ConvAlgorithm) -> usize| {
            layers
                .iter()
                .map(|l| len(&l.plan.algorithm))
                .max()
                .unwrap_or(0)
        };
        let spread = most(|way| {
            if let ConvAlgorithm::Winograd(tiled) = way {
                tiled.weight_len()
            } else {
                0
            }
        });

        let transposed = most(|way| match way {
            ConvAlgorithm::Winograd(tiled) => tiled.weight_len(),
            ConvAlgorithm::Direct(direct) => direct
                .transposed
                .as_ref()
                .map_or(0, TransposedConvPlan::weight_len),
        });
        Self {
            transformed: AlignedBuffer::zeros(spread),
            transposed: AlignedBuffer::zeros(transposed),
        }
    }
}

/// What one thread writes on.
pub(crate) struct Workspace {
    pub(crate) layers: Vec<LayerWorkspace>,
    /// Gradient of a weight over a part of the batch.
    pub(crate) weight_gradient: AlignedBuffer,
    winograd: WinogradWorkspace,
    pub(crate) gradient_sums: GradientSums,
    /// Sums of a single image, for norms over single images.
    pub(crate) image_gradient_sums: GradientSums,
}

pub(crate) struct LayerWorkspace {
    /// Inputs of a chunk, and the first image of the chunk if this pass has written it.
    input: AlignedBuffer,
    pub(crate) written_chunk: Option<usize>,
    /// ∂L/∂z of a chunk.
    z_gradient: AlignedBuffer,
    pub(crate) moments: ChannelMoments,
}

impl Workspace {
    /// `parts`: whether a batch has several.
    pub(crate) fn new(layers: &[LayerState], parts: impl Fn(&LayerPlan) -> bool) -> Self {
        let weights = layers
            .iter()
            .filter(|l| l.trained && parts(&l.plan))
            .map(|l| l.param_ranges.weight.len());
        let width = layers.iter().map(|l| l.plan.channels).max().unwrap_or(0);
        let of = |l: &LayerState| LayerWorkspace {
            input: AlignedBuffer::zeros(l.plan.chunk_images * l.plan.input.len()),
            written_chunk: None,
            z_gradient: AlignedBuffer::zeros(l.plan.chunk_images * l.plan.output_len()),
            moments: ChannelMoments::new(l.plan.channels),
        };

        Self {
            weight_gradient: AlignedBuffer::zeros(weights.max().unwrap_or(0)),
            winograd: WinogradWorkspace::new(layers.iter().filter_map(|l| l.plan.winograd_plan())),
            layers: layers.iter().map(of).collect(),
            gradient_sums: GradientSums::new(width),
            image_gradient_sums: GradientSums::new(width),
        }
    }
}

/// A layer's plan and buffers.
pub(crate) struct LayerState {
    pub(crate) plan: LayerPlan,
    pub(crate) source: Option<usize>,
    pub(crate) add: Option<usize>,
    pub(crate) norm: Option<NormSpec>,
    pub(crate) pool: Pool,
    pub(crate) trained: bool,
    /// Channels without padding.
    unpadded_channels: usize,
    pub(crate) param_ranges: ParamRanges,
    readers: LayerReaders,
    /// Output of the map, and what is added to it, for the whole batch.
    pub(crate) z: AlignedBuffer,
    /// Gradient of the activations for the whole batch; of z itself where no layer reads the activations.
    pub(crate) gradient: AlignedBuffer,
    /// Gradient of the pooled activations.
    pub(crate) pooled_gradient: AlignedBuffer,
    /// Gradient of z from the layer that adds it to its own.
    residual_gradient: AlignedBuffer,
    pub(crate) coefficients: ChannelCoefficients,
    pub(crate) moments: ChannelMoments,
    pub(crate) gradient_sums: GradientSums,
    pub(crate) gradient_means: GradientMeans,
    /// Σ ∂L/∂z where there is no norm: the gradient of the bias.
    bias_gradient: Vec<f64>,
}

/// Who uses a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerReaders {
    /// The first and last layer that read its activation.
    activation: Option<(usize, usize)>,
    /// The layer that adds its z.
    adder: Option<usize>,
}

impl LayerReaders {
    fn from_net(net: &Net, at: usize) -> Self {
        let reads = |l: &ergodic_common::net::Layer| l.source == Some(at);
        let first = net.layers.iter().position(reads);
        let last = net.layers.iter().rposition(reads);
        Self {
            activation: first.zip(last),
            adder: net.adding_layer(at),
        }
    }
}

/// Places of a layer's parameters.
pub(crate) struct ParamRanges {
    pub(crate) weight: Range<usize>,
    scale: Option<Range<usize>>,
    /// Of the bias, or of the norm's shift.
    shift: Option<Range<usize>>,
}

/// What the backward pass over a layer writes for an earlier one, whose activations it reads.
#[derive(Default)]
pub(crate) struct GradientBuffers {
    pub(crate) gradient: AlignedBuffer,
    pub(crate) pooled_gradient: AlignedBuffer,
    pub(crate) gradient_means: GradientMeans,
    pub(crate) gradient_sums: GradientSums,
}

/// A part of a batch in a layer's forward pass, and where its results go.
pub(crate) struct ForwardPart<'a> {
    pub(crate) part: ImageRange,
    pub(crate) z: &'a mut [f32],
    /// Of every image, where a norm runs over single images.
    pub(crate) mean: &'a mut [f32],
    pub(crate) inv_std: &'a mut [f32],
}

/// A part of a batch in a layer's backward pass, and where its results go.
pub(crate) struct BackwardPart<'a> {
    pub(crate) part: ImageRange,
    /// Gradient of the layer's weight, if this part is alone; it goes to the desk otherwise.
    pub(crate) weight_gradient: Option<&'a mut [f32]>,
    /// Gradient that reaches what the layer adds to its z.
    pub(crate) added_gradient: &'a mut [f32],
    /// Of the activations that the layer reads, and of these after pooling.
    pub(crate) input_gradient: &'a mut [f32],
    pub(crate) pooled_gradient: &'a mut [f32],
    /// What their norm makes of it, where it runs over single images.
    pub(crate) gradient_means: (&'a mut [f32], &'a mut [f32]),
}

impl LayerState {
    pub(crate) fn new(
        at: usize,
        net: &Net,
        plan: LayerPlan,
        layout: &ParamLayout,
        batch: usize,
        capacity: usize,
    ) -> Self {
        let layer = &net.layers[at];
        let width = plan.channels;
        let place = |role| layout.param_range(at, role);
        let param_ranges = ParamRanges {
            weight: place(ParamRole::Weight).expect("every layer has a weight"),
            scale: place(ParamRole::NormScale),
            shift: place(ParamRole::Bias).or(place(ParamRole::NormShift)),
        };

        let readers = LayerReaders::from_net(net, at);
        let zeros = |wanted: bool, len: usize| AlignedBuffer::zeros(if wanted { len } else { 0 });
        let single = layer.norm.is_some_and(|n| !n.has_running_statistics());
        let sets = if single { capacity } else { 1 };
        let channels = ChannelCoefficients::identity(width, layer.relu);
        Self {
            source: layer.source,
            add: layer.add,
            norm: layer.norm,
            pool: layer.pool,
            trained: layer.trained,
            unpadded_channels: layer.output.channels,
            param_ranges,
            z: AlignedBuffer::zeros(capacity * plan.output_len()),
            gradient: AlignedBuffer::zeros(batch * plan.output_len()),
            pooled_gradient: zeros(layer.pool != Pool::None, batch * plan.activation_len),
            residual_gradient: zeros(
                readers.activation.is_some() && readers.adder.is_some(),
                batch * plan.output_len(),
            ),
            readers,
            coefficients: if single {
                channels.repeat_per_image(capacity)
            } else {
                channels
            },
            moments: ChannelMoments::new(width),
            gradient_sums: GradientSums::new(width),
            gradient_means: GradientMeans::new(width, sets),
            bias_gradient: vec![0.0; width],
            plan,
        }
    }

    /// Groups of a norm over single images.
    fn norm_groups(&self) -> Option<(usize, f64)> {
        self.norm.and_then(|norm| match norm.scope {
            NormScope::Groups(groups) => Some((groups, norm.eps)),
            NormScope::Batch => None,
        })
    }

    /// The forward pass over a part of the batch: inputs, map, and the sums that a norm needs.
    pub(crate) fn forward_part<S: Simd16>(
        &self,
        s: S,
        at: usize,
        pass: &LayerPass<'_>,
        desk: &mut Workspace,
        mapped: ForwardPart<'_>,
    ) {
        let ForwardPart {
            part,
            z,
            mean,
            inv_std: inv,
        } = mapped;

        let (desk, tiles) = (&mut desk.layers[at], &mut desk.winograd);
        desk.moments.reset();

        for chunk in part.split_by(self.plan.chunk_images) {
            let own = chunk.slice_within_mut(part, z, self.plan.output_len());
            self.read_input(s, pass, desk, chunk);
            self.apply_linear_op(s, pass, &desk.input, chunk, tiles, own);

            if let Some((groups, eps)) = self.norm_groups() {
                for (at, z) in own.chunks_exact(self.plan.output_len()).enumerate() {
                    let of_image =
                        (chunk.first - part.first + at) * self.coefficients.image_stride..;
                    desk.moments.reset();
                    s.dispatch(MomentsKernel {
                        z,
                        moments: &mut desk.moments,
                    });

                    let statistics = desk
                        .moments
                        .group_statistics(self.unpadded_channels, groups);
                    set_mean_and_inv_std(
                        statistics,
                        eps,
                        &mut mean[of_image.clone()],
                        &mut inv[of_image],
                    );
                }
            } else if self.norm.is_some() && pass.training {
                s.dispatch(MomentsKernel {
                    z: own,
                    moments: &mut desk.moments,
                });
            }
        }
    }

    /// Makes the inputs of a chunk, unless they are there.
    fn read_input<S: Simd16>(
        &self,
        s: S,
        pass: &LayerPass<'_>,
        desk: &mut LayerWorkspace,
        chunk: ImageRange,
    ) {
        if desk.written_chunk == Some(chunk.first) {
            return;
        }

        desk.written_chunk = Some(chunk.first);
        let grid = self.plan.input;
        let output = &mut desk.input;

        match self.source {
            None => pass
                .batch
                .write_images(chunk.first, chunk.images, &grid, output),
            Some(at) => pass.layers[at].write_activations(s, chunk, grid, output),
        }
    }

    /// Writes the activations of a chunk.
    pub(crate) fn write_activations<S: Simd16>(
        &self,
        s: S,
        chunk: ImageRange,
        grid: HaloGrid,
        output: &mut [f32],
    ) {
        let z = chunk.slice_of(&self.z, self.plan.output_len());
        let channels = &self.coefficients;
        let ImageRange { first, images } = chunk;

        if self.pool == Pool::None {
            s.dispatch(ActivationKernel {
                z,
                coefficients: channels,
                grid,
                first,
                images,
                output,
            });
        } else {
            s.dispatch(PooledActivationKernel {
                input: self.pool_input(chunk),
                grid,
                output,
            });
        }
    }

    pub(crate) fn pool_input(&self, chunk: ImageRange) -> PoolInput<'_> {
        PoolInput {
            z: chunk.slice_of(&self.z, self.plan.output_len()),
            coefficients: &self.coefficients,
            pixels: self.plan.pixels,
            width: self.plan.width,
            pool: self.pool,
            first: chunk.first,
            images: chunk.images,
        }
    }

    /// The map, for a chunk.
    pub(crate) fn apply_linear_op<S: Simd16>(
        &self,
        s: S,
        pass: &LayerPass<'_>,
        input: &[f32],
        chunk: ImageRange,
        tiles: &mut WinogradWorkspace,
        output: &mut [f32],
    ) {
        let plan = &self.plan;
        let weights = pass.weights;
        let added = self
            .add
            .map(|at| chunk.slice_of(&pass.layers[at].z, plan.output_len()));
        let start = added.map_or(InitialSum::Zero, InitialSum::Buffer);

        match &plan.algorithm {
            ConvAlgorithm::Direct(direct) => {
                for group in &direct.forward_groups {
                    s.dispatch(DirectConvKernel {
                        input,
                        weights,
                        rows: plan.weight_rows,
                        taps: &group.taps,
                        pixels: group.chunk_pixels(chunk.images),
                        blocks: plan.channel_blocks(),
                        block_stride: BLOCK,
                        initial_sum: start,
                        output,
                    });
                }
            }
            ConvAlgorithm::Winograd(tiled) => {
                s.dispatch(winograd::WinogradForwardKernel {
                    plan: tiled,
                    images: chunk.images,
                    input,
                    weights,
                    initial_sum: start,
                    output,
                    workspace: tiles,
                });
            }
        }
    }

    /// The weights as the forward pass reads them.
    pub(crate) fn transform_weights<'a, S: Simd16>(
        &self,
        s: S,
        weights: &'a [f32],
        to: &'a mut [f32],
    ) -> &'a [f32] {
        let weights = &weights[self.param_ranges.weight.clone()];
        let ConvAlgorithm::Winograd(tiled) = &self.plan.algorithm else {
            return weights;
        };
        let to = &mut to[..tiled.weight_len()];
        s.dispatch(WeightTransformKernel {
            plan: tiled,
            weights,
            transformed: to,
        });

        to
    }

    /// The weights as the backward pass reads them, where another layer wants the gradient of what it gave.
    pub(crate) fn transpose_weights<'a, S: Simd16>(
        &self,
        s: S,
        weights: &'a [f32],
        forms: &'a mut WeightScratch,
    ) -> &'a [f32] {
        let WeightScratch {
            transformed: spread,
            transposed: to,
        } = forms;

        match &self.plan.algorithm {
            ConvAlgorithm::Winograd(tiled) => {
                let to = &mut to[..tiled.weight_len()];
                tiled.transpose_weights(self.transform_weights(s, weights, spread), to);
                to
            }
            ConvAlgorithm::Direct(DirectConvPlan {
                transposed: Some(transposed),
                ..
            }) => {
                let to = &mut to[..transposed.weight_len()];
                transposed.transpose_weights(&weights[self.param_ranges.weight.clone()], to);
                to
            }
            ConvAlgorithm::Direct(_) => &[],
        }
    }

    /// Sets what stands between the map and the activation.
    pub(crate) fn set_coefficients(
        &mut self,
        before: &[Self],
        weights: &[f32],
        statistics: Option<RunningStatistics<'_>>,
    ) {
        if let Some(norm) = self.norm.filter(NormSpec::has_running_statistics) {
            let ChannelCoefficients {
                mean, inv_std: inv, ..
            } = &mut self.coefficients;

            match statistics {
                None => set_mean_and_inv_std(self.moments.biased_statistics(), norm.eps, mean, inv),
                Some(running) => {
                    set_mean_and_inv_std(running.mean_variance_pairs(), norm.eps, mean, inv)
                }
            }
        }

        if let Some(scale) = &self.param_ranges.scale {
            self.coefficients
                .scale
                .copy_from_slice(&weights[scale.clone()]);
        }

        if let Some(shift) = &self.param_ranges.shift {
            self.coefficients
                .shift
                .copy_from_slice(&weights[shift.clone()]);
        }

        // Biases are not part of z, so those of what was added to it come along here.
        if let (Some(at), None) = (self.add, self.norm) {
            self.coefficients
                .shift
                .iter_mut()
                .zip(&before[at].coefficients.shift)
                .for_each(|(b, added)| *b += added);
        }
    }

    /// Adds a chunk, the gradient of whose activations is finished, to the sums that the backward pass through norm,
    /// scale and shift needs.
    pub(crate) fn add_gradient_sums<S: Simd16>(
        &self,
        s: S,
        chunk: ImageRange,
        to: &mut BackwardPart<'_>,
        sums: &mut GradientSums,
        image_sums: &mut GradientSums,
    ) {
        let len = self.plan.output_len();
        if self.pool != Pool::None {
            let pooled =
                chunk.slice_within_mut(to.part, to.pooled_gradient, self.plan.activation_len);
            let readable = self.pool_input(chunk);
            s.dispatch(UnpoolKernel {
                input: readable,
                pooled_gradient: pooled,
                gradient: chunk.slice_within_mut(to.part, to.input_gradient, len),
            });
        }

        let gradient = chunk.slice_within_mut(to.part, to.input_gradient, len);
        let z = chunk.slice_of(&self.z, len);
        let channels = &self.coefficients;

        if let Some((groups, _)) = self.norm_groups() {
            for (at, (z, gradient)) in z
                .chunks_exact(len)
                .zip(gradient.chunks_exact(len))
                .enumerate()
            {
                image_sums.reset();
                s.dispatch(GradientSumsKernel {
                    z,
                    gradient,
                    coefficients: channels,
                    image: chunk.first + at,
                    gradient_sums: image_sums,
                });

                let of_image = (chunk.first - to.part.first + at) * channels.image_stride..;
                let slopes = (
                    &mut to.gradient_means.0[of_image.clone()],
                    &mut to.gradient_means.1[of_image],
                );
                image_sums.write_group_means(
                    channels,
                    self.plan.pixels as f64,
                    (self.unpadded_channels, groups),
                    slopes,
                );

                sums.add(image_sums);
            }
        } else if self.norm.is_some() || self.param_ranges.shift.is_some() {
            s.dispatch(GradientSumsKernel {
                z,
                gradient,
                coefficients: channels,
                image: 0,
                gradient_sums: sums,
            });
        }
    }

    /// Turns the finished sums into coefficients and gradients.
    pub(crate) fn finish_gradient_sums(
        &mut self,
        after: &[Self],
        first_after: usize,
        images: usize,
        gradient: &mut [f32],
    ) {
        if self.norm.is_some_and(|n| n.has_running_statistics()) {
            self.gradient_sums.write_gradient_means(
                &self.coefficients,
                (images * self.plan.pixels) as f64,
                &mut self.gradient_means,
            );
        }

        let mut write = |place: &Option<Range<usize>>, sums: &[f64]| {
            if let Some(place) = place {
                gradient[place.clone()]
                    .iter_mut()
                    .zip(sums)
                    .for_each(|(g, sum)| *g = *sum as f32);
            }
        };
        write(&self.param_ranges.scale, &self.gradient_sums.scale);

        if self.norm.is_some() {
            write(&self.param_ranges.shift, &self.gradient_sums.shift);
            return;
        }

        self.bias_gradient
            .copy_from_slice(&self.gradient_sums.shift);

        if let Some(adder) = self.readers.adder {
            self.bias_gradient
                .iter_mut()
                .zip(&after[adder - first_after].bias_gradient)
                .for_each(|(sum, x)| *sum += x);
        }

        write(&self.param_ranges.shift, &self.bias_gradient);
    }

    /// The backward pass of layer `at` over a part of the batch.
    pub(crate) fn backward_part<S: Simd16>(
        &self,
        s: S,
        at: usize,
        pass: &LayerPass<'_>,
        desk: &mut Workspace,
        mut to: BackwardPart<'_>,
    ) {
        let Workspace {
            layers,
            weight_gradient: weights,
            winograd: tiles,
            gradient_sums: sums,
            image_gradient_sums: image_sums,
        } = desk;
        let desk = &mut layers[at];

        sums.reset();
        let mut total = to.weight_gradient.take();
        let gradient = match &mut total {
            Some(total) => &mut total[..],
            None if self.trained => {
                let own = &mut weights[..self.param_ranges.weight.len()];
                own.fill(0.0);
                own
            }
            None => &mut [],
        };

        if let ConvAlgorithm::Winograd(tiled) = &self.plan.algorithm {
            tiles.reset_weight_gradient(tiled);
        }

        let source = self.source.map(|source| &pass.layers[source]);
        for chunk in to.part.split_by(self.plan.chunk_images) {
            self.write_z_gradient(s, desk, chunk, &mut to);
            if self.trained {
                self.read_input(s, pass, desk, chunk);
            }

            let returned =
                source.map(|source| self.input_gradient_target(at, source, chunk, &mut to));
            let read = BackwardInputs {
                transposed_weights: pass.weights,
                workspace: desk,
                images: chunk.images,
            };

            match &self.plan.algorithm {
                ConvAlgorithm::Direct(direct) => {
                    self.backward_direct(s, direct, read, gradient, returned);
                }
                ConvAlgorithm::Winograd(tiled) => {
                    self.backward_winograd(s, tiled, read, tiles, returned)
                }
            }

            let Some(source) = source else { continue };
            if source
                .readers
                .activation
                .is_some_and(|(first, _)| first == at)
            {
                source.add_gradient_sums(s, chunk, &mut to, sums, image_sums);
            }
        }

        if let (ConvAlgorithm::Winograd(tiled), true) = (&self.plan.algorithm, self.trained) {
            s.dispatch(WeightGatherKernel {
                plan: tiled,
                workspace: tiles,
                weight_gradient: gradient,
            });
        }
    }

    /// ∂L/∂z of a chunk, also for the layer whose z was added.
    fn write_z_gradient<S: Simd16>(
        &self,
        s: S,
        desk: &mut LayerWorkspace,
        chunk: ImageRange,
        to: &mut BackwardPart<'_>,
    ) {
        let len = self.plan.output_len();
        s.dispatch(NormBackwardKernel {
            z: chunk.slice_of(&self.z, len),
            gradient: chunk.slice_of(&self.gradient, len),
            residual_gradient: (!self.residual_gradient.is_empty())
                .then(|| chunk.slice_of(&self.residual_gradient, len)),
            added_gradient: self
                .add
                .map(|_| chunk.slice_within_mut(to.part, to.added_gradient, len)),
            coefficients: &self.coefficients,
            gradient_means: self.norm.is_some().then_some(&self.gradient_means),
            first: chunk.first,
            images: chunk.images,
            z_gradient: &mut desk.z_gradient,
        });
    }

    /// Where the gradient goes that reaches z past norm and ReLU.
    pub(crate) fn residual_gradient_mut(&mut self) -> &mut AlignedBuffer {
        if self.readers.activation.is_some() {
            &mut self.residual_gradient
        } else {
            &mut self.gradient
        }
    }

    /// What those who read this layer's activations write.
    pub(crate) fn take_gradient_buffers(&mut self) -> GradientBuffers {
        let gradient = take(&mut self.gradient);
        let pooled = take(&mut self.pooled_gradient);
        GradientBuffers {
            gradient,
            pooled_gradient: pooled,
            gradient_means: take(&mut self.gradient_means),
            gradient_sums: take(&mut self.gradient_sums),
        }
    }

    pub(crate) fn restore_gradient_buffers(&mut self, lent: GradientBuffers) {
        (self.gradient, self.pooled_gradient) = (lent.gradient, lent.pooled_gradient);
        (self.gradient_means, self.gradient_sums) = (lent.gradient_means, lent.gradient_sums);
    }

    /// Where the gradient of a chunk's inputs goes, which are the activations of `before`, and what it starts from.
    fn input_gradient_target<'a>(
        &self,
        at: usize,
        before: &Self,
        chunk: ImageRange,
        to: &'a mut BackwardPart<'_>,
    ) -> (&'a mut [f32], InitialSum<'static>) {
        // Layers are gone through backwards: the last reader is the first to write.
        let last = before
            .readers
            .activation
            .is_some_and(|(_, last)| last == at);
        let gradient = if before.pool == Pool::None {
            &mut *to.input_gradient
        } else {
            &mut *to.pooled_gradient
        };
        let output = chunk.slice_within_mut(to.part, gradient, before.plan.activation_len);

        (
            output,
            if last {
                InitialSum::Zero
            } else {
                InitialSum::Output
            },
        )
    }

    /// Adds a chunk to the gradients of the weight and of the inputs.
    fn backward_direct<S: Simd16>(
        &self,
        s: S,
        direct: &DirectConvPlan,
        read: BackwardInputs<'_>,
        weights: &mut [f32],
        returned: Option<(&mut [f32], InitialSum<'_>)>,
    ) {
        let plan = &self.plan;
        for run in direct.weight_groups.iter().filter(|_| self.trained) {
            s.dispatch(WeightGradientKernel {
                input: &read.workspace.input,
                output_gradient: &read.workspace.z_gradient,
                taps: &run.taps,
                pixels: run.chunk_pixels(read.images),
                blocks: plan.channel_blocks(),
                block_stride: BLOCK,
                weight_gradient: weights,
                rows: plan.weight_rows,
            });
        }

        let (Some(back), Some((output, start))) = (&direct.transposed, returned) else {
            return;
        };
        for group in &back.groups {
            s.dispatch(DirectConvKernel {
                input: &read.workspace.z_gradient,
                weights: read.transposed_weights,
                rows: plan.transposed_weight_rows,
                taps: &group.taps,
                pixels: group.chunk_pixels(read.images),
                blocks: plan.input.channels / BLOCK,
                block_stride: BLOCK,
                initial_sum: start,
                output,
            });
        }
    }

    /// The same tile by tile; the weight's gradient stays on the desk.
    fn backward_winograd<S: Simd16>(
        &self,
        s: S,
        tiled: &WinogradPlan,
        read: BackwardInputs<'_>,
        tiles: &mut WinogradWorkspace,
        returned: Option<(&mut [f32], InitialSum<'_>)>,
    ) {
        let (output, start) = returned.expect("only layers that read others are tiled");
        if let InitialSum::Zero = start {
            output.fill(0.0);
        }

        s.dispatch(winograd::WinogradBackwardKernel {
            plan: tiled,
            images: read.images,
            input: self.trained.then_some(&*read.workspace.input),
            output_gradient: &read.workspace.z_gradient,
            weights: read.transposed_weights,
            input_gradient: output,
            workspace: tiles,
        });
    }
}

/// What the backward pass over a chunk reads: the weights, and its inputs and ∂L/∂z on the desk.
#[derive(Clone, Copy)]
struct BackwardInputs<'a> {
    transposed_weights: &'a [f32],
    workspace: &'a LayerWorkspace,
    images: usize,
}

/// What all threads read during a pass over a layer.
pub(crate) struct LayerPass<'a> {
    pub(crate) layers: &'a [LayerState],
    /// Of the layer, as its kernels read them.
    pub(crate) weights: &'a [f32],
    pub(crate) batch: &'a ImageBatch<'a>,
    pub(crate) training: bool,
}

/// Consecutive images of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageRange {
    pub(crate) first: usize,
    pub(crate) images: usize,
}

impl ImageRange {
    /// These images in pieces of `size`.
    pub(crate) fn split_by(self, size: usize) -> impl Iterator<Item = Self> {
        let Self { first, images } = self;
        (0..images).step_by(size).map(move |at| Self {
            first: first + at,
            images: size.min(images - at),
        })
    }

    fn slice_of(self, data: &[f32], len: usize) -> &[f32] {
        &data[self.first * len..][..self.images * len]
    }

    /// Of data that begins with `part`.
    pub(crate) fn slice_within_mut(self, part: Self, data: &mut [f32], len: usize) -> &mut [f32] {
        &mut data[(self.first - part.first) * len..][..self.images * len]
    }
}

/// Running mean and variance of one norm.
#[derive(Clone, Copy)]
pub(crate) struct RunningStatistics<'a> {
    pub(crate) mean: &'a [f32],
    pub(crate) variance: &'a [f32],
}

impl<'a> RunningStatistics<'a> {
    fn mean_variance_pairs(self) -> impl Iterator<Item = (f64, f64)> + use<'a> {
        self.mean
            .iter()
            .zip(self.variance)
            .map(|(m, v)| (f64::from(*m), f64::from(*v)))
    }
}
