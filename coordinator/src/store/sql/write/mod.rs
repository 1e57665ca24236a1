//! Writes as statements, within a transaction that the caller begins and commits.

pub(super) mod audits;
mod give_up;
mod leases;
mod removal;
pub(super) mod results;
pub(super) mod sweeps;

use ergodic_common::TrialKey;

use super::extend::{extend_sweep, insert_successor};
use super::reuse::insert_reusing_sweep;
use super::{SqlConnection, select_number};
use crate::store::error::StoreError;
use crate::store::sql::write::audits::{insert_audits_in_chunks, retry_failed_audits};
use crate::store::sql::write::give_up::{
    give_up_audit, give_up_trial, revert_audit_give_up, revert_give_up,
};
use crate::store::sql::write::leases::{end_leases, insert_lease, shrink_lease};
use crate::store::sql::write::removal::{clear_rows, find_unreferenced, remove_sweep};
use crate::store::sql::write::results::{
    insert_stored_rows, look_up_rows, quarantine_rows, redo_trials, retry_failed_trials,
    store_results,
};
use crate::store::sql::write::sweeps::{insert_sweep, set_cells_fingerprint, set_share, set_state};
use crate::store::writes::{StoreWrite, WriteOutput};

/// Applies a write within the transaction of the caller.
pub(in crate::store) fn apply_write(
    sql: &(impl SqlConnection + Send),
    write: &StoreWrite,
) -> Result<WriteOutput, StoreError> {
    match write {
        StoreWrite::InsertSweep(row) => insert_sweep(sql, row).map(WriteOutput::SweepNumber),
        StoreWrite::InsertLease(row) => insert_lease(sql, row).map(done),
        StoreWrite::ShrinkLease(row) => shrink_lease(sql, row).map(done),
        StoreWrite::EndLeases(ended) => end_leases(sql, ended).map(done),
        StoreWrite::SetSweepState(sweep, state) => set_state(sql, *sweep, *state).map(done),
        StoreWrite::SetShare(sweep, share) => set_share(sql, *sweep, *share).map(done),
        StoreWrite::StoreResults(batch) => store_results(sql, batch).map(WriteOutput::Results),
        StoreWrite::GiveUpTrial(sweep, result) => {
            give_up_trial(sql, *sweep, result).map(WriteOutput::GaveUp)
        }
        StoreWrite::GiveUpAudit(sweep, key, why) => {
            give_up_audit(sql, *sweep, *key, why).map(WriteOutput::GaveUp)
        }
        StoreWrite::RevertGiveUp(sweep, key, false) => {
            revert_give_up(sql, *sweep, *key).map(reopened)
        }
        StoreWrite::RevertGiveUp(sweep, key, true) => revert_audit_give_up(sql, *sweep, *key)
            .map(|audits| WriteOutput::Reopened(Vec::new(), audits)),
        StoreWrite::LookUpRows(sweep, keys) => look_up_rows(sql, *sweep, keys),
        StoreWrite::RetryFailed(sweep) => {
            let trials = retry_failed_trials(sql, *sweep)?;
            let audits = retry_failed_audits(sql, *sweep)?;
            Ok(WriteOutput::Reopened(trials, audits))
        }
        StoreWrite::QuarantineRows(sweep, keys) => quarantine_rows(sql, *sweep, keys).map(reopened),
        StoreWrite::RemoveSweep(sweep) => remove_sweep(sql, *sweep).map(done),
        StoreWrite::ClearRows(sweep) => clear_rows(sql, *sweep).map(WriteOutput::Cleared),
        StoreWrite::RestoreRows(sweep, rows, attempts) => {
            insert_stored_rows(sql, *sweep, rows, attempts).map(done)
        }
        StoreWrite::RestoreAudits(sweep, audits) => {
            insert_audits_in_chunks(sql, *sweep, audits).map(done)
        }
        StoreWrite::ExtendSweep(sweep, from, to) => {
            extend_sweep(sql, *sweep, from, to).map(WriteOutput::Extended)
        }
        StoreWrite::InsertSuccessor(inheritance) => {
            insert_successor(sql, inheritance).map(WriteOutput::SweepNumber)
        }
        StoreWrite::SetCellsDigest(sweep, cells) => {
            set_cells_fingerprint(sql, *sweep, *cells).map(done)
        }
        StoreWrite::InsertReusing(gathering) => insert_reusing_sweep(sql, gathering)
            .map(|(sweep, rows)| WriteOutput::SweepWithRows(sweep, rows)),
        StoreWrite::CheckWritable => check_writable(sql).map(done),
        StoreWrite::FindUnreferenced(hashes) => {
            find_unreferenced(sql, hashes).map(WriteOutput::Unreferenced)
        }
        StoreWrite::RedoTrials(sweep, keys) => {
            redo_trials(sql, *sweep, keys).map(WriteOutput::Redone)
        }
        StoreWrite::EnsureIdentity(id) => ensure_identity(sql, *id).map(WriteOutput::Identity),
    }
}

fn done((): ()) -> WriteOutput {
    WriteOutput::Done
}

fn reopened(trials: Vec<TrialKey>) -> WriteOutput {
    WriteOutput::Reopened(trials, Vec::new())
}

fn ensure_identity(sql: &impl SqlConnection, proposed: i64) -> Result<i64, StoreError> {
    let text = "INSERT INTO meta (key, value) VALUES ('identity', $1) ON CONFLICT (key) DO NOTHING";
    sql.execute_statement(text, &[proposed.into()])?;
    Ok(
        select_number(sql, "SELECT value FROM meta WHERE key = 'identity'", &[])?
            .unwrap_or(proposed),
    )
}

/// Changes a row each time, so that a full disk is noticed.
fn check_writable(sql: &impl SqlConnection) -> Result<(), StoreError> {
    let text = "INSERT INTO meta VALUES ('probes', 1) ON CONFLICT (key) DO UPDATE SET value = meta.value + 1";
    sql.execute_statement(text, &[]).map(|_| ())
}
