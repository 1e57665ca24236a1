//! Statistics over stored rows. They are computed from rows ordered by cell and repeat, so they do
//! not depend on the order in which results arrived.
//!
//! `table_metric` finds the metric or quantity that a query is about, and `query_rows` reads its values. [`table`] groups rows by cell and computes statistics of each group; [`ranking`] orders cells. [`compare`] tests paired
//! differences between cells, [`compare_sweeps`] those between two sweeps, [`distance`] compares their predictions, [`effects`] splits a grid into the effects of its axes,
//! [`variance`] into variance components, [`sample_size`] says how many repeats a precision takes, and [`claims`] judges what is claimed.

mod cell_condition;
pub mod cell_matching;
pub mod claims;
pub mod compare;
pub mod compare_sweeps;
pub mod distance;
pub mod effects;
mod error;
mod groups;
mod lookup;
mod pages;
#[cfg(test)]
mod program_tests;
#[cfg(test)]
mod quantity_tests;
mod query;
mod query_rows;
pub mod ranking;
mod repeat_pairing;
mod row_source;
pub mod sample_size;
mod shared_draws;
pub mod table;
mod table_metric;
#[cfg(test)]
mod tests;
mod trial_values;
pub mod variance;

pub use error::AnalysisError;
pub use lookup::CellSelector;
pub use query::{TableParams, TableQuery, Weighting};
pub use row_source::RowSource;
pub use table_metric::TableMetric;
