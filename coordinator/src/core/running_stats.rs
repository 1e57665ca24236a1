//! Running statistics of all cells of a sweep, updated as results arrive.
//!
//! Status displays use them; tables are computed from stored rows.

use std::collections::HashMap;

use ergodic_common::Outcome;
use ergodic_common::ids::CellIndex;

pub use crate::cell_stats::{CellStats, RunningStats};

/// Running statistics of a sweep's main metric.
#[derive(Debug, Clone, Default)]
pub struct LiveStats {
    cells: HashMap<CellIndex, CellStats>,
}

impl LiveStats {
    /// Takes the statistics of cells that were computed before.
    pub(crate) fn from_cells(cells: Vec<(CellIndex, CellStats)>) -> Self {
        Self {
            cells: cells.into_iter().collect(),
        }
    }

    /// Counts a trial's outcome and value.
    pub fn record_trial(&mut self, cell: CellIndex, outcome: &Outcome, value: f64) {
        self.cells
            .entry(cell)
            .or_default()
            .record_trial(outcome, value);
    }

    /// Uncounts a failed trial that will run again.
    pub fn forget_failed_trial(&mut self, cell: CellIndex) {
        if let Some(stats) = self.cells.get_mut(&cell) {
            stats.failed = stats.failed.saturating_sub(1);
        }
    }

    /// Cells with a row.
    pub fn known_cells(&self) -> impl ExactSizeIterator<Item = CellIndex> + '_ {
        self.cells.keys().copied()
    }

    /// The statistics of a cell.
    pub fn cell_stats(&self, cell: CellIndex) -> CellStats {
        self.cells.get(&cell).copied().unwrap_or_default()
    }

    /// The cell that looks best so far, by its mean. A diverged trial counts as the worst mean of
    /// all cells, and ties go to the lower number. Tables rank trials within repeats instead, which
    /// takes all values.
    pub fn best_cell(&self, larger_is_better: bool) -> Option<(CellIndex, RunningStats)> {
        let sign = if larger_is_better { 1.0 } else { -1.0 };
        let valued = self.cells.iter().filter(|(_, stats)| stats.metric.n > 0);
        let worst = valued
            .clone()
            .map(|(_, stats)| sign * stats.metric.mean)
            .fold(f64::INFINITY, f64::min);

        valued
            .max_by(|(a_cell, a), (b_cell, b)| {
                let a = a.rank_key(sign, worst);
                let b = b.rank_key(sign, worst);
                a.0.total_cmp(&b.0)
                    .then(a.1.total_cmp(&b.1))
                    .then(b_cell.cmp(a_cell))
            })
            .map(|(cell, stats)| (*cell, stats.metric))
    }
}

impl CellStats {
    /// The key by which cells are compared, larger being better: the mean, with diverged trials at
    /// the `worst` mean, and then the share of trials that did not diverge. The last digits of a mean
    /// depend on the order in which results arrive, so equal means are recognised in single precision.
    fn rank_key(&self, sign: f64, worst: f64) -> (f32, f64) {
        let n = self.metric.n as f64;
        let diverged = f64::from(self.diverged);
        let score = (n * sign * self.metric.mean + diverged * worst) / (n + diverged);
        (score as f32, -diverged / (n + diverged))
    }
}

#[cfg(test)]
mod tests {
    use crate::core::running_stats::*;

    #[test]
    fn welford_agrees_with_the_two_pass_formula() {
        let values = [1e6 + 1.0, 1e6 + 2.0, 1e6 + 4.0, 1e6 + 7.0];
        let mut running = RunningStats::default();
        values.iter().for_each(|x| running.add(*x));
        assert_eq!(running.mean, 1e6 + 3.5);
        assert!((running.variance().expect("four values") - 7.0).abs() < 1e-9);
        assert_eq!(RunningStats { n: 1, ..running }.variance(), None);
    }

    #[test]
    fn a_cell_whose_few_survivors_are_good_is_not_the_best() {
        let mut live = LiveStats::default();
        for value in [0.5, 0.6, 0.4] {
            live.record_trial(CellIndex(1), &Outcome::Completed, value);
            live.record_trial(CellIndex(2), &Outcome::Diverged { step: 1 }, f64::NAN);
            live.record_trial(CellIndex(3), &Outcome::Completed, 0.1);
        }

        live.record_trial(CellIndex(2), &Outcome::Completed, 0.9);
        assert_eq!(
            live.best_cell(true).map(|(cell, _)| cell),
            Some(CellIndex(1))
        );
        assert_eq!(
            live.best_cell(false).map(|(cell, _)| cell),
            Some(CellIndex(3))
        );
    }

    #[test]
    fn the_order_of_arrival_does_not_decide_among_equal_cells() {
        let values = [0.41, 0.31, 0.27, 0.33, 0.37, 0.29];
        let mean_of = |values: &[f64]| {
            let mut running = RunningStats::default();
            values.iter().for_each(|x| running.add(*x));
            running.mean
        };
        // Orders of arrival, each the list turned to begin elsewhere.
        let turned = (0..values.len()).map(|from| [&values[from..], &values[..from]].concat());
        let orders: Vec<Vec<f64>> = turned.collect();
        assert!(
            orders
                .iter()
                .any(|order| mean_of(order) != mean_of(&values))
        );

        for order in &orders {
            let mut live = LiveStats::default();
            for (first, second) in values.iter().zip(order) {
                live.record_trial(CellIndex(1), &Outcome::Completed, *first);
                live.record_trial(CellIndex(2), &Outcome::Completed, *second);
            }
            let best = [true, false].map(|larger| live.best_cell(larger).map(|(cell, _)| cell));
            assert_eq!(best, [Some(CellIndex(1)); 2], "{order:?}");
        }
    }

    #[test]
    fn the_best_cell_counts_completed_trials_only() {
        let mut live = LiveStats::default();
        live.record_trial(CellIndex(3), &Outcome::Completed, 0.5);
        live.record_trial(CellIndex(4), &Outcome::Diverged { step: 1 }, 0.9);
        live.record_trial(CellIndex(5), &Outcome::Completed, f64::NAN);
        live.record_trial(CellIndex(2), &Outcome::Completed, 0.5);
        assert_eq!(
            live.best_cell(true).map(|(cell, _)| cell),
            Some(CellIndex(2))
        );

        assert_eq!(
            (
                live.cell_stats(CellIndex(4)).diverged,
                live.cell_stats(CellIndex(4)).metric.n,
                live.cell_stats(CellIndex(9))
            ),
            (1, 0, CellStats::default())
        );

        assert_eq!(
            (
                live.cell_stats(CellIndex(5)).completed,
                live.cell_stats(CellIndex(5)).metric.n
            ),
            (1, 0)
        );
        live.record_trial(
            CellIndex(6),
            &Outcome::Failed {
                cause: String::new(),
            },
            f64::NAN,
        );

        live.forget_failed_trial(CellIndex(6));
        assert_eq!(live.cell_stats(CellIndex(6)), CellStats::default());
    }

    #[test]
    fn two_streams_merged_are_one() {
        let values = [0.5, 0.25, 8.0, -3.0, 1.5];
        let of = |values: &[f64]| {
            let mut running = RunningStats::default();
            values.iter().for_each(|x| running.add(*x));
            running
        };

        for cut in 0..=values.len() {
            let mut left = of(&values[..cut]);
            let right = of(&values[cut..]);
            left.merge(&right);
            let all = of(&values);
            assert_eq!(left.n, all.n);
            assert!((left.mean - all.mean).abs() < 1e-12);

            assert!((left.variance().expect("five") - all.variance().expect("five")).abs() < 1e-9);
        }
    }
}
