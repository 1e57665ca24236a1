//! Experiments: trials that are code of the user's inside a worker, named by `kind = "custom:NAME"` of `[model]`.
//!
//! An experiment is a [`Program`] without a command. The other keys of `[model]` are constants of its config, and axes, cases and
//! `[derive]` are its values, as those of a program are.

use super::needs::TrialNeeds;
use super::read::{VALUES, explain_wrong_value_name, read_metrics, read_value};
use super::{DATA, DEFAULT_CHECKPOINT_LIMIT, Program};
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::{EXPERIMENT_DATA_GRAMMAR, PROGRAMS_GRAMMAR};
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue};
use crate::spec_file::reader::{NumberRange, TableReader};

/// The section of the sweep file.
pub(crate) const MODEL: &str = "model";

/// First part of the numerics class of every experiment.
pub const EXPERIMENT_PREFIX: &str = "custom/";

/// First part of `model.kind`.
const KIND_PREFIX: &str = "custom:";

/// Keys of `[model]` that are no constants.
const OWN_KEYS: [&str; 4] = ["kind", "version", "metrics", "deterministic"];

/// Most characters of a name, so that a numerics class has at most 64.
const MAX_NAME: usize = 40;

/// The experiment that a sweep file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experiment {
    /// The name.
    pub name: String,
    /// The version that the file asks for. Without one, the launch takes that of the joined workers.
    pub version: Option<u32>,
}

impl Experiment {
    /// The numerics class: `custom/NAME`, and `/VERSION` if the version is known.
    pub fn numerics_class(&self) -> String {
        match self.version {
            Some(version) => experiment_class(&self.name, version),
            None => format!("{EXPERIMENT_PREFIX}{}", self.name),
        }
    }

    /// Whether a numerics class is one of this experiment, in a version that the file allows.
    pub fn allows_class(&self, class: &str) -> bool {
        let own = self.numerics_class();
        match self.version {
            Some(_) => class == own,
            None => find_version(class).is_some_and(|(name, _)| name == self.name),
        }
    }

    fn from_kind(kind: &str) -> Result<Self, String> {
        let name = kind.strip_prefix(KIND_PREFIX).unwrap_or(kind);
        match is_experiment_name(name) {
            true => Ok(Self {
                name: name.to_owned(),
                version: None,
            }),
            false => Err(format!(
                "'{name}' is no name of an experiment: write {KIND_PREFIX} and up to {MAX_NAME} small letters, digits and '-', \
                 the first a letter"
            )),
        }
    }
}

/// The numerics class of a version of an experiment.
pub fn experiment_class(name: &str, version: u32) -> String {
    format!("{EXPERIMENT_PREFIX}{name}/{version}")
}

/// Whether trials of a numerics class are experiments.
pub fn is_experiment_class(numerics: &str) -> bool {
    numerics.starts_with(EXPERIMENT_PREFIX)
}

/// Whether a text can be the name of an experiment.
pub fn is_experiment_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= MAX_NAME
        && name.chars().all(is_plain)
}

/// The name and version of an experiment's numerics class, if it is a full one.
pub fn find_version(class: &str) -> Option<(&str, u32)> {
    let (name, version) = class.strip_prefix(EXPERIMENT_PREFIX)?.split_once('/')?;
    let number: u32 = version.parse().ok().filter(|number| *number > 0)?;
    (is_experiment_name(name) && version == number.to_string()).then_some((name, number))
}

/// Whether the trials of a document are an experiment.
pub(crate) fn names_experiment(document: &SpecTable) -> bool {
    find_kind(document.get(MODEL)).is_some()
}

