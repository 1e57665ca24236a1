//! What the terminal can show: its size, colours, and whether it can move a cursor.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

/// Columns and lines of a terminal that does not say how many it has.
const DEFAULT_SIZE: ScreenSize = ScreenSize {
    columns: 80,
    lines: 24,
};

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScreenSize {
    /// Number of columns.
    pub columns: usize,
    /// Number of lines.
    pub lines: usize,
}

impl ScreenSize {
    /// The size of the terminal at a stream; 80 × 24 if it does not say.
    pub fn of(stream: impl AsFd) -> Self {
        let size = rustix::termios::tcgetwinsize(stream)
            .ok()
            .filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or(DEFAULT_SIZE, |size| Self {
            columns: usize::from(size.ws_col),
            lines: usize::from(size.ws_row),
        })
    }
}

/// Whether stdout is a terminal that shows colours, and `NO_COLOR` does not forbid them.
pub fn should_use_colours() -> bool {
    io::stdout().is_terminal() && !is_dumb_terminal() && !are_colours_forbidden()
}

/// Whether progress on stderr has colours: where it is redrawn, and `NO_COLOR` does not forbid them.
pub fn should_colour_progress() -> bool {
    can_redraw_stderr() && !are_colours_forbidden()
}

fn are_colours_forbidden() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Whether progress can be redrawn on stderr: it is a terminal that can move its cursor.
pub fn can_redraw_stderr() -> bool {
    io::stderr().is_terminal() && !is_dumb_terminal()
}

/// Whether the terminal knows no escape sequences.
pub(super) fn is_dumb_terminal() -> bool {
    std::env::var_os("TERM").is_some_and(|name| name == OsStr::new("dumb"))
}
