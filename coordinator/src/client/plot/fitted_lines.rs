//! What claims make of the values of several cells: the lines of slopes, and the numbers in words.

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::number_format::format_significant;
use ergodic_common::quantity::{Claim, ClaimForm};
use ergodic_proto::v1;

use crate::plot::curves::{FittedLine, MeanPoint};

/// Number of places of a line, which is bent where one of the axes is logarithmic and the fit is not.
const LINE_POINTS: usize = 60;
/// Maximum number of effects that are told in words.
const MAX_TOLD: usize = 4;

/// An effect of a claim in one cell, or the value of a cell that an effect joins with others.
pub(super) struct CellEffect<'a> {
    /// The verdict.
    pub(super) row: &'a v1::ClaimRow,
    /// The cell.
    pub(super) cell: CellIndex,
    /// Where it is drawn.
    pub(super) point: MeanPoint,
}

impl CellEffect<'_> {
    /// Whether it is the value of one of several cells that the effect joins.
    pub(super) fn is_joined(&self) -> bool {
        !self.row.points.is_empty()
    }
}

/// The lines of the slopes that are claimed over x, through the middle of the values that they join. `series_of` and `panel_of` are
/// those of each value. A slope over something else has no line.
pub(super) fn fit_slopes(
    spec: &Spec,
    effects: &[CellEffect<'_>],
    x: &str,
    (series_of, panel_of): (&[usize], Option<&[usize]>),
) -> Vec<FittedLine> {
    let Ok(section) = &spec.claims else {
        return Vec::new();
    };
    let mut lines: Vec<FittedLine> = Vec::new();
    for (row, places) in group_by_row(effects) {
        let claim = section.claims.iter().find(|claim| claim.name == row.claim);
        let Some(claim) = claim.filter(|claim| is_slope_over(claim, x)) else {
            continue;
        };
        let values: Vec<(f64, f64)> = places
            .iter()
            .map(|at| (effects[*at].point.x, effects[*at].point.mean))
            .collect();
        let Some(points) = row
            .effect
            .and_then(|slope| fit_line(&values, slope, claim.log))
        else {
            continue;
        };

        // The cells of a slope may stand in several panels, each of which has the line.
        let mut panels: Vec<usize> = places
            .iter()
            .map(|at| panel_of.map_or(0, |of| of[*at]))
            .collect();
        panels.sort_unstable();
        panels.dedup();
        lines.extend(panels.into_iter().map(|panel| FittedLine {
            series: series_of[places[0]],
            panel,
            points: points.clone(),
        }));
    }

    lines
}

fn is_slope_over(claim: &Claim, x: &str) -> bool {
    let against = claim.against.as_deref().map(str::trim);
    claim.form == ClaimForm::Slope && against == Some(x.trim())
}

/// The verdicts, each with the places of its values.
fn group_by_row<'a>(effects: &[CellEffect<'a>]) -> Vec<(&'a v1::ClaimRow, Vec<usize>)> {
    let mut groups: Vec<(&v1::ClaimRow, Vec<usize>)> = Vec::new();
    for (at, effect) in effects.iter().enumerate() {
        match groups.last_mut() {
            Some((row, places)) if std::ptr::eq(*row, effect.row) => places.push(at),
            _ => groups.push((effect.row, vec![at])),
        }
    }
    groups
}

/// A line of this slope through the mean of some values, on the scales on which the slope is taken. `None` if a value has no place
/// on them.
fn fit_line(values: &[(f64, f64)], slope: f64, log: (bool, bool)) -> Option<Vec<(f64, f64)>> {
    let scale = |x: f64, is_log: bool| if is_log { libm::log(x) } else { x };
    let unscale = |x: f64, is_log: bool| if is_log { libm::exp(x) } else { x };
    let scaled: Vec<(f64, f64)> = values
        .iter()
        .map(|(x, y)| (scale(*x, log.0), scale(*y, log.1)))
        .collect();
    let n = scaled.len() as f64;
    let mean_x = scaled.iter().map(|(x, _)| x).sum::<f64>() / n;
    let mean_y = scaled.iter().map(|(_, y)| y).sum::<f64>() / n;
    let ends = scaled.iter().map(|(x, _)| *x);
    let [low, high] = [
        ends.clone().fold(f64::INFINITY, f64::min),
        ends.fold(f64::NEG_INFINITY, f64::max),
    ];
    if !(mean_x.is_finite() && mean_y.is_finite() && slope.is_finite() && low < high) {
        return None;
    }

    let points = (0..=LINE_POINTS).map(|at| {
        let x = low + (high - low) * at as f64 / LINE_POINTS as f64;
        (
            unscale(x, log.0),
            unscale(mean_y + slope * (x - mean_x), log.1),
        )
    });
    Some(points.collect())
}

/// Says what the claims make of the values, effect by effect.
pub(super) fn describe_joined_effects(effects: &[CellEffect<'_>], has_lines: bool) -> Vec<String> {
    let joined: Vec<&v1::ClaimRow> = group_by_row(effects)
        .into_iter()
        .map(|(row, _)| row)
        .filter(|row| !row.points.is_empty())
        .collect();
    let told = joined.iter().take(MAX_TOLD);
    let mut notes: Vec<String> = told.map(|row| describe_joined_effect(row)).collect();
    if joined.len() > MAX_TOLD {
        let more = joined.len() - MAX_TOLD;
        notes.push(format!("{more} more effects: see the verdicts."));
    }
    if has_lines {
        notes.push("Lines: the fitted slopes.".to_owned());
    }
    notes
}

fn describe_joined_effect(row: &v1::ClaimRow) -> String {
    let number = |x: f64| format_significant(x, 3);
    let form = match row.form.as_str() {
        "slope" => "slope",
        _ => "largest over smallest",
    };
    let cells = match row.cells.as_str() {
        "" => String::new(),
        cells => format!(" ({cells})"),
    };
    let effect = row.effect.map_or_else(|| "undefined".to_owned(), number);
    let interval = row
        .low
        .zip(row.high)
        .map_or_else(String::new, |(low, high)| {
            format!(
                ", {:.0} % CI {} … {}",
                100.0 * row.level,
                number(low),
                number(high)
            )
        });
    format!("{}{cells}: {form} {effect}{interval}.", row.claim)
}

#[cfg(test)]
mod tests {
    use crate::client::plot::fitted_lines::*;

    #[test]
    fn a_line_has_the_slope_on_its_scales_and_meets_the_mean() {
        let law = [(1e-3, 200.0), (1e-2, 20.0), (1e-1, 2.0)];
        let line = fit_line(&law, -1.0, (true, true)).expect("values above 0");
        for (x, y) in &line {
            assert!((x * y / 0.2 - 1.0).abs() < 1e-9, "{x} {y}");
        }
        assert_eq!(line.len(), LINE_POINTS + 1);

        let straight = fit_line(&[(0.0, 1.0), (2.0, 5.0)], 2.0, (false, false));
        let ends = straight.map(|line| (line[0], line[LINE_POINTS]));
        assert_eq!(ends, Some(((0.0, 1.0), (2.0, 5.0))));
        for (values, slope) in [
            (vec![(1.0, -1.0), (2.0, 1.0)], 1.0),
            (vec![(1.0, 1.0)], 1.0),
            (vec![(1.0, 1.0), (2.0, 1.0)], f64::NAN),
        ] {
            assert_eq!(fit_line(&values, slope, (true, true)), None, "{values:?}");
        }
    }
}
