//! The backward pass over one layer.
//!
//! From the gradient of the activations, chunk by chunk: ∂L/∂z through activation function, norm and scale; from that the gradients of
//! the weight and of the layer's input. The reduction that the norm before needs (`gradient_sums`) is taken as soon as the
//! gradient of its activations is complete, while the chunk is in the cache.

use std::mem::take;
use std::ops::Range;

use ergodic_common::net::Pool;

use super::backward_buffers::BackwardPart;
use super::direct_conv::{DirectConvKernel, InitialSum};
use super::image_range::ImageRange;
use super::layer::{LayerPass, LayerState};
use super::norm_backward::{
    ChannelSumsKernel, GradientSums, GradientSumsKernel, NormBackwardKernel,
};
use super::pooling::UnpoolKernel;
use super::simd::{BLOCK, Simd16};
use super::weight_grad::WeightGradientKernel;
use super::winograd::{
    WeightGatherKernel, WinogradBackwardKernel, WinogradPlan, WinogradWorkspace,
};
use super::workspace::{LayerWorkspace, Workspace};
use crate::train::network::direct_conv_plan::DirectConvPlan;
use crate::train::network::plan::ConvAlgorithm;

/// The destination of the gradient of a chunk's input, and its initial value.
struct InputGradient<'a> {
    gradient: &'a mut [f32],
    initial_sum: InitialSum<'static>,
}

/// The inputs of the backward pass over a chunk: the weights, and its input and ∂L/∂z in the workspace.
#[derive(Clone, Copy)]
struct BackwardInputs<'a> {
    transposed_weights: &'a [f32],
    workspace: &'a LayerWorkspace,
    images: usize,
}

impl LayerState {
    /// The backward pass over a part of the batch.
    pub(crate) fn backward_part<S: Simd16>(
        &self,
        s: S,
        pass: &LayerPass<'_>,
        workspace: &mut Workspace,
        mut to: BackwardPart<'_>,
    ) {
        let mut part_gradient = take(&mut workspace.weight_gradient);
        let weight_gradient = match to.weight_gradient.take() {
            Some(whole) => whole,
            None => self.clear_weight_gradient(&mut part_gradient),
        };

        workspace.gradient_sums.reset();
        workspace.z_gradient_sums.fill(0.0);
        if let Some(plan) = self.plan.winograd_plan() {
            workspace.winograd.reset_weight_gradient(plan);
        }

        for chunk in to.part.split_by(self.plan.chunk_images) {
            self.backward_chunk(s, pass, workspace, chunk, weight_gradient, &mut to);
        }

        if let (Some(plan), true) = (self.plan.winograd_plan(), self.trained) {
            s.dispatch(WeightGatherKernel {
                plan,
                workspace: &workspace.winograd,
                weight_gradient,
            });
        }
        workspace.weight_gradient = part_gradient;
    }

