//! Rows of trials: looked up, restored, and moved to the attempts.

use std::collections::{BTreeMap, HashMap};

use ergodic_common::ids::SweepNumber;
use ergodic_common::{Outcome, TrialKey, TrialResult};

use crate::records::{Finding, SweepState};
use crate::store::checksum::curve_checksum;
use crate::store::encoding::{FAILED_OUTCOME, decode_finding};
use crate::store::error::{Damage, StoreError};
use crate::store::sql::outputs::count_attempts;
use crate::store::sql::read::{find_sweep, read_audit, select_trials_sql};
use crate::store::sql::rows::{read_trial_key, read_trial_row, read_whole_trial_row};
use crate::store::sql::seal_rows::remove_seal;
use crate::store::sql::transaction::StoreTransaction;
use crate::store::sql::write::audits::retry_failed_audits;
use crate::store::sql::write::sweeps::reopen_completed_sweep;
use crate::store::sql::{SqlConnection, damaged_column, select_all, select_number};
use crate::store::types::{Attempt, FoundRows, RedoneTrial, ReopenedTrials, StoredTrial};
use crate::store::writes::StoreWrite;
use crate::stored_row::MetricPositions;

/// Nothing is written: the output is the rows that these trials have by then.
#[derive(Debug, Clone, PartialEq)]
pub struct LookUpRows {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The trials.
    pub keys: Vec<TrialKey>,
    /// Where the metrics stand in the rows that the core keeps.
    pub positions: MetricPositions,
}

impl StoreWrite for LookUpRows {
    type Output = FoundRows;

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<FoundRows, StoreError> {
        let sweep = self.sweep;
        let text = select_trials_sql!("WHERE sweep = $1 AND cell = $2 AND repeat = $3");
        let mut found = FoundRows::default();

        for key in &self.keys {
            let place = [sweep.into(), key.cell.into(), key.repeat.into()];
            let Some(row) = select_all(sql, text, &place, |row| read_trial_row(sweep, row))?.pop()
            else {
                continue;
            };
            found
                .rows
                .push(self.positions.build_row_from_result(&row.result));

            let audit = read_audit(sql, sweep, *key)?;
            found
                .audits
                .extend(audit.map(|audit| (audit.key, audit.process, audit.finding)));
        }

        Ok(found)
    }
}

/// Trials to be run once more by any process, as audits are, because files that their rows name are lost. The output is those that
/// are.
#[derive(Debug, Clone, PartialEq)]
pub struct RedoTrials {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The trials.
    pub keys: Vec<TrialKey>,
}

impl StoreWrite for RedoTrials {
    type Output = Vec<RedoneTrial>;

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<Vec<RedoneTrial>, StoreError> {
        redo_trials(sql, self.sweep, &self.keys)
    }
}

/// Makes audits of these trials due, which any process may run.
fn redo_trials(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    keys: &[TrialKey],
) -> Result<Vec<RedoneTrial>, StoreError> {
    let there = "SELECT sweep FROM trials WHERE sweep = $1 AND cell = $2 AND repeat = $3";
    let before = "SELECT finding FROM audits WHERE sweep = $1 AND cell = $2 AND repeat = $3";
    let due = "INSERT INTO audits (sweep, cell, repeat, process) VALUES ($1, $2, $3, '')
               ON CONFLICT (sweep, cell, repeat) DO UPDATE SET process = '', finding = 0, auditor = '',
                   auditor_process = '', why = ''";
    let mut redone = Vec::new();

    // Cancelled and removed sweeps run no trials, so nothing would fill the gap.
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

        // Nobody knows which bits are right. A new row could come from the process whose result is
        // in doubt, so the finding stays.
        if found == Some(Some(Finding::Different)) {
            tracing::warn!(sweep = sweep.0, trial = %key, "the file of a trial is lost, but the trial is not run again: an audit \
                                        found different bits");
            continue;
        }

        // An open audit keeps its rule about which processes may run it.
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

/// Rows of the failed trials of the sweep of this number become attempts, and failed audits are due again; a completed sweep is
/// running again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryFailed(pub SweepNumber);

impl StoreWrite for RetryFailed {
    type Output = ReopenedTrials;

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<ReopenedTrials, StoreError> {
        Ok(ReopenedTrials {
            trials: retry_failed_trials(sql, self.0)?,
            audits: retry_failed_audits(sql, self.0)?,
        })
    }
}

/// Turns rows of failed trials into attempts.
fn retry_failed_trials(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
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

/// Rows from a backup, of trials that have none, and earlier attempts, which are appended.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoreRows {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The rows.
    pub rows: Vec<StoredTrial>,
    /// Earlier attempts of trials.
    pub attempts: Vec<(TrialKey, Attempt)>,
}

impl StoreWrite for RestoreRows {
    type Output = ();

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<(), StoreError> {
        remove_seal(sql, self.sweep)?;
        insert_stored_rows(sql, self.sweep, &self.rows, &self.attempts)
    }
}

pub(in crate::store::sql) fn insert_stored_rows(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
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

    // Appended one by one, because a batch may have several attempts of one trial, and each takes
    // the next number.
    attempts
        .iter()
        .try_for_each(|attempt| append_attempts(sql, sweep, vec![attempt.clone()]))
}

/// Appends attempts, at most one of each trial, to the existing ones.
fn append_attempts(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    attempts: Vec<(TrialKey, Attempt)>,
) -> Result<(), StoreError> {
    let counts = count_attempts(sql, sweep)?;
    let numbered = attempts
        .into_iter()
        .map(|(key, attempt)| (key, counts.get(&key).copied().unwrap_or(0), attempt));

    sql.insert_attempts(sweep, &numbered.collect::<Vec<_>>())
}

/// What is damaged of these trials' rows becomes an attempt, so that they can be run again; a completed sweep is running again. The
/// output is the trials that were damaged.
#[derive(Debug, Clone, PartialEq)]
pub struct SetRowsAside {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The trials.
    pub keys: Vec<TrialKey>,
}

impl StoreWrite for SetRowsAside {
    type Output = Vec<TrialKey>;

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<Vec<TrialKey>, StoreError> {
        set_rows_aside(sql, self.sweep, &self.keys)
    }
}

/// Turns damaged rows of these trials into attempts; returns the damaged trials.
fn set_rows_aside(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    keys: &[TrialKey],
) -> Result<Vec<TrialKey>, StoreError> {
    let (damaged, curves) = find_damaged_rows(sql, sweep, keys)?;
    append_attempts(sql, sweep, damaged.iter().map(attempt_of_damage).collect())?;

    let rowless = keys.iter().filter(|key| !curves.contains_key(key));
    for key in damaged.iter().map(|damage| &damage.key).chain(rowless) {
        let curve = curves.get(key).copied().unwrap_or_default();
        delete_trial(sql, sweep, *key, curve)?;
    }
    remove_seal(sql, sweep)?;

    if !damaged.is_empty() {
        reopen_completed_sweep(sql, sweep)?;
    }

    Ok(damaged.into_iter().map(|damage| damage.key).collect())
}

/// The damage to each of these trials, and the expected checksum of each trial's curve, 0 without a
/// curve.
fn find_damaged_rows(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
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

/// Deletes the row of a trial. Deletes its curve only if that has this checksum, because a damaged
/// row may refer to the curve of another trial.
fn delete_trial(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
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
