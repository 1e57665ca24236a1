//! Work stealing near the end: trials that wait in one worker's queue move to another worker that
//! is idle.
//!
//! The coordinator asks the holder of a lease to return trials, because only the holder knows which
//! it has begun; returned trials are pending again. It chooses the lease with the longest expected
//! time left, and asks only if a trial would end sooner elsewhere. A request without an answer
//! lapses.

use std::time::Duration;

use ergodic_common::ids::{Fence, SweepNumber, WorkerId};
use ergodic_common::program::needs::TrialNeeds;
use ergodic_common::{Outcome, Spec, TrialKey};

use super::clock::CoreTime;
use super::effects::Effect;
use super::state::{Core, LeaseState};
use crate::interval_set::IntervalSet;
use crate::records::EndedLease;
use crate::stored_row::StoredRow;

/// Minimum time by which a trial must end earlier elsewhere to be moved, in seconds.
const MIN_GAIN_SECONDS: f64 = 2.0;
/// Time for which results may be under way: a worker that sent nothing for that long is not
/// considered slow.
const DELIVERY_ALLOWANCE: Duration = Duration::from_secs(2);

/// A forecast of the duration of a lease.
struct LeaseForecast {
    fence: Fence,
    /// Number of trials that the holder has probably not begun.
    waiting: u64,
    /// Expected seconds per trial on the holder.
    trial_seconds: f64,
    /// Number of trials that the holder can run at a time.
    slots: f64,
}

impl LeaseForecast {
    /// Expected seconds until the last trial begins.
    fn seconds_left(&self) -> f64 {
        self.waiting as f64 * self.trial_seconds / self.slots
    }
}

impl Core {
    /// Asks holders of leases to return trials, one request for each of these idle workers.
    pub(super) fn request_retractions(&mut self, idle: &[WorkerId], now: CoreTime) -> Vec<Effect> {
        // Each open request will serve one of the idle workers, so as many of them are skipped.
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

    /// The lease that idle workers should take trials from, and the number of trials for all of
    /// them.
    fn choose_lease_to_retract(
        &self,
        id: &WorkerId,
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

        let sweep = &self.sweeps[&self.leases[&longest.fence.lease].row.sweep];
        let there = longest.slots / longest.trial_seconds.max(1e-6);
        let here: f64 = idle
            .iter()
            .filter_map(|id| self.workers.get(id))
            .map(|worker| {
                let slots = worker.parallel_trials(&sweep.spec);
                f64::from(slots) / (usual * worker.pace).max(1e-6)
            })
            .sum();
        let part = (longest.waiting as f64 * here / (here + there)).ceil() as u64;
        Some((longest.fence, part.clamp(1, longest.waiting)))
    }

    /// The forecast of a lease that an idle worker could take trials from, and the usual seconds
    /// per trial.
    fn forecast_retraction(
        &self,
        id: &WorkerId,
        lease: &LeaseState,
        now: CoreTime,
    ) -> Option<(LeaseForecast, f64)> {
        let sweep = &self.sweeps[&lease.row.sweep];
        let is_own = lease.row.worker == *id || lease.row.audits.as_ref() == Some(id);
        if is_own || lease.next_retract_at > now || !sweep.is_running() {
            return None;
        }

        let usual = sweep.classes[lease.row.class.position()]
            .trial_seconds
            .filter(|_| self.can_work_on(id, sweep, now))?;
        let forecast = self.forecast_lease(lease, usual, now)?;

        let thief = self.workers.get(id)?;
        if self.count_fitting(id, sweep, thief.requested_slots.unwrap_or(1)) == 0 {
            return None;
        }

        let here = usual * thief.pace;
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
        let spec = &self.sweeps[&lease.row.sweep].spec;
        let slots = holder.parallel_trials(spec);
        // Trials that need more than a slot may all wait for those of earlier leases.
        let running = match spec.trial_needs() {
            TrialNeeds::ONE_SLOT => slots,
            _ => self.count_running(lease),
        };
        let silent = now
            .saturating_sub(lease.granted_at.max(holder.last_results_at))
            .saturating_sub(DELIVERY_ALLOWANCE);
        Some(LeaseForecast {
            fence: lease.row.fence,
            waiting: lease.row.trials.len().saturating_sub(u64::from(running)),
            trial_seconds: (usual * holder.pace).max(silent.as_secs_f64()),
            slots: f64::from(slots.max(1)),
        })
    }

    /// Handles the return of trials of a lease that the worker has not begun, perhaps none.
    pub fn on_trials_retracted(
        &mut self,
        worker: &WorkerId,
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

    /// Updates how fast a worker is relative to others, from the durations of its trials.
    pub(super) fn update_worker_pace(
        &mut self,
        id: &WorkerId,
        number: SweepNumber,
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
            let class = sweep.spec.grid.class_of(row.key.cell);
            if let Some(usual) = sweep.classes[class.position()]
                .trial_seconds
                .filter(|usual| *usual > 0.0)
            {
                worker.pace = 0.8 * worker.pace + 0.2 * row.seconds / usual;
            }
        }
    }
}

/// Removes those of these trials from a lease that are in it.
fn remove_unstarted(lease: &mut LeaseState, spec: &Spec, keys: &[TrialKey]) -> IntervalSet {
    let mut removed = IntervalSet::default();
    for key in keys.iter().filter(|key| spec.has_trial(**key)) {
        let index = spec.grid.locate_trial(*key);
        if lease.row.class == index.class && lease.row.trials.remove(index.number) {
            removed.insert(index.number, index.number + 1);
        }
    }

    removed
}
