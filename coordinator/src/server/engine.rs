//! The event loop: the one owner of the core's state. Select → react → persist → carry out the effects.
//!
//! The server gives it a thread of its own. Its queue has no bound of its own because those who fill it have: requests, sessions and
//! watchers wait for their answer and are limited in number, what is said and delivered holds a place for its bytes until
//! it is heard or stored, and what comes back from the store's writer was in its queue, which is short.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use ergodic_common::spec::SpecSource;
use ergodic_common::{ErrorCode, Outcome, Spec, TrialKey, TrialResult};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};

use super::checkpoints::{CheckpointWriter, IncomingCheckpoint};
use super::limits::Permit;
use super::store_error;
use crate::core::audits::RecordedAudit;
use crate::core::{
    Admission, CommitOutcome, Core, CoreTime, Effect, Fence, GiveUpReversal, GivenUpTrial, JoiningWorker, LeaseRow,
    MetricPositions, Steering, StoredRow, Sweep, SweepChange, SweepRow, SweepState, WorkerId,
};
use crate::failpoint;
use crate::store::writer::WriterHandle;
use crate::store::{
    ClearedRows, CommitBatch, CommitReport, RedoneTrial, ReusingSweep, StoreError, StoreWrite, SuccessorSweep,
    WriteOutput,
};
use crate::throttled_log::ThrottledLog;

/// Messages to a worker.
pub type SessionSender = mpsc::Sender<Result<v1::SessionResponse, tonic::Status>>;

/// Everything that can wake the loop.
pub enum EngineEvent {
    /// A sweep is to be stored.
    Launch(Box<SweepRow>, Arc<Spec>, oneshot::Sender<Result<i64, StoreError>>),
    /// It was.
    Launched(Box<SweepRow>, Arc<Spec>, oneshot::Sender<Result<i64, StoreError>>),
    /// A worker opened a session.
    WorkerJoined(JoiningWorker, SessionSender, oneshot::Sender<u64>),
    /// A session ended, by its number.
    SessionEnded(WorkerId, u64),
    /// What a worker says in its session, and the room that it takes until it is heard.
    MessageReceived(WorkerId, WorkerMessage, Permit),
    /// A batch of results.
    BatchReceived(Box<IncomingBatch>),
    /// The store has dealt with it.
    BatchCommitted(Box<IncomingBatch>, Result<CommitReport, StoreError>),
    /// A lease is durable and may be sent, or is not.
    LeaseStored(LeaseRow, String, Vec<TrialKey>, Result<(), StoreError>),
    /// The store has dealt with the verdict on a trial: whether it gave it that row.
    GiveUpStored(GivenUpTrial, Result<bool, StoreError>),
    /// A verdict was taken back: what is to be run again, if it stood.
    GiveUpReverted(GiveUpReversal, Result<ReopenedTrials, StoreError>),
    /// Rows that the core did not know.
    RowsLookedUp(i64, Result<FoundRows, StoreError>),
    /// A change of leases or state is not durable.
    WriteFailed(StoreError),
    /// A checkpoint has come.
    CheckpointReceived(Box<IncomingCheckpoint>),
    /// It is in its place, after so many steps of the trial.
    CheckpointStored(i64, TrialKey, u64),
    /// A user steers a sweep.
    Steer(i64, Steering, oneshot::Sender<Result<(), UserError>>),
    /// What that changes is durable, or is not.
    Steered(i64, SweepChange, Result<(), StoreError>, oneshot::Sender<Result<(), UserError>>),
    /// Its failed trials have no rows any more, or still have them.
    Retried(i64, Result<ReopenedTrials, StoreError>, oneshot::Sender<Result<(), UserError>>),
    /// A sweep is to have a file that asks for more repeats of its cells, in place of the first of these.
    Extend(i64, SpecSource, SpecSource, Arc<Spec>, oneshot::Sender<Result<(), UserError>>),
    /// It has it, if the answer is yes.
    Extended(i64, SpecSource, Arc<Spec>, Result<bool, StoreError>, oneshot::Sender<Result<(), UserError>>),
    /// A new sweep is to be stored with the rows of another one.
    InsertSuccessor(Box<SuccessorSweep>, oneshot::Sender<Result<i64, StoreError>>),
    /// A new sweep is to be stored with copies of rows of others.
    InsertReusing(Box<ReusingSweep>, oneshot::Sender<Result<(i64, u64), StoreError>>),
    /// It is stored, and the other one, of this number, has ended.
    SuccessorInserted(i64, Result<i64, StoreError>, oneshot::Sender<Result<i64, StoreError>>),
    /// A sweep that is stored begins with these rows.
    AddStoredSweep(Box<Sweep>, Vec<StoredRow>, oneshot::Sender<()>),
    /// A user removes a sweep.
    Remove(i64, oneshot::Sender<Result<(), UserError>>),
    /// It is no more, or still there.
    Removed(i64, Result<(), StoreError>, oneshot::Sender<Result<(), UserError>>),
    /// Some of a removed sweep's rows are to be cleared.
    ClearRows(i64, oneshot::Sender<Result<ClearedRows, StoreError>>),
    /// Files are to go that nothing names, as far as is known; how many of them went, and their bytes.
    DeleteUnreferenced(Vec<[u8; 32]>, oneshot::Sender<Result<(u64, u64), StoreError>>),
    /// Trials of a sweep are to be run once more, because files that their rows name are lost.
    Redo(i64, Vec<TrialKey>, oneshot::Sender<Result<(), UserError>>),
    /// They are due, or are not.
    Redone(i64, Result<Vec<RedoneTrial>, StoreError>, oneshot::Sender<Result<(), UserError>>),
    /// Whether the store takes a write.
    CheckWritable(oneshot::Sender<Result<(), StoreError>>),
    /// A question.
    Query(Box<dyn FnOnce(&Core) + Send>),
    /// Time passed.
    Tick,
    /// The coordinator goes.
    Stop,
}

