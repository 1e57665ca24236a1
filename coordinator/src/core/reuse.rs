//! Selects the rows of other sweeps that a new sweep can start with: those of trials that it would
//! run itself.

use std::collections::HashMap;
use std::sync::Arc;

use ergodic_common::ids::{CellIndex, DatasetHash, SweepNumber};
use ergodic_common::{Spec, TrialKey};

use super::Sweep;
use crate::records::{SweepRow, SweepState};
use crate::stored_row::StoredRow;

/// A stored sweep, summarized for a comparison with a new one.
#[derive(Debug, Clone)]
pub struct ComparableSweep {
    /// Number of the sweep.
    pub number: SweepNumber,
    /// The row that it was launched with.
    pub record: Arc<SweepRow>,
    /// The spec in its file.
    pub spec: Arc<Spec>,
    /// The sweep's state.
    pub state: SweepState,
    /// Number of trials with a row.
    pub done: u64,
    /// Number of failed trials.
    pub failed: u64,
}

impl Sweep {
    /// Summarizes the sweep if its trials may equal those of a sweep with `spec` on this data,
    /// which requires the same seed, streams and numerics class.
    pub fn summarize_if_comparable(
        &self,
        spec: &Spec,
        data: Option<DatasetHash>,
    ) -> Option<ComparableSweep> {
        let same = (self.spec.seed, &self.spec.numerics, &self.spec.seeds)
            == (spec.seed, &spec.numerics, &spec.seeds);
        (same && self.withheld.is_none() && self.record.data.hash == data).then(|| {
            ComparableSweep {
                number: self.number,
                record: self.record.clone(),
                spec: self.spec.clone(),
                state: self.state,
                done: self.counts.done(),
                failed: self.counts.failed,
            }
        })
    }

    /// Cells with a row; `None` if there are more than `most`.
    pub fn begun_cells(&self, most: usize) -> Option<Vec<CellIndex>> {
        (self.live_stats.known_cells().len() <= most)
            .then(|| self.live_stats.known_cells().collect())
    }

    /// Number of repeats of a cell that may run, as far as is known.
    fn allowed_repeats(&self, cell: CellIndex) -> u32 {
        self.adaptive_repeats
            .as_ref()
            .map_or(self.spec.repeats, |adaptive| adaptive.allowed_repeats(cell))
    }

    /// Number of trials of a cell without a row, among the repeats below `below`.
    pub fn count_trials_left(&self, cell: CellIndex, below: u32) -> u64 {
        let allowed = self.allowed_repeats(cell);
        let stats = self.live_stats.cell_stats(cell);
        u64::from(
            allowed
                .min(below)
                .saturating_sub(stats.completed + stats.diverged + stats.failed),
        )
    }
}

/// For every cell, the number of repeats whose rows the new sweep can use. Under a stopping rule,
/// it excludes repeats that the new sweep would not run.
pub fn find_wanted_repeats(
    record: &SweepRow,
    spec: &Arc<Spec>,
    rows: Vec<StoredRow>,
) -> HashMap<CellIndex, u32> {
    let cells: Vec<CellIndex> = rows.iter().map(|row| row.key.cell).collect();
    let mut sweep = Sweep::new(Arc::new(record.clone()), spec.clone());
    let mut waiting: HashMap<TrialKey, StoredRow> = HashMap::new();

    for row in rows {
        waiting.entry(row.key).or_insert(row);
    }

    loop {
        let mut now: Vec<TrialKey> = waiting
            .keys()
            .copied()
            .filter(|key| sweep.needs_trial(*key))
            .collect();
        if now.is_empty() {
            break;
        }

        now.sort_unstable();
        let now: Vec<StoredRow> = now.iter().filter_map(|key| waiting.remove(key)).collect();
        sweep.record_initial_rows(now);
    }

    cells
        .into_iter()
        .map(|cell| (cell, sweep.allowed_repeats(cell)))
        .collect()
}
