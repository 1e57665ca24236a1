//! The rows that a query reads. For a metric, they are those of the store. For a quantity, each has the value of the quantity as
//! its only one, computed from the samples of the trial.

use ergodic_common::quantity::{TrialEvaluator, TrialQuantity, TrialSamples};
use ergodic_common::trial::MetricCurve;
use ergodic_common::{Outcome, Spec, TrialKey};

use crate::analysis::error::AnalysisError;
use crate::analysis::query::TableQuery;
use crate::analysis::row_source::RowSource;
use crate::analysis::table_metric::TableMetric;
use crate::store::encoding::{StoredNumbers, encode_curve};
use crate::store::{CurveView, EndedTrial, SampledTrial, StoreError, StoreReader, TrialRange};

impl TableQuery {
    /// Number of values of a sample in the rows that the query reads.
    pub(super) fn row_width(&self, spec: &Spec) -> usize {
        match self.metric() {
            TableMetric::Stored(..) => spec.measure.metrics.len(),
            TableMetric::Computed(_) => 1,
        }
    }

    /// Calls `each` with the end of every trial in a range, ordered by cell and repeat.
    pub(super) fn read_ended_trials(
        &self,
        rows: RowSource<'_>,
        reader: &dyn StoreReader,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<(), StoreError> {
        match self.metric() {
            TableMetric::Stored(..) => reader.read_ended_trials(rows.sweep, part, each),
            TableMetric::Computed(quantity) if quantity.needs_whole_curve() => {
                read_ends_from_curves(quantity, rows, reader, part, each)
            }
            TableMetric::Computed(quantity) => {
                let mut evaluator = TrialEvaluator::new(quantity, &rows.spec.grid);
                reader.read_ended_trials(rows.sweep, part, &mut |trial| {
                    let value = evaluate_stored_end(&mut evaluator, &trial);
                    hand_out_value(trial, value, each);
                })
            }
        }
    }

    /// Calls `each` with the curves of the trials in a range that completed or diverged, ordered by cell and repeat.
    pub(super) fn read_curves(
        &self,
        rows: RowSource<'_>,
        reader: &dyn StoreReader,
        part: TrialRange,
        each: &mut dyn FnMut(SampledTrial<'_>),
    ) -> Result<(), StoreError> {
        let TableMetric::Computed(quantity) = self.metric() else {
            return reader.read_curves(rows.sweep, part, each);
        };

        let width = rows.spec.measure.metrics.len();
        let mut evaluator = TrialEvaluator::new(quantity, &rows.spec.grid);
        reader.read_curves(rows.sweep, part, &mut |trial| {
            let bytes = encode_curve(&evaluate_stored_curve(&mut evaluator, &trial, width));
            if let Some(curve) = CurveView::new(&bytes) {
                each(SampledTrial { curve, ..trial });
            }
        })
    }

    /// Reads the value of each completed trial at its end, ordered by cell and repeat.
    ///
    /// # Errors
    /// The store failed.
    pub fn read_final_values(
        &self,
        rows: RowSource<'_>,
    ) -> Result<Vec<(TrialKey, f64)>, AnalysisError> {
        let column = self.metric().column();
        let parts = rows.map_ranges(|reader, part| {
            let mut values = Vec::new();
            self.read_ended_trials(rows, reader, part, &mut |trial| {
                if trial.outcome == Outcome::Completed {
                    let value = trial.metrics.get(column).unwrap_or(f64::NAN);
                    values.push((trial.key, value));
                }
            })?;
            Ok::<_, StoreError>(values)
        })?;

        Ok(parts.into_iter().flatten().collect())
    }
}

/// Reads the ends of trials with values that depend on all samples. A trial that did not complete has none.
fn read_ends_from_curves(
    quantity: &TrialQuantity,
    rows: RowSource<'_>,
    reader: &dyn StoreReader,
    part: TrialRange,
    each: &mut dyn FnMut(EndedTrial<'_>),
) -> Result<(), StoreError> {
    let width = rows.spec.measure.metrics.len();
    let mut evaluator = TrialEvaluator::new(quantity, &rows.spec.grid);
    let mut values: Vec<(TrialKey, f64)> = Vec::new();
    reader.read_curves(rows.sweep, part, &mut |trial| {
        if trial.diverged_at.is_none() {
            let value = with_samples(&trial, width, |samples| {
                evaluator.evaluate_last(trial.key.cell, samples)
            });
            values.push((trial.key, value));
        }
    })?;

    // Both are ordered by key.
    let mut values = values.into_iter().peekable();
    reader.read_ended_trials(rows.sweep, part, &mut |trial| {
        while values.next_if(|(key, _)| *key < trial.key).is_some() {}
        let found = values.next_if(|(key, _)| *key == trial.key);
        let value = found.map_or(f64::NAN, |(_, value)| value);
        hand_out_value(trial, value, each);
    })
}

/// The value of a trial, of a quantity that depends on its final metrics alone. A trial that did not complete has none.
fn evaluate_stored_end(evaluator: &mut TrialEvaluator<'_>, trial: &EndedTrial<'_>) -> f64 {
    if trial.outcome != Outcome::Completed {
        return f64::NAN;
    }
    let metric = |column: usize| trial.metrics.get(column).unwrap_or(f64::NAN);
    evaluator.evaluate_end(trial.key.cell, &metric)
}

/// Calls `each` with the end of a trial, with this value in place of its metrics.
fn hand_out_value(trial: EndedTrial<'_>, value: f64, each: &mut dyn FnMut(EndedTrial<'_>)) {
    let bytes = value.to_le_bytes();
    each(EndedTrial {
        metrics: StoredNumbers::new(&bytes),
        ..trial
    });
}

/// The values of a trial at its samples, as a curve of one metric.
fn evaluate_stored_curve(
    evaluator: &mut TrialEvaluator<'_>,
    trial: &SampledTrial<'_>,
    width: usize,
) -> MetricCurve {
    let cell = trial.key.cell;
    let is_cut_off = trial.diverged_at.is_some();
    MetricCurve {
        values: with_samples(trial, width, |samples| {
            evaluator.evaluate_curve(cell, samples, is_cut_off)
        }),
        steps: trial.curve.steps().collect(),
    }
}

/// Calls `work` with the samples of a trial, which have `width` metrics each.
fn with_samples<T>(
    trial: &SampledTrial<'_>,
    width: usize,
    work: impl FnOnce(TrialSamples<'_>) -> T,
) -> T {
    let steps: Vec<f64> = trial.curve.steps().map(|step| step as f64).collect();
    let value = |row: usize, column: usize| {
        let stored = trial.curve.value_at(row, width, column);
        stored.unwrap_or(f64::NAN)
    };
    work(TrialSamples {
        steps: &steps,
        value: &value,
    })
}
