//! The command line as typed; nothing here acts.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ergodic_common::duration::parse_duration;
use ergodic_common::{BUILD, TrialKey};
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;
use ergodic_proto::token::TokenRole;

use crate::app::LogFormat;
use crate::client::commands::effects::EffectsPart;
use crate::client::commands::predictions::PredictionFormat;
use crate::client::plot::PlotKind;
use crate::client::render::{OutputTarget, RowFormat, RowSelection, TextFormat};
use crate::client::{Client, START_TIMEOUT};

/// Sweeps of repeated trainings, on every machine you can spare.
#[derive(Debug, Parser)]
#[command(name = "ergodic", version = BUILD, about, max_term_width = 100)]
pub struct ErgodicCli {
    /// What to do.
    #[command(subcommand)]
    pub command: CliCommand,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Run a sweep on this machine, with a coordinator and workers, and print its table
    Run(RunArgs),
    /// Check a sweep file and show its cells, trials and data; stores nothing
    Plan(PlanArgs),
    /// Start a coordinator; prints its address once it is ready
    Serve(ServeArgs),
    /// Launch a sweep on a coordinator; prints its id
    Launch(LaunchArgs),
    /// List sweeps
    List(ListArgs),
    /// Show the progress of a sweep
    Status(StatusArgs),
    /// Follow the progress of a sweep until it ends
    Watch(WatchArgs),
    /// List workers
    Workers(ListArgs),
    /// Explain why a sweep or a trial is not running, or why it failed
    Explain(ExplainArgs),
    /// Run one trial again on this machine and compare its bits with the stored ones
    Replay(ReplayArgs),
    /// Print statistics per cell
    Table(TableArgs),
    /// Draw a heat map, curves, distributions, paired differences or a phase diagram
    Plot(PlotArgs),
    /// Write one self-contained HTML page with tables, figures and provenance
    Report(ReportArgs),
    /// Print one row per trial
    Trials(TrialsArgs),
    /// Print statistics per cell and step
    Curves(CurvesArgs),
    /// Compare cells with a baseline by paired differences and tests
    Compare(CompareArgs),
    /// Measure the distance between cells' predictions for the probe set
    Distance(DistanceArgs),
    /// Estimate the effect of each axis, and which cells may be the best
    ///
    /// Cells are ordered by the mean rank of their trials within each repeat. A hollow star marks the cells that cannot be told from
    /// the best one: in 95 % of all cases this set contains the truly best cell. p(best) is the share of resamples of whole repeats in
    /// which a cell is the best. It is not the probability that the cell is the best: it favours the cell that was lucky. Of 20 equal
    /// cells, the one that looks best gets 0.39.
    Effects(EffectsArgs),
    /// Split a metric's variance by the random streams that a sweep crosses
    Variance(VarianceArgs),
    /// Print predictions for the probe set: one row per trial, step and image
    Predictions(PredictionsArgs),
    /// Export a sweep as Parquet files to a directory or an object store
    Export(ExportArgs),
    /// Query sweeps in SQL (in builds with the feature `sql`)
    Sql(SqlArgs),
    /// Download a trial's weights as a safetensors file in PyTorch's layout
    Weights(WeightsArgs),
    /// Pause a sweep: running trials finish, no new ones start
    Pause(SteerArgs),
    /// Resume a paused sweep
    Resume(SteerArgs),
    /// Cancel a sweep; stored results stay
    Cancel(SteerArgs),
    /// Run failed trials again, and audits that failed or never found a second worker
    Retry(SteerArgs),
    /// Add repeats or cells to a sweep; only what is missing is run
    Extend(ExtendArgs),
    /// Remove sweeps with their results
    Rm(RemoveArgs),
    /// Write a consistent backup of a running coordinator to a file
    Backup(BackupArgs),
    /// Create a store from a backup
    Restore(RestoreArgs),
    /// Create, list and revoke tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Change a sweep's priority or weight
    Update(UpdateArgs),
    /// Estimate how many repeats a precision takes
    SampleSize(SampleSizeArgs),
    /// Measure the overhead of Ergodic itself
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// Where the coordinator is.
#[derive(Debug, Args)]
pub struct ConnectionArgs {
    /// Address of the coordinator; of several that share a store, all addresses, separated by commas
    #[arg(
        long,
        env = "ERGODIC_COORDINATOR",
        default_value = "http://127.0.0.1:7700",
        value_name = "URL"
    )]
    pub coordinator: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub access: ClientAuthArgs,
}

