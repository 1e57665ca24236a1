//! Work stealing near the end: trials that wait in one worker's queue move to another worker that
//! is idle.
//!
//! The coordinator asks the holder of a lease to return trials, because only the holder knows which
//! it has begun; returned trials are pending again. It chooses the lease with the longest expected
//! time left, and asks only if a trial would end sooner elsewhere. A request without an answer
//! lapses.

use std::collections::BTreeMap;
use std::time::Duration;

use ergodic_common::ids::{Fence, ShapeClass, SweepNumber, WorkerId};
use ergodic_common::program::needs::TrialNeeds;
use ergodic_common::{Outcome, Spec, TrialKey};

use super::clock::CoreTime;
use super::effects::Effect;
use super::lease_table::pause_after_scan;
use super::state::{Core, LeaseState};
use crate::interval_set::IntervalSet;
use crate::records::EndedLease;
use crate::stored_row::StoredRow;

/// Minimum time by which a trial must end earlier elsewhere to be moved, in seconds.
const MIN_GAIN_SECONDS: f64 = 2.0;
/// Time for which results may be under way: a worker that sent nothing for that long is not
/// considered slow.
const DELIVERY_ALLOWANCE: Duration = Duration::from_secs(2);

/// Maximum number of requests that one search makes; the next one goes on.
const MAX_REQUESTS: usize = 100;

/// A forecast of the duration of a lease.
struct LeaseForecast {
    fence: Fence,
    sweep: SweepNumber,
    class: ShapeClass,
    /// Number of trials that the holder has probably not begun.
    waiting: u64,
    /// Expected seconds per trial on the holder.
    trial_seconds: f64,
    /// Usual seconds per trial of the class.
    usual_seconds: f64,
    /// Number of trials that the holder can run at a time.
    slots: f64,
}

impl LeaseForecast {
    /// Expected seconds until the last trial begins.
    fn seconds_left(&self) -> f64 {
        self.waiting as f64 * self.trial_seconds / self.slots
    }

    /// Whether a trial would end sooner on an idle worker of this pace.
    fn is_worth_taking(&self, pace: f64) -> bool {
        let here = self.usual_seconds * pace;
        self.seconds_left() + self.trial_seconds > here + MIN_GAIN_SECONDS
    }

    /// Number of trials to take for idle workers of this speed together, so that they and the holder end at the same time.
    fn count_trials_to_take(&self, here: f64) -> u64 {
        let there = self.slots / self.trial_seconds.max(1e-6);
        let part = (self.waiting as f64 * here / (here + there)).ceil() as u64;
        part.clamp(1, self.waiting)
    }
}

impl Core {
    /// Asks holders of leases to return trials, one request for each idle worker: first those whose leases would last longest.
    /// With many leases or idle workers there is a pause after each search, because it looks at all of
    /// them.
    pub(super) fn request_retractions(&mut self, now: CoreTime) -> Vec<Effect> {
        if now < self.next_retraction_search {
            return Vec::new();
        }
        let idle = self.find_idle_workers(now);
        if idle.is_empty() {
            return Vec::new();
        }
        self.next_retraction_search = now + pause_after_scan(self.leases.len() + idle.len());

        // Each open request will serve one of the idle workers, so as many of them are skipped.
        let leases = self.leases.values();
        let open = leases.filter(|lease| lease.next_retract_at > now).count();
        let mut unserved: Vec<&WorkerId> = idle.iter().skip(open).take(MAX_REQUESTS).collect();

        let mut requests = Vec::new();
        let mut speeds: BTreeMap<(SweepNumber, ShapeClass), f64> = BTreeMap::new();
        for forecast in self.forecast_leases_to_retract(&idle, now) {
            let taker = unserved
                .iter()
                .position(|id| self.can_take_from(id, &forecast, now));
            if let Some(taker) = taker {
                unserved.remove(taker);
                let speed = speeds
                    .entry((forecast.sweep, forecast.class))
                    .or_insert_with(|| self.sum_speeds(&forecast, &idle));
                requests.push((forecast.fence, forecast.count_trials_to_take(*speed)));
            }
            if unserved.is_empty() {
                break;
            }
        }

        requests
            .into_iter()
            .filter_map(|(fence, trials)| self.request_retraction(fence, trials, now))
            .collect()
    }

