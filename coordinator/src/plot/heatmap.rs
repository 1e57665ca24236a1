//! A number per cell of two axes as colour; phase diagrams are such, of shares and with contours.

use super::axis::{self, AxisScale, LevelSpacing};
use super::colour::{self, Colour, FAINT, GREY, INK, PAPER, SERIES};
use super::frame::{self, PlotSheet, SMALL_TEXT_SIZE, TEXT_SIZE};
use super::scene::{Anchor, Area, Fill, Scene, Stroke};
use super::{PlotAxis, PlotStyle, contour, font, format_brief, format_fixed};

/// A cell of the grid.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatmapCell {
    /// Its level of the rows' axis.
    pub row: usize,
    /// Its level of the columns' axis.
    pub column: usize,
    /// Its number, if it has one; an infinite one has no place among the colours.
    pub value: Option<f64>,
    /// Half of the number's confidence interval, to be written below it.
    pub half_width: Option<f64>,
    /// Trials with a row: completed, diverged, failed.
    pub trials: [u64; 3],
}

/// Which trials the numbers are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedTrials {
    /// Those that completed.
    Completed,
    /// Those that completed and those that diverged.
    Both,
    /// Those that diverged, of which the number is when they did.
    Diverged,
    /// All of them, which are counted.
    Counts,
}

