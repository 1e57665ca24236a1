//! Clients that mean harm. Each gets the right code or a closed connection; the coordinator lives, answers others, and
//! holds no more memory than [`MEMORY`] above what it held before. How much slower others are answered meanwhile is said for
//! every attack, beside what is usual; `cargo test --workspace --test e2e -- hostile:: --test-threads 1` prints the table.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ergodic_proto::channel::connect;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::v1;
use ergodic_proto::v1::sweep_service_client::SweepServiceClient;
use ergodic_proto::v1::worker_service_client::WorkerServiceClient;
use ergodic_tests::{Cluster, connection, note, wait_for};
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::auth::guarded;
use crate::block_on;

/// Memory that no client makes the coordinator take, in MiB.
const MEMORY: u64 = 64;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// So many answers others get during an attack, at least.
const ANSWERS: usize = 200;
/// And so many while what it did is held.
const MEANWHILE: usize = 20;

/// Somebody who asks for something small again and again, until dropped.
struct Neighbour {
    took: Arc<Mutex<Vec<Duration>>>,
    leaves: Arc<AtomicBool>,
    asking: Option<JoinHandle<()>>,
}

impl Neighbour {
    fn of(cluster: &Cluster) -> Self {
        let token = cluster.access.get(1).map(Path::new);
        let access = ClientAuth::default()
            .with_token_file(token)
            .expect("the token can be read");
        let took = Arc::<Mutex<Vec<Duration>>>::default();
        let leaves = Arc::<AtomicBool>::default();

        let url = cluster.url.clone();
        let all = took.clone();
        let stop = leaves.clone();
        let ask = async move {
            let connection = connect::connect_now(&url, &access)
                .await
                .expect("a coordinator answers");
            let mut client = SweepServiceClient::new(connection);

            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                client
                    .list(v1::ListRequest {})
                    .await
                    .expect("others are answered");

                all.lock()
                    .expect("nobody panics with it")
                    .push(asked.elapsed());
            }
        };
        let asking = std::thread::spawn(move || block_on(ask));

        Self {
            took,
            leaves,
            asking: Some(asking),
        }
    }

    fn answers(&self) -> usize {
        self.took.lock().expect("nobody panics with it").len()
    }

    fn wait_for(&self, answers: usize) {
        wait_for("others are answered", || self.answers() >= answers);
    }

    /// The median time to the answers from this one on.
    fn median(&self, from: usize) -> Duration {
        let mut took = self.took.lock().expect("nobody panics with it")[from..].to_vec();
        took.sort_unstable();
        took[took.len() / 2]
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.leaves.store(true, Ordering::Relaxed);
        let ended = self.asking.take().map(JoinHandle::join);
        assert!(
            std::thread::panicking() || matches!(ended, Some(Ok(()))),
            "others were not answered"
        );
    }
}

/// Does harm to a coordinator, which is then as well as before.
fn survives<T>(what: &str, harm: impl Fn(&Cluster) -> T) {
    attacked(&Cluster::start(&[]), what, harm);
}

/// Does harm again and again while others are answered, and holds what it gives until they were.
fn attacked<T>(cluster: &Cluster, what: &str, harm: impl Fn(&Cluster) -> T) {
    cluster.ask(&["list"]);
    let neighbour = Neighbour::of(cluster);
    neighbour.wait_for(ANSWERS);
    let calm = neighbour.median(0);
    let before = cluster.peak_memory_mib();
    let first = neighbour.answers();
    while neighbour.answers() < first + ANSWERS {
        let so_far = neighbour.answers();
        let held = harm(cluster);
        neighbour.wait_for(so_far + MEANWHILE);
        drop(held);
    }

    let during = neighbour.median(first);
    let answers = neighbour.answers() - first;
    drop(neighbour);
    cluster.ask(&["list"]);
    let more = cluster.peak_memory_mib() - before;
    let ratio = during.as_secs_f64() / calm.as_secs_f64();
    note(&format!(
        "hostile: {what}: {calm:.0?} when calm, {during:.0?} meanwhile, × {ratio:.1}; {answers} answers; + {more} MiB"
    ));

    assert!(more <= MEMORY, "{before} MiB before, {more} more after");
    let coordinator = cluster.coordinator();
    coordinator.wait_until("connections are closed", || {
        coordinator.process().descriptors() <= cluster.descriptors()
    });
}

#[test]
fn a_message_of_a_hundred_mebibytes_is_out_of_range() {
    survives("a message of 100 MiB", |cluster| {
        block_on(async {
            let mut client = SweepServiceClient::new(connection(&cluster.url).await);
            let source = v1::SpecSource {
                text: "x".repeat(100 << 20),
                ..v1::SpecSource::default()
            };
            let request = v1::LaunchRequest {
                source: Some(source),
                ..v1::LaunchRequest::default()
            };
            let refused = client.launch(request).await.expect_err("too large");

            assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
        });
    });
}

