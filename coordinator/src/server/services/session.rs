//! The session of one worker: the hello, then all messages until it ends or falls silent.

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::ids::{LeaseId, WorkerId};
use ergodic_common::{BUILD, ErrorCode, TrialKey};
use ergodic_proto::status::UserError;
use ergodic_proto::v1::session_request::Message as Request;
use ergodic_proto::v1::session_response::Message as Response;
use ergodic_proto::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, accepts_protocol, v1};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::core::{JoiningWorker, SessionEnd, WorkerSupply};
use crate::experiments::KnownExperiment;
use crate::server::auth::Principal;
use crate::server::convert::fence_from_wire;
use crate::server::engine::{SessionAbilities, SessionSender, WorkerEvent, WorkerMessage};
use crate::server::listen::PeerInfo;
use crate::server::{ProgramPolicy, ServerContext};

/// How long a connection may be silent before the server pings it.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Interval of heartbeats with the shortest leases.
const MIN_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(50);
/// Time limit for the hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of messages that wait for a worker to read them.
const MAX_UNREAD_MESSAGES: usize = 64;
/// Bytes of overhead of a message that waits to be handled.
const MESSAGE_OVERHEAD: usize = 512;
/// Maximum length of a worker's name, in bytes.
const MAX_NAME: usize = 128;
/// Maximum number of a worker's GPUs.
const MAX_GPUS: u32 = 4096;

/// Who opens a session.
pub(crate) struct SessionCaller {
    /// The token, where tokens are used.
    pub(crate) principal: Option<Principal>,
    /// The connection, if it came in through the port.
    pub(crate) peer: Option<PeerInfo>,
}

/// Opens a session: checks the hello, joins, and starts a task that reads the stream.
pub(crate) async fn open_session(
    context: Arc<ServerContext>,
    caller: SessionCaller,
    mut inbound: Streaming<v1::SessionRequest>,
) -> Result<mpsc::Receiver<Result<v1::SessionResponse, Status>>, Status> {
    let permit = context.limits.sessions.try_acquire()?;
    let hello = read_hello(&mut inbound).await?;
    let abilities = SessionAbilities {
        sends_output: hello.sends_output,
        drains: hello.drains,
    };
    let mut joining = parse_hello(hello)?;
    // Where no programs are accepted, none that were stored before are run.
    joining.programs &= context.programs != ProgramPolicy::Nobody;
    let worker = joining.worker.clone();

    let (sender, messages) = mpsc::channel(MAX_UNREAD_MESSAGES);
    send_welcome(&context, &sender, abilities.sends_output).await;
    let (reply, number) = oneshot::channel();
    context.engine.send_event(WorkerEvent::Joined {
        joining,
        sender,
        abilities,
        reply,
    });

    let session = number
        .await
        .map_err(|_| Status::unavailable("the coordinator is stopping"))?;
    let peer_session = caller.peer.map(|peer| peer.open_session());
    tokio::spawn(async move {
        let end = tokio::select! {
            end = read_messages(&context, &worker, inbound) => end,
            () = context.wait_until_revoked(caller.principal) => {
                tracing::warn!(worker = worker.as_str(), "its token was revoked or has expired");
                SessionEnd::ByCoordinator
            }
        };
        context.engine.send_event(WorkerEvent::SessionEnded {
            worker,
            session,
            end,
        });

        drop((permit, peer_session));
    });

    Ok(messages)
}

async fn read_hello(inbound: &mut Streaming<v1::SessionRequest>) -> Result<v1::Hello, Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello within ten seconds"))??;
    match first.and_then(|request| request.message) {
        Some(Request::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument(
            "the first message of a session must be a Hello",
        )),
    }
}

/// Interval of a worker's heartbeats with leases of this time to live.
pub(crate) fn heartbeat_interval(lease_ttl: Duration) -> Duration {
    (lease_ttl / 4).max(MIN_HEARTBEAT_INTERVAL)
}

