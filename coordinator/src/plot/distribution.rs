//! The values of each cell's trials: their density, the trials themselves, quartiles and median.

use super::Look;
use super::axis::Scale;
use super::colour::{GREY, INK, SERIES};
use super::frame::Rows;
use super::scene::{Fill, Scene, Stroke};

/// A cell with its trials.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Its name.
    pub label: String,
    /// Values of completed trials, in any order.
    pub values: Vec<f64>,
    /// Trials that diverged.
    pub diverged: u64,
    /// Trials that failed.
    pub failed: u64,
}

/// Most cells of one picture.
pub const MOST: usize = 60;
/// From so many trials on, the trials themselves are not drawn, but their density alone.
const MOST_DOTS: usize = 200;
/// Least number of trials of which a density is drawn.
const LEAST_DENSE: usize = 10;

/// Draws the cells below each other.
///
/// # Errors
/// There is no value, there are too many cells, or the picture is too small.
pub fn draw(metric: &str, key: &str, cells: &[Cell], log: bool, look: &Look) -> Result<Scene, String> {
    if cells.len() > MOST {
        let n = cells.len();
        return Err(format!(
            "{n} cells are too many for one picture, of at most {MOST}: pool with --by AXIS, or choose with --where or --top"
        ));
    }
    let all = || cells.iter().flat_map(|cell| &cell.values).copied();
    if all().next().is_none() {
        return Err(format!("no trial has a value of {metric}: all diverged or failed, or none has ended"));
    }
    if let Some(x) = all().find(|x| log && *x <= 0.0) {
        return Err(format!("{metric} is {x} in a trial, which has no place on a logarithmic scale: leave out --log"));
    }
    let scale = Scale::over(all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max), log);
    let names: Vec<String> = cells.iter().map(|cell| cell.label.clone()).collect();
    let remarks: Vec<String> = cells.iter().map(remark).collect();
    let notes = [format!("Rows: {key}. {}", legend(cells))];
    let axis = format!("{metric}{}", if log { " (log scale)" } else { "" });
    let mut rows = Rows::new(look, &notes, &names, &remarks, scale.padded(0.04), &axis)?;
    for (at, cell) in cells.iter().enumerate() {
        draw_cell(&mut rows, at, cell);
    }
    Ok(rows.sheet.scene)
}

/// What the marks are, of those that occur.
fn legend(cells: &[Cell]) -> String {
    let some = |wanted: &dyn Fn(&Cell) -> bool| cells.iter().any(wanted);
    let (dense, many) = (some(&is_dense), some(&|cell| cell.values.len() > MOST_DOTS));
    let limit = if many { format!(" (of at most {MOST_DOTS})") } else { String::new() };
    let dots = match (some(&|cell| (1..=MOST_DOTS).contains(&cell.values.len())), dense) {
        (true, true) => format!("One dot per completed trial{limit}, over their density"),
        (true, false) => format!("One dot per completed trial{limit}"),
        (false, _) => "Shaded: density of the completed trials".to_owned(),
    };
    match some(&|cell| cell.values.len() > 1) {
        true => format!("{dots}; the box holds the middle half, its line is the median."),
        false => format!("{dots}."),
    }
}

/// Whether its density is drawn.
fn is_dense(cell: &Cell) -> bool {
    cell.values.len() >= LEAST_DENSE && cell.values.iter().any(|x| *x != cell.values[0])
}

fn remark(cell: &Cell) -> String {
    let part = |n: u64, what: &str| if n > 0 { format!(", {n} {what}") } else { String::new() };
    let n = cell.values.len();
    match n {
        0 if cell.diverged > 0 && cell.failed == 0 => format!("all {} diverged", cell.diverged),
        0 if cell.diverged + cell.failed == 0 => "no result yet".to_owned(),
        _ => format!("n = {n}{}{}", part(cell.diverged, "diverged"), part(cell.failed, "failed")),
    }
}

