//! The coordinator's decisions: plain verbs over a state, without IO, async or a clock.
//!
//! Each verb takes what happened and `now` (a monotonic time handed in by the caller) and returns the [`Effect`]s to
//! carry out, in order. Everything else in this crate moves bytes.
//!
//! Invariant: every trial of a running sweep is in exactly one of four places – *pending* (in its class' interval
//! set), *waiting* (a suspect that nobody holds), *leased* (in exactly one lease), or *done* (it has a row in the
//! store). Of those that are done, some are audited: each of these waits, is in one lease for audits, or was settled.
//! [`Core::check`] states it, and the model test holds the core to it.

mod assign;
pub mod audits;
mod checkpoints;
mod fair_share;
pub mod lease_size;
mod pending;
pub mod quarantine;
pub mod queries;
pub mod reuse;
pub mod running_stats;
pub mod stopping;
pub mod sweep;
#[cfg(test)]
mod tests;
mod work_stealing;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ergodic_common::spec::SpecSource;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::{Spec, TrialKey};

use crate::interval_set::IntervalSet;
use audits::{Finding, RecordedAudit};
use quarantine::TrialIndex;

pub use sweep::{
    DataPin, MetricPositions, OutcomeCounts, Steering, StoredRow, Sweep, SweepRow, SweepState, SweepTallies,
    UnreadableSweep, main_metric, selection_metric,
};

/// Time since the coordinator started, by its monotonic clock.
pub type CoreTime = Duration;

/// A worker process, as named by itself.
pub type WorkerId = String;

/// A lease and the epoch it was granted in; results count only under a fence that still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// Unique among all leases of a store.
    pub lease: u64,
    /// The coordinator's epoch when it was granted.
    pub epoch: u64,
}

/// A lease that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedLease {
    /// Its token.
    pub fence: Fence,
    /// Whether its holder lost it with trials left, which are given out again.
    pub lost: bool,
}

/// A lease as it is stored: a shard of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// Its token.
    pub fence: Fence,
    /// Number of its sweep in the store.
    pub sweep: i64,
    /// Shape class of its trials.
    pub class: u32,
    /// Who holds it.
    pub worker: WorkerId,
    /// Trial numbers within the class.
    pub trials: IntervalSet,
    /// The process whose rows it audits; none if its trials have no rows yet.
    pub audits: Option<WorkerId>,
}

/// What to do about an event, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make the lease durable, then send it.
    Grant {
        /// The lease.
        lease: LeaseRow,
        /// The sweep's id.
        sweep: String,
        /// Its trials in the order they are to be run.
        keys: Vec<TrialKey>,
    },
    /// Ask a worker to give back so many trials of a lease that it has not begun, if it has as many.
    Retract {
        /// Who holds it.
        worker: WorkerId,
        /// The lease.
        fence: Fence,
        /// How many at most.
        trials: u64,
    },
    /// Make it durable that a lease has no more than these trials.
    ShrinkLease(LeaseRow),
    /// Remove leases from the store; from then on their fences hold no more.
    EndLeases(Vec<EndedLease>),
    /// Tell a worker, if it is connected, that these are no longer its.
    RevokeLeases(WorkerId, Vec<Fence>),
    /// Make a sweep's state durable.
    SetSweepState(i64, SweepState),
    /// Store a failed row for a trial that killed too many workers.
    GiveUp(GivenUpTrial),
    /// Take a stored verdict back: a worker that was thought dead has come back.
    RevertGiveUp(GiveUpReversal),
    /// Read the rows of these trials, which have some that the core does not know.
    LookUpRows(i64, Vec<TrialKey>),
    /// Remove what is kept of trials of a sweep that are not unfinished any more.
    DiscardCheckpoints(i64, Vec<TrialKey>),
}

/// What a user changes about a sweep: first stored, then so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SweepChange {
    /// Its state.
    State(SweepState),
    /// Its share of the workers.
    Share(Share),
}

/// What is to be stored of a trial, or of its audit, that killed too many workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUpTrial {
    /// Number of its sweep.
    pub sweep: i64,
    /// The trial.
    pub key: TrialKey,
    /// Why, in words.
    pub cause: String,
    /// Metrics that its sweep measures.
    pub metric_count: usize,
    /// Whether it has a row, and only its audit failed.
    pub is_audit: bool,
}

/// What is to be taken back of a trial, or of its audit, that killed fewer workers than was thought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GiveUpReversal {
    /// Number of its sweep.
    pub sweep: i64,
    /// The trial.
    pub key: TrialKey,
    /// Whether only its audit was given up.
    pub is_audit: bool,
}

/// Time limits.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A lease ends after this time without a heartbeat.
    pub lease_ttl: Duration,
}

/// A worker, joined or remembered because of its leases.
#[derive(Debug)]
pub struct Worker {
    /// For people.
    pub name: String,
    /// Its build.
    pub build: String,
    /// Trials it runs at a time.
    pub slots: u32,
    /// Numerics classes it offers.
    pub numerics: Vec<String>,
    /// Whether its session is open.
    pub connected: bool,
    /// Whether its session broke off shortly after a sign of life: unless it comes back, it died.
    session_broke_off: bool,
    /// When it was last heard of.
    pub last_seen_at: CoreTime,
    /// Trials running, with the numbers of their leases, as it last said.
    pub running: Vec<(u64, TrialKey)>,
    /// Trials granted and not begun, as it last said.
    pub queued: u64,
    /// Rows stored from it.
    pub stored_rows: u64,
    /// How much longer than usual it takes for a trial.
    pace: f64,
    /// When results last came from it.
    last_results_at: CoreTime,
    /// Idle slots of an unanswered wish for a lease.
    requested_slots: Option<u32>,
    /// Sweeps it gave back because it cannot work on them, with when and why.
    unable_sweeps: BTreeMap<i64, (CoreTime, String)>,
}

