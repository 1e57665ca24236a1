//! `[stage.NAME]`: further sweeps of a sweep file, which may start from what others of its sweeps kept. A setting `stage=NAME` chooses
//! one.
//!
//! A stage has the fields of the file, at the chosen scale, and axes, claims and figures of its own: its table is laid over what is
//! left of the file without them.

use crate::config::{MAIN_STAGE, ResultsSource, TrialConfig};
use crate::quantity::{ClaimSection, FigureSection};
use crate::spec::scale::{drop_other_length, merge_tables, remove_at_path, unfold_names};
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::node::{self, SpecNode, SpecTable, SpecValue};
use crate::spec_file::suggest::suggest_nearest;

/// The section, and the setting that chooses one of its tables.
pub(super) const STAGE: &str = "stage";
/// The settings that name the sweeps of stages, as in `results.main=abcd2345`.
const RESULTS_SETTINGS: &str = "results.";
/// The sections of the file that are no part of its stages.
const OWN_SECTIONS: [&str; 4] = ["grid", "case", "derive", "where"];

/// The stages of a sweep file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stages {
    /// The names of all stages, in the order of the file.
    pub names: Vec<String>,
    /// The one that is chosen; without one, the file holds as it is.
    pub chosen: Option<String>,
}

impl Stages {
    /// The stages in the text of a sweep file, and the one that its settings choose.
    pub(super) fn find(text: &str, settings: &[String]) -> Self {
        let document = node::parse_document(text).unwrap_or_default();
        let names = match document.get(STAGE).map(|node| &node.value) {
            Some(SpecValue::Table(stages)) => {
                stages.0.iter().map(|(name, _)| name.clone()).collect()
            }
            _ => Vec::new(),
        };
        let chosen = settings.iter().rev().find_map(|setting| {
            let (path, node) = node::parse_setting(setting).ok()?;
            (path == STAGE).then(|| node.value.to_string())
        });
        Self { names, chosen }
    }

    /// Checks that a cell starts from a stage that comes before this one.
    ///
    /// # Errors
    /// There is no such stage, or it comes later.
    pub(super) fn check_source(&self, config: &TrialConfig) -> Result<(), SpecError> {
        let selection = config.results_start.as_ref().map(|start| &start.selection);
        let Some(ResultsSource::Stage(name)) = selection.map(|selection| &selection.source) else {
            return Ok(());
        };

        let end = match &self.chosen {
            Some(chosen) => self.names.iter().position(|name| name == chosen),
            None => Some(0),
        };
        let earlier = &self.names[..end.unwrap_or(self.names.len())];
        let is_known = self.chosen.is_some() && (name == MAIN_STAGE || earlier.contains(name));
        if is_known {
            return Ok(());
        }
        let message = match &self.chosen {
            None => "only a stage starts from another one: write this in a table [stage.NAME], or name a sweep".to_owned(),
            Some(_) => {
                let known = earlier.iter().map(String::as_str).chain([MAIN_STAGE]);
                let hint = suggest_nearest(name, known);
                format!("no stage '{name}' comes before this one, {hint}")
            }
        };
        let path = "model.init.results.stage";
        Err(SpecError::new(Origin::Default, path, message))
    }
}

/// The settings of a command line with the choice of a stage, which the others override.
pub fn settings_with_stage(settings: &[String], stage: Option<&str>) -> Vec<String> {
    let Some(stage) = stage else {
        return settings.to_vec();
    };

    // What is set in scales and stages, and the choice of a scale, come before the choice of a stage.
    let (before, others): (Vec<String>, Vec<String>) =
        settings.iter().cloned().partition(|setting| {
            let field = setting.trim_start();
            ["scale.", "scale=", "stage."]
                .iter()
                .any(|section| field.starts_with(section))
        });
    before
        .into_iter()
        .chain([format_stage_choice(stage)])
        .chain(others)
        .collect()
}

/// The setting that chooses a stage. What comes before it is set in the file, over which the stage lays its own fields.
pub fn format_stage_choice(stage: &str) -> String {
    format!("{STAGE}=\"{stage}\"")
}

/// The setting that says which sweep a stage is.
pub fn format_stage_setting(stage: &str, sweep: &str) -> String {
    format!("{RESULTS_SETTINGS}{stage}=\"{sweep}\"")
}

/// Whether a setting only says which sweep a stage is, which is no part of the document.
pub(super) fn is_stage_setting(path: &str) -> bool {
    path.starts_with(RESULTS_SETTINGS)
}

/// The sweep of a stage according to settings.
pub(super) fn find_stage_sweep(settings: &[String], stage: &str) -> Option<String> {
    // The last one holds.
    settings.iter().rev().find_map(|setting| {
        let (path, node) = node::parse_setting(setting).ok()?;
        (path.strip_prefix(RESULTS_SETTINGS) == Some(stage)).then(|| node.value.to_string())
    })
}

