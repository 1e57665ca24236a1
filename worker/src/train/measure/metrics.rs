//! Metrics of a trial. What nobody asked for is not computed.

use std::ops::Range;

use ergodic_common::config::TrialConfig;
use ergodic_common::metric::{MeasurementPass, Metric};
use ergodic_common::spec::Measure;
use ergodic_common::trial::Curve;

use super::gradient_stats::GradientNoise;
use crate::train::checkpoint::{CheckpointDecoder, CheckpointEncoder};
use crate::train::engine::loss::LossTally;
use crate::train::network::params::ParamLayout;

/// Numbers that weights are made of: f32, or f64 for the toy loss.
pub(crate) trait Number: Copy + Into<f64> {}

impl Number for f32 {}
impl Number for f64 {}

/// Collects the samples of one trial.
pub(crate) struct MetricSampler<'a, T = f32> {
    measure: &'a Measure,
    /// Steps between samples.
    sample_interval: u64,
    /// Steps of the trial.
    total_steps: u64,
    /// Places of the weights whose norm is reported.
    norm_ranges: Vec<Range<usize>>,
    has_normed_weights: bool,
    /// Places of all trained parameters.
    trained_ranges: Vec<Range<usize>>,
    /// Training since the last sample.
    since_last_sample: LossTally,
    /// Weights before the step that a sample follows, at the sample before, and at the start, if a metric compares them.
    weights_before_step: Vec<T>,
    last_sampled_weights: Vec<T>,
    initial_weights: Vec<T>,
    /// ‖w‖² after the last step, and its largest change in a step since the last sample.
    norm_sq: f64,
    norm_sq_jump: f64,
    /// Places of the weights of the layers whose norms are asked for, in the order of the metrics.
    layer_ranges: Vec<Option<Range<usize>>>,
    curve: Curve,
}

/// What a sample is taken from.
pub(crate) struct SampleInputs<'a, T = f32> {
    /// Steps done.
    pub(crate) step: u64,
    /// η of the last step.
    pub(crate) lr: f64,
    /// Packed parameters after it.
    pub(crate) weights: &'a [T],
    /// Gradient of the last batch.
    pub(crate) gradient: &'a [T],
    /// What takes passes of its own.
    pub(crate) pass_results: PassResults,
}