#[derive(Debug)]
struct LeaseState {
    /// With the trials that have no row yet.
    row: LeaseRow,
    /// All trials it was granted with.
    granted: IntervalSet,
    /// Those of them that it gave back.
    retracted: IntervalSet,
    /// Until then it is not asked to give trials back.
    next_retract_at: CoreTime,
    /// When it was granted, or found in the store.
    granted_at: CoreTime,
    expires_at: CoreTime,
    /// What each of its trials was booked with, in its sweep's virtual time.
    charge_per_trial: f64,
}

impl LeaseState {
    fn from_row(
        row: LeaseRow,
        granted: IntervalSet,
        granted_at: CoreTime,
        expires_at: CoreTime,
        charge_per_trial: f64,
    ) -> Self {
        Self {
            row,
            granted,
            retracted: IntervalSet::default(),
            next_retract_at: CoreTime::ZERO,
            granted_at,
            expires_at,
            charge_per_trial,
        }
    }
}

/// Who joins.
#[derive(Debug, Clone)]
pub struct JoiningWorker {
    /// Its id.
    pub worker: WorkerId,
    /// For people.
    pub name: String,
    /// Its build.
    pub build: String,
    /// Trials it runs at a time.
    pub slots: u32,
    /// Numerics classes it offers.
    pub numerics: Vec<String>,
    /// Leases it says it still holds.
    pub held: Vec<Fence>,
}

/// What the store did with a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommitOutcome {
    /// Stored rows: trial, outcome, main metric, seconds.
    pub stored: Vec<StoredRow>,
    /// Trials that had a row already.
    pub already_stored: Vec<TrialKey>,
    /// Of these, how many differed.
    pub mismatches: u64,
    /// Whether the fence held no more, so that rows were only compared.
    pub fenced: bool,
    /// Of the stored ones, those whose audits are due.
    pub audits_due: Vec<TrialKey>,
    /// Of those that had a row already, those that were thereby audited.
    pub audited: Vec<(StoredRow, Finding)>,
}

/// All that the coordinator knows and decides.
#[derive(Debug)]
pub struct Core {
    timing: Timing,
    epoch: u64,
    next_lease: u64,
    sweeps: BTreeMap<i64, Sweep>,
    /// Those that cannot be read, by their numbers.
    unreadable: BTreeMap<i64, UnreadableSweep>,
    workers: BTreeMap<WorkerId, Worker>,
    leases: HashMap<u64, LeaseState>,
    /// Where sweeps of a priority are in virtual time.
    virtual_clocks: BTreeMap<i32, f64>,
    /// Verdicts that could not be stored yet.
    unstored_give_ups: Vec<GivenUpTrial>,
    /// Verdicts that could not be taken back yet.
    unstored_reversals: Vec<GiveUpReversal>,
    /// The latest time it was told.
    latest_time: CoreTime,
}

impl Core {
    /// An empty core of the given epoch, whose leases are numbered from `next_lease` on.
    pub fn new(timing: Timing, epoch: u64, next_lease: u64) -> Self {
        Self {
            timing,
            epoch,
            next_lease,
            sweeps: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            workers: BTreeMap::new(),
            leases: HashMap::new(),
            virtual_clocks: BTreeMap::new(),
            unstored_give_ups: Vec::new(),
            unstored_reversals: Vec::new(),
            latest_time: CoreTime::ZERO,
        }
    }

    /// The latest time it was told.
    pub fn latest_time(&self) -> CoreTime {
        self.latest_time
    }

    /// A sweep is there, new or from the store; `rows` are the trials that have a row, in any order.
    pub fn on_sweep_added(
        &mut self,
        sweep: Sweep,
        rows: impl IntoIterator<Item = StoredRow>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let number = sweep.number;
        let sweep = self.sweeps.entry(number).insert_entry(sweep).into_mut();
        sweep.record_initial_rows(rows);
        // Its end may have been stored before what made it go on.
        if sweep.state == SweepState::Completed
            && sweep.withheld.is_none()
            && sweep.counts.done() < sweep.total_trials()
        {
            sweep.state = SweepState::Running;
        }
        if sweep.audits.has_waiting() {
            sweep.auditors_expected_until = now + self.timing.lease_ttl;
        }
        let mut effects = self.complete_if_done(number, now);
        effects.extend(self.assign_leases(now));
        effects
    }

    /// A sweep of the store cannot be read: it is listed, and can be removed.
    pub fn on_unreadable_sweep(&mut self, sweep: UnreadableSweep) {
        self.unreadable.insert(sweep.record.number, sweep);
    }

    /// What the store has of these sweeps makes no sense: they are as if they could not be read.
    pub fn set_aside_inconsistent_sweeps(&mut self) {
        let senseless = self.sweeps.values().filter(|sweep| sweep.withheld.is_none());
        let senseless = senseless.filter_map(|sweep| Some((sweep.number, self.check_sweep(sweep).err()?)));
        for (number, why) in senseless.collect::<Vec<_>>() {
            let Some(sweep) = self.sweeps.remove(&number) else { continue };
            self.leases.retain(|_, lease| lease.row.sweep != number);
            self.on_unreadable_sweep(UnreadableSweep {
                record: sweep.record,
                why: format!("what is stored of it makes no sense: {why}"),
            });
        }
    }

