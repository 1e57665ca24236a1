//! Audits: chosen trials run a second time, in another worker process than the one that computed
//! their row, to be compared with it.
//!
//! A random number decides which trials are chosen
//! ([`Spec::should_audit`](ergodic_common::Spec::should_audit)). Once a chosen trial has its row,
//! its audit is *due*. It waits for a process other than the row's, and until no fresh trial of its
//! sweep waits. An audit stores no row. The finding of the store settles it, whatever lease the
//! result belongs to, if it comes from another process. An audit that kills workers runs alone and
//! is given up like any trial ([`Quarantine`]); the row stays.

use std::collections::BTreeMap;

use ergodic_common::ids::{ShapeClass, TrialIndex, WorkerId};

use super::quarantine::Quarantine;
use crate::interval_set::IntervalSet;
pub use crate::records::AuditCounts;
use crate::records::Finding;

/// The audits of one sweep.
#[derive(Debug, Default)]
pub struct Audits {
    /// Numbers of audits by finding.
    pub counts: AuditCounts,
    /// Audits that are suspected of killing workers.
    pub(super) quarantine: Quarantine,
    /// Audits that no worker holds, by the process that computed the row, and by class.
    waiting: BTreeMap<WorkerId, BTreeMap<ShapeClass, IntervalSet>>,
    /// The processes that computed the rows of quarantined audits.
    quarantined_origins: BTreeMap<TrialIndex, WorkerId>,
    /// Number of audits in leases.
    pub(super) leased: u64,
}

impl Audits {
    /// Adds an audit of a row that this process computed, with its finding if it was made.
    pub(super) fn add_audit(
        &mut self,
        index: TrialIndex,
        origin: &WorkerId,
        finding: Option<Finding>,
    ) {
        self.counts.due += 1;
        match finding {
            Some(finding) => *self.counts.count_mut(finding) += 1,
            None => self.add_waiting_trial(origin, index),
        }
    }

    /// Makes a failed audit due again.
    pub(super) fn reopen_failed_audit(&mut self, index: TrialIndex, origin: &WorkerId) {
        self.counts.failed -= 1;
        self.add_waiting_trial(origin, index);
    }

    /// Makes an audit due that any process may run. `before` is the finding of an earlier audit, if
    /// there was one. An audit that is due already stays due.
    pub(super) fn redo_audit(&mut self, index: TrialIndex, before: Option<Option<Finding>>) {
        match before {
            None => self.counts.due += 1,
            Some(None) => return,
            Some(Some(finding)) => *self.counts.count_mut(finding) -= 1,
        }

        self.add_waiting_trial(&WorkerId::NONE, index);
    }

    fn add_waiting_trial(&mut self, origin: &WorkerId, index: TrialIndex) {
        let trial = IntervalSet::from_range(index.number, index.number + 1);
        self.add_waiting(origin, index.class, &trial);
    }

    fn add_waiting(&mut self, origin: &WorkerId, class: ShapeClass, trials: &IntervalSet) {
        if !trials.is_empty() {
            self.waiting
                .entry(origin.clone())
                .or_default()
                .entry(class)
                .or_default()
                .insert_all(trials);
        }
    }

