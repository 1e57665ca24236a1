//! How the weights that a trial starts from the mean of lie to each other.

use std::ops::Range;

use super::norms::{cosine_similarity, euclidean_distance, square, unit_combination_norm};

/// Means over all pairs of weights; NaN without a pair.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartsGeometry {
    /// Mean cosine of the angle.
    pub(crate) cosine: f64,
    /// Mean of 1 − cos.
    pub(crate) cosine_gap: f64,
    /// Root mean square of the distance.
    pub(crate) distance: f64,
}

impl PartsGeometry {
    /// Without any weights.
    pub(crate) const UNKNOWN: Self = Self {
        cosine: f64::NAN,
        cosine_gap: f64::NAN,
        distance: f64::NAN,
    };

    /// Measures packed weights over ranges of their entries, pair by pair in their order.
    pub(crate) fn measure(ranges: &[Range<usize>], parts: &[Vec<f32>]) -> Self {
        let mut sums = Self {
            cosine: 0.0,
            cosine_gap: 0.0,
            distance: 0.0,
        };
        let mut pairs = 0.0;
        for (at, a) in parts.iter().enumerate() {
            for b in &parts[at + 1..] {
                sums.cosine += cosine_similarity(ranges, a, b);
                sums.cosine_gap += square(unit_combination_norm(ranges, a, -1.0, b)) / 2.0;
                sums.distance += square(euclidean_distance(ranges, a, b));
                pairs += 1.0;
            }
        }

        Self {
            cosine: sums.cosine / pairs,
            cosine_gap: sums.cosine_gap / pairs,
            distance: (sums.distance / pairs).sqrt(),
        }
    }
}
