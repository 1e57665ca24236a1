//! `ergodic bench overhead`: measures what a trial costs besides its training.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::ids::SweepId;
use ergodic_common::spec::SpecSource;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::app::{CommandOutcome, print_output};
use crate::client::Client;
use crate::client::commands::launch::{LaunchMode, launch_sweep};
use crate::client::commands::watch::follow_sweep;
use crate::client::render::DocumentFormat;
use crate::client::status_text::count_done_trials;
use crate::client::sweep_file::SweepFile;
use crate::standalone::sweeps::pause_unfinished_sweeps;
use crate::worker_processes::{
    WorkerCommand, find_worker, ignore_cluster_variables, terminate_child,
};

/// Time limit for the start and the end of the coordinator.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(30);

/// `ergodic bench overhead`
#[derive(Debug, Args)]
pub struct BenchOverheadArgs {
    /// Trials to run, a multiple of 100 [default: 100000, or 2000 with --program]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub trials: Option<u32>,
    /// Run programs, each a shell that reports one number, in place of empty trials
    #[arg(long)]
    pub program: bool,
    /// Worker processes
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub workers: u32,
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

/// Runs the measurement and prints it.
///
/// # Errors
/// A process could not be started, or the sweep did not end as expected.
pub async fn run_overhead_bench(args: BenchOverheadArgs) -> Result<CommandOutcome, UserError> {
    if !args.trial_count().is_multiple_of(100) {
        return Err(UserError::new(
            ErrorCode::BadInput,
            "--trials: expected a multiple of 100 (there are 100 cells)",
        ));
    }

    let program = find_worker(args.worker_bin.as_deref()).await?;
    let (dir, keep) = match &args.dir {
        Some(dir) => (dir.clone(), true),
        None => (
            std::env::temp_dir().join(format!("ergodic-bench-{}", std::process::id())),
            false,
        ),
    };
    let result = measure_overhead(&args, &program, &dir).await;

    if !keep {
        let _ = std::fs::remove_dir_all(&dir);
    }

    print_output(render_overhead(&result?, args.format))
}

impl BenchOverheadArgs {
    fn trial(&self) -> BenchTrial {
        match self.program {
            true => BenchTrial::Program,
            false => BenchTrial::Empty,
        }
    }

    fn trial_count(&self) -> u32 {
        self.trials.unwrap_or(match self.trial() {
            BenchTrial::Empty => 100_000,
            BenchTrial::Program => 2_000,
        })
    }
}

/// What the trials of a benchmark are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BenchTrial {
    /// Trials without a training, whose results are made up.
    Empty,
    /// Programs that report one number.
    Program,
}

impl BenchTrial {
    /// The text of a sweep of such trials, with 100 cells.
    fn sweep_text(self, trials: u32) -> String {
        let repeats = trials / 100;
        match self {
            Self::Empty => format!(
                "name = \"overhead\"\nrepeats = {repeats}\n[model]\nkind = \"empty\"\n[train]\nsteps = 20\n[grid]\n\
                 lr = {{ log = [0.001, 1.0], points = 10 }}\nwd = {{ log = [1e-5, 1e-2], points = 10 }}\n\
                 [measure]\nevery = \"1 step\"\n\
                 metrics = [\"train_loss\", \"test_acc\", \"weight_norm\", \"effective_lr\", \"grad_norm\", \"angular_update\"]\n"
            ),
            Self::Program => format!(
                "name = \"overhead\"\nrepeats = {repeats}\n[program]\n\
                 command = ['sh', '-c', 'echo \"{{{{\\\"step\\\": 1, \\\"loss\\\": $1}}}}\" > $ERGODIC_METRICS', 'sh', '{{a}}']\n\
                 metrics = {{ loss = \"min\" }}\n[grid]\na = {{ linear = [1, 100], points = 100 }}\n"
            ),
        }
    }

    /// Options of the coordinator that accepts such trials.
    fn coordinator_options(self) -> &'static [&'static str] {
        match self {
            Self::Empty => &[],
            Self::Program => &["--programs"],
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Empty => "empty trials",
            Self::Program => "programs",
        }
    }
}

struct OverheadMeasurement {
    trial: BenchTrial,
    trials: u64,
    workers: u32,
    seconds: f64,
    coordinator_cpu: f64,
    peak_rss: u64,
}

impl OverheadMeasurement {
    /// Time for which a trial keeps a worker, whose slot is always busy, in milliseconds.
    fn worker_ms_per_trial(&self) -> f64 {
        self.seconds * f64::from(self.workers) / self.trials as f64 * 1e3
    }
}

async fn measure_overhead(
    args: &BenchOverheadArgs,
    program: &Path,
    dir: &Path,
) -> Result<OverheadMeasurement, UserError> {
    let trial = args.trial();
    let (coordinator, url) = start_coordinator(dir, trial.coordinator_options()).await?;
    let mut client = Client::connect(&url, &ClientAuth::default()).await?;
    // Unfinished sweeps of the directory would share the workers and distort the measurement.
    pause_unfinished_sweeps(&mut client).await?;
    let workers = start_workers(program, (&url, trial), dir, args.workers)?;
    wait_for_workers(&mut client, args.workers).await?;

    let before = query_info(&mut client).await?;
    let start = Instant::now();
    let id = launch_bench_sweep(&mut client, trial, args.trial_count()).await?;
    let status = follow_sweep(&mut client, &id).await?;

    let seconds = start.elapsed().as_secs_f64();
    let after = query_info(&mut client).await?;

    check_completed(&status, args.trial_count(), dir)?;

    for child in workers.into_iter().chain([coordinator]) {
        stop_process(child).await;
    }

    Ok(OverheadMeasurement {
        trial,
        trials: status.completed,
        workers: args.workers,
        seconds,
        coordinator_cpu: after.cpu_seconds - before.cpu_seconds,
        peak_rss: after.peak_rss_bytes,
    })
}

