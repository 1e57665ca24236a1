//! Printing: the same rows as a table for people, and as JSON, CSV, Markdown, LaTeX or Parquet for machines and papers.

mod file;
mod grid;
mod latex;
mod records;
mod select;
mod several;
mod sink;
mod table;
mod typed;
mod words;

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use ergodic_common::text::{escape_lines, is_misleading};
use ergodic_common::tree::SpecValue;
use ergodic_proto::v1;
use serde_json::json;

pub use file::{NewFile, is_stream, unwritten, write_file};
pub use grid::grid;
pub use latex::{latex, latex_grid, latex_records};
pub use records::{Records, plain};
pub use select::{Selection, lacks_places};
pub use several::{side_by_side, tidy, tidy_grids};
#[cfg(feature = "sql")]
pub(super) use sink::Output;
pub use sink::{RowFormat, Sink};
pub use table::{
    best_row, estimate, figures_of_trials, grid_of, incidents, legend, legends, mark, mean_and_interval, people,
    short_figure, summary_records, trial_records,
};
pub use typed::axis_types;
pub use words::{AxisWords, NamedAxisWords};

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// A Markdown table.
    Md,
    /// A LaTeX table for the package booktabs.
    Latex,
}

/// Whether colours may be used on stdout.
pub fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Writes to stdout. A reader that has gone away, such as `head`, is no error.
///
/// # Errors
/// Stdout cannot be written for another reason.
pub fn print(text: &str) -> io::Result<()> {
    let text = guarded(text, colours());
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Text in which nothing moves a cursor: the last to look at what others may have written. Colours may be in it.
pub(in crate::client) fn guarded(text: &str, colours: bool) -> Cow<'_, str> {
    if !text.chars().any(|c| is_misleading(c) && !matches!(c, '\n' | '\t')) {
        return Cow::Borrowed(text);
    }
    let mut parts = text.split("\u{1b}[");
    let mut out = clean(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find(|c: char| !(c.is_ascii_digit() || c == ';'));
        match end.filter(|end| colours && part[*end..].starts_with('m')) {
            Some(end) => out += &format!("\u{1b}[{}{}", &part[..end], clean(&part[end..])),
            None => out += &clean(&format!("\u{1b}[{part}")),
        }
    }
    Cow::Owned(out)
}

fn clean(text: &str) -> String {
    text.split('\t').map(escape_lines).collect::<Vec<_>>().join("\t")
}

/// An axis value as JSON.
pub fn json_value(value: &v1::AxisValue) -> serde_json::Value {
    match SpecValue::from(value) {
        SpecValue::Bool(b) => json!(b),
        SpecValue::Str(s) => json!(s),
        other => json_number(other.as_f64()),
    }
}

/// A number as JSON: whole ones without a point, absent and non-finite ones as null.
pub fn json_number(x: Option<f64>) -> serde_json::Value {
    match x.filter(|x| x.is_finite()) {
        None => serde_json::Value::Null,
        Some(x) if x.fract() == 0.0 && x.abs() < 9e15 => json!(x as i64),
        Some(x) => json!(x),
    }
}

/// An axis value in words that no other value has.
pub fn exact_value(value: &v1::AxisValue) -> String {
    plain(&json_value(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_let_through_where_there_are_any_and_nothing_else_is() {
        let text = "\u{1b}[1;32m★ 0.5\u{1b}[0m\tä\n\u{1b}[2J\u{9b}1m\u{1b}]0;x\u{7}";
        let rest = "\tä\n\\u001b[2J\\u009b1m\\u001b]0;x\\u0007";
        assert_eq!(guarded(text, true), format!("\u{1b}[1;32m★ 0.5\u{1b}[0m{rest}"));
        assert_eq!(guarded(text, false), format!("\\u001b[1;32m★ 0.5\\u001b[0m{rest}"));
        assert!(matches!(guarded("plain\n", false), Cow::Borrowed(_)));
        // What was JSON stays JSON, and says the same.
        let object = serde_json::json!({ "cause": "\u{9b}x\u{202e}\u{e0041}\u{7f}" });
        let back: serde_json::Value = serde_json::from_str(&guarded(&object.to_string(), false)).expect("JSON");
        assert_eq!(back, object);
    }
}
