//! What is read from a store.

use ergodic_common::{Outcome, TrialKey, TrialResult};

use crate::records::{Finding, WorkerId};
use crate::store::encoding;
use crate::store::encoding::CurveView;

/// A stored row.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTrial {
    /// The result; where many rows are handed out, its curve and predictions are left empty.
    pub result: TrialResult,
    /// Name of the worker.
    pub worker: String,
}

/// What became of a trial before it was run again.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Why it failed.
    pub cause: String,
    /// Name of the worker; empty if none lived to tell.
    pub worker: String,
    /// Duration, in seconds.
    pub seconds: f64,
}

/// An audit, made or due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The trial.
    pub key: TrialKey,
    /// The process that computed its row.
    pub process: WorkerId,
    /// What was found; none while it is due.
    pub finding: Option<Finding>,
    /// Name of the worker that ran it again; empty if none did.
    pub auditor: String,
    /// Id of the auditor's process.
    pub auditor_process: WorkerId,
    /// What differed, or why it failed.
    pub why: String,
}

/// The coordinator that may write to a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// How often a coordinator began to lead, this time included. What is written names it.
    pub epoch: u64,
    /// URL of the leader.
    pub url: String,
    /// Whether it is this one.
    pub is_this: bool,
}

impl Leader {
    /// A leader that is not known.
    pub fn unknown() -> Self {
        Self {
            epoch: 0,
            url: String::new(),
            is_this: false,
        }
    }
}

/// A position among the rows of a sweep, in the order in which they were stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowCursor {
    /// The number of the last row up to it; 0 before the first.
    pub last_row: u64,
    /// Of all rows up to it, in whatever order: others have another one.
    pub fingerprint: u64,
    /// How many these are.
    pub row_count: u64,
}

impl RowCursor {
    /// Takes in one more row.
    pub(crate) fn add_row(&mut self, row: u64, print: u64) {
        self.last_row = self.last_row.max(row);
        self.fingerprint = self.fingerprint.wrapping_add(print);
        self.row_count += 1;
    }
}

/// How a trial ended, and with which final metrics.
#[derive(Debug)]
pub struct EndedTrial<'a> {
    /// Which trial.
    pub key: TrialKey,
    /// How it ended.
    pub outcome: Outcome,
    /// Final metrics of the trial.
    pub metrics: encoding::StoredNumbers<'a>,
    /// Duration, in seconds.
    pub seconds: f64,
}

/// What a trial's metrics were on its way.
#[derive(Debug, Clone, Copy)]
pub struct SampledTrial<'a> {
    /// Which trial.
    pub key: TrialKey,
    /// The step at which it diverged, if it did.
    pub diverged_at: Option<u64>,
    /// Samples of the trial.
    pub curve: CurveView<'a>,
}

impl SampledTrial<'_> {
    /// Whether it was trained on beyond a step.
    pub fn is_trained_beyond(&self, step: u64) -> bool {
        self.diverged_at.is_none_or(|end| end > step)
    }
}
