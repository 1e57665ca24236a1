//! Ergodic's coordinator, and the commands of `ergodic`.
//!
//! [`core`] decides, [`store`] keeps, [`server`] moves bytes between them and the wire, [`stats`] turns rows into tables.
//! [`client`] asks and prints, and knows nothing of the other four but the wire. [`local`] starts processes on this
//! machine for `run` and `bench`; [`program`] is what commands share; [`cli`] reads the command line.

pub mod cli;
pub mod client;
pub mod core;
mod failpoint;
pub mod local;
pub mod plot;
pub mod program;
pub mod server;
pub mod stats;
pub mod store;
