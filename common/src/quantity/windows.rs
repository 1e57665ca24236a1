//! Checks windows and moments that are known before any trial.

use crate::quantity::evaluate::AveragedSeries;
use crate::quantity::events::EventRounding;
use crate::quantity::program::{CellInputs, NodeIndex, QuantityNode, QuantityProgram, Reduction};
use crate::quantity::reduce::Reducer;

/// What rounding may put an end of a window behind that of the trial, relative to it: steps may be computed, as 5/(lr*wd).
const END_ROUNDING: f64 = 1e-9;

/// What is known of a call of a reducer without any trial.
struct KnownWindow {
    name: &'static str,
    from: Option<f64>,
    to: Option<f64>,
    moment: Option<f64>,
    is_jump: bool,
    /// Number of steps of a trial.
    end: f64,
}

impl QuantityProgram {
    /// Checks the windows and moments of a number that are known without any trial: that trials have such a number.
    ///
    /// # Errors
    /// A window ends before it begins, or a window or moment lies outside the trials of this cell.
    pub(super) fn check_windows(&self, root: NodeIndex, cell: &CellInputs) -> Result<(), String> {
        self.check_known_windows(root, cell, KnownWindow::find_absence)
    }

    /// Checks that windows and moments lie in the trials of this cell, and the whole of them.
    ///
    /// # Errors
    /// As for [`Self::check_windows`], or a part of a window lies outside the trials of this cell.
    pub(super) fn check_whole_windows(
        &self,
        root: NodeIndex,
        cell: &CellInputs,
    ) -> Result<(), String> {
        self.check_known_windows(root, cell, |window| {
            let absence = window.find_absence();
            absence.or_else(|| window.find_part_outside())
        })
    }

    /// Whether a number has windows or moments that depend on more of a cell than the number of its steps and their size.
    pub(super) fn has_windows_of_cells(&self, root: NodeIndex) -> bool {
        let ends = self.used_reductions(root).flat_map(|reduction| {
            let ends = [reduction.from, reduction.to, reduction.number];
            ends.into_iter().flatten()
        });
        let mut ends = ends.filter(|end| self.is_static(*end));
        ends.any(|end| self.depends_on_cell(end))
    }

    fn check_known_windows(
        &self,
        root: NodeIndex,
        cell: &CellInputs,
        find_mistake: impl Fn(&KnownWindow) -> Option<String>,
    ) -> Result<(), String> {
        // Where the trials of a program end is known afterwards.
        if cell.is_of_program() {
            return Ok(());
        }
        let mut reductions = self.used_reductions(root);
        let wrong =
            reductions.find_map(|reduction| find_mistake(&self.find_window(reduction, cell)));
        wrong.map_or(Ok(()), Err)
    }

    fn used_reductions(&self, root: NodeIndex) -> impl Iterator<Item = &Reduction> {
        let nodes = self.nodes.iter().zip(self.used_nodes(root));
        nodes.filter_map(|(node, is_used)| match node {
            QuantityNode::Reduction(reduction) if is_used => Some(reduction),
            _ => None,
        })
    }

    fn find_window(&self, reduction: &Reduction, cell: &CellInputs) -> KnownWindow {
        let [from, to, number] = [reduction.from, reduction.to, reduction.number].map(|node| {
            let node = node.filter(|node| self.is_static(*node))?;
            let none = |_: AveragedSeries| -> &'static [f64] { &[] };
            Some(self.evaluate_mean(node, cell, &[], &none, &|_| EventRounding::Between))
        });
        let is_moment = matches!(reduction.reducer, Reducer::At | Reducer::Jump);
        KnownWindow {
            name: reduction.reducer.name(),
            from,
            to,
            moment: number.filter(|_| is_moment),
            is_jump: reduction.reducer == Reducer::Jump,
            end: cell.end,
        }
    }
}

impl KnownWindow {
    /// Says why no trial has the number.
    fn find_absence(&self) -> Option<String> {
        let Self {
            name,
            from,
            to,
            moment,
            end,
            ..
        } = *self;
        if [from, to, moment].iter().flatten().any(|x| x.is_nan()) {
            let message = format!(
                "{name}: its window or moment is undefined: 'decay' is the first entry of train.schedule, which a cell does not have"
            );
            return Some(message);
        }
        if let Some(step) = from.or(moment).filter(|step| *step > end) {
            return Some(format!(
                "{name}: step {step} is after the end: a trial of the cell has {end} steps"
            ));
        }
        if let Some(step) = to.or(moment).filter(|step| *step < 0.0) {
            return Some(format!(
                "{name}: step {step} is before the begin of a trial"
            ));
        }
        match (from, to) {
            (Some(from), Some(to)) if from > to => Some(format!(
                "{name}: the window begins at step {from} and ends before it, at step {to}: swap them"
            )),
            _ => None,
        }
    }

    /// Says which part of the window no trial has.
    fn find_part_outside(&self) -> Option<String> {
        let Self { name, end, .. } = *self;
        if let Some(to) = self.to.filter(|to| *to > end * (1.0 + END_ROUNDING)) {
            return Some(format!(
                "{name}: the window ends at step {to}, and a trial of the cell has {end} steps: end it at 'end', or leave its end out, \
                 as in 0.."
            ));
        }
        if let Some(from) = self.from.filter(|from| *from < 0.0) {
            return Some(format!(
                "{name}: the window begins at step {from}, before a trial does, which has {end} steps: let it begin at 0, or leave its \
                 begin out, as in ..decay"
            ));
        }
        let last = self.moment.filter(|step| self.is_jump && *step >= end);
        last.map(|step| {
            format!(
                "{name}: no sample comes after step {step}: a trial of the cell has {end} steps"
            )
        })
    }
}
