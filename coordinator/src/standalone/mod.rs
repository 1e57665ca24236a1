//! Processes on this machine: `run` with its embedded coordinator and workers, and `replay`.

pub mod processes;
pub mod replay;
pub mod run;
mod run_source;
pub mod sweeps;
