//! Coordinators on a PostgreSQL database: the same rows as on SQLite, whatever happens to the server or to the leader.

use ergodic_tests::{Cluster, Postgres, run, skip};

use crate::{SWEEP, empty_sweep, repeated};

/// A database, unless it has to be skipped.
fn database(test: &str) -> Option<Postgres> {
    Postgres::start().map_err(|why| skip(test, "postgres", &why)).ok()
}

fn on(database: &Postgres, files: &tempfile::TempDir) -> Cluster {
    let files = files.path().to_string_lossy().into_owned();
    Cluster::start(&["--store", &database.url(), "--files", &files, "--lease-ttl", "2s"])
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The rows of a sweep whose store is a directory and to which nothing happens.
fn undisturbed(sweep: &str) -> String {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(sweep);
    cluster.wait_for_end(&id);
    cluster.rows(&id)
}

#[test]
fn a_sweep_on_postgres_has_the_rows_it_has_on_sqlite_and_no_log_tells_the_password() {
    let Some(database) = database("a_sweep_on_postgres_has_the_rows_it_has_on_sqlite") else { return };
    let files = folder();
    let mut cluster = on(&database, &files);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(SWEEP);
    cluster.wait_for_end(&id);
    assert_eq!(cluster.rows(&id), undisturbed(SWEEP));
    assert!(cluster.ask(&["curves", &id, "--format", "csv"]).lines().count() > 6, "every cell has a curve");
    let log = cluster.take_coordinator().log();
    assert!(!log.contains("not-to-be-told"), "{log}");
}

#[test]
fn a_database_that_restarts_costs_nothing_but_time() {
    let Some(database) = database("a_database_that_restarts_costs_nothing_but_time") else { return };
    let files = folder();
    let mut cluster = on(&database, &files);
    let id = cluster.launch(&empty_sweep(20_000));
    let _worker = cluster.worker(2, &[]);
    for done in [1, 5_000] {
        cluster.wait_until(&id, "it is under way", |status| status["done"].as_u64() >= Some(done));
        database.restart();
    }
    let status = cluster.wait_for_end(&id);
    assert_eq!((&status["completed"], &status["mismatches"]), (&20_000.into(), &0.into()));
    assert_eq!(cluster.rows(&id).lines().count(), 20_001);
    assert_eq!(database.ask("SELECT epoch FROM leader"), "1", "the same coordinator went on");
}

#[test]
fn another_coordinator_takes_over_when_the_leader_is_killed() {
    let Some(database) = database("another_coordinator_takes_over_when_the_leader_is_killed") else { return };
    let files = folder();
    let sweep = repeated(60);
    let mut first = on(&database, &files);
    let worker = first.worker(1, &[]);
    let id = first.launch(&sweep);
    first.wait_until(&id, "it is under way", |status| status["done"].as_u64() > Some(0));
    first.take_coordinator().kill();
    worker.kill();
    // Comes up when the time of the one before is over.
    let mut second = on(&database, &files);
    assert_ne!(second.status(&id)["state"], "completed", "it was killed in mid-sweep");
    let _worker = second.worker(2, &[]);
    second.wait_for_end(&id);
    assert_eq!(second.rows(&id), undisturbed(&sweep));
    assert_eq!(database.ask("SELECT epoch FROM leader"), "2");
}

#[test]
fn a_leader_that_slept_longer_than_its_time_writes_nothing_any_more() {
    let Some(database) = database("a_leader_that_slept_longer_than_its_time_writes_nothing_any_more") else { return };
    let files = folder();
    let sweep = repeated(60);
    let mut first = on(&database, &files);
    let _old = first.worker(1, &[]);
    let id = first.launch(&sweep);
    first.wait_until(&id, "it is under way", |status| status["done"].as_u64() > Some(0));
    let sleeper = first.take_coordinator();
    sleeper.signal("STOP");
    let mut second = on(&database, &files);
    let _new = second.worker(2, &[]);
    second.wait_for_end(&id);
    let written = || database.ask("SELECT epoch, commits FROM leader");
    let before = written();
    assert!(before.starts_with("2|"), "{before}");
    sleeper.signal("CONT");
    assert_eq!(sleeper.wait(), 4);
    assert_eq!(written(), before, "nobody else has written");
    assert_eq!(second.rows(&id), undisturbed(&sweep));
}

#[test]
fn databases_that_will_not_do_are_refused_without_telling_the_password() {
    let Some(database) = database("databases_that_will_not_do_are_refused") else { return };
    let files = folder();
    let dir = files.path().to_string_lossy().into_owned();
    let serve = |url: &str| run(&["serve", "--listen", "127.0.0.1:0", "--files", &dir, "--store", url]);
    drop(on(&database, &files));
    database.ask("UPDATE meta SET value = 99 WHERE key = 'schema'");
    let nowhere = "postgres://somebody:not-to-be-told@localhost/x?host=/nowhere";
    for (url, code, words) in [
        (database.url(), 4, "schema version 99, this program knows up to"),
        (nowhere.to_owned(), 4, "the database x at /nowhere"),
        (nowhere.replace("host=", "hots="), 4, "no parameter 'hots'"),
        ("postgres://a:not-to-be-told@[/x".to_owned(), 4, "this is no URL of a database"),
    ] {
        let refused = serve(&url);
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.stderr.contains(words), "{refused:?}");
        assert!(!refused.stderr.contains("not-to-be-told"), "{refused:?}");
    }
    let refused = run(&["serve", "--listen", "127.0.0.1:0", "--store", &database.url()]);
    assert!(refused.code == 2 && refused.stderr.contains("--files"), "{refused:?}");
}
