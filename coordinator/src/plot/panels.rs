//! Facets: panels of one kind side by side, with common scales.

use super::colour::INK;
use super::frame::{PlotSheet, TEXT_SIZE};
use super::scene::{Anchor, Area};

/// Space between neighbouring panels.
const GAP: f64 = 14.0;
/// Height of a panel's title.
const TITLE_HEIGHT: f64 = 19.0;
/// Minimum width of panels side by side.
const MIN_WIDTH: f64 = 105.0;
/// Maximum number of panels in a row.
const MAX_COLUMNS: usize = 4;
/// Maximum number of panels in a picture.
pub const MAX_PANELS: usize = 16;

/// A panel of a picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct PanelArea {
    pub(super) area: Area,
    /// Whether the panel has the labels of the vertical axis.
    pub(super) is_first: bool,
    /// How far labels of the horizontal axis may reach beyond the panel's sides; `None` if another
    /// panel below has them.
    pub(super) label_overhang: Option<f64>,
}

/// Minimum width and height of a panel.
const MIN_SIZE: f64 = 60.0;

/// The number of panels in a row, of `count` over this width.
pub(super) fn choose_columns(count: usize, width: f64) -> usize {
    let fitting = ((width + GAP) / (MIN_WIDTH + GAP)) as usize;
    let most = fitting.clamp(1, MAX_COLUMNS).min(count.max(1));
    count.max(1).div_ceil(count.max(1).div_ceil(most))
}

/// The number of rows of `count` panels over this width.
pub(super) fn count_panel_rows(count: usize, width: f64) -> usize {
    count.max(1).div_ceil(choose_columns(count, width))
}

/// Height that the titles of panels and the gaps between them take, over this width.
pub(super) fn panel_extra_height(titles: &[String], width: f64) -> f64 {
    match titles.len() {
        0 => 0.0,
        count => {
            let rows = count_panel_rows(count, width) as f64;
            rows * TITLE_HEIGHT + (rows - 1.0) * GAP
        }
    }
}

/// Refuses more panels than a picture can show. `axis` is the axis of the facets.
pub(super) fn check_panel_count(titles: &[String]) -> Result<(), String> {
    if titles.len() > MAX_PANELS {
        return Err(format!(
            "--facet: {} panels are too many for one picture, of at most {MAX_PANELS}: choose with --where",
            titles.len()
        ));
    }
    Ok(())
}

/// Divides an area into panels, and writes their titles. Without titles, the area is the only panel.
///
/// # Errors
/// The panels would be too small.
pub(super) fn lay_out_panels(
    sheet: &mut PlotSheet,
    whole: Area,
    titles: &[String],
) -> Result<Vec<PanelArea>, String> {
    if titles.is_empty() {
        return Ok(vec![PanelArea {
            area: whole,
            is_first: true,
            label_overhang: Some(f64::INFINITY),
        }]);
    }

    let columns = choose_columns(titles.len(), whole.width());
    let rows = titles.len().div_ceil(columns);
    let width = (whole.width() - (columns as f64 - 1.0) * GAP) / columns as f64;
    let height = (whole.height() - panel_extra_height(titles, whole.width())) / rows as f64;

    let narrow = (MIN_SIZE - width).max(0.0) * columns as f64;
    let low = (MIN_SIZE - height).max(0.0) * rows as f64;
    if narrow > 0.0 || low > 0.0 {
        return Err(sheet.look.too_small_error(
            "small for its panels",
            sheet.scene.width + narrow,
            sheet.scene.height + low,
        ));
    }

    let mut panels = Vec::with_capacity(titles.len());
    let shown: Vec<&str> = titles.iter().map(String::as_str).collect();
    let shown = sheet.scene.fit_texts(&shown, TEXT_SIZE, width);
    for (at, title) in shown.iter().enumerate() {
        let left = whole.left + (at % columns) as f64 * (width + GAP);
        let top = whole.top + (at / columns) as f64 * (height + TITLE_HEIGHT + GAP) + TITLE_HEIGHT;
        let area = Area {
            left,
            top,
            right: left + width,
            bottom: top + height,
        };

        sheet.scene.add_text(
            (area.centre().0, top - 6.0),
            title,
            TEXT_SIZE,
            INK,
            Anchor::Middle,
        );
        panels.push(PanelArea {
            area,
            is_first: at % columns == 0,
            label_overhang: (at + columns >= titles.len()).then_some(GAP / 2.0 - 1.0),
        });
    }

    Ok(panels)
}
