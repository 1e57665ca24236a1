//! Values for people: values of an axis with enough digits to differ, other numbers with six
//! digits, and text without misleading characters.

use std::collections::HashMap;

use ergodic_common::escape::escape_line;
use ergodic_common::number_format::{DistinctFormat, format_significant};
use ergodic_common::spec_file::node::format_value;
use ergodic_proto::v1;
use serde_json::Value;

/// The number formats of axes, by position.
#[derive(Debug, Clone, Default)]
pub struct AxisFormats(Vec<DistinctFormat>);

impl AxisFormats {
    /// The formats of the first `axes` axes for the values in these rows.
    pub fn from_rows<'a>(
        axes: usize,
        rows: impl Iterator<Item = &'a [v1::AxisValue]> + Clone,
    ) -> Self {
        let mut formats = Vec::with_capacity(axes);
        for axis in 0..axes {
            let numbers = rows.clone().filter_map(|row| axis_number(row.get(axis)?));
            formats.push(DistinctFormat::from_numbers(numbers));
        }

        Self(formats)
    }

    /// The formats for the rows of a table.
    pub fn from_table(table: &v1::TableResponse) -> Self {
        Self::from_rows(
            table.axes.len(),
            table.rows.iter().map(|row| row.values.as_slice()),
        )
    }

    /// Formats a value of an axis.
    pub fn format_value(&self, axis: usize, value: &v1::AxisValue) -> String {
        format_value(
            &value.into(),
            self.0
                .get(axis)
                .copied()
                .unwrap_or(DistinctFormat::with_all_digits()),
        )
    }

    /// Formats one value of each axis.
    pub fn format_row<'a>(
        &'a self,
        values: &'a [v1::AxisValue],
    ) -> impl Iterator<Item = String> + 'a {
        values
            .iter()
            .enumerate()
            .map(|(axis, value)| self.format_value(axis, value))
    }
}

/// The number formats of axes, by name.
#[derive(Debug, Clone, Default)]
pub struct NamedAxisFormats(HashMap<String, DistinctFormat>);

impl NamedAxisFormats {
    /// The formats for these values of axes.
    pub fn from_values<'a>(values: impl Iterator<Item = (&'a String, &'a v1::AxisValue)>) -> Self {
        let mut numbers: HashMap<String, Vec<f64>> = HashMap::new();
        for (axis, value) in values {
            numbers
                .entry(axis.clone())
                .or_default()
                .extend(axis_number(value));
        }

        Self(
            numbers
                .into_iter()
                .map(|(axis, numbers)| (axis, DistinctFormat::from_numbers(numbers.into_iter())))
                .collect(),
        )
    }

    /// Formats the values of several axes as one text.
    pub fn format_values(&self, axes: &[String], values: &[v1::AxisValue]) -> String {
        let mut words = Vec::with_capacity(values.len());
        for (at, value) in values.iter().enumerate() {
            let format = axes.get(at).and_then(|axis| self.0.get(axis)).copied();
            let format = format.unwrap_or(DistinctFormat::with_all_digits());
            words.push(format_value(&value.into(), format));
        }

        words.join(" ")
    }
}

fn axis_number(value: &v1::AxisValue) -> Option<f64> {
    match value.kind {
        Some(v1::axis_value::Kind::Number(x)) => Some(x),
        _ => None,
    }
}

/// Builds a function that formats the values of a column.
pub(super) fn build_column_formatter<'a>(
    values: impl Iterator<Item = &'a Value>,
) -> impl Fn(&Value) -> String {
    let distinct = DistinctFormat::from_numbers(
        values
            .filter(|value| value.is_f64())
            .filter_map(Value::as_f64),
    );
    move |value| match value.as_f64() {
        Some(x) if value.is_f64() => distinct.format_number(x),
        _ => format_cell_value(value),
    }
}

/// Formats a value that is not an axis value; a dash for null.
pub(super) fn format_cell_value(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => escape_line(text).into_owned(),
        other => match other.as_f64() {
            Some(x) if other.is_f64() => format_significant(x, 6),
            _ => other.to_string(),
        },
    }
}
