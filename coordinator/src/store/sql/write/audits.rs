//! Audits: made due, recorded, and made due again.

use ergodic_common::TrialKey;
use ergodic_common::ids::{SweepNumber, WorkerId};

use crate::records::Finding;
use crate::store::encoding::encode_finding;
use crate::store::error::StoreError;
use crate::store::sql::rows::read_trial_key;
use crate::store::sql::seal_rows::remove_seal;
use crate::store::sql::transaction::StoreTransaction;
use crate::store::sql::{SqlConnection, select_all};
use crate::store::types::Audit;
use crate::store::writes::StoreWrite;

/// Audits from a backup, of trials that have none.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoreAudits {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The audits.
    pub audits: Vec<Audit>,
}

impl StoreWrite for RestoreAudits {
    type Output = ();

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<(), StoreError> {
        remove_seal(sql, self.sweep)?;
        insert_audits_in_chunks(sql, self.sweep, &self.audits)
    }
}

/// Number of audits inserted per statement.
const AUDITS_PER_STATEMENT: usize = 4096;

pub(in crate::store::sql) fn insert_audits_in_chunks(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    audits: &[Audit],
) -> Result<(), StoreError> {
    audits
        .chunks(AUDITS_PER_STATEMENT)
        .try_for_each(|some| sql.insert_audits(sweep, some))
}

/// Makes failed audits due again; returns them with the processes that computed the rows.
pub(in crate::store::sql) fn retry_failed_audits(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
) -> Result<Vec<(TrialKey, WorkerId)>, StoreError> {
    let failed = [sweep.into(), encode_finding(Some(Finding::Failed)).into()];
    let text = "SELECT cell, repeat, process FROM audits WHERE sweep = $1 AND finding = $2 ORDER BY cell, repeat";
    let audits = select_all(sql, text, &failed, |row| {
        Ok((read_trial_key(row)?, row.get_text(2)?.into()))
    })?;
    let again = "UPDATE audits SET finding = 0, auditor = '', auditor_process = '', why = ''
                 WHERE sweep = $1 AND finding = $2";
    sql.execute_statement(again, &failed)?;

    Ok(audits)
}
