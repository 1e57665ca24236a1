//! `ergodic`: launch sweeps, serve them, pull their tables.

use std::process::ExitCode;

fn main() -> ExitCode {
    ergodic::cli::run_cli()
}
