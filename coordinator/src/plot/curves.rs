//! Mean curves over steps, each with its band.

use super::PlotStyle;
use super::axis::AxisScale;
use super::colour::{GREY, INK, SERIES};
use super::frame::{self, PlotSheet, SMALL_TEXT_SIZE, TEXT_SIZE};
use super::scene::{Anchor, Area, Fill, Scene, Stroke};

/// A point of a mean curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanPoint {
    /// Number of completed steps.
    pub step: f64,
    /// Mean over the trials with a sample at this step.
    pub mean: f64,
    /// Confidence interval of the mean, if there are enough trials.
    pub interval: Option<(f64, f64)>,
}

/// A mean curve with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct MeanCurve {
    /// Name of the curve in the legend.
    pub label: String,
    /// Points with ascending steps.
    pub points: Vec<MeanPoint>,
}

/// The curves of one metric.
#[derive(Debug, Clone, Default)]
pub struct CurvesPlot {
    /// The metric.
    pub metric: String,
    /// Heading of the legend: the axes whose values name the curves.
    pub key: String,
    /// The curves.
    pub lines: Vec<MeanCurve>,
    /// Notes that are printed with the figure.
    pub notes: Vec<String>,
    /// Whether the metric is on a logarithmic scale.
    pub log: bool,
}

/// Maximum number of curves that can be distinguished: each colour in three line styles.
pub const MAX_CURVES: usize = SERIES.len() * DASHES.len();

const DASHES: [&[f64]; 3] = [&[], &[7.0, 3.0], &[2.0, 2.5]];

/// Draws the curves.
///
/// # Errors
/// There are no points or too many curves, or the picture is too small.
pub fn draw_curves(curves: &CurvesPlot, look: &PlotStyle) -> Result<Scene, String> {
    let lines = drawable_curves(curves)?;
    let x = step_scale(&lines);
    let (y, cut) = value_scale(&lines, curves.log);
    let mut notes = curves.notes.clone();
    notes.extend(describe_left_out_points(curves));
    if cut {
        notes.push(
            "Bands are cut where they leave the frame: they are far wider than most, or reach 0."
                .to_owned(),
        );
    }

    let mut sheet = PlotSheet::new(look, (640.0, 380.0), &notes);
    let legend = if lines.len() > 1 || !lines[0].label.is_empty() {
        legend_width(curves)
    } else {
        0.0
    };

    let ticks = frame::choose_left_ticks(sheet.body.height() - frame::TICKS_BELOW_HEIGHT, &y);
    let area = sheet.inner_area(
        frame::left_ticks_width(&ticks),
        legend.min(sheet.body.width() * 0.4),
        frame::TICKS_BELOW_HEIGHT,
    )?;
    frame::draw_ticks_below(&mut sheet.scene, area, &x, "step");

    frame::draw_left_ticks(&mut sheet.scene, area, &y, &ticks, &metric_label(curves));
    let place = |step: f64, value: f64| {
        (
            area.left + x.position_of(step) * area.width(),
            area.bottom - y.position_of(value) * area.height(),
        )
    };

    for (at, line) in lines.iter().enumerate() {
        draw_band(&mut sheet.scene, line, at, lines.len(), &place);
    }

    for (at, line) in lines.iter().enumerate() {
        let points: Vec<_> = line.points.iter().map(|p| place(p.step, p.mean)).collect();
        draw_mean_line(&mut sheet.scene, points, at);
    }

    frame::draw_frame(&mut sheet.scene, area);
    if legend > 0.0 {
        draw_legend(&mut sheet.scene, area, curves)?;
    }

    Ok(sheet.scene)
}

/// Describes how many points are left out, and why.
fn describe_left_out_points(curves: &CurvesPlot) -> Vec<String> {
    let means = curves
        .lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|point| point.mean);
    let infinite = means.clone().filter(|mean| !mean.is_finite()).count();
    let below = means
        .filter(|mean| mean.is_finite() && *mean <= 0.0)
        .count();
    let mut notes = Vec::new();

    if infinite > 0 {
        notes.push(format!("{infinite} points are infinite, and left out."));
    }
    if below > 0 && curves.log {
        notes.push(format!(
            "{below} points at or below 0 have no place on a logarithmic scale."
        ));
    }

    notes
}

