//! What programs can reach of their worker, with and without namespaces of their own.

use std::process::Command;

use ergodic_tests::skip;

use crate::auth::{guarded, secret, token, token_file};
use crate::program_trials::{
    PLAIN_COMMAND, cluster, column, count_processes, has_python, launch_script,
};

/// Reads all files that it can find, and tries to undo what keeps it apart. The secret is not in it in one piece.
const SPY: &str = r#"
import ctypes, json, os, stat, sys

needle = (sys.argv[1] + sys.argv[2]).encode()
root, cache = sys.argv[3], sys.argv[4]
found, read = [], 0

def look(path):
    global read
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return
        with open(path, "rb") as file:
            content = file.read(1 << 22)
    except OSError:
        return
    read += 1
    if needle in content:
        found.append(path)

libc = ctypes.CDLL(None)
libc.umount2(cache.encode(), 2)
libc.unshare(0x20000)
libc.mount(b"proc", b"/proc", b"proc", 0, b"")
# Whoever traces a process stops it. Its supervisor alone: outside, all processes of the machine would obey.
if cache != "/nowhere":
    libc.ptrace(16, os.getppid(), 0, 0)
for pid in os.listdir("/proc"):
    if pid.isdigit():
        for name in ["cmdline", "environ", "maps", "comm"]:
            look(f"/proc/{pid}/{name}")
        try:
            files = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in files:
            look(f"/proc/{pid}/fd/{name}")

for top in [root, "/proc/1/root" + root, "/proc/1/cwd" + root, f"/proc/{os.getpid()}/root{root}", "/run", "/dev/shm"]:
    for folder, _, files in os.walk(top):
        for name in files:
            look(os.path.join(folder, name))

written = 0
for folder, _, _ in os.walk(cache):
    try:
        open(os.path.join(folder, "mine"), "w").close()
        written += 1
    except OSError:
        pass

processes = sum(name.isdigit() for name in os.listdir("/proc"))
for path in found:
    print("found in", path)
with open(os.environ["ERGODIC_METRICS"], "a") as metrics:
    seen = {"found": len(found), "written": written, "read": read, "processes": processes}
    metrics.write(json.dumps({"step": 1, **seen}) + "\n")
"#;

/// Whether the system lets a process make namespaces, and another one forbid them.
fn can_forbid_namespaces() -> bool {
    let output = Command::new(FORBID[0])
        .args(&FORBID[1..])
        .args(["unshare", "--pid", "--mount", "true"])
        .output();
    output.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stderr).contains("No space left on device")
    })
}

/// Runs what follows where nobody may make namespaces.
const FORBID: [&str; 7] = [
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-c",
    "for kind in user pid mnt; do echo 0 > /proc/sys/user/max_${kind}_namespaces || exit 9; done; exec \"$@\"",
    "sh",
];

#[test]
fn a_program_finds_no_token_and_writes_into_no_cache() {
    if !has_python() {
        skip(
            "a_program_finds_no_token_and_writes_into_no_cache",
            "python3",
            "it is not installed",
        );
        return;
    }

    let mut cluster = guarded(&["--programs", "--lease-ttl", "2s"]);
    let access = token(&cluster, "worker", &[]);
    let user = token(&cluster, "user", &["--programs"]);
    cluster.access = token_file(&user);
    let spool = cluster.path("spool").to_string_lossy().into_owned();
    let options = [
        "--programs",
        "--token-file",
        &access.to_string_lossy(),
        "--spool",
        &spool,
    ];
    // Whoever started the worker has left it a file with its token.
    let open_token = format!("exec 9< '{}'; exec \"$@\"", access.display());
    let url = cluster.url.clone();
    let _worker = cluster.worker_under(&["sh", "-c", &open_token, "sh"], &url, 1, &options);
    let secret = secret(&access);
    let (first, second) = secret.split_at(secret.len() / 2);
    let root = cluster.path("").to_string_lossy().into_owned();
    let cache = cluster.path("cache").to_string_lossy().into_owned();

    std::fs::write(cluster.path("spy.py"), SPY).expect("a file can be written");
    let command = ["python3", "spy.py", first, second, &root, &cache];
    let id = cluster.launch(&format!(
        "name = \"spy\"\nrepeats = 1\n[program]\nfiles = [\"spy.py\"]\ncommand = {command:?}\n\
         metrics = {{ found = \"min\", written = \"min\", read = \"max\", processes = \"min\" }}\n"
    ));
    cluster.wait_for_end(&id);

    let said = cluster.ask(&["explain", &id, "0/0"]);
    let value = |name: &str| -> u64 {
        let values = column(&cluster, &id, name);
        let number: f64 = values[0].parse().expect("it is a number");
        number as u64
    };
    assert_eq!(value("found"), 0, "{said}");
    assert_eq!(value("written"), 0, "{said}");
    // It has looked: the logs and the store are there, and its own processes.
    assert!(value("read") >= 10, "{} files", value("read"));
    assert!(
        value("processes") <= 4,
        "{} processes are seen",
        value("processes")
    );

    // Outside, the same search finds the token.
    let metrics = cluster.path("outside.jsonl");
    let environment = [("ERGODIC_METRICS", &*metrics.to_string_lossy())];
    let outside = Command::new("python3")
        .args([&cluster.path("spy.py").to_string_lossy(), first, second])
        .args([&root, "/nowhere"])
        .envs(environment)
        .output()
        .expect("python3 can be run");
    let said = String::from_utf8_lossy(&outside.stdout).into_owned();
    assert!(said.contains(&*access.to_string_lossy()), "{said}");
}

#[test]
fn without_namespaces_only_this_machine_is_trusted_unless_it_is_said() {
    if !can_forbid_namespaces() {
        skip(
            "without_namespaces_only_this_machine_is_trusted_unless_it_is_said",
            "netns",
            "the system gives no namespaces",
        );
        return;
    }

    let mut cluster = cluster();
    let beyond = format!("{},http://192.0.2.1:7070", cluster.url);
    let refused = cluster.worker_under(&FORBID, &beyond, 1, &["--programs"]);
    let log = cluster.path("worker-1.log");
    assert_eq!(refused.wait(), 4);
    let said = std::fs::read_to_string(log).expect("it has a log");
    for part in [
        "programs of http://192.0.2.1:7070 could read this worker's token",
        "--programs=trusted",
    ] {
        assert!(said.contains(part), "{said}");
    }

    let script = "setsid sleep 98765 &
        echo '{\"step\": 1, \"loss\": 1}' > $ERGODIC_METRICS";
    let id = launch_script(&cluster, script, PLAIN_COMMAND, "repeats = 3");
    let here = cluster.url.clone();
    for (url, programs, completed) in [(&here, "--programs", 3), (&beyond, "--programs=trusted", 6)]
    {
        let worker = cluster.worker_under(&FORBID, url, 1, &[programs]);
        worker.wait_for_log("isolated=false");
        cluster.wait_until(&id, "its trials are done", |status| {
            status["completed"] == completed
        });
        assert_eq!(count_processes("sleep 98765"), 0);
        if completed == 3 {
            cluster.ask(&["extend", &id, "--repeats", "6"]);
        }
    }
}
