//! Successive halving (Jamieson and Talwalkar 2016): cells get more repeats as long as they are
//! among the best.
//!
//! All cells climb the first rung. When every trial below a rung has ended, those of its cells with
//! the best mean ranks go on: one in `factor`, rounded up. No cell goes on earlier, because the
//! best cells of an unfinished rung depend on the order in which trials end.
//!
//! The [ranks](crate::estimators::rank) of trials within repeats decide which cells are best. A
//! diverged trial is the last of its repeat, and failed ones do not count.

use std::collections::HashMap;

use ergodic_common::ids::CellIndex;
use ergodic_common::metric::Metric;
use ergodic_common::spec::stopping_rule::StoppingRule;
use ergodic_common::{Outcome, Spec, TrialKey};

use super::Allowance;
use crate::estimators::rank::{Ranks, TrialEnd};
use crate::interval_set::IntervalSet;

/// The progress of successive halving.
#[derive(Debug)]
pub struct SuccessiveHalving {
    metric: Metric,
    factor: u32,
    rungs: Vec<u32>,
    /// Cells with rows.
    cells: HashMap<CellIndex, HalvingCell>,
    /// Index of the current rung.
    stage: usize,
    /// Number of cells on the current rung.
    climbing: u64,
    /// Number of these cells whose trials below the rung have all ended.
    ready: u64,
    /// Number of trials that may run.
    total: u64,
    /// Number of trials over all rungs.
    planned: u64,
    /// Whether the sweep has ended. A cell with rows beyond a rung was then selected at it.
    decisions_frozen: bool,
}

/// The progress of a cell.
#[derive(Debug, Default)]
struct HalvingCell {
    /// How its repeats ended; `Failed` if one has not ended.
    ends: Vec<TrialEnd>,
    /// Repeats with a row.
    rows: IntervalSet,
    /// Number of repeats that may run.
    allowed: u32,
    /// Index of the last rung that the cell climbs.
    stage: usize,
}

impl SuccessiveHalving {
    /// Creates the state before any row.
    pub(super) fn new(spec: &Spec, rule: &StoppingRule, factor: u32, rungs: Vec<u32>) -> Self {
        let cells = spec.grid.cell_count();
        Self {
            metric: rule.metric.clone(),
            factor,
            cells: HashMap::new(),
            stage: 0,
            climbing: cells,
            ready: 0,
            total: cells * u64::from(rungs[0]),
            planned: count_planned_trials(spec, rule),
            decisions_frozen: false,
            rungs,
        }
    }

    pub(super) fn total_trials(&self) -> u64 {
        self.total
    }

    pub(super) fn expected_trials(&self) -> u64 {
        self.total.max(self.planned)
    }

    pub(super) fn min_repeats(&self) -> u32 {
        self.rungs[0]
    }

    pub(super) fn allowed_repeats(&self, cell: CellIndex) -> u32 {
        self.cells
            .get(&cell)
            .map_or(self.rungs[0], |cell| cell.allowed)
    }

    /// The current rung, as a number of repeats.
    pub fn current_rung(&self) -> u32 {
        self.rungs[self.stage]
    }

    /// Number of cells on the current rung, and number of those that have completed it.
    pub fn rung_progress(&self) -> (u64, u64) {
        (self.climbing, self.ready)
    }

    /// Number of repeats after which a cell was eliminated, if it was.
    pub fn eliminated_after(&self, cell: CellIndex) -> Option<u32> {
        let cell = self
            .cells
            .get(&cell)
            .filter(|cell| cell.stage < self.stage)?;
        Some(self.rungs[cell.stage])
    }

    /// Makes no selection before [`Self::restore_decisions`], because the sweep has ended.
    pub(super) fn freeze_decisions(&mut self) {
        self.decisions_frozen = true;
    }

    /// Restores the selections that the rows of an ended sweep show. Where they show none, for
    /// example because a selection was never acted upon, the ranks decide.
    pub(super) fn restore_decisions(&mut self, spec: &Spec) -> Allowance {
        let allowed = self.restart_climb(spec);
        self.decisions_frozen = false;
        allowed
    }

    pub(super) fn record_row(&mut self, key: TrialKey, outcome: &Outcome, value: f64) -> Allowance {
        let rung = u64::from(self.current_rung());
        let cell = self.cells.entry(key.cell).or_insert_with(|| HalvingCell {
            allowed: self.rungs[0],
            ..HalvingCell::default()
        });
        let before = cell.rows.first_gap();

        cell.record_end(key.repeat.0, outcome, value);
        if cell.stage == self.stage && before < rung && cell.rows.first_gap() >= rung {
            self.ready += 1;
        }

        // If decisive rows were lost, there may be rows beyond the allowed repeats. They stay
        // allowed.
        let covers = self
            .rungs
            .iter()
            .copied()
            .find(|rung| *rung as usize >= cell.ends.len());

        let mut allowed = Allowance::new();
        allowed.extend(
            cell.allow_repeats(covers.unwrap_or_default())
                .map(|range| (key.cell, range)),
        );
        self.total += allowed
            .iter()
            .map(|(_, range)| range.len() as u64)
            .sum::<u64>();

        if !self.decisions_frozen {
            allowed.extend(self.climb_rungs());
        }

        allowed
    }

