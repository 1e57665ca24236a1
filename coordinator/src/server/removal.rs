//! Removing sweeps: the row that makes it one first, then the others bit by bit, and the files that nothing else names.
//!
//! What a coordinator did not come to, the next one clears. Files that it did not come to stay.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tonic::Status;

use super::Shared;
use super::change::{self, told};
use super::engine::Event;
use super::store_error;
use crate::core::{Core, Steering, SweepRow};
use crate::store::{Cleared, StoreError};

/// How long to wait before rows that could not be cleared are tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// What was removed with a sweep.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Removed {
    pub(super) trials: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Removes a sweep.
///
/// # Errors
/// It has not ended, or the store failed.
pub(super) async fn remove(shared: &Arc<Shared>, record: Arc<SweepRow>, force: bool) -> Result<Removed, Status> {
    let shared = shared.clone();
    // To the end, even if whoever asked goes away.
    let task = tokio::spawn(async move {
        let number = record.number;
        change::alone(&shared, move |shared| async move {
            if force {
                told(&shared, |reply| Event::Steer(number, Steering::Cancel, reply)).await?;
            }
            told(&shared, |reply| Event::Remove(number, reply)).await
        })
        .await?;
        tracing::info!(sweep = record.id, "sweep removed");
        let mut removed = Removed::default();
        let cleared = clear(&shared, number, &mut removed).await;
        cleared.map_err(|e| Status::from(store_error(e)))?;
        take_off(&shared, of_record(&record), &mut removed).await;
        Ok(removed)
    });
    task.await.map_err(|e| Status::internal(e.to_string()))?
}

/// Clears what an earlier coordinator left of sweeps that had been removed.
pub(super) async fn go_on(shared: Arc<Shared>, sweeps: Vec<i64>) {
    for sweep in sweeps {
        let mut removed = Removed::default();
        while let Err(error) = clear(&shared, sweep, &mut removed).await {
            tracing::warn!(%error, sweep, "the rows of a removed sweep could not be cleared yet");
            tokio::time::sleep(PAUSE).await;
            if *shared.stopping.borrow() {
                return;
            }
        }
        tracing::info!(sweep, trials = removed.trials, files = removed.files, "a removed sweep is cleared");
    }
}

async fn clear(shared: &Arc<Shared>, sweep: i64, removed: &mut Removed) -> Result<(), StoreError> {
    loop {
        let (reply, done) = oneshot::channel();
        shared.engine.tell(Event::Clear(sweep, reply));
        let stopped = || StoreError::Failed("the coordinator is stopping".into());
        let Cleared { trials, weights, more } = done.await.map_err(|_| stopped())??;
        removed.trials += trials;
        take_off(shared, weights, removed).await;
        if !more {
            return Ok(());
        }
    }
}

/// Takes those of these files off the shelf that neither a sweep nor a trial names. Where that cannot be known, they stay.
async fn take_off(shared: &Arc<Shared>, hashes: Vec<[u8; 32]>, removed: &mut Removed) {
    if hashes.is_empty() {
        return;
    }
    let of_sweeps = |core: &Core| core.records().flat_map(|record| of_record(record)).collect::<HashSet<_>>();
    let Ok(named) = shared.engine.ask(of_sweeps).await else { return };
    let asked = shared.clone();
    let task = tokio::task::spawn_blocking(move || {
        let mut sizes = Vec::new();
        let reader = asked.store.reader().map_err(|e| e.to_string())?;
        for hash in hashes.iter().filter(|hash| !named.contains(*hash)) {
            if !reader.names(hash).map_err(|e| e.to_string())? {
                sizes.extend(asked.catalog.shelf.remove(hash).map_err(|e| e.to_string())?);
            }
        }
        Ok::<Vec<u64>, String>(sizes)
    });
    match task.await {
        Ok(Ok(sizes)) => {
            removed.files += sizes.len() as u64;
            removed.bytes += sizes.iter().sum::<u64>();
        }
        Ok(Err(error)) => tracing::warn!(error, "files that nothing names any more could not be removed"),
        Err(error) => tracing::warn!(%error, "files that nothing names any more could not be removed"),
    }
}

/// Files that a sweep itself names.
fn of_record(record: &SweepRow) -> Vec<[u8; 32]> {
    record.source.files.iter().map(|pin| pin.hash).chain(record.data.hash).collect()
}
