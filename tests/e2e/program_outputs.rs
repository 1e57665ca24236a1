//! What programs print: kept by attempt, shown by `ergodic log`, also while they run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use ergodic_proto::output::pack_output;
use ergodic_proto::v1::session_request::Message as Request;
use ergodic_proto::{PROTOCOL_VERSION, v1};
use ergodic_tests::{Cluster, Program, RawWorker, program, run, skip, stdout, wait_for};
use serde_json::Value;

use crate::program_trials::{PLAIN_COMMAND, cluster, launch_script};
use crate::{block_on, empty_sweep};

/// Bytes that are kept of an attempt.
const KEPT: usize = 64 << 10;
/// What completes a trial.
const METRIC: &str = "echo '{\"step\": 1, \"loss\": 5}' > \"$ERGODIC_METRICS\"";

fn log_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("ergodic"));
    command.arg("log").args(arguments).stdin(Stdio::null());
    command
}

/// `ergodic log` to whichever end. What programs print is bytes, and not always text.
fn log(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command = log_command(arguments);
    let command = command.args(["--coordinator", &cluster.url]);
    command.output().expect("ergodic starts")
}

/// What `ergodic log` shows.
fn shown(cluster: &Cluster, arguments: &[&str]) -> Vec<u8> {
    let output = log(cluster, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    output.stdout
}

fn shown_text(cluster: &Cluster, arguments: &[&str]) -> String {
    String::from_utf8(shown(cluster, arguments)).expect("text")
}

fn check_refusal(cluster: &Cluster, arguments: &[&str], code: i32, words: &str) {
    let output = log(cluster, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.contains(words), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

/// `ergodic log --follow`, which writes to a file.
struct Follower {
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

impl Follower {
    fn start(cluster: &Cluster, id: &str) -> Self {
        let (output, errors) = (cluster.path("followed"), cluster.path("errors"));
        let file = |path: &Path| File::create(path).expect("a file can be made");
        let child = log_command(&[id, "0/0", "--follow"])
            .args(["--coordinator", &cluster.url])
            .stdout(file(&output))
            .stderr(file(&errors))
            .spawn();
        Self {
            child: child.expect("ergodic starts"),
            output,
            errors,
        }
    }

    fn wait_for(&self, text: &str) {
        Program::wait_for_file(&self.output, text);
    }

    /// Waits for its end; gives what it showed and what it said besides.
    fn finish(mut self) -> (String, String) {
        let read = |path: &Path| std::fs::read_to_string(path).expect("text");
        let status = self.child.wait().expect("it ends");
        let errors = read(&self.errors);
        assert!(status.success(), "{errors}");
        (read(&self.output), errors)
    }
}

/// A program that waits between two lines until a file appears.
struct Waiting {
    begun: PathBuf,
    go: PathBuf,
}

impl Waiting {
    fn new(cluster: &Cluster) -> Self {
        Self {
            begun: cluster.path("begun"),
            go: cluster.path("go"),
        }
    }

    fn launch(&self, cluster: &Cluster) -> String {
        let script = format!(
            "if test -e \"$GO\"; then echo again; {METRIC}; exit; fi
            echo begun; touch \"$BEGUN\"; until test -e \"$GO\"; do sleep 0.05; done; echo end >&2; {METRIC}"
        );
        let (begun, go) = (&self.begun, &self.go);
        let program = format!("{PLAIN_COMMAND}\nenv = {{ BEGUN = {begun:?}, GO = {go:?} }}");
        launch_script(cluster, &script, &program, "")
    }

    fn wait_for_begin(&self) {
        wait_for("the program runs", || self.begun.exists());
    }

    fn let_go(&self) {
        std::fs::write(&self.go, "").expect("a file can be written");
    }
}

#[test]
fn each_end_of_a_trial_keeps_what_it_printed_in_its_order() {
    let mut cluster = cluster();
    let _worker = cluster.worker(2, &["--programs"]);
    let script = format!(
        "echo one; echo two >&2; echo \"three $1\"
        case $1 in
            done) {METRIC};;
            diverged) echo '{{\"diverged\": 4}}' > \"$ERGODIC_METRICS\"; sleep 1000;;
            wrong) echo '{{\"los\": 1}}' > \"$ERGODIC_METRICS\"; sleep 1000;;
            failed) exit 3;;
        esac"
    );
    let program = "command = [\"sh\", \"trial.sh\", \"{how}\"]\nmetrics = { loss = \"min\" }\n[grid]\n\
        how = [\"done\", \"diverged\", \"wrong\", \"failed\"]";
    let id = launch_script(&cluster, &script, program, "");
    cluster.wait_until(&id, "all have ended", |status| status["done"] == 4);

    let mut printed = Vec::new();
    for cell in 0..4 {
        let key = format!("{cell}/0");
        let text = shown_text(&cluster, &[&id, &key]);
        assert_eq!(text, shown_text(&cluster, &[&id, &key, "--attempt", "1"]));
        assert_eq!(text, shown_text(&cluster, &[&id, &key, "--follow"]));
        let explained = cluster.ask(&["explain", &id, &key]);
        let command = format!("It printed {} bytes; `ergodic log {id} {key}`", text.len());
        assert!(explained.contains(&command), "{explained}");
        // The cause of a failure may have the last lines already.
        assert_eq!(explained.matches("two\\nthree").count(), 1, "{explained}");
        printed.push(text);
    }
    printed.sort_unstable();
    let expected = ["diverged", "done", "failed", "wrong"];
    assert_eq!(
        printed,
        expected.map(|end| format!("one\ntwo\nthree {end}\n"))
    );
}

