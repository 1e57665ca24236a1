//! What one may conclude from repeats: distances, effects, over a real sweep, as a user sees them.

use std::collections::BTreeMap;

use ergodic_tests::{Cluster, run};
use serde_json::Value;

use super::refusals::refused;

/// Four cells that learn and two that diverge; predictions are kept at two moments.
const PREDICTING: &str = r#"
name    = "predicting"
repeats = 6
seed    = 7
[data]
dataset = "glyphs"
train   = 500
test    = 200
[model]
kind   = "mlp"
hidden = [16]
[train]
steps      = 30
batch_size = 32
[grid]
lr = [0.05, 0.2, 1e38]
wd = [0.0, 1e-3]
[measure]
every   = "10 steps"
metrics = ["test_acc", "weight_norm"]
probe   = { points = 50, at = ["10 steps", "final"] }
"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in:\n{text}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key]
        .as_array()
        .unwrap_or_else(|| panic!("no {key} in {value}"))
}

#[test]
fn distances_and_effects_of_a_finished_sweep_agree_with_its_rows() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(PREDICTING);
    cluster.wait_for_end(&id);
    check_pair(&cluster, &id);
    check_matrix(&cluster, &id);

    check_distance_refusals(&cluster, &id);
    check_effects(&cluster, &id);
    check_effects_refusals(&cluster, &id);
}

/// The distance over all repeats, from the predictions by hand.
fn by_hand(cluster: &Cluster, id: &str, cells: [&str; 2], step: &str) -> (f64, f64) {
    let csv = cluster.ask(&["predictions", id]);
    let of = |cell: &str| -> Vec<(usize, usize)> {
        let lines = csv
            .lines()
            .skip(1)
            .map(|line| line.split(',').collect::<Vec<&str>>());
        let mine = lines.filter(|fields| fields[2] == cell && fields[4] == step);
        let mut classes: Vec<usize> = mine
            .map(|fields| fields[7].parse().expect("a class"))
            .collect();
        assert_eq!(classes.len(), 6 * 50);

        classes
            .drain(..)
            .enumerate()
            .map(|(at, class)| (at % 50, class))
            .collect()
    };
    let a = of(cells[0]);

    let b = of(cells[1]);
    let share =
        |all: &[(usize, usize)], wanted| all.iter().filter(|x| **x == wanted).count() as f64 / 6.0;
    let pairs = (0..50).flat_map(|point| (0..10).map(move |class| (point, class)));
    let distance = pairs
        .map(|pair| (share(&a, pair) - share(&b, pair)).abs())
        .sum::<f64>()
        / 50.0;

    (
        distance,
        a.iter().zip(&b).filter(|(a, b)| a == b).count() as f64 / 300.0,
    )
}

/// The same distance from the distributions that are printed.
fn by_distributions(cluster: &Cluster, id: &str, cells: [&str; 2], step: &str) -> f64 {
    let csv = cluster.ask(&["predictions", id, "--distributions"]);
    let mut shares: BTreeMap<(&str, &str), [f64; 2]> = BTreeMap::new();

    for line in csv.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let cell = fields[2];
        let at = fields[3];
        let image = fields[4];
        let class = fields[6];
        let n = fields[7];

        if let (Some(side), true) = (cells.iter().position(|wanted| *wanted == cell), at == step) {
            assert_eq!(n, "6", "{line}");
            shares.entry((image, class)).or_default()[side] = fields[8].parse().expect("a share");
        }
    }

    shares.values().map(|[a, b]| (a - b).abs()).sum::<f64>() / 50.0
}

