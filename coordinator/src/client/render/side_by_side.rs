//! Several metrics at once.

use ergodic_common::escape::escape_line;
use ergodic_proto::v1;
use serde_json::json;

use super::human::{format_mean_and_interval, rank_mark};
use super::{AxisFormats, TableData, build_summary_data, render_pivot};

/// Statistics in tidy form: one row per cell and metric, which the column `metric` names.
pub fn build_tidy_data(tables: &[v1::TableResponse]) -> TableData {
    let mut all = TableData::default();
    for table in tables {
        let records = build_summary_data(&table.axes, &table.columns, &table.rows);
        append_metric_rows(&mut all, records, table.axes.len(), &table.metric);
    }
    all
}

/// Grids below each other, the first column naming the metric.
pub fn build_tidy_pivots(tables: &[v1::TableResponse]) -> TableData {
    let mut all = TableData::default();
    tables
        .iter()
        .for_each(|table| append_metric_rows(&mut all, render_pivot(table).1, 0, &table.metric));
    all
}

fn append_metric_rows(all: &mut TableData, mut records: TableData, at: usize, metric: &str) {
    records.columns.insert(at, "metric".to_owned());
    all.key_columns = records.key_columns;
    records
        .rows
        .iter_mut()
        .for_each(|row| row.insert(at, json!(metric)));
    all.columns = records.columns;
    all.rows.append(&mut records.rows);
}

/// One line per cell and one column per metric, for people. The tables have the same rows, in the same order.
pub fn render_side_by_side(tables: &[v1::TableResponse]) -> String {
    let first = &tables[0];
    let mut out = comfy_table::Table::new();
    out.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    let metrics = tables.iter().map(|table| table.metric.clone());
    out.set_header(
        first
            .axes
            .iter()
            .cloned()
            .chain(["n".to_owned()])
            .chain(metrics)
            .chain([String::new()])
            .map(|name| escape_line(&name).into_owned()),
    );

    let words = AxisFormats::from_table(first);
    for (at, row) in first.rows.iter().enumerate() {
        let s = row.summary.unwrap_or_default();
        let figure = |table: &v1::TableResponse| {
            format!(
                "{}{}",
                rank_mark(table, at),
                format_mean_and_interval(&table.rows[at].summary.unwrap_or_default())
            )
        };
        let figures = tables.iter().map(figure);
        let cells = words
            .format_row(&row.values)
            .chain([s.n.to_string()])
            .chain(figures);

        out.add_row(cells.chain([super::human::format_incomplete_counts(&s)]));
    }

    for i in first.axes.len()..=first.axes.len() + tables.len() {
        if let Some(column) = out.column_mut(i) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }

    format!("{out}\n")
}
