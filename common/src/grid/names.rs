//! The names of axes, and those that an expression can use.

use super::{FormulaInput, Grid};
use crate::config::{NUMERIC_FIELDS, OTHER_FIELDS, SHORT_NAMES};
use crate::spec_file::error::{SpecError, UnknownWord};
use crate::spec_file::suggest::{find_nearest, suggest_nearest};

impl Grid {
    /// Refuses an axis that sets no field and that no expression uses.
    pub(super) fn check_names_used(&self) -> Result<(), SpecError> {
        for (at, axis) in self.axes.iter().enumerate() {
            let used = self.formulas().any(|f| {
                f.inputs
                    .iter()
                    .any(|i| matches!(i, FormulaInput::Axis(a) if *a == at))
            });
            if axis.field.is_none() && !used {
                let suffix = format!(".{}", axis.name);
                let fields = NUMERIC_FIELDS.iter().map(|(f, _)| *f).chain(OTHER_FIELDS);
                let known = SHORT_NAMES.iter().map(|(s, _)| *s).chain(fields.clone());
                let field = fields.clone().find(|f| f.ends_with(&suffix));
                let meant = field.or_else(|| find_nearest(&axis.name, known.clone()));
                let hint = match field {
                    Some(field) => format!("did you mean '{field}'?"),
                    None => suggest_nearest(&axis.name, known),
                };
                let message = format!(
                    "'{}' is no field of a trial, and no expression in [derive] or [where] uses it; {hint}",
                    axis.name
                );

                let path = format!("grid.{}", axis.name);
                let error = SpecError::new(axis.origin.clone(), path, message);
                return Err(SpecError {
                    unknown: Some(Box::new(UnknownWord {
                        word: axis.name.clone(),
                        meant: meant.map(str::to_owned),
                    })),
                    ..error
                });
            }
        }

        Ok(())
    }

    /// What an expression may name: axes, earlier derived fields, and the numbers of the sweep file.
    pub(super) fn names_with_numbers(&self) -> impl Iterator<Item = &str> {
        let fields = NUMERIC_FIELDS.iter().map(|(field, _)| (*field, *field));
        let named = SHORT_NAMES.iter().copied().chain(fields);
        let with_numbers = named
            .filter(|(_, field)| self.has_number(field))
            .map(|(name, _)| name);

        let axes = self.axes.iter().map(|axis| axis.name.as_str());
        axes.chain(with_numbers)
    }

    /// Whether a field is derived, or a number in the sweep file.
    fn has_number(&self, field: &str) -> bool {
        let node = self.base.get_at_path(field);
        node.is_some_and(|node| node.value.as_f64().is_some())
            || self.derived.iter().any(|derived| derived.field == field)
    }
}
