//! A PostgreSQL database that is only read, beside its coordinators.

use sqlx::postgres::PgConnectOptions;

use super::session::PgSession;
use super::{MIGRATIONS, describe_database, parse_url};
use crate::store::error::StoreError;
use crate::store::reader::StoreReader;
use crate::store::snapshot_readers::SnapshotReaders;
use crate::store::sql::select_number;
use crate::store::sqlite::view::check_schema_version;
use crate::store::traits::ReadableStore;

/// A database with a store, in sessions that cannot write.
pub(crate) struct PostgresView {
    options: PgConnectOptions,
}

impl PostgresView {
    /// Connects to the database at `url`, which must have a store.
    ///
    /// # Errors
    /// The URL is invalid, the database does not answer, or its store is none or of another version.
    pub(crate) fn open(url: &str) -> Result<Self, StoreError> {
        let options = parse_url(url)?;
        let place = describe_database(&options);
        let view = Self {
            options: options.application_name("ergodic view"),
        };

        let version = view.read_schema_version().map_err(|error| match error {
            StoreError::Disconnected(why) => StoreError::Disconnected(format!("{place}: {why}")),
            error => StoreError::Unusable(format!(
                "{place}: cannot be read ({error}): check --store and the database"
            )),
        })?;
        check_schema_version(&place, version, MIGRATIONS.len())?;
        Ok(view)
    }

    /// Opens a session in a transaction that sees one moment and can write nothing.
    fn open_session(&self) -> Result<PgSession, StoreError> {
        let session = PgSession::open(&self.options)?;
        session.run_statements("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        Ok(session)
    }

    /// The version of the schema; 0 if the database has no store.
    fn read_schema_version(&self) -> Result<i64, StoreError> {
        let session = self.open_session()?;
        let there = select_number(
            &session,
            "SELECT (to_regclass('meta') IS NOT NULL)::int::bigint",
            &[],
        )?;
        if there != Some(1) {
            return Ok(0);
        }
        let version = select_number(&session, "SELECT value FROM meta WHERE key = 'schema'", &[])?;
        Ok(version.unwrap_or(0))
    }
}

impl ReadableStore for PostgresView {
    fn open_reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        Ok(Box::new(self.open_session()?))
    }

    /// Opens one reader only, because the connections of a database are few and shared by several programs.
    fn open_readers(&self, _most: usize) -> Result<SnapshotReaders, StoreError> {
        Ok(SnapshotReaders::new(vec![self.open_reader()?]))
    }
}