#[test]
fn a_trial_beyond_its_time_limit_keeps_its_output() {
    let mut cluster = cluster();
    let _worker = cluster.worker(1, &["--programs"]);
    let script = "echo too slow; sleep 1000";
    let id = launch_script(&cluster, script, PLAIN_COMMAND, "time_limit = \"5s\"");
    cluster.wait_until(&id, "the trial has failed", |status| status["failed"] == 1);
    assert_eq!(shown_text(&cluster, &[&id, "0/0"]), "too slow\n");
}

#[test]
fn of_several_attempts_each_has_its_own_output_also_after_a_restart_and_a_backup() {
    let mut cluster = cluster();
    let worker = cluster.worker(1, &["--programs"]);
    let fixed = cluster.path("fixed");
    let script =
        format!("if test -e \"$FIXED\"; then echo fine; {METRIC}; else echo broken; exit 1; fi");
    let program = format!("{PLAIN_COMMAND}\nenv = {{ FIXED = {fixed:?} }}");
    let id = launch_script(&cluster, &script, &program, "");
    cluster.wait_until(&id, "the trial has failed", |status| status["failed"] == 1);
    assert_eq!(shown_text(&cluster, &[&id, "0/0"]), "broken\n");
    check_refusal(
        &cluster,
        &[&id, "0/0", "--attempt", "2"],
        5,
        "--attempt can only be 1",
    );

    std::fs::write(&fixed, "").expect("a file can be written");
    cluster.ask(&["retry", &id]);
    cluster.wait_for_end(&id);
    let check = |show: &dyn Fn(&[&str]) -> Vec<u8>| {
        assert_eq!(show(&[]), b"fine\n");
        assert_eq!(show(&["--attempt", "2"]), b"fine\n");
        assert_eq!(show(&["--attempt", "1"]), b"broken\n");
    };
    check(&|rest| shown(&cluster, &[&[id.as_str(), "0/0"][..], rest].concat()));
    let explained = cluster.ask(&["explain", &id, "0/0"]);
    assert!(
        explained.contains(&format!(
            "It printed 5 bytes; `ergodic log {id} 0/0` shows them."
        )) && explained.contains("That attempt printed 7 bytes")
            && explained.contains("--attempt 1`"),
        "{explained}"
    );
    let refusal = "the trial 0/0 has had 2 attempts: --attempt is a number from 1 to 2";
    check_refusal(&cluster, &[&id, "0/0", "--attempt", "3"], 5, refusal);

    cluster.kill_and_restart_coordinator();
    check(&|rest| shown(&cluster, &[&[id.as_str(), "0/0"][..], rest].concat()));

    let backup = cluster.path("backup").to_string_lossy().into_owned();
    let store = cluster.path("restored").to_string_lossy().into_owned();
    cluster.ask(&["backup", "-o", &backup]);
    stdout(&["restore", &backup, "--store", &store]);
    check(&|rest| {
        let mut command = log_command(&[&[id.as_str(), "0/0"][..], rest].concat());
        let output = command.args(["--store", &store]).output();
        let output = output.expect("ergodic starts");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    });

    worker.kill();
    cluster.ask(&["rm", &id, "--yes"]);
    check_refusal(&cluster, &[&id, "0/0"], 5, "there is no sweep");
}