    /// A lease found in the store after a restart: it gets a fresh time to live.
    pub fn on_recovered_lease(&mut self, row: LeaseRow, now: CoreTime) -> Vec<Effect> {
        let fence = row.fence;
        let over = || vec![Effect::EndLeases(vec![EndedLease { fence, lost: false }])];
        let Some(sweep) = self.sweeps.get_mut(&row.sweep).filter(|s| s.state.is_open() && s.withheld.is_none()) else {
            return over();
        };
        let (mut row, granted) = (row.clone(), row.trials.clone());
        row.trials = sweep.take_recorded_trials(&row);
        if row.trials.is_empty() {
            return over();
        }
        let expires = now + self.timing.lease_ttl;
        self.leases.insert(row.fence.lease, LeaseState::from_row(row, granted, now, expires, 0.0));
        Vec::new()
    }

    /// A worker opened a session, perhaps not its first.
    pub fn on_worker_joined(&mut self, joining: JoiningWorker, now: CoreTime) -> Vec<Effect> {
        let gone: Vec<Fence> =
            joining.held.iter().copied().filter(|fence| !self.holds_lease(&joining.worker, *fence)).collect();
        let (trials, pace) = self.workers.get(&joining.worker).map_or((0, 1.0), |w| (w.stored_rows, w.pace));
        let worker = Worker {
            name: joining.name,
            build: joining.build,
            slots: joining.slots,
            numerics: joining.numerics,
            connected: true,
            session_broke_off: false,
            last_seen_at: now,
            running: Vec::new(),
            queued: 0,
            stored_rows: trials,
            pace,
            last_results_at: now,
            requested_slots: None,
            unable_sweeps: BTreeMap::new(),
        };
        self.forget_absent_workers(&joining.worker);
        self.workers.insert(joining.worker.clone(), worker);
        self.clear_worker(&joining.worker);
        let forgotten = self.worker_fences(&joining.worker, |fence| !joining.held.contains(&fence));
        // A process does not forget: it never got these, or has delivered all of them.
        let mut effects = self.end_leases(&forgotten, false);
        self.renew_leases(&joining.worker, &joining.held, now);
        if !gone.is_empty() {
            effects.push(Effect::RevokeLeases(joining.worker, gone));
        }
        effects.extend(self.assign_leases(now));
        effects
    }

