//! The numbers of repeats of the experiments that ship, which are simulated. A changed file is simulated as it is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ergodic_common::Spec;
use ergodic_common::quantity::Claim;
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::stage::format_stage_choice;

use super::laws::ALPHA;

/// The numbers of repeats with which the claims of `sweeps/intrinsic-lr` that `takes` names are judged at the scales of a desk
/// and of the gate. That of the paper has the same ones, but for one of 500.
pub(super) fn shipped_repeats(takes: &dyn Fn(&Claim) -> bool) -> BTreeSet<usize> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sweeps/intrinsic-lr");
    let mut counts = BTreeSet::new();
    for entry in fs::read_dir(&folder).expect("the experiments are in the repository") {
        let path = entry.expect("the folder can be read").path();
        if path.extension().is_none_or(|suffix| suffix != "toml") {
            continue;
        }

        for spec in read_variants(&path, |scale| scale != "paper") {
            let claims = spec.claims.clone().unwrap_or_else(|e| panic!("{e}"));
            let expanded = spec
                .expand_claims(&claims)
                .unwrap_or_else(|e| panic!("{e}"));
            let claims = expanded.claims.iter().map(|expanded| &expanded.claim);
            for claim in claims.filter(|claim| takes(claim)) {
                assert!(claim.alpha == ALPHA, "{}: simulate its alpha", claim.name);
                counts.insert(spec.repeats as usize);
            }
        }
    }
    counts
}

#[test]
fn no_claim_that_ships_lacks_its_cells_or_a_part_of_its_windows() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sweeps/intrinsic-lr");
    for entry in fs::read_dir(&folder).expect("the experiments are in the repository") {
        let path = entry.expect("the folder can be read").path();
        if path.extension().is_some_and(|suffix| suffix == "toml") {
            for spec in read_variants(&path, |_| true) {
                let lacking = spec.find_lacking_claims();
                assert!(lacking.is_empty(), "{}: {lacking:?}", path.display());
            }
        }
    }
}

/// The sweeps of a file: itself and its stages, at each scale that `takes` names.
fn read_variants(path: &Path, takes: impl Fn(&str) -> bool) -> Vec<Spec> {
    let text = fs::read_to_string(path).expect("the file can be read");
    let read = |settings: Vec<String>| {
        let source = SpecSource {
            file: path.display().to_string(),
            text: text.clone(),
            settings,
            ..SpecSource::default()
        };
        Spec::read_new(&source).unwrap_or_else(|e| panic!("{e}"))
    };
    let main = read(Vec::new());
    let scales = main.scales.names.iter().filter(|scale| takes(scale));
    let scales: Vec<&String> = scales.collect();
    assert!(!scales.is_empty(), "{} has no scale", path.display());

    let variants = scales.into_iter().flat_map(|scale| {
        let of_scale = vec![format!("scale={scale}")];
        let of_stages = main
            .stages
            .names
            .iter()
            .map(|stage| vec![format!("scale={scale}"), format_stage_choice(stage)]);
        std::iter::once(of_scale)
            .chain(of_stages)
            .collect::<Vec<_>>()
    });
    variants.map(read).collect()
}
