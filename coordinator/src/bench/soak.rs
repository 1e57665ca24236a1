//! `ergodic bench soak`: runs many empty trials while workers are killed, restarts the coordinator,
//! and checks all counts at the end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::duration::parse_duration;
use ergodic_common::ids::SweepId;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::json;
use tokio::process::Child;

use super::overhead::{
    BenchTrial, build_worker_command, launch_bench_sweep, query_info, start_coordinator,
    start_workers, stop_process, wait_for_workers,
};
use crate::app::{CommandOutcome, print_output};
use crate::client::Client;
use crate::client::commands::watch::follow_sweep;
use crate::client::query::query_status;
use crate::client::render::DocumentFormat;
use crate::standalone::sweeps::pause_unfinished_sweeps;
use crate::worker_processes::{WorkerCommand, find_worker};

/// `ergodic bench soak`
#[derive(Debug, Args)]
pub struct BenchSoakArgs {
    /// Trials to run, a multiple of 100
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=100_000_000))]
    pub trials: u32,
    /// Worker processes
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub workers: u32,
    /// Interval at which a worker is killed and another started
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    pub kill_every: Duration,
    /// Keep the store here [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The worker program [default: beside this one, else on PATH]
    #[arg(long, value_name = "FILE")]
    pub worker_bin: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: DocumentFormat,
}

/// Runs the benchmark and prints its results.
///
/// # Errors
/// A process could not be started, or the sweep did not end as it should: what is wrong is named.
pub async fn run_soak_bench(args: BenchSoakArgs) -> Result<CommandOutcome, UserError> {
    if !args.trials.is_multiple_of(100) {
        return Err(UserError::new(
            ErrorCode::BadInput,
            "--trials: expected a multiple of 100 (there are 100 cells)",
        ));
    }

    let program = find_worker(args.worker_bin.as_deref()).await?;
    let (dir, keep) = match &args.dir {
        Some(dir) => (dir.clone(), true),
        None => (
            std::env::temp_dir().join(format!("ergodic-soak-{}", std::process::id())),
            false,
        ),
    };
    let result = measure_soak(&args, &program, &dir).await;
    if !keep && result.is_ok() {
        let _ = std::fs::remove_dir_all(&dir);
    }

    print_output(render_soak(&result?, args.format))
}

struct SoakMeasurement {
    trials: u64,
    killed: u32,
    releases: u64,
    seconds: f64,
    coordinator_cpu: f64,
    peak_rss: u64,
    restart_seconds: f64,
}

async fn measure_soak(
    args: &BenchSoakArgs,
    program: &Path,
    dir: &Path,
) -> Result<SoakMeasurement, UserError> {
    // A short lease TTL, so that trials of a killed worker come back soon.
    let (coordinator, url) = start_coordinator(dir, &["--lease-ttl", "5s"]).await?;
    let mut client = Client::connect(&url, &ClientAuth::default()).await?;
    // Unfinished sweeps of the directory would share the workers and distort the measurement.
    pause_unfinished_sweeps(&mut client).await?;
    let workers = start_workers(program, (&url, BenchTrial::Empty), dir, args.workers)?;
    wait_for_workers(&mut client, args.workers).await?;

    let before = query_info(&mut client).await?;
    let start = Instant::now();
    let id = launch_bench_sweep(&mut client, BenchTrial::Empty, args.trials).await?;
    let mut victims = Victims {
        workers,
        killed: 0,
        next: args.workers,
    };
    let status = tokio::select! {
        status = follow_sweep(&mut client, &id) => status?,
        error = victims.kill_periodically(args.kill_every, |n| build_worker_command(program, &url, dir, n)) => return Err(error),
    };

    let seconds = start.elapsed().as_secs_f64();
    let after = query_info(&mut client).await?;
    check_soak_result(&mut client, &status, args, dir).await?;

    for child in victims.workers.into_iter().chain([coordinator]) {
        stop_process(child).await;
    }

    let restart_seconds = measure_restart(dir, &status.sweep_id()).await?;
    Ok(SoakMeasurement {
        trials: status.trials,
        killed: victims.killed,
        releases: status.releases,
        seconds,
        coordinator_cpu: after.cpu_seconds - before.cpu_seconds,
        peak_rss: after.peak_rss_bytes,
        restart_seconds,
    })
}

