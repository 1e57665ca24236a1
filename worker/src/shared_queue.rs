//! The work queue behind a lock, with the signals that slots, session and delivery wait for.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ergodic_common::TrialKey;
use ergodic_common::ids::Fence;
use tokio::sync::{Notify, watch};

use crate::result_batch::SpoolRef;
use crate::spool::{Spool, SpoolEntry};
use crate::supply::Supply;
use crate::train::FinishedTrial;
use crate::work_queue::{Assignment, Uptime, WorkQueue};

/// Interval at which a slot retries to write to a full spool.
pub(crate) const SPOOL_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The reason why a lock is never poisoned.
const LOCK_NOT_POISONED: &str = "nothing panics while it holds the queue";

/// The work queue behind a lock, and signals for its changes.
pub struct SharedQueue {
    queue: Mutex<WorkQueue>,
    pub(crate) started: Instant,
    /// The spool, if results are kept on disk until they are acknowledged.
    pub(crate) spool: Option<Arc<Spool>>,
    /// Wakes slots, because there may be a trial to run.
    pub(crate) work_available: Condvar,
    /// Wakes the session, because a trial was finished or taken.
    pub(crate) queue_changed: Notify,
    /// Wakes the senders, because there may be results to deliver.
    pub(crate) results_ready: Notify,
    /// The coordinator asks the worker to leave.
    pub(crate) drain_requested: Notify,
    /// Trials that had not begun when the worker began to leave.
    dropped: Mutex<Vec<(Fence, Vec<TrialKey>)>>,
    /// Whether the coordinator takes the output of programs; `None` before the first session.
    pub(crate) takes_output: watch::Sender<Option<bool>>,
}

impl SharedQueue {
    /// Creates an empty queue for `slots` slots.
    pub fn new(slots: u32) -> Self {
        Self {
            queue: Mutex::new(WorkQueue::new(slots)),
            started: Instant::now(),
            spool: None,
            work_available: Condvar::new(),
            queue_changed: Notify::new(),
            results_ready: Notify::new(),
            drain_requested: Notify::new(),
            dropped: Mutex::default(),
            takes_output: watch::channel(None).0,
        }
    }

    /// Returns the queue with another supply of slots, memory and GPUs.
    #[must_use]
    pub(crate) fn with_supply(self, supply: Supply) -> Self {
        self.with_queue(|queue| queue.set_supply(supply));
        self
    }

    /// Returns the queue with a spool.
    #[must_use]
    pub fn with_spool(self, spool: Option<Spool>) -> Self {
        Self {
            spool: spool.map(Arc::new),
            ..self
        }
    }

    /// The spool of the queue, if it has one.
    pub(crate) fn spool(&self) -> Option<&Arc<Spool>> {
        self.spool.as_ref()
    }

    /// Calls `act` with the queue under its lock. `act` must neither wait, nor train, nor panic.
    pub fn with_queue<T>(&self, act: impl FnOnce(&mut WorkQueue) -> T) -> T {
        let result = act(&mut self.lock_queue());
        self.work_available.notify_all();
        result
    }

    /// Begins no further trial. What has not begun is kept for the session, which returns it.
    pub(crate) fn begin_leaving(&self) {
        let dropped = self.with_queue(|queue| {
            let fences = queue.held_fences().into_iter();
            let of_lease = |fence| (fence, queue.retract_trials(fence, u64::MAX));
            let dropped = fences.map(of_lease).filter(|(_, keys)| !keys.is_empty());
            let dropped = dropped.collect();
            queue.close();
            dropped
        });
        *self.dropped.lock().expect(LOCK_NOT_POISONED) = dropped;
    }

    /// Takes the trials that had not begun when the worker began to leave, by lease.
    pub(crate) fn take_dropped(&self) -> Vec<(Fence, Vec<TrialKey>)> {
        std::mem::take(&mut *self.dropped.lock().expect(LOCK_NOT_POISONED))
    }

    /// Time since the worker started.
    pub fn uptime(&self) -> Uptime {
        self.started.elapsed()
    }

