//! `ergodic list`: lists all sweeps of a coordinator.

use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::app::{CommandOutcome, print_output};
use crate::client::args::ListArgs;
use crate::client::query::query_sweeps;
use crate::client::render::{TableData, TextFormat, render_first_columns, render_table_data};
use crate::client::status_text::{count_done_trials, launched_by, status_word};

const COLUMNS: [&str; 13] = [
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
/// Number of columns in a table for people: all but the last.
const HUMAN_COLUMNS: usize = 12;

/// Lists sweeps.
///
/// # Errors
/// Nobody answers.
pub async fn run_list(args: ListArgs) -> Result<CommandOutcome, UserError> {
    let mut client = args.connection.connect().await?;
    let sweeps = query_sweeps(&mut client).await?;
    if sweeps.is_empty() && args.format == TextFormat::Table {
        return print_output("no sweep yet: launch one with `ergodic launch SPEC`\n".into());
    }

    let data = TableData::from_rows(&COLUMNS, sweeps.iter().map(build_sweep_row).collect());
    print_output(render_table_data(&data, args.format, |data| {
        render_first_columns(data, HUMAN_COLUMNS)
    }))
}

fn build_sweep_row(s: &v1::SweepStatus) -> Vec<Value> {
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
}
