//! What is drawn beside curves: a region that is claimed, curves of a theory, and moments; and effects as points with their
//! intervals.

use super::{DrawnCurves, MeanCurve};
use crate::plot::clip::{clip_line, is_within};
use crate::plot::colour::{FAINT, GREY, INK};
use crate::plot::scene::{Area, Fill, Scene, Stroke};

/// What is drawn beside the curves of a picture.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CurveOverlays {
    /// Curves of a theory, each with ascending positions.
    pub guides: Vec<Vec<(f64, f64)>>,
    /// Lines that are fitted to points, each in one panel and in the colour of a series.
    pub fits: Vec<FittedLine>,
    /// Positions on the horizontal axis at which vertical lines stand.
    pub marks: Vec<f64>,
    /// The lower and the upper end of the values that are claimed, either of which may be infinite.
    pub region: Option<(f64, f64)>,
    /// What marks and curves are, sentence by sentence.
    pub notes: Vec<String>,
}

/// A line that is fitted to the points of a series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FittedLine {
    /// Index of the series.
    pub series: usize,
    /// Index of the panel; 0 without facets.
    pub panel: usize,
    /// Places on the line, with ascending positions.
    pub points: Vec<(f64, f64)>,
}

impl CurveOverlays {
    /// The finite ends of the region.
    pub(super) fn region_ends(&self) -> impl Iterator<Item = f64> {
        let ends = self.region.into_iter().flat_map(|(low, high)| [low, high]);
        ends.filter(|end| end.is_finite())
    }
}

const GUIDE_DASHES: &[f64] = &[5.0, 3.0];
const MARK_DASHES: &[f64] = &[2.0, 2.5];
/// Radius of a point, and half the width of the ends of its interval.
const POINT_RADIUS: f64 = 3.0;
const CAP_HALF_WIDTH: f64 = 3.5;

impl DrawnCurves<'_> {
    /// Draws the region, and dashes at its ends.
    pub(super) fn draw_region(&self, scene: &mut Scene, area: Area) {
        let Some((low, high)) = self.curves.overlays.region else {
            return;
        };
        let y = &self.scales.y;
        let band = Area {
            top: self.height_of(area, high.min(y.to)),
            bottom: self.height_of(area, low.max(y.from)),
            ..area
        };
        let fill = Fill {
            colour: FAINT,
            opacity: 0.45,
        };
        scene.add_area(band, Some(fill), None);

        for end in self.curves.overlays.region_ends() {
            if y.contains(end) {
                let stroke = Stroke {
                    dash: GUIDE_DASHES,
                    ..Stroke::new(GREY, 0.9)
                };
                let y = self.height_of(area, end);
                scene.add_line(vec![(area.left, y), (area.right, y)], stroke);
            }
        }
    }

    /// The height of a value; one outside of the scale is at its end.
    fn height_of(&self, area: Area, value: f64) -> f64 {
        area.bottom - self.scales.y.position_of(value) * area.height()
    }

    /// Draws the vertical lines and the curves of the theory.
    pub(super) fn draw_guides(&self, scene: &mut Scene, area: Area) {
        for mark in &self.curves.overlays.marks {
            if self.scales.x.contains(*mark) {
                let x = area.left + self.scales.x.position_of(*mark) * area.width();
                let stroke = Stroke {
                    dash: MARK_DASHES,
                    ..Stroke::new(GREY, 1.0)
                };
                scene.add_line(vec![(x, area.top), (x, area.bottom)], stroke);
            }
        }

        for guide in &self.curves.overlays.guides {
            let shown = guide
                .iter()
                .filter(|(x, y)| self.curves.has_place(*x, *y))
                .map(|(x, y)| self.place(area, *x, *y));
            let stroke = Stroke {
                dash: GUIDE_DASHES,
                ..Stroke::new(INK, 1.2)
            };
            let points: Vec<(f64, f64)> = shown.collect();
            for part in clip_line(&points, area) {
                scene.add_line(part, stroke);
            }
        }
    }

    /// Draws the lines that are fitted to the points of a panel.
    pub(super) fn draw_fits(&self, scene: &mut Scene, panel: usize, area: Area) {
        let fits = self.curves.overlays.fits.iter();
        for fit in fits.filter(|fit| fit.panel == panel) {
            let shown = fit.points.iter();
            let shown = shown.filter(|(x, y)| self.curves.has_place(*x, *y));
            let points: Vec<(f64, f64)> = shown.map(|(x, y)| self.place(area, *x, *y)).collect();
            for part in clip_line(&points, area) {
                scene.add_line(part, Stroke::new(self.colour_of(fit.series), 1.2));
            }
        }
    }

    /// Draws each mean as a dot, with its interval as a bar.
    pub(super) fn draw_points(&self, scene: &mut Scene, line: &MeanCurve, area: Area) {
        let colour = self.colour_of(line.series);
        for point in &line.points {
            let at = self.place(area, point.x, point.mean);
            if let Some((low, high)) = point.interval {
                let ends = [low, high].map(|end| self.place(area, point.x, end));
                self.draw_interval(scene, ends, area, Stroke::new(colour, 1.2));
            }
            if is_within(at, area) {
                let fill = Fill {
                    colour,
                    opacity: 1.0,
                };
                scene.add_circle(at, POINT_RADIUS, Some(fill), None);
            }
        }
    }

    /// Draws a bar between two places, with caps where it ends within the frame.
    fn draw_interval(&self, scene: &mut Scene, ends: [(f64, f64); 2], area: Area, stroke: Stroke) {
        for part in clip_line(&ends, area) {
            scene.add_line(part, stroke);
        }
        for (x, y) in ends.into_iter().filter(|end| is_within(*end, area)) {
            let cap = vec![(x - CAP_HALF_WIDTH, y), (x + CAP_HALF_WIDTH, y)];
            scene.add_line(cap, stroke);
        }
    }
}
