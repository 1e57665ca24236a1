//! Sweeps that grow: another number of repeats for the same cells, or a new sweep that begins with another one's rows.

use std::collections::BTreeMap;

use ergodic_common::TrialKey;
use ergodic_common::spec::SpecSource;

use super::read::sweep_of;
use super::write::{adopt, adopt_audits, insert_sweep, put_sweep, set_state, settings_text};
use super::{Sql, Value, whole_trial, whole_trials};
use crate::core::{SweepRow, SweepState};
use crate::store::rows::from_files;
use crate::store::{Attempt, Audit, Inheritance, Reader, StoreError, StoredTrial};

/// Rows copied at a time, if they are small.
const COPIED_AT_ONCE: i64 = 256;
/// Numbers in curves and predictions after which no more rows are read before these are copied.
const COPIED_NUMBERS: usize = 4 << 20;

/// Replaces a sweep's file by another one, if it is still the one that it was; whether it was.
pub(super) fn extend(
    sql: &(impl Sql + Send),
    sweep: i64,
    from: &SpecSource,
    to: &SpecSource,
) -> Result<bool, StoreError> {
    let Some(row) = sweep_of(sql, sweep)?.filter(|row| row.source == *from) else { return Ok(false) };
    let row = SweepRow { source: to.clone(), ..row };
    let (settings, files) = (settings_text(&row)?, from_files(&to.files));
    let values = [
        to.file.as_str().into(),
        to.text.as_str().into(),
        settings.as_str().into(),
        Value::Bytes(Some(&files)),
        sweep.into(),
    ];
    sql.execute("UPDATE sweeps SET file = $1, text = $2, settings = $3, files = $4 WHERE number = $5", &values)?;
    put_sweep(sql, &row)?;
    Ok(true)
}

/// Stores a new sweep with the rows, attempts and audits of another one, which takes no more of them. Its number.
pub(super) fn inherit(sql: &(impl Sql + Send), inheritance: &Inheritance) -> Result<i64, StoreError> {
    let Inheritance { row, from, cells } = inheritance;
    let Some(old) = sweep_of(sql, *from)? else {
        return Err(StoreError::Failed("the sweep that was to be extended was removed meanwhile".into()));
    };
    if old.state.is_open() {
        set_state(sql, *from, SweepState::Cancelled)?;
    }
    let number = insert_sweep(sql, row)?;
    let place = |key: TrialKey| {
        let at = cells.binary_search_by_key(&key.cell, |(old, _)| *old).ok()?;
        Some(TrialKey { cell: cells[at].1, ..key })
    };
    let mut last = None;
    loop {
        let rows = next_rows(sql, *from, last)?;
        let Some(row) = rows.last() else { break };
        last = Some(row.result.key);
        let moved = rows.into_iter().filter_map(|row| {
            let mut row = row;
            row.result.key = place(row.result.key)?;
            Some(row)
        });
        adopt(sql, number, &moved.collect::<Vec<_>>(), &[])?;
    }
    inherit_attempts(sql, *from, number, &place)?;
    let audits = sql.audits(*from)?.into_iter();
    let audits: Vec<Audit> = audits.filter_map(|audit| Some(Audit { key: place(audit.key)?, ..audit })).collect();
    adopt_audits(sql, number, &audits)?;
    Ok(number)
}

/// Rows that follow one, or the first ones.
fn next_rows(sql: &(impl Sql + Send), sweep: i64, after: Option<TrialKey>) -> Result<Vec<StoredTrial>, StoreError> {
    let text = whole_trials!("trials", "WHERE sweep = $1 AND (cell, repeat) > ($2, $3) ORDER BY cell, repeat LIMIT $4");
    let (cell, repeat) = after.map_or((-1, -1), |key| (key.cell as i64, i64::from(key.repeat)));
    let (mut rows, mut numbers) = (Vec::new(), 0);
    sql.select(text, &[sweep.into(), cell.into(), repeat.into(), COPIED_AT_ONCE.into()], &mut |row| {
        let row = whole_trial(sweep, row)?;
        numbers += row.result.curve.values.len() + row.result.predictions.classes.len() / 8;
        rows.push(row);
        Ok(numbers < COPIED_NUMBERS)
    })?;
    Ok(rows)
}

/// Earlier attempts: few trials have some.
fn inherit_attempts(
    sql: &(impl Sql + Send),
    from: i64,
    to: i64,
    place: &impl Fn(TrialKey) -> Option<TrialKey>,
) -> Result<(), StoreError> {
    let mut numbered: Vec<(TrialKey, i64, Attempt)> = Vec::new();
    let mut seen: BTreeMap<TrialKey, i64> = BTreeMap::new();
    sql.all_attempts(from, &mut |key, attempt| {
        if let Some(key) = place(key) {
            let number = seen.entry(key).or_default();
            numbered.push((key, *number, attempt));
            *number += 1;
        }
    })?;
    sql.insert_attempts(to, &numbered)
}
