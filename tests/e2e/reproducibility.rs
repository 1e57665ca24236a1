//! The same sweep yields the same rows however it is run.

use std::path::Path;

use ergodic_tests::{Cluster, Gate, Program, paced, paced_steps, run, stdout, wait_for};

use crate::{SWEEP, reach, repeated, trials, work};

/// Rows of a sweep of six cells run in one process without any fault, the reference for all others.
pub(crate) fn reference(text: &str) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("sweep.toml");
    std::fs::write(&file, text).expect("a file can be written");
    let store = dir.path().join("store").to_string_lossy().into_owned();
    let args = [
        "run",
        &file.to_string_lossy(),
        "--dir",
        &store,
        "--slots",
        "1",
        "--format",
        "json",
    ];
    let table = stdout(&args);
    let table: serde_json::Value = serde_json::from_str(&table).expect("the table is JSON");
    assert_eq!(
        (&table["metric"], table["rows"].as_array().map(Vec::len)),
        (&"test_acc".into(), Some(6))
    );

    let cluster = Cluster::on_store(&store);
    cluster.rows("latest")
}

fn count(rows: &str, word: &str) -> usize {
    rows.lines().filter(|line| line.contains(word)).count()
}

#[test]
fn run_and_clusters_of_any_size_give_the_same_rows() {
    let wanted = reference(SWEEP);
    assert_eq!(
        (
            wanted.lines().count(),
            count(&wanted, ",diverged,"),
            count(&wanted, "failed")
        ),
        (73, 24, 0)
    );

    let mut cluster = Cluster::start(&[]);
    cluster.gate.hold_after(2);
    let _first = [
        cluster.worker(1, &[]),
        cluster.worker(2, &["--isa", "portable"]),
    ];

    let id = cluster.launch(SWEEP);
    cluster.wait_until_held(&id, trials(2));
    let _third = cluster.worker(3, &[]);
    cluster.wait_for_workers(3);
    cluster.gate.open();
    let status = cluster.wait_for_end(&id);
    assert_eq!(status["mismatches"], 0);

    assert_eq!(cluster.rows(&id), wanted);
}

#[test]
fn a_killed_coordinator_keeps_what_it_acknowledged_and_its_workers() {
    let (text, wanted) = work();
    let mut cluster = Cluster::counted(&["--lease-ttl", "5s"]);
    cluster.gate.hold_after(0);
    let workers = [cluster.worker(1, &[]), cluster.worker(1, &[])];
    let id = cluster.launch(&text);

    for repeats in [5, 15, 25] {
        cluster.gate.hold_after(repeats);
        reach(&cluster, &id, repeats);
        cluster.take_coordinator().kill();
        let acknowledged = cluster.done().stored.max(trials(repeats));
        cluster.restart_coordinator(&[]);
        let after = cluster.status(&id);
        assert!(
            after["done"].as_u64() >= Some(acknowledged),
            "{acknowledged} results were acknowledged: {after}"
        );
    }

    cluster.gate.open();
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["mismatches"], &status["releases"]),
        (&0.into(), &0.into()),
        "{status}"
    );

    assert_eq!(cluster.rows(&id), wanted);
    for worker in &workers {
        let joins = worker.log().matches("joined coordinator").count();
        assert!(
            joins >= 2,
            "the worker did not re-attach:\n{}",
            worker.log()
        );
    }
}

#[test]
fn a_worker_told_to_leave_gives_back_what_it_has_not_begun() {
    let (text, wanted) = work();
    let mut cluster = Cluster::start(&["--lease-ttl", "60s"]);
    cluster.gate.hold_after(6);
    let leaving = cluster.worker(1, &[]);
    let id = cluster.launch(&text);
    cluster.wait_until_held(&id, trials(6));

    leaving.signal("TERM");
    // What it runs it may finish.
    leaving.wait_for_log("leaving");
    cluster.gate.open();
    assert_eq!(leaving.wait(), 0);
    let status = cluster.status(&id);
    assert_eq!(
        (&status["leased"], &status["state"]),
        (&0.into(), &"running".into()),
        "{status}"
    );

    let _heir = cluster.worker(2, &[]);
    assert_eq!(cluster.wait_for_end(&id)["releases"], 0);
    assert_eq!(cluster.rows(&id), wanted);
}

