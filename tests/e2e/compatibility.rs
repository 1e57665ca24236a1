//! What an earlier program stored, backed up, exported and said is read and answered as it was.
//!
//! `tests/earlier` was made by the commit before names and files of the code changed: a store with a completed sweep
//! (`first.toml`) and a launched one, its backup, the export of the first sweep, what the earlier client printed of it, and
//! what a worker and the coordinator said to each other while the second sweep ran. `wire.txt` lists the messages of the version
//! before this one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ergodic_proto::bounds::{FieldKind, MESSAGES};
use ergodic_proto::rpc::METHODS;
use ergodic_proto::v1::session_request;
use ergodic_proto::v1::session_response::Message;
use ergodic_proto::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, accepts_protocol, v1};
use ergodic_tests::{Cluster, RecordedEvent, Recorder, Recording, run};
use prost::Message as _;

const FIRST: &str = "wmwanu2u";
const SECOND: &str = "4k4ijhju";

fn earlier(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("earlier")
        .join(name)
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from)
        .expect("a folder can be read")
        .flatten()
    {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}

/// A cluster on a copy of the earlier program's store.
fn start_on_earlier_store() -> Cluster {
    let mut cluster = Cluster::start(&[]);
    let coordinator = cluster.take_coordinator();
    coordinator.signal("TERM");
    assert_eq!(coordinator.wait(), 0);

    let store = cluster.path("store");
    std::fs::remove_dir_all(&store).expect("the store can be removed");
    copy_folder(&earlier("store"), &store);
    cluster.restart_coordinator(&[]);
    cluster
}

/// Everything that the earlier client printed of the first sweep.
fn check_results(ask: impl Fn(&[&str]) -> String) {
    for (file, command) in [
        ("trials.csv", &["trials", FIRST, "--format", "csv"][..]),
        (
            "table.csv",
            &["table", FIRST, "--metric", "train_loss", "--format", "csv"],
        ),
        (
            "curves.csv",
            &["curves", FIRST, "--metric", "train_loss", "--format", "csv"],
        ),
        (
            "predictions.csv",
            &["predictions", FIRST, "--format", "csv"],
        ),
    ] {
        let stored = std::fs::read_to_string(earlier(file)).expect("what it printed");
        assert_eq!(ask(command), stored, "{file}");
    }
}

#[test]
fn the_store_of_an_earlier_program_is_read() {
    let cluster = start_on_earlier_store();
    check_results(|command| cluster.ask(command));
}

#[test]
fn the_backup_of_an_earlier_program_is_restored() {
    let mut cluster = Cluster::start(&[]);
    let coordinator = cluster.take_coordinator();
    coordinator.signal("TERM");
    assert_eq!(coordinator.wait(), 0);

    let store = cluster.path("store");
    std::fs::remove_dir_all(&store).expect("the store can be removed");
    let backup = earlier("backup.ergodic");
    let restored = run(&[
        "restore",
        &backup.to_string_lossy(),
        "--store",
        &store.to_string_lossy(),
    ]);
    assert_eq!(restored.code, 0, "{}", restored.stderr);

    cluster.restart_coordinator(&[]);
    check_results(|command| cluster.ask(command));
}

#[test]
fn the_export_of_an_earlier_program_is_added_to() {
    let cluster = start_on_earlier_store();
    let export = cluster.path("export");
    copy_folder(&earlier("export"), &export);

    let manifest = Path::new("sweeps").join(FIRST).join("manifest.json");
    let before = std::fs::read_to_string(export.join(&manifest)).expect("a manifest");
    let output = export.to_string_lossy().into_owned();
    let said = cluster.ask(&["export", FIRST, "-o", &output]);
    assert!(said.contains("0 trials added, 6 of 6 in all"), "{said}");

    let parts = |text: &str| -> serde_json::Value {
        let manifest: serde_json::Value = serde_json::from_str(text).expect("a manifest is JSON");
        manifest["tables"].clone()
    };
    let after = std::fs::read_to_string(export.join(&manifest)).expect("a manifest");
    assert_eq!(parts(&before), parts(&after));
}

/// What an answer is compared by: everything but the build of the coordinator and, if it is to another version of the worker's
/// protocol than was recorded, the checksum.
fn normalize(method: &str, answer: &[u8], is_recorded_version: bool) -> Vec<u8> {
    if method.ends_with("/GetSweep") && !is_recorded_version {
        let mut response = v1::GetSweepResponse::decode(answer).expect("a sweep");
        response.checksum.clear();
        return response.encode_to_vec();
    }
    if !method.ends_with("/Session") {
        return answer.to_vec();
    }

    let mut response = v1::SessionResponse::decode(answer).expect("an answer of a session");
    if let Some(Message::Welcome(welcome)) = &mut response.message {
        welcome.build.clear();
    }
    response.encode_to_vec()
}

