//! The embedded store: SQLite in a directory, WAL, `synchronous=FULL`, one writer.

mod connection;
mod database_access;
pub(crate) mod files;
mod unlocked;
pub(crate) mod view;
mod view_connection;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use ergodic_common::ids::Epoch;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use rusqlite_migration::{M, Migrations, SchemaVersion};

use super::error::StoreError;
use super::reader::StoreReader;
use super::snapshot_readers::SnapshotReaders;
use super::sql::StoreTransaction;
use super::sqlite::files::{DatabaseFiles, DirLock, create_database_file, create_directory};
use super::traits::{ReadableStore, Store, StoreWriter};
use super::types::Leader;
use super::writes::PendingWrite;
use crate::failpoint;

/// The database's name in the directory of a store.
const DATABASE_FILE: &str = "ergodic.sqlite";

/// What makes each version of the schema out of the one before; the database has the number of its version as `user_version`.
const MIGRATIONS: [&str; 13] = [
    include_str!("migrations/0001_initial.sql"),
    include_str!("migrations/0002_predictions.sql"),
    include_str!("migrations/0003_tallies.sql"),
    include_str!("migrations/0004_attempts.sql"),
    include_str!("migrations/0005_shares.sql"),
    include_str!("migrations/0006_checksums.sql"),
    include_str!("migrations/0007_removals.sql"),
    include_str!("migrations/0008_audits.sql"),
    include_str!("migrations/0009_launched_by.sql"),
    include_str!("migrations/0010_grammar.sql"),
    include_str!("migrations/0011_twins.sql"),
    include_str!("migrations/0012_outputs.sql"),
    include_str!("migrations/0013_seals.sql"),
];
/// The version of the schema that this program writes.
pub(crate) const SCHEMA_VERSION: usize = MIGRATIONS.len();
/// The first version of SQLite without a bug that could corrupt the database when the WAL is reset.
const MIN_SQLITE_VERSION: i32 = 3_051_003;

/// Length of the log at which it is copied into the database, in pages: 32 MiB. While a cell's
/// trials arrive, nearly every commit writes the same page of rows again, so a long log saves
/// copies.
const WAL_CHECKPOINT_PAGES: i64 = 8192;

/// A directory with a database and the lock that keeps other coordinators out.
pub struct SqliteStore {
    path: PathBuf,
    /// Locked by the writer during a commit, so that several readers can start at the same moment.
    /// Only the writer writes.
    commits: Arc<RwLock<()>>,
    state: Mutex<SqliteState>,
}

/// This process's state of a store.
struct SqliteState {
    lock: DirLock,
    /// The epoch in which this process leads or will lead.
    epoch: Epoch,
    /// Whether this process has led in the epoch.
    has_led: bool,
    /// The files that the writer has open. They are valid only that long, because the last process
    /// to close the database removes the log.
    writer_files: Weak<DatabaseFiles>,
    /// The database file alone, from the first write on.
    database_file: Option<Arc<DatabaseFiles>>,
}

impl SqliteStore {
    /// Opens the store in `dir`, and creates both if needed.
    ///
    /// # Errors
    /// The directory cannot be created, is used by a running coordinator, or contains something
    /// else.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with_privacy(dir, false)
    }

    /// Opens the store in `dir`. A private one is readable by its owner only.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_with_privacy(dir: &Path, private: bool) -> Result<Self, StoreError> {
        let failed = |e: std::io::Error| {
            let message = format!(
                "{}: cannot be used as a store ({e}): name another directory with --store",
                dir.display()
            );
            StoreError::Unusable(message)
        };
        if let Some(file) = view::describe_file_for_store(dir) {
            return Err(StoreError::Unusable(file));
        }
        create_directory(dir, private).map_err(failed)?;

        let lock = DirLock::acquire(dir)?;
        let path = dir.join(DATABASE_FILE);
        create_database_file(&path, private).map_err(failed)?;
        let epoch = prepare_database(&path).map_err(|e| e.with_path(&path))?;
        let hold = Mutex::new(SqliteState {
            lock,
            epoch,
            has_led: false,
            writer_files: Weak::new(),
            database_file: None,
        });

        Ok(Self {
            path,
            commits: Arc::default(),
            state: hold,
        })
    }

    fn lock_state(&self) -> MutexGuard<'_, SqliteState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that the files that this process has open are still in place.
    fn check_files(&self) -> Result<(), StoreError> {
        let names = {
            let hold = self.lock_state();
            hold.writer_files
                .upgrade()
                .or_else(|| hold.database_file.clone())
        };
        names.map_or(Ok(()), |names| names.check_unchanged())
    }
}

