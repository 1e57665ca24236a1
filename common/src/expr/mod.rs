//! The expressions of `[derive]`, `[where]`, `--where` and `--having`.
//!
//! ```text
//! condition := and { "||" and }                    and := chain { "&&" chain }
//! chain     := sum { ("<" | "<=" | ">" | ">=" | "==" | "!=") sum }
//! sum       := product { ("+" | "-") product }     product := signed { ("*" | "/") signed }
//! signed    := ("+" | "-") signed | power          power   := value [ "^" signed ]
//! value     := number | name | "{" any name "}" | function "(" condition { "," condition } ")" | "(" condition ")"
//! ```
//!
//! Operators mean what they mean in mathematics: `-x^2` is −(x²), `2^3^2` is 2⁹, and a chain such
//! as `0.01 < lr < 0.1` holds if each of its comparisons holds. A comparison counts as 1 or 0 where
//! a number is expected; a number is no condition. Words stand in quotes of either kind. The functions are sqrt, exp, ln, log2, log10,
//! abs, floor, ceil, round, and min and max of two or more; without parentheses after them, these
//! words are ordinary names. About something without a value, such as the root of a negative
//! number, no statement is true and none is false.
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
pub use stack_code::SeriesInput;
use stack_code::StackCode;

use crate::spec_file::node::SpecValue;

/// Maximum length of an expression, in bytes.
pub const MAX_EXPR_BYTES: usize = 4096;

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

/// An expression that may compare names with quoted words.
#[derive(Debug, Clone)]
pub struct WordExpr {
    /// The expression. A word stands for [`word_number`] of its index in `words`.
    pub expr: Expr,
    /// The words in the condition.
    pub words: Vec<String>,
}

impl Expr {
    /// Parses `text` in a version of the grammar of sweep files
    /// ([`GRAMMAR`](crate::spec_file::grammar::GRAMMAR)). Dotted names such as `model.init.scale`
    /// are names.
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

        // Expressions that the first grammar reads alike keep version 1, so that older programs can
        // run them.
        let as_before =
            !is_new && LegacyExpr::parse(text).is_ok_and(|first| first.agrees_with(&code));
        Ok(Self {
            form: ExprForm::Code(code),
            min_grammar: if as_before { 1 } else { 2 },
        })
    }

    /// The names in the expression, sorted.
    pub fn names(&self) -> Vec<&str> {
        match &self.form {
            ExprForm::Legacy(first) => first.names(),
            ExprForm::Code(code) => code.names(),
        }
    }

    /// The value of the expression, given the values of [`names`](Self::names) in that order. NaN
    /// if it is undefined.
    pub fn eval(&self, values: &[f64]) -> f64 {
        match &self.form {
            ExprForm::Legacy(first) => first.eval(values),
            ExprForm::Code(code) => code.eval(values),
        }
    }

    /// The values of the expression at each of `length` samples, given those of [`names`](Self::names) in that order. The bits are
    /// those of [`eval`](Self::eval).
    pub fn eval_series(&self, inputs: &[SeriesInput<'_>], length: usize) -> Vec<f64> {
        match &self.form {
            ExprForm::Legacy(first) => {
                let mut values = vec![0.0; inputs.len()];
                let samples = (0..length).map(|sample| {
                    for (value, input) in values.iter_mut().zip(inputs) {
                        *value = input.at_sample(sample);
                    }
                    first.eval(&values)
                });
                samples.collect()
            }
            ExprForm::Code(code) => code.eval_series(inputs, length),
        }
    }

    /// Whether the expression is true or false rather than a number. Grammar 1 accepts any number
    /// as a condition.
    pub fn is_condition(&self) -> bool {
        match &self.form {
            ExprForm::Legacy(_) => true,
            ExprForm::Code(code) => code.is_condition(),
        }
    }

    /// The earliest version of the grammar in which the text means the same.
    pub fn min_grammar(&self) -> u32 {
        self.min_grammar
    }

    /// Approximate number of steps of an evaluation. Unknown for grammar 1, which new sweeps do not
    /// use.
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
        let parsed = Self::parse_quantity(text)?;
        if !parsed.expr.is_condition() {
            return Err("it compares nothing".to_owned());
        }
        if let Some(word) = parsed
            .words
            .first()
            .filter(|_| parsed.expr.names().is_empty())
        {
            return Err(format!(
                "it compares words alone, such as \"{word}\": names stand without quotes, as in lr == 0.1"
            ));
        }
        Ok(parsed)
    }

    /// Parses an expression, a condition or not.
    ///
    /// # Errors
    /// The text is no expression; the message says why.
    pub fn parse_quantity(text: &str) -> Result<Self, String> {
        let ParsedExpr { code, words, .. } = parse::parse_expr(text)?;
        Ok(Self {
            expr: Expr {
                form: ExprForm::Code(code),
                min_grammar: 2,
            },
            words,
        })
    }

    /// The number that a value has in the expression; NaN if it can meet no comparison.
    pub fn value_number(&self, value: &SpecValue) -> f64 {
        value_number(&self.words, value)
    }

    /// Whether the condition holds for these values of the names. A comparison with an undefined value
    /// fulfils no condition.
    pub fn is_met(&self, values: &[f64]) -> bool {
        let value = self.expr.eval(values);
        value != 0.0 && !value.is_nan()
    }
}

/// The number that a value has in an expression with these words; NaN if it can meet no comparison.
pub fn value_number(words: &[String], value: &SpecValue) -> f64 {
    match value {
        SpecValue::Bool(flag) => truth_value(*flag),
        SpecValue::Str(text) => text_number(words, text),
        // Tables show lists and tables as texts, and conditions compare what tables show.
        SpecValue::List(_) | SpecValue::Table(_) => text_number(words, &value.to_string()),
        other => other.as_f64().unwrap_or(f64::NAN),
    }
}

/// The number of a text in an expression with these words. Without words, no comparison with a text can hold.
fn text_number(words: &[String], text: &str) -> f64 {
    if words.is_empty() {
        return f64::NAN;
    }
    let at = words.iter().position(|word| word == text);
    at.map_or_else(|| other_word_number(text), word_number)
}

/// The number that stands for the `at`-th word of a condition. No value of an axis and no statistic
/// equals it.
pub fn word_number(at: usize) -> f64 {
    f64::from_bits(f64::MAX.to_bits() - at as u64)
}

/// The number that stands for a word outside the condition.
pub fn other_word_number(word: &str) -> f64 {
    // Keeps 2^40 numbers away from the words of the condition. Two words of a table then share a
    // number only if their hashes collide.
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
