//! Trials that take several slots, memory or GPUs of a worker.

use crate::core::tests::*;
use crate::interval_set::IntervalSet;

/// A running sweep of a program whose trials take so many slots.
fn wide_sweep(number: SweepNumber, slots: u32) -> Sweep {
    needy_sweep(number, 30, &format!("slots = {slots}"))
}

/// A running sweep of so many trials of a program, which need what these keys say.
fn needy_sweep(number: SweepNumber, repeats: u32, keys: &str) -> Sweep {
    let text = format!(
        "name = \"wide\"\nrepeats = {repeats}\n[program]\ncommand = [\"true\"]\nmetrics = {{ loss = \"min\" }}\n{keys}\n"
    );
    read_sweep(number, text)
}

/// A core with a sweep of wide trials and workers of so many slots.
fn core_with(slots_of_trial: u32, slots_of_workers: &[u32]) -> Core {
    let mut core = Core::new(Timing { lease_ttl: TTL }, Epoch(1), LeaseId(1));
    let sweep = wide_sweep(SweepNumber(1), slots_of_trial);
    core.on_sweep_added(sweep, [], CoreTime::ZERO);
    for slots in slots_of_workers {
        let joining = JoiningWorker {
            slots: *slots,
            programs: true,
            ..joining_worker(&format!("w{slots}"), Vec::new())
        };
        core.on_worker_joined(joining, CoreTime::ZERO);
    }
    core
}

/// Numbers of trials of the leases that a worker gets for so many idle slots.
fn request(core: &mut Core, worker: &str, idle: u32) -> Vec<u64> {
    let effects = core.on_work_requested(&worker.into(), idle, CoreTime::ZERO);
    let leases = effects.into_iter().filter_map(|effect| match effect {
        Effect::Grant { lease, .. } => Some(lease.trials.len()),
        _ => None,
    });
    leases.collect()
}

#[test]
fn a_worker_gets_as_many_wide_trials_as_its_idle_slots_can_run() {
    let mut core = core_with(4, &[3, 4, 9]);
    assert!(request(&mut core, "w3", 3).is_empty());
    assert_eq!(request(&mut core, "w4", 4), [1]);
    assert_eq!(request(&mut core, "w9", 9), [2]);
    // What does not fit beside running trials stays with the coordinator.
    assert!(request(&mut core, "w9", 1).is_empty());
}

#[test]
fn too_few_slots_are_explained_with_the_worker_that_has_them() {
    let explain = |core: &Core| {
        let sweep = core.sweep(SweepNumber(1)).expect("a sweep");
        let findings = core.explain_sweep(sweep).into_iter();
        let running = findings.filter_map(|finding| match finding {
            SweepFinding::Running(finding) => Some(finding),
            _ => None,
        });
        running.collect::<Vec<_>>()
    };
    let unable = RunningFinding::WorkerUnable {
        worker: "w3".into(),
        why: "a trial takes 4 slots, and this worker has 3: start one with --slots 4".into(),
    };
    assert_eq!(explain(&core_with(4, &[3])), std::slice::from_ref(&unable));
    let capacity = RunningFinding::Capacity {
        workers: 1,
        slots: 9,
        names: Vec::new(),
    };
    assert_eq!(explain(&core_with(4, &[3, 9])), [capacity, unable]);
}

#[test]
fn wide_trials_are_charged_for_all_their_slots() {
    let mut core = core_with(4, &[4]);
    core.on_sweep_added(wide_sweep(SweepNumber(2), 1), [], CoreTime::ZERO);
    assert_eq!(request(&mut core, "w4", 4), [1]);
    // One wide trial counts as four narrow ones.
    let passed = |core: &Core, number: i64| {
        let sweep = core.sweep(SweepNumber(number)).expect("a sweep");
        sweep.fair_share.vruntime
    };
    assert_eq!(request(&mut core, "w4", 4), [4]);
    assert_eq!(passed(&core, 1), passed(&core, 2));
}

/// A core with a sweep of 16 trials and a worker of each of these names, with 16 slots and such a supply.
fn core_of(keys: &str, names: &[&str], supply: Option<WorkerSupply>) -> Core {
    let mut core = Core::new(Timing { lease_ttl: TTL }, Epoch(1), LeaseId(1));
    core.on_sweep_added(needy_sweep(SweepNumber(1), 16, keys), [], CoreTime::ZERO);
    for name in names {
        let joining = JoiningWorker {
            slots: 16,
            programs: true,
            supply,
            ..joining_worker(name, Vec::new())
        };
        core.on_worker_joined(joining, CoreTime::ZERO);
    }
    core
}

const GPUS: WorkerSupply = WorkerSupply {
    memory: Some(64 << 30),
    gpus: 4,
};

/// Why workers cannot run the first sweep.
fn unable(core: &Core) -> Vec<String> {
    let sweep = core.sweep(SweepNumber(1)).expect("a sweep");
    let findings = core.explain_sweep(sweep).into_iter();
    let unable = findings.filter_map(|finding| match finding {
        SweepFinding::Running(RunningFinding::WorkerUnable { why, .. }) => Some(why),
        _ => None,
    });
    unable.collect()
}

