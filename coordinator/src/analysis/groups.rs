//! Groups stored rows by the values of a query's axes.

use std::collections::{BTreeMap, BTreeSet};

use ergodic_common::ids::CellIndex;
use ergodic_common::{Outcome, Spec, TrialKey};

use crate::analysis::AnalysisError;
use crate::analysis::query::{MAX_EMPTY_ROWS, TableQuery, Weighting};
use crate::analysis::row_source::{CellRange, RowSource};
use crate::estimators::Sample;
use crate::estimators::chance::chance_level;
use crate::estimators::rank::{CellEnds, TrialEnd};
use crate::records::OutcomeCounts;
use crate::store::{EndedTrial, SampledTrial, StoreError, StoreReader, TrialRange};

/// Trials of one cell, in the order of repeats.
#[derive(Debug, Default)]
struct CellRows {
    pub(super) cell: CellIndex,
    /// Values of trials, as in [`TrialGroup`].
    pub(super) values: KeyedValues,
    pub(super) diverged: Vec<Divergence>,
    pub(super) counts: OutcomeCounts,
    /// Ends of the trials for ranking; empty if rows are not ranked.
    pub(super) ends: CellEnds,
    /// Repeats of the trials, if a row can have several cells.
    pub(super) repeats: Vec<u32>,
}

/// The inputs that decide how diverged trials of a cell count.
#[derive(Debug, Default)]
struct DivergenceLimits {
    /// The cell; `None` before the first one.
    cell: Option<CellIndex>,
    /// The moment of the query, in steps.
    moment: Option<u64>,
    /// The value of a diverged trial, if it has one.
    chance_level: Option<f64>,
}

/// Values of trials that are numbers, including infinite ones.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyedValues {
    pub(super) values: Vec<f64>,
    /// Cell and repeat of each value; empty if they are not needed.
    pub(super) keys: Vec<TrialKey>,
}

/// A trial that diverged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Divergence {
    pub(super) key: TrialKey,
    pub(super) step: u64,
    /// The value with which the trial counts, if it has one.
    pub(super) value: Option<f64>,
}

impl KeyedValues {
    pub(super) fn push_value(&mut self, value: f64, key: TrialKey, matters: bool) {
        self.values.push(value);
        if matters {
            self.keys.push(key);
        }
    }

    /// The values of these repeats.
    fn filter_repeats(&self, repeats: &BTreeSet<u32>) -> Self {
        let (values, keys) = self
            .values
            .iter()
            .zip(&self.keys)
            .filter(|(_, key)| repeats.contains(&key.repeat.0))
            .unzip();
        Self { values, keys }
    }

    pub(super) fn append_values(&mut self, more: Self) {
        // Most cells come in one part, which is then moved instead of copied.
        match self.values.is_empty() {
            true => *self = more,
            false => {
                self.values.extend(more.values);
                self.keys.extend(more.keys);
            }
        }
    }
}

/// One metric of a cell's curves: the finite values at each step, steps ascending.
#[derive(Debug, Default)]
pub(super) struct CurvePoints(pub(super) Vec<(u64, KeyedValues)>);

impl CurvePoints {
    /// Adds a trial's curve, whose rows have `width` values.
    pub(super) fn add_trial(
        &mut self,
        trial: SampledTrial<'_>,
        (width, column): (usize, usize),
        matters: bool,
    ) {
        let SampledTrial { key, curve, .. } = trial;
        for (row, step) in curve
            .steps()
            .enumerate()
            .take_while(|(_, step)| trial.is_trained_beyond(*step))
        {
            // The curves of a cell normally have the same steps, so the row number finds the step
            // without a search.
            let at = match self.0.get(row) {
                Some((there, _)) if *there == step => row,
                _ => self
                    .0
                    .binary_search_by_key(&step, |(there, _)| *there)
                    .unwrap_or_else(|at| {
                        self.0.insert(at, (step, KeyedValues::default()));
                        at
                    }),
            };

            if let Some(value) = curve.value_at(row, width, column).filter(|x| !x.is_nan()) {
                self.0[at].1.push_value(value, key, matters);
            }
        }
    }
}

/// Trials of some cells, ordered by cell and repeat.
#[derive(Debug, Clone, Default)]
pub(super) struct TrialGroup {
    /// The cells with rows.
    pub(super) cells: Vec<CellIndex>,
    /// Values of trials that completed, or had not diverged by the moment of the query.
    pub(super) values: KeyedValues,
    /// Trials that had diverged by the moment of the query.
    pub(super) diverged: Vec<Divergence>,
    /// Numbers of trials by outcome. Trials that had not diverged by the moment of the query count
    /// as completed.
    pub(super) counts: OutcomeCounts,
    /// Number of cells, including those without rows, as far as they were counted.
    pub(super) cell_count: u64,
    /// Number of cells with a row of each repeat, if a row can have several cells.
    pub(super) repeats: BTreeMap<u32, u64>,
}

