//! The embedded store: SQLite in a directory, WAL, `synchronous=FULL`, one writer.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use ergodic_common::spec::SpecSource;
use ergodic_common::trial::{Curve, Predictions};
use ergodic_common::{TrialKey, TrialResult};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, params};

use super::rows::{
    FAILED, from_curve, from_f64s, from_files, from_intervals, from_outcome, from_predictions, sum, sum_of, to_curve,
    to_f64s, to_files, to_intervals, to_outcome, to_predictions,
};
use super::{Attempt, Batch, Reader, Report, Store, StoreError, StoredTrial, Write, Writer, Written};
use crate::core::{DataPin, Ended, Fence, LeaseRow, SweepRow, SweepState, Tallies};

/// What makes each version of the schema out of the one before.
const MIGRATIONS: [&str; 5] = [
    include_str!("schema.sql"),
    include_str!("schema2.sql"),
    include_str!("schema3.sql"),
    include_str!("schema4.sql"),
    include_str!("schema6.sql"),
];
/// The first SQLite without the bug that could corrupt a WAL on reset.
const OLDEST_SQLITE: i32 = 3_051_003;

/// A directory with a database and the lock that keeps other coordinators out.
pub struct SqliteStore {
    path: PathBuf,
    epoch: u64,
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
        Ok(Self { path, epoch, _lock: lock })
    }
}

/// Brings the database up to date and begins the next epoch.
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
    fn writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        Ok(Box::new(SqliteWriter { connection: connect(&self.path)? }))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(Box::new(SqliteReader { connection }))
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }
}

struct SqliteWriter {
    connection: Connection,
}

impl Writer for SqliteWriter {
    fn commit(&mut self, writes: &[&Write]) -> Result<Vec<Written>, StoreError> {
        let transaction = self.connection.transaction()?;
        let written = writes.iter().map(|write| apply(&transaction, write)).collect::<Result<_, _>>()?;
        transaction.commit()?;
        Ok(written)
    }
}

fn apply(tx: &Transaction<'_>, write: &Write) -> Result<Written, StoreError> {
    match write {
        Write::Sweep(row) => insert_sweep(tx, row).map(Written::Sweep),
        Write::Lease(row) => put_lease(tx, row).map(|()| Written::Done),
        Write::EndLeases(ended) => end_leases(tx, ended).map(|()| Written::Done),
        Write::State(sweep, state) => set_state(tx, *sweep, *state).map(|()| Written::Done),
        Write::Results(batch) => put_results(tx, batch).map(Written::Results),
        Write::Verdict(sweep, result) => insert_trial(tx, *sweep, "", result).map(|_| Written::Done),
        Write::Retry(sweep) => retry(tx, *sweep).map(Written::Retried),
    }
}

fn insert_sweep(tx: &Transaction<'_>, row: &SweepRow) -> Result<i64, StoreError> {
    let settings = serde_json::to_string(&row.source.settings).map_err(|e| StoreError::Failed(e.to_string()))?;
    tx.execute(
        "INSERT INTO sweeps (id, file, text, settings, data_hash, data_train, data_words, state, launched_at, files, sum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            row.id,
            row.source.file,
            row.source.text,
            settings,
            row.data.hash.as_ref().map(|h| h.as_slice()),
            row.data.train,
            row.data.words,
            from_state(row.state),
            row.launched_at,
            from_files(&row.source.files),
            sweep_sum(row)
        ],
    )?;
    Ok(tx.last_insert_rowid())
}

fn put_lease(tx: &Transaction<'_>, row: &LeaseRow) -> Result<(), StoreError> {
    let (lease, trials) = (row.fence.lease as i64, from_intervals(&row.trials));
    let insert =
        "INSERT INTO leases (lease, epoch, sweep, class, worker, trials, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    tx.prepare_cached(insert)?.execute(params![
        lease,
        row.fence.epoch as i64,
        row.sweep,
        row.class,
        row.worker,
        trials,
        lease_sum(row)
    ])?;
    tx.prepare_cached("UPDATE meta SET value = max(value, ?1) WHERE key = 'next_lease'")?.execute([lease + 1])?;
    Ok(())
}

