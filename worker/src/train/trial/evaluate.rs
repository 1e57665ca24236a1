//! Measurements of a trial between two steps: metrics, predictions for the probe set, gradient
//! noise, curvature.

use std::sync::atomic::AtomicBool;

use candle_core::Result;
use ergodic_common::metric::{MeasurementPass, Metric};
use ergodic_common::spec::EvalStatistics;

use super::{TEST_CHUNK, Training};
use crate::train::data::{ImageBatch, augment};
use crate::train::engine::loss::LossTally;
use crate::train::engine::simd::Simd16;
use crate::train::measure::gradient_noise::{GradientNoise, NoiseRequest};
use crate::train::measure::gradient_stats;
use crate::train::measure::hessian::Hessian;
use crate::train::measure::metrics::{MetricSampler, PassResults, SampleInputs};
use crate::train::optim::schedule::StepHyperparams;
use crate::train::optim::tensor::with_tensor_data;

impl<'a, S: Simd16> Training<'a, S> {
    /// Predicts the classes of the probe set, if that is due. Returns false if it was aborted.
    pub(super) fn predict_probe_set(&mut self, steps: u64, stop: &AtomicBool) -> Result<bool> {
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

    /// Samples the metrics after a step. Returns false if it was aborted.
    pub(super) fn sample_metrics(
        &mut self,
        sampler: &mut MetricSampler<'_>,
        step: u64,
        rates: StepHyperparams,
        stop: &AtomicBool,
    ) -> Result<bool> {
        let Some(pass_results) = self.run_metric_passes(sampler, step, stop)? else {
            return Ok(false);
        };

        with_tensor_data(&self.state.weights, |weights| {
            with_tensor_data(&self.state.gradient, |gradient| {
                sampler.record_sample(&SampleInputs {
                    step,
                    rates,
                    weights,
                    gradient,
                    pass_results,
                });
            })
        })??;
        Ok(true)
    }

    /// Runs the passes over further images that the sample after `steps` steps needs. Returns
    /// `None` if they were aborted.
    fn run_metric_passes(
        &mut self,
        sampler: &MetricSampler<'_>,
        steps: u64,
        stop: &AtomicBool,
    ) -> Result<Option<PassResults>> {
        let mut results = PassResults::default();
        if !self.evaluate_weights(sampler, steps, stop, &mut results)?
            || !self.evaluate_average(sampler, stop, &mut results)?
        {
            return Ok(None);
        }

        if sampler.needs_pass(MeasurementPass::Noise) {
            results.noise = Some(self.measure_gradient_noise(sampler, steps)?);
        }
        if sampler.needs_pass(MeasurementPass::Curvature) {
            results.curvature = self.measure_curvature(steps, stop)?;
        }

        Ok((!self.should_abort(stop)).then_some(results))
    }

    /// Evaluates the weights on the sets that metrics need. Returns false if it was aborted before
    /// the passes.
    fn evaluate_weights(
        &mut self,
        sampler: &MetricSampler<'_>,
        steps: u64,
        stop: &AtomicBool,
        results: &mut PassResults,
    ) -> Result<bool> {
        let test = sampler.needs_pass(MeasurementPass::Test);
        let validation = sampler.needs_pass(MeasurementPass::Validation);
        if !test && !validation {
            return Ok(true);
        }

        let weights = with_tensor_data(&self.state.weights, <[f32]>::to_vec)?;
        let Some(statistics) = self.evaluation_statistics(&weights, steps, stop)? else {
            return Ok(false);
        };

        let sets = (test, validation);
        (results.test, results.validation) =
            self.evaluate_sets((&weights, &statistics), sets, stop)?;
        Ok(true)
    }

    /// Evaluates the averaged weights, if there are any, on the sets that metrics need. Returns
    /// false if it was aborted before the passes.
    fn evaluate_average(
        &mut self,
        sampler: &MetricSampler<'_>,
        stop: &AtomicBool,
        results: &mut PassResults,
    ) -> Result<bool> {
        let test = sampler.needs_pass(MeasurementPass::AverageTest);
        let validation = sampler.needs_pass(MeasurementPass::AverageValidation);
        let Some(average) = &self.state.averaged_weights else {
            return Ok(true);
        };
        if !test && !validation {
            return Ok(true);
        }

        let weights = with_tensor_data(average, <[f32]>::to_vec)?;
        let Some(statistics) = self.estimate_statistics(&weights, stop)? else {
            return Ok(false);
        };

        let sets = (test, validation);
        (results.average_test, results.average_validation) =
            self.evaluate_sets((&weights, &statistics), sets, stop)?;
        Ok(true)
    }

    /// Evaluates a model, given by weights and norm statistics, on the wanted ones of test and
    /// validation set. Returns `None` if it was aborted.
    fn evaluate_sets(
        &mut self,
        model: (&[f32], &[f32]),
        (test, validation): (bool, bool),
        stop: &AtomicBool,
    ) -> Result<(Option<LossTally>, Option<LossTally>)> {
        let data = self.data;
        let mut test_tally = None;
        let mut validation_tally = None;

        if test {
            test_tally = self.evaluate_images(
                model,
                data.test_indices(),
                |images| data.test_batch(images),
                stop,
            )?;
        }

        if validation {
            validation_tally = self.evaluate_images(
                model,
                data.validation_indices(),
                |images| data.validation_batch(images),
                stop,
            )?;
        }

        Ok((test_tally, validation_tally))
    }

    /// Evaluates images. Returns `None` if it was aborted.
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

    /// The batch-norm statistics under which the weights after `steps` steps are evaluated. Returns
    /// `None` if estimating them was aborted.
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

    /// Estimates batch-norm statistics for these weights: means over the batches of an epoch in the
    /// order of the subset. Returns `None` if it was aborted.
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

    /// Measures gradient noise at the current weights.
    fn measure_gradient_noise(
        &mut self,
        sampler: &MetricSampler<'_>,
        steps: u64,
    ) -> Result<GradientNoise> {
        let mut stream = gradient_stats::open_measure_stream(self.job.streams, "noise", steps);
        let batch = self.job.config.effective_batch_size() as usize;
        let augment = self.job.config.data.augment;

        let mut images = Vec::new();
        let mut transforms = Vec::new();
        let s = self.s;
        let data = self.data;
        let engine = &mut self.engine;
        let len = engine.layout().len;
        let trained = engine.layout().matching_ranges(|p| p.trained);
        let mut done = Ok(LossTally::default());
        with_tensor_data(&self.state.weights, |weights| {
            let request = NoiseRequest {
                batch,
                trained: &trained,
                compared_weights: sampler
                    .has_any_metric(&[Metric::GradNoiseCos])
                    .then(|| (weights, sampler.weight_ranges())),
                wants_dimension: sampler.has_any_metric(&[Metric::GradNoiseDim]),
            };
            request.estimate_noise(len, |gradient| {
                gradient_stats::draw_batch_indices(
                    data.train_indices(),
                    batch,
                    &mut stream,
                    &mut images,
                );

                augment::draw_transforms(augment, batch, &mut stream, &mut transforms);
                let pass = engine.compute_gradient(
                    s,
                    weights,
                    &data.train_batch(&images).with_transforms(&transforms),
                    gradient,
                );
                done = std::mem::replace(&mut done, Ok(LossTally::default())).and(pass);
            })
        })
        .and_then(|noise| done.map(|_| noise))
    }

    /// Computes the largest eigenvalue of the Hessian of the training objective on the last batch,
    /// at the current weights. Returns `None` if it was aborted.
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

        Ok(gradient_stats::lanczos_largest_eigenvalue(
            (len, &trained),
            &mut stream,
            |direction| (!self.should_abort(stop)).then(|| hessian.product_with(direction)),
        ))
    }
}
