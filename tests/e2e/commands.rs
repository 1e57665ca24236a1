//! The client commands over one finished sweep, as a user sees them.

use ergodic_tests::{Cluster, stdout};
use serde_json::Value;

use crate::SWEEP;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in:\n{text}"))
}

/// The findings of `explain` come as sentences, and as data whose kinds and numbers a program can read.
fn explains_as_data(cluster: &Cluster, id: &str) {
    let sweep = json(&cluster.ask(&["explain", id, "--format", "json"]));
    assert_eq!(sweep["sweep"], *id);
    let kinds: Vec<&Value> = findings(&sweep).iter().map(|f| &f["kind"]).collect();
    assert_eq!(kinds, ["progress", "stopped"], "{sweep}");
    assert_eq!(findings(&sweep)[1]["state"], "completed");

    let trial = json(&cluster.ask(&["explain", id, "4/0", "--format", "json"]));
    assert_eq!(trial["trial"], "4/0");
    let ended = findings(&trial)
        .iter()
        .find(|f| f["kind"] == "ended")
        .expect("the trial has a row");
    assert_eq!(ended["outcome"], "diverged");
    assert!(ended["diverged_at"].as_u64() > Some(0), "{trial}");

    // Each finding has its sentence, which is what people are shown.
    let shown = cluster.ask(&["explain", id, "4/0"]);
    let lines: Vec<&Value> = trial["lines"].as_array().expect("a list").iter().collect();
    assert_eq!(lines, shown.lines().collect::<Vec<_>>());
    assert_eq!(lines.len(), findings(&trial).len());
}

fn findings(explained: &Value) -> &[Value] {
    explained["findings"].as_array().expect("a list")
}

#[test]
fn every_view_of_a_finished_sweep_agrees() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &["--name", "spare"]);
    let id = cluster.launch(SWEEP);
    cluster.wait_for_end(&id);

    let trials = json(&cluster.ask(&["trials", &id[..4], "--format", "json"]));
    let trials = trials.as_array().expect("a list");
    assert_eq!(trials.len(), 72);

    for key in [
        "lr", "wd", "repeat", "outcome", "step", "steps", "seconds", "worker", "isa", "numerics",
        "test_acc", "digest",
    ] {
        assert!(
            trials.iter().all(|t| t.get(key).is_some()),
            "{key} is missing"
        );
    }

    assert!(
        trials
            .iter()
            .all(|t| t["worker"] == "spare" && t["numerics"] == "cpu-f32/6")
    );
    assert!(
        trials
            .iter()
            .all(|t| t["digest"].as_str().is_some_and(|d| d.len() == 64))
    );

    check_table(&cluster, &id, trials);
    check_curves(&cluster, &id);
    check_statistics(&cluster, &id);
    check_compare(&cluster, &id, trials);
    check_files(&cluster, &id);

    let explained = cluster.ask(&["explain", &id, "4/0"]);
    assert!(
        explained.contains("lr=1e38") && explained.contains("diverged at step"),
        "{explained}"
    );
    assert!(cluster.ask(&["explain", "latest"]).contains("complete"));
    explains_as_data(&cluster, &id);

    for (trial, more) in [
        ("0/3", &[][..]),
        ("5/11", &["--isa", "portable", "--threads", "2"]),
    ] {
        let words = cluster.ask(&[&["replay", "latest", trial], more].concat());
        let row = trials
            .iter()
            .find(|t| format!("{}/{}", t["cell"], t["repeat"]) == trial)
            .expect("such a trial");
        let digest = row["digest"].as_str().expect("a digest");
        assert!(
            words.contains("the same bits here") && words.contains(digest),
            "{words}"
        );
    }

    assert!(cluster.ask(&["list"]).contains(&id));
    assert_eq!(
        json(&cluster.ask(&["workers", "--format", "json"]))[0]["trials"],
        72
    );

    assert!(
        cluster.ask(&["watch", &id]).is_empty(),
        "a finished sweep needs no watching"
    );

    // All results are there. The id comes first, and the table after it.
    let file = cluster.path("sweep.toml").to_string_lossy().into_owned();
    let watched = cluster.ask(&["launch", &file, "--watch"]);
    let (again, shown) = watched.split_once('\n').expect("an id");
    assert_eq!(shown, cluster.ask(&["table", again]), "{watched}");
}

