//! What a diverged trial counts as, where it is to count: as a network that knows nothing and gives every class the same
//! probability, 1/K of K classes.

use ergodic_common::config::{Loss, ModelKind, TrialConfig};
use ergodic_common::metric::Metric;

/// Whether a metric has such a value at all: accuracies and losses have.
pub fn has_chance(metric: &Metric) -> bool {
    metric.larger_is_better().is_some()
}

/// The value of a metric for a network that knows nothing: accuracies 1/K, cross-entropies ln K, mean squared errors
/// (K − 1)/K². `None` for other metrics, and for the toy loss, which has no classes.
pub fn chance(metric: &Metric, config: &TrialConfig) -> Option<f64> {
    let classes = f64::from(config.data.dataset.classes());
    match (metric.larger_is_better()?, &config.model.kind) {
        (_, ModelKind::Toy(_)) => None,
        (true, _) => Some(1.0 / classes),
        (false, _) => Some(match config.train.loss {
            Loss::CrossEntropy { .. } => libm::log(classes),
            Loss::Mse => (classes - 1.0) / (classes * classes),
        }),
    }
}
