//! Queries: `ergodic sql` says what the tables say, over one sweep or several, and changes nothing.

use ergodic_tests::{Cluster, run_with, stdout};
use serde_json::{Value, json};

use super::refusals::refused;

/// A sweep with another axis beside `lr`, which is whole in it.
fn other() -> String {
    let axes = (
        "lr = [0.05, 0.2, 1e38]\nwd = [0.0, 1e-3]\n",
        "lr = [1, 2]\nbatch_size = [16, 32]\n",
    );
    super::repeated(2)
        .replace(axes.0, axes.1)
        .replace("batch_size = 32\n", "")
        .replace("\"small\"", "\"other\"")
}

fn rows(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in:\n{text}"))
}

#[test]
fn sql_says_what_the_tables_say() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let [id, other] = [&super::repeated(3), &other()].map(|text| cluster.launch(text));
    let place = cluster.path("dataset").display().to_string();

    for id in [&id, &other] {
        cluster.wait_for_end(id);
        cluster.ask(&["export", id, "-o", &place]);
    }

    check_trials(&cluster, &id, &place);
    check_table(&cluster, &id, &place);
    check_several(&id, &other, &place);
    check_formats(&cluster, &place);
    check_refusals(&cluster, &place);

    check_coordinator(&cluster, &other);
}

#[test]
fn quantities_are_columns_of_sql() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let defined = super::quantities::sweep(
        "defined",
        "repeats = 2",
        "inv = '1/weight_norm_sq'\ngain = 'jump(train_loss, decay)'",
    );
    let id = cluster.launch(&defined);
    let other = cluster.launch(&other());
    let place = cluster.path("dataset").display().to_string();
    for id in [&id, &other] {
        cluster.wait_for_end(id);
        cluster.ask(&["export", id, "-o", &place]);
    }

    let query =
        "SELECT sweep, outcome, gain, inv, weight_norm_sq FROM trials ORDER BY sweep, cell, repeat";
    let found = ask(&place, query);
    let told = rows(&cluster.ask(&["trials", &id, "--metric", "gain,inv", "--format", "json"]));
    let own: Vec<&Value> = found
        .iter()
        .filter(|row| row["sweep"] == id.as_str())
        .collect();
    assert_eq!((own.len(), found.len()), (12, 20));
    for (found, told) in own.iter().zip(&told) {
        for name in ["gain", "inv"] {
            assert_eq!(found[name].as_f64(), told[name].as_f64(), "{found} {told}");
        }
        assert_eq!(found["gain"].is_null(), found["outcome"] != "completed");
    }
    let others = found.iter().filter(|row| row["sweep"] == other.as_str());
    assert!(others.clone().all(|row| row["gain"].is_null()));

    let curves = ask(
        &place,
        "SELECT inv, 1/weight_norm_sq AS own FROM curves WHERE weight_norm_sq > 0",
    );
    assert!(!curves.is_empty());
    assert!(
        curves.iter().all(|row| row["inv"] == row["own"]),
        "{curves:?}"
    );
    let fetched = cluster.ask(&[
        "sql",
        "--sweep",
        &id,
        "SELECT count(gain) AS n FROM trials",
        "--format",
        "json",
    ]);
    assert_eq!(rows(&fetched)[0]["n"], 8);
}

fn ask(place: &str, query: &str) -> Vec<Value> {
    rows(&stdout(&[
        "sql", query, "--from", place, "--format", "json",
    ]))
}

fn check_trials(cluster: &Cluster, id: &str, place: &str) {
    let found = ask(
        place,
        &format!("SELECT * FROM trials WHERE sweep = '{id}' ORDER BY cell, repeat"),
    );
    let told = rows(&cluster.ask(&["trials", id, "--format", "json"]));
    assert_eq!((found.len(), told.len()), (18, 18));

    for (found, told) in found.iter().zip(&told) {
        for number in [
            "cell",
            "repeat",
            "lr",
            "wd",
            "step",
            "steps",
            "seconds",
            "test_acc",
            "train_loss",
        ] {
            assert_eq!(
                found[number].as_f64(),
                told[number].as_f64(),
                "{number} of {found}"
            );
        }

        for text in ["outcome", "worker", "isa", "digest", "cause"] {
            assert_eq!(found[text], told[text], "{text} of {found}");
        }

        assert!(found["batch_size"].is_null(), "an axis of the other sweep");
    }
}