fn check_pair(cluster: &Cluster, id: &str) {
    let ask = |more: &[&str]| {
        cluster.ask(
            &[
                &["distance", id, "--between", "lr=0.05,wd=0", "lr=0.2,wd=0"],
                more,
            ]
            .concat(),
        )
    };
    let found = json(&ask(&["--format", "json"]));
    assert_eq!(
        (&found["points"], list(&found, "rows").len()),
        (&50.into(), 2)
    );

    for (row, (at, step)) in list(&found, "rows")
        .iter()
        .zip([("10 steps", "10"), ("final", "30")])
    {
        let (distance, same) = by_hand(cluster, id, ["0", "2"], step);
        assert_eq!(
            (&row["at"], &row["n"], &row["test"]),
            (&at.into(), &6.into(), &"exact".into())
        );
        assert!(
            (row["statistic"].as_f64().expect("a distance") - distance).abs() < 1e-12,
            "{row}"
        );

        let printed = by_distributions(cluster, id, ["0", "2"], step);
        assert!((printed - distance).abs() < 1e-12, "{printed} {distance}");
        assert!(
            (row["agreement_same"].as_f64().expect("a share") - same).abs() < 1e-12,
            "{row}"
        );

        assert!(
            row["distance"].as_f64() > Some(0.0) && row["null"].as_f64() > Some(0.0),
            "{row}"
        );

        // Of six repeats there are 32 patterns of swaps.
        let patterns = 32.0 * row["p"].as_f64().expect("a p");
        assert!(
            (1.0..=32.0).contains(&patterns) && patterns.fract() == 0.0,
            "{row}"
        );

        assert!(
            row["note"]
                .as_str()
                .is_some_and(|note| note.contains("no p below 0.03")),
            "{row}"
        );
    }

    let turned = json(&cluster.ask(&[
        "distance",
        id,
        "--between",
        "2",
        "0",
        "--format",
        "json",
        "--at",
        "30 steps",
    ]));

    for key in ["distance", "null", "p", "agreement"] {
        assert_eq!(
            list(&turned, "rows")[0][key],
            list(&found, "rows")[1][key],
            "{key}"
        );
    }

    assert_eq!(
        ask(&["--format", "json"]),
        ask(&["--format", "json"]),
        "splits are drawn from the sweep's seed"
    );
    assert!(
        ask(&["--format", "csv"])
            .starts_with("a.cell,a.lr,a.wd,b.cell,b.lr,b.wd,at,n,distance,null,statistic,p,test,")
    );

    let people = ask(&[]);
    assert!(
        people.contains("A: lr=0.05 wd=0")
            && people.contains("within A")
            && people.contains("final"),
        "{people}"
    );

    let random = json(&ask(&[
        "--format",
        "json",
        "--permutations",
        "99",
        "--at",
        "final",
    ]));

    assert_eq!(list(&random, "rows")[0]["test"], "exact");
}

fn check_matrix(cluster: &Cluster, id: &str) {
    let found = json(&cluster.ask(&["distance", id, "--format", "json"]));
    let rows = list(&found, "rows");
    assert_eq!(rows.len(), 21);

    for row in rows {
        let alone = row["a.cell"] == row["b.cell"];
        let diverged = row["a.lr"] == 1e38 || row["b.lr"] == 1e38;
        assert_eq!(row["at"], "final");
        assert_eq!(row["distance"].is_null(), alone || diverged, "{row}");
        assert_eq!(
            (row["null"].is_null(), row["agreement"].is_null()),
            (diverged, diverged),
            "{row}"
        );

        let note = row["note"].as_str().unwrap_or_default();
        assert_eq!(note.contains("6 diverged"), alone && diverged, "{row}");
    }

    let people = cluster.ask(&["distance", id, "--at", "10 steps"]);
    let words = [
        "the 6 repeats",
        "10 steps, 50 probe points",
        "left out of lr=1e38, wd=0: 6 diverged",
        "agreement",
    ];
    assert!(
        words.iter().all(|word| people.contains(word)) && !people.contains("NaN"),
        "{people}"
    );

    assert!(
        cluster
            .ask(&["distance", id, "--format", "md"])
            .starts_with("| a.cell | a.lr |")
    );
}

