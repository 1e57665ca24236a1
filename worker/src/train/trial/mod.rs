//! The life of one trial: its training loop, from the initial weights or a checkpoint to its result.

mod added_noise;
mod evaluate;
mod kept_weights;
mod resume;

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Error, Result};
use ergodic_common::ids::{TrialIdentity, WeightsDigest};
use ergodic_common::net::{Net, TEST_BATCH};
use ergodic_common::trial::{Outcome, TrialResult};

use super::backend::ComputeBackend;
use super::checkpoint::{self, CheckpointStore};
use super::data::TrialData;
use super::data::augment::TransformSequence;
use super::data::order::BatchSequence;
use super::engine::loss::LossTally;
use super::engine::simd::Simd16;
use super::measure::metrics::MetricSampler;
use super::measure::probe_set::ProbePredictions;
use super::optim::schedule::StepHyperparams;
use super::optim::state::TrainingState;
use super::optim::tensor::with_tensor_data;
use super::optim::trained_groups::TrainedGroups;
use super::start::{load_or_draw_weights, load_parts};
use super::{FinishedTrial, Job, timed_out_trial};
use kept_weights::KeptWeights;

/// Number of test images that are evaluated at a time.
const TEST_CHUNK: usize = TEST_BATCH as usize;

/// The state of a trial in training.
pub(crate) struct Training<'a, S> {
    s: S,
    job: &'a Job<'a>,
    net: &'a Net,
    data: &'a TrialData,
    engine: ComputeBackend,
    pub(crate) state: TrainingState,
    trained: TrainedGroups,
    batches: BatchSequence<'a>,
    transforms: TransformSequence<'a>,
    probe_predictions: ProbePredictions,
    kept_weights: KeptWeights,
    /// Re-estimated batch-norm statistics, and the number of steps after which they were estimated.
    estimated_statistics: Option<(u64, Vec<f32>)>,
    /// The store of the trial's checkpoints, if there is one.
    checkpoint_slot: Option<CheckpointSlot<'a>>,
}

/// The checkpoints of one trial in a store.
#[derive(Clone, Copy)]
struct CheckpointSlot<'a> {
    store: &'a dyn CheckpointStore,
    identity: TrialIdentity,
}

impl<'a> CheckpointSlot<'a> {
    /// The slot of the job's trial, if the job has a store.
    fn new(job: &Job<'a>) -> Option<Self> {
        let store = job.checkpoint_store?;
        let identity = checkpoint::compute_trial_identity(job);
        Some(Self { store, identity })
    }
}

/// The outcome of a step.
enum StepEnd {
    Done,
    /// The loss or the weights are not finite any more.
    Diverged,
    /// A measurement after the step was aborted.
    Aborted,
}

impl<'a, S: Simd16> Training<'a, S> {
    pub(crate) fn new(s: S, job: &'a Job<'a>, net: &'a Net, data: &'a TrialData) -> Result<Self> {
        let config = job.config;
        if let Some(why) = config.data.augment_problem() {
            return Err(Error::msg(format!("data.augment: {why}")));
        }

        let probe_predictions = ProbePredictions::new(config, job.measure, data, job.streams);
        let most_evaluated = data
            .test_indices()
            .len()
            .max(data.validation_indices().len())
            .max(probe_predictions.images.len());
        let engine = ComputeBackend::new(job, net, TEST_CHUNK.min(most_evaluated));
        let layout = engine.layout();
        let (weights, statistics) = load_or_draw_weights(layout, net, job)?;

        Ok(Self {
            s,
            job,
            net,
            data,
            state: TrainingState::new(weights, statistics, &config.train)?,
            trained: TrainedGroups::new(layout, &config.train),
            engine,
            batches: BatchSequence::new(config, job.streams, data.train_indices()),
            transforms: TransformSequence::new(config, job.streams),
            probe_predictions,
            kept_weights: KeptWeights::new(config, job.measure),
            estimated_statistics: None,
            checkpoint_slot: CheckpointSlot::new(job),
        })
    }

    /// Loss and gradient of a step, counted from 0. Where the optimizer takes it at other weights, and the loss there is not
    /// finite, that is the loss which is returned.
    pub(crate) fn compute_gradient(&mut self, step: u64) -> Result<LossTally> {
        let train = &self.job.config.train;
        let batch = self
            .data
            .train_batch(self.batches.indices_at(step))
            .with_transforms(self.transforms.transforms_at(step));
        let tally = self
            .state
            .compute_gradient(self.s, &mut self.engine, &batch, step == 0)?;
        if let Some(sam) = train.sam {
            let place = (&self.trained, sam.rho);
            let ascended =
                self.state
                    .take_ascended_gradient(self.s, &mut self.engine, &batch, place)?;
            if !ascended.loss_sum.is_finite() {
                return Ok(ascended);
            }
        }
        if let Some(noise) = train.added_noise {
            self.add_gradient_noise(noise, step)?;
        }
        if let Some(most) = train.clip_norm {
            self.state.clip_gradient(&self.trained, most)?;
        }

        Ok(tally)
    }

    /// Updates the weights after a step, counted from 0; returns whether they are still finite.
    pub(crate) fn update_weights(&mut self, rates: StepHyperparams, step: u64) -> Result<bool> {
        self.state.update_weights(
            self.s,
            &self.trained,
            rates,
            self.job.config.train.nesterov,
            step,
        )
    }

