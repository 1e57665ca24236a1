//! Shares in a simulated cluster: workers that always want, and trials that take their time.

use std::time::Duration;

use ergodic_common::ids::{Epoch, LeaseId, SweepNumber, WorkerId};
use ergodic_common::spec::scheduling::Share;

use crate::core::tests::*;
use crate::records::LeaseRow;

/// A cluster of workers that run what they are given, one lease after the other.
struct SharedCluster {
    core: Core,
    now: CoreTime,
    /// Duration of a trial, in seconds, by sweep.
    seconds: BTreeMap<SweepNumber, f64>,
    slots: u32,
    /// Under which lease a worker works, until when.
    busy: BTreeMap<WorkerId, (CoreTime, LeaseRow, Vec<TrialKey>)>,
    /// Slot-seconds done, by sweep.
    done: BTreeMap<SweepNumber, f64>,
    /// Leases in the order in which they were given: when, and of which sweep.
    given: Vec<(CoreTime, SweepNumber)>,
}

impl SharedCluster {
    fn new(workers: u32, slots: u32) -> Self {
        let mut cluster = Self {
            core: Core::new(
                Timing {
                    lease_ttl: Duration::from_secs(100_000),
                },
                Epoch(1),
                LeaseId(1),
            ),
            now: CoreTime::ZERO,
            seconds: BTreeMap::new(),
            slots,
            busy: BTreeMap::new(),
            done: BTreeMap::new(),
            given: Vec::new(),
        };

        for n in 0..workers {
            let joining = JoiningWorker {
                slots,
                ..joining_worker(&format!("w{n}"), vec![])
            };
            let effects = cluster.core.on_worker_joined(joining, cluster.now);
            cluster.carry_out(effects);

            cluster.request_work(&format!("w{n}"));
        }

        cluster
    }

    fn launch(&mut self, number: SweepNumber, (priority, weight): (i32, f64), seconds: f64) {
        self.seconds.insert(number, seconds);
        let share = Share { priority, weight };
        let effects = self.core.on_sweep_added(
            Sweep {
                share,
                ..sweep(number, 10_000_000)
            },
            [],
            self.now,
        );

        self.carry_out(effects);
    }

    fn request_work(&mut self, worker: &str) {
        let effects = self
            .core
            .on_work_requested(&worker.into(), self.slots, self.now);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if let Effect::Grant { lease, keys, .. } = effect {
                let takes = keys.len() as f64 * self.seconds[&lease.sweep] / f64::from(self.slots);
                self.given.push((self.now, lease.sweep));
                self.busy.insert(
                    lease.worker.clone(),
                    (self.now + Duration::from_secs_f64(takes), lease, keys),
                );
            }
        }

        self.core.check_invariants().expect("the invariant holds");
    }

    /// Lets this much time pass.
    fn run(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while let Some((at, worker)) = self
            .busy
            .iter()
            .map(|(worker, (at, ..))| (*at, worker.clone()))
            .min()
        {
            if at > end {
                break;
            }

            self.now = at;
            let (_, lease, keys) = self.busy.remove(&worker).expect("it was there");
            let seconds = self.seconds[&lease.sweep];
            *self.done.entry(lease.sweep).or_default() += seconds * keys.len() as f64;
            let row = |key| StoredRow {
                key,
                outcome: Outcome::Completed,
                watched_metric: 0.5,
                deciding_metric: f64::NAN,
                seconds,
            };
            let committed = CommitOutcome {
                stored: keys.into_iter().map(row).collect(),
                ..CommitOutcome::default()
            };
            let effects = self.core.on_batch_committed(
                &worker,
                lease.fence,
                lease.sweep,
                &committed,
                self.now,
            );
            self.carry_out(effects);

            self.request_work(worker.as_str());
        }

        self.now = end;
    }

    /// What sweeps have got of all slot-seconds since this was last asked.
    fn shares(&mut self) -> BTreeMap<SweepNumber, f64> {
        let all: f64 = self.done.values().sum();
        std::mem::take(&mut self.done)
            .into_iter()
            .map(|(sweep, done)| (sweep, done / all))
            .collect()
    }
}

