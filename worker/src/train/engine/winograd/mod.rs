//! 3×3 convolutions with fewer multiplications: the minimal filtering algorithms of Winograd (1980), for networks Lavin
//! and Gray (2016).
//!
//! Outputs are made in tiles of 2×2. Along one axis, the two outputs y of three weights g over four inputs d are
//!
//! ```text
//! y0 = m0+m1+m2, y1 = m1−m2+m3 with
//! m = (d0−d2)·g0, (d1+d2)·(g0+g1+g2)/2, (d2−d1)·(g0−g1+g2)/2, (d3−d1)·g2
//! ```
//!
//! with 4 products m, called *points*, instead of 6; along both axes with 16 instead of 36. With B, G and A for the
//! transforms of inputs, weights and products, `z = Aᵀ[Σ (GwGᵀ)·(BᵀdB)]A`, where the sum over input channels is a matrix
//! product at every point. The backward pass is the adjoint of exactly that, at the same cost:
//! `∂w = Gᵀ[Σ (BᵀdB)·(A∂zAᵀ)]G` summed over tiles, and `∂d = B[Σ (GwGᵀ)·(A∂zAᵀ)]Bᵀ` summed over output channels.
//!
//! A gradient that is 0 by definition, such as that of a weight whose inputs are all 0, is computed from the points as a rounding
//! error. Optimizers that divide by the size of a gradient would turn it into whole steps. So gradients that are no larger than
//! the rounding are set to 0.
//!
//! All factors are 1 or ½, so that scaling by a power of two stays exact. Under stride 2 two outputs would take 5 products
//! instead of 6, a gain that the transforms of inputs and outputs cost again: such convolutions are computed by their definition.

pub(crate) mod plan;
mod transforms;

use self::plan::WinogradTile;
use self::plan::{TILE_OUTPUTS, TILE_POINTS, TILE_SIDE, tile_pitch};
pub(crate) use self::plan::{WinogradPlan, transpose_blocked_matrix};
use self::transforms::{
    InputTransform, InputTransformAdjoint, OutputTransform, OutputTransformAdjoint,
    WeightTransform, WeightTransformAdjoint, add_square, load_points, load_square, store_points,
    store_square, transform_both_axes, zero_below_rounding,
};
use super::aligned_buffer::AlignedBuffer;
use super::direct_conv::InitialSum;
use super::simd::{BLOCK, Kernel, Simd16, block_at_mut};

/// The buffers of one thread: the tiles of a strip at their points, `[tile][block of channels][point][BLOCK]`, with a
/// gap from tile to tile.
#[derive(Debug, Default)]
pub(crate) struct WinogradWorkspace {
    /// Inputs, or their gradients.
    inputs: AlignedBuffer,
    /// Products, or gradients of the outputs.
    outputs: AlignedBuffer,
    /// Gradient of the weights at every point.
    weight_gradient: AlignedBuffer,
}

impl WinogradWorkspace {
    /// Buffers that are large enough for every one of `plans`.
    pub(crate) fn new<'a>(plans: impl Iterator<Item = &'a WinogradPlan> + Clone) -> Self {
        Self {
            inputs: zeros_for_any(plans.clone(), |plan| plan.strip_len(plan.channels.0)),
            outputs: zeros_for_any(plans.clone(), |plan| plan.strip_len(plan.channels.1)),
            weight_gradient: zeros_for_any(plans, WinogradPlan::weight_len),
        }
    }

    /// Sets the gradient of a weight to 0.
    pub(crate) fn reset_weight_gradient(&mut self, plan: &WinogradPlan) {
        self.weight_gradient[..plan.weight_len()].fill(0.0);
    }
}

fn zeros_for_any<'a>(
    plans: impl Iterator<Item = &'a WinogradPlan>,
    len: fn(&WinogradPlan) -> usize,
) -> AlignedBuffer {
    AlignedBuffer::zeros(plans.map(len).max().unwrap_or(0))
}

/// `to = G weights Gᵀ`, for every input and block of outputs.
pub(crate) struct WeightTransformKernel<'a> {
    pub(crate) plan: &'a WinogradPlan,
    /// `[block of outputs][kernel row, kernel column, input][BLOCK]`
    pub(crate) weights: &'a [f32],
    pub(crate) transformed: &'a mut [f32],
}

