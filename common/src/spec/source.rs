//! The source of a sweep: its file as the user gave it.

use crate::ids::CellsFingerprint;
use crate::pinned_file::{FilePin, SAFETENSORS_SUFFIX};
use crate::program;
use crate::spec::Spec;
use crate::spec::scale::take_scales;
use crate::spec::settings::apply_setting;
use crate::spec::stage::{find_stage_sweep, take_stages};
use crate::spec::stopping_rule::MIN_FIRST_RUNG;
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::grammar::{GRAMMAR, SCALES_GRAMMAR};
use crate::spec_file::node;
use crate::spec_file::node::{SpecTable, SpecValue};

impl SpecSource {
    /// The source of the sweep `of` with `repeats` repeats per cell, or as the maximum under a
    /// stopping rule.
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

        // With `repeats.min` equal to the number of repeats, the only look came at the end and
        // decided nothing. With more repeats it would decide, so it moves to where new sweeps look
        // first.
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

    /// Replaces the setting of a field, or adds it before the last setting, which pins the numerics
    /// class of a launched sweep.
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

/// Maximum length of a sweep file, in bytes.
pub const MAX_TEXT_BYTES: usize = 4 << 20;

/// A sweep file as the user gave it, with everything that is needed to read the same spec anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecSource {
    /// Name of the file, for messages.
    pub file: String,
    /// Text of the file.
    pub text: String,
    /// Settings from `--set key=value`, in order.
    pub settings: Vec<String>,
    /// The files that the sweep file names, pinned by hash.
    pub files: Vec<FilePin>,
    /// The version of the grammar in which it is read.
    pub grammar: u32,
    /// Fingerprint of the cells of a stored sweep ([`Spec::compute_cells_fingerprint`]). `None` if
    /// an earlier version of this program stored it.
    pub cells_fingerprint: Option<CellsFingerprint>,
}

/// An empty file in the current grammar.
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
    /// Parses the file, and applies the settings and the scale that one of them chooses.
    ///
    /// # Errors
    /// The text is not TOML, or a setting cannot be applied.
    pub(crate) fn read_document(&self) -> Result<SpecTable, SpecError> {
        let (document, mistakes) = self.read_document_naming_mistakes()?;
        match mistakes.into_iter().next() {
            Some(first) => Err(first),
            None => Ok(document),
        }
    }

    /// Parses the file, and applies the settings that can be applied. Those that cannot, and the scales that are none, are
    /// returned as mistakes.
    ///
    /// # Errors
    /// The text is not TOML.
    pub(super) fn read_document_naming_mistakes(
        &self,
    ) -> Result<(SpecTable, Vec<SpecError>), SpecError> {
        let mut document = node::parse_document(&self.text)?;
        let mut mistakes = Vec::new();
        for setting in &self.settings {
            mistakes.extend(apply_setting(&mut document, setting, self.grammar).err());
        }
        if self.grammar >= SCALES_GRAMMAR {
            let wrong = take_scales(&mut document).err();
            mistakes.extend(wrong.into_iter().flatten());
        }
        take_stages(&mut document)?;

        Ok((document, mistakes))
    }

    /// The name of the sweep according to file and settings, even if other parts are invalid.
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

    /// The sweep of a stage of the file, if a setting names it.
    pub fn stage_sweep(&self, stage: &str) -> Option<String> {
        find_stage_sweep(&self.settings, stage)
    }

    /// An error about a field of the file, with its place if the field is set there and not by an axis or a case.
    pub fn field_error(&self, path: &str, message: impl Into<String>) -> SpecError {
        let document = self.read_document().unwrap_or_default();
        let origin = document.get_at_path(path).map(|node| node.origin.clone());
        SpecError::new(origin.unwrap_or(Origin::Default), path, message).with_file(&self.file)
    }

    /// An error about an entry of `program.files`, with its line; about the list if `entry` is none of it.
    pub fn program_file_error(&self, entry: &str, message: impl Into<String>) -> SpecError {
        let path = format!("{}.files", program::SECTION);
        let document = self.read_document().unwrap_or_default();
        let list = document.get_at_path(&path);
        let items = list.and_then(|node| node.value.as_list());
        let mut items = items.into_iter().flatten();
        let item = items.find(|item| item.value.as_str() == Some(entry));
        let origin = item.or(list).map(|node| node.origin.clone());
        SpecError::new(origin.unwrap_or(Origin::Default), path, message).with_file(&self.file)
    }

    /// What `program.files` lists, as written. Empty without a program, and if the file cannot be read.
    pub fn program_files(&self) -> Vec<String> {
        let Ok(document) = self.read_document() else {
            return Vec::new();
        };
        let Some(SpecValue::List(items)) = value_at_path(&document, &[program::SECTION, "files"])
        else {
            return Vec::new();
        };
        let names = items.iter().filter_map(|item| item.value.as_str());
        names.map(str::to_owned).collect()
    }

    /// The paths of files that the text and the settings name, as written. Empty if the file cannot
    /// be read; [`Spec::read_new`](crate::Spec::read_new) reports why.
    pub fn named_files(&self) -> Vec<String> {
        let Ok(document) = self.read_document() else {
            return Vec::new();
        };
        let mut paths = Vec::new();

        for field in [
            &["data", "dataset"][..],
            &["model", "init", "file"],
            &["grid"],
            &["case"],
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

/// The value at a path of keys.
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
