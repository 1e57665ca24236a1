//! Removal of sweeps: first the sweep's own row, then its other rows in small steps, and the files
//! that nothing else names.
//!
//! The next coordinator deletes rows that this one did not reach. Files that it did not reach stay
//! until the garbage collection.

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::ids::{FileHash, SweepNumber};
use tokio::sync::oneshot;
use tonic::Status;

use super::context::ServerContext;
use super::engine::events::UserEvent;
use super::sweep_changes::send_and_wait;
use super::{blob_collection, store_error, sweep_changes};
use crate::core::Steering;
use crate::records::SweepRow;
use crate::store::{ClearedRows, StoreError};
use crate::throttled_log::ThrottledLog;

/// Pause before rows that could not be deleted are tried again.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// What a removal deleted, besides the sweep itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RemovedData {
    pub(super) trials: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Removes a sweep.
///
/// # Errors
/// The sweep has not ended, or the store failed.
pub(super) async fn remove_sweep(
    context: &Arc<ServerContext>,
    record: Arc<SweepRow>,
    force: bool,
) -> Result<RemovedData, Status> {
    let context = context.clone();
    // In a task of its own, so that it completes even if the client disconnects.
    let task = tokio::spawn(async move {
        let number = record.number;
        sweep_changes::run_exclusively(&context, move |context| async move {
            if force {
                send_and_wait(&context, |reply| UserEvent::Steer {
                    sweep: number,
                    steering: Steering::Cancel,
                    reply,
                })
                .await?;
            }

            send_and_wait(&context, |reply| UserEvent::Remove {
                sweep: number,
                reply,
            })
            .await
        })
        .await?;

        tracing::info!(sweep = record.id.as_str(), "sweep removed");
        let mut removed = RemovedData::default();
        let cleared = clear_rows(&context, number, &mut removed).await;
        cleared.map_err(|e| Status::from(store_error(e)))?;
        delete_unreferenced(&context, record.named_files().collect(), &mut removed).await;

        Ok(removed)
    });

    task.await.map_err(|e| Status::internal(e.to_string()))?
}

/// Deletes the remaining rows of sweeps that were removed under an earlier coordinator.
pub(super) async fn clear_removed_sweeps(context: Arc<ServerContext>, sweeps: Vec<SweepNumber>) {
    let mut throttled_log = ThrottledLog::default();
    for sweep in sweeps {
        let mut removed = RemovedData::default();
        while let Err(error) = clear_rows(&context, sweep, &mut removed).await {
            throttled_log.report_error(
                "the rows of a removed sweep could not be cleared yet",
                &format!("sweep {sweep}: {error}"),
            );
            let mut stopping = context.stopping.clone();
            tokio::select! {
                () = tokio::time::sleep(RETRY_DELAY) => {}
                _ = stopping.wait_for(|stop| *stop) => return,
            }
        }

        tracing::info!(
            sweep = sweep.0,
            trials = removed.trials,
            files = removed.files,
            "a removed sweep is cleared"
        );
    }
}

async fn clear_rows(
    context: &Arc<ServerContext>,
    sweep: SweepNumber,
    removed: &mut RemovedData,
) -> Result<(), StoreError> {
    loop {
        let (reply, done) = oneshot::channel();
        context
            .engine
            .send_event(UserEvent::ClearRows { sweep, reply });
        let ClearedRows {
            trials,
            weights,
            has_more: more,
        } = done
            .await
            .map_err(|_| StoreError::Failed("the coordinator is stopping".into()))??;
        removed.trials += trials;

        delete_unreferenced(context, weights, removed).await;
        if !more {
            return Ok(());
        }
    }
}

/// Deletes those files that neither a sweep nor a trial names any more. If that cannot be checked,
/// they stay until the garbage collection. If another store has signed the folder, they stay for
/// good, because it may name them.
async fn delete_unreferenced(
    context: &Arc<ServerContext>,
    hashes: Vec<FileHash>,
    removed: &mut RemovedData,
) {
    if hashes.is_empty() || blob_collection::is_shared_folder(context.catalog.blobs.folder()) {
        return;
    }

    let (reply, done) = oneshot::channel();
    context
        .engine
        .send_event(UserEvent::DeleteUnreferenced { hashes, reply });

    match done.await {
        Ok(Ok(deleted)) => {
            removed.files += deleted.files;
            removed.bytes += deleted.bytes;
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "unreferenced files could not be removed")
        }
        Err(_) => {}
    }
}
