//! A disk that fills up: nothing is acknowledged that is not on it, and the sweep goes on when there is room.

use std::io::Write as _;

use ergodic_tests::{Cluster, SmallDisk, skip, wait_for};
use serde_json::Value;

use crate::empty_sweep;
use crate::http::{address, get};

#[test]
fn a_full_disk_costs_nothing_but_time() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 32) else {
        return skip("a_full_disk_costs_nothing_but_time", "tmpfs", "mounting one needs root");
    };
    let store = disk.path().join("store");
    let mut cluster = Cluster::start(&["--store", &store.to_string_lossy(), "--http", "127.0.0.1:0"]);
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
    let full = |status: &Value| status["trouble"].as_str().is_some_and(|why| why.contains("full"));
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
        assert_eq!(answer.code == 0, cluster.status(&id)["weight"] == 7.0, "{answer:?}");
    }
    std::fs::remove_file(&last).expect("a file can be removed");
    std::fs::remove_file(&filler).expect("a file can be removed");
    let status = cluster.wait_for_end(&id);
    assert_eq!((&status["completed"], &status["mismatches"]), (&20_000.into(), &0.into()));
    assert_eq!(status["trouble"], Value::Null);
    wait_for("the coordinator is ready again", || get(&http, "/readyz").0 == 200);
    assert_eq!(cluster.rows(&id).lines().count(), 20_001);
}
