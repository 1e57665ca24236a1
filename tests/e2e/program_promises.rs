//! What is promised of trials that are programs: run again they give the same, repeats and seeds are those of built-in trials, and
//! they run only where somebody said so.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use ergodic_tests::{Cluster, program, run_in, skip};

use crate::auth::{guarded, token, token_file};
use crate::program_trials::{PLAIN_COMMAND, cluster, column, launch_script};
use crate::refusals::refused;

/// A loss that the seed decides, and a time that differs from run to run.
const TIMED: &str = "printf '{\"step\": 1, \"loss\": %s, \"seconds\": %s}\\n' \"$1\" \"$(date +%s%N)\" > \"$ERGODIC_METRICS\"";
const TIMED_COMMAND: &str = "command = [\"sh\", \"trial.sh\", \"{seed.init}\"]\nmetrics = { loss = \"min\", seconds = \"volatile\" }";

#[test]
fn a_program_is_run_again_once_it_is_allowed_and_compared() {
    let mut cluster = cluster();
    let _worker = cluster.worker(2, &["--programs"]);
    let program = format!("{TIMED_COMMAND}\ndeterministic = true");
    let id = launch_script(&cluster, TIMED, &program, "repeats = 2");
    cluster.wait_for_end(&id);

    let forbidden = cluster.run(&["replay", &id, "0/1"]);
    refused(&forbidden, 4, &["trial 0/1", "as you", "add --programs"]);
    let replayed = cluster.ask(&["replay", &id, "0/1", "--programs"]);
    assert!(replayed.contains("the same bits here"), "{replayed}");

    // The time that the program reports stands beside the one that the worker measured.
    let measured = column(&cluster, &id, "seconds");
    let reported = column(&cluster, &id, "metric.seconds");
    assert!(
        measured
            .iter()
            .all(|x| x.parse::<f64>().is_ok_and(|x| x < 1e6))
    );
    assert!(
        reported
            .iter()
            .all(|x| x.parse::<f64>().is_ok_and(|x| x > 1e15))
    );
    let chosen = [
        "trials",
        &id,
        "--where",
        "metric.seconds > 1e15 && seconds < 1e6",
        "--format",
        "csv",
    ];
    assert_eq!(cluster.ask(&chosen).lines().count(), 3);
}

#[test]
fn a_program_that_gives_something_else_is_found_by_running_it_again() {
    let mut cluster = cluster();
    let _worker = cluster.worker(1, &["--programs"]);
    let script = "printf '{\"step\": 1, \"loss\": %s}\\n' \"$(date +%s%N)\" > \"$ERGODIC_METRICS\"";
    for (deterministic, code, words) in [(true, 1, "computes wrongly"), (false, 0, "as runs may")] {
        let program = format!("{PLAIN_COMMAND}\ndeterministic = {deterministic}");
        let id = launch_script(&cluster, script, &program, "");
        cluster.wait_for_end(&id);
        let replayed = cluster.run(&["replay", &id, "0/0", "--programs"]);
        let said = format!("{}{}", replayed.stdout, replayed.stderr);
        assert_eq!(replayed.code, code, "{said}");
        assert!(
            said.contains("the digest: ") && said.contains(words),
            "{said}"
        );
    }

    // What fails here says how.
    let marker = cluster.path("ran");
    let script = "echo '{\"step\": 1, \"loss\": 1}' > \"$ERGODIC_METRICS\"
        if test -e \"$MARKER\"; then echo 'no such layer'; exit 3; fi; touch \"$MARKER\"";
    let program = format!("{PLAIN_COMMAND}\nenv = {{ MARKER = {marker:?} }}");
    let id = launch_script(&cluster, script, &program, "");
    cluster.wait_for_end(&id);
    let failed = cluster.run(&["replay", &id, "0/0", "--programs"]);
    refused(
        &failed,
        4,
        &["cannot be run here", "exit status 3", "no such layer"],
    );
}

