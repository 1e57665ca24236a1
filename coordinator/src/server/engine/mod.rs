//! The event loop: the one owner of the core's state. Select → react → persist → carry out the effects.
//!
//! The server gives it a thread of its own. The queue is unbounded because every producer is bounded: requests, sessions and watchers
//! wait for their answer and are limited in number, worker messages and results hold a permit for their bytes until they are handled
//! or stored, and what comes back from the store's writer was in the writer's queue, which is short.

pub mod events;
mod persist;
mod results;
mod sessions;
mod user;

use std::collections::HashMap;
use std::time::Instant;

pub use events::{
    BatchRefusal, EngineEvent, EngineHandle, EngineQueue, EngineStopped, FoundRows, IncomingBatch,
    ReopenedTrials, SessionSender, StoreEvent, UserEvent, WorkerEvent, WorkerMessage,
};
use tokio::sync::{mpsc, watch};

use super::checkpoints::CheckpointWriter;
use crate::core::{Core, CoreTime, Effect};
use crate::records::WorkerId;
use crate::store::StoreWrite;
use crate::store::writer::WriterHandle;
use crate::throttled_log::ThrottledLog;

/// The event loop and what it owns.
pub struct Engine {
    core: Core,
    started: Instant,
    writer: WriterHandle,
    checkpoint_writer: CheckpointWriter,
    sessions: HashMap<WorkerId, (u64, SessionSender)>,
    next_session: u64,
    events: mpsc::UnboundedSender<EngineEvent>,
    queue: mpsc::UnboundedReceiver<EngineEvent>,
    changes: watch::Sender<u64>,
    throttled_log: ThrottledLog,
}

impl Engine {
    /// A queue for a loop that is not there yet.
    pub fn new_queue() -> EngineQueue {
        mpsc::unbounded_channel()
    }

    /// A loop around `core`, not yet running.
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
            next_session: 0,
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
            let is_change = !matches!(
                event,
                EngineEvent::Query(_)
                    | EngineEvent::User(UserEvent::CheckWritable(_))
                    | EngineEvent::Tick
            );

