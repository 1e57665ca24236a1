//! Heat maps: a number per cell of two axes as colour. Phase diagrams are heat maps of shares with
//! contours.

mod caveats;
mod cells;
mod colour_bar;
mod colour_scale;
mod contours;
mod names;
mod points;
mod texts;

use super::frame::{self, PlotSheet, TEXT_SIZE};
use super::panels::{self, PanelArea};
use super::scene::{Area, Scene};
use super::{PlotAxis, PlotStyle};
use crate::plot::heatmap::caveats::describe_marks;
use crate::plot::heatmap::cells::{CellGrid, draw_cells};
use crate::plot::heatmap::colour_bar::{colour_bar_width, draw_colour_bar};
use crate::plot::heatmap::colour_scale::ColourScale;
use crate::plot::heatmap::contours::{draw_contours, find_contours, label_contours};
use crate::plot::heatmap::names::{
    draw_column_names, draw_row_names, is_turned, turned_label_height,
};
use crate::plot::heatmap::points::{
    check_scatter_axes, choose_point_scales, draw_points, is_scattered, scaled_name,
};
use crate::plot::heatmap::texts::CellTexts;

/// A cell of the grid.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatmapCell {
    /// Index of the level on the rows' axis.
    pub row: usize,
    /// Index of the level on the columns' axis.
    pub column: usize,
    /// Index of its panel; 0 without facets.
    pub panel: usize,
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
    /// Titles of the facets; empty for a single panel.
    pub panels: Vec<String>,
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
    /// Whether cells are points on two axes of numbers, even if they form a grid.
    pub scattered: bool,
    /// Notes that are printed with the figure.
    pub notes: Vec<String>,
}

/// Maximum number of cells in a picture.
pub const MAX_CELLS: usize = 40_000;

/// Draws a heat map.
///
/// # Errors
/// There is no number to draw, the picture is too small, it has too many cells or panels, or an option has no effect.
pub fn draw_heatmap(map: &Heatmap, look: &PlotStyle) -> Result<Scene, String> {
    panels::check_panel_count(&map.panels)?;
    let colours = ColourScale::new(map, look)?;
    if map.scattered || is_scattered(map) {
        return draw_scattered_cells(map, look, &colours);
    }

    if !look.x_limits.is_empty() || !look.y_limits.is_empty() {
        return Err(
            "--xlim and --ylim: the cells of a grid have values of axes: choose them with --where, or use --kind scatter"
                .to_owned(),
        );
    }
    if map.rows.levels.len() * map.columns.levels.len() > MAX_CELLS {
        let rows = map.rows.levels.len();
        let columns = map.columns.levels.len();
        return Err(format!(
            "{rows} × {columns} cells are too many for one picture, of at most {MAX_CELLS}: choose with --where"
        ));
    }

    draw_cell_grid(map, look, &colours)
}

/// Draws cells as points on two numeric axes.
fn draw_scattered_cells(
    map: &Heatmap,
    look: &PlotStyle,
    colours: &ColourScale,
) -> Result<Scene, String> {
    check_scatter_axes(map)?;
    let size = preferred_size(map, look, true, colour_bar_width(colours));
    let mut sheet = PlotSheet::new(look, size, &describe_marks(map, colours, None));

    let ends = choose_point_scales(map, look)?;
    let ticks = frame::choose_left_ticks(sheet.body.height() - frame::TICKS_BELOW_HEIGHT, &ends[0]);
    let whole = sheet.inner_area(
        frame::left_ticks_width(&ticks),
        colour_bar_width(colours),
        frame::TICKS_BELOW_HEIGHT,
    )?;

    for (at, panel) in panels::lay_out_panels(&mut sheet, whole, &map.panels)?
        .into_iter()
        .enumerate()
    {
        let ticks = frame::choose_left_ticks(panel.area.height(), &ends[0]);
        frame::draw_ticks_below(&mut sheet.scene, panel.area, &ends[1], panel.label_overhang);
        frame::draw_left_ticks(
            &mut sheet.scene,
            panel.area,
            &ends[0],
            &ticks,
            panel.is_first,
        );
        draw_points(&mut sheet.scene, map, at, panel.area, &ends, colours);
        frame::draw_frame(&mut sheet.scene, panel.area);
    }

    let below = scaled_name(&map.columns, &ends[1]);
    let aside = scaled_name(&map.rows, &ends[0]);
    draw_axis_names(&mut sheet, whole, whole.bottom + 35.0, &below, &aside);
    draw_colour_bar(&mut sheet.scene, map, look, whole, colours);
    Ok(sheet.scene)
}

/// Draws the names of both axes, or those that were chosen; `base` is the base line of the lower one.
fn draw_axis_names(sheet: &mut PlotSheet, area: Area, base: f64, below: &str, aside: &str) {
    let below = sheet
        .look
        .x_label
        .clone()
        .unwrap_or_else(|| below.to_owned());
    let aside = sheet
        .look
        .y_label
        .clone()
        .unwrap_or_else(|| aside.to_owned());
    let lowered = Area {
        bottom: base - 35.0,
        ..area
    };

    frame::draw_name_below(&mut sheet.scene, lowered, &below);
    frame::draw_left_name(&mut sheet.scene, area, sheet.body.left, &aside);
}

