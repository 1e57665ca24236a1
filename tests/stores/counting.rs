//! A store that counts the rows that are read from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ergodic::records::{LeaseRow, SweepRow};
use ergodic::store::{
    Attempt, Audit, Damage, EndedTrial, OutputReader, ReadableStore, RowCursor, SampledTrial,
    SnapshotReaders, StoreError, StoreReader, StoredOutput, StoredTrial, TrialRange,
};
use ergodic::sweep_seal::SweepSeal;
use ergodic_common::TrialKey;
use ergodic_common::ids::{FileHash, LeaseId, SweepNumber};
use ergodic_common::program::output::PackedOutput;
use ergodic_common::trial::Predictions;

/// Rows of trials and audits that were read.
#[derive(Clone, Default)]
struct RowCount(Arc<AtomicU64>);

impl RowCount {
    fn add(&self, rows: usize) {
        self.0.fetch_add(rows as u64, Ordering::Relaxed);
    }
}

/// A store behind a count.
pub(crate) struct CountingStore<'a> {
    store: &'a dyn ReadableStore,
    count: RowCount,
}

impl<'a> CountingStore<'a> {
    pub(crate) fn new(store: &'a dyn ReadableStore) -> Self {
        Self {
            store,
            count: RowCount::default(),
        }
    }

    /// Number of rows of trials and audits that were read.
    pub(crate) fn rows_read(&self) -> u64 {
        self.count.0.load(Ordering::Relaxed)
    }
}

impl ReadableStore for CountingStore<'_> {
    fn open_reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        let reader = self.store.open_reader()?;
        let count = self.count.clone();
        Ok(Box::new(CountingReader { reader, count }))
    }

    fn open_readers(&self, most: usize) -> Result<SnapshotReaders, StoreError> {
        let readers = (0..most.max(1)).map(|_| self.open_reader());
        Ok(SnapshotReaders::new(readers.collect::<Result<_, _>>()?))
    }
}

struct CountingReader {
    reader: Box<dyn StoreReader>,
    count: RowCount,
}

impl OutputReader for CountingReader {
    fn read_output(
        &self,
        sweep: SweepNumber,
        key: TrialKey,
        attempt: u32,
    ) -> Result<Option<PackedOutput>, StoreError> {
        self.reader.read_output(sweep, key, attempt)
    }

    fn read_outputs(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(StoredOutput),
    ) -> Result<(), StoreError> {
        self.reader.read_outputs(sweep, each)
    }
}

impl StoreReader for CountingReader {
    fn read_sweeps(&self) -> Result<Vec<SweepRow>, StoreError> {
        self.reader.read_sweeps()
    }

    fn read_seal(&self, sweep: SweepNumber) -> Result<Option<SweepSeal>, StoreError> {
        self.reader.read_seal(sweep)
    }

    fn read_unfinished_removals(&self) -> Result<Vec<SweepNumber>, StoreError> {
        self.reader.read_unfinished_removals()
    }

    fn has_trial_with_weights(&self, weights: &FileHash) -> Result<bool, StoreError> {
        self.reader.has_trial_with_weights(weights)
    }

    fn read_leases(&self) -> Result<(Vec<LeaseRow>, LeaseId), StoreError> {
        self.reader.read_leases()
    }

    fn read_intact_trials(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(StoredTrial),
    ) -> Result<Vec<Damage>, StoreError> {
        self.reader.read_intact_trials(sweep, &mut |row| {
            self.count.add(1);
            each(row);
        })
    }

    fn read_intact_ended_trials(
        &self,
        sweep: SweepNumber,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<Vec<Damage>, StoreError> {
        self.reader
            .read_intact_ended_trials(sweep, part, &mut |row| {
                self.count.add(1);
                each(row);
            })
    }

    fn read_weights_hashes(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(TrialKey, FileHash),
    ) -> Result<Vec<Damage>, StoreError> {
        self.reader.read_weights_hashes(sweep, &mut |key, hash| {
            self.count.add(1);
            each(key, hash);
        })
    }

    fn read_trials(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(StoredTrial) -> bool,
    ) -> Result<(), StoreError> {
        self.reader.read_trials(sweep, &mut |row| {
            self.count.add(1);
            each(row)
        })
    }

    fn read_row_cursors(&self, sweep: SweepNumber, row: u64) -> Result<[RowCursor; 2], StoreError> {
        let cursors = self.reader.read_row_cursors(sweep, row)?;
        self.count.add(cursors[1].row_count as usize);
        Ok(cursors)
    }

    fn read_trials_after(
        &self,
        sweep: SweepNumber,
        row: u64,
        each: &mut dyn FnMut(StoredTrial) -> bool,
    ) -> Result<(), StoreError> {
        self.reader.read_trials_after(sweep, row, &mut |row| {
            self.count.add(1);
            each(row)
        })
    }

    fn read_trial(
        &self,
        sweep: SweepNumber,
        key: TrialKey,
    ) -> Result<Option<StoredTrial>, StoreError> {
        self.count.add(1);
        self.reader.read_trial(sweep, key)
    }

    fn read_attempts(&self, sweep: SweepNumber, key: TrialKey) -> Result<Vec<Attempt>, StoreError> {
        self.reader.read_attempts(sweep, key)
    }

    fn read_audits(&self, sweep: SweepNumber) -> Result<Vec<Audit>, StoreError> {
        let audits = self.reader.read_audits(sweep)?;
        self.count.add(audits.len());
        Ok(audits)
    }

    fn read_audit(&self, sweep: SweepNumber, key: TrialKey) -> Result<Option<Audit>, StoreError> {
        self.count.add(1);
        self.reader.read_audit(sweep, key)
    }

    fn read_all_attempts(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(TrialKey, Attempt),
    ) -> Result<(), StoreError> {
        self.reader.read_all_attempts(sweep, each)
    }

    fn read_ended_trials(
        &self,
        sweep: SweepNumber,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<(), StoreError> {
        self.reader.read_ended_trials(sweep, part, &mut |row| {
            self.count.add(1);
            each(row);
        })
    }

    fn read_curves(
        &self,
        sweep: SweepNumber,
        part: TrialRange,
        each: &mut dyn FnMut(SampledTrial<'_>),
    ) -> Result<(), StoreError> {
        self.reader.read_curves(sweep, part, &mut |row| {
            self.count.add(1);
            each(row);
        })
    }

    fn read_predictions(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(TrialKey, Predictions) -> bool,
    ) -> Result<(), StoreError> {
        self.reader.read_predictions(sweep, &mut |key, row| {
            self.count.add(1);
            each(key, row)
        })
    }
}
