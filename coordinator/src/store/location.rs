//! The location of a store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::StoreError;
use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use super::traits::Store;

/// The location of a store, as given by `--store`.
#[derive(Clone)]
pub enum StoreLocation {
    /// A directory with a SQLite database.
    Directory(PathBuf),
    /// A PostgreSQL database, by its URL.
    Database(String),
}

impl StoreLocation {
    /// Parses a location. A URL that begins with `postgres://` or `postgresql://` is a database;
    /// everything else is a directory.
    pub fn parse(text: &Path) -> Self {
        let url = text
            .to_str()
            .filter(|text| text.starts_with("postgres://") || text.starts_with("postgresql://"));
        url.map_or_else(
            || Self::Directory(text.to_owned()),
            |url| Self::Database(url.to_owned()),
        )
    }

    /// Opens the store, and creates it if needed.
    ///
    /// # Errors
    /// The store cannot be reached or created, belongs to another user, or has a newer version.
    pub fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        self.open_with_privacy(false)
    }

    /// Opens the store. A private one in a directory is readable by its owner only.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_with_privacy(&self, private: bool) -> Result<Arc<dyn Store>, StoreError> {
        Ok(match self {
            Self::Directory(dir) => Arc::new(SqliteStore::open_with_privacy(dir, private)?),
            Self::Database(url) => Arc::new(PostgresStore::open(url)?),
        })
    }
}

/// Omits the password that a URL may contain.
impl fmt::Debug for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(dir) => f.debug_tuple("Directory").field(dir).finish(),
            Self::Database(_) => f.write_str("Database"),
        }
    }
}
