//! `ergodic compare`: compares cells with a baseline, repeat by repeat.

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::escape::escape_line;
use ergodic_common::number_format::format_rounded;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::app::{CommandOutcome, print_output};
use crate::client::Client;
use crate::client::args::{MetricArgs, SweepTarget};
use crate::client::render::{
    AxisFormats, TableData, TextFormat, format_estimate, format_short_number, json_value,
    non_empty, render_human_rows, render_table_data,
};
use crate::client::status_text::format_provenance;

/// `ergodic compare`
#[derive(Debug, Args)]
pub struct CompareArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// Baseline, as in lr=0.1,wd=5e-4; axes that are not named keep the value of the cell that is compared
    #[arg(long, value_name = "AXIS=VALUE,…")]
    pub baseline: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub metric: MetricArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// Compares cells with a baseline and prints the differences.
///
/// # Errors
/// There is no such sweep, axis, value or metric, nothing to compare, or nobody answers.
pub async fn run_compare(args: CompareArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    let MetricArgs { metric, at, level } = &args.metric;
    let compared = query_contrasts(
        &mut client,
        &id,
        &args.baseline,
        metric.as_deref(),
        at.as_deref(),
        level / 100.0,
    )
    .await?;

    print_output(render_contrasts(&compared, *level, args.format))
}

/// The differences in a format; `level` is in percent.
fn render_contrasts(compared: &v1::CompareResponse, level: f64, format: TextFormat) -> String {
    let records = build_contrast_data(compared);
    if format == TextFormat::Json {
        let rows = records.to_json_lines();
        return format!(
            "{{\n  \"sweep\": {},\n  \"metric\": {},\n  \"baseline\": {},\n  \"level\": {},\n  \"note\": {},\n  \"rows\": [\n{}\n  ]\n}}\n",
            json!(compared.sweep),
            json!(compared.metric),
            json!(compared.baseline),
            json!(level / 100.0),
            json!(non_empty(&compared.note)),
            rows
        );
    }

    render_table_data(&records, format, |_| {
        render_human_contrasts(compared, level)
    })
}

/// Queries the cells against a baseline as typed; `level` is a share.
///
/// # Errors
/// As for [`run_compare`].
pub(crate) async fn query_contrasts(
    client: &mut Client,
    sweep: &str,
    baseline: &str,
    metric: Option<&str>,
    at: Option<&str>,
    level: f64,
) -> Result<v1::CompareResponse, UserError> {
    let request = v1::CompareRequest {
        sweep: sweep.to_owned(),
        baseline: parse_axis_choices("--baseline", baseline)?,
        metric: metric.unwrap_or_default().to_owned(),
        at: at.unwrap_or_default().to_owned(),
        level,
    };
    client
        .call(async |client| client.sweeps.compare(request).await)
        .await
}

/// Parses axes with values as in `lr=0.1,wd=5e-4`. Commas within brackets and quotes belong to a
/// value.
pub(crate) fn parse_axis_choices(
    option: &str,
    text: &str,
) -> Result<Vec<v1::AxisChoice>, UserError> {
    let choices: Option<Vec<_>> = split_outside_brackets(text)
        .iter()
        .map(|part| parse_axis_choice(part))
        .collect();

    choices.ok_or_else(|| {
        let message = format!(
            "{option}: expected axes with their values, as in lr=0.1,wd=5e-4, found '{text}'"
        );
        UserError::new(ErrorCode::BadInput, message)
    })
}

/// Splits a text at commas outside brackets and quotes.
fn split_outside_brackets(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0_i32;
    let mut quoted = false;

    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }

        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }

    parts
}

fn parse_axis_choice(text: &str) -> Option<v1::AxisChoice> {
    let (axis, value) = text.split_once('=')?;
    if axis.trim().is_empty() || value.trim().is_empty() {
        return None;
    }

    Some(v1::AxisChoice {
        axis: axis.trim().trim_matches('"').to_owned(),
        value: value.trim().trim_matches('"').to_owned(),
    })
}

const COLUMNS: [&str; 18] = [
    "n",
    "mean",
    "baseline",
    "difference",
    "std",
    "ci_low",
    "ci_high",
    "above",
    "below",
    "sign_p",
    "sign_holm",
    "wilcoxon_p",
    "wilcoxon_holm",
    "wilcoxon",
    "correlation",
    "unpaired",
    "saved",
    "note",
];

