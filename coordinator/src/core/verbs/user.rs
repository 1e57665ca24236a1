//! What users change: launch, steer, retry, extend, remove.

use std::sync::Arc;

use ergodic_common::ids::Fence;
use ergodic_common::spec::SpecSource;
use ergodic_common::{Spec, TrialKey};

use crate::core::effects::Steering;
use crate::core::sweep::{Sweep, UnreadableSweep};
use crate::core::{Core, CoreTime, Effect, SweepChange};
use crate::records::{Finding, SweepState, WorkerId};
use crate::stored_row::StoredRow;

impl Core {
    /// A sweep is there, new or from the store; `rows` are the trials that have a row, in any order.
    pub fn on_sweep_added(
        &mut self,
        sweep: Sweep,
        rows: impl IntoIterator<Item = StoredRow>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let number = sweep.number;
        let sweep = self.sweeps.entry(number).insert_entry(sweep).into_mut();
        sweep.record_initial_rows(rows);

        // Its end may have been stored before what made it go on.
        if sweep.state == SweepState::Completed
            && sweep.withheld.is_none()
            && sweep.counts.done() < sweep.total_trials()
        {
            sweep.state = SweepState::Running;
        }

        if sweep.audits.has_waiting() {
            sweep.auditors_expected_until = now + self.timing.lease_ttl;
        }

        let mut effects = self.complete_if_done(number, now);
        effects.extend(self.assign_leases(now));
        effects
    }

    /// A sweep of the store cannot be read: it is listed, and can be removed.
    pub fn on_unreadable_sweep(&mut self, sweep: UnreadableSweep) {
        self.unreadable.insert(sweep.record.number, sweep);
    }

    /// What the store has of these sweeps makes no sense: they are as if they could not be read.
    pub fn set_aside_inconsistent_sweeps(&mut self) {
        let senseless = self
            .sweeps
            .values()
            .filter(|sweep| sweep.withheld.is_none());
        let senseless =
            senseless.filter_map(|sweep| Some((sweep.number, self.check_sweep(sweep).err()?)));
        for (number, why) in senseless.collect::<Vec<_>>() {
            let Some(sweep) = self.sweeps.remove(&number) else {
                continue;
            };
            self.leases.retain(|_, lease| lease.row.sweep != number);
            self.on_unreadable_sweep(UnreadableSweep {
                record: sweep.record,
                why: format!("what is stored of it makes no sense: {why}"),
            });
        }
    }

    /// The change that is to be stored when a user pauses, resumes or cancels a sweep, or changes its share; `None` if it is so already.
    /// For a retry, checks that there is something to be run again.
    ///
    /// # Errors
    /// The sweep's state does not allow it, in words.
    pub fn validate_steering(
        &self,
        sweep_number: i64,
        steering: Steering,
    ) -> Result<Option<SweepChange>, String> {
        let Some(sweep) = self.sweeps.get(&sweep_number) else {
            return Ok(None);
        };
        if let Some(why) = &sweep.withheld
            && steering != Steering::Cancel
        {
            return Err(format!(
                "the sweep {} is only shown by this program: {why}",
                sweep.id
            ));
        }

        let change =
            find_change(sweep, steering).map_err(|why| format!("the sweep {} {why}", sweep.id))?;
        Ok(change.filter(|change| {
            *change != SweepChange::State(sweep.state) && *change != SweepChange::Share(sweep.share)
        }))
    }

    /// A user's change of a sweep is stored: applies it.
    pub fn on_sweep_steered(
        &mut self,
        sweep_number: i64,
        change: SweepChange,
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else {
            return Vec::new();
        };

        // Where it came to its end meanwhile, that was stored afterwards.
        if !sweep.state.is_open() {
            return Vec::new();
        }

        let mut effects = Vec::new();
        match change {
            SweepChange::Share(share) => self.change_share(sweep_number, share),
            SweepChange::State(state) => sweep.state = state,
        }

        if change == SweepChange::State(SweepState::Cancelled) {
            let of_sweep = self.leases.values().filter(|l| l.row.sweep == sweep_number);
            let fences: Vec<Fence> = of_sweep.map(|l| l.row.fence).collect();
            effects.extend(self.build_revocations(&fences));
            effects.extend(self.end_leases(&fences, false));
            effects.extend(self.discard_all_checkpoints(sweep_number));
        }

        effects.extend(self.assign_leases(now));
        effects
    }

    /// Whether a sweep may be removed.
    ///
    /// # Errors
    /// It has not ended, in words.
    pub fn validate_removal(&self, sweep_number: i64) -> Result<(), String> {
        match self.sweeps.get(&sweep_number) {
            Some(sweep) if sweep.state.is_open() => {
                let id = &sweep.id;
                Err(format!(
                    "the sweep {id} has not ended: `ergodic cancel {id}` first, or remove it with --force"
                ))
            }
            _ => Ok(()),
        }
    }

    /// A sweep that had ended is no more. Should it have gone on meanwhile, what is leased of it counts for nothing.
    pub fn on_sweep_removed(&mut self, sweep_number: i64) -> Vec<Effect> {
        let of_sweep = self.leases.values().filter(|l| l.row.sweep == sweep_number);
        let fences: Vec<Fence> = of_sweep.map(|l| l.row.fence).collect();
        let mut effects = self.build_revocations(&fences);
        effects.extend(self.end_leases(&fences, false));
        self.unreadable.remove(&sweep_number);
        self.sweeps.remove(&sweep_number);

        self.unstored_give_ups
            .retain(|given_up| given_up.sweep != sweep_number);
        self.unstored_reversals
            .retain(|reversal| reversal.sweep != sweep_number);
        self.workers
            .values_mut()
            .for_each(|worker| drop(worker.unable_sweeps.remove(&sweep_number)));

        effects
    }

