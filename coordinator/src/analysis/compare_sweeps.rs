//! Comparison of two sweeps: each cell of one with the cell of the other that resolves to the same, or that has the same values
//! of chosen axes.

use std::collections::{BTreeMap, BTreeSet};

use ergodic_common::Spec;
use ergodic_common::ids::{CellHash, CellIndex};
use ergodic_common::spec_file::node::SpecValue;

use super::cell_matching::{CellMatching, ComparedSweep};
use super::error::AnalysisError;
use super::query::{TableParams, TableQuery};
use super::repeat_pairing::{RepeatPairing, describe_missing_values, describe_too_few_repeats};
use super::row_source::RowSource;
use super::shared_draws::SharedDraws;
use super::table_metric::TableMetric;
use super::trial_values::{CellTrials, read_cell_trials};
use crate::estimators::paired::{PairedDifferences, holm_correction};
use crate::estimators::unpaired::UnpairedDifference;

/// The parameters of a comparison of two sweeps.
#[derive(Debug, Clone, Copy)]
pub struct SweepCompareParams<'a> {
    /// Axes that both have and by whose values cells are matched; empty for cells that resolve to the same.
    pub match_axes: &'a [String],
    /// The metric; empty for the main one of the first sweep.
    pub metric: &'a str,
    /// The moment; empty for the end of the trial.
    pub at: &'a str,
    /// Level of the confidence intervals, between 0.5 and 1.
    pub level: f64,
}

/// A comparison of two sweeps, checked against both.
#[derive(Debug, Clone)]
pub struct SweepCompareQuery {
    cell_query: TableQuery,
    baseline_query: TableQuery,
    matching: CellMatching,
    pairing: RepeatPairing,
    /// Why repeats are not paired; `None` if they are.
    unpaired_reason: Option<String>,
    /// Caveats of the design, known without rows.
    caveats: Vec<String>,
    /// Why there is no test of cells whose repeats are not paired.
    obstacles: BTreeMap<CellIndex, String>,
    /// The labels of both sweeps.
    labels: [String; 2],
}

/// The values of a sweep's trials.
#[derive(Debug)]
pub struct SweepValues(BTreeMap<CellIndex, CellTrials>);

/// The difference of two cells.
#[derive(Debug, Clone, PartialEq)]
pub enum MeanDifference {
    /// Repeat by repeat.
    Paired(PairedDifferences),
    /// Between independent samples.
    Unpaired(UnpairedDifference),
}

/// A cell and its difference from the matching cell of the other sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepContrast {
    /// The cell's value of each axis of the first sweep.
    pub values: Vec<SpecValue>,
    /// The difference.
    pub difference: MeanDifference,
    /// p of the sign test, with Holm's correction for the number of cells.
    pub sign_holm: Option<f64>,
    /// p of Wilcoxon's test, with Holm's correction for the number of cells.
    pub wilcoxon_holm: Option<f64>,
    /// p of Welch's test, with Holm's correction for the number of cells.
    pub welch_holm: Option<f64>,
    /// Caveats; empty if there are none.
    pub note: String,
}

impl SweepCompareQuery {
    /// Checks the parameters against both sweeps and matches their cells. The second sweep is the baseline.
    ///
    /// # Errors
    /// A sweep has no such axis or metric, cells cannot be matched one to one, no cell has a match, or the level is out of range.
    pub fn new(
        sweep: ComparedSweep<'_>,
        baseline: ComparedSweep<'_>,
        params: &SweepCompareParams<'_>,
    ) -> Result<Self, AnalysisError> {
        let cell_query = build_query(sweep, params.metric, params.at)?;
        let baseline_query = build_query(baseline, &cell_query.metric().name(), params.at)?;
        let matching = CellMatching::find(sweep, baseline, params.match_axes)?;
        let metrics = [cell_query.metric(), baseline_query.metric()];
        refuse_mixed_losses(sweep, baseline, &matching, metrics)?;
        let pairing = RepeatPairing::new(sweep.spec, params.level)?;
        let unpaired_reason = find_unpaired_reason(sweep, baseline, &matching);
        let obstacles = match unpaired_reason {
            Some(_) => find_obstacles(sweep, baseline, &matching),
            None => BTreeMap::new(),
        };

        Ok(Self {
            unpaired_reason,
            obstacles,
            labels: [sweep, baseline].map(|side| side.label.to_owned()),
            caveats: describe_definitions(sweep, baseline, metrics)
                .into_iter()
                .chain(describe_design(sweep, baseline, &matching))
                .collect(),
            cell_query,
            baseline_query,
            matching,
            pairing,
        })
    }

