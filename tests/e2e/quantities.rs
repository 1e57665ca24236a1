//! Quantities where metrics are, against numbers computed from the rows and curves of real sweeps.

use ergodic_tests::{Cluster, run};
use serde_json::Value;

use super::refusals::refused;

/// Exit codes.
const BAD_INPUT: i32 = 2;
const NOT_FOUND: i32 = 5;

/// Four cells that learn, and two that diverge; what is in braces differs from sweep to sweep.
pub(super) fn sweep(name: &str, repeats: &str, quantities: &str) -> String {
    format!(
        r#"
name = "{name}"
seed = 3
{repeats}
[data]
dataset = "glyphs"
train   = 300
test    = 100
[model]
kind   = "mlp"
hidden = [8]
[train]
steps      = 40
batch_size = 20
schedule   = [{{ step = 20, lr = "x0.1" }}]
[grid]
lr = [0.05, 0.2, 1e38]
wd = [0.0, 0.1]
[measure]
every   = "5 steps"
metrics = ["train_loss", "test_acc", "weight_norm_sq"]
[quantity]
{quantities}
"#
    )
}

const QUANTITIES: &str = "inv = '1/weight_norm_sq'\ngain = 'jump(train_loss, decay)'";
const RATES: [f64; 2] = [0.05, 0.2];
const DIVERGING: f64 = 1e38;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in:\n{text}"))
}

/// The answer of a command in JSON.
fn ask(cluster: &Cluster, args: &[&str]) -> Value {
    json(&cluster.ask(&[args, &["--format", "json"]].concat()))
}

/// The rows of an answer, one per line of a table.
fn rows(answer: &Value) -> Vec<Value> {
    let rows = answer.get("rows").unwrap_or(answer);
    rows.as_array().expect("a list of rows").clone()
}

