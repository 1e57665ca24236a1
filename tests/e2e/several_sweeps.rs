//! Several sweeps shown together, and one compared with another, against figures computed from their rows.

use std::collections::BTreeMap;

use ergodic_tests::Cluster;
use serde_json::Value;

use super::refusals::refused;

/// Exit codes.
const BAD_INPUT: i32 = 2;
const NOT_FOUND: i32 = 5;

/// Two cells; what is in braces differs from sweep to sweep.
fn sweep(name: &str, seed: u64, momentum: f64, grid: &str) -> String {
    format!(
        r#"
name    = "{name}"
repeats = 6
seed    = {seed}
[data]
dataset = "glyphs"
train   = 300
test    = 200
[model]
kind   = "mlp"
hidden = [8]
[train]
steps      = 20
batch_size = 32
optimizer  = {{ kind = "sgd", momentum = {momentum} }}
[grid]
{grid}
[measure]
every   = "10 steps"
metrics = ["test_acc", "test_loss"]
"#
    )
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in:\n{text}"))
}

/// The losses of each rate by repeat, from the rows of one sweep.
fn losses(cluster: &Cluster, id: &str) -> BTreeMap<String, Vec<f64>> {
    let csv = cluster.ask(&["trials", id, "--format", "csv"]);
    let mut lines = csv.lines();
    let header: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let column = |name: &str| {
        let at = header.iter().position(|column| *column == name);
        at.unwrap_or_else(|| panic!("no {name} in {header:?}"))
    };

    let mut losses: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let value = fields[column("test_loss")].parse().expect("a loss");
        losses
            .entry(fields[column("lr")].to_owned())
            .or_default()
            .push(value);
    }
    losses
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

fn assert_close(found: &Value, expected: f64) {
    let found = found
        .as_f64()
        .unwrap_or_else(|| panic!("{found} is no number"));
    assert!((found - expected).abs() < 1e-12, "{found} {expected}");
}

#[test]
fn sweeps_are_shown_together_and_compared_where_their_cells_match() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let plain = cluster.launch(&sweep("plain", 7, 0.0, "lr = [0.05, 0.2]"));
    let heavy = cluster.launch(&sweep("heavy", 7, 0.9, "lr = [0.2, 0.05, 0.4]\nwd = [0.0]"));
    let again = cluster.launch(&sweep("plain", 8, 0.0, "lr = [0.2, 0.05]"));
    let [whole, whole_again] = [7, 8].map(|seed| {
        let text = sweep("whole", seed, 0.0, "lr = [0.2, 0.05]");
        cluster.launch(&text.replace("train   = 300\ntest    = 200\n", ""))
    });
    let other = |name: &str, line: &str| {
        let text = sweep(name, 9, 0.0, "lr = [0.05, 0.2]")
            .replace("seed    =", &format!("{line}\nseed    ="));
        cluster.launch(&text)
    };
    let fixed = other("fixed", "seeds = { fixed = [\"init\"] }");
    let squared = cluster.launch(
        &sweep("squared", 7, 0.0, "lr = [0.05, 0.2]")
            .replace("steps      =", "loss = { kind = \"mse\" }\nsteps      ="),
    );
    for id in [
        &plain,
        &heavy,
        &again,
        &whole,
        &whole_again,
        &fixed,
        &squared,
    ] {
        cluster.wait_for_end(id);
    }

    check_table(&cluster, &plain, &heavy, &again);
    check_paired(&cluster, &plain, &heavy);
    check_unpaired(&cluster, &whole, &whole_again);
    check_own_images(&cluster, &plain, &again);
    check_dependent(&cluster, &plain, &fixed, &squared);
    check_pictures(&cluster, &plain, &heavy);
    check_refusals(&cluster, &plain, &heavy);
}