fn check_distance_refusals(cluster: &Cluster, id: &str) {
    let ask = |args: &[&str], code, words: &[&str]| {
        refused(
            &cluster.run(&[&["distance", id], args].concat()),
            code,
            words,
        );
    };
    ask(
        &["--between", "lrr=0.2", "0"],
        5,
        &["'lrr'", "did you mean 'lr'"],
    );

    ask(
        &["--between", "lr=0.2", "lr=0.05,wd=0"],
        2,
        &["lr=0.2 names several cells", "name more axes"],
    );
    ask(
        &["--between", "lr=0.3,wd=0", "0"],
        5,
        &["'0.3'", "the nearest is 0.2"],
    );

    ask(
        &["--between", "0", "lr=0.05,wd=0"],
        2,
        &["both cells are lr=0.05, wd=0", "the null"],
    );
    ask(&["--between", "0", "17"], 5, &["no cell 17"]);

    ask(
        &["--between", "0", "lr"],
        2,
        &["--between", "lr=0.1,wd=5e-4"],
    );
    ask(
        &["--between", "0", "2", "--at", "20 steps"],
        5,
        &["'20 steps'", "\"10 steps\", \"final\""],
    );

    ask(
        &["--between", "0", "2", "--permutations", "5"],
        2,
        &["permutations", "from 99 to 99999"],
    );
    ask(
        &["--between", "0", "4"],
        5,
        &["needs two repeats", "left out of lr=1e38, wd=0: 6 diverged"],
    );

    let empty = cluster.launch(&crate::empty_sweep(2));
    refused(
        &cluster.run(&["distance", &empty]),
        5,
        &["keeps no predictions", "probe = { points"],
    );

    let lone = cluster.launch(&PREDICTING.replace("repeats = 6", "repeats = 1"));
    cluster.wait_for_end(&lone);
    refused(
        &cluster.run(&["distance", &lone, "--between", "0", "2"]),
        5,
        &["two repeats", "one repeat per cell"],
    );

    let many = PREDICTING.replace(
        "wd = [0.0, 1e-3]",
        "wd = { linear = [0, 1e-3], points = 30 }",
    );
    let many = cluster.launch(&many.replace("repeats = 6", "repeats = 1"));
    refused(
        &cluster.run(&["distance", &many]),
        2,
        &["90 cells", "at most 64", "--between"],
    );
}

/// Mean over the repeats of a cell's rank by accuracy, from the rows: equals share a rank, and who diverged is last.
fn mean_rank(cell: &Value, trials: &[Value]) -> f64 {
    let accuracy = |trial: &Value| match trial["outcome"].as_str() {
        Some("completed") => trial["test_acc"].as_f64().expect("an accuracy"),
        _ => -1.0,
    };
    let rank = |own: &Value| {
        let others = trials
            .iter()
            .filter(|other| other["repeat"] == own["repeat"])
            .map(accuracy);
        let (better, worse): (Vec<f64>, Vec<f64>) = others
            .filter(|other| *other != accuracy(own))
            .partition(|other| *other > accuracy(own));

        // Of six cells, those that are neither are equals, this one among them.
        let equals = 6 - better.len() - worse.len();
        better.len() as f64 + (equals + 1) as f64 / 2.0
    };

    let own = trials.iter().filter(|trial| {
        ["lr", "wd"]
            .iter()
            .all(|axis| trial[axis].as_f64() == cell[axis].as_f64())
    });
    let ranks: Vec<f64> = own.map(rank).collect();
    assert_eq!(ranks.len(), 6, "a rank in every repeat: {cell}");

    ranks.iter().sum::<f64>() / 6.0
}

