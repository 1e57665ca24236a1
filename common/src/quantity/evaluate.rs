//! Evaluates quantities on the samples of one trial, or on the mean samples of several.

use std::borrow::Cow;

use crate::expr::{Expr, SeriesInput};
use crate::quantity::events::{EventCorner, EventRounding};
use crate::quantity::program::{CellInputs, NodeIndex, QuantityNode, QuantityProgram, Reduction};
use crate::quantity::reduce::{Reducer, Samples};

/// The samples of a trial.
#[derive(Debug, Clone, Copy)]
pub struct SampledCurve<'a> {
    /// Numbers of completed steps, ascending.
    pub steps: &'a [f64],
    /// One column for each of [`QuantityProgram::metrics`], as long as `steps`.
    pub columns: &'a [Vec<f64>],
}

/// A trial, for which quantities are evaluated.
#[derive(Debug, Clone, Copy)]
pub struct EvaluatedTrial<'a> {
    /// The cell of the trial.
    pub cell: &'a CellInputs,
    /// The samples of the trial.
    pub curve: SampledCurve<'a>,
    /// Values of the nodes in the same repeat of the reference cell, sampled at the same steps; empty without one.
    pub other: &'a [NodeValue],
}

/// The nodes that some quantities need.
#[derive(Debug, Clone, Default)]
pub struct NeededNodes {
    used: Vec<bool>,
    /// Which of them depend on where an event is taken to be.
    of_events: Vec<bool>,
}

/// The values of nodes in a trial.
#[derive(Debug)]
pub struct NodeTable<'a> {
    /// The values that an earlier table has.
    earlier: &'a [NodeValue],
    /// The values that differ from those.
    own: Vec<Option<NodeValue>>,
}

/// The value of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeValue {
    /// One number; NaN if it is undefined.
    Number(f64),
    /// One number per sample.
    Series(Vec<f64>),
}

/// A series whose mean over trials a quantity of mean curves needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AveragedSeries(NodeIndex);

impl NodeValue {
    /// The number; NaN for a series.
    pub fn as_number(&self) -> f64 {
        match self {
            Self::Number(x) => *x,
            Self::Series(_) => f64::NAN,
        }
    }

    fn as_input(&self) -> SeriesInput<'_> {
        match self {
            Self::Number(x) => SeriesInput::Number(*x),
            Self::Series(values) => SeriesInput::Series(values),
        }
    }

    /// One number per sample; a single number is that of each.
    pub fn to_series(&self, length: usize) -> Vec<f64> {
        match self {
            Self::Number(x) => vec![*x; length],
            Self::Series(values) => values.clone(),
        }
    }
}

impl NeededNodes {
    /// Whether any number depends on where an event is taken to be.
    pub fn have_events(&self) -> bool {
        self.of_events.contains(&true)
    }
}

impl NodeTable<'_> {
    /// The value of a node.
    pub fn value(&self, node: NodeIndex) -> &NodeValue {
        match self.own.get(node) {
            Some(Some(value)) => value,
            _ => &self.earlier[node],
        }
    }

    fn number(&self, node: NodeIndex) -> f64 {
        self.value(node).as_number()
    }

    fn series(&self, node: NodeIndex, length: usize) -> Cow<'_, [f64]> {
        match self.value(node) {
            NodeValue::Series(values) => Cow::Borrowed(values),
            NodeValue::Number(x) => Cow::Owned(vec![*x; length]),
        }
    }
}

impl QuantityProgram {
    /// Evaluates all nodes on the samples of a trial.
    pub fn evaluate_trial(
        &self,
        cell: &CellInputs,
        curve: SampledCurve<'_>,
        rounding: EventRounding,
    ) -> Vec<NodeValue> {
        let trial = EvaluatedTrial {
            cell,
            curve,
            other: &[],
        };
        let all = vec![true; self.nodes.len()];
        let table = self.evaluate_marked(trial, &[], &all, &|_| rounding);
        table.own.into_iter().flatten().collect()
    }

