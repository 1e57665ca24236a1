//! `ergodic bench`: measures the coordinator's cost per trial and per worker, its robustness, and the
//! speed of tables.

pub mod fleet;
pub mod overhead;
mod pretend_fleet;
pub mod soak;
pub mod tables;

use clap::Subcommand;
use ergodic_proto::status::UserError;
use fleet::{BenchFleetArgs, run_fleet_bench};
use overhead::{BenchOverheadArgs, run_overhead_bench};
use soak::{BenchSoakArgs, run_soak_bench};
use tables::{BenchTablesArgs, run_tables_bench};

use crate::app::CommandOutcome;

/// `ergodic bench`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Run empty trials through the real path: coordinator process, worker processes, gRPC, durable store
    Overhead(BenchOverheadArgs),
    /// Join pretend workers that train nothing, and measure what their sessions, requests and heartbeats cost the coordinator
    Fleet(BenchFleetArgs),
    /// Run empty trials while workers are killed and the coordinator restarts, and check all rows at the end
    Soak(BenchSoakArgs),
    /// Ask for the tables, curves, verdicts and dataset of a large sweep with made-up results
    Tables(BenchTablesArgs),
}

/// Runs a benchmark and prints what it measured.
///
/// # Errors
/// As for each of them.
pub async fn run_bench(command: BenchCommand) -> Result<CommandOutcome, UserError> {
    match command {
        BenchCommand::Overhead(args) => run_overhead_bench(args).await,
        BenchCommand::Fleet(args) => run_fleet_bench(args).await,
        BenchCommand::Soak(args) => run_soak_bench(args).await,
        BenchCommand::Tables(args) => run_tables_bench(args).await,
    }
}
