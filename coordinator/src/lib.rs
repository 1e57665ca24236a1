//! Ergodic's coordinator, and the commands of `ergodic`.
//!
//! [`core`] decides what happens next, [`store`] makes it durable, and [`server`] connects both to the wire. [`estimators`]
//! compute statistics of samples; [`analysis`] reads stored rows and applies them. [`client`] sends requests and prints
//! the answers; it knows the wire and nothing of the server. [`standalone`] and [`bench`](mod@bench) start processes on this machine,
//! [`worker_processes`] finds and starts worker programs, [`plot`] draws, [`cli`] reads the command line, [`app`] holds what all commands
//! share, and [`terminal`] is where they print.

pub mod analysis;
pub mod app;
pub mod bench;
pub mod cell_stats;
pub mod cli;
pub mod client;
mod config_schema;
pub mod core;
pub mod estimators;
pub mod experiments;
mod explanation_text;
mod failpoint;
pub mod interval_set;
pub mod plot;
pub(crate) mod process_stats;
pub mod records;
pub mod restore;
pub mod result_batch;
pub mod server;
pub mod standalone;
pub mod store;
mod stored_row;
pub mod sweep_seal;
pub mod terminal;
pub(crate) mod throttled_log;
pub mod worker_processes;
