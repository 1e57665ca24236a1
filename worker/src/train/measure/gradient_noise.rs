//! The noise of batch gradients, from differences of gradients of independent batches at the same weights.

use std::ops::Range;

use ergodic_common::net::NOISE_BATCHES;

use super::norms::{cosine_similarity, inner_product, square, sum_of_squares, sum_over_ranges};

/// Number of pairs of gradients that are compared.
pub(crate) const GRADIENT_PAIRS: usize = NOISE_BATCHES as usize / 2;

/// Number of largest distances that estimate the tail index.
const TAIL_SIZE: usize = 8;

/// The scatter of batch gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GradientNoise {
    /// Trace of the covariance of a single image's gradient.
    pub(crate) trace: f64,
    /// Hill's estimate of the tail index.
    pub(crate) tail_index: f64,
    /// Root mean square of the cosine between a difference of gradients and the weights; NaN if it was not requested.
    pub(crate) weight_cosine: f64,
    /// Participation ratio of the covariance; NaN if it was not requested.
    pub(crate) dimension: f64,
}

/// The properties of the noise to estimate, besides trace and tail index.
#[derive(Debug)]
pub(crate) struct NoiseRequest<'a> {
    /// Number of images in a batch.
    pub(crate) batch: usize,
    /// Ranges of all trained parameters.
    pub(crate) trained: &'a [Range<usize>],
    /// The weights that the noise is compared with, and the ranges over which; `None` if it is not.
    pub(crate) compared_weights: Option<(&'a [f32], &'a [Range<usize>])>,
    /// Whether to estimate the dimension, which takes the memory of [`GRADIENT_PAIRS`] gradients.
    pub(crate) wants_dimension: bool,
}

impl NoiseRequest<'_> {
    /// Estimates the noise of gradients of `len` numbers, of independent batches; each call of `gradient` writes another one.
    pub(crate) fn estimate_noise(
        &self,
        len: usize,
        mut gradient: impl FnMut(&mut [f32]),
    ) -> GradientNoise {
        let mut a = vec![0.0; len];
        let mut b = vec![0.0; len];
        let mut squares = Vec::with_capacity(GRADIENT_PAIRS);
        let mut cosines = Vec::with_capacity(GRADIENT_PAIRS);
        let mut differences = Vec::new();

        for _ in 0..GRADIENT_PAIRS {
            gradient(&mut a);
            gradient(&mut b);
            squares.push(sum_over_ranges(self.trained, |i| {
                square(f64::from(a[i]) - f64::from(b[i]))
            }));

            a.iter_mut().zip(&b).for_each(|(a, b)| *a -= b);
            if let Some((weights, ranges)) = self.compared_weights {
                cosines.push(cosine_similarity(ranges, &a, weights));
            }
            if self.wants_dimension {
                differences.push(a.clone());
            }
        }

        let trace = squares.iter().sum::<f64>() / GRADIENT_PAIRS as f64 * self.batch as f64 / 2.0;
        let dimension = estimate_dimension(self.trained, &differences);
        squares.sort_by(|x, y| y.total_cmp(x));
        GradientNoise {
            trace,
            tail_index: estimate_tail_index(&squares),
            weight_cosine: root_mean_square(&cosines),
            dimension,
        }
    }
}

/// Hill 1975, from squared distances in descending order: 1 over the mean of ln(r_i/r_{k+1}) for the largest k.
fn estimate_tail_index(squares: &[f64]) -> f64 {
    let excess = squares[..TAIL_SIZE]
        .iter()
        .map(|square| 0.5 * libm::log(square / squares[TAIL_SIZE]));
    TAIL_SIZE as f64 / excess.sum::<f64>()
}

/// The square root of the mean square; NaN of no numbers.
fn root_mean_square(numbers: &[f64]) -> f64 {
    let sum = numbers.iter().map(|x| x * x).sum::<f64>();
    (sum / numbers.len() as f64).sqrt()
}

