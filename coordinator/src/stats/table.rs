//! Tables and mean curves over the cells of a sweep.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use ergodic_common::axis::Axis;
use ergodic_common::config::Length;
use ergodic_common::error::suggest_nearest;
use ergodic_common::metric::Metric;
use ergodic_common::repeats::StoppingRule;
use ergodic_common::seed::{Purpose, RandomStream};
use ergodic_common::tree::SpecValue;
use ergodic_common::{Outcome, Spec, TrialKey};
use rayon::prelude::*;

use super::best::{self, Ends, Place};
use super::bootstrap::RESAMPLES;
use super::chance::{chance, has_chance};
use super::compare::trials;
use super::crossed::Crossing;
use super::rank::End;
use super::statistic::{Figures, Statistic};
use super::{Sample, Summary};
use crate::core::{Counts, chooser, main_metric};
use crate::store::{Part, Reader, Readers, SampledTrial, StoreError};

/// A question that cannot be answered, in words; or the store failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// There is no such axis, metric, statistic or step.
    #[error("{0}")]
    Unknown(String),
    /// It asks for something impossible.
    #[error("{0}")]
    Bad(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One row of a table, or one point of a curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Value of each axis asked for.
    pub values: Vec<SpecValue>,
    /// Step, of a curve's point.
    pub step: u64,
    /// Statistics over completed trials.
    pub summary: Summary,
    /// Trials by outcome.
    pub counts: Counts,
    /// The statistics asked for by name, one number per column; `None` where one is not defined.
    pub figures: Vec<Option<f64>>,
    /// Why some are not, or what else is to be known of them; empty if nothing is.
    pub note: String,
    /// Where it stands among all rows; `None` where rows have no order, and of a point of a curve.
    pub place: Option<Place>,
}

/// What is asked of a sweep.
#[derive(Debug, Clone, Copy, Default)]
pub struct Question<'a> {
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
pub struct Query {
    axes: Vec<usize>,
    /// Whether a row may be of several cells.
    pooled: bool,
    metric: (usize, Metric),
    /// The metric by which rows are ranked: that of the validation images, where there are some.
    chooser: (usize, Metric),
    /// Why rows have no order, if they have none.
    unranked: Option<String>,
    at: Option<Length>,
    stats: Vec<Statistic>,
    weighting: Weighting,
    crossing: Option<Crossing>,
    terms: Terms,
}

/// On what terms the intervals of a sweep hold.
#[derive(Debug, Clone, Default)]
struct Terms {
    /// Streams that are the same in all repeats, in words; empty if none is.
    fixed: String,
    /// Whether cells end when they look known well enough.
    stops: bool,
}

/// Where the rows of a sweep are.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// The sweep.
    pub spec: &'a Spec,
    /// Its number in the store.
    pub sweep: i64,
    /// The store.
    pub readers: &'a Readers,
    /// BLAKE3 of the dataset that it was pinned to, which belongs to the identity of its cells; zeros without one.
    pub data: [u8; 32],
}

/// What cells are, apart from where their rows stand.
#[derive(Clone, Copy)]
struct Cells<'a> {
    spec: &'a Spec,
    data: [u8; 32],
}

/// Trials of one cell, in the order of their repeats.
#[derive(Debug, Default)]
struct CellRows {
    cell: u64,
    /// As in [`Group`].
    values: Values,
    diverged: Vec<Divergence>,
    counts: Counts,
    /// How they ended, where that is asked for.
    ends: Ends,
    /// Their repeats, where a row may be of several cells.
    repeats: Vec<u32>,
}

/// Values of trials that are numbers, infinite ones too.
#[derive(Debug, Clone, Default)]
struct Values {
    values: Vec<f64>,
    /// Of which cell and repeat each is; empty where that does not matter.
    of: Vec<TrialKey>,
}

/// A trial that diverged.
#[derive(Debug, Clone, Copy)]
struct Divergence {
    key: TrialKey,
    step: u64,
    /// What it counts as, where it is to count.
    value: Option<f64>,
}

impl Values {
    fn push(&mut self, value: f64, key: TrialKey, matters: bool) {
        self.values.push(value);
        if matters {
            self.of.push(key);
        }
    }

    /// Those of some repeats.
    fn within(&self, repeats: &BTreeSet<u32>) -> Self {
        let kept = || self.values.iter().zip(&self.of).filter(|(_, key)| repeats.contains(&key.repeat));
        Self { values: kept().map(|(value, _)| *value).collect(), of: kept().map(|(_, key)| *key).collect() }
    }

    fn extend(&mut self, more: Self) {
        // Most cells are in one part, as a whole.
        match self.values.is_empty() {
            true => *self = more,
            false => {
                self.values.extend(more.values);
                self.of.extend(more.of);
            }
        }
    }
}

