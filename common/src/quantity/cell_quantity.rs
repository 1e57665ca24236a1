//! Quantities that a cell has without any trial: of its axes, fields and derived values, and of the steps of its trials.

use crate::grid::Grid;
use crate::ids::CellIndex;
use crate::metric::Metric;
use crate::quantity::compile::QuantityCompiler;
use crate::quantity::evaluate::SampledCurve;
use crate::quantity::events::EventRounding;
use crate::quantity::program::{CellInputs, NodeIndex, QuantityProgram};
use crate::quantity::section::ClaimSection;

/// A number of each cell, such as `1/(lr*wd)` or `decay`.
#[derive(Debug, Clone)]
pub struct CellQuantity {
    program: QuantityProgram,
    root: NodeIndex,
}

/// A number of each step of a cell, such as `intrinsic_lr*step` or `samples`.
#[derive(Debug, Clone)]
pub struct StepQuantity {
    program: QuantityProgram,
    root: NodeIndex,
}

impl ClaimSection {
    /// Compiles a quantity of steps.
    ///
    /// # Errors
    /// The text names something unknown, or has no value without a trial; the message says what.
    pub(crate) fn compile_step_quantity(
        &self,
        grid: &Grid,
        metrics: &[Metric],
        text: &str,
    ) -> Result<StepQuantity, String> {
        let mut compiler = QuantityCompiler::new(grid, metrics, self.quantity_texts());
        let root = compiler.compile_text(text)?;
        let program = compiler.into_program();
        if !program.is_series(root) || program.is_condition(root) || program.needs_trial(root) {
            return Err(format!(
                "'{text}' is no number of the steps alone: expected step, epoch, samples, or an expression of them and of \
                 numbers of the cell, such as lr*wd*step"
            ));
        }

        Ok(StepQuantity { program, root })
    }

    /// Compiles a quantity of cells.
    ///
    /// # Errors
    /// The text names something unknown, or has no value without a trial; the message says what.
    pub(crate) fn compile_cell_quantity(
        &self,
        grid: &Grid,
        metrics: &[Metric],
        text: &str,
    ) -> Result<CellQuantity, String> {
        let mut compiler = QuantityCompiler::new(grid, metrics, self.quantity_texts());
        let root = compiler.compile_number(text)?;
        let program = compiler.into_program();
        if grid.is_of_program() && program.uses_end(root) {
            return Err(format!(
                "'{text}' needs the end of a trial, which a program has afterwards alone: expected a number of the cell"
            ));
        }
        if !program.is_static(root) {
            return Err(format!(
                "'{text}' has no value without a trial: expected a number of the cell, such as 1/(lr*wd)"
            ));
        }

        Ok(CellQuantity { program, root })
    }
}

impl CellQuantity {
    /// The number of a cell; NaN if it has none.
    pub fn value_in(&self, grid: &Grid, cell: CellIndex) -> f64 {
        let Some(inputs) = self.program.cell_inputs(grid, cell) else {
            return f64::NAN;
        };
        // Nothing that the root uses has samples.
        let columns = vec![Vec::new(); self.program.metrics().len()];
        let curve = SampledCurve {
            steps: &[],
            columns: &columns,
        };
        let values = self
            .program
            .evaluate_trial(&inputs, curve, EventRounding::Between);
        values[self.root].as_number()
    }
}

impl StepQuantity {
    /// What it needs to know of a cell. `None` for a cell that cannot be resolved.
    pub fn cell_inputs(&self, grid: &Grid, cell: CellIndex) -> Option<CellInputs> {
        self.program.cell_inputs(grid, cell)
    }

    /// The number after so many completed steps; NaN if it has none.
    pub fn value_at(&self, cell: &CellInputs, step: f64) -> f64 {
        let columns = vec![vec![f64::NAN]; self.program.metrics().len()];
        let curve = SampledCurve {
            steps: &[step],
            columns: &columns,
        };
        let values = self
            .program
            .evaluate_trial(cell, curve, EventRounding::Between);
        values[self.root].to_series(1)[0]
    }
}
