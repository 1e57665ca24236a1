//! `ergodic trials`: one row per trial.

use arrow_array::RecordBatch;
use ergodic_proto::status::UserError;

use crate::client::Client;
use crate::client::query::query_trials;
use crate::client::render::{
    TextFormat, build_trial_data, column_error, infer_axis_types, render_first_columns,
    render_table_data,
};

/// `ergodic trials`
///
/// # Errors
/// There is no such sweep, or nobody answers.
pub async fn query_trials_text(
    client: &mut Client,
    sweep: &str,
    format: TextFormat,
) -> Result<String, UserError> {
    let pages = query_trials(client, sweep).await?;
    Ok(render_table_data(
        &build_trial_data(&pages),
        format,
        |data| render_first_columns(data, data.columns.len()),
    ))
}

/// `ergodic trials` as columns.
///
/// # Errors
/// As for [`query_trials_text`].
pub async fn query_trials_batch(
    client: &mut Client,
    sweep: &str,
) -> Result<RecordBatch, UserError> {
    let pages = query_trials(client, sweep).await?;
    let axes = pages.first().map_or(0, |page| page.axes.len());
    let rows = pages
        .iter()
        .flat_map(|page| &page.rows)
        .map(|row| row.values.as_slice());
    let axes = infer_axis_types(axes, rows);
    build_trial_data(&pages)
        .to_record_batch(&axes)
        .map_err(|e| column_error(&e))
}