    fn lock_queue(&self) -> MutexGuard<'_, WorkQueue> {
        self.queue.lock().expect(LOCK_NOT_POISONED)
    }

    /// Records the end of a trial and wakes the senders and the session. A trial without a result
    /// was stopped.
    ///
    /// With a spool, the result is written to it before it is delivered. If the spool has no space,
    /// the result is delivered all the same, and the slot starts nothing until it is written or
    /// acknowledged.
    pub fn finish_trial(&self, assignment: &Assignment, result: Option<FinishedTrial>) {
        let (place, owed) = match self.spool.as_ref().zip(result.as_ref()) {
            Some((spool, finished)) => spool_result(spool, assignment, finished),
            None => (None, None),
        };
        let wishes = {
            let mut queue = self.lock_queue();
            queue.finish_spooled_trial(assignment.fence, assignment.key, result, place);
            queue.slots_to_request().is_some()
        };

        // A wide trial makes room for more than one that waits.
        self.work_available.notify_all();
        self.results_ready.notify_one();
        if wishes {
            self.queue_changed.notify_one();
        }
        if let Some((spool, entry)) = self.spool.as_ref().zip(owed) {
            self.wait_for_spool_space(spool, &entry);
        }
    }

    /// Blocks the slot until the result is written to the spool or acknowledged.
    pub(crate) fn wait_for_spool_space(&self, spool: &Spool, entry: &SpoolEntry) {
        while self.with_queue(|queue| !queue.is_closed() && queue.holds_lease(entry.fence()))
            && spool.retry_append(entry).is_err()
        {
            std::thread::sleep(SPOOL_RETRY_INTERVAL);
        }
        tracing::info!("the spool has space again, or does not need the result: the slot goes on");
    }

    /// Blocks until there is a trial to run. `None` means that the queue is closed.
    pub(crate) fn wait_for_trial(&self) -> Option<Assignment> {
        let mut queue = self.lock_queue();
        loop {
            if queue.is_closed() {
                return None;
            }
            if let Some(assignment) = queue.begin_trial(self.uptime()) {
                return Some(assignment);
            }

            queue = self.work_available.wait(queue).expect(LOCK_NOT_POISONED);
        }
    }
}

/// Writes a result to the spool. Returns its location, or the entry that is still to be written.
fn spool_result(
    spool: &Spool,
    assignment: &Assignment,
    finished: &FinishedTrial,
) -> (Option<SpoolRef>, Option<SpoolEntry>) {
    let entry = spool.encode_entry(assignment.fence, &assignment.sweep.id, finished);
    match spool.append_result(&entry) {
        Ok(place) => (Some(place), None),
        Err(error) => {
            tracing::warn!(%error, "the spool is full: the slot waits until there is space");
            (None, Some(entry))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ergodic_common::ids::{Epoch, LeaseId};

    use crate::shared_queue::*;
    use crate::work_queue::tests::wide_sweep;

    #[test]
    fn the_end_of_a_wide_trial_wakes_all_slots_that_wait() {
        let shared = Arc::new(SharedQueue::new(2));
        let fence = |lease| Fence {
            lease: LeaseId(lease),
            epoch: Epoch(1),
        };
        let keys = |trials| (0..trials).map(|repeat| TrialKey::new(0, repeat)).collect();
        shared.with_queue(|queue| {
            queue.add_lease(fence(1), wide_sweep(2), keys(1), BTreeSet::new());
            queue.add_lease(fence(2), wide_sweep(1), keys(2), BTreeSet::new());
        });
        let wide = shared.wait_for_trial().expect("all slots are free");

        let (begun, trials) = std::sync::mpsc::channel();
        for _ in 0..2 {
            let (shared, begun) = (shared.clone(), begun.clone());
            std::thread::spawn(move || begun.send(shared.wait_for_trial().map(|a| a.fence)));
        }
        let limit = Duration::from_millis(200);
        assert!(trials.recv_timeout(limit).is_err(), "no slot is free");

        shared.finish_trial(&wide, None);
        for _ in 0..2 {
            let found = trials.recv_timeout(Duration::from_secs(20));
            assert_eq!(found.expect("it was woken"), Some(fence(2)));
        }
    }
}
