//! What is durable: sweeps, leases and results. Only results are rows; pending trials are computed.
//!
//! One [`Writer`] per store, owned by one thread, applies writes in batches, one transaction each; any number of
//! [`Reader`]s look at what was committed.

pub mod encoding;
pub mod location;
pub mod postgres;
mod sql;
pub mod sqlite;
pub mod trial_range;
pub mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use encoding::CurveView;
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::result_reuse::ResultSelection;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::trial::Predictions;
use ergodic_common::{Outcome, TrialKey, TrialResult};
pub(crate) use sqlite::files::create_directory;
pub use trial_range::{SnapshotReaders, TrialRange};

use crate::records::{
    EndedLease, Fence, Finding, LeaseRow, RecordedAudit, SweepRow, SweepState, WorkerId,
};

/// Why the store did not do as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another coordinator has it.
    #[error("{0}")]
    Taken(String),
    /// It is not a store of this version.
    #[error("{0}")]
    Unusable(String),
    /// The disk, or the database, failed.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The database does not answer, or the connection to it broke off.
    #[error("the database does not answer: {0}")]
    Disconnected(String),
    /// A file that it is in has no name any more, or another one has its name: nothing that is written would be found again.
    #[error("{0}")]
    FileGone(String),
    /// A file that is named does not lie beside the store.
    #[error("{0}")]
    BlobMissing(String),
    /// Another coordinator leads since: this one may write nothing any more.
    #[error("{0}")]
    Deposed(String),
    /// What is stored of a trial is not what was stored.
    #[error("{0}")]
    Damaged(Box<Damage>),
}

/// What is stored of a trial, and is not what was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The sweep: its id, where it is known, else its number.
    pub sweep: String,
    /// The trial.
    pub key: TrialKey,
    /// What of it.
    pub what: &'static str,
    /// How that shows.
    pub why: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sweep,
            key,
            what,
            why,
        } = self;
        write!(
            f,
            "the store is damaged: the {what} of the trial {key} of the sweep {sweep}: {why}. Start the coordinator again \
             with `ergodic serve --check`, which sets damaged rows aside and has their trials run again"
        )
    }
}

