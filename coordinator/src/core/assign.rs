//! Assigns leases in response to workers' requests for work.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use ergodic_common::Spec;
use ergodic_common::ids::{Fence, ShapeClass, TrialIndex, WorkerId};
use ergodic_common::program::is_program_class;
use ergodic_common::program::needs::TrialNeeds;

use super::Sweep;
use super::capacity::KeptFree;
use super::clock::CoreTime;
use super::effects::Effect;
use super::lease_size::{LeaseDemand, compute_lease_size};
use super::state::{Core, LeaseState, Worker};
use super::step_count::count_step;
use crate::interval_set::IntervalSet;
use crate::records::LeaseRow;
use ergodic_common::ids::SweepNumber;

/// Time for which a worker that could not run a sweep is not offered it again.
const UNABLE_FOR: Duration = Duration::from_secs(30);

/// The work that a sweep has for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    /// Trials that no worker holds.
    Pending,
    /// A quarantined trial, which must run alone.
    Quarantined,
    /// Audits of trials that another process has run.
    Audit,
    /// A quarantined audit, which must run alone.
    QuarantinedAudit,
}

impl Core {
    /// Answers the open requests for work, as far as there is work: sweeps by fair share, workers
    /// by id.
    pub(super) fn assign_leases(&mut self, now: CoreTime) -> Vec<Effect> {
        if self.workers.requesting_kinds().next().is_none() {
            return Vec::new();
        }
        self.catch_up_competitors(now);
        self.update_overdue_vruntime(now);

        let mut effects = Vec::new();
        let mut served = None;
        while let Some(worker) = self.next_worker_to_serve(served.as_ref()) {
            effects.extend(self.assign_lease(&worker, now));
            served = Some(worker);
        }

        effects.extend(self.request_retractions(now));
        effects
    }

    /// The next worker after this one, by id, that asks for work and is of a kind that some sweep has work for.
    fn next_worker_to_serve(&self, after: Option<&WorkerId>) -> Option<WorkerId> {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let kinds = self.workers.requesting_kinds();
        kinds
            .filter(|(of_kind, _)| self.has_work_for_kind(of_kind))
            .filter_map(|(_, ids)| ids.range::<WorkerId, _>((behind, Bound::Unbounded)).next())
            .min()
            .cloned()
    }

    /// Whether a sweep has work that a worker of this kind could be offered.
    fn has_work_for_kind(&self, worker: &Worker) -> bool {
        let running = self.sweeps.values().filter(|sweep| sweep.is_running());
        running
            .filter(|sweep| sweep.has_work())
            .any(|sweep| worker.is_of_use_for(&sweep.spec))
    }

    /// The workers that ask for work and that no sweep has any for, by id.
    pub(super) fn find_idle_workers(&self, now: CoreTime) -> Vec<WorkerId> {
        let mut idle: Vec<WorkerId> = Vec::new();
        for (of_kind, ids) in self.workers.requesting_kinds() {
            let may_have_work = self.has_work_for_kind(of_kind);
            let all = ids.iter().inspect(|_| count_step());
            let lack_work = all.filter(|id| match may_have_work {
                true => self.lacks_work(id, now),
                false => !self.holds_quarantined_trial(id),
            });
            // Nothing is asked back of others for a worker that begins nothing.
            let lack_work = lack_work.filter(|id| {
                let worker = self.workers.get(id);
                worker.is_some_and(|worker| worker.begins_trials(now))
            });
            idle.extend(lack_work.cloned());
        }
        idle.sort_unstable();
        idle
    }

