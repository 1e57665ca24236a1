//! The backward pass through norm, scale, shift and activation function: the sums over the batch that it needs, and ∂L/∂z.

use super::activation::{ActivatedKernel, ActivationFn, run_for_activation};
use super::norm::{ChannelCoefficients, LoadedCoefficients, PARTIAL_SUMS, add_partial_sums};
use super::simd::{BLOCK, Kernel, Simd16, block_at, block_at_mut};

/// Sums that the backward pass needs, per channel.
#[derive(Debug, Default)]
pub(crate) struct GradientSums {
    /// Σ ∂L/∂y: the gradient of the shift.
    pub(crate) shift: Vec<f64>,
    /// Σ ∂L/∂y · x: the gradient of the scale.
    pub(crate) scale: Vec<f64>,
}

impl GradientSums {
    pub(crate) fn new(width: usize) -> Self {
        Self {
            shift: vec![0.0; width],
            scale: vec![0.0; width],
        }
    }

    pub(crate) fn reset(&mut self) {
        self.shift.fill(0.0);
        self.scale.fill(0.0);
    }

    /// Adds the sums over more images.
    pub(crate) fn add(&mut self, others: &Self) {
        self.shift
            .iter_mut()
            .zip(&others.shift)
            .for_each(|(sum, x)| *sum += x);
        self.scale
            .iter_mut()
            .zip(&others.scale)
            .for_each(|(sum, x)| *sum += x);
    }

    /// Writes the means that a norm over `count` values per channel subtracts from ∂L/∂x:
    /// ∂L/∂z = inv·(∂L/∂x − mean(∂L/∂x) − x·mean(∂L/∂x·x)) with ∂L/∂x = scale·∂L/∂y.
    pub(crate) fn write_gradient_means(
        &self,
        channels: &ChannelCoefficients,
        count: f64,
        means: &mut GradientMeans,
    ) {
        for (c, scale) in channels.scale.iter().enumerate() {
            means.mean[c] = (f64::from(*scale) * self.shift[c] / count) as f32;
            means.mean_x[c] = (f64::from(*scale) * self.scale[c] / count) as f32;
        }
    }

    /// Writes the means of one image, whose sums these are, over `count` pixels and `groups` of its first `width` channels.
    pub(crate) fn write_group_means(
        &self,
        channels: &ChannelCoefficients,
        count: f64,
        (width, groups): (usize, usize),
        mean: &mut [f32],
        mean_x: &mut [f32],
    ) {
        let size = width / groups;
        for g in 0..groups {
            let group = g * size..(g + 1) * size;
            let count = count * size as f64;
            mean[group.clone()].fill(scaled_mean(channels, &self.shift, &group, count));
            mean_x[group.clone()].fill(scaled_mean(channels, &self.scale, &group, count));
        }
    }
}

/// The mean of `count` values of ∂L/∂x in a group of channels, from each channel's sum of ∂L/∂y.
fn scaled_mean(
    channels: &ChannelCoefficients,
    sums: &[f64],
    group: &std::ops::Range<usize>,
    count: f64,
) -> f32 {
    let weighted = group
        .clone()
        .map(|c| f64::from(channels.scale[c]) * sums[c]);
    (weighted.sum::<f64>() / count) as f32
}

/// The means of ∂L/∂x and of ∂L/∂x·x that a norm subtracts, for every image where it runs over single images. Without a norm
/// ∂L/∂z = ∂L/∂y.
#[derive(Debug, Default)]
pub(crate) struct GradientMeans {
    pub(crate) mean: Vec<f32>,
    pub(crate) mean_x: Vec<f32>,
}

impl GradientMeans {
    /// Means for `sets` sets of coefficients: 1, or one per image.
    pub(crate) fn new(width: usize, sets: usize) -> Self {
        Self {
            mean: vec![0.0; width * sets],
            mean_x: vec![0.0; width * sets],
        }
    }
}

/// Adds a chunk to [`GradientSums`].
pub(crate) struct GradientSumsKernel<'a> {
    pub(crate) z: &'a [f32],
    /// Gradient of the activations of the chunk.
    pub(crate) gradient: &'a [f32],
    pub(crate) coefficients: &'a ChannelCoefficients,
    /// The image whose mean and 1/std apply.
    pub(crate) image: usize,
    pub(crate) gradient_sums: &'a mut GradientSums,
}

impl Kernel for GradientSumsKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        run_for_activation(s, self.coefficients.activation, self);
    }
}

