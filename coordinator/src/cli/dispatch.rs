//! The commands, and the function that runs each. A command's arguments and its function are together in a file of its own.

use clap::{Command, Parser, Subcommand};
use ergodic_common::BUILD;
use ergodic_proto::status::UserError;
use ergodic_proto::v1::Steering;

use super::generate::{self, CompletionsArgs, ManArgs};
use super::version::LONG_VERSION;
use crate::app::CommandOutcome;
use crate::bench::{self, BenchCommand};
use crate::client::commands::{
    backup, compare, curves, distance, docs, effects, explain, extend, files, init, launch, list,
    log, plan, plot, predictions, sample_size, status, steer, table, token, trials, update,
    variance, verdict, watch, weights, workers,
};
use crate::client::export::command as export;
use crate::client::{report, sql};
use crate::restore;
use crate::server::serve_command as serve;
use crate::standalone::{replay, rm, run, verify};

/// Sweeps of repeated trainings, on every machine you can spare.
#[derive(Debug, Parser)]
#[command(name = "ergodic", version = BUILD, long_version = LONG_VERSION.as_str(), about, max_term_width = 100)]
pub(super) struct ErgodicCli {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: CliCommand,
}

/// The commands.
#[derive(Debug, Subcommand)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one of them in a process, and clap cannot box a variant's arguments"
)]
pub(super) enum CliCommand {
    /// Run a sweep on this machine, with a coordinator and workers, and print its table
    Run(run::RunArgs),
    /// Run what is missing of one or more experiments on this machine, and judge the claims in their files
    ///
    /// Exits with 0 if all claims agree, with 7 if one disagrees, with 8 if none does but some are not decided, and with 1 if all
    /// agree but some trials failed.
    Verify(verify::VerifyArgs),
    /// Check a sweep file and show its cells, trials and data; stores nothing
    Plan(plan::PlanArgs),
    /// Write a commented sweep file to start from
    Init(init::InitArgs),
    /// List the fields, metrics, models and datasets that a sweep file can name
    Docs(docs::DocsArgs),
    /// Start a coordinator; prints its address once it is ready
    Serve(serve::ServeArgs),
    /// Launch a sweep on a coordinator; prints its id
    Launch(launch::LaunchArgs),
    /// List sweeps
    List(list::SweepListArgs),
    /// Show the progress of a sweep
    Status(status::StatusArgs),
    /// Follow the progress of a sweep until it ends
    Watch(watch::WatchArgs),
    /// List the workers of a coordinator
    Workers(workers::WorkersArgs),
    /// Have workers of a coordinator leave
    #[command(subcommand)]
    Worker(workers::WorkerCommand),
    /// Explain why a sweep or a trial is not running, or why it failed
    Explain(explain::ExplainArgs),
    /// Run one trial of a coordinator again here and compare its bits with the stored ones
    Replay(replay::ReplayArgs),
    /// Print statistics per cell
    Table(table::TableArgs),
    /// Draw a heat map, curves, distributions, paired differences or a phase diagram
    Plot(plot::PlotArgs),
    /// Write one self-contained HTML page with tables, figures and provenance
    Report(report::ReportArgs),
    /// Print one row per trial
    Trials(trials::TrialsArgs),
    /// Print what the program of a trial printed: the last 64 KiB of each attempt
    Log(log::LogArgs),
    /// Print statistics per cell and step
    Curves(curves::CurvesArgs),
    /// Compare cells with a baseline by paired differences and tests
    Compare(compare::CompareArgs),
    /// Measure the distance between cells' predictions for the probe set
    Distance(distance::DistanceArgs),
    /// Estimate the effect of each axis, and which cells may be the best
    ///
    /// Cells are ordered by the mean rank of their trials within each repeat. A hollow star marks the cells that cannot be told from
    /// the best one: in 95 % of all cases this set contains the truly best cell. p(best) is the share of resamples of whole repeats in
    /// which a cell is the best. It is not the probability that the cell is the best: it favours the cell that was lucky. Of 20 equal
    /// cells, the one that looks best gets 0.39.
    Effects(effects::EffectsArgs),
    /// Split a metric's variance by the random streams that a sweep crosses
    Variance(variance::VarianceArgs),
    /// Judge the claims about a sweep: agrees, disagrees, or not enough trials
    ///
    /// Exits with 0 if all claims agree, with 7 if one disagrees, and with 8 if none does but some are not decided.
    Verdict(verdict::VerdictArgs),
    /// Print predictions: one row per trial, step and image or point
    Predictions(predictions::PredictionsArgs),
    /// Export a sweep as Parquet files to a directory or an object store
    Export(export::ExportArgs),
    /// Query sweeps in SQL (in builds with the feature `sql`)
    Sql(sql::SqlArgs),
    /// Download a trial's weights as a safetensors file in PyTorch's layout
    Weights(weights::WeightsArgs),
    /// List or download the files that a trial of a program kept
    Files(files::FilesArgs),
    /// Pause a sweep: running trials finish, no new ones start
    Pause(steer::SteerArgs),
    /// Resume a paused sweep
    Resume(steer::SteerArgs),
    /// Cancel a sweep; stored results stay
    Cancel(steer::SteerArgs),
    /// Run failed trials again, and audits that failed or never found a second worker
    Retry(steer::SteerArgs),
    /// Add repeats or cells to a sweep; only what is missing is run
    Extend(extend::ExtendArgs),
    /// Remove sweeps with their results
    Rm(rm::RemoveArgs),
    /// Write a consistent backup of a running coordinator to a file
    Backup(backup::BackupArgs),
    /// Create a store from a backup
    Restore(restore::RestoreArgs),
    /// Create, list and revoke tokens of a coordinator
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Change a sweep's priority or weight
    Update(update::UpdateArgs),
    /// Estimate how many repeats a given precision takes
    SampleSize(sample_size::SampleSizeArgs),
    /// Measure the overhead of Ergodic itself
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print the script that has a shell complete commands and options
    Completions(CompletionsArgs),
    /// Write manual pages for `man`
    Man(ManArgs),
}

