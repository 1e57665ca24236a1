//! The life of one trial.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Error, Result};
use ergodic_common::metric::MeasurementPass;
use ergodic_common::net::{Net, TEST_BATCH};
use ergodic_common::spec::EvalStatistics;
use ergodic_common::trial::{Outcome, TrialResult};
use ergodic_common::weights::Weights;

use super::backend::ComputeBackend;
use super::checkpoint::{self, CheckpointEncoder, CheckpointStore};
use super::data::augment::TransformSequence;
use super::data::order::BatchSequence;
use super::data::{ImageBatch, TrialData, augment};
use super::engine::loss::LossTally;
use super::engine::simd::Simd16;
use super::measure::gradient_stats;
use super::measure::gradient_stats::GradientNoise;
use super::measure::hessian::Hessian;
use super::measure::metrics::{MetricSampler, PassResults, SampleInputs};
use super::measure::probe_set::ProbePredictions;
use super::network::params::ParamLayout;
use super::optim::schedule::StepHyperparams;
use super::optim::state::{TrainedRanges, TrainingState, with_tensor_data};
use super::{FinishedTrial, Job, timed_out_trial};

/// Test images evaluated at a time.
const TEST_CHUNK: usize = TEST_BATCH as usize;

/// One trial on its way.
pub(crate) struct Training<'a, S> {
    s: S,
    job: &'a Job<'a>,
    net: &'a Net,
    data: &'a TrialData,
    engine: ComputeBackend,
    pub(crate) state: TrainingState,
    trained: TrainedRanges,
    batches: BatchSequence<'a>,
    transforms: TransformSequence<'a>,
    probe_predictions: ProbePredictions,
    /// Statistics of batch norms that were re-estimated, and after how many steps.
    estimated_statistics: Option<(u64, Vec<f32>)>,
    /// Where it is kept while it is unfinished.
    checkpoint_slot: Option<CheckpointSlot<'a>>,
}

/// A place on a shelf.
struct CheckpointSlot<'a> {
    store: &'a dyn CheckpointStore,
    identity: [u8; 32],
}

/// Initial weights and norm statistics.
fn load_or_draw_weights(
    layout: &ParamLayout,
    net: &Net,
    job: &Job<'_>,
) -> Result<(Vec<f32>, Vec<f32>)> {
    if job.config.model.init_file.is_none() {
        return Ok((
            layout.draw_initial_weights(job.config, job.streams),
            layout.initial_statistics(),
        ));
    }

    let file = job
        .initial_weights
        .ok_or_else(|| Error::msg("the worker has no file of initial weights for this trial"))?;
    let start = Weights::from_safetensors(file, net)
        .map_err(|e| Error::msg(format!("the file of initial weights: {e}")))?;
    Ok(layout.pack_initial_weights(&start, job.config))
}

impl<'a, S: Simd16> Training<'a, S> {
    pub(crate) fn new(s: S, job: &'a Job<'a>, net: &'a Net, data: &'a TrialData) -> Result<Self> {
        let config = job.config;
        if let Some(why) = config.data.augment_problem() {
            return Err(Error::msg(format!("data.augment: {why}")));
        }

        let predictor = ProbePredictions::new(config, job.measure, data, job.streams);
        let test = TEST_CHUNK.min(
            data.test_indices()
                .len()
                .max(data.validation_indices().len())
                .max(predictor.images.len()),
        );
        let engine = ComputeBackend::new(job, net, test);
        let layout = engine.layout();
        let (weights, statistics) = load_or_draw_weights(layout, net, job)?;
        let state = TrainingState::new(weights, statistics, config.train.adamw)?;

        let trained = TrainedRanges::new(layout, config.train.wd_on);
        let batches = BatchSequence::new(config, job.streams, data.train_indices());
        let moves = TransformSequence::new(config, job.streams);
        let place = job.checkpoint_store.map(|shelf| CheckpointSlot {
            store: shelf,
            identity: checkpoint::compute_trial_identity(job),
        });
        Ok(Self {
            s,
            job,
            net,
            data,
            engine,
            state,
            trained,
            batches,
            transforms: moves,
            probe_predictions: predictor,
            estimated_statistics: None,
            checkpoint_slot: place,
        })
    }

