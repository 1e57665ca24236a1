//! Writes that need no answer.

use crate::records::SweepState;
use crate::server::engine::{Engine, ReopenedTrials, StoreEvent};
use crate::store::{StoreError, StoreWrite, WriteOutput};

pub(crate) fn into_reopened_trials(written: WriteOutput) -> ReopenedTrials {
    if let WriteOutput::Reopened(trials, audits) = written {
        (trials, audits)
    } else {
        ReopenedTrials::default()
    }
}

impl Engine {
    /// Enqueues a write whose loss a restart repairs: a lease that lives on expires, a state is worked out anew.
    pub(crate) fn persist_write(&self, write: StoreWrite) {
        let events = self.events.clone();
        self.writer.enqueue_write(
            write,
            Box::new(move |written: Result<WriteOutput, StoreError>| {
                if let Err(error) = written {
                    let _ = events.send(StoreEvent::WriteFailed(error).into());
                }
            }),
        );
    }

    pub(crate) fn persist_sweep_state(&self, sweep: i64, state: SweepState) {
        let what = if state.is_open() {
            "sweep goes on"
        } else {
            "sweep ended"
        };
        tracing::info!(sweep, ?state, "{what}");

        self.persist_write(StoreWrite::SetSweepState(sweep, state));
    }
}
