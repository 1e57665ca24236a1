//! What a store is to do, as plain maps, and a test that both stores do it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use ergodic::records::{Finding, LeaseRow, SweepRow, SweepState};
use ergodic::result_batch::{CommitOutcome, ResultBatch};
use ergodic::store::encoding::{StoredNumbers, encode_curve, encode_f64s};
use ergodic::store::postgres::PostgresStore;
use ergodic::store::sqlite::SqliteStore;
use ergodic::store::{
    Attempt, Audit, CheckWritable, ClearRows, ClearedRows, CurveView, Damage, EndLeases,
    EndedTrial, ExtendSweep, FindUnreferenced, GiveUpAudit, GiveUpTrial, InsertLease,
    InsertReusing, InsertSuccessor, InsertSweep, OutputReader, RedoTrials, RemoveSweep,
    ReopenedTrials, RestoreAudits, RestoreOutputs, RestoreRows, RetryFailed, RevertGiveUp,
    RowCursor, SampledTrial, SetCellsDigest, SetRowsAside, SetShare, SetSweepState, ShrinkLease,
    Store, StoreError, StoreReader, StoreResults, StoreWriter, StoredOutput, StoredTrial,
    SuccessorSweep, TrialRange,
};
use ergodic::sweep_seal::SweepSeal;
use ergodic_common::ids::{CellIndex, Epoch, FileHash, LeaseId, SweepNumber, WorkerId};
use ergodic_common::program::output::PackedOutput;
use ergodic_common::trial::{MetricCurve, Predictions};
use ergodic_common::{Outcome, TrialKey, TrialResult};
use ergodic_tests::{Postgres, skip};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

use super::history::{
    AnyWrite, Step, gathering, inheritance, key, lease, result, results_of, steps, sweep,
};

type Trials = BTreeMap<(SweepNumber, TrialKey), StoredTrial>;

/// The state of a store.
#[derive(Debug, Clone)]
struct Model {
    epoch: Epoch,
    launched: SweepNumber,
    next_lease: LeaseId,
    sweeps: BTreeMap<SweepNumber, SweepRow>,
    leases: BTreeMap<LeaseId, LeaseRow>,
    trials: Trials,
    attempts: BTreeMap<(SweepNumber, TrialKey), Vec<Attempt>>,
    /// What was printed, by attempt.
    outputs: BTreeMap<(SweepNumber, TrialKey, u32), PackedOutput>,
    audits: BTreeMap<(SweepNumber, TrialKey), Audit>,
    /// Cells that are compared with those of another sweep.
    twins: BTreeMap<(SweepNumber, CellIndex), (SweepNumber, CellIndex)>,
    removals: BTreeSet<SweepNumber>,
    /// What became of the last writes; `None` if they failed.
    written: Option<Vec<String>>,
}

impl Model {
    fn new() -> Self {
        Self {
            epoch: Epoch(1),
            launched: SweepNumber(0),
            next_lease: LeaseId(1),
            sweeps: BTreeMap::new(),
            leases: BTreeMap::new(),
            trials: BTreeMap::new(),
            attempts: BTreeMap::new(),
            outputs: BTreeMap::new(),
            audits: BTreeMap::new(),
            twins: BTreeMap::new(),
            removals: BTreeSet::new(),
            written: None,
        }
    }

    /// The sweep that was launched last, as it was given to the store.
    fn latest(&self) -> SweepRow {
        sweep(&format!("sweep{}", self.launched))
    }

    fn launch(mut self) -> Self {
        self.launched.0 += 1;
        let row = SweepRow {
            number: self.launched,
            ..self.latest()
        };
        self.sweeps.insert(self.launched, row);
        self.written = Some(vec![format!("{:?}", self.launched)]);
        self
    }

    /// A sweep that is not there has no rows, and hands on none.
    fn inherit(mut self, from: SweepNumber, shift: u64) -> Self {
        let Some(old) = self.sweeps.get_mut(&from) else {
            return Self {
                written: None,
                ..self
            };
        };
        if old.state.is_open() {
            old.state = SweepState::Cancelled;
            self.leases.retain(|_, lease| lease.sweep != from);
        }

        let model = self.launch();
        let SuccessorSweep {
            cell_map: cells, ..
        } = inheritance(model.latest(), from, shift);
        let place = |(sweep, key): &(SweepNumber, TrialKey)| {
            let (_, cell) = cells
                .iter()
                .find(|(old, _)| *old == key.cell)
                .filter(|_| *sweep == from)?;
            Some((
                model.launched,
                TrialKey {
                    cell: *cell,
                    ..*key
                },
            ))
        };

        let mut trials = model.trials.clone();
        let mut attempts = model.attempts.clone();
        let mut audits = model.audits.clone();
        let mut outputs = model.outputs.clone();
        outputs.extend(
            model
                .outputs
                .iter()
                .filter_map(|((of, key, attempt), output)| {
                    let (to, key) = place(&(*of, *key))?;
                    Some(((to, key, *attempt), output.clone()))
                }),
        );

        for (at, row) in &model.trials {
            let Some(to) = place(at) else { continue };
            let result = TrialResult {
                key: to.1,
                ..row.result.clone()
            };
            trials.insert(
                to,
                StoredTrial {
                    result,
                    worker: row.worker.clone(),
                },
            );

            audits.extend(model.audits.get(at).map(|audit| {
                (
                    to,
                    Audit {
                        key: to.1,
                        ..audit.clone()
                    },
                )
            }));
        }

        attempts.extend(
            model
                .attempts
                .iter()
                .filter_map(|(at, all)| Some((place(at)?, all.clone()))),
        );

        Self {
            trials,
            attempts,
            outputs,
            audits,
            ..model
        }
    }

