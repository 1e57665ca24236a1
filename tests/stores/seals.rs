//! Seals of completed sweeps: whatever is written, a sweep has the seal that its rows make, or none; and a start reads the seal alone.

use std::time::{Duration, Instant};

use ergodic::core::{Core, Sweep};
use ergodic::records::{AuditCounts, OutcomeCounts, SweepRow, SweepState};
use ergodic::server::recover_core;
use ergodic::store::postgres::PostgresStore;
use ergodic::store::sqlite::SqliteStore;
use ergodic::store::{
    ExtendSweep, InsertSweep, ReadableStore, RemoveSweep, RestoreAudits, RestoreRows, SealChange,
    SealSweep, SetSweepState, Store, StoreWriter, StoredTrial,
};
use ergodic::sweep_seal::SweepSeal;
use ergodic_common::ids::{CellIndex, Epoch, SweepNumber};
use ergodic_common::spec::SpecSource;
use ergodic_common::trial::MetricCurve;
use ergodic_common::{TrialKey, TrialResult};
use ergodic_tests::{Postgres, note, skip};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rusqlite::Connection;

use super::counting::CountingStore;
use super::history::{AnyWrite, Step, key, lease, result, results_of, steps, sweep};

const TTL: Duration = Duration::from_secs(1);
const FIRST: SweepNumber = SweepNumber(1);
const SECOND: SweepNumber = SweepNumber(2);

/// The file of a sweep with the trials of histories: four cells with two repeats.
fn source(repeats: u32, more: &str) -> SpecSource {
    let text = format!(
        "name = \"s\"\nrepeats = {repeats}\n{more}[model]\nkind = \"empty\"\n[train]\nsteps = 10\n[measure]\n\
         metrics = [\"test_acc\", \"train_loss\"]\n[grid]\nlr = [0.1, 0.2, 0.3, 0.4]\n"
    );
    SpecSource {
        file: "f".into(),
        text,
        ..SpecSource::default()
    }
}

fn sealable(id: &str) -> SweepRow {
    SweepRow {
        source: source(2, ""),
        ..sweep(id)
    }
}

/// Results of all trials, of every kind, among them failed ones.
fn all_results() -> Vec<TrialResult> {
    (0..8).map(|n| result(n, n as u8 % 5)).collect()
}

fn all_rows(sweep: SweepNumber) -> RestoreRows {
    let rows = all_results().into_iter().map(|result| StoredTrial {
        result,
        worker: String::new(),
    });
    RestoreRows {
        sweep,
        rows: rows.collect(),
        attempts: Vec::new(),
    }
}

fn completed(sweep: SweepNumber) -> SetSweepState {
    SetSweepState {
        sweep,
        state: SweepState::Completed,
    }
}

fn read_seal(store: &dyn ReadableStore, sweep: SweepNumber) -> Option<SweepSeal> {
    let reader = store.open_reader().expect("a reader");
    reader.read_seal(sweep).expect("read")
}

fn is_there(store: &dyn ReadableStore, sweep: SweepNumber) -> bool {
    let sweeps = store.open_reader().and_then(|reader| reader.read_sweeps());
    sweeps
        .expect("sweeps")
        .iter()
        .any(|row| row.number == sweep)
}

/// A directory with a sealed sweep, and another one.
fn sealed_store() -> (tempfile::TempDir, SqliteStore, Box<dyn StoreWriter>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = super::writer(&store);
    for id in ["abc", "abd"] {
        writer.commit(InsertSweep(sealable(id))).expect("stored");
    }
    writer
        .commit((all_rows(FIRST), completed(FIRST)))
        .expect("sealed");
    (dir, store, writer)
}

/// A second connection to the database of a store.
fn connect(dir: &tempfile::TempDir) -> Connection {
    Connection::open(dir.path().join("ergodic.sqlite")).expect("a connection")
}

