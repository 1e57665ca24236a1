//! The work of a worker: trials granted and not begun, trials running, results not yet acknowledged.
//!
//! Results wait in memory. Once memory is full, results that are in the spool wait as references to it.
//!
//! The queue only decides: it uses no threads, IO or clock. `slots` and `session` share one behind a lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ergodic_common::TrialKey;
use ergodic_common::ids::Fence;
use ergodic_common::program::needs::TrialNeeds;

pub use crate::assignment::Assignment;
pub(crate) use crate::assignment::{GivenBackLease, TrialPlace};
use crate::link::sweeps::LoadedSweep;
use crate::program::tail::OutputTail;
use crate::result_batch::{ResultBatch, SpoolRef, UnacknowledgedBatch};
use crate::supply::{Supply, TakenShare};
use crate::train::FinishedTrial;

/// Time since the start of the worker.
pub type Uptime = Duration;

/// Maximum bytes of results in memory that wait for delivery. Beyond it, no trial begins.
const MAX_BUFFERED_BYTES: usize = 64 << 20;
/// Maximum number of results in one batch.
const MAX_BATCH_RESULTS: usize = 1024;
/// Maximum bytes of results in one batch.
const MAX_BATCH_BYTES: usize = 2 << 20;
/// Number of results that are sent at once, instead of waiting up to a second for more.
const MIN_BATCH_RESULTS: usize = 32;
/// Bytes of results that are sent at once, instead of waiting up to a second for more.
const MIN_BATCH_BYTES: usize = 256 << 10;
/// The worker requests more work when its queue will last less than this, in seconds.
const PREFETCH_SECONDS: f64 = 1.0;

#[derive(Debug)]
enum BufferedResult {
    Memory(Box<FinishedTrial>),
    Spool(SpoolRef),
}

impl BufferedResult {
    /// Approximate size on the wire, in bytes.
    fn wire_size(&self) -> usize {
        match self {
            Self::Memory(finished) => finished.wire_size(),
            Self::Spool(place) => place.bytes,
        }
    }
}

#[derive(Debug)]
struct HeldLease {
    sweep: Arc<LoadedSweep>,
    queued: VecDeque<TrialKey>,
    /// Trials of which the coordinator has a checkpoint.
    checkpointed: BTreeSet<TrialKey>,
    /// Whether the coordinator has revoked the lease.
    is_revoked: bool,
    /// Trials that were returned to the coordinator.
    retracted: Vec<TrialKey>,
    running: BTreeMap<TrialKey, RunningTrial>,
    finished: Vec<BufferedResult>,
    /// Number of results in batches that are not acknowledged.
    unacknowledged: usize,
}

/// A trial in a slot.
#[derive(Debug)]
struct RunningTrial {
    stop: Arc<AtomicBool>,
    share: TakenShare,
    output: OutputTail,
}

impl HeldLease {
    /// Number of slots that its trials which are not begun will take.
    fn queued_slots(&self) -> u64 {
        self.queued.len() as u64 * u64::from(self.sweep.spec.trial_needs().slots)
    }

    /// Whether to send the lease's results now: if there are enough of them, if no more will
    /// follow, or, with `any`, if there are any. Those of trials that need more than a slot are sent
    /// at once: the coordinator grants the next one when it knows that there is room for it.
    fn has_batch(&self, any: bool) -> bool {
        let is_last = self.queued.is_empty() && self.running.is_empty();
        let is_wide = self.sweep.spec.trial_needs() != TrialNeeds::ONE_SLOT;
        let bytes: usize = self.finished.iter().map(BufferedResult::wire_size).sum();
        let is_large = self.finished.len() >= MIN_BATCH_RESULTS || bytes >= MIN_BATCH_BYTES;
        !self.finished.is_empty() && (any || is_last || is_large || is_wide)
    }

    /// Number of results, from the first one, that fit into one batch; at least 1.
    fn batch_len(&self) -> usize {
        let mut bytes = 0;
        self.finished
            .iter()
            .take(MAX_BATCH_RESULTS)
            .take_while(|result| {
                bytes += result.wire_size();
                bytes <= MAX_BATCH_BYTES
            })
            .count()
            .max(1)
    }

