//! `[case]`: an axis whose values are named bundles of fields.

use crate::grid::axis::Axis;
use crate::grid::case_labels::find_label_problem;
use crate::grid::fields::{
    NameKind, do_fields_overlap, explain_wrong_name, field_of_name, flatten_fields, has_origin,
    holds_field, is_part_of_field, suggest_field,
};
use crate::grid::hashing::hash_leaves;
use crate::grid::reserved_names::explain_reserved_number;
use crate::spec_file::error::{Origin, SpecError, describe_origin};
use crate::spec_file::grammar::{CASES_GRAMMAR, ReadingMode};
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue};
use crate::spec_file::reader::quote_value;

/// The section, and the axis that it makes.
pub(crate) const CASE: &str = "case";
/// The place of the axis `case` among the axes.
pub(super) const CASE_AXIS: usize = 0;

/// The cases of a sweep.
#[derive(Debug, Clone)]
pub(super) struct Cases {
    bundles: Vec<CaseBundle>,
    /// The numbers of cases that expressions use.
    quantities: Vec<CaseQuantity>,
    /// A fingerprint of what each case sets.
    fingerprints: Vec<u64>,
}

/// The fields and free names of one case, in the order of the file.
#[derive(Debug, Clone)]
struct CaseBundle {
    label: String,
    origin: Origin,
    settings: Vec<CaseSetting>,
}

/// What a case says about one field or free name.
#[derive(Debug, Clone)]
pub(super) struct CaseSetting {
    /// The name as written, with the tables around it.
    pub(super) name: String,
    /// The field; `None` for a free name, which only expressions use.
    pub(super) field: Option<String>,
    pub(super) node: SpecNode,
}

/// A name that has a number in each case.
#[derive(Debug, Clone)]
struct CaseQuantity {
    name: String,
    numbers: Vec<CaseNumber>,
}

/// What a quantity is in a case.
#[derive(Debug, Clone, Copy)]
pub(super) enum CaseNumber {
    /// A number as written.
    Number(f64),
    /// The value of a derived number.
    Derived(usize),
}

impl Cases {
    /// Reads `[case]`, and the axis that it makes.
    ///
    /// # Errors
    /// A case is no table of fields, or lacks a free name that another one sets.
    pub(super) fn from_document(
        document: &SpecTable,
        base: &SpecTable,
        reading: ReadingMode,
    ) -> Result<Option<(Self, Axis)>, SpecError> {
        let Some(section) = document.get(CASE) else {
            return Ok(None);
        };
        reading.require_grammar(CASES_GRAMMAR, &section.origin, CASE)?;

        let names = NameKind::of_document(base);
        let form = "expected tables of fields with a label each, like A = { lr = 0.1 }";
        let SpecValue::Table(table) = &section.value else {
            return Err(SpecError::new(section.origin.clone(), CASE, form));
        };
        if table.0.is_empty() {
            let message = format!("there is no case: {form}, or remove [case]");
            return Err(SpecError::new(section.origin.clone(), CASE, message));
        }

        let bundles = table
            .0
            .iter()
            .map(|(label, node)| CaseBundle::from_node(label, node, base))
            .collect::<Result<Vec<_>, _>>()?;
        let mut cases = Self {
            bundles,
            quantities: Vec::new(),
            fingerprints: Vec::new(),
        };
        match names {
            NameKind::Fields => cases.check_free_names(reading)?,
            NameKind::Values => cases.check_values()?,
        }
        cases.compute_fingerprints(base);
        cases.add_claimed_names(document);

        let axis = Axis::from_labels(CASE, &section.origin, cases.labels());
        Ok(Some((cases, axis)))
    }

    /// Adds the free names with numbers that quantities or claims mention: these use them as expressions do.
    fn add_claimed_names(&mut self, document: &SpecTable) {
        let texts = ["quantity", "claim"].map(|key| document.get(key));
        for setting in self.bundles[0].settings.clone() {
            let numbers = self.bundles.iter().map(|bundle| {
                let number = bundle.find_setting(&setting.name)?.node.value.as_f64();
                number.map(CaseNumber::Number)
            });
            let numbers: Option<Vec<CaseNumber>> = numbers.collect();
            let mut texts = texts.iter().flatten();
            if let Some(numbers) = numbers
                && setting.field.is_none()
                && texts.any(|node| node.value.mentions(&setting.name))
            {
                self.add_quantity(&setting.name, numbers);
            }
        }
    }

    fn labels(&self) -> impl Iterator<Item = (&str, &Origin)> {
        self.bundles
            .iter()
            .map(|bundle| (bundle.label.as_str(), &bundle.origin))
    }

