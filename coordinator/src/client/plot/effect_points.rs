//! The effects of claims over a quantity of their cells: points with intervals, in the region that is claimed. Of a claim that
//! joins cells, such as a slope, the points are the values of these cells.

use std::collections::BTreeMap;

use ergodic_common::ids::CellIndex;
use ergodic_common::quantity::Figure;
use ergodic_common::spec_file::node::SpecValue;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::cell_names::{describe_common_values, format_axis_names};
use super::curve_series::build_series;
use super::fitted_lines::{CellEffect, describe_joined_effects, fit_slopes};
use super::guides::{compute_guides, describe_guides};
use super::step_units::SweepGrid;
use super::{FigureArgs, PlotKind, RowLevels, bad_input_error, find_facet_axis};
use crate::client::render::{AxisFormats, is_same_axis};
use crate::plot::Scene;
use crate::plot::curves::{
    CurveOverlays, CurveShape, CurvesPlot, MeanCurve, MeanPoint, draw_curves,
};

/// The axis that tells several claims apart.
const CLAIM_AXIS: &str = "claim";

/// Draws the effects of claims, with their names, over x. `verdicts` are those on the claims of the file.
///
/// # Errors
/// No effect has a number, or x has none.
pub(super) fn draw_effect_points(
    grid: &SweepGrid,
    figure: &Figure,
    (claims, x): (&[String], &str),
    verdicts: &v1::VerdictResponse,
) -> Result<Scene, UserError> {
    let effects = select_effects(grid, (claims, x), verdicts)?;
    let table = build_effect_table(grid, &effects, claims.len() > 1);
    let args = FigureArgs {
        facet: figure.facet.clone(),
        ..FigureArgs::new(PlotKind::Curves)
    };
    let facet = find_facet_axis(&table, &args)?;
    let names = AxisFormats::from_table(&table);
    let panels = facet.map(|at| RowLevels::from_table(&table, &names, at));
    let axes = series_axes(&table, &figure.by, claims.len() > 1);
    let series = build_series(&table, &axes, &names);

    let panel_of = panels.as_ref().map(|panels| panels.of_row.as_slice());
    let shown: Vec<(usize, String)> = facet
        .map(|at| (at, table.axes[at].clone()))
        .into_iter()
        .chain(axes.iter().cloned())
        .collect();
    let mut notes = describe_points(figure, &effects);
    notes.extend(describe_common_values(&table, &shown));

    let lines = group_points(&effects, &series.of_row, panel_of);
    let fits = fit_slopes(&grid.spec, &effects, x, (&series.of_row, panel_of));
    notes.extend(describe_joined_effects(&effects, !fits.is_empty()));
    let plot = CurvesPlot {
        metric: name_effects(&effects),
        x_name: x.to_owned(),
        key: format_axis_names(&axes),
        series: series.styles,
        lines,
        panels: panels.map_or_else(Vec::new, |panels| panels.panel_titles()),
        notes,
        log: figure.log.1,
        log_x: figure.log.0,
        shape: CurveShape::Points,
        overlays: CurveOverlays {
            guides: compute_guides(figure, place_range(&effects))?,
            region: common_region(&effects),
            fits,
            ..CurveOverlays::default()
        },
    };
    let title = figure
        .title
        .clone()
        .unwrap_or_else(|| format!("{}: {}", verdicts.name, claims.join(", ")));
    let subtitle = format!(
        "{} · {} trials · {} · {}",
        verdicts.sweep, verdicts.done, verdicts.numerics, verdicts.data
    );
    draw_curves(&plot, &args.build_plot_style(title, subtitle)).map_err(bad_input_error)
}

/// Groups the points of each series in each panel, from left to right. Each effect has a series, and a panel if there are several.
fn group_points(
    effects: &[CellEffect<'_>],
    series_of: &[usize],
    panel_of: Option<&[usize]>,
) -> Vec<MeanCurve> {
    let mut groups: BTreeMap<(usize, usize), Vec<MeanPoint>> = BTreeMap::new();
    for (at, effect) in effects.iter().enumerate() {
        let panel = panel_of.map_or(0, |panels| panels[at]);
        let group = groups.entry((series_of[at], panel)).or_default();
        group.push(effect.point);
    }

    let mut lines = Vec::with_capacity(groups.len());
    for ((series, panel), mut points) in groups {
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        lines.push(MeanCurve {
            series,
            panel,
            points,
            trials: Vec::new(),
        });
    }
    lines
}

/// Selects the effects that are numbers, with their places.
fn select_effects<'a>(
    grid: &SweepGrid,
    (claims, x): (&[String], &str),
    verdicts: &'a v1::VerdictResponse,
) -> Result<Vec<CellEffect<'a>>, UserError> {
    let x = grid
        .spec
        .compile_cell_quantity(x)
        .map_err(bad_input_error)?;
    let mut effects = Vec::new();
    for row in verdicts
        .rows
        .iter()
        .filter(|row| claims.contains(&row.claim))
    {
        for (cell, mean, interval) in list_cell_numbers(row) {
            let place = x.value_in(&grid.spec.grid, cell);
            if place.is_finite() && mean.is_finite() {
                let point = MeanPoint {
                    x: place,
                    mean,
                    interval,
                };
                effects.push(CellEffect { row, cell, point });
            }
        }
    }

    if effects.is_empty() {
        let message = "no effect of its claims is a number yet";
        return Err(bad_input_error(message.to_owned()));
    }
    Ok(effects)
}

