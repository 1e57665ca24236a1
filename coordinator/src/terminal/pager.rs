//! Shows text on stdout, through a pager if it is longer than the terminal.

use std::io::{self, IsTerminal, Write};
use std::process::{Child, Command, Stdio};

use tokio::signal::unix::{SignalKind, signal};
use unicode_width::UnicodeWidthStr;

use super::screen::{ScreenSize, is_dumb_terminal};
use super::{escape_for_stdout, write_stdout};

/// The pager if no variable names another one.
const DEFAULT_PAGER: &str = "less";
/// What `less` does if `LESS` does not say: it ends if the text fits, keeps colours, and leaves the
/// text on the screen. Git sets the same.
const LESS_OPTIONS: &str = "FRX";
/// Exit codes of a shell that could not start a command.
const NOT_STARTED: [i32; 2] = [126, 127];

/// Writes text to stdout. On a terminal with fewer lines, a pager shows it, unless `paged` forbids
/// it; a pager that is missing or ends early is no error.
///
/// # Errors
/// Stdout cannot be written.
pub fn show_on_stdout(text: &str, paged: bool) -> io::Result<()> {
    let stdout = io::stdout();
    if !paged || !stdout.is_terminal() || is_dumb_terminal() {
        return write_stdout(text);
    }
    if count_screen_lines(text, ScreenSize::of(&stdout).columns) < ScreenSize::of(&stdout).lines {
        return write_stdout(text);
    }

    match choose_pager(|name| std::env::var(name).ok()) {
        Some(pager) if is_shown_by(&pager, &escape_for_stdout(text)) => Ok(()),
        _ => write_stdout(text),
    }
}

/// The command line of the pager: that of `ERGODIC_PAGER`, of `PAGER`, or `less`. `None` if it is
/// empty or `cat`.
fn choose_pager(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let named = variable("ERGODIC_PAGER").or_else(|| variable("PAGER"));
    let line = named.unwrap_or_else(|| DEFAULT_PAGER.to_owned());
    Some(line.trim().to_owned()).filter(|line| !line.is_empty() && line != "cat")
}

/// Number of lines that a text takes on a terminal, which wraps long ones. Escape sequences count
/// as text: too many lines start a pager that ends at once.
fn count_screen_lines(text: &str, columns: usize) -> usize {
    let rows = |line: &str| line.width().div_ceil(columns.max(1)).max(1);
    text.lines().map(rows).sum()
}

/// Shows text through a pager; returns whether the pager could be started.
fn is_shown_by(pager: &str, text: &str) -> bool {
    // Ctrl-C is for the pager, in which it stops a search: this program waits for the pager's end.
    let _interrupts = signal(SignalKind::interrupt());
    let Ok(mut child) = start_pager(pager) else {
        return false;
    };

    if let Some(mut input) = child.stdin.take() {
        // A pager that has ended reads no more, which is what its user wanted.
        let _ = input.write_all(text.as_bytes());
    }

    match child.wait() {
        Ok(status) => status
            .code()
            .is_none_or(|code| !NOT_STARTED.contains(&code)),
        Err(_) => true,
    }
}

fn start_pager(pager: &str) -> io::Result<Child> {
    let mut command = pager_command(pager);
    let defaults = [
        ("LESS", LESS_OPTIONS),
        ("LESSCHARSET", "utf-8"),
        ("LV", "-c"),
    ];
    for (name, value) in defaults {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }

    command.stdin(Stdio::piped()).spawn()
}

/// The command of a line: the program itself where the line has plain words only, so that a missing
/// one is noticed without a message of the shell.
fn pager_command(line: &str) -> Command {
    let is_plain = line
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || " -_./=+:,%@".contains(c));
    let mut words = line.split_whitespace();
    match words.next().filter(|word| is_plain && !word.contains('=')) {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(words);
            command
        }
        None => {
            let mut command = Command::new("sh");
            command.args(["-c", line]);
            command
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::terminal::pager::*;

    fn chosen(variables: &[(&str, &str)]) -> Option<String> {
        choose_pager(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_own_variable_comes_before_the_general_one() {
        assert_eq!(chosen(&[]).as_deref(), Some("less"));
        assert_eq!(chosen(&[("PAGER", "more")]).as_deref(), Some("more"));
        let both = [("PAGER", "more"), ("ERGODIC_PAGER", "less -S")];
        assert_eq!(chosen(&both).as_deref(), Some("less -S"));
        assert_eq!(chosen(&[("PAGER", "more"), ("ERGODIC_PAGER", "")]), None);
        assert_eq!(chosen(&[("PAGER", "cat")]), None);
    }

    #[test]
    fn long_lines_take_several_lines_of_the_screen() {
        assert_eq!(count_screen_lines("a\n\nb\n", 80), 3);
        assert_eq!(count_screen_lines(&format!("{}\n", "x".repeat(161)), 80), 3);
    }

    #[test]
    fn plain_words_need_no_shell() {
        let program = |line| pager_command(line).get_program().to_owned();
        assert_eq!(program("less -FRX"), "less");
        assert_eq!(program("LESS=R less"), "sh");
        assert_eq!(program("less | tee x"), "sh");
    }
}
