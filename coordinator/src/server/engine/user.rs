//! What users change about sweeps: each change is checked by the core, stored, then applied.

use std::sync::Arc;

use ergodic_common::spec::SpecSource;
use ergodic_common::{ErrorCode, Spec, TrialKey};
use ergodic_proto::status::UserError;
use tokio::sync::oneshot;

use crate::core::{CoreTime, Effect, Steering, Sweep, SweepChange};
use crate::records::{SweepRow, SweepState};
use crate::server::engine::persist::into_reopened_trials;
use crate::server::engine::{Engine, ReopenedTrials, StoreEvent};
use crate::server::store_error;
use crate::store::{
    ClearedRows, RedoneTrial, ReusingSweep, StoreError, StoreWrite, SuccessorSweep, WriteOutput,
};

impl Engine {
    pub(crate) fn store_sweep(
        &self,
        row: Box<SweepRow>,
        spec: Arc<Spec>,
        reply: oneshot::Sender<Result<i64, StoreError>>,
    ) -> Vec<Effect> {
        let events = self.events.clone();
        let stored = row.clone();
        let answer = Box::new(
            move |written: Result<WriteOutput, StoreError>| match written {
                Ok(WriteOutput::SweepNumber(number)) => {
                    let row = Box::new(SweepRow { number, ..*row });
                    let _ = events.send(StoreEvent::Launched(row, spec, reply).into());
                }
                Ok(_) => drop(reply),
                Err(error) => drop(reply.send(Err(error))),
            },
        );
        self.writer
            .enqueue_write(StoreWrite::InsertSweep(*stored), answer);

        Vec::new()
    }

    pub(crate) fn on_sweep_stored(
        &mut self,
        row: SweepRow,
        spec: Arc<Spec>,
        reply: oneshot::Sender<Result<i64, StoreError>>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let number = row.number;
        let sweep = Sweep::new(Arc::new(row), spec);
        let effects = self.core.on_sweep_added(sweep, [], now);
        let _ = reply.send(Ok(number));

        effects
    }

