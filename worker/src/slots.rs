//! The threads that run trials, one at a time each. A panic fails the trial, not the worker.

use std::sync::Arc;

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;

use crate::checkpoint_store::{CheckpointPolicy, TrialCheckpointer};
use crate::runner::{NoResult, SlotConfig, TrialRunner, run_assignment};
use crate::shared_queue::SharedQueue;
use crate::train;

/// Starts the slots' threads, and returns the numerics class of their results.
///
/// # Errors
/// The operating system refuses a thread, or the device or the folder of checkpoints cannot be
/// used.
pub(crate) fn start_slots(
    queue: &Arc<SharedQueue>,
    slots: u32,
    config: &SlotConfig,
    policy: Option<&CheckpointPolicy>,
) -> Result<String, UserError> {
    let mut numerics = String::new();
    for n in 0..slots {
        let queue = queue.clone();
        let config = config.clone();
        let policy = policy.cloned();
        let (report, ready) = std::sync::mpsc::channel();
        let failed =
            |e: String| UserError::new(ErrorCode::Internal, format!("cannot start slot {n}: {e}"));

        // CUDA contexts are bound to the thread that opened the device, so each slot opens its own.
        std::thread::Builder::new()
            .name(format!("slot-{n}"))
            .spawn(move || match TrialRunner::new(&config) {
                Ok(runner) => {
                    let _ = report.send(Ok(runner.numerics_class().to_owned()));
                    run_slot(&queue, &runner, policy.as_ref());
                }
                Err(error) => _ = report.send(Err(error)),
            })
            .map_err(|e| failed(e.to_string()))?;

        numerics = ready.recv().map_err(|e| failed(e.to_string()))??;
    }

    Ok(numerics)
}

fn run_slot(queue: &SharedQueue, runner: &TrialRunner, policy: Option<&CheckpointPolicy>) {
    while let Some(assignment) = queue.wait_for_trial() {
        let checkpoints = policy.map(|policy| {
            TrialCheckpointer::new(policy, runner.checkpoint_dir.as_ref(), queue, &assignment)
        });
        let result = run_assignment(
            &assignment,
            runner,
            checkpoints
                .as_ref()
                .map(|checkpoints| checkpoints as &dyn train::CheckpointStore),
        );
        let result = result.map_err(|why| {
            if let NoResult::Unable(why) = why {
                tracing::error!(trial = %assignment.key, why, "this worker cannot run the trial");
                queue.with_queue(|queue| queue.give_back_lease(assignment.fence, why));
            }
        });
        queue.finish_trial(&assignment, result.ok());

        tracing::debug!(trial = %assignment.key, lease = assignment.fence.lease.0, "trial ends");
    }
}
