//! `[scale.NAME]`: overlays of a sweep file. A setting `scale=NAME` chooses one.

use crate::config::{describe_unknown_layer, expand_short_name, resolve_layer_field};
use crate::grid::{
    find_axis_for_field, flatten_axes, flatten_fields, is_axis_form, resolve_field_name,
};
use crate::spec::layer_overlay::set_keys_of_layers;
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::grammar::ReadingMode;
use crate::spec_file::node::{self, SpecNode, SpecTable, SpecValue};
use crate::spec_file::suggest::suggest_nearest;

/// The section, and the setting that chooses one of its tables.
pub(in crate::spec) const SCALE: &str = "scale";
/// The sections that decide about cells.
const SECTIONS_OF_CELLS: [&str; 9] = [
    SCALE, "grid", "case", "derive", "where", "data", "model", "train", "measure",
];
/// Maximum length of a scale's name, in characters.
const MAX_NAME_CHARS: usize = 64;

/// The scales of a sweep file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scales {
    /// The names of all scales, in the order of the file.
    pub names: Vec<String>,
    /// The one that is chosen; without one, the file holds as it is.
    pub chosen: Option<String>,
}

impl Scales {
    /// The scales that are not chosen.
    pub fn others(&self) -> impl Iterator<Item = &str> {
        let names = self
            .names
            .iter()
            .filter(|name| self.chosen.as_ref() != Some(name));
        names.map(String::as_str)
    }
}

/// The settings of a command line with the choice of a scale, which the others override.
pub fn settings_with_scale(settings: &[String], scale: Option<&str>) -> Vec<String> {
    let Some(scale) = scale else {
        return settings.to_vec();
    };

    // What is set in scales comes before the choice of one.
    let (within, others): (Vec<String>, Vec<String>) = settings
        .iter()
        .cloned()
        .partition(|setting| setting.trim_start().starts_with("scale."));
    let plain = format!("{SCALE}={scale}");
    let is_word =
        node::parse_setting(&plain).is_ok_and(|(_, node)| node.value.to_string() == scale);
    // A name such as 1.0 would be read as a number.
    let chosen = match is_word {
        true => plain,
        false => format!("{SCALE}=\"{scale}\""),
    };
    within.into_iter().chain([chosen]).chain(others).collect()
}

/// The field that gives the length of a trial in the other unit, if this one gives it, too.
pub(super) fn other_length(field: &str) -> Option<&'static str> {
    match field {
        "train.steps" => Some("train.epochs"),
        "train.epochs" => Some("train.steps"),
        _ => None,
    }
}

/// The scales in the text of a sweep file, and the one that its settings choose.
pub(super) fn find_scales(text: &str, settings: &[String]) -> Scales {
    let mut scales = Scales::default();
    let Some(table) = read_scales(text, settings) else {
        return scales;
    };
    scales.names = table.0.into_iter().map(|(name, _)| name).collect();

    let mut chosen = settings.iter().filter_map(|setting| {
        let (path, node) = node::parse_setting(setting).ok()?;
        (path == SCALE).then(|| node.value.to_string())
    });
    scales.chosen = chosen.next_back();
    scales
}

/// The tables of scales in the text of a sweep file, with what settings set in them; none if it cannot be read.
fn read_scales(text: &str, settings: &[String]) -> Option<SpecTable> {
    let mut document = node::parse_document(text).ok()?;
    let parsed = settings.iter().map(|setting| node::parse_setting(setting));
    for (path, node) in parsed
        .flatten()
        .filter(|(path, _)| path.starts_with("scale."))
    {
        // A setting that does not fit is refused where it is applied.
        let _ = document.set_at_path(&path, node);
    }

    let at = document.0.iter().position(|(key, _)| key == SCALE);
    match at.map(|at| document.0.remove(at).1.value) {
        Some(SpecValue::Table(scales)) => Some(scales),
        _ => Some(SpecTable::default()),
    }
}

