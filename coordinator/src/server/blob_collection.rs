//! Garbage collection of files that were uploaded and never named, because their sender went away.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ergodic_common::ErrorCode;
use ergodic_common::ids::FileHash;
use ergodic_proto::atomic_file::STAGED_SUFFIX;
use ergodic_proto::status::UserError;
use hex::FromHex as _;
use tokio::sync::oneshot;

use super::context::ServerContext;
use super::engine::events::UserEvent;
use super::store_error;
use crate::store::{EnsureIdentity, StoreWriter};

/// Interval between two collections.
const COLLECT_INTERVAL: Duration = Duration::from_secs(3600);
/// Age from which on an unreferenced file is deleted. Senders name their files soon.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(6 * 3600);
/// Number of files that are checked per transaction, which blocks results.
const BLOBS_PER_WRITE: usize = 64;
/// Name of the file that lists the stores with files in the folder, one per line.
const SIGNATURE_FILE: &str = "store";

/// Collects for as long as the coordinator leads. Leaves a folder alone that may hold files of
/// another store, because the other store may name them. Another store may appear at any time.
pub(super) async fn collect_periodically(context: Arc<ServerContext>, identity: Option<i64>) {
    let mut stopping = context.stopping.clone();
    loop {
        if let Err(why) = check_sole_owner(context.catalog.blobs.folder(), identity) {
            let folder = context.catalog.blobs.folder().display().to_string();
            tracing::warn!(folder, why, "unreferenced files are not removed");
            return;
        }

        collect_unreferenced_blobs(&context).await;
        tokio::select! {
            () = tokio::time::sleep(COLLECT_INTERVAL) => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

/// Signs a folder with the store's identity, which distinguishes it from other stores with files
/// there.
///
/// # Errors
/// The store or the folder cannot be written. Going on might lose files to another store that
/// believes to be alone.
pub(crate) fn sign_folder(writer: &mut dyn StoreWriter, folder: &Path) -> Result<i64, UserError> {
    let identity = writer
        .commit(EnsureIdentity(generate_identity()))
        .map_err(store_error)?;

    append_signature(folder, identity).map_err(|error| {
        let message = format!(
            "--artifacts {}: cannot record in the directory that this store uses it: {error}",
            folder.display()
        );
        UserError::new(ErrorCode::Internal, message)
    })?;

    Ok(identity)
}

fn generate_identity() -> i64 {
    let mut bytes = [0; 8];
    // Without random bytes the identity is 0. Stores with this identity share folders, and none
    // deletes the files of another.
    let _ = rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes);
    i64::from_le_bytes(bytes)
}

/// Records that a store has files in this folder, before it puts any there, and whether there were
/// files before, which may belong to a store that did not sign.
///
/// # Errors
/// The folder cannot be written.
fn append_signature(folder: &Path, identity: i64) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(SIGNATURE_FILE);
    let names = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    let was_used = names
        .collect::<std::io::Result<Vec<_>>>()?
        .iter()
        .any(|name| is_coordinator_file(name));
    let first = if was_used {
        format_signature(identity)
    } else {
        format_first_signature(identity)
    };

    // Opened for appending, because another store may write its line between two steps of this one.
    match File::options().append(true).create_new(true).open(&path) {
        Ok(mut file) => file.write_all(format!("{first}\n").as_bytes()),
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        Err(_) if has_signed(&std::fs::read_to_string(&path)?, identity) => Ok(()),
        Err(_) => File::options()
            .append(true)
            .open(&path)?
            .write_all(format!("{}\n", format_signature(identity)).as_bytes()),
    }
}

/// Checks that unreferenced files may be deleted from a folder, because no other store has files
/// there. A store without an identity has files only beside its own directory.
///
/// # Errors
/// Returns a message if another store may have files there.
pub(super) fn check_sole_owner(folder: &Path, identity: Option<i64>) -> Result<(), String> {
    let signed = match std::fs::read_to_string(folder.join(SIGNATURE_FILE)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && identity.is_none() => {
            return Ok(());
        }
        signed => signed.map_err(|e| e.to_string())?,
    };
    if identity.is_some_and(|identity| signed == format!("{}\n", format_first_signature(identity)))
    {
        return Ok(());
    }

    Err(
        if identity.is_some_and(|identity| has_signed(&signed, identity))
            && signed.lines().count() == 1
        {
            "the directory had files before this store first used it, and they may belong to another store".into()
        } else {
            "the directory also holds files of another store: give each store its own with --artifacts"
                .into()
        },
    )
}

/// Whether several stores have files in a folder, as far as is known. Also true if the signatures
/// cannot be read.
pub(super) fn is_shared_folder(folder: &Path) -> bool {
    match std::fs::read_to_string(folder.join(SIGNATURE_FILE)) {
        Ok(signed) => signed.lines().count() > 1,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Whether a coordinator creates files of this name once it has recovered its store.
fn is_coordinator_file(name: &str) -> bool {
    name == "checkpoints"
        || name.ends_with(STAGED_SUFFIX)
        || name.ends_with(".damaged")
        || parse_blob_name(name).is_some()
}

fn has_signed(signed: &str, identity: i64) -> bool {
    signed
        .lines()
        .any(|line| line == format_signature(identity) || line == format_first_signature(identity))
}

fn format_signature(identity: i64) -> String {
    format!("{identity:016x}")
}

/// The signature of a store that found the folder without files.
fn format_first_signature(identity: i64) -> String {
    format!("{} was the first", format_signature(identity))
}

async fn collect_unreferenced_blobs(context: &Arc<ServerContext>) {
    let folder = context.catalog.blobs.folder().to_owned();
    let Ok(old) = tokio::task::spawn_blocking(move || find_forgotten_blobs(&folder)).await else {
        return;
    };
    let mut files = 0;
    let mut bytes = 0;

    for some in old.chunks(BLOBS_PER_WRITE) {
        let (reply, done) = oneshot::channel();
        context.engine.send_event(UserEvent::DeleteUnreferenced {
            hashes: some.to_vec(),
            reply,
        });

        match done.await {
            Ok(Ok(deleted)) => {
                files += deleted.files;
                bytes += deleted.bytes;
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "unreferenced files could not be removed")
            }
            // The engine is gone, so the coordinator is stopping.
            Err(_) => return,
        }
    }

    if files > 0 {
        tracing::info!(files, bytes, "unreferenced files were removed");
    }
}

/// Hashes of files that are older than [`FORGOTTEN_AFTER`]. Removes partial files of that age at
/// once.
fn find_forgotten_blobs(folder: &Path) -> Vec<FileHash> {
    let mut old = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|found| found.modified());
        let age = age
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok())
            .unwrap_or_default();
        if age < FORGOTTEN_AFTER {
            continue;
        }

        let name = entry.file_name().to_string_lossy().into_owned();
        match parse_blob_name(&name) {
            Some(hash) => old.push(hash),
            None if name.ends_with(STAGED_SUFFIX) => _ = std::fs::remove_file(entry.path()),
            None => {}
        }
    }

    old
}

