//! The effect of a claim, with its uncertainty, from the numbers of its cells.

use std::collections::BTreeMap;

use ergodic_common::quantity::reduce::least_squares_slope;
use ergodic_common::quantity::{Claim, ClaimEffect, ClaimForm};

use super::cell_numbers::CellNumber;
use super::design::{RepeatDesign, SampleSize};
use crate::estimators::Sample;
use crate::estimators::bootstrap::bca_interval_of_number;
use crate::estimators::decision::{EffectEstimate, EffectLaw};
use crate::estimators::jackknife::jackknife_uncertainty;
use crate::estimators::rounding::{clear_rounding, rounding_of_difference};
use crate::estimators::special::student_t_quantile;

/// Smallest share of resamples in which a number must be defined.
const MIN_DEFINED_DRAWS: f64 = 0.95;

/// How many times what resampling moves a number by its interval reaches further to the other side. Noise moves a number of a mean curve
/// as that of n repeats, and that of a resample as twice the noise. Where the curve is all noise, as in the extreme of a flat part, the
/// number grows with its standard deviation, so that a resample shows √2 − 1 of what the mean curve is moved by. Twice that, since it is
/// known from the same few repeats.
const BIAS_FACTOR: f64 = 2.0 / (std::f64::consts::SQRT_2 - 1.0);
/// What resampling may move a number by, in standard errors, before a verdict says so: below it, no more than α agree wrongly.
const MAX_UNTOLD_BIAS: f64 = 0.2;

/// The numbers of the cells of an effect.
#[derive(Clone, Copy)]
pub(super) struct EffectNumbers<'a> {
    pub(super) claim: &'a Claim,
    pub(super) effect: &'a ClaimEffect,
    /// In the order of [`ClaimEffect::all_cells`].
    pub(super) cells: &'a [&'a CellNumber],
    pub(super) design: &'a RepeatDesign,
}

/// A function of the numbers of cells.
type CellFunction<'a> = dyn Fn(&[f64]) -> f64 + 'a;

