//! `ergodic workers` lists the workers that a coordinator knows, and `ergodic worker drain` has some leave.

use clap::{Args, Subcommand};
use ergodic_common::escape::escape_line;
use ergodic_common::number_format::format_count;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::app::{CommandOutcome, print_output};
use crate::client::args::{ConnectionArgs, ListArgs};
use crate::client::render::{TableData, TextFormat, render_first_columns, render_table_data};
use crate::client::status_text::format_duration;

const COLUMNS: [&str; 11] = [
    "name", "state", "slots", "running", "queued", "trials", "heard", "leaves", "numerics",
    "build", "id",
];
/// Number of columns in a table for people: all but the last two.
const HUMAN_COLUMNS: usize = 9;

/// `ergodic workers`
#[derive(Debug, Args)]
pub struct WorkersArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub list: ListArgs,
}

/// `ergodic worker`
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Have workers leave: running trials end or are returned, and no new ones start
    Drain(DrainArgs),
}

/// `ergodic worker drain`
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Names or ids of workers, as `ergodic workers` shows them; a name that several workers have means all of them
    #[arg(required = true, value_name = "NAME")]
    pub workers: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
}

/// Steers workers.
///
/// # Errors
/// No joined worker has one of the names, one is too old to be asked, or nobody answers.
pub async fn run_worker(command: WorkerCommand) -> Result<CommandOutcome, UserError> {
    let WorkerCommand::Drain(args) = command;
    let request = v1::DrainWorkersRequest {
        workers: args.workers,
    };
    let mut client = args.connection.connect().await?;
    let response = client
        .call(async |client| client.sweeps.drain_workers(request.clone()).await)
        .await?;

    let lines = response.workers.iter().map(describe_leaving);
    print_output(lines.collect())
}

fn describe_leaving(worker: &v1::WorkerStatus) -> String {
    let name = escape_line(&worker.name);
    match worker.running {
        0 => format!("{name} leaves\n"),
        running => {
            let trials = format_count(running.into(), "trial");
            format!(
                "{name} leaves once what it runs has ended ({trials}), or its drain time is over\n"
            )
        }
    }
}

/// Lists workers.
///
/// # Errors
/// Nobody answers.
pub async fn run_workers(args: WorkersArgs) -> Result<CommandOutcome, UserError> {
    let mut client = args.list.connection.connect().await?;
    let response = client
        .call(async |client| client.sweeps.workers(v1::WorkersRequest {}).await)
        .await?;
    let workers = response.workers;

    if workers.is_empty() && args.list.format == TextFormat::Table {
        return print_output(
            "no worker is joined: start one with `ergodic-worker --coordinator URL`\n".into(),
        );
    }

    let data = TableData::from_rows(&COLUMNS, workers.iter().map(build_worker_row).collect());
    print_output(render_table_data(&data, args.list.format, |data| {
        render_first_columns(data, HUMAN_COLUMNS)
    }))
}

/// When a worker leaves, if its time is limited.
fn describe_time_left(worker: &v1::WorkerStatus) -> String {
    match worker.begins_for_seconds {
        None => String::new(),
        Some(0.0) => "now".to_owned(),
        Some(seconds) => format!("in {}", format_duration(seconds)),
    }
}

fn build_worker_row(w: &v1::WorkerStatus) -> Vec<Value> {
    vec![
        json!(w.name),
        json!(if w.connected { "joined" } else { "away" }),
        json!(w.slots),
        json!(w.running),
        json!(w.queued),
        json!(w.trials),
        json!(format!("{} ago", format_duration(w.silent_seconds))),
        json!(describe_time_left(w)),
        json!(w.numerics.join(" ")),
        json!(w.build),
        json!(w.id),
    ]
}
