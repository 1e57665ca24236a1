//! Who is given what: the answers to workers' wishes.

use std::time::Duration;

use super::interval::IntervalSet;
use super::sizing::{Demand, lease_size};
use super::{Core, Effect, Fence, Lease, LeaseRow, Now, Sweep, SweepState, Worker, WorkerId};

/// A worker that cannot work on a sweep is not offered it again for this long.
const UNABLE_FOR: Duration = Duration::from_secs(30);

/// What a sweep has for a worker that wants something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    /// Trials that nobody holds.
    Pending,
    /// Trials to be run alone.
    Suspect,
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
    /// finishes what it has, and is given nothing else meanwhile.
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
                // It makes room.
                Offer::Suspect if self.is_first_for(id, sweep, now) => return None,
                Offer::Suspect => {}
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
        match sweep.has_pending() {
            true => Some(Offer::Pending),
            false => sweep.suspects.next().map(|_| Offer::Suspect),
        }
    }

    /// Whether a worker is there for trials of a sweep.
    pub(super) fn can_work(&self, id: &str, sweep: &Sweep, now: Now) -> bool {
        let able = |worker: &Worker| {
            let unable = worker.unable.get(&sweep.number);
            worker.connected
                && worker.numerics.contains(&sweep.spec.numerics)
                && unable.is_none_or(|(since, _)| now.saturating_sub(*since) > UNABLE_FOR)
        };
        sweep.state == SweepState::Running && self.workers.get(id).is_some_and(able)
    }

    /// Whether a worker is the first that can work on a sweep, has never said that it could not, and runs no suspect yet.
    fn is_first_for(&self, id: &str, sweep: i64, now: Now) -> bool {
        let sweep = &self.sweeps[&sweep];
        let willing = |(id, worker): &(&WorkerId, &Worker)| {
            self.can_work(id, sweep, now) && !worker.unable.contains_key(&sweep.number) && !self.holds_suspect(id)
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
            let suspects = &self.sweeps[&lease.row.sweep].suspects;
            first.is_some_and(|n| !more && suspects.is_apart((lease.row.class, n)))
        })
    }

    fn lease_suspect(&mut self, id: &str, number: i64, now: Now) -> Option<Effect> {
        let (class, n) = self.sweeps.get_mut(&number)?.suspects.lease_next()?;
        self.lease(id, number, class, IntervalSet::of(n, n + 1), now)
    }

    fn lease_pending(&mut self, id: &str, number: i64, idle: u32, now: Now) -> Option<Effect> {
        let all_slots = self.workers.values().filter(|w| w.connected).map(|w| w.slots).sum();
        let slots = self.workers.get(id)?.slots;
        let sweep = self.sweeps.get_mut(&number)?;
        let class = sweep.next_class();
        let demand = Demand {
            unleased: sweep.classes[class].pending.len(),
            slots,
            idle,
            all_slots,
            trial_seconds: sweep.classes[class].seconds,
        };
        let trials = sweep.classes[class].pending.take(lease_size(demand));
        self.lease(id, number, class as u32, trials, now)
    }

    /// Gives trials to a worker, which no other place holds any more.
    fn lease(&mut self, id: &str, number: i64, class: u32, trials: IntervalSet, now: Now) -> Option<Effect> {
        let booked = self.book(number, class, trials.len(), now);
        let sweep = self.sweeps.get_mut(&number)?;
        sweep.leased += trials.len();
        let keys = trials.iter().map(|n| sweep.spec.grid.class_trial(class, n)).collect();
        let fence = Fence { lease: self.next_lease, epoch: self.epoch };
        self.next_lease += 1;
        let row = LeaseRow { fence, sweep: number, class, worker: id.to_owned(), trials };
        let sweep = sweep.id.clone();
        let granted = row.trials.clone();
        let expires = now + self.timing.lease_ttl;
        self.leases.insert(fence.lease, Lease::new(row.clone(), granted, now, expires, booked));
        self.workers.get_mut(id)?.wants = None;
        Some(Effect::Grant { lease: row, sweep, keys })
    }
}
