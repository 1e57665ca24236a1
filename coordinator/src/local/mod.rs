//! Processes on this machine: `run` with its embedded coordinator and workers, and `bench`.

pub mod bench;
pub mod programs;
pub mod run;
