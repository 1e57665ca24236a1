//! Settings that some optimizers have and others lack, in sweeps over optimizers.

use std::collections::HashMap;

use super::axis::AxisValues;
use super::cases::Cases;
use super::cell_pass::check_still_wanted;
use super::formula::FormulaOwner;
use super::{Grid, StillWanted};
use crate::config::{all_optimizer_keys, optimizer_keys};
use crate::ids::CellIndex;
use crate::spec_file::error::SpecError;
use crate::spec_file::node::{SpecTable, SpecValue};

/// The field that chooses the optimizer.
const KIND: &str = "train.optimizer.kind";

/// The optimizer of a file that names none.
const DEFAULT_KIND: &str = "sgd";

/// Maximum number of cells that are resolved to find equal ones.
const MAX_COMPARED_CELLS: u64 = 20_000;

impl Grid {
    /// Removes from the document of a cell the settings that its optimizer lacks, if cells have several optimizers and another
    /// of them has the setting. What a case sets together with its optimizer stays, and is refused.
    pub(super) fn drop_foreign_settings(&self, document: &mut SpecTable, digits: &[u64]) {
        let kinds = self.varied_optimizers();
        if kinds.is_empty() {
            return;
        }

        let kind = document.get_at_path(KIND).map(|node| &node.value);
        let kind = kind.map_or(Some(DEFAULT_KIND), SpecValue::as_str);
        let Some(own) = kind.and_then(optimizer_keys) else {
            return;
        };
        let of_others = kinds.into_iter().filter_map(optimizer_keys).flatten();
        let foreign: Vec<&str> = of_others
            .copied()
            .filter(|key| !own.contains(key) && !self.sets_with_kind(digits, key))
            .collect();
        if let Some(optimizer) =
            table_mut(document, "train").and_then(|t| table_mut(t, "optimizer"))
        {
            optimizer
                .0
                .retain(|(key, _)| !foreign.contains(&key.as_str()));
        }
    }

    /// The optimizers of the cells, if an axis or a case chooses one.
    fn varied_optimizers(&self) -> Vec<&str> {
        let axis = self.axes.iter().find(|a| a.field.as_deref() == Some(KIND));
        let of_axis = axis.into_iter().flat_map(|axis| match &axis.values {
            AxisValues::Listed(items) => items.as_slice(),
            _ => &[],
        });
        let of_axis = of_axis.filter_map(|item| item.value.as_str());

        let in_cases = self.cases.iter().flat_map(Cases::numbered_settings);
        let in_cases = in_cases.filter(|(_, _, setting)| setting.field.as_deref() == Some(KIND));
        let of_cases = in_cases.filter_map(|(_, _, setting)| setting.node.value.as_str());
        let mut kinds: Vec<&str> = of_axis.chain(of_cases).collect();
        if axis.is_none() && !kinds.is_empty() && self.is_kind_missing_in_a_case() {
            let of_file = self.base.get_at_path(KIND);
            kinds.push(of_file.map_or(DEFAULT_KIND, |node| {
                node.value.as_str().unwrap_or(DEFAULT_KIND)
            }));
        }

        kinds
    }

    fn is_kind_missing_in_a_case(&self) -> bool {
        let mut sets = self
            .cases
            .iter()
            .flat_map(|cases| cases.cases_setting(KIND));
        sets.any(|sets_kind| !sets_kind)
    }

    /// Whether the case of a cell sets both the optimizer and one of the settings, or all of both.
    fn sets_with_kind(&self, digits: &[u64], key: &str) -> bool {
        let sets = |path: &str| self.case_settings(digits).any(|(field, _)| field == path);
        sets("train.optimizer") || sets(KIND) && sets(&format!("train.optimizer.{key}"))
    }

    /// Refuses new sweeps with cells that differ only in a setting that their optimizer lacks: they would be trained twice.
    /// All cells are compared, or in a large sweep those that differ in nothing else from the first of each class.
    pub(super) fn check_foreign_settings(&self, wanted: StillWanted<'_>) -> Result<(), SpecError> {
        if self.varied_optimizers().is_empty() || !self.has_varied_setting() {
            return Ok(());
        }

        let mut seen = HashMap::new();
        for cell in self.compared_cells() {
            check_still_wanted(wanted)?;
            let fields = self.resolve_config(cell)?.identity_fields();
            if let Some(other) = seen.insert(fields, cell) {
                let error = self.equal_cells_error(other, cell);
                let message = format!(
                    "{}; a setting that not every optimizer has goes with its optimizer into a [case]",
                    error.message
                );
                return Err(SpecError { message, ..error });
            }
        }
        Ok(())
    }

    /// Whether the field is a setting that not every optimizer has.
    fn is_optimizer_setting(field: &str) -> bool {
        let key = field.strip_prefix("train.optimizer.");
        key.is_some_and(|key| all_optimizer_keys().any(|known| known == key))
    }

    fn has_varied_setting(&self) -> bool {
        let of_axes = self.axes.iter().filter_map(|axis| axis.field.as_deref());
        let mut varied = of_axes
            .chain(self.case_fields())
            .chain(self.computed_fields());
        varied.any(Self::is_optimizer_setting)
    }

    /// Of each axis, whether an expression for a setting of an optimizer depends on it.
    fn axes_of_computed_settings(&self) -> Vec<bool> {
        let mut computing = vec![false; self.axes.len()];
        let settings = self.derived.iter();
        for derived in settings.filter(|derived| Self::is_optimizer_setting(&derived.field)) {
            self.mark_inputs(&derived.formula, &mut computing);
            if let FormulaOwner::AxisValue { axis, .. } = &derived.owner {
                computing[*axis] = true;
            }
        }
        computing
    }

    fn compared_cells(&self) -> Vec<CellIndex> {
        if self.cell_count() <= MAX_COMPARED_CELLS {
            return self.iter().collect();
        }

        let computing = self.axes_of_computed_settings();
        let axes = self.axes.iter().enumerate().filter(|(at, axis)| {
            let field = axis.field.as_deref();
            self.is_case_axis(*at)
                || computing[*at]
                || field.is_some_and(|f| f == KIND || Self::is_optimizer_setting(f))
        });
        let mut factors: Vec<usize> = axes.map(|(at, _)| self.factor_index(at)).collect();
        factors.sort_unstable();
        factors.dedup();

        let mut cells = Vec::new();
        for class in self.kept_classes() {
            let mut digits = self.cell_digits(self.class_cell_at(class, 0));
            factors.iter().for_each(|factor| digits[*factor] = 0);
            loop {
                let cell = self.cell_from_digits(&digits);
                if self.has_cell(cell) {
                    cells.push(cell);
                }
                let is_full = cells.len() as u64 == MAX_COMPARED_CELLS;
                if is_full || !self.advance_digits(&factors, &mut digits) {
                    break;
                }
            }
        }
        cells
    }
}

fn table_mut<'a>(table: &'a mut SpecTable, key: &str) -> Option<&'a mut SpecTable> {
    match &mut table.get_mut(key)?.value {
        SpecValue::Table(inner) => Some(inner),
        _ => None,
    }
}
