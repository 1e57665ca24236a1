//! What names the rows and curves of a picture: the axes that tell them apart, those that they have in common, and those that they
//! pool over.

use std::collections::HashMap;

use ergodic_proto::v1;

use crate::client::render::{AxisFormats, exact_value};

/// The axes whose values differ between rows: positions and names.
pub(in crate::client) fn varying_axes(table: &v1::TableResponse) -> Vec<(usize, String)> {
    let mut varying = Vec::new();
    for (at, name) in table.axes.iter().enumerate() {
        let mut values = table.rows.iter().map(|row| &row.values[at]);
        let first = values.next();
        if values.any(|value| Some(value) != first) {
            varying.push((at, name.clone()));
        }
    }

    varying
}

/// The axes that name rows: those whose values differ between them, or all axes of a single row.
pub(super) fn naming_axes(table: &v1::TableResponse) -> Vec<(usize, String)> {
    match &table.rows[..] {
        [_] => table.axes.iter().cloned().enumerate().collect(),
        _ => varying_axes(table),
    }
}

/// Formats the name of a row, from the values that distinguish it: `0.1 · adamw`.
pub(super) fn format_row_name(
    row: &v1::TableRow,
    axes: &[(usize, String)],
    words: &AxisFormats,
) -> String {
    axes.iter()
        .map(|(at, _)| words.format_value(*at, &row.values[*at]))
        .collect::<Vec<_>>()
        .join(" · ")
}

/// Formats the axes of rows' names: `lr · optimizer.kind`.
pub(super) fn format_axis_names(axes: &[(usize, String)]) -> String {
    axes.iter()
        .map(|(_, name)| name.as_str())
        .collect::<Vec<_>>()
        .join(" · ")
}

/// Says which values all rows have on the axes that are not `named` otherwise: `All cells here have wd = 0.`
pub(super) fn describe_common_values(
    table: &v1::TableResponse,
    named: &[(usize, String)],
) -> Option<String> {
    let first = table.rows.first()?;
    let varying = varying_axes(table);
    let words = AxisFormats::from_table(table);
    let mut common = Vec::new();
    for (at, axis) in table.axes.iter().enumerate() {
        let value = &first.values[at];
        let is_named = named.iter().chain(&varying).any(|(known, _)| *known == at);
        if !is_named && value.kind.is_some() {
            common.push(format!("{axis} = {}", words.format_value(at, value)));
        }
    }

    (!common.is_empty()).then(|| format!("All cells here have {}.", common.join(", ")))
}

/// Describes the axes of the whole sweep that a table lacks, sentence by sentence: those that it pools over, those that go with its
/// own, as zipped ones do, and those of one value; and which cells it is of.
pub(super) fn describe_hidden_axes(
    whole: &v1::TableResponse,
    table: &v1::TableResponse,
) -> Vec<String> {
    let shown: Vec<usize> = whole
        .axes
        .iter()
        .enumerate()
        .filter(|(_, axis)| table.axes.contains(axis))
        .map(|(at, _)| at)
        .collect();
    let varying = varying_axes(whole);
    let mut pooled = Vec::new();
    let mut zipped = Vec::new();
    for (at, axis) in varying.iter().filter(|(at, _)| !shown.contains(at)) {
        match is_set_by(whole, &shown, *at) {
            true => zipped.push(axis.as_str()),
            false => pooled.push(axis.as_str()),
        }
    }

    let mut notes: Vec<String> = describe_pooling(&pooled, &table.cell_condition)
        .into_iter()
        .collect();
    if !zipped.is_empty() {
        let changes = if zipped.len() == 1 {
            "changes"
        } else {
            "change"
        };
        notes.push(format!(
            "{} {changes} with the axes that are shown.",
            zipped.join(", ")
        ));
    }
    let named: Vec<(usize, String)> = shown
        .iter()
        .map(|at| (*at, whole.axes[*at].clone()))
        .collect();
    notes.extend(describe_common_values(whole, &named));
    notes
}

/// Describes the axes that are pooled over, and the cells that are selected.
fn describe_pooling(pooled: &[&str], condition: &str) -> Option<String> {
    match (pooled.is_empty(), condition.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("Cells with {condition}.")),
        (false, true) => Some(format!("Pooled over {}.", pooled.join(", "))),
        (false, false) => Some(format!(
            "Pooled over {}, cells with {condition}.",
            pooled.join(", ")
        )),
    }
}

/// Whether rows with the same values on some axes have the same value on another one, too.
fn is_set_by(table: &v1::TableResponse, axes: &[usize], other: usize) -> bool {
    let mut known: HashMap<Vec<String>, &v1::AxisValue> = HashMap::new();
    table.rows.iter().all(|row| {
        let key = axes.iter().map(|at| exact_value(&row.values[*at]));
        let value = &row.values[other];
        *known.entry(key.collect()).or_insert(value) == value
    })
}

#[cfg(test)]
mod tests {
    use crate::client::plot::cell_names::*;

    /// A table of these axes, with a row of numbers for each list.
    fn table(axes: &[&str], rows: &[&[f64]]) -> v1::TableResponse {
        let value = |x: &f64| v1::AxisValue {
            kind: Some(v1::axis_value::Kind::Number(*x)),
        };
        let rows = rows.iter().map(|values| v1::TableRow {
            values: values.iter().map(value).collect(),
            ..v1::TableRow::default()
        });
        v1::TableResponse {
            axes: axes.iter().map(|axis| (*axis).to_owned()).collect(),
            rows: rows.collect(),
            ..v1::TableResponse::default()
        }
    }

    fn names(table: &v1::TableResponse) -> Vec<String> {
        let axes = naming_axes(table);
        let words = AxisFormats::from_table(table);
        let rows = table.rows.iter();
        rows.map(|row| format_row_name(row, &axes, &words))
            .collect()
    }

    #[test]
    fn every_row_has_a_name_or_shares_its_values_with_all() {
        let single = table(&["lr", "wd"], &[&[0.3, 0.0]]);
        assert_eq!(names(&single), ["0.3 · 0"]);
        assert_eq!(format_axis_names(&naming_axes(&single)), "lr · wd");
        assert_eq!(describe_common_values(&single, &naming_axes(&single)), None);

        let two = table(&["lr", "wd"], &[&[0.3, 0.0], &[0.3, 0.1]]);
        assert_eq!(names(&two), ["0", "0.1"]);
        assert_eq!(
            describe_common_values(&two, &naming_axes(&two)).as_deref(),
            Some("All cells here have lr = 0.3.")
        );
    }

    #[test]
    fn only_axes_with_several_values_for_a_place_are_pooled_over() {
        let whole = table(
            &["lr", "momentum", "seed", "dim"],
            &[
                &[0.1, 0.9, 1.0, 4.0],
                &[0.1, 0.9, 2.0, 4.0],
                &[0.3, 0.8, 1.0, 4.0],
                &[0.3, 0.8, 2.0, 4.0],
            ],
        );
        let by = |axes: &[&str], condition: &str| {
            let table = v1::TableResponse {
                cell_condition: condition.to_owned(),
                ..table(axes, &[])
            };
            describe_hidden_axes(&whole, &table)
        };
        assert_eq!(
            by(&["lr"], "seed < 9"),
            [
                "Pooled over seed, cells with seed < 9.",
                "momentum changes with the axes that are shown.",
                "All cells here have dim = 4."
            ]
        );
        assert_eq!(
            by(&["seed"], ""),
            ["Pooled over lr, momentum.", "All cells here have dim = 4."]
        );
        assert_eq!(by(&["lr", "momentum", "seed", "dim"], ""), [""; 0]);
    }
}
