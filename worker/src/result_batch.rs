//! Results on their way to the coordinator.

use ergodic_common::TrialKey;
use ergodic_common::ids::{Fence, SweepId};

use crate::train::FinishedTrial;

/// Results of one lease on their way to the coordinator.
#[derive(Debug, Clone)]
pub struct ResultBatch {
    /// Number of the batch, unique in this worker.
    pub number: u64,
    /// The lease of the trials.
    pub fence: Fence,
    /// The sweep of the lease.
    pub sweep: SweepId,
    /// Results that are in memory.
    pub results: Vec<FinishedTrial>,
    /// References to results that are only in the spool.
    pub spooled: Vec<SpoolRef>,
}

impl ResultBatch {
    /// The keys of all trials in the batch.
    pub fn trial_keys(&self) -> Vec<TrialKey> {
        let here = self.results.iter().map(|finished| finished.result.key);
        here.chain(self.spooled.iter().map(|place| place.key))
            .collect()
    }
}

/// A batch that was sent and not acknowledged: its bytes in memory, and the number of its results.
#[derive(Debug, Default)]
pub(crate) struct UnacknowledgedBatch {
    pub(crate) bytes: usize,
    pub(crate) results: usize,
}

/// The location of a result in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolRef {
    /// The trial of the result.
    pub key: TrialKey,
    /// The number of the segment file.
    pub segment: u64,
    /// Offset of the first byte in the segment.
    pub offset: u64,
    /// Length of the record in bytes.
    pub bytes: usize,
}

impl FinishedTrial {
    /// Approximate size on the wire in bytes, which also counts as the size in memory.
    pub(crate) fn wire_size(&self) -> usize {
        let Self { result, weights } = self;
        let numbers = result.metrics.len() + result.curve.steps.len() + result.curve.values.len();
        let output = result.output.as_ref().map_or(0, |kept| kept.packed.len());
        let weights = weights.as_ref().map_or(0, Vec::len);
        96 + 8 * numbers + result.predictions.classes.len() + output + weights
    }
}
