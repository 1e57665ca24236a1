//! Quantities, which are computed from the samples of trials, and claims about them: `[quantity]` and `[[claim]]`.
//!
//! A quantity is an expression ([`crate::expr`]) over metrics, `step`, `epoch`, `samples`, the fields and axes of the cell, and
//! other quantities. A *reducer* such as `mean(test_acc, last 20 %)` makes one number of the samples of a window. A quantity in
//! which a metric stands outside all reducers is a series, otherwise it is one number per trial.
//!
//! [`section`] reads both tables, [`claim`] one claim; [`call_text`] finds the reducers in a text, [`compile`] makes a
//! [`program`] of it, [`evaluate`] computes that from a curve with the functions of [`reduce`], and [`expand`] finds the cells
//! that each claim is about.

pub mod call_text;
pub mod cell_names;
pub mod claim;
pub mod compile;
pub mod evaluate;
pub mod expand;
pub mod program;
pub mod reduce;
pub mod section;
#[cfg(test)]
mod tests;

pub use claim::{Claim, ClaimForm, ClaimRegion, TrialPooling};
pub use evaluate::{EventRounding, NodeValue, SampledCurve};
pub use expand::{ClaimEffect, ExpandedClaim, ExpandedClaims};
pub use program::{CellInputs, QuantityProgram};
pub use section::ClaimSection;
