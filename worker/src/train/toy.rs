//! The scale-invariant toy loss of the theory: L(w) = w₁²/‖w‖², whose gradient 2(w₁e₁ − L·w)/‖w‖² is orthogonal to w
//! and falls as 1/‖w‖ (Li, Lyu and Arora 2020, appendix). Noise, if there is any, has these two properties as well: σ/‖w‖
//! times a normal vector without its part along w.
//!
//! All of it is in f64. Without noise, w₁ falls by a hundred orders of magnitude while ‖w‖ shrinks, and grows back when the
//! effective learning rate has become large enough; numbers of f32 end before that, and w would stay where the loss is 0.

use std::sync::atomic::{AtomicBool, Ordering};

use ergodic_common::config::{Adam, AdamDecay, Toy, TrainConfig};
use ergodic_common::ids::WeightsDigest;
use ergodic_common::random_streams::{Purpose, RandomStream, Streams};
use ergodic_common::trial::{Outcome, TrialResult};

use super::engine::loss::LossTally;
use super::measure::metrics::{MetricSampler, PassResults, SampleInputs};
use super::network::params::ParamLayout;
use super::optim::schedule::StepHyperparams;
use super::optim::step_gradient::clip_factor;
use super::{FinishedTrial, Job, failed_trial, timed_out_trial};

/// Runs a trial to its end or its time limit. Returns `None` once `stop` is set.
pub(crate) fn run_toy_trial(job: &Job<'_>, toy: &Toy, stop: &AtomicBool) -> Option<FinishedTrial> {
    let config = job.config;
    let layout = ParamLayout::with_single_tensor(toy.dim as usize);
    let mut descent = ToyDescent::new(draw_initial_point(job, toy, layout.len), toy.dim as usize);
    let mut sampler = MetricSampler::new(config, job.measure, &layout);
    sampler.record_initial_weights(&descent.w);

    // Whether w₁ has become subnormal. With weight decay the trial then ends; without, nothing
    // changes, because the loss stays 0 to all digits.
    let mut vanished = false;
    for step in 0..config.total_steps() {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        if job.is_past_deadline() {
            return Some(timed_out_trial(job, step));
        }

        let rates = StepHyperparams::at_step(config, step);
        if sampler.is_sample_due(step + 1) && sampler.needs_weights_before() {
            sampler.record_weights_before(&descent.w);
        }

        let loss = descent.compute_gradient(toy, job.streams, step);
        descent.update_weights(&config.train, rates, step);
        if !loss.is_finite() || !descent.w.iter().all(|x| x.is_finite()) {
            let outcome = Outcome::Diverged { step: step + 1 };
            return Some(finish_trial(job, &descent, sampler, step + 1, outcome));
        }

        vanished |= toy.noise == 0.0 && descent.w[0].is_subnormal();
        if vanished && rates.wd > 0.0 {
            return Some(underflowed_trial(job, step + 1));
        }

        record_step(&mut sampler, &descent, loss, rates, step + 1);
    }

    let steps = config.total_steps();
    Some(finish_trial(
        job,
        &descent,
        sampler,
        steps,
        Outcome::Completed,
    ))
}

/// Adds a step to the metrics, and takes a sample if one is due after `steps` steps.
fn record_step(
    sampler: &mut MetricSampler<'_, f64>,
    descent: &ToyDescent,
    loss: f64,
    rates: StepHyperparams,
    steps: u64,
) {
    sampler.add_training_tally(LossTally {
        loss_sum: loss,
        unsmoothed_loss_sum: loss,
        correct: 0,
        images: 1,
    });

    if sampler.needs_every_step() {
        sampler.track_norm_sq_jump(&descent.w);
    }

    if sampler.is_sample_due(steps) {
        sampler.record_sample(&SampleInputs {
            step: steps,
            rates,
            weights: &descent.w,
            gradient: &descent.gradient,
            pass_results: PassResults::default(),
        });
    }
}

fn finish_trial(
    job: &Job<'_>,
    descent: &ToyDescent,
    sampler: MetricSampler<'_, f64>,
    steps: u64,
    outcome: Outcome,
) -> FinishedTrial {
    let (metrics, curve) = sampler.into_metrics_and_curve(outcome != Outcome::Completed);
    let digest = descent.compute_digest();
    let isa = job.device_name().to_owned();
    let result = TrialResult {
        outcome,
        steps,
        metrics,
        digest,
        curve,
        isa,
        ..TrialResult::completed(job.key)
    };

    FinishedTrial {
        result,
        weights: None,
    }
}

/// The failure of a trial whose w₁ would round to 0 and stay there.
fn underflowed_trial(job: &Job<'_>, steps: u64) -> FinishedTrial {
    let cause = format!(
        "w₁ fell below the smallest normal f64 after step {steps} and would stay at 0, which the exact loss never reaches: \
         set model.noise above 0, or choose a larger lr·wd"
    );
    let mut ended = failed_trial(job, cause);
    ended.result.steps = steps;
    ended.result.isa = job.device_name().to_owned();
    ended
}