fn check_completed(status: &v1::SweepStatus, trials: u32, dir: &Path) -> Result<(), UserError> {
    if status.completed == u64::from(trials) {
        return Ok(());
    }

    let message = format!(
        "{} of {trials} trials completed; see the logs in {}",
        count_done_trials(status),
        dir.display()
    );
    Err(UserError::new(ErrorCode::Internal, message))
}

/// Launches the sweep of the benchmarks; returns its id.
pub(crate) async fn launch_bench_sweep(
    client: &mut Client,
    trial: BenchTrial,
    trials: u32,
) -> Result<SweepId, UserError> {
    let sweep = build_bench_sweep(trial, trials);
    let launched = launch_sweep(client, &sweep, LaunchMode::All).await?;
    Ok(launched.status.unwrap_or_default().sweep_id())
}

pub(crate) fn start_workers(
    program: &Path,
    (url, trial): (&str, BenchTrial),
    dir: &Path,
    count: u32,
) -> Result<Vec<Child>, UserError> {
    let start_nth = |n| {
        let command = build_worker_command(program, url, dir, n);
        let programs = trial == BenchTrial::Program;
        WorkerCommand {
            programs,
            ..command
        }
        .start()
    };
    (1..=count).map(start_nth).collect()
}

/// The command of the `n`-th worker, with one slot, so that it is one busy process.
pub(crate) fn build_worker_command(program: &Path, url: &str, dir: &Path, n: u32) -> WorkerCommand {
    WorkerCommand {
        program: program.to_owned(),
        coordinator_url: url.to_owned(),
        slots: 1,
        data_dir: None,
        cache_dir: None,
        programs: false,
        log: dir.join(format!("worker-{n}.log")),
    }
}

/// Builds a sweep; that of empty trials has six metrics and a curve of twenty points per trial.
fn build_bench_sweep(trial: BenchTrial, trials: u32) -> SweepFile {
    let source = SpecSource {
        file: "overhead".into(),
        text: trial.sweep_text(trials),
        ..SpecSource::default()
    };

    SweepFile {
        source,
        contents: Vec::new(),
    }
}

/// Starts a coordinator on this directory with further options; returns it with its address.
pub(crate) async fn start_coordinator(
    dir: &Path,
    options: &[&str],
) -> Result<(Child, String), UserError> {
    std::fs::create_dir_all(dir).map_err(|e| start_error(&e))?;
    let log = dir.join("coordinator.log");
    let mut child = spawn_coordinator(dir, options, &log).map_err(|e| start_error(&e))?;

    let stdout = child.stdout.take().expect("stdout is piped");
    let mut lines = BufReader::new(stdout).lines();
    let first = tokio::time::timeout(PROCESS_TIMEOUT, lines.next_line()).await;
    match first {
        Ok(Ok(Some(url))) => Ok((child, url)),
        _ => {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            Err(UserError::new(
                ErrorCode::Internal,
                format!("the coordinator did not start:\n{log}"),
            ))
        }
    }
}

fn spawn_coordinator(dir: &Path, options: &[&str], log: &Path) -> std::io::Result<Child> {
    let program = std::env::current_exe()?;
    let log = std::fs::File::create(log)?;
    let mut command = Command::new(program);
    ignore_cluster_variables(&mut command);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--store"])
        .arg(dir)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
}

fn start_error(error: &std::io::Error) -> UserError {
    UserError::new(
        ErrorCode::Internal,
        format!("cannot start a coordinator: {error}"),
    )
}

pub(crate) async fn wait_for_workers(client: &mut Client, wanted: u32) -> Result<(), UserError> {
    let deadline = Instant::now() + PROCESS_TIMEOUT;
    while Instant::now() < deadline {
        let response = client
            .call(async |client| client.sweeps.workers(v1::WorkersRequest {}).await)
            .await?;
        if response.workers.len() as u32 >= wanted {
            return Ok(());
        }

        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    Err(UserError::new(
        ErrorCode::Internal,
        "the workers did not join",
    ))
}

pub(crate) async fn query_info(client: &mut Client) -> Result<v1::InfoResponse, UserError> {
    client
        .call(async |client| client.sweeps.info(v1::InfoRequest {}).await)
        .await
}

pub(crate) async fn stop_process(mut child: Child) {
    terminate_child(&child);
    let _ = tokio::time::timeout(PROCESS_TIMEOUT, child.wait()).await;
}

fn render_overhead(m: &OverheadMeasurement, format: DocumentFormat) -> String {
    let rate = m.trials as f64 / m.seconds;
    let cpu_us = m.coordinator_cpu / m.trials as f64 * 1e6;
    let rss = m.peak_rss as f64 / 1_048_576.0;

    match format {
        DocumentFormat::Json => format!(
            "{}\n",
            json!({
                "trials": m.trials, "workers": m.workers, "seconds": m.seconds, "trials_per_second": rate,
                "worker_ms_per_trial": m.worker_ms_per_trial(),
                "coordinator_cpu_us_per_trial": cpu_us, "coordinator_peak_rss_mib": rss,
            })
        ),
        DocumentFormat::Table => format!(
            "{} {} over {} workers in {:.2} s: {rate:.0} trials/s, {:.2} ms of a worker per trial\n\
             coordinator: {cpu_us:.1} µs of CPU per trial, {rss:.0} MiB at its peak\n",
            m.trials,
            m.trial.plural(),
            m.workers,
            m.seconds,
            m.worker_ms_per_trial(),
        ),
    }
}
