//! The predictions of cells whose laws claims compare.

use std::collections::BTreeMap;

use ergodic_common::Spec;
use ergodic_common::TrialKey;
use ergodic_common::ids::CellIndex;
use ergodic_common::quantity::{Claim, ClaimEffect, ClaimForm, ExpandedClaim, ExpandedClaims};
use ergodic_common::spec::Moment;
use ergodic_common::trial::Predictions;

use super::design::{RepeatDesign, SampleSize};
use super::reported_labels::{ReportedLabels, place_of_moment};
use crate::analysis::distance::labels::{PredictedLabels, find_common_repeats};
use crate::analysis::{AnalysisError, RowSource};
use crate::estimators::decision::{EffectEstimate, EffectLaw, Quotient};
use crate::estimators::jackknife::{FEW_LEVELS, jackknife_uncertainty};
use crate::estimators::label_energy::{
    CrossedDistance, EnergyDistance, MIN_REPEATS, crossed_covariance, upper_end_of_distance,
};
use crate::estimators::rounding::clear_rounding;
use crate::estimators::special::student_t_quantile;

/// Maximum bytes of predictions in memory.
const MAX_LABEL_BYTES: u64 = 256 << 20;
/// What rounding alone can make of a distance, which is at most 2.
const DISTANCE_ROUNDING: f64 = 8.0 * f64::EPSILON;
/// Maximum number of pairs of labels that joint distances compare, about a minute.
const MAX_LABEL_PAIRS: u64 = 100_000_000_000;

/// Largest share of repeats with other labels that a distance without spread may leave unseen.
const MAX_SHARE_UNSEEN: f64 = 0.05;

/// The predictions of the cells of all claims about labels, by cell and step.
pub(super) struct LabelLaws<'a> {
    spec: &'a Spec,
    points: usize,
    labels: BTreeMap<(CellIndex, u64), PredictedLabels>,
    /// What the trials of a program reported, if they are one.
    reported: Option<ReportedLabels>,
}

/// What the predictions of two cells say about a claim.
pub(super) struct ComparedLabels {
    pub(super) estimate: EffectEstimate,
    /// The repeats of which both cells have all predictions.
    pub(super) size: SampleSize,
    /// Caveats, such as trials without predictions.
    pub(super) notes: Vec<String>,
}

impl<'a> LabelLaws<'a> {
    /// Prepares places for the predictions of all claims about labels.
    ///
    /// # Errors
    /// There are too many predictions to hold or compare.
    pub(super) fn new(spec: &'a Spec, claims: &ExpandedClaims) -> Result<Self, AnalysisError> {
        let points = spec.measure.probe.as_ref().map_or(0, |probe| probe.points);
        let mut laws = Self {
            spec,
            points: points as usize,
            labels: BTreeMap::new(),
            reported: spec.program().is_some().then(ReportedLabels::default),
        };
        for expanded in claims_about_labels(claims) {
            laws.add_claim(expanded);
            laws.check_size(&expanded.claim, expanded.effects.len() as u64)?;
        }
        Ok(laws)
    }

    /// Reads the predictions of all claims about labels.
    ///
    /// # Errors
    /// The store failed, or there are too many predictions to hold or compare.
    pub(super) fn read(
        rows: RowSource<'a>,
        claims: &ExpandedClaims,
    ) -> Result<Self, AnalysisError> {
        let mut laws = Self::new(rows.spec, claims)?;
        if laws.labels.is_empty() {
            return Ok(laws);
        }
        if let Some(reported) = &mut laws.reported {
            reported.read_ends(rows)?;
        }
        rows.readers.with_reader(|reader| {
            reader.read_predictions(rows.sweep, &mut |key, predictions| {
                laws.add_trial(key, &predictions);
                laws.count_bytes() <= MAX_LABEL_BYTES
            })
        })?;

        laws.learn_points();
        for expanded in claims_about_labels(claims) {
            laws.check_size(&expanded.claim, expanded.effects.len() as u64)?;
        }
        Ok(laws)
    }

    /// Bytes of the predictions of a program; those of other trials are known before.
    fn count_bytes(&self) -> u64 {
        self.reported.as_ref().map_or(0, |reported| reported.bytes)
    }

    /// Takes over the largest number of points that the trials of a program reported.
    fn learn_points(&mut self) {
        if self.reported.is_some() {
            let points = self.labels.values().map(PredictedLabels::point_count);
            self.points = points.max().unwrap_or(0);
        }
    }

    /// Adds the predictions of a trial, which comes after those of the same cell with lower repeats.
    pub(super) fn add_trial(&mut self, key: TrialKey, predictions: &Predictions) {
        if let Some(reported) = &mut self.reported {
            reported.add_trial(&mut self.labels, key, predictions);
            return;
        }
        let moments = predictions.steps.iter();
        for (step, classes) in moments.zip(predictions.classes.chunks_exact(self.points.max(1))) {
            if let Some(labels) = self.labels.get_mut(&(key.cell, *step)) {
                labels.push(key.repeat.0, classes);
            }
        }
    }

