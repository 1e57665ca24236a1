//! Pictures with one row per cell: names at the left, values along the width, remarks.

use super::PlotStyle;
use super::axis::AxisScale;
use super::colour::{GREY, INK, SERIES};
use super::frame::{self, PlotSheet, SMALL_TEXT_SIZE, TEXT_SIZE, widest_text};
use super::scene::{Anchor, Area, Fill};
use ergodic_common::number_format::format_count;

/// Width of a picture's body below which remarks stand below the names instead of at the right.
const MIN_WIDTH_FOR_REMARKS: f64 = 480.0;
/// Space for the name of the vertical axis.
const LEFT_NAME_WIDTH: f64 = 18.0;

/// A picture with one row per cell.
pub(super) struct RowChart {
    pub(super) sheet: PlotSheet,
    pub(super) area: Area,
    pub(super) scale: AxisScale,
    height: f64,
    /// Maximum width of names and remarks.
    widest: f64,
    /// Whether remarks stand below the names.
    stacked: bool,
}

impl RowChart {
    /// # Errors
    /// The picture is too small, or has options of an axis that it lacks.
    pub(super) fn new(
        look: &PlotStyle,
        notes: &[String],
        names: &[String],
        remarks: &[String],
        scale: AxisScale,
        axis: &str,
    ) -> Result<Self, String> {
        if !look.y_limits.is_empty() {
            return Err(
                "--ylim: the rows of this kind have no scale: choose them with --where or --top"
                    .to_owned(),
            );
        }

        let mut rows = Self::lay_out(look, notes, names, remarks, scale)?;
        let area = rows.area;
        let name = look.x_label.as_deref().unwrap_or(axis);
        frame::draw_ticks_below(&mut rows.sheet.scene, area, &scale, Some(f64::INFINITY));
        frame::draw_name_below(&mut rows.sheet.scene, area, name);
        frame::draw_frame(&mut rows.sheet.scene, area);
        if let Some(name) = &look.y_label {
            let left = rows.sheet.body.left;
            frame::draw_left_name(&mut rows.sheet.scene, area, left - 2.0, name);
        }

        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let widest = rows.widest;
        let names = rows.sheet.scene.fit_texts(&names, TEXT_SIZE, widest);
        for (at, (name, remark)) in names.iter().zip(remarks).enumerate() {
            rows.draw_row_texts(at, name, remark);
        }

        Ok(rows)
    }

    fn lay_out(
        look: &PlotStyle,
        notes: &[String],
        names: &[String],
        remarks: &[String],
        scale: AxisScale,
    ) -> Result<Self, String> {
        let height = (names.len() as f64 * 34.0 + frame::TICKS_BELOW_HEIGHT + 8.0).max(110.0);
        let sheet = PlotSheet::new(look, (640.0, height), notes);
        let stacked = sheet.body.width() < MIN_WIDTH_FOR_REMARKS;
        let widest = sheet.body.width() * if stacked { 0.45 } else { 0.38 };
        let names_width = widest_text(names.iter().map(String::as_str), TEXT_SIZE).min(widest);
        let remarks_width =
            widest_text(remarks.iter().map(String::as_str), SMALL_TEXT_SIZE).min(widest);

        let aside = if look.y_label.is_some() {
            LEFT_NAME_WIDTH
        } else {
            0.0
        };
        let (left, right) = if stacked {
            (names_width.max(remarks_width) + 10.0, 4.0)
        } else {
            (names_width + 10.0, remarks_width + 12.0)
        };
        let area = sheet.inner_area(left + aside, right, frame::TICKS_BELOW_HEIGHT)?;

        let row_height = area.height() / names.len().max(1) as f64;
        let least = if stacked { 25.0 } else { 13.0 };
        if row_height < least {
            let needed = sheet.scene.height + (least - row_height) * names.len() as f64;
            let what = format!("low for {}", format_count(names.len() as u64, "row"));
            return Err(look.too_small_error(&what, sheet.scene.width, needed));
        }

        Ok(Self {
            sheet,
            area,
            scale,
            height: row_height,
            widest,
            stacked,
        })
    }

    /// Draws the name of a row, which fits, at its left, and its remark at its right or below the name.
    fn draw_row_texts(&mut self, at: usize, name: &str, remark: &str) {
        let middle = self.row_middle(at);
        let scene = &mut self.sheet.scene;
        let remark = scene.fit_text(remark, SMALL_TEXT_SIZE, self.widest);
        let left = self.area.left - 8.0;
        let shift = if self.stacked && !remark.is_empty() {
            6.5
        } else {
            0.0
        };

        let scene = &mut self.sheet.scene;
        let y = middle - shift + TEXT_SIZE * 0.36;
        scene.add_text((left, y), name, TEXT_SIZE, INK, Anchor::End);
        let y = middle + shift + SMALL_TEXT_SIZE * 0.36;
        if self.stacked {
            scene.add_text((left, y), &remark, SMALL_TEXT_SIZE, GREY, Anchor::End);
        } else {
            let right = self.area.right + 8.0;
            scene.add_text((right, y), &remark, SMALL_TEXT_SIZE, GREY, Anchor::Start);
        }
    }

    /// Vertical position of the middle of a row.
    pub(super) fn row_middle(&self, row: usize) -> f64 {
        self.area.top + (row as f64 + 0.5) * self.height
    }

    /// Half the height that a row may fill.
    pub(super) fn row_half_height(&self) -> f64 {
        (self.height * 0.38).min(16.0)
    }

    /// Horizontal position of a value; one outside of the scale is at its end.
    pub(super) fn x_position(&self, value: f64) -> f64 {
        self.area.left + self.scale.position_of(value) * self.area.width()
    }

    /// Draws a triangle at each end of a row beyond which there are values.
    pub(super) fn mark_values_outside(
        &mut self,
        row: usize,
        values: impl Iterator<Item = f64> + Clone,
    ) {
        let y = self.row_middle(row);
        let below = values.clone().any(|x| x < self.scale.from);
        let above = values.clone().any(|x| x > self.scale.to);
        let fill = Some(Fill {
            colour: SERIES[1],
            opacity: 1.0,
        });

        for (wanted, tip, base) in [
            (below, self.area.left + 2.0, self.area.left + 8.0),
            (above, self.area.right - 2.0, self.area.right - 8.0),
        ] {
            if wanted {
                let points = vec![(tip, y), (base, y - 4.5), (base, y + 4.5)];
                self.sheet.scene.add_polygon(points, fill, None);
            }
        }
    }
}
