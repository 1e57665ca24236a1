//! Starting programs, waiting for them with a deadline, and leaving none behind.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gate::Gate;
use crate::pace;
use crate::process::Process;

/// How long anything may take before a test gives up and shows what it knows: longer where trials are made longer.
pub(crate) fn deadline() -> Duration {
    Duration::from_secs(120).mul_f64(pace().max(1.0))
}

/// What a finished program said.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; 256 when a signal ended the program.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Path of one of the programs under test, built beside the test itself.
///
/// # Panics
/// The program was not built.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let dir = test
        .parent()
        .and_then(Path::parent)
        .expect("tests lie in target/PROFILE/deps");
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo test --workspace`, which builds it",
        path.display()
    );

    path
}

/// Runs `ergodic` with these arguments to its end, with a clean environment of its own settings.
///
/// # Panics
/// The program cannot be started.
pub fn run(args: &[&str]) -> Finished {
    run_under(&[], args)
}

/// The same with these variables set.
///
/// # Panics
/// The program cannot be started.
pub fn run_with(environment: &[(&str, &str)], args: &[&str]) -> Finished {
    let mut command = command("ergodic");
    finished(command.envs(environment.iter().copied()).args(args))
}

/// The same in this folder.
///
/// # Panics
/// The program cannot be started.
pub fn run_in(folder: &Path, environment: &[(&str, &str)], args: &[&str]) -> Finished {
    let mut command = command("ergodic");
    let command = command.current_dir(folder);
    finished(command.envs(environment.iter().copied()).args(args))
}

fn run_under(launcher: &[String], args: &[&str]) -> Finished {
    finished(command_under(launcher, "ergodic").args(args))
}

fn finished(command: &mut Command) -> Finished {
    let output = command.output().expect("ergodic starts");
    Finished {
        code: output.status.code().unwrap_or(256),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Stdout of a run that ends well.
///
/// # Panics
/// The run does not end well.
pub fn stdout(args: &[&str]) -> String {
    let finished = run(args);
    assert_eq!(finished.code, 0, "ergodic {args:?}: {}", finished.stderr);
    finished.stdout
}

fn command(name: &str) -> Command {
    command_under(&[], name)
}

/// A program started by another one, such as `prlimit`, which becomes it.
fn command_under(launcher: &[String], name: &str) -> Command {
    let mut command = match launcher {
        [] => Command::new(program(name)),
        [launcher, args @ ..] => {
            let mut command = Command::new(launcher);
            command.args(args).arg(program(name));
            command
        }
    };

    for setting in [
        "COORDINATOR",
        "DATA",
        "STORE",
        "LISTEN",
        "CACHE",
        "LOG",
        "TOKEN_FILE",
        "CA",
        "CERT",
        "KEY",
    ] {
        command.env_remove(format!("ERGODIC_{setting}"));
    }

    // A cache that outlasts a test, as that of a user does, beside the programs.
    let programs = program(name);
    let target = programs.parent().and_then(Path::parent);
    let target = target.expect("programs lie in target/PROFILE");
    command.env("XDG_CACHE_HOME", target.join("tmp/cache"));

    command.env_remove("FAILPOINTS");
    command.stdin(Stdio::null());
    command
}

/// Waits until something is so.
///
/// # Panics
/// The condition is never met.
pub fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < deadline(), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A running program, killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `ergodic` with these arguments, everything it says going to `log`.
    ///
    /// # Panics
    /// The program cannot be started.
    pub fn start(args: &[&str], log: &Path) -> Self {
        Self::start_with(&[], args, log)
    }

    /// The same with these variables set.
    ///
    /// # Panics
    /// The program cannot be started.
    pub fn start_with(environment: &[(&str, &str)], args: &[&str], log: &Path) -> Self {
        let mut command = command("ergodic");
        let command = command.envs(environment.iter().copied()).args(args);
        let child = command.stdout(append(log)).stderr(append(log)).spawn();
        Self {
            child: child.expect("ergodic starts"),
            log: log.to_owned(),
        }
    }

    /// Waits for `text` in the log; gives what follows it, up to the next space or end of line.
    ///
    /// # Panics
    /// The text never comes.
    pub fn wait_for_log(&self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let log = self.log();
            if let Some((_, rest)) = log.split_once(text).filter(|(_, rest)| rest.contains('\n')) {
                return rest
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
            }

            assert!(
                start.elapsed() < deadline(),
                "waited in vain for '{text}' in:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a file holds this text.
    ///
    /// # Panics
    /// The file never holds the text.
    pub fn wait_for_file(path: &Path, text: &str) {
        let start = Instant::now();
        while !std::fs::read_to_string(path).is_ok_and(|content| content.contains(text)) {
            assert!(
                start.elapsed() < deadline(),
                "waited in vain for '{text}' in {}",
                path.display()
            );

            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until `text` was logged this often.
    ///
    /// # Panics
    /// The text is not logged so often.
    pub fn wait_for_log_times(&self, text: &str, times: usize) {
        let start = Instant::now();
        while self.log().matches(text).count() < times {
            assert!(
                start.elapsed() < deadline(),
                "waited in vain for {times} times '{text}' in:\n{}",
                self.log()
            );

            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until something is so.
    ///
    /// # Panics
    /// The condition is never met.
    pub fn wait_until(&self, what: &str, wanted: impl Fn() -> bool) {
        let start = Instant::now();
        while !wanted() {
            assert!(
                start.elapsed() < deadline(),
                "waited in vain until {what}:\n{}",
                self.log()
            );

            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process of the program.
    pub fn process(&self) -> Process {
        Process::of(self.child.id())
    }

    /// SIGSTOP, and waits until it stands still.
    ///
    /// # Panics
    /// The program has ended.
    pub fn freeze(&self) {
        self.signal("STOP");
        let start = Instant::now();

        while self.process().state() != 'T' {
            assert!(
                start.elapsed() < deadline(),
                "it does not stand still:\n{}",
                self.log()
            );

            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Waits for a death that nobody asked for from outside.
    ///
    /// # Panics
    /// The program does not die, or ends by itself.
    pub fn wait_for_death(self) {
        assert_eq!(self.wait(), 256, "it ended, and was to die");
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// The program has ended already: whatever was to be tested did not happen.
    pub fn kill(mut self) {
        assert!(
            self.child
                .try_wait()
                .expect("a child can be asked")
                .is_none(),
            "it ended before it was killed"
        );

        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Sends a signal by name.
    ///
    /// # Panics
    /// There is no `kill` program.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status()
            .expect("kill can be run");
    }

    /// Waits for its end; gives its exit code.
    ///
    /// # Panics
    /// The program does not end.
    pub fn wait(mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return status.code().unwrap_or(256);
            }

            assert!(
                start.elapsed() < deadline(),
                "it does not end; its log:\n{}",
                self.log()
            );

            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A coordinator and what belongs to it, in a temporary directory.
#[derive(Debug)]
pub struct Cluster {
    dir: tempfile::TempDir,
    /// The coordinator's address.
    pub url: String,
    coordinator: Option<Program>,
    options: Vec<String>,
    /// What coordinator and clients are started by, if not directly.
    launcher: Vec<String>,
    /// What clients say besides the address, where the coordinator asks who they are.
    pub access: Vec<String>,
    started: u32,
    descriptors: usize,
    /// What workers are told to log.
    log: &'static str,
    /// Before the trials of its workers.
    pub gate: Gate,
}

impl Cluster {
    /// Starts a coordinator with these further options and waits until it is ready.
    ///
    /// # Panics
    /// The coordinator does not come up.
    pub fn start(options: &[&str]) -> Self {
        Self::under(&[], "127.0.0.1:0", options)
    }

    /// Starts a coordinator, and clients, by another program that becomes them, such as `prlimit`.
    ///
    /// # Panics
    /// The coordinator does not come up.
    pub fn under(launcher: &[&str], listen: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        let gate = Gate::at(&dir.path().join("gate"));
        let mut cluster = Self {
            dir,
            gate,
            url: String::new(),
            coordinator: None,
            options,
            launcher: launcher.iter().map(|word| (*word).to_owned()).collect(),
            access: Vec::new(),
            started: 0,
            descriptors: 0,
            log: "info",
        };
        cluster.start_coordinator(listen, &[]);

        // Clients run where the coordinator does.
        cluster.url = cluster.url.replace("//0.0.0.0:", "//127.0.0.1:");
        cluster
    }

    /// The same with workers that log every trial they begin and every answer they get, for whoever counts these.
    ///
    /// # Panics
    /// The coordinator does not come up.
    pub fn counted(options: &[&str]) -> Self {
        Self::start(options).counting()
    }

    /// The same of a cluster that is there, for workers that are started from now on.
    #[must_use]
    pub fn counting(self) -> Self {
        Self {
            log: "info,ergodic_worker=debug",
            ..self
        }
    }

    /// Starts a coordinator on a store that is there already.
    ///
    /// # Panics
    /// The coordinator does not come up.
    pub fn on_store(store: &str) -> Self {
        Self::start(&["--store", store])
    }

    /// The coordinator inside a running `ergodic run`.
    ///
    /// # Panics
    /// The run does not say where its coordinator is.
    pub fn of_run(run: &Program) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = run.wait_for_log("coordinator at ");
        let options = Vec::new();
        let launcher = Vec::new();
        let access = Vec::new();
        let gate = Gate::at(&dir.path().join("gate"));
        Self {
            dir,
            url,
            coordinator: None,
            options,
            launcher,
            access,
            started: 0,
            descriptors: 0,
            log: "info",
            gate,
        }
    }

    fn start_coordinator(&mut self, listen: &str, environment: &[(&str, &str)]) {
        let log = self.path("coordinator.log");
        let own = [
            "--store".to_owned(),
            self.path("store").to_string_lossy().into_owned(),
        ];
        let store = if self.options.contains(&own[0]) {
            &[][..]
        } else {
            &own
        };
        let mut child = command_under(&self.launcher, "ergodic")
            .args(["serve", "--listen", listen])
            .args(store)
            .args(&self.options)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(append(&log))
            .spawn()
            .expect("ergodic starts");

        let mut first = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout)
            .read_line(&mut first)
            .expect("stdout can be read");
        let program = Program { child, log };
        assert!(
            first.starts_with("http"),
            "the coordinator did not start:\n{}",
            program.log()
        );

        first.trim().clone_into(&mut self.url);
        self.descriptors = program.process().descriptors();
        self.coordinator = Some(program);
    }

    /// The folder of its store, unless that is a database.
    pub(crate) fn store(&self) -> Option<PathBuf> {
        let given = self
            .options
            .iter()
            .position(|option| option == "--store")
            .map(|at| &self.options[at + 1]);
        given.map_or_else(
            || Some(self.path("store")),
            |given| (!given.contains("://")).then(|| PathBuf::from(given)),
        )
    }

    /// A path below the cluster's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Kills the coordinator with SIGKILL and starts another one on the same store and address.
    ///
    /// # Panics
    /// The coordinator was not running, or does not come up again.
    pub fn kill_and_restart_coordinator(&mut self) {
        self.take_coordinator().kill();
        self.restart_coordinator(&[]);
    }

    /// Starts a coordinator on the store and the address of the one before, with these further variables around it.
    ///
    /// # Panics
    /// The coordinator does not come up.
    pub fn restart_coordinator(&mut self, environment: &[(&str, &str)]) {
        let (_, address) = self
            .url
            .split_once("://")
            .expect("the cluster has an address");
        let address = address.to_owned();
        self.start_coordinator(&address, environment);
    }

    /// The same with further options, which those after it do not have.
    ///
    /// # Panics
    /// The coordinator does not come up.
    pub fn restart_with(&mut self, options: &[&str]) {
        let usual = self.options.clone();
        self.options
            .extend(options.iter().map(|option| (*option).to_owned()));
        self.restart_coordinator(&[]);
        self.options = usual;
    }

    /// The coordinator.
    ///
    /// # Panics
    /// The coordinator is not running.
    pub fn coordinator(&self) -> &Program {
        self.coordinator.as_ref().expect("a coordinator runs")
    }

    /// Descriptors that the coordinator may have open when nobody is there: those it had before anybody came, and a few
    /// that it opens when it first writes, reads and waits for signals, which SQLite closes when it likes. Every
    /// connection takes one, and a scenario makes dozens.
    pub fn descriptors(&self) -> usize {
        self.descriptors + 16
    }

    /// The coordinator, which is not the cluster's any more.
    ///
    /// # Panics
    /// The coordinator is not running.
    pub fn take_coordinator(&mut self) -> Program {
        self.coordinator.take().expect("a coordinator runs")
    }

    /// Starts a worker with these further options.
    ///
    /// # Panics
    /// The worker cannot be started.
    pub fn worker(&mut self, slots: u32, options: &[&str]) -> Program {
        let url = self.url.clone();
        self.worker_by(&url, slots, options)
    }

    /// Starts a worker that reaches the coordinator by another address.
    ///
    /// # Panics
    /// The worker cannot be started.
    pub fn worker_by(&mut self, url: &str, slots: u32, options: &[&str]) -> Program {
        self.worker_under(&[], url, slots, options)
    }

    /// The same by another program that becomes the worker, such as `ip netns exec`.
    ///
    /// # Panics
    /// The worker cannot be started.
    pub fn worker_under(
        &mut self,
        launcher: &[&str],
        url: &str,
        slots: u32,
        options: &[&str],
    ) -> Program {
        self.start_worker((launcher, "ergodic-worker"), url, slots, options)
    }

    /// Starts a worker of another worker program, such as one of the folder `examples`.
    ///
    /// # Panics
    /// The worker cannot be started.
    pub fn worker_of(&mut self, name: &str, slots: u32, options: &[&str]) -> Program {
        let url = self.url.clone();
        self.start_worker((&[], name), &url, slots, options)
    }

    fn start_worker(
        &mut self,
        (launcher, name): (&[&str], &str),
        url: &str,
        slots: u32,
        options: &[&str],
    ) -> Program {
        self.started += 1;
        let launcher: Vec<String> = launcher.iter().map(|word| (*word).to_owned()).collect();
        let log = self.path(&format!("worker-{}.log", self.started));
        let child = command_under(&launcher, name)
            .args(["--join", url, "--slots", &slots.to_string(), "--cache-dir"])
            .arg(self.path("cache"))
            .args(options)
            .env("ERGODIC_LOG", self.log)
            .env("FAILPOINTS", self.gate.failpoints())
            .stdout(Stdio::null())
            .stderr(append(&log))
            .spawn()
            .expect("ergodic-worker starts");

        Program { child, log }
    }

    /// Writes a sweep file and launches it, whatever the store has of it already; gives its id.
    ///
    /// # Panics
    /// The launch is refused.
    pub fn launch(&self, text: &str) -> String {
        let path = self.path("sweep.toml");
        std::fs::write(&path, text).expect("a file can be written");
        let path = path.to_string_lossy().into_owned();
        let id = self.ask(&["launch", &path, "--again"]);
        assert!(
            id.trim().len() == 8 && id.ends_with('\n'),
            "the id alone: {id:?}"
        );

        id.trim().to_owned()
    }

    /// Runs a client command against this coordinator.
    ///
    /// # Panics
    /// The command fails.
    pub fn ask(&self, args: &[&str]) -> String {
        let finished = self.run(args);
        assert_eq!(finished.code, 0, "ergodic {args:?}: {}", finished.stderr);
        finished.stdout
    }

    /// Runs a client command against this coordinator to whichever end.
    ///
    /// # Panics
    /// The command cannot be started.
    pub fn run(&self, args: &[&str]) -> Finished {
        let access: Vec<&str> = self.access.iter().map(String::as_str).collect();
        run_under(
            &self.launcher,
            &[args, &["--coordinator", &self.url], &access].concat(),
        )
    }

    /// `status --format json`
    ///
    /// # Panics
    /// There is no such sweep.
    pub fn status(&self, id: &str) -> Value {
        serde_json::from_str(&self.ask(&["status", id, "--format", "json"]))
            .expect("status is JSON")
    }

    /// Waits until a sweep's status is as wanted, and gives it.
    ///
    /// # Panics
    /// The status never is as wanted.
    pub fn wait_until(&self, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let status = self.status(id);
            if wanted(&status) {
                return status;
            }

            assert!(
                start.elapsed() < deadline(),
                "waited in vain until {what}: {status}\n{}",
                self.logs()
            );

            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until so many workers have joined.
    ///
    /// # Panics
    /// So many workers never join.
    pub fn wait_for_workers(&self, number: usize) {
        let joined = || {
            let workers: Value = serde_json::from_str(&self.ask(&["workers", "--format", "json"]))
                .expect("the workers are JSON");
            workers
                .as_array()
                .is_some_and(|workers| workers.len() >= number)
        };
        wait_for(&format!("{number} workers have joined"), joined);
    }

    /// Waits until exactly so many trials of a sweep are done: those that the gate lets through.
    ///
    /// # Panics
    /// So many trials are never done.
    pub fn wait_until_held(&self, id: &str, done: u64) -> Value {
        self.wait_until(id, "all that is let through is done", |status| {
            status["done"] == done && status["leased"] != 0
        })
    }

    /// Waits for a sweep's end.
    ///
    /// # Panics
    /// The sweep does not end.
    pub fn wait_for_end(&self, id: &str) -> Value {
        self.wait_until(id, "the sweep is complete", |status| {
            status["state"] == "completed"
        })
    }

    /// Rows as CSV, without the columns that may differ from run to run.
    ///
    /// # Panics
    /// There is no such sweep.
    pub fn rows(&self, id: &str) -> String {
        without(
            &self.ask(&["trials", id, "--format", "csv"]),
            &["seconds", "worker", "isa"],
        )
    }

    /// Waits until the coordinator's log says this; gives what follows it, up to the next space or end of line.
    ///
    /// # Panics
    /// The log never says it.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.coordinator().wait_for_log(text)
    }

    /// The most memory the coordinator has held, in MiB.
    ///
    /// # Panics
    /// The system does not say.
    pub fn peak_memory_mib(&self) -> u64 {
        self.coordinator().process().peak_memory_mib()
    }

    /// What all workers logged.
    pub fn worker_logs(&self) -> impl Iterator<Item = String> {
        let names = (1..=self.started).map(|n| self.path(&format!("worker-{n}.log")));
        names.map(|path| std::fs::read_to_string(path).unwrap_or_default())
    }

    /// What everybody logged, cut where it is long.
    pub(crate) fn logs(&self) -> String {
        let coordinator = std::fs::read_to_string(self.path("coordinator.log")).unwrap_or_default();
        let all = std::iter::once(coordinator)
            .chain(self.worker_logs())
            .enumerate();
        let last = |log: &str| {
            log.lines()
                .rev()
                .take(40)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect::<Vec<_>>()
                .join("\n")
        };

        all.map(|(n, log)| {
            format!(
                "--- {}\n{}\n",
                if n == 0 {
                    "coordinator".into()
                } else {
                    format!("worker {n}")
                },
                last(&log)
            )
        })
        .collect()
    }
}

/// CSV without some columns. Fields with commas in quotes do not occur in the columns compared.
fn without(csv: &str, columns: &[&str]) -> String {
    let header: Vec<&str> = csv.lines().next().unwrap_or_default().split(',').collect();
    let keep: Vec<bool> = header.iter().map(|name| !columns.contains(name)).collect();
    let line = |line: &str| {
        let kept = line
            .split(',')
            .zip(&keep)
            .filter(|(_, keep)| **keep)
            .map(|(field, _)| field);
        kept.collect::<Vec<_>>().join(",") + "\n"
    };

    csv.lines().map(line).collect()
}

fn append(path: &Path) -> std::fs::File {
    std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .expect("a log can be written")
}
