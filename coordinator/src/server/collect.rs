//! Files that came and were never named, because whoever sent them went away: they go after a while.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use super::Shared;
use super::engine::Event;

/// How often they are looked for.
const EVERY: Duration = Duration::from_secs(3600);
/// A file that has been there for so long without a name has been forgotten. Whoever sends one names it soon.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(6 * 3600);
/// Files asked about in one transaction, which holds up results.
const AT_ONCE: usize = 64;
/// Says whose folder it is.
const OWNER: &str = "store";

/// Collects for as long as the coordinator leads. A folder that belongs to another store is left alone: what this one does not
/// name, that one may.
pub(super) async fn go_on(shared: Arc<Shared>, identity: Option<i64>) {
    if let Some(identity) = identity
        && let Err(why) = own(shared.catalog.shelf.folder(), identity)
    {
        let folder = shared.catalog.shelf.folder().display().to_string();
        tracing::warn!(folder, why, "files that nothing names are not collected");
        return;
    }
    let mut stopping = shared.stopping.clone();
    loop {
        collect(&shared).await;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

/// Takes a folder for the store of this number, unless it is another one's.
fn own(folder: &Path, identity: i64) -> Result<(), String> {
    let failed = |e: std::io::Error| e.to_string();
    let mine = format!("{identity:016x}\n");
    std::fs::create_dir_all(folder).map_err(failed)?;
    let path = folder.join(OWNER);
    match std::fs::read_to_string(&path) {
        Ok(owner) if owner == mine => Ok(()),
        Ok(_) => Err("the folder holds the files of another store, too: give each store its own with --files".into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => std::fs::write(&path, mine).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

async fn collect(shared: &Arc<Shared>) {
    let folder = shared.catalog.shelf.folder().to_owned();
    let Ok(old) = tokio::task::spawn_blocking(move || forgotten(&folder)).await else { return };
    let (mut files, mut bytes) = (0, 0);
    for some in old.chunks(AT_ONCE) {
        let (reply, done) = oneshot::channel();
        shared.engine.tell(Event::TakeOff(some.to_vec(), reply));
        match done.await {
            Ok(Ok(gone)) => (files, bytes) = (files + gone.0, bytes + gone.1),
            Ok(Err(error)) => tracing::warn!(%error, "files that nothing names could not be collected"),
            // The coordinator is stopping.
            Err(_) => return,
        }
    }
    if files > 0 {
        tracing::info!(files, bytes, "files that nothing names were collected");
    }
}

/// Hashes of files that have been there for a while. Parts of files that never became whole are removed at once.
fn forgotten(folder: &Path) -> Vec<[u8; 32]> {
    let mut old = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|found| found.modified());
        let age = age.ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
        if age < FORGOTTEN_AFTER {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        match hash_of(&name) {
            Some(hash) => old.push(hash),
            None if name.ends_with(".part") => _ = std::fs::remove_file(entry.path()),
            None => {}
        }
    }
    old
}

/// The hash that a file is named by, if it is.
fn hash_of(name: &str) -> Option<[u8; 32]> {
    let digits = (name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))).then_some(name)?;
    let mut hash = [0; 32];
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use ergodic_common::trial::hex;

    use super::*;

    #[test]
    fn a_file_is_known_by_its_name_and_nothing_else_is() {
        let hash = *blake3::hash(b"weights").as_bytes();
        assert_eq!(hash_of(&hex(&hash)), Some(hash));
        for name in
            ["store", "checkpoints", &hex(&hash)[1..], &hex(&hash).to_uppercase(), &format!("{}.damaged", hex(&hash))]
        {
            assert_eq!(hash_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_folder_has_one_owner() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(own(dir.path(), 7), Ok(()));
        assert_eq!(own(dir.path(), 7), Ok(()));
        assert!(own(dir.path(), 8).expect_err("another store's").contains("--files"));
    }
}
