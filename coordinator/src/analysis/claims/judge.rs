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
use super::shares::weigh_shares;
use super::weighed::{
    WeighedEffect, check_enough, effect_region, turn_test, weigh_bits, weigh_number, weigh_spread,
};
use crate::estimators::decision::RegionTest;
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

/// How the trials of an effect ended.
struct EffectCounts {
    /// Counts of the cells whose numbers make the effect.
    cells: Vec<TrialCounts>,
    /// Counts of the cell that each trial is set against.
    reference: Option<TrialCounts>,
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
        let reference = effect.reference.filter(|_| expanded.pairs_trials);
        let counts = EffectCounts {
            cells: numbers.iter().map(|(_, x)| x.unwrap_or_default()).collect(),
            reference: reference.map(|cell| {
                let summary = found.get(&cell);
                summary.map(|summary| summary.counts).unwrap_or_default()
            }),
        };

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
        counts: &EffectCounts,
    ) -> Result<WeighedEffect, String> {
        let EffectNumbers { claim, effect, .. } = numbers;
        if effect.has_too_few_steps {
            let needs = claim.needs.as_deref().unwrap_or_default();
            return Err(format!("not enough steps: it needs {needs}"));
        }
        if let Some(reason) = describe_no_trials(counts) {
            return Err(reason);
        }
        if claim.form.counts_trials() {
            return weigh_shares(numbers, counts.cells[0].diverged);
        }
        if numbers.cells.iter().any(|cell| cell.steps_differ) {
            return Err(
                "trials reported at different steps, so that they have no mean curve: use per = \"trial\"".into(),
            );
        }
        if claim.form == ClaimForm::Labels {
            return self.weigh_labels(claim, effect);
        }

        if claim.form == ClaimForm::Bits {
            let all = can_compare_all(claim, numbers.cells, &counts.cells);
            return weigh_bits(claim, numbers, all);
        }

        let weigh = match claim.form {
            ClaimForm::Spread | ClaimForm::Collapse => weigh_spread,
            _ => weigh_number,
        };
        let size = numbers.sample_size();
        match check_enough(claim, size, self.design) {
            // Few levels of a stream have an interval, in which their few degrees of freedom are seen.
            Err(why) if self.design.is_crossed() && size.units > 1 => {
                let few = u64::from(claim.min_repeats);
                Ok(WeighedEffect {
                    needed: self.design.repeats_with_units(few, size.units),
                    ..weigh(numbers)?.leave_open(why)
                })
            }
            enough => enough.and_then(|()| weigh(numbers)),
        }
    }

    /// Compares the laws of the labels that two cells predict.
    fn weigh_labels(&self, claim: &Claim, effect: &ClaimEffect) -> Result<WeighedEffect, String> {
        let found = self.labels.compare(claim, effect, self.design)?;
        check_enough(claim, found.size, self.design)?;
        let region = effect_region(claim);
        let mut weighed =
            WeighedEffect::of_estimate(&found.estimate, region, found.size, self.design)
                .mark_small(found.size);
        weighed.notes.extend(found.notes);
        Ok(weighed)
    }

    /// Adds caveats, and turns a control around.
    fn assemble(
        &self,
        numbers: EffectNumbers<'_>,
        found: Result<WeighedEffect, String>,
        counts: &EffectCounts,
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
                (None, count_repeats(numbers, &counts.cells))
            }
        };
        notes.extend(describe_losses(numbers.cells, &counts.cells));
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
                    None => advise_repeats(claim, n, &counts.cells),
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

/// Why nothing can be decided: of a cell, or of the reference, not one trial completed. That trials diverge shows how many do, but
/// nothing about a number that none of them has.
fn describe_no_trials(counts: &EffectCounts) -> Option<String> {
    let cells = counts.cells.iter().map(|counts| ("a cell", counts));
    let reference = counts.reference.iter();
    let mut all = cells.chain(reference.map(|counts| ("the reference", counts)));
    let (what, without) = all.find(|(_, counts)| counts.completed == 0)?;
    let ends = [(without.diverged, "diverged"), (without.failed, "failed")];
    let ends = describe_counts(ends);
    Some(match ends.is_empty() {
        true => format!("no trial of {what} has ended yet"),
        false => format!("no trial of {what} completed: {}", ends.join(", ")),
    })
}

/// Whether the bits of each repeat that has ended can be compared. A trial that diverged differs from one that did not, as a control
/// says.
fn can_compare_all(claim: &Claim, cells: &[&CellNumber], counts: &[TrialCounts]) -> bool {
    let mut lost = counts.iter().map(|counts| match claim.is_control {
        true => counts.failed,
        false => counts.failed + counts.diverged,
    });
    lost.all(|lost| lost == 0) && cells.iter().all(|cell| cell.missing == 0)
}

/// Describes counts that are not 0, with what they count.
fn describe_counts<const N: usize>(counts: [(u64, &str); N]) -> Vec<String> {
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    counts
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
}

/// The trials that say nothing about the effect.
fn describe_losses(cells: &[&CellNumber], counts: &[TrialCounts]) -> Vec<String> {
    // What all trials of a cell did is the reason why nothing is decided.
    let ended = match counts.iter().all(|counts| counts.completed > 0) {
        true => counts,
        false => &[],
    };
    describe_counts([
        (
            cells.iter().map(|cell| cell.missing).sum(),
            "without the number",
        ),
        (ended.iter().map(|counts| counts.diverged).sum(), "diverged"),
        (ended.iter().map(|counts| counts.failed).sum(), "failed"),
        (
            cells.iter().map(|cell| cell.diverged_references).sum(),
            "whose reference diverged",
        ),
        (
            cells.iter().map(|cell| cell.absent_references).sum(),
            "without a reference",
        ),
    ])
}
