//! Numbers that rounding alone makes of 0: what is left where an expression cancels.

use std::borrow::Cow;

use crate::expr::Expr;
use crate::quantity::evaluate::{NodeValue, reduce_series};
use crate::quantity::events::EventRounding;
use crate::quantity::program::{CellInputs, NodeIndex, QuantityNode, QuantityProgram, Reduction};
use crate::quantity::reduce::Reducer;

/// What rounding makes of a number, relative to it.
const RELATIVE_ROUNDING: f64 = 4.0 * f64::EPSILON;
/// How much smaller than the largest number it is made of a number must be to be looked at.
const SUSPECT_SHARE: f64 = 1e-12;

/// The values of all nodes in a trial.
#[derive(Clone, Copy)]
pub struct EvaluatedNodes<'a> {
    /// One value per node of the program.
    pub values: &'a [NodeValue],
    /// Numbers of completed steps at the samples.
    pub steps: &'a [f64],
    /// What is known of the cell.
    pub cell: &'a CellInputs,
}

impl QuantityProgram {
    /// The number of a trial, or 0 if rounding of what it is made of may have made it of 0.
    pub fn clear_rounding(&self, root: NodeIndex, nodes: EvaluatedNodes<'_>) -> f64 {
        let x = nodes.values[root].as_number();
        if x == 0.0 || !x.is_finite() || !self.may_cancel(root, x, nodes) {
            return x;
        }
        match self.rounding_of(root, nodes) {
            rounding if x.abs() <= rounding => 0.0,
            _ => x,
        }
    }

    /// Whether a number is far smaller than some number that it is made of.
    fn may_cancel(&self, root: NodeIndex, x: f64, nodes: EvaluatedNodes<'_>) -> bool {
        let suspect = x.abs() / SUSPECT_SHARE;
        let is_large = |y: &f64| y.is_finite() && y.abs() >= suspect;
        let used = self.used_nodes(root).into_iter().zip(nodes.values);
        used.filter(|(is_used, _)| *is_used)
            .any(|(_, value)| match value {
                NodeValue::Number(y) => is_large(y),
                NodeValue::Series(values) => values.iter().any(is_large),
            })
    }

    /// What rounding of all numbers that a node is made of can make of it.
    fn rounding_of(&self, root: NodeIndex, nodes: EvaluatedNodes<'_>) -> f64 {
        let used = self.used_nodes(root);
        let mut found: Vec<NodeValue> = Vec::with_capacity(root + 1);
        for (node, is_used) in self.nodes.iter().zip(used) {
            let rounding = match node {
                _ if !is_used => NodeValue::Number(0.0),
                QuantityNode::Formula { expr, inputs, .. } => {
                    round_formula(expr, inputs, found.len(), nodes, &found)
                }
                QuantityNode::Reduction(reduction) => {
                    let number = nodes.values[found.len()].as_number();
                    NodeValue::Number(round_reduction(reduction, number, nodes, &found))
                }
                // What is measured or set is exact.
                _ => NodeValue::Number(0.0),
            };
            found.push(rounding);
        }
        found[root].as_number()
    }
}

/// The rounding of an expression: what it changes by if each of its names is moved by its own rounding.
fn round_formula(
    expr: &Expr,
    inputs: &[NodeIndex],
    at: NodeIndex,
    nodes: EvaluatedNodes<'_>,
    roundings: &[NodeValue],
) -> NodeValue {
    if expr.is_condition() {
        return NodeValue::Number(0.0);
    }
    let round_sample = |sample: usize| {
        let mut numbers: Vec<f64> = inputs
            .iter()
            .map(|input| sample_of(&nodes.values[*input], sample))
            .collect();
        let value = expr.eval(&numbers);
        let mut rounding = RELATIVE_ROUNDING * value.abs();
        for (place, input) in inputs.iter().enumerate() {
            let number = numbers[place];
            let own = sample_of(&roundings[*input], sample);
            numbers[place] += own.max(RELATIVE_ROUNDING * number.abs());
            let moved = (expr.eval(&numbers) - value).abs();
            if moved.is_finite() {
                rounding += moved;
            }
            numbers[place] = number;
        }
        rounding
    };

    match &nodes.values[at] {
        NodeValue::Number(_) => NodeValue::Number(round_sample(0)),
        NodeValue::Series(values) => {
            NodeValue::Series((0..values.len()).map(round_sample).collect())
        }
    }
}

