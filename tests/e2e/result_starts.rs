//! Trials that start from the mean of weights that other trials kept, and the stages of a sweep file.

use std::collections::BTreeMap;
use std::path::Path;

use ergodic_tests::{Cluster, Finished, run, run_in, stdout};
use safetensors::SafeTensors;
use serde_json::Value;

use super::refusals::refused;

/// A sweep that keeps weights at two moments, and a stage that takes means of three trials of the first cell.
const STAGED: &str = r#"
name    = "kept"
repeats = 10
seed    = 11
seeds   = { fixed = ["head"] }
[data]
dataset = "glyphs"
train   = 300
test    = 200
[model]
kind       = "mlp"
hidden     = [12, 10]
fixed_head = true
[model.init]
scheme = "orthogonal"
[train]
steps      = 30
batch_size = 20
[grid]
lr = [0.1, 0.3]
[measure]
every      = "30 steps"
metrics    = ["test_acc"]
statistics = "re-estimated"
save       = ["10 steps", "final"]
[[claim]]
name  = "it learns"
of    = "at(test_acc, end)"
above = 0.1

[stage.mean]
repeats = 3
seeds   = {}
audit   = 1.0
train   = { steps = 0, lr = 0.1 }
measure = { metrics = ["test_acc", "parts_cos", "weight_norm_sq"], save = ["final"] }
model.init.results = { stage = "main", where = "lr == 0.1", trials = 3, at = ["10 steps", "final"] }
[[stage.mean.claim]]
name  = "they are near"
of    = "at(parts_cos, end)"
above = 0.05

[stage.further]
repeats = 2
train   = { steps = 8, lr = 0.1 }
measure = { every = "4 steps", metrics = ["train_loss", "init_distance"], save = [] }
model.init.results = { stage = "mean" }
"#;

fn write(cluster: &Cluster, name: &str, text: &str) -> String {
    let path = cluster.path(name);
    std::fs::write(&path, text).expect("a file can be written");
    path.to_string_lossy().into_owned()
}

/// Launches a stage of a file whose first sweep is known.
fn launch_stage(cluster: &Cluster, path: &str, stage: &str, more: &[&str]) -> Finished {
    cluster.run(&[&["launch", path, "--stage", stage], more].concat())
}

fn launched(cluster: &Cluster, path: &str, stage: &str, sources: &[(&str, &str)]) -> String {
    let settings: Vec<String> = sources
        .iter()
        .map(|(name, id)| format!("results.{name}={id}"))
        .collect();
    let options: Vec<&str> = settings
        .iter()
        .flat_map(|setting| ["--set", setting.as_str()])
        .collect();
    let finished = launch_stage(cluster, path, stage, &options);
    assert_eq!(finished.code, 0, "{finished:?}");
    finished.stdout.trim().to_owned()
}

