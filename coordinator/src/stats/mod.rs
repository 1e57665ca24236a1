//! Statistics over stored rows, recomputed from them in (cell, repeat) order, so that they never depend on the order
//! in which results arrived.
//!
//! `sample` has the statistics of one sample, `statistic` finds them by name, `table` groups stored rows and asks for them;
//! `paired` and `compare` do the same for differences between cells, `distance` for their predictions; `effects` takes a grid
//! apart into what its axes do. `rank` says which cells are better, `best` which cannot be told from the best. `precision` and `needs` say how many repeats make a mean known well enough.

pub mod best;
pub mod bootstrap;
pub mod chance;
pub mod compare;
pub mod crossed;
pub mod distance;
pub mod effects;
pub mod needs;
pub mod paired;
pub mod precision;
pub mod rank;
pub mod sample;
pub mod special;
pub mod statistic;
pub mod summary;
pub mod table;
pub mod variance;

pub use sample::Sample;
pub use summary::Summary;
pub use table::AnalysisError;

#[cfg(test)]
mod selection_tests;
#[cfg(test)]
mod tests;