/// Groups by the indices of their values on the query's axes.
pub(super) type TrialGroups = BTreeMap<Vec<u64>, TrialGroup>;

/// The rows of a cell, which come last if there are any.
fn cell_row_mut(cells: &mut Vec<CellRows>, cell: CellIndex) -> &mut CellRows {
    if cells.last().is_none_or(|last| last.cell != cell) {
        cells.push(CellRows {
            cell,
            ..CellRows::default()
        });
    }
    cells.last_mut().expect("it was pushed if it was not there")
}

impl TrialGroup {
    /// Appends trials of a cell, which come after all others.
    fn append_rows(&mut self, rows: CellRows) {
        if self.cells.last() != Some(&rows.cell) {
            self.cells.push(rows.cell);
        }

        self.values.append_values(rows.values);
        self.diverged.extend(rows.diverged);
        self.counts.merge(&rows.counts);
        rows.repeats
            .into_iter()
            .for_each(|repeat| *self.repeats.entry(repeat).or_default() += 1);
    }

    /// Returns the group with these values of completed trials and no other trials.
    pub(super) fn with_completed(self, values: &[f64]) -> Self {
        Self {
            counts: OutcomeCounts {
                completed: values.len() as u64,
                ..OutcomeCounts::default()
            },
            ..self
        }
    }

    /// The repeats that all cells have ended; `None` if that is every repeat that any cell has.
    pub(super) fn complete_repeats(&self) -> Option<BTreeSet<u32>> {
        let cells = self.cell_count.max(self.cells.len() as u64);
        let whole: BTreeSet<u32> = self
            .repeats
            .iter()
            .filter(|(_, n)| **n == cells)
            .map(|(repeat, _)| *repeat)
            .collect();
        (whole.len() < self.repeats.len()).then_some(whole)
    }

    /// The group as it was after a step, without values.
    pub(super) fn at_step(&self, step: u64) -> Self {
        let diverged: Vec<Divergence> = self
            .diverged
            .iter()
            .filter(|trial| trial.step <= step)
            .copied()
            .collect();
        let lived = self.diverged.len() as u64 - diverged.len() as u64;

        let OutcomeCounts {
            completed, failed, ..
        } = self.counts;
        let counts = OutcomeCounts {
            completed: completed + lived,
            diverged: diverged.len() as u64,
            failed,
        };

        let cells = self.cells.clone();
        let repeats = self.repeats.clone();
        Self {
            cells,
            values: KeyedValues::default(),
            diverged,
            counts,
            cell_count: self.cell_count,
            repeats,
        }
    }
}

impl TableQuery {
    /// The values as a sample. If the cells of a row have not all ended the same repeats, the
    /// uncertainty of the mean comes from common repeats, because others also differ by their
    /// cells.
    pub(super) fn sample_with_repeats(
        &self,
        values: KeyedValues,
        whole: Option<&BTreeSet<u32>>,
    ) -> Sample {
        let Some(whole) = whole else {
            return self.sample_from_values(values);
        };
        let some = self.sample_from_values(values.filter_repeats(whole));
        self.sample_from_values(values).with_uncertainty_of(some)
    }

    fn sample_from_values(&self, values: KeyedValues) -> Sample {
        let KeyedValues { values, keys: of } = values;
        if !self.needs_keys() {
            return Sample::new(values);
        }

        let repeats: Vec<u32> = of.iter().map(|key| key.repeat.0).collect();
        let sample = match &self.crossing {
            Some(crossing) => Sample::from_crossed(values, &repeats, crossing),
            None => Sample::from_pooled(values, &repeats),
        };

        match self.weighting {
            Weighting::Cells if self.pooled => {
                let cells: Vec<u64> = of.iter().map(|key| key.cell.0).collect();
                sample.with_equal_cell_weights(&repeats, &cells, self.crossing.as_ref())
            }
            _ => sample,
        }
    }

