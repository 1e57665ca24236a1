//! The statements that both databases share, and the conversion of their rows. Parameters are
//! numbered in the order of first appearance, which both understand as `$1`.

mod extend;
pub(super) mod outputs;
pub(super) mod param;
mod read;
mod reuse;
pub(super) mod rows;
mod seal_rows;
mod seals;
mod transaction;
mod write;

use ergodic_common::TrialKey;
use ergodic_common::ids::SweepNumber;
pub use extend::{ExtendSweep, InsertSuccessor};
pub use outputs::RestoreOutputs;
pub(super) use read::{select_whole_trials_one_by_one, select_whole_trials_sql};
pub use reuse::InsertReusing;
pub use seals::SealSweep;
pub use transaction::StoreTransaction;
pub use write::*;

use super::checksum::{attempt_checksum, output_checksum};
use super::encoding::encode_finding;
use super::error::StoreError;
use super::outputs::StoredOutput;
use super::types::{Attempt, Audit, Twin};
use crate::store::sql::param::SqlParam;

/// Number of rows copied from one sweep to another at a time, if they are small.
const ROWS_PER_COPY: i64 = 256;
/// Number of values in curves and predictions from which on rows are copied before more are read.
const NUMBERS_PER_COPY: usize = 4 << 20;

/// A row with fields by position.
pub(super) trait SqlRow {
    fn get_optional_int(&self, at: usize) -> Result<Option<i64>, StoreError>;
    fn get_real(&self, at: usize) -> Result<f64, StoreError>;
    fn get_optional_text(&self, at: usize) -> Result<Option<&str>, StoreError>;
    fn get_optional_bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError>;

    fn get_int(&self, at: usize) -> Result<i64, StoreError> {
        self.get_optional_int(at)?
            .ok_or_else(|| damaged_column(at, "a number"))
    }

    fn get_text(&self, at: usize) -> Result<&str, StoreError> {
        self.get_optional_text(at)?
            .ok_or_else(|| damaged_column(at, "a text"))
    }

    fn get_bytes(&self, at: usize) -> Result<&[u8], StoreError> {
        self.get_optional_bytes(at)?
            .ok_or_else(|| damaged_column(at, "bytes"))
    }

    fn get_optional_hash(&self, at: usize) -> Result<Option<[u8; 32]>, StoreError> {
        self.get_optional_bytes(at)?
            .map(|bytes| {
                bytes
                    .try_into()
                    .map_err(|_| damaged_column(at, "a hash of 32 bytes"))
            })
            .transpose()
    }
}

/// A callback for each row, which returns whether it wants more.
pub(super) type RowCallback<'a> = &'a mut dyn FnMut(&dyn SqlRow) -> Result<bool, StoreError>;