    /// Whether an audit waits for a worker.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.quarantine.next_trial().is_some()
    }

    /// Number of audits that no worker holds, including those that were given up and whose failure
    /// is not stored yet.
    pub(super) fn waiting_count(&self) -> u64 {
        let waiting = self
            .waiting
            .values()
            .flat_map(BTreeMap::values)
            .map(IntervalSet::len);
        waiting.sum::<u64>() + self.quarantine.waiting_count()
    }

    /// Whether the audit of a trial waits and no worker holds it.
    pub(super) fn is_waiting(&self, index: TrialIndex) -> bool {
        self.waiting_origin(index).is_some() || self.quarantine.is_waiting(index)
    }

    /// The process whose row is audited, if the audit waits outside the quarantine.
    fn waiting_origin(&self, index: TrialIndex) -> Option<&WorkerId> {
        self.waiting
            .iter()
            .find(|(_, classes)| {
                classes
                    .get(&index.class)
                    .is_some_and(|trials| trials.contains(index.number))
            })
            .map(|(origin, _)| origin)
    }

    /// The processes whose rows wait for an audit.
    pub(super) fn waiting_origins(&self) -> impl Iterator<Item = &WorkerId> {
        let apart = self
            .quarantined_origins
            .iter()
            .filter(|(index, _)| self.quarantine.is_waiting(**index));
        self.waiting.keys().chain(apart.map(|(_, origin)| origin))
    }

    /// The next audits that a worker may run: the process whose rows they compare, their class and
    /// their number.
    pub(super) fn next_audits_for(&self, worker: &WorkerId) -> Option<(WorkerId, ShapeClass, u64)> {
        let (origin, classes) = self.waiting.iter().find(|(origin, _)| *origin != worker)?;
        classes
            .first_key_value()
            .map(|(class, trials)| (origin.clone(), *class, trials.len()))
    }

    /// Takes up to `n` waiting audits of a process's rows for a lease.
    pub(super) fn take_waiting(
        &mut self,
        origin: &WorkerId,
        class: ShapeClass,
        n: u64,
    ) -> IntervalSet {
        let trials = self
            .edit_waiting(origin, class, |trials| trials.take_smallest(n))
            .unwrap_or_default();
        self.leased += trials.len();
        trials
    }

    /// Takes the waiting audits that are in a lease of the store.
    pub(super) fn take_recorded_trials(
        &mut self,
        origin: &WorkerId,
        class: ShapeClass,
        recorded: &IntervalSet,
    ) -> IntervalSet {
        let mut taken = IntervalSet::default();
        // Iterates over the waiting trials, because a damaged lease may record a range without an
        // end.
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

    /// Changes a set of waiting audits, and removes the set if it becomes empty.
    fn edit_waiting<T>(
        &mut self,
        origin: &WorkerId,
        class: ShapeClass,
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

    /// The next quarantined audit that a worker may run.
    pub(super) fn next_quarantined_for(&self, worker: &WorkerId) -> Option<TrialIndex> {
        self.quarantine.next_matching(|index| {
            self.quarantined_origins
                .get(&index)
                .is_some_and(|origin| origin != worker)
        })
    }

    /// Takes the next quarantined audit for a lease; returns it with the process whose row it
    /// compares.
    pub(super) fn take_quarantined_for(
        &mut self,
        worker: &WorkerId,
    ) -> Option<(TrialIndex, WorkerId)> {
        let index = self.next_quarantined_for(worker)?;
        self.quarantine.take_trial(index);
        self.leased += 1;
        self.quarantined_origins
            .get(&index)
            .map(|origin| (index, origin.clone()))
    }

    /// Returns the remaining trials of a lease to the waiting audits.
    pub(super) fn take_back_trials(
        &mut self,
        origin: &WorkerId,
        class: ShapeClass,
        trials: IntervalSet,
    ) {
        self.leased -= trials.len();
        let all = trials.clone();
        let rest = self.quarantine.take_back_quarantined(class, trials);
        for number in all.iter().filter(|n| !rest.contains(*n)) {
            self.quarantined_origins
                .insert(TrialIndex { class, number }, origin.clone());
        }
        self.add_waiting(origin, class, &rest);
    }

    /// Counts the finding of an audit that no worker holds any more.
    pub(super) fn record_finding(&mut self, index: TrialIndex, finding: Finding) {
        if let Some(origin) = self.waiting_origin(index).cloned() {
            self.edit_waiting(&origin, index.class, |trials| trials.remove(index.number));
        }
        self.quarantine.remove(index);
        self.quarantined_origins.remove(&index);
        *self.counts.count_mut(finding) += 1;
    }

    /// Releases audits from quarantine that were suspected because of a worker which turned out to
    /// be alive.
    pub(super) fn acquit_worker(&mut self, worker: &WorkerId) {
        for index in self.quarantine.acquit_worker(worker) {
            if let Some(origin) = self.quarantined_origins.remove(&index) {
                self.add_waiting_trial(&origin, index);
            }
        }
    }
}
