//! The decision rule of claims: whether an effect is shown to lie in a region, shown to lie outside, or neither.

use super::binomial::{lower_tail, upper_tail};
use super::rounding::rounding_of_difference;
use super::special::{student_t_cdf, student_t_quantile};

/// The set in which an effect is claimed to lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EffectRegion {
    /// The interval between two bounds; either may be infinite.
    Inside(f64, f64),
    /// Everything outside of the interval between two bounds.
    Outside(f64, f64),
}

/// An estimated effect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EffectEstimate {
    /// The effect.
    pub effect: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// What rounding alone can make of the effect.
    pub rounding: f64,
    /// What the probabilities of other estimates follow.
    pub law: EffectLaw,
    /// Whether noise moves the effect itself, which no interval shows in full.
    pub is_moved_by_noise: bool,
}

/// The distribution by which an effect is tested.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EffectLaw {
    /// Student's t, with this standard error and degrees of freedom.
    Student {
        /// Standard error of the effect.
        standard_error: f64,
        /// Degrees of freedom.
        degrees: f64,
    },
    /// The ratio of two numbers with Student's t of the same degrees of freedom, the second one above 0: that the ratio is r means
    /// that the first minus r times the second is 0 (Fieller 1954).
    Quotient(Quotient),
    /// The binomial distribution.
    Binomial {
        /// Number of successes at least.
        fewest: u64,
        /// Number of successes at most.
        most: u64,
        /// Number of trials.
        trials: u64,
    },
}

/// A number over another one, both estimated from the same repeats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quotient {
    /// The number.
    pub numerator: f64,
    /// The number that it is divided by.
    pub denominator: f64,
    /// Squared standard error of the numerator.
    pub numerator_variance: f64,
    /// Squared standard error of the denominator.
    pub denominator_variance: f64,
    /// Covariance of both.
    pub covariance: f64,
    /// Degrees of freedom.
    pub degrees: f64,
}

impl Quotient {
    /// The estimate, whose interval has the level 1 − 2α; `None` if the denominator is not shown to be above 0.
    pub fn estimate(self, alpha: f64) -> Option<EffectEstimate> {
        let t = student_t_quantile(1.0 - alpha, self.degrees);
        let square = self.denominator * self.denominator - t * t * self.denominator_variance;
        if self.denominator <= 0.0 || square <= 0.0 {
            return None;
        }

        let product = self.numerator * self.denominator - t * t * self.covariance;
        let root = self.compute_discriminant(t).max(0.0).sqrt();
        let effect = self.numerator / self.denominator;
        Some(EffectEstimate {
            effect,
            low: (product - root) / square,
            high: (product + root) / square,
            rounding: rounding_of_difference(effect, effect),
            law: EffectLaw::Quotient(self),
            is_moved_by_noise: false,
        })
    }

    /// The square of half the distance of the ends, times that of the denominator above. Written out, nothing is left of it without
    /// spread, where the difference of the squares would leave their rounding.
    fn compute_discriminant(self, t: f64) -> f64 {
        let [n, d] = [self.numerator, self.denominator];
        let first = d * d * self.numerator_variance + n * n * self.denominator_variance
            - 2.0 * n * d * self.covariance;
        let second =
            self.numerator_variance * self.denominator_variance - self.covariance * self.covariance;
        t * t * (first - t * t * second)
    }

    /// How far the ratio is above a bound, in units of the denominator, and the standard error of that.
    fn distance_above(self, bound: f64) -> (f64, f64) {
        let variance = self.numerator_variance - 2.0 * bound * self.covariance
            + bound * bound * self.denominator_variance;
        (
            self.numerator - bound * self.denominator,
            variance.max(0.0).sqrt(),
        )
    }
}

/// What is shown of an effect and its region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegionTest {
    /// p of the hypothesis that the effect lies outside: small if it is shown to lie inside.
    pub inside: f64,
    /// p of the hypothesis that the effect lies inside: small if it is shown to lie outside.
    pub outside: f64,
    /// Whether the interval lies inside.
    pub interval_inside: bool,
    /// Whether the interval lies outside.
    pub interval_outside: bool,
}

impl RegionTest {
    /// The test of an effect of which nothing is shown.
    pub const OPEN: Self = Self {
        inside: 1.0,
        outside: 1.0,
        interval_inside: false,
        interval_outside: false,
    };

    /// The test of an effect without spread, which is known to lie inside, outside, or on a bound.
    pub fn of_known_effect(is_inside: Option<bool>) -> Self {
        let [inside, outside] = match is_inside {
            Some(true) => [0.0, 1.0],
            Some(false) => [1.0, 0.0],
            None => [0.5, 0.5],
        };
        Self {
            inside,
            outside,
            interval_inside: is_inside == Some(true),
            interval_outside: is_inside == Some(false),
        }
    }
}

