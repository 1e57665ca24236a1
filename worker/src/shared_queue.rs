//! The work queue behind a lock, with the signals that slots, session and delivery wait for.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::result_batch::SpoolRef;
use crate::spool::{Spool, SpoolEntry};
use crate::train::FinishedTrial;
use crate::work_queue::{Assignment, Uptime, WorkQueue};

/// How often a slot that waits for space in the spool tries again.
pub(crate) const SPOOL_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The work queue behind a lock, and signals for its changes.
pub struct SharedQueue {
    queue: Mutex<WorkQueue>,
    pub(crate) started: Instant,
    /// Where results are kept until they are acknowledged, if anywhere.
    pub(crate) spool: Option<Arc<Spool>>,
    /// Wakes slots: there may be a trial.
    pub(crate) work_available: Condvar,
    /// Wakes the session: something was finished or taken.
    pub(crate) queue_changed: Notify,
    /// Wakes the delivery.
    pub(crate) results_ready: Notify,
}

impl SharedQueue {
    /// An empty queue for `slots` slots.
    pub fn new(slots: u32) -> Self {
        Self {
            queue: Mutex::new(WorkQueue::new(slots)),
            started: Instant::now(),
            spool: None,
            work_available: Condvar::new(),
            queue_changed: Notify::new(),
            results_ready: Notify::new(),
        }
    }

    /// This queue with a spool.
    #[must_use]
    pub fn with_spool(self, spool: Option<Spool>) -> Self {
        Self {
            spool: spool.map(Arc::new),
            ..self
        }
    }

    /// The spool.
    pub(crate) fn spool(&self) -> Option<&Arc<Spool>> {
        self.spool.as_ref()
    }

    /// Reads or changes the queue. Nothing under this lock waits, trains or panics.
    pub fn with_queue<T>(&self, act: impl FnOnce(&mut WorkQueue) -> T) -> T {
        let result = act(&mut self.lock_queue());
        self.work_available.notify_all();
        result
    }

    /// Time since the worker started.
    pub fn uptime(&self) -> Uptime {
        self.started.elapsed()
    }

    fn lock_queue(&self) -> MutexGuard<'_, WorkQueue> {
        self.queue
            .lock()
            .expect("nothing panics while it holds the queue")
    }

    /// Records the end of a trial, which was stopped if it has no result, and wakes delivery and session.
    ///
    /// Where there is a spool, the result is written to it before it can be delivered. A result for which the spool has no
    /// space is delivered all the same, and the slot begins nothing until it is written or acknowledged.
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

        self.results_ready.notify_one();
        if wishes {
            self.queue_changed.notify_one();
        }
        if let Some((spool, entry)) = self.spool.as_ref().zip(owed) {
            self.wait_for_spool_space(spool, &entry);
        }
    }

    /// Blocks the slot until the spool has space for a result, or the result needs none any more.
    pub(crate) fn wait_for_spool_space(&self, spool: &Spool, entry: &SpoolEntry) {
        while self.with_queue(|queue| !queue.is_closed() && queue.holds_lease(entry.fence()))
            && spool.retry_append(entry).is_err()
        {
            std::thread::sleep(SPOOL_RETRY_INTERVAL);
        }
        tracing::info!("the slot goes on");
    }

    /// Waits for a trial; `None` once the queue is closed.
    pub(crate) fn wait_for_trial(&self) -> Option<Assignment> {
        let mut queue = self.lock_queue();
        loop {
            if queue.is_closed() {
                return None;
            }
            if let Some(assignment) = queue.begin_trial(self.uptime()) {
                return Some(assignment);
            }

            queue = self
                .work_available
                .wait(queue)
                .expect("nothing panics while it holds the queue");
        }
    }
}

/// Keeps a result in the spool: its place there, or what is owed to it.
fn spool_result(
    spool: &Spool,
    assignment: &Assignment,
    finished: &FinishedTrial,
) -> (Option<SpoolRef>, Option<SpoolEntry>) {
    let entry = spool.encode_entry(assignment.fence, &assignment.sweep.id, finished);
    match spool.append_result(&entry) {
        Ok(place) => (Some(place), None),
        Err(error) => {
            tracing::warn!(%error, "no room in the spool: the slot waits until there is some");
            (None, Some(entry))
        }
    }
}
