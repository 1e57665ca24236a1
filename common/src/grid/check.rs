//! Checks that every cell of the grid can be run.

use std::collections::HashMap;

use super::{Grid, StillWanted};
use crate::config::{TrialConfig, can_be_unused, numeric_field_range};
use crate::grid::axis::{Axis, AxisValues};
use crate::grid::cases::{CASE, CASE_AXIS};
use crate::grid::cell_pass::{Witnesses, check_still_wanted};
use crate::grid::fields::is_part_of_field;
use crate::ids::CellIndex;
use crate::spec_file::error::{ErrorCause, Origin, SpecError};
use crate::spec_file::grammar::MOMENTS_GRAMMAR;
use crate::spec_file::node::{SpecTable, SpecValue};
use crate::spec_file::reader::quote_value;

/// Maximum steps of expressions over all cells, which take some seconds.
const MAX_EXPRESSION_STEPS: u64 = 1 << 30;
/// Maximum settings that are read to try all values, which takes some seconds.
const MAX_NODES: u64 = 20_000_000;
/// Number of resolved cells between two checks whether the result is still needed.
const CONFIGS_PER_CHECK: usize = 64;

/// Whether a field is a factor on the learning rate of some parameters.
fn is_lr_factor(field: &str) -> bool {
    is_part_of_field(field, "train.lr_on")
}

/// Number of values in a value, itself included.
fn count_value_nodes(value: &SpecValue) -> u64 {
    match value {
        SpecValue::List(items) => {
            1 + items
                .iter()
                .map(|item| count_value_nodes(&item.value))
                .sum::<u64>()
        }
        SpecValue::Table(table) => 1 + count_values(table),
        _ => 1,
    }
}

/// Number of values in a table and in all that it contains.
fn count_values(table: &SpecTable) -> u64 {
    table
        .0
        .iter()
        .map(|(_, node)| count_value_nodes(&node.value))
        .sum()
}

/// Maximum number of cells that are resolved to find an entry of a schedule at the end of the trial.
const MAX_SEARCHED_CELLS: u64 = 2_000;
/// Maximum number of cells that are resolved to find values that are spelled in two ways.
const MAX_SPELLED_CELLS: u64 = 20_000;

impl Grid {
    /// Refuses new sweeps whose checks would take too long, because launches wait for each other.
    ///
    /// Stored sweeps were accepted, so they are not refused.
    pub(super) fn check_cost(&self) -> Result<(), SpecError> {
        if !self.reading_mode.is_new {
            return Ok(());
        }

        let steps: u64 = self
            .formulas()
            .map(|formula| formula.expr.evaluation_cost())
            .sum();
        let work = self.product.saturating_mul(steps);
        if work > MAX_EXPRESSION_STEPS {
            let cells = self.product;
            let message = format!(
                "the expressions in [derive] and [where] have {steps} operations and values, to be worked out for {cells} cells: \
                 shorten them, or use fewer values; at most {MAX_EXPRESSION_STEPS} in all are possible"
            );
            return Err(SpecError::new(Origin::Default, "grid", message));
        }

        let listed = self
            .axes
            .iter()
            .filter(|axis| matches!(axis.values, AxisValues::Listed(_)));
        let tried = listed
            .map(Axis::len)
            .sum::<u64>()
            .saturating_add(self.classes)
            .saturating_add(self.spelled_cells());

        let of_case = self
            .cases
            .as_ref()
            .map_or(0, |cases| cases.largest_size(count_value_nodes));
        let size = count_values(&self.base) + of_case;
        if tried.saturating_mul(size) > MAX_NODES {
            let message = format!(
                "{tried} listed values and shape classes of a file with {size} settings are too many to be checked: list fewer \
                 values, or have them generated, as in {{ log = [0.01, 1.0], points = 5 }}"
            );
            return Err(SpecError::new(Origin::Default, "grid", message));
        }

        Ok(())
    }

    /// Axes whose values can be spelled in several ways, and those over factors of learning rates, which not every network has.
    fn spelled_axes(&self) -> impl Iterator<Item = (usize, &Axis)> {
        self.axes
            .iter()
            .enumerate()
            .filter(|(at, axis)| match &axis.values {
                AxisValues::Listed(items) if axis.len() > 1 => {
                    (axis.field.is_some() || self.is_case_axis(*at))
                        && (items.iter().any(|item| item.value.as_f64().is_none())
                            || axis.field.as_deref().is_some_and(is_lr_factor))
                }
                _ => axis.len() > 1 && axis.field.as_deref().is_some_and(is_lr_factor),
            })
    }

    /// Number of cells to resolve to find values that are spelled in two ways.
    fn spelled_cells(&self) -> u64 {
        let values: u64 = self.spelled_axes().map(|(_, axis)| axis.len()).sum();
        values.saturating_mul(self.classes).min(MAX_SPELLED_CELLS)
    }

