//! Seals of completed sweeps, made of their rows.

use ergodic_common::Spec;
use ergodic_common::ids::SweepNumber;

use super::param::SqlParam;
use super::read::{find_sweep, select_trials_sql};
use super::rows::read_checked_ended_trial_row;
use super::seal_rows::{SealColumns, read_seal_columns, remove_seal};
use super::transaction::StoreTransaction;
use super::{SqlConnection, select_all};
use crate::records::{AuditCounts, SweepRow, SweepState};
use crate::store::encoding::decode_finding;
use crate::store::error::StoreError;
use crate::store::types::SealChange;
use crate::store::writes::StoreWrite;
use crate::stored_row::MetricPositions;
use crate::sweep_seal::{SealBuilder, SweepSeal, can_be_sealed};

/// Maximum number of trials of a sweep that is sealed in the transaction that completes it, which
/// reads its rows while other writes wait. Larger sweeps are sealed at the next start.
const MAX_SEALED_AT_COMPLETION: u64 = 1 << 21;

/// The seal of the completed sweep of this number is made anew. The output is what that changed.
#[derive(Debug, Clone, PartialEq)]
pub struct SealSweep(pub SweepNumber);

impl StoreWrite for SealSweep {
    type Output = SealChange;

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<SealChange, StoreError> {
        let before = read_seal_columns(sql, self.0)?;
        remove_seal(sql, self.0)?;
        let after = match find_sweep(sql, self.0)? {
            Some(row) => insert_seal(sql, &row, u64::MAX)?,
            None => None,
        };

        Ok(match (before, after) {
            (None, None) => SealChange::Absent,
            (None, Some(_)) => SealChange::Added,
            (before, after) if before == after => SealChange::Confirmed,
            _ => SealChange::Corrected,
        })
    }
}

/// Seals a sweep that has just been completed, unless it has very many trials.
pub(super) fn seal_completed_sweep(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
) -> Result<(), StoreError> {
    if let Some(row) = find_sweep(sql, sweep)? {
        insert_seal(sql, &row, MAX_SEALED_AT_COMPLETION)?;
    }
    Ok(())
}

/// Stores the seal of a sweep that has none, if its rows make one and its trials are not more than `most`.
fn insert_seal(
    sql: &impl SqlConnection,
    row: &SweepRow,
    most: u64,
) -> Result<Option<SealColumns>, StoreError> {
    let Some(seal) = compute_seal(sql, row, most)? else {
        return Ok(None);
    };
    let columns = SealColumns::from_seal(row.number, &seal);
    let [completed, diverged, failed] = columns.counts;
    let text = "INSERT INTO seals (sweep, completed, diverged, failed, row_sum, tallies, checksum)
                VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let values = [
        row.number.into(),
        completed.into(),
        diverged.into(),
        failed.into(),
        columns.row_sum.into(),
        SqlParam::Bytes(Some(&columns.tallies)),
        columns.checksum.into(),
    ];

    sql.execute_statement(text, &values)?;
    Ok(Some(columns))
}

/// What the rows of a completed sweep amount to; `None` if it cannot be sealed: its file cannot be read or has a stopping rule, a row
/// is missing or damaged, or it has more than `most` trials.
fn compute_seal(
    sql: &impl SqlConnection,
    row: &SweepRow,
    most: u64,
) -> Result<Option<SweepSeal>, StoreError> {
    if row.state != SweepState::Completed {
        return Ok(None);
    }
    let Ok(spec) = Spec::read_stored(&row.source) else {
        return Ok(None);
    };
    if !can_be_sealed(&spec) || spec.trial_count() > most {
        return Ok(None);
    }

    let positions = MetricPositions::from_spec(&spec);
    let mut builder = SealBuilder::new(&spec);
    let mut is_intact = true;
    let text = select_trials_sql!("WHERE sweep = $1 ORDER BY cell, repeat");
    sql.select_rows(text, &[row.number.into()], &mut |columns| {
        match read_checked_ended_trial_row(row.number, columns) {
            Ok((ended, checksum)) => {
                let key = ended.key;
                let metrics = |at| ended.metrics.get(at);
                let stored = positions.build_row(key, ended.outcome, metrics, ended.seconds);
                is_intact = builder.add_row(&stored, checksum);
            }
            // The next start finds the damage, too.
            Err(_) => is_intact = false,
        }
        Ok(is_intact)
    })?;

    match count_audits(sql, row.number)? {
        Some(audits) if is_intact => Ok(builder.finish(audits)),
        _ => Ok(None),
    }
}

/// Numbers of audits of a sweep's rows by finding; `None` if one is damaged.
fn count_audits(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
) -> Result<Option<AuditCounts>, StoreError> {
    let text = "SELECT finding, count(*) FROM audits JOIN trials USING (sweep, cell, repeat)
                WHERE sweep = $1 GROUP BY finding";
    let numbers = select_all(sql, text, &[sweep.into()], |row| {
        Ok((row.get_int(0)?, row.get_int(1)? as u64))
    })?;

    let mut counts = AuditCounts::default();
    for (finding, number) in numbers {
        let Some(finding) = decode_finding(finding) else {
            return Ok(None);
        };
        counts.due += number;
        if let Some(finding) = finding {
            *counts.count_mut(finding) += number;
        }
    }

    Ok(Some(counts))
}
