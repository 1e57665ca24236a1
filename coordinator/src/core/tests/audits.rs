//! Audits: who may make them, when a sweep waits for them, and what becomes of those that fail.

use std::time::Duration;

use crate::core::explanation::{SweepFinding, UserAction};
use crate::core::tests::*;
use crate::records::{Finding, LeaseRow, SweepState};
use ergodic_common::ids::SweepNumber;

impl CoreModel {
    fn counts(&self) -> (u64, u64, u64, u64) {
        let counts = self
            .core
            .sweep(SweepNumber(1))
            .expect("launched")
            .audits
            .counts;
        (counts.due, counts.same, counts.failed, counts.remaining())
    }

    fn state(&self) -> SweepState {
        self.core.sweep(SweepNumber(1)).expect("launched").state
    }

    /// Takes and delivers until nothing is there for this worker.
    fn work(&mut self, worker: &str) {
        self.request_work(worker);
        while !self.held_by(worker).is_empty() {
            self.deliver_batch(worker, usize::MAX);
            self.request_work(worker);
        }
    }

    fn tick(&mut self) {
        self.core.latest_time = self.now;
        let effects = self.core.on_tick(self.now);
        self.carry_out(effects);
    }
}

#[test]
fn whoever_is_alone_audits_nothing_and_the_sweep_ends() {
    let mut world = CoreModel::auditing(4, 1.0);
    world.join("a");
    world.work("a");
    let trials = world.rows.len() as u64;
    assert_eq!(
        (world.state(), world.counts()),
        (SweepState::Completed, (trials, 0, 0, trials))
    );

    let findings = world
        .core
        .explain_sweep(world.core.sweep(SweepNumber(1)).expect("launched"));
    let audits = findings
        .iter()
        .find(|finding| matches!(finding, SweepFinding::Audits { .. }))
        .expect("audits were due");

    let SweepFinding::Audits { counts, state } = audits else {
        panic!("{audits:?}");
    };
    assert_eq!(
        (counts.remaining(), *state),
        (trials, SweepState::Completed)
    );
    assert_eq!(audits.actions(), [UserAction::Retry]);
}

#[test]
fn another_process_of_whatever_name_audits_after_all_fresh_trials_are_given_out() {
    let mut world = CoreModel::auditing(4, 1.0);
    world.join("a");
    let joining = JoiningWorker {
        name: "a".into(),
        ..joining_worker("b", Vec::new())
    };
    let effects = world.core.on_worker_joined(joining, world.now);
    world.carry_out(effects);

    world.request_work("a");
    world.deliver_batch("a", 1);
    world.request_work("b");
    let rows = world.rows.clone();
    assert!(
        world.held_by("b").iter().all(|key| !rows.contains(key)),
        "fresh trials go first"
    );

    while world
        .core
        .sweep(SweepNumber(1))
        .expect("launched")
        .has_pending()
    {
        world.deliver_batch("a", usize::MAX);
        world.request_work("a");
    }

    world.deliver_batch("a", usize::MAX);
    // What is left for the first one is what the other has not yet delivered.
    world.request_work("a");
    assert!(world.held_by("a").is_empty() && world.state() == SweepState::Running);

    for _ in 0..2 {
        world.work("b");
        world.work("a");
    }

    let trials = world.rows.len() as u64;
    assert_eq!(
        (world.state(), world.counts()),
        (SweepState::Completed, (trials, trials, 0, 0))
    );
}

#[test]
fn a_sweep_waits_for_an_auditor_that_may_come_back_and_no_longer() {
    let mut world = CoreModel::auditing(2, 1.0);
    for worker in ["a", "b"] {
        world.join(worker);
    }

    world
        .core
        .on_session_ended(&"b".into(), SessionEnd::ByPeer, world.now);
    world.work("a");
    assert_eq!(world.state(), SweepState::Running);
    world.now += TTL / 2;
    world.tick();
    assert_eq!(world.state(), SweepState::Running, "it may come back");

    world.now += TTL;
    world.tick();
    assert_eq!(world.state(), SweepState::Completed);
    assert_eq!(world.counts().1, 0);

    // One has joined meanwhile: what was left is made when somebody asks for it.
    world.join("c");
    world.work("c");
    assert_eq!(world.counts().1, 0, "the sweep has ended");
    world.retry();
    world.work("c");
    let trials = world.rows.len() as u64;
    assert_eq!(
        (world.state(), world.counts()),
        (SweepState::Completed, (trials, trials, 0, 0))
    );
}

