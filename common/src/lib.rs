//! The vocabulary of Ergodic, and everything that can be decided without doing anything.
//!
//! A [`Spec`] is read from a sweep file; its [`Grid`] numbers the cells without ever storing
//! them; a cell resolves to a [`TrialConfig`]; a trial is a (cell, repeat) pair whose random
//! choices come from [`Streams`](seed::Streams) and whose end is a [`TrialResult`].
//!
//! Reading order: [`error`], [`tree`], [`grammar`], [`reader`], [`config`], [`expr`], [`axis`], [`grid`], [`metric`], [`repeats`],
//! [`spec`], [`refuse`], [`seed`], [`net`], [`trial`], [`reuse`], [`dataset`].
//!
//! Nothing here is async, opens a socket or reads a clock. The only input is the reading of dataset files in
//! [`dataset::files`], which coordinator and workers must do identically.

pub mod axis;
pub mod config;
pub mod dataset;
pub mod duration;
pub mod error;
pub mod expr;
pub mod figures;
pub mod grammar;
pub mod grid;
mod meaning;
pub mod metric;
pub mod net;
mod normal;
pub mod pin;
pub mod reader;
pub mod refuse;
pub mod repeats;
pub mod reuse;
pub mod seed;
pub mod spec;
pub mod terms;
pub mod text;
pub mod tree;
pub mod trial;
pub mod weights;

#[cfg(test)]
mod spec_tests;

pub use config::TrialConfig;
pub use error::{ErrorCode, SpecError};
pub use grid::Grid;
pub use spec::Spec;
pub use trial::{Outcome, TrialKey, TrialResult};

/// What two programs must share to be called builds of the same version.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("ERGODIC_SOURCE_HASH"));
