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
//! with 4 products m, called *points*, instead of 6; along both axes with 16 instead of 36. With B, G and A for what is
//! done to inputs, weights and products, `z = Aᵀ[Σ (GwGᵀ)·(BᵀdB)]A`, where the sum over input channels is a matrix
//! product at every point. The backward pass is the adjoint of exactly that, at the same cost:
//! `∂w = Gᵀ[Σ (BᵀdB)·(A∂zAᵀ)]G` summed over tiles, and `∂d = B[Σ (GwGᵀ)·(A∂zAᵀ)]Bᵀ` summed over output channels.
//!
//! What is 0 by definition, such as the gradient of a weight that has seen zeros alone, comes back from the points as what their
//! rounding left. Optimizers that divide by a gradient's size would make whole steps of it. So gradients that are no larger than
//! rounding are 0.
//!
//! All factors are 1 or ½, so that scaling by a power of two stays exact. Under stride 2 two outputs would take 5 products
//! instead of 6, which what is done to inputs and outputs eats up: such convolutions are computed as they are defined.

use std::ops::Range;

use ergodic_common::net::ActivationShape;

use super::direct_conv::{ConvTap, DirectConvKernel, InitialSum, PixelOffsets};
use super::simd::{AlignedBuffer, BLOCK, Kernel, Simd16, block_at, block_at_mut};
use super::weight_grad::WeightGradientKernel;
use crate::train::network::plan::{ConvShape, HaloGrid};

/// Outputs along each side of a tile.
const TILE_OUTPUTS: usize = 2;

/// Inputs, and points, along each side of a tile.
const TILE_SIDE: usize = 4;

/// Points of a tile.
const TILE_POINTS: usize = TILE_SIDE * TILE_SIDE;

/// Share of the sum of all sizes at a square's points up to which what is made of them is rounding: four times that of one number,
/// of which there are sixteen. Sums of some hundred terms stay well below; of other gradients, a few in a million are so small.
const ROUNDING_SHARE: f32 = 1.0 / (1 << 22) as f32;

/// The sum of that part of the points is finite wherever they are.
const OVERFLOW_SCALE: f32 = 1.0 / 32.0;

/// Tiles that are worked on together, so that a point's weights are used often and the products stay in the cache.
const STRIP_TILES: usize = 32;

/// How a convolution is cut into tiles.
#[derive(Debug)]
pub(crate) struct WinogradPlan {
    /// Numbers per pixel: of the input, and of the output.
    channels: (usize, usize),
    /// The tiles of a chunk of images, one image after the other.
    tiles: Vec<WinogradTile>,
    tiles_per_image: usize,
    /// Numbers in a row of the input with halo, of the input, and of the output.
    row_lens: [usize; 3],
    /// From inputs to outputs, and back.
    forward: PointwiseProduct,
    backward: PointwiseProduct,
}

/// The matrix product that the points of a strip of tiles are taken through.
#[derive(Debug)]
struct PointwiseProduct {
    /// Channels before and after.
    from: usize,
    to: usize,
    /// Where each tile of a strip stands.
    pixels: Vec<PixelOffsets>,
    /// Blocks of channels.
    taps: Vec<ConvTap>,
}

/// Where a tile stands in a chunk.
#[derive(Debug)]
struct WinogradTile {
    /// Its first input, in the grid with halo.
    input_offset: usize,
    /// Its first output.
    output_offset: usize,
    /// Rows and columns of its inputs that lie inside the image, and the place of the first of them there.
    inside: [Range<usize>; 2],
    image_offset: usize,
}

