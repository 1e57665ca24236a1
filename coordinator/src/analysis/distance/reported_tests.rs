//! Distances of programs: what those of trials are that are trained here, and what they refuse to compare.

use ergodic_common::ids::{CellIndex, DatasetHash, SweepNumber};
use ergodic_common::trial::{MetricCurve, Outcome, Predictions};
use ergodic_common::{TrialKey, TrialResult};

use super::query::{DistanceParams, DistanceQuery};
use super::types::CellDistance;
use crate::analysis::lookup::CellSelector;
use crate::analysis::row_source::RowSource;
use crate::analysis::tests::stored_results;
use crate::store::ReadableStore as _;

const PROGRAM: &str = "name = 'p'\nrepeats = 6\n[program]\ncommand = ['x']\nmetrics = { loss = 'min' }\n[grid]\nlr = [0.1, 0.2, 0.3]\n";
const TRAINING: &str = "name = 'p'\nrepeats = 6\n[data]\ndataset = 'glyphs'\n[model]\nkind = 'mlp'\n[train]\nsteps = 20\n\
                        batch_size = 8\n[grid]\nlr = [0.1, 0.2, 0.3]\n[measure]\nmetrics = ['test_acc']\n\
                        probe = { points = 3, at = ['10 steps', 'final'] }\n";

/// A trial with predictions of three points after 10 and 20 steps.
fn trial(cell: u64, repeat: u32) -> TrialResult {
    let label = |step: u64, point: u64| {
        let mixed = (cell + 2) * (u64::from(repeat) + 3) * (point + 5) + step;
        (mixed % 4) as u8
    };
    let classes = [10, 20].map(|step| (0..3).map(move |point| label(step, point)));
    TrialResult {
        metrics: vec![1.0],
        curve: MetricCurve {
            steps: vec![20],
            values: vec![1.0],
        },
        predictions: Predictions {
            steps: vec![10, 20],
            classes: classes.into_iter().flatten().collect(),
        },
        ..TrialResult::completed(TrialKey::new(cell, repeat))
    }
}

/// The distances of a sweep with six repeats of three cells, which `change` may change; or why there are none.
fn measure(
    text: &str,
    (pair, at): (Option<[u64; 2]>, &str),
    change: impl Fn(&mut TrialResult),
) -> Result<(u32, Vec<CellDistance>), String> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let trials = (0..3).flat_map(|cell| (0..6).map(move |repeat| trial(cell, repeat)));
    let results = trials.map(|mut result| {
        change(&mut result);
        result
    });
    let (store, spec) = stored_results(folder.path(), text.to_owned(), results.collect());
    let readers = store.open_readers(2).expect("readers");
    let rows = RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    };
    let cells = pair.into_iter().flatten();
    let between: Vec<CellSelector> = cells
        .map(|cell| CellSelector::Number(CellIndex(cell)))
        .collect();
    let params = DistanceParams {
        between: &between,
        at,
        permutations: 999,
    };
    let query = DistanceQuery::new(&spec, &params).map_err(|error| error.to_string())?;
    let query = query
        .resolve_points(rows)
        .map_err(|error| error.to_string())?;
    let distances = query.compute_distances(rows);
    let distances = distances.map_err(|error| error.to_string())?;
    Ok((query.point_count(), distances))
}

/// What does not depend on random splits, whose stream is that of the cells of a sweep.
fn exact_part(distances: Vec<CellDistance>) -> Vec<CellDistance> {
    let exact = distances.into_iter().map(|row| CellDistance {
        distance: None,
        null: None,
        ..row
    });
    exact.collect()
}

#[test]
fn programs_are_as_far_apart_as_trainings_with_the_same_predictions() {
    for (pair, at, rows) in [
        (Some([0, 1]), "", 2),
        (Some([2, 1]), "10 steps", 1),
        (Some([0, 2]), "20 steps", 1),
        (None, "10 steps", 6),
    ] {
        let [ours, theirs] = [PROGRAM, TRAINING].map(|text| {
            let (points, rows) = measure(text, (pair, at), |_| {}).expect("distances");
            assert_eq!(points, 3);
            exact_part(rows)
        });
        assert_eq!(ours.len(), rows);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            // Of trainings, the last step is called by its name.
            let at = theirs.at.replace("final", "20 steps");
            assert_eq!(
                *ours,
                CellDistance {
                    at,
                    ..theirs.clone()
                }
            );
        }
    }
    let [ours, theirs] = [PROGRAM, TRAINING].map(|text| {
        let (_, rows) = measure(text, (None, ""), |_| {}).expect("distances");
        exact_part(rows)
    });
    assert_eq!(ours, theirs);
    assert_eq!(ours[0].at, "final");
}

#[test]
fn trials_without_predictions_are_left_out_and_said_to_be() {
    let lose = |result: &mut TrialResult| match (result.key.cell.0, result.key.repeat.0) {
        (0, 1) => result.predictions = Predictions::default(),
        (1, 2) => result.outcome = Outcome::Diverged { step: 15 },
        (1, 4) => {
            result.predictions = Predictions {
                steps: vec![10],
                classes: vec![1, 2, 3],
            }
        }
        _ => {}
    };
    let (_, last) = measure(PROGRAM, (Some([0, 1]), "final"), lose).expect("distances");
    assert_eq!(last[0].n, 4);
    for words in [
        "left out of lr=0.1: 1 without predictions",
        "left out of lr=0.2: 1 diverged",
        "of steps 10 to 20",
    ] {
        assert!(last[0].note.contains(words), "{words}: {last:?}");
    }
    let (_, early) = measure(PROGRAM, (Some([0, 1]), "10 steps"), lose).expect("distances");
    assert_eq!(early[0].n, 5);
    assert!(!early[0].note.contains("diverged"), "{early:?}");
}

#[test]
fn what_cannot_be_compared_is_refused_with_the_reason() {
    let none = |result: &mut TrialResult| result.predictions = Predictions::default();
    let odd = |result: &mut TrialResult| {
        if result.key == TrialKey::new(1, 3) {
            result.predictions.classes = vec![0; 8];
        }
    };
    let apart = |result: &mut TrialResult| {
        if result.key.cell.0 == 1 {
            result.predictions.steps = vec![11, 21];
        }
    };
    let refused = |asked: (Option<[u64; 2]>, &str), change: &dyn Fn(&mut TrialResult)| {
        measure(PROGRAM, asked, change).expect_err("nothing can be compared")
    };
    for (found, words) in [
        (
            refused((None, ""), &none),
            "no trial of these cells has reported predictions",
        ),
        (
            refused((Some([0, 1]), ""), &odd),
            "the trial 0/0 3, and 1/3 4",
        ),
        (
            refused((Some([0, 1]), ""), &apart),
            "no step in common: lr=0.1 at \"10 steps\", \"20 steps\"; lr=0.2 at \"11 steps\"",
        ),
        (
            refused((Some([0, 1]), "15 steps"), &|_| {}),
            "at \"15 steps\", only at \"10 steps\", \"20 steps\"",
        ),
        (
            refused((Some([0, 1]), "2 epochs"), &|_| {}),
            "at the steps that they report",
        ),
        (
            refused((None, "50 %"), &|_| {}),
            "at the steps that they report",
        ),
    ] {
        assert!(found.contains(words), "{words}: {found}");
    }
    // A cell that is not compared may have other points.
    let others = measure(PROGRAM, (Some([0, 2]), ""), odd).expect("distances");
    assert_eq!(others.1.len(), 2);
}