/// What trials have at a moment.
#[derive(Debug, Default)]
struct Samples {
    /// Cells of trials that had not diverged by then, and whether one of theirs has a row there.
    cells: BTreeMap<u64, bool>,
    values: Vec<(TrialKey, Sampled)>,
}

/// What a trial has at a moment; NaN is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sampled {
    /// Of the metric asked for.
    pub(super) asked: f64,
    /// Of the one by which rows are ranked.
    pub(super) chosen: f64,
}

/// One metric of the curves of a cell: the finite values at each step, steps ascending.
#[derive(Debug, Default)]
struct Points(Vec<(u64, Values)>);

impl Points {
    /// Adds a trial's curve, in rows of so many values.
    fn add(&mut self, trial: SampledTrial<'_>, (width, column): (usize, usize), matters: bool) {
        let SampledTrial { key, curve, .. } = trial;
        for (row, step) in curve.steps().enumerate().take_while(|(_, step)| trial.lives_at(*step)) {
            // The curves of a cell have the same steps, unless something is wrong.
            let at = match self.0.get(row) {
                Some((there, _)) if *there == step => row,
                _ => self.0.binary_search_by_key(&step, |(there, _)| *there).unwrap_or_else(|at| {
                    self.0.insert(at, (step, Values::default()));
                    at
                }),
            };
            if let Some(value) = curve.value(row, width, column).filter(|x| !x.is_nan()) {
                self.0[at].1.push(value, key, matters);
            }
        }
    }
}

/// Trials of some cells, in the order (cell, repeat).
#[derive(Debug, Clone, Default)]
struct Group {
    /// The cells that have rows.
    cells: Vec<u64>,
    /// Values of trials that completed, or had not diverged by the moment asked for.
    values: Values,
    /// Those that had diverged by then.
    diverged: Vec<Divergence>,
    /// Trials that live at the moment asked for count as completed.
    counts: Counts,
    /// Its cells, those without rows too, as far as they were counted.
    all: u64,
    /// How many of its cells have a row of each repeat, where a row may be of several cells.
    repeats: BTreeMap<u32, u64>,
}

/// By the places of their values on the axes that are asked for.
type Groups = BTreeMap<Vec<u64>, Group>;

impl Query {
    /// Checks a question against a sweep.
    ///
    /// # Errors
    /// There is no such axis, metric, statistic or step.
    pub fn new(spec: &Spec, question: &Question<'_>) -> Result<Self, TableError> {
        let axes: Vec<usize> = match question.by {
            [] => (0..spec.grid.axes().len()).collect(),
            names => names.iter().map(|name| find_axis(spec.grid.axes(), name)).collect::<Result<_, _>>()?,
        };
        if let Some(twice) = (1..axes.len()).find(|at| axes[..*at].contains(&axes[*at])) {
            let name = &spec.grid.axes()[axes[twice]].name;
            return Err(TableError::Bad(format!("by: the axis '{name}' stands twice")));
        }
        let metric = find_metric(&spec.measure.metrics, question.metric)?;
        let stats = Statistic::list(question.stats)?;
        if stats.iter().any(Statistic::counts_diverged) && !has_chance(&metric.1) {
            let message = format!(
                "statistics that count diverged trials (_all) are of accuracies: {} has no worst value that a diverged trial \
                 could count as; p_diverged tells how many there are, and ranks take them as the worst",
                metric.1.name()
            );
            return Err(TableError::Bad(message));
        }
        let pooled = (0..spec.grid.axes().len()).any(|axis| !axes.contains(&axis));
        let fixed: Vec<&str> = spec.seeds.fixed.iter().map(|purpose| purpose.as_str()).collect();
        let terms = Terms {
            fixed: fixed.join(", "),
            stops: spec.stopping_rule.as_ref().is_some_and(StoppingRule::is_precision_based),
        };
        let (weighting, crossing) = (question.weighting, Crossing::of(spec));
        let chooser = chooser(&spec.measure.metrics, &metric);
        let (unranked, at) = (best::unranked(spec, &chooser.1), find_step(question.at)?);
        Ok(Self { axes, pooled, metric, chooser, unranked, at, stats, weighting, crossing, terms })
    }

    /// Whether it matters of which cell and repeat a value is.
    fn keys_matter(&self) -> bool {
        self.pooled || self.crossing.is_some()
    }

    /// Values as a sample. Where cells of a row have not all ended the same repeats, its mean is known by those that all have ended:
    /// others differ by which cells they are of, too.
    fn sample(&self, values: Values, whole: Option<&BTreeSet<u32>>) -> Sample {
        let Some(whole) = whole else { return self.sample_of(values) };
        let some = self.sample_of(values.within(whole));
        self.sample_of(values).known_by(some)
    }

