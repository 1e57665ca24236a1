//! Metrics of a trial. What nobody asked for is not computed.

use std::ops::Range;

use ergodic_common::config::TrialConfig;
use ergodic_common::metric::{MeasurementPass, Metric};
use ergodic_common::spec::Measure;
use ergodic_common::trial::Curve;

use super::checkpoint::{Packer, Unpacker};
use super::loss::Tally;
use super::params::Layout;
use super::probe::Noise;

/// Numbers that weights are made of: f32, or f64 for the toy loss.
pub(super) trait Number: Copy + Into<f64> {}

impl Number for f32 {}
impl Number for f64 {}

/// Collects the samples of one trial.
pub(super) struct Sampler<'a, T = f32> {
    measure: &'a Measure,
    /// Steps between samples.
    every: u64,
    /// Steps of the trial.
    steps: u64,
    /// Places of the weights whose norm is reported.
    weights: Vec<Range<usize>>,
    normed: bool,
    /// Places of all trained parameters.
    trained: Vec<Range<usize>>,
    /// Training since the last sample.
    seen: Tally,
    /// Weights before the step that a sample follows, at the sample before, and at the start, if a metric compares them.
    before: Vec<T>,
    sampled: Vec<T>,
    initial: Vec<T>,
    /// ‖w‖² after the last step, and its largest change in a step since the last sample.
    norm_sq: f64,
    jump: f64,
    /// Places of the weights of the layers whose norms are asked for, in the order of the metrics.
    layers: Vec<Option<Range<usize>>>,
    curve: Curve,
}

/// What a sample is taken from.
pub(super) struct Sample<'a, T = f32> {
    /// Steps done.
    pub(super) step: u64,
    /// η of the last step.
    pub(super) lr: f64,
    /// Packed parameters after it.
    pub(super) weights: &'a [T],
    /// Gradient of the last batch.
    pub(super) gradient: &'a [T],
    /// What takes passes of its own.
    pub(super) probed: Probed,
}

/// What passes over further images have found, where it was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Probed {
    /// Of the test set.
    pub(super) test: Option<Tally>,
    /// Of the images to validate on.
    pub(super) validation: Option<Tally>,
    /// Of both under the averaged weights.
    pub(super) average_test: Option<Tally>,
    pub(super) average_validation: Option<Tally>,
    pub(super) noise: Option<Noise>,
    /// The Hessian's largest eigenvalue.
    pub(super) curvature: Option<f64>,
}

impl<'a, T: Number> Sampler<'a, T> {
    pub(super) fn new(config: &TrialConfig, measure: &'a Measure, layout: &Layout) -> Self {
        let normed = layout.slots.iter().any(|s| s.param.trained && s.param.normed);
        Self {
            measure,
            every: config.length_in_steps(measure.every).max(1),
            steps: config.total_steps(),
            weights: layout.ranges(|p| p.trained && (p.normed || !normed)),
            normed,
            trained: layout.ranges(|p| p.trained),
            seen: Tally::default(),
            before: Vec::new(),
            sampled: Vec::new(),
            initial: Vec::new(),
            norm_sq: 0.0,
            jump: 0.0,
            layers: measure.metrics.iter().filter_map(|metric| layer_of(metric, layout)).collect(),
            curve: Curve::default(),
        }
    }

    /// Whether a sample follows so many steps.
    pub(super) fn due(&self, step: u64) -> bool {
        is_due(step, self.every, self.steps)
    }

    /// Whether a metric needs the weights before a sampled step.
    pub(super) fn wants_before(&self) -> bool {
        self.wants(&[Metric::UpdateNorm, Metric::AngularUpdate, Metric::GradWeightCos])
    }

    /// Whether one of these was asked for.
    pub(super) fn wants(&self, some: &[Metric]) -> bool {
        self.measure.metrics.iter().any(|m| some.contains(m))
    }

    /// Whether a metric is read from this pass.
    pub(super) fn takes(&self, pass: MeasurementPass) -> bool {
        self.measure.needs_pass(pass)
    }

    /// Whether a metric needs the weights at the start.
    pub(super) fn wants_start(&self) -> bool {
        self.wants_each() || self.wants(&[Metric::InitDistance, Metric::SampleDistance])
    }

