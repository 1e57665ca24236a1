//! The probe set: test images for which a net's predictions are kept.

use ergodic_common::seed::Streams;
use ergodic_common::spec::Probe;
use ergodic_common::trial::Predictions;
use ergodic_common::{TrialConfig, spec::Measure};

use super::checkpoint::{Packer, Unpacker};
use super::data::TrialData;

/// What is to be predicted when, and what was.
#[derive(Debug, Default)]
pub(super) struct Predictor {
    /// The probe set, as indices of test images.
    pub(super) images: Vec<u32>,
    /// Steps after which it is looked at, ascending.
    moments: Vec<u64>,
    taken: Predictions,
}

impl Predictor {
    /// Chooses the probe set, which is the same in all trials of a sweep.
    pub(super) fn new(config: &TrialConfig, measure: &Measure, data: &TrialData, streams: &Streams) -> Self {
        let Some(Probe { points, at }) = &measure.probe else { return Self::default() };
        let mut moments: Vec<u64> = at.iter().map(|moment| moment.step_in_trial(config)).collect();
        moments.sort_unstable();
        moments.dedup();
        Self { images: data.probe(*points, streams), moments, taken: Predictions::default() }
    }

    /// Whether the probe set is looked at after so many steps.
    pub(super) fn due(&self, steps: u64) -> bool {
        self.moments.binary_search(&steps).is_ok()
    }

    /// Keeps what was predicted after so many steps.
    pub(super) fn take(&mut self, steps: u64, classes: Vec<u8>) {
        self.taken.steps.push(steps);
        self.taken.classes.extend(classes);
    }

    /// All that was predicted.
    pub(super) fn finish(self) -> Predictions {
        self.taken
    }

    pub(super) fn pack(&self, to: &mut Packer) {
        to.numbers(&self.taken.steps);
        to.bytes(&self.taken.classes);
    }

    /// Puts back what was packed; `None` if it is of another trial.
    pub(super) fn unpack(&mut self, from: &mut Unpacker<'_>) -> Option<()> {
        let (steps, classes) = (from.numbers()?, from.bytes()?);
        let whole = classes.len() == steps.len() * self.images.len();
        self.taken = whole.then_some(Predictions { steps, classes })?;
        Some(())
    }
}
