//! From a linear map's output z to the layer's activation: y = (z − mean)·inv · scale + shift, then the activation function.
//!
//! One formula serves all layers; without a norm, mean is 0 and inv and scale are 1, which changes no bit of z. Passes
//! over a batch run chunk by chunk while the chunk is in the cache: sums in f32 within a chunk, in f64 across chunks.
//! No absolute constant occurs anywhere, so that scaling all weights by a power of two scales every intermediate exactly.

use ergodic_common::config::Activation;

use super::activation::{ActivatedKernel, ActivationFn, run_for_activation};
use super::simd::{BLOCK, Kernel, Simd16, block_at, block_at_mut};
use crate::train::network::shape::HaloGrid;

/// Independent partial sums of a reduction over pixels; pixel i goes into sum i mod 4.
pub(crate) const PARTIAL_SUMS: usize = 4;

/// Per-channel coefficients of a layer; mean and inv for every image where a norm runs over single images.
#[derive(Debug)]
pub(crate) struct ChannelCoefficients {
    pub(crate) mean: Vec<f32>,
    pub(crate) inv_std: Vec<f32>,
    /// Numbers from one image's mean and 1/std to the next one's; 0 where all images share them.
    pub(crate) image_stride: usize,
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
    /// The function that follows.
    pub(crate) activation: Activation,
}

impl ChannelCoefficients {
    /// The coefficients that leave z as it is, before this function.
    pub(crate) fn identity(width: usize, activation: Activation) -> Self {
        Self {
            mean: vec![0.0; width],
            inv_std: vec![1.0; width],
            image_stride: 0,
            scale: vec![1.0; width],
            shift: vec![0.0; width],
            activation,
        }
    }

    /// Gives each of `images` images a mean and 1/std of its own.
    pub(crate) fn repeat_per_image(mut self, images: usize) -> Self {
        self.image_stride = self.padded_channels();
        self.mean = self.mean.repeat(images);
        self.inv_std = self.inv_std.repeat(images);
        self
    }

    /// Number of channels, with padding.
    pub(crate) fn padded_channels(&self) -> usize {
        self.scale.len()
    }
}

/// The mean and inv that normalise by these statistics. Zero variance under ε = 0 gives 0, with gradient 0.
pub(crate) fn set_mean_and_inv_std(
    statistics: impl Iterator<Item = (f64, f64)>,
    eps: f64,
    mean: &mut [f32],
    inv: &mut [f32],
) {
    for ((mean, inv), (m, variance)) in mean.iter_mut().zip(inv).zip(statistics) {
        let radicand = variance + eps;
        *mean = m as f32;
        *inv = if radicand == 0.0 {
            0.0
        } else {
            (1.0 / radicand.sqrt()) as f32
        };
    }
}

/// A block's worth of [`ChannelCoefficients`], in registers.
#[derive(Clone, Copy)]
pub(crate) struct LoadedCoefficients<B> {
    pub(crate) mean: B,
    pub(crate) inv_std: B,
    pub(crate) scale: B,
    shift: B,
}

impl<B: Copy> LoadedCoefficients<B> {
    #[inline(always)]
    pub(crate) fn new<S: Simd16<Block = B>>(
        s: S,
        channels: &ChannelCoefficients,
        image: usize,
        at: usize,
    ) -> Self {
        let own = image * channels.image_stride + at;
        Self {
            mean: s.load(block_at(&channels.mean, own)),
            inv_std: s.load(block_at(&channels.inv_std, own)),
            scale: s.load(block_at(&channels.scale, at)),
            shift: s.load(block_at(&channels.shift, at)),
        }
    }

    /// Computes the activation from z.
    #[inline(always)]
    pub(crate) fn compute_activation<S, A>(&self, s: S, z: B) -> B
    where
        S: Simd16<Block = B>,
        A: ActivationFn,
    {
        let (_, y) = self.normalize_and_scale(s, z);
        A::value(s, y)
    }

    /// Computes the normalised value and y.
    #[inline(always)]
    pub(crate) fn normalize_and_scale<S: Simd16<Block = B>>(&self, s: S, z: B) -> (B, B) {
        let x = s.mul(s.sub(z, self.mean), self.inv_std);
        (x, s.fma(x, self.scale, self.shift))
    }
}

/// Writes activations of whole images into the grid that the next layer reads.
pub(crate) struct ActivationKernel<'a> {
    pub(crate) z: &'a [f32],
    pub(crate) coefficients: &'a ChannelCoefficients,
    pub(crate) grid: HaloGrid,
    /// The first image and the number of images; z begins with the first.
    pub(crate) first: usize,
    pub(crate) images: usize,
    pub(crate) output: &'a mut [f32],
}

impl Kernel for ActivationKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        run_for_activation(s, self.coefficients.activation, self);
    }
}

impl ActivatedKernel for ActivationKernel<'_> {
    #[inline(always)]
    fn run_for<S: Simd16, A: ActivationFn>(self, s: S) {
        let width = self.coefficients.padded_channels();
        for image in 0..self.images {
            for (from, to, len) in self.grid.contiguous_runs() {
                let z = &self.z[image * self.grid.inner_len() + from..][..len];
                let out = &mut self.output[image * self.grid.len() + to..][..len];

                for b in (0..width).step_by(BLOCK) {
                    let channels =
                        LoadedCoefficients::new(s, self.coefficients, self.first + image, b);

                    for at in (b..len).step_by(width) {
                        let y = channels.compute_activation::<S, A>(s, s.load(block_at(z, at)));
                        s.store(y, block_at_mut(out, at));
                    }
                }
            }
        }
    }
}

