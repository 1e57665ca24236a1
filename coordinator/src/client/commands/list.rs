//! `ergodic list`: all sweeps of a coordinator.

use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::json;

use crate::client::Client;
use crate::client::query::query_sweeps;
use crate::client::render::{TableData, TextFormat, render_first_columns, render_table_data};
use crate::client::status_text::{count_done_trials, launched_by, status_word};

/// `ergodic list`
///
/// # Errors
/// Nobody answers.
pub async fn list_sweeps(client: &mut Client, format: TextFormat) -> Result<String, UserError> {
    let sweeps = query_sweeps(client).await?;
    let columns = [
        "id",
        "name",
        "state",
        "cells",
        "repeats",
        "trials",
        "done",
        "diverged",
        "failed",
        "priority",
        "weight",
        "launched_by",
        "launched_at",
    ];

    let row = |s: &v1::SweepStatus| {
        vec![
            json!(s.id),
            json!(s.name),
            json!(status_word(s)),
            json!(s.cells),
            json!(s.repeats),
            json!(s.trials),
            json!(count_done_trials(s)),
            json!(s.diverged),
            json!(s.failed),
            json!(s.priority),
            json!(s.weight),
            json!(launched_by(s)),
            json!(s.launched_at),
        ]
    };
    let records = TableData::from_rows(&columns, sweeps.iter().map(row).collect());

    if sweeps.is_empty() && format == TextFormat::Table {
        return Ok("no sweep yet: launch one with `ergodic launch SPEC`\n".into());
    }

    Ok(render_table_data(&records, format, |r| {
        render_first_columns(r, 12)
    }))
}
