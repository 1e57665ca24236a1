//! Errors of queries about sweeps.

use ergodic_common::spec::measured_value::MeasuredValueError;

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

impl AnalysisError {
    /// Begins the message with the name of the sweep that it is about.
    pub(super) fn in_sweep(self, label: &str) -> Self {
        match self {
            Self::Unknown(message) => Self::Unknown(format!("{label}: {message}")),
            Self::Invalid(message) => Self::Invalid(format!("{label}: {message}")),
            error @ Self::Store(_) => error,
        }
    }
}

impl From<MeasuredValueError> for AnalysisError {
    fn from(error: MeasuredValueError) -> Self {
        match error {
            MeasuredValueError::Unknown(message) => Self::Unknown(message),
            MeasuredValueError::Invalid(message) => Self::Invalid(format!("metric: {message}")),
        }
    }
}

impl From<StatisticError> for AnalysisError {
    fn from(error: StatisticError) -> Self {
        match error {
            StatisticError::Unknown(message) => Self::Unknown(message),
            StatisticError::Invalid(message) => Self::Invalid(message),
        }
    }
}
