//! Every cell of a sweep compared with a baseline, repeat by repeat.

use std::collections::BTreeMap;

use ergodic_common::config::Length;
use ergodic_common::grid::axis::Axis;
use ergodic_common::metric::Metric;
use ergodic_common::spec::stopping_rule::StoppingRule;
use ergodic_common::spec_file::node::{SpecValue, format_shortest};
use ergodic_common::{Outcome, Spec, TrialKey};

use super::ranking::CellEnds;
use super::table::{AnalysisError, MAX_EMPTY_ROWS, RowSource, TableParams, TableQuery, find_axis};
use crate::estimators::crossed::Crossing;
use crate::estimators::paired::{PairedDifferences, holm_correction};
use crate::estimators::precision::NOT_WIDENED_NOTE;
use crate::estimators::rank::TrialEnd;
use crate::store::{StoreError, StoreReader, TrialRange};

/// What is to be compared.
#[derive(Debug, Clone, Copy)]
pub struct CompareParams<'a> {
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
pub struct CompareQuery {
    query: TableQuery,
    /// Axis and index of its value.
    baseline: Vec<(usize, u64)>,
    level: f64,
    crossing: Option<Crossing>,
    /// Streams that are the same in all repeats, in words.
    fixed_streams: String,
    /// Whether cells end when they look known well enough.
    stops_early: bool,
}

/// A cell beside its baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct CellContrast {
    /// The cell's value of each axis.
    pub values: Vec<SpecValue>,
    /// The differences.
    pub paired: PairedDifferences,
    /// p of the sign test, corrected for the number of cells.
    pub sign_holm: Option<f64>,
    /// p of Wilcoxon's test, likewise.
    pub wilcoxon_holm: Option<f64>,
    /// Why something is missing, or what else is to be known; empty if nothing is.
    pub note: String,
}

/// Values of a cell by repeat, and how many of its trials ended without one.
#[derive(Debug, Default)]
pub(super) struct CellTrials {
    /// In the order of repeats.
    pub(super) values: Vec<(u32, f64)>,
    /// How all of them ended, likewise, by the metric by which cells are ranked; infinite values too.
    pub(super) ends: CellEnds,
    ended_count: u64,
}

impl CellTrials {
    /// Trials that all have a value.
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

    /// How many ended without a value.
    pub(super) fn count_without_value(&self) -> u64 {
        self.ended_count - (self.values.len() as u64).min(self.ended_count)
    }
}

impl CompareQuery {
    /// Checks what is to be compared against a sweep.
    ///
    /// # Errors
    /// There is no such axis, value, metric or step, or the level is none.
    pub fn new(spec: &Spec, contest: &CompareParams<'_>) -> Result<Self, AnalysisError> {
        if !(0.5..1.0).contains(&contest.level) {
            let message = format!(
                "the level {}: expected one from 50 up to, and below, 100 percent",
                contest.level * 100.0
            );
            return Err(AnalysisError::Invalid(message));
        }

        let question = TableParams {
            metric: contest.metric,
            at: contest.at,
            ..TableParams::default()
        };
        let query = TableQuery::new(spec, &question)?;

        let mut baseline: Vec<(usize, u64)> = Vec::new();
        for (name, text) in contest.baseline {
            let axis = find_axis(spec.grid.axes(), name)?;
            if baseline.iter().any(|(known, _)| *known == axis) {
                return Err(AnalysisError::Invalid(format!(
                    "the axis '{name}' stands twice in the baseline"
                )));
            }

            baseline.push((axis, find_value(&spec.grid.axes()[axis], text)?));
        }

        if baseline.is_empty() {
            let names: Vec<&str> = spec
                .grid
                .axes()
                .iter()
                .map(|axis| axis.name.as_str())
                .collect();
            let message = format!(
                "which cell is the baseline? Name values of axes, of {}",
                names.join(", ")
            );

            return Err(AnalysisError::Invalid(message));
        }

        let fixed: Vec<&str> = spec
            .seeds
            .fixed
            .iter()
            .map(|purpose| purpose.as_str())
            .collect();

        let crossing = Crossing::from_spec(spec);
        let fixed = fixed.join(", ");
        let stops = spec
            .stopping_rule
            .as_ref()
            .is_some_and(StoppingRule::is_precision_based);
        Ok(Self {
            query,
            baseline,
            level: contest.level,
            crossing,
            fixed_streams: fixed,
            stops_early: stops,
        })
    }

