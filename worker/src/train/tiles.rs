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

use super::plan::{Conv, Grid};
use super::simd::{BLOCK, Buffer, Kernel, Lanes, block, block_mut};
use super::taps::{Pixel, Start, Tap, Taps};
use super::wgrad::WeightGradient;

/// Outputs along each side of a tile.
const OUT: usize = 2;

/// Inputs, and points, along each side of a tile.
const SIDE: usize = 4;

/// Points of a tile.
const POINTS: usize = SIDE * SIDE;

/// Share of the sum of all sizes at a square's points up to which what is made of them is rounding: four times that of one number,
/// of which there are sixteen. Sums of some hundred terms stay well below; of other gradients, a few in a million are so small.
const ROUNDING: f32 = 1.0 / (1 << 22) as f32;

/// The sum of that part of the points is finite wherever they are.
const PART: f32 = 1.0 / 32.0;

/// Tiles that are worked on together, so that a point's weights are used often and the products stay in the cache.
const STRIP: usize = 32;

/// How a convolution is cut into tiles.
#[derive(Debug)]
pub(super) struct Tiled {
    /// Numbers per pixel: of the input, and of the output.
    channels: (usize, usize),
    /// The tiles of a chunk of images, one image after the other.
    tiles: Vec<Tile>,
    per_image: usize,
    /// Numbers in a row of the input with halo, of the input, and of the output.
    rows: [usize; 3],
    /// From inputs to outputs, and back.
    forward: Products,
    back: Products,
}

/// The matrix product that the points of a strip of tiles are taken through.
#[derive(Debug)]
struct Products {
    /// Channels before and after.
    from: usize,
    to: usize,
    /// Where each tile of a strip stands.
    pixels: Vec<Pixel>,
    /// Blocks of channels.
    runs: Vec<Tap>,
}

/// Where a tile stands in a chunk.
#[derive(Debug)]
struct Tile {
    /// Its first input, in the grid with halo.
    input: usize,
    /// Its first output.
    output: usize,
    /// Rows and columns of its inputs that lie inside the image, and the place of the first of them there.
    inside: [Range<usize>; 2],
    image: usize,
}

/// What one thread writes on: the tiles of a strip at their points, `[tile][block of channels][point][BLOCK]`, with a
/// gap from tile to tile.
#[derive(Debug, Default)]
pub(super) struct TileDesk {
    /// Inputs, or their gradients.
    inputs: Buffer,
    /// Products, or gradients of the outputs.
    outputs: Buffer,
    /// Gradient of the weights at every point.
    weights: Buffer,
}

impl TileDesk {
    /// Large enough for all of them.
    pub(super) fn new<'a>(all: impl Iterator<Item = &'a Tiled> + Clone) -> Self {
        let most = |size: fn(&Tiled) -> usize| Buffer::zeros(all.clone().map(size).max().unwrap_or(0));
        Self {
            inputs: most(|t| t.forward.pixels.len() * pitch(t.channels.0)),
            outputs: most(|t| t.forward.pixels.len() * pitch(t.channels.1)),
            weights: most(Tiled::weights),
        }
    }

    /// Begins the gradient of a weight.
    pub(super) fn reset(&mut self, tiled: &Tiled) {
        self.weights[..tiled.weights()].fill(0.0);
    }
}

/// Numbers from one tile to the next on a desk, for so many channels: one block more than there are, so that
/// consecutive tiles never compete for the same places of the cache.
fn pitch(channels: usize) -> usize {
    POINTS * channels + BLOCK
}

impl Tiled {
    /// Whether a convolution is computed in tiles. A single tile saves nothing: what the padding's zeros would be multiplied by is
    /// left out of the plain sum.
    pub(super) fn suits(conv: &Conv) -> bool {
        let ActivationShape { height, width, .. } = conv.output;
        let whole = height % OUT == 0 && width % OUT == 0 && height * width > OUT * OUT;
        conv.kernel == 3 && conv.stride == 1 && whole
    }

