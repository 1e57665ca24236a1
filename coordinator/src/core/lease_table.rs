//! The leases in force, found by number, by worker, and by sweep and class.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Index;
use std::time::Duration;

use ergodic_common::ids::{Fence, LeaseId, ShapeClass, SweepNumber, WorkerId};

use super::clock::CoreTime;
use super::step_count::count_step;
use crate::interval_set::IntervalSet;
use crate::records::LeaseRow;

/// Number of leases and idle workers that are all looked at on each event.
const ALWAYS_SCANNED: usize = 100;
/// Pause for each further one. Looking at it takes a hundredth of that.
const PAUSE_FOR_EACH: Duration = Duration::from_micros(10);

/// Time for which what was found by looking at so many leases and idle workers stands. It bounds the share of time that such scans take.
pub(super) fn pause_after_scan(scanned: usize) -> Duration {
    let excess = scanned.saturating_sub(ALWAYS_SCANNED);
    PAUSE_FOR_EACH * u32::try_from(excess).unwrap_or(u32::MAX)
}

/// Numbers of leases in the order of the grants.
type LeaseIds = BTreeSet<LeaseId>;

/// A lease in force.
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

/// The leases in force. Worker, sweep and class of a lease never change.
#[derive(Debug, Default)]
pub(crate) struct LeaseTable {
    leases: HashMap<LeaseId, LeaseState>,
    by_worker: HashMap<WorkerId, LeaseIds>,
    by_class: BTreeMap<(SweepNumber, ShapeClass), LeaseIds>,
    /// Leases whose last trial was removed, and that are still to be ended.
    emptied: LeaseIds,
}

impl LeaseTable {
    /// Adds a lease.
    pub(crate) fn insert(&mut self, lease: LeaseState) {
        let id = lease.row.fence.lease;
        let class = (lease.row.sweep, lease.row.class);
        self.by_class.entry(class).or_default().insert(id);
        self.by_worker
            .entry(lease.row.worker.clone())
            .or_default()
            .insert(id);
        self.leases.insert(id, lease);
    }

    /// Removes a lease.
    pub(crate) fn remove(&mut self, id: LeaseId) -> Option<LeaseState> {
        let lease = self.leases.remove(&id)?;
        let class = (lease.row.sweep, lease.row.class);
        remove_id(self.by_class.entry(class), id);
        let worker = self.by_worker.get_mut(&lease.row.worker);
        if worker.is_some_and(|ids| ids.remove(&id) && ids.is_empty()) {
            self.by_worker.remove(&lease.row.worker);
        }
        self.emptied.remove(&id);
        Some(lease)
    }

    /// Removes all leases of a sweep.
    pub(crate) fn remove_sweep(&mut self, sweep: SweepNumber) {
        let ids: Vec<LeaseId> = self.of_sweep(sweep).map(|l| l.row.fence.lease).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// The lease with a number.
    pub(crate) fn get(&self, id: LeaseId) -> Option<&LeaseState> {
        self.leases.get(&id)
    }

    /// The lease with a number, to change what is no part of an index. Trials are removed by [`remove_trial`](Self::remove_trial).
    pub(crate) fn get_mut(&mut self, id: LeaseId) -> Option<&mut LeaseState> {
        self.leases.get_mut(&id)
    }

    /// Number of leases.
    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    /// All leases.
    pub(crate) fn values(&self) -> impl Iterator<Item = &LeaseState> {
        self.leases.values().inspect(|_| count_step())
    }

    /// All leases, to change what is no part of an index.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut LeaseState> {
        self.leases.values_mut().inspect(|_| count_step())
    }

    /// The leases of a worker, in the order of the grants.
    pub(crate) fn of_worker(&self, worker: &WorkerId) -> impl Iterator<Item = &LeaseState> {
        let ids = self.by_worker.get(worker).into_iter().flatten();
        self.look_at(ids)
    }

    /// Whether a worker holds a lease.
    pub(crate) fn has_worker(&self, worker: &WorkerId) -> bool {
        self.by_worker.contains_key(worker)
    }

    /// The leases of a sweep, by class and in the order of the grants.
    pub(crate) fn of_sweep(&self, sweep: SweepNumber) -> impl Iterator<Item = &LeaseState> {
        let first = (sweep, ShapeClass(0));
        let last = (sweep, ShapeClass(u32::MAX));
        let ids = self.by_class.range(first..=last).flat_map(|(_, ids)| ids);
        self.look_at(ids)
    }

    /// The leases of a class of a sweep, in the order of the grants.
    pub(crate) fn of_class(
        &self,
        sweep: SweepNumber,
        class: ShapeClass,
    ) -> impl Iterator<Item = &LeaseState> {
        let ids = self.by_class.get(&(sweep, class)).into_iter().flatten();
        self.look_at(ids)
    }

    /// The leases with these numbers, one after another.
    fn look_at<'a>(
        &'a self,
        ids: impl Iterator<Item = &'a LeaseId>,
    ) -> impl Iterator<Item = &'a LeaseState> {
        ids.inspect(|_| count_step()).map(|id| &self.leases[id])
    }

    /// Removes a trial from a lease; whether it was in there.
    pub(crate) fn remove_trial(&mut self, id: LeaseId, number: u64) -> bool {
        let Some(lease) = self.leases.get_mut(&id) else {
            return false;
        };
        let is_removed = lease.row.trials.remove(number);
        if lease.row.trials.is_empty() {
            self.emptied.insert(id);
        }
        is_removed
    }

    /// The leases that became empty and are still to be ended.
    pub(crate) fn take_emptied(&mut self) -> Vec<Fence> {
        let ids = std::mem::take(&mut self.emptied);
        ids.iter().map(|id| self.leases[id].row.fence).collect()
    }

    /// Checks that the indexes name each lease once.
    ///
    /// # Errors
    /// Names the index that does not.
    pub(super) fn check_indexes(&self) -> Result<(), String> {
        let of_workers = self.by_worker.keys().flat_map(|id| self.of_worker(id));
        let is_wrong = of_workers.count() != self.leases.len()
            || self.leases.iter().any(|(id, lease)| {
                !self
                    .by_worker
                    .get(&lease.row.worker)
                    .is_some_and(|ids| ids.contains(id))
            });
        if is_wrong {
            return Err("the index of leases by worker is wrong".to_owned());
        }

        let named: usize = self.by_class.values().map(BTreeSet::len).sum();
        let is_wrong = named != self.leases.len()
            || self.leases.iter().any(|(id, lease)| {
                let class = (lease.row.sweep, lease.row.class);
                !self
                    .by_class
                    .get(&class)
                    .is_some_and(|ids| ids.contains(id))
            });
        match is_wrong {
            true => Err("the index of leases by class is wrong".to_owned()),
            false => Ok(()),
        }
    }
}

/// Removes a number from one set of an index, and the set if it is empty then.
fn remove_id<K: Ord>(entry: std::collections::btree_map::Entry<'_, K, LeaseIds>, id: LeaseId) {
    if let std::collections::btree_map::Entry::Occupied(mut ids) = entry {
        ids.get_mut().remove(&id);
        if ids.get().is_empty() {
            ids.remove();
        }
    }
}

impl Index<LeaseId> for LeaseTable {
    type Output = LeaseState;

    fn index(&self, id: LeaseId) -> &LeaseState {
        &self.leases[&id]
    }
}
