//! Live mean and variance per cell, updated as results arrive (Welford 1962).
//!
//! Good for watching; what `table` prints is recomputed from the stored rows.

use std::collections::HashMap;

use ergodic_common::Outcome;

/// Mean and variance of a stream of numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Running {
    /// How many.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    squares: f64,
}

impl Running {
    /// Takes one more.
    pub fn add(&mut self, x: f64) {
        self.n += 1;
        let delta = x - self.mean;
        self.mean += delta / self.n as f64;
        self.squares += delta * (x - self.mean);
    }

    /// Takes as many more as another one has (Chan, Golub and LeVeque 1983).
    pub fn merge(&mut self, other: &Self) {
        let n = self.n + other.n;
        if n == 0 {
            return;
        }
        let (delta, share) = (other.mean - self.mean, other.n as f64 / n as f64);
        self.squares += other.squares + delta * delta * self.n as f64 * share;
        self.mean += delta * share;
        self.n = n;
    }

    /// Variance with n − 1 in the denominator; `None` below two values.
    pub fn variance(&self) -> Option<f64> {
        (self.n > 1).then(|| self.squares / (self.n - 1) as f64)
    }
}

/// What is known of a cell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// The main metric of completed trials, where it is defined.
    pub metric: Running,
    /// Completed trials; as small numbers, since there may be millions of cells.
    pub completed: u32,
    /// Diverged ones.
    pub diverged: u32,
    /// Failed ones.
    pub failed: u32,
}

/// The live picture of a sweep's main metric.
#[derive(Debug, Clone, Default)]
pub struct Live {
    cells: HashMap<u64, Tally>,
}

impl Live {
    /// Takes a trial's value.
    pub fn add(&mut self, cell: u64, outcome: &Outcome, value: f64) {
        let tally = self.cells.entry(cell).or_default();
        *match outcome {
            Outcome::Completed => &mut tally.completed,
            Outcome::Diverged { .. } => &mut tally.diverged,
            Outcome::Failed { .. } => &mut tally.failed,
        } += 1;
        if *outcome == Outcome::Completed && value.is_finite() {
            tally.metric.add(value);
        }
    }

    /// A failed trial is to be run again.
    pub fn forget_failed(&mut self, cell: u64) {
        if let Some(tally) = self.cells.get_mut(&cell) {
            tally.failed = tally.failed.saturating_sub(1);
        }
    }

    /// Cells of which something is known.
    pub fn cells(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.cells.keys().copied()
    }

    /// What is known of a cell.
    pub fn cell(&self, cell: u64) -> Tally {
        self.cells.get(&cell).copied().unwrap_or_default()
    }

    /// The cell with the best mean so far; ties go to the lower number.
    pub fn best(&self, larger_is_better: bool) -> Option<(u64, Running)> {
        let sign = if larger_is_better { 1.0 } else { -1.0 };
        let better = |a: &(u64, Running), b: &(u64, Running)| {
            (sign * a.1.mean).total_cmp(&(sign * b.1.mean)).then(b.0.cmp(&a.0))
        };
        let valued = self.cells.iter().map(|(cell, tally)| (*cell, tally.metric)).filter(|(_, metric)| metric.n > 0);
        valued.max_by(better)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn welford_agrees_with_the_two_pass_formula() {
        let values = [1e6 + 1.0, 1e6 + 2.0, 1e6 + 4.0, 1e6 + 7.0];
        let mut running = Running::default();
        values.iter().for_each(|x| running.add(*x));
        assert_eq!(running.mean, 1e6 + 3.5);
        assert!((running.variance().expect("four values") - 7.0).abs() < 1e-9);
        assert_eq!(Running { n: 1, ..running }.variance(), None);
    }

    #[test]
    fn the_best_cell_counts_completed_trials_only() {
        let mut live = Live::default();
        live.add(3, &Outcome::Completed, 0.5);
        live.add(4, &Outcome::Diverged { step: 1 }, 0.9);
        live.add(5, &Outcome::Completed, f64::NAN);
        live.add(2, &Outcome::Completed, 0.5);
        assert_eq!(live.best(true).map(|(cell, _)| cell), Some(2));
        assert_eq!((live.cell(4).diverged, live.cell(4).metric.n, live.cell(9)), (1, 0, Tally::default()));
        assert_eq!((live.cell(5).completed, live.cell(5).metric.n), (1, 0));
        live.add(6, &Outcome::Failed { cause: String::new() }, f64::NAN);
        live.forget_failed(6);
        assert_eq!(live.cell(6), Tally::default());
    }

    #[test]
    fn two_streams_merged_are_one() {
        let values = [0.5, 0.25, 8.0, -3.0, 1.5];
        let of = |values: &[f64]| {
            let mut running = Running::default();
            values.iter().for_each(|x| running.add(*x));
            running
        };
        for cut in 0..=values.len() {
            let (mut left, right) = (of(&values[..cut]), of(&values[cut..]));
            left.merge(&right);
            let all = of(&values);
            assert_eq!(left.n, all.n);
            assert!((left.mean - all.mean).abs() < 1e-12);
            assert!((left.variance().expect("five") - all.variance().expect("five")).abs() < 1e-9);
        }
    }
}
