//! How a database is opened by those who only read it, which depends on what they may write and on the files beside it.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// The files of a database's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogFiles {
    /// Bytes of the log; 0 if there is none.
    pub(super) log_bytes: u64,
    /// Whether the index of the log is there, as it is while a coordinator runs.
    pub(super) has_index: bool,
}

impl LogFiles {
    /// Finds what there is beside a database.
    pub(super) fn find(database: &Path) -> Self {
        let sibling = |end: &str| {
            let mut path = database.as_os_str().to_owned();
            path.push(end);
            PathBuf::from(path)
        };
        Self {
            log_bytes: std::fs::metadata(sibling("-wal")).map_or(0, |found| found.len()),
            has_index: sibling("-shm").exists(),
        }
    }
}

/// How SQLite opens a database that is only read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DatabaseAccess {
    /// As any reader. SQLite may create the log's files, and removes them again.
    Shared,
    /// With the log's files as they are: files that this user created could not be written by the store's owner.
    ReadOnly,
    /// As a file that nobody changes, because there is no log and none can be created: what is read counts only if that was so.
    Unchanging,
}

/// How this user opens a database now.
pub(super) fn choose_access(database: &Path) -> DatabaseAccess {
    let may_write = is_writable(database) && database.parent().is_some_and(is_writable);
    choose_access_with(may_write, &LogFiles::find(database))
}

fn choose_access_with(may_write: bool, log: &LogFiles) -> DatabaseAccess {
    match may_write {
        true => DatabaseAccess::Shared,
        false if log.has_index || log.log_bytes > 0 => DatabaseAccess::ReadOnly,
        false => DatabaseAccess::Unchanging,
    }
}

/// Whether this user may write a file, or create files in a directory.
fn is_writable(path: &Path) -> bool {
    access(path, Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_may_not_be_written_is_read_with_its_log_or_without_one() {
        let none = LogFiles {
            log_bytes: 0,
            has_index: false,
        };
        let in_use = LogFiles {
            has_index: true,
            ..none
        };
        let left = LogFiles {
            log_bytes: 32,
            ..none
        };
        assert_eq!(choose_access_with(true, &none), DatabaseAccess::Shared);
        assert_eq!(choose_access_with(false, &none), DatabaseAccess::Unchanging);
        assert_eq!(choose_access_with(false, &in_use), DatabaseAccess::ReadOnly);
        assert_eq!(choose_access_with(false, &left), DatabaseAccess::ReadOnly);
    }
}