    /// A worker's session ended without a goodbye. Its leases live on until they expire: it may come back.
    pub fn on_session_ended(&mut self, worker: &str, now: CoreTime) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.connected = false;
            // Of a process that ends its system closes the connection at once; a network or a machine falls silent.
            worker.session_broke_off = now.saturating_sub(worker.last_seen_at) <= self.timing.lease_ttl / 2;
            worker.requested_slots = None;
        }
    }

    /// A worker leaves for good.
    pub fn on_worker_left(&mut self, worker: &str, now: CoreTime) -> Vec<Effect> {
        let leases = self.worker_fences(worker, |_| true);
        let mut effects = self.end_leases(&leases, false);
        self.workers.remove(worker);
        effects.extend(self.assign_leases(now));
        effects
    }

    /// A sign of life. A lease that the worker does not name is not renewed: it has lost it.
    pub fn on_heartbeat(
        &mut self,
        worker: &str,
        running: Vec<(u64, TrialKey)>,
        queued: u64,
        held: &[Fence],
        now: CoreTime,
    ) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.running = running;
            worker.queued = queued;
        }
        self.renew_leases(worker, held, now);
    }

    /// A worker wants a lease.
    pub fn on_work_requested(&mut self, worker: &str, idle_slots: u32, now: CoreTime) -> Vec<Effect> {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.requested_slots = Some(idle_slots.max(1));
            worker.last_seen_at = now;
        }
        self.assign_leases(now)
    }

    /// A worker gives back what is left of a lease; with a reason when it cannot work on that sweep.
    pub fn on_lease_released(&mut self, worker: &str, fence: Fence, why: String, now: CoreTime) -> Vec<Effect> {
        if !self.holds_lease(worker, fence) {
            return Vec::new();
        }
        let sweep = self.leases[&fence.lease].row.sweep;
        if let Some(worker) = self.workers.get_mut(worker).filter(|_| !why.is_empty()) {
            worker.unable_sweeps.insert(sweep, (now, why));
        }
        let mut effects = self.end_leases(&[fence], false);
        effects.extend(self.assign_leases(now));
        effects
    }

    /// A lease could not be made durable: it never was. The wish stands and is answered on a later tick.
    pub fn on_grant_failed(&mut self, lease: &LeaseRow) -> Vec<Effect> {
        if let Some(worker) = self.workers.get_mut(&lease.worker) {
            worker.requested_slots.get_or_insert(1);
        }
        self.end_leases(&[lease.fence], false)
    }

    /// Whether results for these trials may be stored under this fence: the first trial that may not be is returned.
    ///
    /// # Errors
    /// A trial that the lease never held.
    pub fn admit_batch(&self, worker: &str, fence: Fence, keys: &[TrialKey]) -> Result<Admission, TrialKey> {
        let Some(lease) = self.leases.get(&fence.lease) else { return Ok(Admission::Compare) };
        if lease.row.fence != fence || lease.row.worker != worker {
            return Ok(Admission::Compare);
        }
        let spec = &self.sweeps[&lease.row.sweep].spec;
        let granted = |key: &TrialKey| {
            spec.has_trial(*key) && {
                let (class, n) = spec.grid.locate_trial(*key);
                class == lease.row.class && lease.granted.contains(n)
            }
        };
        match keys.iter().find(|key| !granted(key)) {
            Some(key) => Err(*key),
            None if lease.row.audits.is_some() => Ok(Admission::Audit { sweep: lease.row.sweep }),
            None => Ok(Admission::Store { sweep: lease.row.sweep }),
        }
    }

    /// Which of these trials are to be audited.
    pub fn choose_audits(&mut self, sweep: i64, keys: &[TrialKey]) -> Vec<TrialKey> {
        let Some(sweep) = self.sweeps.get_mut(&sweep) else { return Vec::new() };
        keys.iter().copied().filter(|key| sweep.is_chosen_for_audit(*key)).collect()
    }

    /// The store took a batch, or compared it.
    pub fn on_batch_committed(
        &mut self,
        worker: &str,
        fence: Fence,
        sweep_number: i64,
        committed: &CommitOutcome,
        now: CoreTime,
    ) -> Vec<Effect> {
        let audited: Vec<StoredRow> = committed.audited.iter().map(|(row, _)| row.clone()).collect();
        self.settle_charges(fence, sweep_number, &committed.stored);
        self.settle_charges(fence, sweep_number, &audited);
        let Some(sweep) = self.sweeps.get(&sweep_number) else { return Vec::new() };
        // What is stored is so. A row that was never heard of is looked at, and its trial stays where it is until then.
        let (strange, known): (Vec<TrialKey>, Vec<TrialKey>) =
            committed.already_stored.iter().partition(|key| self.is_unfinished(sweep, **key));
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else { return Vec::new() };
        let compared = (committed.already_stored.len() - audited.len()) as u64;
        sweep.tallies.count_batch(compared, committed.mismatches, committed.fenced);
        let mut holders = Vec::new();
        for row in &committed.stored {
            let (class, n) = sweep.record_row(row);
            holders.push((class, n));
        }
        for key in &committed.audits_due {
            sweep.audits.add_audit(sweep.spec.grid.locate_trial(*key), &worker.to_owned(), None);
        }
        sweep.completion_rate.count_trials(committed.stored.len() as u64, now);
        holders.extend(known.iter().map(|key| sweep.spec.grid.locate_trial(*key)));
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.stored_rows += committed.stored.len() as u64;
            worker.last_seen_at = now;
        }
        self.update_worker_pace(worker, sweep_number, &committed.stored, now);
        self.update_worker_pace(worker, sweep_number, &audited, now);
        // That a strange one was audited is looked up with its row.
        let audited = committed.audited.iter().filter(|(row, _)| !strange.contains(&row.key));
        self.record_findings(sweep_number, audited.map(|(row, finding)| (row.key, *finding)));
        let mut effects = self.remove_from_leases(sweep_number, fence, &holders);
        if !strange.is_empty() {
            effects.push(Effect::LookUpRows(sweep_number, strange));
        }
        let ended = committed.stored.iter().map(|row| row.key).chain(known);
        effects.extend(self.discard_checkpoints(sweep_number, ended));
        effects.extend(self.complete_if_done(sweep_number, now));
        effects.extend(self.assign_leases(now));
        effects
    }

    /// These rows are in the store, however they came there, and these audits of them.
    pub fn on_rows_looked_up(
        &mut self,
        sweep_number: i64,
        rows: &[StoredRow],
        audits: &[RecordedAudit],
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self.sweeps.get(&sweep_number) else { return Vec::new() };
        let mut seen = BTreeSet::new();
        let unknown = rows.iter().filter(|row| sweep.spec.has_trial(row.key) && self.is_unfinished(sweep, row.key));
        let unknown: Vec<&StoredRow> = unknown.filter(|row| seen.insert(row.key)).collect();
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else { return Vec::new() };
        let places: Vec<TrialIndex> = unknown.iter().map(|row| sweep.record_row(row)).collect();
        // Audits of rows that were known are, too.
        sweep.record_audits(audits.iter().filter(|(key, ..)| seen.remove(key)).cloned());
        let keys: Vec<TrialKey> = unknown.iter().map(|row| row.key).collect();
        let mut effects = self.remove_from_leases(sweep_number, NO_LEASE, &places);
        effects.extend(self.discard_checkpoints(sweep_number, keys.into_iter()));
        effects.extend(self.complete_if_done(sweep_number, now));
        effects.extend(self.assign_leases(now));
        effects
    }

    /// The store has dealt with the verdict on a trial: this is its row, unless it had another one.
    ///
    /// Whether the trial has a row is decided there alone. A worker that was thought dead may have come back while the verdict
    /// was under way: then it is taken back, in the same way.
    pub fn on_trial_given_up(
        &mut self,
        sweep_number: i64,
        row: &StoredRow,
        stored: bool,
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self.sweeps.get(&sweep_number) else { return Vec::new() };
        if !stored {
            let unknown = self.is_unfinished(sweep, row.key);
            return if unknown { vec![Effect::LookUpRows(sweep_number, vec![row.key])] } else { Vec::new() };
        }
        let stands = sweep.quarantine.is_given_up(sweep.spec.grid.locate_trial(row.key));
        let mut effects = self.on_rows_looked_up(sweep_number, std::slice::from_ref(row), &[], now);
        if !stands {
            effects.push(Effect::RevertGiveUp(GiveUpReversal { sweep: sweep_number, key: row.key, is_audit: false }));
        }
        effects
    }

    /// The store has dealt with the verdict on the audit of a trial: it failed, unless it was made.
    pub fn on_audit_given_up(&mut self, sweep_number: i64, key: TrialKey, stored: bool, now: CoreTime) -> Vec<Effect> {
        let Some(sweep) = self.sweeps.get(&sweep_number).filter(|_| stored) else { return Vec::new() };
        let stands = sweep.audits.quarantine.is_given_up(sweep.spec.grid.locate_trial(key));
        self.record_findings(sweep_number, std::iter::once((key, Finding::Failed)));
        let mut effects = self.end_empty_leases();
        effects.extend(self.complete_if_done(sweep_number, now));
        if !stands {
            effects.push(Effect::RevertGiveUp(GiveUpReversal { sweep: sweep_number, key, is_audit: true }));
        }
        effects
    }

    /// A verdict could not be taken back: it is tried again on a later tick.
    pub fn on_give_up_reversal_failed(&mut self, withdrawal: GiveUpReversal) {
        self.unstored_reversals.push(withdrawal);
    }

    /// The verdict on a trial could not be stored: it is tried again on a later tick.
    pub fn on_give_up_failed(&mut self, verdict: GivenUpTrial) {
        self.unstored_give_ups.push(verdict);
    }

    /// A user pauses, resumes or cancels a sweep, or changes its share: what is to be stored first, if it is not so already.
    /// For a retry, whether there is something to be run again.
    ///
    /// # Errors
    /// The sweep's state does not allow it, in words.
    pub fn validate_steering(&self, sweep_number: i64, steering: Steering) -> Result<Option<SweepChange>, String> {
        let Some(sweep) = self.sweeps.get(&sweep_number) else { return Ok(None) };
        let refuse = |why: &str| Err(format!("the sweep {} {why}", sweep.id));
        if let Some(why) = sweep.withheld.as_ref().filter(|_| steering != Steering::Cancel) {
            return refuse(&format!("is only shown by this program: {why}"));
        }
        let change = match (steering, sweep.state) {
            (Steering::Pause | Steering::Resume | Steering::Share { .. }, SweepState::Completed) => {
                return refuse("is complete: nothing is left to run");
            }
            (Steering::Cancel, SweepState::Completed | SweepState::Cancelled) => return Ok(None),
            (_, SweepState::Cancelled) => return refuse("was cancelled: launch it again"),
            (Steering::Retry, _) if !sweep.has_failures() => return refuse("has no failed trial to be run again"),
            (Steering::Retry, _) => return Ok(None),
            (Steering::Pause, _) => SweepChange::State(SweepState::Paused),
            (Steering::Resume, _) => SweepChange::State(SweepState::Running),
            (Steering::Cancel, _) => SweepChange::State(SweepState::Cancelled),
            (Steering::Share { priority, weight }, _) => SweepChange::Share(sweep.share.with_updates(priority, weight)),
        };
        let so_already = change == SweepChange::State(sweep.state) || change == SweepChange::Share(sweep.share);
        Ok(Some(change).filter(|_| !so_already))
    }

    /// It is stored that a user steers a sweep.
    pub fn on_sweep_steered(&mut self, sweep_number: i64, change: SweepChange, now: CoreTime) -> Vec<Effect> {
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else { return Vec::new() };
        // Where it came to its end meanwhile, that was stored afterwards.
        if !sweep.state.is_open() {
            return Vec::new();
        }
        let mut effects = Vec::new();
        match change {
            SweepChange::Share(share) => self.change_share(sweep_number, share),
            SweepChange::State(state) => sweep.state = state,
        }
        if change == SweepChange::State(SweepState::Cancelled) {
            let of_sweep = self.leases.values().filter(|l| l.row.sweep == sweep_number);
            let fences: Vec<Fence> = of_sweep.map(|l| l.row.fence).collect();
            effects.extend(self.build_revocations(&fences));
            effects.extend(self.end_leases(&fences, false));
            effects.extend(self.discard_all_checkpoints(sweep_number));
        }
        effects.extend(self.assign_leases(now));
        effects
    }

    /// Whether a sweep may be removed.
    ///
    /// # Errors
    /// It has not ended, in words.
    pub fn validate_removal(&self, sweep_number: i64) -> Result<(), String> {
        match self.sweeps.get(&sweep_number) {
            Some(sweep) if sweep.state.is_open() => {
                let id = &sweep.id;
                Err(format!("the sweep {id} has not ended: `ergodic cancel {id}` first, or remove it with --force"))
            }
            _ => Ok(()),
        }
    }

    /// A sweep that had ended is no more. Should it have gone on meanwhile, what is leased of it counts for nothing.
    pub fn on_sweep_removed(&mut self, sweep_number: i64) -> Vec<Effect> {
        let of_sweep = self.leases.values().filter(|l| l.row.sweep == sweep_number);
        let fences: Vec<Fence> = of_sweep.map(|l| l.row.fence).collect();
        let mut effects = self.build_revocations(&fences);
        effects.extend(self.end_leases(&fences, false));
        self.unreadable.remove(&sweep_number);
        self.sweeps.remove(&sweep_number);
        self.unstored_give_ups.retain(|verdict| verdict.sweep != sweep_number);
        self.unstored_reversals.retain(|withdrawal| withdrawal.sweep != sweep_number);
        self.workers.values_mut().for_each(|worker| drop(worker.unable_sweeps.remove(&sweep_number)));
        effects
    }

    /// Those of these trials of a sweep that are to be run and have no row, as far as is known.
    fn filter_unfinished(&self, sweep: &Sweep, keys: impl Iterator<Item = TrialKey>) -> HashSet<TrialKey> {
        let of_sweep = self.leases.values().filter(|l| l.row.sweep == sweep.number && l.row.audits.is_none());
        let leased: HashSet<TrialIndex> =
            of_sweep.flat_map(|l| l.row.trials.iter().map(|n| (l.row.class, n))).collect();
        let is_unfinished = |key: &TrialKey| {
            let (class, n) = sweep.spec.grid.locate_trial(*key);
            let waits = sweep.classes[class as usize].pending.contains(n) || sweep.quarantine.is_waiting((class, n));
            waits || leased.contains(&(class, n))
        };
        keys.filter(|key| sweep.needs_trial(*key)).filter(is_unfinished).collect()
    }

    /// The rows of these failed trials are gone, and these failed audits are due again: they are run again, and so are
    /// audits for which no worker was there. What was never heard of is run in any case.
    pub fn on_trials_reopened(
        &mut self,
        sweep_number: i64,
        trials: &[TrialKey],
        audits: &[(TrialKey, WorkerId)],
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self.sweeps.get(&sweep_number) else { return Vec::new() };
        let strange = self.filter_unfinished(sweep, trials.iter().copied().chain(audits.iter().map(|(key, _)| *key)));
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else { return Vec::new() };
        trials.iter().filter(|key| !strange.contains(key)).for_each(|key| sweep.reopen_failed_trial(*key));
        for (key, origin) in audits.iter().filter(|(key, _)| !strange.contains(key)) {
            sweep.audits.reopen_failed_audit(sweep.spec.grid.locate_trial(*key), origin);
        }
        let mut effects = Vec::new();
        if sweep.state == SweepState::Completed {
            sweep.state = SweepState::Running;
            // Its end may have been on its way to the store behind what made it go on.
            effects.push(Effect::SetSweepState(sweep_number, SweepState::Running));
        }
        effects.extend(self.assign_leases(now));
        effects
    }

    /// Whether trials of a sweep may be run once more.
    ///
    /// # Errors
    /// It is only shown, or was cancelled or removed, in words.
    pub fn validate_redo(&self, sweep_number: i64) -> Result<(), String> {
        match self.sweeps.get(&sweep_number) {
            None => Err("the sweep was removed meanwhile".into()),
            Some(Sweep { id, withheld: Some(why), .. }) => {
                Err(format!("the sweep {id} is only shown by this program: {why}"))
            }
            Some(Sweep { id, state: SweepState::Cancelled, .. }) => {
                Err(format!("the sweep {id} was cancelled: launch it again"))
            }
            Some(_) => Ok(()),
        }
    }

    /// It is stored that trials are run once more, as audits that any process may make: files that their rows name are lost.
    pub fn on_trials_redone(
        &mut self,
        sweep_number: i64,
        trials: &[(TrialKey, Option<Option<Finding>>)],
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self.sweeps.get(&sweep_number).filter(|_| !trials.is_empty()) else { return Vec::new() };
        // The audit of a row that was never heard of is looked up with it.
        let strange = self.filter_unfinished(sweep, trials.iter().map(|(key, _)| *key));
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else { return Vec::new() };
        for (key, before) in trials.iter().filter(|(key, _)| !strange.contains(key)) {
            sweep.audits.redo_audit(sweep.spec.grid.locate_trial(*key), *before);
        }
        sweep.auditors_expected_until = now + self.timing.lease_ttl;
        self.on_trials_reopened(sweep_number, &[], &[], now)
    }

    /// Whether a sweep's file may be replaced by one with more repeats.
    ///
    /// # Errors
    /// It may not, in words.
    pub fn validate_extension(&self, sweep_number: i64, from: &SpecSource) -> Result<(), String> {
        match self.sweeps.get(&sweep_number) {
            Some(Sweep { id, withheld: Some(why), .. }) => {
                Err(format!("the sweep {id} is only shown by this program: {why}"))
            }
            Some(sweep) if sweep.state == SweepState::Cancelled => {
                let id = &sweep.id;
                Err(format!(
                    "the sweep {id} was cancelled: `ergodic extend {id} SPEC` makes a new one with its results"
                ))
            }
            Some(sweep) if sweep.record.source == *from => Ok(()),
            _ => Err("the sweep was changed or removed meanwhile: try again".into()),
        }
    }

    /// It is stored that a sweep has another file, which asks for more repeats of the same cells.
    pub fn on_sweep_extended(
        &mut self,
        sweep_number: i64,
        source: SpecSource,
        spec: Arc<Spec>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else { return Vec::new() };
        sweep.extend_repeats(source, spec);
        let mut effects = Vec::new();
        if sweep.state == SweepState::Completed && sweep.counts.done() < sweep.total_trials() {
            sweep.state = SweepState::Running;
            effects.push(Effect::SetSweepState(sweep_number, SweepState::Running));
        }
        effects.extend(self.complete_if_done(sweep_number, now));
        effects.extend(self.assign_leases(now));
        effects
    }

    /// Time passed: ends the leases of silent workers.
    pub fn on_tick(&mut self, now: CoreTime) -> Vec<Effect> {
        // A coordinator that was itself held up, with its machine or its disk, heard nobody: that time does not count.
        let held_up = now.saturating_sub(self.latest_time);
        if held_up > STALL_THRESHOLD {
            self.leases.values_mut().for_each(|lease| lease.expires_at += held_up);
        }
        self.latest_time = now;
        let mut expired: Vec<Fence> =
            self.leases.values().filter(|lease| lease.expires_at <= now).map(|lease| lease.row.fence).collect();
        expired.sort_unstable();
        let mut effects = self.build_revocations(&expired);
        // Whoever let a lease expire gets no other before it speaks up again.
        for fence in &expired {
            let holder = &self.leases[&fence.lease].row.worker;
            self.workers.entry(holder.clone()).and_modify(|worker| worker.requested_slots = None);
        }
        let verdicts = std::mem::take(&mut self.unstored_give_ups);
        effects.extend(verdicts.into_iter().filter(|verdict| self.is_still_given_up(verdict)).map(Effect::GiveUp));
        effects.extend(std::mem::take(&mut self.unstored_reversals).into_iter().map(Effect::RevertGiveUp));
        effects.extend(self.record_crashes(&expired));
        effects.extend(self.end_leases(&expired, true));
        let limit = 2 * self.timing.lease_ttl;
        let idle = |id: &WorkerId, w: &Worker, leases: &HashMap<u64, LeaseState>| {
            !w.connected && now.saturating_sub(w.last_seen_at) > limit && !leases.values().any(|l| l.row.worker == *id)
        };
        let leases = &self.leases;
        self.workers.retain(|id, worker| !idle(id, worker, leases));
        self.sweeps.values_mut().for_each(|sweep| sweep.completion_rate.count_trials(0, now));
        effects.extend(self.assign_leases(now));
        // Whoever might have made the last audits may have gone.
        let open: Vec<i64> = self.sweeps.values().filter(|s| s.state.is_open()).map(|s| s.number).collect();
        effects.extend(open.into_iter().flat_map(|sweep| self.complete_if_done(sweep, now)));
        effects
    }

    /// Whoever comes and goes under ever new names is not remembered for as long as others.
    fn forget_absent_workers(&mut self, joining: &str) {
        if self.workers.len() < MAX_KNOWN_WORKERS || self.workers.contains_key(joining) {
            return;
        }
        let holders: HashSet<&WorkerId> = self.leases.values().map(|lease| &lease.row.worker).collect();
        self.workers.retain(|id, worker| worker.connected || holders.contains(id));
    }

    // --- leases ---

    /// Whether a worker holds this lease.
    pub fn holds_lease(&self, worker: &str, fence: Fence) -> bool {
        self.leases.get(&fence.lease).is_some_and(|l| l.row.fence == fence && l.row.worker == worker)
    }

    fn worker_fences(&self, worker: &str, pick: impl Fn(Fence) -> bool) -> Vec<Fence> {
        let of_worker = self.leases.values().filter(|l| l.row.worker == worker && pick(l.row.fence));
        let mut fences: Vec<Fence> = of_worker.map(|l| l.row.fence).collect();
        fences.sort_unstable();
        fences
    }

    fn renew_leases(&mut self, worker: &str, held: &[Fence], now: CoreTime) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.last_seen_at = now;
        }
        let expires = now + self.timing.lease_ttl;
        let held = self.leases.values_mut().filter(|l| l.row.worker == worker && held.contains(&l.row.fence));
        held.for_each(|l| l.expires_at = expires);
    }

    fn build_revocations(&self, fences: &[Fence]) -> Vec<Effect> {
        let mut by_worker: BTreeMap<WorkerId, Vec<Fence>> = BTreeMap::new();
        for fence in fences {
            by_worker.entry(self.leases[&fence.lease].row.worker.clone()).or_default().push(*fence);
        }
        by_worker.into_iter().map(|(worker, fences)| Effect::RevokeLeases(worker, fences)).collect()
    }

    /// Leases ran out, given in the order in which they were granted. Where their worker died, perhaps of a trial.
    fn record_crashes(&mut self, expired: &[Fence]) -> Vec<Effect> {
        let mut by_worker: BTreeMap<WorkerId, Vec<Fence>> = BTreeMap::new();
        for fence in expired {
            by_worker.entry(self.leases[&fence.lease].row.worker.clone()).or_default().push(*fence);
        }
        let mut effects = Vec::new();
        for (id, fences) in by_worker {
            let Some(worker) = self.workers.get(&id).filter(|worker| worker.session_broke_off && !worker.connected)
            else {
                continue;
            };
            let name = worker.name.clone();
            for (number, place, audit) in self.find_trials_in_flight(worker, &fences) {
                let sweep = self.sweeps.get_mut(&number).expect("a lease's sweep is kept as long as the lease");
                let suspects = if audit { &mut sweep.audits.quarantine } else { &mut sweep.quarantine };
                let Some(killed) = suspects.record_crash((&id, &name), place) else { continue };
                let cause = format!("{} workers died with it in flight: {}", killed.len(), killed.join(", "));
                let (key, metrics) =
                    (sweep.spec.grid.class_trial_at(place.0, place.1), sweep.spec.measure.metrics.len());
                effects.push(Effect::GiveUp(GivenUpTrial {
                    sweep: number,
                    key,
                    cause,
                    metric_count: metrics,
                    is_audit: audit,
                }));
            }
        }
        effects
    }

    /// Which trials of these leases a worker was running, by sweep: those that it last said, and where these are fewer
    /// than its slots, the next ones in the order in which it runs them. If it has said none, results that it had not
    /// delivered stand in between. With each, whether it was an audit.
    fn find_trials_in_flight(&self, worker: &Worker, fences: &[Fence]) -> Vec<(i64, TrialIndex, bool)> {
        let rows: Vec<&LeaseRow> = fences.iter().map(|fence| &self.leases[&fence.lease].row).collect();
        let mut blamed = Vec::new();
        for row in &rows {
            let spec = &self.sweeps[&row.sweep].spec;
            let said = worker.running.iter().filter(|(lease, key)| *lease == row.fence.lease && spec.has_trial(*key));
            let places = said.map(|(_, key)| spec.grid.locate_trial(*key));
            let left = places.filter(|(class, n)| *class == row.class && row.trials.contains(*n));
            blamed.extend(left.map(|place| (row.sweep, place, row.audits.is_some())));
        }
        let slots = worker.slots as usize;
        let wanted = if blamed.is_empty() { slots + MAX_UNDELIVERED } else { slots.max(blamed.len()) };
        let of = |row: &LeaseRow, n| (row.sweep, (row.class, n), row.audits.is_some());
        let next = rows.iter().flat_map(|row| row.trials.iter().map(|n| of(row, n)));
        for trial in next.take(wanted) {
            if blamed.len() < wanted && !blamed.contains(&trial) {
                blamed.push(trial);
            }
        }
        blamed
    }

    /// Whether a verdict that waits still stands: nobody who was blamed has come back.
    fn is_still_given_up(&self, verdict: &GivenUpTrial) -> bool {
        let Some(sweep) = self.sweeps.get(&verdict.sweep) else { return false };
        let suspects = if verdict.is_audit { &sweep.audits.quarantine } else { &sweep.quarantine };
        suspects.is_given_up(sweep.spec.grid.locate_trial(verdict.key))
    }

    /// A worker is there after all: it did not die.
    fn clear_worker(&mut self, worker: &str) {
        for sweep in self.sweeps.values_mut() {
            for (class, n) in sweep.quarantine.clear_worker(worker) {
                let back = IntervalSet::from_range(n, n + 1);
                sweep.classes[class as usize].pending.insert_all(&back);
                sweep.reopen_cells(class, &back);
            }
            sweep.audits.clear_worker(worker);
        }
    }

    /// Puts what is left of leases back; `lost` ones count as re-leases.
    fn end_leases(&mut self, fences: &[Fence], lost: bool) -> Vec<Effect> {
        let mut ended = Vec::new();
        for fence in fences {
            let Some(lease) = self.leases.remove(&fence.lease) else { continue };
            self.refund_lease(&lease);
            let lost = lost && !lease.row.trials.is_empty();
            ended.push(EndedLease { fence: *fence, lost });
            let sweep = self.sweeps.get_mut(&lease.row.sweep).expect("a lease's sweep is kept as long as the lease");
            let left = lease.row.trials.clone();
            sweep.take_back_trials(&lease.row, left);
            sweep.tallies.releases += u64::from(lost);
        }
        if ended.is_empty() { Vec::new() } else { vec![Effect::EndLeases(ended)] }
    }

    /// Audits were made: takes them from wherever they are.
    fn record_findings(&mut self, sweep_number: i64, audited: impl Iterator<Item = (TrialKey, Finding)>) {
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else { return };
        for (key, finding) in audited {
            let (class, n) = sweep.spec.grid.locate_trial(key);
            let of_class = |lease: &&mut LeaseState| lease.row.sweep == sweep_number && lease.row.class == class;
            let mut leases = self.leases.values_mut().filter(of_class).filter(|lease| lease.row.audits.is_some());
            sweep.audits.leased -= u64::from(leases.any(|lease| lease.row.trials.remove(n)));
            sweep.audits.record_finding((class, n), finding);
        }
    }

    /// Takes trials that have a row out of whichever lease is to yield it, and ends leases that are thereby empty.
    fn remove_from_leases(&mut self, sweep_number: i64, fence: Fence, trials: &[(u32, u64)]) -> Vec<Effect> {
        let sweep = self.sweeps.get_mut(&sweep_number).expect("the caller has looked it up");
        let mut left: Vec<(u32, u64)> = Vec::new();
        let yields = |lease: &&mut LeaseState| lease.row.audits.is_none();
        if let Some(lease) = self.leases.get_mut(&fence.lease).filter(|l| l.row.fence == fence).filter(yields) {
            for (class, n) in trials {
                match lease.row.class == *class && lease.row.trials.remove(*n) {
                    true => sweep.leased -= 1,
                    false => left.push((*class, *n)),
                }
            }
        } else {
            left.extend(trials);
        }
        for (class, n) in left {
            let holders = self.leases.values_mut().filter(|l| l.row.sweep == sweep_number && l.row.class == class);
            for lease in holders.filter(yields) {
                sweep.leased -= u64::from(lease.row.trials.remove(n));
            }
        }
        self.end_empty_leases()
    }

    fn end_empty_leases(&mut self) -> Vec<Effect> {
        let done = self.leases.values().filter(|l| l.row.trials.is_empty()).map(|l| l.row.fence).collect::<Vec<_>>();
        self.end_leases(&done, false)
    }

    fn complete_if_done(&mut self, sweep_number: i64, now: CoreTime) -> Vec<Effect> {
        let sweep = &self.sweeps[&sweep_number];
        let goes_on = sweep.counts.done() < sweep.total_trials() || self.has_possible_audits(sweep, now);
        if !sweep.state.is_open() || sweep.withheld.is_some() || goes_on {
            return Vec::new();
        }
        self.sweeps.entry(sweep_number).and_modify(|sweep| sweep.state = SweepState::Completed);
        vec![Effect::SetSweepState(sweep_number, SweepState::Completed)]
    }

    /// Whether an audit is left that somebody makes, or that a worker could make which is there or may yet come back.
    fn has_possible_audits(&self, sweep: &Sweep, now: CoreTime) -> bool {
        let audits = &sweep.audits;
        if audits.counts.remaining() == 0 {
            return false;
        }
        // Of one that was given up, the failure is yet to be stored.
        let given_up = audits.quarantine.waiting_count() > 0 && audits.quarantine.next_trial().is_none();
        let there =
            |worker: &Worker| worker.connected || now.saturating_sub(worker.last_seen_at) <= self.timing.lease_ttl;
        let could = |origin: &WorkerId| {
            let mut others = self.workers.iter().filter(|(id, worker)| *id != origin && there(worker));
            others.any(|(_, worker)| worker.is_able_to_run(sweep, now))
        };
        audits.leased > 0 || given_up || now < sweep.auditors_expected_until || audits.waiting_origins().any(could)
    }
}

/// Of whatever is under no lease: these are numbered from 1 on.
const NO_LEASE: Fence = Fence { lease: 0, epoch: 0 };
/// Results that a worker may have finished and not delivered when it dies.
const MAX_UNDELIVERED: usize = 64;
/// Workers that are remembered: twice as many as may have sessions.
const MAX_KNOWN_WORKERS: usize = 16_384;
/// A tick this late means that the coordinator itself was held up.
const STALL_THRESHOLD: Duration = Duration::from_secs(1);

/// Whether a batch may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Under this sweep.
    Store {
        /// Number of the sweep.
        sweep: i64,
    },
    /// As audits of trials of this sweep, which have their rows.
    Audit {
        /// Number of the sweep.
        sweep: i64,
    },
    /// The fence holds no more: only compare.
    Compare,
}
