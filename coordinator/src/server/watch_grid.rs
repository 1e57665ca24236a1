//! The progress of a sweep's cells as a small grid, for `watch`.

use std::collections::BTreeMap;

use ergodic_common::Spec;
use ergodic_common::spec::stopping_rule::StoppingRule;
use ergodic_common::spec_file::node::format_value;
use ergodic_proto::v1;

use crate::core::Sweep;
use crate::core::running_stats::CellStats;
use crate::estimators::precision::level_after_stopping;
use crate::estimators::special::student_t_quantile;

/// Maximum number of cells of the grid, so that messages stay small.
const MAX_GRID_CELLS: u64 = 400;
/// Maximum number of a sweep's cells that are pooled into the grid.
const MAX_SWEEP_CELLS: u64 = 2_000;

/// Builds a grid over the first two axes that have several values, pooling over the others; `None`
/// if there are too many cells.
pub(crate) fn build_watch_grid(sweep: &Sweep) -> Option<v1::WatchGrid> {
    let grid = &sweep.spec.grid;
    let several: Vec<usize> = (0..grid.axes().len())
        .filter(|at| grid.axes()[*at].len() > 1)
        .take(2)
        .collect();
    let lengths = [0, 1].map(|i| several.get(i).map_or(1, |at| grid.axes()[*at].len()));
    if several.is_empty()
        || lengths[0].saturating_mul(lengths[1]) > MAX_GRID_CELLS
        || grid.cell_number_bound() > MAX_SWEEP_CELLS
    {
        return None;
    }

    let pooled = pool_cells(sweep, &several);
    let all = (0..lengths[0]).flat_map(|row| (0..lengths[1]).map(move |column| (row, column)));
    let cells = all.map(|index| match pooled.cells.get(&index) {
        Some((trials, stats)) => to_watch_cell(*trials, stats),
        None => v1::WatchCell::default(),
    });
    let cells: Vec<v1::WatchCell> = cells.collect();

    let (rows_axis, rows) = axis_labels(&sweep.spec, several.first());
    let (columns_axis, columns) = axis_labels(&sweep.spec, several.get(1));
    Some(v1::WatchGrid {
        rows_axis,
        rows,
        columns_axis,
        columns,
        cells,
        precise: pooled.half_widths.iter().copied().reduce(f64::min),
        imprecise: pooled.half_widths.iter().copied().reduce(f64::max),
    })
}

/// Cells of a sweep, pooled by row and column of the grid.
#[derive(Default)]
struct PooledCells {
    /// Number of trials to run, and statistics of the finished ones, by row and column.
    cells: BTreeMap<(u64, u64), (u64, CellStats)>,
    /// Half widths of the confidence intervals of single cells' means, as far as they are known.
    half_widths: Vec<f64>,
}

fn pool_cells(sweep: &Sweep, shown_axes: &[usize]) -> PooledCells {
    let grid = &sweep.spec.grid;
    let mut pooled = PooledCells::default();
    for cell in grid.iter() {
        let indices = grid.value_indices(cell);
        let [row, column] = [0, 1].map(|i| shown_axes.get(i).map_or(0, |at| indices[*at]));
        let stats = sweep.live_stats.cell_stats(cell);
        pooled
            .half_widths
            .extend(ci95_half_width(&sweep.spec, &stats));

        let (trials, sum) = pooled.cells.entry((row, column)).or_default();
        *trials += u64::from(sweep.spec.repeats);
        add_cell_stats(sum, &stats);
    }

    pooled
}

fn axis_labels(spec: &Spec, axis: Option<&usize>) -> (String, Vec<String>) {
    let Some(axis) = axis.map(|at| &spec.grid.axes()[*at]) else {
        return Default::default();
    };
    let distinct = axis.distinct_format();
    (
        axis.name.clone(),
        (0..axis.len())
            .map(|i| format_value(&axis.value_at(i), distinct))
            .collect(),
    )
}

fn add_cell_stats(sum: &mut CellStats, stats: &CellStats) {
    sum.metric.merge(&stats.metric);
    sum.completed += stats.completed;
    sum.diverged += stats.diverged;
    sum.failed += stats.failed;
}

/// Half the width of the 95 % Student's t interval of a mean, at a higher level if repeats end when
/// it looks narrow. Unknown for crossed streams, because the running statistics do not separate
/// them.
fn ci95_half_width(spec: &Spec, stats: &CellStats) -> Option<f64> {
    if !spec.seeds.crossed.is_empty() {
        return None;
    }

    let level = if spec
        .stopping_rule
        .as_ref()
        .is_some_and(StoppingRule::is_precision_based)
    {
        level_after_stopping(0.95)
    } else {
        0.95
    };

    let variance = stats.metric.variance()?;
    let n = stats.metric.n as f64;
    Some(student_t_quantile(0.5 + 0.5 * level, n - 1.0) * libm::sqrt(variance / n))
}

fn to_watch_cell(trials: u64, stats: &CellStats) -> v1::WatchCell {
    v1::WatchCell {
        trials,
        completed: stats.completed.into(),
        diverged: stats.diverged.into(),
        failed: stats.failed.into(),
        mean: (stats.metric.n > 0).then_some(stats.metric.mean),
    }
}
