//! Conditions on axes, which select the cells that are grouped.

use ergodic_common::Spec;
use ergodic_common::expr::WordExpr;
use ergodic_common::ids::CellIndex;

use crate::analysis::AnalysisError;
use crate::analysis::lookup::find_axis;

/// A condition such as `lr < 0.1`.
#[derive(Debug, Clone)]
pub(super) struct CellCondition {
    parsed: WordExpr,
    operands: Vec<ConditionOperand>,
}

/// What a name in the condition stands for.
#[derive(Debug, Clone, Copy)]
enum ConditionOperand {
    Axis(usize),
    Constant(f64),
}

impl CellCondition {
    /// Reads a condition; `None` from an empty text.
    ///
    /// # Errors
    /// The text is no condition, or names an unknown axis.
    pub(super) fn parse(spec: &Spec, text: &str) -> Result<Option<Self>, AnalysisError> {
        if text.is_empty() {
            return Ok(None);
        }

        let parsed = WordExpr::parse(text).map_err(|why| {
            AnalysisError::Invalid(format!(
                "cell_condition: expected a condition on axes such as \"lr <= 0.1\", found '{text}': {why}"
            ))
        })?;
        let operands = parsed
            .expr
            .names()
            .into_iter()
            .map(|name| find_operand(spec, name))
            .collect::<Result<_, _>>()?;
        Ok(Some(Self { parsed, operands }))
    }

    /// Whether a cell meets the condition.
    pub(super) fn is_met_by(&self, spec: &Spec, cell: CellIndex) -> bool {
        let indices = spec.grid.value_indices(cell);
        let values: Vec<f64> = self
            .operands
            .iter()
            .map(|operand| match operand {
                ConditionOperand::Axis(at) => self
                    .parsed
                    .value_number(&spec.grid.axes()[*at].value_at(indices[*at])),
                ConditionOperand::Constant(x) => *x,
            })
            .collect();
        self.parsed.is_met(&values)
    }
}

fn find_operand(spec: &Spec, name: &str) -> Result<ConditionOperand, AnalysisError> {
    match name {
        "true" => Ok(ConditionOperand::Constant(1.0)),
        "false" => Ok(ConditionOperand::Constant(0.0)),
        name => find_axis(spec.grid.axes(), name)
            .map(ConditionOperand::Axis)
            .map_err(|error| match error {
                AnalysisError::Unknown(message) => AnalysisError::Unknown(format!(
                    "cell_condition: {message}; cells are selected by axes before they are pooled, and rows by their statistics with --having"
                )),
                other => other,
            }),
    }
}
