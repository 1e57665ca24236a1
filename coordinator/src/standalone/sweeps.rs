//! The sweeps in the store of a run: the one that runs, and others that are paused meanwhile.

use std::path::Path;

use ergodic_common::ids::SweepId;
use ergodic_common::spec::SpecSource;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;
use ergodic_proto::{PROTOCOL_VERSION, v1};

use super::run_source::{RunSource, RunTableArgs, check_spec};
use crate::client::Client;
use crate::client::commands::launch::{LaunchMode, format_reused_results, launch_read_sweep};
use crate::client::commands::steer::steer_sweep;
use crate::client::latest::resolve_sweep_id;
use crate::client::query::{query_status, query_sweeps};
use crate::client::render::print_stderr_line;
use crate::client::status_text::count_done_trials;
use crate::client::sweep_file::SweepFile;

/// Launches or resumes the sweep to run, and pauses all others.
pub(super) async fn start_sweep(
    source: &RunSource,
    table: &RunTableArgs,
    again: bool,
    url: &str,
    dir: &Path,
) -> Result<(Client, v1::SweepStatus), UserError> {
    let mut client = Client::connect(url, &ClientAuth::default()).await?;
    let paused = pause_unfinished_sweeps(&mut client).await?;
    let begun = match source {
        RunSource::File { file, spec } => launch_or_resume(&mut client, file, spec, again).await,
        RunSource::Stored(word) => resume_stored_sweep(&mut client, word, table).await,
    };
    let status = match begun {
        Ok(status) => status,
        Err(error) => {
            // The sweep did not start, so those that were paused for it go on.
            for sweep in paused.iter().filter(|sweep| is_assigning_trials(sweep)) {
                steer_sweep(&mut client, &sweep.sweep_id(), v1::Steering::Resume).await?;
            }
            return Err(error);
        }
    };
    report_unfinished_sweeps(paused.iter().filter(|sweep| sweep.id != status.id), dir);

    Ok((client, status))
}

async fn launch_or_resume(
    client: &mut Client,
    file: &SweepFile,
    spec: &Spec,
    again: bool,
) -> Result<v1::SweepStatus, UserError> {
    let mode = if again {
        LaunchMode::All
    } else {
        LaunchMode::Resume
    };
    let launched = launch_read_sweep(client, file, spec, mode).await?;
    let lines = format_reused_results(&launched);

    let status = launched.status.unwrap_or_default();
    // A sweep that just continues is announced when its workers start.
    if !launched.found || launched.retried > 0 || status.state() == v1::SweepState::Completed {
        lines.iter().for_each(|line| print_stderr_line(line));
    }

    Ok(status)
}

/// Resumes a sweep in the store, given its name, its id or a prefix of the id.
async fn resume_stored_sweep(
    client: &mut Client,
    word: &str,
    table: &RunTableArgs,
) -> Result<v1::SweepStatus, UserError> {
    let id = resolve_sweep_id(client, word).await?;
    let status = query_status(client, &id).await?;
    let source = query_stored_source(client, &status.sweep_id()).await?;
    let spec = Spec::read_stored(&source)
        .map_err(|e| UserError::new(ErrorCode::BadInput, e.to_string()))?;
    check_spec(table, &spec)?;

    match status.state() {
        v1::SweepState::Completed => Ok(status),
        _ => steer_sweep(client, &status.sweep_id(), v1::Steering::Resume).await,
    }
}

async fn query_stored_source(
    client: &mut Client,
    sweep: &SweepId,
) -> Result<SpecSource, UserError> {
    let request = v1::GetSweepRequest {
        sweep: sweep.to_string(),
        protocol: PROTOCOL_VERSION,
    };
    let stored = client
        .call(async |client| client.workers.get_sweep(request).await)
        .await?;

    let source = stored.source.ok_or_else(|| {
        UserError::new(
            ErrorCode::Internal,
            format!("the sweep {sweep} has no file"),
        )
    })?;
    SpecSource::try_from(source).map_err(|e| UserError::new(ErrorCode::Internal, e.to_string()))
}

/// Pauses the sweeps that earlier runs left unfinished, so that they take no workers; returns their
/// status before. Sweeps that this program cannot run are included and stay as they are, because
/// they take no workers.
///
/// # Errors
/// The coordinator does not respond.
pub(crate) async fn pause_unfinished_sweeps(
    client: &mut Client,
) -> Result<Vec<v1::SweepStatus>, UserError> {
    let mut left = query_sweeps(client).await?;
    left.retain(|sweep| {
        matches!(
            sweep.state(),
            v1::SweepState::Running | v1::SweepState::Paused
        )
    });

    for sweep in left.iter().filter(|sweep| is_assigning_trials(sweep)) {
        steer_sweep(client, &sweep.sweep_id(), v1::Steering::Pause).await?;
    }

    Ok(left)
}

/// Whether the coordinator assigns trials of a sweep to workers.
fn is_assigning_trials(sweep: &v1::SweepStatus) -> bool {
    sweep.state() == v1::SweepState::Running && sweep.withheld.is_empty()
}

/// Maximum number of sweeps that are listed by name.
const MAX_NAMED_SWEEPS: usize = 8;

/// Prints how to resume or remove the sweeps that do not run now.
fn report_unfinished_sweeps<'a>(left: impl Iterator<Item = &'a v1::SweepStatus>, dir: &Path) {
    let left = left.collect::<Vec<_>>();
    let dir = dir.display();

    for sweep in left.iter().take(MAX_NAMED_SWEEPS) {
        let v1::SweepStatus {
            name,
            id,
            trials,
            withheld,
            ..
        } = sweep;
        if !withheld.is_empty() {
            print_stderr_line(&format!(
                "also in this store: {name} ({id}), which this program does not run: {withheld}; `ergodic rm {id} --force \
                 --store {dir}` removes it"
            ));
            continue;
        }

        let done = count_done_trials(sweep);
        print_stderr_line(&format!(
            "also in this store, unfinished and paused: {name} ({id}), {done} of {trials} trials; `ergodic run {id} --store \
             {dir}` continues it, `ergodic rm {id} --force --store {dir}` removes it"
        ));
    }

    if left.len() > MAX_NAMED_SWEEPS {
        print_stderr_line(&format!(
            "and {} more: `ergodic list --store {dir}` shows them",
            left.len() - MAX_NAMED_SWEEPS
        ));
    }
}
