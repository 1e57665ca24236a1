//! Plots of mean curves.

use std::collections::HashMap;

use ergodic_common::ErrorCode;
use ergodic_common::number_format::format_count;
use ergodic_common::program::is_program_class;
use ergodic_common::quantity::StepQuantity;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::cell_names::{describe_common_values, format_axis_names, format_row_name, naming_axes};
use super::curve_series::build_series;
use super::options::CurveUnit;
use super::single_trials::{TrialCurves, TrialFilter, query_trial_curves};
use super::step_units::{StepUnits, SweepGrid, unit_name};
use super::{
    Client, FigureArgs, RowLevels, bad_input_error, describe_caveats, describe_losses,
    describe_other_axes, find_facet_axis, format_subtitle,
};
use crate::client::render::{AxisFormats, check_cells_found, exact_value};
use crate::client::sweep_set::SweepSet;
use crate::plot::Scene;
use crate::plot::curves::{self, CurveOverlays, CurvesPlot, MeanCurve, MeanPoint};

/// What a figure of a sweep file has beyond the options of `ergodic plot`.
#[derive(Default)]
pub(super) struct CurveFrame {
    /// What is drawn beside the curves.
    pub(super) overlays: CurveOverlays,
    /// The horizontal axis in place of `--x`: its name, the grid of the only sweep, and the quantity.
    pub(super) x: Option<(String, SweepGrid, StepQuantity)>,
}

pub(super) async fn draw_curves(
    client: &mut Client,
    sweeps: &SweepSet,
    figure: &FigureArgs,
    frame: CurveFrame,
) -> Result<Scene, UserError> {
    let by = figure.grouping_axes();
    let selection = figure.split_selection(sweeps, &by)?;
    let cells = selection.cells.as_str();
    let request = figure.build_table_request(by.clone(), Vec::new(), cells);
    let mut table = sweeps.query_table(client, request).await?;
    check_cells_found(cells, &table)?;
    let points = query_points(client, sweeps, &by, &table).await?;
    selection
        .rows
        .apply_to_tables(std::slice::from_mut(&mut table))?;

    let (mut units, trials) = query_units_and_trials(client, sweeps, figure, &table, cells).await?;
    let mut x_name = unit_name(figure.x.unwrap_or_default()).to_owned();
    if let Some((name, grid, x)) = frame.x {
        units = grid.collect_quantity(x, &table.axes, cells)?;
        x_name = name;
    }
    let data = CurveData {
        facet: find_facet_axis(&table, figure)?,
        points: group_points(points),
        units,
        trials,
    };
    let shown = if figure.trials { "trials" } else { "95 % CI" };
    let title = format!("{}: {}, mean and {shown}", table.name, table.metric);
    let mut drawn = CurvesPlot {
        x_name,
        log: figure.log,
        log_x: figure.log_x,
        overlays: frame.overlays,
        ..build_curves_plot(&table, data)
    };
    let others = describe_other_axes(client, sweeps, figure, &table).await?;
    drawn.notes.extend(others);
    match figure.trials {
        true => drawn.notes.extend(describe_losses(&table)),
        false => drawn.notes.extend(describe_caveats(&table)),
    }

    curves::draw_curves(
        &drawn,
        &figure.build_plot_style(title, format_subtitle(&table, figure)),
    )
    .map_err(bad_input_error)
}

/// Queries how long steps are and the curves of single trials, as far as the picture shows them. Both need the sweep file, which
/// is read once.
async fn query_units_and_trials(
    client: &mut Client,
    sweeps: &SweepSet,
    figure: &FigureArgs,
    table: &v1::TableResponse,
    cells: &str,
) -> Result<(StepUnits, TrialCurves), UserError> {
    let unit = figure.x.unwrap_or_default();
    let sweep = match (unit, figure.trials) {
        (CurveUnit::Step, false) => return Ok((StepUnits::Steps, TrialCurves::new())),
        (CurveUnit::Step, true) => sweeps.require_one("--trials", "draw each by itself")?,
        _ => sweeps.require_one("--x", "draw each by itself, or over steps")?,
    };

    let grid = SweepGrid::query(client, sweep).await?;
    let units = match unit {
        CurveUnit::Step => StepUnits::Steps,
        _ => grid.collect_units(unit, &table.axes, cells)?,
    };
    if !figure.trials {
        return Ok((units, TrialCurves::new()));
    }

    let wanted = table
        .rows
        .iter()
        .map(|row| exact_values(&row.values))
        .collect();
    let filter = TrialFilter::new(grid, &table.metric, &table.axes, cells)?;
    let trials = query_trial_curves(client, sweep, &filter, &wanted).await?;
    Ok((units, trials))
}

