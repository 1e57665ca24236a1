//! Leases: recovery, release, expiry, revocation.

use std::collections::BTreeMap;

use ergodic_common::ids::{Fence, LeaseId, TrialIndex, WorkerId};

use crate::core::state::LeaseState;
use crate::core::{Core, CoreTime, Effect};
use crate::records::{EndedLease, LeaseRow};
use ergodic_common::ids::SweepNumber;

impl Core {
    /// Adds a lease that the store had at a restart, with a fresh TTL.
    pub fn on_recovered_lease(&mut self, mut row: LeaseRow, now: CoreTime) -> Vec<Effect> {
        let fence = row.fence;
        let Some(sweep) = self
            .sweeps
            .get_mut(&row.sweep)
            .filter(|s| s.state.is_open() && s.withheld.is_none())
        else {
            return end_recovered(fence);
        };

        let granted = row.trials.clone();
        row.trials = sweep.take_recorded_trials(&row);

        if row.trials.is_empty() {
            return end_recovered(fence);
        }

        let expires = now + self.timing.lease_ttl;
        let lease = LeaseState::from_row(row, granted, now, expires, 0.0);
        self.leases.insert(lease);

        Vec::new()
    }

    /// Handles that a worker releases the rest of a lease, with a reason if it cannot run the
    /// sweep.
    pub fn on_lease_released(
        &mut self,
        worker: &WorkerId,
        fence: Fence,
        why: String,
        now: CoreTime,
    ) -> Vec<Effect> {
        if !self.holds_lease(worker, fence) {
            return Vec::new();
        }

        let sweep = self.leases[fence.lease].row.sweep;
        if let Some(worker) = self.workers.get_mut(worker).filter(|_| !why.is_empty()) {
            worker.unable_sweeps.insert(sweep, (now, why));
        }

        let mut effects = self.end_leases(&[fence], false);
        effects.extend(self.assign_leases(now));
        effects
    }

    /// Undoes a lease that could not be stored. The request stays open, and a later tick answers
    /// it.
    pub fn on_grant_failed(&mut self, lease: &LeaseRow) -> Vec<Effect> {
        self.workers.edit_presence(&lease.worker, |worker| {
            worker.requested_slots.get_or_insert(1);
        });
        self.end_leases(&[lease.fence], false)
    }

    /// The worker that holds the lease, if it is in force.
    pub fn find_lease_holder(&self, fence: Fence) -> Option<&WorkerId> {
        let lease = self.leases.get(fence.lease);
        lease
            .filter(|lease| lease.row.fence == fence)
            .map(|lease| &lease.row.worker)
    }

    /// Whether a worker holds the lease.
    pub fn holds_lease(&self, worker: &WorkerId, fence: Fence) -> bool {
        self.leases
            .get(fence.lease)
            .is_some_and(|l| l.row.fence == fence && l.row.worker == *worker)
    }

    pub(crate) fn worker_fences(
        &self,
        worker: &WorkerId,
        pick: impl Fn(Fence) -> bool,
    ) -> Vec<Fence> {
        let of_worker = self.leases.of_worker(worker).map(|l| l.row.fence);
        let mut fences: Vec<Fence> = of_worker.filter(|fence| pick(*fence)).collect();
        fences.sort_unstable();
        fences
    }

    pub(crate) fn build_revocations(&self, fences: &[Fence]) -> Vec<Effect> {
        self.group_by_worker(fences)
            .into_iter()
            .map(|(worker, fences)| Effect::RevokeLeases(worker, fences))
            .collect()
    }

    /// Groups leases by the workers that hold them.
    pub(crate) fn group_by_worker(&self, fences: &[Fence]) -> BTreeMap<WorkerId, Vec<Fence>> {
        let mut by_worker: BTreeMap<WorkerId, Vec<Fence>> = BTreeMap::new();
        for fence in fences {
            by_worker
                .entry(self.leases[fence.lease].row.worker.clone())
                .or_default()
                .push(*fence);
        }

        by_worker
    }

    /// Ends leases and makes their remaining trials pending. With `lost`, these count as re-leased.
    pub(crate) fn end_leases(&mut self, fences: &[Fence], lost: bool) -> Vec<Effect> {
        let mut ended = Vec::new();
        for fence in fences {
            let Some(lease) = self.leases.remove(fence.lease) else {
                continue;
            };
            self.refund_lease(&lease);
            let lost = lost && !lease.row.trials.is_empty();
            ended.push(EndedLease {
                fence: *fence,
                lost,
            });

            let sweep = self
                .sweeps
                .get_mut(&lease.row.sweep)
                .expect("a lease's sweep is kept as long as the lease");
            let left = lease.row.trials.clone();
            sweep.take_back_trials(&lease.row, left);

            sweep.tallies.lost_leases += u64::from(lost);
        }

        if ended.is_empty() {
            Vec::new()
        } else {
            vec![Effect::EndLeases(ended)]
        }
    }

    /// Removes trials with a row from the leases that hold them, and ends leases that become empty.
    pub(crate) fn remove_from_leases(
        &mut self,
        sweep_number: SweepNumber,
        fence: Fence,
        trials: &[TrialIndex],
    ) -> Vec<Effect> {
        let sweep = self
            .sweeps
            .get_mut(&sweep_number)
            .expect("the caller has looked it up");
        let own = self
            .leases
            .get(fence.lease)
            .filter(|lease| lease.row.fence == fence && lease.row.audits.is_none());
        let own_class = own.map(|lease| lease.row.class);

        for index in trials {
            let is_removed = own_class == Some(index.class)
                && self.leases.remove_trial(fence.lease, index.number);
            if is_removed {
                sweep.leased -= 1;
                continue;
            }

            let of_class = self.leases.of_class(sweep_number, index.class);
            let holders =
                of_class.filter(|lease| lease.row.audits.is_none() && lease.row.holds(*index));
            let holders: Vec<LeaseId> = holders.map(|lease| lease.row.fence.lease).collect();
            for holder in holders {
                sweep.leased -= u64::from(self.leases.remove_trial(holder, index.number));
            }
        }

        self.end_empty_leases()
    }

    pub(crate) fn end_empty_leases(&mut self) -> Vec<Effect> {
        let emptied = self.leases.take_emptied();
        self.end_leases(&emptied, false)
    }
}

fn end_recovered(fence: Fence) -> Vec<Effect> {
    vec![Effect::EndLeases(vec![EndedLease { fence, lost: false }])]
}
