//! Renders rows: as a table for people, and as JSON, CSV, Markdown, LaTeX or Parquet for machines
//! and papers.

mod arrow;
mod atomic_file;
mod cell_selection;
mod column_selection;
mod human;
mod latex;
mod legend;
mod output_target;
mod pager;
mod pivot;
mod row_condition;
mod row_selection;
mod screen;
mod side_by_side;
mod statistics_data;
mod table_data;
mod text_table;
mod trial_data;
mod trial_rows;
mod value_format;
pub(crate) mod watch_grid;

use std::borrow::Cow;
use std::io::{self, Write};

pub use arrow::{column_error, infer_axis_types};
pub use atomic_file::{AtomicFile, file_write_error, is_stream, write_atomic_file};
pub use cell_selection::{SplitSelection, TrialCondition, check_cells_found};
pub use column_selection::{ViewArgs, choose_batch_columns};
use ergodic_common::escape::{escape_lines, is_misleading};
use ergodic_common::spec_file::node::SpecValue;
use ergodic_proto::v1;
pub use human::{
    format_estimate, format_incomplete_counts, format_mean_and_interval, format_short_number,
    format_trial_statistics, render_first_columns, render_human_data, render_human_rows,
    render_human_table, render_result_data,
};
pub use latex::{render_latex, render_latex_data, render_latex_pivot};
pub use legend::{RankMarks, find_best_row, render_joint_legend, render_legend};
#[cfg(feature = "sql")]
pub(super) use output_target::OutputWriter;
pub use output_target::{OutputArgs, OutputTarget, RowFormat};
pub use pager::show_on_stdout;
pub(in crate::client) use pivot::TerminalPalette;
pub use pivot::{build_pivot_data, render_pivot};
pub use row_condition::{ColumnValue, SelectableRows, find_cell_rows};
pub use row_selection::{RowSelection, is_missing_ranks};
pub use screen::{
    ScreenSize, TableLayout, can_redraw_stderr, should_colour_progress, should_use_colours,
};
use serde_json::json;
pub use side_by_side::{build_tidy_data, build_tidy_pivots, render_side_by_side};
pub use statistics_data::build_summary_data;
pub use table_data::{TableData, format_unquoted, render_table_data};
pub(in crate::client) use text_table::cut_to_width;
pub use trial_data::build_trial_data;
pub use trial_rows::TrialRows;
pub use value_format::{AxisFormats, NamedAxisFormats};

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum TextFormat {
    /// A table for people.
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
pub(in crate::client) fn escape_terminal_controls(text: &str, colours: bool) -> Cow<'_, str> {
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

/// The text, unless it is empty, as absent texts are in messages.
pub fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Converts an axis value to JSON.
pub fn json_value(value: &v1::AxisValue) -> serde_json::Value {
    match SpecValue::from(value) {
        SpecValue::Bool(b) => json!(b),
        SpecValue::Str(s) => json!(s),
        other => json_number(other.as_f64()),
    }
}

/// Converts a number to JSON: whole ones without a point, absent and non-finite ones as null.
pub fn json_number(x: Option<f64>) -> serde_json::Value {
    match x.filter(|x| x.is_finite()) {
        None => serde_json::Value::Null,
        Some(x) if x.fract() == 0.0 && x.abs() < 9e15 => json!(x as i64),
        Some(x) => json!(x),
    }
}

/// Formats an axis value so that no other value has the same text.
pub fn exact_value(value: &v1::AxisValue) -> String {
    format_unquoted(&json_value(value))
}

#[cfg(test)]
mod tests {
    use crate::client::render::*;

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