    /// A sweep that is not there has nothing to copy, and the new one begins without.
    fn gather(self, from: SweepNumber, shift: u64) -> Self {
        let there = self.sweeps.contains_key(&from);
        let mut model = self.launch();
        let sweep = model.launched;
        let of_source = |(of, key): &(SweepNumber, TrialKey)| {
            there && *of == from && key.cell.0 < 3 && key.repeat.0 == 0
        };

        // Rows of which another process found other bits are not taken over.
        let doubted = |at| {
            model
                .audits
                .get(at)
                .is_some_and(|audit| audit.finding == Some(Finding::Different))
        };
        let rows = model
            .trials
            .iter()
            .filter(|(at, row)| of_source(at) && !failed(&row.result) && !doubted(*at));
        let rows: Vec<(TrialKey, StoredTrial)> =
            rows.map(|((_, key), row)| (*key, row.clone())).collect();
        model.written = Some(vec![format!("{:?}", (sweep, rows.len()))]);

        for (key, StoredTrial { result, worker }) in rows {
            let to = TrialKey {
                cell: CellIndex(key.cell.0 + shift),
                ..key
            };
            let result = TrialResult {
                key: to,
                predictions: Default::default(),
                weights_hash: None,
                ..result
            };
            model
                .trials
                .insert((sweep, to), StoredTrial { result, worker });
            let attempt = model.next_attempt(from, key);
            let output = model.outputs.get(&(from, key, attempt)).cloned();
            if let Some(output) = output {
                model.outputs.insert((sweep, to, 0), output);
            }

            let audit = model
                .audits
                .get(&(from, key))
                .cloned()
                .unwrap_or(due(key, &WorkerId::NONE));
            model.audits.insert((sweep, to), Audit { key: to, ..audit });
        }

        model
            .twins
            .insert((sweep, CellIndex(3)), (from, CellIndex(3)));
        model
    }

    /// Number of the attempt that follows the earlier ones of a trial.
    fn next_attempt(&self, sweep: SweepNumber, key: TrialKey) -> u32 {
        self.attempts.get(&(sweep, key)).map_or(0, Vec::len) as u32
    }

    /// How many of these fresh rows differ from those of another sweep.
    fn contradicted(&self, batch: &ResultBatch, stored: &[usize]) -> u64 {
        let other = |result: &TrialResult| {
            let (other, cell) = self.twins.get(&(batch.sweep, result.key.cell))?;
            self.trials.get(&(
                *other,
                TrialKey {
                    cell: *cell,
                    ..result.key
                },
            ))
        };
        let differs = |result: &&TrialResult| {
            let row = other(result).filter(|row| !failed(&row.result) && !failed(result));
            row.is_some_and(|row| {
                (&row.result.outcome, row.result.digest) != (&result.outcome, result.digest)
            })
        };

        stored
            .iter()
            .map(|at| &batch.results[*at])
            .filter(differs)
            .count() as u64
    }

    /// All of it, or nothing.
    fn commit(self, writes: &[AnyWrite]) -> Self {
        let mut after = self.clone();
        let written: Option<Vec<String>> = writes.iter().map(|write| after.write(write)).collect();
        let model = if written.is_some() { after } else { self };
        Self { written, ..model }
    }

