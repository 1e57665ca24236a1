//! What takes gradients of its own to measure: noise and curvature. Weights and statistics stay as they are.

use std::ops::Range;

use ergodic_common::seed::{Purpose, Stream};

use super::metrics::sum;

/// Pairs of gradients that are compared.
pub(super) const PAIRS: usize = 32;

/// Of their distances, the largest that tell of the tail.
const TAIL: usize = 8;

/// Steps of Lanczos's method.
const STEPS: usize = 20;

/// By what share of ‖w‖ the weights are moved to see the gradient change.
const REACH: f64 = 1e-3;

/// How gradients of batches scatter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Noise {
    /// Trace of the covariance of a single image's gradient.
    pub(super) trace: f64,
    /// Hill's estimate of the tail index.
    pub(super) hill: f64,
}

/// From pairs of gradients of independent batches of `batch` images, which `gradient` writes.
pub(super) fn noise(places: &[Range<usize>], len: usize, batch: usize, mut gradient: impl FnMut(&mut [f32])) -> Noise {
    let (mut a, mut b) = (vec![0.0; len], vec![0.0; len]);
    let mut squares = Vec::with_capacity(PAIRS);
    for _ in 0..PAIRS {
        gradient(&mut a);
        gradient(&mut b);
        let apart = |i: usize| f64::from(a[i]) - f64::from(b[i]);
        squares.push(sum(places, |i| apart(i) * apart(i)));
    }
    let trace = squares.iter().sum::<f64>() / PAIRS as f64 * batch as f64 / 2.0;
    squares.sort_by(|x, y| y.total_cmp(x));
    Noise { trace, hill: hill(&squares) }
}

/// Hill 1975, from squared distances in descending order: 1 over the mean of ln(r_i/r_{k+1}) for the largest k.
fn hill(squares: &[f64]) -> f64 {
    let excess = squares[..TAIL].iter().map(|square| 0.5 * libm::log(square / squares[TAIL]));
    TAIL as f64 / excess.sum::<f64>()
}

/// The largest eigenvalue of the Hessian of the loss whose gradient at given weights `gradient` writes: Lanczos's method
/// on the trained parameters from a random direction, products with the Hessian being central differences.
pub(super) fn curvature(
    places: &[Range<usize>],
    weights: &[f32],
    stream: &mut Stream,
    mut gradient: impl FnMut(&[f32], &mut [f32]),
) -> f64 {
    let len = weights.len();
    let dot = |a: &[f64], b: &[f64]| sum(places, |i| a[i] * b[i]);
    let reach = REACH * sum(places, |i| f64::from(weights[i]) * f64::from(weights[i])).sqrt();
    // Numbers that pad a block are 0 in every weight, and must stay so.
    let mut vector: Vec<f64> = weights.iter().map(|w| if *w == 0.0 { 0.0 } else { stream.normal() }).collect();
    let mut last = vec![0.0; len];
    let (mut moved, mut above, mut below) = (vec![0.0; len], vec![0.0; len], vec![0.0; len]);
    let (mut diagonal, mut beside) = (Vec::new(), Vec::<f64>::new());
    let mut length = dot(&vector, &vector).sqrt();
    for _ in 0..STEPS {
        // A direction without length has been reached: what was found is all there is.
        if !(length > 0.0 && reach > 0.0) {
            break;
        }
        vector.iter_mut().for_each(|x| *x /= length);
        for (sign, out) in [(reach, &mut above), (-reach, &mut below)] {
            moved.copy_from_slice(weights);
            for i in places.iter().cloned().flatten() {
                moved[i] = (f64::from(weights[i]) + sign * vector[i]) as f32;
            }
            gradient(&moved, out);
        }
        let back = beside.last().copied().unwrap_or(0.0);
        let mut next = vec![0.0; len];
        for i in places.iter().cloned().flatten() {
            next[i] = (f64::from(above[i]) - f64::from(below[i])) / (2.0 * reach) - back * last[i];
        }
        let along = dot(&next, &vector);
        next.iter_mut().zip(&vector).for_each(|(x, v)| *x -= along * v);
        diagonal.push(along);
        length = dot(&next, &next).sqrt();
        beside.push(length);
        last = std::mem::replace(&mut vector, next);
    }
    largest_eigenvalue(&diagonal, &beside)
}

