//! A clock on the wall that jumps. Leases go by another one.

use std::path::{Path, PathBuf};

use ergodic_tests::{Cluster, skip};

use crate::{empty_sweep, reach, work};

/// The library that puts a made-up clock before a program.
fn library() -> Option<PathBuf> {
    let folders = ["x86_64-linux-gnu", "aarch64-linux-gnu", "."];
    let place = |folder: &str| {
        Path::new("/usr/lib")
            .join(folder)
            .join("faketime/libfaketime.so.1")
    };
    folders.into_iter().map(place).find(|path| path.exists())
}

/// When a sweep was launched, by the coordinator's clock on the wall, in seconds.
fn launched_at(cluster: &Cluster, id: &str) -> f64 {
    let list: Vec<serde_json::Value> =
        serde_json::from_str(&cluster.ask(&["list", "--format", "json"]))
            .expect("the list is JSON");
    let sweep = list
        .iter()
        .find(|sweep| sweep["id"] == id)
        .expect("it is in the list");
    sweep["launched_at"].as_f64().expect("a time")
}

#[test]
fn a_clock_that_jumps_takes_no_lease_away_and_gives_none() {
    let Some(library) = library() else {
        return skip(
            "a_clock_that_jumps_takes_no_lease_away_and_gives_none",
            "faketime",
            "there is no libfaketime",
        );
    };

    let (text, wanted) = work();
    let mut cluster = Cluster::counted(&["--lease-ttl", "20s"]);
    let clock = cluster.path("clock").to_string_lossy().into_owned();
    let set = |offset: &str| std::fs::write(&clock, offset).expect("the clock can be set");
    set("+0");
    cluster.take_coordinator().kill();

    cluster.restart_coordinator(&[
        ("LD_PRELOAD", &library.to_string_lossy()),
        ("FAKETIME_TIMESTAMP_FILE", &clock),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);

    cluster.gate.hold_after(5);
    let workers = vec![cluster.worker(1, &[]), cluster.worker(1, &[])];
    let id = cluster.launch(&text);
    let mut times = vec![launched_at(&cluster, &id)];

    for (repeats, offset) in [(5, "+1h"), (15, "-1h")] {
        cluster.gate.hold_after(repeats);
        reach(&cluster, &id, repeats);
        set(offset);
        let other = cluster.launch(&empty_sweep(1));
        times.push(launched_at(&cluster, &other));
    }

    cluster.gate.open();
    assert!(
        times[1] - times[0] > 3500.0 && times[2] - times[1] < -7000.0,
        "the clock did not jump: {times:?}"
    );
    let (status, done) = cluster.settle(&id, wanted, workers);
    assert_eq!(
        (&status["releases"], &status["fenced"]),
        (&0.into(), &0.into()),
        "{status}"
    );

    assert_eq!(
        done.begun,
        status["trials"].as_u64().expect("a number") + 2,
        "running trials were begun again"
    );
}
