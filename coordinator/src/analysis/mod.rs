//! Statistics over stored rows. They are computed from rows ordered by cell and repeat, so they do
//! not depend on the order in which results arrived.
//!
//! [`table`] groups rows by cell and computes statistics of each group; [`ranking`] orders cells. [`compare`] tests paired
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
mod query;
pub mod ranking;
mod repeat_pairing;
mod row_source;
pub mod sample_size;
mod shared_draws;
pub mod table;
#[cfg(test)]
mod tests;
mod trial_values;
pub mod variance;

pub use error::AnalysisError;
pub use lookup::CellSelector;
pub use query::{TableParams, TableQuery, Weighting};
pub use row_source::RowSource;
