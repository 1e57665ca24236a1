//! Results: admits batches, and handles those that were stored.

use std::collections::{BTreeSet, HashSet};

use ergodic_common::ids::{Epoch, Fence, LeaseId, SweepNumber, TrialIndex, WorkerId};
use ergodic_common::{Spec, TrialKey};

use crate::core::lease_table::LeaseTable;
use crate::core::state::LeaseState;
use crate::core::sweep::Sweep;
use crate::core::{Core, CoreTime, Effect};
use crate::records::{Finding, RecordedAudit};
use crate::result_batch::CommitOutcome;
use crate::stored_row::StoredRow;

/// The fence of rows that belong to no lease: leases are numbered from 1 on.
pub(crate) const NO_LEASE: Fence = Fence {
    lease: LeaseId(0),
    epoch: Epoch(0),
};

/// Whether a batch may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The batch may be stored for this sweep.
    Store {
        /// Number of the sweep.
        sweep: SweepNumber,
    },
    /// The batch may be stored as audits of trials of this sweep, which have rows.
    Audit {
        /// Number of the sweep.
        sweep: SweepNumber,
    },
    /// The lease has ended, so the batch is only compared.
    Compare,
}

impl Core {
    /// Decides whether results for these trials may be stored under this fence.
    ///
    /// # Errors
    /// Returns the first trial that the lease never held.
    pub fn admit_batch(
        &self,
        worker: &WorkerId,
        fence: Fence,
        keys: &[TrialKey],
    ) -> Result<Admission, TrialKey> {
        let Some(lease) = self.leases.get(fence.lease) else {
            return Ok(Admission::Compare);
        };
        if lease.row.fence != fence || lease.row.worker != *worker {
            return Ok(Admission::Compare);
        }

        let spec = &self.sweeps[&lease.row.sweep].spec;
        if let Some(key) = keys.iter().find(|key| !was_granted(lease, spec, **key)) {
            return Err(*key);
        }

        let sweep = lease.row.sweep;
        Ok(match lease.row.audits {
            Some(_) => Admission::Audit { sweep },
            None => Admission::Store { sweep },
        })
    }

    /// Chooses trials for audits, among these.
    pub fn choose_audits(&mut self, sweep: SweepNumber, keys: &[TrialKey]) -> Vec<TrialKey> {
        let Some(sweep) = self.sweeps.get_mut(&sweep) else {
            return Vec::new();
        };
        keys.iter()
            .copied()
            .filter(|key| sweep.is_chosen_for_audit(*key))
            .collect()
    }

    /// Handles a batch that the store has stored or compared.
    pub fn on_batch_committed(
        &mut self,
        worker: &WorkerId,
        fence: Fence,
        sweep_number: SweepNumber,
        committed: &CommitOutcome,
        now: CoreTime,
    ) -> Vec<Effect> {
        let audited: Vec<StoredRow> = committed
            .audited
            .iter()
            .map(|(row, _)| row.clone())
            .collect();

        self.settle_charges(fence, sweep_number, &committed.stored);
        self.settle_charges(fence, sweep_number, &audited);
        let Some(sweep) = self.sweeps.get(&sweep_number) else {
            return Vec::new();
        };

        // A stored row that the core has not seen is read from the store first. Until then its
        // trial stays where it is.
        let (strange, known): (Vec<TrialKey>, Vec<TrialKey>) = committed
            .already_stored
            .iter()
            .partition(|key| self.is_unfinished(sweep, **key));

        let failed_before = sweep.counts.failed;
        let done = self.record_batch(worker, sweep_number, committed, &known, now);
        self.update_worker_pace(worker, sweep_number, &committed.stored, now);
        self.update_worker_pace(worker, sweep_number, &audited, now);
        // The findings of such rows are read from the store together with the rows.
        let audited = committed
            .audited
            .iter()
            .filter(|(row, _)| !strange.contains(&row.key));
        self.record_findings(
            sweep_number,
            audited.map(|(row, finding)| (row.key, *finding)),
        );

        let mut effects = self.remove_from_leases(sweep_number, fence, &done);
        if !strange.is_empty() {
            effects.push(Effect::LookUpRows(sweep_number, strange));
        }

        let ended = committed.stored.iter().map(|row| row.key).chain(known);
        effects.extend(self.discard_checkpoints(sweep_number, ended));
        effects.extend(self.complete_if_done(sweep_number, now));
        effects.extend(self.pause_if_failing(sweep_number, failed_before));
        effects.extend(self.assign_leases(now));
        effects
    }