    fn sample_of(&self, values: Values) -> Sample {
        let Values { values, of } = values;
        if !self.keys_matter() {
            return Sample::new(values);
        }
        let repeats: Vec<u32> = of.iter().map(|key| key.repeat).collect();
        let sample = match &self.crossing {
            Some(crossing) => Sample::crossed(values, &repeats, crossing),
            None => Sample::pooled(values, &repeats),
        };
        match self.weighting {
            Weighting::Cells if self.pooled => {
                let cells: Vec<u64> = of.iter().map(|key| key.cell).collect();
                sample.alike(&repeats, &cells, self.crossing.as_ref())
            }
            _ => sample,
        }
    }

    /// The metric.
    pub fn metric(&self) -> &Metric {
        &self.metric.1
    }

    /// The metric by which rows are ranked.
    pub fn ranked_by(&self) -> &Metric {
        &self.chooser.1
    }

    /// Its place among the sweep's metrics.
    pub(super) fn ranked_by_column(&self) -> usize {
        self.chooser.0
    }

    /// Its place among the sweep's metrics.
    pub(super) fn column(&self) -> usize {
        self.metric.0
    }

    /// The moment; none for the end of the trial.
    pub(super) fn at(&self) -> Option<Length> {
        self.at
    }

    /// Columns of the statistics asked for by name.
    pub fn columns(&self) -> Vec<String> {
        self.stats.iter().flat_map(Statistic::columns).collect()
    }

    /// Names of the axes.
    pub fn axis_names(&self, spec: &Spec) -> Vec<String> {
        self.axes.iter().map(|at| spec.grid.axes()[*at].name.clone()).collect()
    }

    fn group(&self, spec: &Spec, cell: u64) -> Vec<u64> {
        let indices = spec.grid.value_indices(cell);
        self.axes.iter().map(|axis| indices[*axis]).collect()
    }

    fn values(&self, spec: &Spec, group: &[u64]) -> Vec<SpecValue> {
        self.axes.iter().zip(group).map(|(axis, i)| spec.grid.axes()[*axis].value_at(*i)).collect()
    }

    /// Statistics per group of cells, in the order of the grid; groups without a row are listed too, as long as the
    /// grid is small enough to print.
    ///
    /// # Errors
    /// The store failed, no curve has a sample at the step asked for, or it would take too long.
    pub fn table(&self, rows: Rows<'_>) -> Result<Vec<Entry>, TableError> {
        let is_ranked = self.is_ranked(rows.spec);
        let (mut groups, mut ends) = self.outcomes(rows, Within::ALL, is_ranked)?;
        if let Some(at) = self.at {
            self.sample_curves(rows, at, &mut groups, is_ranked.then_some(&mut ends))?;
        }
        // Of a row of which a cell has not begun, no repeat has ended in all cells.
        let has_begun = |group: &&Group| group.cells.len() as u64 >= group.all;
        let cells = |group: &Group| Some(group).filter(has_begun).map(|group| group.cells.clone());
        let members: Vec<Vec<u64>> = groups.values().map(|group| cells(group).unwrap_or_default()).collect();
        let places = match is_ranked {
            true => best::places(rows.spec, self.ranked_by(), &ends, &members),
            false => vec![None; members.len()],
        };
        self.entries(rows, groups, places, &Cell::new(0))
    }

    /// Rows of some cells, one each, with the places that these have among all.
    fn table_within(
        &self,
        rows: Rows<'_>,
        within: Within,
        places: &BTreeMap<u64, Place>,
        drawn: &Cell<usize>,
    ) -> Result<Vec<Entry>, TableError> {
        let (groups, _) = self.outcomes(rows, within, false)?;
        let place = |group: &Group| places.get(group.cells.first()?).copied();
        let places = groups.values().map(place).collect();
        self.entries(rows, groups, places, drawn)
    }

    fn entries(
        &self,
        rows: Rows<'_>,
        groups: Groups,
        places: Vec<Option<Place>>,
        drawn: &Cell<usize>,
    ) -> Result<Vec<Entry>, TableError> {
        self.check_work(groups.values().map(|group| group.values.values.len() + group.diverged.len()), drawn)?;
        let cells = rows.cells();
        let mut entries: Vec<Entry> =
            groups.into_par_iter().map(|(key, group)| self.entry(cells, &key, 0, group)).collect();
        entries.iter_mut().zip(places).for_each(|(entry, place)| entry.place = place);
        Ok(entries)
    }

    /// Where each cell stands among all, at the end of its trials.
    fn places_of_cells(&self, rows: Rows<'_>) -> Result<BTreeMap<u64, Place>, TableError> {
        if !self.is_ranked(rows.spec) {
            return Ok(BTreeMap::new());
        }
        let ends = self.ends(rows)?;
        let members: Vec<Vec<u64>> = ends.keys().map(|cell| vec![*cell]).collect();
        let places = best::places(rows.spec, self.ranked_by(), &ends, &members);
        Ok(ends.keys().zip(places).filter_map(|(cell, place)| Some((*cell, place?))).collect())
    }

