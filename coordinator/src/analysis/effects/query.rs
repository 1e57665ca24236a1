//! Queries of effects, checked against a sweep, and their answers.

use std::collections::BTreeMap;

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::random_streams::RandomStream;

use crate::analysis::effects::anova;
use crate::analysis::effects::best_cells::{find_best_cells, mean_value};
use crate::analysis::effects::caveats::{
    NO_PROBABILITY, describe_caveats, describe_conditions, describe_missing_values,
};
use crate::analysis::effects::design::EffectsDesign;
use crate::analysis::effects::model::{EffectDraws, EffectsModel};
use crate::analysis::effects::resample::RepeatBlocks;
use crate::analysis::effects::types::{EffectsAnalysis, TopCell};
use crate::analysis::error::AnalysisError;
use crate::analysis::lookup::{check_level, find_axis};
use crate::analysis::query::{MAX_DRAWS, TableParams, TableQuery};
use crate::analysis::row_source::RowSource;
use crate::analysis::table_metric::TableMetric;
use crate::analysis::trial_values::{CellTrials, read_cell_trials};
use crate::estimators::bootstrap::RESAMPLES;
use crate::estimators::crossed::Crossing;
use crate::estimators::rank::CellEnds;

/// The parameters of a query.
#[derive(Debug, Clone, Copy)]
pub struct EffectsParams<'a> {
    /// The metric; empty for the main one.
    pub metric: &'a str,
    /// The moment; empty for the end of the trial.
    pub at: &'a str,
    /// Level of the confidence intervals, between 0.5 and 1.
    pub level: f64,
    /// The two axes whose interaction is requested, or none.
    pub interaction: &'a [String],
}

/// The parameters of a query, checked against a sweep.
#[derive(Debug, Clone)]
pub struct EffectsQuery {
    pub(super) query: TableQuery,
    pub(super) level: f64,
    pub(super) interaction: Option<[usize; 2]>,
}

/// Maximum number of pairs of levels in an answer.
const MAX_PAIRS: usize = 400;

impl EffectsQuery {
    /// Checks the parameters against a sweep.
    ///
    /// # Errors
    /// There is no such axis, metric or step, or the level is out of range.
    pub fn new(spec: &Spec, asked: &EffectsParams<'_>) -> Result<Self, AnalysisError> {
        check_level(asked.level)?;

        let query = TableQuery::new(
            spec,
            &TableParams {
                metric: asked.metric,
                at: asked.at,
                ..TableParams::default()
            },
        )?;

        let axes = asked
            .interaction
            .iter()
            .map(|name| find_axis(spec.grid.axes(), name));
        let interaction = match axes.collect::<Result<Vec<usize>, _>>()?[..] {
            [] => None,
            [a, b] if a != b => Some([a, b]),
            _ => {
                let message = "interaction: expected two different axes, as in --interaction lr,wd";
                return Err(AnalysisError::Invalid(message.into()));
            }
        };

        Ok(Self {
            query,
            level: asked.level,
            interaction,
        })
    }

    /// The metric of the query.
    pub fn metric(&self) -> &TableMetric {
        self.query.metric()
    }

    /// Analyses the stored rows.
    ///
    /// # Errors
    /// The store failed, there is nothing to compare, or it would take too long.
    pub fn analyze_effects(&self, rows: RowSource<'_>) -> Result<EffectsAnalysis, AnalysisError> {
        let spec = rows.spec;
        let trials = read_cell_trials(&self.query, rows)?;
        let design = self.build_design(spec, &trials)?;
        let pair = self.find_interaction_factors(spec, &design)?;
        let values: Vec<&[(u32, f64)]> = design
            .cells
            .iter()
            .map(|cell| &trials[cell].values[..])
            .collect();
        let blocks = RepeatBlocks::new(&values);

        let crossing = Crossing::from_spec(spec);
        // Crossed streams have analytic intervals, so nothing is resampled.
        check_resampling_work(
            &design,
            &blocks,
            if crossing.is_some() { 1 } else { RESAMPLES },
        )?;

        let model = EffectsModel::new(spec, &design, pair)?;
        let means: Vec<f64> = values
            .iter()
            .filter_map(|values| mean_value(values))
            .collect();
        let drawn = match &crossing {
            None => EffectDraws::Resamples(
                model.evaluate_resamples(&blocks, &mut rows.resampling_stream(&design.cells)),
            ),
            Some(crossing) => EffectDraws::Repeats(
                model.evaluate_repeats(&blocks),
                blocks.repeat_numbers().to_vec(),
                crossing.clone(),
            ),
        };
        let mut notes = describe_caveats(spec, &design, &blocks, &drawn);
        notes.extend(describe_conditions(spec));

        let terms = anova::compute_anova_terms(spec, &design, &values, &blocks, &means, &mut notes);
        let stream = crossing
            .is_none()
            .then(|| rows.resampling_stream(&design.cells));
        let (best, may_be_best) = self.find_best_cells(spec, &trials, stream, &mut notes);

        Ok(EffectsAnalysis {
            mean: model.grand_mean(&means),
            levels: model.build_levels(&means, &drawn, self.level),
            terms,
            best,
            may_be_best,
            pairs: model.build_pairs(&means, &drawn, self.level),
            notes,
        })
    }

