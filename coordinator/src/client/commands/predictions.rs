//! `ergodic predictions`: prints the predictions for the probe set, or those that a program reported, trial by trial or as
//! distributions of labels.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::Args;
use ergodic_common::ErrorCode;
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
/// There is no such sweep, it keeps no predictions, those of a cell are of different points, or the coordinator does not respond.
pub async fn run_predictions(args: PredictionsArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    let request = v1::PredictionsRequest {
        sweep: id.into(),
        programs: true,
    };
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

    match written.and_then(|()| Ok(printer.finish()?)) {
        // A reader that closes the pipe, such as `head`, has read enough.
        Err(PrintError::Output(e)) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(stdout_error(&e))
        }
        Err(PrintError::Points(message)) => Err(UserError::new(ErrorCode::BadInput, message)),
        _ => Ok(CommandOutcome::Done),
    }
}

/// Why predictions cannot be printed.
#[derive(Debug)]
enum PrintError {
    /// The output cannot be written.
    Output(io::Error),
    /// The trials of a cell predict different numbers of points.
    Points(String),
}

impl From<io::Error> for PrintError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Prints rows with the columns and the probe set of the first page.
struct PredictionPrinter<W> {
    out: W,
    format: PredictionFormat,
    first: Option<v1::PredictionsResponse>,
    /// The texts that name the points.
    points: Vec<String>,
    /// The counts of the current cell, if distributions are printed.
    distribution: Option<LabelDistribution>,
}

/// The counts of predicted classes in the trials of a cell.
#[derive(Debug, Default)]
struct LabelDistribution {
    cell: u64,
    values: Vec<v1::AxisValue>,
    /// Number of trials that were counted.
    n: u32,
    /// The counts at each step.
    steps: BTreeMap<u64, StepCounts>,
}

/// The counts at a step, which not every trial of a cell has: a trial may diverge before, and a program reports what it likes.
#[derive(Debug, Default)]
struct StepCounts {
    /// Number of trials with predictions at the step.
    n: u32,
    /// Counts by class, for each point.
    points: Vec<Vec<u32>>,
}

impl<W: Write> PredictionPrinter<W> {
    fn new(out: W, format: PredictionFormat, distributions: bool) -> Self {
        Self {
            out,
            format,
            first: None,
            points: Vec::new(),
            distribution: distributions.then(LabelDistribution::default),
        }
    }

    fn print_page(&mut self, page: v1::PredictionsResponse) -> Result<(), PrintError> {
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
                    known.add_trial(row)?;
                    self.print_cell(&whole)?;
                }
                Some(known) => known.add_trial(row)?,
            }
        }

        Ok(self.out.flush()?)
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

        let point = name_point(first);
        let names = match &self.distribution {
            Some(_) => format!("cell,step,{point},class,n,share"),
            None => format!("cell,repeat,step,{point},class"),
        };
        let axes = first
            .axes
            .iter()
            .map(|axis| json!(axis))
            .collect::<Vec<_>>();
        writeln!(self.out, "{}{names}", format_csv_prefix(&axes))
    }

    /// Makes the texts of so many points, each of which stands on many lines.
    fn describe_points(&mut self, count: usize) {
        let Some(first) = &self.first else {
            return;
        };
        let more =
            (self.points.len()..count).map(|point| describe_point(first, self.format, point));
        let more: Vec<String> = more.collect();
        self.points.extend(more);
    }

    fn print_trial(&mut self, row: &v1::PredictionRow) -> io::Result<()> {
        let count = count_points(row);
        self.describe_points(count);
        let Self {
            out,
            format,
            first,
            points,
            ..
        } = self;
        let first = first.as_ref().expect("the first page came before");
        let v1::TrialKey { cell, repeat } = row.key.unwrap_or_default();
        let start = format_line_prefix(*format, first, &row.values);

        for (step, classes) in row.steps.iter().zip(row.classes.chunks_exact(count)) {
            for (point, class) in points.iter().zip(classes) {
                match format {
                    PredictionFormat::Csv => {
                        writeln!(out, "{start}{cell},{repeat},{step},{point},{class}")?
                    }
                    PredictionFormat::Json => writeln!(
                        out,
                        "{{{start}\"cell\":{cell},\"repeat\":{repeat},\"step\":{step},{point},\"class\":{class}}}"
                    )?,
                }
            }
        }

        Ok(())
    }

    fn print_cell(&mut self, known: &LabelDistribution) -> io::Result<()> {
        let counts = known.steps.values().map(|counted| counted.points.len());
        self.describe_points(counts.max().unwrap_or(0));
        let Self {
            out,
            format,
            first,
            points,
            ..
        } = self;
        let first = first.as_ref().expect("the first page came before");
        let start = format_line_prefix(*format, first, &known.values);
        let cell = known.cell;

        for (step, counted) in &known.steps {
            let n = counted.n;
            for (point, counts) in points.iter().zip(&counted.points) {
                for (class, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                    let share = json!(f64::from(*count) / f64::from(n));
                    match format {
                        PredictionFormat::Csv => {
                            writeln!(out, "{start}{cell},{step},{point},{class},{n},{share}")?;
                        }
                        PredictionFormat::Json => writeln!(
                            out,
                            "{{{start}\"cell\":{cell},\"step\":{step},{point},\"class\":{class},\"n\":{n},\"share\":{share}}}"
                        )?,
                    }
                }
            }
        }

        Ok(())
    }
}

