//! Processes on this machine: `run` with its embedded coordinator and workers, `replay`, and `rm`, which can start such a
//! coordinator.

pub mod replay;
pub mod rm;
pub mod run;
mod run_source;
pub mod sweeps;
