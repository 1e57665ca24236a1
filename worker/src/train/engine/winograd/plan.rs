//! The tiles of a convolution, and the matrix products at their points.

use std::ops::Range;

use ergodic_common::net::ActivationShape;

use super::super::direct_conv::{ConvTap, DirectConvKernel, InitialSum, PixelOffsets};
use super::super::simd::{BLOCK, Kernel, Simd16};
use super::super::weight_grad::WeightGradientKernel;
use crate::train::network::shape::{ConvShape, HaloGrid};

/// Outputs along each side of a tile.
pub(crate) const TILE_OUTPUTS: usize = 2;

/// Inputs, and points, along each side of a tile.
pub(crate) const TILE_SIDE: usize = 4;

/// Points of a tile.
pub(crate) const TILE_POINTS: usize = TILE_SIDE * TILE_SIDE;

/// Tiles in a strip, which is computed as a whole, so that a point's weights are used often and the products stay in the cache.
const STRIP_TILES: usize = 32;

/// The tiles of a convolution.
#[derive(Debug)]
pub(crate) struct WinogradPlan {
    /// Numbers per pixel of the input, and of the output.
    pub(crate) channels: (usize, usize),
    /// The tiles of a chunk of images, one image after the other.
    pub(crate) tiles: Vec<WinogradTile>,
    pub(crate) tiles_per_image: usize,
    /// Numbers in a row of the input with halo, of the input, and of the output.
    pub(crate) row_lens: [usize; 3],
    /// The products from inputs to outputs.
    pub(crate) forward: PointwiseProduct,
    /// The products from output gradients to input gradients.
    pub(crate) backward: PointwiseProduct,
}

/// The matrix product that the points of a strip of tiles are taken through.
#[derive(Debug)]
pub(crate) struct PointwiseProduct {
    /// Channels before and after the product.
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Offsets of each tile of a strip.
    pub(crate) pixels: Vec<PixelOffsets>,
    /// The runs of inputs: blocks of channels.
    pub(crate) taps: Vec<ConvTap>,
}

/// The offsets of a tile in a chunk.
#[derive(Debug)]
pub(crate) struct WinogradTile {
    /// Offset of the first input, in the grid with halo.
    pub(crate) input_offset: usize,
    /// Offset of the first output.
    pub(crate) output_offset: usize,
    /// Rows and columns of the inputs that lie inside the image.
    pub(crate) inside: [Range<usize>; 2],
    /// Offset of the first of these, in the grid without halo.
    pub(crate) image_offset: usize,
}

impl WinogradTile {
    /// The tile in row `y` and column `x` of tiles of an image.
    fn new(conv: &ConvShape, input: &HaloGrid, image: usize, y: usize, x: usize) -> Self {
        let ActivationShape {
            height,
            width,
            channels,
        } = conv.input;
        let output = conv.output;
        let rows = inside_image(y * TILE_OUTPUTS, height, conv.padding);
        let columns = inside_image(x * TILE_OUTPUTS, width, conv.padding);
        let first_row = (y * TILE_OUTPUTS + rows.start).saturating_sub(conv.padding);
        let first_column = (x * TILE_OUTPUTS + columns.start).saturating_sub(conv.padding);
        let output_row = image * output.height + y * TILE_OUTPUTS;

        Self {
            input_offset: image * input.len()
                + input.pixel_offset(y * TILE_OUTPUTS, x * TILE_OUTPUTS),
            output_offset: (output_row * output.width + x * TILE_OUTPUTS) * output.channels,
            image_offset: ((image * height + first_row) * width + first_column) * channels,
            inside: [rows, columns],
        }
    }
}

/// The inputs of a tile that lie inside the image, along an axis of `size` inputs. The first output
/// of the tile is at `corner`.
fn inside_image(corner: usize, size: usize, padding: usize) -> Range<usize> {
    let first = padding.saturating_sub(corner).min(TILE_SIDE);
    let end = (size + padding).saturating_sub(corner);
    first..end.clamp(first, TILE_SIDE)
}

