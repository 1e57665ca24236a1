//! Processes on this machine: `run` with its embedded coordinator and workers, `replay` and `bench`.

pub mod bench;
pub mod programs;
pub mod replay;
pub mod restore;
pub mod run;
pub mod soak;
pub mod tables;
