//! Result batches on their way to the store, rows that are looked up, trials that are given up.

use ergodic_common::{Outcome, TrialKey, TrialResult};

use crate::core::{
    Admission, CommitOutcome, CoreTime, Effect, GiveUpReversal, GivenUpTrial, MetricPositions,
    StoredRow,
};
use crate::failpoint;
use crate::server::engine::persist::into_reopened_trials;
use crate::server::engine::{
    BatchRefusal, Engine, EngineEvent, FoundRows, IncomingBatch, ReopenedTrials,
};
use crate::store::{CommitBatch, CommitReport, StoreError, StoreWrite, WriteOutput};

impl Engine {
    pub(crate) fn store_batch(&mut self, mut delivery: Box<IncomingBatch>) -> Vec<Effect> {
        // The loop itself never waits for a disk that is slow.
        if !self.writer.can_take_results() {
            let _ = delivery.reply.send(Err(BatchRefusal::Overloaded));
            return Vec::new();
        }

        let keys: Vec<TrialKey> = delivery.rows.iter().map(|row| row.key).collect();
        let (compare_only, audit) =
            match self
                .core
                .admit_batch(&delivery.worker, delivery.fence, &keys)
            {
                Err(key) => {
                    let _ = delivery.reply.send(Err(BatchRefusal::NotLeased(key)));
                    return Vec::new();
                }
                Ok(Admission::Store { sweep }) => (sweep != delivery.sweep, false),
                Ok(Admission::Audit { sweep }) => (sweep != delivery.sweep, true),
                Ok(Admission::Compare) => (true, false),
            };

        let name = self
            .core
            .workers()
            .find(|(id, _)| **id == delivery.worker)
            .map(|(_, w)| w.name.clone());
        let batch = CommitBatch {
            sweep: delivery.sweep,
            fence: delivery.fence,
            worker: name.unwrap_or_else(|| delivery.worker.clone()),
            process: delivery.worker.clone(),
            results: std::mem::take(&mut delivery.results),
            compare_only,
            audit,
            chosen_for_audit: self.core.choose_audits(delivery.sweep, &keys),
        };

        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let report = written.map(|written| match written {
                WriteOutput::Results(report) => report,
                _ => CommitReport::default(),
            });
            let _ = events.send(EngineEvent::BatchCommitted(delivery, report));
        });
        self.writer
            .enqueue_write(StoreWrite::StoreResults(batch), answer);

        Vec::new()
    }

    pub(crate) fn on_batch_committed(
        &mut self,
        delivery: IncomingBatch,
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

                let _ = delivery.reply.send(Err(BatchRefusal::StoreFailed(error)));
                return Vec::new();
            }
        };
        let mismatches = report.mismatches + report.contradicted;
        if mismatches > 0 {
            tracing::error!(
                worker = delivery.worker,
                mismatches,
                "a trial yielded other bits"
            );
        }

        let committed = CommitOutcome {
            stored: report
                .stored
                .iter()
                .map(|at| delivery.rows[*at].clone())
                .collect(),
            already_stored: report.already_stored.clone(),
            mismatches,
            fenced: report.fenced,
            audits_due: report.audits_due.clone(),
            audited: report
                .audited
                .iter()
                .map(|(at, finding)| (delivery.rows[*at].clone(), *finding))
                .collect(),
        };
        let effects = self.core.on_batch_committed(
            &delivery.worker,
            delivery.fence,
            delivery.sweep,
            &committed,
            now,
        );

        failpoint::reach(failpoint::BEFORE_ACKNOWLEDGEMENT);
        let _ = delivery.reply.send(Ok(report));
        failpoint::reach(failpoint::AFTER_ACKNOWLEDGEMENT);
        effects
    }

    /// Stores a failed row for a trial that killed too many workers, or that its audit failed if it has a row.
    pub(crate) fn store_give_up(&self, verdict: GivenUpTrial) {
        tracing::error!(trial = %verdict.key, cause = verdict.cause, audit = verdict.is_audit, "given up");
        let write = if verdict.is_audit {
            StoreWrite::GiveUpAudit(verdict.sweep, verdict.key, verdict.cause.clone())
        } else {
            let result =
                TrialResult::failed(verdict.key, verdict.cause.clone(), verdict.metric_count);
            StoreWrite::GiveUpTrial(verdict.sweep, result)
        };

        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let stored = written.map(|written| written == WriteOutput::GaveUp(true));
            let _ = events.send(EngineEvent::GiveUpStored(verdict, stored));
        });
        self.writer.enqueue_write(write, answer);
    }

    pub(crate) fn on_give_up_stored(
        &mut self,
        verdict: GivenUpTrial,
        stored: Result<bool, StoreError>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                self.throttled_log
                    .report_error("the failure of a trial could not be stored", &error);
                self.core.on_give_up_failed(verdict);
                return Vec::new();
            }
        };

        if verdict.is_audit {
            return self
                .core
                .on_audit_given_up(verdict.sweep, verdict.key, stored, now);
        }

        let outcome = Outcome::Failed {
            cause: verdict.cause,
        };
        let row = StoredRow {
            key: verdict.key,
            outcome,
            watched_metric: f64::NAN,
            deciding_metric: f64::NAN,
            seconds: 0.0,
        };

        self.core
            .on_trial_given_up(verdict.sweep, &row, stored, now)
    }

    /// After the verdict in the same queue: whatever became of that is seen by whoever takes it back.
    pub(crate) fn revert_give_up(&self, withdrawal: GiveUpReversal) {
        let GiveUpReversal {
            sweep,
            key,
            is_audit: audit,
        } = withdrawal;
        tracing::info!(trial = %key, "a worker that was thought dead of it has come back: it is run again");

        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let _ = events.send(EngineEvent::GiveUpReverted(
                withdrawal,
                written.map(into_reopened_trials),
            ));
        });
        self.writer
            .enqueue_write(StoreWrite::RevertGiveUp(sweep, key, audit), answer);
    }

    pub(crate) fn on_give_up_reverted(
        &mut self,
        withdrawal: GiveUpReversal,
        retried: Result<ReopenedTrials, StoreError>,
        now: CoreTime,
    ) -> Vec<Effect> {
        match retried {
            Ok((trials, audits)) => {
                self.core
                    .on_trials_reopened(withdrawal.sweep, &trials, &audits, now)
            }
            Err(error) => {
                self.throttled_log
                    .report_error("the failure of a trial could not be taken back", &error);
                self.core.on_give_up_reversal_failed(withdrawal);
                Vec::new()
            }
        }
    }

    pub(crate) fn look_up_rows(&self, sweep: i64, keys: Vec<TrialKey>) {
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let looked = written.map(|written| match written {
                WriteOutput::Rows(rows, audits) => (rows, audits),
                _ => FoundRows::default(),
            });
            let _ = events.send(EngineEvent::RowsLookedUp(sweep, looked));
        });

        self.writer
            .enqueue_write(StoreWrite::LookUpRows(sweep, keys), answer);
    }

    /// Where it fails, the trials are run again, and their rows are looked up again when they come.
    pub(crate) fn on_rows_looked_up(
        &mut self,
        number: i64,
        looked: Result<FoundRows, StoreError>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self.core.sweep(number) else {
            return Vec::new();
        };
        let kept = MetricPositions::from_spec(&sweep.spec);

        match looked {
            Ok((rows, audits)) => {
                let rows: Vec<StoredRow> = rows
                    .iter()
                    .map(|row| kept.build_row_from_result(row))
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