    fn is_done(&self) -> bool {
        self.queued.is_empty()
            && self.running.is_empty()
            && self.finished.is_empty()
            && self.unacknowledged == 0
    }
}

/// The leases, trials and results of a worker.
#[derive(Debug, Default)]
pub struct WorkQueue {
    supply: Supply,
    leases: BTreeMap<Fence, HeldLease>,
    /// Moving average of the duration of a trial, in seconds.
    mean_trial_seconds: Option<f64>,
    buffered_bytes: usize,
    batches: BTreeMap<u64, UnacknowledgedBatch>,
    next_batch: u64,
    is_closed: bool,
    /// Leases to give back, each with the reason why this worker cannot run its trials.
    given_back: Vec<GivenBackLease>,
    /// The last renewal of the leases; `None` without a session.
    renewal: Option<LeaseRenewal>,
}

#[derive(Debug)]
struct LeaseRenewal {
    /// Time without a renewal after which a lease ends.
    ttl: Duration,
    /// Time of the last renewal.
    renewed_at: Uptime,
}

impl WorkQueue {
    /// Creates an empty queue for `slots` slots.
    pub fn new(slots: u32) -> Self {
        Self {
            supply: Supply::new(slots, None, Vec::new()),
            ..Self::default()
        }
    }

    /// Gives an idle worker its slots, memory and GPUs.
    pub(crate) fn set_supply(&mut self, supply: Supply) {
        self.supply = supply;
    }

    /// What the worker has, and what is free of it.
    pub(crate) fn supply(&self) -> &Supply {
        &self.supply
    }

    /// Starts to watch renewals in a new session, in which leases expire after `ttl` without one.
    pub fn start_renewal_watch(&mut self, ttl: Duration, now: Uptime) {
        self.renewal = Some(LeaseRenewal {
            ttl,
            renewed_at: now,
        });
    }

    /// Records that the coordinator has renewed the leases.
    pub fn renew_leases(&mut self, now: Uptime) {
        self.renewal
            .iter_mut()
            .for_each(|renewal| renewal.renewed_at = now);
    }

    /// Stops watching renewals, because the session was lost. The worker goes on with the leases
    /// that it holds.
    pub fn stop_renewal_watch(&mut self) {
        self.renewal = None;
    }

    /// Whether leases have gone without renewal for two thirds of their TTL. They may end soon, and
    /// a trial that begins now would be in vain.
    fn is_renewal_overdue(&self, now: Uptime) -> bool {
        self.renewal
            .as_ref()
            .is_some_and(|renewal| 3 * now.saturating_sub(renewal.renewed_at) >= 2 * renewal.ttl)
    }

    /// Adds a granted lease. The trials in `checkpointed` can resume from a checkpoint.
    pub fn add_lease(
        &mut self,
        fence: Fence,
        sweep: Arc<LoadedSweep>,
        trials: Vec<TrialKey>,
        kept: BTreeSet<TrialKey>,
    ) {
        let lease = HeldLease {
            sweep,
            queued: trials.into(),
            checkpointed: kept,
            is_revoked: false,
            retracted: Vec::new(),
            running: BTreeMap::new(),
            finished: Vec::new(),
            unacknowledged: 0,
        };

        self.leases.insert(fence, lease);
    }

    /// Drops or stops the trials of a lease that the coordinator has revoked. Finished results are
    /// still delivered, to be compared.
    pub fn revoke_lease(&mut self, fence: Fence) {
        if let Some(lease) = self.leases.get_mut(&fence) {
            lease.is_revoked = true;
            lease.queued.clear();
            lease
                .running
                .values()
                .for_each(|trial| trial.stop.store(true, Ordering::Relaxed));
        }

        self.drop_finished_leases();
    }

    /// Stops a lease whose trials this worker cannot run, and remembers to give it back. Results that are finished are still
    /// delivered, to be compared.
    pub fn give_back_lease(&mut self, fence: Fence, why: String) {
        let Some(lease) = self.leases.get(&fence).filter(|lease| !lease.is_revoked) else {
            return;
        };
        let sweep = lease.sweep.id.clone();
        self.given_back.push(GivenBackLease { fence, sweep, why });
        self.revoke_lease(fence);
    }

