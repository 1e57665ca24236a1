//! The style options of pictures: sizes, texts, limits and colours.

use super::axis::AxisScale;
use super::colour::ColourMap;
use super::format_brief;

/// CSS pixels per inch.
const PIXELS_PER_INCH: f64 = 96.0;
/// CSS pixels per millimetre.
pub(super) const PIXELS_PER_MM: f64 = PIXELS_PER_INCH / 25.4;
/// CSS pixels per point.
const PIXELS_PER_POINT: f64 = PIXELS_PER_INCH / 72.0;
/// Size of ordinary text in points, where one unit of the layout is one pixel.
const USUAL_FONT_SIZE: f64 = 9.0;
/// Size of ordinary text in narrow pictures, in points: what journals ask for at least is 5 to 7.
const NARROW_FONT_SIZE: f64 = 7.0;
/// Width up to which a picture is narrow, in pixels: that of a column of text.
const NARROW_WIDTH: f64 = 100.0 * PIXELS_PER_MM;

/// The limits of an axis or of colours, each end given or chosen by the data.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AxisLimits {
    /// The lower end.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
}

impl AxisLimits {
    /// Whether both ends are chosen by the data.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The scale of an axis with the ends that are given, which must not leave all data out. `data` are the smallest and the largest
    /// value on the axis.
    ///
    /// # Errors
    /// The data are outside of the limits; else as for [`Self::apply_to_scale`].
    pub(super) fn apply_to_axis(
        &self,
        scale: AxisScale,
        data: [f64; 2],
        option: &str,
    ) -> Result<AxisScale, String> {
        let [first, last] = data;
        let is_above = self.low.is_some_and(|low| low > last);
        let is_below = self.high.is_some_and(|high| high < first);
        if is_above || is_below {
            return Err(format!(
                "{option}: nothing lies {}: the data are from {} to {}",
                self.describe(),
                format_brief(first),
                format_brief(last)
            ));
        }

        self.apply_to_scale(scale, option)
    }

    /// Formats `from 2 to 5`, `from 2 on` or `up to 5`.
    fn describe(&self) -> String {
        match (self.low, self.high) {
            (Some(low), Some(high)) => format!("from {low} to {high}"),
            (Some(low), None) => format!("from {low} on"),
            (None, Some(high)) => format!("up to {high}"),
            (None, None) => "there".to_owned(),
        }
    }

    /// The scale with the ends that are given.
    ///
    /// # Errors
    /// The ends are in the wrong order, or have no place on a logarithmic scale. `option` is named.
    pub(super) fn apply_to_scale(
        &self,
        scale: AxisScale,
        option: &str,
    ) -> Result<AxisScale, String> {
        let from = self.low.unwrap_or(scale.from);
        let to = self.high.unwrap_or(scale.to);
        if scale.log && from <= 0.0 {
            return Err(format!(
                "{option}: {from} has no place on a logarithmic scale: give a lower end above 0, or leave it out as in {option} ,{to}"
            ));
        }
        if from >= to {
            return Err(format!(
                "{option}: expected a lower end below the upper one, found {from} and {to} (an end that is left out is that of the data)"
            ));
        }

        Ok(AxisScale { from, to, ..scale })
    }
}

/// The style options of every picture.
#[derive(Debug, Clone, Default)]
pub struct PlotStyle {
    /// Width in pixels, 96 per inch; by default, that of the kind of picture.
    pub width: Option<f64>,
    /// Height in pixels; by default, that of the kind of picture and the number of rows.
    pub height: Option<f64>,
    /// Size of ordinary text in points; by default 9, and 7 in pictures up to 100 mm wide.
    pub font_size: Option<f64>,
    /// Title above the picture; empty for none.
    pub title: String,
    /// What the picture shows, for readers who cannot see it; if it is empty, the title.
    pub description: String,
    /// A smaller line below the title.
    pub subtitle: String,
    /// Whether notes stay out of the picture.
    pub bare: bool,
    /// Name of the horizontal axis; by default, that of the data.
    pub x_label: Option<String>,
    /// Name of the vertical axis; by default, that of the data.
    pub y_label: Option<String>,
    /// Name of the colours; by default, that of the data.
    pub colour_label: Option<String>,
    /// Limits of the horizontal axis.
    pub x_limits: AxisLimits,
    /// Limits of the vertical axis.
    pub y_limits: AxisLimits,
    /// Limits of the colours.
    pub colour_limits: AxisLimits,
    /// Colours of values; by default, those of the kind of picture.
    pub colour_map: Option<ColourMap>,
}

