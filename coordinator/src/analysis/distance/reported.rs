//! The moments and points of a program's predictions: what its trials reported, which nobody knows before.

use std::collections::{BTreeSet, HashSet};

use ergodic_common::config::Length;
use ergodic_common::spec::Moment;
use ergodic_common::trial::{Outcome, Predictions};
use ergodic_common::{Spec, TrialKey};

use crate::analysis::distance::query::{DistanceQuery, describe_moment};
use crate::analysis::error::AnalysisError;
use crate::analysis::row_source::RowSource;
use crate::store::TrialRange;

/// Maximum number of steps of a cell that are told apart.
const MAX_STEPS: usize = 10_000;
/// Maximum number of steps that an error lists.
const MAX_LISTED: usize = 10;

/// What the trials of the requested cells reported.
struct ReportedPredictions {
    /// The steps with predictions, by position of the cell.
    steps: Vec<BTreeSet<u64>>,
    /// Whether some steps are left out because they are too many.
    has_more_steps: bool,
    /// A trial with predictions at a requested moment, and the number of its points.
    first: Option<(TrialKey, usize)>,
    /// Another one with another number of points.
    odd: Option<(TrialKey, usize)>,
}

/// The trials of a sweep that diverged.
///
/// # Errors
/// The store failed.
fn read_diverged_trials(rows: RowSource<'_>) -> Result<HashSet<TrialKey>, AnalysisError> {
    let mut diverged = HashSet::new();
    rows.readers.with_reader(|reader| {
        reader.read_ended_trials(rows.sweep, TrialRange::ALL, &mut |trial| {
            if matches!(trial.outcome, Outcome::Diverged { .. }) {
                diverged.insert(trial.key);
            }
        })
    })?;
    Ok(diverged)
}

impl DistanceQuery {
    /// The query with the moments and the number of points that the trials of a program reported; the same for trials that are
    /// trained here.
    ///
    /// # Errors
    /// The store failed, no trial has such predictions, trials predict different numbers of points, or the work is too much.
    pub fn resolve_points(&self, rows: RowSource<'_>) -> Result<Self, AnalysisError> {
        if !self.is_of_program {
            return Ok(self.clone());
        }
        let reported = self.read_reported(rows)?;
        let Some((first, points)) = reported.first else {
            return Err(self.explain_no_predictions(rows.spec, &reported));
        };
        if let Some((odd, other)) = reported.odd {
            let message = format!(
                "the trials of these cells predict different numbers of points, which cannot be compared: the trial {first} {points}, \
                 and {odd} {other}"
            );
            return Err(AnalysisError::Invalid(message));
        }

        let mut this = self.clone();
        this.points = points;
        if this.moments.is_empty() {
            this.moments = self.list_common_moments(rows.spec, &reported)?;
        }
        this.check_size(rows.spec)?;
        Ok(this)
    }

    fn read_reported(&self, rows: RowSource<'_>) -> Result<ReportedPredictions, AnalysisError> {
        let diverged = read_diverged_trials(rows)?;
        let mut reported = ReportedPredictions {
            steps: vec![BTreeSet::new(); self.cells.len()],
            has_more_steps: false,
            first: None,
            odd: None,
        };
        rows.readers.with_reader(|reader| {
            reader.read_predictions(rows.sweep, &mut |key, predictions| {
                let cell = self.cells.iter().position(|cell| *cell == key.cell);
                if let Some(cell) = cell {
                    let is_asked = self.is_asked_for(&predictions, diverged.contains(&key));
                    reported.add_trial(cell, key, &predictions, is_asked);
                }
                true
            })
        })?;
        Ok(reported)
    }

    /// Whether a trial has predictions at any requested moment.
    fn is_asked_for(&self, predictions: &Predictions, has_diverged: bool) -> bool {
        let mut moments = self.moments.iter();
        self.moments.is_empty()
            || moments.any(|moment| {
                let step = match moment {
                    Moment::After(Length::Steps(step)) => *step,
                    _ => 0,
                };
                self.position_at(predictions, *moment, (step, has_diverged))
                    .is_some()
            })
    }

