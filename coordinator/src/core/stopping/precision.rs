//! Precision: cells are repeated until the mean of a metric is known precisely enough.
//!
//! A cell climbs the [rungs](ergodic_common::spec::stopping_rule::precision_rungs): its next
//! repeats are allowed when all repeats below its rung have a row and their interval is too wide.
//! Only the order among allowed repeats depends on interim results: those of the cell with the
//! widest interval come first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use ergodic_common::ids::CellIndex;
use ergodic_common::{Outcome, Spec, TrialKey};

use super::Allowance;
use crate::estimators::precision::{DECIDING_LEVEL, half_width, interval_quantile};
use crate::interval_set::IntervalSet;

/// The progress of all cells towards a precision.
#[derive(Debug)]
pub struct PrecisionRepeats {
    target: f64,
    rungs: Vec<u32>,
    /// Cells with rows.
    cells: HashMap<CellIndex, PrecisionCell>,
    /// Number of trials that may run.
    total: u64,
    /// Expected number of trials in the end.
    expected: u64,
    /// Cells that were allowed more repeats, the widest interval first. Cells without pending
    /// repeats are removed when they are found.
    open_cells: BTreeSet<(Reverse<u64>, CellIndex)>,
    /// Student's quantiles, by number of values.
    quantiles: HashMap<u64, f64>,
    progress: PrecisionProgress,
}

/// The progress of a cell.
#[derive(Debug, Clone)]
struct PrecisionCell {
    /// Values by repeat; NaN where there is none.
    values: Vec<f64>,
    /// Repeats with a row.
    rows: IntervalSet,
    /// Number of repeats that may run.
    allowed: u32,
    /// Number of rungs at which the present values were judged.
    judged_rungs: usize,
    /// Half width of the interval at the last of these rungs; infinite if there is none.
    half_width: f64,
    /// The rung at which the mean was precise enough.
    reached_at: Option<u32>,
    /// Expected number of repeats in the end.
    expected: u32,
}

/// The progress of all cells as counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrecisionProgress {
    /// Numbers of cells that are precise enough, by the number of repeats that it took.
    pub reached_cells: BTreeMap<u32, u64>,
    /// Number of cells that are not precise enough with the maximum number of repeats.
    pub exhausted_cells: u64,
}

impl PrecisionProgress {
    /// Number of cells that go on, of `cells` in all.
    pub fn count_open_cells(&self, cells: u64) -> u64 {
        cells - self.count_known_cells() - self.exhausted_cells
    }

    /// Number of cells that are precise enough.
    pub fn count_known_cells(&self) -> u64 {
        self.reached_cells.values().sum()
    }

    /// Counts a cell in its present state if `begins`, and uncounts it otherwise.
    fn adjust_counts(&mut self, cell: &PrecisionCell, rungs: usize, begins: bool) {
        let change = |n: &mut u64| *n = if begins { *n + 1 } else { *n - 1 };
        match cell.reached_at {
            Some(rung) => {
                let n = self.reached_cells.entry(rung).or_default();
                change(n);
                if *n == 0 {
                    self.reached_cells.remove(&rung);
                }
            }
            None if cell.judged_rungs == rungs => change(&mut self.exhausted_cells),
            None => {}
        }
    }
}

impl PrecisionRepeats {
    /// Creates the state before any row.
    pub(super) fn new(spec: &Spec, target: f64, rungs: Vec<u32>) -> Self {
        let total = spec.grid.cell_count() * u64::from(rungs[0]);
        Self {
            target,
            rungs,
            cells: HashMap::new(),
            total,
            expected: total,
            open_cells: BTreeSet::new(),
            quantiles: HashMap::new(),
            progress: PrecisionProgress::default(),
        }
    }

    pub(super) fn total_trials(&self) -> u64 {
        self.total
    }

    /// Expected number of trials in the end, by the spread of the present values.
    pub(super) fn expected_trials(&self) -> u64 {
        self.expected
    }

    pub(super) fn min_repeats(&self) -> u32 {
        self.rungs[0]
    }

    pub(super) fn allowed_repeats(&self, cell: CellIndex) -> u32 {
        self.cells
            .get(&cell)
            .map_or(self.rungs[0], |cell| cell.allowed)
    }

    /// Number of repeats at which a cell was precise enough.
    pub fn reached_at(&self, cell: CellIndex) -> Option<u32> {
        self.cells.get(&cell)?.reached_at
    }

    /// The progress of all cells.
    pub fn progress(&self) -> &PrecisionProgress {
        &self.progress
    }

    pub(super) fn record_row(&mut self, key: TrialKey, outcome: &Outcome, value: f64) -> Allowance {
        let first = self.rungs[0];
        let cell = self
            .cells
            .entry(key.cell)
            .or_insert_with(|| PrecisionCell::new(first));
        let at = key.repeat.0 as usize;
        if cell.values.len() <= at {
            cell.values.resize(at + 1, f64::NAN);
        }

        cell.values[at] = if *outcome == Outcome::Completed {
            value
        } else {
            f64::NAN
        };
        cell.rows.insert(at as u64, at as u64 + 1);

        self.judge_cell(key.cell)
            .map(|range| (key.cell, range))
            .into_iter()
            .collect()
    }

    pub(super) fn forget_row(&mut self, key: TrialKey) {
        let Some(cell) = self.cells.get_mut(&key.cell) else {
            return;
        };
        cell.rows.remove(key.repeat.0.into());
        cell.values[key.repeat.0 as usize] = f64::NAN;
        self.progress.adjust_counts(cell, self.rungs.len(), false);
        cell.judged_rungs = 0;
        cell.reached_at = None;
    }

