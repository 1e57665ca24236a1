//! Weights of a trial that are kept before its end.

use candle_core::Result;
use ergodic_common::TrialConfig;
use ergodic_common::spec::Measure;
use ergodic_common::weights::{Weights, WeightsFile};

use super::Training;
use crate::train::checkpoint::{CheckpointDecoder, CheckpointEncoder};
use crate::train::engine::simd::Simd16;
use crate::train::optim::tensor::with_tensor_data;

/// The weights that were kept so far, packed.
#[derive(Debug, Default)]
pub(super) struct KeptWeights {
    /// Steps before the end after which weights are kept, ascending.
    due_steps: Vec<u64>,
    kept: Vec<KeptMoment>,
}

/// Weights and norm statistics after some steps.
#[derive(Debug)]
struct KeptMoment {
    step: u64,
    weights: Vec<f32>,
    statistics: Vec<f32>,
}

impl KeptWeights {
    pub(super) fn new(config: &TrialConfig, measure: &Measure) -> Self {
        Self {
            due_steps: measure.save.earlier_steps(config),
            kept: Vec::new(),
        }
    }

    fn is_due(&self, step: u64) -> bool {
        self.due_steps.binary_search(&step).is_ok()
    }

    /// Encodes what was kept. Trials that keep nothing before their end have the checkpoints that they had before others could.
    pub(super) fn encode_into(&self, to: &mut CheckpointEncoder) {
        if self.due_steps.is_empty() {
            return;
        }
        to.write_u64(self.kept.len() as u64);
        for moment in &self.kept {
            to.write_u64(moment.step);
            to.write_f32s(&moment.weights);
            to.write_f32s(&moment.statistics);
        }
    }

    /// Restores what [`Self::encode_into`] wrote; `None` if it belongs to another trial.
    pub(super) fn restore_from(&mut self, from: &mut CheckpointDecoder<'_>) -> Option<()> {
        if self.due_steps.is_empty() {
            return Some(());
        }
        let count = from.read_u64()?;
        let mut kept = Vec::new();
        for _ in 0..count {
            let step = from.read_u64().filter(|step| self.is_due(*step))?;
            kept.push(KeptMoment {
                step,
                weights: from.read_f32s()?,
                statistics: from.read_f32s()?,
            });
        }
        self.kept = kept;
        Some(())
    }
}

impl<S: Simd16> Training<'_, S> {
    /// Keeps the weights, if that is due after `steps` steps.
    pub(super) fn keep_weights_if_due(&mut self, steps: u64) -> Result<()> {
        if self.kept_weights.is_due(steps) {
            self.kept_weights.kept.push(KeptMoment {
                step: steps,
                weights: with_tensor_data(&self.state.weights, <[f32]>::to_vec)?,
                statistics: with_tensor_data(&self.state.statistics, <[f32]>::to_vec)?,
            });
        }
        Ok(())
    }

    /// Encodes the file of all weights that the trial keeps.
    pub(super) fn encode_weights(&self) -> Result<Vec<u8>> {
        let layout = self.engine.layout();
        let mut file = WeightsFile::new(self.net);
        for moment in &self.kept_weights.kept {
            let weights = Weights {
                params: layout.unpack_params(&moment.weights),
                statistics: layout.unpack_statistics(&moment.statistics),
            };
            file.put_moment(moment.step, &weights);
        }
        if self.job.measure.save.includes_end(self.job.config) {
            let params = with_tensor_data(&self.state.weights, |w| layout.unpack_params(w))?;
            let statistics =
                with_tensor_data(&self.state.statistics, |st| layout.unpack_statistics(st))?;
            let average = self
                .state
                .averaged_weights
                .as_ref()
                .map(|w| with_tensor_data(w, |w| layout.unpack_params(w)))
                .transpose()?;
            file.put_last(&Weights { params, statistics }, average.as_deref());
        }

        Ok(file.encode())
    }
}