/// The rounding of the number that a series is reduced to. That of a slope or of an event is left out.
fn round_reduction(
    reduction: &Reduction,
    reduced: f64,
    nodes: EvaluatedNodes<'_>,
    roundings: &[NodeValue],
) -> f64 {
    let reducer = match reduction.reducer {
        Reducer::At | Reducer::Mean => reduction.reducer,
        Reducer::Min | Reducer::Max | Reducer::Quantile | Reducer::Sd => Reducer::Max,
        _ => return 0.0,
    };
    let of_roundings = Reduction {
        reducer,
        ..reduction.clone()
    };

    let length = nodes.steps.len();
    let values = nodes.values[reduction.of].to_series(length);
    let own = roundings[reduction.of].to_series(length);
    let is_chosen = matches!(
        reduction.reducer,
        Reducer::Min | Reducer::Max | Reducer::Quantile
    );
    let mut rounded = Vec::with_capacity(length);
    for (value, own) in values.iter().zip(own) {
        let rounding = own.max(RELATIVE_ROUNDING * value.abs());
        // Samples apart from the one that is chosen round nothing.
        let is_apart = is_chosen && (value - reduced).abs() > rounding;
        rounded.push(if is_apart { 0.0 } else { rounding });
    }
    let number = |at: NodeIndex| nodes.values[at].as_number();
    let series = |_: NodeIndex| Cow::Borrowed(rounded.as_slice());
    let window = (nodes.steps, nodes.cell);
    let between = EventRounding::Between;
    reduce_series(&of_roundings, window, (&number, &series), between).max(0.0)
}

fn sample_of(value: &NodeValue, sample: usize) -> f64 {
    match value {
        NodeValue::Number(x) => *x,
        NodeValue::Series(values) => values.get(sample).copied().unwrap_or(f64::NAN),
    }
}

#[cfg(test)]
mod tests {
    use crate::Spec;
    use crate::quantity::evaluate::SampledCurve;
    use crate::quantity::rounding::*;
    use crate::spec::SpecSource;

    /// The number of a trial with these losses after 10, 20 … steps, as it is and cleared of rounding.
    fn evaluate(of: &str, losses: &[f64]) -> [f64; 2] {
        let text = format!(
            "name = \"t\"\nrepeats = 3\n[data]\ndataset = \"glyphs\"\ntrain = 100\n[model]\nkind = \"mlp\"\nhidden = [8]\n\
             [train]\nsteps = 100\nbatch_size = 10\nlr = 0.1\nwd = 0.2\n[measure]\nevery = \"10 steps\"\n\
             metrics = [\"train_loss\"]\n[[claim]]\nname = \"c\"\nof = \"{of}\"\nabove = 0\n"
        );
        let source = SpecSource {
            text,
            ..SpecSource::default()
        };
        let spec = Spec::read_new(&source).unwrap_or_else(|e| panic!("{e}"));
        let section = spec.claims.as_ref().unwrap_or_else(|e| panic!("{e}"));
        let expanded = spec
            .expand_claims(section)
            .unwrap_or_else(|e| panic!("{e}"));
        let program = &expanded.program;
        let cell = spec.grid.iter().next().expect("a cell");
        let inputs = program.cell_inputs(&spec.grid, cell).expect("it resolves");

        let steps: Vec<f64> = (1..=losses.len()).map(|at| 10.0 * at as f64).collect();
        let columns = [losses.to_vec()];
        let columns = &columns[..program.metrics().len()];
        let curve = SampledCurve {
            steps: &steps,
            columns,
        };
        let values = program.evaluate_trial(&inputs, curve, EventRounding::Between);
        let root = expanded.claims[0].roots[0];
        let nodes = EvaluatedNodes {
            values: &values,
            steps: &steps,
            cell: &inputs,
        };
        [
            values[root].as_number(),
            program.clear_rounding(root, nodes),
        ]
    }

    const LOSSES: [f64; 4] = [0.7, 0.4, 0.3, 0.1];

    #[test]
    fn what_rounding_leaves_of_parts_that_cancel_is_0() {
        for of in [
            "0.3 - lr - wd",
            "at(train_loss, 30) - at(train_loss, 40) - wd",
            "mean(train_loss/3 + train_loss/3 + train_loss/3 - train_loss)",
            "mean(train_loss)*4 - at(train_loss, 10) - at(train_loss, 20) - at(train_loss, 30) - at(train_loss, 40)",
            "mean(3*train_loss) - 3*mean(train_loss)",
            "sd(train_loss - train_loss*(lr + wd)/0.3)",
        ] {
            let [number, cleared] = evaluate(of, &LOSSES);
            assert!(number.abs() < 1e-15, "{of}: {number}");
            assert_eq!(cleared, 0.0, "{of}: {number}");
        }
        // Some of them must have been no 0, or the test shows nothing.
        assert_ne!(evaluate("0.3 - lr - wd", &LOSSES)[0], 0.0);
    }

    #[test]
    fn small_numbers_that_are_no_rounding_stay() {
        let tiny = [1e3, 1e-3, 1e-9, 1e-18];
        for (of, losses) in [
            ("at(train_loss, 40)", &tiny),
            ("min(train_loss)", &tiny),
            ("at(train_loss, 30)*at(train_loss, 40)", &tiny),
            ("at(train_loss, 10) - 1000*(1 - 1e-13)", &tiny),
            ("1e-30*lr", &tiny),
            (
                "at(train_loss, 10) - at(train_loss, 20)",
                &[0.7, 0.7 - 1e-13, 0.1, 0.1],
            ),
            (
                "ln(abs(at(train_loss, 10) - at(train_loss, 20)))",
                &[0.7, 0.7 - 1e-13, 0.1, 0.1],
            ),
        ] {
            let [number, cleared] = evaluate(of, losses);
            assert!(
                number != 0.0 && number.to_bits() == cleared.to_bits(),
                "{of}: {number} {cleared}"
            );
        }
    }
}
