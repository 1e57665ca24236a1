//! Cells that are repeated as long as they are among the best: successive halving (Jamieson and Talwalkar 2016).
//!
//! All cells climb the first rung. When every trial below a rung has ended, of all cells that climb it, those with the best
//! means go on, one in so many, rounded up. Nobody goes on before: who is among the best of an unfinished rung depends on
//! the order in which trials end.
//!
//! Diverged trials count as a network that knows nothing ([`chance`]), failed ones do not count.

use std::collections::HashMap;

use ergodic_common::metric::Metric;
use ergodic_common::repeats::Until;
use ergodic_common::{Outcome, Spec, TrialKey};

use super::Allowed;
use crate::core::interval::IntervalSet;
use crate::stats::chance::chance;
use End::{Completed, Diverged, Unknown};

/// How far the cells of a sweep are.
#[derive(Debug)]
pub struct Halving {
    metric: Metric,
    factor: u32,
    rungs: Vec<u32>,
    /// Cells that have rows.
    cells: HashMap<u64, Cell>,
    /// Which rung is climbed.
    stage: usize,
    /// Cells that climb it.
    standing: u64,
    /// Those of them of which all trials below it have ended.
    ready: u64,
    /// Trials allowed.
    total: u64,
    /// Trials that all rungs come to.
    planned: u64,
}

/// How far a cell is.
#[derive(Debug, Default)]
struct Cell {
    /// How its repeats ended.
    ends: Vec<End>,
    /// Repeats that have a row.
    rows: IntervalSet,
    /// Repeats below this may be run.
    allowed: u32,
    /// The last rung that it climbs.
    stage: usize,
}

/// How a trial ended.
#[derive(Debug, Clone, Copy, Default)]
enum End {
    Completed(f64),
    Diverged,
    /// It failed, or has not.
    #[default]
    Unknown,
}

