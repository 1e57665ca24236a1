//! Result batches on their way to the store, rows that are looked up, trials that are given up.

use ergodic_common::{Outcome, TrialKey, TrialResult};

use crate::core::{
    Admission, CommitOutcome, CoreTime, Effect, GiveUpReversal, GivenUpTrial, MetricPositions,
    StoredRow,
};
use crate::failpoint;
use crate::server::engine::persist::into_reopened_trials;
use crate::server::engine::{
    BatchRefusal, Engine, FoundRows, IncomingBatch, ReopenedTrials, StoreEvent,
};
use crate::store::{CommitBatch, CommitReport, StoreError, StoreWrite, WriteOutput};

impl Engine {
    pub(crate) fn store_batch(&mut self, mut incoming: Box<IncomingBatch>) -> Vec<Effect> {
        // The loop itself never waits for a disk that is slow.
        if !self.writer.can_take_results() {
            let _ = incoming.reply.send(Err(BatchRefusal::Overloaded));
            return Vec::new();
        }

        let keys: Vec<TrialKey> = incoming.rows.iter().map(|row| row.key).collect();
        let admitted = self
            .core
            .admit_batch(&incoming.worker, incoming.fence, &keys);
        let batch = match admitted {
            Ok(admission) => self.build_commit_batch(&mut incoming, admission, &keys),
            Err(key) => {
                let _ = incoming.reply.send(Err(BatchRefusal::NotLeased(key)));
                return Vec::new();
            }
        };

        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let report = written.map(|written| match written {
                WriteOutput::Results(report) => report,
                _ => CommitReport::default(),
            });
            let _ = events.send(StoreEvent::BatchCommitted(incoming, report).into());
        });
        self.writer
            .enqueue_write(StoreWrite::StoreResults(batch), answer);

        Vec::new()
    }

    /// Takes the results out of an incoming batch.
    fn build_commit_batch(
        &mut self,
        incoming: &mut IncomingBatch,
        admission: Admission,
        keys: &[TrialKey],
    ) -> CommitBatch {
        let worker = self
            .core
            .workers()
            .find(|(id, _)| **id == incoming.worker)
            .map_or_else(
                || incoming.worker.clone(),
                |(_, worker)| worker.name.clone(),
            );
        let compare_only = match admission {
            Admission::Store { sweep } | Admission::Audit { sweep } => sweep != incoming.sweep,
            Admission::Compare => true,
        };

        CommitBatch {
            sweep: incoming.sweep,
            fence: incoming.fence,
            worker,
            process: incoming.worker.clone(),
            results: std::mem::take(&mut incoming.results),
            compare_only,
            audit: matches!(admission, Admission::Audit { .. }),
            chosen_for_audit: self.core.choose_audits(incoming.sweep, keys),
        }
    }

    pub(crate) fn on_batch_committed(
        &mut self,
        incoming: IncomingBatch,
        result: Result<CommitReport, StoreError>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let report = match result {
            Ok(report) => report,
            Err(error) => {
                if !matches!(error, StoreError::BlobMissing(_)) {
                    self.throttled_log
                        .report_error("results could not be stored", &error);
                }

                let _ = incoming.reply.send(Err(BatchRefusal::StoreFailed(error)));
                return Vec::new();
            }
        };

        let outcome = build_outcome(&incoming, &report);
        if outcome.mismatches > 0 {
            tracing::error!(
                worker = incoming.worker,
                mismatches = outcome.mismatches,
                "a trial yielded other bits"
            );
        }

        let effects = self.core.on_batch_committed(
            &incoming.worker,
            incoming.fence,
            incoming.sweep,
            &outcome,
            now,
        );

        failpoint::reach(failpoint::BEFORE_ACKNOWLEDGEMENT);
        let _ = incoming.reply.send(Ok(report));
        failpoint::reach(failpoint::AFTER_ACKNOWLEDGEMENT);
        effects
    }

    /// Stores a failed row for a trial that killed too many workers, or a failed audit for one that has a row.
    pub(crate) fn store_give_up(&self, given_up: GivenUpTrial) {
        tracing::error!(trial = %given_up.key, cause = given_up.cause, audit = given_up.is_audit, "given up");
        let write = if given_up.is_audit {
            StoreWrite::GiveUpAudit(given_up.sweep, given_up.key, given_up.cause.clone())
        } else {
            let result =
                TrialResult::failed(given_up.key, given_up.cause.clone(), given_up.metric_count);
            StoreWrite::GiveUpTrial(given_up.sweep, result)
        };

        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let stored = written.map(|written| written == WriteOutput::GaveUp(true));
            let _ = events.send(StoreEvent::GiveUpStored(given_up, stored).into());
        });
        self.writer.enqueue_write(write, answer);
    }

    pub(crate) fn on_give_up_stored(
        &mut self,
        given_up: GivenUpTrial,
        stored: Result<bool, StoreError>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                self.throttled_log
                    .report_error("the failure of a trial could not be stored", &error);
                self.core.on_give_up_failed(given_up);
                return Vec::new();
            }
        };

        if given_up.is_audit {
            return self
                .core
                .on_audit_given_up(given_up.sweep, given_up.key, stored, now);
        }

        let outcome = Outcome::Failed {
            cause: given_up.cause,
        };
        let row = StoredRow {
            key: given_up.key,
            outcome,
            watched_metric: f64::NAN,
            deciding_metric: f64::NAN,
            seconds: 0.0,
        };

        self.core
            .on_trial_given_up(given_up.sweep, &row, stored, now)
    }

    /// The write follows the give-up in the same queue, and so finds whatever became of it.
    pub(crate) fn revert_give_up(&self, reversal: GiveUpReversal) {
        let GiveUpReversal {
            sweep,
            key,
            is_audit: audit,
        } = reversal;
        tracing::info!(trial = %key, "a worker that was thought dead of it has come back: it is run again");

        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let _ = events.send(
                StoreEvent::GiveUpReverted(reversal, written.map(into_reopened_trials)).into(),
            );
        });
        self.writer
            .enqueue_write(StoreWrite::RevertGiveUp(sweep, key, audit), answer);
    }

    pub(crate) fn on_give_up_reverted(
        &mut self,
        reversal: GiveUpReversal,
        retried: Result<ReopenedTrials, StoreError>,
        now: CoreTime,
    ) -> Vec<Effect> {
        match retried {
            Ok((trials, audits)) => {
                self.core
                    .on_trials_reopened(reversal.sweep, &trials, &audits, now)
            }
            Err(error) => {
                self.throttled_log
                    .report_error("the failure of a trial could not be taken back", &error);
                self.core.on_give_up_reversal_failed(reversal);
                Vec::new()
            }
        }
    }

    pub(crate) fn look_up_rows(&self, sweep: i64, keys: Vec<TrialKey>) {
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let found = written.map(|written| match written {
                WriteOutput::Rows(rows, audits) => (rows, audits),
                _ => FoundRows::default(),
            });
            let _ = events.send(StoreEvent::RowsLookedUp(sweep, found).into());
        });

        self.writer
            .enqueue_write(StoreWrite::LookUpRows(sweep, keys), answer);
    }

    /// Where it fails, the trials are run again, and their rows are looked up again when they come.
    pub(crate) fn on_rows_looked_up(
        &mut self,
        number: i64,
        found: Result<FoundRows, StoreError>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self.core.sweep(number) else {
            return Vec::new();
        };
        let positions = MetricPositions::from_spec(&sweep.spec);

        match found {
            Ok((rows, audits)) => {
                let rows: Vec<StoredRow> = rows
                    .iter()
                    .map(|row| positions.build_row_from_result(row))
                    .collect();
                self.core.on_rows_looked_up(number, &rows, &audits, now)
            }
            Err(error) => {
                self.throttled_log
                    .report_error("rows could not be looked up", &error);
                Vec::new()
            }
        }
    }
}

/// What the core learns of a batch: the store's report, with the rows that it speaks of by their indices.
fn build_outcome(incoming: &IncomingBatch, report: &CommitReport) -> CommitOutcome {
    let stored = report.stored.iter();
    let audited = report.audited.iter();
    CommitOutcome {
        stored: stored.map(|at| incoming.rows[*at].clone()).collect(),
        already_stored: report.already_stored.clone(),
        mismatches: report.mismatches + report.contradicted,
        fenced: report.fenced,
        audits_due: report.audits_due.clone(),
        audited: audited
            .map(|(at, finding)| (incoming.rows[*at].clone(), *finding))
            .collect(),
    }
}