fn check_effects(cluster: &Cluster, id: &str) {
    let ask = |more: &[&str]| cluster.ask(&[&["effects", id], more].concat());
    let found = json(&ask(&["--interaction", "lr,wd", "--format", "json"]));
    let table = json(&cluster.ask(&["table", id, "--format", "json"]));
    let mean = |lr: f64, wd: f64| {
        let row = list(&table, "rows")
            .iter()
            .find(|row| row["lr"] == lr && row["wd"] == wd);
        row.and_then(|row| row["mean"].as_f64()).expect("a mean")
    };
    let means = [
        mean(0.05, 0.0),
        mean(0.05, 1e-3),
        mean(0.2, 0.0),
        mean(0.2, 1e-3),
    ];

    let near = |found: &Value, wanted: f64| {
        found
            .as_f64()
            .is_some_and(|found| (found - wanted).abs() < 1e-12)
    };

    let grand = means.iter().sum::<f64>() / 4.0;
    assert!(near(&found["mean"], grand), "{found}");
    let rows = list(&found, "effects");
    assert_eq!(rows.len(), 4, "1e38 is left out");
    let small = (means[0] + means[1]) / 2.0;
    assert_eq!(
        (&rows[0]["axis"], &rows[0]["value"], &rows[0]["cells"]),
        (&"lr".into(), &0.05.into(), &2.into())
    );

    assert!(near(&rows[0]["mean"], small) && near(&rows[0]["effect"], small - grand));
    assert!(
        rows[0]["ci_low"].as_f64() <= rows[0]["effect"].as_f64()
            && rows[0]["ci_high"].as_f64() < Some(0.0)
    );
    let terms: Vec<&str> = list(&found, "shares")
        .iter()
        .filter_map(|row| row["term"].as_str())
        .collect();
    assert_eq!(terms, ["lr", "wd", "lr × wd", "repeats", "residual"]);

    let total: f64 = list(&found, "shares")
        .iter()
        .filter_map(|row| row["share"].as_f64())
        .sum();
    assert!((total - 1.0).abs() < 1e-12);
    let pairs = list(&found, "interaction");

    let wanted = (means[0] - means[1] - means[2] + means[3]) / 4.0;
    assert!(
        pairs.len() == 4 && near(&pairs[0]["effect"], wanted) && near(&pairs[1]["effect"], -wanted)
    );
    let best = list(&found, "best");
    let mean_ranks: Vec<f64> = best
        .iter()
        .filter_map(|row| row["mean_rank"].as_f64())
        .collect();
    assert!(mean_ranks.len() == 6 && mean_ranks.is_sorted(), "{best:?}");

    let trials = json(&cluster.ask(&["trials", id, "--format", "json"]));
    let trials = trials.as_array().expect("a list");
    assert!(
        best.iter()
            .all(|row| near(&row["mean_rank"], mean_rank(row, trials))),
        "{best:?}"
    );

    assert!(
        best[4]["mean"].is_null() && best[5]["mean"].is_null(),
        "who diverged comes last: {best:?}"
    );
    let sure: f64 = best.iter().filter_map(|row| row["p_best"].as_f64()).sum();
    assert!((sure - 1.0).abs() < 1e-9);

    let notes = found["notes"].to_string();
    assert!(
        notes.contains("left out: 2: (lr=1e38, wd=0), (lr=1e38, wd=1e-3)")
            || notes.contains("left out: 2"),
        "{notes}"
    );

    assert_eq!(
        ask(&["--format", "json"]),
        ask(&["--format", "json"]),
        "resamples are drawn from the sweep's seed"
    );
    assert!(
        ask(&["--format", "csv"])
            .starts_with("axis,value,cells,mean,effect,ci_low,ci_high\nlr,0.05,2,")
    );

    assert!(
        ask(&["--format", "csv", "--part", "shares"])
            .starts_with("term,df,squares,share,share_between\nlr,1,")
    );
    assert!(ask(&["--format", "md", "--part", "best"]).starts_with(
        "| cell | lr | wd | n | without_value | mean | mean_rank | may_be_best | p_best |"
    ));

    let people = ask(&["--interaction", "lr,wd", "--level", "90"]);
    let words = [
        "90 % CI",
        "p(best)",
        "between cells",
        "lr \\ wd",
        "note: cells without a value",
    ];
    assert!(
        words.iter().all(|word| people.contains(word)) && !people.contains("NaN"),
        "{people}"
    );

    let norm = json(&ask(&[
        "--metric",
        "weight_norm",
        "--at",
        "20 steps",
        "--format",
        "json",
    ]));

    assert!(
        list(&norm, "best").is_empty() && norm["notes"].to_string().contains("no best cell"),
        "{norm}"
    );
}

/// Trials in which three initial weights meet two orders.
const CROSSED: &str = r#"
name    = "crossed"
repeats = 6
seed    = 7
seeds   = { fixed = ["head"], crossed = { init = 3, order = 2 } }
[data]
dataset = "glyphs"
train   = 500
test    = 200
[model]
kind   = "mlp"
hidden = [16]
[train]
steps      = 20
batch_size = 32
[grid]
lr = [0.2, 1e38]
[measure]
metrics = ["test_acc", "test_loss"]
"#;