    /// Leases work of the first sweep, by fair share, that has some for the worker. Within a sweep,
    /// fresh trials come first, then quarantined ones, then audits. Quarantined trials run alone:
    /// the first worker that can run them finishes its leases and gets nothing else meanwhile.
    fn assign_lease(&mut self, id: &WorkerId, now: CoreTime) -> Option<Effect> {
        let idle = self.workers.get(id)?.requested_slots?;
        if self.holds_quarantined_trial(id) {
            return None;
        }

        let offers = self
            .sweeps_by_fair_share()
            .into_iter()
            .filter_map(|sweep| Some((sweep.number, self.find_offer(id, sweep, now)?)));
        let offers: Vec<(SweepNumber, Offer)> = offers.collect();
        let mut kept = KeptFree::default();
        for (sweep, offer) in offers {
            match offer {
                Offer::Pending | Offer::Audit if !self.has_room(id, sweep, (idle, kept)) => {
                    if self.waits_for_room(id, sweep, now) {
                        kept.add(self.find_lacking(id, &self.sweeps[&sweep], idle));
                    }
                }
                Offer::Pending => return self.lease_pending_trials(id, sweep, idle, now),
                Offer::Quarantined if self.holds_no_lease(id) => {
                    return self.lease_quarantined_trial(id, sweep, now);
                }
                Offer::Audit => return self.lease_audits(id, sweep, idle, now),
                Offer::QuarantinedAudit if self.holds_no_lease(id) => {
                    return self.lease_quarantined_audit(id, sweep, now);
                }
                // The worker gets nothing new until its leases are done, so that it can run the
                // quarantined trial alone.
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

    /// Whether a trial of a sweep fits beside what a worker runs, and takes nothing that is kept free.
    fn has_room(&self, id: &WorkerId, sweep: SweepNumber, (idle, kept): (u32, KeptFree)) -> bool {
        let sweep = &self.sweeps[&sweep];
        !kept.is_taken_by(sweep.spec.trial_needs()) && self.count_fitting(id, sweep, idle) > 0
    }

    /// Whether a worker keeps free what a trial of a sweep lacks, until there is enough of it: or else trials that take less
    /// could keep it from running forever. A worker that runs the sweep already does not, and no more workers do than there are
    /// trials.
    fn waits_for_room(&self, id: &WorkerId, sweep: SweepNumber, now: CoreTime) -> bool {
        let sweep = &self.sweeps[&sweep];
        let leases = self.leases.of_sweep(sweep.number);
        let holders: BTreeSet<&WorkerId> = leases.map(|lease| &lease.row.worker).collect();
        let pending = sweep.classes.iter().map(|class| class.pending.len());
        let trials = pending.sum::<u64>().max(1);
        let mut waiting = self
            .workers
            .keys()
            .filter(|id| !holders.contains(id) && self.can_work_on(id, sweep, now))
            .take(usize::try_from(trials).unwrap_or(usize::MAX));
        waiting.any(|other| other == id)
    }

    /// Whether no sweep has work for the worker, and it holds no quarantined trial, beside which it
    /// must run nothing.
    fn lacks_work(&self, id: &WorkerId, now: CoreTime) -> bool {
        !self.holds_quarantined_trial(id)
            && self
                .sweeps
                .values()
                .all(|sweep| self.find_offer(id, sweep, now).is_none())
    }

    /// The work that a sweep has for a worker; `None` if it has none.
    fn find_offer(&self, id: &WorkerId, sweep: &Sweep, now: CoreTime) -> Option<Offer> {
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

    /// Whether a connected worker can run trials of a sweep.
    pub(super) fn can_work_on(&self, id: &WorkerId, sweep: &Sweep, now: CoreTime) -> bool {
        sweep.is_running()
            && self.workers.get(id).is_some_and(|worker| {
                worker.connected && worker.begins_trials(now) && worker.is_able_to_run(sweep, now)
            })
    }

    /// Whether a worker is the first that can take a sweep's next quarantined trial. It must never
    /// have reported that it cannot run the sweep, and must not run a quarantined trial already.
    fn is_first_for_quarantined(&self, id: &WorkerId, sweep: SweepNumber, now: CoreTime) -> bool {
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

    fn is_offered_quarantined(&self, id: &WorkerId, sweep: &Sweep, now: CoreTime) -> bool {
        matches!(
            self.find_offer(id, sweep, now),
            Some(Offer::Quarantined | Offer::QuarantinedAudit)
        )
    }

    /// Whether a worker holds no lease.
    fn holds_no_lease(&self, worker: &WorkerId) -> bool {
        !self.leases.has_worker(worker)
    }

    /// Whether a worker runs a quarantined trial, and so must run nothing else.
    fn holds_quarantined_trial(&self, worker: &WorkerId) -> bool {
        self.leases.of_worker(worker).any(|lease| {
            let mut trials = lease.row.trial_indices();
            let first = trials.next();
            let more = trials.next().is_some();
            let sweep = &self.sweeps[&lease.row.sweep];
            let quarantine = if lease.row.audits.is_some() {
                &sweep.audits.quarantine
            } else {
                &sweep.quarantine
            };

            first.is_some_and(|index| !more && quarantine.runs_alone(index))
        })
    }

    fn lease_quarantined_trial(
        &mut self,
        id: &WorkerId,
        number: SweepNumber,
        now: CoreTime,
    ) -> Option<Effect> {
        let index = self.sweeps.get_mut(&number)?.quarantine.take_next_trial()?;
        self.create_lease(
            id,
            number,
            index.class,
            IntervalSet::from_range(index.number, index.number + 1),
            None,
            now,
        )
    }

    fn lease_quarantined_audit(
        &mut self,
        id: &WorkerId,
        number: SweepNumber,
        now: CoreTime,
    ) -> Option<Effect> {
        let (index, origin) = self
            .sweeps
            .get_mut(&number)?
            .audits
            .take_quarantined_for(id)?;
        self.create_lease(
            id,
            number,
            index.class,
            IntervalSet::from_range(index.number, index.number + 1),
            Some(origin),
            now,
        )
    }

    fn lease_pending_trials(
        &mut self,
        id: &WorkerId,
        number: SweepNumber,
        idle: u32,
        now: CoreTime,
    ) -> Option<Effect> {
        let sweep = self.sweeps.get_mut(&number)?;
        let class = sweep.next_class();
        let waiting = sweep.classes[class.position()].pending.len();
        let size = self.choose_lease_size(id, number, class, waiting, (idle, now))?;
        let trials = self
            .sweeps
            .get_mut(&number)?
            .take_pending_trials(class, size);

        self.create_lease(id, number, class, trials, None, now)
    }

    fn lease_audits(
        &mut self,
        id: &WorkerId,
        number: SweepNumber,
        idle: u32,
        now: CoreTime,
    ) -> Option<Effect> {
        let (origin, class, waiting) = self.sweeps.get(&number)?.audits.next_audits_for(id)?;
        let size = self.choose_lease_size(id, number, class, waiting, (idle, now))?;
        let trials = self
            .sweeps
            .get_mut(&number)?
            .audits
            .take_waiting(&origin, class, size);
        self.create_lease(id, number, class, trials, Some(origin), now)
    }

    /// Number of unleased trials of a class to lease to a worker.
    fn choose_lease_size(
        &self,
        id: &WorkerId,
        number: SweepNumber,
        class: ShapeClass,
        unleased: u64,
        (idle, now): (u32, CoreTime),
    ) -> Option<u64> {
        let sweep = self.sweeps.get(&number)?;
        let worker = self.workers.get(id)?;
        Some(compute_lease_size(LeaseDemand {
            unleased,
            slots: worker.parallel_trials(&sweep.spec),
            idle: self.count_fitting(id, sweep, idle),
            is_narrow: sweep.spec.trial_needs() == TrialNeeds::ONE_SLOT,
            all_slots: self.workers.count_parallel_trials(&sweep.spec),
            trial_seconds: sweep.classes[class.position()].trial_seconds,
            begins_for: worker
                .begins_for_seconds(now)
                .map(|left| left / worker.pace),
        }))
    }

    /// Creates a lease for trials that the caller has taken from the pending trials or the
    /// quarantine, or, with `audits`, from the audits of that process's rows.
    fn create_lease(
        &mut self,
        id: &WorkerId,
        number: SweepNumber,
        class: ShapeClass,
        trials: IntervalSet,
        audits: Option<WorkerId>,
        now: CoreTime,
    ) -> Option<Effect> {
        let booked = self.charge_lease(number, class, trials.len());
        let sweep = self.sweeps.get_mut(&number)?;

        if audits.is_none() {
            sweep.leased += trials.len();
        }

        let keys = trials
            .iter()
            .map(|number| sweep.spec.grid.trial_at(TrialIndex { class, number }))
            .collect();
        let fence = Fence {
            lease: self.next_lease,
            epoch: self.epoch,
        };

        self.next_lease.0 += 1;
        let row = LeaseRow {
            fence,
            sweep: number,
            class,
            worker: id.clone(),
            trials,
            audits,
        };

        let sweep = sweep.id.clone();
        let granted = row.trials.clone();
        let expires = now + self.timing.lease_ttl;
        let lease = LeaseState::from_row(row.clone(), granted, now, expires, booked);
        self.leases.insert(lease);

        self.workers
            .edit_presence(id, |worker| worker.requested_slots = None);
        Some(Effect::Grant {
            lease: row,
            sweep,
            keys,
        })
    }
}

impl Worker {
    /// Whether the worker runs trials of a numerics class: one that it names, or a program if it runs these.
    pub(super) fn offers_class(&self, numerics: &str) -> bool {
        match is_program_class(numerics) {
            true => self.programs,
            false => self.numerics.iter().any(|class| class == numerics),
        }
    }

    /// Whether the worker offers a sweep's numerics class and has room for one of its trials.
    pub(super) fn is_of_use_for(&self, spec: &Spec) -> bool {
        self.offers_class(&spec.numerics) && self.parallel_trials(spec) > 0
    }

    /// Whether the worker offers a sweep's numerics class, and has not reported lately that it
    /// cannot run the sweep.
    pub(super) fn is_able_to_run(&self, sweep: &Sweep, now: CoreTime) -> bool {
        let unable = self.unable_sweeps.get(&sweep.number);
        self.is_of_use_for(&sweep.spec)
            && unable.is_none_or(|(since, _)| now.saturating_sub(*since) > UNABLE_FOR)
    }
}
