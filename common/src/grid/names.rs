//! The names of axes, and those that an expression can use.

use super::Grid;
use super::cases::Cases;
use super::fields::{MeantField, suggest_field};
use super::formula::FormulaInput;
use crate::config::{NUMERIC_FIELDS, SHORT_NAMES};
use crate::spec_file::error::{Origin, SpecError};

fn unused_name_error(name: &str, origin: &Origin, path: String) -> SpecError {
    let MeantField { field, hint, .. } = suggest_field(name);
    let message = format!("'{name}' is no field of a trial, and no expression uses it; {hint}");
    SpecError::new(origin.clone(), path, message).with_meant(name, field)
}

impl Grid {
    /// Refuses names that set no field and that no expression uses.
    pub(super) fn check_names_used(&self) -> Result<(), SpecError> {
        for (at, axis) in self.axes.iter().enumerate() {
            let used = self.formulas().any(|f| {
                f.inputs
                    .iter()
                    .any(|i| matches!(i, FormulaInput::Axis(a) if *a == at))
            });
            let sets_fields = self.is_case_axis(at) || axis.field.is_some();
            if !sets_fields && !used {
                let path = format!("grid.{}", axis.name);
                return Err(unused_name_error(&axis.name, &axis.origin, path));
            }
        }

        let unused = self.cases.as_ref().and_then(Cases::find_unused_name);
        match unused {
            Some((name, origin, path)) => Err(unused_name_error(name, origin, path)),
            None => Ok(()),
        }
    }

    /// What an expression may name: axes, earlier derived fields, and the numbers of the sweep file.
    pub(super) fn names_with_numbers(&self) -> impl Iterator<Item = &str> {
        let fields = NUMERIC_FIELDS.iter().map(|(field, _)| (*field, *field));
        let named = SHORT_NAMES.iter().copied().chain(fields);
        let with_numbers = named
            .filter(|(_, field)| self.has_number(field))
            .map(|(name, _)| name);

        let axes = self.axes.iter().map(|axis| axis.name.as_str());
        let cases = self.cases.iter().flat_map(Cases::names_with_numbers);
        axes.chain(cases).chain(with_numbers)
    }

    /// Whether a field is derived, or a number in the sweep file.
    fn has_number(&self, field: &str) -> bool {
        let node = self.base.get_at_path(field);
        node.is_some_and(|node| node.value.as_f64().is_some() || node.value.as_str().is_some())
            || self.derived.iter().any(|derived| derived.field == field)
    }
}