/// What one thread writes on: the tiles of a strip at their points, `[tile][block of channels][point][BLOCK]`, with a
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
    /// Large enough for all of them.
    pub(crate) fn new<'a>(all: impl Iterator<Item = &'a WinogradPlan> + Clone) -> Self {
        let most = |size: fn(&WinogradPlan) -> usize| {
            AlignedBuffer::zeros(all.clone().map(size).max().unwrap_or(0))
        };
        Self {
            inputs: most(|t| t.forward.pixels.len() * tile_pitch(t.channels.0)),
            outputs: most(|t| t.forward.pixels.len() * tile_pitch(t.channels.1)),
            weight_gradient: most(WinogradPlan::weight_len),
        }
    }

    /// Begins the gradient of a weight.
    pub(crate) fn reset_weight_gradient(&mut self, tiled: &WinogradPlan) {
        self.weight_gradient[..tiled.weight_len()].fill(0.0);
    }
}

/// Numbers from one tile to the next on a desk, for so many channels: one block more than there are, so that
/// consecutive tiles never compete for the same places of the cache.
fn tile_pitch(channels: usize) -> usize {
    TILE_POINTS * channels + BLOCK
}

impl WinogradPlan {
    /// Whether a convolution is computed in tiles. A single tile saves nothing: what the padding's zeros would be multiplied by is
    /// left out of the plain sum.
    pub(crate) fn is_suitable_for(conv: &ConvShape) -> bool {
        let ActivationShape { height, width, .. } = conv.output;
        let whole = height % TILE_OUTPUTS == 0
            && width % TILE_OUTPUTS == 0
            && height * width > TILE_OUTPUTS * TILE_OUTPUTS;
        conv.kernel == 3 && conv.stride == 1 && whole
    }

    /// `input` is one image in its halo.
    pub(crate) fn new(conv: &ConvShape, chunk: usize, input: &HaloGrid) -> Self {
        let (
            ActivationShape {
                height,
                width,
                channels: inputs,
            },
            output,
        ) = (conv.input, conv.output);

        // Which of a tile's inputs lie inside the image along one axis.
        let clip = |at: usize, size: usize| {
            let first = conv
                .padding
                .saturating_sub(at * TILE_OUTPUTS)
                .min(TILE_SIDE);
            first
                ..(size + conv.padding)
                    .saturating_sub(at * TILE_OUTPUTS)
                    .clamp(first, TILE_SIDE)
        };

        let mut tiles = Vec::new();
        for image in 0..chunk {
            for y in 0..output.height / TILE_OUTPUTS {
                for x in 0..output.width / TILE_OUTPUTS {
                    let inside = [clip(y, height), clip(x, width)];
                    let row = (y * TILE_OUTPUTS + inside[0].start).saturating_sub(conv.padding);
                    let column = (x * TILE_OUTPUTS + inside[1].start).saturating_sub(conv.padding);
                    tiles.push(WinogradTile {
                        input_offset: image * input.len()
                            + input.pixel_offset(y * TILE_OUTPUTS, x * TILE_OUTPUTS),
                        output_offset: ((image * output.height + y * TILE_OUTPUTS) * output.width
                            + x * TILE_OUTPUTS)
                            * output.channels,
                        image_offset: ((image * height + row) * width + column) * inputs,
                        inside,
                    });
                }
            }
        }

        let strip = STRIP_TILES.min(tiles.len());
        Self {
            channels: (inputs, output.channels),
            tiles_per_image: tiles.len() / chunk,
            tiles,
            row_lens: [
                input.row_len(),
                width * inputs,
                output.width * output.channels,
            ],
            forward: PointwiseProduct::new(inputs, output.channels, strip),
            backward: PointwiseProduct::new(output.channels, inputs, strip),
        }
    }

    /// Numbers of the weights at all points: `[point][block of outputs][input][BLOCK]`.
    pub(crate) fn weight_len(&self) -> usize {
        TILE_POINTS * self.channels.0 * self.channels.1
    }

    fn tile_strips(&self, images: usize) -> impl Iterator<Item = &[WinogradTile]> {
        self.tiles[..images * self.tiles_per_image].chunks(STRIP_TILES)
    }