impl ReadingMode {
    /// Refuses a scale of a new sweep that would give it another name.
    ///
    /// # Errors
    /// A scale has a name, and the sweep is new.
    pub(super) fn refuse_names_in_scales_if_new(
        self,
        text: &str,
        settings: &[String],
    ) -> Result<(), SpecError> {
        match list_names_in_scales(text, settings).into_iter().next() {
            Some(error) => self.refuse_if_new(|| error),
            None => Ok(()),
        }
    }
}

/// The mistakes of all scales that would give the sweep another name.
pub(super) fn list_names_in_scales(text: &str, settings: &[String]) -> Vec<SpecError> {
    let message = "the name of a sweep is the same at every scale: remove it here, or choose another one with --set name=NAME";
    let scales = read_scales(text, settings).unwrap_or_default();
    let named = scales.0.iter().filter_map(|(scale, node)| {
        let SpecValue::Table(overlay) = &node.value else {
            return None;
        };
        let place = overlay.get("name")?.origin.clone();
        Some(SpecError::new(
            place,
            format!("{SCALE}.{scale}.name"),
            message,
        ))
    });
    named.collect()
}

/// Whether a setting decides anything about the cells of a sweep, such as their number, their values or the length of their trials.
pub(super) fn sets_cells(setting: &str) -> bool {
    let path = setting.split('=').next().unwrap_or_default();
    let field = expand_short_name(path.trim());
    let section = field.split('.').next().unwrap_or_default();
    SECTIONS_OF_CELLS.contains(&section)
}

/// The fields of trials that a scale in the text of a sweep file sets, with their places.
pub(super) fn fields_of_scale(text: &str, scale: &str) -> Vec<(String, SpecNode)> {
    let overlay = node::parse_document(text)
        .ok()
        .and_then(|document| unfold_names(find_scale(&document, scale)?).ok());
    let Some(overlay) = overlay else {
        return Vec::new();
    };
    flatten_trial_fields(&overlay)
        .into_iter()
        .map(|(field, node)| (field, node.clone()))
        .collect()
}

/// Takes the scales out of a document, after one may have been laid over it.
///
/// # Errors
/// Names every scale that is no table, or has no proper name; the scales are taken out nevertheless.
pub(super) fn take_scales(document: &mut SpecTable) -> Result<(), Vec<SpecError>> {
    let Some(at) = document.0.iter().position(|(key, _)| key == SCALE) else {
        return Ok(());
    };
    let (_, section) = document.0.remove(at);
    let form = "expected tables of fields with a name each, like [scale.desk]";
    let SpecValue::Table(scales) = section.value else {
        return Err(vec![SpecError::new(section.origin, SCALE, form)]);
    };

    let mut mistakes = Vec::new();
    for (name, node) in scales.0 {
        let path = format!("{SCALE}.{name}");
        if name.is_empty() || name.len() > MAX_NAME_CHARS || !name.chars().all(is_name_char) {
            let message = "expected a name of 1 to 64 letters, digits, '-', '_' or '.'";
            mistakes.push(SpecError::new(node.origin, path, message));
        } else if !matches!(node.value, SpecValue::Table(_)) {
            mistakes.push(SpecError::new(node.origin, path, form));
        }
    }
    match mistakes.is_empty() {
        true => Ok(()),
        false => Err(mistakes),
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

fn find_scale<'a>(document: &'a SpecTable, name: &str) -> Option<&'a SpecTable> {
    let SpecValue::Table(scales) = &document.get(SCALE)?.value else {
        return None;
    };
    match &scales.get(name)?.value {
        SpecValue::Table(table) => Some(table),
        _ => None,
    }
}

