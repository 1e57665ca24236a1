//! A connection to PostgreSQL, used from one thread.
//!
//! It brings a runtime of its own for that thread. The traits of the store are synchronous, and so is whoever uses them:
//! a thread that writes, or one that reads for somebody. With its own runtime it waits for its own socket and for
//! nothing else; a runtime shared with the gRPC server would add two changes of threads to every answer of the database,
//! and could not be waited for from within.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ergodic_common::{TrialKey, TrialResult};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Postgres, Row};
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;

use crate::store::encoding::{
    attempt_checksum, curve_checksum, encode_curve, encode_f64s, encode_finding, encode_outcome,
    encode_present_predictions, predictions_checksum, replace_nul, trial_checksum,
};
use crate::store::sql::{
    RowCallback, SqlConnection, SqlParam, SqlRow, read_trial_key, whole_trials,
};
use crate::store::{Attempt, Audit, StoreError, Twin};

/// How long the database may take to take a connection, and for an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Rows taken from the connection at a time.
const ROWS_PER_PAGE: usize = 256;

/// An open connection, closed when dropped.
pub(super) struct PgSession {
    connection: RefCell<PgConnection>,
    /// Present until the drop.
    runtime: Option<Runtime>,
    answer_timeout: Duration,
}

impl PgSession {
    /// Connects.
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

    /// Answers later than this count as none.
    pub(super) fn with_answer_timeout(mut self, answer_within: Duration) -> Self {
        self.answer_timeout = answer_within;
        self
    }

