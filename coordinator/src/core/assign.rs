//! Assigns leases: the answers to workers' requests for work.

use std::time::Duration;

use ergodic_common::ids::Fence;

use super::Sweep;
use super::clock::CoreTime;
use super::effects::Effect;
use super::lease_size::{LeaseDemand, compute_lease_size};
use super::state::{Core, LeaseState, Worker};
use crate::interval_set::IntervalSet;
use crate::records::{LeaseRow, WorkerId};

/// A worker that cannot work on a sweep is not offered it again for this long.
const UNABLE_FOR: Duration = Duration::from_secs(30);

/// What a sweep has for a worker that wants something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    /// Trials that nobody holds.
    Pending,
    /// Trials to be run alone.
    Quarantined,
    /// Trials that another process has run.
    Audit,
    /// An audit to be run alone.
    QuarantinedAudit,
}

impl Core {
    /// Answers the requests for work that can be answered: sweeps by their fair share, workers in the order of their ids.
    pub(super) fn assign_leases(&mut self, now: CoreTime) -> Vec<Effect> {
        let wishing: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, w)| w.connected && w.requested_slots.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        if !wishing.is_empty() {
            self.catch_up_competitors(now);
        }

        let mut effects = Vec::new();
        let mut idle = Vec::new();

        for worker in wishing {
            match self.assign_lease(&worker, now) {
                Some(grant) => effects.push(grant),
                None if self.lacks_work(&worker, now) => idle.push(worker),
                None => {}
            }
        }

