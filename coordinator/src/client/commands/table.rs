//! `ergodic table`: statistics of metrics per cell, or per value of chosen axes.

use arrow_array::RecordBatch;
use ergodic_common::ErrorCode;
use ergodic_common::escape::escape_line;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::json;

use crate::client::query::query_table;
use crate::client::render::{RowSelection, TextFormat, column_error};
use crate::client::status_text::format_provenance;
use crate::client::{Client, render};

/// The options of a table, and its format.
#[derive(Debug, Clone, Default)]
pub struct TableOptions {
    /// Axes to group by.
    pub by: Vec<String>,
    /// Axis down the side of a grid.
    pub rows: Option<String>,
    /// Axis along the top of a grid.
    pub columns: Option<String>,
    /// Metrics; none for the main one.
    pub metrics: Vec<String>,
    /// The rows to show, in their order.
    pub selection: RowSelection,
    /// Step.
    pub at: Option<String>,
    /// Statistics by name, instead of those of every table.
    pub stats: Vec<String>,
    /// Whether cells have the same weight in rows of several cells.
    pub cells_alike: bool,
    /// Format.
    pub format: TextFormat,
}

/// `ergodic table`
///
/// # Errors
/// There is no such sweep, axis or metric, or nobody answers.
pub async fn query_table_text(
    client: &mut Client,
    sweep: &str,
    options: &TableOptions,
) -> Result<String, UserError> {
    let mut tables = query_tables(client, sweep, options).await?;
    options.selection.apply_to_tables(&mut tables)?;
    let grid = options.rows.is_some();
    Ok(match &tables[..] {
        [table] => render_table(table, grid, options.format),
        tables => render_metric_tables(tables, grid, options.format),
    })
}

/// `ergodic table` as columns: one row per cell, and per metric if there are several, also of a grid.
///
/// # Errors
/// As for [`query_table_text`].
pub async fn query_table_batch(
    client: &mut Client,
    sweep: &str,
    options: &TableOptions,
) -> Result<RecordBatch, UserError> {
    let mut tables = query_tables(client, sweep, options).await?;
    let first = &tables[0];
    // Of all rows, so that a column's type does not depend on which of them are wanted.
    let axes = render::infer_axis_types(
        first.axes.len(),
        first.rows.iter().map(|row| row.values.as_slice()),
    );

    options.selection.apply_to_tables(&mut tables)?;
    let records = match &tables[..] {
        [table] => render::build_summary_data(&table.axes, &table.columns, &table.rows),
        tables => render::build_tidy_data(tables),
    };
    records.to_record_batch(&axes).map_err(|e| column_error(&e))
}

/// Queries one table for each metric.
async fn query_tables(
    client: &mut Client,
    sweep: &str,
    options: &TableOptions,
) -> Result<Vec<v1::TableResponse>, UserError> {
    let by = grouping_axes(options)?;
    let main = [String::new()];
    let metrics = if options.metrics.is_empty() {
        &main[..]
    } else {
        &options.metrics
    };
    let mut tables = Vec::with_capacity(metrics.len());

    for metric in metrics {
        let request = v1::TableRequest {
            sweep: sweep.to_owned(),
            metric: metric.clone(),
            by: by.clone(),
            at: options.at.clone().unwrap_or_default(),
            stats: options.stats.clone(),
            cells_alike: options.cells_alike,
        };

        tables.push(query_table(client, request).await?);
    }

    Ok(tables)
}

/// The axes to group by: those of a grid, or those listed.
fn grouping_axes(options: &TableOptions) -> Result<Vec<String>, UserError> {
    match (&options.rows, &options.columns) {
        (Some(rows), Some(columns)) => Ok(vec![rows.clone(), columns.clone()]),
        (None, None) => Ok(options.by.clone()),
        _ => Err(UserError::new(
            ErrorCode::BadInput,
            "--rows and --cols go together: give both",
        )),
    }
}

fn render_table(table: &v1::TableResponse, grid: bool, format: TextFormat) -> String {
    let data = render::build_summary_data(&table.axes, &table.columns, &table.rows);
    match (format, grid) {
        (TextFormat::Json, _) => format!(
            "{{\n  \"sweep\": {},\n  \"metric\": {},\n  \"rows\": [\n{}\n  ]\n}}\n",
            json!(table.sweep),
            json!(table.metric),
            data.to_json_lines()
        ),
        // Programs want columns, not a grid of texts.
        (TextFormat::Csv, _) => data.to_csv(),
        (TextFormat::Md, false) => data.to_markdown(),
        (TextFormat::Md, true) => render::render_pivot(table).1.to_markdown(),
        (TextFormat::Latex, false) => render::render_latex(std::slice::from_ref(table)),
        (TextFormat::Latex, true) => render::render_latex_pivot(table),
        (TextFormat::Table, grid) => render_human_table(table, grid),
    }
}

fn render_human_table(table: &v1::TableResponse, grid: bool) -> String {
    let body = if grid {
        render::render_pivot(table).0
    } else {
        render::render_human_table(table)
    };

    format!(
        "{}{body}{}{}",
        format_table_heading(table),
        render::render_legend(table),
        format_table_provenance(table)
    )
}

/// Tables of several metrics over the same cells.
fn render_metric_tables(tables: &[v1::TableResponse], grid: bool, format: TextFormat) -> String {
    match (format, grid) {
        (TextFormat::Json, _) => format!(
            "{{\n  \"sweep\": {},\n  \"metrics\": {},\n  \"rows\": [\n{}\n  ]\n}}\n",
            json!(tables[0].sweep),
            json!(metric_names(tables)),
            render::build_tidy_data(tables).to_json_lines()
        ),
        (TextFormat::Csv, _) => render::build_tidy_data(tables).to_csv(),
        (TextFormat::Md, false) => render::build_tidy_data(tables).to_markdown(),
        (TextFormat::Latex, false) => render::render_latex(tables),
        (TextFormat::Md, true) => render::build_tidy_pivots(tables).to_markdown(),
        (TextFormat::Latex, true) => tables
            .iter()
            .map(render::render_latex_pivot)
            .collect::<Vec<_>>()
            .join("\n"),
        (TextFormat::Table, false) if tables[0].columns.is_empty() => {
            render_human_side_by_side(tables)
        }
        (TextFormat::Table, _) => tables
            .iter()
            .map(|table| render_table(table, grid, format))
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

fn render_human_side_by_side(tables: &[v1::TableResponse]) -> String {
    let heading = format_table_heading(&v1::TableResponse {
        metric: metric_names(tables).join(", "),
        ..tables[0].clone()
    });

    format!(
        "{heading}{}{}{}",
        render::render_side_by_side(tables),
        render::render_joint_legend(tables),
        format_table_provenance(&tables[0])
    )
}

fn metric_names(tables: &[v1::TableResponse]) -> Vec<&str> {
    tables.iter().map(|table| table.metric.as_str()).collect()
}

fn format_table_heading(table: &v1::TableResponse) -> String {
    let what = match table.columns.is_empty() {
        true => "mean ± 95 % CI over completed trials".to_owned(),
        false => table.columns.join(" / "),
    };
    format!(
        "{} ({}): {}, {what}\n",
        escape_line(&table.name),
        table.sweep,
        table.metric
    )
}

fn format_table_provenance(table: &v1::TableResponse) -> String {
    format_provenance(table.done, table.trials, &table.data, &table.numerics)
}