    /// Finds the nodes that some quantities need.
    pub fn find_needed(&self, roots: &[NodeIndex]) -> NeededNodes {
        let mut needed = NeededNodes {
            used: vec![false; self.nodes.len()],
            of_events: vec![false; self.nodes.len()],
        };
        for root in roots {
            let used = self.used_nodes(*root).into_iter();
            for (all, is_used) in needed.used.iter_mut().zip(used) {
                *all |= is_used;
            }
        }

        for (at, node) in self.nodes.iter().enumerate() {
            let has_event =
                matches!(node, QuantityNode::Reduction(reduction) if reduction.reducer.is_event());
            let mut inputs = node.inputs().into_iter();
            needed.of_events[at] =
                needed.used[at] && (has_event || inputs.any(|input| needed.of_events[input]));
        }
        needed
    }

    /// Evaluates the nodes that some quantities need, with events between samples. Others are undefined.
    pub fn evaluate_needed(
        &self,
        trial: EvaluatedTrial<'_>,
        needed: &NeededNodes,
    ) -> Vec<NodeValue> {
        let table = self.evaluate_marked(trial, &[], &needed.used, &|_| EventRounding::Between);
        let undefined = NodeValue::Number(f64::NAN);
        let values = table.own.into_iter();
        values
            .map(|value| value.unwrap_or_else(|| undefined.clone()))
            .collect()
    }

