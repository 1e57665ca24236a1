//! The numbers of repeats of the experiments that ship, which are simulated.

use std::collections::BTreeSet;

use ergodic_common::quantity::Claim;

use super::laws::ALPHA;
use crate::analysis::claims::shipped_tests::read_shipped_sweeps;

/// The numbers of repeats with which the claims of `sweeps/intrinsic-lr` that `takes` names are judged at the scales of a desk
/// and of the gate. That of the paper has the same ones, but for those of 250 and 500.
pub(super) fn shipped_repeats(takes: &dyn Fn(&Claim) -> bool) -> BTreeSet<usize> {
    let mut counts = BTreeSet::new();
    let sweeps = read_shipped_sweeps();
    for sweep in sweeps.iter().filter(|sweep| sweep.scale != "paper") {
        let expanded = sweep.expand_claims();
        let claims = expanded.claims.iter().map(|expanded| &expanded.claim);
        for claim in claims.filter(|claim| takes(claim)) {
            assert!(claim.alpha == ALPHA, "{}: simulate its alpha", claim.name);
            counts.insert(sweep.spec.repeats as usize);
        }
    }
    counts
}

#[test]
fn no_claim_that_ships_lacks_its_cells_or_a_part_of_its_windows() {
    for sweep in read_shipped_sweeps() {
        let lacking = sweep.spec.find_lacking_claims();
        assert!(lacking.is_empty(), "{}: {lacking:?}", sweep.name);
    }
}
