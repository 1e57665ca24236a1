//! Estimators: pure functions from samples to statistics. They know no sweeps, rows or stores.
//!
//! [`sample`] holds the values of one sample with the repeats that they are of, [`statistic`] finds statistics by name, [`paired`]
//! and [`unpaired`] test differences, [`jackknife`] and [`decision`] judge claims, [`rank`] says which cells are better, [`precision`] when a mean is known well enough.

pub mod binomial;
pub mod bootstrap;
pub mod chance;
pub mod cluster;
pub mod crossed;
pub mod crossed_layout;
pub mod decision;
pub mod jackknife;
pub mod label_energy;
pub mod paired;
pub mod precision;
pub mod rank;
pub mod rounding;
pub mod sample;
#[cfg(test)]
mod selection_tests;
pub mod special;
pub mod statistic;
mod statistic_caveats;
pub mod summary;
pub mod unpaired;

pub use sample::Sample;
pub use summary::Summary;
