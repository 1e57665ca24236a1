//! Networks that are slow, cut connections, swallow what is sent, or change it; and peers that send everything twice.

use std::collections::HashMap;
use std::time::Duration;

use ergodic_proto::v1;
use ergodic_tests::{Cluster, Proxy, RawWorker, Weather};

use crate::{block_on, empty_sweep, reach, trials, work};

/// What a made-up result says, so that it is the same whoever delivers it.
fn metric(grant: &v1::Grant, i: usize) -> f64 {
    f64::from(grant.repeats[i]) / 64.0
}

/// Has a worker made by hand run a whole sweep, every batch delivered by `deliver`.
async fn run(
    cluster: &Cluster,
    id: &str,
    mut deliver: impl AsyncFnMut(&mut RawWorker, &v1::Grant, Vec<v1::TrialResult>),
) {
    let mut worker = RawWorker::joined(&cluster.url, "a").await;
    let _beating = worker.keep_beating();

    while cluster.status(id)["state"] != "completed" {
        let grant = worker.lease().await;
        let results = (0..grant.cells.len())
            .map(|i| RawWorker::result(&grant, i, metric(&grant, i)))
            .collect();
        deliver(&mut worker, &grant, results).await;
    }
}

#[test]
fn results_that_all_come_twice_and_out_of_order_are_counted_once() {
    let once = Cluster::start(&[]);
    let first = once.launch(&empty_sweep(60));
    block_on(run(&once, &first, async |worker, grant, results| {
        worker.deliver(grant, results).await.expect("taken");
    }));
    let wanted = once.rows(&first);

    let cluster = Cluster::start(&[]);
    let id = cluster.launch(&empty_sweep(60));
    let mut answers: HashMap<bool, u32> = HashMap::new();
    block_on(run(&cluster, &id, async |worker, grant, results| {
        // The second half before the first, from two connections at a time, and everything once more at the end.
        let other = RawWorker::joined(&cluster.url, "b").await;
        let (a, b) = results.split_at(results.len() / 2);
        let all = [a, b].concat();
        let mut other_worker = other.as_worker(worker);
        let both = tokio::join!(
            worker.deliver(grant, b.to_vec()),
            other_worker.deliver(grant, b.to_vec())
        );
        let mut reports = vec![both.0.expect("taken"), both.1.expect("taken")];

        for batch in [a.to_vec(), all.iter().rev().cloned().collect()] {
            reports.push(worker.deliver(grant, batch).await.expect("taken"));
        }

        for report in reports {
            assert_eq!(report.mismatches, 0);
            *answers.entry(true).or_default() += report.stored;
            *answers.entry(false).or_default() += report.duplicates;
        }
    }));

    assert_eq!(answers[&true], 60, "stored once each");
    assert!(
        answers[&false] >= 60,
        "compared at least once each: {answers:?}"
    );
    assert_eq!(cluster.status(&id)["duplicates"], answers[&false]);

    cluster.settle(&id, &wanted, Vec::new());
}

#[test]
fn connections_that_are_slow_or_cut_restart_no_trial() {
    let (text, wanted) = work();
    let mut cluster = Cluster::counted(&["--lease-ttl", "10s"]);
    let proxy = Proxy::before(&cluster.url);
    let workers = vec![
        cluster.worker_by(&proxy.url, 1, &[]),
        cluster.worker_by(&proxy.url, 1, &[]),
    ];

    cluster.gate.hold_after(4);
    let id = cluster.launch(&text);

    for repeats in [4, 14, 24, 34] {
        cluster.gate.hold_after(repeats);
        let both_at_work =
            |s: &serde_json::Value| s["done"] == trials(repeats) && s["workers"] == 2;
        cluster.wait_until(&id, "both workers are at work", both_at_work);
        reach(&cluster, &id, repeats);
        proxy.cut();

        proxy.set(Weather::Slow(Duration::from_millis(if repeats == 14 {
            100
        } else {
            0
        })));
    }

    proxy.set(Weather::Fair);
    cluster.gate.open();
    let (status, done) = cluster.settle(&id, wanted, workers);
    assert!(
        proxy.harm() >= 8,
        "two workers were to be cut off four times: {}",
        proxy.harm()
    );

    assert_eq!(status["releases"], 0, "{status}");
    assert_eq!(
        Some(done.begun),
        status["trials"].as_u64(),
        "running trials were begun again"
    );
}

#[test]
fn a_network_that_swallows_everything_is_noticed_and_heals_without_a_restart() {
    let (text, wanted) = work();
    let mut cluster = Cluster::counted(&["--lease-ttl", "2s"]);
    let proxy = Proxy::before(&cluster.url);
    cluster.gate.hold_after(6);
    let worker = cluster.worker_by(&proxy.url, 1, &[]);
    let id = cluster.launch(&text);
    reach(&cluster, &id, 6);

    proxy.set(Weather::Silent);
    cluster.wait_until(&id, "its lease has run out", |s| {
        s["releases"].as_u64() >= Some(1)
    });
    worker.wait_for_log("connection lost");
    proxy.set(Weather::Fair);

    cluster.gate.open();
    cluster.wait_for_end(&id);
    assert!(proxy.harm() > 0);

    // What hangs on the other side of the hole is closed by whoever asks in vain whether it lives.
    let (status, _) = cluster.settle(&id, wanted, vec![worker]);
    assert_eq!(status["failed"], 0, "{status}");
}

/// Empty trials with long curves: most of what travels is numbers.
const CURVES: &str = "name = \"curves\"\nrepeats = 1500\n[model]\nkind = \"empty\"\n[train]\nsteps = 300\n[measure]\n\
                      every = \"1 step\"\nmetrics = [\"test_acc\"]\n";

#[test]
fn bits_that_change_on_their_way_are_noticed_and_end_no_trial() {
    let all = |cluster: &Cluster, id: &str| {
        (
            cluster.rows(id),
            cluster.ask(&["curves", id, "--format", "csv"]),
        )
    };

    let mut calm = Cluster::start(&[]);
    let _worker = calm.worker(1, &[]);
    let id = calm.launch(CURVES);
    calm.wait_for_end(&id);
    let (wanted, curves) = all(&calm, &id);

    let mut cluster = Cluster::counted(&["--lease-ttl", "2s"]);
    let proxy = Proxy::before(&cluster.url);
    proxy.set(Weather::Damaging(100_000));
    let worker = cluster.worker_by(&proxy.url, 1, &[]);
    let id = cluster.launch(CURVES);
    worker.wait_until("damage is noticed", || {
        worker.log().contains("were damaged in transit")
    });

    proxy.set(Weather::Fair);
    cluster.wait_for_end(&id);
    assert_eq!(all(&cluster, &id).1, curves);
    let (status, _) = cluster.settle(&id, &wanted, vec![worker]);
    assert!(proxy.harm() > 0 && status["failed"] == 0, "{status}");
}
