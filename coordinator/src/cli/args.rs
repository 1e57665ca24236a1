//! The command line as typed; nothing here acts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ergodic_common::duration::parse_duration;
use ergodic_common::{BUILD, TrialKey};

use crate::client::kept::PredictionFormat;
use crate::client::output::Format;

/// Sweeps of repeated trainings, on every machine you can spare.
#[derive(Debug, Parser)]
#[command(name = "ergodic", version = BUILD, about, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 some trials failed, 2 bad input, 3 the coordinator does not answer, 4 refused,\n\
5 no such sweep, trial, axis or metric, 6 versions do not fit, 70 internal error, 130 interrupted.\n\
ERGODIC_LOG sets the log level (error, warn, info, debug).";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a sweep on this machine: coordinator, workers, progress, and the table at the end
    Run(RunArgs),
    /// Check a sweep file and show what it would be; nothing is stored
    Plan(PlanArgs),
    /// Serve as coordinator; prints its address on stdout once it is ready
    Serve(ServeArgs),
    /// Launch a sweep; prints its id, alone, on stdout
    Launch(LaunchArgs),
    /// List sweeps
    List(ListArgs),
    /// How a sweep is doing
    Status(SweepArgs),
    /// Follow a sweep to its end
    Watch(WatchArgs),
    /// List workers
    Workers(ListArgs),
    /// Why is it not running, why did it fail
    Explain(ExplainArgs),
    /// Run a trial again, here, and compare its bits with the stored ones
    Replay(ReplayArgs),
    /// Statistics per cell
    Table(TableArgs),
    /// One row per trial, ordered by cell and repeat
    Trials(SweepArgs),
    /// Statistics per cell and step
    Curves(CurvesArgs),
    /// What trials predicted for the probe set, one row per trial, step and test image
    Predictions(PredictionsArgs),
    /// Fetch the weights that a trial kept, as a safetensors file in PyTorch's layout
    Weights(WeightsArgs),
    /// Hold a sweep: what is begun is finished, nothing more is given out
    Pause(SteerArgs),
    /// Let a paused sweep go on
    Resume(SteerArgs),
    /// Stop a sweep; results already stored stay
    Cancel(SteerArgs),
    /// Run a sweep's failed trials again
    Retry(SteerArgs),
    /// Give a sweep another priority or weight among those that share workers
    Share(ShareArgs),
    /// Measure what Ergodic itself costs
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// Where the coordinator is.
#[derive(Debug, Args)]
pub struct Target {
    /// Address of the coordinator
    #[arg(long, env = "ERGODIC_COORDINATOR", default_value = "http://127.0.0.1:7700", value_name = "URL")]
    pub coordinator: String,
}

/// A sweep file and changes to it.
#[derive(Debug, Args)]
pub struct SpecArgs {
    /// The sweep file
    pub spec: String,
    /// Override a field, as in train.epochs=5; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

/// `ergodic run`
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub spec: SpecArgs,
    /// Worker processes to start
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub workers: u32,
    /// Trials each of them runs at a time [default: one per core, shared by the workers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub slots: Option<u32>,
    /// Where results are kept; an unfinished run of the same sweep there is continued [default: ergodic-runs/NAME]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where dataset files are
    #[arg(long, env = "ERGODIC_DATA", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The worker program [default: beside this one, else on PATH]
    #[arg(long, value_name = "FILE")]
    pub worker_bin: Option<PathBuf>,
    /// Print the table as a grid: axis down the side
    #[arg(long, value_name = "AXIS", requires = "cols")]
    pub rows: Option<String>,
    /// Print the table as a grid: axis along the top
    #[arg(long, value_name = "AXIS", requires = "rows")]
    pub cols: Option<String>,
    /// Metric of the table
    #[arg(long)]
    pub metric: Option<String>,
    /// Format of the table
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `ergodic plan`
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub spec: SpecArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `ergodic serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "ERGODIC_LISTEN", default_value = "127.0.0.1:7700", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Directory that keeps sweeps and results
    #[arg(long, env = "ERGODIC_STORE", default_value = "ergodic-store", value_name = "DIR")]
    pub store: PathBuf,
    /// Where dataset files are
    #[arg(long, env = "ERGODIC_DATA", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Listen beyond this machine although nobody is asked who they are
    #[arg(long)]
    pub insecure: bool,
    /// A silent worker loses its leases after this time
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub lease_ttl: Duration,
}

/// `ergodic launch`
#[derive(Debug, Args)]
pub struct LaunchArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub spec: SpecArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: Target,
    /// Follow it to its end and print its table, after the id
    #[arg(long)]
    pub watch: bool,
}

/// `ergodic list`, `ergodic workers`
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: Target,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Commands about one sweep.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// The sweep: its id, a unique beginning of it, or "latest"
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: Target,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `ergodic watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The sweep: its id, a unique beginning of it, or "latest"
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: Target,
}

