//! Quantities as columns of datasets: the numbers that tables have, whatever else a sweep does.

use ergodic_tests::Cluster;
use serde_json::{Map, Value};

use super::export::{Dataset, Rows, export, same_number};
use super::quantities::sweep;

/// A curve, numbers of trials, one with the name of a column, and two that have no column.
const QUANTITIES: &str = "inv = '1/weight_norm_sq'\ngain = 'jump(train_loss, decay)'\nreach = 'first(train_loss < 2)'\n\
                          share = 'train_loss/max(train_loss)'\nseconds = '2*inv'\nrate = 'lr*(1 + wd)'\n\
                          is_low = 'train_loss < 1'\napart = 'train_loss - other(train_loss)'";
/// The quantities with columns, as commands and as datasets name them.
const COLUMNS: [(&str, &str); 6] = [
    ("inv", "inv"),
    ("gain", "gain"),
    ("reach", "reach"),
    ("share", "share"),
    ("seconds", "quantity.seconds"),
    ("rate", "rate"),
];

fn rows_of(cluster: &Cluster, args: &[&str]) -> Vec<Value> {
    let text = cluster.ask(&[args, &["--format", "json"]].concat());
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    let rows = answer.get("rows").unwrap_or(&answer);
    rows.as_array().expect("rows").clone()
}

/// The values in `trials` are those of `ergodic trials`, to the bit; trials that diverged have none.
fn check_trials(rows: &Rows, cluster: &Cluster, id: &str) {
    let told = rows_of(
        cluster,
        &["trials", id, "--metric", "inv,gain,reach,share,2*inv,rate"],
    );
    assert_eq!(rows.len(), told.len());
    for (row, told) in rows.iter().zip(&told) {
        let is_completed = row["outcome"] == "completed";
        for (name, column) in COLUMNS {
            let name = if name == "seconds" { "2*inv" } else { name };
            assert!(
                same_number(&row[column], &told[name]),
                "{name}: {row:?} {told}"
            );
            assert!(is_completed || row[column].is_null(), "{column}: {row:?}");
        }
        assert!(!is_completed || row["gain"].is_f64(), "{row:?}");
        assert!(row["seconds"].as_f64() != row["quantity.seconds"].as_f64());
    }
}

/// The values in `curves` are those of their definitions at each sample. A trial that diverged has those that depend on one sample.
fn check_curves(dataset: &Dataset) {
    let curves = dataset.rows("curves");
    let trials = dataset.rows("trials");
    let place = |row: &Map<String, Value>| (row["cell"].clone(), row["repeat"].clone());
    assert!(!curves.is_empty());
    for trial in &trials {
        let samples: Vec<_> = curves
            .iter()
            .filter(|row| place(row) == place(trial))
            .collect();
        let losses = samples.iter().filter_map(|row| row["train_loss"].as_f64());
        let largest = losses.fold(f64::NEG_INFINITY, f64::max);
        for row in &samples {
            let inverse = row["weight_norm_sq"].as_f64().map(|norm| 1.0 / norm);
            assert_eq!(row["inv"].as_f64(), inverse, "{row:?}");
            let share = row["train_loss"].as_f64().map(|loss| loss / largest);
            let share = share.filter(|_| trial["outcome"] == "completed");
            assert_eq!(row["share"].as_f64(), share, "{row:?}");
            assert!(
                row.get("gain").is_none() && row.get("rate").is_none(),
                "{row:?}"
            );
        }
        assert!(
            !samples.is_empty() || trial["outcome"] == "diverged",
            "{trial:?}"
        );
    }
}

