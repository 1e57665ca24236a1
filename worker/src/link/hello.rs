//! The first messages of a session: the worker's hello, by its identity, and the coordinator's welcome.

use std::time::{Duration, Instant};

use ergodic_common::BUILD;
use ergodic_common::ids::WorkerId;
use ergodic_proto::v1::session_response::Message as Response;
use ergodic_proto::{PROTOCOL_VERSION, v1};
use tonic::Streaming;

use crate::experiment::Experiments;
use crate::shared_queue::SharedQueue;

/// The identity of a worker, and the limits of a session.
#[derive(Debug, Clone)]
pub struct WorkerIdentity {
    /// The coordinator's address.
    pub coordinator_url: String,
    /// Random id of the worker, 32 hex digits.
    pub worker_id: WorkerId,
    /// Name of the worker for people.
    pub name: String,
    /// The numerics class of its results.
    pub numerics: String,
    /// Number of trials at a time.
    pub slots: u32,
    /// Idle time after which the worker leaves.
    pub idle_exit: Option<Duration>,
    /// When the worker begins to leave, if its time is limited.
    pub leaves_at: Option<Instant>,
    /// Whether the worker runs programs.
    pub has_programs: bool,
    /// The experiments of the worker program.
    pub experiments: Experiments,
    /// Memory that trials may use, in bytes, if there is a limit.
    pub memory: Option<u64>,
}

/// The message by which the worker presents itself and the leases that it holds.
pub(super) fn hello_message(identity: &WorkerIdentity, queue: &SharedQueue) -> v1::Hello {
    let left = identity.leaves_at.map(|at| {
        let left = at.saturating_duration_since(Instant::now());
        left.as_millis() as u64
    });
    // A worker that comes back while it leaves says so.
    let begins_for_ms = match queue.with_queue(|queue| queue.is_closed()) {
        true => Some(0),
        false => left,
    };
    let (held, supply) = queue.with_queue(|queue| {
        let supply = v1::ProgramSupply {
            memory: queue.supply().memory(),
            gpus: queue.supply().gpu_count(),
        };
        (queue.held_fences(), supply)
    });
    v1::Hello {
        protocol: PROTOCOL_VERSION,
        build: BUILD.to_owned(),
        worker: identity.worker_id.to_string(),
        name: identity.name.clone(),
        slots: identity.slots,
        numerics: [identity.numerics.clone()]
            .into_iter()
            .chain(identity.experiments.classes())
            .collect(),
        held: held.into_iter().map(Into::into).collect(),
        programs: identity.has_programs,
        experiments: identity.experiments.announce(),
        supply: Some(supply),
        sends_output: true,
        begins_for_ms,
        drains: true,
    }
}

/// Receives the coordinator's first message.
pub(super) async fn receive_welcome(
    incoming: &mut Streaming<v1::SessionResponse>,
) -> Result<v1::Welcome, tonic::Status> {
    match incoming.message().await? {
        Some(v1::SessionResponse {
            message: Some(Response::Welcome(welcome)),
        }) => Ok(welcome),
        _ => Err(tonic::Status::failed_precondition(
            "the coordinator did not send a welcome, so it may have another version: use a worker of its version",
        )),
    }
}
