//! Time that the core takes for one event of a large fleet: `cargo bench -p ergodic --bench fleet`.
//!
//! Each worker has one slot. Busy ones hold a lease of one trial, or of ten short ones; the others ask for work in vain. Events come
//! one millisecond after another.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ergodic::core::{
    CommitOutcome, Core, CoreTime, Effect, JoiningWorker, SessionEnd, StoredRow, Sweep, Timing,
};
use ergodic::records::{DataPin, LeaseRow, SweepRow, SweepState, SweepTallies};
use ergodic_common::ids::{Epoch, LeaseId, SweepNumber, WorkerId};
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::trial::CPU_F32;
use ergodic_common::{Outcome, Spec, TrialKey};

const NUMBER: SweepNumber = SweepNumber(1);
const EVENTS: usize = 2_000;

/// A core with a fleet, and what its workers hold.
struct Fleet {
    core: Core,
    now: CoreTime,
    seconds: f64,
    held: VecDeque<(LeaseRow, Vec<TrialKey>)>,
    idle: VecDeque<WorkerId>,
}

fn build_sweep(trials: usize) -> Sweep {
    let source = SpecSource {
        file: "fleet".into(),
        text: format!(
            "name = \"fleet\"\nrepeats = {trials}\n[model]\nkind = \"empty\"\n[train]\nsteps = 1\n"
        ),
        ..SpecSource::default()
    };
    let spec = Arc::new(Spec::read_stored(&source).expect("a valid sweep"));
    let record = SweepRow {
        number: NUMBER,
        id: "fleet".into(),
        source,
        data: DataPin::default(),
        state: SweepState::Running,
        share: Share::default(),
        launched_at: 0.0,
        launched_by: String::new(),
        tallies: SweepTallies::default(),
    };
    Sweep::new(Arc::new(record), spec)
}

impl Fleet {
    /// A fleet in which all trials of the sweep are leased, except for some that are left for the events.
    fn new(busy: usize, idle: usize, seconds: f64, left: usize) -> Self {
        let per_lease = if seconds < 10.0 { 10 } else { 1 };
        let timing = Timing {
            lease_ttl: Duration::from_secs(30),
        };
        let mut fleet = Self {
            core: Core::new(timing, Epoch(1), LeaseId(1)),
            now: CoreTime::from_secs(1),
            seconds,
            held: VecDeque::new(),
            idle: VecDeque::new(),
        };
        let sweep = build_sweep(busy * per_lease + left + 1);
        let _ = fleet.core.on_sweep_added(sweep, [], fleet.now);

        // The first trial makes the duration known.
        fleet.join(0);
        fleet.ask(&name_worker(0));
        fleet.deliver();
        for n in 1..busy {
            fleet.join(n);
            fleet.ask(&name_worker(n));
        }
        for n in busy..busy + idle {
            fleet.join(n);
            fleet.idle.push_back(name_worker(n));
        }
        fleet
    }

    fn join(&mut self, n: usize) {
        let joining = JoiningWorker {
            worker: name_worker(n),
            name: format!("worker {n}"),
            build: String::new(),
            slots: 1,
            numerics: vec![CPU_F32.into()],
            programs: false,
            experiments: Vec::new(),
            supply: None,
            begins_for: None,
            held: Vec::new(),
        };
        let effects = self.core.on_worker_joined(joining, self.now);
        self.take(effects);
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if let Effect::Grant { lease, keys, .. } = effect {
                self.held.push_back((lease, keys));
            }
        }
    }

    fn ask(&mut self, worker: &WorkerId) {
        let effects = self.core.on_work_requested(worker, 1, self.now);
        self.take(effects);
    }

    /// The worker that has held its lease longest delivers a result, and asks for work if it was the last.
    fn deliver(&mut self) {
        let Some((lease, mut keys)) = self.held.pop_front() else {
            return;
        };
        let key = keys.remove(0);
        let committed = CommitOutcome {
            stored: vec![StoredRow {
                key,
                outcome: Outcome::Completed,
                watched_metric: 0.5,
                deciding_metric: f64::NAN,
                seconds: self.seconds,
            }],
            ..CommitOutcome::default()
        };
        let worker = lease.worker.clone();
        let effects =
            self.core
                .on_batch_committed(&worker, lease.fence, NUMBER, &committed, self.now);
        self.take(effects);
        match keys.is_empty() {
            true => self.ask(&worker),
            false => self.held.push_back((lease, keys)),
        }
    }

    fn beat(&mut self) {
        let (lease, keys) = self.held.pop_front().expect("somebody is busy");
        let running = vec![(lease.fence.lease, keys[0])];
        self.core
            .on_heartbeat(&lease.worker, running, 0, &[lease.fence], self.now);
        self.held.push_back((lease, keys));
    }

    fn ask_in_vain(&mut self) {
        let worker = self.idle.pop_front().expect("somebody is idle");
        self.ask(&worker);
        self.idle.push_back(worker);
    }

    fn lose(&mut self) {
        let (lease, keys) = self.held.pop_front().expect("somebody is busy");
        self.core
            .on_session_ended(&lease.worker, SessionEnd::BySilence, self.now);
        self.held.push_back((lease, keys));
    }

    /// The mean time of an event, in microseconds.
    fn time(&mut self, events: usize, event: impl Fn(&mut Self)) -> f64 {
        let mut total = Duration::ZERO;
        for _ in 0..events {
            self.now += Duration::from_millis(1);
            let since = Instant::now();
            event(self);
            total += since.elapsed();
        }
        total.as_secs_f64() * 1e6 / events as f64
    }
}

fn name_worker(n: usize) -> WorkerId {
    format!("{n:032x}").as_str().into()
}

fn main() {
    // `cargo test --all-targets` runs benchmarks too: they are for `cargo bench` alone.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let events = std::env::var("FLEET_EVENTS").ok();
    let events = events.and_then(|n| n.parse().ok()).unwrap_or(EVENTS);
    println!("microseconds per event");
    println!(
        "workers, busy, trial s | asked in vain | heartbeat | result and next lease | loss | tick"
    );
    for (busy, idle, seconds) in [
        (100, 100, 60.0),
        (1_000, 1_000, 60.0),
        (5_000, 5_000, 60.0),
        (5_000, 5_000, 1.0),
        (10_000, 0, 60.0),
        (100, 9_900, 60.0),
        (100, 9_900, 1.0),
    ] {
        let events = events.min(busy * 4);
        let left = if idle == 0 { events } else { 0 };
        let mut fleet = Fleet::new(busy, idle, seconds, left);
        let asked = match idle {
            0 => f64::NAN,
            _ => {
                for _ in 0..idle {
                    fleet.ask_in_vain();
                }
                fleet.time(events, Fleet::ask_in_vain)
            }
        };
        let beat = fleet.time(events, Fleet::beat);
        let delivered = fleet.time(events, Fleet::deliver);
        let tick = fleet.time(events.min(200), |fleet| {
            let now = fleet.now;
            let effects = fleet.core.on_tick(now);
            fleet.take(effects);
        });
        let lost = fleet.time(events.min(busy), Fleet::lose);
        println!(
            "{:>6}, {busy:>6}, {seconds:>4} | {asked:>8.2} | {beat:>8.2} | {delivered:>8.2} | {lost:>8.2} | {tick:>8.2}",
            busy + idle
        );
    }
}
