//! Programs that cannot be started, fail at length or stop in the middle, and what the worker makes of it.

use std::path::Path;
use std::process::Command;

use ergodic_tests::{run_in, skip, wait_for};
use serde_json::Value;

use crate::program_trials::{
    PLAIN_COMMAND, cluster, column, count_processes, has_python, launch_script,
};

#[test]
fn one_wrong_command_fails_its_cell_and_no_other() {
    let mut cluster = cluster();
    let _worker = cluster.worker(2, &["--programs"]);
    let script = "sleep 1; echo '{\"step\": 1, \"loss\": 5}' > \"$ERGODIC_METRICS\"";
    let program = "command = [\"{solver}\", \"trial.sh\"]\nmetrics = { loss = \"min\" }\n\
        [grid]\nsolver = [\"sh\", \"/nowhere/at-all\"]";
    let id = launch_script(&cluster, script, program, "repeats = 3");
    let status = cluster.wait_until(&id, "all have ended", |status| status["done"] == 6);
    assert_eq!(status["failed"], 3, "{status}");
    let explained = cluster.ask(&["explain", &id, "1/0"]);
    assert!(
        explained.contains("cannot start '/nowhere/at-all': No such file"),
        "{explained}"
    );
}

/// Runs a sweep of so many trials whose command is misspelt. Returns what `ergodic run` says.
fn run_misspelt(repeats: u32) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let text = format!(
        "name = \"t\"\nrepeats = {repeats}\n[program]\ncommand = [\"pyhton3\"]\nmetrics = {{ loss = \"min\" }}\n"
    );
    std::fs::write(dir.path().join("t.toml"), text).expect("a file can be written");
    let finished = run_in(
        dir.path(),
        &[],
        &["run", "t.toml", "--programs", "--store", "store"],
    );
    assert_eq!(finished.code, 1, "{}\n{}", finished.stdout, finished.stderr);
    finished.stdout + &finished.stderr
}

#[test]
fn a_misspelt_command_ends_the_run_with_its_name() {
    let said = run_misspelt(40);
    assert!(
        said.contains("the sweep paused itself")
            && said.contains("cannot start 'pyhton3': No such file"),
        "{said}"
    );
    let said = run_misspelt(2);
    assert!(said.contains("2 failed"), "{said}");
}

#[test]
fn bench_overhead_measures_programs_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let args = [
        "bench",
        "overhead",
        "--program",
        "--trials",
        "100",
        "--format",
        "json",
    ];
    let finished = run_in(dir.path(), &[], &args);
    assert_eq!(finished.code, 0, "{}\n{}", finished.stdout, finished.stderr);
    let report: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(report["trials"], 100);
}

#[test]
fn a_long_cause_of_any_alphabet_arrives() {
    let mut cluster = cluster();
    let _worker = cluster.worker(1, &["--programs"]);
    let script = "for n in $(seq 3000); do printf '█'; done; echo ' no memory'; exit 3";
    let id = launch_script(&cluster, script, PLAIN_COMMAND, "");
    cluster.wait_until(&id, "the trial has failed", |status| status["failed"] == 1);
    let explained = cluster.ask(&["explain", &id, "0/0"]);
    assert!(
        explained.contains("exit status 3") && explained.contains("█ no memory"),
        "{explained}"
    );
}

#[test]
fn a_checkpoint_that_is_reported_while_the_worker_drains_is_used() {
    let mut cluster = cluster();
    // The last checkpoint of a trial that has just begun is not worth its way: the program waits a while.
    let saved = "mkdir -p \"$ERGODIC_CHECKPOINT/2\"; echo 0.25 > \"$ERGODIC_CHECKPOINT/2/state\"
        echo '{\"step\": 2, \"loss\": 4}' > \"$ERGODIC_METRICS\"
        echo '{\"checkpoint\": 2}' > \"$ERGODIC_METRICS\"";
    let script = format!(
        "save() {{ {saved}; exit 0; }}
        if grep -q '\"checkpoint\": null' \"$ERGODIC_TRIAL\"; then
            trap save TERM
            echo '{{\"step\": 1, \"loss\": 5}}' > \"$ERGODIC_METRICS\"
            sleep 1.5; touch \"$READY\"; while :; do sleep 0.05; done
        fi
        printf '{{\"step\": 4, \"loss\": %s}}\\n' \"$(cat \"$ERGODIC_CHECKPOINT/2/state\")\" > \"$ERGODIC_METRICS\""
    );
    let ready = cluster.path("ready");
    let program = format!("{PLAIN_COMMAND}\nenv = {{ READY = {ready:?} }}");
    let options = [
        "--programs",
        "--drain",
        "10ms",
        "--checkpoint-every",
        "10ms",
    ];
    let leaving = cluster.worker(1, &options);
    let id = launch_script(&cluster, &script, &program, "");
    wait_for("the program runs", || ready.exists());
    leaving.signal("TERM");
    assert_eq!(leaving.wait(), 0);

    let _heir = cluster.worker(1, &["--programs"]);
    let status = cluster.wait_for_end(&id);
    assert_eq!(status["failed"], 0, "{status}");
    assert_eq!(column(&cluster, &id, "loss"), ["0.25"]);
}