/// Lays a scale over the document.
///
/// # Errors
/// There is no such scale, or it is no table of fields.
pub(super) fn apply_scale(document: &mut SpecTable, choice: &SpecNode) -> Result<(), SpecError> {
    let name = choice.value.to_string();
    let Some(overlay) = find_scale(document, &name).cloned() else {
        return Err(unknown_scale_error(document, &name, &choice.origin));
    };

    let mut overlay = unfold_names(&overlay)?;
    check_layers_exist(document, &overlay)?;
    set_axes(document, &mut overlay)?;
    drop_other_length(document, &overlay);
    merge_tables(document, overlay, "");
    Ok(())
}

/// Checks that the list has the layers whose keys an overlay sets.
fn check_layers_exist(document: &SpecTable, overlay: &SpecTable) -> Result<(), SpecError> {
    let mut fields = flatten_trial_fields(overlay).into_iter();
    let unknown = fields.find_map(|(field, node)| {
        let message = describe_unknown_layer(document, &field)?;
        Some(SpecError::new(node.origin.clone(), field, message))
    });
    unknown.map_or(Ok(()), Err)
}

fn unknown_scale_error(document: &SpecTable, name: &str, origin: &Origin) -> SpecError {
    let names: Vec<&str> = match document.get(SCALE).map(|node| &node.value) {
        Some(SpecValue::Table(scales)) => scales.0.iter().map(|(name, _)| name.as_str()).collect(),
        _ => Vec::new(),
    };
    let message = match &names[..] {
        [] => format!("the file has no scale '{name}': add a table [scale.{name}]"),
        names => format!(
            "the file has no scale '{name}', {}",
            suggest_nearest(name, names.iter().copied())
        ),
    };
    SpecError::new(origin.clone(), SCALE, message)
}

/// An overlay with short and dotted names as the tables that they mean.
pub(super) fn unfold_names(overlay: &SpecTable) -> Result<SpecTable, SpecError> {
    let mut unfolded = SpecTable::default();
    for (key, node) in &overlay.0 {
        let path = expand_short_name(key);
        let mut single = SpecTable::default();
        let origin = node.origin.clone();
        single
            .set_at_path(&path, node.clone())
            .map_err(|at| SpecError::new(origin, key, format!("'{at}' is not a table")))?;
        merge_tables(&mut unfolded, single, "");
    }
    Ok(unfolded)
}

/// The fields of `[data]`, `[model]` and `[train]` in a document.
fn flatten_trial_fields(document: &SpecTable) -> Vec<(String, &SpecNode)> {
    let mut fields = flatten_fields(document);
    fields.retain(|(name, _)| {
        let section = name.split('.').next();
        matches!(section, Some("data" | "model" | "train"))
    });
    fields
}

/// The name of the axis that sets a field, which may name a layer in another way.
pub(super) fn find_axis(document: &SpecTable, grid: &SpecTable, field: &str) -> Option<String> {
    let place = |field: &str| resolve_layer_field(document, field);
    let wanted = place(field);
    find_axis_for_field(grid, field).or_else(|| {
        let mut names = flatten_axes(grid).into_iter().map(|(name, _)| name);
        names.find(|name| resolve_field_name(name).is_some_and(|of_axis| place(&of_axis) == wanted))
    })
}

/// Moves the axes of an overlay to those of the file that set the same fields; a field that is an axis gets its value
/// alone.
fn set_axes(document: &mut SpecTable, overlay: &mut SpecTable) -> Result<(), SpecError> {
    let file_axes = |field: &str| match document.get("grid").map(|node| &node.value) {
        Some(SpecValue::Table(grid)) => find_axis(document, grid, field),
        _ => None,
    };
    let single: Vec<(String, String, SpecNode)> = flatten_trial_fields(overlay)
        .into_iter()
        .filter_map(|(field, node)| Some((file_axes(&field)?, field, list_of(node))))
        .collect();
    let axes: Vec<(String, SpecNode)> = match overlay.get("grid").map(|node| &node.value) {
        Some(SpecValue::Table(grid)) => flatten_axes(grid)
            .into_iter()
            .map(|(name, node)| {
                let known = resolve_field_name(&name).and_then(|field| file_axes(&field));
                (known.unwrap_or(name), node.clone())
            })
            .collect(),
        _ => Vec::new(),
    };

    for (_, field, _) in &single {
        remove_at_path(overlay, field);
    }
    if let Some(SpecValue::Table(grid)) = overlay.get_mut("grid").map(|node| &mut node.value) {
        grid.0.retain(|(key, _)| key == "zip");
    }
    let singles = single.into_iter().map(|(axis, _, node)| (axis, node));
    for (axis, node) in singles.chain(axes) {
        set_axis(document, &axis, node)?;
    }
    Ok(())
}

