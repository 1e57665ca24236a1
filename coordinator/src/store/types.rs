//! What is written to a store, and read from it.

use std::sync::Arc;

use ergodic_common::ids::{CellHash, CellIndex, Epoch, FileHash, SweepNumber, WorkerId};
use ergodic_common::spec::result_reuse::ResultSelection;
use ergodic_common::{Outcome, TrialKey, TrialResult};

use crate::records::{Finding, RecordedAudit, SweepRow};
use crate::store::encoding;
use crate::store::encoding::CurveView;
use crate::stored_row::StoredRow;

/// A stored row.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTrial {
    /// The result. Its curve and predictions may be left empty if many rows are read.
    pub result: TrialResult,
    /// Name of the worker.
    pub worker: String,
}

/// An attempt at a trial before it ran again.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The reason why the attempt failed.
    pub cause: String,
    /// Name of the worker; empty if none survived to report.
    pub worker: String,
    /// Duration, in seconds.
    pub seconds: f64,
}

/// An audit, made or due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The key of the trial.
    pub key: TrialKey,
    /// The process that computed the trial's row.
    pub process: WorkerId,
    /// The finding; `None` while the audit is due.
    pub finding: Option<Finding>,
    /// Name of the worker that ran the trial again; empty if none did.
    pub auditor: String,
    /// Id of the auditor's process.
    pub auditor_process: WorkerId,
    /// The fields that differ, or the reason why the audit failed.
    pub why: String,
}

/// The coordinator that may write to a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// The epoch: how often a coordinator has begun to lead, including this time. Fences contain
    /// it.
    pub epoch: Epoch,
    /// URL of the leader.
    pub url: String,
    /// Whether this coordinator is the leader.
    pub is_this: bool,
}

impl Leader {
    /// An unknown leader.
    pub fn unknown() -> Self {
        Self {
            epoch: Epoch(0),
            url: String::new(),
            is_this: false,
        }
    }
}

/// A position among the rows of a sweep, in the order in which they were stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowCursor {
    /// Number of the last row up to the cursor; 0 before the first.
    pub last_row: u64,
    /// Fingerprint of all rows up to the cursor, independent of their order.
    pub fingerprint: u64,
    /// Number of rows up to the cursor.
    pub row_count: u64,
}

impl RowCursor {
    /// Adds a row.
    pub(crate) fn add_row(&mut self, row: u64, print: u64) {
        self.last_row = self.last_row.max(row);
        self.fingerprint = self.fingerprint.wrapping_add(print);
        self.row_count += 1;
    }
}

/// The end of a trial, with its final metrics.
#[derive(Debug)]
pub struct EndedTrial<'a> {
    /// The key of the trial.
    pub key: TrialKey,
    /// The outcome of the trial.
    pub outcome: Outcome,
    /// Final metrics of the trial.
    pub metrics: encoding::StoredNumbers<'a>,
    /// Duration, in seconds.
    pub seconds: f64,
}

/// The curve of a trial.
#[derive(Debug, Clone, Copy)]
pub struct SampledTrial<'a> {
    /// The key of the trial.
    pub key: TrialKey,
    /// The step at which the trial diverged, if it did.
    pub diverged_at: Option<u64>,
    /// Samples of the trial.
    pub curve: CurveView<'a>,
}

impl SampledTrial<'_> {
    /// Whether training went on after a step.
    pub fn is_trained_beyond(&self, step: u64) -> bool {
        self.diverged_at.is_none_or(|end| end > step)
    }
}

/// A new sweep, and whose rows it begins with.
#[derive(Debug, Clone, PartialEq)]
pub struct SuccessorSweep {
    /// The new sweep.
    pub row: SweepRow,
    /// Number of the other one.
    pub predecessor: SweepNumber,
    /// Cells of the other sweep, ascending, each with its number in the new one.
    pub cell_map: Vec<(CellIndex, CellIndex)>,
}

/// A new sweep, and which rows of other sweeps it begins with.
#[derive(Debug, Clone, PartialEq)]
pub struct ReusingSweep {
    /// The new sweep.
    pub row: SweepRow,
    /// The seed of the sweep, by which trials to be audited are drawn.
    pub seed: u64,
    /// Share of trials that are audited, from 0 to 1.
    pub audit_share: f64,
    /// Where rows come from. Of several rows of a trial the first one counts.
    pub sources: Vec<ReuseSource>,
    /// Cells that are run again, to be compared.
    pub twins: Vec<Twin>,
}

/// A sweep that has rows of trials of another one.
#[derive(Debug, Clone, PartialEq)]
pub struct ReuseSource {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The cells whose rows are wanted, in the order of their numbers there.
    pub cells: Vec<ReusedCell>,
}

/// A cell that two sweeps have.
#[derive(Debug, Clone, PartialEq)]
pub struct ReusedCell {
    /// Number of the cell in the sweep that has rows.
    pub source_cell: CellIndex,
    /// Number of the cell in the new sweep.
    pub new_cell: CellIndex,
    /// Repeats from this one on are not wanted.
    pub repeat_limit: u32,
    /// Hash of what the cell resolves to.
    pub identity: CellHash,
    /// Which results are wanted.
    pub selection: Arc<ResultSelection>,
}

/// A cell of a new sweep whose rows in another sweep lack something that the new one stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Twin {
    /// The cell.
    pub cell: CellIndex,
    /// Number of the other sweep.
    pub other_sweep: SweepNumber,
    /// The cell there.
    pub other_cell: CellIndex,
}

/// What became of a seal that was made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealChange {
    /// The sweep had none, and its rows make none.
    Absent,
    /// The sweep had none.
    Added,
    /// The sweep had the same one.
    Confirmed,
    /// The sweep had another one, or one that its rows do not make.
    Corrected,
}

/// Rows of a removed sweep that are there no more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClearedRows {
    /// How many trials had one.
    pub trials: u64,
    /// Hashes of files of weights that these named, which others may name still.
    pub weights: Vec<FileHash>,
    /// Whether rows may be left.
    pub has_more: bool,
}

/// A trial that is run once more as an audit, with what was known of its audit before: whether there was one, and what it had found.
pub type RedoneTrial = (TrialKey, Option<Option<Finding>>);

/// Rows that some trials have, and the audits of these.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FoundRows {
    /// What the core keeps of the rows.
    pub rows: Vec<StoredRow>,
    /// Their audits.
    pub audits: Vec<RecordedAudit>,
}

/// What is to be run again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReopenedTrials {
    /// Trials that have no rows any more.
    pub trials: Vec<TrialKey>,
    /// Trials whose audits are due, with the processes that computed their rows.
    pub audits: Vec<(TrialKey, WorkerId)>,
}
