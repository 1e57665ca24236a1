//! Limits that a few far values do not stretch.

/// Minimum number of values among which one can be an outlier.
const MIN_VALUES: usize = 4;
/// Distance from the median beyond which a value is far, in median absolute deviations: about seven
/// standard deviations of a normal distribution.
const FAR: f64 = 10.0;
/// Minimum ratio of the whole range to that without far values: others do not squeeze the picture.
const MIN_STRETCH: f64 = 3.0;

/// The range of values without a few far ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RobustRange {
    pub(super) low: f64,
    pub(super) high: f64,
    /// Numbers of values below and above the range.
    pub(super) outside: [usize; 2],
}

/// The range of most values, if at most a tenth (but one in any case) are so far from them that most
/// of a scale with all would be empty. On a logarithmic scale distances are of logarithms.
pub(super) fn find_robust_range(values: &[f64], log: bool) -> Option<RobustRange> {
    let on_scale = |x: f64| if log { libm::log(x) } else { x };
    let mut sorted: Vec<f64> = values
        .iter()
        .copied()
        .filter(|x| x.is_finite() && (!log || *x > 0.0))
        .collect();
    if sorted.len() < MIN_VALUES {
        return None;
    }

    sorted.sort_by(f64::total_cmp);
    let places: Vec<f64> = sorted.iter().map(|x| on_scale(*x)).collect();
    let middle = median_of_sorted(&places);
    let mut deviations: Vec<f64> = places.iter().map(|x| (x - middle).abs()).collect();
    deviations.sort_by(f64::total_cmp);
    let far = FAR * median_of_sorted(&deviations);

    let below = places.iter().filter(|x| **x < middle - far).count();
    let above = places.iter().filter(|x| **x > middle + far).count();
    let n = sorted.len();
    if far == 0.0 || below + above == 0 || below + above > (n / 10).max(1) {
        return None;
    }

    let kept = places[n - 1 - above] - places[below];
    if places[n - 1] - places[0] < MIN_STRETCH * kept || kept == 0.0 {
        return None;
    }

    Some(RobustRange {
        low: sorted[below],
        high: sorted[n - 1 - above],
        outside: [below, above],
    })
}

fn median_of_sorted(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    } else {
        sorted[middle]
    }
}
