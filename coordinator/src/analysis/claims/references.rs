//! The curves of reference cells, with which those of other cells are joined step by step.

use std::collections::{BTreeMap, BTreeSet};

use ergodic_common::TrialKey;
use ergodic_common::ids::{CellIndex, Repeat};
use ergodic_common::quantity::{QuantityProgram, SampledCurve};

use crate::analysis::{AnalysisError, RowSource};
use crate::store::{SampledTrial, TrialRange};

/// Maximum bytes of all curves of reference cells.
const MAX_REFERENCE_BYTES: usize = 256 << 20;

/// The trials of reference cells.
#[derive(Debug, Default)]
pub(super) struct ReferenceCurves {
    /// The curves of those that completed.
    curves: BTreeMap<TrialKey, OwnedCurve>,
    diverged: BTreeSet<TrialKey>,
}

/// Why the same repeat of the reference cell has no curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingReference {
    /// The repeat diverged.
    Diverged,
    /// The repeat failed, or has not ended.
    Absent,
}

/// A curve with the metrics of a program.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnedCurve {
    steps: Vec<f64>,
    columns: Vec<Vec<f64>>,
}

/// A curve and that of a reference, at the steps that both have.
pub(super) struct JoinedCurves {
    own: OwnedCurve,
    other: OwnedCurve,
}

impl OwnedCurve {
    /// Decodes the metrics of a program from a trial with `width` metrics.
    pub(super) fn decode(program: &QuantityProgram, trial: SampledTrial<'_>, width: usize) -> Self {
        let steps: Vec<f64> = trial.curve.steps().map(|step| step as f64).collect();
        let columns = program.metrics().iter().map(|metric| {
            let values = (0..steps.len()).map(|row| trial.curve.value_at(row, width, *metric));
            values.map(|value| value.unwrap_or(f64::NAN)).collect()
        });
        Self {
            columns: columns.collect(),
            steps,
        }
    }

    /// The samples.
    pub(super) fn samples(&self) -> SampledCurve<'_> {
        SampledCurve {
            steps: &self.steps,
            columns: &self.columns,
        }
    }

    fn bytes(&self) -> usize {
        size_of::<f64>() * self.steps.len() * (1 + self.columns.len())
    }

    fn select_rows(curve: SampledCurve<'_>, rows: &[usize]) -> Self {
        let columns = curve.columns.iter();
        Self {
            steps: select_values(curve.steps, rows),
            columns: columns.map(|column| select_values(column, rows)).collect(),
        }
    }
}

impl JoinedCurves {
    /// The samples of the trial.
    pub(super) fn own(&self) -> SampledCurve<'_> {
        self.own.samples()
    }

    /// The samples of the reference.
    pub(super) fn other(&self) -> SampledCurve<'_> {
        self.other.samples()
    }
}

impl ReferenceCurves {
    /// Reads the curves of some cells.
    ///
    /// # Errors
    /// The store failed, or the curves are too large to be held in memory.
    pub(super) fn read(
        rows: RowSource<'_>,
        program: &QuantityProgram,
        cells: &[CellIndex],
    ) -> Result<Self, AnalysisError> {
        let width = rows.spec.measure.metrics.len();
        let mut found = Self::default();
        let mut bytes = 0;
        for cell in cells {
            let next = CellIndex(cell.0 + 1);
            let [from, to] = [*cell, next].map(|cell| TrialKey {
                cell,
                repeat: Repeat(0),
            });
            rows.readers.with_reader(|reader| {
                reader.read_curves(rows.sweep, TrialRange { from, to }, &mut |trial| {
                    if trial.diverged_at.is_some() {
                        found.diverged.insert(trial.key);
                    } else if bytes <= MAX_REFERENCE_BYTES {
                        let curve = OwnedCurve::decode(program, trial, width);
                        bytes += curve.bytes();
                        found.curves.insert(trial.key, curve);
                    }
                })
            })?;

            if bytes > MAX_REFERENCE_BYTES {
                let message = format!(
                    "the curves of the cells that other(...) means take more than {MAX_REFERENCE_BYTES} bytes: select fewer cells \
                     with where, or make a file of fewer claims"
                );
                return Err(AnalysisError::Invalid(message));
            }
        }
        Ok(found)
    }

    /// The cell of each trial, and whether it completed.
    pub(super) fn ends(&self) -> impl Iterator<Item = (CellIndex, bool)> {
        let completed = self.curves.keys().map(|key| (key.cell, true));
        completed.chain(self.diverged.iter().map(|key| (key.cell, false)))
    }

    /// Joins a curve with that of the same repeat of a cell.
    ///
    /// # Errors
    /// Says why there is no such curve.
    pub(super) fn join(
        &self,
        cell: CellIndex,
        repeat: u32,
        curve: SampledCurve<'_>,
    ) -> Result<JoinedCurves, MissingReference> {
        let repeat = Repeat(repeat);
        let key = TrialKey { cell, repeat };
        let other = self
            .curves
            .get(&key)
            .ok_or(match self.diverged.contains(&key) {
                true => MissingReference::Diverged,
                false => MissingReference::Absent,
            })?;
        let common = find_common_rows(curve.steps, &other.steps);
        let [own_rows, other_rows] =
            [0, 1].map(|side| common.iter().map(|rows| rows[side]).collect::<Vec<usize>>());
        Ok(JoinedCurves {
            own: OwnedCurve::select_rows(curve, &own_rows),
            other: OwnedCurve::select_rows(other.samples(), &other_rows),
        })
    }
}

fn select_values(values: &[f64], rows: &[usize]) -> Vec<f64> {
    rows.iter().map(|row| values[*row]).collect()
}

/// The rows of equal steps in two ascending lists.
fn find_common_rows(a: &[f64], b: &[f64]) -> Vec<[usize; 2]> {
    let mut common = Vec::with_capacity(a.len().min(b.len()));
    let mut at = 0;
    for (row, step) in a.iter().enumerate() {
        while b.get(at).is_some_and(|other| other < step) {
            at += 1;
        }
        if b.get(at) == Some(step) {
            common.push([row, at]);
        }
    }
    common
}

#[cfg(test)]
impl ReferenceCurves {
    /// Curves with these steps and one column, by cell and repeat.
    pub(super) fn from_curves(curves: &[(TrialKey, Vec<f64>, Vec<f64>)]) -> Self {
        let curves = curves.iter().map(|(key, steps, values)| {
            let curve = OwnedCurve {
                steps: steps.clone(),
                columns: vec![values.clone()],
            };
            (*key, curve)
        });
        Self {
            curves: curves.collect(),
            diverged: BTreeSet::new(),
        }
    }
}
