//! Files of the store that are torn or garbage: a coordinator starts and loses nothing, or says by name what is wrong.

use std::path::{Path, PathBuf};

use ergodic_tests::{Cluster, Finished, run};
use serde_json::Value;

use crate::work;

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
    assert!(finished.code == 70 && finished.stdout.is_empty(), "{finished:?}");
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
    let mut cluster = Cluster::start(&["--lease-ttl", "2s"]);
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
