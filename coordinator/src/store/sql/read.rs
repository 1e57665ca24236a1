//! Reads of the store, over either database.

use ergodic_common::TrialKey;
use ergodic_common::ids::{FileHash, LeaseId, SweepNumber};
use ergodic_common::trial::Predictions;

use super::param::SqlParam;
use super::{RowCallback, SqlConnection, damaged_column, select_all, select_number};
use crate::records::{LeaseRow, SweepRow};
use crate::store::TrialRange;
use crate::store::checksum::curve_checksum;
use crate::store::error::{Damage, StoreError};
use crate::store::reader::StoreReader;
use crate::store::sql::rows::{
    read_attempt_row, read_audit_row, read_curve_column, read_ended_trial_row, read_lease_row,
    read_predictions_column, read_sweep_row, read_trial_key, read_trial_row, read_whole_trial_row,
    with_trial_context,
};
use crate::store::sql::seal_rows::read_seal;
use crate::store::types::{Attempt, Audit, EndedTrial, RowCursor, SampledTrial, StoredTrial};
use crate::sweep_seal::SweepSeal;

/// Selects the columns that `read_sweep_row` reads, of the sweeps that a literal chooses.
macro_rules! select_sweeps_sql {
    ($rest:literal) => {
        concat!(
            "SELECT number, id, file, text, settings, data_hash, data_train, data_words, state, launched_at, files, releases,
                    duplicates, mismatches, fenced, priority, weight, checksum, launched_by, grammar, cells
             FROM sweeps ",
            $rest
        )
    };
}

/// Selects the columns that `read_trial_row` reads, of the trials that a literal chooses.
macro_rules! select_trials_sql {
    ($rest:literal) => {
        concat!(
            "SELECT cell, repeat, outcome, step, cause, steps, seconds, worker, digest, metrics, isa, weights, checksum
             FROM trials ",
            $rest
        )
    };
}
pub(super) use select_trials_sql;

/// Selects the columns that `read_whole_trial_row` reads, from a table and of the trials that literals choose. A trial whose
/// curve is missing has a row, too.
macro_rules! select_whole_trials_sql {
    ($from:literal, $rest:literal) => {
        concat!(
            "SELECT cell, repeat, outcome, step, cause, steps, seconds, worker, digest, metrics, isa, weights, trials.checksum,
                    curves.data, curves.checksum, predictions.data, predictions.checksum
             FROM ",
            $from,
            " LEFT JOIN curves USING (curve) LEFT JOIN predictions USING (sweep, cell, repeat) ",
            $rest
        )
    };
}
pub(in crate::store) use select_whole_trials_sql;

/// Selects the columns that `read_audit_row` reads, of the audits that a literal chooses.
macro_rules! select_audits_sql {
    ($rest:literal) => {
        concat!(
            "SELECT cell, repeat, process, finding, auditor, auditor_process, why FROM audits ",
            $rest
        )
    };
}

impl<S: SqlConnection + Send> StoreReader for S {
    fn read_sweeps(&self) -> Result<Vec<SweepRow>, StoreError> {
        read_sweeps(self)
    }

    fn read_seal(&self, sweep: SweepNumber) -> Result<Option<SweepSeal>, StoreError> {
        read_seal(self, sweep)
    }

    fn read_unfinished_removals(&self) -> Result<Vec<SweepNumber>, StoreError> {
        select_all(
            self,
            "SELECT sweep FROM removals ORDER BY sweep",
            &[],
            |row| row.get_int(0).map(SweepNumber),
        )
    }

    fn has_trial_with_weights(&self, weights: &FileHash) -> Result<bool, StoreError> {
        has_trial_with_weights(self, weights)
    }

    fn read_leases(&self) -> Result<(Vec<LeaseRow>, LeaseId), StoreError> {
        let text = "SELECT lease, epoch, sweep, class, worker, trials, checksum, audits FROM leases ORDER BY lease";
        let next = select_number(self, "SELECT value FROM meta WHERE key = 'next_lease'", &[])?;
        let mut leases = Vec::new();
        self.select_rows(text, &[], &mut |row| {
            match read_lease_row(row) {
                Ok(lease) => leases.push(lease),
                // Skipping a damaged lease is safe: without a lease, its trials are handed out
                // again.
                Err(error) => tracing::error!(
                    lease = row.get_int(0).ok(),
                    "the row of a lease is damaged ({error}): it counts as ended, and its trials are reassigned"
                ),
            }

            Ok(true)
        })?;

        Ok((
            leases,
            LeaseId(next.ok_or_else(|| damaged_column(0, "the number of the next lease"))? as u64),
        ))
    }

