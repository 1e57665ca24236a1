//! Claims about labels that a program reported, against NumPy, and what they refuse to compare.

use ergodic_common::ids::{DatasetHash, SweepNumber};
use ergodic_common::trial::{MetricCurve, Outcome, Predictions};
use ergodic_common::{TrialKey, TrialResult};

use super::label_tests::drawn_predictions;
use super::tests::{assert_near, oracle};
use super::{ClaimQuery, ClaimVerdict, JudgedEffect};
use crate::analysis::RowSource;
use crate::analysis::tests::stored_results;
use crate::store::ReadableStore as _;

const CELLS: &str = "where = 'c == 2'\nto = 'c == 1'\nbelow = 1";

/// The trial of a program, with the predictions of the fixture.
fn trial(cell: u64, repeat: u32) -> TrialResult {
    TrialResult {
        metrics: vec![1.0],
        curve: MetricCurve {
            steps: vec![100],
            values: vec![1.0],
        },
        predictions: drawn_predictions(cell, repeat),
        ..TrialResult::completed(TrialKey::new(cell, repeat))
    }
}

/// Judges a claim about labels over 12 repeats of each cell, which `change` may change.
fn judge(keys: &str, change: impl Fn(&mut TrialResult)) -> JudgedEffect {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let trials = (0..3).flat_map(|cell| (0..12).map(move |repeat| trial(cell, repeat)));
    let results = trials.map(|mut result| {
        change(&mut result);
        result
    });
    let text = format!(
        "name = 'p'\nrepeats = 12\n[program]\ncommand = ['x']\nmetrics = {{ loss = 'min' }}\n[grid]\nc = [1, 2, 4]\n\
         [[claim]]\nname = 'c'\nform = 'labels'\n{keys}\n"
    );
    let (store, spec) = stored_results(folder.path(), text, results.collect());
    let readers = store.open_readers(2).expect("readers");
    let rows = RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    };
    let query = ClaimQuery::new(&spec, None).expect("a claim");
    let mut verdicts = query.judge(rows).expect("verdicts");
    verdicts.swap_remove(0).judged
}

/// Keeps the predictions of some steps alone.
fn keep_steps(result: &mut TrialResult, steps: &[u64]) {
    let Predictions {
        steps: old,
        classes,
    } = std::mem::take(&mut result.predictions);
    let points = classes.len() / old.len();
    for (step, row) in old.into_iter().zip(classes.chunks_exact(points)) {
        if steps.contains(&step) {
            result.predictions.steps.push(step);
            result.predictions.classes.extend(row);
        }
    }
}

#[test]
fn distances_of_reported_labels_are_those_of_numpy() {
    let oracle = &oracle()["labels"];
    for (key, keys) in [
        ("by_point", "at = '50 steps'"),
        ("joint", "at = '50 steps'\njoint = true"),
        ("by_point_relative", "relative_to = '50 steps'"),
        (
            "joint_relative",
            "at = 'final'\nrelative_to = '50 steps'\njoint = true",
        ),
        (
            "by_point_relative",
            "at = '100 steps'\nrelative_to = '50 steps'",
        ),
    ] {
        let found = judge(&format!("{CELLS}\n{keys}"), |_| {});
        assert_near(&found, &oracle[key], key);
        assert_eq!(found.n, 12);
    }
}

#[test]
fn trials_without_predictions_are_missing_and_said_to_be() {
    let fewer = judge(&format!("{CELLS}\nat = '50 steps'"), |result| {
        if [3, 7].contains(&result.key.repeat.0) && result.key.cell.0 == 0 {
            keep_steps(result, &[100]);
        }
    });
    assert_eq!(fewer.n, 10);
    let said = |judged: &JudgedEffect, words: &str| {
        let found = judged.notes.iter().any(|note| note.contains(words));
        assert!(found, "{words}: {judged:?}");
    };
    said(&fewer, "2 without predictions at step 50");

    let none = judge(&format!("{CELLS}\nat = '50 steps'"), |result| {
        result.predictions = Predictions::default();
    });
    assert_eq!(none.verdict, ClaimVerdict::NotEnough);
    said(&none, "predictions of 3 repeats");
    said(&none, "24 without predictions at step 50");
    assert_eq!(none.effect, None);

    // The last predictions are those at the end: a trial that diverged came to none.
    let early = judge(CELLS, |result| match result.key.repeat.0 {
        5 => keep_steps(result, &[50]),
        6 if result.key.cell.0 == 1 => {
            keep_steps(result, &[50]);
            result.outcome = Outcome::Diverged { step: 60 };
            result.metrics = vec![f64::NAN];
        }
        _ => {}
    });
    assert_eq!(early.n, 11, "{early:?}");
    said(&early, "of steps 50 to 100");
    said(&early, "1 diverged");
}

#[test]
fn different_numbers_of_points_are_not_compared() {
    for (repeats, words) in [
        (1..12, "c=1 20, and the trial 0/1 19"),
        (0..12, "c=2 20, and c=1 19"),
    ] {
        let found = judge(&format!("{CELLS}\nat = '50 steps'"), |result| {
            if result.key.cell.0 == 0 && repeats.contains(&result.key.repeat.0) {
                keep_steps(result, &[50]);
                result.predictions.classes.truncate(19);
            }
        });
        assert_eq!(
            (found.verdict, found.effect),
            (ClaimVerdict::NotEnough, None)
        );
        assert!(found.notes[0].contains(words), "{words}: {found:?}");
    }
}