/// Rows, and audits of these.
pub type FoundRows = (Vec<TrialResult>, Vec<RecordedAudit>);

/// Trials, and audits with the processes whose rows they are of.
pub type ReopenedTrials = (Vec<TrialKey>, Vec<(TrialKey, WorkerId)>);

/// What a worker can say.
pub enum WorkerMessage {
    /// It lives.
    Heartbeat(Vec<(u64, TrialKey)>, u64, Vec<Fence>),
    /// It wants a lease for so many idle slots.
    RequestWork(u32),
    /// It gives one back, with a reason if it cannot work on that sweep.
    Release(Fence, String),
    /// It gives back trials of a lease that it has not begun.
    Retracted(Fence, Vec<TrialKey>),
    /// It leaves.
    Goodbye,
}

/// A batch on its way to the store.
pub struct IncomingBatch {
    /// From whom.
    pub worker: WorkerId,
    /// Under which fence.
    pub fence: Fence,
    /// Number of the sweep.
    pub sweep: i64,
    /// The results, until the store has them.
    pub results: Vec<TrialResult>,
    /// What the core keeps of them.
    pub rows: Vec<StoredRow>,
    /// The room that it takes until it is stored.
    pub permit: Permit,
    /// Whether a "no such trial" is to be answered.
    pub reply: oneshot::Sender<Result<CommitReport, BatchRefusal>>,
}

/// Why a batch was not taken.
#[derive(Debug)]
pub enum BatchRefusal {
    /// The lease never held this trial.
    NotLeased(TrialKey),
    /// The store is behind: send it again later.
    Overloaded,
    /// It is not durable: send it again later.
    StoreFailed(StoreError),
}

/// A cheap handle to the loop.
#[derive(Clone)]
pub struct EngineHandle {
    events: mpsc::UnboundedSender<EngineEvent>,
    changes: watch::Receiver<u64>,
}

/// The loop has stopped: the coordinator is going down.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator is stopping")]
pub struct EngineStopped;

impl EngineHandle {
    /// A handle to somebody who answers questions in the loop's place, and what is asked.
    pub(super) fn detached() -> (Self, mpsc::UnboundedReceiver<EngineEvent>) {
        let (events, questions) = Engine::new_queue();
        (Self { events, changes: watch::channel(0).1 }, questions)
    }

    /// Tells the loop something.
    pub fn send_event(&self, event: EngineEvent) {
        // A loop that is gone needs to hear nothing.
        let _ = self.events.send(event);
    }

    /// Asks the core something and waits for the answer.
    ///
    /// # Errors
    /// The loop has stopped.
    pub async fn query_core<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, EngineStopped> {
        let (answer, answered) = oneshot::channel();
        self.send_event(EngineEvent::Query(Box::new(move |core| drop(answer.send(question(core))))));
        answered.await.map_err(|_| EngineStopped)
    }