/// Runs a command. `build_command` gives the whole command line, for commands that describe it.
pub(super) async fn dispatch_command(
    command: CliCommand,
    build_command: fn() -> Command,
) -> Result<CommandOutcome, UserError> {
    match command {
        CliCommand::Run(args) => run::run_standalone(args).await,
        CliCommand::Verify(args) => verify::run_verify(args).await,
        CliCommand::Plan(args) => plan::run_plan(args).await,
        CliCommand::Init(args) => init::run_init(&args),
        CliCommand::Docs(args) => docs::run_docs(&args),
        CliCommand::Serve(args) => serve::run_serve(args).await,
        CliCommand::Launch(args) => launch::run_launch(args).await,
        CliCommand::List(args) => list::run_list(args).await,
        CliCommand::Status(args) => status::run_status(args).await,
        CliCommand::Watch(args) => watch::run_watch(args).await,
        CliCommand::Workers(args) => workers::run_workers(args).await,
        CliCommand::Worker(command) => workers::run_worker(command).await,
        CliCommand::Explain(args) => explain::run_explain(args).await,
        CliCommand::Replay(args) => replay::run_replay(args).await,
        CliCommand::Table(args) => table::run_table(args).await,
        CliCommand::Plot(args) => plot::run_plot(args).await,
        CliCommand::Report(args) => report::run_report(args).await,
        CliCommand::Trials(args) => trials::run_trials(args).await,
        CliCommand::Log(args) => log::run_log(args).await,
        CliCommand::Curves(args) => curves::run_curves(args).await,
        CliCommand::Compare(args) => compare::run_compare(args).await,
        CliCommand::Distance(args) => distance::run_distance(args).await,
        CliCommand::Effects(args) => effects::run_effects(args).await,
        CliCommand::Variance(args) => variance::run_variance(args).await,
        CliCommand::Verdict(args) => verdict::run_verdict(args).await,
        CliCommand::Predictions(args) => predictions::run_predictions(args).await,
        CliCommand::Export(args) => export::run_export(args).await,
        CliCommand::Sql(args) => sql::run_sql(args).await,
        CliCommand::Weights(args) => weights::run_weights(args).await,
        CliCommand::Files(args) => files::run_files(args).await,
        CliCommand::Pause(args) => steer::run_steer(args, "pause", Steering::Pause).await,
        CliCommand::Resume(args) => steer::run_steer(args, "resume", Steering::Resume).await,
        CliCommand::Cancel(args) => steer::run_steer(args, "cancel", Steering::Cancel).await,
        CliCommand::Retry(args) => steer::run_steer(args, "retry", Steering::Retry).await,
        CliCommand::Extend(args) => extend::run_extend(args).await,
        CliCommand::Rm(args) => rm::run_remove(args).await,
        CliCommand::Backup(args) => backup::run_backup(args).await,
        CliCommand::Restore(args) => restore::run_restore(args).await,
        CliCommand::Token(command) => token::run_token(command).await,
        CliCommand::Update(args) => update::run_update(args).await,
        CliCommand::SampleSize(args) => sample_size::run_sample_size(args).await,
        CliCommand::Bench(command) => bench::run_bench(command).await,
        CliCommand::Completions(args) => generate::run_completions(&args, build_command()),
        CliCommand::Man(args) => generate::run_man(&args, build_command()),
    }
}
