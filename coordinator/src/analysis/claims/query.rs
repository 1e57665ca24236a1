//! Verdicts on all claims of a sweep, or on those of a file.

use std::collections::BTreeMap;

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::quantity::{
    Claim, ClaimEffect, ClaimForm, ClaimRegion, ExpandedClaim, ExpandedClaims,
};

use super::batches::{EffectBatch, split_into_batches};
use super::cell_numbers::NumberContext;
use super::design::{RepeatDesign, RepeatDraws};
use super::jobs::ClaimJobs;
use super::judge::{EffectJudge, JudgedEffect, decide_effects};
use super::label_laws::LabelLaws;
use super::loss_notes::LossNotes;
use super::read::{CellSummary, read_cells};
use super::references::ReferenceCurves;
use crate::analysis::query::IntervalConditions;
use crate::analysis::{AnalysisError, RowSource};
use crate::estimators::precision::NOT_WIDENED_NOTE;

/// Claims, checked against a sweep.
#[derive(Debug, Clone)]
pub struct ClaimQuery {
    claims: ExpandedClaims,
    is_post_hoc: bool,
}

/// A judged effect with the claim that it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimVerdicts {
    /// The claim.
    pub claim: Claim,
    /// The cells, in words; empty if the sweep has one cell.
    pub cells: String,
    /// The cell, if the effect is that of one.
    pub cell: Option<CellIndex>,
    /// The region, in words.
    pub region: String,
    /// Whether the claim came after the launch.
    pub is_post_hoc: bool,
    /// The verdict and its reasons.
    pub judged: JudgedEffect,
}

impl ClaimQuery {
    /// Finds the cells of the claims of a sweep, or of those in `file`, which has a name and a text.
    ///
    /// # Errors
    /// There is no claim, or one names something that the sweep does not have.
    pub fn new(spec: &Spec, file: Option<(&str, &str)>) -> Result<Self, AnalysisError> {
        let claims = match file {
            Some((name, text)) => spec
                .read_claims_file(text, name)
                .map_err(|mistakes| AnalysisError::Invalid(mistakes.to_string()))?,
            None => spec
                .expand_own_claims()
                .map_err(|error| AnalysisError::Invalid(error.to_string()))?,
        };
        if claims.claims.is_empty() {
            return Err(AnalysisError::Unknown(
                "the sweep has no claims: state them in a file with [[claim]], and name it with --claims".to_owned(),
            ));
        }

        Ok(Self {
            claims,
            is_post_hoc: file.is_some(),
        })
    }

    /// Judges all claims.
    ///
    /// # Errors
    /// The store failed.
    pub fn judge(&self, rows: RowSource<'_>) -> Result<Vec<ClaimVerdicts>, AnalysisError> {
        let spec = rows.spec;
        let design = RepeatDesign::from_spec(spec);
        let conditions = IntervalConditions::from_spec(spec);
        let labels = LabelLaws::read(rows, &self.claims)?;
        let judge = EffectJudge {
            claims: &self.claims,
            design: &design,
            labels: &labels,
            fixed_streams: conditions.fixed_streams.clone(),
        };

        let mut evidence = Vec::new();
        for batch in split_into_batches(&self.claims, spec.repeats) {
            let cells = self.read_batch(rows, &batch, &design)?;
            evidence.extend(judge.weigh_batch(&batch, &cells));
        }
        let mut judged = decide_effects(evidence).into_iter();

        let losses = LossNotes::new(spec, &self.claims);
        let effects = self.effects();
        let verdicts = effects.map(|(expanded, effect)| {
            let mut judged = judged.next().expect("every effect is judged");
            judged
                .notes
                .extend(losses.describe_effect(expanded, effect));
            judged.notes.extend(expanded.redefinition.clone());
            if conditions.stops_early {
                judged.notes.push(NOT_WIDENED_NOTE.to_owned());
            }
            self.label_effect(spec, &expanded.claim, effect, judged)
        });
        Ok(verdicts.collect())
    }