/// Draws cells as adjacent areas, with the texts in them.
fn draw_cell_grid(map: &Heatmap, look: &PlotStyle, colours: &ColourScale) -> Result<Scene, String> {
    let texts = choose_texts(map, look, colours)?;
    let notes = describe_marks(map, colours, Some(&texts));
    let HeatmapLayout {
        mut sheet,
        whole,
        panels,
        left,
        below,
        turned,
    } = HeatmapLayout::new(map, look, &notes, colour_bar_width(colours))?;

    for (at, panel) in panels.iter().enumerate() {
        let grid = CellGrid::new(map, panel.area);
        draw_panel_cells(&mut sheet.scene, map, at, &grid, colours, &texts);
        draw_row_names(&mut sheet.scene, map, &grid, left, panel.is_first);
        draw_column_names(
            &mut sheet.scene,
            map,
            &grid,
            turned.then_some(below),
            panel.label_overhang,
        );
        frame::draw_frame(&mut sheet.scene, panel.area);
    }

    let columns = map.columns.axis_label();
    let rows = map.rows.axis_label();
    draw_axis_names(
        &mut sheet,
        whole,
        whole.bottom + below - 5.0,
        &columns,
        &rows,
    );
    draw_colour_bar(&mut sheet.scene, map, look, whole, colours);
    Ok(sheet.scene)
}

/// Draws the cells of a panel with contours and texts.
fn draw_panel_cells(
    scene: &mut Scene,
    map: &Heatmap,
    panel: usize,
    grid: &CellGrid,
    colours: &ColourScale,
    texts: &CellTexts,
) {
    let cells = || map.cells.iter().filter(|cell| cell.panel == panel);
    draw_cells(scene, map, cells(), grid, colours);
    let contours = find_contours(map, panel);
    let labels = draw_contours(scene, grid, &contours);

    let mut taken: Vec<Area> = Vec::new();
    let patch = !contours.is_empty();
    for cell in cells() {
        taken.extend(texts.draw_texts(scene, cell, grid, colours, patch));
    }
    label_contours(scene, &labels, &taken);
}

/// Chooses the texts in cells. They depend on the size of cells, which depends on the notes about
/// texts; the choice assumes all notes, and fewer only leave more space.
fn choose_texts(
    map: &Heatmap,
    look: &PlotStyle,
    colours: &ColourScale,
) -> Result<CellTexts, String> {
    let all = CellTexts {
        values: true,
        halves: true,
        divergences: true,
        ..CellTexts::none()
    };
    let notes = describe_marks(map, colours, Some(&all));
    let layout = HeatmapLayout::new(map, look, &notes, colour_bar_width(colours))?;
    let grid = CellGrid::new(map, layout.panels[0].area);
    Ok(CellTexts::new(map, &grid, &colours.scale))
}

/// The positions of the cells and their names in the picture.
struct HeatmapLayout {
    sheet: PlotSheet,
    /// The area of all panels.
    whole: Area,
    panels: Vec<PanelArea>,
    left: f64,
    below: f64,
    turned: bool,
}

impl HeatmapLayout {
    fn new(map: &Heatmap, look: &PlotStyle, notes: &[String], bar: f64) -> Result<Self, String> {
        let mut sheet = PlotSheet::new(look, preferred_size(map, look, false, bar), notes);
        let left = widest_level_name(&map.rows).min(sheet.body.width() / 3.0) + 30.0;
        let room = sheet.body.width() - left - bar;
        let columns = if map.panels.is_empty() {
            1
        } else {
            panels::choose_columns(map.panels.len(), room)
        };
        let turned = is_turned(&map.columns, room / columns as f64);
        let below = if turned {
            turned_label_height(&map.columns, sheet.body.height()) + 28.0
        } else {
            frame::TICKS_BELOW_HEIGHT
        };

        let whole = sheet.inner_area(left, bar, below)?;
        let panels = panels::lay_out_panels(&mut sheet, whole, &map.panels)?;

        Ok(Self {
            sheet,
            whole,
            panels,
            left,
            below,
            turned,
        })
    }
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

/// The preferred size of the picture, with cells of a comfortable size unless that is too large: the
/// width in pixels, and the height in units of the layout.
fn preferred_size(map: &Heatmap, look: &PlotStyle, scattered: bool, bar: f64) -> (f64, f64) {
    let rows = map.rows.levels.len() as f64;
    let columns = map.columns.levels.len() as f64;
    // Points have ticks, which are short, instead of the names of all levels.
    let left = if scattered {
        40.0
    } else {
        widest_level_name(&map.rows).min(200.0)
    };
    let wanted = match (scattered, map.panels.is_empty()) {
        (true, _) => 600.0,
        (false, true) => (columns * 78.0 + left + 130.0).clamp(440.0, 820.0),
        (false, false) => 820.0,
    };

    let room = (look.resolve_width(wanted) - left - 54.0 - bar).max(60.0);
    let mut beside = 1.0;
    let mut below_each_other = 1.0;
    if !map.panels.is_empty() {
        beside = panels::choose_columns(map.panels.len(), room) as f64;
        below_each_other = panels::count_panel_rows(map.panels.len(), room) as f64;
    }
    let panel_width = room / beside;
    let panel_height = if scattered {
        (panel_width * 0.85).clamp(110.0, 340.0)
    } else {
        // Cells are somewhat wider than high.
        let cell = (panel_width / columns * 0.75).clamp(17.0, 52.0);
        let least = (panel_width * 0.4).clamp(72.0, 180.0);
        (rows * cell).clamp(least.max(colour_bar::bar_name_height(map, look)), 560.0)
    };

    let turned = if !scattered && is_turned(&map.columns, panel_width) {
        widest_level_name(&map.columns).min(200.0)
    } else {
        0.0
    };
    let extra = panels::panel_extra_height(&map.panels, room);
    (
        wanted,
        below_each_other * panel_height + extra + turned + 60.0,
    )
}
