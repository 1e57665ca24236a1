//! Distances between the predictions of cells for the probe set, as functions rather than as
//! accuracies.

pub mod agreement;
mod caveats;
mod compute;
pub mod labels;
pub mod permutation;
mod query;
mod reported;
#[cfg(test)]
mod reported_tests;
pub mod split_half;
#[cfg(test)]
mod tests;
mod types;

pub use query::{DistanceParams, DistanceQuery, MAX_CELLS};
pub(crate) use reported::how_to_report;
pub use types::CellDistance;
