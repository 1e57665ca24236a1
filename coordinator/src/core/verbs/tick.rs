//! Time passes: leases expire, workers are forgotten, sweeps complete.

use std::collections::HashMap;
use std::time::Duration;

use crate::core::state::LeaseState;
use crate::core::sweep::Sweep;
use crate::core::{Core, CoreTime, Effect, Worker};
use crate::records::{Fence, SweepState, WorkerId};

/// A tick this late means that the coordinator itself was held up.
pub(crate) const STALL_THRESHOLD: Duration = Duration::from_secs(1);

impl Core {
    /// Time passed: ends the leases of silent workers.
    pub fn on_tick(&mut self, now: CoreTime) -> Vec<Effect> {
        // A coordinator that was itself held up, with its machine or its disk, heard nobody: that time does not count.
        let held_up = now.saturating_sub(self.latest_time);
        if held_up > STALL_THRESHOLD {
            self.leases
                .values_mut()
                .for_each(|lease| lease.expires_at += held_up);
        }

        self.latest_time = now;
        let mut expired: Vec<Fence> = self
            .leases
            .values()
            .filter(|lease| lease.expires_at <= now)
            .map(|lease| lease.row.fence)
            .collect();
        expired.sort_unstable();

        let mut effects = self.build_revocations(&expired);
        // Whoever let a lease expire gets no other before it speaks up again.
        for fence in &expired {
            let holder = &self.leases[&fence.lease].row.worker;
            self.workers
                .entry(holder.clone())
                .and_modify(|worker| worker.requested_slots = None);
        }

        let verdicts = std::mem::take(&mut self.unstored_give_ups);
        effects.extend(
            verdicts
                .into_iter()
                .filter(|verdict| self.is_still_given_up(verdict))
                .map(Effect::GiveUp),
        );

        effects.extend(
            std::mem::take(&mut self.unstored_reversals)
                .into_iter()
                .map(Effect::RevertGiveUp),
        );
        effects.extend(self.record_crashes(&expired));

        effects.extend(self.end_leases(&expired, true));
        let limit = 2 * self.timing.lease_ttl;
        let idle = |id: &WorkerId, w: &Worker, leases: &HashMap<u64, LeaseState>| {
            !w.connected
                && now.saturating_sub(w.last_seen_at) > limit
                && !leases.values().any(|l| l.row.worker == *id)
        };

        let leases = &self.leases;
        self.workers.retain(|id, worker| !idle(id, worker, leases));
        self.sweeps
            .values_mut()
            .for_each(|sweep| sweep.completion_rate.count_trials(0, now));
        effects.extend(self.assign_leases(now));

        // Whoever might have made the last audits may have gone.
        let open: Vec<i64> = self
            .sweeps
            .values()
            .filter(|s| s.state.is_open())
            .map(|s| s.number)
            .collect();
        effects.extend(
            open.into_iter()
                .flat_map(|sweep| self.complete_if_done(sweep, now)),
        );

        effects
    }

    pub(crate) fn complete_if_done(&mut self, sweep_number: i64, now: CoreTime) -> Vec<Effect> {
        let sweep = &self.sweeps[&sweep_number];
        let goes_on =
            sweep.counts.done() < sweep.total_trials() || self.has_possible_audits(sweep, now);
        if !sweep.state.is_open() || sweep.withheld.is_some() || goes_on {
            return Vec::new();
        }

        self.sweeps
            .entry(sweep_number)
            .and_modify(|sweep| sweep.state = SweepState::Completed);
        vec![Effect::SetSweepState(sweep_number, SweepState::Completed)]
    }

    /// Whether an audit is left that somebody makes, or that a worker could make which is there or may yet come back.
    pub(crate) fn has_possible_audits(&self, sweep: &Sweep, now: CoreTime) -> bool {
        let audits = &sweep.audits;
        if audits.counts.remaining() == 0 {
            return false;
        }

        // Of one that was given up, the failure is yet to be stored.
        let given_up =
            audits.quarantine.waiting_count() > 0 && audits.quarantine.next_trial().is_none();
        let there = |worker: &Worker| {
            worker.connected || now.saturating_sub(worker.last_seen_at) <= self.timing.lease_ttl
        };
        let could = |origin: &WorkerId| {
            let mut others = self
                .workers
                .iter()
                .filter(|(id, worker)| *id != origin && there(worker));
            others.any(|(_, worker)| worker.is_able_to_run(sweep, now))
        };

        audits.leased > 0
            || given_up
            || now < sweep.auditors_expected_until
            || audits.waiting_origins().any(could)
    }
}
