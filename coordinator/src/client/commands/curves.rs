//! `ergodic curves`: prints a metric over the steps of each cell.

use std::collections::HashMap;

use arrow_schema::DataType;
use clap::Args;
use ergodic_common::escape::escape_line;
use ergodic_common::ids::SweepId;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::json;

use super::trials::parse_cell_choices;
use crate::app::CommandOutcome;
use crate::client::Client;
use crate::client::args::SweepTarget;
use crate::client::query::query_table;
use crate::client::render::{
    OutputArgs, OutputTarget, RowSelection, TableData, TableLayout, TextFormat, ViewArgs,
    add_lines, build_summary_data, choose_batch_columns, column_error, exact_value, find_cell_rows,
    infer_axis_types, non_empty, print_stderr_line, render_result_data, render_table_data,
};
use crate::client::sweep_set::SweepSet;

/// `ergodic curves`
#[derive(Debug, Args)]
pub struct CurvesArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// Further sweeps, whose rows follow; the column `sweep` tells them apart
    #[arg(index = 2, value_name = "SWEEP")]
    pub others: Vec<String>,
    /// Metric, quantity of the sweep file, or expression with a value at each sample [default: test_acc if it is measured]
    #[arg(long, default_value = "")]
    pub metric: String,
    /// Statistics by name, as for `table`
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub stat: Vec<String>,
    /// Only the cells with these values of axes, as in lr=0.1,wd=5e-4
    #[arg(long, value_name = "AXIS=VALUE,…")]
    pub cell: Option<String>,
    /// Only points that satisfy this condition on axes, step and statistics, as in "lr <= 0.1 && step > 100"; put words in quotes
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// Only the N best cells with such points, by the mean ranks of trials within repeats at the end, as in `table`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub top: Option<u32>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub view: ViewArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// Prints statistics per cell and step.
///
/// # Errors
/// There is no such sweep or metric, the output cannot be written, or nobody answers.
pub async fn run_curves(args: CurvesArgs) -> Result<CommandOutcome, UserError> {
    let target = args.output.choose_target()?;
    let cells = parse_cell_choices(args.cell.as_deref())?;
    let (mut client, id) = args.sweep.connect().await?;
    let request = v1::CurvesRequest {
        metric: args.metric.clone(),
        stats: args.stat.clone(),
        ..v1::CurvesRequest::default()
    };
    let sweeps = SweepSet::resolve(&mut client, id, &args.others).await?;
    let mut points = collect_points(sweeps.query_curves(&mut client, request).await?);
    // Inferred from all rows, so that a column's type does not depend on which rows are shown.
    let types = infer_axis_types(
        points.axes.len(),
        points.rows.iter().map(|row| row.values.as_slice()),
    );

    let positions = find_cell_rows(&points, &cells)?;
    keep_points(&mut points, &positions);
    let selection = RowSelection {
        condition: args.condition.clone(),
        ..RowSelection::default()
    };
    let positions = selection.filter_rows(&points)?;
    keep_points(&mut points, &positions);
    if let Some(top) = args.top {
        let best = query_best_cells(
            &mut client,
            sweeps.require_one("--top", "cells are ranked within a sweep")?,
            &args.metric,
        )
        .await?;
        keep_best_cells(&mut points, &best, top as usize);
    }

    let has_place = !matches!(target.format.as_text_format(), None | Some(TextFormat::Csv));
    if sweeps.is_several() && !has_place && !points.quantities.is_empty() {
        // A file of rows has no place for what tells the sweeps apart.
        print_stderr_line(&format!("note: {}", escape_line(&points.quantities)));
    }
    write_curves(&CurveTable::new(&points, types), &target, &args.view)
}

fn write_curves(
    curves: &CurveTable,
    target: &OutputTarget,
    view: &ViewArgs,
) -> Result<CommandOutcome, UserError> {
    match target.format.as_text_format() {
        Some(format) => {
            let layout = target.table_layout(view.wide);
            let text = curves.render_text(format, layout, &view.columns)?;
            target.write_text(&text, !view.no_pager)?;
        }
        None => {
            let batch = curves.data.to_record_batch(&curves.key_types);
            let batch = batch.map_err(|e| column_error(&e))?;
            target.write_parquet(&choose_batch_columns(&batch, &view.columns)?)?;
        }
    }

    Ok(CommandOutcome::Done)
}

