//! The distribution of values in each cell: density, single trials, quartiles and median.

use super::axis::AxisScale;
use super::colour::{GREY, INK, SERIES};
use super::robust::find_robust_range;
use super::row_chart::RowChart;
use super::scene::{Fill, Scene, Stroke};
use super::{PlotStyle, format_brief};

/// A cell with its trials.
#[derive(Debug, Clone, PartialEq)]
pub struct DistributionCell {
    /// Name of the cell.
    pub label: String,
    /// Values of completed trials, in any order.
    pub values: Vec<f64>,
    /// Number of diverged trials.
    pub diverged: u64,
    /// Number of failed trials.
    pub failed: u64,
}

/// Maximum number of cells in a picture.
pub const MAX_CELLS: usize = 60;
/// Maximum number of trials that are drawn as dots. With more, only the density is drawn.
const MAX_DOTS: usize = 200;
/// Minimum number of trials for a density.
const MIN_DENSITY_TRIALS: usize = 10;

/// Draws the cells below each other.
///
/// # Errors
/// There are no values or too many cells, or the picture is too small.
pub fn draw_distributions(
    metric: &str,
    key: &str,
    cells: &[DistributionCell],
    log: bool,
    look: &PlotStyle,
) -> Result<Scene, String> {
    if cells.len() > MAX_CELLS {
        let n = cells.len();
        return Err(format!(
            "{n} cells are too many for one picture, of at most {MAX_CELLS}: pool with --by AXIS, or choose with --where or --top"
        ));
    }

    let all = || cells.iter().flat_map(|cell| &cell.values).copied();
    if all().next().is_none() {
        return Err(format!(
            "no trial has a value of {metric}: all diverged or failed, or none has ended"
        ));
    }

    if let Some(x) = all().find(|x| log && *x <= 0.0) {
        return Err(format!(
            "{metric} is {x} in a trial, which has no place on a logarithmic scale: leave out --log-scale"
        ));
    }

    let scale = choose_value_scale(all().collect(), log, look)?;
    let names: Vec<String> = cells.iter().map(|cell| cell.label.clone()).collect();
    let remarks: Vec<String> = cells.iter().map(cell_remark).collect();
    let mut notes = vec![format!("Rows: {key}. {}", describe_marks(cells))];
    notes.extend(describe_values_outside(all(), &scale));
    let axis = format!("{metric}{}", if log { " (log scale)" } else { "" });
    let mut rows = RowChart::new(look, &notes, &names, &remarks, scale, &axis)?;

    for (at, cell) in cells.iter().enumerate() {
        draw_cell(&mut rows, at, cell);
    }

    Ok(rows.sheet.scene)
}

/// The scale of the values, which a few far ones do not stretch.
///
/// # Errors
/// Limits do not fit the scale, or belong to an axis that the picture lacks.
pub(super) fn choose_value_scale(
    values: Vec<f64>,
    log: bool,
    look: &PlotStyle,
) -> Result<AxisScale, String> {
    if !look.colour_limits.is_empty() || look.colour_label.is_some() || look.colour_map.is_some() {
        return Err(
            "--clim, --clabel and --cmap: this kind has no scale of colours: leave them out"
                .to_owned(),
        );
    }

    let usual = find_robust_range(&values, log);
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let data = [low, high];
    let [low, high] = usual.map_or(data, |range| [range.low, range.high]);
    let scale = AxisScale::from_range(low, high, log).with_padding(0.04);
    look.x_limits.apply_to_axis(scale, data, "--xlim")
}

/// Says how many values are beyond the scale, which triangles mark.
pub(super) fn describe_values_outside(
    values: impl Iterator<Item = f64> + Clone,
    scale: &AxisScale,
) -> Option<String> {
    let outside = values.clone().filter(|x| !scale.contains(*x));
    let many = outside.clone().count();
    if many == 0 {
        return None;
    }

    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    let are = if many == 1 { "value is" } else { "values are" };
    Some(format!(
        "Triangles: {many} {are} outside of the axis; all are from {} to {} (--xlim shows more).",
        format_brief(low),
        format_brief(high)
    ))
}

/// Explains the marks that occur.
fn describe_marks(cells: &[DistributionCell]) -> String {
    let some = |wanted: &dyn Fn(&DistributionCell) -> bool| cells.iter().any(wanted);
    let dense = some(&has_density);
    let many = some(&|cell| cell.values.len() > MAX_DOTS);
    let limit = if many {
        format!(" (of at most {MAX_DOTS})")
    } else {
        String::new()
    };
    let dots = match (
        some(&|cell| (1..=MAX_DOTS).contains(&cell.values.len())),
        dense,
    ) {
        (true, true) => format!("One dot per completed trial{limit}, over their density"),
        (true, false) => format!("One dot per completed trial{limit}"),
        (false, _) => "Shaded: density of the completed trials".to_owned(),
    };

    match some(&|cell| cell.values.len() > 1) {
        true => format!("{dots}; the box holds the middle half, its line is the median."),
        false => format!("{dots}."),
    }
}

/// Whether the density of a cell is drawn.
fn has_density(cell: &DistributionCell) -> bool {
    cell.values.len() >= MIN_DENSITY_TRIALS && cell.values.iter().any(|x| *x != cell.values[0])
}

fn describe_ended(n: u64, how: &str) -> String {
    if n > 0 {
        format!(", {n} {how}")
    } else {
        String::new()
    }
}

fn cell_remark(cell: &DistributionCell) -> String {
    let n = cell.values.len();
    match n {
        0 if cell.diverged > 0 && cell.failed == 0 => format!("all {} diverged", cell.diverged),
        0 if cell.diverged + cell.failed == 0 => "no result yet".to_owned(),
        _ => format!(
            "n = {n}{}{}",
            describe_ended(cell.diverged, "diverged"),
            describe_ended(cell.failed, "failed")
        ),
    }
}

