//! The scales of curves, which a few wide bands or far curves do not stretch.

use super::{CurveShape, CurvesPlot, MeanCurve, MeanPoint};
use crate::plot::axis::AxisScale;
use crate::plot::clip::{clip_line, clip_polygon, is_within};
use crate::plot::robust::find_robust_range;
use crate::plot::scene::Area;
use crate::plot::{PlotStyle, format_brief};
use ergodic_common::number_format::format_count;

/// The scales of both axes.
pub(super) struct CurveScales {
    pub(super) x: AxisScale,
    pub(super) y: AxisScale,
    /// What the scales do not show.
    pub(super) notes: Vec<String>,
}

/// Chooses the scales from the data and the limits that are given.
///
/// # Errors
/// Limits do not fit the scale.
pub(super) fn choose_scales(
    curves: &CurvesPlot,
    lines: &[MeanCurve],
    look: &PlotStyle,
) -> Result<CurveScales, String> {
    if curves.shape == CurveShape::Points {
        return Ok(choose_point_scales(curves, lines));
    }

    let x = look.x_limits.apply_to_axis(
        choose_x_scale(lines, curves.log_x),
        find_range(places_of(lines)),
        "--xlim",
    )?;
    let scales = if look.y_limits.is_empty() {
        choose_usual_scales(curves, lines, x)
    } else {
        let y = choose_value_scale(lines, curves.log).scale;
        CurveScales {
            x,
            y: look
                .y_limits
                .apply_to_axis(y, find_range(values_of(lines)), "--ylim")?,
            notes: Vec::new(),
        }
    };

    if !look.x_limits.is_empty() || !look.y_limits.is_empty() {
        check_curves_shown(lines, &scales)?;
    }
    Ok(scales)
}

/// Space between points and the frame, relative to the frame.
const POINT_PADDING: f64 = 0.06;

/// The scales that contain all points, their intervals and the ends of the region.
fn choose_point_scales(curves: &CurvesPlot, lines: &[MeanCurve]) -> CurveScales {
    let [first, last] = find_range(places_of(lines));
    let values = values_of(lines).chain(curves.overlays.region_ends());
    let shown = values.filter(|value| curves.has_place(1.0, *value));
    let [low, high] = find_range(shown);
    CurveScales {
        x: AxisScale::from_range(first, last, curves.log_x).with_padding(POINT_PADDING),
        y: AxisScale::from_range(low, high, curves.log).with_padding(POINT_PADDING),
        notes: Vec::new(),
    }
}

/// The scales without limits of values.
fn choose_usual_scales(curves: &CurvesPlot, lines: &[MeanCurve], x: AxisScale) -> CurveScales {
    let all = choose_value_scale(lines, curves.log);
    let kept = find_usual_curves(lines, curves.log);
    let usual = choose_value_scale(&kept, curves.log);
    let mut notes = Vec::new();
    let is_stretched = kept.len() < lines.len()
        && scale_length(&all.scale) > MIN_STRETCH * scale_length(&usual.scale);
    if is_stretched {
        notes.push(describe_far_curves(lines, &kept));
    }
    let ValueScale { scale: y, is_cut } = if is_stretched { usual } else { all };
    if is_cut {
        notes.push(
            "Bands are cut where they leave the frame: they are far wider than most, or reach 0."
                .to_owned(),
        );
    }

    CurveScales { x, y, notes }
}

/// The places of all points on the horizontal axis.
fn places_of(lines: &[MeanCurve]) -> impl Iterator<Item = f64> {
    let trials = lines.iter().flat_map(|line| line.trials.iter().flatten());
    let points = lines.iter().flat_map(|line| &line.points);
    points.map(|point| point.x).chain(trials.map(|(x, _)| *x))
}

/// The values of all means, ends of bands, and trials.
fn values_of(lines: &[MeanCurve]) -> impl Iterator<Item = f64> {
    let trials = lines.iter().flat_map(|line| line.trials.iter().flatten());
    let points = lines.iter().flat_map(|line| &line.points);
    points
        .flat_map(|point| {
            let (low, high) = point.interval.unwrap_or((point.mean, point.mean));
            [point.mean, low, high]
        })
        .chain(trials.map(|(_, value)| *value))
}

/// The smallest and the largest of these numbers.
fn find_range(numbers: impl Iterator<Item = f64>) -> [f64; 2] {
    numbers.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], x| {
        [low.min(x), high.max(x)]
    })
}

