//! Errors of a store.

use std::fmt;

use ergodic_common::TrialKey;

/// The reason why an operation of the store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another coordinator uses the store.
    #[error("{0}")]
    Taken(String),
    /// The file or database is not a store of this version.
    #[error("{0}")]
    Unusable(String),
    /// There is no store at this place.
    #[error("{0}")]
    Missing(String),
    /// The disk, or the database, failed.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The database does not respond, or the connection to it broke.
    #[error("the database does not answer: {0}")]
    Disconnected(String),
    /// A file of the store was deleted or replaced, so that nothing written to it would be found
    /// again.
    #[error("{0}")]
    FileGone(String),
    /// A file that the write names is missing beside the store.
    #[error("{0}")]
    BlobMissing(String),
    /// Another coordinator leads by now, so this one must not write any more.
    #[error("{0}")]
    Deposed(String),
    /// A stored value of a trial is damaged.
    #[error("{0}")]
    Damaged(Box<Damage>),
}

/// A damaged value of a trial in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The id of the sweep, or its number if the id is unknown.
    pub sweep: String,
    /// The key of the trial.
    pub key: TrialKey,
    /// The damaged value, such as a row or a curve.
    pub what: &'static str,
    /// The evidence of the damage.
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
    /// Adds the path of the file to the message.
    pub(crate) fn with_path(self, path: &std::path::Path) -> Self {
        match self {
            Self::Failed(why) => Self::Failed(format!("{}: {why}", path.display())),
            told => told,
        }
    }
}
