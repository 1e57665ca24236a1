//! Writes as statements, within a transaction that the caller begins and commits.

use std::collections::{BTreeMap, HashMap, HashSet};

use ergodic_common::spec::scheduling::Share;
use ergodic_common::{Outcome, TrialKey, TrialResult};

use super::extend::{extend_sweep, insert_successor};
use super::read::{find_sweep, has_trial_with_weights, read_trial_row, small_trials};
use super::reuse::{count_contradictions, insert_reusing_sweep};
use super::{
    SqlConnection, SqlParam, SqlRow, damaged_column, read_trial_key, read_whole_trial_row,
    select_all, select_number,
};
use crate::records::{EndedLease, Finding, LeaseRow, SweepRow, SweepState, WorkerId};
use crate::store::encoding::{
    FAILED_OUTCOME, curve_checksum, decode_finding, differing_fields, encode_files, encode_finding,
    encode_intervals, encode_state, lease_checksum, sweep_checksum,
};
use crate::store::{
    Attempt, Audit, ClearedRows, CommitBatch, CommitReport, Damage, RedoneTrial, StoreError,
    StoreReader as _, StoreWrite, StoredTrial, WriteOutput,
};

/// Applies a write.
pub(in crate::store) fn apply_write(
    sql: &(impl SqlConnection + Send),
    write: &StoreWrite,
) -> Result<WriteOutput, StoreError> {
    match write {
        StoreWrite::InsertSweep(row) => insert_sweep(sql, row).map(WriteOutput::SweepNumber),
        StoreWrite::InsertLease(row) => insert_lease(sql, row).map(|()| WriteOutput::Done),
        StoreWrite::ShrinkLease(row) => shrink_lease(sql, row).map(|()| WriteOutput::Done),
        StoreWrite::EndLeases(ended) => end_leases(sql, ended).map(|()| WriteOutput::Done),
        StoreWrite::SetSweepState(sweep, state) => {
            set_state(sql, *sweep, *state).map(|()| WriteOutput::Done)
        }
        StoreWrite::SetShare(sweep, share) => {
            set_share(sql, *sweep, *share).map(|()| WriteOutput::Done)
        }
        StoreWrite::StoreResults(batch) => store_results(sql, batch).map(WriteOutput::Results),
        StoreWrite::GiveUpTrial(sweep, result) => {
            give_up_trial(sql, *sweep, result).map(WriteOutput::GaveUp)
        }
        StoreWrite::GiveUpAudit(sweep, key, why) => {
            give_up_audit(sql, *sweep, *key, why).map(WriteOutput::GaveUp)
        }
        StoreWrite::RevertGiveUp(sweep, key, false) => {
            revert_give_up(sql, *sweep, *key).map(|keys| WriteOutput::Reopened(keys, Vec::new()))
        }
        StoreWrite::RevertGiveUp(sweep, key, true) => revert_audit_give_up(sql, *sweep, *key)
            .map(|audits| WriteOutput::Reopened(Vec::new(), audits)),
        StoreWrite::LookUpRows(sweep, keys) => look_up_rows(sql, *sweep, keys),
        StoreWrite::RetryFailed(sweep) => {
            let trials = retry_failed_trials(sql, *sweep)?;
            let audits = retry_failed_audits(sql, *sweep)?;
            Ok(WriteOutput::Reopened(trials, audits))
        }
        StoreWrite::QuarantineRows(sweep, keys) => {
            quarantine_rows(sql, *sweep, keys).map(|keys| WriteOutput::Reopened(keys, Vec::new()))
        }
        StoreWrite::RemoveSweep(sweep) => remove_sweep(sql, *sweep).map(|()| WriteOutput::Done),
        StoreWrite::ClearRows(sweep) => clear_rows(sql, *sweep).map(WriteOutput::Cleared),
        StoreWrite::RestoreRows(sweep, rows, attempts) => {
            insert_stored_rows(sql, *sweep, rows, attempts).map(|()| WriteOutput::Done)
        }
        StoreWrite::RestoreAudits(sweep, audits) => {
            insert_audits_in_chunks(sql, *sweep, audits).map(|()| WriteOutput::Done)
        }
        StoreWrite::ExtendSweep(sweep, from, to) => {
            extend_sweep(sql, *sweep, from, to).map(WriteOutput::Extended)
        }
        StoreWrite::InsertSuccessor(inheritance) => {
            insert_successor(sql, inheritance).map(WriteOutput::SweepNumber)
        }
        StoreWrite::SetCellsDigest(sweep, cells) => change_sweep(sql, *sweep, |row| {
            row.source.cells_fingerprint = Some(*cells)
        })
        .map(|()| WriteOutput::Done),
        StoreWrite::InsertReusing(gathering) => insert_reusing_sweep(sql, gathering)
            .map(|(sweep, rows)| WriteOutput::SweepWithRows(sweep, rows)),
        StoreWrite::CheckWritable => check_writable(sql).map(|()| WriteOutput::Done),
        StoreWrite::FindUnreferenced(hashes) => {
            find_unreferenced(sql, hashes).map(WriteOutput::Unreferenced)
        }
        StoreWrite::RedoTrials(sweep, keys) => {
            redo_trials(sql, *sweep, keys).map(WriteOutput::Redone)
        }
        StoreWrite::EnsureIdentity(number) => {
            ensure_identity(sql, *number).map(WriteOutput::Identity)
        }
    }
}