/// The numbers of each tensor of the weights that a trial kept.
fn weights(cluster: &Cluster, id: &str, trial: &str, at: &[&str]) -> BTreeMap<String, Vec<f32>> {
    let file = cluster.path("fetched.safetensors");
    let path = file.to_string_lossy().into_owned();
    cluster.ask(&[&["weights", id, trial, "-o", &path], at].concat());
    let bytes = std::fs::read(&file).expect("the weights were written");
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let numbers = |data: &[u8]| {
        let singles = data.as_chunks::<4>().0.iter();
        singles.map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let tensors = tensors.tensors().into_iter();
    tensors
        .map(|(name, view)| (name, numbers(view.data())))
        .collect()
}

/// The mean of tensors, summed in f64 and rounded once.
fn mean(parts: &[BTreeMap<String, Vec<f32>>]) -> BTreeMap<String, Vec<f32>> {
    let mut means = parts[0].clone();
    for (name, numbers) in &mut means {
        for (at, x) in numbers.iter_mut().enumerate() {
            let sum = parts
                .iter()
                .fold(0.0, |sum, part| sum + f64::from(part[name][at]));
            *x = (sum / parts.len() as f64) as f32;
        }
    }
    means
}

#[test]
fn a_stage_starts_from_the_mean_of_kept_weights_whoever_asks_and_however_often() {
    let mut cluster = Cluster::start(&[]);
    let _workers = [cluster.worker(1, &[]), cluster.worker(1, &[])];
    let path = write(&cluster, "kept.toml", STAGED);
    let main = cluster.launch(STAGED);
    cluster.wait_for_end(&main);
    let id = launched(&cluster, &path, "mean", &[("main", &main)]);
    let ended = cluster.wait_for_end(&id);
    assert_eq!(
        (&ended["name"], &ended["completed"]),
        (&"kept-mean".into(), &3.into())
    );
    cluster.wait_until(&id, "all trials are audited", |status| {
        status["audits_same"] == 3
    });

    // In f64, from the files that the trials kept.
    for repeat in 0..3 {
        let mut parts = Vec::new();
        for trial in 3 * repeat..3 * repeat + 3 {
            for at in ["10 steps", "final"] {
                parts.push(weights(
                    &cluster,
                    &main,
                    &format!("0/{trial}"),
                    &["--at", at],
                ));
            }
        }
        let found = weights(&cluster, &id, &format!("0/{repeat}"), &[]);
        assert_eq!(found, mean(&parts), "repeat {repeat}");
    }
    let replayed = cluster.ask(&["replay", &id, "0/1"]);
    assert!(replayed.contains("the same bits"), "{replayed}");

    // The same question is not answered twice, and neither is the same content under another name.
    let again = launch_stage(
        &cluster,
        &path,
        "mean",
        &["--set", &format!("results.main={main}")],
    );
    assert!(again.stderr.contains("nothing is run"), "{again:?}");
    let by_id = STAGED.replace(
        "stage = \"main\", where",
        &format!("sweep = \"{main}\", where"),
    );
    let renamed = write(
        &cluster,
        "by-id.toml",
        &by_id.replace("\"kept\"", "\"other\""),
    );
    let reused = launch_stage(&cluster, &renamed, "mean", &[]);
    assert!(
        reused.stderr.contains("3 results are reused from"),
        "{reused:?}"
    );
    let fewer = by_id.replace("trials = 3", "trials = 2");
    let fewer = launch_stage(
        &cluster,
        &write(&cluster, "fewer.toml", &fewer),
        "mean",
        &[],
    );
    assert!(
        !fewer.stderr.contains("reused"),
        "other weights are another cell: {fewer:?}"
    );

    // The claims of the file as it is now are read at the stage of the sweep.
    let judged = cluster.run(&["verdict", &id, "--claims", &path]);
    assert!(
        judged.code == 0 && judged.stdout.contains("they are near"),
        "{judged:?}"
    );

    // A stage of a stage, which trains.
    let further = launched(&cluster, &path, "further", &[("mean", &id)]);
    cluster.wait_for_end(&further);
    let rows: Value = serde_json::from_str(&cluster.ask(&["trials", &further, "--format", "json"]))
        .expect("JSON");
    assert!(rows[0]["init_distance"].as_f64() > Some(0.0), "{rows}");

    let grown = cluster.run(&["extend", &id, "--repeats", "4"]);
    refused(
        &grown,
        4,
        &[
            "listed at the launch, for 3 repeats",
            "launch the sweep file again",
        ],
    );
}

#[test]
fn what_a_stage_starts_from_outlives_the_sweep_that_made_it() {
    let mut cluster = Cluster::start(&[]);
    let worker = cluster.worker(2, &[]);
    let path = write(&cluster, "kept.toml", STAGED);
    let main = cluster.launch(STAGED);
    cluster.wait_for_end(&main);
    let id = launched(&cluster, &path, "mean", &[("main", &main)]);
    cluster.wait_for_end(&id);
    let rows = cluster.rows(&id);

    cluster.ask(&["rm", &main]);
    let replayed = cluster.ask(&["replay", &id, "0/0"]);
    assert!(replayed.contains("the same bits"), "{replayed}");
    let file = cluster.path("backup").to_string_lossy().into_owned();
    cluster.ask(&["backup", "-o", &file]);
    worker.kill();

    let mut elsewhere = Cluster::start(&[]);
    let coordinator = elsewhere.take_coordinator();
    coordinator.signal("TERM");
    assert_eq!(coordinator.wait(), 0);
    std::fs::remove_dir_all(elsewhere.path("store")).expect("the store can be removed");
    let store = elsewhere.path("store").to_string_lossy().into_owned();
    stdout(&["restore", &file, "--store", &store]);
    elsewhere.restart_coordinator(&[]);
    assert_eq!(elsewhere.rows(&id), rows);
    let replayed = elsewhere.ask(&["replay", &id, "0/1"]);
    assert!(replayed.contains("the same bits"), "{replayed}");

    // The dataset, the list, the weights of nine trials of the other sweep, and those that the three trials kept. Nothing names them
    // any more once both sweeps are gone.
    assert_eq!(count_files(&elsewhere), 1 + 1 + 9 + 3);
    elsewhere.ask(&["rm", &id]);
    assert_eq!(count_files(&elsewhere), 0);
}

#[test]
fn an_unfinished_stage_is_continued_when_its_source_is_gone() {
    let mut cluster = Cluster::start(&[]);
    let worker = cluster.worker(2, &[]);
    let path = write(&cluster, "kept.toml", STAGED);
    let main = cluster.launch(STAGED);
    cluster.wait_for_end(&main);
    worker.kill();

    let id = launched(&cluster, &path, "mean", &[("main", &main)]);
    cluster.ask(&["rm", &main]);
    let coordinator = cluster.take_coordinator();
    coordinator.signal("TERM");
    assert_eq!(coordinator.wait(), 0);

    let store = cluster.path("store").to_string_lossy().into_owned();
    let set = format!("results.main={main}");
    let stage = [
        "run", &path, "--stage", "mean", "--set", &set, "--store", &store,
    ];
    let other = run(&[&stage[..], &["--set", "repeats=2"]].concat());
    refused(&other, 2, &["has the name or the id"]);
    let resumed = run(&stage);
    assert!(
        resumed.code == 0 && resumed.stderr.contains(&id),
        "{resumed:?}"
    );
    assert_eq!(count_trials(Path::new("."), &store, &id), 3);
}

/// Number of files that a coordinator keeps by their hash.
fn count_files(cluster: &Cluster) -> usize {
    let entries = std::fs::read_dir(cluster.path("store/data")).expect("the folder of files");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names.filter(|name| name.len() == 64).count()
}

#[test]
fn a_start_that_is_not_there_is_refused_with_what_to_do() {
    let mut cluster = Cluster::start(&[]);
    let main = cluster.launch(STAGED);
    let path = write(&cluster, "kept.toml", STAGED);
    let set = format!("results.main={main}");
    let options = ["--set", set.as_str()];
    refused(
        &launch_stage(&cluster, &path, "mean", &options),
        2,
        &["kept.toml:", "model.init.results", "has not ended"],
    );

    let worker = cluster.worker(2, &[]);
    cluster.wait_for_end(&main);
    refused(
        &launch_stage(&cluster, &path, "mean", &[]),
        2,
        &["--set results.main=ID", "ergodic run"],
    );
    for (setting, words) in [
        (
            "model.init.results.trials=4",
            &["need 12 repeats", "extend", "--repeats 12"][..],
        ),
        (
            "model.init.results.at=['20 steps']",
            &["no weights after 20 steps", "after 10, 30 steps"],
        ),
        (
            "model.init.results.where='lr == 7'",
            &["no cell of", "meets"],
        ),
        (
            "model.init.results.where='lrr == 7'",
            &["no axis or field 'lrr'"],
        ),
        ("model.hidden=[9]", &["do not fit the network"]),
        ("results.main=nobody", &["has the name or the id 'nobody'"]),
        (
            "model.init.results.block=2",
            &["at least as many as trials"],
        ),
    ] {
        let more = [&options[..], &["--set", setting]].concat();
        let finished = launch_stage(&cluster, &path, "mean", &more);
        refused(&finished, 2, words);
    }
    let one = [
        "--set",
        "model.init.results.trials=1",
        "--set",
        "model.init.results.at=final",
    ];
    let more = [&options[..], &one].concat();
    refused(
        &launch_stage(&cluster, &path, "mean", &more),
        2,
        &["parts_cos compares", "trials = 2"],
    );

    let diverging = STAGED
        .replace("lr = [0.1, 0.3]", "lr = [1e38, 0.3]")
        .replace("lr == 0.1", "lr > 1");
    let id = cluster.launch(&diverging);
    cluster.wait_for_end(&id);
    let path = write(&cluster, "diverging.toml", &diverging);
    let set = format!("results.main={id}");
    let finished = launch_stage(&cluster, &path, "mean", &["--set", &set]);
    refused(
        &finished,
        5,
        &["the trial 0/0 of", "diverged at step", "where"],
    );

    // Of what was lost, a retry makes the same again.
    drop(worker);
}

/// Files that cannot be read as they are, with what is said of them.
#[test]
fn wrong_stages_are_refused_by_line() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let plan = |text: &str, options: &[&str]| {
        std::fs::write(folder.path().join("s.toml"), text).expect("a file can be written");
        run_in(folder.path(), &[], &[&["plan", "s.toml"], options].concat())
    };
    let good = plan(STAGED, &[]);
    assert!(
        good.code == 0 && good.stdout.contains("stages: after this, mean, further"),
        "{good:?}"
    );
    let stage = plan(STAGED, &["--stage", "mean"]);
    assert!(
        stage.code == 0 && stage.stdout.contains("kept-mean: 1 cell × 3 repeats"),
        "{stage:?}"
    );

    for (from, to, words) in [
        (
            "stage = \"mean\" }",
            "stage = \"maen\" }",
            &["--stage further", "no stage 'maen'", "mean"][..],
        ),
        (
            "stage = \"main\",",
            "stage = \"further\",",
            &["--stage mean", "no stage 'further'"],
        ),
        (
            "[stage.mean]\n",
            "[stage.main]\n",
            &["stage.main", "other than main"],
        ),
        (
            "train   = { steps = 0, lr = 0.1 }",
            "train   = { steps = 0, lr = 0.1 }\nname = \"x\"",
            &["stage.mean.name"],
        ),
        (
            "\"parts_cos\", ",
            "\"train_loss\", ",
            &["a trial of 0 steps has no train_loss"],
        ),
        (
            "steps      = 30",
            "steps      = 0",
            &["train.steps", "found 0", "model.init.results"],
        ),
        (
            "metrics    = [\"test_acc\"]",
            "metrics    = [\"parts_distance\"]",
            &["parts_distance", "set model.init.results"],
        ),
        (
            "save       = [\"10 steps\", \"final\"]",
            "save       = [\"31 steps\"]",
            &["measure.save", "after the end"],
        ),
        (
            "at = [\"10 steps\", \"final\"]",
            "at = [\"best\"]",
            &["found 'best'"],
        ),
        (
            "where = \"lr == 0.1\", trials",
            "lag = 3, trials",
            &["unknown key 'lag'"],
        ),
        // What one stage takes and another one does not keep.
        (
            "where = \"lr == 0.1\", trials = 3",
            "where = \"lr == 0.1\", trials = 4",
            &["--stage mean", "need 12 repeats of kept"],
        ),
        (
            "where = \"lr == 0.1\", trials = 3",
            "where = \"lr == 7\", trials = 3",
            &["--stage mean", "no cell of kept meets"],
        ),
        (
            "at = [\"10 steps\", \"final\"]",
            "at = [\"20 steps\", \"final\"]",
            &["after 20 steps", "measure.save of kept"],
        ),
        (
            "trials = 3, at = [\"10 steps\", \"final\"]",
            "trials = 1",
            &["parts_cos compares", "trials = 2"],
        ),
        (
            "[stage.further]\n",
            "[stage.further]\nmodel.hidden = [12, 9]\n",
            &["--stage further", "of kept-mean", "has the shape"],
        ),
        (
            "fixed = [\"head\"]",
            "fixed = [\"head\"], crossed = { init = 5, order = 2 }",
            &["--stage mean", "the crossed stream '", "independent"],
        ),
    ] {
        assert!(STAGED.contains(from), "{from}");
        let finished = plan(&STAGED.replacen(from, to, 1), &[]);
        refused(&finished, 2, words);
    }
    refused(
        &plan(STAGED, &["--stage", "men"]),
        2,
        &["no stage 'men'", "mean"],
    );
}

