//! What a program has reported so far, line by line. Memory is bounded, whatever it writes.

use ergodic_common::escape::escape_lines;
use ergodic_common::ids::WeightsDigest;
use ergodic_common::program::{DeclaredMetric, Direction};
use ergodic_common::spec::MAX_PREDICTIONS;
use ergodic_common::trial::{MetricCurve, Predictions};
use ergodic_common::{Outcome, TrialKey, TrialResult};

use super::lines::NumberedLine;
use super::statement::Statement;
use crate::train::checkpoint::{CheckpointDecoder, CheckpointEncoder};

/// Maximum number of values in a curve, steps included: that of trials which are trained here, see `measure_checks` in common.
const MAX_CURVE_NUMBERS: usize = 200_000;
/// Maximum number of steps with predictions: as many as a curve may have.
const MAX_PREDICTION_STEPS: usize = 100_000;
/// Characters of a wrong line that a failure shows.
const MAX_SHOWN_CHARS: usize = 200;
/// The key of the digest.
const DIGEST_CONTEXT: &str = "ergodic 2026 program digest v1";

/// The metrics, curve and predictions that a program has reported.
#[derive(Debug, Clone)]
pub(crate) struct TrialRecord<'a> {
    metrics: &'a [DeclaredMetric],
    /// One row per step, with NaN for what was not reported.
    curve: MetricCurve,
    predictions: Predictions,
    /// The step at which each metric was first reported; `None` for one that was not.
    first_steps: Vec<Option<u64>>,
    /// The last step of any line but a checkpoint.
    last_step: u64,
    /// The step of the last checkpoint, which stands for all lines up to it.
    checkpoint: Option<u64>,
    /// The step at which the trial diverged.
    diverged_at: Option<u64>,
}

/// What is to be done after a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LineEffect {
    /// Nothing.
    None,
    /// The trial has diverged and is over.
    Diverged,
    /// The checkpoint of this step is to be kept.
    Checkpoint(u64),
}

impl<'a> TrialRecord<'a> {
    /// An empty record of these metrics.
    pub(crate) fn new(metrics: &'a [DeclaredMetric]) -> Self {
        Self {
            metrics,
            curve: MetricCurve::default(),
            predictions: Predictions::default(),
            first_steps: vec![None; metrics.len()],
            last_step: 0,
            checkpoint: None,
            diverged_at: None,
        }
    }

    /// The number of the last step that was reported.
    pub(crate) fn last_step(&self) -> u64 {
        self.last_step
    }

    /// The step at which the trial diverged.
    pub(crate) fn diverged_at(&self) -> Option<u64> {
        self.diverged_at
    }

    /// Adds what a line says. Nothing counts after a divergence.
    ///
    /// # Errors
    /// The line is wrong: a failure of the trial, with the line.
    pub(super) fn add_line(&mut self, line: &NumberedLine) -> Result<LineEffect, String> {
        if self.diverged_at.is_some() {
            return Ok(LineEffect::Diverged);
        }
        let statement = Statement::parse(&line.bytes);
        statement
            .and_then(|said| said.map_or(Ok(LineEffect::None), |said| self.add_statement(said)))
            .map_err(|why| describe_wrong_line(line, &why))
    }

    /// Adds what was said.
    ///
    /// # Errors
    /// A metric is not declared, a step goes back, or there is too much.
    pub(crate) fn add_statement(&mut self, statement: Statement) -> Result<LineEffect, String> {
        match statement {
            Statement::Diverged(step) => self.note_divergence(step),
            Statement::Checkpoint(step) => self.note_checkpoint(step),
            Statement::Sample {
                step,
                values,
                predictions,
            } => {
                let values = self.find_columns(values)?;
                self.check_step(step)?;
                let is_diverged = |(column, x): &(usize, Option<f64>)| {
                    x.is_none() && self.metrics[*column].direction != Direction::Volatile
                };
                if values.iter().any(is_diverged) {
                    return self.note_divergence(step);
                }

                self.check_after_checkpoint(step)?;
                self.last_step = step;
                self.add_values(step, &values)?;
                predictions.map_or(Ok(()), |classes| self.add_predictions(step, classes))?;
                Ok(LineEffect::None)
            }
        }
    }

    fn note_divergence(&mut self, step: u64) -> Result<LineEffect, String> {
        self.check_step(step)?;
        self.last_step = step;
        self.diverged_at = Some(step);
        Ok(LineEffect::Diverged)
    }

    /// Notes a checkpoint, which may be complete only after lines of later steps.
    fn note_checkpoint(&mut self, step: u64) -> Result<LineEffect, String> {
        if let Some(last) = self.checkpoint.filter(|last| step < *last) {
            return Err(format!(
                "the checkpoint of step {step} comes after that of step {last}: report checkpoints in ascending order"
            ));
        }
        self.checkpoint = Some(step);
        Ok(LineEffect::Checkpoint(step))
    }

