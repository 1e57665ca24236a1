//! Activations seen through a pool, and the way back.

use ergodic_common::net::Pool;

use super::norm::{Channels, Loaded};
use super::plan::Grid;
use super::simd::{BLOCK, Kernel, Lanes, block, block_mut};

/// An activation in front of its pool.
#[derive(Clone, Copy)]
pub(super) struct Pooled<'a> {
    /// z of the images.
    pub(super) z: &'a [f32],
    pub(super) channels: &'a Channels,
    /// Pixels of an image, and in a row of it.
    pub(super) pixels: usize,
    pub(super) width: usize,
    pub(super) pool: Pool,
    /// The first image, and how many; z begins with it.
    pub(super) first: usize,
    pub(super) images: usize,
}

impl Pooled<'_> {
    fn image_len(&self) -> usize {
        self.pixels * self.channels.width()
    }

    /// Pixels that are pooled into one.
    fn area(&self) -> usize {
        if self.pool == Pool::Average { self.pixels } else { 4 }
    }

    /// Pixels after pooling.
    fn pooled(&self) -> usize {
        if self.pool == Pool::Average { 1 } else { self.pixels / self.width / 2 * (self.width / 2) }
    }

    /// Offsets within an image of the pixels that go into one, row by row.
    fn members(&self, pooled: usize) -> impl Iterator<Item = usize> + use<> {
        let (width, channels) = (self.width, self.channels.width());
        let (across, side) = if self.pool == Pool::Average { (1, width) } else { (width / 2, 2) };
        let (y, x) = (pooled / across * side, pooled % across * side);
        (0..self.area()).map(move |i| ((y + i / side) * width + x + i % side) * channels)
    }
}

/// Writes pooled activations into the grid that the next layer reads.
pub(super) struct ActivatePooled<'a> {
    pub(super) from: Pooled<'a>,
    pub(super) grid: Grid,
    pub(super) output: &'a mut [f32],
}

impl Kernel for ActivatePooled<'_> {
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let width = self.from.channels.width();
        let (relu, zero) = (self.from.channels.relu, s.splat(0.0));
        let share = s.splat(1.0 / self.from.area() as f32);
        for image in 0..self.from.images {
            let z = &self.from.z[image * self.from.image_len()..][..self.from.image_len()];
            for (from, to, len) in self.grid.runs() {
                let out = &mut self.output[image * self.grid.len() + to..][..len];
                for b in (0..width).step_by(BLOCK) {
                    let channels = Loaded::new(s, self.from.channels, self.from.first + image, b);
                    for at in (0..len).step_by(width) {
                        let mut members = self.from.members((from + at) / width);
                        let mut next = || members.next().map(|m| channels.activate(s, s.load(block(z, m + b)), relu));
                        let mut y = next().unwrap_or(zero);
                        while let Some(other) = next() {
                            y = match self.from.pool {
                                Pool::Average => s.add(y, other),
                                // Adding 0·other keeps a NaN that the comparison would lose.
                                _ => s.fma(zero, other, s.select_greater(other, y, other, y)),
                            };
                        }
                        let y = if self.from.pool == Pool::Average { s.mul(share, y) } else { y };
                        s.store(y, block_mut(out, at + b));
                    }
                }
            }
        }
    }
}

/// Takes the gradient of pooled activations to that of the activations: to the first of the largest ones, or to all in
/// equal shares.
pub(super) struct Unpool<'a> {
    pub(super) to: Pooled<'a>,
    pub(super) pooled: &'a [f32],
    pub(super) gradient: &'a mut [f32],
}

impl Kernel for Unpool<'_> {
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Self { to, pooled, gradient } = self;
        let width = to.channels.width();
        let (len, count) = (to.image_len(), to.pooled());
        for image in 0..to.images {
            let (z, out) = (&to.z[image * len..][..len], &mut gradient[image * len..][..len]);
            let pooled = &pooled[image * count * width..][..count * width];
            for b in (0..width).step_by(BLOCK) {
                let channels = Loaded::new(s, to.channels, to.first + image, b);
                for pixel in 0..count {
                    let g = s.load(block(pooled, pixel * width + b));
                    match to.pool {
                        Pool::Average => share(s, to.members(pixel), b, g, out),
                        _ => first_largest(s, to, &channels, (z, pixel, b), g, out),
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn share<S: Lanes>(s: S, members: impl Iterator<Item = usize>, b: usize, g: S::Block, out: &mut [f32]) {
    let count = members.size_hint().0;
    let g = s.mul(s.splat(1.0 / count as f32), g);
    for member in members {
        s.store(g, block_mut(out, member + b));
    }
}

#[inline(always)]
fn first_largest<S: Lanes>(
    s: S,
    to: Pooled<'_>,
    channels: &Loaded<S::Block>,
    (z, pixel, b): (&[f32], usize, usize),
    g: S::Block,
    out: &mut [f32],
) {
    let zero = s.splat(0.0);
    let mut largest = zero;
    let mut before: [Option<usize>; 4] = [None; 4];
    for (i, member) in to.members(pixel).enumerate() {
        let y = channels.activate(s, s.load(block(z, member + b)), to.channels.relu);
        if i == 0 {
            largest = y;
            s.store(g, block_mut(out, member + b));
        } else {
            s.store(s.select_greater(y, largest, g, zero), block_mut(out, member + b));
            for earlier in before.iter().flatten() {
                let cell = block_mut(out, earlier + b);
                s.store(s.select_greater(y, largest, zero, s.load(cell)), cell);
            }
            largest = s.select_greater(y, largest, y, largest);
        }
        before[i] = Some(member);
    }
}