/// A connection to a database.
pub(super) trait SqlConnection {
    /// Calls `each` with the rows of a statement.
    fn select_rows(
        &self,
        sql: &'static str,
        values: &[SqlParam<'_>],
        each: RowCallback<'_>,
    ) -> Result<(), StoreError>;

    /// Executes a statement; returns the number of changed rows.
    fn execute_statement(
        &self,
        sql: &'static str,
        values: &[SqlParam<'_>],
    ) -> Result<u64, StoreError>;

    /// Inserts those of these trials that have no row yet; returns their positions.
    fn insert_trials(
        &self,
        sweep: SweepNumber,
        worker: &str,
        results: &[ergodic_common::TrialResult],
    ) -> Result<Vec<usize>, StoreError>;

    /// Calls `each` with the whole rows of those of these trials that have one.
    fn select_whole_trials(
        &self,
        sweep: SweepNumber,
        keys: &[TrialKey],
        each: RowCallback<'_>,
    ) -> Result<(), StoreError>;

    /// Inserts attempts, each with its trial and its number.
    fn insert_attempts(
        &self,
        sweep: SweepNumber,
        attempts: &[(TrialKey, i64, Attempt)],
    ) -> Result<(), StoreError> {
        let text =
            "INSERT INTO attempts (sweep, cell, repeat, attempt, cause, worker, seconds, checksum)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

        for (key, number, attempt) in attempts {
            let values = [
                sweep.into(),
                key.cell.into(),
                key.repeat.into(),
                (*number).into(),
                attempt.cause.as_str().into(),
                attempt.worker.as_str().into(),
                param::SqlParam::Real(attempt.seconds),
                attempt_checksum(sweep, *key, *number, attempt).into(),
            ];

            self.execute_statement(text, &values)?;
        }

        Ok(())
    }

    /// Inserts what programs printed, at most once of each attempt.
    fn insert_outputs(
        &self,
        sweep: SweepNumber,
        outputs: &[StoredOutput],
    ) -> Result<(), StoreError> {
        let text = "INSERT INTO outputs (sweep, cell, repeat, attempt, printed, data, checksum)
                    VALUES ($1, $2, $3, $4, $5, $6, $7)
                    ON CONFLICT (sweep, cell, repeat, attempt)
                        DO UPDATE SET printed = excluded.printed, data = excluded.data, checksum = excluded.checksum";

        for stored in outputs {
            let values = [
                sweep.into(),
                stored.key.cell.into(),
                stored.key.repeat.into(),
                stored.attempt.into(),
                stored.output.printed.into(),
                param::SqlParam::Bytes(Some(&stored.output.packed)),
                output_checksum(sweep, stored).into(),
            ];
            self.execute_statement(text, &values)?;
        }

        Ok(())
    }

    /// Inserts audits of trials that have none.
    fn insert_audits(&self, sweep: SweepNumber, audits: &[Audit]) -> Result<(), StoreError> {
        let text = "INSERT INTO audits (sweep, cell, repeat, process, finding, auditor, auditor_process, why)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (sweep, cell, repeat) DO NOTHING";

        for audit in audits {
            let values = [
                sweep.into(),
                audit.key.cell.into(),
                audit.key.repeat.into(),
                (&audit.process).into(),
                encode_finding(audit.finding).into(),
                audit.auditor.as_str().into(),
                (&audit.auditor_process).into(),
                audit.why.as_str().into(),
            ];

            self.execute_statement(text, &values)?;
        }

        Ok(())
    }

    /// Inserts which cells of a sweep have rows in another one, unless they are stored already.
    fn insert_twins(&self, sweep: SweepNumber, twins: &[Twin]) -> Result<(), StoreError> {
        let text =
            "INSERT INTO twins (sweep, cell, other_sweep, other_cell) VALUES ($1, $2, $3, $4)
                    ON CONFLICT (sweep, cell, other_sweep) DO NOTHING";

        for twin in twins {
            self.execute_statement(
                text,
                &[
                    sweep.into(),
                    twin.cell.into(),
                    twin.other_sweep.into(),
                    twin.other_cell.into(),
                ],
            )?;
        }

        Ok(())
    }
}

/// Reads all rows of a statement.
fn select_all<T>(
    sql: &impl SqlConnection,
    text: &'static str,
    values: &[SqlParam<'_>],
    read: impl Fn(&dyn SqlRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut rows = Vec::new();
    sql.select_rows(text, values, &mut |row| {
        rows.push(read(row)?);
        Ok(true)
    })?;
    Ok(rows)
}

/// Reads the number that a statement selects; `None` without a row.
pub(super) fn select_number(
    sql: &impl SqlConnection,
    text: &'static str,
    values: &[SqlParam<'_>],
) -> Result<Option<i64>, StoreError> {
    Ok(select_all(sql, text, values, |row| row.get_int(0))?.pop())
}

fn damaged_column(column: usize, expected: &str) -> StoreError {
    StoreError::Failed(format!(
        "a row is damaged: expected {expected} in column {column}"
    ))
}
