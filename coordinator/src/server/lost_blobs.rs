//! Files that stored rows name and that are missing or damaged: found, reported, and computed again
//! if a trial can do so.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ergodic_common::TrialKey;
use ergodic_common::ids::{FileHash, SweepNumber};
use ergodic_proto::status::UserError;

use super::blobs::{BlobError, BlobStore};
use super::context::ServerContext;
use super::store_error;
use crate::records::SweepRow;
use crate::store::{ReadableStore, StoreReader};

/// Inspects each file once, and caches the finding.
struct BlobInspection<'a> {
    blobs: &'a BlobStore,
    seen: HashMap<FileHash, Option<BlobError>>,
}

impl<'a> BlobInspection<'a> {
    fn new(blobs: &'a BlobStore) -> Self {
        Self {
            blobs,
            seen: HashMap::new(),
        }
    }

    /// Why a file is lost, if it is. A file that cannot be read now may be intact: it is reported
    /// and left alone.
    fn inspect_once(&mut self, hash: &FileHash) -> Option<&BlobError> {
        let blobs = self.blobs;
        self.seen
            .entry(*hash)
            .or_insert_with(|| inspect_blob(blobs, hash))
            .as_ref()
    }
}

/// Why a file is lost, if it is. Renames a damaged file, because a sender with the intact one would
/// be told that it exists.
fn inspect_blob(blobs: &BlobStore, hash: &FileHash) -> Option<BlobError> {
    let flaw = blobs.verify_blob(hash).err()?;
    match &flaw {
        BlobError::Missing => {}
        BlobError::Damaged => {
            if let Err(error) = blobs.mark_damaged(hash) {
                tracing::error!(%error, file = hash.to_string(), "a damaged file cannot be renamed");
            }
        }
        BlobError::Unreadable(why) => {
            tracing::error!(
                why,
                file = hash.to_string(),
                "a file could not be checked for damage: it is left as it is"
            );

            return None;
        }
    }

    Some(flaw)
}

/// Files of weights that the rows of a sweep name, with their trials. Skips rows in which the name
/// is damaged.
fn collect_weights_hashes(
    reader: &dyn StoreReader,
    sweep: SweepNumber,
) -> Result<Vec<(TrialKey, FileHash)>, UserError> {
    let mut named = Vec::new();
    let damages = reader
        .read_weights_hashes(sweep, &mut |key, hash| named.push((key, hash)))
        .map_err(store_error)?;
    damages
        .iter()
        .for_each(|damage| tracing::error!("{damage}"));
    Ok(named)
}

/// Keeps the trials whose files are lost, with the file and the reason.
fn find_lost_weights(
    named: Vec<(TrialKey, FileHash)>,
    look: &mut BlobInspection<'_>,
) -> BTreeMap<TrialKey, (FileHash, BlobError)> {
    let lost = named
        .into_iter()
        .filter_map(|(key, hash)| Some((key, (hash, look.inspect_once(&hash)?.clone()))));
    lost.collect()
}

/// Inspects every file that is named, and reports the lost ones.
///
/// # Errors
/// The store cannot be read.
pub(super) fn report_lost_blobs(
    store: &dyn ReadableStore,
    blobs: &BlobStore,
) -> Result<(), UserError> {
    let reader = store.open_reader().map_err(store_error)?;
    let mut look = BlobInspection::new(blobs);

    for row in reader.read_sweeps().map_err(store_error)? {
        for hash in row.named_files() {
            if let Some(why) = look.inspect_once(&hash) {
                let file = hash.to_string();
                tracing::error!(
                    sweep = row.id.as_str(),
                    file,
                    "a file that the sweep names is lost ({why}): launch the sweep again from a machine that has the file"
                );
            }
        }

        report_lost_weights(
            &row,
            &find_lost_weights(
                collect_weights_hashes(reader.as_ref(), row.number)?,
                &mut look,
            ),
        );
    }

    Ok(())
}

fn report_lost_weights(row: &SweepRow, lost: &BTreeMap<TrialKey, (FileHash, BlobError)>) {
    if let Some((key, (hash, why))) = lost.first_key_value() {
        tracing::error!(
            sweep = row.id.as_str(),
            trials = lost.len(),
            first = %key,
            file = hash.to_string(),
            "weights of trials are lost ({why}): `ergodic retry {}` computes them again",
            row.id
        );
    }
}

/// The trials of a sweep that must run again to recover their files.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn find_trials_to_redo(
    context: &Arc<ServerContext>,
    sweep: SweepNumber,
) -> Result<Vec<TrialKey>, UserError> {
    let context = context.clone();
    let task = tokio::task::spawn_blocking(move || {
        let named = collect_weights_hashes(
            context.store.open_reader().map_err(store_error)?.as_ref(),
            sweep,
        )?;
        let lost = find_lost_weights(named, &mut BlobInspection::new(&context.catalog.blobs));
        Ok(lost.into_keys().collect())
    });

    task.await
        .map_err(|e| UserError::new(ergodic_common::ErrorCode::Internal, e.to_string()))?
}

/// Number of trials of a sweep that name missing files of weights.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn count_missing_weights(
    context: &Arc<ServerContext>,
    sweep: SweepNumber,
) -> Result<u64, UserError> {
    let context = context.clone();
    let task = tokio::task::spawn_blocking(move || {
        let named = collect_weights_hashes(
            context.store.open_reader().map_err(store_error)?.as_ref(),
            sweep,
        )?;
        Ok(named
            .iter()
            .filter(|(_, hash)| !context.catalog.blobs.has_blob(hash))
            .count() as u64)
    });

    task.await
        .map_err(|e| UserError::new(ergodic_common::ErrorCode::Internal, e.to_string()))?
}

#[cfg(test)]
mod tests {
    use crate::server::lost_blobs::*;

    #[test]
    fn only_a_file_that_was_read_and_is_another_one_is_set_aside() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let blobs = BlobStore::new(dir.path().to_owned());
        let sound = b"weights";
        let hash = |content: &[u8]| FileHash::from(blake3::hash(content));
        blobs.store_blob(&hash(sound), sound).expect("kept");
        std::fs::write(blobs.blob_path(&hash(b"torn")), b"other").expect("written");

        // What stands here cannot be read, whoever reads it.
        std::fs::create_dir(blobs.blob_path(&hash(b"unread"))).expect("made");
        let mut look = BlobInspection::new(&blobs);

        for (content, wanted, there) in [
            (&sound[..], None, true),
            (b"torn", Some(BlobError::Damaged), false),
            (b"unread", None, true),
            (b"gone", Some(BlobError::Missing), false),
        ] {
            assert_eq!(
                look.inspect_once(&hash(content)).cloned(),
                wanted,
                "{content:?}"
            );

            assert_eq!(blobs.has_blob(&hash(content)), there, "{content:?}");
        }

        assert!(
            blobs
                .blob_path(&hash(b"torn"))
                .with_extension("damaged")
                .is_file()
        );
    }
}
