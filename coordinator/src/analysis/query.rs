//! Queries of a sweep's rows, checked against its spec.

use ergodic_common::Spec;
use ergodic_common::config::Length;
use ergodic_common::ids::CellIndex;
use ergodic_common::metric::Metric;
use ergodic_common::spec::stopping_rule::StoppingRule;
use ergodic_common::spec_file::node::SpecValue;

use crate::analysis::cell_condition::CellCondition;
use crate::analysis::lookup::{find_axis, parse_moment};
use crate::analysis::table_metric::TableMetric;
use crate::analysis::{AnalysisError, ranking};
use crate::estimators::chance::has_chance_level;
use crate::estimators::crossed::Crossing;
use crate::estimators::statistic::Statistic;

/// The parameters of a table or of curves, as users name them.
#[derive(Debug, Clone, Copy, Default)]
pub struct TableParams<'a> {
    /// Axes to group by, which may be named by the last part of their path; empty for all.
    pub by: &'a [String],
    /// Whether one row pools all cells, with `by` empty.
    pub pool_all: bool,
    /// The metric or quantity; empty for the main metric.
    pub metric: &'a str,
    /// The moment; empty for the end of the trial.
    pub at: &'a str,
    /// Statistics by name, besides the summary.
    pub stats: &'a [String],
    /// The weighting of rows of several cells.
    pub weighting: Weighting,
    /// Condition on axes that cells meet; empty for all cells.
    pub cell_condition: &'a str,
}

/// The units that have equal weight in a row of several cells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Weighting {
    /// Trials with a value: cells in which fewer trials diverged weigh more.
    #[default]
    Trials,
    /// Cells with values, as in `effects`.
    Cells,
}

/// The parameters of a table or of curves, checked against a sweep.
#[derive(Debug, Clone)]
pub struct TableQuery {
    pub(super) axes: Vec<usize>,
    /// Whether a row can have several cells.
    pub(super) pooled: bool,
    metric: TableMetric,
    /// Column of the metric in the rows that are read, as in [`TableMetric::column`].
    metric_column: usize,
    /// The metric that ranks rows: that of the validation images, if there are any.
    selection_metric: TableMetric,
    /// Column of the ranking metric.
    selection_column: usize,
    /// The reason why rows are not ranked, if they are not.
    pub(super) unranked_reason: Option<String>,
    pub(super) at: Option<Length>,
    pub(super) stats: Vec<Statistic>,
    pub(super) weighting: Weighting,
    pub(super) crossing: Option<Crossing>,
    pub(super) conditions: IntervalConditions,
    cell_condition: Option<CellCondition>,
}

/// The conditions under which the intervals of a sweep hold.
#[derive(Debug, Clone, Default)]
pub(super) struct IntervalConditions {
    /// Names of the random streams that are the same in all repeats; empty if there are none.
    pub(super) fixed_streams: String,
    /// Whether cells end when their means are precise enough.
    pub(super) stops_early: bool,
}

impl IntervalConditions {
    pub(super) fn from_spec(spec: &Spec) -> Self {
        let fixed: Vec<&str> = spec
            .seeds
            .fixed
            .iter()
            .map(|purpose| purpose.as_str())
            .collect();

        Self {
            fixed_streams: fixed.join(", "),
            stops_early: spec
                .stopping_rule
                .as_ref()
                .is_some_and(StoppingRule::is_precision_based),
        }
    }
}

/// Maximum number of draws for one table, about a minute on two cores.
pub(super) const MAX_DRAWS: usize = 20_000_000_000;

/// Number of cells above which rows without results are left out.
pub(super) const MAX_EMPTY_ROWS: u64 = 10_000;

