//! Where numbers stand in the tables of a trial, so that expressions can stand there as well.

use super::layers::CLASSES;
use super::{Length, numeric_field_range};
use crate::spec_file::reader::NumberRange;

/// A place for a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NumberPosition {
    /// The numbers that it accepts.
    pub(crate) range: NumberRange,
    form: NumberForm,
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumberForm {
    /// `0.1`
    Plain,
    /// `0.1`, or a factor such as `"x0.1"`
    Change,
    /// `"50 steps"`
    Length,
    /// `64`, or the word `"classes"`
    Width,
}

/// What the value of an expression is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WrittenNumber {
    /// The number itself, in the field's own unit.
    Plain,
    /// A factor on the present value.
    Factor,
    /// A length in this unit.
    Length(&'static str),
}

const STEPS: NumberRange = NumberRange::whole_numbers(0, 1_000_000_000);
const EPOCHS: NumberRange = NumberRange::whole_numbers(0, 1_000_000);
const LENGTH: NumberRange = NumberRange::whole_numbers(1, 1_000_000_000);
/// The range of widths and numbers of hidden layers.
pub(super) const HIDDEN_WIDTHS: NumberRange = NumberRange::whole_numbers(1, 65_536);
pub(super) const HIDDEN_DEPTHS: NumberRange = NumberRange::whole_numbers(0, 10_000);

/// The places beside the numeric fields; `[]` stands for an item of a list.
const POSITIONS: [(&str, NumberRange, NumberForm); 19] = [
    ("model.hidden[]", HIDDEN_WIDTHS, NumberForm::Plain),
    ("model.hidden.width", HIDDEN_WIDTHS, NumberForm::Plain),
    ("model.hidden.depth", HIDDEN_DEPTHS, NumberForm::Plain),
    ("model.start[]", NumberRange::FINITE, NumberForm::Plain),
    ("train.schedule[].step", STEPS, NumberForm::Plain),
    ("train.schedule[].epoch", EPOCHS, NumberForm::Plain),
    (
        "train.schedule[].lr",
        NumberRange::NON_NEGATIVE,
        NumberForm::Change,
    ),
    (
        "train.schedule[].wd",
        NumberRange::NON_NEGATIVE,
        NumberForm::Change,
    ),
    (
        "train.schedule[].momentum",
        NumberRange::FRACTION,
        NumberForm::Change,
    ),
    ("train.schedule.warmup", LENGTH, NumberForm::Length),
    (
        "train.schedule.end",
        NumberRange::NON_NEGATIVE,
        NumberForm::Change,
    ),
    (
        "train.schedule.factor",
        NumberRange::POSITIVE,
        NumberForm::Plain,
    ),
    ("train.schedule.per", LENGTH, NumberForm::Length),
    ("train.schedule.points[].step", STEPS, NumberForm::Plain),
    ("train.schedule.points[].epoch", EPOCHS, NumberForm::Plain),
    (
        "train.schedule.points[].lr",
        NumberRange::NON_NEGATIVE,
        NumberForm::Change,
    ),
    ("train.average.every", LENGTH, NumberForm::Length),
    ("measure.every", LENGTH, NumberForm::Length),
    ("measure.every[]", LENGTH, NumberForm::Length),
];

/// The place for a number at a path such as `train.schedule[0].step`, if there is one.
pub(crate) fn find_number_position(path: &str) -> Option<NumberPosition> {
    if let Some(range) = numeric_field_range(path) {
        let is_width = path.starts_with("model.layers") && path.ends_with(".linear");
        let form = if is_width {
            NumberForm::Width
        } else {
            NumberForm::Plain
        };
        return Some(NumberPosition { range, form });
    }
    if path.starts_with("model.init.layers.") {
        return Some(NumberPosition::plain(NumberRange::POSITIVE));
    }

    let pattern = replace_indices(path);
    POSITIONS
        .iter()
        .find(|(known, ..)| *known == pattern)
        .map(|(_, range, form)| NumberPosition {
            range: *range,
            form: *form,
        })
}

