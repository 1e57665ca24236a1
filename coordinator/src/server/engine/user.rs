//! What users change about sweeps: each change is checked by the core, stored, then applied and acknowledged.

use std::sync::Arc;

use ergodic_common::ids::SweepNumber;
use ergodic_common::spec::SpecSource;
use ergodic_common::{ErrorCode, Spec, TrialKey};
use ergodic_proto::status::UserError;

use crate::core::{Effect, Steering, Sweep, SweepChange};
use crate::records::{SweepRow, SweepState};
use crate::server::engine::{ChangeReply, Engine, StoreReply, UserEvent};
use crate::server::store_error;
use crate::store::{
    CheckWritable, ClearRows, ExtendSweep, InsertReusing, InsertSuccessor, InsertSweep, RedoTrials,
    RemoveSweep, RetryFailed, SetShare, SetSweepState, StoreWrite, SuccessorSweep,
};

impl Engine {
    /// Most changes have no effects before they are durable.
    pub(crate) fn handle_user_event(&mut self, event: UserEvent) -> Vec<Effect> {
        match event {
            UserEvent::Launch { row, spec, reply } => self.launch_sweep(*row, spec, reply),
            UserEvent::Steer {
                sweep,
                steering,
                reply,
            } => self.steer_sweep(sweep, steering, reply),
            UserEvent::Extend {
                sweep,
                from,
                to,
                spec,
                reply,
            } => self.extend_sweep(sweep, *from, *to, spec, reply),
            UserEvent::InsertSuccessor { successor, reply } => {
                self.insert_successor(*successor, reply);
            }
            UserEvent::InsertReusing { reusing, reply } => {
                self.persist_for(InsertReusing(*reusing), reply);
            }
            UserEvent::AddStoredSweep { sweep, rows, reply } => {
                let effects = self.core.on_sweep_added(*sweep, rows, self.current_time());
                let _ = reply.send(());
                return effects;
            }
            UserEvent::Remove { sweep, reply } => self.remove_sweep(sweep, reply),
            UserEvent::ClearRows { sweep, reply } => self.persist_for(ClearRows(sweep), reply),
            UserEvent::DeleteUnreferenced { hashes, reply } => self
                .writer
                .enqueue_deletion(hashes, |deleted| drop(reply.send(deleted))),
            UserEvent::Redo { sweep, keys, reply } => self.redo_trials(sweep, keys, reply),
            UserEvent::AskForOutput { question, reply } => self.ask_for_output(&question, reply),
            UserEvent::DrainWorkers { names, reply } => self.drain_workers(&names, reply),
            UserEvent::CheckWritable { reply } => self.persist_for(CheckWritable, reply),
        }

        Vec::new()
    }

    fn launch_sweep(&self, row: SweepRow, spec: Arc<Spec>, reply: StoreReply<SweepNumber>) {
        self.persist(InsertSweep(row.clone()), move |engine, stored| {
            let number = match stored {
                Ok(number) => number,
                Err(error) => {
                    let _ = reply.send(Err(error));
                    return Vec::new();
                }
            };

            let sweep = Sweep::new(Arc::new(SweepRow { number, ..row }), spec);
            let now = engine.current_time();
            let effects = engine.core.on_sweep_added(sweep, [], now);
            let _ = reply.send(Ok(number));
            effects
        });
    }

    fn steer_sweep(&self, sweep: SweepNumber, steering: Steering, reply: ChangeReply) {
        match self.core.validate_steering(sweep, steering) {
            Err(why) => refuse_change(reply, why),
            Ok(None) if steering == Steering::Retry => self.retry_sweep(sweep, reply),
            Ok(None) => drop(reply.send(Ok(()))),
            Ok(Some(change @ SweepChange::State(state))) => {
                self.persist_change(SetSweepState { sweep, state }, reply, move |engine, ()| {
                    let now = engine.current_time();
                    engine.core.on_sweep_steered(sweep, change, now)
                });
            }
            Ok(Some(change @ SweepChange::Share(share))) => {
                self.persist_change(SetShare { sweep, share }, reply, move |engine, ()| {
                    let now = engine.current_time();
                    engine.core.on_sweep_steered(sweep, change, now)
                });
            }
        }
    }