/// (tr Σ)²/tr Σ² of the covariance Σ of independent vectors of mean 0: the mean of ‖dᵢ‖²‖dⱼ‖² over that of ⟨dᵢ, dⱼ⟩², both
/// over the pairs i < j, so that both are without bias up to the same factor (Chen, Zhang and Zhong 2010). NaN of fewer
/// than two vectors.
fn estimate_dimension(ranges: &[Range<usize>], vectors: &[Vec<f32>]) -> f64 {
    let squares: Vec<f64> = vectors.iter().map(|d| sum_of_squares(ranges, d)).collect();
    let mut square_products = 0.0;
    let mut overlaps = 0.0;

    for j in 0..vectors.len() {
        for i in 0..j {
            let product = inner_product(ranges, &vectors[i], &vectors[j]);
            square_products += squares[i] * squares[j];
            overlaps += product * product;
        }
    }

    square_products / overlaps
}

#[cfg(test)]
mod tests {
    use ergodic_common::random_streams::Purpose;

    use crate::train::measure::gradient_noise::*;
    use crate::train::tests::cases;

    /// The noise of normal gradients with a mean of 1, the first `wide` of `n` numbers with a deviation of 0.5 and
    /// the others with none, against weights of 1 at the even places.
    fn normal_noise(n: usize, wide: usize, batch: usize, repeat: u32) -> GradientNoise {
        let mut stream = cases::streams(repeat).open_stream(Purpose::Measure, b"noise");
        let weights: Vec<f32> = (0..n).map(|i| (1 - i % 2) as f32).collect();
        let whole = std::slice::from_ref(&(0..n)).to_vec();
        let request = NoiseRequest {
            batch,
            trained: &whole,
            compared_weights: Some((&weights, &whole)),
            wants_dimension: true,
        };

        request.estimate_noise(n, |g| {
            g.fill(1.0);
            g[..wide]
                .iter_mut()
                .for_each(|g| *g += (0.5 * stream.next_normal()) as f32);
        })
    }

    #[test]
    fn noise_is_what_was_put_in() {
        let n = 4096;
        let batch = 8;
        let found = normal_noise(n, n, batch, 0);
        let expected = batch as f64 * n as f64 * 0.25;
        assert!(
            (found.trace / expected - 1.0).abs() < 0.01,
            "{} {expected}",
            found.trace
        );

        assert!(
            found.tail_index > 50.0,
            "thin tails have a large index, not {}",
            found.tail_index
        );
        let pareto: Vec<f64> = (1..=GRADIENT_PAIRS)
            .map(|i| libm::pow(GRADIENT_PAIRS as f64 / i as f64, 2.0 / 1.5))
            .collect();

        assert!(
            (estimate_tail_index(&pareto) - 1.5).abs() < 0.6,
            "{}",
            estimate_tail_index(&pareto)
        );
    }

    /// A random direction among n has a mean square cosine of 1/n with any other. One estimate of the dimension scatters by
    /// 7 %.
    #[test]
    fn isotropic_noise_has_as_many_dimensions_as_there_are() {
        for n in [64, 1024] {
            let all: Vec<GradientNoise> = (0..16).map(|i| normal_noise(2 * n, n, 8, i)).collect();
            let mean = |value: fn(&GradientNoise) -> f64| all.iter().map(value).sum::<f64>() / 16.0;
            let dimension = mean(|noise| noise.dimension);
            assert!(
                (dimension / n as f64 - 1.0).abs() < 0.08,
                "{n}: {dimension}"
            );

            // Half of the noise's numbers meet a weight, and half of the weights no noise.
            let expected = 0.5 / n as f64;
            let square = mean(|noise| noise.weight_cosine * noise.weight_cosine);
            assert!(
                (square / expected - 1.0).abs() < 0.25,
                "{n}: {square} {expected}"
            );
        }
    }

    #[test]
    fn noise_along_one_direction_has_one_dimension_and_none_has_no_number() {
        let line = normal_noise(8, 1, 8, 0);
        assert!((line.dimension - 1.0).abs() < 1e-12, "{}", line.dimension);
        assert!(
            (line.weight_cosine - 0.5).abs() < 1e-12,
            "{}",
            line.weight_cosine
        );

        let still = normal_noise(8, 0, 8, 0);
        assert!(still.trace == 0.0 && still.dimension.is_nan() && still.weight_cosine.is_nan());
    }

    #[test]
    fn what_is_not_requested_is_unknown() {
        let whole = std::slice::from_ref(&(0..8)).to_vec();
        let request = NoiseRequest {
            batch: 1,
            trained: &whole,
            compared_weights: None,
            wants_dimension: false,
        };
        let found = request.estimate_noise(8, |g| g.fill(1.0));
        assert!(found.weight_cosine.is_nan() && found.dimension.is_nan());
    }
}
