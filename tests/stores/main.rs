//! Both stores against a model, in histories with every write there is; and what only PostgreSQL has: leaders that change, and
//! a store of an earlier version.

mod counting;
mod history;
mod model;
mod seals;

use ergodic::store::postgres::PostgresStore;
use ergodic::store::{
    InsertLease, InsertSweep, ReadableStore as _, RetryFailed, SetRowsAside, Store, StoreError,
    StoreWriter, TrialRange,
};
use ergodic_common::TrialKey;
use ergodic_common::ids::{Epoch, SweepNumber};
use ergodic_tests::{Postgres, skip};
use history::{lease, result, results_of, sweep};

fn writer(store: &dyn Store) -> Box<dyn StoreWriter> {
    let leader = store.acquire_leadership("http://here").expect("claimed");
    assert!(leader.is_this);
    store.open_writer(leader.epoch).expect("a writer")
}

#[test]
fn a_leader_that_was_passed_over_writes_nothing() {
    let database = match Postgres::start() {
        Ok(database) => database,
        Err(why) => {
            return skip(
                "a_leader_that_was_passed_over_writes_nothing",
                "postgres",
                &why,
            );
        }
    };
    let first = PostgresStore::open(&database.url());

    let second = PostgresStore::open(&database.url());
    let first = first.expect("opened");
    let second = second.expect("opened");
    let mut old = writer(&first);
    old.commit(InsertSweep(sweep("abc"))).expect("it leads");

    let other = second.acquire_leadership("http://there").expect("asked");
    assert_eq!((other.is_this, other.url.as_str()), (false, "http://here"));
    database.ask("UPDATE term SET expires_at = '-infinity'");
    let leader = second.acquire_leadership("http://there").expect("claimed");
    assert_eq!((leader.is_this, leader.epoch), (true, Epoch(2)));
    let refused = old
        .commit(InsertSweep(sweep("abd")))
        .expect_err("another one leads");
    assert!(
        matches!(&refused, StoreError::Deposed(why) if why.contains("http://there")),
        "{refused}"
    );

    assert!(
        !first.renew_leadership(Epoch(1)).expect("asked")
            && second.renew_leadership(Epoch(2)).expect("asked")
    );
    first.resign_leadership(Epoch(1));
    assert!(
        second.renew_leadership(Epoch(2)).expect("asked"),
        "whoever leads no more can resign nothing"
    );

    second
        .open_writer(Epoch(2))
        .expect("a writer")
        .commit(RetryFailed(SweepNumber(1)))
        .expect("it leads");

    assert_eq!(
        second
            .open_reader()
            .expect("a reader")
            .read_sweeps()
            .expect("sweeps")
            .len(),
        1
    );
}

