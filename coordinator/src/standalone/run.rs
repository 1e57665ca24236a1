//! `ergodic run`: runs a sweep with an embedded coordinator and local workers, shows its progress,
//! and prints its table.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::ids::SweepId;
use ergodic_proto::cache_folder::find_cache_folder;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tokio::process::Child;

use super::run_source::{RunSourceArgs, RunTableArgs, read_run_source};
use super::sweeps::{StartedSweep, start_sweep};
use crate::app::{CommandOutcome, LogFormat, print_unpaged, start_logging, wait_for_interrupt};
use crate::client::Client;
use crate::client::commands::table::{TableQueryArgs, TableView, query_table_text};
use crate::client::commands::watch::follow_sweep;
use crate::client::last_run::LastRun;
use crate::client::query::query_status;
use crate::client::status_text::{count_done_trials, format_sweep_size};
use crate::client::sweep_set::SweepSet;
use crate::server::{self, ServeOptions};
use crate::store::StoreError;
use crate::store::location::StoreLocation;
use crate::terminal::print_stderr_line;
use crate::worker_processes::{WorkerCommand, find_worker, terminate_child};

/// The most restarts of workers that crashed while no further trial ends.
const MAX_RESTARTS: u32 = 20;
/// Time limit for workers to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// `ergodic run`
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: RunSourceArgs,
    /// Worker processes to start
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub workers: u32,
    /// Trials that each worker runs at a time [default: one per core, shared by the workers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub slots: Option<u32>,
    /// Directory for the results; an unfinished run of the same sweep there is continued [default: ergodic-runs/NAME]
    #[arg(long = "store", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Run all trials, even those whose results are stored already
    #[arg(long)]
    pub again: bool,
    /// Directory with dataset files
    #[arg(long, env = "ERGODIC_DATA", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Directory of datasets that all runs share; a run's directory has hard links to it [default: ~/.cache/ergodic]
    #[arg(long, env = "ERGODIC_CACHE", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// The worker program [default: beside this one, else on PATH]
    #[arg(long, value_name = "FILE")]
    pub worker_bin: Option<PathBuf>,
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
    let (source, name) = read_run_source(&args.source, &args.table, args.dir.as_deref())?;
    let program = find_worker(args.worker_bin.as_deref()).await?;
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| Path::new("ergodic-runs").join(name));
    let existed = dir.exists();

    let cache = args.cache_dir.clone().or_else(find_cache_folder);
    let server = start_embedded_coordinator(&dir, args.data_dir.clone(), cache).await?;
    let begun = start_sweep(source, &args.table, args.again, &server, &dir).await;
    let refused = begun.is_err();
    let result = match begun {
        Ok((client, started)) => {
            let is_remembered = LastRun::remember_store(Path::new(""), &dir);
            let results = RunResults {
                dir: &dir,
                is_remembered,
            };
            run_workers_and_report(&args, client, &started, &program, results).await
        }
        Err(error) => Err(error),
    };

    server.stop().await;
    if refused && !existed {
        // A refused sweep must leave no empty store behind.
        let _ = std::fs::remove_dir_all(&dir);
        // `remove_dir` fails on purpose if the parent has other content.
        let _ = dir.parent().map(std::fs::remove_dir);
    }

    result
}

fn bad_store_error(error: StoreError) -> UserError {
    UserError::new(ErrorCode::BadInput, error.to_string())
}

/// Starts a coordinator on a folder, which only this machine can reach. It shares datasets with other folders by `cache_dir`.
///
/// # Errors
/// The folder cannot be used.
pub async fn start_embedded_coordinator(
    dir: &Path,
    data_dir: Option<PathBuf>,
    cache_dir: Option<PathBuf>,
) -> Result<server::RunningServer, UserError> {
    let options = ServeOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        store: StoreLocation::Directory(dir.to_owned()),
        files_dir: None,
        data_dir,
        cache_dir,
        advertise: None,
        http_listen: None,
        auth: None,
        // Workers are local processes, so one that is silent for this long is gone.
        lease_ttl: Duration::from_secs(5),
        verify_store: false,
        rate_limit: None,
    };

    server::start_server(options).await
}