pub(super) fn insert_sweep(sql: &impl SqlConnection, row: &SweepRow) -> Result<i64, StoreError> {
    let settings = encode_settings(row)?;
    let text =
        "INSERT INTO sweeps (id, file, text, settings, data_hash, data_train, data_words, state, launched_at, files,
                             priority, weight, launched_by, grammar)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) RETURNING number";
    let files = encode_files(&row.source.files);
    let values = [
        row.id.as_str().into(),
        row.source.file.as_str().into(),
        row.source.text.as_str().into(),
        settings.as_str().into(),
        SqlParam::Bytes(row.data.hash.as_ref().map(|h| h.as_slice())),
        row.data.train.into(),
        row.data.provenance.as_str().into(),
        encode_state(row.state).into(),
        SqlParam::Real(row.launched_at),
        SqlParam::Bytes(Some(&files)),
        i64::from(row.share.priority).into(),
        SqlParam::Real(row.share.weight),
        row.launched_by.as_str().into(),
        row.source.grammar.into(),
    ];
    let number = select_number(sql, text, &values)?
        .ok_or_else(|| damaged_column(0, "the sweep's number"))?;

    // Its checksum covers its number.
    update_sweep_row(
        sql,
        &SweepRow {
            number,
            ..row.clone()
        },
    )?;

    Ok(number)
}

/// Settings as they are stored.
pub(super) fn encode_settings(row: &SweepRow) -> Result<String, StoreError> {
    serde_json::to_string(&row.source.settings).map_err(|e| StoreError::Failed(e.to_string()))
}

/// Writes what changes of a sweep's row, and its checksum.
pub(super) fn update_sweep_row(sql: &impl SqlConnection, row: &SweepRow) -> Result<(), StoreError> {
    let text =
        "UPDATE sweeps SET state = $1, priority = $2, weight = $3, releases = $4, duplicates = $5,
                       mismatches = $6, fenced = $7, checksum = $8, cells = $9
                WHERE number = $10";
    let values = [
        encode_state(row.state).into(),
        i64::from(row.share.priority).into(),
        SqlParam::Real(row.share.weight),
        row.tallies.releases.into(),
        row.tallies.duplicates.into(),
        row.tallies.mismatches.into(),
        row.tallies.fenced.into(),
        sweep_checksum(row).into(),
        SqlParam::Bytes(
            row.source
                .cells_fingerprint
                .as_ref()
                .map(|cells| cells.as_slice()),
        ),
        row.number.into(),
    ];

    sql.execute_statement(text, &values).map(|_| ())
}

/// Changes a sweep's row, if there is one.
fn change_sweep(
    sql: &impl SqlConnection,
    sweep: i64,
    change: impl FnOnce(&mut SweepRow),
) -> Result<(), StoreError> {
    let Some(mut row) = find_sweep(sql, sweep)? else {
        return Ok(());
    };
    change(&mut row);
    update_sweep_row(sql, &row)
}