    /// Carries out statements without parameters.
    pub(super) fn run_statements(&self, sql: &str) -> Result<(), StoreError> {
        let mut connection = self.connection.borrow_mut();
        // The text is ours, put together from constants.
        self.wait_for_answer(sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection))
            .map(|_| ())
    }

    fn wait_for_answer<T>(
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
        // A runtime must not be waited for where others are at work, and nothing of this one is left to do.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What the database said, or that it said nothing. Its errors name no password.
pub(super) fn to_store_error(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(said) => {
            let code = said.code().unwrap_or_default();
            let text = format!("{} ({code})", said.message());
            // A server that goes, restarts, starts or has no connection left; a transaction it gave up in favour of others.
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

fn bind_params<'q>(
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
    fn stream_rows(
        &self,
        query: Query<'_, Postgres, PgArguments>,
        each: RowCallback<'_>,
    ) -> Result<(), StoreError> {
        let mut connection = self.connection.borrow_mut();
        let mut rows = query.fetch(&mut *connection);

        loop {
            // What is done with a row may wait for somebody else, and must do so outside of the runtime.
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

impl SqlConnection for PgSession {
    fn select_rows(
        &self,
        sql: &'static str,
        values: &[SqlParam<'_>],
        each: RowCallback<'_>,
    ) -> Result<(), StoreError> {
        self.stream_rows(bind_params(sql, values), each)
    }

    fn execute_statement(
        &self,
        sql: &'static str,
        values: &[SqlParam<'_>],
    ) -> Result<u64, StoreError> {
        let mut connection = self.connection.borrow_mut();
        Ok(self
            .wait_for_answer(bind_params(sql, values).execute(&mut *connection))?
            .rows_affected())
    }

    /// Two statements for a whole batch, or three if something was predicted.
    fn insert_trials(
        &self,
        sweep: i64,
        worker: &str,
        results: &[TrialResult],
    ) -> Result<Vec<usize>, StoreError> {
        let mut seen = HashSet::new();
        // A trial that stands twice in a batch is stored as it came first.
        let fresh: Vec<usize> = (0..results.len())
            .filter(|at| seen.insert(results[*at].key))
            .collect();
        let curves = self.insert_trial_rows(sweep, worker, fresh.iter().map(|at| &results[*at]))?;
        let stored: Vec<usize> = fresh
            .into_iter()
            .filter(|at| curves.contains_key(&results[*at].key))
            .collect();
        self.insert_curves(sweep, &curves, stored.iter().map(|at| &results[*at]))?;

        self.insert_predictions(sweep, stored.iter().map(|at| &results[*at]))?;
        Ok(stored)
    }

    fn select_whole_trials(
        &self,
        sweep: i64,
        keys: &[TrialKey],
        each: RowCallback<'_>,
    ) -> Result<(), StoreError> {
        let text = whole_trials!(
            "unnest($2::bigint[], $3::bigint[]) AS asked (cell, repeat) JOIN trials USING (cell, repeat)",
            "WHERE sweep = $1"
        );
        let (cells, repeats) = key_columns(keys.iter().copied());
        self.stream_rows(
            sqlx::query(text).bind(sweep).bind(cells).bind(repeats),
            each,
        )
    }

    fn insert_attempts(
        &self,
        sweep: i64,
        attempts: &[(TrialKey, i64, Attempt)],
    ) -> Result<(), StoreError> {
        let text = "INSERT INTO attempts (sweep, cell, repeat, attempt, cause, worker, seconds, checksum)
                    SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[],
                        $7::float8[], $8::bigint[])";
        let (cells, repeats) = key_columns(attempts.iter().map(|(key, ..)| *key));
        let checksum = |(key, number, attempt): &(TrialKey, i64, Attempt)| {
            attempt_checksum(sweep, *key, *number, attempt)
        };
        let query = sqlx::query(text)
            .bind(sweep)
            .bind(cells)
            .bind(repeats)
            .bind(
                attempts
                    .iter()
                    .map(|(_, number, _)| *number)
                    .collect::<Vec<_>>(),
            )
            .bind(
                attempts
                    .iter()
                    .map(|(.., attempt)| replace_nul(&attempt.cause))
                    .collect::<Vec<_>>(),
            )
            .bind(
                attempts
                    .iter()
                    .map(|(.., attempt)| replace_nul(&attempt.worker))
                    .collect::<Vec<_>>(),
            )
            .bind(
                attempts
                    .iter()
                    .map(|(.., attempt)| attempt.seconds)
                    .collect::<Vec<_>>(),
            )
            .bind(attempts.iter().map(checksum).collect::<Vec<_>>());

        self.stream_rows(query, &mut |_| Ok(true))
    }

    fn insert_audits(&self, sweep: i64, audits: &[Audit]) -> Result<(), StoreError> {
        let text = "INSERT INTO audits (sweep, cell, repeat, process, finding, auditor, auditor_process, why)
                    SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::text[],
                        $8::text[])
                    ON CONFLICT (sweep, cell, repeat) DO NOTHING";
        let (cells, repeats) = key_columns(audits.iter().map(|audit| audit.key));
        let query = sqlx::query(text)
            .bind(sweep)
            .bind(cells)
            .bind(repeats)
            .bind(
                audits
                    .iter()
                    .map(|audit| replace_nul(&audit.process))
                    .collect::<Vec<_>>(),
            )
            .bind(
                audits
                    .iter()
                    .map(|audit| encode_finding(audit.finding))
                    .collect::<Vec<_>>(),
            )
            .bind(
                audits
                    .iter()
                    .map(|audit| replace_nul(&audit.auditor))
                    .collect::<Vec<_>>(),
            )
            .bind(
                audits
                    .iter()
                    .map(|audit| replace_nul(&audit.auditor_process))
                    .collect::<Vec<_>>(),
            )
            .bind(
                audits
                    .iter()
                    .map(|audit| replace_nul(&audit.why))
                    .collect::<Vec<_>>(),
            );

        self.stream_rows(query, &mut |_| Ok(true))
    }

    fn insert_twins(&self, sweep: i64, twins: &[Twin]) -> Result<(), StoreError> {
        let text = "INSERT INTO twins (sweep, cell, other_sweep, other_cell)
                    SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[])
                    ON CONFLICT (sweep, cell, other_sweep) DO NOTHING";
        let query = sqlx::query(text)
            .bind(sweep)
            .bind(
                twins
                    .iter()
                    .map(|twin| twin.cell as i64)
                    .collect::<Vec<_>>(),
            )
            .bind(
                twins
                    .iter()
                    .map(|twin| twin.other_sweep)
                    .collect::<Vec<_>>(),
            )
            .bind(
                twins
                    .iter()
                    .map(|twin| twin.other_cell as i64)
                    .collect::<Vec<_>>(),
            );

        self.stream_rows(query, &mut |_| Ok(true))
    }
}

impl PgSession {
    /// Inserts the rows of trials that have none; these, with the numbers of their curves.
    fn insert_trial_rows<'r>(
        &self,
        sweep: i64,
        worker: &str,
        results: impl Iterator<Item = &'r TrialResult> + Clone,
    ) -> Result<HashMap<TrialKey, i64>, StoreError> {
        let text = "INSERT INTO trials
                        (sweep, worker, cell, repeat, outcome, step, cause, steps, seconds, digest, metrics, isa, weights,
                         checksum)
                    SELECT $1, $2, * FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[],
                        $8::bigint[], $9::float8[], $10::bytea[], $11::bytea[], $12::text[], $13::bytea[], $14::bigint[])
                    ON CONFLICT (sweep, cell, repeat) DO NOTHING RETURNING cell, repeat, curve";

        let (cells, repeats) = key_columns(results.clone().map(|result| result.key));
        let outcomes = || {
            results
                .clone()
                .map(|result| encode_outcome(&result.outcome))
        };
        let query = sqlx::query(text)
            .bind(sweep)
            .bind(replace_nul(worker))
            .bind(cells)
            .bind(repeats)
            .bind(outcomes().map(|(kind, ..)| kind).collect::<Vec<_>>())
            .bind(outcomes().map(|(_, step, _)| step).collect::<Vec<_>>())
            .bind(
                outcomes()
                    .map(|(.., cause)| cause.map(replace_nul))
                    .collect::<Vec<_>>(),
            )
            .bind(results.clone().map(|r| r.steps as i64).collect::<Vec<_>>())
            .bind(results.clone().map(|r| r.seconds).collect::<Vec<_>>())
            .bind(results.clone().map(|r| &r.digest[..]).collect::<Vec<_>>())
            .bind(
                results
                    .clone()
                    .map(|r| encode_f64s(&r.metrics))
                    .collect::<Vec<_>>(),
            )
            .bind(results.clone().map(|r| r.isa.as_str()).collect::<Vec<_>>())
            .bind(
                results
                    .clone()
                    .map(|r| r.weights_hash.as_ref().map(|hash| &hash[..]))
                    .collect::<Vec<_>>(),
            )
            .bind(
                results
                    .map(|r| trial_checksum(sweep, worker, r))
                    .collect::<Vec<_>>(),
            );

        let mut curves = HashMap::new();
        self.stream_rows(query, &mut |row| {
            curves.insert(read_trial_key(row)?, row.get_int(2)?);
            Ok(true)
        })?;

        Ok(curves)
    }

    fn insert_curves<'r>(
        &self,
        sweep: i64,
        curves: &HashMap<TrialKey, i64>,
        results: impl Iterator<Item = &'r TrialResult>,
    ) -> Result<(), StoreError> {
        let row = |result: &TrialResult| {
            let data = encode_curve(&result.curve);
            (
                curves[&result.key],
                (curve_checksum(sweep, result.key, &data), data),
            )
        };
        let (numbers, rest): (Vec<i64>, Vec<(i64, Vec<u8>)>) = results.map(row).unzip();
        let (checksums, data): (Vec<i64>, Vec<Vec<u8>>) = rest.into_iter().unzip();

        if numbers.is_empty() {
            return Ok(());
        }

        let text = "INSERT INTO curves (curve, data, checksum)
                    SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[])";
        self.stream_rows(
            sqlx::query(text).bind(numbers).bind(data).bind(checksums),
            &mut |_| Ok(true),
        )
    }

    fn insert_predictions<'r>(
        &self,
        sweep: i64,
        results: impl Iterator<Item = &'r TrialResult>,
    ) -> Result<(), StoreError> {
        let (keys, data): (Vec<TrialKey>, Vec<Vec<u8>>) = results
            .filter_map(|result| Some((result.key, encode_present_predictions(result)?)))
            .unzip();
        if keys.is_empty() {
            return Ok(());
        }

        let checksums = keys
            .iter()
            .zip(&data)
            .map(|(key, data)| predictions_checksum(sweep, *key, data));
        let checksums: Vec<i64> = checksums.collect();
        let (cells, repeats) = key_columns(keys.into_iter());

        let text = "INSERT INTO predictions (sweep, cell, repeat, data, checksum)
                    SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bytea[], $5::bigint[])";
        let query = sqlx::query(text)
            .bind(sweep)
            .bind(cells)
            .bind(repeats)
            .bind(data)
            .bind(checksums);

        self.stream_rows(query, &mut |_| Ok(true))
    }
}

/// Cells and repeats of trials.
fn key_columns(keys: impl Iterator<Item = TrialKey>) -> (Vec<i64>, Vec<i64>) {
    keys.map(|key| (key.cell as i64, i64::from(key.repeat)))
        .unzip()
}
