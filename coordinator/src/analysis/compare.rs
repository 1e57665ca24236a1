//! Comparison of every cell of a sweep with a baseline, repeat by repeat.

use std::collections::BTreeMap;

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::metric::Metric;
use ergodic_common::spec_file::node::SpecValue;

use super::error::AnalysisError;
use super::lookup::{check_level, find_axis};
use super::query::{IntervalConditions, MAX_EMPTY_ROWS, TableParams, TableQuery};
use super::row_source::RowSource;
use crate::analysis::lookup::find_value;
use crate::analysis::trial_values::{CellTrials, read_cell_trials};
use crate::estimators::crossed::Crossing;
use crate::estimators::paired::{PairedDifferences, holm_correction};
use crate::estimators::precision::NOT_WIDENED_NOTE;

/// The parameters of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct CompareParams<'a> {
    /// The baseline, as axes with values. On an axis that is not named, the baseline has the value
    /// of the compared cell.
    pub baseline: &'a [(String, String)],
    /// The metric; empty for the main one.
    pub metric: &'a str,
    /// The moment; empty for the end of the trial.
    pub at: &'a str,
    /// Level of the confidence intervals, between 0.5 and 1.
    pub level: f64,
}

/// The parameters of a comparison, checked against a sweep.
#[derive(Debug, Clone)]
pub struct CompareQuery {
    query: TableQuery,
    /// The baseline as axes with the indices of values.
    baseline: Vec<(usize, u64)>,
    level: f64,
    crossing: Option<Crossing>,
    conditions: IntervalConditions,
}

/// A cell and its differences from the baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct CellContrast {
    /// The cell's value of each axis.
    pub values: Vec<SpecValue>,
    /// The paired differences.
    pub paired: PairedDifferences,
    /// p of the sign test, with Holm's correction for the number of cells.
    pub sign_holm: Option<f64>,
    /// p of Wilcoxon's test, with Holm's correction for the number of cells.
    pub wilcoxon_holm: Option<f64>,
    /// Caveats, such as why a value is missing; empty if there are none.
    pub note: String,
}

impl CompareQuery {
    /// Checks the parameters against a sweep.
    ///
    /// # Errors
    /// There is no such axis, value, metric or step, or the level is out of range.
    pub fn new(spec: &Spec, contest: &CompareParams<'_>) -> Result<Self, AnalysisError> {
        check_level(contest.level)?;

        let question = TableParams {
            metric: contest.metric,
            at: contest.at,
            ..TableParams::default()
        };

        Ok(Self {
            query: TableQuery::new(spec, &question)?,
            baseline: find_baseline(spec, contest.baseline)?,
            level: contest.level,
            crossing: Crossing::from_spec(spec),
            conditions: IntervalConditions::from_spec(spec),
        })
    }

    /// The metric of the comparison.
    pub fn metric(&self) -> &Metric {
        self.query.metric()
    }

    /// The baseline in words: `lr=0.1, wd=5e-4`.
    pub fn describe_baseline(&self, spec: &Spec) -> String {
        self.baseline
            .iter()
            .map(|(axis, index)| {
                let axis = &spec.grid.axes()[*axis];
                format!(
                    "{}={}",
                    axis.name,
                    axis.format_value(&axis.value_at(*index))
                )
            })
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Compares each cell with its baseline, in the order of the grid.
    ///
    /// # Errors
    /// The store failed, or there is nothing to compare.
    pub fn compute_contrasts(
        &self,
        rows: RowSource<'_>,
    ) -> Result<Vec<CellContrast>, AnalysisError> {
        let spec = rows.spec;
        let trials = read_cell_trials(&self.query, rows)?;
        let cells: Vec<CellIndex> = match spec.grid.cell_number_bound() <= MAX_EMPTY_ROWS {
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

        correct_p_values(&mut contrasts);
        Ok(contrasts)
    }

    fn contrast_cell(
        &self,
        spec: &Spec,
        trials: &BTreeMap<CellIndex, CellTrials>,
        cell: CellIndex,
        baseline: Option<CellIndex>,
    ) -> CellContrast {
        let empty = CellTrials::default();
        let here = trials.get(&cell).unwrap_or(&empty);
        let there = baseline
            .and_then(|cell| trials.get(&cell))
            .unwrap_or(&empty);
        let paired = self.compare_common_repeats(here, there);

        CellContrast {
            values: spec.grid.axis_values(cell),
            note: self.describe_contrast(&paired, here, there, baseline.is_some()),
            paired,
            sign_holm: None,
            wilcoxon_holm: None,
        }
    }

    fn compare_common_repeats(&self, here: &CellTrials, there: &CellTrials) -> PairedDifferences {
        let pairs = pair_common_repeats(&here.values, &there.values);
        let both: Vec<(f64, f64)> = pairs.iter().map(|(_, pair)| *pair).collect();
        let mut paired = PairedDifferences::from_pairs(&both, self.level);

        if let Some(crossing) = &self.crossing {
            let repeats: Vec<u32> = pairs.iter().map(|(repeat, _)| *repeat).collect();
            paired.apply_crossing(&both, &repeats, crossing, self.level);
        }

        paired
    }

    /// Explains why there is nothing to compare.
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
            "no cell can be compared with {}: {why}",
            self.describe_baseline(spec)
        ))
    }
}

