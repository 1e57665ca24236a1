//! The core against a model: whatever workers do, every trial ends with one row and is always in exactly one place.

mod experiments;
mod fair_share;
mod fleet_steps;
mod stopping;
mod wide_trials;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ergodic_common::ids::{Epoch, Fence, LeaseId, Repeat, SweepNumber, WorkerId};
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::trial::CPU_F32;
use ergodic_common::{Outcome, Spec, TrialKey};
use proptest::prelude::*;

use crate::core::explanation::{RunningFinding, SweepFinding};
use crate::core::state::LeaseState;
use crate::core::verbs::crashes::MAX_UNDELIVERED;
use crate::core::*;
use crate::records::{DataPin, Finding, LeaseRow, SweepRow, SweepState, SweepTallies};

mod audits;
mod seals;

const TTL: Duration = Duration::from_secs(30);

fn sweep(number: SweepNumber, repeats: u32) -> Sweep {
    audited(number, repeats, 0.0)
}

/// A sweep of which this share is audited.
fn audited(number: SweepNumber, repeats: u32, audit: f64) -> Sweep {
    let text = format!(
        "audit = {audit:?}\nname = \"t\"\nrepeats = {repeats}\n[data]\ntrain = 64\n[model]\nkind = \"empty\"\n[grid]\nlr = [0.1, 0.2, 0.3]\n\
         batch_size = [8, 16]\n[where]\nkeep = \"lr * batch_size < 4\"\n"
    );
    read_sweep(number, text)
}

