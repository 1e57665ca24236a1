//! Heat maps: a number per cell of two axes as colour. Phase diagrams are heat maps of shares with
//! contours.

mod caveats;
mod cells;
mod colour_bar;
mod contours;
mod names;
mod points;
mod texts;

use super::axis::AxisScale;
use super::frame::{self, PlotSheet, TEXT_SIZE};
use super::scene::{Area, Scene};
use super::{PlotAxis, PlotStyle};
use crate::plot::heatmap::caveats::{describe_emptiness, describe_marks};
use crate::plot::heatmap::cells::{CellGrid, draw_cells};
use crate::plot::heatmap::colour_bar::{colour_bar_width, draw_colour_bar};
use crate::plot::heatmap::contours::{draw_contours, find_contours, label_contours};
use crate::plot::heatmap::names::{
    draw_column_names, draw_row_names, is_turned, turned_label_height,
};
use crate::plot::heatmap::points::{draw_points, is_scattered, point_scale, scaled_name};
use crate::plot::heatmap::texts::CellTexts;

/// A cell of the grid.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatmapCell {
    /// Index of the level on the rows' axis.
    pub row: usize,
    /// Index of the level on the columns' axis.
    pub column: usize,
    /// Number of the cell, if it has one. An infinite number has no colour.
    pub value: Option<f64>,
    /// Half the width of the number's confidence interval, which is written below it.
    pub half_width: Option<f64>,
    /// Numbers of completed, diverged and failed trials.
    pub trials: [u64; 3],
}

/// The trials that a cell's number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedTrials {
    /// Completed trials.
    Completed,
    /// Completed and diverged trials.
    Both,
    /// Diverged trials; the number is the time of divergence.
    Diverged,
    /// All trials; the number is their count.
    Counts,
}

/// The content of a heat map.
#[derive(Debug, Clone)]
pub struct Heatmap {
    /// The vertical axis.
    pub rows: PlotAxis,
    /// The horizontal axis.
    pub columns: PlotAxis,
    /// Cells of the sweep, in any order; other positions stay empty.
    pub cells: Vec<HeatmapCell>,
    /// Name of the numbers.
    pub name: String,
    /// The trials that the numbers count.
    pub counted_trials: CountedTrials,
    /// Whether cells of the sweep were left out.
    pub partial: bool,
    /// Whether the numbers are shares from 0 to 1, with contours at 0.1, 0.5 and 0.9.
    pub shares: bool,
    /// Whether colours follow the logarithm.
    pub log: bool,
    /// Notes that are printed with the figure.
    pub notes: Vec<String>,
}

/// Maximum number of cells in a picture.
pub const MAX_CELLS: usize = 40_000;

/// Draws a heat map.
///
/// # Errors
/// There is no number to draw, the picture is too small, or it has too many cells.
pub fn draw_heatmap(map: &Heatmap, look: &PlotStyle) -> Result<Scene, String> {
    let scale = colour_scale(map)?;
    if is_scattered(map) {
        return draw_scattered_cells(map, look, &scale);
    }

    if map.rows.levels.len() * map.columns.levels.len() > MAX_CELLS {
        let rows = map.rows.levels.len();
        let columns = map.columns.levels.len();
        return Err(format!(
            "{rows} × {columns} cells are too many for one picture, of at most {MAX_CELLS}: choose with --where"
        ));
    }

    draw_cell_grid(map, look, &scale)
}

/// Draws cells as points on two numeric axes.
fn draw_scattered_cells(
    map: &Heatmap,
    look: &PlotStyle,
    scale: &AxisScale,
) -> Result<Scene, String> {
    let mut sheet = PlotSheet::new(
        look,
        preferred_size(map, true),
        &describe_marks(map, scale, None),
    );

    let ends = [&map.rows, &map.columns].map(point_scale);
    let ticks = frame::choose_left_ticks(sheet.body.height() - frame::TICKS_BELOW_HEIGHT, &ends[0]);
    let area = sheet.inner_area(
        frame::left_ticks_width(&ticks),
        colour_bar_width(scale),
        frame::TICKS_BELOW_HEIGHT,
    )?;

    let below = scaled_name(&map.columns, &ends[1]);
    let aside = scaled_name(&map.rows, &ends[0]);
    frame::draw_ticks_below(&mut sheet.scene, area, &ends[1], &below);
    frame::draw_left_ticks(&mut sheet.scene, area, &ends[0], &ticks, &aside);

    draw_points(&mut sheet.scene, map, area, &ends, scale);
    frame::draw_frame(&mut sheet.scene, area);
    draw_colour_bar(&mut sheet.scene, map, area, scale);
    Ok(sheet.scene)
}