/// Queries the curves of a table's rows, which are at least one.
async fn query_points(
    client: &mut Client,
    sweeps: &SweepSet,
    by: &[String],
    table: &v1::TableResponse,
) -> Result<Vec<v1::CurvePoint>, UserError> {
    let request = v1::CurvesRequest {
        metric: table.metric.clone(),
        by: by.to_vec(),
        cell_condition: table.cell_condition.clone(),
        ..v1::CurvesRequest::default()
    };
    let found = sweeps.query_curves(client, request).await?;

    if found.axes != table.axes {
        let message = "the coordinator's version is too old to pool curves: leave out --by, or update the coordinator";
        return Err(UserError::new(ErrorCode::Version, message));
    }
    if found.points.is_empty() {
        return Err(bad_input_error(explain_no_curves(table)));
    }

    Ok(found.points)
}

fn explain_no_curves(table: &v1::TableResponse) -> String {
    let mut n = 0;
    let mut diverged = 0;
    let mut failed = 0;
    for s in table.rows.iter().filter_map(|row| row.summary.as_ref()) {
        n += s.n;
        diverged += s.diverged;
        failed += s.failed;
    }

    match (n, diverged, failed) {
        (0, 0, 0) => "there is no curve yet: no trial has ended".to_owned(),
        (0, diverged, failed) => {
            format!(
                "there is no curve: of the trials that have ended, {diverged} diverged and {failed} failed"
            )
        }
        _ if is_program_class(&table.numerics) => {
            "there is no curve: the program reports values at no step".to_owned()
        }
        _ => "there is no curve: the sweep samples none; set `every` under [measure]".to_owned(),
    }
}

/// What curves are built of, besides the rows of a table.
struct CurveData {
    /// Position of the facets' axis.
    facet: Option<usize>,
    points: HashMap<Vec<String>, Vec<CurveSample>>,
    units: StepUnits,
    trials: TrialCurves,
}

/// A sample of a mean curve.
struct CurveSample {
    step: u64,
    mean: f64,
    interval: Option<(f64, f64)>,
}

fn build_curves_plot(table: &v1::TableResponse, mut data: CurveData) -> CurvesPlot {
    let naming = naming_axes(table);
    let mut axes = naming.clone();
    axes.retain(|(at, _)| Some(*at) != data.facet);
    let names = AxisFormats::from_table(table);
    let panels = data
        .facet
        .map(|at| RowLevels::from_table(table, &names, at));
    let mut series = build_series(table, &axes, &names);

    let mut lines = Vec::new();
    let mut missing = Vec::new();
    for (position, row) in table.rows.iter().enumerate() {
        let key = exact_values(&row.values);
        let found = data.points.remove(&key).filter(|points| !points.is_empty());
        let Some(points) = found else {
            missing.push((
                format_row_name(row, &naming, &names),
                row.summary.unwrap_or_default(),
            ));
            continue;
        };

        let at = series.of_row[position];
        if data.facet.is_none() {
            series.styles[at].label += &format_diverged_count(&row.summary.unwrap_or_default());
        }
        series.is_drawn[at] = true;
        lines.push(MeanCurve {
            series: at,
            panel: panels.as_ref().map_or(0, |panels| panels.of_row[position]),
            points: convert_points(&points, &key, &data.units),
            trials: convert_trials(data.trials.remove(&key), &key, &data.units),
        });
    }

    let facet = data.facet.map(|at| (at, table.axes[at].clone()));
    let named: Vec<(usize, String)> = naming.into_iter().chain(facet).collect();
    let mut notes: Vec<String> = describe_common_values(table, &named).into_iter().collect();
    notes.extend(format_missing_curves(&missing));
    notes.extend(describe_curve_marks(table, &lines, data.facet.is_some()));
    CurvesPlot {
        metric: table.metric.clone(),
        key: format_axis_names(&axes),
        series: series.keep_drawn(&mut lines),
        lines,
        panels: panels.map_or_else(Vec::new, |panels| panels.panel_titles()),
        notes,
        ..CurvesPlot::default()
    }
}