/// What a source left says nothing against the files: what could not be run is not decided, and the rest is judged.
#[test]
fn a_stage_that_cannot_start_is_not_enough_and_the_rest_is_judged() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let folder = folder.path();
    let diverging = STAGED
        .replace("lr = [0.1, 0.3]", "lr = [1e38, 0.3]")
        .replace("lr == 0.1", "lr > 1");
    let further = "[[stage.further.claim]]\nname = \"it moves\"\nof = \"at(init_distance, end)\"\nabove = 0\n";
    let (plain, _) = STAGED.split_once("[stage.mean]").expect("a stage");
    let plain = plain.replace("\"kept\"", "\"plain\"");
    std::fs::create_dir(folder.join("all")).expect("a folder can be made");
    for (name, text) in [
        ("a.toml", format!("{diverging}\n{further}")),
        ("b.toml", plain),
    ] {
        std::fs::write(folder.join("all").join(name), text).expect("a file can be written");
    }

    let verify = || run_in(folder, &[], &["verify", "all", "-o", "out"]);
    let found = verify();
    assert_eq!(found.code, 8, "{found:?}");
    for words in [
        "a-mean: no trials",
        "diverged at step",
        "a-further: no trials",
        "the stage 'mean'",
        "1 of 4 experiments agrees; 3 not enough",
    ] {
        assert!(found.stdout.contains(words), "{words}: {found:?}");
    }
    let table = std::fs::read_to_string(folder.join("out/verdicts.md")).expect("the table");
    assert!(table.contains("| a-further | it moves |"), "{table}");
    let again = verify();
    assert_eq!((again.code, &again.stdout), (8, &found.stdout), "{again:?}");
}

