//! Every cell of a sweep compared with a baseline, repeat by repeat.

use std::collections::BTreeMap;

use ergodic_common::axis::Axis;
use ergodic_common::config::Length;
use ergodic_common::metric::Metric;
use ergodic_common::tree::{Value, number};
use ergodic_common::{Outcome, Spec, TrialKey};

use super::paired::{Paired, holm};
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
}

/// A cell beside its baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct Contrast {
    /// The cell's value of each axis.
    pub values: Vec<Value>,
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
    ended: u64,
}

impl Trials {
    /// Trials that all have a value.
    #[cfg(test)]
    pub(super) fn with(values: Vec<(u32, f64)>) -> Self {
        Self { ended: values.len() as u64, values }
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
        Ok(Self { query, baseline, level: contest.level })
    }

    /// The metric.
    pub fn metric(&self) -> &Metric {
        self.query.metric()
    }

    /// The baseline in words: `lr=0.1, wd=5e-4`.
    pub fn baseline(&self, spec: &Spec) -> String {
        let word = |(axis, index): &(usize, u64)| {
            let axis = &spec.grid.axes()[*axis];
            format!("{}={}", axis.name, axis.write(&axis.value(*index)))
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
        let cells: Vec<u64> = match spec.grid.numbers() <= MOST_EMPTY_ROWS {
            true => spec.grid.iter().collect(),
            false => trials.keys().copied().collect(),
        };
        let mut contrasts = Vec::new();
        for cell in cells {
            let baseline = spec.grid.with_values(cell, &self.baseline);
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
        let paired = Paired::of(&common(&here.values, &there.values), self.level);
        Contrast {
            values: spec.grid.values(cell),
            note: note(&paired, here, there, baseline.is_some()),
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

/// Values of a query's metric by cell.
///
/// # Errors
/// The store failed, or no curve has a sample at the moment asked for.
pub(super) fn trials(query: &Query, rows: Rows<'_>) -> Result<BTreeMap<u64, Trials>, TableError> {
    let mut trials: BTreeMap<u64, Trials> = BTreeMap::new();
    for (key, value) in rows.each_part(|reader, part| ended(query, rows, reader, part))?.into_iter().flatten() {
        let cell = trials.entry(key.cell).or_default();
        cell.ended += 1;
        cell.values.extend(value.map(|value| (key.repeat, value)));
    }
    if let Some(at) = query.at() {
        query.samples(rows, at, &mut |key, value| {
            trials.entry(key.cell).or_default().values.push((key.repeat, value));
        })?;
    }
    Ok(trials)
}

/// A part of the trials, with the final values of completed ones if these are asked for.
fn ended(
    query: &Query,
    rows: Rows<'_>,
    reader: &dyn Reader,
    part: Part,
) -> Result<Vec<(TrialKey, Option<f64>)>, StoreError> {
    let at: Option<Length> = query.at();
    let mut ended = Vec::new();
    reader.ended(rows.sweep, part, &mut |trial| {
        let counts = trial.outcome == Outcome::Completed && at.is_none();
        let value = trial.metrics.get(query.column()).filter(|x| counts && x.is_finite());
        ended.push((trial.key, value));
    })?;
    Ok(ended)
}

/// Values of repeats that both have; both are in the order of repeats.
fn common(here: &[(u32, f64)], there: &[(u32, f64)]) -> Vec<(f64, f64)> {
    let mut rest = there.iter().peekable();
    let mut pairs = Vec::with_capacity(here.len().min(there.len()));
    for (repeat, value) in here {
        while rest.next_if(|(other, _)| other < repeat).is_some() {}
        pairs.extend(rest.next_if(|(other, _)| other == repeat).map(|(_, baseline)| (*value, *baseline)));
    }
    pairs
}

fn note(paired: &Paired, here: &Trials, there: &Trials, has_baseline: bool) -> String {
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
    match (here.lost(), there.lost()) {
        (0, 0) => {}
        (here, there) => notes.push(format!("without a value: {here} trials here, {there} of the baseline")),
    }
    notes.join("; ")
}

/// The index of the value that a user means by `text`: the one that is exactly that, or the only one that tables round to it.
pub(super) fn find_value(axis: &Axis, text: &str) -> Result<u64, TableError> {
    let text = text.trim();
    match axis.meant(text)[..] {
        [only] => Ok(only),
        [] => {
            let hint = match text.parse().ok().and_then(|wanted| nearest_number(axis, wanted)) {
                Some(nearest) => format!("the nearest is {}", number(nearest)),
                None => {
                    let words: Vec<String> = (0..axis.len().min(50)).map(|i| axis.value(i).to_string()).collect();
                    ergodic_common::error::nearest(text, words.iter().map(String::as_str))
                }
            };
            Err(TableError::Unknown(format!("the axis '{}' has no value '{text}', {hint}", axis.name)))
        }
        ref several => {
            let all: Vec<String> = several.iter().take(MOST_NAMED).map(|i| axis.value(*i).to_string()).collect();
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
    let numbers = (0..axis.len()).filter_map(|i| axis.number(i));
    numbers.min_by(|a, b| (a - wanted).abs().total_cmp(&(b - wanted).abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_repeats_that_both_have_are_common() {
        let here = [(0, 1.0), (2, 3.0), (3, 4.0), (7, 8.0)];
        let there = [(1, 20.0), (2, 30.0), (5, 60.0), (7, 80.0), (9, 1.0)];
        assert_eq!(common(&here, &there), [(3.0, 30.0), (8.0, 80.0)]);
        assert_eq!(common(&here, &[]), []);
    }
}
