//! Bounds: whoever asks beyond them is told when to ask again, our own programs do so, and nobody else is the slower for it.

use std::net::SocketAddr;
use std::time::Instant;

use ergodic_proto::status::retry_after;
use ergodic_proto::v1;
use ergodic_proto::v1::sweep_service_client::SweepServiceClient;
use ergodic_tests::{Cluster, RawWorker, connection, wait_for};
use tokio::net::{TcpSocket, TcpStream};

use crate::auth::{guarded, token, token_file};
use crate::http::{address, get};
use crate::{block_on, empty_sweep};

/// Requests that were answered with RESOURCE_EXHAUSTED.
pub(crate) fn turned_away(http: &str) -> u64 {
    let (_, metrics) = get(http, "/metrics");
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("ergodic_grpc_requests") && line.contains("code=\"8\""));
    lines
        .map(|line| {
            line.rsplit_once(' ')
                .and_then(|(_, n)| n.parse::<u64>().ok())
                .expect("a number")
        })
        .sum()
}

#[test]
fn a_token_that_asks_too_often_waits_and_no_other_does() {
    let mut cluster = guarded(&["--rate-limit", "5", "--http", "127.0.0.1:0"]);
    let http = address(&cluster);
    let for_user = token(&cluster, "user", &[]);
    let for_worker = token(&cluster, "worker", &[]);
    let admin = std::mem::replace(&mut cluster.access, token_file(&for_user));

    // All at once, more than it may: all are answered in the end.
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..30)
            .map(|_| scope.spawn(|| cluster.run(&["list"])))
            .collect();
        for finished in asking {
            let finished = finished.join().expect("it ends");
            assert_eq!(finished.code, 0, "{}", finished.stderr);
        }
    });

    let waited = turned_away(&http);
    assert!(waited > 0, "nobody was turned away");
    assert!(
        waited < 30 * 30,
        "{waited} times turned away: nobody waited as long as told"
    );

    // A worker is turned away as well, and delivers all the same.
    let _worker = cluster.worker(1, &["--token-file", &for_worker.to_string_lossy()]);
    let id = cluster.launch(&empty_sweep(3000));
    wait_for("the sweep is complete", || {
        get(&http, "/metrics")
            .1
            .contains("ergodic_sweeps{state=\"completed\"} 1")
    });

    cluster.access = admin;
    let before = turned_away(&http);
    assert_eq!(cluster.rows(&id).lines().count(), 3001);
    assert_eq!(
        turned_away(&http),
        before,
        "the administrator's token was not asked too often"
    );
}

#[test]
fn readers_beyond_those_that_there_is_room_for_come_in_when_others_leave() {
    let mut cluster = Cluster::start(&["--http", "127.0.0.1:0"]);
    let http = address(&cluster);
    let _worker = cluster.worker(1, &[]);
    let id = cluster.launch(&empty_sweep(30_000));
    cluster.wait_for_end(&id);
    block_on(async {
        let mut client = SweepServiceClient::new(connection(&cluster.url).await);
        let mut stalled = Vec::new();
        let refused = loop {
            let request = v1::TrialsRequest {
                sweep: id.clone(),
                ..v1::TrialsRequest::default()
            };
            match client.trials(request).await {
                Ok(rows) => stalled.push(rows),
                Err(status) => break status,
            }

            assert!(
                stalled.len() < 1000,
                "there is room for any number of readers"
            );
        };
        assert!(retry_after(&refused).is_some(), "{refused}");

        let before = turned_away(&http);
        let url = cluster.url.clone();
        let wanted = id.clone();
        let table = std::thread::spawn(move || {
            ergodic_tests::run(&["table", &wanted, "--coordinator", &url])
        });
        wait_for("the table was asked for in vain", || {
            turned_away(&http) > before
        });

        // Whoever reads nothing holds up no one who asks for something small.
        assert_eq!(cluster.status(&id)["done"], 30_000);
        drop(stalled);
        let finished = table.join().expect("it ends");
        assert_eq!(finished.code, 0, "{}", finished.stderr);
    });

    let held = cluster.peak_memory_mib();
    assert!(held < 200, "the coordinator holds {held} MiB");
}