/// Share of slot-seconds that may go astray because leases are lumps.
const LUMPS: f64 = 0.06;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn sweeps_get_their_weights_and_one_that_joins_neither_starves_nor_catches_up(
        workers in 1_u32..4,
        slots in 1_u32..4,
        weights in (0.3_f64..3.0, 0.3_f64..3.0, 0.3_f64..3.0),
        seconds in (0.05_f64..4.0, 0.05_f64..4.0, 0.05_f64..4.0),
    ) {
        let mut cluster = SharedCluster::new(workers, slots);
        cluster.launch(SweepNumber(1), (0, weights.0), seconds.0);
        cluster.launch(SweepNumber(2), (0, weights.1), seconds.1);
        cluster.run(3000.0);
        let (shares, all) = (cluster.shares(), weights.0 + weights.1);
        prop_assert!((shares[&SweepNumber(1)] - weights.0 / all).abs() < LUMPS, "{shares:?} for {weights:?}");
        cluster.launch(SweepNumber(3), (0, weights.2), seconds.2);
        cluster.run(4000.0);
        let (shares, all) = (cluster.shares(), all + weights.2);
        for (sweep, weight) in [(1, weights.0), (2, weights.1), (3, weights.2)] {
            prop_assert!((shares[&SweepNumber(sweep)] - weight / all).abs() < LUMPS, "{shares:?} for {weights:?}");
        }
    }

    #[test]
    fn a_higher_priority_goes_first_and_a_lower_one_gets_what_is_left(
        workers in 1_u32..4,
        priorities in (-100_i32..100, 1_i32..50),
        seconds in (0.05_f64..4.0, 0.05_f64..4.0),
    ) {
        let mut cluster = SharedCluster::new(workers, 2);
        cluster.launch(SweepNumber(1), (priorities.0, 1.0), seconds.0);
        cluster.run(200.0);
        let launched = cluster.now;
        cluster.launch(SweepNumber(2), (priorities.0.saturating_add(priorities.1).min(100), 0.01), seconds.1);
        cluster.run(300.0);
        let later = cluster.given.iter().filter(|(at, _)| *at > launched);
        prop_assert!(later.clone().count() > 0 && later.clone().all(|(_, sweep)| *sweep == SweepNumber(2)));
        let effects = cluster.core.on_steer(SweepNumber(2), Steering::Pause, cluster.now).expect("it can be paused");
        cluster.carry_out(effects);
        let paused = cluster.now;
        cluster.run(300.0);
        let later = cluster.given.iter().filter(|(at, _)| *at > paused);
        prop_assert!(later.clone().count() > 0 && later.clone().all(|(_, sweep)| *sweep == SweepNumber(1)));
    }
}

#[test]
fn a_sweep_that_was_paused_does_not_catch_up_and_a_new_share_holds_from_then_on() {
    let mut cluster = SharedCluster::new(2, 1);
    cluster.launch(SweepNumber(1), (0, 1.0), 0.5);
    cluster.launch(SweepNumber(2), (0, 1.0), 0.5);
    let steer = |cluster: &mut SharedCluster, sweep, steering| {
        let effects = cluster
            .core
            .on_steer(sweep, steering, cluster.now)
            .expect("a running sweep can be steered");
        cluster.carry_out(effects);
    };
    steer(&mut cluster, SweepNumber(2), Steering::Pause);

    cluster.run(2000.0);
    assert!(cluster.shares()[&SweepNumber(1)] > 0.97);
    steer(&mut cluster, SweepNumber(2), Steering::Resume);
    cluster.run(2000.0);
    assert!((cluster.shares()[&SweepNumber(1)] - 0.5).abs() < LUMPS);
    steer(
        &mut cluster,
        SweepNumber(1),
        Steering::Share {
            priority: None,
            weight: Some(3.0),
        },
    );

    cluster.run(2000.0);
    assert!((cluster.shares()[&SweepNumber(1)] - 0.75).abs() < LUMPS);

    // Among others it keeps its distance: it is neither sent away nor served alone.
    for sweep in [1, 2].map(SweepNumber) {
        steer(
            &mut cluster,
            sweep,
            Steering::Share {
                priority: Some(5),
                weight: None,
            },
        );
    }

    cluster.run(2000.0);
    assert!((cluster.shares()[&SweepNumber(1)] - 0.75).abs() < LUMPS);
}

#[test]
fn trials_of_unknown_duration_are_taken_to_last_like_others() {
    let mut cluster = SharedCluster::new(4, 1);
    cluster.launch(SweepNumber(1), (0, 1.0), 100.0);
    cluster.run(1000.0);

    // Nothing of the second sweep ends for a long time: it must not be given everything meanwhile.
    cluster.launch(SweepNumber(2), (0, 1.0), 1e5);
    let launched = cluster.now;
    cluster.run(1000.0);
    let given = cluster
        .given
        .iter()
        .filter(|(at, sweep)| *at > launched && *sweep == SweepNumber(2))
        .count();

    assert!((1..=3).contains(&given), "{given} of four workers");
}
