//! Runs one trial of a sweep without a lease, for `ergodic replay`, which compares the result with
//! the stored row.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ergodic_common::ErrorCode;
use ergodic_common::ids::{Epoch, Fence, LeaseId, SweepId};
use ergodic_common::program::{is_experiment_class, is_program_class};
use ergodic_common::{Outcome, Spec, TrialKey, TrialResult};
use ergodic_proto::status::UserError;

use crate::link::LinkPool;
use crate::link::datasets::{DatasetDirs, FetchError};
use crate::link::sweeps::{LoadedSweep, SweepError};
use crate::program::host::find_program;
use crate::program::tail::OutputTail;
use crate::runner::{NoResult, SlotConfig, TrialRunner, run_assignment};
use crate::supply::Supply;
use crate::system;
use crate::train::FinishedTrial;
use crate::work_queue::Assignment;

/// Fetches the sweep and runs the trial.
///
/// # Errors
/// The sweep or the trial is unknown, belongs to another numerics class, or cannot be run here.
pub(crate) async fn run_single_trial(
    links: &LinkPool,
    dirs: &DatasetDirs,
    sweep: &SweepId,
    key: TrialKey,
    config: SlotConfig,
) -> Result<TrialResult, UserError> {
    let host = config.programs.as_ref();
    let sweep = LoadedSweep::fetch_from(sweep, &mut links.current_link(), dirs, host, |_| None)
        .await
        .map_err(to_user_error)?;
    let fence = Fence {
        lease: LeaseId(0),
        epoch: Epoch(0),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let gpus = choose_gpus(&sweep.spec, &config)?;

    // A time limit protects the other trials of a worker, and a replay runs only one. A program may never end.
    let limit = sweep.spec.scheduling.time_limit;
    let time_limit = limit.filter(|_| sweep.spec.program().is_some());
    let assignment = Assignment {
        fence,
        key,
        sweep: Arc::new(sweep),
        stop,
        time_limit,
        has_checkpoint: false,
        gpus,
        output: OutputTail::default(),
    };
    let finished = tokio::task::spawn_blocking(move || run_here(&assignment, &config))
        .await
        .map_err(|e| UserError::new(ErrorCode::Internal, e.to_string()))??;

    match finished {
        Ok(FinishedTrial {
            result:
                TrialResult {
                    outcome: Outcome::Failed { cause },
                    ..
                },
            ..
        }) => Err(UserError::new(
            ErrorCode::Refused,
            format!("the trial {key} cannot be run here: {cause}"),
        )),
        Ok(finished) => Ok(finished.result),
        Err(NoResult::Unable(why)) => Err(UserError::new(ErrorCode::Refused, why)),
        Err(NoResult::Stopped) => Err(UserError::new(
            ErrorCode::Internal,
            format!("the trial {key} was stopped before its end"),
        )),
    }
}

/// The GPUs that the trial takes, if it is a program. It has this machine to itself.
fn choose_gpus(spec: &Spec, config: &SlotConfig) -> Result<Vec<String>, UserError> {
    let (Some(cell), Some(host)) = (find_program(spec), &config.programs) else {
        return Ok(Vec::new());
    };

    let needs = cell.program.needs;
    let memory = system::available_memory_bytes();
    let mut supply = Supply::new(needs.slots, memory, host.gpus().to_vec());
    let Some(share) = supply.take_share(needs) else {
        let why = supply.explain_lack(needs).unwrap_or_default();
        return Err(UserError::new(ErrorCode::Refused, why));
    };
    Ok(share.gpus)
}

/// Runs a trial on this thread, if this program computes in its numerics class.
fn run_here(
    assignment: &Assignment,
    config: &SlotConfig,
) -> Result<Result<FinishedTrial, NoResult>, UserError> {
    let runner = TrialRunner::new(config)?;
    let wanted = &assignment.sweep.spec.numerics;
    let ours = runner.numerics_class();
    let is_experiment = config.experiments.find_class(wanted).is_some();
    if is_experiment_class(wanted) && !is_experiment {
        let message = format!(
            "the sweep has the numerics class {wanted}, and this worker program has no such experiment: name one that has it with \
             --worker-bin"
        );
        return Err(UserError::new(ErrorCode::Version, message));
    }
    if wanted != ours && !is_experiment && !is_program_class(wanted) {
        let message = format!(
            "the sweep has the numerics class {wanted}, but this program computes {ours} here"
        );
        return Err(UserError::new(ErrorCode::Version, message));
    }

    Ok(run_assignment(assignment, &runner, None))
}

fn to_user_error(error: SweepError) -> UserError {
    let code = match &error {
        SweepError::Transport(status) | SweepError::Data(FetchError::Transport(status)) => {
            match status.code() {
                tonic::Code::NotFound => ErrorCode::NotFound,
                tonic::Code::Unavailable => ErrorCode::Unreachable,
                _ => ErrorCode::Refused,
            }
        }
        _ => ErrorCode::Refused,
    };

    UserError::new(code, error.to_string())
}