#[test]
fn a_damaged_row_in_postgres_is_named_and_set_aside() {
    let database = match Postgres::start() {
        Ok(database) => database,
        Err(why) => {
            return skip(
                "a_damaged_row_in_postgres_is_named_and_set_aside",
                "postgres",
                &why,
            );
        }
    };
    let store = PostgresStore::open(&database.url()).expect("opened");
    let mut writer = writer(&store);

    let batch = results_of(
        SweepNumber(1),
        1,
        vec![result(0, 3), result(1, 3), result(2, 0), result(3, 4)],
    );
    writer
        .commit((
            (
                InsertSweep(sweep("abc")),
                InsertLease(lease(1, SweepNumber(1))),
            ),
            (batch, RetryFailed(SweepNumber(1))),
        ))
        .expect("stored");

    let keys: Vec<TrialKey> = [0, 1, 2].map(history::key).to_vec();
    let damages = |all_of_it: bool| {
        let reader = store.open_reader().expect("a reader");
        let damages = match all_of_it {
            true => reader.read_intact_trials(SweepNumber(1), &mut |_| {}),
            false => reader.read_intact_ended_trials(SweepNumber(1), TrialRange::ALL, &mut |_| {}),
        };
        let damages = damages.expect("read");
        damages
            .iter()
            .map(|damage| (damage.key, damage.what))
            .collect::<Vec<_>>()
    };
    assert_eq!(damages(true), []);

    database.ask("UPDATE trials SET seconds = 0.5 WHERE cell = 0 AND repeat = 0");
    database.ask("UPDATE predictions SET data = data || '\\x01' WHERE cell = 0 AND repeat = 1");
    database.ask("UPDATE curves SET data = data || '\\x01' WHERE curve IN (SELECT curve FROM trials WHERE cell = 1 AND repeat = 0)");
    database.ask("UPDATE attempts SET cause = 'something else'");
    assert_eq!(damages(false), [(keys[0], "row")]);
    assert_eq!(
        damages(true),
        [
            (keys[0], "row"),
            (keys[1], "predictions"),
            (keys[2], "curve")
        ]
    );

    let reader = store.open_reader().expect("a reader");
    let told = reader
        .read_trial(SweepNumber(1), keys[2])
        .expect_err("it is damaged")
        .to_string();
    assert!(
        told.contains("the curve of the trial 1/0 of the sweep abc"),
        "{told}"
    );

    let told = reader
        .read_attempts(SweepNumber(1), history::key(3))
        .expect_err("it is damaged")
        .to_string();
    assert!(
        told.contains("the earlier attempt of the trial 1/1 of the sweep abc"),
        "{told}"
    );

    let aside = writer
        .commit(SetRowsAside {
            sweep: SweepNumber(1),
            keys: keys.clone(),
        })
        .expect("they are set aside");
    assert_eq!(aside, keys);

    assert_eq!(damages(true), []);
    writer
        .commit(results_of(
            SweepNumber(1),
            1,
            vec![result(0, 3), result(1, 3), result(2, 0)],
        ))
        .expect("stored again");

    let row = store
        .open_reader()
        .expect("a reader")
        .read_trial(SweepNumber(1), keys[1])
        .expect("read")
        .expect("a row");
    assert_eq!(
        format!("{:?}", row.result),
        format!("{:?}", result(1, 3)),
        "in words: NaN is not equal to itself"
    );

    database.ask("UPDATE sweeps SET text = 'something else'");
    let told = store
        .open_reader()
        .expect("a reader")
        .read_sweeps()
        .expect_err("it is damaged")
        .to_string();
    assert!(told.contains("the row of the sweep abc"), "{told}");
}

#[test]
fn a_database_of_the_first_version_is_brought_up_to_date() {
    let database = match Postgres::start() {
        Ok(database) => database,
        Err(why) => {
            return skip(
                "a_database_of_the_first_version_is_brought_up_to_date",
                "postgres",
                &why,
            );
        }
    };
    database.ask(include_str!(
        "../../coordinator/src/store/postgres/migrations/0001_initial.sql"
    ));

    database.ask(
        "UPDATE meta SET value = 1 WHERE key = 'schema';
         INSERT INTO sweeps (id, file, text, settings, data_train, data_words, state, launched_at, files, priority, weight)
             VALUES ('old', 'f', 't', '[]', 0, 'no data', 2, 1.0, '', 0, 1.0);
         INSERT INTO trials (sweep, cell, repeat, outcome, steps, seconds, worker, digest, metrics, isa)
             VALUES (1, 0, 0, 1, 5, 0.5, 'w', decode(repeat('00', 32), 'hex'), '', '');
         INSERT INTO curves SELECT curve, decode('00000000', 'hex') FROM trials;",
    );

    let store = PostgresStore::open(&database.url()).expect("brought up to date");
    assert_eq!(
        store
            .open_reader()
            .expect("a reader")
            .read_sweeps()
            .expect("read")[0]
            .id
            .as_str(),
        "old"
    );

    let row = store
        .open_reader()
        .expect("a reader")
        .read_trial(SweepNumber(1), TrialKey::new(0, 0));
    assert_eq!(
        row.expect("read")
            .expect("the row is still there")
            .result
            .steps,
        5
    );

    drop(store);
    PostgresStore::open(&database.url()).expect("opened once more");
}