impl ActivatedKernel for GradientSumsKernel<'_> {
    #[inline(always)]
    fn run_for<S: Simd16, A: ActivationFn>(self, s: S) {
        let width = self.coefficients.padded_channels();
        let pixels = self.z.len() / width;

        for b in (0..width).step_by(BLOCK) {
            let channels = LoadedCoefficients::new(s, self.coefficients, self.image, b);
            let mut shifts = [s.splat(0.0); PARTIAL_SUMS];
            let mut scales = [s.splat(0.0); PARTIAL_SUMS];

            for group in (0..pixels).step_by(PARTIAL_SUMS) {
                for part in 0..PARTIAL_SUMS {
                    if group + part < pixels {
                        let at = (group + part) * width + b;
                        let (x, y) = channels.normalize_and_scale(s, s.load(block_at(self.z, at)));
                        let g = s.load(block_at(self.gradient, at));
                        let g = A::backward(s, y, g);
                        shifts[part] = s.add(shifts[part], g);

                        scales[part] = s.fma(g, x, scales[part]);
                    }
                }
            }

            let shifts = add_partial_sums(s, shifts);
            let scales = add_partial_sums(s, scales);

            for lane in 0..BLOCK {
                self.gradient_sums.shift[b + lane] += f64::from(shifts[lane]);
                self.gradient_sums.scale[b + lane] += f64::from(scales[lane]);
            }
        }
    }
}

/// Writes ∂L/∂z of whole images.
pub(crate) struct NormBackwardKernel<'a> {
    pub(crate) z: &'a [f32],
    /// Gradient of the activations of the images.
    pub(crate) gradient: &'a [f32],
    /// Gradient that reaches z past norm and activation function, from the layer that adds z to its own.
    pub(crate) residual_gradient: Option<&'a [f32]>,
    /// Receives the gradient of the z that this layer adds to its own.
    pub(crate) added_gradient: Option<&'a mut [f32]>,
    pub(crate) coefficients: &'a ChannelCoefficients,
    /// Means for the norm; `None` without a norm, because the z of a unit that no image activates
    /// may be −∞, which a factor of 0 would turn into NaN.
    pub(crate) gradient_means: Option<&'a GradientMeans>,
    pub(crate) first: usize,
    pub(crate) images: usize,
    pub(crate) z_gradient: &'a mut [f32],
}

impl Kernel for NormBackwardKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        run_for_activation(s, self.coefficients.activation, self);
    }
}

impl ActivatedKernel for NormBackwardKernel<'_> {
    #[inline(always)]
    fn run_for<S: Simd16, A: ActivationFn>(mut self, s: S) {
        let width = self.coefficients.padded_channels();
        let len = self.z.len() / self.images;

        for image in 0..self.images {
            let own = (self.first + image) * self.coefficients.image_stride;
            let z = &self.z[image * len..][..len];
            let gradient = &self.gradient[image * len..][..len];
            let residual = self
                .residual_gradient
                .map(|residual| &residual[image * len..][..len]);
            let mut added = self
                .added_gradient
                .as_deref_mut()
                .map(|added| &mut added[image * len..][..len]);
            let out = &mut self.z_gradient[image * len..][..len];

            for b in (0..width).step_by(BLOCK) {
                let channels = LoadedCoefficients::new(s, self.coefficients, self.first + image, b);
                let means = self.gradient_means.map(|means| {
                    let minus = s.sub(s.splat(0.0), s.load(block_at(&means.mean_x, own + b)));
                    (s.load(block_at(&means.mean, own + b)), minus)
                });

                for at in (b..len).step_by(width) {
                    let (x, y) = channels.normalize_and_scale(s, s.load(block_at(z, at)));
                    let g = s.load(block_at(gradient, at));
                    let g = A::backward(s, y, g);
                    let mut d = match means {
                        Some(means) => norm_gradient(s, &channels, means, x, g),
                        None => g,
                    };

                    if let Some(residual) = residual {
                        d = s.add(d, s.load(block_at(residual, at)));
                    }

                    s.store(d, block_at_mut(out, at));
                    if let Some(added) = added.as_deref_mut() {
                        s.store(d, block_at_mut(added, at));
                    }
                }
            }
        }
    }
}

/// Adds up numbers per channel.
pub(crate) struct ChannelSumsKernel<'a> {
    pub(crate) numbers: &'a [f32],
    pub(crate) sums: &'a mut [f64],
}

impl Kernel for ChannelSumsKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        let width = self.sums.len();
        let pixels = self.numbers.len() / width;

        for b in (0..width).step_by(BLOCK) {
            let mut parts = [s.splat(0.0); PARTIAL_SUMS];
            for group in (0..pixels).step_by(PARTIAL_SUMS) {
                for (part, sum) in parts.iter_mut().enumerate() {
                    if group + part < pixels {
                        let at = (group + part) * width + b;
                        *sum = s.add(*sum, s.load(block_at(self.numbers, at)));
                    }
                }
            }

            let sums = add_partial_sums(s, parts);
            for (to, sum) in self.sums[b..].iter_mut().zip(sums) {
                *to += f64::from(sum);
            }
        }
    }
}

/// ∂L/∂z of a normalized x, from ∂L/∂y and the means of [`GradientMeans`], the second of them negated.
#[inline(always)]
fn norm_gradient<S: Simd16>(
    s: S,
    channels: &LoadedCoefficients<S::Block>,
    (mean, minus_mean_x): (S::Block, S::Block),
    x: S::Block,
    y_gradient: S::Block,
) -> S::Block {
    let centred = s.sub(s.mul(channels.scale, y_gradient), mean);
    s.mul(channels.inv_std, s.fma(x, minus_mean_x, centred))
}
