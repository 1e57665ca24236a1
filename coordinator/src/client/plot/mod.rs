//! Pictures of sweeps, for `ergodic plot` and reports: queries their data, and draws them.

mod curve_series;
mod curves;
mod effect_points;
mod file_figures;
mod guides;
mod maps;
mod options;
mod rows;
mod single_trials;
mod step_units;

use curves::CurveFrame;
use ergodic_common::ErrorCode;
use ergodic_common::spec_file::suggest::suggest_nearest;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
pub use file_figures::draw_file_figure;
pub use options::{FigureArgs, PlotKind};

use super::Client;
use super::query::query_status;
use super::render::{AxisFormats, format_shown_trials, format_trial_count};
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

/// The axes whose values differ between rows: positions and names.
pub(super) fn varying_axes(table: &v1::TableResponse) -> Vec<(usize, String)> {
    let mut varying = Vec::new();
    for (at, name) in table.axes.iter().enumerate() {
        let mut values = table.rows.iter().map(|row| &row.values[at]);
        let first = values.next();
        if values.any(|value| Some(value) != first) {
            varying.push((at, name.clone()));
        }
    }

    varying
}

/// Formats the name of a row, from the values that distinguish it: `0.1 · adamw`.
fn format_row_name(row: &v1::TableRow, axes: &[(usize, String)], words: &AxisFormats) -> String {
    axes.iter()
        .map(|(at, _)| words.format_value(*at, &row.values[*at]))
        .collect::<Vec<_>>()
        .join(" · ")
}

/// Formats the axes of rows' names: `lr · optimizer.kind`.
fn format_axis_names(axes: &[(usize, String)]) -> String {
    axes.iter()
        .map(|(_, name)| name.as_str())
        .collect::<Vec<_>>()
        .join(" · ")
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

/// Describes the axes of the sweep that the table pools over, and the cells that it does not have.
fn format_pooled_axes(all: &[String], table: &v1::TableResponse) -> Option<String> {
    let others: Vec<&str> = all
        .iter()
        .filter(|axis| !table.axes.contains(axis))
        .map(String::as_str)
        .collect();
    let condition = &table.cell_condition;
    match (others.is_empty(), condition.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("Cells with {condition}.")),
        (false, true) => Some(format!("Pooled over {}.", others.join(", "))),
        (false, false) => Some(format!(
            "Pooled over {}, cells with {condition}.",
            others.join(", ")
        )),
    }
}

/// Queries the axes of the sweep that the table pools over, if axes to group by were named.
async fn query_pooled_axes(
    client: &mut Client,
    sweeps: &SweepSet,
    figure: &FigureArgs,
    table: &v1::TableResponse,
) -> Result<Option<String>, UserError> {
    if figure.by.is_empty() {
        return Ok(None);
    }

    let request = figure.build_table_request(Vec::new(), Vec::new(), "");
    let whole = sweeps.query_table(client, request).await?;
    Ok(format_pooled_axes(&whole.axes, table))
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