    /// Checks that each case sets the free names of the others, because an expression needs them in every cell, and that none is a
    /// name that quantities use otherwise.
    fn check_free_names(&self, reading: ReadingMode) -> Result<(), SpecError> {
        for (bundle, setting) in self.free_settings() {
            if let Some(message) = explain_reserved_number(&setting.name) {
                reading.refuse_if_new(|| bundle.error_at(setting, message))?;
            }
            self.check_in_all_cases(bundle, setting, "free name")?;
        }

        Ok(())
    }

    /// Checks that each case sets the values of a program that others set: a program gets all of them in every cell.
    fn check_values(&self) -> Result<(), SpecError> {
        self.all_settings()
            .try_for_each(|(bundle, setting)| self.check_in_all_cases(bundle, setting, "value"))
    }

    fn check_in_all_cases(
        &self,
        bundle: &CaseBundle,
        setting: &CaseSetting,
        what: &str,
    ) -> Result<(), SpecError> {
        let lacking = self
            .bundles
            .iter()
            .find(|other| other.settings.iter().all(|s| s.name != setting.name));
        let Some(lacking) = lacking else {
            return Ok(());
        };
        let message = format!(
            "the {what} {} has no value here: the case {} sets it{}, so every case must",
            setting.name,
            bundle.label,
            describe_origin(&setting.node.origin)
        );
        let path = format!("{CASE}.{}", lacking.label);
        Err(SpecError::new(lacking.origin.clone(), path, message).of_combination())
    }

    fn free_settings(&self) -> impl Iterator<Item = (&CaseBundle, &CaseSetting)> {
        self.all_settings()
            .filter(|(_, setting)| setting.field.is_none())
    }

    fn all_settings(&self) -> impl Iterator<Item = (&CaseBundle, &CaseSetting)> {
        self.bundles
            .iter()
            .flat_map(|bundle| bundle.settings.iter().map(move |setting| (bundle, setting)))
    }

    /// Refuses an axis of `[grid]` that sets what a case sets.
    pub(super) fn check_axes(&self, axes: &[Axis]) -> Result<(), SpecError> {
        for axis in axes {
            if axis.name == CASE {
                let message = "[case] makes an axis of this name: give this one another name";
                let path = format!("grid.{CASE}");
                return Err(SpecError::new(axis.origin.clone(), path, message));
            }

            let found = self.all_settings().find(|(_, setting)| {
                match (setting.field.as_deref(), axis.field.as_deref()) {
                    (Some(a), Some(b)) => do_fields_overlap(a, b),
                    (None, None) => setting.name == axis.name,
                    _ => false,
                }
            });
            if let Some((bundle, setting)) = found {
                let message = format!(
                    "the axis {} of [grid]{} sets the same: keep one of the two",
                    axis.name,
                    describe_origin(&axis.origin)
                );
                return Err(bundle.error_at(setting, message));
            }
        }

        Ok(())
    }

    /// The setting of a field in a case, as `case.A.lr (line 7)`, if there is one.
    pub(super) fn describe_owner(&self, field: &str) -> Option<String> {
        let (bundle, setting) = self.all_settings().find(|(_, s)| {
            s.field
                .as_deref()
                .is_some_and(|f| do_fields_overlap(f, field))
        })?;
        let place = describe_origin(&setting.node.origin);
        Some(format!("{CASE}.{}.{}{place}", bundle.label, setting.name))
    }

    /// The fields that some case sets.
    pub(super) fn fields(&self) -> impl Iterator<Item = &str> {
        self.all_settings()
            .filter_map(|(_, setting)| setting.field.as_deref())
    }

    /// Whether some case sets a table with this field in it.
    pub(super) fn has_table_with(&self, field: &str) -> bool {
        let mut settings = self.all_settings();
        settings.any(|(_, s)| holds_field(s.field.as_deref(), &s.node, field))
    }

    /// The settings of fields in a case.
    pub(super) fn field_settings(&self, case: u64) -> impl Iterator<Item = (&str, &SpecNode)> {
        self.bundles[case as usize]
            .settings
            .iter()
            .filter_map(|setting| Some((setting.field.as_deref()?, &setting.node)))
    }

    /// The names that have numbers in all cases, as far as the cases themselves say.
    pub(super) fn names_with_numbers(&self) -> impl Iterator<Item = &str> {
        self.bundles[0]
            .settings
            .iter()
            .filter(|setting| {
                let value = &setting.node.value;
                value.as_f64().is_some() || value.as_str().is_some()
            })
            .map(|setting| setting.name.as_str())
    }

