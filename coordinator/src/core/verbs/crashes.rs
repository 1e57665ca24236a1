//! Crashes: which trials a worker took down with it, and when a trial is given up.

use std::collections::BTreeMap;

use ergodic_common::TrialKey;

use crate::core::quarantine::TrialIndex;
use crate::core::stored_row::StoredRow;
use crate::core::{Core, CoreTime, Effect, GiveUpReversal, GivenUpTrial, Worker};
use crate::records::{Fence, Finding, LeaseRow, WorkerId};

/// Results that a worker may have finished and not delivered when it dies.
pub(crate) const MAX_UNDELIVERED: usize = 64;

impl Core {
    /// The store has dealt with the verdict on a trial: this is its row, unless it had another one.
    ///
    /// Whether the trial has a row is decided there alone. A worker that was thought dead may have come back while the verdict
    /// was under way: then it is taken back, in the same way.
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

    /// The store has dealt with the verdict on the audit of a trial: it failed, unless it was made.
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

    /// A verdict could not be taken back: it is tried again on a later tick.
    pub fn on_give_up_reversal_failed(&mut self, withdrawal: GiveUpReversal) {
        self.unstored_reversals.push(withdrawal);
    }

    /// The verdict on a trial could not be stored: it is tried again on a later tick.
    pub fn on_give_up_failed(&mut self, verdict: GivenUpTrial) {
        self.unstored_give_ups.push(verdict);
    }

    /// Leases ran out, given in the order in which they were granted. Where their worker died, perhaps of a trial.
    pub(crate) fn record_crashes(&mut self, expired: &[Fence]) -> Vec<Effect> {
        let mut by_worker: BTreeMap<WorkerId, Vec<Fence>> = BTreeMap::new();
        for fence in expired {
            by_worker
                .entry(self.leases[&fence.lease].row.worker.clone())
                .or_default()
                .push(*fence);
        }

        let mut effects = Vec::new();
        for (id, fences) in by_worker {
            let Some(worker) = self
                .workers
                .get(&id)
                .filter(|worker| worker.session_broke_off && !worker.connected)
            else {
                continue;
            };
            let name = worker.name.clone();

            for (number, place, audit) in self.find_trials_in_flight(worker, &fences) {
                let sweep = self
                    .sweeps
                    .get_mut(&number)
                    .expect("a lease's sweep is kept as long as the lease");
                let suspects = if audit {
                    &mut sweep.audits.quarantine
                } else {
                    &mut sweep.quarantine
                };
                let Some(killed) = suspects.record_crash((&id, &name), place) else {
                    continue;
                };
                let cause = format!(
                    "{} workers died with it in flight: {}",
                    killed.len(),
                    killed.join(", ")
                );

                let key = sweep.spec.grid.class_trial_at(place.0, place.1);
                let metrics = sweep.spec.measure.metrics.len();
                effects.push(Effect::GiveUp(GivenUpTrial {
                    sweep: number,
                    key,
                    cause,
                    metric_count: metrics,
                    is_audit: audit,
                }));
            }
        }

        effects
    }

    /// Which trials of these leases a worker was running, by sweep: those that it last said, and where these are fewer
    /// than its slots, the next ones in the order in which it runs them. If it has said none, results that it had not
    /// delivered stand in between. With each, whether it was an audit.
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
            let spec = &self.sweeps[&row.sweep].spec;
            let said = worker
                .running
                .iter()
                .filter(|(lease, key)| *lease == row.fence.lease && spec.has_trial(*key));
            let places = said.map(|(_, key)| spec.grid.locate_trial(*key));
            let left = places.filter(|(class, n)| *class == row.class && row.trials.contains(*n));
            blamed.extend(left.map(|place| (row.sweep, place, row.audits.is_some())));
        }

        let slots = worker.slots as usize;
        let wanted = if blamed.is_empty() {
            slots + MAX_UNDELIVERED
        } else {
            slots.max(blamed.len())
        };

        let of = |row: &LeaseRow, n| (row.sweep, (row.class, n), row.audits.is_some());
        let next = rows
            .iter()
            .flat_map(|row| row.trials.iter().map(|n| of(row, n)));
        for trial in next.take(wanted) {
            if blamed.len() < wanted && !blamed.contains(&trial) {
                blamed.push(trial);
            }
        }

        blamed
    }

    /// Whether a verdict that waits still stands: nobody who was blamed has come back.
    pub(crate) fn is_still_given_up(&self, verdict: &GivenUpTrial) -> bool {
        let Some(sweep) = self.sweeps.get(&verdict.sweep) else {
            return false;
        };
        let suspects = if verdict.is_audit {
            &sweep.audits.quarantine
        } else {
            &sweep.quarantine
        };

        suspects.is_given_up(sweep.spec.grid.locate_trial(verdict.key))
    }
}
