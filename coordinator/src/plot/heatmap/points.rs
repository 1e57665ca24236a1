//! Cells as points, for random values, which form no grid.

use crate::plot::axis::AxisScale;
use crate::plot::clip::is_within;
use crate::plot::colour::{Colour, GREY, INK, SERIES};
use crate::plot::heatmap::colour_scale::ColourScale;
use crate::plot::heatmap::{Heatmap, HeatmapCell};
use crate::plot::scene::{Area, Fill, Scene, Stroke};
use crate::plot::{AxisLimits, PlotAxis, PlotStyle};

/// Whether cells are drawn as points: random values form a grid that is nearly empty.
pub(super) fn is_scattered(map: &Heatmap) -> bool {
    let places = map.rows.levels.len() * map.columns.levels.len();
    let cells = map.cells.len() / map.panels.len().max(1);
    places >= 25 && places > 4 * cells && map.rows.is_numeric() && map.columns.is_numeric()
}

/// Refuses points on an axis of words.
pub(super) fn check_scatter_axes(map: &Heatmap) -> Result<(), String> {
    for axis in [&map.rows, &map.columns] {
        if let Some(level) = axis.levels.iter().find(|level| level.number.is_none()) {
            return Err(format!(
                "--kind scatter: expected two axes of numbers, and '{}' has the value '{}': choose with --rows and --cols, or \
                 use --kind heatmap",
                axis.name, level.text
            ));
        }
    }
    Ok(())
}

/// The scales of the vertical and the horizontal axis of points, with the limits that are given.
///
/// # Errors
/// Limits do not fit the scale, or no point lies within them.
pub(super) fn choose_point_scales(
    map: &Heatmap,
    look: &PlotStyle,
) -> Result<[AxisScale; 2], String> {
    let ends = [
        limit_point_scale(&map.rows, &look.y_limits, "--ylim")?,
        limit_point_scale(&map.columns, &look.x_limits, "--xlim")?,
    ];

    let is_shown = |cell: &HeatmapCell| {
        let numbers = [&map.rows.levels[cell.row], &map.columns.levels[cell.column]];
        let mut placed = numbers.iter().zip(&ends);
        placed.all(|(level, scale)| level.number.is_some_and(|x| scale.contains(x)))
    };
    if !map.cells.iter().any(is_shown) {
        return Err("--xlim and --ylim: no cell lies within both: choose wider limits".to_owned());
    }
    Ok(ends)
}

fn limit_point_scale(
    factor: &PlotAxis,
    limits: &AxisLimits,
    option: &str,
) -> Result<AxisScale, String> {
    let data = number_range(factor);
    limits.apply_to_axis(point_scale(data), data, option)
}

/// The smallest and the largest value of an axis of numbers, whose levels ascend.
fn number_range(factor: &PlotAxis) -> [f64; 2] {
    let numbers: Vec<f64> = factor
        .levels
        .iter()
        .filter_map(|level| level.number)
        .collect();
    let low = numbers.first().copied().unwrap_or(0.0);
    let high = numbers.last().copied().unwrap_or(1.0);
    [low, high]
}

/// The scale of an axis of points: logarithmic if its values span a factor of 20.
fn point_scale([low, high]: [f64; 2]) -> AxisScale {
    AxisScale::from_range(low, high, low > 0.0 && high / low >= 20.0).with_padding(0.04)
}

pub(super) fn scaled_name(factor: &PlotAxis, scale: &AxisScale) -> String {
    if scale.log {
        format!("{} (log scale)", factor.name)
    } else {
        factor.name.clone()
    }
}

pub(super) fn draw_points(
    scene: &mut Scene,
    map: &Heatmap,
    panel: usize,
    area: Area,
    ends: &[AxisScale; 2],
    colours: &ColourScale,
) {
    let radius = match map.cells.len() {
        0..=60 => 6.5,
        61..=300 => 5.0,
        _ => 3.5,
    };
    for cell in map.cells.iter().filter(|cell| cell.panel == panel) {
        let row = map.rows.levels[cell.row].number;
        let column = map.columns.levels[cell.column].number;
        let (Some(row), Some(column)) = (row, column) else {
            continue;
        };

        let x = area.left + ends[1].free_position_of(column) * area.width();
        let y = area.bottom - ends[0].free_position_of(row) * area.height();
        if !is_within((x, y), area) {
            continue;
        }
        let colour = cell.value.map(|value| colours.colour_of(value));
        draw_point(scene, (x, y), radius, colour, map.is_crossed(cell));
    }
}

/// Draws a dot in the colour of the value. Without a value, draws a cross if all trials diverged,
/// and a dashed circle otherwise.
fn draw_point(
    scene: &mut Scene,
    (x, y): (f64, f64),
    radius: f64,
    colour: Option<Colour>,
    is_crossed: bool,
) {
    if let Some(colour) = colour {
        let fill = Fill {
            colour,
            opacity: 1.0,
        };
        scene.add_circle((x, y), radius, Some(fill), Some(Stroke::new(INK, 0.7)));
    } else if is_crossed {
        let cross = Stroke::new(SERIES[1], 1.6);
        scene.add_line(vec![(x - 4.0, y - 4.0), (x + 4.0, y + 4.0)], cross);
        scene.add_line(vec![(x - 4.0, y + 4.0), (x + 4.0, y - 4.0)], cross);
    } else {
        let dashed = Stroke {
            dash: &[1.5, 1.5],
            ..Stroke::new(GREY, 0.8)
        };
        scene.add_circle((x, y), radius, None, Some(dashed));
    }
}
