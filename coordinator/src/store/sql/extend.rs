//! Extension of sweeps: more repeats of the same cells, or a new sweep that starts with another
//! one's rows.

use std::collections::BTreeMap;

use ergodic_common::TrialKey;
use ergodic_common::ids::{CellIndex, FileHash, SweepNumber};
use ergodic_common::spec::SpecSource;

use super::outputs::copy_outputs;
use super::param::SqlParam;
use super::read::{find_sweep, read_all_attempts, read_audits};
use super::rows::read_whole_trial_row;
use super::seal_rows::remove_seal;
use super::transaction::StoreTransaction;
use super::write::audits::insert_audits_in_chunks;
use super::write::results::insert_stored_rows;
use super::write::sweeps::{encode_settings, insert_sweep, set_state, update_sweep_row};
use super::{NUMBERS_PER_COPY, ROWS_PER_COPY, SqlConnection, select_whole_trials_sql};
use crate::records::{SweepRow, SweepState};
use crate::store::encoding::encode_files;
use crate::store::error::StoreError;
use crate::store::types::{Attempt, Audit, StoredTrial, SuccessorSweep};
use crate::store::writes::StoreWrite;

/// Another file for a sweep, if it still has the one that it had; its trials stay what they are. The output is whether it had it.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtendSweep {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The file that it had.
    pub from: SpecSource,
    /// The file that it has from now on.
    pub to: SpecSource,
}

impl StoreWrite for ExtendSweep {
    type Output = bool;

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<bool, StoreError> {
        let Self { sweep, from, to } = self;
        let Some(row) = find_sweep(sql, *sweep)?.filter(|row| row.source == *from) else {
            return Ok(false);
        };
        let row = SweepRow {
            source: to.clone(),
            ..row
        };
        let settings = encode_settings(&row)?;

        let files = encode_files(&to.files);
        let values = [
            to.file.as_str().into(),
            to.text.as_str().into(),
            settings.as_str().into(),
            SqlParam::Bytes(Some(&files)),
            (*sweep).into(),
        ];
        sql.execute_statement(
            "UPDATE sweeps SET file = $1, text = $2, settings = $3, files = $4 WHERE number = $5",
            &values,
        )?;

        update_sweep_row(sql, &row)?;
        remove_seal(sql, *sweep)?;
        Ok(true)
    }

    fn named_files(&self) -> Vec<FileHash> {
        self.to.files.iter().map(|pin| pin.hash).collect()
    }
}

/// A new sweep with the rows, attempts, outputs and audits of another one, which ends if it has not ended. The output is the new one's number.
#[derive(Debug, Clone, PartialEq)]
pub struct InsertSuccessor(pub SuccessorSweep);

impl StoreWrite for InsertSuccessor {
    type Output = SweepNumber;

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<SweepNumber, StoreError> {
        let SuccessorSweep {
            row,
            predecessor: from,
            cell_map: cells,
        } = &self.0;
        let Some(old) = find_sweep(sql, *from)? else {
            return Err(StoreError::Failed(
                "the sweep that was to be extended was removed meanwhile".into(),
            ));
        };
        if old.state.is_open() {
            set_state(sql, *from, SweepState::Cancelled)?;
        }

        let number = insert_sweep(sql, row)?;
        let map_key = |key: TrialKey| map_trial_key(cells, key);
        copy_rows(sql, *from, number, &map_key)?;
        copy_attempts(sql, *from, number, &map_key)?;
        copy_outputs(sql, *from, number, &map_key)?;
        copy_audits(sql, *from, number, &map_key)?;

        Ok(number)
    }

    fn named_files(&self) -> Vec<FileHash> {
        self.0.row.named_files().collect()
    }
}

/// The key of a trial in the new sweep; `None` if that lacks the cell.
fn map_trial_key(cells: &[(CellIndex, CellIndex)], key: TrialKey) -> Option<TrialKey> {
    let at = cells
        .binary_search_by_key(&key.cell, |(old, _)| *old)
        .ok()?;
    Some(TrialKey {
        cell: cells[at].1,
        ..key
    })
}

fn copy_rows(
    sql: &impl SqlConnection,
    from: SweepNumber,
    to: SweepNumber,
    map_key: &dyn Fn(TrialKey) -> Option<TrialKey>,
) -> Result<(), StoreError> {
    let mut last = None;
    loop {
        let rows = read_next_rows(sql, from, last)?;
        let Some(row) = rows.last() else {
            return Ok(());
        };
        last = Some(row.result.key);

        let mapped = rows.into_iter().filter_map(|mut row| {
            row.result.key = map_key(row.result.key)?;
            Some(row)
        });
        insert_stored_rows(sql, to, &mapped.collect::<Vec<_>>(), &[])?;
    }
}

fn copy_audits(
    sql: &impl SqlConnection,
    from: SweepNumber,
    to: SweepNumber,
    map_key: &dyn Fn(TrialKey) -> Option<TrialKey>,
) -> Result<(), StoreError> {
    let mapped = read_audits(sql, from)?.into_iter().filter_map(|audit| {
        Some(Audit {
            key: map_key(audit.key)?,
            ..audit
        })
    });
    insert_audits_in_chunks(sql, to, &mapped.collect::<Vec<_>>())
}

/// Reads the rows that follow one, or the first ones.
fn read_next_rows(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    after: Option<TrialKey>,
) -> Result<Vec<StoredTrial>, StoreError> {
    let text = select_whole_trials_sql!(
        "trials",
        "WHERE sweep = $1 AND (cell, repeat) > ($2, $3) ORDER BY cell, repeat LIMIT $4"
    );
    let (cell, repeat) = after.map_or((-1, -1), |key| (key.cell.0 as i64, i64::from(key.repeat.0)));
    let mut rows = Vec::new();

    let mut numbers = 0;
    sql.select_rows(
        text,
        &[
            sweep.into(),
            cell.into(),
            repeat.into(),
            ROWS_PER_COPY.into(),
        ],
        &mut |row| {
            let row = read_whole_trial_row(sweep, row)?;
            numbers += row.result.curve.values.len() + row.result.predictions.classes.len() / 8;
            rows.push(row);
            Ok(numbers < NUMBERS_PER_COPY)
        },
    )?;

    Ok(rows)
}

/// Copies earlier attempts, all at once because few trials have any.
fn copy_attempts(
    sql: &impl SqlConnection,
    from: SweepNumber,
    to: SweepNumber,
    place: &impl Fn(TrialKey) -> Option<TrialKey>,
) -> Result<(), StoreError> {
    let mut numbered: Vec<(TrialKey, i64, Attempt)> = Vec::new();
    let mut seen: BTreeMap<TrialKey, i64> = BTreeMap::new();
    read_all_attempts(sql, from, &mut |key, attempt| {
        if let Some(key) = place(key) {
            let number = seen.entry(key).or_default();
            numbered.push((key, *number, attempt));
            *number += 1;
        }
    })?;

    sql.insert_attempts(to, &numbered)
}
