//! Formats numbers for people, with as many digits as are significant or distinguish several
//! numbers. Machines get every digit ([`format_significant`]).

use std::collections::HashSet;

/// Powers of ten for which numbers are written without an exponent.
const PLAIN_EXPONENTS: std::ops::Range<i32> = -4..7;
/// Maximum number of decimals without an exponent.
const MAX_DECIMALS: i32 = 8;
/// Significant digits that distinguish every `f64` from its neighbours.
const ALL_DIGITS: usize = 17;

/// Formats a number with at most `digits` significant digits and no trailing zeros: `0.0316`,
/// `2.5e-5`, `1e8`.
pub fn format_significant(x: f64, digits: usize) -> String {
    if x == 0.0 || !x.is_finite() {
        return if x == 0.0 {
            "0".to_owned()
        } else {
            x.to_string()
        };
    }

    let rounded = format!("{x:.*e}", digits.max(1) - 1);
    let Some((mantissa, power)) = rounded.split_once('e') else {
        return rounded;
    };
    let power: i32 = power.parse().unwrap_or_default();
    if PLAIN_EXPONENTS.contains(&power) {
        let decimals = (digits as i32 - 1 - power).max(0) as usize;
        return trim_trailing_zeros(&format!("{x:.decimals$}")).to_owned();
    }

    format!("{}e{power}", trim_trailing_zeros(mantissa))
}

/// A number with so many decimals. What is rounded to zero has no sign.
pub fn format_rounded(x: f64, decimals: usize) -> String {
    let text = format!("{x:.decimals$}");
    let is_zero = text.chars().all(|c| matches!(c, '-' | '0' | '.'));
    if is_zero {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}

/// Removes trailing zeros of a fraction.
fn trim_trailing_zeros(text: &str) -> &str {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}

/// The power of ten of the first digit, after rounding to `digits` digits.
fn decimal_exponent(x: f64, digits: usize) -> i32 {
    let text = format!("{x:.*e}", digits - 1);
    text.split_once('e')
        .and_then(|(_, power)| power.parse().ok())
        .unwrap_or_default()
}

/// The common format of numbers that belong together, all rounded to the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecimalFormat {
    /// The power of ten of the last digit.
    last_exponent: i32,
    /// Whether the numbers are written without an exponent.
    is_plain: bool,
}

impl DecimalFormat {
    /// Rounds to the last of `digits` digits of a spread, for numbers no larger than `largest`.
    /// `None` if the spread is 0 or not finite.
    pub fn from_spread(spread: f64, digits: usize, largest: f64) -> Option<Self> {
        let spread = spread.abs();
        if spread == 0.0 || !spread.is_finite() || !largest.is_finite() {
            return None;
        }

        let last = decimal_exponent(spread, digits) + 1 - digits as i32;
        let largest = largest.abs().max(spread);
        // An `f64` has no more than `ALL_DIGITS` significant digits; further ones would be noise.
        let last = last.max(decimal_exponent(largest, 1) + 1 - ALL_DIGITS as i32);
        Some(Self {
            last_exponent: last,
            is_plain: PLAIN_EXPONENTS.contains(&decimal_exponent(largest, digits)),
        })
    }

    /// Formats a number, rounded to this place.
    pub fn format_number(self, x: f64) -> String {
        let decimals = (-self.last_exponent).max(0);
        let tiny = decimals > MAX_DECIMALS
            && x != 0.0
            && !PLAIN_EXPONENTS.contains(&decimal_exponent(x, 2));

        if !x.is_finite() {
            return x.to_string();
        }
        if !self.is_plain || tiny {
            return self.format_scientific(x);
        }

        format_rounded(x, decimals as usize)
    }

    fn format_scientific(self, x: f64) -> String {
        // Takes the exponent that x has after rounding: 9.96 with one decimal rounds to 10.0.
        let first = if x == 0.0 {
            self.last_exponent - 1
        } else {
            decimal_exponent(x, ALL_DIGITS)
        };
        let digits = (first - self.last_exponent + 1).max(0);
        if digits == 0 {
            let unit = format!("1e{}", self.last_exponent);
            let up = unit.parse::<f64>().is_ok_and(|unit| x.abs() >= unit / 2.0);
            return match (up, x < 0.0) {
                (true, true) => format!("-{unit}"),
                (true, false) => unit,
                (false, _) => "0".to_owned(),
            };
        }

        let digits = (decimal_exponent(x, digits as usize) - self.last_exponent).max(0) as usize;
        format!("{x:.digits$e}")
    }
}

/// `0.9712 ± 0.0013`: two digits of the uncertainty, and the number rounded to the same place.
pub fn format_with_half_width(x: f64, half: f64) -> String {
    match DecimalFormat::from_spread(half, 2, x) {
        Some(place) => format!("{} ± {}", place.format_number(x), place.format_number(half)),
        None => format!(
            "{} ± {}",
            format_significant(x, 6),
            format_significant(half, 2)
        ),
    }
}

