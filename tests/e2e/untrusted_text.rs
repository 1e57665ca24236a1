//! What others say of themselves reaches nobody's terminal raw, nor a log, a page or a spreadsheet.

use ergodic_common::trial::CPU_F32;
use ergodic_proto::{PROTOCOL_VERSION, v1};
use ergodic_tests::{Cluster, RawWorker};
use serde_json::Value;

use crate::{block_on, empty_sweep};

/// Clears the screen, by two ways, turns the direction of reading, and begins a line.
const HOSTILE: &str = "=1+1\u{1b}[2J\u{9b}31m\u{202e}\u{7}\r\nINFO forged <b>&";

/// A name has no control characters, or is refused.
const NAME: &str = "=1+1\u{202e}<b>";

/// Whether a character does something instead of being seen. The end of a line is the reader's own.
fn misleads(c: &char) -> bool {
    c.is_control() && *c != '\n'
        || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_clean(what: &str, text: &str) {
    let found: Vec<char> = text.chars().filter(misleads).collect();
    assert!(found.is_empty(), "{what}: {found:?} in {text:?}");
    assert!(
        !text.lines().any(|line| line.starts_with("INFO forged")),
        "{what}: {text}"
    );
}

#[test]
fn words_of_a_worker_are_shown_and_do_nothing() {
    let cluster = Cluster::start(&[]);
    let id = cluster.launch(&empty_sweep(3));
    block_on(async {
        let hello = v1::Hello {
            protocol: PROTOCOL_VERSION,
            build: HOSTILE.into(),
            worker: "a".repeat(32),
            name: NAME.into(),
            slots: 1,
            numerics: vec![CPU_F32.into(), HOSTILE.into()],
            held: Vec::new(),
            programs: false,
            experiments: Vec::new(),
            begins_for_ms: None,
            drains: false,
            supply: None,
            sends_output: false,
        };
        let mut worker = RawWorker::greet(&cluster.url, hello)
            .await
            .expect("whoever speaks the protocol may join");

        let workers = cluster.ask(&["workers"]);
        assert!(
            workers.contains("=1+1\\u001b[2J\\u009b31m\\u202e\\u0007\\r\\nINFO forged <b>&"),
            "{workers}"
        );

        for format in ["table", "csv", "md", "latex", "json"] {
            is_clean("workers", &cluster.ask(&["workers", "--format", format]));
        }

        assert!(
            cluster
                .ask(&["workers", "--format", "csv"])
                .contains("'=1+1")
        );
        is_clean("explain", &cluster.ask(&["explain", &id]));

        // All of its trials fail, of a cause of its choice.
        let mut left = 3;
        while left > 0 {
            let grant = worker.lease().await;
            let failed = |i| v1::TrialResult {
                outcome: v1::OutcomeKind::Failed.into(),
                cause: HOSTILE.into(),
                isa: "avx2".into(),
                digest: vec![0; 32],
                ..RawWorker::result(&grant, i, 0.0)
            };
            let results: Vec<_> = (0..grant.cells.len()).map(failed).collect();
            left -= results.len();

            worker
                .deliver(&grant, results)
                .await
                .expect("they are taken");
        }

        cluster.wait_for_end(&id);
    });

    for args in [
        &["explain", &id][..],
        &["explain", &id, "0/0"],
        &["status", &id],
        &["list"],
        &["table", &id],
        &["curves", &id],
    ] {
        is_clean(&args.join(" "), &cluster.ask(args));
    }

    assert!(
        cluster
            .ask(&["explain", &id, "0/0"])
            .contains("=1+1\\u001b[2J")
    );

    for format in ["table", "csv", "md", "latex", "json"] {
        let trials = cluster.ask(&["trials", &id, "--format", format]);
        is_clean(format, &trials);
        // LaTeX would take a bracket for an argument of what stands before it.
        let escaped = match format {
            "latex" => "u001b{[}2J",
            _ => "u001b[2J",
        };
        assert!(trials.contains(escaped), "{format}: {trials}");
    }

    let json: Value =
        serde_json::from_str(&cluster.ask(&["trials", &id, "--format", "json"])).expect("JSON");
    assert_eq!(json[0]["cause"], HOSTILE, "machines get it as it is");
    let csv = cluster.ask(&["trials", &id, "--format", "csv"]);
    assert!(
        csv.contains("'=1+1") && !csv.contains(",=1+1") && !csv.contains("\"=1+1"),
        "{csv}"
    );

    let watched = cluster.run(&["watch", &id]);
    is_clean("watch", &watched.stderr);
    let replayed = cluster.run(&["replay", &id, "0/0"]);
    assert!(
        replayed.code != 0 && replayed.stderr.contains("=1+1"),
        "{replayed:?}"
    );

    is_clean("replay", &replayed.stderr);
    let page = cluster.path("page").display().to_string();
    is_clean("report", &cluster.ask(&["report", &id, "-o", &page]));
    let page = std::fs::read_to_string(cluster.path("page/index.html")).expect("a page");
    is_clean("the page", &page);
    assert!(
        page.contains("=1+1\\u202e&lt;b&gt;") && !page.contains("<b>"),
        "{page}"
    );

    let log = std::fs::read_to_string(cluster.path("coordinator.log")).expect("a log");
    assert!(log.contains("=1+1\\u"), "{log}");
    is_clean("the coordinator's log", &log);
}