/// Cells whose curves have a hundred points each, and are three hundred thousand points in all.
fn many_curves() -> String {
    "name = \"curves\"\nrepeats = 1\n[model]\nkind = \"empty\"\n[train]\nsteps = 100\n[grid]\n\
     lr = { log = [0.001, 1.0], points = 60 }\nwd = { log = [1e-5, 1e-2], points = 50 }\n\
     [measure]\nevery = \"1 step\"\nmetrics = [\"test_acc\"]\n"
        .to_owned()
}

#[test]
fn curves_of_many_cells_come_in_pages_and_their_readers_share_a_budget() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(&many_curves());
    cluster.wait_for_end(&id);
    let before = cluster.peak_memory_mib();
    let request = v1::CurvesRequest {
        sweep: id.clone(),
        ..v1::CurvesRequest::default()
    };
    block_on(async {
        let client = SweepServiceClient::new(connection(&cluster.url).await)
            .max_decoding_message_size(64 << 20);
        // In one piece they would take more than all answers may.
        let refused = client
            .clone()
            .curves(request.clone())
            .await
            .expect_err("too much");

        let what = "more than the 256 MiB for all answers: use a newer `ergodic`, which reads it page by page";
        assert!(
            refused.code() == tonic::Code::PermissionDenied && refused.message().contains(what),
            "{refused}"
        );
        let reading: Vec<_> = (0..4)
            .map(|_| {
                let mut client = client.clone();
                let request = request.clone();
                tokio::spawn(async move {
                    let mut pages = client
                        .curve_pages(request)
                        .await
                        .expect("they are read")
                        .into_inner();

                    let mut points = 0;
                    let mut largest = 0;

                    while let Some(page) = pages.message().await.expect("a page") {
                        points += page.points.len();
                        largest = largest.max(page.points.len());
                    }

                    (points, largest)
                })
            })
            .collect();

        for reader in reading {
            let (points, largest) = reader.await.expect("it ends");
            assert!(
                points == 300_000 && largest <= 2_000,
                "{points} points, {largest} in a page"
            );
        }
    });

    let more = cluster.peak_memory_mib() - before;
    assert!(more < 150, "{more} MiB more for four readers");
    // What is read in pages is what there is.
    let table = cluster.ask(&["table", &id, "--format", "csv"]);
    assert_eq!(table.lines().count(), 3001);
    let large = cluster.launch(
        &many_curves()
            .replace("points = 60", "points = 6000")
            .replace("steps = 100", "steps = 1"),
    );

    for asked in [&["plot", &large][..], &["report", &large, "-o", "/nowhere"]] {
        let refused = cluster.run(asked);
        let words = ["300000 cells cannot be read", "ergodic export"];
        assert!(
            refused.code == 2 && words.iter().all(|word| refused.stderr.contains(word)),
            "{refused:?}"
        );
    }
}

#[test]
fn watchers_that_do_not_read_hold_up_nobody() {
    let mut cluster = Cluster::start(&[]);
    let id = cluster.launch(&empty_sweep(30_000));
    block_on(async {
        let mut watching = Vec::new();
        for _ in 0..10 {
            let mut client = SweepServiceClient::new(connection(&cluster.url).await);
            for _ in 0..50 {
                watching.push(
                    client
                        .watch(v1::WatchRequest { sweep: id.clone() })
                        .await
                        .expect("it can be watched"),
                );
            }
        }

        let _worker = cluster.worker(2, &[]);
        cluster.wait_for_end(&id);
        drop(watching);
    });

    assert_eq!(cluster.rows(&id).lines().count(), 30_001);
    let held = cluster.peak_memory_mib();
    assert!(held < 200, "the coordinator holds {held} MiB");
}

