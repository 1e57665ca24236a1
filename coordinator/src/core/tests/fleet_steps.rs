//! The work of an event in a large fleet, counted in leases and workers that the core looks at.

use std::collections::VecDeque;

use crate::core::step_count::take_steps;
use crate::core::tests::*;

/// Time from one event to the next.
const PAUSE: Duration = Duration::from_millis(1);
/// Events of each kind.
const EVENTS: u32 = 300;
/// Cells of the sweep.
const CELLS: u32 = 5;
/// Leases and workers that an event may look at on average. Some events look at all of them, the more seldom the more there are.
const MAX_STEPS: u64 = 600;

/// Workers of one slot each. Busy ones hold a lease of one trial, and the others ask for work in vain.
struct CountedFleet {
    core: Core,
    now: CoreTime,
    held: VecDeque<(LeaseRow, Vec<TrialKey>)>,
    idle: VecDeque<WorkerId>,
}

impl CountedFleet {
    /// A fleet in which all trials are leased, but for as many as there are deliveries if nobody is idle.
    fn new(busy: u32, idle: u32) -> Self {
        let mut fleet = Self {
            core: Core::new(Timing { lease_ttl: TTL }, Epoch(1), LeaseId(1)),
            now: CoreTime::from_secs(1),
            held: VecDeque::new(),
            idle: VecDeque::new(),
        };
        let left = if idle == 0 { EVENTS } else { 0 };
        let sweep = sweep(SweepNumber(1), (busy + left) / CELLS + 1);
        let effects = fleet.core.on_sweep_added(sweep, [], fleet.now);
        fleet.carry_out(effects);

        // A trial of each cell makes known how long they take: so long that a lease has one.
        for n in 0..busy {
            fleet.join(n);
            fleet.ask(&name_worker(n));
            if n < CELLS {
                fleet.deliver();
            }
        }
        assert_eq!(fleet.held.len(), busy as usize);
        for n in busy..busy + idle {
            fleet.join(n);
            fleet.ask(&name_worker(n));
            fleet.idle.push_back(name_worker(n));
        }
        assert_eq!(
            fleet.held.len(),
            busy as usize,
            "nothing is left for others"
        );
        fleet
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if let Effect::Grant { lease, keys, .. } = effect {
                self.held.push_back((lease, keys));
            }
        }
    }

    fn join(&mut self, n: u32) {
        let joining = joining_worker(name_worker(n).as_str(), Vec::new());
        let effects = self.core.on_worker_joined(joining, self.now);
        self.carry_out(effects);
    }

    fn ask(&mut self, worker: &WorkerId) {
        let effects = self.core.on_work_requested(worker, 1, self.now);
        self.carry_out(effects);
    }

    fn ask_in_vain(&mut self) {
        let worker = self.idle.pop_front().expect("somebody is idle");
        self.ask(&worker);
        self.idle.push_back(worker);
    }

    fn beat(&mut self) {
        let (lease, keys) = self.held.pop_front().expect("somebody is busy");
        let running = vec![(lease.fence.lease, keys[0])];
        self.core
            .on_heartbeat(&lease.worker, running, 0, &[lease.fence], self.now);
        self.held.push_back((lease, keys));
    }

    /// The worker that has held its lease longest delivers the result, and asks for work.
    fn deliver(&mut self) {
        let (lease, keys) = self.held.pop_front().expect("somebody is busy");
        let stored = StoredRow {
            key: keys[0],
            outcome: Outcome::Completed,
            watched_metric: 0.5,
            deciding_metric: f64::NAN,
            seconds: 60.0,
        };
        let committed = CommitOutcome {
            stored: vec![stored],
            ..CommitOutcome::default()
        };
        let effects = self.core.on_batch_committed(
            &lease.worker,
            lease.fence,
            SweepNumber(1),
            &committed,
            self.now,
        );
        self.carry_out(effects);
        self.ask(&lease.worker);
    }

    fn lose(&mut self) {
        let (lease, _) = self.held.pop_front().expect("somebody is busy");
        self.core
            .on_session_ended(&lease.worker, SessionEnd::BySilence, self.now);
    }

    /// The mean number of steps of an event.
    fn count_steps(&mut self, event: impl Fn(&mut Self)) -> u64 {
        take_steps();
        for _ in 0..EVENTS {
            self.now += PAUSE;
            event(self);
        }
        take_steps() / u64::from(EVENTS)
    }
}

fn name_worker(n: u32) -> WorkerId {
    format!("{n:032x}").as_str().into()
}

#[test]
fn an_event_looks_at_no_more_leases_and_workers_the_more_there_are() {
    for (busy, idle) in [(300, 300), (2000, 2000), (2000, 0), (300, 4000)] {
        let mut fleet = CountedFleet::new(busy, idle);
        let mut steps = vec![("heartbeat", fleet.count_steps(CountedFleet::beat))];
        if idle > 0 {
            let in_vain = fleet.count_steps(CountedFleet::ask_in_vain);
            steps.push(("request in vain", in_vain));
        }
        steps.push(("delivery", fleet.count_steps(CountedFleet::deliver)));
        if idle == 0 {
            steps.push(("loss", fleet.count_steps(CountedFleet::lose)));
        }

        let most = steps.iter().map(|(_, steps)| *steps).max();
        assert!(
            most < Some(MAX_STEPS),
            "{busy} busy, {idle} idle: {steps:?}"
        );
        fleet.core.check_invariants().expect("they hold");
    }
}
