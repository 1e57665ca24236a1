//! Records of sweeps, leases and audits, which core, store and server share.

use ergodic_common::ids::{
    DatasetHash, Fence, FileHash, ShapeClass, SweepId, SweepNumber, TrialIndex, WorkerId,
};
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::{Outcome, TrialKey};

use crate::interval_set::IntervalSet;

/// The state of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepState {
    /// The sweep has trials to run.
    Running,
    /// Every trial has a row.
    Completed,
    /// A user has cancelled the sweep.
    Cancelled,
    /// A user has paused the sweep: no trials are assigned until it is resumed.
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

    /// Whether results are still expected.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// A sweep as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepRow {
    /// The sweep's number, in the order of launch; 0 until it is stored.
    pub number: SweepNumber,
    /// The id by which users name it.
    pub id: SweepId,
    /// The sweep file.
    pub source: SpecSource,
    /// The dataset of the sweep.
    pub data: DataPin,
    /// The sweep's state when the row was read.
    pub state: SweepState,
    /// The sweep's share of the workers when the row was read.
    pub share: Share,
    /// Unix time of the launch, in seconds.
    pub launched_at: f64,
    /// The user who launched the sweep; empty if unknown.
    pub launched_by: String,
    /// Counts of events when the row was read.
    pub tallies: SweepTallies,
}

impl SweepRow {
    /// Hashes of the files that the sweep names.
    pub fn named_files(&self) -> impl Iterator<Item = FileHash> {
        self.source
            .files
            .iter()
            .map(|pin| pin.hash)
            .chain(self.data.hash.map(FileHash::from))
    }
}

/// Counts of events of a sweep that leave no row. The store counts them in the transactions in
/// which they happen, and the core when it learns of them, so that a restart forgets nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepTallies {
    /// Leases that ended with trials left, which were assigned again.
    pub lost_leases: u64,
    /// Duplicate results, which were compared with their rows.
    pub duplicates: u64,
    /// Duplicate results and audits that differed from their rows.
    pub mismatches: u64,
    /// Batches under an invalid fence.
    pub fenced: u64,
}

impl SweepTallies {
    /// Counts a batch by its numbers of `compared` results and of `different` ones among them.
    pub fn count_batch(&mut self, compared: u64, different: u64, fenced: bool) {
        self.duplicates += compared;
        self.mismatches += different;
        self.fenced += u64::from(fenced);
    }
}

/// The dataset that a sweep was pinned to at its launch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataPin {
    /// BLAKE3 hash of the canonical encoding; `None` if the sweep needs no data.
    pub hash: Option<DatasetHash>,
    /// Number of training images that are read from the dataset's files.
    pub train: u32,
    /// Description of the data.
    pub provenance: String,
}

/// Numbers of rows by outcome.
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

    /// Adds other counts.
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
    /// The second run yielded other bits, which is an alarm.
    Different,
    /// The second run failed, so there is no finding.
    Failed,
}

/// Numbers of audits by finding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Chosen trials with a row that can be compared.
    pub due: u64,
    /// Audits that yielded the same bits.
    pub same: u64,
    /// Audits that yielded other bits.
    pub different: u64,
    /// Audits that failed.
    pub failed: u64,
}

impl AuditCounts {
    /// Number of audits without a finding.
    pub fn remaining(&self) -> u64 {
        self.due - self.same - self.different - self.failed
    }

    /// Adds the counts of another sweep.
    pub fn merge(&mut self, other: Self) {
        self.due += other.due;
        self.same += other.same;
        self.different += other.different;
        self.failed += other.failed;
    }

    /// The number of audits with a finding.
    pub(crate) fn count_mut(&mut self, finding: Finding) -> &mut u64 {
        match finding {
            Finding::Same => &mut self.same,
            Finding::Different => &mut self.different,
            Finding::Failed => &mut self.failed,
        }
    }
}

/// An audit in the store: the trial, the process that computed its row, and the finding, if it was
/// made.
pub type RecordedAudit = (TrialKey, WorkerId, Option<Finding>);

/// A lease that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedLease {
    /// The lease's fencing token.
    pub fence: Fence,
    /// Whether the holder lost the lease with trials left, which are assigned again.
    pub lost: bool,
}

/// A lease as it is stored: trials of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The lease's fencing token.
    pub fence: Fence,
    /// Number of the sweep in the store.
    pub sweep: SweepNumber,
    /// Shape class of the trials.
    pub class: ShapeClass,
    /// The worker that holds the lease.
    pub worker: WorkerId,
    /// Numbers of the trials within the class.
    pub trials: IntervalSet,
    /// The process whose rows the lease audits; `None` if its trials have no rows yet.
    pub audits: Option<WorkerId>,
}

impl LeaseRow {
    /// Whether a trial is among those of the lease.
    pub fn holds(&self, index: TrialIndex) -> bool {
        self.class == index.class && self.trials.contains(index.number)
    }

    /// The trials of the lease.
    pub fn trial_indices(&self) -> impl Iterator<Item = TrialIndex> + '_ {
        self.trials.iter().map(|number| TrialIndex {
            class: self.class,
            number,
        })
    }
}
