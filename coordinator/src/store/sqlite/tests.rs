use ergodic_common::ids::{
    CellHash, CellIndex, CellsFingerprint, DatasetHash, Epoch, Fence, FileHash, LeaseId,
    ShapeClass, SweepNumber, WeightsDigest,
};
use ergodic_common::pinned_file::{FileData, FilePin};
use ergodic_common::program::output::PackedOutput;
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::trial::{MetricCurve, Predictions};
use ergodic_common::{Outcome, Spec, TrialKey, TrialResult};

use crate::interval_set::IntervalSet;
use crate::records::{DataPin, EndedLease, Finding, LeaseRow, SweepRow, SweepState, SweepTallies};
use crate::result_batch::{CommitOutcome, ResultBatch, ResultComparison};
use crate::store::sqlite::*;
use crate::store::{
    Audit, CheckWritable, ClearRows, ClearedRows, EndLeases, EndedTrial, FindUnreferenced,
    FoundRows, GiveUpAudit, GiveUpTrial, InsertLease, InsertReusing, InsertSweep, LookUpRows,
    RedoTrials, RemoveSweep, ReopenedTrials, RestoreRows, RetryFailed, ReuseSource, ReusedCell,
    ReusingSweep, RowCursor, SampledTrial, SetRowsAside, SetShare, SetSweepState, ShrinkLease,
    StoreResults, StoreWrite, StoredOutput, StoredTrial, TrialRange,
};
use crate::stored_row::MetricPositions;

fn sweep() -> SweepRow {
    SweepRow {
        number: SweepNumber::UNSTORED,
        id: "abc".into(),
        source: SpecSource {
            file: "f".into(),
            text: "t".into(),
            settings: vec!["a=1".into()],
            files: vec![pin()],
            grammar: 2,
            cells_fingerprint: Some(CellsFingerprint([3; 32])),
        },
        data: DataPin {
            hash: Some(DatasetHash([7; 32])),
            train: 5,
            provenance: "five".into(),
        },
        state: SweepState::Running,
        share: Share {
            priority: -3,
            weight: 0.5,
        },
        launched_at: 1.5,
        launched_by: "anna@lab".into(),
        tallies: SweepTallies::default(),
    }
}

fn lease(number: u64, sweep: SweepNumber) -> LeaseRow {
    LeaseRow {
        fence: Fence {
            lease: LeaseId(number),
            epoch: Epoch(1),
        },
        sweep,
        class: ShapeClass(0),
        worker: "w".into(),
        trials: IntervalSet::from_range(0, 10),
        audits: None,
    }
}

fn pin() -> FilePin {
    let images = FileData {
        hash: FileHash([4; 32]),
        sizes: (3, 2),
        shape: (5, 5, 1),
        classes: 0,
        targets: 3,
        floats: false,
    };
    FilePin {
        path: "d.safetensors".into(),
        hash: FileHash([4; 32]),
        images: Some(images),
    }
}

fn result(repeat: u32, metric: f64) -> TrialResult {
    TrialResult {
        outcome: if repeat == 1 {
            Outcome::Diverged { step: 4 }
        } else {
            Outcome::Completed
        },
        steps: 10,
        seconds: 0.25,
        metrics: vec![metric, f64::NAN],
        digest: WeightsDigest([repeat as u8; 32]),
        curve: MetricCurve {
            steps: vec![5, 10],
            values: vec![1.0, f64::NAN, metric, -0.0],
        },
        predictions: Predictions {
            steps: vec![5, 10],
            classes: vec![1, 2, 3, 4],
        },
        weights_hash: Some(FileHash([7; 32])),
        isa: "avx2".into(),
        ..TrialResult::completed(TrialKey::new(3, repeat))
    }
}

fn batch(sweep: SweepNumber, lease: u64, results: Vec<TrialResult>) -> StoreResults {
    batch_of("w", sweep, lease, results)
}

/// Every trial of it is to be audited.
fn batch_of(
    process: &str,
    sweep: SweepNumber,
    lease: u64,
    results: Vec<TrialResult>,
) -> StoreResults {
    let batch = ResultBatch {
        sweep,
        fence: Fence {
            lease: LeaseId(lease),
            epoch: Epoch(1),
        },
        process: process.into(),
        results,
        positions: MetricPositions::default(),
        comparison: ResultComparison::default(),
    };
    StoreResults {
        worker: process.to_uppercase(),
        compare_only: false,
        audit: false,
        chosen_for_audit: batch.trial_keys(),
        batch,
    }
}

fn commit<W: StoreWrite>(writer: &mut dyn StoreWriter, write: W) -> W::Output {
    writer.commit(write).expect("committed")
}

/// The repeats of the stored rows.
fn stored_repeats(outcome: &CommitOutcome) -> Vec<u32> {
    outcome.stored.iter().map(|row| row.key.repeat.0).collect()
}

/// The repeats of the audited rows, and what was found.
fn audited_repeats(outcome: &CommitOutcome) -> Vec<(u32, Finding)> {
    outcome
        .audited
        .iter()
        .map(|(row, finding)| (row.key.repeat.0, *finding))
        .collect()
}

/// Trials to be run again, whose rows were of no other process.
fn reopened(trials: Vec<TrialKey>) -> ReopenedTrials {
    ReopenedTrials {
        trials,
        audits: vec![],
    }
}

