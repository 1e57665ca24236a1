//! The embedded store: SQLite in a directory, WAL, `synchronous=FULL`, one writer.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use ergodic_common::{TrialKey, TrialResult};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, Row, ToSql, params, params_from_iter};

use super::rows::{
    curve_checksum, from_curve, from_f64s, from_outcome, kept_predictions, predictions_checksum, trial_checksum,
};
use super::sql::{Each, Fields, Sql, Value, apply, whole_trials_one_by_one};
use super::{Leader, Reader, Readers, Store, StoreError, Write, Writer, Written};

/// What makes each version of the schema out of the one before.
const MIGRATIONS: [&str; 11] = [
    include_str!("schema.sql"),
    include_str!("schema2.sql"),
    include_str!("schema3.sql"),
    include_str!("schema4.sql"),
    include_str!("schema5.sql"),
    include_str!("schema6.sql"),
    include_str!("schema7.sql"),
    include_str!("schema8.sql"),
    include_str!("schema9.sql"),
    include_str!("schema10.sql"),
    include_str!("schema11.sql"),
];
/// The first SQLite without the bug that could corrupt a WAL on reset.
const OLDEST_SQLITE: i32 = 3_051_003;

/// Pages in the log before they are brought to their places in the database, 32 MiB of them: a page of rows is written again
/// with nearly every commit while its cell's trials come, and this way it is brought there once for many of them.
const CHECKPOINT_PAGES: i64 = 8192;

/// A directory with a database and the lock that keeps other coordinators out.
pub struct SqliteStore {
    path: PathBuf,
    epoch: u64,
    /// Held by the writer while it commits, so that readers can be made to see the same moment. Nobody else writes.
    commits: Arc<RwLock<()>>,
    /// Held, not read: the lock lasts as long as the file is open.
    _lock: File,
}

impl SqliteStore {
    /// Opens the store in `dir`, making both if need be.
    ///
    /// # Errors
    /// The directory cannot be made, belongs to a running coordinator, or holds something else.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let failed = |e: std::io::Error| {
            let message =
                format!("{}: cannot be used as a store ({e}): name another directory with --store", dir.display());
            StoreError::Foreign(message)
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let lock = lock(dir)?;
        let path = dir.join("ergodic.sqlite");
        let epoch = begin(&path).map_err(|e| e.about(&path))?;
        Ok(Self { path, epoch, commits: Arc::default(), _lock: lock })
    }
}

fn begin(path: &Path) -> Result<u64, StoreError> {
    let connection = connect(path)?;
    migrate(&connection, path)?;
    connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'epoch'", [])?;
    meta(&connection, "epoch")
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let failed = |e: std::io::Error| StoreError::Failed(format!("{}: {e}", path.display()));
    let mut file = File::options().create(true).read(true).write(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(failed)?;
            write!(file, "{}", std::process::id()).map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(failed)?;
            Err(StoreError::Taken(format!(
                "the store {} belongs to a running coordinator, process {holder}: stop that one, or use another directory",
                dir.display()
            )))
        }
        Err(TryLockError::Error(e)) => Err(failed(e)),
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(StoreError::Foreign(format!("SQLite {} is too old: 3.51.3 is needed", rusqlite::version())));
    }
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -32_768)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn migrate(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = MIGRATIONS.len();
    let Some(missing) = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..)) else {
        return Err(StoreError::Foreign(format!(
            "{} has schema version {version}, this program knows up to {known}: use a newer ergodic",
            path.display()
        )));
    };
    if !missing.is_empty() {
        connection.execute_batch(&format!("BEGIN; {} PRAGMA user_version = {known}; COMMIT;", missing.concat()))?;
    }
    Ok(())
}

fn meta(connection: &Connection, key: &str) -> Result<u64, StoreError> {
    let value: i64 = connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))?;
    Ok(value as u64)
}

impl Store for SqliteStore {
    /// Whoever holds the lock leads.
    fn claim(&self, url: &str) -> Result<Leader, StoreError> {
        Ok(Leader { epoch: self.epoch, url: url.to_owned(), is_this: true })
    }

    fn renew(&self, _: u64) -> Result<bool, StoreError> {
        Ok(true)
    }

    fn resign(&self, _: u64) {}

