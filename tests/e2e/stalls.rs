//! Coordinators, workers and databases that stand still for a while, under load: every sweep ends, with every row once, and
//! nobody leads in an epoch that was led in before.

use std::cell::Cell;
use std::time::Duration;

use ergodic_tests::{Cluster, Gate, Postgres, Program, skip, wait_for};

use crate::empty_sweep;

/// Sweeps that go on at a time, and trials of each.
const SWEEPS: usize = 4;
const TRIALS: u32 = 8000;

/// How long everything stands still, in seconds: longer than a claim to lead lasts that runs out, and longer than leases.
/// `ERGODIC_STALLS=1,6.5,15,60` tries others.
fn stalls() -> Vec<Duration> {
    let given = std::env::var("ERGODIC_STALLS").unwrap_or_else(|_| "6.5".into());
    given
        .split(',')
        .map(|s| Duration::from_secs_f64(s.parse().expect("seconds")))
        .collect()
}

fn launch_all(cluster: &Cluster) -> Vec<String> {
    (0..SWEEPS)
        .map(|_| cluster.launch(&empty_sweep(TRIALS)))
        .collect()
}

/// Trials that each of two workers begins before the first fault, and before the last one: the sweeps cannot end with them.
const BEGUN: [u64; 2] = [6000, 12_000];

fn done(cluster: &Cluster, sweeps: &[String]) -> u64 {
    sweeps
        .iter()
        .map(|id| cluster.status(id)["done"].as_u64().expect("a number"))
        .sum()
}

/// Has each worker begin so many trials in all, and waits until some of them are done: the sweeps are at work. Where nothing
/// comes of them, as of leases that were lost in a stall, it may begin as many again.
fn go_on(cluster: &Cluster, sweeps: &[String], trials: u64) {
    let before = done(cluster, sweeps);
    let looks = Cell::new(0);
    wait_for("the sweeps go on", || {
        cluster
            .gate
            .hold_after_trials(trials * (1 + looks.get() / 50));
        looks.set(looks.get() + 1);
        done(cluster, sweeps) > before
    });
}

fn end(cluster: &Cluster, sweeps: &[String]) {
    for id in sweeps {
        let status = cluster.wait_for_end(id);
        assert_eq!(
            (&status["completed"], &status["mismatches"]),
            (&TRIALS.into(), &0.into()),
            "{status}"
        );

        let rows = cluster.rows(id);
        let mut lines: Vec<&str> = rows.lines().collect();
        lines.dedup();
        assert_eq!(lines.len(), TRIALS as usize + 1, "every row once");
    }
}

fn stand_still(programs: &[&Program], stall: Duration) {
    programs.iter().for_each(|program| program.freeze());
    std::thread::sleep(stall);
    programs.iter().for_each(|program| program.thaw());
}

#[test]
fn a_coordinator_that_stands_still_leads_on_and_every_sweep_ends() {
    for stall in stalls() {
        let mut cluster = Cluster::start(&["--lease-ttl", "2s"]);
        let sweeps = launch_all(&cluster);
        cluster.gate.hold_after_trials(0);
        let workers = [cluster.worker(2, &[]), cluster.worker(1, &[])];
        go_on(&cluster, &sweeps, BEGUN[0]);
        stand_still(&[cluster.coordinator()], stall);

        go_on(&cluster, &sweeps, BEGUN[1]);
        // A laptop that sleeps.
        stand_still(&[cluster.coordinator(), &workers[0], &workers[1]], stall);
        cluster.gate.open();
        end(&cluster, &sweeps);
        let log = cluster.coordinator().log();
        assert_eq!(log.matches(" leading ").count(), 1, "{log}");

        assert!(!log.contains("standing by"), "nobody else can lead: {log}");
    }
}

#[test]
fn a_run_that_stands_still_goes_on() {
    for stall in stalls() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("sweep.toml");
        let store = dir.path().join("d").to_string_lossy().into_owned();
        std::fs::write(&file, empty_sweep(12 * TRIALS)).expect("written");
        let gate = Gate::at(&dir.path().join("gate"));
        gate.hold_after(TRIALS);

        let held = gate.failpoints();
        let file = file.to_string_lossy().into_owned();
        let args = ["run", &file, "--dir", &store, "--format", "csv"];
        let run = Program::start_with(&[("FAILPOINTS", &held)], &args, &dir.path().join("log"));
        let cluster = Cluster::of_run(&run);
        cluster.wait_until_held("latest", TRIALS.into());

        gate.hold_after(11 * TRIALS);
        cluster.wait_until("latest", "it goes on", |status| {
            status["done"].as_u64() > Some(TRIALS.into())
        });
        stand_still(&[&run], stall);
        gate.open();

        assert_eq!(
            run.wait(),
            0,
            "{}",
            std::fs::read_to_string(dir.path().join("log")).unwrap_or_default()
        );

        let log = std::fs::read_to_string(dir.path().join("log")).expect("it was written");
        assert!(!log.contains("the leadership"), "{log}");
        let trials = ergodic_tests::Cluster::on_store(&store);
        assert_eq!(trials.status("latest")["completed"], 12 * TRIALS);
    }
}

#[test]
fn a_database_that_stands_still_is_led_again_in_an_epoch_of_its_own() {
    let database = match Postgres::start() {
        Ok(database) => database,
        Err(why) => {
            return skip(
                "a_database_that_stands_still_is_led_again_in_an_epoch_of_its_own",
                "postgres",
                &why,
            );
        }
    };

    let files = tempfile::tempdir().expect("a temporary directory");
    let files = files.path().to_string_lossy().into_owned();
    let mut cluster = Cluster::start(&[
        "--store",
        &database.url(),
        "--files",
        &files,
        "--lease-ttl",
        "2s",
    ]);
    let sweeps = launch_all(&cluster);

    cluster.gate.hold_after_trials(0);
    let _workers = [cluster.worker(2, &[]), cluster.worker(1, &[])];
    go_on(&cluster, &sweeps, BEGUN[0]);
    database.freeze();
    cluster.wait_for_log("the leadership has expired");
    database.thaw();

    cluster.wait_for_log("leading epoch=2");
    go_on(&cluster, &sweeps, BEGUN[1]);

    // One process, held up for longer than its claim lasts.
    for stall in stalls() {
        stand_still(&[cluster.coordinator()], stall);
    }

    cluster.gate.open();
    end(&cluster, &sweeps);
    let log = cluster.coordinator().log();
    let epochs: Vec<&str> = log
        .split(" leading epoch=")
        .skip(1)
        .filter_map(|rest| rest.split_whitespace().next())
        .collect();
    let mut once = epochs.clone();
    once.dedup();

    assert_eq!(epochs, once, "no epoch is led in twice:\n{log}");
}
