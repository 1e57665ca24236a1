//! Says which claims set cells against each other by a loss that is another quantity in some of them.

use std::collections::BTreeMap;

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::quantity::{ClaimEffect, ClaimForm, ExpandedClaim, ExpandedClaims};
use ergodic_common::spec::misleading::{describe_loss_quantity, find_mixed_losses};

/// The losses that are not the same quantity in all cells, and what they are in each.
pub(super) struct LossNotes<'a> {
    spec: &'a Spec,
    /// The quantities that claims use.
    claims: &'a ExpandedClaims,
    /// What a loss is, by its column and the cell.
    kinds: BTreeMap<(usize, CellIndex), String>,
}

impl<'a> LossNotes<'a> {
    /// Looks at the cells that claims set against each other.
    pub(super) fn new(spec: &'a Spec, claims: &'a ExpandedClaims) -> Self {
        let metrics = spec.measure.metrics.iter().enumerate();
        let mixed = metrics.filter(|(_, metric)| find_mixed_losses(spec, metric).is_some());
        let mixed: Vec<usize> = mixed.map(|(column, _)| column).collect();
        let mut notes = Self {
            spec,
            claims,
            kinds: BTreeMap::new(),
        };
        for expanded in claims.claims.iter().filter(|claim| compares_numbers(claim)) {
            let columns = claims.program.metrics_of(&expanded.roots);
            for column in columns.into_iter().filter(|at| mixed.contains(at)) {
                notes.add_cells(column, expanded);
            }
        }
        notes
    }

    fn add_cells(&mut self, column: usize, expanded: &ExpandedClaim) {
        let metric = &self.spec.measure.metrics[column];
        for cell in expanded.effects.iter().flat_map(ClaimEffect::all_cells) {
            if !self.kinds.contains_key(&(column, cell))
                && let Some(kind) = describe_loss_quantity(self.spec, metric, cell)
            {
                self.kinds.insert((column, cell), kind);
            }
        }
    }

    /// Describes each loss that an effect's cells do not share.
    pub(super) fn describe_effect(
        &self,
        expanded: &ExpandedClaim,
        effect: &ClaimEffect,
    ) -> Vec<String> {
        if self.kinds.is_empty() || !compares_numbers(expanded) {
            return Vec::new();
        }

        let columns = self.claims.program.metrics_of(&expanded.roots);
        let mut notes = Vec::new();
        for column in columns {
            let mut kinds: Vec<&str> = Vec::new();
            for cell in effect.all_cells() {
                let kind = self.kinds.get(&(column, cell)).map(String::as_str);
                kinds.extend(kind.filter(|kind| !kinds.contains(kind)));
            }
            if kinds.len() > 1 {
                let name = self.spec.measure.metrics[column].name();
                let kinds = kinds.join(", ");
                notes.push(format!("{name} is another quantity in each cell: {kinds}"));
            }
        }
        notes
    }
}

/// Whether a claim sets numbers of several cells against each other.
fn compares_numbers(expanded: &ExpandedClaim) -> bool {
    !matches!(expanded.claim.form, ClaimForm::Bits | ClaimForm::Labels)
        && expanded
            .effects
            .iter()
            .any(|effect| effect.all_cells().count() > 1)
}

#[cfg(test)]
mod tests {
    use ergodic_common::spec::SpecSource;

    use super::*;

    /// The notes on the only effect of a claim in a sweep of two losses.
    fn notes(keys: &str) -> Vec<String> {
        let source = SpecSource {
            text: format!(
                "name = \"x\"\nrepeats = 3\nmodel = {{ kind = \"mlp\" }}\n[train]\nsteps = 10\nbatch_size = 8\nlr = 0.1\n\
                 [grid]\ntrain.loss = [\"cross-entropy\", \"mse\"]\n[measure]\nmetrics = [\"test_acc\", \"test_loss\"]\n\
                 [[claim]]\nname = \"c\"\n{keys}\n"
            ),
            ..SpecSource::default()
        };
        let spec = Spec::read_new(&source).unwrap_or_else(|e| panic!("{e}"));
        let section = spec.claims.as_ref().expect("a claim");
        let claims = spec.expand_claims(section).expect("cells");
        let expanded = &claims.claims[0];
        LossNotes::new(&spec, &claims).describe_effect(expanded, &expanded.effects[0])
    }

    #[test]
    fn losses_of_different_kinds_are_told_where_they_are_set_against_each_other() {
        let kinds = "test_loss is another quantity in each cell: mse, cross-entropy";
        let to = "to = 'loss == \"cross-entropy\"'";
        let loss = "of = 'at(test_loss, end)'";
        assert_eq!(
            notes(&format!("form = 'ratio'\n{to}\n{loss}\nabove = 0.5")),
            [kinds]
        );
        assert_eq!(
            notes(&format!(
                "{to}\nof = 'at(test_loss - other(test_loss), end)'\nabove = 0"
            )),
            [kinds]
        );
        let spread = notes(&format!("form = 'spread'\n{loss}\nbelow = 2"));
        assert_eq!(spread.len(), 1, "{spread:?}");

        for keys in [
            format!("{loss}\nwhere = 'loss == \"mse\"'\nabove = 0.5"),
            format!("form = 'ratio'\n{to}\nof = 'at(test_acc, end)'\nabove = 0.5"),
        ] {
            assert_eq!(notes(&keys), [""; 0], "{keys}");
        }
    }
}