impl EffectRegion {
    /// Whether a number that is known exactly but for rounding lies in the region. The ends of an interval lie inside; on a single
    /// bound, `None` leaves it open.
    fn contains_exactly(self, x: f64, rounding: f64) -> Option<bool> {
        let (Self::Inside(low, high) | Self::Outside(low, high)) = self;
        let is_interval = low.is_finite() && high.is_finite();
        match (self, self.distance_from_bound(x) <= rounding) {
            (_, false) => Some(self.contains(x)),
            (_, true) if !is_interval => None,
            (Self::Inside(..), true) => Some(true),
            (Self::Outside(..), true) => Some(false),
        }
    }

    /// Everything that does not lie in the region.
    #[must_use]
    pub fn complement(self) -> Self {
        match self {
            Self::Inside(low, high) => Self::Outside(low, high),
            Self::Outside(low, high) => Self::Inside(low, high),
        }
    }

    /// Whether a number lies in the region.
    pub fn contains(self, x: f64) -> bool {
        match self {
            Self::Inside(low, high) => low <= x && x <= high,
            Self::Outside(low, high) => x < low || x > high,
        }
    }

    /// Distance of a number from the nearest finite bound.
    pub fn distance_from_bound(self, x: f64) -> f64 {
        let (Self::Inside(low, high) | Self::Outside(low, high)) = self;
        (x - low).abs().min((x - high).abs())
    }

    /// Whether all numbers between two ends lie in the region.
    pub fn contains_interval(self, from: f64, to: f64) -> bool {
        match self {
            Self::Inside(low, high) => low <= from && to <= high,
            Self::Outside(low, high) => to < low || from > high,
        }
    }

    /// p of the hypothesis that the effect lies outside of the region. Both bounds must be passed for an interval (two one-sided
    /// tests), one of them for its outside.
    fn test_inside(self, estimate: &EffectEstimate) -> f64 {
        let (Self::Inside(low, high) | Self::Outside(low, high)) = self;
        match self {
            Self::Inside(..) => estimate.test_above(low).max(estimate.test_below(high)),
            Self::Outside(..) => {
                let p = estimate.test_below(low).min(estimate.test_above(high));
                // Either of two bounds may be passed by chance.
                let is_two_sided = low.is_finite() && high.is_finite();
                if is_two_sided { (2.0 * p).min(1.0) } else { p }
            }
        }
    }

    /// The region without bounds that no share passes, such as the upper one of [0.9, 1].
    #[must_use]
    pub fn without_bounds_of_shares(self) -> Self {
        match self {
            Self::Inside(low, high) => Self::Inside(
                if low <= 0.0 { f64::NEG_INFINITY } else { low },
                if high >= 1.0 { f64::INFINITY } else { high },
            ),
            Self::Outside(..) => self,
        }
    }
}

impl EffectEstimate {
    /// Tests the effect against a region.
    pub fn test(&self, region: EffectRegion) -> RegionTest {
        if self.has_no_spread() {
            return RegionTest::of_known_effect(
                region.contains_exactly(self.effect, self.rounding),
            );
        }

        let other = region.complement();
        RegionTest {
            inside: region.test_inside(self),
            outside: other.test_inside(self),
            interval_inside: region.contains_interval(self.low, self.high),
            interval_outside: other.contains_interval(self.low, self.high),
        }
    }

    /// Whether the effect is known exactly: nothing that trials tell is left open.
    fn has_no_spread(&self) -> bool {
        let standard_error = match self.law {
            EffectLaw::Student { standard_error, .. } => standard_error,
            EffectLaw::Quotient(quotient) => {
                quotient.numerator_variance + quotient.denominator_variance
            }
            EffectLaw::Binomial { .. } => return false,
        };
        standard_error == 0.0 && self.high - self.low <= 2.0 * self.rounding
    }

    /// p of the hypothesis that the effect is at most `bound`.
    fn test_above(&self, bound: f64) -> f64 {
        if bound == f64::NEG_INFINITY {
            return 0.0;
        }
        match self.law {
            EffectLaw::Binomial { fewest, trials, .. } => upper_tail(fewest, trials, bound),
            _ => 1.0 - self.student_share_below(bound),
        }
    }

    /// p of the hypothesis that the effect is at least `bound`.
    fn test_below(&self, bound: f64) -> f64 {
        if bound == f64::INFINITY {
            return 0.0;
        }
        match self.law {
            EffectLaw::Binomial { most, trials, .. } => lower_tail(most, trials, bound),
            _ => self.student_share_below(bound),
        }
    }

