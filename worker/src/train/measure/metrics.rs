//! The metrics of a trial. Only requested metrics are computed.

use std::ops::Range;

use ergodic_common::config::TrialConfig;
use ergodic_common::metric::{MeasurementPass, Metric};
use ergodic_common::spec::Measure;
use ergodic_common::spec::moments::SampleSteps;
use ergodic_common::trial::MetricCurve;

use super::gradient_noise::GradientNoise;
use super::norms::{Number, angle_between, cosine_similarity, euclidean_distance, sum_of_squares};
use super::parts::PartsGeometry;
use crate::train::checkpoint::{CheckpointDecoder, CheckpointEncoder};
use crate::train::engine::loss::LossTally;
use crate::train::network::params::ParamLayout;
use crate::train::optim::schedule::StepHyperparams;
use crate::train::optim::trained_groups::lr_factor_of;

/// Collects the samples of one trial. `T` is what its weights are: f32 for networks, f64 for the toy loss.
pub(crate) struct MetricSampler<'a, T = f32> {
    measure: &'a Measure,
    /// Steps after which a sample is taken.
    sample_steps: SampleSteps,
    /// Ranges of the weights whose norm is reported.
    norm_ranges: Vec<Range<usize>>,
    /// The factor on the learning rate of the weights that a norm follows, if there are any and they have one factor.
    normed_lr_factor: Option<f64>,
    /// Ranges of all trained parameters.
    trained_ranges: Vec<Range<usize>>,
    /// Losses of the training steps since the last sample.
    since_last_sample: LossTally,
    /// Weights before the step that a sample follows; this and the next two are empty if no metric compares them.
    weights_before_step: Vec<T>,
    /// Weights at the last sample.
    last_sampled_weights: Vec<T>,
    /// Weights at the start.
    initial_weights: Vec<T>,
    /// ‖w‖² after the last step.
    norm_sq: f64,
    /// Largest change of ‖w‖² in a step since the last sample.
    norm_sq_jump: f64,
    /// For each metric, the range of the weight of the layer whose norm it is, if there is such a layer.
    layer_ranges: Vec<Option<Range<usize>>>,
    /// How the weights lie to each other that the trial starts from the mean of.
    parts: PartsGeometry,
    curve: MetricCurve,
}

/// The inputs of a sample.
pub(crate) struct SampleInputs<'a, T = f32> {
    /// Number of completed steps.
    pub(crate) step: u64,
    /// Hyperparameters of the last step.
    pub(crate) rates: StepHyperparams,
    /// Packed parameters after the last step.
    pub(crate) weights: &'a [T],
    /// Gradient of the last batch.
    pub(crate) gradient: &'a [T],
    /// Results of passes that only some metrics need.
    pub(crate) pass_results: PassResults,
}

/// The results of passes over further images; `None` where no metric needs them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PassResults {
    /// Losses on the test set.
    pub(crate) test: Option<LossTally>,
    /// Losses on the validation set.
    pub(crate) validation: Option<LossTally>,
    /// Losses of the averaged weights on the test set.
    pub(crate) average_test: Option<LossTally>,
    /// Losses of the averaged weights on the validation set.
    pub(crate) average_validation: Option<LossTally>,
    pub(crate) noise: Option<GradientNoise>,
    /// Largest eigenvalue of the Hessian.
    pub(crate) curvature: Option<f64>,
}

impl<'a, T: Number> MetricSampler<'a, T> {
    pub(crate) fn new(config: &TrialConfig, measure: &'a Measure, layout: &ParamLayout) -> Self {
        let has_normed_weights = layout
            .params
            .iter()
            .any(|s| s.param.trained && s.param.normed);
        Self {
            measure,
            sample_steps: measure.every.steps_in_trial(config),
            norm_ranges: layout.matching_ranges(|p| p.trained && (p.normed || !has_normed_weights)),
            normed_lr_factor: find_normed_lr_factor(config, layout),
            trained_ranges: layout.matching_ranges(|p| p.trained),
            since_last_sample: LossTally::default(),
            weights_before_step: Vec::new(),
            last_sampled_weights: Vec::new(),
            initial_weights: Vec::new(),
            norm_sq: 0.0,
            norm_sq_jump: 0.0,
            layer_ranges: measure
                .metrics
                .iter()
                .map(|metric| requested_layer_range(metric, layout))
                .collect(),
            parts: PartsGeometry::UNKNOWN,
            curve: MetricCurve::default(),
        }
    }

