//! The hidden command by which the program of the worker is a supervisor, or what starts supervisors.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use super::isolation::{OWN_PROGRAM, supervise_isolated};
use super::starter::serve_worker;
use super::supervisor::supervise_program;

/// The arguments of the hidden command.
#[derive(Debug, Args)]
pub(crate) struct SuperviseArgs {
    /// Start the supervisor in namespaces of its own
    #[arg(long)]
    isolate: bool,
    /// With a user namespace
    #[arg(long)]
    user_namespace: bool,
    /// What the program does not see
    #[arg(long)]
    hide: Vec<PathBuf>,
    /// End at once
    #[arg(long)]
    probe: bool,
    /// Start a supervisor for each three pipes that arrive
    #[arg(long)]
    serve: bool,
}

/// Runs the hidden command.
///
/// # Errors
/// The kernel refuses namespaces, or the supervisor fails.
pub(crate) fn run_supervise_command(args: &SuperviseArgs) -> io::Result<()> {
    // A program can read with what its supervisor was started, so that must not be the worker's environment.
    if std::env::vars_os().next().is_some() {
        let args = std::env::args_os().skip(1);
        return Err(Command::new(OWN_PROGRAM).args(args).env_clear().exec());
    }
    match args.serve {
        true => serve_worker(&|| supervise(args)),
        false => supervise(args),
    }
}

/// Supervises one program, in namespaces of its own if the arguments say so.
fn supervise(args: &SuperviseArgs) -> io::Result<()> {
    let run = || match args.probe {
        true => Ok(()),
        false => supervise_program(),
    };
    match args.isolate {
        true => supervise_isolated(args.user_namespace, &args.hide, run),
        false => run(),
    }
}