    /// Evaluates anew what depends on where events are taken to be, given the values with events between samples.
    pub fn round_events<'a>(
        &self,
        trial: EvaluatedTrial<'_>,
        between: &'a [NodeValue],
        needed: &NeededNodes,
        rounding: EventRounding,
    ) -> NodeTable<'a> {
        self.evaluate_marked(trial, between, &needed.of_events, &|_| rounding)
    }

    /// Evaluates anew what depends on events, each of which is at a sample of its own.
    pub fn round_to_corner<'a>(
        &self,
        trial: EvaluatedTrial<'_>,
        between: &'a [NodeValue],
        needed: &NeededNodes,
        corner: &EventCorner,
    ) -> NodeTable<'a> {
        self.evaluate_marked(trial, between, &needed.of_events, &|at| corner.round_at(at))
    }

    fn evaluate_marked<'a>(
        &self,
        trial: EvaluatedTrial<'_>,
        earlier: &'a [NodeValue],
        marked: &[bool],
        round_at: &dyn Fn(NodeIndex) -> EventRounding,
    ) -> NodeTable<'a> {
        let mut table = NodeTable {
            earlier,
            own: Vec::with_capacity(self.nodes.len()),
        };
        for (at, node) in self.nodes.iter().enumerate() {
            let value = marked[at].then(|| self.evaluate_node(node, trial, &table, round_at(at)));
            table.own.push(value);
        }
        table
    }

    fn evaluate_node(
        &self,
        node: &QuantityNode,
        trial: EvaluatedTrial<'_>,
        known: &NodeTable<'_>,
        rounding: EventRounding,
    ) -> NodeValue {
        let EvaluatedTrial { cell, curve, .. } = trial;
        let steps = curve.steps.iter();
        match node {
            QuantityNode::Metric(at) => NodeValue::Series(curve.columns[*at].clone()),
            QuantityNode::Step => NodeValue::Series(curve.steps.to_vec()),
            QuantityNode::Epoch => {
                NodeValue::Series(steps.map(|step| step / cell.steps_per_epoch).collect())
            }
            QuantityNode::ImagesSeen => {
                NodeValue::Series(steps.map(|step| step * cell.batch_size).collect())
            }
            QuantityNode::Other(of) => match trial.other.get(*of) {
                Some(value) => value.clone(),
                None if self.is_series(*of) => NodeValue::Series(vec![f64::NAN; steps.len()]),
                None => NodeValue::Number(f64::NAN),
            },
            QuantityNode::Formula {
                expr,
                inputs,
                is_series,
            } => {
                let inputs: Vec<&NodeValue> = inputs.iter().map(|at| known.value(*at)).collect();
                evaluate_formula(expr, &inputs, is_series.then_some(curve.steps.len()))
            }
            QuantityNode::Reduction(reduction) => NodeValue::Number(reduce_series(
                reduction,
                (curve.steps, cell),
                (&|at| known.number(at), &|at| {
                    known.series(at, curve.steps.len())
                }),
                rounding,
            )),
            other => NodeValue::Number(cell_number(other, (cell, curve.steps), &|at| {
                known.number(at)
            })),
        }
    }

    /// The series whose means a quantity of mean curves needs: the arguments of its outermost reducers, and in place of a
    /// condition what it compares.
    pub fn averaged_series(&self, root: NodeIndex) -> Vec<AveragedSeries> {
        let mut found = Vec::new();
        for at in self.outer_nodes(root) {
            if let QuantityNode::Reduction(reduction) = &self.nodes[at] {
                let arguments = std::iter::once(reduction.of).chain(reduction.over);
                found.extend(arguments.flat_map(|of| self.compared_series(of)));
            }
        }

        found.sort_unstable();
        found.dedup();
        found
    }

    /// The nodes that stand outside of the arguments of reducers, in order.
    fn outer_nodes(&self, root: NodeIndex) -> Vec<NodeIndex> {
        let mut is_outer = vec![false; root + 1];
        is_outer[root] = true;
        for at in (0..=root).rev() {
            if !is_outer[at] {
                continue;
            }
            match &self.nodes[at] {
                QuantityNode::Reduction(reduction) => {
                    let ends = [reduction.number, reduction.from, reduction.to];
                    ends.into_iter()
                        .flatten()
                        .for_each(|end| is_outer[end] = true);
                }
                node => node
                    .inputs()
                    .into_iter()
                    .for_each(|input| is_outer[input] = true),
            }
        }

        (0..=root).filter(|at| is_outer[*at]).collect()
    }

    fn compared_series(&self, node: NodeIndex) -> Vec<AveragedSeries> {
        match &self.nodes[node] {
            QuantityNode::Formula { expr, inputs, .. } if expr.is_condition() => {
                inputs.iter().map(|at| AveragedSeries(*at)).collect()
            }
            _ => vec![AveragedSeries(node)],
        }
    }

    /// Evaluates a number on mean samples. `mean` gives those of each of [`Self::averaged_series`], and `round_at` where the event of a
    /// node is taken to be.
    pub fn evaluate_mean<'a>(
        &self,
        root: NodeIndex,
        cell: &CellInputs,
        steps: &[f64],
        mean: &dyn Fn(AveragedSeries) -> &'a [f64],
        round_at: &dyn Fn(NodeIndex) -> EventRounding,
    ) -> f64 {
        let mut values = vec![f64::NAN; root + 1];
        for at in self.outer_nodes(root) {
            let number = |at: NodeIndex| values[at];
            values[at] = match &self.nodes[at] {
                QuantityNode::Formula { expr, inputs, .. } => {
                    let inputs: Vec<f64> = inputs.iter().map(|at| values[*at]).collect();
                    expr.eval(&inputs)
                }
                QuantityNode::Reduction(reduction) => {
                    let series = |at: NodeIndex| self.mean_argument(at, steps.len(), mean);
                    reduce_series(reduction, (steps, cell), (&number, &series), round_at(at))
                }
                other => cell_number(other, (cell, steps), &number),
            };
        }

        values[root]
    }

    fn mean_argument<'a>(
        &self,
        node: NodeIndex,
        length: usize,
        mean: &dyn Fn(AveragedSeries) -> &'a [f64],
    ) -> Cow<'a, [f64]> {
        match &self.nodes[node] {
            QuantityNode::Formula { expr, inputs, .. } if expr.is_condition() => {
                let inputs = inputs
                    .iter()
                    .map(|at| SeriesInput::Series(mean(AveragedSeries(*at))));
                Cow::Owned(expr.eval_series(&inputs.collect::<Vec<_>>(), length))
            }
            _ => Cow::Borrowed(mean(AveragedSeries(node))),
        }
    }
}

