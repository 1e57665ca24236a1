//! What the coordinator tells over HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;

use ergodic_tests::Cluster;

use crate::SWEEP;

/// Asks for a path; gives the status code and the body.
pub(crate) fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the port is open");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .expect("it listens");

    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let code = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("an HTTP status");

    (code, body.to_owned())
}

/// The address of a cluster's HTTP port.
pub(crate) fn address(cluster: &Cluster) -> String {
    cluster.wait_for_log("over http address=")
}

fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{name} is missing in\n{metrics}"))
}

#[test]
fn health_and_metrics_are_told_over_http() {
    let mut cluster = Cluster::start(&["--http", "127.0.0.1:0"]);
    let address = address(&cluster);
    assert_eq!(get(&address, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(&address, "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(get(&address, "/elsewhere").0, 404);
    let _worker = cluster.worker(2, &[]);

    let id = cluster.launch(SWEEP);
    let under_way = cluster.wait_until(&id, "a row is there", |s| s["done"].as_u64() > Some(0));
    let (code, metrics) = get(&address, "/metrics");
    assert_eq!(code, 200);
    assert_eq!(value(&metrics, "ergodic_workers{state=\"joined\"}"), 1.0);
    assert_eq!(value(&metrics, "ergodic_slots"), 2.0);
    assert_eq!(value(&metrics, "ergodic_epoch"), 1.0);
    assert!(metrics.contains("# HELP ergodic_epoch Epoch of the leadership"));

    cluster.wait_for_end(&id);
    let (_, metrics) = get(&address, "/metrics");
    assert_eq!(value(&metrics, "ergodic_sweeps{state=\"completed\"}"), 1.0);
    assert_eq!(value(&metrics, "ergodic_trials{state=\"waiting\"}"), 0.0);
    let ended = |outcome: &str| {
        value(
            &metrics,
            &format!("ergodic_trial_seconds_count{{outcome=\"{outcome}\"}}"),
        )
    };
    assert_eq!((ended("completed"), ended("diverged")), (48.0, 24.0));

    assert!(
        value(
            &metrics,
            "ergodic_grpc_requests_total{method=\"CommitResults\",code=\"0\"}"
        ) >= 1.0
    );

    assert!(value(&metrics, "ergodic_commit_seconds_count") >= 3.0);
    assert!(value(&metrics, "ergodic_process_resident_memory_bytes") > 1e6);
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    assert_eq!(under_way["trouble"], serde_json::Value::Null);
}

#[test]
fn slow_connections_of_one_address_starve_no_probe() {
    let cluster = Cluster::start(&["--http", "127.0.0.1:0"]);
    let address = address(&cluster);
    let slow = |_| {
        let mut stream = TcpStream::connect(&address).expect("the port is open");
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: ").expect("half a request");
        stream
    };
    let mut held: Vec<TcpStream> = (0..200).map(slow).collect();

    for n in 0..20 {
        assert_eq!(
            get(&address, "/readyz"),
            (200, "ready\n".to_owned()),
            "with {} slow ones",
            held.len()
        );

        held.push(slow(n));
    }
}
