//! `ergodic curves`: a metric over the steps of each cell.

use arrow_array::RecordBatch;
use arrow_schema::DataType;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::json;

use crate::client::Client;
use crate::client::query::query_curves;
use crate::client::render::{
    TableData, TextFormat, build_summary_data, column_error, infer_axis_types,
    render_first_columns, render_table_data,
};

/// `ergodic curves`
///
/// # Errors
/// There is no such sweep or metric, or nobody answers.
pub async fn query_curves_text(
    client: &mut Client,
    sweep: &str,
    metric: &str,
    stats: &[String],
    format: TextFormat,
) -> Result<String, UserError> {
    let CurveTable {
        sweep,
        metric,
        data,
        ..
    } = query_curve_table(client, sweep, metric, stats).await?;

    if format == TextFormat::Json {
        let objects = data.to_json_lines();

        let sweep = json!(sweep);
        let metric = json!(metric);
        return Ok(format!(
            "{{\n  \"sweep\": {sweep},\n  \"metric\": {metric},\n  \"rows\": [\n{}\n  ]\n}}\n",
            objects
        ));
    }

    Ok(render_table_data(&data, format, |data| {
        format!(
            "{metric} over steps\n{}",
            render_first_columns(data, data.columns.len())
        )
    }))
}

/// `ergodic curves` as columns.
///
/// # Errors
/// As for [`query_curves_text`].
pub async fn query_curves_batch(
    client: &mut Client,
    sweep: &str,
    metric: &str,
    stats: &[String],
) -> Result<RecordBatch, UserError> {
    let curves = query_curve_table(client, sweep, metric, stats).await?;
    curves
        .data
        .to_record_batch(&curves.key_types)
        .map_err(|e| column_error(&e))
}

struct CurveTable {
    sweep: String,
    metric: String,
    /// Types of the axes and of the step, which are the first columns.
    key_types: Vec<DataType>,
    data: TableData,
}

async fn query_curve_table(
    client: &mut Client,
    sweep: &str,
    metric: &str,
    stats: &[String],
) -> Result<CurveTable, UserError> {
    let request = v1::CurvesRequest {
        sweep: sweep.to_owned(),
        metric: metric.to_owned(),
        stats: stats.to_vec(),
        by: Vec::new(),
    };
    let curves = query_curves(client, request).await?;

    let rows: Vec<v1::TableRow> = curves.points.into_iter().map(point_as_row).collect();
    let axes: Vec<String> = curves.axes.into_iter().chain(["step".to_owned()]).collect();
    let mut data = build_summary_data(&axes, &curves.columns, &rows);

    if curves.columns.is_empty() {
        drop_columns(&mut data, &["diverged", "failed"]);
    }

    let types = infer_axis_types(axes.len(), rows.iter().map(|row| row.values.as_slice()));
    Ok(CurveTable {
        sweep: curves.sweep,
        metric: curves.metric,
        key_types: types,
        data,
    })
}

/// A point of a curve as a row of a table: the step is its last axis.
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
