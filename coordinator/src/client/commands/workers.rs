//! `ergodic workers`: lists the workers that a coordinator knows.

use clap::Args;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::app::{CommandOutcome, print_output};
use crate::client::args::ListArgs;
use crate::client::render::{TableData, TextFormat, render_first_columns, render_table_data};
use crate::client::status_text::format_duration;

const COLUMNS: [&str; 10] = [
    "name", "state", "slots", "running", "queued", "trials", "heard", "numerics", "build", "id",
];
/// Number of columns in a table for people: all but the last two.
const HUMAN_COLUMNS: usize = 8;

/// `ergodic workers`
#[derive(Debug, Args)]
pub struct WorkersArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub list: ListArgs,
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

fn build_worker_row(w: &v1::WorkerStatus) -> Vec<Value> {
    vec![
        json!(w.name),
        json!(if w.connected { "joined" } else { "away" }),
        json!(w.slots),
        json!(w.running),
        json!(w.queued),
        json!(w.trials),
        json!(format!("{} ago", format_duration(w.silent_seconds))),
        json!(w.numerics.join(" ")),
        json!(w.build),
        json!(w.id),
    ]
}
