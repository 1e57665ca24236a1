//! Sweeps whose number of trials depends on their results.
//!
//! Repeats of a cell are *allowed* when all repeats that the decision stands on have a row. So which trials are run depends on
//! what they yield alone, not on who ran them, nor in what order they ended. What is allowed stays so: where a row is taken
//! away, to be made again, the decision is made anew once it is back, and trials beyond it may have rows by then.

mod halving;
mod precision;

use std::ops::Range;

use ergodic_common::repeats::{StoppingCriterion, StoppingRule};
use ergodic_common::{Outcome, Spec, TrialKey};

pub use halving::Halving;
pub use precision::{Precision, Standing};

/// How far the cells of a sweep are.
#[derive(Debug)]
pub enum Growth {
    /// Each is repeated until the mean of a metric is known well enough.
    Precision(Precision),
    /// Each is repeated as long as it is among the best.
    Halving(Halving),
}

/// Repeats of cells that may be run from now on.
pub(super) type Allowed = Vec<(u64, Range<u32>)>;

impl Growth {
    /// Nothing is known of any cell.
    pub(super) fn new(spec: &Spec, until: &StoppingRule) -> Self {
        let rungs = until.rungs(spec.repeats);
        match until.criterion {
            StoppingCriterion::Precision { ci95 } => Self::Precision(Precision::new(spec, ci95, rungs)),
            StoppingCriterion::Halving { factor } => Self::Halving(Halving::new(spec, until, factor, rungs)),
        }
    }

    /// Trials that may be run, as far as is known.
    pub fn total(&self) -> u64 {
        match self {
            Self::Precision(growth) => growth.total(),
            Self::Halving(growth) => growth.total(),
        }
    }

    /// Trials that it should come to.
    pub fn expected(&self) -> u64 {
        match self {
            Self::Precision(growth) => growth.expected(),
            Self::Halving(growth) => growth.expected(),
        }
    }

    /// Repeats that every cell has.
    pub(super) fn least(&self) -> u32 {
        match self {
            Self::Precision(growth) => growth.least(),
            Self::Halving(growth) => growth.least(),
        }
    }

    /// Repeats of a cell that may be run.
    pub fn allowed(&self, cell: u64) -> u32 {
        match self {
            Self::Precision(growth) => growth.allowed(cell),
            Self::Halving(growth) => growth.allowed(cell),
        }
    }

    /// The rows that follow are those of a sweep that has ended, which stands by the choices that they show.
    pub(super) fn stand(&mut self) {
        if let Self::Halving(growth) = self {
            growth.stand();
        }
    }

    /// All of these rows are there.
    pub(super) fn decide(&mut self, spec: &Spec) -> Allowed {
        match self {
            Self::Precision(_) => Allowed::new(),
            Self::Halving(growth) => growth.decide(spec),
        }
    }

    /// A trial has a row, with this value of the deciding metric.
    pub(super) fn settle(&mut self, key: TrialKey, outcome: &Outcome, value: f64) -> Allowed {
        match self {
            Self::Precision(growth) => growth.settle(key, outcome, value),
            Self::Halving(growth) => growth.settle(key, outcome, value),
        }
    }

    /// A trial's row is gone: what was found with it counts no more.
    pub(super) fn reopen(&mut self, spec: &Spec, key: TrialKey) -> Allowed {
        match self {
            Self::Precision(growth) => {
                growth.reopen(key);
                Allowed::new()
            }
            Self::Halving(growth) => growth.reopen(spec, key),
        }
    }

    /// There may be more repeats.
    pub(super) fn extend(&mut self, spec: &Spec, until: &StoppingRule) -> Allowed {
        let rungs = until.rungs(spec.repeats);
        match self {
            Self::Precision(growth) => growth.extend(spec, rungs),
            Self::Halving(growth) => growth.extend(spec, until, rungs),
        }
    }

    /// Trials of a cell were given back: they are met again.
    pub(super) fn put_back(&mut self, cell: u64) {
        if let Self::Precision(growth) = self {
            growth.put_back(cell);
        }
    }

    /// Cells of which more repeats may wait that come before all others, the first one first.
    pub(super) fn urgent(&self) -> impl Iterator<Item = u64> + '_ {
        let precision = if let Self::Precision(growth) = self { Some(growth) } else { None };
        precision.into_iter().flat_map(Precision::widest)
    }

    /// None of a cell's repeats wait any more.
    pub(super) fn close(&mut self, cell: u64) {
        if let Self::Precision(growth) = self {
            growth.close(cell);
        }
    }
}