/// The format of numbers that must stay distinct, with as few digits as that needs, but at least
/// four. Numbers that are short anyhow keep all their digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DistinctFormat {
    digits: usize,
}

/// Maximum length of a number that counts as short, in characters.
const MAX_SHORT_CHARS: usize = 9;
/// Minimum number of significant digits.
const MIN_DIGITS: usize = 4;
/// Maximum number of values for which the fewest distinct digits are searched.
const MAX_COMPARED_NUMBERS: usize = 20_000;

impl DistinctFormat {
    /// The fewest digits that keep these numbers distinct.
    pub fn from_numbers(numbers: impl Iterator<Item = f64>) -> Self {
        let mut all: Vec<u64> = numbers
            .map(|x| if x == 0.0 { 0 } else { x.to_bits() })
            .take(MAX_COMPARED_NUMBERS + 1)
            .collect();
        if all.len() > MAX_COMPARED_NUMBERS {
            return Self::with_all_digits();
        }

        all.sort_unstable();
        all.dedup();
        let tells = |digits: &usize| {
            let mut seen = HashSet::with_capacity(all.len());
            all.iter().all(|bits| {
                seen.insert(Self { digits: *digits }.format_number(f64::from_bits(*bits)))
            })
        };

        Self {
            digits: (MIN_DIGITS..ALL_DIGITS).find(tells).unwrap_or(ALL_DIGITS),
        }
    }

    /// A format with every digit.
    pub fn with_all_digits() -> Self {
        Self { digits: ALL_DIGITS }
    }

    /// Formats one of the numbers.
    pub fn format_number(self, x: f64) -> String {
        // Zero is one number, whatever its sign.
        let exact = format_shortest(x + 0.0);
        if exact.len() <= MAX_SHORT_CHARS || self.digits >= ALL_DIGITS {
            return exact;
        }

        let text = format_significant(x, self.digits);
        if text.len() < exact.len() {
            text
        } else {
            exact
        }
    }
}

/// Whether a number is short enough to be shown in all of its digits.
pub fn has_short_form(x: f64) -> bool {
    format_shortest(x).len() <= MAX_SHORT_CHARS
}

impl Default for DistinctFormat {
    /// The format of a single number.
    fn default() -> Self {
        Self { digits: MIN_DIGITS }
    }
}

/// Whether `typed` may be `x` as a table shows it: rounded to four digits or more.
pub fn can_round_to(x: f64, typed: f64) -> bool {
    let near = (x - typed).abs() <= 1e-3 * x.abs();
    let same = |digits| format_significant(x, digits).parse() == Ok(typed);
    x == typed || (near && (MIN_DIGITS..ALL_DIGITS).any(same))
}

/// Formats a number with the fewest digits that read back as the same `f64`, without an exponent
/// from 1e-4 up to 1e7.
pub fn format_shortest(x: f64) -> String {
    let magnitude = x.abs();
    if magnitude != 0.0 && !(1e-4..1e7).contains(&magnitude) {
        format!("{x:e}")
    } else {
        format!("{x}")
    }
}

