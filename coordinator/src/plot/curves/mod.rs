//! Mean curves over steps, each with its band or its single trials; or effects over a quantity, each with its interval.

mod legend;
mod overlays;
mod scales;

pub use overlays::{CurveOverlays, FittedLine};

use super::axis::AxisScale;
use super::clip::{clip_line, clip_polygon, is_within};
use super::colour::{Colour, ColourMap, PAPER, SERIES};
use super::curves::legend::CurveLegend;
use super::curves::scales::{CurveScales, choose_scales};
use super::frame::{self, PlotSheet};
use super::panels::{self, PanelArea};
use super::scene::{Area, Fill, Scene, Stroke};
use super::{PlotStyle, font};
use ergodic_common::number_format::format_count;

/// A point of a mean curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanPoint {
    /// Number of completed steps, epochs or samples.
    pub x: f64,
    /// Mean over the trials with a sample there.
    pub mean: f64,
    /// Confidence interval of the mean, if there are enough trials.
    pub interval: Option<(f64, f64)>,
}

/// A mean curve.
#[derive(Debug, Clone, PartialEq)]
pub struct MeanCurve {
    /// Index of its series, which gives name and style.
    pub series: usize,
    /// Index of its panel; 0 without facets.
    pub panel: usize,
    /// Points with ascending positions.
    pub points: Vec<MeanPoint>,
    /// Curves of single trials, positions and values; if there are any, they replace the band.
    pub trials: Vec<Vec<(f64, f64)>>,
}

/// The colour of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SeriesColour {
    /// One of the colours that are easy to tell apart, by index.
    Distinct(usize),
    /// A place on a colour map from 0 to 1, for values with an order.
    Ordered(f64),
}

/// Name and style of curves.
#[derive(Debug, Clone, PartialEq)]
pub struct CurveSeries {
    /// Name in the legend.
    pub label: String,
    /// Colour of its lines.
    pub colour: SeriesColour,
    /// Index of the dashes of its lines.
    pub dash: usize,
}

/// How means are drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CurveShape {
    /// As a line, with a band.
    #[default]
    Lines,
    /// As a dot each, with a bar.
    Points,
}

/// The curves of one metric.
#[derive(Debug, Clone, Default)]
pub struct CurvesPlot {
    /// The metric.
    pub metric: String,
    /// Name of the horizontal axis.
    pub x_name: String,
    /// Heading of the legend: the axes whose values name the series.
    pub key: String,
    /// The series, in the order of the legend.
    pub series: Vec<CurveSeries>,
    /// The curves.
    pub lines: Vec<MeanCurve>,
    /// Titles of the facets; empty for a single panel.
    pub panels: Vec<String>,
    /// Notes that are printed with the figure.
    pub notes: Vec<String>,
    /// Whether the metric is on a logarithmic scale.
    pub log: bool,
    /// Whether the horizontal axis is logarithmic.
    pub log_x: bool,
    /// How means are drawn.
    pub shape: CurveShape,
    /// What is drawn beside the curves.
    pub overlays: CurveOverlays,
}

impl CurvesPlot {
    /// Whether the scales have a place for a value.
    fn has_place(&self, x: f64, value: f64) -> bool {
        value.is_finite() && (!self.log || value > 0.0) && (!self.log_x || x > 0.0)
    }
}

/// Maximum number of series that can be distinguished: each colour in three line styles.
pub const MAX_CURVES: usize = SERIES.len() * DASHES.len();
/// Number of styles of lines.
pub const DASH_STYLES: usize = DASHES.len();
/// Number of colours that are easy to tell apart.
pub const DISTINCT_COLOURS: usize = SERIES.len();

const DASHES: [&[f64]; 3] = [&[], &[7.0, 3.0], &[2.0, 2.5]];

/// Draws the curves.
///
/// # Errors
/// There are no points, too many curves or panels, an option has no effect, or the picture is too small.
pub fn draw_curves(curves: &CurvesPlot, look: &PlotStyle) -> Result<Scene, String> {
    check_curve_options(look)?;
    panels::check_panel_count(&curves.panels)?;
    let lines = drawable_curves(curves)?;
    let scales = choose_scales(curves, &lines, look)?;
    let mut notes = curves.notes.clone();
    notes.extend(describe_left_out_points(curves));
    notes.extend(scales.notes.iter().cloned());
    notes.extend(curves.overlays.notes.iter().cloned());

    let width = look.resolve_width(PREFERRED_WIDTH) - 70.0;
    let legend = CurveLegend::new(curves, look.resolve_width(PREFERRED_WIDTH));
    let panel_height = (width * 0.6).clamp(190.0, 330.0);
    let height = if curves.panels.is_empty() {
        panel_height + 50.0
    } else {
        let rows = panels::count_panel_rows(curves.panels.len(), width) as f64;
        rows * panel_height.min(170.0) + panels::panel_extra_height(&curves.panels, width) + 50.0
    };
    let size = (PREFERRED_WIDTH, height + legend.height_below);
    let mut sheet = PlotSheet::new(look, size, &notes);

    let whole = lay_out_frame(&sheet, &scales.y, &legend)?;
    let drawn = DrawnCurves {
        curves,
        lines: &lines,
        scales: &scales,
        colours: look.colour_map.unwrap_or(ColourMap::VALUES),
    };
    for (at, panel) in panels::lay_out_panels(&mut sheet, whole, &curves.panels)?
        .into_iter()
        .enumerate()
    {
        drawn.draw_panel(&mut sheet.scene, at, panel);
    }

    drawn.draw_names(&mut sheet, whole);
    drawn.draw_legend(&mut sheet, whole, &legend)?;
    Ok(sheet.scene)
}

