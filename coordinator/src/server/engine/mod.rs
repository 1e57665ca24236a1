//! The event loop, the sole owner of the core's state: it selects an event, lets the core react,
//! persists, and carries out the effects.
//!
//! The server gives it a thread of its own. The queue is unbounded because every producer is bounded: requests, sessions and watchers
//! wait for their answer and are limited in number, worker messages and results hold a permit for their bytes until they are handled
//! or stored, and what comes back from the store's writer was in the writer's queue, which is short.

mod drains;
pub mod events;
mod outputs;
mod persist;
mod results;
mod sessions;
mod user;

use std::collections::HashMap;
use std::time::Instant;

use ergodic_common::ids::{SessionNumber, WorkerId};
use tokio::sync::{mpsc, watch};

pub use drains::DrainReply;
pub use events::{
    BatchRefusal, ChangeReply, EngineEvent, EngineHandle, EngineQueue, EngineStopped,
    SessionSender, StoreReply, UserEvent, WorkerEvent, WorkerMessage,
};
pub use outputs::{OutputQuestion, OutputRefusal, OutputReply};
pub use sessions::SessionAbilities;

use self::outputs::OpenOutputs;
use self::sessions::OpenSession;
use super::checkpoints::CheckpointWriter;
use crate::core::{Core, CoreTime, Effect};
use crate::store::writer::WriterHandle;
use crate::store::{EndLeases, ShrinkLease};
use crate::throttled_log::ThrottledLog;

/// The event loop and its state.
pub struct Engine {
    core: Core,
    started: Instant,
    writer: WriterHandle,
    checkpoint_writer: CheckpointWriter,
    sessions: HashMap<WorkerId, OpenSession>,
    open_outputs: OpenOutputs,
    last_session: SessionNumber,
    events: mpsc::UnboundedSender<EngineEvent>,
    queue: mpsc::UnboundedReceiver<EngineEvent>,
    changes: watch::Sender<u64>,
    throttled_log: ThrottledLog,
}

impl Engine {
    /// Creates the queue of a loop that does not exist yet.
    pub fn new_queue() -> EngineQueue {
        mpsc::unbounded_channel()
    }

    /// Creates a loop around `core`, which does not run yet.
    pub fn new(
        core: Core,
        writer: WriterHandle,
        checkpoint_writer: CheckpointWriter,
        (events, queue): EngineQueue,
    ) -> (Self, EngineHandle) {
        let (change_counter, changes) = watch::channel(0);
        let handle = EngineHandle {
            events: events.clone(),
            changes,
        };
        let engine = Self {
            core,
            started: Instant::now(),
            writer,
            checkpoint_writer,
            sessions: HashMap::new(),
            open_outputs: OpenOutputs::default(),
            last_session: SessionNumber::default(),
            events,
            queue,
            changes: change_counter,
            throttled_log: ThrottledLog::default(),
        };

        (engine, handle)
    }

    /// Runs until the event [`EngineEvent::Stop`].
    pub async fn run_until_stopped(mut self) {
        while let Some(event) = self.queue.recv().await {
            if matches!(event, EngineEvent::Stop) {
                return;
            }

            let is_change = event.is_change();
            let effects = self.handle_event(event);
            for effect in effects {
                self.apply_effect(effect);
            }

            if is_change {
                self.changes.send_modify(|n| *n += 1);
            }
        }
    }

    fn current_time(&self) -> CoreTime {
        self.started.elapsed()
    }

    fn handle_event(&mut self, event: EngineEvent) -> Vec<Effect> {
        match event {
            EngineEvent::Worker(event) => self.handle_worker_event(event),
            EngineEvent::User(event) => self.handle_user_event(event),
            EngineEvent::Persisted(follow_up) => follow_up(self),
            EngineEvent::Query(question) => {
                question(&self.core);
                Vec::new()
            }
            EngineEvent::Tick => self.core.on_tick(self.current_time()),
            EngineEvent::Stop => Vec::new(),
        }
    }

    fn apply_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Grant { lease, sweep, keys } => self.grant_lease(lease, sweep, keys),
            Effect::Retract {
                worker,
                fence,
                trials,
            } => self.send_retraction(&worker, fence, trials),
            Effect::ShrinkLease(lease) => self.persist_repairable(ShrinkLease(lease)),
            Effect::EndLeases(ended) => self.persist_repairable(EndLeases(ended)),
            Effect::SetSweepState(sweep, state) => self.persist_sweep_state(sweep, state),
            Effect::GiveUp(given_up) => self.give_up_trial(given_up),
            Effect::RevertGiveUp(reversal) => self.revert_give_up(reversal),
            Effect::LookUpRows(sweep, keys) => self.look_up_rows(sweep, keys),
            Effect::DiscardCheckpoints(sweep, keys) => self
                .checkpoint_writer
                .discard_checkpoints(&self.core, sweep, &keys),
            Effect::RevokeLeases(worker, fences) => self.send_revocation(&worker, fences),
        }
    }
}