impl Kernel for WeightTransformKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        let (inputs, outputs) = self.plan.channels;
        let column = inputs * BLOCK;

        for at in 0..inputs * outputs / BLOCK {
            let from = (at / inputs * 9 * inputs + at % inputs) * BLOCK;
            let g = load_square::<S, 3>(s, self.weights, from, 3 * column, column);
            let u = transform_both_axes::<S, WeightTransform, 3, TILE_SIDE>(s, g);
            store_square::<S, TILE_SIDE>(
                s,
                u,
                self.transformed,
                at * BLOCK,
                TILE_SIDE * inputs * outputs,
                inputs * outputs,
            );
        }
    }
}

/// `weights += Gᵀ gradient G`
pub(crate) struct WeightGatherKernel<'a> {
    pub(crate) plan: &'a WinogradPlan,
    pub(crate) workspace: &'a WinogradWorkspace,
    pub(crate) weight_gradient: &'a mut [f32],
}

impl Kernel for WeightGatherKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        let (inputs, outputs) = self.plan.channels;
        let column = inputs * BLOCK;

        for at in 0..inputs * outputs / BLOCK {
            let u = load_square::<S, TILE_SIDE>(
                s,
                &self.workspace.weight_gradient,
                at * BLOCK,
                TILE_SIDE * inputs * outputs,
                inputs * outputs,
            );
            let g = zero_below_rounding(
                s,
                &u,
                transform_both_axes::<S, WeightTransformAdjoint, TILE_SIDE, 3>(s, u),
            );

            let to = (at / inputs * 9 * inputs + at % inputs) * BLOCK;
            let mut sum = load_square::<S, 3>(s, self.weight_gradient, to, 3 * column, column);
            add_square(s, &mut sum, g);
            store_square::<S, 3>(s, sum, self.weight_gradient, to, 3 * column, column);
        }
    }
}

/// `output = start + Aᵀ[weights · Bᵀ input B]A` for the first images of a chunk.
pub(crate) struct WinogradForwardKernel<'a> {
    pub(crate) plan: &'a WinogradPlan,
    pub(crate) images: usize,
    /// Inputs with halo.
    pub(crate) input: &'a [f32],
    /// Weights at every point.
    pub(crate) weights: &'a [f32],
    pub(crate) initial_sum: InitialSum<'a>,
    pub(crate) output: &'a mut [f32],
    pub(crate) workspace: &'a mut WinogradWorkspace,
}

impl Kernel for WinogradForwardKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        let WinogradWorkspace {
            inputs, outputs, ..
        } = self.workspace;

        for strip in self.plan.tile_strips(self.images) {
            transform_inputs(s, self.plan, strip, self.input, inputs);
            self.plan
                .forward
                .multiply_points(s, strip.len(), inputs, self.weights, outputs);
            gather_outputs(s, self.plan, strip, outputs, self.initial_sum, self.output);
        }
    }
}

/// The backward pass for the first images of a chunk: adds to the gradients of the weights, in the workspace, and of the
/// input.
pub(crate) struct WinogradBackwardKernel<'a> {
    pub(crate) plan: &'a WinogradPlan,
    pub(crate) images: usize,
    /// Inputs with halo; none where the weights are not trained.
    pub(crate) input: Option<&'a [f32]>,
    /// Gradient of the output.
    pub(crate) output_gradient: &'a [f32],
    /// Weights at every point, transposed.
    pub(crate) weights: &'a [f32],
    /// Gradient of the input, without halo.
    pub(crate) input_gradient: &'a mut [f32],
    pub(crate) workspace: &'a mut WinogradWorkspace,
}

impl Kernel for WinogradBackwardKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        let plan = self.plan;
        let WinogradWorkspace {
            inputs,
            outputs,
            weight_gradient: weights,
        } = self.workspace;

        for strip in plan.tile_strips(self.images) {
            transform_output_gradient(s, plan, strip, self.output_gradient, outputs);
            if let Some(input) = self.input {
                let weights = &mut weights[..plan.weight_len()];
                transform_inputs(s, plan, strip, input, inputs);
                plan.forward
                    .add_weight_gradients(s, strip.len(), inputs, outputs, weights);
            }

            plan.backward
                .multiply_points(s, strip.len(), outputs, self.weights, inputs);
            gather_input_gradient(s, plan, strip, inputs, self.input_gradient);
        }
    }
}

