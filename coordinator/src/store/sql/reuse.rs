//! Sweeps that start with rows of the same trials in other sweeps.

use std::collections::{BTreeMap, HashMap};

use ergodic_common::ids::{CellIndex, FileHash, Repeat, SweepNumber, WorkerId};
use ergodic_common::random_streams::audit_draw;
use ergodic_common::{Outcome, TrialKey, TrialResult};

use super::outputs::{find_output_of_row, has_outputs};
use super::param::SqlParam;
use super::read::{read_audits, select_trials_sql};
use super::rows::{read_trial_key, read_trial_row, read_whole_trial_row};
use super::transaction::StoreTransaction;
use super::write::audits::insert_audits_in_chunks;
use super::write::sweeps::insert_sweep;
use super::{
    NUMBERS_PER_COPY, ROWS_PER_COPY, SqlConnection, select_all, select_number,
    select_whole_trials_sql,
};
use crate::records::Finding;
use crate::result_batch::{ResultBatch, ResultComparison};
use crate::store::error::StoreError;
use crate::store::outputs::StoredOutput;
use crate::store::types::{Audit, ReuseSource, ReusedCell, ReusingSweep, StoredTrial};
use crate::store::writes::StoreWrite;

/// Number of cells to compare that are inserted per statement.
const TWINS_PER_STATEMENT: usize = 4096;

/// A new sweep that begins with copies of rows of others. The output is its number, and how many rows it began with.
#[derive(Debug, Clone, PartialEq)]
pub struct InsertReusing(pub ReusingSweep);

impl StoreWrite for InsertReusing {
    type Output = (SweepNumber, u64);

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<(SweepNumber, u64), StoreError> {
        insert_reusing_sweep(sql, &self.0)
    }

    fn named_files(&self) -> Vec<FileHash> {
        self.0.row.named_files().collect()
    }
}

fn insert_reusing_sweep(
    sql: &impl SqlConnection,
    gathering: &ReusingSweep,
) -> Result<(SweepNumber, u64), StoreError> {
    let sweep = insert_sweep(sql, &gathering.row)?;
    let mut copied = 0;

    for source in &gathering.sources {
        // A sweep that was removed meanwhile may lose its rows at any moment; the new one is no source of its own.
        let there = select_number(
            sql,
            "SELECT number FROM sweeps WHERE number = $1 AND number <> $2",
            &[source.sweep.into(), sweep.into()],
        )?;
        if there.is_some() {
            copied += RowCopy {
                sql,
                sweep,
                source,
                gathering,
                rows: Vec::new(),
                numbers: 0,
                has_outputs: has_outputs(sql, source.sweep)?,
            }
            .copy_rows()?;
        }
    }

    for some in gathering.twins.chunks(TWINS_PER_STATEMENT) {
        sql.insert_twins(sweep, some)?;
    }

    Ok((sweep, copied))
}

/// A copy of rows from one sweep to another.
struct RowCopy<'a, S> {
    sql: &'a S,
    sweep: SweepNumber,
    source: &'a ReuseSource,
    gathering: &'a ReusingSweep,
    /// Rows as they will be in the new sweep, each with the index of its cell among the source's
    /// cells.
    rows: Vec<(StoredTrial, usize)>,
    numbers: usize,
    /// Whether the source has anything that programs printed.
    has_outputs: bool,
}

