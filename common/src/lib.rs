//! The vocabulary of Ergodic, and all decisions that need no IO.
//!
//! A [`Spec`] is read from a sweep file; its [`Grid`] numbers the cells without ever storing
//! them; a cell resolves to a [`TrialConfig`]; a trial is a (cell, repeat) pair whose random
//! choices come from [`Streams`](random_streams::Streams) and whose end is a [`TrialResult`].
//!
//! Reading order: [`spec_file`] reads TOML into values that know their origin; [`config`], [`expr`], [`grid`] and [`metric`]
//! give them meaning; [`spec`] is the whole sweep, and [`quantity`] what is claimed of it; [`random_streams`], [`net`] and [`trial`] describe one trial; [`dataset`]
//! holds what it trains on.
//!
//! Nothing here is async, opens a socket or reads a clock. The only input is the reading of dataset files in
//! [`dataset::files`], which coordinator and workers must do identically.

pub mod build_facts;
pub mod config;
pub mod dataset;
pub mod duration;
mod error_code;
pub mod escape;
pub mod expr;
pub mod grid;
pub mod ids;
pub mod metric;
pub mod named_files;
pub mod net;
mod normal;
pub mod number_format;
pub mod pinned_file;
pub mod program;
pub mod quantity;
pub mod random_streams;
mod resolve;
pub mod results_manifest;
pub mod spec;
pub mod spec_file;
pub mod trial;
pub mod weights;

pub use config::TrialConfig;
pub use error_code::ErrorCode;
pub use grid::Grid;
pub use spec::Spec;
pub use spec_file::error::SpecError;
pub use trial::{Outcome, TrialKey, TrialResult};

/// Version and source hash: two programs that share it are builds of the same version.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("ERGODIC_SOURCE_HASH"));
