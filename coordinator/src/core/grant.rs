//! Who is given what: the answers to workers' wishes.

use std::time::Duration;

use super::interval::IntervalSet;
use super::sizing::{Demand, lease_size};
use super::{Core, Effect, Fence, Lease, LeaseRow, Now, Sweep, Worker, WorkerId};

/// A worker that cannot work on a sweep is not offered it again for this long.
const UNABLE_FOR: Duration = Duration::from_secs(30);

/// What a sweep has for a worker that wants something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    /// Trials that nobody holds.
    Pending,
    /// Trials to be run alone.
    Suspect,
    /// Trials that another process has run.
    Audit,
    /// The same, to be run alone.
    AuditAlone,
}

impl Core {
    /// Answers the wishes that can be answered: sweeps in turn, workers in the order of their ids.
    pub(super) fn feed_workers(&mut self, now: Now) -> Vec<Effect> {
        let wishing: Vec<WorkerId> =
            self.workers.iter().filter(|(_, w)| w.connected && w.wants.is_some()).map(|(id, _)| id.clone()).collect();
        if !wishing.is_empty() {
            self.line_up(now);
        }
        let (mut effects, mut idle) = (Vec::new(), Vec::new());
        for worker in wishing {
            match self.grant(&worker, now) {
                Some(grant) => effects.push(grant),
                None if self.lacks_work(&worker, now) => idle.push(worker),
                None => {}
            }
        }
        effects.extend(self.ask_back(&idle, now));
        effects
    }

    /// Sweeps come in turn. Of a sweep's trials, suspects come last, and run alone: the first worker that can run them
    /// finishes what it has, and is given nothing else meanwhile. Audits come after all trials that have no row.
    fn grant(&mut self, id: &str, now: Now) -> Option<Effect> {
        let idle = self.workers.get(id)?.wants?;
        if self.holds_suspect(id) {
            return None;
        }
        let offers =
            self.in_turn(now).into_iter().filter_map(|sweep| Some((sweep.number, self.offer(id, sweep, now)?)));
        let offers: Vec<(i64, Offer)> = offers.collect();
        for (sweep, offer) in offers {
            match offer {
                Offer::Pending => return self.lease_pending(id, sweep, idle, now),
                Offer::Suspect if self.is_free(id) => return self.lease_suspect(id, sweep, now),
                Offer::Audit => return self.lease_audits(id, sweep, idle, now),
                Offer::AuditAlone if self.is_free(id) => return self.lease_audit_alone(id, sweep, now),
                // It makes room.
                Offer::Suspect | Offer::AuditAlone if self.is_first_for(id, sweep, now) => return None,
                Offer::Suspect | Offer::AuditAlone => {}
            }
        }
        None
    }

    /// Whether nothing is there for a worker, and it holds no suspect beside which it is to run nothing.
    fn lacks_work(&self, id: &str, now: Now) -> bool {
        !self.holds_suspect(id) && self.sweeps.values().all(|sweep| self.offer(id, sweep, now).is_none())
    }

    /// What a sweep has for a worker.
    fn offer(&self, id: &str, sweep: &Sweep, now: Now) -> Option<Offer> {
        if !self.can_work(id, sweep, now) {
            return None;
        }
        if sweep.has_pending() {
            return Some(Offer::Pending);
        }
        let suspect = sweep.suspects.next().map(|_| Offer::Suspect);
        let audit = || sweep.audits.next_for(id).map(|_| Offer::Audit);
        suspect.or_else(audit).or_else(|| sweep.audits.next_suspect_for(id).map(|_| Offer::AuditAlone))
    }

    /// Whether a worker is there for trials of a sweep.
    pub(super) fn can_work(&self, id: &str, sweep: &Sweep, now: Now) -> bool {
        let able = |worker: &Worker| worker.connected && worker.is_able(sweep, now);
        sweep.is_running() && self.workers.get(id).is_some_and(able)
    }

    /// Whether a worker is the first that can take a sweep's next suspect, has never said that it could not work on it, and
    /// runs no suspect yet.
    fn is_first_for(&self, id: &str, sweep: i64, now: Now) -> bool {
        let sweep = &self.sweeps[&sweep];
        let alone = |id: &str| matches!(self.offer(id, sweep, now), Some(Offer::Suspect | Offer::AuditAlone));
        let willing = |(id, worker): &(&WorkerId, &Worker)| {
            alone(id) && !worker.unable.contains_key(&sweep.number) && !self.holds_suspect(id)
        };
        self.workers.iter().find(willing).is_some_and(|(first, _)| first == id)
    }

