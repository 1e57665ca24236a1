//! Mistakes of quantities, claims and figures, each of which can be dropped with what uses it.

use super::Mistakes;
use crate::quantity::{ClaimSection, ExpandedClaims};
use crate::spec::scale::{SCALE, settings_with_scale};
use crate::spec::stage::{STAGE, settings_with_stage};
use crate::spec::{Spec, SpecSource};
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue, parse_document};

/// Whether an error is about a claim, a quantity or a figure.
pub(super) fn is_about_claims(path: &str) -> bool {
    matches!(section_of(path), "claim" | "quantity" | "figure")
}

fn section_of(path: &str) -> &str {
    path.split(['.', ' ', '[']).next().unwrap_or_default()
}

/// Drops the claim, quantity or figure that an error is about, and all that use it; returns whether anything was dropped.
pub(super) fn drop_claim(document: &mut SpecTable, error: &SpecError) -> bool {
    if let Some(name) = error.path.strip_prefix("quantity.") {
        return drop_quantity(document, name);
    }

    let section = section_of(&error.path);
    let Some(items) = find_list(document, section) else {
        return false;
    };
    let Some(at) = find_item(items, &error.origin) else {
        return false;
    };
    let dropped = items.remove(at);
    if section == "claim"
        && let Some(name) = name_of(&dropped).map(str::to_owned)
        && let Some(figures) = find_list(document, "figure")
    {
        figures.retain(|figure| !has_claim(figure, &name));
    }
    true
}

/// The claims or figures of a document.
fn find_list<'a>(document: &'a mut SpecTable, section: &str) -> Option<&'a mut Vec<SpecNode>> {
    match &mut document.get_mut(section)?.value {
        SpecValue::List(items) => Some(items),
        _ => None,
    }
}

/// The claim or figure that stands at a place, or has a key there.
fn find_item(items: &[SpecNode], place: &Origin) -> Option<usize> {
    items.iter().position(|item| {
        let SpecValue::Table(table) = &item.value else {
            return false;
        };
        item.origin == *place || table.0.iter().any(|(_, node)| node.origin == *place)
    })
}

fn name_of(item: &SpecNode) -> Option<&str> {
    match &item.value {
        SpecValue::Table(table) => table.get("name")?.value.as_str(),
        _ => None,
    }
}

/// Whether a figure draws a claim.
fn has_claim(figure: &SpecNode, name: &str) -> bool {
    let SpecValue::Table(table) = &figure.value else {
        return false;
    };
    match table.get("claims").map(|node| &node.value) {
        Some(SpecValue::Str(only)) => only == name,
        Some(SpecValue::List(names)) => names.iter().any(|item| item.value.as_str() == Some(name)),
        _ => false,
    }
}

fn drop_quantity(document: &mut SpecTable, name: &str) -> bool {
    let mut open = vec![name.to_owned()];
    let mut has_dropped = false;
    while let Some(name) = open.pop() {
        for section in ["claim", "figure"] {
            if let Some(items) = find_list(document, section) {
                items.retain(|item| !item.value.mentions(&name));
            }
        }
        let quantities = document.0.iter_mut().find(|(key, _)| key == "quantity");
        let Some(SpecValue::Table(quantities)) = quantities.map(|(_, node)| &mut node.value) else {
            continue;
        };
        let count = quantities.0.len();
        quantities.0.retain(|(known, _)| *known != name);
        has_dropped |= quantities.0.len() < count;
        let users = quantities
            .0
            .iter()
            .filter(|(_, node)| node.value.mentions(&name));
        open.extend(users.map(|(user, _)| user.clone()));
    }
    has_dropped
}

impl Spec {
    /// Reads a file of claims about the sweep, or the claims of a sweep file, and finds their cells. They may use the quantities of the
    /// sweep, too.
    ///
    /// # Errors
    /// Names all that is wrong, with file, line and key, as far as one mistake does not hide another.
    pub fn read_claims_file(&self, text: &str, file: &str) -> Result<ExpandedClaims, Mistakes> {
        let mut document = match self.claims_source(text, file).read_document() {
            Ok(document) => document,
            Err(error) => return Err(Mistakes(vec![error.with_file(file)])),
        };

        // Only sweep files have a name. All else in them is about the trials, which have been run.
        if document.get("name").is_some() {
            let entries = &mut document.0;
            entries.retain(|(key, _)| ClaimSection::KEYS.contains(&key.as_str()));
        }

        let mut mistakes: Vec<SpecError> = Vec::new();
        loop {
            let error = match self.expand_claims_document(&document) {
                Ok(claims) if mistakes.is_empty() => return Ok(claims),
                Ok(_) => break,
                Err(error) => error,
            };
            let is_repaired = is_about_claims(&error.path) && drop_claim(&mut document, &error);
            // Without the claims that are wrong, there may be none.
            if mistakes.is_empty() || !error.path.is_empty() {
                mistakes.push(error.with_file(file));
            }
            if !is_repaired {
                break;
            }
        }
        mistakes.sort_by_key(|mistake| super::line_of(&mistake.origin));
        Err(Mistakes(mistakes))
    }

    /// A file of claims about the sweep, with the scale and the stage of the sweep if the file has any: the claims of the same sweep
    /// file, changed since, or those of a file that has claims alone.
    pub fn claims_source(&self, text: &str, file: &str) -> SpecSource {
        let document = parse_document(text).unwrap_or_default();
        let scale = self.scales.chosen.as_deref();
        let stage = self.stages.chosen.as_deref();
        let settings = settings_with_scale(&[], scale.filter(|_| document.get(SCALE).is_some()));
        let settings =
            settings_with_stage(&settings, stage.filter(|_| document.get(STAGE).is_some()));
        SpecSource {
            file: file.to_owned(),
            text: text.to_owned(),
            settings,
            ..SpecSource::default()
        }
    }

    fn expand_claims_document(&self, document: &SpecTable) -> Result<ExpandedClaims, SpecError> {
        let section = ClaimSection::read_document(document)?;
        section.refuse_hidden_fields(&self.grid)?;
        let Ok(own) = &self.claims else {
            return self.expand_claims(&section);
        };
        let section = section.with_quantities_of(own);
        let mut expanded = self.expand_claims(&section)?;
        for found in &mut expanded.claims {
            found.redefinition = section.describe_redefinition(&found.claim, own);
        }
        Ok(expanded)
    }
}
