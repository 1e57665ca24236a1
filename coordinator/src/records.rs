//! Records of sweeps, leases and audits, as core, store and server share them.

use ergodic_common::ids::Fence;
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::{Outcome, TrialKey};

use crate::interval_set::IntervalSet;

/// The state of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepState {
    /// Trials are left to run.
    Running,
    /// Every trial has its row.
    Completed,
    /// A user has cancelled it.
    Cancelled,
    /// A user has paused it: nothing more of it is given out until it is resumed.
    Paused,
}

impl SweepState {
    /// All states.
    pub const ALL: [Self; 4] = [
        Self::Running,
        Self::Completed,
        Self::Cancelled,
        Self::Paused,
    ];

    /// Whether results are still to come.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// A sweep as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepRow {
    /// The sweep's number, in the order of launch; 0 until it is stored.
    pub number: i64,
    /// The id by which users name it.
    pub id: String,
    /// The sweep file.
    pub source: SpecSource,
    /// The data that it trains on.
    pub data: DataPin,
    /// The sweep's state when the row was read.
    pub state: SweepState,
    /// The sweep's share of the workers when the row was read.
    pub share: Share,
    /// Unix time of the launch, in seconds.
    pub launched_at: f64,
    /// The user who launched it; empty if that is not known.
    pub launched_by: String,
    /// Counts of what had happened when the row was read.
    pub tallies: SweepTallies,
}

impl SweepRow {
    /// Hashes of the files that it names.
    pub fn named_files(&self) -> impl Iterator<Item = [u8; 32]> {
        self.source
            .files
            .iter()
            .map(|pin| pin.hash)
            .chain(self.data.hash)
    }
}

/// Counts of what happened to a sweep besides its rows. The store counts in the transactions in which it happens, the core when it
/// hears of it, so that nothing is forgotten by a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepTallies {
    /// Leases that ended with trials left, which were given out again.
    pub lost_leases: u64,
    /// Results that came again and were compared with their row.
    pub duplicates: u64,
    /// Results that differed from their row, of these and of audits.
    pub mismatches: u64,
    /// Batches under a fence that held no more.
    pub fenced: u64,
}

impl SweepTallies {
    /// Counts a batch: results that were `compared`, and those of them that were different.
    pub fn count_batch(&mut self, compared: u64, different: u64, fenced: bool) {
        self.duplicates += compared;
        self.mismatches += different;
        self.fenced += u64::from(fenced);
    }
}

/// The dataset a sweep was pinned to at its launch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataPin {
    /// BLAKE3 of its canonical form; `None` when none is needed.
    pub hash: Option<[u8; 32]>,
    /// Training images that are read from the dataset's files.
    pub train: u32,
    /// The data in words.
    pub provenance: String,
}

/// Rows by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutcomeCounts {
    /// Completed trials.
    pub completed: u64,
    /// Diverged trials.
    pub diverged: u64,
    /// Failed trials.
    pub failed: u64,
}

impl OutcomeCounts {
    /// Counts a trial by its outcome.
    pub fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Completed => self.completed += 1,
            Outcome::Diverged { .. } => self.diverged += 1,
            Outcome::Failed { .. } => self.failed += 1,
        }
    }

    /// Adds the counts of others.
    pub fn merge(&mut self, others: &Self) {
        self.completed += others.completed;
        self.diverged += others.diverged;
        self.failed += others.failed;
    }

    /// Number of trials with a row.
    pub fn done(&self) -> u64 {
        self.completed + self.diverged + self.failed
    }
}

/// The finding of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The second run yielded the same bits.
    Same,
    /// Other bits: an alarm.
    Different,
    /// Nothing: the trial failed this time.
    Failed,
}

/// An audit as the store knows it: the trial, the process that computed its row, and the finding, if the audit was made.
pub type RecordedAudit = (TrialKey, WorkerId, Option<Finding>);

/// A worker process, as named by itself.
pub type WorkerId = String;

/// A lease that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedLease {
    /// The lease's fencing token.
    pub fence: Fence,
    /// Whether its holder lost it with trials left, which are given out again.
    pub lost: bool,
}

/// A lease as it is stored: trials of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The lease's fencing token.
    pub fence: Fence,
    /// Number of its sweep in the store.
    pub sweep: i64,
    /// Shape class of its trials.
    pub class: u32,
    /// The worker that holds the lease.
    pub worker: WorkerId,
    /// Trial numbers within the class.
    pub trials: IntervalSet,
    /// The process whose rows it audits; none if its trials have no rows yet.
    pub audits: Option<WorkerId>,
}
