//! Estimates the number of repeats for a precision, from the spread and duration of existing
//! trials.

use ergodic_common::ids::CellIndex;
use ergodic_common::spec::MAX_TRIALS;
use ergodic_common::spec::stopping_rule::{MIN_FIRST_RUNG, precision_rungs};
use ergodic_common::{Outcome, Spec};

use super::error::AnalysisError;
use super::query::TableQuery;
use super::row_source::RowSource;
use crate::estimators::Sample;
use crate::estimators::precision::{DECIDING_LEVEL, required_sample_size};
use crate::store::{EndedTrial, TrialRange};

/// The estimate for a cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CellSampleSize {
    /// Number of the cell.
    pub cell: CellIndex,
    /// Number of trials with a row, whatever their outcome.
    pub rows: u64,
    /// Number of completed trials with a value.
    pub n: u64,
    /// Standard deviation of these values; from 2 on.
    pub std: Option<f64>,
    /// Mean duration of the trials that did not fail, in seconds; 0 without any.
    pub seconds: f64,
    /// Number of repeats for the interval at 95 %; `None` if it is unknown, or above the maximum.
    pub repeats: Option<u64>,
    /// Number of repeats after which a stopping rule by precision would end the cell.
    pub repeats_until_stop: Option<u64>,
}

/// Trials that are still to be run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RemainingTrials {
    /// Number of trials.
    pub trials: u64,
    /// Number of these in cells that do not count, because none of their trials had a value.
    pub uncounted: u64,
    /// Expected duration of the trials, in seconds of one slot.
    pub slot_seconds: f64,
}

impl RemainingTrials {
    fn add_trials(&mut self, trials: u64, seconds: f64) {
        self.trials += trials;
        self.slot_seconds += trials as f64 * seconds;
    }
}

/// The estimate for a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleSize {
    /// The cells with rows, ascending.
    pub cells: Vec<CellSampleSize>,
    /// Number of repeats with which all these cells are precise enough; `None` if one never is.
    pub repeats: Option<u64>,
    /// Trials left if every cell of the sweep gets this number of repeats, including those that do
    /// not count.
    pub remaining_equal: Option<RemainingTrials>,
    /// Trials left if each cell ends when it is precise enough.
    pub remaining_until_stop: Option<RemainingTrials>,
    /// Number of cells with at least two trials, all of which diverged or failed. More repeats
    /// would not help, so they do not count.
    pub cells_without_value: u64,
}

/// The existing trials of one cell.
#[derive(Debug, Default)]
struct PilotCell {
    values: Vec<f64>,
    rows: u64,
    timed: u64,
    seconds: f64,
}

impl PilotCell {
    fn estimate_sample_size(self, cell: CellIndex, target: f64, first: u32) -> CellSampleSize {
        let n = self.values.len() as u64;
        let rows = self.rows;
        let std = Sample::new(self.values).std();

        // Trials without a value use up repeats too.
        let repeats = |values: u64| (values as f64 * rows as f64 / n as f64).ceil() as u64;
        let values =
            |level| std.and_then(|std| required_sample_size(std, target, level, MAX_TRIALS));
        CellSampleSize {
            cell,
            rows,
            n,
            std,
            seconds: if self.timed > 0 {
                self.seconds / self.timed as f64
            } else {
                0.0
            },
            repeats: values(0.95)
                .map(repeats)
                .filter(|repeats| *repeats <= MAX_TRIALS),
            repeats_until_stop: values(DECIDING_LEVEL).and_then(|values| {
                let mut rungs = precision_rungs(first, MAX_TRIALS as u32).map(u64::from);
                rungs.find(|rung| *rung >= repeats(values))
            }),
        }
    }
}

impl PilotCell {
    fn add_trial(&mut self, trial: &EndedTrial<'_>, column: usize) {
        self.rows += 1;
        if !matches!(trial.outcome, Outcome::Failed { .. }) {
            self.timed += 1;
            self.seconds += trial.seconds;
        }

        let value = trial.metrics.get(column).unwrap_or(f64::NAN);
        if trial.outcome == Outcome::Completed && value.is_finite() {
            self.values.push(value);
        }
    }
}

