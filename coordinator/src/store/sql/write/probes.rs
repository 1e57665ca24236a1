//! Writes about the store itself.

use crate::store::error::StoreError;
use crate::store::sql::transaction::StoreTransaction;
use crate::store::sql::{SqlConnection as _, select_number};
use crate::store::writes::StoreWrite;

/// A number as the identity of the store, unless it has one. The output is the one that it has.
#[derive(Debug, Clone, PartialEq)]
pub struct EnsureIdentity(pub i64);

impl StoreWrite for EnsureIdentity {
    type Output = i64;

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<i64, StoreError> {
        let Self(proposed) = *self;
        let text =
            "INSERT INTO meta (key, value) VALUES ('identity', $1) ON CONFLICT (key) DO NOTHING";
        sql.execute_statement(text, &[proposed.into()])?;

        let identity = "SELECT value FROM meta WHERE key = 'identity'";
        Ok(select_number(sql, identity, &[])?.unwrap_or(proposed))
    }
}

/// Nothing of consequence: whether the store takes a write at all. Changes a row each time, so that a full disk is noticed.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckWritable;

impl StoreWrite for CheckWritable {
    type Output = ();

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<(), StoreError> {
        let text = "INSERT INTO meta VALUES ('probes', 1) ON CONFLICT (key) DO UPDATE SET value = meta.value + 1";
        sql.execute_statement(text, &[]).map(|_| ())
    }
}
