//! Stopping rules: sweeps whose number of trials depends on their results.
//!
//! Repeats of a cell are *allowed* when all repeats that the decision depends on have a row. So the
//! set of trials depends only on their results, and not on workers or on the order in which trials
//! end. Allowed repeats stay allowed: if a row is removed so that its trial runs again, the
//! decision is made anew with the new row, and trials beyond it may have rows by then.

mod halving;
mod precision;

use std::ops::Range;

use ergodic_common::ids::CellIndex;
use ergodic_common::spec::stopping_rule::{StoppingCriterion, StoppingRule};
use ergodic_common::{Outcome, Spec, TrialKey};
pub use halving::SuccessiveHalving;
pub use precision::{PrecisionProgress, PrecisionRepeats};

/// The progress of a stopping rule.
#[derive(Debug)]
pub enum AdaptiveRepeats {
    /// Each cell is repeated until the mean of a metric is precise enough.
    Precision(PrecisionRepeats),
    /// Each cell is repeated as long as it is among the best.
    Halving(SuccessiveHalving),
}

/// Repeats of cells that may run from now on.
pub(super) type Allowance = Vec<(CellIndex, Range<u32>)>;

impl AdaptiveRepeats {
    /// Creates the state before any row.
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

    /// Number of trials that may run, as far as is known.
    pub fn total_trials(&self) -> u64 {
        match self {
            Self::Precision(adaptive) => adaptive.total_trials(),
            Self::Halving(adaptive) => adaptive.total_trials(),
        }
    }

    /// Expected number of trials in the end.
    pub fn expected_trials(&self) -> u64 {
        match self {
            Self::Precision(adaptive) => adaptive.expected_trials(),
            Self::Halving(adaptive) => adaptive.expected_trials(),
        }
    }

    /// Number of repeats that every cell gets.
    pub(super) fn min_repeats(&self) -> u32 {
        match self {
            Self::Precision(adaptive) => adaptive.min_repeats(),
            Self::Halving(adaptive) => adaptive.min_repeats(),
        }
    }

    /// Number of repeats of a cell that may run.
    pub fn allowed_repeats(&self, cell: CellIndex) -> u32 {
        match self {
            Self::Precision(adaptive) => adaptive.allowed_repeats(cell),
            Self::Halving(adaptive) => adaptive.allowed_repeats(cell),
        }
    }

    /// Makes no decisions until [`Self::restore_decisions`]: the rows that follow belong to an
    /// ended sweep and show its decisions.
    pub(super) fn freeze_decisions(&mut self) {
        if let Self::Halving(adaptive) = self {
            adaptive.freeze_decisions();
        }
    }

    /// Restores the decisions of an ended sweep, once all its rows are recorded.
    pub(super) fn restore_decisions(&mut self, spec: &Spec) -> Allowance {
        match self {
            Self::Precision(_) => Allowance::new(),
            Self::Halving(adaptive) => adaptive.restore_decisions(spec),
        }
    }

    /// Records the row of a trial, with its value of the deciding metric.
    pub(super) fn record_row(&mut self, key: TrialKey, outcome: &Outcome, value: f64) -> Allowance {
        match self {
            Self::Precision(adaptive) => adaptive.record_row(key, outcome, value),
            Self::Halving(adaptive) => adaptive.record_row(key, outcome, value),
        }
    }

    /// Forgets the row of a trial, and the decisions that depended on it.
    pub(super) fn forget_row(&mut self, spec: &Spec, key: TrialKey) -> Allowance {
        match self {
            Self::Precision(adaptive) => {
                adaptive.forget_row(key);
                Allowance::new()
            }
            Self::Halving(adaptive) => adaptive.forget_row(spec, key),
        }
    }

    /// Extends the maximum number of repeats.
    pub(super) fn extend_repeats(&mut self, spec: &Spec, rule: &StoppingRule) -> Allowance {
        let rungs = rule.rungs(spec.repeats);
        match self {
            Self::Precision(adaptive) => adaptive.extend_repeats(spec, rungs),
            Self::Halving(adaptive) => adaptive.extend_repeats(spec, rule, rungs),
        }
    }

    /// Marks a cell as possibly having pending repeats, because trials were returned.
    pub(super) fn reopen_cell(&mut self, cell: CellIndex) {
        if let Self::Precision(adaptive) = self {
            adaptive.reopen_cell(cell);
        }
    }

    /// Cells that come before all others and may have pending repeats, most urgent first.
    pub(super) fn urgent_cells(&self) -> impl Iterator<Item = CellIndex> + '_ {
        let precision = if let Self::Precision(adaptive) = self {
            Some(adaptive)
        } else {
            None
        };
        precision
            .into_iter()
            .flat_map(PrecisionRepeats::widest_cells)
    }

    /// Marks a cell as having no pending repeats.
    pub(super) fn close_cell(&mut self, cell: CellIndex) {
        if let Self::Precision(adaptive) = self {
            adaptive.close_cell(cell);
        }
    }
}
