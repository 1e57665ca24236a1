//! Results: stored, compared, and moved to the attempts.

use std::collections::{BTreeMap, HashMap};

use ergodic_common::{Outcome, TrialKey, TrialResult};

use crate::records::{Finding, SweepState};
use crate::store::checksum::curve_checksum;
use crate::store::encoding::{FAILED_OUTCOME, decode_finding, differing_fields};
use crate::store::error::{Damage, StoreError};
use crate::store::reader::StoreReader as _;
use crate::store::sql::read::{find_sweep, select_trials_sql};
use crate::store::sql::reuse::count_contradictions;
use crate::store::sql::rows::{read_trial_key, read_trial_row, read_whole_trial_row};
use crate::store::sql::write::audits::{record_audit, schedule_audits};
use crate::store::sql::write::leases::is_fence_valid;
use crate::store::sql::write::sweeps::{add_to_tallies, reopen_completed_sweep};
use crate::store::sql::{SqlConnection, damaged_column, select_all, select_number};
use crate::store::types::{Attempt, StoredTrial};
use crate::store::writes::{CommitBatch, CommitReport, RedoneTrial, WriteOutput};

/// Stores what has no row yet if the fence holds, and compares the rest with the rows that are there.
pub(in crate::store::sql) fn store_results(
    sql: &(impl SqlConnection + Send),
    batch: &CommitBatch,
) -> Result<CommitReport, StoreError> {
    let mut report = CommitReport {
        fenced: batch.compare_only || !is_fence_valid(sql, batch)?,
        ..CommitReport::default()
    };
    if !report.fenced && !batch.audit {
        report.stored = sql.insert_trials(batch.sweep, &batch.worker, &batch.results)?;
        report.audits_due = schedule_audits(sql, batch, &report.stored)?;
        report.contradicted = count_contradictions(sql, batch, &report.stored)?;
    }

    if report.stored.len() < batch.results.len() {
        compare_with_rows(sql, batch, &mut report)?;
    }

    add_to_tallies(sql, batch.sweep, &report)?;
    Ok(report)
}

pub(in crate::store::sql) fn look_up_rows(
    sql: &(impl SqlConnection + Send),
    sweep: i64,
    keys: &[TrialKey],
) -> Result<WriteOutput, StoreError> {
    let text = select_trials_sql!("WHERE sweep = $1 AND cell = $2 AND repeat = $3");
    let mut rows = Vec::new();
    let mut audits = Vec::new();

    for key in keys {
        let place = [sweep.into(), key.cell.into(), key.repeat.into()];
        let Some(row) = select_all(sql, text, &place, |row| read_trial_row(sweep, row))?.pop()
        else {
            continue;
        };
        rows.push(row.result);

        audits.extend(
            sql.read_audit(sweep, *key)?
                .map(|audit| (audit.key, audit.process, audit.finding)),
        );
    }

    Ok(WriteOutput::Rows(rows, audits))
}

/// Makes audits of these trials due, which any process may run.
pub(in crate::store::sql) fn redo_trials(
    sql: &impl SqlConnection,
    sweep: i64,
    keys: &[TrialKey],
) -> Result<Vec<RedoneTrial>, StoreError> {
    let there = "SELECT sweep FROM trials WHERE sweep = $1 AND cell = $2 AND repeat = $3";
    let before = "SELECT finding FROM audits WHERE sweep = $1 AND cell = $2 AND repeat = $3";
    let due = "INSERT INTO audits (sweep, cell, repeat, process) VALUES ($1, $2, $3, '')
               ON CONFLICT (sweep, cell, repeat) DO UPDATE SET process = '', finding = 0, auditor = '',
                   auditor_process = '', why = ''";
    let mut redone = Vec::new();

    // A sweep that was cancelled, or removed, runs nothing any more.
    if find_sweep(sql, sweep)?.is_none_or(|row| row.state == SweepState::Cancelled) {
        return Ok(redone);
    }

    for key in keys {
        let place = [sweep.into(), key.cell.into(), key.repeat.into()];
        if select_number(sql, there, &place)?.is_none() {
            continue;
        }

        let found = select_all(sql, before, &place, |row| {
            decode_finding(row.get_int(0)?).ok_or_else(|| damaged_column(0, "a finding"))
        })?
        .pop();

        // It is not known whose bits are right: the finding stays, and no process that may have computed the row replaces it.
        if found == Some(Some(Finding::Different)) {
            tracing::warn!(sweep, trial = %key, "its file is lost, and it is not run again: an audit found other bits");
            continue;
        }

        // An audit that is due already stays with the processes that may make it.
        if found != Some(None) {
            sql.execute_statement(due, &place)?;
        }

        redone.push((*key, found));
    }

    if !redone.is_empty() {
        reopen_completed_sweep(sql, sweep)?;
    }

    Ok(redone)
}