    pub(super) fn forget_row(&mut self, spec: &Spec, key: TrialKey) -> Allowance {
        if let Some(cell) = self.cells.get_mut(&key.cell) {
            cell.rows.remove(key.repeat.0.into());
            cell.ends[key.repeat.0 as usize] = TrialEnd::Failed;
        }
        self.restart_climb(spec)
    }

    pub(super) fn extend_repeats(
        &mut self,
        spec: &Spec,
        rule: &StoppingRule,
        rungs: Vec<u32>,
    ) -> Allowance {
        self.planned = count_planned_trials(spec, rule);
        self.rungs = rungs;
        self.restart_climb(spec)
    }

    /// Climbs from the first rung on, by the rows that exist.
    fn restart_climb(&mut self, spec: &Spec) -> Allowance {
        self.cells.values_mut().for_each(|cell| cell.stage = 0);
        self.stage = 0;
        self.climbing = spec.grid.cell_count();
        self.count_ready();
        self.climb_rungs()
    }

    fn count_ready(&mut self) {
        let stage = self.stage;
        let rung = u64::from(self.current_rung());
        let ready = self
            .cells
            .values()
            .filter(|cell| cell.stage == stage && cell.rows.first_gap() >= rung);
        self.ready = ready.count() as u64;
    }

    /// Climbs as many rungs as have all rows; returns the repeats that may run from now on.
    fn climb_rungs(&mut self) -> Allowance {
        let mut allowed = Allowance::new();
        while self.ready == self.climbing && self.stage + 1 < self.rungs.len() {
            let best = self.select_best_cells();
            self.stage += 1;
            self.climbing = best.len() as u64;
            let rung = self.current_rung();

            for number in best {
                let cell = self
                    .cells
                    .get_mut(&number)
                    .expect("who is among the best has rows");
                cell.stage = self.stage;

                if let Some(more) = cell.allow_repeats(rung) {
                    self.total += more.len() as u64;
                    allowed.push((number, more));
                }
            }

            self.count_ready();
        }

        allowed
    }

    /// Selects the cells that go on from the current rung, best first.
    fn select_best_cells(&self) -> Vec<CellIndex> {
        let rung = self.current_rung() as usize;
        let mut standing: Vec<(CellIndex, &HalvingCell)> = self.climbing_cells().collect();
        standing.sort_unstable_by_key(|(number, _)| *number);
        let go_on = standing.len().div_ceil(self.factor as usize);
        if self.decisions_frozen {
            let went_on: Vec<CellIndex> = standing
                .iter()
                .filter(|(_, cell)| cell.ends.len() > rung)
                .map(|(number, _)| *number)
                .collect();
            if went_on.len() == go_on {
                return went_on;
            }
        }

        let ends: Vec<Vec<(u32, TrialEnd)>> = standing
            .iter()
            .map(|(_, cell)| (0..).zip(cell.ends[..rung].iter().copied()).collect())
            .collect();
        let larger = self.metric.larger_is_better() == Some(true);
        let ranks = Ranks::from_ends(&ends.iter().map(Vec::as_slice).collect::<Vec<_>>(), larger);
        let order = ranks.order_best_first(&ranks.unweighted_mean_ranks());
        order
            .into_iter()
            .take(go_on)
            .map(|at| standing[at].0)
            .collect()
    }

    fn climbing_cells(&self) -> impl Iterator<Item = (CellIndex, &HalvingCell)> {
        self.cells
            .iter()
            .filter(|(_, cell)| cell.stage == self.stage)
            .map(|(number, cell)| (*number, cell))
    }
}

impl HalvingCell {
    fn record_end(&mut self, repeat: u32, outcome: &Outcome, value: f64) {
        let at = repeat as usize;
        if self.ends.len() <= at {
            self.ends.resize(at + 1, TrialEnd::Failed);
        }

        self.ends[at] = match outcome {
            Outcome::Completed => TrialEnd::Completed(value),
            Outcome::Diverged { .. } => TrialEnd::Diverged,
            Outcome::Failed { .. } => TrialEnd::Failed,
        };

        self.rows.insert(at as u64, at as u64 + 1);
    }

    /// Allows `repeats` repeats of the cell; returns those that are new.
    fn allow_repeats(&mut self, repeats: u32) -> Option<std::ops::Range<u32>> {
        let before = self.allowed;
        self.allowed = before.max(repeats);
        (self.allowed > before).then_some(before..self.allowed)
    }
}

/// Number of trials over all rungs.
fn count_planned_trials(spec: &Spec, rule: &StoppingRule) -> u64 {
    let (least, all) = rule.trial_bounds(spec.grid.cell_count(), spec.repeats);
    all.unwrap_or(least)
}