    /// How the trials of each cell ended.
    fn ends(&self, rows: Rows<'_>) -> Result<BTreeMap<u64, Ends>, TableError> {
        Ok(trials(self, rows)?.into_iter().map(|(cell, trials)| (cell, trials.ends)).collect())
    }

    fn is_ranked(&self, spec: &Spec) -> bool {
        spec.grid.cell_count() > 1 && self.unranked.is_none()
    }

    /// What counts alike in rows of several cells, if there are any.
    pub fn weighting(&self) -> Option<&'static str> {
        self.pooled.then_some(match self.weighting {
            Weighting::Trials => "trials",
            Weighting::Cells => "cells",
        })
    }

    /// Why its rows have no order, if they have none.
    pub fn unranked(&self) -> Option<&str> {
        self.unranked.as_deref()
    }

    /// Trials by outcome, with their final values where these are asked for; and how each ended, if that is.
    fn outcomes(
        &self,
        rows: Rows<'_>,
        within: Within,
        with_ends: bool,
    ) -> Result<(Groups, BTreeMap<u64, Ends>), TableError> {
        let spec = rows.spec;
        let mut ends: BTreeMap<u64, Ends> = BTreeMap::new();
        let mut groups: Groups = BTreeMap::new();
        if spec.grid.cell_number_bound() <= MOST_EMPTY_ROWS {
            for cell in spec.grid.iter().filter(|cell| within.holds(*cell)) {
                groups.entry(self.group(spec, cell)).or_default().all += 1;
            }
        }
        let parts = rows.each_part_of(within, |reader, part| self.ended(rows, reader, part, with_ends))?;
        for mut cell in parts.into_iter().flatten() {
            if with_ends {
                ends.entry(cell.cell).or_default().append(&mut cell.ends);
            }
            groups.entry(self.group(spec, cell.cell)).or_default().extend(cell);
        }
        Ok((groups, ends))
    }

    /// How a part of the trials ended, cell by cell.
    fn ended(
        &self,
        rows: Rows<'_>,
        reader: &dyn Reader,
        part: Part,
        with_ends: bool,
    ) -> Result<Vec<CellRows>, StoreError> {
        let mut cells: Vec<CellRows> = Vec::new();
        let mut about = (u64::MAX, None, None);
        reader.ended(rows.sweep, part, &mut |trial| {
            let (cell, repeat) = (row_of(&mut cells, trial.key.cell), trial.key.repeat);
            if self.pooled {
                cell.repeats.push(repeat);
            }
            let Outcome::Diverged { step } = trial.outcome else {
                cell.counts.add(&trial.outcome);
                let has_completed = trial.outcome == Outcome::Completed;
                let value = |column: usize| trial.metrics.get(column).filter(|x| self.at.is_none() && !x.is_nan());
                if let Some(value) = value(self.metric.0).filter(|_| has_completed) {
                    cell.values.push(value, trial.key, self.keys_matter());
                }
                // What it has at a moment, its curve says.
                if with_ends && !(has_completed && self.at.is_some()) {
                    let chosen = || End::Completed(value(self.chooser.0).unwrap_or(f64::NAN));
                    cell.ends.push((repeat, if has_completed { chosen() } else { End::Failed }));
                }
                return;
            };
            if about.0 != cell.cell {
                let config = rows.spec.grid.resolve_config(cell.cell).ok();
                let limit = self.at.and_then(|at| Some(config.as_ref()?.length_in_steps(at)));
                about = (cell.cell, limit, config.and_then(|config| chance(&self.metric.1, &config)));
            }
            let lives = about.1.is_some_and(|limit| step > limit);
            cell.counts.add(if lives { &Outcome::Completed } else { &trial.outcome });
            if with_ends && !lives {
                cell.ends.push((repeat, End::Diverged));
            }
            if !lives && !self.stats.is_empty() {
                cell.diverged.push(Divergence { key: trial.key, step, value: about.2 });
            }
        })?;
        Ok(cells)
    }

    fn sample_curves(
        &self,
        rows: Rows<'_>,
        at: Length,
        groups: &mut Groups,
        mut ends: Option<&mut BTreeMap<u64, Ends>>,
    ) -> Result<(), TableError> {
        let mut group = (u64::MAX, Vec::new());
        let unsampled = self.samples(rows, at, &mut |key, values| {
            if group.0 != key.cell {
                group = (key.cell, self.group(rows.spec, key.cell));
            }
            if !values.asked.is_nan() {
                groups.entry(group.1.clone()).or_default().values.push(values.asked, key, self.keys_matter());
            }
            if let Some(ends) = &mut ends {
                ends.entry(key.cell).or_default().push((key.repeat, End::Completed(values.chosen)));
            }
        })?;
        if let Some(ends) = ends {
            ends.retain(|cell, _| !unsampled.contains(cell));
            ends.values_mut().for_each(|ends| ends.sort_unstable_by_key(|(repeat, _)| *repeat));
        }
        Ok(())
    }

    /// Hands out the values of trials that had not diverged by a moment, and have a sample there, in the order (cell, repeat). Gives
    /// the cells that have such trials, and none with a sample: of these, those that diverged say nothing about how good they are.
    pub(super) fn samples(
        &self,
        rows: Rows<'_>,
        at: Length,
        each: &mut dyn FnMut(TrialKey, Sampled),
    ) -> Result<BTreeSet<u64>, TableError> {
        let parts = rows.each_part(|reader, part| self.samples_of(rows, reader, part, at))?;
        let mut cells: BTreeMap<u64, bool> = BTreeMap::new();
        for (cell, is_sampled) in parts.iter().flat_map(|part| &part.cells) {
            *cells.entry(*cell).or_default() |= is_sampled;
        }
        if !cells.is_empty() && cells.values().all(|is_sampled| !is_sampled) {
            return Err(TableError::Unknown(self.no_sample(rows, at)?));
        }
        parts.into_iter().flat_map(|part| part.values).for_each(|(key, values)| each(key, values));
        Ok(cells.into_iter().filter(|(_, is_sampled)| !is_sampled).map(|(cell, _)| cell).collect())
    }

    fn samples_of(&self, rows: Rows<'_>, reader: &dyn Reader, part: Part, at: Length) -> Result<Samples, StoreError> {
        let width = rows.spec.measure.metrics.len();
        let mut samples = Samples::default();
        let mut moment = (u64::MAX, 0);
        reader.curves(rows.sweep, part, &mut |trial| {
            let SampledTrial { key, curve, .. } = trial;
            if moment.0 != key.cell {
                moment =
                    (key.cell, rows.spec.grid.resolve_config(key.cell).map_or(0, |config| config.length_in_steps(at)));
            }
            if !trial.lives_at(moment.1) {
                return;
            }
            let row = curve.find(moment.1);
            *samples.cells.entry(key.cell).or_default() |= row.is_some();
            if let Some(row) = row {
                let value = |column: usize| curve.value(row, width, column).unwrap_or(f64::NAN);
                samples.values.push((key, Sampled { asked: value(self.metric.0), chosen: value(self.chooser.0) }));
            }
        })?;
        Ok(samples)
    }

    /// That no trial has a sample at a moment, with the steps around it at which the first one has some.
    fn no_sample(&self, rows: Rows<'_>, at: Length) -> Result<String, TableError> {
        let mut around: Option<(u64, Vec<u64>)> = None;
        rows.readers.with_one(|reader| {
            reader.curves(rows.sweep, Part::ALL, &mut |SampledTrial { key, curve, .. }| {
                if around.is_none() {
                    let wanted = rows.spec.grid.resolve_config(key.cell).map_or(0, |config| config.length_in_steps(at));
                    let below = curve.steps().take_while(|step| *step < wanted).last();
                    let above = curve.steps().find(|step| *step > wanted);
                    around = Some((wanted, below.into_iter().chain(above).collect()));
                }
            })
        })?;
        let (wanted, around) = around.unwrap_or_default();
        let nearest = around.iter().map(u64::to_string).collect::<Vec<_>>().join(" and ");
        Ok(format!(
            "at: no trial was sampled after step {wanted}; the nearest samples are after step {nearest}, and \
             `ergodic curves` lists all"
        ))
    }

    /// Statistics per group and step, in the order (group, step).
    ///
    /// # Errors
    /// The store failed, or it would take too long.
    pub fn curves(&self, rows: Rows<'_>) -> Result<Vec<Entry>, TableError> {
        self.curves_within(rows, Within::ALL, &Cell::new(0))
    }

    fn curves_within(&self, rows: Rows<'_>, within: Within, drawn: &Cell<usize>) -> Result<Vec<Entry>, TableError> {
        let mut points: BTreeMap<(Vec<u64>, u64), Values> = BTreeMap::new();
        let parts = rows.each_part_of(within, |reader, part| self.curves_of(rows, reader, part))?;
        for (cell, curves) in parts.into_iter().flatten() {
            let group = self.group(rows.spec, cell);
            for (step, values) in curves.0 {
                points.entry((group.clone(), step)).or_default().extend(values);
            }
        }
        // What is asked for by name may be about trials that had diverged, which have no part in the curves any more; and whether
        // all cells of a row have ended a repeat, curves do not say.
        let named = !self.stats.is_empty();
        let outcomes = if named || self.pooled { self.outcomes(rows, within, false)?.0 } else { BTreeMap::new() };
        self.check_work(points.values().map(|point| point.values.len()), drawn)?;
        let cells = rows.cells();
        let entry = |((key, step), values): ((Vec<u64>, u64), Values)| {
            let group = match outcomes.get(&key) {
                Some(group) if named => group.by(step),
                Some(group) => group.by(step).with_completed(&values.values),
                None => Group::default().with_completed(&values.values),
            };
            self.entry(cells, &key, step, Group { values, ..group })
        };
        Ok(points.into_par_iter().map(entry).collect())
    }

    /// The curves of a part of the trials, cell by cell.
    fn curves_of(&self, rows: Rows<'_>, reader: &dyn Reader, part: Part) -> Result<Vec<(u64, Points)>, StoreError> {
        let at = (rows.spec.measure.metrics.len(), self.metric.0);
        let mut cells: Vec<(u64, Points)> = Vec::new();
        reader.curves(rows.sweep, part, &mut |trial| {
            if cells.last().is_none_or(|(cell, _)| *cell != trial.key.cell) {
                cells.push((trial.key.cell, Points::default()));
            }
            if let Some((_, points)) = cells.last_mut() {
                points.add(trial, at, self.keys_matter());
            }
        })?;
        Ok(cells)
    }

    fn entry(&self, of: Cells<'_>, key: &[u64], step: u64, group: Group) -> Entry {
        let whole = group.whole();
        let together = whole.as_ref().map(|whole| [whole.len(), group.repeats.len()]);
        let Group { cells, values, diverged, counts, .. } = group;
        let resampling = || of.resampling(&cells);
        let counting = self.stats.iter().any(Statistic::counts_diverged);
        let counted = || {
            let values = diverged.iter().map(|trial| trial.value).collect::<Option<Vec<f64>>>()?;
            Some(Values { values, of: diverged.iter().map(|trial| trial.key).collect() })
        };
        let all = counting.then(counted).flatten().map(|counted| {
            let mut all = values.clone();
            all.extend(counted);
            self.sample(all, whole.as_ref())
        });
        let figures = Figures {
            all,
            completed: self.sample(values, whole.as_ref()),
            diverged_at: Sample::new(diverged.iter().map(|trial| trial.step as f64).collect()),
            counts,
            resampling: &resampling,
            fixed: &self.terms.fixed,
            stops: self.terms.stops,
            whole: together,
        };
        Entry {
            values: self.values(of.spec, key),
            step,
            summary: Summary::of(&figures.completed, figures.level(0.95)),
            counts,
            figures: self.stats.iter().flat_map(|statistic| statistic.of(&figures)).collect(),
            note: figures.note(&self.stats),
            place: None,
        }
    }

    /// Refuses what would keep a core busy for minutes, counting what was drawn for earlier pages.
    pub(super) fn check_work(&self, sizes: impl Iterator<Item = usize>, drawn: &Cell<usize>) -> Result<(), TableError> {
        let asked = self.stats.iter().filter(|statistic| statistic.resamples()).count();
        let draws = drawn.get().saturating_add((sizes.sum::<usize>() * asked).saturating_mul(RESAMPLES));
        drawn.set(draws);
        if draws > MOST_DRAWS {
            let message = format!(
                "a bootstrap of so many values would take {draws} draws or more, of at most {MOST_DRAWS}: use ci95, which \
                 agrees with it for large samples, or ask for less"
            );
            return Err(TableError::Bad(message));
        }
        Ok(())
    }
}

