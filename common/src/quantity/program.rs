//! Quantities as a list of nodes, each of which uses earlier ones.

use crate::config::TrialConfig;
use crate::expr::Expr;
use crate::grid::Grid;
use crate::ids::CellIndex;
use crate::quantity::cell_names::{CellValues, ComparedName};
use crate::quantity::reduce::Reducer;

/// Index of a node in its program.
pub type NodeIndex = usize;

/// The nodes of all quantities that some claims use.
#[derive(Debug, Clone, Default)]
pub struct QuantityProgram {
    pub(super) nodes: Vec<QuantityNode>,
    /// Columns of the metrics that nodes name, in the order of `[measure]`.
    pub(super) metrics: Vec<usize>,
    /// Names of the cell that nodes use.
    pub(super) cell_names: Vec<ComparedName>,
}

/// A part of a quantity.
#[derive(Debug, Clone)]
pub(super) enum QuantityNode {
    /// A metric, by its index among those of the program.
    Metric(usize),
    /// The number of completed steps.
    Step,
    /// The number of completed epochs.
    Epoch,
    /// The number of images seen.
    ImagesSeen,
    /// A number of the cell, by its index among the names of the program.
    Cell(usize),
    /// The step at which the first entry of the schedule begins to apply.
    Decay,
    /// The last step.
    End,
    /// The step after a share of the trial, in percent.
    Share(f64),
    /// The step after a number of epochs.
    Epochs(f64),
    /// The step that lies this node's number of steps before the end.
    BeforeEnd(NodeIndex),
    /// An expression of nodes.
    Formula {
        expr: Expr,
        inputs: Vec<NodeIndex>,
        is_series: bool,
    },
    /// A series reduced to a number.
    Reduction(Reduction),
    /// The value of a node in the same repeat of the reference cell.
    Other(NodeIndex),
}

/// A call of a reducer.
#[derive(Debug, Clone)]
pub(super) struct Reduction {
    pub(super) reducer: Reducer,
    pub(super) of: NodeIndex,
    /// The x of a slope.
    pub(super) over: Option<NodeIndex>,
    /// The moment of `at` and `jump`, the p of `quantile`, the tolerance of `settle`.
    pub(super) number: Option<NodeIndex>,
    pub(super) from: Option<NodeIndex>,
    pub(super) to: Option<NodeIndex>,
}

/// What quantities need to know of a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct CellInputs {
    /// Values of the program's names.
    pub(super) numbers: Vec<f64>,
    /// Number of steps of a trial; NaN for a program, whose trials end where they do.
    pub(super) end: f64,
    /// Number of steps of an epoch.
    pub(super) steps_per_epoch: f64,
    /// Number of images of a step.
    pub(super) batch_size: f64,
    /// The step of the first entry of the schedule; NaN without one.
    pub(super) decay: f64,
}

impl CellInputs {
    /// The inputs of a cell of a program, which has neither a length known before nor epochs.
    fn of_program(numbers: Vec<f64>) -> Self {
        Self {
            numbers,
            end: f64::NAN,
            steps_per_epoch: f64::NAN,
            batch_size: f64::NAN,
            decay: f64::NAN,
        }
    }

    /// Number of steps of a trial, after which its last sample is; NaN for a program, before there is a trial.
    pub fn end(&self) -> f64 {
        self.end
    }

    /// The last step of a trial with these samples.
    pub fn end_of_samples(&self, steps: &[f64]) -> f64 {
        match self.is_of_program() {
            true => steps.last().copied().unwrap_or(f64::NAN),
            false => self.end,
        }
    }

    /// Whether trials are those of a program: they end where it ends, and not every sample has every metric.
    pub fn is_of_program(&self) -> bool {
        self.end.is_nan()
    }
}

impl QuantityProgram {
    /// The metrics that it reads, as indices into those of `[measure]`.
    pub fn metrics(&self) -> &[usize] {
        &self.metrics
    }

