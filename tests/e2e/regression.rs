//! Sweeps on targets instead of labels, from the plan to claims.

use std::path::Path;

use ergodic_proto::v1;
use ergodic_tests::{Cluster, RawWorker, run_in};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::Value;

use crate::block_on;

/// Numbers that look random, in [−1, 1).
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / 8_388_608.0) - 1.0
        })
        .collect()
}

/// A dataset of three features and two targets, which are functions of them. `change` is made to the targets of each part.
fn write_dataset(path: &Path, change: impl Fn(&str, &mut Vec<f32>)) {
    let mut tensors = Vec::new();
    for (part, count) in [("train", 120), ("test", 60)] {
        let x = numbers(count as u64, 3 * count);
        let mut y: Vec<f32> = x
            .chunks_exact(3)
            .flat_map(|x| [x[0] * x[1] + 0.5, 2.0 * x[2] - x[0]])
            .collect();
        change(part, &mut y);
        for (name, width, numbers) in [("x", 3, x), ("y", y.len() / count, y)] {
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            tensors.push((format!("{name}_{part}"), vec![count, width], bytes));
        }
    }

    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name, view.expect("consistent"))
    });
    std::fs::write(path, serialize(views, None).expect("small")).expect("written");
}

const SWEEP: &str = r#"
name    = "regression"
repeats = 8
audit   = 1
[data]
dataset = "two.safetensors"
[model]
kind = "mlp"
norm = "none"
[train]
steps      = 60
batch_size = 20
optimizer  = { momentum = 0.9 }
[measure]
every = "20 steps"
[grid]
lr = [0.001, 0.05]
"model.hidden" = [[4], [32]]
[[claim]]
name  = "it learns"
of    = "at(test_loss, end)"
where = "lr == 0.05"
below = 1
[[claim]]
name   = "and more than with a small rate"
of     = "at(test_loss, end)"
form   = "ratio"
to     = "lr == 0.001"
where  = "lr == 0.05"
below  = 0.9
"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn a_regression_goes_from_the_plan_to_its_claims_in_the_same_bits_on_two_workers() {
    let mut cluster = Cluster::start(&[]);
    write_dataset(&cluster.path("two.safetensors"), |_, _| ());
    std::fs::write(cluster.path("sweep.toml"), SWEEP).expect("written");
    let plan = cluster.ask(&["plan", &cluster.path("sweep.toml").to_string_lossy()]);
    for words in [
        "all 120 training images, all 60 test images;",
        "2 targets of each image, numbers",
        "taken as they are",
    ] {
        assert!(plan.replace("\n   ", "").contains(words), "{plan}");
    }

    let _workers = [cluster.worker(1, &[]), cluster.worker(1, &[])];
    cluster.wait_for_workers(2);
    let id = cluster.launch(SWEEP);
    cluster.wait_for_end(&id);
    let audited = |status: &Value| status["audits_same"] == 32 && status["audits_left"] == 0;
    cluster.wait_until(&id, "all are audited", audited);

    cluster.kill_and_restart_coordinator();
    check_table(&cluster, &id);
    check_analyses(&cluster, &id);
    check_refusals(&cluster, &id);
}

/// The table is of the means of test losses, and a cell with a small one is the best.
fn check_table(cluster: &Cluster, id: &str) {
    let table = json(&cluster.ask(&["table", id, "--format", "json"]));
    assert_eq!(table["metric"], "test_loss");
    let trials = json(&cluster.ask(&["trials", id, "--format", "json"]));
    let cells = table["rows"].as_array().expect("rows");
    assert_eq!(cells.len(), 4, "{table}");

    for cell in cells {
        let trials = trials.as_array().expect("a list").iter();
        let same = ["lr", "model.hidden"];
        let of_cell = trials.filter(|trial| same.iter().all(|name| trial[name] == cell[name]));
        let losses: Vec<f64> = of_cell
            .filter_map(|trial| trial["test_loss"].as_f64())
            .collect();
        assert_eq!(losses.len(), 8, "{table}");
        let mean = losses.iter().sum::<f64>() / 8.0;
        let shown = cell["mean"].as_f64().expect("a mean");
        assert!((shown / mean - 1.0).abs() < 1e-12, "{cell}");
    }

    let text = cluster.ask(&["table", id]);
    let best = text.lines().find(|line| line.contains('★'));
    assert!(best.is_some_and(|line| line.contains(" 0.05 ")), "{text}");
}

