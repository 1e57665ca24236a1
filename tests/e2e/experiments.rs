//! Experiments: sweeps whose trials are Rust code of a user's, built into a worker.

use std::path::{Path, PathBuf};

use ergodic_tests::{Cluster, program, run_in};

/// The worker of `worker/examples`.
const WORKER: &str = "examples/char_transformer";

fn worker_path() -> String {
    program(WORKER).to_string_lossy().into_owned()
}

/// The sweep file that comes with the example, with fewer steps and this in place of a text.
fn sweep_text(from: &str, to: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sweeps/experiments");
    let path = path.join("char-transformer.toml");
    let text = std::fs::read_to_string(path).expect("the sweep of the example");
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
        .replace("steps   = 200", "steps   = 20")
}

fn write_sweep(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("sweep.toml");
    std::fs::write(&path, text).expect("a file can be written");
    path
}

/// What a launch of a text is refused with.
fn refusal(cluster: &Cluster, text: &str) -> String {
    let path = write_sweep(cluster.path("").as_path(), text);
    let finished = cluster.run(&["launch", &path.to_string_lossy(), "--again"]);
    assert_ne!(finished.code, 0, "{}", finished.stdout);
    finished.stderr
}

#[test]
fn two_workers_train_a_transformer_of_the_user_s_with_the_same_bits() {
    let mut cluster = Cluster::start(&["--lease-ttl", "2s"]);
    let stock = cluster.worker(1, &[]);
    cluster.wait_for_workers(1);
    let audited = sweep_text("repeats = 3", "repeats = 2\naudit = 1.0");
    let why = refusal(&cluster, &audited);
    assert!(
        why.contains("model.kind: no worker has the experiment 'char-transformer': start a worker program that has it first"),
        "{why}"
    );

    let workers = [
        cluster.worker_of(WORKER, 1, &[]),
        cluster.worker_of(WORKER, 1, &[]),
    ];
    cluster.wait_for_workers(3);
    for (from, to, words) in [
        (
            "width   = 32",
            "wdth    = 32",
            ":9: model.wdth: the config has no key 'wdth', did you mean 'width'?",
        ),
        (
            "width   = 32",
            "width   = 0.5",
            ":9: model.width: expected a whole number, found 0.5",
        ),
        (
            "[1e-3, 3e-3, 1e-2]",
            "[1e-3, true]",
            ":14: grid.lr: expected a number, found true",
        ),
        (
            "test_loss = \"min\"",
            "test_loss = \"max\"",
            ":8: model.metrics.test_loss: the experiment char-transformer declares it as \"min\"",
        ),
    ] {
        let why = refusal(&cluster, &sweep_text(from, to));
        assert!(why.contains(words), "{to}: {why}");
    }

    let id = cluster.launch(&audited);
    let status = cluster.wait_for_end(&id);
    assert_eq!(status["numerics"], "custom/char-transformer/1", "{status}");
    assert_eq!(
        (&status["done"], &status["failed"]),
        (&12.into(), &0.into()),
        "{status}"
    );
    assert_eq!(status["audits_same"], 12, "{status}");
    assert!(
        !stock.log().contains("cannot run this sweep"),
        "{}",
        stock.log()
    );
    let again = cluster.launch(&audited);
    cluster.wait_for_end(&again);
    assert_eq!(cluster.rows(&again), cluster.rows(&id));

    let replayed = cluster.ask(&["replay", &id, "3/1", "--worker-bin", &worker_path()]);
    assert!(replayed.contains("the same bits here"), "{replayed}");
    let stock_replay = cluster.run(&["replay", &id, "3/1"]);
    assert!(
        stock_replay.stderr.contains("--worker-bin"),
        "{}",
        stock_replay.stderr
    );

    for worker in workers {
        worker.kill();
    }
    let versioned = sweep_text("width ", "version = 7\nwidth ");
    let id = cluster.launch(&versioned);
    let explained = cluster.ask(&["explain", &id]);
    let words = "No joined worker has version 7 of the experiment 'char-transformer'";
    assert!(explained.contains(words), "{explained}");
}

/// First the worker is killed while it trains, then the coordinator while the worker's heir does.
#[test]
fn a_transformer_outlives_its_worker_and_the_coordinator() {
    let text = sweep_text("repeats = 3", "repeats = 6");
    let mut undisturbed = Cluster::counted(&[]);
    let worker = undisturbed.worker_of(WORKER, 1, &[]);
    undisturbed.wait_for_workers(1);
    let id = undisturbed.launch(&text);
    undisturbed.wait_for_end(&id);
    let wanted = undisturbed.rows(&id);
    undisturbed.close(vec![worker]);

    let mut cluster = Cluster::counted(&["--lease-ttl", "2s"]);
    cluster.gate.hold_after_trials(2);
    let victim = cluster.worker_of(WORKER, 1, &[]);
    cluster.wait_for_workers(1);
    let id = cluster.launch(&text);
    cluster.wait_until_held(&id, 2);
    cluster.set_in_motion(|gate| gate.hold_after_trials(4));
    victim.kill();

    let heir = cluster.worker_of(WORKER, 1, &[]);
    cluster.wait_until(&id, "the heir has results", |status| {
        status["done"].as_u64() >= Some(5)
    });
    cluster.set_in_motion(|gate| gate.hold_after_trials(6));
    cluster.kill_and_restart_coordinator();
    cluster.gate.open();

    let (status, _) = cluster.settle(&id, &wanted, vec![heir]);
    assert_eq!(status["failed"], 0, "{status}");
    assert!(
        status["releases"].as_u64() >= Some(1),
        "nothing was given out again: {status}"
    );
}

#[test]
fn run_starts_the_worker_program_that_has_the_experiment() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = sweep_text("repeats = 3", "repeats = 2");
    write_sweep(dir.path(), &text);
    let planned = run_in(dir.path(), &[], &["plan", "sweep.toml"]);
    assert_eq!(planned.code, 0, "{}", planned.stderr);
    for words in [
        "experiment: char-transformer, in the version of the worker program",
        "metrics: test_loss (min), train_loss (min)",
        "depth = 1, init_scale = 0.5, lr = 0.001, steps = 20, width = 32",
    ] {
        assert!(planned.stdout.contains(words), "{}", planned.stdout);
    }

    let run = |options: &[&str]| {
        let command = ["run", "sweep.toml", "--store", "store"];
        run_in(dir.path(), &[], &[&command[..], options].concat())
    };
    let refused = run(&[]);
    let words = "no worker has the experiment 'char-transformer': name a worker program that has it with --worker-bin FILE";
    assert!(refused.stderr.contains(words), "{}", refused.stderr);
    assert!(!dir.path().join("store").exists());

    let worker = worker_path();
    let finished = run(&["--worker-bin", &worker]);
    assert_eq!(finished.code, 0, "{}\n{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains("test_loss"), "{}", finished.stdout);
    let resumed = run(&["--worker-bin", &worker]);
    assert_eq!(resumed.stdout, finished.stdout);
}
