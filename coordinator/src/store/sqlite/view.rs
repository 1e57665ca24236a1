//! A store in a directory that is only read, beside the coordinator or `ergodic run` that may have it open.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::view_connection::ViewConnection;
use super::{DATABASE_FILE, MIGRATIONS};
use crate::store::error::StoreError;
use crate::store::reader::StoreReader;
use crate::store::snapshot_readers::SnapshotReaders;
use crate::store::traits::ReadableStore;

/// How often readers are opened again until no commit falls between their first reads.
const SNAPSHOT_ATTEMPTS: usize = 10;
/// Most stores in a directory that an error lists.
const MAX_LISTED_STORES: usize = 8;

/// A directory with a database that is neither locked, migrated nor written.
pub(crate) struct SqliteView {
    path: PathBuf,
}

impl SqliteView {
    /// Opens the store in `dir`, which must be there.
    ///
    /// # Errors
    /// There is no store, it cannot be read, or it is of another version.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(DATABASE_FILE);
        let unreadable = |e: io::Error| StoreError::Unusable(describe_unreadable(&path, &e));
        if !find_database(dir).map_err(unreadable)? {
            return Err(StoreError::Missing(describe_missing_store(dir)));
        }
        // Asked for without opening the file, because closing it would drop SQLite's locks on it.
        access(&path, Access::READ_OK).map_err(|e| unreadable(e.into()))?;

        let view = Self { path };
        view.check_schema().map_err(|error| match error {
            StoreError::Failed(why) => StoreError::Unusable(format!(
                "{}: cannot be read as a store ({why})",
                view.path.display()
            )),
            told => told,
        })?;
        Ok(view)
    }

    fn check_schema(&self) -> Result<(), StoreError> {
        let version = ViewConnection::open(&self.path)?.read_schema_version()?;
        let place = self.path.parent().unwrap_or(&self.path).display();
        check_schema_version(&place.to_string(), version, MIGRATIONS.len())
    }
}

impl ReadableStore for SqliteView {
    fn open_reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        let connection = ViewConnection::open(&self.path)?;
        connection.begin_snapshot()?;
        Ok(Box::new(connection))
    }

    /// Opens readers of the same moment. The coordinator, another process, cannot be held back meanwhile, so they are opened again if
    /// it committed between their first reads; one reader alone always sees one moment.
    fn open_readers(&self, most: usize) -> Result<SnapshotReaders, StoreError> {
        let watcher = ViewConnection::open(&self.path)?;
        let readers = (0..most.max(1))
            .map(|_| ViewConnection::open(&self.path))
            .collect::<Result<Vec<_>, _>>()?;

        for _ in 0..SNAPSHOT_ATTEMPTS {
            let before = watcher.read_data_version()?;
            readers
                .iter()
                .try_for_each(ViewConnection::begin_snapshot)?;
            if watcher.read_data_version()? == before {
                return Ok(into_snapshot_readers(readers));
            }

            readers.iter().try_for_each(ViewConnection::end_snapshot)?;
        }

        let first = readers.into_iter().take(1).collect::<Vec<_>>();
        first.iter().try_for_each(ViewConnection::begin_snapshot)?;
        Ok(into_snapshot_readers(first))
    }
}

fn into_snapshot_readers(readers: Vec<ViewConnection>) -> SnapshotReaders {
    let readers = readers.into_iter();
    SnapshotReaders::new(
        readers
            .map(|reader| Box::new(reader) as Box<dyn StoreReader>)
            .collect(),
    )
}

/// Checks that the rows of a store mean what this program's statements take them for.
///
/// # Errors
/// The schema has another version than the latest one, `known`.
pub(in crate::store) fn check_schema_version(
    place: &str,
    version: i64,
    known: usize,
) -> Result<(), StoreError> {
    let why = match version {
        0 => "this is no store of ergodic".to_owned(),
        version if version == known as i64 => return Ok(()),
        version if version > known as i64 => format!(
            "the store has schema version {version}, this program knows up to {known}: use a newer ergodic"
        ),
        version => format!(
            "the store has schema version {version}, which an earlier ergodic wrote (`ergodic --version` prints the version of each), \
             and this one reads version {known}. Reading changes no store: start `ergodic serve` or `ergodic run` of this version on \
             it once, or on a copy of it, which brings it to version {known}. Earlier ones cannot open it after that"
        ),
    };
    Err(StoreError::Unusable(format!("{place}: {why}")))
}

/// Says why a file that is there cannot be read.
fn describe_unreadable(path: &Path, error: &io::Error) -> String {
    let place = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "{place}: permission denied: this user may not read the store there; its owner may, or can allow it"
        ),
        _ => format!("{place}: cannot be read ({error})"),
    }
}

/// Says that a file was named where a directory is expected; `None` if the path is none.
pub(super) fn describe_file_for_store(path: &Path) -> Option<String> {
    if !path.is_file() {
        return None;
    }

    let place = path.display();
    let is_database = path.file_name().is_some_and(|name| name == DATABASE_FILE);
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    Some(match is_database {
        true => format!(
            "{place} is a file of a store: name its directory, --store {}",
            folder.unwrap_or(Path::new(".")).display()
        ),
        false => format!(
            "{place} is a file: --store expects the directory of a store, or the URL of a PostgreSQL database"
        ),
    })
}

