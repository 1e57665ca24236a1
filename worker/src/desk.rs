//! What lies on a worker's desk: trials granted and not begun, trials running, results not yet acknowledged.
//!
//! Results wait in memory, those that a spool keeps beyond what memory may hold as their places there.
//!
//! Plain decisions over a state, without threads, IO or a clock; `slots` and
//! `session` share one behind a lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ergodic_common::TrialKey;

use crate::sweeps::Sweep;
use crate::train::Finished;

/// A lease's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// The lease.
    pub lease: u64,
    /// The epoch it was granted in.
    pub epoch: u64,
}

/// Time since the worker started.
pub type Now = Duration;

/// Results that wait for delivery may take this much memory; beyond it, no trial is begun.
const OUTBOX_BYTES: usize = 64 << 20;
/// Most results delivered at once.
const BATCH: usize = 1024;
/// Most bytes delivered at once.
const BATCH_BYTES: usize = 2 << 20;
/// Results that are worth a delivery before they are a second old.
const WORTHWHILE: usize = 32;
/// The same in bytes.
const WORTHWHILE_BYTES: usize = 256 << 10;
/// More work is asked for when what is queued lasts less than this, in seconds.
const AHEAD_SECONDS: f64 = 1.0;

/// A trial for a slot.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The lease it is run under.
    pub fence: Fence,
    /// Which trial.
    pub key: TrialKey,
    /// Its sweep.
    pub sweep: Arc<Sweep>,
    /// Raised when it is not to be finished.
    pub stop: Arc<AtomicBool>,
    /// How long it may take.
    pub limit: Option<Duration>,
    /// Whether the coordinator keeps a checkpoint of it.
    pub kept: bool,
}

impl Assignment {
    /// Whether it is not to be finished.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Results of one lease on their way to the coordinator.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// Names the parcel.
    pub number: u64,
    /// Their lease.
    pub fence: Fence,
    /// Their sweep's id.
    pub sweep: String,
    /// The results.
    pub results: Vec<Finished>,
    /// Where more of them lie in the spool.
    pub spooled: Vec<Place>,
}

impl Parcel {
    /// Trials whose results it holds.
    pub fn keys(&self) -> Vec<TrialKey> {
        let here = self.results.iter().map(|finished| finished.result.key);
        here.chain(self.spooled.iter().map(|place| place.key)).collect()
    }
}

/// Where a result lies in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Of which trial.
    pub key: TrialKey,
    /// The segment's number.
    pub segment: u64,
    /// Its first byte there.
    pub offset: u64,
    /// How long it is.
    pub bytes: usize,
}

#[derive(Debug)]
enum Waiting {
    Here(Box<Finished>),
    Spooled(Place),
}

impl Waiting {
    /// Bytes on the wire, roughly.
    fn size(&self) -> usize {
        match self {
            Self::Here(finished) => finished.size(),
            Self::Spooled(place) => place.bytes,
        }
    }
}

#[derive(Debug)]
struct Lease {
    sweep: Arc<Sweep>,
    queued: VecDeque<TrialKey>,
    /// Trials that can go on from a checkpoint.
    kept: BTreeSet<TrialKey>,
    /// Whether the coordinator has taken it away.
    revoked: bool,
    /// Trials given back.
    yielded: Vec<TrialKey>,
    running: BTreeMap<TrialKey, Arc<AtomicBool>>,
    finished: Vec<Waiting>,
    /// Results in parcels.
    away: usize,
}

impl Lease {
    fn is_done(&self) -> bool {
        self.queued.is_empty() && self.running.is_empty() && self.finished.is_empty() && self.away == 0
    }
}

/// The desk.
#[derive(Debug, Default)]
pub struct Desk {
    slots: u32,
    leases: BTreeMap<Fence, Lease>,
    /// Moving average of a trial's duration.
    seconds: Option<f64>,
    outbox_bytes: usize,
    parcels: BTreeMap<u64, Away>,
    next_parcel: u64,
    closed: bool,
    /// What is known of the leases' renewal; nothing while there is no session.
    renewal: Option<Renewal>,
}

