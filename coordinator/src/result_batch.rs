//! Results that workers send, and what the store made of them.

use ergodic_common::ids::{Fence, FileHash, SweepNumber, WorkerId};
use ergodic_common::{Spec, TrialKey, TrialResult};

use crate::records::Finding;
use crate::stored_row::{MetricPositions, StoredRow};

/// Results of one lease, as a worker sent them together.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultBatch {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The lease under which they are sent.
    pub fence: Fence,
    /// Id of the worker's process.
    pub process: WorkerId,
    /// The results.
    pub results: Vec<TrialResult>,
    /// Where the metrics stand in the results that the core keeps.
    pub positions: MetricPositions,
    /// What of a result must be equal to that of its row.
    pub comparison: ResultComparison,
}

/// What two results of the same trial are compared in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResultComparison {
    /// All that is computed, bit for bit.
    #[default]
    Everything,
    /// The outcome and the digest. Those of a program leave out what may differ between runs, such as times.
    Digest,
}

impl ResultComparison {
    /// The comparison of results of a sweep.
    pub fn of_spec(spec: &Spec) -> Self {
        match spec.program() {
            Some(_) => Self::Digest,
            None => Self::Everything,
        }
    }
}

impl ResultBatch {
    /// The trials of the results.
    pub fn trial_keys(&self) -> Vec<TrialKey> {
        self.results.iter().map(|result| result.key).collect()
    }

    /// Hashes of the files of weights that the results name.
    pub fn named_weights(&self) -> Vec<FileHash> {
        self.results
            .iter()
            .filter_map(|result| result.weights_hash)
            .collect()
    }

    /// What the core keeps of the result at a position.
    pub(crate) fn stored_row(&self, at: usize) -> StoredRow {
        self.positions.build_row_from_result(&self.results[at])
    }
}

/// What the store did with a batch of results.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommitOutcome {
    /// Rows that were stored.
    pub stored: Vec<StoredRow>,
    /// Trials that had a row before.
    pub already_stored: Vec<TrialKey>,
    /// Number of these whose result differs from the row.
    pub mismatches: u64,
    /// Number of stored results that differ from another sweep's row of the same trial.
    pub contradicted: u64,
    /// Whether the lease was over, so that results were only compared.
    pub fenced: bool,
    /// Stored trials whose audits are due.
    pub audits_due: Vec<TrialKey>,
    /// Rows that existed before and that the batch audited.
    pub audited: Vec<(StoredRow, Finding)>,
}

impl CommitOutcome {
    /// How many results that came again and were no audits.
    pub fn compared_count(&self) -> u64 {
        (self.already_stored.len() - self.audited.len()) as u64
    }

    /// How many results have other bits than a row of the same trial.
    pub fn differing_count(&self) -> u64 {
        self.mismatches + self.contradicted
    }
}
