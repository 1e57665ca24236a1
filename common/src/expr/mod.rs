//! The expressions of `[derive]`, `[where]` and `--where`.
//!
//! ```text
//! condition := and { "||" and }                    and := chain { "&&" chain }
//! chain     := sum { ("<" | "<=" | ">" | ">=" | "==" | "!=") sum }
//! sum       := product { ("+" | "-") product }     product := signed { ("*" | "/") signed }
//! signed    := ("+" | "-") signed | power          power   := value [ "^" signed ]
//! value     := number | name | "{" any name "}" | function "(" condition { "," condition } ")" | "(" condition ")"
//! ```
//!
//! They mean what they mean in mathematics: `-x^2` is −(x²), `2^3^2` is 2⁹, and a chain holds where each of its comparisons
//! does, `0.01 < lr < 0.1` where lr is between the two. What a comparison yields counts as 1 or 0 where a number is wanted; a
//! number is no condition. Functions are sqrt, exp, ln, log2, log10, abs, floor, ceil, round, and min and max of two or more; without
//! parentheses behind them these are names like any others. Of what has no value, such as the root of a negative number, nothing is true
//! and nothing is false.
//!
//! Every machine computes the same bits: powers, roots and logarithms come from `libm`, never from the host's C library.

mod legacy;
mod parse;
mod stack_code;
#[cfg(test)]
mod tests;
mod token;

use legacy::LegacyExpr;
use parse::ParsedExpr;
use stack_code::StackCode;

/// Longest expression, in bytes.
const MAX_EXPR_BYTES: usize = 4096;

/// A parsed expression over named numbers.
#[derive(Debug, Clone)]
pub struct Expr {
    form: ExprForm,
    min_grammar: u32,
}

#[derive(Debug, Clone)]
enum ExprForm {
    Legacy(Box<LegacyExpr>),
    Code(StackCode),
}

/// A condition that may compare names with words in quotes.
#[derive(Debug, Clone)]
pub struct WordExpr {
    /// The condition; a word stands for [`word_number`] of its place in `words`.
    pub expr: Expr,
    /// The words in it.
    pub words: Vec<String>,
}

impl Expr {
    /// Parses `text` as a version of the grammar of sweep files does ([`GRAMMAR`](crate::spec_file::grammar::GRAMMAR)). Dotted names such as
    /// `model.init.scale` are names.
    ///
    /// # Errors
    /// The text is no expression; the message says why.
    pub fn parse(text: &str, grammar: u32) -> Result<Self, String> {
        if grammar == 1 {
            return Ok(Self {
                form: ExprForm::Legacy(Box::new(LegacyExpr::parse(text)?)),
                min_grammar: grammar,
            });
        }

        let ParsedExpr {
            code,
            words,
            needs_new_grammar: is_new,
        } = parse::parse_expr(text)?;
        if let Some(word) = words.first() {
            return Err(format!("expected numbers, found the word \"{word}\""));
        }

        // Older programs read what they can.
        let as_before =
            !is_new && LegacyExpr::parse(text).is_ok_and(|first| first.agrees_with(&code));
        Ok(Self {
            form: ExprForm::Code(code),
            min_grammar: if as_before { 1 } else { 2 },
        })
    }

    /// The names used, sorted.
    pub fn names(&self) -> Vec<&str> {
        match &self.form {
            ExprForm::Legacy(first) => first.names(),
            ExprForm::Code(code) => code.names(),
        }
    }

    /// Value of the expression, given those of [`names`](Self::names) in that order; NaN where it has none.
    pub fn eval(&self, values: &[f64]) -> f64 {
        match &self.form {
            ExprForm::Legacy(first) => first.eval(values),
            ExprForm::Code(code) => code.eval(values),
        }
    }

    /// Whether it says something that is true or false. Version 1 of the grammar takes any number for that.
    pub fn is_condition(&self) -> bool {
        match &self.form {
            ExprForm::Legacy(_) => true,
            ExprForm::Code(code) => code.is_condition(),
        }
    }

    /// The earliest version of the grammar in which its text means the same, as far as it is parsed in that or a later one.
    pub fn min_grammar(&self) -> u32 {
        self.min_grammar
    }

    /// Steps of an evaluation, about. It is not known of version 1 of the grammar, which new sweeps are not read in.
    pub fn evaluation_cost(&self) -> u64 {
        match &self.form {
            ExprForm::Legacy(_) => 0,
            ExprForm::Code(code) => code.evaluation_cost(),
        }
    }
}

impl WordExpr {
    /// Parses a condition.
    ///
    /// # Errors
    /// The text is no expression; the message says why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let ParsedExpr { code, words, .. } = parse::parse_expr(text)?;
        if !code.is_condition() {
            return Err("it compares nothing".to_owned());
        }

        Ok(Self {
            expr: Expr {
                form: ExprForm::Code(code),
                min_grammar: 2,
            },
            words,
        })
    }
}

/// The number that the `at`-th word of a condition stands for. No value of an axis and no statistic is such a number.
pub fn word_number(at: usize) -> f64 {
    f64::from_bits(f64::MAX.to_bits() - at as u64)
}

/// The number that a word stands for which is none of those in a condition.
pub fn other_word_number(word: &str) -> f64 {
    // 2^40 numbers away from the others, so that two words of a table are equal only if they are the same, or by chance.
    let print = word.bytes().fold(0_u64, |h, byte| {
        (h ^ u64::from(byte))
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(5)
    });
    f64::from_bits(f64::MAX.to_bits() - (1 << 40) - (print >> 24))
}

fn truth_value(condition: bool) -> f64 {
    f64::from(u8::from(condition))
}