    /// The weights at all points with inputs and outputs exchanged: `[point][block of inputs][output][BLOCK]`.
    pub(crate) fn transpose_weights(&self, weights: &[f32], transposed: &mut [f32]) {
        let (inputs, outputs) = self.channels;
        let points = weights
            .chunks_exact(inputs * outputs)
            .zip(transposed.chunks_exact_mut(inputs * outputs));
        points.for_each(|(from, to)| {
            transpose_blocked_matrix(self.channels, from, inputs, to, outputs)
        });
    }
}

/// Exchanges inputs and outputs of a matrix `[block of outputs][row][BLOCK]`, whose first rows are the inputs, into
/// `[block of inputs][row][BLOCK]`, whose first rows become the outputs.
pub(crate) fn transpose_blocked_matrix(
    (inputs, outputs): (usize, usize),
    from: &[f32],
    rows_from: usize,
    to: &mut [f32],
    rows_to: usize,
) {
    for out in (0..outputs).step_by(BLOCK) {
        for input in (0..inputs).step_by(BLOCK) {
            let square = &from[out * rows_from + input * BLOCK..][..BLOCK * BLOCK];
            let to = &mut to[input * rows_to + out * BLOCK..][..BLOCK * BLOCK];
            for (i, to) in to.iter_mut().enumerate() {
                *to = square[i % BLOCK * BLOCK + i / BLOCK];
            }
        }
    }
}

/// Sixteen channels of every point, or of every input, of a tile.
type BlockSquare<S, const N: usize> = [[<S as Simd16>::Block; N]; N];

/// What is done along one axis of a square.
trait AxisTransform<const FROM: usize, const TO: usize> {
    /// From blocks in a row to those that stand in their place.
    fn transform_axis<S: Simd16>(s: S, from: [S::Block; FROM]) -> [S::Block; TO];
}

/// Bᵀ along one axis: what is multiplied at the points.
struct InputTransform;

impl AxisTransform<TILE_SIDE, TILE_SIDE> for InputTransform {
    #[inline(always)]
    fn transform_axis<S: Simd16>(s: S, d: [S::Block; TILE_SIDE]) -> [S::Block; TILE_SIDE] {
        let mut v = d;
        v[0] = s.sub(d[0], d[2]);
        v[1] = s.add(d[1], d[2]);
        v[2] = s.sub(d[2], d[1]);
        v[3] = s.sub(d[3], d[1]);
        v
    }
}

/// B along one axis: the gradient of the inputs.
struct InputTransformAdjoint;

impl AxisTransform<TILE_SIDE, TILE_SIDE> for InputTransformAdjoint {
    #[inline(always)]
    fn transform_axis<S: Simd16>(s: S, v: [S::Block; TILE_SIDE]) -> [S::Block; TILE_SIDE] {
        let mut d = v;
        d[1] = s.sub(s.sub(v[1], v[2]), v[3]);
        d[2] = s.sub(s.add(v[1], v[2]), v[0]);
        d
    }
}

/// Aᵀ along one axis: outputs from the products.
struct OutputTransform;

impl AxisTransform<TILE_SIDE, TILE_OUTPUTS> for OutputTransform {
    #[inline(always)]
    fn transform_axis<S: Simd16>(s: S, m: [S::Block; TILE_SIDE]) -> [S::Block; TILE_OUTPUTS] {
        [
            s.add(s.add(m[0], m[1]), m[2]),
            s.add(s.sub(m[1], m[2]), m[3]),
        ]
    }
}

/// A along one axis: what the gradient of the outputs is at the points.
struct OutputTransformAdjoint;

impl AxisTransform<TILE_OUTPUTS, TILE_SIDE> for OutputTransformAdjoint {
    #[inline(always)]
    fn transform_axis<S: Simd16>(s: S, y: [S::Block; TILE_OUTPUTS]) -> [S::Block; TILE_SIDE] {
        let mut e = [y[0]; TILE_SIDE];
        e[1] = s.add(y[0], y[1]);
        e[2] = s.sub(y[0], y[1]);
        e[3] = y[1];
        e
    }
}