/// The table is what one computes from the trials by hand.
fn check_table(cluster: &Cluster, id: &str, trials: &[Value]) {
    let table = json(&cluster.ask(&["table", id, "--format", "json"]));
    assert_eq!(
        (&table["sweep"], &table["metric"]),
        (&id.into(), &"test_acc".into())
    );
    let rows = table["rows"].as_array().expect("a list");
    assert_eq!(rows.len(), 6);

    for row in rows {
        let of_cell = trials
            .iter()
            .filter(|t| t["lr"] == row["lr"] && t["wd"] == row["wd"]);
        let values: Vec<f64> = of_cell
            .filter(|t| t["outcome"] == "completed")
            .filter_map(|t| t["test_acc"].as_f64())
            .collect();
        assert_eq!(row["n"], values.len());

        assert_eq!(row["diverged"], 12 - values.len());
        if values.is_empty() {
            assert!(row["mean"].is_null() && row["lr"] == 1e38);
            continue;
        }

        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert!((row["mean"].as_f64().expect("a mean") - mean).abs() < 1e-12);
        assert!(
            row["ci95_low"].as_f64() <= row["mean"].as_f64()
                && row["mean"].as_f64() <= row["ci95_high"].as_f64()
        );

        assert!(
            row["min"].as_f64() <= row["median"].as_f64()
                && row["median"].as_f64() <= row["max"].as_f64()
        );
    }

    let pooled = json(&cluster.ask(&[
        "table",
        id,
        "--by",
        "wd",
        "--metric",
        "train_loss",
        "--format",
        "json",
    ]));
    assert_eq!(
        pooled["rows"]
            .as_array()
            .map(|rows| rows.iter().map(|r| r["n"].clone()).collect()),
        Some(
            vec![24, 24]
                .into_iter()
                .map(Value::from)
                .collect::<Vec<_>>()
        )
    );

    let people = cluster.ask(&["table", id, "--rows", "lr", "--cols", "wd"]);
    assert!(
        people.contains("±") && people.contains('★') && people.contains("12 diverged"),
        "{people}"
    );
    assert!(
        !people.contains('\u{1b}'),
        "no colours away from a terminal"
    );

    let csv = cluster.ask(&["table", id, "--format", "csv"]);
    assert!(
        csv.starts_with(
            "lr,wd,n,diverged,failed,mean,std,ci95_low,ci95_high,min,median,max,note\n"
        ),
        "{csv}"
    );

    assert!(
        cluster
            .ask(&["table", id, "--format", "md"])
            .starts_with("| lr | wd | n |")
    );
}

fn check_curves(cluster: &Cluster, id: &str) {
    let curves = json(&cluster.ask(&["curves", id, "--metric", "train_loss", "--format", "json"]));
    let points = curves["rows"].as_array().expect("a list");
    let steps: Vec<u64> = points
        .iter()
        .take(4)
        .filter_map(|p| p["step"].as_u64())
        .collect();
    assert_eq!(steps, [10, 20, 30, 40]);

    let at = json(&cluster.ask(&[
        "table",
        id,
        "--metric",
        "train_loss",
        "--at",
        "20 steps",
        "--format",
        "json",
    ]));

    assert_eq!(at["rows"][0]["mean"], points[1]["mean"]);
}

