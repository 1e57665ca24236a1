//! Weighs the effect of one claim: its estimate, and what that says about the region.

use ergodic_common::quantity::{Claim, ClaimForm, ClaimRegion};

use super::design::{RepeatDesign, SampleSize};
use super::effect_numbers::EffectNumbers;
use crate::estimators::decision::{EffectEstimate, EffectRegion, RegionTest};

/// Number of independent repeats below which intervals of skewed values are too short: with exponential ones, more than 2 α of wrong "agrees"
/// at the margin.
pub(super) const SMALL_REPEATS: u64 = 50;

/// An effect with its test.
pub(super) struct WeighedEffect {
    /// Effect, and the ends of its interval, as they are shown.
    pub(super) shown: Option<(f64, f64, f64)>,
    pub(super) test: RegionTest,
    pub(super) n: u64,
    pub(super) needed: Option<u64>,
    pub(super) notes: Vec<String>,
}

impl WeighedEffect {
    pub(super) fn of_estimate(
        estimate: &EffectEstimate,
        region: EffectRegion,
        size: SampleSize,
        design: &RepeatDesign,
    ) -> Self {
        let needed = estimate.required_units(region, size.units);
        let moved = estimate
            .is_moved_by_noise
            .then(|| "noise of the mean curve moves this number".to_owned());
        Self {
            shown: Some((estimate.effect, estimate.low, estimate.high)),
            test: estimate.test(region),
            n: size.repeats,
            needed: needed.and_then(|wanted| design.repeats_with_units(wanted, size.units)),
            notes: moved.into_iter().collect(),
        }
    }

    pub(super) fn mark_small(mut self, size: SampleSize) -> Self {
        if size.units < SMALL_REPEATS {
            self.notes.push("small n".to_owned());
        }
        self
    }

    /// Decides nothing, for this reason, but keeps what is shown.
    pub(super) fn leave_open(mut self, why: String) -> Self {
        self.test = RegionTest::OPEN;
        self.notes.push(why);
        self
    }
}

/// Refuses a verdict on fewer independent repeats than the claim demands.
pub(super) fn check_enough(
    claim: &Claim,
    size: SampleSize,
    design: &RepeatDesign,
) -> Result<(), String> {
    if size.units < u64::from(claim.min_repeats) {
        return Err(describe_too_few(claim, design.units_name()));
    }
    Ok(())
}

fn describe_too_few(claim: &Claim, units: &str) -> String {
    format!("a verdict needs {} {units} at least", claim.min_repeats)
}

pub(super) fn weigh_number(numbers: EffectNumbers<'_>) -> Result<WeighedEffect, String> {
    let estimate = numbers.estimate()?;
    let is_ratio = numbers.claim.form == ClaimForm::Ratio;
    let region = effect_region(numbers.claim);
    let region = if is_ratio {
        map_bounds(region, logarithm)
    } else {
        region
    };

    let size = numbers.sample_size();
    let mut weighed = WeighedEffect::of_estimate(&estimate, region, size, numbers.design);
    if is_ratio {
        weighed.shown = weighed
            .shown
            .map(|(x, low, high)| (libm::exp(x), libm::exp(low), libm::exp(high)));
    }
    Ok(weighed.mark_small(size))
}

