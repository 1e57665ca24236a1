//! Pooling of activations, and its backward pass.

use ergodic_common::net::Pool;

use super::activation::{ActivatedKernel, ActivationFn, run_for_activation};
use super::norm::{ChannelCoefficients, LoadedCoefficients};
use super::simd::{BLOCK, Kernel, Simd16, block_at, block_at_mut};
use crate::train::network::shape::HaloGrid;

/// The activations that a pool reads.
#[derive(Clone, Copy)]
pub(crate) struct PoolInput<'a> {
    /// Outputs z of the images' linear map.
    pub(crate) z: &'a [f32],
    pub(crate) coefficients: &'a ChannelCoefficients,
    /// Pixels of an image, and pixels of a row.
    pub(crate) pixels: usize,
    pub(crate) width: usize,
    pub(crate) pool: Pool,
    /// The first image and the number of images; z begins with the first.
    pub(crate) first: usize,
    pub(crate) images: usize,
}

impl PoolInput<'_> {
    fn image_len(&self) -> usize {
        self.pixels * self.coefficients.padded_channels()
    }

    /// Whether the pool takes means.
    fn is_average(&self) -> bool {
        matches!(self.pool, Pool::Average | Pool::Average2)
    }

    /// Number of pixels that are pooled into one.
    fn window_area(&self) -> usize {
        if self.pool == Pool::Average {
            self.pixels
        } else {
            4
        }
    }

    /// Number of pixels per image after pooling.
    fn pooled_pixels(&self) -> usize {
        if self.pool == Pool::Average {
            1
        } else {
            self.pixels / self.width / 2 * (self.width / 2)
        }
    }

    /// Offsets within an image of the pixels that one pooled pixel reads, row by row.
    fn window_offsets(&self, pooled: usize) -> impl Iterator<Item = usize> + use<> {
        let width = self.width;
        let channels = self.coefficients.padded_channels();
        let (across, side) = if self.pool == Pool::Average {
            (1, width)
        } else {
            (width / 2, 2)
        };
        let y = pooled / across * side;
        let x = pooled % across * side;
        (0..self.window_area()).map(move |i| ((y + i / side) * width + x + i % side) * channels)
    }
}

/// Writes pooled activations into the grid that the next layer reads.
pub(crate) struct PooledActivationKernel<'a> {
    pub(crate) input: PoolInput<'a>,
    pub(crate) grid: HaloGrid,
    pub(crate) output: &'a mut [f32],
}

impl Kernel for PooledActivationKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        run_for_activation(s, self.input.coefficients.activation, self);
    }
}

impl ActivatedKernel for PooledActivationKernel<'_> {
    #[inline(always)]
    fn run_for<S: Simd16, A: ActivationFn>(self, s: S) {
        let width = self.input.coefficients.padded_channels();
        let share = s.splat(1.0 / self.input.window_area() as f32);

        for image in 0..self.input.images {
            let z = &self.input.z[image * self.input.image_len()..][..self.input.image_len()];
            for (from, to, len) in self.grid.contiguous_runs() {
                let out = &mut self.output[image * self.grid.len() + to..][..len];
                for b in (0..width).step_by(BLOCK) {
                    let channels = LoadedCoefficients::new(
                        s,
                        self.input.coefficients,
                        self.input.first + image,
                        b,
                    );

                    for at in (0..len).step_by(width) {
                        let pooled = (from + at) / width;
                        let y =
                            pool_window::<S, A>(s, &self.input, &channels, (z, pooled, b), share);
                        s.store(y, block_at_mut(out, at + b));
                    }
                }
            }
        }
    }
}

/// Pools the window of one pixel of a block of channels, from z of its image. `share` is 1 over the
/// pixels in a window.
#[inline(always)]
fn pool_window<S: Simd16, A: ActivationFn>(
    s: S,
    input: &PoolInput<'_>,
    channels: &LoadedCoefficients<S::Block>,
    (z, pooled, b): (&[f32], usize, usize),
    share: S::Block,
) -> S::Block {
    let zero = s.splat(0.0);
    let mut y = zero;
    for (i, member) in input.window_offsets(pooled).enumerate() {
        let other = channels.compute_activation::<S, A>(s, s.load(block_at(z, member + b)));
        y = match input.pool {
            _ if i == 0 => other,
            Pool::Average | Pool::Average2 => s.add(y, other),
            // Adds 0·other, because the comparison alone would drop a NaN.
            _ => s.fma(zero, other, s.select_greater(other, y, other, y)),
        };
    }

    if input.is_average() {
        s.mul(share, y)
    } else {
        y
    }
}

/// Propagates the gradient of pooled activations back to the activations: to the first of the
/// largest ones, or to all in equal shares.
pub(crate) struct UnpoolKernel<'a> {
    pub(crate) input: PoolInput<'a>,
    pub(crate) pooled_gradient: &'a [f32],
    pub(crate) gradient: &'a mut [f32],
}

impl Kernel for UnpoolKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        run_for_activation(s, self.input.coefficients.activation, self);
    }
}

impl ActivatedKernel for UnpoolKernel<'_> {
    #[inline(always)]
    fn run_for<S: Simd16, A: ActivationFn>(self, s: S) {
        let Self {
            input: to,
            pooled_gradient: pooled,
            gradient,
        } = self;
        let width = to.coefficients.padded_channels();
        let len = to.image_len();
        let count = to.pooled_pixels();

        for image in 0..to.images {
            let z = &to.z[image * len..][..len];
            let out = &mut gradient[image * len..][..len];
            let pooled = &pooled[image * count * width..][..count * width];

            for b in (0..width).step_by(BLOCK) {
                let channels = LoadedCoefficients::new(s, to.coefficients, to.first + image, b);
                for pixel in 0..count {
                    let g = s.load(block_at(pooled, pixel * width + b));
                    match to.pool {
                        Pool::Average | Pool::Average2 => {
                            spread_average_gradient(s, to.window_offsets(pixel), b, g, out)
                        }
                        _ => route_max_gradient::<S, A>(s, to, &channels, (z, pixel, b), g, out),
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn spread_average_gradient<S: Simd16>(
    s: S,
    members: impl Iterator<Item = usize>,
    b: usize,
    g: S::Block,
    out: &mut [f32],
) {
    let count = members.size_hint().0;
    let g = s.mul(s.splat(1.0 / count as f32), g);
    for member in members {
        s.store(g, block_at_mut(out, member + b));
    }
}

#[inline(always)]
fn route_max_gradient<S: Simd16, A: ActivationFn>(
    s: S,
    to: PoolInput<'_>,
    channels: &LoadedCoefficients<S::Block>,
    (z, pixel, b): (&[f32], usize, usize),
    g: S::Block,
    out: &mut [f32],
) {
    let zero = s.splat(0.0);
    let mut largest = zero;
    let mut before: [Option<usize>; 4] = [None; 4];

    for (i, member) in to.window_offsets(pixel).enumerate() {
        let y = channels.compute_activation::<S, A>(s, s.load(block_at(z, member + b)));

        if i == 0 {
            largest = y;
            s.store(g, block_at_mut(out, member + b));
        } else {
            s.store(
                s.select_greater(y, largest, g, zero),
                block_at_mut(out, member + b),
            );

            for earlier in before.iter().flatten() {
                let cell = block_at_mut(out, earlier + b);
                s.store(s.select_greater(y, largest, zero, s.load(cell)), cell);
            }

            largest = s.select_greater(y, largest, y, largest);
        }

        before[i] = Some(member);
    }
}