/// The columns that name a point: an image of the probe set and its label or, for a program, the place in its list.
fn name_point(first: &v1::PredictionsResponse) -> &'static str {
    match first.images.is_empty() {
        true => "point",
        false => "image,label",
    }
}

/// The values of [`name_point`].
fn describe_point(
    first: &v1::PredictionsResponse,
    format: PredictionFormat,
    point: usize,
) -> String {
    let is_csv = format == PredictionFormat::Csv;
    if first.images.is_empty() {
        let name = if is_csv { "" } else { "\"point\":" };
        return format!("{name}{point}");
    }
    let image = first.images.get(point).copied().unwrap_or_default();
    let label = first.labels.get(point).copied().unwrap_or_default();
    match is_csv {
        true => format!("{image},{label}"),
        false => format!("\"image\":{image},\"label\":{label}"),
    }
}

/// Number of points of a trial, the same at all of its steps; at least 1.
fn count_points(row: &v1::PredictionRow) -> usize {
    let points = row.classes.len().checked_div(row.steps.len());
    points.unwrap_or(1).max(1)
}

impl LabelDistribution {
    /// Counts a trial of the cell. The first trial sets the cell.
    fn add_trial(&mut self, row: v1::PredictionRow) -> Result<(), PrintError> {
        let points = count_points(&row);
        let key = row.key.unwrap_or_default();
        if self.n == 0 {
            self.cell = key.cell;
            self.values = row.values;
        }

        self.n += 1;
        for (step, classes) in row.steps.iter().zip(row.classes.chunks_exact(points)) {
            let known = self.steps.entry(*step).or_default();
            if known.n == 0 {
                known.points = vec![Vec::new(); points];
            }
            if known.points.len() != points {
                let message = format!(
                    "the trials of cell {} predict different numbers of points, which have no distribution: {} at step {step}, and \
                     the trial {}/{} {points}",
                    key.cell,
                    known.points.len(),
                    key.cell,
                    key.repeat
                );
                return Err(PrintError::Points(message));
            }
            known.n += 1;
            for (counts, class) in known.points.iter_mut().zip(classes) {
                let class = usize::from(*class);
                if counts.len() <= class {
                    counts.resize(class + 1, 0);
                }
                counts[class] += 1;
            }
        }
        Ok(())
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

    /// The rows of a program in two pages; its trials may have other steps, and other points.
    fn show_program(
        rows: Vec<v1::PredictionRow>,
        distributions: bool,
    ) -> Result<String, PrintError> {
        let mut out = Vec::new();
        let mut printer = PredictionPrinter::new(&mut out, PredictionFormat::Csv, distributions);
        printer.print_page(v1::PredictionsResponse {
            axes: vec!["lr".into()],
            ..v1::PredictionsResponse::default()
        })?;
        printer.print_page(v1::PredictionsResponse {
            rows,
            ..v1::PredictionsResponse::default()
        })?;
        printer.finish()?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn predictions_of_programs_are_of_points() {
        let late = v1::PredictionRow {
            steps: vec![20],
            classes: vec![3, 9],
            ..row(2, 8, [0; 4])
        };
        let rows = vec![row(2, 7, [3, 4, 3, 5]), late];
        let all = show_program(rows.clone(), false).expect("they are printed");
        let lines = "0.5,2,7,10,0,3\n0.5,2,7,10,1,4\n0.5,2,7,20,0,3\n0.5,2,7,20,1,5\n0.5,2,8,20,0,3\n0.5,2,8,20,1,9\n";
        assert_eq!(all, format!("lr,cell,repeat,step,point,class\n{lines}"));

        let shares = show_program(rows.clone(), true).expect("they are printed");
        let lines = "0.5,2,10,0,3,1,1.0\n0.5,2,10,1,4,1,1.0\n0.5,2,20,0,3,2,1.0\n0.5,2,20,1,5,2,0.5\n0.5,2,20,1,9,2,0.5\n";
        assert_eq!(shares, format!("lr,cell,step,point,class,n,share\n{lines}"));

        let odd = v1::PredictionRow {
            steps: vec![10],
            ..row(2, 9, [1; 4])
        };
        let rows = [rows, vec![odd]].concat();
        let Err(PrintError::Points(why)) = show_program(rows, true) else {
            panic!("trials of different points have no shares");
        };
        assert!(why.contains("2 at step 10, and the trial 2/9 4"), "{why}");
    }
}