    /// Checks that a line is none that the last checkpoint stands for: whoever goes on from it would never report the line, and
    /// the result would depend on where the trial was interrupted.
    fn check_after_checkpoint(&self, step: u64) -> Result<(), String> {
        match self.checkpoint {
            Some(checkpoint) if step <= checkpoint => Err(format!(
                "step {step} comes after the checkpoint of step {checkpoint}, which stands for all that is reported up to step \
                 {checkpoint}: report it before this checkpoint"
            )),
            _ => Ok(()),
        }
    }

    fn check_step(&self, step: u64) -> Result<(), String> {
        if step < self.last_step {
            return Err(format!(
                "step {step} comes after step {}: report steps in ascending order",
                self.last_step
            ));
        }
        Ok(())
    }

    /// The columns of metrics that a line names.
    fn find_columns(
        &self,
        values: Vec<(String, Option<f64>)>,
    ) -> Result<Vec<(usize, Option<f64>)>, String> {
        let column = |name: &str| self.metrics.iter().position(|metric| metric.name == name);
        let found = values.into_iter().map(|(name, x)| {
            let column = column(&name).ok_or_else(|| {
                let names: Vec<&str> = self.metrics.iter().map(|m| m.name.as_str()).collect();
                format!(
                    "'{name}' is no declared metric: add it to the metrics of the sweep file, or report one of {}",
                    names.join(", ")
                )
            })?;
            Ok((column, x))
        });
        found.collect()
    }

    /// Adds values to the row of a step, which is new or the last one. Of several values at one step, the last counts.
    fn add_values(&mut self, step: u64, values: &[(usize, Option<f64>)]) -> Result<(), String> {
        if values.is_empty() {
            return Ok(());
        }
        if self.curve.steps.last() != Some(&step) {
            let rows = self.curve.steps.len() + 1;
            if rows * (1 + self.metrics.len()) > MAX_CURVE_NUMBERS {
                return Err(format!(
                    "{rows} steps with {} metrics are too many: report less often",
                    self.metrics.len()
                ));
            }
            self.curve.steps.push(step);
            self.curve
                .values
                .extend(self.metrics.iter().map(|_| f64::NAN));
        }

        let row = self.curve.values.len() - self.metrics.len();
        for (column, x) in values {
            self.curve.values[row + column] = x.unwrap_or(f64::NAN);
            self.first_steps[*column].get_or_insert(step);
        }
        Ok(())
    }

    fn add_predictions(&mut self, step: u64, classes: Vec<u8>) -> Result<(), String> {
        let known = &mut self.predictions;
        if known.steps.last() == Some(&step) {
            return Err(format!("there are predictions for step {step} already"));
        }
        if classes.is_empty() {
            return Err("its list of predictions is empty: write one class for each point".into());
        }
        let points = known
            .classes
            .len()
            .checked_div(known.steps.len())
            .unwrap_or(classes.len());
        if classes.len() != points {
            return Err(format!(
                "there are {} predictions, but {points} earlier: predict the same points each time",
                classes.len()
            ));
        }
        if known.steps.len() == MAX_PREDICTION_STEPS {
            return Err(format!(
                "a trial predicts at more than {MAX_PREDICTION_STEPS} steps: predict less often"
            ));
        }
        if (known.classes.len() + classes.len()) as u64 > MAX_PREDICTIONS {
            return Err(format!(
                "a trial has more than {MAX_PREDICTIONS} predictions: predict fewer points, or less often"
            ));
        }

        known.steps.push(step);
        known.classes.extend(classes);
        Ok(())
    }