    /// The rows of these failed trials are gone, and these failed audits are due again: they are run again, and so are
    /// audits for which no worker was there. A trial whose row the core never heard of is run in any case.
    pub fn on_trials_reopened(
        &mut self,
        sweep_number: i64,
        trials: &[TrialKey],
        audits: &[(TrialKey, WorkerId)],
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self.sweeps.get(&sweep_number) else {
            return Vec::new();
        };
        let strange = self.filter_unfinished(
            sweep,
            trials
                .iter()
                .copied()
                .chain(audits.iter().map(|(key, _)| *key)),
        );

        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else {
            return Vec::new();
        };
        trials
            .iter()
            .filter(|key| !strange.contains(key))
            .for_each(|key| sweep.reopen_failed_trial(*key));

        for (key, origin) in audits.iter().filter(|(key, _)| !strange.contains(key)) {
            sweep
                .audits
                .reopen_failed_audit(sweep.spec.grid.locate_trial(*key), origin);
        }

        let mut effects = Vec::new();
        if sweep.state == SweepState::Completed {
            sweep.state = SweepState::Running;
            // Its end may have been on its way to the store behind what made it go on.
            effects.push(Effect::SetSweepState(sweep_number, SweepState::Running));
        }

        effects.extend(self.assign_leases(now));
        effects
    }

    /// Whether trials of a sweep may be run once more.
    ///
    /// # Errors
    /// It is only shown, or was cancelled or removed, in words.
    pub fn validate_redo(&self, sweep_number: i64) -> Result<(), String> {
        match self.sweeps.get(&sweep_number) {
            None => Err("the sweep was removed meanwhile".into()),
            Some(Sweep {
                id,
                withheld: Some(why),
                ..
            }) => Err(format!(
                "the sweep {id} is only shown by this program: {why}"
            )),
            Some(Sweep {
                id,
                state: SweepState::Cancelled,
                ..
            }) => Err(format!("the sweep {id} was cancelled: launch it again")),
            Some(_) => Ok(()),
        }
    }

    /// Trials are stored as to be run once more, as audits that any process may make: files that their rows name are lost.
    pub fn on_trials_redone(
        &mut self,
        sweep_number: i64,
        trials: &[(TrialKey, Option<Option<Finding>>)],
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self
            .sweeps
            .get(&sweep_number)
            .filter(|_| !trials.is_empty())
        else {
            return Vec::new();
        };

        // The audit of a row that was never heard of is looked up with it.
        let strange = self.filter_unfinished(sweep, trials.iter().map(|(key, _)| *key));
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else {
            return Vec::new();
        };

        for (key, before) in trials.iter().filter(|(key, _)| !strange.contains(key)) {
            sweep
                .audits
                .redo_audit(sweep.spec.grid.locate_trial(*key), *before);
        }

        sweep.auditors_expected_until = now + self.timing.lease_ttl;
        self.on_trials_reopened(sweep_number, &[], &[], now)
    }

    /// Whether a sweep's file may be replaced by one with more repeats.
    ///
    /// # Errors
    /// It may not, in words.
    pub fn validate_extension(&self, sweep_number: i64, from: &SpecSource) -> Result<(), String> {
        match self.sweeps.get(&sweep_number) {
            Some(Sweep {
                id,
                withheld: Some(why),
                ..
            }) => Err(format!(
                "the sweep {id} is only shown by this program: {why}"
            )),
            Some(sweep) if sweep.state == SweepState::Cancelled => {
                let id = &sweep.id;
                Err(format!(
                    "the sweep {id} was cancelled: `ergodic extend {id} SPEC` makes a new one with its results"
                ))
            }
            Some(sweep) if sweep.record.source == *from => Ok(()),
            _ => Err("the sweep was changed or removed meanwhile: try again".into()),
        }
    }

    /// Another file of a sweep is stored, which asks for more repeats of the same cells.
    pub fn on_sweep_extended(
        &mut self,
        sweep_number: i64,
        source: SpecSource,
        spec: Arc<Spec>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else {
            return Vec::new();
        };
        sweep.extend_repeats(source, spec);
        let mut effects = Vec::new();

        if sweep.state == SweepState::Completed && sweep.counts.done() < sweep.total_trials() {
            sweep.state = SweepState::Running;
            effects.push(Effect::SetSweepState(sweep_number, SweepState::Running));
        }

        effects.extend(self.complete_if_done(sweep_number, now));
        effects.extend(self.assign_leases(now));
        effects
    }
}

/// The change that steering a sweep makes; `None` for a retry, and where a sweep that has ended is cancelled.
///
/// # Errors
/// The sweep's state does not allow it, in words that follow the sweep's name.
fn find_change(sweep: &Sweep, steering: Steering) -> Result<Option<SweepChange>, &'static str> {
    Ok(Some(match (steering, sweep.state) {
        (Steering::Pause | Steering::Resume | Steering::Share { .. }, SweepState::Completed) => {
            return Err("is complete: nothing is left to run");
        }
        (Steering::Cancel, SweepState::Completed | SweepState::Cancelled) => return Ok(None),
        (_, SweepState::Cancelled) => return Err("was cancelled: launch it again"),
        (Steering::Retry, _) if !sweep.has_failures() => {
            return Err("has no failed trial to be run again");
        }
        (Steering::Retry, _) => return Ok(None),
        (Steering::Pause, _) => SweepChange::State(SweepState::Paused),
        (Steering::Resume, _) => SweepChange::State(SweepState::Running),
        (Steering::Cancel, _) => SweepChange::State(SweepState::Cancelled),
        (Steering::Share { priority, weight }, _) => {
            SweepChange::Share(sweep.share.with_updates(priority, weight))
        }
    }))
}