/// What is drawn.
#[derive(Debug, Clone)]
pub struct Heatmap {
    /// The axis upwards.
    pub rows: PlotAxis,
    /// The axis to the right.
    pub columns: PlotAxis,
    /// Cells that belong to the sweep, in any order; places without one stay empty.
    pub cells: Vec<HeatmapCell>,
    /// What the numbers are.
    pub name: String,
    /// Which trials they are over.
    pub counted_trials: CountedTrials,
    /// Whether cells of the sweep were left out.
    pub partial: bool,
    /// Whether they are shares, from 0 to 1, with lines at 0.1, 0.5 and 0.9.
    pub shares: bool,
    /// Whether colours follow the logarithm.
    pub log: bool,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// Most cells of one picture.
pub const MAX_CELLS: usize = 40_000;
/// Contours of shares, and how they are drawn.
const CONTOURS: [(f64, &[f64]); 3] = [(0.1, &[2.0, 2.5]), (0.5, &[]), (0.9, &[7.0, 3.0])];

/// Draws it.
///
/// # Errors
/// There is no number to draw, or the picture is too small or has too many cells.
pub fn draw_heatmap(map: &Heatmap, look: &PlotStyle) -> Result<Scene, String> {
    let scale = colour_scale(map)?;
    let scattered = is_scattered(map);
    if !scattered && map.rows.levels.len() * map.columns.levels.len() > MAX_CELLS {
        let rows = map.rows.levels.len();
        let columns = map.columns.levels.len();
        return Err(format!(
            "{rows} × {columns} cells are too many for one picture, of at most {MAX_CELLS}: choose with --where"
        ));
    }

    let bar = colour_bar_width(&scale);
    if scattered {
        let mut sheet = PlotSheet::new(
            look,
            preferred_size(map, scattered),
            &describe_marks(map, &scale, None),
        );

        let ends = [&map.rows, &map.columns].map(point_scale);
        let ticks =
            frame::choose_left_ticks(sheet.body.height() - frame::TICKS_BELOW_HEIGHT, &ends[0]);
        let area = sheet.inner_area(
            frame::left_ticks_width(&ticks),
            bar,
            frame::TICKS_BELOW_HEIGHT,
        )?;
        frame::draw_ticks_below(
            &mut sheet.scene,
            area,
            &ends[1],
            &scaled_name(&map.columns, &ends[1]),
        );

        frame::draw_left_ticks(
            &mut sheet.scene,
            area,
            &ends[0],
            &ticks,
            &scaled_name(&map.rows, &ends[0]),
        );

        draw_points(&mut sheet.scene, map, area, &ends, &scale);
        frame::draw_frame(&mut sheet.scene, area);
        draw_colour_bar(&mut sheet.scene, map, area, &scale);
        return Ok(sheet.scene);
    }

    // What is written into cells is known when their size is, which the notes about what is written take a part of. Fewer
    // notes leave more room.
    let all = CellTexts {
        values: true,
        halves: true,
        divergences: true,
        ..CellTexts::none()
    };
    let texts = CellTexts::new(
        map,
        &HeatmapLayout::new(map, look, &describe_marks(map, &scale, Some(&all)), bar)?.grid,
        &scale,
    );
    let HeatmapLayout {
        mut sheet,
        grid,
        left,
        below,
        turned,
    } = HeatmapLayout::new(map, look, &describe_marks(map, &scale, Some(&texts)), bar)?;
    draw_cells(&mut sheet.scene, map, &grid, &scale);

    draw_row_names(&mut sheet.scene, map, &grid, left);
    draw_column_names(&mut sheet.scene, map, &grid, turned, below);
    let contours = find_contours(map);
    let labels = draw_contours(&mut sheet.scene, &grid, &contours);
    let taken: Vec<Area> = map
        .cells
        .iter()
        .flat_map(|cell| {
            texts.draw_texts(
                &mut sheet.scene,
                map,
                cell,
                &grid,
                &scale,
                !contours.is_empty(),
            )
        })
        .collect();
    label_contours(&mut sheet.scene, &labels, &taken);

    frame::draw_frame(&mut sheet.scene, grid.area);
    draw_colour_bar(&mut sheet.scene, map, grid.area, &scale);
    Ok(sheet.scene)
}

/// What stands where.
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
        let names = frame::widest_text(
            map.rows.levels.iter().map(|level| level.text.as_str()),
            TEXT_SIZE,
        );
        let left = names.min(sheet.body.width() / 3.0) + 30.0;
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

/// The values' place among the colours, of those that are finite.
fn colour_scale(map: &Heatmap) -> Result<AxisScale, String> {
    if map.cells.iter().all(|cell| cell.value.is_none()) {
        return Err(format!(
            "no cell has a value of {}: {}",
            map.name,
            describe_emptiness(map)
        ));
    }

    let values = || map.finite_values();
    if values().next().is_none() {
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

    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(f64::NEG_INFINITY, f64::max);

    if map.log && low <= 0.0 {
        return Err(format!(
            "{} is {low} in a cell, which has no place on a logarithmic scale: leave out --log",
            map.name
        ));
    }

    Ok(AxisScale::from_range(low, high, map.log))
}

fn describe_emptiness(map: &Heatmap) -> String {
    let [completed, diverged, failed] =
        [0, 1, 2].map(|i| map.cells.iter().map(|cell| cell.trials[i]).sum::<u64>());
    match (completed, diverged, failed) {
        (0, 0, 0) => "no trial has ended yet".to_owned(),
        (0, diverged, 0) => format!("all {diverged} trials that have ended diverged"),
        (0, diverged, failed) => {
            format!("of the trials that have ended, {diverged} diverged and {failed} failed")
        }
        _ => "it is not defined for the trials that have completed".to_owned(),
    }
}

/// Values drawn by lot make a grid of which hardly a place is taken: its cells are drawn as points.
fn is_scattered(map: &Heatmap) -> bool {
    let places = map.rows.levels.len() * map.columns.levels.len();
    places > 36 && places > 4 * map.cells.len() && map.rows.is_numeric() && map.columns.is_numeric()
}

impl Heatmap {
    /// The values that have a place among the colours.
    fn finite_values(&self) -> impl Iterator<Item = f64> {
        self.cells
            .iter()
            .filter_map(|cell| cell.value)
            .filter(|value| value.is_finite())
    }

    /// Numbers grow upwards; words stand in their order from the top.
    fn is_upwards(&self) -> bool {
        self.rows.is_numeric()
    }

    /// Whether a cell is marked by how many of its trials diverged.
    fn is_marked(&self, cell: &HeatmapCell) -> bool {
        let told = matches!(
            self.counted_trials,
            CountedTrials::Completed | CountedTrials::Both
        );
        told && cell.value.is_some() && cell.trials[1] > 0
    }

    /// Whether a cell has no number since all of its trials diverged.
    fn is_crossed(&self, cell: &HeatmapCell) -> bool {
        cell.value.is_none() && cell.trials[0] == 0 && cell.trials[1] > 0
    }
}

/// The size it would like to have: cells of a comfortable size as long as that is not too large.
fn preferred_size(map: &Heatmap, scattered: bool) -> (f64, f64) {
    if scattered {
        return (600.0, 420.0);
    }

    let rows = map.rows.levels.len() as f64;
    let columns = map.columns.levels.len() as f64;
    let names = |factor: &PlotAxis| {
        frame::widest_text(
            factor.levels.iter().map(|level| level.text.as_str()),
            TEXT_SIZE,
        )
    };
    let width = (columns * 78.0 + names(&map.rows).min(200.0) + 130.0).clamp(440.0, 820.0);

    let below = if is_turned(&map.columns, columns * 78.0) {
        names(&map.columns).min(200.0)
    } else {
        0.0
    };
    (width, (rows * 52.0 + 60.0).clamp(240.0, 620.0) + below)
}

fn point_scale(factor: &PlotAxis) -> AxisScale {
    let numbers: Vec<f64> = factor
        .levels
        .iter()
        .filter_map(|level| level.number)
        .collect();
    let low = numbers[0];
    let high = numbers[numbers.len() - 1];
    AxisScale::from_range(low, high, low > 0.0 && high / low >= 20.0).with_padding(0.04)
}

fn scaled_name(factor: &PlotAxis, scale: &AxisScale) -> String {
    if scale.log {
        format!("{} (log scale)", factor.name)
    } else {
        factor.name.clone()
    }
}

/// Where each cell lies.
struct CellGrid {
    area: Area,
    columns: Vec<f64>,
    rows: Vec<f64>,
}

impl CellGrid {
    fn new(map: &Heatmap, area: Area) -> Self {
        let columns = map
            .columns
            .level_edges()
            .iter()
            .map(|x| area.left + x * area.width())
            .collect();

        let place = |x: &f64| {
            if map.is_upwards() {
                area.bottom - x * area.height()
            } else {
                area.top + x * area.height()
            }
        };
        Self {
            area,
            columns,
            rows: map.rows.level_edges().iter().map(place).collect(),
        }
    }

    fn cell_area(&self, row: usize, column: usize) -> Area {
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

fn cell_colour(map: &Heatmap, scale: &AxisScale, value: f64) -> Colour {
    if value.is_infinite() {
        return FAINT;
    }
    if map.shares {
        colour::share_colour(value)
    } else {
        colour::value_colour(scale.position_of(value))
    }
}

fn draw_cells(scene: &mut Scene, map: &Heatmap, grid: &CellGrid, scale: &AxisScale) {
    for cell in &map.cells {
        let area = grid.cell_area(cell.row, cell.column);
        let Some(value) = cell.value else {
            draw_empty_cell(scene, area, map.is_crossed(cell));
            continue;
        };
        let colour = cell_colour(map, scale, value);

        // The line closes the gap that is seen between areas that touch.
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
    }
}

/// Hatched where there is no number; crossed out where all trials diverged.
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

/// Largest width of the bar of a share.
const SHARE_BAR_WIDTH: f64 = 6.0;

/// A bar at the right edge, as high as the share of the trials that diverged.
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

/// What is written into cells: all have it, or none.
struct CellTexts {
    decimals: Option<usize>,
    values: bool,
    halves: bool,
    divergences: bool,
}

impl CellTexts {
    fn none() -> Self {
        Self {
            decimals: None,
            values: false,
            halves: false,
            divergences: false,
        }
    }

    fn new(map: &Heatmap, grid: &CellGrid, scale: &AxisScale) -> Self {
        let none = Self {
            decimals: choose_decimals(map, scale),
            ..Self::none()
        };

        // Room at the sides and above and below: beside a bar, and so much that a line is seen to pass.
        let (aside, above) = match find_contours(map).is_empty() {
            false => (20.0, 17.0),
            true if map.cells.iter().any(|cell| map.is_marked(cell)) => {
                (2.0 * SHARE_BAR_WIDTH + 3.0, 3.0)
            }
            true => (5.0, 3.0),
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

        let some = |wanted: &dyn Fn(&HeatmapCell) -> bool| map.cells.iter().any(wanted);
        let values = fits(1.0, &|cell| {
            font::text_width(&none.value_text(cell), TEXT_SIZE)
        });
        let halves = values
            && some(&|cell| cell.half_width.is_some())
            && fits(2.0, &|cell| {
                font::text_width(&none.half_width_text(cell), SMALL_TEXT_SIZE)
            });
        let most = if halves { 3.0 } else { 2.0 };
        let divergences = values
            && map.counted_trials != CountedTrials::Counts
            && some(&|cell| cell.value.is_some() && cell.trials[1] > 0)
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
        // Half of an interval that is far narrower than the values are apart is not nothing.
        let fits = |decimals: &usize, half: f64| {
            half == 0.0 || half >= 0.5 * libm::exp10(-(*decimals as f64))
        };
        let decimals = |half| self.decimals.filter(|decimals| fits(decimals, half));
        let text = |half| {
            decimals(half).map_or_else(
                || format_brief(half),
                |decimals| format_fixed(half, decimals),
            )
        };

        cell.half_width
            .map_or_else(String::new, |half| format!("± {}", text(half)))
    }

    /// Writes them, and gives the places that are taken; on a patch of the cell's colour where lines may pass.
    fn draw_texts(
        &self,
        scene: &mut Scene,
        map: &Heatmap,
        cell: &HeatmapCell,
        grid: &CellGrid,
        scale: &AxisScale,
        patch: bool,
    ) -> Vec<Area> {
        let Some(value) = cell.value else {
            return Vec::new();
        };
        let lines: Vec<(String, f64)> = [
            self.values.then(|| (self.value_text(cell), TEXT_SIZE)),
            self.halves
                .then(|| (self.half_width_text(cell), SMALL_TEXT_SIZE)),
            self.divergences
                .then(|| (divergence_text(cell), SMALL_TEXT_SIZE)),
        ]
        .into_iter()
        .flatten()
        .filter(|(text, _)| !text.is_empty())
        .collect();

        let colour = cell_colour(map, scale, value);
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
                scene.add_area(
                    area,
                    Some(Fill {
                        colour,
                        opacity: 0.85,
                    }),
                    None,
                );
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
}

fn divergence_text(cell: &HeatmapCell) -> String {
    let all: u64 = cell.trials.iter().sum();
    if cell.trials[1] > 0 {
        format!("{}/{all} div.", cell.trials[1])
    } else {
        String::new()
    }
}

/// Decimals that tell cells apart; none where sizes differ too much for a fixed number.
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

fn draw_row_names(scene: &mut Scene, map: &Heatmap, grid: &CellGrid, left: f64) {
    let area = grid.area;
    let place = |x: f64| {
        if map.is_upwards() {
            area.bottom - x * area.height()
        } else {
            area.top + x * area.height()
        }
    };
    let ticks = map
        .rows
        .level_ticks()
        .into_iter()
        .map(|(x, label)| (place(x), label))
        .collect();
    for (y, label) in axis::thin_labels(ticks, |_| 6.75) {
        let text = font::truncate_to_width(&label, TEXT_SIZE, left - 26.0);
        scene.add_line(
            vec![(area.left - 4.0, y), (area.left, y)],
            Stroke::new(GREY, 1.0),
        );

        scene.add_text(
            (area.left - 7.0, y + TEXT_SIZE * 0.36),
            &text,
            TEXT_SIZE,
            INK,
            Anchor::End,
        );
    }

    frame::draw_left_name(scene, area, area.left - left, &map.rows.axis_label());
}

/// Whether words are too long to stand beside each other.
fn is_turned(columns: &PlotAxis, room: f64) -> bool {
    let each = room / columns.levels.len() as f64;
    let words = columns.levels.iter().any(|level| level.number.is_none());
    words
        && frame::widest_text(
            columns.levels.iter().map(|level| level.text.as_str()),
            TEXT_SIZE,
        ) > each - 6.0
}

fn turned_label_height(columns: &PlotAxis, height: f64) -> f64 {
    frame::widest_text(
        columns.levels.iter().map(|level| level.text.as_str()),
        TEXT_SIZE,
    )
    .min(height * 0.4)
        + 8.0
}

fn draw_column_names(scene: &mut Scene, map: &Heatmap, grid: &CellGrid, turned: bool, below: f64) {
    let (area, bottom) = (grid.area, grid.area.bottom);
    let ticks = map
        .columns
        .level_ticks()
        .into_iter()
        .map(|(x, label)| (area.left + x * area.width(), label))
        .collect();

    let half = |label: &str| {
        if turned {
            7.0
        } else {
            font::text_width(label, TEXT_SIZE) / 2.0 + 4.0
        }
    };
    for (x, label) in axis::thin_labels(ticks, half) {
        scene.add_line(vec![(x, bottom), (x, bottom + 4.0)], Stroke::new(GREY, 1.0));
        if turned {
            let text = font::truncate_to_width(&label, TEXT_SIZE, below - 34.0);
            scene.add_turned_text(
                (x + TEXT_SIZE * 0.36, bottom + 7.0),
                &text,
                TEXT_SIZE,
                INK,
                Anchor::End,
            );
        } else {
            scene.add_text((x, bottom + 17.0), &label, TEXT_SIZE, INK, Anchor::Middle);
        }
    }

    let name = font::truncate_to_width(&map.columns.axis_label(), TEXT_SIZE, grid.area.width());
    scene.add_text(
        (grid.area.centre().0, bottom + below - 5.0),
        &name,
        TEXT_SIZE,
        INK,
        Anchor::Middle,
    );
}

fn draw_points(
    scene: &mut Scene,
    map: &Heatmap,
    area: Area,
    ends: &[AxisScale; 2],
    scale: &AxisScale,
) {
    let radius = if map.cells.len() > 300 { 4.0 } else { 6.5 };
    for cell in &map.cells {
        let row = map.rows.levels[cell.row].number;
        let column = map.columns.levels[cell.column].number;
        let (Some(row), Some(column)) = (row, column) else {
            continue;
        };
        let x = area.left + ends[1].position_of(column) * area.width();

        let y = area.bottom - ends[0].position_of(row) * area.height();
        match cell.value {
            Some(value) => {
                let colour = cell_colour(map, scale, value);
                scene.add_circle(
                    (x, y),
                    radius,
                    Some(Fill {
                        colour,
                        opacity: 1.0,
                    }),
                    Some(Stroke::new(INK, 0.7)),
                );
            }
            None if map.is_crossed(cell) => {
                let cross = Stroke::new(SERIES[1], 1.6);
                scene.add_line(vec![(x - 4.0, y - 4.0), (x + 4.0, y + 4.0)], cross);
                scene.add_line(vec![(x - 4.0, y + 4.0), (x + 4.0, y - 4.0)], cross);
            }
            None => scene.add_circle(
                (x, y),
                radius,
                None,
                Some(Stroke {
                    dash: &[1.5, 1.5],
                    ..Stroke::new(GREY, 0.8)
                }),
            ),
        }
    }
}

fn value_matrix(map: &Heatmap) -> Vec<Vec<Option<f64>>> {
    let mut values = vec![vec![None; map.columns.levels.len()]; map.rows.levels.len()];
    map.cells
        .iter()
        .for_each(|cell| values[cell.row][cell.column] = cell.value);
    values
}

/// The lines of shares with their level and dashes, of those levels that are reached. Between words lies nothing.
fn find_contours(map: &Heatmap) -> Vec<(f64, &'static [f64], Vec<contour::ContourLine>)> {
    if !map.shares || !map.rows.is_numeric() || !map.columns.is_numeric() {
        return Vec::new();
    }
    let values = value_matrix(map);
    let all = CONTOURS
        .into_iter()
        .map(|(level, dash)| (level, dash, contour::contour_lines(&values, level)));
    all.filter(|(_, _, lines)| !lines.is_empty()).collect()
}

/// Draws them, and gives the longest line of each level.
fn draw_contours(
    scene: &mut Scene,
    grid: &CellGrid,
    contours: &[(f64, &'static [f64], Vec<contour::ContourLine>)],
) -> Vec<(f64, Vec<(f64, f64)>)> {
    let middle = |edges: &[f64], place: f64| {
        let at = (place as usize).min(edges.len() - 2);
        let centre = |i: usize| (edges[i] + edges[i + 1]) / 2.0;
        let next = (at + 1).min(edges.len() - 2);
        centre(at) + (place - at as f64) * (centre(next) - centre(at))
    };

    let mut labels = Vec::new();
    for (level, dash, lines) in contours {
        let mut longest: Vec<(f64, f64)> = Vec::new();
        for line in lines {
            let line: Vec<_> = line
                .iter()
                .map(|(c, r)| (middle(&grid.columns, *c), middle(&grid.rows, *r)))
                .collect();
            scene.add_line(line.clone(), Stroke::new(PAPER, 4.0));
            scene.add_line(
                line.clone(),
                Stroke {
                    dash,
                    ..Stroke::new(INK, 1.8)
                },
            );

            if line_length(&line) > line_length(&longest) {
                longest = line;
            }
        }

        labels.push((*level, longest));
    }

    labels
}

/// Contours that lie close have their labels at different places, and beside the numbers; one that has no room is told by its
/// dashes.
fn label_contours(scene: &mut Scene, labels: &[(f64, Vec<(f64, f64)>)], taken: &[Area]) {
    let mut placed: Vec<(f64, f64)> = Vec::new();
    for ((level, line), preferred) in labels.iter().zip([0.12, 0.5, 0.88]) {
        let text = format!("{level}");
        let half = font::text_width(&text, SMALL_TEXT_SIZE) / 2.0 + 2.0;
        let tall = SMALL_TEXT_SIZE * 0.6;
        let shares = [preferred, 0.5, 0.3, 0.7, 0.15, 0.85, 0.4, 0.6, 0.22, 0.78];
        let free = |(x, y): &(f64, f64)| {
            let beside = |a: &Area| {
                x + half < a.left || x - half > a.right || y + tall < a.top || y - tall > a.bottom
            };
            let apart = placed
                .iter()
                .all(|(a, b)| (a - x).abs() > 30.0 || (b - y).abs() > 15.0);
            apart && taken.iter().all(beside)
        };

        if let Some(place) = shares
            .iter()
            .filter_map(|share| point_along(line, *share))
            .find(free)
        {
            scene.add_label(place, &text, SMALL_TEXT_SIZE, INK);
            placed.push(place);
        }
    }
}

fn line_length(line: &[(f64, f64)]) -> f64 {
    line.windows(2)
        .map(|pair| libm::hypot(pair[1].0 - pair[0].0, pair[1].1 - pair[0].1))
        .sum()
}

/// The place after a share of a line's length.
fn point_along(line: &[(f64, f64)], share: f64) -> Option<(f64, f64)> {
    let mut left = line_length(line) * share;
    for pair in line.windows(2) {
        let step = line_length(pair);
        if left <= step && step > 0.0 {
            let part = left / step;
            return Some((
                pair[0].0 + part * (pair[1].0 - pair[0].0),
                pair[0].1 + part * (pair[1].1 - pair[0].1),
            ));
        }

        left -= step;
    }

    line.last().copied()
}

const COLOUR_BAR_WIDTH: f64 = 14.0;

fn choose_bar_ticks(scale: &AxisScale, height: f64) -> Vec<(f64, String)> {
    scale.choose_ticks((height / 36.0).clamp(2.0, 8.0) as usize)
}

fn colour_bar_width(scale: &AxisScale) -> f64 {
    // How high it is to be is not known yet, and with it how many labels there are, and with how many decimals.
    let width = |height: f64| {
        let labels = choose_bar_ticks(scale, height);
        frame::widest_text(labels.iter().map(|(_, label)| label.as_str()), TEXT_SIZE)
    };
    let widest = (2..=8)
        .map(|labels| width(f64::from(labels) * 36.0))
        .fold(0.0, f64::max);
    18.0 + COLOUR_BAR_WIDTH + 7.0 + widest + 22.0
}

/// The colours with their values, at the right.
fn draw_colour_bar(scene: &mut Scene, map: &Heatmap, area: Area, scale: &AxisScale) {
    let left = area.right + 18.0;
    let steps = 64;
    for i in 0..steps {
        let share = |i: i32| f64::from(i) / f64::from(steps);
        let colour = if map.shares {
            colour::share_colour(share(i))
        } else {
            colour::value_colour((f64::from(i) + 0.5) / f64::from(steps))
        };

        let top = area.bottom - share(i + 1) * area.height();
        let bottom = area.bottom - share(i) * area.height();
        // Half a pixel more, so that nothing shines through.
        let part = Area {
            left,
            right: left + COLOUR_BAR_WIDTH,
            top,
            bottom: (bottom + 0.5).min(area.bottom),
        };

        scene.add_area(
            part,
            Some(Fill {
                colour,
                opacity: 1.0,
            }),
            None,
        );
    }

    scene.add_area(
        Area {
            left,
            right: left + COLOUR_BAR_WIDTH,
            ..area
        },
        None,
        Some(Stroke::new(GREY, 1.0)),
    );

    let ticks = choose_bar_ticks(scale, area.height());
    for (value, label) in &ticks {
        let y = area.bottom - scale.position_of(*value) * area.height();
        scene.add_line(
            vec![
                (left + COLOUR_BAR_WIDTH, y),
                (left + COLOUR_BAR_WIDTH + 4.0, y),
            ],
            Stroke::new(GREY, 1.0),
        );

        scene.add_text(
            (left + COLOUR_BAR_WIDTH + 7.0, y + TEXT_SIZE * 0.36),
            label,
            TEXT_SIZE,
            INK,
            Anchor::Start,
        );
    }

    let name = if map.log {
        format!("{} (log scale)", map.name)
    } else {
        map.name.clone()
    };
    let size = if font::text_width(&name, TEXT_SIZE) > area.height() {
        SMALL_TEXT_SIZE
    } else {
        TEXT_SIZE
    };
    let name = font::truncate_to_width(&name, size, area.height());

    scene.add_turned_text(
        (scene.width - 14.0, area.centre().1),
        &name,
        size,
        INK,
        Anchor::Middle,
    );
}

/// What marks mean, of those that are drawn: `texts` are what is written into cells, which points have none of.
fn describe_marks(map: &Heatmap, scale: &AxisScale, texts: Option<&CellTexts>) -> Vec<String> {
    let none = CellTexts::none();
    let scattered = texts.is_none();
    let texts = texts.unwrap_or(&none);
    let some = |wanted: &dyn Fn(&HeatmapCell) -> bool| map.cells.iter().any(wanted);
    let mut parts: Vec<String> = empty_notes(map, scattered);

    if !scattered && map.cells.len() < map.rows.levels.len() * map.columns.levels.len() {
        let chosen = if map.partial {
            ", or one that was not chosen"
        } else {
            ""
        };
        parts.push(format!("Blank: no such cell{chosen}."));
    }

    let div = if texts.divergences { " (div.)" } else { "" };
    let bars = !scattered && some(&|cell| map.is_marked(cell));
    let bar = if bars {
        format!("Bar at a cell's right edge: share of its trials that diverged{div}; ")
    } else {
        String::new()
    };

    match map.counted_trials {
        CountedTrials::Completed if bars => {
            parts.push(format!("{bar}the number is over those that completed."))
        }
        CountedTrials::Both if bars => parts.push(format!("{bar}the number counts these, too.")),
        CountedTrials::Diverged => parts.push(format!(
            "The number is over the trials that diverged{div}, in steps."
        )),
        _ => {}
    }

    if texts.halves {
        parts.push("±: half of the 95 % CI of the mean.".to_owned());
    }

    parts.extend(colour_notes(map, scale));
    let drawn = if scattered {
        Vec::new()
    } else {
        find_contours(map)
    };
    if !drawn.is_empty() {
        let kind = |dash: &[f64]| match dash {
            [] => "solid",
            [first, ..] if *first < 3.0 => "dotted",
            _ => "dashed",
        };
        let levels: Vec<String> = drawn
            .iter()
            .map(|(level, dash, _)| format!("{level} ({})", kind(dash)))
            .collect();
        parts.push(format!(
            "Lines: P = {}, linear between the cells' centres.",
            levels.join(", ")
        ));

        let even = |factor: &PlotAxis| {
            factor.choose_spacing() == LevelSpacing::Even && factor.levels.len() > 2
        };
        if even(&map.rows) || even(&map.columns) {
            parts.push("An axis without a scale has equal steps from value to value.".to_owned());
        }
    }

    let said = parts.join(" ");
    map.notes
        .iter()
        .cloned()
        .chain(Some(said).filter(|said| !said.is_empty()))
        .collect()
}

/// Why cells have no number.
fn empty_notes(map: &Heatmap, scattered: bool) -> Vec<String> {
    let mut parts = Vec::new();
    let crossed: Vec<&HeatmapCell> = map
        .cells
        .iter()
        .filter(|cell| map.is_crossed(cell))
        .collect();
    if !crossed.is_empty() {
        let failed = if crossed.iter().any(|cell| cell.trials[2] > 0) {
            " or failed"
        } else {
            ""
        };
        parts.push(format!("Crossed: all trials diverged{failed}."));
    }

    let hatched = || {
        map.cells
            .iter()
            .filter(|cell| cell.value.is_none() && !map.is_crossed(cell))
    };

    let why = |cell: &HeatmapCell| match (cell.trials[0], map.counted_trials) {
        (0, _) => "no result",
        (_, CountedTrials::Diverged) => "no trial diverged",
        _ => "too few trials for it",
    };
    let mut reasons: Vec<&str> = hatched().map(why).collect();
    reasons.sort_unstable();

    reasons.dedup();
    if !reasons.is_empty() {
        let mark = if scattered {
            "Dashed circle"
        } else {
            "Hatched"
        };
        parts.push(format!("{mark}: {}.", reasons.join(", or ")));
    }

    parts
}

/// What colours make more, or less, of than there is.
fn colour_notes(map: &Heatmap, scale: &AxisScale) -> Vec<String> {
    let mut values: Vec<f64> = map.finite_values().collect();
    let mut notes = Vec::new();
    let infinite = map
        .cells
        .iter()
        .any(|cell| cell.value.is_some_and(f64::is_infinite));
    notes.extend(infinite.then(|| "Grey: inf, outside of the scale.".to_owned()));

    if map.shares || values.len() < 2 {
        return notes;
    }

    let finite = map
        .cells
        .iter()
        .filter_map(|cell| Some((cell.value.filter(|x| x.is_finite())?, cell.half_width)));
    let ends: Option<Vec<(f64, f64)>> = finite.map(|(x, half)| Some((x, half?))).collect();
    if let Some(ends) = ends {
        let low = ends
            .iter()
            .map(|(x, half)| x - half)
            .fold(f64::NEG_INFINITY, f64::max);
        let high = ends
            .iter()
            .map(|(x, half)| x + half)
            .fold(f64::INFINITY, f64::min);

        if low <= high + 1e-9 * high.abs() {
            notes.push(
                "The intervals of all cells overlap: differences of colour are within them."
                    .to_owned(),
            );
        }
    }

    values.sort_by(f64::total_cmp);
    let least = values[0];
    let middle = values[values.len() / 2];
    let most = values[values.len() - 1];
    if !map.log && least > 0.0 && most > 1e3 * least && scale.position_of(middle) < 0.1 {
        notes.push(
            "Most numbers are far below the largest: --log tells their colours apart.".to_owned(),
        );
    }

    notes
}
