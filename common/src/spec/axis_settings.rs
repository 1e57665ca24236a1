//! Settings from `--set` that mean an axis of the file under another name.

use crate::config::{expand_short_name, numeric_field_range};
use crate::grid::{NameKind, is_part_of_list, resolve_field_name};
use crate::program::is_data_field;
use crate::spec::Spec;
use crate::spec::scale::{fields_of_scale, find_axis};
use crate::spec::settings::apply_setting;
use crate::spec::source::SpecSource;
use crate::spec_file::error::SpecError;
use crate::spec_file::node::{self, SpecNode, SpecTable, SpecValue};

impl SpecSource {
    /// Directs settings of a field that is an axis to the axis: with an axis `lr`, `lr=0.1` becomes `grid.lr=[0.1]`. So does a
    /// setting of an axis under another of its names, such as `grid.lr` for the axis `train.lr`.
    ///
    /// Sources are sent and stored with settings that are directed, which every version reads alike. What cannot be read stays as
    /// it is, for the reader to report.
    #[must_use]
    pub fn with_settings_of_axes(mut self) -> Self {
        let Ok(mut document) = node::parse_document(&self.text) else {
            return self;
        };

        for setting in &mut self.settings {
            if let Some(directed) = direct_setting(&document, setting) {
                *setting = directed;
            }

            // A later setting may be of an axis that this one makes, or the scale that it chooses.
            let _ = apply_setting(&mut document, setting, self.grammar);
        }

        self
    }
}

impl Spec {
    /// The field that a setting sets in the cells. A constant of an experiment is a value there.
    fn field_of_setting(&self, path: &str) -> String {
        let is_experiment = self.program().is_some_and(|one| one.experiment.is_some());
        match path.strip_prefix("model.").filter(|_| is_experiment) {
            Some(name) => NameKind::Values.resolve(name).unwrap_or_default(),
            None => self.grid.place_layer(&expand_short_name(path)),
        }
    }

    /// Refuses a `--set`, or a field of the chosen scale, that an axis, a case or `[derive]` would override, because it would
    /// have no effect.
    pub(super) fn check_settings(&self, source: &SpecSource) -> Result<(), SpecError> {
        for setting in &source.settings {
            let (path, node) = node::parse_setting(setting)?;
            let field = self.field_of_setting(&path);
            self.check_not_an_axis(&field, &path, &node)?;
            self.check_list_is_no_axis(&field, &path, &node)?;
            self.check_overridden(&field, path, node)?;
        }

        // A field of a scale that is an axis has become the axis' value.
        let chosen = self.scales.chosen.as_deref();
        let of_scale = chosen.map(|scale| fields_of_scale(&source.text, scale));
        for (field, node) in of_scale.into_iter().flatten() {
            let placed = self.grid.place_layer(&field);
            if matches!(node.value, SpecValue::Table(_)) {
                self.check_not_an_axis(&placed, &field, &node)?;
            }
            self.check_list_is_no_axis(&placed, &field, &node)?;
            self.check_overridden(&placed, field, node)?;
        }
        Ok(())
    }

    /// Checks that no axis has the field that is set at `path`, nor one that a table there names.
    fn check_not_an_axis(&self, field: &str, path: &str, node: &SpecNode) -> Result<(), SpecError> {
        let mut axes = self.grid.axes().iter();
        let axis = axes.find(|axis| {
            let of_axis = axis.field.as_deref();
            of_axis.is_some_and(|of_axis| is_set_by(of_axis, field, node))
        });
        match axis {
            Some(axis) => {
                let owner = format!("grid.{}", axis.name);
                Err(override_error(&owner, path.to_owned(), node.clone()))
            }
            None => Ok(()),
        }
    }

    /// Checks that no axis sets the whole list of layers that a field at `path` is part of.
    fn check_list_is_no_axis(
        &self,
        field: &str,
        path: &str,
        node: &SpecNode,
    ) -> Result<(), SpecError> {
        let mut axes = self.grid.axes().iter();
        let axis = axes.find(|axis| {
            let of_axis = axis.field.as_deref();
            of_axis.is_some_and(|of_axis| is_part_of_list(field, of_axis))
        });
        match axis {
            Some(axis) => {
                let owner = format!("grid.{}", axis.name);
                Err(override_error(&owner, path.to_owned(), node.clone()))
            }
            None => Ok(()),
        }
    }

    /// Checks that neither `[derive]` nor a case decides a field that is set at `path`.
    fn check_overridden(&self, field: &str, path: String, node: SpecNode) -> Result<(), SpecError> {
        let mut derived = self.grid.computed_fields();
        let found = derived.find(|derived| {
            self.grid.has_derived_field(derived) && is_set_by(derived, field, &node)
        });
        if let Some(derived) = found {
            return Err(override_error(&format!("derive.{derived}"), path, node));
        }

        // A case that sets a field of a section takes nothing from the rest of it.
        let is_section = !field.contains('.');
        let owner = self.grid.describe_case_owner(field);
        match owner.filter(|_| !is_section) {
            Some(owner) => {
                let message = format!("{owner} decides this field in its cells: set that instead");
                Err(SpecError::new(node.origin, path, message))
            }
            None => Ok(()),
        }
    }
}

