//! What the two databases have in common: nearly every statement, and what becomes of their rows. Parameters are
//! numbered in the order in which they first appear, which is how both of them understand `$1`.

mod gather;
mod grow;
mod read;
mod write;

use ergodic_common::TrialKey;

use super::rows::{attempt_checksum, from_finding};
use super::{Attempt, Audit, StoreError, Twin};
pub(super) use read::{key, whole_trial, whole_trials, whole_trials_one_by_one};
pub(super) use write::apply;

/// A parameter of a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Int(i64),
    Real(f64),
    Text(&'a str),
    MaybeText(Option<&'a str>),
    Bytes(Option<&'a [u8]>),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Value<'_> {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

/// Numbers of cells, leases and epochs stay far below 2^63.
impl From<u64> for Value<'_> {
    fn from(value: u64) -> Self {
        Self::Int(value as i64)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

/// A row, its fields by position.
pub(super) trait Fields {
    fn maybe_int(&self, at: usize) -> Result<Option<i64>, StoreError>;
    fn real(&self, at: usize) -> Result<f64, StoreError>;
    fn maybe_text(&self, at: usize) -> Result<Option<&str>, StoreError>;
    fn maybe_bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError>;

    fn int(&self, at: usize) -> Result<i64, StoreError> {
        self.maybe_int(at)?.ok_or_else(|| damaged(at, "a number"))
    }

    fn text(&self, at: usize) -> Result<&str, StoreError> {
        self.maybe_text(at)?.ok_or_else(|| damaged(at, "a text"))
    }

    fn bytes(&self, at: usize) -> Result<&[u8], StoreError> {
        self.maybe_bytes(at)?.ok_or_else(|| damaged(at, "bytes"))
    }

    fn maybe_hash(&self, at: usize) -> Result<Option<[u8; 32]>, StoreError> {
        let hash = |bytes: &[u8]| bytes.try_into().map_err(|_| damaged(at, "a hash of 32 bytes"));
        self.maybe_bytes(at)?.map(hash).transpose()
    }
}

/// What is done with each row; `false` asks for no more.
pub(super) type Each<'a> = &'a mut dyn FnMut(&dyn Fields) -> Result<bool, StoreError>;

/// A connection to a database.
pub(super) trait Sql {
    /// Hands out the rows that a statement yields.
    fn select(&self, sql: &'static str, values: &[Value<'_>], each: Each<'_>) -> Result<(), StoreError>;

    /// Carries out a statement; how many rows it changed.
    fn execute(&self, sql: &'static str, values: &[Value<'_>]) -> Result<u64, StoreError>;

    /// Stores those of these trials that have no row yet; their positions.
    fn insert_trials(
        &self,
        sweep: i64,
        worker: &str,
        results: &[ergodic_common::TrialResult],
    ) -> Result<Vec<usize>, StoreError>;

    /// Hands out the whole rows of those of these trials that have one.
    fn whole_trials(&self, sweep: i64, keys: &[TrialKey], each: Each<'_>) -> Result<(), StoreError>;

    /// Stores attempts, each with its trial and its number.
    fn insert_attempts(&self, sweep: i64, attempts: &[(TrialKey, i64, Attempt)]) -> Result<(), StoreError> {
        let text = "INSERT INTO attempts (sweep, cell, repeat, attempt, cause, worker, seconds, checksum)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        for (key, number, attempt) in attempts {
            let values = [
                sweep.into(),
                key.cell.into(),
                key.repeat.into(),
                (*number).into(),
                attempt.cause.as_str().into(),
                attempt.worker.as_str().into(),
                Value::Real(attempt.seconds),
                attempt_checksum(sweep, *key, *number, attempt).into(),
            ];
            self.execute(text, &values)?;
        }
        Ok(())
    }

    /// Stores audits of trials that have none.
    fn insert_audits(&self, sweep: i64, audits: &[Audit]) -> Result<(), StoreError> {
        let text = "INSERT INTO audits (sweep, cell, repeat, process, finding, auditor, auditor_process, why)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (sweep, cell, repeat) DO NOTHING";
        for audit in audits {
            let values = [
                sweep.into(),
                audit.key.cell.into(),
                audit.key.repeat.into(),
                audit.process.as_str().into(),
                from_finding(audit.finding).into(),
                audit.auditor.as_str().into(),
                audit.auditor_process.as_str().into(),
                audit.why.as_str().into(),
            ];
            self.execute(text, &values)?;
        }
        Ok(())
    }

    /// Puts down cells of a sweep of which another one has rows, but for those that are put down.
    fn insert_twins(&self, sweep: i64, twins: &[Twin]) -> Result<(), StoreError> {
        let text = "INSERT INTO twins (sweep, cell, other_sweep, other_cell) VALUES ($1, $2, $3, $4)
                    ON CONFLICT (sweep, cell, other_sweep) DO NOTHING";
        for twin in twins {
            self.execute(text, &[sweep.into(), twin.cell.into(), twin.other_sweep.into(), twin.other_cell.into()])?;
        }
        Ok(())
    }
}

/// All rows that a statement yields.
fn all<T>(
    sql: &impl Sql,
    text: &'static str,
    values: &[Value<'_>],
    read: impl Fn(&dyn Fields) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut rows = Vec::new();
    sql.select(text, values, &mut |row| {
        rows.push(read(row)?);
        Ok(true)
    })?;
    Ok(rows)
}

/// The number that a statement yields, if it yields a row.
pub(super) fn number(sql: &impl Sql, text: &'static str, values: &[Value<'_>]) -> Result<Option<i64>, StoreError> {
    Ok(all(sql, text, values, |row| row.int(0))?.pop())
}

fn damaged(column: usize, expected: &str) -> StoreError {
    StoreError::Failed(format!("a row is damaged: expected {expected} in column {column}"))
}
