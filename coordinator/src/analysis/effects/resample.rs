//! Cell means over resampled repeats.

use ergodic_common::random_streams::RandomStream;
use rayon::prelude::*;

/// Values by repeat and cell; some may be missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RepeatBlocks {
    cells: usize,
    /// Numbers of the repeats.
    numbers: Vec<u32>,
    /// Values, `[repeat][cell]`; 0 if missing.
    values: Vec<f64>,
    /// Whether there is a value, as 1 or 0.
    present: Vec<f64>,
}

/// Number of resamples drawn at a time.
const RESAMPLES_PER_BATCH: usize = 256;

impl RepeatBlocks {
    /// Arranges values of cells, which are in the order of repeats, by repeat. Leaves out repeats
    /// without values.
    pub(super) fn new(cells: &[&[(u32, f64)]]) -> Self {
        let mut repeats: Vec<u32> = cells
            .iter()
            .flat_map(|values| values.iter().map(|(repeat, _)| *repeat))
            .collect();
        repeats.sort_unstable();
        repeats.dedup();

        let size = repeats.len() * cells.len();
        let values = vec![0.0; size];
        let present = vec![0.0; size];
        let mut blocks = Self {
            cells: cells.len(),
            numbers: repeats,
            values,
            present,
        };

        for (cell, values) in cells.iter().enumerate() {
            for (repeat, value) in *values {
                let row = blocks
                    .numbers
                    .binary_search(repeat)
                    .expect("every repeat is in the list");
                (
                    blocks.values[row * cells.len() + cell],
                    blocks.present[row * cells.len() + cell],
                ) = (*value, 1.0);
            }
        }

        blocks
    }

    /// Number of repeats.
    pub(super) fn repeat_count(&self) -> usize {
        self.values.len() / self.cells.max(1)
    }

    /// Numbers of the repeats.
    pub(super) fn repeat_numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// Whether every cell has every repeat.
    pub(super) fn is_complete(&self) -> bool {
        self.present.iter().all(|present| *present == 1.0)
    }

    /// Values of a repeat, one per cell.
    pub(super) fn repeat_values(&self, repeat: usize) -> &[f64] {
        &self.values[repeat * self.cells..(repeat + 1) * self.cells]
    }

    /// Draws whole repeats with replacement `resamples` times, as many as there are, and calls `of`
    /// with the cell means over them; returns the results in order. Leaves out resamples in which a
    /// cell has no value.
    pub(super) fn resample_means<T: Send>(
        &self,
        resamples: usize,
        stream: &mut RandomStream,
        of: impl Fn(&[f64]) -> T + Sync,
    ) -> Vec<T> {
        let found = resample_weights(self.repeat_count(), resamples, stream, |weights| {
            Some(of(&self.weighted_means(weights)?))
        });
        found.into_iter().flatten().collect()
    }

    /// Mean of each cell over weighted repeats; `None` if a cell has none.
    pub(super) fn weighted_means(&self, weights: &[f64]) -> Option<Vec<f64>> {
        let mut sums = vec![0.0; self.cells];
        let mut counts = vec![0.0; self.cells];
        let rows = self
            .values
            .chunks_exact(self.cells)
            .zip(self.present.chunks_exact(self.cells));
        for (weight, (values, present)) in weights
            .iter()
            .zip(rows)
            .filter(|(weight, _)| **weight > 0.0)
        {
            for (at, (value, present)) in values.iter().zip(present).enumerate() {
                sums[at] += weight * value;
                counts[at] += weight * present;
            }
        }

        let means = sums
            .iter()
            .zip(&counts)
            .map(|(sum, count)| (*count > 0.0).then(|| sum / count));
        means.collect()
    }
}

/// Draws `repeats` of as many repeats with replacement, `resamples` times, and calls `of` with how
/// often each was drawn; returns the results in order.
pub(super) fn resample_weights<T: Send>(
    repeats: usize,
    resamples: usize,
    stream: &mut RandomStream,
    of: impl Fn(&[f64]) -> T + Sync,
) -> Vec<T> {
    let mut all = Vec::with_capacity(resamples);
    for start in (0..resamples).step_by(RESAMPLES_PER_BATCH) {
        let batch: Vec<Vec<f64>> = (0..RESAMPLES_PER_BATCH.min(resamples - start))
            .map(|_| draw_weights(repeats, stream))
            .collect();

        all.par_extend(batch.par_iter().map(|weights| of(weights)));
    }

    all
}

/// How often each repeat is drawn, if as many are drawn with replacement as there are.
fn draw_weights(repeats: usize, stream: &mut RandomStream) -> Vec<f64> {
    let mut weights = vec![0.0; repeats];
    for _ in 0..repeats {
        weights[stream.next_below(repeats as u32) as usize] += 1.0;
    }
    weights
}
