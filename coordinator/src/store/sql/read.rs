//! Rows into what they mean.

use ergodic_common::spec::SpecSource;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::trial::{Curve, Predictions};
use ergodic_common::{Outcome, TrialKey, TrialResult};

use super::{
    RowCallback, SqlConnection, SqlParam, SqlRow, damaged_column, select_all, select_number,
};
use crate::interval_set::IntervalSet;
use crate::records::{DataPin, Fence, LeaseRow, SweepRow, SweepTallies};
use crate::store::encoding::{
    StoredNumbers, TrialFields, attempt_checksum, curve_checksum, decode_f64s, decode_files,
    decode_finding, decode_intervals, decode_outcome, decode_predictions, decode_state,
    lease_checksum, predictions_checksum, sweep_checksum,
};
use crate::store::{
    Attempt, Audit, CurveView, Damage, EndedTrial, RowCursor, SampledTrial, StoreError,
    StoreReader, StoredTrial, TrialRange,
};

/// The columns of [`sweep`], and which.
macro_rules! sweeps {
    ($rest:literal) => {
        concat!(
            "SELECT number, id, file, text, settings, data_hash, data_train, data_words, state, launched_at, files, releases,
                    duplicates, mismatches, fenced, priority, weight, checksum, launched_by, grammar, cells
             FROM sweeps ",
            $rest
        )
    };
}

/// The columns of [`small_trial`], and whence.
macro_rules! small_trials {
    ($rest:literal) => {
        concat!(
            "SELECT cell, repeat, outcome, step, cause, steps, seconds, worker, digest, metrics, isa, weights, checksum
             FROM trials ",
            $rest
        )
    };
}
pub(super) use small_trials;

