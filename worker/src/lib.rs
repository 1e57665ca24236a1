//! Ergodic's worker: joins a coordinator and trains. The only crate that links Candle.
//!
//! [`train`] runs one trial. [`desk`] holds what was granted and what was finished; `slots` are the threads that take
//! from it, and `shelf` is where they keep what is unfinished, [`spool`] what is not yet delivered; `session` talks with
//! the coordinator; `sweeps` and [`datasets`] fetch what trials need; [`cli`] reads the command line.

mod checkpoints;
pub mod cli;
pub mod datasets;
pub mod deliver;
pub mod desk;
pub mod device;
mod failpoint;
mod folder;
pub mod link;
mod memory;
pub mod session;
mod shelf;
mod single;
pub mod slots;
pub mod spool;
mod sweeps;
pub mod train;
