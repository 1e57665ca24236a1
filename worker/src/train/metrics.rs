//! Metrics of a trial. What nobody asked for is not computed.

use std::ops::Range;

use ergodic_common::config::TrialConfig;
use ergodic_common::metric::Metric;
use ergodic_common::spec::Measure;
use ergodic_common::trial::Curve;

use super::loss::Tally;
use super::params::Layout;

/// Collects the samples of one trial.
pub(super) struct Sampler<'a> {
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
    /// Weights before the step that a sample follows, if a metric compares the two.
    before: Vec<f32>,
    curve: Curve,
}

/// What a sample is taken from.
pub(super) struct Sample<'a> {
    /// Steps done.
    pub(super) step: u64,
    /// η of the last step.
    pub(super) lr: f64,
    /// Packed parameters after it.
    pub(super) weights: &'a [f32],
    /// Gradient of the last batch.
    pub(super) gradient: &'a [f32],
    /// The test set, if it was asked for.
    pub(super) test: Option<Tally>,
}

impl<'a> Sampler<'a> {
    pub(super) fn new(config: &TrialConfig, measure: &'a Measure, layout: &Layout) -> Self {
        let normed = layout.slots.iter().any(|s| s.param.trained && s.param.normed);
        Self {
            measure,
            every: config.to_steps(measure.every).max(1),
            steps: config.steps(),
            weights: layout.ranges(|p| p.trained && (p.normed || !normed)),
            normed,
            trained: layout.ranges(|p| p.trained),
            seen: Tally::default(),
            before: Vec::new(),
            curve: Curve::default(),
        }
    }

    /// Whether a sample follows so many steps.
    pub(super) fn due(&self, step: u64) -> bool {
        is_due(step, self.every, self.steps)
    }

    /// Whether a metric needs the test set.
    pub(super) fn wants_test(&self) -> bool {
        self.wants(&[Metric::TestLoss, Metric::TestAcc])
    }

    /// Whether a metric needs the weights before a sampled step.
    pub(super) fn wants_before(&self) -> bool {
        self.wants(&[Metric::UpdateNorm, Metric::AngularUpdate])
    }

    fn wants(&self, some: &[Metric]) -> bool {
        self.measure.metrics.iter().any(|m| some.contains(m))
    }

    /// Counts a training step.
    pub(super) fn trained(&mut self, tally: Tally) {
        self.seen.add(tally);
    }

    /// Keeps the weights before a step.
    pub(super) fn keep(&mut self, weights: &[f32]) {
        self.before.clear();
        self.before.extend_from_slice(weights);
    }

    /// Takes a sample.
    pub(super) fn take(&mut self, sample: &Sample<'_>) {
        self.curve.steps.push(sample.step);
        for metric in &self.measure.metrics {
            let value = self.value(*metric, sample);
            self.curve.values.push(if value.is_finite() { value } else { f64::NAN });
        }
        self.seen = Tally::default();
    }

    fn value(&self, metric: Metric, sample: &Sample<'_>) -> f64 {
        let squares = || sum(&self.weights, |i| square(sample.weights[i]));
        match metric {
            Metric::TrainLoss => self.seen.mean_loss(),
            Metric::TrainAcc => self.seen.accuracy(),
            Metric::TestLoss => sample.test.map_or(f64::NAN, |t| t.mean_loss()),
            Metric::TestAcc => sample.test.map_or(f64::NAN, |t| t.accuracy()),
            Metric::WeightNorm => squares().sqrt(),
            Metric::WeightNormSq => squares(),
            Metric::EffectiveLr if self.normed => sample.lr / squares(),
            Metric::EffectiveLr => f64::NAN,
            Metric::GradNorm => sum(&self.trained, |i| square(sample.gradient[i])).sqrt(),
            Metric::UpdateNorm => {
                let change = |i: usize| f64::from(sample.weights[i]) - f64::from(self.before[i]);
                sum(&self.weights, |i| change(i) * change(i)).sqrt()
            }
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

/// Whether a sample follows `step` when one is taken after `every` steps and at the end.
pub(super) fn is_due(step: u64, every: u64, steps: u64) -> bool {
    step.is_multiple_of(every) || step == steps
}

fn square(x: f32) -> f64 {
    f64::from(x) * f64::from(x)
}

/// Σ f(i) over the places, in eight interleaved sums, added in a fixed order.
fn sum(places: &[Range<usize>], f: impl Fn(usize) -> f64) -> f64 {
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
fn angle(places: &[Range<usize>], a: &[f32], b: &[f32]) -> f64 {
    let norm = |x: &[f32]| sum(places, |i| square(x[i])).sqrt();
    let (na, nb) = (norm(a), norm(b));
    let apart = |sign: f64| {
        let square = |i: usize| {
            let d = f64::from(a[i]) / na + sign * f64::from(b[i]) / nb;
            d * d
        };
        sum(places, square).sqrt()
    };
    2.0 * libm::atan2(apart(-1.0), apart(1.0))
}