    /// Probability of an effect up to this one if the true effect is `bound`.
    fn student_share_below(&self, bound: f64) -> f64 {
        let (apart, standard_error, degrees) = match self.law {
            EffectLaw::Student {
                standard_error,
                degrees,
            } => (self.effect - bound, standard_error, degrees),
            EffectLaw::Quotient(quotient) => {
                let (apart, standard_error) = quotient.distance_above(bound);
                (apart, standard_error, quotient.degrees)
            }
            EffectLaw::Binomial { .. } => return f64::NAN,
        };
        if standard_error == 0.0 {
            return match apart.total_cmp(&0.0) {
                std::cmp::Ordering::Less => 0.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Greater => 1.0,
            };
        }
        student_t_cdf(apart / standard_error, degrees)
    }

    /// The number of independent repeats that would decide, if `units` gave this interval and the effect stays: intervals narrow with
    /// the root of the number. `None` for an effect on a bound.
    pub fn required_units(&self, region: EffectRegion, units: u64) -> Option<u64> {
        let half = 0.5 * (self.high - self.low);
        let apart = region.distance_from_bound(self.effect);
        let needed = (units as f64 * (half / apart) * (half / apart)).ceil();
        (needed.is_finite() && needed < 1e9).then(|| (needed as u64).max(units + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(effect: f64, standard_error: f64) -> EffectEstimate {
        EffectEstimate {
            effect,
            low: effect - 2.0 * standard_error,
            high: effect + 2.0 * standard_error,
            rounding: rounding_of_difference(effect, effect),
            law: EffectLaw::Student {
                standard_error,
                degrees: 9.0,
            },
            is_moved_by_noise: false,
        }
    }

    #[test]
    fn an_effect_is_inside_outside_or_neither() {
        let region = EffectRegion::Inside(0.9, 1.1);
        for (effect, inside, outside) in
            [(1.0, true, false), (1.1, false, false), (1.3, false, true)]
        {
            let test = estimate(effect, 0.02).test(region);
            assert_eq!(
                (test.interval_inside, test.inside < 0.05),
                (inside, inside),
                "{effect}"
            );
            assert_eq!(
                (test.interval_outside, test.outside < 0.05),
                (outside, outside),
                "{effect}"
            );

            let other = estimate(effect, 0.02).test(region.complement());
            assert_eq!((other.inside, other.outside), (test.outside, test.inside));
        }
    }

    #[test]
    fn without_spread_the_effect_alone_decides() {
        let half_line = EffectRegion::Inside(0.0, f64::INFINITY);
        assert_eq!(estimate(1.0, 0.0).test(half_line).inside, 0.0);
        assert_eq!(estimate(-1.0, 0.0).test(half_line).outside, 0.0);
        assert_eq!(estimate(0.0, 0.0).test(half_line).inside, 0.5);
    }

    #[test]
    fn without_spread_the_ends_of_an_interval_lie_inside() {
        let region = EffectRegion::Inside(0.1, 1.0);
        for effect in [0.1, 0.1 - 1e-17, 1.0 + 2e-16] {
            let test = estimate(effect, 0.0).test(region);
            assert_eq!((test.inside, test.interval_inside), (0.0, true), "{effect}");
            let other = estimate(effect, 0.0).test(region.complement());
            assert_eq!(
                (other.outside, other.interval_outside),
                (0.0, true),
                "{effect}"
            );
        }

        // A number that is no rounding away lies outside.
        let below = estimate(0.099_999_999_999, 0.0).test(region);
        assert_eq!((below.outside, below.interval_outside), (0.0, true));
    }

    #[test]
    fn a_ratio_without_spread_has_no_interval() {
        let quotient = Quotient {
            numerator: 0.3,
            denominator: 0.7,
            numerator_variance: 0.0,
            denominator_variance: 0.0,
            covariance: 0.0,
            degrees: 9.0,
        };
        let found = quotient.estimate(0.05).expect("0.7 is above 0");
        assert!(found.high - found.low < 1e-15, "{found:?}");
        assert!(found.test(EffectRegion::Inside(0.4, 0.5)).interval_inside);
    }

    #[test]
    fn the_ends_of_a_ratio_are_where_its_test_has_alpha() {
        let quotient = Quotient {
            numerator: 0.5,
            denominator: 2.0,
            numerator_variance: 0.01,
            denominator_variance: 0.09,
            covariance: 0.02,
            degrees: 9.0,
        };
        let found = quotient.estimate(0.05).expect("2 is shown to be above 0");
        assert!(found.low < 0.25 && found.high > 0.25);
        assert!((found.test_above(found.low) - 0.05).abs() < 1e-9);
        assert!((found.test_below(found.high) - 0.05).abs() < 1e-9);

        let weak = Quotient {
            denominator_variance: 4.0,
            ..quotient
        };
        assert_eq!(weak.estimate(0.05), None);
    }

    #[test]
    fn four_times_the_repeats_halve_the_interval() {
        let half_line = EffectRegion::Inside(0.0, f64::INFINITY);
        let found = estimate(1.0, 1.0).required_units(half_line, 10);
        assert_eq!(found, Some(40));
        assert_eq!(estimate(0.0, 1.0).required_units(half_line, 10), None);
    }
}
