//! A trial is run once: what the store has the result of is not run again, whoever asks for it and however.

use ergodic_tests::{Cluster, Finished, Gate, Program, RawWorker, run};
use serde_json::Value;

use crate::{SWEEP, block_on};

/// Four cells of trials that take next to no time, five of each.
const TOY: &str = r#"
name    = "toy"
repeats = 5
seed    = 3
[model]
kind  = "toy"
dim   = 4
noise = 0.5
[train]
steps = 20
[grid]
lr = [0.1, 0.4]
wd = [0.0, 0.01]
[measure]
every   = "10 steps"
metrics = ["train_loss", "weight_norm_sq"]
"#;

/// Launches a file, as a user does; what it says and the id.
fn launch(cluster: &Cluster, text: &str, options: &[&str]) -> (Finished, String) {
    let path = cluster.path("asked.toml");
    std::fs::write(&path, text).expect("a file can be written");
    let path = path.to_string_lossy().into_owned();
    let finished = cluster.run(&[&["launch", &path], options].concat());
    let id = finished.stdout.trim().to_owned();
    (finished, id)
}

/// Launches a file that is to be carried out; the id.
fn launched(cluster: &Cluster, text: &str, says: &str) -> String {
    let (finished, id) = launch(cluster, text, &[]);
    assert!(
        finished.code == 0 && finished.stderr.contains(says),
        "{finished:?}"
    );
    id
}

/// Trials that the only worker has run.
fn trained(cluster: &Cluster) -> u64 {
    let workers: Value =
        serde_json::from_str(&cluster.ask(&["workers", "--format", "json"])).expect("JSON");
    workers[0]["trials"].as_u64().expect("a number")
}

/// What rows say of trials: all but where a cell stands, and who took how long.
fn results(cluster: &Cluster, id: &str) -> Vec<String> {
    let rows: Value =
        serde_json::from_str(&cluster.ask(&["trials", id, "--format", "json"])).expect("JSON");
    let said = |row: &Value| {
        let mut row = row.as_object().expect("a row").clone();
        ["cell", "seconds", "worker", "isa"]
            .iter()
            .for_each(|key| drop(row.remove(*key)));
        serde_json::to_string(&row).expect("JSON")
    };
    let mut rows: Vec<String> = rows.as_array().expect("rows").iter().map(said).collect();
    rows.sort();

    rows
}

#[test]
fn what_the_store_has_the_results_of_is_not_run_again() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let first = launched(&cluster, TOY, "");
    cluster.wait_for_end(&first);
    assert_eq!(trained(&cluster), 20);

    // The same, however it is written.
    let commented = format!(
        "# typed again\n{}",
        TOY.replace("0.4", "4e-1")
            .replace("wd = [0.0, 0.01]", "wd = [0, 1e-2]")
    );
    for text in [TOY, &commented] {
        assert_eq!(
            launched(
                &cluster,
                text,
                &format!("{first} has the results of all these trials")
            ),
            first
        );
    }

    // Claims are no part of a sweep, which keeps those that it was launched with.
    let claimed =
        format!("{TOY}\n[[claim]]\nname = \"small\"\nof = \"at(train_loss, end)\"\nbelow = 100\n");
    let (finished, id) = launch(&cluster, &claimed, &[]);
    let told = format!("{first} keeps the quantities and claims that it was launched with");
    assert!(finished.stderr.contains(&told), "{finished:?}");
    assert_eq!(id, first);
    let (finished, _) = launch(&cluster, TOY, &[]);
    assert!(!finished.stderr.contains(&told), "{finished:?}");

    // More values, more repeats, in another order.
    let more = TOY
        .replace("[0.1, 0.4]", "[0.4, 0.2, 0.1]")
        .replace("repeats = 5", "repeats = 7");
    let second = launched(
        &cluster,
        &more,
        &format!("20 results are reused from {first}; 22 trials are to be run"),
    );
    cluster.wait_for_end(&second);

    assert_eq!(trained(&cluster), 20 + 22);
    // Fewer, and less of what was measured: nothing is to be run.
    let less = more.replace("[0.4, 0.2, 0.1]", "[0.2]").replace(
        "[\"train_loss\", \"weight_norm_sq\"]",
        "[\"weight_norm_sq\"]",
    );
    let third = launched(
        &cluster,
        &less,
        &format!("14 results are reused from {second}; 0 trials are to be run"),
    );
    assert_eq!(cluster.status(&third)["state"], "completed");

    // Another name and another priority are another sweep of the same trials.
    let named = TOY.replace("\"toy\"\nrepeats", "\"other\"\nrepeats");
    let fourth = launched(
        &cluster,
        &format!("priority = 3{}", named.replace("name", "\nname")),
        "20 results are reused",
    );

    assert_eq!(trained(&cluster), 42);

    // They are what they would be if they were run.
    for (id, text) in [(&second, &more), (&third, &less), (&fourth, &named)] {
        let anew = cluster.launch(text);
        cluster.wait_for_end(&anew);
        assert_eq!(results(&cluster, id), results(&cluster, &anew));
        cluster.ask(&["rm", &anew]);
    }

    // Copies outlive what they are copies of.
    let wanted = results(&cluster, &third);
    cluster.ask(&["rm", &first, &second]);
    assert_eq!(results(&cluster, &third), wanted);
    cluster.kill_and_restart_coordinator();
    assert_eq!(
        (results(&cluster, &third), &cluster.status(&third)["state"]),
        (wanted, &"completed".into())
    );
}