/// Compares what was not stored with the rows that there are.
fn compare_with_rows(
    sql: &impl SqlConnection,
    batch: &CommitBatch,
    report: &mut CommitReport,
) -> Result<(), StoreError> {
    let mut stored = report.stored.iter().peekable();
    let rest = batch
        .results
        .iter()
        .enumerate()
        .filter(|(at, _)| stored.next_if_eq(&at).is_none());
    let rest: Vec<(usize, &TrialResult)> = rest.collect();
    let keys: Vec<TrialKey> = rest.iter().map(|(_, result)| result.key).collect();

    let rows = read_rows_to_compare(sql, batch.sweep, &keys)?;
    for (at, result) in rest {
        let Some(row) = rows.get(&result.key) else {
            continue;
        };
        let different = row.as_ref().map(|row| differing_fields(row, result));
        report.already_stored.push(result.key);
        report.mismatches += u64::from(
            different
                .as_ref()
                .is_some_and(|different| !different.is_empty()),
        );

        let finding = record_audit(sql, batch, result, different.as_deref())?;
        report.audited.extend(finding.map(|finding| (at, finding)));
    }

    Ok(())
}

/// The rows that these trials have, `None` where a row is damaged.
fn read_rows_to_compare(
    sql: &impl SqlConnection,
    sweep: i64,
    keys: &[TrialKey],
) -> Result<HashMap<TrialKey, Option<TrialResult>>, StoreError> {
    let mut rows = HashMap::new();
    sql.select_whole_trials(sweep, keys, &mut |row| {
        match read_whole_trial_row(sweep, row) {
            Ok(row) => drop(rows.insert(row.result.key, Some(row.result))),
            // A damaged row is logged and compared with nothing: the worker cannot help it, and gets its answer.
            Err(StoreError::Damaged(damage)) => {
                tracing::error!("{damage}");
                rows.insert(damage.key, None);
            }
            Err(error) => return Err(error),
        }

        Ok(true)
    })?;

    Ok(rows)
}

/// Moves rows of failed trials to the attempts.
pub(in crate::store::sql) fn retry_failed_trials(
    sql: &impl SqlConnection,
    sweep: i64,
) -> Result<Vec<TrialKey>, StoreError> {
    let failed = [sweep.into(), FAILED_OUTCOME.into()];
    let text = select_trials_sql!("WHERE sweep = $1 AND outcome = $2 ORDER BY cell, repeat");
    let rows = select_all(sql, text, &failed, |row| read_trial_row(sweep, row))?;
    let attempts = rows.iter().map(|row| {
        let cause = if let Outcome::Failed { cause } = &row.result.outcome {
            cause.clone()
        } else {
            String::new()
        };
        (
            row.result.key,
            Attempt {
                cause,
                worker: row.worker.clone(),
                seconds: row.result.seconds,
            },
        )
    });
    append_attempts(sql, sweep, attempts.collect())?;

    for change in [
        "DELETE FROM predictions WHERE EXISTS (SELECT 1 FROM trials AS t WHERE t.sweep = $1 AND outcome = $2
             AND predictions.sweep = t.sweep AND predictions.cell = t.cell AND predictions.repeat = t.repeat)",
        "DELETE FROM curves WHERE curve IN (SELECT curve FROM trials WHERE sweep = $1 AND outcome = $2)",
        "DELETE FROM trials WHERE sweep = $1 AND outcome = $2",
    ] {
        sql.execute_statement(change, &failed)?;
    }

    reopen_completed_sweep(sql, sweep)?;
    Ok(rows.into_iter().map(|row| row.result.key).collect())
}

pub(in crate::store::sql) fn insert_stored_rows(
    sql: &impl SqlConnection,
    sweep: i64,
    rows: &[StoredTrial],
    attempts: &[(TrialKey, Attempt)],
) -> Result<(), StoreError> {
    let mut by_worker: BTreeMap<&str, Vec<TrialResult>> = BTreeMap::new();
    for row in rows {
        by_worker
            .entry(&row.worker)
            .or_default()
            .push(row.result.clone());
    }

    for (worker, results) in by_worker {
        sql.insert_trials(sweep, worker, &results)?;
    }

    // One by one: a trial may come several times.
    attempts
        .iter()
        .try_for_each(|attempt| append_attempts(sql, sweep, vec![attempt.clone()]))
}