/// Statistics by name, in every format, and what stands where there are none.
fn check_statistics(cluster: &Cluster, id: &str) {
    let names = "mean,se,ci99,boot95,median,q05,iqm,trim10,p_diverged,diverged_at,mean_all";
    let ask = |more: &[&str]| cluster.ask(&[&["table", id, "--stat", names], more].concat());
    let table = json(&ask(&["--format", "json"]));
    let plain = json(&cluster.ask(&["table", id, "--format", "json"]));
    for (row, plain) in table["rows"]
        .as_array()
        .expect("a list")
        .iter()
        .zip(plain["rows"].as_array().expect("a list"))
    {
        let figure = |key: &str| row[key].as_f64();
        assert_eq!(
            (&row["n"], &row["mean"], &row["median"]),
            (&plain["n"], &plain["mean"], &plain["median"])
        );

        if row["lr"] == 1e38 {
            assert_eq!(
                (&row["note"], &row["mean"], &row["boot95_low"]),
                (&"all 12 diverged".into(), &Value::Null, &Value::Null)
            );
            assert_eq!(
                (figure("p_diverged"), figure("p_diverged_high")),
                (Some(1.0), Some(1.0))
            );

            // Ten classes: who knows nothing is right once in ten.
            assert_eq!(figure("mean_all"), Some(0.1));
            assert!(figure("diverged_at") >= Some(1.0) && figure("p_diverged_low") > Some(0.7));
            continue;
        }

        assert!(
            row["note"].is_null()
                && figure("p_diverged") == Some(0.0)
                && row["diverged_at"].is_null()
        );
        let order = ["ci99_low", "boot95_low", "mean", "boot95_high", "ci99_high"].map(figure);
        assert!(order.is_sorted() && order[0].is_some(), "{row}");

        assert!(figure("q05") < figure("median") && figure("se") > Some(0.0));
        assert_eq!(figure("mean_all"), figure("mean"));
    }

    assert_eq!(
        json(&ask(&["--format", "json"])),
        table,
        "resamples are drawn from the sweep's seed"
    );
    let head = "lr,wd,n,diverged,failed,mean,se,ci99_low,ci99_high,boot95_low,boot95_high,median,q05,iqm,trim10,p_diverged,";
    assert!(ask(&["--format", "csv"]).starts_with(head));

    assert!(
        ask(&["--format", "md"])
            .contains("| p_diverged_low | p_diverged_high | diverged_at | mean_all | note |")
    );
    assert!(ask(&[]).contains("all 12 diverged"));
    assert!(ask(&["--rows", "lr", "--cols", "wd"]).contains("(all 12 diverged)"));

    let curves =
        json(&cluster.ask(&["curves", id, "--stat", "q05,p_diverged", "--format", "json"]));
    assert_eq!(curves["rows"][0]["p_diverged"], 0.0);
    assert!(curves["rows"][0]["q05"].as_f64() < Some(1.0));
    let refused =
        |stat: &str, metric: &str| cluster.run(&["table", id, "--stat", stat, "--metric", metric]);
    super::refusals::refused(
        &refused("meen", "test_acc"),
        5,
        &["'meen'", "did you mean 'mean'"],
    );

    super::refusals::refused(&refused("ci100", "test_acc"), 2, &["ci100", "as in ci95"]);
}

