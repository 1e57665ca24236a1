//! The results of the analysis of effects.

use ergodic_common::ids::CellIndex;
use ergodic_common::spec_file::node::SpecValue;

use crate::analysis::effects::anova::AnovaTerm;
use crate::analysis::ranking::RowRank;

/// The effects of all axes on a metric.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EffectsAnalysis {
    /// Mean of the cells' means or, if cells are missing, of the levels' means.
    pub mean: f64,
    /// The effect of each level of each factor.
    pub levels: Vec<LevelEffect>,
    /// The terms of the analysis of variance.
    pub terms: Vec<AnovaTerm>,
    /// The cells with the best mean ranks, best first; empty if cells have no ranks.
    pub best: Vec<TopCell>,
    /// Number of all cells that cannot be distinguished from the best.
    pub may_be_best: u64,
    /// The interaction of each pair of levels of the two requested factors.
    pub pairs: Vec<LevelEffect>,
    /// Caveats of the analysis.
    pub notes: Vec<String>,
}

/// A level of a factor, or a pair of levels of two.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LevelEffect {
    /// Axes of the factor, or of both.
    pub axes: Vec<usize>,
    /// One value per axis.
    pub values: Vec<SpecValue>,
    /// Number of cells with the level or pair.
    pub cells: u64,
    /// Mean over the levels of the other factors, by least squares if cells are missing. For a
    /// pair, the mean of its cells; `None` without any.
    pub mean: Option<f64>,
    /// Difference from the overall mean; for a pair, the difference from the sum of its levels'
    /// effects.
    pub effect: Option<f64>,
    /// Confidence interval of the effect: by resampling whole repeats or, if repeats share crossed
    /// streams, by the effects of the streams (`crossed`).
    pub interval: Option<(f64, f64)>,
}

/// One of the best cells.
#[derive(Debug, Clone, PartialEq)]
pub struct TopCell {
    /// Number of the cell.
    pub cell: CellIndex,
    /// Number of trials with a value.
    pub n: u64,
    /// Number of trials that ended without a value.
    pub without_value: u64,
    /// Mean of the values.
    pub mean: Option<f64>,
    /// Rank among all cells.
    pub rank: RowRank,
    /// Share of resamples of whole repeats in which the cell has the best mean rank; ties share a
    /// resample.
    pub probability: Option<f64>,
}
