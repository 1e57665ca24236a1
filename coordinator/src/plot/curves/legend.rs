//! The legend of curves: at their right, or below them where that would leave too little space.

use super::{CurveShape, CurvesPlot, DrawnCurves, font};
use crate::plot::colour::{GREY, INK};
use crate::plot::frame::{self, PlotSheet, SMALL_TEXT_SIZE, TEXT_SIZE};
use crate::plot::scene::{Anchor, Area, Fill, Scene};

const SAMPLE_WIDTH: f64 = 22.0;
/// Space between a sample of a line and its name.
const SAMPLE_GAP: f64 = 6.0;
/// Share of the picture's width that a legend at the right may take.
const MAX_SHARE_ASIDE: f64 = 0.3;
/// Distance of entries, and of the columns of a legend below.
const LEADING: f64 = 16.0;
const COLUMN_GAP: f64 = 14.0;

/// The space of a legend, in units of the layout.
pub(super) struct CurveLegend {
    /// Width at the right, 0 if it is below or there is none.
    pub(super) width_aside: f64,
    /// Height below, 0 if it is at the right or there is none.
    pub(super) height_below: f64,
    columns: usize,
}

impl CurveLegend {
    /// Chooses the place of the legend in a picture of this width.
    pub(super) fn new(curves: &CurvesPlot, width: f64) -> Self {
        let is_named = curves.series.len() > 1
            || curves
                .series
                .first()
                .is_some_and(|series| !series.label.is_empty());
        if !is_named {
            return Self {
                width_aside: 0.0,
                height_below: 0.0,
                columns: 0,
            };
        }

        let entry = entry_width(curves);
        let aside = entry.max(font::text_width(&curves.key, SMALL_TEXT_SIZE)) + 16.0;
        if aside <= MAX_SHARE_ASIDE * width {
            return Self {
                width_aside: aside,
                height_below: 0.0,
                columns: 1,
            };
        }

        let fitting = ((width - 24.0 + COLUMN_GAP) / (entry + COLUMN_GAP)) as usize;
        let columns = fitting.clamp(1, curves.series.len());
        let rows = curves.series.len().div_ceil(columns) as f64;
        Self {
            width_aside: 0.0,
            height_below: rows * LEADING + 20.0,
            columns,
        }
    }
}

fn entry_width(curves: &CurvesPlot) -> f64 {
    let labels = frame::widest_text(
        curves.series.iter().map(|series| series.label.as_str()),
        TEXT_SIZE,
    );
    labels + SAMPLE_WIDTH + SAMPLE_GAP
}

impl DrawnCurves<'_> {
    /// Draws the legend.
    ///
    /// # Errors
    /// The picture is too low for it.
    pub(super) fn draw_legend(
        &self,
        sheet: &mut PlotSheet,
        area: Area,
        legend: &CurveLegend,
    ) -> Result<(), String> {
        if legend.width_aside > 0.0 {
            return self.draw_legend_aside(sheet, area);
        }
        if legend.height_below > 0.0 {
            self.draw_legend_below(sheet, legend);
        }
        Ok(())
    }

    fn draw_legend_aside(&self, sheet: &mut PlotSheet, area: Area) -> Result<(), String> {
        let left = area.right + 12.0;
        let room = sheet.scene.width - left - 8.0;
        self.draw_key(&mut sheet.scene, (left, area.top), room);

        let count = self.curves.series.len() as f64;
        let leading = ((area.height() - 16.0) / count).min(19.0);
        if leading < 12.5 {
            let needed = sheet.scene.height + (12.5 - leading) * count;
            return Err(sheet.look.too_small_error(
                "low for its legend",
                sheet.scene.width,
                needed,
            ));
        }

        let labels = self.fit_labels(&mut sheet.scene, room);
        for (at, label) in labels.iter().enumerate() {
            let y = area.top + 16.0 + (at as f64 + 0.5) * leading;
            self.draw_entry(&mut sheet.scene, at, (left, y), label);
        }
        Ok(())
    }

    fn draw_legend_below(&self, sheet: &mut PlotSheet, legend: &CurveLegend) {
        let left = sheet.body.left;
        let top = sheet.body.bottom - legend.height_below + 8.0;
        let room = sheet.body.width();
        self.draw_key(&mut sheet.scene, (left, top), room);

        let rows = self.curves.series.len().div_ceil(legend.columns);
        let width = (entry_width(self.curves) + COLUMN_GAP).min(room);
        let labels = self.fit_labels(&mut sheet.scene, width);
        for (at, label) in labels.iter().enumerate() {
            let x = left + (at / rows) as f64 * width;
            let y = top + 12.0 + ((at % rows) as f64 + 0.5) * LEADING;
            self.draw_entry(&mut sheet.scene, at, (x, y), label);
        }
    }

    /// The names of the series, cut to entries of this width.
    fn fit_labels(&self, scene: &mut Scene, width: f64) -> Vec<String> {
        let series = self.curves.series.iter();
        let labels: Vec<&str> = series.map(|series| series.label.as_str()).collect();
        scene.fit_texts(&labels, TEXT_SIZE, width - SAMPLE_WIDTH - SAMPLE_GAP)
    }

    fn draw_key(&self, scene: &mut Scene, (left, top): (f64, f64), room: f64) {
        let key = scene.fit_text(&self.curves.key, SMALL_TEXT_SIZE, room);
        scene.add_text(
            (left, top + SMALL_TEXT_SIZE * 0.8),
            &key,
            SMALL_TEXT_SIZE,
            GREY,
            Anchor::Start,
        );
    }

    fn draw_entry(&self, scene: &mut Scene, series: usize, (left, y): (f64, f64), label: &str) {
        match self.curves.shape {
            CurveShape::Lines => scene.add_line(
                vec![(left, y), (left + SAMPLE_WIDTH, y)],
                self.stroke_of(series),
            ),
            CurveShape::Points => {
                let fill = Fill {
                    colour: self.colour_of(series),
                    opacity: 1.0,
                };
                scene.add_circle((left + SAMPLE_WIDTH / 2.0, y), 3.0, Some(fill), None);
            }
        }
        scene.add_text(
            (left + SAMPLE_WIDTH + SAMPLE_GAP, y + TEXT_SIZE * 0.36),
            label,
            TEXT_SIZE,
            INK,
            Anchor::Start,
        );
    }
}
