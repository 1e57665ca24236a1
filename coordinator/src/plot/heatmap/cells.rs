//! Cells as coloured areas, with marks for diverged trials.

use crate::plot::colour::{self, FAINT, GREY, PAPER, SERIES};
use crate::plot::heatmap::colour_scale::ColourScale;
use crate::plot::heatmap::{Heatmap, HeatmapCell};
use crate::plot::scene::{Area, Fill, Scene, Stroke};

/// Edges of columns and rows, in pixels.
pub(super) struct CellGrid {
    pub(super) area: Area,
    pub(super) columns: Vec<f64>,
    pub(super) rows: Vec<f64>,
}

impl CellGrid {
    pub(super) fn new(map: &Heatmap, area: Area) -> Self {
        let columns = map
            .columns
            .level_edges()
            .iter()
            .map(|x| area.left + x * area.width())
            .collect();

        Self {
            area,
            columns,
            rows: map
                .rows
                .level_edges()
                .iter()
                .map(|x| {
                    if map.is_upwards() {
                        area.bottom - x * area.height()
                    } else {
                        area.top + x * area.height()
                    }
                })
                .collect(),
        }
    }

    pub(super) fn cell_area(&self, row: usize, column: usize) -> Area {
        let a = self.rows[row];
        let b = self.rows[row + 1];
        Area {
            left: self.columns[column],
            right: self.columns[column + 1],
            top: a.min(b),
            bottom: a.max(b),
        }
    }
}

/// Draws the cells of a panel.
pub(super) fn draw_cells<'a>(
    scene: &mut Scene,
    map: &Heatmap,
    cells: impl Iterator<Item = &'a HeatmapCell>,
    grid: &CellGrid,
    colours: &ColourScale,
) {
    for cell in cells {
        let area = grid.cell_area(cell.row, cell.column);
        let Some(value) = cell.value else {
            draw_empty_cell(scene, area, map.is_crossed(cell));
            continue;
        };
        let colour = colours.colour_of(value);

        // Antialiasing leaves a visible gap between adjacent areas, and the line covers it.
        let line = if map.cells.len() > 2_000 {
            Stroke::new(colour, 0.5)
        } else {
            Stroke::new(if map.shares { FAINT } else { PAPER }, 1.0)
        };
        scene.add_area(
            area,
            Some(Fill {
                colour,
                opacity: 1.0,
            }),
            Some(line),
        );

        if map.is_marked(cell) {
            draw_share_bar(scene, area, cell);
        }
        draw_outside_mark(scene, area, value, colours);
    }
}

/// Draws a cell without a number: hatched, and crossed out if all its trials diverged.
fn draw_empty_cell(scene: &mut Scene, area: Area, crossed: bool) {
    if !crossed {
        scene.add_hatching(area, Stroke::new(GREY, 0.6));
        return;
    }

    scene.add_area(
        area,
        Some(Fill {
            colour: FAINT,
            opacity: 1.0,
        }),
        Some(Stroke::new(PAPER, 1.0)),
    );

    let Area {
        left,
        top,
        right,
        bottom,
    } = area;

    let cross = Stroke::new(SERIES[1], 1.2);
    scene.add_line(vec![(left, top), (right, bottom)], cross);
    scene.add_line(vec![(left, bottom), (right, top)], cross);
}

/// Draws a triangle into the corner of a cell whose number is above or below the colours.
fn draw_outside_mark(scene: &mut Scene, area: Area, value: f64, colours: &ColourScale) {
    let Some(is_above) = colours.find_side(value) else {
        return;
    };
    let size = (area.width().min(area.height()) * 0.3).min(7.0);
    let left = area.left + 2.5;
    let tip = area.top + if is_above { 2.5 } else { 2.5 + size };
    let base = area.top + if is_above { 2.5 + size } else { 2.5 };
    let fill = Fill {
        colour: colour::text_colour_on(colours.colour_of(value)),
        opacity: 1.0,
    };
    scene.add_polygon(
        vec![(left + size / 2.0, tip), (left, base), (left + size, base)],
        Some(fill),
        None,
    );
}

/// Maximum width of the bar of a share, in pixels.
pub(super) const SHARE_BAR_WIDTH: f64 = 6.0;

/// Draws a bar at the right edge, as high as the share of trials that diverged.
fn draw_share_bar(scene: &mut Scene, area: Area, cell: &HeatmapCell) {
    let share = cell.trials[1] as f64 / cell.trials.iter().sum::<u64>() as f64;
    let width = (area.width() * 0.08)
        .clamp(2.0, SHARE_BAR_WIDTH)
        .min(area.width() / 3.0);
    let height = (share * area.height()).max(2.0).min(area.height());
    let bar = Area {
        left: area.right - width,
        top: area.bottom - height,
        ..area
    };

    scene.add_area(
        bar,
        Some(Fill {
            colour: SERIES[1],
            opacity: 1.0,
        }),
        Some(Stroke::new(PAPER, 0.8)),
    );
}