/// Refuses limits that fit the data of each axis, but between which nothing is drawn.
fn check_curves_shown(lines: &[MeanCurve], scales: &CurveScales) -> Result<(), String> {
    let frame = Area {
        left: 0.0,
        top: 0.0,
        right: 1.0,
        bottom: 1.0,
    };
    let place = |x: f64, value: f64| {
        (
            scales.x.free_position_of(x),
            scales.y.free_position_of(value),
        )
    };
    let passes = |points: Vec<(f64, f64)>| {
        points.iter().any(|point| is_within(*point, frame)) || !clip_line(&points, frame).is_empty()
    };
    let is_shown = |line: &MeanCurve| {
        let means = line.points.iter().map(|p| place(p.x, p.mean)).collect();
        let low = line
            .points
            .iter()
            .filter_map(|p| Some(place(p.x, p.interval?.0)));
        let high = line
            .points
            .iter()
            .rev()
            .filter_map(|p| Some(place(p.x, p.interval?.1)));
        let mut trials = line
            .trials
            .iter()
            .map(|trial| trial.iter().map(|(x, value)| place(*x, *value)).collect());
        passes(means)
            || trials.any(passes)
            || !clip_polygon(low.chain(high).collect(), frame).is_empty()
    };
    if lines.iter().any(is_shown) {
        return Ok(());
    }

    let within = lines.iter().flat_map(|line| &line.points);
    let within = within.filter(|point| scales.x.contains(point.x));
    let [low, high] = find_range(within.map(|point| point.mean));
    let means = if low <= high {
        format!(
            ": the means there are from {} to {}",
            format_brief(low),
            format_brief(high)
        )
    } else {
        ": no curve has a point there".to_owned()
    };
    Err(format!(
        "--xlim and --ylim: no curve passes within both{means}"
    ))
}

fn choose_x_scale(lines: &[MeanCurve], log: bool) -> AxisScale {
    let places = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|point| point.x);
    let first = places.clone().fold(f64::INFINITY, f64::min);
    let last = places.fold(f64::NEG_INFINITY, f64::max);
    AxisScale::from_range(if log { first } else { first.min(0.0) }, last, log)
}

/// The curves without those whose ends are far from all others.
fn find_usual_curves(lines: &[MeanCurve], log: bool) -> Vec<MeanCurve> {
    let end = |line: &MeanCurve, pick: fn(f64, f64) -> f64| {
        line.points.iter().map(|p| p.mean).reduce(pick)
    };
    let is_usual = |pick: fn(f64, f64) -> f64| {
        let ends: Vec<f64> = lines.iter().filter_map(|line| end(line, pick)).collect();
        let range = find_robust_range(&ends, log);
        move |line: &MeanCurve| {
            range
                .zip(end(line, pick))
                .is_none_or(|(range, end)| (range.low..=range.high).contains(&end))
        }
    };

    let low = is_usual(f64::min);
    let high = is_usual(f64::max);
    lines
        .iter()
        .filter(|line| low(line) && high(line))
        .cloned()
        .collect()
}

/// Minimum ratio of the scale with far curves to that without them: others do not squeeze the picture.
const MIN_STRETCH: f64 = 3.0;

fn scale_length(scale: &AxisScale) -> f64 {
    to_scale(scale.to, scale.log) - to_scale(scale.from, scale.log)
}

fn describe_far_curves(lines: &[MeanCurve], kept: &[MeanCurve]) -> String {
    let means = || {
        lines
            .iter()
            .flat_map(|line| &line.points)
            .map(|point| point.mean)
    };
    let many = lines.len() - kept.len();
    let leave = if many == 1 { "leaves" } else { "leave" };
    format!(
        "{} {leave} the frame, which is chosen by the others: all means are from {} to {} (--ylim shows more).",
        format_count(many as u64, "curve"),
        format_brief(means().fold(f64::INFINITY, f64::min)),
        format_brief(means().fold(f64::NEG_INFINITY, f64::max))
    )
}

/// Maximum range of means and bands, relative to the range of most of them.
const MAX_RELATIVE_RANGE: f64 = 6.0;

/// A scale, and whether bands leave it.
struct ValueScale {
    scale: AxisScale,
    is_cut: bool,
}

/// The scale that contains all means, trials and bands, but only a part of bands that are far wider
/// than most. On a logarithmic scale distances are of logarithms, and a band that reaches 0 has no
/// lower end.
fn choose_value_scale(lines: &[MeanCurve], log: bool) -> ValueScale {
    let points: Vec<&MeanPoint> = lines.iter().flat_map(|line| &line.points).collect();
    let bands: Vec<(f64, f64)> = lines
        .iter()
        .filter(|line| line.trials.is_empty())
        .flat_map(|line| &line.points)
        .filter_map(|p| p.interval)
        .collect();
    let trials = lines
        .iter()
        .flat_map(|line| line.trials.iter().flatten())
        .map(|(_, value)| *value);
    let values = points
        .iter()
        .map(|p| p.mean)
        .chain(trials)
        .map(|value| to_scale(value, log));
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);

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
    ValueScale {
        scale: scale.with_padding(0.03),
        is_cut,
    }
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
