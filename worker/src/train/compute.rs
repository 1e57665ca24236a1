//! What runs a network: the trainer's own engine on the CPU, or stock Candle operations on another device.

use candle_core::Result;
use ergodic_common::net::{Net, NormSpec};

use super::Job;
use super::data::Source;
use super::engine::Engine;
use super::loss::Tally;
use super::params::Layout;
use super::simd::Lanes;
use super::stock::StockEngine;

/// Share of the new value in a running statistic.
const MOMENTUM: f64 = 0.1;

/// A network with what runs it.
pub(super) enum Compute {
    /// On the CPU.
    Own(Box<Engine>),
    /// On the job's device.
    Stock(Box<StockEngine>),
}

impl Compute {
    /// For training batches of the job's size and passes without gradient of up to `test` images.
    pub(super) fn new(job: &Job<'_>, net: &Net, test: usize) -> Self {
        let (batch, loss) = (job.config.effective_batch_size() as usize, job.config.train.loss);
        match job.place {
            None => Self::Own(Box::new(Engine::new(net, loss, batch, test, job.threads()))),
            Some(place) => Self::Stock(Box::new(StockEngine::new(net, loss, batch, &place.device))),
        }
    }

    /// Where parameters stand.
    pub(super) fn layout(&self) -> &Layout {
        match self {
            Self::Own(engine) => &engine.layout,
            Self::Stock(engine) => &engine.layout,
        }
    }

    /// Loss of a batch in training mode, and the gradient of its mean over the batch.
    pub(super) fn train<S: Lanes>(
        &mut self,
        s: S,
        w: &[f32],
        batch: &Source<'_>,
        gradient: &mut [f32],
    ) -> Result<Tally> {
        match self {
            Self::Own(engine) => Ok(engine.train(s, w, batch, gradient)),
            Self::Stock(engine) => engine.train(w, batch, gradient),
        }
    }

    /// Losses of a batch under the running statistics.
    pub(super) fn evaluate<S: Lanes>(&mut self, s: S, w: &[f32], running: &[f32], batch: &Source<'_>) -> Result<Tally> {
        match self {
            Self::Own(engine) => Ok(engine.evaluate(s, w, running, batch)),
            Self::Stock(engine) => engine.evaluate(w, running, batch),
        }
    }

    /// Logits of an image of the last pass.
    #[cfg(test)]
    pub(super) fn logits(&self, image: usize) -> &[f32] {
        match self {
            Self::Own(engine) => engine.logits(image),
            Self::Stock(engine) => engine.logits(image),
        }
    }

    /// Classes that the last pass gives its first images.
    pub(super) fn classes(&self, images: usize) -> Vec<u8> {
        match self {
            Self::Own(engine) => engine.classes(images).collect(),
            Self::Stock(engine) => engine.classes(images).collect(),
        }
    }

    /// Moves the running statistics towards those of the last training batch. The very first batch replaces them where
    /// ε = 0: the initial variance of 1 would set an absolute scale.
    pub(super) fn update_statistics(&self, running: &mut [f32], first: bool) {
        self.move_statistics(running, |norm| if first && norm.eps == 0.0 { 1.0 } else { MOMENTUM });
    }

    /// Passes over a batch in training mode, and takes its statistics into the mean over the `before` earlier ones.
    pub(super) fn estimate<S: Lanes>(
        &mut self,
        s: S,
        w: &[f32],
        batch: &Source<'_>,
        before: u64,
        running: &mut [f32],
    ) -> Result<()> {
        match self {
            Self::Own(engine) => engine.estimate(s, w, batch),
            Self::Stock(engine) => engine.estimate(w, batch)?,
        }
        self.move_statistics(running, |_| 1.0 / (before + 1) as f64);
        Ok(())
    }

    fn move_statistics(&self, running: &mut [f32], share: impl Fn(&NormSpec) -> f64) {
        for (at, (place, norm)) in self.layout().norms().enumerate() {
            match self {
                Self::Own(engine) => place.blend(engine.moments(place.layer), share(&norm), running),
                Self::Stock(engine) => place.blend(engine.moments(at), share(&norm), running),
            }
        }
    }
}
