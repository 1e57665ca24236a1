//! The threads that run trials, one at a time each. A panic in a trial is that trial's outcome, not the worker's end.

use std::sync::Arc;

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;

use crate::checkpoint_store::{CheckpointPolicy, TrialCheckpointer};
use crate::runner::{SlotConfig, TrialRunner, run_assignment};
use crate::shared_queue::SharedQueue;
use crate::train;

/// Starts the slots' threads. The numerics class of what they compute.
///
/// # Errors
/// The operating system gives no thread, or the device or the folder cannot be used.
pub(crate) fn start_slots(
    office: &Arc<SharedQueue>,
    slots: u32,
    equipment: &SlotConfig,
    keeping: Option<&CheckpointPolicy>,
) -> Result<String, UserError> {
    let mut numerics = String::new();
    for n in 0..slots {
        let office = office.clone();
        let equipment = equipment.clone();
        let keeping = keeping.cloned();
        let (report, ready) = std::sync::mpsc::channel();
        let failed =
            |e: String| UserError::new(ErrorCode::Internal, format!("cannot start slot {n}: {e}"));

        // A device belongs to the thread that opened it.
        let slot = move || match TrialRunner::new(&equipment) {
            Ok(machine) => {
                let _ = report.send(Ok(machine.numerics_class().to_owned()));
                run_slot(&office, &machine, keeping.as_ref());
            }
            Err(error) => _ = report.send(Err(error)),
        };
        std::thread::Builder::new()
            .name(format!("slot-{n}"))
            .spawn(slot)
            .map_err(|e| failed(e.to_string()))?;

        numerics = ready.recv().map_err(|e| failed(e.to_string()))??;
    }

    Ok(numerics)
}

fn run_slot(office: &SharedQueue, machine: &TrialRunner, keeping: Option<&CheckpointPolicy>) {
    while let Some(assignment) = office.wait_for_trial() {
        let shelf = keeping.map(|keeping| {
            TrialCheckpointer::new(
                keeping,
                machine.checkpoint_dir.as_ref(),
                office,
                &assignment,
            )
        });
        let result = run_assignment(
            &assignment,
            machine,
            shelf
                .as_ref()
                .map(|shelf| shelf as &dyn train::CheckpointStore),
        );
        office.finish_trial(&assignment, result);

        tracing::debug!(trial = %assignment.key, lease = assignment.fence.lease, "trial ends");
    }
}
