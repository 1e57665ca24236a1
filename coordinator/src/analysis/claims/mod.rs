//! Verdicts on the claims of a sweep, from the curves of its trials.
//!
//! `jobs` says what is computed of each trial, `read` reads the curves once for each of the `batches` and keeps `cell_numbers`
//! instead of them, `references` those with which curves are joined. `effect_numbers` makes the effect of a claim out of numbers,
//! `label_laws` out of predictions, of which `reported_labels` knows what a program's trials reported. `weighed` says what an
//! estimate shows, `shares` what counted trials show, `judge` decides, `loss_notes` adds a caveat, and `query` does all of it
//! for a sweep.

mod batches;
mod cell_numbers;
mod design;
mod effect_numbers;
#[cfg(test)]
mod equal_numbers_tests;
mod jobs;
mod judge;
mod label_laws;
#[cfg(test)]
mod label_tests;
mod loss_notes;
#[cfg(test)]
mod lost_trials_tests;
#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod program_tests;
mod query;
mod read;
mod references;
mod reported_labels;
#[cfg(test)]
mod reported_labels_tests;
mod shares;
#[cfg(test)]
mod shipped_tests;
#[cfg(test)]
mod simulations;
#[cfg(test)]
mod tests;
mod weighed;

pub use judge::{CellPoint, ClaimVerdict, JudgedEffect};
pub use query::{ClaimQuery, ClaimVerdicts};