/// What is known of a parcel under way: bytes it takes of the memory for results, and its results.
#[derive(Debug, Default)]
struct Away {
    bytes: usize,
    results: usize,
}

#[derive(Debug)]
struct Renewal {
    /// A lease ends after this time without one.
    ttl: Duration,
    /// When the last one was heard of.
    heard: Now,
}

impl Desk {
    /// An empty desk for so many slots.
    pub fn new(slots: u32) -> Self {
        Self { slots, ..Self::default() }
    }

    /// A session was opened, in which a lease that is not renewed for so long ends.
    pub fn join(&mut self, ttl: Duration, now: Now) {
        self.renewal = Some(Renewal { ttl, heard: now });
    }

    /// The coordinator has renewed the leases.
    pub fn renew(&mut self, now: Now) {
        self.renewal.iter_mut().for_each(|renewal| renewal.heard = now);
    }

    /// The session was lost. Whoever is cut off goes on within the leases it holds.
    pub fn cut_off(&mut self) {
        self.renewal = None;
    }

    /// Whether leases have gone without renewal for two thirds of the time they live without: they may end soon, and what
    /// is begun now would be in vain.
    fn is_unsure(&self, now: Now) -> bool {
        self.renewal.as_ref().is_some_and(|renewal| 3 * now.saturating_sub(renewal.heard) >= 2 * renewal.ttl)
    }

    /// A lease was granted, some of whose trials can go on from a checkpoint.
    pub fn grant(&mut self, fence: Fence, sweep: Arc<Sweep>, trials: Vec<TrialKey>, kept: BTreeSet<TrialKey>) {
        let lease = Lease {
            sweep,
            queued: trials.into(),
            kept,
            revoked: false,
            yielded: Vec::new(),
            running: BTreeMap::new(),
            finished: Vec::new(),
            away: 0,
        };
        self.leases.insert(fence, lease);
    }

    /// A lease is no longer ours: forget its trials. Finished ones are still delivered, to be compared.
    pub fn revoke(&mut self, fence: Fence) {
        if let Some(lease) = self.leases.get_mut(&fence) {
            lease.revoked = true;
            lease.queued.clear();
            lease.running.values().for_each(|stop| stop.store(true, Ordering::Relaxed));
        }
        self.clear_done();
    }

    /// Whether a lease is no longer ours.
    pub fn is_revoked(&self, fence: Fence) -> bool {
        self.leases.get(&fence).is_none_or(|lease| lease.revoked)
    }

    /// Gives back up to so many trials of a lease that are not begun, those that would be the last. All that were given
    /// back of it, so that a message that was lost does no harm.
    pub fn give_back(&mut self, fence: Fence, trials: u64) -> Vec<TrialKey> {
        let Some(lease) = self.leases.get_mut(&fence) else { return Vec::new() };
        let keep = lease.queued.len().saturating_sub(usize::try_from(trials).unwrap_or(usize::MAX));
        lease.yielded.extend(lease.queued.drain(keep..));
        let yielded = lease.yielded.clone();
        self.clear_done();
        yielded
    }

    /// The next trial to run, from the oldest lease; none while the outbox is full, the desk is closed or renewals are
    /// overdue.
    pub fn begin(&mut self, now: Now) -> Option<Assignment> {
        if self.closed || self.outbox_bytes >= OUTBOX_BYTES || self.is_unsure(now) {
            return None;
        }
        let (fence, lease) = self.leases.iter_mut().find(|(_, lease)| !lease.queued.is_empty())?;
        let key = lease.queued.pop_front()?;
        let stop = Arc::new(AtomicBool::new(false));
        lease.running.insert(key, stop.clone());
        let limit = lease.sweep.spec.scheduling.time_limit;
        let kept = lease.kept.contains(&key);
        Some(Assignment { fence: *fence, key, sweep: lease.sweep.clone(), stop, limit, kept })
    }

    /// A trial ended; `None` when it was stopped before its end.
    pub fn finish(&mut self, fence: Fence, key: TrialKey, finished: Option<Finished>) {
        self.finish_spooled(fence, key, finished, None);
    }

