//! The life of one trial.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Result;
use ergodic_common::net::Net;
use ergodic_common::trial::Outcome;

use super::Job;
use super::augment::Moves;
use super::data::TrialData;
use super::engine::Engine;
use super::loss::Tally;
use super::metrics::{Sample, Sampler};
use super::optimizer::{State, Trained, read};
use super::order::Batches;
use super::schedule::Rates;
use super::simd::Lanes;

/// Test images evaluated at a time.
const TEST_CHUNK: usize = 100;

/// What a trial comes to.
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    pub(super) steps: u64,
    pub(super) metrics: Vec<f64>,
    pub(super) curve: ergodic_common::trial::Curve,
    pub(super) digest: [u8; 32],
}

/// One trial on its way.
pub(super) struct Training<'a, S> {
    s: S,
    job: &'a Job<'a>,
    data: &'a TrialData,
    engine: Engine,
    pub(super) state: State,
    trained: Trained,
    batches: Batches<'a>,
    moves: Moves<'a>,
}

impl<'a, S: Lanes> Training<'a, S> {
    pub(super) fn new(s: S, job: &'a Job<'a>, net: &Net, data: &'a TrialData) -> Result<Self> {
        let config = job.config;
        let test = TEST_CHUNK.min(data.test().len());
        let engine = Engine::new(net, config.train.loss, config.batch() as usize, test, job.threads());
        let layout = &engine.layout;
        let state = State::new(layout.init(config, job.streams), layout.init_statistics(), config.train.adamw)?;
        let trained = Trained::new(layout, config.train.wd_on);
        let batches = Batches::new(config, job.streams, data.train());
        let moves = Moves::new(config, job.streams);
        Ok(Self { s, job, data, engine, state, trained, batches, moves })
    }

    /// Loss and gradient of a step, counted from 0.
    pub(super) fn gradient(&mut self, step: u64) -> Result<Tally> {
        let batch = self.data.batch(self.batches.at(step)).moved(self.moves.at(step));
        self.state.gradient(self.s, &mut self.engine, &batch, step == 0)
    }

    /// Updates the weights after a step, counted from 0. Whether they are still finite.
    pub(super) fn descend(&mut self, rates: Rates, step: u64) -> Result<bool> {
        self.state.descend(self.s, &self.trained, rates, self.job.config.train.nesterov, step)
    }

    /// Trains to the end. `None` when `stop` was raised.
    pub(super) fn run(mut self, stop: &AtomicBool) -> Result<Option<Ending>> {
        let mut sampler = Sampler::new(self.job.config, self.job.measure, &self.engine.layout);
        let steps = self.job.config.steps();
        for step in 0..steps {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let due = sampler.due(step + 1);
            if due && sampler.wants_before() {
                read(&self.state.weights, |w| sampler.keep(w))?;
            }
            let rates = Rates::at(self.job.config, step);
            let tally = self.gradient(step)?;
            if !tally.loss.is_finite() || !self.descend(rates, step)? {
                return self.end(sampler, step + 1, Outcome::Diverged { step: step + 1 }).map(Some);
            }
            sampler.trained(tally);
            if due && !self.sample(&mut sampler, step + 1, rates.lr, stop)? {
                return Ok(None);
            }
        }
        self.end(sampler, steps, Outcome::Completed).map(Some)
    }

    /// Takes a sample. False when `stop` was raised.
    fn sample(&mut self, sampler: &mut Sampler<'_>, step: u64, lr: f64, stop: &AtomicBool) -> Result<bool> {
        let mut test = None;
        if sampler.wants_test() {
            test = self.test(stop)?;
            if test.is_none() {
                return Ok(false);
            }
        }
        let mut take = |weights: &[f32], gradient: &[f32]| {
            sampler.take(&Sample { step, lr, weights, gradient, test });
        };
        read(&self.state.weights, |weights| read(&self.state.gradient, |gradient| take(weights, gradient)))??;
        Ok(true)
    }

    /// Evaluates the test set. `None` when `stop` was raised.
    fn test(&mut self, stop: &AtomicBool) -> Result<Option<Tally>> {
        let mut tally = Tally::default();
        for images in self.data.test().chunks(TEST_CHUNK) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let (s, engine, batch) = (self.s, &mut self.engine, self.data.test_batch(images));
            let mut evaluate = |weights: &[f32], statistics: &[f32]| engine.evaluate(s, weights, statistics, &batch);
            let statistics = &self.state.statistics;
            tally.add(read(&self.state.weights, |w| read(statistics, |st| evaluate(w, st)))??);
        }
        Ok(Some(tally))
    }

    fn end(&self, sampler: Sampler<'_>, steps: u64, outcome: Outcome) -> Result<Ending> {
        let (metrics, curve) = sampler.finish(outcome != Outcome::Completed);
        let layout = &self.engine.layout;
        let statistics = &self.state.statistics;
        let digest = read(&self.state.weights, |w| read(statistics, |st| layout.digest(w, st)))??;
        Ok(Ending { outcome, steps, metrics, curve, digest })
    }
}