fn check_table(cluster: &Cluster, plain: &str, heavy: &str, again: &str) {
    let table = json(&cluster.ask(&[
        "table",
        plain,
        heavy,
        "--metric",
        "test_loss",
        "--format",
        "json",
    ]));
    let rows = table["rows"].as_array().expect("rows");
    let sweeps: Vec<&Value> = rows.iter().map(|row| &row["sweep"]).collect();
    assert_eq!(sweeps, ["plain", "plain", "heavy", "heavy", "heavy"]);
    let of_plain = losses(cluster, plain);
    for (row, rate) in rows.iter().zip(["0.05", "0.2"]) {
        assert_close(&row["mean"], mean(of_plain[rate].iter().copied()));
    }

    // Sweeps of one name are told apart by their ids; each is pooled whole.
    let pooled = json(&cluster.ask(&[
        "table",
        plain,
        again,
        "--by",
        "sweep",
        "--metric",
        "test_loss",
        "--format",
        "json",
    ]));
    let rows = pooled["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2, "{pooled}");
    assert_eq!(rows[1]["sweep"], format!("plain ({again})"));
    let all = losses(cluster, again);
    let all: Vec<f64> = all.values().flatten().copied().collect();
    assert_close(&rows[1]["mean"], mean(all.into_iter()));

    let trials = cluster.ask(&["trials", plain, heavy, "--format", "csv"]);
    assert_eq!(trials.lines().count(), 1 + 12 + 18);
    // The grid stands as it was asked for, and each of its places is of one row.
    let grid = cluster.ask(&["table", plain, heavy, "--rows", "lr", "--cols", "sweep"]);
    assert!(grid.contains("lr \\ sweep"), "{grid}");
    assert!(grid.contains("0.4") && grid.contains("heavy"), "{grid}");
    let one = cluster.ask(&[
        "table",
        plain,
        heavy,
        "--by",
        "lr",
        "--where",
        "sweep == \"plain\"",
        "--format",
        "csv",
    ]);
    assert_eq!(one.lines().count(), 3, "{one}");
    // The second sweep alone has the axis wd, whose values stay numbers.
    let all = json(&cluster.ask(&["table", plain, heavy, "--format", "json"]));
    let rows = all["rows"].as_array().expect("rows");
    assert_eq!(
        (&rows[0]["wd"], &rows[2]["wd"]),
        (&Value::Null, &Value::from(0))
    );
}

/// Both have the same seed, so that trials of one repeat share their streams.
fn check_paired(cluster: &Cluster, plain: &str, heavy: &str) {
    let compared = json(&cluster.ask(&[
        "compare",
        heavy,
        plain,
        "--match",
        "lr",
        "--metric",
        "test_loss",
        "--format",
        "json",
    ]));
    assert_eq!(compared["unpaired_reason"], Value::Null, "{compared}");
    assert_eq!(compared["baseline_sweep"], plain);
    let note = compared["note"].as_str().expect("a note");
    assert!(
        note.contains(&format!("1 cell of heavy ({heavy})")),
        "{note}"
    );

    let here = losses(cluster, heavy);
    let there = losses(cluster, plain);
    let rows = compared["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    for (row, rate) in rows.iter().zip(["0.2", "0.05"]) {
        let pairs = here[rate].iter().zip(&there[rate]);
        let differences: Vec<f64> = pairs.map(|(a, b)| a - b).collect();
        assert_close(&row["difference"], mean(differences.iter().copied()));
        let above = differences
            .iter()
            .filter(|difference| **difference > 0.0)
            .count();
        assert_eq!(row["above"], above);
    }
}

/// Cells resolve to the same, but the seeds differ. All images of the dataset are used.
fn check_unpaired(cluster: &Cluster, whole: &str, whole_again: &str) {
    let compared = json(&cluster.ask(&[
        "compare",
        whole_again,
        whole,
        "--metric",
        "test_loss",
        "--format",
        "json",
    ]));
    assert_eq!(compared["unpaired_reason"], "the seeds differ: 8 and 7");

    let here = losses(cluster, whole_again);
    let there = losses(cluster, whole);
    for (row, rate) in compared["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .zip(["0.2", "0.05"])
    {
        let expected = mean(here[rate].iter().copied()) - mean(there[rate].iter().copied());
        assert_close(&row["difference"], expected);
        assert!(row["ci_low"].as_f64() < row["ci_high"].as_f64(), "{row}");
        assert!(
            row["welch_p"].is_f64() && row.get("sign_p").is_none(),
            "{row}"
        );
    }

    let text = cluster.ask(&["compare", whole_again, whole]);
    assert!(
        text.contains("not paired, because the seeds differ"),
        "{text}"
    );
}

/// Each seed chooses images of its own, so that the values of a sweep are shifted together.
fn check_own_images(cluster: &Cluster, plain: &str, again: &str) {
    let args = ["compare", again, plain, "--metric", "test_loss"];
    let compared = json(&cluster.ask(&[&args[..], &["--format", "json"]].concat()));
    let here = losses(cluster, again);
    let there = losses(cluster, plain);
    let rows = compared["rows"].as_array().expect("rows");
    for (row, rate) in rows.iter().zip(["0.2", "0.05"]) {
        let expected = mean(here[rate].iter().copied()) - mean(there[rate].iter().copied());
        assert_close(&row["difference"], expected);
        assert!(row["ci_low"].is_null() && row["welch_p"].is_null(), "{row}");
        let note = row["note"].as_str().expect("a note");
        assert!(
            note.contains("share the chosen images: no interval"),
            "{note}"
        );
    }
}

/// Repeats that share a fixed stream are no independent sample, and losses may be other quantities.
fn check_dependent(cluster: &Cluster, plain: &str, fixed: &str, squared: &str) {
    let compared = json(&cluster.ask(&[
        "compare",
        fixed,
        plain,
        "--metric",
        "test_loss",
        "--format",
        "json",
    ]));
    let row = &compared["rows"][0];
    assert!(
        row["difference"].is_f64() && row["ci_low"].is_null() && row["welch_p"].is_null(),
        "{row}"
    );
    let note = row["note"].as_str().expect("a note");
    assert!(note.contains("share the fixed init"), "{note}");

    let mixed = [
        "compare",
        squared,
        plain,
        "--match",
        "lr",
        "--metric",
        "test_loss",
    ];
    refused(
        &cluster.run(&mixed),
        BAD_INPUT,
        &["mse in squared", "cross-entropy in plain"],
    );
    cluster.ask(&[
        "compare", squared, plain, "--match", "lr", "--metric", "test_acc",
    ]);
}

fn check_pictures(cluster: &Cluster, plain: &str, heavy: &str) {
    for kind in ["distribution", "curves", "heatmap"] {
        let picture = cluster.ask(&["plot", plain, heavy, "--kind", kind]);
        assert!(
            picture.contains("plain") && picture.contains("heavy"),
            "{kind}"
        );
    }
    let pooled = [
        "plot",
        plain,
        heavy,
        "--kind",
        "distribution",
        "--by",
        "sweep",
    ];
    assert!(cluster.ask(&pooled).contains("Pooled over lr"));
    for kind in ["distribution", "curves"] {
        let condition = "sweep == \"plain\"";
        let args = [
            "plot", plain, heavy, "--kind", kind, "--by", "lr", "--where", condition,
        ];
        let of_one = cluster.ask(&args);
        assert!(!of_one.contains("heavy ·"), "{kind}");
    }

    let dir = cluster.path("together");
    let dir = dir.to_str().expect("a path in UTF-8");
    cluster.ask(&["report", plain, heavy, "-o", dir]);
    let page = std::fs::read_to_string(format!("{dir}/index.html")).expect("the page");
    let headings = [
        "Side by side",
        &format!("plain ({plain})"),
        &format!("heavy ({heavy})"),
    ];
    for heading in headings {
        assert!(page.contains(&format!("<h1>{heading}</h1>")), "{heading}");
    }
}

fn check_refusals(cluster: &Cluster, plain: &str, heavy: &str) {
    let refusals = [
        (vec!["compare", heavy, plain], NOT_FOUND, "--match lr"),
        (
            vec!["compare", heavy, plain, "--match", "wd"],
            NOT_FOUND,
            "no axis 'wd'",
        ),
        (
            vec!["plot", plain, heavy, "--kind", "curves", "--trials"],
            BAD_INPUT,
            "--trials: only for one sweep",
        ),
        (
            vec!["table", plain, heavy, "--rows", "lr", "--cols", "wd"],
            BAD_INPUT,
            "--rows sweep --cols lr",
        ),
        (
            vec!["plot", plain, heavy, "--rows", "lr", "--cols", "wd"],
            BAD_INPUT,
            "--facet sweep",
        ),
        (vec!["compare", heavy], BAD_INPUT, "--baseline lr=0.1"),
        (vec!["compare", heavy, heavy], BAD_INPUT, "--baseline"),
        (
            vec!["compare", heavy, plain, "--match", "lr", "--at", "15 steps"],
            NOT_FOUND,
            "heavy (",
        ),
        (
            vec!["table", plain, heavy, "--rows", "sweep", "--cols", "sweep"],
            BAD_INPUT,
            "'sweep' is named twice",
        ),
        (
            vec![
                "table",
                plain,
                heavy,
                "--by",
                "sweep",
                "--where",
                "sweep == \"plain\" && lr < 0.1",
            ],
            BAD_INPUT,
            "--having",
        ),
        (vec!["table", plain, plain], BAD_INPUT, "named twice"),
        (
            vec!["table", plain, "no-such-sweep"],
            NOT_FOUND,
            "no-such-sweep",
        ),
    ];
    for (args, code, expected) in refusals {
        refused(&cluster.run(&args), code, &[expected]);
    }

    let both = ["compare", heavy, plain, "--baseline", "lr=0.2"];
    assert_eq!(cluster.run(&both).code, BAD_INPUT);
}
