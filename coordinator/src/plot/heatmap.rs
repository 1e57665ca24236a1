//! A number per cell of two axes as colour; phase diagrams are such, of shares and with contours.

use super::axis::{Scale, Spacing};
use super::colour::{self, Colour, FAINT, GREY, INK, PAPER, SERIES};
use super::frame::{self, SMALL, Sheet, TEXT};
use super::scene::{Anchor, Area, Fill, Scene, Stroke};
use super::{Factor, Look, brief, contour, fixed, font};

/// A cell of the grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Its level of the rows' axis.
    pub row: usize,
    /// Its level of the columns' axis.
    pub column: usize,
    /// Its number, if it has one.
    pub value: Option<f64>,
    /// Half of the number's confidence interval, to be written below it.
    pub half: Option<f64>,
    /// Trials with a row: completed, diverged, failed.
    pub trials: [u64; 3],
}

/// What is drawn.
#[derive(Debug, Clone)]
pub struct Heatmap {
    /// The axis upwards.
    pub rows: Factor,
    /// The axis to the right.
    pub columns: Factor,
    /// Cells that belong to the sweep, in any order; places without one stay empty.
    pub cells: Vec<Cell>,
    /// What the numbers are.
    pub name: String,
    /// Whether they are shares, from 0 to 1, with lines at 0.1, 0.5 and 0.9.
    pub shares: bool,
    /// Whether colours follow the logarithm.
    pub log: bool,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// Most cells of one picture.
pub const MOST: usize = 40_000;
/// Contours of shares, and how they are drawn.
const CONTOURS: [(f64, &[f64]); 3] = [(0.1, &[2.0, 2.5]), (0.5, &[]), (0.9, &[7.0, 3.0])];

/// Draws it.
///
/// # Errors
/// There is no number to draw, or the picture is too small or has too many cells.
pub fn draw(map: &Heatmap, look: &Look) -> Result<Scene, String> {
    let scale = colours(map)?;
    let scattered = is_scattered(map);
    if !scattered && map.rows.levels.len() * map.columns.levels.len() > MOST {
        let (rows, columns) = (map.rows.levels.len(), map.columns.levels.len());
        return Err(format!(
            "{rows} × {columns} cells are too many for one picture, of at most {MOST}: choose with --where"
        ));
    }
    let mut sheet = Sheet::new(look, wanted(map, scattered), &notes(map, scattered));
    let bar = bar_width(&scale);
    if scattered {
        let ends = [&map.rows, &map.columns].map(spread);
        let ticks = frame::ticks_left(sheet.body.height() - frame::BELOW, &ends[0]);
        let area = sheet.within(frame::room_left(&ticks), bar, frame::BELOW)?;
        frame::ticks_below(&mut sheet.scene, area, &ends[1], &scaled_name(&map.columns, &ends[1]));
        frame::draw_left(&mut sheet.scene, area, &ends[0], &ticks, &scaled_name(&map.rows, &ends[0]));
        draw_points(&mut sheet.scene, map, area, &ends, &scale);
        frame::frame(&mut sheet.scene, area);
        draw_bar(&mut sheet.scene, map, area, &scale);
        return Ok(sheet.scene);
    }
    let labels = row_ticks(map, sheet.body);
    let left = frame::widest(labels.iter().map(|(_, label)| label.as_str()), TEXT).min(sheet.body.width() / 3.0) + 30.0;
    let room = sheet.body.width() - left - bar;
    let turned = is_turned(&map.columns, room);
    let below = if turned { turned_room(&map.columns, sheet.body.height()) + 28.0 } else { frame::BELOW };
    let area = sheet.within(left, bar, below)?;
    let grid = Grid::new(map, area);
    draw_cells(&mut sheet.scene, map, &grid, &scale);
    name_rows(&mut sheet.scene, map, &grid, left);
    name_columns(&mut sheet.scene, map, &grid, turned, below);
    if map.shares {
        draw_contours(&mut sheet.scene, map, &grid);
    }
    frame::frame(&mut sheet.scene, area);
    draw_bar(&mut sheet.scene, map, area, &scale);
    Ok(sheet.scene)
}

/// The values' place among the colours.
fn colours(map: &Heatmap) -> Result<Scale, String> {
    let values = || map.cells.iter().filter_map(|cell| cell.value);
    if values().next().is_none() {
        return Err(format!("no cell has a value of {}: {}", map.name, why_empty(map)));
    }
    if map.shares {
        return Ok(Scale { from: 0.0, to: 1.0, log: false });
    }
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    if map.log && low <= 0.0 {
        return Err(format!(
            "{} is {low} in a cell, which has no place on a logarithmic scale: leave out --log",
            map.name
        ));
    }
    Ok(Scale::over(low, high, map.log))
}

fn why_empty(map: &Heatmap) -> String {
    let [completed, diverged, failed] = [0, 1, 2].map(|i| map.cells.iter().map(|cell| cell.trials[i]).sum::<u64>());
    match (completed, diverged, failed) {
        (0, 0, 0) => "no trial has ended yet".to_owned(),
        (0, diverged, 0) => format!("all {diverged} trials that have ended diverged"),
        (0, diverged, failed) => format!("of the trials that have ended, {diverged} diverged and {failed} failed"),
        _ => "it is not defined for the trials that have completed".to_owned(),
    }
}

/// Values drawn by lot make a grid of which hardly a place is taken: its cells are drawn as points.
fn is_scattered(map: &Heatmap) -> bool {
    let numbers = |factor: &Factor| factor.levels.iter().all(|level| level.number.is_some());
    let places = map.rows.levels.len() * map.columns.levels.len();
    places > 36 && places > 4 * map.cells.len() && numbers(&map.rows) && numbers(&map.columns)
}

impl Heatmap {
    /// Numbers grow upwards; words stand in their order from the top.
    fn upwards(&self) -> bool {
        self.rows.levels.iter().all(|level| level.number.is_some())
    }
}

/// The size it would like to have: cells of a comfortable size as long as that is not too large.
fn wanted(map: &Heatmap, scattered: bool) -> (f64, f64) {
    if scattered {
        return (600.0, 420.0);
    }
    let (rows, columns) = (map.rows.levels.len() as f64, map.columns.levels.len() as f64);
    let names = |factor: &Factor| frame::widest(factor.levels.iter().map(|level| level.text.as_str()), TEXT);
    let width = (columns * 78.0 + names(&map.rows).min(200.0) + 130.0).clamp(440.0, 820.0);
    let below = if is_turned(&map.columns, columns * 78.0) { names(&map.columns).min(200.0) } else { 0.0 };
    (width, (rows * 52.0 + 60.0).clamp(240.0, 620.0) + below)
}

fn spread(factor: &Factor) -> Scale {
    let numbers: Vec<f64> = factor.levels.iter().filter_map(|level| level.number).collect();
    let (low, high) = (numbers[0], numbers[numbers.len() - 1]);
    Scale::over(low, high, low > 0.0 && high / low >= 20.0).padded(0.04)
}

fn scaled_name(factor: &Factor, scale: &Scale) -> String {
    if scale.log { format!("{} (log scale)", factor.name) } else { factor.name.clone() }
}

/// Where each cell lies.
struct Grid {
    area: Area,
    columns: Vec<f64>,
    rows: Vec<f64>,
}

impl Grid {
    fn new(map: &Heatmap, area: Area) -> Self {
        let columns = map.columns.edges().iter().map(|x| area.left + x * area.width()).collect();
        let place =
            |x: &f64| if map.upwards() { area.bottom - x * area.height() } else { area.top + x * area.height() };
        Self { area, columns, rows: map.rows.edges().iter().map(place).collect() }
    }