    /// Counts up whenever something changed.
    pub fn subscribe_changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

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

/// The loop's queue.
pub type EngineQueue = (mpsc::UnboundedSender<EngineEvent>, mpsc::UnboundedReceiver<EngineEvent>);

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
        let handle = EngineHandle { events: events.clone(), changes };
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
            let changes = !matches!(event, EngineEvent::Query(_) | EngineEvent::CheckWritable(_) | EngineEvent::Tick);
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
                let effects = self.core.on_sweep_added(Sweep::new(Arc::new(*row), spec), [], now);
                let _ = reply.send(Ok(number));
                effects
            }
            EngineEvent::WorkerJoined(joining, outbox, reply) => self.join_worker(joining, outbox, reply, now),
            EngineEvent::SessionEnded(worker, session) => self.end_session(&worker, session),
            EngineEvent::MessageReceived(worker, saying, heard) => {
                drop(heard);
                self.handle_worker_message(&worker, saying, now)
            }
            EngineEvent::BatchReceived(delivery) => self.store_batch(delivery),
            EngineEvent::BatchCommitted(delivery, result) => self.on_batch_committed(*delivery, result, now),
            EngineEvent::LeaseStored(lease, sweep, keys, stored) => self.send_grant(&lease, sweep, &keys, stored),
            EngineEvent::GiveUpStored(verdict, stored) => self.on_give_up_stored(verdict, stored, now),
            EngineEvent::GiveUpReverted(withdrawal, retried) => self.on_give_up_reverted(withdrawal, retried, now),
            EngineEvent::RowsLookedUp(sweep, looked) => self.on_rows_looked_up(sweep, looked, now),
            EngineEvent::WriteFailed(error) => {
                self.throttled_log.report_error("a change of leases or state could not be stored", &error);
                Vec::new()
            }
            EngineEvent::CheckpointReceived(incoming) => {
                self.checkpoint_writer.store_checkpoint(&self.core, incoming);
                Vec::new()
            }
            EngineEvent::CheckpointStored(sweep, key, steps) => self.core.on_checkpoint_stored(sweep, key, steps),
            EngineEvent::Steer(sweep, steering, reply) => self.store_steering(sweep, steering, reply),
            EngineEvent::Steered(sweep, change, stored, reply) => {
                self.on_steering_stored(sweep, change, stored, reply, now)
            }
            EngineEvent::Retried(sweep, retried, reply) => self.on_retry_stored(sweep, retried, reply, now),
            EngineEvent::Extend(sweep, from, to, spec, reply) => self.store_extension(sweep, from, to, spec, reply),
            EngineEvent::Extended(sweep, to, spec, stored, reply) => {
                self.on_extension_stored(sweep, to, spec, stored, reply, now)
            }
            EngineEvent::InsertSuccessor(inheritance, reply) => self.store_successor(inheritance, reply),
            EngineEvent::InsertReusing(gathering, reply) => self.store_reusing_sweep(gathering, reply),
            EngineEvent::SuccessorInserted(from, stored, reply) => self.on_successor_stored(from, stored, reply, now),
            EngineEvent::AddStoredSweep(sweep, rows, reply) => {
                let effects = self.core.on_sweep_added(*sweep, rows, now);
                let _ = reply.send(());
                effects
            }
            EngineEvent::Remove(sweep, reply) => self.store_removal(sweep, reply),
            EngineEvent::Removed(sweep, removed, reply) => self.on_removal_stored(sweep, removed, reply),
            EngineEvent::ClearRows(sweep, reply) => self.clear_removed_rows(sweep, reply),
            EngineEvent::DeleteUnreferenced(hashes, reply) => self.delete_unreferenced(hashes, reply),
            EngineEvent::Redo(sweep, keys, reply) => self.store_redo(sweep, keys, reply),
            EngineEvent::Redone(sweep, redone, reply) => self.on_redo_stored(sweep, redone, reply, now),
            EngineEvent::CheckWritable(reply) => self.check_store_writable(reply),
            EngineEvent::Query(question) => {
                question(&self.core);
                Vec::new()
            }
            EngineEvent::Tick => self.core.on_tick(now),
            EngineEvent::Stop => Vec::new(),
        }
    }

    fn store_sweep(
        &self,
        row: Box<SweepRow>,
        spec: Arc<Spec>,
        reply: oneshot::Sender<Result<i64, StoreError>>,
    ) -> Vec<Effect> {
        let events = self.events.clone();
        let stored = row.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| match written {
            Ok(WriteOutput::SweepNumber(number)) => {
                let row = Box::new(SweepRow { number, ..*row });
                let _ = events.send(EngineEvent::Launched(row, spec, reply));
            }
            Ok(_) => drop(reply),
            Err(error) => drop(reply.send(Err(error))),
        });
        self.writer.enqueue_write(StoreWrite::InsertSweep(*stored), answer);
        Vec::new()
    }

    fn join_worker(
        &mut self,
        joining: JoiningWorker,
        outbox: SessionSender,
        reply: oneshot::Sender<u64>,
        now: CoreTime,
    ) -> Vec<Effect> {
        self.next_session += 1;
        tracing::info!(worker = joining.name, slots = joining.slots, held = joining.held.len(), "worker joined");
        self.sessions.insert(joining.worker.clone(), (self.next_session, outbox));
        // Welcome goes out before anything that the join brings about.
        let _ = reply.send(self.next_session);
        self.core.on_worker_joined(joining, now)
    }

    fn end_session(&mut self, worker: &str, session: u64) -> Vec<Effect> {
        if self.sessions.get(worker).is_some_and(|(number, _)| *number == session) {
            tracing::info!(worker, "session ended");
            self.sessions.remove(worker);
            self.core.on_session_ended(worker, self.current_time());
        }
        Vec::new()
    }

    fn handle_worker_message(&mut self, worker: &str, saying: WorkerMessage, now: CoreTime) -> Vec<Effect> {
        match saying {
            WorkerMessage::Heartbeat(running, queued, held) => {
                self.core.on_heartbeat(worker, running, queued, &held, now);
                let renewed = v1::session_response::Message::Renewed(v1::Renewed {});
                self.send_to_worker(worker, renewed);
                Vec::new()
            }
            WorkerMessage::RequestWork(idle) => self.core.on_work_requested(worker, idle, now),
            WorkerMessage::Release(fence, why) => self.core.on_lease_released(worker, fence, why, now),
            WorkerMessage::Retracted(fence, keys) => {
                tracing::debug!(worker, lease = fence.lease, trials = keys.len(), "trials given back");
                self.core.on_trials_retracted(worker, fence, &keys, now)
            }
            WorkerMessage::Goodbye => {
                self.sessions.remove(worker);
                self.core.on_worker_left(worker, now)
            }
        }
    }

    fn store_batch(&mut self, mut delivery: Box<IncomingBatch>) -> Vec<Effect> {
        // The loop itself never waits for a disk that is slow.
        if !self.writer.can_take_results() {
            let _ = delivery.reply.send(Err(BatchRefusal::Overloaded));
            return Vec::new();
        }
        let keys: Vec<TrialKey> = delivery.rows.iter().map(|row| row.key).collect();
        let (compare_only, audit) = match self.core.admit_batch(&delivery.worker, delivery.fence, &keys) {
            Err(key) => {
                let _ = delivery.reply.send(Err(BatchRefusal::NotLeased(key)));
                return Vec::new();
            }
            Ok(Admission::Store { sweep }) => (sweep != delivery.sweep, false),
            Ok(Admission::Audit { sweep }) => (sweep != delivery.sweep, true),
            Ok(Admission::Compare) => (true, false),
        };
        let name = self.core.workers().find(|(id, _)| **id == delivery.worker).map(|(_, w)| w.name.clone());
        let batch = CommitBatch {
            sweep: delivery.sweep,
            fence: delivery.fence,
            worker: name.unwrap_or_else(|| delivery.worker.clone()),
            process: delivery.worker.clone(),
            results: std::mem::take(&mut delivery.results),
            compare_only,
            audit,
            chosen_for_audit: self.core.choose_audits(delivery.sweep, &keys),
        };
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let report = written.map(|written| match written {
                WriteOutput::Results(report) => report,
                _ => CommitReport::default(),
            });
            let _ = events.send(EngineEvent::BatchCommitted(delivery, report));
        });
        self.writer.enqueue_write(StoreWrite::StoreResults(batch), answer);
        Vec::new()
    }

    fn on_batch_committed(
        &mut self,
        delivery: IncomingBatch,
        result: Result<CommitReport, StoreError>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let report = match result {
            Ok(report) => report,
            Err(error) => {
                if !matches!(error, StoreError::BlobMissing(_)) {
                    self.throttled_log.report_error("results could not be stored", &error);
                }
                let _ = delivery.reply.send(Err(BatchRefusal::StoreFailed(error)));
                return Vec::new();
            }
        };
        let mismatches = report.mismatches + report.contradicted;
        if mismatches > 0 {
            tracing::error!(worker = delivery.worker, mismatches, "a trial yielded other bits");
        }
        let committed = CommitOutcome {
            stored: report.stored.iter().map(|at| delivery.rows[*at].clone()).collect(),
            already_stored: report.already_stored.clone(),
            mismatches,
            fenced: report.fenced,
            audits_due: report.audits_due.clone(),
            audited: report.audited.iter().map(|(at, finding)| (delivery.rows[*at].clone(), *finding)).collect(),
        };
        let effects = self.core.on_batch_committed(&delivery.worker, delivery.fence, delivery.sweep, &committed, now);
        failpoint::reach(failpoint::BEFORE_ACKNOWLEDGEMENT);
        let _ = delivery.reply.send(Ok(report));
        failpoint::reach(failpoint::AFTER_ACKNOWLEDGEMENT);
        effects
    }

    /// Nothing is changed before it is durable.
    fn store_steering(
        &self,
        sweep: i64,
        steering: Steering,
        reply: oneshot::Sender<Result<(), UserError>>,
    ) -> Vec<Effect> {
        match self.core.validate_steering(sweep, steering) {
            Err(why) => drop(reply.send(Err(UserError::new(ErrorCode::Refused, why)))),
            Ok(None) if steering == Steering::Retry => self.store_retry(sweep, reply),
            Ok(None) => drop(reply.send(Ok(()))),
            Ok(Some(change)) => {
                let events = self.events.clone();
                let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
                    let _ = events.send(EngineEvent::Steered(sweep, change, written.map(|_| ()), reply));
                });
                let write = match change {
                    SweepChange::State(state) => StoreWrite::SetSweepState(sweep, state),
                    SweepChange::Share(share) => StoreWrite::SetShare(sweep, share),
                };
                self.writer.enqueue_write(write, answer);
            }
        }
        Vec::new()
    }

    fn on_steering_stored(
        &mut self,
        sweep: i64,
        change: SweepChange,
        stored: Result<(), StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let (answer, effects) = match stored {
            Ok(()) => (Ok(()), self.core.on_sweep_steered(sweep, change, now)),
            Err(error) => (Err(store_error(error)), Vec::new()),
        };
        let _ = reply.send(answer);
        effects
    }

    fn store_retry(&self, sweep: i64, reply: oneshot::Sender<Result<(), UserError>>) {
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let _ = events.send(EngineEvent::Retried(sweep, written.map(into_reopened_trials), reply));
        });
        self.writer.enqueue_write(StoreWrite::RetryFailed(sweep), answer);
    }

    fn on_retry_stored(
        &mut self,
        sweep: i64,
        retried: Result<ReopenedTrials, StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let (answer, effects) = match retried {
            Ok((trials, audits)) => (Ok(()), self.core.on_trials_reopened(sweep, &trials, &audits, now)),
            Err(error) => (Err(store_error(error)), Vec::new()),
        };
        let _ = reply.send(answer);
        effects
    }

    fn apply_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Grant { lease, sweep, keys } => self.store_lease(lease, sweep, keys),
            Effect::Retract { worker, fence, trials } => {
                let ask = v1::Retract { fence: Some(fence_to_wire(fence)), trials };
                self.send_to_worker(&worker, v1::session_response::Message::Retract(ask));
            }
            Effect::ShrinkLease(lease) => self.persist_write(StoreWrite::ShrinkLease(lease)),
            Effect::EndLeases(ended) => self.persist_write(StoreWrite::EndLeases(ended)),
            Effect::SetSweepState(sweep, state) => {
                let what = if state.is_open() { "sweep goes on" } else { "sweep ended" };
                tracing::info!(sweep, ?state, "{what}");
                self.persist_write(StoreWrite::SetSweepState(sweep, state));
            }
            Effect::GiveUp(verdict) => self.store_give_up(verdict),
            Effect::RevertGiveUp(withdrawal) => self.revert_give_up(withdrawal),
            Effect::LookUpRows(sweep, keys) => self.look_up_rows(sweep, keys),
            Effect::DiscardCheckpoints(sweep, keys) => {
                self.checkpoint_writer.discard_checkpoints(&self.core, sweep, &keys)
            }
            Effect::RevokeLeases(worker, fences) => {
                tracing::info!(worker, leases = fences.len(), "leases revoked");
                let fences = fences.into_iter().map(fence_to_wire).collect();
                self.send_to_worker(&worker, v1::session_response::Message::Revoke(v1::Revoke { fences }));
            }
        }
    }

    /// Stores a failed row for a trial that killed too many workers, or that its audit failed if it has a row.
    fn store_give_up(&self, verdict: GivenUpTrial) {
        tracing::error!(trial = %verdict.key, cause = verdict.cause, audit = verdict.is_audit, "given up");
        let write = if verdict.is_audit {
            StoreWrite::GiveUpAudit(verdict.sweep, verdict.key, verdict.cause.clone())
        } else {
            let result = TrialResult::failed(verdict.key, verdict.cause.clone(), verdict.metric_count);
            StoreWrite::GiveUpTrial(verdict.sweep, result)
        };
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let stored = written.map(|written| written == WriteOutput::GaveUp(true));
            let _ = events.send(EngineEvent::GiveUpStored(verdict, stored));
        });
        self.writer.enqueue_write(write, answer);
    }

    fn on_give_up_stored(
        &mut self,
        verdict: GivenUpTrial,
        stored: Result<bool, StoreError>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                self.throttled_log.report_error("the failure of a trial could not be stored", &error);
                self.core.on_give_up_failed(verdict);
                return Vec::new();
            }
        };
        if verdict.is_audit {
            return self.core.on_audit_given_up(verdict.sweep, verdict.key, stored, now);
        }
        let outcome = Outcome::Failed { cause: verdict.cause };
        let row =
            StoredRow { key: verdict.key, outcome, watched_metric: f64::NAN, deciding_metric: f64::NAN, seconds: 0.0 };
        self.core.on_trial_given_up(verdict.sweep, &row, stored, now)
    }

    /// After the verdict in the same queue: whatever became of that is seen by whoever takes it back.
    fn revert_give_up(&self, withdrawal: GiveUpReversal) {
        let GiveUpReversal { sweep, key, is_audit: audit } = withdrawal;
        tracing::info!(trial = %key, "a worker that was thought dead of it has come back: it is run again");
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let _ = events.send(EngineEvent::GiveUpReverted(withdrawal, written.map(into_reopened_trials)));
        });
        self.writer.enqueue_write(StoreWrite::RevertGiveUp(sweep, key, audit), answer);
    }

    fn on_give_up_reverted(
        &mut self,
        withdrawal: GiveUpReversal,
        retried: Result<ReopenedTrials, StoreError>,
        now: CoreTime,
    ) -> Vec<Effect> {
        match retried {
            Ok((trials, audits)) => self.core.on_trials_reopened(withdrawal.sweep, &trials, &audits, now),
            Err(error) => {
                self.throttled_log.report_error("the failure of a trial could not be taken back", &error);
                self.core.on_give_up_reversal_failed(withdrawal);
                Vec::new()
            }
        }
    }

    fn look_up_rows(&self, sweep: i64, keys: Vec<TrialKey>) {
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let looked = written.map(|written| match written {
                WriteOutput::Rows(rows, audits) => (rows, audits),
                _ => FoundRows::default(),
            });
            let _ = events.send(EngineEvent::RowsLookedUp(sweep, looked));
        });
        self.writer.enqueue_write(StoreWrite::LookUpRows(sweep, keys), answer);
    }

    /// Where it fails, the trials are run again, and their rows are looked up again when they come.
    fn on_rows_looked_up(&mut self, number: i64, looked: Result<FoundRows, StoreError>, now: CoreTime) -> Vec<Effect> {
        let Some(sweep) = self.core.sweep(number) else { return Vec::new() };
        let kept = MetricPositions::from_spec(&sweep.spec);
        match looked {
            Ok((rows, audits)) => {
                let rows: Vec<StoredRow> = rows.iter().map(|row| kept.build_row_from_result(row)).collect();
                self.core.on_rows_looked_up(number, &rows, &audits, now)
            }
            Err(error) => {
                self.throttled_log.report_error("rows could not be looked up", &error);
                Vec::new()
            }
        }
    }

    fn store_removal(&self, sweep: i64, reply: oneshot::Sender<Result<(), UserError>>) -> Vec<Effect> {
        if let Err(why) = self.core.validate_removal(sweep) {
            let _ = reply.send(Err(UserError::new(ErrorCode::Refused, why)));
            return Vec::new();
        }
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let _ = events.send(EngineEvent::Removed(sweep, written.map(|_| ()), reply));
        });
        self.writer.enqueue_write(StoreWrite::RemoveSweep(sweep), answer);
        Vec::new()
    }

    fn on_removal_stored(
        &mut self,
        sweep: i64,
        removed: Result<(), StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
    ) -> Vec<Effect> {
        let effects = if removed.is_ok() { self.core.on_sweep_removed(sweep) } else { Vec::new() };
        let _ = reply.send(removed.map_err(store_error));
        effects
    }

    /// Whoever changes a sweep's file meanwhile comes first: the store looks at it again.
    fn store_extension(
        &self,
        sweep: i64,
        from: SpecSource,
        to: SpecSource,
        spec: Arc<Spec>,
        reply: oneshot::Sender<Result<(), UserError>>,
    ) -> Vec<Effect> {
        if let Err(why) = self.core.validate_extension(sweep, &from) {
            let _ = reply.send(Err(UserError::new(ErrorCode::Refused, why)));
            return Vec::new();
        }
        let (events, extended) = (self.events.clone(), to.clone());
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let stored = written.map(|written| written == WriteOutput::Extended(true));
            let _ = events.send(EngineEvent::Extended(sweep, extended, spec, stored, reply));
        });
        self.writer.enqueue_write(StoreWrite::ExtendSweep(sweep, from, to), answer);
        Vec::new()
    }

    fn on_extension_stored(
        &mut self,
        sweep: i64,
        source: SpecSource,
        spec: Arc<Spec>,
        stored: Result<bool, StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let changed = "the sweep was changed or removed meanwhile: try again";
        let (answer, effects) = match stored {
            Ok(true) => (Ok(()), self.core.on_sweep_extended(sweep, source, spec, now)),
            Ok(false) => (Err(UserError::new(ErrorCode::Refused, changed)), Vec::new()),
            Err(error) => (Err(store_error(error)), Vec::new()),
        };
        let _ = reply.send(answer);
        effects
    }

    fn store_successor(
        &self,
        inheritance: Box<SuccessorSweep>,
        reply: oneshot::Sender<Result<i64, StoreError>>,
    ) -> Vec<Effect> {
        let (events, from) = (self.events.clone(), inheritance.predecessor);
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let stored = written.map(|written| if let WriteOutput::SweepNumber(number) = written { number } else { 0 });
            let _ = events.send(EngineEvent::SuccessorInserted(from, stored, reply));
        });
        self.writer.enqueue_write(StoreWrite::InsertSuccessor(inheritance), answer);
        Vec::new()
    }

    fn store_reusing_sweep(
        &self,
        gathering: Box<ReusingSweep>,
        reply: oneshot::Sender<Result<(i64, u64), StoreError>>,
    ) -> Vec<Effect> {
        let answer = |written: Result<WriteOutput, StoreError>| {
            let gathered =
                |written| if let WriteOutput::SweepWithRows(sweep, rows) = written { (sweep, rows) } else { (0, 0) };
            drop(reply.send(written.map(gathered)));
        };
        self.writer.enqueue_write(StoreWrite::InsertReusing(gathering), Box::new(answer));
        Vec::new()
    }

    /// In the store the other sweep has ended already, if it had not.
    fn on_successor_stored(
        &mut self,
        from: i64,
        stored: Result<i64, StoreError>,
        reply: oneshot::Sender<Result<i64, StoreError>>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let ends = stored.is_ok() && self.core.sweep(from).is_some_and(|sweep| sweep.state.is_open());
        let _ = reply.send(stored);
        if ends { self.core.on_sweep_steered(from, SweepChange::State(SweepState::Cancelled), now) } else { Vec::new() }
    }

    fn clear_removed_rows(&self, sweep: i64, reply: oneshot::Sender<Result<ClearedRows, StoreError>>) -> Vec<Effect> {
        let answer = |written: Result<WriteOutput, StoreError>| {
            let cleared =
                |written| if let WriteOutput::Cleared(cleared) = written { cleared } else { ClearedRows::default() };
            drop(reply.send(written.map(cleared)));
        };
        self.writer.enqueue_write(StoreWrite::ClearRows(sweep), Box::new(answer));
        Vec::new()
    }

    fn delete_unreferenced(
        &self,
        hashes: Vec<[u8; 32]>,
        reply: oneshot::Sender<Result<(u64, u64), StoreError>>,
    ) -> Vec<Effect> {
        let answer = |written: Result<WriteOutput, StoreError>| {
            let gone = |written| if let WriteOutput::Deleted(files, bytes) = written { (files, bytes) } else { (0, 0) };
            drop(reply.send(written.map(gone)));
        };
        self.writer.enqueue_write(StoreWrite::FindUnreferenced(hashes), Box::new(answer));
        Vec::new()
    }

    fn store_redo(
        &self,
        sweep: i64,
        keys: Vec<TrialKey>,
        reply: oneshot::Sender<Result<(), UserError>>,
    ) -> Vec<Effect> {
        if let Err(why) = self.core.validate_redo(sweep) {
            let _ = reply.send(Err(UserError::new(ErrorCode::Refused, why)));
            return Vec::new();
        }
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let redone =
                written.map(|written| if let WriteOutput::Redone(redone) = written { redone } else { Vec::new() });
            let _ = events.send(EngineEvent::Redone(sweep, redone, reply));
        });
        self.writer.enqueue_write(StoreWrite::RedoTrials(sweep, keys), answer);
        Vec::new()
    }

    fn on_redo_stored(
        &mut self,
        sweep: i64,
        redone: Result<Vec<RedoneTrial>, StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let (answer, effects) = match redone {
            Ok(trials) => (Ok(()), self.core.on_trials_redone(sweep, &trials, now)),
            Err(error) => (Err(store_error(error)), Vec::new()),
        };
        let _ = reply.send(answer);
        effects
    }

    fn check_store_writable(&self, reply: oneshot::Sender<Result<(), StoreError>>) -> Vec<Effect> {
        let answer = |written: Result<WriteOutput, StoreError>| drop(reply.send(written.map(|_| ())));
        self.writer.enqueue_write(StoreWrite::CheckWritable, Box::new(answer));
        Vec::new()
    }

    /// For writes whose loss a restart repairs: a lease that lives on expires, a state is worked out anew.
    fn persist_write(&self, write: StoreWrite) {
        let events = self.events.clone();
        let answer = move |written: Result<WriteOutput, StoreError>| {
            if let Err(error) = written {
                let _ = events.send(EngineEvent::WriteFailed(error));
            }
        };
        self.writer.enqueue_write(write, Box::new(answer));
    }

    fn store_lease(&self, lease: LeaseRow, sweep: String, keys: Vec<TrialKey>) {
        let events = self.events.clone();
        let row = lease.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let _ = events.send(EngineEvent::LeaseStored(lease, sweep, keys, written.map(|_| ())));
        });
        self.writer.enqueue_write(StoreWrite::InsertLease(row), answer);
    }

    fn send_grant(
        &mut self,
        lease: &LeaseRow,
        sweep: String,
        keys: &[TrialKey],
        stored: Result<(), StoreError>,
    ) -> Vec<Effect> {
        if let Err(error) = stored {
            self.throttled_log.report_error("a lease could not be stored", &error);
            return self.core.on_grant_failed(lease);
        }
        if !self.core.holds_lease(&lease.worker, lease.fence) {
            // It ended while it was being stored: by a cancel, say. Whoever is told so wishes for another.
            let revoke = v1::Revoke { fences: vec![fence_to_wire(lease.fence)] };
            self.send_to_worker(&lease.worker, v1::session_response::Message::Revoke(revoke));
            return Vec::new();
        }
        tracing::debug!(worker = lease.worker, lease = lease.fence.lease, trials = keys.len(), "lease granted");
        let grant = v1::Grant {
            fence: Some(fence_to_wire(lease.fence)),
            sweep,
            cells: keys.iter().map(|key| key.cell).collect(),
            repeats: keys.iter().map(|key| key.repeat).collect(),
            checkpointed: keys
                .iter()
                .filter(|key| self.core.checkpoint_steps(lease.sweep, **key).is_some())
                .map(|key| (*key).into())
                .collect(),
        };
        self.send_to_worker(&lease.worker, v1::session_response::Message::Grant(grant));
        Vec::new()
    }

    /// A worker that does not read its messages loses its session: its leases expire unless it comes back.
    fn send_to_worker(&mut self, worker: &str, message: v1::session_response::Message) {
        let response = v1::SessionResponse { message: Some(message) };
        let sent = self.sessions.get(worker).map(|(_, outbox)| outbox.try_send(Ok(response)).is_ok());
        if sent == Some(false) {
            self.sessions.remove(worker);
            self.core.on_session_ended(worker, self.current_time());
        }
    }
}

fn fence_to_wire(fence: Fence) -> v1::Fence {
    v1::Fence { lease: fence.lease, epoch: fence.epoch }
}

fn into_reopened_trials(written: WriteOutput) -> ReopenedTrials {
    if let WriteOutput::Reopened(trials, audits) = written { (trials, audits) } else { ReopenedTrials::default() }
}