#[test]
fn results_are_stored_once_compared_bit_for_bit_and_fenced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let number = commit(writer.as_mut(), InsertSweep(sweep()));
    commit(writer.as_mut(), InsertLease(lease(9, number)));

    let first = commit(
        writer.as_mut(),
        batch(number, 9, vec![result(0, 0.5), result(1, 0.7)]),
    );
    let due = |repeats: &[u32]| -> Vec<TrialKey> {
        repeats
            .iter()
            .map(|repeat| TrialKey::new(3, *repeat))
            .collect()
    };
    assert_eq!(stored_repeats(&first), [0, 1]);
    assert_eq!(first.audits_due, due(&[0, 1]));
    assert_eq!(
        CommitOutcome {
            stored: vec![],
            audits_due: vec![],
            ..first
        },
        CommitOutcome::default()
    );

    let again = TrialResult {
        seconds: 9.0,
        isa: "portable".into(),
        ..result(0, 0.5)
    };
    let second = commit(
        writer.as_mut(),
        batch(number, 9, vec![again, result(2, 0.1)]),
    );

    // Its own process compares, and audits nothing.
    assert_eq!(stored_repeats(&second), [2]);
    assert_eq!(second.audits_due, due(&[2]));
    assert_eq!(
        CommitOutcome {
            stored: vec![],
            audits_due: vec![],
            ..second
        },
        CommitOutcome {
            already_stored: due(&[0]),
            ..CommitOutcome::default()
        }
    );

    let different = commit(writer.as_mut(), batch(number, 9, vec![result(0, 0.6)]));
    assert_eq!((different.stored.len(), different.mismatches), (0, 1));

    commit(
        writer.as_mut(),
        EndLeases(vec![EndedLease {
            fence: Fence {
                lease: LeaseId(9),
                epoch: Epoch(1),
            },
            lost: true,
        }]),
    );

    let late = commit(
        writer.as_mut(),
        batch(number, 9, vec![result(2, 0.1), result(3, 0.1)]),
    );
    assert!(
        late.fenced
            && late.stored.is_empty()
            && late.already_stored.len() == 1
            && late.mismatches == 0
    );

    let reader = store.open_reader().expect("a reader");
    let mut rows = Vec::new();
    let mut push = |row: StoredTrial| {
        rows.push(row);
        true
    };
    reader.read_trials(number, &mut push).expect("read");

    assert_eq!(
        rows.iter()
            .map(|r| r.result.key.repeat.0)
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(rows[1].result.outcome, Outcome::Diverged { step: 4 });
    let mut curves = Vec::new();
    let mut push = |trial: SampledTrial<'_>| {
        curves.push((
            trial.key.repeat.0,
            trial.diverged_at,
            trial.curve.to_curve().values[2],
        ));
    };
    reader
        .read_curves(number, TrialRange::ALL, &mut push)
        .expect("read");

    assert_eq!(
        curves
            .iter()
            .map(|curve| (curve.0, curve.1))
            .collect::<Vec<_>>(),
        [(0, None), (1, Some(4)), (2, None)]
    );

    assert_eq!((curves[0].2, curves[2].2), (0.5, 0.1));
    let tallies = SweepTallies {
        lost_leases: 1,
        duplicates: 3,
        mismatches: 1,
        fenced: 1,
    };
    assert_eq!(reader.read_sweeps().expect("read")[0].tallies, tallies);
}

#[test]
fn audits_compare_store_nothing_and_are_counted_once_by_another_process() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let number = commit(writer.as_mut(), InsertSweep(sweep()));
    commit(writer.as_mut(), InsertLease(lease(9, number)));

    let failed = TrialResult::failed(TrialKey::new(3, 7), "it fails".into(), 2);
    let first = vec![
        result(0, 0.5),
        result(1, 0.5),
        result(2, 0.5),
        result(3, 0.5),
        failed,
    ];
    let stored = commit(writer.as_mut(), batch_of("w", number, 9, first));
    assert_eq!(
        (stored.stored.len(), stored.audits_due.len()),
        (5, 4),
        "what failed has nothing to compare with"
    );

    let lease = LeaseRow {
        worker: "x".into(),
        audits: Some("w".into()),
        ..lease(10, number)
    };
    commit(writer.as_mut(), InsertLease(lease.clone()));

    assert_eq!(
        store
            .open_reader()
            .and_then(|r| r.read_leases())
            .expect("read")
            .0
            .pop(),
        Some(lease)
    );

    let broken = TrialResult::failed(result(2, 0.5).key, "out of time".into(), 2);
    let again = vec![
        result(0, 0.5),
        TrialResult {
            steps: 11,
            ..result(1, 0.6)
        },
        broken,
    ];
    let audit = StoreResults {
        audit: true,
        chosen_for_audit: vec![],
        ..batch_of("x", number, 10, again)
    };
    let found = commit(writer.as_mut(), audit.clone());
    assert_eq!(
        audited_repeats(&found),
        [
            (0, Finding::Same),
            (1, Finding::Different),
            (2, Finding::Failed)
        ]
    );

    assert_eq!(
        (
            found.stored.len(),
            found.already_stored.len(),
            found.mismatches,
            found.fenced
        ),
        (0, 3, 1, false)
    );

    let again = commit(writer.as_mut(), audit);
    assert_eq!(
        (again.audited.len(), again.mismatches),
        (0, 1),
        "a delivery that is repeated counts as such"
    );

    let late = StoreResults {
        compare_only: true,
        ..batch_of("w", number, 9, vec![result(3, 0.5)])
    };
    assert!(
        commit(writer.as_mut(), late.clone()).audited.is_empty(),
        "it is its own row"
    );

    let late = StoreResults {
        batch: ResultBatch {
            process: "y".into(),
            ..late.batch.clone()
        },
        ..late
    };
    let late = commit(writer.as_mut(), late);
    assert_eq!(audited_repeats(&late), [(3, Finding::Same)]);

    let reader = || store.open_reader().expect("a reader");
    let audits = reader().read_audits(number).expect("read");
    let findings: Vec<Option<Finding>> = audits.iter().map(|audit| audit.finding).collect();
    assert_eq!(
        findings,
        [
            Finding::Same,
            Finding::Different,
            Finding::Failed,
            Finding::Same
        ]
        .map(Some)
    );

    let Audit {
        process,
        auditor,
        auditor_process,
        why,
        ..
    } = audits[1].clone();
    assert_eq!(
        [process.as_str(), &auditor, auditor_process.as_str()],
        ["w", "X", "x"]
    );

    assert_eq!(why, "steps, metrics, curve");
    assert_eq!(
        (
            audits[2].why.as_str(),
            reader().read_audit(number, failed_key()).expect("read")
        ),
        ("out of time", None)
    );

    let tallies = reader().read_sweeps().expect("read")[0].tallies;
    assert_eq!(
        (tallies.duplicates, tallies.mismatches),
        (4, 2),
        "the audits are not among the duplicates"
    );

    let key = audits[2].key;
    let retried = commit(writer.as_mut(), RetryFailed(number));
    assert_eq!(
        retried,
        ReopenedTrials {
            trials: vec![failed_key()],
            audits: vec![(key, "w".into())],
        }
    );

    assert_eq!(
        reader()
            .read_audit(number, key)
            .expect("read")
            .and_then(|audit| audit.finding),
        None
    );

    commit(
        writer.as_mut(),
        GiveUpAudit {
            sweep: number,
            key,
            cause: "it kills".into(),
        },
    );
    commit(
        writer.as_mut(),
        GiveUpAudit {
            sweep: number,
            key: audits[0].key,
            cause: "it kills".into(),
        },
    );

    let given_up = reader().read_audits(number).expect("read");
    assert_eq!(
        (given_up[2].finding, given_up[2].why.as_str()),
        (Some(Finding::Failed), "it kills")
    );

    assert_eq!(
        given_up[0].finding,
        Some(Finding::Same),
        "what was found stays"
    );
}

