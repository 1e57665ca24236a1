//! The core's state: sweeps, workers and leases.

use std::collections::BTreeMap;

use ergodic_common::TrialKey;
use ergodic_common::ids::{Epoch, LeaseId, SweepNumber};

use crate::core::clock::{CoreTime, Timing};
use crate::core::effects::{GiveUpReversal, GivenUpTrial};
use crate::core::lease_table::LeaseTable;
use crate::core::roster::Roster;
use crate::core::sweep::{Sweep, UnreadableSweep};
use crate::experiments::KnownExperiment;
use crate::interval_set::IntervalSet;
use crate::records::LeaseRow;

/// What the programs on a worker can take besides slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerSupply {
    /// Bytes of memory; `None` if the worker knows no limit.
    pub memory: Option<u64>,
    /// Number of GPUs.
    pub gpus: u32,
}

/// A worker that has joined, or is remembered because of its leases.
#[derive(Debug)]
pub struct Worker {
    /// The worker's name, for people.
    pub name: String,
    /// The build of the worker's program.
    pub build: String,
    /// Number of trials at a time.
    pub slots: u32,
    /// Numerics classes that the worker offers.
    pub numerics: Vec<String>,
    /// Whether the worker runs programs.
    pub programs: bool,
    /// The experiments of the worker program.
    pub experiments: Vec<KnownExperiment>,
    /// What programs can take besides slots; `None` for a worker that does not tell.
    pub supply: Option<WorkerSupply>,
    /// Whether the worker's session is open.
    pub connected: bool,
    /// Whether its session broke off shortly after a sign of life: unless it comes back, it has crashed.
    pub(crate) session_broke_off: bool,
    /// Time of the last message from the worker.
    pub last_seen_at: CoreTime,
    /// Running trials with the numbers of their leases, as last reported.
    pub running: Vec<(LeaseId, TrialKey)>,
    /// Number of granted trials that have not begun, as last reported.
    pub queued: u64,
    /// Number of rows stored from the worker.
    pub stored_rows: u64,
    /// Duration of a trial on this worker, relative to the usual one.
    pub(crate) pace: f64,
    /// Time of the last results from the worker.
    pub(crate) last_results_at: CoreTime,
    /// Idle slots of an unanswered request for a lease.
    pub(crate) requested_slots: Option<u32>,
    /// Sweeps that the worker could not run, with time and reason.
    pub(crate) unable_sweeps: BTreeMap<SweepNumber, (CoreTime, String)>,
}

#[derive(Debug)]
pub(crate) struct LeaseState {
    /// The lease as stored, with its trials that have no row yet.
    pub(crate) row: LeaseRow,
    /// All trials that were granted.
    pub(crate) granted: IntervalSet,
    /// Granted trials that the worker returned.
    pub(crate) retracted: IntervalSet,
    /// Earliest time of the next request to return trials.
    pub(crate) next_retract_at: CoreTime,
    /// Time at which the lease was granted, or found in the store.
    pub(crate) granted_at: CoreTime,
    pub(crate) expires_at: CoreTime,
    /// Virtual time that the sweep was charged per trial.
    pub(crate) charge_per_trial: f64,
}

impl LeaseState {
    pub(crate) fn from_row(
        row: LeaseRow,
        granted: IntervalSet,
        granted_at: CoreTime,
        expires_at: CoreTime,
        charge_per_trial: f64,
    ) -> Self {
        Self {
            row,
            granted,
            retracted: IntervalSet::default(),
            next_retract_at: CoreTime::ZERO,
            granted_at,
            expires_at,
            charge_per_trial,
        }
    }
}

/// The state of all sweeps, workers and leases, and the decisions over it.
#[derive(Debug)]
pub struct Core {
    pub(crate) timing: Timing,
    pub(crate) epoch: Epoch,
    pub(crate) next_lease: LeaseId,
    pub(crate) sweeps: BTreeMap<SweepNumber, Sweep>,
    /// Sweeps that this program cannot read, by number.
    pub(crate) unreadable: BTreeMap<SweepNumber, UnreadableSweep>,
    pub(crate) workers: Roster,
    pub(crate) leases: LeaseTable,
    /// Earliest time of the next search for leases to take trials from.
    pub(crate) next_retraction_search: CoreTime,
    /// The virtual time that the sweeps of each priority have reached.
    pub(crate) virtual_clocks: BTreeMap<i32, f64>,
    /// Give-ups that could not be stored yet.
    pub(crate) unstored_give_ups: Vec<GivenUpTrial>,
    /// Reversals of give-ups that could not be stored yet.
    pub(crate) unstored_reversals: Vec<GiveUpReversal>,
    /// The time of the latest tick.
    pub(crate) latest_time: CoreTime,
}

/// Maximum number of remembered workers: twice as many as may have sessions.
pub(crate) const MAX_KNOWN_WORKERS: usize = 16_384;

impl Core {
    /// Creates an empty core of the given epoch, whose leases are numbered from `next_lease` on.
    pub fn new(timing: Timing, epoch: Epoch, next_lease: LeaseId) -> Self {
        Self {
            timing,
            epoch,
            next_lease,
            sweeps: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            workers: Roster::default(),
            leases: LeaseTable::default(),
            next_retraction_search: CoreTime::ZERO,
            virtual_clocks: BTreeMap::new(),
            unstored_give_ups: Vec::new(),
            unstored_reversals: Vec::new(),
            latest_time: CoreTime::ZERO,
        }
    }

    /// The time of the latest tick.
    pub fn latest_time(&self) -> CoreTime {
        self.latest_time
    }
}