    /// The names of declared metrics that were never reported.
    pub(crate) fn missing_metrics(&self) -> Vec<&'a str> {
        let metrics = self.metrics.iter().zip(&self.first_steps);
        metrics
            .filter(|(_, first_step)| first_step.is_none())
            .map(|(metric, _)| metric.name.as_str())
            .collect()
    }

    /// The last number of each metric. All are undefined if the trial diverged, as those of trials that are trained here.
    pub(crate) fn final_metrics(&self) -> Vec<f64> {
        let width = self.metrics.len();
        let last = |column: usize| {
            let values = self.curve.values[column..].iter().step_by(width);
            let mut numbers = values.filter(|x| !x.is_nan() && self.diverged_at.is_none());
            numbers.next_back().copied().unwrap_or(f64::NAN)
        };
        match self.curve.values.is_empty() {
            true => vec![f64::NAN; width],
            false => (0..width).map(last).collect(),
        }
    }

    /// The result of the trial, given its outcome or why it failed. The time that it took is not known here.
    pub(crate) fn into_result(
        self,
        key: TrialKey,
        outcome: Result<Outcome, String>,
    ) -> TrialResult {
        let steps = self.last_step();
        match outcome {
            Ok(outcome) => TrialResult {
                outcome,
                steps,
                metrics: self.final_metrics(),
                digest: self.compute_digest(),
                curve: self.curve,
                predictions: self.predictions,
                ..TrialResult::completed(key)
            },
            Err(cause) => {
                tracing::error!(trial = %key, cause, "trial failed");
                TrialResult {
                    steps,
                    ..TrialResult::failed(key, cause, self.metrics.len())
                }
            }
        }
    }

    /// BLAKE3 hash of all that is not volatile. What enters it, in this order: the number of such metrics; their names, in
    /// alphabetical order; their final values; the number of steps at which one of them was reported; each of these steps with
    /// its values; the number of predictions, their steps and their classes. Numbers are little-endian, a missing value is one
    /// fixed NaN, and texts and lists follow their length.
    pub(crate) fn compute_digest(&self) -> WeightsDigest {
        let mut columns: Vec<usize> = (0..self.metrics.len())
            .filter(|column| self.metrics[*column].direction != Direction::Volatile)
            .collect();
        columns.sort_by_key(|column| &self.metrics[*column].name);

        let mut digest = CheckpointEncoder::default();
        digest.write_u64(columns.len() as u64);
        for column in &columns {
            digest.write_bytes(self.metrics[*column].name.as_bytes());
        }
        let finals = self.final_metrics();
        digest.write_f64s(&pick_columns(&finals, &columns));

        let rows = self.curve.values.chunks_exact(self.metrics.len().max(1));
        let rows: Vec<(u64, Vec<f64>)> = self
            .curve
            .steps
            .iter()
            .zip(rows)
            .map(|(step, row)| (*step, pick_columns(row, &columns)))
            .filter(|(_, row)| row.iter().any(|x| !x.is_nan()))
            .collect();
        digest.write_u64(rows.len() as u64);
        for (step, row) in &rows {
            digest.write_u64(*step);
            digest.write_f64s(row);
        }

        digest.write_u64s(&self.predictions.steps);
        digest.write_bytes(&self.predictions.classes);
        let mut hasher = blake3::Hasher::new_derive_key(DIGEST_CONTEXT);
        WeightsDigest(*hasher.update(&digest.into_bytes()).finalize().as_bytes())
    }

    /// Encodes what was reported up to a step, for a checkpoint.
    pub(crate) fn encode_until(&self, step: u64, to: &mut CheckpointEncoder) {
        let rows = self.curve.steps.partition_point(|at| *at <= step);
        to.write_u64s(&self.curve.steps[..rows]);
        to.write_f64s(&self.curve.values[..rows * self.metrics.len()]);

        let points = self
            .predictions
            .classes
            .len()
            .checked_div(self.predictions.steps.len());
        let kept = self.predictions.steps.partition_point(|at| *at <= step);
        to.write_u64s(&self.predictions.steps[..kept]);
        to.write_bytes(&self.predictions.classes[..kept * points.unwrap_or(0)]);
        let is_reported = |first_step: &Option<u64>| first_step.is_some_and(|at| at <= step);
        let reported = self.first_steps.iter().map(|at| u8::from(is_reported(at)));
        to.write_bytes(&reported.collect::<Vec<u8>>());
        // A checkpoint may be kept after a later step than the last one that was reported.
        to.write_u64(self.last_step.min(step));
    }

    /// Decodes what [`Self::encode_until`] wrote for a checkpoint of this step; `None` if it is of other metrics.
    pub(crate) fn decode(
        metrics: &'a [DeclaredMetric],
        step: u64,
        from: &mut CheckpointDecoder<'_>,
    ) -> Option<Self> {
        let curve = MetricCurve {
            steps: from.read_u64s()?,
            values: from.read_f64s()?,
        };
        let predictions = Predictions {
            steps: from.read_u64s()?,
            classes: from.read_bytes()?,
        };
        // All that was reported was so by the step of the checkpoint.
        let reported = from.read_bytes()?;
        let reported = reported.iter().map(|x| (*x != 0).then_some(step));
        let first_steps: Vec<Option<u64>> = reported.collect();
        let last_step = from.read_u64()?;
        let fits = first_steps.len() == metrics.len()
            && curve.values.len() == curve.steps.len() * metrics.len();
        fits.then_some(Self {
            metrics,
            curve,
            predictions,
            first_steps,
            last_step,
            checkpoint: Some(step),
            diverged_at: None,
        })
    }
}

/// The values of these columns, with one NaN for all.
fn pick_columns(row: &[f64], columns: &[usize]) -> Vec<f64> {
    let values = columns.iter().map(|column| row[*column]);
    values
        .map(|x| if x.is_nan() { f64::NAN } else { x })
        .collect()
}

fn describe_wrong_line(line: &NumberedLine, why: &str) -> String {
    let text = String::from_utf8_lossy(&line.bytes);
    let shown: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    format!(
        "line {} of the metrics is wrong: {why}: {}",
        line.number,
        escape_lines(&shown)
    )
}

#[cfg(test)]
mod tests;