    /// `input` is one image in its halo.
    pub(super) fn new(conv: &Conv, chunk: usize, input: &Grid) -> Self {
        let (ActivationShape { height, width, channels: inputs }, output) = (conv.input, conv.output);
        // Which of a tile's inputs lie inside the image along one axis.
        let clip = |at: usize, size: usize| {
            let first = conv.padding.saturating_sub(at * OUT).min(SIDE);
            first..(size + conv.padding).saturating_sub(at * OUT).clamp(first, SIDE)
        };
        let mut tiles = Vec::new();
        for image in 0..chunk {
            for y in 0..output.height / OUT {
                for x in 0..output.width / OUT {
                    let inside = [clip(y, height), clip(x, width)];
                    let row = (y * OUT + inside[0].start).saturating_sub(conv.padding);
                    let column = (x * OUT + inside[1].start).saturating_sub(conv.padding);
                    tiles.push(Tile {
                        input: image * input.len() + input.outer(y * OUT, x * OUT),
                        output: ((image * output.height + y * OUT) * output.width + x * OUT) * output.channels,
                        image: ((image * height + row) * width + column) * inputs,
                        inside,
                    });
                }
            }
        }
        let strip = STRIP.min(tiles.len());
        Self {
            channels: (inputs, output.channels),
            per_image: tiles.len() / chunk,
            tiles,
            rows: [input.row(), width * inputs, output.width * output.channels],
            forward: Products::new(inputs, output.channels, strip),
            back: Products::new(output.channels, inputs, strip),
        }
    }

    /// Numbers of the weights at all points: `[point][block of outputs][input][BLOCK]`.
    pub(super) fn weights(&self) -> usize {
        POINTS * self.channels.0 * self.channels.1
    }

    fn strips(&self, images: usize) -> impl Iterator<Item = &[Tile]> {
        self.tiles[..images * self.per_image].chunks(STRIP)
    }

    /// The weights at all points with inputs and outputs exchanged: `[point][block of inputs][output][BLOCK]`.
    pub(super) fn transpose(&self, weights: &[f32], transposed: &mut [f32]) {
        let (inputs, outputs) = self.channels;
        let points = weights.chunks_exact(inputs * outputs).zip(transposed.chunks_exact_mut(inputs * outputs));
        points.for_each(|(from, to)| transpose(self.channels, from, inputs, to, outputs));
    }
}