    /// Where the predictions at a moment, which is after `step` steps, are among those of a trial. The last ones of a program are
    /// those at its end, if it came to its end.
    pub(super) fn position_at(
        &self,
        predictions: &Predictions,
        moment: Moment,
        (step, has_diverged): (u64, bool),
    ) -> Option<usize> {
        match moment {
            Moment::Final if self.is_of_program && has_diverged => None,
            Moment::Final if self.is_of_program => predictions.steps.len().checked_sub(1),
            _ => predictions.steps.binary_search(&step).ok(),
        }
    }

    /// The steps at which both cells have predictions.
    fn list_common_moments(
        &self,
        spec: &Spec,
        reported: &ReportedPredictions,
    ) -> Result<Vec<Moment>, AnalysisError> {
        let [a, b] = [0, 1].map(|at| &reported.steps[at]);
        if reported.has_more_steps {
            let message = format!(
                "the cells have predictions at more than {MAX_STEPS} steps: ask for one with --at"
            );
            return Err(AnalysisError::Invalid(message));
        }
        let common: Vec<Moment> = a.intersection(b).copied().map(moment_at).collect();
        if !common.is_empty() {
            return Ok(common);
        }
        let [a, b] = [0, 1].map(|at| {
            let name = spec.grid.describe_cell(self.cells[at]);
            match reported.steps[at].is_empty() {
                true => format!("{name} at no step"),
                false => format!("{name} at {}", list_steps(&reported.steps[at])),
            }
        });
        Err(AnalysisError::Unknown(format!(
            "the two cells have predictions at no step in common: {a}; {b}"
        )))
    }

    fn explain_no_predictions(&self, spec: &Spec, reported: &ReportedPredictions) -> AnalysisError {
        let steps: BTreeSet<u64> = reported.steps.iter().flatten().copied().collect();
        if let Some(moment) = self.moments.first().filter(|_| !steps.is_empty()) {
            return AnalysisError::Unknown(format!(
                "no predictions are kept at \"{}\", only at {}",
                describe_moment(*moment),
                list_steps(&steps)
            ));
        }
        AnalysisError::Unknown(format!(
            "no trial of these cells has reported predictions, which distances are computed from: {}",
            how_to_report(spec)
        ))
    }
}

/// What a program or an experiment does to have predictions.
pub(crate) fn how_to_report(spec: &Spec) -> &'static str {
    match spec
        .program()
        .and_then(|program| program.experiment.as_ref())
    {
        Some(_) => "let the experiment call report_predictions, with one class for each point",
        None => {
            "let the program report lines such as {\"step\": 10, \"predictions\": [3, 1]}, with one class for each point"
        }
    }
}

impl ReportedPredictions {
    fn add_trial(&mut self, cell: usize, key: TrialKey, predictions: &Predictions, is_asked: bool) {
        let steps = &mut self.steps[cell];
        for step in &predictions.steps {
            if steps.len() >= MAX_STEPS && !steps.contains(step) {
                self.has_more_steps = true;
                break;
            }
            steps.insert(*step);
        }

        let points = predictions
            .classes
            .len()
            .checked_div(predictions.steps.len());
        let Some(points) = points.filter(|_| is_asked) else {
            return;
        };
        match self.first {
            None => self.first = Some((key, points)),
            Some((_, first)) if first != points => {
                self.odd.get_or_insert((key, points));
            }
            Some(_) => {}
        }
    }
}

fn moment_at(step: u64) -> Moment {
    Moment::After(Length::Steps(step))
}

/// The first steps, as a user writes them.
fn list_steps(steps: &BTreeSet<u64>) -> String {
    let first = steps.iter().take(MAX_LISTED);
    let first: Vec<String> = first
        .map(|step| format!("\"{}\"", describe_moment(moment_at(*step))))
        .collect();
    let first = first.join(", ");
    match steps.len().saturating_sub(MAX_LISTED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