/// Says why there is no store in `dir`, and names those that are near.
fn describe_missing_store(dir: &Path) -> String {
    if let Some(file) = describe_file_for_store(dir) {
        return file;
    }
    let place = dir.display();
    if !dir.is_dir() {
        return format!("there is no store {place}: there is no such directory");
    }

    let stores = list_stores(dir);
    let named: Vec<String> = stores
        .iter()
        .take(MAX_LISTED_STORES)
        .map(|store| store.display().to_string())
        .collect();
    let inside = match named.len() {
        0 => String::new(),
        shown if shown < stores.len() => format!("; below it are {}, …", named.join(", ")),
        _ => format!("; below it are {}", named.join(", ")),
    };
    format!("there is no store in {place}: it has no file {DATABASE_FILE}{inside}")
}

/// Whether there is a store in a directory. One that cannot be looked into counts, so that opening it tells why.
pub(crate) fn is_store(dir: &Path) -> bool {
    !matches!(find_database(dir), Ok(false))
}

/// Whether the database file of a store is in a directory.
///
/// # Errors
/// The directory cannot be looked into.
fn find_database(dir: &Path) -> io::Result<bool> {
    interpret_lookup(std::fs::metadata(dir.join(DATABASE_FILE)))
}

fn interpret_lookup(found: io::Result<Metadata>) -> io::Result<bool> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match found {
        Ok(metadata) => Ok(metadata.is_file()),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The stores in the directories directly below `dir`, by name.
pub(crate) fn list_stores(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| find_database(path).unwrap_or(false))
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use ergodic_common::ids::Epoch;

    use crate::store::Store as _;
    use crate::store::sqlite::SqliteStore;
    use crate::store::sqlite::view::*;

    fn database(dir: &Path) -> PathBuf {
        dir.join(DATABASE_FILE)
    }

    #[test]
    fn a_missing_store_is_not_created_and_those_nearby_are_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let typo = dir.path().join("tpyo");
        let error = SqliteView::open(&typo).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("no such directory")));
        assert!(!typo.exists());

        let store = dir.path().join("there");
        drop(SqliteStore::open(&store).expect("a store"));
        let error = SqliteView::open(dir.path()).err().map(|e| e.to_string());
        assert!(error.is_some_and(|error| error.ends_with(&format!("are {}", store.display()))));

        let file = database(&store);
        let error = SqliteView::open(&file).err().map(|e| e.to_string());
        let named = format!("name its directory, --store {}", store.display());
        assert!(error.is_some_and(|error| error.contains(&named)));

        let other = dir.path().join("notes.txt");
        std::fs::write(&other, "").expect("a file");
        let error = SqliteView::open(&other).err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("is a file: --store expects the directory")));
        let error = SqliteStore::open(&other).err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("is a file: --store expects the directory")));
    }

    #[test]
    fn a_store_that_may_not_be_read_is_not_missing() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(interpret_lookup(Err(denied())).is_err());
        let missing = Err(io::Error::from(io::ErrorKind::NotFound));
        assert!(matches!(interpret_lookup(missing), Ok(false)));
        assert!(
            describe_unreadable(Path::new("/data/lab/ergodic.db"), &denied())
                .starts_with("/data/lab/ergodic.db: permission denied")
        );
    }

    #[test]
    fn reading_beside_a_coordinator_changes_nothing_and_leaves_no_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let files = |dir: &Path| {
            let mut names: Vec<_> = std::fs::read_dir(dir)
                .expect("a directory")
                .flatten()
                .map(|entry| entry.file_name())
                .collect();
            names.sort_unstable();
            names
        };
        let store = SqliteStore::open(dir.path()).expect("a store");
        let epoch = store.acquire_leadership("").expect("it leads").epoch;
        let writer = store.open_writer(epoch).expect("a writer");
        let view = SqliteView::open(dir.path()).expect("a view");
        let readers = view.open_readers(4).expect("readers");
        assert_eq!(readers.0.len(), 4);
        assert!(store.renew_leadership(epoch).expect("it is asked"));
        drop((readers, writer, store));

        let before = files(dir.path());
        let bytes = std::fs::read(database(dir.path())).expect("bytes");
        let sweeps = view.open_reader().expect("a reader").read_sweeps();
        assert!(sweeps.expect("read").is_empty());
        assert_eq!(
            (before, bytes),
            (
                files(dir.path()),
                std::fs::read(database(dir.path())).expect("bytes")
            )
        );
        assert!(epoch > Epoch(0));
    }

    #[test]
    fn a_store_of_another_version_is_left_as_it_is() {
        let known = MIGRATIONS.len();
        assert!(check_schema_version("s", known as i64, known).is_ok());
        for (version, words) in [
            (0, "no store of ergodic"),
            (known as i64 + 1, "use a newer ergodic"),
            (
                known as i64 - 1,
                "start `ergodic serve` or `ergodic run` of this version",
            ),
        ] {
            let error = check_schema_version("s", version, known)
                .err()
                .map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.contains(words)), "{words}");
        }
    }
}