fn draw_cell(rows: &mut RowChart, at: usize, cell: &DistributionCell) {
    rows.mark_values_outside(at, cell.values.iter().copied());
    let mut values = cell.values.clone();
    values.sort_by(f64::total_cmp);
    values.retain(|x| rows.scale.contains(*x));
    let places: Vec<f64> = values.iter().map(|x| rows.x_position(*x)).collect();
    let (Some(first), Some(last)) = (places.first().copied(), places.last().copied()) else {
        return;
    };

    let y = rows.row_middle(at);
    let density = KernelDensity::from_positions(&places);
    if has_density(cell) && last > first {
        draw_density(rows, &density, first, last, y);
    }

    if places.len() <= MAX_DOTS {
        draw_dots(rows, &density, &places, y);
    }

    if cell.values.len() > 1 {
        draw_quartiles(rows, &cell.values, y);
    }
}

/// Draws the density between two positions, mirrored at the middle of the row.
fn draw_density(rows: &mut RowChart, density: &KernelDensity, first: f64, last: f64, y: f64) {
    const STEPS: u32 = 60;
    let half = rows.row_half_height();
    let x = |i: u32| first + (last - first) * f64::from(i) / f64::from(STEPS);
    let edge = |i: u32, side: f64| (x(i), y + side * half * density.relative_density(x(i)));

    let upper = (0..=STEPS).map(|i| edge(i, -1.0));
    let lower = (0..=STEPS).rev().map(|i| edge(i, 1.0));
    let fill = Fill {
        colour: SERIES[0],
        opacity: 0.16,
    };
    rows.sheet.scene.add_polygon(
        upper.chain(lower).collect(),
        Some(fill),
        Some(Stroke::new(SERIES[0], 0.75)),
    );
}

/// Draws one dot per value, as far from the middle of the row as the density allows.
fn draw_dots(rows: &mut RowChart, density: &KernelDensity, places: &[f64], y: f64) {
    let half = rows.row_half_height();
    let fill = Fill {
        colour: SERIES[0],
        opacity: 0.65,
    };

    for (i, x) in places.iter().enumerate() {
        let spread = if places.len() >= MIN_DENSITY_TRIALS {
            density.relative_density(*x)
        } else {
            0.6
        };
        let aside = (van_der_corput(i) - 0.5) * 1.7 * half * spread;
        rows.sheet
            .scene
            .add_circle((*x, y + aside), 1.9, Some(fill), None);
    }
}

fn draw_quartiles(rows: &mut RowChart, values: &[f64], y: f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let [low, middle, high] =
        [0.25, 0.5, 0.75].map(|q| rows.x_position(interpolated_quantile(&sorted, q)));
    let tall = (rows.row_half_height() * 0.45).max(3.0);
    let area = super::scene::Area {
        left: low,
        right: high,
        top: y - tall,
        bottom: y + tall,
    };
    rows.sheet
        .scene
        .add_area(area, None, Some(Stroke::new(GREY, 1.0)));

    rows.sheet.scene.add_line(
        vec![(middle, y - tall - 2.0), (middle, y + tall + 2.0)],
        Stroke::new(INK, 2.0),
    );
}

/// Quantile with linear interpolation between the sorted values (type 7 of Hyndman and Fan 1996).
fn interpolated_quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let at = (place as usize).min(sorted.len() - 1);
    let next = (at + 1).min(sorted.len() - 1);
    sorted[at] + (place - at as f64) * (sorted[next] - sorted[at])
}

/// A Gaussian kernel density over positions in the picture, scaled to a maximum of 1.
struct KernelDensity<'a> {
    positions: &'a [f64],
    width: f64,
    largest: f64,
}

impl<'a> KernelDensity<'a> {
    /// Creates a density whose kernel width follows Silverman's rule of thumb (1986), but is at
    /// least two pixels.
    fn from_positions(places: &'a [f64]) -> Self {
        let n = places.len() as f64;
        let mean = places.iter().sum::<f64>() / n;
        let deviation = libm::sqrt(
            places.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0).max(1.0),
        );
        let spread = match places.len() {
            0 | 1 => 0.0,
            _ => deviation.min(
                (interpolated_quantile(places, 0.75) - interpolated_quantile(places, 0.25)) / 1.34,
            ),
        };
        let spread = if spread > 0.0 { spread } else { deviation };
        let width = (0.9 * spread * libm::pow(n, -0.2)).max(2.0);
        let mut density = Self {
            positions: places,
            width,
            largest: 1.0,
        };

        let first = places[0];
        let last = places[places.len() - 1];
        let grid = (0..=60).map(|i| first + (last - first) * f64::from(i) / 60.0);
        density.largest = grid
            .map(|x| density.unscaled_density(x))
            .fold(f64::MIN_POSITIVE, f64::max);

        density
    }

    fn unscaled_density(&self, x: f64) -> f64 {
        // The kernel four widths away is below what a picture can show.
        let from = self
            .positions
            .partition_point(|p| *p < x - 4.0 * self.width);
        let near = self.positions[from..]
            .iter()
            .take_while(|p| **p <= x + 4.0 * self.width);
        near.map(|p| (x - p) / self.width)
            .map(|z| libm::exp(-z * z / 2.0))
            .sum()
    }

    fn relative_density(&self, x: f64) -> f64 {
        (self.unscaled_density(x) / self.largest).min(1.0)
    }
}

/// The `i`-th number of van der Corput's sequence in base 2, which starts in the middle. Neighbours
/// are far apart, without random numbers.
pub(super) fn van_der_corput(i: usize) -> f64 {
    f64::from((i as u32).wrapping_add(1).reverse_bits()) / 4_294_967_296.0
}
