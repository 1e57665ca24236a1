//! Datasets: what `ergodic export` writes says the same as the tables, grows with the sweep, and is whole at every moment.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use ergodic_tests::{Cluster, Finished, Program, S3, run_with, skip};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::weights::KEEPING;

pub(super) type Rows = Vec<Map<String, Value>>;

/// A dataset in a directory.
pub(super) struct Dataset(pub(super) PathBuf);

impl Dataset {
    pub(super) fn manifest(&self) -> Value {
        let text = std::fs::read_to_string(self.0.join("manifest.json")).expect("a manifest");
        serde_json::from_str(&text).expect("it is JSON")
    }

    fn parts(&self, table: &str) -> Vec<Value> {
        self.manifest()["tables"][table]["parts"]
            .as_array()
            .expect("a list of parts")
            .clone()
    }

    /// Rows of a table in the order (cell, repeat, step), read from what the manifest names, which is as it says.
    pub(super) fn rows(&self, table: &str) -> Rows {
        let mut rows = Rows::new();
        for part in self.parts(table) {
            let path = self.0.join(part["path"].as_str().expect("a path"));
            let bytes = std::fs::read(&path).expect("a part");
            assert_eq!(part["bytes"], bytes.len());
            assert_eq!(part["sha256"], sha256(&bytes));
            let before = rows.len();
            rows.extend(parquet(&path));

            assert_eq!(part["rows"], rows.len() - before);
            let keys: Vec<_> = rows[before..].iter().map(place).collect();
            assert!(keys.is_sorted(), "{table}: rows of a part are sorted");
        }

        assert_eq!(self.manifest()["tables"][table]["rows"], rows.len());
        rows.sort_by_key(place);
        rows
    }

    /// Parquet files below it, whether the manifest names them or not.
    fn files(&self) -> BTreeSet<String> {
        let folders = std::fs::read_dir(&self.0)
            .expect("a directory")
            .flatten()
            .filter(|entry| entry.path().is_dir());
        let files = folders.flat_map(|folder| {
            std::fs::read_dir(folder.path())
                .expect("a folder")
                .flatten()
        });

        files
            .map(|file| {
                file.path()
                    .strip_prefix(&self.0)
                    .expect("below it")
                    .display()
                    .to_string()
            })
            .collect()
    }

    /// The files that the manifest names.
    fn named(&self) -> BTreeSet<String> {
        paths(&self.manifest())
    }
}

/// The parts that a manifest names.
fn paths(manifest: &Value) -> BTreeSet<String> {
    let tables = manifest["tables"].as_object().expect("tables").values();
    let parts = tables.flat_map(|table| table["parts"].as_array().expect("parts"));
    parts
        .map(|part| part["path"].as_str().expect("a path").to_owned())
        .collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn place(row: &Map<String, Value>) -> [Option<u64>; 4] {
    ["cell", "repeat", "step", "image"].map(|column| row.get(column).and_then(Value::as_u64))
}

/// Rows of a Parquet file.
pub(super) fn parquet(path: &Path) -> Rows {
    let file = std::fs::File::open(path).expect("a file");
    let batches = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build);
    batches
        .expect("it is Parquet")
        .flat_map(|batch| objects(&batch.expect("rows")))
        .collect()
}

fn objects(batch: &RecordBatch) -> Rows {
    let value = |column: &dyn Array, row: usize| {
        if column.is_null(row) {
            return Value::Null;
        }

        match column.data_type().to_string().as_str() {
            "Int16" => json!(column.as_primitive::<Int16Type>().value(row)),
            "Int32" => json!(column.as_primitive::<Int32Type>().value(row)),
            "Int64" => json!(column.as_primitive::<Int64Type>().value(row)),
            "Float64" => json!(column.as_primitive::<Float64Type>().value(row)),
            "Utf8" => json!(column.as_string::<i32>().value(row)),
            other => panic!("a column of {other}"),
        }
    };

    let names: Vec<String> = batch
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let row = |row| {
        names
            .iter()
            .cloned()
            .zip(batch.columns().iter().map(|c| value(c.as_ref(), row)))
            .collect()
    };

    (0..batch.num_rows()).map(row).collect()
}