impl ConnectionArgs {
    /// Connects there, after a short wait for a coordinator that is only starting.
    ///
    /// # Errors
    /// A file cannot be used, or nobody answers who is to be trusted.
    pub async fn connect(&self) -> Result<Client, UserError> {
        let access = self.access.read_client_auth()?;
        Client::connect_within(&self.coordinator, &access, START_TIMEOUT).await
    }
}

/// Who asks, and whom to trust.
#[derive(Debug, Clone, Args)]
pub struct ClientAuthArgs {
    /// File with the token of a coordinator that asks for one
    #[arg(long, env = "ERGODIC_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file of the authorities that the coordinator's certificate may come from [default: the token says it]
    #[arg(long, env = "ERGODIC_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// PEM file of a certificate, for a coordinator that wants to see one
    #[arg(long, env = "ERGODIC_CERT", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, env = "ERGODIC_KEY", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
}

impl ClientAuthArgs {
    fn read_client_auth(&self) -> Result<ClientAuth, UserError> {
        let access = ClientAuth {
            token: None,
            ca: self.ca.clone(),
            identity: self.cert.clone().zip(self.key.clone()),
        };
        access.with_token_file(self.token_file.as_deref())
    }

    /// The same options, for another program.
    pub fn to_cli_args(&self) -> Vec<OsString> {
        let all = [
            ("--token-file", &self.token_file),
            ("--ca", &self.ca),
            ("--cert", &self.cert),
            ("--key", &self.key),
        ];
        let given = all
            .into_iter()
            .filter_map(|(option, file)| Some((option, file.as_ref()?)));

        given
            .flat_map(|(option, file)| [option.into(), file.clone().into_os_string()])
            .collect()
    }
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
    /// The sweep file; with --store, an unfinished sweep there: its id, or a unique prefix of it
    #[arg(value_name = "SPEC|ID")]
    pub what: String,
    /// Override a field, as in train.epochs=5; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Worker processes to start
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub workers: u32,
    /// Trials each of them runs at a time [default: one per core, shared by the workers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub slots: Option<u32>,
    /// Directory for the results; an unfinished run of the same sweep there is continued [default: ergodic-runs/NAME]
    #[arg(long = "store", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Run all trials, also those of which the results are there
    #[arg(long)]
    pub again: bool,
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
    pub format: TextFormat,
}

/// `ergodic plan`
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The sweep file
    #[arg(value_name = "SPEC")]
    pub what: String,
    /// Override a field of the file, as in train.epochs=5; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "precision")]
    pub settings: Vec<String>,
    /// The older form of `ergodic sample-size`
    #[arg(long, hide = true, value_name = "METRIC=HALF_WIDTH", value_parser = parse_precision)]
    pub precision: Option<(String, f64)>,
    /// Directory with datasets, to look at the one that the sweep names
    #[arg(long, env = "ERGODIC_DATA", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// `ergodic sample-size`
#[derive(Debug, Args)]
pub struct SampleSizeArgs {
    /// A sweep with some results: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    /// Metric and half-width of the 95 % confidence interval of its mean in every cell, as in test_acc=±0.001
    #[arg(value_name = "METRIC=±WIDTH", value_parser = parse_precision)]
    pub precision: (String, f64),
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
}

fn parse_precision(text: &str) -> Result<(String, f64), String> {
    let (metric, width) = text.split_once('=').unwrap_or_default();
    match width.trim().trim_start_matches('±').trim().parse::<f64>() {
        Ok(width) if width.is_finite() && width > 0.0 => Ok((metric.trim().to_owned(), width)),
        _ => Err("expected a metric and a number above 0, as in test_acc=0.001".into()),
    }
}