fn failed_key() -> TrialKey {
    TrialKey::new(3, 7)
}

#[test]
fn a_give_up_is_a_row_of_its_own_and_contradicts_no_result() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let number = commit(writer.as_mut(), InsertSweep(sweep()));
    commit(writer.as_mut(), InsertLease(lease(9, number)));

    commit(writer.as_mut(), batch(number, 9, vec![result(0, 0.5)]));
    for repeat in [0, 2] {
        let failed = TrialResult::failed(TrialKey::new(3, repeat), "it kills".into(), 2);
        commit(
            writer.as_mut(),
            GiveUpTrial {
                sweep: number,
                result: failed,
            },
        );
    }

    let reader = store.open_reader().expect("a reader");
    let row = |repeat: u32| {
        reader
            .read_trial(number, TrialKey::new(3, repeat))
            .expect("read")
            .expect("a row")
            .result
    };
    assert_eq!(
        row(0).outcome,
        Outcome::Completed,
        "a row that is there stays"
    );

    assert_eq!(
        row(2).outcome,
        Outcome::Failed {
            cause: "it kills".into()
        }
    );

    let late = commit(writer.as_mut(), batch(number, 9, vec![result(2, 0.1)]));
    assert_eq!(
        (
            late.stored.len(),
            late.already_stored.len(),
            late.mismatches
        ),
        (0, 1, 0)
    );
}

#[test]
fn failed_trials_become_attempts_and_may_have_a_row_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let number = commit(writer.as_mut(), InsertSweep(sweep()));
    commit(writer.as_mut(), InsertLease(lease(9, number)));

    commit(writer.as_mut(), batch(number, 9, vec![result(0, 0.5)]));
    let key = TrialKey::new(3, 2);

    for cause in ["once", "twice"] {
        let failed = TrialResult::failed(key, cause.into(), 2);
        commit(
            writer.as_mut(),
            GiveUpTrial {
                sweep: number,
                result: failed,
            },
        );
        commit(
            writer.as_mut(),
            SetSweepState {
                sweep: number,
                state: SweepState::Completed,
            },
        );

        assert_eq!(
            commit(writer.as_mut(), RetryFailed(number)),
            reopened(vec![key])
        );
    }

    assert_eq!(
        commit(writer.as_mut(), RetryFailed(number)),
        reopened(vec![])
    );
    let reader = store.open_reader().expect("a reader");
    let attempts = reader.read_attempts(number, key).expect("read");
    assert_eq!(
        attempts.iter().map(|a| &a.cause[..]).collect::<Vec<_>>(),
        ["once", "twice"]
    );

    assert_eq!(
        reader.read_sweeps().expect("read")[0].state,
        SweepState::Running
    );
    assert_eq!(reader.read_trial(number, key).expect("read"), None);
    assert_eq!(
        reader
            .read_attempts(number, TrialKey::new(3, 0))
            .expect("read"),
        []
    );

    commit(writer.as_mut(), InsertLease(lease(10, number)));
    let again = commit(writer.as_mut(), batch(number, 10, vec![result(2, 0.1)]));
    assert_eq!(stored_repeats(&again), [2]);
}

#[test]
fn leases_outlive_a_pause_and_no_end() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let number = commit(writer.as_mut(), InsertSweep(sweep()));
    commit(writer.as_mut(), InsertLease(lease(9, number)));

    for (state, leases) in [
        (SweepState::Paused, 1),
        (SweepState::Running, 1),
        (SweepState::Completed, 0),
    ] {
        commit(
            writer.as_mut(),
            SetSweepState {
                sweep: number,
                state,
            },
        );
        let reader = store.open_reader().expect("a reader");
        assert_eq!(
            reader.read_leases().expect("read").0.len(),
            leases,
            "{state:?}"
        );

        assert_eq!(reader.read_sweeps().expect("read")[0].state, state);
    }
}

#[test]
fn only_leases_that_were_there_and_lost_are_counted() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let number = commit(writer.as_mut(), InsertSweep(sweep()));
    (1..=3).for_each(|at| commit(writer.as_mut(), InsertLease(lease(at, number))));

    let ended = |lease: u64, epoch: u64, lost: bool| EndedLease {
        fence: Fence {
            lease: LeaseId(lease),
            epoch: Epoch(epoch),
        },
        lost,
    };
    let ends = vec![
        ended(1, 1, true),
        ended(1, 1, true),
        ended(2, 2, true),
        ended(3, 1, false),
    ];
    commit(writer.as_mut(), EndLeases(ends));

    let reader = store.open_reader().expect("a reader");
    assert_eq!(
        reader.read_sweeps().expect("read")[0].tallies,
        SweepTallies {
            lost_leases: 1,
            ..SweepTallies::default()
        }
    );

    assert_eq!(reader.read_leases().expect("read").0, [lease(2, number)]);
}

#[test]
fn everything_is_there_again_after_reopening() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let number = {
        let store = SqliteStore::open(dir.path()).expect("opened");
        let mut writer = store.open_writer(Epoch(1)).expect("a writer");
        let number = commit(writer.as_mut(), InsertSweep(sweep()));
        commit(writer.as_mut(), InsertLease(lease(9, number)));

        number
    };

    let store = SqliteStore::open(dir.path()).expect("opened again");
    assert_eq!(
        store.acquire_leadership("here").expect("claimed").epoch,
        Epoch(2)
    );
    let reader = store.open_reader().expect("a reader");
    assert_eq!(
        reader.read_sweeps().expect("read"),
        [SweepRow { number, ..sweep() }]
    );

    assert_eq!(
        reader.read_leases().expect("read"),
        (vec![lease(9, number)], LeaseId(10))
    );
    let mut writer = store.open_writer(Epoch(2)).expect("a writer");
    let less = LeaseRow {
        trials: IntervalSet::from_range(0, 4),
        ..lease(9, number)
    };
    commit(writer.as_mut(), ShrinkLease(less.clone()));

    let share = Share {
        priority: 7,
        weight: 2.0,
    };
    commit(
        writer.as_mut(),
        SetShare {
            sweep: number,
            share,
        },
    );
    let reader = store.open_reader().expect("a reader of what is there now");
    assert_eq!(
        reader.read_leases().expect("read"),
        (vec![less], LeaseId(10))
    );

    assert_eq!(
        reader.read_sweeps().expect("read"),
        [SweepRow {
            number,
            share,
            ..sweep()
        }]
    );

    commit(
        writer.as_mut(),
        SetSweepState {
            sweep: number,
            state: SweepState::Cancelled,
        },
    );
    assert_eq!(
        reader.read_leases().expect("read").0.len(),
        1,
        "a reader sees one moment"
    );

    let reader = store.open_reader().expect("another reader");
    assert_eq!(reader.read_leases().expect("read"), (vec![], LeaseId(10)));
}