#[test]
fn crossed_streams_are_told_apart() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    // Whatever is not crossed or fixed is not used here: a second round would yield the same bits.
    let path = cluster.path("copies.toml");
    std::fs::write(&path, CROSSED.replace("repeats = 6", "repeats = 12")).expect("written");
    let path = path.to_str().expect("a path");
    for finished in [run(&["plan", path]), cluster.run(&["launch", path])] {
        refused(
            &finished,
            2,
            &[
                "repeats: 12 repeats of a cell are copies of 6",
                "init, head, order",
            ],
        );
    }

    let id = cluster.launch(CROSSED);
    cluster.wait_for_end(&id);
    let trials = json(&cluster.ask(&["trials", &id, "--format", "json"]));
    let trials: Vec<&Value> = trials
        .as_array()
        .expect("a list")
        .iter()
        .filter(|t| t["lr"] == 0.2)
        .collect();
    let digest = |repeat: usize| &trials[repeat]["digest"];
    assert!((1..6).all(|repeat| digest(0) != digest(repeat)));

    refused(
        &cluster.run(&["extend", &id, "--repeats", "12"]),
        2,
        &["are copies of 6"],
    );

    // Tables know of the streams, too.
    let table = json(&cluster.ask(&["table", &id, "--metric", "test_loss", "--format", "json"]));
    assert!(table["rows"][0]["ci95_low"].is_f64(), "{table}");
    assert!(
        table["rows"][0]["note"]
            .as_str()
            .is_some_and(|note| note.contains("given the fixed head")),
        "{table}"
    );

    let found = json(&cluster.ask(&["variance", &id, "--metric", "test_loss", "--format", "json"]));
    let rows = list(&found, "rows");
    let names: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["component"].as_str())
        .collect();
    assert_eq!(names, ["init", "order", "init × order, with the residual"]);

    let loss = |repeat: usize| trials[repeat]["test_loss"].as_f64().expect("a loss");
    let all = (0..6).map(loss).sum::<f64>() / 6.0;
    let init = |i: usize| (loss(2 * i) + loss(2 * i + 1)) / 2.0 - all;
    let order = |j: usize| (loss(j) + loss(j + 2) + loss(j + 4)) / 3.0 - all;
    let both = (0..6)
        .map(|r| loss(r) - all - init(r / 2) - order(r % 2))
        .map(|x| x * x)
        .sum::<f64>()
        / 2.0;
    let wanted = ((0..3).map(init).map(|x| x * x).sum::<f64>() - both) / 2.0;
    let near = |row: &Value, wanted: f64| {
        (row["variance"].as_f64().expect("a number") - wanted).abs() < 1e-12
    };
    assert!(
        near(&rows[0], wanted) && near(&rows[2], both),
        "{found} {wanted} {both}"
    );

    assert!(
        rows[3]["note"]
            .as_str()
            .is_some_and(|note| note.contains("0 of 6 trials have a value (6 ended without)"))
    );
    let people = cluster.ask(&["variance", &id]);
    assert!(
        people.contains("init × order")
            && people.contains("Satterthwaite")
            && !people.contains("NaN"),
        "{people}"
    );

    assert!(
        cluster
            .ask(&["variance", &id, "--format", "csv"])
            .starts_with("lr,component,n,df,variance,share,ci_low,")
    );

    let plain = cluster.launch(&crate::empty_sweep(2));
    refused(
        &cluster.run(&["variance", &plain]),
        5,
        &["crosses no random streams", "seeds = { crossed"],
    );

    refused(
        &cluster.run(&["variance", &id, "--metric", "test_los"]),
        5,
        &["did you mean 'test_loss'"],
    );
    let hot = cluster.launch(&CROSSED.replace("[0.2, 1e38]", "[1e38]"));
    cluster.wait_for_end(&hot);

    refused(
        &cluster.run(&["variance", &hot]),
        5,
        &[
            "no cell has a value of test_acc for all of its trials",
            "0 of 6 trials",
        ],
    );
}

#[test]
fn what_repeats_that_share_crossed_streams_do_not_tell_is_not_told() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let predicting = CROSSED.replace("[0.2, 1e38]", "[0.05, 0.2]") + "probe = { points = 50 }\n";
    let id = cluster.launch(&predicting);
    cluster.wait_for_end(&id);
    let ask = |command: &str| json(&cluster.ask(&[command, &id, "--format", "json"]));

    // Halves of a cell have streams in common: what is as far apart as they are is not far apart by chance alone.
    let between = json(&cluster.ask(&[
        "distance",
        &id,
        "--between",
        "lr=0.05",
        "lr=0.2",
        "--format",
        "json",
    ]));
    let pair = &list(&between, "rows")[0];
    assert!(
        pair["p"].is_null() && pair["distance"].is_f64() && pair["null"].is_f64(),
        "{between}"
    );

    assert!(
        pair["note"]
            .as_str()
            .is_some_and(|note| note.contains("share crossed streams")),
        "{between}"
    );

    let people = cluster.ask(&["distance", &id]);
    assert_eq!(
        people.matches("share crossed streams").count(),
        1,
        "what is so of all cells is said once: {people}"
    );

    let effects = ask("effects");
    assert!(
        list(&effects, "best")
            .iter()
            .all(|row| row["p_best"].is_null()),
        "{effects}"
    );

    assert!(
        list(&effects, "best")
            .iter()
            .any(|row| row["may_be_best"] == true),
        "{effects}"
    );

    assert!(
        list(&effects, "effects")
            .iter()
            .all(|row| row["ci_low"].is_f64()),
        "{effects}"
    );

    let notes = effects["notes"].to_string();
    assert!(
        notes.contains("no p(best)") && notes.contains("conditional on the fixed head"),
        "{effects}"
    );

    let compared =
        json(&cluster.ask(&["compare", &id, "--baseline", "lr=0.2", "--format", "json"]));
    let row = &list(&compared, "rows")[0];
    assert!(
        row["sign_p"].is_null() && row["wilcoxon_p"].is_null() && row["ci_low"].is_f64(),
        "{compared}"
    );

    let note = row["note"].as_str().unwrap_or_default();
    assert!(
        note.contains("no sign test") && note.contains("given the fixed head"),
        "{compared}"
    );
}

