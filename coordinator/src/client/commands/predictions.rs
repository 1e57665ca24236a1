//! `ergodic predictions`: prints the predictions for the probe set, trial by trial or as
//! distributions of labels.

use std::io::{self, Write};

use clap::Args;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::app::{CommandOutcome, stdout_error};
use crate::client::args::SweepTarget;
use crate::client::render::{TableData, format_unquoted, json_value};

/// `ergodic predictions`
#[derive(Debug, Args)]
pub struct PredictionsArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// Print distributions of labels instead: per cell, step and test image, the share of trials that predict each class
    #[arg(long)]
    pub distributions: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: PredictionFormat,
}

/// The `--format` of predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum PredictionFormat {
    /// Comma-separated values with a header.
    #[default]
    Csv,
    /// One JSON object per line.
    Json,
}

/// Prints the predictions of a sweep page by page as they arrive: one row per trial, step and probe
/// point or, with `distributions`, one per cell, step, probe point and class.
///
/// # Errors
/// There is no such sweep, it keeps no predictions, or the coordinator does not respond.
pub async fn run_predictions(args: PredictionsArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    let request = v1::PredictionsRequest { sweep: id.into() };
    let mut pages = client
        .call(async |client| client.sweeps.predictions(request).await)
        .await?;

    let mut printer = PredictionPrinter::new(
        io::BufWriter::new(io::stdout().lock()),
        args.format,
        args.distributions,
    );

    let mut written = Ok(());
    while let Some(page) = client.next_message(&mut pages).await? {
        written = printer.print_page(page);
        if written.is_err() {
            break;
        }
    }

    match written.and_then(|()| printer.finish()) {
        // A reader that closes the pipe, such as `head`, has read enough.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(stdout_error(&e)),
        _ => Ok(CommandOutcome::Done),
    }
}

/// Prints rows with the columns and the probe set of the first page.
struct PredictionPrinter<W> {
    out: W,
    format: PredictionFormat,
    first: Option<v1::PredictionsResponse>,
    /// The counts of the current cell, if distributions are printed.
    distribution: Option<LabelDistribution>,
}

/// The counts of predicted classes in the trials of a cell.
#[derive(Debug, Default)]
struct LabelDistribution {
    cell: u64,
    values: Vec<v1::AxisValue>,
    steps: Vec<u64>,
    /// Number of trials that were counted.
    n: u32,
    /// Counts by class, for each step and probe point.
    counts: Vec<Vec<u32>>,
}

impl<W: Write> PredictionPrinter<W> {
    const TRIAL_COLUMNS: [&str; 6] = ["cell", "repeat", "step", "image", "label", "class"];
    const CELL_COLUMNS: [&str; 7] = ["cell", "step", "image", "label", "class", "n", "share"];

    fn new(out: W, format: PredictionFormat, distributions: bool) -> Self {
        Self {
            out,
            format,
            first: None,
            distribution: distributions.then(LabelDistribution::default),
        }
    }

    fn print_page(&mut self, page: v1::PredictionsResponse) -> io::Result<()> {
        let rows = match &self.first {
            Some(_) => page.rows,
            None => {
                let rows = page.rows;
                let first = v1::PredictionsResponse {
                    rows: Vec::new(),
                    ..page
                };
                self.print_header(&first)?;

                self.first = Some(first);
                rows
            }
        };
        for row in rows {
            match &mut self.distribution {
                None => self.print_trial(&row)?,
                Some(known) if known.n > 0 && known.cell != row.key.unwrap_or_default().cell => {
                    let whole = std::mem::take(known);
                    known.add_trial(row);
                    self.print_cell(&whole)?;
                }
                Some(known) => known.add_trial(row),
            }
        }

        self.out.flush()
    }

    fn finish(mut self) -> io::Result<()> {
        if let Some(last) = self.distribution.take().filter(|last| last.n > 0) {
            self.print_cell(&last)?;
        }
        self.out.flush()
    }

    fn print_header(&mut self, first: &v1::PredictionsResponse) -> io::Result<()> {
        if self.format == PredictionFormat::Json {
            return Ok(());
        }

        let names = if self.distribution.is_some() {
            &Self::CELL_COLUMNS[..]
        } else {
            &Self::TRIAL_COLUMNS[..]
        };

        let axes = first
            .axes
            .iter()
            .map(|axis| json!(axis))
            .collect::<Vec<_>>();
        writeln!(self.out, "{}{}", format_csv_prefix(&axes), names.join(","))
    }

    fn print_trial(&mut self, row: &v1::PredictionRow) -> io::Result<()> {
        let Self {
            out, format, first, ..
        } = self;
        let first = first.as_ref().expect("the first page came before");
        let v1::TrialKey { cell, repeat } = row.key.unwrap_or_default();
        let start = format_line_prefix(*format, first, &row.values);

        for (step, classes) in row
            .steps
            .iter()
            .zip(row.classes.chunks_exact(first.images.len().max(1)))
        {
            for ((image, label), class) in first.images.iter().zip(&first.labels).zip(classes) {
                match format {
                    PredictionFormat::Csv => {
                        writeln!(out, "{start}{cell},{repeat},{step},{image},{label},{class}")?
                    }
                    PredictionFormat::Json => writeln!(
                        out,
                        "{{{start}\"cell\":{cell},\"repeat\":{repeat},\"step\":{step},\"image\":{image},\"label\":{label},\"class\":{class}}}"
                    )?,
                }
            }
        }

        Ok(())
    }