/// `ergodic pause`, `resume`, `cancel` and `retry`
#[derive(Debug, Args)]
pub struct SteerArgs {
    /// The sweep: its id, a unique beginning of it, or "latest"
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: Target,
}

/// `ergodic share`
#[derive(Debug, Args)]
pub struct ShareArgs {
    /// The sweep: its id, a unique beginning of it, or "latest"
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: Target,
    /// From -100 to 100: a sweep of a lower one is given what one of a higher one cannot use
    #[arg(long, value_name = "N", allow_negative_numbers = true, required_unless_present = "weight")]
    pub priority: Option<i32>,
    /// Above 0: sweeps of the same priority share workers in proportion to their weights
    #[arg(long, value_name = "W")]
    pub weight: Option<f64>,
}

/// `ergodic explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The sweep: its id, a unique beginning of it, or "latest"
    pub id: String,
    /// A trial of it, as cell/repeat
    pub trial: Option<TrialKey>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: Target,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `ergodic replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The sweep: its id, a unique beginning of it, or "latest"
    pub id: String,
    /// A trial of it, as cell/repeat
    pub trial: TrialKey,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: Target,
    /// Instruction set; none changes a bit
    #[arg(long, default_value = "auto", value_name = "auto|avx512|avx2|portable")]
    pub isa: String,
    /// Where to train: a CUDA device for sweeps of the class cuda-f32
    #[arg(long, default_value = "cpu", value_name = "cpu|cuda:N")]
    pub device: String,
    /// Threads that share the work; no number changes a bit
    #[arg(long, default_value_t = 1, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Where dataset files are; what is missing is fetched from the coordinator
    #[arg(long, env = "ERGODIC_DATA", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The worker program [default: beside this one, else on PATH]
    #[arg(long, value_name = "FILE")]
    pub worker_bin: Option<PathBuf>,
}

/// `ergodic table`
#[derive(Debug, Args)]
pub struct TableArgs {
    /// The sweep: its id, a unique beginning of it, or "latest"
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: Target,
    /// Axes to group by, as in lr,wd; the others are pooled [default: all]
    #[arg(long, value_delimiter = ',', value_name = "AXES", conflicts_with_all = ["rows", "cols"])]
    pub by: Vec<String>,
    /// Print a grid: axis down the side
    #[arg(long, value_name = "AXIS", requires = "cols")]
    pub rows: Option<String>,
    /// Print a grid: axis along the top
    #[arg(long, value_name = "AXIS", requires = "rows")]
    pub cols: Option<String>,
    /// Metric [default: test_acc if it is measured]
    #[arg(long)]
    pub metric: Option<String>,
    /// Sample the curves here, as in "20 epochs", instead of at the end
    #[arg(long, value_name = "STEP")]
    pub at: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `ergodic curves`
#[derive(Debug, Args)]
pub struct CurvesArgs {
    /// The sweep: its id, a unique beginning of it, or "latest"
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: Target,
    /// Metric [default: test_acc if it is measured]
    #[arg(long, default_value = "")]
    pub metric: String,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `ergodic predictions`
#[derive(Debug, Args)]
pub struct PredictionsArgs {
    /// The sweep: its id, a unique beginning of it, or "latest"
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: Target,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: PredictionFormat,
}

/// `ergodic weights`
#[derive(Debug, Args)]
pub struct WeightsArgs {
    /// The sweep: its id, a unique beginning of it, or "latest"
    pub id: String,
    /// A trial of it, as cell/repeat
    pub trial: TrialKey,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: Target,
    /// Where to write them
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// `ergodic bench`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Run empty trials through the real path: coordinator process, worker processes, gRPC, durable store
    Overhead(OverheadArgs),
}

/// `ergodic bench overhead`
#[derive(Debug, Args)]
pub struct OverheadArgs {
    /// Trials to run, a multiple of 100
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub trials: u32,
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
    pub format: Format,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