            if matches!(event, EngineEvent::Stop) {
                return;
            }

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
        let now = self.current_time();
        match event {
            EngineEvent::Worker(event) => self.handle_worker_event(event, now),
            EngineEvent::User(event) => self.handle_user_event(event, now),
            EngineEvent::Store(event) => self.handle_store_event(event, now),
            EngineEvent::Query(question) => {
                question(&self.core);
                Vec::new()
            }
            EngineEvent::Tick => self.core.on_tick(now),
            EngineEvent::Stop => Vec::new(),
        }
    }

    fn handle_worker_event(&mut self, event: WorkerEvent, now: CoreTime) -> Vec<Effect> {
        match event {
            WorkerEvent::WorkerJoined(joining, outbox, reply) => {
                self.join_worker(joining, outbox, reply, now)
            }
            WorkerEvent::SessionEnded(worker, session) => self.end_session(&worker, session),
            WorkerEvent::MessageReceived(worker, message, permit) => {
                drop(permit);
                self.handle_worker_message(&worker, message, now)
            }
            WorkerEvent::BatchReceived(batch) => self.store_batch(batch),
            WorkerEvent::CheckpointReceived(incoming) => {
                self.checkpoint_writer
                    .store_checkpoint(&self.core, incoming);
                Vec::new()
            }
        }
    }

    fn handle_user_event(&mut self, event: UserEvent, now: CoreTime) -> Vec<Effect> {
        match event {
            UserEvent::Launch(row, spec, reply) => self.store_sweep(row, spec, reply),
            UserEvent::Steer(sweep, steering, reply) => self.store_steering(sweep, steering, reply),
            UserEvent::Extend(sweep, from, to, spec, reply) => {
                self.store_extension(sweep, *from, *to, spec, reply)
            }
            UserEvent::InsertSuccessor(successor, reply) => self.store_successor(successor, reply),
            UserEvent::InsertReusing(reusing, reply) => self.store_reusing_sweep(reusing, reply),
            UserEvent::AddStoredSweep(sweep, rows, reply) => {
                let effects = self.core.on_sweep_added(*sweep, rows, now);
                let _ = reply.send(());
                effects
            }
            UserEvent::Remove(sweep, reply) => self.store_removal(sweep, reply),
            UserEvent::ClearRows(sweep, reply) => self.clear_removed_rows(sweep, reply),
            UserEvent::DeleteUnreferenced(hashes, reply) => self.delete_unreferenced(hashes, reply),
            UserEvent::Redo(sweep, keys, reply) => self.store_redo(sweep, keys, reply),
            UserEvent::CheckWritable(reply) => self.check_store_writable(reply),
        }
    }

    fn handle_store_event(&mut self, event: StoreEvent, now: CoreTime) -> Vec<Effect> {
        match event {
            StoreEvent::Launched(row, spec, reply) => self.on_sweep_stored(*row, spec, reply, now),
            StoreEvent::BatchCommitted(batch, result) => {
                self.on_batch_committed(*batch, result, now)
            }
            StoreEvent::LeaseStored(lease, sweep, keys, stored) => {
                self.send_grant(&lease, sweep, &keys, stored)
            }
            StoreEvent::GiveUpStored(given_up, stored) => {
                self.on_give_up_stored(given_up, stored, now)
            }
            StoreEvent::GiveUpReverted(reversal, retried) => {
                self.on_give_up_reverted(reversal, retried, now)
            }
            StoreEvent::RowsLookedUp(sweep, found) => self.on_rows_looked_up(sweep, found, now),
            StoreEvent::WriteFailed(error) => {
                self.throttled_log
                    .report_error("a change of leases or state could not be stored", &error);
                Vec::new()
            }
            StoreEvent::CheckpointStored(sweep, key, steps) => {
                self.core.on_checkpoint_stored(sweep, key, steps)
            }
            StoreEvent::Steered(sweep, change, stored, reply) => {
                self.on_steering_stored(sweep, change, stored, reply, now)
            }
            StoreEvent::Retried(sweep, retried, reply) => {
                self.on_retry_stored(sweep, retried, reply, now)
            }
            StoreEvent::Extended(sweep, to, spec, stored, reply) => {
                self.on_extension_stored(sweep, to, spec, stored, reply, now)
            }
            StoreEvent::SuccessorInserted(from, stored, reply) => {
                self.on_successor_stored(from, stored, reply, now)
            }
            StoreEvent::Removed(sweep, removed, reply) => {
                self.on_removal_stored(sweep, removed, reply)
            }
            StoreEvent::Redone(sweep, redone, reply) => {
                self.on_redo_stored(sweep, redone, reply, now)
            }
        }
    }

    fn apply_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Grant { lease, sweep, keys } => self.store_lease(lease, sweep, keys),
            Effect::Retract {
                worker,
                fence,
                trials,
            } => self.send_retraction(&worker, fence, trials),
            Effect::ShrinkLease(lease) => self.persist_write(StoreWrite::ShrinkLease(lease)),
            Effect::EndLeases(ended) => self.persist_write(StoreWrite::EndLeases(ended)),
            Effect::SetSweepState(sweep, state) => self.persist_sweep_state(sweep, state),
            Effect::GiveUp(given_up) => self.store_give_up(given_up),
            Effect::RevertGiveUp(reversal) => self.revert_give_up(reversal),
            Effect::LookUpRows(sweep, keys) => self.look_up_rows(sweep, keys),
            Effect::DiscardCheckpoints(sweep, keys) => self
                .checkpoint_writer
                .discard_checkpoints(&self.core, sweep, &keys),
            Effect::RevokeLeases(worker, fences) => self.send_revocation(&worker, fences),
        }
    }
}
