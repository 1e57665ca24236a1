//! `ergodic pause`, `resume`, `cancel`, `retry` and `share`: changes to a sweep that is there.

use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use crate::client::Client;
use crate::client::query::incomplete_response;

/// `ergodic pause`, `resume`, `cancel` and `retry`
///
/// # Errors
/// There is no such sweep, its state does not allow it, or nobody answers.
pub async fn steer_sweep(
    client: &mut Client,
    sweep: &str,
    steering: v1::Steering,
) -> Result<v1::SweepStatus, UserError> {
    let request = v1::SteerRequest {
        sweep: sweep.to_owned(),
        steering: steering.into(),
        ..Default::default()
    };
    send_steer(client, request).await
}

/// `ergodic share`
///
/// # Errors
/// There is no such sweep, it has ended, its share may not be such, or nobody answers.
pub async fn update_share(
    client: &mut Client,
    sweep: &str,
    priority: Option<i32>,
    weight: Option<f64>,
) -> Result<v1::SweepStatus, UserError> {
    let steering = v1::Steering::Share.into();
    send_steer(
        client,
        v1::SteerRequest {
            sweep: sweep.to_owned(),
            steering,
            priority,
            weight,
        },
    )
    .await
}

async fn send_steer(
    client: &mut Client,
    request: v1::SteerRequest,
) -> Result<v1::SweepStatus, UserError> {
    let response = client
        .sweeps
        .steer(request)
        .await
        .map_err(|e| client.to_user_error(&e))?;
    response
        .into_inner()
        .status
        .ok_or_else(|| incomplete_response("SteerResponse"))
}
