//! Reading a large sweep with several threads: its trials are cut into parts, and each thread has a reader of its own. All of them
//! see the same moment, and what they find is put together in the order of the parts, so that nobody can tell how many there were.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ergodic_common::TrialKey;

use super::StoreReader;

/// Trials from one on, up to and without another one, in the order (cell, repeat).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrialRange {
    /// The first one.
    pub from: TrialKey,
    /// The first one that is no part of it.
    pub to: TrialKey,
}

impl TrialRange {
    /// All trials: their numbers stay far below 2^63.
    pub const ALL: Self = Self {
        from: TrialKey { cell: 0, repeat: 0 },
        to: TrialKey {
            cell: i64::MAX as u64,
            repeat: 0,
        },
    };

    /// Whether a trial is in it.
    pub fn contains(&self, key: TrialKey) -> bool {
        self.from <= key && key < self.to
    }

    /// All trials in at most `n` parts, of the same size if cells are numbered below `cells`, and repeats below `repeats`.
    pub fn split_all(cells: u64, repeats: u32, n: u64) -> Vec<Self> {
        let all = u128::from(cells) * u128::from(repeats);
        let start = |part: u64| {
            let trial = all * u128::from(part) / u128::from(n.max(1));
            let repeats = u128::from(repeats.max(1));
            TrialKey {
                cell: (trial / repeats) as u64,
                repeat: (trial % repeats) as u32,
            }
        };
        let mut starts: Vec<TrialKey> = (0..n.max(1)).map(start).collect();
        starts.dedup();

        let ends = starts.iter().copied().skip(1).chain([Self::ALL.to]);
        starts
            .iter()
            .zip(ends)
            .map(|(from, to)| Self { from: *from, to })
            .collect()
    }
}

/// Parts per reader: so many that one with more rows than others holds nobody up for long.
const RANGES_PER_READER: u64 = 8;

/// Readers that see the same moment, at least one.
pub struct SnapshotReaders(Vec<Mutex<Box<dyn StoreReader>>>);

impl SnapshotReaders {
    /// These; the caller knows that they see the same moment.
    ///
    /// # Panics
    /// There are none.
    pub fn new(readers: Vec<Box<dyn StoreReader>>) -> Self {
        assert!(!readers.is_empty(), "a store yields at least one reader");
        Self(readers.into_iter().map(Mutex::new).collect())
    }

    /// Does something with one of them.
    pub fn with_reader<T>(&self, work: impl FnOnce(&dyn StoreReader) -> T) -> T {
        work(
            self.0[0]
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .as_ref(),
        )
    }

    /// Into so many parts a sweep is best cut for them, whose cells are numbered below `cells`, and whose repeats are below
    /// `repeats`.
    pub fn split_trials(&self, cells: u64, repeats: u32) -> Vec<TrialRange> {
        match self.0.len() as u64 {
            1 => vec![TrialRange::ALL],
            n => TrialRange::split_all(cells, repeats, RANGES_PER_READER * n),
        }
    }

    /// Does something with each part, on as many threads as there are readers; what came of it, in the order of the parts.
    ///
    /// # Errors
    /// That of the first part of which it failed.
    pub fn map_ranges<T: Send, E: Send>(
        &self,
        parts: &[TrialRange],
        work: impl Fn(&dyn StoreReader, TrialRange) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<(usize, Result<T, E>)>> = Mutex::new(Vec::with_capacity(parts.len()));
        let run = |reader: &Mutex<Box<dyn StoreReader>>| {
            let reader = reader
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);

            while let Some((at, part)) = take_next_range(parts, &next) {
                let result = work(reader.as_ref(), *part);
                if result.is_err() {
                    // Earlier parts have been begun, and are brought to their end.
                    next.store(parts.len(), Ordering::Relaxed);
                }

                done.lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .push((at, result));
            }
        };
        std::thread::scope(|threads| {
            let run = &run;
            self.0
                .iter()
                .skip(1)
                .for_each(|reader| drop(threads.spawn(move || run(reader))));

            self.0.first().into_iter().for_each(run);
        });

        let mut done = done
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        done.sort_unstable_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, result)| result).collect()
    }
}

fn take_next_range<'a>(
    parts: &'a [TrialRange],
    next: &AtomicUsize,
) -> Option<(usize, &'a TrialRange)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, parts.get(at)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::store::trial_range::*;

    proptest! {
        #[test]
        fn every_trial_is_in_one_part(cells in 1_u64..9, repeats in 1_u32..9, n in 1_u64..40) {
            let parts = TrialRange::split_all(cells, repeats, n);
            prop_assert!(parts.len() as u64 <= n);
            prop_assert!(parts.windows(2).all(|two| two[0].to == two[1].from));
            for cell in 0..cells {
                for repeat in 0..repeats + 2 {
                    let key = TrialKey { cell, repeat };
                    prop_assert_eq!(parts.iter().filter(|part| part.contains(key)).count(), 1);
                }
            }
        }
    }
}
