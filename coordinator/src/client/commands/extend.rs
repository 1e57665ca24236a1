//! `ergodic extend`: more repeats or more cells for a sweep that was launched.

use ergodic_common::spec::SpecSource;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::launch::upload_files;
use crate::client::Client;
use crate::client::latest::request_as_user;
use crate::client::status_text::count_done_trials;
use crate::client::sweep_file::SweepFile;

/// What is to be added to a sweep.
#[derive(Debug, Clone)]
pub enum Extension {
    /// This number of repeats per cell, more than there are.
    Repeats(u32),
    /// The cells of this file that the sweep lacks.
    File(SweepFile),
}

/// `ergodic extend`
///
/// # Errors
/// There is no such sweep, what is to be added does not fit it, or nobody answers.
pub async fn extend_sweep(
    client: &mut Client,
    sweep: &str,
    more: &Extension,
) -> Result<v1::ExtendResponse, UserError> {
    let mut request = v1::ExtendRequest {
        sweep: sweep.to_owned(),
        ..Default::default()
    };

    match more {
        Extension::Repeats(repeats) => request.repeats = *repeats,
        Extension::File(file) => {
            let spec = Spec::read_new(&file.source)
                .map_err(|e| UserError::new(ErrorCode::BadInput, e.to_string()))?;

            upload_files(client, file).await?;

            // An older coordinator accepts the file if its own grammar reads it alike.
            let source = SpecSource {
                grammar: spec.min_grammar(),
                ..file.source.clone()
            };
            request.source = Some((&source).into());
        }
    }

    Ok(client
        .sweeps
        .extend(request_as_user(request.with_checksum()))
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner())
}

/// A line about what was added.
pub fn format_extension(extended: &v1::ExtendResponse) -> String {
    let Some(status) = &extended.status else {
        return String::new();
    };
    let left = status.trials.saturating_sub(count_done_trials(status));
    let what = format!(
        "{left} trials are to be run, {} have their results",
        count_done_trials(status)
    );

    match (extended.from == status.id, extended.ended) {
        (true, _) => what,
        (false, false) => format!("{what}, of the sweep {}", extended.from),
        (false, true) => format!(
            "{what}, of the sweep {}, which was cancelled",
            extended.from
        ),
    }
}
