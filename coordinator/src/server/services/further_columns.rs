//! Final values of metrics and quantities, as further columns of the rows of trials.

use std::iter::Peekable;
use std::vec::IntoIter;

use ergodic_common::metric::MAX_METRICS;
use ergodic_common::{ErrorCode, Spec, TrialKey};
use ergodic_proto::status::UserError;

use crate::analysis::{AnalysisError, RowSource, TableParams, TableQuery};
use crate::server::services::row_readers::table_error;

/// Approximate bytes of a value, with the key of its trial.
const VALUE_BYTES: u64 = 24;

/// The columns that a request names, without those that the sweep has.
pub(crate) struct FurtherColumns(Vec<TableQuery>);

/// The values of further columns, which are taken trial by trial.
pub(crate) struct FurtherValues(Vec<Peekable<IntoIter<(TrialKey, f64)>>>);

impl FurtherColumns {
    /// Finds the metrics or quantities with these names.
    ///
    /// # Errors
    /// There is no such one, or there are too many.
    pub(crate) fn find(spec: &Spec, names: &[String]) -> Result<Self, UserError> {
        if names.len() > MAX_METRICS {
            let message = format!(
                "metric: {} columns are named; at most {MAX_METRICS} are possible",
                names.len()
            );
            return Err(UserError::new(ErrorCode::BadInput, message));
        }

        let mut columns: Vec<TableQuery> = Vec::new();
        for name in names {
            let params = TableParams {
                metric: name,
                ..TableParams::default()
            };
            let query = TableQuery::new(spec, &params).map_err(table_error)?;
            let is_known = columns
                .iter()
                .any(|column| column.metric() == query.metric());
            if query.metric().stored().is_none() && !is_known {
                columns.push(query);
            }
        }

        Ok(Self(columns))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the columns.
    pub(crate) fn names(&self) -> Vec<String> {
        let columns = self.0.iter();
        columns
            .map(|query| query.metric().name().into_owned())
            .collect()
    }

    /// Approximate bytes of the values of some trials.
    pub(crate) fn estimate_bytes(&self, trials: u64) -> u64 {
        trials.saturating_mul(VALUE_BYTES * self.0.len() as u64)
    }

    /// Reads the values of all completed trials.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) fn read_values(&self, rows: RowSource<'_>) -> Result<FurtherValues, AnalysisError> {
        let mut values = Vec::with_capacity(self.0.len());
        for query in &self.0 {
            values.push(query.read_final_values(rows)?.into_iter().peekable());
        }
        Ok(FurtherValues(values))
    }
}

impl FurtherValues {
    /// The values of no columns.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// The values of a trial, one per column; NaN if it has none. Trials are asked for in the order of their keys.
    pub(crate) fn take_values(&mut self, key: TrialKey) -> impl Iterator<Item = f64> {
        self.0.iter_mut().map(move |column| {
            while column.next_if(|(known, _)| *known < key).is_some() {}
            let found = column.next_if(|(known, _)| *known == key);
            found.map_or(f64::NAN, |(_, value)| value)
        })
    }
}
