//! Reading a large sweep with several threads: its trials are cut into parts, and each thread has a reader of its own. All readers
//! see the same moment, and what they find is put together in the order of the parts, so that the number of threads changes nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store::TrialRange;
use crate::store::reader::StoreReader;

/// Parts per reader: enough that no thread waits long for one that has a part with more rows.
pub(crate) const RANGES_PER_READER: u64 = 8;

/// Readers that see the same moment, at least one.
pub struct SnapshotReaders(pub(crate) Vec<Mutex<Box<dyn StoreReader>>>);

impl SnapshotReaders {
    /// Takes readers, of which the caller knows that all see the same moment.
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
    /// `work` failed; the error is that of the first part for which it did.
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

pub(crate) fn take_next_range<'a>(
    parts: &'a [TrialRange],
    next: &AtomicUsize,
) -> Option<(usize, &'a TrialRange)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, parts.get(at)?))
}