    /// Creates the design of the cells with values.
    fn build_design(
        &self,
        spec: &Spec,
        trials: &BTreeMap<CellIndex, CellTrials>,
    ) -> Result<EffectsDesign, AnalysisError> {
        let cells: Vec<CellIndex> = trials
            .iter()
            .filter(|(_, trials)| !trials.values.is_empty())
            .map(|(cell, _)| *cell)
            .collect();
        if cells.is_empty() {
            return Err(AnalysisError::Unknown(format!(
                "no trial has a value of {}: {}",
                self.metric().name(),
                describe_missing_values(spec, trials)
            )));
        }

        EffectsDesign::new(spec, cells)
    }

    /// The best cells, and the number of cells that cannot be distinguished from the best one;
    /// empty if cells have no ranks. Without a random stream, they have no probabilities.
    fn find_best_cells(
        &self,
        spec: &Spec,
        trials: &BTreeMap<CellIndex, CellTrials>,
        stream: Option<RandomStream>,
        notes: &mut Vec<String>,
    ) -> (Vec<TopCell>, u64) {
        let ranked_by = self.query.selection_metric();
        if ranked_by != self.metric() {
            notes.push(format!("cells are ranked by {}", ranked_by.name()));
        }

        if let Some(why) = self.query.unranked_reason() {
            notes.push(format!("no best cell: {why}"));
            return (Vec::new(), 0);
        }
        let Some(ranking_metric) = ranked_by.stored() else {
            return (Vec::new(), 0);
        };

        if stream.is_none() {
            notes.push(NO_PROBABILITY.to_owned());
        }

        let ends: BTreeMap<CellIndex, CellEnds> = trials
            .iter()
            .map(|(cell, trials)| (*cell, trials.ends.clone()))
            .collect();
        find_best_cells(spec, ranking_metric, trials, &ends, stream)
    }

    /// Finds the two factors whose interaction is requested.
    fn find_interaction_factors(
        &self,
        spec: &Spec,
        design: &EffectsDesign,
    ) -> Result<Option<(usize, usize)>, AnalysisError> {
        let Some(axes) = self.interaction else {
            return Ok(None);
        };
        let a = find_factor(spec, design, axes[0])?;
        let b = find_factor(spec, design, axes[1])?;
        let pairs = design.factors[a].levels.len() * design.factors[b].levels.len();

        if a == b {
            let message = format!(
                "interaction: '{}' and '{}' always change together, so they have no interaction",
                spec.grid.axes()[axes[0]].name,
                spec.grid.axes()[axes[1]].name
            );
            return Err(AnalysisError::Invalid(message));
        }

        if pairs > MAX_PAIRS {
            let message = format!(
                "interaction: {pairs} pairs of values are too many to show: at most {MAX_PAIRS}"
            );
            return Err(AnalysisError::Invalid(message));
        }

        Ok(Some((a, b)))
    }
}

/// Refuses a query that would take minutes.
pub(super) fn check_resampling_work(
    design: &EffectsDesign,
    blocks: &RepeatBlocks,
    resamples: usize,
) -> Result<(), AnalysisError> {
    let draws =
        (blocks.repeat_count() + design.additive_columns().len()) * design.cells.len() * resamples;
    if draws > MAX_DRAWS {
        let message = format!(
            "resampling this many trials would take {draws} draws; at most {MAX_DRAWS} are allowed: ask for the effects of \
             a sweep with fewer cells or repeats"
        );
        return Err(AnalysisError::Invalid(message));
    }

    Ok(())
}

/// The factor that an axis belongs to.
fn find_factor(spec: &Spec, design: &EffectsDesign, axis: usize) -> Result<usize, AnalysisError> {
    design.factor_of_axis(axis).ok_or_else(|| {
        AnalysisError::Unknown(format!(
            "interaction: '{}' has one value in all cells that have results",
            spec.grid.axes()[axis].name
        ))
    })
}
