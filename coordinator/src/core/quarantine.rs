//! Trials that were in flight when their worker died. One of them may have killed it. A machine may as well have been
//! taken away, so that they are run again like all others the first time; those with which a second worker dies are
//! run one at a time, by a worker that runs nothing else: if that dies too, it is known which trial it was. A worker that
//! comes back was not dead, and is taken off the list.

use std::collections::{BTreeMap, BTreeSet};

use crate::interval_set::IntervalSet;
use crate::records::WorkerId;

/// Dead workers after which a trial is run alone.
const RUN_ALONE_AFTER: usize = 2;
/// Dead workers after which a trial is given up.
pub const CRASH_LIMIT: usize = 3;

/// A trial of a sweep: its class, and its number in there.
pub type TrialIndex = (u32, u64);

/// The trials of one sweep with which workers have died, leased or not.
#[derive(Debug, Default)]
pub struct Quarantine {
    /// The workers that died with it in flight, with their names, in the order of death.
    crashes: BTreeMap<TrialIndex, Vec<(WorkerId, String)>>,
    /// Trials to be run alone that nobody holds.
    waiting: BTreeSet<TrialIndex>,
}

impl Quarantine {
    /// Counts that a worker, given by id and name, died with a trial in flight. If it was one too many, returns the names of all of them.
    pub fn record_crash(
        &mut self,
        (id, name): (&str, &str),
        index: TrialIndex,
    ) -> Option<Vec<String>> {
        let killed = self.crashes.entry(index).or_default();
        if killed.iter().any(|(known, _)| known == id) {
            return None;
        }
        killed.push((id.to_owned(), name.to_owned()));
        (killed.len() == CRASH_LIMIT).then(|| killed.iter().map(|(_, name)| name.clone()).collect())
    }

    /// A worker is alive after all. Returns the trials that are no longer to be run alone, and that nobody holds.
    pub fn clear_worker(&mut self, worker: &str) -> Vec<TrialIndex> {
        self.crashes
            .values_mut()
            .for_each(|killed| killed.retain(|(id, _)| id != worker));
        self.crashes.retain(|_, killed| !killed.is_empty());
        let free: Vec<TrialIndex> = self
            .waiting
            .iter()
            .copied()
            .filter(|index| !self.runs_alone(*index))
            .collect();
        free.iter().for_each(|index| _ = self.waiting.remove(index));

        free
    }

    /// Whether a trial is to be run alone.
    pub fn runs_alone(&self, index: TrialIndex) -> bool {
        self.crashes
            .get(&index)
            .is_some_and(|killed| killed.len() >= RUN_ALONE_AFTER)
    }

    /// Whether enough workers died with a trial in flight, and none of these has come back.
    pub fn is_given_up(&self, index: TrialIndex) -> bool {
        self.crashes
            .get(&index)
            .is_some_and(|killed| killed.len() >= CRASH_LIMIT)
    }

    /// Whether a trial is to be run alone and held by nobody.
    pub fn is_waiting(&self, index: TrialIndex) -> bool {
        self.waiting.contains(&index)
    }

    /// Names of the workers that died with a trial in flight.
    pub fn crashed_workers(&self, index: TrialIndex) -> impl Iterator<Item = &String> {
        self.crashes
            .get(&index)
            .into_iter()
            .flatten()
            .map(|(_, name)| name)
    }

    /// Number of trials that are to be run alone and that nobody holds.
    pub fn waiting_count(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Takes the trials that are to be run alone out of what is left of a lease that ended; returns the others.
    pub fn take_back_quarantined(&mut self, class: u32, mut trials: IntervalSet) -> IntervalSet {
        let of_class = self.crashes.range((class, 0)..=(class, u64::MAX));
        for (index, _) in of_class.filter(|(_, killed)| killed.len() >= RUN_ALONE_AFTER) {
            if trials.remove(index.1) {
                self.waiting.insert(*index);
            }
        }
        trials
    }

    /// The next trial to be run alone, unless it has been given up.
    pub fn next_trial(&self) -> Option<TrialIndex> {
        self.next_matching(|_| true)
    }

    /// The next trial to be run alone that a predicate accepts.
    pub fn next_matching(&self, of: impl Fn(TrialIndex) -> bool) -> Option<TrialIndex> {
        self.waiting
            .iter()
            .copied()
            .find(|index| self.crashes[index].len() < CRASH_LIMIT && of(*index))
    }

    /// Takes the next trial to be run alone.
    pub fn take_next_trial(&mut self) -> Option<TrialIndex> {
        let next = self.next_trial()?;
        self.take_trial(next);
        Some(next)
    }

    /// Takes a trial for a lease.
    pub fn take_trial(&mut self, index: TrialIndex) {
        self.waiting.remove(&index);
    }

    /// Forgets a trial that has a row: nothing is held against it any more.
    pub fn remove(&mut self, index: TrialIndex) {
        self.crashes.remove(&index);
        self.waiting.remove(&index);
    }
}

#[cfg(test)]
mod tests {
    use crate::core::quarantine::*;

    #[test]
    fn a_second_death_sets_a_trial_apart_and_a_third_condemns_it() {
        let mut quarantine = Quarantine::default();
        let all = || IntervalSet::from_range(0, 9);

        for n in [3, 4] {
            assert_eq!(quarantine.record_crash(("a", "A"), (0, n)), None);
        }

        assert_eq!(
            quarantine.take_back_quarantined(0, all()).len(),
            9,
            "a first death says little"
        );
        assert_eq!(quarantine.record_crash(("a", "A"), (0, 3)), None);

        assert!(
            !quarantine.runs_alone((0, 3)),
            "the same worker does not die twice"
        );

        for n in [3, 4, 5] {
            assert_eq!(quarantine.record_crash(("b", "B"), (0, n)), None);
        }

        assert_eq!(quarantine.take_back_quarantined(0, all()).len(), 7);
        assert_eq!(
            (quarantine.waiting_count(), quarantine.next_trial()),
            (2, Some((0, 3)))
        );
        assert_eq!(quarantine.take_next_trial(), Some((0, 3)));

        assert_eq!(
            quarantine.record_crash(("0", "C"), (0, 3)),
            Some(vec!["A".to_owned(), "B".into(), "C".into()])
        );
        quarantine.take_back_quarantined(0, IntervalSet::from_range(3, 4));
        assert_eq!(
            quarantine.next_trial(),
            Some((0, 4)),
            "a condemned trial is not run again"
        );

        quarantine.remove((0, 4));
        assert_eq!(quarantine.next_trial(), None);
    }

    #[test]
    fn a_worker_that_comes_back_is_taken_off_the_list() {
        let mut quarantine = Quarantine::default();
        for worker in ["a", "b"] {
            (0..3).for_each(|n| _ = quarantine.record_crash((worker, worker), (1, n)));
        }

        quarantine.record_crash(("c", "c"), (1, 0));
        assert!(
            quarantine
                .take_back_quarantined(1, IntervalSet::from_range(0, 3))
                .is_empty()
        );

        assert_eq!(quarantine.clear_worker("b"), [(1, 1), (1, 2)]);
        assert_eq!(
            (
                quarantine.waiting_count(),
                quarantine.crashed_workers((1, 0)).count()
            ),
            (1, 2)
        );

        assert_eq!(quarantine.clear_worker("a"), [(1, 0)]);
        assert_eq!(quarantine.clear_worker("c"), []);
        assert!(quarantine.crashes.is_empty() && quarantine.waiting.is_empty());
    }
}
