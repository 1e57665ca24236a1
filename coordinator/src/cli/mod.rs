//! The program `ergodic`: reads the command line, carries out the command, turns errors into exit codes.

pub mod command;
mod dispatch;
mod generate;
mod store_views;
#[cfg(test)]
mod tests;
mod version;

use std::process::ExitCode;

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use store_views::StoreViews;

use crate::app::CommandOutcome;
use crate::client::store_access::set_store_access;
use crate::terminal::print_stderr_line;

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 some trials failed, 2 bad input, 3 the coordinator does not answer, 4 refused,
5 no such sweep, trial, axis or metric, 6 incompatible versions, 7 a claim disagrees, 8 a claim is
not decided, 70 internal error, 130 interrupted.
ERGODIC_LOG sets the log level (error, warn, info, debug).";

/// Runs the program and returns its exit code.
pub fn run_cli() -> ExitCode {
    let cli = command::parse_command_line();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            return report_error(&UserError::new(
                ErrorCode::Internal,
                format!("cannot start: {e}"),
            ));
        }
    };
    let views = StoreViews::default();
    set_store_access(Box::new(views.clone()));
    let result = runtime.block_on(async {
        let result = dispatch::dispatch_command(cli.command, command::build_command).await;
        views.close_all().await;
        result
    });

    // Waiting for background tasks, such as a half-read stream, would delay the exit.
    runtime.shutdown_background();
    match result {
        Ok(CommandOutcome::Done) => ExitCode::SUCCESS,
        Ok(CommandOutcome::TrialsFailed) => ExitCode::from(ErrorCode::TrialsFailed.exit_code()),
        Ok(CommandOutcome::ClaimsDisagree) => ExitCode::from(7),
        Ok(CommandOutcome::ClaimsUndecided) => ExitCode::from(8),
        Ok(CommandOutcome::Interrupted) => ExitCode::from(130),
        Err(error) => report_error(&error),
    }
}

fn report_error(error: &UserError) -> ExitCode {
    print_stderr_line(&format!("error: {error}"));
    ExitCode::from(error.code.exit_code())
}
