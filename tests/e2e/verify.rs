//! Folders of experiments: run, judged, drawn, and not run twice.

use std::path::Path;

use ergodic_tests::{Cluster, Finished, Gate, Program, run_in};
use serde_json::Value;

use super::refusals::refused;

/// Two cells, of which a claim and its figures can be had in a moment.
fn experiment(name: &str, seed: u32, claim: &str) -> String {
    format!(
        r#"
name    = "{name}"
repeats = 4
seed    = {seed}
[data]
dataset = "glyphs"
train   = 200
test    = 100
[model]
kind   = "mlp"
hidden = [8]
[train]
steps      = 60
batch_size = 20
schedule   = [{{ step = 40, lr = "x0.1" }}]
[grid]
lr = [0.1, 0.3]
[measure]
every   = "10 steps"
metrics = ["train_loss"]
[quantity]
late = "at(train_loss, end)"
[[claim]]
name = "the loss"
of   = "late"
{claim}
[[figure]]
name  = "loss"
y     = "train_loss"
by    = "lr"
log   = "y"
marks = "decay"
[[figure]]
name   = "late"
claims = "the loss"
x      = "lr"
lines  = "1 + 0*x"
[scale.long]
repeats = 6
"#
    )
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("a file can be written");
}

/// A folder with experiments, in another one.
fn folder_with(experiments: &[(&str, String)]) -> tempfile::TempDir {
    let here = tempfile::tempdir().expect("a temporary directory");
    let folder = here.path().join("experiments");
    std::fs::create_dir(&folder).expect("a folder can be made");
    for (name, text) in experiments {
        write(&folder, name, text);
    }
    here
}

fn verify(here: &Path, more: &[&str]) -> Finished {
    run_in(here, &[], &[&["verify", "experiments"], more].concat())
}

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("the file is there");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn a_folder_is_run_once_and_judged_each_time() {
    let long = format!("title  = \"{}\"", "a long title ".repeat(40));
    let here = folder_with(&[
        ("a-right.toml", experiment("right", 1, "below = 100")),
        // The same trials: this sweep waits for the other and takes its results.
        (
            "b-wrong.toml",
            experiment("wrong", 1, "above = 100").replace("lines  =", &format!("{long}\nlines  =")),
        ),
    ]);
    let here = here.path();
    let first = verify(here, &[]);
    assert_eq!(first.code, 7, "{first:?}");
    for words in [
        "a-right (",
        "8 trials",
        "agrees",
        "disagrees",
        "1 of 2 experiments agrees; 1 disagrees: b-wrong (the loss)\n",
    ] {
        assert!(first.stdout.contains(words), "{words}: {first:?}");
    }
    assert!(
        first.stderr.contains("a-right: completed: 8/8 trials"),
        "{first:?}"
    );
    assert!(
        first.stderr.contains("8 results are reused from"),
        "{first:?}"
    );

    let cut = "warning: b-wrong-late.svg: 'a long title";
    assert!(
        first.stderr.contains(cut) && first.stderr.contains("is cut"),
        "{first:?}"
    );

    let results = here.join("ergodic-verify/experiments");
    let found = read_json(&results.join("a-right.json"));
    assert_eq!(found["verdict"], "agrees");
    assert_eq!(found["seed"], 1);
    assert_eq!(found["rows"].as_array().map(Vec::len), Some(2));
    assert_eq!(found["rows"][0]["alpha"], 0.05);
    assert_eq!(found["rows"][0]["post_hoc"], false);
    assert_eq!(found["claims"].as_str().map(str::len), Some(64));
    let figures = ["a-right-loss.svg", "a-right-late.svg"];
    assert_eq!(found["figures"], serde_json::json!(figures));
    for name in figures {
        let picture = std::fs::read_to_string(results.join(name)).expect("the figure is there");
        assert!(picture.starts_with("<svg"), "{name}");
    }
    let table = std::fs::read_to_string(results.join("verdicts.md")).expect("the table is there");
    assert_eq!(table.lines().count(), 2 + 4, "{table}");

    let again = verify(here, &["--format", "json"]);
    assert_eq!(again.code, 7, "{again:?}");
    assert!(again.stderr.contains("a-right: "), "{again:?}");
    assert!(
        !again.stderr.contains("coordinator at"),
        "no worker is started: {again:?}"
    );
    let document: Value = serde_json::from_str(&again.stdout).expect("JSON");
    assert_eq!(
        (&document["agree"], &document["disagree"]),
        (&1.into(), &1.into())
    );
    assert_eq!(document["experiments"][0]["sweep"], found["sweep"]);

    // Claims that came later are judged, and marked; nothing is run for them.
    write(
        &here.join("experiments"),
        "b-wrong.toml",
        &experiment("wrong", 1, "above = 0"),
    );
    let corrected = verify(here, &["--format", "csv"]);
    assert_eq!(corrected.code, 0, "{corrected:?}");
    assert!(
        !corrected.stderr.contains("coordinator at"),
        "{corrected:?}"
    );
    let lines = corrected
        .stdout
        .lines()
        .filter(|line| line.starts_with("b-wrong"));
    assert_eq!(
        lines.filter(|line| line.contains(",true,false,")).count(),
        2,
        "{corrected:?}"
    );
    let shown = run_in(here, &[], &["verdict", "right"]);
    assert_eq!(shown.code, 0, "its store is remembered: {shown:?}");

    // The page of a sweep has them, too.
    let page = run_in(here, &[], &["report", "right", "-o", "page"]);
    assert_eq!(page.code, 0, "{page:?}");
    let page = std::fs::read_to_string(here.join("page/index.html")).expect("the page is there");
    assert!(page.contains("<h2>Claims</h2>") && page.contains("<td>agrees</td>"));
    assert!(!page.contains("Cut in the figure"));
    let page = run_in(here, &[], &["report", "wrong", "-o", "page"]);
    assert_eq!(page.code, 0, "{page:?}");
    let page = std::fs::read_to_string(here.join("page/index.html")).expect("the page is there");
    assert!(page.contains("Cut in the figure: a long title"));
}