    fn cell(&self, row: usize, column: usize) -> Area {
        let (a, b) = (self.rows[row], self.rows[row + 1]);
        Area { left: self.columns[column], right: self.columns[column + 1], top: a.min(b), bottom: a.max(b) }
    }
}

fn fill(map: &Heatmap, scale: &Scale, value: f64) -> Colour {
    if map.shares { colour::of_share(value) } else { colour::of_value(scale.place(value)) }
}

fn draw_cells(scene: &mut Scene, map: &Heatmap, grid: &Grid, scale: &Scale) {
    let texts = Texts::new(map, grid, scale);
    let texts = if map.shares && has_contours(map) { Texts::none() } else { texts };
    for cell in &map.cells {
        let area = grid.cell(cell.row, cell.column);
        let Some(value) = cell.value else {
            draw_empty(scene, area, cell);
            continue;
        };
        let colour = fill(map, scale, value);
        // The line closes the gap that is seen between areas that touch.
        let line = if map.cells.len() > 2_000 {
            Stroke::new(colour, 0.5)
        } else {
            Stroke::new(if map.shares { FAINT } else { PAPER }, 1.0)
        };
        scene.area(area, Some(Fill { colour, opacity: 1.0 }), Some(line));
        if cell.trials[1] > 0 && !map.shares {
            draw_corner(scene, area);
        }
        texts.draw(scene, cell, area, colour::on(colour));
    }
}

/// Hatched where there is no result; crossed out where all trials diverged.
fn draw_empty(scene: &mut Scene, area: Area, cell: &Cell) {
    let line = Stroke::new(GREY, 0.6);
    if cell.trials[1] == 0 {
        scene.hatch(area, line);
        return;
    }
    scene.area(area, Some(Fill { colour: FAINT, opacity: 1.0 }), Some(Stroke::new(PAPER, 1.0)));
    let Area { left, top, right, bottom } = area;
    let cross = Stroke::new(SERIES[1], 1.2);
    scene.line(vec![(left, top), (right, bottom)], cross);
    scene.line(vec![(left, bottom), (right, top)], cross);
}

/// Some diverged.
fn draw_corner(scene: &mut Scene, area: Area) {
    let size = (area.width().min(area.height()) * 0.22).clamp(3.0, 11.0);
    let corner = vec![(area.right - size, area.top), (area.right, area.top), (area.right, area.top + size)];
    scene.polygon(corner, Some(Fill { colour: SERIES[1], opacity: 1.0 }), Some(Stroke::new(PAPER, 0.8)));
}

/// What is written into cells: all have it, or none.
struct Texts {
    decimals: Option<usize>,
    values: bool,
    halves: bool,
    incidents: bool,
}

impl Texts {
    fn none() -> Self {
        Self { decimals: None, values: false, halves: false, incidents: false }
    }

