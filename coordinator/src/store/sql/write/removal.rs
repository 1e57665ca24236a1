//! Removal of sweeps, and of files that nothing names any more.

use std::collections::HashSet;

use crate::records::SweepRow;
use crate::store::error::StoreError;
use crate::store::sql::read::{has_trial_with_weights, read_sweeps};
use crate::store::sql::seal_rows::remove_seal;
use crate::store::sql::transaction::StoreTransaction;
use crate::store::sql::{SqlConnection, select_all, select_number};
use crate::store::types::ClearedRows;
use crate::store::writes::StoreWrite;
use ergodic_common::ids::{FileHash, SweepNumber};

/// Files that are to go, by their hashes. The output is those among them that neither a sweep nor a trial names.
#[derive(Debug, Clone, PartialEq)]
pub struct FindUnreferenced(pub Vec<FileHash>);

impl StoreWrite for FindUnreferenced {
    type Output = Vec<FileHash>;

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<Vec<FileHash>, StoreError> {
        let of_sweeps: HashSet<FileHash> = read_sweeps(sql)?
            .iter()
            .flat_map(SweepRow::named_files)
            .collect();

        let mut unnamed = Vec::new();
        for hash in self.0.iter().filter(|hash| !of_sweeps.contains(*hash)) {
            if !has_trial_with_weights(sql, hash)? {
                unnamed.push(*hash);
            }
        }

        Ok(unnamed)
    }
}

/// The sweep of this number is no more. Its trials' rows are there until they are cleared.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoveSweep(pub SweepNumber);

impl StoreWrite for RemoveSweep {
    type Output = ();

    /// Removes the sweep's own row and its leases, so that no fence for it is valid any more.
    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<(), StoreError> {
        let sweep = [self.0.into()];
        if sql.execute_statement("DELETE FROM sweeps WHERE number = $1", &sweep)? > 0 {
            sql.execute_statement("DELETE FROM leases WHERE sweep = $1", &sweep)?;
            remove_seal(sql, self.0)?;
            sql.execute_statement("INSERT INTO removals (sweep) VALUES ($1)", &sweep)?;
        }

        Ok(())
    }
}

/// Number of trials deleted in one transaction, which should take no longer than some dozen
/// milliseconds.
const CLEARED_PER_COMMIT: i64 = 1000;

/// The first rows of the removed sweep of this number go, few enough not to hold up other writes; with the last ones, what is
/// left of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClearRows(pub SweepNumber);

impl StoreWrite for ClearRows {
    type Output = ClearedRows;

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<ClearedRows, StoreError> {
        clear_rows(sql, self.0)
    }
}

fn clear_rows(sql: &impl SqlConnection, sweep: SweepNumber) -> Result<ClearedRows, StoreError> {
    if !is_removed(sql, sweep)? {
        return Ok(ClearedRows::default());
    }

    let text =
        "SELECT cell, repeat, weights FROM trials WHERE sweep = $1 ORDER BY cell, repeat LIMIT $2";
    let limits = [sweep.into(), CLEARED_PER_COMMIT.into()];
    let rows = select_all(sql, text, &limits, |row| {
        Ok((
            row.get_int(0)?,
            row.get_int(1)?,
            row.get_optional_hash(2).ok().flatten().map(FileHash),
        ))
    })?;
    let Some((cell, repeat, _)) = rows.last() else {
        clear_leftovers(sql, sweep)?;
        return Ok(ClearedRows::default());
    };
    clear_trials_up_to(sql, sweep, *cell, *repeat)?;

    let mut weights: Vec<FileHash> = rows.iter().filter_map(|(.., hash)| *hash).collect();
    weights.sort_unstable();
    weights.dedup();
    Ok(ClearedRows {
        trials: rows.len() as u64,
        weights,
        has_more: true,
    })
}

fn is_removed(sql: &impl SqlConnection, sweep: SweepNumber) -> Result<bool, StoreError> {
    let text = "SELECT sweep FROM removals WHERE sweep = $1";
    Ok(select_number(sql, text, &[sweep.into()])?.is_some())
}

/// Deletes what is left of a removed sweep without trials; the note of its removal comes last.
fn clear_leftovers(sql: &impl SqlConnection, sweep: SweepNumber) -> Result<(), StoreError> {
    for text in [
        "DELETE FROM predictions WHERE sweep = $1",
        "DELETE FROM attempts WHERE sweep = $1",
        "DELETE FROM outputs WHERE sweep = $1",
        "DELETE FROM audits WHERE sweep = $1",
        "DELETE FROM twins WHERE sweep = $1",
        "DELETE FROM seals WHERE sweep = $1",
        "DELETE FROM removals WHERE sweep = $1",
    ] {
        sql.execute_statement(text, &[sweep.into()])?;
    }

    Ok(())
}

/// Deletes the trials of a removed sweep up to and including one.
fn clear_trials_up_to(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    cell: i64,
    repeat: i64,
) -> Result<(), StoreError> {
    for text in [
        "DELETE FROM curves WHERE curve IN
             (SELECT curve FROM trials WHERE sweep = $1 AND (cell, repeat) <= ($2, $3))",
        "DELETE FROM predictions WHERE sweep = $1 AND (cell, repeat) <= ($2, $3)",
        "DELETE FROM outputs WHERE sweep = $1 AND (cell, repeat) <= ($2, $3)",
        "DELETE FROM audits WHERE sweep = $1 AND (cell, repeat) <= ($2, $3)",
        "DELETE FROM trials WHERE sweep = $1 AND (cell, repeat) <= ($2, $3)",
    ] {
        sql.execute_statement(text, &[sweep.into(), cell.into(), repeat.into()])?;
    }

    Ok(())
}