    /// The same with the result's place in the spool, where there is one: a result that has one needs no memory once that
    /// is full.
    pub fn finish_spooled(&mut self, fence: Fence, key: TrialKey, finished: Option<Finished>, place: Option<Place>) {
        let Some(lease) = self.leases.get_mut(&fence) else { return };
        lease.running.remove(&key);
        if let Some(finished) = finished {
            let (seconds, bytes) = (finished.result.seconds, finished.size());
            self.seconds = Some(self.seconds.map_or(seconds, |s| 0.9 * s + 0.1 * seconds));
            match place.filter(|_| self.outbox_bytes + bytes >= OUTBOX_BYTES) {
                Some(place) => lease.finished.push(Waiting::Spooled(place)),
                None => {
                    self.outbox_bytes += bytes;
                    lease.finished.push(Waiting::Here(Box::new(finished)));
                }
            }
        }
        self.clear_done();
    }

    /// Whether a lease's results are still wanted: what is finished under one that is not on the desk goes nowhere.
    pub fn holds(&self, fence: Fence) -> bool {
        self.leases.contains_key(&fence)
    }

    /// Results to deliver now: enough of them, or any when `all` is said or nothing else is going on.
    pub fn parcel(&mut self, all: bool) -> Option<Parcel> {
        let calm = self.running() == 0 && (self.closed || self.queued() == 0);
        let worth = |lease: &Lease| {
            let bytes: usize = lease.finished.iter().map(Waiting::size).sum();
            lease.finished.len() >= WORTHWHILE || bytes >= WORTHWHILE_BYTES
        };
        let ready = |lease: &Lease| {
            let last = lease.queued.is_empty() && lease.running.is_empty();
            !lease.finished.is_empty() && (all || calm || last || worth(lease))
        };
        let (fence, lease) = self.leases.iter_mut().find(|(_, lease)| ready(lease))?;
        let mut bytes = 0;
        let fits = |waiting: &Waiting| {
            bytes += waiting.size();
            bytes <= BATCH_BYTES
        };
        let count = lease.finished.iter().take(BATCH).map(fits).take_while(|fits| *fits).count().max(1);
        let (mut results, mut spooled) = (Vec::new(), Vec::new());
        for waiting in lease.finished.drain(..count) {
            match waiting {
                Waiting::Here(finished) => results.push(*finished),
                Waiting::Spooled(place) => spooled.push(place),
            }
        }
        lease.away += count;
        self.next_parcel += 1;
        let away = Away { bytes: results.iter().map(Finished::size).sum(), results: count };
        self.parcels.insert(self.next_parcel, away);
        Some(Parcel { number: self.next_parcel, fence: *fence, sweep: lease.sweep.id.clone(), results, spooled })
    }

    /// The coordinator has answered for a parcel: it is forgotten.
    pub fn acknowledge(&mut self, parcel: &Parcel) {
        let away = self.parcels.remove(&parcel.number).unwrap_or_default();
        self.outbox_bytes -= away.bytes;
        if let Some(lease) = self.leases.get_mut(&parcel.fence) {
            lease.away -= away.results;
        }
        self.clear_done();
    }

    /// Whether to ask for a lease, and for how many idle slots.
    pub fn wish(&self) -> Option<u32> {
        if self.closed || self.outbox_bytes >= OUTBOX_BYTES {
            return None;
        }
        let queued = self.queued();
        let idle = u64::from(self.slots).saturating_sub(self.running() + queued);
        let lasts = self.seconds.map(|s| queued as f64 * s / f64::from(self.slots));
        let short = self.seconds.is_some_and(|s| s < AHEAD_SECONDS) && lasts.is_some_and(|l| l < AHEAD_SECONDS);
        (idle > 0 || short).then_some(idle.max(1) as u32)
    }

    /// Begins no further trial and gives up those not begun.
    pub fn close(&mut self) {
        self.closed = true;
        self.leases.values_mut().for_each(|lease| lease.queued.clear());
        self.clear_done();
    }

    /// Stops running trials before their end.
    pub fn stop_running(&self) {
        let running = self.leases.values().flat_map(|lease| lease.running.values());
        running.for_each(|stop| stop.store(true, Ordering::Relaxed));
    }

    /// Whether the desk takes no more work.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether nothing is left on it.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Leases held.
    pub fn fences(&self) -> Vec<Fence> {
        self.leases.keys().copied().collect()
    }

