//! Queries the curves of single trials.

use std::collections::{HashMap, HashSet};

use ergodic_common::ids::{CellIndex, SweepId};
use ergodic_common::quantity::TrialQuantity;
use ergodic_common::spec::measured_value::MeasuredValue;
use ergodic_common::spec_file::grammar::GRAMMAR;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::step_units::SweepGrid;
use super::{Client, bad_input_error};
use crate::client::query::incomplete_response;
use crate::client::render::{TrialCondition, exact_value};

/// Maximum number of trials that are drawn as lines.
const MAX_LINES: usize = 2_000;

/// Curves of trials, steps and values, by the exact values of the axes of their mean curve.
pub(super) type TrialCurves = HashMap<Vec<String>, Vec<Vec<(u64, f64)>>>;

/// Queries the curves of completed trials that a filter takes, if their mean curves are among `wanted`.
///
/// # Errors
/// There are too many trials, or the coordinator does not respond.
pub(super) async fn query_trial_curves(
    client: &mut Client,
    sweep: &SweepId,
    filter: &TrialFilter,
    wanted: &HashSet<Vec<String>>,
) -> Result<TrialCurves, UserError> {
    let request = v1::RowsRequest {
        sweep: sweep.to_string(),
        after: None,
        grammar: GRAMMAR,
    };
    let mut pages = client
        .call(async |client| client.sweeps.rows(request).await)
        .await?;

    let mut curves = TrialCurves::new();
    while let Some(page) = client.next_message(&mut pages).await? {
        for result in page.rows.into_iter().filter_map(|row| row.result) {
            filter.add_trial(&mut curves, wanted, &result);
        }
        if curves.values().map(Vec::len).sum::<usize>() > MAX_LINES {
            return Err(bad_input_error(format!(
                "--trials: more than {MAX_LINES} trials cannot be told apart: choose cells with --where or --top"
            )));
        }
    }

    Ok(curves)
}

/// Tells to which mean curve a trial belongs.
pub(super) struct TrialFilter {
    grid: SweepGrid,
    condition: TrialCondition,
    /// Positions of the mean curves' axes.
    positions: Vec<usize>,
    value: MeasuredValue,
}

impl TrialFilter {
    /// A filter of the trials in cells that meet the condition `cells`, whose mean curves have the axes `axes`.
    ///
    /// # Errors
    /// The sweep does not measure the metric, or the condition is none.
    pub(super) fn new(
        grid: SweepGrid,
        metric: &str,
        axes: &[String],
        cells: &str,
    ) -> Result<Self, UserError> {
        let value = grid
            .spec
            .find_measured_value(metric)
            .map_err(|_| incomplete_response("GetSweepResponse"))?;

        Ok(Self {
            condition: TrialCondition::parse(cells, &grid.axis_names())?,
            positions: grid.find_axes(axes),
            value,
            grid,
        })
    }

    /// Adds the curve of a completed trial to those of its mean curve, if that is wanted.
    fn add_trial(
        &self,
        curves: &mut TrialCurves,
        wanted: &HashSet<Vec<String>>,
        result: &v1::TrialResult,
    ) {
        let cell = CellIndex(result.key.unwrap_or_default().cell);
        if result.outcome() != v1::OutcomeKind::Completed || !self.grid.spec.grid.has_cell(cell) {
            return;
        }

        let values = self.grid.cell_values(cell);
        let curve: Vec<String> = self
            .positions
            .iter()
            .map(|at| exact_value(&values[*at]))
            .collect();
        if !wanted.contains(&curve) || !self.condition.is_met_by(&values) {
            return;
        }

        let steps = result.curve_steps.iter().copied();
        let points = steps
            .zip(self.read_samples(cell, result))
            .filter(|(_, value)| value.is_finite());
        curves.entry(curve).or_default().push(points.collect());
    }

    /// The value at each sample of a completed trial.
    fn read_samples(&self, cell: CellIndex, result: &v1::TrialResult) -> Vec<f64> {
        match &self.value {
            MeasuredValue::Metric(column) => {
                let rows = 0..result.curve_steps.len();
                rows.map(|row| self.stored_value(result, row, *column))
                    .collect()
            }
            MeasuredValue::Quantity(quantity) => self.evaluate_samples(quantity, cell, result),
        }
    }

    fn evaluate_samples(
        &self,
        quantity: &TrialQuantity,
        cell: CellIndex,
        result: &v1::TrialResult,
    ) -> Vec<f64> {
        let Some(cell) = quantity.cell_inputs(&self.grid.spec.grid, cell) else {
            return Vec::new();
        };
        let steps: Vec<f64> = result.curve_steps.iter().map(|step| *step as f64).collect();
        let samples = quantity.evaluate(&cell, &steps, &|row, column| {
            self.stored_value(result, row, column)
        });
        samples.to_series(steps.len())
    }

    fn stored_value(&self, result: &v1::TrialResult, row: usize, column: usize) -> f64 {
        let width = self.grid.spec.measure.metrics.len();
        let value = result.curve_values.get(row * width + column);
        value.copied().unwrap_or(f64::NAN)
    }
}