fn convert_points(points: &[CurveSample], curve: &[String], units: &StepUnits) -> Vec<MeanPoint> {
    points
        .iter()
        .map(|point| MeanPoint {
            x: units.convert_step(curve, point.step),
            mean: point.mean,
            interval: point.interval,
        })
        .collect()
}

fn convert_trials(
    trials: Option<Vec<Vec<(u64, f64)>>>,
    curve: &[String],
    units: &StepUnits,
) -> Vec<Vec<(f64, f64)>> {
    trials
        .unwrap_or_default()
        .into_iter()
        .map(|trial| {
            trial
                .into_iter()
                .map(|(step, value)| (units.convert_step(curve, step), value))
                .collect()
        })
        .collect()
}

/// Explains thin lines, missing bands, and how many trials of facets diverged.
fn describe_curve_marks(
    table: &v1::TableResponse,
    lines: &[MeanCurve],
    has_facets: bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    if lines.iter().any(|line| !line.trials.is_empty()) {
        notes.push("Thin lines: completed trials; thick ones: their mean.".to_owned());
    }

    let mut drawn = lines.iter().flat_map(|line| &line.points);
    if drawn.all(|point| point.interval.is_none()) {
        notes.push("No band: no cell has two completed trials.".to_owned());
    }

    let diverged: u64 = table
        .rows
        .iter()
        .filter_map(|row| row.summary.as_ref())
        .map(|s| s.diverged)
        .sum();
    if has_facets && diverged > 0 {
        let are = if diverged == 1 { "is" } else { "are" };
        notes.push(format!(
            "{} diverged, and {are} in no mean after that.",
            format_count(diverged, "trial")
        ));
    }
    notes
}

/// Groups the points with a mean by the values of their axes.
fn group_points(points: Vec<v1::CurvePoint>) -> HashMap<Vec<String>, Vec<CurveSample>> {
    let mut by_row: HashMap<Vec<String>, Vec<CurveSample>> = HashMap::new();
    for point in points {
        let s = point.summary.unwrap_or_default();
        let Some(mean) = s.mean else { continue };
        by_row
            .entry(exact_values(&point.values))
            .or_default()
            .push(CurveSample {
                step: point.step,
                mean,
                interval: s.ci95_low.zip(s.ci95_high),
            });
    }

    by_row
}

pub(super) fn exact_values(values: &[v1::AxisValue]) -> Vec<String> {
    values.iter().map(exact_value).collect()
}

fn format_diverged_count(s: &v1::Summary) -> String {
    let all = s.n + s.diverged + s.failed;
    if s.diverged > 0 {
        format!("  ({} of {all} div.)", s.diverged)
    } else {
        String::new()
    }
}

/// Describes which cells have no curve, and why.
fn format_missing_curves(missing: &[(String, v1::Summary)]) -> Option<String> {
    let named: Vec<String> = missing
        .iter()
        .take(6)
        .map(|(name, s)| format!("{name} ({})", explain_missing_curve(s)))
        .collect();
    let more = missing.len().saturating_sub(named.len());
    let more = if more > 0 {
        format!("; and {more} more")
    } else {
        String::new()
    };

    (!named.is_empty()).then(|| format!("Without a curve: {}{more}.", named.join("; ")))
}

fn explain_missing_curve(s: &v1::Summary) -> String {
    match (s.n + s.failed, s.diverged) {
        (0, 0) => "no result yet".to_owned(),
        (0, n) => format!("all {n} diverged"),
        _ => "no sample".to_owned(),
    }
}