/// G along one axis: the weights at the points.
struct WeightTransform;

impl AxisTransform<3, TILE_SIDE> for WeightTransform {
    #[inline(always)]
    fn transform_axis<S: Simd16>(s: S, g: [S::Block; 3]) -> [S::Block; TILE_SIDE] {
        let mut u = [g[1]; TILE_SIDE];
        u[0] = g[0];
        let outer = s.add(g[0], g[2]);
        let half = s.splat(0.5);
        u[1] = s.mul(half, s.add(outer, g[1]));
        u[2] = s.mul(half, s.sub(outer, g[1]));
        u[3] = g[2];
        u
    }
}

/// Gᵀ along one axis: the gradient of the weights.
struct WeightTransformAdjoint;

impl AxisTransform<TILE_SIDE, 3> for WeightTransformAdjoint {
    #[inline(always)]
    fn transform_axis<S: Simd16>(s: S, u: [S::Block; TILE_SIDE]) -> [S::Block; 3] {
        let half = s.splat(0.5);
        let sum = s.mul(half, s.add(u[1], u[2]));
        let difference = s.mul(half, s.sub(u[1], u[2]));
        [s.add(u[0], sum), difference, s.add(sum, u[3])]
    }
}

/// Does it to all rows and then to all columns.
#[inline(always)]
fn transform_both_axes<
    S: Simd16,
    A: AxisTransform<FROM, TO>,
    const FROM: usize,
    const TO: usize,
>(
    s: S,
    square: BlockSquare<S, FROM>,
) -> BlockSquare<S, TO> {
    let mut rows = [[s.splat(0.0); TO]; FROM];
    for (row, from) in rows.iter_mut().zip(square) {
        *row = A::transform_axis(s, from);
    }

    let mut whole = [[s.splat(0.0); TO]; TO];
    for column in 0..TO {
        let mut from = [s.splat(0.0); FROM];
        for (x, row) in from.iter_mut().zip(&rows) {
            *x = row[column];
        }

        let made = A::transform_axis(s, from);
        for (row, x) in whole.iter_mut().zip(made) {
            row[column] = x;
        }
    }

    whole
}

/// What is made of the points, with zeros for what is no larger than their rounding. NaN and infinite numbers stay.
#[inline(always)]
fn zero_below_rounding<S: Simd16, const N: usize>(
    s: S,
    points: &BlockSquare<S, TILE_SIDE>,
    mut made: BlockSquare<S, N>,
) -> BlockSquare<S, N> {
    let mut size = s.splat(0.0);
    let part = s.splat(OVERFLOW_SCALE);

    for point in points.as_flattened() {
        size = s.fma(s.abs(*point), part, size);
    }

    let rounding = s.mul(size, s.splat(ROUNDING_SHARE / OVERFLOW_SCALE));
    for x in made.as_flattened_mut() {
        *x = s.select_greater(rounding, s.abs(*x), s.splat(0.0), *x);
    }

    made
}

/// Reads a square of blocks.
#[inline(always)]
fn load_square<S: Simd16, const N: usize>(
    s: S,
    data: &[f32],
    at: usize,
    row: usize,
    column: usize,
) -> BlockSquare<S, N> {
    let mut square = [[s.splat(0.0); N]; N];
    for (r, line) in square.iter_mut().enumerate() {
        for (c, x) in line.iter_mut().enumerate() {
            *x = s.load(block_at(data, at + r * row + c * column));
        }
    }
    square
}

/// Writes a square of blocks.
#[inline(always)]
fn store_square<S: Simd16, const N: usize>(
    s: S,
    square: BlockSquare<S, N>,
    data: &mut [f32],
    at: usize,
    row: usize,
    column: usize,
) {
    for (r, line) in square.into_iter().enumerate() {
        for (c, x) in line.into_iter().enumerate() {
            s.store(x, block_at_mut(data, at + r * row + c * column));
        }
    }
}