#[test]
fn an_interrupted_run_continues_where_it_stopped() {
    let (text, wanted) = work();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("sweep.toml");
    std::fs::write(&file, &text).expect("a file can be written");
    let file = file.to_string_lossy().into_owned();
    let store = dir.path().join("store").to_string_lossy().into_owned();
    let args = ["run", &file, "--dir", &store];

    let gate = Gate::at(&dir.path().join("gate"));
    gate.hold_after(6);
    let held = gate.failpoints();
    let running = Program::start_with(&[("FAILPOINTS", &held)], &args, &dir.path().join("log"));
    let cluster = Cluster::of_run(&running);
    cluster.wait_until_held("latest", trials(6));

    running.signal("INT");
    // What its workers run they may finish.
    Program::wait_for_file(&dir.path().join("store/worker-1.log"), "leaving");
    gate.open();
    assert_eq!(running.wait(), 130);
    let again = run(&args);
    assert_eq!(again.code, 0, "{}", again.stderr);

    assert!(
        again.stderr.contains("continuing small"),
        "{}",
        again.stderr
    );

    assert_eq!(Cluster::on_store(&store).rows("latest"), wanted);
}

#[test]
fn a_late_mistake_costs_no_results_and_an_early_one_no_time() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("sweep.toml");
    std::fs::write(&file, SWEEP).expect("a file can be written");
    let file = file.to_string_lossy().into_owned();
    let store = dir.path().join("store").to_string_lossy().into_owned();
    let early = run(&[
        "run", &file, "--dir", &store, "--rows", "lrr", "--cols", "wd",
    ]);
    assert!(
        early.code == 5 && early.stderr.contains("did you mean 'lr'"),
        "{}",
        early.stderr
    );

    assert!(!dir.path().join("store").exists());
    let running = Program::start(&["run", &file, "--dir", &store], Path::new("/dev/full"));
    assert_eq!(running.wait(), 2, "stdout could not be written");
    assert_eq!(Cluster::on_store(&store).rows("latest").lines().count(), 73);
}

#[test]
fn a_run_that_is_killed_takes_its_workers_along() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("sweep.toml");
    std::fs::write(&file, repeated(10)).expect("a file can be written");
    let file = file.to_string_lossy().into_owned();
    let store = dir.path().join("store").to_string_lossy().into_owned();
    let gate = Gate::at(&dir.path().join("gate"));
    gate.hold_after(2);

    let args = ["run", &file, "--dir", &store];
    let held = gate.failpoints();
    let running = Program::start_with(&[("FAILPOINTS", &held)], &args, &dir.path().join("log"));
    let cluster = Cluster::of_run(&running);
    cluster.wait_until_held("latest", trials(2));
    running.kill();

    let log = dir.path().join("store/worker-1.log");
    Program::wait_for_file(&log, "leaving");
    // With results that nobody takes any more it waits a while; with none it just leaves.
    wait_for("the worker has ended", || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.lines()
            .any(|line| line.contains("exiting anyway") || line.ends_with(" left"))
    });
}

#[test]
fn a_worker_without_files_fetches_the_dataset_by_its_hash() {
    let data = tempfile::tempdir().expect("a temporary directory");
    write_mnist(&data.path().join("mnist"), 600, 200);
    let text = SWEEP
        .replace("\"glyphs\"", "\"mnist\"")
        .replace("repeats = 12", "repeats = 2");
    let mut cluster = Cluster::start(&["--data-dir", &data.path().to_string_lossy()]);
    let bare = cluster.worker(1, &[]);

    let id = cluster.launch(&text);
    cluster.wait_for_end(&id);
    assert!(bare.log().contains("dataset fetched"), "{}", bare.log());
    let status = cluster.status(&id);
    assert!(
        status["data"]
            .as_str()
            .is_some_and(|d| d.contains("500 of the first 600 of 60000 training images")),
        "{status}"
    );

    let rows = cluster.rows(&id);
    drop(bare);
    // Another one finds it in the cache, and one with files of its own uses those; all agree.
    let other = cluster.launch(&text);
    let cached = cluster.worker(1, &["--data-dir", &data.path().to_string_lossy()]);
    cluster.wait_for_end(&other);
    assert!(
        !cached.log().contains("dataset fetched"),
        "{}",
        cached.log()
    );

    assert_eq!(cluster.rows(&other), rows);
}

