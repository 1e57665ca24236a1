//! Why a trial of an experiment ends before its end.

use std::fmt::Display;

/// Why a trial ends before its end. Every error that can be shown becomes [`TrialError::Failed`] with `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrialError {
    /// A metric is not finite, or the experiment said so: a result like any other.
    Diverged,
    /// The trial must stop, and is run again later: the worker leaves, or the sweep was cancelled.
    Stopped,
    /// The trial exceeded the time limit of its sweep.
    TimedOut,
    /// The trial failed.
    Failed(String),
}

impl<E: std::error::Error> From<E> for TrialError {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

impl TrialError {
    /// A failure with this message.
    pub fn failed(why: impl Display) -> Self {
        Self::Failed(why.to_string())
    }
}