#[test]
fn a_leaving_worker_does_not_wait_for_what_a_sweep_requires() {
    let mut cluster = cluster();
    let worker = cluster.worker(1, &["--programs", "--drain", "10ms"]);
    let begun = cluster.path("begun");
    let program = format!(
        "{PLAIN_COMMAND}\nenv = {{ BEGUN = {begun:?} }}\nrequire = [[\"sh\", \"-c\", \"touch $BEGUN; sleep 1000\"]]"
    );
    launch_script(&cluster, "exit 1", &program, "");
    wait_for("the command runs", || begun.exists());
    worker.signal("TERM");
    assert_eq!(worker.wait(), 0);
}

/// Cells and repeats of a sweep of 2 000 trials.
const CELLS: u64 = 4;
const REPEATS: u64 = 500;

/// Workers and the coordinator are killed in turn. Each trial leaves a process in a session of its own, and reports a number
/// that no other trial reports.
#[test]
fn two_thousand_programs_outlive_their_workers_and_the_coordinator() {
    let mut cluster = cluster();
    let mut workers = vec![
        cluster.worker(2, &["--programs"]),
        cluster.worker(2, &["--programs"]),
    ];
    let program = "command = [\"sh\", \"trial.sh\", \"{cell_number}\", \"{repeat}\"]\n\
        metrics = { loss = \"min\" }\n[grid]\ncell_number = [0, 1, 2, 3]";
    let script = "setsid sleep 100074 &
        printf '{\"step\": 1, \"loss\": %s}\\n' \"$(($1 * 1000 + $2))\" > \"$ERGODIC_METRICS\"";
    let id = launch_script(&cluster, script, program, &format!("repeats = {REPEATS}"));

    for (done, kills_coordinator) in [(300, false), (700, true), (1100, false), (1500, true)] {
        let reached = |status: &Value| status["done"].as_u64() >= Some(done);
        let status = cluster.wait_until(&id, "enough trials are done", reached);
        assert_eq!(status["state"], "running", "{status}");
        if kills_coordinator {
            cluster.kill_and_restart_coordinator();
        } else {
            workers.remove(0).kill();
            workers.push(cluster.worker(2, &["--programs"]));
        }
    }

    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["done"], &status["failed"]),
        (&Value::from(CELLS * REPEATS), &Value::from(0)),
        "{status}"
    );
    let expected = (0..CELLS).flat_map(|cell| (0..REPEATS).map(move |n| cell * 1000 + n));
    let losses = column(&cluster, &id, "loss");
    let losses = losses.iter().map(|x| x.parse::<f64>().expect("a number"));
    assert!(losses.eq(expected.map(|x| x as f64)));
    wait_for("no process is left", || count_processes("100074") == 0);
}

#[test]
fn the_python_helper_refuses_values_that_it_would_hide() {
    if !has_python() {
        return skip(
            "the_python_helper_refuses_values_that_it_would_hide",
            "python3",
            "there is no python3",
        );
    }
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("../common/src/program");
    let import = |values: &[&str]| {
        let output = Command::new("python3")
            .args([
                "-B",
                "-c",
                "from ergodic_trial import trial; print(trial.lr)",
            ])
            .args(values)
            .env("PYTHONPATH", &helper)
            .env_remove("ERGODIC_TRIAL")
            .output();
        let output = output.expect("python starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), error)
    };
    assert!(import(&["lr=0.1"]).0);
    for name in [
        "checkpoint",
        "values",
        "report",
        "diverged",
        "keep_checkpoint",
    ] {
        let (is_accepted, error) = import(&["lr=0.1", &format!("{name}=1")]);
        assert!(
            !is_accepted && error.contains(name) && error.contains("rename it"),
            "{error}"
        );
    }
}
