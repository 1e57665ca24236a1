//! A connection to SQLite for the statements of `sql`.

use ergodic_common::ids::SweepNumber;
use ergodic_common::{TrialKey, TrialResult};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, ToSql, params, params_from_iter};

use crate::store::checksum::{curve_checksum, predictions_checksum, trial_checksum};
use crate::store::encoding::{
    encode_curve, encode_f64s, encode_outcome, encode_present_predictions,
};
use crate::store::error::StoreError;
use crate::store::sql::param::SqlParam;
use crate::store::sql::{RowCallback, SqlConnection, SqlRow, select_whole_trials_one_by_one};

impl ToSql for SqlParam<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(value) | Self::OptionalText(Some(value)) => ValueRef::Text(value.as_bytes()),
            Self::Bytes(Some(value)) => ValueRef::Blob(value),
            Self::Bytes(None) | Self::OptionalText(None) => ValueRef::Null,
        }))
    }
}

/// Numbers of the expected type are taken as they are: `get`, which converts others or describes the error, takes twice as long.
impl SqlRow for Row<'_> {
    fn get_optional_int(&self, at: usize) -> Result<Option<i64>, StoreError> {
        match self.get_ref(at)? {
            ValueRef::Integer(value) => Ok(Some(value)),
            ValueRef::Null => Ok(None),
            _ => Ok(self.get(at)?),
        }
    }

    fn get_real(&self, at: usize) -> Result<f64, StoreError> {
        match self.get_ref(at)? {
            ValueRef::Real(value) => Ok(value),
            _ => Ok(self.get(at)?),
        }
    }

    fn get_optional_text(&self, at: usize) -> Result<Option<&str>, StoreError> {
        Ok(self
            .get_ref(at)?
            .as_str_or_null()
            .map_err(rusqlite::Error::from)?)
    }

    fn get_optional_bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError> {
        Ok(self
            .get_ref(at)?
            .as_blob_or_null()
            .map_err(rusqlite::Error::from)?)
    }
}

impl SqlConnection for Connection {
    fn select_rows(
        &self,
        sql: &'static str,
        values: &[SqlParam<'_>],
        each: RowCallback<'_>,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare_cached(sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            if !each(row)? {
                break;
            }
        }
        Ok(())
    }

    fn execute_statement(
        &self,
        sql: &'static str,
        values: &[SqlParam<'_>],
    ) -> Result<u64, StoreError> {
        Ok(self
            .prepare_cached(sql)?
            .execute(params_from_iter(values))? as u64)
    }

    fn insert_trials(
        &self,
        sweep: SweepNumber,
        worker: &str,
        results: &[TrialResult],
    ) -> Result<Vec<usize>, StoreError> {
        let mut stored = Vec::new();
        for (at, result) in results.iter().enumerate() {
            if insert_trial(self, sweep, worker, result)? {
                stored.push(at);
            }
        }
        Ok(stored)
    }

    fn select_whole_trials(
        &self,
        sweep: SweepNumber,
        keys: &[TrialKey],
        each: RowCallback<'_>,
    ) -> Result<(), StoreError> {
        select_whole_trials_one_by_one(self, sweep, keys, each)
    }
}

/// Inserts a trial unless it has a row; returns whether it had none.
fn insert_trial(
    sqlite: &Connection,
    sweep: SweepNumber,
    worker: &str,
    result: &TrialResult,
) -> Result<bool, StoreError> {
    let (outcome, step, cause) = encode_outcome(&result.outcome);
    let exists = sqlite
        .prepare_cached("SELECT 1 FROM trials WHERE sweep = ?1 AND cell = ?2 AND repeat = ?3")?
        .exists(params![
            sweep.0,
            result.key.cell.0 as i64,
            result.key.repeat.0
        ])?;
    if exists {
        return Ok(false);
    }

    let curve = insert_curve(sqlite, sweep, result)?;
    sqlite
        .prepare_cached(
            "INSERT INTO trials (sweep, cell, repeat, outcome, step, cause, steps, seconds, worker, digest, metrics, curve, isa,
                                 weights, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?
        .execute(params![
        sweep.0,
        result.key.cell.0 as i64,
        result.key.repeat.0,
        outcome,
        step,
        cause,
        result.steps as i64,
        result.seconds,
        worker,
        result.digest.0.as_slice(),
        encode_f64s(&result.metrics),
        curve,
        result.isa,
        result.weights_hash.as_ref().map(|hash| hash.0.as_slice()),
        trial_checksum(sweep, worker, result),
    ])?;

    insert_predictions(sqlite, sweep, result)?;
    Ok(true)
}

/// Inserts the curve of a trial; returns its number.
fn insert_curve(
    sqlite: &Connection,
    sweep: SweepNumber,
    result: &TrialResult,
) -> Result<i64, StoreError> {
    let data = encode_curve(&result.curve);
    let checksum = curve_checksum(sweep, result.key, &data);
    Ok(sqlite
        .prepare_cached("INSERT INTO curves (data, checksum) VALUES (?1, ?2)")?
        .insert(params![data, checksum])?)
}

/// Inserts the predictions of a trial, if there are any.
fn insert_predictions(
    sqlite: &Connection,
    sweep: SweepNumber,
    result: &TrialResult,
) -> Result<(), StoreError> {
    let Some(predictions) = encode_present_predictions(result) else {
        return Ok(());
    };

    let checksum = predictions_checksum(sweep, result.key, &predictions);
    sqlite
        .prepare_cached("INSERT INTO predictions VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            sweep.0,
            result.key.cell.0 as i64,
            result.key.repeat.0,
            predictions,
            checksum,
        ])?;
    Ok(())
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