fn insert_lease(sql: &impl SqlConnection, row: &LeaseRow) -> Result<(), StoreError> {
    let text = "INSERT INTO leases (lease, epoch, sweep, class, worker, trials, checksum, audits)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let trials = encode_intervals(&row.trials);
    let values = [
        row.fence.lease.into(),
        row.fence.epoch.into(),
        row.sweep.into(),
        row.class.into(),
        row.worker.as_str().into(),
        SqlParam::Bytes(Some(&trials)),
        lease_checksum(row, &trials).into(),
        SqlParam::OptionalText(row.audits.as_deref()),
    ];
    sql.execute_statement(text, &values)?;

    let next = [(row.fence.lease + 1).into()];
    sql.execute_statement(
        "UPDATE meta SET value = $1 WHERE key = 'next_lease' AND value < $1",
        &next,
    )?;

    Ok(())
}

fn shrink_lease(sql: &impl SqlConnection, row: &LeaseRow) -> Result<(), StoreError> {
    let text = "UPDATE leases SET sweep = $1, class = $2, worker = $3, trials = $4, checksum = $5, audits = $6
                WHERE lease = $7 AND epoch = $8";
    let trials = encode_intervals(&row.trials);
    let values = [
        row.sweep.into(),
        row.class.into(),
        row.worker.as_str().into(),
        SqlParam::Bytes(Some(&trials)),
        lease_checksum(row, &trials).into(),
        SqlParam::OptionalText(row.audits.as_deref()),
        row.fence.lease.into(),
        row.fence.epoch.into(),
    ];

    sql.execute_statement(text, &values).map(|_| ())
}

fn end_leases(sql: &impl SqlConnection, ended: &[EndedLease]) -> Result<(), StoreError> {
    for EndedLease { fence, lost } in ended {
        let place = [fence.lease.into(), fence.epoch.into()];
        if *lost
            && let Some(sweep) = select_number(
                sql,
                "SELECT sweep FROM leases WHERE lease = $1 AND epoch = $2",
                &place,
            )?
        {
            change_sweep(sql, sweep, |row| row.tallies.releases += 1)?;
        }

        sql.execute_statement("DELETE FROM leases WHERE lease = $1 AND epoch = $2", &place)?;
    }

    Ok(())
}

pub(super) fn set_state(
    sql: &impl SqlConnection,
    sweep: i64,
    state: SweepState,
) -> Result<(), StoreError> {
    change_sweep(sql, sweep, |row| row.state = state)?;
    if !state.is_open() {
        sql.execute_statement("DELETE FROM leases WHERE sweep = $1", &[sweep.into()])?;
    }
    Ok(())
}

fn set_share(sql: &impl SqlConnection, sweep: i64, share: Share) -> Result<(), StoreError> {
    change_sweep(sql, sweep, |row| row.share = share)
}

/// Stores what has no row yet if the fence holds, and compares the rest with the rows that are there.
fn store_results(
    sql: &(impl SqlConnection + Send),
    batch: &CommitBatch,
) -> Result<CommitReport, StoreError> {
    let mut report = CommitReport {
        fenced: batch.compare_only || !is_fence_valid(sql, batch)?,
        ..CommitReport::default()
    };
    if !report.fenced && !batch.audit {
        report.stored = sql.insert_trials(batch.sweep, &batch.worker, &batch.results)?;
        report.audits_due = schedule_audits(sql, batch, &report.stored)?;
        report.contradicted = count_contradictions(sql, batch, &report.stored)?;
    }

    if report.stored.len() < batch.results.len() {
        compare_with_rows(sql, batch, &mut report)?;
    }

    add_to_tallies(sql, batch.sweep, &report)?;
    Ok(report)
}

/// A sweep that was removed meanwhile has no rows.
fn give_up_trial(
    sql: &impl SqlConnection,
    sweep: i64,
    result: &TrialResult,
) -> Result<bool, StoreError> {
    let there = select_number(
        sql,
        "SELECT number FROM sweeps WHERE number = $1",
        &[sweep.into()],
    )?
    .is_some();
    Ok(there
        && !sql
            .insert_trials(sweep, "", std::slice::from_ref(result))?
            .is_empty())
}

