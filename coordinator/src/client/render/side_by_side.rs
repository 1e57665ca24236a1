//! Tables of several metrics over the same cells, in tidy form or side by side for people.

use ergodic_common::escape::escape_line;
use ergodic_proto::v1;
use serde_json::json;

use super::human::{
    align_columns_right, format_incomplete_counts, format_mean_and_interval, new_text_table,
    rank_mark,
};
use super::{AxisFormats, TableData, build_summary_data, render_pivot};

/// Builds statistics in tidy form: one row per cell and metric, which the column `metric` names.
pub fn build_tidy_data(tables: &[v1::TableResponse]) -> TableData {
    let mut all = TableData::default();
    for table in tables {
        let records = build_summary_data(&table.axes, &table.columns, &table.rows);
        append_metric_rows(&mut all, records, table.axes.len(), &table.metric);
    }
    all
}

/// Builds grids below each other, with the metric in the first column.
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

/// Renders one line per cell and one column per metric for people. The tables have the same rows in
/// the same order.
pub fn render_side_by_side(tables: &[v1::TableResponse]) -> String {
    let first = &tables[0];
    let mut out = new_text_table();
    out.set_header(side_by_side_header(tables));

    let words = AxisFormats::from_table(first);
    for (at, row) in first.rows.iter().enumerate() {
        let s = row.summary.unwrap_or_default();
        let cells = words
            .format_row(&row.values)
            .chain([s.n.to_string()])
            .chain(tables.iter().map(|table| format_marked_mean(table, at)))
            .chain([format_incomplete_counts(&s)]);
        out.add_row(cells);
    }

    align_columns_right(
        &mut out,
        first.axes.len()..first.axes.len() + tables.len() + 1,
    );
    format!("{out}\n")
}

fn side_by_side_header(tables: &[v1::TableResponse]) -> Vec<String> {
    let mut names: Vec<&str> = tables[0].axes.iter().map(String::as_str).collect();
    names.push("n");
    names.extend(tables.iter().map(|table| table.metric.as_str()));
    names.push("");
    names
        .into_iter()
        .map(|name| escape_line(name).into_owned())
        .collect()
}

fn format_marked_mean(table: &v1::TableResponse, at: usize) -> String {
    let s = table.rows[at].summary.unwrap_or_default();
    format!("{}{}", rank_mark(table, at), format_mean_and_interval(&s))
}
