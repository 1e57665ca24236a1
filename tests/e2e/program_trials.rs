//! Trials that are programs of the user's: real scripts, and the processes that they leave.

use std::path::{Path, PathBuf};
use std::process::Command;

use ergodic_tests::{Cluster, run_in, skip, wait_for};
use serde_json::Value;

/// A cluster that runs programs.
pub(crate) fn cluster() -> Cluster {
    Cluster::start(&["--programs", "--lease-ttl", "2s"])
}

/// Launches a sweep whose trials are this shell script.
pub(crate) fn launch_script(cluster: &Cluster, script: &str, program: &str, rest: &str) -> String {
    std::fs::write(cluster.path("trial.sh"), script).expect("a file can be written");
    cluster.launch(&format!(
        "name = \"shell\"\n{rest}\n[program]\nfiles = [\"trial.sh\"]\n{program}\n"
    ))
}

const LR_COMMAND: &str = "command = [\"sh\", \"trial.sh\", \"{lr}\"]\nmetrics = { loss = \"min\" }\n[grid]\nlr = [0.1, 0.2]";
pub(crate) const PLAIN_COMMAND: &str =
    "command = [\"sh\", \"trial.sh\"]\nmetrics = { loss = \"min\" }";

/// The rows of a sweep's trials, by column.
fn rows(cluster: &Cluster, id: &str) -> Vec<Vec<(String, String)>> {
    let csv = cluster.ask(&["trials", id, "--format", "csv"]);
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let row = |line: &str| {
        let fields = line.split(',').map(str::to_owned);
        names
            .iter()
            .map(|name| (*name).to_owned())
            .zip(fields)
            .collect()
    };
    lines.map(row).collect()
}

pub(crate) fn column(cluster: &Cluster, id: &str, name: &str) -> Vec<String> {
    let value = |row: Vec<(String, String)>| {
        let mut row = row.into_iter();
        let found = row.find(|(other, _)| other == name);
        found.expect("there is such a column").1
    };
    rows(cluster, id).into_iter().map(value).collect()
}

/// Folders of attempts that programs named in a file, one a line.
fn read_folders(path: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(PathBuf::from).collect()
}

/// Processes that have this text in their arguments. Process ids that a program sees may be those of its own namespace.
pub(crate) fn count_processes(text: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("there are processes");
    let has_text = |entry: &std::fs::DirEntry| {
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(text)
    };
    entries.flatten().filter(has_text).count()
}

pub(crate) fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output();
    found.is_ok_and(|output| output.status.success())
}

#[test]
fn a_shell_script_becomes_a_table() {
    let mut cluster = cluster();
    let _worker = cluster.worker(2, &["--programs"]);
    let script = "echo '{\"step\": 1, \"loss\": 5}' >> \"$ERGODIC_METRICS\"
        printf '{\"step\": 2, \"loss\": %s}\\n' \"$1\" >> \"$ERGODIC_METRICS\"
        test -r trial.sh && pwd >> \"$HOME_OF_TEST\"";
    let folders = cluster.path("folders");
    let program = LR_COMMAND.replace(
        "\n[grid]",
        &format!("\nenv = {{ HOME_OF_TEST = {folders:?} }}\n[grid]"),
    );
    let id = launch_script(&cluster, script, &program, "repeats = 3");
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["done"], &status["failed"]),
        (&Value::from(6), &Value::from(0))
    );

    let losses: Vec<f64> = column(&cluster, &id, "loss")
        .iter()
        .map(|x| x.parse().expect("a number"))
        .collect();
    assert_eq!(losses, [0.1, 0.1, 0.1, 0.2, 0.2, 0.2]);
    let table = cluster.ask(&["table", &id]);
    assert!(table.contains("loss") && table.contains("0.2"), "{table}");

    let folders = read_folders(&folders);
    assert_eq!(folders.len(), 6);
    wait_for("the folders are removed", || {
        !folders.iter().any(|folder| folder.exists())
    });
}

#[test]
fn cells_share_the_seeds_of_a_repeat() {
    let mut cluster = cluster();
    let _worker = cluster.worker(2, &["--programs"]);
    let program = "command = [\"sh\", \"trial.sh\", \"{seed.init}\", \"{lr}\"]\nmetrics = { seed = \"max\" }\n\
        deterministic = true\n[grid]\nlr = [0.1, 0.2]";
    let script = "printf '{\"step\": 1, \"seed\": %s}\\n' \"$1\" > \"$ERGODIC_METRICS\"";
    let id = launch_script(&cluster, script, program, "repeats = 3");
    cluster.wait_for_end(&id);

    let seeds = column(&cluster, &id, "seed");
    let (first, second) = seeds.split_at(3);
    assert_eq!(first, second);
    assert!(
        first[0] != first[1] && first[1] != first[2] && first[0] != first[2],
        "{first:?}"
    );
}

