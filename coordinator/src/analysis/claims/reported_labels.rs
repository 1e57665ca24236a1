//! The predictions that the trials of a program reported, for claims about labels.
//!
//! Nobody knows before at which steps a program predicts, nor how many points. Trials may lack predictions, which is no reason to
//! compare others in their place.

use std::collections::{BTreeMap, HashSet};

use ergodic_common::config::Length;
use ergodic_common::ids::CellIndex;
use ergodic_common::spec::Moment;
use ergodic_common::trial::{Outcome, Predictions};
use ergodic_common::{Spec, TrialKey};

use crate::analysis::distance::labels::PredictedLabels;
use crate::analysis::{AnalysisError, RowSource};
use crate::store::TrialRange;

/// Stands for the last step at which a trial predicts. No step is so high.
const LAST_STEP: u64 = u64::MAX;

/// A cell with a step, or with [`LAST_STEP`].
type LabelPlace = (CellIndex, u64);

/// What is known of the trials beside their labels.
#[derive(Default)]
pub(super) struct ReportedLabels {
    /// The repeats that completed, in ascending order.
    completed: BTreeMap<CellIndex, Vec<u32>>,
    diverged: HashSet<TrialKey>,
    /// Bytes of all labels.
    pub(super) bytes: u64,
    /// Places at which trials predict different numbers of points, with the trial and its number.
    odd: BTreeMap<LabelPlace, (TrialKey, usize)>,
    /// The lowest and the highest of the last steps with predictions.
    last_steps: BTreeMap<CellIndex, (u64, u64)>,
}

/// Where the labels of a moment are kept.
pub(super) fn place_of_moment(moment: Moment) -> u64 {
    match moment {
        Moment::After(Length::Steps(step)) => step,
        _ => LAST_STEP,
    }
}

impl ReportedLabels {
    /// Reads how the trials ended.
    ///
    /// # Errors
    /// The store failed.
    pub(super) fn read_ends(&mut self, rows: RowSource<'_>) -> Result<(), AnalysisError> {
        rows.readers.with_reader(|reader| {
            reader.read_ended_trials(
                rows.sweep,
                TrialRange::ALL,
                &mut |trial| match trial.outcome {
                    Outcome::Completed => {
                        let repeats = self.completed.entry(trial.key.cell).or_default();
                        repeats.push(trial.key.repeat.0);
                    }
                    Outcome::Diverged { .. } => drop(self.diverged.insert(trial.key)),
                    Outcome::Failed { .. } => {}
                },
            )
        })?;
        Ok(())
    }

    /// Adds the predictions of a trial, which comes after those of the same cell with lower repeats. The last ones are those at the
    /// end, if the trial came to its end.
    pub(super) fn add_trial(
        &mut self,
        labels: &mut BTreeMap<LabelPlace, PredictedLabels>,
        key: TrialKey,
        predictions: &Predictions,
    ) {
        let Predictions { steps, classes } = predictions;
        let Some(points) = classes.len().checked_div(steps.len()).filter(|n| *n > 0) else {
            return;
        };
        let last = (!self.diverged.contains(&key)).then_some(LAST_STEP);
        let rows = steps.iter().copied().zip(classes.chunks_exact(points));
        let last = last.zip(rows.clone().next_back());
        let all = rows.chain(last.map(|(place, (_, row))| (place, row)));
        for (step, row) in all {
            let place = (key.cell, step);
            let Some(known) = labels.get_mut(&place) else {
                continue;
            };
            match known.push_reported(key.repeat.0, row) {
                true => self.bytes += row.len() as u64,
                false => drop(self.odd.entry(place).or_insert((key, points))),
            }
        }

        if let Some((_, (step, _))) = last {
            let (low, high) = self.last_steps.entry(key.cell).or_insert((step, step));
            (*low, *high) = ((*low).min(step), (*high).max(step));
        }
    }

    /// Checks that the labels at some places can be compared; gives caveats.
    ///
    /// # Errors
    /// Trials predict different numbers of points.
    pub(super) fn describe_places(
        &self,
        spec: &Spec,
        places: &[LabelPlace],
        labels: &[&PredictedLabels],
    ) -> Result<Vec<String>, String> {
        let mut first: Option<(CellIndex, usize)> = None;
        for (place, known) in places.iter().zip(labels) {
            if let Some((key, points)) = self.odd.get(place) {
                let cell = spec.grid.describe_cell(place.0);
                let trial = format!("the trial {key}");
                return Err(explain_points(
                    (&cell, known.point_count()),
                    (&trial, *points),
                ));
            }
            if known.repeats().is_empty() {
                continue;
            }
            let (cell, points) = *first.get_or_insert((place.0, known.point_count()));
            if points != known.point_count() {
                let [one, other] = [cell, place.0].map(|cell| spec.grid.describe_cell(cell));
                return Err(explain_points(
                    (&one, points),
                    (&other, known.point_count()),
                ));
            }
        }

        let mut notes = self.describe_missing(places, labels);
        notes.extend(self.describe_last_steps(places));
        Ok(notes)
    }

    /// The completed trials that have no labels at the places.
    fn describe_missing(&self, places: &[LabelPlace], labels: &[&PredictedLabels]) -> Vec<String> {
        let mut missing: BTreeMap<u64, usize> = BTreeMap::new();
        for ((cell, step), known) in places.iter().zip(labels) {
            let completed = self.completed.get(cell).into_iter().flatten();
            let without = completed.filter(|repeat| known.repeats().binary_search(repeat).is_err());
            *missing.entry(*step).or_default() += without.count();
        }
        let missing = missing.into_iter().filter(|(_, count)| *count > 0);
        missing
            .map(|(step, count)| match step {
                LAST_STEP => format!("{count} without predictions"),
                step => format!("{count} without predictions at step {step}"),
            })
            .collect()
    }

    /// The last steps of the trials, if they differ.
    fn describe_last_steps(&self, places: &[LabelPlace]) -> Option<String> {
        let at_end = places.iter().filter(|(_, step)| *step == LAST_STEP);
        let steps = at_end.filter_map(|(cell, _)| self.last_steps.get(cell).copied());
        let (low, high) =
            steps.reduce(|(low, high), (other, above)| (low.min(other), high.max(above)))?;
        (low < high)
            .then(|| format!("the last predictions of the trials are of steps {low} to {high}"))
    }
}

/// Says that different numbers of points are predicted.
fn explain_points((one, first): (&str, usize), (other, second): (&str, usize)) -> String {
    format!(
        "trials predict different numbers of points, which cannot be compared: {one} {first}, and {other} {second}"
    )
}