impl AveragedSeries {
    /// The values of the series in a trial whose nodes have these values.
    pub fn of_trial(self, nodes: &[NodeValue], length: usize) -> Vec<f64> {
        nodes[self.0].to_series(length)
    }
}

fn evaluate_formula(expr: &Expr, inputs: &[&NodeValue], length: Option<usize>) -> NodeValue {
    match length {
        None => {
            let values: Vec<f64> = inputs.iter().map(|input| input.as_number()).collect();
            NodeValue::Number(expr.eval(&values))
        }
        Some(length) => {
            let inputs = inputs.iter().map(|input| input.as_input());
            NodeValue::Series(expr.eval_series(&inputs.collect::<Vec<_>>(), length))
        }
    }
}

/// The number of a node that needs no samples, but for the end of a program's trial.
fn cell_number(
    node: &QuantityNode,
    (cell, steps): (&CellInputs, &[f64]),
    number: &dyn Fn(NodeIndex) -> f64,
) -> f64 {
    match node {
        QuantityNode::Cell(at) => cell.numbers[*at],
        QuantityNode::Decay => cell.decay,
        QuantityNode::End => cell.end_of_samples(steps),
        QuantityNode::Share(percent) => percent * cell.end_of_samples(steps) / 100.0,
        QuantityNode::Epochs(count) => count * cell.steps_per_epoch,
        QuantityNode::BeforeEnd(length) => cell.end_of_samples(steps) - number(*length),
        _ => f64::NAN,
    }
}

/// Gives numbers, and series, of nodes.
pub(super) type NodeLookup<'a, 'b> = (
    &'a dyn Fn(NodeIndex) -> f64,
    &'a dyn Fn(NodeIndex) -> Cow<'b, [f64]>,
);

/// Reduces a series, sampled at `steps` of a trial of a cell.
pub(super) fn reduce_series(
    reduction: &Reduction,
    (steps, cell): (&[f64], &CellInputs),
    (number, series): NodeLookup<'_, '_>,
    rounding: EventRounding,
) -> f64 {
    let bound = |end: Option<NodeIndex>, absent: f64| end.map_or(absent, number);
    let from = bound(reduction.from, f64::NEG_INFINITY);
    let to = bound(reduction.to, f64::INFINITY);
    // A window that begins at an event which never came has no samples.
    if from.is_nan() || to.is_nan() {
        return f64::NAN;
    }

    let values = series(reduction.of);
    // A program may report each metric at steps of its own: samples without the value are none.
    let reported = cell
        .is_of_program()
        .then(|| defined_samples(steps, &values));
    let (own_steps, own_values) = match &reported {
        Some((steps, values)) => (&steps[..], &values[..]),
        None => (steps, &values[..]),
    };
    let all = Samples {
        steps: own_steps,
        values: own_values,
    };
    let window = all.within(from, to);
    let parameter = bound(reduction.number, f64::NAN);
    match reduction.reducer {
        Reducer::At => all.value_at(parameter),
        Reducer::Mean => window.mean(),
        Reducer::Min => window.min(),
        Reducer::Max => window.max(),
        Reducer::Sd => window.sd(),
        Reducer::Quantile => window.quantile(parameter),
        Reducer::Jump => all.jump(parameter),
        Reducer::First => rounding.round(window.first()),
        Reducer::Count => window.count(),
        Reducer::Settle => rounding.round(all.settle(parameter, cell.end_of_samples(steps))),
        Reducer::Slope => {
            // Pairs lie at the same steps, and those without a value are left out.
            let [x, y] = [
                reduction.over.map(series).unwrap_or_default(),
                values.clone(),
            ];
            let [x, y] = [&x, &y].map(|values| Samples { steps, values }.within(from, to));
            y.slope_over(x)
        }
    }
}

/// The steps and values of the samples that have a value.
fn defined_samples(steps: &[f64], values: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let samples = steps.iter().copied().zip(values.iter().copied());
    samples.filter(|(_, x)| !x.is_nan()).unzip()
}
