//! Curves of a theory, which a figure of a sweep file has beside its data.

use ergodic_common::quantity::Figure;
use ergodic_proto::status::UserError;

use super::bad_input_error;

/// Number of places at which a curve is computed.
const GUIDE_POINTS: usize = 200;

/// Computes the curves of the theory between two places.
///
/// # Errors
/// A line is no expression in x.
pub(super) fn compute_guides(
    figure: &Figure,
    range: (f64, f64),
) -> Result<Vec<Vec<(f64, f64)>>, UserError> {
    let lines = figure.compile_lines().map_err(bad_input_error)?;
    let mut guides = Vec::with_capacity(lines.len());
    for line in lines {
        let places = (0..GUIDE_POINTS).map(|at| place_guide_point(range, figure.log.0, at));
        let points = places.map(|x| (x, line.height_at(x)));
        guides.push(points.filter(|(_, y)| y.is_finite()).collect());
    }
    Ok(guides)
}

/// The place of a point of a curve, evenly spaced on its axis.
fn place_guide_point((first, last): (f64, f64), log: bool, at: usize) -> f64 {
    let share = at as f64 / (GUIDE_POINTS - 1) as f64;
    if log && first > 0.0 {
        first * libm::pow(last / first, share)
    } else {
        first + share * (last - first)
    }
}

/// A note on what the curves are; none without them.
pub(super) fn describe_guides(figure: &Figure) -> Vec<String> {
    match figure.lines.is_empty() {
        true => Vec::new(),
        false => vec![format!("Dashed curves: {}.", figure.lines.join(", "))],
    }
}
