//! Trials that were being run when their worker died. One of them may have killed it. A machine may as well have been
//! taken away, so that they are run again like all others the first time; those with which a second worker dies are
//! run one at a time, by a worker that runs nothing else: if that dies, it has told which it was.

use std::collections::{BTreeMap, BTreeSet};

use super::WorkerId;
use super::interval::IntervalSet;

/// After so many dead workers a trial is run alone.
const ALONE: usize = 2;
/// After so many it is given up.
pub const ENOUGH: usize = 3;
/// Most trials of a lease that are blamed when its worker has not said which it was running: it runs them in their order.
const MOST: usize = 256;

/// A trial of a sweep: its class, and its number in there.
pub type Place = (u32, u64);

/// The suspects of one sweep, leased or not.
#[derive(Debug, Default)]
pub struct Suspects {
    /// The workers that died while they ran it, with their names.
    all: BTreeMap<Place, BTreeMap<WorkerId, String>>,
    /// Those to be run alone that nobody holds.
    waiting: BTreeSet<Place>,
}

impl Suspects {
    /// A worker, given by id and name, died with this lease. `running`: those of its trials that it said were being run.
    /// Returns the trials that have now killed enough workers, with the names of these.
    pub fn blame(
        &mut self,
        (id, name): (&str, &str),
        class: u32,
        trials: &IntervalSet,
        running: &[u64],
    ) -> Vec<(Place, Vec<String>)> {
        let blamed = if running.is_empty() { trials.iter().take(MOST).collect() } else { running.to_vec() };
        let mut condemned = Vec::new();
        for n in blamed {
            let killed = self.all.entry((class, n)).or_default();
            if killed.insert(id.to_owned(), name.to_owned()).is_none() && killed.len() == ENOUGH {
                condemned.push(((class, n), killed.values().cloned().collect()));
            }
        }
        condemned
    }

    /// Whether a trial is to be run alone.
    pub fn is_apart(&self, place: Place) -> bool {
        self.all.get(&place).is_some_and(|killed| killed.len() >= ALONE)
    }

    /// Whether a trial is to be run alone and held by nobody.
    pub fn waits(&self, place: Place) -> bool {
        self.waiting.contains(&place)
    }

    /// Names of the workers that died while they ran it.
    pub fn killed_by(&self, place: Place) -> impl Iterator<Item = &String> {
        self.all.get(&place).into_iter().flat_map(BTreeMap::values)
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
        self.waiting.iter().copied().find(|place| self.all[place].len() < ENOUGH)
    }

    /// Takes the next one to be run.
    pub fn lease_next(&mut self) -> Option<Place> {
        let next = self.next()?;
        self.waiting.remove(&next);
        Some(next)
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

    fn trials(numbers: std::ops::Range<u64>) -> IntervalSet {
        IntervalSet::of(numbers.start, numbers.end)
    }

    #[test]
    fn whoever_was_being_run_is_blamed_and_only_different_workers_count() {
        let mut suspects = Suspects::default();
        assert!(suspects.blame(("a", "A"), 0, &trials(0..9), &[3, 4]).is_empty());
        assert_eq!(suspects.take_back(0, trials(0..9)).len(), 9, "a first death says little");
        assert!(suspects.blame(("a", "A"), 0, &trials(0..9), &[3, 4]).is_empty());
        assert!(!suspects.is_apart((0, 3)), "the same worker does not die twice");
        assert!(suspects.blame(("b", "B"), 0, &trials(0..9), &[3, 4, 5]).is_empty());
        assert_eq!(suspects.take_back(0, trials(0..9)).len(), 7);
        assert_eq!((suspects.waiting(), suspects.next()), (2, Some((0, 3))));
        assert_eq!(suspects.lease_next(), Some((0, 3)));
        let condemned = suspects.blame(("c", "C"), 0, &trials(3..4), &[]);
        assert_eq!(condemned, [((0, 3), vec!["A".to_owned(), "B".into(), "C".into()])]);
        suspects.take_back(0, trials(3..4));
        assert_eq!(suspects.next(), Some((0, 4)), "a condemned trial is not run again");
        suspects.acquit((0, 4));
        assert_eq!(suspects.next(), None);
    }

    #[test]
    fn where_nothing_was_said_the_first_trials_are_blamed() {
        let mut suspects = Suspects::default();
        for worker in ["a", "b"] {
            assert!(suspects.blame((worker, worker), 1, &trials(0..1000), &[]).is_empty());
        }
        assert_eq!(suspects.take_back(1, trials(0..1000)).first(), Some(MOST as u64));
        assert_eq!(suspects.waiting(), MOST as u64);
        assert_eq!(suspects.killed_by((1, 0)).count(), 2);
    }
}
