//! One trial of a sweep, run outside of any lease: what `ergodic replay` compares with the stored row.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ergodic_common::trial::CPU_F32;
use ergodic_common::{ErrorCode, Outcome, TrialKey, TrialResult};
use ergodic_proto::status::UserError;

use crate::datasets::{FetchError, Places};
use crate::desk::{Assignment, Fence};
use crate::link::Link;
use crate::slots::{Machine, run};
use crate::sweeps::{Sweep, SweepError};
use crate::train::Finished;

/// Fetches the sweep and runs the trial.
///
/// # Errors
/// The sweep or the trial is unknown, of another numerics class, or cannot be run here.
pub(crate) async fn trial(
    mut link: Link,
    places: &Places,
    sweep: &str,
    key: TrialKey,
    machine: Machine,
) -> Result<TrialResult, UserError> {
    let sweep = Sweep::fetch(sweep, &mut link, places).await.map_err(told)?;
    if sweep.spec.numerics != CPU_F32 {
        let message =
            format!("the sweep is of numerics class {}, and this program computes {CPU_F32}", sweep.spec.numerics);
        return Err(UserError::new(ErrorCode::Version, message));
    }
    let (fence, stop) = (Fence { lease: 0, epoch: 0 }, Arc::new(AtomicBool::new(false)));
    let assignment = Assignment { fence, key, sweep: Arc::new(sweep), stop };
    let ran = tokio::task::spawn_blocking(move || run(&assignment, &machine)).await;
    match ran {
        Ok(Some(Finished { result: TrialResult { outcome: Outcome::Failed { cause }, .. }, .. })) => {
            Err(UserError::new(ErrorCode::Refused, format!("the trial {key} cannot be run here: {cause}")))
        }
        Ok(Some(finished)) => Ok(finished.result),
        Ok(None) | Err(_) => Err(UserError::new(ErrorCode::Internal, format!("the trial {key} was broken off"))),
    }
}

fn told(error: SweepError) -> UserError {
    let code = match &error {
        SweepError::Transport(status) | SweepError::Data(FetchError::Transport(status)) => match status.code() {
            tonic::Code::NotFound => ErrorCode::NotFound,
            tonic::Code::Unavailable => ErrorCode::Unreachable,
            _ => ErrorCode::Refused,
        },
        _ => ErrorCode::Refused,
    };
    UserError::new(code, error.to_string())
}
