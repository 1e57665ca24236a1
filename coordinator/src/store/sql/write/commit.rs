//! Results of workers: stored, or compared with the rows that there are.

use std::collections::HashMap;

use ergodic_common::ids::{FileHash, SweepNumber};
use ergodic_common::{Outcome, TrialKey, TrialResult};

use crate::records::Finding;
use crate::result_batch::{CommitOutcome, ResultBatch};
use crate::store::encoding::{differing_fields, encode_finding};
use crate::store::error::StoreError;
use crate::store::sql::SqlConnection;
use crate::store::sql::outputs::insert_outputs_of_rows;
use crate::store::sql::reuse::count_contradictions;
use crate::store::sql::rows::read_whole_trial_row;
use crate::store::sql::seal_rows::remove_seal;
use crate::store::sql::transaction::StoreTransaction;
use crate::store::sql::write::leases::{FenceState, check_fence};
use crate::store::sql::write::sweeps::add_to_tallies;
use crate::store::writes::StoreWrite;

/// A batch of results to be stored, or only compared.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreResults {
    /// The results, and the fence under which they were sent.
    pub batch: ResultBatch,
    /// Name of the worker, stored with the rows.
    pub worker: String,
    /// Whether to compare only and store nothing, whatever the fence.
    pub compare_only: bool,
    /// Whether the lease is one for audits, so that nothing is stored.
    pub audit: bool,
    /// Trials of the batch that are chosen for audits.
    pub chosen_for_audit: Vec<TrialKey>,
}

impl StoreWrite for StoreResults {
    type Output = CommitOutcome;

    /// Stores results of trials without a row if the fence is valid, and compares the others with their
    /// rows.
    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<CommitOutcome, StoreError> {
        let batch = &self.batch;
        let fence = match self.compare_only {
            true => FenceState::Ended,
            false => check_fence(sql, batch)?,
        };
        let mut outcome = CommitOutcome {
            fenced: fence == FenceState::Ended,
            ..CommitOutcome::default()
        };

        let mut stored = Vec::new();
        if !outcome.fenced && !self.audit {
            stored = sql.insert_trials(batch.sweep, &self.worker, &batch.results)?;
            let rows = stored.iter().map(|at| &batch.results[*at]);
            insert_outputs_of_rows(sql, batch.sweep, rows)?;
            outcome.audits_due = schedule_audits(sql, self, &stored)?;
            outcome.contradicted = count_contradictions(sql, batch, &stored)?;
            outcome.stored = stored.iter().map(|at| batch.stored_row(*at)).collect();
        }

        if stored.len() < batch.results.len() {
            compare_with_rows(sql, self, &stored, &mut outcome)?;
        }

        let has_rows = fence == FenceState::InSealedSweep && !outcome.stored.is_empty();
        if has_rows || !outcome.audited.is_empty() {
            remove_seal(sql, batch.sweep)?;
        }

        add_to_tallies(sql, batch.sweep, &outcome)?;
        Ok(outcome)
    }

    fn named_files(&self) -> Vec<FileHash> {
        if self.compare_only || self.audit {
            Vec::new()
        } else {
            self.batch.named_weights()
        }
    }

    fn holds_results(&self) -> bool {
        true
    }
}

/// Makes audits of chosen trials that were stored due, unless there is nothing to compare with.
fn schedule_audits(
    sql: &impl SqlConnection,
    results: &StoreResults,
    stored: &[usize],
) -> Result<Vec<TrialKey>, StoreError> {
    let text = "INSERT INTO audits (sweep, cell, repeat, process) VALUES ($1, $2, $3, $4)
                ON CONFLICT (sweep, cell, repeat) DO UPDATE SET process = $4, finding = 0, auditor = '',
                    auditor_process = '', why = ''";
    let mut due = Vec::new();

    let batch = &results.batch;
    for result in stored.iter().map(|at| &batch.results[*at]) {
        let key = result.key;
        if results.chosen_for_audit.contains(&key)
            && !matches!(result.outcome, Outcome::Failed { .. })
        {
            let values = [
                batch.sweep.into(),
                key.cell.into(),
                key.repeat.into(),
                (&batch.process).into(),
            ];
            sql.execute_statement(text, &values)?;

            due.push(key);
        }
    }

    Ok(due)
}

