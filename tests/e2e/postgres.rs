//! Coordinators on a PostgreSQL database: the same rows as on SQLite, whatever happens to the server or to the leader.

use ergodic_tests::{Cluster, Postgres, note, run, skip, wait_for};

use crate::{SWEEP, empty_sweep, files, http, repeated, trials};

/// A database, unless it has to be skipped.
pub(crate) fn database(test: &str) -> Option<Postgres> {
    Postgres::start()
        .map_err(|why| skip(test, "postgres", &why))
        .ok()
}

pub(crate) fn on(database: &Postgres, files: &tempfile::TempDir) -> Cluster {
    with(database, files, &[])
}

fn with(database: &Postgres, files: &tempfile::TempDir, options: &[&str]) -> Cluster {
    let url = database.url();
    let files = files.path().to_string_lossy().into_owned();
    Cluster::start(
        &[
            &["--store", &url, "--files", &files, "--lease-ttl", "2s"],
            options,
        ]
        .concat(),
    )
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
    let Some(database) = database("a_sweep_on_postgres_has_the_rows_it_has_on_sqlite") else {
        return;
    };
    let files = folder();
    let mut cluster = on(&database, &files);
    let _worker = cluster.worker(2, &[]);

    let id = cluster.launch(SWEEP);
    cluster.wait_for_end(&id);
    assert_eq!(cluster.rows(&id), undisturbed(SWEEP));
    assert!(
        cluster
            .ask(&["curves", &id, "--format", "csv"])
            .lines()
            .count()
            > 6,
        "every cell has a curve"
    );

    let log = cluster.take_coordinator().log();
    assert!(!log.contains("not-to-be-told"), "{log}");
}

#[test]
fn a_database_that_restarts_costs_nothing_but_time() {
    let Some(database) = database("a_database_that_restarts_costs_nothing_but_time") else {
        return;
    };
    let files = folder();
    let mut cluster = on(&database, &files);
    let id = cluster.launch(&empty_sweep(20_000));

    let _worker = cluster.worker(2, &[]);
    for done in [100, 5_000] {
        cluster.gate.hold_after(done);
        cluster.wait_until_held(&id, done.into());
        // Half of them are done while the server stops and starts.
        cluster.gate.hold_after(2 * done);
        database.restart();
    }

    cluster.gate.open();
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["completed"], &status["mismatches"]),
        (&20_000.into(), &0.into())
    );

    assert_eq!(cluster.rows(&id).lines().count(), 20_001);
    let epoch = database.ask("SELECT epoch FROM leader");
    note(&format!(
        "a database that restarted twice was led in epoch {epoch} (1: both times within the claim to lead)"
    ));
}

#[test]
fn a_coordinator_that_stands_by_answers_reads_and_takes_over_when_the_leader_is_killed() {
    let Some(database) = database("a_coordinator_that_stands_by_answers_reads_and_takes_over")
    else {
        return;
    };
    let files = folder();
    let sweep = repeated(60);

    let mut first = on(&database, &files);
    let mut second = with(&database, &files, &["--http", "127.0.0.1:0"]);
    second.wait_for_log("standing by");

    // What the second one does not do, it has done: launching, sending files along, steering, giving out work.
    std::fs::write(second.path("floats.safetensors"), files::glyphs_file(true)).expect("written");
    let filed = second.launch(&files::sweep("floats.safetensors", ""));
    second.ask(&["cancel", &filed]);
    second.gate.hold_after(2);
    let id = second.launch(&sweep);
    let _worker = second.worker(1, &[]);

    second.wait_until_held(&id, trials(2));
    second.ask(&["pause", &id]);
    assert_eq!(first.status(&id)["state"], "paused");
    assert_eq!(second.rows(&id), first.rows(&id));

    for asked in [
        &["table", &id, "--format", "json"][..],
        &["curves", &id, "--format", "csv"],
    ] {
        assert_eq!(second.ask(asked), first.ask(asked));
    }

    second.wait_until(&id, "it is read anew", |status| {
        status["done"] == first.status(&id)["done"]
    });
    assert_eq!(second.status(&id)["leader"], first.url.as_str());
    assert_eq!(first.status(&id)["leader"], serde_json::Value::Null);
    assert_eq!(
        second.ask(&["workers", "--format", "csv"]).lines().count(),
        2,
        "the leader knows the worker"
    );

    let http = http::address(&second);
    let (code, why) = http::get(&http, "/readyz");
    assert!(code == 503 && why.contains(&first.url), "{code} {why}");
    assert_eq!(http::get(&http, "/readyz/reads").0, 200);
    let leads = || http::get(&http, "/metrics").1.contains("ergodic_leads 1\n");
    assert!(!leads());

    second.ask(&["resume", &id]);
    first.take_coordinator().kill();
    let killed = std::time::Instant::now();
    second.wait_for_log("leading epoch=2");
    second.gate.open();
    note(&format!(
        "another coordinator led {:.1} s after the leader was killed",
        killed.elapsed().as_secs_f64()
    ));

    second.wait_for_end(&id);
    assert_eq!(second.rows(&id), undisturbed(&sweep));
    assert_eq!(database.ask("SELECT epoch FROM leader"), "2");
    assert!(leads() && http::get(&http, "/readyz").0 == 200);
}

