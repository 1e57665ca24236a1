//! The engine that runs a network: the trainer's own engine on the CPU, or stock Candle operations on another device.

use candle_core::Result;
use ergodic_common::net::{Net, NormSpec};

use super::Job;
use super::candle::engine::CandleEngine;
use super::data::ImageBatch;
use super::engine::CpuEngine;
use super::engine::loss::LossTally;
use super::engine::simd::Simd16;
use super::network::params::ParamLayout;

/// Share of the new value in a running statistic.
const STATISTICS_MOMENTUM: f64 = 0.1;

/// A network with its engine.
pub(crate) enum ComputeBackend {
    /// The trainer's own engine on the CPU.
    Cpu(Box<CpuEngine>),
    /// Candle's operations on the job's device.
    Candle(Box<CandleEngine>),
}

impl ComputeBackend {
    /// Creates a backend for training batches of the job's size, and for passes without gradient of
    /// up to `test` images.
    pub(crate) fn new(job: &Job<'_>, net: &Net, test: usize) -> Self {
        let batch = job.config.effective_batch_size() as usize;
        let loss = job.config.train.loss;

        match job.candle_device {
            None => Self::Cpu(Box::new(CpuEngine::new(
                net,
                loss,
                batch,
                test,
                job.thread_count(),
            ))),
            Some(candle) => Self::Candle(Box::new(CandleEngine::new(
                net,
                loss,
                batch,
                &candle.device,
            ))),
        }
    }

    /// The layout of the packed parameters.
    pub(crate) fn layout(&self) -> &ParamLayout {
        match self {
            Self::Cpu(engine) => &engine.layout,
            Self::Candle(engine) => &engine.layout,
        }
    }

    /// Loss of a batch in training mode, and the gradient of its mean over the batch.
    pub(crate) fn compute_gradient<S: Simd16>(
        &mut self,
        s: S,
        w: &[f32],
        batch: &ImageBatch<'_>,
        gradient: &mut [f32],
    ) -> Result<LossTally> {
        match self {
            Self::Cpu(engine) => Ok(engine.compute_gradient(s, w, batch, gradient)),
            Self::Candle(engine) => engine.compute_gradient(w, batch, gradient),
        }
    }

    /// Losses of a batch under the running statistics.
    pub(crate) fn evaluate_batch<S: Simd16>(
        &mut self,
        s: S,
        w: &[f32],
        running: &[f32],
        batch: &ImageBatch<'_>,
    ) -> Result<LossTally> {
        match self {
            Self::Cpu(engine) => Ok(engine.evaluate_batch(s, w, running, batch)),
            Self::Candle(engine) => engine.evaluate_batch(w, running, batch),
        }
    }

    /// Logits of an image of the last pass.
    #[cfg(test)]
    pub(crate) fn image_logits(&self, image: usize) -> &[f32] {
        match self {
            Self::Cpu(engine) => engine.image_logits(image),
            Self::Candle(engine) => engine.image_logits(image),
        }
    }

    /// Classes that the last pass predicts for its first images.
    pub(crate) fn predicted_classes(&self, images: usize) -> Vec<u8> {
        match self {
            Self::Cpu(engine) => engine.predicted_classes(images).collect(),
            Self::Candle(engine) => engine.predicted_classes(images).collect(),
        }
    }

    /// Blends the statistics of the last training batch into the running statistics. With ε = 0 the
    /// first batch replaces them, because the initial variance of 1 would set an absolute scale.
    pub(crate) fn update_statistics(&self, running: &mut [f32], first: bool) {
        self.blend_statistics(running, |norm| {
            if first && norm.eps == 0.0 {
                1.0
            } else {
                STATISTICS_MOMENTUM
            }
        });
    }

    /// Runs a forward pass over a batch in training mode, and takes its statistics into the mean over the `before` earlier ones.
    pub(crate) fn estimate_statistics<S: Simd16>(
        &mut self,
        s: S,
        w: &[f32],
        batch: &ImageBatch<'_>,
        before: u64,
        running: &mut [f32],
    ) -> Result<()> {
        match self {
            Self::Cpu(engine) => engine.collect_statistics(s, w, batch),
            Self::Candle(engine) => engine.collect_statistics(w, batch)?,
        }
        self.blend_statistics(running, |_| 1.0 / (before + 1) as f64);
        Ok(())
    }

    fn blend_statistics(&self, running: &mut [f32], share: impl Fn(&NormSpec) -> f64) {
        for (at, (range, norm)) in self.layout().batch_norms().enumerate() {
            match self {
                Self::Cpu(engine) => range.blend_statistics(
                    engine.batch_statistics(range.layer),
                    share(&norm),
                    running,
                ),
                Self::Candle(engine) => {
                    range.blend_statistics(engine.batch_statistics(at), share(&norm), running)
                }
            }
        }
    }
}
