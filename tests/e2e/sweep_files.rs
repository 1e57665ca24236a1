//! From a file to a sweep: what is checked before a launch, and what a run on this machine takes no notice of.

use std::path::Path;

use ergodic_tests::{run, run_with, stdout};

use crate::refusals::refused;
use crate::weights::KEEPING;

/// Two trials of an instant.
const INSTANT: &str = "name = \"instant\"\nrepeats = 2\n[model]\nkind = \"toy\"\n[train]\nsteps = 5\nlr = 0.1\n\
                       [measure]\nmetrics = [\"train_loss\"]\n";

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn a_run_takes_no_notice_of_a_cluster() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| text_of(&dir.path().join(name));
    std::fs::write(path("instant.toml"), INSTANT).expect("a file can be written");

    let spool = path("spool");
    let missing = path("missing");
    let finished = run_with(
        &[
            ("ERGODIC_COORDINATOR", "https://192.0.2.1:7070"),
            ("ERGODIC_TOKEN_FILE", &missing),
            ("ERGODIC_CA", &missing),
            ("ERGODIC_SPOOL", &spool),
            ("ERGODIC_CHECKPOINTS", &spool),
        ],
        &["run", &path("instant.toml"), "--store", &path("store")],
    );
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("2/2 trials"),
        "{}",
        finished.stderr
    );
    assert!(!Path::new(&spool).exists(), "a run has no spool");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = text_of(&dir.path().join("wrong.toml"));
    let wrong = INSTANT
        .replace("repeats = 2", "repeats = 0")
        .replace("steps = 5", "steps = 0")
        .replace("\"train_loss\"", "\"tain_loss\"");
    std::fs::write(&file, wrong).expect("a file can be written");

    let words = [
        "there are 3 mistakes:",
        "wrong.toml:2: repeats: expected",
        "wrong.toml:6: train.steps: expected",
        "wrong.toml:9: measure.metrics: unknown metric 'tain_loss', did you mean 'train_loss'?",
    ];
    refused(&run(&["plan", &file]), 2, &words);
    refused(&run(&["run", &file]), 2, &words);

    let one = run(&[
        "plan",
        &file,
        "--set",
        "repeats=1",
        "--set",
        "train.steps=5",
    ]);
    refused(&one, 2, &["wrong.toml:9: measure.metrics: unknown metric"]);
    assert!(!one.stderr.contains("mistakes"), "{}", one.stderr);
}

#[test]
fn a_setting_of_an_axis_is_its_only_value() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = text_of(&dir.path().join("axes.toml"));
    let axes = format!("{INSTANT}[grid]\n\"model.dim\" = [3, 5]\nwd = [0.0, 0.1]\n");
    std::fs::write(&file, axes).expect("a file can be written");

    for setting in [
        "model.dim=9",
        "grid.model.dim=[9]",
        "grid.\"model.dim\"=[9]",
    ] {
        let plan = stdout(&["plan", &file, "--set", setting]);
        assert!(
            plan.contains("2 cells × 2 repeats") && plan.contains("axis model.dim: 1 value, 9"),
            "{setting}: {plan}"
        );
    }
}

#[test]
fn plan_checks_the_files_that_a_launch_checks() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| text_of(&dir.path().join(name));
    let trained = KEEPING.replace("lr = [0.05, 1e38]", "lr = [0.05]");
    std::fs::write(path("trained.toml"), &trained).expect("a file can be written");
    std::fs::write(path("not.safetensors"), "no tensors").expect("a file can be written");
    let from = |file: &str, more: &[&str]| {
        let sweep = path("trained.toml");
        let setting = format!("model.init.file={file}");
        run(&[&["plan", &sweep, "--set", &setting], more].concat())
    };
    refused(&from("not.safetensors", &[]), 2, &["not.safetensors"]);
    refused(
        &from("none.safetensors", &[]),
        2,
        &["none.safetensors", "missing"],
    );

    let store = path("store");
    let ran = run(&["run", &path("trained.toml"), "--store", &store]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let weights = find_weights(dir.path());
    std::fs::copy(weights, path("w.safetensors")).expect("the weights can be copied");

    let plan = from("w.safetensors", &[]);
    assert_eq!(plan.code, 0, "{}", plan.stderr);
    assert!(
        plan.stdout.contains(
            "checked: the file and its 1 cell; names, shapes and numbers of all tensors in w.safetensors; the images and labels of glyphs"
        ),
        "{}",
        plan.stdout
    );
    refused(
        &from("w.safetensors", &["--set", "model.hidden=[25]"]),
        2,
        &["model.init.file: w.safetensors", "fc1", "shape"],
    );

    let two = "grid.\"data.dataset\"=[\"glyphs\", \"mnist\"]";
    refused(
        &run(&[
            "plan",
            &path("trained.toml"),
            "--set",
            two,
            "--set",
            "data.test=2000",
        ]),
        2,
        &["a sweep trains on one dataset, this one on glyphs and mnist"],
    );
}

#[test]
fn init_writes_a_sweep_that_runs_and_overwrites_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| text_of(&dir.path().join(name));
    let file = path("first.toml");
    let told = stdout(&["init", &file]);
    assert!(told.contains(&format!("`ergodic plan {file}`")), "{told}");

    let written = std::fs::read_to_string(&file).expect("the file was written");
    assert!(written.contains("name    = \"first\""), "{written}");
    refused(&run(&["init", &file]), 2, &["first.toml", "name another"]);
    let after = std::fs::read_to_string(&file).expect("the file stays");
    assert_eq!(after, written);

    let plan = stdout(&["plan", &file]);
    assert!(plan.contains("first: 6 cells × 5 repeats"), "{plan}");
    let ran = run(&[
        "run",
        &file,
        "--set",
        "repeats=1",
        "--store",
        &path("store"),
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(stdout(&["init", "-"]).contains("name    = \"my-sweep\""));
}

#[test]
fn docs_list_what_a_sweep_file_can_name() {
    let topics = stdout(&["docs"]);
    for topic in ["fields", "metrics", "models", "datasets"] {
        assert!(topics.contains(topic), "{topics}");
        let listed: serde_json::Value =
            serde_json::from_str(&stdout(&["docs", topic, "--format", "json"]))
                .expect("a list in JSON");
        assert!(
            listed.as_array().is_some_and(|list| list.len() >= 4),
            "{listed}"
        );
    }

    let fields = stdout(&["docs", "fields", "--format", "csv"]);
    assert!(
        fields.contains("train.lr,lr,a finite number >= 0"),
        "{fields}"
    );
    let metrics = stdout(&["docs", "metrics"]);
    assert!(metrics.contains("weight_norm_sq[LAYER]"), "{metrics}");
    let unknown = run(&["docs", "metric"]);
    assert!(
        unknown.code == 2 && unknown.stderr.contains("metrics"),
        "{}",
        unknown.stderr
    );
}

/// A file of weights in a store.
fn find_weights(dir: &Path) -> std::path::PathBuf {
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).expect("a file can be read");
            let tensors = safetensors::SafeTensors::deserialize(&bytes);
            if tensors.is_ok_and(|tensors| tensors.tensor("fc1.weight").is_ok()) {
                return path;
            }
        }
    }
    panic!("no trial stored its weights");
}
