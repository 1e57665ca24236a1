//! The values of a quantity, trial by trial: at the end of each, and at each of its samples.

use crate::grid::Grid;
use crate::ids::CellIndex;
use crate::quantity::evaluate::NodeValue;
use crate::quantity::program::CellInputs;
use crate::quantity::trial_quantity::TrialQuantity;
use crate::trial::{Outcome, TrialResult};

/// Evaluates a quantity trial by trial. What it needs to know of a cell is looked up once for consecutive trials of that cell.
#[derive(Debug)]
pub struct TrialEvaluator<'a> {
    quantity: &'a TrialQuantity,
    grid: &'a Grid,
    cell: Option<(CellIndex, CellInputs)>,
}

/// The samples of a trial.
#[derive(Clone, Copy)]
pub struct TrialSamples<'a> {
    /// Numbers of completed steps, ascending.
    pub steps: &'a [f64],
    /// The value of a metric, by its index among those of `[measure]`, at a sample, whose index comes first.
    pub value: &'a dyn Fn(usize, usize) -> f64,
}

impl<'a> TrialEvaluator<'a> {
    /// An evaluator of a quantity in the cells of a grid.
    pub fn new(quantity: &'a TrialQuantity, grid: &'a Grid) -> Self {
        Self {
            quantity,
            grid,
            cell: None,
        }
    }

    fn find_inputs(&mut self, cell: CellIndex) -> Option<&CellInputs> {
        if self.cell.as_ref().is_none_or(|(known, _)| *known != cell) {
            let inputs = self.quantity.cell_inputs(self.grid, cell);
            self.cell = inputs.map(|inputs| (cell, inputs));
        }
        self.cell.as_ref().map(|(_, inputs)| inputs)
    }

    /// The value of a completed trial, of a quantity that depends on its final metrics alone. Those are its last sample.
    pub fn evaluate_end(&mut self, cell: CellIndex, metric: &dyn Fn(usize) -> f64) -> f64 {
        let quantity = self.quantity;
        let Some(inputs) = self.find_inputs(cell) else {
            return f64::NAN;
        };
        let value = |_: usize, column: usize| metric(column);
        last_value(quantity.evaluate(inputs, &[inputs.end()], &value))
    }

    /// The value of a completed trial at its last sample; for a program, at the last one that has a value.
    pub fn evaluate_last(&mut self, cell: CellIndex, samples: TrialSamples<'_>) -> f64 {
        let values = self.evaluate_samples(cell, samples);
        let is_of_program = self
            .find_inputs(cell)
            .is_some_and(CellInputs::is_of_program);
        match values {
            NodeValue::Series(values) if is_of_program => last_defined(&values),
            values => last_value(values),
        }
    }

    /// The values of a trial at its samples. A trial that is cut off, because it diverged, has none if they depend on other
    /// samples, which it lacks.
    pub fn evaluate_curve(
        &mut self,
        cell: CellIndex,
        samples: TrialSamples<'_>,
        is_cut_off: bool,
    ) -> Vec<f64> {
        let values = match is_cut_off && self.quantity.depends_on_other_samples() {
            true => NodeValue::Number(f64::NAN),
            false => self.evaluate_samples(cell, samples),
        };
        values.to_series(samples.steps.len())
    }

    fn evaluate_samples(&mut self, cell: CellIndex, samples: TrialSamples<'_>) -> NodeValue {
        let quantity = self.quantity;
        match self.find_inputs(cell) {
            Some(inputs) => quantity.evaluate(inputs, samples.steps, samples.value),
            None => NodeValue::Number(f64::NAN),
        }
    }

    /// The value of a trial at its end; NaN for a trial that did not complete.
    pub fn evaluate_result(&mut self, result: &TrialResult) -> f64 {
        let cell = result.key.cell;
        if result.outcome != Outcome::Completed {
            return f64::NAN;
        }
        if !self.quantity.needs_whole_curve() {
            let metric = |column: usize| result.metrics.get(column).copied().unwrap_or(f64::NAN);
            return self.evaluate_end(cell, &metric);
        }

        let steps = convert_steps(result);
        let value = |row, column| sampled_value(result, row, column);
        let samples = TrialSamples {
            steps: &steps,
            value: &value,
        };
        self.evaluate_last(cell, samples)
    }

    /// The values of a trial at the samples that it has.
    pub fn evaluate_result_curve(&mut self, result: &TrialResult) -> Vec<f64> {
        let steps = convert_steps(result);
        let value = |row, column| sampled_value(result, row, column);
        let samples = TrialSamples {
            steps: &steps,
            value: &value,
        };
        let is_cut_off = result.outcome != Outcome::Completed;
        self.evaluate_curve(result.key.cell, samples, is_cut_off)
    }
}

fn convert_steps(result: &TrialResult) -> Vec<f64> {
    let steps = result.curve.steps.iter();
    steps.map(|step| *step as f64).collect()
}

/// The value of a metric at a sample of a trial, which has as many final metrics as values at each sample.
fn sampled_value(result: &TrialResult, row: usize, column: usize) -> f64 {
    let at = row * result.metrics.len() + column;
    result.curve.values.get(at).copied().unwrap_or(f64::NAN)
}

/// The last value that is one; NaN without any.
fn last_defined(values: &[f64]) -> f64 {
    let mut values = values.iter().rev();
    values.find(|x| !x.is_nan()).copied().unwrap_or(f64::NAN)
}

/// The number, or the last one of a series; NaN without any.
fn last_value(value: NodeValue) -> f64 {
    match value {
        NodeValue::Number(x) => x,
        NodeValue::Series(values) => values.last().copied().unwrap_or(f64::NAN),
    }
}
