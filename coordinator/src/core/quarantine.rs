//! Trials that may have been running when their worker crashed. One of them may have been the cause, or the machine was taken
//! away. So they are run again like all others after a first crash. Those with which a second worker crashes run one at a time,
//! on a worker that runs nothing else: if that crashes too, it is known which trial it was, and the trial is given up. A worker
//! that comes back has not crashed, and its crash counts against no trial.

use std::collections::{BTreeMap, BTreeSet};

use ergodic_common::ids::{ShapeClass, TrialIndex, WorkerId};

use crate::interval_set::IntervalSet;

/// Crashes after which a trial is run alone.
const RUN_ALONE_AFTER: usize = 2;
/// Crashes after which a trial is given up.
pub const CRASH_LIMIT: usize = 3;

/// The trials of one sweep that may have been running when workers crashed, leased or not.
#[derive(Debug, Default)]
pub struct Quarantine {
    /// For each trial, the ids and names of the workers that crashed and may have been running it, in the order of the crashes.
    crashes: BTreeMap<TrialIndex, Vec<(WorkerId, String)>>,
    /// Trials that must run alone and that no worker holds.
    waiting: BTreeSet<TrialIndex>,
}

impl Quarantine {
    /// Counts a crash of a worker, given by id and name, against a trial that may have been running. Returns the names of all
    /// workers that crashed with it if the trial is thereby given up.
    pub fn record_crash(
        &mut self,
        (id, name): (&WorkerId, &str),
        index: TrialIndex,
    ) -> Option<Vec<String>> {
        let crashed = self.crashes.entry(index).or_default();
        if crashed.iter().any(|(known, _)| known == id) {
            return None;
        }
        crashed.push((id.clone(), name.to_owned()));
        (crashed.len() == CRASH_LIMIT)
            .then(|| crashed.iter().map(|(_, name)| name.clone()).collect())
    }

    /// Takes back the crash of a worker that has come back. Returns the trials that are no longer to be run alone, and that nobody
    /// holds.
    pub fn acquit_worker(&mut self, worker: &WorkerId) -> Vec<TrialIndex> {
        self.crashes
            .values_mut()
            .for_each(|crashed| crashed.retain(|(id, _)| id != worker));
        self.crashes.retain(|_, crashed| !crashed.is_empty());
        let free: Vec<TrialIndex> = self
            .waiting
            .iter()
            .copied()
            .filter(|index| !self.runs_alone(*index))
            .collect();
        free.iter().for_each(|index| _ = self.waiting.remove(index));

        free
    }

    /// Whether a trial must run alone.
    pub fn runs_alone(&self, index: TrialIndex) -> bool {
        self.crashes
            .get(&index)
            .is_some_and(|crashed| crashed.len() >= RUN_ALONE_AFTER)
    }

    /// Whether a trial is given up: enough workers crashed that may have been running it, and have not come back.
    pub fn is_given_up(&self, index: TrialIndex) -> bool {
        self.crashes
            .get(&index)
            .is_some_and(|crashed| crashed.len() >= CRASH_LIMIT)
    }

    /// Whether a trial must run alone and no worker holds it.
    pub fn is_waiting(&self, index: TrialIndex) -> bool {
        self.waiting.contains(&index)
    }

    /// Names of the workers that crashed and may have been running a trial.
    pub fn crashed_workers(&self, index: TrialIndex) -> impl Iterator<Item = &String> {
        self.crashes
            .get(&index)
            .into_iter()
            .flatten()
            .map(|(_, name)| name)
    }

