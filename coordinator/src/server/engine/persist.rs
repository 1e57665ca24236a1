//! Writes, and what follows once they are durable.

use crate::core::Effect;
use crate::records::SweepState;
use crate::server::engine::{Engine, EngineEvent, StoreReply};
use crate::store::{SetSweepState, StoreError, StoreWrite};
use ergodic_common::ids::SweepNumber;

impl Engine {
    /// Hands a write to the store. Once it is durable, or has failed, the loop calls `then` and carries out the effects that it
    /// returns: nothing is changed or acknowledged before.
    pub(crate) fn persist<W: StoreWrite>(
        &self,
        write: W,
        then: impl FnOnce(&mut Self, Result<W::Output, StoreError>) -> Vec<Effect> + Send + 'static,
    ) {
        let events = self.events.clone();
        self.writer.enqueue_write(write, move |outcome| {
            let follow_up = Box::new(move |engine: &mut Self| then(engine, outcome));
            // A loop that is gone carries out nothing.
            let _ = events.send(EngineEvent::Persisted(follow_up));
        });
    }

    /// Hands a write to the store that the core has no part in; the writer answers by itself.
    pub(crate) fn persist_for<W: StoreWrite>(&self, write: W, reply: StoreReply<W::Output>) {
        self.writer
            .enqueue_write(write, |outcome| drop(reply.send(outcome)));
    }

    /// Hands a write to the store whose loss a restart repairs: a lease that lives on expires, a state is worked out anew.
    pub(crate) fn persist_repairable(&self, write: impl StoreWrite) {
        let events = self.events.clone();
        self.writer.enqueue_write(write, move |outcome| {
            // What went well wakes nobody.
            let Err(error) = outcome else { return };
            let follow_up = Box::new(move |engine: &mut Self| {
                engine
                    .throttled_log
                    .report_error("a change of leases or state could not be stored", &error);
                Vec::new()
            });
            let _ = events.send(EngineEvent::Persisted(follow_up));
        });
    }

    pub(crate) fn persist_sweep_state(&self, sweep: SweepNumber, state: SweepState) {
        let what = if state.is_open() {
            "sweep continues"
        } else {
            "sweep ended"
        };
        tracing::info!(sweep = sweep.0, ?state, "{what}");

        self.persist_repairable(SetSweepState { sweep, state });
    }
}
