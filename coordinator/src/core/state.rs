//! The core's state: sweeps, workers and leases.

use std::collections::{BTreeMap, HashMap};

use ergodic_common::TrialKey;

use crate::core::clock::{CoreTime, Timing};
use crate::core::effects::{GiveUpReversal, GivenUpTrial};
use crate::core::sweep::{Sweep, UnreadableSweep};
use crate::interval_set::IntervalSet;
use crate::records::{LeaseRow, WorkerId};

/// A worker, joined or remembered because of its leases.
#[derive(Debug)]
pub struct Worker {
    /// The worker's name, for people.
    pub name: String,
    /// The build of its program.
    pub build: String,
    /// Trials it runs at a time.
    pub slots: u32,
    /// Numerics classes it offers.
    pub numerics: Vec<String>,
    /// Whether its session is open.
    pub connected: bool,
    /// Whether its session broke off shortly after a sign of life: unless it comes back, it has crashed.
    pub(crate) session_broke_off: bool,
    /// When it was last heard of.
    pub last_seen_at: CoreTime,
    /// Trials running, with the numbers of their leases, as last reported.
    pub running: Vec<(u64, TrialKey)>,
    /// Trials granted and not begun, as last reported.
    pub queued: u64,
    /// Rows stored from it.
    pub stored_rows: u64,
    /// How much longer than usual it takes for a trial.
    pub(crate) pace: f64,
    /// When results last came from it.
    pub(crate) last_results_at: CoreTime,
    /// Idle slots of an unanswered request for a lease.
    pub(crate) requested_slots: Option<u32>,
    /// Sweeps it gave back because it cannot work on them, with when and why.
    pub(crate) unable_sweeps: BTreeMap<i64, (CoreTime, String)>,
}

#[derive(Debug)]
pub(crate) struct LeaseState {
    /// The lease as it is stored, with the trials that have no row yet.
    pub(crate) row: LeaseRow,
    /// All trials it was granted with.
    pub(crate) granted: IntervalSet,
    /// Granted trials that the worker gave back.
    pub(crate) retracted: IntervalSet,
    /// When its worker may next be asked to give trials back.
    pub(crate) next_retract_at: CoreTime,
    /// When it was granted, or found in the store.
    pub(crate) granted_at: CoreTime,
    pub(crate) expires_at: CoreTime,
    /// Virtual time of its sweep that each trial was booked with.
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

/// All that the coordinator knows and decides.
#[derive(Debug)]
pub struct Core {
    pub(crate) timing: Timing,
    pub(crate) epoch: u64,
    pub(crate) next_lease: u64,
    pub(crate) sweeps: BTreeMap<i64, Sweep>,
    /// Sweeps that cannot be read, by their numbers.
    pub(crate) unreadable: BTreeMap<i64, UnreadableSweep>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) leases: HashMap<u64, LeaseState>,
    /// The virtual time that sweeps of a priority have come to.
    pub(crate) virtual_clocks: BTreeMap<i32, f64>,
    /// Give-ups that could not be stored yet.
    pub(crate) unstored_give_ups: Vec<GivenUpTrial>,
    /// Give-ups that could not be taken back yet.
    pub(crate) unstored_reversals: Vec<GiveUpReversal>,
    /// The time of the latest tick.
    pub(crate) latest_time: CoreTime,
}

/// Workers that are remembered: twice as many as may have sessions.
pub(crate) const MAX_KNOWN_WORKERS: usize = 16_384;

impl Core {
    /// An empty core of the given epoch, whose leases are numbered from `next_lease` on.
    pub fn new(timing: Timing, epoch: u64, next_lease: u64) -> Self {
        Self {
            timing,
            epoch,
            next_lease,
            sweeps: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            workers: BTreeMap::new(),
            leases: HashMap::new(),
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
