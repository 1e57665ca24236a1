//! The shared store: a PostgreSQL database, several coordinators, one of which leads.
//!
//! Who leads is a row with an epoch, for a time that the database's clock measures. Every transaction that writes
//! counts up in that row, where it still names the writer's epoch, and in doing so locks it: whoever was passed over
//! in the meantime, however long it slept, writes nothing. The count also tells what became of a transaction whose
//! answer got lost.
//!
//! The version of the schema stays in `meta`, where earlier programs look for it. `sqlx::migrate!` would count in a table of its own
//! besides, which had to be filled for their databases, and needs the macros of sqlx: that is more code than it spares.

mod session;
mod statements;
pub(crate) mod view;

use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ergodic_common::ids::Epoch;
use ergodic_proto::identity::host_name;
use session::PgSession;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use super::error::StoreError;
use super::reader::StoreReader;
use super::snapshot_readers::SnapshotReaders;
use super::sql::{SqlConnection, SqlRow, StoreTransaction, select_number};
use super::traits::{ReadableStore, Store, StoreWriter};
use super::types::Leader;
use super::writes::PendingWrite;

/// Migrations from each version of the schema to the next.
const MIGRATIONS: [&str; 9] = [
    include_str!("migrations/0001_initial.sql"),
    include_str!("migrations/0002_checksums.sql"),
    include_str!("migrations/0003_removals.sql"),
    include_str!("migrations/0004_audits.sql"),
    include_str!("migrations/0005_launched_by.sql"),
    include_str!("migrations/0006_grammar.sql"),
    include_str!("migrations/0007_twins.sql"),
    include_str!("migrations/0008_outputs.sql"),
    include_str!("migrations/0009_seals.sql"),
];
/// The version of the schema that this program writes.
pub(crate) const SCHEMA_VERSION: usize = MIGRATIONS.len();
/// Takes a lock for checking and changing the schema.
const SCHEMA_LOCK: &str = "SELECT pg_advisory_xact_lock(7310020260001)";
/// Parameters that a URL may have.
const URL_PARAMETERS: [&str; 11] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "options",
];
/// Time for which a new write waits for an unavailable database.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before the next attempt.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Time for which a claim to lead lasts; the statements below contain it too.
const LEADERSHIP_TTL: Duration = Duration::from_secs(6);
/// Time limit for renewing the claim, shorter than the claim lasts.
const LEADERSHIP_TIMEOUT: Duration = Duration::from_secs(3);

/// A PostgreSQL database, by its connection options.
pub struct PostgresStore {
    options: PgConnectOptions,
    /// Whether the schema is known to have this version.
    has_tables: Mutex<bool>,
    /// The session for the claim to lead.
    leadership_session: Mutex<Option<PgSession>>,
}

impl PostgresStore {
    /// Connects to the database at `url`, and creates or migrates the schema. If the database does
    /// not respond, that happens once it does.
    ///
    /// # Errors
    /// The URL is invalid or can never be reached, or the database has a newer version.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let options = parse_url(url)?;
        let place = describe_database(&options);
        let may_come = options.get_socket().is_none_or(|folder| folder.is_dir());
        let store = Self {
            options,
            has_tables: Mutex::new(false),
            leadership_session: Mutex::new(None),
        };
        match store.ensure_tables() {
            Err(StoreError::Disconnected(why)) if may_come => {
                tracing::warn!("{place} does not answer ({why}): waiting for it");
            }
            Err(e @ StoreError::Unusable(_)) => return Err(e),
            Err(e) => {
                let message = format!(
                    "{place}: cannot be used as a store ({e}): check --store and the database"
                );
                return Err(StoreError::Unusable(message));
            }
            Ok(()) => {}
        }

        Ok(store)
    }

    fn ensure_tables(&self) -> Result<(), StoreError> {
        let mut made = self
            .has_tables
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !*made {
            let session = PgSession::open(&self.options.clone().application_name("ergodic"))?;
            migrate_schema(&session, &describe_database(&self.options))?;
            *made = true;
        }

        Ok(())
    }

    fn open_session(&self, name: &str) -> Result<PgSession, StoreError> {
        self.ensure_tables()?;
        PgSession::open(&self.options.clone().application_name(name))
    }

    /// Calls `work` with the session for claims, which is replaced after a failure.
    fn with_leadership_session<T>(
        &self,
        work: impl FnOnce(&PgSession) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut open_session = self
            .leadership_session
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let session = match open_session.take() {
            Some(session) => session,
            None => {
                let session = self
                    .open_session("ergodic claim")?
                    .with_answer_timeout(LEADERSHIP_TIMEOUT);
                session.run_statements("SET lock_timeout = '2s'")?;
                session
            }
        };
        let result = work(&session)?;

        *open_session = Some(session);
        Ok(result)
    }
}

/// An error about a URL, which it does not quote, because of the password.
fn bad_url_error(why: &str) -> StoreError {
    StoreError::Unusable(format!(
        "--store: {why}: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE, or postgres:///DATABASE?host=/DIRECTORY \
         of a socket"
    ))
}

