//! The forward pass over one layer: inputs, map, and the statistics that its norm needs.

use std::mem::take;

use ergodic_common::net::Pool;

use super::aligned_buffer::AlignedBuffer;
use super::direct_conv::{DirectConvKernel, InitialSum};
use super::image_range::ImageRange;
use super::layer::{LayerPass, LayerState};
use super::norm::{ActivationKernel, MomentsKernel, set_mean_and_inv_std};
use super::parallel::chunks_or_empty;
use super::pooling::PooledActivationKernel;
use super::simd::{BLOCK, Simd16};
use super::winograd::{WinogradForwardKernel, WinogradWorkspace};
use super::workspace::{LayerWorkspace, Workspace};
use crate::train::network::plan::ConvAlgorithm;
use crate::train::network::shape::HaloGrid;

/// A part of a batch in a layer's forward pass, and where its results go.
pub(crate) struct ForwardPart<'a> {
    pub(crate) part: ImageRange,
    pub(crate) z: &'a mut [f32],
    /// Mean and 1/std of every image and channel, where a norm runs over single images; empty otherwise.
    pub(crate) mean: &'a mut [f32],
    pub(crate) inv_std: &'a mut [f32],
}

/// The buffers that a layer's forward pass writes, taken out of the layer while all threads read the layer.
pub(crate) struct ForwardBuffers {
    z: AlignedBuffer,
    mean: Vec<f32>,
    inv_std: Vec<f32>,
    /// Numbers per image of z, and of mean and 1/std.
    z_len: usize,
    statistics_len: usize,
}

impl ForwardBuffers {
    /// The parts of a batch of `images` images, each with its share of the buffers.
    pub(crate) fn split_into_parts(
        &mut self,
        images: usize,
        part_images: usize,
    ) -> impl Iterator<Item = ForwardPart<'_>> {
        let mut z = chunks_or_empty(&mut self.z, part_images * self.z_len);
        let mut mean = chunks_or_empty(&mut self.mean, part_images * self.statistics_len);
        let mut inv_std = chunks_or_empty(&mut self.inv_std, part_images * self.statistics_len);

        ImageRange::whole_batch(images)
            .split_by(part_images)
            .map_while(move |part| {
                Some(ForwardPart {
                    part,
                    z: z.next()?,
                    mean: mean.next()?,
                    inv_std: inv_std.next()?,
                })
            })
    }
}

impl LayerState {
    pub(crate) fn take_forward_buffers(&mut self) -> ForwardBuffers {
        ForwardBuffers {
            z: take(&mut self.z),
            mean: take(&mut self.coefficients.mean),
            inv_std: take(&mut self.coefficients.inv_std),
            z_len: self.plan.output_len(),
            statistics_len: self.coefficients.image_stride,
        }
    }

    pub(crate) fn restore_forward_buffers(&mut self, buffers: ForwardBuffers) {
        self.z = buffers.z;
        self.coefficients.mean = buffers.mean;
        self.coefficients.inv_std = buffers.inv_std;
    }

    /// The forward pass over a part of the batch.
    pub(crate) fn forward_part<S: Simd16>(
        &self,
        s: S,
        pass: &LayerPass<'_>,
        workspace: &mut Workspace,
        mut to: ForwardPart<'_>,
    ) {
        let own = &mut workspace.layers[pass.at];
        own.moments.reset();

        for chunk in to.part.split_by(self.plan.chunk_images) {
            let z = chunk.slice_within_mut(to.part, to.z, self.plan.output_len());
            if let ConvAlgorithm::Copy = self.plan.algorithm {
                self.copy_input(s, pass, own, chunk, z);
            } else {
                self.read_input(s, pass, own, chunk);
                self.apply_linear_op(s, pass, &own.input, chunk, &mut workspace.winograd, z);
            }

            self.add_entering_bias(pass, z);
            self.measure_statistics(s, pass, own, chunk, &mut to);
        }
    }

    /// Writes the inputs of a chunk into the workspace, unless this pass has done so before.
    pub(crate) fn read_input<S: Simd16>(
        &self,
        s: S,
        pass: &LayerPass<'_>,
        workspace: &mut LayerWorkspace,
        chunk: ImageRange,
    ) {
        if workspace.written_chunk == Some(chunk.first) {
            return;
        }

        workspace.written_chunk = Some(chunk.first);
        let grid = self.plan.input;
        let output = &mut workspace.input;

        match self.source {
            None => pass
                .batch
                .write_images(chunk.first, chunk.images, &grid, output),
            Some(source) => pass.layers[source].write_activations(s, chunk, grid, output),
        }
    }