fn check_table(cluster: &Cluster, id: &str, place: &str) {
    let query = format!(
        "SELECT lr, wd, count(*) FILTER (WHERE outcome = 'completed') AS n, \
         count(*) FILTER (WHERE outcome = 'diverged') AS diverged, \
         avg(test_acc) FILTER (WHERE outcome = 'completed') AS mean, \
         stddev(test_acc) FILTER (WHERE outcome = 'completed') AS std, \
         median(test_acc) FILTER (WHERE outcome = 'completed') AS median \
         FROM trials WHERE sweep = '{id}' GROUP BY lr, wd ORDER BY lr, wd"
    );
    let found = ask(place, &query);

    let told: Value =
        serde_json::from_str(&cluster.ask(&["table", id, "--format", "json"])).expect("valid JSON");
    let told = told["rows"].as_array().expect("rows");
    assert_eq!((found.len(), told.len()), (6, 6));

    for (found, told) in found.iter().zip(told) {
        for name in ["lr", "wd", "n", "diverged", "mean", "std", "median"] {
            let same = match (found[name].as_f64(), told[name].as_f64()) {
                (Some(found), Some(told)) => (found - told).abs() <= 1e-12 * told.abs(),
                (found, told) => found == told,
            };
            assert!(same, "{name}: {found} and {told}");
        }
    }

    let curve = "SELECT c.step, avg(c.test_acc) AS mean FROM curves AS c JOIN trials AS t USING (sweep, cell, repeat) \
                 WHERE outcome = 'completed' AND lr = 0.05 AND wd = 0 GROUP BY c.step ORDER BY c.step";
    let told: Value = serde_json::from_str(&cluster.ask(&["curves", id, "--format", "json"]))
        .expect("valid JSON");
    for (found, told) in ask(place, curve)
        .iter()
        .zip(told["rows"].as_array().expect("rows"))
    {
        assert_eq!(found["step"], told["step"]);
        assert!(
            (found["mean"].as_f64().expect("a mean") - told["mean"].as_f64().expect("a mean"))
                .abs()
                < 1e-12
        );
    }
}

/// Two sweeps are one table; what one of them lacks is null there, and types are widened.
fn check_several(id: &str, other: &str, place: &str) {
    let query = "SELECT name, s.trials, complete, count(*) AS rows FROM sweeps AS s JOIN trials ON id = sweep \
                 GROUP BY name, s.trials, complete ORDER BY name";
    let wanted = json!([
        { "name": "other", "trials": 8, "complete": true, "rows": 8 },
        { "name": "small", "trials": 18, "complete": true, "rows": 18 },
    ]);
    assert_eq!(json!(ask(place, query)), wanted);

    let cells = ask(
        place,
        "SELECT sweep, lr, wd, batch_size FROM cells ORDER BY lr, batch_size, wd",
    );
    let wanted: Vec<Value> = [
        (0.05, json!(0.0), json!(null)),
        (0.05, json!(1e-3), json!(null)),
        (0.2, json!(0.0), json!(null)),
        (0.2, json!(1e-3), json!(null)),
        (1.0, json!(null), json!(16)),
        (1.0, json!(null), json!(32)),
        (2.0, json!(null), json!(16)),
        (2.0, json!(null), json!(32)),
        (1e38, json!(0.0), json!(null)),
        (1e38, json!(1e-3), json!(null)),
    ]
    .map(|(lr, wd, size)| json!({ "sweep": if wd.is_null() { other } else { id }, "lr": lr, "wd": wd, "batch_size": size }))
    .to_vec();
    assert_eq!(cells, wanted);

    let of = |sweeps: &[&str]| {
        let count = [
            "sql",
            "SELECT count(*) AS n FROM trials",
            "--from",
            place,
            "--format",
            "json",
        ];

        rows(&stdout(&[&count, sweeps].concat()))[0]["n"].clone()
    };
    assert_eq!(
        [
            &[][..],
            &["--sweep", id],
            &["--sweep", &other[..6]],
            &["--sweep", id, "--sweep", "latest"]
        ]
        .map(of),
        [26, 18, 8, 26].map(Value::from)
    );

    assert!(
        ask(place, "SELECT * FROM predictions").is_empty(),
        "no probe set, no predictions"
    );
}

fn check_formats(cluster: &Cluster, place: &str) {
    let query = "SELECT sweep, cell, lr, wd FROM cells ORDER BY lr, wd NULLS LAST, cell";
    let csv = stdout(&["sql", query, "--from", place, "--format", "csv"]);
    assert!(
        csv.starts_with("sweep,cell,lr,wd\n") && csv.lines().count() == 11,
        "{csv}"
    );

    let file = cluster.path("cells.parquet");
    assert_eq!(
        stdout(&[
            "sql",
            query,
            "--from",
            place,
            "-o",
            &file.display().to_string()
        ]),
        ""
    );

    super::commands::check_columns(&super::export::parquet(&file), &csv);
    let people = stdout(&["sql", query, "--from", place]);
    assert!(
        people.contains("lr") && people.contains('–') && people.contains("0.05"),
        "{people}"
    );

    assert!(
        stdout(&["sql", query, "--from", place, "--format", "md"])
            .starts_with("| sweep | cell | lr | wd |\n")
    );
    let joined = "SELECT a.cell, b.cell FROM cells AS a, cells AS b WHERE a.cell < b.cell LIMIT 1";
    assert!(
        stdout(&["sql", joined, "--from", place, "--format", "csv"]).starts_with("a.cell,b.cell\n")
    );

    let explained = ask(place, "EXPLAIN SELECT cell FROM trials WHERE lr > 1");
    assert!(!explained.is_empty() && !ask(place, "DESCRIBE trials").is_empty());
    let odd =
        "SELECT 1.0 / 0.0 AS a, arrow_cast(NULL, 'Int32') AS b, launched_at FROM sweeps LIMIT 1";
    let csv = stdout(&["sql", odd, "--from", place, "--format", "csv"]);
    assert!(csv.starts_with("a,b,launched_at\ninf,,20"), "{csv}");
}

