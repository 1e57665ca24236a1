//! A quantity of single trials, which tables, curves and pictures show as they show a metric.

use crate::grid::Grid;
use crate::ids::CellIndex;
use crate::metric::Metric;
use crate::quantity::call_text::tidy_text;
use crate::quantity::compile::QuantityCompiler;
use crate::quantity::evaluate::{NodeValue, SampledCurve};
use crate::quantity::events::EventRounding;
use crate::quantity::program::{CellInputs, NodeIndex, QuantityProgram};
use crate::quantity::section::ClaimSection;

/// Number of cells in which a quantity is looked for.
const CHECKED_CELLS: usize = 200;

/// A quantity that is computed of each trial by itself.
#[derive(Debug, Clone)]
pub struct TrialQuantity {
    /// The name of a quantity, or an expression.
    text: String,
    definition: String,
    program: QuantityProgram,
    root: NodeIndex,
    /// Whether trials are programs, whose samples alone say where they end.
    is_of_program: bool,
}

impl ClaimSection {
    /// Compiles a quantity for single trials: one of `[quantity]` by its name, or an expression.
    ///
    /// # Errors
    /// The text is no quantity, is a condition, needs a reference cell, or names something unknown; the message says what and
    /// what to do.
    pub fn compile_trial_quantity(
        &self,
        grid: &Grid,
        metrics: &[Metric],
        text: &str,
    ) -> Result<TrialQuantity, String> {
        let mut compiler = QuantityCompiler::new(grid, metrics, self.quantity_texts());
        let root = compiler.compile_text(text)?;
        if compiler.program().is_condition(root) {
            return Err(format!(
                "'{text}' is a condition: expected a number; how often a condition holds, a claim with form = \"share\" says"
            ));
        }
        if compiler.program().uses_other(root) {
            return Err(format!(
                "'{text}' sets a trial against another cell by other(...), which a claim alone names: state a claim with to = \"...\""
            ));
        }

        Ok(TrialQuantity {
            text: tidy_text(text),
            definition: compiler.describe_named_quantities(),
            program: compiler.into_program(),
            root,
            is_of_program: grid.is_of_program(),
        })
    }
}

impl TrialQuantity {
    /// The name or the expression, as a user wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The quantities of the sweep file that it uses, as in `inv = 1/effective_lr`; empty if there are none.
    pub fn definition(&self) -> &str {
        &self.definition
    }

    /// Whether it has a value at each sample of a trial, rather than one for all of them.
    pub fn is_curve(&self) -> bool {
        self.program.is_series(self.root)
    }

    /// Whether the value of a trial takes its samples: because of a reducer or, for a program, of a step.
    pub fn needs_whole_curve(&self) -> bool {
        self.depends_on_other_samples() || self.is_of_program && self.program.uses_step(self.root)
    }

    /// Whether a value depends on samples at other steps: because of a reducer or, for a program, of the end.
    pub(super) fn depends_on_other_samples(&self) -> bool {
        let needs_end = self.is_of_program && self.program.uses_end(self.root);
        needs_end || self.program.has_reducers(self.root)
    }

    /// The metrics that it reads, as indices into those of `[measure]`.
    pub fn metrics(&self) -> &[usize] {
        self.program.metrics()
    }

    /// What it needs to know of a cell. `None` for a cell that cannot be resolved, which a sweep does not have.
    pub fn cell_inputs(&self, grid: &Grid, cell: CellIndex) -> Option<CellInputs> {
        self.program.cell_inputs(grid, cell)
    }

    /// Evaluates the quantity on samples after `steps` steps. `value` gives the value of a metric, by its index among those of
    /// `[measure]`, at a sample.
    pub fn evaluate(
        &self,
        cell: &CellInputs,
        steps: &[f64],
        value: &dyn Fn(usize, usize) -> f64,
    ) -> NodeValue {
        let columns: Vec<Vec<f64>> = self
            .metrics()
            .iter()
            .map(|metric| (0..steps.len()).map(|at| value(at, *metric)).collect())
            .collect();
        let curve = SampledCurve {
            steps,
            columns: &columns,
        };
        let rounding = EventRounding::Between;
        let mut nodes = self.program.evaluate_trial(cell, curve, rounding);
        nodes.swap_remove(self.root)
    }

    /// Explains why no trial can have such a number: in every cell, a window or a moment lies outside of its trials. Of a large
    /// sweep, the first cells show it.
    pub fn explain_absence(&self, grid: &Grid) -> Option<String> {
        let mut reason = None;
        for cell in grid.iter().take(CHECKED_CELLS) {
            let inputs = self.cell_inputs(grid, cell)?;
            let why = self.program.check_windows(self.root, &inputs).err()?;
            reason.get_or_insert(why);
        }

        reason
    }
}
