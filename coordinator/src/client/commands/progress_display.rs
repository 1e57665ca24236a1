//! The display of a sweep's progress on stderr: redrawn on a terminal, lines elsewhere.

use std::time::{Duration, Instant};

use ergodic_common::number_format::format_count;
use ergodic_proto::v1;
use indicatif::{ProgressBar, ProgressStyle};

use crate::client::render::watch_grid::render_watch_grid;
use crate::client::render::{
    ScreenSize, TerminalPalette, can_redraw_stderr, cut_to_width, escape_terminal_controls,
    print_stderr_line, should_colour_progress,
};
use crate::client::status_text::{
    StatusSource, count_done_trials, expected_trials, format_audit_status, format_halving_status,
    format_incomplete_counts, format_precision_status, format_progress, status_word,
};

/// Time between two lines without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Where the progress of a sweep is shown.
pub(super) struct ProgressDisplay {
    bar: Option<ProgressBar>,
    source: StatusSource,
    /// What lines begin with.
    prefix: String,
    last_line: Option<Instant>,
    last_notes: Vec<String>,
}

impl ProgressDisplay {
    /// A display that is redrawn on a terminal, and made of lines elsewhere. They begin with the title, unless it is empty.
    pub(super) fn new(source: StatusSource, title: &str) -> Self {
        let prefix = match title {
            "" => String::new(),
            title => format!("{title}: "),
        };
        let bar = can_redraw_stderr().then(|| {
            let style = ProgressStyle::with_template("{msg}\n{wide_bar} {pos}/{len}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self {
            bar,
            source,
            prefix,
            last_line: None,
            last_notes: Vec::new(),
        }
    }

    /// Shows the status of a sweep, with its grid if there is room, and `notes` below.
    pub(super) fn show_status(
        &mut self,
        status: &v1::SweepStatus,
        grid: Option<&v1::WatchGrid>,
        notes: &[String],
    ) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(expected_trials(status));
                bar.set_position(count_done_trials(status));
                let progress = render_progress(status, self.source, grid, notes);
                bar.set_message(match self.prefix.as_str() {
                    "" => progress,
                    prefix => format!("{}\n{progress}", prefix.trim_end()),
                });
            }
            None if self.is_line_due() || self.last_notes != notes => {
                self.last_line = Some(Instant::now());
                self.last_notes = notes.to_vec();
                let line = format_progress_line(status, self.source, notes);
                print_stderr_line(&format!("{}{line}", self.prefix));
            }
            None => {}
        }
    }

    /// Whether it is time for a line, where progress is not redrawn.
    fn is_line_due(&self) -> bool {
        let last = self.last_line;
        last.is_none_or(|at| at.elapsed() >= LINE_INTERVAL)
    }

    /// Shows a message in place of the status.
    pub(super) fn show_message(&mut self, message: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(message.to_owned()),
            None if self.is_line_due() => {
                self.last_line = Some(Instant::now());
                print_stderr_line(message);
            }
            None => {}
        }
    }

    /// Clears the display, and prints how the sweep ended.
    pub(super) fn finish(&self, status: &v1::SweepStatus) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }

        let state = status_word(status);
        print_stderr_line(&format!(
            "{}{state}: {}/{}  {}",
            self.prefix,
            count_done_trials(status),
            format_count(status.trials, "trial"),
            format_incomplete_counts(status)
        ));

        if !status.withheld.is_empty() {
            print_stderr_line(&format!("NONE OF ITS TRIALS ARE RUN: {}", status.withheld));
        }

        if status.mismatches > 0 && !status.may_differ {
            print_stderr_line(&format!(
                "ALARM: {} delivered again with different bits; see `ergodic explain {}`",
                format_count(status.mismatches, "result"),
                status.id
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

impl Drop for ProgressDisplay {
    /// Clears what is drawn, also if the user interrupts the program.
    fn drop(&mut self) {
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            bar.finish_and_clear();
        }
    }
}

/// Renders what is above the progress bar: the grid, the numbers, and the notes.
fn render_progress(
    status: &v1::SweepStatus,
    source: StatusSource,
    grid: Option<&v1::WatchGrid>,
    notes: &[String],
) -> String {
    let size = ScreenSize::of(std::io::stderr());
    // One column stays free, because some terminals wrap a full line.
    let width = size.columns.saturating_sub(1).max(1);
    let colours = should_colour_progress();

    let mut below = wrap_description(&format_progress(status, source), width);
    below.extend(notes.iter().map(|note| cut_to_width(note, width)));
    let room = ScreenSize {
        columns: width,
        // The bar has a line, and a line stays free below it.
        lines: size.lines.saturating_sub(below.len() + 2),
    };
    let palette = colours.then(TerminalPalette::from_environment);
    let mut lines = grid.map_or_else(Vec::new, |grid| {
        render_watch_grid(grid, &status.metric, room, palette)
    });

    lines.extend(below);
    escape_terminal_controls(&lines.join("\n"), colours).into_owned()
}

/// Formats a line of progress, such as `12/about 40 trials  3.1/s  waits: …`.
fn format_progress_line(
    status: &v1::SweepStatus,
    source: StatusSource,
    notes: &[String],
) -> String {
    let expected = expected_trials(status);
    let about = if expected > status.trials {
        "about "
    } else {
        ""
    };
    let mut line = format!(
        "{}/{about}{}  {}",
        count_done_trials(status),
        format_count(expected, "trial"),
        format_progress(status, source)
    );
    for note in notes {
        line += &format!("  {note}");
    }
    line
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
    use crate::client::commands::progress_display::*;

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
