//! The rows that a query reads. For a metric, they are those of the store. For a quantity, each has the value of the quantity as
//! its only one, computed from the samples of the trial.

use ergodic_common::ids::CellIndex;
use ergodic_common::quantity::{CellInputs, NodeValue, TrialQuantity};
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
                let mut evaluator = TrialEvaluator::new(quantity, rows.spec);
                reader.read_ended_trials(rows.sweep, part, &mut |trial| {
                    let value = evaluator.evaluate_end(&trial);
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

        let mut evaluator = TrialEvaluator::new(quantity, rows.spec);
        reader.read_curves(rows.sweep, part, &mut |trial| {
            let bytes = encode_curve(&evaluator.evaluate_curve(&trial));
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
    let mut evaluator = TrialEvaluator::new(quantity, rows.spec);
    let mut values: Vec<(TrialKey, f64)> = Vec::new();
    reader.read_curves(rows.sweep, part, &mut |trial| {
        if trial.diverged_at.is_none() {
            values.push((trial.key, evaluator.evaluate_last(&trial)));
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

/// Calls `each` with the end of a trial, with this value in place of its metrics.
fn hand_out_value(trial: EndedTrial<'_>, value: f64, each: &mut dyn FnMut(EndedTrial<'_>)) {
    let bytes = value.to_le_bytes();
    each(EndedTrial {
        metrics: StoredNumbers::new(&bytes),
        ..trial
    });
}

/// Evaluates a quantity trial by trial. What it needs to know of a cell is looked up once.
struct TrialEvaluator<'a> {
    quantity: &'a TrialQuantity,
    spec: &'a Spec,
    cell: Option<(CellIndex, CellInputs)>,
}

impl<'a> TrialEvaluator<'a> {
    fn new(quantity: &'a TrialQuantity, spec: &'a Spec) -> Self {
        Self {
            quantity,
            spec,
            cell: None,
        }
    }

    fn find_inputs(&mut self, cell: CellIndex) -> Option<&CellInputs> {
        if self.cell.as_ref().is_none_or(|(known, _)| *known != cell) {
            let inputs = self.quantity.cell_inputs(&self.spec.grid, cell);
            self.cell = inputs.map(|inputs| (cell, inputs));
        }
        self.cell.as_ref().map(|(_, inputs)| inputs)
    }

    /// The value of a completed trial, of a quantity that depends on its final metrics alone. Those are its last sample.
    fn evaluate_end(&mut self, trial: &EndedTrial<'_>) -> f64 {
        let quantity = self.quantity;
        let is_completed = trial.outcome == Outcome::Completed;
        let Some(inputs) = self.find_inputs(trial.key.cell).filter(|_| is_completed) else {
            return f64::NAN;
        };

        last_value(quantity.evaluate(inputs, &[inputs.end()], &|_, column| {
            trial.metrics.get(column).unwrap_or(f64::NAN)
        }))
    }

    /// The value of a completed trial at its last sample.
    fn evaluate_last(&mut self, trial: &SampledTrial<'_>) -> f64 {
        last_value(self.evaluate_samples(trial))
    }

    /// The values of a trial at its samples. A trial that diverged has none if they depend on other samples, which it lacks.
    fn evaluate_curve(&mut self, trial: &SampledTrial<'_>) -> MetricCurve {
        let steps: Vec<u64> = trial.curve.steps().collect();
        let is_cut_off = trial.diverged_at.is_some() && self.quantity.needs_whole_curve();
        let values = match is_cut_off {
            true => NodeValue::Number(f64::NAN),
            false => self.evaluate_samples(trial),
        };

        MetricCurve {
            values: values.to_series(steps.len()),
            steps,
        }
    }

    fn evaluate_samples(&mut self, trial: &SampledTrial<'_>) -> NodeValue {
        let quantity = self.quantity;
        let width = self.spec.measure.metrics.len();
        let Some(inputs) = self.find_inputs(trial.key.cell) else {
            return NodeValue::Number(f64::NAN);
        };

        let steps: Vec<f64> = trial.curve.steps().map(|step| step as f64).collect();
        quantity.evaluate(inputs, &steps, &|row, column| {
            let stored = trial.curve.value_at(row, width, column);
            stored.unwrap_or(f64::NAN)
        })
    }
}

/// The number, or the last one of a series; NaN without any.
fn last_value(value: NodeValue) -> f64 {
    match value {
        NodeValue::Number(x) => x,
        NodeValue::Series(values) => values.last().copied().unwrap_or(f64::NAN),
    }
}
