//! Every cell of a sweep compared with a baseline, repeat by repeat.

use std::collections::BTreeMap;

use ergodic_common::axis::Axis;
use ergodic_common::config::Length;
use ergodic_common::metric::Metric;
use ergodic_common::repeats::StoppingRule;
use ergodic_common::tree::{SpecValue, format_shortest};
use ergodic_common::{Outcome, Spec, TrialKey};

use super::best::Ends;
use super::crossed::Crossing;
use super::paired::{Paired, holm};
use super::precision::NOT_WIDENED;
use super::rank::End;
use super::table::{MOST_EMPTY_ROWS, Query, Question, Rows, TableError, find_axis};
use crate::store::{Part, Reader, StoreError};

/// What is to be compared.
#[derive(Debug, Clone, Copy)]
pub struct Contest<'a> {
    /// The baseline: axes with their values. An axis that is not named has in the baseline the value that it has in the
    /// cell compared.
    pub baseline: &'a [(String, String)],
    /// The metric; empty for the main one.
    pub metric: &'a str,
    /// When; empty for the end of the trial.
    pub at: &'a str,
    /// Level of the confidence intervals, as a share.
    pub level: f64,
}

/// A comparison, checked against a sweep.
#[derive(Debug, Clone)]
pub struct Comparison {
    query: Query,
    /// Axis and index of its value.
    baseline: Vec<(usize, u64)>,
    level: f64,
    crossing: Option<Crossing>,
    /// Streams that are the same in all repeats, in words.
    fixed: String,
    /// Whether cells end when they look known well enough.
    stops: bool,
}

/// A cell beside its baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct Contrast {
    /// The cell's value of each axis.
    pub values: Vec<SpecValue>,
    /// The differences.
    pub paired: Paired,
    /// p of the sign test, corrected for the number of cells.
    pub sign_holm: Option<f64>,
    /// p of Wilcoxon's test, likewise.
    pub wilcoxon_holm: Option<f64>,
    /// Why something is missing, or what else is to be known; empty if nothing is.
    pub note: String,
}

/// Values of a cell by repeat, and how many of its trials ended without one.
#[derive(Debug, Default)]
pub(super) struct Trials {
    /// In the order of repeats.
    pub(super) values: Vec<(u32, f64)>,
    /// How all of them ended, likewise, by the metric by which cells are ranked; infinite values too.
    pub(super) ends: Ends,
    ended: u64,
}

impl Trials {
    /// Trials that all have a value.
    #[cfg(test)]
    pub(super) fn with(values: Vec<(u32, f64)>) -> Self {
        let ends = values.iter().map(|(repeat, value)| (*repeat, End::Completed(*value))).collect();
        Self { ended: values.len() as u64, values, ends }
    }

    /// How many ended without a value.
    pub(super) fn lost(&self) -> u64 {
        self.ended - (self.values.len() as u64).min(self.ended)
    }
}

impl Comparison {
    /// Checks what is to be compared against a sweep.
    ///
    /// # Errors
    /// There is no such axis, value, metric or step, or the level is none.
    pub fn new(spec: &Spec, contest: &Contest<'_>) -> Result<Self, TableError> {
        if !(0.5..1.0).contains(&contest.level) {
            let message =
                format!("the level {}: expected one from 50 up to, and below, 100 percent", contest.level * 100.0);
            return Err(TableError::Bad(message));
        }
        let question = Question { metric: contest.metric, at: contest.at, ..Question::default() };
        let query = Query::new(spec, &question)?;
        let mut baseline: Vec<(usize, u64)> = Vec::new();
        for (name, text) in contest.baseline {
            let axis = find_axis(spec.grid.axes(), name)?;
            if baseline.iter().any(|(known, _)| *known == axis) {
                return Err(TableError::Bad(format!("the axis '{name}' stands twice in the baseline")));
            }
            baseline.push((axis, find_value(&spec.grid.axes()[axis], text)?));
        }
        if baseline.is_empty() {
            let names: Vec<&str> = spec.grid.axes().iter().map(|axis| axis.name.as_str()).collect();
            let message = format!("which cell is the baseline? Name values of axes, of {}", names.join(", "));
            return Err(TableError::Bad(message));
        }
        let fixed: Vec<&str> = spec.seeds.fixed.iter().map(|purpose| purpose.as_str()).collect();
        let (crossing, fixed) = (Crossing::of(spec), fixed.join(", "));
        let stops = spec.stopping_rule.as_ref().is_some_and(StoppingRule::is_precision_based);
        Ok(Self { query, baseline, level: contest.level, crossing, fixed, stops })
    }