/// The core that a start makes of a store, and a sweep of it.
fn recover(
    store: &dyn ReadableStore,
    writer: Option<&mut (dyn StoreWriter + 'static)>,
    reads_all: bool,
) -> Core {
    let recovered = match writer {
        Some(writer) => recover_core(store, Some(writer), Epoch(1), TTL, reads_all),
        None => recover_core(store, None, Epoch(1), TTL, reads_all),
    };
    let (core, _) = recovered.expect("the store can be read");
    core.check_invariants().expect("the books add up");
    core
}

/// All that a sweep is asked while its rows stay in the store, in words: NaN is not equal to itself.
fn describe(core: &Core, number: SweepNumber) -> String {
    let sweep: &Sweep = core.sweep(number).expect("a sweep");
    let cells: Vec<_> = (0..4)
        .map(|cell| sweep.live_stats.cell_stats(CellIndex(cell)))
        .collect();
    let locations: Vec<_> = (0..8)
        .map(|n| {
            (
                core.locate_trial(sweep, key(n)),
                core.locate_audit(sweep, key(n)),
            )
        })
        .collect();
    format!(
        "{:?} {:?} {:?} {:?} {:?} {} {} {:?} {cells:#?} {locations:#?}",
        sweep.state,
        sweep.counts,
        sweep.tallies,
        sweep.audits.counts,
        sweep.live_stats.best_cell(true),
        sweep.total_trials(),
        sweep.has_failures(),
        sweep.estimate_trial_rate(2.0),
    )
}

/// Writes a history to a store with sealed sweeps. After each write a seal that is there is that of the rows.
fn write_history(store: &dyn Store, writer: &mut dyn StoreWriter, history: &[Step]) {
    for step in history {
        let Step::Commit(writes) = step else {
            continue;
        };
        // A write that fails leaves what there was.
        let _ = writer.commit::<Vec<AnyWrite>>(writes.clone());

        for number in [FIRST, SECOND] {
            let before = read_seal(store, number);
            let change = writer.commit(SealSweep(number)).expect("sealed");
            match &before {
                Some(_) => assert_eq!(change, SealChange::Confirmed, "{writes:?}"),
                None => assert!(
                    matches!(change, SealChange::Absent | SealChange::Added),
                    "{change:?} after {writes:?}"
                ),
            }
            assert_eq!(
                read_seal(store, number).is_some(),
                change != SealChange::Absent
            );

            // The next write meets a sealed sweep again.
            if is_there(store, number) {
                writer
                    .commit((all_rows(number), completed(number)))
                    .expect("complete");
                assert!(read_seal(store, number).is_some(), "after {writes:?}");
            }
        }
    }
}

fn run_histories(cases: u32, open: impl Fn() -> Box<dyn Store>) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let histories = proptest::collection::vec(steps(), 1..16);
    let outcome = TestRunner::new(config).run(&histories, |history| {
        let store = open();
        let mut writer = super::writer(store.as_ref());
        for (number, id) in [(FIRST, "abc"), (SECOND, "abd")] {
            let complete = (all_rows(number), completed(number));
            writer
                .commit((InsertSweep(sealable(id)), complete))
                .expect("stored");
            assert!(read_seal(store.as_ref(), number).is_some());
        }
        write_history(store.as_ref(), writer.as_mut(), &history);
        Ok(())
    });
    assert!(outcome.is_ok(), "{}", outcome.expect_err("it failed"));
}

#[test]
fn a_seal_is_that_of_the_rows_whatever_is_written() {
    let dirs = tempfile::tempdir().expect("a temporary directory");
    let open = || -> Box<dyn Store> {
        let dir = tempfile::tempdir_in(dirs.path()).expect("a temporary directory");
        Box::new(SqliteStore::open(&dir.keep()).expect("opened"))
    };
    run_histories(48, open);
}

#[test]
fn a_seal_in_postgres_is_that_of_the_rows_whatever_is_written() {
    let name = "a_seal_in_postgres_is_that_of_the_rows_whatever_is_written";
    let database = match Postgres::start() {
        Ok(database) => database,
        Err(why) => return skip(name, "postgres", &why),
    };
    let open = || -> Box<dyn Store> {
        let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 's%'";
        let schema = format!("s{}", database.ask(schemas));
        database.ask(&format!("CREATE SCHEMA {schema}"));
        let url = format!("{}&options[search_path]={schema}", database.url());
        Box::new(PostgresStore::open(&url).expect("opened"))
    };
    run_histories(12, open);
}

