//! `ergodic run`: runs a sweep with an embedded coordinator and local workers, shows its progress,
//! and prints its table.

use std::path::{Path, PathBuf};

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::config::MAIN_STAGE;
use ergodic_common::ids::SweepId;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::local_experiments::check_stored_experiment;
use super::local_workers::{LocalRunArgs, remove_refused_store};
use super::program_consent::agree_to_programs;
use super::run_source::{RunSourceArgs, RunTableArgs, read_run_source};
use super::stages::{FileStage, name_source_sweeps};
use super::sweeps::{StartedSweep, launch_or_resume, start_sweep};
use crate::app::{CommandOutcome, LogFormat, print_unpaged, start_logging, wait_for_interrupt};
use crate::client::Client;
use crate::client::commands::launch::LaunchMode;
use crate::client::commands::table::{TableQueryArgs, TableView, query_table_text};
use crate::client::commands::watch::follow_sweep;
use crate::client::last_run::LastRun;
use crate::client::latest::resolve_sweep_id;
use crate::client::status_text::{count_done_trials, format_sweep_size};
use crate::client::sweep_set::SweepSet;
use crate::server::RunningServer;
use crate::store::StoreError;
use crate::store::location::StoreLocation;
use crate::terminal::print_stderr_line;

/// `ergodic run`
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: RunSourceArgs,
    /// Directory for the results; an unfinished run of the same sweep there is continued [default: ergodic-runs/NAME]
    #[arg(long = "store", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub local: LocalRunArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub table: RunTableArgs,
}

/// Runs a sweep on this machine.
///
/// # Errors
/// The sweep, its data or the worker program cannot be used, or workers keep dying.
pub async fn run_standalone(args: RunArgs) -> Result<CommandOutcome, UserError> {
    start_logging("warn", LogFormat::Pretty);
    if let Some(dir) = &args.dir {
        StoreLocation::refuse_other_url(dir, false).map_err(bad_store_error)?;
    }
    let again = args.local.again;
    let (mut source, name) =
        read_run_source(&args.source, &args.table, again, args.dir.as_deref())?;
    let stages = source.take_stages();
    let mut runs_programs = source.agree_to_program(args.local.programs)?;
    let program = args.local.find_program().await?;
    source.choose_experiment(&program).await?;
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| Path::new("ergodic-runs").join(name));
    let existed = dir.exists();

    let server = args.local.start_coordinator(&dir).await?;
    let stored = source.stored_word().map(str::to_owned);
    let begun = match stored {
        Some(word) => agree_to_stored(&server, &word, args.local.programs, &program).await,
        None => Ok(runs_programs),
    };
    let begun = match begun {
        Ok(runs) => {
            runs_programs = runs;
            start_sweep(source, &args.table, again, &server, &dir).await
        }
        Err(error) => Err(error),
    };
    let refused = begun.is_err();
    let result = match begun {
        Ok((client, started)) => {
            let is_remembered = LastRun::remember_store(Path::new(""), &dir);
            let results = RunResults {
                dir: &dir,
                is_remembered,
            };
            let run = SweepRun {
                local: &args.local,
                server: &server,
                program: (&program, runs_programs),
                results,
            };
            run.run_with_stages(client, started, (&args.table, stages))
                .await
        }
        Err(error) => Err(error),
    };

    server.stop().await;
    if refused && !existed {
        remove_refused_store(&dir);
    }

    result
}

/// Whether a stored sweep is a program, which the user lets run.
///
/// # Errors
/// There is no such sweep, or the user does not let it run.
async fn agree_to_stored(
    server: &RunningServer,
    word: &str,
    is_allowed: bool,
    worker: &Path,
) -> Result<bool, UserError> {
    let mut client = Client::connect(&server.url(), &ClientAuth::default()).await?;
    let id = resolve_sweep_id(&mut client, word).await?;
    // A sweep that cannot be read is not run either, and says so itself.
    let Ok(spec) = server.read_spec(&id).await else {
        return Ok(false);
    };
    check_stored_experiment(&spec, worker).await?;
    agree_to_programs([(&*spec, None)].into_iter(), is_allowed)
}

fn bad_store_error(error: StoreError) -> UserError {
    UserError::new(ErrorCode::BadInput, error.to_string())
}

/// What runs the sweeps of a file.
struct SweepRun<'a> {
    local: &'a LocalRunArgs,
    server: &'a RunningServer,
    /// The worker program, and whether it runs programs of users.
    program: (&'a Path, bool),
    results: RunResults<'a>,
}