/// Cells of a sweep, by their numbers: from one on, up to and without another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Within {
    from: u64,
    to: u64,
}

impl Within {
    const ALL: Self = Self { from: 0, to: Part::ALL.to.cell };

    fn holds(self, cell: u64) -> bool {
        (self.from..self.to).contains(&cell)
    }
}

/// Points of curves, or rows of a table, that are worked out at a time.
const PAGE: u64 = 2_000;
/// Values of trials that are read for them.
const PAGE_VALUES: u64 = 1_000_000;
/// What an entry takes while it is on its way to a peer, about, in bytes.
const ENTRY_BYTES: u64 = 1024;
/// What a value takes.
const VALUE_BYTES: u64 = 16;
/// What the end of a trial takes while cells are ranked.
const END_BYTES: u64 = 64;

impl Query {
    /// Rows of a table, page by page: as many at a time as can be told apart from the others.
    ///
    /// # Errors
    /// As for [`Query::table`].
    pub fn table_pages(&self, rows: Rows<'_>, each: &mut dyn FnMut(Vec<Entry>) -> bool) -> Result<(), TableError> {
        self.table_by(cells_of_a_page(rows.spec, 1), rows, each)
    }

    /// The same with so many cells in a page, where rows are of one cell.
    pub(super) fn table_by(
        &self,
        cells: u64,
        rows: Rows<'_>,
        each: &mut dyn FnMut(Vec<Entry>) -> bool,
    ) -> Result<(), TableError> {
        // Whether there is a sample at a moment is known at the end; and what is one page is read once.
        if self.at.is_some() || self.pooled || cells >= rows.spec.grid.cell_number_bound() {
            return hand_out(self.table(rows)?, each);
        }

        let (places, drawn) = (self.places_of_cells(rows)?, Cell::new(0));
        self.pages(rows, cells, &|within| self.table_within(rows, within, &places, &drawn), each)
    }