impl StoreError {
    /// The same with the file that it is about.
    pub(crate) fn with_path(self, path: &std::path::Path) -> Self {
        match self {
            Self::Failed(why) => Self::Failed(format!("{}: {why}", path.display())),
            told => told,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A batch of results to be stored, or only compared.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitBatch {
    /// Number of the sweep.
    pub sweep: i64,
    /// The fence it was run under.
    pub fence: Fence,
    /// Name of the worker, kept with the rows.
    pub worker: String,
    /// Its id.
    pub process: WorkerId,
    /// The results.
    pub results: Vec<TrialResult>,
    /// Do not store, whatever the fence.
    pub compare_only: bool,
    /// Do not store: the lease is one for audits.
    pub audit: bool,
    /// Those of the trials that are to be audited.
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
    /// Takes back what one of these two stored of a trial, the last one where it is said so, so that it can be run again.
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
    /// These trials are to be run once more by whoever may, as audits are, because files that their rows name are lost.
    RedoTrials(i64, Vec<TrialKey>),
    /// Puts this number down as what the store is told by, unless it has one.
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

/// Files that sweeps and rows name by their hashes, beside the store.
pub trait ReferencedBlobs: Send {
    /// Whether the file of this hash is there.
    fn has_blob(&self, hash: &[u8; 32]) -> bool;

    /// Removes a file that nothing names; how many bytes it had, if it was there and nobody was told that it stays.
    ///
    /// # Errors
    /// It cannot be removed.
    fn remove_unreserved(&self, hash: &[u8; 32]) -> std::io::Result<Option<u64>>;
}

/// A trial that is run once more as an audit, with what was known of its audit before: whether there was one, and what it had found.
pub type RedoneTrial = (TrialKey, Option<Option<Finding>>);

/// What became of a write.
#[derive(Debug, Clone, PartialEq)]
pub enum WriteOutput {
    /// It is durable.
    Done,
    /// The sweep's number.
    SweepNumber(i64),
    /// The sweep's number, and how many rows it began with.
    SweepWithRows(i64, u64),
    /// The batch's fate.
    Results(CommitReport),
    /// Whether the trial, or its audit, is a failure now by this verdict.
    GaveUp(bool),
    /// Rows, without curves and predictions, and the audits of these.
    Rows(Vec<TrialResult>, Vec<RecordedAudit>),
    /// Trials to be run again, and audits, with the processes whose rows they are of.
    Reopened(Vec<TrialKey>, Vec<(TrialKey, WorkerId)>),
    /// Of files that were to go, those that nothing names.
    Unreferenced(Vec<[u8; 32]>),
    /// How many of them are gone, and how many bytes they had.
    Deleted(u64, u64),
    /// Trials that are run once more, as audits, with what was known of their audit before: whether there was one, and what it
    /// had found.
    Redone(Vec<RedoneTrial>),
    /// What the store is told by.
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
    /// Its seed, by which the lot falls on trials that are audited.
    pub seed: u64,
    /// Their share.
    pub audit_share: f64,
    /// Where rows come from. Of several rows of a trial the first one counts.
    pub sources: Vec<ReuseSource>,
    /// Cells that are run again, to be compared.
    pub twins: Vec<Twin>,
}

/// A sweep that has rows of trials of another one.
#[derive(Debug, Clone, PartialEq)]
pub struct ReuseSource {
    /// Its number.
    pub sweep: i64,
    /// Which, in the order of their numbers there.
    pub cells: Vec<ReusedCell>,
}

/// A cell that two sweeps have.
#[derive(Debug, Clone, PartialEq)]
pub struct ReusedCell {
    /// Its number in the sweep that has rows.
    pub source_cell: u64,
    /// Its number in the new one.
    pub new_cell: u64,
    /// Repeats from this one on are not wanted.
    pub repeat_limit: u32,
    /// What it is.
    pub identity: [u8; 32],
    /// What of its results is wanted.
    pub selection: Arc<ResultSelection>,
}

/// A cell of a new sweep of which another one has rows that lack something.
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
    /// Of these, how many differ from their row.
    pub mismatches: u64,
    /// Of the stored ones, how many differ from the row that another sweep has of the same trial.
    pub contradicted: u64,
    /// Whether the fence held no more.
    pub fenced: bool,
    /// Of the stored ones, those whose audits are due.
    pub audits_due: Vec<TrialKey>,
    /// Positions of those of the known ones that were thereby audited, with what was found.
    pub audited: Vec<(usize, Finding)>,
}

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
    /// Of which trial.
    pub key: TrialKey,
    /// The process that computed its row.
    pub process: WorkerId,
    /// What was found; none while it is due.
    pub finding: Option<Finding>,
    /// Name of the worker that ran it again; empty if none did.
    pub auditor: String,
    /// Its process.
    pub auditor_process: WorkerId,
    /// What differed, or why it failed.
    pub why: String,
}

/// The coordinator that may write to a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// How often a coordinator began to lead, this time included. What is written names it.
    pub epoch: u64,
    /// Its address.
    pub url: String,
    /// Whether it is this one.
    pub is_this: bool,
}

impl Leader {
    /// None is known.
    pub fn unknown() -> Self {
        Self {
            epoch: 0,
            url: String::new(),
            is_this: false,
        }
    }
}

/// A place where results are kept, for one coordinator or for several of which one leads.
pub trait Store: Send + Sync {
    /// Leads from now on, as the coordinator at `url`, unless another one does; who leads.
    ///
    /// # Errors
    /// The store cannot be written.
    fn acquire_leadership(&self, url: &str) -> Result<Leader, StoreError>;

    /// How long a claim to lead lasts that is not renewed; none where nobody else can lead meanwhile.
    fn leadership_ttl(&self) -> Option<Duration>;

    /// Goes on leading; whether that is so still.
    ///
    /// # Errors
    /// That cannot be known.
    fn renew_leadership(&self, epoch: u64) -> Result<bool, StoreError>;

    /// Leads no more, so that another one may at once. Where that fails, it may in a while.
    fn resign_leadership(&self, epoch: u64);

    /// Whether what is written would be found again.
    ///
    /// # Errors
    /// It would not, in words.
    fn check_files_in_place(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The one writer of the leader of this epoch; asked for once.
    ///
    /// # Errors
    /// The store cannot be written.
    fn open_writer(&self, epoch: u64) -> Result<Box<dyn StoreWriter>, StoreError>;

    /// A view of what was committed by the moment of its first look.
    ///
    /// # Errors
    /// The store cannot be read.
    fn open_reader(&self) -> Result<Box<dyn StoreReader>, StoreError>;

    /// Several views of the same moment, at least one and at most `most`.
    ///
    /// # Errors
    /// The store cannot be read.
    fn open_readers(&self, most: usize) -> Result<SnapshotReaders, StoreError>;
}

/// Applies writes.
pub trait StoreWriter: Send {
    /// Applies all writes in one transaction and returns when they are durable.
    ///
    /// # Errors
    /// None of them is durable, nor will be.
    fn commit_writes(&mut self, writes: &[&StoreWrite]) -> Result<Vec<WriteOutput>, StoreError>;
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
    fn add_row(&mut self, row: u64, print: u64) {
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
    /// Its final metrics.
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
    /// Its samples.
    pub curve: CurveView<'a>,
}

impl SampledTrial<'_> {
    /// Whether it was trained on beyond a step.
    pub fn is_trained_beyond(&self, step: u64) -> bool {
        self.diverged_at.is_none_or(|end| end > step)
    }
}

/// Looks at what was committed. A thread may take it over, and several may not have it at once.
pub trait StoreReader: Send {
    /// All sweeps in the order of launch.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_sweeps(&self) -> Result<Vec<SweepRow>, StoreError>;