/// Curves, comparisons and claims are of the losses.
fn check_analyses(cluster: &Cluster, id: &str) {
    let curves = cluster.ask(&["curves", id, "--metric", "test_loss", "--format", "csv"]);
    // Three moments of four cells, and the head.
    assert!(curves.lines().count() > 12, "{curves}");
    let compared = cluster.ask(&["compare", id, "--baseline", "lr=0.001", "--format", "json"]);
    let compared = json(&compared);
    let rows = compared["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2, "{compared}");
    for row in rows {
        assert!(row["difference"].as_f64() < Some(0.0), "{compared}");
    }

    let verdict = cluster.run(&["verdict", id, "--format", "json"]);
    let rows = json(&verdict.stdout)["rows"].clone();
    let mut rows = rows.as_array().expect("rows").iter();
    assert!(
        verdict.code == 0 && rows.len() > 1 && rows.all(|row| row["verdict"] == "agrees"),
        "{verdict:?}"
    );
}

/// What needs classes is refused with a reason.
fn check_refusals(cluster: &Cluster, id: &str) {
    for command in ["predictions", "distance"] {
        let refused = cluster.run(&[command, id]);
        assert!(
            refused.code != 0 && refused.stderr.contains("targets ('y_train' is F32)"),
            "{refused:?}"
        );
    }

    let file = cluster.path("sweep.toml");
    let file = file.to_string_lossy();
    for (setting, words) in [
        ("train.loss=cross-entropy", "set loss = \"mse\""),
        ("data.label_noise=0.1", "no labels to replace"),
        ("measure.metrics=[\"test_acc\"]", "name test_loss"),
        ("measure.probe={points=5}", "predictions are classes"),
    ] {
        for command in ["plan", "launch"] {
            let refused = cluster.run(&[command, &file, "--set", setting]);
            assert!(
                refused.code == 2 && refused.stderr.contains(words),
                "{setting}: {refused:?}"
            );
            let field = setting.split('=').next().expect("a field");
            assert!(refused.stderr.contains(field), "{setting}: {refused:?}");
        }
    }
}

/// A worker of an earlier version is told at once why it gets no such sweep, and one that reads the answer finds what it knows in it.
#[test]
fn the_file_of_a_regression_is_for_programs_that_know_targets() {
    let cluster = Cluster::start(&[]);
    write_dataset(&cluster.path("two.safetensors"), |_, _| ());
    let id = cluster.launch(SWEEP);
    block_on(async {
        let mut raw = RawWorker::joined(&cluster.url, "a").await;
        let question = |protocol| v1::GetSweepRequest {
            sweep: id.clone(),
            protocol,
        };
        let refused = raw.client.get_sweep(question(1)).await;
        let refused = refused.expect_err("too old");
        assert!(refused.message().contains("too old to read"), "{refused}");
        let answer = raw.client.get_sweep(question(2)).await;
        let answer = answer.expect("known").into_inner();
        let source = answer.source.expect("a file");
        assert_eq!((source.grammar, source.files.len()), (6, 2));
        for pin in source.files {
            let images = pin.images.expect("a shape");
            assert!((2..=256).contains(&images.classes), "{images:?}");
        }
    });
}

#[test]
fn targets_that_would_be_misread_are_refused_with_their_tensor() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let text = SWEEP.split("[[claim]]").next().expect("the sweep");
    std::fs::write(dir.path().join("sweep.toml"), text).expect("written");
    let file = dir.path().join("two.safetensors");
    let plan = || run_in(dir.path(), &[], &["plan", "sweep.toml"]);

    write_dataset(&file, |_, y| y[7] = f32::NAN);
    let refused = plan();
    assert!(
        refused.code == 2 && refused.stderr.contains("'y_train' holds NaN in row 3"),
        "{refused:?}"
    );
    write_dataset(&file, |part, y| {
        if part == "train" {
            y.truncate(120);
        }
    });
    let refused = plan();
    let words = "'y_train' has 1 target for each image, and 'y_test' has 2";
    assert!(
        refused.code == 2 && refused.stderr.contains(words),
        "{refused:?}"
    );
    write_dataset(&file, |_, y| y.fill(1.5));
    let refused = plan();
    assert!(
        refused.code == 2
            && refused
                .stderr
                .contains("all numbers in 'y_train' are equal"),
        "{refused:?}"
    );

    write_dataset(&file, |_, y| y.iter_mut().for_each(|y| *y = y.round()));
    let listed = "kind = \"layers\"\nlayers = [{ linear = 8 }, { linear = \"classes\" }]";
    let listed = text.replace("kind = \"mlp\"", listed);
    let listed = listed.replace("\"model.hidden\" = [[4], [32]]\n", "");
    std::fs::write(dir.path().join("sweep.toml"), listed).expect("written");
    let network = plan();
    assert!(
        network
            .stdout
            .contains("network: images of 1×1×3, 2 targets,")
            && network.stdout.contains("classes are U8, I32 or I64"),
        "{network:?}"
    );
    let network = run_in(dir.path(), &[], &["plan", "sweep.toml", "--format", "json"]);
    let network = json(&network.stdout);
    assert_eq!(network["networks"][0]["targets"], 2, "{network}");
}