    fn new(map: &Heatmap, grid: &Grid, scale: &Scale) -> Self {
        let decimals = decimals(map, scale);
        let none = Self { decimals, ..Self::none() };
        let fits = |lines: f64, widest: &dyn Fn(&Cell) -> f64| {
            map.cells.iter().filter(|cell| cell.value.is_some()).all(|cell| {
                let area = grid.cell(cell.row, cell.column);
                widest(cell) <= area.width() - 5.0 && lines * 13.0 + 3.0 <= area.height()
            })
        };
        let values = fits(1.0, &|cell| font::width(&none.value(cell), TEXT));
        let halves = values && fits(2.0, &|cell| font::width(&none.half(cell), SMALL));
        let most = if halves { 3.0 } else { 2.0 };
        let incidents = values && !map.shares && fits(most, &|cell| font::width(&incident(cell), SMALL));
        Self { values, halves, incidents, ..none }
    }

    fn value(&self, cell: &Cell) -> String {
        let value = cell.value.unwrap_or(0.0);
        self.decimals.map_or_else(|| brief(value), |decimals| fixed(value, decimals))
    }

    fn half(&self, cell: &Cell) -> String {
        let text = |half| self.decimals.map_or_else(|| brief(half), |decimals| fixed(half, decimals));
        cell.half.map_or_else(String::new, |half| format!("± {}", text(half)))
    }

