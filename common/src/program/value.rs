//! Values of axes and derived fields that a program gets.

use std::fmt;

use serde::{Serialize, Serializer};

/// Largest whole number up to which an `f64` keeps every one.
const MAX_WHOLE_NUMBER: f64 = (1_u64 << 53) as f64;

/// A value of an axis or of a derived field.
///
/// `Display` is the text that takes the place of `{name}`: a number has the fewest digits that read back as the same `f64`,
/// without an exponent from 1e-7 up to 1e21, and whole ones have no point.
#[derive(Debug, Clone, PartialEq)]
pub enum ProgramValue {
    /// A number.
    Number(f64),
    /// A string.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
}

impl fmt::Display for ProgramValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(x) if *x == 0.0 || (1e-7..1e21).contains(&x.abs()) => write!(f, "{x}"),
            Self::Number(x) => write!(f, "{x:e}"),
            Self::Text(text) => f.write_str(text),
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}

/// The value with all its bits. Whole numbers have no point, so that they can be counted with.
impl Serialize for ProgramValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(x) if x.fract() == 0.0 && x.abs() <= MAX_WHOLE_NUMBER => {
                serializer.serialize_i64(*x as i64)
            }
            Self::Number(x) => serializer.serialize_f64(*x),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bool(value) => serializer.serialize_bool(*value),
        }
    }
}

/// Whether a text is a name of ASCII letters, digits and `_` that begins with no digit.
pub(crate) fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use crate::program::value::*;

    #[test]
    fn a_number_as_text_reads_back_as_the_same_bits() {
        let expected = [
            (0.1, "0.1"),
            (1e-5, "0.00001"),
            (1e-8, "1e-8"),
            (60000.0, "60000"),
            (1e20, "100000000000000000000"),
            (1e22, "1e22"),
            (-3.0, "-3"),
            (0.1 + 0.2, "0.30000000000000004"),
        ];
        for (x, text) in expected {
            assert_eq!(ProgramValue::Number(x).to_string(), text);
        }

        for bits in (0..2000_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let x = f64::from_bits(bits);
            if x.is_finite() {
                let text = ProgramValue::Number(x).to_string();
                assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(bits), "{text}");
            }
        }
    }
}
