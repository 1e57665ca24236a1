//! Splits the effects of all claims into batches, so that the numbers of a batch fit into memory.

use std::ops::Range;

use ergodic_common::quantity::{ExpandedClaim, ExpandedClaims, TrialPooling};

use super::design::CLAIM_RESAMPLES;

/// Maximum bytes of the numbers of a batch.
const MAX_BATCH_BYTES: usize = 256 << 20;
/// Approximate bytes that a number of a cell takes for each of its repeats, and otherwise.
const REPEAT_BYTES: usize = 64;
const NUMBER_BYTES: usize = 256;

/// Effects whose numbers are in memory at the same time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct EffectBatch {
    /// Claims, by their places, with ranges of their effects.
    pub(super) parts: Vec<(usize, Range<usize>)>,
}

/// Splits the effects of all claims, in their order.
pub(super) fn split_into_batches(claims: &ExpandedClaims, repeats: u32) -> Vec<EffectBatch> {
    split_by_size(claims, repeats, MAX_BATCH_BYTES)
}

fn split_by_size(claims: &ExpandedClaims, repeats: u32, most: usize) -> Vec<EffectBatch> {
    let mut batches = vec![EffectBatch::default()];
    let mut held = 0;
    for (place, claim) in claims.claims.iter().enumerate() {
        let bytes = number_bytes(claims, claim, repeats);
        for (at, effect) in claim.effects.iter().enumerate() {
            let further = bytes * claim.number_cells(effect).count();
            if held > 0 && held + further > most {
                batches.push(EffectBatch::default());
                held = 0;
            }
            held += further;
            if let Some(batch) = batches.last_mut() {
                batch.add_effect(place, at);
            }
        }
    }
    batches
}

fn number_bytes(claims: &ExpandedClaims, claim: &ExpandedClaim, repeats: u32) -> usize {
    let is_resampled = claim.claim.per == TrialPooling::MeanCurve
        && claim
            .roots
            .iter()
            .any(|root| !claims.program.is_smooth(*root));
    let draws = if is_resampled { CLAIM_RESAMPLES } else { 0 };
    NUMBER_BYTES + REPEAT_BYTES * repeats as usize + draws * size_of::<f64>()
}

impl EffectBatch {
    fn add_effect(&mut self, place: usize, effect: usize) {
        match self.parts.last_mut() {
            Some((last, range)) if *last == place => range.end = effect + 1,
            _ => self.parts.push((place, effect..effect + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::Spec;
    use ergodic_common::spec::SpecSource;

    use super::*;

    #[test]
    fn effects_that_fit_are_in_one_batch_and_all_are_in_some() {
        let text = "name = \"t\"\nrepeats = 5\n[model]\nkind = \"empty\"\n[train]\nsteps = 10\n[grid]\nlr = [1, 2, 3]\n\
                    [[claim]]\nname = 'a'\nof = 'at(test_acc, end)'\nabove = 0\n\
                    [[claim]]\nname = 'b'\nper = 'mean'\nof = 'max(test_acc)'\nabove = 0\n";
        let source = SpecSource {
            text: text.to_owned(),
            ..SpecSource::default()
        };
        let spec = Spec::read_new(&source).unwrap_or_else(|e| panic!("{e}"));
        let claims = spec.claims.clone().unwrap_or_else(|e| panic!("{e}"));
        let claims = spec
            .expand_claims(&claims)
            .unwrap_or_else(|e| panic!("{e}"));

        let whole = EffectBatch {
            parts: vec![(0, 0..3), (1, 0..3)],
        };
        assert_eq!(split_into_batches(&claims, 5), [whole]);

        let resampled = 256 + 64 * 5 + 16_000;
        let parts = |parts: &[(usize, Range<usize>)]| EffectBatch {
            parts: parts.to_vec(),
        };
        assert_eq!(
            split_by_size(&claims, 5, 2 * resampled),
            [parts(&[(0, 0..3), (1, 0..1)]), parts(&[(1, 1..3)])]
        );
        assert_eq!(split_by_size(&claims, 5, 1).len(), 6);
    }
}
