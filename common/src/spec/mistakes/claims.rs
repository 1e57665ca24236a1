//! Mistakes of claims and quantities, each of which can be dropped with what uses it.

use super::Mistakes;
use crate::quantity::{ClaimSection, ExpandedClaims};
use crate::spec::Spec;
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue, parse_document};

/// Whether an error is about a claim or a quantity.
pub(super) fn is_about_claims(path: &str) -> bool {
    let word = path.split(['.', ' ', '[']).next();
    matches!(word, Some("claim" | "quantity"))
}

/// Drops the claim or quantity that an error is about, and all that use the quantity; returns whether anything was dropped.
pub(super) fn drop_claim(document: &mut SpecTable, error: &SpecError) -> bool {
    match error.path.strip_prefix("quantity.") {
        Some(name) => drop_quantity(document, name),
        None => {
            let claims = claim_list(document);
            let place =
                claims.and_then(|claims| Some((find_claim(claims, &error.origin)?, claims)));
            place.is_some_and(|(at, claims)| {
                claims.remove(at);
                true
            })
        }
    }
}

fn claim_list(document: &mut SpecTable) -> Option<&mut Vec<SpecNode>> {
    let (_, node) = document.0.iter_mut().find(|(key, _)| key == "claim")?;
    match &mut node.value {
        SpecValue::List(claims) => Some(claims),
        _ => None,
    }
}

/// The claim that stands at a place, or has a key there.
fn find_claim(claims: &[SpecNode], place: &Origin) -> Option<usize> {
    claims.iter().position(|claim| {
        let SpecValue::Table(table) = &claim.value else {
            return false;
        };
        claim.origin == *place || table.0.iter().any(|(_, node)| node.origin == *place)
    })
}

fn drop_quantity(document: &mut SpecTable, name: &str) -> bool {
    let mut open = vec![name.to_owned()];
    let mut has_dropped = false;
    while let Some(name) = open.pop() {
        if let Some(claims) = claim_list(document) {
            claims.retain(|claim| !claim.value.mentions(&name));
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
    /// Reads a file of claims about the sweep and finds their cells. They may use the quantities of the sweep, too.
    ///
    /// # Errors
    /// Names all that is wrong, with file, line and key, as far as one mistake does not hide another.
    pub fn read_claims_file(&self, text: &str, file: &str) -> Result<ExpandedClaims, Mistakes> {
        let mut document = match parse_document(text) {
            Ok(document) => document,
            Err(error) => return Err(Mistakes(vec![error.with_file(file)])),
        };

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

    fn expand_claims_document(&self, document: &SpecTable) -> Result<ExpandedClaims, SpecError> {
        let section = ClaimSection::read_document(document)?;
        let section = match &self.claims {
            Ok(own) => section.with_quantities_of(own),
            Err(_) => section,
        };
        self.expand_claims(&section)
    }
}
