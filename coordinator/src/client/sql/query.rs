//! Answers the query of `ergodic sql`.
//!
//! What is queried is a dataset, be it one that is there or one that is fetched for the query and removed after it, so that a query
//! sees one commit of each sweep and asks nothing of a coordinator while it runs.

use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Sql;
use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::errors::{MEMORY_LIMIT, SqlQueryError};
use super::{SqlArgs, answer, errors, tables};
use crate::client::Client;
use crate::client::export::command::DatasetArgs;
use crate::client::export::export_sweep;
use crate::client::export::library::DatasetLibrary;
use crate::client::latest::resolve_sweep_id;
use crate::client::query::{query_status, query_sweeps};
use crate::client::render::{OutputTarget, print_stderr_line};
use crate::client::status_text::count_done_trials;

/// Maximum number of sweeps, and of their trials, that are fetched without being named.
const MAX_FETCHED_SWEEPS: usize = 20;
const MAX_FETCHED_TRIALS: u64 = 200_000;
/// Number of trials from which on fetching is announced.
const MANY_TRIALS: u64 = 10_000;

/// Answers a query over the datasets that it names, or over the sweeps of a coordinator.
///
/// # Errors
/// There is no such dataset or sweep, the query is none or cannot be answered, the answer cannot be written, or nobody answers.
pub(super) async fn answer_query(args: &SqlArgs, target: &OutputTarget) -> Result<(), UserError> {
    match &args.from {
        Some(from) => query_datasets(from, &args.query, &args.sweeps, target).await,
        None => query_coordinator(args, target).await,
    }
}

/// Queries the datasets of these sweeps, or of all, in a directory or object store.
async fn query_datasets(
    from: &str,
    query: &str,
    sweeps: &[String],
    target: &OutputTarget,
) -> Result<(), UserError> {
    let library = DatasetLibrary::open(from)?;
    let manifests = library.read_manifests(sweeps).await?;
    let context = build_session_context()?;
    tables::register_tables(&context, &library, &manifests)
        .map_err(|e| errors::to_user_error(&e, &[]))?;
    let known = tables::list_columns(&manifests);
    run_query(&context, query, target)
        .await
        .map_err(|failure| match failure {
            SqlQueryError::Query(error) => errors::to_user_error(&error, &known),
            SqlQueryError::User(error) => error,
        })
}

/// Queries the sweeps of a coordinator, as they are now.
async fn query_coordinator(args: &SqlArgs, target: &OutputTarget) -> Result<(), UserError> {
    let mut client = args.connection.connect().await?;
    // Checked before anything is fetched, because a malformed query should fail at once.
    check_read_only(
        &parse_statement(&build_session_context()?, &args.query)
            .map_err(|e| errors::to_user_error(&e, &[]))?,
    )?;
    let sweeps = resolve_sweeps(&mut client, &args.sweeps).await?;
    let trials = sweeps.iter().map(count_done_trials).sum::<u64>();
    if trials >= MANY_TRIALS {
        let words = "for further queries, `ergodic export` keeps them for --from";
        print_stderr_line(&format!("fetching {trials} trials; {words}"));
    }

    let folder = tempfile::Builder::new()
        .prefix("ergodic-sql-")
        .tempdir()
        .map_err(|e| {
            let message =
                format!("no temporary directory for the rows can be made: {e}: set TMPDIR");
            UserError::new(ErrorCode::BadInput, message)
        })?;
    let output = folder.path().display().to_string();

    let dataset = DatasetArgs::once(output);
    for sweep in &sweeps {
        export_sweep(&mut client, &sweep.id, &dataset).await?;
    }

    query_datasets(&dataset.output, &args.query, &[], target).await
}