    /// Trains to the end or the time limit. Returns `None` once `stop` is set.
    pub(crate) fn run_to_end(mut self, stop: &AtomicBool) -> Result<Option<FinishedTrial>> {
        let mut sampler = self.start_sampler()?;
        let begun = match self.resume_from_checkpoint(&mut sampler) {
            Some(steps) => steps,
            None => {
                // A checkpoint that does not fit may have been restored in part, so everything is
                // built anew.
                self = Self::new(self.s, self.job, self.net, self.data)?;
                sampler = self.start_sampler()?;
                0
            }
        };

        let steps = self.job.config.total_steps();
        if steps == 0 && !self.measure_start(&mut sampler, stop)? {
            return Ok(self.abort_trial(0, stop));
        }

        for step in begun..steps {
            let stopped = stop.load(Ordering::Relaxed);
            self.save_if_due(&sampler, step, stopped)?;
            if stopped || self.job.is_past_deadline() {
                return Ok(self.abort_trial(step, stop));
            }

            match self.run_step(&mut sampler, step, stop)? {
                StepEnd::Done => {}
                StepEnd::Aborted => return Ok(self.abort_trial(step + 1, stop)),
                StepEnd::Diverged => {
                    let outcome = Outcome::Diverged { step: step + 1 };
                    return self.finish_trial(sampler, step + 1, outcome).map(Some);
                }
            }
        }

        self.finish_trial(sampler, steps, Outcome::Completed)
            .map(Some)
    }

    /// Creates a sampler that knows the initial weights, if a metric needs them.
    fn start_sampler(&self) -> Result<MetricSampler<'a>> {
        let mut sampler =
            MetricSampler::new(self.job.config, self.job.measure, self.engine.layout());
        if sampler.needs_initial_weights() {
            with_tensor_data(&self.state.weights, |w| sampler.record_initial_weights(w))?;
        }
        if sampler.needs_parts() {
            sampler.record_parts(&load_parts(self.engine.layout(), self.net, self.job)?);
        }

        Ok(sampler)
    }

    /// Measures the weights that the trial starts from, of a trial without steps. Returns false if it was aborted.
    fn measure_start(
        &mut self,
        sampler: &mut MetricSampler<'_>,
        stop: &AtomicBool,
    ) -> Result<bool> {
        let rates = StepHyperparams::at_step(self.job.config, 0);
        Ok(self.predict_probe_set(0, stop)? && self.sample_metrics(sampler, 0, rates, stop)?)
    }

    /// Runs a step, counted from 0, and the measurements after it.
    fn run_step(
        &mut self,
        sampler: &mut MetricSampler<'_>,
        step: u64,
        stop: &AtomicBool,
    ) -> Result<StepEnd> {
        let is_due = sampler.is_sample_due(step + 1);
        if is_due && sampler.needs_weights_before() {
            with_tensor_data(&self.state.weights, |w| sampler.record_weights_before(w))?;
        }

        let rates = StepHyperparams::at_step(self.job.config, step);
        let tally = self.compute_gradient(step)?;
        if !tally.loss_sum.is_finite() || !self.update_weights(rates, step)? {
            return Ok(StepEnd::Diverged);
        }

        sampler.add_training_tally(tally);
        if sampler.needs_every_step() {
            with_tensor_data(&self.state.weights, |w| sampler.track_norm_sq_jump(w))?;
        }

        self.average_if_due(step + 1)?;
        self.keep_weights_if_due(step + 1)?;
        if !self.predict_probe_set(step + 1, stop)?
            || is_due && !self.sample_metrics(sampler, step + 1, rates, stop)?
        {
            return Ok(StepEnd::Aborted);
        }

        Ok(StepEnd::Done)
    }

    /// Adds the weights to their average, if that is due after `steps` steps.
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

    /// Whether to abort a measurement. A trial can be saved only between two steps, so one with a
    /// checkpoint store finishes the step first, unless that takes too long.
    fn should_abort(&self, stop: &AtomicBool) -> bool {
        let will_be_saved = self
            .checkpoint_slot
            .is_some_and(|slot| !slot.store.should_stop_at_once());
        self.job.is_past_deadline() || stop.load(Ordering::Relaxed) && !will_be_saved
    }

    /// Ends a trial that was aborted after `steps` steps: without a result if `stop` is set,
    /// otherwise with a failure.
    fn abort_trial(&self, steps: u64, stop: &AtomicBool) -> Option<FinishedTrial> {
        if stop.load(Ordering::Relaxed) {
            return None;
        }

        if let Some(slot) = &self.checkpoint_slot {
            slot.store.discard_checkpoints(slot.identity);
        }
        Some(timed_out_trial(self.job, steps))
    }

    /// The result of a trial that ended after `steps` steps; its checkpoints are discarded.
    fn finish_trial(
        self,
        sampler: MetricSampler<'_>,
        steps: u64,
        outcome: Outcome,
    ) -> Result<FinishedTrial> {
        if let Some(slot) = &self.checkpoint_slot {
            slot.store.discard_checkpoints(slot.identity);
        }

        let completed = outcome == Outcome::Completed;
        let digest = self.compute_digest()?;
        let keeps = completed && !self.job.measure.save.is_empty();
        let weights = keeps.then(|| self.encode_weights());
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

    /// The hash of the weights and norm statistics, and of their average if there is one.
    fn compute_digest(&self) -> Result<WeightsDigest> {
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

        Ok(blake3::hash(&[digest.0, of_average.0].concat()).into())
    }
}