/// Corrects the p-values of both tests for the number of cells.
fn correct_p_values(contrasts: &mut [CellContrast]) {
    let sign: Vec<Option<f64>> = contrasts.iter().map(|c| c.paired.sign_p).collect();
    let wilcoxon: Vec<Option<f64>> = contrasts
        .iter()
        .map(|c| c.paired.wilcoxon.map(|test| test.p))
        .collect();
    let corrected = holm_correction(&sign)
        .into_iter()
        .zip(holm_correction(&wilcoxon));

    for (contrast, (sign, wilcoxon)) in contrasts.iter_mut().zip(corrected) {
        contrast.sign_holm = sign;
        contrast.wilcoxon_holm = wilcoxon;
    }
}

/// Finds the values that a baseline names, as axes with the indices of values.
fn find_baseline(
    spec: &Spec,
    named: &[(String, String)],
) -> Result<Vec<(usize, u64)>, AnalysisError> {
    if named.is_empty() {
        let names: Vec<&str> = spec
            .grid
            .axes()
            .iter()
            .map(|axis| axis.name.as_str())
            .collect();

        return Err(AnalysisError::Invalid(format!(
            "baseline: expected values of axes, as in lr=0.1; axes of this sweep: {}",
            names.join(", ")
        )));
    }

    let mut baseline: Vec<(usize, u64)> = Vec::new();
    for (name, text) in named {
        let axis = find_axis(spec.grid.axes(), name)?;
        if baseline.iter().any(|(known, _)| *known == axis) {
            return Err(AnalysisError::Invalid(format!(
                "the axis '{name}' is named twice in the baseline"
            )));
        }

        baseline.push((axis, find_value(&spec.grid.axes()[axis], text)?));
    }

    Ok(baseline)
}

/// Pairs the values of common repeats; both lists are in the order of repeats.
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

fn describe_common_repeats(paired: &PairedDifferences) -> Option<&'static str> {
    match paired.n {
        0 => Some("no repeat in common"),
        1 => Some("one repeat in common: no interval, no test"),
        _ if paired.std == Some(0.0) => Some("the same difference in every repeat"),
        _ => None,
    }
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
            return "the sweep has no baseline cell for this cell".into();
        }

        let mut notes = Vec::new();
        notes.extend(describe_common_repeats(paired).map(str::to_owned));

        if self.crossing.is_some() && paired.n > 1 {
            let interval = if paired.interval.is_none() {
                ", and too few levels of one stream for an interval"
            } else {
                ""
            };
            notes.push(format!(
                "repeats share crossed streams: no sign test, no Wilcoxon{interval}"
            ));
        }

        if !self.conditions.fixed_streams.is_empty() && paired.n > 1 {
            notes.push(format!("given the fixed {}", self.conditions.fixed_streams));
        }

        match (here.count_without_value(), there.count_without_value()) {
            (0, 0) => {}
            (here, there) => notes.push(format!(
                "trials without a value: {here} in this cell, {there} in the baseline"
            )),
        }

        notes.join("; ")
    }

    /// Describes the caveats of all comparisons; empty if there are none.
    pub fn describe_caveats(&self, contrasts: &[CellContrast]) -> String {
        let stops = self
            .conditions
            .stops_early
            .then(|| NOT_WIDENED_NOTE.to_owned());
        let too_few = Some(self.describe_too_few_repeats(contrasts)).filter(|why| !why.is_empty());
        too_few
            .into_iter()
            .chain(stops)
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Explains that no cell can be significant, whatever its values: with so few repeats, no p is
    /// small enough for so many cells. Empty if one can be, or no test was made.
    fn describe_too_few_repeats(&self, contrasts: &[CellContrast]) -> String {
        let tested = contrasts
            .iter()
            .filter(|contrast| contrast.paired.sign_p.is_some());
        let Some(n) = tested.clone().map(|contrast| contrast.paired.n).max() else {
            return String::new();
        };

        let tests = tested.count();
        let needed = repeats_for_significance(tests);
        if n >= needed {
            return String::new();
        }

        format!(
            "with {n} repeats and {tests} cells, no p-value can fall below 0.05 after Holm's correction, however large the \
             differences: at least {needed} repeats are needed"
        )
    }
}

/// Minimum number of repeats with which the smallest possible p, of signs that are all alike, is
/// significant at 5 % among this many tests.
fn repeats_for_significance(tests: usize) -> u64 {
    (1..)
        .find(|n| 2.0 * 0.5_f64.powi(*n) * tests as f64 <= 0.05)
        .map_or(0, |n| n as u64)
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