    fn draw(&self, scene: &mut Scene, cell: &Cell, area: Area, colour: Colour) {
        let lines: Vec<(String, f64)> = [
            self.values.then(|| (self.value(cell), TEXT)),
            self.halves.then(|| (self.half(cell), SMALL)),
            self.incidents.then(|| (incident(cell), SMALL)),
        ]
        .into_iter()
        .flatten()
        .filter(|(text, _)| !text.is_empty())
        .collect();
        let (x, middle) = area.centre();
        let first = middle - (lines.len() as f64 - 1.0) * 6.5;
        for (at, (text, size)) in lines.iter().enumerate() {
            let y = first + at as f64 * 13.0 + size * 0.36;
            scene.text((x, y), text, *size, colour, Anchor::Middle);
        }
    }
}

fn incident(cell: &Cell) -> String {
    if cell.trials[1] > 0 { format!("{} div.", cell.trials[1]) } else { String::new() }
}

/// Decimals that tell cells apart; none where sizes differ too much for a fixed number.
fn decimals(map: &Heatmap, scale: &Scale) -> Option<usize> {
    if map.shares {
        return Some(2);
    }
    let largest = scale.from.abs().max(scale.to.abs());
    if !(1e-3..1e5).contains(&largest) || map.log {
        return None;
    }
    let step = (scale.to - scale.from) / 200.0;
    Some((-libm::floor(libm::log10(step))).clamp(0.0, 5.0) as usize)
}

/// What stands at the left: places on the page, and labels.
fn row_ticks(map: &Heatmap, area: Area) -> Vec<(f64, String)> {
    let fits = |_: &str, share: f64| share * area.height() >= 14.0;
    let ticks = map.rows.ticks((area.height() / 34.0).clamp(2.0, 9.0) as usize, fits);
    let place = |x: f64| if map.upwards() { area.bottom - x * area.height() } else { area.top + x * area.height() };
    ticks.into_iter().map(|(x, label)| (place(x), label)).collect()
}

fn name_rows(scene: &mut Scene, map: &Heatmap, grid: &Grid, left: f64) {
    let mut taken: Vec<f64> = Vec::new();
    for (y, label) in row_ticks(map, grid.area) {
        if taken.iter().any(|other| (other - y).abs() < 13.5) {
            continue;
        }
        taken.push(y);
        let text = font::fitting(&label, TEXT, left - 26.0);
        scene.line(vec![(grid.area.left - 4.0, y), (grid.area.left, y)], Stroke::new(GREY, 1.0));
        scene.text((grid.area.left - 7.0, y + TEXT * 0.36), &text, TEXT, INK, Anchor::End);
    }
    frame::name_left(scene, grid.area, grid.area.left - left, &map.rows.label());
}

/// Whether words are too long to stand beside each other.
fn is_turned(columns: &Factor, room: f64) -> bool {
    let each = room / columns.levels.len() as f64;
    let words = columns.levels.iter().any(|level| level.number.is_none());
    words && frame::widest(columns.levels.iter().map(|level| level.text.as_str()), TEXT) > each - 6.0
}

fn turned_room(columns: &Factor, height: f64) -> f64 {
    frame::widest(columns.levels.iter().map(|level| level.text.as_str()), TEXT).min(height * 0.4) + 8.0
}

fn name_columns(scene: &mut Scene, map: &Heatmap, grid: &Grid, turned: bool, below: f64) {
    let (area, bottom) = (grid.area, grid.area.bottom);
    let fits = |text: &str, share: f64| font::width(text, TEXT) + 8.0 <= share * area.width();
    let mut free_from = f64::NEG_INFINITY;
    for (place, label) in map.columns.ticks((area.width() / 55.0).clamp(2.0, 10.0) as usize, fits) {
        let x = area.left + place * area.width();
        let half = if turned { TEXT / 2.0 } else { font::width(&label, TEXT) / 2.0 };
        if x - half < free_from {
            continue;
        }
        free_from = x + half + if turned { 2.0 } else { 8.0 };
        scene.line(vec![(x, bottom), (x, bottom + 4.0)], Stroke::new(GREY, 1.0));
        if turned {
            let text = font::fitting(&label, TEXT, below - 34.0);
            scene.turned((x + TEXT * 0.36, bottom + 7.0), &text, TEXT, INK, Anchor::End);
        } else {
            scene.text((x, bottom + 17.0), &label, TEXT, INK, Anchor::Middle);
        }
    }
    let name = font::fitting(&map.columns.label(), TEXT, grid.area.width());
    scene.text((grid.area.centre().0, bottom + below - 5.0), &name, TEXT, INK, Anchor::Middle);
}

fn draw_points(scene: &mut Scene, map: &Heatmap, area: Area, ends: &[Scale; 2], scale: &Scale) {
    let radius = if map.cells.len() > 300 { 4.0 } else { 6.5 };
    for cell in &map.cells {
        let (row, column) = (map.rows.levels[cell.row].number, map.columns.levels[cell.column].number);
        let (Some(row), Some(column)) = (row, column) else { continue };
        let (x, y) =
            (area.left + ends[1].place(column) * area.width(), area.bottom - ends[0].place(row) * area.height());
        match cell.value {
            Some(value) => {
                let colour = fill(map, scale, value);
                scene.circle((x, y), radius, Some(Fill { colour, opacity: 1.0 }), Some(Stroke::new(INK, 0.7)));
            }
            None if cell.trials[1] > 0 => {
                let cross = Stroke::new(SERIES[1], 1.6);
                scene.line(vec![(x - 4.0, y - 4.0), (x + 4.0, y + 4.0)], cross);
                scene.line(vec![(x - 4.0, y + 4.0), (x + 4.0, y - 4.0)], cross);
            }
            None => scene.circle((x, y), radius, None, Some(Stroke { dash: &[1.5, 1.5], ..Stroke::new(GREY, 0.8) })),
        }
    }
}

fn samples(map: &Heatmap) -> Vec<Vec<Option<f64>>> {
    let mut values = vec![vec![None; map.columns.levels.len()]; map.rows.levels.len()];
    map.cells.iter().for_each(|cell| values[cell.row][cell.column] = cell.value);
    values
}

/// Numbers under lines cannot be read: where there are lines, these say it.
fn has_contours(map: &Heatmap) -> bool {
    let values = samples(map);
    CONTOURS.iter().any(|(level, _)| !contour::lines(&values, *level).is_empty())
}

fn draw_contours(scene: &mut Scene, map: &Heatmap, grid: &Grid) {
    let values = samples(map);
    let middle = |edges: &[f64], place: f64| {
        let at = (place as usize).min(edges.len() - 2);
        let centre = |i: usize| (edges[i] + edges[i + 1]) / 2.0;
        let next = (at + 1).min(edges.len() - 2);
        centre(at) + (place - at as f64) * (centre(next) - centre(at))
    };
    let mut labels = Vec::new();
    for (level, dash) in CONTOURS {
        let mut longest: Vec<(f64, f64)> = Vec::new();
        for line in contour::lines(&values, level) {
            let line: Vec<_> = line.iter().map(|(c, r)| (middle(&grid.columns, *c), middle(&grid.rows, *r))).collect();
            scene.line(line.clone(), Stroke::new(PAPER, 4.0));
            scene.line(line.clone(), Stroke { dash, ..Stroke::new(INK, 1.8) });
            if length(&line) > length(&longest) {
                longest = line;
            }
        }
        labels.push((level, longest));
    }
    // Contours that lie close have their labels at different places; one that has no room is told by its dashes.
    let mut placed: Vec<(f64, f64)> = Vec::new();
    for ((level, line), preferred) in labels.iter().zip([0.12, 0.5, 0.88]) {
        let shares = [preferred, 0.5, 0.3, 0.7, 0.15, 0.85];
        let free = |(x, y): &(f64, f64)| placed.iter().all(|(a, b)| (a - x).abs() > 30.0 || (b - y).abs() > 15.0);
        if let Some(place) = shares.iter().filter_map(|share| along(line, *share)).find(free) {
            scene.label(place, &format!("{level}"), SMALL, INK);
            placed.push(place);
        }
    }
}

fn length(line: &[(f64, f64)]) -> f64 {
    line.windows(2).map(|pair| libm::hypot(pair[1].0 - pair[0].0, pair[1].1 - pair[0].1)).sum()
}

/// The place after a share of a line's length.
fn along(line: &[(f64, f64)], share: f64) -> Option<(f64, f64)> {
    let mut left = length(line) * share;
    for pair in line.windows(2) {
        let step = length(pair);
        if left <= step && step > 0.0 {
            let part = left / step;
            return Some((pair[0].0 + part * (pair[1].0 - pair[0].0), pair[0].1 + part * (pair[1].1 - pair[0].1)));
        }
        left -= step;
    }
    line.last().copied()
}

const BAR: f64 = 14.0;

fn bar_ticks(scale: &Scale, height: f64) -> Vec<(f64, String)> {
    scale.ticks((height / 36.0).clamp(2.0, 8.0) as usize)
}

fn bar_width(scale: &Scale) -> f64 {
    // How high it is to be is not known yet, and with it how many labels there are, and with how many decimals.
    let width = |height: f64| {
        let labels = bar_ticks(scale, height);
        frame::widest(labels.iter().map(|(_, label)| label.as_str()), TEXT)
    };
    let widest = (2..=8).map(|labels| width(f64::from(labels) * 36.0)).fold(0.0, f64::max);
    18.0 + BAR + 7.0 + widest + 22.0
}

/// The colours with their values, at the right.
fn draw_bar(scene: &mut Scene, map: &Heatmap, area: Area, scale: &Scale) {
    let left = area.right + 18.0;
    let steps = 64;
    for i in 0..steps {
        let share = |i: i32| f64::from(i) / f64::from(steps);
        let colour = if map.shares {
            colour::of_share(share(i))
        } else {
            colour::of_value((f64::from(i) + 0.5) / f64::from(steps))
        };
        let (top, bottom) = (area.bottom - share(i + 1) * area.height(), area.bottom - share(i) * area.height());
        // Half a pixel more, so that nothing shines through.
        let part = Area { left, right: left + BAR, top, bottom: (bottom + 0.5).min(area.bottom) };
        scene.area(part, Some(Fill { colour, opacity: 1.0 }), None);
    }
    scene.area(Area { left, right: left + BAR, ..area }, None, Some(Stroke::new(GREY, 1.0)));
    let ticks = bar_ticks(scale, area.height());
    for (value, label) in &ticks {
        let y = area.bottom - scale.place(*value) * area.height();
        scene.line(vec![(left + BAR, y), (left + BAR + 4.0, y)], Stroke::new(GREY, 1.0));
        scene.text((left + BAR + 7.0, y + TEXT * 0.36), label, TEXT, INK, Anchor::Start);
    }
    let name = if map.log { format!("{} (log scale)", map.name) } else { map.name.clone() };
    let size = if font::width(&name, TEXT) > area.height() { SMALL } else { TEXT };
    let name = font::fitting(&name, size, area.height());
    scene.turned((scene.width - 14.0, area.centre().1), &name, size, INK, Anchor::Middle);
}

/// What marks mean, of those that occur.
fn notes(map: &Heatmap, scattered: bool) -> Vec<String> {
    let some = |wanted: &dyn Fn(&Cell) -> bool| map.cells.iter().any(wanted);
    let mut parts = Vec::new();
    if some(&|cell| cell.value.is_none() && cell.trials[1] > 0) {
        parts.push("Crossed: all trials diverged.");
    }
    if some(&|cell| cell.value.is_none() && cell.trials[1] == 0) {
        parts.push(if scattered { "Dashed circle: no result." } else { "Hatched: no result." });
    }
    if !scattered && !map.shares && some(&|cell| cell.value.is_some() && cell.trials[1] > 0) {
        parts.push("Corner: some diverged (div.); the number is over those that completed.");
    }
    if !scattered && some(&|cell| cell.half.is_some()) {
        parts.push("±, where there is room: half of the 95 % CI of the mean.");
    }
    let even = |factor: &Factor| factor.spacing() == Spacing::Even && factor.levels.len() > 2;
    if map.shares && !scattered && has_contours(map) {
        parts.push("Lines: P = 0.1 (dotted), 0.5 (solid), 0.9 (dashed), linear between the cells' centres.");
        if even(&map.rows) || even(&map.columns) {
            parts.push("An axis without a scale has equal steps from value to value.");
        }
    }
    let said = parts.join(" ");
    map.notes.iter().cloned().chain(Some(said).filter(|said| !said.is_empty())).collect()
}
