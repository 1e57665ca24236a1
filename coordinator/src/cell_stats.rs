//! Running mean and variance of a cell (Welford 1962), which the core updates as results arrive and
//! the store keeps of sealed sweeps.

use ergodic_common::Outcome;

/// Mean and variance of a stream of numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RunningStats {
    /// Number of values.
    pub n: u64,
    /// The mean of the values.
    pub mean: f64,
    /// Sum of the squared deviations from the mean.
    pub(crate) squared_deviations: f64,
}

impl RunningStats {
    /// Adds a value.
    pub fn add(&mut self, x: f64) {
        self.n += 1;
        let delta = x - self.mean;
        self.mean += delta / self.n as f64;
        self.squared_deviations += delta * (x - self.mean);
    }

    /// Adds the values of another one (Chan, Golub and LeVeque 1983).
    pub fn merge(&mut self, other: &Self) {
        let n = self.n + other.n;
        if n == 0 {
            return;
        }

        let delta = other.mean - self.mean;
        let share = other.n as f64 / n as f64;
        self.squared_deviations += other.squared_deviations + delta * delta * self.n as f64 * share;
        self.mean += delta * share;
        self.n = n;
    }

    /// Variance with n − 1 in the denominator; `None` below two values.
    pub fn variance(&self) -> Option<f64> {
        (self.n > 1).then(|| self.squared_deviations / (self.n - 1) as f64)
    }
}

/// Running statistics of a cell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CellStats {
    /// The main metric of completed trials, as far as it is defined.
    pub metric: RunningStats,
    /// Number of completed trials, as `u32`, because there may be millions of cells.
    pub completed: u32,
    /// Number of diverged trials.
    pub diverged: u32,
    /// Number of failed trials.
    pub failed: u32,
}

impl CellStats {
    /// Counts a trial's outcome and value.
    pub(crate) fn record_trial(&mut self, outcome: &Outcome, value: f64) {
        *match outcome {
            Outcome::Completed => &mut self.completed,
            Outcome::Diverged { .. } => &mut self.diverged,
            Outcome::Failed { .. } => &mut self.failed,
        } += 1;

        if *outcome == Outcome::Completed && value.is_finite() {
            self.metric.add(value);
        }
    }

    /// Number of trials with a row.
    pub(crate) fn count_rows(&self) -> u64 {
        u64::from(self.completed) + u64::from(self.diverged) + u64::from(self.failed)
    }
}

/// Adds a trial's duration to the moving average of those before it, both in seconds.
pub(crate) fn average_seconds(before: Option<f64>, seconds: f64) -> f64 {
    before.map_or(seconds, |average| 0.9 * average + 0.1 * seconds)
}
