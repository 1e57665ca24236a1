//! Pictures of sweeps, for `ergodic plot` and reports: queries their data, and draws them.

mod cell_names;
mod curve_series;
mod curves;
mod effect_points;
mod file_figures;
mod fitted_lines;
mod guides;
mod maps;
mod options;
mod rows;
mod single_trials;
mod step_units;

use cell_names::describe_hidden_axes;
pub(super) use cell_names::varying_axes;
use curves::CurveFrame;
use ergodic_common::ErrorCode;
use ergodic_common::spec_file::suggest::suggest_nearest;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
pub use file_figures::draw_file_figure;
pub use options::{FigureArgs, PlotKind};

use super::Client;
use super::query::query_status;
use super::render::{
    AxisFormats, collect_row_notes, describe_mixed_losses, format_shown_trials, format_trial_count,
};
use super::status_text::count_done_trials;
use super::sweep_set::SweepSet;
use crate::plot::{AxisLevel, PlotAxis, Scene};

/// Queries the data of a picture, and draws it.
///
/// # Errors
/// There is no such sweep, axis, metric or statistic, nothing to draw, or nobody answers.
pub async fn draw_scene(
    client: &mut Client,
    sweeps: &SweepSet,
    figure: &FigureArgs,
) -> Result<Scene, UserError> {
    figure.check_options()?;
    for sweep in sweeps.ids() {
        check_plot_size("a picture", figure, &query_status(client, sweep).await?)?;
    }

    match figure.kind {
        PlotKind::Heatmap | PlotKind::Scatter | PlotKind::Phase => {
            maps::draw_map(client, sweeps, figure).await
        }
        PlotKind::Curves => {
            curves::draw_curves(client, sweeps, figure, CurveFrame::default()).await
        }
        PlotKind::Distribution => rows::draw_distribution(client, sweeps, figure).await,
        PlotKind::Pairs => {
            rows::draw_pairs(
                client,
                sweeps.require_one("--kind pairs", "`ergodic compare A B` compares two")?,
                figure,
            )
            .await
        }
    }
}

/// Maximum number of cells in a picture.
const MAX_CELLS: u64 = 100_000;
/// Maximum number of cells in a picture with a curve for each.
pub(super) const MAX_CURVES: u64 = 5_000;
/// Maximum number of trials in a picture that shows each.
const MAX_TRIALS: u64 = 2_000_000;

/// Refuses pictures that would be illegible or would exhaust the memory. `what` is the subject of
/// the error.
pub(super) fn check_plot_size(
    what: &str,
    figure: &FigureArgs,
    sweep: &v1::SweepStatus,
) -> Result<(), UserError> {
    let cells = sweep.cells;
    let trials = count_done_trials(sweep);
    let most = if figure.kind == PlotKind::Curves {
        MAX_CURVES
    } else {
        MAX_CELLS
    };

    if cells > most && figure.by.is_empty() {
        return Err(plot_size_error(format!(
            "{what} of {cells} cells cannot be read; at most {most} are shown"
        )));
    }

    let shows_trials =
        figure.trials || matches!(figure.kind, PlotKind::Distribution | PlotKind::Pairs);
    if trials > MAX_TRIALS && shows_trials {
        return Err(plot_size_error(format!(
            "{what} of {trials} trials cannot be read; at most {MAX_TRIALS} are shown"
        )));
    }

    Ok(())
}

fn plot_size_error(problem: String) -> UserError {
    bad_input_error(format!(
        "{problem}: name axes with --by where the kind has that option, pool cells with `ergodic table ID --by AXIS,AXIS`, \
         or get the rows with `ergodic export` or `ergodic sql`"
    ))
}

fn bad_input_error(message: String) -> UserError {
    UserError::new(ErrorCode::BadInput, message)
}

/// Formats `sbtm6suc · 45 trials · glyphs … · cpu-f32/6`.
fn format_subtitle(table: &v1::TableResponse, figure: &FigureArgs) -> String {
    let at = figure
        .at
        .as_ref()
        .map_or_else(String::new, |at| format!("at {at} · "));

    // The rows of differences count pairs, not trials.
    let trials = match figure.kind {
        PlotKind::Pairs => format_trial_count(table.done, table.trials),
        _ => format_shown_trials(table),
    };

    let quantities = match table.quantities.as_str() {
        "" => String::new(),
        quantities => format!(" · {quantities}"),
    };

    format!(
        "{} · {at}{trials} · {} · {}{quantities}",
        table.sweep, table.numerics, table.data
    )
}

fn build_axis_level(words: &AxisFormats, axis: usize, value: &v1::AxisValue) -> AxisLevel {
    let number = match value.kind {
        Some(v1::axis_value::Kind::Number(x)) => Some(x),
        _ => None,
    };
    AxisLevel {
        text: words.format_value(axis, value),
        number,
    }
}

/// Queries which axes of the sweep the table lacks, if axes to group by were named, and describes them.
async fn describe_other_axes(
    client: &mut Client,
    sweeps: &SweepSet,
    figure: &FigureArgs,
    table: &v1::TableResponse,
) -> Result<Vec<String>, UserError> {
    if figure.by.is_empty() {
        return Ok(Vec::new());
    }

    let request = figure.build_table_request(Vec::new(), Vec::new(), "");
    let whole = sweeps.query_table(client, request).await?;
    Ok(describe_hidden_axes(&whole, table))
}

/// Notes on what restricts the intervals and means of a table, for a picture that shows them.
fn describe_caveats(table: &v1::TableResponse) -> Vec<String> {
    let notes = collect_row_notes(table).into_iter();
    let mut caveats: Vec<String> = notes.map(|note| format!("Note: {note}.")).collect();
    caveats.extend(describe_losses(table));
    caveats
}

/// A note on a loss that is another quantity in each sweep.
fn describe_losses(table: &v1::TableResponse) -> Option<String> {
    describe_mixed_losses(table).map(|mixed| format!("Note: {mixed}."))
}

/// Finds the axis of the facets in a table.
///
/// # Errors
/// The table has no such axis, or only one value of it.
fn find_facet_axis(
    table: &v1::TableResponse,
    figure: &FigureArgs,
) -> Result<Option<usize>, UserError> {
    let Some(name) = &figure.facet else {
        return Ok(None);
    };
    let suffix = format!(".{name}");
    let found = table
        .axes
        .iter()
        .position(|axis| axis == name)
        .or_else(|| table.axes.iter().position(|axis| axis.ends_with(&suffix)));
    found.map(Some).ok_or_else(|| {
        UserError::new(
            ErrorCode::NotFound,
            format!(
                "--facet: the sweep has no axis '{name}', {}",
                suggest_nearest(name, table.axes.iter().map(String::as_str))
            ),
        )
    })
}

/// An axis with the levels of a table's rows, and the level of each row.
struct RowLevels {
    axis: PlotAxis,
    /// For each row, the index of its level.
    of_row: Vec<usize>,
}

impl RowLevels {
    fn from_table(table: &v1::TableResponse, words: &AxisFormats, at: usize) -> Self {
        let levels = table
            .rows
            .iter()
            .map(|row| build_axis_level(words, at, &row.values[at]));
        let (axis, of_row) = PlotAxis::from_rows(&table.axes[at], levels);
        Self { axis, of_row }
    }

    /// The titles of panels, of which each level has one: `lr = 0.1`.
    fn panel_titles(&self) -> Vec<String> {
        self.axis
            .levels
            .iter()
            .map(|level| format!("{} = {}", self.axis.name, level.text))
            .collect()
    }
}
