//! One layer of a network: its plan, its parameters' ranges, and the buffers that live for a whole batch.
//!
//! Only the linear map's output z is stored for the whole batch. Activations and ∂L/∂z are recomputed chunk by chunk in
//! buffers that stay in the cache, just before the kernels that read them: once in the forward pass, once in the backward
//! pass.

use std::ops::Range;

use ergodic_common::config::Activation;
use ergodic_common::net::{LinearOp, Net, NormScope, NormSpec, ParamRole, Pool};

use super::activation::padding_shift;
use super::aligned_buffer::AlignedBuffer;
use super::ghost_batch::GhostBatchTotals;
use super::image_range::ImageRange;
use super::norm::{ChannelCoefficients, ChannelMoments, set_mean_and_inv_std};
use super::norm_backward::{GradientMeans, GradientSums};
use super::pooling::PoolInput;
use super::simd::Simd16;
use super::winograd::WeightTransformKernel;
use crate::train::data::ImageBatch;
use crate::train::network::direct_conv_plan::DirectConvPlan;
use crate::train::network::params::ParamLayout;
use crate::train::network::plan::{ConvAlgorithm, LayerPlan};

/// A layer's plan and buffers.
pub(crate) struct LayerState {
    pub(crate) plan: LayerPlan,
    /// The layer whose activations this one reads; `None` for the images of the dataset.
    pub(crate) source: Option<usize>,
    /// The layer whose z this one adds to its own.
    pub(crate) add: Option<usize>,
    pub(crate) norm: Option<NormSpec>,
    pub(crate) pool: Pool,
    /// Whether there is a weight that is trained.
    pub(crate) trained: bool,
    pub(crate) unpadded_channels: usize,
    pub(crate) param_ranges: ParamRanges,
    pub(crate) bias_flow: BiasFlow,
    pub(crate) readers: LayerReaders,
    /// Output of the linear map, plus what is added to it, for the whole batch.
    pub(crate) z: AlignedBuffer,
    /// Gradient of the activations for the whole batch; of z itself where no layer reads the activations.
    pub(crate) gradient: AlignedBuffer,
    /// Gradient of the pooled activations.
    pub(crate) pooled_gradient: AlignedBuffer,
    /// Gradient of z from the layer that adds it to its own.
    pub(crate) residual_gradient: AlignedBuffer,
    pub(crate) coefficients: ChannelCoefficients,
    pub(crate) moments: ChannelMoments,
    pub(crate) gradient_sums: GradientSums,
    pub(crate) gradient_means: GradientMeans,
    /// Sums over the ghost batches, if the norm runs over these.
    pub(crate) ghost_totals: Option<GhostBatchTotals>,
    /// The biases that z does not contain yet: the layer's own, and those of the sums that it adds. The first reader applies
    /// them.
    pub(crate) pending_bias: Vec<f32>,
    /// Σ ∂L/∂z, the gradient of [`Self::pending_bias`].
    pub(crate) bias_gradient: Vec<f64>,
}

/// The layers that use a layer's results.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerReaders {
    /// The first and last layer that read the layer's activation.
    pub(crate) activation: Option<(usize, usize)>,
    /// The layer that adds this one's z to its own.
    pub(crate) adder: Option<usize>,
}

impl LayerReaders {
    fn from_net(net: &Net, at: usize) -> Self {
        let first = net.layers.iter().position(|l| l.source == Some(at));
        let last = net.layers.iter().rposition(|l| l.source == Some(at));
        Self {
            activation: first.zip(last),
            adder: net.adding_layer(at),
        }
    }

    /// Whether no layer reads the activation, and one adds z.
    pub(crate) fn is_added_alone(&self) -> bool {
        self.activation.is_none() && self.adder.is_some()
    }

    /// Whether layer `at` is the first that reads the activation, and so the last that adds to its gradient.
    pub(crate) fn is_first(&self, at: usize) -> bool {
        self.activation.is_some_and(|(first, _)| first == at)
    }

    /// Whether layer `at` is the last that reads the activation, and so the first that writes its gradient.
    pub(crate) fn is_last(&self, at: usize) -> bool {
        self.activation.is_some_and(|(_, last)| last == at)
    }
}

/// How biases reach a layer through the sums that it adds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BiasFlow {
    /// Whether those that an added sum lacks are added to z, because a norm over several channels does not remove them.
    pub(crate) enters_z: bool,
    /// Whether the layer's own sum lacks biases, its own among them.
    pub(crate) is_pending: bool,
}

impl BiasFlow {
    fn from_net(net: &Net, at: usize) -> Self {
        let layer = &net.layers[at];
        let added = layer
            .add
            .is_some_and(|added| Self::from_net(net, added).is_pending);
        let over_channels = layer
            .norm
            .is_some_and(|norm| !norm.has_running_statistics());
        let enters_z = added && over_channels;
        let is_pending = added && !enters_z || layer.bias && layer.norm.is_none();
        Self {
            enters_z,
            is_pending,
        }
    }
}