#[test]
fn exactly_the_last_bytes_of_a_long_output_are_kept_whatever_they_are() {
    let mut cluster = cluster();
    let _worker = cluster.worker(1, &["--programs"]);
    let copy = cluster.path("copy");
    let script = format!(
        "head -c 300000 /dev/urandom | tee \"$COPY\"; printf 'end\\0' | tee -a \"$COPY\" >&2; {METRIC}"
    );
    let program = format!("{PLAIN_COMMAND}\nenv = {{ COPY = {copy:?} }}");
    let id = launch_script(&cluster, &script, &program, "");
    cluster.wait_for_end(&id);

    let all = std::fs::read(&copy).expect("what was printed");
    let output = log(&cluster, &[&id, "0/0"]);
    assert_eq!(output.stdout.len(), KEPT);
    assert!(all.ends_with(&output.stdout), "other bytes");
    let said = String::from_utf8_lossy(&output.stderr);
    let missing = format!("({} bytes before this are not kept)", all.len() - KEPT);
    assert!(said.contains(&missing), "{said}");

    let explained = cluster.ask(&["explain", &id, "0/0"]);
    assert!(explained.contains("shows the last 65536."), "{explained}");
}

#[test]
fn a_terminal_gets_text_that_moves_no_cursor_and_a_pipe_the_bytes() {
    let mut cluster = cluster();
    let _worker = cluster.worker(1, &["--programs"]);
    let script = format!("printf 'a\\033[2Jb\\377\\n'; {METRIC}");
    let id = launch_script(&cluster, &script, PLAIN_COMMAND, "");
    cluster.wait_for_end(&id);
    assert_eq!(shown(&cluster, &[&id, "0/0"]), b"a\x1b[2Jb\xff\n");

    let line = format!(
        "exec {} log {id} 0/0 --coordinator {}",
        program("ergodic").display(),
        cluster.url
    );
    let mut command = Command::new("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::null());
    match command.output() {
        Ok(output) => assert_eq!(output.stdout, b"a\\u001b[2Jb\\xff\r\n"),
        Err(_) => skip(
            "a_terminal_gets_text_that_moves_no_cursor",
            "script",
            "it is missing",
        ),
    }
}

#[test]
fn a_running_program_is_shown_and_followed_to_its_end() {
    let mut cluster = cluster();
    let _worker = cluster.worker(1, &["--programs"]);
    let waiting = Waiting::new(&cluster);
    let id = waiting.launch(&cluster);
    waiting.wait_for_begin();

    // What the program has printed may still be on its way to the worker.
    wait_for("the first line is shown", || {
        shown_text(&cluster, &[&id, "0/0"]) == "begun\n"
    });
    assert_eq!(
        shown_text(&cluster, &[&id, "0/0", "--attempt", "1"]),
        "begun\n"
    );
    check_refusal(
        &cluster,
        &[&id, "0/0", "--attempt", "2"],
        5,
        "--attempt can only be 1",
    );
    wait_for("the trial is told to run", || {
        let explained = cluster.ask(&["explain", &id, "0/0"]);
        explained.contains(&format!(
            "`ergodic log {id} 0/0 --follow` shows what it prints."
        ))
    });

    let store = cluster.path("store").to_string_lossy().into_owned();
    let output = log_command(&[&id, "0/0", "--store", &store]).output();
    let output = output.expect("ergodic starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        said.contains("a store does not tell what a running program prints"),
        "{said}"
    );

    let follower = Follower::start(&cluster, &id);
    follower.wait_for("begun");
    waiting.let_go();
    assert_eq!(follower.finish(), ("begun\nend\n".into(), String::new()));
    cluster.wait_for_end(&id);
    assert_eq!(shown_text(&cluster, &[&id, "0/0"]), "begun\nend\n");
}

#[test]
fn a_killed_worker_costs_its_output_and_the_next_attempt_has_its_own() {
    let mut cluster = cluster();
    let victim = cluster.worker(1, &["--programs", "--name", "victim"]);
    let waiting = Waiting::new(&cluster);
    let id = waiting.launch(&cluster);
    waiting.wait_for_begin();
    let follower = Follower::start(&cluster, &id);
    follower.wait_for("begun");
    victim.kill();
    let (shown, said) = follower.finish();
    assert_eq!(shown, "begun\n");
    assert!(
        said.contains("victim ended this attempt at the trial 0/0 without a result"),
        "{said}"
    );

    waiting.let_go();
    let _heir = cluster.worker(1, &["--programs"]);
    cluster.wait_for_end(&id);
    assert_eq!(shown_text(&cluster, &[&id, "0/0"]), "again\n");
    check_refusal(
        &cluster,
        &[&id, "0/0", "--attempt", "2"],
        5,
        "--attempt can only be 1",
    );
}

#[test]
fn output_in_a_spool_outlives_its_worker() {
    let mut cluster = Cluster::start(&["--programs", "--lease-ttl", "60s"]);
    let spool = cluster.path("spool").to_string_lossy().into_owned();
    let options = ["--programs", "--spool", &spool];
    let victim = cluster.worker(1, &options);
    let waiting = Waiting::new(&cluster);
    let id = waiting.launch(&cluster);
    waiting.wait_for_begin();
    cluster.take_coordinator().kill();
    waiting.let_go();
    victim.wait_for_log("results not delivered");
    victim.kill();

    cluster.restart_coordinator(&[]);
    let heir = cluster.worker(1, &options);
    heir.wait_for_log("results of an earlier worker delivered results=1");
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["duplicates"], &status["fenced"]),
        (&Value::from(0), &Value::from(0))
    );
    assert_eq!(shown_text(&cluster, &[&id, "0/0"]), "begun\nend\n");
}