/// Estimates the repeats that each cell needs for the mean of a metric to be known to ± `target`.
///
/// # Errors
/// The store failed.
pub fn compute_sample_size(
    rows: RowSource<'_>,
    query: &TableQuery,
    target: f64,
) -> Result<SampleSize, AnalysisError> {
    check_repeats_are_independent(rows.spec)?;
    let mut cells: Vec<CellSampleSize> = Vec::new();
    let mut pilot: Option<(CellIndex, PilotCell)> = None;
    let first = rows
        .spec
        .stopping_rule
        .as_ref()
        .map_or(MIN_FIRST_RUNG, |until| until.min_repeats);
    rows.readers.with_reader(|reader| {
        query.read_ended_trials(rows, reader, TrialRange::ALL, &mut |trial| {
            if let Some((cell, done)) = pilot.take_if(|(cell, _)| *cell != trial.key.cell) {
                cells.push(done.estimate_sample_size(cell, target, first));
            }

            let (_, pilot) = pilot.get_or_insert_with(|| (trial.key.cell, PilotCell::default()));
            pilot.add_trial(&trial, query.metric_column());
        })
    })?;

    cells.extend(pilot.map(|(cell, done)| done.estimate_sample_size(cell, target, first)));
    Ok(summarize_cells(cells, rows.spec.grid.cell_count()))
}

fn check_repeats_are_independent(spec: &Spec) -> Result<(), AnalysisError> {
    if spec.seeds.crossed.is_empty() {
        return Ok(());
    }

    let message = "precision: the sweep crosses random streams, so its repeats are not independent: more repeats of the \
                   same streams do not make its means more precise; see `ergodic variance` for the streams that should have \
                   more levels";
    Err(AnalysisError::Invalid(message.into()))
}

impl CellSampleSize {
    /// Whether the cell counts: it has values, or too few rows to say that it will have none.
    fn is_counted(&self) -> bool {
        self.n > 0 || self.rows < 2
    }
}

/// Sums the estimates of cells; the sweep has `all` cells.
fn summarize_cells(cells: Vec<CellSampleSize>, all: u64) -> SampleSize {
    let without = cells.iter().filter(|cell| !cell.is_counted()).count() as u64;
    let repeats = cells
        .iter()
        .filter(|cell| cell.is_counted())
        .map(|cell| cell.repeats)
        .collect::<Option<Vec<u64>>>();
    let repeats = repeats.and_then(|repeats| repeats.into_iter().max());

    // Nothing else is known about cells without rows, so they are taken to last as long as the
    // others.
    let unknown = all - cells.len() as u64;
    let usual = cells.iter().map(|cell| cell.seconds).sum::<f64>() / cells.len().max(1) as f64;
    let same = repeats.map(|repeats| {
        let mut missing = RemainingTrials::default();
        for cell in &cells {
            let trials = repeats.saturating_sub(cell.rows);
            missing.add_trials(trials, cell.seconds);
            missing.uncounted += if cell.is_counted() { 0 } else { trials };
        }

        missing.add_trials(unknown * repeats, usual);
        missing
    });

    let until = || {
        let mut missing = RemainingTrials::default();
        for cell in cells.iter().filter(|cell| cell.is_counted()) {
            missing.add_trials(
                cell.repeats_until_stop?.saturating_sub(cell.rows),
                cell.seconds,
            );
        }

        Some(missing)
    };
    let until = until().filter(|_| unknown == 0 && repeats.is_some());

    SampleSize {
        repeats,
        remaining_equal: same,
        remaining_until_stop: until,
        cells_without_value: without,
        cells,
    }
}

#[cfg(test)]
mod tests {
    use crate::analysis::sample_size::*;

    fn pilot(values: &[f64], without: u64) -> PilotCell {
        let rows = values.len() as u64 + without;
        PilotCell {
            values: values.to_vec(),
            rows,
            timed: rows,
            seconds: 2.0 * rows as f64,
        }
    }

