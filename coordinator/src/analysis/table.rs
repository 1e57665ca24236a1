//! Tables and mean curves over the cells of a sweep.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use ergodic_common::config::Length;
use ergodic_common::grid::axis::Axis;
use ergodic_common::metric::Metric;
use ergodic_common::random_streams::{Purpose, RandomStream};
use ergodic_common::spec::stopping_rule::StoppingRule;
use ergodic_common::spec_file::error::suggest_nearest;
use ergodic_common::spec_file::node::SpecValue;
use ergodic_common::{Outcome, Spec, TrialKey};
use rayon::prelude::*;

use super::compare::read_cell_trials;
use super::ranking;
use super::ranking::{CellEnds, RowRank};
use crate::core::{main_metric, selection_metric};
use crate::estimators::bootstrap::RESAMPLES;
use crate::estimators::chance::{chance_level, has_chance_level};
use crate::estimators::crossed::Crossing;
use crate::estimators::rank::TrialEnd;
use crate::estimators::statistic::{Statistic, StatisticInput};
use crate::estimators::{Sample, Summary};
use crate::records::OutcomeCounts;
use crate::store::{SampledTrial, SnapshotReaders, StoreError, StoreReader, TrialRange};

/// A question that cannot be answered, in words; or the store failed.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// There is no such axis, metric, statistic or step.
    #[error("{0}")]
    Unknown(String),
    /// It asks for something impossible.
    #[error("{0}")]
    Invalid(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One row of a table, or one point of a curve.
#[derive(Debug, Clone, PartialEq)]
pub struct TableEntry {
    /// Value of each axis asked for.
    pub values: Vec<SpecValue>,
    /// Step, of a curve's point.
    pub step: u64,
    /// Statistics over completed trials.
    pub summary: Summary,
    /// Trials by outcome.
    pub counts: OutcomeCounts,
    /// The statistics asked for by name, one number per column; `None` where one is not defined.
    pub statistics: Vec<Option<f64>>,
    /// Why some are not, or what else is to be known of them; empty if nothing is.
    pub note: String,
    /// Where it stands among all rows; `None` where rows have no order, and of a point of a curve.
    pub rank: Option<RowRank>,
}

/// What is asked of a sweep.
#[derive(Debug, Clone, Copy, Default)]
pub struct TableParams<'a> {
    /// Axes to group by, which may be named by the last parts of their paths; empty for all.
    pub by: &'a [String],
    /// The metric; empty for the main one.
    pub metric: &'a str,
    /// When; empty for the end of the trial.
    pub at: &'a str,
    /// Statistics by name, besides the summary.
    pub stats: &'a [String],
    /// What counts alike where a row is of several cells.
    pub weighting: Weighting,
}

/// What counts alike in a row of several cells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Weighting {
    /// Each trial that has a value: cells in which fewer trials diverged weigh more.
    #[default]
    Trials,
    /// Each cell that has values, as in `effects`.
    Cells,
}

/// Which axes, which metric, which statistics.
#[derive(Debug, Clone)]
pub struct TableQuery {
    axes: Vec<usize>,
    /// Whether a row may be of several cells.
    pooled: bool,
    metric: (usize, Metric),
    /// The metric by which rows are ranked: that of the validation images, where there are some.
    selection_metric: (usize, Metric),
    /// Why rows have no order, if they have none.
    unranked_reason: Option<String>,
    at: Option<Length>,
    stats: Vec<Statistic>,
    weighting: Weighting,
    crossing: Option<Crossing>,
    conditions: IntervalConditions,
}

/// On what terms the intervals of a sweep hold.
#[derive(Debug, Clone, Default)]
struct IntervalConditions {
    /// Streams that are the same in all repeats, in words; empty if none is.
    fixed_streams: String,
    /// Whether cells end when they look known well enough.
    stops_early: bool,
}

/// Where the rows of a sweep are.
#[derive(Clone, Copy)]
pub struct RowSource<'a> {
    /// The sweep.
    pub spec: &'a Spec,
    /// Its number in the store.
    pub sweep: i64,
    /// The store.
    pub readers: &'a SnapshotReaders,
    /// BLAKE3 of the dataset that it was pinned to, which belongs to the identity of its cells; zeros without one.
    pub dataset_hash: [u8; 32],
}

/// What cells are, apart from where their rows stand.
#[derive(Clone, Copy)]
struct CellContext<'a> {
    spec: &'a Spec,
    dataset_hash: [u8; 32],
}

/// Trials of one cell, in the order of their repeats.
#[derive(Debug, Default)]
struct CellRows {
    cell: u64,
    /// As in [`Group`].
    values: KeyedValues,
    diverged: Vec<Divergence>,
    counts: OutcomeCounts,
    /// How they ended, where that is asked for.
    ends: CellEnds,
    /// Their repeats, where a row may be of several cells.
    repeats: Vec<u32>,
}

/// Values of trials that are numbers, infinite ones too.
#[derive(Debug, Clone, Default)]
struct KeyedValues {
    values: Vec<f64>,
    /// Of which cell and repeat each is; empty where that does not matter.
    keys: Vec<TrialKey>,
}

