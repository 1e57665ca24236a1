//! Sweeps that are stored keep their meaning, whatever a later program makes of their files.

use std::path::{Path, PathBuf};

use ergodic::records::SweepRow;
use ergodic::store::sqlite::SqliteStore;
use ergodic::store::{ExtendSweep, ReadableStore as _, SetCellsDigest, Store as _, StoreWrite};
use ergodic_common::ids::CellsFingerprint;
use ergodic_tests::{Cluster, run, stdout};

/// Of a store that a program made which knew version 1 of the grammar alone, `first.toml` says of what.
pub(crate) fn old(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("old-store")
        .join(name)
}

/// A cluster on a store that another program left behind.
fn on_old_store() -> Cluster {
    let mut cluster = Cluster::start(&[]);
    stop(&mut cluster);
    let store = cluster.path("store");
    std::fs::remove_dir_all(&store).expect("the store can be removed");
    std::fs::create_dir(&store).expect("a directory can be made");
    std::fs::copy(old("ergodic.sqlite"), store.join("ergodic.sqlite"))
        .expect("the store can be copied");

    cluster.restart_coordinator(&[]);
    cluster
}

fn stop(cluster: &mut Cluster) {
    let coordinator = cluster.take_coordinator();
    coordinator.signal("TERM");
    assert_eq!(coordinator.wait(), 0);
}

/// Changes a sweep in the store while no coordinator has it.
fn tamper<W: StoreWrite>(cluster: &Cluster, id: &str, write: impl Fn(SweepRow) -> W) {
    let store = SqliteStore::open(&cluster.path("store")).expect("the store opens");
    let epoch = store.acquire_leadership("").expect("it can be led").epoch;
    let sweeps = store
        .open_reader()
        .and_then(|reader| reader.read_sweeps())
        .expect("it can be read");
    let write = write(
        sweeps
            .into_iter()
            .find(|sweep| *sweep.id == *id)
            .expect("the sweep"),
    );

    store
        .open_writer(epoch)
        .and_then(|mut writer| writer.commit(write))
        .expect("written");
}

/// What a command says, and that it ends with an error.
fn refused(cluster: &Cluster, args: &[&str]) -> String {
    let finished = cluster.run(args);
    assert_ne!(finished.code, 0, "{args:?}: {}", finished.stdout);
    finished.stderr
}

fn states(cluster: &Cluster) -> Vec<(String, String)> {
    let list: serde_json::Value =
        serde_json::from_str(&cluster.ask(&["list", "--format", "json"])).expect("a list in JSON");
    let word =
        |sweep: &serde_json::Value, key: &str| sweep[key].as_str().unwrap_or_default().to_owned();
    list.as_array()
        .expect("a list")
        .iter()
        .map(|sweep| (word(sweep, "name"), word(sweep, "state")))
        .collect()
}

fn pair(name: &str, state: &str) -> (String, String) {
    (name.to_owned(), state.to_owned())
}

/// Values of cells, n and means: other figures may be computed otherwise.
fn means(table: &str) -> Vec<Vec<String>> {
    let mut lines = table
        .lines()
        .map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let head = lines.next().expect("a head");
    let at = ["lr", "root", "n", "mean"].map(|name| {
        head.iter()
            .position(|column| column == name)
            .expect("a column")
    });

    lines
        .map(|line| at.iter().map(|at| line[*at].clone()).collect())
        .collect()
}