impl Halving {
    /// Nothing is known of any cell.
    pub(super) fn new(spec: &Spec, until: &Until, factor: u32, rungs: Vec<u32>) -> Self {
        let cells = spec.grid.cells();
        Self {
            metric: until.metric.clone(),
            factor,
            cells: HashMap::new(),
            stage: 0,
            standing: cells,
            ready: 0,
            total: cells * u64::from(rungs[0]),
            planned: planned(spec, until),
            rungs,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn expected(&self) -> u64 {
        self.total.max(self.planned)
    }

    pub(super) fn least(&self) -> u32 {
        self.rungs[0]
    }

    pub(super) fn allowed(&self, cell: u64) -> u32 {
        self.cells.get(&cell).map_or(self.rungs[0], |cell| cell.allowed)
    }

    /// The rung that is climbed, as a number of repeats.
    pub fn rung(&self) -> u32 {
        self.rungs[self.stage]
    }

    /// Cells that climb it, and those of them that are done with it.
    pub fn standing(&self) -> (u64, u64) {
        (self.standing, self.ready)
    }

    /// The number of repeats after which a cell was not among the best, if that is so.
    pub fn out_after(&self, cell: u64) -> Option<u32> {
        let cell = self.cells.get(&cell).filter(|cell| cell.stage < self.stage)?;
        Some(self.rungs[cell.stage])
    }

    pub(super) fn settle(&mut self, spec: &Spec, key: TrialKey, outcome: &Outcome, value: f64) -> Allowed {
        let rung = u64::from(self.rung());
        let cell = self.cells.entry(key.cell).or_insert_with(|| Cell { allowed: self.rungs[0], ..Cell::default() });
        let before = cell.rows.first_gap();
        cell.take(key.repeat, outcome, value);
        if cell.stage == self.stage && before < rung && cell.rows.first_gap() >= rung {
            self.ready += 1;
        }
        // Rows beyond what is allowed may be there when decisions were made with rows that are gone.
        let covers = self.rungs.iter().copied().find(|rung| *rung as usize >= cell.ends.len());
        let mut allowed = Allowed::new();
        allowed.extend(cell.allow(covers.unwrap_or_default()).map(|range| (key.cell, range)));
        self.total += allowed.iter().map(|(_, range)| range.len() as u64).sum::<u64>();
        allowed.extend(self.climb(spec));
        allowed
    }

    pub(super) fn reopen(&mut self, spec: &Spec, key: TrialKey) -> Allowed {
        if let Some(cell) = self.cells.get_mut(&key.cell) {
            cell.rows.remove(key.repeat.into());
            cell.ends[key.repeat as usize] = End::Unknown;
        }
        self.begin_anew(spec)
    }

    pub(super) fn extend(&mut self, spec: &Spec, until: &Until, rungs: Vec<u32>) -> Allowed {
        self.planned = planned(spec, until);
        self.rungs = rungs;
        self.begin_anew(spec)
    }

    /// Climbs from the first rung on, by the rows that are there.
    fn begin_anew(&mut self, spec: &Spec) -> Allowed {
        self.cells.values_mut().for_each(|cell| cell.stage = 0);
        (self.stage, self.standing) = (0, spec.grid.cells());
        self.count_ready();
        self.climb(spec)
    }

    fn count_ready(&mut self) {
        let (stage, rung) = (self.stage, u64::from(self.rung()));
        let ready = |cell: &&Cell| cell.stage == stage && cell.rows.first_gap() >= rung;
        self.ready = self.cells.values().filter(ready).count() as u64;
    }

    /// As far as there are rows for; the repeats that may be run from now on.
    fn climb(&mut self, spec: &Spec) -> Allowed {
        let mut allowed = Allowed::new();
        while self.ready == self.standing && self.stage + 1 < self.rungs.len() {
            let best = self.best(spec);
            self.stage += 1;
            self.standing = best.len() as u64;
            let rung = self.rung();
            for number in best {
                let cell = self.cells.get_mut(&number).expect("who is among the best has rows");
                cell.stage = self.stage;
                if let Some(more) = cell.allow(rung) {
                    self.total += more.len() as u64;
                    allowed.push((number, more));
                }
            }
            self.count_ready();
        }
        allowed
    }

    /// Those of the cells that climb the rung that go on, the best one first. Of equals, the one with the lower number.
    fn best(&self, spec: &Spec) -> Vec<u64> {
        let standing = self.cells.iter().filter(|(_, cell)| cell.stage == self.stage);
        let mut scored: Vec<(f64, u64)> = standing.map(|(n, cell)| (self.score(spec, *n, cell), *n)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scored.truncate(scored.len().div_ceil(self.factor as usize));
        scored.into_iter().map(|(_, number)| number).collect()
    }

    /// The mean of what a cell yielded below the rung: the more, the better.
    fn score(&self, spec: &Spec, number: u64, cell: &Cell) -> f64 {
        let sign = if self.metric.larger_is_better() == Some(true) { 1.0 } else { -1.0 };
        let ignorant = || {
            let config = spec.grid.config(number).ok();
            config.and_then(|config| chance(&self.metric, &config)).map_or(f64::NEG_INFINITY, |value| sign * value)
        };
        let scores = cell.ends[..self.rung() as usize].iter().filter_map(|end| match end {
            Completed(value) if value.is_finite() => Some(sign * value),
            Completed(_) => Some(f64::NEG_INFINITY),
            Diverged => Some(ignorant()),
            Unknown => None,
        });
        let (sum, n) = scores.fold((0.0, 0), |(sum, n), score| (sum + score, n + 1));
        if n == 0 { f64::NEG_INFINITY } else { sum / f64::from(n) }
    }
}

impl Cell {
    fn take(&mut self, repeat: u32, outcome: &Outcome, value: f64) {
        let at = repeat as usize;
        if self.ends.len() <= at {
            self.ends.resize(at + 1, Unknown);
        }
        self.ends[at] = match outcome {
            Outcome::Completed => Completed(value),
            Outcome::Diverged { .. } => Diverged,
            Outcome::Failed { .. } => Unknown,
        };
        self.rows.insert(at as u64, at as u64 + 1);
    }

    /// Allows as many repeats, if it has fewer.
    fn allow(&mut self, repeats: u32) -> Option<std::ops::Range<u32>> {
        let before = self.allowed;
        self.allowed = before.max(repeats);
        (self.allowed > before).then_some(before..self.allowed)
    }
}

/// Trials that all rungs come to.
fn planned(spec: &Spec, until: &Until) -> u64 {
    let (least, all) = until.trials(spec.grid.cells(), spec.repeats);
    all.unwrap_or(least)
}