    /// Loss and gradient of a step, counted from 0.
    pub(crate) fn compute_gradient(&mut self, step: u64) -> Result<LossTally> {
        let batch = self
            .data
            .train_batch(self.batches.indices_at(step))
            .with_transforms(self.transforms.transforms_at(step));
        self.state
            .compute_gradient(self.s, &mut self.engine, &batch, step == 0)
    }

    /// Updates the weights after a step, counted from 0. Whether they are still finite.
    pub(crate) fn update_weights(&mut self, rates: StepHyperparams, step: u64) -> Result<bool> {
        self.state.update_weights(
            self.s,
            &self.trained,
            rates,
            self.job.config.train.nesterov,
            step,
        )
    }

    /// Trains to the end, or until its time is up. `None` when `stop` was raised.
    pub(crate) fn run_to_end(mut self, stop: &AtomicBool) -> Result<Option<FinishedTrial>> {
        let mut sampler =
            MetricSampler::new(self.job.config, self.job.measure, self.engine.layout());
        let steps = self.job.config.total_steps();

        if sampler.needs_initial_weights() {
            with_tensor_data(&self.state.weights, |w| sampler.record_initial_weights(w))?;
        }

        let begun = match self.resume_from_checkpoint(&mut sampler) {
            Some(steps) => steps,
            None => {
                // What does not fit may have been put back in part.
                self = Self::new(self.s, self.job, self.net, self.data)?;
                sampler =
                    MetricSampler::new(self.job.config, self.job.measure, self.engine.layout());

                if sampler.needs_initial_weights() {
                    with_tensor_data(&self.state.weights, |w| sampler.record_initial_weights(w))?;
                }

                0
            }
        };
        for step in begun..steps {
            let stopped = stop.load(Ordering::Relaxed);
            if let Some(place) = &self.checkpoint_slot
                && step > 0
                && (stopped || place.store.should_save(step))
            {
                place.store.save_checkpoint(
                    &place.identity,
                    step,
                    self.encode_checkpoint(&place.identity, &sampler, step)?,
                );
            }

            if stopped || self.job.is_past_deadline() {
                return Ok(self.abort_trial(step, stop));
            }

            let due = sampler.is_sample_due(step + 1);
            if due && sampler.needs_weights_before() {
                with_tensor_data(&self.state.weights, |w| sampler.record_weights_before(w))?;
            }

            let rates = StepHyperparams::at_step(self.job.config, step);
            let tally = self.compute_gradient(step)?;
            if !tally.loss_sum.is_finite() || !self.update_weights(rates, step)? {
                return self
                    .finish_trial(sampler, step + 1, Outcome::Diverged { step: step + 1 })
                    .map(Some);
            }

            sampler.add_training_tally(tally);
            if sampler.needs_every_step() {
                with_tensor_data(&self.state.weights, |w| sampler.update_norm_sq_jump(w))?;
            }

            self.average_if_due(step + 1)?;
            if !self.predict_probe_set(step + 1, stop)?
                || due && !self.sample_metrics(&mut sampler, step + 1, rates.lr, stop)?
            {
                return Ok(self.abort_trial(step + 1, stop));
            }
        }

        self.finish_trial(sampler, steps, Outcome::Completed)
            .map(Some)
    }

    /// The trial as it is after so many steps.
    fn encode_checkpoint(
        &self,
        identity: &[u8; 32],
        sampler: &MetricSampler<'_>,
        steps: u64,
    ) -> Result<Vec<u8>> {
        let mut packer = CheckpointEncoder::default();
        packer.write_bytes(identity);
        packer.write_u64(steps);
        self.state.encode_into(&mut packer)?;
        sampler.encode_into(&mut packer);
        self.probe_predictions.encode_into(&mut packer);
        Ok(packer.finish_with_hash())
    }

