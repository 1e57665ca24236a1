//! Audits: due, made, and due again.

use ergodic_common::{Outcome, TrialKey, TrialResult};

use crate::records::{Finding, WorkerId};
use crate::store::encoding::encode_finding;
use crate::store::error::StoreError;
use crate::store::sql::rows::read_trial_key;
use crate::store::sql::{SqlConnection, select_all};
use crate::store::types::Audit;
use crate::store::writes::CommitBatch;

/// Chosen trials were stored: their audits are due, unless there is nothing to compare with.
pub(in crate::store::sql) fn schedule_audits(
    sql: &impl SqlConnection,
    batch: &CommitBatch,
    stored: &[usize],
) -> Result<Vec<TrialKey>, StoreError> {
    let text = "INSERT INTO audits (sweep, cell, repeat, process) VALUES ($1, $2, $3, $4)
                ON CONFLICT (sweep, cell, repeat) DO UPDATE SET process = $4, finding = 0, auditor = '',
                    auditor_process = '', why = ''";
    let mut due = Vec::new();

    for result in stored.iter().map(|at| &batch.results[*at]) {
        let key = result.key;
        if batch.chosen_for_audit.contains(&key)
            && !matches!(result.outcome, Outcome::Failed { .. })
        {
            let values = [
                batch.sweep.into(),
                key.cell.into(),
                key.repeat.into(),
                batch.process.as_str().into(),
            ];
            sql.execute_statement(text, &values)?;

            due.push(key);
        }
    }

    Ok(due)
}

/// Records an audit that is due, if another process than the one that computed the row ran the trial.
pub(in crate::store::sql) fn record_audit(
    sql: &impl SqlConnection,
    batch: &CommitBatch,
    result: &TrialResult,
    different: Option<&[&'static str]>,
) -> Result<Option<Finding>, StoreError> {
    if !batch.audit && !batch.chosen_for_audit.contains(&result.key) {
        return Ok(None);
    }

    let (finding, why) = judge_audit(&result.outcome, different);
    let text = "UPDATE audits SET finding = $1, auditor = $2, auditor_process = $3, why = $4
                WHERE sweep = $5 AND cell = $6 AND repeat = $7 AND finding = 0 AND process <> $3";

    let values = [
        encode_finding(Some(finding)).into(),
        batch.worker.as_str().into(),
        batch.process.as_str().into(),
        why.as_str().into(),
        batch.sweep.into(),
        result.key.cell.into(),
        result.key.repeat.into(),
    ];

    Ok((sql.execute_statement(text, &values)? > 0).then_some(finding))
}

/// Audits stored in one statement.
const AUDITS_PER_STATEMENT: usize = 4096;

pub(in crate::store::sql) fn insert_audits_in_chunks(
    sql: &impl SqlConnection,
    sweep: i64,
    audits: &[Audit],
) -> Result<(), StoreError> {
    audits
        .chunks(AUDITS_PER_STATEMENT)
        .try_for_each(|some| sql.insert_audits(sweep, some))
}

/// Failed audits are due again; these, with the processes whose rows they are of.
pub(in crate::store::sql) fn retry_failed_audits(
    sql: &impl SqlConnection,
    sweep: i64,
) -> Result<Vec<(TrialKey, WorkerId)>, StoreError> {
    let failed = [sweep.into(), encode_finding(Some(Finding::Failed)).into()];
    let text = "SELECT cell, repeat, process FROM audits WHERE sweep = $1 AND finding = $2 ORDER BY cell, repeat";
    let audits = select_all(sql, text, &failed, |row| {
        Ok((read_trial_key(row)?, row.get_text(2)?.to_owned()))
    })?;
    let again = "UPDATE audits SET finding = 0, auditor = '', auditor_process = '', why = ''
                 WHERE sweep = $1 AND finding = $2";
    sql.execute_statement(again, &failed)?;

    Ok(audits)
}

/// What an audit found, and why, given the fields that differ; `None` where the row is damaged.
fn judge_audit(outcome: &Outcome, different: Option<&[&'static str]>) -> (Finding, String) {
    match (outcome, different) {
        (Outcome::Failed { cause }, _) => (Finding::Failed, cause.clone()),
        (_, None) => (Finding::Failed, "the row is damaged".into()),
        (_, Some([])) => (Finding::Same, String::new()),
        (_, Some(different)) => (Finding::Different, different.join(", ")),
    }
}
