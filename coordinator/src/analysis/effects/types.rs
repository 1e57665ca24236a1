//! What the analysis of effects answers.

use ergodic_common::spec_file::node::SpecValue;

use crate::analysis::effects::anova::AnovaTerm;
use crate::analysis::ranking::RowRank;

/// What the cells say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EffectsAnalysis {
    /// Mean of the cells' means; where cells are missing, of the means of levels.
    pub mean: f64,
    /// Each level of each factor.
    pub levels: Vec<LevelEffect>,
    /// Where the variance is.
    pub terms: Vec<AnovaTerm>,
    /// The cells with the best mean ranks, the best first; empty where cells have no order.
    pub best: Vec<TopCell>,
    /// How many of all cells cannot be told from the best.
    pub may_be_best: u64,
    /// Each pair of levels of the two factors asked for.
    pub pairs: Vec<LevelEffect>,
    /// What is to be known of all this.
    pub notes: Vec<String>,
}

/// A level of a factor, or a pair of levels of two.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LevelEffect {
    /// Axes of the factor, or of both.
    pub axes: Vec<usize>,
    /// One value per axis.
    pub values: Vec<SpecValue>,
    /// Cells that have it.
    pub cells: u64,
    /// Mean over the levels of the other factors, by least squares where cells are missing. Of a pair, the mean of its
    /// cells; `None` without any.
    pub mean: Option<f64>,
    /// What it adds to the mean of all; of a pair, what it adds to what its two levels add.
    pub effect: Option<f64>,
    /// Confidence interval of the effect: from whole repeats resampled, or, where repeats share crossed streams, by what each
    /// stream does (`crossed`).
    pub interval: Option<(f64, f64)>,
}

/// A cell among the best.
#[derive(Debug, Clone, PartialEq)]
pub struct TopCell {
    /// Number of the cell.
    pub cell: u64,
    /// Trials with a value.
    pub n: u64,
    /// Trials that ended without one.
    pub without_value: u64,
    /// Mean of the values.
    pub mean: Option<f64>,
    /// Rank among all cells.
    pub rank: RowRank,
    /// Share of resamples of whole repeats in which its mean rank is the best one; several with the best one share a resample.
    pub probability: Option<f64>,
}