    fn print_cell(&mut self, known: &LabelDistribution) -> io::Result<()> {
        let Self {
            out, format, first, ..
        } = self;
        let first = first.as_ref().expect("the first page came before");
        let start = format_line_prefix(*format, first, &known.values);
        let cell = known.cell;

        let n = known.n;
        for (step, points) in known
            .steps
            .iter()
            .zip(known.counts.chunks_exact(first.images.len().max(1)))
        {
            for ((image, label), counts) in first.images.iter().zip(&first.labels).zip(points) {
                for (class, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                    let share = json!(f64::from(*count) / f64::from(n));
                    match format {
                        PredictionFormat::Csv => {
                            writeln!(
                                out,
                                "{start}{cell},{step},{image},{label},{class},{n},{share}"
                            )?;
                        }
                        PredictionFormat::Json => writeln!(
                            out,
                            "{{{start}\"cell\":{cell},\"step\":{step},\"image\":{image},\"label\":{label},\"class\":{class},\"n\":{n},\"share\":{share}}}"
                        )?,
                    }
                }
            }
        }

        Ok(())
    }
}

impl LabelDistribution {
    /// Counts a trial of the cell. The first trial sets the cell.
    fn add_trial(&mut self, row: v1::PredictionRow) {
        if self.n == 0 {
            self.cell = row.key.unwrap_or_default().cell;
            self.values = row.values;
            self.steps = row.steps;
            self.counts = vec![Vec::new(); row.classes.len()];
        }

        self.n += 1;
        for (counts, class) in self.counts.iter_mut().zip(&row.classes) {
            let class = usize::from(*class);
            if counts.len() <= class {
                counts.resize(class + 1, 0);
            }
            counts[class] += 1;
        }
    }
}

/// Formats the beginning of a line: the values of a cell.
fn format_line_prefix(
    format: PredictionFormat,
    first: &v1::PredictionsResponse,
    values: &[v1::AxisValue],
) -> String {
    let values: Vec<Value> = values.iter().map(json_value).collect();
    match format {
        PredictionFormat::Csv => format_csv_prefix(&values),
        PredictionFormat::Json => first
            .axes
            .iter()
            .zip(&values)
            .map(|(axis, value)| format!("{}:{value},", json!(axis)))
            .collect(),
    }
}

/// Formats values as the beginning of a line of CSV.
fn format_csv_prefix(values: &[Value]) -> String {
    let records = TableData {
        columns: values.iter().map(format_unquoted).collect(),
        rows: Vec::new(),
        key_columns: 0,
    };

    if values.is_empty() {
        String::new()
    } else {
        format!("{},", records.to_csv().trim_end())
    }
}

#[cfg(test)]
mod tests {
    use crate::client::commands::predictions::*;

    fn row(cell: u64, repeat: u32, classes: [u8; 4]) -> v1::PredictionRow {
        let kind = Some(v1::axis_value::Kind::Number(0.5));
        v1::PredictionRow {
            key: Some(v1::TrialKey { cell, repeat }),
            values: vec![v1::AxisValue { kind }],
            steps: vec![10, 20],
            classes: classes.to_vec(),
        }
    }

    fn show(rows: Vec<v1::PredictionRow>, format: PredictionFormat, distributions: bool) -> String {
        let first = v1::PredictionsResponse {
            axes: vec!["lr".into()],
            images: vec![11, 40],
            labels: vec![3, 5],
            ..v1::PredictionsResponse::default()
        };

        let mut out = Vec::new();
        let mut printer = PredictionPrinter::new(&mut out, format, distributions);
        printer.print_page(first).expect("memory can be written");

        // One row per page.
        for row in rows {
            let page = v1::PredictionsResponse {
                rows: vec![row],
                ..v1::PredictionsResponse::default()
            };
            printer.print_page(page).expect("memory can be written");
        }

        printer.finish().expect("memory can be written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn predictions_are_rows_with_image_label_and_class() {
        let rows = vec![row(2, 7, [3, 4, 3, 5])];
        let csv = show(rows.clone(), PredictionFormat::Csv, false);
        let lines = "0.5,2,7,10,11,3,3\n0.5,2,7,10,40,5,4\n0.5,2,7,20,11,3,3\n0.5,2,7,20,40,5,5\n";
        assert_eq!(
            csv,
            format!("lr,cell,repeat,step,image,label,class\n{lines}")
        );

        let json = show(rows, PredictionFormat::Json, false);
        assert!(
            json.contains("\"lr\":0.5")
                && json.contains("\"image\":40")
                && json.lines().count() == 4,
            "{json}"
        );

        assert!(
            json.lines()
                .all(|line| serde_json::from_str::<Value>(line).is_ok()),
            "{json}"
        );
    }

    #[test]
    fn distributions_are_shares_of_the_trials_of_a_cell() {
        let rows = vec![
            row(2, 0, [3, 4, 3, 5]),
            row(2, 1, [3, 0, 9, 5]),
            row(4, 1, [1, 1, 1, 1]),
        ];
        let csv = show(rows.clone(), PredictionFormat::Csv, true);

        let two = "0.5,2,10,11,3,3,2,1.0\n0.5,2,10,40,5,0,2,0.5\n0.5,2,10,40,5,4,2,0.5\n\
                   0.5,2,20,11,3,3,2,0.5\n0.5,2,20,11,3,9,2,0.5\n0.5,2,20,40,5,5,2,1.0\n";
        let four = "0.5,4,10,11,3,1,1,1.0\n0.5,4,10,40,5,1,1,1.0\n0.5,4,20,11,3,1,1,1.0\n0.5,4,20,40,5,1,1,1.0\n";
        assert_eq!(
            csv,
            format!("lr,cell,step,image,label,class,n,share\n{two}{four}")
        );

        let json = show(rows, PredictionFormat::Json, true);
        assert!(
            json.lines()
                .all(|line| serde_json::from_str::<Value>(line).is_ok()),
            "{json}"
        );

        assert_eq!(json.lines().count(), 10);
    }
}
