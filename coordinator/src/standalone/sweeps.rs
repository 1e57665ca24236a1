//! The sweeps in the store of a run: the one that runs, and others that are paused meanwhile.

use std::path::Path;

use ergodic_common::Spec;
use ergodic_common::ids::SweepId;
use ergodic_common::number_format::format_count;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::run_source::{RunSource, RunTableArgs, check_numerics};
use crate::client::Client;
use crate::client::commands::launch::{
    LaunchMode, build_launch_request, describe_other_claims, format_reused_results, report_data,
    upload_files,
};
use crate::client::commands::steer::steer_sweep;
use crate::client::latest::{request_as_user, resolve_sweep_id};
use crate::client::query::{query_status, query_sweeps, query_table};
use crate::client::status_text::count_done_trials;
use crate::client::sweep_file::{SweepFile, warn_of_sweep};
use crate::server::RunningServer;
use crate::terminal::print_stderr_line;

/// The sweep of a run.
pub(super) struct StartedSweep {
    pub(super) status: v1::SweepStatus,
    /// Whether this run launched it. It may start with results that another sweep has.
    pub(super) is_new: bool,
}

/// Launches or resumes the sweep to run, and pauses all others.
pub(super) async fn start_sweep(
    source: RunSource,
    table: &RunTableArgs,
    again: bool,
    server: &RunningServer,
    dir: &Path,
) -> Result<(Client, StartedSweep), UserError> {
    let mut client = Client::connect(&server.url(), &ClientAuth::default()).await?;
    let paused = pause_unfinished_sweeps(&mut client).await?;
    let begun = match source {
        RunSource::File { file, spec, .. } => {
            let mode = if again {
                LaunchMode::All
            } else {
                LaunchMode::Resume
            };
            launch_or_resume(&mut client, server, &file, *spec, mode).await
        }
        RunSource::Stored(id) => resume_stored_sweep(&mut client, server, &id, table).await,
    };
    let started = match begun {
        Ok(started) => started,
        Err(error) => {
            // The sweep did not start, so those that were paused for it go on.
            for sweep in paused.iter().filter(|sweep| is_assigning_trials(sweep)) {
                server.resume_sweep(&sweep.sweep_id()).await?;
            }
            return Err(error);
        }
    };
    report_unfinished_sweeps(
        paused.iter().filter(|sweep| sweep.id != started.status.id),
        dir,
    );

    Ok((client, started))
}

/// Launches or resumes a sweep whose file has been read as `spec`. The coordinator of this process does not read it again.
pub(super) async fn launch_or_resume(
    client: &mut Client,
    server: &RunningServer,
    file: &SweepFile,
    spec: Spec,
    mode: LaunchMode,
) -> Result<StartedSweep, UserError> {
    warn_of_sweep(&spec);
    let launched = launch_file(client, server, file, spec, mode).await?;
    report_data(&launched)?;
    let lines = format_reused_results(&launched);
    let claims_line = describe_other_claims(&launched);

    let is_new = !launched.found;
    let status = launched.status.unwrap_or_default();
    // A sweep that just continues is announced when its workers start.
    if is_new || launched.retried > 0 || status.state() == v1::SweepState::Completed {
        lines.iter().for_each(|line| print_stderr_line(line));
    }
    if let Some(line) = claims_line {
        print_stderr_line(&line);
    }

    Ok(StartedSweep { status, is_new })
}

/// Uploads the files of a sweep whose file has been read as `spec`, and launches it.
pub(super) async fn launch_file(
    client: &mut Client,
    server: &RunningServer,
    file: &SweepFile,
    spec: Spec,
    mode: LaunchMode,
) -> Result<v1::LaunchResponse, UserError> {
    upload_files(client, file).await?;
    let request = request_as_user(build_launch_request(file, &spec, mode));
    server.launch_read_sweep(request, spec).await
}

/// Resumes a sweep in the store, given its name, its id or a prefix of the id.
async fn resume_stored_sweep(
    client: &mut Client,
    server: &RunningServer,
    word: &str,
    table: &RunTableArgs,
) -> Result<StartedSweep, UserError> {
    let id = resolve_sweep_id(client, word).await?;
    let status = query_status(client, &id).await?;
    // The coordinator does not resume a sweep that it withholds, and says why.
    if status.withheld.is_empty() {
        check_numerics(&status.numerics)?;
        check_stored_table(client, &id, table).await?;
    }

    let status = match status.state() {
        v1::SweepState::Completed => status,
        _ => server.resume_sweep(&status.sweep_id()).await?,
    };
    Ok(StartedSweep {
        status,
        is_new: false,
    })
}

/// Refuses axes and metrics of the final table that a stored sweep lacks, by a query of a table that has them.
async fn check_stored_table(
    client: &mut Client,
    sweep: &SweepId,
    table: &RunTableArgs,
) -> Result<(), UserError> {
    let by: Vec<String> = [&table.rows, &table.cols]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    if by.is_empty() && table.metric.is_none() {
        return Ok(());
    }

    let request = v1::TableRequest {
        sweep: sweep.to_string(),
        by,
        metric: table.metric.clone().unwrap_or_default(),
        ..v1::TableRequest::default()
    };
    query_table(client, request).await.map(|_| ())
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
        let trials = format_count(*trials, "trial");
        print_stderr_line(&format!(
            "also in this store, unfinished and paused: {name} ({id}), {done} of {trials}; `ergodic run {id} --store \
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

#[cfg(test)]
mod tests {
    use ergodic_common::spec::SpecSource;

    use crate::standalone::local_workers::start_embedded_coordinator;
    use crate::standalone::sweeps::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_this_process_has_read_is_not_read_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let server = start_embedded_coordinator(dir.path(), None, None)
            .await
            .expect("the directory is free");
        let mut client = Client::connect(&server.url(), &ClientAuth::default())
            .await
            .expect("the coordinator answers");

        let mut source = SpecSource {
            text: "name = \"read-once\"\nrepeats = 3\nmodel = { kind = \"empty\" }\n".to_owned(),
            ..SpecSource::default()
        };
        let spec = Spec::read_new(&source).expect("a valid sweep");
        // Whoever reads this is told that it is no sweep.
        source.text = "read = \"again\"\n".to_owned();
        let file = SweepFile {
            source,
            contents: Vec::new(),
        };
        let mode = LaunchMode::All;
        let launched = launch_or_resume(&mut client, &server, &file, spec, mode).await;

        let status = launched.expect("the sweep is launched").status;
        assert_eq!((status.name.as_str(), status.trials), ("read-once", 3));
        drop(client);
        server.stop().await;
    }
}
