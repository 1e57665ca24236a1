//! Both stores, given the same history, answer alike at every step; and what only PostgreSQL has: leaders that change.

use ergodic::core::interval::IntervalSet;
use ergodic::core::{DataPin, Ended, Fence, LeaseRow, SweepRow, SweepState, Tallies};
use ergodic::store::postgres::PostgresStore;
use ergodic::store::sqlite::SqliteStore;
use ergodic::store::{Batch, Reader, Store, StoreError, Write, Writer, Written};
use ergodic_common::spec::SpecSource;
use ergodic_common::terms::Share;
use ergodic_common::trial::{Curve, Predictions};
use ergodic_common::{Outcome, TrialKey, TrialResult};
use ergodic_tests::{Postgres, skip};
use proptest::prelude::*;

fn key(n: u32) -> TrialKey {
    TrialKey { cell: u64::from(n / 2), repeat: n % 2 }
}

fn result(n: u32, kind: u8) -> TrialResult {
    let metric = if kind == 1 { f64::NAN } else { f64::from(kind) };
    let plain = TrialResult {
        steps: 10,
        seconds: 0.25,
        metrics: vec![metric, -0.0],
        digest: [n as u8; 32],
        curve: Curve { steps: vec![5, 10], values: vec![1.0, f64::NAN, metric, -0.0] },
        isa: "avx2".into(),
        ..TrialResult::completed(key(n))
    };
    match kind {
        2 => TrialResult { outcome: Outcome::Diverged { step: 4 }, ..plain },
        3 => TrialResult {
            predictions: Predictions { steps: vec![5], classes: vec![1, 2] },
            weights: Some([7; 32]),
            ..plain
        },
        4 => TrialResult { outcome: Outcome::Failed { cause: "a b".into() }, ..plain },
        _ => plain,
    }
}

/// A step of a history. Sweeps are numbered 1 and 2, leases 1 to 6; of either, some are not there.
fn step() -> impl Strategy<Value = Write> {
    let fence = || (1..7_u64, 1..3_u64).prop_map(|(lease, epoch)| Fence { lease, epoch });
    let results = || proptest::collection::vec((0..8_u32, 0..5_u8).prop_map(|(n, kind)| result(n, kind)), 0..8);
    let state = proptest::sample::select(SweepState::ALL.to_vec());
    prop_oneof![
        1 => Just(Write::Sweep(sweep("abx"))),
        4 => (fence(), 1..3_i64).prop_map(|(fence, sweep)| {
            let trials = IntervalSet::of(fence.lease, fence.lease + 10);
            let audits = (fence.lease % 2 == 0).then(|| "v".to_owned());
            Write::Lease(LeaseRow { fence, sweep, class: 1, worker: "w".into(), trials, audits })
        }),
        1 => (fence(), 1..3_i64).prop_map(|(fence, sweep)| {
            let trials = IntervalSet::of(fence.lease, fence.lease + 5);
            Write::Shrink(LeaseRow { fence, sweep, class: 1, worker: "w".into(), trials, audits: None })
        }),
        1 => (1..3_i64, -3..4_i32).prop_map(|(sweep, priority)| Write::Share(sweep, Share { priority, weight: 0.5 })),
        2 => proptest::collection::vec((fence(), any::<bool>()).prop_map(|(fence, lost)| Ended { fence, lost }), 0..3)
            .prop_map(Write::EndLeases),
        1 => (1..3_i64, state).prop_map(|(sweep, state)| Write::State(sweep, state)),
        8 => (1..3_i64, fence(), results(), 0..4_u8, "[vw]").prop_map(|(sweep, fence, results, how, process)| {
            // The first repeats.
            let chosen = results.iter().map(|result| result.key).filter(|key| key.repeat == 0).collect();
            let (compare_only, audit) = (how == 0, how == 1);
            let worker = process.clone();
            Write::Results(Batch { sweep, fence, worker, process, results, compare_only, audit, chosen })
        }),
        1 => (1..3_i64, 0..8_u32).prop_map(|(sweep, n)| Write::AuditFailed(sweep, key(n), "it kills".into())),
        1 => (1..3_i64, 0..8_u32).prop_map(|(sweep, n)| Write::Verdict(sweep, TrialResult::failed(key(n), "it kills".into(), 2))),
        1 => (1..3_i64).prop_map(Write::Retry),
    ]
}

fn sweep(id: &str) -> SweepRow {
    SweepRow {
        number: 0,
        id: id.into(),
        source: SpecSource { file: "f".into(), text: "t".into(), settings: vec!["a=\"1\"".into()], files: Vec::new() },
        data: DataPin { hash: (id == "abc").then_some([7; 32]), train: 5, words: "five".into() },
        state: SweepState::Running,
        launched_at: 1.5,
        tallies: Tallies::default(),
        share: Share::default(),
    }
}

