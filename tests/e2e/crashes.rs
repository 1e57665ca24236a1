//! Processes that are killed, frozen and started again. Every scenario proves that its fault hit work under way, and ends
//! with what must hold whatever happened ([`Cluster::settle`]).

use ergodic_tests::{Cluster, Done, Program, wait_for};
use serde_json::Value;

use crate::{empty_sweep, reach, trials, work};

/// Repeats that the gate lets through before a fault.
const BEFORE: u32 = 7;

#[test]
fn a_killed_worker_costs_what_it_had_not_delivered() {
    let (text, wanted) = work();
    // Long enough for the heir to keep its own leases, however busy the machine is.
    let mut cluster = Cluster::counted(&["--lease-ttl", "10s"]);
    cluster.gate.hold_after(BEFORE);
    let victim = cluster.worker(2, &[]);
    let id = cluster.launch(&text);
    reach(&cluster, &id, BEFORE);

    victim.kill();
    cluster.gate.open();
    let died = Done::of(&cluster.worker_logs().next().expect("a log"));
    let heir = cluster.worker(2, &[]);
    let (status, done) = cluster.settle(&id, wanted, vec![heir]);
    assert!(
        status["releases"].as_u64() >= Some(1),
        "nothing was given out again: {status}"
    );

    let again = done.begun - status["trials"].as_u64().expect("a number");
    assert!(
        again <= died.open(),
        "{again} trials were run again; the victim had {died:?}"
    );
}

#[test]
fn a_sweep_outlives_all_its_workers() {
    let (text, wanted) = work();
    let mut cluster = Cluster::counted(&["--lease-ttl", "1s"]);
    cluster.gate.hold_after(BEFORE);
    let victims = [cluster.worker(1, &[]), cluster.worker(1, &[])];
    cluster.wait_for_workers(2);
    let id = cluster.launch(&text);
    reach(&cluster, &id, BEFORE);

    victims.into_iter().for_each(Program::kill);
    cluster.gate.open();
    let status = cluster.wait_until(&id, "nobody holds a trial", |s| s["leased"] == 0);
    assert_eq!(status["state"], "running");
    let heirs = vec![cluster.worker(1, &[]), cluster.worker(1, &[])];
    let (status, _) = cluster.settle(&id, wanted, heirs);
    assert!(
        status["releases"].as_u64() >= Some(1) && status["failed"] == 0,
        "{status}"
    );
}

/// What there is to know after a coordinator died in the middle of a commit, and another one finished the sweep.
struct AfterDeath {
    /// The sweep's last status.
    status: Value,
    /// Results that an earlier commit had stored, and whose acknowledgement the death prevented.
    unacknowledged: u64,
}

fn dies_at(place: &str) -> AfterDeath {
    let (text, wanted) = work();
    let mut cluster = Cluster::counted(&["--lease-ttl", "10s"]);
    // Before there are results: a kill while they come may fall between a commit and its acknowledgement, too.
    cluster.take_coordinator().kill();
    cluster.restart_coordinator(&[("FAILPOINTS", &format!("{place}=1*off->return"))]);
    let workers = vec![cluster.worker(1, &[]), cluster.worker(1, &[])];
    let id = cluster.launch(&text);

    let dying = cluster.take_coordinator();
    dying.wait_for_log("exiting here");
    dying.wait_for_death();
    let acknowledged = cluster.done().stored;
    cluster.restart_coordinator(&[]);
    let after = cluster.status(&id);
    let stored = after["done"].as_u64().expect("a number of trials");
    assert!(
        stored >= acknowledged,
        "{acknowledged} results were acknowledged: {after}"
    );

    let (status, done) = cluster.settle(&id, wanted, workers);
    assert_eq!(status["releases"], 0, "a lease was lost: {status}");
    assert_eq!(
        Some(done.begun),
        status["trials"].as_u64(),
        "running trials were begun again"
    );

    AfterDeath {
        status,
        unacknowledged: stored - acknowledged,
    }
}

#[test]
fn a_coordinator_that_stops_while_it_renews_its_claim_brings_its_log_home() {
    let mut cluster = Cluster::start(&[]);
    cluster.take_coordinator().kill();
    cluster.restart_coordinator(&[("FAILPOINTS", "while-renewing=sleep(1500)")]);
    cluster.launch(&empty_sweep(2));
    let database = cluster
        .path("store/ergodic.sqlite")
        .canonicalize()
        .expect("a store has a database");

    // The writer has it open, and whoever renews the claim.
    wait_for("the claim is renewed", || {
        cluster.coordinator().process().times_open(&database) > 1
    });

    // Looks at the store, too.
    cluster.close(Vec::new());
}

#[test]
fn a_coordinator_that_dies_before_a_commit_is_sent_the_results_again() {
    let after = dies_at("before-commit");
    assert!(
        after.status["duplicates"].as_u64() <= Some(after.unacknowledged),
        "what was not stored is stored now: {}",
        after.status
    );
}

#[test]
fn a_coordinator_that_dies_after_a_commit_compares_what_comes_again() {
    let after = dies_at("after-commit");
    assert!(after.status["duplicates"].as_u64() >= Some(1));
}

