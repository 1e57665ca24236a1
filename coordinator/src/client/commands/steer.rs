//! `ergodic pause`, `resume`, `cancel` and `retry`: changes to the state of a sweep.

use clap::Args;
use ergodic_common::ids::SweepId;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::status::render_status;
use crate::app::{CommandOutcome, print_output};
use crate::client::Client;
use crate::client::args::SweepToChange;
use crate::client::query::incomplete_response;
use crate::client::render::TextFormat;

/// `ergodic pause`, `resume`, `cancel` and `retry`
#[derive(Debug, Args)]
pub struct SteerArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepToChange,
}

/// Pauses, resumes, cancels or retries a sweep and prints its status; `command` is the name of the command.
///
/// # Errors
/// There is no such sweep, its state does not allow it, or nobody answers.
pub async fn run_steer(
    args: SteerArgs,
    command: &str,
    steering: v1::Steering,
) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect(command).await?;
    let status = steer_sweep(&mut client, &id, steering).await?;
    print_output(render_status(&status, TextFormat::Table))
}

/// Pauses, resumes, cancels or retries a sweep; gives its status after it.
///
/// # Errors
/// There is no such sweep, its state does not allow it, or nobody answers.
pub async fn steer_sweep(
    client: &mut Client,
    sweep: &SweepId,
    steering: v1::Steering,
) -> Result<v1::SweepStatus, UserError> {
    let request = v1::SteerRequest {
        sweep: sweep.to_string(),
        steering: steering.into(),
        ..Default::default()
    };
    send_steer(client, request).await
}

/// Sends a change to a sweep; gives its status after it.
pub(super) async fn send_steer(
    client: &mut Client,
    request: v1::SteerRequest,
) -> Result<v1::SweepStatus, UserError> {
    let response = client
        .call(async |client| client.sweeps.steer(request).await)
        .await?;
    response
        .status
        .ok_or_else(|| incomplete_response("SteerResponse"))
}