/// Whether a setting of `field` sets the field `owned` too: the same one, or one that a table names.
fn is_set_by(owned: &str, field: &str, node: &SpecNode) -> bool {
    let Some(rest) = owned.strip_prefix(field) else {
        return false;
    };
    match (&node.value, rest.strip_prefix('.')) {
        _ if rest.is_empty() => true,
        (SpecValue::Table(table), Some(within)) => table.get_at_path(within).is_some(),
        _ => false,
    }
}

fn override_error(owner: &str, path: String, node: SpecNode) -> SpecError {
    let message = format!("{owner} decides this field in every cell: set {owner} instead");
    SpecError::new(node.origin, path, message)
}

/// The setting of the axis that `setting` means; `None` if it means none, or already does.
fn direct_setting(document: &SpecTable, setting: &str) -> Option<String> {
    let SpecValue::Table(grid) = &document.get("grid")?.value else {
        return None;
    };
    let (path, node) = node::parse_setting(setting).ok()?;
    let value = setting.split_once('=')?.1.trim();

    if let Some(named) = path.strip_prefix("grid.") {
        let axis = find_axis(document, grid, &resolve_field_name(named)?)?;
        return (axis != named).then(|| format!("grid.{axis}={value}"));
    }

    let field = expand_short_name(&path);
    let is_of_program = NameKind::of_document(document) == NameKind::Values;
    let axis = match is_of_program && !is_data_field(&path) {
        true => grid.get(&path).map(|_| path.clone())?,
        false => find_axis(document, grid, &field)?,
    };
    let has_many_values = matches!(node.value, SpecValue::List(_) | SpecValue::Table(_));
    if has_many_values && (is_of_program || numeric_field_range(&field).is_some()) {
        return Some(format!("grid.{axis}={value}"));
    }

    let quoted = match node::parse_document(&format!("v = {value}")) {
        Ok(table) if table.0.len() == 1 => value.to_owned(),
        _ => quote_as_toml(value),
    };
    let directed = format!("grid.{axis}=[{quoted}]");
    let (_, list) = node::parse_setting(&directed).ok()?;
    matches!(&list.value, SpecValue::List(items) if items.len() == 1).then_some(directed)
}

/// Writes a text as a TOML string.
fn quote_as_toml(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directed(grid: &str, settings: &[&str]) -> Vec<String> {
        let source = SpecSource {
            text: format!("[grid]\n{grid}\n"),
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
            ..SpecSource::default()
        };
        source.with_settings_of_axes().settings
    }

    #[test]
    fn a_setting_of_a_field_is_one_of_its_axis() {
        for (axis, setting, expected) in [
            (
                "\"model.dim\" = [3, 5]",
                "model.dim=9",
                "grid.model.dim=[9]",
            ),
            ("model.dim = [3, 5]", "model.dim=9", "grid.model.dim=[9]"),
            ("lr = [0.1, 0.2]", "lr=0.5", "grid.lr=[0.5]"),
            ("lr = [0.1, 0.2]", "train.lr = 0.5", "grid.lr=[0.5]"),
            ("\"train.lr\" = [0.1, 0.2]", "lr=0.5", "grid.train.lr=[0.5]"),
            (
                "\"train.lr\" = [1]",
                "grid.lr=[0.5, 1]",
                "grid.train.lr=[0.5, 1]",
            ),
            ("lr = [1]", "lr=[0.1, 0.2]", "grid.lr=[0.1, 0.2]"),
            (
                "lr = [1]",
                "lr={ log = [0.1, 1], points = 3 }",
                "grid.lr={ log = [0.1, 1], points = 3 }",
            ),
            (
                "\"model.hidden\" = [[8], [9]]",
                "model.hidden=[8, 8]",
                "grid.model.hidden=[[8, 8]]",
            ),
            (
                "\"data.dataset\" = [\"glyphs\"]",
                "data.dataset=mnist",
                "grid.data.dataset=[\"mnist\"]",
            ),
            (
                "\"model.norm\" = [\"none\"]",
                "model.norm=a\"b\\,c",
                "grid.model.norm=[\"a\\\"b\\\\,c\"]",
            ),
            ("lr = [1]", "lr=1,2", "grid.lr=[\"1,2\"]"),
        ] {
            assert_eq!(directed(axis, &[setting]), [expected], "{axis}: {setting}");
        }
    }

    #[test]
    fn other_settings_stay_as_they_are() {
        for setting in [
            "wd=1",
            "grid.lr=[2]",
            "grid.wd=[2]",
            "lr",
            "lr=",
            "repeats=3",
            "grid={ wd = [1] }",
            "lr=0.5 # a comment",
        ] {
            assert_eq!(directed("lr = [1]", &[setting]), [setting]);
        }

        let made = directed("lr = [1]", &["grid.wd=[1, 2]", "wd=3"]);
        assert_eq!(made, ["grid.wd=[1, 2]", "grid.wd=[3]"]);
        let gone = directed("lr = [1]", &["grid={ wd = [1] }", "lr=3"]);
        assert_eq!(gone, ["grid={ wd = [1] }", "lr=3"]);
    }
}