#[test]
fn a_mistake_in_one_file_is_told_before_any_is_run() {
    let mistake = experiment("typo", 1, "below = 100").replace("train_loss, end", "train_los, end");
    let unclaimed = crate::empty_sweep(2);
    let here = folder_with(&[
        ("a.toml", experiment("right", 1, "below = 100")),
        ("b.toml", mistake),
        ("c.toml", unclaimed),
    ]);
    let here = here.path();
    refused(
        &verify(here, &[]),
        2,
        &[
            "2 of 3 files cannot be verified",
            "b.toml:",
            "train_los",
            "c.toml: there is no claim",
        ],
    );
    assert!(!here.join("ergodic-verify").exists());

    let one = ["verify", "experiments/a.toml"];
    let unscaled = run_in(here, &[], &[&one[..], &["--scale", "short"]].concat());
    refused(&unscaled, 2, &["a.toml", "no scale 'short'", "long"]);
    refused(&run_in(here, &[], &["verify", "nowhere"]), 2, &["nowhere"]);

    let cost = run_in(
        here,
        &[],
        &[&one[..], &["--scale", "long", "--dry-run"]].concat(),
    );
    assert_eq!(cost.code, 0, "{cost:?}");
    assert!(
        cost.stdout.contains("12 trials in 1 experiment: about"),
        "{cost:?}"
    );
    assert!(!here.join("ergodic-verify").exists());
}

#[test]
fn an_interrupted_verification_continues_where_it_stopped() {
    let here = folder_with(&[
        ("a.toml", experiment("first", 1, "below = 100")),
        ("b.toml", experiment("second", 2, "below = 100")),
    ]);
    let here = here.path();
    let folder = here.join("experiments").to_string_lossy().into_owned();
    let results = here.join("results");
    let output = results.to_string_lossy().into_owned();
    let args = ["verify", &folder, "-o", &output, "--slots", "2"];

    let gate = Gate::at(&here.join("gate"));
    gate.hold_after(2);
    let held = gate.failpoints();
    let running = Program::start_with(&[("FAILPOINTS", &held)], &args, &here.join("log"));
    let cluster = Cluster::of_run(&running);
    cluster.wait_until_held("first", 4);
    running.signal("INT");
    Program::wait_for_file(&results.join("store/worker-1.log"), "leaving");
    gate.open();
    assert_eq!(running.wait(), 130);
    assert!(!results.join("a.json").exists());

    let again = ergodic_tests::run(&args);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(
        again.stderr.contains("is the same sweep, and continues"),
        "{again:?}"
    );
    assert!(
        again.stdout.contains("2 of 2 experiments agree\n"),
        "{again:?}"
    );
    assert!(results.join("b.json").exists());
}
