//! A number per cell of two axes as colour; phase diagrams are such, of shares and with contours.

use super::axis::{self, Scale, Spacing};
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
    /// Its number, if it has one; an infinite one has no place among the colours.
    pub value: Option<f64>,
    /// Half of the number's confidence interval, to be written below it.
    pub half: Option<f64>,
    /// Trials with a row: completed, diverged, failed.
    pub trials: [u64; 3],
}

/// Which trials the numbers are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
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
    pub rows: Factor,
    /// The axis to the right.
    pub columns: Factor,
    /// Cells that belong to the sweep, in any order; places without one stay empty.
    pub cells: Vec<Cell>,
    /// What the numbers are.
    pub name: String,
    /// Which trials they are over.
    pub over: Over,
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
    let bar = bar_width(&scale);
    if scattered {
        let mut sheet = Sheet::new(look, wanted(map, scattered), &notes(map, &scale, None));
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
    // What is written into cells is known when their size is, which the notes about what is written take a part of. Fewer
    // notes leave more room.
    let all = Texts { values: true, halves: true, incidents: true, ..Texts::none() };
    let texts = Texts::new(map, &Layout::new(map, look, &notes(map, &scale, Some(&all)), bar)?.grid, &scale);
    let Layout { mut sheet, grid, left, below, turned } =
        Layout::new(map, look, &notes(map, &scale, Some(&texts)), bar)?;
    draw_cells(&mut sheet.scene, map, &grid, &scale);
    name_rows(&mut sheet.scene, map, &grid, left);
    name_columns(&mut sheet.scene, map, &grid, turned, below);
    let contours = contours(map);
    let labels = draw_contours(&mut sheet.scene, &grid, &contours);
    let taken: Vec<Area> = map
        .cells
        .iter()
        .flat_map(|cell| texts.draw(&mut sheet.scene, map, cell, &grid, &scale, !contours.is_empty()))
        .collect();
    label_contours(&mut sheet.scene, &labels, &taken);
    frame::frame(&mut sheet.scene, grid.area);
    draw_bar(&mut sheet.scene, map, grid.area, &scale);
    Ok(sheet.scene)
}

/// What stands where.
struct Layout {
    sheet: Sheet,
    grid: Grid,
    left: f64,
    below: f64,
    turned: bool,
}

impl Layout {
    fn new(map: &Heatmap, look: &Look, notes: &[String], bar: f64) -> Result<Self, String> {
        let sheet = Sheet::new(look, wanted(map, false), notes);
        let names = frame::widest(map.rows.levels.iter().map(|level| level.text.as_str()), TEXT);
        let left = names.min(sheet.body.width() / 3.0) + 30.0;
        let turned = is_turned(&map.columns, sheet.body.width() - left - bar);
        let below = if turned { turned_room(&map.columns, sheet.body.height()) + 28.0 } else { frame::BELOW };
        let grid = Grid::new(map, sheet.within(left, bar, below)?);
        Ok(Self { sheet, grid, left, below, turned })
    }
}