    /// The output of a write, in words; `None` if it fails.
    fn write(&mut self, write: &AnyWrite) -> Option<String> {
        match write {
            AnyWrite::InsertSweep(_)
            | AnyWrite::InsertSuccessor(_)
            | AnyWrite::InsertReusing(_) => {
                unreachable!("sweeps are launched one by one")
            }
            AnyWrite::ExtendSweep(ExtendSweep { sweep, from, to }) => {
                let row = self.sweeps.get_mut(sweep).filter(|row| row.source == *from);
                return words(row.map(|row| row.source = to.clone()).is_some());
            }
            AnyWrite::InsertLease(InsertLease(row)) => self.lease(row)?,
            AnyWrite::ShrinkLease(ShrinkLease(row)) => {
                let lease = self
                    .leases
                    .get_mut(&row.fence.lease)
                    .filter(|lease| lease.fence == row.fence);
                lease.into_iter().for_each(|lease| *lease = row.clone());
            }
            AnyWrite::EndLeases(EndLeases(ended)) => ended
                .iter()
                .for_each(|ended| self.end_lease(ended.fence.lease, ended)),
            AnyWrite::SetSweepState(SetSweepState { sweep, state }) => {
                self.sweeps
                    .entry(*sweep)
                    .and_modify(|row| row.state = *state);

                if !state.is_open() {
                    self.leases.retain(|_, lease| lease.sweep != *sweep);
                }
            }
            AnyWrite::SetShare(SetShare { sweep, share }) => drop(
                self.sweeps
                    .entry(*sweep)
                    .and_modify(|row| row.share = *share),
            ),
            AnyWrite::StoreResults(results) => {
                return words(self.results(results));
            }
            AnyWrite::GiveUpTrial(GiveUpTrial { sweep, result }) => {
                let place = (*sweep, result.key);
                let stored = self.sweeps.contains_key(sweep) && !self.trials.contains_key(&place);
                if stored {
                    self.trials.insert(
                        place,
                        StoredTrial {
                            result: result.clone(),
                            worker: String::new(),
                        },
                    );
                }

                return words(stored);
            }
            AnyWrite::RevertGiveUp(RevertGiveUp {
                sweep,
                key,
                is_audit: audit,
            }) => {
                return words(self.withdraw(*sweep, *key, *audit));
            }
            AnyWrite::GiveUpAudit(GiveUpAudit {
                sweep,
                key,
                cause: why,
            }) => {
                let due = self
                    .audits
                    .get_mut(&(*sweep, *key))
                    .filter(|audit| audit.finding.is_none());
                let stored = due.is_some();

                if let Some(audit) = due {
                    (audit.finding, audit.why) = (Some(Finding::Failed), why.clone());
                }

                return words(stored);
            }
            AnyWrite::RetryFailed(RetryFailed(sweep)) => {
                return words(ReopenedTrials {
                    trials: self.retry(*sweep),
                    audits: self.retry_audits(*sweep),
                });
            }
            // Here nothing is ever damaged.
            // All rows are sound. What is left of a trial without one goes.
            AnyWrite::SetRowsAside(SetRowsAside { sweep, keys }) => {
                let rowless = keys
                    .iter()
                    .map(|key| (*sweep, *key))
                    .filter(|place| !self.trials.contains_key(place));
                rowless.for_each(|place| _ = self.audits.remove(&place));

                return words(Vec::<TrialKey>::new());
            }
            AnyWrite::RemoveSweep(RemoveSweep(sweep)) => {
                if self.sweeps.remove(sweep).is_some() {
                    self.leases.retain(|_, lease| lease.sweep != *sweep);
                    self.removals.insert(*sweep);
                }
            }
            AnyWrite::ClearRows(ClearRows(sweep)) => return words(self.clear(*sweep)),
            AnyWrite::RestoreRows(RestoreRows {
                sweep,
                rows,
                attempts,
            }) => {
                // Worker by worker.
                let mut rows = rows.clone();
                rows.sort_by(|a, b| a.worker.cmp(&b.worker));

                for row in rows {
                    self.trials.entry((*sweep, row.result.key)).or_insert(row);
                }

                let mut append = |(key, attempt): &(TrialKey, Attempt)| {
                    self.attempts
                        .entry((*sweep, *key))
                        .or_default()
                        .push(attempt.clone());
                };
                attempts.iter().for_each(&mut append);
            }
            AnyWrite::RestoreOutputs(RestoreOutputs { sweep, outputs }) => {
                for stored in outputs {
                    let place = (*sweep, stored.key, stored.attempt);
                    self.outputs.insert(place, stored.output.clone());
                }
            }
            AnyWrite::RestoreAudits(RestoreAudits { sweep, audits }) => {
                for audit in audits {
                    self.audits
                        .entry((*sweep, audit.key))
                        .or_insert_with(|| audit.clone());
                }
            }
            AnyWrite::SetCellsDigest(SetCellsDigest { sweep, cells }) => {
                self.sweeps
                    .entry(*sweep)
                    .and_modify(|row| row.source.cells_fingerprint = Some(*cells));
            }
            AnyWrite::CheckWritable(_) => {}
            AnyWrite::FindUnreferenced(FindUnreferenced(hashes)) => {
                let of_trials = |hash: &FileHash| {
                    self.trials
                        .values()
                        .any(|row| row.result.weights_hash == Some(*hash))
                };

                let of_sweeps = |hash: &FileHash| {
                    self.sweeps
                        .values()
                        .any(|row| row.named_files().any(|it| it == *hash))
                };
                let unnamed = hashes
                    .iter()
                    .filter(|hash| !of_trials(hash) && !of_sweeps(hash));

                return words(unnamed.copied().collect::<Vec<FileHash>>());
            }
            AnyWrite::RedoTrials(RedoTrials { sweep, keys }) => {
                return words(self.redo(*sweep, keys));
            }
        }

        words(())
    }

    fn withdraw(&mut self, sweep: SweepNumber, key: TrialKey, audit: bool) -> ReopenedTrials {
        let place = (sweep, key);
        let mut trials = Vec::new();
        let mut audits = Vec::new();

        if audit {
            let given_up = |audit: &&mut Audit| {
                audit.finding == Some(Finding::Failed) && audit.auditor_process == WorkerId::NONE
            };
            if let Some(audit) = self.audits.get_mut(&place).filter(given_up) {
                (audit.finding, audit.why) = (None, String::new());
                audits.push((key, audit.process.clone()));
            }
        } else {
            let given_up = |row: &&StoredTrial| {
                matches!(row.result.outcome, Outcome::Failed { .. }) && row.worker.is_empty()
            };
            if self.trials.get(&place).filter(given_up).is_some() {
                self.trials.remove(&place);
                trials.push(key);
            }
        }

        if !(trials.is_empty() && audits.is_empty()) {
            self.go_on(sweep);
        }

        ReopenedTrials { trials, audits }
    }

