//! Changing sweeps: one change at a time, each to its end, even if whoever asked goes away.

use std::sync::Arc;

use tokio::sync::oneshot;
use tonic::Status;

use super::Shared;
use super::engine::Event;
use crate::core::Steering;

/// Does something that changes a sweep, after whatever else does so.
///
/// # Errors
/// There is no room for another change; or what is done fails.
pub(super) async fn alone<T, F>(shared: &Arc<Shared>, work: impl FnOnce(Arc<Shared>) -> F) -> Result<T, Status>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Status>> + Send + 'static,
{
    let place = shared.limits.changes.place()?;
    let (turns, work) = (shared.changing.clone(), work(shared.clone()));
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
pub(super) async fn steer(shared: &Arc<Shared>, sweep: i64, steering: Steering) -> Result<(), Status> {
    alone(shared, |shared| async move { told(&shared, |reply| Event::Steer(sweep, steering, reply)).await }).await
}

/// Tells the loop something, and waits for its answer.
pub(super) async fn told(
    shared: &Shared,
    event: impl FnOnce(oneshot::Sender<Result<(), ergodic_proto::status::UserError>>) -> Event,
) -> Result<(), Status> {
    let (reply, done) = oneshot::channel();
    shared.engine.tell(event(reply));
    done.await.map_err(|_| shared.unanswered())?.map_err(Status::from)
}

/// What a change is answered with that the coordinator did not come to.
pub(super) fn stopping() -> Status {
    Status::unavailable("the coordinator is stopping")
}