    /// The workspace's share for the gradient of this layer's weight, at 0; nothing if the layer is not trained.
    fn clear_weight_gradient<'a>(&self, workspace: &'a mut [f32]) -> &'a mut [f32] {
        if !self.trained {
            return &mut [];
        }

        let own = &mut workspace[..self.param_ranges.weight.len()];
        own.fill(0.0);
        own
    }

    /// The backward pass over a chunk: ∂L/∂z, then the gradients of weight and input.
    fn backward_chunk<S: Simd16>(
        &self,
        s: S,
        pass: &LayerPass<'_>,
        workspace: &mut Workspace,
        chunk: ImageRange,
        weight_gradient: &mut [f32],
        to: &mut BackwardPart<'_>,
    ) {
        let own = &mut workspace.layers[pass.at];
        self.write_z_gradient(s, own, chunk, to);
        if self.bias_flow.enters_z {
            s.dispatch(ChannelSumsKernel {
                numbers: &own.z_gradient[..chunk.images * self.plan.output_len()],
                sums: &mut workspace.z_gradient_sums[..self.plan.channels],
            });
        }
        if self.trained {
            self.read_input(s, pass, own, chunk);
        }

        let source = self.source.map(|source| &pass.layers[source]);
        let input_gradient = source.map(|source| source.activation_gradient(pass.at, chunk, to));
        let inputs = BackwardInputs {
            transposed_weights: pass.weights,
            workspace: own,
            images: chunk.images,
        };

        match &self.plan.algorithm {
            ConvAlgorithm::Direct(plan) => {
                self.backward_direct(s, plan, inputs, weight_gradient, input_gradient);
            }
            ConvAlgorithm::Winograd(plan) => {
                let winograd = &mut workspace.winograd;
                self.backward_winograd(s, plan, inputs, winograd, input_gradient);
            }
            ConvAlgorithm::Copy => self.backward_copy(inputs, input_gradient),
        }

        if let Some(source) = source
            && source.readers.is_first(pass.at)
        {
            let sums = &mut workspace.gradient_sums;
            let image_sums = &mut workspace.image_gradient_sums;
            source.add_gradient_sums(s, chunk, to, sums, image_sums);
        }
    }

    /// ∂L/∂z of a chunk, also for the layer whose z was added.
    fn write_z_gradient<S: Simd16>(
        &self,
        s: S,
        workspace: &mut LayerWorkspace,
        chunk: ImageRange,
        to: &mut BackwardPart<'_>,
    ) {
        let len = self.plan.output_len();
        if self.readers.is_added_alone() {
            let gradient = chunk.slice_of(&self.gradient, len);
            workspace.z_gradient[..gradient.len()].copy_from_slice(gradient);
            if self.add.is_some() {
                chunk
                    .slice_within_mut(to.part, to.added_gradient, len)
                    .copy_from_slice(gradient);
            }
            return;
        }

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
            z_gradient: &mut workspace.z_gradient,
        });
    }

    /// The destination of the gradient of this layer's activations from layer `reader`, which has read them.
    fn activation_gradient<'a>(
        &self,
        reader: usize,
        chunk: ImageRange,
        to: &'a mut BackwardPart<'_>,
    ) -> InputGradient<'a> {
        let gradient = if self.pool == Pool::None {
            &mut *to.input_gradient
        } else {
            &mut *to.pooled_gradient
        };

        InputGradient {
            gradient: chunk.slice_within_mut(to.part, gradient, self.plan.activation_len),
            // The backward pass visits the last reader first, so that one overwrites and the others
            // add.
            initial_sum: if self.readers.is_last(reader) {
                InitialSum::Zero
            } else {
                InitialSum::Output
            },
        }
    }

    /// Adds a chunk to the gradients of weight and input, by the definition of the convolution.
    fn backward_direct<S: Simd16>(
        &self,
        s: S,
        plan: &DirectConvPlan,
        inputs: BackwardInputs<'_>,
        weight_gradient: &mut [f32],
        input_gradient: Option<InputGradient<'_>>,
    ) {
        if self.trained {
            self.add_direct_weight_gradient(s, plan, inputs, weight_gradient);
        }

        let (Some(transposed), Some(to)) = (&plan.transposed, input_gradient) else {
            return;
        };
        for group in &transposed.groups {
            s.dispatch(DirectConvKernel {
                input: &inputs.workspace.z_gradient,
                weights: inputs.transposed_weights,
                rows: self.plan.transposed_weight_rows,
                taps: &group.taps,
                pixels: group.chunk_pixels(inputs.images),
                blocks: self.plan.input.channels / BLOCK,
                block_stride: BLOCK,
                initial_sum: to.initial_sum,
                output: to.gradient,
            });
        }
    }

    fn add_direct_weight_gradient<S: Simd16>(
        &self,
        s: S,
        plan: &DirectConvPlan,
        inputs: BackwardInputs<'_>,
        weight_gradient: &mut [f32],
    ) {
        for group in &plan.weight_groups {
            s.dispatch(WeightGradientKernel {
                input: &inputs.workspace.input,
                output_gradient: &inputs.workspace.z_gradient,
                taps: &group.taps,
                pixels: group.chunk_pixels(inputs.images),
                blocks: self.plan.channel_blocks(),
                block_stride: BLOCK,
                weight_gradient,
                rows: self.plan.weight_rows,
            });
        }
    }

    /// Adds a chunk to the gradients of weight and input, tile by tile; that of the weight stays in the workspace until the
    /// part is complete.
    fn backward_winograd<S: Simd16>(
        &self,
        s: S,
        plan: &WinogradPlan,
        inputs: BackwardInputs<'_>,
        winograd: &mut WinogradWorkspace,
        input_gradient: Option<InputGradient<'_>>,
    ) {
        let to = input_gradient.expect("only layers that read others use Winograd's algorithm");
        if let InitialSum::Zero = to.initial_sum {
            to.gradient.fill(0.0);
        }

        s.dispatch(WinogradBackwardKernel {
            plan,
            images: inputs.images,
            input: self.trained.then_some(&*inputs.workspace.input),
            output_gradient: &inputs.workspace.z_gradient,
            weights: inputs.transposed_weights,
            input_gradient: to.gradient,
            workspace: winograd,
        });
    }

    /// Adds a chunk to the gradient of the input of a layer without a map.
    fn backward_copy(&self, inputs: BackwardInputs<'_>, input_gradient: Option<InputGradient<'_>>) {
        let Some(to) = input_gradient else { return };
        let gradient = &inputs.workspace.z_gradient[..to.gradient.len()];
        match to.initial_sum {
            InitialSum::Zero => to.gradient.copy_from_slice(gradient),
            InitialSum::Output | InitialSum::Buffer(_) => {
                let sums = to.gradient.iter_mut();
                sums.zip(gradient).for_each(|(sum, g)| *sum += g);
            }
        }
    }

    /// Adds a chunk, the gradient of whose activations is complete, to the sums that the backward pass through norm,
    /// scale and shift needs.
    pub(crate) fn add_gradient_sums<S: Simd16>(
        &self,
        s: S,
        chunk: ImageRange,
        to: &mut BackwardPart<'_>,
        sums: &mut GradientSums,
        image_sums: &mut GradientSums,
    ) {
        self.unpool_gradient(s, chunk, to);

        if let Some((groups, _)) = self.norm_groups() {
            self.add_image_gradient_sums(s, chunk, groups, to, sums, image_sums);
        } else if self.norm.is_some() || self.bias_flow.is_pending {
            let len = self.plan.output_len();
            s.dispatch(GradientSumsKernel {
                z: chunk.slice_of(&self.z, len),
                gradient: chunk.slice_within_mut(to.part, to.input_gradient, len),
                coefficients: &self.coefficients,
                image: 0,
                gradient_sums: sums,
            });
        }
    }

    /// The gradient of a chunk's activations from that of the pooled ones, if there is a pool.
    fn unpool_gradient<S: Simd16>(&self, s: S, chunk: ImageRange, to: &mut BackwardPart<'_>) {
        if self.pool == Pool::None {
            return;
        }

        let len = self.plan.activation_len;
        s.dispatch(UnpoolKernel {
            input: self.pool_input(chunk),
            pooled_gradient: chunk.slice_within_mut(to.part, to.pooled_gradient, len),
            gradient: chunk.slice_within_mut(to.part, to.input_gradient, self.plan.output_len()),
        });
    }

    /// Adds a chunk, image by image, under a norm over single images, whose means are written at once.
    fn add_image_gradient_sums<S: Simd16>(
        &self,
        s: S,
        chunk: ImageRange,
        groups: usize,
        to: &mut BackwardPart<'_>,
        sums: &mut GradientSums,
        image_sums: &mut GradientSums,
    ) {
        let len = self.plan.output_len();
        let z = chunk.slice_of(&self.z, len).chunks_exact(len);
        let gradient = chunk.slice_within_mut(to.part, to.input_gradient, len);

        for (at, (z, gradient)) in z.zip(gradient.chunks_exact(len)).enumerate() {
            image_sums.reset();
            s.dispatch(GradientSumsKernel {
                z,
                gradient,
                coefficients: &self.coefficients,
                image: chunk.first + at,
                gradient_sums: image_sums,
            });

            let image = (chunk.first - to.part.first + at) * self.coefficients.image_stride;
            image_sums.write_group_means(
                &self.coefficients,
                self.plan.pixels as f64,
                (self.unpadded_channels, groups),
                &mut to.gradient_mean[image..],
                &mut to.gradient_mean_x[image..],
            );
            sums.add(image_sums);
        }
    }

    /// Turns the complete sums of a micro-batch into what the norm's backward pass needs, and into the gradients of scale, shift
    /// and bias. `after` are the layers from index `first_after` on.
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

        let sums = match &mut self.ghost_totals {
            Some(totals) => totals.take_gradient_sums(&mut self.gradient_sums),
            None => &self.gradient_sums,
        };
        write_gradient(gradient, self.param_ranges.scale.as_ref(), &sums.scale);
        if self.norm.is_some() {
            write_gradient(gradient, self.param_ranges.shift.as_ref(), &sums.shift);
        }

        // Where biases enter z, the backward pass over the layer sums ∂L/∂z itself.
        if !self.bias_flow.enters_z {
            self.add_up_bias_gradient(after, first_after);
        }
        if self.norm.is_none() {
            let bias = self.param_ranges.shift.as_ref();
            write_gradient(gradient, bias, &self.bias_gradient);
        }
    }

    /// Σ ∂L/∂z, which is 0 behind a norm over the batch, and that of the layer that adds this one's z.
    fn add_up_bias_gradient(&mut self, after: &[Self], first_after: usize) {
        if self.norm.is_none() {
            self.bias_gradient
                .copy_from_slice(&self.gradient_sums.shift);
        } else {
            self.bias_gradient.fill(0.0);
        }

        if let Some(adder) = self.readers.adder {
            self.bias_gradient
                .iter_mut()
                .zip(&after[adder - first_after].bias_gradient)
                .for_each(|(sum, x)| *sum += x);
        }
    }
}

/// Writes the gradient of a parameter from its sums, if the layer has the parameter.
fn write_gradient(gradient: &mut [f32], range: Option<&Range<usize>>, sums: &[f64]) {
    if let Some(range) = range {
        gradient[range.clone()]
            .iter_mut()
            .zip(sums)
            .for_each(|(g, sum)| *g = *sum as f32);
    }
}
