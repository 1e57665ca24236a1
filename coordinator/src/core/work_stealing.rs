//! Near the end, trials that wait in one worker's queue are given to another that has nothing to do.
//!
//! A worker for which nothing is left may have trials that another one has not begun. The coordinator asks the holder of a lease,
//! which alone knows what it has begun, and what it gives back is pending again. It chooses the lease with the longest expected
//! time left, and asks only when a trial would end sooner elsewhere. A request that is not answered lapses.

use std::time::Duration;

use ergodic_common::ids::Fence;
use ergodic_common::{Outcome, Spec, TrialKey};

use super::clock::CoreTime;
use super::effects::Effect;
use super::state::{Core, LeaseState};
use crate::interval_set::IntervalSet;
use crate::records::{EndedLease, WorkerId};
use crate::stored_row::StoredRow;

/// A trial is moved where it should end earlier by at least this time, in seconds.
const MIN_GAIN_SECONDS: f64 = 2.0;
/// How long results may be under way: a worker from which nothing came for that time is not slow.
const DELIVERY_ALLOWANCE: Duration = Duration::from_secs(2);

/// A forecast of how long a lease will take.
struct LeaseForecast {
    fence: Fence,
    /// Trials that its holder can hardly have begun.
    waiting: u64,
    /// Seconds that it takes for a trial.
    trial_seconds: f64,
    /// Slots of its holder.
    slots: f64,
}

impl LeaseForecast {
    /// When its last trial should begin, in seconds from now.
    fn seconds_left(&self) -> f64 {
        self.waiting as f64 * self.trial_seconds / self.slots
    }
}

impl Core {
    /// Asks holders of leases to give trials back, one for each of these workers, for which nothing else is there.
    pub(super) fn request_retractions(&mut self, idle: &[WorkerId], now: CoreTime) -> Vec<Effect> {
        // Workers for which a question is open already wait for its answer.
        let open = self
            .leases
            .values()
            .filter(|lease| lease.next_retract_at > now)
            .count();

        let mut effects = Vec::new();
        for id in idle.iter().skip(open) {
            let Some((fence, trials)) = self.choose_lease_to_retract(id, idle, now) else {
                continue;
            };
            let Some(lease) = self.leases.get_mut(&fence.lease) else {
                continue;
            };
            lease.next_retract_at = now + self.timing.lease_ttl / 3;

            effects.push(Effect::Retract {
                worker: lease.row.worker.clone(),
                fence,
                trials,
            });
        }

        effects
    }

    /// The lease that an idle worker should have a part of, and how many trials all idle workers should have of it.
    fn choose_lease_to_retract(
        &self,
        id: &str,
        idle: &[WorkerId],
        now: CoreTime,
    ) -> Option<(Fence, u64)> {
        let (longest, usual) = self
            .leases
            .values()
            .filter_map(|lease| self.forecast_retraction(id, lease, now))
            .max_by(|(a, _), (b, _)| {
                a.seconds_left()
                    .total_cmp(&b.seconds_left())
                    .then(b.fence.cmp(&a.fence))
            })?;

        let there = longest.slots / longest.trial_seconds.max(1e-6);
        let here: f64 = idle
            .iter()
            .filter_map(|id| self.workers.get(id))
            .map(|worker| f64::from(worker.slots) / (usual * worker.pace).max(1e-6))
            .sum();
        let part = (longest.waiting as f64 * here / (here + there)).ceil() as u64;
        Some((longest.fence, part.clamp(1, longest.waiting)))
    }

    /// The forecast of a lease that an idle worker should have a part of, with the usual seconds of a trial of it.
    fn forecast_retraction(
        &self,
        id: &str,
        lease: &LeaseState,
        now: CoreTime,
    ) -> Option<(LeaseForecast, f64)> {
        let sweep = &self.sweeps[&lease.row.sweep];
        let is_own = lease.row.worker == id || lease.row.audits.as_deref() == Some(id);
        if is_own || lease.next_retract_at > now || !sweep.is_running() {
            return None;
        }

        let usual = sweep.classes[lease.row.class as usize]
            .trial_seconds
            .filter(|_| self.can_work_on(id, sweep, now))?;
        let forecast = self.forecast_lease(lease, usual, now)?;

        let here = usual * self.workers.get(id)?.pace;
        let is_worth_it = forecast.waiting > 0
            && forecast.seconds_left() + forecast.trial_seconds > here + MIN_GAIN_SECONDS;
        is_worth_it.then_some((forecast, usual))
    }

