//! What measurements with gradients of their own draw, and the largest eigenvalue of a Hessian. Weights and statistics stay as
//! they are.

use std::ops::Range;

use ergodic_common::random_streams::{Purpose, RandomStream};

use super::norms::dot_product;

/// Maximum number of products with the Hessian.
const MAX_HESSIAN_PRODUCTS: usize = 100;

/// Largest relative error of an eigenvalue.
const EIGENVALUE_TOLERANCE: f64 = 1e-3;

/// The largest eigenvalue of a symmetric matrix of `len` rows and columns, which is 0 outside `ranges`; `product`
/// multiplies it with a vector. By Lanczos's method from a random direction. NaN where it is not known after
/// [`MAX_HESSIAN_PRODUCTS`] products, `None` once `product` returns `None`.
pub(crate) fn lanczos_largest_eigenvalue(
    (len, ranges): (usize, &[Range<usize>]),
    stream: &mut RandomStream,
    mut product: impl FnMut(&[f64]) -> Option<Vec<f64>>,
) -> Option<f64> {
    let mut vector = vec![0.0; len];
    ranges
        .iter()
        .cloned()
        .flatten()
        .for_each(|i| vector[i] = stream.next_normal());
    let mut length = dot_product(&vector, &vector).sqrt();

    let mut last = vec![0.0; len];
    let mut diagonal = Vec::new();
    let mut beside = Vec::<f64>::new();
    while diagonal.len() < MAX_HESSIAN_PRODUCTS && length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
        let mut next = product(&vector)?;
        subtract_multiple(&mut next, beside.last().copied().unwrap_or(0.0), &last);
        let along = dot_product(&next, &vector);
        subtract_multiple(&mut next, along, &vector);

        length = dot_product(&next, &next).sqrt();
        diagonal.push(along);
        beside.push(length);

        let top = largest_tridiagonal_eigenvalue(&diagonal, &beside);
        // The residual bounds the distance from `top` to an eigenvalue of the Hessian. The actual
        // distance is mostly of the order of its square.
        let error = length * last_eigenvector_component(&diagonal, &beside, top);
        if error <= EIGENVALUE_TOLERANCE * top.abs() {
            return Some(top);
        }

        last = std::mem::replace(&mut vector, next);
    }

    Some(f64::NAN)
}

/// x ← x − factor·y
fn subtract_multiple(x: &mut [f64], factor: f64, y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x -= factor * y);
}

/// The size of the last component of the unit eigenvector to the largest eigenvalue `top` of a symmetric tridiagonal matrix:
/// inverse iteration, next to the eigenvalue on the side where all pivots are negative.
fn last_eigenvector_component(diagonal: &[f64], beside: &[f64], top: f64) -> f64 {
    let n = diagonal.len();
    let scale = diagonal
        .iter()
        .chain(&beside[..n - 1])
        .fold(0.0, |scale: f64, x| scale.max(x.abs()));
    if scale == 0.0 {
        return 1.0;
    }

    let shift = top + 1e-12 * scale;
    let mut pivots = vec![diagonal[0] - shift; n];
    for i in 1..n {
        pivots[i] = diagonal[i] - shift - beside[i - 1] * beside[i - 1] / pivots[i - 1];
    }

    let mut vector = vec![1.0; n];
    for _ in 0..3 {
        solve_tridiagonal(&pivots, beside, &mut vector);
        let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
        vector.iter_mut().for_each(|x| *x /= length);
    }

    vector[n - 1].abs()
}

/// Solves a symmetric tridiagonal system in place, given the pivots of its matrix.
fn solve_tridiagonal(pivots: &[f64], beside: &[f64], vector: &mut [f64]) {
    let n = vector.len();
    for i in 1..n {
        vector[i] -= beside[i - 1] / pivots[i - 1] * vector[i - 1];
    }

    vector[n - 1] /= pivots[n - 1];
    for i in (0..n - 1).rev() {
        vector[i] = (vector[i] - beside[i] * vector[i + 1]) / pivots[i];
    }
}

/// The largest eigenvalue of a symmetric tridiagonal matrix, by bisection on the signs of its pivots (Givens 1954).
fn largest_tridiagonal_eigenvalue(diagonal: &[f64], beside: &[f64]) -> f64 {
    let (mut low, mut high) = gershgorin_bounds(diagonal, beside);
    if !(low.is_finite() && high.is_finite()) {
        return f64::NAN;
    }

    for _ in 0..100 {
        let middle = low + (high - low) / 2.0;
        if is_above_all_eigenvalues(middle, diagonal, beside) {
            high = middle
        } else {
            low = middle
        }
    }

    high
}

/// Bounds of all eigenvalues of a symmetric tridiagonal matrix, by Gershgorin's circles.
fn gershgorin_bounds(diagonal: &[f64], beside: &[f64]) -> (f64, f64) {
    let mut low = f64::INFINITY;
    let mut high = f64::NEG_INFINITY;
    for (i, d) in diagonal.iter().enumerate() {
        let before = if i > 0 { beside[i - 1].abs() } else { 0.0 };
        let after = if i + 1 < diagonal.len() {
            beside[i].abs()
        } else {
            0.0
        };
        low = low.min(d - (before + after));
        high = high.max(d + (before + after));
    }

    (low, high)
}