    /// Number of trials that must run alone and that no worker holds.
    pub fn waiting_count(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Takes those remaining trials of an ended lease that must run alone; returns the others.
    pub fn take_back_quarantined(
        &mut self,
        class: ShapeClass,
        mut trials: IntervalSet,
    ) -> IntervalSet {
        let first = TrialIndex { class, number: 0 };
        let last = TrialIndex {
            class,
            number: u64::MAX,
        };
        let of_class = self.crashes.range(first..=last);
        for (index, _) in of_class.filter(|(_, crashed)| crashed.len() >= RUN_ALONE_AFTER) {
            if trials.remove(index.number) {
                self.waiting.insert(*index);
            }
        }
        trials
    }

    /// The next trial that must run alone and is not given up.
    pub fn next_trial(&self) -> Option<TrialIndex> {
        self.next_matching(|_| true)
    }

    /// The next trial that must run alone and that `of` accepts.
    pub fn next_matching(&self, of: impl Fn(TrialIndex) -> bool) -> Option<TrialIndex> {
        self.waiting
            .iter()
            .copied()
            .find(|index| self.crashes[index].len() < CRASH_LIMIT && of(*index))
    }

    /// Takes the next trial that must run alone.
    pub fn take_next_trial(&mut self) -> Option<TrialIndex> {
        let next = self.next_trial()?;
        self.take_trial(next);
        Some(next)
    }

    /// Takes a trial for a lease.
    pub fn take_trial(&mut self, index: TrialIndex) {
        self.waiting.remove(&index);
    }

    /// Forgets a trial that has a row, which proves that it can be run.
    pub fn remove(&mut self, index: TrialIndex) {
        self.crashes.remove(&index);
        self.waiting.remove(&index);
    }
}

#[cfg(test)]
mod tests {
    use crate::core::quarantine::*;

    fn trial(class: u32, number: u64) -> TrialIndex {
        TrialIndex {
            class: ShapeClass(class),
            number,
        }
    }

    #[test]
    fn a_second_crash_sets_a_trial_apart_and_after_a_third_it_is_given_up() {
        let mut quarantine = Quarantine::default();
        let all = || IntervalSet::from_range(0, 9);

        for n in [3, 4] {
            assert_eq!(
                quarantine.record_crash((&"a".into(), "A"), trial(0, n)),
                None
            );
        }

        assert_eq!(
            quarantine.take_back_quarantined(ShapeClass(0), all()).len(),
            9,
            "a first crash says little"
        );
        assert_eq!(
            quarantine.record_crash((&"a".into(), "A"), trial(0, 3)),
            None
        );

        assert!(
            !quarantine.runs_alone(trial(0, 3)),
            "the same worker does not crash twice"
        );

        for n in [3, 4, 5] {
            assert_eq!(
                quarantine.record_crash((&"b".into(), "B"), trial(0, n)),
                None
            );
        }

        assert_eq!(
            quarantine.take_back_quarantined(ShapeClass(0), all()).len(),
            7
        );
        assert_eq!(
            (quarantine.waiting_count(), quarantine.next_trial()),
            (2, Some(trial(0, 3)))
        );
        assert_eq!(quarantine.take_next_trial(), Some(trial(0, 3)));

        assert_eq!(
            quarantine.record_crash((&"0".into(), "C"), trial(0, 3)),
            Some(vec!["A".to_owned(), "B".into(), "C".into()])
        );
        quarantine.take_back_quarantined(ShapeClass(0), IntervalSet::from_range(3, 4));
        assert_eq!(
            quarantine.next_trial(),
            Some(trial(0, 4)),
            "a trial that is given up is not run again"
        );

        quarantine.remove(trial(0, 4));
        assert_eq!(quarantine.next_trial(), None);
    }

    #[test]
    fn a_worker_that_comes_back_counts_against_no_trial() {
        let mut quarantine = Quarantine::default();
        for worker in ["a", "b"] {
            (0..3).for_each(|n| _ = quarantine.record_crash((&worker.into(), worker), trial(1, n)));
        }

        quarantine.record_crash((&"c".into(), "c"), trial(1, 0));
        assert!(
            quarantine
                .take_back_quarantined(ShapeClass(1), IntervalSet::from_range(0, 3))
                .is_empty()
        );

        assert_eq!(
            quarantine.acquit_worker(&"b".into()),
            [trial(1, 1), trial(1, 2)]
        );
        assert_eq!(
            (
                quarantine.waiting_count(),
                quarantine.crashed_workers(trial(1, 0)).count()
            ),
            (1, 2)
        );

        assert_eq!(quarantine.acquit_worker(&"a".into()), [trial(1, 0)]);
        assert_eq!(quarantine.acquit_worker(&"c".into()), []);
        assert!(quarantine.crashes.is_empty() && quarantine.waiting.is_empty());
    }
}
