//! The program `ergodic-worker`: reads the command line, starts slots and session, and leaves in
//! order.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ergodic_common::duration::parse_duration;
use ergodic_common::escape::escape_lines;
use ergodic_common::ids::{CellIndex, SweepId};
use ergodic_common::spec::source::SpecSource;
use ergodic_common::{BUILD, ErrorCode, Spec, TrialKey};
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::log::EscapedLineWriter;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use prost::Message as _;
use serde_json::json;
use tracing_subscriber::EnvFilter;

use crate::cli::generate::{CompletionsArgs, ManArgs, run_completions, run_man};
use crate::cli::join::{default_cache_dir, join_coordinator, set_up_programs};
use crate::cli::trial_costs::{TrialCostsArgs, measure_costs_of_cells};
use crate::cli::version::LONG_VERSION;
use crate::device::DeviceChoice;
use crate::experiment::Experiments;
use crate::link::LinkPool;
use crate::link::datasets::DatasetDirs;
use crate::program::command::{SuperviseArgs, run_supervise_command};
use crate::program::host::ProgramTrust;
use crate::runner::SlotConfig;
use crate::train::{self, BenchReport, Isa};
use crate::{failpoint, memory, replay, system};

mod departure;
mod generate;
mod join;
mod trial_costs;
mod version;

/// The older name of `--coordinator`, which stays as a hidden alias. `coordinator/src/cli/command.rs` has those of `ergodic`.
const OLD_COORDINATOR_OPTION: &str = "join";

/// Joins an Ergodic coordinator and trains.
#[derive(Debug, Parser)]
#[command(name = "ergodic-worker", version = BUILD, long_version = LONG_VERSION.as_str(), about, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct WorkerCli {
    #[command(subcommand)]
    command: Option<WorkerSubcommand>,
    #[command(flatten)]
    join: JoinArgs,
}

#[derive(Debug, Subcommand)]
enum WorkerSubcommand {
    /// Measure this machine's speed by training on made-up images
    Bench(BenchArgs),
    /// Print the script that has a shell complete commands and options
    Completions(CompletionsArgs),
    /// Write manual pages for `man`
    Man(ManArgs),
    /// Runs one trial of a sweep outside of any lease and writes its result to stdout, for `ergodic replay`
    #[command(hide = true)]
    Trial(TrialArgs),
    /// Runs a program between the worker and its end, for trials that are programs
    #[command(hide = true)]
    SuperviseProgram(SuperviseArgs),
    /// Lists the experiments of this worker program, for `ergodic run`
    #[command(hide = true)]
    Experiments,
    /// Measures what trials of a sweep's cells cost, for `ergodic plan`
    #[command(hide = true)]
    TrialCosts(TrialCostsArgs),
}

#[derive(Debug, Args)]
struct TrialArgs {
    /// The sweep's id
    sweep: SweepId,
    /// The trial, as cell/repeat
    trial: TrialKey,
    /// Address of the coordinator
    #[arg(
        long = "coordinator",
        alias = OLD_COORDINATOR_OPTION,
        env = "ERGODIC_COORDINATOR",
        value_name = "URL"
    )]
    join: String,
    #[command(flatten)]
    access: WorkerAuthArgs,
    /// Threads that share the work
    #[arg(long, default_value_t = 1, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Instruction set
    #[arg(long, default_value = "auto", value_name = "auto|avx512|avx2|portable")]
    isa: String,
    /// Where to train
    #[arg(long, default_value_t, value_name = "cpu|cuda:N")]
    device: DeviceChoice,
    /// Directory with dataset files
    #[arg(long, env = "ERGODIC_DATA", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Directory for fetched datasets [default: ~/.cache/ergodic]
    #[arg(long, env = "ERGODIC_CACHE", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Run a trial that is a program
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "isolated", value_name = "trusted")]
    programs: Option<ProgramTrust>,
}

