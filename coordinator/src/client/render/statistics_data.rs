//! Statistics of cells as columns and rows for machines.

use ergodic_proto::v1;
use serde_json::{Value, json};

use super::{TableData, json_value, non_empty};

/// Statistics that every row of a table has.
pub(super) const STATISTICS: [&str; 10] = [
    "n",
    "diverged",
    "failed",
    "mean",
    "std",
    "ci95_low",
    "ci95_high",
    "min",
    "median",
    "max",
];

/// Columns of every table with chosen statistics, so that no row seems to have more trials than it
/// does.
const COUNTS: [&str; 3] = ["n", "diverged", "failed"];

/// Builds axis values, then the default statistics or the chosen columns, and a note on the row.
pub fn build_summary_data(axes: &[String], columns: &[String], rows: &[v1::TableRow]) -> TableData {
    if !columns.is_empty() {
        return build_statistic_data(axes, columns, rows);
    }

    let names = STATISTICS.into_iter().chain(["note"]).map(str::to_owned);
    TableData {
        columns: axes.iter().cloned().chain(names).collect(),
        rows: rows.iter().map(build_summary_row).collect(),
        key_columns: axes.len(),
    }
}

fn build_summary_row(row: &v1::TableRow) -> Vec<Value> {
    let s = row.summary.unwrap_or_default();
    let numbers = [
        s.mean,
        s.std,
        s.ci95_low,
        s.ci95_high,
        s.min,
        s.median,
        s.max,
    ];
    let missing = explain_missing_values(&s);
    let note = missing.as_deref().or(non_empty(&row.note));

    let mut values: Vec<Value> = row.values.iter().map(json_value).collect();
    values.extend(count_values(&s));
    values.extend(numbers.map(json_float));
    values.push(json!(note));
    values
}

fn count_values(s: &v1::Summary) -> [Value; 3] {
    [json!(s.n), json!(s.diverged), json!(s.failed)]
}

/// Explains why a row lacks a value, an interval or both.
fn explain_missing_values(s: &v1::Summary) -> Option<String> {
    match (s.n, s.diverged, s.failed) {
        (0, 0, 0) => Some("no trial has a value".to_owned()),
        (0, diverged, 0) => Some(format!("all {diverged} diverged")),
        (0, _, _) => Some("no trial completed".to_owned()),
        (1, _, _) => Some("one value: no spread, no interval".to_owned()),
        _ => None,
    }
}

/// Builds axis values, counts, then the chosen columns that are no counts.
pub(super) fn build_statistic_data(
    axes: &[String],
    columns: &[String],
    rows: &[v1::TableRow],
) -> TableData {
    let chosen: Vec<usize> = (0..columns.len())
        .filter(|at| !COUNTS.contains(&columns[*at].as_str()))
        .collect();

    let mut names = axes.to_vec();
    names.extend(COUNTS.map(str::to_owned));
    names.extend(chosen.iter().map(|at| columns[*at].clone()));
    names.push("note".to_owned());

    TableData {
        columns: names,
        rows: rows
            .iter()
            .map(|row| build_statistic_row(row, &chosen))
            .collect(),
        key_columns: axes.len(),
    }
}

fn build_statistic_row(row: &v1::TableRow, chosen: &[usize]) -> Vec<Value> {
    let figures = chosen.iter().map(|at| row.figures.get(*at).copied());

    let mut values: Vec<Value> = row.values.iter().map(json_value).collect();
    values.extend(count_values(&row.summary.unwrap_or_default()));
    values.extend(figures.map(json_float));
    values.push(json!(non_empty(&row.note)));
    values
}

/// Converts a statistic to JSON, with a point even if it is whole.
pub(super) fn json_float(x: Option<f64>) -> Value {
    match x {
        Some(x) if x.is_finite() => json!(x),
        // JSON has no number for infinity, and null would mean that there is no value.
        Some(x) if x.is_infinite() => json!(x.to_string()),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use crate::client::render::statistics_data::*;

    #[test]
    fn a_row_says_why_something_is_missing() {
        let note = |n, diverged, failed| {
            explain_missing_values(&v1::Summary {
                n,
                diverged,
                failed,
                ..v1::Summary::default()
            })
        };
        assert_eq!(note(0, 0, 0).as_deref(), Some("no trial has a value"));

        assert_eq!(note(0, 5, 0).as_deref(), Some("all 5 diverged"));
        assert_eq!(note(0, 5, 1).as_deref(), Some("no trial completed"));
        assert_eq!(
            note(1, 5, 1).as_deref(),
            Some("one value: no spread, no interval")
        );

        assert_eq!(note(2, 5, 1), None);
    }
}
