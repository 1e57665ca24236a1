//! Removed sweeps, and files that nothing names any more.

use std::collections::HashSet;

use crate::records::SweepRow;
use crate::store::error::StoreError;
use crate::store::reader::StoreReader as _;
use crate::store::sql::read::has_trial_with_weights;
use crate::store::sql::{SqlConnection, select_all, select_number};
use crate::store::writes::ClearedRows;

/// Which of these files neither a sweep nor a trial names.
pub(in crate::store::sql) fn find_unreferenced(
    sql: &(impl SqlConnection + Send),
    hashes: &[[u8; 32]],
) -> Result<Vec<[u8; 32]>, StoreError> {
    let of_sweeps: HashSet<[u8; 32]> = sql
        .read_sweeps()?
        .iter()
        .flat_map(SweepRow::named_files)
        .collect();

    let mut unnamed = Vec::new();
    for hash in hashes.iter().filter(|hash| !of_sweeps.contains(*hash)) {
        if !has_trial_with_weights(sql, hash)? {
            unnamed.push(*hash);
        }
    }

    Ok(unnamed)
}

/// Takes away what makes a sweep one: from here on, whatever comes of it finds no fence.
pub(in crate::store::sql) fn remove_sweep(
    sql: &impl SqlConnection,
    sweep: i64,
) -> Result<(), StoreError> {
    if sql.execute_statement("DELETE FROM sweeps WHERE number = $1", &[sweep.into()])? > 0 {
        sql.execute_statement("DELETE FROM leases WHERE sweep = $1", &[sweep.into()])?;
        sql.execute_statement("INSERT INTO removals (sweep) VALUES ($1)", &[sweep.into()])?;
    }
    Ok(())
}

/// Trials cleared in one transaction: it should take no longer than some dozen milliseconds.
const CLEARED_PER_COMMIT: i64 = 1000;

/// Clears the first rows of a sweep that was removed; with the last ones, what is left of it.
pub(in crate::store::sql) fn clear_rows(
    sql: &impl SqlConnection,
    sweep: i64,
) -> Result<ClearedRows, StoreError> {
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
            row.get_optional_hash(2).ok().flatten(),
        ))
    })?;
    let Some((cell, repeat, _)) = rows.last() else {
        clear_leftovers(sql, sweep)?;
        return Ok(ClearedRows::default());
    };
    clear_trials_up_to(sql, sweep, *cell, *repeat)?;

    let mut weights: Vec<[u8; 32]> = rows.iter().filter_map(|(.., hash)| *hash).collect();
    weights.sort_unstable();
    weights.dedup();
    Ok(ClearedRows {
        trials: rows.len() as u64,
        weights,
        has_more: true,
    })
}

fn is_removed(sql: &impl SqlConnection, sweep: i64) -> Result<bool, StoreError> {
    let text = "SELECT sweep FROM removals WHERE sweep = $1";
    Ok(select_number(sql, text, &[sweep.into()])?.is_some())
}

/// Clears what is left of a removed sweep without trials, the note of its removal last.
fn clear_leftovers(sql: &impl SqlConnection, sweep: i64) -> Result<(), StoreError> {
    for text in [
        "DELETE FROM predictions WHERE sweep = $1",
        "DELETE FROM attempts WHERE sweep = $1",
        "DELETE FROM audits WHERE sweep = $1",
        "DELETE FROM twins WHERE sweep = $1",
        "DELETE FROM removals WHERE sweep = $1",
    ] {
        sql.execute_statement(text, &[sweep.into()])?;
    }

    Ok(())
}

/// Clears the trials of a removed sweep up to one, that one included.
fn clear_trials_up_to(
    sql: &impl SqlConnection,
    sweep: i64,
    cell: i64,
    repeat: i64,
) -> Result<(), StoreError> {
    for text in [
        "DELETE FROM curves WHERE curve IN
             (SELECT curve FROM trials WHERE sweep = $1 AND (cell, repeat) <= ($2, $3))",
        "DELETE FROM predictions WHERE sweep = $1 AND (cell, repeat) <= ($2, $3)",
        "DELETE FROM audits WHERE sweep = $1 AND (cell, repeat) <= ($2, $3)",
        "DELETE FROM trials WHERE sweep = $1 AND (cell, repeat) <= ($2, $3)",
    ] {
        sql.execute_statement(text, &[sweep.into(), cell.into(), repeat.into()])?;
    }

    Ok(())
}
