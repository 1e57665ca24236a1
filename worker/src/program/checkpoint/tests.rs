use std::cell::Cell;
use std::os::unix::fs::symlink;
use std::sync::{Arc, Mutex};

use ergodic_common::ids::{CellHash, Repeat};
use ergodic_common::program::needs::TrialNeeds;
use ergodic_common::program::{DEFAULT_CHECKPOINT_LIMIT, Direction, Program};
use ergodic_common::random_streams::SeedPlan;

use crate::program::checkpoint::*;
use crate::program::lines::NumberedLine;

const IDENTITY: TrialIdentity = TrialIdentity([7; 32]);

/// Keeps what is saved, and says that a checkpoint is due as long as it is told so.
#[derive(Default)]
struct MemoryStore {
    saved: Mutex<Vec<Vec<u8>>>,
    is_due: std::sync::atomic::AtomicBool,
}

impl CheckpointStore for MemoryStore {
    fn load_checkpoints(&self, _: TrialIdentity) -> Vec<Vec<u8>> {
        self.saved.lock().expect("no panic").clone()
    }
    fn should_save(&self, _: u64) -> bool {
        self.is_due.load(std::sync::atomic::Ordering::Relaxed)
    }
    fn save_checkpoint(&self, _: TrialIdentity, _: u64, checkpoint: Vec<u8>) {
        self.saved.lock().expect("no panic").push(checkpoint);
    }
    fn should_stop_at_once(&self) -> bool {
        false
    }
    fn discard_checkpoints(&self, _: TrialIdentity) {}
}

fn metrics() -> Vec<DeclaredMetric> {
    vec![DeclaredMetric {
        name: "loss".into(),
        direction: Direction::Min,
    }]
}

fn record_of(metrics: &[DeclaredMetric], steps: u64) -> TrialRecord<'_> {
    let mut record = TrialRecord::new(metrics);
    for step in 1..=steps {
        let line = format!("{{\"step\": {step}, \"loss\": {step}}}");
        let added = record.add_line(&NumberedLine {
            number: step,
            bytes: line.into(),
        });
        added.expect("a line that is right");
    }
    record
}

/// Keeps a checkpoint of step 2 in a folder that `fill` fills.
fn keep(store: &MemoryStore, limit: u64, fill: impl Fn(&Path)) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("a folder");
    fill(&dir.path().join("2"));
    let metrics = metrics();
    let opened = File::open(dir.path()).expect("it is there");
    let keeper = CheckpointKeeper::new(store, IDENTITY, opened.as_fd(), limit);
    keeper.keep_checkpoint(&record_of(&metrics, 3), 2, false)?;
    keeper.save_waiting()
}

fn write_state(folder: &Path) {
    std::fs::create_dir_all(folder.join("deep/er")).expect("a folder");
    std::fs::write(folder.join("deep/er/state"), "weights").expect("a file");
    std::fs::write(folder.join("run.sh"), "").expect("a file");
    let mode = Permissions::from_mode(0o700);
    std::fs::set_permissions(folder.join("run.sh"), mode).expect("a file");
}

#[test]
fn a_checkpoint_comes_back_with_its_files_and_what_was_reported_until_then() {
    let store = MemoryStore::default();
    keep(&store, 100, write_state).expect("a checkpoint");
    let dir = tempfile::tempdir().expect("a folder");
    let metrics = metrics();
    let loaded = load_checkpoint(&store, IDENTITY, dir.path(), &metrics);
    let loaded = loaded.expect("files are written").expect("it fits");
    assert_eq!((loaded.step, loaded.record.last_step()), (2, 2));
    assert_eq!(
        loaded.record.compute_digest(),
        record_of(&metrics, 2).compute_digest()
    );

    let state = std::fs::read_to_string(dir.path().join("2/deep/er/state"));
    assert_eq!(state.expect("a file"), "weights");
    let facts = std::fs::metadata(dir.path().join("2/run.sh")).expect("a file");
    assert_ne!(facts.permissions().mode() & EXECUTABLE, 0);
}

/// Of the largest checkpoint that a program may write, everything travels.
#[test]
fn the_largest_checkpoint_fits_into_what_is_sent() {
    const LONGEST_NAME: usize = 1024;
    assert!(check_name(&"a".repeat(LONGEST_NAME + 1)).is_err());
    // Three numbers with each file; eight bytes for each number of a curve, with its step, and for each step of predictions.
    let names = MAX_BUNDLED_FILES as u64 * (LONGEST_NAME as u64 + 24);
    let reported = 8 * (2 * 200_000 + 100_000) + ergodic_common::spec::MAX_PREDICTIONS;
    let around = 1 << 20;
    assert!(
        DEFAULT_CHECKPOINT_LIMIT + names + reported + around
            <= ergodic_proto::transfer::MAX_CHECKPOINT_BYTES
    );
}

#[test]
fn of_damaged_and_foreign_checkpoints_nothing_is_left() {
    let store = MemoryStore::default();
    keep(&store, 100, write_state).expect("a checkpoint");
    let dir = tempfile::tempdir().expect("a folder");
    let metrics = metrics();
    let load = |store: &MemoryStore, identity| {
        let loaded = load_checkpoint(store, identity, dir.path(), &metrics);
        loaded.expect("no trouble of the disk").is_some()
    };
    assert!(!load(&store, TrialIdentity([8; 32])));
    store.saved.lock().expect("no panic")[0][40] ^= 1;
    assert!(!load(&store, IDENTITY));
    assert!(!dir.path().join("2").exists());
}

