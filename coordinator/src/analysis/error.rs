//! Errors of queries about sweeps.

use crate::estimators::statistic::StatisticError;
use crate::store::StoreError;

/// The reason why a query has no answer, with a message for the user.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// There is no such axis, metric, statistic or step.
    #[error("{0}")]
    Unknown(String),
    /// The query asks for something impossible.
    #[error("{0}")]
    Invalid(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<StatisticError> for AnalysisError {
    fn from(error: StatisticError) -> Self {
        match error {
            StatisticError::Unknown(message) => Self::Unknown(message),
            StatisticError::Invalid(message) => Self::Invalid(message),
        }
    }
}