    /// Resolves a cell with each value of each axis.
    pub(super) fn check_axis_values(
        &self,
        witnesses: &Witnesses,
        wanted: StillWanted<'_>,
    ) -> Result<(), SpecError> {
        self.check_cases(witnesses)?;
        for (at, axis) in self.axes.iter().enumerate() {
            let Some(field) = &axis.field else { continue };
            let factor = self.factor_index(at);
            let range = numeric_field_range(field);
            // Generated values are numbers, all of which a program takes.
            let is_taken = self.is_of_program() && !matches!(axis.values, AxisValues::Listed(_));
            let continuous = is_taken || range.is_some_and(|r| !r.is_whole);
            for (n, i) in axis
                .representative_indices(continuous)
                .into_iter()
                .enumerate()
            {
                if n % CONFIGS_PER_CHECK == 0 {
                    check_still_wanted(wanted)?;
                }

                if let Some(range) = range {
                    let node = axis.node_at(i);
                    if !node.value.as_f64().is_some_and(|x| range.contains(x)) {
                        let message = format!(
                            "expected {}, found {}",
                            range.describe(),
                            quote_value(&node.value)
                        );
                        return Err(SpecError::new(
                            node.origin,
                            format!("grid.{}", axis.name),
                            message,
                        ));
                    }

                    if !matches!(axis.values, AxisValues::Listed(_)) {
                        continue;
                    }
                }

                if let Some(cell) = self.find_witness(witnesses, factor, i) {
                    self.resolve_config(cell)
                        .map_err(|e| self.attribute_to_axis(e, axis, i))?;
                }
            }
        }

        Ok(())
    }

    /// Resolves a cell of each case.
    fn check_cases(&self, witnesses: &Witnesses) -> Result<(), SpecError> {
        let axis = self.axes.first().filter(|_| self.cases.is_some());
        for case in 0..axis.map_or(0, Axis::len) {
            let factor = self.factor_index(CASE_AXIS);
            if let Some(cell) = self.find_witness(witnesses, factor, case) {
                self.resolve_config(cell)
                    .map_err(|e| self.attribute_to_any_axis(e, cell))?;
            }
        }

        Ok(())
    }

    fn find_witness(&self, witnesses: &Witnesses, factor: usize, digit: u64) -> Option<CellIndex> {
        match witnesses.0.get(factor) {
            Some(cells) => cells[digit as usize],
            None => {
                let mut digits = vec![0; self.factors.len()];
                digits[factor] = digit;
                Some(self.cell_from_digits(&digits))
            }
        }
    }

    /// Blames the axis for an unknown key that it sets, wherever the reader found the key.
    fn attribute_to_axis(&self, error: SpecError, axis: &Axis, i: u64) -> SpecError {
        if axis.name == CASE && self.cases.is_some() {
            return self.attribute_to_case(error, i);
        }

        if error.origin == axis.node_at(i).origin {
            SpecError {
                path: format!("grid.{}", axis.name),
                ..error
            }
        } else {
            error
        }
    }

    /// Blames the setting of a case, or says in which case a value is missing.
    fn attribute_to_case(&self, error: SpecError, case: u64) -> SpecError {
        let Some(cases) = &self.cases else {
            return error;
        };
        let is_set_elsewhere = cases.describe_owner(&error.path).is_some();
        if error.cause == ErrorCause::Missing && is_set_elsewhere {
            let label = self.axes[CASE_AXIS].value_at(case);
            let message = format!("{} (in the case {label})", error.message);
            return SpecError { message, ..error };
        }
        cases.attribute_error(error, case)
    }

    /// Blames the axis that set the offending field, if there is one.
    fn attribute_to_any_axis(&self, error: SpecError, cell: CellIndex) -> SpecError {
        let digits = self.cell_digits(cell);
        let path = error.path.clone();
        self.axis_digits(&digits)
            .fold(error, |error, (axis, digit)| match error.path == path {
                true => self.attribute_to_axis(error, axis, digit),
                false => error,
            })
    }

    /// Checks one cell of every shape class: batch, data and length must go together, and every
    /// axis must have an effect.
    pub(super) fn check_classes(&self, wanted: StillWanted<'_>) -> Result<(), SpecError> {
        for class in self.shape_classes() {
            if class.position().is_multiple_of(CONFIGS_PER_CHECK) {
                check_still_wanted(wanted)?;
            }

            if self.class_cell_count(class) > 0 {
                let cell = self.class_cell_at(class, 0);
                let document = self.build_document(cell)?;
                let config = TrialConfig::from_table(&document, &self.files, self.reading_mode)?;
                config
                    .check_norm(&document, self.reading_mode)
                    .map_err(|e| self.attribute_to_any_axis(e, cell).of_combination())?;

                self.check_axes_matter(cell, &config.identity_fields())?;
            }
        }

        Ok(())
    }