#[test]
fn a_second_coordinator_is_refused_by_the_pid_of_the_first() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let _first = SqliteStore::open(dir.path()).expect("opened");
    let error = SqliteStore::open(dir.path())
        .err()
        .expect("refused")
        .to_string();
    assert!(
        error.contains(&format!("process {}", std::process::id())),
        "{error}"
    );
}

#[test]
fn what_a_trial_keeps_is_compared_and_read_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let number = commit(writer.as_mut(), InsertSweep(sweep()));
    commit(writer.as_mut(), InsertLease(lease(9, number)));

    let nothing = TrialResult {
        predictions: Predictions::default(),
        weights_hash: None,
        ..result(2, 0.5)
    };
    let stored = commit(
        writer.as_mut(),
        batch(number, 9, vec![result(0, 0.5), nothing.clone()]),
    );
    assert_eq!(stored_repeats(&stored), [0, 2]);

    let same = commit(
        writer.as_mut(),
        batch(number, 9, vec![result(0, 0.5), nothing.clone()]),
    );
    assert_eq!((same.already_stored.len(), same.mismatches), (2, 0));

    for different in [
        TrialResult {
            predictions: Predictions {
                steps: vec![5, 10],
                classes: vec![1, 2, 3, 5],
            },
            ..result(0, 0.5)
        },
        TrialResult {
            predictions: Predictions::default(),
            ..result(0, 0.5)
        },
        TrialResult {
            weights_hash: Some(FileHash([8; 32])),
            ..result(0, 0.5)
        },
        TrialResult {
            weights_hash: None,
            ..result(0, 0.5)
        },
        TrialResult {
            weights_hash: Some(FileHash([7; 32])),
            ..nothing.clone()
        },
        TrialResult {
            predictions: result(0, 0.5).predictions,
            ..nothing
        },
    ] {
        assert_eq!(
            commit(writer.as_mut(), batch(number, 9, vec![different])).mismatches,
            1
        );
    }

    let reader = store.open_reader().expect("a reader");
    let row = reader
        .read_trial(number, TrialKey::new(3, 0))
        .expect("read")
        .expect("a row")
        .result;
    assert_eq!(
        (row.isa.as_str(), row.weights_hash),
        ("avx2", Some(FileHash([7; 32])))
    );

    let mut all = Vec::new();
    let mut keep = |key: TrialKey, predictions| {
        all.push((key.repeat.0, predictions));
        true
    };
    reader.read_predictions(number, &mut keep).expect("read");

    assert_eq!(all, [(0, result(0, 0.5).predictions)]);
}

#[test]
fn a_store_of_the_first_version_is_brought_up_to_date() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let old = Connection::open(dir.path().join("ergodic.sqlite")).expect("opened");
    old.execute_batch(&format!("{} PRAGMA user_version = 1;", MIGRATIONS[0]))
        .expect("the first schema");
    old.execute_batch(
        "INSERT INTO sweeps VALUES (1, 'old', 'f', 't', '[]', NULL, 0, 'no data', 2, 1.0);
         INSERT INTO curves VALUES (1, x'00000000');
         INSERT INTO trials VALUES (1, 0, 0, 1, NULL, NULL, 5, 0.5, 'w', zeroblob(32), x'', 1);",
    )
    .expect("rows of the first version");

    drop(old);
    let store = SqliteStore::open(dir.path()).expect("brought up to date");
    let reader = store.open_reader().expect("a reader");
    let sweeps = reader.read_sweeps().expect("read");
    assert_eq!(
        (&sweeps[0].id[..], sweeps[0].share),
        ("old", Share::default())
    );

    let row = reader
        .read_trial(SweepNumber(1), TrialKey::new(0, 0))
        .expect("read")
        .expect("the row is still there");
    assert_eq!(
        (
            row.result.steps,
            row.result.isa.as_str(),
            row.result.weights_hash
        ),
        (5, "", None)
    );

    drop(store);
    SqliteStore::open(dir.path()).expect("opened once more");
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    drop(SqliteStore::open(dir.path()).expect("opened"));
    let connection = Connection::open(dir.path().join("ergodic.sqlite")).expect("opened");
    connection
        .pragma_update(None, "user_version", 99)
        .expect("set");

    drop(connection);
    let error = SqliteStore::open(dir.path())
        .err()
        .expect("refused")
        .to_string();
    assert!(
        error.contains("version 99") && error.contains("newer ergodic"),
        "{error}"
    );
}

#[test]
fn a_failed_transaction_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let twice = (InsertSweep(sweep()), InsertSweep(sweep()));
    writer.commit(twice).expect_err("an id is unique");

    assert!(
        store
            .open_reader()
            .expect("a reader")
            .read_sweeps()
            .expect("read")
            .is_empty()
    );
}

/// All that can be asked about sweeps 1 and 2 and the trials that a flipped bit could turn one into; the number of leases.
fn read_everything(reader: &dyn StoreReader) -> Result<usize, StoreError> {
    reader.read_sweeps()?;
    for sweep in [1, 2] {
        reader.read_trials(SweepNumber(sweep), &mut |_| true)?;
        reader.read_ended_trials(SweepNumber(sweep), TrialRange::ALL, &mut |_| {})?;
        reader.read_curves(SweepNumber(sweep), TrialRange::ALL, &mut |_| {})?;
        reader.read_predictions(SweepNumber(sweep), &mut |_, _| true)?;

        for (cell, repeat) in [(3, 0), (3, 1), (3, 2), (3, 3), (4, 0), (4, 1), (4, 2)] {
            let key = TrialKey::new(cell, repeat);
            reader.read_trial(SweepNumber(sweep), key)?;
            reader.read_attempts(SweepNumber(sweep), key)?;
        }
    }

    Ok(reader.read_leases()?.0.len())
}