#[test]
fn a_completed_sweep_is_sealed_and_what_lacks_rows_or_has_a_rule_is_not() {
    let (_dir, store, mut writer) = sealed_store();
    let seal = read_seal(&store, FIRST).expect("a seal");
    let counts = OutcomeCounts {
        completed: 5,
        diverged: 2,
        failed: 1,
    };
    assert_eq!((seal.counts, seal.audits), (counts, AuditCounts::default()));
    let reader = store.open_reader().expect("a reader");
    let [_, end] = reader.read_row_cursors(FIRST, 0).expect("rows");
    assert_eq!((seal.row_sum, end.row_count), (end.fingerprint, 8));
    drop(reader);

    // One row is missing.
    let mut rows = all_rows(SECOND);
    let last = rows.rows.pop().expect("a row");
    writer.commit((rows, completed(SECOND))).expect("stored");
    assert_eq!(read_seal(&store, SECOND), None);
    let rest = RestoreRows {
        rows: vec![last],
        ..all_rows(SECOND)
    };
    writer.commit(rest).expect("stored");
    let sealed = writer.commit(SealSweep(SECOND)).expect("sealed");
    assert_eq!(sealed, SealChange::Added);

    let number = SweepNumber(3);
    let rule = "until = { metric = \"test_acc\", ci95 = 0.1 }\n";
    let ruled = SweepRow {
        source: source(2, "").clone(),
        ..sealable("abe")
    };
    let text = ruled.source.text.replace(
        "repeats = 2\n",
        &format!("[repeats]\nmin = 2\nmax = 2\n{rule}"),
    );
    let ruled = SweepRow {
        source: SpecSource {
            text,
            ..ruled.source
        },
        ..ruled
    };
    writer.commit(InsertSweep(ruled)).expect("stored");
    writer
        .commit((all_rows(number), completed(number)))
        .expect("stored");
    assert_eq!(read_seal(&store, number), None);
    let core = recover(&store, Some(writer.as_mut()), false);
    let ruled = core.sweep(number).expect("it can be read");
    assert_eq!(
        (ruled.state, ruled.counts.done()),
        (SweepState::Completed, 8)
    );
    assert_eq!(read_seal(&store, number), None);
}

#[test]
fn a_start_reads_no_row_of_a_sealed_sweep_and_knows_what_the_rows_say() {
    let (dir, store, mut writer) = sealed_store();
    let audits = RestoreAudits {
        sweep: FIRST,
        audits: Vec::new(),
    };
    writer
        .commit((audits, completed(FIRST)))
        .expect("sealed again");
    writer.commit(RemoveSweep(SECOND)).expect("removed");

    let connection = connect(&dir);
    let change = |sql: &str| connection.execute_batch(sql).expect(sql);
    // Where there is no table, nobody reads a row.
    change("ALTER TABLE trials RENAME TO away; ALTER TABLE audits RENAME TO away_audits");
    let sealed = describe(&recover(&store, None, false), FIRST);
    change("ALTER TABLE away RENAME TO trials; ALTER TABLE away_audits RENAME TO audits");

    change("DELETE FROM seals");
    let read = describe(&recover(&store, None, false), FIRST);
    assert_eq!(sealed, read);
    assert_eq!(
        read_seal(&store, FIRST),
        None,
        "who only reads seals nothing"
    );

    // The first start of a leader seals what it has read, as it does in a store of an earlier version.
    let again = describe(&recover(&store, Some(writer.as_mut()), false), FIRST);
    assert_eq!(again, read);
    assert!(read_seal(&store, FIRST).is_some());
}