#[test]
fn crossed_seeds_of_a_program_meet_each_other_once() {
    let mut cluster = cluster();
    let _worker = cluster.worker(2, &["--programs"]);
    let program = "command = [\"sh\", \"trial.sh\", \"{seed.init}\", \"{seed.order}\", \"{seed.augment}\"]\n\
        metrics = { init = \"max\", order = \"max\", augment = \"max\" }\n[grid]\nlr = [0.1, 0.2]";
    let script = "printf '{\"step\": 1, \"init\": %s, \"order\": %s, \"augment\": %s}\\n' \"$1\" \"$2\" \"$3\" > \"$ERGODIC_METRICS\"";
    let rest = "repeats = 6\nseeds = { crossed = { init = 2, order = 3 }, fixed = [\"augment\"] }";
    let id = launch_script(&cluster, script, program, rest);
    cluster.wait_for_end(&id);

    let [init, order, augment] =
        ["init", "order", "augment"].map(|name| column(&cluster, &id, name));
    let distinct = |values: &[String]| values.iter().collect::<BTreeSet<_>>().len();
    assert_eq!(
        [distinct(&init), distinct(&order), distinct(&augment)],
        [2, 3, 1]
    );
    let pairs: Vec<_> = init.iter().zip(&order).collect();
    let of_first_cell: BTreeSet<_> = pairs[..6].iter().collect();
    assert_eq!(of_first_cell.len(), 6);
    assert_eq!(pairs[..6], pairs[6..], "both cells have the same seeds");
}

#[test]
fn results_of_a_program_decide_how_many_repeats_there_are() {
    let mut cluster = cluster();
    let _worker = cluster.worker(3, &["--programs"]);
    let script = "printf '{\"step\": 1, \"acc\": %s}\\n' \"$(echo \"$1 $2\" | awk '{ printf \"%.3f\", $1 + ($2 % 2) * $1 / 10 }')\" > \"$ERGODIC_METRICS\"";
    let program = "command = [\"sh\", \"trial.sh\", \"{x}\", \"{repeat}\"]\nmetrics = { acc = \"max\" }\n\
        [grid]\nx = [1, 2, 3, 4]";

    // The noise of a cell is a tenth of its value: ci95 = 0.03 is known of 1 after 40 repeats, and of 4 not before 160.
    let until = "repeats = { max = 80, until = { metric = \"acc\", ci95 = 0.03 } }";
    let id = launch_script(&cluster, script, program, until);
    cluster.wait_for_end(&id);
    let counts = |cluster: &Cluster, id: &str| {
        let xs = column(cluster, id, "x");
        ["1", "2", "3", "4"].map(|x| xs.iter().filter(|other| *other == x).count())
    };
    let [least, .., most] = counts(&cluster, &id);
    assert_eq!((least, most), (40, 80));

    let halving = "repeats = { min = 2, max = 8, halving = { metric = \"acc\", factor = 2 } }";
    let id = launch_script(&cluster, script, program, halving);
    cluster.wait_for_end(&id);
    assert_eq!(counts(&cluster, &id), [2, 2, 4, 8], "the largest go on");
}