    fn retry_sweep(&self, sweep: SweepNumber, reply: ChangeReply) {
        self.persist_change(RetryFailed(sweep), reply, move |engine, reopened| {
            let now = engine.current_time();
            engine
                .core
                .on_trials_reopened(sweep, &reopened.trials, &reopened.audits, now)
        });
    }

    fn remove_sweep(&self, sweep: SweepNumber, reply: ChangeReply) {
        if let Err(why) = self.core.validate_removal(sweep) {
            return refuse_change(reply, why);
        }

        self.persist_change(RemoveSweep(sweep), reply, move |engine, ()| {
            engine.core.on_sweep_removed(sweep)
        });
    }

    /// Stores an extension. If the sweep's file changes meanwhile, the store refuses, because it
    /// compares the file again.
    fn extend_sweep(
        &self,
        sweep: SweepNumber,
        from: SpecSource,
        to: SpecSource,
        spec: Arc<Spec>,
        reply: ChangeReply,
    ) {
        if let Err(why) = self.core.validate_extension(sweep, &from) {
            return refuse_change(reply, why);
        }

        let source = to.clone();
        self.persist(ExtendSweep { sweep, from, to }, move |engine, stored| {
            let now = engine.current_time();
            match stored {
                Ok(true) => {
                    let effects = engine.core.on_sweep_extended(sweep, source, spec, now);
                    let _ = reply.send(Ok(()));
                    return effects;
                }
                Ok(false) => refuse_change(
                    reply,
                    "the sweep was changed or removed meanwhile: try again",
                ),
                Err(error) => _ = reply.send(Err(store_error(error))),
            }

            Vec::new()
        });
    }

    /// With the successor, the store ends its predecessor, which then ends in the core. The successor itself is added once its rows
    /// are read.
    fn insert_successor(&self, successor: SuccessorSweep, reply: StoreReply<SweepNumber>) {
        let from = successor.predecessor;
        self.persist(InsertSuccessor(successor), move |engine, stored| {
            let ends = stored.is_ok()
                && engine
                    .core
                    .sweep(from)
                    .is_some_and(|sweep| sweep.state.is_open());
            let _ = reply.send(stored);

            if ends {
                let cancelled = SweepChange::State(SweepState::Cancelled);
                let now = engine.current_time();
                engine.core.on_sweep_steered(from, cancelled, now)
            } else {
                Vec::new()
            }
        });
    }

    fn redo_trials(&self, sweep: SweepNumber, keys: Vec<TrialKey>, reply: ChangeReply) {
        if let Err(why) = self.core.validate_redo(sweep) {
            return refuse_change(reply, why);
        }

        self.persist_change(RedoTrials { sweep, keys }, reply, move |engine, redone| {
            let now = engine.current_time();
            engine.core.on_trials_redone(sweep, &redone, now)
        });
    }

    /// Stores a change, and then applies and acknowledges it. If it cannot be stored, nothing is changed and the user gets the
    /// error.
    fn persist_change<W: StoreWrite>(
        &self,
        write: W,
        reply: ChangeReply,
        apply: impl FnOnce(&mut Self, W::Output) -> Vec<Effect> + Send + 'static,
    ) {
        self.persist(write, |engine, stored| match stored {
            Ok(output) => {
                let effects = apply(engine, output);
                let _ = reply.send(Ok(()));
                effects
            }
            Err(error) => {
                let _ = reply.send(Err(store_error(error)));
                Vec::new()
            }
        });
    }
}

fn refuse_change(reply: ChangeReply, why: impl Into<String>) {
    let _ = reply.send(Err(UserError::new(ErrorCode::Refused, why)));
}