fn prepare_database(path: &Path) -> Result<Epoch, StoreError> {
    let mut connection = open_connection(path)?;
    migrate_schema(&mut connection, path)?;
    increment_epoch(&connection)
}

fn increment_epoch(connection: &Connection) -> Result<Epoch, StoreError> {
    let text = "UPDATE meta SET value = value + 1 WHERE key = 'epoch' RETURNING value";
    let epoch: i64 = connection.query_row(text, [], |row| row.get(0))?;
    Ok(Epoch(epoch as u64))
}

fn open_connection(path: &Path) -> Result<Connection, StoreError> {
    if rusqlite::version_number() < MIN_SQLITE_VERSION {
        return Err(StoreError::Unusable(format!(
            "SQLite {} is too old: 3.51.3 is needed",
            rusqlite::version()
        )));
    }

    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -32_768)?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_CHECKPOINT_PAGES)?;
    connection.set_prepared_statement_cache_capacity(64);

    Ok(connection)
}

fn migrate_schema(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let migrations = Migrations::new(MIGRATIONS.map(M::up).to_vec());
    let version = migrations
        .current_version(connection)
        .map_err(migration_error)?;
    if let SchemaVersion::Outside(version) = version {
        return Err(StoreError::Unusable(format!(
            "{} has schema version {version}, this program knows up to {}: use a newer ergodic",
            path.display(),
            MIGRATIONS.len()
        )));
    }

    migrations.to_latest(connection).map_err(migration_error)
}

fn migration_error(error: rusqlite_migration::Error) -> StoreError {
    match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => err.into(),
        other => StoreError::Failed(other.to_string()),
    }
}

fn read_meta(connection: &Connection, key: &str) -> Result<u64, StoreError> {
    let value: i64 =
        connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
            row.get(0)
        })?;
    Ok(value as u64)
}

impl Store for SqliteStore {
    /// Begins a new epoch each time, because leases of an earlier leader must not count. The
    /// process that holds the lock leads.
    fn acquire_leadership(&self, url: &str) -> Result<Leader, StoreError> {
        let mut hold = self.lock_state();
        hold.lock.ensure_held()?;

        if hold.has_led {
            hold.database_file
                .as_ref()
                .map_or(Ok(()), |database| database.check_unchanged())?;
            hold.epoch = increment_epoch(&open_connection(&self.path)?)?;
        }

        hold.has_led = true;
        Ok(Leader {
            epoch: hold.epoch,
            url: url.to_owned(),
            is_this: true,
        })
    }

    /// `None`, because no other process can lead while the lock is held.
    fn leadership_ttl(&self) -> Option<Duration> {
        None
    }

    fn renew_leadership(&self, epoch: Epoch) -> Result<bool, StoreError> {
        if let Err(error @ StoreError::Taken(_)) = self.lock_state().lock.ensure_held() {
            tracing::error!(%error, "the file 'lock' of the store was deleted or replaced");
            return Ok(false);
        }

        self.check_files()?;
        let reader = self.open_read_connection()?;
        let now = Epoch(read_meta(&reader, "epoch")?);
        failpoint::reach(failpoint::WHILE_RENEWING);
        Ok(now == epoch)
    }

    fn resign_leadership(&self, _: Epoch) {}