#[test]
fn one_that_cannot_work_on_the_sweep_or_computes_something_else_is_not_waited_for() {
    let mut world = CoreModel::auditing(2, 1.0);
    let other = JoiningWorker {
        numerics: vec!["other/1".into()],
        ..joining_worker("c", Vec::new())
    };
    let effects = world.core.on_worker_joined(other, world.now);
    world.carry_out(effects);

    world.join("b");
    world.request_work("b");
    let fence = *world.granted["b"].keys().next().expect("granted");
    world.granted.clear();
    let effects = world
        .core
        .on_lease_released(&"b".into(), fence, "no data".into(), world.now);
    world.carry_out(effects);

    world.join("a");
    world.work("a");
    assert_eq!(
        (world.state(), world.counts().1),
        (SweepState::Completed, 0)
    );
}

#[test]
fn after_a_restart_it_is_known_whose_the_rows_are_and_workers_are_waited_for() {
    let mut world = CoreModel::auditing(4, 1.0);
    world.join("a");
    world.join("b");
    world.work("a");
    world.request_work("b");
    world.deliver_batch("b", 1);

    let leases: Vec<LeaseRow> = world.core.leases.values().map(|l| l.row.clone()).collect();
    assert!(
        world.counts().1 == 1 && leases.iter().all(|row| row.audits == Some("a".into())),
        "{leases:?}"
    );
    world.restart(4, leases);

    assert_eq!((world.state(), world.counts().1), (SweepState::Running, 1));
    world.join("a");
    world.request_work("a");
    assert!(world.held_by("a").is_empty(), "they are its own rows");
    world.now += TTL / 2;
    world.tick();

    assert_eq!(
        world.state(),
        SweepState::Running,
        "the other one may come back"
    );
    world.join("b");

    world.work("b");
    let trials = world.rows.len() as u64;
    assert_eq!(
        (world.state(), world.counts()),
        (SweepState::Completed, (trials, trials, 0, 0))
    );
}

#[test]
fn a_late_result_of_another_process_is_an_audit_and_one_that_comes_again_is_none() {
    let mut world = CoreModel::auditing(1, 1.0);
    world.join("a");
    world.request_work("a");
    let (fence, keys) = world.granted["a"]
        .first_key_value()
        .map(|(f, k)| (*f, k.clone()))
        .expect("granted");

    world
        .core
        .on_session_ended(&"a".into(), SessionEnd::ByPeer, world.now);
    world.now += 3 * TTL;
    world.tick();
    world.join("b");
    world.work("b");
    assert!(world.rows.contains(&keys[0]) && world.state() == SweepState::Completed);

    let committed = CommitOutcome {
        already_stored: vec![keys[0]],
        fenced: true,
        ..CommitOutcome::default()
    };

    let row = StoredRow {
        key: keys[0],
        outcome: Outcome::Completed,
        watched_metric: 0.5,
        deciding_metric: f64::NAN,
        seconds: 1.0,
    };
    let audited = CommitOutcome {
        audited: vec![(row, Finding::Same)],
        ..committed.clone()
    };

    for (committed, duplicates) in [(audited, 0), (committed, 1)] {
        let effects = world.core.on_batch_committed(
            &"a".into(),
            fence,
            SweepNumber(1),
            &committed,
            world.now,
        );
        world.carry_out(effects);
        let tallies = world.core.sweep(SweepNumber(1)).expect("launched").tallies;
        assert_eq!((world.counts().1, tallies.duplicates), (1, duplicates));
    }
}