    /// Whether a sample is taken after `step` steps.
    pub(crate) fn is_sample_due(&self, step: u64) -> bool {
        self.sample_steps.is_due(step)
    }

    /// Whether a metric needs the weights before a sampled step.
    pub(crate) fn needs_weights_before(&self) -> bool {
        self.has_any_metric(&[
            Metric::UpdateNorm,
            Metric::AngularUpdate,
            Metric::GradWeightCos,
        ])
    }

    /// Whether any of these metrics is requested.
    pub(crate) fn has_any_metric(&self, some: &[Metric]) -> bool {
        self.measure.metrics.iter().any(|m| some.contains(m))
    }

    /// Whether a requested metric needs this pass.
    pub(crate) fn needs_pass(&self, pass: MeasurementPass) -> bool {
        self.measure.needs_pass(pass)
    }

    /// Ranges of the weights.
    pub(crate) fn weight_ranges(&self) -> &[Range<usize>] {
        &self.norm_ranges
    }

    /// Whether a metric needs the weights at the start.
    pub(crate) fn needs_initial_weights(&self) -> bool {
        self.needs_every_step()
            || self.has_any_metric(&[Metric::InitDistance, Metric::SampleDistance])
    }

    /// Records the weights at the start.
    pub(crate) fn record_initial_weights(&mut self, weights: &[T]) {
        if self.has_any_metric(&[Metric::InitDistance]) {
            self.initial_weights = weights.to_vec();
        }
        if self.has_any_metric(&[Metric::SampleDistance]) {
            self.last_sampled_weights = weights.to_vec();
        }
        self.norm_sq = sum_of_squares(&self.norm_ranges, weights);
    }

    /// Whether a metric compares the weights that the trial starts from the mean of.
    pub(crate) fn needs_parts(&self) -> bool {
        self.measure.metrics.iter().any(Metric::is_of_parts)
    }

    /// Whether a metric needs the weights after every step.
    pub(crate) fn needs_every_step(&self) -> bool {
        self.has_any_metric(&[Metric::NormSqJump])
    }

    /// Updates the largest change of ‖w‖² with the weights after a step.
    pub(crate) fn track_norm_sq_jump(&mut self, weights: &[T]) {
        let norm_sq = sum_of_squares(&self.norm_ranges, weights);
        self.norm_sq_jump = self.norm_sq_jump.max((norm_sq - self.norm_sq).abs());
        self.norm_sq = norm_sq;
    }

    /// Adds the losses of a training step.
    pub(crate) fn add_training_tally(&mut self, tally: LossTally) {
        self.since_last_sample.add(tally);
    }

    /// Records the weights before a step.
    pub(crate) fn record_weights_before(&mut self, weights: &[T]) {
        self.weights_before_step.clear();
        self.weights_before_step.extend_from_slice(weights);
    }

    /// Takes a sample of all requested metrics.
    pub(crate) fn record_sample(&mut self, sample: &SampleInputs<'_, T>) {
        self.curve.steps.push(sample.step);

        for (metric, layer) in self.measure.metrics.iter().zip(&self.layer_ranges) {
            let value = self.compute_metric(metric, layer.as_ref(), sample);

            // Only a loss may be infinite; any other infinite metric is undefined.
            let is_known = value.is_finite() || metric.is_loss() && value.is_infinite();
            self.curve
                .values
                .push(if is_known { value } else { f64::NAN });
        }

        self.since_last_sample = LossTally::default();
        self.norm_sq_jump = 0.0;

        if !self.last_sampled_weights.is_empty() {
            self.last_sampled_weights.copy_from_slice(sample.weights);
        }
    }

