//! Differences against a baseline, repeat by repeat.

use super::PlotStyle;
use super::axis::AxisScale;
use super::colour::{GREY, INK, PAPER, SERIES};
use super::distribution::van_der_corput;
use super::frame::RowChart;
use super::scene::{Fill, Scene, Stroke};

/// A cell with its differences from the baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct DifferenceRow {
    /// Name of the cell.
    pub label: String,
    /// Cell minus baseline, one per common repeat; empty if only the mean is known.
    pub differences: Vec<f64>,
    /// Mean difference.
    pub mean: Option<f64>,
    /// Confidence interval of the mean difference.
    pub interval: Option<(f64, f64)>,
    /// Text at the right end of the row.
    pub remark: String,
}

/// Maximum number of rows in a picture.
pub const MAX_ROWS: usize = 60;
/// Maximum number of dots in a row. With more repeats, only every second one is drawn, or every
/// third …
const MAX_DOTS: usize = 500;

/// Draws the cells below each other, around zero.
///
/// # Errors
/// There is nothing to draw or too many rows, or the picture is too small.
pub fn draw_differences(
    metric: &str,
    baseline: &str,
    pairs: &[DifferenceRow],
    notes: &[String],
    look: &PlotStyle,
) -> Result<Scene, String> {
    if pairs.len() > MAX_ROWS {
        let n = pairs.len();
        return Err(format!(
            "{n} comparisons are too many for one picture, of at most {MAX_ROWS}: choose with --where"
        ));
    }

    let scale = difference_scale(pairs).ok_or_else(|| {
        format!(
            "no cell has a repeat in common with {baseline} in which both have a value of {metric}"
        )
    })?;
    let names: Vec<String> = pairs.iter().map(|pair| pair.label.clone()).collect();
    let remarks: Vec<String> = pairs.iter().map(|pair| pair.remark.clone()).collect();
    let axis = format!("{metric} minus that of {baseline}");
    let mut rows = RowChart::new(look, notes, &names, &remarks, scale, &axis)?;
    let zero = rows.x_position(0.0);

    let area = rows.area;
    rows.sheet.scene.add_line(
        vec![(zero, area.top), (zero, area.bottom)],
        Stroke {
            dash: &[4.0, 3.0],
            ..Stroke::new(INK, 1.0)
        },
    );

    for (at, pair) in pairs.iter().enumerate() {
        draw_difference_row(&mut rows, at, pair);
    }

    Ok(rows.sheet.scene)
}

/// The scale that contains zero and everything drawn; `None` if nothing is.
fn difference_scale(pairs: &[DifferenceRow]) -> Option<AxisScale> {
    let ends = pairs
        .iter()
        .filter_map(|pair| pair.interval)
        .flat_map(|(low, high)| [low, high]);
    let means = pairs.iter().filter_map(|pair| pair.mean);
    let differences = pairs.iter().flat_map(|pair| &pair.differences).copied();
    let values: Vec<f64> = ends.chain(means).chain(differences).collect();
    if values.is_empty() {
        return None;
    }

    let low = values.iter().copied().fold(0.0, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    Some(AxisScale::from_range(low, high, false).with_padding(0.05))
}

fn draw_difference_row(rows: &mut RowChart, at: usize, pair: &DifferenceRow) {
    draw_dots(rows, at, pair);

    let y = rows.row_middle(at);
    if let Some(interval) = pair.interval {
        draw_interval(rows, interval, y);
    }

    match pair.mean {
        Some(mean) => {
            let point = (rows.x_position(mean), y);
            let fill = Fill {
                colour: SERIES[0],
                opacity: 1.0,
            };
            let line = Stroke::new(PAPER, 1.0);
            rows.sheet
                .scene
                .add_circle(point, 4.0, Some(fill), Some(line));
        }
        None => {
            let left = rows.area.left + 6.0;
            let right = rows.area.right - 6.0;
            let dotted = Stroke {
                dash: &[1.0, 4.0],
                ..Stroke::new(GREY, 1.0)
            };
            rows.sheet
                .scene
                .add_line(vec![(left, y), (right, y)], dotted);
        }
    }
}

/// Draws one dot per repeat, or only some if there are more than [`MAX_DOTS`].
fn draw_dots(rows: &mut RowChart, at: usize, pair: &DifferenceRow) {
    let y = rows.row_middle(at);
    let half = rows.row_half_height();
    let every = pair.differences.len().div_ceil(MAX_DOTS).max(1);
    let fill = Fill {
        colour: SERIES[5],
        opacity: 0.6,
    };

    for (i, difference) in pair.differences.iter().step_by(every).enumerate() {
        let point = (
            rows.x_position(*difference),
            y + (van_der_corput(i) - 0.5) * 1.6 * half,
        );
        rows.sheet.scene.add_circle(point, 1.9, Some(fill), None);
    }
}

fn draw_interval(rows: &mut RowChart, (low, high): (f64, f64), y: f64) {
    let thick = Stroke::new(SERIES[0], 2.2);
    let low = rows.x_position(low);
    let high = rows.x_position(high);
    let scene = &mut rows.sheet.scene;
    scene.add_line(vec![(low, y), (high, y)], thick);

    for x in [low, high] {
        scene.add_line(vec![(x, y - 4.0), (x, y + 4.0)], thick);
    }
}