/// The worker's credentials, and the authorities that it trusts.
#[derive(Debug, Clone, Args)]
struct WorkerAuthArgs {
    /// File with the token, for a coordinator that requires one
    #[arg(long, env = "ERGODIC_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the certificate authorities to trust for the coordinator [default: the one that the token names]
    #[arg(long, env = "ERGODIC_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file of a client certificate, for a coordinator that requires one
    #[arg(long, env = "ERGODIC_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file of the certificate's key
    #[arg(long, env = "ERGODIC_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl WorkerAuthArgs {
    fn read_auth(self) -> Result<ClientAuth, UserError> {
        let access = ClientAuth {
            token: None,
            ca: self.ca,
            identity: self.cert.zip(self.key),
        };
        access.with_token_file(self.token_file.as_deref())
    }
}

#[derive(Debug, Args)]
struct JoinArgs {
    /// Address of the coordinator; of several that share a store, all addresses, separated by commas
    #[arg(
        long = "coordinator",
        alias = OLD_COORDINATOR_OPTION,
        env = "ERGODIC_COORDINATOR",
        value_name = "URL"
    )]
    join: Option<String>,
    #[command(flatten)]
    access: WorkerAuthArgs,
    /// Trials to run at a time [default: as many as the cores allow]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    slots: Option<u32>,
    /// Threads that share the work on each trial; they affect speed, never a bit of a result
    #[arg(long, default_value_t = 1, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Where to train; cuda:N needs a build with CUDA and is for sweeps with numerics = "cuda-f32"
    #[arg(long, default_value_t, value_name = "auto|cpu|cuda:N")]
    device: DeviceChoice,
    /// Instruction set; it affects speed, never a bit of a result
    #[arg(long, default_value = "auto", value_name = "auto|avx512|avx2|portable")]
    isa: String,
    /// How long running trials may continue after SIGTERM or Ctrl-C, and at the end of --time-limit
    #[arg(long, default_value = "20s", value_parser = parse_duration, value_name = "TIME")]
    drain: Duration,
    /// Leave in order before this time is over, as that of a batch job, counted from the start of the worker: running trials are
    /// drained, and what cannot end is continued elsewhere from its checkpoint. Workers leave up to 5 % earlier, not all together
    #[arg(long, env = "ERGODIC_TIME_LIMIT", value_parser = parse_duration, value_name = "TIME")]
    time_limit: Option<Duration>,
    /// Exit after being idle for this long
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    idle_exit: Option<Duration>,
    /// Leave when stdin closes, for programs that start workers and may be killed
    #[arg(long, hide = true)]
    leave_at_eof: bool,
    /// Name shown to people [default: host and process id]
    #[arg(long)]
    name: Option<String>,
    /// Directory with dataset files; missing ones are fetched from the coordinator
    #[arg(long, env = "ERGODIC_DATA", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Directory for fetched datasets [default: ~/.cache/ergodic]
    #[arg(long, env = "ERGODIC_CACHE", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Run trials that are programs of the sweeps' owners, in namespaces of their own; where the system has none, those of a
    /// coordinator at a loopback address alone (which a tunnel can lead to another machine), or with =trusted all of them, which can then read what this worker can
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "isolated", value_name = "trusted")]
    programs: Option<ProgramTrust>,
    /// GPUs that programs get shares of, as in 0,1 or none [default: those of CUDA_VISIBLE_DEVICES, or else all NVIDIA ones]
    #[arg(long, value_parser = parse_gpus, requires = "programs", value_name = "GPUS")]
    gpus: Option<GpuNames>,
    /// Memory that trials may use, as in 8GiB; trials of a sweep that needs more are returned to the coordinator [default: all memory]
    #[arg(long, env = "ERGODIC_MEMORY", value_parser = memory::parse_size, value_name = "SIZE")]
    memory: Option<u64>,
    /// Format of the log on stderr
    #[arg(long, value_enum, env = "ERGODIC_LOG_FORMAT", default_value_t)]
    log_format: WorkerLogFormat,
    /// How often the coordinator gets a checkpoint of a long trial, so that another worker can continue it
    #[arg(long, default_value = "60s", value_parser = parse_checkpoint_interval, value_name = "TIME|off")]
    checkpoint_every: CheckpointInterval,
    /// Directory to keep checkpoints in as well
    #[arg(long, env = "ERGODIC_CHECKPOINTS", value_name = "DIR")]
    checkpoint_dir: Option<PathBuf>,
    /// Directory to keep results in until they are delivered: they outlive this worker, and the next worker with this directory
    /// delivers them while their lease lives
    #[arg(long, env = "ERGODIC_SPOOL", value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Maximum size of the results that wait there, as in 8GiB; beyond it, no trial is started
    #[arg(long, default_value = "1GiB", requires = "spool", value_parser = memory::parse_size, value_name = "SIZE")]
    spool_size: u64,
}

