//! Keeps the worker in session, one after another with whichever coordinator leads, until it is
//! drained.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ergodic_common::ErrorCode;
use ergodic_proto::backoff::Backoff;
use ergodic_proto::channel::transport::NOT_TRUSTED;
use ergodic_proto::status::{UserError, describe_status, leader_url};
use tokio::sync::watch;
use tonic::Status;

use crate::link::LinkPool;
use crate::link::datasets::DatasetDirs;
use crate::link::session::{SessionEnd, WorkerIdentity, WorkerSession};
use crate::link::sweeps::SweepCache;
use crate::program::host::ProgramHost;
use crate::shared_queue::SharedQueue;

/// Time after which the worker gives up if it has never reached a coordinator.
const FIRST_CONTACT_TIMEOUT: Duration = Duration::from_secs(60);
/// Number of refusals in a row after which the worker gives up: a single one may be damage on the
/// way.
const MAX_REFUSALS: u32 = 3;

/// Keeps the worker in session until it is asked to leave or has been idle for too long.
///
/// # Errors
/// The coordinator refuses this worker, or was never reached.
pub async fn run_until_drained(
    identity: &WorkerIdentity,
    queue: &Arc<SharedQueue>,
    links: LinkPool,
    dirs: &DatasetDirs,
    programs: Option<ProgramHost>,
    mut leave: watch::Receiver<bool>,
) -> Result<(), UserError> {
    let mut contact = Contact::new(identity);
    let mut sweeps = SweepCache::new(dirs.clone(), links.clone(), programs);

    loop {
        let mut refused_with = None;
        match WorkerSession::open(identity, queue, links.current_link().worker_service).await {
            Ok(mut session) => {
                contact.note_joined();
                match session.run_until_ended(&mut sweeps, &mut leave).await {
                    SessionEnd::Left => return Ok(()),
                    SessionEnd::Lost(why) => tracing::warn!(why, "connection lost; joining again"),
                }

                queue.with_queue(|queue| queue.stop_renewal_watch());
                contact.last_joined = Instant::now();
            }
            Err(status) => {
                contact.handle_refusal(&status)?;
                refused_with = Some(status);
            }
        }

        switch_coordinator(&links, refused_with.as_ref());
        if is_drained(queue) && (contact.is_idle_too_long() || *leave.borrow()) {
            return Ok(());
        }

        match refused_with {
            Some(status) => contact.backoff.wait_after(&status).await,
            None => contact.backoff.wait_next().await,
        }
    }
}

/// The history of attempts to join.
struct Contact<'a> {
    identity: &'a WorkerIdentity,
    backoff: Backoff,
    started: Instant,
    /// Whether any coordinator has ever let the worker join.
    has_joined: bool,
    /// When the last session ended, or when the worker started if there was none.
    last_joined: Instant,
    /// Number of refusals in a row.
    refusals: u32,
}

impl<'a> Contact<'a> {
    fn new(identity: &'a WorkerIdentity) -> Self {
        let started = Instant::now();
        Self {
            identity,
            backoff: Backoff::new(),
            started,
            has_joined: false,
            last_joined: started,
            refusals: 0,
        }
    }

    fn note_joined(&mut self) {
        self.has_joined = true;
        self.refusals = 0;
        self.backoff = Backoff::new();
    }

    /// Counts a failed attempt. Returns an error if another attempt would be in vain.
    fn handle_refusal(&mut self, status: &Status) -> Result<(), UserError> {
        let error = UserError::from(status);
        self.refusals = if is_refusal(&error, status) {
            self.refusals + 1
        } else {
            0
        };

        if self.refusals == MAX_REFUSALS {
            return Err(error);
        }

        let coordinator = &self.identity.coordinator_url;
        let why = describe_status(status);
        if !self.has_joined && self.started.elapsed() > FIRST_CONTACT_TIMEOUT {
            let message = if why.contains(NOT_TRUSTED) {
                format!(
                    "{coordinator}: {why}: name a token of this coordinator with --token-file FILE"
                )
            } else {
                format!(
                    "no coordinator answers at {coordinator} ({why}): is `ergodic serve` running there?"
                )
            };
            return Err(UserError::new(ErrorCode::Unreachable, message));
        }

        tracing::warn!(coordinator, why, "not joined; trying again");
        // A standby that answers may become leader at any moment, so the worker retries without a
        // long pause.
        if leader_url(status).is_some() {
            self.backoff = Backoff::new();
        }

        Ok(())
    }

    /// Whether the worker has been without a session for longer than it may be idle.
    fn is_idle_too_long(&self) -> bool {
        self.identity
            .idle_exit
            .is_some_and(|limit| self.last_joined.elapsed() > limit)
    }
}

/// Whether the coordinator rejects this worker for good. An overloaded one may accept it later.
fn is_refusal(error: &UserError, status: &Status) -> bool {
    let is_overloaded = status.code() == tonic::Code::ResourceExhausted;
    matches!(
        error.code,
        ErrorCode::Version | ErrorCode::BadInput | ErrorCode::Refused
    ) && !is_overloaded
}

/// Whether nothing runs and nothing is left to deliver, so that there is no reason to reconnect.
fn is_drained(queue: &SharedQueue) -> bool {
    queue.with_queue(|queue| queue.unacknowledged_count() == 0 && queue.running_count() == 0)
}

/// Follows the leader that a standby names; after any other end, switches to the next coordinator.
fn switch_coordinator(links: &LinkPool, refused_with: Option<&Status>) {
    match refused_with
        .and_then(leader_url)
        .filter(|url| !url.is_empty())
    {
        Some(url) => {
            tracing::info!(leader = url, "the coordinator stands by");
            if let Err(error) = links.follow_leader(&url) {
                tracing::warn!(%error, "the leading coordinator cannot be used");
                links.switch_to_next();
            }
        }
        None => links.switch_to_next(),
    }
}
