//! Queries of distances, checked against a sweep and against limits on the work.

use ergodic_common::Spec;
use ergodic_common::config::Length;
use ergodic_common::ids::CellIndex;
use ergodic_common::number_format::format_count;
use ergodic_common::spec::{MAX_PREDICTIONS, Moment, Probe};

use crate::analysis::distance::split_half;
use crate::analysis::error::AnalysisError;
use crate::analysis::lookup::{CellSelector, find_cell};

/// The parameters of a query.
#[derive(Debug, Clone, Copy)]
pub struct DistanceParams<'a> {
    /// Two cells; empty for all pairs.
    pub between: &'a [CellSelector],
    /// The moment. Empty means every moment for two cells, and the last one otherwise.
    pub at: &'a str,
    /// Number of random swap patterns in the test between two cells.
    pub permutations: u32,
}

/// The parameters of a query, checked against a sweep.
#[derive(Debug, Clone)]
pub struct DistanceQuery {
    pub(super) cells: Vec<CellIndex>,
    /// The moments; none for every step of two cells that the trials of a program reported.
    pub(super) moments: Vec<Moment>,
    /// Number of points; 0 as long as that of a program is not known.
    pub(super) points: usize,
    /// Whether the trials are a program, or an experiment.
    pub(super) is_of_program: bool,
    /// Number of swap patterns, if there is a test.
    pub(super) permutations: Option<u32>,
}

/// Maximum number of cells that are compared in pairs.
pub const MAX_CELLS: usize = 64;

/// Maximum bytes of predictions in memory.
const MAX_BYTES: u64 = 64 << 20;

/// Maximum number of sums for one answer, about a minute on two cores.
const MAX_SUMS: u64 = 400_000_000_000;

/// Maximum number of swaps of single repeats; a byte holds six.
const MAX_SWAPS: u64 = 400_000_000;

/// Minimum and maximum number of random swap patterns.
const PERMUTATION_LIMITS: std::ops::RangeInclusive<u32> = 99..=99_999;

fn find_pair(spec: &Spec, between: &[CellSelector]) -> Result<Vec<CellIndex>, AnalysisError> {
    let cells = between
        .iter()
        .map(|choice| find_cell(spec, choice))
        .collect::<Result<Vec<CellIndex>, AnalysisError>>()?;
    match cells[..] {
        [a, b] if a != b => Ok(cells),
        [a, _] => {
            let message = format!(
                "both cells are {}: the distance of a cell to itself is the null, which is printed beside every distance",
                spec.grid.describe_cell(a)
            );
            Err(AnalysisError::Invalid(message))
        }
        _ => Err(AnalysisError::Invalid(
            "between: expected two cells, or none for all pairs of cells".into(),
        )),
    }
}

fn list_all_cells(spec: &Spec) -> Result<Vec<CellIndex>, AnalysisError> {
    let cells: Vec<CellIndex> = spec.grid.iter().take(MAX_CELLS + 1).collect();
    match cells.len() {
        ..=1 => Err(AnalysisError::Unknown(
            "the sweep has only one cell: a distance needs two".into(),
        )),
        n if n > MAX_CELLS => {
            let message = format!(
                "all pairs of {} cells are too many: at most {MAX_CELLS} cells; name two of them, as in --between lr=0.1 \
                 lr=0.2",
                spec.grid.cell_count()
            );
            Err(AnalysisError::Invalid(message))
        }
        _ => Ok(cells),
    }
}

/// The single moments at which predictions are kept.
fn list_moments(spec: &Spec, probe: &Probe, cell: CellIndex) -> Vec<Moment> {
    let config = spec.grid.resolve_config(cell).ok();
    let moments = probe.at.iter();
    match config {
        Some(config) => moments.flat_map(|moment| moment.expand(&config)).collect(),
        None => moments.copied().collect(),
    }
}

/// Finds the moment that a user means, among those with stored predictions.
fn find_moment(
    spec: &Spec,
    kept: &[Moment],
    cell: CellIndex,
    at: &str,
) -> Result<Moment, AnalysisError> {
    let config = spec.grid.resolve_config(cell).ok();
    let found = Moment::parse(at).and_then(|wanted| {
        kept.iter().find(|moment| {
            **moment == wanted
                || config
                    .as_ref()
                    .is_some_and(|c| moment.step_in_trial(c) == wanted.step_in_trial(c))
        })
    });
    found.copied().ok_or_else(|| {
        let known: Vec<String> = kept
            .iter()
            .map(|moment| format!("\"{}\"", describe_moment(*moment)))
            .collect();
        AnalysisError::Unknown(format!(
            "no predictions are kept at '{at}', only at {}",
            known.join(", ")
        ))
    })
}

/// Parses the moment of a program's predictions.
///
/// # Errors
/// The text is no number of steps and not `final`.
fn parse_reported_moment(at: &str) -> Result<Moment, AnalysisError> {
    let moment = Moment::parse(at).filter(|moment| moment.is_of_reported_steps());
    moment.ok_or_else(|| {
        AnalysisError::Unknown(format!(
            "predictions of programs are at the steps that they report: ask for \"500 steps\" or \"final\", found '{at}'"
        ))
    })
}