fn end_leases(tx: &Transaction<'_>, ended: &[Ended]) -> Result<(), StoreError> {
    let mut count = tx.prepare_cached(
        "UPDATE sweeps SET releases = releases + 1
         WHERE number = (SELECT sweep FROM leases WHERE lease = ?1 AND epoch = ?2)",
    )?;
    let mut delete = tx.prepare_cached("DELETE FROM leases WHERE lease = ?1 AND epoch = ?2")?;
    for Ended { fence, lost } in ended {
        let place = params![fence.lease as i64, fence.epoch as i64];
        if *lost {
            count.execute(place)?;
        }
        delete.execute(place)?;
    }
    Ok(())
}

fn set_state(tx: &Transaction<'_>, sweep: i64, state: SweepState) -> Result<(), StoreError> {
    tx.execute("UPDATE sweeps SET state = ?2 WHERE number = ?1", params![sweep, from_state(state)])?;
    if !state.is_open() {
        tx.execute("DELETE FROM leases WHERE sweep = ?1", [sweep])?;
    }
    Ok(())
}

/// Stores what has no row yet if the fence holds, and compares the rest with the rows that are there.
fn put_results(tx: &Transaction<'_>, batch: &Batch) -> Result<Report, StoreError> {
    let mut report = Report { fenced: batch.compare_only || !fence_holds(tx, batch)?, ..Report::default() };
    for (at, result) in batch.results.iter().enumerate() {
        if !report.fenced && insert_trial(tx, batch.sweep, &batch.worker, result)? {
            report.stored.push(at);
        } else if let Some(same) = compare(tx, batch.sweep, result)? {
            report.known.push(result.key);
            report.mismatches += u64::from(!same);
        }
    }
    count(tx, batch.sweep, &report)?;
    Ok(report)
}

/// Adds what a batch was besides new rows to its sweep's tallies.
fn count(tx: &Transaction<'_>, sweep: i64, report: &Report) -> Result<(), StoreError> {
    let mut tallies = Tallies::default();
    tallies.count(report.known.len() as u64, report.mismatches, report.fenced);
    let Tallies { duplicates, mismatches, fenced, .. } = tallies;
    if tallies != Tallies::default() {
        tx.prepare_cached(
            "UPDATE sweeps SET duplicates = duplicates + ?2, mismatches = mismatches + ?3, fenced = fenced + ?4
             WHERE number = ?1",
        )?
        .execute(params![sweep, duplicates as i64, mismatches as i64, fenced as i64])?;
    }
    Ok(())
}

/// Moves rows of failed trials to the attempts.
fn retry(tx: &Transaction<'_>, sweep: i64) -> Result<Vec<TrialKey>, StoreError> {
    let mut statement = tx.prepare("SELECT cell, repeat FROM trials WHERE sweep = ?1 AND outcome = ?2")?;
    let key = |row: &Row<'_>| Ok(TrialKey { cell: row.get::<_, i64>(0)? as u64, repeat: row.get(1)? });
    let keys = statement.query_map([sweep, FAILED], key)?.collect::<Result<_, _>>()?;
    for change in [
        "INSERT INTO attempts SELECT sweep, cell, repeat, (SELECT count(*) FROM attempts AS old WHERE old.sweep = t.sweep
             AND old.cell = t.cell AND old.repeat = t.repeat), cause, worker, seconds
         FROM trials AS t WHERE sweep = ?1 AND outcome = ?2",
        "DELETE FROM curves WHERE curve IN (SELECT curve FROM trials WHERE sweep = ?1 AND outcome = ?2)",
        "DELETE FROM trials WHERE sweep = ?1 AND outcome = ?2",
    ] {
        tx.execute(change, [sweep, FAILED])?;
    }
    let (from, to) = (from_state(SweepState::Completed), from_state(SweepState::Running));
    tx.execute("UPDATE sweeps SET state = ?3 WHERE number = ?1 AND state = ?2", [sweep, from, to])?;
    Ok(keys)
}