    /// Points of curves, page by page.
    ///
    /// # Errors
    /// As for [`Query::curves`].
    pub fn curve_pages(&self, rows: Rows<'_>, each: &mut dyn FnMut(Vec<Entry>) -> bool) -> Result<(), TableError> {
        let drawn = Cell::new(0);
        let cells = cells_of_a_page(rows.spec, samples(rows.spec));
        self.pages(rows, cells, &|within| self.curves_within(rows, within, &drawn), each)
    }

    /// Where a row is of one cell, so many cells are taken at a time.
    fn pages(
        &self,
        rows: Rows<'_>,
        cells: u64,
        work_out: &dyn Fn(Within) -> Result<Vec<Entry>, TableError>,
        each: &mut dyn FnMut(Vec<Entry>) -> bool,
    ) -> Result<(), TableError> {
        if self.pooled {
            return hand_out(work_out(Within::ALL)?, each);
        }
        let (numbers, mut from) = (rows.spec.grid.cell_number_bound(), 0);
        while from < numbers {
            let within = Within { from, to: from.saturating_add(cells).min(numbers) };
            let page = work_out(within)?;
            if !page.is_empty() && !each(page) {
                return Ok(());
            }
            from = within.to;
        }
        Ok(())
    }

    /// How many bytes it takes to answer, about, of so many trials: of a table, or of curves; in pages or in one piece.
    pub fn takes(&self, spec: &Spec, done: u64, curves: bool, paged: bool) -> u64 {
        let samples = if curves { samples(spec) } else { 1 };
        if paged && !self.pooled && (curves || self.at.is_none()) {
            // Of curves, a cell is read as a whole.
            let values =
                PAGE_VALUES.max(samples.saturating_mul(u64::from(spec.repeats))).min(done.saturating_mul(samples));
            // Where cells are ranked, all of them are.
            let ends = if !curves && self.is_ranked(spec) { done.saturating_mul(END_BYTES) } else { 0 };
            let page = (4 * PAGE).min(done.saturating_mul(samples)) * ENTRY_BYTES + values * VALUE_BYTES;
            return page.saturating_add(ends);
        }
        let places = self.axes.iter().fold(1_u64, |n, axis| n.saturating_mul(spec.grid.axes()[*axis].len()));
        let rows = places.min(done.max(MOST_EMPTY_ROWS)).min(spec.grid.cell_count());
        let values = done.saturating_mul(samples).saturating_mul(VALUE_BYTES);
        rows.saturating_mul(samples).saturating_mul(ENTRY_BYTES).saturating_add(values)
    }
}