/// A trial that diverged.
#[derive(Debug, Clone, Copy)]
struct Divergence {
    key: TrialKey,
    step: u64,
    /// What it counts as, where it is to count.
    value: Option<f64>,
}

impl KeyedValues {
    fn push_value(&mut self, value: f64, key: TrialKey, matters: bool) {
        self.values.push(value);
        if matters {
            self.keys.push(key);
        }
    }

    /// Those of some repeats.
    fn filter_repeats(&self, repeats: &BTreeSet<u32>) -> Self {
        let kept = || {
            self.values
                .iter()
                .zip(&self.keys)
                .filter(|(_, key)| repeats.contains(&key.repeat))
        };
        Self {
            values: kept().map(|(value, _)| *value).collect(),
            keys: kept().map(|(_, key)| *key).collect(),
        }
    }

    fn append_values(&mut self, more: Self) {
        // Most cells are in one part, as a whole.
        match self.values.is_empty() {
            true => *self = more,
            false => {
                self.values.extend(more.values);
                self.keys.extend(more.keys);
            }
        }
    }
}

/// What trials have at a moment.
#[derive(Debug, Default)]
struct MomentSamples {
    /// Cells of trials that had not diverged by then, and whether one of theirs has a row there.
    cells: BTreeMap<u64, bool>,
    values: Vec<(TrialKey, SampledValues)>,
}

/// What a trial has at a moment; NaN is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct SampledValues {
    /// Of the metric asked for.
    pub(super) metric_value: f64,
    /// Of the one by which rows are ranked.
    pub(super) selection_value: f64,
}

/// One metric of the curves of a cell: the finite values at each step, steps ascending.
#[derive(Debug, Default)]
struct CurvePoints(Vec<(u64, KeyedValues)>);