    /// Removed sweeps whose rows are not all cleared.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_unfinished_removals(&self) -> Result<Vec<i64>, StoreError>;

    /// Whether a trial names this file of weights.
    ///
    /// # Errors
    /// The store cannot be read.
    fn has_trial_with_weights(&self, weights: &[u8; 32]) -> Result<bool, StoreError>;

    /// All leases in force, and the smallest number no lease ever had.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_leases(&self) -> Result<(Vec<LeaseRow>, u64), StoreError>;

    /// Hands out the rows of a sweep that are as they were stored, with curves and predictions, in any order; those that are not.
    /// It takes its time.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_intact_trials(
        &self,
        sweep: i64,
        each: &mut dyn FnMut(StoredTrial),
    ) -> Result<Vec<Damage>, StoreError>;

    /// Hands out how a part of a sweep's trials ended, in the order (cell, repeat), of those whose rows are as they were stored;
    /// those whose are not. Curves and predictions are not looked at.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_intact_ended_trials(
        &self,
        sweep: i64,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<Vec<Damage>, StoreError>;

    /// Hands out which files of weights the rows of a sweep name, in the order (cell, repeat); the rows of which that
    /// cannot be told. Nothing else of a row is looked at.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_weights_hashes(
        &self,
        sweep: i64,
        each: &mut dyn FnMut(TrialKey, [u8; 32]),
    ) -> Result<Vec<Damage>, StoreError>;

    /// Hands out the rows of a sweep in the order (cell, repeat).
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_trials(
        &self,
        sweep: i64,
        each: &mut dyn FnMut(StoredTrial) -> bool,
    ) -> Result<(), StoreError>;

    /// The position of the row of this number, and that of the last row of a sweep.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_row_cursors(&self, sweep: i64, row: u64) -> Result<[RowCursor; 2], StoreError>;

    /// Hands out the rows of a sweep that were stored after the one of this number, in the order (cell, repeat), with curves and
    /// predictions.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_trials_after(
        &self,
        sweep: i64,
        row: u64,
        each: &mut dyn FnMut(StoredTrial) -> bool,
    ) -> Result<(), StoreError>;

    /// One row, with its curve and predictions.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_trial(&self, sweep: i64, key: TrialKey) -> Result<Option<StoredTrial>, StoreError>;

    /// What became of a trial before it was run again, the first attempt first.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_attempts(&self, sweep: i64, key: TrialKey) -> Result<Vec<Attempt>, StoreError>;

    /// The audits of a sweep in the order (cell, repeat).
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_audits(&self, sweep: i64) -> Result<Vec<Audit>, StoreError>;

    /// The audit of one trial, if it has one.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_audit(&self, sweep: i64, key: TrialKey) -> Result<Option<Audit>, StoreError>;

    /// Hands out all attempts of a sweep, those of a trial in their order.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_all_attempts(
        &self,
        sweep: i64,
        each: &mut dyn FnMut(TrialKey, Attempt),
    ) -> Result<(), StoreError>;

    /// Hands out how a part of a sweep's trials ended, in the order (cell, repeat).
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_ended_trials(
        &self,
        sweep: i64,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<(), StoreError>;

    /// Hands out the curves of a part of a sweep's trials, in the order (cell, repeat), of those that completed, and of those that
    /// diverged as far as they came.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_curves(
        &self,
        sweep: i64,
        part: TrialRange,
        each: &mut dyn FnMut(SampledTrial<'_>),
    ) -> Result<(), StoreError>;

    /// Hands out what was predicted for the probe set, trial by trial in the order (cell, repeat).
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_predictions(
        &self,
        sweep: i64,
        each: &mut dyn FnMut(TrialKey, Predictions) -> bool,
    ) -> Result<(), StoreError>;
}