fn count_trials(folder: &Path, store: &str, name: &str) -> usize {
    let rows = run_in(
        folder,
        &[],
        &["trials", name, "--store", store, "--format", "json"],
    );
    let rows: Value = serde_json::from_str(&rows.stdout).expect("JSON");
    rows.as_array().expect("rows").len()
}

#[test]
fn stages_run_in_turn_are_judged_together_and_not_run_twice() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let folder = folder.path();
    std::fs::write(folder.join("kept.toml"), STAGED).expect("a file can be written");
    let verify = |more: &[&str]| {
        run_in(
            folder,
            &[],
            &[&["verify", "kept.toml", "-o", "out"], more].concat(),
        )
    };
    let first = verify(&[]);
    assert_eq!(first.code, 0, "{first:?}");
    for words in ["kept (", "kept-mean (", "2 of 2 experiments agree"] {
        assert!(first.stdout.contains(words), "{words}: {first:?}");
    }
    assert_eq!(count_trials(folder, "out/store", "kept-mean"), 3);
    assert_eq!(count_trials(folder, "out/store", "kept-further"), 2);
    let again = verify(&[]);
    assert!(
        again.code == 0 && !again.stderr.contains("coordinator at"),
        "{again:?}"
    );
    let table = std::fs::read_to_string(folder.join("out/verdicts.md")).expect("the table");
    assert!(table.contains("| kept-mean | they are near |"), "{table}");

    let costs = verify(&["--dry-run"]);
    assert!(
        costs.stdout.contains("25 trials in 3 experiments"),
        "{costs:?}"
    );
    refused(
        &verify(&["--stage", "mean"]),
        2,
        &["--stage", "leave it out"],
    );

    let ran = run_in(folder, &[], &["run", "kept.toml", "--store", "runs"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stdout.contains("kept-mean (") && ran.stdout.contains("kept-further ("),
        "{ran:?}"
    );
    for (name, trials) in [("kept-mean", 3), ("kept-further", 2)] {
        assert_eq!(count_trials(folder, "runs", name), trials);
    }
    let listed = run(&["weights", "--help"]);
    assert!(listed.stdout.contains("--at"), "{listed:?}");
}
