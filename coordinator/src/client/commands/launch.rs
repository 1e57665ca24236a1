//! `ergodic launch`: sends a sweep and its files to a coordinator, and reports what need not run.

use std::path::Path;

use clap::Args;
use ergodic_common::Spec;
use ergodic_common::escape::escape_line;
use ergodic_common::ids::SweepId;
use ergodic_common::number_format::format_count;
use ergodic_common::spec::SpecSource;
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::status::UserError;
use ergodic_proto::{transfer, v1};

use super::table::{TableQueryArgs, TableView, query_table_text};
use super::watch::follow_until_interrupt;
use crate::app::{CommandOutcome, print_output, print_unpaged};
use crate::client::Client;
use crate::client::args::{ConnectionArgs, DEFAULT_COORDINATOR, SettingArgs};
use crate::client::last_run::LastRun;
use crate::client::latest::request_as_user;
use crate::client::query::incomplete_response;
use crate::client::render::{TextFormat, print_stderr_line};
use crate::client::status_text::count_done_trials;
use crate::client::sweep_file::{SweepFile, read_launch_spec, read_sweep_file, warn_of_sweep};
use crate::client::sweep_set::SweepSet;

/// `ergodic launch`
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// The sweep file
    pub spec: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub change: SettingArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
    /// After the id is printed, follow the sweep to its end and print its table
    #[arg(long)]
    pub watch: bool,
    /// Run all trials, even those whose results another sweep has
    #[arg(long)]
    pub again: bool,
}

/// Launches a sweep and prints its id.
///
/// # Errors
/// The sweep file cannot be used, the sweep was refused, or nobody answers.
pub async fn run_launch(args: LaunchArgs) -> Result<CommandOutcome, UserError> {
    let file = read_sweep_file(&args.spec, &args.change.resolve())?;
    let mut client = args.connection.connect().await?;
    let mode = if args.again {
        LaunchMode::All
    } else {
        LaunchMode::Missing
    };
    let launched = launch_sweep(&mut client, &file, mode).await?;
    format_reused_results(&launched)
        .into_iter()
        .chain(describe_other_claims(&launched))
        .for_each(|line| print_stderr_line(&line));

    let status = launched.status.unwrap_or_default();
    if args.connection.coordinator == DEFAULT_COORDINATOR {
        LastRun::remember_coordinator(Path::new(""), DEFAULT_COORDINATOR);
    }
    print_output(format!("{}\n", status.id))?;

    match args.watch {
        true => watch_launched(&mut client, &status.sweep_id()).await,
        false => Ok(CommandOutcome::Done),
    }
}

/// Follows a sweep to its end and prints its table.
async fn watch_launched(client: &mut Client, id: &SweepId) -> Result<CommandOutcome, UserError> {
    let Some(status) = follow_until_interrupt(client, id).await? else {
        return Ok(CommandOutcome::Interrupted);
    };
    let query = TableQueryArgs::default();
    let view = TableView::for_stdout(TextFormat::Table);
    let sweep = SweepSet::of_one(id.clone());
    print_unpaged(&query_table_text(client, &sweep, &query, view).await?)?;

    Ok(CommandOutcome::from_sweep(&status))
}

/// The trials of a sweep that are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchMode {
    /// All trials, whatever results other sweeps have.
    All,
    /// The trials whose results no sweep in the store has.
    Missing,
    /// The trials whose results no sweep in the store has. An unfinished sweep with the same
    /// content is resumed.
    Resume,
}

/// Launches a sweep once the coordinator has the files that it names, and prints a description of
/// its data.
///
/// # Errors
/// The sweep was refused, or the coordinator does not respond.
pub async fn launch_sweep(
    client: &mut Client,
    file: &SweepFile,
    mode: LaunchMode,
) -> Result<v1::LaunchResponse, UserError> {
    // Reads the sweep before uploading, because files of an invalid sweep would be sent in vain.
    let spec = read_launch_spec(&file.source)?;
    warn_of_sweep(&spec);
    upload_files(client, file).await?;

    let request = build_launch_request(file, &spec, mode);
    let launched = client
        .call(async |client| client.sweeps.launch(request_as_user(request)).await)
        .await?;
    report_data(&launched)?;
    Ok(launched)
}

