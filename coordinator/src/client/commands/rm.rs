//! `ergodic rm`: removes sweeps that have ended.

use ergodic_common::escape::escape_line;
use ergodic_common::number_format::format_significant;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use crate::client::Client;

/// `ergodic rm`, of one sweep
///
/// # Errors
/// There is no such sweep, it has not ended, or nobody answers.
pub async fn remove_sweep(
    client: &mut Client,
    sweep: &str,
    force: bool,
) -> Result<String, UserError> {
    let request = v1::RemoveRequest {
        sweep: sweep.to_owned(),
        force,
    };
    let removed = client
        .sweeps
        .remove(request)
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner();
    let v1::RemoveResponse {
        sweep,
        name,
        trials,
        files,
        bytes,
    } = removed;
    let megabytes = format_significant(bytes as f64 / 1e6, 3);

    Ok(format!(
        "removed {sweep} ({}): {trials} rows, {files} files of {megabytes} MB\n",
        escape_line(&name)
    ))
}