/// Draws a line through the means of a curve, or a dot for a single mean.
fn draw_mean_line(scene: &mut Scene, points: Vec<(f64, f64)>, at: usize) {
    if let [point] = points[..] {
        let fill = Fill {
            colour: curve_colour(at),
            opacity: 1.0,
        };
        scene.add_circle(point, 3.0, Some(fill), None);
    }

    scene.add_line(points, curve_stroke(at));
}

fn metric_label(curves: &CurvesPlot) -> String {
    format!(
        "{}{}",
        curves.metric,
        if curves.log { " (log scale)" } else { "" }
    )
}

/// The curves without points that a logarithmic scale cannot show.
fn drawable_curves(curves: &CurvesPlot) -> Result<Vec<MeanCurve>, String> {
    if curves.lines.len() > MAX_CURVES {
        let message = format!(
            "{} curves are too many to tell apart, at most {MAX_CURVES} are drawn: pool with --by AXIS, or choose with \
             --where or --top",
            curves.lines.len()
        );
        return Err(message);
    }

    let lines: Vec<MeanCurve> = curves
        .lines
        .iter()
        .map(|line| {
            let points = line
                .points
                .iter()
                .filter(|p| p.mean.is_finite() && (!curves.log || p.mean > 0.0))
                .copied();
            MeanCurve {
                label: line.label.clone(),
                points: points.collect(),
            }
        })
        .collect();
    if lines.iter().all(|line| line.points.is_empty()) {
        let why = if curves.log { " above 0" } else { "" };
        let notes: String = curves
            .notes
            .iter()
            .map(|note| format!(". {}", note.trim_end_matches('.')))
            .collect();
        return Err(format!(
            "there is no value of {}{why} to draw a curve of{notes}",
            curves.metric
        ));
    }

    Ok(lines)
}

fn step_scale(lines: &[MeanCurve]) -> AxisScale {
    let steps = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|point| point.step);
    AxisScale::from_range(
        steps.clone().fold(f64::INFINITY, f64::min).min(0.0),
        steps.fold(f64::NEG_INFINITY, f64::max),
        false,
    )
}

/// Maximum range of means and bands, relative to the range of most of them.
const MAX_RELATIVE_RANGE: f64 = 6.0;

/// The scale that contains all means and bands, but only a part of bands that are far wider than
/// most; and whether some are cut. On a logarithmic scale distances are of logarithms, and a band
/// that reaches 0 has no lower end.
fn value_scale(lines: &[MeanCurve], log: bool) -> (AxisScale, bool) {
    let points: Vec<&MeanPoint> = lines.iter().flat_map(|line| &line.points).collect();
    let bands: Vec<(f64, f64)> = points.iter().filter_map(|p| p.interval).collect();
    let means = points.iter().map(|p| to_scale(p.mean, log));
    let low = means.clone().fold(f64::INFINITY, f64::min);
    let high = means.fold(f64::NEG_INFINITY, f64::max);

    let from = bands
        .iter()
        .filter(|band| has_lower_end(band, log))
        .map(|(low, _)| to_scale(*low, log))
        .fold(f64::INFINITY, f64::min)
        .min(low);
    let to = bands
        .iter()
        .map(|(_, high)| to_scale(*high, log))
        .fold(f64::NEG_INFINITY, f64::max)
        .max(high);

    let usual = median_band_width(&points, log).map_or(0.0, |width| width.max(high - low));
    let is_wide = usual > 0.0 && to - from > MAX_RELATIVE_RANGE * usual;
    let (from, to) = if is_wide {
        (from.max(low - usual), to.min(high + usual))
    } else {
        (from, to)
    };

    let scale = AxisScale::from_range(from_scale(from, log), from_scale(to, log), log);
    let is_cut = is_wide || !bands.iter().all(|band| has_lower_end(band, log));
    (scale.with_padding(0.03), is_cut)
}

