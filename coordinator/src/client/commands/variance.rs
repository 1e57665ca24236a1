//! `ergodic variance`: prints the variance components of random streams.

use clap::Args;
use ergodic_common::escape::escape_line;
use ergodic_common::number_format::format_significant;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::app::{CommandOutcome, print_output};
use crate::client::args::{MetricArgs, SweepTarget};
use crate::client::render::{
    AxisFormats, TableData, TextColumn, TextFormat, format_provenance, format_short_number,
    format_trial_count, json_value, non_empty, render_described_rows, render_table_data,
};

/// `ergodic variance`
#[derive(Debug, Args)]
pub struct VarianceArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub metric: MetricArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// Splits the variance of a metric by random streams and prints the components.
///
/// # Errors
/// There is no such sweep or metric, the sweep crosses no streams, trials are missing, or nobody answers.
pub async fn run_variance(args: VarianceArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    let MetricArgs { metric, at, level } = args.metric;
    let request = v1::VarianceRequest {
        sweep: id.into(),
        metric: metric.unwrap_or_default(),
        at: at.unwrap_or_default(),
        level: level / 100.0,
    };
    let found = client
        .call(async |client| client.sweeps.variance(request).await)
        .await?;

    print_output(render_variance(&found, level, args.format))
}

/// The components in a format; `level` is in percent.
fn render_variance(found: &v1::VarianceResponse, level: f64, format: TextFormat) -> String {
    let records = build_variance_data(found);
    if format == TextFormat::Json {
        let rows = records.to_json_lines();
        return format!(
            "{{\n  \"sweep\": {},\n  \"metric\": {},\n  \"level\": {},\n  \"rows\": [\n{}\n  ]\n}}\n",
            json!(found.sweep),
            json!(found.metric),
            json!(level / 100.0),
            rows
        );
    }

    render_table_data(&records, format, |_| render_human_variance(found, level))
}

/// Builds rows of cells and components. A cell without components has one row with the reason.
fn build_variance_data(found: &v1::VarianceResponse) -> TableData {
    let figures = [
        "component",
        "n",
        "df",
        "variance",
        "share",
        "ci_low",
        "ci_high",
        "note",
    ];

    let axes = found.axes.iter().cloned();
    TableData {
        columns: axes.chain(figures.map(str::to_owned)).collect(),
        rows: found.cells.iter().flat_map(build_cell_rows).collect(),
        key_columns: found.axes.len(),
    }
}

fn build_cell_rows(cell: &v1::VarianceCell) -> Vec<Vec<Value>> {
    if cell.components.is_empty() {
        return vec![build_component_row(cell, None)];
    }

    cell.components
        .iter()
        .map(|component| build_component_row(cell, Some(component)))
        .collect()
}

fn build_component_row(
    cell: &v1::VarianceCell,
    component: Option<&v1::VarianceComponent>,
) -> Vec<Value> {
    let figures = [
        json!(component.map(|component| &component.name)),
        json!(cell.n),
        json!(component.map(|component| component.df)),
        json!(component.map(|component| component.variance)),
        json!(component.and_then(|component| component.share)),
        json!(component.and_then(|component| component.low)),
        json!(component.and_then(|component| component.high)),
        json!(non_empty(&cell.note)),
    ];

    cell.values.iter().map(json_value).chain(figures).collect()
}

fn render_human_variance(found: &v1::VarianceResponse, level: f64) -> String {
    let axes = found.axes.iter();
    let mut columns: Vec<TextColumn> = axes.map(|axis| TextColumn::label(axis, 230)).collect();
    columns.extend([
        TextColumn::label("component", 250),
        TextColumn::figure("df", 200),
        TextColumn::figure("variance", 245),
        TextColumn::figure("share", 240),
        TextColumn::figure("deviation", 210),
        TextColumn::figure(format!("{level} % CI"), 235),
        TextColumn::remarks("note", 150),
    ]);

    let words = AxisFormats::from_rows(
        found.axes.len(),
        found.cells.iter().map(|cell| cell.values.as_slice()),
    );
    let rows: Vec<Vec<Value>> = found
        .cells
        .iter()
        .flat_map(|cell| format_cell_rows(cell, &words))
        .collect();

    format!(
        "{} ({}): {}, where the variance of repeats comes from\n{}by the method of moments; interval of the variance: \
         Satterthwaite's, for estimates above 0\n{}",
        escape_line(&found.name),
        found.sweep,
        found.metric,
        render_described_rows(columns, &rows),
        format_provenance(
            &format_trial_count(found.done, found.trials),
            &found.data,
            &found.numerics
        )
    )
}

/// Formats the rows of a cell. Only the first of them has the cell's values and note.
fn format_cell_rows(cell: &v1::VarianceCell, words: &AxisFormats) -> Vec<Vec<Value>> {
    let values: Vec<String> = words.format_row(&cell.values).collect();
    if cell.components.is_empty() {
        let blank = std::array::from_fn(|_| format_short_number(None));
        return vec![join_row(&values, blank, &cell.note)];
    }

    let mut rows = Vec::new();
    for component in &cell.components {
        let figures = format_component(component);
        rows.push(match rows.is_empty() {
            true => join_row(&values, figures, &cell.note),
            false => join_row(&vec![String::new(); values.len()], figures, ""),
        });
    }

    rows
}

fn join_row(values: &[String], figures: [String; 6], note: &str) -> Vec<Value> {
    let values = values.iter().cloned();
    values
        .chain(figures)
        .chain([note.to_owned()])
        .map(Value::String)
        .collect()
}

/// Name, degrees of freedom, variance, share, standard deviation and interval of the variance.
fn format_component(component: &v1::VarianceComponent) -> [String; 6] {
    let none = format_short_number(None);
    let share = component.share.map(|share| {
        let percent = format_significant(100.0 * share, 3);
        format!("{percent} %")
    });
    let deviation = Some(component.variance)
        .filter(|x| *x >= 0.0)
        .map(|x| format_short_number(Some(x.sqrt())));
    let interval = component.low.zip(component.high).map(|(low, high)| {
        let low = format_significant(low, 3);
        let high = format_significant(high, 3);
        format!("{low} … {high}")
    });

    [
        component.name.clone(),
        component.df.to_string(),
        format_significant(component.variance, 3),
        share.unwrap_or_else(|| none.clone()),
        deviation.unwrap_or_else(|| none.clone()),
        interval.unwrap_or(none),
    ]
}
