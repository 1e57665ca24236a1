//! `ergodic workers`: the workers that a coordinator knows.

use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::client::Client;
use crate::client::render::{TableData, TextFormat, render_first_columns, render_table_data};
use crate::client::status_text::format_duration;

const COLUMNS: [&str; 10] = [
    "name", "state", "slots", "running", "queued", "trials", "heard", "numerics", "build", "id",
];
/// People are shown all of them but the last two.
const HUMAN_COLUMNS: usize = 8;

/// `ergodic workers`
///
/// # Errors
/// Nobody answers.
pub async fn list_workers(client: &mut Client, format: TextFormat) -> Result<String, UserError> {
    let response = client
        .sweeps
        .workers(v1::WorkersRequest {})
        .await
        .map_err(|e| client.to_user_error(&e))?;
    let workers = response.into_inner().workers;

    if workers.is_empty() && format == TextFormat::Table {
        return Ok(
            "no worker is joined: start one with `ergodic-worker --coordinator URL`\n".into(),
        );
    }

    let data = TableData::from_rows(&COLUMNS, workers.iter().map(build_worker_row).collect());
    Ok(render_table_data(&data, format, |data| {
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
