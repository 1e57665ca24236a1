//! The gRPC services: each RPC checks its request, asks the engine or the store, and converts the answer.

pub(crate) mod admin;
pub(crate) mod analysis;
pub(crate) mod export_rows;
pub(crate) mod sample_size;
pub mod session;
pub mod workers;