    /// The value of a metric, `layer` being the range of the weight of the layer that it names. NaN where it is not defined.
    fn compute_metric(
        &self,
        metric: &Metric,
        layer: Option<&Range<usize>>,
        sample: &SampleInputs<'_, T>,
    ) -> f64 {
        let results = &sample.pass_results;
        let ranges = &self.norm_ranges[..];
        let before = &self.weights_before_step[..];
        let weights = sample.weights;
        if sample.step == 0 && metric.needs_step() {
            return f64::NAN;
        }

        match metric {
            // Programs report their own.
            Metric::Declared(_) => f64::NAN,
            Metric::TrainLoss => self.since_last_sample.mean_unsmoothed_loss(),
            Metric::TrainAcc => self.since_last_sample.accuracy(),
            Metric::TrainSmoothedLoss => self.since_last_sample.mean_loss(),
            Metric::TestLoss => compute_plain_loss(results.test),
            Metric::TestAcc => compute_accuracy(results.test),
            Metric::TestSmoothedLoss => results.test.map_or(f64::NAN, |test| test.mean_loss()),
            Metric::ValLoss => compute_plain_loss(results.validation),
            Metric::ValAcc => compute_accuracy(results.validation),
            Metric::AverageTestLoss => compute_plain_loss(results.average_test),
            Metric::AverageTestAcc => compute_accuracy(results.average_test),
            Metric::AverageValLoss => compute_plain_loss(results.average_validation),
            Metric::AverageValAcc => compute_accuracy(results.average_validation),
            Metric::WeightNorm => sum_of_squares(ranges, weights).sqrt(),
            Metric::WeightNormSq => sum_of_squares(ranges, weights),
            Metric::LayerNormSq(_) => layer.map_or(f64::NAN, |layer| {
                sum_of_squares(std::slice::from_ref(layer), weights)
            }),
            Metric::EffectiveLr => self.compute_effective_lr(sample),
            Metric::StepLr => sample.rates.lr,
            Metric::StepWd => sample.rates.wd,
            Metric::GradNorm => sum_of_squares(&self.trained_ranges, sample.gradient).sqrt(),
            Metric::GradWeightCos => cosine_similarity(ranges, before, sample.gradient),
            Metric::UpdateNorm => euclidean_distance(ranges, before, weights),
            Metric::AngularUpdate => angle_between(ranges, before, weights),
            Metric::NormSqJump => self.norm_sq_jump,
            Metric::InitDistance => euclidean_distance(ranges, &self.initial_weights, weights),
            Metric::SampleDistance => {
                euclidean_distance(ranges, &self.last_sampled_weights, weights)
            }
            Metric::GradNoiseTrace => results.noise.map_or(f64::NAN, |noise| noise.trace),
            Metric::GradNoiseHill => results.noise.map_or(f64::NAN, |noise| noise.tail_index),
            Metric::GradNoiseCos => results.noise.map_or(f64::NAN, |noise| noise.weight_cosine),
            Metric::GradNoiseDim => results.noise.map_or(f64::NAN, |noise| noise.dimension),
            Metric::HessianTop => results.curvature.unwrap_or(f64::NAN),
            Metric::PartsCos => self.parts.cosine,
            Metric::PartsCosGap => self.parts.cosine_gap,
            Metric::PartsDistance => self.parts.distance,
        }
    }

    /// η/‖w‖² of the last step; NaN without norms, and where the weights have several learning rates.
    fn compute_effective_lr(&self, sample: &SampleInputs<'_, T>) -> f64 {
        self.normed_lr_factor.map_or(f64::NAN, |factor| {
            sample.rates.lr * factor / sum_of_squares(&self.norm_ranges, sample.weights)
        })
    }

    /// Final metrics and curve. A trial that diverged has no final metrics.
    pub(crate) fn into_metrics_and_curve(self, diverged: bool) -> (Vec<f64>, MetricCurve) {
        let width = self.measure.metrics.len();
        let last = self.curve.values.len().saturating_sub(width);
        let undefined = diverged || self.curve.values.is_empty();
        let metrics = if undefined {
            vec![f64::NAN; width]
        } else {
            self.curve.values[last..].to_vec()
        };

        (metrics, self.curve)
    }
}