    fn open_writer(&self, epoch: Epoch) -> Result<Box<dyn StoreWriter>, StoreError> {
        let mut connection = open_connection(&self.path)?;
        // The first transaction creates the log, whose file is recorded below.
        let look = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        check_epoch(&look, epoch)?;
        drop(look);
        let names = Arc::new(DatabaseFiles::from_open_database(&self.path)?);
        let mut hold = self.lock_state();
        hold.database_file = Some(Arc::new(names.database_only()));

        hold.writer_files = Arc::downgrade(&names);
        drop(hold);
        Ok(Box::new(SqliteWriter {
            connection,
            epoch,
            commits: self.commits.clone(),
            files: names,
            is_log_recovered: false,
        }))
    }
}

impl ReadableStore for SqliteStore {
    fn check_files_in_place(&self) -> Result<(), StoreError> {
        self.check_files()
    }

    fn open_reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        Ok(Box::new(self.open_read_connection()?))
    }

    fn open_readers(&self, most: usize) -> Result<SnapshotReaders, StoreError> {
        let readers = (0..most.max(1))
            .map(|_| self.open_read_connection())
            .collect::<Result<Vec<_>, _>>()?;
        let _none_commits = self.commits.read().unwrap_or_else(PoisonError::into_inner);

        for reader in &readers {
            // A SQLite transaction takes its snapshot at its first read, so each reader reads
            // something while commits are held back.
            reader.query_row("SELECT count(*) FROM meta", [], |_| Ok(()))?;
        }

        Ok(SnapshotReaders::new(
            readers
                .into_iter()
                .map(|reader| Box::new(reader) as Box<dyn StoreReader>)
                .collect(),
        ))
    }
}

impl SqliteStore {
    fn open_read_connection(&self) -> Result<Connection, StoreError> {
        // A file that replaced the database under its name would have other rows.
        self.check_files()?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        // One transaction for the life of the connection, so that all its statements see the same
        // moment.
        connection.execute_batch("BEGIN")?;
        Ok(connection)
    }
}

struct SqliteWriter {
    /// Dropped first, because closing the connection may remove the log.
    files: Arc<DatabaseFiles>,
    connection: Connection,
    epoch: Epoch,
    commits: Arc<RwLock<()>>,
    /// Whether the rows of a deleted log were copied into the database.
    is_log_recovered: bool,
}

impl StoreWriter for SqliteWriter {
    fn commit_writes(&mut self, writes: &mut [&mut dyn PendingWrite]) -> Result<(), StoreError> {
        self.check_files_and_recover_log()?;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        check_epoch(&transaction, self.epoch)?;
        for write in writes {
            write.apply(&StoreTransaction::new(&*transaction))?;
        }

        let commits = self.commits.write().unwrap_or_else(PoisonError::into_inner);
        transaction.commit()?;
        drop(commits);

        // Checked again before the rows are acknowledged: a commit into a deleted file is not
        // durable.
        self.check_files_and_recover_log()
    }
}

impl SqliteWriter {
    fn check_files_and_recover_log(&mut self) -> Result<(), StoreError> {
        let checked = self.files.check_unchanged();
        if checked.is_err() && !self.is_log_recovered && self.files.is_only_log_missing() {
            // Acknowledged rows are in a deleted log that vanishes with this process. The database
            // still has its name, so they are saved there.
            let busy: i64 =
                self.connection
                    .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            self.is_log_recovered = busy == 0;

            if self.is_log_recovered {
                tracing::error!("the store's log was deleted: its content is now in the database");
            }
        }

        checked
    }
}

/// Checks that no other process leads. If the lock file was deleted, another process could lock a
/// new one and would have begun a new epoch.
fn check_epoch(connection: &Connection, epoch: Epoch) -> Result<(), StoreError> {
    let now = Epoch(read_meta(connection, "epoch")?);
    if now == epoch {
        return Ok(());
    }
    let message = format!(
        "another coordinator took over this store in epoch {now}, after this one's epoch {epoch}"
    );
    Err(StoreError::Deposed(message))
}

#[cfg(test)]
mod tests;
