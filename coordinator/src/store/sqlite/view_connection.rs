//! A connection of a store that is only read.

use std::path::Path;
use std::time::Duration;

use ergodic_common::ids::SweepNumber;
use ergodic_common::{TrialKey, TrialResult};
use rusqlite::{Connection, OpenFlags};

use super::database_access::{DatabaseAccess, choose_access};
use super::unlocked::{UnchangedFile, open_unlocked};
use crate::store::error::StoreError;
use crate::store::sql::param::SqlParam;
use crate::store::sql::{RowCallback, SqlConnection, select_whole_trials_one_by_one};

/// Time for which a reader waits for a lock of another process, which has it for a moment only.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that reads a database and changes nothing.
pub(super) struct ViewConnection {
    connection: Connection,
    /// What every read is checked with where no lock protects it.
    unlocked: Option<UnchangedFile>,
}

impl ViewConnection {
    /// Opens a database as this user can.
    ///
    /// # Errors
    /// The database or its log cannot be read.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_as(path, choose_access(path))
    }

    fn open_as(path: &Path, access: DatabaseAccess) -> Result<Self, StoreError> {
        // Noted before it is opened, so that whoever writes from here on is noticed.
        let file = UnchangedFile::note(path);
        let opened = match access {
            DatabaseAccess::Shared => open_with(path, OpenFlags::SQLITE_OPEN_READ_WRITE),
            DatabaseAccess::ReadOnly => open_with(path, OpenFlags::SQLITE_OPEN_READ_ONLY),
            DatabaseAccess::Unchanging => open_unlocked(path),
        };

        let connection = opened?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "query_only", true)?;
        let view = Self {
            connection,
            unlocked: (access == DatabaseAccess::Unchanging).then_some(file),
        };

        // The first statement opens the log, which is where a directory that cannot be written shows.
        let read = view.count_rows("SELECT count(*) FROM sqlite_schema");
        match (read, access) {
            (Err(StoreError::Failed(why)), DatabaseAccess::ReadOnly) => {
                Err(unreadable_log_error(path, &why))
            }
            (read, _) => read.map(|()| view),
        }
    }

    /// The number of the database's schema; 0 if it has none.
    pub(super) fn read_schema_version(&self) -> Result<i64, StoreError> {
        self.read(|connection| {
            Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
        })
    }

    /// A number that changes with each commit of another connection.
    pub(super) fn read_data_version(&self) -> Result<i64, StoreError> {
        self.read(|connection| {
            Ok(connection.pragma_query_value(None, "data_version", |row| row.get(0))?)
        })
    }

    /// Begins a transaction and reads something, because SQLite takes the snapshot at the first read.
    pub(super) fn begin_snapshot(&self) -> Result<(), StoreError> {
        self.connection.execute_batch("BEGIN")?;
        self.count_rows("SELECT count(*) FROM meta")
    }

    /// Ends the transaction of [`Self::begin_snapshot`].
    pub(super) fn end_snapshot(&self) -> Result<(), StoreError> {
        Ok(self.connection.execute_batch("ROLLBACK")?)
    }

    fn count_rows(&self, sql: &str) -> Result<(), StoreError> {
        self.read(|connection| Ok(connection.query_row(sql, [], |_| Ok(()))?))
    }

    /// Reads, and checks that what was read is of one moment. If it is not, nothing that the read itself found wrong means anything.
    fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let found = read(&self.connection);
        self.unlocked
            .as_ref()
            .map_or(Ok(()), UnchangedFile::check)?;
        found
    }
}

fn open_with(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

fn unreadable_log_error(path: &Path, why: &str) -> StoreError {
    StoreError::Unusable(format!(
        "{}: cannot be read ({why}): the store has a log that only someone who may write there can read. Read it as its owner, or \
         copy the directory",
        path.display()
    ))
}

/// Reads alone: SQLite refuses every write of such a connection.
impl SqlConnection for ViewConnection {
    fn select_rows(
        &self,
        sql: &'static str,
        values: &[SqlParam<'_>],
        each: RowCallback<'_>,
    ) -> Result<(), StoreError> {
        self.read(|connection| connection.select_rows(sql, values, each))
    }

    fn execute_statement(
        &self,
        sql: &'static str,
        values: &[SqlParam<'_>],
    ) -> Result<u64, StoreError> {
        self.connection.execute_statement(sql, values)
    }

    fn insert_trials(
        &self,
        sweep: SweepNumber,
        worker: &str,
        results: &[TrialResult],
    ) -> Result<Vec<usize>, StoreError> {
        self.connection.insert_trials(sweep, worker, results)
    }

    fn select_whole_trials(
        &self,
        sweep: SweepNumber,
        keys: &[TrialKey],
        each: RowCallback<'_>,
    ) -> Result<(), StoreError> {
        select_whole_trials_one_by_one(self, sweep, keys, each)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::SystemTime;

    use super::*;
    use crate::store::reader::StoreReader as _;
    use crate::store::sqlite::{DATABASE_FILE, SqliteStore, increment_epoch, open_connection};

    /// A store that was written long ago, so that its time tells of every later write.
    fn create_store() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("50 % ?#");
        drop(SqliteStore::open(&path).expect("a store"));
        std::fs::File::options()
            .write(true)
            .open(path.join(DATABASE_FILE))
            .and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH))
            .expect("its time can be set");
        (dir, path)
    }

    /// A reader as of a user who may not write to the directory, in which there was no log.
    fn open_reader(store: &Path) -> Result<ViewConnection, StoreError> {
        let database = store.join(DATABASE_FILE);
        let reader = ViewConnection::open_as(&database, DatabaseAccess::Unchanging)?;
        reader.begin_snapshot().map(|()| reader)
    }

    fn check_refusal<T>(read: Result<T, StoreError>) {
        let why = read.err().map(|error| error.to_string());
        let why = why.expect("what may be of two moments is refused");
        assert!(why.contains("for writing while it was read"), "{why}");
        assert!(why.contains("--coordinator"), "{why}");
    }

    #[test]
    fn what_is_read_without_locks_counts_until_somebody_writes() {
        let (_dir, path) = create_store();
        let reader = open_reader(&path).expect("a reader");
        assert!(reader.read_sweeps().expect("read").is_empty());
        assert!(reader.read_data_version().is_ok());

        // Whoever opens a store writes its epoch, here into the database.
        let store = SqliteStore::open(&path).expect("a store");
        check_refusal(reader.read_sweeps());
        check_refusal(reader.read_data_version());
        let later = open_reader(&path).expect("nobody writes now");

        // Here into the log, which stays as long as the database is open.
        let writer = open_connection(&path.join(DATABASE_FILE)).expect("a connection");
        increment_epoch(&writer).expect("written");
        check_refusal(later.read_sweeps());
        check_refusal(open_reader(&path));

        drop((writer, store));
        let last = open_reader(&path).expect("nobody writes any more");
        assert!(last.read_sweeps().is_ok());
    }
}
