//! The kernel behind convolutions, their input gradients and linear layers: every output pixel is a sum over *taps*,
//! runs of consecutive input numbers, each multiplied by one row of weights.
//!
//! A tile of pixels × one block of output channels stays in registers while the sum runs sequentially over all rows,
//! so a result does not depend on how pixels are tiled.

use super::simd::{BLOCK, Kernel, Lanes, block_mut};

/// A run of consecutive inputs, at an offset from a pixel's first one, and as many rows of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tap {
    /// Offset from a pixel's `input`.
    pub(super) input: usize,
    /// Length of the run.
    pub(super) rows: usize,
}

/// Where an output pixel reads and writes, relative to its chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pixel {
    pub(super) input: usize,
    pub(super) output: usize,
}

/// `output[pixel] = Σ input[pixel, tap, row] · weights[row]`
pub(super) struct Taps<'a> {
    pub(super) input: &'a [f32],
    /// `[block of outputs][row of all taps][BLOCK]`
    pub(super) weights: &'a [f32],
    pub(super) taps: &'a [Tap],
    pub(super) pixels: &'a [Pixel],
    /// Blocks of output channels.
    pub(super) blocks: usize,
    pub(super) output: &'a mut [f32],
}

/// Pixels of a tile: with two registers a block, 12 of 16 hold sums.
const TILE: usize = 6;

impl Kernel for Taps<'_> {
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Self { input, weights, taps, pixels, blocks, output } = self;
        let rows: usize = taps.iter().map(|t| t.rows).sum();
        let (tiles, rest) = pixels.as_chunks::<TILE>();
        let weights = weights.as_chunks::<BLOCK>().0;
        for b in 0..blocks {
            let weights = &weights[b * rows..(b + 1) * rows];
            let mut out = Output { at: b * BLOCK, output: &mut *output };
            for pixels in tiles {
                out.store(s, pixels, tile(s, input, weights, taps, pixels));
            }
            out.rest(s, input, weights, taps, rest);
        }
    }
}

struct Output<'a> {
    at: usize,
    output: &'a mut [f32],
}

impl Output<'_> {
    #[inline(always)]
    fn store<S: Lanes, const P: usize>(&mut self, s: S, pixels: &[Pixel; P], sums: [S::Block; P]) {
        for p in 0..P {
            s.store(sums[p], block_mut(self.output, pixels[p].output + self.at));
        }
    }

    #[inline(always)]
    fn rest<S: Lanes>(&mut self, s: S, input: &[f32], weights: &[[f32; BLOCK]], taps: &[Tap], pixels: &[Pixel]) {
        let (four, rest) = pixels.as_chunks::<4>();
        for pixels in four {
            self.store(s, pixels, tile(s, input, weights, taps, pixels));
        }
        let (two, rest) = rest.as_chunks::<2>();
        for pixels in two {
            self.store(s, pixels, tile(s, input, weights, taps, pixels));
        }
        for pixel in rest {
            let pixels = &[*pixel];
            self.store(s, pixels, tile(s, input, weights, taps, pixels));
        }
    }
}

#[inline(always)]
fn tile<S: Lanes, const P: usize>(
    s: S,
    input: &[f32],
    weights: &[[f32; BLOCK]],
    taps: &[Tap],
    pixels: &[Pixel; P],
) -> [S::Block; P] {
    let mut sums = [s.splat(0.0); P];
    let mut weights = weights;
    for tap in taps {
        let (now, later) = weights.split_at(tap.rows);
        weights = later;
        let mut runs: [&[f32]; P] = [&[]; P];
        for p in 0..P {
            runs[p] = &input[pixels[p].input + tap.input..][..now.len()];
        }
        for row in 0..now.len() {
            let w = s.load(&now[row]);
            for p in 0..P {
                sums[p] = s.fma(s.splat(runs[p][row]), w, sums[p]);
            }
        }
    }
    sums
}