#[test]
fn what_was_not_measured_is_run_again_and_compared() {
    let mut cluster = Cluster::start(&[]);
    let worker = cluster.worker(2, &[]);
    let first = launched(&cluster, TOY, "");
    cluster.wait_for_end(&first);

    for (n, (old, new)) in [
        ("\"weight_norm_sq\"]", "\"weight_norm_sq\", \"grad_norm\"]"),
        ("every   = \"10 steps\"", "every = \"5 steps\""),
    ]
    .into_iter()
    .enumerate()
    {
        let more = TOY.replace(old, new);
        let id = launched(
            &cluster,
            &more,
            "4 cells have results that lack something that this sweep measures",
        );
        let status = cluster.wait_for_end(&id);
        assert_eq!(
            (&status["done"], &status["mismatches"]),
            (&20.into(), &0.into())
        );

        assert_eq!(trained(&cluster), 20 * (n as u64 + 2));
    }

    drop(worker);

    // By hand, with other bits.
    let made_up = "name = \"empty\"\nrepeats = 1\n[model]\nkind = \"empty\"\n[train]\nsteps = 1\n[measure]\nmetrics = [\"test_acc\"]\n";
    block_on(async {
        let mut worker = RawWorker::joined(&cluster.url, "a").await;
        let _beating = worker.keep_beating();
        let id = launched(&cluster, made_up, "");
        let grant = worker.lease().await;
        worker
            .deliver(&grant, vec![RawWorker::result(&grant, 0, 0.5)])
            .await
            .expect("it is taken");

        assert_eq!(cluster.status(&id)["done"], 1);
        let other = made_up.replace("[\"test_acc\"]", "[\"train_loss\"]");
        let id = launched(&cluster, &other, "1 cell has results that lack something");
        let grant = worker.lease().await;
        let result = ergodic_proto::v1::TrialResult {
            digest: vec![8; 32],
            ..RawWorker::result(&grant, 0, 0.5)
        };
        let report = worker
            .deliver(&grant, vec![result])
            .await
            .expect("it is taken");
        assert_eq!((report.stored, report.mismatches), (1, 1));

        assert_eq!(cluster.status(&id)["mismatches"], 1);
        cluster.kill_and_restart_coordinator();
        assert_eq!(cluster.status(&id)["mismatches"], 1);
    });
}

#[test]
fn trials_that_are_being_run_are_not_run_twice_unless_that_is_wanted() {
    let cluster = Cluster::start(&[]);
    // Nobody is there to run anything.
    let first = launched(&cluster, SWEEP, "");
    assert_eq!(
        launched(
            &cluster,
            SWEEP,
            &format!("{first} is the same sweep, and continues: 0 of 72 trials")
        ),
        first
    );

    let more = SWEEP.replace("[0.05, 0.2, 1e38]", "[0.2, 0.4]");
    let (refused, _) = launch(&cluster, &more, &[]);
    let words = [
        format!("24 of these trials are being run for the sweep {first}"),
        format!("ergodic extend {first} SPEC"),
    ];
    assert!(
        refused.code == 4 && words.iter().all(|word| refused.stderr.contains(word)),
        "{refused:?}"
    );

    let other = launch(&cluster, &more, &["--again"]).1;
    assert_eq!(cluster.status(&other)["trials"], 48);
    cluster.ask(&["cancel", &first]);
    cluster.ask(&["cancel", &other]);

    // What is not being run, anybody may run.
    assert_ne!(launched(&cluster, SWEEP, ""), first);
    // Other seeds, streams and data are other trials.
    for (old, new) in [
        ("seed    = 7", "seed = 8"),
        ("train   = 500", "train = 400"),
        ("seed    = 7", "seed = 7\nseeds = { per_cell = [\"init\"] }"),
    ] {
        launched(&cluster, &SWEEP.replace(old, new), "");
    }

    // Two at once are one.
    let text = SWEEP.replace("seed    = 7", "seed = 9");
    let ids: Vec<String> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| launch_alone(&cluster, &text)))
            .collect();
        asking
            .into_iter()
            .map(|id| id.join().expect("it ends"))
            .collect()
    });

    assert!(
        ids.iter().all(|id| *id == ids[0] && id.len() == 8),
        "{ids:?}"
    );
}