/// Exchanges inputs and outputs of a matrix `[block of outputs][row][BLOCK]`, whose first rows are the inputs, into
/// `[block of inputs][row][BLOCK]`, whose first rows become the outputs.
pub(super) fn transpose(
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
type Square<S, const N: usize> = [[<S as Lanes>::Block; N]; N];

/// What is done along one axis of a square.
trait Along<const FROM: usize, const TO: usize> {
    /// From blocks in a row to those that stand in their place.
    fn along<S: Lanes>(s: S, from: [S::Block; FROM]) -> [S::Block; TO];
}

/// Bᵀ along one axis: what is multiplied at the points.
struct OfInputs;

impl Along<SIDE, SIDE> for OfInputs {
    #[inline(always)]
    fn along<S: Lanes>(s: S, d: [S::Block; SIDE]) -> [S::Block; SIDE] {
        let mut v = d;
        v[0] = s.sub(d[0], d[2]);
        v[1] = s.add(d[1], d[2]);
        v[2] = s.sub(d[2], d[1]);
        v[3] = s.sub(d[3], d[1]);
        v
    }
}

/// B along one axis: the gradient of the inputs.
struct ToInputs;

impl Along<SIDE, SIDE> for ToInputs {
    #[inline(always)]
    fn along<S: Lanes>(s: S, v: [S::Block; SIDE]) -> [S::Block; SIDE] {
        let mut d = v;
        d[1] = s.sub(s.sub(v[1], v[2]), v[3]);
        d[2] = s.sub(s.add(v[1], v[2]), v[0]);
        d
    }
}

/// Aᵀ along one axis: outputs from the products.
struct ToOutputs;

impl Along<SIDE, OUT> for ToOutputs {
    #[inline(always)]
    fn along<S: Lanes>(s: S, m: [S::Block; SIDE]) -> [S::Block; OUT] {
        [s.add(s.add(m[0], m[1]), m[2]), s.add(s.sub(m[1], m[2]), m[3])]
    }
}

/// A along one axis: what the gradient of the outputs is at the points.
struct OfOutputs;

impl Along<OUT, SIDE> for OfOutputs {
    #[inline(always)]
    fn along<S: Lanes>(s: S, y: [S::Block; OUT]) -> [S::Block; SIDE] {
        let mut e = [y[0]; SIDE];
        e[1] = s.add(y[0], y[1]);
        e[2] = s.sub(y[0], y[1]);
        e[3] = y[1];
        e
    }
}

/// G along one axis: the weights at the points.
struct OfWeights;

impl Along<3, SIDE> for OfWeights {
    #[inline(always)]
    fn along<S: Lanes>(s: S, g: [S::Block; 3]) -> [S::Block; SIDE] {
        let mut u = [g[1]; SIDE];
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
struct ToWeights;

impl Along<SIDE, 3> for ToWeights {
    #[inline(always)]
    fn along<S: Lanes>(s: S, u: [S::Block; SIDE]) -> [S::Block; 3] {
        let half = s.splat(0.5);
        let (sum, difference) = (s.mul(half, s.add(u[1], u[2])), s.mul(half, s.sub(u[1], u[2])));
        [s.add(u[0], sum), difference, s.add(sum, u[3])]
    }
}

/// Does it to all rows and then to all columns.
#[inline(always)]
fn both<S: Lanes, A: Along<FROM, TO>, const FROM: usize, const TO: usize>(
    s: S,
    square: Square<S, FROM>,
) -> Square<S, TO> {
    let mut rows = [[s.splat(0.0); TO]; FROM];
    for (row, from) in rows.iter_mut().zip(square) {
        *row = A::along(s, from);
    }
    let mut whole = [[s.splat(0.0); TO]; TO];
    for column in 0..TO {
        let mut from = [s.splat(0.0); FROM];
        for (x, row) in from.iter_mut().zip(&rows) {
            *x = row[column];
        }
        let made = A::along(s, from);
        for (row, x) in whole.iter_mut().zip(made) {
            row[column] = x;
        }
    }
    whole
}

/// What is made of the points, with zeros for what is no larger than their rounding. NaN and infinite numbers stay.
#[inline(always)]
fn above_rounding<S: Lanes, const N: usize>(s: S, points: &Square<S, SIDE>, mut made: Square<S, N>) -> Square<S, N> {
    let (mut size, part) = (s.splat(0.0), s.splat(PART));
    for point in points.as_flattened() {
        size = s.fma(s.abs(*point), part, size);
    }
    let rounding = s.mul(size, s.splat(ROUNDING / PART));
    for x in made.as_flattened_mut() {
        *x = s.select_greater(rounding, s.abs(*x), s.splat(0.0), *x);
    }
    made
}

/// Reads a square of blocks.
#[inline(always)]
fn load_square<S: Lanes, const N: usize>(s: S, data: &[f32], at: usize, row: usize, column: usize) -> Square<S, N> {
    let mut square = [[s.splat(0.0); N]; N];
    for (r, line) in square.iter_mut().enumerate() {
        for (c, x) in line.iter_mut().enumerate() {
            *x = s.load(block(data, at + r * row + c * column));
        }
    }
    square
}

/// Writes a square of blocks.
#[inline(always)]
fn store_square<S: Lanes, const N: usize>(
    s: S,
    square: Square<S, N>,
    data: &mut [f32],
    at: usize,
    row: usize,
    column: usize,
) {
    for (r, line) in square.into_iter().enumerate() {
        for (c, x) in line.into_iter().enumerate() {
            s.store(x, block_mut(data, at + r * row + c * column));
        }
    }
}

/// `sums += more`
#[inline(always)]
fn add_to<S: Lanes, const N: usize>(s: S, sums: &mut Square<S, N>, more: Square<S, N>) {
    for (sums, more) in sums.iter_mut().zip(more) {
        for (sum, more) in sums.iter_mut().zip(more) {
            *sum = s.add(*sum, more);
        }
    }
}

/// `to = G weights Gᵀ`, for every input and block of outputs.
pub(super) struct SpreadWeights<'a> {
    pub(super) tiled: &'a Tiled,
    /// `[block of outputs][kernel row, kernel column, input][BLOCK]`
    pub(super) weights: &'a [f32],
    pub(super) to: &'a mut [f32],
}

impl Kernel for SpreadWeights<'_> {
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let (inputs, outputs) = self.tiled.channels;
        let column = inputs * BLOCK;
        for at in 0..inputs * outputs / BLOCK {
            let from = (at / inputs * 9 * inputs + at % inputs) * BLOCK;
            let g = load_square::<S, 3>(s, self.weights, from, 3 * column, column);
            let u = both::<S, OfWeights, 3, SIDE>(s, g);
            store_square::<S, SIDE>(s, u, self.to, at * BLOCK, SIDE * inputs * outputs, inputs * outputs);
        }
    }
}

/// `weights += Gᵀ gradient G`
pub(super) struct GatherWeights<'a> {
    pub(super) tiled: &'a Tiled,
    pub(super) desk: &'a TileDesk,
    pub(super) weights: &'a mut [f32],
}