    /// Refuses axes without an effect, such as one over ε where no cell has a norm: their cells
    /// would be equal.
    fn check_axes_matter(
        &self,
        cell: CellIndex,
        fields: &[(&'static str, String)],
    ) -> Result<(), SpecError> {
        for (at, axis) in self.axes.iter().enumerate() {
            if !axis.field.as_deref().is_some_and(can_be_unused) || axis.len() < 2 {
                continue;
            }

            let mut digits = self.cell_digits(cell);
            let digit = &mut digits[self.factor_index(at)];
            *digit = u64::from(*digit == 0);
            let other = self.cell_from_digits(&digits);
            if self.has_cell(other) && self.resolve_config(other)?.identity_fields() == fields {
                return Err(self.equal_cells_error(cell, other));
            }
        }

        Ok(())
    }

    /// Refuses cells that are equal because a value is spelled in two ways, such as `"x0.1"` and
    /// `"x0.10"`, or by epoch and by step: they would be trained twice. Also refuses combinations
    /// of such values that no cell can have.
    pub(super) fn check_spellings(&self, wanted: StillWanted<'_>) -> Result<(), SpecError> {
        if !self.reading_mode.is_new {
            return Ok(());
        }

        self.check_foreign_settings(wanted)?;
        let mut left = MAX_SPELLED_CELLS;
        for (at, axis) in self.spelled_axes() {
            let factor = self.factor_index(at);
            for class in self.kept_classes() {
                let mut digits = self.cell_digits(self.class_cell_at(class, 0));
                check_still_wanted(wanted)?;
                let mut seen = HashMap::new();

                for i in 0..axis.len() {
                    digits[factor] = i;
                    let cell = self.cell_from_digits(&digits);
                    if !self.has_cell(cell) {
                        continue;
                    }

                    let fields = self
                        .resolve_config(cell)
                        .map_err(|e| self.attribute_to_axis(e, axis, i))?
                        .identity_fields();
                    if let Some(other) = seen.insert(fields, cell) {
                        return Err(self.equal_cells_error(other, cell));
                    }

                    left -= 1;
                    if left == 0 {
                        return Ok(());
                    }
                }
            }
        }

        Ok(())
    }

    /// Resolves cells whose tables have numbers of expressions: all of them, or in a large sweep some thousand.
    pub(super) fn check_written_numbers(&self, wanted: StillWanted<'_>) -> Result<(), SpecError> {
        if !self.reading_mode.is_new || self.derived.iter().all(|d| d.slot.is_none()) {
            return Ok(());
        }

        for (n, cell) in self.sample_cells(MAX_SPELLED_CELLS).into_iter().enumerate() {
            if n % CONFIGS_PER_CHECK == 0 {
                check_still_wanted(wanted)?;
            }
            self.resolve_config(cell).map_err(|e| {
                let message = e.message.clone();
                self.cell_error(&e.origin, &e.path, &self.cell_digits(cell), &message)
            })?;
        }

        Ok(())
    }

    /// Whether an entry of a schedule begins at the end of the trial, in one cell of each class, which all have one length, or in
    /// one of some thousand cells.
    pub(super) fn has_phase_without_steps(&self) -> bool {
        if self.min_grammar >= MOMENTS_GRAMMAR {
            return false;
        }
        let firsts = self
            .kept_classes()
            .map(|class| self.class_cell_at(class, 0));
        let mut cells = firsts.chain(self.sample_cells(MAX_SEARCHED_CELLS));
        cells.any(|cell| {
            self.resolve_config(cell).is_ok_and(|config| {
                let mut entries = config.train.schedule.iter();
                entries.any(|entry| config.length_in_steps(entry.from) == config.total_steps())
            })
        })
    }

    pub(super) fn equal_cells_error(&self, a: CellIndex, b: CellIndex) -> SpecError {
        let [a, b] = [a, b].map(|cell| self.describe_digits(&self.cell_digits(cell)));
        let message = format!(
            "the cells {a} and {b} resolve to the same trial: drop one, or let another field differ"
        );
        SpecError::new(Origin::Default, "grid", message).of_combination()
    }

    pub(super) fn cell_error(
        &self,
        place: &Origin,
        path: &str,
        digits: &[u64],
        message: &str,
    ) -> SpecError {
        SpecError::new(
            place.clone(),
            path,
            format!("{message} (in the cell {})", self.describe_digits(digits)),
        )
        .of_combination()
    }

    fn describe_digits(&self, digits: &[u64]) -> String {
        let parts: Vec<String> = self
            .axis_digits(digits)
            .map(|(axis, digit)| format!("{}={}", axis.name, axis.value_at(digit)))
            .collect();
        parts.join(", ")
    }
}
