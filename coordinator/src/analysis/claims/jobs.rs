//! What is computed of each trial for the claims about its cell.

use std::collections::HashMap;

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::quantity::evaluate::{AveragedSeries, EvaluatedTrial, NeededNodes, NodeTable};
use ergodic_common::quantity::program::NodeIndex;
use ergodic_common::quantity::rounding::EvaluatedNodes;
use ergodic_common::quantity::{
    CellInputs, ClaimForm, EventCorner, EventRounding, ExpandedClaim, ExpandedClaims, NodeValue,
    QuantityProgram, SampledCurve, TrialPooling,
};

use super::batches::EffectBatch;
use super::references::{MissingReference, ReferenceCurves};

/// What a claim needs of each trial.
#[derive(Debug, Clone)]
pub(super) struct ClaimJob {
    pub(super) roots: Vec<NodeIndex>,
    pub(super) kind: JobKind,
    /// Where the events of the first quantity may be, if it has several.
    pub(super) corners: Vec<EventCorner>,
    needed: NeededNodes,
}

/// The kind of values that a claim needs.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum JobKind {
    /// One number of each trial.
    Numbers,
    /// Series that are averaged over trials before they are reduced.
    MeanCurves {
        series: Vec<AveragedSeries>,
        is_resampled: bool,
    },
    /// A fingerprint of the bits of curves.
    Bits,
    /// How trials ended; their predictions are read otherwise.
    Ends,
}

/// What a trial gives to a claim.
#[derive(Debug, Clone)]
pub(super) enum TrialValue {
    /// The number with events between samples, and with all of them before and after; the least and the largest number, if several
    /// events may be before or after.
    Numbers([f64; 3]),
    /// Series at these steps.
    Series {
        steps: Vec<f64>,
        series: Vec<Vec<f64>>,
    },
    /// A fingerprint.
    Bits(u64),
    /// No number, because the same repeat of the reference cell has none.
    WithoutReference(MissingReference),
    /// Nothing: predictions are compared.
    Nothing,
}

/// The values of a trial, one for each claim about its cell.
#[derive(Debug, Clone)]
pub(super) struct TrialValues {
    pub(super) repeat: u32,
    pub(super) values: Vec<TrialValue>,
}

/// What is computed for all claims.
pub(super) struct ClaimJobs<'a> {
    pub(super) spec: &'a Spec,
    pub(super) program: &'a QuantityProgram,
    /// One per claim.
    pub(super) jobs: Vec<ClaimJob>,
    /// The claims about each cell, with the cell whose trials it is set against by each.
    cells: HashMap<CellIndex, Vec<(usize, Option<CellIndex>)>>,
}

/// Quantities of a cell's trials.
pub(super) struct CellEvaluation {
    inputs: CellInputs,
    /// One for each cell that trials are set against, and one for none.
    groups: Vec<EvaluationGroup>,
}

/// Claims for which a trial is evaluated at once.
struct EvaluationGroup {
    reference: Option<(CellIndex, CellInputs)>,
    needed: NeededNodes,
    /// Places of the claims among those about the cell.
    places: Vec<usize>,
}

impl<'a> ClaimJobs<'a> {
    /// The jobs of a batch of effects.
    pub(super) fn new(spec: &'a Spec, claims: &'a ExpandedClaims, batch: &EffectBatch) -> Self {
        let program = &claims.program;
        let mut cells: HashMap<CellIndex, Vec<(usize, Option<CellIndex>)>> = HashMap::new();
        for (place, range) in &batch.parts {
            let expanded = &claims.claims[*place];
            for effect in &expanded.effects[range.clone()] {
                let reference = effect.reference.filter(|_| expanded.pairs_trials);
                for cell in expanded.number_cells(effect) {
                    let about = cells.entry(cell).or_default();
                    if about.last().is_none_or(|(last, _)| last != place) {
                        about.push((*place, reference));
                    }
                }
            }
        }

        let jobs = claims.claims.iter().map(|claim| ClaimJob {
            roots: claim.roots.clone(),
            kind: JobKind::of_claim(program, claim),
            corners: claim
                .roots
                .first()
                .map_or_else(Vec::new, |root| program.find_corners(*root)),
            needed: program.find_needed(&claim.roots),
        });
        Self {
            spec,
            program,
            jobs: jobs.collect(),
            cells,
        }
    }