struct Victims {
    workers: Vec<Child>,
    killed: u32,
    next: u32,
}

impl Victims {
    /// Kills one worker after the other, and replaces each. Ends only when that fails.
    async fn kill_periodically(
        &mut self,
        pause: Duration,
        command: impl Fn(u32) -> WorkerCommand,
    ) -> UserError {
        loop {
            tokio::time::sleep(pause).await;
            let victim = self.killed as usize % self.workers.len();
            let _ = self.workers[victim].kill().await;
            self.killed += 1;
            self.next += 1;

            match command(self.next).start() {
                Ok(child) => self.workers[victim] = child,
                Err(error) => return error,
            }
        }
    }
}

/// Checks that there is one row per trial, in order, that all trials completed, and that none came
/// again with other bits.
async fn check_soak_result(
    client: &mut Client,
    status: &v1::SweepStatus,
    args: &BenchSoakArgs,
    dir: &Path,
) -> Result<(), UserError> {
    if status.completed != u64::from(args.trials) || status.mismatches > 0 {
        let problem = format!(
            "{} of {} trials completed, {} with different bits",
            status.completed, args.trials, status.mismatches
        );
        return Err(soak_error(&problem, dir));
    }

    let rows = count_rows_in_order(client, &status.sweep_id(), dir).await?;
    if rows != status.trials {
        let problem = format!("{rows} rows of {} trials", status.trials);
        return Err(soak_error(&problem, dir));
    }

    Ok(())
}

/// Counts the rows of a sweep, which must come in the order of cells and repeats.
async fn count_rows_in_order(
    client: &mut Client,
    sweep: &SweepId,
    dir: &Path,
) -> Result<u64, UserError> {
    let request = v1::TrialsRequest {
        sweep: sweep.to_string(),
        ..v1::TrialsRequest::default()
    };
    let mut pages = client
        .call(async |client| client.sweeps.trials(request).await)
        .await?;

    let mut rows = 0_u64;
    let mut last = None;
    while let Some(page) = client.next_message(&mut pages).await? {
        for row in page.rows {
            let key = row
                .result
                .and_then(|result| result.key)
                .map(|key| (key.cell, key.repeat));
            if key <= last {
                let problem = format!("the row {key:?} comes after {last:?}");
                return Err(soak_error(&problem, dir));
            }

            rows += 1;
            last = key;
        }
    }

    Ok(rows)
}

fn soak_error(problem: &str, dir: &Path) -> UserError {
    let message = format!("{problem}; the store and all logs are in {}", dir.display());
    UserError::new(ErrorCode::Internal, message)
}

/// Seconds from the start of another coordinator on the store to its first response.
async fn measure_restart(dir: &Path, sweep: &SweepId) -> Result<f64, UserError> {
    let start = Instant::now();
    let (coordinator, url) = start_coordinator(dir, &[]).await?;
    let mut client = Client::connect(&url, &ClientAuth::default()).await?;
    query_status(&mut client, sweep).await?;
    let seconds = start.elapsed().as_secs_f64();
    stop_process(coordinator).await;
    Ok(seconds)
}

fn render_soak(m: &SoakMeasurement, format: DocumentFormat) -> String {
    let rate = m.trials as f64 / m.seconds;
    let cpu_us = m.coordinator_cpu / m.trials as f64 * 1e6;
    let rss = m.peak_rss as f64 / 1_048_576.0;

    match format {
        DocumentFormat::Json => format!(
            "{}\n",
            json!({
                "trials": m.trials, "killed_workers": m.killed, "leases_given_out_again": m.releases, "seconds": m.seconds,
                "trials_per_second": rate, "coordinator_cpu_us_per_trial": cpu_us, "coordinator_peak_rss_mib": rss,
                "restart_seconds": m.restart_seconds,
            })
        ),
        DocumentFormat::Table => format!(
            "{} empty trials in {:.1} s: {rate:.0} trials/s; {} workers were killed, {} leases reassigned\n\
             one row per trial, all completed, no different bits\n\
             coordinator: {cpu_us:.1} µs of CPU per trial, {rss:.0} MiB at its peak; {:.2} s from its start to its first answer \
             with all these rows\n",
            m.trials, m.seconds, m.killed, m.releases, m.restart_seconds
        ),
    }
}
