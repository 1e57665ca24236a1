//! `ergodic curves`: prints a metric over the steps of each cell.

use arrow_array::RecordBatch;
use arrow_schema::DataType;
use clap::Args;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::json;

use crate::app::CommandOutcome;
use crate::client::args::SweepTarget;
use crate::client::render::{
    OutputArgs, TableData, TextFormat, build_summary_data, column_error, infer_axis_types,
    render_first_columns, render_table_data,
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
    /// Metric [default: test_acc if it is measured]
    #[arg(long, default_value = "")]
    pub metric: String,
    /// Statistics by name, as for `table`
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub stat: Vec<String>,
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
    let (mut client, id) = args.sweep.connect().await?;
    let request = v1::CurvesRequest {
        metric: args.metric,
        stats: args.stat,
        ..v1::CurvesRequest::default()
    };
    let sweeps = SweepSet::resolve(&mut client, id, &args.others).await?;
    let curves = CurveTable::from_response(sweeps.query_curves(&mut client, request).await?);

    match target.format.as_text_format() {
        Some(format) => target.write_text(&curves.render_text(format))?,
        None => target.write_parquet(&curves.to_record_batch()?)?,
    }

    Ok(CommandOutcome::Done)
}

struct CurveTable {
    sweep: String,
    metric: String,
    /// Types of the first columns: the axes and the step.
    key_types: Vec<DataType>,
    data: TableData,
}

impl CurveTable {
    fn from_response(curves: v1::CurvesResponse) -> Self {
        let rows: Vec<v1::TableRow> = curves.points.into_iter().map(point_as_row).collect();
        let axes: Vec<String> = curves.axes.into_iter().chain(["step".to_owned()]).collect();
        let mut data = build_summary_data(&axes, &curves.columns, &rows);

        if curves.columns.is_empty() {
            drop_columns(&mut data, &["diverged", "failed"]);
        }

        let types = infer_axis_types(axes.len(), rows.iter().map(|row| row.values.as_slice()));
        Self {
            sweep: curves.sweep,
            metric: curves.metric,
            key_types: types,
            data,
        }
    }

    fn render_text(&self, format: TextFormat) -> String {
        if format == TextFormat::Json {
            return format!(
                "{{\n  \"sweep\": {},\n  \"metric\": {},\n  \"rows\": [\n{}\n  ]\n}}\n",
                json!(self.sweep),
                json!(self.metric),
                self.data.to_json_lines()
            );
        }

        render_table_data(&self.data, format, |data| {
            format!(
                "{} over steps\n{}",
                self.metric,
                render_first_columns(data, data.columns.len())
            )
        })
    }

    fn to_record_batch(&self) -> Result<RecordBatch, UserError> {
        self.data
            .to_record_batch(&self.key_types)
            .map_err(|e| column_error(&e))
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
