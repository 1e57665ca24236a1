//! The walls of the house: who may depend on whom.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lie in the workspace")
        .to_owned()
}

/// Names of the dependencies that a crate's manifest lists for its own code.
fn dependencies(krate: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(krate).join("Cargo.toml")).expect("a manifest");
    let section = text.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|n| !n.is_empty())
        .map(str::to_owned)
        .collect()
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }

    found
}

/// Files below `dir` that mention one of `words`, with the word.
fn mentions(dir: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in sources(&root().join(dir)) {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let hits = words.iter().filter(|word| text.contains(**word));
        found.extend(hits.map(|word| format!("{}: {word}", path.display())));
    }
    found
}

#[test]
fn dependencies_point_one_way() {
    let ours = [
        "ergodic",
        "ergodic-common",
        "ergodic-proto",
        "ergodic-worker",
    ];
    let of = |krate: &str| {
        dependencies(krate)
            .into_iter()
            .filter(|d| ours.contains(&d.as_str()))
            .collect::<Vec<_>>()
    };
    assert!(of("common").is_empty());

    assert_eq!(of("proto"), ["ergodic-common"]);
    assert_eq!(of("coordinator"), ["ergodic-common", "ergodic-proto"]);
    assert_eq!(of("worker"), ["ergodic-common", "ergodic-proto"]);
}

#[test]
fn common_is_pure_and_only_the_worker_links_candle() {
    for (krate, forbidden) in [
        (
            "common",
            &[
                "tokio",
                "tonic",
                "clap",
                "rayon",
                "candle-core",
                "candle-nn",
                "prost",
            ][..],
        ),
        ("proto", &["candle-core", "candle-nn", "clap", "rusqlite"]),
        ("coordinator", &["candle-core", "candle-nn"]),
    ] {
        let found = dependencies(krate);
        assert!(
            found.iter().all(|d| !forbidden.contains(&d.as_str())),
            "{krate}: {found:?}"
        );
    }
}

#[test]
fn decisions_read_no_clock_and_do_no_io() {
    let io = [
        "std::fs",
        "std::net",
        "std::thread",
        "tokio",
        "Instant::now",
        "SystemTime",
        "async fn",
        "tonic::",
    ];
    assert_eq!(mentions("coordinator/src/core", &io), Vec::<String>::new());

    assert_eq!(
        mentions("coordinator/src/estimators", &io),
        Vec::<String>::new()
    );
    let queue =
        std::fs::read_to_string(root().join("worker/src/work_queue.rs")).expect("a source file");
    assert!(io.iter().all(|word| !queue.contains(word)));
}

#[test]
fn the_client_never_imports_the_server() {
    let server = [
        "crate::analysis",
        "crate::bench",
        "crate::cli::",
        "crate::core",
        "crate::estimators",
        "crate::server",
        "crate::standalone",
        "crate::store",
    ];

    assert_eq!(
        mentions("coordinator/src/client", &server),
        Vec::<String>::new()
    );
}

#[test]
fn randomness_and_transcendental_functions_are_our_own() {
    let host = [
        ".exp()",
        ".ln()",
        ".sin()",
        ".cos()",
        ".powf(",
        "thread_rng",
        "rand::rng",
        ".tanh()",
    ];
    let mut found = mentions("common/src", &host);
    found.extend(
        mentions("worker/src/train", &host)
            .into_iter()
            .filter(|hit| !hit.contains("reference") && !hit.contains("/tests/")),
    );

    assert_eq!(found, Vec::<String>::new());
}
