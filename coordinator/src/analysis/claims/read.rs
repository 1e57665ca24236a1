//! One pass over the curves of a sweep, which keeps the numbers of each cell.

use std::collections::{BTreeMap, HashMap};

use ergodic_common::ids::{CellIndex, Repeat};
use ergodic_common::trial::Outcome;

use super::cell_numbers::{CellNumber, NumberContext};
use super::jobs::{CellEvaluation, TrialValues};
use super::references::OwnedCurve;
use crate::analysis::RowSource;
use crate::store::{SampledTrial, StoreError, StoreReader, TrialRange};

/// The ends of a cell's trials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TrialCounts {
    pub(super) completed: u64,
    pub(super) diverged: u64,
    pub(super) failed: u64,
}

/// What is known of a cell.
#[derive(Debug, Clone, Default)]
pub(super) struct CellSummary {
    pub(super) counts: TrialCounts,
    /// The number for each claim about the cell.
    pub(super) numbers: HashMap<usize, CellNumber>,
}

/// A cell whose trials are being read.
struct OpenCell {
    cell: CellIndex,
    evaluation: CellEvaluation,
    trials: Vec<TrialValues>,
    diverged: u64,
}

/// The cells of a range of trials.
#[derive(Default)]
struct RangeCells {
    /// The first and the last one, to which another range may have more trials.
    edges: Vec<OpenCell>,
    done: Vec<(CellIndex, CellSummary)>,
}

/// Reads the cells of all claims.
///
/// # Errors
/// The store failed.
pub(super) fn read_cells(
    context: NumberContext<'_>,
    rows: RowSource<'_>,
) -> Result<BTreeMap<CellIndex, CellSummary>, StoreError> {
    let parts = rows.map_ranges(|reader, part| context.read_range(rows, reader, part))?;
    let mut cells = BTreeMap::new();
    let mut open: Option<OpenCell> = None;
    for part in parts {
        cells.extend(part.done);
        for edge in part.edges {
            match &mut open {
                Some(cell) if cell.cell == edge.cell => {
                    cell.trials.extend(edge.trials);
                    cell.diverged += edge.diverged;
                }
                _ => cells.extend(open.replace(edge).map(|cell| context.close_cell(cell))),
            }
        }
    }
    cells.extend(open.map(|cell| context.close_cell(cell)));

    context.count_references(&mut cells);
    add_failed_trials(context, rows, &mut cells)?;
    Ok(cells)
}

/// Counts the failed trials, if some cell has too few others to need no reason.
fn add_failed_trials(
    context: NumberContext<'_>,
    rows: RowSource<'_>,
    cells: &mut BTreeMap<CellIndex, CellSummary>,
) -> Result<(), StoreError> {
    let repeats = u64::from(rows.spec.repeats);
    let references = context.jobs.reference_cells();
    let ended = |cell: &CellIndex| {
        let counts = cells
            .get(cell)
            .map(|found| found.counts)
            .unwrap_or_default();
        counts.completed + counts.diverged
    };
    let mut all = context.jobs.cells().chain(references.iter().copied());
    if all.all(|cell| ended(&cell) == repeats) {
        return Ok(());
    }

    let failed = rows.map_ranges(|reader, part| {
        let mut failed: Vec<CellIndex> = Vec::new();
        reader.read_ended_trials(rows.sweep, part, &mut |trial| {
            if matches!(trial.outcome, Outcome::Failed { .. }) {
                failed.push(trial.key.cell);
            }
        })?;
        Ok::<_, StoreError>(failed)
    })?;
    for cell in failed.into_iter().flatten() {
        if context.jobs.about_cell(cell).len() > 0 || references.binary_search(&cell).is_ok() {
            cells.entry(cell).or_default().counts.failed += 1;
        }
    }

    Ok(())
}

impl NumberContext<'_> {
    fn read_range(
        self,
        rows: RowSource<'_>,
        reader: &dyn StoreReader,
        part: TrialRange,
    ) -> Result<RangeCells, StoreError> {
        let mut found = RangeCells::default();
        let mut open: Option<OpenCell> = None;
        let width = rows.spec.measure.metrics.len();
        reader.read_curves(rows.sweep, part, &mut |trial| {
            let cell = trial.key.cell;
            if self.jobs.about_cell(cell).len() == 0 {
                return;
            }

            if open.as_ref().is_none_or(|known| known.cell != cell) {
                let next = self.open_cell(cell);
                if let Some(last) = std::mem::replace(&mut open, next) {
                    self.keep_cell(&mut found, last);
                }
            }
            if let Some(open) = &mut open {
                self.add_trial(open, trial, width);
            }
        })?;

        found.edges.extend(open);
        Ok(found)
    }

    /// Counts the trials of reference cells that no claim is about.
    fn count_references(self, cells: &mut BTreeMap<CellIndex, CellSummary>) {
        let ends = self.references.ends();
        for (cell, is_completed) in ends.filter(|(cell, _)| self.jobs.about_cell(*cell).len() == 0)
        {
            let counts = &mut cells.entry(cell).or_default().counts;
            match is_completed {
                true => counts.completed += 1,
                false => counts.diverged += 1,
            }
        }
    }

    fn open_cell(self, cell: CellIndex) -> Option<OpenCell> {
        Some(OpenCell {
            cell,
            evaluation: self.jobs.open_cell(cell)?,
            trials: Vec::new(),
            diverged: 0,
        })
    }

    /// Keeps a cell with all its trials, of which those of the first one may be in another range.
    fn keep_cell(self, found: &mut RangeCells, cell: OpenCell) {
        if found.edges.is_empty() {
            found.edges.push(cell);
        } else {
            found.done.push(self.close_cell(cell));
        }
    }

    fn add_trial(self, open: &mut OpenCell, trial: SampledTrial<'_>, width: usize) {
        if trial.diverged_at.is_some() {
            open.diverged += 1;
            return;
        }

        let curve = OwnedCurve::decode(self.jobs.program, trial, width);
        let Repeat(repeat) = trial.key.repeat;
        let cell = (open.cell, &open.evaluation);
        let values = self
            .jobs
            .evaluate_trial(cell, repeat, curve.samples(), self.references);
        open.trials.push(TrialValues { repeat, values });
    }

    fn close_cell(self, open: OpenCell) -> (CellIndex, CellSummary) {
        let claims = self.jobs.about_cell(open.cell).enumerate();
        let numbers = claims.map(|(place, claim)| {
            let job = &self.jobs.jobs[claim];
            let number = self.summarize(job, open.evaluation.inputs(), &open.trials, place);
            (claim, number)
        });

        let summary = CellSummary {
            numbers: numbers.collect(),
            counts: TrialCounts {
                completed: open.trials.len() as u64,
                diverged: open.diverged,
                failed: 0,
            },
        };
        (open.cell, summary)
    }
}