/// Paired differences are what one computes from the trials by hand.
fn check_compare(cluster: &Cluster, id: &str, trials: &[Value]) {
    let ask = |baseline: &str| {
        json(&cluster.ask(&["compare", id, "--baseline", baseline, "--format", "json"]))
    };
    let value = |lr: f64, wd: &Value, repeat: u64| {
        let same = |t: &&Value| t["lr"] == lr && t["wd"] == *wd && t["repeat"] == repeat;
        trials
            .iter()
            .find(same)
            .and_then(|t| t["test_acc"].as_f64())
            .expect("such a trial")
    };

    let compared = ask("lr=0.05");
    assert_eq!(compared["baseline"], "lr=0.05");
    let rows = compared["rows"].as_array().expect("a list");
    assert_eq!(rows.len(), 4);

    for row in rows {
        if row["lr"] == 1e38 {
            let note =
                "no repeat in common; trials without a value: 12 in this cell, 0 in the baseline";
            assert_eq!(
                (&row["n"], &row["note"], &row["sign_p"]),
                (&0.into(), &note.into(), &Value::Null)
            );

            continue;
        }

        let differences: Vec<f64> = (0..12)
            .map(|r| value(0.2, &row["wd"], r) - value(0.05, &row["wd"], r))
            .collect();
        let mean = differences.iter().sum::<f64>() / 12.0;
        assert!(
            (row["difference"].as_f64().expect("a difference") - mean).abs() < 1e-12,
            "{row}"
        );

        assert_eq!(
            row["above"],
            differences.iter().filter(|d| **d > 1e-9).count()
        );
        assert!(row["ci_low"].as_f64() < Some(mean) && Some(mean) < row["ci_high"].as_f64());
        assert!(
            row["wilcoxon_holm"].as_f64() >= row["wilcoxon_p"].as_f64()
                && row["wilcoxon"] == "exact"
        );

        assert_eq!(
            row["saved"].as_f64(),
            row["unpaired"].as_f64().map(|n| n - 12.0)
        );
    }

    assert_eq!(
        ask("lr=5e-2,wd=0")["rows"].as_array().map(Vec::len),
        Some(5)
    );
    let people = cluster.ask(&["compare", id, "--baseline", "lr=0.2", "--level", "99"]);
    assert!(
        people.contains("99 % CI") && people.contains("against lr=0.2, paired by repeat"),
        "{people}"
    );

    let refused = |baseline: &str, code, words: &[&str]| {
        super::refusals::refused(
            &cluster.run(&["compare", id, "--baseline", baseline]),
            code,
            words,
        );
    };
    refused("lrr=0.2", 5, &["'lrr'", "did you mean 'lr'"]);

    refused("lr=0.3", 5, &["'0.3'", "the nearest is 0.2"]);
    refused("lr", 2, &["--baseline", "lr=0.1,wd=5e-4"]);
    refused("lr=0.2,lr=0.05", 2, &["'lr'", "twice"]);
    refused(
        "lr=1e38",
        5,
        &["no cell can be compared with lr=1e38", "12 in the baseline"],
    );
}

/// What goes to a file is what is printed, in columns that have types; a file is replaced when all of it is there.
fn check_files(cluster: &Cluster, id: &str) {
    let file = |name: &str| cluster.path(name).display().to_string();
    for (name, format) in [
        ("rows.csv", "csv"),
        ("rows.json", "json"),
        ("rows.md", "md"),
        ("rows.tex", "latex"),
    ] {
        let printed = cluster.ask(&["table", id, "--format", format]);
        assert_eq!(cluster.ask(&["table", id, "-o", &file(name)]), "");
        assert_eq!(
            std::fs::read_to_string(file(name)).expect("a file"),
            printed
        );
    }

    for asked in [
        &["table", id][..],
        &["table", id, "--stat", "mean,ci99,p_diverged,mean_all"],
        &[
            "table",
            id,
            "--metric",
            "test_acc,train_loss",
            "--where",
            "wd == 0",
            "--sort",
            "-mean",
        ],
        &["trials", id],
        &["curves", id],
    ] {
        cluster.ask(&[asked, &["-o", &file("rows.parquet")]].concat());
        let csv = cluster.ask(&[asked, &["--format", "csv"]].concat());
        check_columns(&super::export::parquet(&cluster.path("rows.parquet")), &csv);
    }

    let spread = [
        "table",
        id,
        "--rows",
        "wd",
        "--cols",
        "lr",
        "-o",
        &file("spread.parquet"),
    ];
    cluster.ask(&spread);

    let spread = super::export::parquet(&cluster.path("spread.parquet"));
    assert!(
        spread.len() == 6
            && spread
                .iter()
                .all(|row| row["wd"].is_f64() && row["n"].is_u64()),
        "{spread:?}"
    );

    assert!(
        cluster
            .ask(&["table", id, "--format", "parquet"])
            .starts_with("PAR1"),
        "a pipe takes it"
    );

    let refused = |more: &[&str], code, words: &[&str]| {
        super::refusals::refused(&cluster.run(&[&["table", id], more].concat()), code, words);
    };
    refused(
        &["-o", &file("rows.xlsx")],
        2,
        &["rows.xlsx", ".csv, .json, .md, .tex, .parquet", "--format"],
    );

    refused(
        &["-o", &file("none/rows.csv")],
        2,
        &["none/rows.csv", "cannot be written"],
    );
    refused(
        &["-o", &file("rows.csv"), "--metric", "test_ac"],
        5,
        &["'test_acc'"],
    );

    assert!(std::fs::read_to_string(file("rows.csv")).is_ok_and(|rows| rows.lines().count() == 7));
    let left = std::fs::read_dir(cluster.path(""))
        .expect("a directory")
        .flatten();
    assert!(
        left.into_iter()
            .all(|file| !file.file_name().to_string_lossy().ends_with(".part"))
    );
}

