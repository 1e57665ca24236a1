//! `ergodic update`: the priority and weight of a sweep.

use clap::Args;
use ergodic_common::ids::SweepId;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::status::render_status;
use super::steer::send_steer;
use crate::app::{CommandOutcome, print_output};
use crate::client::Client;
use crate::client::args::SweepToChange;
use crate::client::render::TextFormat;

/// `ergodic update`
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// From -100 to 100: sweeps of a higher priority get workers first
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        required_unless_present = "weight"
    )]
    pub priority: Option<i32>,
    /// Above 0: sweeps of the same priority share workers in proportion to their weights
    #[arg(long, value_name = "W")]
    pub weight: Option<f64>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepToChange,
}

/// Changes the priority or weight of a sweep and prints its status.
///
/// # Errors
/// There is no such sweep, it has ended, its share may not be such, or nobody answers.
pub async fn run_update(args: UpdateArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect("update").await?;
    let request = v1::SteerRequest {
        sweep: id.into(),
        steering: v1::Steering::Share.into(),
        priority: args.priority,
        weight: args.weight,
    };
    let status = send_steer(&mut client, request).await?;
    print_output(render_status(&status, TextFormat::Table))
}

/// Priorities that a sweep can have.
pub const PRIORITY_RANGE: std::ops::RangeInclusive<i32> = -100..=100;

/// Changes the priority of a sweep.
///
/// # Errors
/// There is no such sweep, it has ended, or nobody answers.
pub async fn set_priority(
    client: &mut Client,
    sweep: &SweepId,
    priority: i32,
) -> Result<(), UserError> {
    let request = v1::SteerRequest {
        sweep: sweep.to_string(),
        steering: v1::Steering::Share.into(),
        priority: Some(priority),
        weight: None,
    };
    send_steer(client, request).await.map(drop)
}
