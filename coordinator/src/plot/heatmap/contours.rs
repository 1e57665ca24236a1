//! Contour lines of shares through the cells, and their labels.

use crate::plot::colour::{INK, PAPER};
use crate::plot::frame::SMALL_TEXT_SIZE;
use crate::plot::heatmap::Heatmap;
use crate::plot::heatmap::cells::CellGrid;
use crate::plot::scene::{Area, Scene, Stroke};
use crate::plot::{contour, font};

/// Levels of contours, with their dashes.
const CONTOURS: [(f64, &[f64]); 3] = [(0.1, &[2.0, 2.5]), (0.5, &[]), (0.9, &[7.0, 3.0])];

fn value_matrix(map: &Heatmap, panel: usize) -> Vec<Vec<Option<f64>>> {
    let mut values = vec![vec![None; map.columns.levels.len()]; map.rows.levels.len()];
    map.cells
        .iter()
        .filter(|cell| cell.panel == panel)
        .for_each(|cell| values[cell.row][cell.column] = cell.value);
    values
}

/// A level of contours with its dashes and lines.
pub(super) type LevelContours = (f64, &'static [f64], Vec<contour::ContourLine>);

/// The contour lines of those levels that occur in a panel. Axes of words have none.
pub(super) fn find_contours(map: &Heatmap, panel: usize) -> Vec<LevelContours> {
    if !map.shares || !map.rows.is_numeric() || !map.columns.is_numeric() {
        return Vec::new();
    }
    let values = value_matrix(map, panel);
    let all = CONTOURS
        .into_iter()
        .map(|(level, dash)| (level, dash, contour::contour_lines(&values, level)));
    all.filter(|(_, _, lines)| !lines.is_empty()).collect()
}

/// The levels that occur in any panel, with their dashes.
pub(super) fn find_contour_levels(map: &Heatmap) -> Vec<(f64, &'static [f64])> {
    let panels = 0..map.panels.len().max(1);
    let found: Vec<f64> = panels
        .flat_map(|panel| find_contours(map, panel))
        .map(|(level, _, _)| level)
        .collect();
    CONTOURS
        .into_iter()
        .filter(|(level, _)| found.contains(level))
        .collect()
}

/// Whether any panel has contours.
pub(super) fn has_contours(map: &Heatmap) -> bool {
    !find_contour_levels(map).is_empty()
}

/// Draws the contours; returns the longest line of each level.
pub(super) fn draw_contours(
    scene: &mut Scene,
    grid: &CellGrid,
    contours: &[LevelContours],
) -> Vec<(f64, Vec<(f64, f64)>)> {
    let mut labels = Vec::new();
    for (level, dash, lines) in contours {
        let mut longest: Vec<(f64, f64)> = Vec::new();
        for line in lines {
            let line: Vec<_> = line
                .iter()
                .map(|(c, r)| {
                    (
                        position_between(&grid.columns, *c),
                        position_between(&grid.rows, *r),
                    )
                })
                .collect();
            scene.add_line(line.clone(), Stroke::new(PAPER, 4.0));
            scene.add_line(
                line.clone(),
                Stroke {
                    dash,
                    ..Stroke::new(INK, 1.8)
                },
            );

            if line_length(&line) > line_length(&longest) {
                longest = line;
            }
        }

        labels.push((*level, longest));
    }

    labels
}

/// Labels the contours. Close ones get their labels at different positions, beside the numbers; if
/// there is no room, the dashes identify the line.
pub(super) fn label_contours(scene: &mut Scene, labels: &[(f64, Vec<(f64, f64)>)], taken: &[Area]) {
    let mut placed: Vec<(f64, f64)> = Vec::new();
    for ((level, line), preferred) in labels.iter().zip([0.12, 0.5, 0.88]) {
        let text = format!("{level}");
        let half = font::text_width(&text, SMALL_TEXT_SIZE) / 2.0 + 2.0;
        let tall = SMALL_TEXT_SIZE * 0.6;
        let shares = [preferred, 0.5, 0.3, 0.7, 0.15, 0.85, 0.4, 0.6, 0.22, 0.78];
        if let Some(place) = shares
            .iter()
            .filter_map(|share| point_along(line, *share))
            .find(|(x, y)| {
                let apart = placed
                    .iter()
                    .all(|(a, b)| (a - x).abs() > 30.0 || (b - y).abs() > 15.0);
                apart
                    && taken.iter().all(|a| {
                        x + half < a.left
                            || x - half > a.right
                            || y + tall < a.top
                            || y - tall > a.bottom
                    })
            })
        {
            scene.add_label(place, &text, SMALL_TEXT_SIZE, INK);
            placed.push(place);
        }
    }
}

/// Pixel position of a position between the centres of cells, which are counted from 0.
fn position_between(edges: &[f64], place: f64) -> f64 {
    let at = (place as usize).min(edges.len() - 2);
    let next = (at + 1).min(edges.len() - 2);
    let centre = centre_of_cell(edges, at);
    centre + (place - at as f64) * (centre_of_cell(edges, next) - centre)
}

fn centre_of_cell(edges: &[f64], at: usize) -> f64 {
    (edges[at] + edges[at + 1]) / 2.0
}

fn line_length(line: &[(f64, f64)]) -> f64 {
    line.windows(2)
        .map(|pair| libm::hypot(pair[1].0 - pair[0].0, pair[1].1 - pair[0].1))
        .sum()
}

/// The point after a share of a line's length.
fn point_along(line: &[(f64, f64)], share: f64) -> Option<(f64, f64)> {
    let mut left = line_length(line) * share;
    for pair in line.windows(2) {
        let step = line_length(pair);
        if left <= step && step > 0.0 {
            let part = left / step;
            return Some((
                pair[0].0 + part * (pair[1].0 - pair[0].0),
                pair[0].1 + part * (pair[1].1 - pair[0].1),
            ));
        }

        left -= step;
    }

    line.last().copied()
}