#[test]
fn sweeps_that_an_earlier_program_stored_are_what_they_were() {
    let mut cluster = on_old_store();
    let check = |cluster: &Cluster| {
        assert_eq!(
            states(cluster),
            [pair("first", "completed"), pair("second", "completed")]
        );
        let rows = cluster.ask(&["trials", "gp8ibdea", "--format", "csv"]);
        assert_eq!(
            rows,
            std::fs::read_to_string(old("trials.csv")).expect("rows")
        );

        let table = cluster.ask(&[
            "table",
            "gp8ibdea",
            "--metric",
            "train_loss",
            "--format",
            "csv",
        ]);
        assert_eq!(
            means(&table),
            means(&std::fs::read_to_string(old("table.csv")).expect("a table"))
        );

        let status = cluster.status("gp8ibdea");
        assert_eq!(
            (&status["cells"], &status["trials"], &status["withheld"]),
            (&4.into(), &28.into(), &().into())
        );
    };
    check(&cluster);

    // Its cells were noted by the first start, and are compared by the second one.
    stop(&mut cluster);
    cluster.restart_coordinator(&[]);
    check(&cluster);

    // The same file is refused of a new sweep, since nothing of it may be taken for something else silently.
    let new = run(&["plan", &old("first.toml").to_string_lossy()]);
    assert!(
        new.code != 0 && new.stderr.contains("first.toml"),
        "{new:?}"
    );

    // A backup of them takes along what they mean.
    let backup = cluster.path("backup");
    let store = cluster.path("elsewhere");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    cluster.ask(&["backup", "-o", &text(&backup)]);
    stdout(&["restore", &text(&backup), "--store", &text(&store)]);

    check(&Cluster::on_store(&text(&store)));
}

/// Reading changes no store, so what this program must change before it can read it is refused until it was served once.
#[test]
fn a_store_of_an_earlier_schema_is_read_after_it_was_served() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("store");
    std::fs::create_dir(&store).expect("a directory can be made");
    let database = store.join("ergodic.sqlite");
    std::fs::copy(old("ergodic.sqlite"), &database).expect("the store can be copied");
    let place = store.to_string_lossy().into_owned();

    for command in [&["list"][..], &["table", "first"], &["trials", "first"]] {
        let read = run(&[command, &["--store", &place]].concat());
        assert_eq!(read.code, 4, "{command:?}: {}", read.stderr);
        for words in [
            place.as_str(),
            "the store has schema version 8",
            "start `ergodic serve` or `ergodic run` of this version",
        ] {
            assert!(read.stderr.contains(words), "{command:?}: {}", read.stderr);
        }
    }

    let bytes = |path: &Path| std::fs::read(path).expect("a file can be read");
    assert!(bytes(&database) == bytes(&old("ergodic.sqlite")));

    drop(Cluster::on_store(&place));
    let list = stdout(&["list", "--store", &place]);
    assert!(list.contains("first") && list.contains("second"), "{list}");
}

#[test]
fn a_sweep_whose_cells_would_be_others_is_shown_and_not_run() {
    let mut cluster = on_old_store();
    stop(&mut cluster);
    // As if a later program found other cells.
    tamper(&cluster, "gp8ibdea", |row| SetCellsDigest {
        sweep: row.number,
        cells: CellsFingerprint([9; 32]),
    });
    cluster.restart_coordinator(&[]);

    assert_eq!(
        states(&cluster),
        [pair("first", "read-only"), pair("second", "completed")]
    );
    assert!(
        cluster
            .ask(&["status", "gp8ibdea"])
            .contains("NONE OF ITS TRIALS ARE RUN")
    );

    assert!(
        cluster
            .ask(&["explain", "gp8ibdea"])
            .contains("would resolve its cells to other values")
    );

    for args in [
        &["retry", "gp8ibdea"][..],
        &["extend", "gp8ibdea", "--repeats", "20"],
        &["pause", "gp8ibdea"],
    ] {
        let why = refused(&cluster, args);
        assert!(why.contains("read-only in this program"), "{args:?}: {why}");
    }

    let dataset = cluster.path("dataset").to_string_lossy().into_owned();
    assert!(
        refused(&cluster, &["export", "gp8ibdea", "-o", &dataset])
            .contains("use the version that launched it")
    );
    let rows = cluster.ask(&["trials", "gp8ibdea", "--format", "csv"]);
    assert_eq!(
        rows,
        std::fs::read_to_string(old("trials.csv")).expect("rows")
    );

    cluster.ask(&["rm", "gp8ibdea"]);
    assert_eq!(states(&cluster), [pair("second", "completed")]);
}

