//! Weighs the effect of one claim: its estimate, and what that says about the region.

use ergodic_common::quantity::{Claim, ClaimForm, ClaimRegion};

use super::cell_numbers::CellNumber;
use super::effect_numbers::EffectNumbers;
use crate::estimators::decision::{EffectEstimate, EffectRegion, RegionTest};

/// Number of repeats below which intervals of skewed values are too short: with exponential ones, more than 2 α of wrong "agrees"
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
    pub(super) fn of_estimate(estimate: &EffectEstimate, region: EffectRegion, n: u64) -> Self {
        Self {
            shown: Some((estimate.effect, estimate.low, estimate.high)),
            test: estimate.test(region),
            n,
            needed: estimate.required_repeats(region, n),
            notes: Vec::new(),
        }
    }

    pub(super) fn mark_small(mut self) -> Self {
        if self.n < SMALL_REPEATS {
            self.notes.push("small n".to_owned());
        }
        self
    }
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

    let mut weighed = WeighedEffect::of_estimate(&estimate, region, numbers.repeats());
    if is_ratio {
        weighed.shown = weighed
            .shown
            .map(|(x, low, high)| (libm::exp(x), libm::exp(low), libm::exp(high)));
    }
    Ok(weighed.mark_small())
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
    let n = numbers.repeats();
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
        n,
        needed: widest.required_repeats(near, n),
        notes: Vec::new(),
    };
    Ok(weighed.mark_small())
}

/// Compares the bits of common repeats. One that differs contradicts; of a control, one that does not.
pub(super) fn weigh_bits(claim: &Claim, cells: &[&CellNumber]) -> WeighedEffect {
    let [here, there] = [cells[0], cells[cells.len() - 1]];
    let common = here.bits.iter().filter_map(|(repeat, bits)| {
        let other = there.bits.get(repeat)?;
        Some(bits == other)
    });
    let equal: Vec<bool> = common.collect();
    let n = equal.len() as u64;
    let same = equal.iter().filter(|is_equal| **is_equal).count() as u64;
    let enough = n >= u64::from(claim.min_repeats);

    // A control counts as equal if any repeat is.
    let is_equal = if claim.is_control {
        same > 0
    } else {
        same == n
    };
    let p = |holds: bool| f64::from(u8::from(!(holds && enough)));
    WeighedEffect {
        shown: (n > 0).then(|| {
            let share = same as f64 / n as f64;
            (share, share, share)
        }),
        test: RegionTest {
            inside: p(is_equal),
            outside: p(!is_equal),
            interval_inside: is_equal && enough,
            interval_outside: !is_equal && enough,
        },
        n,
        needed: (!enough).then_some(u64::from(claim.min_repeats)),
        notes: vec![format!("{same} of {n} repeats equal")],
    }
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
