//! `Steer` and `Remove`: changes of stored sweeps.

use ergodic_common::ErrorCode;
use ergodic_common::ids::SweepNumber;
use ergodic_common::spec::scheduling::Share;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tonic::Status;

use crate::core::queries::SweepMatch;
use crate::core::{Core, Steering, Sweep};
use crate::server::engine::UserEvent;
use crate::server::removal::RemovedData;
use crate::server::services::access::{Requester, SweepApi};
use crate::server::{lost_blobs, removal, sweep_changes};

impl SweepApi {
    /// The body of `Steer`; returns the sweep's status once the change is durable.
    pub(crate) async fn answer_steer(
        &self,
        request: &v1::SteerRequest,
        requester: &Requester,
    ) -> Result<Option<v1::SweepStatus>, Status> {
        let steering = parse_steering(request)?;
        let number = self
            .with_sweep(&request.sweep, |_, sweep| sweep.number)
            .await?;
        if matches!(steering, Steering::Resume | Steering::Retry) {
            self.check_right_to_steer(requester, number).await?;
        }
        match steering {
            Steering::Retry => self.retry_sweep(number).await,
            _ => self.steer_sweep(number, steering).await,
        }
    }

    /// Checks that a requester may have the trials of a stored sweep run.
    ///
    /// # Errors
    /// The trials are a program, and the requester may not.
    pub(crate) async fn check_right_to_steer(
        &self,
        requester: &Requester,
        number: SweepNumber,
    ) -> Result<(), Status> {
        let spec = self
            .query_core(move |core| core.sweep(number).map(|sweep| sweep.spec.clone()))
            .await?;
        spec.map_or(Ok(()), |spec| self.check_right_to_run(requester, &spec))
    }

    /// Steers a sweep; returns its status once the change is durable.
    pub(crate) async fn steer_sweep(
        &self,
        number: SweepNumber,
        steering: Steering,
    ) -> Result<Option<v1::SweepStatus>, Status> {
        sweep_changes::steer_sweep(&self.0, number, steering).await?;
        self.query_status(number).await
    }

    /// Makes failed trials run again, and trials whose files are lost.
    pub(crate) async fn retry_sweep(
        &self,
        number: SweepNumber,
    ) -> Result<Option<v1::SweepStatus>, Status> {
        // A program that may write other files another time would not bring back those that are lost.
        let may_redo = self
            .query_core(move |core| {
                let sweep = core.sweep(number);
                let repeats_exactly = sweep.is_some_and(|sweep| sweep.spec.must_repeat_exactly());
                repeats_exactly && core.validate_redo(number).is_ok()
            })
            .await?;
        // If trials cannot be redone, `steer_sweep` below reports why.
        let lost = match may_redo {
            true => lost_blobs::find_trials_to_redo(&self.0, number).await?,
            false => Vec::new(),
        };
        if lost.is_empty() {
            return self.steer_sweep(number, Steering::Retry).await;
        }

        tracing::info!(
            sweep = number.0,
            trials = lost.len(),
            "trials whose files are lost are run again"
        );
        sweep_changes::run_exclusively(&self.0, move |context| async move {
            sweep_changes::send_and_wait(&context, |reply| UserEvent::Redo {
                sweep: number,
                keys: lost,
                reply,
            })
            .await
        })
        .await?;

        let has_failures = self
            .query_core(move |core| core.sweep(number).is_some_and(Sweep::has_failures))
            .await?;
        match has_failures {
            true => self.steer_sweep(number, Steering::Retry).await,
            false => self.query_status(number).await,
        }
    }

    /// The body of `Remove`.
    pub(crate) async fn answer_remove(
        &self,
        request: v1::RemoveRequest,
    ) -> Result<v1::RemoveResponse, Status> {
        let v1::RemoveRequest { sweep, force } = request;
        let (record, name) = self
            .with_any_sweep(&sweep, |_: &Core, sweep| match sweep {
                SweepMatch::Readable(sweep) => (sweep.record.clone(), sweep.spec.name.clone()),
                SweepMatch::Unreadable(sweep) => (
                    sweep.record.clone(),
                    sweep.record.source.sweep_name().unwrap_or_default(),
                ),
            })
            .await?;
        let RemovedData {
            trials,
            files,
            bytes,
        } = removal::remove_sweep(&self.0, record.clone(), force).await?;

        Ok(v1::RemoveResponse {
            sweep: record.id.to_string(),
            name,
            trials,
            files,
            bytes,
        })
    }
}

fn parse_steering(request: &v1::SteerRequest) -> Result<Steering, Status> {
    match request.steering() {
        v1::Steering::Pause => Ok(Steering::Pause),
        v1::Steering::Resume => Ok(Steering::Resume),
        v1::Steering::Cancel => Ok(Steering::Cancel),
        v1::Steering::Retry => Ok(Steering::Retry),
        v1::Steering::Share => parse_share_change(request.priority, request.weight),
        v1::Steering::Unspecified => Err(Status::invalid_argument(
            "the field steering of SteerRequest is missing, or of a newer version",
        )),
    }
}

/// Parses a change of a sweep's priority, weight, or both.
fn parse_share_change(priority: Option<i32>, weight: Option<f64>) -> Result<Steering, Status> {
    let default = Share::default();
    let wanted = Share {
        priority: priority.unwrap_or(default.priority),
        weight: weight.unwrap_or(default.weight),
    };
    match wanted.check_ranges() {
        Ok(_) if (priority, weight) == (None, None) => {
            let message = "nothing to change: give --priority or --weight";
            Err(UserError::new(ErrorCode::BadInput, message).into())
        }
        Ok(_) => Ok(Steering::Share { priority, weight }),
        Err(message) => Err(UserError::new(ErrorCode::BadInput, message).into()),
    }
}