/// `ergodic serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on; port 0 picks a free one
    #[arg(
        long,
        env = "ERGODIC_LISTEN",
        default_value = "127.0.0.1:7700",
        value_name = "ADDR"
    )]
    pub listen: SocketAddr,
    /// What keeps sweeps and results: a directory, or a PostgreSQL database as postgres://USER:PASSWORD@HOST:PORT/NAME
    #[arg(
        long,
        env = "ERGODIC_STORE",
        hide_env_values = true,
        default_value = "ergodic-store",
        value_name = "DIR|URL"
    )]
    pub store: PathBuf,
    /// Directory for datasets and weights, needed with a database [default: data, in the store's directory]
    #[arg(long = "artifacts", env = "ERGODIC_FILES", value_name = "DIR")]
    pub files: Option<PathBuf>,
    /// Where dataset files are
    #[arg(long, env = "ERGODIC_DATA", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Speak TLS and ask for tokens on this machine too; beyond it, that is the rule
    #[arg(long, conflicts_with = "insecure")]
    pub secure: bool,
    /// Listen beyond this machine without TLS, and ask nobody who they are
    #[arg(long)]
    pub insecure: bool,
    /// Directory of the coordinator's certificate authority and tokens [default: auth in the store, or in --artifacts]
    #[arg(long, env = "ERGODIC_AUTH_DIR", value_name = "DIR")]
    pub auth_dir: Option<PathBuf>,
    /// PEM file of a certificate from elsewhere, with those it comes from
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        conflicts_with = "insecure"
    )]
    pub tls_cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// PEM file of authorities: only who shows a certificate of theirs may connect
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub client_ca: Option<PathBuf>,
    /// URL at which other machines reach this coordinator, for those that ask another one on the same store [default: the address
    /// that it listens on, or this machine's name]
    #[arg(long, env = "ERGODIC_ADVERTISE", value_name = "URL", value_parser = parse_coordinator_url)]
    pub advertise: Option<String>,
    /// Address for /healthz, /readyz and /metrics over plain HTTP [default: none]
    #[arg(long, env = "ERGODIC_HTTP", value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Form of the log on stderr
    #[arg(long, value_enum, env = "ERGODIC_LOG_FORMAT", default_value_t)]
    pub log_format: LogFormat,
    /// Check curves and predictions, too, before serving; what is damaged is set aside, and its trials are run again
    #[arg(long = "verify-store")]
    pub check: bool,
    /// A silent worker loses its leases after this time
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub lease_ttl: Duration,
    /// Requests per second that one token may make, or one address where nobody is asked for a token; 0 for any number
    #[arg(long, default_value_t = 2000, value_name = "N")]
    pub rate_limit: u32,
}

/// `ergodic launch`
#[derive(Debug, Args)]
pub struct LaunchArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub spec: SpecArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Follow it to its end and print its table, after the id
    #[arg(long)]
    pub watch: bool,
    /// Run all of its trials, also those of which another sweep has the results
    #[arg(long)]
    pub again: bool,
}

/// `ergodic list`, `ergodic workers`
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// Commands about one sweep.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// `ergodic watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
}

/// `ergodic pause`, `resume`, `cancel` and `retry`
#[derive(Debug, Args)]
pub struct SteerArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Do not ask which sweep "latest" is
    #[arg(long, short)]
    pub yes: bool,
}

/// `ergodic extend`
#[derive(Debug, Args)]
pub struct ExtendArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    /// A sweep file with all its cells and more: it is launched as a new sweep that begins with the results of this one
    #[arg(required_unless_present = "repeats")]
    pub spec: Option<String>,
    /// Override a field of the file, as in train.epochs=5; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "spec")]
    pub settings: Vec<String>,
    /// Repeats per cell, or the most of them, instead of fewer
    #[arg(long, value_name = "N", conflicts_with = "spec", value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: Option<u32>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Do not ask which sweep "latest" is
    #[arg(long, short)]
    pub yes: bool,
}

/// `ergodic backup`
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Where to write it
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
}

/// `ergodic restore`
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// What `ergodic backup` wrote
    pub file: PathBuf,
    /// A new directory, or an empty PostgreSQL database as postgres://USER:PASSWORD@HOST:PORT/NAME
    #[arg(long, value_name = "DIR|URL")]
    pub store: PathBuf,
    /// Directory for datasets and weights, needed with a database [default: data, in the store's directory]
    #[arg(long = "artifacts", value_name = "DIR")]
    pub files: Option<PathBuf>,
}

/// `ergodic rm`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The sweeps: ids, unique prefixes of them, or "latest", your last one
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Cancel those that have not ended
    #[arg(long)]
    pub force: bool,
    /// Remove them from this directory of `ergodic run`, which no coordinator serves
    #[arg(long = "store", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Do not ask which sweep "latest" is
    #[arg(long, short)]
    pub yes: bool,
}

