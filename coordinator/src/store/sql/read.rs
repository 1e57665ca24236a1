//! Rows into what they mean.

use ergodic_common::spec::SpecSource;
use ergodic_common::terms::Share;
use ergodic_common::trial::{Curve, Predictions};
use ergodic_common::{Outcome, TrialKey, TrialResult};

use super::{Each, Fields, Sql, Value, all, damaged, number};
use crate::core::interval::IntervalSet;
use crate::core::{DataPin, Fence, LeaseRow, SweepRow, Tallies};
use crate::store::rows::{
    Numbers, TrialFields, attempt_checksum, curve_checksum, lease_checksum, predictions_checksum, sweep_checksum,
    to_f64s, to_files, to_finding, to_intervals, to_outcome, to_predictions, to_state,
};
use crate::store::{
    Attempt, Audit, CurveView, Damage, EndedTrial, Part, Position, Reader, SampledTrial, StoreError, StoredTrial,
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
        concat!("SELECT cell, repeat, process, finding, auditor, auditor_process, why FROM audits ", $rest)
    };
}

impl<S: Sql + Send> Reader for S {
    fn sweeps(&self) -> Result<Vec<SweepRow>, StoreError> {
        all(self, sweeps!("ORDER BY number"), &[], sweep)
    }

    fn removals(&self) -> Result<Vec<i64>, StoreError> {
        all(self, "SELECT sweep FROM removals ORDER BY sweep", &[], |row| row.int(0))
    }

    fn names(&self, weights: &[u8; 32]) -> Result<bool, StoreError> {
        names(self, weights)
    }

    fn leases(&self) -> Result<(Vec<LeaseRow>, u64), StoreError> {
        let text = "SELECT lease, epoch, sweep, class, worker, trials, checksum, audits FROM leases ORDER BY lease";
        let next = number(self, "SELECT value FROM meta WHERE key = 'next_lease'", &[])?;
        let mut leases = Vec::new();
        self.select(text, &[], &mut |row| {
            match lease(row) {
                Ok(lease) => leases.push(lease),
                // Of a lease that nobody knows, nothing is stored any more.
                Err(error) => tracing::error!(
                    lease = row.int(0).ok(),
                    "the row of a lease is damaged ({error}): it counts as ended, its trials are given out again"
                ),
            }
            Ok(true)
        })?;
        Ok((leases, next.ok_or_else(|| damaged(0, "the number of the next lease"))? as u64))
    }

    fn sound_trials(&self, sweep: i64, each: &mut dyn FnMut(StoredTrial)) -> Result<Vec<Damage>, StoreError> {
        let mut damages = Vec::new();
        let text = whole_trials!("trials", "WHERE sweep = $1");
        self.select(text, &[sweep.into()], &mut |row| sound(whole_trial(sweep, row), &mut damages, &mut *each))?;
        // Those that belong to no row.
        damages.extend(damaged_predictions(self, sweep)?);
        damages.sort_by_key(|damage| damage.key);
        damages.dedup_by_key(|damage| damage.key);
        Ok(damages)
    }