impl CurvePoints {
    /// Adds a trial's curve, in rows of so many values.
    fn add_trial(
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
            // The curves of a cell have the same steps, unless something is wrong.
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

/// Trials of some cells, in the order (cell, repeat).
#[derive(Debug, Clone, Default)]
struct TrialGroup {
    /// The cells that have rows.
    cells: Vec<u64>,
    /// Values of trials that completed, or had not diverged by the moment asked for.
    values: KeyedValues,
    /// Those that had diverged by then.
    diverged: Vec<Divergence>,
    /// Trials that live at the moment asked for count as completed.
    counts: OutcomeCounts,
    /// Its cells, those without rows too, as far as they were counted.
    cell_count: u64,
    /// How many of its cells have a row of each repeat, where a row may be of several cells.
    repeats: BTreeMap<u32, u64>,
}

/// By the places of their values on the axes that are asked for.
type TrialGroups = BTreeMap<Vec<u64>, TrialGroup>;

impl TableQuery {
    /// Checks a question against a sweep.
    ///
    /// # Errors
    /// There is no such axis, metric, statistic or step.
    pub fn new(spec: &Spec, question: &TableParams<'_>) -> Result<Self, AnalysisError> {
        let axes: Vec<usize> = match question.by {
            [] => (0..spec.grid.axes().len()).collect(),
            names => names
                .iter()
                .map(|name| find_axis(spec.grid.axes(), name))
                .collect::<Result<_, _>>()?,
        };
        if let Some(twice) = (1..axes.len()).find(|at| axes[..*at].contains(&axes[*at])) {
            let name = &spec.grid.axes()[axes[twice]].name;
            return Err(AnalysisError::Invalid(format!(
                "by: the axis '{name}' stands twice"
            )));
        }

        let metric = find_metric(&spec.measure.metrics, question.metric)?;
        let stats = Statistic::parse_list(question.stats)?;
        if stats.iter().any(Statistic::counts_diverged) && !has_chance_level(&metric.1) {
            let message = format!(
                "statistics that count diverged trials (_all) are of accuracies: {} has no worst value that a diverged trial \
                 could count as; p_diverged tells how many there are, and ranks take them as the worst",
                metric.1.name()
            );
            return Err(AnalysisError::Invalid(message));
        }

        let pooled = (0..spec.grid.axes().len()).any(|axis| !axes.contains(&axis));
        let fixed: Vec<&str> = spec
            .seeds
            .fixed
            .iter()
            .map(|purpose| purpose.as_str())
            .collect();
        let terms = IntervalConditions {
            fixed_streams: fixed.join(", "),
            stops_early: spec
                .stopping_rule
                .as_ref()
                .is_some_and(StoppingRule::is_precision_based),
        };

        let weighting = question.weighting;
        let crossing = Crossing::from_spec(spec);
        let chooser = selection_metric(&spec.measure.metrics, &metric);
        let unranked = ranking::unranked_reason(spec, &chooser.1);
        let at = parse_moment(question.at)?;
        Ok(Self {
            axes,
            pooled,
            metric,
            selection_metric: chooser,
            unranked_reason: unranked,
            at,
            stats,
            weighting,
            crossing,
            conditions: terms,
        })
    }

    /// Whether it matters of which cell and repeat a value is.
    fn needs_keys(&self) -> bool {
        self.pooled || self.crossing.is_some()
    }

    /// Values as a sample. Where cells of a row have not all ended the same repeats, its mean is known by those that all have ended:
    /// others differ by which cells they are of, too.
    fn sample_with_repeats(&self, values: KeyedValues, whole: Option<&BTreeSet<u32>>) -> Sample {
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

        let repeats: Vec<u32> = of.iter().map(|key| key.repeat).collect();
        let sample = match &self.crossing {
            Some(crossing) => Sample::from_crossed(values, &repeats, crossing),
            None => Sample::from_pooled(values, &repeats),
        };

        match self.weighting {
            Weighting::Cells if self.pooled => {
                let cells: Vec<u64> = of.iter().map(|key| key.cell).collect();
                sample.with_equal_cell_weights(&repeats, &cells, self.crossing.as_ref())
            }
            _ => sample,
        }
    }

    /// The metric.
    pub fn metric(&self) -> &Metric {
        &self.metric.1
    }

    /// The metric by which rows are ranked.
    pub fn selection_metric(&self) -> &Metric {
        &self.selection_metric.1
    }

    /// Its place among the sweep's metrics.
    pub(super) fn selection_column(&self) -> usize {
        self.selection_metric.0
    }

    /// Its place among the sweep's metrics.
    pub(super) fn metric_column(&self) -> usize {
        self.metric.0
    }

    /// The moment; none for the end of the trial.
    pub(super) fn moment(&self) -> Option<Length> {
        self.at
    }

    /// Columns of the statistics asked for by name.
    pub fn statistic_columns(&self) -> Vec<String> {
        self.stats
            .iter()
            .flat_map(Statistic::column_names)
            .collect()
    }

    /// Names of the axes.
    pub fn axis_names(&self, spec: &Spec) -> Vec<String> {
        self.axes
            .iter()
            .map(|at| spec.grid.axes()[*at].name.clone())
            .collect()
    }

    fn group_key(&self, spec: &Spec, cell: u64) -> Vec<u64> {
        let indices = spec.grid.value_indices(cell);
        self.axes.iter().map(|axis| indices[*axis]).collect()
    }

    fn axis_values(&self, spec: &Spec, group: &[u64]) -> Vec<SpecValue> {
        self.axes
            .iter()
            .zip(group)
            .map(|(axis, i)| spec.grid.axes()[*axis].value_at(*i))
            .collect()
    }

    /// Statistics per group of cells, in the order of the grid; groups without a row are listed too, as long as the
    /// grid is small enough to print.
    ///
    /// # Errors
    /// The store failed, no curve has a sample at the step asked for, or it would take too long.
    pub fn compute_table(&self, rows: RowSource<'_>) -> Result<Vec<TableEntry>, AnalysisError> {
        let is_ranked = self.is_ranked(rows.spec);
        let (mut groups, mut ends) = self.read_groups(rows, CellRange::ALL, is_ranked)?;

        if let Some(at) = self.at {
            self.add_curve_samples(rows, at, &mut groups, is_ranked.then_some(&mut ends))?;
        }

        // Of a row of which a cell has not begun, no repeat has ended in all cells.
        let has_begun = |group: &&TrialGroup| group.cells.len() as u64 >= group.cell_count;
        let cells = |group: &TrialGroup| {
            Some(group)
                .filter(has_begun)
                .map(|group| group.cells.clone())
        };
        let members: Vec<Vec<u64>> = groups
            .values()
            .map(|group| cells(group).unwrap_or_default())
            .collect();
        let places = match is_ranked {
            true => ranking::rank_rows(rows.spec, self.selection_metric(), &ends, &members),
            false => vec![None; members.len()],
        };

        self.build_entries(rows, groups, places, &Cell::new(0))
    }

    /// Rows of some cells, one each, with the places that these have among all.
    fn compute_table_page(
        &self,
        rows: RowSource<'_>,
        within: CellRange,
        places: &BTreeMap<u64, RowRank>,
        drawn: &Cell<usize>,
    ) -> Result<Vec<TableEntry>, AnalysisError> {
        let (groups, _) = self.read_groups(rows, within, false)?;
        let place = |group: &TrialGroup| places.get(group.cells.first()?).copied();
        let places = groups.values().map(place).collect();
        self.build_entries(rows, groups, places, drawn)
    }

    fn build_entries(
        &self,
        rows: RowSource<'_>,
        groups: TrialGroups,
        places: Vec<Option<RowRank>>,
        drawn: &Cell<usize>,
    ) -> Result<Vec<TableEntry>, AnalysisError> {
        self.check_bootstrap_work(
            groups
                .values()
                .map(|group| group.values.values.len() + group.diverged.len()),
            drawn,
        )?;

        let cells = rows.cell_context();
        let mut entries: Vec<TableEntry> = groups
            .into_par_iter()
            .map(|(key, group)| self.build_entry(cells, &key, 0, group))
            .collect();
        entries
            .iter_mut()
            .zip(places)
            .for_each(|(entry, place)| entry.rank = place);

        Ok(entries)
    }

    /// Where each cell stands among all, at the end of its trials.
    fn rank_cells(&self, rows: RowSource<'_>) -> Result<BTreeMap<u64, RowRank>, AnalysisError> {
        if !self.is_ranked(rows.spec) {
            return Ok(BTreeMap::new());
        }

        let ends = self.read_cell_ends(rows)?;
        let members: Vec<Vec<u64>> = ends.keys().map(|cell| vec![*cell]).collect();
        let places = ranking::rank_rows(rows.spec, self.selection_metric(), &ends, &members);
        Ok(ends
            .keys()
            .zip(places)
            .filter_map(|(cell, place)| Some((*cell, place?)))
            .collect())
    }

    /// How the trials of each cell ended.
    fn read_cell_ends(
        &self,
        rows: RowSource<'_>,
    ) -> Result<BTreeMap<u64, CellEnds>, AnalysisError> {
        Ok(read_cell_trials(self, rows)?
            .into_iter()
            .map(|(cell, trials)| (cell, trials.ends))
            .collect())
    }

    fn is_ranked(&self, spec: &Spec) -> bool {
        spec.grid.cell_count() > 1 && self.unranked_reason.is_none()
    }

    /// What counts alike in rows of several cells, if there are any.
    pub fn weighting_name(&self) -> Option<&'static str> {
        self.pooled.then_some(match self.weighting {
            Weighting::Trials => "trials",
            Weighting::Cells => "cells",
        })
    }

    /// Why its rows have no order, if they have none.
    pub fn unranked_reason(&self) -> Option<&str> {
        self.unranked_reason.as_deref()
    }

    /// Trials by outcome, with their final values where these are asked for; and how each ended, if that is.
    fn read_groups(
        &self,
        rows: RowSource<'_>,
        within: CellRange,
        with_ends: bool,
    ) -> Result<(TrialGroups, BTreeMap<u64, CellEnds>), AnalysisError> {
        let spec = rows.spec;
        let mut ends: BTreeMap<u64, CellEnds> = BTreeMap::new();
        let mut groups: TrialGroups = BTreeMap::new();

        if spec.grid.cell_number_bound() <= MAX_EMPTY_ROWS {
            for cell in spec.grid.iter().filter(|cell| within.contains(*cell)) {
                groups
                    .entry(self.group_key(spec, cell))
                    .or_default()
                    .cell_count += 1;
            }
        }

        let parts = rows.map_cell_ranges(within, |reader, part| {
            self.read_cell_rows(rows, reader, part, with_ends)
        })?;
        for mut cell in parts.into_iter().flatten() {
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

    /// How a part of the trials ended, cell by cell.
    fn read_cell_rows(
        &self,
        rows: RowSource<'_>,
        reader: &dyn StoreReader,
        part: TrialRange,
        with_ends: bool,
    ) -> Result<Vec<CellRows>, StoreError> {
        let mut cells: Vec<CellRows> = Vec::new();
        let mut about = (u64::MAX, None, None);
        reader.read_ended_trials(rows.sweep, part, &mut |trial| {
            let cell = cell_row_mut(&mut cells, trial.key.cell);
            let repeat = trial.key.repeat;

            if self.pooled {
                cell.repeats.push(repeat);
            }

            let Outcome::Diverged { step } = trial.outcome else {
                cell.counts.add(&trial.outcome);
                let has_completed = trial.outcome == Outcome::Completed;
                let value = |column: usize| {
                    trial
                        .metrics
                        .get(column)
                        .filter(|x| self.at.is_none() && !x.is_nan())
                };
                if let Some(value) = value(self.metric.0).filter(|_| has_completed) {
                    cell.values.push_value(value, trial.key, self.needs_keys());
                }

                // What it has at a moment, its curve says.
                if with_ends && !(has_completed && self.at.is_some()) {
                    let chosen =
                        || TrialEnd::Completed(value(self.selection_metric.0).unwrap_or(f64::NAN));
                    cell.ends.push((
                        repeat,
                        if has_completed {
                            chosen()
                        } else {
                            TrialEnd::Failed
                        },
                    ));
                }

                return;
            };

            if about.0 != cell.cell {
                let config = rows.spec.grid.resolve_config(cell.cell).ok();
                let limit = self
                    .at
                    .and_then(|at| Some(config.as_ref()?.length_in_steps(at)));
                about = (
                    cell.cell,
                    limit,
                    config.and_then(|config| chance_level(&self.metric.1, &config)),
                );
            }

            let lives = about.1.is_some_and(|limit| step > limit);
            cell.counts.add(if lives {
                &Outcome::Completed
            } else {
                &trial.outcome
            });

            if with_ends && !lives {
                cell.ends.push((repeat, TrialEnd::Diverged));
            }

            if !lives && !self.stats.is_empty() {
                cell.diverged.push(Divergence {
                    key: trial.key,
                    step,
                    value: about.2,
                });
            }
        })?;

        Ok(cells)
    }

    fn add_curve_samples(
        &self,
        rows: RowSource<'_>,
        at: Length,
        groups: &mut TrialGroups,
        mut ends: Option<&mut BTreeMap<u64, CellEnds>>,
    ) -> Result<(), AnalysisError> {
        let mut group = (u64::MAX, Vec::new());
        let unsampled = self.read_samples(rows, at, &mut |key, values| {
            if group.0 != key.cell {
                group = (key.cell, self.group_key(rows.spec, key.cell));
            }

            if !values.metric_value.is_nan() {
                groups
                    .entry(group.1.clone())
                    .or_default()
                    .values
                    .push_value(values.metric_value, key, self.needs_keys());
            }

            if let Some(ends) = &mut ends {
                ends.entry(key.cell)
                    .or_default()
                    .push((key.repeat, TrialEnd::Completed(values.selection_value)));
            }
        })?;

        if let Some(ends) = ends {
            ends.retain(|cell, _| !unsampled.contains(cell));
            ends.values_mut()
                .for_each(|ends| ends.sort_unstable_by_key(|(repeat, _)| *repeat));
        }

        Ok(())
    }

    /// Hands out the values of trials that had not diverged by a moment, and have a sample there, in the order (cell, repeat). Gives
    /// the cells that have such trials, and none with a sample: of these, those that diverged say nothing about how good they are.
    pub(super) fn read_samples(
        &self,
        rows: RowSource<'_>,
        at: Length,
        each: &mut dyn FnMut(TrialKey, SampledValues),
    ) -> Result<BTreeSet<u64>, AnalysisError> {
        let parts =
            rows.map_ranges(|reader, part| self.read_range_samples(rows, reader, part, at))?;
        let mut cells: BTreeMap<u64, bool> = BTreeMap::new();
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
        let width = rows.spec.measure.metrics.len();
        let mut samples = MomentSamples::default();
        let mut moment = (u64::MAX, 0);
        reader.read_curves(rows.sweep, part, &mut |trial| {
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
                let value = |column: usize| curve.value_at(row, width, column).unwrap_or(f64::NAN);
                samples.values.push((
                    key,
                    SampledValues {
                        metric_value: value(self.metric.0),
                        selection_value: value(self.selection_metric.0),
                    },
                ));
            }
        })?;

        Ok(samples)
    }

    /// That no trial has a sample at a moment, with the steps around it at which the first one has some.
    fn describe_missing_sample(
        &self,
        rows: RowSource<'_>,
        at: Length,
    ) -> Result<String, AnalysisError> {
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

        let (wanted, around) = around.unwrap_or_default();
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

    /// Statistics per group and step, in the order (group, step).
    ///
    /// # Errors
    /// The store failed, or it would take too long.
    pub fn compute_curves(&self, rows: RowSource<'_>) -> Result<Vec<TableEntry>, AnalysisError> {
        self.compute_curve_page(rows, CellRange::ALL, &Cell::new(0))
    }

    fn compute_curve_page(
        &self,
        rows: RowSource<'_>,
        within: CellRange,
        drawn: &Cell<usize>,
    ) -> Result<Vec<TableEntry>, AnalysisError> {
        let mut points: BTreeMap<(Vec<u64>, u64), KeyedValues> = BTreeMap::new();
        let parts = rows.map_cell_ranges(within, |reader, part| {
            self.read_curve_points(rows, reader, part)
        })?;
        for (cell, curves) in parts.into_iter().flatten() {
            let group = self.group_key(rows.spec, cell);
            for (step, values) in curves.0 {
                points
                    .entry((group.clone(), step))
                    .or_default()
                    .append_values(values);
            }
        }

        // What is asked for by name may be about trials that had diverged, which have no part in the curves any more; and whether
        // all cells of a row have ended a repeat, curves do not say.
        let named = !self.stats.is_empty();
        let outcomes = if named || self.pooled {
            self.read_groups(rows, within, false)?.0
        } else {
            BTreeMap::new()
        };

        self.check_bootstrap_work(points.values().map(|point| point.values.len()), drawn)?;
        let cells = rows.cell_context();
        let entry = |((key, step), values): ((Vec<u64>, u64), KeyedValues)| {
            let group = match outcomes.get(&key) {
                Some(group) if named => group.at_step(step),
                Some(group) => group.at_step(step).with_completed(&values.values),
                None => TrialGroup::default().with_completed(&values.values),
            };
            self.build_entry(cells, &key, step, TrialGroup { values, ..group })
        };

        Ok(points.into_par_iter().map(entry).collect())
    }

    /// The curves of a part of the trials, cell by cell.
    fn read_curve_points(
        &self,
        rows: RowSource<'_>,
        reader: &dyn StoreReader,
        part: TrialRange,
    ) -> Result<Vec<(u64, CurvePoints)>, StoreError> {
        let at = (rows.spec.measure.metrics.len(), self.metric.0);
        let mut cells: Vec<(u64, CurvePoints)> = Vec::new();
        reader.read_curves(rows.sweep, part, &mut |trial| {
            if cells.last().is_none_or(|(cell, _)| *cell != trial.key.cell) {
                cells.push((trial.key.cell, CurvePoints::default()));
            }
            if let Some((_, points)) = cells.last_mut() {
                points.add_trial(trial, at, self.needs_keys());
            }
        })?;

        Ok(cells)
    }

    fn build_entry(
        &self,
        of: CellContext<'_>,
        key: &[u64],
        step: u64,
        group: TrialGroup,
    ) -> TableEntry {
        let whole = group.complete_repeats();
        let together = whole
            .as_ref()
            .map(|whole| [whole.len(), group.repeats.len()]);
        let TrialGroup {
            cells,
            values,
            diverged,
            counts,
            ..
        } = group;
        let resampling = || of.resampling_stream(&cells);

        let counting = self.stats.iter().any(Statistic::counts_diverged);
        let counted = || {
            let values = diverged
                .iter()
                .map(|trial| trial.value)
                .collect::<Option<Vec<f64>>>()?;
            Some(KeyedValues {
                values,
                keys: diverged.iter().map(|trial| trial.key).collect(),
            })
        };
        let all = counting.then(counted).flatten().map(|counted| {
            let mut all = values.clone();
            all.append_values(counted);
            self.sample_with_repeats(all, whole.as_ref())
        });
        let figures = StatisticInput {
            with_diverged: all,
            completed: self.sample_with_repeats(values, whole.as_ref()),
            diverged_at: Sample::new(diverged.iter().map(|trial| trial.step as f64).collect()),
            counts,
            open_resampling: &resampling,
            fixed_streams: &self.conditions.fixed_streams,
            stops_early: self.conditions.stops_early,
            complete_repeats: together,
        };

        TableEntry {
            values: self.axis_values(of.spec, key),
            step,
            summary: Summary::from_sample(&figures.completed, figures.adjusted_level(0.95)),
            counts,
            statistics: self
                .stats
                .iter()
                .flat_map(|statistic| statistic.compute_values(&figures))
                .collect(),
            note: figures.describe_caveats(&self.stats),
            rank: None,
        }
    }

    /// Refuses what would keep a core busy for minutes, counting what was drawn for earlier pages.
    pub(super) fn check_bootstrap_work(
        &self,
        sizes: impl Iterator<Item = usize>,
        drawn: &Cell<usize>,
    ) -> Result<(), AnalysisError> {
        let asked = self
            .stats
            .iter()
            .filter(|statistic| statistic.is_resampled())
            .count();
        let draws = drawn
            .get()
            .saturating_add((sizes.sum::<usize>() * asked).saturating_mul(RESAMPLES));
        drawn.set(draws);

        if draws > MAX_DRAWS {
            let message = format!(
                "a bootstrap of so many values would take {draws} draws or more, of at most {MAX_DRAWS}: use ci95, which \
                 agrees with it for large samples, or ask for less"
            );
            return Err(AnalysisError::Invalid(message));
        }

        Ok(())
    }
}

/// Cells of a sweep, by their numbers: from one on, up to and without another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CellRange {
    from: u64,
    to: u64,
}

impl CellRange {
    const ALL: Self = Self {
        from: 0,
        to: TrialRange::ALL.to.cell,
    };

    fn contains(self, cell: u64) -> bool {
        (self.from..self.to).contains(&cell)
    }
}

/// Points of curves, or rows of a table, that are worked out at a time.
const ENTRIES_PER_PAGE: u64 = 2_000;
/// Values of trials that are read for them.
const VALUES_PER_PAGE: u64 = 1_000_000;
/// What an entry takes while it is on its way to a peer, about, in bytes.
const ENTRY_BYTES: u64 = 1024;
/// What a value takes.
const VALUE_BYTES: u64 = 16;
/// What the end of a trial takes while cells are ranked.
const END_BYTES: u64 = 64;

impl TableQuery {
    /// Rows of a table, page by page: as many at a time as can be told apart from the others.
    ///
    /// # Errors
    /// As for [`Query::table`].
    pub fn for_each_table_page(
        &self,
        rows: RowSource<'_>,
        each: &mut dyn FnMut(Vec<TableEntry>) -> bool,
    ) -> Result<(), AnalysisError> {
        self.for_each_page_of_cells(cells_per_page(rows.spec, 1), rows, each)
    }

    /// The same with so many cells in a page, where rows are of one cell.
    pub(super) fn for_each_page_of_cells(
        &self,
        cells: u64,
        rows: RowSource<'_>,
        each: &mut dyn FnMut(Vec<TableEntry>) -> bool,
    ) -> Result<(), AnalysisError> {
        // Whether there is a sample at a moment is known at the end; and what is one page is read once.
        if self.at.is_some() || self.pooled || cells >= rows.spec.grid.cell_number_bound() {
            return hand_out_pages(self.compute_table(rows)?, each);
        }

        let places = self.rank_cells(rows)?;
        let drawn = Cell::new(0);
        self.for_each_page(
            rows,
            cells,
            &|within| self.compute_table_page(rows, within, &places, &drawn),
            each,
        )
    }

    /// Points of curves, page by page.
    ///
    /// # Errors
    /// As for [`Query::curves`].
    pub fn for_each_curve_page(
        &self,
        rows: RowSource<'_>,
        each: &mut dyn FnMut(Vec<TableEntry>) -> bool,
    ) -> Result<(), AnalysisError> {
        let drawn = Cell::new(0);
        let cells = cells_per_page(rows.spec, max_samples_per_trial(rows.spec));
        self.for_each_page(
            rows,
            cells,
            &|within| self.compute_curve_page(rows, within, &drawn),
            each,
        )
    }

    /// Where a row is of one cell, so many cells are taken at a time.
    fn for_each_page(
        &self,
        rows: RowSource<'_>,
        cells: u64,
        work_out: &dyn Fn(CellRange) -> Result<Vec<TableEntry>, AnalysisError>,
        each: &mut dyn FnMut(Vec<TableEntry>) -> bool,
    ) -> Result<(), AnalysisError> {
        if self.pooled {
            return hand_out_pages(work_out(CellRange::ALL)?, each);
        }

        let numbers = rows.spec.grid.cell_number_bound();
        let mut from = 0;
        while from < numbers {
            let within = CellRange {
                from,
                to: from.saturating_add(cells).min(numbers),
            };
            let page = work_out(within)?;
            if !page.is_empty() && !each(page) {
                return Ok(());
            }

            from = within.to;
        }

        Ok(())
    }

    /// How many bytes it takes to answer, about, of so many trials: of a table, or of curves; in pages or in one piece.
    pub fn estimate_bytes(&self, spec: &Spec, done: u64, curves: bool, paged: bool) -> u64 {
        let samples = if curves {
            max_samples_per_trial(spec)
        } else {
            1
        };

        if paged && !self.pooled && (curves || self.at.is_none()) {
            // Of curves, a cell is read as a whole.
            let values = VALUES_PER_PAGE
                .max(samples.saturating_mul(u64::from(spec.repeats)))
                .min(done.saturating_mul(samples));

            // Where cells are ranked, all of them are.
            let ends = if !curves && self.is_ranked(spec) {
                done.saturating_mul(END_BYTES)
            } else {
                0
            };

            let page = (4 * ENTRIES_PER_PAGE).min(done.saturating_mul(samples)) * ENTRY_BYTES
                + values * VALUE_BYTES;
            return page.saturating_add(ends);
        }

        let places = self.axes.iter().fold(1_u64, |n, axis| {
            n.saturating_mul(spec.grid.axes()[*axis].len())
        });
        let rows = places
            .min(done.max(MAX_EMPTY_ROWS))
            .min(spec.grid.cell_count());

        let values = done.saturating_mul(samples).saturating_mul(VALUE_BYTES);
        rows.saturating_mul(samples)
            .saturating_mul(ENTRY_BYTES)
            .saturating_add(values)
    }
}

/// How many cells are worked out at a time, of trials with so many samples each.
fn cells_per_page(spec: &Spec, samples: u64) -> u64 {
    let values = samples.saturating_mul(u64::from(spec.repeats));
    (ENTRIES_PER_PAGE / samples)
        .min(VALUES_PER_PAGE / values)
        .max(1)
}

/// The most samples that a trial of a sweep has.
fn max_samples_per_trial(spec: &Spec) -> u64 {
    let classes =
        (0..spec.grid.class_count()).filter(|class| spec.grid.class_cell_count(*class) > 0);
    let of_class = |class| {
        let config = spec
            .grid
            .resolve_config(spec.grid.class_cell_at(class, 0))
            .ok()?;
        Some(
            config
                .total_steps()
                .div_ceil(config.length_in_steps(spec.measure.every).max(1)),
        )
    };

    classes.filter_map(of_class).max().unwrap_or(1).max(1)
}

fn hand_out_pages(
    mut entries: Vec<TableEntry>,
    each: &mut dyn FnMut(Vec<TableEntry>) -> bool,
) -> Result<(), AnalysisError> {
    while !entries.is_empty() {
        let rest = entries.split_off(entries.len().min(ENTRIES_PER_PAGE as usize));
        if !each(std::mem::replace(&mut entries, rest)) {
            break;
        }
    }
    Ok(())
}

impl<'a> RowSource<'a> {
    /// The stream of resamples of some cells.
    pub(super) fn resampling_stream(self, cells: &[u64]) -> RandomStream {
        self.cell_context().resampling_stream(cells)
    }

    /// Does something with each part of the rows, on several threads; what came of it, in the order (cell, repeat).
    pub(super) fn map_ranges<T: Send>(
        self,
        work: impl Fn(&dyn StoreReader, TrialRange) -> Result<T, StoreError> + Sync,
    ) -> Result<Vec<T>, StoreError> {
        self.readers.map_ranges(
            &self
                .readers
                .split_trials(self.spec.grid.cell_number_bound(), self.spec.repeats),
            work,
        )
    }

    /// The same with the parts of these cells.
    fn map_cell_ranges<T: Send>(
        self,
        within: CellRange,
        work: impl Fn(&dyn StoreReader, TrialRange) -> Result<T, StoreError> + Sync,
    ) -> Result<Vec<T>, StoreError> {
        if within == CellRange::ALL {
            return self.map_ranges(work);
        }

        let mut parts = self
            .readers
            .split_trials(within.to - within.from, self.spec.repeats);
        for part in &mut parts {
            part.from.cell += within.from;
            part.to.cell = part.to.cell.saturating_add(within.from);
        }

        if let Some(last) = parts.last_mut() {
            last.to = TrialKey {
                cell: within.to,
                repeat: 0,
            };
        }

        self.readers.map_ranges(&parts, work)
    }

    fn cell_context(self) -> CellContext<'a> {
        CellContext {
            spec: self.spec,
            dataset_hash: self.dataset_hash,
        }
    }
}

impl CellContext<'_> {
    /// The stream of resamples of some cells: by what they are, and not by where they stand in the grid.
    fn resampling_stream(self, cells: &[u64]) -> RandomStream {
        let configs = cells
            .iter()
            .filter_map(|cell| self.spec.grid.resolve_config(*cell).ok());
        let identity: Vec<u8> = configs
            .flat_map(|config| self.spec.compute_cell_hash(&config, &self.dataset_hash))
            .collect();

        let streams = self
            .spec
            .trial_streams(TrialKey { cell: 0, repeat: 0 }, [0; 32]);
        streams.open_stream(Purpose::Bootstrap, &identity)
    }
}

