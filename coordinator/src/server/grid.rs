//! The cells of a sweep as they fill, for `watch`.

use std::collections::BTreeMap;

use ergodic_common::Spec;
use ergodic_common::repeats::StoppingRule;
use ergodic_common::spec::format_value;
use ergodic_proto::v1;

use crate::core::Sweep;
use crate::core::live::Tally;
use crate::stats::precision::level_after_stopping;
use crate::stats::special::student_t_quantile;

/// Most places of the grid, so that a message stays small.
const MOST_PLACES: u64 = 400;
/// Most cells that are looked at for it.
const MOST_CELLS: u64 = 2_000;

/// The cells over the first two axes that have several values, others pooled; `None` where they are too many.
pub(crate) fn watch_grid(sweep: &Sweep) -> Option<v1::WatchGrid> {
    let grid = &sweep.spec.grid;
    let several: Vec<usize> = (0..grid.axes().len()).filter(|at| grid.axes()[*at].len() > 1).take(2).collect();
    let lengths = [0, 1].map(|i| several.get(i).map_or(1, |at| grid.axes()[*at].len()));
    if several.is_empty()
        || lengths[0].saturating_mul(lengths[1]) > MOST_PLACES
        || grid.cell_number_bound() > MOST_CELLS
    {
        return None;
    }
    let mut places: BTreeMap<(u64, u64), (u64, Tally)> = BTreeMap::new();
    let mut halves: Vec<f64> = Vec::new();
    for cell in grid.iter() {
        let indices = grid.value_indices(cell);
        let index = |i: usize| several.get(i).map_or(0, |at| indices[*at]);
        let tally = sweep.live.cell(cell);
        halves.extend(half(&sweep.spec, &tally));
        let place = places.entry((index(0), index(1))).or_default();
        place.0 += u64::from(sweep.spec.repeats);
        add(&mut place.1, &tally);
    }
    let all = (0..lengths[0]).flat_map(|row| (0..lengths[1]).map(move |column| (row, column)));
    let cell = |place: (u64, u64)| places.get(&place).map_or_else(v1::WatchCell::default, |(of, t)| to_cell(*of, t));
    let (rows_axis, rows) = names(&sweep.spec, several.first());
    let (columns_axis, columns) = names(&sweep.spec, several.get(1));
    Some(v1::WatchGrid {
        rows_axis,
        rows,
        columns_axis,
        columns,
        cells: all.map(cell).collect(),
        precise: halves.iter().copied().reduce(f64::min),
        imprecise: halves.iter().copied().reduce(f64::max),
    })
}

fn names(spec: &Spec, axis: Option<&usize>) -> (String, Vec<String>) {
    let Some(axis) = axis.map(|at| &spec.grid.axes()[*at]) else { return Default::default() };
    let distinct = axis.distinct_format();
    (axis.name.clone(), (0..axis.len()).map(|i| format_value(&axis.value_at(i), distinct)).collect())
}

fn add(sum: &mut Tally, tally: &Tally) {
    sum.metric.merge(&tally.metric);
    sum.completed += tally.completed;
    sum.diverged += tally.diverged;
    sum.failed += tally.failed;
}

/// Half of the 95 % confidence interval of a mean, by Student's t; at a higher level where repeats end when it looks narrow. Of crossed
/// streams nothing is known as long as trials are counted alone.
fn half(spec: &Spec, tally: &Tally) -> Option<f64> {
    if !spec.seeds.crossed.is_empty() {
        return None;
    }
    let level = if spec.stopping_rule.as_ref().is_some_and(StoppingRule::is_precision_based) {
        level_after_stopping(0.95)
    } else {
        0.95
    };
    let variance = tally.metric.variance()?;
    let n = tally.metric.n as f64;
    Some(student_t_quantile(0.5 + 0.5 * level, n - 1.0) * libm::sqrt(variance / n))
}

fn to_cell(trials: u64, tally: &Tally) -> v1::WatchCell {
    v1::WatchCell {
        trials,
        completed: tally.completed.into(),
        diverged: tally.diverged.into(),
        failed: tally.failed.into(),
        mean: (tally.metric.n > 0).then_some(tally.metric.mean),
    }
}
