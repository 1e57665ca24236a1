//! Which rows of other sweeps a new one begins with: those of the trials that it would run itself.

use std::collections::HashMap;
use std::sync::Arc;

use ergodic_common::{Spec, TrialKey};

use super::Sweep;
use crate::records::{SweepRow, SweepState};
use crate::stored_row::StoredRow;

/// How a sweep compares with one that is to be launched.
#[derive(Debug, Clone)]
pub struct ComparableSweep {
    /// The sweep's number.
    pub number: i64,
    /// The row that it was launched with.
    pub record: Arc<SweepRow>,
    /// The spec that its file says.
    pub spec: Arc<Spec>,
    /// The sweep's state.
    pub state: SweepState,
    /// Trials with a row.
    pub done: u64,
    /// Failed trials among them.
    pub failed: u64,
}

impl Sweep {
    /// A summary, if trials of this sweep may be those of a sweep with `spec` on this data: of the same seed, streams and numerics
    /// class.
    pub fn summarize_if_comparable(
        &self,
        spec: &Spec,
        data: Option<[u8; 32]>,
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

    /// Cells with a row; `None` if they are more than `most`.
    pub fn begun_cells(&self, most: usize) -> Option<Vec<u64>> {
        (self.live_stats.known_cells().len() <= most)
            .then(|| self.live_stats.known_cells().collect())
    }

    /// Repeats of a cell that may be run, as far as is known.
    fn allowed_repeats(&self, cell: u64) -> u32 {
        self.adaptive_repeats
            .as_ref()
            .map_or(self.spec.repeats, |adaptive| adaptive.allowed_repeats(cell))
    }

    /// Trials of a cell that are still to be run, of the repeats below this one.
    pub fn count_trials_left(&self, cell: u64, below: u32) -> u64 {
        let allowed = self.allowed_repeats(cell);
        let stats = self.live_stats.cell_stats(cell);
        u64::from(
            allowed
                .min(below)
                .saturating_sub(stats.completed + stats.diverged + stats.failed),
        )
    }
}

/// For every cell the repeat from which on rows are not wanted. Where results decide how often a cell is repeated, those that the
/// sweep would not run are none of its trials.
pub fn find_wanted_repeats(
    record: &SweepRow,
    spec: &Arc<Spec>,
    rows: Vec<StoredRow>,
) -> HashMap<u64, u32> {
    let cells: Vec<u64> = rows.iter().map(|row| row.key.cell).collect();
    let mut sweep = Sweep::new(Arc::new(record.clone()), spec.clone());
    let mut waiting: HashMap<TrialKey, StoredRow> = HashMap::new();

    // Of several rows of a trial the first one counts.
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
