//! The names of axes, and those that an expression can use.

use super::axis::AxisValues;
use super::cases::{CaseNumber, Cases};
use super::fields::{MeantField, shown_field, suggest_field};
use super::formula::{FormulaInput, FormulaOwner};
use super::{DigitNumbers, Grid};
use crate::config::{NUMERIC_FIELDS, SHORT_NAMES};
use crate::ids::CellIndex;
use crate::spec_file::error::{Origin, SpecError};

fn unused_name_error(name: &str, origin: &Origin, path: String) -> SpecError {
    let MeantField { field, hint, .. } = suggest_field(name);
    let message = format!("'{name}' is no field of a trial, and no expression uses it; {hint}");
    SpecError::new(origin.clone(), path, message).with_meant(name, field)
}

impl Grid {
    /// Describes a cell by the values of all axes: `lr=0.1, wd=5e-4`.
    pub fn describe_cell(&self, cell: CellIndex) -> String {
        let values = self.axis_values(cell);
        let axes = self.axes().iter().zip(&values);
        let parts: Vec<String> = axes
            .map(|(axis, value)| format!("{}={}", axis.name, axis.format_value(value)))
            .collect();

        match parts.is_empty() {
            true => "the only cell".to_owned(),
            false => parts.join(", "),
        }
    }

    /// The strings among the values of axes and cases, with their names: a program may run what they say.
    pub fn text_values(&self) -> Vec<(String, String)> {
        let axes = self.axes.iter().filter(|axis| axis.field.is_some());
        let of_axes = axes.flat_map(|axis| {
            let items = match &axis.values {
                AxisValues::Listed(items) => items.as_slice(),
                _ => &[],
            };
            items.iter().map(|item| (axis.name.as_str(), &item.value))
        });
        let cases = self.cases.iter().flat_map(Cases::numbered_settings);
        let of_cases = cases.map(|(_, _, setting)| (setting.name.as_str(), &setting.node.value));
        let all = of_axes.chain(of_cases);
        all.filter_map(|(name, value)| Some((name.to_owned(), value.as_str()?.to_owned())))
            .collect()
    }

    /// Whether `[derive]` computes this field.
    pub fn has_derived_field(&self, field: &str) -> bool {
        let mut fields = self.derived.iter();
        fields.any(|derived| {
            shown_field(&derived.field) == field && derived.owner == FormulaOwner::Derive
        })
    }

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

    /// Whether every case has a number of this name, which is no field, and which some expression uses.
    pub fn has_free_name(&self, name: &str) -> bool {
        self.cases
            .as_ref()
            .is_some_and(|cases| cases.has_free_name(name))
    }

    /// The number that a cell's case has of such a name.
    pub fn free_number_in(&self, cell: CellIndex, name: &str) -> Option<f64> {
        let quantity = self.cases.as_ref()?.find_quantity(name)?;
        let digits = self.cell_digits(cell);
        match self.case_number(quantity, &digits) {
            CaseNumber::Number(x) => Some(x),
            CaseNumber::Derived(at) => {
                let values = self.derived_values(&DigitNumbers(self, &digits));
                values.get(at).copied()
            }
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
        axes.chain(cases)
            .chain(self.derived_value_names())
            .chain(with_numbers)
    }

    /// Whether a field is derived, or a number in the sweep file.
    fn has_number(&self, field: &str) -> bool {
        let node = self.base.get_at_path(field);
        node.is_some_and(|node| node.value.as_f64().is_some() || node.value.as_str().is_some())
            || self.derived.iter().any(|derived| derived.field == field)
    }
}