pub(super) fn describe_moment(moment: Moment) -> String {
    match moment {
        Moment::After(Length::Epochs(n)) => format_count(n.into(), "epoch"),
        Moment::After(Length::Steps(n)) => format_count(n, "step"),
        other => other.to_string(),
    }
}

impl DistanceQuery {
    /// Checks the parameters against a sweep.
    ///
    /// # Errors
    /// The sweep keeps no predictions, there is no such cell or moment, or the work is too much.
    pub fn new(spec: &Spec, question: &DistanceParams<'_>) -> Result<Self, AnalysisError> {
        let is_of_program = spec.program().is_some();
        if spec.grid.has_targets() && !is_of_program {
            let message = "distances are of predicted classes, and the images of the sweep have targets ('y_train' is F32): compare \
                            test_loss with `ergodic table`";
            return Err(AnalysisError::Unknown(message.into()));
        }
        if spec.measure.probe.is_none() && !is_of_program {
            let message = "the sweep keeps no predictions, which distances are computed from: set probe = { points = 1000 } \
                           under [measure] in the next sweep";
            return Err(AnalysisError::Unknown(message.into()));
        }

        let is_pair = !question.between.is_empty();
        let cells = if is_pair {
            find_pair(spec, question.between)?
        } else {
            list_all_cells(spec)?
        };
        let moments = match &spec.measure.probe {
            Some(probe) => {
                let kept = list_moments(spec, probe, cells[0]);
                match question.at.trim() {
                    "" if is_pair => kept,
                    "" => kept.last().copied().into_iter().collect(),
                    at => vec![find_moment(spec, &kept, cells[0], at)?],
                }
            }
            None => match question.at.trim() {
                "" if is_pair => Vec::new(),
                "" => vec![Moment::Final],
                at => vec![parse_reported_moment(at)?],
            },
        };

        if is_pair && !PERMUTATION_LIMITS.contains(&question.permutations) {
            let low = PERMUTATION_LIMITS.start();
            let high = PERMUTATION_LIMITS.end();
            let message = format!(
                "permutations: expected a number from {low} to {high}, found {}",
                question.permutations
            );
            return Err(AnalysisError::Invalid(message));
        }

        let this = Self {
            cells,
            moments,
            points: spec
                .measure
                .probe
                .as_ref()
                .map_or(0, |probe| probe.points as usize),
            is_of_program,
            permutations: is_pair.then_some(question.permutations),
        };
        this.check_size(spec)?;

        Ok(this)
    }

    /// Checks the work, as far as the number of points is known.
    pub(super) fn check_size(&self, spec: &Spec) -> Result<(), AnalysisError> {
        let looks = self.cells.len() as u64 * self.moments.len() as u64 * u64::from(spec.repeats);
        if looks.saturating_mul(self.points as u64) > MAX_BYTES {
            let message = format!(
                "{} cells × {} repeats × {} points × {} moments are too many predictions to hold in memory: at most \
                 {MAX_BYTES}; ask for one step with --at, or for two cells with --between",
                self.cells.len(),
                spec.repeats,
                self.points,
                self.moments.len()
            );

            return Err(AnalysisError::Invalid(message));
        }

        match self.permutations {
            Some(permutations) => self.check_swaps(spec, looks * self.points as u64, permutations),
            None => self.check_pairs(spec),
        }
    }

    fn check_swaps(
        &self,
        spec: &Spec,
        labels: u64,
        permutations: u32,
    ) -> Result<(), AnalysisError> {
        let sums = labels * u64::from(permutations);
        let swaps = u64::from(spec.repeats) * u64::from(permutations);
        if sums <= MAX_SUMS && swaps <= MAX_SWAPS {
            return Ok(());
        }

        let message = format!(
            "permutations: {permutations} swaps of {} repeats with {labels} predictions in all are too many: ask for fewer, \
             or for one step with --at",
            spec.repeats
        );
        Err(AnalysisError::Invalid(message))
    }

    fn check_pairs(&self, spec: &Spec) -> Result<(), AnalysisError> {
        let config = spec.grid.resolve_config(self.cells[0]).ok();
        let config = config.filter(|_| !self.is_of_program);
        let classes = config.map_or(1 << u8::BITS, |config| {
            u64::from(config.data.dataset.class_count())
        });
        let pairs = self.cells.len() as u64 * self.cells.len() as u64;
        if pairs * split_half::SPLITS as u64 * classes * self.points as u64 <= MAX_SUMS {
            return Ok(());
        }

        let message = format!(
            "all pairs of {} cells at {} points with {classes} classes are too many: name two of the cells with --between",
            self.cells.len(),
            self.points
        );
        Err(AnalysisError::Invalid(message))
    }

    /// Bytes of the predictions of so many trials in memory, at most.
    pub fn count_bytes(&self, trials: u64) -> u64 {
        match self.is_of_program {
            true => trials.saturating_mul(MAX_PREDICTIONS).min(MAX_BYTES),
            false => trials.saturating_mul(self.points as u64),
        }
    }

    /// Number of points that are compared.
    pub fn point_count(&self) -> u32 {
        self.points as u32
    }

    /// Numbers of the cells, in the order in which [`CellDistance`](super::CellDistance) indexes
    /// them.
    pub fn cells(&self) -> &[CellIndex] {
        &self.cells
    }
}