/// Lays a stage over the document, without what is the file's own.
///
/// # Errors
/// There is no such stage, or it is no table of fields.
pub(super) fn apply_stage(document: &mut SpecTable, choice: &SpecNode) -> Result<(), SpecError> {
    let name = choice.value.to_string();
    let Some(overlay) = find_stage(document, &name).cloned() else {
        return Err(unknown_stage_error(document, &name, &choice.origin));
    };
    let mut overlay = unfold_names(&overlay)?;
    append_to_name(document, &name, &choice.origin);

    document.0.retain(|(key, _)| {
        let key = key.as_str();
        !OWN_SECTIONS.contains(&key)
            && !ClaimSection::KEYS.contains(&key)
            && key != FigureSection::KEY
    });
    // Streams are chosen as a whole, and so is the start.
    if overlay.get("seeds").is_some() {
        remove_at_path(document, "seeds");
    }
    if starts_from_results(&overlay) {
        remove_at_path(document, "model.init");
        // Which trials its repeats take says what they have in common, not what these trials cross.
        remove_at_path(document, "seeds.crossed");
    }

    drop_other_length(document, &overlay);
    overlay.0.retain(|(key, _)| key != "name");
    merge_tables(document, overlay, "");
    Ok(())
}

/// Whether some cell of a stage starts from results: its fields, axes or cases say so.
fn starts_from_results(overlay: &SpecTable) -> bool {
    let mut tables: Vec<&SpecTable> = vec![overlay];
    while let Some(table) = tables.pop() {
        for (key, node) in &table.0 {
            if key.contains("init.results") || key == "results" {
                return true;
            }
            if let SpecValue::Table(inner) = &node.value
                && !ClaimSection::KEYS.contains(&key.as_str())
            {
                tables.push(inner);
            }
        }
    }
    false
}

/// Appends the name of the stage to that of the sweep.
fn append_to_name(document: &mut SpecTable, stage: &str, origin: &Origin) {
    let Some(slot) = document.get_mut("name") else {
        return;
    };
    if let Some(name) = slot.value.as_str() {
        *slot = SpecNode {
            value: SpecValue::Str(format!("{name}-{stage}")),
            origin: origin.clone(),
        };
    }
}

fn find_stage<'a>(document: &'a SpecTable, name: &str) -> Option<&'a SpecTable> {
    let SpecValue::Table(stages) = &document.get(STAGE)?.value else {
        return None;
    };
    match &stages.get(name)?.value {
        SpecValue::Table(table) => Some(table),
        _ => None,
    }
}

fn unknown_stage_error(document: &SpecTable, name: &str, origin: &Origin) -> SpecError {
    let names: Vec<&str> = match document.get(STAGE).map(|node| &node.value) {
        Some(SpecValue::Table(stages)) => stages.0.iter().map(|(name, _)| name.as_str()).collect(),
        _ => Vec::new(),
    };
    let message = match &names[..] {
        [] => format!("the file has no stage '{name}': add a table [stage.{name}]"),
        names => format!(
            "the file has no stage '{name}', {}",
            suggest_nearest(name, names.iter().copied())
        ),
    };
    SpecError::new(origin.clone(), STAGE, message)
}

/// Takes the stages out of a document, after one may have been laid over it.
///
/// # Errors
/// A stage is no table, has no proper name, or has a name for its sweep.
pub(super) fn take_stages(document: &mut SpecTable) -> Result<(), SpecError> {
    let Some(at) = document.0.iter().position(|(key, _)| key == STAGE) else {
        return Ok(());
    };
    let (_, section) = document.0.remove(at);
    let form = "expected tables of fields with a name each, like [stage.averages]";
    let SpecValue::Table(stages) = section.value else {
        return Err(SpecError::new(section.origin, STAGE, form));
    };

    for (name, node) in stages.0 {
        let path = format!("{STAGE}.{name}");
        let has_letters = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if name.is_empty() || name.len() > 32 || !has_letters || name == MAIN_STAGE {
            let message = "expected a name of 1 to 32 letters, digits, '-' or '_', other than main, which is the file itself";
            return Err(SpecError::new(node.origin, path, message));
        }
        let SpecValue::Table(fields) = &node.value else {
            return Err(SpecError::new(node.origin, path, form));
        };
        if let Some(named) = fields.get("name") {
            let message = "the name of a stage's sweep is that of the file with the stage behind it: remove this";
            return Err(SpecError::new(
                named.origin.clone(),
                format!("{path}.name"),
                message,
            ));
        }
    }
    Ok(())
}
