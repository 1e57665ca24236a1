//! Changes by users: launch, steer, retry, extend, remove.

use std::sync::Arc;

use ergodic_common::ids::{Fence, SweepNumber, WorkerId};
use ergodic_common::spec::SpecSource;
use ergodic_common::{Spec, TrialKey};

use crate::core::effects::Steering;
use crate::core::sweep::{Sweep, UnreadableSweep};
use crate::core::{Core, CoreTime, Effect, SweepChange};
use crate::records::{Finding, SweepState};
use crate::stored_row::StoredRow;

impl Core {
    /// Adds a sweep, new or from the store. `rows` are its stored rows, in any order.
    pub fn on_sweep_added(
        &mut self,
        sweep: Sweep,
        rows: impl IntoIterator<Item = StoredRow>,
        now: CoreTime,
    ) -> Vec<Effect> {
        let number = sweep.number;
        let sweep = self.sweeps.entry(number).insert_entry(sweep).into_mut();
        sweep.record_initial_rows(rows);

        // The completed state may have been stored before the change that added trials.
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

    /// Adds a sweep that this program cannot read, so that it can be listed and removed.
    pub fn on_unreadable_sweep(&mut self, sweep: UnreadableSweep) {
        self.unreadable.insert(sweep.record.number, sweep);
    }

    /// Treats sweeps with inconsistent rows as unreadable.
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
            self.leases.remove_sweep(number);
            self.on_unreadable_sweep(UnreadableSweep {
                record: sweep.record,
                why: format!("its stored state is inconsistent: {why}"),
            });
        }
    }

    /// The change to store when a user pauses, resumes or cancels a sweep, or changes its share;
    /// `None` if nothing changes. For a retry, checks that there is something to run again.
    ///
    /// # Errors
    /// Returns a message for the user if the sweep's state does not allow it.
    pub fn validate_steering(
        &self,
        sweep_number: SweepNumber,
        steering: Steering,
    ) -> Result<Option<SweepChange>, String> {
        let Some(sweep) = self.sweeps.get(&sweep_number) else {
            return Ok(None);
        };
        if let Some(why) = &sweep.withheld
            && steering != Steering::Cancel
        {
            return Err(format!(
                "the sweep {} is read-only in this program: {why}",
                sweep.id
            ));
        }

        let change =
            find_change(sweep, steering).map_err(|why| format!("the sweep {} {why}", sweep.id))?;
        Ok(change.filter(|change| {
            *change != SweepChange::State(sweep.state) && *change != SweepChange::Share(sweep.share)
        }))
    }

    /// Applies a user's change of a sweep that was stored.
    pub fn on_sweep_steered(
        &mut self,
        sweep_number: SweepNumber,
        change: SweepChange,
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else {
            return Vec::new();
        };

        // If the sweep ended meanwhile, its final state was stored after this change and stands.
        if !sweep.state.is_open() {
            return Vec::new();
        }

        let mut effects = Vec::new();
        match change {
            SweepChange::Share(share) => self.change_share(sweep_number, share),
            SweepChange::State(state) => {
                sweep.state = state;
                sweep.has_paused_itself = false;
            }
        }

        if change == SweepChange::State(SweepState::Cancelled) {
            let of_sweep = self.leases.of_sweep(sweep_number);
            let fences: Vec<Fence> = of_sweep.map(|l| l.row.fence).collect();
            effects.extend(self.build_revocations(&fences));
            effects.extend(self.end_leases(&fences, false));
            effects.extend(self.discard_all_checkpoints(sweep_number));
        }

        effects.extend(self.assign_leases(now));
        effects
    }

    /// Checks that a sweep may be removed.
    ///
    /// # Errors
    /// Returns a message for the user if it has not ended.
    pub fn validate_removal(&self, sweep_number: SweepNumber) -> Result<(), String> {
        match self.sweeps.get(&sweep_number) {
            Some(sweep) if sweep.state.is_open() => {
                let id = &sweep.id;
                Err(format!(
                    "the sweep {id} has not ended: cancel it first with `ergodic cancel {id}`, or remove it with --force"
                ))
            }
            _ => Ok(()),
        }
    }

    /// Removes a sweep that had ended. If it was resumed meanwhile, its leases become void.
    pub fn on_sweep_removed(&mut self, sweep_number: SweepNumber) -> Vec<Effect> {
        let of_sweep = self.leases.of_sweep(sweep_number);
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

    /// Handles a retry that was stored: failed trials whose rows are gone, and failed audits, run
    /// again, as do audits that had no worker. A trial whose row the core never saw runs in any
    /// case.
    pub fn on_trials_reopened(
        &mut self,
        sweep_number: SweepNumber,
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
            // The writer may still hold the completed state behind the retry, so the running state
            // is written again.
            effects.push(Effect::SetSweepState(sweep_number, SweepState::Running));
        }

        effects.extend(self.assign_leases(now));
        effects
    }

    /// Checks that trials of a sweep may run once more.
    ///
    /// # Errors
    /// Returns a message for the user if the sweep is only shown, or was cancelled or removed.
    pub fn validate_redo(&self, sweep_number: SweepNumber) -> Result<(), String> {
        match self.sweeps.get(&sweep_number) {
            None => Err("the sweep was removed meanwhile".into()),
            Some(Sweep {
                id,
                withheld: Some(why),
                ..
            }) => Err(format!(
                "the sweep {id} is read-only in this program: {why}"
            )),
            Some(Sweep {
                id,
                state: SweepState::Cancelled,
                ..
            }) => Err(format!("the sweep {id} was cancelled: launch it again")),
            Some(_) => Ok(()),
        }
    }

    /// Handles that the store has made trials due again, as audits that any process may run,
    /// because files that their rows name are lost.
    pub fn on_trials_redone(
        &mut self,
        sweep_number: SweepNumber,
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

        // An audit of a row that the core has not seen is read from the store together with the
        // row.
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

    /// Checks that a sweep's file may be replaced by one with more repeats.
    ///
    /// # Errors
    /// Returns a message for the user if it may not.
    pub fn validate_extension(
        &self,
        sweep_number: SweepNumber,
        from: &SpecSource,
    ) -> Result<(), String> {
        match self.sweeps.get(&sweep_number) {
            Some(Sweep {
                id,
                withheld: Some(why),
                ..
            }) => Err(format!(
                "the sweep {id} is read-only in this program: {why}"
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

    /// Replaces a sweep's spec by a stored one with more repeats of the same cells.
    pub fn on_sweep_extended(
        &mut self,
        sweep_number: SweepNumber,
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

/// The change that steering a sweep makes; `None` for a retry, and for cancelling a sweep that has
/// ended.
///
/// # Errors
/// Returns a message, to follow the sweep's name, if the sweep's state does not allow it.
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