    fn redo(
        &mut self,
        sweep: SweepNumber,
        keys: &[TrialKey],
    ) -> Vec<(TrialKey, Option<Option<Finding>>)> {
        let mut redone = Vec::new();
        if self
            .sweeps
            .get(&sweep)
            .is_none_or(|row| row.state == SweepState::Cancelled)
        {
            return redone;
        }

        for key in keys
            .iter()
            .filter(|key| self.trials.contains_key(&(sweep, **key)))
        {
            let before = self.audits.get(&(sweep, *key)).map(|audit| audit.finding);
            if before == Some(Some(Finding::Different)) {
                continue;
            }
            if before != Some(None) {
                self.audits
                    .insert((sweep, *key), due(*key, &WorkerId::NONE));
            }

            redone.push((*key, before));
        }

        if !redone.is_empty() {
            self.go_on(sweep);
        }

        redone
    }

    /// A completed sweep has trials left again.
    fn go_on(&mut self, sweep: SweepNumber) {
        let completed = self
            .sweeps
            .get_mut(&sweep)
            .filter(|row| row.state == SweepState::Completed);
        completed
            .into_iter()
            .for_each(|row| row.state = SweepState::Running);
    }

    /// A number stands for one lease.
    fn lease(&mut self, row: &LeaseRow) -> Option<()> {
        if self.leases.contains_key(&row.fence.lease) {
            return None;
        }
        self.leases.insert(row.fence.lease, row.clone());
        self.next_lease = self.next_lease.max(LeaseId(row.fence.lease.0 + 1));
        Some(())
    }

    fn end_lease(&mut self, lease: LeaseId, ended: &ergodic::records::EndedLease) {
        let Some(row) = self
            .leases
            .get(&lease)
            .filter(|row| row.fence == ended.fence)
        else {
            return;
        };

        if ended.lost {
            self.sweeps
                .entry(row.sweep)
                .and_modify(|sweep| sweep.tallies.lost_leases += 1);
        }

        self.leases.remove(&lease);
    }

    fn results(&mut self, results: &StoreResults) -> CommitOutcome {
        let batch = &results.batch;
        let kept = |result| batch.positions.build_row_from_result(result);
        let lease = self.leases.get(&batch.fence.lease);
        let holds =
            lease.is_some_and(|lease| lease.fence == batch.fence && lease.sweep == batch.sweep);
        let mut stored = Vec::new();
        let mut report = CommitOutcome {
            fenced: results.compare_only || !holds,
            ..CommitOutcome::default()
        };

        for (at, result) in batch.results.iter().enumerate() {
            let place = (batch.sweep, result.key);
            if !report.fenced && !results.audit && !self.trials.contains_key(&place) {
                let attempt = self.next_attempt(batch.sweep, result.key);
                if let Some(output) = &result.output {
                    let place = (batch.sweep, result.key, attempt);
                    self.outputs.insert(place, output.clone());
                }
                let result = TrialResult {
                    output: None,
                    ..result.clone()
                };
                let worker = results.worker.clone();
                self.trials.insert(place, StoredTrial { result, worker });

                stored.push(at);
                let result = &batch.results[at];
                report.stored.push(kept(result));
                if results.chosen_for_audit.contains(&result.key) && !failed(result) {
                    self.audits.insert(place, due(result.key, &batch.process));
                    report.audits_due.push(result.key);
                }
            }
        }

        report.contradicted = self.contradicted(batch, &stored);
        // What comes twice in a batch is compared with its own row.
        for (_, result) in batch
            .results
            .iter()
            .enumerate()
            .filter(|(at, _)| !stored.contains(at))
        {
            let Some(row) = self.trials.get(&(batch.sweep, result.key)) else {
                continue;
            };
            report.already_stored.push(result.key);
            let other = contradict(&row.result, result);
            report.mismatches += u64::from(other);

            let audit = self.audits.get_mut(&(batch.sweep, result.key));
            let audit =
                audit.filter(|audit| audit.finding.is_none() && audit.process != batch.process);
            if let Some(audit) =
                audit.filter(|_| results.audit || results.chosen_for_audit.contains(&result.key))
            {
                let finding = match other {
                    _ if failed(result) => Finding::Failed,
                    true => Finding::Different,
                    false => Finding::Same,
                };

                let why = match &result.outcome {
                    Outcome::Failed { cause } => cause.clone(),
                    _ => differing(&row.result, result),
                };
                let auditor = results.worker.clone();
                let auditor_process = batch.process.clone();
                *audit = Audit {
                    finding: Some(finding),
                    auditor,
                    auditor_process,
                    why,
                    ..audit.clone()
                };

                report.audited.push((kept(result), finding));
            }
        }

        let known = (report.already_stored.len() - report.audited.len()) as u64;
        let mismatches = report.mismatches + report.contradicted;
        self.sweeps
            .entry(batch.sweep)
            .and_modify(|row| row.tallies.count_batch(known, mismatches, report.fenced));

        report
    }