fn fence_holds(tx: &Transaction<'_>, batch: &Batch) -> Result<bool, StoreError> {
    let mut statement = tx.prepare_cached("SELECT 1 FROM leases WHERE lease = ?1 AND epoch = ?2 AND sweep = ?3")?;
    Ok(statement.exists(params![batch.fence.lease as i64, batch.fence.epoch as i64, batch.sweep])?)
}

fn insert_trial(tx: &Transaction<'_>, sweep: i64, worker: &str, result: &TrialResult) -> Result<bool, StoreError> {
    let (outcome, step, cause) = from_outcome(&result.outcome);
    let exists = tx
        .prepare_cached("SELECT 1 FROM trials WHERE sweep = ?1 AND cell = ?2 AND repeat = ?3")?
        .exists(params![sweep, result.key.cell as i64, result.key.repeat])?;
    if exists {
        return Ok(false);
    }
    let data = from_curve(&result.curve);
    let sum = sum_of(sweep, result.key, &[&data]);
    let curve = tx.prepare_cached("INSERT INTO curves (data, sum) VALUES (?1, ?2)")?.insert(params![data, sum])?;
    let insert =
        "INSERT INTO trials (sweep, cell, repeat, outcome, step, cause, steps, seconds, worker, digest, metrics,
                                      curve, isa, weights, sum)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
    tx.prepare_cached(insert)?.execute(params![
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
        trial_sum(sweep, worker, result)
    ])?;
    if !result.predictions.steps.is_empty() {
        let data = from_predictions(&result.predictions);
        let insert = "INSERT INTO predictions (sweep, cell, repeat, data, sum) VALUES (?1, ?2, ?3, ?4, ?5)";
        tx.prepare_cached(insert)?.execute(params![
            sweep,
            result.key.cell as i64,
            result.key.repeat,
            data,
            sum_of(sweep, result.key, &[&data])
        ])?;
    }
    Ok(true)
}

/// Whether a result equals its row bit for bit, apart from when, where and with which instructions it was computed;
/// `None` when there is no row. A failure is no result of training and contradicts none.
fn compare(tx: &Transaction<'_>, sweep: i64, result: &TrialResult) -> Result<Option<bool>, StoreError> {
    let (outcome, step, cause) = from_outcome(&result.outcome);
    let predictions = (!result.predictions.steps.is_empty()).then(|| from_predictions(&result.predictions));
    let mut statement = tx.prepare_cached(
        "SELECT outcome, step, cause, steps, digest, metrics, curves.data, weights, predictions.data
         FROM trials JOIN curves USING (curve) LEFT JOIN predictions USING (sweep, cell, repeat)
         WHERE sweep = ?1 AND cell = ?2 AND repeat = ?3",
    )?;
    let same = |row: &Row<'_>| -> rusqlite::Result<bool> {
        let found = row.get::<_, i64>(0)?;
        if found == FAILED || outcome == FAILED {
            return Ok(true);
        }
        Ok(found == outcome
            && row.get::<_, Option<i64>>(1)? == step
            && row.get::<_, Option<String>>(2)?.as_deref() == cause
            && row.get::<_, i64>(3)? == result.steps as i64
            && row.get_ref(4)?.as_blob()? == result.digest
            && row.get_ref(5)?.as_blob()? == from_f64s(&result.metrics)
            && row.get_ref(6)?.as_blob()? == from_curve(&result.curve)
            && row.get_ref(7)?.as_blob_or_null()? == result.weights.as_ref().map(|hash| hash.as_slice())
            && row.get_ref(8)?.as_blob_or_null()? == predictions.as_deref())
    };
    Ok(statement.query_row(params![sweep, result.key.cell as i64, result.key.repeat], same).optional()?)
}

struct SqliteReader {
    connection: Connection,
}