#[test]
fn a_start_reads_as_many_rows_as_sweeps_without_a_seal_have() {
    let (dir, store, mut writer) = sealed_store();
    let some = RestoreRows {
        rows: all_rows(SECOND).rows.split_off(5),
        ..all_rows(SECOND)
    };
    writer.commit(some).expect("stored");
    let rows_read = |reads_all| {
        let counting = CountingStore::new(&store);
        let core = recover(&counting, None, reads_all);
        assert_eq!(core.sweep(FIRST).expect("a sweep").counts.done(), 8);
        assert_eq!(core.sweep(SECOND).expect("a sweep").counts.done(), 3);
        counting.rows_read()
    };

    assert_eq!((rows_read(false), rows_read(true)), (3, 11));
    connect(&dir)
        .execute("DELETE FROM seals", [])
        .expect("deleted");
    assert_eq!(rows_read(false), 11);
    drop(recover(&store, Some(writer.as_mut()), false));
    assert_eq!(rows_read(false), 3);
    writer.commit(all_rows(SECOND)).expect("stored");
    drop(recover(&store, Some(writer.as_mut()), false));
    let counting = CountingStore::new(&store);
    drop(recover(&counting, None, false));
    assert_eq!(counting.rows_read(), 0);
}

#[test]
fn a_sealed_sweep_with_audits_left_has_them_after_a_start() {
    let (_dir, store, mut writer) = sealed_store();
    let lease = lease(1, FIRST);
    let batch = results_of(FIRST, 1, all_results());
    let results = ergodic::store::StoreResults {
        chosen_for_audit: vec![key(0), key(2), key(3)],
        ..batch
    };
    let state = SetSweepState {
        sweep: SECOND,
        state: SweepState::Completed,
    };
    let results = ergodic::store::StoreResults {
        batch: ergodic::result_batch::ResultBatch {
            sweep: SECOND,
            ..results.batch
        },
        ..results
    };
    let lease = ergodic::records::LeaseRow {
        sweep: SECOND,
        ..lease
    };
    let insert = ergodic::store::InsertLease(lease);
    writer
        .commit(((insert, results), state))
        .expect("stored and sealed");
    let seal = read_seal(&store, SECOND).expect("a seal");
    assert_eq!((seal.audits.due, seal.audits.remaining()), (3, 3));

    let sealed = describe(&recover(&store, None, false), SECOND);
    assert!(sealed.contains("due: 3"), "{sealed}");
    assert!(sealed.contains("Pending"), "audits wait: {sealed}");
    let read = describe(&recover(&store, None, true), SECOND);
    assert_eq!(sealed, read);
}

#[test]
fn a_damaged_seal_is_noticed_and_made_anew() {
    let (dir, store, mut writer) = sealed_store();
    let whole = read_seal(&store, FIRST).expect("a seal");
    let wanted = describe(&recover(&store, None, false), FIRST);
    let connection = connect(&dir);

    for change in [
        "completed = completed + 1, failed = failed - 1",
        "failed = 7",
        "row_sum = row_sum + 1",
        "tallies = CAST(substr(tallies, 1, length(tallies) - 44) AS BLOB)",
        "tallies = CAST(x'02' || substr(tallies, 2) AS BLOB)",
        "checksum = checksum + 1",
        "sweep = 2",
        "completed = 'many'",
    ] {
        let sql = format!("UPDATE seals SET {change}");
        assert_eq!(connection.execute(&sql, []).expect("changed"), 1);
        assert_eq!(read_seal(&store, FIRST), None, "{change}");
        assert_eq!(read_seal(&store, SECOND), None, "{change}");

        assert_eq!(
            describe(&recover(&store, Some(writer.as_mut()), false), FIRST),
            wanted,
            "{change}"
        );
        assert_eq!(
            read_seal(&store, FIRST).as_ref(),
            Some(&whole),
            "{change}: it is not made anew"
        );
        connection
            .execute("DELETE FROM seals WHERE sweep <> 1", [])
            .expect("cleared");
    }
}

#[test]
fn whoever_verifies_finds_rows_that_are_not_those_that_were_sealed() {
    let (dir, store, mut writer) = sealed_store();
    let connection = connect(&dir);
    let lose = "DELETE FROM trials WHERE sweep = 1 AND cell = 3 AND repeat = 0";
    assert_eq!(connection.execute(lose, []).expect("deleted"), 1);

    let trusting = recover(&store, Some(writer.as_mut()), false);
    assert_eq!(trusting.sweep(FIRST).expect("a sweep").counts.done(), 8);
    let verified = recover(&store, Some(writer.as_mut()), true);
    let found = verified.sweep(FIRST).expect("a sweep");
    assert_eq!((found.state, found.counts.done()), (SweepState::Running, 7));

    // From then on every start runs the trial again.
    assert_eq!(read_seal(&store, FIRST), None);
    let later = recover(&store, Some(writer.as_mut()), false);
    let found = later.sweep(FIRST).expect("a sweep");
    assert_eq!((found.state, found.counts.done()), (SweepState::Running, 7));
}