/// The columns of [`whole_trial`]; a statement goes on with whence. A trial whose curve is missing has a row, too.
macro_rules! whole_trials {
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
pub(in crate::store) use whole_trials;

/// The columns of [`audit`], and whence.
macro_rules! audits {
    ($rest:literal) => {
        concat!(
            "SELECT cell, repeat, process, finding, auditor, auditor_process, why FROM audits ",
            $rest
        )
    };
}

impl<S: SqlConnection + Send> StoreReader for S {
    fn read_sweeps(&self) -> Result<Vec<SweepRow>, StoreError> {
        select_all(self, sweeps!("ORDER BY number"), &[], read_sweep_row)
    }

    fn read_unfinished_removals(&self) -> Result<Vec<i64>, StoreError> {
        select_all(
            self,
            "SELECT sweep FROM removals ORDER BY sweep",
            &[],
            |row| row.get_int(0),
        )
    }

    fn has_trial_with_weights(&self, weights: &[u8; 32]) -> Result<bool, StoreError> {
        has_trial_with_weights(self, weights)
    }

    fn read_leases(&self) -> Result<(Vec<LeaseRow>, u64), StoreError> {
        let text = "SELECT lease, epoch, sweep, class, worker, trials, checksum, audits FROM leases ORDER BY lease";
        let next = select_number(self, "SELECT value FROM meta WHERE key = 'next_lease'", &[])?;
        let mut leases = Vec::new();
        self.select_rows(text, &[], &mut |row| {
            match read_lease_row(row) {
                Ok(lease) => leases.push(lease),
                // Of a lease that nobody knows, nothing is stored any more.
                Err(error) => tracing::error!(
                    lease = row.get_int(0).ok(),
                    "the row of a lease is damaged ({error}): it counts as ended, its trials are given out again"
                ),
            }

            Ok(true)
        })?;

        Ok((
            leases,
            next.ok_or_else(|| damaged_column(0, "the number of the next lease"))? as u64,
        ))
    }

    fn read_intact_trials(
        &self,
        sweep: i64,
        each: &mut dyn FnMut(StoredTrial),
    ) -> Result<Vec<Damage>, StoreError> {
        let mut damages = Vec::new();
        let text = whole_trials!("trials", "WHERE sweep = $1");
        self.select_rows(text, &[sweep.into()], &mut |row| {
            collect_damage(read_whole_trial_row(sweep, row), &mut damages, &mut *each)
        })?;

        // Those that belong to no row.
        damages.extend(find_damaged_predictions(self, sweep)?);
        damages.sort_by_key(|damage| damage.key);
        damages.dedup_by_key(|damage| damage.key);
        Ok(damages)
    }

    fn read_intact_ended_trials(
        &self,
        sweep: i64,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<Vec<Damage>, StoreError> {
        let mut damages = Vec::new();
        self.select_rows(ENDED_TRIALS_SQL, &range_params(sweep, part), &mut |row| {
            collect_damage(read_ended_trial_row(sweep, row), &mut damages, &mut *each)
        })?;
        Ok(damages)
    }

    fn read_weights_hashes(
        &self,
        sweep: i64,
        each: &mut dyn FnMut(TrialKey, [u8; 32]),
    ) -> Result<Vec<Damage>, StoreError> {
        let text = "SELECT cell, repeat, weights FROM trials WHERE sweep = $1 AND weights IS NOT NULL ORDER BY cell, repeat";
        let mut damages = Vec::new();
        let hash = |row: &dyn SqlRow| Ok((read_trial_key(row)?, row.get_optional_hash(2)?));
        self.select_rows(text, &[sweep.into()], &mut |row| {
            let named = with_trial_context(sweep, row, "row", || hash(row));
            collect_damage(named, &mut damages, &mut |(key, hash)| {
                hash.into_iter().for_each(|hash| each(key, hash))
            })
        })?;

        Ok(damages)
    }

    fn read_trials(
        &self,
        sweep: i64,
        each: &mut dyn FnMut(StoredTrial) -> bool,
    ) -> Result<(), StoreError> {
        let text = small_trials!("WHERE sweep = $1 ORDER BY cell, repeat");
        let read = self.select_rows(text, &[sweep.into()], &mut |row| {
            Ok(each(read_trial_row(sweep, row)?))
        });
        read.map_err(|error| with_sweep_id(self, sweep, error))
    }

    fn read_row_cursors(&self, sweep: i64, row: u64) -> Result<[RowCursor; 2], StoreError> {
        // What is stored later has a greater number: of a row that is removed the number may be given out again, and then it is
        // the print that tells. The checksum covers all that matters; old rows without one are told apart by their digest.
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
        sweep: i64,
        row: u64,
        each: &mut dyn FnMut(StoredTrial) -> bool,
    ) -> Result<(), StoreError> {
        let text = whole_trials!(
            "trials",
            "WHERE sweep = $1 AND curve > $2 ORDER BY cell, repeat"
        );
        let read = self.select_rows(text, &[sweep.into(), row.into()], &mut |row| {
            Ok(each(read_whole_trial_row(sweep, row)?))
        });
        read.map_err(|error| with_sweep_id(self, sweep, error))
    }

    fn read_trial(&self, sweep: i64, key: TrialKey) -> Result<Option<StoredTrial>, StoreError> {
        let mut found = None;
        let read = self.select_whole_trials(sweep, &[key], &mut |row| {
            found = Some(read_whole_trial_row(sweep, row)?);
            Ok(true)
        });
        read.map_err(|error| with_sweep_id(self, sweep, error))?;
        Ok(found)
    }

    fn read_attempts(&self, sweep: i64, key: TrialKey) -> Result<Vec<Attempt>, StoreError> {
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

    fn read_audits(&self, sweep: i64) -> Result<Vec<Audit>, StoreError> {
        select_all(
            self,
            audits!(
                "JOIN trials USING (sweep, cell, repeat) WHERE sweep = $1 ORDER BY cell, repeat"
            ),
            &[sweep.into()],
            read_audit_row,
        )
    }

    fn read_audit(&self, sweep: i64, key: TrialKey) -> Result<Option<Audit>, StoreError> {
        let text = audits!("WHERE sweep = $1 AND cell = $2 AND repeat = $3");
        Ok(select_all(
            self,
            text,
            &[sweep.into(), key.cell.into(), key.repeat.into()],
            read_audit_row,
        )?
        .pop())
    }

    fn read_all_attempts(
        &self,
        sweep: i64,
        each: &mut dyn FnMut(TrialKey, Attempt),
    ) -> Result<(), StoreError> {
        let text = "SELECT cell, repeat, cause, worker, seconds, attempt, checksum FROM attempts
                    WHERE sweep = $1 ORDER BY cell, repeat, attempt";
        let read = self.select_rows(text, &[sweep.into()], &mut |row| {
            each(read_trial_key(row)?, read_attempt_row(sweep, row)?);
            Ok(true)
        });
        read.map_err(|error| with_sweep_id(self, sweep, error))
    }

    fn read_ended_trials(
        &self,
        sweep: i64,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<(), StoreError> {
        let read = self.select_rows(ENDED_TRIALS_SQL, &range_params(sweep, part), &mut |row| {
            each(read_ended_trial_row(sweep, row)?);
            Ok(true)
        });
        read.map_err(|error| with_sweep_id(self, sweep, error))
    }

    fn read_curves(
        &self,
        sweep: i64,
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
        sweep: i64,
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

/// The rows of a part of a sweep's trials, as [`ended`] reads them.
const ENDED_TRIALS_SQL: &str = small_trials!(
    "WHERE sweep = $1 AND (cell, repeat) >= ($2, $3) AND (cell, repeat) < ($4, $5) ORDER BY cell, repeat"
);

/// Goes on past what is damaged, and remembers it.
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

/// Parameters of a statement about a part of a sweep's trials.
fn range_params(sweep: i64, TrialRange { from, to }: TrialRange) -> [SqlParam<'static>; 5] {
    [
        sweep.into(),
        from.cell.into(),
        from.repeat.into(),
        to.cell.into(),
        to.repeat.into(),
    ]
}

/// Whether a trial names this file of weights.
pub(super) fn has_trial_with_weights(
    sql: &impl SqlConnection,
    weights: &[u8; 32],
) -> Result<bool, StoreError> {
    let text = "SELECT cell FROM trials WHERE weights = $1 LIMIT 1";
    Ok(select_number(sql, text, &[SqlParam::Bytes(Some(weights))])?.is_some())
}

/// A damage with the id of its sweep, once no statement is under way.
fn with_sweep_id(sql: &impl SqlConnection, sweep: i64, error: StoreError) -> StoreError {
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
    sweep: i64,
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

/// One statement for each of them: for a database that is called and not sent to.
pub(in crate::store) fn select_whole_trials_one_by_one(
    sql: &impl SqlConnection,
    sweep: i64,
    keys: &[TrialKey],
    each: RowCallback<'_>,
) -> Result<(), StoreError> {
    let text = whole_trials!("trials", "WHERE sweep = $1 AND cell = $2 AND repeat = $3");
    keys.iter().try_for_each(|key| {
        sql.select_rows(
            text,
            &[sweep.into(), key.cell.into(), key.repeat.into()],
            each,
        )
    })
}

/// The sweep of this number, if there is one.
pub(super) fn find_sweep(
    sql: &impl SqlConnection,
    number: i64,
) -> Result<Option<SweepRow>, StoreError> {
    Ok(select_all(
        sql,
        sweeps!("WHERE number = $1"),
        &[number.into()],
        read_sweep_row,
    )?
    .pop())
}

fn read_sweep_row(row: &dyn SqlRow) -> Result<SweepRow, StoreError> {
    let named = |error: StoreError| {
        let number = row.get_int(0).unwrap_or_default();
        let id = row.get_text(1).unwrap_or("?");
        StoreError::Failed(format!(
            "the store is damaged: the row of the sweep {id}, number {number}: {}. Put the store back from a backup",
            error_text(error)
        ))
    };

    let read = || {
        let sweep = read_unchecked_sweep_row(row)?;
        verify_checksum(row, 17, || sweep_checksum(&sweep))?;
        Ok(sweep)
    };
    read().map_err(named)
}

fn read_unchecked_sweep_row(row: &dyn SqlRow) -> Result<SweepRow, StoreError> {
    Ok(SweepRow {
        number: row.get_int(0)?,
        id: row.get_text(1)?.to_owned(),
        source: SpecSource {
            file: row.get_text(2)?.to_owned(),
            text: row.get_text(3)?.to_owned(),
            settings: serde_json::from_str(row.get_text(4)?)
                .map_err(|_| damaged_column(4, "a list of settings"))?,
            files: decode_files(row.get_bytes(10)?)
                .ok_or_else(|| damaged_column(10, "pinned files"))?,
            grammar: row
                .get_int(19)?
                .try_into()
                .map_err(|_| damaged_column(19, "a version of the grammar"))?,
            cells_fingerprint: row.get_optional_hash(20)?,
        },
        data: DataPin {
            hash: row.get_optional_hash(5)?,
            train: row
                .get_int(6)?
                .try_into()
                .map_err(|_| damaged_column(6, "a number of images"))?,
            provenance: row.get_text(7)?.to_owned(),
        },
        state: decode_state(row.get_int(8)?).ok_or_else(|| damaged_column(8, "a known state"))?,
        launched_at: row.get_real(9)?,
        launched_by: row.get_text(18)?.to_owned(),
        tallies: SweepTallies {
            releases: row.get_int(11)? as u64,
            duplicates: row.get_int(12)? as u64,
            mismatches: row.get_int(13)? as u64,
            fenced: row.get_int(14)? as u64,
        },
        share: Share {
            priority: row
                .get_int(15)?
                .try_into()
                .map_err(|_| damaged_column(15, "a priority"))?,
            weight: row.get_real(16)?,
        },
    })
}

fn read_lease_row(row: &dyn SqlRow) -> Result<LeaseRow, StoreError> {
    let trials = row.get_bytes(5)?;
    let lease = LeaseRow {
        fence: Fence {
            lease: row.get_int(0)? as u64,
            epoch: row.get_int(1)? as u64,
        },
        sweep: row.get_int(2)?,
        class: row
            .get_int(3)?
            .try_into()
            .map_err(|_| damaged_column(3, "a class"))?,
        worker: row.get_text(4)?.to_owned(),
        trials: IntervalSet::default(),
        audits: row.get_optional_text(7)?.map(str::to_owned),
    };
    verify_checksum(row, 6, || lease_checksum(&lease, trials))?;

    Ok(LeaseRow {
        trials: decode_intervals(trials),
        ..lease
    })
}

fn read_audit_row(row: &dyn SqlRow) -> Result<Audit, StoreError> {
    Ok(Audit {
        key: read_trial_key(row)?,
        process: row.get_text(2)?.to_owned(),
        finding: decode_finding(row.get_int(3)?)
            .ok_or_else(|| damaged_column(3, "a known finding"))?,
        auditor: row.get_text(4)?.to_owned(),
        auditor_process: row.get_text(5)?.to_owned(),
        why: row.get_text(6)?.to_owned(),
    })
}

/// The trial that a row begins with.
pub(in crate::store) fn read_trial_key(row: &dyn SqlRow) -> Result<TrialKey, StoreError> {
    Ok(TrialKey {
        cell: row.get_int(0)? as u64,
        repeat: row
            .get_int(1)?
            .try_into()
            .map_err(|_| damaged_column(1, "a repeat"))?,
    })
}

/// Compares the checksum in a column, if there is one, with what it should be.
fn verify_checksum(
    row: &dyn SqlRow,
    at: usize,
    wanted: impl FnOnce() -> i64,
) -> Result<(), StoreError> {
    match row.get_optional_int(at)? {
        Some(stored) if stored != wanted() => {
            Err(StoreError::Failed("it does not fit its checksum".into()))
        }
        _ => Ok(()),
    }
}

/// Whatever is wrong with a row that begins with its trial is told with the trial.
fn with_trial_context<T>(
    sweep: i64,
    row: &dyn SqlRow,
    what: &'static str,
    read: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    read().map_err(|error| match read_trial_key(row) {
        Ok(key) => StoreError::Damaged(Box::new(Damage {
            sweep: format!("number {sweep}"),
            key,
            what,
            why: error_text(error),
        })),
        Err(error) => error,
    })
}

fn error_text(error: StoreError) -> String {
    match error {
        StoreError::Failed(why) => why,
        other => other.to_string(),
    }
}

/// The fields of a row, if they fit its checksum.
fn read_trial_fields<'r>(sweep: i64, row: &'r dyn SqlRow) -> Result<TrialFields<'r>, StoreError> {
    let fields = TrialFields {
        key: read_trial_key(row)?,
        outcome: row.get_int(2)?,
        step: row.get_optional_int(3)?,
        cause: row.get_optional_text(4)?,
        steps: row.get_int(5)?,
        seconds: row.get_real(6)?,
        worker: row.get_text(7)?,
        digest: row.get_bytes(8)?,
        metrics: row.get_bytes(9)?,
        isa: row.get_text(10)?,
        weights: row.get_optional_bytes(11)?,
    };
    verify_checksum(row, 12, || fields.checksum(sweep))?;

    Ok(fields)
}

fn read_outcome(fields: &TrialFields<'_>) -> Result<Outcome, StoreError> {
    let cause = fields.cause.map(str::to_owned);
    decode_outcome(fields.outcome, fields.step, cause)
        .ok_or_else(|| damaged_column(2, "a known outcome"))
}

/// What statistics need of a row.
fn read_ended_trial_row<'r>(sweep: i64, row: &'r dyn SqlRow) -> Result<EndedTrial<'r>, StoreError> {
    with_trial_context(sweep, row, "row", || {
        let fields = read_trial_fields(sweep, row)?;
        let metrics = StoredNumbers::new(fields.metrics);
        Ok(EndedTrial {
            key: fields.key,
            outcome: read_outcome(&fields)?,
            metrics,
            seconds: fields.seconds,
        })
    })
}

pub(super) fn read_trial_row(sweep: i64, row: &dyn SqlRow) -> Result<StoredTrial, StoreError> {
    with_trial_context(sweep, row, "row", || {
        let fields = read_trial_fields(sweep, row)?;
        Ok(StoredTrial {
            result: TrialResult {
                key: fields.key,
                outcome: read_outcome(&fields)?,
                steps: fields.steps as u64,
                seconds: fields.seconds,
                metrics: decode_f64s(fields.metrics),
                digest: row
                    .get_optional_hash(8)?
                    .ok_or_else(|| damaged_column(8, "a digest"))?,
                curve: Curve::default(),
                predictions: Predictions::default(),
                weights_hash: row.get_optional_hash(11)?,
                isa: fields.isa.to_owned(),
            },
            worker: fields.worker.to_owned(),
        })
    })
}

/// A row with its curve and predictions.
pub(in crate::store) fn read_whole_trial_row(
    sweep: i64,
    row: &dyn SqlRow,
) -> Result<StoredTrial, StoreError> {
    let mut trial = read_trial_row(sweep, row)?;
    trial.result.curve = read_curve_column(sweep, row, 13)?.1.to_curve();
    if with_trial_context(sweep, row, "predictions", || row.get_optional_bytes(15))?.is_some() {
        trial.result.predictions = read_predictions_column(sweep, row, 15)?;
    }
    Ok(trial)
}

fn read_attempt_row(sweep: i64, row: &dyn SqlRow) -> Result<Attempt, StoreError> {
    with_trial_context(sweep, row, "earlier attempt", || {
        let cause = row.get_optional_text(2)?.unwrap_or_default().to_owned();
        let attempt = Attempt {
            cause,
            worker: row.get_text(3)?.to_owned(),
            seconds: row.get_real(4)?,
        };

        let key = read_trial_key(row)?;
        let number = row.get_int(5)?;
        verify_checksum(row, 6, || attempt_checksum(sweep, key, number, &attempt))?;
        Ok(attempt)
    })
}

/// The curve in a column, the next one of which is its checksum, and its trial.
fn read_curve_column<'r>(
    sweep: i64,
    row: &'r dyn SqlRow,
    at: usize,
) -> Result<(TrialKey, CurveView<'r>), StoreError> {
    with_trial_context(sweep, row, "curve", || {
        let key = read_trial_key(row)?;
        let data = row.get_bytes(at)?;
        verify_checksum(row, at + 1, || curve_checksum(sweep, key, data))?;
        Ok((
            key,
            CurveView::new(data).ok_or_else(|| damaged_column(at, "a curve"))?,
        ))
    })
}

/// The predictions in a column, the next one of which is their checksum.
fn read_predictions_column(
    sweep: i64,
    row: &dyn SqlRow,
    at: usize,
) -> Result<Predictions, StoreError> {
    with_trial_context(sweep, row, "predictions", || {
        let key = read_trial_key(row)?;
        let data = row.get_bytes(at)?;
        verify_checksum(row, at + 1, || predictions_checksum(sweep, key, data))?;
        decode_predictions(data).ok_or_else(|| damaged_column(at, "predictions"))
    })
}