/// The initial point: the given one, or standard normal numbers; times the scale of the initialization.
fn draw_initial_point(job: &Job<'_>, toy: &Toy, len: usize) -> Vec<f64> {
    let scale = job.config.model.init_scale;
    let mut stream = job.streams.open_stream(Purpose::Init, b"w");
    let mut weights: Vec<f64> = match &toy.start {
        Some(start) => start[..toy.dim as usize]
            .iter()
            .map(|x| x * scale)
            .collect(),
        None => (0..toy.dim).map(|_| stream.next_normal() * scale).collect(),
    };
    weights.resize(len, 0.0);
    weights
}

/// The state of a descent. The padding of the vectors to whole blocks is 0 and stays 0.
struct ToyDescent {
    dim: usize,
    w: Vec<f64>,
    gradient: Vec<f64>,
    /// SGD's momentum, or Adam's average of the gradient.
    momentum: Vec<f64>,
    /// Adam's average of the squared gradient.
    squares: Vec<f64>,
}

impl ToyDescent {
    fn new(w: Vec<f64>, dim: usize) -> Self {
        let zeros = vec![0.0; w.len()];
        Self {
            dim,
            w,
            gradient: zeros.clone(),
            momentum: zeros.clone(),
            squares: zeros,
        }
    }

    /// Computes the gradient of a step, counted from 0; returns the loss.
    fn compute_gradient(&mut self, toy: &Toy, streams: &Streams, step: u64) -> f64 {
        let mut noise =
            (toy.noise > 0.0).then(|| streams.open_stream(Purpose::Order, &step.to_le_bytes()));
        let w = &self.w[..self.dim];
        let gradient = &mut self.gradient[..self.dim];

        // Divides by the largest number, so that no square overflows or underflows.
        let largest = w.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        let square: f64 = w.iter().map(|x| (x / largest) * (x / largest)).sum();
        let loss = (w[0] / largest) * (w[0] / largest) / square;

        for (i, (g, x)) in gradient.iter_mut().zip(w).enumerate() {
            let pull = if i == 0 { 1.0 } else { 0.0 };
            *g = 2.0 * (pull - loss) * (x / largest) / (largest * square);
        }

        if let Some(stream) = &mut noise {
            let size = toy.noise / (largest * libm::sqrt(square));
            add_orthogonal_noise(gradient, size, stream, |i| w[i] / largest, square);
        }

        loss
    }

    /// Updates w in a step, counted from 0.
    fn update_weights(&mut self, train: &TrainConfig, rates: StepHyperparams, step: u64) {
        let clip = train.clip_norm.map_or(1.0, |most| {
            let square: f64 = self.gradient.iter().map(|g| g * g).sum();
            clip_factor(libm::sqrt(square), most)
        });
        match train.adam {
            Some(adam) => self.update_adam(adam, rates, step, clip),
            None => self.update_sgd(rates, train.nesterov, clip),
        }
    }

    fn update_sgd(
        &mut self,
        StepHyperparams {
            lr,
            wd,
            momentum: mu,
        }: StepHyperparams,
        nesterov: bool,
        clip: f64,
    ) {
        for ((w, v), g) in self
            .w
            .iter_mut()
            .zip(&mut self.momentum)
            .zip(&self.gradient)
        {
            let decayed = clip * g + wd * *w;
            *v = mu * *v + decayed;
            *w -= lr * if nesterov { decayed + mu * *v } else { *v };
        }
    }

    fn update_adam(&mut self, adam: Adam, rates: StepHyperparams, step: u64, clip: f64) {
        let Adam {
            beta1, beta2, eps, ..
        } = adam;
        let StepHyperparams { lr, wd, .. } = rates;
        let (coupled, keep) = match adam.decay {
            AdamDecay::Coupled => (wd, 1.0),
            AdamDecay::Decoupled => (0.0, 1.0 - lr * wd),
        };
        let t = (step + 1) as f64;
        let size = lr / (1.0 - libm::pow(beta1, t));
        let root = libm::sqrt(1.0 - libm::pow(beta2, t));
        let averages = self.momentum.iter_mut().zip(&mut self.squares);
        for ((w, (m, v)), g) in self.w.iter_mut().zip(averages).zip(&self.gradient) {
            let g = clip * g + coupled * *w;
            *m += (1.0 - beta1) * (g - *m);
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *w = keep * *w - size * *m / (libm::sqrt(*v) / root + eps);
        }
    }

    /// The BLAKE3 hash of w, with a single representation of NaN.
    fn compute_digest(&self) -> WeightsDigest {
        let mut hasher = blake3::Hasher::new();
        for x in &self.w[..self.dim] {
            hasher.update(&if x.is_nan() { f64::NAN } else { *x }.to_le_bytes());
        }
        hasher.finalize().into()
    }
}

/// Adds `size` times a normal vector without its part along the vector `along`, whose squared length is `square`.
fn add_orthogonal_noise(
    to: &mut [f64],
    size: f64,
    stream: &mut RandomStream,
    along: impl Fn(usize) -> f64,
    square: f64,
) {
    let normal: Vec<f64> = to.iter().map(|_| stream.next_normal()).collect();
    let part = normal
        .iter()
        .enumerate()
        .map(|(i, n)| n * along(i))
        .sum::<f64>()
        / square;

    for (i, (x, n)) in to.iter_mut().zip(normal).enumerate() {
        *x += size * (n - part * along(i));
    }
}
