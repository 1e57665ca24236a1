//! The experiments that ship, as far as they can be checked without a trial. A changed file is checked as it is.

use std::fs;
use std::path::{Path, PathBuf};

use ergodic_common::Spec;
use ergodic_common::quantity::{
    Claim, ClaimForm, ClaimRegion, ExpandedClaims, FigureSubject, find_cells_meeting,
};
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::stage::format_stage_choice;

use super::tests::Experiment;
use crate::estimators::binomial::clopper_pearson;

/// A sweep of an experiment in `sweeps/intrinsic-lr`: its file or a stage of it, at a scale.
pub(super) struct ShippedSweep {
    /// The file, the stage and the scale, for messages.
    pub(super) name: String,
    pub(super) scale: String,
    pub(super) spec: Spec,
}

impl ShippedSweep {
    /// Its claims, with their cells.
    pub(super) fn expand_claims(&self) -> ExpandedClaims {
        let name = &self.name;
        let claims = self.spec.claims.clone();
        let claims = claims.unwrap_or_else(|e| panic!("{name}: {e}"));
        let expanded = self.spec.expand_claims(&claims);
        expanded.unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

/// Reads all sweeps of all experiments that ship, at each of their scales.
pub(super) fn read_shipped_sweeps() -> Vec<ShippedSweep> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sweeps/intrinsic-lr");
    let files = fs::read_dir(&folder).expect("the experiments are in the repository");
    let paths = files.map(|entry| entry.expect("the folder can be read").path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "toml"))
        .collect();
    paths.sort();
    paths.iter().flat_map(|path| read_variants(path)).collect()
}

/// The sweeps of a file: itself and its stages, at each scale.
fn read_variants(path: &Path) -> Vec<ShippedSweep> {
    let text = fs::read_to_string(path).expect("the file can be read");
    let read = |settings: &[String]| {
        let source = SpecSource {
            file: path.display().to_string(),
            text: text.clone(),
            settings: settings.to_vec(),
            ..SpecSource::default()
        };
        Spec::read_new(&source).unwrap_or_else(|e| panic!("{settings:?}: {e}"))
    };
    let main = read(&[]);
    assert!(
        !main.scales.names.is_empty(),
        "{} has no scale",
        path.display()
    );

    let mut sweeps = Vec::new();
    for scale in &main.scales.names {
        let stages = main.stages.names.iter().map(Some);
        for stage in std::iter::once(None).chain(stages) {
            let mut settings = vec![format!("scale={scale}")];
            settings.extend(stage.map(|stage| format_stage_choice(stage)));
            let spec = read(&settings);
            sweeps.push(ShippedSweep {
                name: format!("{} at the scale {scale}", spec.name),
                scale: scale.clone(),
                spec,
            });
        }
    }
    sweeps
}

/// Whether a claim that counts trials would agree if all of `trials` were as it says.
fn can_agree(claim: &Claim, trials: u64) -> bool {
    let (_, most) = clopper_pearson(0, trials, claim.alpha);
    let (least, _) = clopper_pearson(trials, trials, claim.alpha);
    if claim.form == ClaimForm::Extreme {
        return match claim.is_control {
            false => most <= claim.chance,
            true => least > claim.chance,
        };
    }
    match (claim.region, claim.is_control) {
        (Some(ClaimRegion::Above(bound)), false) | (Some(ClaimRegion::Below(bound)), true) => {
            least > bound
        }
        (Some(ClaimRegion::Below(bound)), false) | (Some(ClaimRegion::Above(bound)), true) => {
            most < bound
        }
        (region, _) => panic!("{}: no rule for {region:?}", claim.name),
    }
}

#[test]
fn every_claim_of_every_scale_can_be_decided() {
    let sweeps = read_shipped_sweeps();
    let mut claims = 0;
    let mut counted = 0;
    for sweep in &sweeps {
        let repeats = u64::from(sweep.spec.repeats);
        for expanded in sweep.expand_claims().claims {
            let claim = &expanded.claim;
            let place = format!("{}: {}", sweep.name, claim.name);
            assert_eq!(expanded.lack, None, "{place}");
            let mut effects = expanded.effects.iter();
            assert!(
                effects.all(|effect| !effect.has_too_few_steps),
                "{place}: a cell does not meet what it needs"
            );
            assert!(
                repeats >= u64::from(claim.min_repeats),
                "{place}: {repeats} repeats"
            );
            claims += 1;

            if claim.form.counts_trials() {
                assert!(can_agree(claim, repeats), "{place}: {repeats} repeats");
                counted += 1;
            }
        }
    }
    assert!(
        claims >= 200 && counted >= 30,
        "{claims} claims, {counted} that count trials"
    );
}

#[test]
fn every_experiment_has_figures_of_cells_that_each_scale_has() {
    for sweep in read_shipped_sweeps() {
        let name = &sweep.name;
        let section = sweep.spec.figures.as_ref();
        let figures = section.map_or(&[][..], |section| section.figures.as_slice());
        // Stages are about trials of others, which have no curves.
        assert!(
            sweep.spec.stages.chosen.is_some() || !figures.is_empty(),
            "{name}"
        );

        for figure in figures {
            let FigureSubject::Curves { condition, .. } = &figure.subject else {
                continue;
            };
            let cells = find_cells_meeting(&sweep.spec.grid, condition.as_deref());
            assert!(
                cells.is_ok_and(|cells| !cells.is_empty()),
                "{name}: the figure '{}' has no cell",
                figure.name
            );
        }
    }
}

fn read_claim(keys: &str) -> Claim {
    let text = format!("[[claim]]\nname = 'c'\n{keys}\n");
    let experiment = Experiment::new("", &text);
    experiment.expanded.claims[0].claim.clone()
}

#[test]
fn repeats_that_cannot_decide_are_found() {
    let extreme =
        read_claim("form = 'extreme'\nof = 'at(train_loss, end)'\nbelow = 1\nchance = 0.2");
    assert!(can_agree(&extreme, 14) && !can_agree(&extreme, 13));
    let share = read_claim("form = 'share'\nof = 'at(train_loss, end) < 1'\nabove = 0.8");
    assert!(can_agree(&share, 14) && !can_agree(&share, 13));
}
