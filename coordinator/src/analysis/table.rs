//! Tables and mean curves over the cells of a sweep.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use ergodic_common::config::Length;
use ergodic_common::ids::CellIndex;
use ergodic_common::spec_file::node::SpecValue;
use rayon::prelude::*;

use super::error::AnalysisError;
use super::query::TableQuery;
use super::ranking;
use super::ranking::RowRank;
use super::row_source::RowSource;
use super::trial_values::read_cell_trials;
use crate::analysis::groups::{KeyedValues, TrialGroup, TrialGroups};
use crate::analysis::query::MAX_DRAWS;
use crate::analysis::row_source::{CellContext, CellRange};
use crate::estimators::bootstrap::RESAMPLES;
use crate::estimators::rank::CellEnds;
use crate::estimators::statistic::{Statistic, StatisticInput};
use crate::estimators::{Sample, Summary};
use crate::records::OutcomeCounts;

/// One row of a table, or one point of a curve.
#[derive(Debug, Clone, PartialEq)]
pub struct TableEntry {
    /// The value on each axis of the query.
    pub values: Vec<SpecValue>,
    /// Step of a curve's point.
    pub step: u64,
    /// Statistics over completed trials.
    pub summary: Summary,
    /// Numbers of trials by outcome.
    pub counts: OutcomeCounts,
    /// The statistics of the query, one number per column; `None` where one is undefined.
    pub statistics: Vec<Option<f64>>,
    /// Caveats, such as why a statistic is missing; empty if there are none.
    pub note: String,
    /// Rank of the row; `None` if rows have no ranks, and for points of curves.
    pub rank: Option<RowRank>,
}

impl TableQuery {
    /// Computes statistics per group of cells, in the order of the grid. Groups without a row are
    /// listed too, as long as the grid is small enough to print.
    ///
    /// # Errors
    /// The store failed, no curve has a sample at the moment of the query, or it would take too long.
    pub fn compute_table(&self, rows: RowSource<'_>) -> Result<Vec<TableEntry>, AnalysisError> {
        let is_ranked = self.is_ranked(rows.spec);
        let (mut groups, mut ends) = self.read_groups(rows, CellRange::ALL, is_ranked)?;

        if let Some(at) = self.at {
            self.add_curve_samples(rows, at, &mut groups, is_ranked.then_some(&mut ends))?;
        }

        // If a cell of the row has not begun, no repeat has ended in all its cells.
        let members: Vec<Vec<CellIndex>> = groups
            .values()
            .map(|group| {
                if group.cells.len() as u64 >= group.cell_count {
                    group.cells.clone()
                } else {
                    Vec::new()
                }
            })
            .collect();
        let places = match self.ranking_metric(rows.spec) {
            Some(metric) => ranking::rank_rows(rows.spec, metric, &ends, &members),
            None => vec![None; members.len()],
        };

        self.build_entries(rows, groups, places, &Cell::new(0))
    }

