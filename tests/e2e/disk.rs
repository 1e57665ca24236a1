//! A disk that fills up: nothing is acknowledged that is not on it, and the sweep goes on when there is room.

use std::io::Write as _;
use std::path::PathBuf;

use ergodic_proto::v1;
use ergodic_proto::v1::session_request::Message as Request;
use ergodic_tests::{Cluster, RawWorker, SmallDisk, skip, wait_for};
use serde_json::Value;

use crate::exactness::reach;
use crate::http::{address, get};
use crate::{block_on, empty_sweep};

/// Takes all room that a disk has, until what is returned is removed.
fn fill(disk: &SmallDisk) -> PathBuf {
    let filler = disk.path().join("filler");
    let mut bytes = std::fs::File::create(&filler).expect("an empty file needs no room");
    for size in [1 << 20, 4096, 512] {
        while bytes.write_all(&vec![0; size]).is_ok() {}
    }
    filler
}

#[test]
fn a_full_disk_costs_nothing_but_time() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 32) else {
        return skip(
            "a_full_disk_costs_nothing_but_time",
            "tmpfs",
            "mounting one needs root",
        );
    };
    let store = disk.path().join("store");
    let mut cluster =
        Cluster::start(&["--store", &store.to_string_lossy(), "--http", "127.0.0.1:0"]);
    let http = address(&cluster);
    assert_eq!(get(&http, "/readyz").0, 200);

    let id = cluster.launch(&empty_sweep(20_000));
    // All but half a MiB is taken by somebody else.
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![0_u8; 31 << 20]).expect("a file can be written");
    let _worker = cluster.worker(1, &[]);
    cluster.wait_for_log("could not be stored");
    let stuck = cluster.status(&id);
    assert_ne!(stuck["state"], "completed", "the disk was not full in time");

    // A smaller batch may still have found room after the one that did not.
    let full = |status: &Value| {
        status["trouble"]
            .as_str()
            .is_some_and(|why| why.contains("full"))
    };
    cluster.wait_until(&id, "the trouble is told", full);

    wait_for("the coordinator is not ready", || {
        let (code, why) = get(&http, "/readyz");
        code == 503 && why.contains("full")
    });
    assert_eq!(get(&http, "/healthz").0, 200);

    // The last bytes, too. What a user changes is so once it is stored, and not before, however often it is asked for.
    let last = disk.path().join("last");
    let mut bytes = std::fs::File::create(&last).expect("an empty file needs no room");
    while bytes.write_all(&[0; 512]).is_ok() {}
    for _ in 0..2 {
        let answer = cluster.run(&["share", &id, "--weight", "7"]);
        assert_eq!(
            answer.code == 0,
            cluster.status(&id)["weight"] == 7.0,
            "{answer:?}"
        );
    }

    std::fs::remove_file(&last).expect("a file can be removed");
    std::fs::remove_file(&filler).expect("a file can be removed");
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["completed"], &status["mismatches"]),
        (&20_000.into(), &0.into())
    );

    assert_eq!(status["trouble"], Value::Null);
    wait_for("the coordinator is ready again", || {
        get(&http, "/readyz").0 == 200
    });
    assert_eq!(cluster.rows(&id).lines().count(), 20_001);
}

/// A worker reaches a trial of a sweep, tells that it runs it, and dies: which one it was.
async fn die_of(cluster: &Cluster, name: &str, wanted: Option<(u64, u32)>) -> (u64, u32) {
    let mut worker = RawWorker::joined(&cluster.url, name).await;
    let beating = worker.keep_beating();
    let (lease, (cell, repeat)) = reach(&mut worker, wanted).await;
    beating.abort();
    let _ = beating.await;
    let running = vec![v1::RunningTrial {
        lease,
        key: Some(v1::TrialKey { cell, repeat }),
    }];
    worker
        .say(Request::Heartbeat(v1::Heartbeat {
            running,
            ..v1::Heartbeat::default()
        }))
        .await;

    (cell, repeat)
}

#[test]
fn a_give_up_that_waits_for_disk_space_is_withdrawn_when_a_crashed_worker_comes_back() {
    let test = "a_give_up_that_waits_for_disk_space_is_withdrawn_when_a_crashed_worker_comes_back";
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 16) else {
        return skip(test, "tmpfs", "mounting one needs root");
    };
    let store = disk.path().join("store").to_string_lossy().into_owned();
    let mut cluster = Cluster::start(&["--store", &store, "--lease-ttl", "500ms"]);
    let id = cluster.launch(&empty_sweep(4));

    let filler = block_on(async {
        let culprit = Some(die_of(&cluster, "a", None).await);
        die_of(&cluster, "b", culprit).await;
        let mut third = RawWorker::joined(&cluster.url, "c").await;
        let beating = third.keep_beating();
        let (lease, (cell, repeat)) = reach(&mut third, culprit).await;
        let filler = fill(&disk);

        beating.abort();
        let _ = beating.await;
        let running = vec![v1::RunningTrial {
            lease,
            key: Some(v1::TrialKey { cell, repeat }),
        }];
        third
            .say(Request::Heartbeat(v1::Heartbeat {
                running,
                ..v1::Heartbeat::default()
            }))
            .await;

        filler
    });

    cluster.wait_for_log("the failure of a trial could not be stored");
    assert_eq!(cluster.status(&id)["failed"], 0);
    // It was not dead.
    block_on(async {
        let mut back = RawWorker::joined(&cluster.url, "b").await;
        back.beat().await;
    });

    std::fs::remove_file(filler).expect("a file can be removed");
    let _worker = cluster.worker(1, &[]);
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["completed"], &status["failed"]),
        (&4.into(), &0.into()),
        "{status}"
    );
}

#[test]
fn a_full_disk_is_not_logged_over_and_over() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 16) else {
        return skip(
            "a_full_disk_is_not_logged_over_and_over",
            "tmpfs",
            "mounting one needs root",
        );
    };
    let store = disk.path().join("store").to_string_lossy().into_owned();
    let mut cluster = Cluster::start(&["--store", &store]);
    cluster.gate.hold_after(1000);

    let id = cluster.launch(&empty_sweep(20_000));
    let worker = cluster.worker(1, &[]);
    cluster.wait_until_held(&id, 1000);
    cluster.gate.hold_after(10_000);
    let filler = fill(&disk);

    // However fast it was, there is more to be stored.
    cluster.gate.open();
    cluster.wait_for_log("results could not be stored");
    worker.wait_for_log_times("results not delivered", 6);
    let told = cluster
        .coordinator()
        .log()
        .matches("results could not be stored")
        .count();
    assert!(told <= 2, "{told} times");

    std::fs::remove_file(filler).expect("a file can be removed");
    cluster.wait_for_end(&id);
}