    /// Takes the leases that are to be given back.
    pub(crate) fn take_given_back(&mut self) -> Vec<GivenBackLease> {
        std::mem::take(&mut self.given_back)
    }

    /// Whether the coordinator has revoked the lease.
    pub fn is_lease_revoked(&self, fence: Fence) -> bool {
        self.leases.get(&fence).is_none_or(|lease| lease.is_revoked)
    }

    /// Returns up to `trials` trials of a lease that are not begun, the last ones first. The result
    /// lists all that were ever returned of this lease, so that a lost message does no harm.
    pub fn retract_trials(&mut self, fence: Fence, trials: u64) -> Vec<TrialKey> {
        let Some(lease) = self.leases.get_mut(&fence) else {
            return Vec::new();
        };
        let keep = lease
            .queued
            .len()
            .saturating_sub(usize::try_from(trials).unwrap_or(usize::MAX));
        lease.retracted.extend(lease.queued.drain(keep..));

        let retracted = lease.retracted.clone();
        self.drop_finished_leases();
        retracted
    }

    /// The next trial to run, from the oldest lease; none while memory for results is full, the queue is closed or renewals are
    /// overdue. A trial that needs more than is free waits for it, and later ones behind it: so wide trials get their turn.
    pub fn begin_trial(&mut self, now: Uptime) -> Option<Assignment> {
        if self.is_closed
            || self.buffered_bytes >= MAX_BUFFERED_BYTES
            || self.is_renewal_overdue(now)
        {
            return None;
        }

        let (fence, lease) = self
            .leases
            .iter_mut()
            .find(|(_, lease)| !lease.queued.is_empty())?;
        let share = self.supply.take_share(lease.sweep.spec.trial_needs())?;
        let key = lease.queued.pop_front()?;
        let stop = Arc::new(AtomicBool::new(false));
        let gpus = share.gpus.clone();
        let output = OutputTail::default();
        let running = RunningTrial {
            stop: stop.clone(),
            share,
            output: output.clone(),
        };
        lease.running.insert(key, running);

        let limit = lease.sweep.spec.scheduling.time_limit;
        let kept = lease.checkpointed.contains(&key);
        Some(Assignment {
            fence: *fence,
            key,
            sweep: lease.sweep.clone(),
            stop,
            time_limit: limit,
            has_checkpoint: kept,
            gpus,
            output,
        })
    }

    /// Records the end of a trial; `None` means that it was stopped before its end.
    pub fn finish_trial(&mut self, fence: Fence, key: TrialKey, finished: Option<FinishedTrial>) {
        self.finish_spooled_trial(fence, key, finished, None);
    }

    /// Records the end of a trial whose result is at `place` in the spool, if it is there. Once
    /// memory is full, such a result takes none.
    pub fn finish_spooled_trial(
        &mut self,
        fence: Fence,
        key: TrialKey,
        finished: Option<FinishedTrial>,
        place: Option<SpoolRef>,
    ) {
        let Some(lease) = self.leases.get_mut(&fence) else {
            return;
        };
        if let Some(ended) = lease.running.remove(&key) {
            self.supply.give_back(&ended.share);
        }

        if let Some(finished) = finished {
            let seconds = finished.result.seconds;
            let bytes = finished.wire_size();
            self.mean_trial_seconds = Some(
                self.mean_trial_seconds
                    .map_or(seconds, |s| 0.9 * s + 0.1 * seconds),
            );

            match place.filter(|_| self.buffered_bytes + bytes >= MAX_BUFFERED_BYTES) {
                Some(place) => lease.finished.push(BufferedResult::Spool(place)),
                None => {
                    self.buffered_bytes += bytes;
                    lease
                        .finished
                        .push(BufferedResult::Memory(Box::new(finished)));
                }
            }
        }

        self.drop_finished_leases();
    }

    /// Whether the lease is held. Results of other leases are dropped.
    pub fn holds_lease(&self, fence: Fence) -> bool {
        self.leases.contains_key(&fence)
    }