/// The median width of the bands. A band without a lower end counts as twice its upper half.
fn median_band_width(points: &[&MeanPoint], log: bool) -> Option<f64> {
    let mut widths: Vec<f64> = points
        .iter()
        .filter_map(|p| Some((p, p.interval?)))
        .map(|(p, (low, high))| {
            if has_lower_end(&(low, high), log) {
                to_scale(high, log) - to_scale(low, log)
            } else {
                2.0 * (to_scale(high, log) - to_scale(p.mean, log))
            }
        })
        .collect();
    widths.sort_by(f64::total_cmp);
    widths.get(widths.len() / 2).copied()
}

fn has_lower_end((low, _): &(f64, f64), log: bool) -> bool {
    !log || *low > 0.0
}

fn to_scale(x: f64, log: bool) -> f64 {
    if log { libm::log(x) } else { x }
}

fn from_scale(x: f64, log: bool) -> f64 {
    if log { libm::exp(x) } else { x }
}

fn draw_band(
    scene: &mut Scene,
    line: &MeanCurve,
    at: usize,
    lines: usize,
    place: &dyn Fn(f64, f64) -> (f64, f64),
) {
    let ends: Vec<_> = line
        .points
        .iter()
        .filter_map(|p| Some((p.step, p.interval?)))
        .collect();
    let lower = ends.iter().map(|(step, (low, _))| place(*step, *low));

    let upper = ends
        .iter()
        .rev()
        .map(|(step, (_, high))| place(*step, *high));

    if ends.len() > 1 {
        let opacity = if lines > 6 { 0.1 } else { 0.18 };
        scene.add_polygon(
            lower.chain(upper).collect(),
            Some(Fill {
                colour: curve_colour(at),
                opacity,
            }),
            None,
        );
    } else if let [(step, (low, high))] = ends[..] {
        scene.add_line(
            vec![place(step, low), place(step, high)],
            Stroke::new(curve_colour(at), 1.0),
        );
    }
}

fn curve_colour(at: usize) -> super::colour::Colour {
    SERIES[at % SERIES.len()]
}

fn curve_stroke(at: usize) -> Stroke {
    Stroke {
        colour: curve_colour(at),
        width: 1.8,
        dash: DASHES[at / SERIES.len() % DASHES.len()],
    }
}

const LEGEND_SAMPLE_WIDTH: f64 = 22.0;

fn legend_width(curves: &CurvesPlot) -> f64 {
    let labels = frame::widest_text(
        curves.lines.iter().map(|line| line.label.as_str()),
        TEXT_SIZE,
    );
    frame::widest_text([curves.key.as_str()], SMALL_TEXT_SIZE)
        .max(labels + LEGEND_SAMPLE_WIDTH + 6.0)
        + 16.0
}

fn draw_legend(scene: &mut Scene, area: Area, curves: &CurvesPlot) -> Result<(), String> {
    let left = area.right + 12.0;
    let room = scene.width - left - 8.0;
    let key = super::font::truncate_to_width(&curves.key, SMALL_TEXT_SIZE, room);
    scene.add_text(
        (left, area.top + SMALL_TEXT_SIZE * 0.8),
        &key,
        SMALL_TEXT_SIZE,
        GREY,
        Anchor::Start,
    );

    let leading = ((area.height() - 16.0) / curves.lines.len() as f64).min(19.0);
    if leading < 12.5 {
        let needed = scene.height + (12.5 - leading) * curves.lines.len() as f64;
        return Err(format!(
            "the picture is too low for its legend: it takes --height {needed:.0}"
        ));
    }

    for (at, line) in curves.lines.iter().enumerate() {
        let y = area.top + 16.0 + (at as f64 + 0.5) * leading;
        scene.add_line(
            vec![(left, y), (left + LEGEND_SAMPLE_WIDTH, y)],
            curve_stroke(at),
        );
        let label = super::font::truncate_to_width(
            &line.label,
            TEXT_SIZE,
            room - LEGEND_SAMPLE_WIDTH - 6.0,
        );

        scene.add_text(
            (left + LEGEND_SAMPLE_WIDTH + 6.0, y + TEXT_SIZE * 0.36),
            &label,
            TEXT_SIZE,
            INK,
            Anchor::Start,
        );
    }

    Ok(())
}
