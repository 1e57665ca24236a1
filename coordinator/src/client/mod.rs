//! The client commands: each asks a coordinator one thing and prints the answer. Data go to stdout, prose to stderr.
//!
//! Imports the vocabulary and the wire only, never the server.

pub mod backup;
pub mod commands;
pub mod compare;
mod connect;
pub mod distance;
pub mod effects;
pub mod export;
pub mod growth;
pub mod kept;
pub mod latest;
pub mod needs;
pub mod output;
pub mod plan;
pub mod plot;
pub mod predictions;
pub mod report;
#[cfg(feature = "sql")]
pub mod sql;
pub mod tokens;
pub mod variance;
pub mod watch;
mod watch_grid;

pub use connect::Client;