/// The ranges of a layer's parameters in the packed vector.
pub(crate) struct ParamRanges {
    /// The weight; empty for a layer without a map.
    pub(crate) weight: Range<usize>,
    pub(crate) scale: Option<Range<usize>>,
    /// The bias, or the norm's shift.
    pub(crate) shift: Option<Range<usize>>,
}

impl ParamRanges {
    fn new(layout: &ParamLayout, at: usize) -> Self {
        let bias = layout.param_range(at, ParamRole::Bias);
        let shift = layout.param_range(at, ParamRole::NormShift);
        Self {
            weight: layout
                .param_range(at, ParamRole::Weight)
                .unwrap_or_default(),
            scale: layout.param_range(at, ParamRole::NormScale),
            shift: bias.or(shift),
        }
    }
}

impl LayerState {
    /// Layer `at` of a network, for training batches of `batch` images and forward passes of up to `capacity` images.
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
        let readers = LayerReaders::from_net(net, at);
        let per_image = layer.norm.is_some_and(|n| !n.has_running_statistics());
        let has_residual = readers.activation.is_some() && readers.adder.is_some();
        let is_pooled = layer.pool != Pool::None;
        let has_ghosts = layer
            .norm
            .is_some_and(|n| matches!(n.scope, NormScope::GhostBatch(_)));

