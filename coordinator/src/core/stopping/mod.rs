//! Sweeps whose number of trials depends on their results.
//!
//! Repeats of a cell are *allowed* when all repeats that the decision stands on have a row. So which trials are run depends on
//! what they yield alone, not on who ran them, nor in what order they ended. What is allowed stays so: where a row is taken
//! away, to be made again, the decision is made anew once it is back, and trials beyond it may have rows by then.

mod halving;
mod precision;

use std::ops::Range;

use ergodic_common::spec::stopping_rule::{StoppingCriterion, StoppingRule};
use ergodic_common::{Outcome, Spec, TrialKey};
pub use halving::SuccessiveHalving;
pub use precision::{PrecisionProgress, PrecisionRepeats};

/// How far the cells of a sweep are.
#[derive(Debug)]
pub enum AdaptiveRepeats {
    /// Each is repeated until the mean of a metric is known well enough.
    Precision(PrecisionRepeats),
    /// Each is repeated as long as it is among the best.
    Halving(SuccessiveHalving),
}

/// Repeats of cells that may be run from now on.
pub(super) type Allowance = Vec<(u64, Range<u32>)>;

impl AdaptiveRepeats {
    /// Nothing is known of any cell.
    pub(super) fn new(spec: &Spec, rule: &StoppingRule) -> Self {
        let rungs = rule.rungs(spec.repeats);
        match rule.criterion {
            StoppingCriterion::Precision { ci95 } => {
                Self::Precision(PrecisionRepeats::new(spec, ci95, rungs))
            }
            StoppingCriterion::Halving { factor } => {
                Self::Halving(SuccessiveHalving::new(spec, rule, factor, rungs))
            }
        }
    }

    /// Trials that may be run, as far as is known.
    pub fn total_trials(&self) -> u64 {
        match self {
            Self::Precision(adaptive) => adaptive.total_trials(),
            Self::Halving(adaptive) => adaptive.total_trials(),
        }
    }

    /// Trials that it should come to.
    pub fn expected_trials(&self) -> u64 {
        match self {
            Self::Precision(adaptive) => adaptive.expected_trials(),
            Self::Halving(adaptive) => adaptive.expected_trials(),
        }
    }

    /// Repeats that every cell has.
    pub(super) fn min_repeats(&self) -> u32 {
        match self {
            Self::Precision(adaptive) => adaptive.min_repeats(),
            Self::Halving(adaptive) => adaptive.min_repeats(),
        }
    }

    /// Repeats of a cell that may be run.
    pub fn allowed_repeats(&self, cell: u64) -> u32 {
        match self {
            Self::Precision(adaptive) => adaptive.allowed_repeats(cell),
            Self::Halving(adaptive) => adaptive.allowed_repeats(cell),
        }
    }

    /// The rows that follow are those of a sweep that has ended, which stands by the choices that they show.
    pub(super) fn freeze_decisions(&mut self) {
        if let Self::Halving(adaptive) = self {
            adaptive.freeze_decisions();
        }
    }

    /// All of these rows are there.
    pub(super) fn restore_decisions(&mut self, spec: &Spec) -> Allowance {
        match self {
            Self::Precision(_) => Allowance::new(),
            Self::Halving(adaptive) => adaptive.restore_decisions(spec),
        }
    }

    /// A trial has a row, with this value of the deciding metric.
    pub(super) fn record_row(&mut self, key: TrialKey, outcome: &Outcome, value: f64) -> Allowance {
        match self {
            Self::Precision(adaptive) => adaptive.record_row(key, outcome, value),
            Self::Halving(adaptive) => adaptive.record_row(key, outcome, value),
        }
    }

    /// A trial's row is gone: what was found with it counts no more.
    pub(super) fn forget_row(&mut self, spec: &Spec, key: TrialKey) -> Allowance {
        match self {
            Self::Precision(adaptive) => {
                adaptive.forget_row(key);
                Allowance::new()
            }
            Self::Halving(adaptive) => adaptive.forget_row(spec, key),
        }
    }

    /// There may be more repeats.
    pub(super) fn extend_repeats(&mut self, spec: &Spec, rule: &StoppingRule) -> Allowance {
        let rungs = rule.rungs(spec.repeats);
        match self {
            Self::Precision(adaptive) => adaptive.extend_repeats(spec, rungs),
            Self::Halving(adaptive) => adaptive.extend_repeats(spec, rule, rungs),
        }
    }

    /// Trials of a cell were given back: they are met again.
    pub(super) fn reopen_cell(&mut self, cell: u64) {
        if let Self::Precision(adaptive) = self {
            adaptive.reopen_cell(cell);
        }
    }

    /// Cells that come before all others and may have more repeats waiting, the first one first.
    pub(super) fn urgent_cells(&self) -> impl Iterator<Item = u64> + '_ {
        let precision = if let Self::Precision(adaptive) = self {
            Some(adaptive)
        } else {
            None
        };
        precision
            .into_iter()
            .flat_map(PrecisionRepeats::widest_cells)
    }

    /// None of a cell's repeats wait any more.
    pub(super) fn close_cell(&mut self, cell: u64) {
        if let Self::Precision(adaptive) = self {
            adaptive.close_cell(cell);
        }
    }
}
