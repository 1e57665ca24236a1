//! Results are read without a coordinator, and beside one: the same rows, and nothing changes.

use std::collections::BTreeSet;
use std::path::Path;

use ergodic_proto::v1;
use ergodic_proto::v1::sweep_service_client::SweepServiceClient;
use ergodic_tests::{Cluster, Finished, connection, run, run_in, run_with};

use crate::postgres::{database, on};
use crate::refusals::refused;
use crate::stored_meaning::old;
use crate::{SWEEP, block_on, empty_sweep};

/// Widest line of a table for people, in characters.
const WIDTH: usize = 80;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).expect("a file can be written");
}

/// Runs a command in a folder, which must succeed.
fn ask(dir: &Path, args: &[&str]) -> Finished {
    let finished = run_in(dir, &[("USER", "anna")], args);
    assert_eq!(finished.code, 0, "ergodic {args:?}: {finished:?}");
    finished
}

/// Names and bytes of the files in a store, but for logs and the lock.
fn database_bytes(store: &Path) -> (BTreeSet<String>, Vec<u8>) {
    let names = std::fs::read_dir(store)
        .expect("a store")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let bytes = std::fs::read(store.join("ergodic.sqlite")).expect("a database");
    (names, bytes)
}

fn epoch(cluster: &Cluster) -> u64 {
    block_on(async {
        let mut client = SweepServiceClient::new(connection(&cluster.url).await);
        let info = client.info(v1::InfoRequest {}).await.expect("it answers");
        info.into_inner().epoch
    })
}

#[test]
fn from_a_run_to_its_table_and_figure_nobody_starts_a_server() {
    let here = folder();
    write(here.path(), "small.toml", SWEEP);
    let ran = ask(here.path(), &["run", "small.toml"]);
    assert!(
        ran.stderr
            .contains("`ergodic table latest` shows them again"),
        "{ran:?}"
    );
    let store = here.path().join("ergodic-runs/small");
    let before = database_bytes(&store);

    let table = ask(here.path(), &["table", "latest"]);
    assert_eq!(table.stdout, ran.stdout);
    let store_name = store.canonicalize().expect("a store");
    assert!(
        table
            .stderr
            .contains(&format!("reading the store {}", store_name.display())),
        "{table:?}"
    );

    for picture in ["map.svg", "map.png"] {
        ask(here.path(), &["plot", "latest", "-o", picture]);
        assert!(here.path().join(picture).is_file());
    }
    ask(here.path(), &["report", "latest", "-o", "report"]);
    ask(here.path(), &["export", "latest", "-o", "dataset"]);
    let trials = ask(here.path(), &["trials", "latest", "--format", "csv"]);
    assert_eq!(trials.stdout.lines().count(), 1 + 6 * 12);

    let id = ask(here.path(), &["list", "--format", "csv"]).stdout;
    let id = id.lines().nth(1).expect("a sweep")[..8].to_owned();
    for word in ["small", &id, &id[..5], "latest", "latest~0"] {
        let named = ask(here.path(), &["table", word]);
        assert_eq!(named.stdout, ran.stdout, "{word}");
    }
    for command in [
        &["curves", "small"][..],
        &["compare", "small", "--baseline", "wd=0"],
        &["effects", "small"],
        &["sample-size", "small", "test_acc=0.01"],
        &["status", "small"],
        &["watch", "small"],
        &["explain", "small", "0/0"],
    ] {
        ask(here.path(), command);
    }
    assert_eq!(database_bytes(&store), before, "reading changed the store");

    // Another run is the last one then; where its store is gone, the only other one is read, and this is said.
    write(here.path(), "empty.toml", &empty_sweep(2));
    let second = ask(here.path(), &["run", "empty.toml", "--store", "second"]);
    assert_eq!(ask(here.path(), &["table", "latest"]).stdout, second.stdout);
    std::fs::remove_dir_all(here.path().join("second")).expect("it can be removed");
    if std::net::TcpStream::connect("127.0.0.1:7700").is_err() {
        let first = ask(here.path(), &["table", "latest"]);
        assert_eq!(first.stdout, ran.stdout);
        assert!(
            first.stderr.contains("is gone") && first.stderr.contains("the only one"),
            "{first:?}"
        );
    }

    // Elsewhere it is named, by an option or the environment.
    let elsewhere = folder();
    let named = store.to_string_lossy().into_owned();
    let table = ask(elsewhere.path(), &["table", "latest", "--store", &named]);
    assert_eq!(table.stdout, ran.stdout);
    let table = run_with(
        &[("USER", "anna"), ("ERGODIC_STORE", &named)],
        &["table", "latest"],
    );
    assert_eq!(table.stdout, ran.stdout, "{table:?}");
}

#[test]
fn a_store_that_is_none_is_told_and_not_created() {
    let here = folder();
    let typo = here.path().join("tpyo");
    let named = typo.to_string_lossy().into_owned();
    let refusal = run(&["table", "latest", "--store", &named]);
    refused(&refusal, 2, &["there is no store", &named]);
    assert!(!typo.exists());

    let folder = here.path().to_string_lossy().into_owned();
    let refusal = run(&["list", "--store", &folder]);
    refused(&refusal, 2, &["no file ergodic.sqlite"]);
    let both = run(&[
        "list",
        "--store",
        &named,
        "--coordinator",
        "http://127.0.0.1:1",
    ]);
    assert!(
        both.code == 2 && both.stderr.contains("cannot be used with"),
        "{both:?}"
    );

    write(
        here.path(),
        "ergodic.sqlite",
        "this is no database, nor was it ever one",
    );
    let refusal = run(&["list", "--store", &folder]);
    refused(&refusal, 4, &["ergodic.sqlite", "cannot be read"]);

    let database = "postgres://anna:not-to-be-told@127.0.0.1:1/lab";
    let refusal = run(&["list", "--store", database]);
    refused(&refusal, 3, &["127.0.0.1:1"]);
    assert!(!refusal.stderr.contains("not-to-be-told"), "{refusal:?}");
}

