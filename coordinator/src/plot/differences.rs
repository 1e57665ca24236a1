//! Differences against a baseline, repeat by repeat.

use super::axis::AxisScale;
use super::colour::{GREY, INK, PAPER, SERIES};
use super::distribution::{choose_value_scale, describe_values_outside, van_der_corput};
use super::row_chart::RowChart;
use super::scene::{Fill, Scene, Stroke};
use super::{AxisLimits, PlotStyle};

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

    let values = drawn_values(pairs);
    if values.is_empty() {
        return Err(format!(
            "no cell has a repeat in common with {baseline} in which both have a value of {metric}"
        ));
    }

    let scale = choose_difference_scale(&values, look)?;
    let mut notes = notes.to_vec();
    notes.extend(describe_values_outside(values.into_iter(), &scale));
    let names: Vec<String> = pairs.iter().map(|pair| pair.label.clone()).collect();
    let remarks: Vec<String> = pairs.iter().map(|pair| pair.remark.clone()).collect();
    let axis = format!("{metric} minus that of {baseline}");
    let mut rows = RowChart::new(look, &notes, &names, &remarks, scale, &axis)?;
    if scale.contains(0.0) {
        draw_zero_line(&mut rows);
    }

    for (at, pair) in pairs.iter().enumerate() {
        draw_difference_row(&mut rows, at, pair);
    }

    Ok(rows.sheet.scene)
}

/// The differences, means and ends of intervals.
fn drawn_values(pairs: &[DifferenceRow]) -> Vec<f64> {
    let ends = pairs
        .iter()
        .filter_map(|pair| pair.interval)
        .flat_map(|(low, high)| [low, high]);
    let means = pairs.iter().filter_map(|pair| pair.mean);
    let differences = pairs.iter().flat_map(|pair| &pair.differences).copied();
    ends.chain(means).chain(differences).collect()
}

/// The scale that contains zero and everything but a few far values.
fn choose_difference_scale(values: &[f64], look: &PlotStyle) -> Result<AxisScale, String> {
    let all = choose_value_scale(
        values.to_vec(),
        false,
        &PlotStyle {
            x_limits: AxisLimits::default(),
            ..look.clone()
        },
    )?;
    let with_zero = AxisScale::from_range(all.from.min(0.0), all.to.max(0.0), false);
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    look.x_limits
        .apply_to_axis(with_zero.with_padding(0.01), [low, high], "--xlim")
}

fn draw_zero_line(rows: &mut RowChart) {
    let zero = rows.x_position(0.0);
    let area = rows.area;
    rows.sheet.scene.add_line(
        vec![(zero, area.top), (zero, area.bottom)],
        Stroke {
            dash: &[4.0, 3.0],
            ..Stroke::new(INK, 1.0)
        },
    );
}

fn draw_difference_row(rows: &mut RowChart, at: usize, pair: &DifferenceRow) {
    let values = drawn_values(std::slice::from_ref(pair));
    rows.mark_values_outside(at, values.into_iter());
    draw_dots(rows, at, pair);

    let y = rows.row_middle(at);
    if let Some(interval) = pair.interval {
        draw_interval(rows, interval, y);
    }

    match pair.mean {
        Some(mean) if !rows.scale.contains(mean) => {}
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
        if !rows.scale.contains(*difference) {
            continue;
        }
        let point = (
            rows.x_position(*difference),
            y + (van_der_corput(i) - 0.5) * 1.6 * half,
        );
        rows.sheet.scene.add_circle(point, 1.9, Some(fill), None);
    }
}

fn draw_interval(rows: &mut RowChart, (low, high): (f64, f64), y: f64) {
    if high < rows.scale.from || low > rows.scale.to {
        return;
    }

    let thick = Stroke::new(SERIES[0], 2.2);
    let line = [low, high].map(|x| (rows.x_position(x), y));
    rows.sheet.scene.add_line(line.to_vec(), thick);
    // An end beyond the frame has no cap.
    for end in [low, high].into_iter().filter(|x| rows.scale.contains(*x)) {
        let x = rows.x_position(end);
        rows.sheet
            .scene
            .add_line(vec![(x, y - 4.0), (x, y + 4.0)], thick);
    }
}