async fn run_workers_and_report(
    args: &RunArgs,
    mut client: Client,
    started: &StartedSweep,
    program: &Path,
    results: RunResults<'_>,
) -> Result<CommandOutcome, UserError> {
    let dir = results.dir;
    let status = &started.status;
    let id = status.sweep_id();
    if status.state() == v1::SweepState::Completed {
        let end = RunEnd::Done(Box::new(status.clone()));
        return report_run_end(&mut client, args, &id, end, results).await;
    }

    let url = client.url.clone();
    print_stderr_line(&format_announcement(started, dir, &url));
    let commands = build_worker_commands(args, &url, program, dir);
    let mut workers = WorkerProcesses::start(commands)?;
    let end = tokio::select! {
        status = follow_sweep(&mut client, &id) => RunEnd::Done(Box::new(status?)),
        error = workers.supervise(&url, &id) => return Err(error),
        () = wait_for_interrupt() => RunEnd::Interrupted,
    };
    workers.stop_all().await;

    report_run_end(&mut client, args, &id, end, results).await
}

fn build_worker_commands(
    args: &RunArgs,
    url: &str,
    program: &Path,
    dir: &Path,
) -> Vec<WorkerCommand> {
    let slots = args.slots.unwrap_or_else(|| slots_per_worker(args.workers));
    let workers = 1..=args.workers;
    workers
        .map(|n| WorkerCommand {
            program: program.to_owned(),
            coordinator_url: url.to_owned(),
            slots,
            data_dir: args.data_dir.clone(),
            cache_dir: args.cache_dir.clone(),
            log: dir.join(format!("worker-{n}.log")),
        })
        .collect()
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
    args: &RunArgs,
    id: &SweepId,
    end: RunEnd,
    results: RunResults<'_>,
) -> Result<CommandOutcome, UserError> {
    let query = TableQueryArgs {
        rows: args.table.rows.clone(),
        cols: args.table.cols.clone(),
        metric: args.table.metric.clone().into_iter().collect(),
        ..TableQueryArgs::default()
    };
    let view = TableView {
        is_of_run: true,
        ..TableView::for_stdout(args.table.format)
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

fn slots_per_worker(workers: u32) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    (cores / workers).max(1)
}

/// The worker processes of a run.
struct WorkerProcesses {
    all: Vec<(WorkerCommand, Child)>,
    restarts: u32,
}

impl WorkerProcesses {
    fn start(commands: Vec<WorkerCommand>) -> Result<Self, UserError> {
        let mut all = Vec::with_capacity(commands.len());
        for command in commands {
            let child = command.start()?;
            all.push((command, child));
        }

        Ok(Self { all, restarts: 0 })
    }

    /// Starts workers that crashed again; ends only when they keep crashing.
    async fn supervise(&mut self, url: &str, id: &SweepId) -> UserError {
        let mut ended = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            for (command, child) in &mut self.all {
                let Ok(Some(status)) = child.try_wait() else {
                    continue;
                };
                let now = query_done_trials(url, id).await.unwrap_or(ended);
                self.restarts = if now > ended { 1 } else { self.restarts + 1 };
                ended = now;

                if self.restarts > MAX_RESTARTS {
                    return repeated_exit_error(&command.log, status);
                }

                print_stderr_line(&format!("a worker exited ({status}) and is started again"));
                match command.start() {
                    Ok(again) => *child = again,
                    Err(error) => return error,
                }
            }
        }
    }

    async fn stop_all(mut self) {
        self.all
            .iter()
            .for_each(|(_, child)| terminate_child(child));
        for (_, child) in &mut self.all {
            let _ = tokio::time::timeout(STOP_TIMEOUT, child.wait()).await;
        }
    }
}

/// Number of trials of a sweep that have ended, if the coordinator responds.
async fn query_done_trials(url: &str, id: &SweepId) -> Result<u64, UserError> {
    Ok(count_done_trials(
        &query_status(&mut Client::connect(url, &ClientAuth::default()).await?, id).await?,
    ))
}

fn repeated_exit_error(log: &PathBuf, status: std::process::ExitStatus) -> UserError {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last: Vec<&str> = text.lines().rev().take(5).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    let message = format!(
        "workers keep exiting ({status}); the last lines of {}:\n{}",
        log.display(),
        last.join("\n")
    );

    UserError::new(ErrorCode::Internal, message)
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
