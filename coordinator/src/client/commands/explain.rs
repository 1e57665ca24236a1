//! `ergodic explain`: what became of a sweep or of one trial.

use ergodic_common::TrialKey;
use ergodic_common::escape::escape_line;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::json;

use crate::client::Client;
use crate::client::render::TextFormat;

/// `ergodic explain`
///
/// # Errors
/// There is no such sweep or trial, or nobody answers.
pub async fn explain_sweep(
    client: &mut Client,
    sweep: &str,
    trial: Option<TrialKey>,
    format: TextFormat,
) -> Result<String, UserError> {
    let request = v1::ExplainRequest {
        sweep: sweep.to_owned(),
        trial: trial.map(Into::into),
    };
    let lines = client
        .sweeps
        .explain(request)
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner()
        .lines;

    Ok(match format {
        TextFormat::Json => format!("{}\n", json!(lines)),
        _ => lines
            .iter()
            .map(|line| format!("{}\n", escape_line(line)))
            .collect(),
    })
}
