//! What the core keeps of a stored trial: its outcome and the metrics that decisions need.

use ergodic_common::metric::Metric;
use ergodic_common::{Outcome, Spec, TrialKey, TrialResult};

/// What the core keeps of a stored row.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRow {
    /// The trial that the row is of.
    pub key: TrialKey,
    /// How the trial ended.
    pub outcome: Outcome,
    /// The metric that is watched.
    pub watched_metric: f64,
    /// The metric that decides how often a cell is repeated; NaN where none does.
    pub deciding_metric: f64,
    /// Duration of the attempt, in seconds.
    pub seconds: f64,
}

/// Where the main metric stands in a list of metrics, and which it is.
pub fn main_metric(metrics: &[Metric]) -> (usize, Metric) {
    let wanted = [&Metric::TestAcc, &Metric::TestLoss, &metrics[0]];
    let at = wanted
        .iter()
        .find_map(|m| metrics.iter().position(|x| x == *m))
        .unwrap_or(0);
    (at, metrics[at].clone())
}

/// The metric by which cells are chosen when they are judged by `metric`. Cells that are chosen by what they are judged by look too
/// good: where there are validation images, these choose.
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

/// The metric that is watched while a sweep runs: the one by which its cells are chosen.
pub(crate) fn watched_metric(metrics: &[Metric]) -> (usize, Metric) {
    selection_metric(metrics, &main_metric(metrics))
}

/// Where the metrics stand that the core keeps of every row of a sweep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetricPositions {
    pub(crate) watched: usize,
    /// The one that decides how often a cell is repeated, if one does.
    pub(crate) deciding: Option<usize>,
}

impl MetricPositions {
    /// The positions in a sweep's metrics.
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

    /// What the core keeps of a trial that ended so, by its final metrics and its duration in seconds.
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

    /// What the core keeps of a result.
    pub fn build_row_from_result(self, result: &TrialResult) -> StoredRow {
        self.build_row(
            result.key,
            result.outcome.clone(),
            |at| result.metrics.get(at).copied(),
            result.seconds,
        )
    }
}