    fn add_claim(&mut self, expanded: &ExpandedClaim) {
        for cell in expanded.effects.iter().flat_map(ClaimEffect::all_cells) {
            for moment in moments_of(&expanded.claim) {
                let place = (cell, self.step_of(cell, moment));
                let labels = PredictedLabels::new(self.points);
                self.labels.entry(place).or_insert(labels);
            }
        }
    }

    fn check_size(&self, claim: &Claim, effects: u64) -> Result<(), AnalysisError> {
        let points = self.points as u64;
        let repeats = u64::from(self.spec.repeats);
        let bytes = match &self.reported {
            Some(reported) => reported.bytes,
            None => self.labels.len() as u64 * repeats * points,
        };
        if bytes > MAX_LABEL_BYTES {
            let message = format!(
                "claim '{}': {bytes} predictions are too many to hold in memory; at most {MAX_LABEL_BYTES} are possible: select fewer \
                 cells with where, or make several files of claims",
                claim.name
            );
            return Err(AnalysisError::Invalid(message));
        }

        let moments = moments_of(claim).count() as u64;
        let pairs = 2 * repeats * repeats * points * moments * effects;
        let is_crossed = !self.spec.seeds.crossed.is_empty();
        if (claim.is_joint || is_crossed) && pairs > MAX_LABEL_PAIRS {
            let message = format!(
                "claim '{}': its distances compare {pairs} pairs of labels; at most {MAX_LABEL_PAIRS} are possible: select fewer cells \
                 with where{}",
                claim.name,
                if is_crossed {
                    ""
                } else {
                    ", or leave joint out"
                }
            );
            return Err(AnalysisError::Invalid(message));
        }
        Ok(())
    }

    /// The step of a moment in a cell's trials.
    fn step_of(&self, cell: CellIndex, moment: Moment) -> u64 {
        if self.reported.is_some() {
            return place_of_moment(moment);
        }
        let config = self.spec.grid.resolve_config(cell).ok();
        config.map_or(0, |config| moment.step_in_trial(&config))
    }

    /// Estimates the distance of two cells, or its ratio to that at another moment.
    ///
    /// # Errors
    /// Says why there is no estimate.
    pub(super) fn compare(
        &self,
        claim: &Claim,
        effect: &ClaimEffect,
        design: &RepeatDesign,
    ) -> Result<ComparedLabels, String> {
        let none = PredictedLabels::new(self.points);
        let places = moments_of(claim).flat_map(|moment| {
            let cells = effect.all_cells();
            cells.map(move |cell| (cell, self.step_of(cell, moment)))
        });
        let places: Vec<(CellIndex, u64)> = places.collect();
        let cells: Vec<&PredictedLabels> = places
            .iter()
            .map(|place| self.labels.get(place).unwrap_or(&none))
            .collect();
        let notes = match &self.reported {
            Some(reported) => reported.describe_places(self.spec, &places, &cells)?,
            None => Vec::new(),
        };

        let shared = find_common_repeats(&cells);
        let distances = cells.chunks_exact(2).enumerate().map(|(at, pair)| {
            let [a, b] = [0, 1].map(|side| pair[side].rows_of_repeats(&shared));
            let distance = measure_distance(claim, design, &shared, [&a, &b])
                .map_err(|why| join_reasons(why, &notes))?;
            // What is not above 0 is refused as a reference, whatever its spread.
            if at == 0 || distance.full > 0.0 {
                let units = design.sample_size(&shared).units;
                check_spread(&distance, [&a, &b], (units, claim.alpha))?;
            }
            Ok(distance)
        });
        let distances: Vec<CrossedDistance> = distances.collect::<Result<_, String>>()?;

        Ok(ComparedLabels {
            size: design.sample_size(&shared),
            estimate: estimate_from_distances(claim, &distances)?,
            notes,
        })
    }
}

fn claims_about_labels(claims: &ExpandedClaims) -> impl Iterator<Item = &ExpandedClaim> {
    let all = claims.claims.iter();
    all.filter(|known| known.claim.form == ClaimForm::Labels)
}

/// Why there is no distance, with what is missing.
fn join_reasons(why: String, notes: &[String]) -> String {
    std::iter::once(why)
        .chain(notes.iter().cloned())
        .collect::<Vec<_>>()
        .join("; ")
}

/// The moment of a claim, and the one that it is relative to.
fn moments_of(claim: &Claim) -> impl Iterator<Item = Moment> + use<> {
    std::iter::once(claim.at).chain(claim.relative_to)
}

