//! Statements over a session; bulk inserts use arrays.

use std::collections::{HashMap, HashSet};

use ergodic_common::ids::SweepNumber;
use ergodic_common::{TrialKey, TrialResult};

use crate::store::checksum::{
    attempt_checksum, curve_checksum, output_checksum, predictions_checksum, trial_checksum,
};
use crate::store::encoding::{
    encode_curve, encode_f64s, encode_finding, encode_outcome, encode_present_predictions,
    replace_nul,
};
use crate::store::error::StoreError;
use crate::store::outputs::StoredOutput;
use crate::store::postgres::PgSession;
use crate::store::postgres::session::bind_params;
use crate::store::sql::param::SqlParam;
use crate::store::sql::rows::read_trial_key;
use crate::store::sql::{RowCallback, SqlConnection, select_whole_trials_sql};
use crate::store::types::{Attempt, Audit, Twin};

impl SqlConnection for PgSession {
    fn select_rows(
        &self,
        sql: &'static str,
        values: &[SqlParam<'_>],
        each: RowCallback<'_>,
    ) -> Result<(), StoreError> {
        self.stream_rows(bind_params(sql, values), each)
    }

    fn execute_statement(
        &self,
        sql: &'static str,
        values: &[SqlParam<'_>],
    ) -> Result<u64, StoreError> {
        let mut connection = self.connection.borrow_mut();
        Ok(self
            .wait_for_answer(bind_params(sql, values).execute(&mut *connection))?
            .rows_affected())
    }

    /// Inserts a whole batch with two statements, or three if there are predictions.
    fn insert_trials(
        &self,
        sweep: SweepNumber,
        worker: &str,
        results: &[TrialResult],
    ) -> Result<Vec<usize>, StoreError> {
        let mut seen = HashSet::new();
        // A batch may have several results of one trial. The first one counts, as in SQLite.
        let fresh: Vec<usize> = (0..results.len())
            .filter(|at| seen.insert(results[*at].key))
            .collect();
        let curves = self.insert_trial_rows(sweep, worker, fresh.iter().map(|at| &results[*at]))?;
        let stored: Vec<usize> = fresh
            .into_iter()
            .filter(|at| curves.contains_key(&results[*at].key))
            .collect();
        self.insert_curves(sweep, &curves, stored.iter().map(|at| &results[*at]))?;

        self.insert_predictions(sweep, stored.iter().map(|at| &results[*at]))?;
        Ok(stored)
    }

    fn select_whole_trials(
        &self,
        sweep: SweepNumber,
        keys: &[TrialKey],
        each: RowCallback<'_>,
    ) -> Result<(), StoreError> {
        let text = select_whole_trials_sql!(
            "unnest($2::bigint[], $3::bigint[]) AS asked (cell, repeat) JOIN trials USING (cell, repeat)",
            "WHERE sweep = $1"
        );
        let (cells, repeats) = key_columns(keys.iter().copied());
        self.stream_rows(
            sqlx::query(text).bind(sweep.0).bind(cells).bind(repeats),
            each,
        )
    }

    fn insert_attempts(
        &self,
        sweep: SweepNumber,
        attempts: &[(TrialKey, i64, Attempt)],
    ) -> Result<(), StoreError> {
        let text = "INSERT INTO attempts (sweep, cell, repeat, attempt, cause, worker, seconds, checksum)
                    SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[],
                        $7::float8[], $8::bigint[])";
        let (cells, repeats) = key_columns(attempts.iter().map(|(key, ..)| *key));
        let query = sqlx::query(text)
            .bind(sweep.0)
            .bind(cells)
            .bind(repeats)
            .bind(
                attempts
                    .iter()
                    .map(|(_, number, _)| *number)
                    .collect::<Vec<_>>(),
            )
            .bind(
                attempts
                    .iter()
                    .map(|(.., attempt)| replace_nul(&attempt.cause))
                    .collect::<Vec<_>>(),
            )
            .bind(
                attempts
                    .iter()
                    .map(|(.., attempt)| replace_nul(&attempt.worker))
                    .collect::<Vec<_>>(),
            )
            .bind(
                attempts
                    .iter()
                    .map(|(.., attempt)| attempt.seconds)
                    .collect::<Vec<_>>(),
            )
            .bind(
                attempts
                    .iter()
                    .map(|(key, number, attempt)| attempt_checksum(sweep, *key, *number, attempt))
                    .collect::<Vec<_>>(),
            );

        self.stream_rows(query, &mut |_| Ok(true))
    }

    fn insert_outputs(
        &self,
        sweep: SweepNumber,
        outputs: &[StoredOutput],
    ) -> Result<(), StoreError> {
        let text = "INSERT INTO outputs (sweep, cell, repeat, attempt, printed, data, checksum)
                    SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bigint[])
                    ON CONFLICT (sweep, cell, repeat, attempt)
                        DO UPDATE SET printed = excluded.printed, data = excluded.data, checksum = excluded.checksum";
        if outputs.is_empty() {
            return Ok(());
        }
        let (cells, repeats) = key_columns(outputs.iter().map(|stored| stored.key));
        let attempts = outputs.iter().map(|stored| i64::from(stored.attempt));
        let printed = outputs.iter().map(|stored| stored.output.printed as i64);
        let data = outputs.iter().map(|stored| &stored.output.packed[..]);
        let checksums = outputs.iter().map(|stored| output_checksum(sweep, stored));
        let query = sqlx::query(text)
            .bind(sweep.0)
            .bind(cells)
            .bind(repeats)
            .bind(attempts.collect::<Vec<_>>())
            .bind(printed.collect::<Vec<_>>())
            .bind(data.collect::<Vec<_>>())
            .bind(checksums.collect::<Vec<_>>());

        self.stream_rows(query, &mut |_| Ok(true))
    }

