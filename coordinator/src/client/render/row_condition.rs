//! Conditions on rows and their order, for every kind of rows with named columns.

use std::cmp::Ordering;

use ergodic_common::ErrorCode;
use ergodic_common::expr::{Expr, WordExpr, other_word_number, word_number};
use ergodic_common::number_format::{can_round_to, format_count};
use ergodic_common::spec_file::node::SpecValue;
use ergodic_common::spec_file::suggest::suggest_nearest;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::column_selection::find_name;
use super::exact_value;
use super::statistics_data::STATISTICS;

/// How to type a value with a comma, of which there may be some in the names of cases.
pub const QUOTED_VALUES: &str = "a value with a comma stands in quotes, as in 'case=\"a=1,b=2\"'";

/// Rows of axis values and further columns.
pub trait SelectableRows {
    /// What has no axis or column of a name, as the beginning of a message: `the table has no axis
    /// or statistic`.
    fn missing_name(&self) -> &'static str;
    /// Names of the axes.
    fn axis_names(&self) -> &[String];
    /// Names of the further columns.
    fn column_names(&self) -> Vec<&str>;
    /// Number of rows.
    fn row_count(&self) -> usize;
    /// The value of an axis in a row.
    fn axis_value(&self, row: usize, axis: usize) -> &v1::AxisValue;
    /// The value of a further column in a row.
    fn column_value(&self, row: usize, column: usize) -> ColumnValue<'_>;
}

/// A value of a column that is no axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ColumnValue<'a> {
    /// A number; NaN if it is missing.
    Number(f64),
    /// A word.
    Word(&'a str),
}

/// A statistic by its position among `STATISTICS`.
fn read_statistic(s: &v1::Summary, at: usize) -> Option<f64> {
    match STATISTICS[at] {
        "n" => Some(s.n as f64),
        "diverged" => Some(s.diverged as f64),
        "failed" => Some(s.failed as f64),
        "mean" => s.mean,
        "std" => s.std,
        "ci95_low" => s.ci95_low,
        "ci95_high" => s.ci95_high,
        "min" => s.min,
        "median" => s.median,
        _ => s.max,
    }
}

impl SelectableRows for v1::TableResponse {
    fn missing_name(&self) -> &'static str {
        "the table has no axis or statistic"
    }

    fn axis_names(&self) -> &[String] {
        &self.axes
    }

    fn column_names(&self) -> Vec<&str> {
        let chosen = self.columns.iter().map(String::as_str);
        chosen.chain(STATISTICS).collect()
    }

    fn row_count(&self) -> usize {
        self.rows.len()
    }

    fn axis_value(&self, row: usize, axis: usize) -> &v1::AxisValue {
        &self.rows[row].values[axis]
    }

    fn column_value(&self, row: usize, column: usize) -> ColumnValue<'_> {
        let row = &self.rows[row];
        let number = match column.checked_sub(self.columns.len()) {
            None => row.figures.get(column).copied(),
            Some(at) => read_statistic(&row.summary.unwrap_or_default(), at),
        };
        ColumnValue::Number(number.unwrap_or(f64::NAN))
    }
}

/// The source of a number in a row.
#[derive(Debug, Clone, Copy)]
enum NumberSource {
    Axis(usize),
    Column(usize),
    Constant(f64),
}

fn find_number_source(rows: &impl SelectableRows, name: &str) -> Option<NumberSource> {
    let axis = find_axis(rows, name).map(NumberSource::Axis);
    axis.or_else(|| {
        let column = rows
            .column_names()
            .iter()
            .position(|column| *column == name);
        column.map(NumberSource::Column)
    })
}

/// Finds the axis with this name, or else the only one whose path ends in it.
fn find_axis(rows: &impl SelectableRows, name: &str) -> Option<usize> {
    let axes: Vec<&str> = rows.axis_names().iter().map(String::as_str).collect();
    find_name(name, &axes)
}

fn unknown_name_error(rows: &impl SelectableRows, option: &str, name: &str) -> UserError {
    // Axes may be named by the last part of their path, so these names are suggested too.
    let axes = || rows.axis_names().iter().map(String::as_str);
    let parts = axes().filter_map(|axis| axis.rsplit_once('.').map(|(_, last)| last));
    let known = axes().chain(parts).chain(rows.column_names());
    let message = format!(
        "{option}: {} '{name}', {}",
        rows.missing_name(),
        suggest_nearest(name, known)
    );

    UserError::new(ErrorCode::NotFound, message)
}

impl NumberSource {
    fn read_number(self, rows: &impl SelectableRows, row: usize, words: &ConditionWords) -> f64 {
        match self {
            Self::Constant(x) => x,
            Self::Axis(at) => words.axis_number(rows.axis_value(row, at)),
            Self::Column(at) => match rows.column_value(row, at) {
                ColumnValue::Number(x) => x,
                ColumnValue::Word(word) => words.word_number(word),
            },
        }
    }