/// `points = Bᵀ input B`
#[inline(always)]
fn transform_inputs<S: Simd16>(
    s: S,
    plan: &WinogradPlan,
    strip: &[WinogradTile],
    input: &[f32],
    points: &mut [f32],
) {
    let channels = plan.channels.0;
    for (tile, points) in strip
        .iter()
        .zip(points.chunks_exact_mut(tile_pitch(channels)))
    {
        for (b, points) in points.chunks_exact_mut(TILE_POINTS * BLOCK).enumerate() {
            let d = load_square::<S, TILE_SIDE>(
                s,
                input,
                tile.input_offset + b * BLOCK,
                plan.row_lens[0],
                channels,
            );
            let v = transform_both_axes::<S, InputTransform, TILE_SIDE, TILE_SIDE>(s, d);

            store_points(s, v, points);
        }
    }
}

/// `points = A gradient Aᵀ`
#[inline(always)]
fn transform_output_gradient<S: Simd16>(
    s: S,
    plan: &WinogradPlan,
    strip: &[WinogradTile],
    gradient: &[f32],
    points: &mut [f32],
) {
    let channels = plan.channels.1;
    for (tile, points) in strip
        .iter()
        .zip(points.chunks_exact_mut(tile_pitch(channels)))
    {
        for (b, points) in points.chunks_exact_mut(TILE_POINTS * BLOCK).enumerate() {
            let y = load_square::<S, TILE_OUTPUTS>(
                s,
                gradient,
                tile.output_offset + b * BLOCK,
                plan.row_lens[2],
                channels,
            );
            let e = transform_both_axes::<S, OutputTransformAdjoint, TILE_OUTPUTS, TILE_SIDE>(s, y);

            store_points(s, e, points);
        }
    }
}

/// `output = start + Aᵀ points A`
#[inline(always)]
fn gather_outputs<S: Simd16>(
    s: S,
    plan: &WinogradPlan,
    strip: &[WinogradTile],
    points: &[f32],
    start: InitialSum<'_>,
    output: &mut [f32],
) {
    let channels = plan.channels.1;
    for (tile, points) in strip.iter().zip(points.chunks_exact(tile_pitch(channels))) {
        for (b, points) in points.chunks_exact(TILE_POINTS * BLOCK).enumerate() {
            let m = load_points(s, points);
            let mut y = transform_both_axes::<S, OutputTransform, TILE_SIDE, TILE_OUTPUTS>(s, m);
            let at = tile.output_offset + b * BLOCK;

            if let InitialSum::Buffer(from) = start {
                let from = load_square::<S, TILE_OUTPUTS>(s, from, at, plan.row_lens[2], channels);
                add_square(s, &mut y, from);
            }

            store_square::<S, TILE_OUTPUTS>(s, y, output, at, plan.row_lens[2], channels);
        }
    }
}

/// `output += B points Bᵀ`, tile after tile, where they lie inside the image.
#[inline(always)]
fn gather_input_gradient<S: Simd16>(
    s: S,
    plan: &WinogradPlan,
    strip: &[WinogradTile],
    points: &[f32],
    output: &mut [f32],
) {
    let channels = plan.channels.0;
    for (tile, points) in strip.iter().zip(points.chunks_exact(tile_pitch(channels))) {
        let [rows, columns] = &tile.inside;
        for (b, points) in points.chunks_exact(TILE_POINTS * BLOCK).enumerate() {
            let v = load_points(s, points);
            let d = zero_below_rounding(
                s,
                &v,
                transform_both_axes::<S, InputTransformAdjoint, TILE_SIDE, TILE_SIDE>(s, v),
            );

            let at = tile.image_offset + b * BLOCK;
            if rows.len() == TILE_SIDE && columns.len() == TILE_SIDE {
                let mut sum =
                    load_square::<S, TILE_SIDE>(s, output, at, plan.row_lens[1], channels);
                add_square(s, &mut sum, d);
                store_square::<S, TILE_SIDE>(s, sum, output, at, plan.row_lens[1], channels);
                continue;
            }

            for (r, line) in d[rows.clone()].iter().enumerate() {
                for (c, x) in line[columns.clone()].iter().enumerate() {
                    let to = block_at_mut(output, at + r * plan.row_lens[1] + c * channels);
                    s.store(s.add(s.load(to), *x), to);
                }
            }
        }
    }
}
