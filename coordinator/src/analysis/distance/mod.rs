//! Distances between the predictions of cells for the probe set, as functions rather than as
//! accuracies.

pub mod agreement;
mod caveats;
mod compute;
pub mod labels;
pub mod permutation;
mod query;
pub mod split_half;
#[cfg(test)]
mod tests;
mod types;

pub use query::{DistanceParams, DistanceQuery, MAX_CELLS};
pub use types::CellDistance;