/// Tests all pairs of cells. That the largest is not far above the smallest means that no pair is far apart; the contrary, that
/// some pair is, which is corrected for the number of pairs.
pub(super) fn weigh_spread(numbers: EffectNumbers<'_>) -> Result<WeighedEffect, String> {
    let pairs = numbers.estimate_pairs()?;
    let bound = match numbers.claim.region {
        Some(ClaimRegion::Above(bound) | ClaimRegion::Below(bound)) => libm::log(bound),
        _ => f64::NAN,
    };
    let near = EffectRegion::Inside(-bound, bound);
    let tests: Vec<RegionTest> = pairs.iter().map(|pair| pair.test(near)).collect();
    let count = tests.len() as f64;
    let far = tests.iter().map(|test| test.outside).fold(1.0, f64::min);
    let below = RegionTest {
        inside: tests.iter().map(|test| test.inside).fold(0.0, f64::max),
        outside: (far * count).min(1.0),
        interval_inside: tests.iter().all(|test| test.interval_inside),
        interval_outside: tests.iter().any(|test| test.interval_outside),
    };

    let widest = pairs
        .iter()
        .max_by(|a, b| a.effect.abs().total_cmp(&b.effect.abs()));
    let widest = widest.ok_or("a spread needs two cells")?;
    let sign = if widest.effect < 0.0 { -1.0 } else { 1.0 };
    let ends = [sign * widest.low, sign * widest.high];
    let size = numbers.sample_size();
    let of_widest = WeighedEffect::of_estimate(widest, near, size, numbers.design);
    let weighed = WeighedEffect {
        shown: Some((
            libm::exp(widest.effect.abs()),
            libm::exp(ends[0].min(ends[1]).max(0.0)),
            libm::exp(ends[0].max(ends[1])),
        )),
        test: match numbers.claim.region {
            Some(ClaimRegion::Above(_)) => turn_test(below),
            _ => below,
        },
        ..of_widest
    };
    Ok(weighed.mark_small(size))
}

/// Compares the bits of common repeats. One that differs contradicts; of a control, one that does not. That all are as claimed is only
/// shown if all that ended can be compared.
///
/// # Errors
/// There are fewer repeats than the claim demands.
pub(super) fn weigh_bits(
    claim: &Claim,
    numbers: EffectNumbers<'_>,
    can_compare_all: bool,
) -> Result<WeighedEffect, String> {
    let [here, there] = [numbers.cells[0], numbers.cells[numbers.cells.len() - 1]];
    let common = here.bits.iter().filter_map(|(repeat, bits)| {
        let other = there.bits.get(repeat)?;
        Some(bits == other)
    });
    let equal: Vec<bool> = common.collect();
    let n = equal.len() as u64;
    let same = equal.iter().filter(|is_equal| **is_equal).count() as u64;
    if n == 0 && !can_compare_all {
        return Err("no repeat can be compared".to_owned());
    }
    // Bits have no spread that levels of crossed streams would share.
    if n < u64::from(claim.min_repeats) {
        return Err(describe_too_few(claim, "repeats"));
    }

    // A control counts as equal if any repeat is.
    let is_equal = if claim.is_control {
        same > 0
    } else {
        same == n
    };
    let share = same as f64 / n as f64;
    let weighed = WeighedEffect {
        shown: Some((share, share, share)),
        test: RegionTest::of_known_effect(Some(is_equal)),
        n,
        needed: None,
        notes: vec![format!("{same} of {n} repeats equal")],
    };
    Ok(if can_compare_all || is_equal == claim.is_control {
        weighed
    } else {
        weighed.leave_open("not every repeat can be compared".to_owned())
    })
}

/// The test of the contrary.
pub(super) fn turn_test(test: RegionTest) -> RegionTest {
    RegionTest {
        inside: test.outside,
        outside: test.inside,
        interval_inside: test.interval_outside,
        interval_outside: test.interval_inside,
    }
}

pub(super) fn effect_region(claim: &Claim) -> EffectRegion {
    match claim.region {
        Some(ClaimRegion::Within(low, high)) => EffectRegion::Inside(low, high),
        Some(ClaimRegion::Above(low)) => EffectRegion::Inside(low, f64::INFINITY),
        Some(ClaimRegion::Below(high)) => EffectRegion::Inside(f64::NEG_INFINITY, high),
        Some(ClaimRegion::Outside(low, high)) => EffectRegion::Outside(low, high),
        None => EffectRegion::Inside(f64::NEG_INFINITY, f64::INFINITY),
    }
}

fn map_bounds(region: EffectRegion, map: fn(f64) -> f64) -> EffectRegion {
    match region {
        EffectRegion::Inside(low, high) => EffectRegion::Inside(map(low), map(high)),
        EffectRegion::Outside(low, high) => EffectRegion::Outside(map(low), map(high)),
    }
}

/// The logarithm of a bound of a ratio. Every ratio of numbers above 0 is above one that is not.
fn logarithm(bound: f64) -> f64 {
    if bound <= 0.0 {
        f64::NEG_INFINITY
    } else {
        libm::log(bound)
    }
}
