//! Decodes rows of the database, and compares each with its checksum.

use ergodic_common::ids::{
    CellIndex, CellsFingerprint, DatasetHash, Epoch, Fence, FileHash, LeaseId, Repeat, ShapeClass,
    SweepNumber, WeightsDigest, WorkerId,
};
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::trial::{MetricCurve, Predictions};
use ergodic_common::{Outcome, TrialKey, TrialResult};

use crate::interval_set::IntervalSet;
use crate::records::{DataPin, LeaseRow, SweepRow, SweepTallies};
use crate::store::CurveView;
use crate::store::checksum::{
    TrialFields, attempt_checksum, curve_checksum, lease_checksum, predictions_checksum,
    sweep_checksum,
};
use crate::store::encoding::{
    StoredNumbers, decode_f64s, decode_files, decode_finding, decode_intervals, decode_outcome,
    decode_predictions, decode_state,
};
use crate::store::error::{Damage, StoreError};
use crate::store::sql::{SqlRow, damaged_column};
use crate::store::types::{Attempt, Audit, EndedTrial, StoredTrial};

pub(crate) fn read_sweep_row(row: &dyn SqlRow) -> Result<SweepRow, StoreError> {
    read_checked_sweep_row(row).map_err(|error| {
        let number = row.get_int(0).unwrap_or_default();
        let id = row.get_text(1).unwrap_or("?");
        StoreError::Failed(format!(
            "the store is damaged: the row of the sweep {id}, number {number}: {}. Restore the store from a backup",
            error_text(error)
        ))
    })
}

fn read_checked_sweep_row(row: &dyn SqlRow) -> Result<SweepRow, StoreError> {
    let sweep = read_unchecked_sweep_row(row)?;
    verify_checksum(row, 17, || sweep_checksum(&sweep))?;
    Ok(sweep)
}

fn read_unchecked_sweep_row(row: &dyn SqlRow) -> Result<SweepRow, StoreError> {
    Ok(SweepRow {
        number: SweepNumber(row.get_int(0)?),
        id: row.get_text(1)?.into(),
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
            cells_fingerprint: row.get_optional_hash(20)?.map(CellsFingerprint),
        },
        data: DataPin {
            hash: row.get_optional_hash(5)?.map(DatasetHash),
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
            lost_leases: row.get_int(11)? as u64,
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

pub(crate) fn read_lease_row(row: &dyn SqlRow) -> Result<LeaseRow, StoreError> {
    let trials = row.get_bytes(5)?;
    let lease = LeaseRow {
        fence: Fence {
            lease: LeaseId(row.get_int(0)? as u64),
            epoch: Epoch(row.get_int(1)? as u64),
        },
        sweep: SweepNumber(row.get_int(2)?),
        class: row
            .get_int(3)?
            .try_into()
            .map(ShapeClass)
            .map_err(|_| damaged_column(3, "a class"))?,
        worker: row.get_text(4)?.into(),
        trials: IntervalSet::default(),
        audits: row.get_optional_text(7)?.map(WorkerId::from),
    };
    verify_checksum(row, 6, || lease_checksum(&lease, trials))?;

    Ok(LeaseRow {
        trials: decode_intervals(trials),
        ..lease
    })
}

pub(crate) fn read_audit_row(row: &dyn SqlRow) -> Result<Audit, StoreError> {
    Ok(Audit {
        key: read_trial_key(row)?,
        process: row.get_text(2)?.into(),
        finding: decode_finding(row.get_int(3)?)
            .ok_or_else(|| damaged_column(3, "a known finding"))?,
        auditor: row.get_text(4)?.to_owned(),
        auditor_process: row.get_text(5)?.into(),
        why: row.get_text(6)?.to_owned(),
    })
}

/// Reads the key of the trial in the first columns of a row.
pub(in crate::store) fn read_trial_key(row: &dyn SqlRow) -> Result<TrialKey, StoreError> {
    Ok(TrialKey {
        cell: CellIndex(row.get_int(0)? as u64),
        repeat: row
            .get_int(1)?
            .try_into()
            .map(Repeat)
            .map_err(|_| damaged_column(1, "a repeat"))?,
    })
}

/// Compares the checksum in a column, if there is one, with the expected one.
pub(crate) fn verify_checksum(
    row: &dyn SqlRow,
    at: usize,
    wanted: impl FnOnce() -> i64,
) -> Result<(), StoreError> {
    match row.get_optional_int(at)? {
        Some(stored) if stored != wanted() => {
            Err(StoreError::Failed("its checksum does not match".into()))
        }
        _ => Ok(()),
    }
}

/// Adds the trial in the first columns of a row to any error about the row.
pub(crate) fn with_trial_context<T>(
    sweep: SweepNumber,
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

/// Reads the fields of a row, and compares them with the checksum.
fn read_trial_fields<'r>(
    sweep: SweepNumber,
    row: &'r dyn SqlRow,
) -> Result<TrialFields<'r>, StoreError> {
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

/// Reads the part of a row that statistics need.
pub(crate) fn read_ended_trial_row<'r>(
    sweep: SweepNumber,
    row: &'r dyn SqlRow,
) -> Result<EndedTrial<'r>, StoreError> {
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

/// Reads the part of a row that statistics need, and the row's checksum. A row from before checksums gets the one that it would have.
pub(in crate::store::sql) fn read_checked_ended_trial_row<'r>(
    sweep: SweepNumber,
    row: &'r dyn SqlRow,
) -> Result<(EndedTrial<'r>, i64), StoreError> {
    let trial = read_ended_trial_row(sweep, row)?;
    let checksum = match row.get_optional_int(12)? {
        Some(checksum) => checksum,
        None => read_trial_fields(sweep, row)?.checksum(sweep),
    };
    Ok((trial, checksum))
}

pub(crate) fn read_trial_row(
    sweep: SweepNumber,
    row: &dyn SqlRow,
) -> Result<StoredTrial, StoreError> {
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
                    .map(WeightsDigest)
                    .ok_or_else(|| damaged_column(8, "a digest"))?,
                curve: MetricCurve::default(),
                predictions: Predictions::default(),
                weights_hash: row.get_optional_hash(11)?.map(FileHash),
                isa: fields.isa.to_owned(),
                output: None,
            },
            worker: fields.worker.to_owned(),
        })
    })
}

/// Reads a row with its curve and predictions.
pub(in crate::store) fn read_whole_trial_row(
    sweep: SweepNumber,
    row: &dyn SqlRow,
) -> Result<StoredTrial, StoreError> {
    let mut trial = read_trial_row(sweep, row)?;
    trial.result.curve = read_curve_column(sweep, row, 13)?.1.to_curve();
    if with_trial_context(sweep, row, "predictions", || row.get_optional_bytes(15))?.is_some() {
        trial.result.predictions = read_predictions_column(sweep, row, 15)?;
    }
    Ok(trial)
}

pub(crate) fn read_attempt_row(
    sweep: SweepNumber,
    row: &dyn SqlRow,
) -> Result<Attempt, StoreError> {
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

/// Reads the trial and its curve in column `at`, whose checksum is in the next column.
pub(crate) fn read_curve_column<'r>(
    sweep: SweepNumber,
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

/// Reads the predictions in column `at`, whose checksum is in the next column.
pub(crate) fn read_predictions_column(
    sweep: SweepNumber,
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