fn check_refusals(cluster: &Cluster, place: &str) {
    let manifests = || {
        stdout(&[
            "sql",
            "SELECT * FROM sweeps",
            "--from",
            place,
            "--format",
            "csv",
        ])
    };
    let before = manifests();

    let ask = |query: &str, code, words: &[&str]| {
        refused(&cluster.run(&["sql", query, "--from", place]), code, words)
    };
    let columns = "\n  trials: sweep, cell, repeat, lr, batch_size, wd, outcome";
    ask(
        "SELECT test_ac FROM trials",
        5,
        &["no column 'test_ac', did you mean 'test_acc'?", columns],
    );

    ask(
        "SELECT t.lrr FROM trials AS t",
        5,
        &["no column 't.lrr'", "did you mean 'lr'?", columns],
    );
    ask(
        "SELECT * FROM trails",
        5,
        &[
            "no table 'trails', did you mean 'trials'?",
            "\n  sweeps: id, name",
            columns,
        ],
    );

    for changing in [
        "CREATE TABLE x AS SELECT 1",
        "CREATE VIEW x AS SELECT 1",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "DROP TABLE trials",
        "INSERT INTO trials SELECT * FROM trials",
        "DELETE FROM trials",
        "UPDATE trials SET lr = 1",
        "COPY trials TO 'trials.parquet'",
        "EXPLAIN ANALYZE COPY trials TO 'trials.parquet'",
        "SET datafusion.execution.batch_size = 1",
    ] {
        ask(
            changing,
            2,
            &["is refused", "SELECT, WITH, EXPLAIN, DESCRIBE or SHOW"],
        );
    }

    ask("SELEC 1", 2, &["SELEC"]);
    ask("SELECT 1; SELECT 2", 2, &["single SQL statement"]);
    ask(
        "SELECT CAST('x' AS INT) FROM trials",
        2,
        &["the query cannot be answered", "'x'"],
    );

    ask("SELECT * FROM '/etc/passwd'", 5, &["no table"]);
    refused(
        &cluster.run(&["sql", "SELECT 1", "--from", &format!("{place}/sweeps")]),
        5,
        &["there is no dataset"],
    );

    refused(
        &cluster.run(&["sql", "SELECT 1", "--from", &format!("{place}/none")]),
        2,
        &["--from", "none"],
    );
    refused(
        &cluster.run(&["sql", "SELECT 1", "--from", place, "--sweep", "nosuch"]),
        5,
        &["'nosuch'"],
    );

    refused(
        &cluster.run(&["sql", "SELECT 1", "--from", place, "-o", "rows.xlsx"]),
        2,
        &["rows.xlsx", ".parquet"],
    );

    assert_eq!(manifests(), before);
}

/// Without a dataset, rows are fetched, and removed afterwards.
fn check_coordinator(cluster: &Cluster, other: &str) {
    let folder = cluster.path("temporary");
    std::fs::create_dir(&folder).expect("a directory can be made");
    let folder = folder.display().to_string();
    let ask = |args: &[&str]| {
        let args = [
            &["sql", "--coordinator", &cluster.url, "--format", "csv"],
            args,
        ]
        .concat();
        run_with(&[("TMPDIR", folder.as_str())], &args)
    };
    let all = ask(&["SELECT sweep, count(*) AS n FROM trials GROUP BY sweep ORDER BY n"]);
    assert!(
        all.code == 0 && all.stdout.starts_with(&format!("sweep,n\n{other},8\n")),
        "{all:?}"
    );

    let one = ask(&[
        "SELECT count(*) AS n FROM trials",
        "--sweep",
        "latest",
        "--sweep",
        other,
    ]);
    assert_eq!((one.code, one.stdout.as_str()), (0, "n\n8\n"), "{one:?}");

    refused(
        &ask(&["SELECT nothing FROM trials"]),
        5,
        &["no column 'nothing'"],
    );
    refused(&ask(&["DROP TABLE trials"]), 2, &["is refused"]);

    refused(&ask(&["SELECT 1", "--sweep", "nosuch"]), 5, &["nosuch"]);
    assert_eq!(
        std::fs::read_dir(&folder).expect("a directory").count(),
        0,
        "nothing is left"
    );
}
