//! Several metrics at once.

use ergodic_common::text::escape_line;
use ergodic_proto::v1;
use serde_json::json;

use super::table::{mark, mean_and_interval};
use super::{AxisWords, Records, grid, summary_records};

/// Statistics in tidy form: one row per cell and metric, which the column `metric` names.
pub fn tidy(tables: &[v1::TableResponse]) -> Records {
    let mut all = Records::default();
    for table in tables {
        let records = summary_records(&table.axes, &table.columns, &table.rows);
        append(&mut all, records, table.axes.len(), &table.metric);
    }
    all
}

/// Grids below each other, the first column naming the metric.
pub fn tidy_grids(tables: &[v1::TableResponse]) -> Records {
    let mut all = Records::default();
    tables.iter().for_each(|table| append(&mut all, grid(table).1, 0, &table.metric));
    all
}

fn append(all: &mut Records, mut records: Records, at: usize, metric: &str) {
    records.columns.insert(at, "metric".to_owned());
    all.axes = records.axes;
    records.rows.iter_mut().for_each(|row| row.insert(at, json!(metric)));
    all.columns = records.columns;
    all.rows.append(&mut records.rows);
}

/// One line per cell and one column per metric, for people. The tables have the same rows, in the same order.
pub fn side_by_side(tables: &[v1::TableResponse]) -> String {
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
    let words = AxisWords::of_table(first);
    for (at, row) in first.rows.iter().enumerate() {
        let s = row.summary.unwrap_or_default();
        let figure = |table: &v1::TableResponse| {
            format!("{}{}", mark(table, at), mean_and_interval(&table.rows[at].summary.unwrap_or_default()))
        };
        let figures = tables.iter().map(figure);
        let cells = words.row(&row.values).chain([s.n.to_string()]).chain(figures);
        out.add_row(cells.chain([super::table::incidents(&s)]));
    }
    for i in first.axes.len()..=first.axes.len() + tables.len() {
        if let Some(column) = out.column_mut(i) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    format!("{out}\n")
}
