//! Trials and audits that are given up, and the way back.

use ergodic_common::{TrialKey, TrialResult};

use crate::records::{Finding, WorkerId};
use crate::store::encoding::{FAILED_OUTCOME, encode_finding};
use crate::store::error::StoreError;
use crate::store::sql::write::sweeps::reopen_completed_sweep;
use crate::store::sql::{SqlConnection, select_all, select_number};

/// A sweep that was removed meanwhile has no rows.
pub(in crate::store::sql) fn give_up_trial(
    sql: &impl SqlConnection,
    sweep: i64,
    result: &TrialResult,
) -> Result<bool, StoreError> {
    let there = select_number(
        sql,
        "SELECT number FROM sweeps WHERE number = $1",
        &[sweep.into()],
    )?
    .is_some();
    Ok(there
        && !sql
            .insert_trials(sweep, "", std::slice::from_ref(result))?
            .is_empty())
}

/// Removes the failed row of a trial that was given up. Such a row names no worker. Returns the trial if it had one.
pub(in crate::store::sql) fn revert_give_up(
    sql: &impl SqlConnection,
    sweep: i64,
    key: TrialKey,
) -> Result<Vec<TrialKey>, StoreError> {
    let place = [
        sweep.into(),
        key.cell.into(),
        key.repeat.into(),
        FAILED_OUTCOME.into(),
    ];
    sql.execute_statement(
        "DELETE FROM curves WHERE curve IN (SELECT curve FROM trials
             WHERE sweep = $1 AND cell = $2 AND repeat = $3 AND outcome = $4 AND worker = '')",
        &place,
    )?;

    let text = "DELETE FROM trials WHERE sweep = $1 AND cell = $2 AND repeat = $3 AND outcome = $4 AND worker = ''";
    if sql.execute_statement(text, &place)? == 0 {
        return Ok(Vec::new());
    }

    reopen_completed_sweep(sql, sweep)?;
    Ok(vec![key])
}

/// Makes an audit that was given up due again. Returns its trial, with the process that computed the row, if it was.
pub(in crate::store::sql) fn revert_audit_give_up(
    sql: &impl SqlConnection,
    sweep: i64,
    key: TrialKey,
) -> Result<Vec<(TrialKey, WorkerId)>, StoreError> {
    let failed = encode_finding(Some(Finding::Failed)).into();
    let place = [sweep.into(), key.cell.into(), key.repeat.into(), failed];
    let text = "UPDATE audits SET finding = 0, why = '' WHERE sweep = $1 AND cell = $2 AND repeat = $3 AND finding = $4
                    AND auditor_process = '' RETURNING process";
    let origins = select_all(sql, text, &place, |row| {
        Ok((key, row.get_text(0)?.to_owned()))
    })?;
    if !origins.is_empty() {
        reopen_completed_sweep(sql, sweep)?;
    }

    Ok(origins)
}

pub(in crate::store::sql) fn give_up_audit(
    sql: &impl SqlConnection,
    sweep: i64,
    key: TrialKey,
    why: &str,
) -> Result<bool, StoreError> {
    let text = "UPDATE audits SET finding = $1, why = $2 WHERE sweep = $3 AND cell = $4 AND repeat = $5 AND finding = 0";
    let failed = encode_finding(Some(Finding::Failed)).into();
    let values = [
        failed,
        why.into(),
        sweep.into(),
        key.cell.into(),
        key.repeat.into(),
    ];

    Ok(sql.execute_statement(text, &values)? > 0)
}
