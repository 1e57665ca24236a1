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

    /// Variance with n − 1 in the denominator; `None` below two values.
    pub fn variance(&self) -> Option<f64> {
        (self.n > 1).then(|| self.squares / (self.n - 1) as f64)
    }
}

/// The live picture of a sweep's main metric.
#[derive(Debug, Clone, Default)]
pub struct Live {
    cells: HashMap<u64, Running>,
}

impl Live {
    /// Takes a trial's value.
    pub fn add(&mut self, cell: u64, outcome: &Outcome, value: f64) {
        if *outcome == Outcome::Completed && value.is_finite() {
            self.cells.entry(cell).or_default().add(value);
        }
    }

    /// The cell with the best mean so far; ties go to the lower number.
    pub fn best(&self, larger_is_better: bool) -> Option<(u64, Running)> {
        let sign = if larger_is_better { 1.0 } else { -1.0 };
        let better = |a: &(u64, Running), b: &(u64, Running)| {
            (sign * a.1.mean).total_cmp(&(sign * b.1.mean)).then(b.0.cmp(&a.0))
        };
        self.cells.iter().map(|(cell, running)| (*cell, *running)).max_by(better)
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
    }
}