/// A store with two rows, a curve and predictions each, an attempt and a lease.
fn with_a_row_in_every_table(dir: &Path) -> SqliteStore {
    let store = SqliteStore::open(dir).expect("opened");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    commit(writer.as_mut(), InsertSweep(sweep()));
    commit(writer.as_mut(), InsertLease(lease(9, SweepNumber(1))));
    commit(
        writer.as_mut(),
        GiveUpTrial {
            sweep: SweepNumber(1),
            result: TrialResult::failed(TrialKey::new(3, 2), "it\0".into(), 2),
        },
    );

    commit(writer.as_mut(), RetryFailed(SweepNumber(1)));
    commit(
        writer.as_mut(),
        batch(SweepNumber(1), 9, vec![result(0, 0.5), result(2, 0.7)]),
    );

    store
}

#[test]
fn no_field_of_any_row_changes_unnoticed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = with_a_row_in_every_table(dir.path());
    let connection = open_connection(&store.path).expect("a connection");
    assert_eq!(read_everything(&connection).expect("nothing is damaged"), 1);
    let text = |sql: &str| -> Vec<String> {
        let mut statement = connection.prepare(sql).expect("a statement");
        let rows = statement.query_map([], |row| row.get(0)).expect("rows");
        rows.map(|row| row.expect("a text")).collect()
    };

    for table in [
        "sweeps",
        "leases",
        "trials",
        "curves",
        "predictions",
        "attempts",
    ] {
        for column in text(&format!("SELECT name FROM pragma_table_info('{table}')")) {
            // The next number is the other curve's.
            let step = if (table, column.as_str()) == ("curves", "curve") {
                100
            } else {
                1
            };
            let change = format!(
                "SAVEPOINT before; UPDATE {table} SET {column} = CASE typeof({column})
                     WHEN 'text' THEN {column} || '1' WHEN 'blob' THEN CAST(x'7f' || substr({column}, 2) AS BLOB) WHEN 'null' THEN 1
                     ELSE {column} + {step} END
                 WHERE rowid = (SELECT min(rowid) FROM {table})"
            );

            // These have no rowid.
            let change = match table {
                "trials" => change.replace("rowid = (SELECT min(rowid) FROM trials)", "repeat = 0"),
                "attempts" => {
                    change.replace("rowid = (SELECT min(rowid) FROM attempts)", "attempt = 0")
                }
                _ => change,
            };
            connection
                .execute_batch(&change)
                .unwrap_or_else(|e| panic!("{table}.{column}: {e}"));

            let read = read_everything(&connection);
            connection
                .execute_batch("ROLLBACK TO before; RELEASE before")
                .expect("undone");

            match (table, read) {
                ("leases", read) => assert_eq!(
                    read.expect("it is told and left out"),
                    0,
                    "{table}.{column}"
                ),
                (_, Ok(_)) => panic!("{table}.{column} was changed and nobody noticed"),
                ("sweeps", Err(error)) => assert!(
                    error.to_string().contains("row of the sweep"),
                    "{column}: {error}"
                ),
                // A curve or an earlier attempt that is not to be found is told by the row that leads to it.
                (_, Err(error)) => assert!(
                    error.to_string().contains("of the trial 3/")
                        || error.to_string().contains("of the trial 4/"),
                    "{table}.{column}: {error}"
                ),
            }
        }
    }
}

#[test]
fn what_is_damaged_is_set_aside_and_may_have_a_row_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = with_a_row_in_every_table(dir.path());
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    commit(
        writer.as_mut(),
        SetSweepState {
            sweep: SweepNumber(1),
            state: SweepState::Completed,
        },
    );

    let connection = open_connection(&store.path).expect("a connection");
    let keys = [0, 2].map(|repeat| TrialKey::new(3, repeat));
    let damaged = |all_of_it: bool| {
        let reader = store.open_reader().expect("a reader");
        let mut sound = Vec::new();
        let damages = match all_of_it {
            true => {
                reader.read_intact_trials(SweepNumber(1), &mut |row| sound.push(row.result.key))
            }
            false => reader.read_intact_ended_trials(SweepNumber(1), TrialRange::ALL, &mut |row| {
                sound.push(row.key)
            }),
        };
        let damages = damages.expect("read");

        (
            sound,
            damages
                .iter()
                .map(|damage| (damage.key, damage.what))
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(damaged(true), (keys.to_vec(), vec![]));

    assert_eq!(
        commit(
            writer.as_mut(),
            SetRowsAside {
                sweep: SweepNumber(1),
                keys: keys.to_vec()
            }
        ),
        [],
        "both are sound"
    );

    // The first row leads to the curve of the second one, whose predictions have changed.
    connection
        .execute_batch("UPDATE trials SET curve = curve + 1 WHERE repeat = 0")
        .expect("changed");
    connection
        .execute_batch("UPDATE predictions SET data = CAST(data || x'01' AS BLOB) WHERE repeat = 2")
        .expect("changed");

    assert_eq!(
        damaged(false),
        (keys.to_vec(), vec![]),
        "rows alone are sound"
    );
    assert_eq!(
        damaged(true),
        (vec![], vec![(keys[0], "curve"), (keys[1], "predictions")])
    );

    let aside = SetRowsAside {
        sweep: SweepNumber(1),
        keys: keys[..1].to_vec(),
    };
    assert_eq!(commit(writer.as_mut(), aside.clone()), keys[..1]);
    let reader = store.open_reader().expect("a reader");
    assert_eq!(
        reader.read_sweeps().expect("read")[0].state,
        SweepState::Running
    );

    assert!(
        reader.read_attempts(SweepNumber(1), keys[0]).expect("read")[0]
            .cause
            .contains("curve was damaged")
    );
    let error = reader
        .read_trial(SweepNumber(1), keys[1])
        .expect_err("the other is damaged")
        .to_string();
    assert!(
        error.contains("predictions of the trial 3/2 of the sweep abc")
            && error.contains("--verify-store"),
        "{error}"
    );

    connection
        .execute_batch(
            "UPDATE predictions SET data = x'0200000005000000000000000a0000000000000001020304'",
        )
        .expect("mended");
    assert_eq!(
        damaged(true),
        (keys[1..].to_vec(), vec![]),
        "its curve is still there"
    );

    commit(writer.as_mut(), InsertLease(lease(10, SweepNumber(1))));
    let again = commit(
        writer.as_mut(),
        batch(SweepNumber(1), 10, vec![result(0, 0.5)]),
    );
    assert_eq!(stored_repeats(&again), [0]);
    assert_eq!(damaged(true), (keys.to_vec(), vec![]));
}

#[test]
fn rows_that_name_weights_are_told_whatever_else_is_damaged() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = with_a_row_in_every_table(dir.path());
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let plain = TrialResult {
        weights_hash: None,
        ..result(4, 0.5)
    };
    commit(
        writer.as_mut(),
        batch(SweepNumber(1), 9, vec![plain, result(5, 0.5)]),
    );

    let connection = open_connection(&store.path).expect("a connection");
    let change = "UPDATE trials SET steps = 11 WHERE repeat IN (0, 4); UPDATE trials SET weights = x'01' WHERE repeat = 5";
    connection.execute_batch(change).expect("changed");
    let mut named = Vec::new();
    let damages = store.open_reader().and_then(|reader| {
        reader.read_weights_hashes(SweepNumber(1), &mut |key, hash| {
            named.push((key.repeat.0, hash))
        })
    });

    assert_eq!(named, [(0, FileHash([7; 32])), (2, FileHash([7; 32]))]);
    let damages = damages.expect("read");
    assert_eq!(
        damages
            .iter()
            .map(|damage| damage.key.repeat.0)
            .collect::<Vec<_>>(),
        [5]
    );
}

