//! Files that programs leave and that are kept with their results: they come back as they were, whoever dies, and nothing else does.

use std::collections::BTreeMap;
use std::path::Path;

use ergodic_tests::{Cluster, run, run_in, wait_for};

use crate::program_trials::{PLAIN_COMMAND, cluster, launch_script};

const REPORT: &str = "echo '{\"step\": 1, \"loss\": 5}' > \"$ERGODIC_METRICS\"\n";

/// All files below a folder, by path.
fn read_tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if entry.file_type().expect("it is there").is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(root).expect("it is below");
            let content = std::fs::read(&path).expect("a file");
            found.insert(name.to_string_lossy().into_owned(), content);
        }
    }
    found
}

/// Fetches the files of a trial.
fn fetch(cluster: &Cluster, id: &str, trial: &str, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let target = cluster.path(folder);
    cluster.ask(&["files", id, trial, "-o", &target.to_string_lossy()]);
    read_tree(&target)
}

fn saving(patterns: &str) -> String {
    format!("save = [{patterns}]\n{PLAIN_COMMAND}")
}

#[test]
fn kept_files_come_back_byte_by_byte() {
    let mut cluster = cluster();
    let _worker = cluster.worker(2, &["--programs"]);
    let script = format!(
        "mkdir -p out/deep; seq 100000 > model.pt; printf '\\000\\377' > out/a.json; : > out/empty.json; echo no > out/deep/b.json\n\
         echo '#!/bin/sh' > out/run.json; chmod +x out/run.json; echo 1 > \"$ERGODIC_CHECKPOINT/x.pt\"; echo 2 > other.txt\n{REPORT}"
    );
    let program = saving("\"*.pt\", \"out/*.json\"");
    let id = launch_script(&cluster, &script, &program, "repeats = 2");
    let status = cluster.wait_for_end(&id);
    assert_eq!((&status["done"], &status["failed"]), (&2.into(), &0.into()));

    let model: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    let expected: BTreeMap<String, Vec<u8>> = [
        ("model.pt", model.into_bytes()),
        ("out/a.json", vec![0, 255]),
        ("out/empty.json", Vec::new()),
        ("out/run.json", b"#!/bin/sh\n".to_vec()),
    ]
    .map(|(name, content)| (name.to_owned(), content))
    .into();
    assert_eq!(fetch(&cluster, &id, "0/1", "there"), expected);
    let listed = cluster.ask(&["files", &id, "0/1", "--format", "csv"]);
    assert_eq!(
        listed,
        "file,bytes,executable\nmodel.pt,588895,false\nout/a.json,2,false\nout/empty.json,0,false\nout/run.json,10,true\n"
    );

    let again = cluster.path("there").to_string_lossy().into_owned();
    let refused = cluster.run(&["files", &id, "0/1", "-o", &again]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("exists already"), "{refused:?}");
    let weights = cluster.run(&["weights", &id, "0/1", "-o", &again]);
    assert!(weights.stderr.contains("ergodic files"), "{weights:?}");

    // Whoever keeps no files is another program, whose results are its own.
    let plain = launch_script(&cluster, &script, PLAIN_COMMAND, "repeats = 2");
    cluster.wait_for_end(&plain);
    assert_ne!(plain, id);
    let none = cluster.run(&["files", &plain, "0/0"]);
    assert!(
        none.code == 5 && none.stderr.contains("set save ="),
        "{none:?}"
    );

    // The results of a sweep with more repeats are the same as far as they go, with their files.
    let more = launch_script(&cluster, &script, &program, "repeats = 3");
    cluster.wait_for_end(&more);
    assert_eq!(fetch(&cluster, &more, "0/1", "reused"), expected);
}

