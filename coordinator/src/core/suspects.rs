//! Trials that were in flight when their worker died. One of them may have killed it. A machine may as well have been
//! taken away, so that they are run again like all others the first time; those with which a second worker dies are
//! run one at a time, by a worker that runs nothing else: if that dies too, it has told which it was. A worker that comes
//! back was not dead, and is taken off the list.

use std::collections::{BTreeMap, BTreeSet};

use super::WorkerId;
use super::interval::IntervalSet;

/// After so many dead workers a trial is run alone.
const ALONE: usize = 2;
/// After so many it is given up.
pub const ENOUGH: usize = 3;

/// A trial of a sweep: its class, and its number in there.
pub type Place = (u32, u64);

/// The suspects of one sweep, leased or not.
#[derive(Debug, Default)]
pub struct Suspects {
    /// The workers that died with it in flight, with their names, in the order of death.
    all: BTreeMap<Place, Vec<(WorkerId, String)>>,
    /// Those to be run alone that nobody holds.
    waiting: BTreeSet<Place>,
}

impl Suspects {
    /// A worker, given by id and name, died with a trial in flight. If it was one too many, the names of all of these.
    pub fn blame(&mut self, (id, name): (&str, &str), place: Place) -> Option<Vec<String>> {
        let killed = self.all.entry(place).or_default();
        if killed.iter().any(|(known, _)| known == id) {
            return None;
        }
        killed.push((id.to_owned(), name.to_owned()));
        (killed.len() == ENOUGH).then(|| killed.iter().map(|(_, name)| name.clone()).collect())
    }

    /// A worker is alive after all. Returns the trials that are no longer to be run alone, and that nobody holds.
    pub fn forgive(&mut self, worker: &str) -> Vec<Place> {
        self.all.values_mut().for_each(|killed| killed.retain(|(id, _)| id != worker));
        self.all.retain(|_, killed| !killed.is_empty());
        let free: Vec<Place> = self.waiting.iter().copied().filter(|place| !self.is_apart(*place)).collect();
        free.iter().for_each(|place| _ = self.waiting.remove(place));
        free
    }

    /// Whether a trial is to be run alone.
    pub fn is_apart(&self, place: Place) -> bool {
        self.all.get(&place).is_some_and(|killed| killed.len() >= ALONE)
    }

    /// Whether enough workers died with a trial in flight, and none of these has come back.
    pub fn is_given_up(&self, place: Place) -> bool {
        self.all.get(&place).is_some_and(|killed| killed.len() >= ENOUGH)
    }

    /// Whether a trial is to be run alone and held by nobody.
    pub fn waits(&self, place: Place) -> bool {
        self.waiting.contains(&place)
    }

    /// Names of the workers that died with a trial in flight.
    pub fn killed_by(&self, place: Place) -> impl Iterator<Item = &String> {
        self.all.get(&place).into_iter().flatten().map(|(_, name)| name)
    }

    /// How many are to be run alone and held by nobody.
    pub fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Takes those to be run alone out of what is left of a lease that ended; returns the others.
    pub fn take_back(&mut self, class: u32, mut trials: IntervalSet) -> IntervalSet {
        let of_class = self.all.range((class, 0)..=(class, u64::MAX));
        for (place, _) in of_class.filter(|(_, killed)| killed.len() >= ALONE) {
            if trials.remove(place.1) {
                self.waiting.insert(*place);
            }
        }
        trials
    }

    /// The next one to be run, unless it has been condemned.
    pub fn next(&self) -> Option<Place> {
        self.next_of(|_| true)
    }

    /// The next one of these.
    pub fn next_of(&self, of: impl Fn(Place) -> bool) -> Option<Place> {
        self.waiting.iter().copied().find(|place| self.all[place].len() < ENOUGH && of(*place))
    }

    /// Takes the next one to be run.
    pub fn lease_next(&mut self) -> Option<Place> {
        let next = self.next()?;
        self.lease(next);
        Some(next)
    }

    /// Takes one to be run.
    pub fn lease(&mut self, place: Place) {
        self.waiting.remove(&place);
    }

    /// It has a row: nothing is held against it any more.
    pub fn acquit(&mut self, place: Place) {
        self.all.remove(&place);
        self.waiting.remove(&place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_death_sets_a_trial_apart_and_a_third_condemns_it() {
        let mut suspects = Suspects::default();
        let all = || IntervalSet::of(0, 9);
        for n in [3, 4] {
            assert_eq!(suspects.blame(("a", "A"), (0, n)), None);
        }
        assert_eq!(suspects.take_back(0, all()).len(), 9, "a first death says little");
        assert_eq!(suspects.blame(("a", "A"), (0, 3)), None);
        assert!(!suspects.is_apart((0, 3)), "the same worker does not die twice");
        for n in [3, 4, 5] {
            assert_eq!(suspects.blame(("b", "B"), (0, n)), None);
        }
        assert_eq!(suspects.take_back(0, all()).len(), 7);
        assert_eq!((suspects.waiting(), suspects.next()), (2, Some((0, 3))));
        assert_eq!(suspects.lease_next(), Some((0, 3)));
        assert_eq!(suspects.blame(("0", "C"), (0, 3)), Some(vec!["A".to_owned(), "B".into(), "C".into()]));
        suspects.take_back(0, IntervalSet::of(3, 4));
        assert_eq!(suspects.next(), Some((0, 4)), "a condemned trial is not run again");
        suspects.acquit((0, 4));
        assert_eq!(suspects.next(), None);
    }

    #[test]
    fn a_worker_that_comes_back_is_taken_off_the_list() {
        let mut suspects = Suspects::default();
        for worker in ["a", "b"] {
            (0..3).for_each(|n| _ = suspects.blame((worker, worker), (1, n)));
        }
        suspects.blame(("c", "c"), (1, 0));
        assert!(suspects.take_back(1, IntervalSet::of(0, 3)).is_empty());
        assert_eq!(suspects.forgive("b"), [(1, 1), (1, 2)]);
        assert_eq!((suspects.waiting(), suspects.killed_by((1, 0)).count()), (1, 2));
        assert_eq!(suspects.forgive("a"), [(1, 0)]);
        assert_eq!(suspects.forgive("c"), []);
        assert!(suspects.all.is_empty() && suspects.waiting.is_empty());
    }
}