/// Draws cells as adjacent areas, with the texts in them.
fn draw_cell_grid(map: &Heatmap, look: &PlotStyle, scale: &AxisScale) -> Result<Scene, String> {
    let texts = choose_texts(map, look, scale)?;
    let HeatmapLayout {
        mut sheet,
        grid,
        left,
        below,
        turned,
    } = HeatmapLayout::new(
        map,
        look,
        &describe_marks(map, scale, Some(&texts)),
        colour_bar_width(scale),
    )?;
    draw_cells(&mut sheet.scene, map, &grid, scale);

    draw_row_names(&mut sheet.scene, map, &grid, left);
    draw_column_names(&mut sheet.scene, map, &grid, turned, below);
    let contours = find_contours(map);
    let labels = draw_contours(&mut sheet.scene, &grid, &contours);

    let mut taken: Vec<Area> = Vec::new();
    for cell in &map.cells {
        let patch = !contours.is_empty();
        taken.extend(texts.draw_texts(&mut sheet.scene, map, cell, &grid, scale, patch));
    }
    label_contours(&mut sheet.scene, &labels, &taken);

    frame::draw_frame(&mut sheet.scene, grid.area);
    draw_colour_bar(&mut sheet.scene, map, grid.area, scale);
    Ok(sheet.scene)
}

/// Chooses the texts in cells. They depend on the size of cells, which depends on the notes about
/// texts; the choice assumes all notes, and fewer only leave more space.
fn choose_texts(map: &Heatmap, look: &PlotStyle, scale: &AxisScale) -> Result<CellTexts, String> {
    let all = CellTexts {
        values: true,
        halves: true,
        divergences: true,
        ..CellTexts::none()
    };
    let notes = describe_marks(map, scale, Some(&all));
    let layout = HeatmapLayout::new(map, look, &notes, colour_bar_width(scale))?;
    Ok(CellTexts::new(map, &layout.grid, scale))
}

/// The positions of the cells and their names in the picture.
struct HeatmapLayout {
    sheet: PlotSheet,
    grid: CellGrid,
    left: f64,
    below: f64,
    turned: bool,
}

impl HeatmapLayout {
    fn new(map: &Heatmap, look: &PlotStyle, notes: &[String], bar: f64) -> Result<Self, String> {
        let sheet = PlotSheet::new(look, preferred_size(map, false), notes);
        let left = widest_level_name(&map.rows).min(sheet.body.width() / 3.0) + 30.0;
        let turned = is_turned(&map.columns, sheet.body.width() - left - bar);
        let below = if turned {
            turned_label_height(&map.columns, sheet.body.height()) + 28.0
        } else {
            frame::TICKS_BELOW_HEIGHT
        };
        let grid = CellGrid::new(map, sheet.inner_area(left, bar, below)?);

        Ok(Self {
            sheet,
            grid,
            left,
            below,
            turned,
        })
    }
}

/// The scale of the colours, which contains all finite values.
fn colour_scale(map: &Heatmap) -> Result<AxisScale, String> {
    if map.cells.iter().all(|cell| cell.value.is_none()) {
        return Err(format!(
            "no cell has a value of {}: {}",
            map.name,
            describe_emptiness(map)
        ));
    }

    if map.finite_values().next().is_none() {
        return Err(format!(
            "{} is infinite in every cell that has a value: there is nothing to tell apart",
            map.name
        ));
    }

    if map.shares {
        return Ok(AxisScale {
            from: 0.0,
            to: 1.0,
            log: false,
        });
    }

    let low = map.finite_values().fold(f64::INFINITY, f64::min);
    let high = map.finite_values().fold(f64::NEG_INFINITY, f64::max);

    if map.log && low <= 0.0 {
        return Err(format!(
            "{} is {low} in a cell, which has no place on a logarithmic scale: leave out --log-scale",
            map.name
        ));
    }

    Ok(AxisScale::from_range(low, high, map.log))
}

impl Heatmap {
    /// The finite values, which have a colour.
    fn finite_values(&self) -> impl Iterator<Item = f64> {
        self.cells
            .iter()
            .filter_map(|cell| cell.value)
            .filter(|value| value.is_finite())
    }

    /// Whether levels ascend from the bottom, as numbers do; words start at the top.
    fn is_upwards(&self) -> bool {
        self.rows.is_numeric()
    }

    /// Whether a cell has a mark for its share of diverged trials.
    fn is_marked(&self, cell: &HeatmapCell) -> bool {
        let is_of_outcomes = matches!(
            self.counted_trials,
            CountedTrials::Completed | CountedTrials::Both
        );
        is_of_outcomes && cell.value.is_some() && cell.trials[1] > 0
    }

    /// Whether a cell has no number because all its trials diverged.
    fn is_crossed(&self, cell: &HeatmapCell) -> bool {
        cell.value.is_none() && cell.trials[0] == 0 && cell.trials[1] > 0
    }
}

fn widest_level_name(factor: &PlotAxis) -> f64 {
    frame::widest_text(
        factor.levels.iter().map(|level| level.text.as_str()),
        TEXT_SIZE,
    )
}

/// The preferred size of the picture, with cells of a comfortable size unless that is too large.
fn preferred_size(map: &Heatmap, scattered: bool) -> (f64, f64) {
    if scattered {
        return (600.0, 420.0);
    }

    let rows = map.rows.levels.len() as f64;
    let columns = map.columns.levels.len() as f64;
    let width =
        (columns * 78.0 + widest_level_name(&map.rows).min(200.0) + 130.0).clamp(440.0, 820.0);

    let below = if is_turned(&map.columns, columns * 78.0) {
        widest_level_name(&map.columns).min(200.0)
    } else {
        0.0
    };
    (width, (rows * 52.0 + 60.0).clamp(240.0, 620.0) + below)
}