pub(super) fn export(cluster: &Cluster, id: &str, to: &Path, options: &[&str]) -> Dataset {
    let path = to.display().to_string();
    cluster.ask(&[&["export", id, "-o", &path], options].concat());
    Dataset(to.join("sweeps").join(id))
}

/// Whether a number is the one that was told. What is told is read from text, which `serde_json` does to the last digit but
/// one: so is the other, and what is compared is what is written.
pub(super) fn same_number(a: &Value, told: &Value) -> bool {
    let written: Value = serde_json::from_str(&a.to_string()).expect("a number, or null");
    written.as_f64().map(f64::to_bits) == told.as_f64().map(f64::to_bits)
}

/// Rows of `trials` say what `ergodic trials` says.
fn check_trials(rows: &Rows, cluster: &Cluster, id: &str) {
    let text = cluster.ask(&["trials", id, "--format", "json"]);
    let told: Vec<Value> = serde_json::from_str(&text).expect("valid JSON");
    assert_eq!(rows.len(), told.len());

    for (row, told) in rows.iter().zip(&told) {
        assert_eq!(
            (row["step"].is_null(), &row["step"]),
            (row["outcome"] != "diverged", &told["step"])
        );

        for text in ["outcome", "worker", "isa", "digest", "cause"] {
            assert_eq!(row[text], told[text], "{text} of {row:?}");
        }

        for number in ["cell", "repeat", "steps", "seconds", "lr", "test_acc"] {
            assert!(
                same_number(&row[number], &told[number]),
                "{number} of {row:?} and {told}"
            );
        }
    }
}

/// Rows of `predictions` say what `ergodic predictions` says.
fn check_predictions(rows: &Rows, cluster: &Cluster, id: &str) {
    let csv = cluster.ask(&["predictions", id]);
    let names = ["cell", "repeat", "step", "image", "label", "class"];
    let line = |row: &Map<String, Value>| names.map(|name| row[name].to_string()).join(",");
    let told: BTreeSet<&str> = csv
        .lines()
        .skip(1)
        .map(|line| line.split_once(',').expect("an axis first").1)
        .collect();

    let lines: Vec<String> = rows.iter().map(line).collect();
    assert_eq!(
        (lines.len(), told.len()),
        (csv.lines().count() - 1, csv.lines().count() - 1)
    );

    assert!(lines.iter().all(|line| told.contains(line.as_str())));
}