impl TableQuery {
    /// Checks the parameters against a sweep.
    ///
    /// # Errors
    /// There is no such axis, metric, statistic or step.
    pub fn new(spec: &Spec, question: &TableParams<'_>) -> Result<Self, AnalysisError> {
        let axes: Vec<usize> = match question.by {
            [] if question.pool_all => Vec::new(),
            [] => (0..spec.grid.axes().len()).collect(),
            names => names
                .iter()
                .map(|name| find_axis(spec.grid.axes(), name))
                .collect::<Result<_, _>>()?,
        };
        if let Some(twice) = (1..axes.len()).find(|at| axes[..*at].contains(&axes[*at])) {
            let name = &spec.grid.axes()[axes[twice]].name;
            return Err(AnalysisError::Invalid(format!(
                "by: the axis '{name}' is named twice"
            )));
        }

        let metric = TableMetric::find(spec, question.metric)?;
        let stats = Statistic::parse_list(question.stats)?;
        let has_level = metric.stored().is_some_and(has_chance_level);
        if stats.iter().any(Statistic::counts_diverged) && !has_level {
            let message = format!(
                "statistics that count diverged trials (_all) exist for accuracies only: {} has no worst value that a \
                 diverged trial could count as; p_diverged gives the share of diverged trials, and ranks treat them as the \
                 worst",
                metric.name()
            );
            return Err(AnalysisError::Invalid(message));
        }

        let at = parse_moment(question.at)?;
        if matches!(at, Some(Length::Epochs(_))) && spec.program().is_some() {
            let message =
                "at: a program has no epochs: name steps as it reports them, as in \"500 steps\"";
            return Err(AnalysisError::Invalid(message.to_owned()));
        }
        if at.is_some() {
            metric.check_moment()?;
        }

        let selection_metric = metric.selection_metric(spec);
        Ok(Self {
            pooled: (0..spec.grid.axes().len()).any(|axis| !axes.contains(&axis)),
            axes,
            metric_column: metric.column(),
            metric,
            unranked_reason: ranking::unranked_reason(spec, &selection_metric),
            selection_column: selection_metric.column(),
            selection_metric,
            at,
            stats,
            weighting: question.weighting,
            crossing: Crossing::from_spec(spec),
            conditions: IntervalConditions::from_spec(spec),
            cell_condition: CellCondition::parse(spec, question.cell_condition)?,
        })
    }

    /// Whether a cell is grouped.
    pub(super) fn selects_cell(&self, spec: &Spec, cell: CellIndex) -> bool {
        self.cell_condition
            .as_ref()
            .is_none_or(|condition| condition.is_met_by(spec, cell))
    }

    /// Whether the query needs the cell and repeat of each value.
    pub(super) fn needs_keys(&self) -> bool {
        self.pooled || self.crossing.is_some()
    }

    /// The metric or quantity of the query.
    pub fn metric(&self) -> &TableMetric {
        &self.metric
    }

    /// The metric that ranks rows.
    pub fn selection_metric(&self) -> &TableMetric {
        &self.selection_metric
    }

    /// The metric that ranks the rows of a sweep, if they are ranked.
    pub(super) fn ranking_metric(&self, spec: &Spec) -> Option<&Metric> {
        let is_ranked = self.is_ranked(spec);
        self.selection_metric.stored().filter(|_| is_ranked)
    }

    /// Column of the ranking metric in the rows that the query reads.
    pub(super) fn selection_column(&self) -> usize {
        self.selection_column
    }

    /// Column of the metric in the rows that the query reads.
    pub(super) fn metric_column(&self) -> usize {
        self.metric_column
    }

    /// The moment of the query; `None` for the end of the trial.
    pub(super) fn moment(&self) -> Option<Length> {
        self.at
    }

    /// Columns of the statistics of the query.
    pub fn statistic_columns(&self) -> Vec<String> {
        self.stats
            .iter()
            .flat_map(Statistic::column_names)
            .collect()
    }

    /// Names of the axes.
    pub fn axis_names(&self, spec: &Spec) -> Vec<String> {
        self.axes
            .iter()
            .map(|at| spec.grid.axes()[*at].name.clone())
            .collect()
    }

    pub(super) fn group_key(&self, spec: &Spec, cell: CellIndex) -> Vec<u64> {
        let indices = spec.grid.value_indices(cell);
        self.axes.iter().map(|axis| indices[*axis]).collect()
    }

    pub(super) fn axis_values(&self, spec: &Spec, group: &[u64]) -> Vec<SpecValue> {
        self.axes
            .iter()
            .zip(group)
            .map(|(axis, i)| spec.grid.axes()[*axis].value_at(*i))
            .collect()
    }

    pub(super) fn is_ranked(&self, spec: &Spec) -> bool {
        spec.grid.cell_count() > 1 && self.unranked_reason.is_none()
    }

    /// The name of the weighting, if rows can have several cells.
    pub fn weighting_name(&self) -> Option<&'static str> {
        self.pooled.then_some(match self.weighting {
            Weighting::Trials => "trials",
            Weighting::Cells => "cells",
        })
    }

    /// The reason why rows are not ranked, if they are not.
    pub fn unranked_reason(&self) -> Option<&str> {
        self.unranked_reason.as_deref()
    }
}
