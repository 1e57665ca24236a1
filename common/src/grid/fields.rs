//! The fields that names stand for.

use crate::config::{
    NUMERIC_FIELDS, OTHER_FIELDS, SHORT_NAMES, describe_unknown_layer, resolve_layer_field,
};
use crate::grid::Grid;
use crate::program;
use crate::spec_file::error::{Origin, SpecError};
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

    /// The field that a name stands for; `None` for a free name. Each value of a program has a field of its own, and those of an
    /// experiment's data are fields as they are.
    pub(crate) fn resolve(self, name: &str) -> Option<String> {
        match self {
            Self::Fields => resolve_field_name(name),
            Self::Values if program::is_data_field(name) => Some(name.to_owned()),
            Self::Values => Some(format!("{}.{name}", program::VALUES)),
        }
    }

    /// The field that a name stands for in a file with these tables, in which the layers of `model.layers` have their places.
    pub(super) fn resolve_in(self, base: &SpecTable, name: &str) -> Option<String> {
        let field = self.resolve(name)?;
        Some(match self {
            Self::Fields => resolve_layer_field(base, &field),
            Self::Values => field,
        })
    }
}

/// Explains why neither a value of a program nor a field of an experiment's data can have a name, in a file with these tables;
/// `None` if one can.
pub(super) fn explain_wrong_name(base: &SpecTable, name: &str) -> Option<String> {
    program::explain_wrong_value_name(name).filter(|_| !is_data_of_experiment(base, name))
}

fn is_data_of_experiment(base: &SpecTable, name: &str) -> bool {
    program::is_data_field(name) && program::names_experiment(base)
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

    /// Whether a name is that of a field of an experiment's data.
    pub(super) fn is_data_of_experiment(&self, name: &str) -> bool {
        is_data_of_experiment(&self.base, name)
    }

    pub(crate) fn name_kind(&self) -> NameKind {
        NameKind::of_document(&self.base)
    }

    /// A field, with the place of the layer that it names, if it names one.
    pub(crate) fn place_layer(&self, field: &str) -> String {
        match self.name_kind() {
            NameKind::Fields => resolve_layer_field(&self.base, field),
            NameKind::Values => field.to_owned(),
        }
    }

    /// The field that a name stands for; `None` for a free name.
    pub(super) fn resolve_name(&self, name: &str) -> Option<String> {
        self.name_kind().resolve_in(&self.base, name)
    }

    /// The names of a program's values that `[derive]` computes.
    pub fn derived_value_names(&self) -> impl Iterator<Item = &str> {
        let derived = self.is_of_program().then_some(&self.derived);
        let fields = derived.into_iter().flatten();
        fields
            .map(|derived| (shown_field(&derived.field), &derived.field))
            .filter(|(name, field)| name != field)
            .map(|(name, _)| name)
    }

    /// Whether the file, an axis or a case sets a field, or part of it.
    pub(crate) fn has_setting_in(&self, field: &str) -> bool {
        let of_axes = self.axes.iter().filter_map(|axis| axis.field.as_deref());
        let mut varied = of_axes.chain(self.case_fields());
        self.base.get_at_path(field).is_some()
            || varied.any(|path| is_part_of_field(path, field))
            || self
                .cases
                .as_ref()
                .is_some_and(|cases| cases.has_table_with(field))
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
        "train.schedule" | "train.lr_on" | "model.init.layers" | "model.hidden"
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

/// The field that a name in a case means, in a file with these tables; `None` for a free name.
pub(super) fn field_of_name(base: &SpecTable, name: &str) -> Option<String> {
    let names = NameKind::of_document(base);
    let is_section = names == NameKind::Fields && matches!(name, "data" | "model" | "train");
    names
        .resolve_in(base, name)
        .or_else(|| is_section.then(|| name.to_owned()))
}

/// Whether two axes set the same field, or one a part of what the other sets whole.
pub(super) fn do_axes_overlap(a: Option<&str>, b: Option<&str>) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return false;
    };
    a == b || a.starts_with("model.layers") && do_fields_overlap(a, b)
}

/// Whether a field is part of the list of layers, which an axis sets whole.
pub(crate) fn is_part_of_list(field: &str, of_axis: &str) -> bool {
    of_axis == "model.layers" && field != of_axis && is_part_of_field(field, of_axis)
}

/// Whether one of two axes sets a table of the training, and the other a part of it. The later one would win.
pub(super) fn do_tables_overlap(a: Option<&str>, b: Option<&str>) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return false;
    };
    let tables = ["train.lr_on", "train.sam", "train.optimizer", "train.loss"];
    let is_in_table = tables.iter().any(|table| is_part_of_field(a, table));
    is_in_table && do_fields_overlap(a, b)
}

/// Sets a value in the document of a cell.
///
/// # Errors
/// The path leads through something that is no table, or names no layer.
pub(crate) fn set_field(
    document: &mut SpecTable,
    path: &str,
    node: SpecNode,
) -> Result<(), SpecError> {
    let origin = node.origin.clone();
    if let Some(message) = describe_unknown_layer(document, path) {
        return Err(SpecError::new(origin, path, message));
    }
    document
        .set_at_path(&resolve_layer_field(document, path), node)
        .map_err(|at| SpecError::new(origin, path, format!("'{at}' is not a table")))
}

/// Whether the value of the field `whole` is a table with another field in it.
pub(super) fn holds_field(whole: Option<&str>, node: &SpecNode, field: &str) -> bool {
    let within = whole.and_then(|whole| field.strip_prefix(whole)?.strip_prefix('.'));
    match (&node.value, within) {
        (SpecValue::Table(table), Some(within)) => table.get_at_path(within).is_some(),
        _ => false,
    }
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