    fn read_intact_trials(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(StoredTrial),
    ) -> Result<Vec<Damage>, StoreError> {
        let mut damages = Vec::new();
        let text = select_whole_trials_sql!("trials", "WHERE sweep = $1");
        self.select_rows(text, &[sweep.into()], &mut |row| {
            collect_damage(read_whole_trial_row(sweep, row), &mut damages, &mut *each)
        })?;

        // Predictions without a row would escape the pass over rows.
        damages.extend(find_damaged_predictions(self, sweep)?);
        damages.sort_by_key(|damage| damage.key);
        damages.dedup_by_key(|damage| damage.key);
        Ok(damages)
    }

    fn read_intact_ended_trials(
        &self,
        sweep: SweepNumber,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<Vec<Damage>, StoreError> {
        let mut damages = Vec::new();
        select_ended_trials(self, sweep, part, &mut |row| {
            collect_damage(read_ended_trial_row(sweep, row), &mut damages, &mut *each)
        })?;
        Ok(damages)
    }

    fn read_weights_hashes(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(TrialKey, FileHash),
    ) -> Result<Vec<Damage>, StoreError> {
        let text = "SELECT cell, repeat, weights FROM trials WHERE sweep = $1 AND weights IS NOT NULL ORDER BY cell, repeat";
        let mut damages = Vec::new();
        self.select_rows(text, &[sweep.into()], &mut |row| {
            let named = with_trial_context(sweep, row, "row", || {
                Ok((
                    read_trial_key(row)?,
                    row.get_optional_hash(2)?.map(FileHash),
                ))
            });
            collect_damage(named, &mut damages, &mut |(key, hash)| {
                hash.into_iter().for_each(|hash| each(key, hash))
            })
        })?;

        Ok(damages)
    }

    fn read_trials(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(StoredTrial) -> bool,
    ) -> Result<(), StoreError> {
        let text = select_trials_sql!("WHERE sweep = $1 ORDER BY cell, repeat");
        let read = self.select_rows(text, &[sweep.into()], &mut |row| {
            Ok(each(read_trial_row(sweep, row)?))
        });
        read.map_err(|error| with_sweep_id(self, sweep, error))
    }

    fn read_row_cursors(&self, sweep: SweepNumber, row: u64) -> Result<[RowCursor; 2], StoreError> {
        // Later rows have greater numbers, but a removed row's number may be reused; the
        // fingerprint tells these apart. It is the checksum or, for old rows without one, made from
        // the digest.
        let text = "SELECT cell, repeat, curve, checksum, digest FROM trials WHERE sweep = $1";
        let [mut here, mut end] = [RowCursor::default(); 2];
        self.select_rows(text, &[sweep.into()], &mut |fields| {
            let number = fields.get_int(2)? as u64;
            let print = match fields.get_optional_int(3)? {
                Some(checksum) => checksum as u64,
                None => curve_checksum(sweep, read_trial_key(fields)?, fields.get_bytes(4)?) as u64,
            };
            end.add_row(number, print);

            if number <= row {
                here.add_row(number, print);
            }

            Ok(true)
        })?;

        Ok([here, end])
    }

    fn read_trials_after(
        &self,
        sweep: SweepNumber,
        row: u64,
        each: &mut dyn FnMut(StoredTrial) -> bool,
    ) -> Result<(), StoreError> {
        let text = select_whole_trials_sql!(
            "trials",
            "WHERE sweep = $1 AND curve > $2 ORDER BY cell, repeat"
        );
        let read = self.select_rows(text, &[sweep.into(), row.into()], &mut |row| {
            Ok(each(read_whole_trial_row(sweep, row)?))
        });
        read.map_err(|error| with_sweep_id(self, sweep, error))
    }

    fn read_trial(
        &self,
        sweep: SweepNumber,
        key: TrialKey,
    ) -> Result<Option<StoredTrial>, StoreError> {
        let mut found = None;
        let read = self.select_whole_trials(sweep, &[key], &mut |row| {
            found = Some(read_whole_trial_row(sweep, row)?);
            Ok(true)
        });
        read.map_err(|error| with_sweep_id(self, sweep, error))?;
        Ok(found)
    }

    fn read_attempts(&self, sweep: SweepNumber, key: TrialKey) -> Result<Vec<Attempt>, StoreError> {
        let text = "SELECT cell, repeat, cause, worker, seconds, attempt, checksum FROM attempts
                    WHERE sweep = $1 AND cell = $2 AND repeat = $3 ORDER BY attempt";
        let attempts = select_all(
            self,
            text,
            &[sweep.into(), key.cell.into(), key.repeat.into()],
            |row| read_attempt_row(sweep, row),
        );

        attempts.map_err(|error| with_sweep_id(self, sweep, error))
    }

    fn read_audits(&self, sweep: SweepNumber) -> Result<Vec<Audit>, StoreError> {
        read_audits(self, sweep)
    }

    fn read_audit(&self, sweep: SweepNumber, key: TrialKey) -> Result<Option<Audit>, StoreError> {
        read_audit(self, sweep, key)
    }

    fn read_all_attempts(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(TrialKey, Attempt),
    ) -> Result<(), StoreError> {
        read_all_attempts(self, sweep, each)
    }

    fn read_ended_trials(
        &self,
        sweep: SweepNumber,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<(), StoreError> {
        let read = select_ended_trials(self, sweep, part, &mut |row| {
            each(read_ended_trial_row(sweep, row)?);
            Ok(true)
        });
        read.map_err(|error| with_sweep_id(self, sweep, error))
    }

    fn read_curves(
        &self,
        sweep: SweepNumber,
        part: TrialRange,
        each: &mut dyn FnMut(SampledTrial<'_>),
    ) -> Result<(), StoreError> {
        let text = "SELECT cell, repeat, data, curves.checksum, step FROM trials LEFT JOIN curves USING (curve)
                    WHERE sweep = $1 AND (cell, repeat) >= ($2, $3) AND (cell, repeat) < ($4, $5) AND outcome IN (1, 2)
                    ORDER BY cell, repeat";
        let read = self.select_rows(text, &range_params(sweep, part), &mut |row| {
            let (key, curve) = read_curve_column(sweep, row, 2)?;
            each(SampledTrial {
                key,
                diverged_at: row.get_optional_int(4)?.map(|step| step as u64),
                curve,
            });

            Ok(true)
        });

        read.map_err(|error| with_sweep_id(self, sweep, error))
    }

    fn read_predictions(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(TrialKey, Predictions) -> bool,
    ) -> Result<(), StoreError> {
        let text = "SELECT cell, repeat, data, checksum FROM predictions WHERE sweep = $1 ORDER BY cell, repeat";
        let read = self.select_rows(text, &[sweep.into()], &mut |row| {
            Ok(each(
                read_trial_key(row)?,
                read_predictions_column(sweep, row, 2)?,
            ))
        });
        read.map_err(|error| with_sweep_id(self, sweep, error))
    }
}

/// Selects the rows of a range of trials, for [`read_ended_trial_row`].
fn select_ended_trials(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    part: TrialRange,
    each: RowCallback<'_>,
) -> Result<(), StoreError> {
    // SQLite compares pairs of columns in every row again, although it finds the range by its
    // index. Single columns it does not, and steps from row to row a tenth faster.
    if part.has_whole_cells() {
        let text = select_trials_sql!(
            "WHERE sweep = $1 AND cell >= $2 AND cell < $3 ORDER BY cell, repeat"
        );
        let values = [sweep.into(), part.from.cell.into(), part.to.cell.into()];
        return sql.select_rows(text, &values, each);
    }

    let text = select_trials_sql!(
        "WHERE sweep = $1 AND (cell, repeat) >= ($2, $3) AND (cell, repeat) < ($4, $5) ORDER BY cell, repeat"
    );
    sql.select_rows(text, &range_params(sweep, part), each)
}

/// Collects damage instead of failing, so that reading goes on.
fn collect_damage<T>(
    read: Result<T, StoreError>,
    damages: &mut Vec<Damage>,
    each: &mut dyn FnMut(T),
) -> Result<bool, StoreError> {
    match read {
        Ok(sound) => each(sound),
        Err(StoreError::Damaged(damage)) => damages.push(*damage),
        Err(error) => return Err(error),
    }
    Ok(true)
}

/// Parameters of a statement about a range of trials.
fn range_params(sweep: SweepNumber, TrialRange { from, to }: TrialRange) -> [SqlParam<'static>; 5] {
    [
        sweep.into(),
        from.cell.into(),
        from.repeat.into(),
        to.cell.into(),
        to.repeat.into(),
    ]
}

/// All sweeps, by number.
pub(super) fn read_sweeps(sql: &impl SqlConnection) -> Result<Vec<SweepRow>, StoreError> {
    select_all(
        sql,
        select_sweeps_sql!("ORDER BY number"),
        &[],
        read_sweep_row,
    )
}

/// Audits of a sweep's rows, by trial.
pub(super) fn read_audits(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
) -> Result<Vec<Audit>, StoreError> {
    let text = select_audits_sql!(
        "JOIN trials USING (sweep, cell, repeat) WHERE sweep = $1 ORDER BY cell, repeat"
    );
    select_all(sql, text, &[sweep.into()], read_audit_row)
}

/// The audit of a trial, if there is one.
pub(super) fn read_audit(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    key: TrialKey,
) -> Result<Option<Audit>, StoreError> {
    let text = select_audits_sql!("WHERE sweep = $1 AND cell = $2 AND repeat = $3");
    let place = [sweep.into(), key.cell.into(), key.repeat.into()];
    Ok(select_all(sql, text, &place, read_audit_row)?.pop())
}

/// Hands out a sweep's earlier attempts, by trial, those of a trial in their order.
pub(super) fn read_all_attempts(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    each: &mut dyn FnMut(TrialKey, Attempt),
) -> Result<(), StoreError> {
    let text = "SELECT cell, repeat, cause, worker, seconds, attempt, checksum FROM attempts
                WHERE sweep = $1 ORDER BY cell, repeat, attempt";
    let read = sql.select_rows(text, &[sweep.into()], &mut |row| {
        each(read_trial_key(row)?, read_attempt_row(sweep, row)?);
        Ok(true)
    });
    read.map_err(|error| with_sweep_id(sql, sweep, error))
}

/// Whether any trial names this file of weights.
pub(super) fn has_trial_with_weights(
    sql: &impl SqlConnection,
    weights: &FileHash,
) -> Result<bool, StoreError> {
    let text = "SELECT cell FROM trials WHERE weights = $1 LIMIT 1";
    Ok(select_number(sql, text, &[SqlParam::Bytes(Some(&weights.0))])?.is_some())
}

/// Adds the id of the sweep to an error about damage. Runs a statement, so no other may be active.
fn with_sweep_id(sql: &impl SqlConnection, sweep: SweepNumber, error: StoreError) -> StoreError {
    let StoreError::Damaged(mut damage) = error else {
        return error;
    };
    let id = select_all(
        sql,
        "SELECT id FROM sweeps WHERE number = $1",
        &[sweep.into()],
        |row| Ok(row.get_text(0)?.to_owned()),
    );
    if let Some(id) = id.ok().and_then(|mut ids| ids.pop()) {
        damage.sweep = id;
    }

    StoreError::Damaged(damage)
}

fn find_damaged_predictions(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
) -> Result<Vec<Damage>, StoreError> {
    let mut damages = Vec::new();
    let text = "SELECT cell, repeat, data, checksum FROM predictions WHERE sweep = $1";
    sql.select_rows(text, &[sweep.into()], &mut |row| {
        collect_damage(
            read_predictions_column(sweep, row, 2),
            &mut damages,
            &mut drop,
        )
    })?;

    Ok(damages)
}

/// Selects each trial with its own statement, for an embedded database without round trips.
pub(in crate::store) fn select_whole_trials_one_by_one(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    keys: &[TrialKey],
    each: RowCallback<'_>,
) -> Result<(), StoreError> {
    let text = select_whole_trials_sql!("trials", "WHERE sweep = $1 AND cell = $2 AND repeat = $3");
    keys.iter().try_for_each(|key| {
        sql.select_rows(
            text,
            &[sweep.into(), key.cell.into(), key.repeat.into()],
            each,
        )
    })
}

/// The sweep with this number, if it exists.
pub(super) fn find_sweep(
    sql: &impl SqlConnection,
    number: SweepNumber,
) -> Result<Option<SweepRow>, StoreError> {
    Ok(select_all(
        sql,
        select_sweeps_sql!("WHERE number = $1"),
        &[number.into()],
        read_sweep_row,
    )?
    .pop())
}