/// `sums += more`
#[inline(always)]
fn add_square<S: Simd16, const N: usize>(
    s: S,
    sums: &mut BlockSquare<S, N>,
    more: BlockSquare<S, N>,
) {
    for (sums, more) in sums.iter_mut().zip(more) {
        for (sum, more) in sums.iter_mut().zip(more) {
            *sum = s.add(*sum, more);
        }
    }
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
    /// With halo.
    pub(crate) input: &'a [f32],
    /// At every point.
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

/// The backward pass for the first images of a chunk: adds to the gradients of the weights, on the desk, and of the
/// input.
pub(crate) struct WinogradBackwardKernel<'a> {
    pub(crate) plan: &'a WinogradPlan,
    pub(crate) images: usize,
    /// With halo; none where the weights are not trained.
    pub(crate) input: Option<&'a [f32]>,
    /// Gradient of the output.
    pub(crate) output_gradient: &'a [f32],
    /// At every point, transposed.
    pub(crate) weights: &'a [f32],
    /// Gradient of the input, without halo.
    pub(crate) input_gradient: &'a mut [f32],
    pub(crate) workspace: &'a mut WinogradWorkspace,
}

impl Kernel for WinogradBackwardKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        let tiled = self.plan;
        let WinogradWorkspace {
            inputs,
            outputs,
            weight_gradient: weights,
        } = self.workspace;

        for strip in tiled.tile_strips(self.images) {
            transform_output_gradient(s, tiled, strip, self.output_gradient, outputs);
            if let Some(input) = self.input {
                let weights = &mut weights[..tiled.weight_len()];
                transform_inputs(s, tiled, strip, input, inputs);
                tiled
                    .forward
                    .add_weight_gradients(s, strip.len(), inputs, outputs, weights);
            }

            tiled
                .backward
                .multiply_points(s, strip.len(), outputs, self.weights, inputs);
            gather_input_gradient(s, tiled, strip, inputs, self.input_gradient);
        }
    }
}

