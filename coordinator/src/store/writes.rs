//! What is written to a store, and what became of it.

use std::sync::Arc;

use ergodic_common::ids::Fence;
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::result_reuse::ResultSelection;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::{TrialKey, TrialResult};

use crate::records::{
    EndedLease, Finding, LeaseRow, RecordedAudit, SweepRow, SweepState, WorkerId,
};
use crate::store::types::{Attempt, Audit, StoredTrial};

/// A batch of results to be stored, or only compared.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitBatch {
    /// Number of the sweep.
    pub sweep: i64,
    /// The fence it was run under.
    pub fence: Fence,
    /// Name of the worker, stored with the rows.
    pub worker: String,
    /// Id of the worker's process.
    pub process: WorkerId,
    /// The results.
    pub results: Vec<TrialResult>,
    /// Do not store, whatever the fence.
    pub compare_only: bool,
    /// Do not store: the lease is one for audits.
    pub audit: bool,
    /// Trials of the batch that are to be audited.
    pub chosen_for_audit: Vec<TrialKey>,
}

/// Something to be made durable.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreWrite {
    /// A new sweep.
    InsertSweep(SweepRow),
    /// A lease.
    InsertLease(LeaseRow),
    /// A lease that has fewer trials than before.
    ShrinkLease(LeaseRow),
    /// Leases that are over.
    EndLeases(Vec<EndedLease>),
    /// A sweep's state; ending it ends its leases in the same transaction.
    SetSweepState(i64, SweepState),
    /// A sweep's share of the workers.
    SetShare(i64, Share),
    /// Results.
    StoreResults(CommitBatch),
    /// The row of a trial that no worker could run, unless it has one.
    GiveUpTrial(i64, TrialResult),
    /// The audit of a trial was given up, for this reason.
    GiveUpAudit(i64, TrialKey, String),
    /// Reverts `GiveUpTrial`, or with `true` `GiveUpAudit`, so that the trial can be run again.
    RevertGiveUp(i64, TrialKey, bool),
    /// Nothing is written: the rows that these trials have by then, and their audits.
    LookUpRows(i64, Vec<TrialKey>),
    /// Rows of failed trials become attempts, and failed audits are due again, so that they can be run again; a completed sweep is running again.
    RetryFailed(i64),
    /// What is damaged of these trials' rows becomes an attempt, so that they can be run again; a completed sweep is running
    /// again.
    QuarantineRows(i64, Vec<TrialKey>),
    /// A sweep is no more. Its trials' rows are there until they are cleared.
    RemoveSweep(i64),
    /// Some of the rows of a removed sweep: few enough not to hold up other writes.
    ClearRows(i64),
    /// Rows from a backup, of trials that have none, and earlier attempts, which are appended.
    RestoreRows(i64, Vec<StoredTrial>, Vec<(TrialKey, Attempt)>),
    /// Audits from a backup, of trials that have none.
    RestoreAudits(i64, Vec<Audit>),
    /// A sweep whose file is the first of these has the second one from now on. Its trials stay what they are.
    ExtendSweep(i64, SpecSource, SpecSource),
    /// A new sweep that has the rows of another one, which ends if it has not ended.
    InsertSuccessor(Box<SuccessorSweep>),
    /// What the cells of a sweep resolve to, which was not known when it was stored.
    SetCellsDigest(i64, [u8; 32]),
    /// A new sweep that begins with copies of rows of others.
    InsertReusing(Box<ReusingSweep>),
    /// Nothing of consequence: whether the store takes a write at all.
    CheckWritable,
    /// These files are to go, unless a sweep or a trial names them. Those that are named by none are taken away by whoever
    /// commits it, before anything else is written.
    FindUnreferenced(Vec<[u8; 32]>),
    /// These trials are run once more by any process, as audits are, because files that their rows name are lost.
    RedoTrials(i64, Vec<TrialKey>),
    /// Stores this number as the identity of the store, unless it has one.
    EnsureIdentity(i64),
}