/// Takes a verdict back: the row of a failure that no worker lived to tell. Which trial has none any more.
fn revert_give_up(
    sql: &impl SqlConnection,
    sweep: i64,
    key: TrialKey,
) -> Result<Vec<TrialKey>, StoreError> {
    let place = [
        sweep.into(),
        key.cell.into(),
        key.repeat.into(),
        FAILED_OUTCOME.into(),
    ];
    sql.execute_statement(
        "DELETE FROM curves WHERE curve IN (SELECT curve FROM trials
             WHERE sweep = $1 AND cell = $2 AND repeat = $3 AND outcome = $4 AND worker = '')",
        &place,
    )?;

    let text = "DELETE FROM trials WHERE sweep = $1 AND cell = $2 AND repeat = $3 AND outcome = $4 AND worker = ''";
    if sql.execute_statement(text, &place)? == 0 {
        return Ok(Vec::new());
    }

    reopen_completed_sweep(sql, sweep)?;
    Ok(vec![key])
}

/// The same of a verdict on an audit; with the process whose row it is of.
fn revert_audit_give_up(
    sql: &impl SqlConnection,
    sweep: i64,
    key: TrialKey,
) -> Result<Vec<(TrialKey, WorkerId)>, StoreError> {
    let failed = encode_finding(Some(Finding::Failed)).into();
    let place = [sweep.into(), key.cell.into(), key.repeat.into(), failed];
    let text = "UPDATE audits SET finding = 0, why = '' WHERE sweep = $1 AND cell = $2 AND repeat = $3 AND finding = $4
                    AND auditor_process = '' RETURNING process";
    let origins = select_all(sql, text, &place, |row| {
        Ok((key, row.get_text(0)?.to_owned()))
    })?;
    if !origins.is_empty() {
        reopen_completed_sweep(sql, sweep)?;
    }

    Ok(origins)
}

fn look_up_rows(
    sql: &(impl SqlConnection + Send),
    sweep: i64,
    keys: &[TrialKey],
) -> Result<WriteOutput, StoreError> {
    let text = small_trials!("WHERE sweep = $1 AND cell = $2 AND repeat = $3");
    let mut rows = Vec::new();
    let mut audits = Vec::new();

    for key in keys {
        let place = [sweep.into(), key.cell.into(), key.repeat.into()];
        let Some(row) = select_all(sql, text, &place, |row| read_trial_row(sweep, row))?.pop()
        else {
            continue;
        };
        rows.push(row.result);

        audits.extend(
            sql.read_audit(sweep, *key)?
                .map(|audit| (audit.key, audit.process, audit.finding)),
        );
    }

    Ok(WriteOutput::Rows(rows, audits))
}

/// Which of these files neither a sweep nor a trial names.
fn find_unreferenced(
    sql: &(impl SqlConnection + Send),
    hashes: &[[u8; 32]],
) -> Result<Vec<[u8; 32]>, StoreError> {
    let of_sweeps: HashSet<[u8; 32]> = sql
        .read_sweeps()?
        .iter()
        .flat_map(SweepRow::named_files)
        .collect();

    let mut unnamed = Vec::new();
    for hash in hashes.iter().filter(|hash| !of_sweeps.contains(*hash)) {
        if !has_trial_with_weights(sql, hash)? {
            unnamed.push(*hash);
        }
    }

    Ok(unnamed)
}

/// The audits of these trials are due, of whoever runs them: any process may.
fn redo_trials(
    sql: &impl SqlConnection,
    sweep: i64,
    keys: &[TrialKey],
) -> Result<Vec<RedoneTrial>, StoreError> {
    let there = "SELECT sweep FROM trials WHERE sweep = $1 AND cell = $2 AND repeat = $3";
    let before = "SELECT finding FROM audits WHERE sweep = $1 AND cell = $2 AND repeat = $3";
    let due = "INSERT INTO audits (sweep, cell, repeat, process) VALUES ($1, $2, $3, '')
               ON CONFLICT (sweep, cell, repeat) DO UPDATE SET process = '', finding = 0, auditor = '',
                   auditor_process = '', why = ''";
    let mut redone = Vec::new();

    // A sweep that was cancelled, or removed, runs nothing any more.
    if find_sweep(sql, sweep)?.is_none_or(|row| row.state == SweepState::Cancelled) {
        return Ok(redone);
    }

    for key in keys {
        let place = [sweep.into(), key.cell.into(), key.repeat.into()];
        if select_number(sql, there, &place)?.is_none() {
            continue;
        }

        let found = select_all(sql, before, &place, |row| {
            decode_finding(row.get_int(0)?).ok_or_else(|| damaged_column(0, "a finding"))
        })?
        .pop();

        // Whose bits are right is not known: what was found stays, and is not made again by whoever computed the row.
        if found == Some(Some(Finding::Different)) {
            tracing::warn!(sweep, trial = %key, "its file is lost, and it is not run again: an audit found other bits");
            continue;
        }

        // One that is due already is made by whom it was to be made.
        if found != Some(None) {
            sql.execute_statement(due, &place)?;
        }

        redone.push((*key, found));
    }

    if !redone.is_empty() {
        reopen_completed_sweep(sql, sweep)?;
    }

    Ok(redone)
}

