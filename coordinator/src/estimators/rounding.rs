//! What rounding alone makes of numbers that are equal.

/// Largest difference that rounding makes between equal numbers, or between equal differences such as 0.93 − 0.92 and 0.91 − 0.9. It
/// depends on these two numbers alone, because a large number elsewhere rounds nothing here.
pub fn rounding_of_difference(a: f64, b: f64) -> f64 {
    4.0 * f64::EPSILON * a.abs().max(b.abs())
}

/// A number, or 0 if rounding may have made it of 0.
pub fn clear_rounding(x: f64, rounding: f64) -> f64 {
    if x.abs() <= rounding { 0.0 } else { x }
}

/// The decimal number with the fewest digits between two finite ends, which may be one of them.
pub fn shortest_decimal_between(low: f64, high: f64) -> f64 {
    if low <= 0.0 && 0.0 <= high {
        return 0.0;
    }

    let middle = low + 0.5 * (high - low);
    let mut rounded =
        (0..17).filter_map(|digits| format!("{middle:.digits$e}").parse::<f64>().ok());
    rounded.find(|x| (low..=high).contains(x)).unwrap_or(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_between_has_the_fewest_digits() {
        for (low, high, wanted) in [
            (0.17 - 0.18, 0.18 - 0.19, -0.01),
            (0.124, 0.126, 0.125),
            (0.19, 0.31, 0.2),
            (-1e-17, 2e-17, 0.0),
            (2.0, 2.0, 2.0),
            (1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0),
        ] {
            let [low, high] = [f64::min(low, high), f64::max(low, high)];
            assert_eq!(shortest_decimal_between(low, high), wanted, "{low} {high}");
        }
    }
}
