//! Results: which batches are admitted, and what follows from those that are stored.

use std::collections::{BTreeSet, HashSet};

use ergodic_common::TrialKey;

use crate::core::quarantine::TrialIndex;
use crate::core::state::LeaseState;
use crate::core::stored_row::StoredRow;
use crate::core::sweep::Sweep;
use crate::core::{Core, CoreTime, Effect};
use crate::records::{Fence, Finding, RecordedAudit};

/// What the store did with a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommitOutcome {
    /// Stored rows: trial, outcome, main metric, seconds.
    pub stored: Vec<StoredRow>,
    /// Trials that had a row already.
    pub already_stored: Vec<TrialKey>,
    /// Of these, how many differed.
    pub mismatches: u64,
    /// Whether the fence held no more, so that rows were only compared.
    pub fenced: bool,
    /// Of the stored ones, those whose audits are due.
    pub audits_due: Vec<TrialKey>,
    /// Of those that had a row already, those that were thereby audited.
    pub audited: Vec<(StoredRow, Finding)>,
}

/// Of whatever is under no lease: these are numbered from 1 on.
pub(crate) const NO_LEASE: Fence = Fence { lease: 0, epoch: 0 };

/// Whether a batch may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Under this sweep.
    Store {
        /// Number of the sweep.
        sweep: i64,
    },
    /// As audits of trials of this sweep, which have their rows.
    Audit {
        /// Number of the sweep.
        sweep: i64,
    },
    /// The fence holds no more: only compare.
    Compare,
}

impl Core {
    /// Whether results for these trials may be stored under this fence: the first trial that may not be is returned.
    ///
    /// # Errors
    /// A trial that the lease never held.
    pub fn admit_batch(
        &self,
        worker: &str,
        fence: Fence,
        keys: &[TrialKey],
    ) -> Result<Admission, TrialKey> {
        let Some(lease) = self.leases.get(&fence.lease) else {
            return Ok(Admission::Compare);
        };
        if lease.row.fence != fence || lease.row.worker != worker {
            return Ok(Admission::Compare);
        }

        let spec = &self.sweeps[&lease.row.sweep].spec;
        let granted = |key: &TrialKey| {
            spec.has_trial(*key) && {
                let (class, n) = spec.grid.locate_trial(*key);
                class == lease.row.class && lease.granted.contains(n)
            }
        };
        match keys.iter().find(|key| !granted(key)) {
            Some(key) => Err(*key),
            None if lease.row.audits.is_some() => Ok(Admission::Audit {
                sweep: lease.row.sweep,
            }),
            None => Ok(Admission::Store {
                sweep: lease.row.sweep,
            }),
        }
    }

    /// Which of these trials are to be audited.
    pub fn choose_audits(&mut self, sweep: i64, keys: &[TrialKey]) -> Vec<TrialKey> {
        let Some(sweep) = self.sweeps.get_mut(&sweep) else {
            return Vec::new();
        };
        keys.iter()
            .copied()
            .filter(|key| sweep.is_chosen_for_audit(*key))
            .collect()
    }

