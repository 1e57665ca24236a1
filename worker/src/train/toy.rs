//! The scale-invariant toy loss of the theory: L(w) = w₁²/‖w‖², whose gradient 2(w₁e₁ − L·w)/‖w‖² is at right angles to w
//! and falls as 1/‖w‖ (Li, Lyu and Arora 2020, appendix). Noise, if there is any, has these two properties as well: σ/‖w‖
//! times a normal vector without its part along w.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{CpuStorage, InplaceOp2, Layout as Strides, Result};
use ergodic_common::config::Toy;
use ergodic_common::seed::{Purpose, Streams};
use ergodic_common::trial::{Outcome, TrialResult};

use super::loss::Tally;
use super::metrics::{Probed, Sample, Sampler};
use super::optimizer::{State, Trained, numbers, read};
use super::params::Layout;
use super::schedule::Rates;
use super::simd::Lanes;
use super::{Finished, Job, late};

/// Runs a trial to its end, or until its time is up. `None` when `stop` was raised.
pub(super) fn run<S: Lanes>(s: S, job: &Job<'_>, toy: &Toy, stop: &AtomicBool) -> Result<Option<Finished>> {
    let (config, layout) = (job.config, Layout::flat(toy.dim as usize));
    let state = State::new(start(job, toy, layout.len), Vec::new(), config.train.adamw)?;
    let trained = Trained::new(&layout, config.train.wd_on);
    let mut sampler = Sampler::new(config, job.measure, &layout);
    read(&state.weights, |w| sampler.start(w))?;
    let (mut steps, mut outcome) = (config.steps(), Outcome::Completed);
    for step in 0..config.steps() {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if job.is_late() {
            return Ok(Some(late(job, step)));
        }
        let (due, rates) = (sampler.due(step + 1), Rates::at(config, step));
        if due && sampler.wants_before() {
            read(&state.weights, |w| sampler.keep(w))?;
        }
        let slope = Slope { toy, streams: job.streams, step, loss: Cell::default() };
        state.gradient.inplace_op2(&state.weights, &slope)?;
        let loss = slope.loss.get();
        if !loss.is_finite() || !state.descend(s, &trained, rates, config.train.nesterov, step)? {
            (steps, outcome) = (step + 1, Outcome::Diverged { step: step + 1 });
            break;
        }
        sampler.trained(Tally { loss, right: 0, images: 1 });
        if sampler.wants_each() {
            read(&state.weights, |w| sampler.watch(w))?;
        }
        if due {
            let take = |weights: &[f32], gradient: &[f32]| {
                sampler.take(&Sample { step: step + 1, lr: rates.lr, weights, gradient, probed: Probed::default() });
            };
            sample(&state, take)?;
        }
    }
    end(job, &state, &layout, sampler, steps, outcome).map(Some)
}

fn sample(state: &State, mut take: impl FnMut(&[f32], &[f32])) -> Result<()> {
    read(&state.weights, |weights| read(&state.gradient, |gradient| take(weights, gradient)))?
}

fn end(
    job: &Job<'_>,
    state: &State,
    layout: &Layout,
    sampler: Sampler<'_>,
    steps: u64,
    outcome: Outcome,
) -> Result<Finished> {
    let digest = read(&state.weights, |w| layout.digest(w, &[]))?;
    let (metrics, curve) = sampler.finish(outcome != Outcome::Completed);
    let isa = job.computer().to_owned();
    let result = TrialResult { outcome, steps, metrics, digest, curve, isa, ..TrialResult::completed(job.key) };
    Ok(Finished { result, weights: None })
}

/// Where it begins: the given point, or standard normal numbers; times the scale of the initialization.
fn start(job: &Job<'_>, toy: &Toy, len: usize) -> Vec<f32> {
    let scale = job.config.model.init_scale;
    let mut stream = job.streams.open(Purpose::Init, b"w");
    let given = |i: usize| toy.start.as_ref().map(|start| start[i]);
    let mut weights: Vec<f32> =
        (0..toy.dim as usize).map(|i| (given(i).unwrap_or_else(|| stream.normal()) * scale) as f32).collect();
    weights.resize(len, 0.0);
    weights
}

/// Writes the gradient.
struct Slope<'a> {
    toy: &'a Toy,
    streams: &'a Streams,
    step: u64,
    loss: Cell<f64>,
}

impl InplaceOp2 for Slope<'_> {
    fn name(&self) -> &'static str {
        "toy"
    }

    fn cpu_fwd(&self, to: &mut CpuStorage, _: &Strides, from: &CpuStorage, _: &Strides) -> Result<()> {
        let dim = self.toy.dim as usize;
        let (w, gradient) = (&from.as_slice()?[..dim], &mut numbers(to)?[..dim]);
        let square: f64 = w.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let loss = f64::from(w[0]) * f64::from(w[0]) / square;
        let noise = self.noise(w, square);
        for (i, ((g, x), noise)) in gradient.iter_mut().zip(w).zip(noise).enumerate() {
            let pull = if i == 0 { 1.0 } else { 0.0 };
            *g = (2.0 * (pull - loss) * f64::from(*x) / square + noise) as f32;
        }
        self.loss.set(loss);
        Ok(())
    }
}

impl Slope<'_> {
    fn noise(&self, w: &[f32], square: f64) -> Vec<f64> {
        if self.toy.noise == 0.0 {
            return vec![0.0; w.len()];
        }
        let mut stream = self.streams.open(Purpose::Order, &self.step.to_le_bytes());
        let normal: Vec<f64> = w.iter().map(|_| stream.normal()).collect();
        let along = normal.iter().zip(w).map(|(n, x)| n * f64::from(*x)).sum::<f64>() / square;
        let size = self.toy.noise / libm::sqrt(square);
        normal.iter().zip(w).map(|(n, x)| size * (n - along * f64::from(*x))).collect()
    }
}
