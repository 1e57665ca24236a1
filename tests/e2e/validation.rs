//! Images kept aside, through the real programs: what is said of them, and what is refused.

use ergodic_tests::Cluster;
use serde_json::Value;

const SPEC: &str = r#"
name    = "aside"
repeats = 2
seed    = 5
[data]
dataset = "glyphs"
train   = 300
test    = 100
validation = 200
[model]
kind   = "mlp"
hidden = [16]
[train]
steps      = 20
batch_size = 30
average    = { kind = "ema", decay = 0.5 }
[measure]
every      = "10 steps"
metrics    = ["val_acc", "val_loss", "test_acc", "test_loss", "test_smoothed_loss", "average_val_acc"]
statistics = "re-estimated"
[grid]
lr = [0.1, 1e-5]
"#;

#[test]
fn cells_can_be_told_apart_by_images_that_were_kept_aside() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(1, &[]);
    let id = cluster.launch(SPEC);
    cluster.wait_for_end(&id);
    let table = cluster.ask(&["table", &id, "--metric", "val_acc"]);
    assert!(
        table.contains("300 of 10000 training images, 200 others to validate on"),
        "{table}"
    );

    let trials: Value = serde_json::from_str(&cluster.ask(&["trials", &id, "--format", "json"]))
        .expect("a list of trials");
    for trial in trials.as_array().expect("a list") {
        let accuracy = trial["val_acc"].as_f64().expect("a number");
        // Of 200 images.
        let right = accuracy * 200.0;
        assert!(
            (0.0..=1.0).contains(&accuracy) && (right - right.round()).abs() < 1e-9,
            "{trial}"
        );

        assert!(trial["val_loss"].is_number() && trial["average_val_acc"].is_number());
        assert_eq!(
            trial["test_loss"], trial["test_smoothed_loss"],
            "nothing is smoothed here"
        );
    }

    // What chooses is said, and is the same whatever is shown of the cell that is chosen.
    let best = |metric: &str| {
        let table = cluster.ask(&["table", &id, "--metric", metric]);
        let row = table
            .lines()
            .find(|line| line.contains('★') && line.contains('±'))
            .map(str::to_owned);
        (
            row.unwrap_or_else(|| panic!("no best cell in {table}")),
            table,
        )
    };
    assert!(best("val_acc").0.contains("0.1 ") && best("test_acc").0.contains("0.1 "));

    assert!(
        best("test_acc").1.contains("★ best by val_acc")
            && !best("val_acc").1.contains("by val_acc")
    );
    let replayed = cluster.ask(&["replay", &id, "0/1"]);
    assert!(replayed.contains("the same bits here"), "{replayed}");
}
