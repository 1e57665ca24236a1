//! Crashes of workers: against which trials they count, and when a trial is given up.

use ergodic_common::TrialKey;
use ergodic_common::ids::{Fence, SweepNumber, TrialIndex, WorkerId};

use crate::core::{Core, CoreTime, Effect, GiveUpReversal, GivenUpTrial, Sweep, Worker};
use crate::records::{Finding, LeaseRow};
use crate::stored_row::StoredRow;

/// Results that a worker may have finished and not delivered when it crashes.
pub(crate) const MAX_UNDELIVERED: usize = 64;

impl Core {
    /// The store has dealt with a trial that was given up: `row` is stored, unless the trial had a row already (`stored` is false).
    ///
    /// Only the store decides whether a trial has a row. A worker that counted as crashed may have come back meanwhile: then a
    /// second write takes the row back, and what the store answers is booked in turn.
    pub fn on_trial_given_up(
        &mut self,
        sweep_number: SweepNumber,
        row: &StoredRow,
        stored: bool,
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self.sweeps.get(&sweep_number) else {
            return Vec::new();
        };

        if !stored {
            let unknown = self.is_unfinished(sweep, row.key);
            return if unknown {
                vec![Effect::LookUpRows(sweep_number, vec![row.key])]
            } else {
                Vec::new()
            };
        }

        let stands = sweep
            .quarantine
            .is_given_up(sweep.spec.grid.locate_trial(row.key));
        let mut effects = self.on_rows_looked_up(sweep_number, std::slice::from_ref(row), &[], now);

        if !stands {
            effects.push(Effect::RevertGiveUp(GiveUpReversal {
                sweep: sweep_number,
                key: row.key,
                is_audit: false,
            }));
        }

        effects
    }

    /// The store has dealt with an audit that was given up: it has failed, unless it was made meanwhile (`stored` is false).
    pub fn on_audit_given_up(
        &mut self,
        sweep_number: SweepNumber,
        key: TrialKey,
        stored: bool,
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self.sweeps.get(&sweep_number).filter(|_| stored) else {
            return Vec::new();
        };
        let stands = sweep
            .audits
            .quarantine
            .is_given_up(sweep.spec.grid.locate_trial(key));

        self.record_findings(sweep_number, std::iter::once((key, Finding::Failed)));
        let mut effects = self.end_empty_leases();
        effects.extend(self.complete_if_done(sweep_number, now));

        if !stands {
            effects.push(Effect::RevertGiveUp(GiveUpReversal {
                sweep: sweep_number,
                key,
                is_audit: true,
            }));
        }

        effects
    }

    /// Keeps a reversal that could not be stored, to repeat it on a later tick.
    pub fn on_give_up_reversal_failed(&mut self, reversal: GiveUpReversal) {
        self.unstored_reversals.push(reversal);
    }

    /// Keeps a give-up that could not be stored, to repeat it on a later tick.
    pub fn on_give_up_failed(&mut self, given_up: GivenUpTrial) {
        self.unstored_give_ups.push(given_up);
    }

    /// Counts crashes of the workers whose leases expired, against the trials that these may have been running. A worker has
    /// crashed if its session broke off ([`on_session_ended`](Self::on_session_ended)) and it has not come back. `expired` is
    /// in the order of the grants. Returns the trials to be given up.
    pub(crate) fn record_crashes(&mut self, expired: &[Fence]) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (id, fences) in self.group_by_worker(expired) {
            let Some(worker) = self
                .workers
                .get(&id)
                .filter(|worker| worker.session_broke_off && !worker.connected)
            else {
                continue;
            };
            let name = worker.name.clone();

            for (number, index, is_audit) in self.find_possibly_running_trials(worker, &fences) {
                let sweep = self
                    .sweeps
                    .get_mut(&number)
                    .expect("a lease's sweep is kept as long as the lease");
                let given_up = record_crash(sweep, (&id, name.as_str()), index, is_audit);
                effects.extend(given_up.map(Effect::GiveUp));
            }
        }

        effects
    }

    /// Finds the trials of a worker's leases against which its crash counts: sweep, trial, and whether it is an audit.
    ///
    /// The crash counts against the trials that the worker last reported as running. If they are fewer than its slots, the next
    /// trials of its leases fill up the number of slots, since it may have begun one after its last report. If it has reported
    /// none, the crash counts against the first `slots` + [`MAX_UNDELIVERED`] trials: before those that ran come trials whose
    /// results were not delivered, and among these may be some that never began.
    pub(crate) fn find_possibly_running_trials(
        &self,
        worker: &Worker,
        fences: &[Fence],
    ) -> Vec<(SweepNumber, TrialIndex, bool)> {
        let rows: Vec<&LeaseRow> = fences
            .iter()
            .map(|fence| &self.leases[fence.lease].row)
            .collect();
        let mut found = Vec::new();

        for row in &rows {
            let running = self.find_running_trials(worker, row);
            found.extend(running.map(|index| (row.sweep, index, row.audits.is_some())));
        }

        let slots = worker.slots as usize;
        let wanted = if found.is_empty() {
            slots + MAX_UNDELIVERED
        } else {
            slots.max(found.len())
        };

        let next = rows.iter().flat_map(|row| {
            row.trial_indices()
                .map(|index| (row.sweep, index, row.audits.is_some()))
        });
        for trial in next.take(wanted) {
            if found.len() < wanted && !found.contains(&trial) {
                found.push(trial);
            }
        }

        found
    }

    /// The trials of a lease that a worker last reported as running.
    fn find_running_trials<'a>(
        &'a self,
        worker: &'a Worker,
        row: &'a LeaseRow,
    ) -> impl Iterator<Item = TrialIndex> + 'a {
        let spec = &self.sweeps[&row.sweep].spec;
        worker
            .running
            .iter()
            .filter(|(lease, key)| *lease == row.fence.lease && spec.has_trial(*key))
            .map(|(_, key)| spec.grid.locate_trial(*key))
            .filter(|index| row.holds(*index))
    }

    /// Whether a trial is still to be given up: no worker whose crash counted against it has come back.
    pub(crate) fn is_still_given_up(&self, given_up: &GivenUpTrial) -> bool {
        let Some(sweep) = self.sweeps.get(&given_up.sweep) else {
            return false;
        };
        let quarantine = if given_up.is_audit {
            &sweep.audits.quarantine
        } else {
            &sweep.quarantine
        };

        quarantine.is_given_up(sweep.spec.grid.locate_trial(given_up.key))
    }
}

/// Counts a crash of a worker, by its id and name, against a trial that may have been running. Returns the trial if it is
/// thereby given up.
fn record_crash(
    sweep: &mut Sweep,
    worker: (&WorkerId, &str),
    index: TrialIndex,
    is_audit: bool,
) -> Option<GivenUpTrial> {
    let quarantine = if is_audit {
        &mut sweep.audits.quarantine
    } else {
        &mut sweep.quarantine
    };
    let crashed = quarantine.record_crash(worker, index)?;
    let cause = format!(
        "{} workers crashed that may have been running it: {}",
        crashed.len(),
        crashed.join(", ")
    );

    Some(GivenUpTrial {
        sweep: sweep.number,
        key: sweep.spec.grid.trial_at(index),
        cause,
        metric_count: sweep.spec.measure.metrics.len(),
        is_audit,
    })
}
