//! Chooses which pending trials of a sweep come next, and adds further repeats.

use std::sync::Arc;

use ergodic_common::ids::{CellIndex, Repeat, ShapeClass, TrialIndex};
use ergodic_common::spec::SpecSource;
use ergodic_common::{Spec, TrialKey};

use super::stopping::Allowance;
use super::sweep::Sweep;
use crate::interval_set::IntervalSet;
use crate::records::SweepRow;
use crate::stored_row::StoredRow;

impl Sweep {
    /// The class of the next trials: the one whose next repeat is the lowest, so that every partial
    /// table is balanced over all cells. Once all cells have their minimum of repeats, it is the
    /// class of the most urgent cell.
    pub(super) fn next_class(&mut self) -> ShapeClass {
        let (repeat, class) = self
            .spec
            .grid
            .shape_classes()
            .filter_map(|class| Some((self.next_repeat(class)?, class)))
            .min()
            .unwrap_or_default();

        match &self.adaptive_repeats {
            Some(adaptive) if repeat >= u64::from(adaptive.min_repeats()) => {
                self.urgent_class().unwrap_or(class)
            }
            _ => class,
        }
    }

    fn next_repeat(&self, class: ShapeClass) -> Option<u64> {
        let cells = self.spec.grid.class_cell_count(class);
        self.classes[class.position()]
            .pending
            .first()
            .map(|n| n / cells)
    }

    /// The class of the most urgent cell with a pending repeat.
    fn urgent_class(&mut self) -> Option<ShapeClass> {
        loop {
            let cell = self.adaptive_repeats.as_ref()?.urgent_cells().next()?;
            if !self.waiting_repeats(cell, 1).is_empty() {
                return Some(self.spec.grid.class_of(cell));
            }
            self.adaptive_repeats.as_mut()?.close_cell(cell);
        }
    }

    /// Pending repeats of a cell beyond the minimum of every cell, as numbers within its class.
    fn waiting_repeats(&self, cell: CellIndex, most: u64) -> IntervalSet {
        let mut waiting = IntervalSet::default();
        let Some(adaptive) = &self.adaptive_repeats else {
            return waiting;
        };
        let first = self.spec.grid.locate_trial(TrialKey {
            cell,
            repeat: Repeat(0),
        });
        let cells = self.spec.grid.class_cell_count(first.class);

        let pending = &self.classes[first.class.position()].pending;
        let numbers = (adaptive.min_repeats()..adaptive.allowed_repeats(cell))
            .map(|repeat| u64::from(repeat) * cells + first.number);
        let take = numbers.filter(|n| pending.contains(*n)).take(most as usize);
        take.for_each(|n| waiting.insert(n, n + 1));

        waiting
    }

    /// Takes up to `most` trials of a class for a lease, at least one if any is pending.
    pub(super) fn take_pending_trials(&mut self, class: ShapeClass, most: u64) -> IntervalSet {
        let taken = self.take_urgent_trials(class, most);
        let pending = &mut self.classes[class.position()].pending;
        if taken.is_empty() {
            return pending.take_smallest(most);
        }
        taken.iter().for_each(|n| _ = pending.remove(n));
        taken
    }

    /// Takes trials of urgent cells, once every cell of the class has the minimum of repeats.
    fn take_urgent_trials(&mut self, class: ShapeClass, most: u64) -> IntervalSet {
        let mut taken = IntervalSet::default();
        let cells = self.spec.grid.class_cell_count(class).max(1);
        let Some(adaptive) = &self.adaptive_repeats else {
            return taken;
        };
        if self.classes[class.position()]
            .pending
            .first()
            .is_none_or(|n| n / cells < u64::from(adaptive.min_repeats()))
        {
            return taken;
        }

        let mut closed = Vec::new();
        for cell in adaptive.urgent_cells() {
            if self.spec.grid.class_of(cell) != class {
                continue;
            }

            match self.waiting_repeats(cell, most - taken.len()) {
                none if none.is_empty() => closed.push(cell),
                waiting => taken.insert_all(&waiting),
            }

            if taken.len() == most {
                break;
            }
        }

        self.adaptive_repeats
            .iter_mut()
            .for_each(|adaptive| closed.iter().for_each(|cell| adaptive.close_cell(*cell)));
        taken
    }

    /// Records a row in the stopping rule, and adds the repeats that it allows.
    pub(super) fn update_allowance(&mut self, row: &StoredRow) {
        let Some(adaptive) = &mut self.adaptive_repeats else {
            return;
        };
        let allowed = adaptive.record_row(row.key, &row.outcome, row.deciding_metric);
        self.apply_allowance(allowed);
    }

    /// Removes a row from the stopping rule, and adds the repeats that this allows.
    pub(super) fn rejudge_without_row(&mut self, key: TrialKey) {
        let Some(adaptive) = &mut self.adaptive_repeats else {
            return;
        };
        let allowed = adaptive.forget_row(&self.spec, key);
        self.apply_allowance(allowed);
    }

    /// Restores the decisions of a sweep that has ended, once all its rows are read.
    pub(super) fn restore_decisions(&mut self) {
        let Some(adaptive) = &mut self.adaptive_repeats else {
            return;
        };
        let allowed = adaptive.restore_decisions(&self.spec);
        self.apply_allowance(allowed);
    }

    fn apply_allowance(&mut self, allowed: Allowance) {
        for (cell, repeats) in allowed {
            repeats.for_each(|repeat| {
                self.add_pending_trial(TrialKey {
                    cell,
                    repeat: Repeat(repeat),
                });
            });
        }
    }

    pub(super) fn add_pending_trial(&mut self, key: TrialKey) {
        let index = self.spec.grid.locate_trial(key);
        self.classes[index.class.position()]
            .pending
            .insert(index.number, index.number + 1);
    }

    /// Tells the stopping rule that trials of a class are pending again.
    pub(super) fn reopen_cells(&mut self, class: ShapeClass, trials: &IntervalSet) {
        let Some(adaptive) = &mut self.adaptive_repeats else {
            return;
        };
        trials
            .iter()
            .map(|number| self.spec.grid.trial_at(TrialIndex { class, number }))
            .for_each(|key| adaptive.reopen_cell(key.cell));
    }

    /// Replaces the spec by one with more repeats of the same cells. The new trials come last in
    /// every class, so that all others keep their numbers.
    pub(super) fn extend_repeats(&mut self, source: SpecSource, spec: Arc<Spec>) {
        let before = std::mem::replace(&mut self.spec, spec);
        self.record = Arc::new(SweepRow {
            source,
            ..(*self.record).clone()
        });

        match (&mut self.adaptive_repeats, &self.spec.stopping_rule) {
            (Some(adaptive), Some(rule)) => {
                let allowed = adaptive.extend_repeats(&self.spec, rule);
                self.apply_allowance(allowed);
            }
            _ => {
                for (class, state) in before.grid.shape_classes().zip(&mut self.classes) {
                    state.pending.insert(
                        before.class_trial_count(class),
                        self.spec.class_trial_count(class),
                    );
                }
            }
        }
    }
}