/// The hash in a file's name, if it is one.
fn parse_blob_name(name: &str) -> Option<FileHash> {
    let hash = <[u8; 32]>::from_hex(name).ok()?;
    // Files are named in lower case.
    (hex::encode(hash) == name).then_some(FileHash(hash))
}

#[cfg(test)]
mod tests {
    use crate::server::blob_collection::*;

    #[test]
    fn a_file_is_known_by_its_name_and_nothing_else_is() {
        let hash = FileHash::from(blake3::hash(b"weights"));
        assert_eq!(parse_blob_name(&hash.to_string()), Some(hash));

        for name in [
            "store",
            "checkpoints",
            &hash.to_string()[1..],
            &hash.to_string().to_uppercase(),
            &format!("{}.damaged", hash),
        ] {
            assert_eq!(parse_blob_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_folder_without_files_has_one_owner_until_another_store_comes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Tokens may have been made before.
        std::fs::create_dir(dir.path().join("auth")).expect("made");
        let come = |identity| append_signature(dir.path(), identity).expect("signed");

        for _ in 0..2 {
            come(7);
            assert_eq!(check_sole_owner(dir.path(), Some(7)), Ok(()));
        }

        assert!(!is_shared_folder(dir.path()), "it is alone");
        assert!(
            check_sole_owner(dir.path(), None).is_err(),
            "the store that has the directory is not the one that has signed"
        );
        come(8);

        come(7);
        come(8);

        for identity in [7, 8] {
            assert!(
                check_sole_owner(dir.path(), Some(identity))
                    .expect_err("both have files")
                    .contains("--artifacts")
            );
        }

        assert!(is_shared_folder(dir.path()));
        // What cannot be read may say so.
        std::fs::remove_file(dir.path().join(SIGNATURE_FILE)).expect("removed");
        assert!(!is_shared_folder(dir.path()));
        std::fs::create_dir(dir.path().join(SIGNATURE_FILE)).expect("made");
        assert!(is_shared_folder(dir.path()));
        std::fs::remove_dir(dir.path().join(SIGNATURE_FILE)).expect("removed");

        (7..9).for_each(come);
        assert_eq!(
            std::fs::read_to_string(dir.path().join(SIGNATURE_FILE))
                .expect("signed")
                .lines()
                .count(),
            2
        );
    }

    #[test]
    fn nobody_owns_a_folder_that_held_files_before() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(
            dir.path().join(blake3::hash(b"weights").to_string()),
            b"weights",
        )
        .expect("written");

        for _ in 0..2 {
            append_signature(dir.path(), 7).expect("signed");
            assert!(
                check_sole_owner(dir.path(), Some(7))
                    .expect_err("they may be another one's")
                    .contains("before this store")
            );
        }

        // As an earlier program signed, whatever it found.
        std::fs::write(
            dir.path().join(SIGNATURE_FILE),
            format!("{}\n", format_signature(7)),
        )
        .expect("written");
        assert!(check_sole_owner(dir.path(), Some(7)).is_err());

        std::fs::remove_file(dir.path().join(SIGNATURE_FILE)).expect("removed");
        assert!(
            check_sole_owner(dir.path(), Some(7)).is_err(),
            "nobody has signed"
        );

        assert_eq!(
            check_sole_owner(dir.path(), None),
            Ok(()),
            "it is in the store's own directory"
        );
    }
}