    /// Puts back the furthest of what was kept of this trial: the number of steps that are done. `None` when it does not
    /// fit after all, and the trial is to begin anew.
    fn resume_from_checkpoint(&mut self, sampler: &mut MetricSampler<'_>) -> Option<u64> {
        let (trial, Some(place)) = (self.job.key, &self.checkpoint_slot) else {
            return Some(0);
        };
        let kept = place.store.load_checkpoints(&place.identity);
        let fitting = kept
            .iter()
            .filter_map(|kept| checkpoint::open_checkpoint(kept, &place.identity));
        let Some((steps, mut unpacker)) = fitting.max_by_key(|(steps, _)| *steps) else {
            if !kept.is_empty() {
                tracing::warn!(%trial, "what is kept of it is damaged or of another trial or version; it begins anew");
            }
            return Some(0);
        };
        let mut unpack = || {
            self.state.restore_from(&mut unpacker)?;
            sampler.restore_from(&mut unpacker)?;
            self.probe_predictions.restore_from(&mut unpacker)?;
            (unpacker.is_fully_read() && steps <= self.job.config.total_steps()).then_some(steps)
        };
        let done = unpack();
        match done {
            Some(steps) => tracing::info!(%trial, steps, "going on from a checkpoint"),
            None => tracing::error!(%trial, "what is kept of it cannot be read; it begins anew"),
        }

        done
    }

    /// Takes the weights into their average, if they are due after so many steps.
    fn average_if_due(&mut self, steps: u64) -> Result<()> {
        let config = self.job.config;
        let Some(average) = config.train.average else {
            return Ok(());
        };
        let from = config.length_in_steps(average.from);
        let every = config.length_in_steps(average.every).max(1);
        if steps >= from && (steps - from).is_multiple_of(every) {
            self.state.update_average(self.s, average.decay)?;
        }

        Ok(())
    }

    /// Whether to break off what follows a step. A trial can be kept between two steps only, so one that is kept does it
    /// first, unless that takes too long.
    fn should_abort(&self, stop: &AtomicBool) -> bool {
        let kept = self
            .checkpoint_slot
            .as_ref()
            .is_some_and(|place| !place.store.should_stop_at_once());
        self.job.is_past_deadline() || stop.load(Ordering::Relaxed) && !kept
    }

    /// What a trial leaves that is broken off after so many steps: nothing when `stop` was raised, otherwise a failure.
    fn abort_trial(&self, steps: u64, stop: &AtomicBool) -> Option<FinishedTrial> {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(place) = &self.checkpoint_slot {
            place.store.discard_checkpoints(&place.identity);
        }
        Some(timed_out_trial(self.job, steps))
    }

    /// Looks at the probe set, if it is time. False when that was broken off.
    fn predict_probe_set(&mut self, steps: u64, stop: &AtomicBool) -> Result<bool> {
        if !self.probe_predictions.is_due(steps) {
            return Ok(true);
        }

        let weights = with_tensor_data(&self.state.weights, <[f32]>::to_vec)?;
        let Some(statistics) = self.evaluation_statistics(&weights, steps, stop)? else {
            return Ok(false);
        };
        let mut classes = Vec::with_capacity(self.probe_predictions.images.len());

        for images in self.probe_predictions.images.chunks(TEST_CHUNK) {
            if self.should_abort(stop) {
                return Ok(false);
            }

            self.engine.evaluate_batch(
                self.s,
                &weights,
                &statistics,
                &self.data.test_batch(images),
            )?;

            classes.extend(self.engine.predicted_classes(images.len()));
        }

        self.probe_predictions.record_classes(steps, classes);
        Ok(true)
    }

    /// Takes a sample. False when that was broken off.
    fn sample_metrics(
        &mut self,
        sampler: &mut MetricSampler<'_>,
        step: u64,
        lr: f64,
        stop: &AtomicBool,
    ) -> Result<bool> {
        let Some(probed) = self.run_metric_passes(sampler, step, stop)? else {
            return Ok(false);
        };
        let mut take = |weights: &[f32], gradient: &[f32]| {
            sampler.record_sample(&SampleInputs {
                step,
                lr,
                weights,
                gradient,
                pass_results: probed,
            });
        };
        with_tensor_data(&self.state.weights, |weights| {
            with_tensor_data(&self.state.gradient, |gradient| take(weights, gradient))
        })??;

        Ok(true)
    }

