//! Crowds: workers that come by the thousand and drop, talk without end, do not listen, or die with open streams.

use std::time::Instant;

use ergodic_proto::v1;
use ergodic_proto::v1::session_request::Message as Request;
use ergodic_proto::v1::sweep_service_client::SweepServiceClient;
use ergodic_tests::{Cluster, RawWorker, connection};

use crate::{SWEEP, block_on, empty_sweep, trials};

/// More memory than this no number of workers makes a coordinator hold, in MiB.
const MEMORY: u64 = 200;

/// Joins workers that beat from their welcome on: the first of them would otherwise have fallen silent before a slow machine
/// has welcomed the last.
async fn join(url: &str, how_many: u32) -> Vec<RawWorker> {
    let joining = (0..how_many).map(|n| {
        let url = url.to_owned();
        let id = format!("{n:04x}");
        tokio::spawn(async move {
            let worker = RawWorker::joined(&url, &id).await;
            worker.keep_beating();
            worker
        })
    });

    let mut workers = Vec::new();
    for worker in joining.collect::<Vec<_>>() {
        workers.push(worker.await.expect("it joins"));
    }

    workers
}

fn known(cluster: &Cluster) -> usize {
    let workers: Vec<serde_json::Value> =
        serde_json::from_str(&cluster.ask(&["workers", "--format", "json"]))
            .expect("the workers are JSON");
    workers.len()
}

#[test]
fn a_thousand_workers_come_at_once_and_drop() {
    let cluster = Cluster::start(&["--lease-ttl", "5s"]);
    let base = cluster.coordinator().process().descriptors();
    block_on(async {
        let workers = join(&cluster.url, 1000).await;
        assert_eq!(known(&cluster), 1000);
        assert!(cluster.coordinator().process().descriptors() >= base + 1000);
        drop(workers);
    });

    let coordinator = cluster.coordinator();
    coordinator.wait_until("their connections are closed", || {
        coordinator.process().descriptors() <= base
    });

    // While nobody is there it has next to nothing to do; forgetting them takes ten seconds.
    let since = Instant::now();
    let used = coordinator.process().cpu_seconds();
    coordinator.wait_until("they are forgotten", || known(&cluster) == 0);
    let elapsed = since.elapsed().as_secs_f64();
    let used = coordinator.process().cpu_seconds() - used;
    assert!(
        used < 0.5 * elapsed + 0.5,
        "{used} s of CPU in {elapsed} s in which nobody was there"
    );

    let held = cluster.peak_memory_mib();
    assert!(held < MEMORY, "the coordinator holds {held} MiB");
}

#[test]
fn a_hundred_thousand_small_messages_are_all_answered() {
    let cluster = Cluster::start(&[]);
    block_on(async {
        let mut worker = RawWorker::joined(&cluster.url, "a").await;
        for _ in 0..100_000 / 50 {
            for _ in 0..49 {
                worker
                    .say(Request::Heartbeat(v1::Heartbeat::default()))
                    .await;
            }

            worker.beats(50).await;
        }
    });

    let held = cluster.peak_memory_mib();
    assert!(held < MEMORY, "the coordinator holds {held} MiB");
}

#[test]
fn a_worker_that_does_not_listen_loses_its_session_and_holds_up_nobody() {
    let mut cluster = Cluster::start(&[]);
    cluster.gate.hold_after(1000);
    let _worker = cluster.worker(1, &[]);
    let id = cluster.launch(&empty_sweep(20_000));
    block_on(async {
        let deaf = RawWorker::joined(&cluster.url, "a").await;
        for _ in 0..100_000 {
            if !deaf
                .try_say(Request::Heartbeat(v1::Heartbeat::default()))
                .await
            {
                break;
            }
        }

        cluster.gate.open();
        cluster.wait_for_end(&id);
        drop(deaf);
    });

    assert_eq!(cluster.rows(&id).lines().count(), 20_001);
    let held = cluster.peak_memory_mib();
    assert!(held < MEMORY, "the coordinator holds {held} MiB");
}

#[test]
fn readers_that_stall_hold_up_nobody() {
    let mut cluster = Cluster::start(&[]);
    cluster.gate.hold_after(10_000);
    let id = cluster.launch(&empty_sweep(30_000));
    block_on(async {
        let worker = cluster.worker(2, &[]);
        cluster.wait_until_held(&id, 10_000);
        // Each is sent megabytes, and takes none.
        let mut stalled = Vec::new();

        for _ in 0..20 {
            let mut client = SweepServiceClient::new(connection(&cluster.url).await);
            let watching = client
                .watch(v1::WatchRequest { sweep: id.clone() })
                .await
                .expect("it can be watched");
            let request = v1::TrialsRequest {
                sweep: id.clone(),
                ..v1::TrialsRequest::default()
            };
            let rows = client.trials(request).await.expect("its rows can be read");

            stalled.push((client, watching, rows));
        }

        cluster.gate.open();
        cluster.wait_for_end(&id);
        drop((stalled, worker));
    });

    assert_eq!(cluster.rows(&id).lines().count(), 30_001);
    let held = cluster.peak_memory_mib();
    assert!(held < MEMORY, "the coordinator holds {held} MiB");
}

#[test]
fn a_coordinator_told_to_stop_waits_for_no_open_stream_and_for_no_dead_client() {
    let mut cluster = Cluster::start(&[]);
    cluster.gate.hold_after(2);
    let dead = cluster.worker(1, &[]);
    let id = cluster.launch(SWEEP);
    cluster.wait_until_held(&id, trials(2));
    dead.freeze();

    block_on(async {
        let workers = join(&cluster.url, 100).await;
        let coordinator = cluster.take_coordinator();
        coordinator.signal("TERM");
        assert_eq!(coordinator.wait(), 0);
        drop(workers);
    });

    let left = cluster.path("store/ergodic.sqlite-wal");
    assert!(
        !left.exists(),
        "what was written ahead is not in the database"
    );

    dead.thaw();
}
