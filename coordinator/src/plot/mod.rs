//! Pictures of a sweep, as pure functions from plain data to a [`Scene`], and from there to SVG, PNG or PDF.
//!
//! Nothing here does IO or knows the wire. The same data give the same bytes on every machine: the one font is inside the
//! program, text is measured with it, and logarithms come from `libm`.

mod axis;
mod clip;
mod colour;
pub mod contour;
pub mod curves;
pub mod differences;
pub mod distribution;
mod font;
mod frame;
pub mod heatmap;
mod panels;
pub mod pdf;
pub mod png;
mod robust;
mod row_chart;
mod scene;
mod style;
pub mod svg;
#[cfg(test)]
mod tests;

pub use axis::{AxisLevel, PlotAxis};
pub use colour::{COLOUR_MAPS, ColourMap};
pub use panels::MAX_PANELS;
pub use scene::Scene;
pub use style::{AxisLimits, PlotStyle, parse_length, parse_limits};

/// The colour of a value between the smallest, 0, and the largest, 1, and the colour of text on it.
pub fn heat_colours(share: f64) -> ([u8; 3], [u8; 3]) {
    let colour = ColourMap::VALUES.colour_at(share);
    (colour, colour::text_colour_on(colour))
}

/// Formats a number for a label with `decimals` decimals, without a minus before zero.
fn format_fixed(x: f64, decimals: usize) -> String {
    let text = format!("{x:.decimals$}");
    let is_zero = text
        .trim_start_matches('-')
        .chars()
        .all(|c| c == '0' || c == '.');
    let text = if is_zero {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    };

    text.replace('-', "−")
}

/// Formats a number with three digits: `0.0901`, `943`, `2.74e5`.
pub fn format_brief(x: f64) -> String {
    if x != 0.0 && !(1e-3..1e5).contains(&x.abs()) {
        return format!("{x:.2e}").replace('-', "−");
    }

    let digits = if x == 0.0 {
        0.0
    } else {
        libm::floor(libm::log10(x.abs()))
    };
    format_fixed(x, (2.0 - digits).clamp(0.0, 6.0) as usize)
}
