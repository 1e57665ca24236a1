//! Names of levels beside and below the cells.

use crate::plot::colour::{GREY, INK};
use crate::plot::frame::TEXT_SIZE;
use crate::plot::heatmap::Heatmap;
use crate::plot::heatmap::cells::CellGrid;
use crate::plot::scene::{Anchor, Scene, Stroke};
use crate::plot::{PlotAxis, axis, font, frame};

/// Draws ticks at the rows, and their names if wanted, in a space of `left` units.
pub(super) fn draw_row_names(
    scene: &mut Scene,
    map: &Heatmap,
    grid: &CellGrid,
    left: f64,
    labelled: bool,
) {
    let area = grid.area;
    let place = |x: f64| {
        if map.is_upwards() {
            area.bottom - x * area.height()
        } else {
            area.top + x * area.height()
        }
    };
    let ticks = map.rows.level_ticks().into_iter();
    let ticks = ticks.map(|(x, label)| (place(x), label)).collect();
    for (y, text) in fit_names(scene, axis::thin_labels(ticks, |_| 6.75), left - 26.0) {
        scene.add_line(
            vec![(area.left - 4.0, y), (area.left, y)],
            Stroke::new(GREY, 1.0),
        );

        if labelled {
            scene.add_text(
                (area.left - 7.0, y + TEXT_SIZE * 0.36),
                &text,
                TEXT_SIZE,
                INK,
                Anchor::End,
            );
        }
    }
}

/// The names at ticks, cut to `room` units.
fn fit_names(scene: &mut Scene, ticks: Vec<(f64, String)>, room: f64) -> Vec<(f64, String)> {
    let (places, names): (Vec<f64>, Vec<String>) = ticks.into_iter().unzip();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let cut = scene.fit_texts(&names, TEXT_SIZE, room);
    places.into_iter().zip(cut).collect()
}

/// Whether names are too long to stand side by side.
pub(super) fn is_turned(columns: &PlotAxis, room: f64) -> bool {
    let each = room / columns.levels.len() as f64;
    let words = columns.levels.iter().any(|level| level.number.is_none());
    words
        && frame::widest_text(
            columns.levels.iter().map(|level| level.text.as_str()),
            TEXT_SIZE,
        ) > each - 6.0
}

pub(super) fn turned_label_height(columns: &PlotAxis, height: f64) -> f64 {
    frame::widest_text(
        columns.levels.iter().map(|level| level.text.as_str()),
        TEXT_SIZE,
    )
    .min(height * 0.4)
        + 8.0
}

/// Draws ticks at the columns, and their names if they may reach `overhang` beyond the sides: upwards
/// in a space of `turned` units, if that is given.
pub(super) fn draw_column_names(
    scene: &mut Scene,
    map: &Heatmap,
    grid: &CellGrid,
    turned: Option<f64>,
    overhang: Option<f64>,
) {
    let area = grid.area;
    let bottom = area.bottom;
    let ticks = map
        .columns
        .level_ticks()
        .into_iter()
        .map(|(x, label)| (area.left + x * area.width(), label))
        .collect();

    let labels = axis::thin_labels(ticks, |label| {
        if turned.is_some() {
            7.0
        } else {
            font::text_width(label, TEXT_SIZE) / 2.0 + 4.0
        }
    });
    let labels = match turned {
        Some(below) => fit_names(scene, labels, below - 34.0),
        None => labels,
    };
    for (x, label) in labels {
        scene.add_line(vec![(x, bottom), (x, bottom + 4.0)], Stroke::new(GREY, 1.0));
        let Some(overhang) = overhang else { continue };
        let half = font::text_width(&label, TEXT_SIZE) / 2.0;
        if turned.is_some() {
            scene.add_turned_text(
                (x + TEXT_SIZE * 0.36, bottom + 7.0),
                &label,
                TEXT_SIZE,
                INK,
                Anchor::End,
            );
        } else if x - half >= area.left - overhang && x + half <= area.right + overhang {
            scene.add_text((x, bottom + 17.0), &label, TEXT_SIZE, INK, Anchor::Middle);
        }
    }
}