#[test]
fn a_failed_program_is_explained_by_its_last_lines() {
    let mut cluster = cluster();
    let _worker = cluster.worker(1, &["--programs"]);
    let script = "seq 1000; echo 'no such layer' >&2; exit 3";
    let id = launch_script(&cluster, script, PLAIN_COMMAND, "");
    let status = cluster.wait_until(&id, "the trial has failed", |status| status["failed"] == 1);
    assert_eq!(status["done"], 1, "{status}");
    let explained = cluster.ask(&["explain", &id, "0/0"]);
    assert!(
        explained.contains("exit status 3")
            && explained.contains("no such layer")
            && explained.contains("1000"),
        "{explained}"
    );
    assert!(!explained.contains("900"), "{explained}");
}

#[test]
fn metrics_that_are_wrong_or_missing_fail_with_their_line_or_name() {
    let mut cluster = cluster();
    let _worker = cluster.worker(2, &["--programs"]);
    for (script, why) in [
        (
            "echo '{\"step\": 1, \"los\": 1}' > \"$ERGODIC_METRICS\"; sleep 1000",
            "'los' is no declared metric",
        ),
        (
            "printf '{\"step\": 1, \"lo' > \"$ERGODIC_METRICS\"",
            "it is no JSON",
        ),
        (
            "printf '{\"step\": 1, \"lo' > \"$ERGODIC_METRICS\"; kill -SEGV $$",
            "SIGSEGV",
        ),
        (
            "head -c 100000 /dev/zero > \"$ERGODIC_METRICS\"; sleep 1000",
            "more than 65536 bytes",
        ),
        ("true", "without reporting loss"),
    ] {
        let id = launch_script(&cluster, script, PLAIN_COMMAND, "");
        cluster.wait_until(&id, "the trial has failed", |status| status["failed"] == 1);
        let explained = cluster.ask(&["explain", &id, "0/0"]);
        assert!(explained.contains(why), "{script}: {explained}");
    }
}

#[test]
fn a_metric_that_is_not_a_number_is_divergence() {
    let mut cluster = cluster();
    let _worker = cluster.worker(2, &["--programs"]);
    let script = "echo '{\"step\": 1, \"loss\": 5}' > \"$ERGODIC_METRICS\"
        echo '{\"step\": 7, \"loss\": NaN}' > \"$ERGODIC_METRICS\"; sleep 1000";
    let id = launch_script(&cluster, script, PLAIN_COMMAND, "repeats = 2");
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["diverged"], &status["failed"]),
        (&Value::from(2), &Value::from(0))
    );
    assert_eq!(column(&cluster, &id, "loss"), ["", ""]);
}

/// A program that sleeps, with processes in sessions of their own.
struct Sleepers {
    /// How long they sleep, which nobody else does.
    seconds: String,
    /// Where each writes its folder.
    folders: PathBuf,
}

impl Sleepers {
    fn new(cluster: &Cluster) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanoseconds = now.expect("it is after 1970").as_nanos();
        Self {
            seconds: format!("1000.{nanoseconds}"),
            folders: cluster.path("folders"),
        }
    }

    fn script(&self) -> String {
        let seconds = &self.seconds;
        format!(
            "setsid sleep {seconds} &
            (setsid sh -c 'trap \"\" TERM; while :; do sleep {seconds}; done' &)
            pwd >> \"$FOLDERS\"; sleep {seconds}"
        )
    }

    fn program(&self) -> String {
        format!("{PLAIN_COMMAND}\nenv = {{ FOLDERS = {:?} }}", self.folders)
    }

    /// Waits until so many programs sleep.
    fn wait_for_sleep(&self, programs: usize) {
        wait_for("the programs sleep", || {
            read_folders(&self.folders).len() == programs
                && count_processes(&self.seconds) >= 3 * programs
        });
    }

    fn wait_for_end(&self) {
        wait_for("all processes end", || count_processes(&self.seconds) == 0);
        wait_for("the folders are removed", || {
            !read_folders(&self.folders)
                .iter()
                .any(|folder| folder.exists())
        });
    }
}

#[test]
fn the_time_limit_ends_all_that_a_program_started() {
    let mut cluster = cluster();
    let _worker = cluster.worker(1, &["--programs"]);
    let sleepers = Sleepers::new(&cluster);
    let id = launch_script(
        &cluster,
        &sleepers.script(),
        &sleepers.program(),
        "time_limit = \"1s\"",
    );
    cluster.wait_until(&id, "the trial has failed", |status| status["failed"] == 1);
    let explained = cluster.ask(&["explain", &id, "0/0"]);
    assert!(
        explained.contains("exceeded its time limit of 1s"),
        "{explained}"
    );

    // The failure is reported after the end of all.
    assert_eq!(read_folders(&sleepers.folders).len(), 1);
    assert_eq!(count_processes(&sleepers.seconds), 0);
}

