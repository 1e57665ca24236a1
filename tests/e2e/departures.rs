//! Workers that leave: because their time is over, or because somebody asks them to.

use ergodic_tests::{Cluster, RawWorker};
use serde_json::Value;

use crate::refusals::refused;
use crate::{block_on, reach, repeated, trials, work};

fn workers(cluster: &Cluster) -> Vec<Value> {
    let listed = cluster.ask(&["workers", "--format", "json"]);
    serde_json::from_str(&listed).expect("JSON")
}

#[test]
fn a_worker_whose_time_is_over_leaves_in_order_and_another_goes_on() {
    let (text, wanted) = work();
    let mut cluster = Cluster::counted(&[]);
    cluster.gate.hold_after(2);
    let limited = ["--time-limit", "30s", "--drain", "200ms"];
    let leaving = cluster.worker(1, &limited);
    let id = cluster.launch(&text);
    cluster.wait_for_workers(1);
    let leaves = workers(&cluster)[0]["leaves"].clone();
    assert!(
        leaves.as_str().is_some_and(|text| text.starts_with("in ")),
        "{leaves}"
    );

    // No more is let through than it can do, so that it is at work when its time is over.
    reach(&cluster, &id, 2);
    leaving.wait_for_log("its time is over");
    assert_eq!(leaving.wait(), 0);
    assert_eq!(cluster.status(&id)["state"], "running");

    cluster.gate.open();
    let _heir = cluster.worker(2, &[]);
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["releases"], &status["failed"]),
        (&Value::from(0), &Value::from(0))
    );
    assert_eq!(cluster.rows(&id), wanted);
}

#[test]
fn a_time_limit_without_time_for_trials_is_refused() {
    let mut cluster = Cluster::start(&[]);
    let refused = cluster.worker(1, &["--time-limit", "20s"]);
    refused.wait_for_log("--time-limit 20s: the worker needs 28s of it to leave");
    assert_eq!(refused.wait(), 2);
}

#[test]
fn workers_leave_when_they_are_asked_by_name() {
    let mut cluster = Cluster::counted(&[]);
    let [first, second] = [0, 1].map(|_| cluster.worker(1, &["--name", "pool"]));
    let stays = cluster.worker(1, &["--name", "desk"]);
    cluster.wait_for_workers(3);
    let id = cluster.launch(&repeated(20));

    // None is asked if one of the names is wrong.
    let wrong = cluster.run(&["worker", "drain", "desk", "dsek"]);
    refused(
        &wrong,
        5,
        &["no worker that is joined", "dsek", "ergodic workers"],
    );
    assert!(
        workers(&cluster)
            .iter()
            .all(|worker| worker["leaves"] == "")
    );

    let asked = cluster.ask(&["worker", "drain", "pool"]);
    assert_eq!(asked.matches("pool leaves").count(), 2, "{asked}");
    for left in [first, second] {
        assert_eq!(left.wait(), 0);
    }
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["done"], &status["releases"]),
        (&Value::from(trials(20)), &Value::from(0))
    );

    let last = workers(&cluster)[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let asked = cluster.ask(&["worker", "drain", &last]);
    assert!(asked.starts_with("desk leaves"), "{asked}");
    assert_eq!(stays.wait(), 0);

    let id = cluster.launch(&repeated(1));
    let explained = cluster.ask(&["explain", &id]);
    assert!(explained.contains("No worker is joined"), "{explained}");
}

#[test]
fn a_worker_that_is_too_old_to_be_asked_is_named() {
    let cluster = Cluster::start(&[]);
    block_on(async {
        let old = RawWorker::joined(&cluster.url, "a").await;
        let finished = cluster.run(&["worker", "drain", "raw-a"]);
        refused(&finished, 6, &["raw-a", "too old", "SIGTERM"]);
        drop(old);
    });
}
