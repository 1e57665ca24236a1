//! Tables of programs, which report each metric at steps of their own.

use ergodic_common::ids::{CellIndex, DatasetHash, SweepNumber};
use ergodic_common::trial::MetricCurve;
use ergodic_common::{TrialKey, TrialResult};

use super::query::{TableParams, TableQuery};
use super::row_source::RowSource;
use super::tests::stored_results;
use super::trial_values::read_cell_trials;
use crate::estimators::rank::TrialEnd;
use crate::store::ReadableStore as _;

const SWEEP: &str = "name = \"p\"\nrepeats = 2\n[program]\ncommand = [\"x\"]\nmetrics = { loss = \"min\", acc = \"max\" }\n[grid]\nlr = [0.1, 0.2]\n";
const GAP: f64 = f64::NAN;

/// A trial with samples after 100, 200, 300 and 400 steps, which have these accuracies.
fn trial(cell: u64, repeat: u32, accuracies: [f64; 4]) -> TrialResult {
    let losses = [4.0, 3.0, 2.0, 1.0];
    let samples = losses.into_iter().zip(accuracies);
    let values: Vec<f64> = samples.flat_map(|(loss, acc)| [loss, acc]).collect();
    let known = accuracies.iter().rev().find(|x| !x.is_nan());
    TrialResult {
        metrics: vec![1.0, *known.expect("an accuracy")],
        curve: MetricCurve {
            steps: vec![100, 200, 300, 400],
            values,
        },
        ..TrialResult::completed(TrialKey::new(cell, repeat))
    }
}

fn with_sweep(work: impl FnOnce(RowSource<'_>)) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let results = vec![
        trial(0, 0, [GAP, 0.9, GAP, 0.5]),
        trial(0, 1, [0.8, GAP, GAP, 0.5]),
        trial(1, 0, [0.1, 0.2, 0.3, 0.4]),
        trial(1, 1, [GAP, GAP, GAP, 0.4]),
    ];
    let (store, spec) = stored_results(folder.path(), SWEEP.to_owned(), results);
    let readers = store.open_readers(2).expect("readers");
    work(RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    });
}

#[test]
fn the_value_at_a_step_is_the_last_one_that_was_reported_by_then() {
    with_sweep(|rows| {
        let params = TableParams {
            metric: "acc",
            at: "300 steps",
            ..TableParams::default()
        };
        let query = TableQuery::new(rows.spec, &params).expect("a query");
        let table = query.compute_table(rows).expect("a table");
        let means: Vec<Option<f64>> = table.iter().map(|entry| entry.summary.mean).collect();
        assert_eq!(means, [Some(f64::midpoint(0.9, 0.8)), Some(0.3)]);

        // A trial that has reported nothing yet has no place among the others.
        let trials = read_cell_trials(&query, rows).expect("trials");
        let ends = |cell: u64| trials[&CellIndex(cell)].ends.clone();
        assert_eq!(
            ends(0),
            [(0, TrialEnd::Completed(0.9)), (1, TrialEnd::Completed(0.8))]
        );
        assert_eq!(ends(1), [(0, TrialEnd::Completed(0.3))]);
    });
}

#[test]
fn quantities_of_a_step_are_in_tables() {
    with_sweep(|rows| {
        let value = |metric: &str| {
            let params = TableParams {
                metric,
                ..TableParams::default()
            };
            let query = TableQuery::new(rows.spec, &params).expect("a query");
            let table = query.compute_table(rows).expect("a table");
            table[0].summary.mean
        };
        assert_eq!(value("loss*step"), Some(400.0));
        assert_eq!(value("loss/end"), Some(1.0 / 400.0));
        assert_eq!(value("acc"), Some(0.5));
    });
}
