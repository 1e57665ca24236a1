//! Decides each effect of each claim.

use std::collections::BTreeMap;

use ergodic_common::ids::CellIndex;
use ergodic_common::quantity::{Claim, ClaimEffect, ClaimForm, ClaimRegion, ExpandedClaim};

use super::cell_numbers::CellNumber;
use super::design::RepeatDesign;
use super::effect_numbers::EffectNumbers;
use super::read::{CellSummary, TrialCounts};
use crate::estimators::binomial::clopper_pearson;
use crate::estimators::decision::{EffectEstimate, EffectLaw, EffectRegion, RegionTest};
use crate::estimators::paired::holm_correction;

/// Number of repeats below which intervals of skewed values are too short: with exponential ones, more than 2 α of wrong "agrees"
/// at the margin.
pub(super) const SMALL_REPEATS: u64 = 50;

/// The verdict on an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimVerdict {
    /// The effect lies in the region or, for a control, outside.
    Agrees,
    /// The effect lies outside the region or, for a control, inside.
    Disagrees,
    /// Neither is shown.
    NotEnough,
}

/// A judged effect.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedEffect {
    /// The verdict.
    pub verdict: ClaimVerdict,
    /// The effect.
    pub effect: Option<f64>,
    /// The ends of its interval.
    pub interval: Option<(f64, f64)>,
    /// Number of repeats, or of trials where trials are counted.
    pub n: u64,
    /// Number of repeats that would decide.
    pub needed: Option<u64>,
    /// Caveats, and the reason why nothing is decided.
    pub notes: Vec<String>,
}

/// What the trials say about an effect, before it is decided together with the others.
pub(super) struct EffectEvidence {
    judged: JudgedEffect,
    /// `None` if nothing can be decided.
    test: Option<RegionTest>,
    alpha: f64,
}

/// Decides all effects together: that one lies outside is corrected for their number (Holm), since one is enough to contradict;
/// that all lie inside needs no correction.
pub(super) fn decide_effects(evidence: Vec<EffectEvidence>) -> Vec<JudgedEffect> {
    let outside: Vec<Option<f64>> = evidence
        .iter()
        .map(|found| found.test.map(|test| test.outside))
        .collect();
    let corrected = holm_correction(&outside);
    let all = evidence.into_iter().zip(corrected);
    all.map(|(found, outside)| found.decide(outside)).collect()
}

impl EffectEvidence {
    fn decide(self, outside: Option<f64>) -> JudgedEffect {
        let verdict = match self.test {
            Some(test) if test.interval_inside && test.inside <= self.alpha => ClaimVerdict::Agrees,
            Some(test) if test.interval_outside && outside.is_some_and(|p| p <= self.alpha) => {
                ClaimVerdict::Disagrees
            }
            _ => ClaimVerdict::NotEnough,
        };

        let is_open = verdict == ClaimVerdict::NotEnough;
        JudgedEffect {
            verdict,
            needed: self.judged.needed.filter(|_| is_open),
            ..self.judged
        }
    }
}

/// Judges effects by the numbers of their cells.
pub(super) struct EffectJudge<'a> {
    pub(super) cells: &'a BTreeMap<CellIndex, CellSummary>,
    pub(super) design: &'a RepeatDesign,
    /// Names of the streams that all trials share; empty if there are none.
    pub(super) fixed_streams: String,
}