    /// The value in a row; `None` for a constant, and for a column of numbers.
    fn read_value(self, rows: &impl SelectableRows, row: usize) -> Option<SpecValue> {
        match self {
            Self::Constant(_) => None,
            Self::Axis(at) => Some(SpecValue::from(rows.axis_value(row, at))),
            Self::Column(at) => match rows.column_value(row, at) {
                ColumnValue::Number(_) => None,
                ColumnValue::Word(word) => Some(SpecValue::Str(word.to_owned())),
            },
        }
    }

    /// The text of a value by which rows without numbers are sorted; `None` for numbers.
    fn read_word(self, rows: &impl SelectableRows, row: usize) -> Option<String> {
        match self {
            Self::Constant(_) => None,
            Self::Axis(at) => Some(exact_value(rows.axis_value(row, at))),
            Self::Column(at) => match rows.column_value(row, at) {
                ColumnValue::Number(_) => None,
                ColumnValue::Word(word) => Some(word.to_owned()),
            },
        }
    }
}

/// The words in a condition. Expressions are about numbers, so words stand for numbers, each equal
/// to itself only.
#[derive(Debug, Default)]
struct ConditionWords(Vec<String>);

impl ConditionWords {
    fn axis_number(&self, value: &v1::AxisValue) -> f64 {
        match SpecValue::from(value) {
            SpecValue::Bool(flag) => f64::from(u8::from(flag)),
            SpecValue::Str(text) => self.word_number(&text),
            other => other.as_f64().unwrap_or(f64::NAN),
        }
    }

    fn word_number(&self, text: &str) -> f64 {
        // Without words in the condition, no comparison with a text can hold.
        if self.0.is_empty() {
            return f64::NAN;
        }
        let known = self.0.iter().position(|word| word == text);
        known.map_or_else(|| other_word_number(text), word_number)
    }
}

/// A condition whose names are those of rows.
pub(super) struct Condition {
    expression: Expr,
    operands: Vec<NumberSource>,
    words: ConditionWords,
    compares_exactly: bool,
}

impl Condition {
    /// Why no row meets the condition, as far as the way in which it is written tells, as the end of a message; empty if nothing is
    /// wrong with it. There is one row at least.
    fn explain_no_row(&self, rows: &impl SelectableRows) -> String {
        let names = self.expression.names().into_iter();
        let mut compared = names.zip(&self.operands);
        if let Some(hint) =
            compared.find_map(|(name, source)| self.explain_compared(rows, name, *source))
        {
            return format!("; {hint}");
        }

        let mut words = self.words.0.iter();
        if let Some(name) = words.find(|word| find_number_source(rows, word).is_some()) {
            return format!("; \"{name}\" in quotes is a word: the name stands without quotes");
        }
        let is_exact = self.compares_exactly && self.words.0.is_empty();
        match is_exact {
            true => "; numbers are printed rounded: ask for a range".to_owned(),
            false => String::new(),
        }
    }

    /// Says how a value of a name is written, if no value of its kind can stand in the condition.
    fn explain_compared(
        &self,
        rows: &impl SelectableRows,
        name: &str,
        source: NumberSource,
    ) -> Option<String> {
        let words = &self.words.0;
        let value = source.read_value(rows, 0)?;
        match value {
            SpecValue::Str(word) if words.is_empty() => Some(format!(
                "the values of {name} are words, which stand in quotes: {name} == \"{word}\""
            )),
            SpecValue::Bool(_) if words.iter().any(|word| word == "true" || word == "false") => {
                Some(format!(
                    "the values of {name} are true and false, without quotes: {name} == true"
                ))
            }
            SpecValue::Int(_) | SpecValue::Float(_)
                if words.iter().any(|word| word.parse::<f64>().is_ok()) =>
            {
                Some(format!(
                    "the values of {name} are numbers, without quotes: {name} == {value}"
                ))
            }
            _ => None,
        }
    }

    /// Reads a condition on these rows. `option` is named in errors.
    ///
    /// # Errors
    /// The text is no condition, or a name is unknown.
    pub(super) fn parse(
        option: &str,
        text: &str,
        rows: &impl SelectableRows,
    ) -> Result<Self, UserError> {
        let parsed = parse_condition(option, text)?;
        let mut operands = Vec::new();
        for name in parsed.expr.names() {
            operands.push(find_operand(option, rows, name)?);
        }

        Ok(Self {
            expression: parsed.expr,
            operands,
            words: ConditionWords(parsed.words),
            compares_exactly: text.contains("=="),
        })
    }

    pub(super) fn is_met_by(&self, rows: &impl SelectableRows, row: usize) -> bool {
        let operands = self.operands.iter();
        let values: Vec<f64> = operands
            .map(|name| name.read_number(rows, row, &self.words))
            .collect();
        let value = self.expression.eval(&values);
        // A comparison with an undefined value fulfils no condition.
        value != 0.0 && !value.is_nan()
    }
}

