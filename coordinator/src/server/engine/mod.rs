//! The event loop: the one owner of the core's state. Select → react → persist → carry out the effects.
//!
//! The server gives it a thread of its own. Its queue has no bound of its own because those who fill it have: requests, sessions and
//! watchers wait for their answer and are limited in number, what is said and delivered holds a place for its bytes until
//! it is heard or stored, and what comes back from the store's writer was in its queue, which is short.

pub mod events;
mod persist;
mod results;
mod sessions;
mod user;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use ergodic_proto::v1;
pub use events::{
    BatchRefusal, EngineEvent, EngineHandle, EngineQueue, EngineStopped, FoundRows, IncomingBatch,
    ReopenedTrials, SessionSender, WorkerMessage,
};
use tokio::sync::{mpsc, watch};

use super::checkpoints::CheckpointWriter;
use crate::core::{Core, CoreTime, Effect, Sweep};
use crate::records::WorkerId;
use crate::server::convert::fence_to_wire;
use crate::store::StoreWrite;
use crate::store::writer::WriterHandle;
use crate::throttled_log::ThrottledLog;

/// The loop's own state.
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
        keeper: CheckpointWriter,
        (events, waiting): EngineQueue,
    ) -> (Self, EngineHandle) {
        let (changed, changes) = watch::channel(0);
        let handle = EngineHandle {
            events: events.clone(),
            changes,
        };
        let engine = Self {
            core,
            started: Instant::now(),
            writer,
            checkpoint_writer: keeper,
            sessions: HashMap::new(),
            next_session: 0,
            events,
            queue: waiting,
            changes: changed,
            throttled_log: ThrottledLog::default(),
        };

        (engine, handle)
    }

    /// Runs until told to stop.
    pub async fn run_until_stopped(mut self) {
        while let Some(event) = self.queue.recv().await {
            let changes = !matches!(
                event,
                EngineEvent::Query(_) | EngineEvent::CheckWritable(_) | EngineEvent::Tick
            );

            if matches!(event, EngineEvent::Stop) {
                return;
            }

            let effects = self.handle_event(event);
            for effect in effects {
                self.apply_effect(effect);
            }

            if changes {
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
            EngineEvent::Launch(row, spec, reply) => self.store_sweep(row, spec, reply),
            EngineEvent::Launched(row, spec, reply) => {
                let number = row.number;
                let effects = self
                    .core
                    .on_sweep_added(Sweep::new(Arc::new(*row), spec), [], now);
                let _ = reply.send(Ok(number));

                effects
            }
            EngineEvent::WorkerJoined(joining, outbox, reply) => {
                self.join_worker(joining, outbox, reply, now)
            }
            EngineEvent::SessionEnded(worker, session) => self.end_session(&worker, session),
            EngineEvent::MessageReceived(worker, saying, heard) => {
                drop(heard);
                self.handle_worker_message(&worker, saying, now)
            }
            EngineEvent::BatchReceived(delivery) => self.store_batch(delivery),
            EngineEvent::BatchCommitted(delivery, result) => {
                self.on_batch_committed(*delivery, result, now)
            }
            EngineEvent::LeaseStored(lease, sweep, keys, stored) => {
                self.send_grant(&lease, sweep, &keys, stored)
            }
            EngineEvent::GiveUpStored(verdict, stored) => {
                self.on_give_up_stored(verdict, stored, now)
            }
            EngineEvent::GiveUpReverted(withdrawal, retried) => {
                self.on_give_up_reverted(withdrawal, retried, now)
            }
            EngineEvent::RowsLookedUp(sweep, looked) => self.on_rows_looked_up(sweep, looked, now),
            EngineEvent::WriteFailed(error) => {
                self.throttled_log
                    .report_error("a change of leases or state could not be stored", &error);
                Vec::new()
            }
            EngineEvent::CheckpointReceived(incoming) => {
                self.checkpoint_writer
                    .store_checkpoint(&self.core, incoming);
                Vec::new()
            }
            EngineEvent::CheckpointStored(sweep, key, steps) => {
                self.core.on_checkpoint_stored(sweep, key, steps)
            }
            EngineEvent::Steer(sweep, steering, reply) => {
                self.store_steering(sweep, steering, reply)
            }
            EngineEvent::Steered(sweep, change, stored, reply) => {
                self.on_steering_stored(sweep, change, stored, reply, now)
            }
            EngineEvent::Retried(sweep, retried, reply) => {
                self.on_retry_stored(sweep, retried, reply, now)
            }
            EngineEvent::Extend(sweep, from, to, spec, reply) => {
                self.store_extension(sweep, from, to, spec, reply)
            }
            EngineEvent::Extended(sweep, to, spec, stored, reply) => {
                self.on_extension_stored(sweep, to, spec, stored, reply, now)
            }
            EngineEvent::InsertSuccessor(inheritance, reply) => {
                self.store_successor(inheritance, reply)
            }
            EngineEvent::InsertReusing(gathering, reply) => {
                self.store_reusing_sweep(gathering, reply)
            }
            EngineEvent::SuccessorInserted(from, stored, reply) => {
                self.on_successor_stored(from, stored, reply, now)
            }
            EngineEvent::AddStoredSweep(sweep, rows, reply) => {
                let effects = self.core.on_sweep_added(*sweep, rows, now);
                let _ = reply.send(());
                effects
            }
            EngineEvent::Remove(sweep, reply) => self.store_removal(sweep, reply),
            EngineEvent::Removed(sweep, removed, reply) => {
                self.on_removal_stored(sweep, removed, reply)
            }
            EngineEvent::ClearRows(sweep, reply) => self.clear_removed_rows(sweep, reply),
            EngineEvent::DeleteUnreferenced(hashes, reply) => {
                self.delete_unreferenced(hashes, reply)
            }
            EngineEvent::Redo(sweep, keys, reply) => self.store_redo(sweep, keys, reply),
            EngineEvent::Redone(sweep, redone, reply) => {
                self.on_redo_stored(sweep, redone, reply, now)
            }
            EngineEvent::CheckWritable(reply) => self.check_store_writable(reply),
            EngineEvent::Query(question) => {
                question(&self.core);
                Vec::new()
            }
            EngineEvent::Tick => self.core.on_tick(now),
            EngineEvent::Stop => Vec::new(),
        }
    }

    fn apply_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Grant { lease, sweep, keys } => self.store_lease(lease, sweep, keys),
            Effect::Retract {
                worker,
                fence,
                trials,
            } => {
                let ask = v1::Retract {
                    fence: Some(fence_to_wire(fence)),
                    trials,
                };
                self.send_to_worker(&worker, v1::session_response::Message::Retract(ask));
            }
            Effect::ShrinkLease(lease) => self.persist_write(StoreWrite::ShrinkLease(lease)),
            Effect::EndLeases(ended) => self.persist_write(StoreWrite::EndLeases(ended)),
            Effect::SetSweepState(sweep, state) => {
                let what = if state.is_open() {
                    "sweep goes on"
                } else {
                    "sweep ended"
                };
                tracing::info!(sweep, ?state, "{what}");

                self.persist_write(StoreWrite::SetSweepState(sweep, state));
            }
            Effect::GiveUp(verdict) => self.store_give_up(verdict),
            Effect::RevertGiveUp(withdrawal) => self.revert_give_up(withdrawal),
            Effect::LookUpRows(sweep, keys) => self.look_up_rows(sweep, keys),
            Effect::DiscardCheckpoints(sweep, keys) => self
                .checkpoint_writer
                .discard_checkpoints(&self.core, sweep, &keys),
            Effect::RevokeLeases(worker, fences) => {
                tracing::info!(worker, leases = fences.len(), "leases revoked");
                let fences = fences.into_iter().map(fence_to_wire).collect();
                self.send_to_worker(
                    &worker,
                    v1::session_response::Message::Revoke(v1::Revoke { fences }),
                );
            }
        }
    }
}