/// `points = Bᵀ input B`
#[inline(always)]
fn transform_inputs<S: Simd16>(
    s: S,
    tiled: &WinogradPlan,
    strip: &[WinogradTile],
    input: &[f32],
    points: &mut [f32],
) {
    let channels = tiled.channels.0;
    for (tile, points) in strip
        .iter()
        .zip(points.chunks_exact_mut(tile_pitch(channels)))
    {
        for (b, points) in points.chunks_exact_mut(TILE_POINTS * BLOCK).enumerate() {
            let d = load_square::<S, TILE_SIDE>(
                s,
                input,
                tile.input_offset + b * BLOCK,
                tiled.row_lens[0],
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
    tiled: &WinogradPlan,
    strip: &[WinogradTile],
    gradient: &[f32],
    points: &mut [f32],
) {
    let channels = tiled.channels.1;
    for (tile, points) in strip
        .iter()
        .zip(points.chunks_exact_mut(tile_pitch(channels)))
    {
        for (b, points) in points.chunks_exact_mut(TILE_POINTS * BLOCK).enumerate() {
            let y = load_square::<S, TILE_OUTPUTS>(
                s,
                gradient,
                tile.output_offset + b * BLOCK,
                tiled.row_lens[2],
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
    tiled: &WinogradPlan,
    strip: &[WinogradTile],
    points: &[f32],
    start: InitialSum<'_>,
    output: &mut [f32],
) {
    let channels = tiled.channels.1;
    for (tile, points) in strip.iter().zip(points.chunks_exact(tile_pitch(channels))) {
        for (b, points) in points.chunks_exact(TILE_POINTS * BLOCK).enumerate() {
            let m = load_points(s, points);
            let mut y = transform_both_axes::<S, OutputTransform, TILE_SIDE, TILE_OUTPUTS>(s, m);
            let at = tile.output_offset + b * BLOCK;

            if let InitialSum::Buffer(from) = start {
                let from = load_square::<S, TILE_OUTPUTS>(s, from, at, tiled.row_lens[2], channels);
                add_square(s, &mut y, from);
            }

            store_square::<S, TILE_OUTPUTS>(s, y, output, at, tiled.row_lens[2], channels);
        }
    }
}

/// `output += B points Bᵀ`, tile after tile, where they lie inside the image.
#[inline(always)]
fn gather_input_gradient<S: Simd16>(
    s: S,
    tiled: &WinogradPlan,
    strip: &[WinogradTile],
    points: &[f32],
    output: &mut [f32],
) {
    let channels = tiled.channels.0;
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
                    load_square::<S, TILE_SIDE>(s, output, at, tiled.row_lens[1], channels);
                add_square(s, &mut sum, d);
                store_square::<S, TILE_SIDE>(s, sum, output, at, tiled.row_lens[1], channels);
                continue;
            }

            for (r, line) in d[rows.clone()].iter().enumerate() {
                for (c, x) in line[columns.clone()].iter().enumerate() {
                    let to = block_at_mut(output, at + r * tiled.row_lens[1] + c * channels);
                    s.store(s.add(s.load(to), *x), to);
                }
            }
        }
    }
}

/// Reads a tile's block of channels at its points.
#[inline(always)]
fn load_points<S: Simd16>(s: S, points: &[f32]) -> BlockSquare<S, TILE_SIDE> {
    load_square::<S, TILE_SIDE>(
        s,
        &points[..TILE_POINTS * BLOCK],
        0,
        TILE_SIDE * BLOCK,
        BLOCK,
    )
}

/// Writes them.
#[inline(always)]
fn store_points<S: Simd16>(s: S, square: BlockSquare<S, TILE_SIDE>, points: &mut [f32]) {
    store_square::<S, TILE_SIDE>(
        s,
        square,
        &mut points[..TILE_POINTS * BLOCK],
        0,
        TILE_SIDE * BLOCK,
        BLOCK,
    );
}

impl PointwiseProduct {
    fn new(from: usize, to: usize, tiles: usize) -> Self {
        let pixels = (0..tiles).map(|at| PixelOffsets {
            input: at * tile_pitch(from),
            output: at * tile_pitch(to),
        });
        let runs = (0..from / BLOCK).map(|block| ConvTap {
            input_offset: block * TILE_POINTS * BLOCK,
            rows: BLOCK,
            first_weight_row: block * BLOCK,
        });

        Self {
            from,
            to,
            pixels: pixels.collect(),
            taps: runs.collect(),
        }
    }

    /// `to = from · weights` at every point.
    #[inline(always)]
    fn multiply_points<S: Simd16>(
        &self,
        s: S,
        tiles: usize,
        from: &[f32],
        weights: &[f32],
        to: &mut [f32],
    ) {
        for (point, weights) in weights.chunks_exact(self.from * self.to).enumerate() {
            DirectConvKernel {
                input: &from[point * BLOCK..],
                weights,
                rows: self.from,
                taps: &self.taps,
                pixels: &self.pixels[..tiles],
                blocks: self.to / BLOCK,
                block_stride: TILE_POINTS * BLOCK,
                initial_sum: InitialSum::Zero,
                output: &mut to[point * BLOCK..],
            }
            .run_with(s);
        }
    }

    /// `weights += from · to` at every point, summed over the tiles.
    #[inline(always)]
    fn add_weight_gradients<S: Simd16>(
        &self,
        s: S,
        tiles: usize,
        from: &[f32],
        to: &[f32],
        weights: &mut [f32],
    ) {
        for (point, weights) in weights.chunks_exact_mut(self.from * self.to).enumerate() {
            WeightGradientKernel {
                input: &from[point * BLOCK..],
                output_gradient: &to[point * BLOCK..],
                taps: &self.taps,
                pixels: &self.pixels[..tiles],
                blocks: self.to / BLOCK,
                block_stride: TILE_POINTS * BLOCK,
                weight_gradient: weights,
                rows: self.from,
            }
            .run_with(s);
        }
    }
}
