//! What each axis of a grid does to a metric, and which cell is best.

mod anova;
mod design;
mod least_squares;
mod resample;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use anova::AnovaTerm;
use design::EffectsDesign;
use ergodic_common::Spec;
use ergodic_common::metric::Metric;
use ergodic_common::random_streams::RandomStream;
use ergodic_common::spec::stopping_rule::StoppingRule;
use ergodic_common::spec_file::node::SpecValue;
use resample::RepeatBlocks;

use super::compare::{CellTrials, read_cell_trials};
use super::distance::describe_cell;
use super::ranking;
use super::ranking::{CellEnds, RowRank};
use super::table::{AnalysisError, MAX_DRAWS, RowSource, TableParams, TableQuery, find_axis};
use crate::estimators::Sample;
use crate::estimators::bootstrap::RESAMPLES;
use crate::estimators::crossed::Crossing;
use crate::estimators::precision::NOT_WIDENED_NOTE;
use crate::estimators::rank::{Ranks, TrialEnd};

/// What is to be known.
#[derive(Debug, Clone, Copy)]
pub struct EffectsParams<'a> {
    /// The metric; empty for the main one.
    pub metric: &'a str,
    /// When; empty for the end of the trial.
    pub at: &'a str,
    /// Level of the confidence intervals, as a share.
    pub level: f64,
    /// Two axes whose interaction is to be shown, or none.
    pub interaction: &'a [String],
}

/// A question that was checked against a sweep.
#[derive(Debug, Clone)]
pub struct EffectsQuery {
    query: TableQuery,
    level: f64,
    interaction: Option<[usize; 2]>,
}

/// What the cells say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EffectsAnalysis {
    /// Mean of the cells' means; where cells are missing, of the means of levels.
    pub mean: f64,
    /// Each level of each factor.
    pub levels: Vec<LevelEffect>,
    /// Where the variance is.
    pub terms: Vec<AnovaTerm>,
    /// The cells with the best mean ranks, the best first; empty where cells have no order.
    pub best: Vec<TopCell>,
    /// How many of all cells cannot be told from the best.
    pub may_be_best: u64,
    /// Each pair of levels of the two factors asked for.
    pub pairs: Vec<LevelEffect>,
    /// What is to be known of all this.
    pub notes: Vec<String>,
}

/// A level of a factor, or a pair of levels of two.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LevelEffect {
    /// Axes of the factor, or of both.
    pub axes: Vec<usize>,
    /// One value per axis.
    pub values: Vec<SpecValue>,
    /// Cells that have it.
    pub cells: u64,
    /// Mean over the levels of the other factors, by least squares where cells are missing. Of a pair, the mean of its
    /// cells; `None` without any.
    pub mean: Option<f64>,
    /// What it adds to the mean of all; of a pair, what it adds to what its two levels add.
    pub effect: Option<f64>,
    /// Confidence interval of the effect: from whole repeats resampled, or, where repeats share crossed streams, by what each
    /// stream does (`crossed`).
    pub interval: Option<(f64, f64)>,
}

/// A cell among the best.
#[derive(Debug, Clone, PartialEq)]
pub struct TopCell {
    /// Its number.
    pub cell: u64,
    /// Trials with a value.
    pub n: u64,
    /// Trials that ended without one.
    pub without_value: u64,
    /// Their mean.
    pub mean: Option<f64>,
    /// Where it stands.
    pub rank: RowRank,
    /// Share of resamples of whole repeats in which its mean rank is the best one; several with the best one share a resample.
    pub probability: Option<f64>,
}

/// Cells that are named as the best.
const TOP_CELLS: usize = 10;
/// Most pairs of levels that are shown.
const MAX_PAIRS: usize = 400;