fn build_contrast_data(compared: &v1::CompareResponse) -> TableData {
    let columns = compared.axes.iter().cloned();
    TableData {
        columns: columns.chain(COLUMNS.map(str::to_owned)).collect(),
        rows: compared.rows.iter().map(build_contrast_row).collect(),
        key_columns: compared.axes.len(),
    }
}

fn build_contrast_row(row: &v1::Contrast) -> Vec<Value> {
    let method = match row.wilcoxon_exact {
        true => "exact",
        false => "normal",
    };
    let figures = [
        json!(row.n),
        json!(row.mean),
        json!(row.baseline),
        json!(row.difference),
        json!(row.std),
        json!(row.low),
        json!(row.high),
        json!(row.above),
        json!(row.below),
        json!(row.sign_p),
        json!(row.sign_holm),
        json!(row.wilcoxon_p),
        json!(row.wilcoxon_holm),
        json!(row.wilcoxon_p.map(|_| method)),
        json!(row.correlation),
        json!(row.unpaired),
        json!(row.saved),
        json!(non_empty(&row.note)),
    ];

    row.values.iter().map(json_value).chain(figures).collect()
}

fn render_human_contrasts(compared: &v1::CompareResponse, level: f64) -> String {
    let words = AxisFormats::from_rows(
        compared.axes.len(),
        compared.rows.iter().map(|row| row.values.as_slice()),
    );
    let rows: Vec<Vec<Value>> = compared
        .rows
        .iter()
        .map(|row| format_contrast_row(row, &words))
        .collect();
    let note = non_empty(&compared.note).map_or_else(String::new, |note| format!("note: {note}\n"));

    format!(
        "{} ({}): {} against {}, paired by repeat\n{}p with Holm's correction over the cells, ≈ by the normal \
         approximation; saved: further repeats of each cell that an unpaired comparison would need\n{note}{}",
        escape_line(&compared.name),
        compared.sweep,
        compared.metric,
        compared.baseline,
        render_human_rows(&human_header(compared, level), &rows),
        format_provenance(
            compared.done,
            compared.trials,
            &compared.data,
            &compared.numerics
        )
    )
}

fn human_header(compared: &v1::CompareResponse, level: f64) -> Vec<String> {
    let interval = format!("{level} % CI");
    let figures = [
        "n",
        "difference",
        &interval,
        "above/below",
        "sign p",
        "Wilcoxon p",
        "saved",
        "",
    ];

    let axes = compared.axes.iter().cloned();
    axes.chain(figures.map(str::to_owned)).collect()
}

fn format_contrast_row(row: &v1::Contrast, words: &AxisFormats) -> Vec<Value> {
    let (difference, interval) = format_estimate(row.difference, row.low.zip(row.high));
    let approximate = if row.wilcoxon_p.is_some() && !row.wilcoxon_exact {
        "≈ "
    } else {
        ""
    };
    let saved = row.saved.map_or_else(
        || format_short_number(None),
        |saved| format_rounded(saved, 0),
    );

    let cells = [
        row.n.to_string(),
        difference,
        interval,
        format!("{}/{}", row.above, row.below),
        format_short_number(row.sign_holm),
        format!("{approximate}{}", format_short_number(row.wilcoxon_holm)),
        saved,
        row.note.clone(),
    ];

    words
        .format_row(&row.values)
        .chain(cells)
        .map(Value::String)
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::client::commands::compare::*;

    #[test]
    fn a_baseline_is_read_as_typed() {
        let read = |text| {
            let all = parse_axis_choices("--baseline", text).map_err(|e| e.to_string())?;
            Ok::<_, String>(
                all.into_iter()
                    .map(|c| (c.axis, c.value))
                    .collect::<Vec<_>>(),
            )
        };

        let pair = |axis: &str, value: &str| (axis.to_owned(), value.to_owned());
        assert_eq!(
            read("lr=0.1, wd=5e-4"),
            Ok(vec![pair("lr", "0.1"), pair("wd", "5e-4")])
        );
        assert_eq!(
            read("hidden=[16, 8],kind=\"mlp\""),
            Ok(vec![pair("hidden", "[16, 8]"), pair("kind", "mlp")])
        );

        for bad in ["", "lr", "lr=", "=3", "lr=1,,wd=2"] {
            assert!(
                read(bad).is_err_and(|e| e.contains("--baseline") && e.contains("lr=0.1,wd=5e-4")),
                "{bad}"
            );
        }
    }
}