#[test]
fn rows_are_looked_up_with_their_audits_and_nothing_is_run_once_more_of_a_cancelled_sweep() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = with_a_row_in_every_table(dir.path());
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let keys = [0, 1, 2].map(|repeat| TrialKey::new(3, repeat));
    let again = StoreResults {
        audit: true,
        ..batch_of("x", SweepNumber(1), 9, vec![result(2, 0.7)])
    };
    commit(writer.as_mut(), again);

    let FoundRows { rows, audits } = commit(
        writer.as_mut(),
        LookUpRows {
            sweep: SweepNumber(1),
            keys: keys.to_vec(),
            positions: MetricPositions::default(),
        },
    );
    assert_eq!(
        rows.iter().map(|row| row.key).collect::<Vec<_>>(),
        [keys[0], keys[2]]
    );

    assert_eq!(
        audits,
        [
            (keys[0], "w".into(), None),
            (keys[2], "w".into(), Some(Finding::Same))
        ]
    );

    let redo = RedoTrials {
        sweep: SweepNumber(1),
        keys: keys.to_vec(),
    };
    let due = [(keys[0], Some(None)), (keys[2], Some(Some(Finding::Same)))];
    assert_eq!(commit(writer.as_mut(), redo.clone()), due);

    commit(
        writer.as_mut(),
        SetSweepState {
            sweep: SweepNumber(1),
            state: SweepState::Cancelled,
        },
    );
    assert_eq!(commit(writer.as_mut(), redo), []);
}

#[test]
fn rows_are_gathered_wherever_they_stand_but_for_those_of_which_an_audit_found_other_bits() {
    let text = "name = 'a'\n[data]\ndataset = 'glyphs'\n[model]\nkind = 'mlp'\n[train]\nsteps = 9\nbatch_size = 32\nlr = 0.1\n\
                [measure]\nmetrics = ['test_acc', 'train_loss']\n";
    let source = SpecSource {
        file: "f".into(),
        text: text.into(),
        ..SpecSource::default()
    };
    let spec = Spec::read_stored(&source).expect("a sweep file");
    let select = spec.measure.selection_for(
        &spec.measure,
        &spec.grid.resolve_config(CellIndex(0)).expect("a cell"),
    );
    let select = Arc::new(select.expect("all of it"));

    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let number = commit(writer.as_mut(), InsertSweep(sweep()));
    commit(writer.as_mut(), InsertLease(lease(9, number)));

    let row = |cell: u64, repeat: u32| TrialResult {
        key: TrialKey::new(cell, repeat),
        weights_hash: None,
        predictions: Predictions::default(),
        ..result(0, 0.5)
    };

    // More than are read at a time, and one far from the others.
    let cells = || (0..900).chain([(1 << 40) + 1]);
    let rows = cells()
        .flat_map(|cell| [row(cell, 0), row(cell, 1)])
        .collect();
    commit(writer.as_mut(), batch(number, 9, rows));
    let other = TrialResult {
        steps: 11,
        ..row(6, 0)
    };
    let audit = StoreResults {
        audit: true,
        ..batch_of("x", number, 9, vec![other])
    };
    let found = commit(writer.as_mut(), audit);
    assert_eq!(audited_repeats(&found), [(0, Finding::Different)]);

    let wanted: Vec<(u64, u32)> = cells()
        .filter(|cell| cell % 3 == 0 || *cell > 880)
        .map(|cell| (cell, (cell % 4) as u32))
        .collect();
    let cell = |(from, below): &(u64, u32)| {
        let from = *from;
        let below = *below;
        let identity = CellHash([0; 32]);
        let select = select.clone();
        ReusedCell {
            source_cell: CellIndex(from),
            new_cell: CellIndex(from + 1),
            repeat_limit: below,
            identity,
            selection: select,
        }
    };
    let sources = vec![ReuseSource {
        sweep: number,
        cells: wanted.iter().map(cell).collect(),
    }];

    let new = SweepRow {
        id: "abd".into(),
        ..sweep()
    };
    let gathering = ReusingSweep {
        row: new,
        seed: 1,
        audit_share: 0.0,
        sources,
        twins: Vec::new(),
    };
    let written = commit(writer.as_mut(), InsertReusing(gathering));

    let mut keys = Vec::new();
    let mut push = |row: StoredTrial| {
        keys.push(row.result.key);
        true
    };
    store
        .open_reader()
        .and_then(|reader| reader.read_trials(SweepNumber(2), &mut push))
        .expect("read");

    let of_cell = |(cell, below): (u64, u32)| {
        (0..below.min(2)).map(move |repeat| TrialKey::new(cell + 1, repeat))
    };

    let doubted = TrialKey::new(7, 0);
    let expected: Vec<TrialKey> = wanted
        .into_iter()
        .flat_map(of_cell)
        .filter(|key| *key != doubted)
        .collect();
    assert!(keys == expected && expected.len() > 300, "{keys:?}");

    assert_eq!(written, (SweepNumber(2), expected.len() as u64));
}