    /// Computes the rows of some cells, one each, with their ranks among all cells.
    pub(super) fn compute_table_page(
        &self,
        rows: RowSource<'_>,
        within: CellRange,
        places: &BTreeMap<CellIndex, RowRank>,
        drawn: &Cell<usize>,
    ) -> Result<Vec<TableEntry>, AnalysisError> {
        let (groups, _) = self.read_groups(rows, within, false)?;
        let places = groups
            .values()
            .map(|group| places.get(group.cells.first()?).copied())
            .collect();
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

    /// Ranks all cells by the ends of their trials.
    pub(super) fn rank_cells(
        &self,
        rows: RowSource<'_>,
    ) -> Result<BTreeMap<CellIndex, RowRank>, AnalysisError> {
        let Some(metric) = self.ranking_metric(rows.spec) else {
            return Ok(BTreeMap::new());
        };

        let ends = self.read_cell_ends(rows)?;
        let members: Vec<Vec<CellIndex>> = ends.keys().map(|cell| vec![*cell]).collect();
        let places = ranking::rank_rows(rows.spec, metric, &ends, &members);
        Ok(ends
            .keys()
            .zip(places)
            .filter_map(|(cell, place)| Some((*cell, place?)))
            .collect())
    }

    /// Reads the ends of each cell's trials.
    fn read_cell_ends(
        &self,
        rows: RowSource<'_>,
    ) -> Result<BTreeMap<CellIndex, CellEnds>, AnalysisError> {
        Ok(read_cell_trials(self, rows)?
            .into_iter()
            .map(|(cell, trials)| (cell, trials.ends))
            .collect())
    }

    fn add_curve_samples(
        &self,
        rows: RowSource<'_>,
        at: Length,
        groups: &mut TrialGroups,
        mut ends: Option<&mut BTreeMap<CellIndex, CellEnds>>,
    ) -> Result<(), AnalysisError> {
        // The cell of the sample before, with the group that it belongs to if it is selected.
        let mut group: (CellIndex, Option<Vec<u64>>) = (CellIndex(u64::MAX), None);
        let unsampled = self.read_samples(rows, at, &mut |key, values| {
            if group.0 != key.cell {
                let is_selected = self.selects_cell(rows.spec, key.cell);
                group = (
                    key.cell,
                    is_selected.then(|| self.group_key(rows.spec, key.cell)),
                );
            }

            let Some(group) = &group.1 else { return };
            if !values.metric_value.is_nan() {
                groups.entry(group.clone()).or_default().values.push_value(
                    values.metric_value,
                    key,
                    self.needs_keys(),
                );
            }

            if let Some(ends) = &mut ends {
                let ends = ends.entry(key.cell).or_default();
                ends.extend(values.end.map(|end| (key.repeat.0, end)));
            }
        })?;

        if let Some(ends) = ends {
            ends.retain(|cell, _| !unsampled.contains(cell));
            ends.values_mut()
                .for_each(|ends| ends.sort_unstable_by_key(|(repeat, _)| *repeat));
        }

        Ok(())
    }

    /// Computes statistics per group and step, ordered by group and step.
    ///
    /// # Errors
    /// The store failed, or the computation would take too long.
    pub fn compute_curves(&self, rows: RowSource<'_>) -> Result<Vec<TableEntry>, AnalysisError> {
        self.compute_curve_page(rows, CellRange::ALL, &Cell::new(0))
    }

    pub(super) fn compute_curve_page(
        &self,
        rows: RowSource<'_>,
        within: CellRange,
        drawn: &Cell<usize>,
    ) -> Result<Vec<TableEntry>, AnalysisError> {
        let mut points: BTreeMap<(Vec<u64>, u64), KeyedValues> = BTreeMap::new();
        let parts = rows.map_cell_ranges(within, |reader, part| {
            self.read_curve_points(rows, reader, part)
        })?;
        let selected = parts
            .into_iter()
            .flatten()
            .filter(|(cell, _)| self.selects_cell(rows.spec, *cell));
        for (cell, curves) in selected {
            let group = self.group_key(rows.spec, cell);
            for (step, values) in curves.0 {
                points
                    .entry((group.clone(), step))
                    .or_default()
                    .append_values(values);
            }
        }

        // Curves miss diverged trials, and do not say whether a repeat ended in every cell of a
        // row. Named statistics and pooled rows need both, so the rows are read.
        let named = !self.stats.is_empty();
        let outcomes = if named || self.pooled {
            self.read_groups(rows, within, false)?.0
        } else {
            BTreeMap::new()
        };

        self.check_bootstrap_work(points.values().map(|point| point.values.len()), drawn)?;
        let cells = rows.cell_context();
        Ok(points
            .into_par_iter()
            .map(|((key, step), values)| {
                let group = match outcomes.get(&key) {
                    Some(group) if named => group.at_step(step),
                    Some(group) => group.at_step(step).with_completed(&values.values),
                    None => TrialGroup::default().with_completed(&values.values),
                };
                self.build_entry(cells, &key, step, TrialGroup { values, ..group })
            })
            .collect())
    }

    fn build_entry(
        &self,
        of: CellContext<'_>,
        key: &[u64],
        step: u64,
        group: TrialGroup,
    ) -> TableEntry {
        let whole = group.complete_repeats();
        let complete_repeats = whole
            .as_ref()
            .map(|whole| [whole.len(), group.repeats.len()]);
        let with_diverged = self.sample_with_diverged(&group, whole.as_ref());
        let pooled_repeats = self.pooled.then_some(group.repeats.len());
        let TrialGroup {
            cells,
            values,
            diverged,
            counts,
            ..
        } = group;

        let figures = StatisticInput {
            with_diverged,
            completed: self.sample_with_repeats(values, whole.as_ref()),
            diverged_at: Sample::new(diverged.iter().map(|trial| trial.step as f64).collect()),
            counts,
            open_resampling: &|| of.resampling_stream(&cells),
            fixed_streams: &self.conditions.fixed_streams,
            stops_early: self.conditions.stops_early,
            complete_repeats,
            pooled_repeats,
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

    /// The sample in which diverged trials count with their chance level; `None` if no statistic
    /// needs it, or a trial has no such level.
    fn sample_with_diverged(
        &self,
        group: &TrialGroup,
        whole: Option<&BTreeSet<u32>>,
    ) -> Option<Sample> {
        if !self.stats.iter().any(Statistic::counts_diverged) {
            return None;
        }

        let diverged = KeyedValues {
            values: group
                .diverged
                .iter()
                .map(|trial| trial.value)
                .collect::<Option<_>>()?,
            keys: group.diverged.iter().map(|trial| trial.key).collect(),
        };
        let mut all = group.values.clone();
        all.append_values(diverged);
        Some(self.sample_with_repeats(all, whole))
    }

    /// Refuses a query that would take minutes, counting the draws for earlier pages.
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
                "a bootstrap of this many values would take at least {draws} draws; at most {MAX_DRAWS} are allowed: use \
                 ci95, which agrees with it for large samples, or ask for fewer rows or statistics"
            );
            return Err(AnalysisError::Invalid(message));
        }

        Ok(())
    }
}