/// A recording with this protocol version in all messages that name one; with the version that was recorded.
///
/// Workers of versions 1 and 2 say the same but for the number: version 2 added fields to what the coordinator sends.
fn with_protocol(mut recording: Recording, version: u32) -> (Recording, u32) {
    let mut methods = HashMap::new();
    let mut recorded = 0;
    for (call, event) in &mut recording.events {
        match event {
            RecordedEvent::Call(method) => {
                methods.insert(*call, method.clone());
            }
            RecordedEvent::Sent(message) if methods[&*call].ends_with("/Session") => {
                let mut request = v1::SessionRequest::decode(&**message).expect("a message");
                if let Some(session_request::Message::Hello(hello)) = &mut request.message {
                    recorded = std::mem::replace(&mut hello.protocol, version);
                }
                *message = request.encode_to_vec();
            }
            RecordedEvent::Sent(message) if methods[&*call].ends_with("/GetSweep") => {
                let mut request = v1::GetSweepRequest::decode(&**message).expect("a request");
                request.protocol = version;
                *message = request.encode_to_vec();
            }
            _ => {}
        }
    }
    (recording, recorded)
}

#[test]
fn the_session_of_an_earlier_worker_is_answered_as_it_was() {
    if let Some(programs) = std::env::var_os("ERGODIC_RECORD_WITH") {
        record_session(Path::new(&programs));
    }

    for version in OLDEST_PROTOCOL_VERSION..=PROTOCOL_VERSION {
        let recording = Recording::read(&earlier("session.bin"));
        let (recording, recorded) = with_protocol(recording, version);
        assert!(
            accepts_protocol(PROTOCOL_VERSION, recorded),
            "the session is of protocol {recorded}: record one of the version before this one"
        );

        let cluster = start_on_earlier_store();
        let answers = recording.replay(&cluster.url);
        assert!(answers.len() > 3, "{} answers", answers.len());
        let is_recorded_version = version == recorded;
        for (method, recorded, answer) in &answers {
            let [recorded, answer] =
                [recorded, answer].map(|bytes| normalize(method, bytes, is_recorded_version));
            assert_eq!(answer, recorded, "{version} {method}");
        }
        let sweep = answers
            .iter()
            .find(|(method, ..)| method.ends_with("/GetSweep"));
        let (_, _, sweep) = sweep.expect("the worker fetched the sweep");
        let sweep = v1::GetSweepResponse::decode(&**sweep).expect("a sweep");
        // Another version may not know all fields that a checksum covers.
        assert_eq!(sweep.checksum.is_empty(), version != PROTOCOL_VERSION);

        let status = cluster.status(SECOND);
        assert_eq!(status["done"], 2, "{status}");
    }
}

/// All methods with their requests, and all fields of messages with their numbers and kinds, a line each.
fn list_wire() -> Vec<String> {
    let methods = METHODS.iter().map(|method| {
        let stream = if method.stream { "stream " } else { "" };
        format!("{} {stream}{}", method.path, method.request)
    });
    let fields = MESSAGES.iter().flat_map(|message| {
        message.fields.iter().map(|field| {
            let repeated = if field.repeated { "repeated " } else { "" };
            let kind = match field.kind {
                FieldKind::Text => "bytes".to_owned(),
                FieldKind::Message(index) => MESSAGES[index].name.to_owned(),
                FieldKind::Number(0) => "varint".to_owned(),
                FieldKind::Number(bytes) => format!("fixed {bytes}"),
            };
            format!(
                "{}.{} = {}: {repeated}{kind}",
                message.name, field.name, field.number
            )
        })
    });
    methods.chain(fields).collect()
}

#[test]
fn what_earlier_programs_send_means_the_same() {
    let wire = list_wire();
    if std::env::var_os("ERGODIC_RECORD_WIRE").is_some() {
        let text = wire.join("\n") + "\n";
        std::fs::write(earlier("wire.txt"), text).expect("the list can be written");
    }

    let before = std::fs::read_to_string(earlier("wire.txt")).expect("the list of the wire");
    assert!(before.lines().count() > 500, "{before}");
    let lost: Vec<&str> = before
        .lines()
        .filter(|line| !wire.iter().any(|now| now == line))
        .collect();
    assert_eq!(
        lost,
        Vec::<&str>::new(),
        "an earlier program still sends these"
    );
}

/// Makes the recording anew with the programs in this folder.
fn record_session(programs: &Path) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    copy_folder(&earlier("store"), &folder.path().join("store"));
    let mut coordinator = Command::new(programs.join("ergodic"))
        .args(["serve", "--listen", "127.0.0.1:0", "--store"])
        .arg(folder.path().join("store"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the coordinator starts");
    let mut url = String::new();
    let output = coordinator.stdout.take().expect("its output is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut url)
        .expect("its address");

    let recorder = Recorder::start(url.trim());
    let worker = Command::new(programs.join("ergodic-worker"))
        .args([
            "--join",
            &recorder.url,
            "--slots",
            "1",
            "--name",
            "fixture",
            "--idle-exit",
            "1s",
        ])
        .arg("--cache-dir")
        .arg(folder.path().join("cache"))
        .status();
    assert!(worker.expect("the worker starts").success());

    recorder.recording().write(&earlier("session.bin"));
    let _ = coordinator.kill();
    let _ = coordinator.wait();
}