/// Mean and sum of squared deviations of every channel over the batch so far.
#[derive(Debug, Default)]
pub(crate) struct ChannelMoments {
    pub(crate) count: f64,
    pub(crate) mean: Vec<f64>,
    pub(crate) squared_deviations: Vec<f64>,
}

impl ChannelMoments {
    pub(crate) fn new(width: usize) -> Self {
        Self {
            count: 0.0,
            mean: vec![0.0; width],
            squared_deviations: vec![0.0; width],
        }
    }

    pub(crate) fn reset(&mut self) {
        self.count = 0.0;
        self.mean.fill(0.0);
        self.squared_deviations.fill(0.0);
    }

    /// Adds the moments of more images.
    pub(crate) fn add(&mut self, others: &Self) {
        for (channel, (mean, squares)) in others
            .mean
            .iter()
            .zip(&others.squared_deviations)
            .enumerate()
        {
            self.merge_channel(channel, others.count, *mean, *squares);
        }

        self.count += others.count;
    }

    /// Adds some values of one channel (Chan, Golub and LeVeque 1983).
    fn merge_channel(&mut self, channel: usize, count: f64, mean: f64, squares: f64) {
        let delta = mean - self.mean[channel];
        let total = self.count + count;
        self.mean[channel] += delta * (count / total);
        self.squared_deviations[channel] += squares + delta * delta * (self.count * count / total);
    }

    /// Mean and biased variance per channel, shared by all channels of a group, `groups` of equal size among the first `channels`.
    pub(crate) fn group_statistics(
        &self,
        channels: usize,
        groups: usize,
    ) -> impl Iterator<Item = (f64, f64)> {
        let size = channels / groups;
        (0..groups).flat_map(move |g| {
            let means = &self.mean[g * size..][..size];
            let squares = &self.squared_deviations[g * size..][..size];
            let mean = means.iter().sum::<f64>() / size as f64;
            let between: f64 = means.iter().map(|m| (m - mean) * (m - mean)).sum();
            let within: f64 = squares.iter().sum();
            let variance = (within + self.count * between) / (self.count * size as f64);
            std::iter::repeat_n((mean, variance), size)
        })
    }

    /// Mean and biased variance of every channel.
    pub(crate) fn biased_statistics(&self) -> impl Iterator<Item = (f64, f64)> {
        self.mean
            .iter()
            .zip(&self.squared_deviations)
            .map(|(mean, squares)| (*mean, squares / self.count))
    }

    /// Mean and unbiased variance of every channel; the biased one where there is a single value.
    pub(crate) fn unbiased_statistics(&self) -> impl Iterator<Item = (f64, f64)> {
        let freedom = if self.count > 1.0 {
            self.count - 1.0
        } else {
            1.0
        };
        self.mean
            .iter()
            .zip(&self.squared_deviations)
            .map(move |(mean, squares)| (*mean, squares / freedom))
    }
}

/// Adds a chunk of z to the moments. Deviations are taken from the chunk's own mean, whose rounding is corrected for;
/// the mean is summed relative to the first pixel, so that a constant channel has variance 0 exactly.
pub(crate) struct MomentsKernel<'a> {
    pub(crate) z: &'a [f32],
    pub(crate) moments: &'a mut ChannelMoments,
}

impl Kernel for MomentsKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        let width = self.moments.mean.len();
        let count = (self.z.len() / width) as f64;

        for b in (0..width).step_by(BLOCK) {
            let first = *block_at(self.z, b);
            let [sum, _] = sum_deviations(s, self.z, width, b, &first);
            let mut mean = [0.0; BLOCK];

            for lane in 0..BLOCK {
                mean[lane] = (f64::from(first[lane]) + f64::from(sum[lane]) / count) as f32;
            }

            let [sum, squares] = sum_deviations(s, self.z, width, b, &mean);
            for lane in 0..BLOCK {
                let sum = f64::from(sum[lane]);
                let squares = f64::from(squares[lane]);
                let exact = f64::from(mean[lane]) + sum / count;
                self.moments.merge_channel(
                    b + lane,
                    count,
                    exact,
                    (squares - sum * (sum / count)).max(0.0),
                );
            }
        }

        self.moments.count += count;
    }
}

/// Sums of deviations from `center`, and of their squares.
#[inline(always)]
fn sum_deviations<S: Simd16>(
    s: S,
    z: &[f32],
    width: usize,
    b: usize,
    center: &[f32; BLOCK],
) -> [[f32; BLOCK]; 2] {
    let center = s.load(center);
    let mut sums = [s.splat(0.0); PARTIAL_SUMS];
    let mut squares = [s.splat(0.0); PARTIAL_SUMS];
    let mut groups = z.chunks_exact(PARTIAL_SUMS * width);
    for group in &mut groups {
        for part in 0..PARTIAL_SUMS {
            let d = s.sub(s.load(block_at(group, part * width + b)), center);
            sums[part] = s.add(sums[part], d);
            squares[part] = s.fma(d, d, squares[part]);
        }
    }

    let rest = groups.remainder();
    for part in 0..PARTIAL_SUMS {
        if part * width < rest.len() {
            let d = s.sub(s.load(block_at(rest, part * width + b)), center);
            sums[part] = s.add(sums[part], d);
            squares[part] = s.fma(d, d, squares[part]);
        }
    }

    [add_partial_sums(s, sums), add_partial_sums(s, squares)]
}

/// The sum of the partial sums, in a fixed order.
#[inline(always)]
pub(crate) fn add_partial_sums<S: Simd16>(s: S, parts: [S::Block; PARTIAL_SUMS]) -> [f32; BLOCK] {
    let mut out = [0.0; BLOCK];
    s.store(
        s.add(s.add(parts[0], parts[1]), s.add(parts[2], parts[3])),
        &mut out,
    );
    out
}
