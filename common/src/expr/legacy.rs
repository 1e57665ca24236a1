//! Expressions of grammar 1, which stored sweeps may have. This module must not change.
//!
//! `exmex` parses; the operators are defined here. A comparison yields 1 or 0, also in a chain. As
//! in `exmex`, a sign binds tighter than a power: `-x^2` is `(-x)^2`.

use exmex::prelude::*;
use exmex::{BinOp, MakeOperators, MatchLiteral, Operator, literal_matcher_from_pattern};

use super::stack_code::StackCode;
use super::truth_value;

fn binary_operator(apply: fn(f64, f64) -> f64, prio: i64) -> BinOp<f64> {
    BinOp {
        apply,
        prio,
        is_commutative: false,
    }
}

literal_matcher_from_pattern!(Number, r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?");

#[derive(Clone, Debug)]
struct LegacyOperators;

impl MakeOperators<f64> for LegacyOperators {
    fn make<'a>() -> Vec<Operator<'a, f64>> {
        vec![
            Operator::make_bin(
                "||",
                binary_operator(|a, b| truth_value(a != 0.0 || b != 0.0), 0),
            ),
            Operator::make_bin(
                "&&",
                binary_operator(|a, b| truth_value(a != 0.0 && b != 0.0), 1),
            ),
            Operator::make_bin("==", binary_operator(|a, b| truth_value(a == b), 2)),
            Operator::make_bin("!=", binary_operator(|a, b| truth_value(a != b), 2)),
            Operator::make_bin("<=", binary_operator(|a, b| truth_value(a <= b), 2)),
            Operator::make_bin(">=", binary_operator(|a, b| truth_value(a >= b), 2)),
            Operator::make_bin("<", binary_operator(|a, b| truth_value(a < b), 2)),
            Operator::make_bin(">", binary_operator(|a, b| truth_value(a > b), 2)),
            Operator::make_bin_unary("+", binary_operator(|a, b| a + b, 3), |a| a),
            Operator::make_bin_unary("-", binary_operator(|a, b| a - b, 3), |a| -a),
            Operator::make_bin("*", binary_operator(|a, b| a * b, 4)),
            Operator::make_bin("/", binary_operator(|a, b| a / b, 4)),
            Operator::make_bin("^", binary_operator(libm::pow, 5)),
            Operator::make_bin("min", binary_operator(f64::min, 6)),
            Operator::make_bin("max", binary_operator(f64::max, 6)),
            Operator::make_unary("sqrt", libm::sqrt),
            Operator::make_unary("exp", libm::exp),
            Operator::make_unary("ln", libm::log),
            Operator::make_unary("log2", libm::log2),
            Operator::make_unary("log10", libm::log10),
            Operator::make_unary("abs", libm::fabs),
            Operator::make_unary("floor", libm::floor),
            Operator::make_unary("ceil", libm::ceil),
            Operator::make_unary("round", libm::round),
        ]
    }
}

/// A parsed expression over named numbers.
#[derive(Clone, Debug)]
pub(super) struct LegacyExpr(FlatEx<f64, LegacyOperators, Number>);

/// Number of points at which two expressions are compared to see whether they mean the same.
const AGREEMENT_TRIES: u64 = 64;

impl LegacyExpr {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let flat = FlatEx::parse(&brace_dotted_names(text)).map_err(|e| e.msg().to_owned())?;
        Ok(Self(flat))
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.0.var_names().iter().map(String::as_str).collect()
    }

    pub(super) fn eval(&self, values: &[f64]) -> f64 {
        self.0.eval(values).unwrap_or(f64::NAN)
    }

    /// Whether this expression means the same as one of a later grammar, wherever that has a value.
    /// Compares the names, and the values at numbers of either sign and all sizes, some of them
    /// equal. Expressions that differ have different values at nearly all of these.
    pub(super) fn agrees_with(&self, code: &StackCode) -> bool {
        if self.names() != code.names() {
            return false;
        }

        let names = self.names().len() as u64;
        let number = |n: u64| {
            let lot = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let sizes = [0.0, 1e-3, 0.1, 0.5, 1.0, 2.0, 3.0, 40.0];
            let size = sizes[(lot >> 61) as usize] * if lot >> 60 & 1 == 0 { 1.0 } else { -1.0 };

            if lot >> 58 & 3 == 0 {
                size
            } else {
                size * ((lot >> 32) & 0xff_ffff) as f64 / f64::from(1 << 23)
            }
        };

        (0..AGREEMENT_TRIES).all(|attempt| {
            let values: Vec<f64> = (0..names)
                .map(|name| number(attempt * names + name + 1))
                .collect();
            let a = self.eval(&values);
            let b = code.eval(&values);
            a.to_bits() == b.to_bits() || b.is_nan()
        })
    }
}

/// Puts braces around dotted names, which `exmex` requires.
fn brace_dotted_names(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_name = first.is_ascii_alphabetic() || first == '_';
        let part_of = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let len = if part_of(first) {
            rest.find(|c| !part_of(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (token, tail) = rest.split_at(len);
        if is_name && token.contains('.') {
            out.push_str(&format!("{{{token}}}"));
        } else {
            out.push_str(token);
        }

        rest = tail;
    }

    out
}
