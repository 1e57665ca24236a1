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

use super::checkpoints::{Incoming, Keeper};
use super::complaints::Complaints;
use super::limits::Place;
use super::store_error;
use crate::core::audits::Recorded;
use crate::core::{
    Admission, Change, Committed, Core, Effect, Fence, Joining, KeptMetrics, LeaseRow, Now, Steering, StoredRow, Sweep,
    SweepRow, SweepState, Verdict, Withdrawal, WorkerId,
};
use crate::failpoint;
use crate::store::writer::WriterHandle;
use crate::store::{
    ClearedRows, CommitBatch, CommitReport, RedoneTrial, ReusingSweep, StoreError, StoreWrite, SuccessorSweep,
    WriteOutput,
};

/// Messages to a worker.
pub type Outbox = mpsc::Sender<Result<v1::SessionResponse, tonic::Status>>;

/// Everything that can wake the loop.
pub enum Event {
    /// A sweep is to be stored.
    Launch(Box<SweepRow>, Arc<Spec>, oneshot::Sender<Result<i64, StoreError>>),
    /// It was.
    Launched(Box<SweepRow>, Arc<Spec>, oneshot::Sender<Result<i64, StoreError>>),
    /// A worker opened a session.
    Joined(Joining, Outbox, oneshot::Sender<u64>),
    /// A session ended, by its number.
    SessionEnded(WorkerId, u64),
    /// What a worker says in its session, and the room that it takes until it is heard.
    Said(WorkerId, Saying, Place),
    /// A batch of results.
    Results(Box<Delivery>),
    /// The store has dealt with it.
    Committed(Box<Delivery>, Result<CommitReport, StoreError>),
    /// A lease is durable and may be sent, or is not.
    LeaseStored(LeaseRow, String, Vec<TrialKey>, Result<(), StoreError>),
    /// The store has dealt with the verdict on a trial: whether it gave it that row.
    Condemned(Verdict, Result<bool, StoreError>),
    /// A verdict was taken back: what is to be run again, if it stood.
    Withdrawn(Withdrawal, Result<Retried, StoreError>),
    /// Rows that the core did not know.
    LookedUp(i64, Result<Looked, StoreError>),
    /// A change of leases or state is not durable.
    NotStored(StoreError),
    /// A checkpoint has come.
    Keep(Box<Incoming>),
    /// It is in its place, after so many steps of the trial.
    Kept(i64, TrialKey, u64),
    /// A user steers a sweep.
    Steer(i64, Steering, oneshot::Sender<Result<(), UserError>>),
    /// What that changes is durable, or is not.
    Steered(i64, Change, Result<(), StoreError>, oneshot::Sender<Result<(), UserError>>),
    /// Its failed trials have no rows any more, or still have them.
    Retried(i64, Result<Retried, StoreError>, oneshot::Sender<Result<(), UserError>>),
    /// A sweep is to have a file that asks for more repeats of its cells, in place of the first of these.
    Extend(i64, SpecSource, SpecSource, Arc<Spec>, oneshot::Sender<Result<(), UserError>>),
    /// It has it, if the answer is yes.
    Extended(i64, SpecSource, Arc<Spec>, Result<bool, StoreError>, oneshot::Sender<Result<(), UserError>>),
    /// A new sweep is to be stored with the rows of another one.
    Inherit(Box<SuccessorSweep>, oneshot::Sender<Result<i64, StoreError>>),
    /// A new sweep is to be stored with copies of rows of others.
    Gather(Box<ReusingSweep>, oneshot::Sender<Result<(i64, u64), StoreError>>),
    /// It is stored, and the other one, of this number, has ended.
    Inherited(i64, Result<i64, StoreError>, oneshot::Sender<Result<i64, StoreError>>),
    /// A sweep that is stored begins with these rows.
    TakeUp(Box<Sweep>, Vec<StoredRow>, oneshot::Sender<()>),
    /// A user removes a sweep.
    Remove(i64, oneshot::Sender<Result<(), UserError>>),
    /// It is no more, or still there.
    Removed(i64, Result<(), StoreError>, oneshot::Sender<Result<(), UserError>>),
    /// Some of a removed sweep's rows are to be cleared.
    Clear(i64, oneshot::Sender<Result<ClearedRows, StoreError>>),
    /// Files are to go that nothing names, as far as is known; how many of them went, and their bytes.
    TakeOff(Vec<[u8; 32]>, oneshot::Sender<Result<(u64, u64), StoreError>>),
    /// Trials of a sweep are to be run once more, because files that their rows name are lost.
    Redo(i64, Vec<TrialKey>, oneshot::Sender<Result<(), UserError>>),
    /// They are due, or are not.
    Redone(i64, Result<Vec<RedoneTrial>, StoreError>, oneshot::Sender<Result<(), UserError>>),
    /// Whether the store takes a write.
    Probe(oneshot::Sender<Result<(), StoreError>>),
    /// A question.
    Ask(Box<dyn FnOnce(&Core) + Send>),
    /// Time passed.
    Tick,
    /// The coordinator goes.
    Stop,
}

