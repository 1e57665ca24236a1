//! Audits: chosen trials are run a second time, by another worker process than the one that computed their row, and
//! compared with it.
//!
//! A lot decides which ([`Spec::should_audit`](ergodic_common::Spec::should_audit)). When such a trial gets its row, its audit is
//! *due*; it waits for a process that is not the row's, and for all fresh trials of its sweep. An audit stores no row. What
//! the store found settles it, under whatever lease the result was delivered, as long as it came from another process.
//! One that workers die of is run alone and given up like any trial ([`Quarantine`]); the row stays.

use std::collections::BTreeMap;

use super::quarantine::{Quarantine, TrialIndex};
use crate::interval_set::IntervalSet;
use crate::records::{Finding, WorkerId};

/// How many audits were due, and what they found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Chosen trials that have a row which can be compared.
    pub due: u64,
    /// Audits that yielded the same bits.
    pub same: u64,
    /// Audits that yielded other bits.
    pub different: u64,
    /// Audits that failed.
    pub failed: u64,
}

impl AuditCounts {
    /// Audits that have found nothing yet.
    pub fn remaining(&self) -> u64 {
        self.due - self.same - self.different - self.failed
    }

    /// Adds the counts of another sweep.
    pub fn merge(&mut self, other: Self) {
        self.due += other.due;
        self.same += other.same;
        self.different += other.different;
        self.failed += other.failed;
    }

    fn count_mut(&mut self, finding: Finding) -> &mut u64 {
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
    /// How many audits were due, and what they found.
    pub counts: AuditCounts,
    /// Audits that may kill workers.
    pub(super) quarantine: Quarantine,
    /// Audits that nobody holds, by the process that computed the row, and by class.
    waiting: BTreeMap<WorkerId, BTreeMap<u32, IntervalSet>>,
    /// The processes that computed the rows of audits in quarantine.
    quarantined_origins: BTreeMap<TrialIndex, WorkerId>,
    /// Audits in leases.
    pub(super) leased: u64,
}

impl Audits {
    /// A trial got its row from this process, or had it when the store was read, and perhaps its audit was made.
    pub(super) fn add_audit(
        &mut self,
        index: TrialIndex,
        origin: &WorkerId,
        finding: Option<Finding>,
    ) {
        self.counts.due += 1;
        match finding {
            Some(finding) => *self.counts.count_mut(finding) += 1,
            None => self.add_waiting(
                origin,
                index.0,
                &IntervalSet::from_range(index.1, index.1 + 1),
            ),
        }
    }

    /// A failed audit is to be made again.
    pub(super) fn reopen_failed_audit(&mut self, index: TrialIndex, origin: &WorkerId) {
        self.counts.failed -= 1;
        self.add_waiting(
            origin,
            index.0,
            &IntervalSet::from_range(index.1, index.1 + 1),
        );
    }

    /// Makes an audit due that any process may make, after what an earlier one found, if there was one. An audit that was due stays due.
    pub(super) fn redo_audit(&mut self, index: TrialIndex, before: Option<Option<Finding>>) {
        match before {
            None => self.counts.due += 1,
            Some(None) => return,
            Some(Some(finding)) => *self.counts.count_mut(finding) -= 1,
        }

        self.add_waiting(
            &WorkerId::new(),
            index.0,
            &IntervalSet::from_range(index.1, index.1 + 1),
        );
    }

    fn add_waiting(&mut self, origin: &WorkerId, class: u32, trials: &IntervalSet) {
        if !trials.is_empty() {
            self.waiting
                .entry(origin.clone())
                .or_default()
                .entry(class)
                .or_default()
                .insert_all(trials);
        }
    }

    /// Whether an audit waits that a worker could take.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.quarantine.next_trial().is_some()
    }

    /// Audits that nobody holds, with those that were given up and whose failure is not stored yet.
    pub(super) fn waiting_count(&self) -> u64 {
        let waiting = self
            .waiting
            .values()
            .flat_map(BTreeMap::values)
            .map(IntervalSet::len);
        waiting.sum::<u64>() + self.quarantine.waiting_count()
    }

    /// Whether the audit of a trial waits, and nobody holds it.
    pub(super) fn is_waiting(&self, index: TrialIndex) -> bool {
        self.waiting_origin(index).is_some() || self.quarantine.is_waiting(index)
    }