/// `ergodic update`
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// From -100 to 100: sweeps of a higher priority get workers first
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        required_unless_present = "weight"
    )]
    pub priority: Option<i32>,
    /// Above 0: sweeps of the same priority share workers in proportion to their weights
    #[arg(long, value_name = "W")]
    pub weight: Option<f64>,
    /// Do not ask which sweep "latest" is
    #[arg(long, short)]
    pub yes: bool,
}

/// `ergodic explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    /// A trial of it, as cell/repeat
    pub trial: Option<TrialKey>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// `ergodic replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    /// A trial of it, as cell/repeat
    pub trial: TrialKey,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
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
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Axes to group by, as in lr,wd; the others are pooled [default: all]
    #[arg(long, value_delimiter = ',', value_name = "AXES", conflicts_with_all = ["rows", "cols"])]
    pub by: Vec<String>,
    /// What counts alike in rows of several cells: trials with a value, so that cells in which more completed weigh more, or cells,
    /// as in `effects`; means and their intervals only, all else is of trials
    #[arg(long, value_enum, default_value_t)]
    pub weight: PoolingWeight,
    /// Print a grid: axis down the side
    #[arg(long, value_name = "AXIS", requires = "cols")]
    pub rows: Option<String>,
    /// Print a grid: axis along the top
    #[arg(long, value_name = "AXIS", requires = "rows")]
    pub cols: Option<String>,
    /// Metrics, as in test_acc,test_loss [default: test_acc if it is measured]
    #[arg(long, value_delimiter = ',', value_name = "METRICS")]
    pub metric: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub selection: SelectionArgs,
    /// Sample the curves here, as in "20 epochs", instead of at the end
    #[arg(long, value_name = "STEP")]
    pub at: Option<String>,
    /// Statistics by name, as in mean,ci99,boot95,q05,median,iqm,trim10,se,p_diverged; with _all, diverged trials count
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub stat: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sink: OutputArgs,
}

/// Where rows go, and how they are written.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// A file to write it to, in place of what is there, instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Output format [default: what the ending of the file says: .csv, .json, .md, .tex or .parquet; without a file, table]
    #[arg(long, value_enum)]
    pub format: Option<RowFormat>,
}

impl OutputArgs {
    /// What they choose.
    ///
    /// # Errors
    /// As [`OutputTarget::from_options`] has it.
    pub fn into_output_target(self) -> Result<OutputTarget, UserError> {
        OutputTarget::from_options(self.output, self.format)
    }
}

/// `ergodic trials`
#[derive(Debug, Args)]
pub struct TrialsArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sink: OutputArgs,
}

/// `--weight`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PoolingWeight {
    /// Each trial that has a value.
    #[default]
    Trials,
    /// Each cell that has values.
    Cells,
}

/// Which rows of a table, in which order.
#[derive(Debug, Args)]
pub struct SelectionArgs {
    /// Only rows for which this holds, of axes and statistics, as in "lr <= 0.1 && n > 3"; words in quotes
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// Order by an axis or a statistic, as in mean; with a minus in front, the largest first
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// At most so many rows: the first ones, or without --sort the best ones, by the mean ranks of trials within repeats
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub top: Option<u32>,
}

impl SelectionArgs {
    /// What they choose.
    pub fn into_row_selection(self) -> RowSelection {
        RowSelection {
            condition: self.condition,
            sort: self.sort,
            top: self.top.map(|n| n as usize),
        }
    }
}