    /// Keeps the weights at the start.
    pub(super) fn start(&mut self, weights: &[T]) {
        if self.wants(&[Metric::InitDistance]) {
            self.initial = weights.to_vec();
        }
        if self.wants(&[Metric::SampleDistance]) {
            self.sampled = weights.to_vec();
        }
        self.norm_sq = squares(&self.weights, weights);
    }

    /// Whether a metric needs the weights after every step.
    pub(super) fn wants_each(&self) -> bool {
        self.wants(&[Metric::NormSqJump])
    }

    /// Looks at the weights after a step.
    pub(super) fn watch(&mut self, weights: &[T]) {
        let norm_sq = squares(&self.weights, weights);
        self.jump = self.jump.max((norm_sq - self.norm_sq).abs());
        self.norm_sq = norm_sq;
    }

    /// Counts a training step.
    pub(super) fn trained(&mut self, tally: Tally) {
        self.seen.add(tally);
    }

    /// Keeps the weights before a step.
    pub(super) fn keep(&mut self, weights: &[T]) {
        self.before.clear();
        self.before.extend_from_slice(weights);
    }

    /// Takes a sample.
    pub(super) fn take(&mut self, sample: &Sample<'_, T>) {
        self.curve.steps.push(sample.step);
        let mut layers = self.layers.iter();
        for metric in &self.measure.metrics {
            let value = match metric {
                Metric::LayerNormSq(_) => match layers.next() {
                    Some(Some(place)) => squares(std::slice::from_ref(place), sample.weights),
                    _ => f64::NAN,
                },
                metric => self.value(metric, sample),
            };
            // A loss may be infinite; of all else that says that it is not defined.
            let is_known = value.is_finite() || metric.is_loss() && value.is_infinite();
            self.curve.values.push(if is_known { value } else { f64::NAN });
        }
        self.seen = Tally::default();
        self.jump = 0.0;
        if !self.sampled.is_empty() {
            self.sampled.copy_from_slice(sample.weights);
        }
    }

    fn value(&self, metric: &Metric, sample: &Sample<'_, T>) -> f64 {
        let norm_sq = || squares(&self.weights, sample.weights);
        let loss = |tally: Option<Tally>| tally.map_or(f64::NAN, |t| t.mean_plain_loss());
        let accuracy = |tally: Option<Tally>| tally.map_or(f64::NAN, |t| t.accuracy());
        match metric {
            Metric::TrainLoss => self.seen.mean_plain_loss(),
            Metric::TrainAcc => self.seen.accuracy(),
            Metric::TrainSmoothedLoss => self.seen.mean_loss(),
            Metric::TestLoss => loss(sample.probed.test),
            Metric::TestAcc => accuracy(sample.probed.test),
            Metric::TestSmoothedLoss => sample.probed.test.map_or(f64::NAN, |t| t.mean_loss()),
            Metric::ValLoss => loss(sample.probed.validation),
            Metric::ValAcc => accuracy(sample.probed.validation),
            Metric::AverageTestLoss => loss(sample.probed.average_test),
            Metric::AverageTestAcc => accuracy(sample.probed.average_test),
            Metric::AverageValLoss => loss(sample.probed.average_validation),
            Metric::AverageValAcc => accuracy(sample.probed.average_validation),
            Metric::WeightNorm => norm_sq().sqrt(),
            Metric::WeightNormSq => norm_sq(),
            Metric::EffectiveLr if self.normed => sample.lr / norm_sq(),
            Metric::EffectiveLr | Metric::LayerNormSq(_) => f64::NAN,
            Metric::GradWeightCos => cosine(&self.weights, &self.before, sample.gradient),
            Metric::NormSqJump => self.jump,
            Metric::InitDistance => distance(&self.weights, &self.initial, sample.weights),
            Metric::SampleDistance => distance(&self.weights, &self.sampled, sample.weights),
            Metric::GradNoiseTrace => sample.probed.noise.map_or(f64::NAN, |noise| noise.trace),
            Metric::GradNoiseHill => sample.probed.noise.map_or(f64::NAN, |noise| noise.hill),
            Metric::HessianTop => sample.probed.curvature.unwrap_or(f64::NAN),
            Metric::GradNorm => sum(&self.trained, |i| square(sample.gradient[i])).sqrt(),
            Metric::UpdateNorm => distance(&self.weights, &self.before, sample.weights),
            Metric::AngularUpdate => angle(&self.weights, &self.before, sample.weights),
        }
    }

