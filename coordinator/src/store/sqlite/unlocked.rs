//! A database that is read without locks and without its log, because this user can create the files for neither. What is read is right
//! only as long as nobody changes the database, which each read checks.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use url::Url;

use super::database_access::LogFiles;
use crate::store::error::StoreError;

/// Opens a database without its log and without locks.
pub(super) fn open_unlocked(path: &Path) -> rusqlite::Result<Connection> {
    let absolute = std::path::absolute(path)
        .ok()
        .and_then(|path| Url::from_file_path(path).ok());
    let Some(mut url) = absolute else {
        return Err(rusqlite::Error::InvalidPath(path.to_owned()));
    };
    url.set_query(Some("immutable=1"));
    Connection::open_with_flags(
        url.as_str(),
        OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI,
    )
}

/// A database file without a log, as it was before it was opened.
#[derive(Debug)]
pub(super) struct UnchangedFile {
    path: PathBuf,
    before: Option<FileVersion>,
}

/// What changes whenever a file is written or replaced: its device, inode, bytes, and time of the last change in seconds and nanoseconds.
type FileVersion = (u64, u64, u64, i64, i64);

impl UnchangedFile {
    /// Notes how the database is now.
    pub(super) fn note(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            before: find_version(path),
        }
    }

    /// Checks that nobody has begun to write since.
    ///
    /// # Errors
    /// The database has another content, or there is a log.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let is_unchanged = self.before.is_some() && find_version(&self.path) == self.before;
        if is_unchanged && LogFiles::find(&self.path).log_bytes == 0 {
            return Ok(());
        }

        let dir = self.path.parent().unwrap_or(&self.path).display();
        Err(StoreError::Unusable(format!(
            "{dir}: somebody opened the store for writing while it was read. Who may not write there cannot hold its state of one \
             moment: read it through its coordinator with --coordinator, get permission to write to the directory, or repeat the command"
        )))
    }
}

/// The version of a file; `None` if it cannot be found.
fn find_version(path: &Path) -> Option<FileVersion> {
    let found = std::fs::metadata(path).ok()?;
    Some((
        found.dev(),
        found.ino(),
        found.len(),
        found.mtime(),
        found.mtime_nsec(),
    ))
}