#[test]
fn a_leader_that_slept_longer_than_its_time_stands_by_and_leads_again_in_turn() {
    let Some(database) =
        database("a_leader_that_slept_longer_than_its_time_stands_by_and_leads_again")
    else {
        return;
    };

    let files = folder();
    let sweep = repeated(60);
    let mut first = on(&database, &files);
    first.gate.hold_after(2);
    let _old = first.worker(1, &[]);
    let id = first.launch(&sweep);
    first.wait_until_held(&id, trials(2));

    first.coordinator().freeze();
    let mut second = on(&database, &files);
    second.wait_for_log("leading epoch=2");

    // Who asks is not left waiting by one that takes connections and says nothing.
    assert_eq!(run(&["list", "--coordinator", &first.url]).code, 3);
    let either = format!("{},{}", first.url, second.url);
    assert_eq!(run(&["status", &id, "--coordinator", &either]).code, 0);
    let _new = second.worker(2, &[]);
    second.wait_for_end(&id);
    first.gate.open();

    second.coordinator().freeze();
    first.coordinator().thaw();
    first.wait_for_log("standing by");

    // It takes over in turn, and the other one stands by.
    first.wait_for_log("leading epoch=3");
    assert_eq!(first.rows(&id), undisturbed(&sweep));
    assert_eq!(first.status(&id)["mismatches"], 0);
    second.coordinator().thaw();
    second.wait_until(&id, "it stands by", |status| {
        status["leader"] == first.url.as_str()
    });

    assert_eq!(second.rows(&id), first.rows(&id));
}

#[test]
fn a_leader_whose_database_is_gone_for_longer_than_its_claim_lasts_comes_back() {
    let Some(database) =
        database("a_leader_whose_database_is_gone_for_longer_than_its_claim_lasts")
    else {
        return;
    };

    let files = folder();
    let sweep = repeated(60);
    let mut cluster = with(&database, &files, &["--http", "127.0.0.1:0"]);
    let http = http::address(&cluster);
    cluster.gate.hold_after(2);
    let _worker = cluster.worker(1, &[]);

    let id = cluster.launch(&sweep);
    cluster.wait_until_held(&id, trials(2));
    database.stop();
    cluster.gate.open();
    cluster.wait_for_log("the leadership has expired");
    wait_for("it says that it cannot read", || {
        http::get(&http, "/readyz/reads").0 == 503
    });

    database.go_on();
    cluster.wait_for_log("leading epoch=2");
    let status = cluster.wait_for_end(&id);
    assert_eq!(status["mismatches"], 0);
    assert_eq!(cluster.rows(&id), undisturbed(&sweep));
}

#[test]
fn a_coordinator_that_starts_before_its_database_waits_for_it_and_says_so() {
    let Some(database) = database("a_coordinator_that_starts_before_its_database_waits_for_it")
    else {
        return;
    };
    let files = folder();
    database.stop();

    let mut cluster = with(&database, &files, &["--http", "127.0.0.1:0"]);
    cluster.wait_for_log("does not answer");
    assert_eq!(http::get(&http::address(&cluster), "/healthz").0, 200);
    assert_eq!(http::get(&http::address(&cluster), "/readyz").0, 503);
    database.go_on();
    cluster.wait_for_log("leading epoch=1");

    let id = cluster.launch(&empty_sweep(10));
    let _worker = cluster.worker(1, &[]);
    assert_eq!(cluster.wait_for_end(&id)["completed"], 10);
}

#[test]
fn databases_that_will_not_do_are_refused_without_telling_the_password() {
    let Some(database) = database("databases_that_will_not_do_are_refused") else {
        return;
    };
    let files = folder();
    let dir = files.path().to_string_lossy().into_owned();
    let serve = |url: &str| {
        run(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--files",
            &dir,
            "--store",
            url,
        ])
    };

    drop(on(&database, &files));
    database.ask("UPDATE meta SET value = 99 WHERE key = 'schema'");
    let nowhere = "postgres://somebody:not-to-be-told@localhost/x?host=/nowhere";
    for (url, code, words) in [
        (
            database.url(),
            4,
            "schema version 99, this program knows up to",
        ),
        (nowhere.to_owned(), 4, "the database x at /nowhere"),
        (nowhere.replace("host=", "hots="), 4, "no parameter 'hots'"),
        (
            "postgres://a:not-to-be-told@[/x".to_owned(),
            4,
            "this is not the URL of a database",
        ),
    ] {
        let refused = serve(&url);
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.stderr.contains(words), "{refused:?}");
        assert!(!refused.stderr.contains("not-to-be-told"), "{refused:?}");
    }

    let refused = run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--store",
        &database.url(),
    ]);
    assert!(
        refused.code == 2 && refused.stderr.contains("--artifacts"),
        "{refused:?}"
    );
}
