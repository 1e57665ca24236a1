//! Files that are named by what is stored, and are missing or damaged: found, told of, and computed again where a trial can.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ergodic_common::TrialKey;
use ergodic_common::trial::to_hex;
use ergodic_proto::status::UserError;

use super::files::{Flaw, Shelf};
use super::{Shared, store_error};
use crate::core::SweepRow;
use crate::store::{Store, StoreReader};

/// What was looked at, each file once.
struct Look<'a> {
    shelf: &'a Shelf,
    seen: HashMap<[u8; 32], Option<Flaw>>,
}

impl<'a> Look<'a> {
    fn new(shelf: &'a Shelf) -> Self {
        Self { shelf, seen: HashMap::new() }
    }

    /// Why a file is lost, if it is. One that cannot be read now may be sound: it is told of, and left alone.
    fn at(&mut self, hash: &[u8; 32]) -> Option<&Flaw> {
        let shelf = self.shelf;
        self.seen.entry(*hash).or_insert_with(|| look_at(shelf, hash)).as_ref()
    }
}

/// Why a file is lost, if it is. One that is damaged gets another name, since whoever has the sound one would be told
/// that it is here.
fn look_at(shelf: &Shelf, hash: &[u8; 32]) -> Option<Flaw> {
    let flaw = shelf.check(hash).err()?;
    match &flaw {
        Flaw::Missing => {}
        Flaw::Damaged => {
            if let Err(error) = shelf.set_aside(hash) {
                tracing::error!(%error, file = to_hex(hash), "a damaged file cannot be renamed");
            }
        }
        Flaw::Unread(why) => {
            tracing::error!(why, file = to_hex(hash), "whether a file is sound cannot be told: it is left as it is");
            return None;
        }
    }
    Some(flaw)
}

/// Files of weights that the rows of a sweep name, with their trials. Rows that do not tell are passed over.
fn named_weights(reader: &dyn StoreReader, sweep: i64) -> Result<Vec<(TrialKey, [u8; 32])>, UserError> {
    let mut named = Vec::new();
    let damages = reader.read_weights_hashes(sweep, &mut |key, hash| named.push((key, hash))).map_err(store_error)?;
    damages.iter().for_each(|damage| tracing::error!("{damage}"));
    Ok(named)
}

/// Those of these trials whose files are lost, with the file and what is wrong with it.
fn lost_of(named: Vec<(TrialKey, [u8; 32])>, look: &mut Look<'_>) -> BTreeMap<TrialKey, ([u8; 32], Flaw)> {
    let lost = named.into_iter().filter_map(|(key, hash)| Some((key, (hash, look.at(&hash)?.clone()))));
    lost.collect()
}

/// Looks at every file that is named, and tells of those that are lost.
///
/// # Errors
/// The store cannot be read.
pub(super) fn tell(store: &dyn Store, shelf: &Shelf) -> Result<(), UserError> {
    let reader = store.open_reader().map_err(store_error)?;
    let mut look = Look::new(shelf);
    for row in reader.read_sweeps().map_err(store_error)? {
        for hash in row.named_files() {
            if let Some(why) = look.at(&hash) {
                let file = to_hex(&hash);
                tracing::error!(
                    sweep = row.id,
                    file,
                    "a file that the sweep names is lost ({why}): launch it again from where its files are"
                );
            }
        }
        tell_of_weights(&row, &lost_of(named_weights(reader.as_ref(), row.number)?, &mut look));
    }
    Ok(())
}

fn tell_of_weights(row: &SweepRow, lost: &BTreeMap<TrialKey, ([u8; 32], Flaw)>) {
    if let Some((key, (hash, why))) = lost.first_key_value() {
        tracing::error!(
            sweep = row.id,
            trials = lost.len(),
            first = %key,
            file = to_hex(hash),
            "weights of trials are lost ({why}): `ergodic retry {}` computes them again",
            row.id
        );
    }
}

/// The trials of a sweep that must be run once more to have their files back.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn trials(shared: &Arc<Shared>, sweep: i64) -> Result<Vec<TrialKey>, UserError> {
    let shared = shared.clone();
    let task = tokio::task::spawn_blocking(move || {
        let named = named_weights(shared.store.open_reader().map_err(store_error)?.as_ref(), sweep)?;
        let lost = lost_of(named, &mut Look::new(&shared.catalog.shelf));
        Ok(lost.into_keys().collect())
    });
    task.await.map_err(|e| UserError::new(ergodic_common::ErrorCode::Internal, e.to_string()))?
}

/// How many trials of a sweep name files of weights that are not there.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn missing(shared: &Arc<Shared>, sweep: i64) -> Result<u64, UserError> {
    let shared = shared.clone();
    let task = tokio::task::spawn_blocking(move || {
        let named = named_weights(shared.store.open_reader().map_err(store_error)?.as_ref(), sweep)?;
        Ok(named.iter().filter(|(_, hash)| !shared.catalog.shelf.has(hash)).count() as u64)
    });
    task.await.map_err(|e| UserError::new(ergodic_common::ErrorCode::Internal, e.to_string()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_was_read_and_is_another_one_is_set_aside() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let shelf = Shelf::new(dir.path().to_owned());
        let (sound, hash) = (b"weights", |content: &[u8]| *blake3::hash(content).as_bytes());
        shelf.keep(&hash(sound), sound).expect("kept");
        std::fs::write(shelf.place(&hash(b"torn")), b"other").expect("written");
        // What stands here cannot be read, whoever reads it.
        std::fs::create_dir(shelf.place(&hash(b"unread"))).expect("made");
        let mut look = Look::new(&shelf);
        for (content, wanted, there) in [
            (&sound[..], None, true),
            (b"torn", Some(Flaw::Damaged), false),
            (b"unread", None, true),
            (b"gone", Some(Flaw::Missing), false),
        ] {
            assert_eq!(look.at(&hash(content)).cloned(), wanted, "{content:?}");
            assert_eq!(shelf.has(&hash(content)), there, "{content:?}");
        }
        assert!(shelf.place(&hash(b"torn")).with_extension("damaged").is_file());
    }
}
