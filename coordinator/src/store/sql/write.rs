//! Writes as statements, within a transaction that the caller begins and commits.

use std::collections::HashMap;

use ergodic_common::terms::Share;
use ergodic_common::{TrialKey, TrialResult};

use super::{Sql, Value, all, damaged, key, number, whole_trial};
use crate::core::{Ended, LeaseRow, SweepRow, SweepState, Tallies};
use crate::store::rows::{FAILED, from_files, from_intervals, from_state, same_bits};
use crate::store::{Batch, Report, StoreError, Write, Written};

/// Applies a write.
pub(in crate::store) fn apply(sql: &impl Sql, write: &Write) -> Result<Written, StoreError> {
    match write {
        Write::Sweep(row) => insert_sweep(sql, row).map(Written::Sweep),
        Write::Lease(row) => put_lease(sql, row).map(|()| Written::Done),
        Write::Shrink(row) => shrink_lease(sql, row).map(|()| Written::Done),
        Write::EndLeases(ended) => end_leases(sql, ended).map(|()| Written::Done),
        Write::State(sweep, state) => set_state(sql, *sweep, *state).map(|()| Written::Done),
        Write::Share(sweep, share) => set_share(sql, *sweep, *share).map(|()| Written::Done),
        Write::Results(batch) => put_results(sql, batch).map(Written::Results),
        Write::Verdict(sweep, result) => {
            sql.insert_trials(*sweep, "", std::slice::from_ref(result)).map(|_| Written::Done)
        }
        Write::Retry(sweep) => retry(sql, *sweep).map(Written::Retried),
        Write::Probe => probe(sql).map(|()| Written::Done),
    }
}

fn insert_sweep(sql: &impl Sql, row: &SweepRow) -> Result<i64, StoreError> {
    let settings = serde_json::to_string(&row.source.settings).map_err(|e| StoreError::Failed(e.to_string()))?;
    let text =
        "INSERT INTO sweeps (id, file, text, settings, data_hash, data_train, data_words, state, launched_at, files,
                             priority, weight)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING number";
    let files = from_files(&row.source.files);
    let values = [
        row.id.as_str().into(),
        row.source.file.as_str().into(),
        row.source.text.as_str().into(),
        settings.as_str().into(),
        Value::Bytes(row.data.hash.as_ref().map(|h| h.as_slice())),
        row.data.train.into(),
        row.data.words.as_str().into(),
        from_state(row.state).into(),
        Value::Real(row.launched_at),
        Value::Bytes(Some(&files)),
        i64::from(row.share.priority).into(),
        Value::Real(row.share.weight),
    ];
    number(sql, text, &values)?.ok_or_else(|| damaged(0, "the sweep's number"))
}

fn put_lease(sql: &impl Sql, row: &LeaseRow) -> Result<(), StoreError> {
    let trials = from_intervals(&row.trials);
    let values = [
        row.fence.lease.into(),
        row.fence.epoch.into(),
        row.sweep.into(),
        row.class.into(),
        row.worker.as_str().into(),
        Value::Bytes(Some(&trials)),
    ];
    sql.execute("INSERT INTO leases VALUES ($1, $2, $3, $4, $5, $6)", &values)?;
    let next = [(row.fence.lease + 1).into()];
    sql.execute("UPDATE meta SET value = $1 WHERE key = 'next_lease' AND value < $1", &next)?;
    Ok(())
}

fn shrink_lease(sql: &impl Sql, row: &LeaseRow) -> Result<(), StoreError> {
    let trials = from_intervals(&row.trials);
    let values = [Value::Bytes(Some(&trials)), row.fence.lease.into(), row.fence.epoch.into()];
    sql.execute("UPDATE leases SET trials = $1 WHERE lease = $2 AND epoch = $3", &values).map(|_| ())
}

fn end_leases(sql: &impl Sql, ended: &[Ended]) -> Result<(), StoreError> {
    for Ended { fence, lost } in ended {
        let place = [fence.lease.into(), fence.epoch.into()];
        if *lost {
            let count = "UPDATE sweeps SET releases = releases + 1
                         WHERE number = (SELECT sweep FROM leases WHERE lease = $1 AND epoch = $2)";
            sql.execute(count, &place)?;
        }
        sql.execute("DELETE FROM leases WHERE lease = $1 AND epoch = $2", &place)?;
    }
    Ok(())
}

fn set_state(sql: &impl Sql, sweep: i64, state: SweepState) -> Result<(), StoreError> {
    sql.execute("UPDATE sweeps SET state = $1 WHERE number = $2", &[from_state(state).into(), sweep.into()])?;
    if !state.is_open() {
        sql.execute("DELETE FROM leases WHERE sweep = $1", &[sweep.into()])?;
    }
    Ok(())
}

