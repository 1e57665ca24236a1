//! Changes of sweeps, one at a time. Each runs to its end, even if the client disconnects.

use std::sync::Arc;

use ergodic_common::ids::SweepNumber;
use tokio::sync::oneshot;
use tonic::Status;

use super::context::ServerContext;
use super::engine::events::{ChangeReply, UserEvent};
use crate::core::Steering;

/// Runs `work`, which changes a sweep, while no other change runs.
///
/// # Errors
/// Too many changes are waiting, or `work` fails.
pub(super) async fn run_exclusively<T, F>(
    context: &Arc<ServerContext>,
    work: impl FnOnce(Arc<ServerContext>) -> F,
) -> Result<T, Status>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Status>> + Send + 'static,
{
    let permit = context.limits.changes.try_acquire()?;
    let change_lock = context.change_lock.clone();
    let work = work(context.clone());
    let task = tokio::spawn(async move {
        let _held = (permit, change_lock.lock().await);
        work.await
    });
    task.await.map_err(|e| Status::internal(e.to_string()))?
}

/// Steers a sweep; returns when the change is durable.
///
/// # Errors
/// The sweep's state does not allow it, or the store failed.
pub(super) async fn steer_sweep(
    context: &Arc<ServerContext>,
    sweep: SweepNumber,
    steering: Steering,
) -> Result<(), Status> {
    run_exclusively(context, |context| async move {
        send_and_wait(&context, |reply| UserEvent::Steer {
            sweep,
            steering,
            reply,
        })
        .await
    })
    .await
}

/// Sends an event to the engine, and waits for the reply.
pub(super) async fn send_and_wait(
    context: &ServerContext,
    event: impl FnOnce(ChangeReply) -> UserEvent,
) -> Result<(), Status> {
    let (reply, done) = oneshot::channel();
    context.engine.send_event(event(reply));
    done.await
        .map_err(|_| context.unanswered_status())?
        .map_err(Status::from)
}

/// The status for a change that the coordinator could not make before it stopped.
pub(super) fn stopping_status() -> Status {
    Status::unavailable("the coordinator is stopping")
}
