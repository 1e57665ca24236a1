//! What is computed of each trial for the claims about its cell.

use std::collections::HashMap;

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::quantity::evaluate::AveragedSeries;
use ergodic_common::quantity::program::NodeIndex;
use ergodic_common::quantity::{
    CellInputs, ClaimForm, EventRounding, ExpandedClaims, NodeValue, QuantityProgram, SampledCurve,
    TrialPooling,
};

/// What a claim needs of each trial.
#[derive(Debug, Clone)]
pub(super) struct ClaimJob {
    pub(super) roots: Vec<NodeIndex>,
    pub(super) kind: JobKind,
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
}

/// What a trial gives to a claim.
#[derive(Debug, Clone)]
pub(super) enum TrialValue {
    /// The number with events between samples, before and after them.
    Numbers([f64; 3]),
    /// Series at these steps.
    Series {
        steps: Vec<f64>,
        series: Vec<Vec<f64>>,
    },
    /// A fingerprint.
    Bits(u64),
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
    /// The claims about each cell.
    cells: HashMap<CellIndex, Vec<usize>>,
}

impl<'a> ClaimJobs<'a> {
    pub(super) fn new(spec: &'a Spec, claims: &'a ExpandedClaims) -> Self {
        let program = &claims.program;
        let mut cells: HashMap<CellIndex, Vec<usize>> = HashMap::new();
        let mut jobs = Vec::with_capacity(claims.claims.len());

        for (at, expanded) in claims.claims.iter().enumerate() {
            for cell in expanded.effects.iter().flat_map(|e| e.all_cells()) {
                let about = cells.entry(cell).or_default();
                if about.last() != Some(&at) {
                    about.push(at);
                }
            }

            let kind = match (expanded.claim.form, expanded.claim.per) {
                (ClaimForm::Bits, _) => JobKind::Bits,
                (_, TrialPooling::EachTrial) => JobKind::Numbers,
                (_, TrialPooling::MeanCurve) => JobKind::MeanCurves {
                    series: program.averaged_series(expanded.roots[0]),
                    is_resampled: !program.is_smooth(expanded.roots[0]),
                },
            };
            jobs.push(ClaimJob {
                roots: expanded.roots.clone(),
                kind,
            });
        }

        Self {
            spec,
            program,
            jobs,
            cells,
        }
    }

    /// The claims about a cell; none if it needs no reading.
    pub(super) fn about_cell(&self, cell: CellIndex) -> &[usize] {
        self.cells.get(&cell).map_or(&[], Vec::as_slice)
    }

    /// The cells of all claims.
    pub(super) fn cells(&self) -> impl Iterator<Item = CellIndex> {
        self.cells.keys().copied()
    }

    /// Whether any claim needs resamples.
    pub(super) fn needs_draws(&self) -> bool {
        self.jobs
            .iter()
            .any(|job| matches!(job.kind, JobKind::MeanCurves { is_resampled, .. } if is_resampled))
    }

    /// What a trial gives to these claims.
    pub(super) fn evaluate_trial(
        &self,
        claims: &[usize],
        cell: &CellInputs,
        curve: SampledCurve<'_>,
    ) -> Vec<TrialValue> {
        let jobs = || claims.iter().map(|at| &self.jobs[*at]);
        let has_events =
            jobs().any(|job| job.kind == JobKind::Numbers && self.program.has_events(job.roots[0]));
        let roundings = if has_events {
            &EventRounding::ALL[..]
        } else {
            &EventRounding::ALL[..1]
        };
        let nodes: Vec<Vec<NodeValue>> = roundings
            .iter()
            .map(|rounding| self.program.evaluate_trial(cell, curve, *rounding))
            .collect();

        jobs()
            .map(|job| job.value_of_trial(&nodes, curve.steps))
            .collect()
    }
}

impl ClaimJob {
    fn value_of_trial(&self, nodes: &[Vec<NodeValue>], steps: &[f64]) -> TrialValue {
        match &self.kind {
            JobKind::Numbers => {
                let number = |at: usize| {
                    let of = nodes.get(at).unwrap_or(&nodes[0]);
                    of[self.roots[0]].as_number()
                };
                TrialValue::Numbers([number(0), number(1), number(2)])
            }
            JobKind::MeanCurves { series, .. } => TrialValue::Series {
                steps: steps.to_vec(),
                series: series
                    .iter()
                    .map(|one| one.of_trial(&nodes[0], steps.len()))
                    .collect(),
            },
            // What a trial does not have is equal to nothing.
            JobKind::Bits if self.roots.iter().any(|root| is_undefined(&nodes[0][*root])) => {
                TrialValue::Numbers([f64::NAN; 3])
            }
            JobKind::Bits => TrialValue::Bits(fingerprint_bits(&self.roots, &nodes[0], steps)),
        }
    }
}

fn is_undefined(node: &NodeValue) -> bool {
    matches!(node, NodeValue::Number(x) if x.is_nan())
}

/// A fingerprint of the steps and of the values of some nodes, in which every bit counts.
fn fingerprint_bits(roots: &[NodeIndex], nodes: &[NodeValue], steps: &[f64]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let mut add = |values: &[f64]| {
        for value in values {
            hasher.update(&value.to_bits().to_le_bytes());
        }
    };

    add(steps);
    for root in roots {
        add(&nodes[*root].to_series(steps.len()));
    }

    let hash = hasher.finalize();
    let (head, _) = hash
        .as_bytes()
        .split_first_chunk::<8>()
        .expect("a hash has 32 bytes");
    u64::from_le_bytes(*head)
}
