//! The claim to a store while a backup is restored into it.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ergodic_common::ErrorCode;
use ergodic_common::ids::Epoch;
use ergodic_proto::status::UserError;

use crate::server::store_error;
use crate::store::Store;

/// Becomes the leader of a store; returns the epoch. Meanwhile standbys see a leader without an address.
pub(super) fn claim_store(store: &dyn Store) -> Result<Epoch, UserError> {
    let leader = store.acquire_leadership("").map_err(store_error)?;
    if leader.is_this {
        return Ok(leader.epoch);
    }

    let message = format!(
        "--store: the coordinator at {} uses this store: stop it, or name another store",
        leader.url
    );
    Err(UserError::new(ErrorCode::Refused, message))
}

/// Interval of renewals of the claim to the store, a third of its TTL.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);

/// A claim to a store that a thread renews until it is dropped.
pub(super) struct LeadershipRenewal {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl LeadershipRenewal {
    /// Starts the thread.
    pub(super) fn start(store: Arc<dyn Store>, epoch: Epoch) -> Result<Self, UserError> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("claim".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(RENEW_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    // A claim that was lost fails the next write.
                    let _ = store.renew_leadership(epoch);
                }
                store.resign_leadership(epoch);
            })
            .map_err(|e| UserError::new(ErrorCode::Internal, e.to_string()))?;

        Ok(Self { stop, thread })
    }

    /// Gives the claim up and waits for the thread.
    pub(super) fn stop_and_resign(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}