async fn send_welcome(context: &ServerContext, sender: &SessionSender, sends_output: bool) {
    let heartbeat = heartbeat_interval(context.lease_ttl);
    let welcome = v1::Welcome {
        lease_ttl_ms: context.lease_ttl.as_millis() as u64,
        heartbeat_ms: heartbeat.as_millis() as u64,
        build: BUILD.to_owned(),
        // Earlier workers know nothing of it, and are told nothing else than before.
        takes_output: sends_output,
    };
    let message = v1::SessionResponse {
        message: Some(Response::Welcome(welcome)),
    };

    // Cannot block: the channel is new and empty.
    let _ = sender.send(Ok(message)).await;
}

/// Parses the hello of a worker.
///
/// # Errors
/// The worker uses another protocol, or a field is invalid.
pub fn parse_hello(hello: v1::Hello) -> Result<JoiningWorker, Status> {
    if !accepts_protocol(PROTOCOL_VERSION, hello.protocol) {
        let older = match hello.protocol > PROTOCOL_VERSION {
            true => "coordinator",
            false => "worker",
        };
        let message = format!(
            "this coordinator ({BUILD}) speaks protocol {PROTOCOL_VERSION} and takes workers of {OLDEST_PROTOCOL_VERSION} and \
             {PROTOCOL_VERSION}; the worker ({}) speaks {}: update the {older}",
            hello.build, hello.protocol
        );
        return Err(UserError::new(ErrorCode::Version, message).into());
    }

    let hex_digits =
        hello.worker.len() == 32 && hello.worker.chars().all(|c| c.is_ascii_hexdigit());
    if !hex_digits {
        return Err(bad_field("worker"));
    }
    if hello.name.len() > MAX_NAME || hello.name.chars().any(char::is_control) {
        return Err(bad_field("name"));
    }

    if !(1..=4096).contains(&hello.slots) {
        return Err(bad_field("slots"));
    }
    if hello.supply.is_some_and(|supply| supply.gpus > MAX_GPUS) {
        return Err(bad_field("supply.gpus"));
    }

    Ok(JoiningWorker {
        worker: hello.worker.into(),
        name: hello.name,
        build: hello.build,
        slots: hello.slots,
        numerics: hello.numerics,
        programs: hello.programs,
        experiments: KnownExperiment::read_all(&hello.experiments)
            .map_err(|why| Status::invalid_argument(format!("the hello is not valid: {why}")))?,
        supply: hello.supply.map(|supply| WorkerSupply {
            memory: supply.memory,
            gpus: supply.gpus,
        }),
        begins_for: hello.begins_for_ms.map(Duration::from_millis),
        held: hello.held.iter().map(fence_from_wire).collect(),
    })
}

fn bad_field(what: &str) -> Status {
    Status::invalid_argument(format!("the field {what} of Hello is not valid"))
}

/// Reads until the stream ends, the worker says goodbye or is silent for a lease's time to live, or we stop. Returns how it ended.
async fn read_messages(
    context: &ServerContext,
    worker: &WorkerId,
    mut inbound: Streaming<v1::SessionRequest>,
) -> SessionEnd {
    let mut stopping = context.stopping.clone();
    let mut heard_at = Instant::now();
    loop {
        let received = tokio::select! {
            received = tokio::time::timeout(context.lease_ttl, inbound.message()) => received,
            _ = stopping.wait_for(|stop| *stop) => return SessionEnd::ByCoordinator,
        };
        let message = match received {
            Ok(Ok(Some(v1::SessionRequest {
                message: Some(message),
            }))) => message,
            Ok(Ok(Some(_))) => return SessionEnd::ByCoordinator,
            Ok(Ok(None)) => return classify_closed_stream(heard_at.elapsed()),
            Ok(Err(status)) => return classify_failed_stream(&status),
            Err(_) => return SessionEnd::BySilence,
        };
        heard_at = Instant::now();

        // Backpressure: a worker that sends faster than the coordinator handles waits here, and
        // then by HTTP/2 flow control.
        let Some(permit) = context
            .limits
            .session_bytes
            .acquire_bytes(message.encoded_len() + MESSAGE_OVERHEAD)
            .await
        else {
            return SessionEnd::ByCoordinator;
        };

        let Some(message) = parse_message(message) else {
            return SessionEnd::ByCoordinator;
        };
        let leaves = matches!(message, WorkerMessage::Goodbye);
        context.engine.send_event(WorkerEvent::MessageReceived {
            worker: worker.clone(),
            message,
            permit,
        });

        if leaves {
            return SessionEnd::ByPeer;
        }
    }
}

