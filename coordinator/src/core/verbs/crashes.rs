//! Crashes: which trials a worker took down with it, and when a trial is given up.

use ergodic_common::TrialKey;

use crate::core::quarantine::TrialIndex;
use crate::core::stored_row::StoredRow;
use crate::core::{Core, CoreTime, Effect, GiveUpReversal, GivenUpTrial, Sweep, Worker};
use crate::records::{Fence, Finding, LeaseRow};

/// Results that a worker may have finished and not delivered when it dies.
pub(crate) const MAX_UNDELIVERED: usize = 64;

impl Core {
    /// The store has given a trial that was given up this row, unless it had another one.
    ///
    /// Whether the trial has a row is decided by the store alone. A worker that was thought dead may have come back while the give-up
    /// was under way: then that is taken back, in the same way.
    pub fn on_trial_given_up(
        &mut self,
        sweep_number: i64,
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

    /// The store has recorded that an audit which was given up failed, unless it was made meanwhile.
    pub fn on_audit_given_up(
        &mut self,
        sweep_number: i64,
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

    /// A give-up could not be taken back: that is tried again on a later tick.
    pub fn on_give_up_reversal_failed(&mut self, reversal: GiveUpReversal) {
        self.unstored_reversals.push(reversal);
    }

    /// A give-up could not be stored: that is tried again on a later tick.
    pub fn on_give_up_failed(&mut self, given_up: GivenUpTrial) {
        self.unstored_give_ups.push(given_up);
    }

    /// Leases expired, in the order in which they were granted. Finds out which of their trials their workers died of, perhaps.
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

            for (number, index, is_audit) in self.find_trials_in_flight(worker, &fences) {
                let sweep = self
                    .sweeps
                    .get_mut(&number)
                    .expect("a lease's sweep is kept as long as the lease");
                let given_up = record_crash(sweep, (id.as_str(), name.as_str()), index, is_audit);
                effects.extend(given_up.map(Effect::GiveUp));
            }
        }

        effects
    }

    /// Finds the trials of these leases that a worker was running, by sweep, each with whether it was an audit: those that it last
    /// reported, and where these are fewer than its slots, the next ones in the order in which it runs them. If it has reported none,
    /// results that it had not delivered come in between.
    pub(crate) fn find_trials_in_flight(
        &self,
        worker: &Worker,
        fences: &[Fence],
    ) -> Vec<(i64, TrialIndex, bool)> {
        let rows: Vec<&LeaseRow> = fences
            .iter()
            .map(|fence| &self.leases[&fence.lease].row)
            .collect();
        let mut blamed = Vec::new();

        for row in &rows {
            let running = self.find_running_trials(worker, row);
            blamed.extend(running.map(|index| (row.sweep, index, row.audits.is_some())));
        }

        let slots = worker.slots as usize;
        let wanted = if blamed.is_empty() {
            slots + MAX_UNDELIVERED
        } else {
            slots.max(blamed.len())
        };

        let next = rows.iter().flat_map(|row| {
            let trials = row.trials.iter();
            trials.map(|n| (row.sweep, (row.class, n), row.audits.is_some()))
        });
        for trial in next.take(wanted) {
            if blamed.len() < wanted && !blamed.contains(&trial) {
                blamed.push(trial);
            }
        }

        blamed
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
            .filter(|(class, n)| *class == row.class && row.trials.contains(*n))
    }

    /// Whether a trial is still to be given up: no worker that was thought dead of it has come back.
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

/// Counts that a worker, by its id and name, died with a trial in flight; the trial to be given up, if that was once too often.
fn record_crash(
    sweep: &mut Sweep,
    worker: (&str, &str),
    index: TrialIndex,
    is_audit: bool,
) -> Option<GivenUpTrial> {
    let quarantine = if is_audit {
        &mut sweep.audits.quarantine
    } else {
        &mut sweep.quarantine
    };
    let killed = quarantine.record_crash(worker, index)?;
    let cause = format!(
        "{} workers died with it in flight: {}",
        killed.len(),
        killed.join(", ")
    );

    Some(GivenUpTrial {
        sweep: sweep.number,
        key: sweep.spec.grid.class_trial_at(index.0, index.1),
        cause,
        metric_count: sweep.spec.measure.metrics.len(),
        is_audit,
    })
}