#[test]
fn results_that_a_slow_store_has_no_room_for_are_refused_and_taken_later() {
    let mut cluster = Cluster::start(&[]);
    cluster.take_coordinator().kill();
    cluster.restart_coordinator(&[("FAILPOINTS", "before-commit=sleep(1000)")]);
    let id = cluster.launch(&empty_sweep(10));
    let mut refused = 0;
    block_on(async {
        let mut worker = RawWorker::joined(&cluster.url, "a").await;
        let _beating = worker.keep_beating();
        let grant = worker.lease().await;

        // A megabyte, again and again: more than fits.
        let mut result = RawWorker::result(&grant, 0, 0.5);
        result.curve_steps = (1..=100_000).collect();
        result.curve_values = vec![0.5; 100_000];
        result.steps = 100_000;
        let mut waiting: Vec<v1::TrialResult> = vec![result; 100];
        while !waiting.is_empty() {
            let deliveries = waiting.into_iter().map(|result| {
                let mut sender = worker.as_worker(&worker);
                let grant = grant.clone();
                tokio::spawn(
                    async move { (sender.deliver(&grant, vec![result.clone()]).await, result) },
                )
            });
            let deliveries: Vec<_> = deliveries.collect();
            waiting = Vec::new();

            for delivery in deliveries {
                match delivery.await.expect("it is answered") {
                    (Ok(report), _) => assert_eq!(report.mismatches, 0),
                    (Err(status), result) => {
                        assert!(retry_after(&status).is_some(), "{status}");
                        waiting.push(result);
                    }
                }
            }

            refused += waiting.len();
        }
    });

    assert!(refused > 0, "there was room for everything");
    assert_eq!(cluster.status(&id)["done"], 1);
    let held = cluster.peak_memory_mib();
    assert!(held < 300, "the coordinator holds {held} MiB");
}

/// So many connections from so many made-up addresses of this machine; each says the first words of HTTP/2 and nothing else.
pub(crate) async fn crowd(to: SocketAddr, how_many: u8, addresses: u8) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for n in 0..how_many {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::from(([127, 0, 0, 2 + n % addresses], 0)))
            .expect("an address of this machine");
        let stream = socket.connect(to).await.expect("the system takes it");

        // Where it was closed at once there is nobody to hear it.
        let _ = stream.try_write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        all.push(stream);
    }

    all
}

/// What happens when there are more connections than descriptors.
fn crowded(descriptors: u32) {
    let limit = format!("--nofile={descriptors}:{descriptors}");
    let options = ["--http", "127.0.0.1:0", "--lease-ttl", "5s"];
    let mut cluster = Cluster::under(&["prlimit", &limit], "127.0.0.1:0", &options);
    let http = address(&cluster);
    cluster.gate.hold_after(1000);
    let worker = cluster.worker(1, &[]);

    let id = cluster.launch(&empty_sweep(20_000));
    cluster.wait_until_held(&id, 1000);
    let to: SocketAddr = cluster
        .url
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    block_on(async {
        let held = crowd(to, 200, 8).await;
        cluster.gate.open();
        // The worker goes on, and what it delivers is stored.
        let complete = "ergodic_sweeps{state=\"completed\"} 1";
        wait_for("the sweep is complete", || {
            get(&http, "/metrics").1.contains(complete)
        });

        let process = cluster.coordinator().process();
        assert!(process.descriptors() <= descriptors as usize);
        let since = Instant::now();
        let used = process.cpu_seconds();
        cluster
            .coordinator()
            .wait_until("two seconds have passed", || since.elapsed().as_secs() >= 2);

        let elapsed = since.elapsed().as_secs_f64();
        let used = process.cpu_seconds() - used;
        assert!(
            used < 0.5 * elapsed,
            "{used} s of CPU in {elapsed} s in which nothing was to be done"
        );

        drop(held);
    });

    wait_for("there is room again", || cluster.run(&["list"]).code == 0);
    assert!(
        !worker.log().contains("connection lost"),
        "the worker was cut off:\n{}",
        worker.log()
    );

    assert_eq!(cluster.rows(&id).lines().count(), 20_001);
    let status = cluster.status(&id);
    assert_eq!(
        (&status["releases"], &status["failed"]),
        (&0.into(), &0.into()),
        "{status}"
    );
}

#[test]
fn more_connections_than_descriptors_hold_up_nobody_who_is_there() {
    crowded(64);
}

#[test]
fn connections_to_the_http_port_are_few_and_short() {
    let cluster = Cluster::start(&["--http", "127.0.0.1:0"]);
    let http = address(&cluster);
    let process = cluster.coordinator().process();
    let before = process.descriptors();
    block_on(async {
        let held = crowd(http.parse().expect("an address"), 100, 1).await;
        // Another address is answered, and half of the places are all that one gets.
        assert_eq!(get(&http, "/healthz").0, 200);
        cluster.coordinator().wait_until("some had to go", || {
            process.descriptors() <= before + 32 + 8
        });
        assert!(
            process.descriptors() > before + 8,
            "those that may stay were closed too"
        );

        cluster
            .coordinator()
            .wait_until("they are closed", || process.descriptors() <= before + 8);
        drop(held);
    });
}
