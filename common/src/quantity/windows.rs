//! Checks windows and moments that are known before any trial.

use crate::quantity::evaluate::{AveragedSeries, EventRounding};
use crate::quantity::program::{CellInputs, NodeIndex, QuantityNode, QuantityProgram, Reduction};
use crate::quantity::reduce::Reducer;

impl QuantityProgram {
    /// Checks the windows and moments of a number that are known without any trial.
    ///
    /// # Errors
    /// A window ends before it begins, or lies outside the trials of this cell.
    pub(super) fn check_windows(&self, root: NodeIndex, cell: &CellInputs) -> Result<(), String> {
        let used = self.used_nodes(root);
        let wrong = self
            .nodes
            .iter()
            .zip(used)
            .find_map(|(node, is_used)| match node {
                QuantityNode::Reduction(reduction) if is_used => {
                    self.find_wrong_window(reduction, cell)
                }
                _ => None,
            });
        wrong.map_or(Ok(()), Err)
    }

    fn find_wrong_window(&self, reduction: &Reduction, cell: &CellInputs) -> Option<String> {
        let known = |node: Option<NodeIndex>| {
            let node = node.filter(|node| self.is_static(*node))?;
            let none = |_: AveragedSeries| -> &'static [f64] { &[] };
            Some(self.evaluate_mean(node, cell, &[], &none, EventRounding::Between))
        };
        // Where the trials of a program end is known afterwards.
        if cell.is_of_program() {
            return None;
        }
        let name = reduction.reducer.name();
        let end = cell.end;
        let [from, to] = [known(reduction.from), known(reduction.to)];
        let is_moment = matches!(reduction.reducer, Reducer::At | Reducer::Jump);
        let moment = known(reduction.number).filter(|_| is_moment);

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
        match (from, to) {
            (Some(from), Some(to)) if from > to => Some(format!(
                "{name}: the window begins at step {from} and ends before it, at step {to}: swap them"
            )),
            _ => None,
        }
    }
}