/// All that a store can be asked, in words: NaN is not equal to itself.
fn view(store: &dyn Store) -> String {
    let reader = store.reader().expect("a reader");
    let mut view = format!("{:?}\n{:?}\n", reader.sweeps().expect("sweeps"), reader.leases().expect("leases"));
    for sweep in 1..3 {
        view += &of_sweep(reader.as_ref(), sweep);
    }
    view
}

fn of_sweep(reader: &dyn Reader, sweep: i64) -> String {
    let mut view = String::new();
    let mut add = |what: String| view += &(what + "\n");
    reader
        .trials(sweep, &mut |row| {
            add(format!("{row:?}"));
            true
        })
        .expect("rows");
    reader.curves(sweep, &mut |key, curve| add(format!("{key} {curve:?}"))).expect("curves");
    reader
        .predictions(sweep, &mut |key, what| {
            add(format!("{key} {what:?}"));
            true
        })
        .expect("predictions");
    add(format!("{:?}", reader.audits(sweep)));
    for n in 0..8 {
        let audit = reader.audit(sweep, key(n));
        add(format!("{:?} {:?} {audit:?}", reader.trial(sweep, key(n)), reader.attempts(sweep, key(n))));
    }
    view
}

fn writer(store: &dyn Store) -> Box<dyn Writer> {
    let leader = store.claim("http://here").expect("claimed");
    assert!(leader.is_this);
    store.writer(leader.epoch).expect("a writer")
}

/// What became of a write; of errors only that they were some.
fn fate(result: Result<Vec<Written>, StoreError>) -> Option<Vec<Written>> {
    result.ok()
}

#[test]
fn both_stores_answer_alike() {
    let database = match Postgres::start() {
        Ok(database) => database,
        Err(why) => return skip("both_stores_answer_alike", "postgres", &why),
    };
    let mut case = 0;
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    let history = proptest::collection::vec(proptest::collection::vec(step(), 1..4), 1..16);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let counter = std::cell::RefCell::new(&mut case);
    let result = runner.run(&history, |groups| {
        let number = {
            let mut case = counter.borrow_mut();
            **case += 1;
            **case
        };
        database.ask(&format!("CREATE SCHEMA s{number}"));
        let postgres =
            PostgresStore::open(&format!("{}&options[search_path]=s{number}", database.url())).expect("opened");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sqlite = SqliteStore::open(dir.path()).expect("opened");
        let (mut a, mut b) = (writer(&sqlite), writer(&postgres));
        let both = [Write::Sweep(sweep("abx")), Write::Sweep(sweep("aby"))];
        for group in std::iter::once(both.to_vec()).chain(groups) {
            let group: Vec<&Write> = group.iter().collect();
            prop_assert_eq!(fate(a.commit(&group)), fate(b.commit(&group)));
            prop_assert_eq!(view(&sqlite), view(&postgres));
        }
        Ok(())
    });
    assert!(result.is_ok(), "{}", result.expect_err("it failed"));
}

#[test]
fn a_leader_that_was_passed_over_writes_nothing() {
    let database = match Postgres::start() {
        Ok(database) => database,
        Err(why) => return skip("a_leader_that_was_passed_over_writes_nothing", "postgres", &why),
    };
    let (first, second) = (PostgresStore::open(&database.url()), PostgresStore::open(&database.url()));
    let (first, second) = (first.expect("opened"), second.expect("opened"));
    let mut old = writer(&first);
    old.commit(&[&Write::Sweep(sweep("abc"))]).expect("it leads");
    let other = second.claim("http://there").expect("asked");
    assert_eq!((other.is_this, other.url.as_str()), (false, "http://here"));
    database.ask("UPDATE term SET expires_at = '-infinity'");
    let leader = second.claim("http://there").expect("claimed");
    assert_eq!((leader.is_this, leader.epoch), (true, 2));
    let refused = old.commit(&[&Write::Sweep(sweep("abd"))]).expect_err("another one leads");
    assert!(matches!(&refused, StoreError::Deposed(why) if why.contains("http://there")), "{refused}");
    assert!(!first.renew(1).expect("asked") && second.renew(2).expect("asked"));
    first.resign(1);
    assert!(second.renew(2).expect("asked"), "whoever leads no more can resign nothing");
    second.writer(2).expect("a writer").commit(&[&Write::Retry(1)]).expect("it leads");
    assert_eq!(second.reader().expect("a reader").sweeps().expect("sweeps").len(), 1);
}