/// Rows, and audits of these.
pub type Looked = (Vec<TrialResult>, Vec<Recorded>);

/// Trials, and audits with the processes whose rows they are of.
pub type Retried = (Vec<TrialKey>, Vec<(TrialKey, WorkerId)>);

/// What a worker can say.
pub enum Saying {
    /// It lives.
    Heartbeat(Vec<(u64, TrialKey)>, u64, Vec<Fence>),
    /// It wants a lease for so many idle slots.
    Want(u32),
    /// It gives one back, with a reason if it cannot work on that sweep.
    Release(Fence, String),
    /// It gives back trials of a lease that it has not begun.
    Yielded(Fence, Vec<TrialKey>),
    /// It leaves.
    Goodbye,
}

/// A batch on its way to the store.
pub struct Delivery {
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
    pub held: Place,
    /// Whether a "no such trial" is to be answered.
    pub reply: oneshot::Sender<Result<CommitReport, Refusal>>,
}

/// Why a batch was not taken.
#[derive(Debug)]
pub enum Refusal {
    /// The lease never held this trial.
    NotLeased(TrialKey),
    /// The store is behind: send it again later.
    Busy,
    /// It is not durable: send it again later.
    Store(StoreError),
}

/// A cheap handle to the loop.
#[derive(Clone)]
pub struct EngineHandle {
    events: mpsc::UnboundedSender<Event>,
    changed: watch::Receiver<u64>,
}

/// The loop has stopped: the coordinator is going down.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator is stopping")]
pub struct Stopped;

impl EngineHandle {
    /// A handle to somebody who answers questions in the loop's place, and what is asked.
    pub(super) fn aside() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, questions) = Engine::queue();
        (Self { events, changed: watch::channel(0).1 }, questions)
    }

    /// Tells the loop something.
    pub fn tell(&self, event: Event) {
        // A loop that is gone needs to hear nothing.
        let _ = self.events.send(event);
    }

    /// Asks the core something and waits for the answer.
    ///
    /// # Errors
    /// The loop has stopped.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.tell(Event::Ask(Box::new(move |core| drop(answer.send(question(core))))));
        answered.await.map_err(|_| Stopped)
    }

    /// Counts up whenever something changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}

/// The loop's own state.
pub struct Engine {
    core: Core,
    started: Instant,
    writer: WriterHandle,
    keeper: Keeper,
    sessions: HashMap<WorkerId, (u64, Outbox)>,
    next_session: u64,
    events: mpsc::UnboundedSender<Event>,
    waiting: mpsc::UnboundedReceiver<Event>,
    changed: watch::Sender<u64>,
    complaints: Complaints,
}

/// The loop's queue.
pub type Queue = (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>);

impl Engine {
    /// A queue for a loop that is not there yet.
    pub fn queue() -> Queue {
        mpsc::unbounded_channel()
    }

