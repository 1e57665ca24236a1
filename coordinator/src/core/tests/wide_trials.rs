//! Trials that take several slots of a worker.

use crate::core::tests::*;

/// A running sweep of a program whose trials take so many slots.
fn wide_sweep(number: SweepNumber, slots: u32) -> Sweep {
    let text = format!(
        "name = \"wide\"\nrepeats = 30\n[program]\ncommand = [\"true\"]\nmetrics = {{ loss = \"min\" }}\nslots = {slots}\n"
    );
    let source = SpecSource {
        file: "wide".into(),
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
    // What does not fit beside running trials waits there until it does.
    assert_eq!(request(&mut core, "w9", 1), [1]);
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
    assert_eq!(explain(&core_with(4, &[3])), [unable.clone()]);
    let capacity = RunningFinding::Capacity {
        workers: 1,
        slots: 9,
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