/// Preferred width of the picture, in pixels.
const PREFERRED_WIDTH: f64 = 640.0;

fn check_curve_options(look: &PlotStyle) -> Result<(), String> {
    if !look.colour_limits.is_empty() || look.colour_label.is_some() {
        return Err(
            "--clim and --clabel: curves have a legend, and no scale of colours: leave them out"
                .to_owned(),
        );
    }
    Ok(())
}

/// The area of all panels, beside the ticks and the legend.
fn lay_out_frame(sheet: &PlotSheet, y: &AxisScale, legend: &CurveLegend) -> Result<Area, String> {
    let height = sheet.body.height() - frame::TICKS_BELOW_HEIGHT - legend.height_below;
    let ticks = frame::choose_left_ticks(height, y);
    sheet.inner_area(
        frame::left_ticks_width(&ticks),
        legend.width_aside,
        frame::TICKS_BELOW_HEIGHT + legend.height_below,
    )
}

/// Describes how many points are left out, and why.
fn describe_left_out_points(curves: &CurvesPlot) -> Vec<String> {
    let points = || curves.lines.iter().flat_map(|line| &line.points);
    let infinite = points().filter(|point| !point.mean.is_finite()).count();
    let below = points()
        .filter(|point| point.mean.is_finite() && point.mean <= 0.0)
        .count();
    let before = points().filter(|point| point.x <= 0.0).count();
    let mut notes = Vec::new();

    if infinite > 0 {
        let are = if infinite == 1 { "is" } else { "are" };
        let points = format_count(infinite as u64, "point");
        notes.push(format!("{points} {are} infinite, and left out."));
    }
    if below > 0 && curves.log {
        let have = if below == 1 { "has" } else { "have" };
        notes.push(format!(
            "{} at or below 0 {have} no place on a logarithmic scale.",
            format_count(below as u64, "point")
        ));
    }
    if before > 0 && curves.log_x {
        let have = if before == 1 { "has" } else { "have" };
        notes.push(format!(
            "{} at {} 0 {have} no place on a logarithmic axis.",
            format_count(before as u64, "point"),
            curves.x_name
        ));
    }

    notes
}