    /// The metric.
    pub fn metric(&self) -> &Metric {
        self.query.metric()
    }

    /// The baseline in words: `lr=0.1, wd=5e-4`.
    pub fn describe_baseline(&self, spec: &Spec) -> String {
        let word = |(axis, index): &(usize, u64)| {
            let axis = &spec.grid.axes()[*axis];
            format!(
                "{}={}",
                axis.name,
                axis.format_value(&axis.value_at(*index))
            )
        };

        self.baseline
            .iter()
            .map(word)
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Each cell beside its baseline, in the order of the grid.
    ///
    /// # Errors
    /// The store failed, or there is nothing to compare.
    pub fn compute_contrasts(
        &self,
        rows: RowSource<'_>,
    ) -> Result<Vec<CellContrast>, AnalysisError> {
        let spec = rows.spec;
        let trials = read_cell_trials(&self.query, rows)?;
        let cells: Vec<u64> = match spec.grid.cell_number_bound() <= MAX_EMPTY_ROWS {
            true => spec.grid.iter().collect(),
            false => trials.keys().copied().collect(),
        };
        let mut contrasts = Vec::new();

        for cell in cells {
            let baseline = spec.grid.cell_with_values(cell, &self.baseline);
            if baseline != Some(cell) {
                contrasts.push(self.contrast_cell(spec, &trials, cell, baseline));
            }
        }

        if !contrasts.iter().any(|contrast| contrast.paired.n > 1) {
            return Err(self.nothing_to_compare(spec, &contrasts));
        }

        let column = |p: fn(&CellContrast) -> Option<f64>| {
            holm_correction(&contrasts.iter().map(p).collect::<Vec<_>>())
        };
        let sign = column(|c| c.paired.sign_p);
        let wilcoxon = column(|c| c.paired.wilcoxon.map(|w| w.p));
        for ((contrast, sign), wilcoxon) in contrasts.iter_mut().zip(sign).zip(wilcoxon) {
            (contrast.sign_holm, contrast.wilcoxon_holm) = (sign, wilcoxon);
        }

        Ok(contrasts)
    }

    fn contrast_cell(
        &self,
        spec: &Spec,
        trials: &BTreeMap<u64, CellTrials>,
        cell: u64,
        baseline: Option<u64>,
    ) -> CellContrast {
        let empty = CellTrials::default();
        let of = |cell: Option<u64>| cell.and_then(|cell| trials.get(&cell)).unwrap_or(&empty);
        let here = of(Some(cell));
        let there = of(baseline);
        let pairs = pair_common_repeats(&here.values, &there.values);
        let both: Vec<(f64, f64)> = pairs.iter().map(|(_, pair)| *pair).collect();
        let mut paired = PairedDifferences::from_pairs(&both, self.level);

        if let Some(crossing) = &self.crossing {
            let repeats: Vec<u32> = pairs.iter().map(|(repeat, _)| *repeat).collect();
            paired.apply_crossing(&both, &repeats, crossing, self.level);
        }

        CellContrast {
            values: spec.grid.axis_values(cell),
            note: self.describe_contrast(&paired, here, there, baseline.is_some()),
            paired,
            sign_holm: None,
            wilcoxon_holm: None,
        }
    }

    /// Why there is nothing to compare.
    fn nothing_to_compare(&self, spec: &Spec, contrasts: &[CellContrast]) -> AnalysisError {
        let why = match contrasts {
            [] => "the sweep has no other cell".to_owned(),
            [first, ..] => {
                let most = contrasts
                    .iter()
                    .max_by_key(|contrast| contrast.paired.n)
                    .unwrap_or(first);
                format!(
                    "no cell has two completed repeats in common with it ({})",
                    most.note
                )
            }
        };

        AnalysisError::Unknown(format!(
            "nothing can be compared with {}: {why}",
            self.describe_baseline(spec)
        ))
    }
}

/// Values of a query's metric by cell, and how its trials ended.
///
/// # Errors
/// The store failed, or no curve has a sample at the moment asked for.
pub(super) fn read_cell_trials(
    query: &TableQuery,
    rows: RowSource<'_>,
) -> Result<BTreeMap<u64, CellTrials>, AnalysisError> {
    let mut trials: BTreeMap<u64, CellTrials> = BTreeMap::new();
    for (key, value, end) in rows
        .map_ranges(|reader, part| read_range_ends(query, rows, reader, part))?
        .into_iter()
        .flatten()
    {
        let cell = trials.entry(key.cell).or_default();
        cell.ended_count += 1;
        cell.add_trial(key.repeat, value, end);
    }

    if let Some(at) = query.moment() {
        let unsampled = query.read_samples(rows, at, &mut |key, values| {
            let end = TrialEnd::Completed(values.selection_value);
            trials.entry(key.cell).or_default().add_trial(
                key.repeat,
                values.metric_value,
                Some(end),
            );
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

impl CellTrials {
    fn add_trial(&mut self, repeat: u32, value: f64, end: Option<TrialEnd>) {
        self.ends.extend(end.map(|end| (repeat, end)));
        if value.is_finite() {
            self.values.push((repeat, value));
        }
    }
}

/// The values of a part of the trials, NaN of those without one, and how they ended; nothing of those of which their curves tell.
fn read_range_ends(
    query: &TableQuery,
    rows: RowSource<'_>,
    reader: &dyn StoreReader,
    part: TrialRange,
) -> Result<Vec<(TrialKey, f64, Option<TrialEnd>)>, StoreError> {
    let at: Option<Length> = query.moment();
    let mut limit = (u64::MAX, None);
    let mut ended = Vec::new();
    reader.read_ended_trials(rows.sweep, part, &mut |trial| {
        if limit.0 != trial.key.cell {
            let steps = |at| {
                Some(
                    rows.spec
                        .grid
                        .resolve_config(trial.key.cell)
                        .ok()?
                        .length_in_steps(at),
                )
            };

            limit = (trial.key.cell, at.and_then(steps));
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

/// Values of repeats that both have; both are in the order of repeats.
fn pair_common_repeats(here: &[(u32, f64)], there: &[(u32, f64)]) -> Vec<(u32, (f64, f64))> {
    let mut rest = there.iter().peekable();
    let mut pairs = Vec::with_capacity(here.len().min(there.len()));

    for (repeat, value) in here {
        while rest.next_if(|(other, _)| other < repeat).is_some() {}
        pairs.extend(
            rest.next_if(|(other, _)| other == repeat)
                .map(|(_, baseline)| (*repeat, (*value, *baseline))),
        );
    }

    pairs
}

impl CompareQuery {
    fn describe_contrast(
        &self,
        paired: &PairedDifferences,
        here: &CellTrials,
        there: &CellTrials,
        has_baseline: bool,
    ) -> String {
        if !has_baseline {
            return "the sweep has no such baseline for this cell".into();
        }

        let mut notes = Vec::new();
        match paired.n {
            0 => notes.push("no repeat in common".to_owned()),
            1 => notes.push("one repeat in common: no interval, no test".to_owned()),
            _ if paired.std == Some(0.0) => {
                notes.push("the same difference in every repeat".to_owned())
            }
            _ => {}
        }

        if self.crossing.is_some() && paired.n > 1 {
            let interval = if paired.interval.is_none() {
                ", too few levels of one for an interval"
            } else {
                ""
            };
            notes.push(format!(
                "repeats share crossed streams: no sign test, no Wilcoxon{interval}"
            ));
        }

        if !self.fixed_streams.is_empty() && paired.n > 1 {
            notes.push(format!("given the fixed {}", self.fixed_streams));
        }

        match (here.count_without_value(), there.count_without_value()) {
            (0, 0) => {}
            (here, there) => notes.push(format!(
                "without a value: {here} trials here, {there} of the baseline"
            )),
        }

        notes.join("; ")
    }

    /// What is to be known of all contrasts; empty if nothing is.
    pub fn describe_caveats(&self, contrasts: &[CellContrast]) -> String {
        let stops = self.stops_early.then(|| NOT_WIDENED_NOTE.to_owned());
        let too_few = Some(self.describe_too_few_repeats(contrasts)).filter(|why| !why.is_empty());
        too_few
            .into_iter()
            .chain(stops)
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Why no cell can be told apart by its p, whatever its trials say: with so few repeats none is small enough for so many
    /// cells. Empty if one can, or no test is made.
    fn describe_too_few_repeats(&self, contrasts: &[CellContrast]) -> String {
        let tested = || {
            contrasts
                .iter()
                .filter(|contrast| contrast.paired.sign_p.is_some())
        };
        let Some(n) = tested().map(|contrast| contrast.paired.n).max() else {
            return String::new();
        };

        let tests = tested().count();
        let needed = repeats_for_significance(tested().count());
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
fn repeats_for_significance(tests: usize) -> u64 {
    (1..)
        .find(|n| 2.0 * 0.5_f64.powi(*n) * tests as f64 <= 0.05)
        .map_or(0, |n| n as u64)
}

/// The index of the value that a user means by `text`: the one that is exactly that, or the only one that tables round to it.
pub(super) fn find_value(axis: &Axis, text: &str) -> Result<u64, AnalysisError> {
    let text = text.trim();
    match axis.matching_value_indices(text)[..] {
        [only] => Ok(only),
        [] => {
            let hint = match text
                .parse()
                .ok()
                .and_then(|wanted| nearest_number(axis, wanted))
            {
                Some(nearest) => format!("the nearest is {}", format_shortest(nearest)),
                None => {
                    let words: Vec<String> = (0..axis.len().min(50))
                        .map(|i| axis.value_at(i).to_string())
                        .collect();
                    ergodic_common::spec_file::error::suggest_nearest(
                        text,
                        words.iter().map(String::as_str),
                    )
                }
            };

            Err(AnalysisError::Unknown(format!(
                "the axis '{}' has no value '{text}', {hint}",
                axis.name
            )))
        }
        ref several => {
            let all: Vec<String> = several
                .iter()
                .take(MAX_NAMED)
                .map(|i| axis.value_at(*i).to_string())
                .collect();
            let more = several.len() - all.len();
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };

            Err(AnalysisError::Invalid(format!(
                "the axis '{}' has {} values that '{text}' may stand for, rounded: {}{more}; give one in full",
                axis.name,
                several.len(),
                all.join(", ")
            )))
        }
    }
}

/// Candidates that are named.
const MAX_NAMED: usize = 8;

fn nearest_number(axis: &Axis, wanted: f64) -> Option<f64> {
    let numbers = (0..axis.len()).filter_map(|i| axis.number_at(i));
    numbers.min_by(|a, b| (a - wanted).abs().total_cmp(&(b - wanted).abs()))
}

#[cfg(test)]
mod tests {
    use crate::analysis::compare::*;

    #[test]
    fn only_repeats_that_both_have_are_common() {
        let here = [(0, 1.0), (2, 3.0), (3, 4.0), (7, 8.0)];
        let there = [(1, 20.0), (2, 30.0), (5, 60.0), (7, 80.0), (9, 1.0)];
        assert_eq!(
            pair_common_repeats(&here, &there),
            [(2, (3.0, 30.0)), (7, (8.0, 80.0))]
        );
        assert_eq!(pair_common_repeats(&here, &[]), []);
    }

    #[test]
    fn so_many_cells_need_so_many_repeats() {
        // 2·2⁻ⁿ·m ≤ 0.05: the smallest p of 7 repeats is 0.0156, that of 14 0.000122, which 239 times is 0.029.
        assert_eq!(
            [1, 3, 4, 8, 239].map(repeats_for_significance),
            [6, 7, 8, 9, 14]
        );
    }
}