/// MNIST's files with made-up images: bright squares whose place depends on the label.
fn write_mnist(dir: &std::path::Path, train: u32, test: u32) {
    std::fs::create_dir_all(dir).expect("a directory can be made");
    for (prefix, n) in [("train", train), ("t10k", test)] {
        let mut images: Vec<u8> = [0x803_u32, n, 28, 28]
            .iter()
            .flat_map(|x| x.to_be_bytes())
            .collect();
        let mut labels: Vec<u8> = [0x801_u32, n]
            .iter()
            .flat_map(|x| x.to_be_bytes())
            .collect();

        for i in 0..n {
            let label = i % 10;
            labels.push(label as u8);
            images.extend((0..784_u32).map(|p| {
                if p / 79 == label {
                    200
                } else {
                    (p * (i + 1) % 97) as u8
                }
            }));
        }

        std::fs::write(dir.join(format!("{prefix}-images-idx3-ubyte")), images)
            .expect("a file can be written");
        std::fs::write(dir.join(format!("{prefix}-labels-idx1-ubyte")), labels)
            .expect("a file can be written");
    }
}

/// One trial of which a part is run by another worker.
const LONG: &str = r#"
name    = "long"
seed    = 3
[data]
train   = 400
test    = 50
augment = "crop-flip"
[model]
kind   = "mlp"
hidden = [8]
[train]
steps      = 6000
batch_size = 8
lr         = 0.01
optimizer  = { momentum = 0.9 }
average    = { kind = "ema", decay = 0.99 }
[measure]
every   = "500 steps"
metrics = ["test_acc", "average_test_acc", "train_loss", "init_distance"]
"#;

/// A worker is stopped in the middle of a trial that it keeps as often as this, and another one goes on from there.
fn goes_on_elsewhere(every: &str, kept_before: usize) {
    let mut cluster = Cluster::counted(&["--lease-ttl", "1s"]);
    let kept = cluster.path("kept");
    let options = [
        "--drain",
        "100ms",
        "--checkpoint-every",
        every,
        "--checkpoint-dir",
        &kept.to_string_lossy(),
    ];

    let held = paced_steps(3000);
    cluster.gate.hold_at_step(held);
    let first = cluster.worker(1, &options);
    let id = cluster.launch(&paced(LONG));
    let files = || std::fs::read_dir(&kept).into_iter().flatten().count();
    first.wait_for_log(&format!("held trial=0/0 steps={held}"));

    first.wait_until("the trial is kept where it is to be kept by now", || {
        files() == kept_before
    });
    first.signal("TERM");
    assert_eq!(first.wait(), 0);
    assert_eq!(
        (files(), cluster.status(&id)["done"].as_u64()),
        (1, Some(0))
    );

    cluster.gate.open();
    let second = cluster.worker(1, &options);
    cluster.wait_for_end(&id);
    let from = second.wait_for_log("resuming from a checkpoint trial=0/0 steps=");
    assert!(from.parse::<u64>().is_ok_and(|from| from >= held), "{from}");
    assert_eq!(files(), 0, "what was kept of a finished trial is removed");

    let words = cluster.ask(&["replay", &id, "0/0"]);
    assert!(words.contains("the same bits here"), "{words}");
}

#[test]
fn a_worker_goes_on_from_where_another_one_kept_its_trial() {
    goes_on_elsewhere("20ms", 1);
}

#[test]
fn a_worker_that_is_stopped_keeps_its_trial_and_another_one_goes_on() {
    goes_on_elsewhere("1h", 0);
}
