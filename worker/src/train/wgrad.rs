//! The kernel behind weight gradients: a tile of weight rows × one block of output channels stays in registers while
//! the sum runs sequentially over the pixels of a chunk of images; chunk after chunk is added to the gradient.

use super::simd::{BLOCK, Kernel, Lanes, block, block_mut};
use super::taps::{Pixel, Tap};

/// `weights[row] += Σ over pixels of input[pixel, row] · gradient[pixel]`
pub(super) struct WeightGradient<'a> {
    pub(super) input: &'a [f32],
    /// Gradient of the outputs.
    pub(super) gradient: &'a [f32],
    pub(super) taps: &'a [Tap],
    /// Where each output pixel reads its inputs, and where (as `output`) its gradient stands.
    pub(super) pixels: &'a [Pixel],
    /// Blocks of output channels.
    pub(super) blocks: usize,
    /// `[block of outputs][row of all taps][BLOCK]`
    pub(super) weights: &'a mut [f32],
}

/// Rows of a tile: with two registers a block, 12 of 16 hold sums.
const TILE: usize = 6;

impl Kernel for WeightGradient<'_> {
    #[inline(always)]
    fn run<S: Lanes>(mut self, s: S) {
        let rows: usize = self.taps.iter().map(|t| t.rows).sum();
        let mut first = 0;
        for tap in self.taps {
            let mut done = 0;
            while tap.rows - done >= TILE {
                self.tiles::<S, TILE>(s, tap.input + done, first + done, rows);
                done += TILE;
            }
            match tap.rows - done {
                5 => self.tiles::<S, 5>(s, tap.input + done, first + done, rows),
                4 => self.tiles::<S, 4>(s, tap.input + done, first + done, rows),
                3 => self.tiles::<S, 3>(s, tap.input + done, first + done, rows),
                2 => self.tiles::<S, 2>(s, tap.input + done, first + done, rows),
                1 => self.tiles::<S, 1>(s, tap.input + done, first + done, rows),
                _ => {}
            }
            first += tap.rows;
        }
    }
}

impl WeightGradient<'_> {
    /// The `R` rows from `row` on, whose inputs stand at `offset` from each pixel's, for all output channels.
    #[inline(always)]
    fn tiles<S: Lanes, const R: usize>(&mut self, s: S, offset: usize, row: usize, rows: usize) {
        for b in 0..self.blocks {
            let sums = self.tile::<S, R>(s, offset, b * BLOCK);
            for (r, sum) in sums.into_iter().enumerate() {
                let w = block_mut(self.weights, (b * rows + row + r) * BLOCK);
                s.store(s.add(s.load(w), sum), w);
            }
        }
    }

    #[inline(always)]
    fn tile<S: Lanes, const R: usize>(&self, s: S, offset: usize, channel: usize) -> [S::Block; R] {
        let mut sums = [s.splat(0.0); R];
        let input = &self.input[offset..];
        let gradient = &self.gradient[channel..];
        for pixel in self.pixels {
            let x: &[f32; R] = input[pixel.input..pixel.input + R].first_chunk().expect("the slice has this length");
            let d = s.load(block(gradient, pixel.output));
            for r in 0..R {
                sums[r] = s.fma(s.splat(x[r]), d, sums[r]);
            }
        }
        sums
    }
}
