//! `ergodic sql`: queries over the trials of one or several sweeps, as `ergodic export` writes them.
//!
//! What is queried is a dataset, be it one that is there or one that is fetched for the query and removed after it, so that a query
//! sees one commit of each sweep and asks nothing of a coordinator while it runs.

mod answer;
mod errors;
mod tables;

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

use super::Client;
use super::export::library::DatasetLibrary;
use super::export::{ExportOptions, export_sweep};
use super::latest::resolve_sweep_id;
use super::query::{query_status, query_sweeps};
use super::render::{OutputTarget, print_stderr_line};
use super::status_text::count_done_trials;

/// A query, its sweeps and its output.
#[derive(Debug, Clone)]
pub struct SqlOptions {
    /// The query.
    pub query: String,
    /// Ids of sweeps, unique beginnings of them, or "latest"; none for all.
    pub sweeps: Vec<String>,
    /// Where the answer goes.
    pub sink: OutputTarget,
}

/// Bytes that sorting, grouping and joining may hold; what is more goes to temporary files, as far as that is possible.
const MEMORY_LIMIT: usize = 1 << 30;
/// Most sweeps, and trials of them, that are fetched unless they are named.
const MAX_FETCHED_SWEEPS: usize = 20;
const MAX_FETCHED_TRIALS: u64 = 200_000;
/// Trials whose fetching takes long enough to say so.
const MANY_TRIALS: u64 = 10_000;

/// `ergodic sql` over the datasets in a directory or object store.
///
/// # Errors
/// There is no such dataset, the query is none or cannot be answered, or the answer cannot be written.
pub async fn query_datasets(from: &str, options: &SqlOptions) -> Result<(), UserError> {
    let library = DatasetLibrary::open(from)?;
    let manifests = library.read_manifests(&options.sweeps).await?;
    let context = build_session_context()?;
    tables::register_tables(&context, &library, &manifests)
        .map_err(|e| errors::to_user_error(&e, &[]))?;
    let known = tables::list_columns(&manifests);
    run_query(&context, options)
        .await
        .map_err(|failure| match failure {
            SqlQueryError::Query(error) => errors::to_user_error(&error, &known),
            SqlQueryError::User(error) => error,
        })
}

/// `ergodic sql` over the sweeps of a coordinator, as they are now.
///
/// # Errors
/// As for [`query_datasets`]; there are too many sweeps to fetch all, or nobody answers.
pub async fn query_coordinator(client: &mut Client, options: &SqlOptions) -> Result<(), UserError> {
    // A malformed query is an error before anything is fetched.
    check_read_only(
        &parse_statement(&build_session_context()?, &options.query)
            .map_err(|e| errors::to_user_error(&e, &[]))?,
    )?;
    let sweeps = resolve_sweeps(client, &options.sweeps).await?;
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

    for sweep in &sweeps {
        let options = ExportOptions {
            output: output.clone(),
            follow: false,
            every: Default::default(),
            rewrite: false,
        };
        export_sweep(client, &sweep.id, &options).await?;
    }

    query_datasets(
        &output,
        &SqlOptions {
            sweeps: Vec::new(),
            ..options.clone()
        },
    )
    .await
}

/// The sweeps named, or all if they are few.
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
                "the coordinator has {n} sweeps with {trials} trials, which are not all fetched unasked: name those that the query \
                 is about, as in --sweep latest, or export them once and query that with --from"
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

/// Why a query has no answer.
enum SqlQueryError {
    Query(DataFusionError),
    /// In the words of its place.
    User(UserError),
}

impl From<DataFusionError> for SqlQueryError {
    fn from(error: DataFusionError) -> Self {
        Self::Query(error)
    }
}

impl From<UserError> for SqlQueryError {
    fn from(error: UserError) -> Self {
        Self::User(error)
    }
}

async fn run_query(context: &SessionContext, options: &SqlOptions) -> Result<(), SqlQueryError> {
    let statement = parse_statement(context, &options.query)?;
    check_read_only(&statement)?;
    let plan = context.state().statement_to_plan(statement).await?;

    // Whatever is inside, as under EXPLAIN ANALYZE.
    let reading = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    reading
        .verify_plan(&plan)
        .map_err(|_| not_read_only_error(&options.query))?;

    let names = column_names(&plan);
    let rows = context
        .execute_logical_plan(plan)
        .await?
        .execute_stream()
        .await?;
    answer::write_answer(rows, names, &options.sink).await
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
        "'{begin} …' is refused: `ergodic sql` changes nothing and only reads: expected a query that begins with SELECT, WITH, \
         EXPLAIN, DESCRIBE or SHOW"
    );

    UserError::new(ErrorCode::BadInput, message)
}

/// Names of the columns of an answer. Where two have the same one, as in a join, their tables tell them apart.
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