    /// The passes over further images that the sample after so many steps needs. `None` when they were broken off.
    fn run_metric_passes(
        &mut self,
        sampler: &MetricSampler<'_>,
        steps: u64,
        stop: &AtomicBool,
    ) -> Result<Option<PassResults>> {
        let mut probed = PassResults::default();
        let test = sampler.needs_pass(MeasurementPass::Test);
        let validation = sampler.needs_pass(MeasurementPass::Validation);
        if test || validation {
            let weights = with_tensor_data(&self.state.weights, <[f32]>::to_vec)?;
            let Some(statistics) = self.evaluation_statistics(&weights, steps, stop)? else {
                return Ok(None);
            };
            let under = (&weights[..], &statistics[..]);
            let chosen = (test, validation);
            (probed.test, probed.validation) = self.evaluate_sets(under, chosen, stop)?;
        }

        let test = sampler.needs_pass(MeasurementPass::AverageTest);
        let validation = sampler.needs_pass(MeasurementPass::AverageValidation);
        if (test || validation)
            && let Some(average) = &self.state.averaged_weights
        {
            let weights = with_tensor_data(average, <[f32]>::to_vec)?;
            let Some(statistics) = self.estimate_statistics(&weights, stop)? else {
                return Ok(None);
            };
            let under = (&weights[..], &statistics[..]);
            let chosen = (test, validation);
            (probed.average_test, probed.average_validation) =
                self.evaluate_sets(under, chosen, stop)?;
        }

        if sampler.needs_pass(MeasurementPass::Noise) {
            probed.noise = Some(self.measure_gradient_noise(steps)?);
        }
        if sampler.needs_pass(MeasurementPass::Curvature) {
            probed.curvature = self.measure_curvature(steps, stop)?;
        }

        Ok((!self.should_abort(stop)).then_some(probed))
    }

    /// Evaluates the test set and the images to validate on, as far as they are asked for, under these weights and
    /// statistics. `None` where that was broken off.
    fn evaluate_sets(
        &mut self,
        under: (&[f32], &[f32]),
        (test, validation): (bool, bool),
        stop: &AtomicBool,
    ) -> Result<(Option<LossTally>, Option<LossTally>)> {
        let data = self.data;
        let mut of_test = None;
        let mut of_validation = None;

        if test {
            of_test = self.evaluate_images(
                under,
                data.test_indices(),
                |images| data.test_batch(images),
                stop,
            )?;
        }

        if validation {
            of_validation = self.evaluate_images(
                under,
                data.validation_indices(),
                |images| data.validation_batch(images),
                stop,
            )?;
        }

        Ok((of_test, of_validation))
    }