    /// Whether each case sets a field that the path is part of.
    pub(super) fn cases_setting(&self, path: &str) -> impl Iterator<Item = bool> {
        self.bundles.iter().map(move |bundle| {
            let mut fields = bundle.settings.iter().filter_map(|s| s.field.as_deref());
            fields.any(|field| is_part_of_field(path, field))
        })
    }

    /// All settings, with the index and the label of their case.
    pub(super) fn numbered_settings(&self) -> impl Iterator<Item = (u64, &str, &CaseSetting)> {
        let numbered = self.bundles.iter().enumerate();
        numbered.flat_map(|(case, bundle)| {
            let settings = bundle.settings.iter();
            settings.map(move |setting| (case as u64, bundle.label.as_str(), setting))
        })
    }

    /// The label of each case, and its value of a field or free name; `None` if no case sets it.
    pub(super) fn settings_of(&self, path: &str) -> Option<Vec<(String, Option<SpecNode>)>> {
        let settings: Vec<(String, Option<SpecNode>)> = self
            .bundles
            .iter()
            .map(|bundle| {
                let own = bundle.find_setting(path).map(|setting| &setting.node);
                let node = own.or_else(|| bundle.find_within(path)).cloned();
                (bundle.label.clone(), node)
            })
            .collect();
        settings
            .iter()
            .any(|(_, node)| node.is_some())
            .then_some(settings)
    }

    /// The quantity of a field or free name, if an expression uses it.
    pub(super) fn find_quantity(&self, path: &str) -> Option<usize> {
        self.quantities.iter().position(|known| known.name == path)
    }

    /// Adds a quantity with a number in each case, and returns its index.
    pub(super) fn add_quantity(&mut self, path: &str, numbers: Vec<CaseNumber>) -> usize {
        let name = path.to_owned();
        self.quantities.push(CaseQuantity { name, numbers });
        self.quantities.len() - 1
    }

    /// The numbers of a quantity, one per case.
    pub(super) fn numbers(&self, quantity: usize) -> impl Iterator<Item = CaseNumber> {
        self.quantities[quantity].numbers.iter().copied()
    }

    /// Computes fingerprints of what each case makes of the fields that any case sets. Cases that set the same have
    /// the same one.
    fn compute_fingerprints(&mut self, base: &SpecTable) {
        let fingerprint = |bundle: &CaseBundle| {
            let values = self.fields().filter_map(|field| {
                let own = bundle.find_setting(field).map(|setting| &setting.node);
                Some((field, own.or_else(|| base.get_at_path(field))?))
            });
            values.fold(0, |h: u64, (field, node)| {
                h.wrapping_add(hash_leaves(field, &node.value))
            })
        };
        self.fingerprints = self.bundles.iter().map(fingerprint).collect();
    }

    /// The fingerprint of what a case sets.
    pub(super) fn fingerprint(&self, case: u64) -> u64 {
        self.fingerprints[case as usize]
    }

    /// The number of a quantity in a case.
    pub(super) fn number(&self, quantity: usize, case: u64) -> CaseNumber {
        self.quantities[quantity].numbers[case as usize]
    }

    /// Whether this is a free name that some expression uses.
    pub(super) fn has_free_name(&self, name: &str) -> bool {
        let mut free = self.free_settings();
        self.find_quantity(name).is_some() && free.any(|(_, setting)| setting.name == name)
    }

    /// A free name that no expression uses, with its error's place.
    pub(super) fn find_unused_name(&self) -> Option<(&str, &Origin, String)> {
        let is_used = |name: &str| self.quantities.iter().any(|known| known.name == name);
        let (bundle, setting) = self
            .free_settings()
            .find(|(_, setting)| !is_used(&setting.name))?;
        let path = format!("{CASE}.{}.{}", bundle.label, setting.name);
        Some((&setting.name, &setting.node.origin, path))
    }

    /// Names the setting of a case that an error is about, if it is about one.
    pub(super) fn attribute_error(&self, error: SpecError, case: u64) -> SpecError {
        let bundle = &self.bundles[case as usize];
        let rest = |setting: &CaseSetting| {
            let rest = error.path.strip_prefix(setting.field.as_deref()?)?;
            let is_within = rest.is_empty() || rest.starts_with(['.', '[']);
            (is_within && has_origin(&setting.node, &error.origin)).then(|| rest.to_owned())
        };
        let found = bundle
            .settings
            .iter()
            .find_map(|setting| Some((setting, rest(setting)?)));
        match found {
            Some((setting, rest)) => SpecError {
                path: format!("{CASE}.{}.{}{rest}", bundle.label, setting.name),
                ..error
            },
            None => error,
        }
    }