impl EffectJudge<'_> {
    /// The evidence on the effects of the claim at `place` in its file.
    pub(super) fn weigh_claim(
        &self,
        place: usize,
        expanded: &ExpandedClaim,
    ) -> Vec<EffectEvidence> {
        let effects = expanded.effects.iter();
        effects
            .map(|effect| self.weigh_effect(place, &expanded.claim, effect))
            .collect()
    }

    fn weigh_effect(&self, place: usize, claim: &Claim, effect: &ClaimEffect) -> EffectEvidence {
        let none = CellNumber::default();
        let cells: Vec<&CellNumber> = effect
            .all_cells()
            .map(|cell| {
                self.cells
                    .get(&cell)
                    .and_then(|found| found.numbers.get(&place))
            })
            .map(|number| number.unwrap_or(&none))
            .collect();
        let numbers = EffectNumbers {
            claim,
            effect,
            cells: &cells,
            design: self.design,
        };

        let counts: Vec<TrialCounts> = effect
            .all_cells()
            .map(|cell| {
                self.cells
                    .get(&cell)
                    .map(|found| found.counts)
                    .unwrap_or_default()
            })
            .collect();
        let found = if effect.has_too_few_steps {
            let needs = claim.needs.as_deref().unwrap_or_default();
            Err(format!("not enough steps: it needs {needs}"))
        } else if claim.form.counts_trials() {
            self.weigh_shares(numbers, counts[0])
        } else if let Some(reason) = describe_no_trials(&counts) {
            Err(reason)
        } else if numbers.repeats() < u64::from(claim.min_repeats) {
            Err(format!(
                "a verdict needs {} repeats at least",
                claim.min_repeats
            ))
        } else if claim.form == ClaimForm::Bits
            && !claim.is_control
            && counts.iter().any(|counts| counts.diverged > 0)
        {
            Err("trials diverged, so that not every repeat can be compared".to_owned())
        } else {
            match claim.form {
                ClaimForm::Bits => Ok(weigh_bits(claim, &cells)),
                ClaimForm::Spread | ClaimForm::Collapse => weigh_spread(numbers),
                _ => weigh_number(numbers),
            }
        };

        self.assemble(numbers, found, &counts)
    }

    /// Adds caveats, and turns a control around.
    fn assemble(
        &self,
        numbers: EffectNumbers<'_>,
        found: Result<WeighedEffect, String>,
        counts: &[TrialCounts],
    ) -> EffectEvidence {
        let claim = numbers.claim;
        let few = u64::from(claim.min_repeats);
        let mut notes = Vec::new();
        let (weighed, n) = match found {
            Ok(weighed) => {
                let n = weighed.n;
                notes.extend(weighed.notes.clone());
                (Some(weighed), n)
            }
            Err(reason) => {
                notes.push(reason);
                (None, numbers.repeats())
            }
        };
        notes.extend(describe_losses(numbers.cells, counts));
        if weighed.is_some() && !self.fixed_streams.is_empty() {
            notes.push(format!("given the fixed {}", self.fixed_streams));
        }

        let turn = |test: RegionTest| {
            if claim.is_control {
                turn_test(test)
            } else {
                test
            }
        };
        let shown = weighed.as_ref().and_then(|weighed| weighed.shown);
        EffectEvidence {
            test: weighed.as_ref().map(|weighed| turn(weighed.test)),
            alpha: claim.alpha,
            judged: JudgedEffect {
                verdict: ClaimVerdict::NotEnough,
                effect: shown.map(|(effect, _, _)| effect),
                interval: shown.map(|(_, low, high)| (low, high)),
                n,
                needed: match &weighed {
                    Some(weighed) => weighed.needed,
                    None => (n < few).then_some(few),
                },
                notes,
            },
        }
    }

    /// Counts trials that meet a condition, or that lie outside of a region.
    fn weigh_shares(
        &self,
        numbers: EffectNumbers<'_>,
        counts: TrialCounts,
    ) -> Result<WeighedEffect, String> {
        let claim = numbers.claim;
        if self.design.is_crossed() {
            return Err(
                "repeats share crossed streams: their trials are no independent draws".into(),
            );
        }
        if let Some(reason) = describe_no_trials(&[counts]).filter(|_| counts.diverged == 0) {
            return Err(reason);
        }

        let region = effect_region(claim);
        let is_extreme = claim.form == ClaimForm::Extreme;
        let (hits, trials) = count_hits(claim.form, region, numbers.cells[0], counts.diverged);
        if trials == 0 {
            return Err("no trial has this number".into());
        }

        let (low, high) = clopper_pearson(hits, trials, claim.alpha);
        let estimate = EffectEstimate {
            effect: hits as f64 / trials as f64,
            low,
            high,
            law: EffectLaw::Binomial { hits, trials },
        };
        let tested = if is_extreme {
            EffectRegion::Inside(f64::NEG_INFINITY, claim.chance)
        } else {
            region.without_bounds_of_shares()
        };
        let mut weighed = WeighedEffect::of_estimate(&estimate, tested, trials);
        if is_extreme {
            weighed
                .notes
                .push(format!("{hits} of {trials} trials outside"));
            if hits == 0 {
                weighed.needed = Some(count_trials_without_hit(claim));
            }
        }
        Ok(weighed)
    }
}

