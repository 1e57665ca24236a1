//! Trials and audits that are given up, and the reversal.

use ergodic_common::ids::{SweepNumber, WorkerId};
use ergodic_common::{TrialKey, TrialResult};

use crate::records::Finding;
use crate::store::encoding::{FAILED_OUTCOME, encode_finding};
use crate::store::error::StoreError;
use crate::store::sql::seal_rows::remove_seal;
use crate::store::sql::transaction::StoreTransaction;
use crate::store::sql::write::sweeps::reopen_completed_sweep;
use crate::store::sql::{SqlConnection, select_all, select_number};
use crate::store::types::ReopenedTrials;
use crate::store::writes::StoreWrite;

/// The row of a trial that no worker could run, unless it has one. The output is whether it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct GiveUpTrial {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The failure.
    pub result: TrialResult,
}

impl StoreWrite for GiveUpTrial {
    type Output = bool;

    /// Stores the failed row of a trial that is given up. A sweep that was removed meanwhile gets none.
    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<bool, StoreError> {
        let there = select_number(
            sql,
            "SELECT number FROM sweeps WHERE number = $1",
            &[self.sweep.into()],
        )?
        .is_some();
        let result = std::slice::from_ref(&self.result);
        let is_stored = there && !sql.insert_trials(self.sweep, "", result)?.is_empty();
        if is_stored {
            remove_seal(sql, self.sweep)?;
        }
        Ok(is_stored)
    }
}

/// The audit of a trial that no worker could run is given up. The output is whether it was due.
#[derive(Debug, Clone, PartialEq)]
pub struct GiveUpAudit {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The trial.
    pub key: TrialKey,
    /// Why.
    pub cause: String,
}

impl StoreWrite for GiveUpAudit {
    type Output = bool;

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<bool, StoreError> {
        let text = "UPDATE audits SET finding = $1, why = $2 WHERE sweep = $3 AND cell = $4 AND repeat = $5 AND finding = 0";
        let failed = encode_finding(Some(Finding::Failed)).into();
        let values = [
            failed,
            self.cause.as_str().into(),
            self.sweep.into(),
            self.key.cell.into(),
            self.key.repeat.into(),
        ];

        let was_due = sql.execute_statement(text, &values)? > 0;
        if was_due {
            remove_seal(sql, self.sweep)?;
        }
        Ok(was_due)
    }
}

/// Takes back that a trial, or its audit, was given up.
#[derive(Debug, Clone, PartialEq)]
pub struct RevertGiveUp {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The trial.
    pub key: TrialKey,
    /// Whether it is its audit.
    pub is_audit: bool,
}

impl StoreWrite for RevertGiveUp {
    type Output = ReopenedTrials;

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<ReopenedTrials, StoreError> {
        let reopened = if self.is_audit {
            ReopenedTrials {
                audits: revert_audit_give_up(sql, self.sweep, self.key)?,
                ..ReopenedTrials::default()
            }
        } else {
            ReopenedTrials {
                trials: revert_give_up(sql, self.sweep, self.key)?,
                ..ReopenedTrials::default()
            }
        };

        if reopened != ReopenedTrials::default() {
            reopen_completed_sweep(sql, self.sweep)?;
        }

        Ok(reopened)
    }
}

/// Removes the failed row of a trial that was given up. Such a row names no worker. Returns the trial if it had one.
fn revert_give_up(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
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
    let deleted = sql.execute_statement(text, &place)? > 0;
    Ok(deleted.then_some(key).into_iter().collect())
}

/// Makes an audit that was given up due again. Returns its trial, with the process that computed the row, if it was.
fn revert_audit_give_up(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    key: TrialKey,
) -> Result<Vec<(TrialKey, WorkerId)>, StoreError> {
    let failed = encode_finding(Some(Finding::Failed)).into();
    let place = [sweep.into(), key.cell.into(), key.repeat.into(), failed];
    let text = "UPDATE audits SET finding = 0, why = '' WHERE sweep = $1 AND cell = $2 AND repeat = $3 AND finding = $4
                    AND auditor_process = '' RETURNING process";
    select_all(sql, text, &place, |row| Ok((key, row.get_text(0)?.into())))
}
