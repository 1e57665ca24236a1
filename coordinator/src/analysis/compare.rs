//! Comparison of every cell of a sweep with a baseline, repeat by repeat.

use std::collections::BTreeMap;

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::spec_file::node::SpecValue;

use super::error::AnalysisError;
use super::lookup::find_axis;
use super::query::{MAX_EMPTY_ROWS, TableParams, TableQuery};
use super::repeat_pairing::{RepeatPairing, describe_too_few_repeats};
use super::row_source::RowSource;
use crate::analysis::lookup::find_value;
use crate::analysis::table_metric::TableMetric;
use crate::analysis::trial_values::{CellTrials, read_cell_trials};
use crate::estimators::paired::{PairedDifferences, holm_correction};

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
    pairing: RepeatPairing,
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
        let question = TableParams {
            metric: contest.metric,
            at: contest.at,
            ..TableParams::default()
        };

        Ok(Self {
            query: TableQuery::new(spec, &question)?,
            baseline: find_baseline(spec, contest.baseline)?,
            pairing: RepeatPairing::new(spec, contest.level)?,
        })
    }

    /// The metric of the comparison.
    pub fn metric(&self) -> &TableMetric {
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
        let paired = self.pairing.compare_common_repeats(here, there);
        let note = match baseline {
            Some(other) => {
                let notes = [
                    self.describe_mixed_losses(spec, cell, other),
                    self.pairing.describe_contrast(&paired, here, there),
                ];
                notes
                    .into_iter()
                    .filter(|note| !note.is_empty())
                    .collect::<Vec<_>>()
                    .join("; ")
            }
            None => "the sweep has no baseline cell for this cell".into(),
        };

        CellContrast {
            values: spec.grid.axis_values(cell),
            note,
            paired,
            sign_holm: None,
            wilcoxon_holm: None,
        }
    }

    /// Warns of a loss that is another quantity in the baseline; empty if it is the same.
    fn describe_mixed_losses(&self, spec: &Spec, cell: CellIndex, baseline: CellIndex) -> String {
        let metric = self.metric();
        let here = metric.describe_loss(spec, cell);
        let there = metric.describe_loss(spec, baseline);
        match (here, there) {
            (Some(here), Some(there)) if here != there => format!(
                "{} is another quantity in each cell: {here} here, {there} in the baseline",
                metric.name()
            ),
            _ => String::new(),
        }
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

impl CompareQuery {
    /// Describes the caveats of all comparisons; empty if there are none.
    pub fn describe_caveats(&self, contrasts: &[CellContrast]) -> String {
        let p_values = contrasts.iter().map(|contrast| &contrast.paired);
        let too_few = describe_too_few_repeats(p_values);
        too_few
            .into_iter()
            .chain(self.pairing.stopping_caveat())
            .collect::<Vec<_>>()
            .join("; ")
    }
}