/// `ergodic plot`
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Kind of picture
    #[arg(long, value_enum, default_value_t = PlotKind::Heatmap)]
    pub kind: PlotKind,
    /// Where to write it: a name that ends in .svg or .png [default: as SVG on stdout]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Metric [default: test_acc if it is measured]
    #[arg(long)]
    pub metric: Option<String>,
    /// Of heatmap, phase and pairs: sample the curves here, as in "20 epochs", instead of at the end
    #[arg(long, value_name = "STEP")]
    pub at: Option<String>,
    /// Of heatmap and phase: the axis upwards [default: the second with several values]
    #[arg(long, value_name = "AXIS", requires = "cols")]
    pub rows: Option<String>,
    /// Of heatmap and phase: the axis to the right [default: the first with several values]
    #[arg(long, value_name = "AXIS", requires = "rows")]
    pub cols: Option<String>,
    /// Of curves and distribution: axes to group by; the others are pooled [default: all]
    #[arg(long, value_delimiter = ',', value_name = "AXES")]
    pub by: Vec<String>,
    /// Of heatmap: a statistic of one number, as in median, std, q05 [default: mean]
    #[arg(long, value_name = "NAME")]
    pub stat: Option<String>,
    /// Of pairs: what to compare with, as for `compare`
    #[arg(long, value_name = "AXIS=VALUE,…")]
    pub baseline: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub selection: SelectionArgs,
    /// The metric on a logarithmic scale
    #[arg(long = "log-scale")]
    pub log: bool,
    /// Title [default: the sweep's name and the metric]
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Width in pixels, 96 to the inch; PNG has two dots to a pixel
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(160..=8000))]
    pub width: Option<u32>,
    /// Height in pixels
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(120..=8000))]
    pub height: Option<u32>,
}

/// `ergodic report`
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Where to write index.html
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

/// `ergodic curves`
#[derive(Debug, Args)]
pub struct CurvesArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Metric [default: test_acc if it is measured]
    #[arg(long, default_value = "")]
    pub metric: String,
    /// Statistics by name, as for `table`
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub stat: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sink: OutputArgs,
}

/// `ergodic compare`
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// What to compare with, as in lr=0.1,wd=5e-4; axes that are not named have the value that they have in the cell compared
    #[arg(long, value_name = "AXIS=VALUE,…")]
    pub baseline: String,
    /// Metric [default: test_acc if it is measured]
    #[arg(long)]
    pub metric: Option<String>,
    /// Sample the curves here, as in "20 epochs", instead of at the end
    #[arg(long, value_name = "STEP")]
    pub at: Option<String>,
    /// Level of the confidence intervals, in percent
    #[arg(long, default_value_t = 95.0, value_name = "PERCENT")]
    pub level: f64,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// `ergodic distance`
#[derive(Debug, Args)]
pub struct DistanceArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Two cells, each as in lr=0.1,wd=5e-4 or by its number, with a test of their difference [default: any two of all cells]
    #[arg(long, num_args = 2, value_names = ["CELL", "CELL"])]
    pub between: Vec<String>,
    /// When, as in "20 epochs" or final [default: between two cells, every moment that the sweep kept; otherwise the last]
    #[arg(long, value_name = "STEP")]
    pub at: Option<String>,
    /// Random swaps of the test
    #[arg(long, default_value_t = 9999, value_name = "N")]
    pub permutations: u32,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// `ergodic effects`
#[derive(Debug, Args)]
pub struct EffectsArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Metric [default: test_acc if it is measured]
    #[arg(long)]
    pub metric: Option<String>,
    /// Sample the curves here, as in "20 epochs", instead of at the end
    #[arg(long, value_name = "STEP")]
    pub at: Option<String>,
    /// Level of the confidence intervals, in percent
    #[arg(long, default_value_t = 95.0, value_name = "PERCENT")]
    pub level: f64,
    /// Two axes, as in lr,wd: what each pair of their values adds to what both add
    #[arg(long, value_delimiter = ',', value_name = "AXES")]
    pub interaction: Vec<String>,
    /// Only this part [default: of csv and md one part, effects or interaction; otherwise all]
    #[arg(long, value_enum)]
    pub part: Option<EffectsPart>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// `ergodic variance`
#[derive(Debug, Args)]
pub struct VarianceArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Metric [default: test_acc if it is measured]
    #[arg(long)]
    pub metric: Option<String>,
    /// Sample the curves here, as in "20 epochs", instead of at the end
    #[arg(long, value_name = "STEP")]
    pub at: Option<String>,
    /// Level of the confidence intervals, in percent
    #[arg(long, default_value_t = 95.0, value_name = "PERCENT")]
    pub level: f64,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// `ergodic predictions`
#[derive(Debug, Args)]
pub struct PredictionsArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Instead, the distributions of labels: per cell, step and test image, the share of trials that predict each class
    #[arg(long)]
    pub distributions: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: PredictionFormat,
}

