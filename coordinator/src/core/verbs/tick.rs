//! The passing of time: leases expire, workers are forgotten, sweeps complete.

use std::time::Duration;

use ergodic_common::ids::{Fence, WorkerId};

use crate::core::sweep::Sweep;
use crate::core::{Core, CoreTime, Effect};
use crate::records::SweepState;
use ergodic_common::ids::SweepNumber;

/// Delay of a tick that shows that the coordinator itself was stalled.
pub(crate) const STALL_THRESHOLD: Duration = Duration::from_secs(1);

impl Core {
    /// Time passed: ends leases that were not renewed for their time to live, counts crashes, and tries again what was not stored.
    pub fn on_tick(&mut self, now: CoreTime) -> Vec<Effect> {
        self.make_up_for_stall(now);
        self.latest_time = now;

        let expired = self.find_expired_leases(now);
        let mut effects = self.build_revocations(&expired);
        // A worker that let a lease expire gets no other one before it requests work again.
        for fence in &expired {
            let holder = &self.leases[fence.lease].row.worker;
            self.workers
                .edit_presence(&holder.clone(), |worker| worker.requested_slots = None);
        }

        effects.extend(self.retry_unstored());
        effects.extend(self.record_crashes(&expired));
        effects.extend(self.end_leases(&expired, true));
        self.forget_silent_workers(now);

        self.sweeps
            .values_mut()
            .for_each(|sweep| sweep.completion_rate.count_trials(0, now));
        effects.extend(self.assign_leases(now));
        effects.extend(self.complete_open_sweeps(now));
        effects
    }

    /// Extends all time limits by the time for which the coordinator was stalled, with its machine
    /// or its disk, and could receive nothing.
    fn make_up_for_stall(&mut self, now: CoreTime) {
        let held_up = now.saturating_sub(self.latest_time);
        if held_up > STALL_THRESHOLD {
            self.leases
                .values_mut()
                .for_each(|lease| lease.expires_at += held_up);
        }
    }

    fn find_expired_leases(&self, now: CoreTime) -> Vec<Fence> {
        let mut expired: Vec<Fence> = self
            .leases
            .values()
            .filter(|lease| lease.expires_at <= now)
            .map(|lease| lease.row.fence)
            .collect();
        expired.sort_unstable();
        expired
    }

    /// Repeats give-ups and reversals that could not be stored.
    fn retry_unstored(&mut self) -> Vec<Effect> {
        let given_up = std::mem::take(&mut self.unstored_give_ups);
        let mut effects: Vec<Effect> = given_up
            .into_iter()
            .filter(|given_up| self.is_still_given_up(given_up))
            .map(Effect::GiveUp)
            .collect();

        let reversals = std::mem::take(&mut self.unstored_reversals);
        effects.extend(reversals.into_iter().map(Effect::RevertGiveUp));
        effects
    }

    /// Forgets workers that hold no lease and have been absent for twice the lease TTL.
    fn forget_silent_workers(&mut self, now: CoreTime) {
        let limit = 2 * self.timing.lease_ttl;
        let leases = &self.leases;
        self.workers.retain(|id, worker| {
            worker.connected
                || now.saturating_sub(worker.last_seen_at) <= limit
                || leases.has_worker(id)
        });
    }

    /// Completes sweeps with nothing left to run, for example because the workers that could run
    /// the last audits are gone.
    fn complete_open_sweeps(&mut self, now: CoreTime) -> Vec<Effect> {
        let open: Vec<SweepNumber> = self
            .sweeps
            .values()
            .filter(|sweep| sweep.state.is_open())
            .map(|sweep| sweep.number)
            .collect();
        open.into_iter()
            .flat_map(|sweep| self.complete_if_done(sweep, now))
            .collect()
    }

    pub(crate) fn complete_if_done(
        &mut self,
        sweep_number: SweepNumber,
        now: CoreTime,
    ) -> Vec<Effect> {
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

    /// Whether an open audit is running, or could run on a worker that is connected or may still
    /// come back.
    pub(crate) fn has_possible_audits(&self, sweep: &Sweep, now: CoreTime) -> bool {
        let audits = &sweep.audits;
        if audits.counts.remaining() == 0 {
            return false;
        }

        // An audit that was given up counts until its failure is stored.
        let given_up =
            audits.quarantine.waiting_count() > 0 && audits.quarantine.next_trial().is_none();

        audits.leased > 0
            || given_up
            || now < sweep.auditors_expected_until
            || audits
                .waiting_origins()
                .any(|origin| self.has_possible_auditor(sweep, origin, now))
    }

    /// Whether there may be a worker other than the process whose rows are audited.
    fn has_possible_auditor(&self, sweep: &Sweep, origin: &WorkerId, now: CoreTime) -> bool {
        self.workers
            .iter()
            .filter(|(id, _)| *id != origin)
            .filter(|(_, worker)| {
                worker.connected || now.saturating_sub(worker.last_seen_at) <= self.timing.lease_ttl
            })
            .any(|(_, worker)| worker.is_able_to_run(sweep, now))
    }
}