    /// The metric of the comparison.
    pub fn metric(&self) -> &TableMetric {
        self.cell_query.metric()
    }

    /// Why repeats are not paired; `None` if they are.
    pub fn unpaired_reason(&self) -> Option<&str> {
        self.unpaired_reason.as_deref()
    }

    /// Reads the values of the first sweep.
    ///
    /// # Errors
    /// The store failed, or no curve has a sample at the moment.
    pub fn read_values(&self, rows: RowSource<'_>) -> Result<SweepValues, AnalysisError> {
        read_cell_trials(&self.cell_query, rows)
            .map(SweepValues)
            .map_err(|error| error.in_sweep(&self.labels[0]))
    }

    /// Reads the values of the baseline.
    ///
    /// # Errors
    /// As for [`Self::read_values`].
    pub fn read_baseline_values(&self, rows: RowSource<'_>) -> Result<SweepValues, AnalysisError> {
        read_cell_trials(&self.baseline_query, rows)
            .map(SweepValues)
            .map_err(|error| error.in_sweep(&self.labels[1]))
    }

    /// Compares the matched cells, in the order of the first sweep's grid.
    ///
    /// # Errors
    /// No two matched cells have values.
    pub fn compute_contrasts(
        &self,
        spec: &Spec,
        cells: &SweepValues,
        baselines: &SweepValues,
    ) -> Result<Vec<SweepContrast>, AnalysisError> {
        let empty = CellTrials::default();
        let pairs = self.matching.pairs.iter();
        let mut contrasts: Vec<SweepContrast> = pairs
            .map(|(cell, baseline)| {
                let here = cells.0.get(cell).unwrap_or(&empty);
                let there = baselines.0.get(baseline).unwrap_or(&empty);
                self.contrast_cell(spec, *cell, here, there)
            })
            .collect();

        if contrasts
            .iter()
            .all(|contrast| contrast.difference.mean().is_none())
        {
            return Err(AnalysisError::Unknown(
                "no two matching cells have values yet that can be compared".to_owned(),
            ));
        }

        correct_p_values(&mut contrasts);
        Ok(contrasts)
    }

    fn contrast_cell(
        &self,
        spec: &Spec,
        cell: CellIndex,
        here: &CellTrials,
        there: &CellTrials,
    ) -> SweepContrast {
        let (difference, note) = match self.unpaired_reason {
            None => {
                let paired = self.pairing.compare_common_repeats(here, there);
                let note = self.pairing.describe_contrast(&paired, here, there);
                (MeanDifference::Paired(paired), note)
            }
            Some(_) => {
                let obstacle = self.obstacles.get(&cell).map(String::as_str);
                let unpaired = self.compare_independent_values(here, there, obstacle.is_some());
                let note = describe_unpaired(&unpaired, obstacle, here, there);
                (MeanDifference::Unpaired(unpaired), note)
            }
        };

        SweepContrast {
            values: spec.grid.axis_values(cell),
            difference,
            sign_holm: None,
            wilcoxon_holm: None,
            welch_holm: None,
            note,
        }
    }

    fn compare_independent_values(
        &self,
        here: &CellTrials,
        there: &CellTrials,
        without_inference: bool,
    ) -> UnpairedDifference {
        let unpaired = UnpairedDifference::from_values(
            list_values(here),
            list_values(there),
            self.pairing.level(),
        );
        match without_inference {
            true => unpaired.without_inference(),
            false => unpaired,
        }
    }