fn draw_cell(rows: &mut Rows, at: usize, cell: &Cell) {
    let mut values = cell.values.clone();
    values.sort_by(f64::total_cmp);
    let places: Vec<f64> = values.iter().map(|x| rows.x(*x)).collect();
    let (Some(first), Some(last)) = (places.first().copied(), places.last().copied()) else { return };
    let (y, half) = (rows.middle(at), rows.half());
    let blue = SERIES[0];
    let density = Density::of(&places);
    if is_dense(cell) && last > first {
        let steps = 60;
        let x = |i: usize| first + (last - first) * i as f64 / f64::from(steps);
        let edge = |i: usize, side: f64| (x(i), y + side * half * density.at(x(i)));
        let upper = (0..=60).map(|i| edge(i, -1.0));
        let lower = (0..=60).rev().map(|i| edge(i, 1.0));
        let outline = Stroke::new(blue, 0.75);
        rows.sheet.scene.polygon(
            upper.chain(lower).collect(),
            Some(Fill { colour: blue, opacity: 0.16 }),
            Some(outline),
        );
    }
    if places.len() <= MOST_DOTS {
        for (i, x) in places.iter().enumerate() {
            let spread = if places.len() >= LEAST_DENSE { density.at(*x) } else { 0.6 };
            let aside = (scattered(i) - 0.5) * 1.7 * half * spread;
            rows.sheet.scene.circle((*x, y + aside), 1.9, Some(Fill { colour: blue, opacity: 0.65 }), None);
        }
    }
    if values.len() > 1 {
        quartiles(rows, &values, y);
    }
}

fn quartiles(rows: &mut Rows, values: &[f64], y: f64) {
    let [low, middle, high] = [0.25, 0.5, 0.75].map(|q| rows.x(quantile(values, q)));
    let tall = (rows.half() * 0.45).max(3.0);
    let area = super::scene::Area { left: low, right: high, top: y - tall, bottom: y + tall };
    rows.sheet.scene.area(area, None, Some(Stroke::new(GREY, 1.0)));
    rows.sheet.scene.line(vec![(middle, y - tall - 2.0), (middle, y + tall + 2.0)], Stroke::new(INK, 2.0));
}

/// Linear between the sorted values: type 7 of Hyndman and Fan (1996).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let at = (place as usize).min(sorted.len() - 1);
    let next = (at + 1).min(sorted.len() - 1);
    sorted[at] + (place - at as f64) * (sorted[next] - sorted[at])
}

/// A Gaussian kernel density over places in the picture, its largest value being 1.
struct Density<'a> {
    places: &'a [f64],
    width: f64,
    largest: f64,
}

impl<'a> Density<'a> {
    /// Silverman's rule of thumb (1986) for the width of the kernel, and never less than two pixels.
    fn of(places: &'a [f64]) -> Self {
        let n = places.len() as f64;
        let mean = places.iter().sum::<f64>() / n;
        let deviation = libm::sqrt(places.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0).max(1.0));
        let spread = match places.len() {
            0 | 1 => 0.0,
            _ => deviation.min((quantile(places, 0.75) - quantile(places, 0.25)) / 1.34),
        };
        let spread = if spread > 0.0 { spread } else { deviation };
        let width = (0.9 * spread * libm::pow(n, -0.2)).max(2.0);
        let mut density = Self { places, width, largest: 1.0 };
        let (first, last) = (places[0], places[places.len() - 1]);
        let grid = (0..=60).map(|i| first + (last - first) * f64::from(i) / 60.0);
        density.largest = grid.map(|x| density.raw(x)).fold(f64::MIN_POSITIVE, f64::max);
        density
    }

    fn raw(&self, x: f64) -> f64 {
        // What is four widths away adds nothing that could be seen.
        let from = self.places.partition_point(|p| *p < x - 4.0 * self.width);
        let near = self.places[from..].iter().take_while(|p| **p <= x + 4.0 * self.width);
        near.map(|p| (x - p) / self.width).map(|z| libm::exp(-z * z / 2.0)).sum()
    }

    fn at(&self, x: f64) -> f64 {
        (self.raw(x) / self.largest).min(1.0)
    }
}

/// The `i`-th number of van der Corput's sequence in base 2, which begins in the middle: neighbours lie apart, and nothing is
/// drawn by lot.
pub(super) fn scattered(i: usize) -> f64 {
    f64::from((i as u32).wrapping_add(1).reverse_bits()) / 4_294_967_296.0
}