/// The same with a file of its own.
fn launch_alone(cluster: &Cluster, text: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("a file can be written");
    cluster
        .ask(&["launch", &file.path().to_string_lossy()])
        .trim()
        .to_owned()
}

#[test]
fn failed_trials_are_run_again_and_growing_sweeps_take_what_they_would_run() {
    let mut cluster = Cluster::start(&[]);
    // A trial of so many steps takes longer than ten milliseconds.
    let slow = SWEEP
        .replace("[0.05, 0.2, 1e38]", "[0.05]")
        .replace("steps      = 40", "steps = 4000")
        .replace("repeats = 12", "repeats = 2");
    let hasty = slow.replace("seed    = 7", "seed = 7\ntime_limit = \"10ms\"");

    let _worker = cluster.worker(2, &[]);
    let id = launched(&cluster, &hasty, "");
    assert_eq!(cluster.wait_for_end(&id)["failed"], 4);
    assert_eq!(
        launched(
            &cluster,
            &hasty,
            "4 trials that failed, or lost a file, are run again"
        ),
        id
    );

    assert_eq!(cluster.wait_for_end(&id)["failed"], 4);
    assert!(
        cluster
            .ask(&["explain", &id, "0/0"])
            .contains("An earlier attempt")
    );

    let patient = launched(&cluster, &slow, "");
    assert_ne!(patient, id, "another limit is another sweep");
    assert_eq!(cluster.wait_for_end(&patient)["failed"], 0);

    let id = launched(&cluster, &TOY.replace("repeats = 5", "repeats = 60"), "");
    cluster.wait_for_end(&id);
    let until = "[repeats]\nmin = 40\nmax = 160\nuntil = { metric = \"weight_norm_sq\", ci95 = 0.05 }\n[model]";
    let growing = TOY.replace("repeats = 5\n", "").replace("[model]", until);
    let anew = cluster.launch(&growing);
    cluster.wait_for_end(&anew);

    let wanted = results(&cluster, &anew);
    cluster.ask(&["rm", &anew]);
    let before = trained(&cluster);
    let id = launched(&cluster, &growing, "results are reused");
    cluster.wait_for_end(&id);
    assert_eq!(
        results(&cluster, &id),
        wanted,
        "the same trials, whatever others there were"
    );

    let beyond = wanted.iter().filter(|row| {
        row.split("\"repeat\":")
            .nth(1)
            .and_then(|rest| rest.split(',').next()?.parse().ok())
            >= Some(60_u32)
    });
    assert_eq!(trained(&cluster) - before, beyond.count() as u64);
}

#[test]
fn copies_are_audited_as_the_file_says() {
    let mut cluster = Cluster::start(&[]);
    let _workers = [cluster.worker(1, &[]), cluster.worker(1, &[])];
    // Whoever is alone audits nothing.
    cluster.wait_for_workers(2);
    let first = launched(
        &cluster,
        &TOY.replace("seed    = 3", "seed = 3\naudit = 0.5"),
        "",
    );
    let status = cluster.wait_for_end(&first);
    let due = status["audits_due"].as_u64().expect("a number");
    assert!(due > 0 && status["audits_same"] == due, "{status}");

    let all = launched(
        &cluster,
        &TOY.replace("seed    = 3", "seed = 3\naudit = 1.0"),
        "20 results are reused",
    );
    let status = cluster.wait_for_end(&all);
    assert_eq!(
        (&status["audits_due"], &status["audits_same"]),
        (&20.into(), &20.into()),
        "{status}"
    );

    let none = launched(&cluster, TOY, "20 results are reused");
    assert_eq!(cluster.status(&none)["audits_due"], Value::Null);
}

/// A store with a sweep of which nothing has been run, as an interrupted run leaves it, and its id.
fn interrupted(store: &str, text: &str) -> String {
    let cluster = Cluster::on_store(store);
    let id = launched(&cluster, text, "");
    cluster.coordinator().signal("TERM");
    id
}