    /// Evaluates images. `None` when that was broken off.
    fn evaluate_images(
        &mut self,
        (weights, statistics): (&[f32], &[f32]),
        images: &'a [u32],
        batch: impl Fn(&'a [u32]) -> ImageBatch<'a>,
        stop: &AtomicBool,
    ) -> Result<Option<LossTally>> {
        let mut tally = LossTally::default();
        for images in images.chunks(TEST_CHUNK) {
            if self.should_abort(stop) {
                return Ok(None);
            }

            tally.add(
                self.engine
                    .evaluate_batch(self.s, weights, statistics, &batch(images))?,
            );
        }

        Ok(Some(tally))
    }

    /// Statistics of batch norms under which the weights after so many steps are evaluated. `None` when that was broken off.
    fn evaluation_statistics(
        &mut self,
        weights: &[f32],
        steps: u64,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<f32>>> {
        if self.job.measure.statistics == EvalStatistics::Running {
            return with_tensor_data(&self.state.statistics, <[f32]>::to_vec).map(Some);
        }

        if let Some((at, estimated)) = &self.estimated_statistics
            && *at == steps
        {
            return Ok(Some(estimated.clone()));
        }

        let estimated = self.estimate_statistics(weights, stop)?;
        self.estimated_statistics = estimated.clone().map(|estimated| (steps, estimated));
        Ok(estimated)
    }

    /// Statistics of batch norms for these weights: means over the batches of an epoch in the order of the subset. `None` when
    /// that was broken off.
    fn estimate_statistics(
        &mut self,
        weights: &[f32],
        stop: &AtomicBool,
    ) -> Result<Option<Vec<f32>>> {
        let mut statistics = self.engine.layout().initial_statistics();
        if !statistics.is_empty() {
            let batches = self
                .data
                .train_indices()
                .chunks_exact(self.job.config.effective_batch_size() as usize);
            for (before, images) in (0..).zip(batches) {
                if self.should_abort(stop) {
                    return Ok(None);
                }

                self.engine.estimate_statistics(
                    self.s,
                    weights,
                    &self.data.train_batch(images),
                    before,
                    &mut statistics,
                )?;
            }
        }

        Ok(Some(statistics))
    }

    /// Gradient noise at the present weights.
    fn measure_gradient_noise(&mut self, steps: u64) -> Result<GradientNoise> {
        let mut stream = gradient_stats::open_measure_stream(self.job.streams, "noise", steps);
        let batch = self.job.config.effective_batch_size() as usize;
        let augment = self.job.config.data.augment;
        let mut images = Vec::new();
        let mut moves = Vec::new();
        let s = self.s;

        let data = self.data;
        let engine = &mut self.engine;
        let len = engine.layout().len;
        let trained = engine.layout().matching_ranges(|p| p.trained);
        let mut done = Ok(LossTally::default());
        with_tensor_data(&self.state.weights, |weights| {
            gradient_stats::estimate_gradient_noise(&trained, len, batch, |gradient| {
                gradient_stats::draw_batch_indices(
                    data.train_indices(),
                    batch,
                    &mut stream,
                    &mut images,
                );

                augment::draw_transforms(augment, batch, &mut stream, &mut moves);
                let pass = engine.compute_gradient(
                    s,
                    weights,
                    &data.train_batch(&images).with_transforms(&moves),
                    gradient,
                );
                done = std::mem::replace(&mut done, Ok(LossTally::default())).and(pass);
            })
        })
        .and_then(|noise| done.map(|_| noise))
    }

    /// The largest eigenvalue of the Hessian of what was minimised on the last batch, at the present weights. `None` when that was
    /// broken off.
    fn measure_curvature(&mut self, steps: u64, stop: &AtomicBool) -> Result<Option<f64>> {
        let mut stream = gradient_stats::open_measure_stream(self.job.streams, "hessian", steps);
        let parameters = with_tensor_data(&self.state.weights, |w| {
            self.engine.layout().unpack_params(w)
        })?;
        let batch = self
            .data
            .train_batch(self.batches.indices_at(steps - 1))
            .with_transforms(self.transforms.transforms_at(steps - 1));
        let hessian = Hessian::new(
            self.s,
            self.net,
            self.job.config.train.loss,
            &parameters,
            &batch,
        );
        let (len, trained) = hessian.direction_layout();

        let product =
            |direction: &[f64]| (!self.should_abort(stop)).then(|| hessian.product_with(direction));
        Ok(gradient_stats::lanczos_largest_eigenvalue(
            (len, &trained),
            &mut stream,
            product,
        ))
    }

    fn finish_trial(
        self,
        sampler: MetricSampler<'_>,
        steps: u64,
        outcome: Outcome,
    ) -> Result<FinishedTrial> {
        if let Some(place) = &self.checkpoint_slot {
            place.store.discard_checkpoints(&place.identity);
        }

        let completed = outcome == Outcome::Completed;
        let digest = self.compute_digest()?;
        let weights = (completed && self.job.measure.save).then(|| self.encode_weights());
        let (metrics, curve) = sampler.into_metrics_and_curve(!completed);
        let predictions = self.probe_predictions.into_predictions();
        let isa = self.job.device_name().to_owned();
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

        Ok(FinishedTrial {
            result,
            weights: weights.transpose()?,
        })
    }

    /// Of the weights and norm statistics, and of their average.
    fn compute_digest(&self) -> Result<[u8; 32]> {
        let layout = self.engine.layout();
        let statistics = &self.state.statistics;
        let digest = with_tensor_data(&self.state.weights, |w| {
            with_tensor_data(statistics, |st| layout.compute_digest(w, st))
        })??;
        let Some(average) = &self.state.averaged_weights else {
            return Ok(digest);
        };
        let of_average = with_tensor_data(average, |w| {
            with_tensor_data(statistics, |st| layout.compute_digest(w, st))
        })??;

        Ok(*blake3::hash(&[digest, of_average].concat()).as_bytes())
    }

    /// The file of the trained weights.
    fn encode_weights(&self) -> Result<Vec<u8>> {
        let layout = self.engine.layout();
        let params = with_tensor_data(&self.state.weights, |w| layout.unpack_params(w))?;
        let statistics =
            with_tensor_data(&self.state.statistics, |st| layout.unpack_statistics(st))?;
        let average = self
            .state
            .averaged_weights
            .as_ref()
            .map(|w| with_tensor_data(w, |w| layout.unpack_params(w)))
            .transpose()?;

        Ok(Weights { params, statistics }.to_safetensors(self.net, average.as_deref()))
    }
}
