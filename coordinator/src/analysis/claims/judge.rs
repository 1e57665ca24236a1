//! Decides each effect of each claim.

use std::collections::BTreeMap;

use ergodic_common::ids::CellIndex;
use ergodic_common::quantity::{Claim, ClaimEffect, ClaimForm, ExpandedClaims};

use super::batches::EffectBatch;
use super::cell_numbers::CellNumber;
use super::design::RepeatDesign;
use super::effect_numbers::EffectNumbers;
use super::label_laws::LabelLaws;
use super::read::{CellSummary, TrialCounts};
use super::weighed::{
    WeighedEffect, effect_region, turn_test, weigh_bits, weigh_number, weigh_spread,
};
use crate::estimators::binomial::clopper_pearson;
use crate::estimators::decision::{EffectEstimate, EffectLaw, EffectRegion, RegionTest};
use crate::estimators::paired::holm_correction;

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
    /// The values of the cells that the effect joins; none for an effect of one cell.
    pub points: Vec<CellPoint>,
}

impl JudgedEffect {
    /// Nothing is shown, for this reason.
    pub(super) fn undecided(why: &str) -> Self {
        Self {
            verdict: ClaimVerdict::NotEnough,
            effect: None,
            interval: None,
            n: 0,
            needed: None,
            notes: vec![why.to_owned()],
            points: Vec::new(),
        }
    }
}

/// The value of a cell, with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CellPoint {
    /// The cell.
    pub cell: CellIndex,
    /// The value.
    pub value: f64,
    /// The ends of its interval, of the level of the claim.
    pub interval: (f64, f64),
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
    /// No evidence, because the sweep lacks the cells of the claim.
    fn without_cells(claim: &Claim, lack: &str) -> Self {
        Self {
            test: None,
            alpha: claim.alpha,
            judged: JudgedEffect::undecided(lack),
        }
    }

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
    pub(super) claims: &'a ExpandedClaims,
    pub(super) design: &'a RepeatDesign,
    /// The predictions that are compared.
    pub(super) labels: &'a LabelLaws<'a>,
    /// Names of the streams that all trials share; empty if there are none.
    pub(super) fixed_streams: String,
}