/// How a stream ended that came to its end after a silence. The transport shows a connection that it closed because a ping was
/// not answered as one whose stream came to its end: so the end of a long silence is not taken for the worker's.
fn classify_closed_stream(silence: Duration) -> SessionEnd {
    if silence < KEEPALIVE_INTERVAL {
        SessionEnd::ByPeer
    } else {
        SessionEnd::BySilence
    }
}

/// How a stream ended that failed: a status that stands for an error of the transport has that error as its source, and one about
/// the content of a message has none.
fn classify_failed_stream(status: &Status) -> SessionEnd {
    if std::error::Error::source(status).is_some() {
        SessionEnd::ByPeer
    } else {
        SessionEnd::ByCoordinator
    }
}

/// Converts a message for the engine; `None` for a second hello, which violates the protocol and
/// ends the session.
pub fn parse_message(message: Request) -> Option<WorkerMessage> {
    match message {
        Request::Hello(_) => None,
        Request::Heartbeat(beat) => {
            let running = beat
                .running
                .into_iter()
                .filter_map(|r| Some((LeaseId(r.lease), r.key?.into())))
                .collect();
            Some(WorkerMessage::Heartbeat {
                running,
                queued: beat.queued,
                held: beat.held.iter().map(fence_from_wire).collect(),
            })
        }
        Request::RequestWork(want) => Some(WorkerMessage::RequestWork {
            idle_slots: want.idle_slots,
        }),
        Request::Release(release) => {
            let why = release
                .why
                .chars()
                .take(1024)
                .filter(|c| !c.is_control())
                .collect();
            let fence = fence_from_wire(&release.fence?);
            Some(WorkerMessage::Release { fence, why })
        }
        Request::Retracted(retracted) => {
            let keys = retracted.cells.iter().zip(&retracted.repeats);
            let keys = keys
                .map(|(cell, repeat)| TrialKey::new(*cell, *repeat))
                .collect();
            let fence = fence_from_wire(&retracted.fence?);
            Some(WorkerMessage::Retracted { fence, keys })
        }
        Request::Output(part) => Some(WorkerMessage::Output(part)),
        Request::Goodbye(_) => Some(WorkerMessage::Goodbye),
    }
}

#[cfg(test)]
mod tests {
    use crate::server::services::session::*;

    #[test]
    fn a_worker_tells_its_memory_and_gpus_or_nothing_of_them() {
        let hello = |supply| v1::Hello {
            protocol: PROTOCOL_VERSION,
            worker: "a".repeat(32),
            slots: 1,
            supply,
            ..v1::Hello::default()
        };
        let supply = |gpus| v1::ProgramSupply {
            memory: Some(1),
            gpus,
        };
        let told = |supply| parse_hello(hello(supply)).map(|joining| joining.supply);
        assert_eq!(told(None).expect("an older worker"), None);
        let expected = WorkerSupply {
            memory: Some(1),
            gpus: 4096,
        };
        assert_eq!(told(Some(supply(4096))).expect("valid"), Some(expected));
        let refused = told(Some(supply(4097))).expect_err("too many");
        assert!(refused.message().contains("supply.gpus"), "{refused}");
    }

    #[test]
    fn only_a_failed_connection_and_an_early_end_are_the_end_by_the_worker() {
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let failed = Status::from_error(Box::new(broken));
        assert_eq!(classify_failed_stream(&failed), SessionEnd::ByPeer);

        let invalid = Status::internal("this is no message");
        assert_eq!(classify_failed_stream(&invalid), SessionEnd::ByCoordinator);

        let early = KEEPALIVE_INTERVAL - Duration::from_millis(1);
        assert_eq!(classify_closed_stream(early), SessionEnd::ByPeer);
        assert_eq!(
            classify_closed_stream(KEEPALIVE_INTERVAL),
            SessionEnd::BySilence
        );
    }
}
