//! The room that a table has.

use std::io::{self, IsTerminal};

use crate::terminal::{ScreenSize, should_use_colours};

/// The narrowest terminal that tables are fitted to, in columns.
const MIN_COLUMNS: usize = 20;

/// The room for a table, and whether it may have colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLayout {
    /// Maximum number of columns of a line, in characters; `None` for any number.
    pub width: Option<usize>,
    /// Whether colours are shown.
    pub colours: bool,
}

impl TableLayout {
    /// The layout of files and pipes: every column, no colours.
    pub const PLAIN: Self = Self {
        width: None,
        colours: false,
    };

    /// The layout of stdout: the width of a terminal, unless all columns are asked for.
    pub fn for_stdout(wide: bool) -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::PLAIN;
        }
        let columns = ScreenSize::of(stdout).columns.max(MIN_COLUMNS);

        Self {
            width: Some(columns).filter(|_| !wide),
            colours: should_use_colours(),
        }
    }
}
