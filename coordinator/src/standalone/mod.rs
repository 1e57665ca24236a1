//! Processes on this machine: `run` and `verify` with an embedded coordinator and workers, `replay`, and `rm`, which can start
//! such a coordinator.

mod local_experiments;
mod local_workers;
mod program_consent;
pub mod replay;
pub mod rm;
pub mod run;
mod run_source;
mod stages;
pub mod sweeps;
pub mod verify;