/// Cells of two decays. With the last rate and a decay all trials diverge; without one, the loss does not depend on the rate's size.
const WILD: &str = r#"
name    = "wild"
repeats = 4
seed    = 5
[model]
kind  = "toy"
dim   = 4
noise = 0.5
[train]
steps = 20
[grid]
lr = [0.1, 0.2, 1e30]
wd = [0.0, 0.01]
[measure]
metrics = ["train_loss"]
"#;

#[test]
fn tables_say_what_counts_and_refuse_what_has_no_worst_value() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(WILD);
    cluster.wait_for_end(&id);

    for command in ["table", "curves"] {
        for stat in ["mean_all", "ci95_all"] {
            let asked = cluster.run(&[command, &id, "--stat", stat]);
            refused(
                &asked,
                2,
                &[
                    "for accuracies only",
                    "train_loss has no worst value",
                    "p_diverged",
                ],
            );
        }
    }

    // Cells of one decay, of which one has no value.
    let legend = "each trial with a value equally";
    let by_trials = &["table", &id, "--by", "wd"][..];
    let by_cells = &["table", &id, "--by", "wd", "--weight", "cells"][..];
    assert!(cluster.ask(by_trials).contains(legend) && !cluster.ask(by_cells).contains(legend));

    // Before anything is tested it is said that no p can be small enough.
    let compared = cluster.ask(&["compare", &id, "--baseline", "lr=0.1,wd=0"]);
    let said = "with 4 repeats and 4 cells, no p-value can fall below 0.05 after Holm's correction, however large the \
                differences: at least 8 repeats are needed";
    assert!(compared.contains(said), "{compared}");
    let help = run(&["effects", "--help"]).stdout;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        help.contains("share of resamples") && help.contains("not the probability"),
        "{help}"
    );
}

fn check_effects_refusals(cluster: &Cluster, id: &str) {
    let ask = |args: &[&str], code, words: &[&str]| {
        refused(
            &cluster.run(&[&["effects", id], args].concat()),
            code,
            words,
        );
    };
    ask(
        &["--metric", "test_ac"],
        5,
        &["'test_ac'", "did you mean 'test_acc'"],
    );

    ask(
        &["--at", "17 steps"],
        5,
        &["no trial was sampled after step", "ergodic curves"],
    );
    ask(&["--level", "100"], 2, &["level: expected", "below 100"]);

    ask(&["--interaction", "lr"], 2, &["two different axes"]);
    ask(
        &["--interaction", "lr,wdd"],
        5,
        &["'wdd'", "did you mean 'wd'"],
    );

    ask(&["--part", "interaction"], 2, &["--interaction lr,wd"]);
    let hot = cluster.launch(&PREDICTING.replace("[0.05, 0.2, 1e38]", "[1e37, 1e38]"));
    cluster.wait_for_end(&hot);
    refused(
        &cluster.run(&["effects", &hot]),
        5,
        &[
            "no trial has a value of test_acc",
            "24 of 24 ended without one",
        ],
    );

    let lone = cluster.launch(&PREDICTING.replace("repeats = 6", "repeats = 1"));
    cluster.wait_for_end(&lone);
    let found = json(&cluster.ask(&["effects", &lone, "--format", "json"]));
    assert!(
        found["notes"]
            .to_string()
            .contains("one repeat: no intervals"),
        "{found}"
    );

    assert!(
        list(&found, "effects")
            .iter()
            .all(|row| row["ci_low"].is_null() && row["effect"].is_f64())
    );
    assert!(
        list(&found, "best")
            .iter()
            .all(|row| row["p_best"].is_null())
    );

    let single = cluster.launch(&crate::empty_sweep(3));
    cluster.wait_for_end(&single);
    refused(
        &cluster.run(&["effects", &single]),
        5,
        &["differences between cells", "one cell"],
    );
}