    /// The metrics that some nodes read, each once, as indices into those of `[measure]`.
    pub fn metrics_of(&self, roots: &[NodeIndex]) -> Vec<usize> {
        let mut columns = Vec::new();
        for root in roots {
            let used = self.used_nodes(*root);
            let nodes = self.nodes.iter().zip(used).filter(|(_, is_used)| *is_used);
            columns.extend(nodes.filter_map(|(node, _)| match node {
                QuantityNode::Metric(at) => Some(self.metrics[*at]),
                _ => None,
            }));
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// What it needs to know of a cell. `None` for a cell that cannot be resolved, which a sweep does not have.
    pub fn cell_inputs(&self, grid: &Grid, cell: CellIndex) -> Option<CellInputs> {
        let config = grid.resolve_config(cell).ok()?;
        let values = CellValues::new(grid, cell);
        let numbers = self.cell_names.iter();
        let numbers = numbers.map(|name| values.number(name)).collect();
        if config.model.kind.program().is_some() {
            return Some(CellInputs::of_program(numbers));
        }
        Some(CellInputs {
            numbers,
            end: config.total_steps() as f64,
            steps_per_epoch: config.steps_per_epoch() as f64,
            batch_size: f64::from(config.effective_batch_size()),
            decay: first_change(&config),
        })
    }

    pub(super) fn is_series(&self, node: NodeIndex) -> bool {
        match &self.nodes[node] {
            QuantityNode::Metric(_)
            | QuantityNode::Step
            | QuantityNode::Epoch
            | QuantityNode::ImagesSeen => true,
            QuantityNode::Formula { is_series, .. } => *is_series,
            QuantityNode::Other(of) => self.is_series(*of),
            _ => false,
        }
    }

    /// Whether a node is true or false rather than a number.
    pub(super) fn is_condition(&self, node: NodeIndex) -> bool {
        match &self.nodes[node] {
            QuantityNode::Formula { expr, .. } => expr.is_condition(),
            QuantityNode::Other(of) => self.is_condition(*of),
            _ => false,
        }
    }

    /// Which of the nodes up to `root` it uses, itself among them.
    pub(super) fn used_nodes(&self, root: NodeIndex) -> Vec<bool> {
        // A node uses earlier ones, so one pass backwards finds all.
        let mut used = vec![false; root + 1];
        used[root] = true;
        for at in (0..=root).rev() {
            if used[at] {
                let inputs = self.nodes[at].inputs();
                inputs.into_iter().for_each(|input| used[input] = true);
            }
        }

        used
    }

    fn any_used(&self, root: NodeIndex, property: impl Fn(&QuantityNode) -> bool) -> bool {
        let mut nodes = self.nodes.iter().zip(self.used_nodes(root));
        nodes.any(|(node, is_used)| is_used && property(node))
    }

    /// Whether a number depends on a step between two samples.
    pub fn has_events(&self, root: NodeIndex) -> bool {
        self.any_used(root, |node| match node {
            QuantityNode::Reduction(reduction) => reduction.reducer.is_event(),
            _ => false,
        })
    }

    /// Whether a value depends on more than the sample that it belongs to.
    pub fn has_reducers(&self, root: NodeIndex) -> bool {
        self.any_used(root, |node| matches!(node, QuantityNode::Reduction(_)))
    }

    /// Whether a small change of the curves changes a number by little.
    pub fn is_smooth(&self, root: NodeIndex) -> bool {
        !self.any_used(root, |node| match node {
            QuantityNode::Reduction(reduction) => !reduction.reducer.is_smooth(),
            QuantityNode::Formula { expr, .. } => expr.is_condition(),
            _ => false,
        })
    }

    /// Whether a node needs the trial of a reference cell.
    pub fn uses_other(&self, root: NodeIndex) -> bool {
        self.any_used(root, |node| matches!(node, QuantityNode::Other(_)))
    }

    /// Whether a number depends on where a trial ends.
    pub(super) fn uses_end(&self, root: NodeIndex) -> bool {
        self.any_used(root, |node| {
            matches!(
                node,
                QuantityNode::End | QuantityNode::Share(_) | QuantityNode::BeforeEnd(_)
            )
        })
    }

    /// Whether a number depends on more of a cell than the number of its steps and their size.
    pub(super) fn depends_on_cell(&self, root: NodeIndex) -> bool {
        self.any_used(root, |node| {
            matches!(node, QuantityNode::Cell(_) | QuantityNode::Decay)
        })
    }

    /// Whether a value depends on the step of its sample.
    pub(super) fn uses_step(&self, root: NodeIndex) -> bool {
        self.any_used(root, |node| matches!(node, QuantityNode::Step))
    }

    /// Whether a node depends on what is measured.
    pub(super) fn needs_trial(&self, root: NodeIndex) -> bool {
        self.any_used(root, |node| {
            matches!(node, QuantityNode::Metric(_)) || node.needs_trial()
        })
    }

    /// Whether a number is known without any trial.
    pub(super) fn is_static(&self, root: NodeIndex) -> bool {
        !self.is_series(root) && !self.any_used(root, QuantityNode::needs_trial)
    }
}

impl QuantityNode {
    fn needs_trial(&self) -> bool {
        matches!(self, Self::Reduction(_) | Self::Other(_))
    }

    /// The nodes that it uses, all before it.
    pub(super) fn inputs(&self) -> Vec<NodeIndex> {
        match self {
            Self::Formula { inputs, .. } => inputs.clone(),
            Self::BeforeEnd(node) | Self::Other(node) => vec![*node],
            Self::Reduction(reduction) => {
                let others = [
                    reduction.over,
                    reduction.number,
                    reduction.from,
                    reduction.to,
                ];
                std::iter::once(reduction.of)
                    .chain(others.into_iter().flatten())
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The step of the first entry of the schedule; NaN without one.
fn first_change(config: &TrialConfig) -> f64 {
    let entries = config.train.schedule.iter();
    let steps = entries.map(|entry| config.length_in_steps(entry.from) as f64);
    steps.fold(f64::NAN, f64::min)
}
