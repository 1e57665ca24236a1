//! The core's state: sweeps, workers and leases.

use std::collections::BTreeMap;

use ergodic_common::ids::{Epoch, LeaseId, SweepNumber};

use crate::core::clock::{CoreTime, Timing};
use crate::core::effects::{GiveUpReversal, GivenUpTrial};
use crate::core::lease_table::LeaseTable;
use crate::core::roster::Roster;
use crate::core::sweep::{Sweep, UnreadableSweep};

pub(crate) use crate::core::lease_table::LeaseState;
pub use crate::core::worker_state::{Worker, WorkerSupply};

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

/// Maximum number of remembered workers, beyond those in session.
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