impl MetricSampler<'_> {
    /// Measures the weights that the trial starts from the mean of, packed.
    pub(crate) fn record_parts(&mut self, parts: &[Vec<f32>]) {
        self.parts = PartsGeometry::measure(&self.norm_ranges, parts);
    }

    /// Encodes everything that later samples depend on.
    pub(crate) fn encode_into(&self, to: &mut CheckpointEncoder) {
        to.write_f64(self.since_last_sample.loss_sum);
        to.write_f64(self.since_last_sample.unsmoothed_loss_sum);
        to.write_u64(self.since_last_sample.correct);
        to.write_u64(self.since_last_sample.images);
        to.write_f32s(&self.last_sampled_weights);
        to.write_f32s(&self.initial_weights);

        to.write_f64(self.norm_sq);
        to.write_f64(self.norm_sq_jump);
        to.write_u64s(&self.curve.steps);
        to.write_f64s(&self.curve.values);
    }

    /// Restores the state that [`Self::encode_into`] wrote; `None` if it belongs to another trial.
    pub(crate) fn restore_from(&mut self, from: &mut CheckpointDecoder<'_>) -> Option<()> {
        let loss = from.read_f64()?;
        let plain = from.read_f64()?;
        self.since_last_sample = LossTally {
            loss_sum: loss,
            unsmoothed_loss_sum: plain,
            correct: from.read_u64()?,
            images: from.read_u64()?,
        };

        self.last_sampled_weights = from
            .read_f32s()
            .filter(|x| x.len() == self.last_sampled_weights.len())?;
        self.initial_weights = from
            .read_f32s()
            .filter(|x| x.len() == self.initial_weights.len())?;

        (self.norm_sq, self.norm_sq_jump) = (from.read_f64()?, from.read_f64()?);
        let steps = from.read_u64s()?;
        let values = from.read_f64s()?;
        let whole = values.len() == steps.len() * self.measure.metrics.len();
        self.curve = whole.then_some(MetricCurve { steps, values })?;

        Some(())
    }
}

/// The factor on the learning rate that all weights have which a norm follows; `None` if they have several, or there are none.
fn find_normed_lr_factor(config: &TrialConfig, layout: &ParamLayout) -> Option<f64> {
    let params = layout.params.iter().map(|slot| &slot.param);
    let mut factors = params
        .filter(|param| param.trained && param.normed)
        .map(|param| lr_factor_of(layout, &config.train, param));
    let first = factors.next()?;
    factors.all(|factor| factor == first).then_some(first)
}

/// NaN where the images were not evaluated.
fn compute_plain_loss(tally: Option<LossTally>) -> f64 {
    tally.map_or(f64::NAN, |tally| tally.mean_unsmoothed_loss())
}

/// NaN where the images were not evaluated.
fn compute_accuracy(tally: Option<LossTally>) -> f64 {
    tally.map_or(f64::NAN, |tally| tally.accuracy())
}

/// The range of the weight of the layer whose norm a metric is; `None` for other metrics, and without such a layer.
fn requested_layer_range(metric: &Metric, layout: &ParamLayout) -> Option<Range<usize>> {
    let Metric::LayerNormSq(layer) = metric else {
        return None;
    };

    let slot = layout
        .params
        .iter()
        .find(|slot| slot.param.name.strip_suffix(".weight") == Some(layer))?;
    Some(slot.range.clone())
}

#[cfg(test)]
mod tests {
    use ergodic_common::config::{Length, ModelKind, Norm, Toy};

    use crate::train::measure::metrics::*;
    use crate::train::tests::cases;

    /// A completed trial may classify an image as wrongly as no number says; a norm beyond all numbers is unknown.
    #[test]
    fn a_loss_may_be_infinite_and_nothing_else() {
        let toy = Toy {
            dim: 1,
            noise: 0.0,
            start: None,
        };
        let config = cases::small_trial(ModelKind::Toy(toy), Norm::None);
        let layout = ParamLayout::with_single_tensor(1);
        let metrics = vec![
            Metric::TrainLoss,
            Metric::TestLoss,
            Metric::ValLoss,
            Metric::WeightNormSq,
            Metric::TestAcc,
        ];
        let measure = Measure::with_metrics(Length::Steps(1), metrics);

        let tally = |loss: f64| LossTally {
            loss_sum: loss,
            unsmoothed_loss_sum: loss,
            correct: 1,
            images: 2,
        };
        let mut sampler = MetricSampler::<f64>::new(&config, &measure, &layout);
        sampler.add_training_tally(tally(f64::INFINITY));
        sampler.record_sample(&SampleInputs {
            step: 1,
            rates: StepHyperparams::at_step(&config, 0),
            weights: &vec![1e200; layout.len],
            gradient: &vec![0.0; layout.len],
            pass_results: PassResults {
                test: Some(tally(f64::INFINITY)),
                validation: Some(tally(f64::NAN)),
                ..PassResults::default()
            },
        });

        let (found, _) = sampler.into_metrics_and_curve(false);
        assert_eq!(found[..2], [f64::INFINITY; 2]);
        assert!(found[2].is_nan() && found[3].is_nan(), "{found:?}");
        assert_eq!(found[4], 0.5);
    }
}