impl PlotStyle {
    /// CSS pixels per unit of the layout, in which ordinary text has a fixed size: smaller text is a
    /// smaller unit, so lines and marks shrink with it.
    pub(super) fn pixels_per_unit(&self) -> f64 {
        let is_narrow = self.width.is_some_and(|width| width <= NARROW_WIDTH);
        let usual = if is_narrow {
            NARROW_FONT_SIZE
        } else {
            USUAL_FONT_SIZE
        };
        self.font_size.unwrap_or(usual) / USUAL_FONT_SIZE
    }

    /// Width in units, given the preferred one in pixels.
    pub(super) fn resolve_width(&self, preferred: f64) -> f64 {
        self.width.unwrap_or(preferred) / self.pixels_per_unit()
    }

    /// Height in units, given the preferred one in units.
    pub(super) fn resolve_height(&self, preferred: f64) -> f64 {
        self.height
            .map_or(preferred, |height| height / self.pixels_per_unit())
    }

    /// The error that a picture is too small, which needs this size in units.
    pub(super) fn too_small_error(&self, what: &str, width: f64, height: f64) -> String {
        let to_mm = |units: f64| libm::ceil(units * self.pixels_per_unit() / PIXELS_PER_MM);
        format!(
            "the picture is too {what}: it takes at least --width {:.0}mm --height {:.0}mm, or smaller text (--font-size)",
            to_mm(width),
            to_mm(height)
        )
    }
}

/// Width of a picture in pixels, from a text such as `80mm`, `8cm`, `3.25in`, `240pt` or `640`.
///
/// # Errors
/// The text is no length.
pub fn parse_length(text: &str) -> Result<f64, String> {
    const UNITS: [(&str, f64); 5] = [
        ("mm", PIXELS_PER_MM),
        ("cm", 10.0 * PIXELS_PER_MM),
        ("in", PIXELS_PER_INCH),
        ("pt", PIXELS_PER_POINT),
        ("px", 1.0),
    ];
    let text = text.trim();
    let found = UNITS
        .iter()
        .find_map(|(unit, pixels)| Some((text.strip_suffix(unit)?, *pixels)));
    let parts = found.unwrap_or((text, 1.0));

    parts
        .0
        .trim_end()
        .parse::<f64>()
        .ok()
        .filter(|x| x.is_finite() && *x > 0.0)
        .map(|x| x * parts.1)
        .ok_or_else(|| {
            "expected a length such as 80mm, 8cm, 3.25in, 240pt, or a number of pixels, 96 to the inch".to_owned()
        })
}

/// Limits from a text such as `0,1`, `0,` or `,1`.
///
/// # Errors
/// The text is no pair of numbers, or the first is not below the second.
pub fn parse_limits(text: &str) -> Result<AxisLimits, String> {
    let expected =
        || "expected LOW,HIGH as in 0,1, of which one may be left out as in 0, or ,1".to_owned();
    let end = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text
            .parse::<f64>()
            .ok()
            .filter(|x| x.is_finite())
            .map(Some)
            .ok_or_else(expected),
    };
    let (low, high) = text.split_once(',').ok_or_else(expected)?;
    let limits = AxisLimits {
        low: end(low)?,
        high: end(high)?,
    };

    if limits.is_empty() {
        return Err(expected());
    }
    if limits.low.zip(limits.high).is_some_and(|(a, b)| a >= b) {
        return Err("expected a lower end below the upper one".to_owned());
    }

    Ok(limits)
}