    fn insert_audits(&self, sweep: SweepNumber, audits: &[Audit]) -> Result<(), StoreError> {
        let text = "INSERT INTO audits (sweep, cell, repeat, process, finding, auditor, auditor_process, why)
                    SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::text[],
                        $8::text[])
                    ON CONFLICT (sweep, cell, repeat) DO NOTHING";
        let (cells, repeats) = key_columns(audits.iter().map(|audit| audit.key));
        let query = sqlx::query(text)
            .bind(sweep.0)
            .bind(cells)
            .bind(repeats)
            .bind(
                audits
                    .iter()
                    .map(|audit| replace_nul(audit.process.as_str()))
                    .collect::<Vec<_>>(),
            )
            .bind(
                audits
                    .iter()
                    .map(|audit| encode_finding(audit.finding))
                    .collect::<Vec<_>>(),
            )
            .bind(
                audits
                    .iter()
                    .map(|audit| replace_nul(&audit.auditor))
                    .collect::<Vec<_>>(),
            )
            .bind(
                audits
                    .iter()
                    .map(|audit| replace_nul(audit.auditor_process.as_str()))
                    .collect::<Vec<_>>(),
            )
            .bind(
                audits
                    .iter()
                    .map(|audit| replace_nul(&audit.why))
                    .collect::<Vec<_>>(),
            );

        self.stream_rows(query, &mut |_| Ok(true))
    }

    fn insert_twins(&self, sweep: SweepNumber, twins: &[Twin]) -> Result<(), StoreError> {
        let text = "INSERT INTO twins (sweep, cell, other_sweep, other_cell)
                    SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[])
                    ON CONFLICT (sweep, cell, other_sweep) DO NOTHING";
        let query = sqlx::query(text)
            .bind(sweep.0)
            .bind(
                twins
                    .iter()
                    .map(|twin| twin.cell.0 as i64)
                    .collect::<Vec<_>>(),
            )
            .bind(
                twins
                    .iter()
                    .map(|twin| twin.other_sweep.0)
                    .collect::<Vec<_>>(),
            )
            .bind(
                twins
                    .iter()
                    .map(|twin| twin.other_cell.0 as i64)
                    .collect::<Vec<_>>(),
            );

        self.stream_rows(query, &mut |_| Ok(true))
    }
}

/// The cells and the repeats of trials, as columns.
pub(super) fn key_columns(keys: impl Iterator<Item = TrialKey>) -> (Vec<i64>, Vec<i64>) {
    keys.map(|key| (key.cell.0 as i64, i64::from(key.repeat.0)))
        .unzip()
}