    /// A loop around `core`, not yet running.
    pub fn new(core: Core, writer: WriterHandle, keeper: Keeper, (events, waiting): Queue) -> (Self, EngineHandle) {
        let (changed, changes) = watch::channel(0);
        let handle = EngineHandle { events: events.clone(), changed: changes };
        let engine = Self {
            core,
            started: Instant::now(),
            writer,
            keeper,
            sessions: HashMap::new(),
            next_session: 0,
            events,
            waiting,
            changed,
            complaints: Complaints::default(),
        };
        (engine, handle)
    }

    /// Runs until told to stop.
    pub async fn run(mut self) {
        while let Some(event) = self.waiting.recv().await {
            let changes = !matches!(event, Event::Ask(_) | Event::Probe(_) | Event::Tick);
            if matches!(event, Event::Stop) {
                return;
            }
            let effects = self.react(event);
            for effect in effects {
                self.carry_out(effect);
            }
            if changes {
                self.changed.send_modify(|n| *n += 1);
            }
        }
    }

    fn now(&self) -> Now {
        self.started.elapsed()
    }

    fn react(&mut self, event: Event) -> Vec<Effect> {
        let now = self.now();
        match event {
            Event::Launch(row, spec, reply) => self.store_sweep(row, spec, reply),
            Event::Launched(row, spec, reply) => {
                let number = row.number;
                let effects = self.core.on_sweep(Sweep::new(Arc::new(*row), spec), [], now);
                let _ = reply.send(Ok(number));
                effects
            }
            Event::Joined(joining, outbox, reply) => self.join(joining, outbox, reply, now),
            Event::SessionEnded(worker, session) => self.end_session(&worker, session),
            Event::Said(worker, saying, heard) => {
                drop(heard);
                self.hear(&worker, saying, now)
            }
            Event::Results(delivery) => self.deliver(delivery),
            Event::Committed(delivery, result) => self.committed(*delivery, result, now),
            Event::LeaseStored(lease, sweep, keys, stored) => self.send_grant(&lease, sweep, &keys, stored),
            Event::Condemned(verdict, stored) => self.condemned(verdict, stored, now),
            Event::Withdrawn(withdrawal, retried) => self.withdrawn(withdrawal, retried, now),
            Event::LookedUp(sweep, looked) => self.looked_up(sweep, looked, now),
            Event::NotStored(error) => {
                self.complaints.say("a change of leases or state could not be stored", &error);
                Vec::new()
            }
            Event::Keep(incoming) => {
                self.keeper.keep(&self.core, incoming);
                Vec::new()
            }
            Event::Kept(sweep, key, steps) => self.core.on_kept(sweep, key, steps),
            Event::Steer(sweep, steering, reply) => self.steer(sweep, steering, reply),
            Event::Steered(sweep, change, stored, reply) => self.steered(sweep, change, stored, reply, now),
            Event::Retried(sweep, retried, reply) => self.retried(sweep, retried, reply, now),
            Event::Extend(sweep, from, to, spec, reply) => self.extend(sweep, from, to, spec, reply),
            Event::Extended(sweep, to, spec, stored, reply) => self.extended(sweep, to, spec, stored, reply, now),
            Event::Inherit(inheritance, reply) => self.inherit(inheritance, reply),
            Event::Gather(gathering, reply) => self.gather(gathering, reply),
            Event::Inherited(from, stored, reply) => self.inherited(from, stored, reply, now),
            Event::TakeUp(sweep, rows, reply) => {
                let effects = self.core.on_sweep(*sweep, rows, now);
                let _ = reply.send(());
                effects
            }
            Event::Remove(sweep, reply) => self.remove(sweep, reply),
            Event::Removed(sweep, removed, reply) => self.removed(sweep, removed, reply),
            Event::Clear(sweep, reply) => self.clear(sweep, reply),
            Event::TakeOff(hashes, reply) => self.take_off(hashes, reply),
            Event::Redo(sweep, keys, reply) => self.redo(sweep, keys, reply),
            Event::Redone(sweep, redone, reply) => self.redone(sweep, redone, reply, now),
            Event::Probe(reply) => self.probe(reply),
            Event::Ask(question) => {
                question(&self.core);
                Vec::new()
            }
            Event::Tick => self.core.on_tick(now),
            Event::Stop => Vec::new(),
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
                let _ = events.send(Event::Launched(row, spec, reply));
            }
            Ok(_) => drop(reply),
            Err(error) => drop(reply.send(Err(error))),
        });
        self.writer.enqueue_write(StoreWrite::InsertSweep(*stored), answer);
        Vec::new()
    }

    fn join(&mut self, joining: Joining, outbox: Outbox, reply: oneshot::Sender<u64>, now: Now) -> Vec<Effect> {
        self.next_session += 1;
        tracing::info!(worker = joining.name, slots = joining.slots, held = joining.held.len(), "worker joined");
        self.sessions.insert(joining.worker.clone(), (self.next_session, outbox));
        // Welcome goes out before anything that the join brings about.
        let _ = reply.send(self.next_session);
        self.core.on_joined(joining, now)
    }

    fn end_session(&mut self, worker: &str, session: u64) -> Vec<Effect> {
        if self.sessions.get(worker).is_some_and(|(number, _)| *number == session) {
            tracing::info!(worker, "session ended");
            self.sessions.remove(worker);
            self.core.on_session_ended(worker, self.now());
        }
        Vec::new()
    }

    fn hear(&mut self, worker: &str, saying: Saying, now: Now) -> Vec<Effect> {
        match saying {
            Saying::Heartbeat(running, queued, held) => {
                self.core.on_heartbeat(worker, running, queued, &held, now);
                let renewed = v1::session_response::Message::Renewed(v1::Renewed {});
                self.send(worker, renewed);
                Vec::new()
            }
            Saying::Want(idle) => self.core.on_want(worker, idle, now),
            Saying::Release(fence, why) => self.core.on_release(worker, fence, why, now),
            Saying::Yielded(fence, keys) => {
                tracing::debug!(worker, lease = fence.lease, trials = keys.len(), "trials given back");
                self.core.on_yielded(worker, fence, &keys, now)
            }
            Saying::Goodbye => {
                self.sessions.remove(worker);
                self.core.on_goodbye(worker, now)
            }
        }
    }

    fn deliver(&mut self, mut delivery: Box<Delivery>) -> Vec<Effect> {
        // The loop itself never waits for a disk that is slow.
        if !self.writer.can_take_results() {
            let _ = delivery.reply.send(Err(Refusal::Busy));
            return Vec::new();
        }
        let keys: Vec<TrialKey> = delivery.rows.iter().map(|row| row.key).collect();
        let (compare_only, audit) = match self.core.admit(&delivery.worker, delivery.fence, &keys) {
            Err(key) => {
                let _ = delivery.reply.send(Err(Refusal::NotLeased(key)));
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
            chosen_for_audit: self.core.chosen(delivery.sweep, &keys),
        };
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let report = written.map(|written| match written {
                WriteOutput::Results(report) => report,
                _ => CommitReport::default(),
            });
            let _ = events.send(Event::Committed(delivery, report));
        });
        self.writer.enqueue_write(StoreWrite::StoreResults(batch), answer);
        Vec::new()
    }

    fn committed(&mut self, delivery: Delivery, result: Result<CommitReport, StoreError>, now: Now) -> Vec<Effect> {
        let report = match result {
            Ok(report) => report,
            Err(error) => {
                if !matches!(error, StoreError::BlobMissing(_)) {
                    self.complaints.say("results could not be stored", &error);
                }
                let _ = delivery.reply.send(Err(Refusal::Store(error)));
                return Vec::new();
            }
        };
        let mismatches = report.mismatches + report.contradicted;
        if mismatches > 0 {
            tracing::error!(worker = delivery.worker, mismatches, "a trial yielded other bits");
        }
        let committed = Committed {
            stored: report.stored.iter().map(|at| delivery.rows[*at].clone()).collect(),
            known: report.already_stored.clone(),
            mismatches,
            fenced: report.fenced,
            due: report.audits_due.clone(),
            audited: report.audited.iter().map(|(at, finding)| (delivery.rows[*at].clone(), *finding)).collect(),
        };
        let effects = self.core.on_committed(&delivery.worker, delivery.fence, delivery.sweep, &committed, now);
        failpoint::reach(failpoint::BEFORE_ACKNOWLEDGEMENT);
        let _ = delivery.reply.send(Ok(report));
        failpoint::reach(failpoint::AFTER_ACKNOWLEDGEMENT);
        effects
    }

    /// Nothing is changed before it is durable.
    fn steer(&self, sweep: i64, steering: Steering, reply: oneshot::Sender<Result<(), UserError>>) -> Vec<Effect> {
        match self.core.may_steer(sweep, steering) {
            Err(why) => drop(reply.send(Err(UserError::new(ErrorCode::Refused, why)))),
            Ok(None) if steering == Steering::Retry => self.retry(sweep, reply),
            Ok(None) => drop(reply.send(Ok(()))),
            Ok(Some(change)) => {
                let events = self.events.clone();
                let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
                    let _ = events.send(Event::Steered(sweep, change, written.map(|_| ()), reply));
                });
                let write = match change {
                    Change::State(state) => StoreWrite::SetSweepState(sweep, state),
                    Change::Share(share) => StoreWrite::SetShare(sweep, share),
                };
                self.writer.enqueue_write(write, answer);
            }
        }
        Vec::new()
    }

    fn steered(
        &mut self,
        sweep: i64,
        change: Change,
        stored: Result<(), StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
        now: Now,
    ) -> Vec<Effect> {
        let (answer, effects) = match stored {
            Ok(()) => (Ok(()), self.core.on_steered(sweep, change, now)),
            Err(error) => (Err(store_error(error)), Vec::new()),
        };
        let _ = reply.send(answer);
        effects
    }

    fn retry(&self, sweep: i64, reply: oneshot::Sender<Result<(), UserError>>) {
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let _ = events.send(Event::Retried(sweep, written.map(to_retried), reply));
        });
        self.writer.enqueue_write(StoreWrite::RetryFailed(sweep), answer);
    }

    fn retried(
        &mut self,
        sweep: i64,
        retried: Result<Retried, StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
        now: Now,
    ) -> Vec<Effect> {
        let (answer, effects) = match retried {
            Ok((trials, audits)) => (Ok(()), self.core.on_retried(sweep, &trials, &audits, now)),
            Err(error) => (Err(store_error(error)), Vec::new()),
        };
        let _ = reply.send(answer);
        effects
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Grant { lease, sweep, keys } => self.store_lease(lease, sweep, keys),
            Effect::AskBack { worker, fence, trials } => {
                let ask = v1::Yield { fence: Some(to_wire(fence)), trials };
                self.send(&worker, v1::session_response::Message::Yield(ask));
            }
            Effect::Shrink(lease) => self.persist(StoreWrite::ShrinkLease(lease)),
            Effect::EndLeases(ended) => self.persist(StoreWrite::EndLeases(ended)),
            Effect::SetState(sweep, state) => {
                let what = if state.is_open() { "sweep goes on" } else { "sweep ended" };
                tracing::info!(sweep, ?state, "{what}");
                self.persist(StoreWrite::SetSweepState(sweep, state));
            }
            Effect::Condemn(verdict) => self.condemn(verdict),
            Effect::Withdraw(withdrawal) => self.withdraw(withdrawal),
            Effect::LookUp(sweep, keys) => self.look_up(sweep, keys),
            Effect::Discard(sweep, keys) => self.keeper.discard(&self.core, sweep, &keys),
            Effect::Revoke(worker, fences) => {
                tracing::info!(worker, leases = fences.len(), "leases revoked");
                let fences = fences.into_iter().map(to_wire).collect();
                self.send(&worker, v1::session_response::Message::Revoke(v1::Revoke { fences }));
            }
        }
    }

    /// Stores a failed row for a trial that killed too many workers, or that its audit failed if it has a row.
    fn condemn(&self, verdict: Verdict) {
        tracing::error!(trial = %verdict.key, cause = verdict.cause, audit = verdict.audit, "given up");
        let write = if verdict.audit {
            StoreWrite::GiveUpAudit(verdict.sweep, verdict.key, verdict.cause.clone())
        } else {
            let result = TrialResult::failed(verdict.key, verdict.cause.clone(), verdict.metrics);
            StoreWrite::GiveUpTrial(verdict.sweep, result)
        };
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let stored = written.map(|written| written == WriteOutput::GaveUp(true));
            let _ = events.send(Event::Condemned(verdict, stored));
        });
        self.writer.enqueue_write(write, answer);
    }

    fn condemned(&mut self, verdict: Verdict, stored: Result<bool, StoreError>, now: Now) -> Vec<Effect> {
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                self.complaints.say("the failure of a trial could not be stored", &error);
                self.core.on_condemn_failed(verdict);
                return Vec::new();
            }
        };
        if verdict.audit {
            return self.core.on_audit_failed(verdict.sweep, verdict.key, stored, now);
        }
        let outcome = Outcome::Failed { cause: verdict.cause };
        let row = StoredRow { key: verdict.key, outcome, metric: f64::NAN, decides: f64::NAN, seconds: 0.0 };
        self.core.on_condemned(verdict.sweep, &row, stored, now)
    }

    /// After the verdict in the same queue: whatever became of that is seen by whoever takes it back.
    fn withdraw(&self, withdrawal: Withdrawal) {
        let Withdrawal { sweep, key, audit } = withdrawal;
        tracing::info!(trial = %key, "a worker that was thought dead of it has come back: it is run again");
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let _ = events.send(Event::Withdrawn(withdrawal, written.map(to_retried)));
        });
        self.writer.enqueue_write(StoreWrite::RevertGiveUp(sweep, key, audit), answer);
    }

    fn withdrawn(&mut self, withdrawal: Withdrawal, retried: Result<Retried, StoreError>, now: Now) -> Vec<Effect> {
        match retried {
            Ok((trials, audits)) => self.core.on_retried(withdrawal.sweep, &trials, &audits, now),
            Err(error) => {
                self.complaints.say("the failure of a trial could not be taken back", &error);
                self.core.on_withdraw_failed(withdrawal);
                Vec::new()
            }
        }
    }

    fn look_up(&self, sweep: i64, keys: Vec<TrialKey>) {
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let looked = written.map(|written| match written {
                WriteOutput::Rows(rows, audits) => (rows, audits),
                _ => Looked::default(),
            });
            let _ = events.send(Event::LookedUp(sweep, looked));
        });
        self.writer.enqueue_write(StoreWrite::LookUpRows(sweep, keys), answer);
    }

    /// Where it fails, the trials are run again, and their rows are looked up again when they come.
    fn looked_up(&mut self, number: i64, looked: Result<Looked, StoreError>, now: Now) -> Vec<Effect> {
        let Some(sweep) = self.core.sweep(number) else { return Vec::new() };
        let kept = KeptMetrics::of(&sweep.spec);
        match looked {
            Ok((rows, audits)) => {
                let rows: Vec<StoredRow> = rows.iter().map(|row| kept.row_of(row)).collect();
                self.core.on_looked_up(number, &rows, &audits, now)
            }
            Err(error) => {
                self.complaints.say("rows could not be looked up", &error);
                Vec::new()
            }
        }
    }

    fn remove(&self, sweep: i64, reply: oneshot::Sender<Result<(), UserError>>) -> Vec<Effect> {
        if let Err(why) = self.core.may_remove(sweep) {
            let _ = reply.send(Err(UserError::new(ErrorCode::Refused, why)));
            return Vec::new();
        }
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let _ = events.send(Event::Removed(sweep, written.map(|_| ()), reply));
        });
        self.writer.enqueue_write(StoreWrite::RemoveSweep(sweep), answer);
        Vec::new()
    }

    fn removed(
        &mut self,
        sweep: i64,
        removed: Result<(), StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
    ) -> Vec<Effect> {
        let effects = if removed.is_ok() { self.core.on_removed(sweep) } else { Vec::new() };
        let _ = reply.send(removed.map_err(store_error));
        effects
    }

    /// Whoever changes a sweep's file meanwhile comes first: the store looks at it again.
    fn extend(
        &self,
        sweep: i64,
        from: SpecSource,
        to: SpecSource,
        spec: Arc<Spec>,
        reply: oneshot::Sender<Result<(), UserError>>,
    ) -> Vec<Effect> {
        if let Err(why) = self.core.may_extend(sweep, &from) {
            let _ = reply.send(Err(UserError::new(ErrorCode::Refused, why)));
            return Vec::new();
        }
        let (events, extended) = (self.events.clone(), to.clone());
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let stored = written.map(|written| written == WriteOutput::Extended(true));
            let _ = events.send(Event::Extended(sweep, extended, spec, stored, reply));
        });
        self.writer.enqueue_write(StoreWrite::ExtendSweep(sweep, from, to), answer);
        Vec::new()
    }

    fn extended(
        &mut self,
        sweep: i64,
        source: SpecSource,
        spec: Arc<Spec>,
        stored: Result<bool, StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
        now: Now,
    ) -> Vec<Effect> {
        let changed = "the sweep was changed or removed meanwhile: try again";
        let (answer, effects) = match stored {
            Ok(true) => (Ok(()), self.core.on_extended(sweep, source, spec, now)),
            Ok(false) => (Err(UserError::new(ErrorCode::Refused, changed)), Vec::new()),
            Err(error) => (Err(store_error(error)), Vec::new()),
        };
        let _ = reply.send(answer);
        effects
    }

    fn inherit(
        &self,
        inheritance: Box<SuccessorSweep>,
        reply: oneshot::Sender<Result<i64, StoreError>>,
    ) -> Vec<Effect> {
        let (events, from) = (self.events.clone(), inheritance.predecessor);
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let stored = written.map(|written| if let WriteOutput::SweepNumber(number) = written { number } else { 0 });
            let _ = events.send(Event::Inherited(from, stored, reply));
        });
        self.writer.enqueue_write(StoreWrite::InsertSuccessor(inheritance), answer);
        Vec::new()
    }

    fn gather(
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
    fn inherited(
        &mut self,
        from: i64,
        stored: Result<i64, StoreError>,
        reply: oneshot::Sender<Result<i64, StoreError>>,
        now: Now,
    ) -> Vec<Effect> {
        let ends = stored.is_ok() && self.core.sweep(from).is_some_and(|sweep| sweep.state.is_open());
        let _ = reply.send(stored);
        if ends { self.core.on_steered(from, Change::State(SweepState::Cancelled), now) } else { Vec::new() }
    }

    fn clear(&self, sweep: i64, reply: oneshot::Sender<Result<ClearedRows, StoreError>>) -> Vec<Effect> {
        let answer = |written: Result<WriteOutput, StoreError>| {
            let cleared =
                |written| if let WriteOutput::Cleared(cleared) = written { cleared } else { ClearedRows::default() };
            drop(reply.send(written.map(cleared)));
        };
        self.writer.enqueue_write(StoreWrite::ClearRows(sweep), Box::new(answer));
        Vec::new()
    }

    fn take_off(&self, hashes: Vec<[u8; 32]>, reply: oneshot::Sender<Result<(u64, u64), StoreError>>) -> Vec<Effect> {
        let answer = |written: Result<WriteOutput, StoreError>| {
            let gone = |written| if let WriteOutput::Deleted(files, bytes) = written { (files, bytes) } else { (0, 0) };
            drop(reply.send(written.map(gone)));
        };
        self.writer.enqueue_write(StoreWrite::FindUnreferenced(hashes), Box::new(answer));
        Vec::new()
    }

    fn redo(&self, sweep: i64, keys: Vec<TrialKey>, reply: oneshot::Sender<Result<(), UserError>>) -> Vec<Effect> {
        if let Err(why) = self.core.may_redo(sweep) {
            let _ = reply.send(Err(UserError::new(ErrorCode::Refused, why)));
            return Vec::new();
        }
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let redone =
                written.map(|written| if let WriteOutput::Redone(redone) = written { redone } else { Vec::new() });
            let _ = events.send(Event::Redone(sweep, redone, reply));
        });
        self.writer.enqueue_write(StoreWrite::RedoTrials(sweep, keys), answer);
        Vec::new()
    }

    fn redone(
        &mut self,
        sweep: i64,
        redone: Result<Vec<RedoneTrial>, StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
        now: Now,
    ) -> Vec<Effect> {
        let (answer, effects) = match redone {
            Ok(trials) => (Ok(()), self.core.on_redone(sweep, &trials, now)),
            Err(error) => (Err(store_error(error)), Vec::new()),
        };
        let _ = reply.send(answer);
        effects
    }

    fn probe(&self, reply: oneshot::Sender<Result<(), StoreError>>) -> Vec<Effect> {
        let answer = |written: Result<WriteOutput, StoreError>| drop(reply.send(written.map(|_| ())));
        self.writer.enqueue_write(StoreWrite::CheckWritable, Box::new(answer));
        Vec::new()
    }

    /// For writes whose loss a restart repairs: a lease that lives on expires, a state is worked out anew.
    fn persist(&self, write: StoreWrite) {
        let events = self.events.clone();
        let answer = move |written: Result<WriteOutput, StoreError>| {
            if let Err(error) = written {
                let _ = events.send(Event::NotStored(error));
            }
        };
        self.writer.enqueue_write(write, Box::new(answer));
    }

    fn store_lease(&self, lease: LeaseRow, sweep: String, keys: Vec<TrialKey>) {
        let events = self.events.clone();
        let row = lease.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let _ = events.send(Event::LeaseStored(lease, sweep, keys, written.map(|_| ())));
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
            self.complaints.say("a lease could not be stored", &error);
            return self.core.on_grant_failed(lease);
        }
        if !self.core.holds(&lease.worker, lease.fence) {
            // It ended while it was being stored: by a cancel, say. Whoever is told so wishes for another.
            let revoke = v1::Revoke { fences: vec![to_wire(lease.fence)] };
            self.send(&lease.worker, v1::session_response::Message::Revoke(revoke));
            return Vec::new();
        }
        tracing::debug!(worker = lease.worker, lease = lease.fence.lease, trials = keys.len(), "lease granted");
        let grant = v1::Grant {
            fence: Some(to_wire(lease.fence)),
            sweep,
            cells: keys.iter().map(|key| key.cell).collect(),
            repeats: keys.iter().map(|key| key.repeat).collect(),
            kept: keys
                .iter()
                .filter(|key| self.core.kept(lease.sweep, **key).is_some())
                .map(|key| (*key).into())
                .collect(),
        };
        self.send(&lease.worker, v1::session_response::Message::Grant(grant));
        Vec::new()
    }

    /// A worker that does not read its messages loses its session: its leases expire unless it comes back.
    fn send(&mut self, worker: &str, message: v1::session_response::Message) {
        let response = v1::SessionResponse { message: Some(message) };
        let sent = self.sessions.get(worker).map(|(_, outbox)| outbox.try_send(Ok(response)).is_ok());
        if sent == Some(false) {
            self.sessions.remove(worker);
            self.core.on_session_ended(worker, self.now());
        }
    }
}

fn to_wire(fence: Fence) -> v1::Fence {
    v1::Fence { lease: fence.lease, epoch: fence.epoch }
}

fn to_retried(written: WriteOutput) -> Retried {
    if let WriteOutput::Reopened(trials, audits) = written { (trials, audits) } else { Retried::default() }
}
