//! The expressions of `[derive]` and `[where]`.
//!
//! Parsing is `exmex`'s; the operators are our own, so that every machine computes the same bits: powers, roots and
//! logarithms come from `libm`, never from the host's C library. A comparison yields 1 or 0. As in `exmex`, a sign
//! binds tighter than a power: `-x^2` is `(-x)^2`.

use exmex::prelude::*;
use exmex::{BinOp, MakeOperators, MatchLiteral, Operator, literal_matcher_from_pattern};

fn truth(condition: bool) -> f64 {
    f64::from(u8::from(condition))
}

fn binary(apply: fn(f64, f64) -> f64, prio: i64) -> BinOp<f64> {
    BinOp { apply, prio, is_commutative: false }
}

literal_matcher_from_pattern!(Number, r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?");

#[derive(Clone, Debug)]
struct Operators;

impl MakeOperators<f64> for Operators {
    fn make<'a>() -> Vec<Operator<'a, f64>> {
        vec![
            Operator::make_bin("||", binary(|a, b| truth(a != 0.0 || b != 0.0), 0)),
            Operator::make_bin("&&", binary(|a, b| truth(a != 0.0 && b != 0.0), 1)),
            Operator::make_bin("==", binary(|a, b| truth(a == b), 2)),
            Operator::make_bin("!=", binary(|a, b| truth(a != b), 2)),
            Operator::make_bin("<=", binary(|a, b| truth(a <= b), 2)),
            Operator::make_bin(">=", binary(|a, b| truth(a >= b), 2)),
            Operator::make_bin("<", binary(|a, b| truth(a < b), 2)),
            Operator::make_bin(">", binary(|a, b| truth(a > b), 2)),
            Operator::make_bin_unary("+", binary(|a, b| a + b, 3), |a| a),
            Operator::make_bin_unary("-", binary(|a, b| a - b, 3), |a| -a),
            Operator::make_bin("*", binary(|a, b| a * b, 4)),
            Operator::make_bin("/", binary(|a, b| a / b, 4)),
            Operator::make_bin("^", binary(libm::pow, 5)),
            Operator::make_bin("min", binary(f64::min, 6)),
            Operator::make_bin("max", binary(f64::max, 6)),
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
pub struct Expr {
    text: String,
    flat: FlatEx<f64, Operators, Number>,
}

impl Expr {
    /// Parses `text`. Dotted names such as `model.init.scale` are names.
    ///
    /// # Errors
    /// What is wrong with the text, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let flat = FlatEx::parse(&brace_dotted_names(text)).map_err(|e| e.msg().to_owned())?;
        Ok(Self { text: text.to_owned(), flat })
    }

    /// The text it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Names used, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.flat.var_names().iter().map(String::as_str).collect()
    }

    /// Its value, given those of [`names`](Self::names) in that order; NaN where it has none.
    pub fn eval(&self, values: &[f64]) -> f64 {
        self.flat.eval(values).unwrap_or(f64::NAN)
    }
}

/// `exmex` takes names with dots only in braces.
fn brace_dotted_names(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_name = first.is_ascii_alphabetic() || first == '_';
        let part_of = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let len = if part_of(first) { rest.find(|c| !part_of(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(text: &str, values: &[f64]) -> f64 {
        Expr::parse(text).expect("valid expression").eval(values)
    }

    #[test]
    fn arithmetic_and_comparisons_have_the_usual_precedence() {
        assert_eq!(eval("1 + 2 * 3 ^ 2 / 9", &[]), 3.0);
        assert_eq!(eval("lr * wd <= 1e-3 && lr < 1", &[0.1, 1e-2]), 1.0);
        assert_eq!(eval("lr * wd <= 1e-3 || lr > 1", &[0.5, 1e-2]), 0.0);
        assert_eq!(eval("8 - 4 - 2", &[]), 2.0);
        assert_eq!(eval("max(2, x) / min(4, x)", &[3.0]), 1.0);
        assert_eq!(eval("1.5e-3 * 2E3", &[]), 3.0);
    }

    #[test]
    fn dotted_names_are_names_and_numbers_are_not() {
        let expr = Expr::parse("model.init.scale * 0.5 + a_1").expect("valid expression");
        assert_eq!(expr.names(), ["a_1", "model.init.scale"]);
        assert_eq!(expr.eval(&[1.0, 4.0]), 3.0);
    }

    #[test]
    fn nonsense_is_an_error_not_a_panic() {
        for text in ["", "lr *", "(lr", "lr lr", "lr <", "1..2", "{", "𝛼 🦀", "a..b", "min(", ",", "lr wd +"] {
            let _ = Expr::parse(text).map(|e| e.eval(&vec![1.0; e.names().len()]));
        }
        assert!(Expr::parse("lr *").is_err());
    }
}