    fn retry(&mut self, sweep: SweepNumber) -> Vec<TrialKey> {
        let of_sweep = self
            .of_sweep(sweep)
            .into_iter()
            .filter(|row| failed(&row.result));
        let rows: Vec<StoredTrial> = of_sweep.collect();
        for StoredTrial { result, worker } in &rows {
            self.trials.remove(&(sweep, result.key));
            if let Outcome::Failed { cause } = &result.outcome {
                let attempt = Attempt {
                    cause: cause.clone(),
                    worker: worker.clone(),
                    seconds: result.seconds,
                };
                self.attempts
                    .entry((sweep, result.key))
                    .or_default()
                    .push(attempt);
            }
        }

        let completed = self
            .sweeps
            .get_mut(&sweep)
            .filter(|row| row.state == SweepState::Completed);
        completed
            .into_iter()
            .for_each(|row| row.state = SweepState::Running);

        rows.into_iter().map(|row| row.result.key).collect()
    }

    fn retry_audits(&mut self, sweep: SweepNumber) -> Vec<(TrialKey, WorkerId)> {
        let failed = self
            .audits
            .iter_mut()
            .filter(|((of, _), audit)| *of == sweep && audit.finding == Some(Finding::Failed));
        let again = failed.map(|((_, key), audit)| {
            *audit = due(*key, &audit.process);
            (*key, audit.process.clone())
        });

        again.collect()
    }

    /// A history has fewer trials than are cleared at once.
    fn clear(&mut self, sweep: SweepNumber) -> ClearedRows {
        let rows = self.of_sweep(sweep);
        if !self.removals.contains(&sweep) {
            return ClearedRows::default();
        }

        if rows.is_empty() {
            self.removals.remove(&sweep);
            self.attempts.retain(|(of, _), _| *of != sweep);
            self.outputs.retain(|(of, ..), _| *of != sweep);
            self.audits.retain(|(of, _), _| *of != sweep);
            self.twins.retain(|(of, _), _| *of != sweep);
            return ClearedRows::default();
        }

        self.trials.retain(|(of, _), _| *of != sweep);
        let last = rows.iter().map(|row| row.result.key).max();
        self.audits
            .retain(|(of, key), _| *of != sweep || Some(*key) > last);
        self.outputs
            .retain(|(of, key, _), _| *of != sweep || Some(*key) > last);
        let weights: BTreeSet<FileHash> = rows
            .iter()
            .filter_map(|row| row.result.weights_hash)
            .collect();

        ClearedRows {
            trials: rows.len() as u64,
            weights: weights.into_iter().collect(),
            has_more: true,
        }
    }

    fn of_sweep(&self, sweep: SweepNumber) -> Vec<StoredTrial> {
        self.trials
            .iter()
            .filter(|((of, _), _)| *of == sweep)
            .map(|(_, row)| row.clone())
            .collect()
    }
}

/// An audit that nobody has made.
fn due(key: TrialKey, process: &WorkerId) -> Audit {
    Audit {
        key,
        process: process.clone(),
        finding: None,
        auditor: String::new(),
        auditor_process: WorkerId::NONE,
        why: String::new(),
    }
}

fn failed(result: &TrialResult) -> bool {
    matches!(result.outcome, Outcome::Failed { .. })
}

/// Whether two results of a trial are different ones. A failure is none.
fn contradict(a: &TrialResult, b: &TrialResult) -> bool {
    let failed = failed(a) || failed(b);
    // In words, because NaN is not equal to itself.
    let words = |r: &TrialResult| {
        format!(
            "{:?}",
            TrialResult {
                seconds: 0.0,
                isa: String::new(),
                output: None,
                ..r.clone()
            }
        )
    };

    !failed && words(a) != words(b)
}

/// In what two results differ that are no failures, in the order in which it is told.
fn differing(a: &TrialResult, b: &TrialResult) -> String {
    if failed(a) || failed(b) {
        return String::new();
    }

    let words = |r: &TrialResult| {
        [
            ("outcome", format!("{:?}", r.outcome)),
            ("steps", format!("{:?}", r.steps)),
            ("digest", format!("{:?}", r.digest)),
            ("metrics", format!("{:?}", r.metrics)),
            ("curve", format!("{:?}", r.curve)),
            ("weights", format!("{:?}", r.weights_hash)),
            ("predictions", format!("{:?}", r.predictions)),
        ]
    };
    let pairs = words(a).into_iter().zip(words(b));
    let different: Vec<&str> = pairs
        .filter(|(a, b)| a != b)
        .map(|((what, _), _)| what)
        .collect();

    different.join(", ")
}

/// A row as it is handed out with many others.
fn small(row: &StoredTrial) -> StoredTrial {
    let result = TrialResult {
        curve: MetricCurve::default(),
        predictions: Predictions::default(),
        ..row.result.clone()
    };
    StoredTrial {
        result,
        worker: row.worker.clone(),
    }
}

impl OutputReader for Model {
    fn read_output(
        &self,
        sweep: SweepNumber,
        key: TrialKey,
        attempt: u32,
    ) -> Result<Option<PackedOutput>, StoreError> {
        Ok(self.outputs.get(&(sweep, key, attempt)).cloned())
    }

    fn read_outputs(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(StoredOutput),
    ) -> Result<(), StoreError> {
        let of_sweep = self.outputs.iter().filter(|((of, ..), _)| *of == sweep);
        of_sweep.for_each(|((_, key, attempt), output)| {
            each(StoredOutput {
                key: *key,
                attempt: *attempt,
                output: output.clone(),
            });
        });
        Ok(())
    }
}