fn ensure_identity(sql: &impl SqlConnection, proposed: i64) -> Result<i64, StoreError> {
    let text = "INSERT INTO meta (key, value) VALUES ('identity', $1) ON CONFLICT (key) DO NOTHING";
    sql.execute_statement(text, &[proposed.into()])?;
    Ok(
        select_number(sql, "SELECT value FROM meta WHERE key = 'identity'", &[])?
            .unwrap_or(proposed),
    )
}

/// A change each time, so that there must be room for it.
fn check_writable(sql: &impl SqlConnection) -> Result<(), StoreError> {
    let text = "INSERT INTO meta VALUES ('probes', 1) ON CONFLICT (key) DO UPDATE SET value = meta.value + 1";
    sql.execute_statement(text, &[]).map(|_| ())
}

fn is_fence_valid(sql: &impl SqlConnection, batch: &CommitBatch) -> Result<bool, StoreError> {
    let text = "SELECT sweep FROM leases WHERE lease = $1 AND epoch = $2 AND sweep = $3";
    let values = [
        batch.fence.lease.into(),
        batch.fence.epoch.into(),
        batch.sweep.into(),
    ];
    Ok(select_number(sql, text, &values)?.is_some())
}

/// Chosen trials were stored: their audits are due, unless there is nothing to compare with.
fn schedule_audits(
    sql: &impl SqlConnection,
    batch: &CommitBatch,
    stored: &[usize],
) -> Result<Vec<TrialKey>, StoreError> {
    let text = "INSERT INTO audits (sweep, cell, repeat, process) VALUES ($1, $2, $3, $4)
                ON CONFLICT (sweep, cell, repeat) DO UPDATE SET process = $4, finding = 0, auditor = '',
                    auditor_process = '', why = ''";
    let mut due = Vec::new();

    for result in stored.iter().map(|at| &batch.results[*at]) {
        let key = result.key;
        if batch.chosen_for_audit.contains(&key)
            && !matches!(result.outcome, Outcome::Failed { .. })
        {
            let values = [
                batch.sweep.into(),
                key.cell.into(),
                key.repeat.into(),
                batch.process.as_str().into(),
            ];
            sql.execute_statement(text, &values)?;

            due.push(key);
        }
    }

    Ok(due)
}

/// Compares what was not stored with the rows that there are.
fn compare_with_rows(
    sql: &impl SqlConnection,
    batch: &CommitBatch,
    report: &mut CommitReport,
) -> Result<(), StoreError> {
    let mut stored = report.stored.iter().peekable();
    let rest = batch
        .results
        .iter()
        .enumerate()
        .filter(|(at, _)| stored.next_if_eq(&at).is_none());
    let rest: Vec<(usize, &TrialResult)> = rest.collect();
    let keys: Vec<TrialKey> = rest.iter().map(|(_, result)| result.key).collect();

    let mut rows = HashMap::new();
    sql.select_whole_trials(batch.sweep, &keys, &mut |row| {
        match read_whole_trial_row(batch.sweep, row) {
            Ok(row) => drop(rows.insert(row.result.key, Some(row.result))),
            // Nothing to compare with: it is told, and the worker, which cannot help it, is answered.
            Err(StoreError::Damaged(damage)) => {
                tracing::error!("{damage}");
                rows.insert(damage.key, None);
            }
            Err(error) => return Err(error),
        }

        Ok(true)
    })?;

    for (at, result) in rest {
        let Some(row) = rows.get(&result.key) else {
            continue;
        };
        let different = row.as_ref().map(|row| differing_fields(row, result));
        report.already_stored.push(result.key);
        report.mismatches += u64::from(
            different
                .as_ref()
                .is_some_and(|different| !different.is_empty()),
        );

        let finding = record_audit(sql, batch, result, different.as_deref())?;
        report.audited.extend(finding.map(|finding| (at, finding)));
    }

    Ok(())
}