fn parse_url(url: &str) -> Result<PgConnectOptions, StoreError> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let names = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split('=').next().unwrap_or_default());
    for name in names {
        if !URL_PARAMETERS.contains(&name) && !name.starts_with("options[") {
            return Err(bad_url_error(&format!(
                "the database's URL has no parameter '{name}'"
            )));
        }
    }

    let options = PgConnectOptions::from_str(url)
        .map_err(|_| bad_url_error("this is not the URL of a database"))?;
    Ok(options.disable_statement_logging())
}

/// Describes the location of a database, without the password.
fn describe_database(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    match options.get_socket() {
        Some(socket) => format!("the database {database} at {}", socket.display()),
        None => format!(
            "the database {database} at {}:{}",
            options.get_host(),
            options.get_port()
        ),
    }
}

fn migrate_schema(session: &PgSession, place: &str) -> Result<(), StoreError> {
    session.run_statements("BEGIN")?;
    session.run_statements(SCHEMA_LOCK)?;
    let there = select_number(
        session,
        "SELECT (to_regclass('meta') IS NOT NULL)::int::bigint",
        &[],
    )?;
    let version = match there {
        Some(1) => select_number(session, "SELECT value FROM meta WHERE key = 'schema'", &[])?
            .unwrap_or(-1),
        _ => 0,
    };

    let known = MIGRATIONS.len();
    let Some(missing) = usize::try_from(version)
        .ok()
        .and_then(|version| MIGRATIONS.get(version..))
    else {
        return Err(StoreError::Unusable(format!(
            "{place} has schema version {version}, this program knows up to {known}: use a newer ergodic"
        )));
    };
    missing
        .iter()
        .try_for_each(|migration| session.run_statements(migration))?;

    session.execute_statement(
        "UPDATE meta SET value = $1 WHERE key = 'schema'",
        &[(known as i64).into()],
    )?;
    session.run_statements("COMMIT")
}

impl Store for PostgresStore {
    fn acquire_leadership(&self, url: &str) -> Result<Leader, StoreError> {
        self.with_leadership_session(|session| {
            let (leader, is_over) = read_leader(session)?;
            if !is_over {
                return Ok(leader);
            }

            let before = leader.epoch.into();
            // Otherwise a transaction that the former leader left half sent would block this update
            // on the leader's row.
            terminate_writer_sessions(session, leader.epoch);
            let text = "WITH taken AS (
                            UPDATE leader SET epoch = epoch + 1, commits = 0, holder = $1, url = $2
                            WHERE epoch = $3 AND EXISTS (SELECT 1 FROM term WHERE expires_at <= clock_timestamp())
                            RETURNING epoch)
                        UPDATE term SET epoch = taken.epoch, expires_at = clock_timestamp() + interval '6 seconds'
                        FROM taken";
            let claimed = session.execute_statement(text, &[describe_process().as_str().into(), url.into(), before])?;

            Ok(if claimed == 1 {
                Leader { epoch: Epoch(leader.epoch.0 + 1), url: url.to_owned(), is_this: true }
            } else {
                leader
            })
        })
    }

    fn leadership_ttl(&self) -> Option<Duration> {
        Some(LEADERSHIP_TTL)
    }

    fn renew_leadership(&self, epoch: Epoch) -> Result<bool, StoreError> {
        let text = "UPDATE term SET expires_at = clock_timestamp() + interval '6 seconds' WHERE epoch = $1";
        self.with_leadership_session(|session| {
            Ok(session.execute_statement(text, &[epoch.into()])? == 1)
        })
    }

    fn resign_leadership(&self, epoch: Epoch) {
        let text = "UPDATE term SET expires_at = '-infinity' WHERE epoch = $1";
        if let Err(error) =
            self.with_leadership_session(|session| session.execute_statement(text, &[epoch.into()]))
        {
            tracing::warn!(%error, "could not record that this coordinator no longer leads");
        }
    }

    fn open_writer(&self, epoch: Epoch) -> Result<Box<dyn StoreWriter>, StoreError> {
        let options = self
            .options
            .clone()
            .application_name(&writer_application_name(epoch));
        let mut writer = PostgresWriter {
            options,
            epoch,
            commits: 0,
            session: None,
        };
        let (leader, _) = read_leader(writer.ensure_session()?)?;
        if leader.epoch != epoch {
            return Err(deposed_error(&leader));
        }

        Ok(Box::new(writer))
    }
}

impl ReadableStore for PostgresStore {
    fn open_reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        let session = self.open_session("ergodic reader")?;
        session.run_statements("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        Ok(Box::new(session))
    }

    /// Opens one reader only, because the connections of a database are few and shared by several
    /// programs.
    fn open_readers(&self, _most: usize) -> Result<SnapshotReaders, StoreError> {
        Ok(SnapshotReaders::new(vec![self.open_reader()?]))
    }
}