impl PgSession {
    /// Inserts rows of trials that have none; returns these with the numbers of their curves.
    pub(super) fn insert_trial_rows<'r>(
        &self,
        sweep: SweepNumber,
        worker: &str,
        results: impl Iterator<Item = &'r TrialResult> + Clone,
    ) -> Result<HashMap<TrialKey, i64>, StoreError> {
        let text = "INSERT INTO trials
                        (sweep, worker, cell, repeat, outcome, step, cause, steps, seconds, digest, metrics, isa, weights,
                         checksum)
                    SELECT $1, $2, * FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[],
                        $8::bigint[], $9::float8[], $10::bytea[], $11::bytea[], $12::text[], $13::bytea[], $14::bigint[])
                    ON CONFLICT (sweep, cell, repeat) DO NOTHING RETURNING cell, repeat, curve";

        let (cells, repeats) = key_columns(results.clone().map(|result| result.key));
        let outcomes: Vec<_> = results
            .clone()
            .map(|result| encode_outcome(&result.outcome))
            .collect();
        let kinds: Vec<i64> = outcomes.iter().map(|(kind, ..)| *kind).collect();
        let steps: Vec<Option<i64>> = outcomes.iter().map(|(_, step, _)| *step).collect();
        let causes: Vec<_> = outcomes
            .iter()
            .map(|(.., cause)| cause.map(replace_nul))
            .collect();
        let weights: Vec<_> = results
            .clone()
            .map(|r| r.weights_hash.as_ref().map(|hash| &hash.0[..]))
            .collect();
        let metrics: Vec<_> = results.clone().map(|r| encode_f64s(&r.metrics)).collect();
        let checksums: Vec<i64> = results
            .clone()
            .map(|r| trial_checksum(sweep, worker, r))
            .collect();

        let query = sqlx::query(text)
            .bind(sweep.0)
            .bind(replace_nul(worker))
            .bind(cells)
            .bind(repeats)
            .bind(kinds)
            .bind(steps)
            .bind(causes)
            .bind(results.clone().map(|r| r.steps as i64).collect::<Vec<_>>())
            .bind(results.clone().map(|r| r.seconds).collect::<Vec<_>>())
            .bind(results.clone().map(|r| &r.digest.0[..]).collect::<Vec<_>>())
            .bind(metrics)
            .bind(results.map(|r| r.isa.as_str()).collect::<Vec<_>>())
            .bind(weights)
            .bind(checksums);

        let mut curves = HashMap::new();
        self.stream_rows(query, &mut |row| {
            curves.insert(read_trial_key(row)?, row.get_int(2)?);
            Ok(true)
        })?;

        Ok(curves)
    }

    pub(super) fn insert_curves<'r>(
        &self,
        sweep: SweepNumber,
        curves: &HashMap<TrialKey, i64>,
        results: impl Iterator<Item = &'r TrialResult>,
    ) -> Result<(), StoreError> {
        let (numbers, rest): (Vec<i64>, Vec<(i64, Vec<u8>)>) = results
            .map(|result| {
                let data = encode_curve(&result.curve);
                (
                    curves[&result.key],
                    (curve_checksum(sweep, result.key, &data), data),
                )
            })
            .unzip();
        let (checksums, data): (Vec<i64>, Vec<Vec<u8>>) = rest.into_iter().unzip();

        if numbers.is_empty() {
            return Ok(());
        }

        let text = "INSERT INTO curves (curve, data, checksum)
                    SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[])";
        self.stream_rows(
            sqlx::query(text).bind(numbers).bind(data).bind(checksums),
            &mut |_| Ok(true),
        )
    }

    pub(super) fn insert_predictions<'r>(
        &self,
        sweep: SweepNumber,
        results: impl Iterator<Item = &'r TrialResult>,
    ) -> Result<(), StoreError> {
        let (keys, data): (Vec<TrialKey>, Vec<Vec<u8>>) = results
            .filter_map(|result| Some((result.key, encode_present_predictions(result)?)))
            .unzip();
        if keys.is_empty() {
            return Ok(());
        }

        let checksums = keys
            .iter()
            .zip(&data)
            .map(|(key, data)| predictions_checksum(sweep, *key, data));
        let checksums: Vec<i64> = checksums.collect();
        let (cells, repeats) = key_columns(keys.into_iter());

        let text = "INSERT INTO predictions (sweep, cell, repeat, data, checksum)
                    SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bytea[], $5::bigint[])";
        let query = sqlx::query(text)
            .bind(sweep.0)
            .bind(cells)
            .bind(repeats)
            .bind(data)
            .bind(checksums);

        self.stream_rows(query, &mut |_| Ok(true))
    }
}