/// Whoever computes a trial again whose audit is due, and is another process than the one that the row is of, has made it.
fn record_audit(
    sql: &impl SqlConnection,
    batch: &CommitBatch,
    result: &TrialResult,
    different: Option<&[&'static str]>,
) -> Result<Option<Finding>, StoreError> {
    if !batch.audit && !batch.chosen_for_audit.contains(&result.key) {
        return Ok(None);
    }

    let (finding, why) = match (&result.outcome, different) {
        (Outcome::Failed { cause }, _) => (Finding::Failed, cause.clone()),
        (_, None) => (Finding::Failed, "the row is damaged".into()),
        (_, Some([])) => (Finding::Same, String::new()),
        (_, Some(different)) => (Finding::Different, different.join(", ")),
    };
    let text = "UPDATE audits SET finding = $1, auditor = $2, auditor_process = $3, why = $4
                WHERE sweep = $5 AND cell = $6 AND repeat = $7 AND finding = 0 AND process <> $3";

    let values = [
        encode_finding(Some(finding)).into(),
        batch.worker.as_str().into(),
        batch.process.as_str().into(),
        why.as_str().into(),
        batch.sweep.into(),
        result.key.cell.into(),
        result.key.repeat.into(),
    ];

    Ok((sql.execute_statement(text, &values)? > 0).then_some(finding))
}

fn give_up_audit(
    sql: &impl SqlConnection,
    sweep: i64,
    key: TrialKey,
    why: &str,
) -> Result<bool, StoreError> {
    let text = "UPDATE audits SET finding = $1, why = $2 WHERE sweep = $3 AND cell = $4 AND repeat = $5 AND finding = 0";
    let failed = encode_finding(Some(Finding::Failed)).into();
    let values = [
        failed,
        why.into(),
        sweep.into(),
        key.cell.into(),
        key.repeat.into(),
    ];

    Ok(sql.execute_statement(text, &values)? > 0)
}

/// Adds what a batch was besides new rows to its sweep's tallies.
fn add_to_tallies(
    sql: &impl SqlConnection,
    sweep: i64,
    report: &CommitReport,
) -> Result<(), StoreError> {
    if report.already_stored.is_empty() && report.contradicted == 0 && !report.fenced {
        return Ok(());
    }

    // What was audited did not come again by itself.
    let compared = (report.already_stored.len() - report.audited.len()) as u64;
    let different = report.mismatches + report.contradicted;
    change_sweep(sql, sweep, |row| {
        row.tallies.count_batch(compared, different, report.fenced)
    })
}

/// Moves rows of failed trials to the attempts.
fn retry_failed_trials(sql: &impl SqlConnection, sweep: i64) -> Result<Vec<TrialKey>, StoreError> {
    let failed = [sweep.into(), FAILED_OUTCOME.into()];
    let text = small_trials!("WHERE sweep = $1 AND outcome = $2 ORDER BY cell, repeat");
    let rows = select_all(sql, text, &failed, |row| read_trial_row(sweep, row))?;
    let attempts = rows.iter().map(|row| {
        let cause = if let Outcome::Failed { cause } = &row.result.outcome {
            cause.clone()
        } else {
            String::new()
        };
        (
            row.result.key,
            Attempt {
                cause,
                worker: row.worker.clone(),
                seconds: row.result.seconds,
            },
        )
    });
    append_attempts(sql, sweep, attempts.collect())?;

    for change in [
        "DELETE FROM predictions WHERE EXISTS (SELECT 1 FROM trials AS t WHERE t.sweep = $1 AND outcome = $2
             AND predictions.sweep = t.sweep AND predictions.cell = t.cell AND predictions.repeat = t.repeat)",
        "DELETE FROM curves WHERE curve IN (SELECT curve FROM trials WHERE sweep = $1 AND outcome = $2)",
        "DELETE FROM trials WHERE sweep = $1 AND outcome = $2",
    ] {
        sql.execute_statement(change, &failed)?;
    }

    reopen_completed_sweep(sql, sweep)?;
    Ok(rows.into_iter().map(|row| row.result.key).collect())
}

