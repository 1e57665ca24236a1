//! Ergodic's worker: joins a coordinator and trains. The only crate that links Candle.
//!
//! [`train`] runs one trial here, `program` runs one that is a process of the user's, and [`experiment`] one that is code of the
//! user's in a worker program of theirs, which calls [`main`]. [`work_queue`] decides which trial is next and which results are due; [`slots`] are the threads
//! that run trials, `checkpoint_store` holds their checkpoints, and [`spool`] the results that are not delivered yet. [`link`]
//! connects to the coordinator: session, delivery, sweeps and datasets. [`cli`] reads the command line.

mod assignment;
mod cause;
mod checkpoint_store;
pub mod cli;
pub mod device;
pub mod experiment;
mod failpoint;
pub mod link;
mod memory;
pub(crate) mod program;
mod replay;
mod result_batch;
pub mod runner;
pub mod shared_queue;
pub mod slots;
pub mod spool;
mod supply;
mod system;
pub mod train;
pub mod work_queue;

pub use cli::main;
/// Random streams of trials, and the purposes that tell them apart.
pub use ergodic_common::random_streams;