/// Builds the request to launch a sweep whose file has been read as `spec`.
pub fn build_launch_request(file: &SweepFile, spec: &Spec, mode: LaunchMode) -> v1::LaunchRequest {
    // The lowest grammar that reads the file alike, so that an older coordinator accepts it.
    let source = SpecSource {
        grammar: spec.min_grammar(),
        ..file.source.clone()
    };
    v1::LaunchRequest {
        source: Some((&source).into()),
        resume: mode == LaunchMode::Resume,
        reuse: mode != LaunchMode::All,
        checksum: Vec::new(),
    }
    .with_checksum()
}

/// Prints a description of the data of a sweep that was launched.
///
/// # Errors
/// The response lacks the status of the sweep.
pub fn report_data(launched: &v1::LaunchResponse) -> Result<(), UserError> {
    let status = launched
        .status
        .as_ref()
        .ok_or_else(|| incomplete_response("LaunchResponse"))?;
    if !launched.data_description.is_empty() {
        print_stderr_line(&format!(
            "data: {}; {}",
            escape_line(&status.data),
            escape_line(&launched.data_description)
        ));
    }

    Ok(())
}

/// Uploads the files that a sweep file names.
///
/// # Errors
/// A file was refused, or the coordinator does not respond.
pub async fn upload_files(client: &mut Client, file: &SweepFile) -> Result<(), UserError> {
    if !file.contents.is_empty() {
        client.switch_to_leader().await?;
    }

    for (pin, content) in file.source.files.iter().zip(&file.contents) {
        transfer::upload_file(&mut client.files, pin.hash, content.clone())
            .await
            .map_err(|e| client.to_user_error(&e))?;
    }

    Ok(())
}

/// Lines for people about trials that need not run; empty if all run.
pub fn format_reused_results(launched: &v1::LaunchResponse) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(status) = &launched.status else {
        return lines;
    };
    if launched.found {
        lines.push(describe_found_sweep(status, launched.retried));
    }

    if launched.copied > 0 {
        let copied = launched.copied;
        let from = launched.from.join(", ");
        let left = status.trials.saturating_sub(count_done_trials(status));
        let [are_reused, are_left] = [copied, left].map(|n| if n == 1 { "is" } else { "are" });
        lines.push(format!(
            "{} {are_reused} reused from {from}; {} {are_left} to be run (--again runs all)",
            format_count(copied, "result"),
            format_count(left, "trial")
        ));
    }

    // Where another sweep has the results whole, nothing of these cells runs.
    let left = status.trials.saturating_sub(count_done_trials(status));
    if launched.compared > 0 && left > 0 {
        let cells = if launched.compared == 1 {
            "cell has"
        } else {
            "cells have"
        };
        lines.push(format!(
            "{} {cells} results that lack something that this sweep measures: their trials are run again, and the digests \
             compared",
            launched.compared
        ));
    }

    if !launched.unread.is_empty() {
        let ids = launched.unread.join(", ");
        lines.push(format!(
            "the results of {ids} were not searched: these sweeps, or this one, have too many cells"
        ));
    }

    lines
}

/// Says that an existing sweep keeps its claims; `None` if the file has the same ones.
pub fn describe_other_claims(launched: &v1::LaunchResponse) -> Option<String> {
    let id = &launched.status.as_ref()?.id;

    launched.other_claims.then(|| {
        format!(
            "{id} keeps the quantities and claims that it was launched with; `ergodic verdict {id} --claims FILE` judges \
             those of the file as it is now"
        )
    })
}

/// Describes what happens to an existing sweep with the same content.
fn describe_found_sweep(status: &v1::SweepStatus, retried: u64) -> String {
    let id = &status.id;
    match status.state() {
        _ if retried > 0 => {
            let are = if retried == 1 { "is" } else { "are" };
            format!(
                "{id} is the same sweep: {} that failed, or lost a file, {are} run again",
                format_count(retried, "trial")
            )
        }
        v1::SweepState::Completed => {
            format!(
                "{id} has the results of all these trials: nothing is run (--again runs them once more)"
            )
        }
        v1::SweepState::Paused => {
            format!("{id} is the same sweep, and is paused: `ergodic resume {id}` continues it")
        }
        _ => format!(
            "{id} is the same sweep, and continues: {} of {} are done",
            count_done_trials(status),
            format_count(status.trials, "trial")
        ),
    }
}
