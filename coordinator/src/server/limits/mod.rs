//! Limits: everything that peers can make the coordinator hold is bounded, and a peer beyond a bound gets a status that says when to
//! try again. The numbers are here, and in `options` those that
//! depend on the size of a fleet. The table for people is in `docs/src/operate/limits.md`.

mod connections;
mod layer;
mod options;
mod paged;
mod rate;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use connections::{ConnectionLimit, ConnectionPermit};
use ergodic_common::ErrorCode;
use ergodic_proto::status::{UserError, overloaded};
pub(crate) use layer::LimitLayer;
pub use options::LimitOptions;
pub(crate) use options::{ConnectionCapacity, RequestRates};
pub(crate) use paged::{PageSender, ResponseStream};
pub(crate) use rate::{TokenBucket, peer_network};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// Maximum number of open requests. A streaming response counts until it begins.
const MAX_REQUESTS: usize = 1024;
/// Maximum bytes of messages that have arrived in part.
const MAX_INCOMING_BYTES: usize = 64 << 20;
/// Maximum bytes of results between their arrival and the response.
const MAX_RESULT_BYTES: usize = 64 << 20;
/// Maximum bytes of session messages that the event loop has not handled yet.
const MAX_SESSION_BYTES: usize = 16 << 20;
/// Maximum number of clients that watch a sweep.
const MAX_WATCHERS: usize = 1024;
/// Maximum number of clients that read rows, predictions, tables or curves. Each has a thread and a
/// reader of the store.
const MAX_READERS: usize = 64;
/// Maximum bytes of all their responses, and of what is read for these.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// Maximum number of files that are being sent.
const MAX_FETCHES: usize = 128;
/// Maximum number of files that are being uploaded.
const MAX_UPLOADS: usize = 32;
/// Maximum number of sweeps that are being read and pinned to their datasets, which may have to be
/// loaded.
const MAX_LAUNCHES: usize = 4;
/// Maximum number of changes of sweeps, such as pause or cancel.
const MAX_CHANGES: usize = 16;

/// Time for which a request for a large response waits for others.
const ANSWER_PERMIT_TIMEOUT: Duration = Duration::from_secs(20);
/// Time after which a refused peer should try again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A permit for one request or a number of bytes, which is returned on drop.
pub(crate) type Permit = OwnedSemaphorePermit;

/// A limit on one kind of resource.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    semaphore: Arc<Semaphore>,
    capacity: usize,
    reason: Cow<'static, str>,
}

impl Limit {
    fn with_capacity(capacity: usize, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            semaphore: Arc::new(Semaphore::new(capacity)),
            capacity,
            reason: reason.into(),
        }
    }

    /// Takes one permit, or returns the status that none is free.
    pub(crate) fn try_acquire(&self) -> Result<Permit, Status> {
        self.try_acquire_bytes(1)
    }

    /// Takes a permit for `bytes` bytes, or returns the status that too few are free.
    pub(crate) fn try_acquire_bytes(&self, bytes: usize) -> Result<Permit, Status> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.semaphore
            .clone()
            .try_acquire_many_owned(bytes)
            .map_err(|_| self.overloaded_status())
    }

    /// Waits for a permit for `bytes` bytes.
    pub(crate) async fn acquire_bytes(&self, bytes: usize) -> Option<Permit> {
        let bytes = u32::try_from(bytes.min(self.capacity)).unwrap_or(u32::MAX);
        self.semaphore.clone().acquire_many_owned(bytes).await.ok()
    }

    /// Waits a limited time for a permit for the bytes of a response.
    ///
    /// # Errors
    /// The response exceeds the whole limit, and `instead` says what to do; or too few bytes became
    /// free in time.
    pub(crate) async fn acquire_for_answer(
        &self,
        bytes: u64,
        instead: &str,
    ) -> Result<Permit, Status> {
        if bytes > self.capacity as u64 {
            let wanted = bytes >> 20;
            let most = self.capacity >> 20;
            let message = format!(
                "the answer would take about {wanted} MiB, more than the {most} MiB for all answers: {instead}"
            );
            return Err(UserError::new(ErrorCode::Refused, message).into());
        }

        let permit =
            tokio::time::timeout(ANSWER_PERMIT_TIMEOUT, self.acquire_bytes(bytes as usize)).await;
        permit
            .ok()
            .flatten()
            .ok_or_else(|| self.overloaded_status())
    }

    /// The status of a reached limit.
    pub(crate) fn overloaded_status(&self) -> Status {
        overloaded(
            &format!("the coordinator is busy: {}", self.reason),
            RETRY_DELAY,
        )
    }
}

/// The limits over all peers together, and how often each may ask.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) request_rates: RequestRates,
    requests: Limit,
    incoming_bytes: Limit,
    pub(crate) result_bytes: Limit,
    pub(crate) session_bytes: Limit,
    pub(crate) sessions: Limit,
    pub(crate) watchers: Limit,
    pub(crate) readers: Limit,
    pub(crate) answer_bytes: Limit,
    pub(crate) fetches: Limit,
    pub(crate) uploads: Limit,
    pub(crate) launches: Limit,
    pub(crate) changes: Limit,
}

impl Limits {
    /// Limits with all permits free.
    pub(crate) fn new(options: &LimitOptions) -> Self {
        let sessions = options.sessions as usize;
        let too_many_workers = format!(
            "{sessions} workers are connected, the most that --max-sessions of the coordinator allows"
        );
        Self {
            request_rates: options.resolve_rates(),
            requests: Limit::with_capacity(MAX_REQUESTS, "too many requests are being answered"),
            incoming_bytes: Limit::with_capacity(
                MAX_INCOMING_BYTES,
                "too much data is arriving at once",
            ),
            result_bytes: Limit::with_capacity(
                MAX_RESULT_BYTES,
                "too many results wait to be stored",
            ),
            session_bytes: Limit::with_capacity(
                MAX_SESSION_BYTES,
                "too much data is arriving in sessions",
            ),
            sessions: Limit::with_capacity(sessions, too_many_workers),
            watchers: Limit::with_capacity(MAX_WATCHERS, "too many clients follow sweeps"),
            readers: Limit::with_capacity(MAX_READERS, "too many clients read results"),
            answer_bytes: Limit::with_capacity(
                MAX_ANSWER_BYTES,
                "too many answers are being computed",
            ),
            fetches: Limit::with_capacity(MAX_FETCHES, "too many files are being downloaded"),
            uploads: Limit::with_capacity(MAX_UPLOADS, "too many files are being uploaded"),
            launches: Limit::with_capacity(MAX_LAUNCHES, "other sweeps are being launched"),
            changes: Limit::with_capacity(MAX_CHANGES, "too many sweeps are being steered"),
        }
    }
}