#[test]
fn a_damaged_row_is_neither_equal_nor_different() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = with_a_row_in_every_table(dir.path());
    let connection = open_connection(&store.path).expect("a connection");
    connection
        .execute_batch("UPDATE trials SET digest = zeroblob(32) WHERE repeat = 2")
        .expect("changed");

    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let same = commit(
        writer.as_mut(),
        batch(SweepNumber(1), 9, vec![result(2, 0.7)]),
    );
    assert_eq!((same.already_stored.len(), same.mismatches), (1, 0));
    let key = TrialKey::new(3, 2);
    assert_eq!(
        commit(
            writer.as_mut(),
            SetRowsAside {
                sweep: SweepNumber(1),
                keys: vec![key]
            }
        ),
        [key]
    );

    let left = ["trials", "curves", "predictions"].map(|table| {
        let text = format!("SELECT count(*) FROM {table}");
        connection
            .query_row(&text, [], |row| row.get::<_, i64>(0))
            .expect("it can be counted")
    });
    assert_eq!(left, [1, 1, 1], "what belonged to it has gone with it");
}

#[test]
fn a_removed_sweep_is_cleared_bit_by_bit_and_takes_only_what_is_its_own() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = with_a_row_in_every_table(dir.path());
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    commit(
        writer.as_mut(),
        InsertSweep(SweepRow {
            id: "abd".into(),
            ..sweep()
        }),
    );

    commit(writer.as_mut(), InsertLease(lease(10, SweepNumber(2))));
    let other = TrialResult {
        weights_hash: Some(FileHash([8; 32])),
        ..result(1, 0.7)
    };
    commit(
        writer.as_mut(),
        batch(
            SweepNumber(1),
            9,
            (10..1500)
                .map(|n| TrialResult {
                    weights_hash: None,
                    ..result(n, 0.5)
                })
                .collect(),
        ),
    );

    commit(writer.as_mut(), batch(SweepNumber(1), 9, vec![other]));
    let named_by_a_row = TrialResult {
        weights_hash: Some(FileHash([6; 32])),
        ..result(0, 0.5)
    };
    commit(
        writer.as_mut(),
        batch(SweepNumber(2), 10, vec![named_by_a_row]),
    );
    commit(writer.as_mut(), RemoveSweep(SweepNumber(1)));
    let reader = store.open_reader().expect("a reader");
    assert_eq!(
        reader
            .read_sweeps()
            .expect("read")
            .iter()
            .map(|sweep| sweep.number)
            .collect::<Vec<_>>(),
        [SweepNumber(2)]
    );

    assert_eq!(
        reader.read_unfinished_removals().expect("read"),
        [SweepNumber(1)]
    );
    let late = commit(
        writer.as_mut(),
        batch(SweepNumber(1), 9, vec![result(5, 0.5)]),
    );
    assert!(
        late.fenced && late.stored.is_empty(),
        "its leases are no more"
    );

    commit(
        writer.as_mut(),
        GiveUpTrial {
            sweep: SweepNumber(1),
            result: TrialResult::failed(TrialKey::new(9, 9), "late".into(), 2),
        },
    );

    let cleared = |trials, weights, has_more| ClearedRows {
        trials,
        weights,
        has_more,
    };

    let named = vec![FileHash([7; 32]), FileHash([8; 32])];
    assert_eq!(
        commit(writer.as_mut(), ClearRows(SweepNumber(1))),
        cleared(1000, named.clone(), true)
    );

    // The other sweep names one of the others, and its row names one.
    let asked = vec![FileHash([6; 32]), FileHash([7; 32]), FileHash([8; 32])];
    assert_eq!(
        commit(writer.as_mut(), FindUnreferenced(asked)),
        [FileHash([8; 32])]
    );
    assert_eq!(
        commit(writer.as_mut(), ClearRows(SweepNumber(1))),
        cleared(493, vec![], true)
    );

    assert_eq!(
        commit(writer.as_mut(), ClearRows(SweepNumber(1))),
        cleared(0, vec![], false)
    );
    assert_eq!(
        commit(writer.as_mut(), ClearRows(SweepNumber(2))),
        cleared(0, vec![], false),
        "it is there"
    );

    let connection = open_connection(&store.path).expect("a connection");
    let count = |table: &str| -> i64 {
        let text = format!("SELECT count(*) FROM {table}");
        connection
            .query_row(&text, [], |row| row.get(0))
            .expect("it can be counted")
    };

    let tables = [
        "sweeps",
        "leases",
        "trials",
        "curves",
        "predictions",
        "attempts",
        "removals",
    ];
    assert_eq!(tables.map(count), [1, 1, 1, 1, 1, 0, 0]);

    let number = commit(writer.as_mut(), InsertSweep(sweep()));
    assert_eq!(number, SweepNumber(3), "numbers are not used again");
}

#[test]
fn several_readers_see_the_same_moment() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let number = commit(writer.as_mut(), InsertSweep(sweep()));
    commit(writer.as_mut(), InsertLease(lease(9, number)));

    std::thread::scope(|threads| {
        let rows = 300_u64;
        threads.spawn(move || {
            (0..rows).for_each(|n| {
                drop(commit(
                    writer.as_mut(),
                    batch(number, 9, vec![result(n as u32, 0.5)]),
                ))
            });
        });

        let mut seen = 0;
        while seen < rows {
            let readers = store.open_readers(4).expect("readers");
            let count = |reader: &dyn StoreReader, _: TrialRange| {
                reader
                    .read_row_cursors(number, 0)
                    .map(|[_, end]| end.row_count)
            };
            let counts = readers
                .map_ranges(&[TrialRange::ALL; 16], count)
                .expect("read");
            assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");

            seen = counts[0];
        }
    });
}

#[test]
fn ranges_have_together_the_rows_that_all_trials_have() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let sweep = commit(writer.as_mut(), InsertSweep(sweep()));
    let all: Vec<TrialKey> = (0..9)
        .flat_map(|cell| (0..5).map(move |repeat| TrialKey::new(cell, repeat)))
        .collect();
    let rows = all.iter().map(|key| StoredTrial {
        result: TrialResult::completed(*key),
        worker: "w".into(),
    });
    let write = RestoreRows {
        sweep,
        rows: rows.collect(),
        attempts: Vec::new(),
    };
    commit(writer.as_mut(), write);

    // Of whole cells, and not.
    let reader = store.open_reader().expect("a reader");
    for n in [1, 2, 7] {
        let mut read = Vec::new();
        for range in TrialRange::split_all(9, 5, n) {
            let mut push = |trial: EndedTrial<'_>| read.push(trial.key);
            reader
                .read_ended_trials(sweep, range, &mut push)
                .expect("read");
        }
        assert_eq!(read, all, "{n} ranges");
    }
}