#[test]
fn what_is_no_file_or_not_there_fails_the_attempt_with_its_name() {
    let mut cluster = cluster();
    let _worker = cluster.worker(2, &["--programs"]);
    for (left, patterns, words) in [
        (
            "ln -s /etc/passwd a.pt",
            "\"*.pt\"",
            "\"a.pt\": it is a link, which is not kept",
        ),
        (
            "ln -s /etc out",
            "\"out/*\"",
            "\"out\" is a link, and links are not followed",
        ),
        (
            "mkfifo a.pt",
            "\"*.pt\"",
            "\"a.pt\": it is neither a file nor a folder",
        ),
        (
            "truncate -s 2G a.pt",
            "\"*.pt\"",
            "more than 1006632960 bytes",
        ),
        ("true", "\"*.pt\"", "no file matches \"*.pt\""),
        ("true", "\"*.sh\"", "matches files of the sweep alone"),
        (
            "mkdir a.pt; cd ..; mv work elsewhere; ln -s /etc work",
            "\"**/passwd\"",
            "no file matches",
        ),
    ] {
        let script = format!("{left}\n{REPORT}");
        let id = launch_script(&cluster, &script, &saving(patterns), "");
        cluster.wait_until(&id, "the trial has failed", |status| status["failed"] == 1);
        let explained = cluster.ask(&["explain", &id, "0/0"]);
        assert!(
            explained.contains("files of save cannot be kept"),
            "{left}: {explained}"
        );
        assert!(explained.contains(words), "{left}: {explained}");
        let none = cluster.run(&["files", &id, "0/0"]);
        assert!(
            none.code == 5 && none.stderr.contains("it failed"),
            "{none:?}"
        );
    }
}

#[test]
fn a_trial_that_diverges_keeps_what_it_has_written() {
    let mut cluster = cluster();
    let _worker = cluster.worker(1, &["--programs"]);
    let script = "test $1 = 0.1 && echo part > a.pt\n\
                  echo '{\"diverged\": 3}' > \"$ERGODIC_METRICS\"; sleep 1000";
    let program = "save = [\"*.pt\"]\ncommand = [\"sh\", \"trial.sh\", \"{lr}\"]\nmetrics = { loss = \"min\" }\n[grid]\nlr = [0.1, 0.2]";
    let id = launch_script(&cluster, script, program, "");
    let status = cluster.wait_for_end(&id);
    assert_eq!(status["diverged"], 2, "{status}");
    let kept = fetch(&cluster, &id, "0/0", "there");
    assert_eq!(kept["a.pt"], b"part\n");
    let none = cluster.run(&["files", &id, "1/0"]);
    assert!(
        none.code == 5 && none.stderr.contains("it diverged"),
        "{none:?}"
    );
}

#[test]
fn a_worker_that_dies_between_upload_and_result_costs_its_attempt_alone() {
    let mut cluster = cluster();
    cluster.take_coordinator().kill();
    cluster.restart_coordinator(&[("FAILPOINTS", "before-commit=return")]);
    let first = cluster.worker(1, &["--programs"]);
    let runs = cluster.path("runs");
    let script = format!(
        "head -c 100000 /dev/urandom > a.pt; cp a.pt \"$(mktemp \"$RUNS/XXXXXX\")\"\n{REPORT}"
    );
    std::fs::create_dir(&runs).expect("a folder");
    let program = format!("env = {{ RUNS = {runs:?} }}\n{}", saving("\"*.pt\""));
    let id = launch_script(&cluster, &script, &program, "");

    // The archive is there, and its result is not.
    cluster.take_coordinator().wait_for_death();
    first.kill();
    let before = read_tree(&runs);
    assert_eq!(before.len(), 1);
    cluster.restart_coordinator(&[]);
    assert_eq!(cluster.status(&id)["done"], 0);

    let _second = cluster.worker(1, &["--programs"]);
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["done"], &status["duplicates"]),
        (&1.into(), &0.into())
    );
    let kept = fetch(&cluster, &id, "0/0", "there");
    let runs: Vec<Vec<u8>> = read_tree(&runs).into_values().collect();
    let first = before.into_values().next().expect("the first run");
    assert_eq!(runs.len(), 2, "the trial ran again");
    assert!(runs.contains(&kept["a.pt"]) && kept["a.pt"] != first);
}

