//! Results that lie in a worker's spool: they outlive the worker, and may be more than its memory is to hold.

use std::path::Path;

use ergodic_tests::{Cluster, Done, Program, paced};

use crate::{SWEEP, reproducibility, trials};

/// Trials granted to a worker, lease by lease.
fn granted(worker: &Program) -> Vec<u64> {
    let log = worker.log();
    let trials = |line: &str| {
        line.split_once("trials=")
            .and_then(|(_, n)| n.trim().parse().ok())
    };
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .filter(|line| line.contains("lease granted"))
        .filter_map(trials)
        .collect()
}

fn segments(spool: &Path) -> usize {
    let names = std::fs::read_dir(spool)
        .expect("the spool is there")
        .flatten()
        .map(|entry| entry.file_name());
    names
        .filter(|name| name.to_string_lossy().ends_with(".spool"))
        .count()
}

#[test]
fn what_a_killed_worker_left_in_its_spool_is_delivered_by_the_next() {
    let text = paced(SWEEP);
    let wanted = reproducibility::reference(&text);
    let spool = tempfile::tempdir().expect("a temporary directory");
    let with_spool = ["--spool", &spool.path().to_string_lossy()];
    let mut cluster = Cluster::counted(&["--lease-ttl", "60s"]);
    cluster.gate.hold_after(2);

    let victim = cluster.worker(1, &with_spool);
    let id = cluster.launch(&text);
    // Its results have been taken and its questions answered, and it has a queue.
    cluster.wait_until_held(&id, trials(2));
    let held: u64 = granted(&victim).iter().sum();
    assert!(held > trials(2) + 10, "{held} trials were granted");
    cluster.take_coordinator().kill();

    cluster.gate.open();
    victim.wait_for_log_times("trial ends", held as usize);
    let intruder = cluster.worker(1, &with_spool);
    let refusal = format!("--spool {}: another worker uses this folder", with_spool[1]);
    intruder.wait_for_log(&refusal);
    assert_eq!(intruder.wait(), 2);

    let open = Done::of(&victim.log()).open();
    assert!(
        open >= 10,
        "{open} results were open: the kill came too late"
    );
    victim.kill();

    cluster.restart_coordinator(&[]);
    assert!(
        cluster.status(&id)["leased"].as_u64() >= Some(10),
        "{}",
        cluster.status(&id)
    );

    let heir = cluster.worker(1, &with_spool);
    assert_eq!(
        heir.wait_for_log("the spool holds results of an earlier worker results="),
        open.to_string()
    );
    assert_eq!(
        heir.wait_for_log("results of an earlier worker delivered results="),
        open.to_string()
    );

    let (status, done) = cluster.settle(&id, &wanted, vec![heir]);
    assert_eq!(
        (&status["releases"], &status["fenced"]),
        (&0.into(), &0.into()),
        "{status}"
    );

    assert_eq!(
        Some(done.begun),
        status["trials"].as_u64(),
        "trials were begun again"
    );

    assert_eq!(segments(spool.path()), 0, "what is acknowledged is removed");
}

/// Empty trials whose results take 32 kB each.
const BULKY: &str = "name = \"bulky\"\nrepeats = 8000\n[model]\nkind = \"empty\"\n[train]\nsteps = 2000\n[measure]\n\
                     every = \"1 step\"\nmetrics = [\"test_acc\"]\n";

#[test]
fn a_worker_that_is_cut_off_goes_on_until_its_spool_is_full() {
    let spool = tempfile::tempdir().expect("a temporary directory");
    let mut cluster = Cluster::counted(&["--lease-ttl", "60s"]);
    cluster.take_coordinator().kill();
    // By then the coordinator knows how short the trials are: the worker holds a lease of thousands.
    cluster.restart_coordinator(&[("FAILPOINTS", "before-commit=12*off->return")]);
    let id = cluster.launch(BULKY);
    let worker = cluster.worker(
        1,
        &[
            "--spool",
            &spool.path().to_string_lossy(),
            "--spool-size",
            "60MiB",
        ],
    );

    cluster.take_coordinator().wait_for_death();
    worker.wait_for_log("the spool is full");
    let open = Done::of(&worker.log()).open();
    let in_memory = (64 << 20) / (96 + 8 * 4001);
    assert!(
        open > in_memory + 50,
        "{open} results wait, {in_memory} would fit into memory"
    );

    let refusals = || worker.log().matches("results not delivered").count();
    let before = refusals();
    worker.wait_until("it goes on trying", || refusals() > before + 2);
    assert_eq!(Done::of(&worker.log()).open(), open, "it begins nothing");
    let held = worker.process().peak_memory_mib();
    assert!(held < 160, "the worker holds {held} MiB");

    cluster.restart_coordinator(&[]);
    cluster.wait_for_end(&id);
    let rows = cluster.rows(&id);
    let (status, done) = cluster.settle(&id, &rows, vec![worker]);
    assert_eq!((&status["releases"], done.begun), (&0.into(), 8000));

    assert_eq!(segments(spool.path()), 0, "what is acknowledged is removed");
}
