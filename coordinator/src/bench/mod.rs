//! `ergodic bench`: what the coordinator costs per trial, how it holds out, how fast tables are.

pub mod overhead;
pub mod soak;
pub mod tables;