impl EffectJudge<'_> {
    /// The evidence on the effects of a batch, given its cells.
    pub(super) fn weigh_batch(
        &self,
        batch: &EffectBatch,
        cells: &BTreeMap<CellIndex, CellSummary>,
    ) -> Vec<EffectEvidence> {
        let mut evidence = Vec::new();
        for (place, range) in &batch.parts {
            let effects = self.claims.claims[*place].effects[range.clone()].iter();
            evidence.extend(effects.map(|effect| self.weigh_effect(*place, effect, cells)));
        }
        evidence
    }

    fn weigh_effect(
        &self,
        place: usize,
        effect: &ClaimEffect,
        found: &BTreeMap<CellIndex, CellSummary>,
    ) -> EffectEvidence {
        let expanded = &self.claims.claims[place];
        if let Some(lack) = &expanded.lack {
            return EffectEvidence::without_cells(&expanded.claim, lack);
        }
        let none = CellNumber::default();
        let numbers = expanded.number_cells(effect).map(|cell| {
            let summary = found.get(&cell);
            let number = summary.and_then(|summary| summary.numbers.get(&place));
            (number, summary.map(|summary| summary.counts))
        });
        let numbers: Vec<_> = numbers.collect();
        let cells: Vec<&CellNumber> = numbers.iter().map(|(x, _)| x.unwrap_or(&none)).collect();
        let counts: Vec<TrialCounts> = numbers.iter().map(|(_, x)| x.unwrap_or_default()).collect();

        let numbers = EffectNumbers {
            claim: &expanded.claim,
            effect,
            cells: &cells,
            design: self.design,
        };
        let weighed = self.weigh_numbers(numbers, &counts);
        self.assemble(numbers, weighed, &counts)
    }

    fn weigh_numbers(
        &self,
        numbers: EffectNumbers<'_>,
        counts: &[TrialCounts],
    ) -> Result<WeighedEffect, String> {
        let EffectNumbers { claim, effect, .. } = numbers;
        if effect.has_too_few_steps {
            let needs = claim.needs.as_deref().unwrap_or_default();
            return Err(format!("not enough steps: it needs {needs}"));
        }
        if claim.form.counts_trials() {
            return self.weigh_shares(numbers, counts[0]);
        }
        if let Some(reason) = describe_no_trials(counts) {
            return Err(reason);
        }
        if numbers.cells.iter().any(|cell| cell.steps_differ) {
            return Err(
                "trials reported at different steps, so that they have no mean curve: use per = \"trial\"".into(),
            );
        }

        if claim.form == ClaimForm::Labels {
            return self.weigh_labels(claim, effect);
        }
        check_enough(claim, numbers.repeats())?;
        let has_diverged = counts.iter().any(|counts| counts.diverged > 0);
        match claim.form {
            ClaimForm::Bits if has_diverged && !claim.is_control => {
                Err("trials diverged, so that not every repeat can be compared".to_owned())
            }
            ClaimForm::Bits => Ok(weigh_bits(claim, numbers.cells)),
            ClaimForm::Spread | ClaimForm::Collapse => weigh_spread(numbers),
            _ => weigh_number(numbers),
        }
    }

    /// Compares the laws of the labels that two cells predict.
    fn weigh_labels(&self, claim: &Claim, effect: &ClaimEffect) -> Result<WeighedEffect, String> {
        let found = self.labels.compare(claim, effect, self.design)?;
        check_enough(claim, found.repeats)?;
        let region = effect_region(claim);
        let mut weighed =
            WeighedEffect::of_estimate(&found.estimate, region, found.repeats).mark_small();
        weighed.notes.extend(found.notes);
        Ok(weighed)
    }

    /// Adds caveats, and turns a control around.
    fn assemble(
        &self,
        numbers: EffectNumbers<'_>,
        found: Result<WeighedEffect, String>,
        counts: &[TrialCounts],
    ) -> EffectEvidence {
        let claim = numbers.claim;
        let mut notes = Vec::new();
        let (weighed, n) = match found {
            Ok(weighed) => {
                let n = weighed.n;
                notes.extend(weighed.notes.clone());
                (Some(weighed), n)
            }
            Err(reason) => {
                notes.push(reason);
                (None, count_repeats(numbers, counts))
            }
        };
        notes.extend(describe_losses(numbers.cells, counts));
        if weighed.is_some() {
            notes.extend(self.describe_streams());
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
                    None => advise_repeats(claim, n, counts),
                },
                notes,
                points: estimate_points(numbers),
            },
        }
    }

    /// The caveats of streams that repeats share.
    fn describe_streams(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.fixed_streams.is_empty() {
            notes.push(format!("given the fixed {}", self.fixed_streams));
        }
        if self.design.has_few_levels() {
            notes.push("a crossed stream has two levels, too few to show much".to_owned());
        }
        notes
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
        check_enough(claim, trials)?;

        let (low, high) = clopper_pearson(hits, trials, claim.alpha);
        let estimate = EffectEstimate {
            effect: hits as f64 / trials as f64,
            low,
            high,
            rounding: 0.0,
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

/// The values of the cells that a claim joins, as far as they have intervals.
fn estimate_points(numbers: EffectNumbers<'_>) -> Vec<CellPoint> {
    if !numbers.claim.form.joins_cells() {
        return Vec::new();
    }
    let cells = numbers.effect.cells.iter().zip(numbers.estimate_cells());
    let points = cells.filter_map(|(cell, estimate)| {
        let estimate = estimate.ok()?;
        Some(CellPoint {
            cell: *cell,
            value: estimate.effect,
            interval: (estimate.low, estimate.high),
        })
    });
    points.collect()
}

/// The number of repeats of an effect that has no estimate.
fn count_repeats(numbers: EffectNumbers<'_>, counts: &[TrialCounts]) -> u64 {
    match numbers.claim.form {
        ClaimForm::Labels => counts.iter().map(|counts| counts.completed).min(),
        _ => Some(numbers.repeats()),
    }
    .unwrap_or(0)
}

/// The number of repeats that would be enough for an effect with `n` repeats and no estimate; `None` if as many have ended in vain.
/// As large a share of further repeats may be lost.
fn advise_repeats(claim: &Claim, n: u64, counts: &[TrialCounts]) -> Option<u64> {
    let few = u64::from(claim.min_repeats);
    let ended = counts
        .iter()
        .map(|counts| counts.completed + counts.diverged + counts.failed);
    let ended = ended.min().unwrap_or(0);
    let loses_trials = n < ended && !claim.form.counts_trials();
    match loses_trials {
        false => (n.max(ended) < few).then_some(few),
        true if n == 0 => (ended < few).then_some(few),
        true => (n < few).then(|| (few * ended).div_ceil(n)),
    }
}

/// Refuses a verdict on fewer repeats than the claim demands.
fn check_enough(claim: &Claim, repeats: u64) -> Result<(), String> {
    if repeats < u64::from(claim.min_repeats) {
        return Err(format!(
            "a verdict needs {} repeats at least",
            claim.min_repeats
        ));
    }
    Ok(())
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