#[test]
fn a_worker_gets_as_many_trials_as_its_memory_and_gpus_allow() {
    for (keys, trials) in [
        ("gpus = 1", 4),
        ("gpus = 0.5", 8),
        ("gpus = 0.4", 8),
        ("gpus = 3", 1),
        ("gpus = 0.01", 16),
        ("memory = \"20 GiB\"", 3),
        ("slots = 5\nmemory = \"20 GiB\"\ngpus = 2", 2),
    ] {
        let mut core = core_of(keys, &["a", "b"], Some(GPUS));
        assert_eq!(request(&mut core, "a", 16), [trials], "{keys}");
        let rest = 16 - trials;
        let leased = request(&mut core, "b", 16);
        assert_eq!(leased.iter().sum::<u64>(), trials.min(rest), "{keys}");
    }
}

#[test]
fn a_worker_whose_gpus_are_taken_gets_trials_that_need_none() {
    let mut core = core_of("gpus = 1", &["a"], Some(GPUS));
    assert_eq!(request(&mut core, "a", 16), [4]);
    assert!(request(&mut core, "a", 12).is_empty());
    let narrow = needy_sweep(SweepNumber(2), 30, "");
    let effects = core.on_sweep_added(narrow, [], CoreTime::ZERO);
    let granted = effects.iter().find_map(|effect| match effect {
        Effect::Grant { lease, .. } => Some((lease.sweep, lease.trials.len())),
        _ => None,
    });
    assert_eq!(granted, Some((SweepNumber(2), 12)));
}

#[test]
fn a_worker_that_does_not_tell_what_it_has_is_not_offered_trials_that_need_it() {
    for keys in ["gpus = 0.5", "memory = \"1 GiB\""] {
        let mut core = core_of(keys, &["a"], None);
        assert!(request(&mut core, "a", 16).is_empty());
        assert!(unable(&core)[0].contains("does not tell what it has: update it"));
    }
    let mut core = core_of("slots = 2", &["a"], None);
    assert_eq!(request(&mut core, "a", 16), [8]);
}

#[test]
fn what_a_worker_lacks_is_explained_with_numbers() {
    for (keys, why) in [
        (
            "slots = 17",
            "a trial takes 17 slots, and this worker has 16",
        ),
        (
            "memory = \"65 GiB\"",
            "a trial takes 66560 MiB of memory, and this worker has 65536 MiB",
        ),
        ("gpus = 5", "a trial takes GPUs: 5, and this worker has 4"),
    ] {
        let found = unable(&core_of(keys, &["a"], Some(GPUS)));
        assert!(found.len() == 1 && found[0].contains(why), "{found:?}");
    }

    let none = WorkerSupply {
        memory: None,
        gpus: 0,
    };
    let found = unable(&core_of("gpus = 0.5", &["a"], Some(none)));
    assert!(
        found[0].contains("a share of a GPU, and this worker has 0"),
        "{found:?}"
    );
    assert!(unable(&core_of("memory = \"65 GiB\"", &["a"], Some(none))).is_empty());
}

#[test]
fn a_worker_keeps_slots_free_for_a_wide_trial_that_it_does_not_run_yet() {
    let mut core = core_of("", &["a"], None);
    assert_eq!(request(&mut core, "a", 15), [15]);
    core.on_sweep_added(wide_sweep(SweepNumber(2), 4), [], CoreTime::ZERO);
    core.on_sweep_added(wide_sweep(SweepNumber(3), 1), [], CoreTime::ZERO);
    // The wide sweep comes first by its share, and needs more than one slot.
    assert!(request(&mut core, "a", 1).is_empty());
    assert_eq!(request(&mut core, "a", 4), [1]);
}

#[test]
fn wide_trials_that_wait_behind_others_of_the_holder_can_be_taken_by_another() {
    let mut core = core_of("gpus = 1", &["a", "b"], Some(GPUS));
    assert_eq!(request(&mut core, "a", 16), [4]);
    let lease = core.leases.values().next().expect("a lease");
    assert_eq!(core.count_running(lease), 4, "all of them run");

    core.on_sweep_added(
        needy_sweep(SweepNumber(2), 1, "gpus = 4"),
        [],
        CoreTime::ZERO,
    );
    let fence = Fence {
        lease: LeaseId(9),
        epoch: Epoch(1),
    };
    let sweep = core.sweeps.get_mut(&SweepNumber(2)).expect("a sweep");
    let row = LeaseRow {
        fence,
        sweep: SweepNumber(2),
        class: sweep.next_class(),
        worker: "a".into(),
        trials: IntervalSet::from_range(0, 1),
        audits: None,
    };
    let waiting = LeaseState::from_row(
        row.clone(),
        row.trials,
        CoreTime::ZERO,
        CoreTime::ZERO + TTL,
        0.0,
    );
    assert_eq!(core.count_running(&waiting), 0);
}