    /// The process whose row is audited, if the audit waits and is not in quarantine.
    fn waiting_origin(&self, (class, n): TrialIndex) -> Option<&WorkerId> {
        self.waiting
            .iter()
            .find(|(_, classes)| classes.get(&class).is_some_and(|trials| trials.contains(n)))
            .map(|(origin, _)| origin)
    }

    /// The processes whose rows wait to be audited.
    pub(super) fn waiting_origins(&self) -> impl Iterator<Item = &WorkerId> {
        let apart = self
            .quarantined_origins
            .iter()
            .filter(|(index, _)| self.quarantine.is_waiting(**index));
        self.waiting.keys().chain(apart.map(|(_, origin)| origin))
    }

    /// What a worker may audit: a process whose rows wait, a class, and how many.
    pub(super) fn next_audits_for(&self, worker: &str) -> Option<(WorkerId, u32, u64)> {
        let (origin, classes) = self.waiting.iter().find(|(origin, _)| *origin != worker)?;
        classes
            .first_key_value()
            .map(|(class, trials)| (origin.clone(), *class, trials.len()))
    }

    /// Takes up to `n` waiting audits of a process's rows for a lease.
    pub(super) fn take_waiting(&mut self, origin: &str, class: u32, n: u64) -> IntervalSet {
        let trials = self
            .edit_waiting(origin, class, |trials| trials.take_smallest(n))
            .unwrap_or_default();
        self.leased += trials.len();
        trials
    }

    /// Takes the waiting audits of a lease that was found in the store.
    pub(super) fn take_recorded_trials(
        &mut self,
        origin: &str,
        class: u32,
        recorded: &IntervalSet,
    ) -> IntervalSet {
        let mut taken = IntervalSet::default();
        // What is recorded may be damaged and without an end; what waits is not.
        self.edit_waiting(origin, class, |trials| {
            let waiting: Vec<u64> = trials.iter().filter(|n| recorded.contains(*n)).collect();
            waiting
                .into_iter()
                .filter(|n| trials.remove(*n))
                .for_each(|n| taken.insert(n, n + 1));
        });

        self.leased += taken.len();
        taken
    }

    /// Changes a set of waiting audits, and forgets it when it is empty.
    fn edit_waiting<T>(
        &mut self,
        origin: &str,
        class: u32,
        change: impl FnOnce(&mut IntervalSet) -> T,
    ) -> Option<T> {
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

    /// The next audit in quarantine that a worker may make.
    pub(super) fn next_quarantined_for(&self, worker: &str) -> Option<TrialIndex> {
        self.quarantine.next_matching(|index| {
            self.quarantined_origins
                .get(&index)
                .is_some_and(|origin| origin != worker)
        })
    }

    /// Takes the next audit in quarantine for a lease, with the process whose row is audited.
    pub(super) fn take_quarantined_for(&mut self, worker: &str) -> Option<(TrialIndex, WorkerId)> {
        let index = self.next_quarantined_for(worker)?;
        self.quarantine.take_trial(index);
        self.leased += 1;
        self.quarantined_origins
            .get(&index)
            .map(|origin| (index, origin.clone()))
    }

    /// Takes back what is left of a lease.
    pub(super) fn take_back_trials(&mut self, origin: &WorkerId, class: u32, trials: IntervalSet) {
        self.leased -= trials.len();
        let all = trials.clone();
        let rest = self.quarantine.take_back_quarantined(class, trials);
        for n in all.iter().filter(|n| !rest.contains(*n)) {
            self.quarantined_origins.insert((class, n), origin.clone());
        }
        self.add_waiting(origin, class, &rest);
    }

    /// Counts the finding of an audit that nobody holds any more.
    pub(super) fn record_finding(&mut self, index: TrialIndex, finding: Finding) {
        if let Some(origin) = self.waiting_origin(index).cloned() {
            self.edit_waiting(&origin, index.0, |trials| trials.remove(index.1));
        }
        self.quarantine.remove(index);
        self.quarantined_origins.remove(&index);
        *self.counts.count_mut(finding) += 1;
    }

    /// A worker is alive after all: audits wait again that were in quarantine because of it.
    pub(super) fn acquit_worker(&mut self, worker: &str) {
        for index in self.quarantine.acquit_worker(worker) {
            if let Some(origin) = self.quarantined_origins.remove(&index) {
                self.add_waiting(
                    &origin,
                    index.0,
                    &IntervalSet::from_range(index.1, index.1 + 1),
                );
            }
        }
    }
}
