//! Tables of several metrics over the same cells, in tidy form or side by side for people.

use ergodic_common::escape::escape_line;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::json;

use super::human::{
    TABLE_REMEDY, axis_columns, format_incomplete_counts, format_mean_and_interval,
};
use super::legend::RankMarks;
use super::table_layout::TableLayout;
use super::text_table::{TextColumn, TextTable};
use super::{AxisFormats, TableData, build_pivot_data, build_summary_data};

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
        .for_each(|table| append_metric_rows(&mut all, build_pivot_data(table), 0, &table.metric));
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
/// the same order. `columns` are the names of those to show; by default, all that fit.
///
/// # Errors
/// There is no column of such a name.
pub fn render_side_by_side(
    tables: &[v1::TableResponse],
    layout: TableLayout,
    columns: &[String],
) -> Result<String, UserError> {
    let first = &tables[0];
    let mut out = TextTable::new(side_by_side_columns(tables));
    let marks: Vec<RankMarks> = tables.iter().map(RankMarks::from_table).collect();
    let words = AxisFormats::from_table(first);
    for (at, row) in first.rows.iter().enumerate() {
        let s = row.summary.unwrap_or_default();
        let means = tables.iter().zip(&marks).map(|(table, marks)| {
            let row = &table.rows[at];
            let s = row.summary.unwrap_or_default();
            format!("{}{}", marks.mark(at, row), format_mean_and_interval(&s))
        });
        let cells = words
            .format_row(&row.values)
            .chain([s.n.to_string()])
            .chain(means)
            .chain([format_incomplete_counts(&s)]);
        out.add_row(cells);
    }

    out.choose_columns(columns)?;
    Ok(out.render(layout, TABLE_REMEDY))
}

fn side_by_side_columns(tables: &[v1::TableResponse]) -> Vec<TextColumn> {
    let mut columns = axis_columns(&tables[0].axes);
    let figures = tables.iter().map(|table| (table.metric.as_str(), 210));
    columns.extend(
        [("n", 150)]
            .into_iter()
            .chain(figures)
            .map(|(name, importance)| TextColumn {
                header: escape_line(name).into_owned(),
                right: true,
                importance,
                ..TextColumn::new(name)
            }),
    );
    columns.push(TextColumn {
        header: String::new(),
        importance: 160,
        ..TextColumn::new("incomplete")
    });

    columns
}
