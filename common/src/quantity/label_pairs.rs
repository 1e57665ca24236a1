//! The pairs of cells whose predicted labels a claim compares, and the moments at which it does.

use std::fmt::Write as _;

use crate::ids::CellIndex;
use crate::quantity::claim::Claim;
use crate::quantity::expand::{ClaimEffect, ClaimExpander, MAX_EFFECTS, describe_values};
use crate::spec::measure::Probe;
use crate::spec_file::error::SpecError;

/// Maximum number of moments that an error lists.
const MAX_LISTED: usize = 10;

impl ClaimExpander<'_> {
    /// Pairs each cell with its reference, or with every cell that differs from it along some axes alone.
    ///
    /// # Errors
    /// There is nothing to compare, or the sweep keeps no predictions at a moment.
    pub(super) fn pair_for_labels(
        &self,
        claim: &Claim,
        cells: &[CellIndex],
    ) -> Result<Vec<ClaimEffect>, SpecError> {
        let effects = if claim.over.is_empty() {
            self.pair_with_references(claim, cells)?
        } else {
            self.pair_along_axes(claim, cells)?
        };
        self.check_moments(claim, &effects)?;
        Ok(effects)
    }

    fn pair_along_axes(
        &self,
        claim: &Claim,
        cells: &[CellIndex],
    ) -> Result<Vec<ClaimEffect>, SpecError> {
        let groups = self.group_cells(claim, cells)?;
        if let Some(alone) = groups.iter().find(|group| group.len() < 2) {
            let message = format!(
                "{} stands alone: form = \"labels\" compares two cells at least",
                describe_values(self.grid, alone[0])
            );
            return Err(claim.lack_at("over", message));
        }

        let pairs = groups
            .iter()
            .map(|group| group.len() * (group.len() - 1) / 2);
        let count: usize = pairs.sum();
        if count > MAX_EFFECTS {
            let message = format!(
                "it compares {count} pairs of cells; at most {MAX_EFFECTS} are possible: select fewer with where"
            );
            return Err(claim.error_at("over", message));
        }

        let pairs = groups.iter().flat_map(|group| {
            let places = 0..group.len();
            places.flat_map(move |a| group[a + 1..].iter().map(move |b| (group[a], *b)))
        });
        Ok(pairs
            .map(|(cell, other)| ClaimEffect {
                reference: Some(other),
                ..ClaimEffect::of_cell(cell)
            })
            .collect())
    }

    fn check_moments(&self, claim: &Claim, effects: &[ClaimEffect]) -> Result<(), SpecError> {
        if self.grid.is_of_program() {
            return check_reported_moments(claim);
        }
        let Some(probe) = self.probe else {
            if self.grid.has_targets() {
                let message = "predictions are classes, and images have targets ('y_train' is F32): compare test_loss by another form";
                return Err(claim.error_at("form", message));
            }
            let message = "the sweep keeps no predictions, whose labels are compared: add probe = { points = 1000 } to [measure]";
            return Err(claim.error_at("form", message));
        };

        let moments = [("at", Some(claim.at)), ("relative_to", claim.relative_to)];
        let cells = effects.iter().flat_map(ClaimEffect::all_cells);
        for cell in self.choose_checked_cells(cells, true) {
            let Ok(config) = self.grid.resolve_config(cell) else {
                continue;
            };
            let kept = probe.steps_in_trial(&config);
            for (key, moment) in moments {
                if let Some(moment) = moment
                    && !kept.contains(&moment.step_in_trial(&config))
                {
                    let message = format!(
                        "no predictions are kept at \"{moment}\", but at {}",
                        list_moments(probe)
                    );
                    return Err(claim.lack_at(key, message));
                }
            }
        }

        Ok(())
    }
}

/// Refuses moments that a program's trials do not have: which steps they report, nobody knows before.
fn check_reported_moments(claim: &Claim) -> Result<(), SpecError> {
    for (key, moment) in [("at", Some(claim.at)), ("relative_to", claim.relative_to)] {
        let wrong = moment.filter(|moment| !moment.is_of_reported_steps());
        if let Some(moment) = wrong {
            let message = format!(
                "predictions of programs are at the steps that they report: write \"1000 steps\" or \"final\", found \"{moment}\""
            );
            return Err(claim.error_at(key, message));
        }
    }
    Ok(())
}

/// The moments of the probe, as written.
fn list_moments(probe: &Probe) -> String {
    let mut text = String::new();
    for (at, moment) in probe.at.iter().take(MAX_LISTED).enumerate() {
        let separator = if at == 0 { "" } else { ", " };
        write!(text, "{separator}\"{moment}\"").expect("a text can be written to");
    }
    let more = probe.at.len().saturating_sub(MAX_LISTED);
    if more > 0 {
        write!(text, " and {more} more").expect("a text can be written to");
    }
    text
}
