//! What trials keep beside their metrics: weights and predictions.

use std::collections::BTreeMap;

use ergodic_tests::{Cluster, run, stdout};
use safetensors::SafeTensors;

/// Trials of which one diverges; every test image is in the probe set.
pub(crate) const KEEPING: &str = r#"
name    = "keeping"
repeats = 2
seed    = 7
[data]
dataset = "glyphs"
train   = 500
[model]
kind   = "mlp"
hidden = [24]
[train]
steps      = 20
batch_size = 32
[grid]
lr = [0.05, 1e38]
[measure]
metrics = ["test_acc"]
probe   = { points = 2000, at = ["10 steps", "final"] }
save    = ["final"]
"#;

#[test]
fn weights_and_predictions_are_kept_and_handed_out() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(KEEPING);
    cluster.wait_for_end(&id);

    let file = cluster.path("w.safetensors");
    let path = file.to_string_lossy().into_owned();
    cluster.ask(&["weights", &id, "0/1", "-o", &path]);
    let bytes = std::fs::read(&file).expect("the weights were written");
    let weights = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    assert_eq!(
        weights
            .tensor("fc1.weight")
            .expect("the first layer")
            .shape(),
        [24, 784]
    );

    assert_eq!(
        weights
            .tensor("fc1.norm.running_var")
            .expect("its statistics")
            .shape(),
        [24]
    );

    let refused = run(&[
        "weights",
        &id,
        "1/0",
        "-o",
        &path,
        "--coordinator",
        &cluster.url,
    ]);
    assert!(
        refused.code == 5 && refused.stderr.contains("diverged"),
        "{refused:?}"
    );

    assert_eq!(std::fs::read(&file).expect("still there"), bytes);

    check_predictions(&cluster, &id);
    let again = cluster.ask(&["replay", &id, "0/1"]);
    assert!(again.contains("the same bits"), "{again}");
}

/// Over all test images, the share of right predictions is the test accuracy.
fn check_predictions(cluster: &Cluster, id: &str) {
    let csv = cluster.ask(&["predictions", id]);
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("lr,cell,repeat,step,image,label,class"));
    let mut right: BTreeMap<(String, String), (u32, u32)> = BTreeMap::new();

    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let (all, hits) = right
            .entry((format!("{}/{}", fields[1], fields[2]), fields[3].to_owned()))
            .or_default();
        *all += 1;

        *hits += u32::from(fields[5] == fields[6]);
    }

    assert_eq!(
        right.len(),
        4,
        "two completed trials, two moments each: {:?}",
        right.keys()
    );

    assert!(right.values().all(|(all, _)| *all == 2000));
    let text = cluster.ask(&["trials", id, "--format", "json"]);
    let trials: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
    for trial in trials
        .as_array()
        .expect("a list")
        .iter()
        .filter(|t| t["outcome"] == "completed")
    {
        let (_, hits) = right[&(
            format!("{}/{}", trial["cell"], trial["repeat"]),
            "20".to_owned(),
        )];
        assert_eq!(trial["test_acc"].as_f64(), Some(f64::from(hits) / 2000.0));
    }
}

#[test]
fn a_sweep_that_keeps_nothing_says_how_to() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(1, &[]);
    let id = cluster.launch(&crate::empty_sweep(1));
    cluster.wait_for_end(&id);
    let refused = run(&["predictions", &id, "--coordinator", &cluster.url]);
    assert!(
        refused.code == 5 && refused.stderr.contains("probe = { points"),
        "{refused:?}"
    );

    let refused = run(&[
        "weights",
        &id,
        "0/0",
        "-o",
        "unwritten",
        "--coordinator",
        &cluster.url,
    ]);
    assert!(
        refused.code == 5 && refused.stderr.contains("save = [\"final\"]"),
        "{refused:?}"
    );

    assert!(stdout(&["--help"]).contains("predictions"));
}