    /// The store took a batch, or compared it.
    pub fn on_batch_committed(
        &mut self,
        worker: &str,
        fence: Fence,
        sweep_number: i64,
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

        // What is stored is so. A row that was never heard of is looked at, and its trial stays where it is until then.
        let (strange, known): (Vec<TrialKey>, Vec<TrialKey>) = committed
            .already_stored
            .iter()
            .partition(|key| self.is_unfinished(sweep, **key));
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else {
            return Vec::new();
        };

        let compared = (committed.already_stored.len() - audited.len()) as u64;
        sweep
            .tallies
            .count_batch(compared, committed.mismatches, committed.fenced);
        let mut holders = Vec::new();

        for row in &committed.stored {
            let (class, n) = sweep.record_row(row);
            holders.push((class, n));
        }

        for key in &committed.audits_due {
            sweep
                .audits
                .add_audit(sweep.spec.grid.locate_trial(*key), &worker.to_owned(), None);
        }

        sweep
            .completion_rate
            .count_trials(committed.stored.len() as u64, now);
        holders.extend(known.iter().map(|key| sweep.spec.grid.locate_trial(*key)));

        if let Some(worker) = self.workers.get_mut(worker) {
            worker.stored_rows += committed.stored.len() as u64;
            worker.last_seen_at = now;
        }

        self.update_worker_pace(worker, sweep_number, &committed.stored, now);
        self.update_worker_pace(worker, sweep_number, &audited, now);
        // That a strange one was audited is looked up with its row.
        let audited = committed
            .audited
            .iter()
            .filter(|(row, _)| !strange.contains(&row.key));
        self.record_findings(
            sweep_number,
            audited.map(|(row, finding)| (row.key, *finding)),
        );

        let mut effects = self.remove_from_leases(sweep_number, fence, &holders);
        if !strange.is_empty() {
            effects.push(Effect::LookUpRows(sweep_number, strange));
        }

        let ended = committed.stored.iter().map(|row| row.key).chain(known);
        effects.extend(self.discard_checkpoints(sweep_number, ended));
        effects.extend(self.complete_if_done(sweep_number, now));
        effects.extend(self.assign_leases(now));
        effects
    }

    /// These rows are in the store, however they came there, and these audits of them.
    pub fn on_rows_looked_up(
        &mut self,
        sweep_number: i64,
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
        let places: Vec<TrialIndex> = unknown.iter().map(|row| sweep.record_row(row)).collect();

        // Audits of rows that were known are, too.
        sweep.record_audits(audits.iter().filter(|(key, ..)| seen.remove(key)).cloned());
        let keys: Vec<TrialKey> = unknown.iter().map(|row| row.key).collect();
        let mut effects = self.remove_from_leases(sweep_number, NO_LEASE, &places);
        effects.extend(self.discard_checkpoints(sweep_number, keys.into_iter()));
        effects.extend(self.complete_if_done(sweep_number, now));
        effects.extend(self.assign_leases(now));

        effects
    }

    /// Those of these trials of a sweep that are to be run and have no row, as far as is known.
    pub(crate) fn filter_unfinished(
        &self,
        sweep: &Sweep,
        keys: impl Iterator<Item = TrialKey>,
    ) -> HashSet<TrialKey> {
        let of_sweep = self
            .leases
            .values()
            .filter(|l| l.row.sweep == sweep.number && l.row.audits.is_none());
        let leased: HashSet<TrialIndex> = of_sweep
            .flat_map(|l| l.row.trials.iter().map(|n| (l.row.class, n)))
            .collect();
        let is_unfinished = |key: &TrialKey| {
            let (class, n) = sweep.spec.grid.locate_trial(*key);
            let waits = sweep.classes[class as usize].pending.contains(n)
                || sweep.quarantine.is_waiting((class, n));
            waits || leased.contains(&(class, n))
        };

        keys.filter(|key| sweep.needs_trial(*key))
            .filter(is_unfinished)
            .collect()
    }

    /// Audits were made: takes them from wherever they are.
    pub(crate) fn record_findings(
        &mut self,
        sweep_number: i64,
        audited: impl Iterator<Item = (TrialKey, Finding)>,
    ) {
        let Some(sweep) = self.sweeps.get_mut(&sweep_number) else {
            return;
        };

        for (key, finding) in audited {
            let (class, n) = sweep.spec.grid.locate_trial(key);
            let of_class = |lease: &&mut LeaseState| {
                lease.row.sweep == sweep_number && lease.row.class == class
            };
            let mut leases = self
                .leases
                .values_mut()
                .filter(of_class)
                .filter(|lease| lease.row.audits.is_some());
            sweep.audits.leased -= u64::from(leases.any(|lease| lease.row.trials.remove(n)));

            sweep.audits.record_finding((class, n), finding);
        }
    }
}