#[test]
fn a_run_works_on_its_own_sweep_and_names_what_was_left() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("sweep.toml");
    let store = dir.path().join("store").to_string_lossy().into_owned();
    let path = file.to_string_lossy().into_owned();
    let wrong = interrupted(&store, &TOY.replace("[0.1, 0.4]", "[1.0, 4.0]"));
    let run_file = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).expect("a file can be written");
        let ran = run(&[&["run", &path, "--dir", &store], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stderr
    };
    let said = run_file(TOY, &[]);

    let left = format!(
        "also in this store, unfinished and paused: toy ({wrong}), 0 of 20 trials; `ergodic run {wrong} --store {store}` continues it, \
         `ergodic rm {wrong} --force --store {store}` removes it"
    );
    assert!(
        said.contains(&left) && said.contains("running toy"),
        "{said}"
    );

    // Whoever serves the folder finds it as it was, and held.
    let served = |what: &str| Cluster::on_store(&store).status(what);
    let status = served(&wrong);
    assert_eq!(
        (&status["state"], &status["done"]),
        (&"paused".into(), &0.into())
    );

    let right = served("latest")["id"].as_str().expect("an id").to_owned();

    // Typed again, with other options and another comment, it shows what is there.
    for (text, options) in [
        (TOY.to_owned(), &["--metric", "weight_norm_sq"][..]),
        (format!("# again\n{TOY}"), &["--rows", "lr", "--cols", "wd"]),
    ] {
        let said = run_file(&text, options);
        assert!(
            said.contains(&format!("{right} has the results of all these trials")),
            "{said}"
        );

        assert!(!said.contains("running toy"), "{said}");
    }

    // An unfinished one with a changed comment goes on, and makes no trials for another.
    let said = run_file(
        &format!(
            "# mended\n{}",
            TOY.replace("[0.1, 0.4]", "[1.0, 4.0]")
                .replace("repeats = 5", "repeats = 5 # few")
        ),
        &[],
    );
    assert!(
        said.contains(&format!("running toy ({wrong})")) && !said.contains("also in this store"),
        "{said}"
    );

    assert_eq!(served(&wrong)["state"], "completed");
    // By its id, and removed by it.
    let third = interrupted(&store, &TOY.replace("[0.1, 0.4]", "[3.0]"));
    let ran = run(&["run", &third[..5], "--dir", &store]);
    assert!(ran.code == 0 && ran.stdout.contains('3'), "{ran:?}");
    let fourth = interrupted(&store, &TOY.replace("[0.1, 0.4]", "[5.0]"));
    let removed = run(&["rm", &fourth, "--force", "--dir", &store]);
    assert!(
        removed.code == 0 && removed.stdout.contains(&format!("removed {fourth}")),
        "{removed:?}"
    );

    // All anew if that is said.
    let said = run_file(TOY, &["--again"]);
    assert!(
        said.contains("running toy") && !said.contains(&right),
        "{said}"
    );
}

#[test]
fn a_corrected_run_trains_nothing_of_the_one_that_was_interrupted() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let wrong = path("wrong.toml");
    let right = path("right.toml");
    let store = path("store");
    std::fs::write(&wrong, TOY.replace("[0.1, 0.4]", "[1.0, 4.0]")).expect("written");

    std::fs::write(&right, TOY).expect("written");
    let gate = Gate::at(&dir.path().join("gate"));
    gate.hold_after(2);
    let args = ["run", &wrong, "--dir", &store];
    let begun = Program::start_with(
        &[("FAILPOINTS", &gate.failpoints())],
        &args,
        &dir.path().join("log"),
    );
    let held = Cluster::of_run(&begun).wait_until_held("latest", 8);

    begun.signal("INT");
    assert_eq!(
        begun.wait(),
        130,
        "{}",
        std::fs::read_to_string(dir.path().join("log")).unwrap_or_default()
    );

    let ran = run(&["run", &right, "--dir", &store]);
    let id = held["id"].as_str().expect("an id");
    let left = format!(
        "also in this store, unfinished and paused: toy ({id}), 8 of 20 trials; `ergodic run {id} "
    );
    assert!(ran.code == 0 && ran.stderr.contains(&left), "{ran:?}");
    let served = Cluster::on_store(&store);
    assert_eq!(
        (&served.status(id)["done"], &served.status("latest")["done"]),
        (&8.into(), &20.into())
    );
}

#[test]
fn a_run_that_cannot_begin_leaves_others_as_they_were() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("sweep.toml");
    let store = dir.path().join("store").to_string_lossy().into_owned();
    let left = interrupted(&store, TOY);
    std::fs::write(&file, SWEEP.replace("\"glyphs\"", "\"mnist\"")).expect("a file can be written");
    let none = dir.path().to_string_lossy().into_owned();
    let refused = run(&[
        "run",
        &file.to_string_lossy(),
        "--dir",
        &store,
        "--data-dir",
        &none,
    ]);
    assert_eq!(refused.code, 2, "{refused:?}");

    let unknown = run(&["run", "zzzz", "--dir", &store]);
    assert!(
        unknown.code == 5 && unknown.stderr.contains("there is no sweep 'zzzz'"),
        "{unknown:?}"
    );

    assert_eq!(Cluster::on_store(&store).status(&left)["state"], "running");
}