    fn sound_ends(
        &self,
        sweep: i64,
        part: Part,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<Vec<Damage>, StoreError> {
        let mut damages = Vec::new();
        self.select(ENDED, &within(sweep, part), &mut |row| sound(ended(sweep, row), &mut damages, &mut *each))?;
        Ok(damages)
    }

    fn weights(&self, sweep: i64, each: &mut dyn FnMut(TrialKey, [u8; 32])) -> Result<Vec<Damage>, StoreError> {
        let text =
            "SELECT cell, repeat, weights FROM trials WHERE sweep = $1 AND weights IS NOT NULL ORDER BY cell, repeat";
        let mut damages = Vec::new();
        let hash = |row: &dyn Fields| Ok((key(row)?, row.maybe_hash(2)?));
        self.select(text, &[sweep.into()], &mut |row| {
            let named = of_trial(sweep, row, "row", || hash(row));
            sound(named, &mut damages, &mut |(key, hash)| hash.into_iter().for_each(|hash| each(key, hash)))
        })?;
        Ok(damages)
    }

    fn trials(&self, sweep: i64, each: &mut dyn FnMut(StoredTrial) -> bool) -> Result<(), StoreError> {
        let text = small_trials!("WHERE sweep = $1 ORDER BY cell, repeat");
        let read = self.select(text, &[sweep.into()], &mut |row| Ok(each(small_trial(sweep, row)?)));
        read.map_err(|error| with_id(self, sweep, error))
    }

    fn positions(&self, sweep: i64, row: u64) -> Result<[Position; 2], StoreError> {
        // What is stored later has a greater number: of a row that is removed the number may be given out again, and then it is
        // the print that tells. The checksum covers all that matters; old rows without one are told apart by their digest.
        let text = "SELECT cell, repeat, curve, checksum, digest FROM trials WHERE sweep = $1";
        let [mut here, mut end] = [Position::default(); 2];
        self.select(text, &[sweep.into()], &mut |fields| {
            let number = fields.int(2)? as u64;
            let print = match fields.maybe_int(3)? {
                Some(checksum) => checksum as u64,
                None => curve_checksum(sweep, key(fields)?, fields.bytes(4)?) as u64,
            };
            end.add(number, print);
            if number <= row {
                here.add(number, print);
            }
            Ok(true)
        })?;
        Ok([here, end])
    }

    fn rows_after(&self, sweep: i64, row: u64, each: &mut dyn FnMut(StoredTrial) -> bool) -> Result<(), StoreError> {
        let text = whole_trials!("trials", "WHERE sweep = $1 AND curve > $2 ORDER BY cell, repeat");
        let read = self.select(text, &[sweep.into(), row.into()], &mut |row| Ok(each(whole_trial(sweep, row)?)));
        read.map_err(|error| with_id(self, sweep, error))
    }

    fn trial(&self, sweep: i64, key: TrialKey) -> Result<Option<StoredTrial>, StoreError> {
        let mut found = None;
        let read = self.whole_trials(sweep, &[key], &mut |row| {
            found = Some(whole_trial(sweep, row)?);
            Ok(true)
        });
        read.map_err(|error| with_id(self, sweep, error))?;
        Ok(found)
    }

    fn attempts(&self, sweep: i64, key: TrialKey) -> Result<Vec<Attempt>, StoreError> {
        let text = "SELECT cell, repeat, cause, worker, seconds, attempt, checksum FROM attempts
                    WHERE sweep = $1 AND cell = $2 AND repeat = $3 ORDER BY attempt";
        let attempts = all(self, text, &[sweep.into(), key.cell.into(), key.repeat.into()], |row| attempt(sweep, row));
        attempts.map_err(|error| with_id(self, sweep, error))
    }

    fn audits(&self, sweep: i64) -> Result<Vec<Audit>, StoreError> {
        all(
            self,
            audits!("JOIN trials USING (sweep, cell, repeat) WHERE sweep = $1 ORDER BY cell, repeat"),
            &[sweep.into()],
            audit,
        )
    }

    fn audit(&self, sweep: i64, key: TrialKey) -> Result<Option<Audit>, StoreError> {
        let text = audits!("WHERE sweep = $1 AND cell = $2 AND repeat = $3");
        Ok(all(self, text, &[sweep.into(), key.cell.into(), key.repeat.into()], audit)?.pop())
    }

    fn all_attempts(&self, sweep: i64, each: &mut dyn FnMut(TrialKey, Attempt)) -> Result<(), StoreError> {
        let text = "SELECT cell, repeat, cause, worker, seconds, attempt, checksum FROM attempts
                    WHERE sweep = $1 ORDER BY cell, repeat, attempt";
        let read = self.select(text, &[sweep.into()], &mut |row| {
            each(key(row)?, attempt(sweep, row)?);
            Ok(true)
        });
        read.map_err(|error| with_id(self, sweep, error))
    }

    fn ended(&self, sweep: i64, part: Part, each: &mut dyn FnMut(EndedTrial<'_>)) -> Result<(), StoreError> {
        let read = self.select(ENDED, &within(sweep, part), &mut |row| {
            each(ended(sweep, row)?);
            Ok(true)
        });
        read.map_err(|error| with_id(self, sweep, error))
    }

    fn curves(&self, sweep: i64, part: Part, each: &mut dyn FnMut(SampledTrial<'_>)) -> Result<(), StoreError> {
        let text = "SELECT cell, repeat, data, curves.checksum, step FROM trials LEFT JOIN curves USING (curve)
                    WHERE sweep = $1 AND (cell, repeat) >= ($2, $3) AND (cell, repeat) < ($4, $5) AND outcome IN (1, 2)
                    ORDER BY cell, repeat";
        let read = self.select(text, &within(sweep, part), &mut |row| {
            let (key, curve) = checked_curve(sweep, row, 2)?;
            each(SampledTrial { key, diverged_at: row.maybe_int(4)?.map(|step| step as u64), curve });
            Ok(true)
        });
        read.map_err(|error| with_id(self, sweep, error))
    }

    fn predictions(&self, sweep: i64, each: &mut dyn FnMut(TrialKey, Predictions) -> bool) -> Result<(), StoreError> {
        let text = "SELECT cell, repeat, data, checksum FROM predictions WHERE sweep = $1 ORDER BY cell, repeat";
        let read = self.select(text, &[sweep.into()], &mut |row| Ok(each(key(row)?, predictions(sweep, row, 2)?)));
        read.map_err(|error| with_id(self, sweep, error))
    }
}

/// The rows of a part of a sweep's trials, as [`ended`] reads them.
const ENDED: &str = small_trials!(
    "WHERE sweep = $1 AND (cell, repeat) >= ($2, $3) AND (cell, repeat) < ($4, $5) ORDER BY cell, repeat"
);

/// Goes on past what is damaged, and remembers it.
fn sound<T>(
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
fn within(sweep: i64, Part { from, to }: Part) -> [Value<'static>; 5] {
    [sweep.into(), from.cell.into(), from.repeat.into(), to.cell.into(), to.repeat.into()]
}

/// Whether a trial names this file of weights.
pub(super) fn names(sql: &impl Sql, weights: &[u8; 32]) -> Result<bool, StoreError> {
    let text = "SELECT cell FROM trials WHERE weights = $1 LIMIT 1";
    Ok(number(sql, text, &[Value::Bytes(Some(weights))])?.is_some())
}

/// A damage with the id of its sweep, once no statement is under way.
fn with_id(sql: &impl Sql, sweep: i64, error: StoreError) -> StoreError {
    let StoreError::Damaged(mut damage) = error else { return error };
    let id = all(sql, "SELECT id FROM sweeps WHERE number = $1", &[sweep.into()], |row| Ok(row.text(0)?.to_owned()));
    if let Some(id) = id.ok().and_then(|mut ids| ids.pop()) {
        damage.sweep = id;
    }
    StoreError::Damaged(damage)
}

fn damaged_predictions(sql: &impl Sql, sweep: i64) -> Result<Vec<Damage>, StoreError> {
    let mut damages = Vec::new();
    let text = "SELECT cell, repeat, data, checksum FROM predictions WHERE sweep = $1";
    sql.select(text, &[sweep.into()], &mut |row| sound(predictions(sweep, row, 2), &mut damages, &mut drop))?;
    Ok(damages)
}

/// One statement for each of them: for a database that is called and not sent to.
pub(in crate::store) fn whole_trials_one_by_one(
    sql: &impl Sql,
    sweep: i64,
    keys: &[TrialKey],
    each: Each<'_>,
) -> Result<(), StoreError> {
    let text = whole_trials!("trials", "WHERE sweep = $1 AND cell = $2 AND repeat = $3");
    keys.iter().try_for_each(|key| sql.select(text, &[sweep.into(), key.cell.into(), key.repeat.into()], each))
}

/// The sweep of this number, if there is one.
pub(super) fn sweep_of(sql: &impl Sql, number: i64) -> Result<Option<SweepRow>, StoreError> {
    Ok(all(sql, sweeps!("WHERE number = $1"), &[number.into()], sweep)?.pop())
}

fn sweep(row: &dyn Fields) -> Result<SweepRow, StoreError> {
    let named = |error: StoreError| {
        let (number, id) = (row.int(0).unwrap_or_default(), row.text(1).unwrap_or("?"));
        StoreError::Failed(format!(
            "the store is damaged: the row of the sweep {id}, number {number}: {}. Put the store back from a backup",
            plain(error)
        ))
    };
    let read = || {
        let sweep = unchecked_sweep(row)?;
        check(row, 17, || sweep_checksum(&sweep))?;
        Ok(sweep)
    };
    read().map_err(named)
}

fn unchecked_sweep(row: &dyn Fields) -> Result<SweepRow, StoreError> {
    Ok(SweepRow {
        number: row.int(0)?,
        id: row.text(1)?.to_owned(),
        source: SpecSource {
            file: row.text(2)?.to_owned(),
            text: row.text(3)?.to_owned(),
            settings: serde_json::from_str(row.text(4)?).map_err(|_| damaged(4, "a list of settings"))?,
            files: to_files(row.bytes(10)?).ok_or_else(|| damaged(10, "pinned files"))?,
            grammar: row.int(19)?.try_into().map_err(|_| damaged(19, "a version of the grammar"))?,
            cells_fingerprint: row.maybe_hash(20)?,
        },
        data: DataPin {
            hash: row.maybe_hash(5)?,
            train: row.int(6)?.try_into().map_err(|_| damaged(6, "a number of images"))?,
            words: row.text(7)?.to_owned(),
        },
        state: to_state(row.int(8)?).ok_or_else(|| damaged(8, "a known state"))?,
        launched_at: row.real(9)?,
        launched_by: row.text(18)?.to_owned(),
        tallies: Tallies {
            releases: row.int(11)? as u64,
            duplicates: row.int(12)? as u64,
            mismatches: row.int(13)? as u64,
            fenced: row.int(14)? as u64,
        },
        share: Share {
            priority: row.int(15)?.try_into().map_err(|_| damaged(15, "a priority"))?,
            weight: row.real(16)?,
        },
    })
}

fn lease(row: &dyn Fields) -> Result<LeaseRow, StoreError> {
    let trials = row.bytes(5)?;
    let lease = LeaseRow {
        fence: Fence { lease: row.int(0)? as u64, epoch: row.int(1)? as u64 },
        sweep: row.int(2)?,
        class: row.int(3)?.try_into().map_err(|_| damaged(3, "a class"))?,
        worker: row.text(4)?.to_owned(),
        trials: IntervalSet::default(),
        audits: row.maybe_text(7)?.map(str::to_owned),
    };
    check(row, 6, || lease_checksum(&lease, trials))?;
    Ok(LeaseRow { trials: to_intervals(trials), ..lease })
}

fn audit(row: &dyn Fields) -> Result<Audit, StoreError> {
    Ok(Audit {
        key: key(row)?,
        process: row.text(2)?.to_owned(),
        finding: to_finding(row.int(3)?).ok_or_else(|| damaged(3, "a known finding"))?,
        auditor: row.text(4)?.to_owned(),
        auditor_process: row.text(5)?.to_owned(),
        why: row.text(6)?.to_owned(),
    })
}

/// The trial that a row begins with.
pub(in crate::store) fn key(row: &dyn Fields) -> Result<TrialKey, StoreError> {
    Ok(TrialKey { cell: row.int(0)? as u64, repeat: row.int(1)?.try_into().map_err(|_| damaged(1, "a repeat"))? })
}

/// Compares the checksum in a column, if there is one, with what it should be.
fn check(row: &dyn Fields, at: usize, wanted: impl FnOnce() -> i64) -> Result<(), StoreError> {
    match row.maybe_int(at)? {
        Some(stored) if stored != wanted() => Err(StoreError::Failed("it does not fit its checksum".into())),
        _ => Ok(()),
    }
}

/// Whatever is wrong with a row that begins with its trial is told with the trial.
fn of_trial<T>(
    sweep: i64,
    row: &dyn Fields,
    what: &'static str,
    read: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    read().map_err(|error| match key(row) {
        Ok(key) => {
            StoreError::Damaged(Box::new(Damage { sweep: format!("number {sweep}"), key, what, why: plain(error) }))
        }
        Err(error) => error,
    })
}

fn plain(error: StoreError) -> String {
    match error {
        StoreError::Failed(why) => why,
        other => other.to_string(),
    }
}

/// The fields of a row, if they fit its checksum.
fn trial_fields<'r>(sweep: i64, row: &'r dyn Fields) -> Result<TrialFields<'r>, StoreError> {
    let fields = TrialFields {
        key: key(row)?,
        outcome: row.int(2)?,
        step: row.maybe_int(3)?,
        cause: row.maybe_text(4)?,
        steps: row.int(5)?,
        seconds: row.real(6)?,
        worker: row.text(7)?,
        digest: row.bytes(8)?,
        metrics: row.bytes(9)?,
        isa: row.text(10)?,
        weights: row.maybe_bytes(11)?,
    };
    check(row, 12, || fields.checksum(sweep))?;
    Ok(fields)
}

fn outcome(fields: &TrialFields<'_>) -> Result<Outcome, StoreError> {
    let cause = fields.cause.map(str::to_owned);
    to_outcome(fields.outcome, fields.step, cause).ok_or_else(|| damaged(2, "a known outcome"))
}

/// What statistics need of a row.
fn ended<'r>(sweep: i64, row: &'r dyn Fields) -> Result<EndedTrial<'r>, StoreError> {
    of_trial(sweep, row, "row", || {
        let fields = trial_fields(sweep, row)?;
        let metrics = Numbers::new(fields.metrics);
        Ok(EndedTrial { key: fields.key, outcome: outcome(&fields)?, metrics, seconds: fields.seconds })
    })
}

