//! Files that are named by what is stored, and are missing or damaged: found, told of, and computed again where a trial can.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ergodic_common::TrialKey;
use ergodic_common::trial::hex;
use ergodic_proto::status::UserError;

use super::files::Shelf;
use super::{Shared, store_error};
use crate::core::SweepRow;
use crate::store::{Reader, Store, StoreError};

/// What was looked at, each file once.
struct Look<'a> {
    shelf: &'a Shelf,
    seen: HashMap<[u8; 32], Option<String>>,
}

impl<'a> Look<'a> {
    fn new(shelf: &'a Shelf) -> Self {
        Self { shelf, seen: HashMap::new() }
    }

    /// What is wrong with a file, if something is. One that is damaged gets another name, since whoever has the sound one would
    /// be told that it is here.
    fn at(&mut self, hash: &[u8; 32]) -> Option<&String> {
        let shelf = self.shelf;
        let found = self.seen.entry(*hash).or_insert_with(|| {
            let wrong = shelf.check(hash).err();
            if wrong.is_some()
                && shelf.has(hash)
                && let Err(error) = shelf.set_aside(hash)
            {
                tracing::error!(%error, file = hex(hash), "a damaged file cannot be renamed");
            }
            wrong
        });
        found.as_ref()
    }
}

/// Trials of a sweep whose rows name files that are lost, with the file and what is wrong with it.
fn lost_weights(
    reader: &dyn Reader,
    sweep: i64,
    look: &mut Look<'_>,
) -> Result<BTreeMap<TrialKey, ([u8; 32], String)>, StoreError> {
    let mut lost = BTreeMap::new();
    reader.trials(sweep, &mut |row| {
        if let Some(hash) = row.result.weights
            && let Some(why) = look.at(&hash)
        {
            lost.insert(row.result.key, (hash, why.clone()));
        }
        true
    })?;
    Ok(lost)
}

/// Looks at every file that is named, and tells of those that are lost.
///
/// # Errors
/// The store cannot be read.
pub(super) fn tell(store: &dyn Store, shelf: &Shelf) -> Result<(), UserError> {
    let reader = store.reader().map_err(store_error)?;
    let mut look = Look::new(shelf);
    for row in reader.sweeps().map_err(store_error)? {
        for hash in row.named_files() {
            if let Some(why) = look.at(&hash) {
                let file = hex(&hash);
                tracing::error!(
                    sweep = row.id,
                    file,
                    "a file that the sweep names is lost ({why}): launch it again from where its files are"
                );
            }
        }
        tell_of_weights(&row, &lost_weights(reader.as_ref(), row.number, &mut look).map_err(store_error)?);
    }
    Ok(())
}

fn tell_of_weights(row: &SweepRow, lost: &BTreeMap<TrialKey, ([u8; 32], String)>) {
    if let Some((key, (hash, why))) = lost.first_key_value() {
        tracing::error!(
            sweep = row.id,
            trials = lost.len(),
            first = %key,
            file = hex(hash),
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
        let reader = shared.store.reader().map_err(store_error)?;
        let lost = lost_weights(reader.as_ref(), sweep, &mut Look::new(&shared.catalog.shelf)).map_err(store_error)?;
        Ok(lost.into_keys().collect())
    });
    task.await.map_err(|e| UserError::new(ergodic_common::ErrorCode::Internal, e.to_string()))?
}