    fn writer(&self, _: u64) -> Result<Box<dyn Writer>, StoreError> {
        Ok(Box::new(SqliteWriter { connection: connect(&self.path)?, commits: self.commits.clone() }))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(self.open_reader()?))
    }

    fn readers(&self, most: usize) -> Result<Readers, StoreError> {
        let readers = (0..most.max(1)).map(|_| self.open_reader()).collect::<Result<Vec<_>, _>>()?;
        let _none_commits = self.commits.read().unwrap_or_else(PoisonError::into_inner);
        for reader in &readers {
            // What a transaction sees is settled by its first look.
            reader.query_row("SELECT count(*) FROM meta", [], |_| Ok(()))?;
        }
        Ok(Readers::new(readers.into_iter().map(|reader| Box::new(reader) as Box<dyn Reader>).collect()))
    }
}

impl SqliteStore {
    fn open_reader(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        // Ends with the connection; until then all statements see the same moment.
        connection.execute_batch("BEGIN")?;
        Ok(connection)
    }
}

struct SqliteWriter {
    connection: Connection,
    commits: Arc<RwLock<()>>,
}

impl Writer for SqliteWriter {
    fn commit(&mut self, writes: &[&Write]) -> Result<Vec<Written>, StoreError> {
        let transaction = self.connection.transaction()?;
        let written = writes.iter().map(|write| apply(&*transaction, write)).collect::<Result<_, _>>()?;
        let _commits = self.commits.write().unwrap_or_else(PoisonError::into_inner);
        transaction.commit()?;
        Ok(written)
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(value) | Self::MaybeText(Some(value)) => ValueRef::Text(value.as_bytes()),
            Self::Bytes(Some(value)) => ValueRef::Blob(value),
            Self::Bytes(None) | Self::MaybeText(None) => ValueRef::Null,
        }))
    }
}

impl Fields for Row<'_> {
    fn maybe_int(&self, at: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.get(at)?)
    }

    fn real(&self, at: usize) -> Result<f64, StoreError> {
        Ok(self.get(at)?)
    }

    fn maybe_text(&self, at: usize) -> Result<Option<&str>, StoreError> {
        Ok(self.get_ref(at)?.as_str_or_null().map_err(rusqlite::Error::from)?)
    }

    fn maybe_bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError> {
        Ok(self.get_ref(at)?.as_blob_or_null().map_err(rusqlite::Error::from)?)
    }
}

impl Sql for Connection {
    fn select(&self, sql: &'static str, values: &[Value<'_>], each: Each<'_>) -> Result<(), StoreError> {
        let mut statement = self.prepare_cached(sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            if !each(row)? {
                break;
            }
        }
        Ok(())
    }

    fn execute(&self, sql: &'static str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        Ok(self.prepare_cached(sql)?.execute(params_from_iter(values))? as u64)
    }

    fn insert_trials(&self, sweep: i64, worker: &str, results: &[TrialResult]) -> Result<Vec<usize>, StoreError> {
        let mut stored = Vec::new();
        for (at, result) in results.iter().enumerate() {
            if insert_trial(self, sweep, worker, result)? {
                stored.push(at);
            }
        }
        Ok(stored)
    }

    fn whole_trials(&self, sweep: i64, keys: &[TrialKey], each: Each<'_>) -> Result<(), StoreError> {
        whole_trials_one_by_one(self, sweep, keys, each)
    }
}

fn insert_trial(sqlite: &Connection, sweep: i64, worker: &str, result: &TrialResult) -> Result<bool, StoreError> {
    let (outcome, step, cause) = from_outcome(&result.outcome);
    let exists = sqlite
        .prepare_cached("SELECT 1 FROM trials WHERE sweep = ?1 AND cell = ?2 AND repeat = ?3")?
        .exists(params![sweep, result.key.cell as i64, result.key.repeat])?;
    if exists {
        return Ok(false);
    }
    let data = from_curve(&result.curve);
    let curve = sqlite
        .prepare_cached("INSERT INTO curves (data, checksum) VALUES (?1, ?2)")?
        .insert(params![data, curve_checksum(sweep, result.key, &data)])?;
    sqlite
        .prepare_cached(
            "INSERT INTO trials (sweep, cell, repeat, outcome, step, cause, steps, seconds, worker, digest, metrics, curve, isa,
                                 weights, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?
        .execute(params![
        sweep,
        result.key.cell as i64,
        result.key.repeat,
        outcome,
        step,
        cause,
        result.steps as i64,
        result.seconds,
        worker,
        result.digest.as_slice(),
        from_f64s(&result.metrics),
        curve,
        result.isa,
        result.weights.as_ref().map(|hash| hash.as_slice()),
        trial_checksum(sweep, worker, result),
    ])?;
    if let Some(predictions) = kept_predictions(result) {
        sqlite.prepare_cached("INSERT INTO predictions VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
            sweep,
            result.key.cell as i64,
            result.key.repeat,
            predictions,
            predictions_checksum(sweep, result.key, &predictions),
        ])?;
    }
    Ok(true)
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
