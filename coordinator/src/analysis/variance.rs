//! Variance components: how much of the variance of repeats comes from the initial weights, the
//! order of images, and so on, in a sweep that crosses these streams.
//!
//! Every stream of one purpose meets every stream of the others, so each cell is a balanced
//! random-effects layout: x = μ + a + b + (ab) + e, all independent with variances of their own.
//! Components are estimated by the method of moments, from mean squares and their expectations
//! (Searle, Casella and McCulloch 1992, chapter 4). They may be negative, which means that a
//! component is too small for the number of streams. Intervals are Satterthwaite's (1946): as if
//! the estimate were χ² with the degrees of freedom that match its variance.

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;

use super::error::AnalysisError;
use super::lookup::check_level;
use super::query::{TableParams, TableQuery};
use super::row_source::RowSource;
use super::trial_values::read_cell_trials;
use crate::analysis::table_metric::TableMetric;
use crate::analysis::trial_values::CellTrials;
use crate::estimators::crossed_layout::{ComponentEstimate, CrossedLayout, describe_caveats};

/// The parameters of a decomposition, checked against a sweep.
#[derive(Debug, Clone)]
pub struct VarianceQuery {
    query: TableQuery,
    level: f64,
    layout: CrossedLayout,
}

/// The variance components of a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct CellVariance {
    /// Number of the cell.
    pub cell: CellIndex,
    /// Number of trials with a value.
    pub n: u64,
    /// One component for each stream, each interaction of streams, and the rest; empty if trials
    /// are missing.
    pub components: Vec<ComponentEstimate>,
    /// Caveats, such as why components are missing; empty if there are none.
    pub note: String,
}

impl VarianceQuery {
    /// Checks the parameters against a sweep.
    ///
    /// # Errors
    /// The sweep crosses no streams, there is no such metric or step, or the level is out of range.
    pub fn new(spec: &Spec, metric: &str, at: &str, level: f64) -> Result<Self, AnalysisError> {
        if spec.seeds.crossed.is_empty() {
            let message = "the sweep crosses no random streams, so its variance cannot be split among them: set seeds = { \
                           crossed = { init = 10, order = 20 } } and repeats = 200 in the next sweep";
            return Err(AnalysisError::Unknown(message.into()));
        }

        check_level(level)?;

        let query = TableQuery::new(
            spec,
            &TableParams {
                metric,
                at,
                ..TableParams::default()
            },
        )?;

        Ok(Self {
            query,
            level,
            layout: CrossedLayout::from_spec(spec),
        })
    }

    /// The metric of the decomposition.
    pub fn metric(&self) -> &TableMetric {
        self.query.metric()
    }

    /// Decomposes the variance of each cell with trials.
    ///
    /// # Errors
    /// The store failed, or no cell has all its trials.
    pub fn decompose_cells(&self, rows: RowSource<'_>) -> Result<Vec<CellVariance>, AnalysisError> {
        let expected = u64::from(rows.spec.repeats);
        let answer: Vec<CellVariance> = read_cell_trials(&self.query, rows)?
            .into_iter()
            .map(|(cell, trials)| self.decompose_cell(cell, &trials, expected))
            .collect();
        if answer.iter().any(|cell| !cell.components.is_empty()) {
            return Ok(answer);
        }

        let why = answer
            .first()
            .map_or("none has ended yet", |cell| &cell.note);
        Err(AnalysisError::Unknown(format!(
            "no cell has a value of {} for all of its trials: {why}",
            self.metric().name()
        )))
    }

    /// The components of a cell; empty unless all of its `expected` trials have a value.
    fn decompose_cell(&self, cell: CellIndex, trials: &CellTrials, expected: u64) -> CellVariance {
        let n = trials.values.len() as u64;
        if n != expected {
            return CellVariance {
                cell,
                n,
                components: Vec::new(),
                note: format!(
                    "{n} of {expected} trials have a value ({} ended without): all are needed",
                    trials.count_without_value()
                ),
            };
        }

        let values: Vec<f64> = trials.values.iter().map(|(_, value)| *value).collect();
        let mut components = self.layout.estimate_components(&values, self.level);

        // Popoviciu's inequality: values in [low, high] have a variance of at most (high − low)²/4.
        let most = self
            .metric()
            .bounded_range()
            .map(|(low, high)| 0.25 * (high - low) * (high - low));
        for component in &mut components {
            component.clip_interval(most);
        }

        CellVariance {
            cell,
            n,
            note: describe_caveats(&components),
            components,
        }
    }
}