pub(super) fn small_trial(sweep: i64, row: &dyn Fields) -> Result<StoredTrial, StoreError> {
    of_trial(sweep, row, "row", || {
        let fields = trial_fields(sweep, row)?;
        Ok(StoredTrial {
            result: TrialResult {
                key: fields.key,
                outcome: outcome(&fields)?,
                steps: fields.steps as u64,
                seconds: fields.seconds,
                metrics: to_f64s(fields.metrics),
                digest: row.maybe_hash(8)?.ok_or_else(|| damaged(8, "a digest"))?,
                curve: Curve::default(),
                predictions: Predictions::default(),
                weights_hash: row.maybe_hash(11)?,
                isa: fields.isa.to_owned(),
            },
            worker: fields.worker.to_owned(),
        })
    })
}

/// A row with its curve and predictions.
pub(in crate::store) fn whole_trial(sweep: i64, row: &dyn Fields) -> Result<StoredTrial, StoreError> {
    let mut trial = small_trial(sweep, row)?;
    trial.result.curve = checked_curve(sweep, row, 13)?.1.to_curve();
    if of_trial(sweep, row, "predictions", || row.maybe_bytes(15))?.is_some() {
        trial.result.predictions = predictions(sweep, row, 15)?;
    }
    Ok(trial)
}

