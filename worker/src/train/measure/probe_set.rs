//! The probe set: test images for which a network's predictions are recorded.

use ergodic_common::TrialConfig;
use ergodic_common::random_streams::Streams;
use ergodic_common::spec::Measure;
use ergodic_common::trial::Predictions;

use crate::train::checkpoint::{CheckpointDecoder, CheckpointEncoder};
use crate::train::data::TrialData;

/// The predictions of a trial for the probe set.
#[derive(Debug, Default)]
pub(crate) struct ProbePredictions {
    /// The probe set, as indices of test images.
    pub(crate) images: Vec<u32>,
    /// Steps after which the probe set is predicted, ascending.
    due_steps: Vec<u64>,
    recorded: Predictions,
}

impl ProbePredictions {
    /// Chooses the probe set, which is the same in all trials of a sweep.
    pub(crate) fn new(
        config: &TrialConfig,
        measure: &Measure,
        data: &TrialData,
        streams: &Streams,
    ) -> Self {
        let Some(probe) = &measure.probe else {
            return Self::default();
        };

        Self {
            images: data.probe_indices(probe.points, streams),
            due_steps: probe.steps_in_trial(config),
            recorded: Predictions::default(),
        }
    }

    /// Whether to predict the probe set after `steps` steps.
    pub(crate) fn is_due(&self, steps: u64) -> bool {
        self.due_steps.binary_search(&steps).is_ok()
    }

    /// Records the predictions after `steps` steps.
    pub(crate) fn record_classes(&mut self, steps: u64, classes: Vec<u8>) {
        self.recorded.steps.push(steps);
        self.recorded.classes.extend(classes);
    }

    /// All recorded predictions.
    pub(crate) fn into_predictions(self) -> Predictions {
        self.recorded
    }

    pub(crate) fn encode_into(&self, to: &mut CheckpointEncoder) {
        to.write_u64s(&self.recorded.steps);
        to.write_bytes(&self.recorded.classes);
    }

    /// Restores the state that [`Self::encode_into`] wrote; `None` if it belongs to another trial.
    pub(crate) fn restore_from(&mut self, from: &mut CheckpointDecoder<'_>) -> Option<()> {
        let steps = from.read_u64s()?;
        let classes = from.read_bytes()?;
        let whole = classes.len() == steps.len() * self.images.len();
        self.recorded = whole.then_some(Predictions { steps, classes })?;
        Some(())
    }
}