/// Reads the leader, and whether its claim has ended.
fn read_leader(session: &PgSession) -> Result<(Leader, bool), StoreError> {
    let text = "SELECT leader.epoch, url, (expires_at <= clock_timestamp())::int::bigint FROM leader, term";
    let mut found = None;
    session.select_rows(text, &[], &mut |row: &dyn SqlRow| {
        let leader = Leader {
            epoch: Epoch(row.get_int(0)? as u64),
            url: row.get_text(1)?.to_owned(),
            is_this: false,
        };
        found = Some((leader, row.get_int(2)? == 1));

        Ok(true)
    })?;

    found.ok_or_else(|| StoreError::Failed("the row of the leader is missing".into()))
}

fn writer_application_name(epoch: Epoch) -> String {
    format!("ergodic leader {epoch}")
}

/// Terminates the writing sessions of an epoch's leader.
fn terminate_writer_sessions(session: &PgSession, epoch: Epoch) {
    let text = "SELECT pg_terminate_backend(pid)::int::bigint FROM pg_stat_activity
                WHERE application_name = $1 AND datname = current_database()";
    if let Err(error) = select_number(
        session,
        text,
        &[writer_application_name(epoch).as_str().into()],
    ) {
        tracing::warn!(%error, "the connections of the previous leader could not be closed");
    }
}

fn deposed_error(leader: &Leader) -> StoreError {
    StoreError::Deposed(format!(
        "the coordinator at {} leads now, in epoch {}",
        leader.url, leader.epoch
    ))
}

/// Describes this machine and process for people.
fn describe_process() -> String {
    format!("process {} on {}", std::process::id(), host_name())
}

struct PostgresWriter {
    options: PgConnectOptions,
    epoch: Epoch,
    /// Number of this epoch's transactions that are known to be durable.
    commits: i64,
    /// The session, until an error closes it.
    session: Option<PgSession>,
}

impl StoreWriter for PostgresWriter {
    fn commit_writes(&mut self, writes: &mut [&mut dyn PendingWrite]) -> Result<(), StoreError> {
        let begun = Instant::now();
        let mut unanswered = false;

        loop {
            let error = match self.try_commit(writes, &mut unanswered) {
                Err(error @ StoreError::Disconnected(_)) => error,
                Err(error @ StoreError::Failed(_)) if unanswered => error,
                Err(error) => {
                    // The error may have left the connection inside a transaction, so the next
                    // write opens another one.
                    self.session = None;
                    return Err(error);
                }
                written => return written,
            };

            self.session = None;
            // An unconfirmed COMMIT is retried without a limit: nothing else may be written before
            // its outcome is known.
            if !unanswered && begun.elapsed() > RECONNECT_TIMEOUT {
                return Err(error);
            }

            tracing::warn!(%error, unanswered, "trying a write again");
            std::thread::sleep(RETRY_DELAY);
        }
    }
}

impl PostgresWriter {
    fn ensure_session(&mut self) -> Result<&PgSession, StoreError> {
        if self.session.is_none() {
            let session = PgSession::open(&self.options)?;
            // Acknowledged rows must survive a crash, whatever the database's default. Stricter
            // settings stay.
            session.run_statements("SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'")?;
            self.session = Some(session);
        }
        Ok(self.session.as_ref().expect("it was opened just now"))
    }

    /// Runs one transaction. `unanswered` says whether the COMMIT of the one before was sent and not confirmed, and then whether
    /// that of this one was.
    fn try_commit(
        &mut self,
        writes: &mut [&mut dyn PendingWrite],
        unanswered: &mut bool,
    ) -> Result<(), StoreError> {
        let epoch = self.epoch;
        let next = self.commits + 1;
        let session = self.ensure_session()?;
        session.run_statements("BEGIN")?;

        if !advance_commit_count(session, epoch, next)? {
            let (leader, _) = read_leader(session)?;
            session.run_statements("ROLLBACK")?;
            let was_unanswered = std::mem::take(unanswered);
            if !was_unanswered || leader.epoch != epoch {
                return Err(deposed_error(&leader));
            }

            // The one without an answer has counted up: it was committed, and the outputs are of it.
            self.commits = next;
            return Ok(());
        }

        // Taking the lock on the leader's row shows that the unconfirmed transaction is gone: it
        // did not commit, and never will.
        *unanswered = false;
        let transaction = StoreTransaction::new(session);
        let applied = writes
            .iter_mut()
            .try_for_each(|write| write.apply(&transaction));
        if let Err(error) = applied {
            let _ = session.run_statements("ROLLBACK");
            return Err(error);
        }

        if let Err(error) = session.run_statements("COMMIT") {
            *unanswered = true;
            return Err(StoreError::Disconnected(error.to_string()));
        }

        self.commits = next;
        Ok(())
    }
}

/// Increments the counter in the leader's row, if the row has this epoch and the count that this
/// writer knows. Returns whether it did.
fn advance_commit_count(
    session: &PgSession,
    epoch: Epoch,
    commits: i64,
) -> Result<bool, StoreError> {
    let text = "UPDATE leader SET commits = $1 WHERE epoch = $2 AND commits = $1 - 1";
    Ok(session.execute_statement(text, &[commits.into(), epoch.into()])? == 1)
}
