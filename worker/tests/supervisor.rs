//! The supervisor of a program, as a real process over real ones.

use std::io::{
    self, BufRead as _, BufReader, IoSlice, PipeReader, PipeWriter, Read as _, Write as _,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A supervisor that runs a shell script.
struct Supervised {
    child: Child,
    /// The worker's end: a byte, or its end, ends everything.
    control: Option<ChildStdin>,
    output: BufReader<ChildStderr>,
    folder: TempDir,
}

impl Supervised {
    fn start(options: &[&str], command: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(env!("CARGO_BIN_EXE_ergodic-worker"))
            .arg("supervise-program")
            .args(options)
            .env("SECRET", "of the worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a supervisor starts");
        let mut control = child.stdin.take().expect("a pipe");
        let sent = control.write_all(&encode_order(command, folder.path()));
        sent.expect("the supervisor reads");

        let output = BufReader::new(child.stderr.take().expect("a pipe"));
        Self {
            child,
            control: Some(control),
            output,
            folder,
        }
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .expect("the program prints");
        line.trim_end().to_owned()
    }

    fn request_end(&mut self) {
        let control = self.control.as_mut().expect("a pipe");
        control.write_all(b"e").expect("the supervisor reads");
    }

    /// Waits for the end. Returns what the supervisor says, and the rest of the output.
    fn wait_for_end(&mut self) -> (Value, String) {
        let mut report = String::new();
        let mut stdout = self.child.stdout.take().expect("a pipe");
        stdout.read_to_string(&mut report).expect("a report");
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("output");
        self.child.wait().expect("it ends");
        let end = report.strip_prefix("started\n").unwrap_or(&report);
        (serde_json::from_str(end).unwrap_or(Value::Null), rest)
    }
}

/// The order to run a command in a folder.
fn encode_order(command: &[&str], folder: &Path) -> Vec<u8> {
    let order = json!({
        "command": command,
        "env": [["PATH", std::env::var("PATH").expect("a path")], ["GIVEN", "a b"]],
        "work_dir": folder,
        "attempt_dir": folder,
    });
    let order = order.to_string();
    let length = (order.len() as u32).to_le_bytes();
    [&length[..], order.as_bytes()].concat()
}

/// A supervisor that a starter has started: the worker's ends of its pipes.
struct Served {
    control: PipeWriter,
    report: PipeReader,
    output: PipeReader,
    _folder: TempDir,
}

impl Served {
    /// Sends the pipes to a starter, and then an order to the supervisor.
    fn start(socket: &OwnedFd, text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (for_control, mut control) = io::pipe().expect("a pipe");
        let (report, for_report) = io::pipe().expect("a pipe");
        let (output, for_output) = io::pipe().expect("a pipe");
        let pipes = [for_control.as_fd(), for_report.as_fd(), for_output.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        assert!(message.push(SendAncillaryMessage::ScmRights(&pipes)));
        sendmsg(
            socket,
            &[IoSlice::new(b"s")],
            &mut message,
            SendFlags::empty(),
        )
        .expect("the starter reads");
        let sent = control.write_all(&encode_order(&script(text), folder.path()));
        sent.expect("the supervisor reads");
        Self {
            control,
            report,
            output,
            _folder: folder,
        }
    }

    /// What the supervisor says at the end, and what the program printed.
    fn wait_for_end(mut self) -> (Value, String) {
        let mut report = String::new();
        self.report.read_to_string(&mut report).expect("a report");
        let mut output = String::new();
        self.output.read_to_string(&mut output).expect("output");
        let end = report.strip_prefix("started\n").unwrap_or(&report);
        (serde_json::from_str(end).unwrap_or(Value::Null), output)
    }
}

#[test]
fn a_starter_starts_supervisors_until_the_worker_is_gone() {
    let (own, other) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("sockets");
    let mut starter = Command::new(env!("CARGO_BIN_EXE_ergodic-worker"))
        .args(["supervise-program", "--serve"])
        .env("SECRET", "of the worker")
        .stdin(other)
        .spawn()
        .expect("a starter starts");
    let count = "ls /proc/self/fd | wc -l";
    for status in [0, 3] {
        let text = format!("env | grep -c SECRET; {count}; exit {status}");
        let (report, output) = Served::start(&own, &text).wait_for_end();
        assert_eq!(report, json!({"Exited": status}));
        // Its three streams and the folder that `ls` reads: no socket, and nothing that whoever started the worker had open.
        assert_eq!(output, "0\n4\n");
    }

    let mut last = Served::start(&own, "echo ready; while :; do sleep 0.01; done");
    drop(own);
    assert!(starter.wait().expect("it ends").success());
    let mut ready = [0; 6];
    last.output.read_exact(&mut ready).expect("it still runs");
    last.control.write_all(b"e").expect("the supervisor reads");
    assert_eq!(last.wait_for_end().0, json!({"Signaled": 15}));
}

fn script(text: &str) -> Vec<&str> {
    vec!["sh", "-c", text]
}

fn is_running(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

/// Starts sleeping processes: one of the script's group, one in a session of its own, and one below an orphan.
const SLEEPERS: &str = "sleep 1000 & echo $!
    setsid sleep 1000 & echo $!
    (setsid sh -c 'sleep 1000 & echo $!; wait' &)";

#[test]
fn what_a_program_says_and_how_it_ends_is_told() {
    let text = "echo \"$GIVEN\"; echo err >&2; env | grep -c -e SECRET -e ERGODIC; exit 3";
    let mut supervised = Supervised::start(&[], &script(text));
    let (report, output) = supervised.wait_for_end();
    assert_eq!(report, json!({"Exited": 3}));
    assert_eq!(output, "a b\nerr\n0\n");

    let mut supervised = Supervised::start(&[], &script("kill -SEGV $$"));
    assert_eq!(supervised.wait_for_end().0, json!({"Signaled": 11}));

    let mut supervised = Supervised::start(&[], &["/nowhere/at-all"]);
    let (report, _) = supervised.wait_for_end();
    let why = report["NotStarted"].as_str().unwrap_or_default();
    assert!(
        why.starts_with("cannot start '/nowhere/at-all': No such file"),
        "{report}"
    );
}

#[test]
fn nothing_outlives_the_program_whatever_its_session() {
    let text = format!("mkfifo wait\n{SLEEPERS}\nread line < wait; exit 0");
    let mut supervised = Supervised::start(&[], &script(&text));
    let pids = [(); 3].map(|()| supervised.read_line());
    assert!(pids.iter().all(|pid| is_running(pid)), "{pids:?}");

    std::fs::write(supervised.folder.path().join("wait"), "go\n").expect("the script reads");
    let (report, _) = supervised.wait_for_end();
    assert_eq!(report, json!({"Exited": 0}));
    assert!(!pids.iter().any(|pid| is_running(pid)), "{pids:?}");
}

#[test]
fn a_request_ends_even_what_ignores_sigterm() {
    let text = format!("trap '' TERM\n{SLEEPERS}\necho $$; while :; do sleep 1000; done");
    let mut supervised = Supervised::start(&[], &script(&text));
    let pids = [(); 4].map(|()| supervised.read_line());
    supervised.request_end();
    assert_eq!(supervised.wait_for_end().0, json!({"Signaled": 9}));
    assert!(!pids.iter().any(|pid| is_running(pid)), "{pids:?}");
    assert!(supervised.folder.path().exists(), "the worker removes it");
}

#[test]
fn a_program_may_end_in_its_own_way_when_it_is_told() {
    let text = "trap 'echo saved; exit 5' TERM; echo ready; while :; do sleep 0.01; done";
    let mut supervised = Supervised::start(&[], &script(text));
    assert_eq!(supervised.read_line(), "ready");
    supervised.request_end();
    let (report, output) = supervised.wait_for_end();
    assert_eq!(report, json!({"Exited": 5}));
    // The shell may say, too, that its child was ended.
    assert!(output.ends_with("saved\n"), "{output}");
}

#[test]
fn the_death_of_the_worker_ends_everything_and_removes_the_folder() {
    let text = format!("{SLEEPERS}\nsleep 1000");
    let mut supervised = Supervised::start(&[], &script(&text));
    let pids = [(); 3].map(|()| supervised.read_line());
    drop(supervised.control.take());
    supervised.wait_for_end();
    assert!(!pids.iter().any(|pid| is_running(pid)), "{pids:?}");
    assert!(!supervised.folder.path().exists());
}

#[test]
fn the_death_of_the_supervisor_ends_the_program() {
    let mut supervised = Supervised::start(&[], &script("echo $$; exec sleep 1000"));
    let pid = supervised.read_line();
    supervised.child.kill().expect("it runs");
    supervised.wait_for_end();
    // Whoever adopts it may leave it unread. It is none of this process, so there is nothing to wait for.
    let has_ended = || {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    };
    while !has_ended() {
        std::thread::yield_now();
    }
}

/// The options by which this system isolates programs, if it can.
fn find_isolation() -> Option<Vec<&'static str>> {
    let all = [vec!["--isolate", "--user-namespace"], vec!["--isolate"]];
    all.into_iter().find(|options| {
        let probe = Command::new(env!("CARGO_BIN_EXE_ergodic-worker"))
            .arg("supervise-program")
            .args(options)
            .arg("--probe")
            .output();
        probe.is_ok_and(|output| output.status.success())
    })
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn an_isolated_program_sees_neither_processes_nor_hidden_files() {
    let Some(isolation) = find_isolation() else {
        eprintln!(
            "SKIPPED an_isolated_program_sees_neither_processes_nor_hidden_files: no namespaces"
        );
        return;
    };
    let secrets = tempfile::tempdir().expect("a folder");
    let token = secrets.path().join("token");
    std::fs::write(&token, "secret\n").expect("a file");
    let spool = tempfile::tempdir().expect("a folder");
    std::fs::write(spool.path().join("entry"), "secret\n").expect("a file");

    let (token, spool) = (token.to_string_lossy(), spool.path().to_string_lossy());
    let mut options = isolation.clone();
    options.extend(["--hide", &*token, "--hide", &*spool]);
    let text = format!(
        "cat {token}; cat {spool}/entry; echo x > {spool}/new; umount {token}; umount {spool}; cat {token} {spool}/entry
         cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep SECRET; ls -d /proc/[0-9]* | wc -l; setsid sleep 1000 & id -u; exit 4"
    );
    let mut supervised = Supervised::start(&options, &script(&text));
    let (report, output) = supervised.wait_for_end();
    assert_eq!(report, json!({"Exited": 4}), "{output}");
    assert!(
        !output
            .lines()
            .any(|line| line == "secret" || line.contains("of the worker")),
        "{output}"
    );
    let user = Command::new("id").arg("-u").output().expect("id");
    let user = String::from_utf8_lossy(&user.stdout).trim().to_owned();
    assert_eq!(output.lines().last(), Some(&*user), "{output}");
}
