//! Renders rows: as a table for people, and as JSON, CSV, Markdown, LaTeX or Parquet for machines
//! and papers.

mod arrow;
mod atomic_file;
mod cell_selection;
mod column_selection;
mod human;
mod latex;
mod latex_escape;
mod legend;
mod output_target;
mod pivot;
mod provenance;
mod row_condition;
mod row_notes;
mod row_selection;
mod side_by_side;
mod statistics_data;
mod table_data;
mod table_layout;
mod text_table;
mod trial_data;
mod trial_rows;
mod value_format;
pub(crate) mod watch_grid;

pub use arrow::{column_error, infer_axis_types};
pub use atomic_file::{AtomicFile, file_write_error, is_stream, write_atomic_file};
pub use cell_selection::{SplitSelection, TrialCondition, check_cells_found, is_same_axis};
pub use column_selection::{ViewArgs, choose_batch_columns};
use ergodic_common::spec_file::node::SpecValue;
use ergodic_proto::v1;
pub use human::{
    fit_described_rows, format_estimate, format_incomplete_counts, format_mean_and_interval,
    format_short_number, format_trial_statistics, render_described_rows, render_first_columns,
    render_human_data, render_human_rows, render_human_table, render_result_data,
};
pub use latex::{render_latex, render_latex_data, render_latex_pivot};
pub use legend::{
    RankMarks, collect_caveats, collect_joint_caveats, find_best_row, render_joint_legend,
    render_legend,
};
#[cfg(feature = "sql")]
pub(super) use output_target::OutputWriter;
pub use output_target::{OutputArgs, OutputTarget, RowFormat};
pub(in crate::client) use pivot::TerminalPalette;
pub use pivot::{build_pivot_data, render_pivot};
pub use provenance::{format_provenance, format_shown_trials, format_trial_count};
pub use row_condition::{ColumnValue, QUOTED_VALUES, SelectableRows, find_cell_rows};
pub use row_notes::{
    RANKED_APART, SWEEP_AXIS, add_lines, collect_row_notes, describe_mixed_losses, limit_notes,
};
pub use row_selection::{RowSelection, is_missing_ranks};
use serde_json::json;
pub use side_by_side::{build_tidy_data, build_tidy_pivots, render_side_by_side};
pub use statistics_data::build_summary_data;
pub use table_data::{TableData, format_unquoted, render_table_data};
pub use table_layout::TableLayout;
pub use text_table::TextColumn;
pub(in crate::client) use text_table::{cut_to_width, shorten_in_middle};
pub use trial_data::build_trial_data;
pub use trial_rows::{TrialRows, is_trial_column};
pub use value_format::{AxisFormats, NamedAxisFormats};

pub(in crate::client) use crate::terminal::escape_terminal_controls;
pub use crate::terminal::{
    ScreenSize, can_redraw_stderr, print_stderr_line, should_colour_progress, should_use_colours,
};

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

/// `--format` of commands that print a description, which has no rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum DocumentFormat {
    /// Text for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// The text, unless it is empty, as absent texts are in messages.
pub fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Converts an axis value to JSON; an absent one becomes null.
pub fn json_value(value: &v1::AxisValue) -> serde_json::Value {
    if value.kind.is_none() {
        return serde_json::Value::Null;
    }
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