/// Whether the name of an axis, of a derived number or in a case is that of a field of an experiment's data.
pub(crate) fn is_data_field(name: &str) -> bool {
    name.strip_prefix(DATA)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// The `kind` of `[model]` if it names an experiment.
fn find_kind(model: Option<&SpecNode>) -> Option<&str> {
    let SpecValue::Table(table) = &model?.value else {
        return None;
    };
    let kind = table.get("kind")?.value.as_str()?;
    kind.starts_with(KIND_PREFIX).then_some(kind)
}

/// Moves the constants of an experiment from `[model]` to the values of its cells, where axes and cases stand, too.
pub(crate) fn move_constants(document: &mut SpecTable) {
    if !names_experiment(document) {
        return;
    }
    let Some(model) = document.get_mut(MODEL) else {
        return;
    };
    let origin = model.origin.clone();
    let SpecValue::Table(table) = &mut model.value else {
        return;
    };
    let (own, constants): (Vec<_>, Vec<_>) = std::mem::take(&mut table.0)
        .into_iter()
        .partition(|(key, _)| OWN_KEYS.contains(&key.as_str()));
    table.0 = own;
    let value = SpecValue::Table(SpecTable(constants));
    document
        .0
        .push((VALUES.to_owned(), SpecNode { value, origin }));
}

impl Program {
    /// Reads the experiment that `[model]` names, and checks its constants; `None` if it names none.
    ///
    /// # Errors
    /// Names the first thing that is wrong, with field and line.
    pub(super) fn read_experiment(root: &TableReader<'_>) -> Result<Option<Self>, SpecError> {
        let model = root.read_node(MODEL);
        let Some((kind, node)) = find_kind(model).zip(model) else {
            return Ok(None);
        };
        let r = root.section(MODEL)?;
        let reading = root.reading_mode();
        reading.require_grammar(PROGRAMS_GRAMMAR, &node.origin, MODEL)?;
        if let Some(data) = root.read_node(DATA) {
            reading.require_grammar(EXPERIMENT_DATA_GRAMMAR, &data.origin, DATA)?;
        }
        let experiment = Experiment::from_kind(kind).map_err(|why| r.error_at("kind", why))?;
        let versions = NumberRange::whole_numbers(1, u64::from(u32::MAX));
        let version = r.read_whole_number("version", versions)?;
        let deterministic = r.read_bool("deterministic")?;
        check_constants(&r, node)?;

        Ok(Some(Self {
            command: Vec::new(),
            files: Vec::new(),
            bundle: None,
            env: Vec::new(),
            pass_env: Vec::new(),
            metrics: read_metrics(&r)?,
            require: Vec::new(),
            deterministic: deterministic.unwrap_or(true),
            checkpoint_limit: DEFAULT_CHECKPOINT_LIMIT,
            save: Vec::new(),
            needs: TrialNeeds::ONE_SLOT,
            experiment: Some(Experiment {
                version: version.map(|version| version as u32),
                ..experiment
            }),
        }))
    }
}

/// Checks the keys of `[model]` that are constants of the config.
fn check_constants(r: &TableReader<'_>, model: &SpecNode) -> Result<(), SpecError> {
    let SpecValue::Table(table) = &model.value else {
        return Ok(());
    };
    let constants = table.0.iter();
    for (name, node) in constants.filter(|(name, _)| !OWN_KEYS.contains(&name.as_str())) {
        let path = r.path_to(name);
        if let Some(why) = explain_wrong_value_name(name) {
            return Err(SpecError::new(node.origin.clone(), path, why));
        }
        read_value(name, node).map_err(|error| SpecError { path, ..error })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::program::experiment::*;

    #[test]
    fn a_numerics_class_names_experiment_and_version() {
        assert_eq!(experiment_class("char-rnn", 3), "custom/char-rnn/3");
        assert_eq!(find_version("custom/char-rnn/3"), Some(("char-rnn", 3)));
        for wrong in [
            "custom/char-rnn",
            "custom/char-rnn/0",
            "custom/char-rnn/03",
            "custom/char-rnn/+3",
            "custom/Char/3",
            "custom//3",
            "program/char-rnn/3",
            "custom/a/3/4",
        ] {
            assert_eq!(find_version(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_without_a_version_allows_all_of_its_experiment() {
        let any = Experiment::from_kind("custom:a").expect("a name");
        assert!(any.allows_class("custom/a/7") && !any.allows_class("custom/b/7"));
        let one = Experiment {
            version: Some(2),
            ..any
        };
        assert!(one.allows_class("custom/a/2") && !one.allows_class("custom/a/7"));
    }
}
