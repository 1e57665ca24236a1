//! The names that layers have, and those by which they name others.

use super::super::step_rules::LR_ROLES;
use super::{AddedInput, LayerInput, PendingLayer};
use crate::spec_file::error::SpecError;
use crate::spec_file::suggest::suggest_nearest;

/// The name of the last layer.
pub(super) const HEAD: &str = "head";

/// Maximum length of the name of a layer, in characters.
const MAX_NAME: usize = 64;

/// What a layer reads, and what is added to it.
pub(super) struct ResolvedInputs {
    pub(super) reads: LayerInput,
    pub(super) adds: Option<AddedInput>,
}

/// The part of a layer that a reference names.
#[derive(Clone, Copy, PartialEq)]
enum LayerPart {
    In,
    Out,
    Sum,
}

const PARTS: [(&str, LayerPart); 3] = [
    ("in", LayerPart::In),
    ("out", LayerPart::Out),
    ("sum", LayerPart::Sum),
];

/// Checks the names of all layers, and resolves those that they use.
///
/// # Errors
/// A name is no name or not unique, or names no earlier layer.
pub(super) fn resolve_references(
    layers: &[PendingLayer<'_>],
) -> Result<Vec<ResolvedInputs>, SpecError> {
    for (at, layer) in layers.iter().enumerate() {
        check_name(layer, &layers[..at])?;
    }

    let mut resolved: Vec<ResolvedInputs> = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let reads = match layer.map.from {
            Some(text) => resolve_from(layers, &resolved, at, text)?,
            None => at
                .checked_sub(1)
                .map_or(LayerInput::Image, LayerInput::Output),
        };
        let adds = match layer.map.add {
            Some(text) => Some(resolve_add(layers, &resolved, (at, reads), text)?),
            None => None,
        };
        check_sum_is_free(layers, &resolved, layer, adds)?;
        resolved.push(ResolvedInputs { reads, adds });
    }
    Ok(resolved)
}

fn check_name(layer: &PendingLayer<'_>, earlier: &[PendingLayer<'_>]) -> Result<(), SpecError> {
    let name = &layer.name;
    if let Some(message) = explain_wrong_name(name) {
        return Err(layer.reader.error_at("name", message));
    }

    // Its initial weights have a random stream of their own.
    if (name == HEAD) != layer.is_head() {
        let message = "the layer of the classes is called 'head', and no other one: choose another name, or remove this";
        return Err(layer.reader.error_at("name", message));
    }

    match earlier.iter().find(|other| other.name == *name) {
        Some(other) => {
            let message = format!(
                "model.layers[{}] is called '{name}' as well: give one of them another name",
                other.item
            );
            Err(layer.reader.error_at("name", message))
        }
        None => Ok(()),
    }
}

/// Explains why a layer cannot have a name; `None` if it can. Files of weights have tensors with names of their own.
fn explain_wrong_name(name: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let parts_are_full = name.split('.').all(|part| !part.is_empty());
    if !begins_well || !parts_are_full || !name.chars().all(is_plain) || name.len() > MAX_NAME {
        return Some(format!(
            "expected a letter, followed by letters, digits, _, - and single dots, at most {MAX_NAME} in all"
        ));
    }

    let first = name.split('.').next().unwrap_or_default();
    let of_moment = first.strip_prefix("step").is_some_and(is_number);
    if name.ends_with(".norm") || first == "average" || of_moment {
        return Some(format!(
            "files of weights have other tensors of the name '{name}…': choose another one"
        ));
    }

    // The head is a role of its own.
    (name != HEAD && LR_ROLES.contains(&name)).then(|| {
        format!("train.lr_on has a factor for all {name} under this name: choose another one")
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

fn resolve_from(
    layers: &[PendingLayer<'_>],
    resolved: &[ResolvedInputs],
    at: usize,
    text: &str,
) -> Result<LayerInput, SpecError> {
    let form = "expected an earlier layer with .in or .out, such as";
    match find_part(layers, (at, "from"), text, form)? {
        (other, LayerPart::In) if other < at => Ok(resolved[other].reads),
        (other, LayerPart::Out) if other < at => Ok(LayerInput::Output(other)),
        (other, LayerPart::Sum) if other < at => {
            let name = &layers[other].name;
            let message = format!(
                "layers read what others read or put out, '{name}.in' or '{name}.out'; a sum is added: add = \"{name}.sum\""
            );
            Err(layers[at].reader.error_at("from", message))
        }
        _ => Err(explain_later_layer(layers, at, "from", text)),
    }
}

fn resolve_add(
    layers: &[PendingLayer<'_>],
    resolved: &[ResolvedInputs],
    (at, reads): (usize, LayerInput),
    text: &str,
) -> Result<AddedInput, SpecError> {
    let form = "expected a layer with .in, .out or .sum, such as";
    match find_part(layers, (at, "add"), text, form)? {
        (other, LayerPart::In) if other == at => Ok(AddedInput::Input(reads)),
        (other, LayerPart::In) if other < at => Ok(AddedInput::Input(resolved[other].reads)),
        (other, LayerPart::Out) if other < at => Ok(AddedInput::Input(LayerInput::Output(other))),
        (other, LayerPart::Sum) if other < at => Ok(AddedInput::Sum(other)),
        _ => Err(explain_later_layer(layers, at, "add", text)),
    }
}

/// The layer, and the part of it, that a reference names.
fn find_part(
    layers: &[PendingLayer<'_>],
    (at, key): (usize, &'static str),
    text: &str,
    form: &str,
) -> Result<(usize, LayerPart), SpecError> {
    let reader = &layers[at].reader;
    let split = text.rsplit_once('.').and_then(|(name, part)| {
        let known = PARTS.iter().find(|(word, _)| *word == part)?;
        Some((name, known.1))
    });
    let Some((name, part)) = split else {
        let example = layers.first().map_or("", |layer| layer.name.as_str());
        let message = format!("{form} \"{example}.out\", found '{text}'");
        return Err(reader.error_at(key, message));
    };

    let found = layers.iter().position(|layer| layer.name == name);
    found.map(|other| (other, part)).ok_or_else(|| {
        let names = layers[..at].iter().map(|layer| layer.name.as_str());
        let message = match at {
            0 => "there is no layer before the first one: remove this".to_owned(),
            _ => format!(
                "there is no layer '{name}', {}",
                suggest_nearest(name, names.clone())
            ),
        };
        reader.error_at(key, message).with_unknown(name, names)
    })
}

fn explain_later_layer(
    layers: &[PendingLayer<'_>],
    at: usize,
    key: &'static str,
    text: &str,
) -> SpecError {
    let message = format!(
        "'{text}' is not known yet where {} is computed: name an earlier layer, or move this one behind it",
        layers[at].name
    );
    layers[at].reader.error_at(key, message)
}

/// Checks that no earlier layer adds the same sum.
fn check_sum_is_free(
    layers: &[PendingLayer<'_>],
    resolved: &[ResolvedInputs],
    layer: &PendingLayer<'_>,
    adds: Option<AddedInput>,
) -> Result<(), SpecError> {
    let Some(AddedInput::Sum(summed)) = adds else {
        return Ok(());
    };
    let Some(first) = resolved.iter().position(|other| other.adds == adds) else {
        return Ok(());
    };

    let (summed, first) = (&layers[summed].name, &layers[first].name);
    let message = format!(
        "{first} adds the sum of {summed} already, and only one layer may: add \"{first}.sum\", which contains it"
    );
    Err(layer.reader.error_at("add", message))
}
