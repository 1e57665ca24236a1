//! How much of the variance of repeats comes from the initial weights, from the order of images, and so on, where a sweep
//! crosses these streams.
//!
//! Every stream of one purpose meets every one of the others, so that each cell is a balanced random-effects layout:
//! x = μ + a + b + (ab) + e, all of them independent with variances of their own. Components are estimated by the method of
//! moments, from mean squares and their expectations (Searle, Casella and McCulloch 1992, chapter 4); they may be negative, which says
//! that a component is small for so few streams. Intervals are Satterthwaite's (1946): as if the estimate were χ² with as many
//! degrees of freedom as fit its variance.

use ergodic_common::Spec;
use ergodic_common::metric::Metric;

use super::error::AnalysisError;
use super::lookup::check_level;
use super::query::{TableParams, TableQuery};
use super::row_source::RowSource;
use super::trial_values::read_cell_trials;
use crate::analysis::trial_values::CellTrials;
use crate::estimators::crossed_layout::{ComponentEstimate, CrossedLayout, describe_caveats};

/// A question that was checked against a sweep.
#[derive(Debug, Clone)]
pub struct VarianceQuery {
    query: TableQuery,
    level: f64,
    layout: CrossedLayout,
}

/// Where the variance of a cell's trials comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct CellVariance {
    /// The cell.
    pub cell: u64,
    /// Trials with a value.
    pub n: u64,
    /// One component for each stream, for what several do together, and for the rest; none where trials are missing.
    pub components: Vec<ComponentEstimate>,
    /// Why they are missing, or what else is to be known; empty if nothing is.
    pub note: String,
}

impl VarianceQuery {
    /// Checks a question against a sweep.
    ///
    /// # Errors
    /// The sweep crosses no streams, there is no such metric or step, or the level is none.
    pub fn new(spec: &Spec, metric: &str, at: &str, level: f64) -> Result<Self, AnalysisError> {
        if spec.seeds.crossed.is_empty() {
            let message = "the sweep crosses no random streams, so that what each does to the variance cannot be told: set \
                           seeds = { crossed = { init = 10, order = 20 } } and repeats = 200 in the next one";
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

    /// The metric.
    pub fn metric(&self) -> &Metric {
        self.query.metric()
    }

    /// Each cell that has trials.
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
            "no cell has a value of {} of all its trials: {why}",
            self.metric().name()
        )))
    }

    /// The components of a cell; none unless all of its `expected` trials have a value.
    fn decompose_cell(&self, cell: u64, trials: &CellTrials, expected: u64) -> CellVariance {
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

        // No variance of values within bounds is above a quarter of their squared distance.
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