    /// Trials running, with their leases.
    pub fn running_trials(&self) -> Vec<(Fence, TrialKey)> {
        let of = |(fence, lease): (&Fence, &Lease)| lease.running.keys().map(|key| (*fence, *key)).collect::<Vec<_>>();
        self.leases.iter().flat_map(of).collect()
    }

    /// Number of trials running.
    pub fn running(&self) -> u64 {
        self.leases.values().map(|lease| lease.running.len() as u64).sum()
    }

    /// Number of trials granted and not begun.
    pub fn queued(&self) -> u64 {
        self.leases.values().map(|lease| lease.queued.len() as u64).sum()
    }

    /// Number of results not acknowledged.
    pub fn unacknowledged(&self) -> u64 {
        self.leases.values().map(|lease| (lease.finished.len() + lease.away) as u64).sum()
    }

    fn clear_done(&mut self) {
        self.leases.retain(|_, lease| !lease.is_done());
    }
}

impl Finished {
    /// Memory that it takes, roughly what it takes on the wire.
    pub(crate) fn size(&self) -> usize {
        let Self { result, weights } = self;
        let numbers = result.metrics.len() + result.curve.steps.len() + result.curve.values.len();
        96 + 8 * numbers + result.predictions.classes.len() + weights.as_ref().map_or(0, Vec::len)
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::trial::{Curve, TrialResult};

    use super::*;

    const FENCE: Fence = Fence { lease: 1, epoch: 1 };

    fn keys(n: u32) -> Vec<TrialKey> {
        (0..n).map(|repeat| TrialKey { cell: 0, repeat }).collect()
    }

    fn result(key: TrialKey, seconds: f64, points: usize) -> Finished {
        let result = TrialResult {
            seconds,
            metrics: vec![0.5],
            curve: Curve { steps: vec![1; points], values: vec![0.5; points] },
            ..TrialResult::completed(key)
        };
        Finished { result, weights: None }
    }

    fn desk(trials: u32) -> Desk {
        let mut desk = Desk::new(2);
        desk.grant(FENCE, Arc::new(Sweep::for_tests()), keys(trials), BTreeSet::from([keys(2)[1]]));
        desk
    }

    fn run_one(desk: &mut Desk, seconds: f64, points: usize) {
        let a = desk.begin(Now::ZERO).expect("a trial waits");
        desk.finish(a.fence, a.key, Some(result(a.key, seconds, points)));
    }

    #[test]
    fn a_lease_leaves_the_desk_when_its_last_result_is_acknowledged() {
        let mut desk = desk(2);
        run_one(&mut desk, 5.0, 1);
        assert!(desk.parcel(false).is_none(), "one result of an unfinished lease is not worth a delivery");
        run_one(&mut desk, 5.0, 1);
        let parcel = desk.parcel(false).expect("the lease is finished");
        assert_eq!((parcel.results.len(), desk.unacknowledged(), desk.is_empty()), (2, 2, false));
        desk.acknowledge(&parcel);
        assert!(desk.is_empty() && desk.outbox_bytes == 0);
    }

    #[test]
    fn short_trials_are_asked_for_ahead_and_long_ones_when_a_slot_is_idle() {
        let mut desk = desk(4);
        run_one(&mut desk, 60.0, 1);
        assert_eq!(desk.wish(), None, "three long trials wait for two slots");
        let mut desk = self::desk(4);
        run_one(&mut desk, 0.001, 1);
        assert_eq!(desk.wish(), Some(1));
        assert_eq!(Desk::new(2).wish(), Some(2));
    }

    #[test]
    fn a_full_outbox_pauses_and_an_acknowledgement_resumes() {
        let mut desk = desk(1000);
        let mut runs = 0;
        while desk.outbox_bytes < OUTBOX_BYTES {
            run_one(&mut desk, 0.001, 50_000);
            runs += 1;
        }
        assert!(runs > 10 && desk.begin(Now::ZERO).is_none() && desk.wish().is_none());
        let parcel = desk.parcel(false).expect("plenty is ready");
        assert!(parcel.results.iter().map(Finished::size).sum::<usize>() <= BATCH_BYTES);
        desk.acknowledge(&parcel);
        assert!(desk.begin(Now::ZERO).is_some());
    }

    #[test]
    fn what_a_spool_keeps_takes_no_memory_once_that_is_full() {
        let mut desk = desk(1000);
        let mut runs = 0;
        while let Some(a) = desk.begin(Now::ZERO) {
            let place = Place { key: a.key, segment: 1, offset: 0, bytes: 1 << 20 };
            desk.finish_spooled(a.fence, a.key, Some(result(a.key, 0.001, 50_000)), Some(place));
            runs += 1;
        }
        assert_eq!((runs, desk.unacknowledged()), (1000, 1000));
        assert!((OUTBOX_BYTES - (1 << 20)..OUTBOX_BYTES).contains(&desk.outbox_bytes));
        let (mut here, mut spooled, mut keys) = (0, 0, BTreeSet::new());
        while let Some(parcel) = desk.parcel(false) {
            (here, spooled) = (here + parcel.results.len(), spooled + parcel.spooled.len());
            keys.extend(parcel.keys());
            desk.acknowledge(&parcel);
        }
        assert!(here > 10 && spooled > 10 && keys.len() == 1000 && desk.is_empty() && desk.outbox_bytes == 0);
    }

    #[test]
    fn a_worker_that_is_not_renewed_begins_nothing_until_it_is_and_one_that_is_cut_off_goes_on() {
        let (mut desk, s) = (desk(9), Duration::from_secs);
        desk.join(s(30), s(100));
        assert!(desk.begin(s(119)).is_some());
        assert!(desk.begin(s(120)).is_none());
        assert_eq!(desk.running(), 1, "what runs goes on");
        desk.renew(s(121));
        assert!(desk.begin(s(140)).is_some() && desk.begin(s(141)).is_none());
        desk.cut_off();
        assert!(desk.begin(s(1000)).is_some());
        desk.join(s(30), s(1001));
        assert!(desk.begin(s(1020)).is_some() && desk.begin(s(1021)).is_none());
    }

    #[test]
    fn what_is_not_begun_can_be_given_back_from_the_end() {
        let mut desk = desk(5);
        let running = desk.begin(Now::ZERO).expect("a trial waits");
        assert_eq!(desk.give_back(FENCE, 2), keys(5)[3..]);
        assert_eq!(desk.begin(Now::ZERO).map(|a| (a.key, a.kept)), Some((keys(5)[1], true)));
        assert!(!running.kept, "no checkpoint of it was granted");
        assert_eq!(desk.give_back(FENCE, 9), [keys(5)[3], keys(5)[4], keys(5)[2]]);
        assert!(desk.begin(Now::ZERO).is_none() && desk.running() == 2 && running.key == keys(5)[0]);
        assert!(desk.give_back(Fence { lease: 7, epoch: 1 }, 9).is_empty());
    }

    #[test]
    fn a_revoked_lease_stops_its_trials_and_still_delivers_what_is_finished() {
        let mut desk = desk(3);
        run_one(&mut desk, 5.0, 1);
        let running = desk.begin(Now::ZERO).expect("a trial waits");
        assert!(!desk.is_revoked(FENCE));
        desk.revoke(FENCE);
        assert!(desk.is_revoked(FENCE));
        assert!(running.stop.load(Ordering::Relaxed) && desk.queued() == 0);
        desk.finish(running.fence, running.key, None);
        let parcel = desk.parcel(false).expect("one result is left");
        desk.acknowledge(&parcel);
        assert!(desk.is_empty());
    }

    #[test]
    fn a_closed_desk_begins_nothing_and_delivers_the_rest() {
        let mut desk = desk(3);
        let running = desk.begin(Now::ZERO).expect("a trial waits");
        desk.close();
        assert!(desk.begin(Now::ZERO).is_none() && desk.wish().is_none() && desk.queued() == 0);
        desk.finish(running.fence, running.key, Some(result(running.key, 1.0, 1)));
        let parcel = desk.parcel(false).expect("the result is delivered");
        desk.acknowledge(&parcel);
        assert!(desk.is_empty());
    }
}