#[test]
fn a_crash_before_the_last_state_was_stored_costs_one_reading_of_the_rows() {
    let (dir, store, mut writer) = sealed_store();
    // All rows of the sweep are there, and its state is still that of a running one.
    writer.commit(all_rows(SECOND)).expect("stored");
    let first = recover(&store, Some(writer.as_mut()), false);
    let wanted = describe(&first, SECOND);
    assert!(wanted.starts_with("Completed"), "{wanted}");
    assert!(read_seal(&store, SECOND).is_some());

    let connection = connect(&dir);
    connection
        .execute_batch("ALTER TABLE trials RENAME TO away")
        .expect("renamed");
    assert_eq!(
        describe(&recover(&store, Some(writer.as_mut()), false), SECOND),
        wanted
    );
}

#[test]
fn an_extension_removes_the_seal_with_the_file_that_it_was_for() {
    let (_dir, store, mut writer) = sealed_store();
    let extension = ExtendSweep {
        sweep: FIRST,
        from: source(2, ""),
        to: source(3, ""),
    };
    assert!(writer.commit(extension).expect("extended"));
    assert_eq!(read_seal(&store, FIRST), None);
    let core = recover(&store, Some(writer.as_mut()), false);
    let sweep = core.sweep(FIRST).expect("a sweep");
    assert_eq!(
        (sweep.state, sweep.counts.done(), sweep.total_trials()),
        (SweepState::Running, 8, 12)
    );
    assert_eq!(read_seal(&store, FIRST), None);
}

/// How long a start takes with ten completed sweeps of two thousand cells, with their seals and without, and how long it takes to make
/// one. `ERGODIC_SEALED_REPEATS=500` gives each sweep a million rows.
#[test]
#[ignore = "it measures"]
fn start_with_ten_sealed_sweeps() {
    let repeats =
        std::env::var("ERGODIC_SEALED_REPEATS").map_or(10, |n| n.parse().expect("a number"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(dir.path()).expect("opened");
    let mut writer = super::writer(&store);
    for number in 1..=10 {
        let row = SweepRow {
            source: SpecSource {
                text: source(repeats, "").text.replace(
                    "lr = [0.1, 0.2, 0.3, 0.4]",
                    "lr = { log = [0.001, 1.0], points = 40 }\nwd = { log = [1e-6, 1e-1], points = 50 }",
                ),
                ..source(repeats, "")
            },
            ..sealable(&format!("sweep{number}"))
        };
        writer.commit(InsertSweep(row)).expect("stored");

        for repeat in 0..repeats {
            let rows = (0..2000).map(|cell| StoredTrial {
                result: TrialResult {
                    key: TrialKey::new(cell, repeat),
                    curve: MetricCurve::default(),
                    ..result(repeat, 0)
                },
                worker: "w".into(),
            });
            let rows = RestoreRows {
                sweep: SweepNumber(number),
                rows: rows.collect(),
                attempts: Vec::new(),
            };
            writer.commit(rows).expect("stored");
        }

        let begun = Instant::now();
        writer
            .commit(completed(SweepNumber(number)))
            .expect("sealed");
        note(&format!(
            "sweep {number} of {} rows is sealed in {:.3?}",
            2000 * repeats,
            begun.elapsed()
        ));
    }

    for round in 0..3 {
        let begun = Instant::now();
        let core = recover(&store, None, false);
        note(&format!(
            "start {round} with ten seals: {:.3?}",
            begun.elapsed()
        ));
        assert!(
            core.sweeps()
                .all(|sweep| sweep.counts.done() == 2000 * u64::from(repeats))
        );
    }
    connect(&dir)
        .execute("DELETE FROM seals", [])
        .expect("unsealed");
    let begun = Instant::now();
    drop(recover(&store, None, false));
    note(&format!("start without seals: {:.3?}", begun.elapsed()));
}
