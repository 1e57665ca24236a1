//! Changing sweeps: one change at a time, each to its end, even if whoever asked goes away.

use std::sync::Arc;

use tokio::sync::oneshot;
use tonic::Status;

use super::context::ServerContext;
use super::engine::events::EngineEvent;
use crate::core::Steering;

/// Does something that changes a sweep, after whatever else does so.
///
/// # Errors
/// There is no room for another change; or what is done fails.
pub(super) async fn run_exclusively<T, F>(
    shared: &Arc<ServerContext>,
    work: impl FnOnce(Arc<ServerContext>) -> F,
) -> Result<T, Status>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Status>> + Send + 'static,
{
    let place = shared.limits.changes.try_acquire()?;
    let turns = shared.change_lock.clone();
    let work = work(shared.clone());
    let task = tokio::spawn(async move {
        let _held = (place, turns.lock().await);
        work.await
    });
    task.await.map_err(|e| Status::internal(e.to_string()))?
}

/// Steers a sweep; returns when that is durable.
///
/// # Errors
/// The sweep's state does not allow it, or the store failed.
pub(super) async fn steer_sweep(
    shared: &Arc<ServerContext>,
    sweep: i64,
    steering: Steering,
) -> Result<(), Status> {
    run_exclusively(shared, |shared| async move {
        send_and_wait(&shared, |reply| EngineEvent::Steer(sweep, steering, reply)).await
    })
    .await
}

/// Tells the loop something, and waits for its answer.
pub(super) async fn send_and_wait(
    shared: &ServerContext,
    event: impl FnOnce(oneshot::Sender<Result<(), ergodic_proto::status::UserError>>) -> EngineEvent,
) -> Result<(), Status> {
    let (reply, done) = oneshot::channel();
    shared.engine.send_event(event(reply));
    done.await
        .map_err(|_| shared.unanswered_status())?
        .map_err(Status::from)
}

/// What a change is answered with that the coordinator did not come to.
pub(super) fn stopping_status() -> Status {
    Status::unavailable("the coordinator is stopping")
}