#[test]
fn a_dataset_says_what_the_tables_say_and_a_second_export_adds_nothing() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(KEEPING);
    cluster.wait_for_end(&id);
    let to = cluster.path("dataset");
    let dataset = export(&cluster, &id, &to, &[]);

    check_trials(&dataset.rows("trials"), &cluster, &id);
    check_predictions(&dataset.rows("predictions"), &cluster, &id);
    check_curves(&dataset, &cluster, &id);
    let cells = dataset.rows("cells");
    assert_eq!(
        cells.iter().map(|cell| &cell["lr"]).collect::<Vec<_>>(),
        [&json!(0.05), &json!(1e38)]
    );

    let hash = cells[0]["hash"].as_str().expect("a hash");
    assert!(hash.len() == 64 && hash != cells[1]["hash"], "{cells:?}");

    let manifest = dataset.manifest();
    assert_eq!(
        (&manifest["complete"], &manifest["serial"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(manifest["sweep"]["spec"]["text"], KEEPING);

    assert_eq!(
        manifest["hosts"]
            .as_object()
            .expect("hosts")
            .values()
            .filter_map(Value::as_u64)
            .sum::<u64>(),
        4
    );

    assert!(
        manifest["sweep"]["numerics"]
            .as_str()
            .is_some_and(|class| class.starts_with("cpu-f32/"))
    );
    assert_eq!(dataset.files(), dataset.named());

    let again = export(&cluster, &id, &to, &[]);
    assert_eq!(again.manifest(), manifest);
    assert_eq!(again.files(), dataset.named());
    let others =
        ["trials/summary.parquet", "analysis/fit.parquet"].map(|file| dataset.0.join(file));
    for file in &others {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("it can be made");
        std::fs::write(file, "somebody else's").expect("a file can be written");
    }

    let part = dataset
        .0
        .join(dataset.parts("trials")[0]["path"].as_str().expect("a path"));

    for (what, word) in [("shorter", "bytes, but"), ("gone", "is missing")] {
        match what {
            "gone" => std::fs::remove_file(&part).expect("it was there"),
            _ => std::fs::write(&part, "PAR1").expect("it can be written"),
        }

        let refused = cluster.run(&["export", &id, "-o", &to.display().to_string()]);
        assert!(
            refused.code == 4
                && refused.stderr.contains(word)
                && refused.stderr.contains("--rewrite"),
            "{refused:?}"
        );
    }

    let anew = export(&cluster, &id, &to, &["--anew"]);
    for file in &others {
        assert_eq!(
            std::fs::read(file).expect("it is there still"),
            b"somebody else's"
        );
        std::fs::remove_file(file).expect("it is there");
    }

    assert_eq!(anew.manifest()["serial"], 2);
    assert!(anew.files() == anew.named() && anew.files().is_disjoint(&paths(&manifest)));
    check_trials(&anew.rows("trials"), &cluster, &id);
}

/// The last point of a completed trial's curve has its final metrics, and means over trials are those of `ergodic curves`.
fn check_curves(dataset: &Dataset, cluster: &Cluster, id: &str) {
    let trials = dataset.rows("trials");
    let curves = dataset.rows("curves");
    let completed: Vec<_> = trials
        .iter()
        .filter(|trial| trial["outcome"] == "completed")
        .collect();
    assert!(completed.len() == 2 && trials.len() == 4);

    for trial in &completed {
        let of_trial = |point: &&Map<String, Value>| place(point)[..2] == place(trial)[..2];
        let last = curves.iter().rfind(of_trial).expect("a curve");
        assert!(
            same_number(&last["test_acc"], &trial["test_acc"]) && last["step"] == trial["steps"]
        );
    }

    let told: Value = serde_json::from_str(&cluster.ask(&["curves", id, "--format", "json"]))
        .expect("valid JSON");
    for told in told["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .filter(|told| told["n"] != 0)
    {
        let lives = |trial: &Map<String, Value>| {
            let end = trial["step"].as_u64().unwrap_or(u64::MAX);
            same_number(&trial["lr"], &told["lr"]) && Some(end) > told["step"].as_u64()
        };
        let here = |point: &&Map<String, Value>| {
            let trial = trials
                .iter()
                .find(|trial| place(trial)[..2] == place(point)[..2])
                .expect("its trial");
            lives(trial) && point["step"] == told["step"]
        };
        let values: Vec<f64> = curves
            .iter()
            .filter(here)
            .filter_map(|point| point["test_acc"].as_f64())
            .collect();
        assert_eq!(told["n"], values.len());

        assert!(
            (values.iter().sum::<f64>() / values.len() as f64
                - told["mean"].as_f64().expect("a mean"))
            .abs()
                < 1e-12
        );
    }
}

#[test]
fn a_dataset_grows_with_its_sweep_and_is_whole_when_an_export_is_broken_off() {
    let mut cluster = Cluster::start(&[]);
    cluster.gate.hold_after(4);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(&super::repeated(40));
    cluster.wait_until_held(&id, super::trials(4));
    let to = cluster.path("dataset");
    let early = export(&cluster, &id, &to, &[]);
    let manifest = early.manifest();

    let first = early.rows("trials");
    assert_eq!((&manifest["complete"], first.len()), (&json!(false), 24));
    check_trials(&first, &cluster, &id);

    cluster.gate.open();
    cluster.wait_for_end(&id);
    let path = to.display().to_string();
    let args = ["export", &id, "-o", &path, "--coordinator", &cluster.url];
    let died = run_with(&[("FAILPOINTS", "before-manifest=return")], &args);
    assert_ne!(died.code, 0);

    assert_eq!(early.manifest(), manifest, "what there was is whole");
    assert!(
        early.files().len() > early.named().len(),
        "parts that belong to no dataset are there"
    );
    assert_eq!(early.rows("trials"), first);

    let all = export(&cluster, &id, &to, &[]);
    assert_eq!(
        (&all.manifest()["complete"], &all.manifest()["serial"]),
        (&json!(true), &json!(2))
    );
    assert_eq!(all.files(), all.named(), "and are there no more");

    assert!(
        paths(&manifest).is_subset(&all.named()),
        "parts that are there are left alone"
    );
    check_trials(&all.rows("trials"), &cluster, &id);
    let fresh = export(&cluster, &id, &cluster.path("other"), &[]);

    for table in ["cells", "trials", "curves"] {
        assert_eq!(all.rows(table), fresh.rows(table));
    }
}

#[test]
fn an_export_follows_a_sweep_to_its_end() {
    let mut cluster = Cluster::start(&[]);
    cluster.gate.hold_after(3);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(&super::repeated(20));
    cluster.wait_until_held(&id, super::trials(3));
    let dataset = Dataset(cluster.path("dataset").join("sweeps").join(&id));
    let to = cluster.path("dataset").display().to_string();
    let args = [
        "export",
        &id,
        "-o",
        &to,
        "--follow",
        "--every",
        "100ms",
        "--coordinator",
        &cluster.url,
    ];
    let following = Program::start(&args, &cluster.path("following.log"));
    following.wait_until("what is done is exported", || {
        dataset.0.join("manifest.json").exists()
    });

    assert_eq!(dataset.manifest()["complete"], false);
    cluster.gate.open();
    assert_eq!(following.wait(), 0);
    assert_eq!(dataset.manifest()["complete"], true);
    assert_eq!(cluster.status(&id)["state"], "completed");

    check_trials(&dataset.rows("trials"), &cluster, &id);
}

#[test]
fn places_that_are_none_are_refused_in_words() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(1, &[]);
    let id = cluster.launch(&super::empty_sweep(3));
    cluster.wait_for_end(&id);
    let to = |place: &str| cluster.run(&["export", &id, "-o", place]);

    for place in [
        "ftp://somewhere/else",
        "gs://bucket/prefix",
        "az://container/prefix",
    ] {
        let refused = to(place);
        assert!(
            refused.code == 2 && refused.stderr.contains("s3://BUCKET/PREFIX"),
            "{refused:?}"
        );
    }

    let file = cluster.path("file");
    std::fs::write(&file, "in the way").expect("a file can be written");
    let refused = to(&file.display().to_string());
    assert!(
        refused.code == 2 && refused.stderr.contains("cannot be used for a dataset"),
        "{refused:?}"
    );

    let dataset = export(&cluster, &id, &cluster.path("dataset"), &[]);
    let twin = cluster.launch(&super::empty_sweep(2));
    cluster.wait_for_end(&twin);
    let place = cluster.path("dataset").join("sweeps").join(&twin);
    std::fs::create_dir_all(&place).expect("a folder can be made");
    std::fs::copy(dataset.0.join("manifest.json"), place.join("manifest.json")).expect("copied");

    let refused = cluster.run(&[
        "export",
        &twin,
        "-o",
        &cluster.path("dataset").display().to_string(),
    ]);
    assert!(
        refused.code == 2
            && refused
                .stderr
                .contains(&format!("the dataset of the sweep {id}")),
        "{refused:?}"
    );

    let newer = serde_json::to_string(&json!({ "format": "ergodic dataset", "version": 99 }))
        .expect("JSON");
    std::fs::write(dataset.0.join("manifest.json"), newer).expect("a file can be written");
    let refused = to(&cluster.path("dataset").display().to_string());
    assert!(
        refused.code == 2 && refused.stderr.contains("version 99"),
        "{refused:?}"
    );
}

/// What `ergodic export` to an S3 server ends with, beside what its environment says.
fn export_to(s3: &S3, cluster: &Cluster, id: &str) -> Finished {
    let environment = s3.environment();
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    run_with(
        &environment,
        &[
            "export",
            id,
            "-o",
            "s3://results/of/all",
            "--coordinator",
            &cluster.url,
        ],
    )
}

#[test]
fn an_object_store_holds_the_same_dataset() {
    let s3 = match S3::start() {
        Ok(s3) => s3,
        Err(why) => return skip("an_object_store_holds_the_same_dataset", "s3", &why),
    };
    let mut cluster = Cluster::start(&[]);
    cluster.gate.hold_after(3);

    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(&super::repeated(30));
    cluster.wait_until_held(&id, super::trials(3));
    let early = export_to(&s3, &cluster, &id);
    assert_eq!(early.code, 0, "{early:?}");
    cluster.gate.open();

    cluster.wait_for_end(&id);
    for _ in 0..2 {
        let exported = export_to(&s3, &cluster, &id);
        assert_eq!(exported.code, 0, "{exported:?}");
    }

    let base = format!("/results/of/all/sweeps/{id}");
    let manifest: Value =
        serde_json::from_slice(&s3.get(&format!("{base}/manifest.json"))).expect("a manifest");
    assert_eq!(
        (&manifest["serial"], &manifest["complete"]),
        (&json!(2), &json!(true))
    );

    let copy = Dataset(cluster.path("copy"));
    for path in paths(&manifest) {
        let file = copy.0.join(&path);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder can be made");
        std::fs::write(file, s3.get(&format!("{base}/{path}"))).expect("a file can be written");
    }

    std::fs::write(copy.0.join("manifest.json"), manifest.to_string())
        .expect("a file can be written");
    check_trials(&copy.rows("trials"), &cluster, &id);
    let local = export(&cluster, &id, &cluster.path("local"), &[]);

    for table in ["cells", "trials", "curves"] {
        assert_eq!(copy.rows(table), local.rows(table));
    }
}

#[test]
fn a_server_that_ignores_conditional_writes_is_refused_and_left_as_it_was() {
    let s3 = match S3::careless() {
        Ok(s3) => s3,
        Err(why) => {
            return skip(
                "a_server_that_ignores_conditional_writes_is_refused_and_left_as_it_was",
                "rclone-s3",
                &why,
            );
        }
    };

    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(1, &[]);
    let id = cluster.launch(&super::empty_sweep(3));
    cluster.wait_for_end(&id);
    let refused = export_to(&s3, &cluster, &id);
    assert!(
        refused.code == 2 && refused.stderr.contains("conditional writes"),
        "{refused:?}"
    );

    assert!(
        refused
            .stderr
            .contains(&format!("s3://results/of/all/sweeps/{id}")),
        "{refused:?}"
    );

    assert!(s3.objects().is_empty(), "{:?}", s3.objects());
}

#[test]
fn an_export_without_credentials_says_so_and_asks_nobody_for_them() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(1, &[]);
    let id = cluster.launch(&super::empty_sweep(3));
    cluster.wait_for_end(&id);

    // Whoever asked a machine for its role, or the store itself, would come to this door.
    let door = TcpListener::bind("127.0.0.1:0").expect("a free port");
    door.set_nonblocking(true)
        .expect("it can be asked without waiting");
    let url = format!("http://{}", door.local_addr().expect("an address"));
    let to = |environment: &[(&str, &str)]| {
        let address = [
            ("AWS_ENDPOINT_URL", url.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("http_proxy", url.as_str()),
        ];
        let environment = [&address, environment].concat();
        run_with(
            &environment,
            &[
                "export",
                &id,
                "-o",
                "s3://results/of/all",
                "--coordinator",
                &cluster.url,
            ],
        )
    };

    for environment in [
        &[][..],
        &[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")],
        &[("AWS_SKIP_SIGNATURE", "false")],
        &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/a/token")],
    ] {
        let refused = to(environment);
        let words = ["no credentials", "AWS_ACCESS_KEY_ID", "s3://results/of/all"];
        assert!(
            refused.code == 2 && words.iter().all(|word| refused.stderr.contains(word)),
            "{refused:?}"
        );
    }

    let half = to(&[("AWS_ACCESS_KEY_ID", "anybody")]);
    assert!(
        half.code == 2 && half.stderr.contains("AWS_SECRET_ACCESS_KEY"),
        "{half:?}"
    );

    assert!(door.accept().is_err(), "somebody was asked");
}
