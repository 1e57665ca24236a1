//! Counts the trials of a cell that meet a condition, or that lie outside of a region.

use ergodic_common::quantity::{Claim, ClaimForm};

use super::cell_numbers::CellNumber;
use super::design::SampleSize;
use super::effect_numbers::EffectNumbers;
use super::weighed::{WeighedEffect, check_enough, effect_region};
use crate::estimators::binomial::clopper_pearson;
use crate::estimators::decision::{EffectEstimate, EffectLaw, EffectRegion};

/// Number of trials above which none are advised.
const MAX_ADVISED_TRIALS: u64 = 10_000_000;

/// Trials that are hits: they meet a condition or, for `extreme`, lie outside of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CountedTrials {
    hits: u64,
    /// Trials that are hits wherever between two samples their events are.
    fewest: u64,
    /// Trials that are hits for some places of their events.
    most: u64,
    trials: u64,
}

/// Weighs the share of the trials of a cell that are hits; `diverged` trials are not among its numbers.
///
/// # Errors
/// Says why nothing can be counted.
pub(super) fn weigh_shares(
    numbers: EffectNumbers<'_>,
    diverged: u64,
) -> Result<WeighedEffect, String> {
    let EffectNumbers { claim, design, .. } = numbers;
    if design.is_crossed() {
        return Err("repeats share crossed streams: their trials are no independent draws".into());
    }

    let counted = CountedTrials::count_hits(claim, numbers.cells[0], diverged);
    if counted.trials == 0 {
        return Err("no trial has this number".into());
    }
    let size = SampleSize {
        repeats: counted.trials,
        units: counted.trials,
    };
    check_enough(claim, size, design)?;

    let region = region_of_shares(claim);
    let estimate = counted.estimate(counted.find_interval(claim.alpha));
    let mut weighed = WeighedEffect::of_estimate(&estimate, region, size, design);
    weighed.needed = counted.find_deciding_trials(region, claim.alpha);
    if claim.form == ClaimForm::Extreme {
        let CountedTrials { hits, trials, .. } = counted;
        weighed
            .notes
            .push(format!("{hits} of {trials} trials outside"));
    }
    Ok(weighed)
}

/// The region in which a claim says that a share lies.
fn region_of_shares(claim: &Claim) -> EffectRegion {
    match claim.form {
        ClaimForm::Extreme => EffectRegion::Inside(f64::NEG_INFINITY, claim.chance),
        _ => effect_region(claim).without_bounds_of_shares(),
    }
}

impl CountedTrials {
    /// Counts trials. No condition holds for a number that a trial does not have, and it lies within no bounds; a trial that diverged
    /// has none, nor has one whose reference diverged.
    fn count_hits(claim: &Claim, cell: &CellNumber, diverged: u64) -> Self {
        let region = effect_region(claim);
        let is_extreme = claim.form == ClaimForm::Extreme;
        let without_number = cell.missing + cell.diverged_references + diverged;
        let mut counted = Self {
            hits: 0,
            fewest: 0,
            most: 0,
            trials: cell.n,
        };
        for (_, numbers) in &cell.trials {
            let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
            let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let [is_hit, is_surely_hit, may_be_hit] = match is_extreme {
                true => [
                    !region.contains(numbers[0]),
                    region.complement().contains_interval(low, high),
                    !region.contains_interval(low, high),
                ],
                false => [numbers[0] > 0.0, low > 0.0, high > 0.0],
            };
            counted.hits += u64::from(is_hit);
            counted.fewest += u64::from(is_surely_hit);
            counted.most += u64::from(may_be_hit);
        }
        counted.add_trials(without_number, is_extreme)
    }

    fn add_trials(self, trials: u64, are_hits: bool) -> Self {
        let hits = if are_hits { trials } else { 0 };
        Self {
            hits: self.hits + hits,
            fewest: self.fewest + hits,
            most: self.most + hits,
            trials: self.trials + trials,
        }
    }

    /// The share, with the interval between two ends.
    fn estimate(self, (low, high): (f64, f64)) -> EffectEstimate {
        let Self {
            hits,
            fewest,
            most,
            trials,
        } = self;
        EffectEstimate {
            effect: hits as f64 / trials as f64,
            low,
            high,
            rounding: 0.0,
            law: EffectLaw::Binomial {
                fewest,
                most,
                trials,
            },
            is_moved_by_noise: false,
        }
    }

    /// The ends of the interval of the level 1 − 2α.
    fn find_interval(self, alpha: f64) -> (f64, f64) {
        let (low, _) = clopper_pearson(self.fewest, self.trials, alpha);
        let (_, high) = clopper_pearson(self.most, self.trials, alpha);
        (low, high)
    }

    /// As many trials as would decide if the share of hits stays, by the exact test; `None` if there would be too many.
    fn find_deciding_trials(self, region: EffectRegion, alpha: f64) -> Option<u64> {
        let mut open = self.trials;
        let mut enough = open + 1;
        while !self.scale_to(enough).decides(region, alpha) {
            open = enough;
            enough *= 2;
            if enough > MAX_ADVISED_TRIALS {
                return None;
            }
        }
        while enough - open > 1 {
            let middle = open + (enough - open) / 2;
            match self.scale_to(middle).decides(region, alpha) {
                true => enough = middle,
                false => open = middle,
            }
        }
        Some(enough)
    }

    /// The same shares of other numbers of trials.
    fn scale_to(self, trials: u64) -> Self {
        let times = trials as f64 / self.trials as f64;
        let [hits, fewest, most] =
            [self.hits, self.fewest, self.most].map(|count| (count as f64 * times).round() as u64);
        Self {
            hits,
            fewest,
            most,
            trials,
        }
    }

    fn decides(self, region: EffectRegion, alpha: f64) -> bool {
        // The tests need no ends, which take many of them.
        let test = self.estimate((0.0, 1.0)).test(region);
        test.inside <= alpha || test.outside <= alpha
    }
}