/// The curves without points that a logarithmic scale cannot show.
fn drawable_curves(curves: &CurvesPlot) -> Result<Vec<MeanCurve>, String> {
    if curves.series.len() > MAX_CURVES {
        let message = format!(
            "{} curves are too many to tell apart, at most {MAX_CURVES} are drawn: pool with --by AXIS, divide with \
             --facet AXIS, or choose with --where or --top",
            curves.series.len()
        );
        return Err(message);
    }

    let lines: Vec<MeanCurve> = curves
        .lines
        .iter()
        .map(|line| {
            let points = line.points.iter().filter(|p| curves.has_place(p.x, p.mean));
            let trials = line.trials.iter().map(|trial| {
                let kept = trial
                    .iter()
                    .filter(|(x, value)| curves.has_place(*x, *value));
                kept.copied().collect()
            });
            MeanCurve {
                points: points.copied().collect(),
                trials: trials.collect(),
                ..*line
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

/// The curves with everything that their marks depend on.
struct DrawnCurves<'a> {
    curves: &'a CurvesPlot,
    lines: &'a [MeanCurve],
    scales: &'a CurveScales,
    colours: ColourMap,
}

impl DrawnCurves<'_> {
    fn draw_panel(&self, scene: &mut Scene, panel: usize, at: PanelArea) {
        let ticks = frame::choose_left_ticks(at.area.height(), &self.scales.y);
        frame::draw_ticks_below(scene, at.area, &self.scales.x, at.label_overhang);
        frame::draw_left_ticks(scene, at.area, &self.scales.y, &ticks, at.is_first);

        self.draw_region(scene, at.area);
        self.draw_guides(scene, at.area);
        self.draw_fits(scene, panel, at.area);

        let lines = || self.lines.iter().filter(|line| line.panel == panel);
        let place = |x: f64, value: f64| self.place(at.area, x, value);
        for line in lines() {
            if self.curves.shape == CurveShape::Points {
                self.draw_points(scene, line, at.area);
            } else if line.trials.is_empty() {
                self.draw_band(scene, line, at.area, &place);
            } else {
                self.draw_trials(scene, line, at.area, &place);
            }
        }
        for line in lines().filter(|_| self.curves.shape == CurveShape::Lines) {
            self.draw_mean_line(scene, line, at.area, &place);
        }

        frame::draw_frame(scene, at.area);
    }

    fn place(&self, area: Area, x: f64, value: f64) -> (f64, f64) {
        (
            area.left + self.scales.x.free_position_of(x) * area.width(),
            area.bottom - self.scales.y.free_position_of(value) * area.height(),
        )
    }

    fn colour_of(&self, series: usize) -> Colour {
        match self.curves.series[series].colour {
            SeriesColour::Distinct(at) => SERIES[at % SERIES.len()],
            SeriesColour::Ordered(share) => self.colours.line_colour_at(share),
        }
    }

    fn stroke_of(&self, series: usize) -> Stroke {
        Stroke {
            colour: self.colour_of(series),
            width: 1.8,
            dash: DASHES[self.curves.series[series].dash % DASHES.len()],
        }
    }

    /// Draws a line through the means of a curve, or a dot for a single mean.
    fn draw_mean_line(
        &self,
        scene: &mut Scene,
        line: &MeanCurve,
        area: Area,
        place: &dyn Fn(f64, f64) -> (f64, f64),
    ) {
        let points: Vec<_> = line.points.iter().map(|p| place(p.x, p.mean)).collect();
        if let [point] = points[..] {
            let fill = Fill {
                colour: self.colour_of(line.series),
                opacity: 1.0,
            };
            if is_within(point, area) {
                scene.add_circle(point, 3.0, Some(fill), None);
            }
        }

        for part in clip_line(&points, area) {
            scene.add_line(part, self.stroke_of(line.series));
        }
    }

    /// Draws the curves of single trials as thin lines, lighter than the mean.
    fn draw_trials(
        &self,
        scene: &mut Scene,
        line: &MeanCurve,
        area: Area,
        place: &dyn Fn(f64, f64) -> (f64, f64),
    ) {
        let colour = lighten_colour(self.colour_of(line.series));
        for trial in &line.trials {
            let points: Vec<_> = trial.iter().map(|(x, value)| place(*x, *value)).collect();
            for part in clip_line(&points, area) {
                scene.add_line(part, Stroke::new(colour, 0.7));
            }
        }
    }

    fn draw_band(
        &self,
        scene: &mut Scene,
        line: &MeanCurve,
        area: Area,
        place: &dyn Fn(f64, f64) -> (f64, f64),
    ) {
        let ends: Vec<_> = line
            .points
            .iter()
            .filter_map(|p| Some((p.x, p.interval?)))
            .collect();
        let colour = self.colour_of(line.series);
        if let [(x, (low, high))] = ends[..] {
            for part in clip_line(&[place(x, low), place(x, high)], area) {
                scene.add_line(part, Stroke::new(colour, 1.0));
            }
            return;
        }

        let lower = ends.iter().map(|(x, (low, _))| place(*x, *low));
        let upper = ends.iter().rev().map(|(x, (_, high))| place(*x, *high));
        let band = clip_polygon(lower.chain(upper).collect(), area);
        if !band.is_empty() {
            let opacity = if self.lines.len() > 6 { 0.1 } else { 0.18 };
            scene.add_polygon(band, Some(Fill { colour, opacity }), None);
        }
    }

    /// Draws the names of the axes.
    fn draw_names(&self, sheet: &mut PlotSheet, whole: Area) {
        let log = |name: &str, log: bool| {
            if log {
                format!("{name} (log scale)")
            } else {
                name.to_owned()
            }
        };
        let look = &sheet.look;
        let below = look
            .x_label
            .clone()
            .unwrap_or_else(|| log(&self.curves.x_name, self.curves.log_x));
        let aside = look
            .y_label
            .clone()
            .unwrap_or_else(|| log(&self.curves.metric, self.curves.log));

        frame::draw_name_below(&mut sheet.scene, whole, &below);
        let left = sheet.body.left;
        frame::draw_left_name(&mut sheet.scene, whole, left, &aside);
    }
}

/// Mixes a colour with white.
fn lighten_colour(colour: Colour) -> Colour {
    let mut light = colour;
    for (channel, paper) in light.iter_mut().zip(PAPER) {
        *channel = ((u16::from(*channel) * 2 + u16::from(paper) * 3) / 5) as u8;
    }
    light
}
