//! Following a sweep: its grid and a progress bar on a terminal, a line now and then elsewhere. Always on stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use ergodic_common::ErrorCode;
use ergodic_common::escape::{escape_line, escape_lines};
use ergodic_common::number_format::format_significant;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use indicatif::{ProgressBar, ProgressStyle};

use super::Client;
use super::growth::{expected_trials, format_halving_status, format_precision_status};
use super::render::watch_grid::render_watch_grid;

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a coordinator that went away is waited for.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Follows a sweep to its end, through restarts of the coordinator.
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
            // The stream ended early: the coordinator is going down or was cut off.
            Ok(None) => {}
            Err(error) if error.code != ErrorCode::Unreachable => return Err(error),
            Err(error) => {
                if away_since.get_or_insert_with(Instant::now).elapsed() > RECONNECT_TIMEOUT {
                    return Err(error);
                }
                progress.show_message("the coordinator is away; waiting for it");
            }
        }

        tokio::time::sleep(Duration::from_millis(500)).await;
        if let Ok(again) = client.reconnect().await {
            *client = again;
            away_since = None;
        }
    }
}

/// Reads one stream; gives the last status if the sweep has ended.
async fn follow_stream(
    client: &mut Client,
    sweep: &str,
    progress: &mut ProgressDisplay,
) -> Result<Option<v1::SweepStatus>, UserError> {
    let request = v1::WatchRequest {
        sweep: sweep.to_owned(),
    };
    let stream = client.sweeps.watch(request).await;
    let mut stream = stream.map_err(|e| client.to_user_error(&e))?.into_inner();
    while let Some(message) = stream
        .message()
        .await
        .map_err(|e| client.to_user_error(&e))?
    {
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
            print_stderr_line(&format!("NOTHING OF IT IS RUN: {}", status.withheld));
        }

        if status.mismatches > 0 {
            print_stderr_line(&format!(
                "ALARM: {} results came a second time with other bits; see `ergodic explain {}`",
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

/// Characters per line and lines of the terminal at stderr.
fn terminal_size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(std::io::stderr())
        .ok()
        .filter(|size| size.ws_col > 0);
    // One column less: some terminals break a line that is full.
    size.map_or((79, 24), |size| {
        (usize::from(size.ws_col) - 1, usize::from(size.ws_row))
    })
}

/// Lines of a description, broken between its parts.
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

/// Trials that have a row.
pub fn count_done_trials(status: &v1::SweepStatus) -> u64 {
    status.completed + status.diverged + status.failed
}

/// `audit: 12 of 12 trials run again by another worker process, 12 with the same bits`
pub fn format_audit_status(status: &v1::SweepStatus) -> Option<String> {
    let audit = status.audit.as_ref()?;
    let left = remaining_audits(audit);
    let made = audit.due - remaining_audits(audit);
    let what = "trials run again by another worker process";
    let mut line = format!(
        "audit: {made} of {} {what}, {} with the same bits",
        audit.due, audit.same
    );

    let parts = [
        (audit.different, "with OTHER bits"),
        (audit.failed, "failed"),
    ];
    parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .for_each(|(n, what)| line += &format!(", {n} {what}"));

    line += &match (left, status.state()) {
        (0, _) => String::new(),
        (left, v1::SweepState::Completed) => {
            format!("; no other worker process was there for {left}")
        }
        (left, v1::SweepState::Cancelled) => format!("; {left} were not made"),
        (left, _) => format!("; {left} to come"),
    };

    Some(line)
}

/// Audits that found nothing yet.
pub fn remaining_audits(audit: &v1::AuditStatus) -> u64 {
    audit
        .due
        .saturating_sub(audit.same + audit.different + audit.failed)
}

/// `12.5/s  eta 1m 20s  2 workers/4 slots  3 diverged  best test_acc 0.981 at lr=0.1`
pub fn format_progress(status: &v1::SweepStatus) -> String {
    let mut parts = Vec::new();
    if status.state() == v1::SweepState::Paused {
        parts.push(format!("paused: `ergodic resume {}` goes on", status.id));
    }

    if status.rate > 0.0 {
        parts.push(format!("{}/s", format_significant(status.rate, 3)));
        parts.push(format!("eta {}", format_duration(status.eta_seconds)));
    }

    if status.state() == v1::SweepState::Running {
        parts.push(match status.workers {
            // One that stands by knows of none.
            0 if !status.leader.is_empty() => format!("the coordinator at {} leads", status.leader),
            0 => "no worker yet".to_owned(),
            n => format!(
                "{n} worker{}/{} slots",
                if n == 1 { "" } else { "s" },
                status.slots
            ),
        });
    }

    parts.extend(Some(format_incomplete_counts(status)).filter(|text| !text.is_empty()));
    if let Some(left) = status
        .audit
        .as_ref()
        .map(remaining_audits)
        .filter(|left| *left > 0 && status.state() == v1::SweepState::Running)
    {
        parts.push(format!("{left} to be audited"));
    }

    if let Some(precision) = &status.precision {
        parts.push(format!(
            "{}/{} cells known",
            precision.reached, status.cells
        ));
    }

    if let Some(halving) = &status.halving {
        parts.push(format!(
            "{} of {} cells to {} repeats",
            halving.climbing, status.cells, halving.rung
        ));
    }

    if status.best_n > 0 {
        parts.push(format!(
            "best {} {} at {}",
            status.metric,
            format_significant(status.best_mean, 4),
            escape_line(&status.best_cell)
        ));
    }

    parts.join("  ")
}

/// `3 diverged  1 failed`
fn format_incomplete_counts(status: &v1::SweepStatus) -> String {
    let part = |n: u64, what: &str| (n > 0).then(|| format!("{n} {what}"));
    let parts = [
        part(status.diverged, "diverged"),
        part(status.failed, "failed"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}

/// How a sweep is doing, in a word or two.
pub fn status_word(status: &v1::SweepStatus) -> &'static str {
    match (status.unreadable, status.withheld.is_empty()) {
        (true, _) => "unreadable",
        (false, false) => "read-only",
        (false, true) => state_word(status.state()),
    }
}

/// A state in one word.
pub fn state_word(state: v1::SweepState) -> &'static str {
    match state {
        v1::SweepState::Running => "running",
        v1::SweepState::Completed => "completed",
        v1::SweepState::Cancelled => "cancelled",
        v1::SweepState::Paused => "paused",
        v1::SweepState::Unspecified => "unknown",
    }
}

/// `45s`, `3m 20s`, `2h 5m`, `3d 4h`
pub fn format_duration(seconds: f64) -> String {
    let s = seconds.max(0.0).ceil() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A line on stderr; a stderr that is gone is no reason to stop.
#[allow(clippy::print_stderr, reason = "progress and prose belong on stderr")]
pub fn print_stderr_line(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{}", escape_lines(line));
}

#[cfg(test)]
mod tests {
    use crate::client::watch::*;

    #[test]
    fn a_small_best_value_is_no_zero() {
        let best = |mean| v1::SweepStatus {
            best_n: 3,
            best_mean: mean,
            metric: "test_loss".into(),
            ..Default::default()
        };
        assert!(
            format_progress(&best(2.3e-10)).contains("best test_loss 2.3e-10 at"),
            "{}",
            format_progress(&best(2.3e-10))
        );

        assert!(format_progress(&best(0.98123)).contains("best test_loss 0.9812 at"));
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(
            [0.2, 59.5, 61.0, 7500.0, 200_000.0].map(format_duration),
            ["1s", "1m 0s", "1m 1s", "2h 5m", "2d 7h"]
        );
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