    pub(super) fn extend_repeats(&mut self, spec: &Spec, rungs: Vec<u32>) -> Allowance {
        let before = self.rungs[0];
        let mut allowed = Allowance::new();
        *self = Self {
            cells: std::mem::take(&mut self.cells),
            ..Self::new(spec, self.target, rungs)
        };

        let first = self.rungs[0];
        let untouched = spec.grid.cell_count() - self.cells.len() as u64;
        let cells = self.cells.values();
        let allowed_trials: u64 = cells.clone().map(|cell| u64::from(cell.allowed)).sum();
        let expected_trials: u64 = cells.map(|cell| u64::from(cell.expected)).sum();
        self.total = allowed_trials + untouched * u64::from(first);
        self.expected = expected_trials + untouched * u64::from(first);

        for number in spec.grid.iter() {
            match self.cells.get_mut(&number) {
                None if before < first => allowed.push((number, before..first)),
                None => {}
                Some(cell) => {
                    cell.judged_rungs = 0;
                    cell.reached_at = None;
                    allowed.extend(self.judge_cell(number).map(|range| (number, range)));
                }
            }
        }

        allowed
    }

    /// Judges a cell by its rows; returns the repeats that may run from now on, if there are more.
    fn judge_cell(&mut self, number: CellIndex) -> Option<Range<u32>> {
        let cell = self.cells.get_mut(&number)?;
        let before = cell.allowed;
        let was = (Reverse(cell.half_width.to_bits()), number);
        let complete = cell.rows.first_gap();
        self.progress.adjust_counts(cell, self.rungs.len(), false);

        cell.climb_rungs(complete, &self.rungs, self.target, &mut self.quantiles);
        self.progress.adjust_counts(cell, self.rungs.len(), true);
        let wanted = cell
            .reached_at
            .or_else(|| self.rungs.get(cell.judged_rungs).copied())
            .unwrap_or(before);

        // If an earlier row was lost, there may be rows beyond the wanted repeats. They stay
        // allowed.
        let covers = self
            .rungs
            .iter()
            .copied()
            .find(|rung| *rung as usize >= cell.values.len())
            .unwrap_or(before);
        cell.allowed = before.max(wanted).max(covers);

        self.total += u64::from(cell.allowed - before);
        let expected = cell.estimate_repeats(&self.rungs, self.target);
        self.expected = self.expected + u64::from(expected) - u64::from(cell.expected);
        cell.expected = expected;

        if self.open_cells.remove(&was) || cell.allowed > before {
            self.open_cells
                .insert((Reverse(cell.half_width.to_bits()), number));
        }

        (cell.allowed > before).then_some(before..cell.allowed)
    }

    /// Marks a cell as possibly having pending repeats, because trials were returned.
    pub(super) fn reopen_cell(&mut self, number: CellIndex) {
        if let Some(cell) = self.cells.get(&number) {
            self.open_cells
                .insert((Reverse(cell.half_width.to_bits()), number));
        }
    }

    /// Cells that may have pending repeats, the widest interval first.
    pub(super) fn widest_cells(&self) -> impl Iterator<Item = CellIndex> + '_ {
        self.open_cells.iter().map(|(_, cell)| *cell)
    }

    /// Marks a cell as having no pending repeats.
    pub(super) fn close_cell(&mut self, number: CellIndex) {
        if let Some(cell) = self.cells.get(&number) {
            self.open_cells
                .remove(&(Reverse(cell.half_width.to_bits()), number));
        }
    }
}

impl PrecisionCell {
    fn new(first: u32) -> Self {
        Self {
            values: Vec::new(),
            rows: IntervalSet::default(),
            allowed: first,
            judged_rungs: 0,
            half_width: f64::INFINITY,
            reached_at: None,
            expected: first,
        }
    }

    /// Judges the mean at every rung up to the first gap in the rows, until it is precise enough.
    fn climb_rungs(
        &mut self,
        complete: u64,
        rungs: &[u32],
        target: f64,
        quantiles: &mut HashMap<u64, f64>,
    ) {
        while self.reached_at.is_none()
            && let Some(rung) = rungs
                .get(self.judged_rungs)
                .filter(|rung| complete >= u64::from(**rung))
        {
            let values = &self.values[..*rung as usize];
            self.half_width = half_width(values, |n| {
                *quantiles
                    .entry(n)
                    .or_insert_with(|| interval_quantile(DECIDING_LEVEL, n))
            })
            .unwrap_or(f64::INFINITY);

            self.reached_at = (self.half_width <= target).then_some(*rung);
            self.judged_rungs += 1;
        }
    }

    /// Expected number of repeats in the end: the width falls with the square root of their number.
    fn estimate_repeats(&self, rungs: &[u32], target: f64) -> u32 {
        let last = rungs.last().copied().unwrap_or_default();
        let (Some(at), None) = (self.judged_rungs.checked_sub(1), self.reached_at) else {
            return self.allowed;
        };

        if !self.half_width.is_finite() {
            return self.allowed;
        }

        let ratio = self.half_width / target;
        let wanted = f64::from(rungs[at]) * ratio * ratio;
        let rung = rungs
            .iter()
            .copied()
            .find(|rung| f64::from(*rung) >= wanted);
        rung.unwrap_or(last).max(self.allowed)
    }
}
