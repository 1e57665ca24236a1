//! `ergodic run`: an embedded coordinator, local workers, progress, and the table at the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ergodic_common::error::nearest;
use ergodic_common::trial::CPU_F32;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::connect::Access;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tokio::process::Child;

use super::programs::{WorkerCommand, find_worker, terminate};
use crate::cli::args::RunArgs;
use crate::client::Client;
use crate::client::commands::{self, SweepFile, TableOptions};
use crate::client::growth::size_for_people;
use crate::client::watch::{done, eprintln_line, follow};
use crate::program::{LogFormat, Success, interrupted, say, start_logging};
use crate::server::{self, ServeOptions};
use crate::store::place::Place;

/// How often workers that died are started again before another trial has ended.
const RESTARTS: u32 = 20;
/// How long workers may take to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// Runs a sweep on this machine.
///
/// # Errors
/// The sweep, its data or the worker program will not do; or workers keep dying.
pub async fn run(args: RunArgs) -> Result<Success, UserError> {
    start_logging("warn", LogFormat::Pretty);
    let file = commands::read_source(&args.spec.spec, &args.spec.settings)?;
    let spec = Spec::read_new(&file.source).map_err(|e| UserError::new(ErrorCode::BadInput, e.to_string()))?;
    check_table_options(&args, &spec)?;
    if spec.numerics != CPU_F32 {
        let message = format!(
            "numerics: the workers that run starts compute {CPU_F32}, not {}: use serve, a worker of that class and launch",
            spec.numerics
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }
    let program = find_worker(args.worker_bin.as_deref()).await?;
    let dir = args.dir.clone().unwrap_or_else(|| Path::new("ergodic-runs").join(&spec.name));
    let existed = dir.exists();
    let options = ServeOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        store: Place::Directory(dir.clone()),
        files: None,
        data_dir: args.data_dir.clone(),
        advertise: None,
        http: None,
        // Nobody but this machine can reach it.
        door: None,
        // Workers are processes of this machine: one that is not heard of for so long is gone.
        lease_ttl: Duration::from_secs(5),
        check: false,
        rate_limit: None,
    };
    let server = server::start(options).await?;
    let launched = launch(&file, &server.url()).await;
    let refused = launched.is_err();
    let result = match launched {
        Ok((client, status)) => work_and_show(&args, client, &status, &program, &dir).await,
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

/// What the table at the end is to show must exist before anything is trained.
fn check_table_options(args: &RunArgs, spec: &Spec) -> Result<(), UserError> {
    let axes: Vec<&str> = spec.grid.axes().iter().map(|axis| axis.name.as_str()).collect();
    let known = |name: &str| axes.iter().any(|axis| *axis == name || axis.ends_with(&format!(".{name}")));
    if let Some(name) = [&args.rows, &args.cols].into_iter().flatten().find(|name| !known(name)) {
        let message = format!("the sweep has no axis '{name}', {}", nearest(name, axes.iter().copied()));
        return Err(UserError::new(ErrorCode::NotFound, message));
    }
    let metrics: Vec<_> = spec.measure.metrics.iter().map(|m| m.name()).collect();
    match &args.metric {
        Some(name) if !metrics.iter().any(|m| m == name) => {
            let message =
                format!("the sweep does not measure '{name}', {}", nearest(name, metrics.iter().map(AsRef::as_ref)));
            Err(UserError::new(ErrorCode::NotFound, message))
        }
        _ => Ok(()),
    }
}

async fn launch(file: &SweepFile, url: &str) -> Result<(Client, v1::SweepStatus), UserError> {
    let mut client = Client::connect(url, &Access::default()).await?;
    let status = commands::launch(&mut client, file, true).await?;
    Ok((client, status))
}

async fn work_and_show(
    args: &RunArgs,
    mut client: Client,
    status: &v1::SweepStatus,
    program: &Path,
    dir: &Path,
) -> Result<Success, UserError> {
    let url = client.url.clone();
    announce(status, dir, &url);
    let slots = args.slots.unwrap_or_else(|| slots_each(args.workers));
    let command = |n: u32| WorkerCommand {
        program: program.to_owned(),
        join: url.clone(),
        slots,
        data_dir: args.data_dir.clone(),
        log: dir.join(format!("worker-{n}.log")),
    };
    let mut workers = Workers::start((1..=args.workers).map(command).collect())?;
    let end = tokio::select! {
        status = follow(&mut client, &status.id) => End::Done(Box::new(status?)),
        error = workers.supervise(&url, &status.id) => return Err(error),
        () = interrupted() => End::Interrupted,
    };
    workers.leave().await;
    show(&mut client, args, &status.id, end, dir).await
}

enum End {
    Done(Box<v1::SweepStatus>),
    Interrupted,
}

async fn show(client: &mut Client, args: &RunArgs, id: &str, end: End, dir: &Path) -> Result<Success, UserError> {
    let options = TableOptions {
        rows: args.rows.clone(),
        columns: args.cols.clone(),
        metrics: args.metric.clone().into_iter().collect(),
        format: args.format,
        ..TableOptions::default()
    };
    let table = commands::table(client, id, &options).await?;
    say(table)?;
    match end {
        End::Interrupted => {
            eprintln_line("interrupted: the same command continues where this one stopped");
            Ok(Success::Interrupted)
        }
        End::Done(status) => {
            eprintln_line(&format!(
                "kept in {}; `ergodic serve --store {}` serves it to `table`, `trials` and `curves`",
                dir.display(),
                dir.display()
            ));
            Ok(if status.failed > 0 { Success::TrialsFailed } else { Success::Fine })
        }
    }
}

fn announce(status: &v1::SweepStatus, dir: &Path, url: &str) {
    let verb = if done(status) > 0 { "continuing" } else { "running" };
    eprintln_line(&format!(
        "{verb} {} ({}): {}, {}; results in {}, coordinator at {url}",
        status.name,
        status.id,
        size_for_people(status),
        status.numerics,
        dir.display()
    ));
}

fn slots_each(workers: u32) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    (cores / workers).max(1)
}

/// The worker processes of a run.
struct Workers {
    all: Vec<(WorkerCommand, Child)>,
    restarts: u32,
}

impl Workers {
    fn start(commands: Vec<WorkerCommand>) -> Result<Self, UserError> {
        let start = |command: WorkerCommand| command.start().map(|child| (command, child));
        Ok(Self { all: commands.into_iter().map(start).collect::<Result<_, _>>()?, restarts: 0 })
    }

    /// Starts workers that died again; ends only when they keep dying.
    async fn supervise(&mut self, url: &str, id: &str) -> UserError {
        let mut ended = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            for (command, child) in &mut self.all {
                let Ok(Some(status)) = child.try_wait() else { continue };
                let now = ended_trials(url, id).await.unwrap_or(ended);
                self.restarts = if now > ended { 1 } else { self.restarts + 1 };
                ended = now;
                if self.restarts > RESTARTS {
                    return gave_up(&command.log, status);
                }
                eprintln_line(&format!("a worker ended ({status}) and is started again"));
                match command.start() {
                    Ok(again) => *child = again,
                    Err(error) => return error,
                }
            }
        }
    }

    async fn leave(mut self) {
        self.all.iter().for_each(|(_, child)| terminate(child));
        for (_, child) in &mut self.all {
            let _ = tokio::time::timeout(LEAVE_WITHIN, child.wait()).await;
        }
    }
}

/// Trials of a sweep that have ended, if the coordinator says so.
async fn ended_trials(url: &str, id: &str) -> Result<u64, UserError> {
    Ok(done(&commands::status(&mut Client::connect(url, &Access::default()).await?, id).await?))
}

fn gave_up(log: &PathBuf, status: std::process::ExitStatus) -> UserError {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last: Vec<&str> = text.lines().rev().take(5).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    let message = format!("workers keep ending ({status}); the last words in {}:\n{}", log.display(), last.join("\n"));
    UserError::new(ErrorCode::Internal, message)
}
