//! What programs printed: stored beside rows and earlier attempts, copied with them, and read.

use std::collections::HashMap;

use ergodic_common::ids::SweepNumber;
use ergodic_common::program::output::PackedOutput;
use ergodic_common::{TrialKey, TrialResult};

use super::param::SqlParam;
use super::rows::read_trial_key;
use super::transaction::StoreTransaction;
use super::{SqlConnection, SqlRow, damaged_column, select_all, select_number};
use crate::store::checksum::output_checksum;
use crate::store::error::StoreError;
use crate::store::outputs::{OutputReader, StoredOutput};
use crate::store::writes::StoreWrite;

/// Number of outputs that are read at a time: some megabytes.
const OUTPUTS_PER_PAGE: i64 = 64;

/// Outputs from a backup.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoreOutputs {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// What programs printed.
    pub outputs: Vec<StoredOutput>,
}

impl StoreWrite for RestoreOutputs {
    type Output = ();

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<(), StoreError> {
        sql.insert_outputs(self.sweep, &self.outputs)
    }
}

impl<S: SqlConnection> OutputReader for S {
    fn read_output(
        &self,
        sweep: SweepNumber,
        key: TrialKey,
        attempt: u32,
    ) -> Result<Option<PackedOutput>, StoreError> {
        let text = "SELECT cell, repeat, attempt, printed, data, checksum FROM outputs
                    WHERE sweep = $1 AND cell = $2 AND repeat = $3 AND attempt = $4";
        let place = [
            sweep.into(),
            key.cell.into(),
            key.repeat.into(),
            attempt.into(),
        ];
        let found = select_all(self, text, &place, |row| read_output_row(sweep, row))?.pop();
        Ok(found.map(|stored| stored.output))
    }

    fn read_outputs(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(StoredOutput),
    ) -> Result<(), StoreError> {
        let mut place = OutputPlace::START;
        while let Some(outputs) = read_page(self, sweep, &mut place)? {
            outputs.into_iter().for_each(&mut *each);
        }
        Ok(())
    }
}

/// A position among the outputs of a sweep: cell, repeat and attempt of the last one that was read.
struct OutputPlace([i64; 3]);

impl OutputPlace {
    const START: Self = Self([-1; 3]);
}

/// Reads outputs behind a place, which moves on; `None` if there are none. Damaged ones are left out.
fn read_page(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    place: &mut OutputPlace,
) -> Result<Option<Vec<StoredOutput>>, StoreError> {
    let text = "SELECT cell, repeat, attempt, printed, data, checksum FROM outputs
                WHERE sweep = $1 AND (cell, repeat, attempt) > ($2, $3, $4)
                ORDER BY cell, repeat, attempt LIMIT $5";
    let [cell, repeat, attempt] = place.0;
    let values = [sweep.0, cell, repeat, attempt, OUTPUTS_PER_PAGE].map(SqlParam::Int);
    let mut read = 0;
    let mut outputs = Vec::new();

    sql.select_rows(text, &values, &mut |row| {
        read += 1;
        place.0 = [row.get_int(0)?, row.get_int(1)?, row.get_int(2)?];
        match read_output_row(sweep, row) {
            Ok(stored) => outputs.push(stored),
            Err(error) => {
                tracing::warn!(sweep = sweep.0, %error, "the output of a program is left out")
            }
        }
        Ok(true)
    })?;

    Ok((read > 0).then_some(outputs))
}

fn read_output_row(sweep: SweepNumber, row: &dyn SqlRow) -> Result<StoredOutput, StoreError> {
    let key = read_trial_key(row)?;
    let attempt = u32::try_from(row.get_int(2)?).map_err(|_| damaged_column(2, "an attempt"))?;
    let stored = StoredOutput {
        key,
        attempt,
        output: PackedOutput {
            printed: row.get_int(3)? as u64,
            packed: row.get_bytes(4)?.to_vec(),
        },
    };
    if row.get_int(5)? == output_checksum(sweep, &stored) {
        return Ok(stored);
    }

    let number = attempt.saturating_add(1);
    Err(StoreError::Failed(format!(
        "what attempt {number} at the trial {key} printed is damaged and cannot be shown; its result is stored apart from it"
    )))
}

/// Stores what programs printed in the attempts of rows that were just inserted.
pub(super) fn insert_outputs_of_rows<'r>(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    results: impl Iterator<Item = &'r TrialResult>,
) -> Result<(), StoreError> {
    let printed: Vec<(TrialKey, PackedOutput)> = results
        .filter_map(|result| Some((result.key, result.output.clone()?)))
        .collect();
    if printed.is_empty() {
        return Ok(());
    }

    let attempts = count_attempts(sql, sweep)?;
    let outputs = printed.into_iter().map(|(key, output)| StoredOutput {
        key,
        attempt: attempts.get(&key).map_or(0, |count| *count as u32),
        output,
    });
    sql.insert_outputs(sweep, &outputs.collect::<Vec<_>>())
}

/// Numbers of earlier attempts, of trials that have any.
pub(super) fn count_attempts(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
) -> Result<HashMap<TrialKey, i64>, StoreError> {
    let text = "SELECT cell, repeat, count(*) FROM attempts WHERE sweep = $1 GROUP BY cell, repeat";
    let counts = select_all(sql, text, &[sweep.into()], |row| {
        Ok((read_trial_key(row)?, row.get_int(2)?))
    })?;
    Ok(counts.into_iter().collect())
}

/// Copies all outputs of a sweep to another one, of trials that it has.
pub(super) fn copy_outputs(
    sql: &impl SqlConnection,
    from: SweepNumber,
    to: SweepNumber,
    map_key: &dyn Fn(TrialKey) -> Option<TrialKey>,
) -> Result<(), StoreError> {
    let mut place = OutputPlace::START;
    while let Some(outputs) = read_page(sql, from, &mut place)? {
        let mapped = outputs.into_iter().filter_map(|stored| {
            Some(StoredOutput {
                key: map_key(stored.key)?,
                ..stored
            })
        });
        sql.insert_outputs(to, &mapped.collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Whether anything is stored of what a sweep's programs printed.
pub(super) fn has_outputs(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
) -> Result<bool, StoreError> {
    let text = "SELECT attempt FROM outputs WHERE sweep = $1 LIMIT 1";
    Ok(select_number(sql, text, &[sweep.into()])?.is_some())
}

/// What the program printed in the attempt of a trial's row; `None` if that is nothing, or is damaged.
pub(super) fn find_output_of_row(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    key: TrialKey,
) -> Result<Option<PackedOutput>, StoreError> {
    let text = "SELECT cell, repeat, attempt, printed, data, checksum FROM outputs
                WHERE sweep = $1 AND cell = $2 AND repeat = $3 AND attempt =
                    (SELECT count(*) FROM attempts WHERE sweep = $1 AND cell = $2 AND repeat = $3)";
    let place = [sweep.into(), key.cell.into(), key.repeat.into()];
    let mut found = None;
    sql.select_rows(text, &place, &mut |row| {
        match read_output_row(sweep, row) {
            Ok(stored) => found = Some(stored.output),
            Err(error) => {
                tracing::warn!(sweep = sweep.0, %error, "the output of a program is not copied")
            }
        }
        Ok(true)
    })?;
    Ok(found)
}
