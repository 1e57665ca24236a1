//! Mean curves over steps, each with its band.

use super::Look;
use super::axis::Scale;
use super::colour::{GREY, INK, SERIES};
use super::frame::{self, SMALL, Sheet, TEXT};
use super::scene::{Anchor, Area, Fill, Scene, Stroke};

/// A point of a mean curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Steps done.
    pub step: f64,
    /// Mean over the trials that have a sample here.
    pub mean: f64,
    /// Its confidence interval, if there are enough of them.
    pub interval: Option<(f64, f64)>,
}

/// A curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its name in the legend.
    pub label: String,
    /// Points by ascending step.
    pub points: Vec<Point>,
}

/// Curves of one metric.
#[derive(Debug, Clone, Default)]
pub struct Curves {
    /// The metric.
    pub metric: String,
    /// What the names of the curves are values of.
    pub key: String,
    /// The curves.
    pub lines: Vec<Line>,
    /// What else is to be known.
    pub notes: Vec<String>,
    /// Whether the metric is on a logarithmic scale.
    pub log: bool,
}

/// Most curves that can be told apart: each colour in three kinds of line.
pub const MOST: usize = SERIES.len() * DASHES.len();

const DASHES: [&[f64]; 3] = [&[], &[7.0, 3.0], &[2.0, 2.5]];

/// Draws curves.
///
/// # Errors
/// There is nothing to draw, there are too many, or the picture is too small.
pub fn draw(curves: &Curves, look: &Look) -> Result<Scene, String> {
    let lines = shown(curves)?;
    let mut notes = curves.notes.clone();
    let left_out =
        |is: fn(f64) -> bool| curves.lines.iter().flat_map(|line| &line.points).filter(|p| is(p.mean)).count();
    let (infinite, below) = (left_out(|mean| !mean.is_finite()), left_out(|mean| mean.is_finite() && mean <= 0.0));
    if infinite > 0 {
        notes.push(format!("{infinite} points are infinite, and left out."));
    }
    if below > 0 && curves.log {
        notes.push(format!("{below} points at or below 0 have no place on a logarithmic scale."));
    }
    let (x, (y, cut)) = (steps(&lines), values(&lines, curves.log));
    if cut {
        notes.push("Bands are cut where they leave the frame: they are far wider than most, or reach 0.".to_owned());
    }
    let mut sheet = Sheet::new(look, (640.0, 380.0), &notes);
    let legend = if lines.len() > 1 || !lines[0].label.is_empty() { legend_width(curves) } else { 0.0 };
    let ticks = frame::ticks_left(sheet.body.height() - frame::BELOW, &y);
    let area = sheet.within(frame::room_left(&ticks), legend.min(sheet.body.width() * 0.4), frame::BELOW)?;
    frame::ticks_below(&mut sheet.scene, area, &x, "step");
    frame::draw_left(&mut sheet.scene, area, &y, &ticks, &name(curves));
    let place = |step: f64, value: f64| {
        (area.left + x.place(step) * area.width(), area.bottom - y.place(value) * area.height())
    };
    for (at, line) in lines.iter().enumerate() {
        band(&mut sheet.scene, line, at, lines.len(), &place);
    }
    for (at, line) in lines.iter().enumerate() {
        let points: Vec<_> = line.points.iter().map(|p| place(p.step, p.mean)).collect();
        if points.len() == 1 {
            sheet.scene.circle(points[0], 3.0, Some(Fill { colour: colour(at), opacity: 1.0 }), None);
        }
        sheet.scene.line(points, stroke(at));
    }
    frame::frame(&mut sheet.scene, area);
    if legend > 0.0 {
        draw_legend(&mut sheet.scene, area, curves)?;
    }
    Ok(sheet.scene)
}

fn name(curves: &Curves) -> String {
    format!("{}{}", curves.metric, if curves.log { " (log scale)" } else { "" })
}

/// The curves without what a logarithmic scale has no place for.
fn shown(curves: &Curves) -> Result<Vec<Line>, String> {
    if curves.lines.len() > MOST {
        let message = format!(
            "{} curves cannot be told apart, at most {MOST} can: pool with --by AXIS, or choose with --where or --top",
            curves.lines.len()
        );
        return Err(message);
    }
    let kept = |line: &Line| {
        let points = line.points.iter().filter(|p| p.mean.is_finite() && (!curves.log || p.mean > 0.0)).copied();
        Line { label: line.label.clone(), points: points.collect() }
    };
    let lines: Vec<Line> = curves.lines.iter().map(kept).collect();
    if lines.iter().all(|line| line.points.is_empty()) {
        let why = if curves.log { " above 0" } else { "" };
        let notes: String = curves.notes.iter().map(|note| format!(". {}", note.trim_end_matches('.'))).collect();
        return Err(format!("there is no value of {}{why} to draw a curve of{notes}", curves.metric));
    }
    Ok(lines)
}