fn attempt(sweep: i64, row: &dyn Fields) -> Result<Attempt, StoreError> {
    of_trial(sweep, row, "earlier attempt", || {
        let cause = row.maybe_text(2)?.unwrap_or_default().to_owned();
        let attempt = Attempt { cause, worker: row.text(3)?.to_owned(), seconds: row.real(4)? };
        let (key, number) = (key(row)?, row.int(5)?);
        check(row, 6, || attempt_checksum(sweep, key, number, &attempt))?;
        Ok(attempt)
    })
}

/// The curve in a column, the next one of which is its checksum, and its trial.
fn checked_curve<'r>(sweep: i64, row: &'r dyn Fields, at: usize) -> Result<(TrialKey, CurveView<'r>), StoreError> {
    of_trial(sweep, row, "curve", || {
        let (key, data) = (key(row)?, row.bytes(at)?);
        check(row, at + 1, || curve_checksum(sweep, key, data))?;
        Ok((key, CurveView::new(data).ok_or_else(|| damaged(at, "a curve"))?))
    })
}

/// The predictions in a column, the next one of which is their checksum.
fn predictions(sweep: i64, row: &dyn Fields, at: usize) -> Result<Predictions, StoreError> {
    of_trial(sweep, row, "predictions", || {
        let (key, data) = (key(row)?, row.bytes(at)?);
        check(row, at + 1, || predictions_checksum(sweep, key, data))?;
        to_predictions(data).ok_or_else(|| damaged(at, "predictions"))
    })
}
