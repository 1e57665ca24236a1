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

use std::io::{self, IsTerminal, Write};

use ergodic_common::spec::short;
use ergodic_common::tree::Value;
use ergodic_proto::v1;
use serde_json::json;

pub use file::NewFile;
pub use grid::grid;
pub use latex::{latex, latex_grid, latex_records};
pub use records::{Records, plain};
pub use select::Selection;
pub use several::{side_by_side, tidy, tidy_grids};
#[cfg(feature = "sql")]
pub(super) use sink::Output;
pub use sink::{RowFormat, Sink};
pub use table::{
    best_row, grid_of, incidents, mean_and_interval, people, short_figure, summary_records, trial_records,
};
pub use typed::axis_types;

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
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// An axis value as JSON.
pub fn json_value(value: &v1::AxisValue) -> serde_json::Value {
    match Value::from(value) {
        Value::Bool(b) => json!(b),
        Value::Str(s) => json!(s),
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

/// An axis value in words that no other value has: [`text_value`] is short, and may be rounded.
pub fn exact_value(value: &v1::AxisValue) -> String {
    plain(&json_value(value))
}

/// An axis value for people.
pub fn text_value(value: &v1::AxisValue) -> String {
    short(&Value::from(value))
}