pub(super) fn insert_stored_rows(
    sql: &impl SqlConnection,
    sweep: i64,
    rows: &[StoredTrial],
    attempts: &[(TrialKey, Attempt)],
) -> Result<(), StoreError> {
    let mut by_worker: BTreeMap<&str, Vec<TrialResult>> = BTreeMap::new();
    for row in rows {
        by_worker
            .entry(&row.worker)
            .or_default()
            .push(row.result.clone());
    }

    for (worker, results) in by_worker {
        sql.insert_trials(sweep, worker, &results)?;
    }

    // One by one: a trial may come several times.
    attempts
        .iter()
        .try_for_each(|attempt| append_attempts(sql, sweep, vec![attempt.clone()]))
}

/// Audits stored in one statement.
const AUDITS_PER_STATEMENT: usize = 4096;

pub(super) fn insert_audits_in_chunks(
    sql: &impl SqlConnection,
    sweep: i64,
    audits: &[Audit],
) -> Result<(), StoreError> {
    audits
        .chunks(AUDITS_PER_STATEMENT)
        .try_for_each(|some| sql.insert_audits(sweep, some))
}

/// Appends attempts, of each trial one, to those that there are.
fn append_attempts(
    sql: &impl SqlConnection,
    sweep: i64,
    attempts: Vec<(TrialKey, Attempt)>,
) -> Result<(), StoreError> {
    let text = "SELECT cell, repeat, count(*) FROM attempts WHERE sweep = $1 GROUP BY cell, repeat";
    let counts: HashMap<TrialKey, i64> = select_all(sql, text, &[sweep.into()], |row| {
        Ok((read_trial_key(row)?, row.get_int(2)?))
    })?
    .into_iter()
    .collect();
    let numbered = attempts
        .into_iter()
        .map(|(key, attempt)| (key, counts.get(&key).copied().unwrap_or(0), attempt));

    sql.insert_attempts(sweep, &numbered.collect::<Vec<_>>())
}

/// A completed sweep has trials left again.
fn reopen_completed_sweep(sql: &impl SqlConnection, sweep: i64) -> Result<(), StoreError> {
    change_sweep(sql, sweep, |row| {
        if row.state == SweepState::Completed {
            row.state = SweepState::Running;
        }
    })
}

/// Moves what is damaged of these trials to the attempts; which they were.
fn quarantine_rows(
    sql: &impl SqlConnection,
    sweep: i64,
    keys: &[TrialKey],
) -> Result<Vec<TrialKey>, StoreError> {
    let mut damaged = Vec::new();
    // Curves that are sound, so that the row that leads to them does not lead to another trial's.
    let mut curves = HashMap::new();
    let mut seen = HashSet::new();
    sql.select_whole_trials(sweep, keys, &mut |row| {
        let key = read_trial_key(row)?;
        seen.insert(key);
        curves.insert(
            key,
            row.get_optional_bytes(13)
                .ok()
                .flatten()
                .map_or(0, |data| curve_checksum(sweep, key, data)),
        );

        match read_whole_trial_row(sweep, row) {
            Ok(_) => {}
            Err(StoreError::Damaged(damage)) => damaged.push(*damage),
            Err(error) => return Err(error),
        }

        Ok(true)
    })?;

    let attempt = |damage: &Damage| {
        let cause = format!("its {} was damaged: {}", damage.what, damage.why);
        (
            damage.key,
            Attempt {
                cause,
                worker: String::new(),
                seconds: 0.0,
            },
        )
    };
    append_attempts(sql, sweep, damaged.iter().map(attempt).collect())?;

    let rowless = keys.iter().filter(|key| !seen.contains(key));
    for key in damaged.iter().map(|damage| &damage.key).chain(rowless) {
        let place = [sweep.into(), key.cell.into(), key.repeat.into()];
        let curve = curves.get(key).copied().unwrap_or_default();
        sql.execute_statement(
            "DELETE FROM curves WHERE curve IN
                 (SELECT curve FROM trials WHERE sweep = $1 AND cell = $2 AND repeat = $3) AND checksum = $4",
            &[place[0], place[1], place[2], curve.into()],
        )?;

        sql.execute_statement(
            "DELETE FROM predictions WHERE sweep = $1 AND cell = $2 AND repeat = $3",
            &place,
        )?;
        sql.execute_statement(
            "DELETE FROM audits WHERE sweep = $1 AND cell = $2 AND repeat = $3",
            &place,
        )?;

        sql.execute_statement(
            "DELETE FROM trials WHERE sweep = $1 AND cell = $2 AND repeat = $3",
            &place,
        )?;
    }

    if !damaged.is_empty() {
        reopen_completed_sweep(sql, sweep)?;
    }

    Ok(damaged.into_iter().map(|damage| damage.key).collect())
}