impl<S: SqlConnection> RowCopy<'_, S> {
    fn copy_rows(mut self) -> Result<u64, StoreError> {
        let known = read_audits(self.sql, self.source.sweep)?;
        let known: HashMap<TrialKey, Audit> =
            known.into_iter().map(|audit| (audit.key, audit)).collect();
        let mut copied = 0;
        let mut next = self.first_wanted_from(TrialKey::new(0, 0));
        while let Some(from) = next {
            let rest = self.read_next_rows(from, &known)?;
            copied += self.store_rows(&known)?;
            next = rest.and_then(|rest| self.first_wanted_from(rest));
        }

        Ok(copied)
    }

    /// The first wanted trial from this one on. Skips everything between wanted cells.
    fn first_wanted_from(&self, from: TrialKey) -> Option<TrialKey> {
        let cells = &self.source.cells;
        let first = cells.partition_point(|cell| cell.source_cell < from.cell);
        cells[first..].iter().find_map(|cell| {
            let repeat = if cell.source_cell == from.cell {
                from.repeat
            } else {
                Repeat(0)
            };
            (repeat.0 < cell.repeat_limit).then_some(TrialKey {
                cell: cell.source_cell,
                repeat,
            })
        })
    }

    /// The index of a wanted trial's cell among the source's cells.
    fn wanted_cell_index(&self, key: TrialKey) -> Option<usize> {
        let at = self
            .source
            .cells
            .binary_search_by_key(&key.cell, |cell| cell.source_cell)
            .ok()?;
        (key.repeat.0 < self.source.cells[at].repeat_limit).then_some(at)
    }

    /// Reads a limited number of rows from a trial on; returns the trial to continue from, if rows
    /// may be left.
    fn read_next_rows(
        &mut self,
        from: TrialKey,
        known: &HashMap<TrialKey, Audit>,
    ) -> Result<Option<TrialKey>, StoreError> {
        let text = select_whole_trials_sql!(
            "trials",
            "WHERE sweep = $1 AND (cell, repeat) >= ($2, $3) AND cell <= $4 AND outcome IN (1, 2)
             ORDER BY cell, repeat LIMIT $5"
        );

        let sql = self.sql;
        let sweep = self.source.sweep;
        let last = self
            .source
            .cells
            .last()
            .map_or(CellIndex(0), |cell| cell.source_cell);
        let mut read = 0;
        let mut rest = None;
        let values = [
            sweep.into(),
            from.cell.into(),
            from.repeat.into(),
            last.into(),
            ROWS_PER_COPY.into(),
        ];
        sql.select_rows(text, &values, &mut |row| {
            let trial = read_trial_key(row)?;
            read += 1;
            // If an audit found other bits, nobody knows which row is right, so the trial runs
            // again.
            let is_doubted = known
                .get(&trial)
                .is_some_and(|audit| audit.finding == Some(Finding::Different));
            if let Some(at) = self.wanted_cell_index(trial).filter(|_| !is_doubted) {
                self.take_row(read_whole_trial_row(sweep, row), at)?;
            }

            let more = self.numbers < NUMBERS_PER_COPY;
            if !more || read == ROWS_PER_COPY {
                rest = Some(TrialKey {
                    repeat: Repeat(trial.repeat.0 + 1),
                    ..trial
                });
            }

            Ok(more)
        })?;

        Ok(rest)
    }

    /// Adds a row that was read, in the form that it has in the new sweep.
    fn take_row(
        &mut self,
        row: Result<StoredTrial, StoreError>,
        at: usize,
    ) -> Result<(), StoreError> {
        match row {
            Ok(row) => {
                let cell = &self.source.cells[at];
                let key = TrialKey {
                    cell: cell.new_cell,
                    ..row.result.key
                };
                let result = TrialResult {
                    key,
                    ..cell.selection.apply_to(row.result)
                };
                self.numbers += result.curve.values.len() + result.predictions.classes.len() / 8;

                self.rows.push((
                    StoredTrial {
                        result,
                        worker: row.worker,
                    },
                    at,
                ));

                Ok(())
            }
            // Without a copied row, the new sweep runs the trial itself.
            Err(StoreError::Damaged(damage)) => {
                tracing::error!("{damage}");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Stores the rows that were read, except for trials that have a row by now; returns their
    /// number.
    fn store_rows(&mut self, known: &HashMap<TrialKey, Audit>) -> Result<u64, StoreError> {
        let mut by_worker: BTreeMap<String, (Vec<TrialResult>, Vec<usize>)> = BTreeMap::new();
        for (row, cell) in std::mem::take(&mut self.rows) {
            let (results, cells) = by_worker.entry(row.worker).or_default();
            results.push(row.result);
            cells.push(cell);
        }

        self.numbers = 0;
        let mut copied = 0;
        let mut audits = Vec::new();

        for (worker, (results, cells)) in by_worker {
            for at in self.sql.insert_trials(self.sweep, &worker, &results)? {
                let cell = &self.source.cells[cells[at]];
                copied += 1;
                audits.extend(self.audit_of_copy(results[at].key, cell, known));
                self.copy_output(results[at].key, cell)?;
            }
        }

        insert_audits_in_chunks(self.sql, self.sweep, &audits)?;
        Ok(copied)
    }

    /// Copies what the program printed in the attempt of a copied row; the new sweep has no attempt before it.
    fn copy_output(&self, key: TrialKey, cell: &ReusedCell) -> Result<(), StoreError> {
        let from = TrialKey {
            cell: cell.source_cell,
            ..key
        };
        let found = match self.has_outputs {
            true => find_output_of_row(self.sql, self.source.sweep, from)?,
            false => None,
        };
        let copy = found.map(|output| StoredOutput {
            key,
            attempt: 0,
            output,
        });
        self.sql.insert_outputs(self.sweep, copy.as_slice())
    }

    /// The audit of a copied row, if it is chosen for one. The process that computed the row is
    /// known only if the other sweep chose it too; otherwise any process may audit it.
    fn audit_of_copy(
        &self,
        key: TrialKey,
        cell: &ReusedCell,
        known: &HashMap<TrialKey, Audit>,
    ) -> Option<Audit> {
        if audit_draw(self.gathering.seed, cell.identity, key.repeat) >= self.gathering.audit_share
        {
            return None;
        }

        let due = Audit {
            key,
            process: WorkerId::NONE,
            finding: None,
            auditor: String::new(),
            auditor_process: WorkerId::NONE,
            why: String::new(),
        };

        let made = known.get(&TrialKey {
            cell: cell.source_cell,
            repeat: key.repeat,
        });
        Some(made.map_or(due, |made| Audit {
            key,
            ..made.clone()
        }))
    }
}

/// Number of these fresh rows that differ from another sweep's row of the same trial.
pub(super) fn count_contradictions(
    sql: &impl SqlConnection,
    batch: &ResultBatch,
    stored: &[usize],
) -> Result<u64, StoreError> {
    let some = "SELECT cell FROM twins WHERE sweep = $1 LIMIT 1";
    if stored.is_empty() || select_number(sql, some, &[batch.sweep.into()])?.is_none() {
        return Ok(0);
    }

    let mut different = 0;
    for result in stored.iter().map(|at| &batch.results[*at]) {
        if !matches!(result.outcome, Outcome::Failed { .. }) {
            different += u64::from(is_contradicted(sql, batch, result)?);
        }
    }

    Ok(different)
}

fn is_contradicted(
    sql: &impl SqlConnection,
    batch: &ResultBatch,
    result: &TrialResult,
) -> Result<bool, StoreError> {
    let sweep = batch.sweep;
    let is_of_program = batch.comparison == ResultComparison::Digest;
    let text = "SELECT other_sweep, other_cell FROM twins WHERE sweep = $1 AND cell = $2 ORDER BY other_sweep";
    let twins = select_all(sql, text, &[sweep.into(), result.key.cell.into()], |row| {
        Ok((SweepNumber(row.get_int(0)?), row.get_int(1)?))
    })?;
    let text =
        select_trials_sql!("WHERE sweep = $1 AND cell = $2 AND repeat = $3 AND outcome IN (1, 2)");

    for (other, cell) in twins {
        let values = [other.into(), cell.into(), SqlParam::from(result.key.repeat)];
        let row = match select_all(sql, text, &values, |row| read_trial_row(other, row)) {
            Ok(mut rows) => rows.pop(),
            // A damaged twin cannot contradict the result.
            Err(StoreError::Damaged(damage)) => {
                tracing::error!("{damage}");
                None
            }
            Err(error) => return Err(error),
        };

        let is_different = row.as_ref().is_some_and(|row| {
            row.result.outcome != result.outcome
                || (!is_of_program && row.result.steps != result.steps)
                || row.result.digest != result.digest
        });
        // Whether that is an alarm for a program, its sweep says.
        if is_different && is_of_program {
            return Ok(true);
        }
        if is_different {
            let trial = result.key;
            let other_cell = cell;
            tracing::error!(sweep = sweep.0, %trial, other_sweep = other.0, other_cell, "a trial yielded different bits than in another \
                                        sweep");
            return Ok(true);
        }
    }

    Ok(false)
}