#[test]
fn what_a_program_does_not_write_as_it_must_is_refused() {
    let store = MemoryStore::default();
    type Fill = fn(&Path);
    let wrong: [(&str, Fill); 5] = [
        ("there is no checkpoint of step 2", |_| {}),
        ("there is no checkpoint of step 2", |folder| {
            symlink("/etc", folder).expect("a link");
        }),
        ("link: it cannot be read", |folder| {
            std::fs::create_dir(folder).expect("a folder");
            symlink("/etc/passwd", folder.join("link")).expect("a link");
        }),
        ("pipe: it is neither a file nor a folder", |folder| {
            std::fs::create_dir(folder).expect("a folder");
            let pipe = folder.join("pipe");
            rustix::fs::mkfifoat(rustix::fs::CWD, pipe, Mode::RUSR).expect("a pipe");
        }),
        ("more than 10 bytes", |folder| {
            std::fs::create_dir(folder).expect("a folder");
            std::fs::write(folder.join("large"), "12345678901").expect("a file");
        }),
    ];
    for (why, fill) in wrong {
        let said = keep(&store, 10, fill).expect_err("it is refused");
        assert!(said.contains(why), "{said}");
    }
    assert!(store.saved.lock().expect("no panic").is_empty());
}

#[test]
fn only_the_last_of_the_checkpoints_that_are_not_due_is_saved() {
    let store = MemoryStore::default();
    let dir = tempfile::tempdir().expect("a folder");
    let metrics = metrics();
    let opened = File::open(dir.path()).expect("it is there");
    let keeper = CheckpointKeeper::new(&store, IDENTITY, opened.as_fd(), 10);
    let count = Cell::new(0);
    let keep = |step: u64| {
        std::fs::create_dir(dir.path().join(step.to_string())).expect("a folder");
        let kept = keeper.keep_checkpoint(&record_of(&metrics, step), step, false);
        kept.expect("a checkpoint");
        count.set(store.saved.lock().expect("no panic").len());
    };
    keep(1);
    keep(2);
    assert_eq!(count.get(), 0);
    store
        .is_due
        .store(true, std::sync::atomic::Ordering::Relaxed);
    keep(3);
    assert_eq!(count.get(), 1);
    assert_eq!(keeper.save_waiting(), Ok(()));
    assert_eq!(store.saved.lock().expect("no panic").len(), 1);
}

#[test]
fn while_a_trial_stops_its_checkpoint_waits_for_the_end() {
    let store = MemoryStore::default();
    store
        .is_due
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("2")).expect("a folder");
    let metrics = metrics();
    let opened = File::open(dir.path()).expect("it is there");
    let keeper = CheckpointKeeper::new(&store, IDENTITY, opened.as_fd(), 10);
    let kept = keeper.keep_checkpoint(&record_of(&metrics, 2), 2, true);
    kept.expect("a checkpoint");
    assert!(store.saved.lock().expect("no panic").is_empty());
    assert_eq!(keeper.save_waiting(), Ok(()));
    assert_eq!(store.saved.lock().expect("no panic").len(), 1);
}

#[test]
fn folders_of_earlier_steps_are_removed_and_nothing_else() {
    let store = MemoryStore::default();
    let (dir, other) = (tempfile::tempdir(), tempfile::tempdir());
    let (dir, other) = (dir.expect("a folder"), other.expect("a folder"));
    std::fs::write(other.path().join("file"), "").expect("a file");
    write_state(&dir.path().join("1"));
    for name in ["10", "11", "best"] {
        std::fs::create_dir(dir.path().join(name)).expect("a folder");
    }
    symlink(other.path(), dir.path().join("9")).expect("a link");
    let metrics = metrics();
    let opened = File::open(dir.path()).expect("it is there");
    let keeper = CheckpointKeeper::new(&store, IDENTITY, opened.as_fd(), 10);
    let kept = keeper.keep_checkpoint(&record_of(&metrics, 10), 10, false);
    kept.expect("a checkpoint");

    let entries = std::fs::read_dir(dir.path())
        .expect("it is there")
        .flatten();
    let mut left: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    left.retain(|name| name != "9");
    left.sort_unstable();
    assert_eq!(left, ["10", "11", "best"]);
    assert!(other.path().join("file").exists());
}

#[test]
fn a_checkpoint_is_of_metrics_in_one_order() {
    let metric = |name: &str| DeclaredMetric {
        name: name.into(),
        direction: Direction::Min,
    };
    let identity = |metrics: Vec<DeclaredMetric>| {
        let program = Program {
            command: Vec::new(),
            files: Vec::new(),
            bundle: None,
            env: Vec::new(),
            pass_env: Vec::new(),
            metrics,
            require: Vec::new(),
            deterministic: false,
            checkpoint_limit: DEFAULT_CHECKPOINT_LIMIT,
            save: Vec::new(),
            needs: TrialNeeds::ONE_SLOT,
            experiment: None,
        };
        let cell = ProgramCell {
            program: Arc::new(program),
            values: Vec::new(),
            has_data: false,
        };
        let streams = Streams {
            sweep_seed: 7,
            repeat: Repeat(0),
            cell: CellHash([1; 32]),
            plan: SeedPlan::default(),
        };
        compute_identity(&cell, TrialKey::new(0, 0), &streams)
    };
    let (loss, error) = (metric("loss"), metric("error"));
    let first = identity(vec![loss.clone(), error.clone()]);
    assert_eq!(first, identity(vec![loss.clone(), error.clone()]));
    assert_ne!(first, identity(vec![error, loss]));
}
