//! `ergodic-worker completions` and `ergodic-worker man`: what shells and `man` know of the command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use ergodic_common::{BUILD, ErrorCode};
use ergodic_proto::status::UserError;

use super::{WorkerCli, print_stdout};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell that is to complete commands and options
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Directory for the pages; existing ones are replaced
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Prints the script for a shell.
pub(super) fn run_completions(args: &CompletionsArgs) -> Result<(), UserError> {
    let mut script = Vec::new();
    let mut command = WorkerCli::command();
    clap_complete::generate(args.shell, &mut command, "ergodic-worker", &mut script);
    print_stdout(&String::from_utf8_lossy(&script))
}

/// Writes the page of the program, and one for each command.
pub(super) fn run_man(args: &ManArgs) -> Result<(), UserError> {
    // The same for each build of the same sources.
    let command = WorkerCli::command().long_version(BUILD);
    std::fs::create_dir_all(&args.dir)
        .and_then(|()| clap_mangen::generate_to(command, &args.dir))
        .map_err(|e| {
            let message = format!("{}: cannot write the pages: {e}", args.dir.display());
            UserError::new(ErrorCode::BadInput, message)
        })
}