    /// The claims about a cell; none if it needs no reading.
    pub(super) fn about_cell(&self, cell: CellIndex) -> impl ExactSizeIterator<Item = usize> + '_ {
        let about = self.cells.get(&cell).map_or(&[][..], Vec::as_slice);
        about.iter().map(|(claim, _)| *claim)
    }

    /// The cells of all claims.
    pub(super) fn cells(&self) -> impl Iterator<Item = CellIndex> {
        self.cells.keys().copied()
    }

    /// The cells that trials are set against.
    pub(super) fn reference_cells(&self) -> Vec<CellIndex> {
        let all = self.cells.values().flatten();
        let mut cells: Vec<CellIndex> = all.filter_map(|(_, reference)| *reference).collect();
        cells.sort_unstable();
        cells.dedup();
        cells
    }

    /// Whether a quantity of a job is made of accuracies.
    pub(super) fn counts_images(&self, job: &ClaimJob) -> bool {
        let read = self.program.metrics_of(&job.roots);
        let metrics = &self.spec.measure.metrics;
        read.into_iter().any(|at| metrics[at].is_accuracy())
    }

    /// Whether any claim needs resamples.
    pub(super) fn needs_draws(&self) -> bool {
        self.jobs
            .iter()
            .any(|job| matches!(job.kind, JobKind::MeanCurves { is_resampled, .. } if is_resampled))
    }

    /// Prepares the evaluation of a cell's trials. `None` for a cell that cannot be resolved, which a sweep does not have.
    pub(super) fn open_cell(&self, cell: CellIndex) -> Option<CellEvaluation> {
        let about = self.cells.get(&cell)?;
        let mut places: Vec<(Option<CellIndex>, Vec<usize>)> = Vec::new();
        for (place, (_, reference)) in about.iter().enumerate() {
            match places.iter_mut().find(|(known, _)| known == reference) {
                Some((_, group)) => group.push(place),
                None => places.push((*reference, vec![place])),
            }
        }

        let groups = places.into_iter().map(|(reference, places)| {
            let roots = places.iter().flat_map(|at| &self.jobs[about[*at].0].roots);
            let roots: Vec<NodeIndex> = roots.copied().collect();
            Some(EvaluationGroup {
                reference: match reference {
                    Some(cell) => Some((cell, self.read_inputs(cell)?)),
                    None => None,
                },
                needed: self.program.find_needed(&roots),
                places,
            })
        });
        Some(CellEvaluation {
            inputs: self.read_inputs(cell)?,
            groups: groups.collect::<Option<_>>()?,
        })
    }

    fn read_inputs(&self, cell: CellIndex) -> Option<CellInputs> {
        self.program.cell_inputs(&self.spec.grid, cell)
    }

    /// What a trial gives to the claims about its cell.
    pub(super) fn evaluate_trial(
        &self,
        cell: (CellIndex, &CellEvaluation),
        repeat: u32,
        curve: SampledCurve<'_>,
        references: &ReferenceCurves,
    ) -> Vec<TrialValue> {
        let (cell, evaluation) = cell;
        let claims: Vec<usize> = self.about_cell(cell).collect();
        let mut values = vec![TrialValue::Nothing; claims.len()];
        for group in &evaluation.groups {
            let jobs = group.places.iter().map(|at| (*at, &self.jobs[claims[*at]]));
            let jobs: Vec<(usize, &ClaimJob)> = jobs.collect();
            let Some((other_cell, other_inputs)) = &group.reference else {
                self.evaluate_group(group, (&evaluation.inputs, curve, &[]), &jobs, &mut values);
                continue;
            };
            let joined = match references.join(*other_cell, repeat, curve) {
                Ok(joined) => joined,
                Err(missing) => {
                    for at in &group.places {
                        values[*at] = TrialValue::WithoutReference(missing);
                    }
                    continue;
                }
            };

            let other = EvaluatedTrial {
                cell: other_inputs,
                curve: joined.other(),
                other: &[],
            };
            let other = self.program.evaluate_needed(other, &group.needed);
            let own = (&evaluation.inputs, joined.own(), &other[..]);
            self.evaluate_group(group, own, &jobs, &mut values);
        }
        values
    }

    fn evaluate_group(
        &self,
        group: &EvaluationGroup,
        (cell, curve, other): (&CellInputs, SampledCurve<'_>, &[NodeValue]),
        jobs: &[(usize, &ClaimJob)],
        values: &mut [TrialValue],
    ) {
        let trial = EvaluatedTrial { cell, curve, other };
        let nodes = self.program.evaluate_needed(trial, &group.needed);
        let rounded: Vec<NodeTable<'_>> = if group.needed.have_events() {
            let roundings = [EventRounding::Before, EventRounding::After];
            roundings
                .map(|rounding| {
                    self.program
                        .round_events(trial, &nodes, &group.needed, rounding)
                })
                .into()
        } else {
            Vec::new()
        };

        let nodes = EvaluatedNodes {
            values: &nodes,
            steps: curve.steps,
            cell,
        };
        for (at, job) in jobs {
            values[*at] = job.value_of_trial(self.program, (trial, nodes), &rounded);
        }
    }
}