/// A sweep of six trials that take next to no time.
fn toy(name: &str) -> String {
    format!(
        "name = \"{name}\"\nrepeats = 3\n[model]\nkind = \"toy\"\ndim = 4\n[train]\nsteps = 5\n[grid]\nlr = [0.1, 0.2]\n[measure]\nmetrics = [\"train_loss\"]\n"
    )
}

/// A sweep with a file that only a later program can read.
fn broken(row: SweepRow) -> ExtendSweep {
    let mut broken = row.source.clone();
    broken.text = "name = \"first\"\nfuture = 1\n".into();
    ExtendSweep {
        sweep: row.number,
        from: row.source,
        to: broken,
    }
}

#[test]
fn trials_of_cells_that_would_be_others_are_not_given_out() {
    let mut cluster = Cluster::start(&[]);
    let held = cluster.launch(&toy("held"));
    stop(&mut cluster);
    tamper(&cluster, &held, |row| SetCellsDigest {
        sweep: row.number,
        cells: CellsFingerprint([9; 32]),
    });

    cluster.restart_coordinator(&[]);
    let _worker = cluster.worker(1, &[]);
    let other = cluster.launch(&toy("other"));
    cluster.wait_for_end(&other);
    assert_eq!(cluster.status(&held)["done"], 0);
    assert_eq!(
        states(&cluster),
        [pair("held", "read-only"), pair("other", "completed")]
    );

    let worker = cluster.ask(&["explain", &held]);
    assert!(worker.contains("read-only"), "{worker}");
    cluster.ask(&["cancel", &held]);
    cluster.ask(&["rm", &held]);
}

#[test]
fn a_sweep_that_cannot_be_read_keeps_no_other_one_from_being_served() {
    let mut cluster = on_old_store();
    stop(&mut cluster);
    tamper(&cluster, "gp8ibdea", broken);
    cluster.restart_coordinator(&[]);
    assert_eq!(
        states(&cluster),
        [pair("first", "unreadable"), pair("second", "completed")]
    );

    for command in ["status", "explain"] {
        let said = cluster.ask(&[command, "gp8ibdea"]);
        assert!(
            said.contains("unknown key 'future'") && said.contains("ergodic rm gp8ibdea"),
            "{said}"
        );
    }

    assert!(
        refused(&cluster, &["table", "gp8ibdea"]).contains("this program cannot read the sweep")
    );
    assert!(cluster.ask(&["table", "97s4e6q5"]).contains("second"));
    cluster.ask(&["rm", "gp8ibdea"]);
    assert_eq!(states(&cluster), [pair("second", "completed")]);
}

#[test]
fn a_run_leaves_alone_what_cannot_be_carried_on_and_names_it() {
    let mut cluster = Cluster::start(&[]);
    let [shown, unread] = ["shown", "unread"].map(|name| cluster.launch(&toy(name)));
    stop(&mut cluster);
    tamper(&cluster, &shown, |row| SetCellsDigest {
        sweep: row.number,
        cells: CellsFingerprint([9; 32]),
    });

    tamper(&cluster, &unread, broken);
    let file = cluster.path("sweep.toml");
    let store = cluster.path("store").to_string_lossy().into_owned();
    std::fs::write(&file, toy("wanted")).expect("a file can be written");
    let said = |what: &str, code: i32| {
        let ran = run(&["run", what, "--dir", &store]);
        assert_eq!(ran.code, code, "{}", ran.stderr);
        ran.stderr
    };
    assert!(said("zzzz", 5).contains("there is no sweep 'zzzz'"));

    let stderr = said(&file.to_string_lossy(), 0);
    for left in [
        format!("also in this store: shown ({shown})"),
        format!("also in this store: first ({unread})"),
    ] {
        assert!(stderr.contains(&left), "{stderr}");
    }

    assert!(!stderr.contains("unfinished and paused"), "{stderr}");
    let served = Cluster::on_store(&store);
    assert_eq!(
        states(&served),
        [
            pair("shown", "read-only"),
            pair("first", "unreadable"),
            pair("wanted", "completed")
        ]
    );
}
