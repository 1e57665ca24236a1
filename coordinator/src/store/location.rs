//! The location of a store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::Url;

use super::error::StoreError;
use super::postgres::PostgresStore;
use super::postgres::view::PostgresView;
use super::sqlite::SqliteStore;
use super::sqlite::view::SqliteView;
use super::traits::{ReadableStore, Store};

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

    /// Refuses a URL where a directory is expected, because a directory of that name would be created. `databases` says whether a
    /// database can be named here.
    ///
    /// # Errors
    /// The text is the URL of something else.
    pub fn refuse_other_url(text: &Path, databases: bool) -> Result<(), StoreError> {
        let Some((scheme, _)) = text.to_str().and_then(|text| text.split_once("://")) else {
            return Ok(());
        };
        let is_database = matches!(scheme, "postgres" | "postgresql");
        if is_database && databases {
            return Ok(());
        }

        let expected = match (scheme, databases) {
            ("http" | "https", _) => {
                "a coordinator is named by --coordinator; here a directory is expected"
            }
            (_, true) => {
                "expected a directory, or the URL of a database that begins with postgres://"
            }
            (_, false) => "expected a directory",
        };
        Err(StoreError::Unusable(format!(
            "--store {scheme}://…: {expected}"
        )))
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

    /// Opens the store for reading only, beside whoever has it open. Creates and changes nothing.
    ///
    /// # Errors
    /// There is no store, it cannot be read, or it is of another version.
    pub fn open_view(&self) -> Result<Arc<dyn ReadableStore>, StoreError> {
        Ok(match self {
            Self::Directory(dir) => Arc::new(SqliteView::open(dir)?),
            Self::Database(url) => Arc::new(PostgresView::open(url)?),
        })
    }

    /// Describes the location for people: an absolute path, or a URL without password and parameters.
    pub fn describe(&self) -> String {
        match self {
            Self::Directory(dir) => std::path::absolute(dir)
                .unwrap_or_else(|_| dir.clone())
                .display()
                .to_string(),
            Self::Database(url) => describe_database_url(url),
        }
    }
}

/// A URL without what may be secret: a parameter may be the password too.
fn describe_database_url(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else {
        return "a PostgreSQL database".to_owned();
    };
    let host = url
        .query_pairs()
        .find(|(name, _)| name == "host")
        .map(|(_, host)| format!("?host={host}"));
    url.set_query(None);
    let _ = url.set_password(None);
    format!("{url}{}", host.unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use crate::store::location::*;

    #[test]
    fn a_described_location_has_no_password() {
        for (url, described) in [
            (
                "postgres://anna:secret@db:5432/lab",
                "postgres://anna@db:5432/lab",
            ),
            (
                "postgresql:///lab?host=/run/pg&password=secret",
                "postgresql:///lab?host=/run/pg",
            ),
            ("postgres://[secret", "a PostgreSQL database"),
        ] {
            let location = StoreLocation::parse(Path::new(url));
            assert_eq!(location.describe(), described);
        }

        let location = StoreLocation::parse(Path::new("runs/lr"));
        assert!(Path::new(&location.describe()).is_absolute());
    }
}
