//! Reuses the part of a trial's result that another sweep with the same trial needs.

use crate::TrialConfig;
use crate::program::Program;
use crate::spec::measure::Measure;
use crate::trial::{MetricCurve, Predictions, TrialResult};

/// The part of a result that another sweep needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultSelection {
    /// Index of each needed metric in the result.
    metrics: Vec<usize>,
    /// Number of metrics in the result.
    metric_count: usize,
    /// Steps at which predictions are needed; `None` for all that a program has reported.
    prediction_steps: Option<Vec<u64>>,
    /// Whether the weights are needed.
    weights: bool,
}

impl Measure {
    /// The part that `wanted` needs of a result measured by `self`, for a trial of this config.
    /// `None` if something is missing.
    ///
    /// Samples must be taken at the same steps, because metrics that are averaged since the last
    /// sample depend on its step.
    pub fn selection_for(&self, wanted: &Self, config: &TrialConfig) -> Option<ResultSelection> {
        let [own, asked] = [self, wanted].map(|m| m.every.steps_in_trial(config));
        let keeps = !wanted.save.is_empty();
        let [own_weights, asked_weights] = [self, wanted].map(|m| m.save.steps_in_trial(config));
        // All weights that a trial keeps are in one file.
        if !own.is_same_as(&asked) || keeps && own_weights != asked_weights {
            return None;
        }

        // Other batch statistics give a metric of the same name another value on the same images.
        if self.statistics != wanted.statistics {
            return None;
        }

        let metrics = wanted
            .metrics
            .iter()
            .map(|metric| self.metrics.iter().position(|measured| measured == metric))
            .collect::<Option<Vec<_>>>()?;

        let looks = match (&self.probe, &wanted.probe) {
            (_, None) => Vec::new(),
            (Some(kept), Some(asked)) if kept.points == asked.points => {
                let kept = kept.steps_in_trial(config);
                let asked = asked.steps_in_trial(config);

                asked
                    .iter()
                    .all(|step| kept.contains(step))
                    .then_some(asked)?
            }
            _ => return None,
        };

        Some(ResultSelection {
            metrics,
            metric_count: self.metrics.len(),
            prediction_steps: Some(looks),
            weights: keeps,
        })
    }
}

impl Program {
    /// The part that `wanted` needs of a result of `self`, a program of the same numerics class. `None` if something is missing.
    pub fn selection_for(&self, wanted: &Self) -> Option<ResultSelection> {
        let metrics = wanted
            .metrics
            .iter()
            .map(|metric| self.metrics.iter().position(|reported| reported == metric))
            .collect::<Option<Vec<_>>>()?;
        Some(ResultSelection {
            metrics,
            metric_count: self.metrics.len(),
            prediction_steps: None,
            // Programs of one numerics class keep the same files.
            weights: !wanted.save.is_empty(),
        })
    }
}

impl ResultSelection {
    fn select_metrics(&self, row: &[f64]) -> Vec<f64> {
        self.metrics
            .iter()
            .filter_map(|at| row.get(*at).copied())
            .collect()
    }

    /// Extracts the needed part of a result.
    pub fn apply_to(&self, result: TrialResult) -> TrialResult {
        let MetricCurve { steps, values } = result.curve;
        let values = values
            .chunks(self.metric_count.max(1))
            .flat_map(|row| self.select_metrics(row))
            .collect();
        TrialResult {
            metrics: self.select_metrics(&result.metrics),
            curve: MetricCurve { steps, values },
            predictions: self.select_predictions(&result.predictions),
            weights_hash: result.weights_hash.filter(|_| self.weights),
            ..result
        }
    }

    fn select_predictions(&self, all: &Predictions) -> Predictions {
        let Some(needed) = &self.prediction_steps else {
            return all.clone();
        };
        let points = all.classes.len().checked_div(all.steps.len()).unwrap_or(0);
        let mut picked = Predictions::default();

        for (step, classes) in all.steps.iter().zip(all.classes.chunks(points.max(1))) {
            if needed.contains(step) {
                picked.steps.push(*step);
                picked.classes.extend(classes);
            }
        }

        picked
    }
}

#[cfg(test)]
mod tests {
    use crate::Spec;
    use crate::ids::{CellIndex, FileHash};
    use crate::spec::source::SpecSource;
    use crate::trial::{MetricCurve, Predictions, TrialKey, TrialResult};

    fn spec(measure: &str) -> Spec {
        let text = format!(
            "name = 'a'\n[data]\ndataset = 'glyphs'\ntrain = 640\n[model]\nkind = 'mlp'\n[train]\nepochs = 4\nbatch_size = 64\nlr = 0.1\n\
             [measure]\n{measure}"
        );
        Spec::read_stored(&SpecSource {
            file: "f".into(),
            text,
            ..SpecSource::default()
        })
        .expect("a sweep file")
    }

    #[test]
    fn a_result_serves_whoever_asks_for_less_and_nobody_who_asks_for_more() {
        let has = spec(
            "every = '1 epoch'\nmetrics = ['train_loss', 'test_acc', 'weight_norm']\nsave = ['final']\n\
             probe = { points = 2, at = ['20 steps', 'final'] }",
        );
        let config = has.grid.resolve_config(CellIndex(0)).expect("a cell");
        let result = TrialResult {
            metrics: vec![1.0, 2.0, 3.0],
            curve: MetricCurve {
                steps: vec![10, 20],
                values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            },
            predictions: Predictions {
                steps: vec![20, 40],
                classes: vec![1, 2, 3, 4],
            },
            weights_hash: Some(FileHash([7; 32])),
            ..TrialResult::completed(TrialKey::new(0, 0))
        };
        let serves = |measure: &str| {
            let selection = has.measure.selection_for(&spec(measure).measure, &config)?;
            Some(selection.apply_to(result.clone()))
        };

        let all = "every = '10 steps'\nmetrics = ['train_loss', 'test_acc', 'weight_norm']\nsave = ['final']\n\
                   probe = { points = 2, at = ['20 steps', '40 steps'] }";
        assert_eq!(
            serves(all),
            Some(result.clone()),
            "the same, said in other words"
        );

        let less = serves("metrics = ['weight_norm', 'train_loss']\nprobe = { points = 2 }")
            .expect("it has that");
        assert_eq!(
            (less.metrics, less.curve.values),
            (vec![3.0, 1.0], vec![3.0, 1.0, 6.0, 4.0])
        );

        assert_eq!(
            (less.predictions.steps, less.predictions.classes),
            (vec![40], vec![3, 4])
        );
        assert_eq!((less.weights_hash, less.curve.steps), (None, vec![10, 20]));
        let none = serves("metrics = ['test_acc']").expect("it has that");
        assert_eq!(none.predictions, Predictions::default());

        for more in [
            "metrics = ['test_loss']",
            "every = '20 steps'\nmetrics = ['test_acc']",
            "probe = { points = 3 }\nmetrics = ['test_acc']",
            "probe = { points = 2, at = ['30 steps'] }\nmetrics = ['test_acc']",
            "statistics = 're-estimated'\nmetrics = ['test_acc']",
        ] {
            assert_eq!(serves(more), None, "{more}");
        }

        let lean = spec("metrics = ['test_acc']");
        assert!(
            lean.measure
                .selection_for(
                    &spec("metrics = ['test_acc']\nsave = ['final']").measure,
                    &config
                )
                .is_none()
        );
    }
}