impl StoreReader for Model {
    fn read_sweeps(&self) -> Result<Vec<SweepRow>, StoreError> {
        Ok(self.sweeps.values().cloned().collect())
    }

    /// The model reads the rows of every sweep.
    fn read_seal(&self, _: SweepNumber) -> Result<Option<SweepSeal>, StoreError> {
        Ok(None)
    }

    fn read_unfinished_removals(&self) -> Result<Vec<SweepNumber>, StoreError> {
        Ok(self.removals.iter().copied().collect())
    }

    fn has_trial_with_weights(&self, weights: &FileHash) -> Result<bool, StoreError> {
        Ok(self
            .trials
            .values()
            .any(|row| row.result.weights_hash == Some(*weights)))
    }

    fn read_leases(&self) -> Result<(Vec<LeaseRow>, LeaseId), StoreError> {
        Ok((self.leases.values().cloned().collect(), self.next_lease))
    }

    fn read_intact_trials(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(StoredTrial),
    ) -> Result<Vec<Damage>, StoreError> {
        self.of_sweep(sweep).into_iter().for_each(each);
        Ok(Vec::new())
    }

    fn read_intact_ended_trials(
        &self,
        sweep: SweepNumber,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<Vec<Damage>, StoreError> {
        self.read_ended_trials(sweep, part, each)?;
        Ok(Vec::new())
    }

    fn read_weights_hashes(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(TrialKey, FileHash),
    ) -> Result<Vec<Damage>, StoreError> {
        let named = self
            .of_sweep(sweep)
            .into_iter()
            .filter_map(|row| Some((row.result.key, row.result.weights_hash?)));
        named.for_each(|(key, hash)| each(key, hash));
        Ok(Vec::new())
    }

    fn read_trials(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(StoredTrial) -> bool,
    ) -> Result<(), StoreError> {
        let _ = self.of_sweep(sweep).iter().all(|row| each(small(row)));
        Ok(())
    }

    /// The model gives rows no numbers.
    fn read_row_cursors(&self, sweep: SweepNumber, _: u64) -> Result<[RowCursor; 2], StoreError> {
        let rows = self.of_sweep(sweep).len() as u64;
        Ok([
            RowCursor::default(),
            RowCursor {
                row_count: rows,
                ..RowCursor::default()
            },
        ])
    }

    fn read_trials_after(
        &self,
        sweep: SweepNumber,
        _: u64,
        each: &mut dyn FnMut(StoredTrial) -> bool,
    ) -> Result<(), StoreError> {
        let _ = self.of_sweep(sweep).into_iter().all(each);
        Ok(())
    }

    fn read_trial(
        &self,
        sweep: SweepNumber,
        key: TrialKey,
    ) -> Result<Option<StoredTrial>, StoreError> {
        Ok(self.trials.get(&(sweep, key)).cloned())
    }

    fn read_attempts(&self, sweep: SweepNumber, key: TrialKey) -> Result<Vec<Attempt>, StoreError> {
        Ok(self
            .attempts
            .get(&(sweep, key))
            .cloned()
            .unwrap_or_default())
    }

    fn read_all_attempts(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(TrialKey, Attempt),
    ) -> Result<(), StoreError> {
        let of_sweep = self.attempts.iter().filter(|((of, _), _)| *of == sweep);
        of_sweep.for_each(|((_, key), attempts)| {
            attempts
                .iter()
                .for_each(|attempt| each(*key, attempt.clone()))
        });
        Ok(())
    }

    fn read_audits(&self, sweep: SweepNumber) -> Result<Vec<Audit>, StoreError> {
        let of_rows = self
            .audits
            .iter()
            .filter(|(place, _)| place.0 == sweep && self.trials.contains_key(place));
        Ok(of_rows.map(|(_, audit)| audit.clone()).collect())
    }

    fn read_audit(&self, sweep: SweepNumber, key: TrialKey) -> Result<Option<Audit>, StoreError> {
        Ok(self.audits.get(&(sweep, key)).cloned())
    }

    fn read_ended_trials(
        &self,
        sweep: SweepNumber,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<(), StoreError> {
        for row in self
            .of_sweep(sweep)
            .into_iter()
            .filter(|row| part.contains(row.result.key))
        {
            let TrialResult {
                key,
                outcome,
                metrics,
                seconds,
                ..
            } = row.result;
            each(EndedTrial {
                key,
                outcome,
                metrics: StoredNumbers::new(&encode_f64s(&metrics)),
                seconds,
            });
        }

        Ok(())
    }

    fn read_curves(
        &self,
        sweep: SweepNumber,
        part: TrialRange,
        each: &mut dyn FnMut(SampledTrial<'_>),
    ) -> Result<(), StoreError> {
        for row in self
            .of_sweep(sweep)
            .into_iter()
            .filter(|row| part.contains(row.result.key))
        {
            let diverged_at = match row.result.outcome {
                Outcome::Completed => None,
                Outcome::Diverged { step } => Some(step),
                Outcome::Failed { .. } => continue,
            };

            let bytes = encode_curve(&row.result.curve);
            each(SampledTrial {
                key: row.result.key,
                diverged_at,
                curve: CurveView::new(&bytes).expect("a curve"),
            });
        }

        Ok(())
    }

    fn read_predictions(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(TrialKey, Predictions) -> bool,
    ) -> Result<(), StoreError> {
        let mut some = self
            .of_sweep(sweep)
            .into_iter()
            .filter(|row| !row.result.predictions.steps.is_empty());
        let _ = some.all(|row| each(row.result.key, row.result.predictions));
        Ok(())
    }
}

/// All that a store can be asked, in words: NaN is not equal to itself.
fn view(reader: &dyn StoreReader) -> String {
    let mut view = format!(
        "{:?}\n{:?}\n{:?} {:?}\n",
        reader.read_sweeps().expect("sweeps"),
        reader.read_leases().expect("leases"),
        reader.read_unfinished_removals().expect("removals"),
        reader
            .has_trial_with_weights(&FileHash([7; 32]))
            .expect("names")
    );

    for sweep in 1..4 {
        view += &of_sweep(reader, SweepNumber(sweep));
    }

    view
}

fn of_sweep(reader: &dyn StoreReader, sweep: SweepNumber) -> String {
    let mut view = String::new();
    let mut sound = BTreeMap::new();
    let mut each = |row: StoredTrial| drop(sound.insert(row.result.key, format!("{row:?}")));
    let damages = reader
        .read_intact_trials(sweep, &mut each)
        .expect("sound rows");
    assert_eq!(damages, [], "sweep {sweep}");

    let mut add = |what: String| view += &(what + "\n");
    add(format!("{sound:?}"));
    reader
        .read_trials(sweep, &mut |row| {
            add(format!("{row:?}"));
            true
        })
        .expect("rows");

    let named =
        reader.read_weights_hashes(sweep, &mut |key, hash| add(format!("{key} names {hash:?}")));
    assert_eq!(named.expect("weights"), [], "sweep {sweep}");
    add(format!(
        "{} rows",
        reader.read_row_cursors(sweep, 0).expect("rows")[1].row_count
    ));

    let mut whole = |row: StoredTrial| {
        add(format!("{row:?}"));
        true
    };
    reader
        .read_trials_after(sweep, 0, &mut whole)
        .expect("whole rows");

    for part in TrialRange::split_all(4, 8, 3) {
        let mut ended = |trial: EndedTrial<'_>| {
            let EndedTrial {
                key,
                outcome,
                metrics,
                seconds,
            } = trial;
            add(format!(
                "{key} {outcome:?} {seconds} {:?}",
                (0..9).map(|at| metrics.get(at)).collect::<Vec<_>>()
            ));
        };
        reader
            .read_ended_trials(sweep, part, &mut ended)
            .expect("rows");

        assert_eq!(
            reader
                .read_intact_ended_trials(sweep, part, &mut ended)
                .expect("sound rows"),
            [],
            "sweep {sweep}"
        );

        let mut sampled = |trial: SampledTrial<'_>| {
            add(format!(
                "{} {:?} {:?}",
                trial.key,
                trial.diverged_at,
                trial.curve.to_curve()
            ));
        };

        reader
            .read_curves(sweep, part, &mut sampled)
            .expect("curves");
    }

    reader
        .read_predictions(sweep, &mut |key, what| {
            add(format!("{key} {what:?}"));
            true
        })
        .expect("predictions");

    reader
        .read_all_attempts(sweep, &mut |key, attempt| add(format!("{key} {attempt:?}")))
        .expect("attempts");
    reader
        .read_outputs(sweep, &mut |stored| add(format!("{stored:?}")))
        .expect("outputs");
    add(format!("{:?}", reader.read_audits(sweep)));

    for n in 0..8 {
        add(format!("{:?}", reader.read_audit(sweep, key(n))));
        add(format!("{:?}", reader.read_output(sweep, key(n), n % 3)));
        add(format!(
            "{:?} {:?}",
            reader.read_trial(sweep, key(n)),
            reader.read_attempts(sweep, key(n))
        ));
    }

    view
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::new().launch()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        steps()
    }

