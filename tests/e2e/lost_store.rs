//! A store that is deleted, moved or replaced under a running coordinator: nothing is acknowledged into a file that has no
//! name, and it is said.

use std::path::PathBuf;

use ergodic_tests::{Cluster, wait_for};

use crate::http::{address, get};
use crate::{ROOM, empty_sweep, reach, repeated};

fn database(cluster: &Cluster, end: &str) -> PathBuf {
    cluster.path(&format!("store/ergodic.sqlite{end}"))
}

fn done(cluster: &Cluster, id: &str) -> u64 {
    cluster.status(id)["done"].as_u64().expect("a number")
}

/// Waits until the coordinator says that its store is not where it was.
fn wait_until_it_is_told(cluster: &Cluster, id: &str, how: &str) {
    cluster.wait_for_log(how);
    let told = cluster.status(id)["trouble"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        told.contains(how) && told.contains("ergodic.sqlite"),
        "{told}"
    );

    let http = address(cluster);
    wait_for("the coordinator is not ready", || {
        let (code, why) = get(&http, "/readyz");
        code == 503 && why.contains(how)
    });
}

#[test]
fn nothing_is_acknowledged_into_a_store_that_was_moved_away_and_it_goes_on_when_it_is_back() {
    let (text, wanted) = crate::work();
    let mut cluster = Cluster::counted(&["--http", "127.0.0.1:0"]);
    cluster.gate.hold_after(5);
    let id = cluster.launch(&text);
    let worker = cluster.worker(2, &[]);
    reach(&cluster, &id, 5);

    let there = database(&cluster, "");
    let away = cluster.path("elsewhere");
    std::fs::rename(&there, &away).expect("moved");

    // However fast it was, there is more to be stored.
    cluster.gate.hold_after(5 + 2 * ROOM);
    wait_until_it_is_told(&cluster, &id, "was deleted or moved away");
    let refused = cluster.run(&[
        "launch",
        "--again",
        &cluster.path("sweep.toml").to_string_lossy(),
    ]);
    assert!(
        refused.code != 0 && refused.stderr.contains("was deleted or moved away"),
        "{refused:?}"
    );

    // Nor is anything that a user changes.
    for change in [
        &["pause", &id][..],
        &["share", &id, "--weight", "7"],
        &["cancel", &id],
        &["rm", "--force", &id],
    ] {
        let refused = cluster.run(change);
        assert!(
            refused.code != 0 && refused.stderr.contains("was deleted or moved away"),
            "{change:?}: {refused:?}"
        );
    }

    let now = cluster.status(&id);
    assert_eq!(
        (&now["state"], &now["weight"]),
        (&"running".into(), &1.0.into())
    );
    let stored = done(&cluster, &id);

    worker.wait_for_log("results not delivered");
    assert_eq!(done(&cluster, &id), stored, "nothing is acknowledged");
    std::fs::rename(&away, &there).expect("moved back");
    cluster.gate.open();

    // Nothing that was acknowledged is missing, and nothing that was not is lost.
    cluster.settle(&id, wanted, vec![worker]);
}

#[test]
fn nothing_is_acknowledged_into_a_store_that_has_another_in_its_place() {
    let mut cluster = Cluster::counted(&["--http", "127.0.0.1:0"]);
    cluster.gate.hold_after(5);
    let id = cluster.launch(&repeated(60));
    let _worker = cluster.worker(2, &[]);
    reach(&cluster, &id, 5);
    std::fs::copy(database(&cluster, ""), cluster.path("copy")).expect("copied");

    std::fs::rename(cluster.path("copy"), database(&cluster, "")).expect("replaced");
    cluster.gate.hold_after(5 + 2 * ROOM);
    wait_until_it_is_told(&cluster, &id, "was replaced by another file");
    let table = cluster.run(&["table", &id]);
    assert!(
        table.code != 0 && table.stderr.contains("was replaced"),
        "rows of another file are no rows of this one: {table:?}"
    );

    let stored = done(&cluster, &id);
    let refusals = || {
        cluster
            .worker_logs()
            .map(|log| log.matches("results not delivered").count())
            .sum::<usize>()
    };
    let before = refusals();
    wait_for("it goes on trying", || refusals() > before + 1);

    assert_eq!(done(&cluster, &id), stored);
    assert!(
        cluster.done().stored <= stored,
        "nothing else was acknowledged"
    );
}

#[test]
fn what_stood_in_a_log_that_was_deleted_is_in_the_database() {
    let mut cluster = Cluster::counted(&["--http", "127.0.0.1:0"]);
    cluster.gate.hold_after(1000);
    let id = cluster.launch(&empty_sweep(20_000));
    let worker = cluster.worker(2, &[]);
    cluster.wait_until_held(&id, 1000);
    cluster.set_in_motion(|gate| gate.hold_after(10_000));

    std::fs::remove_file(database(&cluster, "-wal")).expect("deleted");
    cluster.gate.hold_after(19_000);
    wait_until_it_is_told(&cluster, &id, "was deleted or moved away");
    cluster.wait_for_log("is now in the database");
    worker.kill();
    let acknowledged = cluster.done().stored;

    cluster.kill_and_restart_coordinator();
    let there = done(&cluster, &id);
    assert!(
        there >= acknowledged && acknowledged > 0,
        "{there} rows are there, {acknowledged} were acknowledged"
    );
}

#[test]
fn two_coordinators_on_one_folder_whose_lock_was_deleted_notice() {
    let (text, wanted) = crate::work();
    let first = Cluster::start(&[]);
    let store = first.path("store").to_string_lossy().into_owned();
    let id = first.launch(&text);

    // It stands still, so that it cannot make the file again at once; and while it writes nothing, so that it holds no lock of SQLite's.
    first.coordinator().freeze();
    std::fs::remove_file(first.path("store/lock")).expect("deleted");
    let mut second = Cluster::on_store(&store);
    first.coordinator().thaw();
    first.wait_for_log("standing by");
    assert!(
        first.coordinator().log().contains("another coordinator"),
        "{}",
        first.coordinator().log()
    );

    let _new = second.worker(2, &[]);
    second.wait_for_end(&id);
    assert_eq!(second.rows(&id), wanted);

    // In turn.
    let over = second.take_coordinator();
    over.signal("TERM");
    assert_eq!(over.wait(), 0);
    first.wait_for_log("leading epoch=3");
    assert_eq!(first.rows(&id), wanted);
}

#[test]
fn a_lock_that_was_deleted_is_made_again() {
    let cluster = Cluster::start(&[]);
    std::fs::remove_file(cluster.path("store/lock")).expect("deleted");
    cluster.wait_for_log("it is created again");
    let store = cluster.path("store").to_string_lossy().into_owned();
    let refused = ergodic_tests::run(&["serve", "--listen", "127.0.0.1:0", "--store", &store]);
    assert!(
        refused.code == 4 && refused.stderr.contains("belongs to a running coordinator"),
        "{refused:?}"
    );
}