impl EffectsQuery {
    /// Checks a question against a sweep.
    ///
    /// # Errors
    /// There is no such axis, metric or step, or the level is none.
    pub fn new(spec: &Spec, asked: &EffectsParams<'_>) -> Result<Self, AnalysisError> {
        if !(0.5..1.0).contains(&asked.level) {
            let message = format!(
                "the level {}: expected one from 50 up to, and below, 100 percent",
                asked.level * 100.0
            );
            return Err(AnalysisError::Invalid(message));
        }

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

    /// The metric.
    pub fn metric(&self) -> &Metric {
        self.query.metric()
    }

    /// What the stored rows say.
    ///
    /// # Errors
    /// The store failed, there is nothing to compare, or it would take too long.
    pub fn analyze_effects(&self, rows: RowSource<'_>) -> Result<EffectsAnalysis, AnalysisError> {
        let spec = rows.spec;
        let trials = read_cell_trials(&self.query, rows)?;
        let cells: Vec<u64> = trials
            .iter()
            .filter(|(_, t)| !t.values.is_empty())
            .map(|(cell, _)| *cell)
            .collect();
        if cells.is_empty() {
            let message = format!(
                "no trial has a value of {}: {}",
                self.metric().name(),
                describe_missing_values(spec, &trials)
            );
            return Err(AnalysisError::Unknown(message));
        }

        let design = EffectsDesign::new(spec, cells)?;
        let pair = self.find_interaction_factors(spec, &design)?;
        let values: Vec<&[(u32, f64)]> = design
            .cells
            .iter()
            .map(|cell| &trials[cell].values[..])
            .collect();
        let blocks = RepeatBlocks::new(&values);

        let crossing = Crossing::from_spec(spec);
        // Where repeats share crossed streams, nothing is resampled.
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

        let names: Vec<&str> = spec
            .seeds
            .fixed
            .iter()
            .map(|purpose| purpose.as_str())
            .collect();
        notes.extend(
            (!names.is_empty())
                .then(|| format!("intervals are given the fixed {}", names.join(", "))),
        );

        notes.extend(
            spec.stopping_rule
                .as_ref()
                .is_some_and(StoppingRule::is_precision_based)
                .then(|| NOT_WIDENED_NOTE.to_owned()),
        );

        let terms = anova::compute_anova_terms(spec, &design, &values, &blocks, &means, &mut notes);
        let ranked_by = self.query.selection_metric();
        notes.extend(
            (ranked_by != self.metric())
                .then(|| format!("cells are ranked by {}", ranked_by.name())),
        );

        let ends: BTreeMap<u64, CellEnds> = trials
            .iter()
            .map(|(cell, trials)| (*cell, trials.ends.clone()))
            .collect();
        let (best, may_be_best) = match self.query.unranked_reason() {
            Some(why) => {
                notes.push(format!("no best cell: {why}"));
                (Vec::new(), 0)
            }
            None => {
                let stream = crossing
                    .is_none()
                    .then(|| rows.resampling_stream(&design.cells));
                notes.extend(stream.is_none().then(|| NO_PROBABILITY.to_owned()));
                find_best_cells(spec, ranked_by, &trials, &ends, stream)
            }
        };

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

    /// The two factors whose interaction is to be shown.
    fn find_interaction_factors(
        &self,
        spec: &Spec,
        design: &EffectsDesign,
    ) -> Result<Option<(usize, usize)>, AnalysisError> {
        let Some(axes) = self.interaction else {
            return Ok(None);
        };
        let name = |axis: usize| &spec.grid.axes()[axis].name;
        let factor = |axis: usize| {
            design.factor_of_axis(axis).ok_or_else(|| {
                let message = format!(
                    "interaction: '{}' has one value in all cells that have results",
                    name(axis)
                );
                AnalysisError::Unknown(message)
            })
        };
        let a = factor(axes[0])?;

        let b = factor(axes[1])?;
        let pairs = design.factors[a].levels.len() * design.factors[b].levels.len();

        if a == b {
            let message = format!(
                "interaction: '{}' and '{}' move together: they have none",
                name(axes[0]),
                name(axes[1])
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

/// A design with its effects as linear functions of cell means.
struct EffectsModel<'a> {
    design: &'a EffectsDesign,
    /// Coefficients of the additive model, `[column][cell]`.
    solution: Vec<Vec<f64>>,
    pair: Option<(usize, usize)>,
}

/// What one resample says, or one repeat.
struct EffectDraw {
    effects: Vec<f64>,
    pairs: Vec<Option<f64>>,
}

/// What intervals are made of.
enum EffectDraws {
    /// Resamples of whole repeats, which are independent.
    Resamples(Vec<EffectDraw>),
    /// What each repeat says, and its number, where repeats share crossed streams; nothing where cells lack some.
    Repeats(Vec<EffectDraw>, Vec<u32>, Crossing),
}

impl EffectDraws {
    fn interval_of(
        &self,
        level: f64,
        of: impl Fn(&EffectDraw) -> Option<f64>,
    ) -> Option<(f64, f64)> {
        match self {
            Self::Resamples(draws) => percentile_interval(draws.iter().filter_map(of), level),
            Self::Repeats(draws, repeats, crossing) => {
                let values: Vec<f64> = draws.iter().map(of).collect::<Option<_>>()?;
                Sample::from_crossed(values, repeats, crossing)
                    .t_interval(level)
                    .filter(|_| draws.len() > 1)
            }
        }
    }
}

/// Why there is no p(best).
const NO_PROBABILITY: &str = "no p(best): repeats that share crossed streams cannot be resampled; the set of cells that cannot be \
                              told from the best allows for the streams";

impl<'a> EffectsModel<'a> {
    fn new(
        spec: &Spec,
        design: &'a EffectsDesign,
        pair: Option<(usize, usize)>,
    ) -> Result<Self, AnalysisError> {
        let solution = design.columns.solve_coefficients(&design.additive_columns()).ok_or_else(|| {
            let names: Vec<String> = (0..design.factors.len()).map(|factor| design.factor_name(spec, factor)).collect();
            AnalysisError::Unknown(format!(
                "what {} do cannot be told apart: of the sweep's {} cells, {} have results, which do not link all values",
                names.join(", "),
                spec.grid.cell_count(),
                design.cells.len()
            ))
        })?;

        Ok(Self {
            design,
            solution,
            pair,
        })
    }

    /// The mean of all, given cell means.
    fn grand_mean(&self, means: &[f64]) -> f64 {
        least_squares::dot_product(&self.solution[0], means)
    }

    /// What each level of each factor adds, factor after factor.
    fn level_effects(&self, means: &[f64]) -> Vec<f64> {
        let mut effects = Vec::new();
        let mut columns = self.solution[1..].iter();

        for factor in &self.design.factors {
            let free = columns
                .by_ref()
                .take(factor.levels.len() - 1)
                .map(|column| least_squares::dot_product(column, means));
            let free: Vec<f64> = free.collect();

            // Over all levels they sum to 0.
            let last = -free.iter().sum::<f64>();
            effects.extend(
                free.into_iter()
                    .chain([last])
                    .map(|effect| zero_if_rounding(effect, means)),
            );
        }

        effects
    }

    /// What each pair of levels of the two factors adds to what the levels add: the mean over its cells of what the
    /// additive model leaves.
    fn interaction_effects(&self, means: &[f64], effects: &[f64]) -> Vec<Option<f64>> {
        let Some((a, b)) = self.pair else {
            return Vec::new();
        };
        let factors = &self.design.factors;
        let grand = self.grand_mean(means);
        let starts: Vec<usize> = factors
            .iter()
            .scan(0, |next, factor| {
                Some(std::mem::replace(next, *next + factor.levels.len()))
            })
            .collect();
        let left = |cell: usize| {
            let added = factors
                .iter()
                .zip(&starts)
                .map(|(factor, start)| effects[start + factor.level_of_cell[cell]]);
            means[cell] - grand - added.sum::<f64>()
        };

        self.mean_by_pair(a, b, left)
            .into_iter()
            .map(|left| left.map(|left| zero_if_rounding(left, means)))
            .collect()
    }

    /// Mean of something of each cell over the cells of each pair of levels.
    fn mean_by_pair(&self, a: usize, b: usize, of: impl Fn(usize) -> f64) -> Vec<Option<f64>> {
        let a = &self.design.factors[a];
        let b = &self.design.factors[b];
        let mut sums = vec![(0.0, 0.0); a.levels.len() * b.levels.len()];

        for cell in 0..self.design.cells.len() {
            let (sum, n) =
                &mut sums[a.level_of_cell[cell] * b.levels.len() + b.level_of_cell[cell]];
            *sum += of(cell);
            *n += 1.0;
        }

        sums.iter()
            .map(|(sum, n)| (*n > 0.0).then(|| sum / n))
            .collect()
    }

    fn evaluate_resamples(
        &self,
        blocks: &RepeatBlocks,
        stream: &mut RandomStream,
    ) -> Vec<EffectDraw> {
        if blocks.repeat_count() < 2 {
            return Vec::new();
        }
        blocks.resample_means(RESAMPLES, stream, |means| self.evaluate_draw(means))
    }

    /// What each repeat says by itself, if every cell has all of them.
    fn evaluate_repeats(&self, blocks: &RepeatBlocks) -> Vec<EffectDraw> {
        if !blocks.is_complete() {
            return Vec::new();
        }
        (0..blocks.repeat_count())
            .map(|repeat| self.evaluate_draw(blocks.repeat_values(repeat)))
            .collect()
    }

    fn evaluate_draw(&self, means: &[f64]) -> EffectDraw {
        let effects = self.level_effects(means);
        EffectDraw {
            pairs: self.interaction_effects(means, &effects),
            effects,
        }
    }

    fn build_levels(&self, means: &[f64], drawn: &EffectDraws, level: f64) -> Vec<LevelEffect> {
        let grand = self.grand_mean(means);
        let effects = self.level_effects(means);
        let places = self
            .design
            .factors
            .iter()
            .flat_map(|factor| (0..factor.levels.len()).map(move |at| (factor, at)));

        let of = |(place, (factor, at)): (usize, (&design::DesignFactor, usize))| LevelEffect {
            axes: factor.axes.clone(),
            values: factor.levels[at].clone(),
            cells: factor.level_of_cell.iter().filter(|of| **of == at).count() as u64,
            mean: Some(grand + effects[place]),
            effect: Some(effects[place]),
            interval: drawn.interval_of(level, |draw| Some(draw.effects[place])),
        };

        places.enumerate().map(of).collect()
    }

    fn build_pairs(&self, means: &[f64], drawn: &EffectDraws, level: f64) -> Vec<LevelEffect> {
        let Some((a, b)) = self.pair else {
            return Vec::new();
        };
        let effects = self.interaction_effects(means, &self.level_effects(means));
        let plain = self.mean_by_pair(a, b, |cell| means[cell]);
        let a = &self.design.factors[a];

        let b = &self.design.factors[b];
        let cells = |i: usize, j: usize| {
            a.level_of_cell
                .iter()
                .zip(&b.level_of_cell)
                .filter(|(a, b)| (**a, **b) == (i, j))
                .count() as u64
        };
        let of = |place: usize| {
            let i = place / b.levels.len();
            let j = place % b.levels.len();
            let ends = drawn.interval_of(level, |draw| draw.pairs[place]);
            LevelEffect {
                axes: [&a.axes[..], &b.axes].concat(),
                values: [&a.levels[i][..], &b.levels[j]].concat(),
                cells: cells(i, j),
                mean: plain[place],
                effect: effects[place],
                interval: ends.filter(|_| effects[place].is_some()),
            }
        };

        (0..plain.len()).map(of).collect()
    }
}

/// A difference between means, or 0 where it is nothing but their rounding.
fn zero_if_rounding(difference: f64, means: &[f64]) -> f64 {
    let largest = means
        .iter()
        .fold(0.0, |largest: f64, mean| largest.max(mean.abs()));
    if difference.abs() <= 1e-13 * largest {
        0.0
    } else {
        difference
    }
}

/// Half of the resamples must say something.
fn percentile_interval(drawn: impl Iterator<Item = f64>, level: f64) -> Option<(f64, f64)> {
    let sample = Sample::new(drawn.collect());
    let ends = [0.5 - 0.5 * level, 0.5 + 0.5 * level].map(|share| sample.quantile(share));
    Some((ends[0]?, ends[1]?)).filter(|_| 2 * sample.n() > RESAMPLES)
}

fn mean_value(values: &[(u32, f64)]) -> Option<f64> {
    Sample::new(values.iter().map(|(_, value)| *value).collect()).mean()
}

/// Cells by their mean ranks, the best first, and how many cannot be told from the best.
fn find_best_cells(
    spec: &Spec,
    metric: &Metric,
    trials: &BTreeMap<u64, CellTrials>,
    ends: &BTreeMap<u64, CellEnds>,
    stream: Option<RandomStream>,
) -> (Vec<TopCell>, u64) {
    let rows: Vec<Vec<u64>> = ends.keys().map(|cell| vec![*cell]).collect();
    let places = ranking::rank_rows(spec, metric, ends, &rows);
    let probabilities = stream.map_or_else(BTreeMap::new, |stream| {
        best_cell_probabilities(spec, metric, ends, stream)
    });
    let of = |((cell, place), trials): ((&u64, &Option<RowRank>), &CellTrials)| {
        Some(TopCell {
            cell: *cell,
            n: trials.values.len() as u64,
            without_value: trials.count_without_value(),
            mean: mean_value(&trials.values),
            rank: (*place)?,
            probability: (!probabilities.is_empty())
                .then(|| probabilities.get(cell).copied().unwrap_or(0.0)),
        })
    };
    let mut all: Vec<TopCell> = ends
        .keys()
        .zip(&places)
        .zip(trials.values())
        .filter_map(of)
        .collect();
    all.sort_by_key(|best| best.rank.rank);

    let may_be_best = all.iter().filter(|best| best.rank.may_be_best).count() as u64;
    all.truncate(TOP_CELLS);
    (all, may_be_best)
}

/// The share of resamples of whole repeats in which a cell has the best mean rank; several that have it share the resample, which
/// says nothing of which of them is better. Nothing for cells that did not go on where others did, and for fewer than two repeats.
fn best_cell_probabilities(
    spec: &Spec,
    metric: &Metric,
    ends: &BTreeMap<u64, CellEnds>,
    mut stream: RandomStream,
) -> BTreeMap<u64, f64> {
    let contenders = ranking::find_contenders(spec, ends);
    let lists: Vec<&[(u32, TrialEnd)]> = contenders
        .iter()
        .map(|cell| ends[cell].as_slice())
        .collect();
    let ranks = Ranks::from_ends(&lists, metric.larger_is_better() == Some(true));
    let repeats = ranks.repeats().len();
    if repeats < 2 {
        return BTreeMap::new();
    }

    let top = |weights: &[f64]| indices_of_best(&ranks.mean_ranks(weights));
    let mut shares: BTreeMap<u64, f64> = BTreeMap::new();

    for best in resample::resample_weights(repeats, RESAMPLES, &mut stream, top) {
        best.iter()
            .for_each(|at| *shares.entry(contenders[*at]).or_default() += 1.0 / best.len() as f64);
    }

    shares
        .into_iter()
        .map(|(cell, hits)| (cell, hits / RESAMPLES as f64))
        .collect()
}

/// Mean ranks that are as near are the same, but for rounding.
const RANK_TOLERANCE: f64 = 1e-9;

/// Those with the best mean rank; all, where none has one.
fn indices_of_best(mean_ranks: &[Option<f64>]) -> Vec<usize> {
    let rank = |at: &usize| mean_ranks[*at].unwrap_or(f64::INFINITY);
    let best = (0..mean_ranks.len())
        .map(|at| rank(&at))
        .fold(f64::INFINITY, f64::min);
    (0..mean_ranks.len())
        .filter(|at| rank(at) <= best + RANK_TOLERANCE)
        .collect()
}

fn describe_caveats(
    spec: &Spec,
    design: &EffectsDesign,
    blocks: &RepeatBlocks,
    drawn: &EffectDraws,
) -> Vec<String> {
    let mut notes = Vec::new();
    let missing = spec.grid.cell_count() - design.cells.len() as u64;
    if missing > 0 {
        let here = |cell: &u64| design.cells.binary_search(cell).is_err();
        let words: Vec<String> = spec
            .grid
            .iter()
            .filter(here)
            .take(3)
            .map(|cell| format!("({})", describe_cell(spec, cell)))
            .collect();

        let more = if missing > 3 { ", …" } else { "" };
        notes.push(format!(
            "cells without a value, left out: {missing}: {}{more}",
            words.join(", ")
        ));
    }

    let full: usize = design
        .factors
        .iter()
        .map(|factor| factor.levels.len())
        .product();
    if full > design.cells.len() {
        notes.push(format!(
            "the grid has {} of {full} combinations: means and effects are by least squares, and shares, each beyond all \
             other terms, do not add up to the whole",
            design.cells.len()
        ));
    }

    let names: Vec<&str> = design
        .constant_axes
        .iter()
        .map(|axis| spec.grid.axes()[*axis].name.as_str())
        .collect();
    if !names.is_empty() {
        notes.push(format!("one value left, no effect: {}", names.join(", ")));
    }

    let drawn = match drawn {
        EffectDraws::Resamples(draws) => draws,
        EffectDraws::Repeats(draws, ..) => {
            notes.push(match draws.len() {
                0 => "no intervals: repeats share crossed streams, and a cell lacks some of them"
                    .into(),
                _ => "intervals are those of the crossed streams, with Student's t".into(),
            });

            return notes;
        }
    };
    match (blocks.repeat_count(), RESAMPLES - drawn.len()) {
        (..=1, _) => notes
            .push("one repeat: no intervals, no probabilities, no variance between repeats".into()),
        (_, 0) => {}
        (_, left) if 2 * left >= RESAMPLES => {
            notes.push("no intervals and probabilities: a cell has values of too few repeats to be resampled".into());
        }
        (_, left) => notes.push(format!(
            "in {left} of {RESAMPLES} resamples a cell had no value: they are left out"
        )),
    }

    notes
}

/// How the trials of a sweep without values ended.
fn describe_missing_values(spec: &Spec, trials: &BTreeMap<u64, CellTrials>) -> String {
    match trials
        .values()
        .map(CellTrials::count_without_value)
        .sum::<u64>()
    {
        0 => "none has ended yet".into(),
        lost => format!(
            "{lost} of {} ended without one; see `ergodic table --stat p_diverged`",
            spec.trial_count()
        ),
    }
}

/// Refuses what would keep a core busy for minutes.
fn check_resampling_work(
    design: &EffectsDesign,
    blocks: &RepeatBlocks,
    resamples: usize,
) -> Result<(), AnalysisError> {
    let draws =
        (blocks.repeat_count() + design.additive_columns().len()) * design.cells.len() * resamples;
    if draws > MAX_DRAWS {
        let message = format!(
            "resampling so many trials would take {draws} draws, of at most {MAX_DRAWS}: ask for effects in a sweep of \
             fewer cells or repeats"
        );
        return Err(AnalysisError::Invalid(message));
    }

    Ok(())
}