        effects.extend(self.request_retractions(&idle, now));
        effects
    }

    /// Gives a worker a lease of the first sweep that has something for it, by fair share. Of a sweep's trials, those in quarantine
    /// come last, and run alone: the first worker that can run them finishes what it has, and is given nothing else meanwhile. Audits
    /// come after all trials that have no row.
    fn assign_lease(&mut self, id: &str, now: CoreTime) -> Option<Effect> {
        let idle = self.workers.get(id)?.requested_slots?;
        if self.holds_quarantined_trial(id) {
            return None;
        }

        let offers = self
            .sweeps_by_fair_share(now)
            .into_iter()
            .filter_map(|sweep| Some((sweep.number, self.find_offer(id, sweep, now)?)));
        let offers: Vec<(i64, Offer)> = offers.collect();
        for (sweep, offer) in offers {
            match offer {
                Offer::Pending => return self.lease_pending_trials(id, sweep, idle, now),
                Offer::Quarantined if self.holds_no_lease(id) => {
                    return self.lease_quarantined_trial(id, sweep, now);
                }
                Offer::Audit => return self.lease_audits(id, sweep, idle, now),
                Offer::QuarantinedAudit if self.holds_no_lease(id) => {
                    return self.lease_quarantined_audit(id, sweep, now);
                }
                // It finishes what it has, to run the trial alone.
                Offer::Quarantined | Offer::QuarantinedAudit
                    if self.is_first_for_quarantined(id, sweep, now) =>
                {
                    return None;
                }
                Offer::Quarantined | Offer::QuarantinedAudit => {}
            }
        }

        None
    }

    /// Whether nothing is there for a worker, and it holds no trial in quarantine, beside which it is to run nothing.
    fn lacks_work(&self, id: &str, now: CoreTime) -> bool {
        !self.holds_quarantined_trial(id)
            && self
                .sweeps
                .values()
                .all(|sweep| self.find_offer(id, sweep, now).is_none())
    }

    /// What a sweep has for a worker.
    fn find_offer(&self, id: &str, sweep: &Sweep, now: CoreTime) -> Option<Offer> {
        if !self.can_work_on(id, sweep, now) {
            return None;
        }
        if sweep.has_pending() {
            return Some(Offer::Pending);
        }

        let suspect = sweep.quarantine.next_trial().map(|_| Offer::Quarantined);
        suspect
            .or_else(|| sweep.audits.next_audits_for(id).map(|_| Offer::Audit))
            .or_else(|| {
                sweep
                    .audits
                    .next_quarantined_for(id)
                    .map(|_| Offer::QuarantinedAudit)
            })
    }

    /// Whether a worker is there for trials of a sweep.
    pub(super) fn can_work_on(&self, id: &str, sweep: &Sweep, now: CoreTime) -> bool {
        sweep.is_running()
            && self
                .workers
                .get(id)
                .is_some_and(|worker| worker.connected && worker.is_able_to_run(sweep, now))
    }

    /// Whether a worker is the first that can take a sweep's next trial in quarantine, has never reported that it could not work on the
    /// sweep, and runs no trial in quarantine yet.
    fn is_first_for_quarantined(&self, id: &str, sweep: i64, now: CoreTime) -> bool {
        let sweep = &self.sweeps[&sweep];
        self.workers
            .iter()
            .find(|(id, worker)| {
                self.is_offered_quarantined(id, sweep, now)
                    && !worker.unable_sweeps.contains_key(&sweep.number)
                    && !self.holds_quarantined_trial(id)
            })
            .is_some_and(|(first, _)| first == id)
    }

    fn is_offered_quarantined(&self, id: &str, sweep: &Sweep, now: CoreTime) -> bool {
        matches!(
            self.find_offer(id, sweep, now),
            Some(Offer::Quarantined | Offer::QuarantinedAudit)
        )
    }

    /// Whether a worker holds no lease.
    fn holds_no_lease(&self, worker: &str) -> bool {
        self.leases.values().all(|lease| lease.row.worker != worker)
    }

    /// Whether a worker runs a trial in quarantine, and is to run nothing else.
    fn holds_quarantined_trial(&self, worker: &str) -> bool {
        self.leases
            .values()
            .filter(|lease| lease.row.worker == worker)
            .any(|lease| {
                let mut trials = lease.row.trials.iter();
                let first = trials.next();
                let more = trials.next().is_some();
                let sweep = &self.sweeps[&lease.row.sweep];
                let quarantine = if lease.row.audits.is_some() {
                    &sweep.audits.quarantine
                } else {
                    &sweep.quarantine
                };

                first.is_some_and(|n| !more && quarantine.runs_alone((lease.row.class, n)))
            })
    }

    fn lease_quarantined_trial(&mut self, id: &str, number: i64, now: CoreTime) -> Option<Effect> {
        let (class, n) = self.sweeps.get_mut(&number)?.quarantine.take_next_trial()?;
        self.create_lease(
            id,
            number,
            class,
            IntervalSet::from_range(n, n + 1),
            None,
            now,
        )
    }

    fn lease_quarantined_audit(&mut self, id: &str, number: i64, now: CoreTime) -> Option<Effect> {
        let ((class, n), origin) = self
            .sweeps
            .get_mut(&number)?
            .audits
            .take_quarantined_for(id)?;
        self.create_lease(
            id,
            number,
            class,
            IntervalSet::from_range(n, n + 1),
            Some(origin),
            now,
        )
    }

    fn lease_pending_trials(
        &mut self,
        id: &str,
        number: i64,
        idle: u32,
        now: CoreTime,
    ) -> Option<Effect> {
        let sweep = self.sweeps.get_mut(&number)?;
        let class = sweep.next_class() as u32;
        let waiting = sweep.classes[class as usize].pending.len();
        let size = self.choose_lease_size(id, number, class, waiting, idle)?;
        let trials = self
            .sweeps
            .get_mut(&number)?
            .take_pending_trials(class, size);

        self.create_lease(id, number, class, trials, None, now)
    }

    fn lease_audits(&mut self, id: &str, number: i64, idle: u32, now: CoreTime) -> Option<Effect> {
        let (origin, class, waiting) = self.sweeps.get(&number)?.audits.next_audits_for(id)?;
        let size = self.choose_lease_size(id, number, class, waiting, idle)?;
        let trials = self
            .sweeps
            .get_mut(&number)?
            .audits
            .take_waiting(&origin, class, size);
        self.create_lease(id, number, class, trials, Some(origin), now)
    }

    /// How many of these unleased trials of a class a worker is given.
    fn choose_lease_size(
        &self,
        id: &str,
        number: i64,
        class: u32,
        unleased: u64,
        idle: u32,
    ) -> Option<u64> {
        let all_slots = self
            .workers
            .values()
            .filter(|w| w.connected)
            .map(|w| w.slots)
            .sum();

        let slots = self.workers.get(id)?.slots;
        let trial_seconds = self.sweeps.get(&number)?.classes[class as usize].trial_seconds;
        Some(compute_lease_size(LeaseDemand {
            unleased,
            slots,
            idle,
            all_slots,
            trial_seconds,
        }))
    }

    /// Creates a lease for trials that the caller has taken from the pending ones or from the quarantine, or from the audits of the
    /// rows of another process (`audits`).
    fn create_lease(
        &mut self,
        id: &str,
        number: i64,
        class: u32,
        trials: IntervalSet,
        audits: Option<WorkerId>,
        now: CoreTime,
    ) -> Option<Effect> {
        let booked = self.charge_lease(number, class, trials.len(), now);
        let sweep = self.sweeps.get_mut(&number)?;

        if audits.is_none() {
            sweep.leased += trials.len();
        }

        let keys = trials
            .iter()
            .map(|n| sweep.spec.grid.class_trial_at(class, n))
            .collect();
        let fence = Fence {
            lease: self.next_lease,
            epoch: self.epoch,
        };

        self.next_lease += 1;
        let row = LeaseRow {
            fence,
            sweep: number,
            class,
            worker: id.to_owned(),
            trials,
            audits,
        };

        let sweep = sweep.id.clone();
        let granted = row.trials.clone();
        let expires = now + self.timing.lease_ttl;
        self.leases.insert(
            fence.lease,
            LeaseState::from_row(row.clone(), granted, now, expires, booked),
        );

        self.workers.get_mut(id)?.requested_slots = None;
        Some(Effect::Grant {
            lease: row,
            sweep,
            keys,
        })
    }
}

impl Worker {
    /// Whether the worker offers a sweep's numerics class, and has not reported of late that it could not work on the sweep.
    pub(super) fn is_able_to_run(&self, sweep: &Sweep, now: CoreTime) -> bool {
        let unable = self.unable_sweeps.get(&sweep.number);
        self.numerics.contains(&sweep.spec.numerics)
            && unable.is_none_or(|(since, _)| now.saturating_sub(*since) > UNABLE_FOR)
    }
}
