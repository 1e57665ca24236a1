//! `ergodic compare`: cells against a baseline, repeat by repeat.

use ergodic_common::ErrorCode;
use ergodic_common::escape::escape_line;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::client::Client;
use crate::client::render::{
    AxisFormats, TableData, TextFormat, format_estimate, format_short_number, json_value,
    render_human_rows, render_table_data,
};

/// What to compare, and how to print it.
#[derive(Debug, Clone)]
pub struct CompareOptions {
    /// The baseline as typed: `lr=0.1,wd=5e-4`.
    pub baseline: String,
    /// Metric.
    pub metric: Option<String>,
    /// Step.
    pub at: Option<String>,
    /// Level of the intervals, in percent.
    pub level: f64,
    /// Format.
    pub format: TextFormat,
}

/// `ergodic compare`
///
/// # Errors
/// There is no such sweep, axis, value or metric, nothing to compare, or nobody answers.
pub async fn compare_cells(
    client: &mut Client,
    sweep: &str,
    options: &CompareOptions,
) -> Result<String, UserError> {
    let metric = options.metric.as_deref();
    let at = options.at.as_deref();
    let compared = query_contrasts(
        client,
        sweep,
        &options.baseline,
        metric,
        at,
        options.level / 100.0,
    )
    .await?;
    let records = build_contrast_data(&compared);

    if options.format == TextFormat::Json {
        let rows = records.to_json_lines();
        return Ok(format!(
            "{{\n  \"sweep\": {},\n  \"metric\": {},\n  \"baseline\": {},\n  \"level\": {},\n  \"note\": {},\n  \"rows\": [\n{}\n  ]\n}}\n",
            json!(compared.sweep),
            json!(compared.metric),
            json!(compared.baseline),
            json!(options.level / 100.0),
            json!(Some(&compared.note).filter(|note| !note.is_empty())),
            rows
        ));
    }

    Ok(render_table_data(&records, options.format, |_| {
        render_human_contrasts(&compared, options.level)
    }))
}

/// Asks for the cells against a baseline, as typed; `level` is a share.
///
/// # Errors
/// As for [`compare`].
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
    Ok(client
        .sweeps
        .compare(request)
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner())
}

/// What was given with an option, `lr=0.1,wd=5e-4`; commas within brackets and quotes belong to a value.
pub(crate) fn parse_axis_choices(
    option: &str,
    text: &str,
) -> Result<Vec<v1::AxisChoice>, UserError> {
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

    let choice = |part: &String| {
        let (axis, value) = part
            .split_once('=')
            .filter(|(axis, value)| !(axis.trim().is_empty() || value.trim().is_empty()))?;
        Some(v1::AxisChoice {
            axis: axis.trim().trim_matches('"').to_owned(),
            value: value.trim().trim_matches('"').to_owned(),
        })
    };
    let all: Option<Vec<_>> = parts.iter().map(choice).collect();

    all.ok_or_else(|| {
        let message = format!(
            "{option}: expected axes with their values, as in lr=0.1,wd=5e-4, found '{text}'"
        );
        UserError::new(ErrorCode::BadInput, message)
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
    let row = |row: &v1::Contrast| {
        let method = row.wilcoxon_p.map(|_| {
            if row.wilcoxon_exact {
                "exact"
            } else {
                "normal"
            }
        });

        let note = Some(&row.note).filter(|note| !note.is_empty());
        let values = [
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
            json!(method),
            json!(row.correlation),
            json!(row.unpaired),
            json!(row.saved),
            json!(note),
        ];

        row.values
            .iter()
            .map(json_value)
            .chain(values)
            .collect::<Vec<Value>>()
    };

    TableData {
        columns: compared
            .axes
            .iter()
            .cloned()
            .chain(COLUMNS.map(str::to_owned))
            .collect(),
        rows: compared.rows.iter().map(row).collect(),
        key_columns: compared.axes.len(),
    }
}

fn render_human_contrasts(compared: &v1::CompareResponse, level: f64) -> String {
    let interval = format!("{level} % CI");
    let after = [
        "n",
        "difference",
        &interval,
        "above/below",
        "sign p",
        "Wilcoxon p",
        "saved",
        "",
    ];
    let header: Vec<String> = compared
        .axes
        .iter()
        .cloned()
        .chain(after.map(str::to_owned))
        .collect();

    let number = |x: Option<f64>| format_short_number(x);
    let words = AxisFormats::from_rows(
        compared.axes.len(),
        compared.rows.iter().map(|row| row.values.as_slice()),
    );
    let row = |row: &v1::Contrast| {
        let (difference, ends) = format_estimate(row.difference, row.low.zip(row.high));
        let approximate = if row.wilcoxon_p.is_some() && !row.wilcoxon_exact {
            "≈ "
        } else {
            ""
        };
        let cells = [
            row.n.to_string(),
            difference,
            ends,
            format!("{}/{}", row.above, row.below),
            number(row.sign_holm),
            format!("{approximate}{}", number(row.wilcoxon_holm)),
            row.saved
                .map_or_else(|| number(None), |saved| format!("{saved:.0}")),
            row.note.clone(),
        ];

        words
            .format_row(&row.values)
            .chain(cells)
            .map(Value::String)
            .collect::<Vec<Value>>()
    };
    let rows: Vec<Vec<Value>> = compared.rows.iter().map(row).collect();

    let part = match compared.done == compared.trials {
        true => format!("{} trials", compared.trials),
        false => format!("{} of {} trials so far", compared.done, compared.trials),
    };
    let note = if compared.note.is_empty() {
        String::new()
    } else {
        format!("note: {}\n", compared.note)
    };

    format!(
        "{} ({}): {} against {}, paired by repeat\n{}p with Holm's correction over the cells, ≈ by the normal \
         approximation; saved: further repeats of each cell that an unpaired comparison would need\n{note}{part} · {} · {}\n",
        escape_line(&compared.name),
        compared.sweep,
        compared.metric,
        compared.baseline,
        render_human_rows(&header, &rows),
        escape_line(&compared.data),
        escape_line(&compared.numerics)
    )
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
