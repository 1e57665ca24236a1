//! Audits: chosen trials are run a second time, by another worker process than the one that computed their row, and
//! compared with it.
//!
//! A lot decides which ([`Spec::audits`](ergodic_common::Spec::audits)). When such a trial gets its row, its audit is
//! *due*; it waits for a process that is not the row's, and for all fresh trials of its sweep. An audit stores no row. What
//! the store found settles it, whoever delivered the result and under whatever lease, as long as it was another process.
//! One that workers die of is run alone and given up like any trial ([`Suspects`]); the row stays.

use std::collections::BTreeMap;

use ergodic_common::TrialKey;

use super::WorkerId;
use super::interval::IntervalSet;
use super::suspects::{Place, Suspects};

/// What an audit found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The same bits.
    Same,
    /// Other bits: an alarm.
    Different,
    /// Nothing: the trial failed this time.
    Failed,
}

/// An audit as the store knows it: of which trial, the process that computed its row, and what was found if it was
/// made.
pub type Recorded = (TrialKey, WorkerId, Option<Finding>);

/// How many audits were due, and what they found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Chosen trials that have a row which can be compared.
    pub due: u64,
    /// Same bits.
    pub same: u64,
    /// Other bits.
    pub different: u64,
    /// Failed ones.
    pub failed: u64,
}

impl AuditCounts {
    /// Those that found nothing yet.
    pub fn left(&self) -> u64 {
        self.due - self.same - self.different - self.failed
    }

    /// Adds those of another sweep.
    pub fn add(&mut self, other: Self) {
        self.due += other.due;
        self.same += other.same;
        self.different += other.different;
        self.failed += other.failed;
    }

    fn of(&mut self, finding: Finding) -> &mut u64 {
        match finding {
            Finding::Same => &mut self.same,
            Finding::Different => &mut self.different,
            Finding::Failed => &mut self.failed,
        }
    }
}

/// The audits of one sweep.
#[derive(Debug, Default)]
pub struct Audits {
    /// How many there are.
    pub counts: AuditCounts,
    /// Those that may kill workers.
    pub(super) suspects: Suspects,
    /// Those that nobody holds, by the process that computed the row, and by class.
    waiting: BTreeMap<WorkerId, BTreeMap<u32, IntervalSet>>,
    /// Of those that were set apart, the process that computed the row.
    apart: BTreeMap<Place, WorkerId>,
    /// Those in leases.
    pub(super) leased: u64,
}

impl Audits {
    /// A trial got its row from this process, or had it when the store was read, and perhaps its audit was made.
    pub(super) fn add(&mut self, place: Place, origin: &WorkerId, finding: Option<Finding>) {
        self.counts.due += 1;
        match finding {
            Some(finding) => *self.counts.of(finding) += 1,
            None => self.wait(origin, place.0, &IntervalSet::of(place.1, place.1 + 1)),
        }
    }

    /// A failed audit is to be made again.
    pub(super) fn reopen(&mut self, place: Place, origin: &WorkerId) {
        self.counts.failed -= 1;
        self.wait(origin, place.0, &IntervalSet::of(place.1, place.1 + 1));
    }

    /// A trial is run once more by whoever may, after what its audit had found, if it had one. One that was due is so still.
    pub(super) fn redo(&mut self, place: Place, before: Option<Option<Finding>>) {
        match before {
            None => self.counts.due += 1,
            Some(None) => return,
            Some(Some(finding)) => *self.counts.of(finding) -= 1,
        }
        self.wait(&WorkerId::new(), place.0, &IntervalSet::of(place.1, place.1 + 1));
    }

    fn wait(&mut self, origin: &WorkerId, class: u32, trials: &IntervalSet) {
        if !trials.is_empty() {
            self.waiting.entry(origin.clone()).or_default().entry(class).or_default().insert_all(trials);
        }
    }