/// How many cells are worked out at a time, of trials with so many samples each.
fn cells_of_a_page(spec: &Spec, samples: u64) -> u64 {
    let values = samples.saturating_mul(u64::from(spec.repeats));
    (PAGE / samples).min(PAGE_VALUES / values).max(1)
}

/// The most samples that a trial of a sweep has.
fn samples(spec: &Spec) -> u64 {
    let classes = (0..spec.grid.class_count()).filter(|class| spec.grid.class_cell_count(*class) > 0);
    let of_class = |class| {
        let config = spec.grid.resolve_config(spec.grid.class_cell_at(class, 0)).ok()?;
        Some(config.total_steps().div_ceil(config.length_in_steps(spec.measure.every).max(1)))
    };
    classes.filter_map(of_class).max().unwrap_or(1).max(1)
}

fn hand_out(mut entries: Vec<Entry>, each: &mut dyn FnMut(Vec<Entry>) -> bool) -> Result<(), TableError> {
    while !entries.is_empty() {
        let rest = entries.split_off(entries.len().min(PAGE as usize));
        if !each(std::mem::replace(&mut entries, rest)) {
            break;
        }
    }
    Ok(())
}

impl<'a> Rows<'a> {
    /// The stream of resamples of some cells.
    pub(super) fn resampling(self, cells: &[u64]) -> RandomStream {
        self.cells().resampling(cells)
    }

    /// Does something with each part of the rows, on several threads; what came of it, in the order (cell, repeat).
    pub(super) fn each_part<T: Send>(
        self,
        work: impl Fn(&dyn Reader, Part) -> Result<T, StoreError> + Sync,
    ) -> Result<Vec<T>, StoreError> {
        self.readers.each(&self.readers.parts(self.spec.grid.cell_number_bound(), self.spec.repeats), work)
    }

