//! Writes that need no answer.

use crate::server::engine::{Engine, EngineEvent, ReopenedTrials};
use crate::store::{StoreError, StoreWrite, WriteOutput};

pub(crate) fn into_reopened_trials(written: WriteOutput) -> ReopenedTrials {
    if let WriteOutput::Reopened(trials, audits) = written {
        (trials, audits)
    } else {
        ReopenedTrials::default()
    }
}

impl Engine {
    /// For writes whose loss a restart repairs: a lease that lives on expires, a state is worked out anew.
    pub(crate) fn persist_write(&self, write: StoreWrite) {
        let events = self.events.clone();
        let answer = move |written: Result<WriteOutput, StoreError>| {
            if let Err(error) = written {
                let _ = events.send(EngineEvent::WriteFailed(error));
            }
        };
        self.writer.enqueue_write(write, Box::new(answer));
    }
}