impl SweepRun<'_> {
    /// Runs the sweep that was started, and then the stages of its file, as long as each completes without failures.
    async fn run_with_stages(
        &self,
        mut client: Client,
        started: StartedSweep,
        (table, stages): (&RunTableArgs, Vec<FileStage>),
    ) -> Result<CommandOutcome, UserError> {
        let mut outcome = self.run_to_end(&mut client, &started, table).await?;
        let mut ended = vec![(MAIN_STAGE.to_owned(), started.status.sweep_id())];
        let plain = RunTableArgs::plain(table.format);
        for stage in stages {
            if !matches!(outcome, CommandOutcome::Done) {
                break;
            }
            let file = name_source_sweeps(&stage.file, &stage.spec, |name| {
                let known = ended.iter().find(|(ended, _)| ended == name);
                known.map(|(_, id)| id.clone())
            });
            let mode = match self.local.again {
                true => LaunchMode::All,
                false => LaunchMode::Resume,
            };
            let started =
                launch_or_resume(&mut client, self.server, &file, stage.spec, mode).await?;
            ended.push((stage.name, started.status.sweep_id()));
            outcome = self.run_to_end(&mut client, &started, &plain).await?;
        }
        Ok(outcome)
    }

    async fn run_to_end(
        &self,
        client: &mut Client,
        started: &StartedSweep,
        table: &RunTableArgs,
    ) -> Result<CommandOutcome, UserError> {
        let results = self.results;
        let dir = results.dir;
        let status = &started.status;
        let id = status.sweep_id();
        if status.state() == v1::SweepState::Completed {
            let end = RunEnd::Done(Box::new(status.clone()));
            return report_run_end(client, table, &id, end, results).await;
        }

        let url = client.url.clone();
        print_stderr_line(&format_announcement(started, dir, &url));
        let mut workers = self.local.start_workers(&url, self.program, dir)?;
        let end = tokio::select! {
            status = follow_sweep(client, &id) => RunEnd::Done(Box::new(status?)),
            error = workers.supervise(&url) => return Err(error),
            () = wait_for_interrupt() => RunEnd::Interrupted,
        };
        workers.stop_all().await;

        report_run_end(client, table, &id, end, results).await
    }
}

/// Where the results of a run are.
#[derive(Clone, Copy)]
struct RunResults<'a> {
    dir: &'a Path,
    /// Whether commands in this folder find them without `--store`.
    is_remembered: bool,
}

impl RunResults<'_> {
    /// Tells where the results are, and what to type to read them.
    fn describe(&self) -> String {
        let dir = self.dir.display();
        let option = match self.is_remembered {
            true => String::new(),
            false => format!(" --store {dir}"),
        };
        format!(
            "kept in {dir}; `ergodic table latest{option}` shows them again, and `plot`, `report`, `trials` and `compare` read them too"
        )
    }
}

enum RunEnd {
    Done(Box<v1::SweepStatus>),
    Interrupted,
}

async fn report_run_end(
    client: &mut Client,
    table: &RunTableArgs,
    id: &SweepId,
    end: RunEnd,
    results: RunResults<'_>,
) -> Result<CommandOutcome, UserError> {
    let query = TableQueryArgs {
        rows: table.rows.clone(),
        cols: table.cols.clone(),
        metric: table.metric.clone().into_iter().collect(),
        ..TableQueryArgs::default()
    };
    let view = TableView {
        is_of_run: true,
        ..TableView::for_stdout(table.format)
    };
    let sweep = SweepSet::of_one(id.clone());
    print_unpaged(&query_table_text(client, &sweep, &query, view).await?)?;

    match end {
        RunEnd::Interrupted => {
            print_stderr_line(&format!(
                "interrupted: the same command, without --again, continues where this one stopped; so does `ergodic run {id} --store {}`",
                results.dir.display()
            ));
            Ok(CommandOutcome::Interrupted)
        }
        RunEnd::Done(status) => {
            print_stderr_line(&results.describe());

            Ok(CommandOutcome::from_sweep(&status))
        }
    }
}

/// Says what runs, and where. A new sweep may have results already, which it reuses.
fn format_announcement(started: &StartedSweep, dir: &Path, url: &str) -> String {
    let status = &started.status;
    let verb = if !started.is_new && count_done_trials(status) > 0 {
        "continuing"
    } else {
        "running"
    };
    format!(
        "{verb} {} ({}): {}, {}; results in {}, coordinator at {url}",
        status.name,
        status.id,
        format_sweep_size(status),
        status.numerics,
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use crate::standalone::run::*;

    #[test]
    fn a_new_sweep_that_reuses_results_is_not_continued() {
        let announce = |is_new, completed| {
            let status = v1::SweepStatus {
                name: "lr".to_owned(),
                completed,
                ..v1::SweepStatus::default()
            };
            let started = StartedSweep { status, is_new };
            format_announcement(&started, Path::new("runs"), "http://127.0.0.1:1")
        };
        assert!(announce(true, 0).starts_with("running lr"));
        assert!(announce(true, 5).starts_with("running lr"));
        assert!(announce(false, 5).starts_with("continuing lr"));
        assert!(announce(false, 0).starts_with("running lr"));
    }
}
