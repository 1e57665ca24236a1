//! The kernel behind weight gradients: a tile of weight rows × one block of output channels stays in registers while
//! the sum runs sequentially over the pixels of a chunk of images, or the tiles of a strip; one after the other is added to the
//! gradient.

use super::direct_conv::{ConvTap, PixelOffsets};
use super::simd::{BLOCK, Kernel, Simd16, block_at, block_at_mut};

/// Longest run that is cut into tiles of half a block.
const MAX_SHORT_RUN: usize = 16 * BLOCK;

/// `weights[row] += Σ over pixels of input[pixel, row] · gradient[pixel]`
pub(crate) struct WeightGradientKernel<'a> {
    pub(crate) input: &'a [f32],
    /// Gradient of the outputs.
    pub(crate) output_gradient: &'a [f32],
    /// Runs of weight rows and the inputs that they read.
    pub(crate) taps: &'a [ConvTap],
    /// Offsets of each output pixel: of its inputs, and (as `output`) of its gradient.
    pub(crate) pixels: &'a [PixelOffsets],
    /// Blocks of output channels, and numbers from one to the next in the gradient.
    pub(crate) blocks: usize,
    pub(crate) block_stride: usize,
    /// `[block of outputs][row][BLOCK]`, and how many rows.
    pub(crate) weight_gradient: &'a mut [f32],
    pub(crate) rows: usize,
}

impl Kernel for WeightGradientKernel<'_> {
    /// Computes tiles of rows × blocks. With 16 registers and two per block, 12 hold sums; with 32
    /// and one per block, 24 do, or 16 if runs are short and come in blocks.
    #[inline(always)]
    fn run_with<S: Simd16>(mut self, s: S) {
        let mut block = 0;
        if S::WIDE
            && self
                .taps
                .iter()
                .all(|tap| tap.rows % BLOCK == 0 && tap.rows <= MAX_SHORT_RUN)
        {
            while block + 2 <= self.blocks {
                self.compute_rows::<S, 8, 2>(s, block);
                block += 2;
            }

            if block < self.blocks {
                self.compute_rows::<S, 16, 1>(s, block);
            }
        } else if S::WIDE {
            while block + 2 <= self.blocks {
                self.compute_rows::<S, 12, 2>(s, block);
                block += 2;
            }

            if block < self.blocks {
                self.compute_rows::<S, 24, 1>(s, block);
            }
        } else {
            while block < self.blocks {
                self.compute_rows::<S, 6, 1>(s, block);
                block += 1;
            }
        }
    }
}

impl WeightGradientKernel<'_> {
    /// Computes all rows for the `B` blocks from `block` on.
    #[inline(always)]
    fn compute_rows<S: Simd16, const R: usize, const B: usize>(&mut self, s: S, block: usize) {
        for tap in self.taps {
            let first = tap.first_weight_row;
            let mut done = 0;
            while tap.rows - done >= R {
                self.compute_tile::<S, R, B>(s, tap.input_offset + done, first + done, block);
                done += R;
            }

            while tap.rows - done >= 6 {
                self.compute_tile::<S, 6, B>(s, tap.input_offset + done, first + done, block);
                done += 6;
            }

            match tap.rows - done {
                5 => self.compute_tile::<S, 5, B>(s, tap.input_offset + done, first + done, block),
                4 => self.compute_tile::<S, 4, B>(s, tap.input_offset + done, first + done, block),
                3 => self.compute_tile::<S, 3, B>(s, tap.input_offset + done, first + done, block),
                2 => self.compute_tile::<S, 2, B>(s, tap.input_offset + done, first + done, block),
                1 => self.compute_tile::<S, 1, B>(s, tap.input_offset + done, first + done, block),
                _ => {}
            }
        }
    }

    /// Computes the `R` rows from `row` on, whose inputs are `offset` numbers after each pixel's
    /// first one.
    #[inline(always)]
    fn compute_tile<S: Simd16, const R: usize, const B: usize>(
        &mut self,
        s: S,
        offset: usize,
        row: usize,
        first: usize,
    ) {
        let mut sums = [[s.splat(0.0); B]; R];
        let input = &self.input[offset..];
        let gradient = &self.output_gradient[first * self.block_stride..];

        for pixel in self.pixels {
            let x: &[f32; R] = input[pixel.input..pixel.input + R]
                .first_chunk()
                .expect("the slice has this length");
            let mut d = [s.splat(0.0); B];
            for (b, d) in d.iter_mut().enumerate() {
                *d = s.load(block_at(gradient, pixel.output + b * self.block_stride));
            }

            for r in 0..R {
                let x = s.splat(x[r]);
                for b in 0..B {
                    sums[r][b] = s.fma(x, d[b], sums[r][b]);
                }
            }
        }

        for (r, sums) in sums.into_iter().enumerate() {
            for (b, sum) in sums.into_iter().enumerate() {
                let w = block_at_mut(
                    self.weight_gradient,
                    ((first + b) * self.rows + row + r) * BLOCK,
                );
                s.store(s.add(s.load(w), sum), w);
            }
        }
    }
}