/// Numbers from one tile to the next in a workspace, for `channels` channels: one block more than there are, so that
/// consecutive tiles never compete for the same cache lines.
pub(crate) fn tile_pitch(channels: usize) -> usize {
    TILE_POINTS * channels + BLOCK
}

impl WinogradPlan {
    /// Whether to compute a convolution in tiles. A single tile saves nothing, because the plain
    /// sum skips the products with the padding's zeros.
    pub(crate) fn is_suitable_for(conv: &ConvShape) -> bool {
        let ActivationShape { height, width, .. } = conv.output;
        let whole = height % TILE_OUTPUTS == 0
            && width % TILE_OUTPUTS == 0
            && height * width > TILE_OUTPUTS * TILE_OUTPUTS;
        conv.kernel == 3 && conv.stride == 1 && whole
    }

    /// The tiles of `chunk` images, each of which is in a halo as `input` describes.
    pub(crate) fn new(conv: &ConvShape, chunk: usize, input: &HaloGrid) -> Self {
        let output = conv.output;
        let inputs = conv.input.channels;
        let rows = output.height / TILE_OUTPUTS;
        let columns = output.width / TILE_OUTPUTS;
        let tiles: Vec<_> = (0..chunk)
            .flat_map(|image| (0..rows).map(move |y| (image, y)))
            .flat_map(|(image, y)| (0..columns).map(move |x| (image, y, x)))
            .map(|(image, y, x)| WinogradTile::new(conv, input, image, y, x))
            .collect();

        let strip = STRIP_TILES.min(tiles.len());
        Self {
            channels: (inputs, output.channels),
            tiles_per_image: tiles.len() / chunk,
            tiles,
            row_lens: [
                input.row_len(),
                conv.input.width * inputs,
                output.width * output.channels,
            ],
            forward: PointwiseProduct::new(inputs, output.channels, strip),
            backward: PointwiseProduct::new(output.channels, inputs, strip),
        }
    }

    /// Numbers of a strip of tiles at their points.
    pub(crate) fn strip_len(&self, channels: usize) -> usize {
        self.forward.pixels.len() * tile_pitch(channels)
    }

    /// Numbers of the weights at all points: `[point][block of outputs][input][BLOCK]`.
    pub(crate) fn weight_len(&self) -> usize {
        TILE_POINTS * self.channels.0 * self.channels.1
    }

    pub(crate) fn tile_strips(&self, images: usize) -> impl Iterator<Item = &[WinogradTile]> {
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
    pub(crate) fn multiply_points<S: Simd16>(
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
    pub(crate) fn add_weight_gradients<S: Simd16>(
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

#[cfg(test)]
mod tests {
    use crate::train::engine::winograd::plan::*;

    /// A single tile would cost more than the plain sum.
    #[test]
    fn convolutions_of_several_whole_tiles_are_computed_in_tiles() {
        let shape = |height, width| ActivationShape {
            height,
            width,
            channels: 16,
        };
        let is_tiled = |kernel, stride, height, width| {
            WinogradPlan::is_suitable_for(&ConvShape {
                kernel,
                stride,
                padding: kernel / 2,
                input: shape(height * stride, width * stride),
                output: shape(height, width),
            })
        };

        for [height, width] in [[2, 4], [4, 2], [4, 4], [6, 10], [32, 32]] {
            assert!(is_tiled(3, 1, height, width), "{height}×{width}");
            // Under stride 2, and for other kernels, nothing is gained.
            assert!(!is_tiled(3, 2, height, width));
            assert!(!is_tiled(1, 1, height, width) && !is_tiled(5, 1, height, width));
        }

        for [height, width] in [[2, 2], [1, 1], [1, 4], [2, 3], [3, 4], [5, 5]] {
            assert!(!is_tiled(3, 1, height, width), "{height}×{width}");
        }
    }
}