        Self {
            source: layer.source,
            add: layer.add,
            norm: layer.norm,
            pool: layer.pool,
            trained: layer.trained && layer.linear_op != LinearOp::Identity,
            unpadded_channels: layer.output.channels,
            param_ranges: ParamRanges::new(layout, at),
            bias_flow: BiasFlow::from_net(net, at),
            readers,
            z: AlignedBuffer::zeros(capacity * plan.output_len()),
            gradient: AlignedBuffer::zeros(batch * plan.output_len()),
            pooled_gradient: zeros_if(is_pooled, batch * plan.activation_len),
            residual_gradient: zeros_if(has_residual, batch * plan.output_len()),
            coefficients: initial_coefficients(
                width,
                layer.activation,
                per_image.then_some(capacity),
            ),
            moments: ChannelMoments::new(width),
            gradient_sums: GradientSums::new(width),
            gradient_means: GradientMeans::new(width, if per_image { capacity } else { 1 }),
            ghost_totals: has_ghosts.then(|| GhostBatchTotals::new(width)),
            pending_bias: vec![0.0; width],
            bias_gradient: vec![0.0; width],
            plan,
        }
    }

    /// The number of groups and the ε of a norm over single images.
    pub(crate) fn norm_groups(&self) -> Option<(usize, f64)> {
        self.norm.and_then(|norm| match norm.scope {
            NormScope::Groups(groups) => Some((groups, norm.eps)),
            NormScope::Batch | NormScope::GhostBatch(_) => None,
        })
    }

    /// Resets what is summed over a batch.
    pub(crate) fn reset_batch_sums(&mut self) {
        self.gradient_sums.reset();
        if self.bias_flow.enters_z {
            self.bias_gradient.fill(0.0);
        }
        if let Some(totals) = &mut self.ghost_totals {
            totals.reset();
        }
    }

    /// Adds the statistics of the last pass to those of the batch, if it was over a ghost batch.
    pub(crate) fn add_ghost_statistics(&mut self) {
        if let Some(totals) = &mut self.ghost_totals {
            totals.add_statistics(&self.moments);
        }
    }

    /// Mean and unbiased variance of the last training batch before the layer's norm; their means over ghost batches. The mean
    /// is that of the whole sum, with the biases that z does not contain.
    pub(crate) fn batch_statistics(&self) -> impl Iterator<Item = (f64, f64)> {
        let over_ghosts = self.ghost_totals.as_ref();
        let whole = over_ghosts
            .is_none()
            .then(|| self.moments.unbiased_statistics());
        let over_ghosts = over_ghosts.map(GhostBatchTotals::mean_statistics);
        let of_z = whole
            .into_iter()
            .flatten()
            .chain(over_ghosts.into_iter().flatten());

        of_z.zip(&self.pending_bias)
            .map(|((mean, variance), bias)| (mean + f64::from(*bias), variance))
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

    /// The weights as the forward pass reads them.
    pub(crate) fn transform_weights<'a, S: Simd16>(
        &self,
        s: S,
        weights: &'a [f32],
        transformed: &'a mut [f32],
    ) -> &'a [f32] {
        let weights = &weights[self.param_ranges.weight.clone()];
        let ConvAlgorithm::Winograd(plan) = &self.plan.algorithm else {
            return weights;
        };

        let transformed = &mut transformed[..plan.weight_len()];
        s.dispatch(WeightTransformKernel {
            plan,
            weights,
            transformed,
        });
        transformed
    }

    /// Writes the weights as the backward pass reads them to `to`. Returns nothing if no layer
    /// needs the gradient of the input.
    pub(crate) fn transpose_weights<'a, S: Simd16>(
        &self,
        s: S,
        weights: &[f32],
        transformed: &mut [f32],
        to: &'a mut [f32],
    ) -> &'a [f32] {
        match &self.plan.algorithm {
            ConvAlgorithm::Winograd(plan) => {
                let to = &mut to[..plan.weight_len()];
                plan.transpose_weights(self.transform_weights(s, weights, transformed), to);
                to
            }
            ConvAlgorithm::Direct(DirectConvPlan {
                transposed: Some(plan),
                ..
            }) => {
                let to = &mut to[..plan.weight_len()];
                plan.transpose_weights(&weights[self.param_ranges.weight.clone()], to);
                to
            }
            ConvAlgorithm::Direct(_) | ConvAlgorithm::Copy => &[],
        }
    }

    /// The buffer for the gradient that reaches z past norm and activation function.
    pub(crate) fn residual_gradient_mut(&mut self) -> &mut AlignedBuffer {
        if self.readers.activation.is_some() {
            &mut self.residual_gradient
        } else {
            &mut self.gradient
        }
    }

    /// Sets mean, 1/std, scale and shift between z and the activation. `running` are the statistics of an evaluation; a
    /// training pass takes those of its batch.
    pub(crate) fn set_coefficients(
        &mut self,
        before: &[Self],
        weights: &[f32],
        running: Option<RunningStatistics<'_>>,
    ) {
        self.collect_pending_bias(before, weights);
        self.set_norm_statistics(running);

        if let Some(scale) = &self.param_ranges.scale {
            let scale = &weights[scale.clone()];
            self.coefficients.scale.copy_from_slice(scale);
        }

        let shift = &mut self.coefficients.shift;
        match (self.norm, &self.param_ranges.shift) {
            (None, _) => shift.copy_from_slice(&self.pending_bias),
            (Some(_), Some(own)) => shift.copy_from_slice(&weights[own.clone()]),
            (Some(_), None) => {}
        }
        shift[self.unpadded_channels..].fill(padding_shift(self.coefficients.activation));
    }

    /// Adds up the biases that z does not contain.
    fn collect_pending_bias(&mut self, before: &[Self], weights: &[f32]) {
        match (self.norm, &self.param_ranges.shift) {
            (None, Some(bias)) => self.pending_bias.copy_from_slice(&weights[bias.clone()]),
            _ => self.pending_bias.fill(0.0),
        }

        if let (Some(at), false) = (self.add, self.bias_flow.enters_z) {
            self.pending_bias
                .iter_mut()
                .zip(&before[at].pending_bias)
                .for_each(|(b, added)| *b += added);
        }
    }

    /// Sets mean and 1/std of a norm over the batch. Running means are those of the whole sum, and z lacks the pending biases.
    fn set_norm_statistics(&mut self, running: Option<RunningStatistics<'_>>) {
        let Some(norm) = self.norm.filter(NormSpec::has_running_statistics) else {
            return;
        };
        let ChannelCoefficients { mean, inv_std, .. } = &mut self.coefficients;

        match running {
            None => set_mean_and_inv_std(self.moments.biased_statistics(), norm.eps, mean, inv_std),
            Some(running) => {
                let of_z = running
                    .mean_variance_pairs()
                    .zip(&self.pending_bias)
                    .map(|((m, v), bias)| (m - f64::from(*bias), v));
                set_mean_and_inv_std(of_z, norm.eps, mean, inv_std);
            }
        }
    }
}

/// Allocates `len` zeros, or nothing if the buffer is not wanted.
fn zeros_if(wanted: bool, len: usize) -> AlignedBuffer {
    AlignedBuffer::zeros(if wanted { len } else { 0 })
}

/// Coefficients that change nothing, for every one of `images` images where a norm runs over single images.
fn initial_coefficients(
    width: usize,
    activation: Activation,
    images: Option<usize>,
) -> ChannelCoefficients {
    let coefficients = ChannelCoefficients::identity(width, activation);
    match images {
        Some(images) => coefficients.repeat_per_image(images),
        None => coefficients,
    }
}

/// The inputs that all threads read during a pass over one layer.
pub(crate) struct LayerPass<'a> {
    /// Index of the layer.
    pub(crate) at: usize,
    pub(crate) layers: &'a [LayerState],
    /// The layer's weights as its kernels read them.
    pub(crate) weights: &'a [f32],
    pub(crate) batch: &'a ImageBatch<'a>,
    pub(crate) training: bool,
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
