//! Common parts of all commands: logs, stdout, signals and outcomes.

use ergodic_common::ErrorCode;
use ergodic_proto::log::EscapedLineWriter;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tracing_subscriber::EnvFilter;

use crate::terminal::show_on_stdout;

/// The successful outcome of a command.
pub enum CommandOutcome {
    /// The command did everything it should.
    Done,
    /// The sweep ended, but some trials failed.
    TrialsFailed,
    /// Some claim is contradicted by the results.
    ClaimsDisagree,
    /// No claim is contradicted, but some are not decided.
    ClaimsUndecided,
    /// The user interrupted the command.
    Interrupted,
}

impl CommandOutcome {
    /// The outcome of a command that ran or followed a sweep to its end.
    pub fn from_sweep(status: &v1::SweepStatus) -> Self {
        if status.failed > 0 {
            Self::TrialsFailed
        } else {
            Self::Done
        }
    }
}

/// `--log-format`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Pretty,
    /// One JSON object per line.
    Json,
}

/// Starts logging to stderr, at the level that `ERGODIC_LOG` names.
pub fn start_logging(default: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_env("ERGODIC_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| EscapedLineWriter(std::io::stderr()))
        .with_target(false);
    let _ = match format {
        LogFormat::Pretty => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
}

/// Prints a command's data; on a terminal, through a pager if they are long.
///
/// # Errors
/// Stdout cannot be written.
pub fn print_output(text: String) -> Result<CommandOutcome, UserError> {
    show_on_stdout(&text, true).map_err(|e| stdout_error(&e))?;
    Ok(CommandOutcome::Done)
}

/// Prints data at the end of a command that ran for long: a pager would hold it up.
///
/// # Errors
/// Stdout cannot be written.
pub fn print_unpaged(text: &str) -> Result<(), UserError> {
    show_on_stdout(text, false).map_err(|e| stdout_error(&e))
}

/// The error for a stdout that cannot be written.
pub fn stdout_error(error: &std::io::Error) -> UserError {
    let text = error.to_string();
    // The number of the system's error says nothing more.
    let reason = text.split_once(" (os error ").map(|(reason, _)| reason);
    UserError::new(
        ErrorCode::BadInput,
        format!("cannot write to stdout: {}", reason.unwrap_or(&text)),
    )
}

/// Waits for Ctrl-C, SIGTERM, or the terminal's end (SIGHUP).
pub async fn wait_for_interrupt() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be listened for");
    let mut hangup = signal(SignalKind::hangup()).expect("SIGHUP can be listened for");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::app::*;

    #[test]
    fn a_full_stdout_is_no_fault_of_the_program() {
        let full = std::io::Error::from_raw_os_error(28);
        let error = stdout_error(&full);
        assert_eq!(
            error.message,
            "cannot write to stdout: No space left on device"
        );
        assert_eq!(error.code, ErrorCode::BadInput);
    }
}
