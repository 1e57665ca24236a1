//! The client commands: each sends requests to a coordinator and prints the response. Data go to
//! stdout, prose to stderr.
//!
//! Imports the vocabulary and the wire, and never the server.

pub mod args;
pub(crate) mod axis_choices;
mod call;
pub mod commands;
mod connect;
mod connection_args;
pub mod export;
pub mod failure_causes;
pub mod last_run;
pub mod latest;
mod metric_list;
pub(crate) mod option_names;
pub mod plot;
mod program_files;
pub mod query;
pub mod render;
pub mod report;
mod resolve;
pub mod source;
pub mod sql;
pub mod status_text;
pub mod store_access;
pub mod sweep_file;
pub mod sweep_set;
pub mod utc;
pub mod verdicts;
pub mod wait_reason;

pub use connect::{Client, START_TIMEOUT, check_coordinator_option};
