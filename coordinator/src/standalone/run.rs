//! `ergodic run`: an embedded coordinator, local workers, progress, and the table at the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ergodic_common::spec::SpecSource;
use ergodic_common::spec_file::error::suggest_nearest;
use ergodic_common::trial::CPU_F32;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::channel::connect::ClientAuth;
use ergodic_proto::status::UserError;
use ergodic_proto::{PROTOCOL_VERSION, v1};
use tokio::process::Child;

use super::processes::{WorkerCommand, find_worker, terminate_child};
use crate::app::{CommandOutcome, LogFormat, print_output, start_logging, wait_for_interrupt};
use crate::cli::args::RunArgs;
use crate::client::Client;
use crate::client::commands::{self, TableOptions};
use crate::client::query::{query_status, query_sweeps};
use crate::client::render::print_stderr_line;
use crate::client::status_text::{count_done_trials, format_sweep_size};
use crate::client::sweep_file::{SweepFile, read_launch_spec, read_sweep_file};
use crate::client::watch::follow_sweep;
use crate::server::{self, ServeOptions};
use crate::store::location::StoreLocation;

/// How often workers that died are started again before another trial has ended.
const MAX_RESTARTS: u32 = 20;
/// How long workers may take to leave.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What is to be run.
enum RunSource {
    /// The sweep of this file.
    File(Box<SweepFile>),
    /// A sweep that is in the folder.
    Stored(String),
}

/// Runs a sweep on this machine.
///
/// # Errors
/// The sweep, its data or the worker program will not do; or workers keep dying.
pub async fn run_standalone(args: RunArgs) -> Result<CommandOutcome, UserError> {
    start_logging("warn", LogFormat::Pretty);
    let (task, name) = read_run_source(&args)?;
    let program = find_worker(args.worker_bin.as_deref()).await?;
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| Path::new("ergodic-runs").join(name));
    let existed = dir.exists();

    let server = start_embedded_coordinator(&dir, args.data_dir.clone()).await?;
    let begun = start_sweep(&task, &args, &server.url(), &dir).await;
    let refused = begun.is_err();
    let result = match begun {
        Ok((client, status)) => {
            run_workers_and_report(&args, client, &status, &program, &dir).await
        }
        Err(error) => Err(error),
    };

    server.stop().await;
    if refused && !existed {
        // Nothing was stored: leave nothing behind.
        let _ = std::fs::remove_dir_all(&dir);
        // Its parent too, if that was made for it and holds nothing else.
        let _ = dir.parent().map(std::fs::remove_dir);
    }

    result
}

/// A coordinator on a folder, which only this machine can reach.
///
/// # Errors
/// The folder cannot be used.
pub async fn start_embedded_coordinator(
    dir: &Path,
    data_dir: Option<PathBuf>,
) -> Result<server::RunningServer, UserError> {
    let options = ServeOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        store: StoreLocation::Directory(dir.to_owned()),
        files_dir: None,
        data_dir,
        advertise: None,
        http_listen: None,
        auth: None,
        // Workers are processes of this machine: one that is not heard of for so long is gone.
        lease_ttl: Duration::from_secs(5),
        verify_store: false,
        rate_limit: None,
    };

    server::start_server(options).await
}

/// What is to be run, as far as it can be told without the folder, and the name of the sweep if it is a file's.
fn read_run_source(args: &RunArgs) -> Result<(RunSource, String), UserError> {
    let file = match read_sweep_file(&args.what, &args.settings) {
        Err(_) if is_stored_sweep(args) => {
            return Ok((RunSource::Stored(args.what.clone()), String::new()));
        }
        read => read?,
    };
    let spec = read_launch_spec(&file.source)?;
    check_spec(args, &spec)?;

    Ok((RunSource::File(Box::new(file)), spec.name))
}

/// Whether a sweep in the folder may be meant: no file of that name is there, and it looks like an id.
fn is_stored_sweep(args: &RunArgs) -> bool {
    let id = (1..=8).contains(&args.what.len())
        && args
            .what
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    id && !Path::new(&args.what).exists() && args.dir.as_ref().is_some_and(|dir| dir.is_dir())
}

