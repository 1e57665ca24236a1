//! Numbers in cells, if all of them fit.

use crate::plot::axis::AxisScale;
use crate::plot::frame::{SMALL_TEXT_SIZE, TEXT_SIZE};
use crate::plot::heatmap::cells::{CellGrid, SHARE_BAR_WIDTH};
use crate::plot::heatmap::colour_scale::ColourScale;
use crate::plot::heatmap::contours::has_contours;
use crate::plot::heatmap::{CountedTrials, Heatmap, HeatmapCell};
use crate::plot::scene::{Anchor, Area, Fill, Scene};
use crate::plot::{colour, font, format_brief, format_fixed};

/// The texts that are written into cells, either all or none.
pub(super) struct CellTexts {
    pub(super) decimals: Option<usize>,
    pub(super) values: bool,
    pub(super) halves: bool,
    pub(super) divergences: bool,
}

impl CellTexts {
    pub(super) fn none() -> Self {
        Self {
            decimals: None,
            values: false,
            halves: false,
            divergences: false,
        }
    }

    pub(super) fn new(map: &Heatmap, grid: &CellGrid, scale: &AxisScale) -> Self {
        let none = Self {
            decimals: choose_decimals(map, scale),
            ..Self::none()
        };

        // Leaves room for the mark at the side of a cell, and enough around contour lines for them
        // to be seen.
        let (aside, above) = match has_contours(map) {
            true => (20.0, 17.0),
            false if map.cells.iter().any(|cell| map.is_marked(cell)) => {
                (2.0 * SHARE_BAR_WIDTH + 3.0, 3.0)
            }
            false => (5.0, 3.0),
        };
        let fits = |lines: f64, widest: &dyn Fn(&HeatmapCell) -> f64| {
            map.cells
                .iter()
                .filter(|cell| cell.value.is_some())
                .all(|cell| {
                    let area = grid.cell_area(cell.row, cell.column);
                    widest(cell) + aside <= area.width() && lines * 13.0 + above <= area.height()
                })
        };

        let values = fits(1.0, &|cell| {
            font::text_width(&none.value_text(cell), TEXT_SIZE)
        });
        let halves = values
            && map.cells.iter().any(|cell| cell.half_width.is_some())
            && fits(2.0, &|cell| {
                font::text_width(&none.half_width_text(cell), SMALL_TEXT_SIZE)
            });
        let most = if halves { 3.0 } else { 2.0 };
        let divergences = values
            && map.counted_trials != CountedTrials::Counts
            && map
                .cells
                .iter()
                .any(|cell| cell.value.is_some() && cell.trials[1] > 0)
            && fits(most, &|cell| {
                font::text_width(&divergence_text(cell), SMALL_TEXT_SIZE)
            });

        Self {
            values,
            halves,
            divergences,
            ..none
        }
    }

    fn value_text(&self, cell: &HeatmapCell) -> String {
        let value = cell.value.unwrap_or(0.0);
        self.decimals.map_or_else(
            || format_brief(value),
            |decimals| format_fixed(value, decimals),
        )
    }

    fn half_width_text(&self, cell: &HeatmapCell) -> String {
        // A half width that the map's decimals would round to 0 gets more digits, because it is not
        // 0.
        let Some(half) = cell.half_width else {
            return String::new();
        };
        let decimals = self
            .decimals
            .filter(|decimals| half == 0.0 || half >= 0.5 * libm::exp10(-(*decimals as f64)));
        let text = decimals.map_or_else(
            || format_brief(half),
            |decimals| format_fixed(half, decimals),
        );

        format!("± {text}")
    }

    /// Writes the texts of a cell; returns the areas that they take. With `patch` they stand on a
    /// patch of the cell's colour, where lines are interrupted.
    pub(super) fn draw_texts(
        &self,
        scene: &mut Scene,
        cell: &HeatmapCell,
        grid: &CellGrid,
        colours: &ColourScale,
        patch: bool,
    ) -> Vec<Area> {
        let Some(value) = cell.value else {
            return Vec::new();
        };

        let lines = self.text_lines(cell);
        let colour = colours.colour_of(value);
        let (x, middle) = grid.cell_area(cell.row, cell.column).centre();
        let first = middle - (lines.len() as f64 - 1.0) * 6.5;
        let mut taken = Vec::new();

        for (at, (text, size)) in lines.iter().enumerate() {
            let y = first + at as f64 * 13.0;
            let half = font::text_width(text, *size) / 2.0 + 2.0;
            let area = Area {
                left: x - half,
                right: x + half,
                top: y - size * 0.6,
                bottom: y + size * 0.6,
            };

            if patch {
                let fill = Fill {
                    colour,
                    opacity: 1.0,
                };
                scene.add_area(area, Some(fill), None);
            }

            scene.add_text(
                (x, y + size * 0.36),
                text,
                *size,
                colour::text_colour_on(colour),
                Anchor::Middle,
            );

            taken.push(area);
        }

        taken
    }

    /// The lines of text in a cell, each with its size.
    fn text_lines(&self, cell: &HeatmapCell) -> Vec<(String, f64)> {
        let lines = [
            self.values.then(|| (self.value_text(cell), TEXT_SIZE)),
            self.halves
                .then(|| (self.half_width_text(cell), SMALL_TEXT_SIZE)),
            self.divergences
                .then(|| (divergence_text(cell), SMALL_TEXT_SIZE)),
        ];

        lines
            .into_iter()
            .flatten()
            .filter(|(text, _)| !text.is_empty())
            .collect()
    }
}

fn divergence_text(cell: &HeatmapCell) -> String {
    let all: u64 = cell.trials.iter().sum();
    if cell.trials[1] > 0 {
        format!("{}/{all} div.", cell.trials[1])
    } else {
        String::new()
    }
}

/// Number of decimals that distinguishes cells; `None` if the values are too different for a fixed
/// number.
fn choose_decimals(map: &Heatmap, scale: &AxisScale) -> Option<usize> {
    if map.shares {
        return Some(2);
    }

    let largest = scale.from.abs().max(scale.to.abs());
    if !(1e-3..1e5).contains(&largest) || map.log {
        return None;
    }

    if map.cells.iter().all(|cell| cell.half_width.is_none())
        && map.finite_values().all(|x| x == libm::trunc(x))
    {
        return Some(0);
    }

    let step = (scale.to - scale.from) / 200.0;
    Some((-libm::floor(libm::log10(step))).clamp(0.0, 9.0) as usize)
}