#[test]
fn a_cancelled_sweep_leaves_no_process() {
    let mut cluster = cluster();
    let _worker = cluster.worker(1, &["--programs"]);
    let sleepers = Sleepers::new(&cluster);
    let id = launch_script(&cluster, &sleepers.script(), &sleepers.program(), "");
    sleepers.wait_for_sleep(1);
    cluster.ask(&["cancel", &id]);
    sleepers.wait_for_end();
}

#[test]
fn a_worker_that_lost_its_lease_ends_its_programs() {
    let mut cluster = cluster();
    let sleepers = Sleepers::new(&cluster);
    let stuck = cluster.worker(1, &["--programs"]);
    let quick = cluster.path("quick");
    let script = format!(
        "if ! test -e \"$QUICK\"; then {}; fi
        echo '{{\"step\": 1, \"loss\": 5}}' > \"$ERGODIC_METRICS\"",
        sleepers.script()
    );
    let program = sleepers.program();
    let program = program.replace("env = {", &format!("env = {{ QUICK = {quick:?},"));
    let id = launch_script(&cluster, &script, &program, "");
    sleepers.wait_for_sleep(1);

    // While it stands still, its lease ends, and another worker has the trial.
    stuck.freeze();
    std::fs::write(&quick, "").expect("a file can be written");
    let _heir = cluster.worker(1, &["--programs"]);
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["done"], &status["failed"]),
        (&Value::from(1), &Value::from(0))
    );
    assert!(
        count_processes(&sleepers.seconds) >= 3,
        "the supervisor does not end what may still count"
    );
    stuck.thaw();
    sleepers.wait_for_end();
}

#[test]
fn a_draining_worker_ends_its_programs() {
    let mut cluster = cluster();
    let worker = cluster.worker(1, &["--programs", "--drain", "10ms"]);
    let sleepers = Sleepers::new(&cluster);
    launch_script(&cluster, &sleepers.script(), &sleepers.program(), "");
    sleepers.wait_for_sleep(1);
    worker.signal("TERM");
    assert_eq!(worker.wait(), 0);
    sleepers.wait_for_end();
}

#[test]
fn a_killed_worker_leaves_no_process_and_the_sweep_completes_once() {
    let mut cluster = cluster();
    // The first attempts sleep, and those after a file appears are quick.
    let quick = cluster.path("quick");
    let sleepers = Sleepers::new(&cluster);
    let script = format!(
        "if ! test -e \"$QUICK\"; then {}; fi
        echo '{{\"step\": 1, \"loss\": 5}}' > \"$ERGODIC_METRICS\"",
        sleepers.script()
    );
    let program = sleepers.program();
    let program = program.replace("env = {", &format!("env = {{ QUICK = {quick:?},"));
    let victim = cluster.worker(3, &["--programs"]);
    let id = launch_script(&cluster, &script, &program, "repeats = 20");
    sleepers.wait_for_sleep(3);
    std::fs::write(&quick, "").expect("a file can be written");
    victim.kill();
    sleepers.wait_for_end();

    let _heir = cluster.worker(2, &["--programs"]);
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["done"], &status["failed"], &status["mismatches"]),
        (&Value::from(20), &Value::from(0), &Value::from(0)),
        "{status}"
    );
    assert_eq!(rows(&cluster, &id).len(), 20);
}

#[test]
fn a_worker_without_the_right_is_offered_no_program() {
    let mut cluster = cluster();
    let idle = cluster.worker(1, &[]);
    cluster.wait_for_workers(1);
    let script = "echo '{\"step\": 1, \"loss\": 5}' > \"$ERGODIC_METRICS\"";
    let id = launch_script(&cluster, script, PLAIN_COMMAND, "");
    let explained = cluster.ask(&["explain", &id]);
    assert!(explained.contains("--programs"), "{explained}");
    assert!(
        !idle.log().contains("cannot run this sweep"),
        "{}",
        idle.log()
    );

    let _worker = cluster.worker(1, &["--programs"]);
    cluster.wait_for_end(&id);
}

