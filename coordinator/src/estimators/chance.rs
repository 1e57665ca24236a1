//! What a diverged trial counts as, where it is to count: as a network that knows nothing and gives every class the same
//! probability, 1/K of K classes.
//!
//! Only accuracies have such a value: nothing is far below it. A loss has no worst value, so that a trial that completed may be
//! worse than a network that knows nothing, and cells in which all diverged would look better than others.

use ergodic_common::config::{ModelKind, TrialConfig};
use ergodic_common::metric::Metric;

/// Whether a metric has such a value at all: accuracies have.
pub fn has_chance_level(metric: &Metric) -> bool {
    metric.larger_is_better() == Some(true)
}

/// The value of an accuracy for a network that knows nothing, 1/K. `None` for other metrics, and where there are no classes.
pub fn chance_level(metric: &Metric, config: &TrialConfig) -> Option<f64> {
    let has_classes = !matches!(config.model.kind, ModelKind::Toy(_));
    (has_chance_level(metric) && has_classes)
        .then(|| 1.0 / f64::from(config.data.dataset.class_count()))
}
