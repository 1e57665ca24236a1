//! Verdicts on all claims of a sweep, or on those of a file.

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::quantity::{
    Claim, ClaimEffect, ClaimForm, ClaimRegion, ClaimSection, ExpandedClaims,
};

use super::cell_numbers::NumberContext;
use super::design::{RepeatDesign, RepeatDraws};
use super::jobs::ClaimJobs;
use super::judge::{EffectJudge, JudgedEffect, decide_effects};
use super::read::read_cells;
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
    /// The region, in words.
    pub region: String,
    /// Whether the claim came after the launch.
    pub is_post_hoc: bool,
    /// The verdict and its reasons.
    pub judged: JudgedEffect,
}

fn invalid_claim_error(error: ergodic_common::SpecError) -> AnalysisError {
    AnalysisError::Invalid(error.to_string())
}

impl ClaimQuery {
    /// Finds the cells of the claims of a sweep, or of those in `file`, which has a name and a text.
    ///
    /// # Errors
    /// There is no claim, or one names something that the sweep does not have.
    pub fn new(spec: &Spec, file: Option<(&str, &str)>) -> Result<Self, AnalysisError> {
        let stored = spec.claims.as_ref();
        let section = match file {
            Some((name, text)) => {
                let section = ClaimSection::read_file(text, name).map_err(invalid_claim_error)?;
                stored.map_or_else(
                    |_| section.clone(),
                    |stored| section.clone().with_quantities_of(stored),
                )
            }
            None => stored
                .map_err(|error| invalid_claim_error(error.clone()))?
                .clone(),
        };
        if section.claims.is_empty() {
            return Err(AnalysisError::Unknown(
                "the sweep has no claims: state them in a file with [[claim]], and name it with --claims".to_owned(),
            ));
        }

        let claims = spec.expand_claims(&section).map_err(|error| match file {
            Some((name, _)) => invalid_claim_error(error.with_file(name)),
            None => invalid_claim_error(error),
        })?;
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
        let jobs = ClaimJobs::new(spec, &self.claims);
        let design = RepeatDesign::from_spec(spec);
        let draws = if jobs.needs_draws() {
            RepeatDraws::draw(spec.repeats, &mut rows.resampling_stream(&[]))
        } else {
            RepeatDraws::default()
        };
        let context = NumberContext {
            jobs: &jobs,
            design: &design,
            draws: &draws,
        };
        let cells = read_cells(context, rows)?;

        let conditions = IntervalConditions::from_spec(spec);
        let judge = EffectJudge {
            cells: &cells,
            design: &design,
            fixed_streams: conditions.fixed_streams.clone(),
        };
        let claims = self.claims.claims.iter().enumerate();
        let evidence = claims.flat_map(|(place, claim)| judge.weigh_claim(place, claim));
        let mut judged = decide_effects(evidence.collect()).into_iter();

        let effects = self.claims.claims.iter().flat_map(|expanded| {
            let effects = expanded.effects.iter();
            effects.map(move |effect| (&expanded.claim, effect))
        });
        let verdicts = effects.map(|(claim, effect)| {
            let mut judged = judged.next().expect("every effect is judged");
            if conditions.stops_early {
                judged.notes.push(NOT_WIDENED_NOTE.to_owned());
            }
            self.label_effect(spec, claim, effect, judged)
        });
        Ok(verdicts.collect())
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
            cells: describe_cells(spec, effect),
            region: describe_region(claim),
            is_post_hoc: self.is_post_hoc,
            judged,
        }
    }
}

/// The values that all cells of an effect have in common, of axes with several.
fn describe_cells(spec: &Spec, effect: &ClaimEffect) -> String {
    let values = |cell: CellIndex| spec.grid.axis_values(cell);
    let Some((first, others)) = effect.cells.split_first() else {
        return String::new();
    };
    let first = values(*first);
    let others: Vec<_> = others.iter().map(|cell| values(*cell)).collect();

    let axes = spec.grid.axes().iter().enumerate();
    let common = axes.filter(|(at, axis)| {
        axis.len() > 1 && others.iter().all(|values| values[*at] == first[*at])
    });
    let named: Vec<String> = common
        .map(|(at, axis)| format!("{}={}", axis.name, axis.format_value(&first[at])))
        .collect();
    named.join(", ")
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