    fn request_retraction(&mut self, fence: Fence, trials: u64, now: CoreTime) -> Option<Effect> {
        let lease = self.leases.get_mut(fence.lease)?;
        lease.next_retract_at = now + self.timing.lease_ttl / 3;
        Some(Effect::Retract {
            worker: lease.row.worker.clone(),
            fence,
            trials,
        })
    }

    /// Leases that the fastest of these idle workers would gain from, those that last longest first.
    fn forecast_leases_to_retract(&self, idle: &[WorkerId], now: CoreTime) -> Vec<LeaseForecast> {
        let paces = idle.iter().filter_map(|id| self.workers.get(id));
        let best_pace = paces
            .map(|worker| worker.pace)
            .fold(f64::INFINITY, f64::min);

        let open = self
            .leases
            .values()
            .filter(|lease| lease.next_retract_at <= now);
        let mut forecasts: Vec<LeaseForecast> = open
            .filter_map(|lease| self.forecast_lease(lease, now))
            .filter(|forecast| forecast.waiting > 0 && forecast.is_worth_taking(best_pace))
            .collect();
        forecasts.sort_by(|a, b| {
            let longest_first = b.seconds_left().total_cmp(&a.seconds_left());
            longest_first.then(a.fence.cmp(&b.fence))
        });
        forecasts
    }

    /// Whether an idle worker can run trials of a lease, and they would end sooner there.
    fn can_take_from(&self, id: &WorkerId, forecast: &LeaseForecast, now: CoreTime) -> bool {
        let lease = &self.leases[forecast.fence.lease];
        let is_own = lease.row.worker == *id || lease.row.audits.as_ref() == Some(id);
        let sweep = &self.sweeps[&forecast.sweep];
        let Some(thief) = self.workers.get(id).filter(|_| !is_own) else {
            return false;
        };

        self.can_work_on(id, sweep, now)
            && forecast.is_worth_taking(thief.pace)
            && self.count_fitting(id, sweep, thief.requested_slots.unwrap_or(1)) > 0
    }

    /// Trials of a class per second on all idle workers together.
    fn sum_speeds(&self, forecast: &LeaseForecast, idle: &[WorkerId]) -> f64 {
        let spec = &self.sweeps[&forecast.sweep].spec;
        let workers = idle.iter().filter_map(|id| self.workers.get(id));
        let speeds = workers.map(|worker| {
            let slots = f64::from(worker.parallel_trials(spec));
            slots / (forecast.usual_seconds * worker.pace).max(1e-6)
        });
        speeds.sum()
    }

    /// The forecast of a lease of a running sweep whose trials have a known duration, and whose holder is connected.
    fn forecast_lease(&self, lease: &LeaseState, now: CoreTime) -> Option<LeaseForecast> {
        let sweep = &self.sweeps[&lease.row.sweep];
        let usual = sweep.classes[lease.row.class.position()]
            .trial_seconds
            .filter(|_| sweep.is_running())?;
        let holder = self
            .workers
            .get(&lease.row.worker)
            .filter(|worker| worker.connected)?;
        let spec = &sweep.spec;
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
            sweep: lease.row.sweep,
            class: lease.row.class,
            waiting: lease.row.trials.len().saturating_sub(u64::from(running)),
            trial_seconds: (usual * holder.pace).max(silent.as_secs_f64()),
            usual_seconds: usual,
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

        let Some(lease) = self.leases.get_mut(fence.lease) else {
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
            self.leases.remove(fence.lease);
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