#[test]
fn quantities_are_columns_of_a_dataset() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(&sweep("several", "repeats = 3", QUANTITIES));
    let other = cluster.launch(&sweep("other", "repeats = 2", "inv = '2/weight_norm_sq'"));
    for id in [&id, &other] {
        cluster.wait_for_end(id);
    }

    let to = cluster.path("dataset");
    let path = to.display().to_string();
    let said = cluster.ask(&["export", &id, &other, "-o", &path]);
    for words in [
        "18 trials added",
        "12 trials added",
        "no column for is_low: 'is_low' is a condition",
        "no column for apart: 'apart' sets a trial against another cell by other(...)",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let [dataset, second] = [&id, &other].map(|id| Dataset(to.join("sweeps").join(id)));
    check_trials(&dataset.rows("trials"), &cluster, &id);
    check_curves(&dataset);
    let manifest = dataset.manifest();
    assert_eq!(manifest["quantities"]["gain"], "jump(train_loss, decay)");
    assert_eq!(manifest["quantities"]["quantity.seconds"], "2*inv");
    assert_eq!(manifest["quantities"].as_object().map(Map::len), Some(6));

    // Each sweep has its own definition, and columns.
    let rows = second.rows("trials");
    let is_defined = |row: &&Map<String, Value>| row["outcome"] == "completed";
    for row in rows.iter().filter(is_defined) {
        let norm = row["weight_norm_sq"].as_f64().expect("a norm");
        assert_eq!(row["inv"].as_f64(), Some(2.0 / norm));
        assert!(row.get("gain").is_none());
    }

    check_other_columns(&cluster, &dataset, &id);
}

/// What an earlier version wrote without quantities is written again, and only then.
fn check_other_columns(cluster: &Cluster, dataset: &Dataset, id: &str) {
    let to = cluster.path("dataset").display().to_string();
    let before = dataset.manifest();
    let again = cluster.run(&["export", id, "-o", &to]);
    assert!(again.stdout.contains("0 trials added"), "{again:?}");
    assert_eq!(again.stderr, "");
    assert_eq!(dataset.manifest(), before);

    let mut earlier = before.clone();
    for table in ["trials", "curves"] {
        let columns = earlier["tables"][table]["columns"].as_array_mut();
        columns
            .expect("columns")
            .retain(|column| column["name"] != "inv");
    }
    earlier
        .as_object_mut()
        .expect("an object")
        .remove("quantities");
    std::fs::write(dataset.0.join("manifest.json"), earlier.to_string()).expect("written");
    let renewed = cluster.run(&["export", id, "-o", &to]);
    assert_eq!(renewed.code, 0, "{renewed:?}");
    assert!(
        renewed
            .stderr
            .contains("with other columns: all rows are written again"),
        "{renewed:?}"
    );
    assert!(
        renewed.stdout.contains("18 trials added, 18 of 18"),
        "{renewed:?}"
    );
    let after = dataset.manifest();
    assert_eq!(
        after["tables"]["trials"]["columns"],
        before["tables"]["trials"]["columns"]
    );
    assert_eq!(after["quantities"], before["quantities"]);
    check_trials(&dataset.rows("trials"), cluster, id);
}

#[test]
fn quantities_of_cases_and_of_crossed_streams_grow_with_their_sweep() {
    let mut cluster = Cluster::start(&[]);
    cluster.gate.hold_after(2);
    let _worker = cluster.worker(2, &[]);
    let grid = "[grid]\nlr = [0.05, 0.2, 1e38]\nwd = [0.0, 0.1]\n";
    let crossed = "repeats = 8\nseeds = { crossed = { init = 2, order = 4 } }";
    let text = sweep(
        "cases",
        crossed,
        "inv = 'k/weight_norm_sq'\ngain = 'jump(train_loss, decay)'",
    );
    let cases = "[case]\nslow = { lr = 0.05, k = 1 }\nfast = { lr = 0.2, k = 3 }\n";
    assert!(text.contains(grid));
    let id = cluster.launch(&text.replace(grid, cases));
    cluster.wait_until_held(&id, 4);
    let to = cluster.path("dataset");
    let early = export(&cluster, &id, &to, &[]).rows("trials");
    assert_eq!(early.len(), 4);

    cluster.gate.open();
    cluster.wait_for_end(&id);
    let grown = export(&cluster, &id, &to, &[]);
    let fresh = export(&cluster, &id, &cluster.path("fresh"), &[]);
    for table in ["trials", "curves"] {
        assert_eq!(grown.rows(table), fresh.rows(table));
    }
    let told = rows_of(&cluster, &["trials", &id, "--metric", "inv,gain"]);
    let rows = grown.rows("trials");
    assert_eq!((rows.len(), told.len()), (16, 16));
    for (row, told) in rows.iter().zip(&told) {
        for name in ["inv", "gain"] {
            assert!(same_number(&row[name], &told[name]), "{row:?} {told}");
        }
        assert_eq!(row["case"], told["case"]);
    }
}
