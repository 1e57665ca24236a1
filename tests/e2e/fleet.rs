//! Fleets: what many workers cost, and the limits that grow with their number.

use std::net::SocketAddr;
use std::path::Path;

use ergodic_common::trial::CPU_F32;
use ergodic_proto::channel::connect::{ClientChannel, connect_now};
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::retry_after;
use ergodic_proto::v1::session_request::Message as Request;
use ergodic_proto::v1::worker_service_client::WorkerServiceClient;
use ergodic_proto::{PROTOCOL_VERSION, v1};
use ergodic_tests::{Cluster, Finished, Program, RawWorker, naming, run, run_with, wait_for};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::auth::{guarded, token};
use crate::http::address;
use crate::limits::{crowd, turned_away};
use crate::{block_on, empty_sweep};

/// Measures a small fleet, whose temporary files are below a folder.
fn measure_fleet(folder: &Path, more: &[&str]) -> Finished {
    let folder = folder.to_string_lossy();
    let numbers = ["--workers", "50", "--busy", "20", "--connections", "2"];
    let durations = ["--events", "200", "--beat-for", "200ms"];
    let args = [&["bench", "fleet"][..], &numbers, &durations, more].concat();
    run_with(&[("TMPDIR", &folder)], &args)
}

/// Checks that nothing is below a folder, and that no process works there.
fn check_left_alone(folder: &Path) {
    let left: Vec<_> = std::fs::read_dir(folder).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(naming(folder), Vec::<String>::new());
}

#[test]
fn bench_fleet_measures_all_events_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let measured = measure_fleet(folder.path(), &[]);
    assert_eq!(measured.code, 0, "{}", measured.stderr);
    for line in [
        "50 workers, 20 of them busy, over 2 connections",
        "join:",
        "request that is answered:",
        "request in vain:",
        "heartbeat:",
        "heartbeats every 7.5 s:",
        "at rest:",
    ] {
        let lines = measured.stdout.lines();
        let found = lines.filter(|found| found.starts_with(line)).count();
        assert_eq!(found, 1, "{line} in\n{}", measured.stdout);
    }

    let measured = measure_fleet(folder.path(), &["--format", "json"]);
    let report: Value = serde_json::from_str(&measured.stdout).expect("a report");
    for (field, events) in [
        ("workers", 50),
        ("answered_requests", 20),
        // Whole rounds of all idle workers, and of all workers.
        ("unanswered_requests", 210),
        ("heartbeats", 200),
    ] {
        assert_eq!(report[field], events, "{field} of {report}");
    }
    check_left_alone(folder.path());
}

#[test]
fn an_interrupted_bench_fleet_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let logs = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().to_string_lossy();
    let args = ["bench", "fleet", "--workers", "5", "--beat-for", "1h"];
    let log = logs.path().join("bench.log");
    let bench = Program::start_with(&[("TMPDIR", &path)], &args, &log);
    wait_for("its coordinator runs", || !naming(folder.path()).is_empty());

    bench.signal("TERM");
    assert_eq!(bench.wait(), 130);
    check_left_alone(folder.path());
}

#[test]
fn workers_beyond_the_limit_on_sessions_come_in_when_others_leave() {
    let mut cluster = Cluster::start(&["--max-sessions", "2"]);
    let id = cluster.launch(&empty_sweep(10));
    block_on(async {
        let first = RawWorker::joined(&cluster.url, "a").await;
        let second = RawWorker::joined(&cluster.url, "b").await;
        let _beating = second.keep_beating();
        let refused = RawWorker::join(&cluster.url, "c", PROTOCOL_VERSION)
            .await
            .err()
            .expect("there are two already");
        let why = "2 workers are connected, the most that --max-sessions of the coordinator allows";
        assert!(refused.message().contains(why), "{refused}");
        assert!(retry_after(&refused).is_some(), "{refused}");

        let _worker = cluster.worker(1, &[]);
        first.say(Request::Goodbye(v1::Goodbye {})).await;
        cluster.wait_for_end(&id);
        drop(second);
    });
}

#[test]
fn connections_beyond_a_limit_are_closed_and_the_log_names_the_option() {
    let limits = [
        "--max-connections",
        "12",
        "--max-connections-per-address",
        "3",
    ];
    let cluster = Cluster::start(&limits);
    let to = cluster.url.trim_start_matches("http://");
    let to: SocketAddr = to.parse().expect("an address");
    block_on(async {
        let of_one = crowd(to, 5, 1).await;
        cluster.wait_for_log(
            "127.0.0.2 has 3 connections, the most that --max-connections-per-address allows",
        );
        // Whoever has another address is let in.
        cluster.ask(&["list"]);

        let of_five = crowd(to, 15, 5).await;
        cluster.wait_for_log("12 connections are open, the most that --max-connections allows");
        drop((of_one, of_five));
    });

    wait_for("there is room again", || cluster.run(&["list"]).code == 0);
}