    /// Counts a batch for its sweep and its worker; returns the trials that have rows by now,
    /// stored or `known` before.
    fn record_batch(
        &mut self,
        worker: &WorkerId,
        sweep_number: SweepNumber,
        committed: &CommitOutcome,
        known: &[TrialKey],
        now: CoreTime,
    ) -> Vec<TrialIndex> {
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else {
            return Vec::new();
        };

        sweep.tallies.count_batch(
            committed.compared_count(),
            committed.differing_count(),
            committed.fenced,
        );
        let mut done: Vec<TrialIndex> = committed
            .stored
            .iter()
            .map(|row| sweep.record_row(row))
            .collect();

        for key in &committed.audits_due {
            sweep
                .audits
                .add_audit(sweep.spec.grid.locate_trial(*key), worker, None);
        }

        let stored = committed.stored.len() as u64;
        sweep.completion_rate.count_trials(stored, now);
        done.extend(known.iter().map(|key| sweep.spec.grid.locate_trial(*key)));

        if let Some(worker) = self.workers.get_mut(worker) {
            worker.stored_rows += stored;
            worker.last_seen_at = now;
        }

        done
    }

    /// Handles rows and audits that were read from the store, however they came there.
    pub fn on_rows_looked_up(
        &mut self,
        sweep_number: SweepNumber,
        rows: &[StoredRow],
        audits: &[RecordedAudit],
        now: CoreTime,
    ) -> Vec<Effect> {
        let Some(sweep) = self.sweeps.get(&sweep_number) else {
            return Vec::new();
        };
        let mut seen = BTreeSet::new();
        let unknown = rows
            .iter()
            .filter(|row| sweep.spec.has_trial(row.key) && self.is_unfinished(sweep, row.key));
        let unknown: Vec<&StoredRow> = unknown.filter(|row| seen.insert(row.key)).collect();
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else {
            return Vec::new();
        };
        let done: Vec<TrialIndex> = unknown.iter().map(|row| sweep.record_row(row)).collect();

        // Audits of rows that the core knew are recorded already.
        sweep.record_audits(audits.iter().filter(|(key, ..)| seen.remove(key)).cloned());
        let keys: Vec<TrialKey> = unknown.iter().map(|row| row.key).collect();
        let mut effects = self.remove_from_leases(sweep_number, NO_LEASE, &done);
        effects.extend(self.discard_checkpoints(sweep_number, keys.into_iter()));
        effects.extend(self.complete_if_done(sweep_number, now));
        effects.extend(self.assign_leases(now));

        effects
    }

    /// Keeps of these trials the ones that should run and have no row, as far as is known.
    pub(crate) fn filter_unfinished(
        &self,
        sweep: &Sweep,
        keys: impl Iterator<Item = TrialKey>,
    ) -> HashSet<TrialKey> {
        let of_sweep = self.leases.of_sweep(sweep.number);
        let of_sweep = of_sweep.filter(|l| l.row.audits.is_none());
        let leased: HashSet<TrialIndex> = of_sweep.flat_map(|l| l.row.trial_indices()).collect();

        keys.filter(|key| sweep.needs_trial(*key))
            .filter(|key| {
                let index = sweep.spec.grid.locate_trial(*key);
                sweep.has_pending_trial(index)
                    || sweep.quarantine.is_waiting(index)
                    || leased.contains(&index)
            })
            .collect()
    }

    /// Records the findings of audits, and removes the audits from leases and queues.
    pub(crate) fn record_findings(
        &mut self,
        sweep_number: SweepNumber,
        audited: impl Iterator<Item = (TrialKey, Finding)>,
    ) {
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else {
            return;
        };

        for (key, finding) in audited {
            let index = sweep.spec.grid.locate_trial(key);
            let holder = find_audit_lease(&self.leases, sweep_number, index);
            if let Some(holder) = holder {
                sweep.audits.leased -= u64::from(self.leases.remove_trial(holder, index.number));
            }

            sweep.audits.record_finding(index, finding);
        }
    }
}

/// The lease with the audit of a trial.
fn find_audit_lease(leases: &LeaseTable, sweep: SweepNumber, index: TrialIndex) -> Option<LeaseId> {
    leases
        .of_class(sweep, index.class)
        .find(|lease| lease.row.audits.is_some() && lease.row.holds(index))
        .map(|lease| lease.row.fence.lease)
}

fn was_granted(lease: &LeaseState, spec: &Spec, key: TrialKey) -> bool {
    if !spec.has_trial(key) {
        return false;
    }

    let index = spec.grid.locate_trial(key);
    index.class == lease.row.class && lease.granted.contains(index.number)
}