/// What passes over further images have found, where it was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PassResults {
    /// Of the test set.
    pub(crate) test: Option<LossTally>,
    /// Of the images to validate on.
    pub(crate) validation: Option<LossTally>,
    /// Of both under the averaged weights.
    pub(crate) average_test: Option<LossTally>,
    pub(crate) average_validation: Option<LossTally>,
    pub(crate) noise: Option<GradientNoise>,
    /// The Hessian's largest eigenvalue.
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
            sample_interval: config.length_in_steps(measure.every).max(1),
            total_steps: config.total_steps(),
            norm_ranges: layout.matching_ranges(|p| p.trained && (p.normed || !has_normed_weights)),
            has_normed_weights,
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
                .filter_map(|metric| requested_layer_range(metric, layout))
                .collect(),
            curve: Curve::default(),
        }
    }

    /// Whether a sample follows so many steps.
    pub(crate) fn is_sample_due(&self, step: u64) -> bool {
        is_due(step, self.sample_interval, self.total_steps)
    }

    /// Whether a metric needs the weights before a sampled step.
    pub(crate) fn needs_weights_before(&self) -> bool {
        self.has_any_metric(&[
            Metric::UpdateNorm,
            Metric::AngularUpdate,
            Metric::GradWeightCos,
        ])
    }

    /// Whether one of these was asked for.
    pub(crate) fn has_any_metric(&self, some: &[Metric]) -> bool {
        self.measure.metrics.iter().any(|m| some.contains(m))
    }

    /// Whether a metric is read from this pass.
    pub(crate) fn needs_pass(&self, pass: MeasurementPass) -> bool {
        self.measure.needs_pass(pass)
    }

    /// Whether a metric needs the weights at the start.
    pub(crate) fn needs_initial_weights(&self) -> bool {
        self.needs_every_step()
            || self.has_any_metric(&[Metric::InitDistance, Metric::SampleDistance])
    }

    /// Keeps the weights at the start.
    pub(crate) fn record_initial_weights(&mut self, weights: &[T]) {
        if self.has_any_metric(&[Metric::InitDistance]) {
            self.initial_weights = weights.to_vec();
        }
        if self.has_any_metric(&[Metric::SampleDistance]) {
            self.last_sampled_weights = weights.to_vec();
        }
        self.norm_sq = sum_of_squares(&self.norm_ranges, weights);
    }

    /// Whether a metric needs the weights after every step.
    pub(crate) fn needs_every_step(&self) -> bool {
        self.has_any_metric(&[Metric::NormSqJump])
    }

    /// Looks at the weights after a step.
    pub(crate) fn update_norm_sq_jump(&mut self, weights: &[T]) {
        let norm_sq = sum_of_squares(&self.norm_ranges, weights);
        self.norm_sq_jump = self.norm_sq_jump.max((norm_sq - self.norm_sq).abs());
        self.norm_sq = norm_sq;
    }

    /// Counts a training step.
    pub(crate) fn add_training_tally(&mut self, tally: LossTally) {
        self.since_last_sample.add(tally);
    }

    /// Keeps the weights before a step.
    pub(crate) fn record_weights_before(&mut self, weights: &[T]) {
        self.weights_before_step.clear();
        self.weights_before_step.extend_from_slice(weights);
    }

    /// Takes a sample.
    pub(crate) fn record_sample(&mut self, sample: &SampleInputs<'_, T>) {
        self.curve.steps.push(sample.step);
        let mut layers = self.layer_ranges.iter();

        for metric in &self.measure.metrics {
            let value = match metric {
                Metric::LayerNormSq(_) => match layers.next() {
                    Some(Some(place)) => {
                        sum_of_squares(std::slice::from_ref(place), sample.weights)
                    }
                    _ => f64::NAN,
                },
                metric => self.compute_metric(metric, sample),
            };

            // A loss may be infinite; of all else that says that it is not defined.
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

    fn compute_metric(&self, metric: &Metric, sample: &SampleInputs<'_, T>) -> f64 {
        let norm_sq = || sum_of_squares(&self.norm_ranges, sample.weights);
        let loss = |tally: Option<LossTally>| tally.map_or(f64::NAN, |t| t.mean_unsmoothed_loss());
        let accuracy = |tally: Option<LossTally>| tally.map_or(f64::NAN, |t| t.accuracy());

        match metric {
            Metric::TrainLoss => self.since_last_sample.mean_unsmoothed_loss(),
            Metric::TrainAcc => self.since_last_sample.accuracy(),
            Metric::TrainSmoothedLoss => self.since_last_sample.mean_loss(),
            Metric::TestLoss => loss(sample.pass_results.test),
            Metric::TestAcc => accuracy(sample.pass_results.test),
            Metric::TestSmoothedLoss => {
                sample.pass_results.test.map_or(f64::NAN, |t| t.mean_loss())
            }
            Metric::ValLoss => loss(sample.pass_results.validation),
            Metric::ValAcc => accuracy(sample.pass_results.validation),
            Metric::AverageTestLoss => loss(sample.pass_results.average_test),
            Metric::AverageTestAcc => accuracy(sample.pass_results.average_test),
            Metric::AverageValLoss => loss(sample.pass_results.average_validation),
            Metric::AverageValAcc => accuracy(sample.pass_results.average_validation),
            Metric::WeightNorm => norm_sq().sqrt(),
            Metric::WeightNormSq => norm_sq(),
            Metric::EffectiveLr if self.has_normed_weights => sample.lr / norm_sq(),
            Metric::EffectiveLr | Metric::LayerNormSq(_) => f64::NAN,
            Metric::GradWeightCos => cosine_similarity(
                &self.norm_ranges,
                &self.weights_before_step,
                sample.gradient,
            ),
            Metric::NormSqJump => self.norm_sq_jump,
            Metric::InitDistance => {
                euclidean_distance(&self.norm_ranges, &self.initial_weights, sample.weights)
            }
            Metric::SampleDistance => euclidean_distance(
                &self.norm_ranges,
                &self.last_sampled_weights,
                sample.weights,
            ),
            Metric::GradNoiseTrace => sample
                .pass_results
                .noise
                .map_or(f64::NAN, |noise| noise.trace),
            Metric::GradNoiseHill => sample
                .pass_results
                .noise
                .map_or(f64::NAN, |noise| noise.tail_index),
            Metric::HessianTop => sample.pass_results.curvature.unwrap_or(f64::NAN),
            Metric::GradNorm => {
                sum_over_ranges(&self.trained_ranges, |i| square(sample.gradient[i])).sqrt()
            }
            Metric::UpdateNorm => {
                euclidean_distance(&self.norm_ranges, &self.weights_before_step, sample.weights)
            }
            Metric::AngularUpdate => {
                angle_between(&self.norm_ranges, &self.weights_before_step, sample.weights)
            }
        }
    }

    /// Final metrics and curve. A trial that diverged has no final metrics.
    pub(crate) fn into_metrics_and_curve(self, diverged: bool) -> (Vec<f64>, Curve) {
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
    /// All that later samples depend on.
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

    /// Puts back what was packed; `None` if it is of another trial.
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
        self.curve = whole.then_some(Curve { steps, values })?;

        Some(())
    }
}

/// Whether a sample follows `step` when one is taken after `every` steps and at the end.
pub(crate) fn is_due(step: u64, every: u64, steps: u64) -> bool {
    step.is_multiple_of(every) || step == steps
}

/// Where the weight of the layer stands whose norm a metric asks for.
fn requested_layer_range(metric: &Metric, layout: &ParamLayout) -> Option<Option<Range<usize>>> {
    let Metric::LayerNormSq(layer) = metric else {
        return None;
    };
    let slot = layout
        .params
        .iter()
        .find(|slot| slot.param.name.strip_suffix(".weight") == Some(layer));
    Some(slot.map(|slot| slot.range.clone()))
}

fn sum_of_squares<T: Number>(places: &[Range<usize>], x: &[T]) -> f64 {
    sum_over_ranges(places, |i| square(x[i]))
}

fn euclidean_distance<T: Number>(places: &[Range<usize>], a: &[T], b: &[T]) -> f64 {
    let change = |i: usize| b[i].into() - a[i].into();
    sum_over_ranges(places, |i| change(i) * change(i)).sqrt()
}

/// The cosine of the angle between two vectors; NaN where one of them is 0.
fn cosine_similarity<T: Number>(places: &[Range<usize>], a: &[T], b: &[T]) -> f64 {
    let product = sum_over_ranges(places, |i| a[i].into() * b[i].into());
    product / (sum_of_squares(places, a).sqrt() * sum_of_squares(places, b).sqrt())
}

fn square(x: impl Number) -> f64 {
    x.into() * x.into()
}

/// Σ f(i) over the places, in eight interleaved sums, added in a fixed order.
pub(crate) fn sum_over_ranges(places: &[Range<usize>], f: impl Fn(usize) -> f64) -> f64 {
    let mut parts = [0.0; 8];
    for range in places {
        // Places are whole blocks long.
        for at in range.clone().step_by(8) {
            for (lane, part) in parts.iter_mut().enumerate() {
                *part += f(at + lane);
            }
        }
    }

    parts.iter().sum()
}

/// The angle between two vectors, accurate for small ones too (Kahan 2006).
fn angle_between<T: Number>(places: &[Range<usize>], a: &[T], b: &[T]) -> f64 {
    let norm = |x: &[T]| sum_over_ranges(places, |i| square(x[i])).sqrt();
    let na = norm(a);
    let nb = norm(b);
    let apart = |sign: f64| {
        let square = |i: usize| {
            let d = a[i].into() / na + sign * b[i].into() / nb;
            d * d
        };
        sum_over_ranges(places, square).sqrt()
    };

    2.0 * libm::atan2(apart(-1.0), apart(1.0))
}