    /// The metric.
    pub fn metric(&self) -> &Metric {
        self.query.metric()
    }

    /// The baseline in words: `lr=0.1, wd=5e-4`.
    pub fn baseline(&self, spec: &Spec) -> String {
        let word = |(axis, index): &(usize, u64)| {
            let axis = &spec.grid.axes()[*axis];
            format!("{}={}", axis.name, axis.format_value(&axis.value_at(*index)))
        };
        self.baseline.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    /// Each cell beside its baseline, in the order of the grid.
    ///
    /// # Errors
    /// The store failed, or there is nothing to compare.
    pub fn contrasts(&self, rows: Rows<'_>) -> Result<Vec<Contrast>, TableError> {
        let spec = rows.spec;
        let trials = trials(&self.query, rows)?;
        let cells: Vec<u64> = match spec.grid.cell_number_bound() <= MOST_EMPTY_ROWS {
            true => spec.grid.iter().collect(),
            false => trials.keys().copied().collect(),
        };
        let mut contrasts = Vec::new();
        for cell in cells {
            let baseline = spec.grid.cell_with_values(cell, &self.baseline);
            if baseline != Some(cell) {
                contrasts.push(self.contrast(spec, &trials, cell, baseline));
            }
        }
        if !contrasts.iter().any(|contrast| contrast.paired.n > 1) {
            return Err(self.nothing(spec, &contrasts));
        }
        let column = |p: fn(&Contrast) -> Option<f64>| holm(&contrasts.iter().map(p).collect::<Vec<_>>());
        let (sign, wilcoxon) = (column(|c| c.paired.sign_p), column(|c| c.paired.wilcoxon.map(|w| w.p)));
        for ((contrast, sign), wilcoxon) in contrasts.iter_mut().zip(sign).zip(wilcoxon) {
            (contrast.sign_holm, contrast.wilcoxon_holm) = (sign, wilcoxon);
        }
        Ok(contrasts)
    }

    fn contrast(&self, spec: &Spec, trials: &BTreeMap<u64, Trials>, cell: u64, baseline: Option<u64>) -> Contrast {
        let empty = Trials::default();
        let of = |cell: Option<u64>| cell.and_then(|cell| trials.get(&cell)).unwrap_or(&empty);
        let (here, there) = (of(Some(cell)), of(baseline));
        let pairs = common(&here.values, &there.values);
        let both: Vec<(f64, f64)> = pairs.iter().map(|(_, pair)| *pair).collect();
        let mut paired = Paired::of(&both, self.level);
        if let Some(crossing) = &self.crossing {
            let repeats: Vec<u32> = pairs.iter().map(|(repeat, _)| *repeat).collect();
            paired.cross(&both, &repeats, crossing, self.level);
        }
        Contrast {
            values: spec.grid.axis_values(cell),
            note: self.note(&paired, here, there, baseline.is_some()),
            paired,
            sign_holm: None,
            wilcoxon_holm: None,
        }
    }

    /// Why there is nothing to compare.
    fn nothing(&self, spec: &Spec, contrasts: &[Contrast]) -> TableError {
        let why = match contrasts {
            [] => "the sweep has no other cell".to_owned(),
            [first, ..] => {
                let most = contrasts.iter().max_by_key(|contrast| contrast.paired.n).unwrap_or(first);
                format!("no cell has two completed repeats in common with it ({})", most.note)
            }
        };
        TableError::Unknown(format!("nothing can be compared with {}: {why}", self.baseline(spec)))
    }
}

/// Values of a query's metric by cell, and how its trials ended.
///
/// # Errors
/// The store failed, or no curve has a sample at the moment asked for.
pub(super) fn trials(query: &Query, rows: Rows<'_>) -> Result<BTreeMap<u64, Trials>, TableError> {
    let mut trials: BTreeMap<u64, Trials> = BTreeMap::new();
    for (key, value, end) in rows.each_part(|reader, part| ended(query, rows, reader, part))?.into_iter().flatten() {
        let cell = trials.entry(key.cell).or_default();
        cell.ended += 1;
        cell.take(key.repeat, value, end);
    }
    if let Some(at) = query.at() {
        let unsampled = query.samples(rows, at, &mut |key, values| {
            let end = End::Completed(values.chosen);
            trials.entry(key.cell).or_default().take(key.repeat, values.asked, Some(end));
        })?;
        for (cell, trials) in &mut trials {
            trials.ends.sort_unstable_by_key(|(repeat, _)| *repeat);
            if unsampled.contains(cell) {
                trials.ends.clear();
            }
        }
    }
    Ok(trials)
}

impl Trials {
    fn take(&mut self, repeat: u32, value: f64, end: Option<End>) {
        self.ends.extend(end.map(|end| (repeat, end)));
        if value.is_finite() {
            self.values.push((repeat, value));
        }
    }
}

/// The values of a part of the trials, NaN of those without one, and how they ended; nothing of those of which their curves tell.
fn ended(
    query: &Query,
    rows: Rows<'_>,
    reader: &dyn Reader,
    part: Part,
) -> Result<Vec<(TrialKey, f64, Option<End>)>, StoreError> {
    let at: Option<Length> = query.at();
    let mut limit = (u64::MAX, None);
    let mut ended = Vec::new();
    reader.ended(rows.sweep, part, &mut |trial| {
        if limit.0 != trial.key.cell {
            let steps = |at| Some(rows.spec.grid.resolve_config(trial.key.cell).ok()?.length_in_steps(at));
            limit = (trial.key.cell, at.and_then(steps));
        }
        let metric = |column: usize| trial.metrics.get(column).unwrap_or(f64::NAN);
        let (value, end) = match trial.outcome {
            Outcome::Completed if at.is_some() => (f64::NAN, None),
            Outcome::Completed => (metric(query.column()), Some(End::Completed(metric(query.ranked_by_column())))),
            Outcome::Diverged { step } if limit.1.is_some_and(|limit| step > limit) => (f64::NAN, None),
            Outcome::Diverged { .. } => (f64::NAN, Some(End::Diverged)),
            Outcome::Failed { .. } => (f64::NAN, Some(End::Failed)),
        };
        ended.push((trial.key, value, end));
    })?;
    Ok(ended)
}

/// Values of repeats that both have; both are in the order of repeats.
fn common(here: &[(u32, f64)], there: &[(u32, f64)]) -> Vec<(u32, (f64, f64))> {
    let mut rest = there.iter().peekable();
    let mut pairs = Vec::with_capacity(here.len().min(there.len()));
    for (repeat, value) in here {
        while rest.next_if(|(other, _)| other < repeat).is_some() {}
        pairs.extend(rest.next_if(|(other, _)| other == repeat).map(|(_, baseline)| (*repeat, (*value, *baseline))));
    }
    pairs
}

impl Comparison {
    fn note(&self, paired: &Paired, here: &Trials, there: &Trials, has_baseline: bool) -> String {
        if !has_baseline {
            return "the sweep has no such baseline for this cell".into();
        }
        let mut notes = Vec::new();
        match paired.n {
            0 => notes.push("no repeat in common".to_owned()),
            1 => notes.push("one repeat in common: no interval, no test".to_owned()),
            _ if paired.std == Some(0.0) => notes.push("the same difference in every repeat".to_owned()),
            _ => {}
        }
        if self.crossing.is_some() && paired.n > 1 {
            let interval = if paired.interval.is_none() { ", too few levels of one for an interval" } else { "" };
            notes.push(format!("repeats share crossed streams: no sign test, no Wilcoxon{interval}"));
        }
        if !self.fixed.is_empty() && paired.n > 1 {
            notes.push(format!("given the fixed {}", self.fixed));
        }
        match (here.lost(), there.lost()) {
            (0, 0) => {}
            (here, there) => notes.push(format!("without a value: {here} trials here, {there} of the baseline")),
        }
        notes.join("; ")
    }