    /// Takes a batch of results to deliver now: if there are enough of them, or any if `all` is set
    /// or nothing else is going on.
    pub fn take_batch(&mut self, all: bool) -> Option<ResultBatch> {
        let is_quiet = self.running_count() == 0 && (self.is_closed || self.queued_count() == 0);
        let (fence, lease) = self
            .leases
            .iter_mut()
            .find(|(_, lease)| lease.has_batch(all || is_quiet))?;
        let count = lease.batch_len();
        let mut results = Vec::new();
        let mut spooled = Vec::new();

        for waiting in lease.finished.drain(..count) {
            match waiting {
                BufferedResult::Memory(finished) => results.push(*finished),
                BufferedResult::Spool(place) => spooled.push(place),
            }
        }

        lease.unacknowledged += count;
        self.next_batch += 1;
        let away = UnacknowledgedBatch {
            bytes: results.iter().map(FinishedTrial::wire_size).sum(),
            results: count,
        };
        self.batches.insert(self.next_batch, away);

        Some(ResultBatch {
            number: self.next_batch,
            fence: *fence,
            sweep: lease.sweep.id.clone(),
            results,
            spooled,
        })
    }

    /// Forgets a batch that the coordinator has answered for.
    pub fn acknowledge_batch(&mut self, batch: &ResultBatch) {
        let away = self.batches.remove(&batch.number).unwrap_or_default();
        self.buffered_bytes -= away.bytes;
        if let Some(lease) = self.leases.get_mut(&batch.fence) {
            lease.unacknowledged -= away.results;
        }
        self.drop_finished_leases();
    }

    /// Number of idle slots to request a lease for; `None` if no lease should be requested.
    pub fn slots_to_request(&self) -> Option<u32> {
        if self.is_closed || self.buffered_bytes >= MAX_BUFFERED_BYTES {
            return None;
        }

        let queued: u64 = self.leases.values().map(HeldLease::queued_slots).sum();
        let idle = u64::from(self.supply.free_slots()).saturating_sub(queued);
        let lasts = self
            .mean_trial_seconds
            .map(|s| queued as f64 * s / f64::from(self.supply.slots()));
        let short = self
            .mean_trial_seconds
            .is_some_and(|s| s < PREFETCH_SECONDS)
            && lasts.is_some_and(|l| l < PREFETCH_SECONDS);

        (idle > 0 || short).then_some(idle.max(1) as u32)
    }

    /// Begins no further trial and drops those that have not begun.
    pub fn close(&mut self) {
        self.is_closed = true;
        self.leases
            .values_mut()
            .for_each(|lease| lease.queued.clear());
        self.drop_finished_leases();
    }

    /// Stops running trials before their end.
    pub fn stop_running_trials(&self) {
        let running = self
            .leases
            .values()
            .flat_map(|lease| lease.running.values());
        running.for_each(|trial| trial.stop.store(true, Ordering::Relaxed));
    }

    /// Whether the queue takes no more work.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether no lease is left.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// The fences of all leases that are held.
    pub fn held_fences(&self) -> Vec<Fence> {
        self.leases.keys().copied().collect()
    }

    /// The running trials, each with its lease.
    pub fn running_trials(&self) -> Vec<(Fence, TrialKey)> {
        self.leases
            .iter()
            .flat_map(|(fence, lease)| lease.running.keys().map(|key| (*fence, *key)))
            .collect()
    }

    /// Where the trial of a lease is.
    pub(crate) fn find_trial(&self, fence: Fence, key: TrialKey) -> TrialPlace {
        let lease = self.leases.get(&fence);
        match lease.and_then(|lease| lease.running.get(&key)) {
            Some(running) => TrialPlace::Running(running.output.clone()),
            None if lease.is_some_and(|lease| lease.queued.contains(&key)) => TrialPlace::Queued,
            None => TrialPlace::Gone,
        }
    }

    /// Number of trials running.
    pub fn running_count(&self) -> u64 {
        self.leases
            .values()
            .map(|lease| lease.running.len() as u64)
            .sum()
    }

    /// Number of trials granted and not begun.
    pub fn queued_count(&self) -> u64 {
        self.leases
            .values()
            .map(|lease| lease.queued.len() as u64)
            .sum()
    }

