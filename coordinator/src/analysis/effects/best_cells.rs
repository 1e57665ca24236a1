//! Cells by mean rank, with the probability that each is the best.

use std::collections::BTreeMap;

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::metric::Metric;
use ergodic_common::random_streams::RandomStream;

use crate::analysis::effects::resample;
use crate::analysis::effects::types::TopCell;
use crate::analysis::ranking;
use crate::analysis::trial_values::CellTrials;
use crate::estimators::Sample;
use crate::estimators::bootstrap::RESAMPLES;
use crate::estimators::rank::{CellEnds, Ranks, TrialEnd};

/// Number of cells in the list of the best.
const TOP_CELLS: usize = 10;

pub(super) fn mean_value(values: &[(u32, f64)]) -> Option<f64> {
    Sample::new(values.iter().map(|(_, value)| *value).collect()).mean()
}

/// Cells by mean rank, best first, and the number of cells that cannot be distinguished from the
/// best.
pub(super) fn find_best_cells(
    spec: &Spec,
    metric: &Metric,
    trials: &BTreeMap<CellIndex, CellTrials>,
    ends: &BTreeMap<CellIndex, CellEnds>,
    stream: Option<RandomStream>,
) -> (Vec<TopCell>, u64) {
    let rows: Vec<Vec<CellIndex>> = ends.keys().map(|cell| vec![*cell]).collect();
    let places = ranking::rank_rows(spec, metric, ends, &rows);
    let probabilities = stream.map_or_else(BTreeMap::new, |stream| {
        best_cell_probabilities(spec, metric, ends, stream)
    });
    let mut all: Vec<TopCell> = ends
        .keys()
        .zip(&places)
        .zip(trials.values())
        .filter_map(|((cell, place), trials)| {
            Some(TopCell {
                cell: *cell,
                n: trials.values.len() as u64,
                without_value: trials.count_without_value(),
                mean: mean_value(&trials.values),
                rank: (*place)?,
                probability: (!probabilities.is_empty())
                    .then(|| probabilities.get(cell).copied().unwrap_or(0.0)),
            })
        })
        .collect();
    all.sort_by_key(|best| best.rank.rank);

    let may_be_best = all.iter().filter(|best| best.rank.may_be_best).count() as u64;
    all.truncate(TOP_CELLS);
    (all, may_be_best)
}

/// The share of resamples of whole repeats in which each cell has the best mean rank; ties share a
/// resample. Empty for cells that did not go on where others did, and for fewer than two repeats.
fn best_cell_probabilities(
    spec: &Spec,
    metric: &Metric,
    ends: &BTreeMap<CellIndex, CellEnds>,
    mut stream: RandomStream,
) -> BTreeMap<CellIndex, f64> {
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

    let resamples = resample::resample_weights(repeats, RESAMPLES, &mut stream, |weights| {
        indices_of_best(&ranks.mean_ranks(weights))
    });
    let mut shares: BTreeMap<CellIndex, f64> = BTreeMap::new();

    for best in resamples {
        best.iter()
            .for_each(|at| *shares.entry(contenders[*at]).or_default() += 1.0 / best.len() as f64);
    }

    shares
        .into_iter()
        .map(|(cell, hits)| (cell, hits / RESAMPLES as f64))
        .collect()
}

/// Largest difference of mean ranks that counts as rounding.
const RANK_TOLERANCE: f64 = 1e-9;

/// Indices of the cells with the best mean rank; all cells if none has a rank.
fn indices_of_best(mean_ranks: &[Option<f64>]) -> Vec<usize> {
    let ranks: Vec<f64> = mean_ranks
        .iter()
        .map(|rank| rank.unwrap_or(f64::INFINITY))
        .collect();
    let best = ranks.iter().copied().fold(f64::INFINITY, f64::min);
    (0..ranks.len())
        .filter(|at| ranks[*at] <= best + RANK_TOLERANCE)
        .collect()
}