/// Appends attempts, of each trial one, to those that there are.
fn append_attempts(
    sql: &impl SqlConnection,
    sweep: i64,
    attempts: Vec<(TrialKey, Attempt)>,
) -> Result<(), StoreError> {
    let text = "SELECT cell, repeat, count(*) FROM attempts WHERE sweep = $1 GROUP BY cell, repeat";
    let counts: HashMap<TrialKey, i64> = select_all(sql, text, &[sweep.into()], |row| {
        Ok((read_trial_key(row)?, row.get_int(2)?))
    })?
    .into_iter()
    .collect();
    let numbered = attempts
        .into_iter()
        .map(|(key, attempt)| (key, counts.get(&key).copied().unwrap_or(0), attempt));

    sql.insert_attempts(sweep, &numbered.collect::<Vec<_>>())
}

/// Moves what is damaged of these trials to the attempts; which trials were damaged.
pub(in crate::store::sql) fn quarantine_rows(
    sql: &impl SqlConnection,
    sweep: i64,
    keys: &[TrialKey],
) -> Result<Vec<TrialKey>, StoreError> {
    let (damaged, curves) = find_damaged_rows(sql, sweep, keys)?;
    append_attempts(sql, sweep, damaged.iter().map(attempt_of_damage).collect())?;

    let rowless = keys.iter().filter(|key| !curves.contains_key(key));
    for key in damaged.iter().map(|damage| &damage.key).chain(rowless) {
        let curve = curves.get(key).copied().unwrap_or_default();
        delete_trial(sql, sweep, *key, curve)?;
    }

    if !damaged.is_empty() {
        reopen_completed_sweep(sql, sweep)?;
    }

    Ok(damaged.into_iter().map(|damage| damage.key).collect())
}

/// What is damaged of these trials, and the checksum that the curve of each trial with a row should have, 0 without a curve.
fn find_damaged_rows(
    sql: &impl SqlConnection,
    sweep: i64,
    keys: &[TrialKey],
) -> Result<(Vec<Damage>, HashMap<TrialKey, i64>), StoreError> {
    let mut damaged = Vec::new();
    let mut curves = HashMap::new();
    sql.select_whole_trials(sweep, keys, &mut |row| {
        let key = read_trial_key(row)?;
        let curve = row.get_optional_bytes(13).ok().flatten();
        curves.insert(
            key,
            curve.map_or(0, |data| curve_checksum(sweep, key, data)),
        );

        match read_whole_trial_row(sweep, row) {
            Ok(_) => {}
            Err(StoreError::Damaged(damage)) => damaged.push(*damage),
            Err(error) => return Err(error),
        }

        Ok(true)
    })?;

    Ok((damaged, curves))
}

fn attempt_of_damage(damage: &Damage) -> (TrialKey, Attempt) {
    let attempt = Attempt {
        cause: format!("its {} was damaged: {}", damage.what, damage.why),
        worker: String::new(),
        seconds: 0.0,
    };
    (damage.key, attempt)
}

/// Deletes what is stored of a trial. Its curve goes only if that has this checksum: a damaged row may lead to the curve of
/// another trial.
fn delete_trial(
    sql: &impl SqlConnection,
    sweep: i64,
    key: TrialKey,
    curve: i64,
) -> Result<(), StoreError> {
    let trial = [sweep.into(), key.cell.into(), key.repeat.into()];
    sql.execute_statement(
        "DELETE FROM curves WHERE curve IN
             (SELECT curve FROM trials WHERE sweep = $1 AND cell = $2 AND repeat = $3) AND checksum = $4",
        &[trial[0], trial[1], trial[2], curve.into()],
    )?;

    for text in [
        "DELETE FROM predictions WHERE sweep = $1 AND cell = $2 AND repeat = $3",
        "DELETE FROM audits WHERE sweep = $1 AND cell = $2 AND repeat = $3",
        "DELETE FROM trials WHERE sweep = $1 AND cell = $2 AND repeat = $3",
    ] {
        sql.execute_statement(text, &trial)?;
    }

    Ok(())
}
