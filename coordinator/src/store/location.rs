//! Which store is meant.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::StoreError;
use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use super::traits::Store;

/// Where a store is, as said with `--store`.
#[derive(Clone)]
pub enum StoreLocation {
    /// A directory, with SQLite in it.
    Directory(PathBuf),
    /// A PostgreSQL database, by its URL.
    Database(String),
}

impl StoreLocation {
    /// A URL that begins with `postgres://` or `postgresql://` is a database, everything else a directory.
    pub fn parse(text: &Path) -> Self {
        let url = text
            .to_str()
            .filter(|text| text.starts_with("postgres://") || text.starts_with("postgresql://"));
        url.map_or_else(
            || Self::Directory(text.to_owned()),
            |url| Self::Database(url.to_owned()),
        )
    }

    /// Opens the store, making it if need be.
    ///
    /// # Errors
    /// The store cannot be reached or made, belongs to another user, or is of a newer version.
    pub fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        self.open_with_privacy(false)
    }

    /// Opens the store; if it is a file and is to be private, only its owner may read it.
    ///
    /// # Errors
    /// As for any other.
    pub fn open_with_privacy(&self, private: bool) -> Result<Arc<dyn Store>, StoreError> {
        Ok(match self {
            Self::Directory(dir) => Arc::new(SqliteStore::open_with_privacy(dir, private)?),
            Self::Database(url) => Arc::new(PostgresStore::open(url)?),
        })
    }
}

/// Without the password that a URL may have.
impl fmt::Debug for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(dir) => f.debug_tuple("Directory").field(dir).finish(),
            Self::Database(_) => f.write_str("Database"),
        }
    }
}