/// A running sweep with this file.
fn read_sweep(number: SweepNumber, text: String) -> Sweep {
    let source = SpecSource {
        file: "t".into(),
        text,
        ..SpecSource::default()
    };
    let spec = Arc::new(Spec::read_stored(&source).expect("a valid sweep"));

    let record = SweepRow {
        number,
        id: format!("sweep{number}").into(),
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

fn joining_worker(worker: &str, held: Vec<Fence>) -> JoiningWorker {
    JoiningWorker {
        worker: worker.into(),
        name: worker.into(),
        build: String::new(),
        slots: 1,
        numerics: vec![CPU_F32.into()],
        programs: false,
        experiments: Vec::new(),
        supply: None,
        begins_for: None,
        held,
    }
}

/// The world around a core: a store that remembers rows and fences, and what workers were granted.
struct CoreModel {
    core: Core,
    now: CoreTime,
    fences: BTreeSet<Fence>,
    rows: BTreeSet<TrialKey>,
    /// Share of trials that are audited.
    audit: f64,
    /// Audits that are due, with the process that the row is of.
    due: BTreeMap<TrialKey, WorkerId>,
    /// What the others found, with the same.
    found: BTreeMap<TrialKey, (WorkerId, Finding)>,
    granted: BTreeMap<WorkerId, BTreeMap<Fence, Vec<TrialKey>>>,
    states: Vec<SweepState>,
    given_up: Vec<GivenUpTrial>,
    /// Questions that no worker has answered yet.
    retractions: Vec<(WorkerId, Fence, u64)>,
    /// Duration of a trial.
    seconds: f64,
    /// Checkpoints as files.
    checkpoints: BTreeSet<TrialKey>,
}

impl CoreModel {
    fn new(repeats: u32) -> Self {
        Self::auditing(repeats, 0.0)
    }

    fn auditing(repeats: u32, audit: f64) -> Self {
        let mut world = Self {
            core: Core::new(Timing { lease_ttl: TTL }, Epoch(1), LeaseId(1)),
            now: CoreTime::ZERO,
            fences: BTreeSet::new(),
            rows: BTreeSet::new(),
            audit,
            due: BTreeMap::new(),
            found: BTreeMap::new(),
            granted: BTreeMap::new(),
            states: Vec::new(),
            given_up: Vec::new(),
            retractions: Vec::new(),
            seconds: 0.5,
            checkpoints: BTreeSet::new(),
        };
        let effects =
            world
                .core
                .on_sweep_added(audited(SweepNumber(1), repeats, audit), [], world.now);
        world.carry_out(effects);

        world
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut more = Vec::new();
        for effect in effects {
            match effect {
                Effect::Grant { lease, keys, .. } => {
                    assert_eq!(lease.trials.len(), keys.len() as u64);
                    assert!(self.fences.insert(lease.fence), "a fence is granted once");
                    self.granted
                        .entry(lease.worker)
                        .or_default()
                        .insert(lease.fence, keys);
                }
                Effect::EndLeases(ended) => self
                    .fences
                    .retain(|fence| ended.iter().all(|ended| ended.fence != *fence)),
                Effect::RevokeLeases(worker, fences) => {
                    let held = self.granted.entry(worker).or_default();
                    held.retain(|fence, _| !fences.contains(fence));
                }
                Effect::SetSweepState(_, state) => self.states.push(state),
                Effect::ShrinkLease(_) => {}
                Effect::DiscardCheckpoints(_, keys) => {
                    keys.iter().for_each(|key| _ = self.checkpoints.remove(key))
                }
                Effect::Retract {
                    worker,
                    fence,
                    trials,
                } => self.retractions.push((worker, fence, trials)),
                Effect::GiveUp(given_up) if given_up.is_audit => {
                    self.find(given_up.key, "nobody", Finding::Failed);
                    more.extend(self.core.on_audit_given_up(
                        given_up.sweep,
                        given_up.key,
                        true,
                        self.now,
                    ));
                }
                Effect::GiveUp(given_up) => {
                    assert!(
                        self.rows.insert(given_up.key),
                        "a trial with a row is condemned"
                    );
                    self.given_up.push(given_up.clone());
                    let outcome = Outcome::Failed {
                        cause: given_up.cause,
                    };
                    let row = StoredRow {
                        key: given_up.key,
                        outcome,
                        watched_metric: f64::NAN,
                        deciding_metric: f64::NAN,
                        seconds: 0.0,
                    };

                    more.extend(
                        self.core
                            .on_trial_given_up(given_up.sweep, &row, true, self.now),
                    );
                }
                other @ (Effect::RevertGiveUp(_) | Effect::LookUpRows(..)) => {
                    panic!("all is known and stands: {other:?}")
                }
            }
        }

        if !more.is_empty() {
            self.carry_out(more);
        }

        self.core.check_invariants().expect("the invariant holds");
        let kept = self
            .core
            .sweep(SweepNumber(1))
            .map_or(0, Sweep::checkpoint_count);
        assert_eq!(
            kept,
            self.checkpoints.len() as u64,
            "what is known to be kept is what is kept"
        );
    }

    /// A worker keeps a trial of its first lease; the file is in its place before the core hears of it.
    fn store_checkpoint(&mut self, worker: &str, n: usize) {
        let Some((fence, keys)) = self
            .granted
            .get(worker)
            .and_then(|held| held.first_key_value())
        else {
            return;
        };
        let fence = *fence;

        let key = keys[n % keys.len()];
        if self
            .core
            .is_working_on(&worker.into(), fence, SweepNumber(1), key)
        {
            assert!(!self.rows.contains(&key), "a trial with a row is kept");
            self.checkpoints.insert(key);
            let effects = self
                .core
                .on_checkpoint_stored(SweepNumber(1), key, n as u64);
            self.carry_out(effects);
        }
    }

    fn join(&mut self, worker: &str) {
        let held = self
            .granted
            .get(worker)
            .map_or_else(Vec::new, |leases| leases.keys().copied().collect());
        let effects = self
            .core
            .on_worker_joined(joining_worker(worker, held), self.now);
        self.carry_out(effects);
    }

    fn request_work(&mut self, worker: &str) {
        let effects = self.core.on_work_requested(&worker.into(), 2, self.now);
        self.carry_out(effects);
    }

    /// Delivers up to `n` results of the worker's first lease, as the store would take them.
    fn deliver_batch(&mut self, worker: &str, n: usize) {
        let Some((fence, keys)) = self
            .granted
            .get_mut(worker)
            .and_then(|held| held.pop_first())
        else {
            return;
        };
        let (now, later) = keys.split_at(n.min(keys.len()));
        if !later.is_empty() {
            self.granted
                .get_mut(worker)
                .expect("it was there")
                .insert(fence, later.to_vec());
        }

        let admission = self
            .core
            .admit_batch(&worker.into(), fence, now)
            .expect("trials of the lease");
        let fenced = admission == Admission::Compare || !self.fences.contains(&fence);
        let audit = matches!(admission, Admission::Audit { .. });

        let chosen = self.core.choose_audits(SweepNumber(1), now);
        let mut committed = CommitOutcome {
            fenced,
            ..CommitOutcome::default()
        };

        for key in now {
            let row = StoredRow {
                key: *key,
                outcome: Outcome::Completed,
                watched_metric: 0.5,
                deciding_metric: f64::NAN,
                seconds: self.seconds,
            };

            if self.rows.contains(key) {
                committed.already_stored.push(*key);
                if self.find(*key, worker, Finding::Same) {
                    committed.audited.push((row, Finding::Same));
                }
            } else if !fenced {
                assert!(!audit, "an audit of a trial without a row");
                self.rows.insert(*key);
                committed.stored.push(row);

                if chosen.contains(key) {
                    self.due.insert(*key, worker.into());
                    committed.audits_due.push(*key);
                }
            }
        }

        let effects = self.core.on_batch_committed(
            &worker.into(),
            fence,
            SweepNumber(1),
            &committed,
            self.now,
        );
        self.carry_out(effects);
    }

    /// Somebody has run a trial again whose audit is due, and is another process: as the store would have it.
    fn find(&mut self, key: TrialKey, worker: &str, finding: Finding) -> bool {
        let Some(origin) = self
            .due
            .get(&key)
            .filter(|origin| origin.as_str() != worker)
        else {
            return false;
        };
        self.found.insert(key, (origin.clone(), finding));
        self.due.remove(&key);
        true
    }

    /// The coordinator dies and another one takes up what the store holds.
    fn restart(&mut self, repeats: u32, leases: Vec<LeaseRow>) {
        self.core = Core::new(
            Timing { lease_ttl: TTL },
            Epoch(self.core.epoch.0 + 1),
            self.core.next_lease,
        );

        // They are looked at when all leases are known.
        let files = std::mem::take(&mut self.checkpoints);
        let failed = |key: &TrialKey| self.given_up.iter().any(|given_up| given_up.key == *key);
        let row = |key: &TrialKey| {
            let outcome = if failed(key) {
                Outcome::Failed {
                    cause: String::new(),
                }
            } else {
                Outcome::Completed
            };
            StoredRow {
                key: *key,
                outcome,
                watched_metric: 0.5,
                deciding_metric: f64::NAN,
                seconds: 0.5,
            }
        };
        let rows: Vec<StoredRow> = self.rows.iter().map(row).collect();

        let mut sweep = audited(SweepNumber(1), repeats, self.audit);
        sweep.record_audits(
            self.due
                .iter()
                .map(|(key, origin)| (*key, origin.clone(), None)),
        );

        sweep.record_audits(
            self.found
                .iter()
                .map(|(key, (origin, found))| (*key, origin.clone(), Some(*found))),
        );
        self.core.on_sweep_added(sweep, rows, self.now);

        for lease in leases {
            let effects = self.core.on_recovered_lease(lease, self.now);
            self.carry_out(effects);
        }

        for key in files {
            self.checkpoints.insert(key);
            let effects = self.core.on_checkpoint_stored(SweepNumber(1), key, 1);
            self.carry_out(effects);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_trial_ends_once_whatever_workers_do(
        repeats in 1_u32..30,
        audit in prop::sample::select(vec![0.0, 0.3, 1.0]),
        steps in prop::collection::vec((0..13_u8, 0..3_usize, 1..9_usize), 0..120),
    ) {
        let names = ["a", "b", "c"];
        let mut world = CoreModel::auditing(repeats, audit);
        let trials = world.core.sweep(SweepNumber(1)).expect("launched").spec.trial_count();
        for (what, who, n) in steps {
            let worker = names[who];
            world.now += Duration::from_millis(300);
            match what {
                0 => world.join(worker),
                1 | 2 => world.request_work(worker),
                3 | 4 => world.deliver_batch(worker, n),
                5 => world.core.on_session_ended(&worker.into(), SessionEnd::ByPeer, world.now),
                9 => world.steer(if n % 2 == 0 { Steering::Pause } else { Steering::Resume }),
                10 => world.retry(),
                11 => world.answer_retractions(),
                12 => world.store_checkpoint(worker, n),
                // It says what it runs, so that it can be blamed for.
                8 => {
                    let held: Vec<Fence> = world.granted.get(worker).into_iter().flat_map(|h| h.keys().copied()).collect();
                    let running = world.running(worker, |_| true).into_iter().take(n).collect();
                    world.core.on_heartbeat(&worker.into(), running, 0, &held, world.now);
                }
                6 => {
                    world.now += TTL / 2 * n as u32 / 3;
                    world.core.latest_time = world.now;
                    let effects = world.core.on_tick(world.now);
                    world.carry_out(effects);
                }
                _ => {
                    let leases = world.core.leases.values().map(|l| l.row.clone()).collect();
                    world.restart(repeats, leases);
                }
            }
        }
        world.steer(Steering::Resume);
        // One honest worker finishes what is left, once the others have gone and their leases have run out.
        names.iter().for_each(|name| world.core.on_session_ended(&(*name).into(), SessionEnd::ByPeer, world.now));
        world.now += 2 * TTL;
        world.core.latest_time = world.now;
        let effects = world.core.on_tick(world.now);
        world.carry_out(effects);
        // With every row there and nobody to audit them, the sweep has ended, and a user has it go on.
        let is_over = world.core.sweep(SweepNumber(1)).expect("launched").state == SweepState::Completed;
        world.join("z");
        if is_over {
            world.retry();
        }
        for _ in 0..10_000 {
            if world.core.sweep(SweepNumber(1)).expect("launched").state == SweepState::Completed {
                break;
            }
            world.request_work("z");
            world.deliver_batch("z", usize::MAX);
        }
        prop_assert_eq!(world.rows.len() as u64, trials);
        let counts = world.core.sweep(SweepNumber(1)).expect("launched").audits.counts;
        prop_assert_eq!((counts.remaining() as usize, (counts.due - counts.remaining()) as usize), (world.due.len(), world.found.len()));
        prop_assert!(world.due.values().all(|origin| origin.as_str() == "z"), "what z could audit was left: {:?}", world.due);
        prop_assert!(audit < 1.0 || counts.due == trials - world.given_up.len() as u64);
        let sweep = world.core.sweep(SweepNumber(1)).expect("launched");
        prop_assert_eq!(sweep.counts.done(), trials);
        prop_assert_eq!(sweep.state, SweepState::Completed);
        prop_assert_eq!((sweep.leased_count(), sweep.checkpoint_count()), (0, 0));
        prop_assert!(world.states.contains(&SweepState::Completed));
    }
}

#[test]
fn a_silent_workers_trials_are_given_to_another_and_counted_as_a_release() {
    let mut world = CoreModel::new(4);
    world.join("a");
    world.request_work("a");
    let first: Vec<TrialKey> = world.granted["a"].values().flatten().copied().collect();
    world
        .core
        .on_session_ended(&"a".into(), SessionEnd::ByPeer, world.now);
    world.now += TTL;

    world.core.latest_time = world.now;
    let effects = world.core.on_tick(world.now);
    world.carry_out(effects);
    assert_eq!(
        world
            .core
            .sweep(SweepNumber(1))
            .expect("launched")
            .tallies
            .lost_leases,
        1
    );
    world.join("b");
    world.request_work("b");

    let second: Vec<TrialKey> = world.granted["b"].values().flatten().copied().collect();
    assert_eq!(first, second);
}

impl Core {
    /// Steers a sweep, with a store that stores at once.
    fn on_steer(
        &mut self,
        sweep: SweepNumber,
        steering: Steering,
        now: CoreTime,
    ) -> Result<Vec<Effect>, String> {
        let change = self.validate_steering(sweep, steering)?;
        Ok(change.map_or_else(Vec::new, |change| self.on_sweep_steered(sweep, change, now)))
    }
}

impl CoreModel {
    fn steer(&mut self, steering: Steering) {
        // A sweep that is complete refuses.
        let effects = self
            .core
            .on_steer(SweepNumber(1), steering, self.now)
            .unwrap_or_default();
        self.carry_out(effects);
    }

    /// A worker gives back what it was asked for, but never its first trial, which runs.
    fn answer_retractions(&mut self) {
        let Some((worker, fence, trials)) = self.retractions.pop() else {
            return;
        };
        let Some(keys) = self
            .granted
            .get_mut(&worker)
            .and_then(|held| held.get_mut(&fence))
        else {
            return;
        };
        let retracted = keys.split_off(
            keys.len()
                .saturating_sub(trials as usize)
                .max(1)
                .min(keys.len()),
        );
        let effects = self
            .core
            .on_trials_retracted(&worker, fence, &retracted, self.now);

        self.carry_out(effects);
    }

    /// Failed trials are run again, as the store would have it.
    fn retry(&mut self) {
        if self
            .core
            .on_steer(SweepNumber(1), Steering::Retry, self.now)
            .is_ok()
        {
            let failed: Vec<TrialKey> = self
                .given_up
                .drain(..)
                .map(|given_up| given_up.key)
                .collect();
            failed.iter().for_each(|key| _ = self.rows.remove(key));
            let again = self
                .found
                .extract_if(.., |_, (_, finding)| *finding == Finding::Failed);
            let again: Vec<(TrialKey, WorkerId)> =
                again.map(|(key, (origin, _))| (key, origin)).collect();
            self.due.extend(again.iter().cloned());

            let effects = self
                .core
                .on_trials_reopened(SweepNumber(1), &failed, &again, self.now);
            self.carry_out(effects);
        }
    }

    /// A worker dies while it runs these trials, and its leases run out.
    fn die(&mut self, worker: &str, running: &[TrialKey]) {
        self.end_session(worker, SessionEnd::ByPeer, running);
    }

    /// A worker's session ends while it runs these trials, and its leases run out.
    fn end_session(&mut self, worker: &str, end: SessionEnd, running: &[TrialKey]) {
        let held: Vec<Fence> = self.granted[worker].keys().copied().collect();
        let running = self.running(worker, |key| running.contains(key));
        self.core
            .on_heartbeat(&worker.into(), running, 0, &held, self.now);
        self.core.on_session_ended(&worker.into(), end, self.now);
        self.now += TTL;
        self.core.latest_time = self.now;
        let effects = self.core.on_tick(self.now);
        self.carry_out(effects);
    }

    /// Trials that a worker holds, with their leases.
    fn running(&self, worker: &str, which: impl Fn(&TrialKey) -> bool) -> Vec<(LeaseId, TrialKey)> {
        let leases = self.granted.get(worker).into_iter().flatten();
        let trials = leases.flat_map(|(fence, keys)| keys.iter().map(|key| (fence.lease, *key)));
        trials.filter(|(_, key)| which(key)).collect()
    }

    fn held_by(&self, worker: &str) -> Vec<TrialKey> {
        self.granted
            .get(worker)
            .into_iter()
            .flat_map(BTreeMap::values)
            .flatten()
            .copied()
            .collect()
    }
}

#[test]
fn a_trial_that_kills_three_workers_is_given_up_and_all_others_are_run() {
    let mut world = CoreModel::new(4);
    let trials = world
        .core
        .sweep(SweepNumber(1))
        .expect("launched")
        .spec
        .trial_count();
    world.join("a");
    world.request_work("a");
    let culprit = world.held_by("a")[1];

    for worker in ["a", "b", "c", "d"] {
        world.join(worker);
        for _ in 0..1000 {
            world.request_work(worker);
            if world.held_by(worker).contains(&culprit) || world.rows.len() as u64 == trials {
                break;
            }
            world.deliver_batch(worker, usize::MAX);
        }

        if world.held_by(worker).contains(&culprit) {
            // After two deaths it is run alone, so that the third worker has nothing else to lose.
            assert!(
                worker != "c" || world.held_by(worker) == [culprit],
                "{worker} holds {:?}",
                world.held_by(worker)
            );

            world.die(worker, &[culprit]);
        }
    }

    assert_eq!(world.given_up.len(), 1);
    assert_eq!(
        world.given_up[0].cause,
        "3 workers crashed that may have been running it: a, b, c"
    );
    assert_eq!(world.given_up[0].key, culprit);

    let sweep = world.core.sweep(SweepNumber(1)).expect("launched");
    assert_eq!(
        (sweep.counts.completed, sweep.counts.failed),
        (trials - 1, 1)
    );

    assert_eq!(sweep.state, SweepState::Completed);
}

#[test]
fn silence_a_goodbye_and_a_worker_that_comes_back_blame_nobody() {
    let mut world = CoreModel::new(4);
    let blamed = |world: &CoreModel, key: TrialKey| {
        let sweep = world.core.sweep(SweepNumber(1)).expect("launched");
        sweep
            .quarantine
            .crashed_workers(sweep.spec.grid.locate_trial(key))
            .count()
    };

    world.join("a");
    world.request_work("a");
    let key = world.held_by("a")[0];
    let running = world.running("a", |_| true);

    // A machine that sleeps: its session is ended because nothing is heard, and its leases run out.
    world
        .core
        .on_heartbeat(&"a".into(), running, 0, &[], world.now);
    world.now += TTL;
    world
        .core
        .on_session_ended(&"a".into(), SessionEnd::ByPeer, world.now);
    world.core.latest_time = world.now;
    let effects = world.core.on_tick(world.now);
    world.carry_out(effects);

    assert!(world.fences.is_empty() && blamed(&world, key) == 0);

    // A session that does not end by the worker's side is no crash, however soon it ends after a sign of life.
    for end in [SessionEnd::BySilence, SessionEnd::ByCoordinator] {
        world.granted.clear();
        world.join("a");
        world.request_work("a");
        assert_eq!(world.held_by("a")[0], key);

        world.end_session("a", end, &[key]);
        assert!(world.fences.is_empty() && blamed(&world, key) == 0);
    }

    for (worker, dead) in [("b", 1), ("c", 2)] {
        world.join(worker);
        world.request_work(worker);
        assert_eq!(world.held_by(worker)[0], key);
        world.die(worker, &[key]);
        assert_eq!(blamed(&world, key), dead);
    }

    assert_eq!(
        world
            .core
            .sweep(SweepNumber(1))
            .expect("launched")
            .quarantine
            .waiting_count(),
        1
    );

    world.granted.clear();
    world.join("b");
    assert_eq!(
        (
            blamed(&world, key),
            world
                .core
                .sweep(SweepNumber(1))
                .expect("launched")
                .quarantine
                .waiting_count()
        ),
        (1, 0)
    );

    world.request_work("b");
    let effects = world.core.on_worker_left(&"b".into(), world.now);
    world.carry_out(effects);
    assert_eq!(blamed(&world, key), 1);
}

#[test]
fn whoever_has_not_said_what_it_ran_is_taken_to_have_run_its_next_trials() {
    let mut world = CoreModel::new(400);
    world.seconds = 0.01;
    world.join("a");

    for _ in 0..3 {
        world.request_work("a");
        world.deliver_batch("a", usize::MAX);
    }

    world.request_work("a");
    let held = world.held_by("a");
    assert!(
        held.len() > 100,
        "short trials are leased by the hundred: {}",
        held.len()
    );

    world.die("a", &[]);
    let sweep = world.core.sweep(SweepNumber(1)).expect("launched");
    let blamed = held.iter().filter(|key| {
        sweep
            .quarantine
            .crashed_workers(sweep.spec.grid.locate_trial(**key))
            .count()
            == 1
    });
    assert_eq!(blamed.count(), MAX_UNDELIVERED + 1);

    world.join("b");
    world.request_work("b");
    let held = world.held_by("b");
    let said = world.held_by("b")[5];
    world.die("b", &[said]);
    let sweep = world.core.sweep(SweepNumber(1)).expect("launched");
    let blamed = |key: &TrialKey| {
        sweep
            .quarantine
            .crashed_workers(sweep.spec.grid.locate_trial(*key))
            .any(|name| name == "b")
    };
    let blamed: Vec<TrialKey> = held.iter().copied().filter(blamed).collect();

    assert_eq!(blamed, [said], "it has one slot, and said what that ran");
}

#[test]
fn one_worker_makes_room_for_a_suspect_while_the_others_go_on_with_the_next_sweep() {
    let mut world = CoreModel::new(1);
    world.join("a");
    world.request_work("a");
    let suspect = world.held_by("a")[0];
    world.die("a", &[suspect]);
    world.join("aa");

    world.request_work("aa");
    assert!(
        world.held_by("aa").contains(&suspect),
        "it is run like all others at first"
    );
    world.die("aa", &[suspect]);

    let first = Steering::Share {
        priority: Some(1),
        weight: None,
    };
    let effects = world
        .core
        .on_steer(SweepNumber(1), first, world.now)
        .expect("a running sweep has a share");
    world.carry_out(effects);

    let effects = world
        .core
        .on_sweep_added(sweep(SweepNumber(2), 200), [], world.now);
    world.carry_out(effects);
    let holds = |world: &CoreModel, worker: &str, number: SweepNumber| {
        let of =
            |lease: &&LeaseState| lease.row.worker.as_str() == worker && lease.row.sweep == number;
        world.core.leases.values().filter(of).count()
    };

    // The first sweep's other trials first.
    for worker in ["b", "c"] {
        world.join(worker);
    }

    for _ in 0..9 {
        world.request_work("b");
        let first = world
            .granted
            .get("b")
            .into_iter()
            .flat_map(|held| held.keys())
            .find(|fence| {
                world
                    .core
                    .leases
                    .get(fence.lease)
                    .is_some_and(|lease| lease.row.sweep == SweepNumber(2))
            });
        if first.is_some() || world.held_by("b") == [suspect] {
            break;
        }

        world.deliver_batch("b", usize::MAX);
    }

    assert_eq!(world.held_by("b"), [suspect]);
    world.request_work("b");
    assert_eq!(
        (
            holds(&world, "b", SweepNumber(1)),
            holds(&world, "b", SweepNumber(2))
        ),
        (1, 0),
        "it runs nothing beside the suspect"
    );

    world.request_work("c");
    assert_eq!(
        (
            holds(&world, "c", SweepNumber(1)),
            holds(&world, "c", SweepNumber(2))
        ),
        (0, 1)
    );
}

/// Three workers crash while they run one trial; its give-up, which is under way.
fn with_unstored_give_up(world: &mut CoreModel) -> GivenUpTrial {
    world.join("a");
    world.request_work("a");
    let trial = world.held_by("a")[0];
    world.die("a", &[trial]);
    world.join("b");
    world.request_work("b");

    world.die("b", &[trial]);
    world.join("c");

    while !world.held_by("c").contains(&trial) {
        world.deliver_batch("c", usize::MAX);
        world.request_work("c");
    }

    crash_with_unstored_give_up(world, "c", trial)
}

/// A worker crashes while it runs a trial, as the third one; the trial's give-up, which is under way.
fn crash_with_unstored_give_up(
    world: &mut CoreModel,
    worker: &str,
    trial: TrialKey,
) -> GivenUpTrial {
    let held: Vec<Fence> = world.granted[worker].keys().copied().collect();
    let running = world.running(worker, |key| *key == trial);
    world
        .core
        .on_heartbeat(&worker.into(), running, 0, &held, world.now);
    world
        .core
        .on_session_ended(&worker.into(), SessionEnd::ByPeer, world.now);
    world.now += TTL;
    world.core.latest_time = world.now;

    let mut effects = world.core.on_tick(world.now);
    let at = effects
        .iter()
        .position(|effect| matches!(effect, Effect::GiveUp(_)))
        .expect("it is given up");
    let Effect::GiveUp(given_up) = effects.remove(at) else {
        unreachable!("it was found there")
    };

    world.carry_out(effects);
    assert_eq!(given_up.key, trial);
    given_up
}

fn failure(given_up: &GivenUpTrial) -> StoredRow {
    let outcome = Outcome::Failed {
        cause: given_up.cause.clone(),
    };
    StoredRow {
        key: given_up.key,
        outcome,
        watched_metric: f64::NAN,
        deciding_metric: f64::NAN,
        seconds: 0.0,
    }
}

fn count_give_ups(effects: &[Effect]) -> usize {
    effects
        .iter()
        .filter(|effect| matches!(effect, Effect::GiveUp(_)))
        .count()
}

#[test]
fn a_give_up_that_cannot_be_stored_is_tried_again_unless_a_crashed_worker_comes_back() {
    let mut world = CoreModel::new(1);
    let given_up = with_unstored_give_up(&mut world);
    world.core.on_give_up_failed(given_up.clone());
    assert!(
        world
            .core
            .on_tick(world.now)
            .contains(&Effect::GiveUp(given_up.clone()))
    );

    assert_eq!(count_give_ups(&world.core.on_tick(world.now)), 0);
    world.core.on_give_up_failed(given_up);
    world.join("b");
    assert_eq!(
        count_give_ups(&world.core.on_tick(world.now)),
        0,
        "two have crashed in it, and one is back"
    );

    world.core.check_invariants().expect("the invariant holds");
}

#[test]
fn a_give_up_under_way_when_a_crashed_worker_comes_back_is_settled_as_it_was_stored_and_taken_back()
{
    for (leased, stored) in [(false, true), (true, true), (true, false)] {
        let mut world = CoreModel::new(1);
        let given_up = with_unstored_give_up(&mut world);
        world.join("b");

        if leased {
            while !world.held_by("b").contains(&given_up.key) {
                world.deliver_batch("b", usize::MAX);
                world.request_work("b");
            }
        }

        let row = failure(&given_up);
        let effects = world
            .core
            .on_trial_given_up(SweepNumber(1), &row, stored, world.now);
        world.core.check_invariants().expect("the invariant holds");
        let sweep = world.core.sweep(SweepNumber(1)).expect("launched");

        if !stored {
            // It had a row by then, which is asked for, and is what counts.
            assert_eq!(
                effects,
                [Effect::LookUpRows(SweepNumber(1), vec![given_up.key])]
            );
            let good = StoredRow {
                outcome: Outcome::Completed,
                ..row
            };
            world
                .core
                .on_rows_looked_up(SweepNumber(1), &[good], &[], world.now);

            world.core.check_invariants().expect("the invariant holds");
            assert_eq!(
                world
                    .core
                    .sweep(SweepNumber(1))
                    .expect("launched")
                    .counts
                    .failed,
                0
            );
            continue;
        }

        assert_eq!(sweep.counts.failed, 1, "as the store has it");
        let withdrawal = GiveUpReversal {
            sweep: SweepNumber(1),
            key: given_up.key,
            is_audit: false,
        };
        assert_eq!(effects.last(), Some(&Effect::RevertGiveUp(withdrawal)));

        world.core.on_give_up_reversal_failed(withdrawal);
        assert!(
            world
                .core
                .on_tick(world.now)
                .contains(&Effect::RevertGiveUp(withdrawal)),
            "it is tried again"
        );

        let effects =
            world
                .core
                .on_trials_reopened(SweepNumber(1), &[given_up.key], &[], world.now);
        world.core.check_invariants().expect("the invariant holds");
        assert_eq!(
            world
                .core
                .sweep(SweepNumber(1))
                .expect("launched")
                .counts
                .failed,
            0
        );

        drop(effects);
    }
}

#[test]
fn a_row_that_nobody_told_of_is_looked_up_when_its_trial_is_delivered() {
    let mut world = CoreModel::new(1);
    world.join("a");
    world.request_work("a");
    let fence = *world.granted["a"].keys().next().expect("a lease");
    let key = world.held_by("a")[0];
    let committed = CommitOutcome {
        already_stored: vec![key],
        ..CommitOutcome::default()
    };
    let effects =
        world
            .core
            .on_batch_committed(&"a".into(), fence, SweepNumber(1), &committed, world.now);

    world
        .core
        .check_invariants()
        .expect("it stays where it is until its row is known");
    assert!(
        effects.contains(&Effect::LookUpRows(SweepNumber(1), vec![key])),
        "{effects:?}"
    );

    let row = StoredRow {
        key,
        outcome: Outcome::Completed,
        watched_metric: 0.5,
        deciding_metric: f64::NAN,
        seconds: 0.5,
    };
    world
        .core
        .on_rows_looked_up(SweepNumber(1), &[row.clone(), row], &[], world.now);

    world.core.check_invariants().expect("the invariant holds");
    assert_eq!(
        world
            .core
            .sweep(SweepNumber(1))
            .expect("launched")
            .counts
            .completed,
        1
    );
}

#[test]
fn a_grant_that_cannot_be_stored_is_made_again_later() {
    let mut world = CoreModel::new(4);
    world.join("a");
    let effects = world.core.on_work_requested(&"a".into(), 2, world.now);
    let Some(Effect::Grant { lease, .. }) = effects.first() else {
        panic!("expected a grant: {effects:?}")
    };
    let effects = world.core.on_grant_failed(lease);
    world.carry_out(effects);

    assert!(!world.granted.contains_key("a"));
    let effects = world.core.on_tick(world.now);
    world.carry_out(effects);
    assert_eq!(world.granted["a"].len(), 1);
}

#[test]
fn a_worker_that_comes_back_keeps_its_lease_and_one_that_forgot_it_does_not() {
    let mut world = CoreModel::new(4);
    world.join("a");
    world.request_work("a");
    world
        .core
        .on_session_ended(&"a".into(), SessionEnd::ByPeer, world.now);
    world.join("a");
    assert_eq!((world.granted["a"].len(), world.fences.len()), (1, 1));

    world.granted.clear();
    world
        .core
        .on_session_ended(&"a".into(), SessionEnd::ByPeer, world.now);
    world.join("a");
    assert!(world.fences.is_empty(), "the lease went back at once");
}

#[test]
fn a_lease_that_its_worker_does_not_name_runs_out() {
    let mut world = CoreModel::new(4);
    world.join("a");
    world.request_work("a");
    let held: Vec<Fence> = world.granted["a"].keys().copied().collect();
    let beat = |world: &mut CoreModel, held: &[Fence]| {
        for _ in 0..4 {
            world.now += TTL / 4;
            // Ticks come often; a late one would mean that the coordinator itself was held up.
            world.core.latest_time = world.now;
            world
                .core
                .on_heartbeat(&"a".into(), vec![], 0, held, world.now);
            let effects = world.core.on_tick(world.now);
            world.carry_out(effects);
        }
    };
    beat(&mut world, &held);

    assert_eq!(world.fences.len(), 1);
    beat(&mut world, &[]);
    assert!(world.fences.is_empty());
}

#[test]
fn time_in_which_the_coordinator_was_held_up_does_not_count() {
    let mut world = CoreModel::new(4);
    world.join("a");
    world.request_work("a");
    world.now += 3 * TTL;
    let effects = world.core.on_tick(world.now);
    world.carry_out(effects);
    assert_eq!(world.fences.len(), 1, "nobody could be heard meanwhile");
}

#[test]
fn a_sweep_that_a_worker_cannot_work_on_does_not_keep_it_from_the_next() {
    let mut world = CoreModel::new(4);
    let effects = world
        .core
        .on_sweep_added(sweep(SweepNumber(2), 4), [], world.now);
    world.carry_out(effects);
    world.join("a");
    world.request_work("a");
    let fence = *world.granted["a"].keys().next().expect("granted");
    let effects = world
        .core
        .on_lease_released(&"a".into(), fence, "no data".into(), world.now);
    world.carry_out(effects);

    let effects = world.core.on_work_requested(&"a".into(), 2, world.now);
    assert!(
        matches!(&effects[..], [Effect::Grant { lease, .. }] if lease.sweep == SweepNumber(2)),
        "{effects:?}"
    );
    let findings = world
        .core
        .explain_sweep(world.core.sweep(SweepNumber(1)).expect("launched"));

    let unable = SweepFinding::Running(RunningFinding::WorkerUnable {
        worker: "a".to_owned(),
        why: "no data".to_owned(),
    });
    assert!(findings.contains(&unable), "{findings:?}");
}

#[test]
fn repeats_are_interleaved_over_cells_and_classes() {
    let mut world = CoreModel::new(8);
    world.join("a");
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();

    for _ in 0..9 {
        world.request_work("a");
        for key in world.granted["a"].values().flatten() {
            *seen.entry(key.cell.0).or_default() += 1;
        }

        world.deliver_batch("a", usize::MAX);
        let low = seen.values().min();
        let high = seen.values().max();

        if seen.len() as u64
            == world
                .core
                .sweep(SweepNumber(1))
                .expect("launched")
                .spec
                .grid
                .cell_count()
        {
            assert!(high.zip(low).is_some_and(|(h, l)| h - l <= 4), "{seen:?}");
        }
    }
}

#[test]
fn a_trial_is_kept_by_the_holder_of_its_lease_alone_and_until_it_has_its_row() {
    let mut world = CoreModel::new(4);
    world.join("a");
    world.request_work("a");
    let (fence, keys) = world.granted["a"]
        .first_key_value()
        .map(|(fence, keys)| (*fence, keys.clone()))
        .expect("granted");
    let key = keys[0];
    assert!(
        world
            .core
            .is_working_on(&"a".into(), fence, SweepNumber(1), key)
    );

    let foreign = TrialKey {
        cell: key.cell,
        repeat: Repeat(3),
    };
    let older = Fence {
        epoch: Epoch(fence.epoch.0 - 1),
        ..fence
    };

    let newer = Fence {
        epoch: Epoch(fence.epoch.0 + 1),
        ..fence
    };
    for (worker, fence, sweep, key) in [
        ("b", fence, 1, key),
        ("a", older, 1, key),
        ("a", newer, 1, key),
        ("a", fence, 2, key),
        ("a", fence, 1, foreign),
    ] {
        assert!(
            !world
                .core
                .is_working_on(&worker.into(), fence, SweepNumber(sweep), key),
            "{worker} {fence:?} {sweep} {key}"
        );
    }

    world.store_checkpoint("a", 0);
    assert_eq!(
        (
            world.core.checkpoint_steps(SweepNumber(1), key),
            world.checkpoints.len()
        ),
        (Some(0), 1)
    );
    world.deliver_batch("a", 1);

    assert_eq!(
        (
            world.core.checkpoint_steps(SweepNumber(1), key),
            world.checkpoints.len()
        ),
        (None, 0)
    );
    assert!(
        !world
            .core
            .is_working_on(&"a".into(), fence, SweepNumber(1), key),
        "it has its row"
    );

    // One that was on its way into its place meanwhile.
    assert_eq!(
        world.core.on_checkpoint_stored(SweepNumber(1), key, 7),
        [Effect::DiscardCheckpoints(SweepNumber(1), vec![key])]
    );
    assert_eq!(
        world.core.on_checkpoint_stored(SweepNumber(9), key, 7),
        [Effect::DiscardCheckpoints(SweepNumber(9), vec![key])]
    );
}

#[test]
fn a_checkpoint_outlives_its_worker_and_not_its_sweep() {
    let mut world = CoreModel::new(4);
    world.join("a");
    world.request_work("a");
    world.store_checkpoint("a", 0);
    let key = *world.checkpoints.first().expect("kept");
    world.die("a", &[key]);

    world.join("b");
    world.request_work("b");
    assert!(
        world.held_by("b").contains(&key)
            && world.core.checkpoint_steps(SweepNumber(1), key).is_some()
    );
    world.steer(Steering::Cancel);
    assert!(world.checkpoints.is_empty());
}

#[test]
fn a_foreign_trial_is_not_admitted_and_a_foreign_lease_is_only_compared() {
    let mut world = CoreModel::new(4);
    world.join("a");
    world.request_work("a");
    let fence = *world.granted["a"].keys().next().expect("granted");
    let alien = TrialKey::new(0, 99);
    assert_eq!(
        world.core.admit_batch(&"a".into(), fence, &[alien]),
        Err(alien)
    );

    assert_eq!(
        world.core.admit_batch(&"b".into(), fence, &[]),
        Ok(Admission::Compare)
    );
    assert_eq!(
        world.core.admit_batch(
            &"a".into(),
            Fence {
                epoch: Epoch(7),
                ..fence
            },
            &[]
        ),
        Ok(Admission::Compare)
    );

    assert_eq!(
        world.core.admit_batch(&"a".into(), fence, &[]),
        Ok(Admission::Store {
            sweep: SweepNumber(1)
        })
    );
}

#[test]
fn a_paused_sweep_keeps_its_leases_gives_nothing_out_and_goes_on_when_resumed() {
    let mut world = CoreModel::new(4);
    world.join("a");
    world.request_work("a");
    let held = world.held_by("a");
    world.steer(Steering::Pause);
    assert_eq!(world.held_by("a"), held, "what is begun is finished");

    world.deliver_batch("a", usize::MAX);
    world.request_work("a");
    assert_eq!(
        (world.held_by("a").len(), world.rows.len()),
        (0, held.len())
    );

    world.steer(Steering::Resume);
    assert!(
        !world.held_by("a").is_empty(),
        "the wish is answered at once"
    );

    assert_eq!(
        world.core.sweep(SweepNumber(1)).expect("launched").state,
        SweepState::Running
    );
}

#[test]
fn a_sweep_that_has_ended_cannot_be_paused_or_resumed_and_none_without_failures_retried() {
    let mut world = CoreModel::new(1);
    let refused = |world: &mut CoreModel, steering| {
        world
            .core
            .on_steer(SweepNumber(1), steering, CoreTime::ZERO)
            .expect_err("refused")
    };
    assert!(refused(&mut world, Steering::Retry).contains("no failed trial"));

    world.steer(Steering::Cancel);
    for steering in [Steering::Pause, Steering::Resume, Steering::Retry] {
        assert!(refused(&mut world, steering).contains("was cancelled"));
    }

    assert_eq!(
        world
            .core
            .validate_steering(SweepNumber(1), Steering::Cancel),
        Ok(None),
        "it is so already"
    );
}

#[test]
fn cancelling_revokes_and_nothing_is_granted_afterwards() {
    let mut world = CoreModel::new(4);
    world.join("a");
    world.request_work("a");
    let effects = world
        .core
        .on_steer(SweepNumber(1), Steering::Cancel, world.now)
        .expect("a running sweep can be cancelled");
    assert!(
        effects
            .iter()
            .any(|e| matches!(e, Effect::RevokeLeases(worker, _) if worker.as_str() == "a"))
    );

    world.carry_out(effects);
    world.request_work("a");
    assert!(world.fences.is_empty() && world.granted["a"].is_empty());
}

#[test]
fn a_straggler_gives_back_what_another_can_finish_sooner_and_is_asked_once() {
    let mut world = CoreModel::new(40);
    world.seconds = 0.01;

    for worker in ["fast", "slow"] {
        world.join(worker);
        world.request_work(worker);
    }

    // Both looked alike; then one of them says nothing more.
    for _ in 0..2 {
        world.deliver_batch("slow", usize::MAX);
        world.request_work("slow");
    }

    let held = world.held_by("slow");
    assert!(held.len() > 10, "a lease for a fast worker: {}", held.len());

    for _ in 0..100 {
        world.deliver_batch("fast", usize::MAX);
        world.request_work("fast");
    }

    assert_eq!(
        (world.held_by("fast").len(), world.retractions.len()),
        (0, 0),
        "as fast as it was, it will soon be done"
    );

    for _ in 0..5 {
        world.now += Duration::from_secs(1);
        world.core.latest_time = world.now;
        let effects = world.core.on_tick(world.now);
        world.carry_out(effects);
    }

    let [(worker, _, trials)] = &world.retractions[..] else {
        panic!("one question: {:?}", world.retractions)
    };
    assert!(
        worker.as_str() == "slow" && *trials as usize >= held.len() * 3 / 4,
        "{trials} of {}",
        held.len()
    );

    world.answer_retractions();
    assert!(
        world.held_by("fast").len() > 1
            && world.held_by("slow") == held[..world.held_by("slow").len()]
    );

    for _ in 0..50 {
        world.deliver_batch("fast", usize::MAX);
        world.request_work("fast");
    }

    world.deliver_batch("slow", usize::MAX);
    assert_eq!(
        world.core.sweep(SweepNumber(1)).expect("launched").state,
        SweepState::Completed
    );
}