    /// Number of values in the largest case.
    pub(super) fn largest_size(&self, count: impl Fn(&SpecValue) -> u64) -> u64 {
        let size = |bundle: &CaseBundle| {
            let settings = bundle.settings.iter();
            settings.map(|setting| count(&setting.node.value)).sum()
        };
        self.bundles.iter().map(size).max().unwrap_or(0)
    }
}

impl CaseBundle {
    fn from_node(label: &str, node: &SpecNode, base: &SpecTable) -> Result<Self, SpecError> {
        let path = format!("{CASE}.{label}");
        if let Some(wrong) = find_label_problem(label) {
            let message = format!("expected a label of {wrong}, such as \"small lr\"");
            return Err(SpecError::new(node.origin.clone(), path, message));
        }
        let SpecValue::Table(table) = &node.value else {
            let message = format!(
                "expected a table of fields, like {{ lr = 0.1 }}, found {}",
                quote_value(&node.value)
            );
            return Err(SpecError::new(node.origin.clone(), path, message));
        };

        let mut bundle = Self {
            label: label.to_owned(),
            origin: node.origin.clone(),
            settings: Vec::new(),
        };
        for (name, node) in flatten_fields(table) {
            let setting = CaseSetting {
                field: field_of_name(base, &name),
                name,
                node: node.clone(),
            };
            match NameKind::of_document(base) {
                NameKind::Fields => bundle.add_setting(setting)?,
                NameKind::Values => bundle.add_value(base, setting)?,
            }
        }
        Ok(bundle)
    }

    fn add_setting(&mut self, setting: CaseSetting) -> Result<(), SpecError> {
        let Some(field) = &setting.field else {
            check_free_number(self, &setting)?;
            self.settings.push(setting);
            return Ok(());
        };

        let section = field.split('.').next().unwrap_or_default();
        if !matches!(section, "data" | "model" | "train") {
            let message = "a case sets fields of data, model and train";
            return Err(self.error_at(&setting, message.to_owned()));
        }
        let mut others = self.settings.iter();
        let overlapping = others.find(|other| {
            let of_other = other.field.as_deref();
            of_other.is_some_and(|of_other| do_fields_overlap(of_other, field))
        });
        if let Some(other) = overlapping {
            let message = format!("{} sets the same field: keep one of the two", other.name);
            return Err(self.error_at(&setting, message));
        }
        self.settings.push(setting);
        Ok(())
    }

    /// Adds a value of a program.
    fn add_value(&mut self, base: &SpecTable, setting: CaseSetting) -> Result<(), SpecError> {
        let wrong = explain_wrong_name(base, &setting.name)
            .or_else(|| explain_reserved_number(&setting.name));
        if let Some(message) = wrong {
            return Err(self.error_at(&setting, message));
        }
        self.settings.push(setting);
        Ok(())
    }

    /// What a table of the case has at a path; the table itself if it has nothing there, because the file's value does not hold.
    fn find_within(&self, path: &str) -> Option<&SpecNode> {
        self.settings.iter().find_map(|setting| {
            let rest = path.strip_prefix(setting.field.as_deref()?)?;
            let rest = rest.strip_prefix('.')?;
            match &setting.node.value {
                SpecValue::Table(table) => Some(table.get_at_path(rest).unwrap_or(&setting.node)),
                _ => None,
            }
        })
    }

    fn find_setting(&self, path: &str) -> Option<&CaseSetting> {
        self.settings
            .iter()
            .find(|setting| setting.field.as_ref().unwrap_or(&setting.name) == path)
    }

    fn error_at(&self, setting: &CaseSetting, message: String) -> SpecError {
        let path = format!("{CASE}.{}.{}", self.label, setting.name);
        SpecError::new(setting.node.origin.clone(), path, message)
    }
}

/// Checks a free name's value; what is no number was meant as a field.
fn check_free_number(bundle: &CaseBundle, setting: &CaseSetting) -> Result<(), SpecError> {
    let meant = suggest_field(&setting.name);
    let is_number = match &setting.node.value {
        // A word may be meant as that of a field, and is an expression otherwise.
        SpecValue::Str(_) => !meant.is_last_part,
        value => value.as_f64().is_some_and(f64::is_finite),
    };
    if is_number {
        return Ok(());
    }

    let message = format!(
        "'{}' is no field of a trial, so it is a free name, which needs a number or an expression, found {}; {}",
        setting.name,
        quote_value(&setting.node.value),
        meant.hint
    );
    Err(bundle
        .error_at(setting, message)
        .with_meant(&setting.name, meant.field))
}
