//! The kernel behind convolutions, their input gradients and linear layers: every output pixel is a sum over *taps*,
//! runs of consecutive input numbers, each multiplied by one row of weights.
//!
//! A tile of pixels × one block of output channels stays in registers while the sum runs sequentially over all rows,
//! so a result does not depend on how pixels are tiled.

use super::simd::{BLOCK, Kernel, Simd16, block_at, block_at_mut};

/// A run of consecutive inputs, at an offset from a pixel's first one, and as many rows of weights from one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConvTap {
    /// Offset from a pixel's `input`.
    pub(crate) input_offset: usize,
    /// Length of the run, in inputs and in rows of weights.
    pub(crate) rows: usize,
    /// The first row of weights.
    pub(crate) first_weight_row: usize,
}

/// Offsets of an output pixel, in the input and in the output of its chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PixelOffsets {
    pub(crate) input: usize,
    pub(crate) output: usize,
}

/// The initial value of a sum.
#[derive(Debug, Clone, Copy)]
pub(crate) enum InitialSum<'a> {
    /// The sum starts at 0.
    Zero,
    /// The sum starts at the present value of the output.
    Output,
    /// The sum starts at the value in a buffer that is laid out like the output.
    Buffer(&'a [f32]),
}

/// `output[pixel] = start + Σ input[pixel, tap, row] · weights[row]`
pub(crate) struct DirectConvKernel<'a> {
    pub(crate) input: &'a [f32],
    /// `[block of outputs][row][BLOCK]`, and how many rows.
    pub(crate) weights: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) taps: &'a [ConvTap],
    pub(crate) pixels: &'a [PixelOffsets],
    /// Blocks of output channels, and numbers from one to the next in the output.
    pub(crate) blocks: usize,
    pub(crate) block_stride: usize,
    pub(crate) initial_sum: InitialSum<'a>,
    pub(crate) output: &'a mut [f32],
}

impl Kernel for DirectConvKernel<'_> {
    /// Computes tiles of pixels × blocks. With 16 registers and two per block, 12 hold sums; with
    /// 32 and one per block, 16 do, and every input is used for two blocks.
    #[inline(always)]
    fn run_with<S: Simd16>(mut self, s: S) {
        let mut block = 0;
        if S::WIDE {
            while block + 2 <= self.blocks {
                self.compute_pixels::<S, 8, 2>(s, block);
                block += 2;
            }

            if block < self.blocks {
                self.compute_pixels::<S, 16, 1>(s, block);
            }
        } else {
            while block < self.blocks {
                self.compute_pixels::<S, 6, 1>(s, block);
                block += 1;
            }
        }
    }
}

impl DirectConvKernel<'_> {
    /// Computes all pixels for the `B` blocks from `block` on.
    #[inline(always)]
    fn compute_pixels<S: Simd16, const P: usize, const B: usize>(&mut self, s: S, block: usize) {
        // Loops rather than `for_each`, whose closure would be compiled without the instruction
        // set.
        let (tiles, rest) = self.pixels.as_chunks::<P>();
        for pixels in tiles {
            self.compute_tile::<S, P, B>(s, block, pixels);
        }

        let (eight, rest) = rest.as_chunks::<8>();
        for pixels in eight {
            self.compute_tile::<S, 8, B>(s, block, pixels);
        }

        let (four, rest) = rest.as_chunks::<4>();
        for pixels in four {
            self.compute_tile::<S, 4, B>(s, block, pixels);
        }

        let (two, rest) = rest.as_chunks::<2>();
        for pixels in two {
            self.compute_tile::<S, 2, B>(s, block, pixels);
        }

        for pixel in rest {
            self.compute_tile::<S, 1, B>(s, block, &[*pixel]);
        }
    }

    #[inline(always)]
    fn compute_tile<S: Simd16, const P: usize, const B: usize>(
        &mut self,
        s: S,
        block: usize,
        pixels: &[PixelOffsets; P],
    ) {
        let mut sums = self.load_initial_sums::<S, P, B>(s, block, pixels);
        let weights = self.weights.as_chunks::<BLOCK>().0;

        for tap in self.taps {
            let mut columns: [&[[f32; BLOCK]]; B] = [&[]; B];
            for b in 0..B {
                columns[b] = &weights[(block + b) * self.rows + tap.first_weight_row..][..tap.rows];
            }

            let mut runs: [&[f32]; P] = [&[]; P];
            for p in 0..P {
                runs[p] = &self.input[pixels[p].input + tap.input_offset..][..tap.rows];
            }

            for row in 0..tap.rows {
                let mut w = [s.splat(0.0); B];
                for b in 0..B {
                    w[b] = s.load(&columns[b][row]);
                }

                for p in 0..P {
                    let x = s.splat(runs[p][row]);
                    for b in 0..B {
                        sums[p][b] = s.fma(x, w[b], sums[p][b]);
                    }
                }
            }
        }

        for (pixel, sums) in pixels.iter().zip(sums) {
            for (b, sum) in sums.into_iter().enumerate() {
                s.store(
                    sum,
                    block_at_mut(self.output, pixel.output + (block + b) * self.block_stride),
                );
            }
        }
    }

    #[inline(always)]
    fn load_initial_sums<S: Simd16, const P: usize, const B: usize>(
        &self,
        s: S,
        first: usize,
        pixels: &[PixelOffsets; P],
    ) -> [[S::Block; B]; P] {
        let mut sums = [[s.splat(0.0); B]; P];
        let from = match self.initial_sum {
            InitialSum::Zero => return sums,
            InitialSum::Output => &*self.output,
            InitialSum::Buffer(from) => from,
        };

        for (pixel, sums) in pixels.iter().zip(&mut sums) {
            for (b, sum) in sums.iter_mut().enumerate() {
                *sum = s.load(block_at(
                    from,
                    pixel.output + (first + b) * self.block_stride,
                ));
            }
        }

        sums
    }
}
