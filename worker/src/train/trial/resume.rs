//! Saving an unfinished trial between two steps, and resuming it.

use candle_core::Result;
use ergodic_common::ids::TrialIdentity;

use super::Training;
use crate::train::checkpoint::{self, CheckpointDecoder, CheckpointEncoder};
use crate::train::engine::simd::Simd16;
use crate::train::measure::metrics::MetricSampler;

impl<S: Simd16> Training<'_, S> {
    /// Saves the trial after `steps` steps, if it is stopped or the store asks for it.
    pub(super) fn save_if_due(
        &self,
        sampler: &MetricSampler<'_>,
        steps: u64,
        stopped: bool,
    ) -> Result<()> {
        if let Some(slot) = &self.checkpoint_slot
            && steps > 0
            && (stopped || slot.store.should_save(steps))
        {
            let checkpoint = self.encode_checkpoint(slot.identity, sampler, steps)?;
            slot.store.save_checkpoint(slot.identity, steps, checkpoint);
        }

        Ok(())
    }

    fn encode_checkpoint(
        &self,
        identity: TrialIdentity,
        sampler: &MetricSampler<'_>,
        steps: u64,
    ) -> Result<Vec<u8>> {
        let mut encoder = CheckpointEncoder::default();
        encoder.write_bytes(&identity.0);
        encoder.write_u64(steps);
        self.state.encode_into(&mut encoder)?;
        sampler.encode_into(&mut encoder);
        self.probe_predictions.encode_into(&mut encoder);
        self.kept_weights.encode_into(&mut encoder);
        Ok(encoder.finish_with_hash())
    }

    /// Restores the furthest checkpoint of this trial; returns the number of completed steps.
    /// Returns `None` if it does not fit after all, and the trial must begin anew.
    pub(super) fn resume_from_checkpoint(
        &mut self,
        sampler: &mut MetricSampler<'_>,
    ) -> Option<u64> {
        let Some(slot) = self.checkpoint_slot else {
            return Some(0);
        };

        let trial = self.job.key;
        let checkpoints = slot.store.load_checkpoints(slot.identity);
        let furthest = checkpoints
            .iter()
            .filter_map(|bytes| checkpoint::open_checkpoint(bytes, slot.identity))
            .max_by_key(|(steps, _)| *steps);
        let Some((steps, mut decoder)) = furthest else {
            if !checkpoints.is_empty() {
                tracing::warn!(%trial, "its checkpoint is damaged, or belongs to another trial or version; the trial begins anew");
            }
            return Some(0);
        };

        let restored = self.restore_state(sampler, &mut decoder);
        if restored.is_none() || steps > self.job.config.total_steps() {
            tracing::error!(%trial, "its checkpoint cannot be restored; the trial begins anew");
            return None;
        }

        tracing::info!(%trial, steps, "resuming from a checkpoint");
        Some(steps)
    }

    /// Restores the state from the rest of a checkpoint; `None` if it belongs to another trial.
    fn restore_state(
        &mut self,
        sampler: &mut MetricSampler<'_>,
        decoder: &mut CheckpointDecoder<'_>,
    ) -> Option<()> {
        self.state.restore_from(decoder)?;
        sampler.restore_from(decoder)?;
        self.probe_predictions.restore_from(decoder)?;
        self.kept_weights.restore_from(decoder)?;
        decoder.is_fully_read().then_some(())
    }
}
