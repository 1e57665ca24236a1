//! The committed corpus of the fuzz targets, and mutations of it: none may panic, hang or contradict itself.

use std::path::{Path, PathBuf};

use ergodic_tests::fuzz::{TARGETS, Target};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Mutations tried of each target's corpus.
const CASES: u32 = 600;

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target.name);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a folder can be read").path())
        .collect();
    paths.sort();

    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths
        .into_iter()
        .map(|path| {
            (
                path.clone(),
                std::fs::read(&path).expect("a file can be read"),
            )
        })
        .collect()
}

/// Something done to an input.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, u8),
    Insert(Index, Vec<u8>),
    /// A piece of another input.
    Splice(Index, Index, Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, mask)| Change::Flip(at, mask)),
        at().prop_map(Change::Cut),
        (at(), any::<u8>()).prop_map(|(at, len)| Change::Remove(at, len)),
        (at(), prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at(), at(), at(), any::<u8>())
            .prop_map(|(at, other, from, len)| Change::Splice(at, other, from, len)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change, all: &[(PathBuf, Vec<u8>)]) {
    let place = |at: &Index, len: usize| at.index(len + 1);
    match change {
        Change::Flip(at, mask) if !bytes.is_empty() => {
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
        }
        Change::Flip(..) => {}
        Change::Cut(at) => bytes.truncate(place(at, bytes.len())),
        Change::Remove(at, len) => {
            let from = place(at, bytes.len());
            let to = (from + usize::from(*len)).min(bytes.len());
            bytes.drain(from..to);
        }
        Change::Insert(at, new) => {
            let at = place(at, bytes.len());
            bytes.splice(at..at, new.iter().copied());
        }
        Change::Splice(at, other, from, len) => {
            let other = &all[other.index(all.len())].1;
            let from = place(from, other.len());
            let piece = &other[from..(from + usize::from(*len)).min(other.len())];
            let at = place(at, bytes.len());
            bytes.splice(at..at, piece.iter().copied());
        }
    }
}

fn replay(name: &str) {
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target of this name");
    let all = corpus(target);
    for (path, bytes) in &all {
        let run = std::panic::catch_unwind(|| (target.run)(bytes));
        assert!(run.is_ok(), "{} panics", path.display());
    }

    // The same mutations every time.
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };

    let mutations = (any::<Index>(), prop::collection::vec(change(), 1..6));
    let tried = TestRunner::new_with_rng(config, rng).run(&mutations, |(which, changes)| {
        let mut bytes = all[which.index(all.len())].1.clone();
        changes
            .iter()
            .for_each(|change| apply(&mut bytes, change, &all));
        (target.run)(&bytes);

        Ok(())
    });

    tried.unwrap_or_else(|e| panic!("{name}: {e}"));
}

#[test]
fn sweep_files() {
    replay("sweep");
}

#[test]
fn messages() {
    replay("wire");
}

#[test]
fn stored_bytes() {
    replay("rows");
}

#[test]
fn stores() {
    replay("store");
}

#[test]
fn addresses() {
    replay("address");
}

#[test]
fn files() {
    replay("file");
}