    /// The verdicts on all claims of a sweep that has no trials, for this reason: nothing is shown.
    pub fn judge_without_trials(&self, spec: &Spec, why: &str) -> Vec<ClaimVerdicts> {
        let verdicts = self.effects().map(|(expanded, effect)| {
            let judged = JudgedEffect::undecided(why);
            self.label_effect(spec, &expanded.claim, effect, judged)
        });
        verdicts.collect()
    }

    /// Reads the numbers of the cells of a batch.
    fn read_batch(
        &self,
        rows: RowSource<'_>,
        batch: &EffectBatch,
        design: &RepeatDesign,
    ) -> Result<BTreeMap<CellIndex, CellSummary>, AnalysisError> {
        let jobs = ClaimJobs::new(rows.spec, &self.claims, batch);
        let draws = if jobs.needs_draws() {
            RepeatDraws::draw(rows.spec.repeats, &mut rows.resampling_stream(&[]))
        } else {
            RepeatDraws::default()
        };
        let references = ReferenceCurves::read(rows, jobs.program, &jobs.reference_cells())?;
        let context = NumberContext {
            jobs: &jobs,
            design,
            draws: &draws,
            references: &references,
        };
        Ok(read_cells(context, rows)?)
    }

    /// The effects of all claims, each with its claim.
    fn effects(&self) -> impl Iterator<Item = (&ExpandedClaim, &ClaimEffect)> {
        self.claims.claims.iter().flat_map(|expanded| {
            let effects = expanded.effects.iter();
            effects.map(move |effect| (expanded, effect))
        })
    }

    fn label_effect(
        &self,
        spec: &Spec,
        claim: &Claim,
        effect: &ClaimEffect,
        judged: JudgedEffect,
    ) -> ClaimVerdicts {
        ClaimVerdicts {
            claim: claim.clone(),
            cells: describe_cells(spec, claim, effect),
            cell: match effect.cells[..] {
                [only] => Some(only),
                _ => None,
            },
            region: describe_region(claim),
            is_post_hoc: self.is_post_hoc,
            judged,
        }
    }
}

/// The values that all cells of an effect have in common, of axes with several; where each cell of a pair is compared with each
/// other, also those in which they differ.
fn describe_cells(spec: &Spec, claim: &Claim, effect: &ClaimEffect) -> String {
    let is_pair = claim.form == ClaimForm::Labels && claim.to.is_none();
    let other = effect.reference.filter(|_| is_pair);
    let cells = effect.cells.iter().copied().chain(other);
    let values: Vec<_> = cells.map(|cell| spec.grid.axis_values(cell)).collect();
    let Some((first, others)) = values.split_first() else {
        return String::new();
    };

    let axes = spec.grid.axes().iter().enumerate();
    let named = axes
        .filter(|(_, axis)| axis.len() > 1)
        .filter_map(|(at, axis)| {
            let [first, last] = [first, others.last().unwrap_or(first)].map(|values| &values[at]);
            let is_common = others.iter().all(|values| values[at] == *first);
            match (is_common, is_pair) {
                (true, _) => Some(format!("{}={}", axis.name, axis.format_value(first))),
                (false, true) => Some(format!(
                    "{}={} and {}",
                    axis.name,
                    axis.format_value(first),
                    axis.format_value(last)
                )),
                (false, false) => None,
            }
        });
    named.collect::<Vec<_>>().join(", ")
}

fn describe_region(claim: &Claim) -> String {
    let region = match claim.region {
        Some(ClaimRegion::Within(low, high)) => format!("in [{low}, {high}]"),
        Some(ClaimRegion::Outside(low, high)) => format!("outside [{low}, {high}]"),
        Some(ClaimRegion::Above(low)) => format!("above {low}"),
        Some(ClaimRegion::Below(high)) => format!("below {high}"),
        None => "equal".to_owned(),
    };
    match claim.form {
        ClaimForm::Extreme => format!("{region} but for {} %", 100.0 * claim.chance),
        _ => region,
    }
}
