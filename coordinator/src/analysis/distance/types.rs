//! The inputs and results of distances.

use crate::analysis::distance::labels::PredictedLabels;
use crate::analysis::distance::permutation::PermutationTest;
use crate::records::OutcomeCounts;

/// The distance between two cells at a moment, or of a cell to itself. Values are `None` if there
/// are too few repeats.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CellDistance {
    /// Index of the first cell.
    pub a: usize,
    /// Index of the second cell.
    pub b: usize,
    /// The moment in words.
    pub at: String,
    /// Number of common repeats.
    pub n: u64,
    /// ℓ1 distance of halves, in [0, 2]; `None` for a cell and itself.
    pub distance: Option<f64>,
    /// Mean distance between halves of one cell, averaged over both.
    pub null: Option<f64>,
    /// The permutation test.
    pub permutation_test: Option<PermutationTest>,
    /// Probability that trials of different repeats, one of each, predict the same class.
    pub agreement: Option<f64>,
    /// Agreement of trials of the same repeat.
    pub agreement_same: Option<f64>,
    /// Agreement within the first cell.
    pub agreement_a: Option<f64>,
    /// Agreement within the second cell.
    pub agreement_b: Option<f64>,
    /// Caveats, such as why a value is missing; empty if there are none.
    pub note: String,
}

/// Predictions of the requested cells, and the outcomes of their trials.
pub(super) struct CellPredictions {
    /// `[moment][cell]`
    pub(super) labels: Vec<Vec<PredictedLabels>>,
    pub(super) counts: Vec<OutcomeCounts>,
    /// Trials with predictions: `[moment][cell]`
    pub(super) present: Vec<Vec<OutcomeCounts>>,
    /// The lowest and highest step that a program's last predictions are of.
    pub(super) last_steps: Option<(u64, u64)>,
}
