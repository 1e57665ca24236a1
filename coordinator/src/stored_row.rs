//! The part of a stored trial that the core keeps: its outcome, and the metrics that decisions
//! need.

use ergodic_common::metric::Metric;
use ergodic_common::{Outcome, Spec, TrialKey, TrialResult};

/// The part of a stored row that the core keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRow {
    /// The key of the trial.
    pub key: TrialKey,
    /// The outcome of the trial.
    pub outcome: Outcome,
    /// The metric that is watched while the sweep runs.
    pub watched_metric: f64,
    /// The metric of the stopping rule; NaN without a rule.
    pub deciding_metric: f64,
    /// Duration of the attempt, in seconds.
    pub seconds: f64,
}

/// The main metric of a sweep, with its position in the list. Of a program, it is the first that has better values.
pub fn main_metric(metrics: &[Metric]) -> (usize, Metric) {
    let declared = metrics.iter().find(|metric| {
        matches!(metric, Metric::Declared(_)) && metric.larger_is_better().is_some()
    });
    let wanted = [
        &Metric::TestAcc,
        &Metric::TestLoss,
        declared.unwrap_or(&metrics[0]),
    ];
    let at = wanted
        .iter()
        .find_map(|m| metrics.iter().position(|x| x == *m))
        .unwrap_or(0);
    (at, metrics[at].clone())
}

/// The metric by which cells are selected if `metric` judges them. Selecting by the judging metric
/// makes the best cells look too good, so validation images select, if there are any.
pub fn selection_metric(metrics: &[Metric], metric: &(usize, Metric)) -> (usize, Metric) {
    let other = match metric.1 {
        Metric::TestAcc => Metric::ValAcc,
        Metric::TestLoss => Metric::ValLoss,
        Metric::AverageTestAcc => Metric::AverageValAcc,
        Metric::AverageTestLoss => Metric::AverageValLoss,
        _ => return metric.clone(),
    };
    metrics
        .iter()
        .position(|measured| *measured == other)
        .map_or_else(|| metric.clone(), |at| (at, other))
}

/// The metric that is watched while a sweep runs: the one by which its cells are selected.
pub(crate) fn watched_metric(metrics: &[Metric]) -> (usize, Metric) {
    selection_metric(metrics, &main_metric(metrics))
}

/// Positions of the metrics that the core keeps of every row of a sweep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetricPositions {
    pub(crate) watched: usize,
    /// Position of the metric of the stopping rule, if there is one.
    pub(crate) deciding: Option<usize>,
}

impl MetricPositions {
    /// The positions in a sweep's list of metrics.
    pub fn from_spec(spec: &Spec) -> Self {
        let metrics = &spec.measure.metrics;
        let deciding = spec
            .stopping_rule
            .as_ref()
            .and_then(|until| metrics.iter().position(|metric| *metric == until.metric));
        Self {
            watched: watched_metric(metrics).0,
            deciding,
        }
    }

    /// Builds the row of a trial from its outcome, final metrics and duration in seconds.
    pub fn build_row(
        self,
        key: TrialKey,
        outcome: Outcome,
        metrics: impl Fn(usize) -> Option<f64>,
        seconds: f64,
    ) -> StoredRow {
        let watched = metrics(self.watched);
        let deciding = self.deciding.and_then(metrics);
        StoredRow {
            key,
            outcome,
            watched_metric: watched.unwrap_or(f64::NAN),
            deciding_metric: deciding.unwrap_or(f64::NAN),
            seconds,
        }
    }

    /// Builds the row of a result.
    pub fn build_row_from_result(self, result: &TrialResult) -> StoredRow {
        self.build_row(
            result.key,
            result.outcome.clone(),
            |at| result.metrics.get(at).copied(),
            result.seconds,
        )
    }
}