/// A number of a cell, with the ends of its interval.
type CellNumber = (CellIndex, f64, Option<(f64, f64)>);

/// The numbers of a verdict that belong to one cell each: the effect, or the values that it joins.
fn list_cell_numbers(row: &v1::ClaimRow) -> Vec<CellNumber> {
    let effect = row.cell.zip(row.effect);
    let effect = effect.map(|(cell, mean)| (CellIndex(cell), mean, row.low.zip(row.high)));
    let joined = row.points.iter().map(|point| {
        let interval = Some((point.low, point.high));
        (CellIndex(point.cell), point.value, interval)
    });
    match row.points.is_empty() {
        true => effect.into_iter().collect(),
        false => joined.collect(),
    }
}

/// The cells of the effects as rows of a table, whose axes tell them apart.
fn build_effect_table(
    grid: &SweepGrid,
    effects: &[CellEffect<'_>],
    names_claims: bool,
) -> v1::TableResponse {
    let mut axes = grid.axis_names();
    if names_claims {
        axes.push(CLAIM_AXIS.to_owned());
    }

    let mut rows = Vec::with_capacity(effects.len());
    for effect in effects {
        let mut values = grid.cell_values(effect.cell);
        if names_claims {
            let claim = SpecValue::Str(effect.row.claim.clone());
            values.push(v1::AxisValue::from(&claim));
        }
        rows.push(v1::TableRow {
            values,
            ..v1::TableRow::default()
        });
    }
    v1::TableResponse {
        axes,
        rows,
        ..v1::TableResponse::default()
    }
}

/// The axes whose values tell series apart: those of the figure, and the claim if there are several.
fn series_axes(
    table: &v1::TableResponse,
    by: &[String],
    names_claims: bool,
) -> Vec<(usize, String)> {
    let last = table.axes.len() - 1;
    let all = table.axes.iter().enumerate();
    let chosen = all.filter(|(at, axis)| {
        (names_claims && *at == last) || by.iter().any(|name| is_same_axis(axis, name))
    });
    chosen.map(|(at, axis)| (at, axis.clone())).collect()
}

/// The name of the vertical axis: what the claim says it is, if there is one claim.
fn name_effects(effects: &[CellEffect<'_>]) -> String {
    let first = effects[0].row;
    let is_joined = effects[0].is_joined();
    if is_joined && effects.iter().all(|effect| effect.row.of == first.of) {
        return first.of.join(", ");
    }
    if effects.iter().any(|effect| effect.row.claim != first.claim) {
        return if is_joined { "value" } else { "effect" }.to_owned();
    }
    match first.what.as_str() {
        "" => format!("{} of {}", first.form, first.of.join(", ")),
        what => what.to_owned(),
    }
}

/// The region of all effects, if they have the same one and it has no gap.
fn common_region(effects: &[CellEffect<'_>]) -> Option<(f64, f64)> {
    let first = effects[0].row;
    if effects[0].is_joined() {
        // The region is that of what the values are joined to.
        return None;
    }
    let mut others = effects.iter().map(|effect| effect.row);
    let is_common = others.all(|row| {
        (row.region_low, row.region_high, row.region_outside)
            == (first.region_low, first.region_high, first.region_outside)
    });
    (is_common && !first.region_outside).then(|| {
        (
            first.region_low.unwrap_or(f64::NEG_INFINITY),
            first.region_high.unwrap_or(f64::INFINITY),
        )
    })
}

/// The first and the last place of the points.
fn place_range(effects: &[CellEffect<'_>]) -> (f64, f64) {
    let places = effects.iter().map(|effect| effect.point.x);
    places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
        (low.min(x), high.max(x))
    })
}

/// Notes on what the points, the band and the lines are.
fn describe_points(figure: &Figure, effects: &[CellEffect<'_>]) -> Vec<String> {
    let level = 100.0 * effects[0].row.level;
    let what = if effects[0].is_joined() {
        "value"
    } else {
        "effect"
    };
    let mut notes = vec![format!(
        "Point and bar: {what} of a cell and its {level:.0} % CI."
    )];
    if common_region(effects).is_some() {
        notes.push("Band: the region that is claimed.".to_owned());
    }
    notes.extend(describe_guides(figure));
    notes
}
