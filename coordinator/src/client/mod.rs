//! The client commands: each asks a coordinator one thing and prints the answer. Data go to stdout, prose to stderr.
//!
//! Imports the vocabulary and the wire only, never the server.

pub mod commands;
mod connect;
pub mod export;
pub mod growth;
pub mod latest;
pub mod plot;
pub mod render;
pub mod report;
#[cfg(feature = "sql")]
pub mod sql;
pub mod watch;

pub use connect::Client;
