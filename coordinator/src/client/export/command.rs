//! The arguments of `ergodic export`, and the function that runs it.

use std::time::Duration;

use clap::Args;
use ergodic_common::duration::parse_duration;
use ergodic_proto::status::UserError;

use super::export_sweep;
use crate::app::{CommandOutcome, print_output};
use crate::client::args::SweepTarget;
use crate::client::sweep_set::SweepSet;
use crate::failpoint;

/// `ergodic export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// Further sweeps to export, each to a dataset of its own
    #[arg(index = 2, value_name = "SWEEP", conflicts_with = "follow")]
    pub others: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub dataset: DatasetArgs,
}

/// Where a dataset is, and how rows are added to it.
#[derive(Debug, Clone, Args)]
pub struct DatasetArgs {
    /// A directory, or s3://BUCKET/PREFIX: the dataset is in sweeps/ID below it, and if there is one, new rows are added
    #[arg(short, long, value_name = "DIR|URL")]
    pub output: String,
    /// Format of the tables
    #[arg(long, value_enum, default_value_t)]
    pub format: ExportFormat,
    /// Keep exporting new rows until the sweep has ended
    #[arg(long)]
    pub follow: bool,
    /// With --follow, time between two exports
    #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "TIME", requires = "follow")]
    pub every: Duration,
    /// Write all rows again, into few files
    #[arg(long)]
    pub rewrite: bool,
}

impl DatasetArgs {
    /// Adds the rows that there are now, once.
    pub fn once(output: String) -> Self {
        Self {
            output,
            format: ExportFormat::Parquet,
            follow: false,
            every: Duration::ZERO,
            rewrite: false,
        }
    }
}

/// `--format` of `ergodic export`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ExportFormat {
    /// Apache Parquet.
    #[default]
    Parquet,
}

/// Exports a sweep and prints a line about what was written.
///
/// # Errors
/// There is no such sweep, the dataset cannot be written, or nobody answers.
pub async fn run_export(args: ExportArgs) -> Result<CommandOutcome, UserError> {
    let _failpoints = failpoint::set_up();
    let (mut client, id) = args.sweep.connect().await?;
    let sweeps = SweepSet::resolve(&mut client, id, &args.others).await?;

    let mut written = String::new();
    for id in sweeps.ids() {
        written += &export_sweep(&mut client, id, &args.dataset).await?;
    }
    print_output(written)
}
