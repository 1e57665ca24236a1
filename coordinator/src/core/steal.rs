//! Near the end, trials that wait in one worker's queue are given to another that has nothing to do.
//!
//! A worker for which nothing is left may have those that another one has not begun. The coordinator asks their holder,
//! who alone knows what it has begun, and what it gives back is pending again. The lease with the longest expected time
//! left is asked, and only when a trial would end sooner elsewhere. A question that is not answered lapses.

use std::time::Duration;

use ergodic_common::{Outcome, TrialKey};

use super::interval::IntervalSet;
use super::{Core, Effect, Ended, Fence, Lease, Now, StoredRow, Worker, WorkerId};

/// A trial is moved where it should end earlier by at least this time, in seconds.
const WORTH: f64 = 2.0;
/// Results may be under way for so long: a worker of which nothing came meanwhile is not slow.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// What is expected of a lease.
struct Outlook {
    fence: Fence,
    /// Trials that its holder can hardly have begun.
    waiting: u64,
    /// Seconds that it takes for a trial.
    seconds: f64,
    /// Its slots.
    slots: f64,
}

impl Outlook {
    /// When its last trial should begin, in seconds from now.
    fn left(&self) -> f64 {
        self.waiting as f64 * self.seconds / self.slots
    }
}

impl Core {
    /// Asks holders of leases to give trials back, one for each of these workers, for which nothing else is there.
    pub(super) fn ask_back(&mut self, idle: &[WorkerId], now: Now) -> Vec<Effect> {
        // Workers for which a question is open already wait for its answer.
        let open = self.leases.values().filter(|lease| lease.asked > now).count();
        let mut effects = Vec::new();
        for id in idle.iter().skip(open) {
            let Some((fence, trials)) = self.worth_asking(id, idle, now) else { continue };
            let Some(lease) = self.leases.get_mut(&fence.lease) else { continue };
            lease.asked = now + self.timing.lease_ttl / 3;
            effects.push(Effect::AskBack { worker: lease.row.worker.clone(), fence, trials });
        }
        effects
    }

    /// The lease that an idle worker should have a part of, and how many trials all idle workers should have of it.
    fn worth_asking(&self, id: &str, idle: &[WorkerId], now: Now) -> Option<(Fence, u64)> {
        let worth = |lease: &Lease| {
            let sweep = &self.sweeps[&lease.row.sweep];
            let whose = [Some(&lease.row.worker), lease.row.audits.as_ref()];
            let asks = !whose.iter().flatten().any(|other| *other == id) && lease.asked <= now && sweep.is_running();
            let usual =
                sweep.classes[lease.row.class as usize].seconds.filter(|_| asks && self.can_work(id, sweep, now))?;
            let outlook = self.outlook(lease, usual, now)?;
            let here = usual * self.workers.get(id)?.pace;
            (outlook.waiting > 0 && outlook.left() + outlook.seconds > here + WORTH).then_some((outlook, usual))
        };
        let outlooks = self.leases.values().filter_map(worth);
        let by_left = |(a, _): &(Outlook, f64), (b, _): &(Outlook, f64)| {
            a.left().total_cmp(&b.left()).then(b.fence.cmp(&a.fence))
        };
        let (longest, usual) = outlooks.max_by(by_left)?;
        let speed = |worker: &Worker| f64::from(worker.slots) / (usual * worker.pace).max(1e-6);
        let there = longest.slots / longest.seconds.max(1e-6);
        let here: f64 = idle.iter().filter_map(|id| self.workers.get(id)).map(speed).sum();
        let part = (longest.waiting as f64 * here / (here + there)).ceil() as u64;
        Some((longest.fence, part.clamp(1, longest.waiting)))
    }

    fn outlook(&self, lease: &Lease, usual: f64, now: Now) -> Option<Outlook> {
        let holder = self.workers.get(&lease.row.worker).filter(|worker| worker.connected)?;
        let silent = now.saturating_sub(lease.since.max(holder.delivered)).saturating_sub(UNDER_WAY);
        Some(Outlook {
            fence: lease.row.fence,
            waiting: lease.row.trials.len().saturating_sub(u64::from(holder.slots)),
            seconds: (usual * holder.pace).max(silent.as_secs_f64()),
            slots: f64::from(holder.slots.max(1)),
        })
    }

    /// A worker gives back trials of a lease that it has not begun, perhaps none.
    pub fn on_yielded(&mut self, worker: &str, fence: Fence, keys: &[TrialKey], now: Now) -> Vec<Effect> {
        if !self.holds(worker, fence) {
            return Vec::new();
        }
        let Some(lease) = self.leases.get_mut(&fence.lease) else { return Vec::new() };
        let Some(sweep) = self.sweeps.get_mut(&lease.row.sweep) else { return Vec::new() };
        let mut back = IntervalSet::default();
        for key in keys.iter().filter(|key| sweep.spec.has_trial(**key)) {
            let (class, n) = sweep.spec.grid.locate_trial(*key);
            if class == lease.row.class && lease.row.trials.remove(n) {
                back.insert(n, n + 1);
            }
        }
        if back.is_empty() {
            return Vec::new();
        }
        lease.asked = now;
        lease.yielded.insert_all(&back);
        sweep.turn.give_back(lease.booked * back.len() as f64);
        let left = lease.row.trials.is_empty();
        let mut kept = lease.row.clone();
        kept.trials = lease.granted.clone();
        lease.yielded.iter().for_each(|n| _ = kept.trials.remove(n));
        sweep.take_back(&kept, back);
        let mut effects = if left {
            self.leases.remove(&fence.lease);
            vec![Effect::EndLeases(vec![Ended { fence, lost: false }])]
        } else {
            vec![Effect::Shrink(kept)]
        };
        effects.extend(self.feed_workers(now));
        effects
    }

    /// Learns from rows how much longer than usual a worker takes for a trial.
    pub(super) fn learn_pace(&mut self, id: &str, number: i64, rows: &[StoredRow], now: Now) {
        let (Some(sweep), Some(worker)) = (self.sweeps.get(&number), self.workers.get_mut(id)) else { return };
        worker.delivered = now;
        for row in rows.iter().filter(|row| !matches!(row.outcome, Outcome::Failed { .. })) {
            let (class, _) = sweep.spec.grid.locate_trial(row.key);
            if let Some(usual) = sweep.classes[class as usize].seconds.filter(|usual| *usual > 0.0) {
                worker.pace = 0.8 * worker.pace + 0.2 * row.seconds / usual;
            }
        }
    }
}