#[test]
fn a_position_tells_what_came_later_and_is_none_where_rows_are_others() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let number = commit(writer.as_mut(), InsertSweep(sweep()));
    commit(writer.as_mut(), InsertLease(lease(9, number)));

    let failed = TrialResult::failed(TrialKey::new(3, 9), "it fails".into(), 2);
    commit(
        writer.as_mut(),
        batch(
            number,
            9,
            vec![result(7, 0.5), failed.clone(), result(2, 0.5)],
        ),
    );

    let positions = |row| {
        store
            .open_reader()
            .and_then(|reader| reader.read_row_cursors(number, row))
            .expect("read")
    };

    let after = |row| {
        let mut keys = Vec::new();
        let mut push = |row: StoredTrial| {
            // NaN is never equal to itself.
            let whole = format!("{:?}", row.result)
                == format!("{:?}", result(row.result.key.repeat.0, 0.5));
            assert!(row.result.outcome != Outcome::Completed || whole, "{row:?}");
            keys.push(row.result.key.repeat.0);
            true
        };
        store
            .open_reader()
            .and_then(|reader| reader.read_trials_after(number, row, &mut push))
            .expect("read");

        keys
    };

    let [start, first] = positions(0);
    assert_eq!(
        (start, first.row_count, after(0)),
        (RowCursor::default(), 3, vec![2, 7, 9])
    );

    commit(
        writer.as_mut(),
        batch(number, 9, vec![result(8, 0.5), result(0, 0.5)]),
    );
    let [here, second] = positions(first.last_row);
    assert_eq!(
        (here, second.row_count, after(first.last_row)),
        (first, 5, vec![0, 8])
    );

    assert_eq!(
        (positions(second.last_row)[0], after(second.last_row)),
        (second, vec![])
    );

    // The failed trial is run again, with whatever result: what was known up to here is not any more.
    commit(writer.as_mut(), RetryFailed(number));
    assert!(positions(first.last_row)[0] != first && positions(second.last_row)[0] != second);
    commit(writer.as_mut(), batch(number, 9, vec![result(9, 0.5)]));
    let [here, end] = positions(second.last_row);
    assert!(here != second && end.row_count == 5 && end.fingerprint != second.fingerprint);
}

#[test]
fn every_claim_has_an_epoch_of_its_own_and_a_writer_of_an_earlier_one_writes_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let first = store.acquire_leadership("here").expect("claimed");
    let mut old = store.open_writer(first.epoch).expect("a writer");
    commit(old.as_mut(), CheckWritable);
    assert!(store.renew_leadership(first.epoch).expect("asked"));

    let second = store.acquire_leadership("here").expect("claimed again");
    assert_eq!((first.epoch, second.epoch), (Epoch(1), Epoch(2)));
    let refused = old.commit(CheckWritable);
    assert!(
        matches!(refused, Err(StoreError::Deposed(_))),
        "{refused:?}"
    );

    assert!(
        !store.renew_leadership(Epoch(1)).expect("asked")
            && store.renew_leadership(Epoch(2)).expect("asked")
    );
    assert!(store.open_writer(Epoch(1)).is_err(), "it is over");
    commit(
        store.open_writer(Epoch(2)).expect("a writer").as_mut(),
        CheckWritable,
    );

    assert_eq!(store.leadership_ttl(), None, "nobody else can lead");
}

#[test]
fn what_only_its_owner_may_read_is_so_with_its_log() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mode = |name: &str| {
        std::fs::metadata(dir.path().join(name))
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777
    };

    drop(SqliteStore::open(dir.path()).expect("opened for everybody"));
    let store = SqliteStore::open_with_privacy(dir.path(), true).expect("opened");
    let mut writer = store.open_writer(Epoch(2)).expect("a writer");
    commit(writer.as_mut(), CheckWritable);
    assert_eq!(
        ["ergodic.sqlite", "ergodic.sqlite-wal", "ergodic.sqlite-shm"].map(mode),
        [0o600; 3]
    );

    let fresh = tempfile::tempdir().expect("a temporary directory");
    let _store = SqliteStore::open_with_privacy(fresh.path(), true).expect("opened");
    let found = std::fs::metadata(fresh.path().join("ergodic.sqlite")).expect("it is there");
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_damaged_output_is_refused_alone_and_left_out_of_all() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    let number = commit(writer.as_mut(), InsertSweep(sweep()));
    commit(writer.as_mut(), InsertLease(lease(9, number)));

    let output = PackedOutput {
        printed: 9,
        packed: vec![1, 2, 3],
    };
    let printing = |repeat| TrialResult {
        output: Some(output.clone()),
        weights_hash: None,
        ..result(repeat, 0.5)
    };
    commit(
        writer.as_mut(),
        batch(number, 9, vec![printing(0), printing(2)]),
    );
    drop((writer, store));
    let connection = Connection::open(dir.path().join(DATABASE_FILE)).expect("opened");
    let damage = "UPDATE outputs SET data = x'010203ff' WHERE repeat = 2";
    assert_eq!(connection.execute(damage, []).expect("damaged"), 1);
    drop(connection);

    let store = SqliteStore::open(dir.path()).expect("opened again");
    let reader = store.open_reader().expect("a reader");
    let (sound, damaged) = (TrialKey::new(3, 0), TrialKey::new(3, 2));
    let read = |key| reader.read_output(number, key, 0);
    assert_eq!(read(sound).expect("read"), Some(output.clone()));
    let refused = read(damaged).expect_err("it is damaged").to_string();
    let words = "what attempt 1 at the trial 3/2 printed is damaged";
    assert!(refused.contains(words), "{refused}");
    assert_eq!(reader.read_output(number, damaged, 1).expect("read"), None);

    let mut all = Vec::new();
    reader
        .read_outputs(number, &mut |stored| all.push(stored))
        .expect("read");
    let stored = StoredOutput {
        key: sound,
        attempt: 0,
        output,
    };
    assert_eq!(all, [stored]);
    assert!(reader.read_trial(number, damaged).expect("read").is_some());
}
