//! The fields that names stand for.

use crate::config::{NUMERIC_FIELDS, OTHER_FIELDS, SHORT_NAMES};
use crate::grid::Grid;
use crate::program;
use crate::spec_file::error::Origin;
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue};
use crate::spec_file::suggest::{find_nearest, suggest_nearest};

/// The field that an axis or derived name stands for; `None` for a free name.
pub(crate) fn resolve_field_name(name: &str) -> Option<String> {
    match SHORT_NAMES.iter().find(|(short, _)| *short == name) {
        Some((_, path)) => Some((*path).to_owned()),
        None => name.contains('.').then(|| name.to_owned()),
    }
}

/// What the names of axes, cases and `[derive]` stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameKind {
    /// Fields of a training, or free names.
    Fields,
    /// Values of a program, whatever they are called.
    Values,
}

impl NameKind {
    /// The kind of a document: a sweep of a program or an experiment has values.
    pub(crate) fn of_document(document: &SpecTable) -> Self {
        match document.get(program::SECTION).is_some() || program::names_experiment(document) {
            true => Self::Values,
            false => Self::Fields,
        }
    }

    /// The field that a name stands for; `None` for a free name. Each value of a program has a field of its own.
    pub(crate) fn resolve(self, name: &str) -> Option<String> {
        match self {
            Self::Fields => resolve_field_name(name),
            Self::Values => Some(format!("{}.{name}", program::VALUES)),
        }
    }
}

/// The name of a program's value whose field this is; other fields as they are.
pub(crate) fn shown_field(field: &str) -> &str {
    let name = field.strip_prefix(program::VALUES);
    name.and_then(|rest| rest.strip_prefix('.'))
        .unwrap_or(field)
}

impl Grid {
    /// Whether the cells are those of a program.
    pub fn is_of_program(&self) -> bool {
        self.name_kind() == NameKind::Values
    }

    pub(crate) fn name_kind(&self) -> NameKind {
        NameKind::of_document(&self.base)
    }

    /// The names of a program's values that `[derive]` computes.
    pub fn derived_value_names(&self) -> impl Iterator<Item = &str> {
        let derived = self.is_of_program().then_some(&self.derived);
        let fields = derived.into_iter().flatten();
        fields.map(|derived| shown_field(&derived.field))
    }

    /// Whether the file, an axis or a case sets a field, or part of it.
    pub(crate) fn has_setting_in(&self, field: &str) -> bool {
        let of_axes = self.axes.iter().filter_map(|axis| axis.field.as_deref());
        let mut varied = of_axes.chain(self.case_fields());
        self.base.get_at_path(field).is_some() || varied.any(|path| is_part_of_field(path, field))
    }
}

/// The field that a name without one may stand for.
pub(super) struct MeantField {
    /// The field, if one is near.
    pub(super) field: Option<&'static str>,
    /// Whether the name is the last part of the field.
    pub(super) is_last_part: bool,
    /// The suggestion in words.
    pub(super) hint: String,
}

/// Suggests a field for a name that is none: the one that ends with it, or the nearest.
pub(super) fn suggest_field(name: &str) -> MeantField {
    let suffix = format!(".{name}");
    let fields = NUMERIC_FIELDS.iter().map(|(f, _)| *f).chain(OTHER_FIELDS);
    let known = SHORT_NAMES.iter().map(|(s, _)| *s).chain(fields.clone());
    let ending = fields.clone().find(|f| f.ends_with(&suffix));
    MeantField {
        is_last_part: ending.is_some(),
        field: ending.or_else(|| find_nearest(name, known.clone())),
        hint: match ending {
            Some(field) => format!("did you mean '{field}'?"),
            None => suggest_nearest(name, known),
        },
    }
}

/// The entries of a table of fields, by dotted names. A table that is one value stays whole.
pub(crate) fn flatten_fields(table: &SpecTable) -> Vec<(String, &SpecNode)> {
    fn flatten_into<'a>(prefix: &str, table: &'a SpecTable, out: &mut Vec<(String, &'a SpecNode)>) {
        for (key, node) in &table.0 {
            let name = match prefix {
                "" => key.clone(),
                _ => format!("{prefix}.{key}"),
            };
            match &node.value {
                SpecValue::Table(inner) if !is_whole_value(&name, inner) => {
                    flatten_into(&name, inner, out);
                }
                _ => out.push((name, node)),
            }
        }
    }

    let mut out = Vec::new();
    flatten_into("", table, &mut out);
    out
}

/// Whether a table is the value of one field: it names its kind, or its keys are no fields.
fn is_whole_value(name: &str, table: &SpecTable) -> bool {
    let has_section = matches!(name.split('.').next(), Some("data" | "model" | "train"));
    let is_field = matches!(
        name,
        "train.schedule" | "model.init.layers" | "model.hidden"
    );
    !has_section || is_field || table.get("kind").is_some()
}

/// Whether a path, such as `train.schedule[0].lr`, is a field or part of it.
pub(super) fn is_part_of_field(path: &str, field: &str) -> bool {
    path.strip_prefix(field)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether one of two fields is part of the other, or both are the same.
pub(super) fn do_fields_overlap(a: &str, b: &str) -> bool {
    is_part_of_field(a, b) || is_part_of_field(b, a)
}

/// The field that a name in a case means; `None` for a free name.
pub(super) fn field_of_name(name: &str) -> Option<String> {
    let is_section = matches!(name, "data" | "model" | "train");
    resolve_field_name(name).or_else(|| is_section.then(|| name.to_owned()))
}

/// Whether a value, or one within it, was written at this place.
pub(super) fn has_origin(node: &SpecNode, origin: &Origin) -> bool {
    node.origin == *origin
        || match &node.value {
            SpecValue::List(items) => items.iter().any(|item| has_origin(item, origin)),
            SpecValue::Table(table) => table.0.iter().any(|(_, node)| has_origin(node, origin)),
            _ => false,
        }
}