#[test]
fn an_audit_that_kills_three_workers_fails_alone_and_its_row_stays() {
    let mut world = CoreModel::auditing(4, 1.0);
    world.join("a");
    world.work("a");
    let trials = world.rows.len() as u64;

    // It ended because nobody else was there, and goes on.
    world.retry();
    let mut culprit = None;

    for worker in ["b", "c", "d", "e"] {
        world.join(worker);
        for _ in 0..1000 {
            world.request_work(worker);
            let held = world.held_by(worker);
            let culprit = *culprit.get_or_insert_with(|| held[0]);
            if held.contains(&culprit) || held.is_empty() {
                break;
            }

            world.deliver_batch(worker, usize::MAX);
        }

        let culprit = culprit.expect("an audit was given out");
        if world.held_by(worker).contains(&culprit) {
            assert!(
                worker != "d" || world.held_by(worker) == [culprit],
                "{worker}: {:?}",
                world.held_by(worker)
            );

            world.die(worker, &[culprit]);
        }
    }

    assert!(world.given_up.is_empty(), "its trial has its row");
    assert_eq!(
        (world.state(), world.counts()),
        (SweepState::Completed, (trials, trials - 1, 1, 0))
    );
    assert_eq!(
        world
            .core
            .sweep(SweepNumber(1))
            .expect("launched")
            .counts
            .completed,
        trials
    );

    world.retry();
    assert_eq!(
        (world.state(), world.counts()),
        (SweepState::Running, (trials, trials - 1, 0, 1))
    );
    world.work("e");

    assert_eq!(
        (world.state(), world.counts()),
        (SweepState::Completed, (trials, trials, 0, 0))
    );
}

/// Three workers crash while they make one audit; its give-up, which is under way.
fn with_unstored_audit_give_up(world: &mut CoreModel) -> GivenUpTrial {
    world.join("a");
    world.work("a");
    // It ended because nobody else was there, and goes on.
    world.retry();

    let mut culprit = None;
    for worker in ["b", "c", "d"] {
        world.join(worker);
        world.request_work(worker);
        let culprit = *culprit.get_or_insert_with(|| world.held_by(worker)[0]);
        while !world.held_by(worker).contains(&culprit) {
            world.deliver_batch(worker, usize::MAX);
            world.request_work(worker);
        }

        if worker == "d" {
            return crash_with_unstored_give_up(world, worker, culprit);
        }
        world.die(worker, &[culprit]);
    }

    unreachable!("the third one returns")
}

#[test]
fn an_audit_that_failed_is_due_again_only_if_a_crashed_worker_has_come_back_meanwhile() {
    for comes_back in [false, true] {
        let mut world = CoreModel::auditing(4, 1.0);
        let given_up = with_unstored_audit_give_up(&mut world);
        let key = given_up.key;
        assert!(given_up.is_audit);
        if comes_back {
            world.join("b");
        }

        // The store has the failure, which is booked as it is there.
        let mut effects = world
            .core
            .on_audit_given_up(SweepNumber(1), key, true, world.now);
        world.find(key, "nobody", Finding::Failed);
        assert_eq!(world.counts().2, 1);
        let reversal = Effect::RevertGiveUp(GiveUpReversal {
            sweep: SweepNumber(1),
            key,
            is_audit: true,
        });
        assert_eq!(effects.contains(&reversal), comes_back, "{effects:?}");

        effects.retain(|effect| *effect != reversal);
        world.carry_out(effects);
        if !comes_back {
            continue;
        }

        // The store has taken it back.
        let (origin, _) = world.found.remove(&key).expect("it was there");
        world.due.insert(key, origin.clone());
        let effects =
            world
                .core
                .on_trials_reopened(SweepNumber(1), &[], &[(key, origin)], world.now);
        world.carry_out(effects);
        assert_eq!((world.state(), world.counts().2), (SweepState::Running, 0));

        world.work("b");
        let trials = world.rows.len() as u64;
        assert_eq!(
            (world.state(), world.counts()),
            (SweepState::Completed, (trials, trials, 0, 0))
        );
    }
}

#[test]
fn audits_are_paused_cancelled_given_back_and_taken_over_like_trials() {
    let mut world = CoreModel::auditing(40, 1.0);
    world.seconds = 0.01;
    world.join("a");
    world.join("b");
    world.work("a");
    let audits = world.counts().3;

    world.steer(Steering::Pause);
    world.request_work("b");
    assert!(world.held_by("b").is_empty() && world.state() == SweepState::Paused);
    world.steer(Steering::Resume);
    let held = world.held_by("b").len();
    assert!(held > 1, "{held}");

    // It says nothing more; a third one has nothing to do.
    world.join("c");
    world.work("c");
    assert!(world.retractions.is_empty() || world.counts().3 > 0);

    for _ in 0..8 {
        world.now += Duration::from_secs(1);
        world.tick();
    }

    assert_eq!(
        world.retractions.len(),
        1,
        "its audits may be had by the third one"
    );
    world.answer_retractions();

    let taken = world.held_by("c");
    assert!(
        !taken.is_empty() && world.held_by("b").len() < held,
        "{taken:?}"
    );
    let effects = world.core.on_worker_left(&"b".into(), world.now);
    world.carry_out(effects);

    world.granted.remove("b");
    world.deliver_batch("c", usize::MAX);
    world.work("c");
    assert_eq!(
        (world.state(), world.counts()),
        (SweepState::Completed, (audits, audits, 0, 0))
    );

    let mut world = CoreModel::auditing(4, 1.0);
    world.join("a");
    world.join("b");
    world.work("a");
    world.request_work("b");
    world.steer(Steering::Cancel);

    world.tick();
    assert!(
        world.fences.is_empty() && world.state() == SweepState::Cancelled && world.counts().3 > 0
    );
}