impl SqliteReader {
    /// Adds what a row leaves out.
    fn complete(&self, sweep: i64, mut row: StoredTrial) -> Result<StoredTrial, StoreError> {
        let key = row.result.key;
        let sql =
            "SELECT curves.data, curves.sum, predictions.data, predictions.sum FROM trials JOIN curves USING (curve)
                   LEFT JOIN predictions USING (sweep, cell, repeat) WHERE sweep = ?1 AND cell = ?2 AND repeat = ?3";
        let mut statement = self.connection.prepare(sql)?;
        let mut found = statement.query(params![sweep, key.cell as i64, key.repeat])?;
        let Some(blobs) = found.next()? else { return Err(damage("curve", sweep, key)) };
        let curve = to_curve(blob(blobs, 0, ("curve", sweep, key))?);
        row.result.curve = curve.ok_or_else(|| damage("curve", sweep, key))?;
        if blobs.get_ref(2)? != ValueRef::Null {
            let predictions = to_predictions(blob(blobs, 2, ("predictions", sweep, key))?);
            row.result.predictions = predictions.ok_or_else(|| damage("predictions", sweep, key))?;
        }
        Ok(row)
    }
}

const TRIAL_COLUMNS: &str =
    "SELECT cell, repeat, outcome, step, cause, steps, seconds, worker, digest, metrics, isa, weights, sum
     FROM trials WHERE sweep = ?1";

impl Reader for SqliteReader {
    fn sweeps(&self) -> Result<Vec<SweepRow>, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT number, id, file, text, settings, data_hash, data_train, data_words, state, launched_at, files,
                    releases, duplicates, mismatches, fenced, sum
             FROM sweeps ORDER BY number",
        )?;
        let mut rows = statement.query([])?;
        let mut sweeps = Vec::new();
        while let Some(row) = rows.next()? {
            let sweep = to_sweep(row)?;
            if row.get::<_, Option<i64>>(15)?.is_some_and(|sum| sum != sweep_sum(&sweep)) {
                let message = format!("the stored sweep {} is damaged: go back to a copy of the store", sweep.id);
                return Err(StoreError::Failed(message));
            }
            sweeps.push(sweep);
        }
        Ok(sweeps)
    }

    fn leases(&self) -> Result<(Vec<LeaseRow>, u64), StoreError> {
        let mut statement = self
            .connection
            .prepare("SELECT lease, epoch, sweep, class, worker, trials, sum FROM leases ORDER BY lease")?;
        let mut rows = statement.query([])?;
        let mut leases = Vec::new();
        while let Some(row) = rows.next()? {
            match to_lease(row)? {
                Some(lease) => leases.push(lease),
                // Nobody can write under a lease that the core does not know; its trials are given out again.
                None => tracing::error!(lease = row.get::<_, i64>(0)?, "a stored lease is damaged, and dropped"),
            }
        }
        Ok((leases, meta(&self.connection, "next_lease")?))
    }

    fn trials(&self, sweep: i64, each: &mut dyn FnMut(StoredTrial) -> bool) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare(&format!("{TRIAL_COLUMNS} ORDER BY cell, repeat"))?;
        let mut rows = statement.query([sweep])?;
        while let Some(row) = rows.next()? {
            if !each(to_trial(row, sweep)?) {
                break;
            }
        }
        Ok(())
    }

    fn trial(&self, sweep: i64, key: TrialKey) -> Result<Option<StoredTrial>, StoreError> {
        let sql = format!("{TRIAL_COLUMNS} AND cell = ?2 AND repeat = ?3");
        let mut statement = self.connection.prepare(&sql)?;
        let mut found = statement.query(params![sweep, key.cell as i64, key.repeat])?;
        let Some(row) = found.next()? else { return Ok(None) };
        self.complete(sweep, to_trial(row, sweep)?).map(Some)
    }

    fn attempts(&self, sweep: i64, key: TrialKey) -> Result<Vec<Attempt>, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT cause, worker, seconds FROM attempts WHERE sweep = ?1 AND cell = ?2 AND repeat = ?3 ORDER BY attempt",
        )?;
        let attempt = |row: &Row<'_>| {
            let cause = row.get::<_, Option<String>>(0)?.unwrap_or_default();
            Ok(Attempt { cause, worker: row.get(1)?, seconds: row.get(2)? })
        };
        let attempts = statement.query_map(params![sweep, key.cell as i64, key.repeat], attempt)?;
        Ok(attempts.collect::<Result<_, _>>()?)
    }

    fn curves(&self, sweep: i64, each: &mut dyn FnMut(TrialKey, Curve)) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT cell, repeat, data, curves.sum FROM trials JOIN curves USING (curve)
             WHERE sweep = ?1 AND outcome = 1 ORDER BY cell, repeat",
        )?;
        let mut rows = statement.query([sweep])?;
        while let Some(row) = rows.next()? {
            let key = TrialKey { cell: row.get::<_, i64>(0)? as u64, repeat: row.get(1)? };
            let curve = to_curve(blob(row, 2, ("curve", sweep, key))?);
            each(key, curve.ok_or_else(|| damage("curve", sweep, key))?);
        }
        Ok(())
    }

    fn predictions(&self, sweep: i64, each: &mut dyn FnMut(TrialKey, Predictions) -> bool) -> Result<(), StoreError> {
        let sql = "SELECT cell, repeat, data, sum FROM predictions WHERE sweep = ?1 ORDER BY cell, repeat";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([sweep])?;
        while let Some(row) = rows.next()? {
            let key = TrialKey { cell: row.get::<_, i64>(0)? as u64, repeat: row.get(1)? };
            let predictions = to_predictions(blob(row, 2, ("predictions", sweep, key))?);
            if !each(key, predictions.ok_or_else(|| damage("predictions", sweep, key))?) {
                break;
            }
        }
        Ok(())
    }
}