/// Writes `[]` for each index of a path.
fn replace_indices(path: &str) -> String {
    let mut parts = path.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |pattern, part| {
        let rest = part.split_once(']').map_or("", |(_, rest)| rest);
        format!("{pattern}[]{rest}")
    })
}

impl NumberPosition {
    fn plain(range: NumberRange) -> Self {
        Self {
            range,
            form: NumberForm::Plain,
        }
    }

    /// The expression in a text at this place, and what its value is written as. `None` if the text is no expression, such
    /// as `"x0.1"`.
    pub(crate) fn split_expression(self, text: &str) -> Option<(&str, WrittenNumber)> {
        match self.form {
            NumberForm::Width if text == CLASSES => None,
            NumberForm::Plain | NumberForm::Width => Some((text, WrittenNumber::Plain)),
            NumberForm::Change => split_change(text),
            NumberForm::Length => split_length(text),
        }
    }

    /// The numbers that an expression may have which is written in this way.
    pub(crate) fn range_of(self, written: WrittenNumber) -> NumberRange {
        match written {
            WrittenNumber::Factor => NumberRange::NON_NEGATIVE,
            _ => self.range,
        }
    }
}

/// Splits `"*k"`, `"x(1/k)"` and `"0.1*k"`; `"x0.1"` is no expression.
fn split_change(text: &str) -> Option<(&str, WrittenNumber)> {
    let factor = text.strip_prefix(['x', '*']);
    if factor.is_some_and(|factor| factor.trim().parse::<f64>().is_ok()) {
        return None;
    }

    let is_factor = text.starts_with('*') || text.starts_with("x(");
    match factor.filter(|_| is_factor) {
        Some(factor) => Some((factor, WrittenNumber::Factor)),
        None => Some((text, WrittenNumber::Plain)),
    }
}

/// Splits `"round(4/k) steps"`; `"50 steps"` is no expression, and neither is a text without a unit.
fn split_length(text: &str) -> Option<(&str, WrittenNumber)> {
    let text = text.trim();
    if Length::parse(text).is_some() || text.starts_with("every ") || text.contains(" from ") {
        return None;
    }

    let (number, unit) = text.rsplit_once(char::is_whitespace)?;
    let unit = match unit {
        "step" | "steps" => "steps",
        "epoch" | "epochs" => "epochs",
        _ => return None,
    };
    // A number out of range is told by its reader.
    let is_number = number.trim().parse::<f64>().is_ok();
    (!is_number).then_some((number, WrittenNumber::Length(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_an_expression_unless_it_has_a_meaning_of_its_own() {
        let split = |path: &str, text: &'static str| {
            find_number_position(path)
                .expect("a place for a number")
                .split_expression(text)
        };
        let plain = WrittenNumber::Plain;
        assert_eq!(split("train.lr", "2*wd"), Some(("2*wd", plain)));
        for (text, expected) in [
            ("x0.1", None),
            ("*0.1", None),
            ("0.1*k", Some(("0.1*k", plain))),
            ("x", Some(("x", plain))),
            ("*k", Some(("k", WrittenNumber::Factor))),
            ("x(1/k)", Some(("(1/k)", WrittenNumber::Factor))),
        ] {
            assert_eq!(split("train.schedule[3].lr", text), expected, "{text}");
        }
        for (text, expected) in [
            ("2 epochs", None),
            ("0 steps", None),
            ("final", None),
            ("soon enough", None),
            ("1 epoch from 5 to 10 epochs", None),
            (
                "round(4/k) steps",
                Some(("round(4/k)", WrittenNumber::Length("steps"))),
            ),
            ("2*k epoch", Some(("2*k", WrittenNumber::Length("epochs")))),
        ] {
            assert_eq!(split("measure.every", text), expected, "{text}");
        }
        assert_eq!(find_number_position("data.dataset"), None);
        assert_eq!(find_number_position("train.schedule[0].kind"), None);
    }
}