/// The values' place among the colours, of those that are finite.
fn colours(map: &Heatmap) -> Result<Scale, String> {
    if map.cells.iter().all(|cell| cell.value.is_none()) {
        return Err(format!("no cell has a value of {}: {}", map.name, why_empty(map)));
    }
    let values = || map.finite();
    if values().next().is_none() {
        return Err(format!("{} is infinite in every cell that has a value: there is nothing to tell apart", map.name));
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
    let places = map.rows.levels.len() * map.columns.levels.len();
    places > 36 && places > 4 * map.cells.len() && map.rows.is_numeric() && map.columns.is_numeric()
}

impl Heatmap {
    /// The values that have a place among the colours.
    fn finite(&self) -> impl Iterator<Item = f64> {
        self.cells.iter().filter_map(|cell| cell.value).filter(|value| value.is_finite())
    }

    /// Numbers grow upwards; words stand in their order from the top.
    fn upwards(&self) -> bool {
        self.rows.is_numeric()
    }

    /// Whether a cell is marked by how many of its trials diverged.
    fn is_marked(&self, cell: &Cell) -> bool {
        let told = matches!(self.over, Over::Completed | Over::Both);
        told && cell.value.is_some() && cell.trials[1] > 0
    }

    /// Whether a cell has no number since all of its trials diverged.
    fn is_crossed(&self, cell: &Cell) -> bool {
        cell.value.is_none() && cell.trials[0] == 0 && cell.trials[1] > 0
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
    if value.is_infinite() {
        return FAINT;
    }
    if map.shares { colour::of_share(value) } else { colour::of_value(scale.place(value)) }
}

fn draw_cells(scene: &mut Scene, map: &Heatmap, grid: &Grid, scale: &Scale) {
    for cell in &map.cells {
        let area = grid.cell(cell.row, cell.column);
        let Some(value) = cell.value else {
            draw_empty(scene, area, map.is_crossed(cell));
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
        if map.is_marked(cell) {
            draw_share(scene, area, cell);
        }
    }
}

/// Hatched where there is no number; crossed out where all trials diverged.
fn draw_empty(scene: &mut Scene, area: Area, crossed: bool) {
    if !crossed {
        scene.hatch(area, Stroke::new(GREY, 0.6));
        return;
    }
    scene.area(area, Some(Fill { colour: FAINT, opacity: 1.0 }), Some(Stroke::new(PAPER, 1.0)));
    let Area { left, top, right, bottom } = area;
    let cross = Stroke::new(SERIES[1], 1.2);
    scene.line(vec![(left, top), (right, bottom)], cross);
    scene.line(vec![(left, bottom), (right, top)], cross);
}

/// Largest width of the bar of a share.
const SHARE: f64 = 6.0;

/// A bar at the right edge, as high as the share of the trials that diverged.
fn draw_share(scene: &mut Scene, area: Area, cell: &Cell) {
    let share = cell.trials[1] as f64 / cell.trials.iter().sum::<u64>() as f64;
    let width = (area.width() * 0.08).clamp(2.0, SHARE).min(area.width() / 3.0);
    let height = (share * area.height()).max(2.0).min(area.height());
    let bar = Area { left: area.right - width, top: area.bottom - height, ..area };
    scene.area(bar, Some(Fill { colour: SERIES[1], opacity: 1.0 }), Some(Stroke::new(PAPER, 0.8)));
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
        let none = Self { decimals: decimals(map, scale), ..Self::none() };
        // Room at the sides and above and below: beside a bar, and so much that a line is seen to pass.
        let (aside, above) = match contours(map).is_empty() {
            false => (20.0, 17.0),
            true if map.cells.iter().any(|cell| map.is_marked(cell)) => (2.0 * SHARE + 3.0, 3.0),
            true => (5.0, 3.0),
        };
        let fits = |lines: f64, widest: &dyn Fn(&Cell) -> f64| {
            map.cells.iter().filter(|cell| cell.value.is_some()).all(|cell| {
                let area = grid.cell(cell.row, cell.column);
                widest(cell) + aside <= area.width() && lines * 13.0 + above <= area.height()
            })
        };
        let some = |wanted: &dyn Fn(&Cell) -> bool| map.cells.iter().any(wanted);
        let values = fits(1.0, &|cell| font::width(&none.value(cell), TEXT));
        let halves =
            values && some(&|cell| cell.half.is_some()) && fits(2.0, &|cell| font::width(&none.half(cell), SMALL));
        let most = if halves { 3.0 } else { 2.0 };
        let incidents = values
            && map.over != Over::Counts
            && some(&|cell| cell.value.is_some() && cell.trials[1] > 0)
            && fits(most, &|cell| font::width(&incident(cell), SMALL));
        Self { values, halves, incidents, ..none }
    }

    fn value(&self, cell: &Cell) -> String {
        let value = cell.value.unwrap_or(0.0);
        self.decimals.map_or_else(|| brief(value), |decimals| fixed(value, decimals))
    }

    fn half(&self, cell: &Cell) -> String {
        // Half of an interval that is far narrower than the values are apart is not nothing.
        let fits = |decimals: &usize, half: f64| half == 0.0 || half >= 0.5 * libm::exp10(-(*decimals as f64));
        let decimals = |half| self.decimals.filter(|decimals| fits(decimals, half));
        let text = |half| decimals(half).map_or_else(|| brief(half), |decimals| fixed(half, decimals));
        cell.half.map_or_else(String::new, |half| format!("± {}", text(half)))
    }

    /// Writes them, and gives the places that are taken; on a patch of the cell's colour where lines may pass.
    fn draw(
        &self,
        scene: &mut Scene,
        map: &Heatmap,
        cell: &Cell,
        grid: &Grid,
        scale: &Scale,
        patch: bool,
    ) -> Vec<Area> {
        let Some(value) = cell.value else { return Vec::new() };
        let lines: Vec<(String, f64)> = [
            self.values.then(|| (self.value(cell), TEXT)),
            self.halves.then(|| (self.half(cell), SMALL)),
            self.incidents.then(|| (incident(cell), SMALL)),
        ]
        .into_iter()
        .flatten()
        .filter(|(text, _)| !text.is_empty())
        .collect();
        let colour = fill(map, scale, value);
        let (x, middle) = grid.cell(cell.row, cell.column).centre();
        let first = middle - (lines.len() as f64 - 1.0) * 6.5;
        let mut taken = Vec::new();
        for (at, (text, size)) in lines.iter().enumerate() {
            let (y, half) = (first + at as f64 * 13.0, font::width(text, *size) / 2.0 + 2.0);
            let area = Area { left: x - half, right: x + half, top: y - size * 0.6, bottom: y + size * 0.6 };
            if patch {
                scene.area(area, Some(Fill { colour, opacity: 0.85 }), None);
            }
            scene.text((x, y + size * 0.36), text, *size, colour::on(colour), Anchor::Middle);
            taken.push(area);
        }
        taken
    }
}

fn incident(cell: &Cell) -> String {
    let all: u64 = cell.trials.iter().sum();
    if cell.trials[1] > 0 { format!("{}/{all} div.", cell.trials[1]) } else { String::new() }
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
    if map.cells.iter().all(|cell| cell.half.is_none()) && map.finite().all(|x| x == libm::trunc(x)) {
        return Some(0);
    }
    let step = (scale.to - scale.from) / 200.0;
    Some((-libm::floor(libm::log10(step))).clamp(0.0, 9.0) as usize)
}

fn name_rows(scene: &mut Scene, map: &Heatmap, grid: &Grid, left: f64) {
    let area = grid.area;
    let place = |x: f64| if map.upwards() { area.bottom - x * area.height() } else { area.top + x * area.height() };
    let ticks = map.rows.ticks().into_iter().map(|(x, label)| (place(x), label)).collect();
    for (y, label) in axis::apart(ticks, |_| 6.75) {
        let text = font::fitting(&label, TEXT, left - 26.0);
        scene.line(vec![(area.left - 4.0, y), (area.left, y)], Stroke::new(GREY, 1.0));
        scene.text((area.left - 7.0, y + TEXT * 0.36), &text, TEXT, INK, Anchor::End);
    }
    frame::name_left(scene, area, area.left - left, &map.rows.label());
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
    let ticks = map.columns.ticks().into_iter().map(|(x, label)| (area.left + x * area.width(), label)).collect();
    let half = |label: &str| if turned { 7.0 } else { font::width(label, TEXT) / 2.0 + 4.0 };
    for (x, label) in axis::apart(ticks, half) {
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
            None if map.is_crossed(cell) => {
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

/// The lines of shares with their level and dashes, of those levels that are reached. Between words lies nothing.
fn contours(map: &Heatmap) -> Vec<(f64, &'static [f64], Vec<contour::Line>)> {
    if !map.shares || !map.rows.is_numeric() || !map.columns.is_numeric() {
        return Vec::new();
    }
    let values = samples(map);
    let all = CONTOURS.into_iter().map(|(level, dash)| (level, dash, contour::lines(&values, level)));
    all.filter(|(_, _, lines)| !lines.is_empty()).collect()
}

/// Draws them, and gives the longest line of each level.
fn draw_contours(
    scene: &mut Scene,
    grid: &Grid,
    contours: &[(f64, &'static [f64], Vec<contour::Line>)],
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
            let line: Vec<_> = line.iter().map(|(c, r)| (middle(&grid.columns, *c), middle(&grid.rows, *r))).collect();
            scene.line(line.clone(), Stroke::new(PAPER, 4.0));
            scene.line(line.clone(), Stroke { dash, ..Stroke::new(INK, 1.8) });
            if length(&line) > length(&longest) {
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
        let (half, tall) = (font::width(&text, SMALL) / 2.0 + 2.0, SMALL * 0.6);
        let shares = [preferred, 0.5, 0.3, 0.7, 0.15, 0.85, 0.4, 0.6, 0.22, 0.78];
        let free = |(x, y): &(f64, f64)| {
            let beside = |a: &Area| x + half < a.left || x - half > a.right || y + tall < a.top || y - tall > a.bottom;
            let apart = placed.iter().all(|(a, b)| (a - x).abs() > 30.0 || (b - y).abs() > 15.0);
            apart && taken.iter().all(beside)
        };
        if let Some(place) = shares.iter().filter_map(|share| along(line, *share)).find(free) {
            scene.label(place, &text, SMALL, INK);
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

/// What marks mean, of those that are drawn: `texts` are what is written into cells, which points have none of.
fn notes(map: &Heatmap, scale: &Scale, texts: Option<&Texts>) -> Vec<String> {
    let none = Texts::none();
    let (scattered, texts) = (texts.is_none(), texts.unwrap_or(&none));
    let some = |wanted: &dyn Fn(&Cell) -> bool| map.cells.iter().any(wanted);
    let mut parts: Vec<String> = empty_notes(map, scattered);
    if !scattered && map.cells.len() < map.rows.levels.len() * map.columns.levels.len() {
        let chosen = if map.partial { ", or one that was not chosen" } else { "" };
        parts.push(format!("Blank: no such cell{chosen}."));
    }
    let div = if texts.incidents { " (div.)" } else { "" };
    let bars = !scattered && some(&|cell| map.is_marked(cell));
    let bar = if bars {
        format!("Bar at a cell's right edge: share of its trials that diverged{div}; ")
    } else {
        String::new()
    };
    match map.over {
        Over::Completed if bars => parts.push(format!("{bar}the number is over those that completed.")),
        Over::Both if bars => parts.push(format!("{bar}the number counts these, too.")),
        Over::Diverged => parts.push(format!("The number is over the trials that diverged{div}, in steps.")),
        _ => {}
    }
    if texts.halves {
        parts.push("±: half of the 95 % CI of the mean.".to_owned());
    }
    parts.extend(colour_notes(map, scale));
    let drawn = if scattered { Vec::new() } else { contours(map) };
    if !drawn.is_empty() {
        let kind = |dash: &[f64]| match dash {
            [] => "solid",
            [first, ..] if *first < 3.0 => "dotted",
            _ => "dashed",
        };
        let levels: Vec<String> = drawn.iter().map(|(level, dash, _)| format!("{level} ({})", kind(dash))).collect();
        parts.push(format!("Lines: P = {}, linear between the cells' centres.", levels.join(", ")));
        let even = |factor: &Factor| factor.spacing() == Spacing::Even && factor.levels.len() > 2;
        if even(&map.rows) || even(&map.columns) {
            parts.push("An axis without a scale has equal steps from value to value.".to_owned());
        }
    }
    let said = parts.join(" ");
    map.notes.iter().cloned().chain(Some(said).filter(|said| !said.is_empty())).collect()
}

/// Why cells have no number.
fn empty_notes(map: &Heatmap, scattered: bool) -> Vec<String> {
    let mut parts = Vec::new();
    let crossed: Vec<&Cell> = map.cells.iter().filter(|cell| map.is_crossed(cell)).collect();
    if !crossed.is_empty() {
        let failed = if crossed.iter().any(|cell| cell.trials[2] > 0) { " or failed" } else { "" };
        parts.push(format!("Crossed: all trials diverged{failed}."));
    }
    let hatched = || map.cells.iter().filter(|cell| cell.value.is_none() && !map.is_crossed(cell));
    let why = |cell: &Cell| match (cell.trials[0], map.over) {
        (0, _) => "no result",
        (_, Over::Diverged) => "no trial diverged",
        _ => "too few trials for it",
    };
    let mut reasons: Vec<&str> = hatched().map(why).collect();
    reasons.sort_unstable();
    reasons.dedup();
    if !reasons.is_empty() {
        let mark = if scattered { "Dashed circle" } else { "Hatched" };
        parts.push(format!("{mark}: {}.", reasons.join(", or ")));
    }
    parts
}

/// What colours make more, or less, of than there is.
fn colour_notes(map: &Heatmap, scale: &Scale) -> Vec<String> {
    let mut values: Vec<f64> = map.finite().collect();
    let mut notes = Vec::new();
    let infinite = map.cells.iter().any(|cell| cell.value.is_some_and(f64::is_infinite));
    notes.extend(infinite.then(|| "Grey: inf, outside of the scale.".to_owned()));
    if map.shares || values.len() < 2 {
        return notes;
    }
    let finite = map.cells.iter().filter_map(|cell| Some((cell.value.filter(|x| x.is_finite())?, cell.half)));
    let ends: Option<Vec<(f64, f64)>> = finite.map(|(x, half)| Some((x, half?))).collect();
    if let Some(ends) = ends {
        let low = ends.iter().map(|(x, half)| x - half).fold(f64::NEG_INFINITY, f64::max);
        let high = ends.iter().map(|(x, half)| x + half).fold(f64::INFINITY, f64::min);
        if low <= high + 1e-9 * high.abs() {
            notes.push("The intervals of all cells overlap: differences of colour are within them.".to_owned());
        }
    }
    values.sort_by(f64::total_cmp);
    let (least, middle, most) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    if !map.log && least > 0.0 && most > 1e3 * least && scale.place(middle) < 0.1 {
        notes.push("Most numbers are far below the largest: --log tells their colours apart.".to_owned());
    }
    notes
}
