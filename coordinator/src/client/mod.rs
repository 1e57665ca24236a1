//! The client commands: each asks a coordinator one thing and prints the answer. Data go to stdout, prose to stderr.
//!
//! Imports the vocabulary and the wire only, never the server.

pub mod backup;
pub mod commands;
pub mod compare;
mod connect;
pub mod export;
pub mod kept;
pub mod output;
pub mod plan;
pub mod tokens;
pub mod watch;

pub use connect::Client;
