//! The gRPC services: each RPC checks its request, queries the engine or the store, and converts
//! the answer.

pub(crate) mod access;
pub(crate) mod admin;
pub(crate) mod analysis;
pub(crate) mod checkpoints;
mod compare_sweeps;
pub(crate) mod explain;
pub(crate) mod export_rows;
pub(crate) mod files;
mod further_columns;
pub(crate) mod launch;
mod live_output;
pub(crate) mod outputs;
pub(crate) mod progress;
pub(crate) mod row_readers;
pub(crate) mod sample_size;
pub mod session;
pub(crate) mod snapshot;
pub(crate) mod steering;
mod stored_outputs;
pub(crate) mod sweeps;
pub(crate) mod tables;
pub(crate) mod trials;
pub(crate) mod verdict;
pub mod workers;