    fn forecast_lease(
        &self,
        lease: &LeaseState,
        usual: f64,
        now: CoreTime,
    ) -> Option<LeaseForecast> {
        let holder = self
            .workers
            .get(&lease.row.worker)
            .filter(|worker| worker.connected)?;
        let silent = now
            .saturating_sub(lease.granted_at.max(holder.last_results_at))
            .saturating_sub(DELIVERY_ALLOWANCE);
        Some(LeaseForecast {
            fence: lease.row.fence,
            waiting: lease
                .row
                .trials
                .len()
                .saturating_sub(u64::from(holder.slots)),
            trial_seconds: (usual * holder.pace).max(silent.as_secs_f64()),
            slots: f64::from(holder.slots.max(1)),
        })
    }

    /// A worker gives back trials of a lease that it has not begun, perhaps none.
    pub fn on_trials_retracted(
        &mut self,
        worker: &str,
        fence: Fence,
        keys: &[TrialKey],
        now: CoreTime,
    ) -> Vec<Effect> {
        if !self.holds_lease(worker, fence) {
            return Vec::new();
        }

        let Some(lease) = self.leases.get_mut(&fence.lease) else {
            return Vec::new();
        };
        let Some(sweep) = self.sweeps.get_mut(&lease.row.sweep) else {
            return Vec::new();
        };

        let back = remove_unstarted(lease, &sweep.spec, keys);
        if back.is_empty() {
            return Vec::new();
        }

        lease.next_retract_at = now;
        lease.retracted.insert_all(&back);
        sweep
            .fair_share
            .refund_vruntime(lease.charge_per_trial * back.len() as f64);
        let is_empty = lease.row.trials.is_empty();

        let mut rest = lease.row.clone();
        rest.trials = lease.granted.clone();
        lease
            .retracted
            .iter()
            .for_each(|n| _ = rest.trials.remove(n));

        sweep.take_back_trials(&rest, back);
        let mut effects = if is_empty {
            self.leases.remove(&fence.lease);
            vec![Effect::EndLeases(vec![EndedLease { fence, lost: false }])]
        } else {
            vec![Effect::ShrinkLease(rest)]
        };
        effects.extend(self.assign_leases(now));

        effects
    }

    /// Learns from rows how much longer than usual a worker takes for a trial.
    pub(super) fn update_worker_pace(
        &mut self,
        id: &str,
        number: i64,
        rows: &[StoredRow],
        now: CoreTime,
    ) {
        let (Some(sweep), Some(worker)) = (self.sweeps.get(&number), self.workers.get_mut(id))
        else {
            return;
        };
        worker.last_results_at = now;

        for row in rows
            .iter()
            .filter(|row| !matches!(row.outcome, Outcome::Failed { .. }))
        {
            let (class, _) = sweep.spec.grid.locate_trial(row.key);
            if let Some(usual) = sweep.classes[class as usize]
                .trial_seconds
                .filter(|usual| *usual > 0.0)
            {
                worker.pace = 0.8 * worker.pace + 0.2 * row.seconds / usual;
            }
        }
    }
}

/// Takes trials out of a lease, as far as they are in it.
fn remove_unstarted(lease: &mut LeaseState, spec: &Spec, keys: &[TrialKey]) -> IntervalSet {
    let mut removed = IntervalSet::default();
    for key in keys.iter().filter(|key| spec.has_trial(**key)) {
        let (class, n) = spec.grid.locate_trial(*key);
        if class == lease.row.class && lease.row.trials.remove(n) {
            removed.insert(n, n + 1);
        }
    }

    removed
}