/// The row of a cell; `None` for a decay means that cells are pooled over it.
fn row(rows: &[Value], lr: f64, wd: Option<f64>) -> Value {
    let found = rows
        .iter()
        .find(|row| row["lr"] == lr && wd.is_none_or(|wd| row["wd"] == wd));
    found
        .unwrap_or_else(|| panic!("no lr={lr} wd={wd:?} in {rows:?}"))
        .clone()
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

fn assert_near(found: &Value, wanted: f64) {
    let found = number(found);
    assert!(
        (found - wanted).abs() <= 1e-9 * wanted.abs(),
        "{found} {wanted}"
    );
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// What a cell's completed trials have in a column.
fn column(trials: &[Value], lr: f64, wd: f64, name: &str) -> Vec<f64> {
    let of_cell = trials
        .iter()
        .filter(|row| row["lr"] == lr && row["wd"] == wd && row["outcome"] == "completed");
    of_cell.map(|row| number(&row[name])).collect()
}

#[test]
fn quantities_are_shown_where_metrics_are() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(&sweep("several", "repeats = 4", QUANTITIES));
    let single = cluster.launch(&sweep("single", "repeats = 1", QUANTITIES));
    let other = cluster.launch(&sweep("other", "repeats = 4", "inv = '2/weight_norm_sq'"));
    let squared = sweep("squared", "repeats = 4", QUANTITIES).replace(
        "steps      =",
        "loss       = { kind = \"mse\" }\nsteps      =",
    );
    let squared = cluster.launch(&squared);
    for id in [&id, &single, &other, &squared] {
        cluster.wait_for_end(id);
    }

    check_single_trials(&cluster, &single);
    check_tables(&cluster, &id);
    check_trials(&cluster, &id);
    check_curves(&cluster, &id);
    check_analyses(&cluster, &id);
    check_pictures(&cluster, &id);
    check_several_sweeps(&cluster, &id, &other);
    check_mixed_losses(&cluster, &id, &squared);
    check_refusals(&cluster, &id, &other);
}

/// A cell of one trial has the curve of that trial, of which the quantities are computed here once more.
fn check_single_trials(cluster: &Cluster, id: &str) {
    let curves = rows(&ask(cluster, &["curves", id, "--metric", "train_loss"]));
    for lr in RATES {
        let points: Vec<(f64, f64)> = curves
            .iter()
            .filter(|row| row["lr"] == lr && row["wd"] == 0.1)
            .map(|row| (number(&row["step"]), number(&row["mean"])))
            .collect();
        let at = |step: f64| points.iter().find(|(s, _)| *s == step).expect("a sample").1;
        let late: Vec<f64> = points
            .iter()
            .filter(|(s, _)| *s >= 20.0)
            .map(|(_, x)| *x)
            .collect();
        let first = points
            .iter()
            .find(|(_, x)| *x < at(10.0))
            .expect("it falls")
            .0;
        for (metric, wanted) in [
            ("gain", at(25.0) / at(20.0)),
            ("mean(train_loss, last 50 %)", mean(&late)),
            ("at(train_loss, 2 epochs)*lr + wd", at(30.0) * lr + 0.1),
            ("first(train_loss < at(train_loss, 10))", first),
        ] {
            let table = rows(&ask(cluster, &["table", id, "--metric", metric]));
            assert_near(&row(&table, lr, Some(0.1))["mean"], wanted);
        }
    }
}

fn check_tables(cluster: &Cluster, id: &str) {
    let trials = rows(&ask(
        cluster,
        &["trials", id, "--metric", "gain,1/test_acc"],
    ));
    let defined = ask(cluster, &["table", id, "--metric", "gain"]);
    assert_eq!(defined["quantities"], "gain = jump(train_loss, decay)");
    let defined = ask(cluster, &["table", id, "--metric", "gain,inv,test_acc"]);
    let both = "gain = jump(train_loss, decay); inv = 1/weight_norm_sq";
    assert_eq!(defined["quantities"], both);
    let plain = ask(cluster, &["table", id, "--metric", "test_acc"]);
    assert!(plain.get("quantities").is_none(), "{plain}");

    let names = ["gain", "inv", "mean(train_loss, ..decay)"];
    let lists = format!("{}, {}", names[0], names[1..].join(","));
    let tables = rows(&ask(cluster, &["table", id, "--metric", &lists]));
    let of_metric = |name: &str| -> Vec<Value> {
        let rows = tables.iter().filter(|row| row["metric"] == name);
        rows.cloned().collect()
    };
    assert_eq!(names.map(|name| of_metric(name).len()), [6, 6, 6]);
    for (lr, wd) in RATES.into_iter().flat_map(|lr| [(lr, 0.0), (lr, 0.1)]) {
        let gains = column(&trials, lr, wd, "gain");
        assert_eq!(gains.len(), 4);
        assert_near(&row(&of_metric("gain"), lr, Some(wd))["mean"], mean(&gains));
        let norms = column(&trials, lr, wd, "weight_norm_sq");
        let inverse: Vec<f64> = norms.iter().map(|x| 1.0 / x).collect();
        assert_near(
            &row(&of_metric("inv"), lr, Some(wd))["mean"],
            mean(&inverse),
        );
    }

    // Trials that diverged are counted, and have no number.
    let diverged = row(&of_metric("gain"), DIVERGING, Some(0.0));
    assert_eq!(
        (&diverged["n"], &diverged["diverged"]),
        (&0.into(), &4.into())
    );
    assert!(diverged["mean"].is_null(), "{diverged}");
    let people = cluster.ask(&["table", id, "--metric", "gain"]);
    assert!(
        people.contains("4 diverged") && people.contains("\ngain = jump(train_loss, decay)\n"),
        "{people}"
    );
    assert!(!people.contains('★'), "{people}");

    // Rows of several cells, rows that a condition selects, and statistics.
    let pooled = rows(&ask(
        cluster,
        &["table", id, "--metric", "gain", "--by", "lr"],
    ));
    let both = [0.0, 0.1]
        .map(|wd| column(&trials, 0.2, wd, "gain"))
        .concat();
    assert_near(&row(&pooled, 0.2, None)["mean"], mean(&both));
    let weighted = [
        "table", id, "--metric", "gain", "--by", "lr", "--weight", "cells",
    ];
    assert_near(
        &row(&rows(&ask(cluster, &weighted)), 0.2, None)["mean"],
        mean(&both),
    );
    let chosen = [
        "table", id, "--metric", "inv", "--where", "lr < 0.1", "--having", "mean > 0",
    ];
    assert_eq!(rows(&ask(cluster, &chosen)).len(), 2);
    let stats = [
        "table",
        id,
        "--metric",
        "gain",
        "--stat",
        "median,p_diverged",
    ];
    let found = row(&rows(&ask(cluster, &stats)), DIVERGING, Some(0.1));
    assert_eq!(found["p_diverged"], 1.0, "{found}");

    // A store that is read beside its coordinator gives the same.
    let store = cluster.path("store").to_string_lossy().into_owned();
    let read = run(&["table", id, "--metric", "gain", "--store", &store]);
    assert_eq!(read.stdout, people, "{}", read.stderr);
}

fn check_trials(cluster: &Cluster, id: &str) {
    let all = rows(&ask(cluster, &["trials", id]));
    let plain = rows(&ask(cluster, &["trials", id, "--metric", "inv,test_acc"]));
    assert_eq!(all.len(), plain.len());
    for (trial, plain) in plain.iter().zip(&all) {
        assert!(plain.get("inv").is_none(), "{plain}");
        match trial["outcome"].as_str() {
            Some("completed") => assert_near(&trial["inv"], 1.0 / number(&trial["weight_norm_sq"])),
            _ => assert!(trial["inv"].is_null(), "{trial}"),
        }
    }

    // A quantity that a condition names is a column.
    let mut values: Vec<f64> = plain.iter().filter_map(|row| row["inv"].as_f64()).collect();
    values.sort_by(f64::total_cmp);
    let middle = f64::midpoint(values[7], values[8]);
    let condition = format!("inv > {middle:e} && lr < 1");
    let upper = rows(&ask(
        cluster,
        &["trials", id, "--where", &condition, "--sort", "-inv"],
    ));
    let found: Vec<f64> = upper.iter().map(|row| number(&row["inv"])).collect();
    values.reverse();
    assert_eq!(found, values[..8]);
    let names = [
        "trials",
        id,
        "--columns",
        "repeat,inv",
        "--top",
        "1",
        "--sort",
        "inv",
    ];
    let csv = cluster.ask(&[&names[..], &["--format", "csv"]].concat());
    assert!(csv.starts_with("repeat,inv\n"), "{csv}");
    refused(
        &cluster.run(&["trials", id, "--where", "invv > 1"]),
        NOT_FOUND,
        &["trials have no axis or column 'invv'"],
    );
}

fn check_curves(cluster: &Cluster, id: &str) {
    let curves = ["curves", id, "--metric", "weight_norm_sq*2"];
    let doubled = rows(&ask(cluster, &curves));
    let plain = rows(&ask(cluster, &["curves", id, "--metric", "weight_norm_sq"]));
    assert_eq!(doubled.len(), plain.len());
    for (doubled, plain) in doubled.iter().zip(&plain) {
        assert_eq!(
            (&doubled["n"], &doubled["step"]),
            (&plain["n"], &plain["step"])
        );
        assert_near(&doubled["mean"], 2.0 * number(&plain["mean"]));
    }

    // At a moment, and at the end.
    let points = rows(&ask(cluster, &["curves", id, "--metric", "inv"]));
    for (step, at) in [(10, "10 steps"), (40, "final")] {
        let table = rows(&ask(cluster, &["table", id, "--metric", "inv", "--at", at]));
        let of_cell = points
            .iter()
            .filter(|row| row["lr"] == 0.2 && row["step"] == step);
        for point in of_cell {
            let wd = point["wd"].as_f64();
            assert_near(&row(&table, 0.2, wd)["mean"], number(&point["mean"]));
        }
    }
    let people = cluster.ask(&["curves", id, "--metric", "inv"]);
    assert!(
        people.starts_with("inv over steps; inv = 1/weight_norm_sq\n"),
        "{people}"
    );
}

fn check_analyses(cluster: &Cluster, id: &str) {
    let trials = rows(&ask(cluster, &["trials", id, "--metric", "gain"]));
    let compare = ["compare", id, "--metric", "gain", "--baseline", "wd=0"];
    let compared = ask(cluster, &compare);
    assert_eq!(compared["metric"], "gain");
    for lr in RATES {
        let [base, other] = [0.0, 0.1].map(|wd| mean(&column(&trials, lr, wd, "gain")));
        let found = row(&rows(&compared), lr, Some(0.1));
        assert!(
            (number(&found["difference"]) - (other - base)).abs() < 1e-9,
            "{found}"
        );
    }

    let effects = ask(
        cluster,
        &["effects", id, "--metric", "mean(test_acc, last 20 %)"],
    );
    assert_eq!(effects["metric"], "mean(test_acc, last 20 %)");
    let people = cluster.ask(&["effects", id, "--metric", "gain"]);
    assert!(
        people.contains("for gain, neither larger nor smaller values are better")
            && people.contains("cells without a value, left out: 2"),
        "{people}"
    );
    let sizes = cluster.ask(&["sample-size", id, "gain=0.5"]);
    assert!(
        sizes.contains("what it takes to know gain to ± 0.5"),
        "{sizes}"
    );
}

fn check_pictures(cluster: &Cluster, id: &str) {
    let draw = |args: &[&str]| cluster.ask(&[&["plot", id, "--metric"], args].concat());
    let map = draw(&["jump(train_loss, decay)"]);
    assert!(map.contains("mean jump(train_loss, decay)"), "{map}");
    for args in [
        &["inv", "--kind", "curves", "--trials"][..],
        &["gain", "--kind", "distribution"],
        &["inv", "--kind", "pairs", "--baseline", "wd=0"],
        &["gain", "--kind", "scatter"],
    ] {
        let picture = draw(args);
        assert!(picture.contains(args[0]), "{args:?}: {picture}");
        let definition = match args[0] {
            "inv" => "inv = 1/weight_norm_sq",
            _ => "gain = jump(train_loss, decay)",
        };
        assert!(picture.contains(definition), "{args:?}: {picture}");
    }
    refused(
        &cluster.run(&["plot", id, "--metric", "gain", "--kind", "curves"]),
        BAD_INPUT,
        &["--metric: 'gain' is one number per trial"],
    );
}

fn check_several_sweeps(cluster: &Cluster, id: &str, other: &str) {
    let table = ["table", id, other, "--metric", "inv", "--where", "lr < 1"];
    let joined = rows(&ask(cluster, &table));
    let of_sweep = |name: &str| -> Vec<f64> {
        let rows = joined.iter().filter(|row| row["sweep"] == name);
        rows.map(|row| number(&row["mean"])).collect()
    };
    let [here, there] = ["several", "other"].map(of_sweep);
    assert_eq!(here.len(), 4);
    for (here, there) in here.iter().zip(&there) {
        // The same trials, by definitions of their own.
        assert!((2.0 * here - there).abs() < 1e-12, "{here} {there}");
    }

    let words =
        "defined differently: inv = 1/weight_norm_sq in several; inv = 2/weight_norm_sq in other";
    for command in [
        &["table", id, other, "--metric", "inv"][..],
        &["curves", id, other, "--metric", "inv"],
    ] {
        let people = cluster.ask(command);
        assert!(people.contains(words), "{people}");
    }
    let compared = cluster.ask(&["compare", id, other, "--metric", "inv"]);
    assert!(compared.contains("define inv differently"), "{compared}");
}

/// A quantity that is made of a loss is another one under another loss.
fn check_mixed_losses(cluster: &Cluster, id: &str, squared: &str) {
    let words =
        "train_loss is another quantity in each sweep: cross-entropy in several, mse in squared";
    for metric in ["gain", "mean(train_loss)"] {
        let people = cluster.ask(&["table", id, squared, "--metric", metric]);
        assert!(people.contains(words), "{people}");
    }
    let curves = ["curves", id, squared, "--metric", "ln(train_loss)"];
    for format in ["table", "json", "md", "latex"] {
        let told = cluster.ask(&[&curves[..], &["--format", format]].concat());
        assert!(told.contains(words), "{format}: {told}");
    }
    for command in [
        &curves[..],
        &["table", id, squared, "--metric", "train_loss"],
    ] {
        let csv = cluster.run(&[command, &["--format", "csv"]].concat());
        assert!(csv.stderr.contains(words), "{csv:?}");
        assert!(!csv.stdout.contains(words), "{csv:?}");
    }
    let people = cluster.ask(&["table", id, squared, "--metric", "inv"]);
    assert!(!people.contains("another quantity"), "{people}");
    let people = cluster.ask(&["curves", id, squared, "--metric", "inv"]);
    assert!(!people.contains("another quantity"), "{people}");
    refused(
        &cluster.run(&[
            "compare", id, squared, "--metric", "gain", "--match", "lr,wd",
        ]),
        BAD_INPUT,
        &["gain is another quantity in each sweep", "mse"],
    );
}

fn check_refusals(cluster: &Cluster, id: &str, other: &str) {
    for (args, code, words) in [
        (
            &["table", id, "--metric", "gian"][..],
            NOT_FOUND,
            &["the sweep does not measure 'gian', did you mean 'gain'?"][..],
        ),
        (
            &["table", id, "--metric", "mean(test_loss)"],
            BAD_INPUT,
            &["--metric: mean: the sweep does not measure 'test_loss'"],
        ),
        (
            &["table", id, "--metric", "gain", "--at", "10 steps"],
            BAD_INPUT,
            &["--at: 'gain' is one number per trial", "leave out --at"],
        ),
        (
            &["table", id, "--metric", "inv > 3"],
            BAD_INPUT,
            &["'inv > 3' is a condition"],
        ),
        (
            &["table", id, "--metric", "gain", "--top", "2"],
            BAD_INPUT,
            &["--top: for gain, neither larger nor smaller values are better"],
        ),
        (
            &["table", id, "--metric", "gain", "--stat", "mean_all"],
            BAD_INPUT,
            &["gain has no worst value"],
        ),
        (
            &["trials", id, "--metric", "mean(inv"],
            BAD_INPUT,
            &["--metric: a parenthesis is open"],
        ),
        (
            &["table", id, other, "--metric", "gain"],
            NOT_FOUND,
            &["other: the sweep does not measure 'gain'"],
        ),
    ] {
        refused(&cluster.run(args), code, words);
    }
}

#[test]
fn quantities_of_crossed_and_of_halved_sweeps_are_those_of_their_metrics() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let crossed = "repeats = 4\nseeds = { crossed = { init = 2, order = 2 } }";
    let crossed = cluster.launch(&sweep("crossed", crossed, QUANTITIES));
    let halved = "[repeats]\nmin = 2\nmax = 8\nhalving = { metric = \"train_loss\", factor = 2 }";
    let halved = cluster.launch(&sweep("halved", halved, QUANTITIES));
    for id in [&crossed, &halved] {
        cluster.wait_for_end(id);
        // An equal number of each trial has equal intervals, in cells that stopped early, too.
        let [plain, computed] = ["train_loss", "at(train_loss, end)"].map(|metric| {
            let args = ["table", id, "--metric", metric, "--by", "lr"];
            rows(&ask(&cluster, &args))
        });
        assert_eq!(plain, computed);
    }

    let variances = ["train_loss", "at(train_loss, end)"].map(|metric| {
        let answer = ask(&cluster, &["variance", &crossed, "--metric", metric]);
        assert_eq!(answer["metric"], metric);
        rows(&answer)
    });
    assert_eq!(variances[0], variances[1]);
    let trials = rows(&ask(&cluster, &["trials", &halved, "--metric", "gain"]));
    let table = rows(&ask(&cluster, &["table", &halved, "--metric", "gain"]));
    let n = |lr: f64, wd: f64| number(&row(&table, lr, Some(wd))["n"]) as usize;
    let cells = RATES.into_iter().flat_map(|lr| [(lr, 0.0), (lr, 0.1)]);
    let counts: Vec<usize> = cells.clone().map(|(lr, wd)| n(lr, wd)).collect();
    assert!(counts.iter().any(|n| *n != counts[0]), "{counts:?}");
    for (lr, wd) in cells {
        let gains = column(&trials, lr, wd, "gain");
        assert_eq!(gains.len(), n(lr, wd));
        assert_near(&row(&table, lr, Some(wd))["mean"], mean(&gains));
    }
}
