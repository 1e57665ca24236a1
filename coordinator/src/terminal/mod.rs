//! The terminal of a command: text on stdout, through a pager if it is long, and lines on stderr. Nothing that others have written
//! can move the cursor.

mod pager;
mod printed_text;
mod screen;

use std::borrow::Cow;
use std::io::{self, Write};

use ergodic_common::escape::{escape_lines, is_misleading};
pub use pager::show_on_stdout;
pub use printed_text::PrintedText;
pub use screen::{ScreenSize, can_redraw_stderr, should_colour_progress, should_use_colours};

/// Writes to stdout. A reader that closes the pipe, such as `head`, is no error.
///
/// # Errors
/// Stdout cannot be written for another reason.
pub fn write_stdout(text: &str) -> io::Result<()> {
    let text = escape_for_stdout(text);
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Escapes everything that moves a cursor; colours stay if stdout shows them.
fn escape_for_stdout(text: &str) -> Cow<'_, str> {
    escape_terminal_controls(text, should_use_colours())
}

/// Prints a line on stderr. A closed stderr is ignored, because it is no reason to stop.
#[allow(clippy::print_stderr, reason = "progress and prose belong on stderr")]
pub fn print_stderr_line(line: &str) {
    let _ = writeln!(io::stderr(), "{}", escape_lines(line));
}

/// Escapes everything that moves a cursor: the last check of text that others may have written.
/// Colour sequences stay if `colours` is set.
pub(crate) fn escape_terminal_controls(text: &str, colours: bool) -> Cow<'_, str> {
    if !text
        .chars()
        .any(|c| is_misleading(c) && !matches!(c, '\n' | '\t'))
    {
        return Cow::Borrowed(text);
    }

    let mut parts = text.split("\u{1b}[");
    let mut out = escape_keeping_tabs(parts.next().unwrap_or_default());

    for part in parts {
        let end = part.find(|c: char| !(c.is_ascii_digit() || c == ';'));
        match end.filter(|end| colours && part[*end..].starts_with('m')) {
            Some(end) => {
                out += &format!(
                    "\u{1b}[{}{}",
                    &part[..end],
                    escape_keeping_tabs(&part[end..])
                )
            }
            None => out += &escape_keeping_tabs(&format!("\u{1b}[{part}")),
        }
    }

    Cow::Owned(out)
}

fn escape_keeping_tabs(text: &str) -> String {
    text.split('\t')
        .map(escape_lines)
        .collect::<Vec<_>>()
        .join("\t")
}

#[cfg(test)]
mod tests {
    use crate::terminal::*;

    #[test]
    fn colours_are_let_through_where_there_are_any_and_nothing_else_is() {
        let text = "\u{1b}[1;32m★ 0.5\u{1b}[0m\tä\n\u{1b}[2J\u{9b}1m\u{1b}]0;x\u{7}";
        let rest = "\tä\n\\u001b[2J\\u009b1m\\u001b]0;x\\u0007";
        assert_eq!(
            escape_terminal_controls(text, true),
            format!("\u{1b}[1;32m★ 0.5\u{1b}[0m{rest}")
        );

        assert_eq!(
            escape_terminal_controls(text, false),
            format!("\\u001b[1;32m★ 0.5\\u001b[0m{rest}")
        );
        assert!(matches!(
            escape_terminal_controls("plain\n", false),
            Cow::Borrowed(_)
        ));

        // What was JSON stays JSON, and says the same.
        let object = serde_json::json!({ "cause": "\u{9b}x\u{202e}\u{e0041}\u{7f}" });
        let back: serde_json::Value =
            serde_json::from_str(&escape_terminal_controls(&object.to_string(), false))
                .expect("JSON");
        assert_eq!(back, object);
    }
}