impl StoreWrite {
    /// Hashes of the files that are named by what is stored.
    pub fn named_files(&self) -> Vec<[u8; 32]> {
        match self {
            Self::StoreResults(batch) if !batch.compare_only && !batch.audit => batch
                .results
                .iter()
                .filter_map(|result| result.weights_hash)
                .collect(),
            Self::InsertSweep(row) => row.named_files().collect(),
            Self::InsertSuccessor(inheritance) => inheritance.row.named_files().collect(),
            Self::InsertReusing(gathering) => gathering.row.named_files().collect(),
            Self::ExtendSweep(_, _, source) => source.files.iter().map(|pin| pin.hash).collect(),
            _ => Vec::new(),
        }
    }
}

/// A trial that is run once more as an audit, with what was known of its audit before: whether there was one, and what it had found.
pub type RedoneTrial = (TrialKey, Option<Option<Finding>>);

/// What became of a write.
#[derive(Debug, Clone, PartialEq)]
pub enum WriteOutput {
    /// The write is durable.
    Done,
    /// The sweep's number.
    SweepNumber(i64),
    /// The sweep's number, and how many rows it began with.
    SweepWithRows(i64, u64),
    /// What became of a batch of results.
    Results(CommitReport),
    /// Whether the trial, or its audit, is a failure now by this verdict.
    GaveUp(bool),
    /// Rows, without curves and predictions, and the audits of these.
    Rows(Vec<TrialResult>, Vec<RecordedAudit>),
    /// Trials to be run again, and audits, with the processes whose rows they are of.
    Reopened(Vec<TrialKey>, Vec<(TrialKey, WorkerId)>),
    /// Files among those to be removed that nothing names.
    Unreferenced(Vec<[u8; 32]>),
    /// How many files were removed, and how many bytes they had.
    Deleted(u64, u64),
    /// Trials that are run once more, as audits, with what was known of their audit before: whether there was one, and what it
    /// had found.
    Redone(Vec<RedoneTrial>),
    /// The identity of the store.
    Identity(i64),
    /// What was cleared of a removed sweep.
    Cleared(ClearedRows),
    /// Whether the sweep's file was the one that was to be replaced.
    Extended(bool),
}

/// A new sweep, and whose rows it begins with.
#[derive(Debug, Clone, PartialEq)]
pub struct SuccessorSweep {
    /// The new sweep.
    pub row: SweepRow,
    /// Number of the other one.
    pub predecessor: i64,
    /// Cells of the other sweep, ascending, each with its number in the new one.
    pub cell_map: Vec<(u64, u64)>,
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
    pub sweep: i64,
    /// The cells whose rows are wanted, in the order of their numbers there.
    pub cells: Vec<ReusedCell>,
}

/// A cell that two sweeps have.
#[derive(Debug, Clone, PartialEq)]
pub struct ReusedCell {
    /// Number of the cell in the sweep that has rows.
    pub source_cell: u64,
    /// Number of the cell in the new sweep.
    pub new_cell: u64,
    /// Repeats from this one on are not wanted.
    pub repeat_limit: u32,
    /// Hash of what the cell resolves to.
    pub identity: [u8; 32],
    /// Which results are wanted.
    pub selection: Arc<ResultSelection>,
}

/// A cell of a new sweep whose rows in another sweep lack something that the new one stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Twin {
    /// The cell.
    pub cell: u64,
    /// Number of the other sweep.
    pub other_sweep: i64,
    /// The cell there.
    pub other_cell: u64,
}

/// Rows of a removed sweep that are there no more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClearedRows {
    /// How many trials had one.
    pub trials: u64,
    /// Hashes of files of weights that these named, which others may name still.
    pub weights: Vec<[u8; 32]>,
    /// Whether rows may be left.
    pub has_more: bool,
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitReport {
    /// Positions in the batch of the results that were stored.
    pub stored: Vec<usize>,
    /// Trials that had a row already.
    pub already_stored: Vec<TrialKey>,
    /// How many results of trials that had a row differ from it.
    pub mismatches: u64,
    /// How many stored results differ from the row that another sweep has of the same trial.
    pub contradicted: u64,
    /// Whether the fence was no longer valid.
    pub fenced: bool,
    /// Stored trials whose audits are due.
    pub audits_due: Vec<TrialKey>,
    /// Positions in the batch of results that were audits of rows, with what was found.
    pub audited: Vec<(usize, Finding)>,
}