#[test]
fn the_audit_of_a_row_that_nobody_told_of_is_looked_up_with_it() {
    for made in [false, true] {
        let mut world = CoreModel::auditing(1, 1.0);
        world.join("a");
        world.join("b");
        world.request_work("a");
        let fence = *world.granted["a"].keys().next().expect("a lease");
        let key = world.held_by("a")[0];

        // The row was stored, and the answer got lost; another process has run the trial, too.
        let row = StoredRow {
            key,
            outcome: Outcome::Completed,
            watched_metric: 0.5,
            deciding_metric: f64::NAN,
            seconds: 0.5,
        };
        let audited = made
            .then(|| (row.clone(), Finding::Same))
            .into_iter()
            .collect();
        let committed = CommitOutcome {
            already_stored: vec![key],
            fenced: true,
            audited,
            ..CommitOutcome::default()
        };
        let effects = world.core.on_batch_committed(
            &"b".into(),
            fence,
            SweepNumber(1),
            &committed,
            world.now,
        );
        assert!(
            effects.contains(&Effect::LookUpRows(SweepNumber(1), vec![key])),
            "{effects:?}"
        );

        world.core.on_trials_redone(
            SweepNumber(1),
            &[(key, Some(made.then_some(Finding::Same)))],
            world.now,
        );
        world
            .core
            .on_trials_reopened(SweepNumber(1), &[key], &[(key, "a".into())], world.now);

        world
            .core
            .check_invariants()
            .expect("its audit counts when its row does");
        assert_eq!(world.counts(), (0, 0, 0, 0));

        let audits = vec![(key, "a".into(), made.then_some(Finding::Same)); 2];
        for _ in 0..2 {
            world.core.on_rows_looked_up(
                SweepNumber(1),
                std::slice::from_ref(&row),
                &audits,
                world.now,
            );
            world.core.check_invariants().expect("the invariant holds");
            assert_eq!(world.counts(), (1, u64::from(made), 0, u64::from(!made)));
        }
    }
}

#[test]
fn a_sweep_that_went_on_while_it_was_removed_takes_its_leases_with_it() {
    let mut world = CoreModel::auditing(4, 1.0);
    world.join("a");
    world.work("a");
    assert_eq!(world.state(), SweepState::Completed);
    world.retry();
    world.join("b");

    world.request_work("b");
    assert!(!world.held_by("b").is_empty());
    let effects = world.core.on_sweep_removed(SweepNumber(1));
    world.carry_out(effects);
    assert!(
        world.fences.is_empty() && world.held_by("b").is_empty(),
        "{:?}",
        world.granted
    );

    world.now += 3 * TTL;
    world.tick();
    world.join("b");
    world.request_work("b");
}

#[test]
fn nothing_is_run_once_more_of_a_sweep_that_is_shown_only_or_was_cancelled_or_removed() {
    let mut world = CoreModel::new(1);
    let why = |world: &CoreModel| {
        world
            .core
            .validate_redo(SweepNumber(1))
            .expect_err("it may not")
    };
    assert_eq!(world.core.validate_redo(SweepNumber(1)), Ok(()));
    world
        .core
        .sweeps
        .get_mut(&SweepNumber(1))
        .expect("launched")
        .withheld = Some("its cells are others".into());
    assert!(why(&world).contains("its cells are others"));
    world
        .core
        .sweeps
        .get_mut(&SweepNumber(1))
        .expect("launched")
        .withheld = None;

    world.steer(Steering::Cancel);
    assert!(why(&world).contains("was cancelled"));
    world.core.on_sweep_removed(SweepNumber(1));
    assert!(why(&world).contains("removed"));
}
