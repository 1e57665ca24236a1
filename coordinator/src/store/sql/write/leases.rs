//! Leases: inserted, reduced and deleted, and whether a fence is still valid.

use crate::records::{EndedLease, LeaseRow};
use crate::result_batch::ResultBatch;
use crate::store::checksum::lease_checksum;
use crate::store::encoding::encode_intervals;
use crate::store::error::StoreError;
use crate::store::sql::param::SqlParam;
use crate::store::sql::transaction::StoreTransaction;
use crate::store::sql::write::sweeps::change_sweep;
use crate::store::sql::{SqlConnection, select_number};
use crate::store::writes::StoreWrite;
use ergodic_common::ids::{SweepNumber, WorkerId};

/// A new lease.
#[derive(Debug, Clone, PartialEq)]
pub struct InsertLease(pub LeaseRow);

impl StoreWrite for InsertLease {
    type Output = ();

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<(), StoreError> {
        let Self(row) = self;
        let text =
            "INSERT INTO leases (lease, epoch, sweep, class, worker, trials, checksum, audits)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let trials = encode_intervals(&row.trials);
        let values = [
            row.fence.lease.into(),
            row.fence.epoch.into(),
            row.sweep.into(),
            row.class.into(),
            (&row.worker).into(),
            SqlParam::Bytes(Some(&trials)),
            lease_checksum(row, &trials).into(),
            SqlParam::OptionalText(row.audits.as_ref().map(WorkerId::as_str)),
        ];
        sql.execute_statement(text, &values)?;

        let next = [(row.fence.lease.0 + 1).into()];
        sql.execute_statement(
            "UPDATE meta SET value = $1 WHERE key = 'next_lease' AND value < $1",
            &next,
        )?;

        Ok(())
    }
}

/// A lease that has fewer trials than before.
#[derive(Debug, Clone, PartialEq)]
pub struct ShrinkLease(pub LeaseRow);

impl StoreWrite for ShrinkLease {
    type Output = ();

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<(), StoreError> {
        let Self(row) = self;
        let text = "UPDATE leases SET sweep = $1, class = $2, worker = $3, trials = $4, checksum = $5, audits = $6
                WHERE lease = $7 AND epoch = $8";
        let trials = encode_intervals(&row.trials);
        let values = [
            row.sweep.into(),
            row.class.into(),
            (&row.worker).into(),
            SqlParam::Bytes(Some(&trials)),
            lease_checksum(row, &trials).into(),
            SqlParam::OptionalText(row.audits.as_ref().map(WorkerId::as_str)),
            row.fence.lease.into(),
            row.fence.epoch.into(),
        ];

        sql.execute_statement(text, &values).map(|_| ())
    }
}

/// Leases that are over.
#[derive(Debug, Clone, PartialEq)]
pub struct EndLeases(pub Vec<EndedLease>);

impl StoreWrite for EndLeases {
    type Output = ();

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<(), StoreError> {
        for EndedLease { fence, lost } in &self.0 {
            let place = [fence.lease.into(), fence.epoch.into()];
            if *lost
                && let Some(sweep) = select_number(
                    sql,
                    "SELECT sweep FROM leases WHERE lease = $1 AND epoch = $2",
                    &place,
                )?
            {
                change_sweep(sql, SweepNumber(sweep), |row| row.tallies.lost_leases += 1)?;
            }

            sql.execute_statement("DELETE FROM leases WHERE lease = $1 AND epoch = $2", &place)?;
        }

        Ok(())
    }
}

/// What the store has of a lease under which a batch was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::sql) enum FenceState {
    /// The lease is in force.
    InForce,
    /// The lease is in force although its sweep is sealed.
    InSealedSweep,
    /// The lease has ended: its row was deleted.
    Ended,
}

/// Looks for the lease under which a batch was sent: one of this number, granted in this epoch, of the batch's sweep. The seal is
/// looked for in the same statement, because every statement is a round trip to PostgreSQL.
pub(in crate::store::sql) fn check_fence(
    sql: &impl SqlConnection,
    batch: &ResultBatch,
) -> Result<FenceState, StoreError> {
    let text = "SELECT (SELECT count(*) FROM seals WHERE sweep = $1) FROM leases
                WHERE sweep = $1 AND lease = $2 AND epoch = $3";
    let values = [
        batch.sweep.into(),
        batch.fence.lease.into(),
        batch.fence.epoch.into(),
    ];
    Ok(match select_number(sql, text, &values)? {
        None => FenceState::Ended,
        Some(0) => FenceState::InForce,
        Some(_) => FenceState::InSealedSweep,
    })
}
