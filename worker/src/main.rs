//! `ergodic-worker`: joins a coordinator and trains.

use std::process::ExitCode;

/// Training allocates and frees large buffers per trial.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ergodic_worker::cli::main()
}