/// Records the finding of a due audit, if another process than the row's ran the trial.
fn record_audit(
    sql: &impl SqlConnection,
    results: &StoreResults,
    result: &TrialResult,
    different: Option<&[&'static str]>,
) -> Result<Option<Finding>, StoreError> {
    if !results.audit && !results.chosen_for_audit.contains(&result.key) {
        return Ok(None);
    }

    let (finding, why) = judge_audit(&result.outcome, different);
    let text = "UPDATE audits SET finding = $1, auditor = $2, auditor_process = $3, why = $4
                WHERE sweep = $5 AND cell = $6 AND repeat = $7 AND finding = 0 AND process <> $3";

    let batch = &results.batch;
    let values = [
        encode_finding(Some(finding)).into(),
        results.worker.as_str().into(),
        (&batch.process).into(),
        why.as_str().into(),
        batch.sweep.into(),
        result.key.cell.into(),
        result.key.repeat.into(),
    ];

    Ok((sql.execute_statement(text, &values)? > 0).then_some(finding))
}

/// The finding of an audit with its reason, given the fields that differ; `None` for a damaged row.
fn judge_audit(outcome: &Outcome, different: Option<&[&'static str]>) -> (Finding, String) {
    match (outcome, different) {
        (Outcome::Failed { cause }, _) => (Finding::Failed, cause.clone()),
        (_, None) => (Finding::Failed, "the row is damaged".into()),
        (_, Some([])) => (Finding::Same, String::new()),
        (_, Some(different)) => (Finding::Different, different.join(", ")),
    }
}

/// Compares what was not stored, at other positions than `stored`, with the rows that there are.
fn compare_with_rows(
    sql: &impl SqlConnection,
    results: &StoreResults,
    stored: &[usize],
    outcome: &mut CommitOutcome,
) -> Result<(), StoreError> {
    let batch = &results.batch;
    let mut stored = stored.iter().peekable();
    let rest: Vec<usize> = (0..batch.results.len())
        .filter(|at| stored.next_if_eq(&at).is_none())
        .collect();
    let keys: Vec<TrialKey> = rest.iter().map(|at| batch.results[*at].key).collect();

    let rows = read_rows_to_compare(sql, batch.sweep, &keys)?;
    for at in rest {
        let result = &batch.results[at];
        let Some(row) = rows.get(&result.key) else {
            continue;
        };
        let different = row
            .as_ref()
            .map(|row| differing_fields(row, result, batch.comparison));
        outcome.already_stored.push(result.key);
        outcome.mismatches += u64::from(
            different
                .as_ref()
                .is_some_and(|different| !different.is_empty()),
        );

        let finding = record_audit(sql, results, result, different.as_deref())?;
        outcome
            .audited
            .extend(finding.map(|finding| (batch.stored_row(at), finding)));
    }

    Ok(())
}

/// The rows of these trials; `None` for a damaged row.
fn read_rows_to_compare(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    keys: &[TrialKey],
) -> Result<HashMap<TrialKey, Option<TrialResult>>, StoreError> {
    let mut rows = HashMap::new();
    sql.select_whole_trials(sweep, keys, &mut |row| {
        match read_whole_trial_row(sweep, row) {
            Ok(row) => drop(rows.insert(row.result.key, Some(row.result))),
            // The worker is not to blame for a damaged row, so its batch succeeds without the
            // comparison.
            Err(StoreError::Damaged(damage)) => {
                tracing::error!("{damage}");
                rows.insert(damage.key, None);
            }
            Err(error) => return Err(error),
        }

        Ok(true)
    })?;

    Ok(rows)
}
