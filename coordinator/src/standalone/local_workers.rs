//! The workers that a command starts on this machine for its embedded coordinator, and what the command line says about them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_proto::cache_folder::find_cache_folder;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;
use tokio::process::Child;

use crate::client::Client;
use crate::client::query::query_sweeps;
use crate::client::status_text::count_done_trials;
use crate::server::{self, LimitOptions, ProgramPolicy, ServeOptions};
use crate::store::location::StoreLocation;
use crate::terminal::print_stderr_line;
use crate::worker_processes::{WorkerCommand, find_worker, terminate_child};

/// The most restarts of workers that crashed while no further trial ends.
const MAX_RESTARTS: u32 = 20;
/// Time limit for workers to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How trials are run on this machine.
#[derive(Debug, Args)]
pub struct LocalRunArgs {
    /// Worker processes to start
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub workers: u32,
    /// Trials that each worker runs at a time [default: one per core, shared by the workers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub slots: Option<u32>,
    /// Run all trials, even those whose results are stored already
    #[arg(long)]
    pub again: bool,
    /// Directory with dataset files
    #[arg(long, env = "ERGODIC_DATA", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Directory of datasets that all runs share; a run's directory has hard links to it [default: ~/.cache/ergodic]
    #[arg(long, env = "ERGODIC_CACHE", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Run the programs of sweep files (`[program]`) without asking
    #[arg(long)]
    pub programs: bool,
    /// The worker program [default: beside this one, else on PATH]
    #[arg(long, value_name = "FILE")]
    pub worker_bin: Option<PathBuf>,
}

impl LocalRunArgs {
    /// Finds the worker program.
    ///
    /// # Errors
    /// There is none, or it is of another build.
    pub(super) async fn find_program(&self) -> Result<PathBuf, UserError> {
        find_worker(self.worker_bin.as_deref()).await
    }

    /// Starts a coordinator on a folder, with the datasets of these options.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub(super) async fn start_coordinator(
        &self,
        dir: &Path,
    ) -> Result<server::RunningServer, UserError> {
        let cache = self.cache_dir.clone().or_else(find_cache_folder);
        start_embedded_coordinator(dir, self.data_dir.clone(), cache).await
    }

    /// Starts the workers of a coordinator, whose logs go into a folder.
    ///
    /// # Errors
    /// The program cannot be started.
    pub(super) fn start_workers(
        &self,
        url: &str,
        (program, runs_programs): (&Path, bool),
        dir: &Path,
    ) -> Result<WorkerProcesses, UserError> {
        let slots = self.slots.unwrap_or_else(|| slots_per_worker(self.workers));
        let workers = 1..=self.workers;
        let commands = workers.map(|n| WorkerCommand {
            program: program.to_owned(),
            coordinator_url: url.to_owned(),
            slots,
            data_dir: self.data_dir.clone(),
            cache_dir: self.cache_dir.clone(),
            programs: runs_programs,
            log: dir.join(format!("worker-{n}.log")),
        });
        WorkerProcesses::start(commands.collect())
    }
}

/// Starts a coordinator on a folder, which only this machine can reach. It shares datasets with other folders by `cache_dir`.
///
/// # Errors
/// The folder cannot be used.
pub(super) async fn start_embedded_coordinator(
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
        // Every user of this machine reaches the port, and must not run programs in this one's name.
        programs: ProgramPolicy::OwnProcess,
        // Workers are local processes, so one that is silent for this long is gone.
        lease_ttl: Duration::from_secs(5),
        verify_store: false,
        limits: LimitOptions::without_rates(),
    };

    server::start_server(options).await
}

/// Removes the folder of a coordinator that refused all that it was to run, unless it has existed before: nothing is left behind.
pub(super) fn remove_refused_store(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
    // `remove_dir` fails on purpose if the parent has other content.
    let _ = dir.parent().map(std::fs::remove_dir);
}

fn slots_per_worker(workers: u32) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    (cores / workers).max(1)
}

/// The worker processes of a run.
pub(super) struct WorkerProcesses {
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
    pub(super) async fn supervise(&mut self, url: &str) -> UserError {
        let mut ended = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            for (command, child) in &mut self.all {
                let Ok(Some(status)) = child.try_wait() else {
                    continue;
                };
                let now = query_done_trials(url).await.unwrap_or(ended);
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

    pub(super) async fn stop_all(mut self) {
        self.all
            .iter()
            .for_each(|(_, child)| terminate_child(child));
        for (_, child) in &mut self.all {
            let _ = tokio::time::timeout(STOP_TIMEOUT, child.wait()).await;
        }
    }
}

/// Number of trials of all sweeps that have ended, if the coordinator responds.
async fn query_done_trials(url: &str) -> Result<u64, UserError> {
    let mut client = Client::connect(url, &ClientAuth::default()).await?;
    let sweeps = query_sweeps(&mut client).await?;
    Ok(sweeps.iter().map(count_done_trials).sum())
}

fn repeated_exit_error(log: &Path, status: std::process::ExitStatus) -> UserError {
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