    /// Reads numbers of trials by outcome, with final values and with the end of each trial, as far
    /// as they are requested.
    pub(super) fn read_groups(
        &self,
        rows: RowSource<'_>,
        within: CellRange,
        with_ends: bool,
    ) -> Result<(TrialGroups, BTreeMap<CellIndex, CellEnds>), AnalysisError> {
        let spec = rows.spec;
        let mut ends: BTreeMap<CellIndex, CellEnds> = BTreeMap::new();
        let mut groups: TrialGroups = BTreeMap::new();

        if spec.grid.cell_number_bound() <= MAX_EMPTY_ROWS {
            let cells = spec
                .grid
                .iter()
                .filter(|cell| within.contains(*cell) && self.selects_cell(spec, *cell));
            for cell in cells {
                groups
                    .entry(self.group_key(spec, cell))
                    .or_default()
                    .cell_count += 1;
            }
        }

        let parts = rows.map_cell_ranges(within, |reader, part| {
            self.read_cell_rows(rows, reader, part, with_ends)
        })?;
        let selected = parts
            .into_iter()
            .flatten()
            .filter(|rows| self.selects_cell(spec, rows.cell));
        for mut cell in selected {
            if with_ends {
                ends.entry(cell.cell).or_default().append(&mut cell.ends);
            }

            groups
                .entry(self.group_key(spec, cell.cell))
                .or_default()
                .append_rows(cell);
        }

        Ok((groups, ends))
    }

    /// Reads the ends of a range of trials, cell by cell.
    fn read_cell_rows(
        &self,
        rows: RowSource<'_>,
        reader: &dyn StoreReader,
        part: TrialRange,
        with_ends: bool,
    ) -> Result<Vec<CellRows>, StoreError> {
        let mut cells: Vec<CellRows> = Vec::new();
        let mut limits = DivergenceLimits::default();
        self.read_ended_trials(rows, reader, part, &mut |trial| {
            let cell = cell_row_mut(&mut cells, trial.key.cell);
            if self.pooled {
                cell.repeats.push(trial.key.repeat.0);
            }

            let Outcome::Diverged { step } = trial.outcome else {
                return self.add_ended_trial(cell, &trial, with_ends);
            };

            if limits.cell != Some(cell.cell) {
                limits = self.divergence_limits(rows.spec, cell.cell);
            }

            self.add_diverged_trial(cell, trial.key, step, &limits, with_ends);
        })?;

        Ok(cells)
    }

    /// Adds a trial that completed or failed.
    fn add_ended_trial(&self, cell: &mut CellRows, trial: &EndedTrial<'_>, with_ends: bool) {
        cell.counts.add(&trial.outcome);
        let has_completed = trial.outcome == Outcome::Completed;
        let value = |column: usize| {
            trial
                .metrics
                .get(column)
                .filter(|x| self.at.is_none() && !x.is_nan())
        };

        if let Some(value) = value(self.metric_column()).filter(|_| has_completed) {
            cell.values.push_value(value, trial.key, self.needs_keys());
        }

        // With `at`, the value of a completed trial comes from its curve later.
        if with_ends && !(has_completed && self.at.is_some()) {
            let end = if has_completed {
                TrialEnd::Completed(value(self.selection_column()).unwrap_or(f64::NAN))
            } else {
                TrialEnd::Failed
            };
            cell.ends.push((trial.key.repeat.0, end));
        }
    }

    /// Adds a trial that diverged at `step`. If that is after the moment of the query, it counts as
    /// completed.
    fn add_diverged_trial(
        &self,
        cell: &mut CellRows,
        key: TrialKey,
        step: u64,
        limits: &DivergenceLimits,
        with_ends: bool,
    ) {
        if limits.moment.is_some_and(|moment| step > moment) {
            cell.counts.add(&Outcome::Completed);
            return;
        }

        cell.counts.add(&Outcome::Diverged { step });
        if with_ends {
            cell.ends.push((key.repeat.0, TrialEnd::Diverged));
        }

        if !self.stats.is_empty() {
            cell.diverged.push(Divergence {
                key,
                step,
                value: limits.chance_level,
            });
        }
    }

    fn divergence_limits(&self, spec: &Spec, cell: CellIndex) -> DivergenceLimits {
        let config = spec.grid.resolve_config(cell).ok();
        DivergenceLimits {
            cell: Some(cell),
            moment: self
                .at
                .and_then(|at| Some(config.as_ref()?.length_in_steps(at))),
            chance_level: config
                .zip(self.metric().stored())
                .and_then(|(config, metric)| chance_level(metric, &config)),
        }
    }

    /// Reads the curves of a range of trials, cell by cell.
    pub(super) fn read_curve_points(
        &self,
        rows: RowSource<'_>,
        reader: &dyn StoreReader,
        part: TrialRange,
    ) -> Result<Vec<(CellIndex, CurvePoints)>, StoreError> {
        let at = (self.row_width(rows.spec), self.metric_column());
        let mut cells: Vec<(CellIndex, CurvePoints)> = Vec::new();
        self.read_curves(rows, reader, part, &mut |trial| {
            if cells.last().is_none_or(|(cell, _)| *cell != trial.key.cell) {
                cells.push((trial.key.cell, CurvePoints::default()));
            }
            if let Some((_, points)) = cells.last_mut() {
                points.add_trial(trial, at, self.needs_keys());
            }
        })?;

        Ok(cells)
    }
}
