//! The additive model: effects as linear functions of cell means, with their intervals.

use ergodic_common::Spec;
use ergodic_common::random_streams::RandomStream;

use crate::analysis::effects::design::EffectsDesign;
use crate::analysis::effects::least_squares;
use crate::analysis::effects::resample::RepeatBlocks;
use crate::analysis::effects::types::LevelEffect;
use crate::analysis::error::AnalysisError;
use crate::estimators::Sample;
use crate::estimators::bootstrap::RESAMPLES;
use crate::estimators::crossed::Crossing;

/// A design with its effects as linear functions of cell means.
pub(super) struct EffectsModel<'a> {
    pub(super) design: &'a EffectsDesign,
    /// Coefficients of the additive model, `[column][cell]`.
    pub(super) solution: Vec<Vec<f64>>,
    pub(super) pair: Option<(usize, usize)>,
}

/// The effects in one resample, or in one repeat.
pub(super) struct EffectDraw {
    pub(super) effects: Vec<f64>,
    pub(super) pairs: Vec<Option<f64>>,
}

/// The draws that intervals are based on.
pub(super) enum EffectDraws {
    /// Resamples of whole repeats, which are independent.
    Resamples(Vec<EffectDraw>),
    /// The effects in each repeat, with the repeat's number, if repeats share crossed streams;
    /// empty if cells lack repeats.
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

impl<'a> EffectsModel<'a> {
    pub(super) fn new(
        spec: &Spec,
        design: &'a EffectsDesign,
        pair: Option<(usize, usize)>,
    ) -> Result<Self, AnalysisError> {
        let solution = design.columns.solve_coefficients(&design.additive_columns()).ok_or_else(|| {
            let names: Vec<String> = (0..design.factors.len()).map(|factor| design.factor_name(spec, factor)).collect();
            AnalysisError::Unknown(format!(
                "the effects of {} cannot be told apart: of the sweep's {} cells, {} have results, and these do not connect \
                 all values",
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

    /// The overall mean, given cell means.
    pub(super) fn grand_mean(&self, means: &[f64]) -> f64 {
        least_squares::dot_product(&self.solution[0], means)
    }

    /// The effect of each level of each factor, factor after factor.
    pub(super) fn level_effects(&self, means: &[f64]) -> Vec<f64> {
        let mut effects = Vec::new();
        let mut columns = self.solution[1..].iter();

        for factor in &self.design.factors {
            let free = columns
                .by_ref()
                .take(factor.levels.len() - 1)
                .map(|column| least_squares::dot_product(column, means));
            let free: Vec<f64> = free.collect();

            // The effects of a factor's levels sum to 0, which gives the last one.
            let last = -free.iter().sum::<f64>();
            effects.extend(
                free.into_iter()
                    .chain([last])
                    .map(|effect| zero_if_rounding(effect, means)),
            );
        }

        effects
    }

    /// The interaction of each pair of levels of the two factors: the mean, over its cells, of the
    /// residuals of the additive model.
    pub(super) fn interaction_effects(&self, means: &[f64], effects: &[f64]) -> Vec<Option<f64>> {
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

    /// Means of a value of cells over the cells of each pair of levels.
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

    pub(super) fn evaluate_resamples(
        &self,
        blocks: &RepeatBlocks,
        stream: &mut RandomStream,
    ) -> Vec<EffectDraw> {
        if blocks.repeat_count() < 2 {
            return Vec::new();
        }
        blocks.resample_means(RESAMPLES, stream, |means| self.evaluate_draw(means))
    }

    /// The effects in each repeat by itself, if every cell has all repeats.
    pub(super) fn evaluate_repeats(&self, blocks: &RepeatBlocks) -> Vec<EffectDraw> {
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

    pub(super) fn build_levels(
        &self,
        means: &[f64],
        drawn: &EffectDraws,
        level: f64,
    ) -> Vec<LevelEffect> {
        let grand = self.grand_mean(means);
        let effects = self.level_effects(means);
        let places = self
            .design
            .factors
            .iter()
            .flat_map(|factor| (0..factor.levels.len()).map(move |at| (factor, at)));

        places
            .enumerate()
            .map(|(place, (factor, at))| LevelEffect {
                axes: factor.axes.clone(),
                values: factor.levels[at].clone(),
                cells: factor.level_of_cell.iter().filter(|of| **of == at).count() as u64,
                mean: Some(grand + effects[place]),
                effect: Some(effects[place]),
                interval: drawn.interval_of(level, |draw| Some(draw.effects[place])),
            })
            .collect()
    }

    pub(super) fn build_pairs(
        &self,
        means: &[f64],
        drawn: &EffectDraws,
        level: f64,
    ) -> Vec<LevelEffect> {
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
        (0..plain.len())
            .map(|place| {
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
            })
            .collect()
    }
}

/// A difference of means, or 0 if it is within rounding.
pub(super) fn zero_if_rounding(difference: f64, means: &[f64]) -> f64 {
    let largest = means
        .iter()
        .fold(0.0, |largest: f64, mean| largest.max(mean.abs()));
    if difference.abs() <= 1e-13 * largest {
        0.0
    } else {
        difference
    }
}

/// The percentile interval of resamples; `None` unless at least half of them have a value.
fn percentile_interval(drawn: impl Iterator<Item = f64>, level: f64) -> Option<(f64, f64)> {
    let sample = Sample::new(drawn.collect());
    let ends = [0.5 - 0.5 * level, 0.5 + 0.5 * level].map(|share| sample.quantile(share));
    Some((ends[0]?, ends[1]?)).filter(|_| 2 * sample.n() > RESAMPLES)
}
