//! Ergodic's worker: joins a coordinator and trains. The only crate that links Candle.
//!
//! [`train`] runs one trial here, and `program` runs one that is a process of the user's. [`work_queue`] decides which trial is next and which results are due; [`slots`] are the threads
//! that run trials, `checkpoint_store` holds their checkpoints, and [`spool`] the results that are not delivered yet. [`link`]
//! connects to the coordinator: session, delivery, sweeps and datasets. [`cli`] reads the command line.

mod assignment;
mod cause;
mod checkpoint_store;
pub mod cli;
pub mod device;
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
