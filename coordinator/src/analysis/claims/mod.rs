//! Verdicts on the claims of a sweep, from the curves of its trials.
//!
//! `jobs` says what is computed of each trial, `read` reads the curves once and keeps `cell_numbers` instead of them,
//! `effect_numbers` makes the effect of a claim out of those, `judge` decides, and `query` does all of it for a sweep.

mod cell_numbers;
mod design;
mod effect_numbers;
mod jobs;
mod judge;
mod query;
mod read;
#[cfg(test)]
mod tests;

pub use judge::{ClaimVerdict, JudgedEffect};
pub use query::{ClaimQuery, ClaimVerdicts};