    /// Describes the caveats of all comparisons; empty if there are none.
    pub fn describe_caveats(&self, contrasts: &[SweepContrast]) -> String {
        let paired = contrasts
            .iter()
            .filter_map(|contrast| match &contrast.difference {
                MeanDifference::Paired(paired) => Some(paired),
                MeanDifference::Unpaired(_) => None,
            });

        let mut caveats = self.caveats.clone();
        caveats.extend(describe_too_few_repeats(paired));
        caveats.join("; ")
    }
}

/// Describes the caveats of one comparison of independent samples; empty if there are none.
fn describe_unpaired(
    unpaired: &UnpairedDifference,
    obstacle: Option<&str>,
    here: &CellTrials,
    there: &CellTrials,
) -> String {
    let mut notes = Vec::new();
    if let Some(obstacle) = obstacle {
        notes.push(format!("{obstacle}: no interval, no test"));
    } else if unpaired.n.min(unpaired.baseline_n) < 2 {
        notes.push("fewer than two values: no interval, no test".to_owned());
    }

    notes.extend(describe_missing_values(here, there));
    notes.join("; ")
}

impl MeanDifference {
    /// The difference of the means; `None` if a cell has no value.
    pub fn mean(&self) -> Option<f64> {
        match self {
            Self::Paired(paired) => paired.difference,
            Self::Unpaired(unpaired) => unpaired.difference,
        }
    }
}

/// Checks metric and moment against a sweep, whose label begins the message of an error.
fn build_query(
    sweep: ComparedSweep<'_>,
    metric: &str,
    at: &str,
) -> Result<TableQuery, AnalysisError> {
    let params = TableParams {
        metric,
        at,
        ..TableParams::default()
    };
    TableQuery::new(sweep.spec, &params).map_err(|error| error.in_sweep(sweep.label))
}

/// Explains why trials of the same repeat do not share their random streams; `None` if they do.
fn find_unpaired_reason(
    sweep: ComparedSweep<'_>,
    baseline: ComparedSweep<'_>,
    matching: &CellMatching,
) -> Option<String> {
    let [here, there] = [sweep.spec, baseline.spec];
    if here.seed != there.seed {
        return Some(format!(
            "the seeds differ: {} and {}",
            here.seed, there.seed
        ));
    }
    if here.seeds != there.seeds {
        return Some("the random streams are laid out differently (`seeds`)".to_owned());
    }

    let per_cell = &here.seeds.per_cell;
    let same_trials = find_same_trials(sweep, baseline, matching);
    if per_cell.is_empty() || same_trials.len() == matching.pairs.len() {
        return None;
    }

    let names: Vec<&str> = per_cell.iter().map(|purpose| purpose.as_str()).collect();
    Some(format!(
        "streams that differ per cell: {}",
        names.join(", ")
    ))
}

/// Why there is no test of a cell whose repeats are not paired; cells without an obstacle have no entry.
fn find_obstacles(
    sweep: ComparedSweep<'_>,
    baseline: ComparedSweep<'_>,
    matching: &CellMatching,
) -> BTreeMap<CellIndex, String> {
    let same_trials = find_same_trials(sweep, baseline, matching);
    let shared = SharedDraws::of_sweeps(sweep.spec, baseline.spec);
    let pairs = matching.pairs.iter();
    pairs
        .filter_map(|(cell, other)| {
            let obstacle = match same_trials.contains(cell) {
                true => Some("the same trials in both sweeps".to_owned()),
                false => shared.describe(*cell, *other),
            };
            Some((*cell, obstacle?))
        })
        .collect()
}

/// The cells whose trials are those of their match: equal in all that a result depends on.
fn find_same_trials(
    sweep: ComparedSweep<'_>,
    baseline: ComparedSweep<'_>,
    matching: &CellMatching,
) -> BTreeSet<CellIndex> {
    if sweep.spec.seed != baseline.spec.seed {
        return BTreeSet::new();
    }
    let pairs = matching.pairs.iter();
    pairs
        .filter(|(cell, other)| {
            compute_cell_hash(sweep, *cell) == compute_cell_hash(baseline, *other)
        })
        .map(|(cell, _)| *cell)
        .collect()
}