impl EffectNumbers<'_> {
    /// Estimates the effect: a logarithm for a ratio, whose intervals are right on that scale.
    ///
    /// # Errors
    /// Says why there is no estimate.
    pub(super) fn estimate(self) -> Result<EffectEstimate, String> {
        let form = self.claim.form;
        let xs: Vec<f64> = self.effect.abscissas.clone();
        let (log_x, log_y) = self.claim.log;
        match form {
            ClaimForm::Ratio => self.estimate_function(&|y| libm::log(y[0] / y[1])),
            ClaimForm::Difference => self.estimate_function(&|y| y[0] - y[1]),
            ClaimForm::Slope => self.estimate_function(&|y| {
                let points = xs.iter().zip(y);
                let points: Vec<(f64, f64)> = points
                    .map(|(x, y)| (on_scale(*x, log_x), on_scale(*y, log_y)))
                    .collect();
                least_squares_slope(&points)
            }),
            _ => self.estimate_function(&|y| y[0]),
        }
    }

    /// Estimates the logarithm of the ratio of each pair of cells.
    ///
    /// # Errors
    /// Says why there is no estimate.
    pub(super) fn estimate_pairs(self) -> Result<Vec<EffectEstimate>, String> {
        let cells = self.cells.len();
        let pairs = (0..cells).flat_map(|a| (a + 1..cells).map(move |b| (a, b)));
        pairs
            .map(|(a, b)| {
                let cells = [self.cells[a], self.cells[b]];
                let pair = EffectNumbers {
                    cells: &cells,
                    ..self
                };
                pair.estimate_function(&|y| libm::log(y[0] / y[1]))
            })
            .collect()
    }

    /// Estimates the number of each cell by itself.
    pub(super) fn estimate_cells(self) -> Vec<Result<EffectEstimate, String>> {
        let cells = self.cells.iter().map(|cell| {
            let single = EffectNumbers {
                cells: &[*cell],
                ..self
            };
            single.estimate_function(&|y| y[0])
        });
        cells.collect()
    }

    /// The smallest number of repeats of a cell.
    pub(super) fn repeats(self) -> u64 {
        self.cells.iter().map(|cell| cell.n).min().unwrap_or(0)
    }

    /// The smallest sample of a cell.
    pub(super) fn sample_size(self) -> SampleSize {
        let repeats = self.repeats();
        let levels = self.cells.iter().map(|cell| {
            let streams = cell.without.iter().map(BTreeMap::len);
            streams.min().unwrap_or(0) as u64
        });
        SampleSize {
            repeats,
            units: match self.design.is_crossed() {
                true => levels.min().unwrap_or(0),
                false => repeats,
            },
        }
    }

    fn estimate_function(self, function: &CellFunction<'_>) -> Result<EffectEstimate, String> {
        let full: Vec<f64> = self.cells.iter().map(|cell| cell.full).collect();
        let effect = function(&full);
        if !effect.is_finite() {
            return Err(describe_undefined(self.claim.form, &full));
        }

        let without = self.deleted_numbers(function);
        let rounding = self.rounding_of_effect(function, effect);
        let is_resampled = self.cells.iter().any(|cell| cell.is_resampled);
        let spread = if is_resampled {
            self.resampled_spread(function, effect, &without, rounding)?
        } else {
            self.jackknife_spread(&without, rounding)?
        };
        let counted = self.cells.iter().find_map(|cell| cell.describe_counted());
        if spread.standard_error == 0.0
            && let Some(counted) = counted
        {
            return Err(format!(
                "all trials have the same {counted}, or differ by the same, which shows nothing of its spread: use form = \"share\""
            ));
        }
        let level = 1.0 - self.claim.alpha;
        let half = student_t_quantile(level, spread.degrees) * spread.standard_error;
        let (mut low, mut high) = (effect - half, effect + half);
        if let Some(interval) = spread.interval {
            low = low.min(interval.0);
            high = high.max(interval.1);
        }
        low -= BIAS_FACTOR * spread.bias.max(0.0);
        high -= BIAS_FACTOR * spread.bias.min(0.0);
        let rounded = self.rounded_numbers(function).into_iter();
        for end in rounded.filter(|end| end.is_finite()) {
            low = low.min(end);
            high = high.max(end);
        }

        Ok(EffectEstimate {
            effect,
            low,
            high,
            rounding,
            law: EffectLaw::Student {
                standard_error: spread.standard_error,
                degrees: spread.degrees,
            },
            is_moved_by_noise: spread.bias.abs() > MAX_UNTOLD_BIAS * spread.standard_error,
        })
    }

    /// What rounding of the cells' numbers alone can make of the effect.
    fn rounding_of_effect(self, function: &CellFunction<'_>, effect: f64) -> f64 {
        let full: Vec<f64> = self.cells.iter().map(|cell| cell.full).collect();
        let parts = (0..full.len()).map(|at| {
            let mut moved = full.clone();
            moved[at] += rounding_of_difference(full[at], full[at]);
            (function(&moved) - effect).abs()
        });
        let parts = parts.filter(|part| part.is_finite());
        rounding_of_difference(effect, effect) + parts.sum::<f64>()
    }

    /// The effect without each group of repeats, for each stream. A group that a cell lacks changes the others only.
    fn deleted_numbers(self, function: &CellFunction<'_>) -> Vec<Vec<f64>> {
        let streams = (0..self.design.stream_count()).map(|stream| {
            let cells: Vec<_> = self
                .cells
                .iter()
                .map(|cell| cell.without.get(stream))
                .collect();
            let mut groups: Vec<usize> = cells
                .iter()
                .flatten()
                .flat_map(|without| without.keys().copied())
                .collect();
            groups.sort_unstable();
            groups.dedup();

            let without = groups.into_iter().map(|group| {
                let numbers = self.cells.iter().zip(&cells).map(|(cell, without)| {
                    let number = without.and_then(|without| without.get(&group));
                    number.copied().unwrap_or(cell.full)
                });
                function(&numbers.collect::<Vec<_>>())
            });
            without.collect()
        });
        streams.collect()
    }

    /// The least and the largest effect with the events of each cell before or after where they are.
    fn rounded_numbers(self, function: &CellFunction<'_>) -> [f64; 2] {
        let full: Vec<f64> = self.cells.iter().map(|cell| cell.full).collect();
        [-1.0, 1.0].map(|sign| {
            let cells = self.cells.iter().enumerate();
            let rounded = cells.map(|(at, cell)| {
                let [before, after] = cell.rounded.map(|number| {
                    let mut numbers = full.clone();
                    numbers[at] = number;
                    sign * function(&numbers)
                });
                cell.rounded[usize::from(after > before)]
            });
            function(&rounded.collect::<Vec<_>>())
        })
    }

    fn jackknife_spread(self, without: &[Vec<f64>], rounding: f64) -> Result<EffectSpread, String> {
        let found = jackknife_uncertainty(without)
            .ok_or("without one of its repeats, the effect is undefined, or there are too few")?;
        // Cells with fewer repeats than others know less than the number of all repeats says.
        let most = if self.design.is_crossed() {
            f64::INFINITY
        } else {
            self.repeats() as f64 - 1.0
        };

        // Each of the numbers is rounded, and their squares are summed.
        let groups: usize = without.iter().map(Vec::len).sum();
        let rounding = rounding * (groups as f64).sqrt();
        Ok(EffectSpread {
            standard_error: clear_rounding(found.variance.sqrt(), rounding),
            degrees: found.degrees.min(most).max(1.0),
            interval: None,
            bias: 0.0,
        })
    }

    fn resampled_spread(
        self,
        function: &CellFunction<'_>,
        effect: f64,
        without: &[Vec<f64>],
        rounding: f64,
    ) -> Result<EffectSpread, String> {
        if self.design.is_crossed() {
            return Err(
                "repeats share crossed streams, so that events of mean curves have no interval: use per = \"trial\"".into(),
            );
        }
        let resamples = self
            .cells
            .iter()
            .map(|cell| cell.draws.len())
            .min()
            .unwrap_or(0);
        if resamples == 0 {
            return Err(
                "there are too many repeats to resample mean curves: use per = \"trial\"".into(),
            );
        }

        let draws = (0..resamples).map(|at| {
            let numbers: Vec<f64> = self.cells.iter().map(|cell| cell.draws[at]).collect();
            function(&numbers)
        });
        let draws: Vec<f64> = draws.filter(|x| x.is_finite()).collect();
        if (draws.len() as f64) < MIN_DEFINED_DRAWS * resamples as f64 {
            let share = 100.0 * (1.0 - draws.len() as f64 / resamples as f64);
            return Err(format!(
                "in {share:.0} % of the resamples, the effect is undefined"
            ));
        }

        let n = self.repeats() as f64;
        let sd = clear_rounding(Sample::new(draws.clone()).std().unwrap_or(0.0), rounding);
        if sd == 0.0 && self.cells.iter().any(|cell| cell.trials_differ) {
            return Err("trials differ, but all resamples give the same number: sample more often, by measure.every".into());
        }

        let level = 1.0 - 2.0 * self.claim.alpha;
        let jackknifed = without.first().map_or(&[][..], Vec::as_slice);
        // A resample has the spread of n, not of n − 1, repeats.
        let widening = (n / (n - 1.0).max(1.0)).sqrt();
        let moved = draws.iter().map(|x| x - effect).sum::<f64>() / draws.len() as f64;
        Ok(EffectSpread {
            standard_error: sd * widening,
            bias: clear_rounding(moved, rounding) * widening,
            degrees: (n - 1.0).max(1.0),
            interval: bca_interval_of_number(effect, &draws, jackknifed, level)
                .filter(|_| sd > 0.0),
        })
    }
}

struct EffectSpread {
    standard_error: f64,
    degrees: f64,
    /// The interval of resamples, which the effect's contains.
    interval: Option<(f64, f64)>,
    /// What resampling moves the effect by.
    bias: f64,
}

/// A number on a linear or a logarithmic scale.
fn on_scale(x: f64, is_logarithmic: bool) -> f64 {
    if is_logarithmic { libm::log(x) } else { x }
}

fn describe_undefined(form: ClaimForm, numbers: &[f64]) -> String {
    match form {
        ClaimForm::Ratio | ClaimForm::Spread | ClaimForm::Collapse | ClaimForm::Slope
            if !numbers.iter().all(|x| *x > 0.0) && numbers.iter().all(|x| x.is_finite()) =>
        {
            "a number is not above 0, so that there is no ratio: use form = \"difference\""
                .to_owned()
        }
        _ => "the number is undefined".to_owned(),
    }
}