/// The GPUs of a worker, as CUDA_VISIBLE_DEVICES names them.
#[derive(Debug, Clone)]
struct GpuNames(Vec<String>);

fn parse_gpus(text: &str) -> Result<GpuNames, String> {
    if text == "none" {
        return Ok(GpuNames(Vec::new()));
    }
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    let is_name = |name: &String| {
        let mut letters = name.chars();
        !name.is_empty() && letters.all(|c| c.is_ascii_alphanumeric() || "-_/:".contains(c))
    };
    let is_twice = names
        .iter()
        .any(|a| names.iter().filter(|b| a == *b).count() > 1);
    match names.iter().all(is_name) && !is_twice {
        true => Ok(GpuNames(names)),
        false => Err(format!(
            "expected numbers or names of GPUs, each once and separated by commas, as in 0,1, or none; found '{text}'"
        )),
    }
}

/// Interval between uploads of checkpoints; `None` for no uploads.
#[derive(Debug, Clone, Copy)]
struct CheckpointInterval(Option<Duration>);

fn parse_checkpoint_interval(text: &str) -> Result<CheckpointInterval, String> {
    match text {
        "off" | "0" | "0s" => Ok(CheckpointInterval(None)),
        _ => parse_duration(text)
            .map(|every| CheckpointInterval(Some(every)))
            .map_err(|why| format!("{why}; or off")),
    }
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// What to train
    #[arg(long, value_enum, default_value_t)]
    workload: Workload,
    /// Images per step
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=8192))]
    batch: u32,
    /// Steps to time
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    steps: u64,
    /// Threads that share the work
    #[arg(long, default_value_t = 1, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Instruction set
    #[arg(long, default_value = "auto", value_name = "auto|avx512|avx2|portable")]
    isa: String,
    /// Where to train
    #[arg(long, default_value_t, value_name = "cpu|cuda:N")]
    device: DeviceChoice,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: BenchFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// 784-128-10 with batch norm
    Mlp,
    /// Four convolutions of width 16 with batch norm, 28×28
    #[default]
    Cnn4,
    /// Residual network of 20 layers with batch norm, 32×32×3
    Preresnet20,
    /// VGG of 11 layers and width 16 with batch norm, 32×32×3
    Vgg,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum BenchFormat {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum WorkerLogFormat {
    /// For people
    #[default]
    Pretty,
    /// One JSON object per line
    Json,
}

/// Runs the worker program with these experiments, and returns its exit code.
///
/// The command line is that of `ergodic-worker`. [`experiments!`](crate::experiments) lists the experiments.
pub fn main(experiments: Experiments) -> ExitCode {
    let cli = WorkerCli::parse();
    let result = experiments
        .check()
        .and_then(|()| run_command(cli, experiments));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::from(error.code.exit_code())
        }
    }
}