/// The named sweeps, or all if they are few.
async fn resolve_sweeps(
    client: &mut Client,
    named: &[String],
) -> Result<Vec<v1::SweepStatus>, UserError> {
    let mut sweeps: Vec<v1::SweepStatus> = Vec::new();
    for name in named {
        let name = resolve_sweep_id(client, name).await?;
        let status = query_status(client, &name).await?;
        if sweeps.iter().all(|other| other.id != status.id) {
            sweeps.push(status);
        }
    }

    if !named.is_empty() {
        return Ok(sweeps);
    }

    let sweeps = query_sweeps(client).await?;
    let trials = sweeps.iter().map(count_done_trials).sum::<u64>();

    match sweeps.len() {
        0 => Err(UserError::new(
            ErrorCode::NotFound,
            "no sweep yet: launch one with `ergodic launch SPEC`",
        )),
        n if n > MAX_FETCHED_SWEEPS || (n > 1 && trials > MAX_FETCHED_TRIALS) => {
            let message = format!(
                "the coordinator has {n} sweeps with {trials} trials, too many to fetch all of them by default: name those \
                 that the query is about, as in --sweep latest, or export them once and query the export with --from"
            );
            Err(UserError::new(ErrorCode::BadInput, message))
        }
        _ => Ok(sweeps),
    }
}

fn build_session_context() -> Result<SessionContext, UserError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let config = SessionConfig::new()
        .with_default_catalog_and_schema("ergodic", "public")
        .with_information_schema(true)
        .with_target_partitions(cores);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(MEMORY_LIMIT)))
        .build_arc();
    let runtime = runtime
        .map_err(|e| UserError::new(ErrorCode::Internal, format!("no query can be run: {e}")))?;

    Ok(SessionContext::new_with_config_rt(config, runtime))
}

async fn run_query(
    context: &SessionContext,
    query: &str,
    target: &OutputTarget,
) -> Result<(), SqlQueryError> {
    let statement = parse_statement(context, query)?;
    check_read_only(&statement)?;
    let plan = context.state().statement_to_plan(statement).await?;

    // The plan is checked too, because a statement such as EXPLAIN ANALYZE may run another one
    // inside.
    let reading = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    reading
        .verify_plan(&plan)
        .map_err(|_| not_read_only_error(query))?;

    let names = column_names(&plan);
    let rows = context
        .execute_logical_plan(plan)
        .await?
        .execute_stream()
        .await?;
    answer::write_answer(rows, names, target).await
}

fn parse_statement(context: &SessionContext, query: &str) -> Result<Statement, DataFusionError> {
    let state = context.state();
    state.sql_to_statement(query, &state.config_options().sql_parser.dialect)
}

/// Refuses statements that do more than read.
fn check_read_only(statement: &Statement) -> Result<(), UserError> {
    let reads = match statement {
        Statement::Statement(sql) => matches!(
            **sql,
            Sql::Query(_)
                | Sql::Explain { .. }
                | Sql::ExplainTable { .. }
                | Sql::ShowTables { .. }
                | Sql::ShowColumns { .. }
                | Sql::ShowFunctions { .. }
                | Sql::ShowVariable { .. }
        ),
        Statement::Explain(_) => true,
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    };

    if reads {
        Ok(())
    } else {
        Err(not_read_only_error(&statement.to_string()))
    }
}

fn not_read_only_error(statement: &str) -> UserError {
    let begin: String = statement
        .split_whitespace()
        .take(4)
        .collect::<Vec<_>>()
        .join(" ");
    let message = format!(
        "'{begin} …' is refused: `ergodic sql` only reads: expected a query that begins with SELECT, WITH, EXPLAIN, \
         DESCRIBE or SHOW"
    );

    UserError::new(ErrorCode::BadInput, message)
}

/// Names of the columns of an answer. Columns with the same name, as in a join, are prefixed by
/// their tables.
fn column_names(plan: &LogicalPlan) -> Vec<String> {
    let columns: Vec<_> = plan.schema().iter().collect();
    let lone = |name: &str| {
        columns
            .iter()
            .filter(|(_, field)| field.name() == name)
            .count()
            == 1
    };
    let name = |table: Option<&TableReference>, name: &String| match table {
        Some(table) if !lone(name) => format!("{}.{name}", table.table()),
        _ => name.clone(),
    };

    columns
        .iter()
        .map(|(table, field)| name(*table, field.name()))
        .collect()
}