fn check_spec(args: &RunArgs, spec: &Spec) -> Result<(), UserError> {
    check_table_options(args, spec)?;
    if spec.numerics != CPU_F32 {
        let message = format!(
            "numerics: the workers that run starts compute {CPU_F32}, not {}: use serve, a worker of that class and launch",
            spec.numerics
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    Ok(())
}

/// What the table at the end is to show must exist before anything is trained.
fn check_table_options(args: &RunArgs, spec: &Spec) -> Result<(), UserError> {
    let axes: Vec<&str> = spec
        .grid
        .axes()
        .iter()
        .map(|axis| axis.name.as_str())
        .collect();
    let known = |name: &str| {
        axes.iter()
            .any(|axis| *axis == name || axis.ends_with(&format!(".{name}")))
    };
    if let Some(name) = [&args.rows, &args.cols]
        .into_iter()
        .flatten()
        .find(|name| !known(name))
    {
        let message = format!(
            "the sweep has no axis '{name}', {}",
            suggest_nearest(name, axes.iter().copied())
        );
        return Err(UserError::new(ErrorCode::NotFound, message));
    }

    let metrics: Vec<_> = spec.measure.metrics.iter().map(|m| m.name()).collect();
    match &args.metric {
        Some(name) if !metrics.iter().any(|m| m == name) => {
            let message = format!(
                "the sweep does not measure '{name}', {}",
                suggest_nearest(name, metrics.iter().map(AsRef::as_ref))
            );
            Err(UserError::new(ErrorCode::NotFound, message))
        }
        _ => Ok(()),
    }
}

/// Takes up the sweep that is to be run, and no other one.
async fn start_sweep(
    task: &RunSource,
    args: &RunArgs,
    url: &str,
    dir: &Path,
) -> Result<(Client, v1::SweepStatus), UserError> {
    let mut client = Client::connect(url, &ClientAuth::default()).await?;
    let left = pause_unfinished_sweeps(&mut client).await?;
    let begun = match task {
        RunSource::File(file) => launch_or_resume(&mut client, file, args.again).await,
        RunSource::Stored(id) => resume_stored_sweep(&mut client, id, args).await,
    };
    let status = match begun {
        Ok(status) => status,
        Err(error) => {
            // As if nothing had been asked.
            for sweep in left.iter().filter(|sweep| is_assigning_trials(sweep)) {
                commands::steer_sweep(&mut client, &sweep.id, v1::Steering::Resume).await?;
            }
            return Err(error);
        }
    };
    report_unfinished_sweeps(left.iter().filter(|sweep| sweep.id != status.id), dir);

    Ok((client, status))
}

/// Holds sweeps that an interrupted run, or another one, left, so that they take no workers; these, as they were. Those
/// that this program cannot carry on are among them, and left alone: they take none.
///
/// # Errors
/// Nobody answers.
pub(crate) async fn pause_unfinished_sweeps(
    client: &mut Client,
) -> Result<Vec<v1::SweepStatus>, UserError> {
    let all = query_sweeps(client).await?;
    let open = |sweep: &v1::SweepStatus| {
        matches!(
            sweep.state(),
            v1::SweepState::Running | v1::SweepState::Paused
        )
    };
    let left: Vec<_> = all.into_iter().filter(open).collect();
    for sweep in left.iter().filter(|sweep| is_assigning_trials(sweep)) {
        commands::steer_sweep(client, &sweep.id, v1::Steering::Pause).await?;
    }

    Ok(left)
}

/// Whether trials of a sweep are given out to workers.
fn is_assigning_trials(sweep: &v1::SweepStatus) -> bool {
    sweep.state() == v1::SweepState::Running && sweep.withheld.is_empty()
}

async fn launch_or_resume(
    client: &mut Client,
    file: &SweepFile,
    again: bool,
) -> Result<v1::SweepStatus, UserError> {
    let what = if again {
        commands::LaunchMode::All
    } else {
        commands::LaunchMode::Resume
    };
    let launched = commands::launch_sweep(client, file, what).await?;
    let told = commands::format_reused_results(&launched);

    let status = launched.status.unwrap_or_default();
    // Of one that goes on it is told below.
    if !launched.found || launched.retried > 0 || status.state() == v1::SweepState::Completed {
        told.iter().for_each(|line| print_stderr_line(line));
    }

    Ok(status)
}

/// Goes on with a sweep that is in the folder.
async fn resume_stored_sweep(
    client: &mut Client,
    id: &str,
    args: &RunArgs,
) -> Result<v1::SweepStatus, UserError> {
    let status = query_status(client, id).await?;
    let request = v1::GetSweepRequest {
        sweep: status.id.clone(),
        protocol: PROTOCOL_VERSION,
    };
    let stored = client
        .workers
        .get_sweep(request)
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner();

    let bad = |message: String| UserError::new(ErrorCode::Internal, message);
    let source = stored
        .source
        .ok_or_else(|| bad(format!("the sweep {} has no file", status.id)))?;
    let source = SpecSource::try_from(source).map_err(|e| bad(e.to_string()))?;
    let spec = Spec::read_stored(&source)
        .map_err(|e| UserError::new(ErrorCode::BadInput, e.to_string()))?;
    check_spec(args, &spec)?;

    match status.state() {
        v1::SweepState::Completed => Ok(status),
        _ => commands::steer_sweep(client, &status.id, v1::Steering::Resume).await,
    }
}

/// Sweeps that are named at most.
const MAX_NAMED_SWEEPS: usize = 8;

/// Says of sweeps that take no part what can be done with them.
fn report_unfinished_sweeps<'a>(left: impl Iterator<Item = &'a v1::SweepStatus>, dir: &Path) {
    let left = left.collect::<Vec<_>>();
    let dir = dir.display();

    for sweep in left.iter().take(MAX_NAMED_SWEEPS) {
        let (
            v1::SweepStatus {
                name,
                id,
                trials,
                withheld,
                ..
            },
            ended,
        ) = (sweep, count_done_trials(sweep));
        if !withheld.is_empty() {
            print_stderr_line(&format!(
                "left alone here: {name} ({id}), of which this program runs nothing: {withheld}; \
                 `ergodic rm {id} --force --dir {dir}` removes it"
            ));
            continue;
        }

        print_stderr_line(&format!(
            "left unfinished here and held: {name} ({id}), {ended} of {trials} trials; `ergodic run {id} --dir {dir}` goes on \
             with it, `ergodic rm {id} --force --dir {dir}` removes it"
        ));
    }

    if left.len() > MAX_NAMED_SWEEPS {
        print_stderr_line(&format!(
            "and {} more: `ergodic serve --store {dir}` and `ergodic list` show them",
            left.len() - MAX_NAMED_SWEEPS
        ));
    }
}

async fn run_workers_and_report(
    args: &RunArgs,
    mut client: Client,
    status: &v1::SweepStatus,
    program: &Path,
    dir: &Path,
) -> Result<CommandOutcome, UserError> {
    if status.state() == v1::SweepState::Completed {
        return report_run_end(
            &mut client,
            args,
            &status.id,
            RunEnd::Done(Box::new(status.clone())),
            dir,
        )
        .await;
    }

    let url = client.url.clone();
    announce_sweep(status, dir, &url);
    let slots = args.slots.unwrap_or_else(|| slots_per_worker(args.workers));
    let command = |n: u32| WorkerCommand {
        program: program.to_owned(),
        coordinator_url: url.clone(),
        slots,
        data_dir: args.data_dir.clone(),
        log: dir.join(format!("worker-{n}.log")),
    };
    let mut workers = WorkerProcesses::start((1..=args.workers).map(command).collect())?;
    let end = tokio::select! {
        status = follow_sweep(&mut client, &status.id) => RunEnd::Done(Box::new(status?)),
        error = workers.supervise(&url, &status.id) => return Err(error),
        () = wait_for_interrupt() => RunEnd::Interrupted,
    };

    workers.stop_all().await;
    report_run_end(&mut client, args, &status.id, end, dir).await
}

enum RunEnd {
    Done(Box<v1::SweepStatus>),
    Interrupted,
}

async fn report_run_end(
    client: &mut Client,
    args: &RunArgs,
    id: &str,
    end: RunEnd,
    dir: &Path,
) -> Result<CommandOutcome, UserError> {
    let options = TableOptions {
        rows: args.rows.clone(),
        columns: args.cols.clone(),
        metrics: args.metric.clone().into_iter().collect(),
        format: args.format,
        ..TableOptions::default()
    };
    let table = commands::query_table_text(client, id, &options).await?;
    print_output(table)?;

    match end {
        RunEnd::Interrupted => {
            print_stderr_line(&format!(
                "interrupted: the same command, without --again, continues where this one stopped; so does `ergodic run {id} --dir {}`",
                dir.display()
            ));
            Ok(CommandOutcome::Interrupted)
        }
        RunEnd::Done(status) => {
            print_stderr_line(&format!(
                "kept in {}; `ergodic serve --store {}` serves it to `table`, `trials` and `curves`",
                dir.display(),
                dir.display()
            ));

            Ok(if status.failed > 0 {
                CommandOutcome::TrialsFailed
            } else {
                CommandOutcome::Done
            })
        }
    }
}

fn announce_sweep(status: &v1::SweepStatus, dir: &Path, url: &str) {
    let verb = if count_done_trials(status) > 0 {
        "continuing"
    } else {
        "running"
    };
    print_stderr_line(&format!(
        "{verb} {} ({}): {}, {}; results in {}, coordinator at {url}",
        status.name,
        status.id,
        format_sweep_size(status),
        status.numerics,
        dir.display()
    ));
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
        let start = |command: WorkerCommand| command.start().map(|child| (command, child));
        Ok(Self {
            all: commands.into_iter().map(start).collect::<Result<_, _>>()?,
            restarts: 0,
        })
    }

    /// Starts workers that died again; ends only when they keep dying.
    async fn supervise(&mut self, url: &str, id: &str) -> UserError {
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

                print_stderr_line(&format!("a worker ended ({status}) and is started again"));
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

/// Trials of a sweep that have ended, if the coordinator says so.
async fn query_done_trials(url: &str, id: &str) -> Result<u64, UserError> {
    Ok(count_done_trials(
        &query_status(&mut Client::connect(url, &ClientAuth::default()).await?, id).await?,
    ))
}

fn repeated_exit_error(log: &PathBuf, status: std::process::ExitStatus) -> UserError {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last: Vec<&str> = text.lines().rev().take(5).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    let message = format!(
        "workers keep ending ({status}); the last words in {}:\n{}",
        log.display(),
        last.join("\n")
    );

    UserError::new(ErrorCode::Internal, message)
}
