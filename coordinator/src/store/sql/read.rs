//! Rows into what they mean.

use ergodic_common::spec::SpecSource;
use ergodic_common::terms::Share;
use ergodic_common::trial::{Curve, Predictions};
use ergodic_common::{TrialKey, TrialResult};

use super::{Each, Fields, Sql, all, damaged, number};
use crate::core::{DataPin, Fence, LeaseRow, SweepRow, Tallies};
use crate::store::rows::{to_curve, to_f64s, to_files, to_finding, to_intervals, to_outcome, to_predictions, to_state};
use crate::store::{Attempt, Audit, Reader, StoreError, StoredTrial};

/// The columns of [`small_trial`], and whence.
macro_rules! small_trials {
    ($rest:literal) => {
        concat!(
            "SELECT cell, repeat, outcome, step, cause, steps, seconds, worker, digest, metrics, isa, weights, sweep, curve
             FROM trials ",
            $rest
        )
    };
}

/// The columns of [`whole_trial`]; a statement goes on with whence.
macro_rules! whole_trials {
    ($rest:literal) => {
        concat!(
            "SELECT cell, repeat, outcome, step, cause, steps, seconds, worker, digest, metrics, isa, weights,
                    curves.data, predictions.data ",
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

impl<S: Sql> Reader for S {
    fn sweeps(&self) -> Result<Vec<SweepRow>, StoreError> {
        let text = "SELECT number, id, file, text, settings, data_hash, data_train, data_words, state, launched_at,
                           files, releases, duplicates, mismatches, fenced, priority, weight
                    FROM sweeps ORDER BY number";
        all(self, text, &[], sweep)
    }

    fn leases(&self) -> Result<(Vec<LeaseRow>, u64), StoreError> {
        let text = "SELECT lease, epoch, sweep, class, worker, trials, audits FROM leases ORDER BY lease";
        let next = number(self, "SELECT value FROM meta WHERE key = 'next_lease'", &[])?;
        Ok((all(self, text, &[], lease)?, next.ok_or_else(|| damaged(0, "the number of the next lease"))? as u64))
    }

    fn trials(&self, sweep: i64, each: &mut dyn FnMut(StoredTrial) -> bool) -> Result<(), StoreError> {
        let text = small_trials!("WHERE sweep = $1 ORDER BY cell, repeat");
        self.select(text, &[sweep.into()], &mut |row| Ok(each(small_trial(row)?)))
    }

    fn trial(&self, sweep: i64, key: TrialKey) -> Result<Option<StoredTrial>, StoreError> {
        let mut found = None;
        self.whole_trials(sweep, &[key], &mut |row| {
            found = Some(whole_trial(row)?);
            Ok(true)
        })?;
        Ok(found)
    }

    fn attempts(&self, sweep: i64, key: TrialKey) -> Result<Vec<Attempt>, StoreError> {
        let text = "SELECT cause, worker, seconds FROM attempts
                    WHERE sweep = $1 AND cell = $2 AND repeat = $3 ORDER BY attempt";
        let attempt = |row: &dyn Fields| {
            let cause = row.maybe_text(0)?.unwrap_or_default().to_owned();
            Ok(Attempt { cause, worker: row.text(1)?.to_owned(), seconds: row.real(2)? })
        };
        all(self, text, &[sweep.into(), key.cell.into(), key.repeat.into()], attempt)
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

    fn curves(&self, sweep: i64, each: &mut dyn FnMut(TrialKey, Curve)) -> Result<(), StoreError> {
        let text = "SELECT cell, repeat, data FROM trials JOIN curves USING (curve)
                    WHERE sweep = $1 AND outcome = 1 ORDER BY cell, repeat";
        self.select(text, &[sweep.into()], &mut |row| {
            each(key(row)?, to_curve(row.bytes(2)?).ok_or_else(|| damaged(2, "a curve"))?);
            Ok(true)
        })
    }

    fn predictions(&self, sweep: i64, each: &mut dyn FnMut(TrialKey, Predictions) -> bool) -> Result<(), StoreError> {
        let text = "SELECT cell, repeat, data FROM predictions WHERE sweep = $1 ORDER BY cell, repeat";
        self.select(text, &[sweep.into()], &mut |row| {
            Ok(each(key(row)?, to_predictions(row.bytes(2)?).ok_or_else(|| damaged(2, "predictions"))?))
        })
    }
}

/// One statement for each of them: for a database that is called and not sent to.
pub(in crate::store) fn whole_trials_one_by_one(
    sql: &impl Sql,
    sweep: i64,
    keys: &[TrialKey],
    each: Each<'_>,
) -> Result<(), StoreError> {
    let text = whole_trials!(
        "FROM trials JOIN curves USING (curve) LEFT JOIN predictions USING (sweep, cell, repeat)
         WHERE sweep = $1 AND cell = $2 AND repeat = $3"
    );
    keys.iter().try_for_each(|key| sql.select(text, &[sweep.into(), key.cell.into(), key.repeat.into()], each))
}

fn sweep(row: &dyn Fields) -> Result<SweepRow, StoreError> {
    Ok(SweepRow {
        number: row.int(0)?,
        id: row.text(1)?.to_owned(),
        source: SpecSource {
            file: row.text(2)?.to_owned(),
            text: row.text(3)?.to_owned(),
            settings: serde_json::from_str(row.text(4)?).map_err(|_| damaged(4, "a list of settings"))?,
            files: to_files(row.bytes(10)?).ok_or_else(|| damaged(10, "pinned files"))?,
        },
        data: DataPin {
            hash: row.maybe_hash(5)?,
            train: row.int(6)?.try_into().map_err(|_| damaged(6, "a number of images"))?,
            words: row.text(7)?.to_owned(),
        },
        state: to_state(row.int(8)?).ok_or_else(|| damaged(8, "a known state"))?,
        launched_at: row.real(9)?,
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
    Ok(LeaseRow {
        fence: Fence { lease: row.int(0)? as u64, epoch: row.int(1)? as u64 },
        sweep: row.int(2)?,
        class: row.int(3)?.try_into().map_err(|_| damaged(3, "a class"))?,
        worker: row.text(4)?.to_owned(),
        trials: to_intervals(row.bytes(5)?),
        audits: row.maybe_text(6)?.map(str::to_owned),
    })
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

fn small_trial(row: &dyn Fields) -> Result<StoredTrial, StoreError> {
    let cause = row.maybe_text(4)?.map(str::to_owned);
    let outcome = to_outcome(row.int(2)?, row.maybe_int(3)?, cause).ok_or_else(|| damaged(2, "a known outcome"))?;
    Ok(StoredTrial {
        result: TrialResult {
            key: key(row)?,
            outcome,
            steps: row.int(5)? as u64,
            seconds: row.real(6)?,
            metrics: to_f64s(row.bytes(9)?),
            digest: row.maybe_hash(8)?.ok_or_else(|| damaged(8, "a digest"))?,
            curve: Curve::default(),
            predictions: Predictions::default(),
            weights: row.maybe_hash(11)?,
            isa: row.text(10)?.to_owned(),
        },
        worker: row.text(7)?.to_owned(),
    })
}

/// A row with its curve and predictions.
pub(in crate::store) fn whole_trial(row: &dyn Fields) -> Result<StoredTrial, StoreError> {
    let mut trial = small_trial(row)?;
    trial.result.curve = to_curve(row.bytes(12)?).ok_or_else(|| damaged(12, "a curve"))?;
    if let Some(bytes) = row.maybe_bytes(13)? {
        trial.result.predictions = to_predictions(bytes).ok_or_else(|| damaged(13, "predictions"))?;
    }
    Ok(trial)
}