    /// What is to be known of all contrasts; empty if nothing is.
    pub fn remarks(&self, contrasts: &[Contrast]) -> String {
        let stops = self.stops.then(|| NOT_WIDENED.to_owned());
        let too_few = Some(self.too_few(contrasts)).filter(|why| !why.is_empty());
        too_few.into_iter().chain(stops).collect::<Vec<_>>().join("; ")
    }

    /// Why no cell can be told apart by its p, whatever its trials say: with so few repeats none is small enough for so many
    /// cells. Empty if one can, or no test is made.
    fn too_few(&self, contrasts: &[Contrast]) -> String {
        let tested = || contrasts.iter().filter(|contrast| contrast.paired.sign_p.is_some());
        let Some(n) = tested().map(|contrast| contrast.paired.n).max() else { return String::new() };
        let (tests, needed) = (tested().count(), repeats_for(tested().count()));
        if n >= needed {
            return String::new();
        }
        format!(
            "with {n} repeats and {tests} cells, no p can be below 0.05 after Holm's correction, however large the differences: with \
             {needed} repeats one can"
        )
    }
}

/// Fewest repeats with which the smallest p there can be, of all signs alike, is significant at 5 % among so many tests.
fn repeats_for(tests: usize) -> u64 {
    (1..).find(|n| 2.0 * 0.5_f64.powi(*n) * tests as f64 <= 0.05).map_or(0, |n| n as u64)
}

/// The index of the value that a user means by `text`: the one that is exactly that, or the only one that tables round to it.
pub(super) fn find_value(axis: &Axis, text: &str) -> Result<u64, TableError> {
    let text = text.trim();
    match axis.matching_value_indices(text)[..] {
        [only] => Ok(only),
        [] => {
            let hint = match text.parse().ok().and_then(|wanted| nearest_number(axis, wanted)) {
                Some(nearest) => format!("the nearest is {}", format_shortest(nearest)),
                None => {
                    let words: Vec<String> = (0..axis.len().min(50)).map(|i| axis.value_at(i).to_string()).collect();
                    ergodic_common::error::suggest_nearest(text, words.iter().map(String::as_str))
                }
            };
            Err(TableError::Unknown(format!("the axis '{}' has no value '{text}', {hint}", axis.name)))
        }
        ref several => {
            let all: Vec<String> = several.iter().take(MOST_NAMED).map(|i| axis.value_at(*i).to_string()).collect();
            let more = several.len() - all.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            Err(TableError::Bad(format!(
                "the axis '{}' has {} values that '{text}' may stand for, rounded: {}{more}; give one in full",
                axis.name,
                several.len(),
                all.join(", ")
            )))
        }
    }
}

/// Candidates that are named.
const MOST_NAMED: usize = 8;

fn nearest_number(axis: &Axis, wanted: f64) -> Option<f64> {
    let numbers = (0..axis.len()).filter_map(|i| axis.number_at(i));
    numbers.min_by(|a, b| (a - wanted).abs().total_cmp(&(b - wanted).abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_repeats_that_both_have_are_common() {
        let here = [(0, 1.0), (2, 3.0), (3, 4.0), (7, 8.0)];
        let there = [(1, 20.0), (2, 30.0), (5, 60.0), (7, 80.0), (9, 1.0)];
        assert_eq!(common(&here, &there), [(2, (3.0, 30.0)), (7, (8.0, 80.0))]);
        assert_eq!(common(&here, &[]), []);
    }

    #[test]
    fn so_many_cells_need_so_many_repeats() {
        // 2·2⁻ⁿ·m ≤ 0.05: the smallest p of 7 repeats is 0.0156, that of 14 0.000122, which 239 times is 0.029.
        assert_eq!([1, 3, 4, 8, 239].map(repeats_for), [6, 7, 8, 9, 14]);
    }
}
