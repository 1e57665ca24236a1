//! Values of each cell's trials at the moment of a query.

use std::collections::{BTreeMap, BTreeSet};

use ergodic_common::config::Length;
use ergodic_common::ids::CellIndex;
use ergodic_common::{Outcome, TrialKey};

use crate::analysis::error::AnalysisError;
use crate::analysis::query::TableQuery;
use crate::analysis::row_source::RowSource;
use crate::estimators::rank::{CellEnds, TrialEnd};
use crate::store::{SampledTrial, StoreError, StoreReader, TrialRange};

/// Values of a cell by repeat, and the number of its trials without one.
#[derive(Debug, Default)]
pub(super) struct CellTrials {
    /// Values in the order of repeats.
    pub(super) values: Vec<(u32, f64)>,
    /// Ends of all trials in the order of repeats, by the metric that ranks cells. Values may be
    /// infinite.
    pub(super) ends: CellEnds,
    pub(super) ended_count: u64,
}

impl CellTrials {
    /// Creates trials that all have a value.
    #[cfg(test)]
    pub(super) fn with_values(values: Vec<(u32, f64)>) -> Self {
        let ends = values
            .iter()
            .map(|(repeat, value)| (*repeat, TrialEnd::Completed(*value)))
            .collect();
        Self {
            ended_count: values.len() as u64,
            values,
            ends,
        }
    }

    /// Number of trials that ended without a value.
    pub(super) fn count_without_value(&self) -> u64 {
        self.ended_count - (self.values.len() as u64).min(self.ended_count)
    }
}

/// Reads the values of a query's metric by cell, and the ends of trials.
///
/// # Errors
/// The store failed, or no curve has a sample at the moment of the query.
pub(super) fn read_cell_trials(
    query: &TableQuery,
    rows: RowSource<'_>,
) -> Result<BTreeMap<CellIndex, CellTrials>, AnalysisError> {
    let mut trials: BTreeMap<CellIndex, CellTrials> = BTreeMap::new();
    for (key, value, end) in rows
        .map_ranges(|reader, part| read_range_ends(query, rows, reader, part))?
        .into_iter()
        .flatten()
    {
        let cell = trials.entry(key.cell).or_default();
        cell.ended_count += 1;
        cell.add_trial(key.repeat.0, value, end);
    }

    if let Some(at) = query.moment() {
        add_moment_samples(query, rows, at, &mut trials)?;
    }

    Ok(trials)
}

/// Adds the values at a moment. Cells without a sample there get no ends, because their diverged
/// trials say nothing about them.
fn add_moment_samples(
    query: &TableQuery,
    rows: RowSource<'_>,
    at: Length,
    trials: &mut BTreeMap<CellIndex, CellTrials>,
) -> Result<(), AnalysisError> {
    let unsampled = query.read_samples(rows, at, &mut |key, values| {
        trials.entry(key.cell).or_default().add_trial(
            key.repeat.0,
            values.metric_value,
            values.end,
        );
    })?;

    for (cell, trials) in trials {
        trials.ends.sort_unstable_by_key(|(repeat, _)| *repeat);
        if unsampled.contains(cell) {
            trials.ends.clear();
        }
    }

    Ok(())
}

impl CellTrials {
    pub(super) fn add_trial(&mut self, repeat: u32, value: f64, end: Option<TrialEnd>) {
        self.ends.extend(end.map(|end| (repeat, end)));
        if value.is_finite() {
            self.values.push((repeat, value));
        }
    }
}

/// Reads the values of a range of trials, NaN without one, and their ends. Skips those that curves
/// provide.
pub(super) fn read_range_ends(
    query: &TableQuery,
    rows: RowSource<'_>,
    reader: &dyn StoreReader,
    part: TrialRange,
) -> Result<Vec<(TrialKey, f64, Option<TrialEnd>)>, StoreError> {
    let at: Option<Length> = query.moment();
    let mut limit = (CellIndex(u64::MAX), None);
    let mut ended = Vec::new();
    query.read_ended_trials(rows, reader, part, &mut |trial| {
        if limit.0 != trial.key.cell {
            limit = (
                trial.key.cell,
                at.and_then(|at| {
                    Some(
                        rows.spec
                            .grid
                            .resolve_config(trial.key.cell)
                            .ok()?
                            .length_in_steps(at),
                    )
                }),
            );
        }

        let metric = |column: usize| trial.metrics.get(column).unwrap_or(f64::NAN);
        let (value, end) = match trial.outcome {
            Outcome::Completed if at.is_some() => (f64::NAN, None),
            Outcome::Completed => (
                metric(query.metric_column()),
                Some(TrialEnd::Completed(metric(query.selection_column()))),
            ),
            Outcome::Diverged { step } if limit.1.is_some_and(|limit| step > limit) => {
                (f64::NAN, None)
            }
            Outcome::Diverged { .. } => (f64::NAN, Some(TrialEnd::Diverged)),
            Outcome::Failed { .. } => (f64::NAN, Some(TrialEnd::Failed)),
        };

        ended.push((trial.key, value, end));
    })?;

    Ok(ended)
}