fn run_command(cli: WorkerCli, experiments: Experiments) -> Result<(), UserError> {
    match cli.command {
        Some(WorkerSubcommand::Bench(args)) => run_bench_command(&args),
        Some(WorkerSubcommand::Completions(args)) => run_completions(&args),
        Some(WorkerSubcommand::Man(args)) => run_man(&args),
        Some(WorkerSubcommand::Trial(args)) => run_trial_command(args, experiments),
        Some(WorkerSubcommand::TrialCosts(args)) => {
            parse_isa("auto").and_then(|isa| print_stdout(&measure_costs_of_cells(&args, isa)?))
        }
        Some(WorkerSubcommand::SuperviseProgram(args)) => {
            run_supervise_command(&args).map_err(start_error)
        }
        Some(WorkerSubcommand::Experiments) => print_experiments(&experiments),
        None => run_join_command(cli.join, experiments),
    }
}

fn print_error(error: &UserError) {
    use std::io::Write;
    let _ = writeln!(
        std::io::stderr(),
        "error: {}",
        escape_lines(&error.to_string())
    );
}

fn parse_isa(name: &str) -> Result<Isa, UserError> {
    Isa::from_name(name).map_err(|e| UserError::new(ErrorCode::BadInput, format!("--isa: {e}")))
}

fn start_error(error: std::io::Error) -> UserError {
    UserError::new(ErrorCode::Internal, format!("cannot start: {error}"))
}

