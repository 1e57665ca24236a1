//! Files of the store that are torn or garbage: a coordinator starts and loses nothing, or says by name what is wrong.

use std::path::{Path, PathBuf};

use ergodic_tests::{Cluster, Finished, run};
use rusqlite::Connection;

use crate::{reach, trials, work};

/// A finished sweep in a store that nobody has open: the cluster, and the database's path.
fn finished(text: &str) -> (Cluster, PathBuf) {
    let mut cluster = Cluster::start(&[]);
    let worker = cluster.worker(2, &[]);
    let id = cluster.launch(text);
    cluster.wait_for_end(&id);
    worker.signal("TERM");
    assert_eq!(worker.wait(), 0);

    stop(&mut cluster);
    let database = cluster.path("store/ergodic.sqlite");
    (cluster, database)
}

fn stop(cluster: &mut Cluster) {
    let coordinator = cluster.take_coordinator();
    coordinator.signal("TERM");
    assert_eq!(coordinator.wait(), 0);
}

/// A coordinator that does not want to start on the cluster's store.
fn refused(cluster: &Cluster) -> Finished {
    let store = cluster.path("store").to_string_lossy().into_owned();
    let finished = run(&["serve", "--store", &store, "--listen", "127.0.0.1:0"]);
    assert!(
        finished.code == 70 && finished.stdout.is_empty(),
        "{finished:?}"
    );
    finished
}

#[test]
fn a_database_that_is_none_is_named() {
    let (cluster, database) = finished(&crate::empty_sweep(3));
    let whole = std::fs::read(&database).expect("the database can be read");
    let path = database.to_string_lossy().into_owned();
    let garbage: Vec<u8> = (0..whole.len()).map(|i| (i * 7 + i / 251) as u8).collect();
    for content in [&garbage, &whole[..whole.len() / 2].to_vec()] {
        std::fs::write(&database, content).expect("the database can be written");
        let words = refused(&cluster).stderr;
        assert!(words.contains(&path), "{words}");
    }
}

#[test]
fn what_a_torn_write_ahead_log_lacks_is_run_again() {
    let (text, wanted) = work();
    let mut cluster = Cluster::counted(&["--lease-ttl", "2s"]);
    let id = cluster.launch(&text);

    // From here on the sweep itself is in the database, and its rows are ahead of it.
    stop(&mut cluster);
    cluster.restart_coordinator(&[]);
    cluster.gate.hold_after(20);
    let worker = cluster.worker(2, &[]);
    reach(&cluster, &id, 20);
    cluster.take_coordinator().kill();

    worker.kill();
    cluster.gate.open();
    let log = cluster.path("store/ergodic.sqlite-wal");
    let whole = std::fs::read(&log).expect("what was written ahead");

    // In the middle of a page, and with nonsense in the last pages.
    let mut nonsense = whole.clone();
    let from = whole.len() * 4 / 5;
    nonsense[from..]
        .iter_mut()
        .for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7));
    let torn = whole[..whole.len() / 2 + 1000].to_vec();

    let store = cluster.path("store");
    let copy = cluster.path("copy");
    copy_folder(&store, &copy);
    let stored = rows_of(&copy, &cluster.path("looked-at"));
    assert!(stored >= trials(20), "{stored} rows are stored");

    for content in [nonsense, torn] {
        copy_folder(&copy, &store);
        std::fs::write(&log, content).expect("the log can be written");
        cluster.restart_coordinator(&[]);
        let left = cluster.status(&id);
        assert!(
            left["done"].as_u64() < Some(stored),
            "the log lacked nothing: {left}"
        );

        let worker = cluster.worker(2, &[]);
        cluster.wait_for_end(&id);
        assert_eq!(cluster.rows(&id), wanted);
        worker.kill();
        stop(&mut cluster);
    }
}

/// Rows that a store has, by a copy of it: whoever looks brings what was written ahead into the database.
fn rows_of(store: &Path, copy: &Path) -> u64 {
    copy_folder(store, copy);
    let connection =
        Connection::open(copy.join("ergodic.sqlite")).expect("the database can be opened");
    connection
        .query_row("SELECT count(*) FROM trials", [], |row| {
            row.get::<_, i64>(0)
        })
        .expect("a number") as u64
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from)
        .expect("a folder")
        .flatten()
        .filter(|entry| entry.path().is_file())
    {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
    }
}

/// Flips a bit of what a query yields, in the database's file.
fn flip(database: &Path, query: &str) {
    let connection = Connection::open(database).expect("the database can be opened");
    let value = connection
        .query_row(query, [], |row| Ok(row.get_ref(0)?.as_bytes()?.to_vec()))
        .expect("a value");

    // Closing it brings what was written ahead into the database.
    drop(connection);
    let mut bytes = std::fs::read(database).expect("the database can be read");
    // A long value is spread over pages; pages that are in use no more may have it, too.
    let length = value.len().min(512);
    let places = |piece: &[u8]| -> Vec<usize> {
        let windows = bytes.windows(length).enumerate();
        windows
            .filter(|(_, window)| *window == piece)
            .map(|(at, _)| at)
            .collect()
    };
    let found = value
        .windows(length)
        .step_by(length / 2)
        .map(places)
        .find(|places| !places.is_empty());
    for at in found.expect("the file has the value") {
        bytes[at + length / 2] ^= 1;
    }

    std::fs::write(database, bytes).expect("the database can be written");
}

