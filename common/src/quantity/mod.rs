//! Quantities, which are computed from the samples of trials, and claims about them: `[quantity]` and `[[claim]]`.
//!
//! A quantity is an expression ([`crate::expr`]) over metrics, `step`, `epoch`, `samples`, the fields and axes of the cell, and
//! other quantities. A *reducer* such as `mean(test_acc, last 20 %)` makes one number of the samples of a window. A quantity in
//! which a metric stands outside all reducers is a series, otherwise it is one number per trial.
//!
//! [`figure`] reads `[[figure]]`: which of them are to be drawn, and over what.
//!
//! [`section`] reads both tables, [`claim`] one claim, which `claim_checks` checks; [`call_text`] finds the reducers in a text, [`compile`] makes a
//! [`program`] of it, [`evaluate`] computes that from a curve with the functions of [`reduce`] and with `events` at one sample or the other, and [`expand`] finds the cells
//! that each claim is about, `reference_cells` those that they are
//! set against, and `label_pairs` those whose predictions are compared. `windows` checks what is known before any trial. A [`trial_quantity`] is
//! used in place of a metric, and [`trial_values`] computes it of one trial after another. [`rounding`] finds numbers that cancelled.

pub mod call_text;
pub mod cell_names;
pub mod cell_quantity;
pub mod claim;
mod claim_checks;
#[cfg(test)]
mod claim_tests;
pub mod compile;
pub mod evaluate;
mod events;
pub mod expand;
pub mod figure;
#[cfg(test)]
mod gap_tests;
mod label_pairs;
pub mod program;
pub mod reduce;
mod reference_cells;
pub mod rounding;
pub mod section;
#[cfg(test)]
mod tests;
pub mod trial_quantity;
pub mod trial_values;
mod windows;

pub use call_text::tidy_text;
pub use cell_names::find_cells_meeting;
pub use cell_quantity::{CellQuantity, StepQuantity};
pub use claim::{Claim, ClaimForm, ClaimRegion, TrialPooling};
pub use evaluate::{NodeValue, SampledCurve};
pub use events::{EventCorner, EventRounding};
pub use expand::{ClaimEffect, ExpandedClaim, ExpandedClaims};
pub use figure::{Figure, FigureSection, FigureSubject};
pub use program::{CellInputs, QuantityProgram};
pub use section::ClaimSection;
pub use trial_quantity::TrialQuantity;
pub use trial_values::{TrialEvaluator, TrialSamples};