    fn apply(state: Self, step: &Step) -> Self {
        match step {
            Step::Launch => state.launch(),
            Step::Inherit(from, shift) => state.inherit(*from, *shift),
            Step::Gather(from, shift) => state.gather(*from, *shift),
            Step::Commit(writes) => state.commit(writes),
            Step::Reopen => Self {
                epoch: Epoch(state.epoch.0 + 1),
                written: None,
                ..state
            },
        }
    }

    fn preconditions(state: &Self, step: &Step) -> bool {
        match step {
            Step::Launch | Step::Inherit(..) | Step::Gather(..) => state.launched.0 < 3,
            // Nothing is put back for a sweep that was never launched, whose number another one gets.
            Step::Commit(writes) => writes.iter().all(|write| match write {
                AnyWrite::RestoreRows(restore) => restore.sweep <= state.launched,
                AnyWrite::RestoreOutputs(restore) => restore.sweep <= state.launched,
                _ => true,
            }),
            Step::Reopen => true,
        }
    }
}

/// A store and its writer.
struct Open<S> {
    store: S,
    writer: Box<dyn StoreWriter>,
}

impl<S: Store> Open<S> {
    /// Leads, in this epoch.
    fn new(store: S, epoch: Epoch) -> Self {
        let leader = store.acquire_leadership("http://here").expect("claimed");
        assert!(
            leader.is_this && leader.epoch == epoch,
            "{leader:?} in epoch {epoch}"
        );
        let writer = store.open_writer(epoch).expect("a writer");
        Self { store, writer }
    }