/// The points of curves as rows of a table, with the step as its last axis.
fn collect_points(curves: v1::CurvesResponse) -> v1::TableResponse {
    v1::TableResponse {
        sweep: curves.sweep,
        metric: curves.metric,
        axes: curves.axes.into_iter().chain(["step".to_owned()]).collect(),
        columns: curves.columns,
        quantities: curves.quantities,
        rows: curves.points.into_iter().map(point_as_row).collect(),
        ..v1::TableResponse::default()
    }
}

fn keep_points(points: &mut v1::TableResponse, positions: &[usize]) {
    points.rows = positions
        .iter()
        .map(|at| points.rows[*at].clone())
        .collect();
}

/// The values of all cells, the best cell by the metric first.
async fn query_best_cells(
    client: &mut Client,
    sweep: &SweepId,
    metric: &str,
) -> Result<Vec<Vec<String>>, UserError> {
    let request = v1::TableRequest {
        sweep: sweep.to_string(),
        metric: metric.to_owned(),
        ..v1::TableRequest::default()
    };
    let table = query_table(client, request).await?;
    let all = RowSelection {
        top: Some(u32::MAX),
        ..RowSelection::default()
    };
    let ranked = all.select_rows(&table)?;
    Ok(ranked
        .into_iter()
        .map(|at| exact_values(&table.rows[at].values))
        .collect())
}

fn exact_values(values: &[v1::AxisValue]) -> Vec<String> {
    values.iter().map(exact_value).collect()
}

/// Keeps the points of the best cells that have any, the best cell first.
fn keep_best_cells(points: &mut v1::TableResponse, best: &[Vec<String>], top: usize) {
    let axes = points.axes.len() - 1;
    let mut by_cell: HashMap<Vec<String>, Vec<v1::TableRow>> = HashMap::new();
    for row in points.rows.drain(..) {
        let cell = exact_values(&row.values[..axes]);
        by_cell.entry(cell).or_default().push(row);
    }

    let kept = best.iter().filter_map(|cell| by_cell.remove(cell));
    points.rows = kept.take(top).flatten().collect();
}

struct CurveTable {
    sweep: String,
    metric: String,
    /// The quantities of the sweep file that the metric uses; may be empty.
    quantities: String,
    /// Types of the first columns: the axes and the step.
    key_types: Vec<DataType>,
    data: TableData,
}

impl CurveTable {
    fn new(points: &v1::TableResponse, key_types: Vec<DataType>) -> Self {
        let mut data = build_summary_data(&points.axes, &points.columns, &points.rows);
        if points.columns.is_empty() {
            drop_columns(&mut data, &["diverged", "failed"]);
        }

        Self {
            sweep: points.sweep.clone(),
            metric: points.metric.clone(),
            quantities: points.quantities.clone(),
            key_types,
            data,
        }
    }

    fn render_text(
        &self,
        format: TextFormat,
        layout: TableLayout,
        columns: &[String],
    ) -> Result<String, UserError> {
        if format == TextFormat::Table {
            let table = render_result_data(&self.data, layout, columns, "")?;
            let metric = escape_line(&self.metric);
            let meaning = match self.quantities.as_str() {
                "" => String::new(),
                quantities => format!("; {}", escape_line(quantities)),
            };
            return Ok(format!("{metric} over steps{meaning}\n{table}"));
        }

        let mut data = self.data.clone();
        data.choose_columns(columns)?;
        if format == TextFormat::Json {
            return Ok(data.to_json_document(&[
                ("sweep", json!(self.sweep)),
                ("metric", json!(self.metric)),
                ("quantities", json!(non_empty(&self.quantities))),
            ]));
        }

        let table = render_table_data(&data, format, |_| String::new());
        let meaning = non_empty(&self.quantities).map(|text| escape_line(text).into_owned());
        Ok(add_lines(table, format, meaning.as_slice()))
    }
}

/// Converts a point of a curve to a row of a table, with the step as its last axis.
fn point_as_row(point: v1::CurvePoint) -> v1::TableRow {
    let step = v1::AxisValue {
        kind: Some(v1::axis_value::Kind::Number(point.step as f64)),
    };
    v1::TableRow {
        values: point.values.into_iter().chain([step]).collect(),
        summary: point.summary,
        figures: point.figures,
        note: point.note,
        ..v1::TableRow::default()
    }
}

fn drop_columns(data: &mut TableData, names: &[&str]) {
    for name in names {
        if let Some(at) = data.columns.iter().position(|c| c == name) {
            data.columns.remove(at);
            data.rows.iter_mut().for_each(|row| drop(row.remove(at)));
        }
    }
}