    #[test]
    fn a_cell_needs_what_its_spread_asks_for() {
        // Standard deviation 1.
        let values: Vec<f64> = (0..20)
            .map(|i| if i % 2 == 0 { 1.0 } else { -1.0 } * 0.95_f64.sqrt())
            .collect();
        let cell = pilot(&values, 0).estimate_sample_size(CellIndex(3), 0.1, 20);
        assert!((cell.std.expect("a spread") - 1.0).abs() < 1e-12);
        assert_eq!((cell.repeats, cell.seconds), (Some(387), 2.0));

        // (2.326/0.1)² = 541, on the ladder 20, 25, 31, …, 531, 663.
        assert_eq!(cell.repeats_until_stop, Some(663));
        // One in five has no value.
        assert_eq!(
            pilot(&values, 5)
                .estimate_sample_size(CellIndex(3), 0.1, 20)
                .repeats,
            Some(484)
        );
        assert_eq!(
            pilot(&[1.0], 4)
                .estimate_sample_size(CellIndex(3), 0.1, 20)
                .repeats,
            None,
            "one value has no spread"
        );

        assert_eq!(
            pilot(&[0.0, 1.0], 0)
                .estimate_sample_size(CellIndex(3), 1e-9, 20)
                .repeats,
            None,
            "more than there can be"
        );
    }

    #[test]
    fn a_sweep_needs_as_many_repeats_as_its_widest_cell_or_each_cell_its_own() {
        let cell = |cell, rows, repeats, until| CellSampleSize {
            cell,
            rows,
            n: rows,
            std: Some(1.0),
            seconds: if cell == CellIndex(0) { 2.0 } else { 4.0 },
            repeats,
            repeats_until_stop: until,
        };
        let cells = vec![
            cell(CellIndex(0), 20, Some(10), Some(20)),
            cell(CellIndex(1), 20, Some(50), Some(72)),
        ];
        let needs = summarize_cells(cells.clone(), 2);
        assert_eq!(needs.repeats, Some(50));

        assert_eq!(
            needs.remaining_equal,
            Some(RemainingTrials {
                trials: 60,
                uncounted: 0,
                slot_seconds: 30.0 * 2.0 + 30.0 * 4.0
            })
        );

        assert_eq!(
            needs.remaining_until_stop,
            Some(RemainingTrials {
                trials: 52,
                uncounted: 0,
                slot_seconds: 52.0 * 4.0
            })
        );

        let more = summarize_cells(cells.clone(), 3);
        assert_eq!(
            more.remaining_equal.map(|missing| missing.trials),
            Some(110)
        );
        assert_eq!(more.remaining_until_stop, None, "a cell without rows");

        let unknown = summarize_cells(vec![cells[0], cell(CellIndex(1), 20, None, None)], 2);
        assert_eq!(
            (
                unknown.repeats,
                unknown.remaining_equal,
                unknown.remaining_until_stop
            ),
            (None, None, None)
        );

        let dead = CellSampleSize {
            n: 0,
            std: None,
            ..cell(CellIndex(1), 20, None, None)
        };
        let rest = summarize_cells(vec![cells[0], dead], 2);
        assert_eq!(
            (
                rest.repeats,
                rest.remaining_equal.map(|missing| missing.trials),
                rest.cells_without_value
            ),
            (Some(10), Some(0), 1)
        );

        // What more repeats would run is counted, and how much of it in a cell that none would help.
        let dead = CellSampleSize {
            n: 0,
            std: None,
            ..cell(CellIndex(1), 2, None, None)
        };
        let rest = summarize_cells(vec![cell(CellIndex(0), 2, Some(18), Some(20)), dead], 2);
        assert_eq!(
            rest.remaining_equal,
            Some(RemainingTrials {
                trials: 32,
                uncounted: 16,
                slot_seconds: 16.0 * 2.0 + 16.0 * 4.0
            })
        );

        assert_eq!(
            (
                rest.remaining_until_stop.map(|missing| missing.trials),
                rest.cells_without_value
            ),
            (Some(18), 1)
        );

        let nothing = summarize_cells(Vec::new(), 2);
        assert_eq!(
            (
                nothing.repeats,
                nothing.remaining_equal,
                nothing.remaining_until_stop
            ),
            (None, None, None)
        );
    }
}