/// Parses a condition. `option` is named in the error.
///
/// # Errors
/// The text is no condition.
pub(super) fn parse_condition(option: &str, text: &str) -> Result<WordExpr, UserError> {
    WordExpr::parse(text).map_err(|why| {
        let message = format!(
            "{option}: expected a condition such as \"lr <= 0.1 && n > 3\", found '{text}': {why}"
        );
        UserError::new(ErrorCode::BadInput, message)
    })
}

/// Whether every row of a table has a statistic of this name.
pub(super) fn is_statistic(name: &str) -> bool {
    STATISTICS.contains(&name)
}

fn find_operand(
    option: &str,
    rows: &impl SelectableRows,
    name: &str,
) -> Result<NumberSource, UserError> {
    match name {
        "true" => Ok(NumberSource::Constant(1.0)),
        "false" => Ok(NumberSource::Constant(0.0)),
        name => {
            find_number_source(rows, name).ok_or_else(|| unknown_name_error(rows, option, name))
        }
    }
}

/// The error for a condition, written as `text`, that none of so many rows satisfies.
pub(super) fn no_row_error(
    option: &str,
    (text, condition): (&str, &Condition),
    rows: &impl SelectableRows,
    count: usize,
) -> UserError {
    let message = format!(
        "{option}: none of {} satisfies '{text}'{}",
        format_count(count as u64, "row"),
        condition.explain_no_row(rows)
    );
    UserError::new(ErrorCode::NotFound, message)
}

/// Sorts positions of rows by an axis or a column; a minus sign before its name puts the largest
/// first.
///
/// # Errors
/// There is no axis or column of this name.
pub(super) fn sort_rows(
    rows: &impl SelectableRows,
    key: &str,
    positions: &mut [usize],
) -> Result<(), UserError> {
    let descending = key.starts_with('-');
    let name = key.strip_prefix('-').unwrap_or(key);
    let source =
        find_number_source(rows, name).ok_or_else(|| unknown_name_error(rows, "--sort", name))?;

    positions.sort_by(|a, b| compare_rows(rows, source, descending, *a, *b));
    Ok(())
}

/// Compares rows by numbers, with missing ones last in either direction, or alphabetically by
/// words.
fn compare_rows(
    rows: &impl SelectableRows,
    source: NumberSource,
    descending: bool,
    a: usize,
    b: usize,
) -> Ordering {
    let no_words = ConditionWords::default();
    let x = source.read_number(rows, a, &no_words);
    let y = source.read_number(rows, b, &no_words);
    let order = match (x.is_nan(), y.is_nan()) {
        (true, true) => source.read_word(rows, a).cmp(&source.read_word(rows, b)),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => x.total_cmp(&y),
    };

    if descending { order.reverse() } else { order }
}

/// Positions of the rows whose axes have the chosen values, exactly or rounded as in a table.
///
/// # Errors
/// An axis is unknown, or no row has its value.
pub fn find_cell_rows(
    rows: &impl SelectableRows,
    choices: &[v1::AxisChoice],
) -> Result<Vec<usize>, UserError> {
    let mut kept: Vec<usize> = (0..rows.row_count()).collect();
    for choice in choices {
        let axis = find_axis(rows, &choice.axis)
            .ok_or_else(|| unknown_choice_error(rows, choices, &choice.axis))?;
        let is_exact = |at: &usize| is_same_value(rows.axis_value(*at, axis), &choice.value);
        let is_near = |at: &usize| is_rounded_to(rows.axis_value(*at, axis), &choice.value);

        let is_listed = kept.iter().any(is_exact);
        kept.retain(|at| if is_listed { is_exact(at) } else { is_near(at) });
        if kept.is_empty() && rows.row_count() > 0 {
            let message = format!(
                "--cell: no cell has {} = {}: expected values of its axes, as in a table",
                choice.axis, choice.value
            );
            return Err(UserError::new(ErrorCode::NotFound, message));
        }
    }

    Ok(kept)
}

/// The error of a choice of cells by an axis that there is not: it may be a part of a value with a comma.
fn unknown_choice_error(
    rows: &impl SelectableRows,
    choices: &[v1::AxisChoice],
    axis: &str,
) -> UserError {
    let error = unknown_name_error(rows, "--cell", axis);
    match choices {
        [_, _, ..] => {
            let message = format!("{}; {QUOTED_VALUES}", error.message);
            UserError::new(error.code, message)
        }
        _ => error,
    }
}

fn is_same_value(value: &v1::AxisValue, typed: &str) -> bool {
    let number = typed.parse().ok();
    (number.is_some() && axis_number(value) == number) || exact_value(value) == typed
}

fn is_rounded_to(value: &v1::AxisValue, typed: &str) -> bool {
    axis_number(value)
        .zip(typed.parse().ok())
        .is_some_and(|(x, wanted)| can_round_to(x, wanted))
}

fn axis_number(value: &v1::AxisValue) -> Option<f64> {
    match value.kind {
        Some(v1::axis_value::Kind::Number(x)) => Some(x),
        _ => None,
    }
}
