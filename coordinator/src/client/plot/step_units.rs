//! Converts steps of curves to epochs or samples, which may differ from cell to cell.

use std::collections::HashMap;

use ergodic_common::ids::SweepId;
use ergodic_common::quantity::{CellInputs, StepQuantity};
use ergodic_common::spec::SpecSource;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::options::CurveUnit;
use super::{Client, bad_input_error};
use crate::client::query::query_sweep_file;
use crate::client::render::{TrialCondition, exact_value};

/// Maximum number of cells whose steps are converted.
const MAX_CELLS: u64 = 1_000_000;

/// Steps at which the quantities of cells that are pooled are compared.
const COMPARED_STEPS: [f64; 2] = [1.0, 1000.0];

/// How many units a step of each curve is.
pub(super) enum StepUnits {
    /// Steps themselves.
    Steps,
    /// The units per step, by the exact values of a curve's axes.
    PerCurve(HashMap<Vec<String>, f64>),
    /// A quantity of steps, and what it needs to know of a cell of each curve.
    Quantity(StepQuantity, HashMap<Vec<String>, CellInputs>),
}

impl StepUnits {
    /// The units of a curve after some steps.
    pub(super) fn convert_step(&self, curve: &[String], step: u64) -> f64 {
        let step = step as f64;
        match self {
            Self::Steps => step,
            // Every curve has a cell, which the sweep file has, too.
            Self::PerCurve(units) => step * units.get(curve).copied().unwrap_or(f64::NAN),
            Self::Quantity(x, cells) => cells
                .get(curve)
                .map_or(f64::NAN, |cell| x.value_at(cell, step)),
        }
    }
}

/// The name of the axis.
pub(super) fn unit_name(unit: CurveUnit) -> &'static str {
    match unit {
        CurveUnit::Step => "step",
        CurveUnit::Epoch => "epoch",
        CurveUnit::Sample => "samples seen",
    }
}

/// The grid of a stored sweep, read from its file.
pub(super) struct SweepGrid {
    pub(super) spec: Spec,
}

impl SweepGrid {
    /// Queries the file of a sweep, and reads it.
    ///
    /// # Errors
    /// The file is of a newer version, or the coordinator does not respond.
    pub(super) async fn query(client: &mut Client, sweep: &SweepId) -> Result<Self, UserError> {
        let file = query_sweep_file(client, sweep).await?;
        Self::from_source(&file.source)
    }

    fn from_source(source: &SpecSource) -> Result<Self, UserError> {
        let spec = Spec::read_stored(source).map_err(|e| {
            UserError::new(
                ErrorCode::Version,
                format!("this version cannot read the sweep file: {e}"),
            )
        })?;
        Ok(Self { spec })
    }

    /// The names of all axes.
    pub(super) fn axis_names(&self) -> Vec<String> {
        let axes = self.spec.grid.axes();
        axes.iter().map(|axis| axis.name.clone()).collect()
    }

    /// The value of each axis in a cell.
    pub(super) fn cell_values(&self, cell: ergodic_common::ids::CellIndex) -> Vec<v1::AxisValue> {
        let axes = self.spec.grid.axes();
        self.spec
            .grid
            .value_indices(cell)
            .into_iter()
            .zip(axes)
            .map(|(index, axis)| v1::AxisValue::from(&axis.value_at(index)))
            .collect()
    }

    /// Positions of these axes among all.
    pub(super) fn find_axes(&self, axes: &[String]) -> Vec<usize> {
        let all = self.axis_names();
        axes.iter()
            .filter_map(|name| all.iter().position(|axis| axis == name))
            .collect()
    }

    /// Collects the units per step of each curve, whose axes are `axes`. `cells` is the condition that cells meet.
    ///
    /// # Errors
    /// A curve pools cells with different numbers of steps per epoch, the sweep has no images, or too many cells.
    pub(super) fn collect_units(
        &self,
        unit: CurveUnit,
        axes: &[String],
        cells: &str,
    ) -> Result<StepUnits, UserError> {
        let count = self.spec.grid.cell_number_bound();
        if count > MAX_CELLS {
            return Err(bad_input_error(format!(
                "--x: a sweep of {count} cells is too large to convert steps, at most {MAX_CELLS} cells are: leave out --x"
            )));
        }

        let condition = TrialCondition::parse(cells, &self.axis_names())?;
        let positions = self.find_axes(axes);
        let mut units: HashMap<Vec<String>, f64> = HashMap::new();
        for cell in self.spec.grid.iter() {
            let values = self.cell_values(cell);
            if !condition.is_met_by(&values) {
                continue;
            }

            let per_step = self.units_per_step(unit, cell)?;
            let curve: Vec<String> = positions
                .iter()
                .map(|at| exact_value(&values[*at]))
                .collect();
            let known = *units.entry(curve.clone()).or_insert(per_step);
            if known != per_step {
                return Err(bad_input_error(format!(
                    "--x: the curve of {} pools cells whose steps are not of equal length: name the axis of the batch size in \
                     --by or --facet, or select cells with --where",
                    curve.join(" · ")
                )));
            }
        }

        Ok(StepUnits::PerCurve(units))
    }

    /// Finds a cell of each curve, whose axes are `axes`, for the values of `x`. `cells` is the condition that cells meet.
    ///
    /// # Errors
    /// A curve pools cells with different values, or the sweep has too many cells.
    pub(super) fn collect_quantity(
        &self,
        x: StepQuantity,
        axes: &[String],
        cells: &str,
    ) -> Result<StepUnits, UserError> {
        let condition = TrialCondition::parse(cells, &self.axis_names())?;
        let positions = self.find_axes(axes);
        let mut known: HashMap<Vec<String>, CellInputs> = HashMap::new();
        for cell in self.spec.grid.iter() {
            let values = self.cell_values(cell);
            let inputs = x.cell_inputs(&self.spec.grid, cell);
            let Some(inputs) = inputs.filter(|_| condition.is_met_by(&values)) else {
                continue;
            };

            let curve = positions.iter().map(|at| exact_value(&values[*at]));
            let curve: Vec<String> = curve.collect();
            let first = known.entry(curve.clone()).or_insert_with(|| inputs.clone());
            if COMPARED_STEPS
                .iter()
                .any(|step| x.value_at(first, *step) != x.value_at(&inputs, *step))
            {
                return Err(bad_input_error(format!(
                    "x: the curve of {} pools cells in which it differs: name the axis that it depends on in by or facet, or select \
                     cells with where",
                    curve.join(" · ")
                )));
            }
        }

        Ok(StepUnits::Quantity(x, known))
    }

    fn units_per_step(
        &self,
        unit: CurveUnit,
        cell: ergodic_common::ids::CellIndex,
    ) -> Result<f64, UserError> {
        let config = self.spec.grid.resolve_config(cell).map_err(|e| {
            UserError::new(
                ErrorCode::Version,
                format!("this version cannot read cell {cell}: {e}"),
            )
        })?;
        if config.data.train == 0 || !config.model.kind.needs_images() {
            return Err(bad_input_error(
                "--x: this sweep has no training images, so its steps are no part of an epoch"
                    .to_owned(),
            ));
        }

        Ok(match unit {
            CurveUnit::Step => 1.0,
            CurveUnit::Epoch => 1.0 / config.steps_per_epoch() as f64,
            CurveUnit::Sample => f64::from(config.effective_batch_size()),
        })
    }
}