#[test]
fn launches_whose_senders_have_gone_make_room_for_others() {
    const GIVEN_UP: &str = "no client waits for this launch any more";
    let mut cluster = Cluster::start(&[]);
    cluster.take_coordinator().kill();
    cluster.restart_coordinator(&[("ERGODIC_LOG", "info,ergodic::server::services=debug")]);
    attacked(
        &cluster,
        "launches of large grids, whose senders hang up",
        |cluster| {
            let sweep = |rest: &str| {
                let text = format!(
                    "name = \"t\"\nrepeats = 1\n[model]\nkind = \"toy\"\ndim = 4\n[train]\nlr = 0.1\nsteps = 1\n[measure]\nmetrics = \
                 [\"train_loss\"]\n{rest}"
                );
                let source = v1::SpecSource {
                    text,
                    grammar: 2,
                    ..v1::SpecSource::default()
                };

                v1::LaunchRequest {
                    source: Some(source),
                    ..v1::LaunchRequest::default()
                }
            };
            let large = sweep(&format!(
                "[grid]\nlr = {{ linear = [0.1, 0.2], points = 500000 }}\n[where]\nkeep = \"lr < 1{}\"\n",
                " && lr < 1".repeat(390)
            ));

            let given_up = cluster.coordinator().log().matches(GIVEN_UP).count();
            let hang_up = async {
                let channel = connection(&cluster.url).await;
                let launch = |request: v1::LaunchRequest| {
                    let mut client = SweepServiceClient::new(channel.clone());
                    async move { client.launch(request).await }
                };
                let mut senders: Vec<_> = (0..4)
                    .map(|_| {
                        tokio::spawn(launch_when_there_is_room(channel.clone(), large.clone()))
                    })
                    .collect();

                // Until all places are taken, and then until they are free.
                while is_launched(launch(sweep("")).await) {
                    if let Some(sender) = senders.iter_mut().find(|sender| sender.is_finished()) {
                        panic!("a large one was over before: {:?}", sender.await);
                    }
                }

                senders.iter().for_each(|sender| sender.abort());
                // None of them is read to its end, which would make room as well, some seconds later.
                cluster
                    .coordinator()
                    .wait_for_log_times(GIVEN_UP, given_up + senders.len());
                while !is_launched(launch(sweep("")).await) {}
            };

            block_on(async {
                tokio::time::timeout(PATIENCE, hang_up)
                    .await
                    .expect("there is room in the end")
            });
        },
    );
}

async fn launch_when_there_is_room(
    channel: Channel,
    request: v1::LaunchRequest,
) -> Result<(), Status> {
    loop {
        match SweepServiceClient::new(channel.clone())
            .launch(request.clone())
            .await
        {
            Err(refused) if refused.code() == Code::ResourceExhausted => {}
            answer => return answer.map(|_| ()),
        }
    }
}

/// Whether a sweep was launched, or else there was no room for it.
fn is_launched(answer: Result<Response<v1::LaunchResponse>, Status>) -> bool {
    match answer {
        Ok(_) => true,
        Err(refused) => {
            assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
            false
        }
    }
}

#[test]
fn a_message_that_swells_when_it_is_unpacked_is_refused() {
    survives("a zstd bomb of 256 MiB", |cluster| {
        block_on(async {
            let client = WorkerServiceClient::new(connection(&cluster.url).await);
            let mut client = client.send_compressed(CompressionEncoding::Zstd);
            // 256 MiB that travel as a few kilobytes.
            let bomb = v1::CommitResultsRequest {
                sweep: "\0".repeat(256 << 20),
                ..v1::CommitResultsRequest::default()
            };
            let refused = client.commit_results(bomb).await.expect_err("too large");
            assert!(
                matches!(refused.code(), Code::ResourceExhausted | Code::OutOfRange),
                "{refused}"
            );
        });
    });
}

#[test]
fn results_that_are_not_as_they_were_sealed_are_refused() {
    survives("results that are not as sealed", |cluster| {
        block_on(async {
            let mut client = WorkerServiceClient::new(connection(&cluster.url).await);
            let sealed = v1::CommitResultsRequest {
                sweep: "a".into(),
                ..v1::CommitResultsRequest::default()
            }
            .with_checksum();
            let refused = client
                .commit_results(sealed.clone())
                .await
                .expect_err("no such sweep");
            assert_eq!(refused.code(), Code::NotFound, "{refused}");

            let changed = v1::CommitResultsRequest {
                sweep: "b".into(),
                ..sealed
            };
            let refused = client.commit_results(changed).await.expect_err("damaged");
            assert_eq!(refused.code(), Code::DataLoss, "{refused}");
        });
    });
}

/// An HTTP/2 connection written by hand: the preface, settings, and whatever frames one likes.
struct Frames {
    socket: TcpStream,
    waiting: Vec<u8>,
}