#[test]
fn a_store_of_an_earlier_version_is_left_as_it_is() {
    let here = folder();
    let store = here.path().join("old");
    std::fs::create_dir(&store).expect("a directory");
    std::fs::copy(old("ergodic.sqlite"), store.join("ergodic.sqlite")).expect("a copy");
    let before = database_bytes(&store);

    let named = store.to_string_lossy().into_owned();
    let read = run(&["list", "--store", &named]);
    refused(&read, 4, &["schema version", "`ergodic serve`"]);
    assert_eq!(database_bytes(&store), before);
}

#[test]
fn reading_beside_a_coordinator_under_load_gives_its_rows_and_costs_it_nothing() {
    let mut cluster = Cluster::start(&["--lease-ttl", "2s"]);
    let store = cluster.path("store").to_string_lossy().into_owned();
    let ended = cluster.launch(SWEEP);
    let worker = cluster.worker(2, &[]);
    cluster.wait_for_end(&ended);
    let rows = cluster.ask(&["trials", &ended, "--format", "csv"]);
    let table = cluster.ask(&["table", &ended, "--format", "json"]);
    let reads_the_same = || {
        let read = |args: &[&str]| {
            let finished = run(&[args, &["--store", &store]].concat());
            assert_eq!(finished.code, 0, "ergodic {args:?}: {finished:?}");
            finished.stdout
        };
        assert_eq!(read(&["trials", &ended, "--format", "csv"]), rows);
        assert_eq!(read(&["table", &ended, "--format", "json"]), table);
    };

    // Workers come and die, and the coordinator does once, while others read.
    let running = cluster.launch(&empty_sweep(60_000));
    let first_epoch = epoch(&cluster);
    for round in 0..3 {
        let before = cluster.status(&running)["done"].as_u64();
        let doomed = cluster.worker(1, &[]);
        reads_the_same();
        cluster.wait_until(&running, "it goes on", |status| {
            status["done"].as_u64() > before || status["state"] == "completed"
        });
        doomed.kill();
        reads_the_same();
        if round == 1 {
            cluster.take_coordinator().kill();
            reads_the_same();
            cluster.restart_coordinator(&[]);
        }
    }
    let partial = run(&["trials", &running, "--format", "csv", "--store", &store]);
    assert_eq!(partial.code, 0, "{partial:?}");
    cluster.wait_for_end(&running);

    let all = cluster.ask(&["trials", &running, "--format", "csv"]);
    assert_eq!(all.lines().count(), 60_001);
    let all: BTreeSet<&str> = all.lines().collect();
    assert!(
        partial.stdout.lines().all(|row| all.contains(row)),
        "a row was read that is none"
    );
    assert_eq!(epoch(&cluster), first_epoch + 1, "one for the restart");
    assert_eq!(cluster.ask(&["trials", &ended, "--format", "csv"]), rows);
    drop(worker);
}

#[test]
fn a_database_is_read_beside_its_coordinator() {
    let Some(database) = database("a_database_is_read_beside_its_coordinator") else {
        return;
    };
    let files = folder();
    let mut cluster = on(&database, &files);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(SWEEP);
    cluster.wait_for_end(&id);
    let before = epoch(&cluster);

    let read = run(&["trials", &id, "--format", "csv", "--store", &database.url()]);
    assert_eq!(read.code, 0, "{read:?}");
    assert_eq!(
        read.stdout,
        cluster.ask(&["trials", &id, "--format", "csv"])
    );
    assert!(
        read.stderr.contains("reading the store postgres")
            && !read.stderr.contains("not-to-be-told"),
        "{read:?}"
    );
    assert_eq!(epoch(&cluster), before);
}

#[test]
fn names_are_ids_and_a_change_of_one_of_several_is_confirmed() {
    let cluster = Cluster::start(&[]);
    let sweeps = [
        cluster.launch(&empty_sweep(2)),
        cluster.launch(&empty_sweep(3)),
        cluster.launch(&empty_sweep(4).replacen("empty", "other", 1)),
    ];
    for (word, id) in [
        ("empty", &sweeps[1]),
        ("other", &sweeps[2]),
        ("latest~1", &sweeps[1]),
        ("latest~2", &sweeps[0]),
    ] {
        assert_eq!(cluster.status(word)["id"], id.as_str(), "{word}");
    }
    let named = cluster.run(&["status", "empty"]);
    assert!(
        named.stderr.contains("last of 2 sweeps with this name"),
        "{named:?}"
    );
    for word in ["nothing", "latest~3"] {
        let refusal = cluster.run(&["status", word]);
        refused(&refusal, 5, &[word, &sweeps[2]]);
    }
    refused(&cluster.run(&["status", "latest~x"]), 2, &["latest~1"]);

    let refusal = cluster.run(&["cancel", "empty"]);
    refused(
        &refusal,
        2,
        &[&sweeps[1], "last of 2 sweeps with this name", "--yes"],
    );
    cluster.ask(&["cancel", "other"]);
    cluster.ask(&["cancel", "empty", "--yes"]);
    let state = |id: &str| cluster.status(id)["state"].clone();
    assert_eq!(state(&sweeps[0]), "running");
    assert_eq!(state(&sweeps[1]), "cancelled");
    assert_eq!(state(&sweeps[2]), "cancelled");

    let list = cluster.ask(&["list"]);
    assert!(
        list.lines().all(|line| line.chars().count() <= WIDTH),
        "{list}"
    );
}