#[test]
fn a_spool_has_the_files_of_its_results() {
    let mut cluster = Cluster::start(&["--programs", "--lease-ttl", "60s"]);
    let spool = cluster.path("spool").to_string_lossy().into_owned();
    let options = ["--programs", "--spool", &spool];
    let victim = cluster.worker(1, &options);
    let begun = cluster.path("begun");
    let goes_on = cluster.path("on");
    let script = format!(
        "echo x > \"$BEGUN\"; while ! test -e \"$ON\"; do sleep 0.05; done; seq 5 > a.pt\n{REPORT}"
    );
    let program = format!(
        "env = {{ BEGUN = {begun:?}, ON = {goes_on:?} }}\n{}",
        saving("\"*.pt\"")
    );
    let id = launch_script(&cluster, &script, &program, "");
    wait_for("the trial runs", || begun.exists());
    cluster.take_coordinator().kill();
    std::fs::write(&goes_on, "").expect("a file can be written");
    victim.wait_for_log("results not delivered");
    victim.kill();
    std::fs::remove_file(&begun).expect("it was written");

    cluster.restart_coordinator(&[]);
    let _heir = cluster.worker(1, &options);
    cluster.wait_for_end(&id);
    assert_eq!(
        fetch(&cluster, &id, "0/0", "there")["a.pt"],
        b"1\n2\n3\n4\n5\n"
    );
    assert!(!begun.exists(), "the trial ran again");
}

#[test]
fn an_audit_of_a_deterministic_program_compares_its_files() {
    let mut cluster = cluster();
    let _workers = [
        cluster.worker(1, &["--programs"]),
        cluster.worker(1, &["--programs"]),
    ];
    cluster.wait_for_workers(2);
    for (content, differing) in [("echo same", 0), ("head -c 20 /dev/urandom", 4)] {
        let script = format!("{content} > a.pt\n{REPORT}");
        let program = format!("deterministic = true\n{}", saving("\"*.pt\""))
            .replace("\"trial.sh\"]", "\"trial.sh\", \"{seed.init}\"]");
        let rest = "repeats = 4\naudit = 1.0";
        let id = launch_script(&cluster, &script, &program, rest);
        let status = cluster.wait_until(&id, "all audits have ended", |status| {
            status["audits_left"] == 0 && status["done"] == 4
        });
        assert_eq!(status["audits_due"], 4, "{content}: {status}");
        assert_eq!(status["audits_different"], differing, "{content}: {status}");
        let stored = fetch(
            &cluster,
            &id,
            "0/3",
            content.split(' ').next().expect("a word"),
        );
        assert_eq!(stored.len(), 1);
    }
}

#[test]
fn files_are_removed_with_their_sweep_and_travel_in_backups() {
    let mut cluster = cluster();
    let _worker = cluster.worker(1, &["--programs"]);
    let script = format!("echo kept > a.pt\n{REPORT}");
    let id = launch_script(&cluster, &script, &saving("\"*.pt\""), "");
    cluster.wait_for_end(&id);
    let backup = cluster.path("backup").to_string_lossy().into_owned();
    cluster.ask(&["backup", "-o", &backup]);
    let there = cluster.path("restored").to_string_lossy().into_owned();
    let restored = run(&["restore", &backup, "--store", &there]);
    assert_eq!(restored.code, 0, "{restored:?}");
    let copy = cluster.path("copy");
    let copy_text = copy.to_string_lossy().into_owned();
    let fetched = run_in(
        &cluster.path(""),
        &[],
        &["files", &id, "0/0", "-o", &copy_text, "--store", &there],
    );
    assert_eq!(fetched.code, 0, "{fetched:?}");
    assert_eq!(read_tree(&copy)["a.pt"], b"kept\n");

    // The archive, and the bundle of the script.
    let count = || read_tree(&cluster.path("store/data")).len();
    assert_eq!(count(), 2);
    let said = cluster.ask(&["rm", &id, "--yes"]);
    assert!(
        said.contains("1 rows, 2 files") || said.contains("1 row, 2 files"),
        "{said}"
    );
    assert_eq!(count(), 0);
}