fn run_join_command(args: JoinArgs, experiments: Experiments) -> Result<(), UserError> {
    let filter = EnvFilter::try_from_env("ERGODIC_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| EscapedLineWriter(std::io::stderr()))
        .with_target(false);

    match args.log_format {
        WorkerLogFormat::Pretty => logs.init(),
        WorkerLogFormat::Json => logs.json().flatten_event(true).init(),
    }

    let _failpoints = failpoint::set_up_failpoints();
    let isa = parse_isa(&args.isa)?;
    // Training takes the other threads; the connection to the coordinator needs only one.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(start_error)?;
    let result = runtime.block_on(join_coordinator(args, isa, experiments));

    runtime.shutdown_background();
    result
}

fn run_trial_command(args: TrialArgs, experiments: Experiments) -> Result<(), UserError> {
    let cache_dir = args.cache_dir.unwrap_or_else(default_cache_dir);
    let folders = [Some(cache_dir.clone())];
    let programs = set_up_programs(args.programs, &args.join, &args.access, &folders)?
        .map(|host| host.with_gpus(system::find_gpus()));
    let config = SlotConfig {
        threads: args.threads,
        isa: parse_isa(&args.isa)?,
        device: args.device,
        checkpoint_dir: None,
        programs,
        experiments,
    };

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(start_error)?;
    let dirs = DatasetDirs {
        data_dir: args.data_dir,
        cache_dir,
    };
    let result = runtime.block_on(async {
        let links = LinkPool::from_urls(&args.join, &args.access.read_auth()?)?;
        replay::run_single_trial(&links, &dirs, &args.sweep, args.trial, config).await
    })?;
    write_stdout(&ergodic_proto::result_to_bytes(result))
}

/// Prints what a coordinator is told of the experiments.
fn print_experiments(experiments: &Experiments) -> Result<(), UserError> {
    let experiments = experiments.announce();
    write_stdout(&v1::AnnouncedExperiments { experiments }.encode_to_vec())
}

fn write_stdout(bytes: &[u8]) -> Result<(), UserError> {
    let written = std::io::Write::write_all(&mut std::io::stdout(), bytes);
    written.map_err(|e| UserError::new(ErrorCode::Internal, format!("cannot write to stdout: {e}")))
}

fn run_bench_command(args: &BenchArgs) -> Result<(), UserError> {
    let isa = parse_isa(&args.isa)?;
    let (dataset, model) = match args.workload {
        Workload::Mlp => ("glyphs", "kind = \"mlp\"\nhidden = [128]"),
        Workload::Cnn4 => ("glyphs", "kind = \"cnn4\"\nwidth = 16"),
        Workload::Preresnet20 => ("cifar10", "kind = \"preresnet\"\ndepth = 20"),
        Workload::Vgg => ("cifar10", "kind = \"vgg\"\ndepth = 11\nwidth = 16"),
    };
    let text = format!(
        "name = \"bench\"\n[data]\ndataset = \"{dataset}\"\n[model]\n{model}\nfixed_head = true\n[train]\nsteps = 1\n\
         batch_size = {}\nlr = 0.1\nwd = 5e-4\noptimizer = {{ momentum = 0.9 }}\n",
        args.batch
    );
    let source = SpecSource {
        file: "bench".into(),
        text,
        ..SpecSource::default()
    };

    let config = Spec::read_stored(&source)
        .and_then(|spec| spec.grid.resolve_config(CellIndex(0)))
        .map_err(|e| UserError::new(ErrorCode::BadInput, e.to_string()))?;
    let place = args.device.open_device()?;
    let report =
        train::measure_training_speed(&config, args.steps, isa, place.as_ref(), args.threads)
            .map_err(|e| UserError::new(ErrorCode::Internal, format!("--threads: {e}")))?;

    let computer = place.map_or(isa.name().to_owned(), |place| place.numerics_class);
    print_stdout(&format_bench_report(args, &computer, &report))
}

/// The result of a benchmark as text, next to the peak rate of this core.
fn format_bench_report(args: &BenchArgs, isa: &str, report: &BenchReport) -> String {
    let samples = report.samples_per_cpu_second();
    let gflops = report.flops_per_second() / 1e9;
    let gemm = report.gemm_flops_per_second / 1e9;
    let workload = format!("{:?}", args.workload).to_lowercase();
    let memory = system::peak_memory_bytes();

    match args.format {
        BenchFormat::Json => json!({
            "workload": workload, "batch": args.batch, "steps": args.steps, "isa": isa, "threads": args.threads,
            "samples_per_second": report.samples_per_second(),
            "samples_per_cpu_second": samples, "gflops": gflops, "gemm_gflops": gemm,
            "share_of_gemm": gflops / gemm, "peak_bytes": memory,
        })
        .to_string(),
        BenchFormat::Table => format!(
            "{workload}, batch {}, {} steps on {isa}, {}: {samples:.0} samples per CPU second, {:.0} per second\n\
             {gflops:.1} GFLOP/s in plain sums, {:.0} % of this core's {gemm:.1} in a large matrix product; peak memory {}",
            args.batch,
            args.steps,
            if args.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", args.threads) },
            report.samples_per_second(),
            100.0 * gflops / gemm,
            memory.map_or_else(|| "unknown".into(), |bytes| format!("{} MiB", bytes >> 20)),
        ),
    }
}

fn print_stdout(text: &str) -> Result<(), UserError> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{text}") {
        // A reader that closes the pipe, such as `head`, has read enough.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(UserError::new(
            ErrorCode::Internal,
            format!("cannot write to stdout: {e}"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use crate::cli::*;

    #[test]
    fn the_command_line_is_consistent() {
        WorkerCli::command().debug_assert();
    }

    #[test]
    fn gpus_are_named_once_each() {
        let names = |text: &str| parse_gpus(text).map(|gpus| gpus.0.join(" "));
        assert_eq!(names("0, GPU-ab"), Ok("0 GPU-ab".into()));
        assert_eq!(names("none"), Ok(String::new()));
        for wrong in ["", "0,", "0,0", "a b", "none,1;2"] {
            let why = names(wrong).expect_err("no names");
            assert!(why.contains("as in 0,1, or none"), "{why}");
        }
    }

    #[test]
    fn older_names_are_understood_and_not_shown() {
        let old = format!("--{OLD_COORDINATOR_OPTION}");
        for line in [
            &["ergodic-worker", &old, "http://a:1"][..],
            &["ergodic-worker", "trial", "a", "0/0", &old, "http://a:1"],
        ] {
            let parsed = WorkerCli::try_parse_from(line);
            assert!(parsed.is_ok(), "{line:?}: {parsed:?}");
        }

        let mut command = WorkerCli::command();
        let mut help = command.render_long_help().to_string();
        let trial = command.find_subcommand_mut("trial").expect("a command");
        help += &trial.render_long_help().to_string();
        assert!(help.contains("--coordinator") && !help.contains(&old));
    }
}