    /// Number of results not acknowledged.
    pub fn unacknowledged_count(&self) -> u64 {
        self.leases
            .values()
            .map(|lease| (lease.finished.len() + lease.unacknowledged) as u64)
            .sum()
    }

    fn drop_finished_leases(&mut self) {
        self.leases.retain(|_, lease| !lease.is_done());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ergodic_common::Spec;
    use ergodic_common::ids::{Epoch, LeaseId};
    use ergodic_common::spec::SpecSource;
    use ergodic_common::trial::{MetricCurve, TrialResult};

    use crate::work_queue::*;

    const FENCE: Fence = Fence {
        lease: LeaseId(1),
        epoch: Epoch(1),
    };

    fn keys(n: u32) -> Vec<TrialKey> {
        (0..n).map(|repeat| TrialKey::new(0, repeat)).collect()
    }

    fn result(key: TrialKey, seconds: f64, points: usize) -> FinishedTrial {
        let result = TrialResult {
            seconds,
            metrics: vec![0.5],
            curve: MetricCurve {
                steps: vec![1; points],
                values: vec![0.5; points],
            },
            ..TrialResult::completed(key)
        };

        FinishedTrial {
            result,
            weights: None,
        }
    }

    fn queue_with_trials(trials: u32) -> WorkQueue {
        let mut queue = WorkQueue::new(2);
        queue.add_lease(
            FENCE,
            Arc::new(LoadedSweep::for_tests()),
            keys(trials),
            BTreeSet::from([keys(2)[1]]),
        );
        queue
    }

    fn run_one(queue: &mut WorkQueue, seconds: f64, points: usize) {
        let a = queue.begin_trial(Uptime::ZERO).expect("a trial waits");
        queue.finish_trial(a.fence, a.key, Some(result(a.key, seconds, points)));
    }

    #[test]
    fn a_lease_leaves_the_desk_when_its_last_result_is_acknowledged() {
        let mut queue = queue_with_trials(2);
        run_one(&mut queue, 5.0, 1);
        assert!(
            queue.take_batch(false).is_none(),
            "one result of an unfinished lease is not worth a delivery"
        );

        run_one(&mut queue, 5.0, 1);
        let batch = queue.take_batch(false).expect("the lease is finished");
        assert_eq!(
            (
                batch.results.len(),
                queue.unacknowledged_count(),
                queue.is_empty()
            ),
            (2, 2, false)
        );

        queue.acknowledge_batch(&batch);
        assert!(queue.is_empty() && queue.buffered_bytes == 0);
    }

    #[test]
    fn a_lease_that_cannot_be_run_is_given_back_once_with_the_reason() {
        let mut queue = queue_with_trials(3);
        let first = queue.begin_trial(Uptime::ZERO).expect("a trial waits");
        let second = queue.begin_trial(Uptime::ZERO).expect("a trial waits");

        queue.give_back_lease(FENCE, "no space".into());
        queue.give_back_lease(FENCE, "no space either".into());
        assert!(second.is_stopped() && queue.queued_count() == 0);
        let expected = GivenBackLease {
            fence: FENCE,
            sweep: "t".into(),
            why: "no space".into(),
        };
        assert_eq!(queue.take_given_back(), [expected]);
        assert_eq!(queue.take_given_back(), []);

        for trial in [first, second] {
            queue.finish_trial(FENCE, trial.key, None);
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn short_trials_are_asked_for_ahead_and_long_ones_when_a_slot_is_idle() {
        let mut queue = queue_with_trials(4);
        run_one(&mut queue, 60.0, 1);
        assert_eq!(
            queue.slots_to_request(),
            None,
            "three long trials wait for two slots"
        );

        let mut queue = self::queue_with_trials(4);
        run_one(&mut queue, 0.001, 1);
        assert_eq!(queue.slots_to_request(), Some(1));
        assert_eq!(WorkQueue::new(2).slots_to_request(), Some(2));
    }

    /// A sweep of programs whose trials take so many slots.
    pub(crate) fn wide_sweep(slots: u32) -> Arc<LoadedSweep> {
        let text = format!(
            "name = \"t\"\n[program]\ncommand = [\"true\"]\nmetrics = {{ loss = \"min\" }}\nslots = {slots}\n"
        );
        let source = SpecSource {
            text,
            ..SpecSource::default()
        };
        let mut sweep = LoadedSweep::for_tests();
        sweep.spec = Spec::read_stored(&source).expect("a valid sweep");
        Arc::new(sweep)
    }

    #[test]
    fn a_wide_trial_gets_its_turn_before_later_narrow_ones() {
        let mut queue = queue_with_trials(2);
        let narrow = queue.begin_trial(Uptime::ZERO).expect("a slot is free");
        let other = queue.begin_trial(Uptime::ZERO).expect("a slot is free");
        let fence = |lease| Fence {
            lease: LeaseId(lease),
            ..FENCE
        };
        queue.add_lease(fence(2), wide_sweep(2), keys(2), BTreeSet::new());
        queue.add_lease(fence(3), wide_sweep(1), keys(9), BTreeSet::new());

        queue.finish_trial(FENCE, narrow.key, None);
        assert!(
            queue.begin_trial(Uptime::ZERO).is_none(),
            "one slot is free"
        );
        queue.finish_trial(FENCE, other.key, None);
        let wide = queue.begin_trial(Uptime::ZERO).expect("both are free");
        assert_eq!(wide.fence, fence(2));
        assert!(queue.begin_trial(Uptime::ZERO).is_none());
        queue.finish_trial(wide.fence, wide.key, None);
        let wide = queue.begin_trial(Uptime::ZERO).expect("both are free");
        queue.finish_trial(wide.fence, wide.key, None);
        let fences = [(); 2].map(|()| queue.begin_trial(Uptime::ZERO).map(|a| a.fence));
        assert_eq!(fences, [Some(fence(3)); 2]);
    }

    #[test]
    fn the_end_of_a_wide_trial_is_told_at_once() {
        let mut queue = WorkQueue::new(4);
        queue.add_lease(FENCE, wide_sweep(2), keys(3), BTreeSet::new());
        run_one(&mut queue, 5.0, 1);
        let batch = queue.take_batch(false).expect("a result to deliver");
        assert_eq!((batch.results.len(), queue.queued_count()), (1, 2));
    }

    #[test]
    fn slots_that_queued_trials_will_take_are_not_idle() {
        let mut queue = WorkQueue::new(8);
        queue.add_lease(FENCE, wide_sweep(3), keys(2), BTreeSet::new());
        assert_eq!(queue.slots_to_request(), Some(2));
        let _first = queue.begin_trial(Uptime::ZERO).expect("slots are free");
        assert_eq!(queue.slots_to_request(), Some(2));
    }

    #[test]
    fn full_memory_pauses_and_an_acknowledgement_resumes() {
        let mut queue = queue_with_trials(1000);
        let mut runs = 0;

        while queue.buffered_bytes < MAX_BUFFERED_BYTES {
            run_one(&mut queue, 0.001, 50_000);
            runs += 1;
        }

        assert!(
            runs > 10
                && queue.begin_trial(Uptime::ZERO).is_none()
                && queue.slots_to_request().is_none()
        );
        let batch = queue.take_batch(false).expect("plenty is ready");
        assert!(
            batch
                .results
                .iter()
                .map(FinishedTrial::wire_size)
                .sum::<usize>()
                <= MAX_BATCH_BYTES
        );

        queue.acknowledge_batch(&batch);
        assert!(queue.begin_trial(Uptime::ZERO).is_some());
    }

    #[test]
    fn what_a_spool_keeps_takes_no_memory_once_that_is_full() {
        let mut queue = queue_with_trials(1000);
        let mut runs = 0;

        while let Some(a) = queue.begin_trial(Uptime::ZERO) {
            let place = SpoolRef {
                key: a.key,
                segment: 1,
                offset: 0,
                bytes: 1 << 20,
            };
            queue.finish_spooled_trial(
                a.fence,
                a.key,
                Some(result(a.key, 0.001, 50_000)),
                Some(place),
            );

            runs += 1;
        }

        assert_eq!((runs, queue.unacknowledged_count()), (1000, 1000));
        assert!(
            (MAX_BUFFERED_BYTES - (1 << 20)..MAX_BUFFERED_BYTES).contains(&queue.buffered_bytes)
        );
        let mut here = 0;
        let mut spooled = 0;
        let mut keys = BTreeSet::new();

        while let Some(batch) = queue.take_batch(false) {
            (here, spooled) = (here + batch.results.len(), spooled + batch.spooled.len());
            keys.extend(batch.trial_keys());
            queue.acknowledge_batch(&batch);
        }

        assert!(
            here > 10
                && spooled > 10
                && keys.len() == 1000
                && queue.is_empty()
                && queue.buffered_bytes == 0
        );
    }

    #[test]
    fn a_worker_that_is_not_renewed_begins_nothing_until_it_is_and_one_that_is_cut_off_goes_on() {
        let mut queue = queue_with_trials(9);
        queue.set_supply(Supply::new(9, None, Vec::new()));
        let s = Duration::from_secs;
        queue.start_renewal_watch(s(30), s(100));
        assert!(queue.begin_trial(s(119)).is_some());
        assert!(queue.begin_trial(s(120)).is_none());
        assert_eq!(queue.running_count(), 1, "what runs goes on");

        queue.renew_leases(s(121));
        assert!(queue.begin_trial(s(140)).is_some() && queue.begin_trial(s(141)).is_none());
        queue.stop_renewal_watch();
        assert!(queue.begin_trial(s(1000)).is_some());
        queue.start_renewal_watch(s(30), s(1001));

        assert!(queue.begin_trial(s(1020)).is_some() && queue.begin_trial(s(1021)).is_none());
    }

    #[test]
    fn what_is_not_begun_can_be_given_back_from_the_end() {
        let mut queue = queue_with_trials(5);
        let running = queue.begin_trial(Uptime::ZERO).expect("a trial waits");
        assert_eq!(queue.retract_trials(FENCE, 2), keys(5)[3..]);
        assert_eq!(
            queue
                .begin_trial(Uptime::ZERO)
                .map(|a| (a.key, a.has_checkpoint)),
            Some((keys(5)[1], true))
        );

        assert!(!running.has_checkpoint, "no checkpoint of it was granted");
        assert_eq!(
            queue.retract_trials(FENCE, 9),
            [keys(5)[3], keys(5)[4], keys(5)[2]]
        );
        assert!(
            queue.begin_trial(Uptime::ZERO).is_none()
                && queue.running_count() == 2
                && running.key == keys(5)[0]
        );

        assert!(
            queue
                .retract_trials(
                    Fence {
                        lease: LeaseId(7),
                        epoch: Epoch(1)
                    },
                    9
                )
                .is_empty()
        );
    }

    #[test]
    fn a_revoked_lease_stops_its_trials_and_still_delivers_what_is_finished() {
        let mut queue = queue_with_trials(3);
        run_one(&mut queue, 5.0, 1);
        let running = queue.begin_trial(Uptime::ZERO).expect("a trial waits");
        assert!(!queue.is_lease_revoked(FENCE));
        queue.revoke_lease(FENCE);
        assert!(queue.is_lease_revoked(FENCE));

        assert!(running.stop.load(Ordering::Relaxed) && queue.queued_count() == 0);
        queue.finish_trial(running.fence, running.key, None);
        let batch = queue.take_batch(false).expect("one result is left");
        queue.acknowledge_batch(&batch);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_closed_desk_begins_nothing_and_delivers_the_rest() {
        let mut queue = queue_with_trials(3);
        let running = queue.begin_trial(Uptime::ZERO).expect("a trial waits");
        queue.close();
        assert!(
            queue.begin_trial(Uptime::ZERO).is_none()
                && queue.slots_to_request().is_none()
                && queue.queued_count() == 0
        );

        queue.finish_trial(
            running.fence,
            running.key,
            Some(result(running.key, 1.0, 1)),
        );
        let batch = queue.take_batch(false).expect("the result is delivered");
        queue.acknowledge_batch(&batch);

        assert!(queue.is_empty());
    }
}