    /// Writes the activations of a chunk: norm, activation function and pooling of z.
    pub(crate) fn write_activations<S: Simd16>(
        &self,
        s: S,
        chunk: ImageRange,
        grid: HaloGrid,
        output: &mut [f32],
    ) {
        if self.pool == Pool::None {
            s.dispatch(ActivationKernel {
                z: chunk.slice_of(&self.z, self.plan.output_len()),
                coefficients: &self.coefficients,
                grid,
                first: chunk.first,
                images: chunk.images,
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

    /// z of a chunk of a layer without a map: its input, plus the z of the layer that this one adds.
    fn copy_input<S: Simd16>(
        &self,
        s: S,
        pass: &LayerPass<'_>,
        workspace: &mut LayerWorkspace,
        chunk: ImageRange,
        z: &mut [f32],
    ) {
        match self.source {
            Some(source) => {
                pass.layers[source].write_activations(s, chunk, self.plan.input, z);
            }
            None => {
                self.read_input(s, pass, workspace, chunk);
                let pixels = workspace.input.chunks_exact(self.plan.input.channels);
                for (z, pixel) in z.chunks_exact_mut(self.plan.channels).zip(pixels) {
                    z[..pixel.len()].copy_from_slice(pixel);
                }
            }
        }

        if let Some(added) = self.add {
            let added = chunk.slice_of(&pass.layers[added].z, self.plan.output_len());
            z.iter_mut().zip(added).for_each(|(z, x)| *z += x);
        }
    }

    /// Adds the biases that the added z lacks, where the layer's norm does not remove them.
    fn add_entering_bias(&self, pass: &LayerPass<'_>, z: &mut [f32]) {
        let (Some(added), true) = (self.add, self.bias_flow.enters_z) else {
            return;
        };
        let bias = &pass.layers[added].pending_bias;
        for pixel in z.chunks_exact_mut(bias.len()) {
            pixel.iter_mut().zip(bias).for_each(|(z, b)| *z += b);
        }
    }

    /// z of a chunk: the linear map of the input, plus the z of the layer that this one adds.
    fn apply_linear_op<S: Simd16>(
        &self,
        s: S,
        pass: &LayerPass<'_>,
        input: &[f32],
        chunk: ImageRange,
        winograd: &mut WinogradWorkspace,
        output: &mut [f32],
    ) {
        let plan = &self.plan;
        let weights = pass.weights;
        let added = self
            .add
            .map(|at| chunk.slice_of(&pass.layers[at].z, plan.output_len()));
        let initial_sum = added.map_or(InitialSum::Zero, InitialSum::Buffer);

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
                        initial_sum,
                        output,
                    });
                }
            }
            ConvAlgorithm::Winograd(plan) => {
                s.dispatch(WinogradForwardKernel {
                    plan,
                    images: chunk.images,
                    input,
                    weights,
                    initial_sum,
                    output,
                    workspace: winograd,
                });
            }
            ConvAlgorithm::Copy => unreachable!("a layer without a map copies its input"),
        }
    }

    /// Mean and variance of z in a chunk: of every image for a norm over single images, into the batch's moments for a
    /// batch norm in training.
    fn measure_statistics<S: Simd16>(
        &self,
        s: S,
        pass: &LayerPass<'_>,
        workspace: &mut LayerWorkspace,
        chunk: ImageRange,
        to: &mut ForwardPart<'_>,
    ) {
        let z = chunk.slice_within_mut(to.part, to.z, self.plan.output_len());
        let moments = &mut workspace.moments;
        let Some((groups, eps)) = self.norm_groups() else {
            if self.norm.is_some() && pass.training {
                s.dispatch(MomentsKernel { z, moments });
            }
            return;
        };

        for (at, z) in z.chunks_exact(self.plan.output_len()).enumerate() {
            moments.reset();
            s.dispatch(MomentsKernel { z, moments });

            let image = (chunk.first - to.part.first + at) * self.coefficients.image_stride;
            set_mean_and_inv_std(
                moments.group_statistics(self.unpadded_channels, groups),
                eps,
                &mut to.mean[image..],
                &mut to.inv_std[image..],
            );
        }
    }
}
