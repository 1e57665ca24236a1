//! What trials keep beside their metrics: trained weights, and predictions for the probe set.

use std::io::Write;
use std::path::Path;

use ergodic_common::{ErrorCode, Outcome, TrialKey, TrialResult};
use ergodic_proto::status::UserError;
use ergodic_proto::{transfer, v1};
use serde_json::{Value, json};

use super::output::{NewFile, Records, json_value, plain};
use super::{Client, commands};

/// `--format` of predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum PredictionFormat {
    /// Comma-separated values with a header.
    #[default]
    Csv,
    /// One JSON object per line.
    Json,
}

/// Writes the trained weights of a trial into a file and says what they are.
///
/// # Errors
/// There is no such trial, it kept no weights, the file cannot be written, or nobody answers.
pub async fn weights(client: &mut Client, sweep: &str, key: TrialKey, path: &Path) -> Result<String, UserError> {
    let page = commands::trial(client, sweep, key).await?;
    let row = page.rows.into_iter().next().and_then(|row| row.result);
    let result = row.and_then(|row| TrialResult::try_from(row).ok());
    let result = result.ok_or_else(|| UserError::new(ErrorCode::Internal, "the coordinator sent no readable row"))?;
    let hash = result.weights.ok_or_else(|| no_weights(&page.sweep, &result))?;
    let file = transfer::fetch(&mut client.files, hash).await.map_err(|e| client.error(&e))?;
    let written = NewFile::begin(path).and_then(|mut new| new.write_all(&file).and_then(|()| new.finish()));
    written.map_err(|e| {
        UserError::new(ErrorCode::BadInput, format!("{}: cannot write the weights: {e}", path.display()))
    })?;
    Ok(format!("{}: weights of trial {key} of {}, {} bytes\n", path.display(), page.sweep, file.len()))
}

fn no_weights(sweep: &str, result: &TrialResult) -> UserError {
    let why = match &result.outcome {
        Outcome::Completed => "set save = [\"final\"] under [measure] of the next one".to_owned(),
        other => format!("it {}, and only completed trials have any", other.word()),
    };
    UserError::new(ErrorCode::NotFound, format!("the trial {} of {sweep} kept no weights: {why}", result.key))
}

/// Prints the predictions of a sweep, one row per trial, step and probe point, page by page as they come.
///
/// # Errors
/// There is no such sweep, it keeps no predictions, or nobody answers.
pub async fn predictions(client: &mut Client, sweep: &str, format: PredictionFormat) -> Result<(), UserError> {
    let request = v1::PredictionsRequest { sweep: sweep.to_owned() };
    let mut pages = client.sweeps.predictions(request).await.map_err(|e| client.error(&e))?.into_inner();
    let mut first: Option<v1::PredictionsResponse> = None;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    while let Some(page) = pages.message().await.map_err(|e| client.error(&e))? {
        let header = first.is_none();
        let first = first.get_or_insert_with(|| v1::PredictionsResponse { rows: Vec::new(), ..page.clone() });
        match show(first, &page.rows, format, header, &mut out).and_then(|()| out.flush()) {
            Ok(()) => {}
            // Whoever reads has seen enough.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => break,
            Err(e) => return Err(UserError::new(ErrorCode::Internal, format!("cannot write to stdout: {e}"))),
        }
    }
    Ok(())
}

/// Rows under the columns and probe set that the first page names.
fn show(
    first: &v1::PredictionsResponse,
    rows: &[v1::PredictionRow],
    format: PredictionFormat,
    header: bool,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let names = ["cell", "repeat", "step", "image", "label", "class"];
    if header && format == PredictionFormat::Csv {
        let axes = first.axes.iter().map(|axis| json!(axis)).collect::<Vec<_>>();
        writeln!(out, "{}{}", csv_start(&axes), names.join(","))?;
    }
    for row in rows {
        let key = row.key.unwrap_or_default();
        let axes: Vec<Value> = row.values.iter().map(json_value).collect();
        let start = match format {
            PredictionFormat::Csv => csv_start(&axes),
            PredictionFormat::Json => {
                first.axes.iter().zip(&axes).map(|(axis, value)| format!("{}:{value},", json!(axis))).collect()
            }
        };
        let looks = row.steps.iter().zip(row.classes.chunks_exact(first.images.len().max(1)));
        for (step, classes) in looks {
            for ((image, label), class) in first.images.iter().zip(&first.labels).zip(classes) {
                let v1::TrialKey { cell, repeat } = key;
                match format {
                    PredictionFormat::Csv => writeln!(out, "{start}{cell},{repeat},{step},{image},{label},{class}")?,
                    PredictionFormat::Json => writeln!(
                        out,
                        "{{{start}\"cell\":{cell},\"repeat\":{repeat},\"step\":{step},\"image\":{image},\"label\":{label},\"class\":{class}}}"
                    )?,
                }
            }
        }
    }
    Ok(())
}

/// Values as the beginning of a line of CSV.
fn csv_start(values: &[Value]) -> String {
    let records = Records { columns: values.iter().map(plain).collect(), rows: Vec::new() };
    if values.is_empty() { String::new() } else { format!("{},", records.csv().trim_end()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_are_rows_with_image_label_and_class() {
        let kind = Some(v1::axis_value::Kind::Number(0.5));
        let row = v1::PredictionRow {
            key: Some(v1::TrialKey { cell: 2, repeat: 7 }),
            values: vec![v1::AxisValue { kind }],
            steps: vec![10, 20],
            classes: vec![3, 4, 3, 5],
        };
        let first = v1::PredictionsResponse {
            axes: vec!["lr".into()],
            images: vec![11, 40],
            labels: vec![3, 5],
            ..v1::PredictionsResponse::default()
        };
        let show = |format, header| {
            let mut out = Vec::new();
            show(&first, std::slice::from_ref(&row), format, header, &mut out).expect("memory can be written");
            String::from_utf8(out).expect("text")
        };
        let csv = show(PredictionFormat::Csv, true);
        let rows = "0.5,2,7,10,11,3,3\n0.5,2,7,10,40,5,4\n0.5,2,7,20,11,3,3\n0.5,2,7,20,40,5,5\n";
        assert_eq!(csv, format!("lr,cell,repeat,step,image,label,class\n{rows}"));
        assert_eq!(show(PredictionFormat::Csv, false), rows);
        let json = show(PredictionFormat::Json, false);
        assert!(json.contains("\"lr\":0.5") && json.contains("\"image\":40") && json.lines().count() == 4, "{json}");
        assert!(json.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{json}");
    }
}
