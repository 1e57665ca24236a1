//! The stored rows of a sweep, read in ranges on several threads.

use ergodic_common::ids::{CellHash, CellIndex, DatasetHash, Repeat, SweepNumber};
use ergodic_common::random_streams::{Purpose, RandomStream};
use ergodic_common::{Spec, TrialKey};

use crate::store::{SnapshotReaders, StoreError, StoreReader, TrialRange};

/// The source of a sweep's rows.
#[derive(Clone, Copy)]
pub struct RowSource<'a> {
    /// The spec of the sweep.
    pub spec: &'a Spec,
    /// Number of the sweep in the store.
    pub sweep: SweepNumber,
    /// Readers of the store.
    pub readers: &'a SnapshotReaders,
    /// BLAKE3 hash of the sweep's dataset, which belongs to the identity of its cells; zeros
    /// without a dataset.
    pub dataset_hash: DatasetHash,
}

/// What identifies the cells of a sweep, independent of their rows.
#[derive(Clone, Copy)]
pub(super) struct CellContext<'a> {
    pub(super) spec: &'a Spec,
    pub(super) dataset_hash: DatasetHash,
}

/// A half-open range of cell numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CellRange {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl CellRange {
    pub(super) const ALL: Self = Self {
        from: 0,
        to: TrialRange::ALL.to.cell.0,
    };

    pub(super) fn contains(self, cell: CellIndex) -> bool {
        (self.from..self.to).contains(&cell.0)
    }
}

impl<'a> RowSource<'a> {
    /// Opens the random stream for resampling some cells.
    pub(super) fn resampling_stream(self, cells: &[CellIndex]) -> RandomStream {
        self.cell_context().resampling_stream(cells)
    }

    /// Calls `work` for each range of the rows, on several threads; returns the results ordered by
    /// cell and repeat.
    pub(super) fn map_ranges<T: Send>(
        self,
        work: impl Fn(&dyn StoreReader, TrialRange) -> Result<T, StoreError> + Sync,
    ) -> Result<Vec<T>, StoreError> {
        self.readers.map_ranges(
            &self
                .readers
                .split_trials(self.spec.grid.cell_number_bound(), self.spec.repeats),
            work,
        )
    }

    /// Calls `work` for each range of the rows of some cells, as [`RowSource::map_ranges`] does for
    /// all.
    pub(super) fn map_cell_ranges<T: Send>(
        self,
        within: CellRange,
        work: impl Fn(&dyn StoreReader, TrialRange) -> Result<T, StoreError> + Sync,
    ) -> Result<Vec<T>, StoreError> {
        if within == CellRange::ALL {
            return self.map_ranges(work);
        }

        let mut parts = self
            .readers
            .split_trials(within.to - within.from, self.spec.repeats);
        for part in &mut parts {
            part.from.cell.0 += within.from;
            part.to.cell.0 = part.to.cell.0.saturating_add(within.from);
        }

        if let Some(last) = parts.last_mut() {
            last.to = TrialKey {
                cell: CellIndex(within.to),
                repeat: Repeat(0),
            };
        }

        self.readers.map_ranges(&parts, work)
    }

    pub(super) fn cell_context(self) -> CellContext<'a> {
        CellContext {
            spec: self.spec,
            dataset_hash: self.dataset_hash,
        }
    }
}

impl CellContext<'_> {
    /// Opens the random stream for resampling some cells. It depends on the identity of the cells,
    /// not on their numbers in the grid.
    pub(super) fn resampling_stream(self, cells: &[CellIndex]) -> RandomStream {
        let configs = cells
            .iter()
            .filter_map(|cell| self.spec.grid.resolve_config(*cell).ok());
        let identity: Vec<u8> = configs
            .flat_map(|config| self.spec.compute_cell_hash(&config, self.dataset_hash).0)
            .collect();

        let streams = self
            .spec
            .trial_streams(TrialKey::new(0, 0), CellHash([0; 32]));
        streams.open_stream(Purpose::Bootstrap, &identity)
    }
}
