//! The life of one trial.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Error, Result};
use ergodic_common::metric::MeasurementPass;
use ergodic_common::net::{Net, TEST_BATCH};
use ergodic_common::spec::EvalStatistics;
use ergodic_common::trial::{Outcome, TrialResult};
use ergodic_common::weights::Weights;

use super::augment::{self, Moves};
use super::checkpoint::{self, Packer, Shelf};
use super::compute::Compute;
use super::data::{Source, TrialData};
use super::hessian::Hessian;
use super::loss::Tally;
use super::metrics::{Probed, Sample, Sampler};
use super::optimizer::{State, Trained, read};
use super::order::Batches;
use super::params::Layout;
use super::predict::Predictor;
use super::probe::{self, Noise};
use super::schedule::Rates;
use super::simd::Lanes;
use super::{Finished, Job, late};

/// Test images evaluated at a time.
const TEST_CHUNK: usize = TEST_BATCH as usize;

/// One trial on its way.
pub(super) struct Training<'a, S> {
    s: S,
    job: &'a Job<'a>,
    net: &'a Net,
    data: &'a TrialData,
    engine: Compute,
    pub(super) state: State,
    trained: Trained,
    batches: Batches<'a>,
    moves: Moves<'a>,
    predictor: Predictor,
    /// Statistics of batch norms that were re-estimated, and after how many steps.
    estimated: Option<(u64, Vec<f32>)>,
    /// Where it is kept while it is unfinished.
    place: Option<Place<'a>>,
}

/// A place on a shelf.
struct Place<'a> {
    shelf: &'a dyn Shelf,
    identity: [u8; 32],
}

/// Initial weights and norm statistics.
fn start(layout: &Layout, net: &Net, job: &Job<'_>) -> Result<(Vec<f32>, Vec<f32>)> {
    if job.config.model.init_file.is_none() {
        return Ok((layout.init(job.config, job.streams), layout.init_statistics()));
    }
    let file = job.start.ok_or_else(|| Error::msg("the worker has no file of initial weights for this trial"))?;
    let start =
        Weights::from_safetensors(file, net).map_err(|e| Error::msg(format!("the file of initial weights: {e}")))?;
    Ok(layout.pack(&start, job.config))
}