    /// Whether a worker holds no lease.
    fn is_free(&self, worker: &str) -> bool {
        self.leases.values().all(|lease| lease.row.worker != worker)
    }

    /// Whether a worker runs a suspect, and is to run nothing else.
    fn holds_suspect(&self, worker: &str) -> bool {
        self.leases.values().filter(|lease| lease.row.worker == worker).any(|lease| {
            let mut trials = lease.row.trials.iter();
            let (first, more) = (trials.next(), trials.next().is_some());
            let sweep = &self.sweeps[&lease.row.sweep];
            let suspects = if lease.row.audits.is_some() { &sweep.audits.suspects } else { &sweep.suspects };
            first.is_some_and(|n| !more && suspects.is_apart((lease.row.class, n)))
        })
    }

    fn lease_suspect(&mut self, id: &str, number: i64, now: Now) -> Option<Effect> {
        let (class, n) = self.sweeps.get_mut(&number)?.suspects.lease_next()?;
        self.lease(id, number, class, IntervalSet::of(n, n + 1), None, now)
    }

    fn lease_audit_alone(&mut self, id: &str, number: i64, now: Now) -> Option<Effect> {
        let ((class, n), origin) = self.sweeps.get_mut(&number)?.audits.take_suspect_for(id)?;
        self.lease(id, number, class, IntervalSet::of(n, n + 1), Some(origin), now)
    }

    fn lease_pending(&mut self, id: &str, number: i64, idle: u32, now: Now) -> Option<Effect> {
        let sweep = self.sweeps.get_mut(&number)?;
        let class = sweep.next_class() as u32;
        let waiting = sweep.classes[class as usize].pending.len();
        let size = self.size_for(id, number, class, waiting, idle)?;
        let trials = self.sweeps.get_mut(&number)?.take_pending(class, size);
        self.lease(id, number, class, trials, None, now)
    }

    fn lease_audits(&mut self, id: &str, number: i64, idle: u32, now: Now) -> Option<Effect> {
        let (origin, class, waiting) = self.sweeps.get(&number)?.audits.next_for(id)?;
        let size = self.size_for(id, number, class, waiting, idle)?;
        let trials = self.sweeps.get_mut(&number)?.audits.take(&origin, class, size);
        self.lease(id, number, class, trials, Some(origin), now)
    }

    /// How many of these unleased trials of a class a worker is given.
    fn size_for(&self, id: &str, number: i64, class: u32, unleased: u64, idle: u32) -> Option<u64> {
        let all_slots = self.workers.values().filter(|w| w.connected).map(|w| w.slots).sum();
        let slots = self.workers.get(id)?.slots;
        let trial_seconds = self.sweeps.get(&number)?.classes[class as usize].seconds;
        Some(lease_size(Demand { unleased, slots, idle, all_slots, trial_seconds }))
    }

    /// Gives trials to a worker, which no other place holds any more: such that have no rows, or those of another process, to
    /// be audited.
    fn lease(
        &mut self,
        id: &str,
        number: i64,
        class: u32,
        trials: IntervalSet,
        audits: Option<WorkerId>,
        now: Now,
    ) -> Option<Effect> {
        let booked = self.book(number, class, trials.len(), now);
        let sweep = self.sweeps.get_mut(&number)?;
        if audits.is_none() {
            sweep.leased += trials.len();
        }
        let keys = trials.iter().map(|n| sweep.spec.grid.class_trial_at(class, n)).collect();
        let fence = Fence { lease: self.next_lease, epoch: self.epoch };
        self.next_lease += 1;
        let row = LeaseRow { fence, sweep: number, class, worker: id.to_owned(), trials, audits };
        let sweep = sweep.id.clone();
        let granted = row.trials.clone();
        let expires = now + self.timing.lease_ttl;
        self.leases.insert(fence.lease, Lease::new(row.clone(), granted, now, expires, booked));
        self.workers.get_mut(id)?.wants = None;
        Some(Effect::Grant { lease: row, sweep, keys })
    }
}

impl Worker {
    /// Whether it computes what a sweep asks for, and has not said of late that it could not work on it.
    pub(super) fn is_able(&self, sweep: &Sweep, now: Now) -> bool {
        let unable = self.unable.get(&sweep.number);
        self.numerics.contains(&sweep.spec.numerics)
            && unable.is_none_or(|(since, _)| now.saturating_sub(*since) > UNABLE_FOR)
    }
}