/// Whether all eigenvalues of T are at most x, in which case all pivots of T − x are negative.
fn is_above_all_eigenvalues(x: f64, diagonal: &[f64], beside: &[f64]) -> bool {
    let mut pivot = 1.0;
    diagonal.iter().enumerate().all(|(i, d)| {
        let off = if i > 0 {
            beside[i - 1] * beside[i - 1]
        } else {
            0.0
        };
        pivot = d - x - off / pivot;
        pivot < 0.0
    })
}

/// Indices of a batch drawn with replacement.
pub(crate) fn draw_batch_indices(
    subset: &[u32],
    batch: usize,
    stream: &mut RandomStream,
    into: &mut Vec<u32>,
) {
    into.clear();
    into.extend((0..batch).map(|_| subset[stream.next_below(subset.len() as u32) as usize]));
}

/// The stream that a step's measurements draw from.
pub(crate) fn open_measure_stream(
    streams: &ergodic_common::random_streams::Streams,
    what: &str,
    step: u64,
) -> RandomStream {
    streams.open_stream(Purpose::Measure, format!("{what} {step}").as_bytes())
}

#[cfg(test)]
mod tests {
    use crate::train::measure::gradient_stats::*;
    use crate::train::tests::cases;

    #[test]
    fn the_largest_eigenvalue_of_a_tridiagonal_matrix_is_found() {
        // The second difference of n points has eigenvalues 2 − 2 cos(kπ/(n + 1)).
        for n in [1, 2, 5, 20] {
            let found = largest_tridiagonal_eigenvalue(&vec![2.0; n], &vec![-1.0; n]);
            let expected = 2.0 - 2.0 * libm::cos(n as f64 / (n + 1) as f64 * std::f64::consts::PI);
            assert!((found - expected).abs() < 1e-12, "{n}: {found} {expected}");
        }
        assert_eq!(largest_tridiagonal_eigenvalue(&[-3.0], &[]), -3.0);
        assert!(largest_tridiagonal_eigenvalue(&[], &[]).is_nan());
    }

    #[test]
    fn the_last_component_of_an_eigenvector_is_found() {
        // That of the largest eigenvalue of the second difference is sin(knπ/(n + 1)) in its k-th component.
        for n in [1_usize, 2, 5, 20] {
            let diagonal = vec![2.0; n];
            let beside = vec![-1.0; n];
            let found = last_eigenvector_component(
                &diagonal,
                &beside,
                largest_tridiagonal_eigenvalue(&diagonal, &beside),
            );

            let component =
                |k: usize| libm::sin((k * n) as f64 * std::f64::consts::PI / (n + 1) as f64);
            let length = (1..=n)
                .map(|k| component(k) * component(k))
                .sum::<f64>()
                .sqrt();
            assert!(
                (found - component(n).abs() / length).abs() < 1e-9,
                "{n}: {found}"
            );
        }
    }

    /// The product with a diagonal matrix.
    fn diagonal_top(eigenvalues: &[f64], ranges: &[Range<usize>]) -> Option<f64> {
        let mut stream = cases::streams(0).open_stream(Purpose::Measure, b"");
        lanczos_largest_eigenvalue((eigenvalues.len(), ranges), &mut stream, |v| {
            Some(v.iter().zip(eigenvalues).map(|(v, e)| v * e).collect())
        })
    }

    #[test]
    fn the_largest_eigenvalue_is_found_among_the_places_or_said_to_be_unknown() {
        let mut eigenvalues: Vec<f64> = (0..300).map(|i| f64::from(i % 7) * 0.25 - 1.0).collect();
        (eigenvalues[5], eigenvalues[200]) = (3.0, 7.0);
        let found = diagonal_top(&eigenvalues, &[0..150, 250..300]).expect("nothing breaks off");
        assert!((found - 3.0).abs() < 1e-6, "{found}");
        let found = diagonal_top(&[-2.0, -5.0, -3.0], std::slice::from_ref(&(0..3)))
            .expect("nothing breaks off");
        assert!((found + 2.0).abs() < 1e-6, "{found}");

        assert_eq!(
            diagonal_top(&[0.0; 4], std::slice::from_ref(&(0..4))),
            Some(0.0)
        );

        // Ten thousand eigenvalues that lie close, the largest ones closest.
        let close: Vec<f64> = (0..10_000)
            .map(|i| -1e-9 - libm::pow(f64::from(i) / 1e4, 4.0))
            .collect();
        assert!(diagonal_top(&close, std::slice::from_ref(&(0..10_000))).is_some_and(f64::is_nan));
        let mut stream = cases::streams(0).open_stream(Purpose::Measure, b"");
        assert_eq!(
            lanczos_largest_eigenvalue((3, std::slice::from_ref(&(0..3))), &mut stream, |_| None),
            None
        );
    }
}
