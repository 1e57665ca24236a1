//! Norms, distances and angles of vectors, over ranges of their entries.

use std::ops::Range;

/// Numbers that weights are made of: f32, or f64 for the toy loss.
pub(crate) trait Number: Copy + Into<f64> {}

impl Number for f32 {}
impl Number for f64 {}

/// Σ a·b, from the first entry to the last.
pub(crate) fn dot_product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>()
}

/// ‖x‖².
pub(crate) fn sum_of_squares<T: Number>(ranges: &[Range<usize>], x: &[T]) -> f64 {
    sum_over_ranges(ranges, |i| square(x[i]))
}

/// ‖b − a‖.
pub(crate) fn euclidean_distance<T: Number>(ranges: &[Range<usize>], a: &[T], b: &[T]) -> f64 {
    sum_over_ranges(ranges, |i| square(b[i].into() - a[i].into())).sqrt()
}

/// ⟨a, b⟩.
pub(crate) fn inner_product<T: Number>(ranges: &[Range<usize>], a: &[T], b: &[T]) -> f64 {
    sum_over_ranges(ranges, |i| a[i].into() * b[i].into())
}

/// The cosine of the angle between two vectors; NaN where one of them is 0.
pub(crate) fn cosine_similarity<T: Number>(ranges: &[Range<usize>], a: &[T], b: &[T]) -> f64 {
    let product = inner_product(ranges, a, b);
    product / (sum_of_squares(ranges, a).sqrt() * sum_of_squares(ranges, b).sqrt())
}

/// The angle between two vectors in radians, accurate for small ones too (Kahan 2006).
pub(crate) fn angle_between<T: Number>(ranges: &[Range<usize>], a: &[T], b: &[T]) -> f64 {
    let difference = unit_combination_norm(ranges, a, -1.0, b);
    let sum = unit_combination_norm(ranges, a, 1.0, b);
    2.0 * libm::atan2(difference, sum)
}

/// ‖a/‖a‖ + sign·b/‖b‖‖.
pub(crate) fn unit_combination_norm<T: Number>(
    ranges: &[Range<usize>],
    a: &[T],
    sign: f64,
    b: &[T],
) -> f64 {
    let a_norm = sum_of_squares(ranges, a).sqrt();
    let b_norm = sum_of_squares(ranges, b).sqrt();
    sum_over_ranges(ranges, |i| {
        square(a[i].into() / a_norm + sign * b[i].into() / b_norm)
    })
    .sqrt()
}

pub(crate) fn square(x: impl Number) -> f64 {
    x.into() * x.into()
}

/// Σ f(i) over the ranges, in eight interleaved sums, added in a fixed order.
pub(crate) fn sum_over_ranges(ranges: &[Range<usize>], f: impl Fn(usize) -> f64) -> f64 {
    let mut parts = [0.0; 8];
    for range in ranges {
        // Steps of 8 stay within a range, because ranges are whole blocks long.
        for at in range.clone().step_by(8) {
            for (lane, part) in parts.iter_mut().enumerate() {
                *part += f(at + lane);
            }
        }
    }

    parts.iter().sum()
}