#[test]
fn only_tokens_with_the_right_launch_programs_and_only_willing_workers_run_them() {
    let mut cluster = guarded(&["--programs", "--lease-ttl", "2s"]);
    let admin = cluster.access.clone();
    let plain = token_file(&token(&cluster, "user", &[]));
    let allowed = token_file(&token(&cluster, "user", &["--programs"]));
    let for_worker = token(&cluster, "worker", &[]);

    let script = "echo '{\"step\": 1, \"loss\": 5}' > \"$ERGODIC_METRICS\"";
    std::fs::write(cluster.path("trial.sh"), script).expect("a file can be written");
    let file = cluster.path("sweep.toml");
    let text = format!("name = \"shell\"\n[program]\nfiles = [\"trial.sh\"]\n{PLAIN_COMMAND}\n");
    std::fs::write(&file, text).expect("a file can be written");
    let file = file.to_string_lossy().into_owned();
    for without in [&admin, &plain] {
        cluster.access = without.clone();
        refused(&cluster.run(&["launch", &file]), 4, &["--programs"]);
    }
    assert_eq!(cluster.ask(&["list", "--format", "csv"]).lines().count(), 1);

    cluster.access = allowed;
    let id = cluster.ask(&["launch", &file]);
    let id = id.trim();
    let worker_token = for_worker.to_string_lossy().into_owned();
    let access = ["--token-file", &worker_token];
    let unwilling = cluster.worker(1, &access);
    cluster.wait_for_workers(1);
    let explained = cluster.ask(&["explain", id]);
    assert!(explained.contains("--programs"), "{explained}");
    unwilling.kill();
    let _willing = cluster.worker(1, &[&access[..], &["--programs"]].concat());
    cluster.wait_for_end(id);

    // Whoever may not launch it may not have it run again either.
    cluster.access = plain;
    for steer in [&["extend", id, "--repeats", "2"][..], &["retry", id]] {
        refused(&cluster.run(steer), 4, &["--programs"]);
    }
    assert_eq!(cluster.status(id)["done"], 1);
}

/// Runs `ergodic run` at a terminal where somebody types a line; its exit code and what is shown. `None` if no terminal can be had.
fn run_at_terminal(folder: &std::path::Path, typed: &str) -> Option<(i32, String)> {
    let line = format!(
        "exec {} run sweep.toml --store store",
        program("ergodic").display()
    );
    let mut script = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .current_dir(folder)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("TERM", "dumb")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    // The terminal keeps the line until the question is asked.
    let mut stdin = script.stdin.take().expect("it is a pipe");
    stdin
        .write_all(typed.as_bytes())
        .expect("the terminal is there");
    let output = script.wait_with_output().expect("it ends");
    drop(stdin);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some((output.status.code().unwrap_or(256), text))
}

#[test]
fn a_program_is_asked_about_once_and_a_no_runs_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "name = \"shell\"\n[program]\ncommand = [\"sh\", \"-c\", \"touch $SEEN; echo '{{\\\"step\\\": 1, \\\"loss\\\": 5}}' > $ERGODIC_METRICS\"]\n\
                metrics = { loss = \"min\" }\n";
    let seen = folder.path().join("seen");
    let text = format!("{text}env = {{ SEEN = {seen:?} }}\n");
    std::fs::write(folder.path().join("sweep.toml"), &text).expect("a file can be written");

    let Some((code, said)) = run_at_terminal(folder.path(), "n\n") else {
        return skip(
            "a_program_is_asked_about_once_and_a_no_runs_nothing",
            "script",
            "it is not installed",
        );
    };
    assert_eq!(code, 4, "{said}");
    assert!(
        said.contains("shell runs a program on this machine, as you") && said.contains("touch"),
        "{said}"
    );
    assert!(said.contains("was not let run") && !seen.exists(), "{said}");

    let (code, said) = run_at_terminal(folder.path(), "y\n").expect("there was a terminal");
    assert!(
        code == 0 && said.contains("[y/N]") && seen.exists(),
        "{code} {said}"
    );
    let (code, said) = run_at_terminal(folder.path(), "").expect("there was a terminal");
    assert!(
        code == 0 && !said.contains("[y/N]"),
        "it was answered before: {said}"
    );

    // Another command is another program.
    std::fs::write(
        folder.path().join("sweep.toml"),
        text.replace(": 5}", ": 6}"),
    )
    .expect("a file");
    let (code, said) = run_at_terminal(folder.path(), "\n").expect("there was a terminal");
    assert!(code == 4 && said.contains("[y/N]"), "{code} {said}");

    let environment = [(
        "XDG_CACHE_HOME",
        &*folder.path().join("cache").to_string_lossy().into_owned(),
    )];
    let unseen = run_in(
        folder.path(),
        &environment,
        &["run", "sweep.toml", "--store", "store"],
    );
    refused(&unseen, 4, &["no terminal to ask at", "add --programs"]);
}