impl<'a, S: Lanes> Training<'a, S> {
    pub(super) fn new(s: S, job: &'a Job<'a>, net: &'a Net, data: &'a TrialData) -> Result<Self> {
        let config = job.config;
        if let Some(why) = config.data.augment_problem() {
            return Err(Error::msg(format!("data.augment: {why}")));
        }
        let predictor = Predictor::new(config, job.measure, data, job.streams);
        let test = TEST_CHUNK.min(data.test().len().max(data.validation().len()).max(predictor.images.len()));
        let engine = Compute::new(job, net, test);
        let layout = engine.layout();
        let (weights, statistics) = start(layout, net, job)?;
        let state = State::new(weights, statistics, config.train.adamw)?;
        let trained = Trained::new(layout, config.train.wd_on);
        let batches = Batches::new(config, job.streams, data.train());
        let moves = Moves::new(config, job.streams);
        let place = job.shelf.map(|shelf| Place { shelf, identity: checkpoint::identity(job) });
        Ok(Self { s, job, net, data, engine, state, trained, batches, moves, predictor, estimated: None, place })
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

    /// Trains to the end, or until its time is up. `None` when `stop` was raised.
    pub(super) fn run(mut self, stop: &AtomicBool) -> Result<Option<Finished>> {
        let mut sampler = Sampler::new(self.job.config, self.job.measure, self.engine.layout());
        let steps = self.job.config.total_steps();
        if sampler.wants_start() {
            read(&self.state.weights, |w| sampler.start(w))?;
        }
        let begun = match self.resume(&mut sampler) {
            Some(steps) => steps,
            None => {
                // What does not fit may have been put back in part.
                self = Self::new(self.s, self.job, self.net, self.data)?;
                sampler = Sampler::new(self.job.config, self.job.measure, self.engine.layout());
                if sampler.wants_start() {
                    read(&self.state.weights, |w| sampler.start(w))?;
                }
                0
            }
        };
        for step in begun..steps {
            let stopped = stop.load(Ordering::Relaxed);
            if let Some(place) = &self.place
                && step > 0
                && (stopped || place.shelf.wants(step))
            {
                place.shelf.keep(&place.identity, step, self.pack(&place.identity, &sampler, step)?);
            }
            if stopped || self.job.is_late() {
                return Ok(self.broken_off(step, stop));
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
            if sampler.wants_each() {
                read(&self.state.weights, |w| sampler.watch(w))?;
            }
            self.average(step + 1)?;
            if !self.predict(step + 1, stop)? || due && !self.sample(&mut sampler, step + 1, rates.lr, stop)? {
                return Ok(self.broken_off(step + 1, stop));
            }
        }
        self.end(sampler, steps, Outcome::Completed).map(Some)
    }

    /// The trial as it is after so many steps.
    fn pack(&self, identity: &[u8; 32], sampler: &Sampler<'_>, steps: u64) -> Result<Vec<u8>> {
        let mut packer = Packer::default();
        packer.bytes(identity);
        packer.number(steps);
        self.state.pack(&mut packer)?;
        sampler.pack(&mut packer);
        self.predictor.pack(&mut packer);
        Ok(packer.finish())
    }

    /// Puts back the furthest of what was kept of this trial: the number of steps that are done. `None` when it does not
    /// fit after all, and the trial is to begin anew.
    fn resume(&mut self, sampler: &mut Sampler<'_>) -> Option<u64> {
        let (trial, Some(place)) = (self.job.key, &self.place) else { return Some(0) };
        let kept = place.shelf.take(&place.identity);
        let fitting = kept.iter().filter_map(|kept| checkpoint::open(kept, &place.identity));
        let Some((steps, mut unpacker)) = fitting.max_by_key(|(steps, _)| *steps) else {
            if !kept.is_empty() {
                tracing::warn!(%trial, "what is kept of it is damaged or of another trial or version; it begins anew");
            }
            return Some(0);
        };
        let mut unpack = || {
            self.state.unpack(&mut unpacker)?;
            sampler.unpack(&mut unpacker)?;
            self.predictor.unpack(&mut unpacker)?;
            (unpacker.is_done() && steps <= self.job.config.total_steps()).then_some(steps)
        };
        let done = unpack();
        match done {
            Some(steps) => tracing::info!(%trial, steps, "going on from a checkpoint"),
            None => tracing::error!(%trial, "what is kept of it cannot be read; it begins anew"),
        }
        done
    }

    /// Takes the weights into their average, if they are due after so many steps.
    fn average(&mut self, steps: u64) -> Result<()> {
        let config = self.job.config;
        let Some(average) = config.train.average else { return Ok(()) };
        let (from, every) = (config.length_in_steps(average.from), config.length_in_steps(average.every).max(1));
        if steps >= from && (steps - from).is_multiple_of(every) {
            self.state.take_average(self.s, average.decay)?;
        }
        Ok(())
    }

    /// Whether to break off what follows a step. A trial can be kept between two steps only, so one that is kept does it
    /// first, unless that takes too long.
    fn breaks_off(&self, stop: &AtomicBool) -> bool {
        let kept = self.place.as_ref().is_some_and(|place| !place.shelf.gives_up());
        self.job.is_late() || stop.load(Ordering::Relaxed) && !kept
    }

    /// What a trial leaves that is broken off after so many steps: nothing when `stop` was raised, otherwise a failure.
    fn broken_off(&self, steps: u64, stop: &AtomicBool) -> Option<Finished> {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(place) = &self.place {
            place.shelf.clear(&place.identity);
        }
        Some(late(self.job, steps))
    }

    /// Looks at the probe set, if it is time. False when that was broken off.
    fn predict(&mut self, steps: u64, stop: &AtomicBool) -> Result<bool> {
        if !self.predictor.due(steps) {
            return Ok(true);
        }
        let weights = read(&self.state.weights, <[f32]>::to_vec)?;
        let Some(statistics) = self.statistics(&weights, steps, stop)? else { return Ok(false) };
        let mut classes = Vec::with_capacity(self.predictor.images.len());
        for images in self.predictor.images.chunks(TEST_CHUNK) {
            if self.breaks_off(stop) {
                return Ok(false);
            }
            self.engine.evaluate(self.s, &weights, &statistics, &self.data.test_batch(images))?;
            classes.extend(self.engine.classes(images.len()));
        }
        self.predictor.take(steps, classes);
        Ok(true)
    }

    /// Takes a sample. False when that was broken off.
    fn sample(&mut self, sampler: &mut Sampler<'_>, step: u64, lr: f64, stop: &AtomicBool) -> Result<bool> {
        let Some(probed) = self.probe(sampler, step, stop)? else { return Ok(false) };
        let mut take = |weights: &[f32], gradient: &[f32]| {
            sampler.take(&Sample { step, lr, weights, gradient, probed });
        };
        read(&self.state.weights, |weights| read(&self.state.gradient, |gradient| take(weights, gradient)))??;
        Ok(true)
    }

    /// The passes over further images that the sample after so many steps needs. `None` when they were broken off.
    fn probe(&mut self, sampler: &Sampler<'_>, steps: u64, stop: &AtomicBool) -> Result<Option<Probed>> {
        let mut probed = Probed::default();
        let test = sampler.takes(MeasurementPass::Test);
        let validation = sampler.takes(MeasurementPass::Validation);
        if test || validation {
            let weights = read(&self.state.weights, <[f32]>::to_vec)?;
            let Some(statistics) = self.statistics(&weights, steps, stop)? else { return Ok(None) };
            let (under, chosen) = ((&weights[..], &statistics[..]), (test, validation));
            (probed.test, probed.validation) = self.evaluate(under, chosen, stop)?;
        }
        let test = sampler.takes(MeasurementPass::AverageTest);
        let validation = sampler.takes(MeasurementPass::AverageValidation);
        if (test || validation)
            && let Some(average) = &self.state.average
        {
            let weights = read(average, <[f32]>::to_vec)?;
            let Some(statistics) = self.estimate(&weights, stop)? else { return Ok(None) };
            let (under, chosen) = ((&weights[..], &statistics[..]), (test, validation));
            (probed.average_test, probed.average_validation) = self.evaluate(under, chosen, stop)?;
        }
        if sampler.takes(MeasurementPass::Noise) {
            probed.noise = Some(self.noise(steps)?);
        }
        if sampler.takes(MeasurementPass::Curvature) {
            probed.curvature = self.curvature(steps, stop)?;
        }
        Ok((!self.breaks_off(stop)).then_some(probed))
    }

    /// Evaluates the test set and the images to validate on, as far as they are asked for, under these weights and
    /// statistics. `None` where that was broken off.
    fn evaluate(
        &mut self,
        under: (&[f32], &[f32]),
        (test, validation): (bool, bool),
        stop: &AtomicBool,
    ) -> Result<(Option<Tally>, Option<Tally>)> {
        let data = self.data;
        let (mut of_test, mut of_validation) = (None, None);
        if test {
            of_test = self.tally(under, data.test(), |images| data.test_batch(images), stop)?;
        }
        if validation {
            of_validation = self.tally(under, data.validation(), |images| data.validation_batch(images), stop)?;
        }
        Ok((of_test, of_validation))
    }

    /// Evaluates images. `None` when that was broken off.
    fn tally(
        &mut self,
        (weights, statistics): (&[f32], &[f32]),
        images: &'a [u32],
        batch: impl Fn(&'a [u32]) -> Source<'a>,
        stop: &AtomicBool,
    ) -> Result<Option<Tally>> {
        let mut tally = Tally::default();
        for images in images.chunks(TEST_CHUNK) {
            if self.breaks_off(stop) {
                return Ok(None);
            }
            tally.add(self.engine.evaluate(self.s, weights, statistics, &batch(images))?);
        }
        Ok(Some(tally))
    }

    /// Statistics of batch norms under which the weights after so many steps are evaluated. `None` when that was broken off.
    fn statistics(&mut self, weights: &[f32], steps: u64, stop: &AtomicBool) -> Result<Option<Vec<f32>>> {
        if self.job.measure.statistics == EvalStatistics::Running {
            return read(&self.state.statistics, <[f32]>::to_vec).map(Some);
        }
        if let Some((at, estimated)) = &self.estimated
            && *at == steps
        {
            return Ok(Some(estimated.clone()));
        }
        let estimated = self.estimate(weights, stop)?;
        self.estimated = estimated.clone().map(|estimated| (steps, estimated));
        Ok(estimated)
    }

    /// Statistics of batch norms for these weights: means over the batches of an epoch in the order of the subset. `None` when
    /// that was broken off.
    fn estimate(&mut self, weights: &[f32], stop: &AtomicBool) -> Result<Option<Vec<f32>>> {
        let mut statistics = self.engine.layout().init_statistics();
        if !statistics.is_empty() {
            let batches = self.data.train().chunks_exact(self.job.config.effective_batch_size() as usize);
            for (before, images) in (0..).zip(batches) {
                if self.breaks_off(stop) {
                    return Ok(None);
                }
                self.engine.estimate(self.s, weights, &self.data.batch(images), before, &mut statistics)?;
            }
        }
        Ok(Some(statistics))
    }

    /// Gradient noise at the present weights.
    fn noise(&mut self, steps: u64) -> Result<Noise> {
        let mut stream = probe::stream(self.job.streams, "noise", steps);
        let (batch, augment) = (self.job.config.effective_batch_size() as usize, self.job.config.data.augment);
        let (mut images, mut moves) = (Vec::new(), Vec::new());
        let (s, data, engine) = (self.s, self.data, &mut self.engine);
        let len = engine.layout().len;
        let trained = engine.layout().ranges(|p| p.trained);
        let mut done = Ok(Tally::default());
        read(&self.state.weights, |weights| {
            probe::noise(&trained, len, batch, |gradient| {
                probe::draw(data.train(), batch, &mut stream, &mut images);
                augment::draw(augment, batch, &mut stream, &mut moves);
                let pass = engine.train(s, weights, &data.batch(&images).moved(&moves), gradient);
                done = std::mem::replace(&mut done, Ok(Tally::default())).and(pass);
            })
        })
        .and_then(|noise| done.map(|_| noise))
    }

    /// The largest eigenvalue of the Hessian of what was minimised on the last batch, at the present weights. `None` when that was
    /// broken off.
    fn curvature(&mut self, steps: u64, stop: &AtomicBool) -> Result<Option<f64>> {
        let mut stream = probe::stream(self.job.streams, "hessian", steps);
        let parameters = read(&self.state.weights, |w| self.engine.layout().unpack(w))?;
        let batch = self.data.batch(self.batches.at(steps - 1)).moved(self.moves.at(steps - 1));
        let hessian = Hessian::new(self.s, self.net, self.job.config.train.loss, &parameters, &batch);
        let (len, trained) = hessian.shape();
        let product = |direction: &[f64]| (!self.breaks_off(stop)).then(|| hessian.product(direction));
        Ok(probe::curvature((len, &trained), &mut stream, product))
    }

    fn end(self, sampler: Sampler<'_>, steps: u64, outcome: Outcome) -> Result<Finished> {
        if let Some(place) = &self.place {
            place.shelf.clear(&place.identity);
        }
        let completed = outcome == Outcome::Completed;
        let (digest, weights) = (self.digest()?, (completed && self.job.measure.save).then(|| self.weights()));
        let (metrics, curve) = sampler.finish(!completed);
        let (predictions, isa) = (self.predictor.finish(), self.job.computer().to_owned());
        let result = TrialResult {
            outcome,
            steps,
            metrics,
            digest,
            curve,
            predictions,
            isa,
            ..TrialResult::completed(self.job.key)
        };
        Ok(Finished { result, weights: weights.transpose()? })
    }

    /// Of the weights and norm statistics, and of their average.
    fn digest(&self) -> Result<[u8; 32]> {
        let (layout, statistics) = (self.engine.layout(), &self.state.statistics);
        let digest = read(&self.state.weights, |w| read(statistics, |st| layout.digest(w, st)))??;
        let Some(average) = &self.state.average else { return Ok(digest) };
        let of_average = read(average, |w| read(statistics, |st| layout.digest(w, st)))??;
        Ok(*blake3::hash(&[digest, of_average].concat()).as_bytes())
    }

    /// The file of the trained weights.
    fn weights(&self) -> Result<Vec<u8>> {
        let layout = self.engine.layout();
        let params = read(&self.state.weights, |w| layout.unpack(w))?;
        let statistics = read(&self.state.statistics, |st| layout.unpack_statistics(st))?;
        let average = self.state.average.as_ref().map(|w| read(w, |w| layout.unpack(w))).transpose()?;
        Ok(Weights { params, statistics }.to_safetensors(self.net, average.as_deref()))
    }
}