    /// Whether some wait that nobody holds.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.suspects.next().is_some()
    }

    /// Those that nobody holds, with those that were given up and whose failure is not stored yet.
    pub(super) fn waiting(&self) -> u64 {
        let waiting = self.waiting.values().flat_map(BTreeMap::values).map(IntervalSet::len);
        waiting.sum::<u64>() + self.suspects.waiting()
    }

    /// Whether one waits that nobody holds.
    pub(super) fn waits(&self, place: Place) -> bool {
        self.waits_for(place).is_some() || self.suspects.waits(place)
    }

    /// The process whose row one is that waits among the others.
    fn waits_for(&self, (class, n): Place) -> Option<&WorkerId> {
        let holds = |classes: &BTreeMap<u32, IntervalSet>| classes.get(&class).is_some_and(|trials| trials.contains(n));
        self.waiting.iter().find(|(_, classes)| holds(classes)).map(|(origin, _)| origin)
    }

    /// The processes whose rows wait to be audited.
    pub(super) fn origins(&self) -> impl Iterator<Item = &WorkerId> {
        let apart = self.apart.iter().filter(|(place, _)| self.suspects.waits(**place));
        self.waiting.keys().chain(apart.map(|(_, origin)| origin))
    }

    /// What a worker may audit: a process whose rows wait, a class, and how many.
    pub(super) fn next_for(&self, worker: &str) -> Option<(WorkerId, u32, u64)> {
        let (origin, classes) = self.waiting.iter().find(|(origin, _)| *origin != worker)?;
        classes.first_key_value().map(|(class, trials)| (origin.clone(), *class, trials.len()))
    }

    /// Takes some of these for a lease.
    pub(super) fn take(&mut self, origin: &str, class: u32, n: u64) -> IntervalSet {
        let trials = self.edit(origin, class, |trials| trials.take(n)).unwrap_or_default();
        self.leased += trials.len();
        trials
    }

    /// Takes those of a lease that was found in the store.
    pub(super) fn take_recorded(&mut self, origin: &str, class: u32, recorded: &IntervalSet) -> IntervalSet {
        let mut taken = IntervalSet::default();
        // What is recorded may be damaged and without an end; what waits is not.
        self.edit(origin, class, |trials| {
            let waiting: Vec<u64> = trials.iter().filter(|n| recorded.contains(*n)).collect();
            waiting.into_iter().filter(|n| trials.remove(*n)).for_each(|n| taken.insert(n, n + 1));
        });
        self.leased += taken.len();
        taken
    }

    /// Changes a set of waiting ones, and forgets it when it is empty.
    fn edit<T>(&mut self, origin: &str, class: u32, change: impl FnOnce(&mut IntervalSet) -> T) -> Option<T> {
        let classes = self.waiting.get_mut(origin)?;
        let trials = classes.get_mut(&class)?;
        let changed = change(trials);
        if trials.is_empty() {
            classes.remove(&class);
        }
        if classes.is_empty() {
            self.waiting.remove(origin);
        }
        Some(changed)
    }

    /// One to be run alone that a worker may audit.
    pub(super) fn next_suspect_for(&self, worker: &str) -> Option<Place> {
        self.suspects.next_of(|place| self.apart.get(&place).is_some_and(|origin| origin != worker))
    }

    /// Takes it for a lease, with the process whose row it is.
    pub(super) fn take_suspect_for(&mut self, worker: &str) -> Option<(Place, WorkerId)> {
        let place = self.next_suspect_for(worker)?;
        self.suspects.lease(place);
        self.leased += 1;
        self.apart.get(&place).map(|origin| (place, origin.clone()))
    }

    /// Takes back what is left of a lease.
    pub(super) fn take_back(&mut self, origin: &WorkerId, class: u32, trials: IntervalSet) {
        self.leased -= trials.len();
        let all = trials.clone();
        let rest = self.suspects.take_back(class, trials);
        for n in all.iter().filter(|n| !rest.contains(*n)) {
            self.apart.insert((class, n), origin.clone());
        }
        self.wait(origin, class, &rest);
    }

    /// An audit was made that nobody holds any more, or given up.
    pub(super) fn settle(&mut self, place: Place, finding: Finding) {
        if let Some(origin) = self.waits_for(place).cloned() {
            self.edit(&origin, place.0, |trials| trials.remove(place.1));
        }
        self.suspects.acquit(place);
        self.apart.remove(&place);
        *self.counts.of(finding) += 1;
    }

    /// A worker is alive after all.
    pub(super) fn forgive(&mut self, worker: &str) {
        for place in self.suspects.forgive(worker) {
            if let Some(origin) = self.apart.remove(&place) {
                self.wait(&origin, place.0, &IntervalSet::of(place.1, place.1 + 1));
            }
        }
    }
}
