//! Files of the store that are torn, garbage, or changed by a bit: a coordinator starts and loses nothing, or says by name
//! what is wrong.

use std::path::{Path, PathBuf};

use ergodic_tests::{Cluster, Finished, run};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::{SWEEP, work};

/// A finished sweep in a store that nobody has open: the cluster, the sweep's id, its rows, the database's path.
fn finished(text: &str) -> (Cluster, String, String, PathBuf) {
    let mut cluster = Cluster::start(&[]);
    let worker = cluster.worker(2, &[]);
    let id = cluster.launch(text);
    cluster.wait_for_end(&id);
    let rows = cluster.rows(&id);
    worker.signal("TERM");
    assert_eq!(worker.wait(), 0);
    stop(&mut cluster);
    let database = cluster.path("store/ergodic.sqlite");
    (cluster, id, rows, database)
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
    assert!(finished.code == 70 && finished.stdout.is_empty(), "{finished:?}");
    finished
}

/// Flips a bit of the database: in the `at`th of these bytes, which it holds somewhere.
fn flip(database: &Path, bytes: &[u8], at: usize) {
    let mut content = std::fs::read(database).expect("the database can be read");
    let from = content.windows(bytes.len()).position(|window| window == bytes).expect("it holds these bytes");
    content[from + at] ^= 4;
    std::fs::write(database, content).expect("the database can be written");
}

#[test]
fn a_bit_that_changed_on_disk_is_named() {
    let (mut cluster, id, rows, database) = finished(&SWEEP.replace("repeats = 12", "repeats = 2"));
    let whole = std::fs::read(&database).expect("the database can be read");
    let restore = || std::fs::write(&database, &whole).expect("the database can be written");
    let column = |sql: &str| {
        let store = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a database");
        store.query_row(sql, [], |row| row.get::<_, Vec<u8>>(0)).expect("such a row")
    };
    // A row's digest, and its metrics, which stand behind it.
    let row = column("SELECT CAST(digest || metrics AS BLOB) FROM trials WHERE cell = 1 AND repeat = 1");
    for (bytes, at, words) in [(&row[..], 16, "1/1"), (&row, 32 + 8, "1/1"), (b"batch_size = 32", 14, &id[..])] {
        flip(&database, bytes, at);
        let told = refused(&cluster).stderr;
        assert!(told.contains("damaged") && told.contains(words), "{told}");
        restore();
    }
    // Curves are read by those who ask for them.
    let curve = column("SELECT data FROM trials JOIN curves USING (curve) WHERE cell = 1 AND repeat = 1");
    flip(&database, &curve, curve.len() / 2);
    cluster.restart_coordinator(&[]);
    assert_eq!(cluster.rows(&id), rows);
    let told = run(&["curves", &id, "--coordinator", &cluster.url]);
    assert!(
        told.code == 70 && told.stderr.contains("curve of trial 1/1") && told.stderr.contains("damaged"),
        "{told:?}"
    );
}

#[test]
fn a_database_that_is_none_is_named() {
    let (cluster, _, _, database) = finished(&crate::empty_sweep(3));
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
    let mut cluster = Cluster::start(&[]);
    let id = cluster.launch(&text);
    // From here on the sweep itself is in the database, and its rows are ahead of it.
    stop(&mut cluster);
    cluster.restart_coordinator(&[]);
    let worker = cluster.worker(2, &[]);
    let under_way = |status: &Value| status["done"].as_u64() > Some(100);
    let before = cluster.wait_until(&id, "it is under way", under_way);
    worker.kill();
    cluster.take_coordinator().kill();
    let log = cluster.path("store/ergodic.sqlite-wal");
    let whole = std::fs::read(&log).expect("what was written ahead");
    // In the middle of a page, and with nonsense in the last pages.
    let mut nonsense = whole.clone();
    let from = whole.len() * 4 / 5;
    nonsense[from..].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7));
    let torn = whole[..whole.len() / 2 + 1000].to_vec();
    let store = cluster.path("store");
    let copy = cluster.path("copy");
    copy_folder(&store, &copy);
    for content in [nonsense, torn] {
        copy_folder(&copy, &store);
        std::fs::write(&log, content).expect("the log can be written");
        cluster.restart_coordinator(&[]);
        let left = cluster.status(&id);
        assert!(left["done"].as_u64() < before["done"].as_u64(), "the log lacked nothing: {left}, {before} before");
        let worker = cluster.worker(2, &[]);
        cluster.wait_for_end(&id);
        assert_eq!(cluster.rows(&id), wanted);
        worker.kill();
        stop(&mut cluster);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("a folder").flatten().filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
    }
}
