//! The files of a store in a directory: the lock that keeps other coordinators out, and checks that
//! the files are still in place.
//!
//! An open file outlives its name. Data written to a file that was deleted or replaced is lost when
//! the process ends. So names are compared with the files that they meant when they were opened.

use std::fs::{DirBuilder, File, Metadata, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use crate::store::error::StoreError;

/// The identity of a file under any name: its device and inode numbers.
type FileIdentity = (u64, u64);

fn file_identity(found: &Metadata) -> FileIdentity {
    (found.dev(), found.ino())
}

/// The lock on a directory, held as long as the file is open.
#[derive(Debug)]
pub(crate) struct DirLock {
    dir: PathBuf,
    file: File,
}

impl DirLock {
    /// Locks a directory.
    ///
    /// # Errors
    /// A running coordinator has the lock, or the file cannot be written.
    pub(crate) fn acquire(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("lock");
        let failed = |e: std::io::Error| StoreError::Failed(format!("{}: {e}", path.display()));

        loop {
            let open = File::options()
                .create(true)
                .read(true)
                .write(true)
                .truncate(false)
                .open(&path);
            let mut lock = Self {
                dir: dir.to_owned(),
                file: open.map_err(failed)?,
            };
            match lock.file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(lock.holder_error().unwrap_or_else(failed));
                }
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }

            // Another process may have deleted the file between opening and locking, and the lock
            // would then protect nothing.
            if lock.is_in_place() {
                lock.write_holder().map_err(failed)?;
                return Ok(lock);
            }
        }
    }

    fn write_holder(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        write!(self.file, "{}", std::process::id())
    }

    fn holder_error(&mut self) -> std::io::Result<StoreError> {
        let mut holder = String::new();
        self.file.read_to_string(&mut holder)?;
        let dir = self.dir.display();
        Ok(StoreError::Taken(format!(
            "the store {dir} belongs to a running coordinator, process {holder}: stop that one, or use another directory"
        )))
    }

    fn is_in_place(&self) -> bool {
        let named = std::fs::metadata(self.dir.join("lock"))
            .as_ref()
            .map(file_identity)
            .ok();
        named.is_some() && named == self.file.metadata().as_ref().map(file_identity).ok()
    }

    /// Ensures that the lock still keeps others out: a deleted lock file is created again.
    ///
    /// # Errors
    /// Another coordinator has created one meanwhile.
    pub(crate) fn ensure_held(&mut self) -> Result<(), StoreError> {
        if self.is_in_place() {
            return Ok(());
        }
        *self = Self::acquire(&self.dir)?;
        tracing::warn!(dir = %self.dir.display(), "the file 'lock' of the store was deleted or replaced: it is created again");
        Ok(())
    }
}

/// The files of an open database, by name.
#[derive(Debug)]
pub(crate) struct DatabaseFiles(Vec<(PathBuf, FileIdentity)>);

impl DatabaseFiles {
    /// The files of an open database with a write-ahead log. Opens none of them, because closing
    /// any descriptor of a database drops the locks that SQLite holds on it.
    ///
    /// # Errors
    /// A file is missing.
    pub(crate) fn from_open_database(database: &Path) -> Result<Self, StoreError> {
        database_paths(database)
            .map(|path| match std::fs::metadata(&path) {
                Ok(found) => Ok((path, file_identity(&found))),
                Err(error) => Err(StoreError::Failed(format!("{}: {error}", path.display()))),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The database file alone, which exists whether it is open or not.
    pub(crate) fn database_only(&self) -> Self {
        Self(self.0.iter().take(1).cloned().collect())
    }

    /// Checks that each name still refers to the open file.
    ///
    /// # Errors
    /// A file was deleted or replaced.
    pub(crate) fn check_unchanged(&self) -> Result<(), StoreError> {
        for (path, known) in &self.0 {
            let what = match std::fs::metadata(path) {
                Ok(found) if file_identity(&found) == *known => continue,
                Ok(_) => "was replaced by another file".to_owned(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    "was deleted or moved away".to_owned()
                }
                Err(error) => format!("cannot be checked ({error})"),
            };

            return Err(StoreError::FileGone(format!(
                "{} {what} while the coordinator was running. Nothing is stored or acknowledged: put the file back, or stop \
                 the coordinator and start it on the files to keep",
                path.display()
            )));
        }

        Ok(())
    }

    /// Whether the database is in place, its log was deleted, and no other program has begun a new
    /// one.
    pub(crate) fn is_only_log_missing(&self) -> bool {
        let Some(((path, known), rest)) = self.0.split_first() else {
            return false;
        };
        let in_place = std::fs::metadata(path).is_ok_and(|found| file_identity(&found) == *known);
        in_place && rest.first().is_some_and(|(log, _)| !log.exists())
    }
}

/// The files of a database: itself, its log and the index of the log.
fn database_paths(database: &Path) -> impl Iterator<Item = PathBuf> {
    ["", "-wal", "-shm"].into_iter().map(|end| {
        let mut path = database.as_os_str().to_owned();
        path.push(end);
        PathBuf::from(path)
    })
}

/// Creates a directory with the permissions of the umask or, if private, for its owner only. Its
/// parents get the permissions of the umask.
///
/// # Errors
/// A directory cannot be created.
pub(crate) fn create_directory(dir: &Path, private: bool) -> std::io::Result<()> {
    let mode = if private { 0o700 } else { 0o777 };
    dir.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    DirBuilder::new().recursive(true).mode(mode).create(dir)
}

/// Creates a database file with the permissions of the umask or for its owner only, because SQLite
/// itself ignores the umask. SQLite gives its log the same permissions.
///
/// # Errors
/// The directory cannot be created, or should be private and belongs to another user.
pub(crate) fn create_database_file(database: &Path, private: bool) -> std::io::Result<()> {
    let mode = if private { 0o600 } else { 0o666 };
    // Creates the file only if it is missing. Opening and closing an existing one would drop
    // SQLite's locks on it.
    match File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(database)
    {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }

    for path in database_paths(database).filter(|_| private) {
        match std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }

    Ok(())
}