fn to_sweep(row: &Row<'_>) -> rusqlite::Result<SweepRow> {
    let settings: String = row.get(4)?;
    let hash: Option<Vec<u8>> = row.get(5)?;
    Ok(SweepRow {
        number: row.get(0)?,
        id: row.get(1)?,
        source: SpecSource {
            file: row.get(2)?,
            text: row.get(3)?,
            settings: serde_json::from_str(&settings).map_err(|e| damaged(4, e.to_string()))?,
            files: to_files(row.get_ref(10)?.as_blob()?).ok_or_else(|| damaged(10, "pinned files".into()))?,
        },
        data: DataPin {
            hash: hash.map(|h| h.try_into().map_err(|_| damaged(5, "a hash of 32 bytes".into()))).transpose()?,
            train: row.get(6)?,
            words: row.get(7)?,
        },
        state: to_state(row.get(8)?).ok_or_else(|| damaged(8, "a known state".into()))?,
        launched_at: row.get(9)?,
        tallies: Tallies {
            releases: row.get::<_, i64>(11)? as u64,
            duplicates: row.get::<_, i64>(12)? as u64,
            mismatches: row.get::<_, i64>(13)? as u64,
            fenced: row.get::<_, i64>(14)? as u64,
        },
    })
}

/// A lease, or `None` where it is not what was written.
fn to_lease(row: &Row<'_>) -> rusqlite::Result<Option<LeaseRow>> {
    let fence = Fence { lease: row.get::<_, i64>(0)? as u64, epoch: row.get::<_, i64>(1)? as u64 };
    let trials = to_intervals(row.get_ref(5)?.as_blob()?);
    let Some(trials) = trials else { return Ok(None) };
    let lease = LeaseRow { fence, sweep: row.get(2)?, class: row.get(3)?, worker: row.get(4)?, trials };
    let sum = row.get::<_, Option<i64>>(6)?;
    Ok(sum.is_none_or(|sum| sum == lease_sum(&lease)).then_some(lease))
}

/// A row of a trial, which is what was written.
fn to_trial(row: &Row<'_>, sweep: i64) -> Result<StoredTrial, StoreError> {
    let trial = read_trial(row)?;
    let sum = row.get::<_, Option<i64>>(12)?;
    if sum.is_some_and(|sum| sum != trial_sum(sweep, &trial.worker, &trial.result)) {
        return Err(damage("row", sweep, trial.result.key));
    }
    Ok(trial)
}

/// The bytes in a column, which are those that were written if the sum in the next column says so.
fn blob<'a>(row: &'a Row<'_>, column: usize, of: (&str, i64, TrialKey)) -> Result<&'a [u8], StoreError> {
    let (what, sweep, key) = of;
    let bytes = row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?;
    let sum = row.get::<_, Option<i64>>(column + 1)?;
    match sum.is_none_or(|sum| sum == sum_of(sweep, key, &[bytes])) {
        true => Ok(bytes),
        false => Err(damage(what, sweep, key)),
    }
}

