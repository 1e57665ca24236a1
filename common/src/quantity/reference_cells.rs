//! The cells that others are set against.

use crate::grid::Grid;
use crate::ids::CellIndex;
use crate::quantity::cell_names::NamedCondition;
use crate::quantity::claim::{Claim, ClaimForm, TrialPooling};
use crate::quantity::expand::{ClaimEffect, ClaimExpander, describe_values};
use crate::quantity::program::NodeIndex;
use crate::spec_file::error::SpecError;

impl ClaimExpander<'_> {
    /// Checks that a claim names reference cells if its quantity is set against them, and not otherwise.
    ///
    /// # Errors
    /// A quantity is set against reference cells that the claim does not name, or the other way round.
    pub(super) fn check_other(&self, claim: &Claim, roots: &[NodeIndex]) -> Result<(), SpecError> {
        use ClaimForm::{Extreme, Share, Value};
        let uses_other = self.uses_other(roots);
        let takes_other = matches!(claim.form, Value | Share | Extreme);
        match &claim.to {
            _ if uses_other && !takes_other => {
                let message =
                    "other(...) stands in claims of form = \"value\", \"share\" or \"extreme\"";
                Err(claim.error_at("of", message))
            }
            None if uses_other => {
                let message = "other(...) is a quantity of the reference cell: add to = \"lr == 0.1\", the cells that others are \
                               set against";
                Err(claim.error_at("to", message))
            }
            _ if uses_other && claim.per == TrialPooling::MeanCurve => {
                let message = "other(...) pairs the trials of two cells: remove it";
                Err(claim.error_at("per", message))
            }
            Some(_) if takes_other && !uses_other => {
                let message = format!(
                    "form = \"{}\" has none unless of has other(...), as in mean(abs(train_loss - other(train_loss))): remove it, \
                     or write form = \"difference\"",
                    claim.form.name()
                );
                Err(claim.error_at("to", message))
            }
            _ => Ok(()),
        }
    }

    /// Sets each cell against the one that meets `to` and has its values of all axes that `to` does not name.
    ///
    /// # Errors
    /// A cell has no such reference, or several.
    pub(super) fn pair_with_references(
        &self,
        claim: &Claim,
        cells: &[CellIndex],
    ) -> Result<Vec<ClaimEffect>, SpecError> {
        let text = claim.to.as_deref().unwrap_or_default();
        let references = self.select_cells(claim, "to", Some(text))?;
        let condition =
            NamedCondition::parse(self.grid, text).map_err(|why| claim.error_at("to", why))?;
        let values = distinct_values(self.grid, &references, &condition.axes(self.grid));

        let mut effects = Vec::new();
        for cell in cells
            .iter()
            .filter(|cell| references.binary_search(cell).is_err())
        {
            let candidates = values.iter().filter_map(|named| {
                let found = self.grid.cell_with_values(*cell, named)?;
                references.binary_search(&found).is_ok().then_some(found)
            });
            let mut candidates: Vec<CellIndex> = candidates.collect();
            candidates.dedup();
            let reference = match (&candidates[..], &references[..]) {
                ([only], _) | (_, [only]) => *only,
                ([], _) => {
                    let message = format!(
                        "no cell that meets it has the other values of {}: name the axes in which they differ",
                        describe_values(self.grid, *cell)
                    );
                    return Err(claim.lack_at("to", message));
                }
                _ => {
                    let message = format!(
                        "{} cells meet it for {}: name one of them",
                        candidates.len(),
                        describe_values(self.grid, *cell)
                    );
                    return Err(claim.error_at("to", message));
                }
            };
            effects.push(ClaimEffect {
                reference: Some(reference),
                ..ClaimEffect::of_cell(*cell)
            });
        }

        if effects.is_empty() {
            let message = "every cell that the claim is about is a reference itself: nothing is left to compare";
            return Err(claim.lack_at("to", message));
        }
        Ok(effects)
    }
}

/// The combinations of values that some cells have on some axes.
fn distinct_values(grid: &Grid, cells: &[CellIndex], axes: &[usize]) -> Vec<Vec<(usize, u64)>> {
    let indices = cells.iter().map(|cell| grid.value_indices(*cell));
    let mut all: Vec<Vec<(usize, u64)>> = indices
        .map(|indices| axes.iter().map(|axis| (*axis, indices[*axis])).collect())
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}