fn set_share(sql: &impl Sql, sweep: i64, share: Share) -> Result<(), StoreError> {
    let values = [i64::from(share.priority).into(), Value::Real(share.weight), sweep.into()];
    sql.execute("UPDATE sweeps SET priority = $1, weight = $2 WHERE number = $3", &values).map(|_| ())
}

/// Stores what has no row yet if the fence holds, and compares the rest with the rows that are there.
fn put_results(sql: &impl Sql, batch: &Batch) -> Result<Report, StoreError> {
    let mut report = Report { fenced: batch.compare_only || !fence_holds(sql, batch)?, ..Report::default() };
    if !report.fenced {
        report.stored = sql.insert_trials(batch.sweep, &batch.worker, &batch.results)?;
    }
    if report.stored.len() < batch.results.len() {
        compare(sql, batch, &mut report)?;
    }
    count(sql, batch.sweep, &report)?;
    Ok(report)
}

/// A change each time, so that there must be room for it.
fn probe(sql: &impl Sql) -> Result<(), StoreError> {
    let text = "INSERT INTO meta VALUES ('probes', 1) ON CONFLICT (key) DO UPDATE SET value = meta.value + 1";
    sql.execute(text, &[]).map(|_| ())
}

fn fence_holds(sql: &impl Sql, batch: &Batch) -> Result<bool, StoreError> {
    let text = "SELECT sweep FROM leases WHERE lease = $1 AND epoch = $2 AND sweep = $3";
    let values = [batch.fence.lease.into(), batch.fence.epoch.into(), batch.sweep.into()];
    Ok(number(sql, text, &values)?.is_some())
}

/// Compares what was not stored with the rows that there are.
fn compare(sql: &impl Sql, batch: &Batch, report: &mut Report) -> Result<(), StoreError> {
    let mut stored = report.stored.iter().peekable();
    let rest = batch.results.iter().enumerate().filter(|(at, _)| stored.next_if_eq(&at).is_none());
    let rest: Vec<&TrialResult> = rest.map(|(_, result)| result).collect();
    let keys: Vec<TrialKey> = rest.iter().map(|result| result.key).collect();
    let mut rows = HashMap::new();
    sql.whole_trials(batch.sweep, &keys, &mut |row| {
        let row = whole_trial(row)?.result;
        rows.insert(row.key, row);
        Ok(true)
    })?;
    for result in rest {
        if let Some(row) = rows.get(&result.key) {
            report.known.push(result.key);
            report.mismatches += u64::from(!same_bits(row, result));
        }
    }
    Ok(())
}

/// Adds what a batch was besides new rows to its sweep's tallies.
fn count(sql: &impl Sql, sweep: i64, report: &Report) -> Result<(), StoreError> {
    let mut tallies = Tallies::default();
    tallies.count(report.known.len() as u64, report.mismatches, report.fenced);
    let Tallies { duplicates, mismatches, fenced, .. } = tallies;
    if tallies != Tallies::default() {
        let text = "UPDATE sweeps SET duplicates = duplicates + $1, mismatches = mismatches + $2, fenced = fenced + $3
                    WHERE number = $4";
        sql.execute(text, &[duplicates.into(), mismatches.into(), fenced.into(), sweep.into()])?;
    }
    Ok(())
}

/// Moves rows of failed trials to the attempts.
fn retry(sql: &impl Sql, sweep: i64) -> Result<Vec<TrialKey>, StoreError> {
    let failed = [sweep.into(), FAILED.into()];
    let text = "SELECT cell, repeat FROM trials WHERE sweep = $1 AND outcome = $2 ORDER BY cell, repeat";
    let keys = all(sql, text, &failed, key)?;
    for change in [
        "INSERT INTO attempts SELECT sweep, cell, repeat, (SELECT count(*) FROM attempts AS old WHERE old.sweep = t.sweep
             AND old.cell = t.cell AND old.repeat = t.repeat), cause, worker, seconds
         FROM trials AS t WHERE sweep = $1 AND outcome = $2",
        "DELETE FROM predictions WHERE EXISTS (SELECT 1 FROM trials AS t WHERE t.sweep = $1 AND outcome = $2
             AND predictions.sweep = t.sweep AND predictions.cell = t.cell AND predictions.repeat = t.repeat)",
        "DELETE FROM curves WHERE curve IN (SELECT curve FROM trials WHERE sweep = $1 AND outcome = $2)",
        "DELETE FROM trials WHERE sweep = $1 AND outcome = $2",
    ] {
        sql.execute(change, &failed)?;
    }
    let (from, to) = (from_state(SweepState::Completed), from_state(SweepState::Running));
    sql.execute(
        "UPDATE sweeps SET state = $1 WHERE number = $2 AND state = $3",
        &[to.into(), sweep.into(), from.into()],
    )?;
    Ok(keys)
}