fn steps(lines: &[Line]) -> Scale {
    let all = || lines.iter().flat_map(|line| &line.points).map(|p| p.step);
    Scale::over(all().fold(f64::INFINITY, f64::min).min(0.0), all().fold(f64::NEG_INFINITY, f64::max), false)
}

/// How far the means and the bands may lie apart, in units of what most of them take.
const WIDE: f64 = 6.0;

/// Holds all means and all bands, but of bands that dwarf these a part only; and whether some are cut.
fn values(lines: &[Line], log: bool) -> (Scale, bool) {
    let points = || lines.iter().flat_map(|line| &line.points);
    // On a logarithmic scale everything is told by logarithms; a band that reaches 0 has no lower end there.
    let put = |x: f64| if log { libm::log(x) } else { x };
    let back = |x: f64| if log { libm::exp(x) } else { x };
    let has_end = |x: &f64| !log || *x > 0.0;
    let lows = || points().filter_map(|p| p.interval).map(|(low, _)| low);
    let highs = || points().filter_map(|p| p.interval).map(|(_, high)| put(high));
    let means = || points().map(|p| put(p.mean));
    let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = (least(&mut means()), most(&mut means()));
    let from = least(&mut lows().filter(has_end).map(put)).min(low);
    let to = most(&mut highs()).max(high);
    let mut widths: Vec<f64> = points()
        .filter_map(|p| Some((p, p.interval?)))
        .map(|(p, (low, high))| if has_end(&low) { put(high) - put(low) } else { 2.0 * (put(high) - put(p.mean)) })
        .collect();
    widths.sort_by(f64::total_cmp);
    let usual = widths.get(widths.len() / 2).map_or(0.0, |width| width.max(high - low));
    let (from, to, wide) = match usual > 0.0 && to - from > WIDE * usual {
        true => (from.max(low - usual), to.min(high + usual), true),
        false => (from, to, false),
    };
    (Scale::over(back(from), back(to), log).padded(0.03), wide || !lows().all(|x| has_end(&x)))
}

fn band(scene: &mut Scene, line: &Line, at: usize, lines: usize, place: &dyn Fn(f64, f64) -> (f64, f64)) {
    let ends: Vec<_> = line.points.iter().filter_map(|p| Some((p.step, p.interval?))).collect();
    let lower = ends.iter().map(|(step, (low, _))| place(*step, *low));
    let upper = ends.iter().rev().map(|(step, (_, high))| place(*step, *high));
    if ends.len() > 1 {
        let opacity = if lines > 6 { 0.1 } else { 0.18 };
        scene.polygon(lower.chain(upper).collect(), Some(Fill { colour: colour(at), opacity }), None);
    } else if let [(step, (low, high))] = ends[..] {
        scene.line(vec![place(step, low), place(step, high)], Stroke::new(colour(at), 1.0));
    }
}

fn colour(at: usize) -> super::colour::Colour {
    SERIES[at % SERIES.len()]
}

fn stroke(at: usize) -> Stroke {
    Stroke { colour: colour(at), width: 1.8, dash: DASHES[at / SERIES.len() % DASHES.len()] }
}

const SAMPLE: f64 = 22.0;

fn legend_width(curves: &Curves) -> f64 {
    let labels = frame::widest(curves.lines.iter().map(|line| line.label.as_str()), TEXT);
    frame::widest([curves.key.as_str()], SMALL).max(labels + SAMPLE + 6.0) + 16.0
}

fn draw_legend(scene: &mut Scene, area: Area, curves: &Curves) -> Result<(), String> {
    let left = area.right + 12.0;
    let room = scene.width - left - 8.0;
    let key = super::font::fitting(&curves.key, SMALL, room);
    scene.text((left, area.top + SMALL * 0.8), &key, SMALL, GREY, Anchor::Start);
    let leading = ((area.height() - 16.0) / curves.lines.len() as f64).min(19.0);
    if leading < 12.5 {
        let needed = scene.height + (12.5 - leading) * curves.lines.len() as f64;
        return Err(format!("the picture is too low for its legend: it takes --height {needed:.0}"));
    }
    for (at, line) in curves.lines.iter().enumerate() {
        let y = area.top + 16.0 + (at as f64 + 0.5) * leading;
        scene.line(vec![(left, y), (left + SAMPLE, y)], stroke(at));
        let label = super::font::fitting(&line.label, TEXT, room - SAMPLE - 6.0);
        scene.text((left + SAMPLE + 6.0, y + TEXT * 0.36), &label, TEXT, INK, Anchor::Start);
    }
    Ok(())
}