/// A count with its noun, which takes an s unless there is one: `1 sweep`, `24 rows`.
pub fn format_count(n: u64, noun: &str) -> String {
    let ending = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use crate::number_format::*;
    use crate::random_streams;

    /// What a text says, and half a unit of its last digit.
    fn read(text: &str) -> (f64, f64) {
        let (mantissa, power) = text.split_once('e').unwrap_or((text, "0"));
        let decimals = mantissa
            .split_once('.')
            .map_or(0, |(_, decimals)| decimals.len() as i32);
        let unit = format!(
            "1e{}",
            power.parse::<i32>().expect("a power of ten") - decimals
        );

        (
            text.parse().expect("a number"),
            unit.parse::<f64>().expect("a number") / 2.0,
        )
    }

    fn draws(n: u64) -> impl Iterator<Item = f64> {
        (0..n).map(|i| random_streams::uniform_at(&[7; 32], i))
    }

    #[test]
    fn significant_digits_are_plain_where_that_is_short() {
        let cases = [
            (0.9712, "0.9712"),
            (0.5, "0.5"),
            (1.0, "1"),
            (0.0, "0"),
            (-0.0, "0"),
            (123.456_78, "123.5"),
            (0.000_316_227, "0.0003162"),
            (9.999_99e-5, "0.0001"),
            (0.099_999_9, "0.1"),
            (2.3e-10, "2.3e-10"),
            (1e-7, "1e-7"),
            (66_144.2, "66144"),
            (9_999_999.9, "1e7"),
            (1.378_44e43, "1.378e43"),
            (f64::NAN, "NaN"),
        ];

        for (x, text) in cases {
            assert_eq!(format_significant(x, 4), text, "{x:e}");
        }
    }

    #[test]
    fn what_is_rounded_to_zero_has_no_sign() {
        let cases = [
            (-0.3, 0, "0"),
            (-0.0, 2, "0.00"),
            (-0.004, 2, "0.00"),
            (-0.6, 0, "-1"),
            (12.5, 1, "12.5"),
        ];
        for (x, decimals, text) in cases {
            assert_eq!(format_rounded(x, decimals), text, "{x:e}");
        }

        assert_eq!(DistinctFormat::default().format_number(-0.0), "0");
        assert_eq!(DistinctFormat::with_all_digits().format_number(-0.0), "0");
    }

    #[test]
    fn a_mean_has_the_digits_that_its_interval_leaves() {
        let cases = [
            ((0.971_23, 0.001_31), "0.9712 ± 0.0013"),
            ((0.693_2, 0.033_2), "0.693 ± 0.033"),
            ((0.949_1, 0.009_96), "0.949 ± 0.010"),
            ((66_144.2, 62_641.7), "66144 ± 62642"),
            ((1.378_44e43, 3.217e42), "1.38e43 ± 3.2e42"),
            ((2.3e-10, 4.12e-11), "2.30e-10 ± 4.1e-11"),
            ((3e-14, 2.3e-10), "0 ± 2.3e-10"),
            ((-9.97e-11, 1e-9), "-1e-10 ± 1.0e-9"),
            ((0.97, 2.34e-12), "0.9700000000000 ± 2.3e-12"),
            ((0.5, 2e-7), "0.50000000 ± 0.00000020"),
            ((-0.000_01, 0.002_1), "0.0000 ± 0.0021"),
            ((5.0, 0.0), "5 ± 0"),
            ((2.3e-10, 0.0), "2.3e-10 ± 0"),
        ];

        for ((mean, half), text) in cases {
            assert_eq!(format_with_half_width(mean, half), text);
        }
    }

    #[test]
    fn what_is_written_reads_back_within_what_it_leaves_open() {
        let spread: Vec<f64> = draws(4000).collect();
        for pair in spread.chunks_exact(2) {
            let mean = libm::exp((pair[0] - 0.5) * 120.0) * if pair[1] < 0.5 { -1.0 } else { 1.0 };
            let half = mean.abs() * libm::exp((pair[1] - 0.7) * 50.0);
            let text = format_with_half_width(mean, half);
            let (left, right) = text.split_once(" ± ").expect("two numbers");
            for (x, text) in [(mean, left), (half, right)] {
                let (read, unit) = read(text);
                let rest = 4.0 * f64::EPSILON * x.abs();
                assert!(
                    (read - x).abs() <= unit.max(0.05 * half) + rest,
                    "{x:e}: {text}"
                );
            }

            // Two digits of what is uncertain are there, unless the number itself has none that are so small.
            let (read, _) = read(right);
            let has_digits = half > 1e-14 * mean.abs();
            assert!(
                !has_digits || (read - half).abs() <= 0.051 * half,
                "{half:e}: {text}"
            );

            for digits in 1..=8 {
                let text = format_significant(mean, digits);
                let near = (text.parse::<f64>().expect("a number") - mean).abs();
                assert!(
                    near <= mean.abs() * 0.51 * libm::exp10(1.0 - digits as f64),
                    "{mean:e}: {text}"
                );
            }
        }
    }

    #[test]
    fn values_of_an_axis_are_told_apart_in_few_digits() {
        let rates: Vec<f64> = draws(300)
            .map(|u| libm::exp(libm::log(1e-7) * (1.0 - u)))
            .collect();
        let line: Vec<f64> = (0..64)
            .map(|i| 1.999 + 0.002 * f64::from(i) / 63.0)
            .collect();
        let near: Vec<f64> = (0..64)
            .map(|i| f64::from_bits(1.0_f64.to_bits() + i))
            .collect();

        let mixed = vec![1.9995, 1.999_500_1, 1.999_507_936_51, 2.0, 1e-300, 0.0];
        for axis in [rates, line, near, mixed] {
            let names = DistinctFormat::from_numbers(axis.iter().copied());
            let texts: HashSet<String> = axis.iter().map(|x| names.format_number(*x)).collect();
            assert_eq!(texts.len(), axis.len(), "{texts:?}");

            for x in &axis {
                let (back, unit) = read(&names.format_number(*x));
                assert!(
                    (back - x).abs() <= unit * (1.0 + 1e-9),
                    "{x:e}: {}",
                    names.format_number(*x)
                );

                assert!(can_round_to(*x, back), "{x:e} {back:e}");
            }
        }

        let few = DistinctFormat::from_numbers([0.01, 0.031_622_776_601_7, 0.1].into_iter());
        assert_eq!(
            [0.01, 0.031_622_776_601_7, 0.1, 1e-7].map(|x| few.format_number(x)),
            ["0.01", "0.03162", "0.1", "1e-7"]
        );
    }

    #[test]
    fn a_value_is_meant_by_any_of_its_roundings() {
        assert!(can_round_to(1.999_507_936_51, 2.0) && can_round_to(1.999_507_936_51, 1.9995));
        assert!(can_round_to(0.031_622_776_6, 0.031_62) && !can_round_to(0.031_622_776_6, 0.0316));
        assert!(!can_round_to(1.999, 2.0) && can_round_to(1e-7, 1e-7));
    }
}