impl Kernel for GatherWeights<'_> {
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let (inputs, outputs) = self.tiled.channels;
        let column = inputs * BLOCK;
        for at in 0..inputs * outputs / BLOCK {
            let u =
                load_square::<S, SIDE>(s, &self.desk.weights, at * BLOCK, SIDE * inputs * outputs, inputs * outputs);
            let g = above_rounding(s, &u, both::<S, ToWeights, SIDE, 3>(s, u));
            let to = (at / inputs * 9 * inputs + at % inputs) * BLOCK;
            let mut sum = load_square::<S, 3>(s, self.weights, to, 3 * column, column);
            add_to(s, &mut sum, g);
            store_square::<S, 3>(s, sum, self.weights, to, 3 * column, column);
        }
    }
}

/// `output = start + Aᵀ[weights · Bᵀ input B]A` for the first images of a chunk.
pub(super) struct Forward<'a> {
    pub(super) tiled: &'a Tiled,
    pub(super) images: usize,
    /// With halo.
    pub(super) input: &'a [f32],
    /// At every point.
    pub(super) weights: &'a [f32],
    pub(super) start: Start<'a>,
    pub(super) output: &'a mut [f32],
    pub(super) desk: &'a mut TileDesk,
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let TileDesk { inputs, outputs, .. } = self.desk;
        for strip in self.tiled.strips(self.images) {
            spread_inputs(s, self.tiled, strip, self.input, inputs);
            self.tiled.forward.multiply(s, strip.len(), inputs, self.weights, outputs);
            gather_outputs(s, self.tiled, strip, outputs, self.start, self.output);
        }
    }
}

/// The backward pass for the first images of a chunk: adds to the gradients of the weights, on the desk, and of the
/// input.
pub(super) struct Backward<'a> {
    pub(super) tiled: &'a Tiled,
    pub(super) images: usize,
    /// With halo; none where the weights are not trained.
    pub(super) input: Option<&'a [f32]>,
    /// Gradient of the output.
    pub(super) gradient: &'a [f32],
    /// At every point, transposed.
    pub(super) weights: &'a [f32],
    /// Gradient of the input, without halo.
    pub(super) output: &'a mut [f32],
    pub(super) desk: &'a mut TileDesk,
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let tiled = self.tiled;
        let TileDesk { inputs, outputs, weights } = self.desk;
        for strip in tiled.strips(self.images) {
            spread_outputs(s, tiled, strip, self.gradient, outputs);
            if let Some(input) = self.input {
                let weights = &mut weights[..tiled.weights()];
                spread_inputs(s, tiled, strip, input, inputs);
                tiled.forward.add_gradients(s, strip.len(), inputs, outputs, weights);
            }
            tiled.back.multiply(s, strip.len(), outputs, self.weights, inputs);
            gather_inputs(s, tiled, strip, inputs, self.output);
        }
    }
}

/// `points = Bᵀ input B`
#[inline(always)]
fn spread_inputs<S: Lanes>(s: S, tiled: &Tiled, strip: &[Tile], input: &[f32], points: &mut [f32]) {
    let channels = tiled.channels.0;
    for (tile, points) in strip.iter().zip(points.chunks_exact_mut(pitch(channels))) {
        for (b, points) in points.chunks_exact_mut(POINTS * BLOCK).enumerate() {
            let d = load_square::<S, SIDE>(s, input, tile.input + b * BLOCK, tiled.rows[0], channels);
            let v = both::<S, OfInputs, SIDE, SIDE>(s, d);
            store_points(s, v, points);
        }
    }
}

/// `points = A gradient Aᵀ`
#[inline(always)]
fn spread_outputs<S: Lanes>(s: S, tiled: &Tiled, strip: &[Tile], gradient: &[f32], points: &mut [f32]) {
    let channels = tiled.channels.1;
    for (tile, points) in strip.iter().zip(points.chunks_exact_mut(pitch(channels))) {
        for (b, points) in points.chunks_exact_mut(POINTS * BLOCK).enumerate() {
            let y = load_square::<S, OUT>(s, gradient, tile.output + b * BLOCK, tiled.rows[2], channels);
            let e = both::<S, OfOutputs, OUT, SIDE>(s, y);
            store_points(s, e, points);
        }
    }
}