/// Failed audits are due again; these, with the processes whose rows they are of.
fn retry_failed_audits(
    sql: &impl SqlConnection,
    sweep: i64,
) -> Result<Vec<(TrialKey, WorkerId)>, StoreError> {
    let failed = [sweep.into(), encode_finding(Some(Finding::Failed)).into()];
    let text = "SELECT cell, repeat, process FROM audits WHERE sweep = $1 AND finding = $2 ORDER BY cell, repeat";
    let audits = select_all(sql, text, &failed, |row| {
        Ok((read_trial_key(row)?, row.get_text(2)?.to_owned()))
    })?;
    let again = "UPDATE audits SET finding = 0, auditor = '', auditor_process = '', why = ''
                 WHERE sweep = $1 AND finding = $2";
    sql.execute_statement(again, &failed)?;

    Ok(audits)
}

/// Takes away what makes a sweep one: from here on, whatever comes of it finds no fence.
fn remove_sweep(sql: &impl SqlConnection, sweep: i64) -> Result<(), StoreError> {
    if sql.execute_statement("DELETE FROM sweeps WHERE number = $1", &[sweep.into()])? > 0 {
        sql.execute_statement("DELETE FROM leases WHERE sweep = $1", &[sweep.into()])?;
        sql.execute_statement("INSERT INTO removals (sweep) VALUES ($1)", &[sweep.into()])?;
    }
    Ok(())
}

/// Trials cleared in one transaction: it should take no longer than some dozen milliseconds.
const CLEARED_PER_COMMIT: i64 = 1000;

/// Clears the first rows of a sweep that was removed; with the last ones, what is left of it.
fn clear_rows(sql: &impl SqlConnection, sweep: i64) -> Result<ClearedRows, StoreError> {
    let removed = select_number(
        sql,
        "SELECT sweep FROM removals WHERE sweep = $1",
        &[sweep.into()],
    )?;
    if removed.is_none() {
        return Ok(ClearedRows::default());
    }

    let text =
        "SELECT cell, repeat, weights FROM trials WHERE sweep = $1 ORDER BY cell, repeat LIMIT $2";
    let of_row = |row: &dyn SqlRow| {
        Ok((
            row.get_int(0)?,
            row.get_int(1)?,
            row.get_optional_hash(2).ok().flatten(),
        ))
    };
    let rows = select_all(
        sql,
        text,
        &[sweep.into(), CLEARED_PER_COMMIT.into()],
        of_row,
    )?;
    let Some((cell, repeat, _)) = rows.last() else {
        for rest in [
            "DELETE FROM predictions WHERE sweep = $1",
            "DELETE FROM attempts WHERE sweep = $1",
            "DELETE FROM audits WHERE sweep = $1",
            "DELETE FROM twins WHERE sweep = $1",
            "DELETE FROM removals WHERE sweep = $1",
        ] {
            sql.execute_statement(rest, &[sweep.into()])?;
        }

        return Ok(ClearedRows::default());
    };
    for part in [
        "DELETE FROM curves WHERE curve IN
             (SELECT curve FROM trials WHERE sweep = $1 AND (cell, repeat) <= ($2, $3))",
        "DELETE FROM predictions WHERE sweep = $1 AND (cell, repeat) <= ($2, $3)",
        "DELETE FROM audits WHERE sweep = $1 AND (cell, repeat) <= ($2, $3)",
        "DELETE FROM trials WHERE sweep = $1 AND (cell, repeat) <= ($2, $3)",
    ] {
        sql.execute_statement(part, &[sweep.into(), (*cell).into(), (*repeat).into()])?;
    }

    let mut weights: Vec<[u8; 32]> = rows.iter().filter_map(|(.., hash)| *hash).collect();
    weights.sort_unstable();
    weights.dedup();
    Ok(ClearedRows {
        trials: rows.len() as u64,
        weights,
        has_more: true,
    })
}