    /// Final metrics and curve. A trial that diverged has no final metrics.
    pub(super) fn finish(self, diverged: bool) -> (Vec<f64>, Curve) {
        let width = self.measure.metrics.len();
        let last = self.curve.values.len().saturating_sub(width);
        let undefined = diverged || self.curve.values.is_empty();
        let metrics = if undefined { vec![f64::NAN; width] } else { self.curve.values[last..].to_vec() };
        (metrics, self.curve)
    }
}

impl Sampler<'_> {
    /// All that later samples depend on.
    pub(super) fn pack(&self, to: &mut Packer) {
        to.float(self.seen.loss);
        to.float(self.seen.plain);
        to.number(self.seen.right);
        to.number(self.seen.images);
        to.singles(&self.sampled);
        to.singles(&self.initial);
        to.float(self.norm_sq);
        to.float(self.jump);
        to.numbers(&self.curve.steps);
        to.floats(&self.curve.values);
    }

    /// Puts back what was packed; `None` if it is of another trial.
    pub(super) fn unpack(&mut self, from: &mut Unpacker<'_>) -> Option<()> {
        let (loss, plain) = (from.float()?, from.float()?);
        self.seen = Tally { loss, plain, right: from.number()?, images: from.number()? };
        self.sampled = from.singles().filter(|x| x.len() == self.sampled.len())?;
        self.initial = from.singles().filter(|x| x.len() == self.initial.len())?;
        (self.norm_sq, self.jump) = (from.float()?, from.float()?);
        let (steps, values) = (from.numbers()?, from.floats()?);
        let whole = values.len() == steps.len() * self.measure.metrics.len();
        self.curve = whole.then_some(Curve { steps, values })?;
        Some(())
    }
}

/// Whether a sample follows `step` when one is taken after `every` steps and at the end.
pub(super) fn is_due(step: u64, every: u64, steps: u64) -> bool {
    step.is_multiple_of(every) || step == steps
}

/// Where the weight of the layer stands whose norm a metric asks for.
fn layer_of(metric: &Metric, layout: &Layout) -> Option<Option<Range<usize>>> {
    let Metric::LayerNormSq(layer) = metric else { return None };
    let slot = layout.slots.iter().find(|slot| slot.param.name.strip_suffix(".weight") == Some(layer));
    Some(slot.map(|slot| slot.range.clone()))
}

fn squares<T: Number>(places: &[Range<usize>], x: &[T]) -> f64 {
    sum(places, |i| square(x[i]))
}

fn distance<T: Number>(places: &[Range<usize>], a: &[T], b: &[T]) -> f64 {
    let change = |i: usize| b[i].into() - a[i].into();
    sum(places, |i| change(i) * change(i)).sqrt()
}

/// The cosine of the angle between two vectors; NaN where one of them is 0.
fn cosine<T: Number>(places: &[Range<usize>], a: &[T], b: &[T]) -> f64 {
    let product = sum(places, |i| a[i].into() * b[i].into());
    product / (squares(places, a).sqrt() * squares(places, b).sqrt())
}

fn square(x: impl Number) -> f64 {
    x.into() * x.into()
}

/// Σ f(i) over the places, in eight interleaved sums, added in a fixed order.
pub(super) fn sum(places: &[Range<usize>], f: impl Fn(usize) -> f64) -> f64 {
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
fn angle<T: Number>(places: &[Range<usize>], a: &[T], b: &[T]) -> f64 {
    let norm = |x: &[T]| sum(places, |i| square(x[i])).sqrt();
    let (na, nb) = (norm(a), norm(b));
    let apart = |sign: f64| {
        let square = |i: usize| {
            let d = a[i].into() / na + sign * b[i].into() / nb;
            d * d
        };
        sum(places, square).sqrt()
    };
    2.0 * libm::atan2(apart(-1.0), apart(1.0))
}