#[test]
fn a_coordinator_that_dies_before_an_acknowledgement_compares_what_comes_again() {
    let after = dies_at("before-acknowledgement");
    assert!(after.status["duplicates"].as_u64() >= Some(1));
}

#[test]
fn a_coordinator_that_dies_after_an_acknowledgement_has_kept_what_it_acknowledged() {
    dies_at("after-acknowledgement");
}

/// Empty trials whose results take 32 kB each.
const BULKY: &str = "name = \"bulky\"\nrepeats = 5000\n[model]\nkind = \"empty\"\n[train]\nsteps = 2000\n[measure]\n\
                     every = \"1 step\"\nmetrics = [\"test_acc\"]\n";

#[test]
fn a_worker_that_is_cut_off_goes_on_until_its_queue_of_results_is_full() {
    let mut cluster = Cluster::counted(&["--lease-ttl", "30s"]);
    cluster.take_coordinator().kill();
    cluster.restart_coordinator(&[("FAILPOINTS", "before-commit=3*off->return")]);
    let id = cluster.launch(BULKY);
    let worker = cluster.worker(1, &[]);
    cluster.take_coordinator().wait_for_death();

    let full = (64 << 20) / (96 + 8 * 4001);
    let open = || Done::of(&worker.log()).open();
    let refusals = || worker.log().matches("results not delivered").count();
    worker.wait_until("the queue of results is full", || open() > full);
    let before = refusals();
    worker.wait_until("it goes on trying", || refusals() > before + 2);

    assert!(open() <= full + 2, "{} results wait, {full} are to", open());
    let held = worker.process().peak_memory_mib();
    assert!(held < 160, "the worker holds {held} MiB");
    cluster.restart_coordinator(&[]);
    let rows = {
        cluster.wait_for_end(&id);
        cluster.rows(&id)
    };
    let (status, done) = cluster.settle(&id, &rows, vec![worker]);

    assert_eq!((&status["releases"], done.begun), (&0.into(), 5000));
}

#[test]
fn a_worker_that_comes_back_after_its_lease_ended_is_compared_and_taken_in_again() {
    let (text, wanted) = work();
    let mut cluster = Cluster::counted(&["--lease-ttl", "1s"]);
    cluster.gate.hold_after(BEFORE);
    let zombie = cluster.worker(1, &[]);
    let id = cluster.launch(&text);
    cluster.wait_until_held(&id, trials(BEFORE));

    // Some results lie finished on its desk, and none is on its way: of two repeats they are too few to be sent at once,
    // unless a lease ends with them. Then there are others.
    for repeats in (BEFORE + 2..60).step_by(2) {
        cluster.gate.hold_after(repeats);
        zombie.wait_until("the next repeats are done", || {
            Done::of(&zombie.log()).begun > trials(repeats)
        });
        zombie.freeze();

        if Done::of(&zombie.log()).open() > 10 {
            break;
        }

        zombie.thaw();
        cluster.wait_until_held(&id, trials(repeats));
    }

    cluster.gate.open();
    cluster.wait_until(&id, "its lease has run out", |s| {
        s["releases"].as_u64() >= Some(1)
    });
    let heir = cluster.worker(1, &[]);
    cluster.wait_for_end(&id);

    zombie.thaw();
    cluster.wait_until(&id, "its late results are compared", |s| {
        s["duplicates"].as_u64() >= Some(9)
    });
    let (status, _) = cluster.settle(&id, wanted, vec![zombie, heir]);
    assert!(status["fenced"].as_u64() >= Some(1), "{status}");
}

#[test]
fn a_worker_that_falls_silent_under_long_leases_is_told_from_one_that_crashes() {
    let mut cluster = Cluster::start(&["--lease-ttl", "120s"]);
    let silent = cluster.worker(1, &[]);
    let victim = cluster.worker(1, &[]);
    cluster.wait_for_workers(2);

    // Pings that are not answered end the session of the one, and its system that of the other.
    silent.freeze();
    victim.kill();
    let count = |end| cluster.coordinator().log().matches(end).count();
    wait_for("both sessions have ended", || {
        count("ByPeer") + count("BySilence") == 2
    });

    assert_eq!((count("ByPeer"), count("BySilence")), (1, 1));
}

#[test]
fn a_coordinator_that_was_held_up_takes_no_lease_away() {
    let (text, wanted) = work();
    let mut cluster = Cluster::counted(&["--lease-ttl", "4s"]);
    cluster.gate.hold_after(BEFORE);
    let worker = cluster.worker(1, &[]);
    let id = cluster.launch(&text);
    reach(&cluster, &id, BEFORE);

    cluster.coordinator().freeze();
    // The worker notices after a lease's time to live.
    worker.wait_for_log("connection lost");
    cluster.coordinator().thaw();
    cluster.gate.open();
    let (status, done) = cluster.settle(&id, wanted, vec![worker]);
    assert_eq!(
        (&status["releases"], &status["fenced"]),
        (&0.into(), &0.into()),
        "{status}"
    );

    assert_eq!(
        Some(done.begun),
        status["trials"].as_u64(),
        "running trials were begun again"
    );
}
