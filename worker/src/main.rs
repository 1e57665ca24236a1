//! `ergodic-worker`: joins a coordinator and trains.

use std::process::ExitCode;

/// mimalloc, because training allocates and frees large buffers for every trial.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ergodic_worker::main(ergodic_worker::experiments![])
}