    /// Nothing is changed before it is durable.
    pub(crate) fn store_steering(
        &self,
        sweep: i64,
        steering: Steering,
        reply: oneshot::Sender<Result<(), UserError>>,
    ) -> Vec<Effect> {
        match self.core.validate_steering(sweep, steering) {
            Err(why) => drop(reply.send(Err(UserError::new(ErrorCode::Refused, why)))),
            Ok(None) if steering == Steering::Retry => self.store_retry(sweep, reply),
            Ok(None) => drop(reply.send(Ok(()))),
            Ok(Some(change)) => {
                let events = self.events.clone();
                let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
                    let _ = events.send(
                        StoreEvent::Steered(sweep, change, written.map(|_| ()), reply).into(),
                    );
                });

                let write = match change {
                    SweepChange::State(state) => StoreWrite::SetSweepState(sweep, state),
                    SweepChange::Share(share) => StoreWrite::SetShare(sweep, share),
                };
                self.writer.enqueue_write(write, answer);
            }
        }

        Vec::new()
    }

    pub(crate) fn on_steering_stored(
        &mut self,
        sweep: i64,
        change: SweepChange,
        stored: Result<(), StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let (answer, effects) = match stored {
            Ok(()) => (Ok(()), self.core.on_sweep_steered(sweep, change, now)),
            Err(error) => (Err(store_error(error)), Vec::new()),
        };
        let _ = reply.send(answer);
        effects
    }

    pub(crate) fn store_retry(&self, sweep: i64, reply: oneshot::Sender<Result<(), UserError>>) {
        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let _ = events
                .send(StoreEvent::Retried(sweep, written.map(into_reopened_trials), reply).into());
        });

        self.writer
            .enqueue_write(StoreWrite::RetryFailed(sweep), answer);
    }

    pub(crate) fn on_retry_stored(
        &mut self,
        sweep: i64,
        retried: Result<ReopenedTrials, StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let (answer, effects) = match retried {
            Ok((trials, audits)) => (
                Ok(()),
                self.core.on_trials_reopened(sweep, &trials, &audits, now),
            ),
            Err(error) => (Err(store_error(error)), Vec::new()),
        };
        let _ = reply.send(answer);

        effects
    }

    pub(crate) fn store_removal(
        &self,
        sweep: i64,
        reply: oneshot::Sender<Result<(), UserError>>,
    ) -> Vec<Effect> {
        if let Err(why) = self.core.validate_removal(sweep) {
            let _ = reply.send(Err(UserError::new(ErrorCode::Refused, why)));
            return Vec::new();
        }

        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let _ = events.send(StoreEvent::Removed(sweep, written.map(|_| ()), reply).into());
        });
        self.writer
            .enqueue_write(StoreWrite::RemoveSweep(sweep), answer);

        Vec::new()
    }

    pub(crate) fn on_removal_stored(
        &mut self,
        sweep: i64,
        removed: Result<(), StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
    ) -> Vec<Effect> {
        let effects = if removed.is_ok() {
            self.core.on_sweep_removed(sweep)
        } else {
            Vec::new()
        };
        let _ = reply.send(removed.map_err(store_error));
        effects
    }

    /// A change of the sweep's file that comes meanwhile goes first: the store compares the file again.
    pub(crate) fn store_extension(
        &self,
        sweep: i64,
        from: SpecSource,
        to: SpecSource,
        spec: Arc<Spec>,
        reply: oneshot::Sender<Result<(), UserError>>,
    ) -> Vec<Effect> {
        if let Err(why) = self.core.validate_extension(sweep, &from) {
            let _ = reply.send(Err(UserError::new(ErrorCode::Refused, why)));
            return Vec::new();
        }

        let events = self.events.clone();
        let extended = to.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let stored = written.map(|written| written == WriteOutput::Extended(true));
            let _ = events.send(StoreEvent::Extended(sweep, extended, spec, stored, reply).into());
        });
        self.writer
            .enqueue_write(StoreWrite::ExtendSweep(sweep, from, to), answer);

        Vec::new()
    }

    pub(crate) fn on_extension_stored(
        &mut self,
        sweep: i64,
        source: SpecSource,
        spec: Arc<Spec>,
        stored: Result<bool, StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let changed = "the sweep was changed or removed meanwhile: try again";
        let (answer, effects) = match stored {
            Ok(true) => (
                Ok(()),
                self.core.on_sweep_extended(sweep, source, spec, now),
            ),
            Ok(false) => (Err(UserError::new(ErrorCode::Refused, changed)), Vec::new()),
            Err(error) => (Err(store_error(error)), Vec::new()),
        };
        let _ = reply.send(answer);

        effects
    }

    pub(crate) fn store_successor(
        &self,
        successor: Box<SuccessorSweep>,
        reply: oneshot::Sender<Result<i64, StoreError>>,
    ) -> Vec<Effect> {
        let events = self.events.clone();
        let from = successor.predecessor;
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let stored = written.map(|written| {
                if let WriteOutput::SweepNumber(number) = written {
                    number
                } else {
                    0
                }
            });
            let _ = events.send(StoreEvent::SuccessorInserted(from, stored, reply).into());
        });
        self.writer
            .enqueue_write(StoreWrite::InsertSuccessor(successor), answer);

        Vec::new()
    }

    pub(crate) fn store_reusing_sweep(
        &self,
        reusing: Box<ReusingSweep>,
        reply: oneshot::Sender<Result<(i64, u64), StoreError>>,
    ) -> Vec<Effect> {
        self.writer.enqueue_write(
            StoreWrite::InsertReusing(reusing),
            Box::new(|written| drop(reply.send(written.map(into_sweep_with_rows)))),
        );

        Vec::new()
    }

    /// The predecessor has ended in the store already, and now ends in the core.
    pub(crate) fn on_successor_stored(
        &mut self,
        from: i64,
        stored: Result<i64, StoreError>,
        reply: oneshot::Sender<Result<i64, StoreError>>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let ends = stored.is_ok()
            && self
                .core
                .sweep(from)
                .is_some_and(|sweep| sweep.state.is_open());

        let _ = reply.send(stored);
        if ends {
            self.core
                .on_sweep_steered(from, SweepChange::State(SweepState::Cancelled), now)
        } else {
            Vec::new()
        }
    }

    pub(crate) fn clear_removed_rows(
        &self,
        sweep: i64,
        reply: oneshot::Sender<Result<ClearedRows, StoreError>>,
    ) -> Vec<Effect> {
        self.writer.enqueue_write(
            StoreWrite::ClearRows(sweep),
            Box::new(|written| drop(reply.send(written.map(into_cleared_rows)))),
        );

        Vec::new()
    }

    pub(crate) fn delete_unreferenced(
        &self,
        hashes: Vec<[u8; 32]>,
        reply: oneshot::Sender<Result<(u64, u64), StoreError>>,
    ) -> Vec<Effect> {
        self.writer.enqueue_write(
            StoreWrite::FindUnreferenced(hashes),
            Box::new(|written| drop(reply.send(written.map(into_deleted_files)))),
        );

        Vec::new()
    }

    pub(crate) fn store_redo(
        &self,
        sweep: i64,
        keys: Vec<TrialKey>,
        reply: oneshot::Sender<Result<(), UserError>>,
    ) -> Vec<Effect> {
        if let Err(why) = self.core.validate_redo(sweep) {
            let _ = reply.send(Err(UserError::new(ErrorCode::Refused, why)));
            return Vec::new();
        }

        let events = self.events.clone();
        let answer = Box::new(move |written: Result<WriteOutput, StoreError>| {
            let redone = written.map(|written| {
                if let WriteOutput::Redone(redone) = written {
                    redone
                } else {
                    Vec::new()
                }
            });
            let _ = events.send(StoreEvent::Redone(sweep, redone, reply).into());
        });
        self.writer
            .enqueue_write(StoreWrite::RedoTrials(sweep, keys), answer);

        Vec::new()
    }

    pub(crate) fn on_redo_stored(
        &mut self,
        sweep: i64,
        redone: Result<Vec<RedoneTrial>, StoreError>,
        reply: oneshot::Sender<Result<(), UserError>>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let (answer, effects) = match redone {
            Ok(trials) => (Ok(()), self.core.on_trials_redone(sweep, &trials, now)),
            Err(error) => (Err(store_error(error)), Vec::new()),
        };
        let _ = reply.send(answer);
        effects
    }

    pub(crate) fn check_store_writable(
        &self,
        reply: oneshot::Sender<Result<(), StoreError>>,
    ) -> Vec<Effect> {
        self.writer.enqueue_write(
            StoreWrite::CheckWritable,
            Box::new(|written| drop(reply.send(written.map(|_| ())))),
        );
        Vec::new()
    }
}

fn into_sweep_with_rows(written: WriteOutput) -> (i64, u64) {
    match written {
        WriteOutput::SweepWithRows(sweep, rows) => (sweep, rows),
        _ => (0, 0),
    }
}

fn into_cleared_rows(written: WriteOutput) -> ClearedRows {
    match written {
        WriteOutput::Cleared(cleared) => cleared,
        _ => ClearedRows::default(),
    }
}

fn into_deleted_files(written: WriteOutput) -> (u64, u64) {
    match written {
        WriteOutput::Deleted(files, bytes) => (files, bytes),
        _ => (0, 0),
    }
}