/// Of a symmetric tridiagonal matrix, by bisection on the signs of its pivots (Givens 1954).
fn largest_eigenvalue(diagonal: &[f64], beside: &[f64]) -> f64 {
    let neighbours = |i: usize| {
        let before = if i > 0 { beside[i - 1].abs() } else { 0.0 };
        before + if i + 1 < diagonal.len() { beside[i].abs() } else { 0.0 }
    };
    let bounds = diagonal.iter().enumerate().map(|(i, d)| (d - neighbours(i), d + neighbours(i)));
    let (mut low, mut high) =
        bounds.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (l, h)| (low.min(l), high.max(h)));
    if !(low.is_finite() && high.is_finite()) {
        return f64::NAN;
    }
    // No eigenvalue above x: all pivots of T − x are negative.
    let above_all = |x: f64| {
        let mut pivot = 1.0;
        diagonal.iter().enumerate().all(|(i, d)| {
            let off = if i > 0 { beside[i - 1] * beside[i - 1] } else { 0.0 };
            pivot = d - x - off / pivot;
            pivot < 0.0
        })
    };
    for _ in 0..100 {
        let middle = low + (high - low) / 2.0;
        if above_all(middle) { high = middle } else { low = middle }
    }
    high
}

/// Indices of a batch drawn with replacement.
pub(super) fn draw(subset: &[u32], batch: usize, stream: &mut Stream, into: &mut Vec<u32>) {
    into.clear();
    into.extend((0..batch).map(|_| subset[stream.below(subset.len() as u32) as usize]));
}

/// The stream that a step's measurements draw from.
pub(super) fn stream(streams: &ergodic_common::seed::Streams, what: &str, step: u64) -> Stream {
    streams.open(Purpose::Measure, format!("{what} {step}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tests::cases;

    #[test]
    fn the_largest_eigenvalue_of_a_tridiagonal_matrix_is_found() {
        // The second difference of n points has eigenvalues 2 − 2 cos(kπ/(n + 1)).
        for n in [1, 2, 5, 20] {
            let found = largest_eigenvalue(&vec![2.0; n], &vec![-1.0; n]);
            let expected = 2.0 - 2.0 * libm::cos(n as f64 / (n + 1) as f64 * std::f64::consts::PI);
            assert!((found - expected).abs() < 1e-12, "{n}: {found} {expected}");
        }
        assert_eq!(largest_eigenvalue(&[-3.0], &[]), -3.0);
        assert!(largest_eigenvalue(&[], &[]).is_nan());
    }

    #[test]
    fn curvature_of_a_quadratic_is_its_largest_eigenvalue() {
        let n = 64;
        let eigenvalue = |i: usize| if i == 5 { 3.0 } else { (i % 7) as f32 * 0.25 - 1.0 };
        let weights: Vec<f32> = (0..n).map(|i| 1.0 + i as f32 / 64.0).collect();
        let mut stream = cases::streams(0).open(Purpose::Measure, b"");
        let found = curvature(std::slice::from_ref(&(0..n)), &weights, &mut stream, |w, g| {
            g.iter_mut().zip(w).enumerate().for_each(|(i, (g, w))| *g = eigenvalue(i) * w);
        });
        assert!((found - 3.0).abs() < 1e-3, "{found}");
    }

    #[test]
    fn noise_is_what_was_put_in() {
        let mut stream = cases::streams(0).open(Purpose::Measure, b"noise");
        let (n, batch, deviation) = (4096, 8, 0.5);
        let found = noise(std::slice::from_ref(&(0..n)), n, batch, |g| {
            g.iter_mut().for_each(|g| *g = (1.0 + deviation * stream.normal()) as f32);
        });
        let expected = batch as f64 * n as f64 * deviation * deviation;
        assert!((found.trace / expected - 1.0).abs() < 0.01, "{} {expected}", found.trace);
        assert!(found.hill > 50.0, "thin tails have a large index, not {}", found.hill);
        let pareto: Vec<f64> = (1..=PAIRS).map(|i| libm::pow(PAIRS as f64 / i as f64, 2.0 / 1.5)).collect();
        assert!((hill(&pareto) - 1.5).abs() < 0.6, "{}", hill(&pareto));
    }
}