/// `ergodic export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    /// A directory, or s3://BUCKET/PREFIX: the dataset is in sweeps/ID below it, and if there is one, new rows are added
    #[arg(short, long, value_name = "DIR|URL")]
    pub output: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Format of the tables
    #[arg(long, value_enum, default_value_t)]
    pub format: ExportFormat,
    /// Go on until the sweep has ended
    #[arg(long)]
    pub follow: bool,
    /// With --follow, time between two additions
    #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "TIME", requires = "follow")]
    pub every: Duration,
    /// Write all rows again, into few files
    #[arg(long = "rewrite")]
    pub anew: bool,
}

/// `--format` of `ergodic export`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ExportFormat {
    /// Apache Parquet.
    #[default]
    Parquet,
}

/// `ergodic sql`
#[derive(Debug, Args)]
pub struct SqlArgs {
    /// A query of the tables sweeps, cells, trials, curves and predictions; `SHOW COLUMNS FROM trials` tells what is in them
    pub query: String,
    /// A sweep: its id, a unique prefix of it, or "latest", your last one; may be given several times [default: all]
    #[arg(long = "sweep", value_name = "ID")]
    pub sweeps: Vec<String>,
    /// Where `ergodic export` wrote: a directory, or s3://BUCKET/PREFIX [default: what the coordinator has now]
    #[arg(long, value_name = "DIR|URL")]
    pub from: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sink: OutputArgs,
}

/// `ergodic weights`
#[derive(Debug, Args)]
pub struct WeightsArgs {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    /// A trial of it, as cell/repeat
    pub trial: TrialKey,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
    /// Where to write them
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// `ergodic token`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; printed on stdout, alone, and kept nowhere
    New(NewTokenArgs),
    /// List tokens, without their secrets
    List(ListArgs),
    /// Revoke a token: it opens nothing any more, and the sessions that it opened end
    Revoke(RevokeTokenArgs),
}

/// `ergodic token new`
#[derive(Debug, Args)]
pub struct NewTokenArgs {
    /// What its holder may do: take leases and deliver results; launch, steer and read sweeps; all that, and make tokens
    #[arg(long, value_name = "worker|user|admin", value_parser = parse_role)]
    pub role: TokenRole,
    /// When it ends, as in 30d [default: never]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub expires: Option<Duration>,
    /// What it is for
    #[arg(long, default_value = "")]
    pub note: String,
    /// Write it to this file, which only you may read, instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
}

fn parse_coordinator_url(text: &str) -> Result<String, String> {
    let expected = "expected something like https://host:7700";
    let (scheme, rest) = text.split_once("://").ok_or(expected)?;
    if matches!(scheme, "http" | "https") && !rest.is_empty() {
        Ok(text.to_owned())
    } else {
        Err(expected.to_owned())
    }
}

fn parse_role(text: &str) -> Result<TokenRole, String> {
    TokenRole::from_name(text).ok_or_else(|| "expected worker, user or admin".to_owned())
}

/// `ergodic token revoke`
#[derive(Debug, Args)]
pub struct RevokeTokenArgs {
    /// Its name, as `ergodic token list` shows it
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ConnectionArgs,
}

/// `ergodic bench`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Run empty trials through the real path: coordinator process, worker processes, gRPC, durable store
    Overhead(BenchOverheadArgs),
    /// The same while workers are killed, and a restart: everything is counted at the end
    Soak(BenchSoakArgs),
    /// Ask for the tables, curves and dataset of a large sweep with made-up results
    Tables(BenchTablesArgs),
}

/// `ergodic bench tables`
#[derive(Debug, Args)]
pub struct BenchTablesArgs {
    /// Trials of the sweep, a multiple of 250
    #[arg(long, default_value_t = 120_000, value_name = "N", value_parser = clap::value_parser!(u32).range(250..=10_000_000))]
    pub trials: u32,
    /// Points of each trial's curve, of ten metrics each
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub points: u32,
    /// Keep the store here, and use it again [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// `ergodic bench soak`
#[derive(Debug, Args)]
pub struct BenchSoakArgs {
    /// Trials to run, a multiple of 100
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=100_000_000))]
    pub trials: u32,
    /// Worker processes
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub workers: u32,
    /// One of them is killed, and another started, as often as this
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
    pub format: TextFormat,
}

/// `ergodic bench overhead`
#[derive(Debug, Args)]
pub struct BenchOverheadArgs {
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
    pub format: TextFormat,
}
