//! `ergodic sql`: queries over the trials of one or several sweeps, as `ergodic export` writes them.
//!
//! The query engine takes minutes to build: it is part of builds with the feature `sql` alone, its arguments of all builds.

#[cfg(feature = "sql")]
mod answer;
#[cfg(feature = "sql")]
mod errors;
#[cfg(feature = "sql")]
mod query;
#[cfg(feature = "sql")]
mod tables;

use clap::Args;
use ergodic_proto::status::UserError;

use super::render::OutputArgs;
use super::source::SourceArgs;
use crate::app::CommandOutcome;

/// `ergodic sql`
#[derive(Debug, Args)]
pub struct SqlArgs {
    /// A query of the tables sweeps, cells, trials, curves and predictions; `SHOW COLUMNS FROM trials` lists the columns of one
    pub query: String,
    /// A sweep: its name, its id, a unique prefix of the id, or "latest", your last one; may be given several times [default: all]
    #[arg(long = "sweep", value_name = "ID")]
    pub sweeps: Vec<String>,
    /// Output of `ergodic export` to query: a directory, or s3://BUCKET/PREFIX [default: fetch the sweeps from the coordinator or store]
    #[arg(long, value_name = "DIR|URL")]
    pub from: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: SourceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// Answers a query. Whoever interrupts it leaves no rows behind that were fetched for it.
///
/// # Errors
/// The query is none or cannot be answered, the answer cannot be written, or nobody answers.
#[cfg(feature = "sql")]
pub async fn run_sql(args: SqlArgs) -> Result<CommandOutcome, UserError> {
    let target = args.output.choose_target()?;
    let answered = query::answer_query(&args, &target);

    tokio::select! {
        () = crate::app::wait_for_interrupt() => Ok(CommandOutcome::Interrupted),
        answered = answered => answered.map(|()| CommandOutcome::Done),
    }
}

/// Refuses the query: this program was built without SQL.
///
/// # Errors
/// Always.
#[cfg(not(feature = "sql"))]
pub async fn run_sql(_: SqlArgs) -> Result<CommandOutcome, UserError> {
    let message = "this program was built without SQL: build it with `cargo build --release --locked --features ergodic/sql`, or \
                   ask the files that `ergodic export` writes with DuckDB";
    Err(UserError::new(ergodic_common::ErrorCode::BadInput, message))
}