fn list_of(node: &SpecNode) -> SpecNode {
    SpecNode {
        value: SpecValue::List(vec![node.clone()]),
        origin: node.origin.clone(),
    }
}

/// Sets an axis by its name, whose dots are part of it unless the file writes the axis in tables.
fn set_axis(document: &mut SpecTable, axis: &str, node: SpecNode) -> Result<(), SpecError> {
    let origin = node.origin.clone();
    let path = format!("grid.{axis}");
    document
        .set_at_path(&path, node)
        .map_err(|at| SpecError::new(origin, path, format!("'{at}' is not a table")))
}

/// Drops the length of a trial that the overlay gives in the other unit.
pub(super) fn drop_other_length(document: &mut SpecTable, overlay: &SpecTable) {
    for given in ["train.steps", "train.epochs"] {
        let other = other_length(given).filter(|other| overlay.get_at_path(other).is_none());
        if let Some(other) = other.filter(|_| overlay.get_at_path(given).is_some()) {
            remove_at_path(document, other);
        }
    }
}

/// Lays a table over another one, key by key. What is one value is replaced.
pub(super) fn merge_tables(into: &mut SpecTable, over: SpecTable, path: &str) {
    for (key, node) in over.0 {
        let here = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let slot = into.get_mut(&key).map(|node| &mut node.value);
        match (slot, node.value) {
            (Some(SpecValue::Table(old)), SpecValue::Table(new)) if !is_one_value(&here, &new) => {
                merge_tables(old, new, &here);
            }
            (slot, value) => {
                let node = SpecNode {
                    value: lay_over_layers(slot, value, &here),
                    origin: node.origin,
                };
                match into.get_mut(&key) {
                    Some(slot) => *slot = node,
                    None => into.0.push((key, node)),
                }
            }
        }
    }
}

/// The value that replaces another one: a list of layers, if a table sets keys of single layers.
fn lay_over_layers(old: Option<&mut SpecValue>, new: SpecValue, path: &str) -> SpecValue {
    let changed = match (old, &new) {
        (Some(SpecValue::List(items)), SpecValue::Table(keys)) if path == "model.layers" => {
            set_keys_of_layers(items, keys)
        }
        _ => None,
    };
    changed.map_or(new, SpecValue::List)
}

/// Whether a table is one value: it names its kind, generates the values of an axis, or is that of a field.
fn is_one_value(path: &str, table: &SpecTable) -> bool {
    let generates = path.starts_with("grid.") && table.0.iter().any(|(key, _)| is_axis_form(key));
    let is_field = [
        "train.schedule",
        "train.lr_on",
        "model.hidden",
        "model.init.layers",
    ]
    .iter()
    .any(|field| path.ends_with(field));
    generates || is_field || table.get("kind").is_some()
}

pub(super) fn remove_at_path(table: &mut SpecTable, path: &str) {
    if let Some(at) = table.0.iter().position(|(key, _)| key == path) {
        table.0.remove(at);
    } else if let Some((head, rest)) = path.split_once('.')
        && let Some(SpecValue::Table(inner)) = table.get_mut(head).map(|node| &mut node.value)
    {
        remove_at_path(inner, rest);
    }
}
