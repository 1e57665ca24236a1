//! Writes of result batches, look-ups of rows, and give-ups.

use ergodic_common::ids::SweepNumber;
use ergodic_common::{Outcome, TrialKey, TrialResult};
use tokio::sync::oneshot;

use crate::core::{
    Admission, CommitOutcome, GiveUpReversal, GivenUpTrial, MetricPositions, StoredRow,
};
use crate::failpoint;
use crate::result_batch::ResultBatch;
use crate::server::engine::{BatchRefusal, Engine};
use crate::server::limits::Permit;
use crate::store::{GiveUpAudit, GiveUpTrial, LookUpRows, RevertGiveUp, StoreError, StoreResults};

impl Engine {
    /// Stores a batch, or only compares it, and then acknowledges it. The permit is held until then.
    pub(crate) fn store_results(
        &mut self,
        batch: ResultBatch,
        permit: Permit,
        reply: oneshot::Sender<Result<CommitOutcome, BatchRefusal>>,
    ) {
        // Rejects the batch instead of waiting, because a slow disk must not block the event loop.
        if !self.writer.can_take_results() {
            let _ = reply.send(Err(BatchRefusal::Overloaded));
            return;
        }

        let keys = batch.trial_keys();
        let admission = match self.core.admit_batch(&batch.process, batch.fence, &keys) {
            Ok(admission) => admission,
            Err(key) => {
                let _ = reply.send(Err(BatchRefusal::NotLeased(key)));
                return;
            }
        };

        let worker = batch.process.clone();
        let fence = batch.fence;
        let sweep = batch.sweep;
        let write = self.build_results_write(batch, admission, &keys);
        self.persist(write, move |engine, committed| {
            let outcome = match committed {
                Ok(outcome) => outcome,
                Err(error) => {
                    engine.report_unstored_results(&error);
                    let _ = reply.send(Err(BatchRefusal::StoreFailed(error)));
                    return Vec::new();
                }
            };

            let is_alarm = engine
                .core
                .sweep(sweep)
                .is_none_or(|sweep| sweep.spec.must_repeat_exactly());
            if outcome.differing_count() > 0 && is_alarm {
                tracing::error!(
                    worker = worker.as_str(),
                    mismatches = outcome.differing_count(),
                    "a trial yielded different bits"
                );
            }

            let now = engine.current_time();
            let effects = engine
                .core
                .on_batch_committed(&worker, fence, sweep, &outcome, now);

            failpoint::reach(failpoint::BEFORE_ACKNOWLEDGEMENT);
            let _ = reply.send(Ok(outcome));
            failpoint::reach(failpoint::AFTER_ACKNOWLEDGEMENT);
            drop(permit);
            effects
        });
    }

    fn build_results_write(
        &mut self,
        batch: ResultBatch,
        admission: Admission,
        keys: &[TrialKey],
    ) -> StoreResults {
        let worker = self
            .core
            .workers()
            .find(|(id, _)| **id == batch.process)
            .map_or_else(
                || batch.process.to_string(),
                |(_, worker)| worker.name.clone(),
            );
        let compare_only = match admission {
            Admission::Store { sweep } | Admission::Audit { sweep } => sweep != batch.sweep,
            Admission::Compare => true,
        };

        StoreResults {
            worker,
            compare_only,
            audit: matches!(admission, Admission::Audit { .. }),
            chosen_for_audit: self.core.choose_audits(batch.sweep, keys),
            batch,
        }
    }

    /// A worker whose files are missing sends them first, and then its results again.
    fn report_unstored_results(&mut self, error: &StoreError) {
        if !matches!(error, StoreError::BlobMissing(_)) {
            self.throttled_log
                .report_error("results could not be stored", error);
        }
    }

    /// Stores a failed row for a trial in which three workers crashed, or a failed audit for one that has a row.
    pub(crate) fn give_up_trial(&self, given_up: GivenUpTrial) {
        tracing::error!(trial = %given_up.key, cause = given_up.cause, audit = given_up.is_audit, "given up");
        let sweep = given_up.sweep;
        let key = given_up.key;
        let cause = given_up.cause.clone();

        if given_up.is_audit {
            self.persist(GiveUpAudit { sweep, key, cause }, move |engine, stored| {
                let Some(stored) = engine.check_give_up_stored(stored, &given_up) else {
                    return Vec::new();
                };
                let now = engine.current_time();
                engine.core.on_audit_given_up(sweep, key, stored, now)
            });
            return;
        }

        let result = TrialResult::failed(key, cause, given_up.metric_count);
        self.persist(GiveUpTrial { sweep, result }, move |engine, stored| {
            let Some(stored) = engine.check_give_up_stored(stored, &given_up) else {
                return Vec::new();
            };

            let row = StoredRow {
                key,
                outcome: Outcome::Failed {
                    cause: given_up.cause,
                },
                watched_metric: f64::NAN,
                deciding_metric: f64::NAN,
                seconds: 0.0,
            };
            let now = engine.current_time();
            engine.core.on_trial_given_up(sweep, &row, stored, now)
        });
    }

    /// Whether the trial, or its audit, is a failure now; `None` if that could not be stored, and the core knows of it.
    fn check_give_up_stored(
        &mut self,
        stored: Result<bool, StoreError>,
        given_up: &GivenUpTrial,
    ) -> Option<bool> {
        match stored {
            Ok(stored) => Some(stored),
            Err(error) => {
                self.throttled_log
                    .report_error("the failure of a trial could not be stored", &error);
                self.core.on_give_up_failed(given_up.clone());
                None
            }
        }
    }

    /// Reverts a give-up. The write follows the give-up in the same queue, so it applies to its
    /// result.
    pub(crate) fn revert_give_up(&self, reversal: GiveUpReversal) {
        let GiveUpReversal {
            sweep,
            key,
            is_audit,
        } = reversal;
        tracing::info!(trial = %key, "a worker whose crash counted against it has come back: it is run again");

        let write = RevertGiveUp {
            sweep,
            key,
            is_audit,
        };
        self.persist(write, move |engine, reverted| match reverted {
            Ok(reopened) => {
                let now = engine.current_time();
                engine
                    .core
                    .on_trials_reopened(sweep, &reopened.trials, &reopened.audits, now)
            }
            Err(error) => {
                engine
                    .throttled_log
                    .report_error("the failure of a trial could not be reverted", &error);
                engine.core.on_give_up_reversal_failed(reversal);
                Vec::new()
            }
        });
    }

    /// Handles looked-up rows. If the look-up failed, the trials run again, and their rows are
    /// looked up when results come.
    pub(crate) fn look_up_rows(&self, sweep: SweepNumber, keys: Vec<TrialKey>) {
        let Some(known) = self.core.sweep(sweep) else {
            return;
        };

        let write = LookUpRows {
            sweep,
            keys,
            positions: MetricPositions::from_spec(&known.spec),
        };
        self.persist(write, move |engine, looked_up| match looked_up {
            Ok(found) => {
                let now = engine.current_time();
                engine
                    .core
                    .on_rows_looked_up(sweep, &found.rows, &found.audits, now)
            }
            Err(error) => {
                engine
                    .throttled_log
                    .report_error("rows could not be looked up", &error);
                Vec::new()
            }
        });
    }
}