#[test]
fn a_bit_that_flips_in_the_store_is_named_and_its_trial_run_again() {
    let (mut cluster, database) = finished(crate::weights::KEEPING);
    cluster.restart_coordinator(&[]);
    let answers = |cluster: &Cluster| {
        (
            cluster.rows("latest"),
            cluster.ask(&["curves", "latest"]),
            cluster.ask(&["predictions", "latest"]),
        )
    };
    let wanted = answers(&cluster);

    let id = cluster.status("latest")["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    stop(&mut cluster);

    // A sweep's row: it says what all the others mean.
    flip(&database, "SELECT text FROM sweeps");
    let words = refused(&cluster).stderr;
    assert!(
        words.contains(&format!("the row of the sweep {id}")) && words.contains("backup"),
        "{words}"
    );

    flip(&database, "SELECT text FROM sweeps");

    // A trial's row in a sealed sweep is not read at the start: whoever reads it is told, and a start that verifies sets it aside.
    flip(
        &database,
        "SELECT digest FROM trials WHERE cell = 0 AND repeat = 1",
    );
    cluster.restart_coordinator(&[]);
    assert_eq!(cluster.status(&id)["done"], 4);
    let told = cluster.run(&["table", &id]);
    assert!(
        told.code == 70 && told.stderr.contains("--verify-store"),
        "{told:?}"
    );

    stop(&mut cluster);
    cluster.restart_with(&["--check"]);
    assert!(
        cluster
            .coordinator()
            .log()
            .contains("the row of a trial is damaged"),
        "{}",
        cluster.coordinator().log()
    );

    assert_eq!(cluster.status(&id)["done"], 3);
    let explained = cluster.ask(&["explain", &id, "0/1"]);
    assert!(explained.contains("its row was damaged"), "{explained}");
    run_again(&mut cluster, &id);
    assert!(answers(&cluster) == wanted, "rows are not what they were");

    // A row that is damaged while the coordinator runs, curves and predictions: whoever asks is told.
    for (what, query) in [
        (
            "row",
            "SELECT digest FROM trials WHERE cell = 0 AND repeat = 0",
        ),
        (
            "curve",
            "SELECT data FROM trials JOIN curves USING (curve) WHERE cell = 0 AND repeat = 0",
        ),
        (
            "predictions",
            "SELECT data FROM predictions WHERE cell = 0 AND repeat = 0",
        ),
    ] {
        stop(&mut cluster);
        if what != "row" {
            flip(&database, query);
        }

        cluster.restart_coordinator(&[]);
        if what == "row" {
            let connection = Connection::open(&database).expect("the database can be opened");
            connection
                .execute(
                    "UPDATE trials SET seconds = seconds + 1 WHERE repeat = 0 AND cell = 0",
                    [],
                )
                .expect("changed");
        }

        let command = if what == "row" {
            "table"
        } else {
            what.trim_end_matches('s')
        };
        let ask = match command {
            "curve" => vec!["curves", &id],
            "prediction" => vec!["predictions", &id],
            _ => vec!["table", &id],
        };
        for ask in [ask, vec!["explain", &id, "0/0"]] {
            let told = cluster.run(&ask);
            let named = format!("the {what} of the trial 0/0 of the sweep {id}");
            assert!(
                told.code == 70
                    && told.stderr.contains(&named)
                    && told.stderr.contains("--verify-store"),
                "{told:?}"
            );
        }

        stop(&mut cluster);
        cluster.restart_with(&["--check"]);
        assert!(
            cluster
                .coordinator()
                .log()
                .contains(&format!("the {what} of a trial is damaged")),
            "{what}"
        );

        run_again(&mut cluster, &id);
        assert!(
            answers(&cluster) == wanted,
            "{what}: rows are not what they were"
        );
    }
}

/// Has a worker run what a sweep lacks.
fn run_again(cluster: &mut Cluster, id: &str) {
    let worker = cluster.worker(2, &[]);
    cluster.wait_for_end(id);
    worker.signal("TERM");
    assert_eq!(worker.wait(), 0);
}

#[test]
fn a_lease_whose_row_is_damaged_counts_as_ended() {
    let (text, wanted) = work();
    let mut cluster = Cluster::counted(&["--lease-ttl", "2s"]);
    cluster.gate.hold_after(9);
    let worker = cluster.worker(2, &[]);
    let id = cluster.launch(&text);
    reach(&cluster, &id, 9);

    worker.freeze();
    cluster.take_coordinator().kill();
    flip(
        &cluster.path("store/ergodic.sqlite"),
        "SELECT worker FROM leases",
    );

    cluster.restart_coordinator(&[]);
    let log = cluster.coordinator().log();
    assert!(log.contains("the row of a lease is damaged"), "{log}");
    worker.thaw();
    cluster.gate.open();

    cluster.settle(&id, wanted, vec![worker]);
}