    /// The same with the parts of these cells.
    fn each_part_of<T: Send>(
        self,
        within: Within,
        work: impl Fn(&dyn Reader, Part) -> Result<T, StoreError> + Sync,
    ) -> Result<Vec<T>, StoreError> {
        if within == Within::ALL {
            return self.each_part(work);
        }
        let mut parts = self.readers.parts(within.to - within.from, self.spec.repeats);
        for part in &mut parts {
            part.from.cell += within.from;
            part.to.cell = part.to.cell.saturating_add(within.from);
        }
        if let Some(last) = parts.last_mut() {
            last.to = TrialKey { cell: within.to, repeat: 0 };
        }
        self.readers.each(&parts, work)
    }

    fn cells(self) -> Cells<'a> {
        Cells { spec: self.spec, data: self.data }
    }
}

impl Cells<'_> {
    /// The stream of resamples of some cells: by what they are, and not by where they stand in the grid.
    fn resampling(self, cells: &[u64]) -> RandomStream {
        let configs = cells.iter().filter_map(|cell| self.spec.grid.resolve_config(*cell).ok());
        let identity: Vec<u8> = configs.flat_map(|config| self.spec.compute_cell_hash(&config, &self.data)).collect();
        let streams = self.spec.trial_streams(TrialKey { cell: 0, repeat: 0 }, [0; 32]);
        streams.open_stream(Purpose::Bootstrap, &identity)
    }
}

/// The row of a cell, which is the last one if there is one.
fn row_of(cells: &mut Vec<CellRows>, cell: u64) -> &mut CellRows {
    if cells.last().is_none_or(|last| last.cell != cell) {
        cells.push(CellRows { cell, ..CellRows::default() });
    }
    cells.last_mut().expect("it was pushed if it was not there")
}

impl Group {
    /// Adds trials of a cell that come after all that are here.
    fn extend(&mut self, rows: CellRows) {
        if self.cells.last() != Some(&rows.cell) {
            self.cells.push(rows.cell);
        }
        self.values.extend(rows.values);
        self.diverged.extend(rows.diverged);
        self.counts.extend(&rows.counts);
        rows.repeats.into_iter().for_each(|repeat| *self.repeats.entry(repeat).or_default() += 1);
    }

    /// With so many completed trials, and no others that are known.
    fn with_completed(self, values: &[f64]) -> Self {
        Self { counts: Counts { completed: values.len() as u64, ..Counts::default() }, ..self }
    }

    /// The repeats that all of its cells have ended, if these are not all that any has.
    fn whole(&self) -> Option<BTreeSet<u32>> {
        let cells = self.all.max(self.cells.len() as u64);
        let whole: BTreeSet<u32> =
            self.repeats.iter().filter(|(_, n)| **n == cells).map(|(repeat, _)| *repeat).collect();
        (whole.len() < self.repeats.len()).then_some(whole)
    }

    /// As it was after a step, without values.
    fn by(&self, step: u64) -> Self {
        let diverged: Vec<Divergence> = self.diverged.iter().filter(|trial| trial.step <= step).copied().collect();
        let lived = self.diverged.len() as u64 - diverged.len() as u64;
        let Counts { completed, failed, .. } = self.counts;
        let counts = Counts { completed: completed + lived, diverged: diverged.len() as u64, failed };
        let (cells, repeats) = (self.cells.clone(), self.repeats.clone());
        Self { cells, values: Values::default(), diverged, counts, all: self.all, repeats }
    }
}

/// Most draws of one table: about a minute on two cores.
pub(super) const MOST_DRAWS: usize = 20_000_000_000;

/// Above this many cells, rows are listed only where there are results.
pub(super) const MOST_EMPTY_ROWS: u64 = 10_000;

pub(super) fn find_axis(axes: &[Axis], name: &str) -> Result<usize, TableError> {
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
            Err(TableError::Unknown(format!("the sweep has no axis '{name}', {hint}")))
        }
    }
}

fn find_metric(metrics: &[Metric], name: &str) -> Result<(usize, Metric), TableError> {
    if name.is_empty() {
        return Ok(main_metric(metrics));
    }
    match metrics.iter().position(|m| m.name() == name) {
        Some(at) => Ok((at, metrics[at].clone())),
        None => {
            let names: Vec<_> = metrics.iter().map(Metric::name).collect();
            let hint = suggest_nearest(name, names.iter().map(AsRef::as_ref));
            Err(TableError::Unknown(format!("the sweep does not measure '{name}', {hint}")))
        }
    }
}

fn find_step(at: &str) -> Result<Option<Length>, TableError> {
    let at = at.trim();
    if at.is_empty() || at == "final" {
        return Ok(None);
    }
    let parsed = at.split_once(' ').and_then(|(count, unit)| match unit.trim() {
        "epoch" | "epochs" => count.parse().ok().map(Length::Epochs),
        "step" | "steps" => count.parse().ok().map(Length::Steps),
        _ => None,
    });
    let unknown =
        || TableError::Bad(format!("at: expected something like \"20 epochs\", \"500 steps\" or final, found '{at}'"));
    parsed.map(Some).ok_or_else(unknown)
}