    fn commit(&mut self, writes: &[AnyWrite], model: &Model) {
        let written = self.writer.commit(writes.to_vec());
        assert_eq!(written.as_ref().ok(), model.written.as_ref(), "{written:?}");
    }

    fn check(&self, model: &Model) {
        assert_eq!(
            view(self.store.open_reader().expect("a reader").as_ref()),
            view(model)
        );
    }
}

/// Both stores; the one in PostgreSQL where there is a server.
struct Both {
    dir: tempfile::TempDir,
    sqlite: Option<Open<SqliteStore>>,
    postgres: Option<(String, Open<PostgresStore>)>,
}

impl Both {
    fn commit(&mut self, writes: &[AnyWrite], model: &Model) {
        self.sqlite
            .as_mut()
            .expect("it is open")
            .commit(writes, model);
        if let Some((_, postgres)) = &mut self.postgres {
            postgres.commit(writes, model);
        }
    }

    fn reopen(&mut self, epoch: Epoch) {
        // It belongs to one coordinator at a time.
        self.sqlite = None;
        self.sqlite = Some(Open::new(
            SqliteStore::open(self.dir.path()).expect("opened again"),
            epoch,
        ));

        if let Some((schema, old)) = &mut self.postgres {
            let store = with_server(|server| {
                server.ask(&format!(
                    "UPDATE {schema}.term SET expires_at = '-infinity'"
                ));
                PostgresStore::open(&url(server, schema)).expect("opened again")
            });
            let new = Open::new(store.expect("the server is there"), epoch);

            let refused = old.writer.commit(CheckWritable);
            assert!(
                matches!(refused, Err(StoreError::Deposed(_))),
                "{refused:?}"
            );

            *old = new;
        }
    }
}

impl StateMachineTest for Both {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(model: &Model) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sqlite = Some(Open::new(
            SqliteStore::open(dir.path()).expect("opened"),
            Epoch(1),
        ));
        let postgres = with_server(|server| {
            let schema = format!(
                "s{}",
                server.ask("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 's%'")
            );
            server.ask(&format!("CREATE SCHEMA {schema}"));
            let store = PostgresStore::open(&url(server, &schema)).expect("opened");
            (schema, Open::new(store, Epoch(1)))
        });
        let mut both = Self {
            dir,
            sqlite,
            postgres,
        };
        both.commit(&[InsertSweep(model.latest()).into()], model);

        both
    }

    fn apply(mut both: Self, model: &Model, step: Step) -> Self {
        match step {
            Step::Launch => both.commit(&[InsertSweep(model.latest()).into()], model),
            Step::Inherit(from, shift) => {
                let inheritance = inheritance(model.latest(), from, shift);
                both.commit(&[InsertSuccessor(inheritance).into()], model);
            }
            Step::Gather(from, shift) => {
                let gathering = gathering(model.latest(), from, shift);
                both.commit(&[InsertReusing(gathering).into()], model);
            }
            Step::Commit(writes) => both.commit(&writes, model),
            Step::Reopen => both.reopen(model.epoch),
        }

        both
    }

    fn check_invariants(both: &Self, model: &Model) {
        both.sqlite.as_ref().expect("it is open").check(model);
        if let Some((_, postgres)) = &both.postgres {
            postgres.check(model);
        }
    }
}

/// An output in words.
fn words(output: impl std::fmt::Debug) -> Option<String> {
    Some(format!("{output:?}"))
}

fn url(server: &Postgres, schema: &str) -> String {
    format!("{}&options[search_path]={schema}", server.url())
}

/// Rows of a sweep that is not there yet, which then reuses those of its own number.
fn reuse_of_the_next_number() -> Vec<Step> {
    let next = SweepNumber(2);
    let rows = results_of(next, 1, vec![result(0, 0), result(1, 0)]);
    let writes = vec![
        AnyWrite::from(InsertLease(lease(1, next))),
        AnyWrite::from(rows),
    ];

    vec![Step::Commit(writes), Step::Gather(next, 1)]
}

/// Stopped at the end of the test.
static SERVER: Mutex<Option<Postgres>> = Mutex::new(None);

fn with_server<T>(work: impl FnOnce(&Postgres) -> T) -> Option<T> {
    SERVER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .map(work)
}

#[test]
fn both_stores_do_what_the_model_does() {
    match Postgres::start() {
        Ok(server) => *SERVER.lock().expect("nobody else has it") = Some(server),
        Err(why) => skip(
            "both_stores_do_what_the_model_does (PostgreSQL)",
            "postgres",
            &why,
        ),
    }

    let config = ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    Both::test_sequential(
        config.clone(),
        Model::new().launch(),
        reuse_of_the_next_number(),
        None,
    );

    let histories = Model::sequential_strategy(1..24);
    let outcome = TestRunner::new(config.clone()).run(&histories, |(model, steps, seen)| {
        Both::test_sequential(config.clone(), model, steps, seen);
        Ok(())
    });
    drop(SERVER.lock().unwrap_or_else(PoisonError::into_inner).take());

    assert!(outcome.is_ok(), "{}", outcome.expect_err("it failed"));
}
