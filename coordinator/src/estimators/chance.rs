//! The value of a diverged trial, for statistics that count diverged trials: that of a network that
//! gives each of K classes the same probability, 1/K.
//!
//! Only accuracies have such a value, because no accuracy is far below it. A loss has no worst
//! value: a completed trial may be worse than a network that knows nothing, and cells in which all
//! trials diverged would look better than others.

use ergodic_common::config::{ModelKind, TrialConfig};
use ergodic_common::metric::Metric;

/// Whether a metric has a chance level; accuracies have. Of those that a program declares, nothing is known.
pub fn has_chance_level(metric: &Metric) -> bool {
    metric.is_accuracy()
}

/// The accuracy of a network that knows nothing, 1/K. `None` for other metrics, and without
/// classes.
pub fn chance_level(metric: &Metric, config: &TrialConfig) -> Option<f64> {
    let has_classes = !matches!(config.model.kind, ModelKind::Toy(_));
    (has_chance_level(metric) && has_classes)
        .then(|| 1.0 / f64::from(config.data.dataset.class_count()))
}

#[cfg(test)]
mod tests {
    use crate::estimators::chance::*;

    #[test]
    fn accuracies_alone_have_a_chance_level() {
        let of = |name: &str| has_chance_level(&Metric::from_name(name).expect("a metric"));
        assert!(of("test_acc") && of("val_acc"));
        assert!(!of("test_loss") && !of("train_loss") && !of("weight_norm"));
    }
}