/// `output = start + Aᵀ points A`
#[inline(always)]
fn gather_outputs<S: Lanes>(s: S, tiled: &Tiled, strip: &[Tile], points: &[f32], start: Start<'_>, output: &mut [f32]) {
    let channels = tiled.channels.1;
    for (tile, points) in strip.iter().zip(points.chunks_exact(pitch(channels))) {
        for (b, points) in points.chunks_exact(POINTS * BLOCK).enumerate() {
            let m = load_points(s, points);
            let mut y = both::<S, ToOutputs, SIDE, OUT>(s, m);
            let at = tile.output + b * BLOCK;
            if let Start::From(from) = start {
                let from = load_square::<S, OUT>(s, from, at, tiled.rows[2], channels);
                add_to(s, &mut y, from);
            }
            store_square::<S, OUT>(s, y, output, at, tiled.rows[2], channels);
        }
    }
}

/// `output += B points Bᵀ`, tile after tile, where they lie inside the image.
#[inline(always)]
fn gather_inputs<S: Lanes>(s: S, tiled: &Tiled, strip: &[Tile], points: &[f32], output: &mut [f32]) {
    let channels = tiled.channels.0;
    for (tile, points) in strip.iter().zip(points.chunks_exact(pitch(channels))) {
        let [rows, columns] = &tile.inside;
        for (b, points) in points.chunks_exact(POINTS * BLOCK).enumerate() {
            let v = load_points(s, points);
            let d = above_rounding(s, &v, both::<S, ToInputs, SIDE, SIDE>(s, v));
            let at = tile.image + b * BLOCK;
            if rows.len() == SIDE && columns.len() == SIDE {
                let mut sum = load_square::<S, SIDE>(s, output, at, tiled.rows[1], channels);
                add_to(s, &mut sum, d);
                store_square::<S, SIDE>(s, sum, output, at, tiled.rows[1], channels);
                continue;
            }
            for (r, line) in d[rows.clone()].iter().enumerate() {
                for (c, x) in line[columns.clone()].iter().enumerate() {
                    let to = block_mut(output, at + r * tiled.rows[1] + c * channels);
                    s.store(s.add(s.load(to), *x), to);
                }
            }
        }
    }
}

/// Reads a tile's block of channels at its points.
#[inline(always)]
fn load_points<S: Lanes>(s: S, points: &[f32]) -> Square<S, SIDE> {
    load_square::<S, SIDE>(s, &points[..POINTS * BLOCK], 0, SIDE * BLOCK, BLOCK)
}

/// Writes them.
#[inline(always)]
fn store_points<S: Lanes>(s: S, square: Square<S, SIDE>, points: &mut [f32]) {
    store_square::<S, SIDE>(s, square, &mut points[..POINTS * BLOCK], 0, SIDE * BLOCK, BLOCK);
}

impl Products {
    fn new(from: usize, to: usize, tiles: usize) -> Self {
        let pixels = (0..tiles).map(|at| Pixel { input: at * pitch(from), output: at * pitch(to) });
        let runs =
            (0..from / BLOCK).map(|block| Tap { input: block * POINTS * BLOCK, rows: BLOCK, weight: block * BLOCK });
        Self { from, to, pixels: pixels.collect(), runs: runs.collect() }
    }

    /// `to = from · weights` at every point.
    #[inline(always)]
    fn multiply<S: Lanes>(&self, s: S, tiles: usize, from: &[f32], weights: &[f32], to: &mut [f32]) {
        for (point, weights) in weights.chunks_exact(self.from * self.to).enumerate() {
            Taps {
                input: &from[point * BLOCK..],
                weights,
                rows: self.from,
                taps: &self.runs,
                pixels: &self.pixels[..tiles],
                blocks: self.to / BLOCK,
                spacing: POINTS * BLOCK,
                start: Start::Zero,
                output: &mut to[point * BLOCK..],
            }
            .run(s);
        }
    }

    /// `weights += from · to` at every point, summed over the tiles.
    #[inline(always)]
    fn add_gradients<S: Lanes>(&self, s: S, tiles: usize, from: &[f32], to: &[f32], weights: &mut [f32]) {
        for (point, weights) in weights.chunks_exact_mut(self.from * self.to).enumerate() {
            WeightGradient {
                input: &from[point * BLOCK..],
                gradient: &to[point * BLOCK..],
                taps: &self.runs,
                pixels: &self.pixels[..tiles],
                blocks: self.to / BLOCK,
                spacing: POINTS * BLOCK,
                weights,
                rows: self.from,
            }
            .run(s);
        }
    }
}
