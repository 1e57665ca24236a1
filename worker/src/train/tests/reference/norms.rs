//! Moments, and the coefficients that come from them.

use super::activations::fma;

/// The count of numbers, their mean, and the sum of squared deviations.
#[derive(Clone, Copy, Default)]
pub(super) struct PlainMoments {
    pub(super) count: f64,
    pub(super) mean: f64,
    pub(super) squares: f64,
}

/// Four interleaved sums as one.
pub(super) fn add_interleaved(s: [f32; 4]) -> f32 {
    (s[0] + s[1]) + (s[2] + s[3])
}

/// The moments of a piece, in two passes.
pub(super) fn measure_piece(z: &[f32]) -> PlainMoments {
    let n = z.len() as f64;
    let center = z[0];
    let mut s = [0.0; 4];
    for (j, z) in z.iter().enumerate() {
        s[j % 4] += z - center;
    }
    let m = (f64::from(center) + f64::from(add_interleaved(s)) / n) as f32;

    let (mut s, mut q) = ([0.0; 4], [0.0; 4]);
    for (j, z) in z.iter().enumerate() {
        let e = z - m;
        s[j % 4] += e;
        q[j % 4] = fma(e, e, q[j % 4]);
    }
    let (sum, squares) = (f64::from(add_interleaved(s)), f64::from(add_interleaved(q)));
    PlainMoments {
        count: n,
        mean: f64::from(m) + sum / n,
        squares: (squares - sum * (sum / n)).max(0.0),
    }
}

impl PlainMoments {
    pub(super) fn merge(&mut self, other: Self) {
        let delta = other.mean - self.mean;
        let total = self.count + other.count;
        self.mean += delta * (other.count / total);
        self.squares += other.squares + (delta * delta) * ((self.count * other.count) / total);
        self.count = total;
    }

    pub(super) fn unbiased_variance(self) -> f64 {
        if self.count <= 1.0 {
            self.squares
        } else {
            self.squares / (self.count - 1.0)
        }
    }
}

/// The mean and variance of the channels of a group of one image.
pub(super) fn compute_group_statistics(channels: &[PlainMoments]) -> (f64, f64) {
    let (n, g) = (channels[0].count, channels.len() as f64);
    let mean = channels.iter().map(|c| c.mean).sum::<f64>() / g;
    let between: f64 = channels
        .iter()
        .map(|c| (c.mean - mean) * (c.mean - mean))
        .sum();
    let within: f64 = channels.iter().map(|c| c.squares).sum();
    (mean, (within + n * between) / (n * g))
}

/// One divided by the standard deviation, or 0 where that is 0.
pub(super) fn invert_std(variance: f64, eps: f64) -> f32 {
    let r = variance + eps;
    if r == 0.0 {
        0.0
    } else {
        (1.0 / libm::sqrt(r)) as f32
    }
}
