//! Completed sweeps are sealed: after a restart they answer what they would if their rows had been read.

use ergodic_tests::Cluster;
use rusqlite::Connection;

use crate::{postgres, repeated, trials};

/// What the log says of a sweep whose rows were not read.
const FROM_SEAL: &str = "sweep recovered from its seal";

fn stop(cluster: &mut Cluster) {
    let coordinator = cluster.take_coordinator();
    coordinator.signal("TERM");
    assert_eq!(coordinator.wait(), 0);
}

/// Starts a coordinator; the log of all starts says this many times that a seal was read in place of rows.
fn restart(cluster: &mut Cluster, seals_read: usize) {
    cluster.restart_coordinator(&[]);
    let log = cluster.coordinator().log();
    assert_eq!(log.matches(FROM_SEAL).count(), seals_read, "{log}");
}

fn answers(cluster: &Cluster, id: &str) -> Vec<String> {
    let asked: [&[&str]; 8] = [
        &["status", id, "--format", "json"],
        &["list", "--format", "json"],
        &["table", id, "--format", "csv"],
        &["trials", id, "--format", "csv"],
        &["curves", id, "--format", "csv"],
        &["compare", id, "--baseline", "lr=0.05", "--format", "csv"],
        &["explain", id],
        &["explain", id, "0/1"],
    ];
    asked.iter().map(|words| cluster.ask(words)).collect()
}

/// Runs a sweep to its end, and restarts a coordinator that finds it sealed, then one that does not.
fn answers_alike(mut cluster: Cluster, unseal: impl Fn(&Cluster)) {
    let text = repeated(2);
    let worker = cluster.worker(2, &[]);
    let id = cluster.launch(&text);
    cluster.wait_for_end(&id);
    worker.signal("TERM");
    assert_eq!(worker.wait(), 0);
    stop(&mut cluster);

    restart(&mut cluster, 1);
    let sealed = answers(&cluster, &id);
    stop(&mut cluster);
    unseal(&cluster);
    restart(&mut cluster, 1);
    assert_eq!(answers(&cluster, &id), sealed);

    // That start has sealed it again. Its results are those of an equal sweep, and of a part of a larger one.
    stop(&mut cluster);
    restart(&mut cluster, 2);
    let again = cluster.path("again.toml");
    std::fs::write(&again, &text).expect("a file can be written");
    let said = cluster.run(&["launch", &again.to_string_lossy()]).stderr;
    let all = format!("{id} has the results of all these trials");
    assert!(said.contains(&all), "{said}");

    let begun = cluster.done().begun;
    let worker = cluster.worker(2, &[]);
    let wider = text.replace("wd = [0.0, 1e-3]", "wd = [0.0, 1e-3, 1e-2]");
    assert_ne!(wider, text);
    std::fs::write(&again, wider).expect("a file can be written");
    let wider = cluster.ask(&["launch", &again.to_string_lossy()]);
    cluster.wait_for_end(wider.trim());
    assert_eq!(
        cluster.done().begun - begun,
        3 * 2,
        "what the sealed sweep has is not run"
    );

    // An extension runs what is missing, and the sweep is sealed once more at its end.
    cluster.ask(&["extend", &id, "--repeats", "4"]);
    cluster.wait_for_end(&id);
    assert_eq!(
        cluster.done().begun - begun - 3 * 2,
        trials(2),
        "exactly the missing ones were run"
    );
    let extended = cluster.rows(&id);
    worker.kill();
    stop(&mut cluster);
    restart(&mut cluster, 4);
    assert_eq!(cluster.rows(&id), extended);
    assert_eq!(cluster.status(&id)["done"], trials(4));

    let mut control = Cluster::start(&[]);
    let _worker = control.worker(2, &[]);
    let at_once = control.launch(&repeated(4));
    control.wait_for_end(&at_once);
    assert_eq!(extended, control.rows(&at_once));
}

#[test]
fn a_sealed_sweep_answers_as_if_its_rows_had_been_read() {
    let cluster = Cluster::counted(&[]);
    answers_alike(cluster, |cluster| {
        let store = Connection::open(cluster.path("store/ergodic.sqlite")).expect("a store");
        let unsealed = store
            .execute("DELETE FROM seals", [])
            .expect("it can be written");
        assert_eq!(unsealed, 1);
    });
}

#[test]
fn a_sealed_sweep_on_postgres_answers_as_if_its_rows_had_been_read() {
    let name = "a_sealed_sweep_on_postgres_answers_as_if_its_rows_had_been_read";
    let Some(database) = postgres::database(name) else {
        return;
    };
    let files = tempfile::tempdir().expect("a temporary directory");
    let cluster = postgres::on(&database, &files).counting();
    answers_alike(cluster, |_| {
        database.ask("DELETE FROM seals");
    });
}

#[test]
fn a_coordinator_that_is_killed_as_a_sweep_ends_loses_no_row() {
    let mut cluster = Cluster::start(&["--lease-ttl", "2s"]);
    let worker = cluster.worker(2, &[]);
    let mut ended = Vec::new();

    for repeats in 1..4 {
        let id = cluster.launch(&repeated(repeats));
        cluster.wait_for_end(&id);
        let rows = cluster.rows(&id);
        cluster.kill_and_restart_coordinator();
        let status = cluster.wait_for_end(&id);
        assert_eq!(status["done"], trials(repeats), "{status}");
        ended.push((id, rows));
    }

    // Whether a sweep was sealed before its coordinator was killed, or by the next one, or is not yet.
    worker.kill();
    for _ in 0..2 {
        stop(&mut cluster);
        cluster.restart_coordinator(&[]);
        for (id, rows) in &ended {
            assert_eq!(cluster.status(id)["state"], "completed");
            assert_eq!(cluster.rows(id), *rows);
        }
    }
}