#[test]
fn each_refusal_says_why_there_is_no_output() {
    let mut cluster = cluster();
    let trained = cluster.launch(&empty_sweep(1));
    check_refusal(
        &cluster,
        &[&trained, "0/0"],
        4,
        "are built-in trainings, which print nothing",
    );

    let id = launch_script(&cluster, METRIC, PLAIN_COMMAND, "");
    check_refusal(&cluster, &[&id, "0/0"], 5, "no worker holds the trial 0/0");
    check_refusal(
        &cluster,
        &[&id, "0/0", "--follow"],
        5,
        "there is no output yet",
    );
    check_refusal(
        &cluster,
        &[&id, "0/1"],
        5,
        &format!("the sweep {id} has no trial 0/1"),
    );
    check_refusal(&cluster, &["zzzzzzzz", "0/0"], 5, "there is no sweep");
    check_refusal(&cluster, &[&id, "0/0", "--attempt", "0"], 2, "--attempt");

    let _worker = cluster.worker(1, &["--programs"]);
    cluster.wait_for_end(&id);
    let output = log(&cluster, &[&id, "0/0"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "{said}"
    );
    assert!(
        said.contains("attempt 1 at the trial 0/0 printed nothing"),
        "{said}"
    );
    let explained = cluster.ask(&["explain", &id, "0/0"]);
    assert!(!explained.contains("printed"), "{explained}");
}

#[test]
fn an_experiment_has_no_output_of_its_own() {
    let mut cluster = cluster();
    let _worker = cluster.worker_of("examples/char_transformer", 1, &[]);
    cluster.wait_for_workers(1);
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../sweeps/experiments/char-transformer.toml");
    let launched = cluster.ask(&["launch", &path.to_string_lossy()]);
    check_refusal(
        &cluster,
        &[launched.trim(), "0/0"],
        4,
        "an experiment inside the worker",
    );
}

/// Joins by hand as a worker that runs programs.
async fn join_by_hand(cluster: &Cluster, sends_output: bool) -> RawWorker {
    let hello = v1::Hello {
        protocol: PROTOCOL_VERSION,
        worker: "a".repeat(32),
        name: "by-hand".into(),
        slots: 1,
        programs: true,
        sends_output,
        ..v1::Hello::default()
    };
    let joined = RawWorker::greet(&cluster.url, hello).await;
    joined.expect("whoever speaks the protocol may join")
}

#[test]
fn a_worker_that_is_too_old_is_not_asked() {
    let cluster = Cluster::start(&["--programs"]);
    let id = launch_script(&cluster, METRIC, PLAIN_COMMAND, "");
    block_on(async {
        let mut worker = join_by_hand(&cluster, false).await;
        let grant = worker.lease().await;
        check_refusal(
            &cluster,
            &[&id, "0/0"],
            4,
            "by-hand, which runs the trial, is too old",
        );
        let result = v1::TrialResult {
            metrics: vec![5.0],
            ..RawWorker::result(&grant, 0, 5.0)
        };
        worker.deliver(&grant, vec![result]).await.expect("stored");
    });
    let output = log(&cluster, &[&id, "0/0"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("printed nothing, or ran before"),
        "{said}"
    );
}

#[test]
fn a_worker_tells_that_a_trial_has_not_begun_and_other_output_of_a_second_result_is_no_alarm() {
    let cluster = Cluster::start(&["--programs"]);
    let id = launch_script(&cluster, METRIC, PLAIN_COMMAND, "");
    block_on(async {
        let mut worker = join_by_hand(&cluster, true).await;
        let grant = worker.lease().await;
        let asked = async {
            let wanted = worker.asked_for_output().await;
            assert_eq!(wanted.fence, grant.fence);
            let key = wanted.trial.expect("a trial");
            assert_eq!((key.cell, key.repeat, wanted.known), (0, 0, 0));
            let mut part = v1::OutputPart {
                request: wanted.request,
                ..v1::OutputPart::default()
            };
            part.set_place(v1::TrialPlace::Queued);
            worker.say(Request::Output(part)).await;
        };
        let (url, trial) = (cluster.url.clone(), id.clone());
        let client = tokio::task::spawn_blocking(move || {
            run(&["log", &trial, "0/0", "--coordinator", &url])
        });
        asked.await;
        let refused = client.await.expect("it ends");
        assert_eq!(refused.code, 5, "{refused:?}");
        let words = "was granted to by-hand and has not begun";
        assert!(refused.stderr.contains(words), "{refused:?}");

        let printing = |text: &[u8]| v1::TrialResult {
            output: pack_output(text.len() as u64, text).map(Into::into),
            ..RawWorker::result(&grant, 0, 5.0)
        };
        for (text, stored) in [("first", 1), ("second", 0)] {
            let answer = worker
                .deliver(&grant, vec![printing(text.as_bytes())])
                .await;
            let answer = answer.expect("answered");
            assert_eq!((answer.stored, answer.mismatches), (stored, 0));
        }
    });
    assert_eq!(shown_text(&cluster, &[&id, "0/0"]), "first");
    assert_eq!(cluster.status(&id)["mismatches"], 0);
}
