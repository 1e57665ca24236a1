//! `ergodic completions` and `ergodic man`: what shells and `man` know of the command line.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use ergodic_common::{BUILD, ErrorCode};
use ergodic_proto::status::UserError;

use super::EXIT_CODES;
use crate::app::{CommandOutcome, print_output};

/// `ergodic completions`
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell that is to complete commands and options
    #[arg(value_enum)]
    shell: Shell,
}

/// `ergodic man`
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Directory for the pages; existing ones are replaced
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Prints the script for a shell.
///
/// # Errors
/// Stdout cannot be written.
pub(super) fn run_completions(
    args: &CompletionsArgs,
    mut command: Command,
) -> Result<CommandOutcome, UserError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "ergodic", &mut script);
    print_output(String::from_utf8_lossy(&script).into_owned())
}

/// Writes the page of the program, and one for each command.
///
/// # Errors
/// A page cannot be written.
pub(super) fn run_man(args: &ManArgs, command: Command) -> Result<CommandOutcome, UserError> {
    // A page lists the commands by itself, and should be the same for each build of the same sources.
    let command = command.after_help(EXIT_CODES).long_version(BUILD);
    write_pages(&args.dir, command).map_err(|e| {
        let message = format!("{}: cannot write the pages: {e}", args.dir.display());
        UserError::new(ErrorCode::BadInput, message)
    })?;

    Ok(CommandOutcome::Done)
}

/// Writes the pages beside their place first, so that no page is ever half there.
fn write_pages(dir: &Path, command: Command) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let written = tempfile::tempdir_in(dir)?;
    clap_mangen::generate_to(command, written.path())?;

    for page in std::fs::read_dir(written.path())? {
        let page = page?;
        std::fs::rename(page.path(), dir.join(page.file_name()))?;
    }
    Ok(())
}
