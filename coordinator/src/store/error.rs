//! How a store fails.

use std::fmt;

use ergodic_common::TrialKey;

/// Why an operation of the store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another coordinator has it.
    #[error("{0}")]
    Taken(String),
    /// The file or database is not a store of this version.
    #[error("{0}")]
    Unusable(String),
    /// The disk, or the database, failed.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The database does not answer, or the connection to it broke off.
    #[error("the database does not answer: {0}")]
    Disconnected(String),
    /// A file that it is in has no name any more, or another one has its name: nothing that is written would be found again.
    #[error("{0}")]
    FileGone(String),
    /// A file that is named does not lie beside the store.
    #[error("{0}")]
    BlobMissing(String),
    /// Another coordinator leads since: this one may write nothing any more.
    #[error("{0}")]
    Deposed(String),
    /// What is stored of a trial is not what was stored.
    #[error("{0}")]
    Damaged(Box<Damage>),
}

/// What is stored of a trial, and is not what was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The sweep: its id, where it is known, else its number.
    pub sweep: String,
    /// The trial.
    pub key: TrialKey,
    /// What of it.
    pub what: &'static str,
    /// How that shows.
    pub why: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sweep,
            key,
            what,
            why,
        } = self;
        write!(
            f,
            "the store is damaged: the {what} of the trial {key} of the sweep {sweep}: {why}. Start the coordinator again \
             with `ergodic serve --verify-store`, which sets damaged rows aside and has their trials run again"
        )
    }
}

impl StoreError {
    /// Adds the file that the error is about.
    pub(crate) fn with_path(self, path: &std::path::Path) -> Self {
        match self {
            Self::Failed(why) => Self::Failed(format!("{}: {why}", path.display())),
            told => told,
        }
    }
}