#[test]
fn a_program_finds_no_variable_of_the_worker() {
    let mut cluster = cluster();
    let _worker = cluster.worker(1, &["--programs"]);
    // The worker has FAILPOINTS and ERGODIC_LOG, and a token would be named by ERGODIC_TOKEN_FILE.
    let script = "env | cut -d= -f1 | sort | grep -v -x -e PATH -e HOME -e LANG -e TMPDIR -e PWD -e OLDPWD -e SHLVL -e _ >&2
        exit 1";
    let id = launch_script(&cluster, script, PLAIN_COMMAND, "");
    cluster.wait_until(&id, "the trial has failed", |status| status["failed"] == 1);
    let explained = cluster.ask(&["explain", &id, "0/0"]);
    for name in ["ERGODIC_CHECKPOINT", "ERGODIC_METRICS", "ERGODIC_TRIAL"] {
        assert!(explained.contains(name), "{explained}");
    }
    for name in ["FAILPOINTS", "ERGODIC_LOG", "TOKEN", "CARGO"] {
        assert!(!explained.contains(name), "{explained}");
    }
}

#[test]
fn a_requirement_that_fails_keeps_the_sweep_from_a_worker() {
    let mut cluster = cluster();
    let worker = cluster.worker(1, &["--programs"]);
    let program =
        format!("{PLAIN_COMMAND}\nrequire = [[\"sh\", \"-c\", \"echo no torch here; exit 1\"]]");
    let id = launch_script(&cluster, "exit 1", &program, "");
    worker.wait_for_log("no torch here");
    cluster.wait_until(&id, "the lease is given back", |status| {
        status["leased"] == 0
    });
    let explained = cluster.ask(&["explain", &id]);
    assert!(
        explained.contains("program.require") && explained.contains("no torch here"),
        "{explained}"
    );
    assert_eq!(cluster.status(&id)["failed"], 0);
}

#[test]
fn whoever_continues_gets_the_last_checkpoint() {
    let mut cluster = cluster().counting();
    // The first attempt reports past its checkpoint and sleeps; what it reported behind it must not count.
    let script = "if grep -q '\"checkpoint\": null' \"$ERGODIC_TRIAL\"; then
            echo '{\"step\": 1, \"loss\": 5}' > \"$ERGODIC_METRICS\"
            mkdir -p \"$ERGODIC_CHECKPOINT/2/deep\"; echo 0.25 > \"$ERGODIC_CHECKPOINT/2/deep/state\"
            echo '{\"step\": 2, \"loss\": 4}' > \"$ERGODIC_METRICS\"
            echo '{\"checkpoint\": 2}' > \"$ERGODIC_METRICS\"
            echo '{\"step\": 3, \"loss\": 99}' > \"$ERGODIC_METRICS\"
            sleep 1000
        fi
        printf '{\"step\": 4, \"loss\": %s}\\n' \"$(cat \"$ERGODIC_CHECKPOINT/2/deep/state\")\" > \"$ERGODIC_METRICS\"";
    let victim = cluster.worker(1, &["--programs", "--checkpoint-every", "10ms"]);
    let id = launch_script(&cluster, script, PLAIN_COMMAND, "");
    victim.wait_for_log("checkpoint stored by the coordinator");
    victim.kill();

    let _heir = cluster.worker(1, &["--programs"]);
    let status = cluster.wait_for_end(&id);
    assert_eq!(status["failed"], 0, "{status}");
    assert_eq!(column(&cluster, &id, "loss"), ["0.25"]);
    let curve = cluster.ask(&["curves", &id, "--format", "csv"]);
    assert!(!curve.contains("99"), "{curve}");
}

/// Runs a template of the folder `sweeps/programs` to its end, and finds its first metric in the table.
fn run_template(name: &str, metric: &str) {
    run_template_with(name, metric, &[]);
}

/// Runs a template with settings to its end, and returns the folder that has its store.
fn run_template_with(name: &str, metric: &str, settings: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sweeps/programs");
    for entry in std::fs::read_dir(templates)
        .expect("there are templates")
        .flatten()
    {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("a file");
    }
    let args = ["run", name, "--programs", "--store", "store"];
    let finished = run_in(dir.path(), &[], &[&args, settings].concat());
    assert_eq!(finished.code, 0, "{}\n{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains(metric), "{}", finished.stdout);
    dir
}

#[test]
fn the_template_in_shell_runs() {
    run_template("shell.toml", "loss");
}

#[test]
fn numbers_that_awk_cannot_hold_are_divergence_and_no_failure() {
    let dir = run_template_with("shell.toml", "loss", &["--set", "grid.lr=[1e20]"]);
    let args = ["status", "latest", "--store", "store", "--format", "json"];
    let finished = run_in(dir.path(), &[], &args);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let status: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    let counts = ["completed", "diverged", "failed"].map(|count| status[count].as_u64());
    assert_eq!(counts, [Some(0), Some(5), Some(0)], "{status}");
}

#[test]
fn the_template_in_python_runs() {
    match has_python() {
        true => run_template("python.toml", "test_acc"),
        false => skip(
            "the_template_in_python_runs",
            "python3",
            "there is no python3",
        ),
    }
}