/// The values of trials at a moment.
#[derive(Debug, Default)]
struct MomentSamples {
    /// Cells with trials that had not diverged by the moment, and whether one of these has a sample
    /// there.
    pub(super) cells: BTreeMap<CellIndex, bool>,
    pub(super) values: Vec<(TrialKey, SampledValues)>,
}

/// The values of a trial at a moment; NaN if there is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct SampledValues {
    /// Value of the query's metric.
    pub(super) metric_value: f64,
    /// The end with the value of the metric that ranks rows; `None` for a program that has not reported it yet.
    pub(super) end: Option<TrialEnd>,
}

impl TableQuery {
    /// Calls `each` with the values of trials that had not diverged by a moment and have a sample
    /// there, ordered by cell and repeat. Returns the cells with such trials but without a sample:
    /// their diverged trials do not show how good they are.
    pub(super) fn read_samples(
        &self,
        rows: RowSource<'_>,
        at: Length,
        each: &mut dyn FnMut(TrialKey, SampledValues),
    ) -> Result<BTreeSet<CellIndex>, AnalysisError> {
        let parts =
            rows.map_ranges(|reader, part| self.read_range_samples(rows, reader, part, at))?;
        let mut cells: BTreeMap<CellIndex, bool> = BTreeMap::new();
        for (cell, is_sampled) in parts.iter().flat_map(|part| &part.cells) {
            *cells.entry(*cell).or_default() |= is_sampled;
        }

        if !cells.is_empty() && cells.values().all(|is_sampled| !is_sampled) {
            return Err(AnalysisError::Unknown(
                self.describe_missing_sample(rows, at)?,
            ));
        }

        parts
            .into_iter()
            .flat_map(|part| part.values)
            .for_each(|(key, values)| each(key, values));
        Ok(cells
            .into_iter()
            .filter(|(_, is_sampled)| !is_sampled)
            .map(|(cell, _)| cell)
            .collect())
    }

    fn read_range_samples(
        &self,
        rows: RowSource<'_>,
        reader: &dyn StoreReader,
        part: TrialRange,
        at: Length,
    ) -> Result<MomentSamples, StoreError> {
        let width = self.row_width(rows.spec);
        let is_of_program = rows.spec.program().is_some();
        let mut samples = MomentSamples::default();
        let mut moment = (CellIndex(u64::MAX), 0);
        self.read_curves(rows, reader, part, &mut |trial| {
            let SampledTrial { key, curve, .. } = trial;
            if moment.0 != key.cell {
                moment = (
                    key.cell,
                    rows.spec
                        .grid
                        .resolve_config(key.cell)
                        .map_or(0, |config| config.length_in_steps(at)),
                );
            }

            if !trial.is_trained_beyond(moment.1) {
                return;
            }

            let row = curve.find_step(moment.1);
            *samples.cells.entry(key.cell).or_default() |= row.is_some();

            if let Some(row) = row {
                let [metric_value, selection_value] =
                    [self.metric_column(), self.selection_column()].map(|column| {
                        let value = |row| curve.value_at(row, width, column);
                        find_sample(value, row, is_of_program).unwrap_or(f64::NAN)
                    });
                // A program that has not reported the metric yet has not diverged.
                let is_known = !is_of_program || !selection_value.is_nan();
                let values = SampledValues {
                    metric_value,
                    end: is_known.then_some(TrialEnd::Completed(selection_value)),
                };
                samples.values.push((key, values));
            }
        })?;

        Ok(samples)
    }

    /// An error that no trial has a sample at a moment, with the neighbouring steps at which the
    /// first trial has samples.
    fn describe_missing_sample(
        &self,
        rows: RowSource<'_>,
        at: Length,
    ) -> Result<String, AnalysisError> {
        let (wanted, around) = find_samples_around(rows, at)?;
        let nearest = around
            .iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(" and ");
        Ok(format!(
            "at: no trial was sampled after step {wanted}; the nearest samples are after step {nearest}, and \
             `ergodic curves` lists all"
        ))
    }
}

/// The value of a metric at a row of a curve; for a program, which may report each metric at steps of its own, the last one that it
/// has reported by then.
fn find_sample(
    value: impl Fn(usize) -> Option<f64>,
    row: usize,
    is_of_program: bool,
) -> Option<f64> {
    match is_of_program {
        true => (0..=row).rev().filter_map(value).find(|x| !x.is_nan()),
        false => value(row),
    }
}

/// The moment in steps in the first trial with a curve, and the neighbouring steps at which it has
/// samples.
fn find_samples_around(rows: RowSource<'_>, at: Length) -> Result<(u64, Vec<u64>), StoreError> {
    let mut around: Option<(u64, Vec<u64>)> = None;
    rows.readers.with_reader(|reader| {
        reader.read_curves(
            rows.sweep,
            TrialRange::ALL,
            &mut |SampledTrial { key, curve, .. }| {
                if around.is_none() {
                    let wanted = rows
                        .spec
                        .grid
                        .resolve_config(key.cell)
                        .map_or(0, |config| config.length_in_steps(at));
                    let below = curve.steps().take_while(|step| *step < wanted).last();

                    let above = curve.steps().find(|step| *step > wanted);
                    around = Some((wanted, below.into_iter().chain(above).collect()));
                }
            },
        )
    })?;

    Ok(around.unwrap_or_default())
}