/// The row of a cell, which is the last one if there is one.
fn cell_row_mut(cells: &mut Vec<CellRows>, cell: u64) -> &mut CellRows {
    if cells.last().is_none_or(|last| last.cell != cell) {
        cells.push(CellRows {
            cell,
            ..CellRows::default()
        });
    }
    cells.last_mut().expect("it was pushed if it was not there")
}

impl TrialGroup {
    /// Adds trials of a cell that come after all that are here.
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

    /// With so many completed trials, and no others that are known.
    fn with_completed(self, values: &[f64]) -> Self {
        Self {
            counts: OutcomeCounts {
                completed: values.len() as u64,
                ..OutcomeCounts::default()
            },
            ..self
        }
    }

    /// The repeats that all of its cells have ended, if these are not all that any has.
    fn complete_repeats(&self) -> Option<BTreeSet<u32>> {
        let cells = self.cell_count.max(self.cells.len() as u64);
        let whole: BTreeSet<u32> = self
            .repeats
            .iter()
            .filter(|(_, n)| **n == cells)
            .map(|(repeat, _)| *repeat)
            .collect();
        (whole.len() < self.repeats.len()).then_some(whole)
    }

    /// As it was after a step, without values.
    fn at_step(&self, step: u64) -> Self {
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

/// Most draws of one table: about a minute on two cores.
pub(super) const MAX_DRAWS: usize = 20_000_000_000;

/// Above this many cells, rows are listed only where there are results.
pub(super) const MAX_EMPTY_ROWS: u64 = 10_000;

pub(super) fn find_axis(axes: &[Axis], name: &str) -> Result<usize, AnalysisError> {
    if let Some(at) = axes.iter().position(|axis| axis.name == name) {
        return Ok(at);
    }

    let suffix = format!(".{name}");
    let ends = |axis: &Axis| axis.name.ends_with(&suffix) || axis.field.as_deref() == Some(name);
    let mut found = axes.iter().enumerate().filter(|(_, axis)| ends(axis));
    match (found.next(), found.next()) {
        (Some((at, _)), None) => Ok(at),
        _ => {
            let hint = suggest_nearest(name, axes.iter().map(|axis| axis.name.as_str()));
            Err(AnalysisError::Unknown(format!(
                "the sweep has no axis '{name}', {hint}"
            )))
        }
    }
}

fn find_metric(metrics: &[Metric], name: &str) -> Result<(usize, Metric), AnalysisError> {
    if name.is_empty() {
        return Ok(main_metric(metrics));
    }

    match metrics.iter().position(|m| m.name() == name) {
        Some(at) => Ok((at, metrics[at].clone())),
        None => {
            let names: Vec<_> = metrics.iter().map(Metric::name).collect();
            let hint = suggest_nearest(name, names.iter().map(AsRef::as_ref));
            Err(AnalysisError::Unknown(format!(
                "the sweep does not measure '{name}', {hint}"
            )))
        }
    }
}

fn parse_moment(at: &str) -> Result<Option<Length>, AnalysisError> {
    let at = at.trim();
    if at.is_empty() || at == "final" {
        return Ok(None);
    }

    let parsed = at
        .split_once(' ')
        .and_then(|(count, unit)| match unit.trim() {
            "epoch" | "epochs" => count.parse().ok().map(Length::Epochs),
            "step" | "steps" => count.parse().ok().map(Length::Steps),
            _ => None,
        });

    let unknown = || {
        AnalysisError::Invalid(format!(
            "at: expected something like \"20 epochs\", \"500 steps\" or final, found '{at}'"
        ))
    };
    parsed.map(Some).ok_or_else(unknown)
}
