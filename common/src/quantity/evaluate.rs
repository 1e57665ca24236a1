//! Evaluates quantities on the samples of one trial, or on the mean samples of several.

use std::borrow::Cow;

use crate::expr::Expr;
use crate::quantity::program::{CellInputs, NodeIndex, QuantityNode, QuantityProgram, Reduction};
use crate::quantity::reduce::{EventStep, Reducer, Samples};

/// The samples of a trial.
#[derive(Debug, Clone, Copy)]
pub struct SampledCurve<'a> {
    /// Numbers of completed steps, ascending.
    pub steps: &'a [f64],
    /// One column for each of [`QuantityProgram::metrics`], as long as `steps`.
    pub columns: &'a [Vec<f64>],
}

/// The value of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeValue {
    /// One number; NaN if it is undefined.
    Number(f64),
    /// One number per sample.
    Series(Vec<f64>),
}

/// Where an event between two samples is taken to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventRounding {
    /// Between the samples, in a straight line.
    Between,
    /// At the last sample before it.
    Before,
    /// At the first sample after it.
    After,
}

impl EventRounding {
    /// All of them, the number itself first.
    pub const ALL: [Self; 3] = [Self::Between, Self::Before, Self::After];

    fn round(self, event: Option<EventStep>) -> f64 {
        event.map_or(f64::NAN, |event| match self {
            Self::Between => event.between,
            Self::Before => event.before,
            Self::After => event.after,
        })
    }
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

    fn at_sample(&self, sample: usize) -> f64 {
        match self {
            Self::Number(x) => *x,
            Self::Series(values) => values[sample],
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

impl QuantityProgram {
    /// Evaluates all nodes on the samples of a trial.
    pub fn evaluate_trial(
        &self,
        cell: &CellInputs,
        curve: SampledCurve<'_>,
        rounding: EventRounding,
    ) -> Vec<NodeValue> {
        let mut values: Vec<NodeValue> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let value = self.evaluate_node(node, cell, curve, (&values, rounding));
            values.push(value);
        }
        values
    }

    fn evaluate_node(
        &self,
        node: &QuantityNode,
        cell: &CellInputs,
        curve: SampledCurve<'_>,
        (earlier, rounding): (&[NodeValue], EventRounding),
    ) -> NodeValue {
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
            QuantityNode::Formula {
                expr,
                inputs,
                is_series,
            } => {
                let inputs: Vec<&NodeValue> = inputs.iter().map(|at| &earlier[*at]).collect();
                evaluate_formula(expr, &inputs, is_series.then_some(curve.steps.len()))
            }
            QuantityNode::Reduction(reduction) => {
                let number = |at: NodeIndex| earlier[at].as_number();
                let series = |at: NodeIndex| match &earlier[at] {
                    NodeValue::Series(values) => Cow::Borrowed(&values[..]),
                    NodeValue::Number(x) => Cow::Owned(vec![*x; curve.steps.len()]),
                };
                NodeValue::Number(reduce_series(
                    reduction,
                    (curve.steps, cell.end),
                    (&number, &series),
                    rounding,
                ))
            }
            other => NodeValue::Number(cell_number(other, cell, &|at| earlier[at].as_number())),
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

    /// Evaluates a number on mean samples. `mean` gives those of each of [`Self::averaged_series`].
    pub fn evaluate_mean<'a>(
        &self,
        root: NodeIndex,
        cell: &CellInputs,
        steps: &[f64],
        mean: &dyn Fn(AveragedSeries) -> &'a [f64],
        rounding: EventRounding,
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
                    reduce_series(reduction, (steps, cell.end), (&number, &series), rounding)
                }
                other => cell_number(other, cell, &number),
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
                let inputs: Vec<&[f64]> =
                    inputs.iter().map(|at| mean(AveragedSeries(*at))).collect();
                let at_sample = |i: usize| {
                    let values: Vec<f64> = inputs.iter().map(|series| series[i]).collect();
                    expr.eval(&values)
                };
                Cow::Owned((0..length).map(at_sample).collect())
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
    let mut values = vec![0.0; inputs.len()];
    let Some(length) = length else {
        for (value, input) in values.iter_mut().zip(inputs) {
            *value = input.as_number();
        }
        return NodeValue::Number(expr.eval(&values));
    };

    let mut series = Vec::with_capacity(length);
    for sample in 0..length {
        for (value, input) in values.iter_mut().zip(inputs) {
            *value = input.at_sample(sample);
        }
        series.push(expr.eval(&values));
    }
    NodeValue::Series(series)
}

/// The number of a node that needs no samples.
fn cell_number(node: &QuantityNode, cell: &CellInputs, number: &dyn Fn(NodeIndex) -> f64) -> f64 {
    match node {
        QuantityNode::Cell(at) => cell.numbers[*at],
        QuantityNode::Decay => cell.decay,
        QuantityNode::End => cell.end,
        QuantityNode::Share(percent) => percent * cell.end / 100.0,
        QuantityNode::Epochs(count) => count * cell.steps_per_epoch,
        QuantityNode::BeforeEnd(length) => cell.end - number(*length),
        _ => f64::NAN,
    }
}

/// Gives numbers, and series, of nodes.
type NodeLookup<'a, 'b> = (
    &'a dyn Fn(NodeIndex) -> f64,
    &'a dyn Fn(NodeIndex) -> Cow<'b, [f64]>,
);

/// Reduces a series, sampled at `steps` of a trial that ends at step `end`.
fn reduce_series(
    reduction: &Reduction,
    (steps, end): (&[f64], f64),
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
    let values = &values;
    let all = Samples { steps, values };
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
        Reducer::Settle => rounding.round(all.settle(parameter, end)),
        Reducer::Slope => {
            let x = reduction.over.map(series).unwrap_or_default();
            let values = &x;
            window.slope_over(Samples { steps, values }.within(from, to))
        }
    }
}

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