fn damage(what: &str, sweep: i64, key: TrialKey) -> StoreError {
    StoreError::Failed(format!(
        "the {what} of trial {key} in sweep number {sweep} is damaged: go back to a copy of the store, or delete that \
         trial's row from its table trials, and it is run again"
    ))
}

fn trial_sum(sweep: i64, worker: &str, result: &TrialResult) -> i64 {
    let (outcome, step, cause) = from_outcome(&result.outcome);
    let numbers = [outcome as u64, step.unwrap_or_default() as u64, result.steps, result.seconds.to_bits()];
    let (numbers, metrics) = (numbers.map(u64::to_le_bytes), from_f64s(&result.metrics));
    let parts: [&[u8]; 7] = [
        numbers.as_flattened(),
        cause.unwrap_or_default().as_bytes(),
        worker.as_bytes(),
        &result.digest,
        &metrics,
        result.isa.as_bytes(),
        result.weights.as_ref().map_or(&[], |hash| hash.as_slice()),
    ];
    sum_of(sweep, result.key, &parts)
}

/// Over what a sweep is; its state and what happened to it change.
fn sweep_sum(row: &SweepRow) -> i64 {
    let SpecSource { file, text, settings, files } = &row.source;
    let numbers = [row.launched_at.to_bits(), u64::from(row.data.train), settings.len() as u64];
    let files = from_files(files);
    let mut parts: Vec<&[u8]> =
        vec![row.id.as_bytes(), file.as_bytes(), text.as_bytes(), row.data.words.as_bytes(), &files];
    parts.push(row.data.hash.as_ref().map_or(&[], |hash| hash.as_slice()));
    let numbers = numbers.map(u64::to_le_bytes);
    parts.push(numbers.as_flattened());
    parts.extend(settings.iter().map(String::as_bytes));
    sum(&parts)
}

fn lease_sum(row: &LeaseRow) -> i64 {
    let numbers = [row.fence.lease, row.fence.epoch, row.sweep as u64, u64::from(row.class)].map(u64::to_le_bytes);
    sum(&[numbers.as_flattened(), row.worker.as_bytes(), &from_intervals(&row.trials)])
}

fn read_trial(row: &Row<'_>) -> rusqlite::Result<StoredTrial> {
    let outcome = to_outcome(row.get(2)?, row.get(3)?, row.get(4)?);
    let digest: Vec<u8> = row.get(8)?;
    Ok(StoredTrial {
        result: TrialResult {
            key: TrialKey { cell: row.get::<_, i64>(0)? as u64, repeat: row.get(1)? },
            outcome: outcome.ok_or_else(|| damaged(2, "a known outcome".into()))?,
            steps: row.get::<_, i64>(5)? as u64,
            seconds: row.get(6)?,
            metrics: to_f64s(row.get_ref(9)?.as_blob()?),
            digest: digest.try_into().map_err(|_| damaged(8, "a digest of 32 bytes".into()))?,
            curve: Curve::default(),
            predictions: Predictions::default(),
            weights: row.get::<_, Option<Vec<u8>>>(11)?.map(to_hash).transpose()?,
            isa: row.get(10)?,
        },
        worker: row.get(7)?,
    })
}

fn to_hash(bytes: Vec<u8>) -> rusqlite::Result<[u8; 32]> {
    bytes.try_into().map_err(|_| damaged(11, "a hash of 32 bytes".into()))
}

fn damaged(column: usize, expected: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(
        column,
        rusqlite::types::Type::Null,
        format!("expected {expected}").into(),
    )
}

fn from_state(state: SweepState) -> i64 {
    match state {
        SweepState::Running => 1,
        SweepState::Completed => 2,
        SweepState::Cancelled => 3,
        SweepState::Paused => 4,
    }
}

fn to_state(number: i64) -> Option<SweepState> {
    SweepState::ALL.into_iter().find(|s| from_state(*s) == number)
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
