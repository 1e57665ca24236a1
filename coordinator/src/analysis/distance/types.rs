//! What distances are computed of, and what they are.

use crate::analysis::distance::labels::PredictedLabels;
use crate::analysis::distance::permutation::PermutationTest;
use crate::records::OutcomeCounts;

/// Two cells at a moment, or one beside itself. `None` where there are too few repeats.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CellDistance {
    /// Position of the one among the cells.
    pub a: usize,
    /// Position of the other.
    pub b: usize,
    /// The moment in words.
    pub at: String,
    /// Common repeats.
    pub n: u64,
    /// ℓ1 distance of halves, in [0, 2]; none of a cell to itself.
    pub distance: Option<f64>,
    /// Mean distance between halves of one cell, averaged over both.
    pub null: Option<f64>,
    /// The permutation test.
    pub permutation_test: Option<PermutationTest>,
    /// Probability that trials of different repeats, one of each, predict the same class.
    pub agreement: Option<f64>,
    /// Agreement of trials of the same repeat.
    pub agreement_same: Option<f64>,
    /// Within the one cell.
    pub agreement_a: Option<f64>,
    /// Within the other.
    pub agreement_b: Option<f64>,
    /// Why something is missing, or what else is to be known; empty if nothing is.
    pub note: String,
}

/// Predictions of the cells asked for, and what became of their trials.
pub(super) struct CellPredictions {
    /// `[moment][cell]`
    pub(super) labels: Vec<Vec<PredictedLabels>>,
    pub(super) counts: Vec<OutcomeCounts>,
}
