//! The transaction that writes are applied in, whichever database it is of.

use ergodic_common::ids::SweepNumber;
use ergodic_common::{TrialKey, TrialResult};

use super::param::SqlParam;
use super::{RowCallback, SqlConnection};
use crate::store::error::StoreError;
use crate::store::outputs::StoredOutput;
use crate::store::types::{Attempt, Audit, Twin};

/// An open transaction of a store's writer, which commits it or rolls it back.
pub struct StoreTransaction<'a>(&'a dyn SqlConnection);

impl<'a> StoreTransaction<'a> {
    /// The transaction that is open on a connection.
    pub(in crate::store) fn new(connection: &'a dyn SqlConnection) -> Self {
        Self(connection)
    }
}

impl SqlConnection for StoreTransaction<'_> {
    fn select_rows(
        &self,
        sql: &'static str,
        values: &[SqlParam<'_>],
        each: RowCallback<'_>,
    ) -> Result<(), StoreError> {
        self.0.select_rows(sql, values, each)
    }

    fn execute_statement(
        &self,
        sql: &'static str,
        values: &[SqlParam<'_>],
    ) -> Result<u64, StoreError> {
        self.0.execute_statement(sql, values)
    }

    fn insert_trials(
        &self,
        sweep: SweepNumber,
        worker: &str,
        results: &[TrialResult],
    ) -> Result<Vec<usize>, StoreError> {
        self.0.insert_trials(sweep, worker, results)
    }

    fn select_whole_trials(
        &self,
        sweep: SweepNumber,
        keys: &[TrialKey],
        each: RowCallback<'_>,
    ) -> Result<(), StoreError> {
        self.0.select_whole_trials(sweep, keys, each)
    }

    fn insert_attempts(
        &self,
        sweep: SweepNumber,
        attempts: &[(TrialKey, i64, Attempt)],
    ) -> Result<(), StoreError> {
        self.0.insert_attempts(sweep, attempts)
    }

    fn insert_outputs(
        &self,
        sweep: SweepNumber,
        outputs: &[StoredOutput],
    ) -> Result<(), StoreError> {
        self.0.insert_outputs(sweep, outputs)
    }

    fn insert_audits(&self, sweep: SweepNumber, audits: &[Audit]) -> Result<(), StoreError> {
        self.0.insert_audits(sweep, audits)
    }

    fn insert_twins(&self, sweep: SweepNumber, twins: &[Twin]) -> Result<(), StoreError> {
        self.0.insert_twins(sweep, twins)
    }
}
