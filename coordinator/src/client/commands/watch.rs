//! `ergodic watch`: shows a sweep's grid and a progress bar on a terminal, and otherwise prints a
//! line now and then. Always on stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::escape::escape_lines;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use indicatif::{ProgressBar, ProgressStyle};

use crate::app::CommandOutcome;
use crate::client::Client;
use crate::client::args::SweepTarget;
use crate::client::render::print_stderr_line;
use crate::client::render::watch_grid::render_watch_grid;
use crate::client::status_text::{
    count_done_trials, expected_trials, format_audit_status, format_halving_status,
    format_incomplete_counts, format_precision_status, format_progress, status_word,
};

/// Time between two lines without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Time limit for reconnecting to the coordinator.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// `ergodic watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
}

/// Follows a sweep to its end.
///
/// # Errors
/// The sweep is unknown, or the coordinator stays away.
pub async fn run_watch(args: WatchArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    let status = follow_sweep(&mut client, &id).await?;
    Ok(CommandOutcome::from_sweep(&status))
}

/// Watches a sweep to its end, through restarts of the coordinator.
///
/// # Errors
/// The sweep is unknown, or the coordinator stays away.
pub async fn follow_sweep(client: &mut Client, sweep: &str) -> Result<v1::SweepStatus, UserError> {
    let mut progress = ProgressDisplay::new();
    let mut away_since: Option<Instant> = None;

    loop {
        match follow_stream(client, sweep, &mut progress).await {
            Ok(Some(status)) => {
                progress.finish(&status);
                return Ok(status);
            }
            // The stream ended early: the coordinator is stopping or the connection is lost, so the
            // watch reconnects.
            Ok(None) => {}
            Err(error) if error.code != ErrorCode::Unreachable => return Err(error),
            Err(error) => {
                if away_since.get_or_insert_with(Instant::now).elapsed() > RECONNECT_TIMEOUT {
                    return Err(error);
                }
                progress.show_message("the coordinator does not answer; waiting for it");
            }
        }

        tokio::time::sleep(Duration::from_millis(500)).await;
        if let Ok(again) = client.reconnect().await {
            *client = again;
            away_since = None;
        }
    }
}

/// Reads one stream of updates; returns the last status if the sweep has ended.
async fn follow_stream(
    client: &mut Client,
    sweep: &str,
    progress: &mut ProgressDisplay,
) -> Result<Option<v1::SweepStatus>, UserError> {
    let request = v1::WatchRequest {
        sweep: sweep.to_owned(),
    };
    let mut stream = client
        .call(async |client| client.sweeps.watch(request).await)
        .await?;
    while let Some(message) = client.next_message(&mut stream).await? {
        let Some(status) = message.status else {
            continue;
        };
        let open = matches!(
            status.state(),
            v1::SweepState::Running | v1::SweepState::Paused
        );
        if !open || !status.withheld.is_empty() {
            return Ok(Some(status));
        }

        progress.show_status(&status, message.grid.as_ref());
    }

    Ok(None)
}

struct ProgressDisplay {
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl ProgressDisplay {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg}\n{wide_bar} {pos}/{len}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self {
            bar,
            last_line: None,
        }
    }

    fn show_status(&mut self, status: &v1::SweepStatus, grid: Option<&v1::WatchGrid>) {
        let message = format_progress(status);
        match &self.bar {
            Some(bar) => {
                let (width, height) = terminal_size();
                let mut above = grid
                    .map(|grid| render_watch_grid(grid, &status.metric, width, height))
                    .unwrap_or_default();
                above.extend(wrap_description(&message, width));
                bar.set_length(expected_trials(status));

                bar.set_position(count_done_trials(status));
                bar.set_message(escape_lines(&above.join("\n")).into_owned());
            }
            None if self
                .last_line
                .is_none_or(|at| at.elapsed() >= LINE_INTERVAL) =>
            {
                self.last_line = Some(Instant::now());
                let about = if expected_trials(status) > status.trials {
                    "about "
                } else {
                    ""
                };
                print_stderr_line(&format!(
                    "{}/{about}{} trials  {message}",
                    count_done_trials(status),
                    expected_trials(status)
                ));
            }
            None => {}
        }
    }

    fn show_message(&mut self, message: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(message.to_owned()),
            None if self
                .last_line
                .is_none_or(|at| at.elapsed() >= LINE_INTERVAL) =>
            {
                self.last_line = Some(Instant::now());
                print_stderr_line(message);
            }
            None => {}
        }
    }

    fn finish(&self, status: &v1::SweepStatus) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }

        let state = status_word(status);
        print_stderr_line(&format!(
            "{state}: {}/{} trials  {}",
            count_done_trials(status),
            status.trials,
            format_incomplete_counts(status)
        ));

        if !status.withheld.is_empty() {
            print_stderr_line(&format!("NONE OF ITS TRIALS ARE RUN: {}", status.withheld));
        }

        if status.mismatches > 0 {
            print_stderr_line(&format!(
                "ALARM: {} results were delivered again with different bits; see `ergodic explain {}`",
                status.mismatches, status.id
            ));
        }

        format_precision_status(status)
            .or(format_halving_status(status))
            .iter()
            .for_each(|known| print_stderr_line(known));
        format_audit_status(status)
            .iter()
            .for_each(|audits| print_stderr_line(audits));
    }
}

/// Columns and lines of the terminal at stderr.
fn terminal_size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(std::io::stderr())
        .ok()
        .filter(|size| size.ws_col > 0);
    // One column stays free, because some terminals wrap a full line.
    size.map_or((79, 24), |size| {
        (usize::from(size.ws_col) - 1, usize::from(size.ws_row))
    })
}

/// Breaks a description into lines, between its parts.
fn wrap_description(message: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in message.split("  ") {
        match lines
            .last_mut()
            .filter(|line| line.chars().count() + 2 + part.chars().count() <= width)
        {
            Some(line) => *line += &format!("  {part}"),
            None => lines.push(part.chars().take(width).collect()),
        }
    }

    lines
}

#[cfg(test)]
mod tests {
    use crate::client::commands::watch::*;

    #[test]
    fn a_description_is_broken_between_its_parts() {
        assert_eq!(
            wrap_description("one  two three  four", 10),
            ["one", "two three", "four"]
        );

        assert_eq!(
            wrap_description("one  two three  four", 80),
            ["one  two three  four"]
        );
    }
}