impl CellEvaluation {
    /// What quantities need to know of the cell.
    pub(super) fn inputs(&self) -> &CellInputs {
        &self.inputs
    }
}

impl TrialValue {
    /// Whether a mean curve takes it.
    pub(super) fn is_series(&self) -> bool {
        matches!(self, Self::Series { .. })
    }
}

impl JobKind {
    fn of_claim(program: &QuantityProgram, expanded: &ExpandedClaim) -> Self {
        match (expanded.claim.form, expanded.claim.per) {
            (ClaimForm::Labels, _) => Self::Ends,
            (ClaimForm::Bits, _) => Self::Bits,
            (_, TrialPooling::EachTrial) => Self::Numbers,
            (_, TrialPooling::MeanCurve) => Self::MeanCurves {
                series: program.averaged_series(expanded.roots[0]),
                is_resampled: !program.is_smooth(expanded.roots[0]),
            },
        }
    }
}

impl ClaimJob {
    /// The least and the largest number of a trial, wherever between two samples each of its events is.
    fn find_extremes(
        &self,
        program: &QuantityProgram,
        trial: EvaluatedTrial<'_>,
        between: &[NodeValue],
    ) -> [f64; 2] {
        let root = self.roots[0];
        let numbers = self.corners.iter().map(|corner| {
            let table = program.round_to_corner(trial, between, &self.needed, corner);
            table.value(root).as_number()
        });
        find_least_and_largest(numbers)
    }

    fn value_of_trial(
        &self,
        program: &QuantityProgram,
        (trial, evaluated): (EvaluatedTrial<'_>, EvaluatedNodes<'_>),
        rounded: &[NodeTable<'_>],
    ) -> TrialValue {
        let EvaluatedNodes {
            values: nodes,
            steps,
            ..
        } = evaluated;
        match &self.kind {
            JobKind::Numbers => {
                let root = self.roots[0];
                TrialValue::Numbers(match rounded {
                    _ if !self.corners.is_empty() => {
                        let number = nodes[root].as_number();
                        let [low, high] = self.find_extremes(program, trial, nodes);
                        [number, low, high]
                    }
                    [before, after] => [
                        nodes[root].as_number(),
                        before.value(root).as_number(),
                        after.value(root).as_number(),
                    ],
                    _ => [program.clear_rounding(root, evaluated); 3],
                })
            }
            JobKind::MeanCurves { series, .. } => TrialValue::Series {
                steps: steps.to_vec(),
                series: series
                    .iter()
                    .map(|one| one.of_trial(nodes, steps.len()))
                    .collect(),
            },
            // What a trial does not have, not even at one sample, is equal to nothing.
            JobKind::Bits if self.roots.iter().any(|root| is_undefined(&nodes[*root])) => {
                TrialValue::Numbers([f64::NAN; 3])
            }
            JobKind::Bits => TrialValue::Bits(fingerprint_bits(&self.roots, nodes, steps)),
            JobKind::Ends => TrialValue::Nothing,
        }
    }
}

/// The least and the largest of some numbers; NaN if one is undefined.
pub(super) fn find_least_and_largest(numbers: impl Iterator<Item = f64>) -> [f64; 2] {
    numbers.fold(
        [f64::INFINITY, f64::NEG_INFINITY],
        |[low, high], x| match x.is_nan() || low.is_nan() {
            true => [f64::NAN; 2],
            false => [low.min(x), high.max(x)],
        },
    )
}

fn is_undefined(node: &NodeValue) -> bool {
    match node {
        NodeValue::Number(x) => x.is_nan(),
        NodeValue::Series(values) => values.iter().all(|x| x.is_nan()),
    }
}

/// A fingerprint of the steps and of the values of some nodes, in which every bit counts.
fn fingerprint_bits(roots: &[NodeIndex], nodes: &[NodeValue], steps: &[f64]) -> u64 {
    let length = steps.len();
    let mut bytes = Vec::with_capacity(size_of_val(steps) * (1 + roots.len()));
    bytes.extend(steps.iter().flat_map(|step| step.to_le_bytes()));
    for root in roots {
        let values = nodes[*root].to_series(length);
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    let hash = blake3::hash(&bytes);
    let (head, _) = hash
        .as_bytes()
        .split_first_chunk::<8>()
        .expect("a hash has 32 bytes");
    u64::from_le_bytes(*head)
}
