//! What a trial of an experiment has reported, what may end it, and the result that it gives.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ergodic_common::duration::format_duration;
use ergodic_common::ids::TrialIdentity;
use ergodic_common::program::ProgramCell;
use ergodic_common::{Outcome, TrialResult};

use super::error::TrialError;
use crate::program::record::TrialRecord;
use crate::program::trial::NoResult;
use crate::train::checkpoint::{CheckpointEncoder, open_checkpoint};
use crate::train::{CheckpointStore, FinishedTrial};
use crate::work_queue::Assignment;

/// What a trial has reported, and what may end it.
pub(super) struct TrialState<'a> {
    pub(super) record: TrialRecord<'a>,
    cell: &'a ProgramCell,
    assignment: &'a Assignment,
    store: Option<&'a dyn CheckpointStore>,
    identity: TrialIdentity,
    begun: Instant,
    /// Whether the experiment keeps checkpoints, so that it may go on to the next one when it must stop.
    keeps_checkpoints: bool,
    /// The first reason to end that the experiment was told. It counts even if the experiment goes on.
    told: OnceLock<TrialError>,
}

impl fmt::Debug for TrialState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("TrialState");
        shown.field("record", &self.record).finish_non_exhaustive()
    }
}

impl<'a> TrialState<'a> {
    pub(super) fn new(
        cell: &'a ProgramCell,
        assignment: &'a Assignment,
        store: Option<&'a dyn CheckpointStore>,
        identity: TrialIdentity,
    ) -> Self {
        Self {
            record: TrialRecord::new(&cell.program.metrics),
            cell,
            assignment,
            store,
            identity,
            begun: Instant::now(),
            keeps_checkpoints: false,
            told: OnceLock::new(),
        }
    }

    /// Whether the sweep file keeps a metric.
    pub(super) fn keeps(&self, name: &str) -> bool {
        let mut metrics = self.cell.program.metrics.iter();
        metrics.any(|metric| metric.name == name)
    }

    /// Whether the trial must stop, for the experiment: once it was told so, its result does not count.
    pub(super) fn tell_stop(&self) -> bool {
        let must_stop = self.must_stop();
        if must_stop {
            self.told.get_or_init(|| TrialError::Stopped);
        }
        must_stop
    }

    /// Passes a result on to the experiment, and remembers its first error.
    pub(super) fn tell<T>(&self, result: Result<T, TrialError>) -> Result<T, TrialError> {
        if let Err(error) = &result {
            self.told.get_or_init(|| error.clone());
        }
        result
    }

    pub(super) fn must_stop(&self) -> bool {
        self.assignment.is_stopped()
    }

    /// Ends a trial that has diverged, must stop, or has taken too long. One that keeps checkpoints goes on to the next one, for a
    /// while.
    pub(super) fn check_halt(&self) -> Result<(), TrialError> {
        if self.record.diverged_at().is_some() {
            return Err(TrialError::Diverged);
        }
        let limit = self.assignment.time_limit;
        if limit.is_some_and(|limit| self.begun.elapsed() >= limit) {
            return Err(TrialError::TimedOut);
        }
        let may_finish_step =
            self.keeps_checkpoints && self.store.is_some_and(|store| !store.should_stop_at_once());
        match self.must_stop() && !may_finish_step {
            true => Err(TrialError::Stopped),
            false => Ok(()),
        }
    }

    /// Whether a checkpoint is to be kept now.
    pub(super) fn is_checkpoint_due(&mut self, step: u64) -> bool {
        self.keeps_checkpoints = true;
        let is_due = |store: &dyn CheckpointStore| store.should_save(step) || self.must_stop();
        self.store.is_some_and(is_due)
    }

    pub(super) fn save_checkpoint(&self, step: u64, bytes: &[u8]) {
        let Some(store) = self.store else {
            return;
        };
        let mut encoder = CheckpointEncoder::default();
        encoder.write_bytes(&self.identity.0);
        encoder.write_u64(step);
        self.record.encode_until(step, &mut encoder);
        encoder.write_bytes(bytes);
        store.save_checkpoint(self.identity, step, encoder.finish_with_hash());
    }

    pub(super) fn load_checkpoint(&mut self) -> Option<(u64, Vec<u8>)> {
        self.keeps_checkpoints = true;
        let checkpoints = self.store?.load_checkpoints(self.identity);
        let fitting = checkpoints
            .iter()
            .filter_map(|bytes| open_checkpoint(bytes, self.identity));
        let (step, mut decoder) = fitting.max_by_key(|(step, _)| *step)?;
        let record = TrialRecord::decode(&self.cell.program.metrics, step, &mut decoder)?;
        let bytes = decoder.read_bytes().filter(|_| decoder.is_fully_read())?;
        self.record = record;
        Some((step, bytes))
    }

    /// The result of the trial.
    pub(super) fn finish(
        mut self,
        ended: Result<(), TrialError>,
    ) -> Result<FinishedTrial, NoResult> {
        // An experiment that swallows an error has not run to its end.
        let ended = match (ended, self.told.take()) {
            (Ok(()), Some(told)) => Err(told),
            (ended, _) => ended,
        };
        if ended == Err(TrialError::Stopped) && self.must_stop() {
            return Err(NoResult::Stopped);
        }
        if let Some(store) = self.store {
            store.discard_checkpoints(self.identity);
        }
        let outcome = judge_end(&self.record, ended, self.assignment.time_limit);
        let result = TrialResult {
            seconds: self.begun.elapsed().as_secs_f64(),
            ..self.record.into_result(self.assignment.key, outcome)
        };
        Ok(FinishedTrial {
            result,
            weights: None,
        })
    }
}

/// The outcome of a trial that was not stopped, or why it failed.
fn judge_end(
    record: &TrialRecord<'_>,
    ended: Result<(), TrialError>,
    limit: Option<Duration>,
) -> Result<Outcome, String> {
    if let Some(step) = record.diverged_at() {
        return Ok(Outcome::Diverged { step });
    }
    match ended {
        Ok(()) => {}
        Err(TrialError::Diverged) => {
            let step = record.last_step();
            return Ok(Outcome::Diverged { step });
        }
        Err(TrialError::Failed(why)) => return Err(why),
        Err(TrialError::Stopped) => {
            return Err("it ended as if it were stopped, and nothing stopped it".into());
        }
        Err(TrialError::TimedOut) => {
            return Err(format!(
                "it exceeded its time limit of {} after step {}",
                format_duration(limit.unwrap_or_default()),
                record.last_step()
            ));
        }
    }

    let missing = record.missing_metrics();
    match missing.is_empty() {
        true => Ok(Outcome::Completed),
        false => Err(format!(
            "it ended without reporting {}: report every metric of the sweep file",
            missing.join(", ")
        )),
    }
}
