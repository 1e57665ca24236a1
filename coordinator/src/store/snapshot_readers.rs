//! Reads a large sweep with several threads. Its trials are split into ranges, and each thread has
//! its own reader. All readers see the same moment, and results are combined in the order of the
//! ranges, so the number of threads has no effect on them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store::TrialRange;
use crate::store::reader::StoreReader;

/// Number of ranges per reader, enough that no thread waits long for one whose range has more rows.
pub(crate) const RANGES_PER_READER: u64 = 8;

/// Readers that see the same moment, at least one.
pub struct SnapshotReaders(pub(crate) Vec<Mutex<Box<dyn StoreReader>>>);

impl SnapshotReaders {
    /// Wraps readers that see the same moment.
    ///
    /// # Panics
    /// `readers` is empty.
    pub fn new(readers: Vec<Box<dyn StoreReader>>) -> Self {
        assert!(!readers.is_empty(), "a store yields at least one reader");
        Self(readers.into_iter().map(Mutex::new).collect())
    }

    /// Calls `work` with one of the readers.
    pub fn with_reader<T>(&self, work: impl FnOnce(&dyn StoreReader) -> T) -> T {
        work(
            self.0[0]
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .as_ref(),
        )
    }

    /// Splits a sweep into a suitable number of ranges, given exclusive bounds of the numbers of
    /// its cells and repeats.
    pub fn split_trials(&self, cells: u64, repeats: u32) -> Vec<TrialRange> {
        match self.0.len() as u64 {
            1 => vec![TrialRange::ALL],
            n => TrialRange::split_all(cells, repeats, RANGES_PER_READER * n),
        }
    }

    /// Calls `work` for each range, on as many threads as there are readers; returns the results in
    /// the order of the ranges.
    ///
    /// # Errors
    /// Returns the error of the first range for which `work` failed.
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
                    // Stops handing out parts. Earlier ones have begun and finish, so that the
                    // first error by position is found.
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

pub(crate) fn take_next_range<'a>(
    parts: &'a [TrialRange],
    next: &AtomicUsize,
) -> Option<(usize, &'a TrialRange)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, parts.get(at)?))
}