/// Refuses to compare losses that are different quantities, such as a cross-entropy and a squared error.
fn refuse_mixed_losses(
    sweep: ComparedSweep<'_>,
    baseline: ComparedSweep<'_>,
    matching: &CellMatching,
    [metric, other_metric]: [&TableMetric; 2],
) -> Result<(), AnalysisError> {
    for (cell, other) in &matching.pairs {
        let here = metric.describe_loss(sweep.spec, *cell);
        let there = other_metric.describe_loss(baseline.spec, *other);
        if let (Some(here), Some(there)) = (here, there)
            && here != there
        {
            return Err(AnalysisError::Invalid(format!(
                "{} is another quantity in each sweep: {here} in {}, {there} in {}; compare an accuracy",
                metric.name(),
                sweep.label,
                baseline.label
            )));
        }
    }

    Ok(())
}

fn compute_cell_hash(sweep: ComparedSweep<'_>, cell: CellIndex) -> Option<CellHash> {
    let config = sweep.spec.grid.resolve_config(cell).ok()?;
    Some(sweep.spec.compute_cell_hash(&config, sweep.dataset_hash))
}

/// Says that the two sweep files define a quantity differently; `None` if they do not.
fn describe_definitions(
    sweep: ComparedSweep<'_>,
    baseline: ComparedSweep<'_>,
    metrics: [&TableMetric; 2],
) -> Option<String> {
    let [here, there] = metrics.map(TableMetric::definition);
    let message = format!(
        "the sweeps define {} differently: {here} in {}, {there} in {}",
        metrics[0].name(),
        sweep.label,
        baseline.label
    );
    (here != there).then_some(message)
}

/// Caveats that follow from the two sweep files.
fn describe_design(
    sweep: ComparedSweep<'_>,
    baseline: ComparedSweep<'_>,
    matching: &CellMatching,
) -> Vec<String> {
    let [here, there] = [sweep.spec, baseline.spec];
    let mut caveats = Vec::new();

    caveats.extend(matching.describe_unmatched(sweep.label, baseline.label));
    caveats.extend(describe_data(sweep, baseline).map(str::to_owned));
    if here.numerics != there.numerics {
        caveats.push(format!(
            "the numerics classes differ: {} and {}",
            here.numerics, there.numerics
        ));
    }

    let stops = [sweep, baseline].map(|sweep| RepeatPairing::new(sweep.spec, 0.95));
    let stopping = stops
        .into_iter()
        .flatten()
        .find_map(|pairing| pairing.stopping_caveat());
    caveats.extend(stopping);
    caveats
}

/// What is to be said of the data of both sweeps, unless they are the same.
fn describe_data(sweep: ComparedSweep<'_>, baseline: ComparedSweep<'_>) -> Option<&'static str> {
    let [here, there] = [sweep.spec, baseline.spec];
    let has_program = here.program().is_some() || there.program().is_some();
    if has_program {
        let is_same = here.numerics == there.numerics;
        return (!is_same).then_some("a program brings its own data, which may be others");
    }

    let is_same = sweep.dataset_hash == baseline.dataset_hash;
    (!is_same).then_some("the sweeps train on different data")
}

fn list_values(trials: &CellTrials) -> Vec<f64> {
    trials.values.iter().map(|(_, value)| *value).collect()
}

/// Corrects the p-values of each test for the number of cells.
fn correct_p_values(contrasts: &mut [SweepContrast]) {
    let mut sign = Vec::new();
    let mut wilcoxon = Vec::new();
    let mut welch = Vec::new();

    for contrast in contrasts.iter() {
        match &contrast.difference {
            MeanDifference::Paired(paired) => {
                sign.push(paired.sign_p);
                wilcoxon.push(paired.wilcoxon.map(|test| test.p));
                welch.push(None);
            }
            MeanDifference::Unpaired(unpaired) => {
                sign.push(None);
                wilcoxon.push(None);
                welch.push(unpaired.p);
            }
        }
    }

    let corrected = [sign, wilcoxon, welch].map(|p| holm_correction(&p));
    for (at, contrast) in contrasts.iter_mut().enumerate() {
        contrast.sign_holm = corrected[0][at];
        contrast.wilcoxon_holm = corrected[1][at];
        contrast.welch_holm = corrected[2][at];
    }
}
