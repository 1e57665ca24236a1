//! Why a question about a sweep has no answer.

use crate::estimators::statistic::StatisticError;
use crate::store::StoreError;

/// Why a question has no answer, in words for users; or the store failed.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// There is no such axis, metric, statistic or step.
    #[error("{0}")]
    Unknown(String),
    /// The question asks for something impossible.
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
