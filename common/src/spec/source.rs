//! A sweep file as the user gave it, before anything of it is read.

use crate::config::SHORT_NAMES;
use crate::pinned_file::{FilePin, SAFETENSORS_SUFFIX};
use crate::spec::Spec;
use crate::spec::stopping_rule::MIN_FIRST_RUNG;
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::GRAMMAR;
use crate::spec_file::node;
use crate::spec_file::node::{SpecTable, SpecValue};

impl SpecSource {
    /// The source of the sweep `of` with `repeats` repeats per cell, or as many at most.
    #[must_use]
    pub fn with_repeats(&self, of: &Spec, repeats: u32) -> Self {
        let mut source = self.clone();
        source.replace_setting(
            if of.stopping_rule.is_some() {
                "repeats.max"
            } else {
                "repeats"
            },
            repeats,
        );

        // Cells that were looked at when nothing could follow are now looked at to decide something: as late as those of new sweeps.
        let had_one_look = of.stopping_rule.as_ref().is_some_and(|rule| {
            rule.is_precision_based()
                && rule.min_repeats == of.repeats
                && rule.min_repeats < MIN_FIRST_RUNG
        });
        if had_one_look {
            source.replace_setting("repeats.min", MIN_FIRST_RUNG.min(repeats));
        }

        source
    }

    /// Adds a setting, in place of an earlier one for the same field, or else before the last one, which pins the numerics class of
    /// a launched sweep.
    fn replace_setting(&mut self, field: &str, value: u32) {
        let earlier = self.settings.iter().rposition(|setting| {
            setting
                .split_once('=')
                .is_some_and(|(path, _)| path.trim() == field)
        });
        let setting = format!("{field}={value}");
        match earlier {
            Some(at) => self.settings[at] = setting,
            None => self
                .settings
                .insert(self.settings.len().saturating_sub(1), setting),
        }
    }
}

/// Longest sweep file, in bytes.
pub const MAX_TEXT_BYTES: usize = 4 << 20;

/// A sweep file as the user gave it: enough to read the same spec anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecSource {
    /// The file's name, for messages.
    pub file: String,
    /// Text of the file.
    pub text: String,
    /// `--set key=value`, in order.
    pub settings: Vec<String>,
    /// The files that it names, by their content.
    pub files: Vec<FilePin>,
    /// The version of the grammar in which it is read.
    pub grammar: u32,
    /// Fingerprint of the resolved cells ([`Spec::compute_cells_fingerprint`]) of a stored sweep. `None` where an earlier version of
    /// this program stored it.
    pub cells_fingerprint: Option<[u8; 32]>,
}

/// An empty file in today's grammar.
impl Default for SpecSource {
    fn default() -> Self {
        let file = String::new();
        let text = String::new();
        let settings = Vec::new();
        let files = Vec::new();
        Self {
            file,
            text,
            settings,
            files,
            grammar: GRAMMAR,
            cells_fingerprint: None,
        }
    }
}

impl SpecSource {
    /// The document in the file, with the settings put into it.
    ///
    /// # Errors
    /// The text is no TOML, or a setting none that can be made.
    pub(crate) fn read_document(&self) -> Result<SpecTable, SpecError> {
        let mut document = node::parse_document(&self.text)?;
        for setting in &self.settings {
            let (path, node) = node::parse_setting(setting)?;
            let place = node.origin.clone();
            document
                .set_at_path(&expand_short_name(&path), node)
                .map_err(|at| SpecError::new(place, path, format!("'{at}' is not a table")))?;
        }

        Ok(document)
    }

    /// The name that the file and its settings give the sweep, whatever else is wrong with it.
    pub fn sweep_name(&self) -> Option<String> {
        let document = self
            .read_document()
            .or_else(|_| node::parse_document(&self.text))
            .ok()?;
        Some(
            document
                .get("name")?
                .value
                .as_str()?
                .chars()
                .filter(|c| !c.is_control())
                .take(64)
                .collect(),
        )
    }

    /// The paths of files that the text and the settings name, as they stand there. What cannot be read names none: that
    /// is for [`Spec::read_new`](crate::Spec::read_new) to say.
    pub fn named_files(&self) -> Vec<String> {
        let Ok(document) = self.read_document() else {
            return Vec::new();
        };
        let mut paths = Vec::new();

        for field in [
            &["data", "dataset"][..],
            &["model", "init", "file"],
            &["grid"],
        ] {
            value_at_path(&document, field)
                .iter()
                .for_each(|value| collect_file_names(value, &mut paths));
        }

        paths.sort_unstable();
        paths.dedup();
        paths
    }
}

/// The value under a path of keys.
pub(crate) fn value_at_path<'a>(document: &'a SpecTable, path: &[&str]) -> Option<&'a SpecValue> {
    let (key, rest) = path.split_first()?;
    match &document.get(key)?.value {
        SpecValue::Table(table) if !rest.is_empty() => value_at_path(table, rest),
        value => rest.is_empty().then_some(value),
    }
}

pub(crate) fn collect_file_names(value: &SpecValue, paths: &mut Vec<String>) {
    match value {
        SpecValue::Str(text) if text.ends_with(SAFETENSORS_SUFFIX) => paths.push(text.clone()),
        SpecValue::List(items) => items
            .iter()
            .for_each(|item| collect_file_names(&item.value, paths)),
        SpecValue::Table(table) => table
            .0
            .iter()
            .for_each(|(_, node)| collect_file_names(&node.value, paths)),
        _ => {}
    }
}

/// `--set lr=0.1` means the same as `--set train.lr=0.1`.
pub(crate) fn expand_short_name(path: &str) -> String {
    let short = SHORT_NAMES.iter().find(|(short, _)| *short == path);
    short.map_or_else(|| path.to_owned(), |(_, full)| (*full).to_owned())
}