/// The distance of two cells by the labels of the repeats that both have.
///
/// # Errors
/// There are too few repeats, or too few levels of a crossed stream.
fn measure_distance(
    claim: &Claim,
    design: &RepeatDesign,
    shared: &[u32],
    [a, b]: [&[&[u8]]; 2],
) -> Result<CrossedDistance, String> {
    if design.is_crossed() {
        let levels = design.levels_of_repeats(shared);
        let distance = CrossedDistance::of_levels(a, b, &levels, claim.is_joint);
        return distance.ok_or_else(|| {
            format!(
                "repeats share crossed streams: a distance needs predictions of {FEW_LEVELS} levels of each that both cells have"
            )
        });
    }

    let distance = match claim.is_joint {
        true => EnergyDistance::of_all_points(a, b),
        false => EnergyDistance::by_point(a, b),
    };
    distance.map(CrossedDistance::from).ok_or_else(|| {
        format!("a distance needs predictions of {MIN_REPEATS} repeats that both cells have")
    })
}

/// The squared standard error of a distance. One that rounding alone can make is 0.
fn variance_of_distance(distance: &CrossedDistance) -> f64 {
    let variance = crossed_covariance(distance, distance);
    clear_rounding(variance, DISTANCE_ROUNDING * DISTANCE_ROUNDING)
}

/// The degrees of freedom of a distance: those of its repeats, or of the levels of crossed streams.
fn degrees_of_distance(distance: &CrossedDistance) -> f64 {
    match &distance.without[..] {
        [without] => without.len() as f64 - 1.0,
        streams => jackknife_uncertainty(streams).map_or(1.0, |spread| spread.degrees),
    }
}

/// Refuses a distance without spread whose labels nevertheless differ over repeats: with few of them, or with few points, no pair may
/// happen to show it. Labels that are the same in all repeats are few words, which may happen to be equal: they are known to differ in
/// few others if the number of independent repeats shows it at α. Cells that are equal repeat by repeat have no distance at all.
fn check_spread(
    distance: &CrossedDistance,
    [a, b]: [&[&[u8]]; 2],
    (units, alpha): (u64, f64),
) -> Result<(), String> {
    if variance_of_distance(distance) > 0.0 || a == b {
        return Ok(());
    }
    let is_constant = [a, b]
        .iter()
        .all(|cell| cell.iter().all(|labels| *labels == cell[0]));
    if !is_constant {
        return Err("labels differ, but the distance is the same without any repeat, which shows nothing of its spread: use more \
                    repeats, or more probe points"
            .to_owned());
    }
    let needed = (libm::log(alpha) / libm::log1p(-MAX_SHARE_UNSEEN)).ceil() as u64;
    if units < needed {
        return Err(format!(
            "all repeats of a cell have the same labels, which shows little of their spread: {needed} repeats would show that at most \
             {} % of others differ",
            100.0 * MAX_SHARE_UNSEEN
        ));
    }
    Ok(())
}

/// The chance that an end of a distance's interval misses the distance. Joint distances are roots of shares, whose estimates are more
/// skewed: with Student's ends at α, up to 10 % of them agree wrongly at 6 repeats and 8 % at 100, in place of 5 %.
fn alpha_of_end(claim: &Claim) -> f64 {
    match claim.is_joint {
        true => 0.5 * claim.alpha,
        false => claim.alpha,
    }
}

fn estimate_from_distances(
    claim: &Claim,
    distances: &[CrossedDistance],
) -> Result<EffectEstimate, String> {
    let [distance, before @ ..] = distances else {
        return Err("there is no distance".to_owned());
    };
    let degrees = degrees_of_distance(distance);
    let variance = variance_of_distance(distance);
    let alpha = alpha_of_end(claim);
    let Some((before, moment)) = before.first().zip(claim.relative_to) else {
        let standard_error = variance.sqrt();
        let half = student_t_quantile(1.0 - alpha, degrees) * standard_error;
        let effect = clear_rounding(distance.full, DISTANCE_ROUNDING);
        return Ok(EffectEstimate {
            effect,
            low: effect - half,
            high: upper_end_of_distance(effect, half),
            rounding: DISTANCE_ROUNDING,
            law: EffectLaw::Student {
                standard_error,
                degrees,
            },
            is_moved_by_noise: false,
        });
    };

    let quotient = Quotient {
        numerator: distance.full,
        denominator: before.full,
        numerator_variance: variance,
        denominator_variance: variance_of_distance(before),
        covariance: crossed_covariance(distance, before),
        degrees: degrees.min(degrees_of_distance(before)),
    };
    let mut estimate = quotient.estimate(alpha).ok_or_else(|| {
        format!(
            "the distance at \"{moment}\", {:.2e}, is not shown to be above 0, so that none can be relative to it",
            before.full
        )
    })?;

    // The tail of the distance is that of the ratio, too.
    let half = student_t_quantile(1.0 - alpha, degrees) * variance.sqrt();
    let tail = upper_end_of_distance(distance.full, half) - (distance.full + half);
    estimate.high += tail / before.full;
    Ok(estimate)
}