#[test]
fn a_limit_that_is_more_than_all_is_refused_before_anything_is_done() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let store = folder.path().join("store");
    let refused = run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--store",
        &store.to_string_lossy(),
        "--max-connections",
        "8",
        "--max-connections-per-address",
        "9",
    ]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    let why = "--max-connections-per-address 9: expected at most 8, which is --max-connections";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    check_left_alone(folder.path());
}

/// A client of a worker's service over its own connection, with a token.
async fn connect_with(cluster: &Cluster, token: &Path) -> WorkerServiceClient<ClientChannel> {
    let access = ClientAuth::default().with_token_file(Some(token));
    let access = access.expect("the token can be read");
    let channel = connect_now(&cluster.url, &access).await;
    WorkerServiceClient::new(channel.expect("the coordinator answers"))
}

/// A session over a client's connection, which lasts as long as both of its ends.
async fn join_over(
    client: &mut WorkerServiceClient<ClientChannel>,
    id: &str,
) -> (
    mpsc::Sender<v1::SessionRequest>,
    Streaming<v1::SessionResponse>,
) {
    let hello = v1::Hello {
        protocol: PROTOCOL_VERSION,
        worker: id.repeat(32),
        name: id.to_owned(),
        slots: 1,
        numerics: vec![CPU_F32.into()],
        ..v1::Hello::default()
    };
    let first = v1::SessionRequest {
        message: Some(Request::Hello(hello)),
    };
    let (outgoing, messages) = mpsc::channel(1);
    outgoing.send(first).await.expect("the channel is open");

    let session = client.session(ReceiverStream::new(messages)).await;
    let mut incoming = session.expect("the worker may join").into_inner();
    incoming.message().await.expect("a welcome");
    (outgoing, incoming)
}

/// Asks for a sweep that there is not, so often at once.
async fn ask_often(client: &WorkerServiceClient<ClientChannel>, times: usize) {
    let asking: Vec<_> = (0..times)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.get_sweep(v1::GetSweepRequest::default()).await })
        })
        .collect();
    for asked in asking {
        let answer = asked.await.expect("it ends").expect_err("no such sweep");
        assert_eq!(answer.code(), Code::NotFound, "{answer}");
    }
}

#[test]
fn workers_in_session_ask_beyond_the_rate_of_the_token_that_they_share() {
    let limits = ["--rate-limit", "5", "--worker-rate-limit", "1000"];
    let cluster = guarded(&[&limits[..], &["--http", "127.0.0.1:0"]].concat());
    let http = address(&cluster);
    let shared = token(&cluster, "worker", &[]);
    block_on(async {
        let mut workers = Vec::new();
        for id in ["a", "b"] {
            let mut client = connect_with(&cluster, &shared).await;
            let session = join_over(&mut client, id).await;
            workers.push((client, session));
        }

        let before = turned_away(&http);
        for (client, _) in &workers {
            ask_often(client, 100).await;
        }
        assert_eq!(turned_away(&http), before, "a worker was turned away");

        // Without a session, the token's own rate holds.
        let client = connect_with(&cluster, &shared).await;
        ask_often(&client, 12).await;
        assert!(turned_away(&http) > before, "nobody was turned away");
    });
}

#[test]
fn a_worker_that_asks_too_often_waits_and_no_other_of_its_token_does() {
    let limits = ["--rate-limit", "1000", "--worker-rate-limit", "5"];
    let cluster = guarded(&[&limits[..], &["--http", "127.0.0.1:0"]].concat());
    let http = address(&cluster);
    let shared = token(&cluster, "worker", &[]);
    block_on(async {
        let mut busy = connect_with(&cluster, &shared).await;
        let _busy_session = join_over(&mut busy, "a").await;
        let mut calm = connect_with(&cluster, &shared).await;
        let _calm_session = join_over(&mut calm, "b").await;

        let before = turned_away(&http);
        ask_often(&busy, 12).await;
        let after = turned_away(&http);
        assert!(after > before, "nobody was turned away");

        ask_often(&calm, 5).await;
        assert_eq!(turned_away(&http), after, "the other worker had to wait");
    });
}
