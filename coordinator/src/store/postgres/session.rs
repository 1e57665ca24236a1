//! A connection to PostgreSQL, used from one thread.
//!
//! The connection has a runtime of its own for that thread. The store's traits are synchronous, and so are the
//! threads that use them. With its own runtime, a thread waits only for its own socket. A runtime
//! shared with the gRPC server would add two thread switches to every response, and could not be
//! waited for from its own threads.

use std::cell::RefCell;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Postgres, Row};
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;

use crate::store::encoding::replace_nul;
use crate::store::error::StoreError;
use crate::store::sql::param::SqlParam;
use crate::store::sql::{RowCallback, SqlRow};

/// Time limit for connecting and for a response of the database.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Number of rows taken from the connection at a time.
const ROWS_PER_PAGE: usize = 256;

/// An open connection, which is closed on drop.
pub(super) struct PgSession {
    pub(super) connection: RefCell<PgConnection>,
    /// The runtime; `None` only during drop.
    runtime: Option<Runtime>,
    answer_timeout: Duration,
}

impl PgSession {
    /// Connects to the database.
    pub(super) fn open(options: &PgConnectOptions) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|e| StoreError::Failed(e.to_string()))?;
        let connecting = async { tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await };
        let connection = match runtime.block_on(connecting) {
            Ok(connection) => connection.map_err(to_store_error)?,
            Err(_) => {
                return Err(StoreError::Disconnected(
                    "no connection within five seconds".into(),
                ));
            }
        };

        Ok(Self {
            connection: RefCell::new(connection),
            runtime: Some(runtime),
            answer_timeout: ANSWER_TIMEOUT,
        })
    }

    /// Sets the time after which a response counts as missing.
    pub(super) fn with_answer_timeout(mut self, answer_within: Duration) -> Self {
        self.answer_timeout = answer_within;
        self
    }

    /// Runs statements without parameters.
    pub(super) fn run_statements(&self, sql: &str) -> Result<(), StoreError> {
        let mut connection = self.connection.borrow_mut();
        // Safe without parameters, because the text is built from constants only.
        self.wait_for_answer(sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection))
            .map(|_| ())
    }

    pub(super) fn wait_for_answer<T>(
        &self,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        let runtime = self.runtime.as_ref().expect("it is there until the drop");
        match runtime.block_on(async { tokio::time::timeout(self.answer_timeout, work).await }) {
            Ok(result) => result.map_err(to_store_error),
            Err(_) => Err(StoreError::Disconnected("no answer in time".into())),
        }
    }
}

impl Drop for PgSession {
    fn drop(&mut self) {
        // Dropping a runtime blocks, which panics on the threads of another one. Nothing is left to
        // do in this one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Converts an error of the database or of the connection. These errors contain no password.
pub(super) fn to_store_error(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(said) => {
            let code = said.code().unwrap_or_default();
            let text = format!("{} ({code})", said.message());
            // SQLSTATE classes that pass: connection lost, server shutting down or starting, too
            // many connections, transaction rolled back in favour of others.
            let passes = ["08", "57P", "53", "40"]
                .iter()
                .any(|class| code.starts_with(class));
            if passes {
                StoreError::Disconnected(text)
            } else {
                StoreError::Failed(text)
            }
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => StoreError::Disconnected(error.to_string()),
        _ => StoreError::Failed(error.to_string()),
    }
}

pub(super) fn bind_params<'q>(
    sql: &'static str,
    values: &'q [SqlParam<'q>],
) -> Query<'q, Postgres, PgArguments> {
    values
        .iter()
        .fold(sqlx::query(sql), |query, value| match *value {
            SqlParam::Int(value) => query.bind(value),
            SqlParam::Real(value) => query.bind(value),
            SqlParam::Text(value) => query.bind(replace_nul(value)),
            SqlParam::OptionalText(value) => query.bind(value.map(replace_nul)),
            SqlParam::Bytes(value) => query.bind(value),
        })
}

impl SqlRow for PgRow {
    fn get_optional_int(&self, at: usize) -> Result<Option<i64>, StoreError> {
        self.try_get(at).map_err(to_store_error)
    }

    fn get_real(&self, at: usize) -> Result<f64, StoreError> {
        self.try_get(at).map_err(to_store_error)
    }

    fn get_optional_text(&self, at: usize) -> Result<Option<&str>, StoreError> {
        self.try_get(at).map_err(to_store_error)
    }

    fn get_optional_bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError> {
        self.try_get(at).map_err(to_store_error)
    }
}

impl PgSession {
    pub(super) fn stream_rows(
        &self,
        query: Query<'_, Postgres, PgArguments>,
        each: RowCallback<'_>,
    ) -> Result<(), StoreError> {
        let mut connection = self.connection.borrow_mut();
        let mut rows = query.fetch(&mut *connection);

        loop {
            // Reads a page at a time, because the callback may block and must run outside the
            // runtime.
            let page = self.wait_for_answer(async {
                let mut page = Vec::with_capacity(ROWS_PER_PAGE);
                while page.len() < ROWS_PER_PAGE {
                    match rows.try_next().await? {
                        Some(row) => page.push(row),
                        None => break,
                    }
                }

                Ok(page)
            })?;
            for row in &page {
                if !each(row)? {
                    return Ok(());
                }
            }

            if page.len() < ROWS_PER_PAGE {
                return Ok(());
            }
        }
    }
}

impl PgSession {}