impl Frames {
    fn open(cluster: &Cluster) -> Self {
        let mut waiting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        waiting.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        Self {
            socket: connect(cluster),
            waiting,
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let len = payload.len() as u32;
        self.waiting.extend(&len.to_be_bytes()[1..]);
        self.waiting.extend([kind, flags]);
        self.waiting.extend(stream.to_be_bytes());
        self.waiting.extend(payload);
    }

    /// The head of a request for a session; the body never comes.
    fn begin(&mut self, stream: u32) {
        // POST, http, and literal fields: path (name 4 of the static table), authority (1), content-type (31), te.
        let mut head = vec![0x83, 0x86];
        let text = |head: &mut Vec<u8>, name: &[u8], value: &str| {
            head.extend(name);
            head.push(value.len() as u8);
            head.extend(value.as_bytes());
        };
        text(&mut head, &[0x04], "/ergodic.v1.WorkerService/Session");

        text(&mut head, &[0x01], "localhost");
        text(&mut head, &[0x0f, 0x10], "application/grpc");
        text(&mut head, &[0x00, 0x02, b't', b'e'], "trailers");
        self.frame(1, 4, stream, &head);
    }

    fn reset(&mut self, stream: u32) {
        self.frame(3, 0, stream, &8_u32.to_be_bytes());
    }

    /// Sends what was written; whether the other side still takes it.
    fn send(&mut self) -> bool {
        self.socket
            .write_all(&std::mem::take(&mut self.waiting))
            .is_ok()
    }

    /// What the other side says until it closes or is silent for a while.
    fn answer(mut self) -> Vec<u8> {
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = self.socket.read(&mut piece) {
            answer.extend(&piece[..n]);
        }
        answer
    }
}

fn connect(cluster: &Cluster) -> TcpStream {
    let (_, address) = cluster
        .url
        .split_once("://")
        .expect("the cluster has an address");
    let socket = TcpStream::connect(address).expect("a coordinator listens");
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a timeout can be set");

    socket
        .set_write_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout can be set");
    socket
}

/// What the frames of a kind hold.
fn frames(bytes: &[u8], wanted: u8) -> Vec<Vec<u8>> {
    let mut at = 0;
    let mut found = Vec::new();

    while let Some(head) = bytes.get(at..at + 9) {
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some(payload) = bytes.get(at + 9..at + 9 + len) else {
            break;
        };

        if head[3] == wanted {
            found.push(payload.to_vec());
        }

        at += 9 + len;
    }

    found
}

#[test]
fn ten_thousand_streams_on_one_connection_are_refused_beyond_those_that_are_allowed() {
    survives("10 000 streams", |cluster| {
        let mut frames_of = Frames::open(cluster);
        for n in 0..10_000 {
            frames_of.begin(2 * n + 1);
            if n % 100 == 99 && !frames_of.send() {
                break;
            }
        }

        let answer = frames_of.answer();
        let resets = frames(&answer, 3).len();
        let goodbyes = frames(&answer, 7).len();
        assert!(resets > 0 || goodbyes > 0, "nothing was refused");
    });
}

#[test]
fn streams_opened_and_reset_without_end_cost_the_connection() {
    survives("50 000 streams opened and reset", |cluster| {
        let mut frames_of = Frames::open(cluster);
        for n in 0..50_000 {
            frames_of.begin(2 * n + 1);
            frames_of.reset(2 * n + 1);
            if n % 100 == 99 && !frames_of.send() {
                break;
            }
        }

        // Either it was told to calm down, or the coordinator kept up with all of it.
        let answer = frames_of.answer();
        let goodbyes = frames(&answer, 7);
        assert!(
            goodbyes.iter().all(|goodbye| goodbye[4..8] != [0; 4]),
            "{goodbyes:?}"
        );
    });
}

#[test]
fn five_hundred_connections_that_say_nothing_hold_up_nobody() {
    survives("500 silent connections", |cluster| {
        let silent: Vec<TcpStream> = (0..500).map(|_| connect(cluster)).collect();
        cluster.ask(&["list"]);

        // Half a preface is no better.
        for mut socket in silent.iter().take(250) {
            socket.write_all(b"PRI * HT").expect("it is still open");
        }

        cluster.ask(&["list"]);
        silent
    });
}

#[test]
fn five_hundred_handshakes_that_stall_hold_up_nobody() {
    // The neighbour asks more often than one token may.
    attacked(
        &guarded(&["--rate-limit", "0"]),
        "500 stalled TLS handshakes",
        |cluster| {
            let mut stalled: Vec<TcpStream> = (0..500).map(|_| connect(cluster)).collect();
            // The head of a ClientHello of 512 bytes, of which no more come.
            for socket in stalled.iter_mut().take(250) {
                socket
                    .write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])
                    .expect("it is still open");
            }

            stalled
        },
    );
}

#[test]
fn random_bytes_close_their_connection_and_no_other() {
    survives("random bytes on 100 connections", |cluster| {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for n in 0..100 {
            let mut socket = connect(cluster);
            if n % 2 == 1 {
                let _ = socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
            }

            let bytes: Vec<u8> = (0..2000)
                .map(|_| {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    seed as u8
                })
                .collect();

            let _ = socket.write_all(&bytes);
        }

        cluster.ask(&["list"]);
    });
}