/// Columns say what CSV says; what is empty there is null.
pub(super) fn check_columns(rows: &super::export::Rows, csv: &str) {
    let header: Vec<&str> = csv.lines().next().expect("a header").split(',').collect();
    assert!(rows.len() == csv.lines().count() - 1 && !rows.is_empty());

    for (row, line) in rows.iter().zip(csv.lines().skip(1)) {
        assert_eq!(row.len(), header.len(), "{row:?}");
        for (name, told) in header.iter().zip(line.split(',')) {
            let same = match &row[*name] {
                Value::Null => told.is_empty(),
                Value::String(text) => text == told,
                number => number.as_f64().is_some_and(|x| told.parse() == Ok(x)),
            };
            assert!(same, "{name}: {} and {told}", row[*name]);
        }
    }

    let whole = ["n", "step", "steps", "cell", "repeat"];
    for name in whole.iter().filter(|name| header.contains(name)) {
        // Only trials that diverged did so at a step.
        let mut told = rows
            .iter()
            .map(|row| &row[*name])
            .filter(|value| !value.is_null())
            .peekable();
        assert!(told.peek().is_some() && told.all(Value::is_u64), "{name}");
    }
}

#[test]
fn plan_says_what_a_sweep_would_be_and_stores_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("sweep.toml");
    std::fs::write(&file, SWEEP).expect("a file can be written");
    let plan = json(&stdout(&[
        "plan",
        &file.to_string_lossy(),
        "--format",
        "json",
        "--set",
        "repeats=10000000",
    ]));
    assert_eq!(
        (&plan["cells"], &plan["trials"]),
        (&6.into(), &60_000_000.into())
    );

    assert_eq!(plan["shape_classes"][0]["parameters"], 784 * 24 + 240);
    assert_eq!(
        std::fs::read_dir(dir.path()).expect("a directory").count(),
        1
    );
}

#[test]
fn launching_a_hundred_million_trials_takes_no_room_for_them() {
    let cluster = Cluster::start(&[]);
    let axis = |name: &str| format!("{name} = {{ log = [1e-4, 1.0], points = 1000 }}\n");
    let text = SWEEP.replace("repeats = 12", "repeats = 100");
    let (head, tail) = text
        .split_once("lr = [0.05, 0.2, 1e38]\nwd = [0.0, 1e-3]\n")
        .expect("the axes stand there");
    let id = cluster.launch(&format!("{head}{}{}{tail}", axis("lr"), axis("wd")));
    let status = cluster.status(&id);
    assert_eq!(status["trials"], 100_000_000);

    let held = cluster.peak_memory_mib();
    assert!(held < 150, "the coordinator holds {held} MiB");
}

#[test]
fn bench_tables_uses_the_store_that_it_filled_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("store").to_string_lossy().into_owned();
    let measure = || {
        json(&stdout(&[
            "bench", "tables", "--trials", "500", "--points", "2", "--dir", &store, "--format",
            "json",
        ]))
    };

    let first = measure();
    let second = measure();
    assert_eq!(first["trials"], second["trials"]);
}

#[test]
fn bench_overhead_counts_every_trial_and_leaves_its_store() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("store").to_string_lossy().into_owned();
    let report = json(&stdout(&[
        "bench", "overhead", "--trials", "1000", "--dir", &store, "--format", "json",
    ]));
    assert_eq!(
        (&report["trials"], &report["workers"]),
        (&1000.into(), &2.into())
    );

    let cluster = Cluster::on_store(&store);
    let rows = cluster.rows("latest");
    assert_eq!(rows.lines().count(), 1001);
    let curves = json(&cluster.ask(&["curves", "latest", "--format", "json"]));
    assert_eq!(curves["rows"].as_array().map(Vec::len), Some(100 * 20));
}
