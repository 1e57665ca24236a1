//! The notes above a heat map: what marks, lines and colours mean.

use crate::plot::PlotAxis;
use crate::plot::axis::LevelSpacing;
use crate::plot::heatmap::colour_scale::ColourScale;
use crate::plot::heatmap::contours::find_contour_levels;
use crate::plot::heatmap::texts::CellTexts;
use crate::plot::heatmap::{CountedTrials, Heatmap, HeatmapCell};

/// Explains the marks that occur. `texts` are the texts in cells; scattered points have none.
pub(super) fn describe_marks(
    map: &Heatmap,
    colours: &ColourScale,
    texts: Option<&CellTexts>,
) -> Vec<String> {
    let none = CellTexts::none();
    let scattered = texts.is_none();
    let texts = texts.unwrap_or(&none);
    let mut parts: Vec<String> = empty_notes(map, scattered);

    let places = map.rows.levels.len() * map.columns.levels.len() * map.panels.len().max(1);
    if !scattered && map.cells.len() < places {
        let chosen = if map.partial {
            ", or one that was not chosen"
        } else {
            ""
        };
        parts.push(format!("Blank: no such cell{chosen}."));
    }

    parts.extend(divergence_notes(map, scattered, texts.divergences));
    if texts.halves {
        parts.push("±: half of the 95 % CI of the mean.".to_owned());
    }

    parts.extend(colour_notes(map, colours));
    parts.extend(colours.describe_outside(map, scattered));
    if !scattered {
        parts.extend(contour_notes(map));
    }

    let marks = parts.join(" ");
    map.notes
        .iter()
        .cloned()
        .chain(Some(marks).filter(|marks| !marks.is_empty()))
        .collect()
}

/// Explains how diverged trials are marked, and whether numbers count them.
fn divergence_notes(map: &Heatmap, scattered: bool, written: bool) -> Option<String> {
    let div = if written { " (div.)" } else { "" };
    let bars = !scattered && map.cells.iter().any(|cell| map.is_marked(cell));
    let bar = format!("Bar at a cell's right edge: share of its trials that diverged{div}; ");

    match map.counted_trials {
        CountedTrials::Completed if bars => {
            Some(format!("{bar}the number is over those that completed."))
        }
        CountedTrials::Both if bars => Some(format!("{bar}the number counts these, too.")),
        CountedTrials::Diverged => Some(format!(
            "The number is over the trials that diverged{div}, in steps."
        )),
        _ => None,
    }
}

/// Explains the contours.
fn contour_notes(map: &Heatmap) -> Vec<String> {
    let contours = find_contour_levels(map);
    if contours.is_empty() {
        return Vec::new();
    }

    let levels: Vec<String> = contours
        .iter()
        .map(|(level, dash)| format!("{level} ({})", dash_name(dash)))
        .collect();
    let mut notes = vec![format!(
        "Lines: P = {}, linear between the cells' centres.",
        levels.join(", ")
    )];

    if is_evenly_spaced(&map.rows) || is_evenly_spaced(&map.columns) {
        notes.push("An axis without a scale has equal steps from value to value.".to_owned());
    }

    notes
}

fn dash_name(dash: &[f64]) -> &'static str {
    match dash {
        [] => "solid",
        [first, ..] if *first < 3.0 => "dotted",
        _ => "dashed",
    }
}

fn is_evenly_spaced(factor: &PlotAxis) -> bool {
    factor.choose_spacing() == LevelSpacing::Even && factor.levels.len() > 2
}

/// Explains why cells have no number.
fn empty_notes(map: &Heatmap, scattered: bool) -> Vec<String> {
    let mut parts = Vec::new();
    let crossed: Vec<&HeatmapCell> = map
        .cells
        .iter()
        .filter(|cell| map.is_crossed(cell))
        .collect();
    if !crossed.is_empty() {
        let failed = if crossed.iter().any(|cell| cell.trials[2] > 0) {
            " or failed"
        } else {
            ""
        };
        parts.push(format!("Crossed: all trials diverged{failed}."));
    }

    let mut reasons: Vec<&str> = map
        .cells
        .iter()
        .filter(|cell| cell.value.is_none() && !map.is_crossed(cell))
        .map(|cell| describe_missing_number(map, cell))
        .collect();
    reasons.sort_unstable();

    reasons.dedup();
    if !reasons.is_empty() {
        let mark = if scattered {
            "Dashed circle"
        } else {
            "Hatched"
        };
        parts.push(format!("{mark}: {}.", reasons.join(", or ")));
    }

    parts
}

/// Explains why a cell has no number although some of its trials did not diverge.
fn describe_missing_number(map: &Heatmap, cell: &HeatmapCell) -> &'static str {
    match (cell.trials[0], map.counted_trials) {
        (0, _) => "no result",
        (_, CountedTrials::Diverged) => "no trial diverged",
        _ => "too few trials for it",
    }
}

/// Warns that colours exaggerate or hide differences.
fn colour_notes(map: &Heatmap, colours: &ColourScale) -> Vec<String> {
    let mut values: Vec<f64> = map.finite_values().collect();
    let mut notes = Vec::new();
    let infinite = map
        .cells
        .iter()
        .any(|cell| cell.value.is_some_and(f64::is_infinite));
    notes.extend(infinite.then(|| "Grey: inf, outside of the scale.".to_owned()));

    if map.shares || values.len() < 2 {
        return notes;
    }

    if do_intervals_overlap(map) {
        notes.push(
            "The intervals of all cells overlap: differences of colour are within them.".to_owned(),
        );
    }

    values.sort_by(f64::total_cmp);
    let least = values[0];
    let middle = values[values.len() / 2];
    let most = values[values.len() - 1];
    if !map.log && least > 0.0 && most > 1e3 * least && colours.scale.position_of(middle) < 0.1 {
        notes.push(
            "Most numbers are far below the largest: --log-scale tells their colours apart."
                .to_owned(),
        );
    }

    notes
}

/// Whether a number lies in the intervals of all cells; false if a cell has no interval.
fn do_intervals_overlap(map: &Heatmap) -> bool {
    let finite = map
        .cells
        .iter()
        .filter_map(|cell| Some((cell.value.filter(|x| x.is_finite())?, cell.half_width)));
    let Some(ends) = finite
        .map(|(x, half)| Some((x, half?)))
        .collect::<Option<Vec<(f64, f64)>>>()
    else {
        return false;
    };

    let low = ends
        .iter()
        .map(|(x, half)| x - half)
        .fold(f64::NEG_INFINITY, f64::max);
    let high = ends
        .iter()
        .map(|(x, half)| x + half)
        .fold(f64::INFINITY, f64::min);
    low <= high + 1e-9 * high.abs()
}