/// Counts the trials of a cell that meet a condition or, for `extreme`, lie outside of a region, and all of its trials. No condition
/// holds for a number that a trial does not have, and it lies within no bounds.
fn count_hits(
    form: ClaimForm,
    region: EffectRegion,
    cell: &CellNumber,
    diverged: u64,
) -> (u64, u64) {
    let without_number = cell.missing + diverged;
    let values = cell.trials.iter().map(|(_, x)| *x);
    let hits = match form {
        ClaimForm::Extreme => {
            values.filter(|x| !region.contains(*x)).count() as u64 + without_number
        }
        _ => values.filter(|x| *x != 0.0).count() as u64,
    };
    (hits, cell.n + without_number)
}

/// The number of trials of which none may lie outside to show the chance of a claim.
fn count_trials_without_hit(claim: &Claim) -> u64 {
    (claim.alpha.ln() / (1.0 - claim.chance).ln()).ceil() as u64
}

/// An effect with its test.
struct WeighedEffect {
    /// Effect, and the ends of its interval, as they are shown.
    shown: Option<(f64, f64, f64)>,
    test: RegionTest,
    n: u64,
    needed: Option<u64>,
    notes: Vec<String>,
}

impl WeighedEffect {
    fn of_estimate(estimate: &EffectEstimate, region: EffectRegion, n: u64) -> Self {
        Self {
            shown: Some((estimate.effect, estimate.low, estimate.high)),
            test: estimate.test(region),
            n,
            needed: estimate.required_repeats(region, n),
            notes: Vec::new(),
        }
    }

    fn mark_small(mut self) -> Self {
        if self.n < SMALL_REPEATS {
            self.notes.push("small n".to_owned());
        }
        self
    }
}

fn weigh_number(numbers: EffectNumbers<'_>) -> Result<WeighedEffect, String> {
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
fn weigh_spread(numbers: EffectNumbers<'_>) -> Result<WeighedEffect, String> {
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
fn weigh_bits(claim: &Claim, cells: &[&CellNumber]) -> WeighedEffect {
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
fn turn_test(test: RegionTest) -> RegionTest {
    RegionTest {
        inside: test.outside,
        outside: test.inside,
        interval_inside: test.interval_outside,
        interval_outside: test.interval_inside,
    }
}

fn effect_region(claim: &Claim) -> EffectRegion {
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

fn describe_no_trials(counts: &[TrialCounts]) -> Option<String> {
    let without = counts.iter().find(|counts| counts.completed == 0)?;
    let ends = [(without.diverged, "diverged"), (without.failed, "failed")];
    let ends: Vec<String> = ends
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, how)| format!("{count} {how}"))
        .collect();
    Some(match ends.is_empty() {
        true => "no trial of a cell has ended yet".to_owned(),
        false => format!("no trial of a cell completed: {}", ends.join(", ")),
    })
}

/// The trials that say nothing about the effect.
fn describe_losses(cells: &[&CellNumber], counts: &[TrialCounts]) -> Vec<String> {
    let missing: u64 = cells.iter().map(|cell| cell.missing).sum();
    let [diverged, failed] = [
        counts.iter().map(|counts| counts.diverged).sum::<u64>(),
        counts.iter().map(|counts| counts.failed).sum::<u64>(),
    ];
    let has_trials = counts.iter().all(|counts| counts.completed > 0);
    let losses = [
        (missing, "without the number"),
        (if has_trials { diverged } else { 0 }, "diverged"),
        (if has_trials { failed } else { 0 }, "failed"),
    ];
    losses
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, how)| format!("{count} {how}"))
        .collect()
}
