//! Looks over the store's shoulder: every write and what became of it, against rules that neither core nor store knows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use ergodic::records::{EndedLease, LeaseRow, SweepState};
use ergodic::result_batch::CommitOutcome;
use ergodic::store::{
    EndLeases, GiveUpAudit, GiveUpTrial, InsertLease, PendingWrite, SetSweepState, StoreError,
    StoreReader, StoreResults, StoreWriter,
};
use ergodic_common::ids::{Epoch, LeaseId};
use ergodic_common::{Spec, TrialKey};

/// What is durable.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Leases in force, as they were granted.
    leases: BTreeMap<LeaseId, LeaseRow>,
    /// The largest number that a lease ever had.
    last_lease: LeaseId,
    /// Trials with a row, and the lease it was stored under.
    rows: BTreeMap<TrialKey, LeaseId>,
    /// Whether the sweep has ended.
    pub(crate) ended: bool,
    /// Batches that came under a lease that was none any more.
    pub(crate) fenced: u64,
    /// Results that had a row already.
    pub(crate) known: u64,
    /// Leases that were lost.
    pub(crate) lost: u64,
}

impl Ledger {
    /// Rows there are.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Leases in force.
    pub(crate) fn leases(&self) -> usize {
        self.leases.len()
    }

    /// The store has what was made durable, and nothing else.
    pub(crate) fn compare(&self, reader: &dyn StoreReader) {
        let (leases, next) = reader.read_leases().expect("leases can be read");
        let of_store: Vec<(LeaseId, Epoch)> = leases
            .iter()
            .map(|row| (row.fence.lease, row.fence.epoch))
            .collect();
        let known: Vec<(LeaseId, Epoch)> = self
            .leases
            .values()
            .map(|row| (row.fence.lease, row.fence.epoch))
            .collect();
        assert_eq!(of_store, known, "leases in force");

        assert!(
            next > self.last_lease,
            "a lease's number would be given out again"
        );
        let mut rows = Vec::new();

        for sweep in reader.read_sweeps().expect("sweeps can be read") {
            let mut keep = |trial: ergodic::store::StoredTrial| {
                rows.push(trial.result.key);
                true
            };
            reader
                .read_trials(sweep.number, &mut keep)
                .expect("rows can be read");
        }

        assert_eq!(rows, self.rows.keys().copied().collect::<Vec<_>>(), "rows");
    }

    fn note(&mut self, spec: &Spec, pending: &dyn PendingWrite) {
        let write = pending.write();
        if let Some(InsertLease(row)) = write.downcast_ref() {
            assert!(
                row.fence.lease > self.last_lease,
                "the lease {} was there before",
                row.fence.lease
            );
            self.last_lease = row.fence.lease;

            self.leases.insert(row.fence.lease, row.clone());
        }

        if let Some(EndLeases(ended)) = write.downcast_ref() {
            ended.iter().for_each(|ended| self.end(ended));
        }

        if let Some(SetSweepState { state, .. }) = write.downcast_ref()
            && matches!(state, SweepState::Completed | SweepState::Cancelled)
        {
            self.ended = true;
            self.leases.clear();
        }

        if let Some(results) = write.downcast_ref() {
            let outcome = pending.output().and_then(|output| output.downcast_ref());
            self.note_results(spec, results, outcome.expect("results have an outcome"));
        }

        if let Some(GiveUpAudit { key, cause, .. }) = write.downcast_ref() {
            panic!("the audit of the trial {key} was given up: {cause}")
        }

        if let Some(GiveUpTrial { result, .. }) = write.downcast_ref() {
            panic!(
                "the trial {} was given up: {:?}",
                result.key, result.outcome
            )
        }
    }

    fn end(&mut self, ended: &EndedLease) {
        if self
            .leases
            .get(&ended.fence.lease)
            .is_some_and(|row| row.fence == ended.fence)
        {
            self.leases.remove(&ended.fence.lease);
            self.lost += u64::from(ended.lost);
        }
    }

    fn note_results(&mut self, spec: &Spec, results: &StoreResults, report: &CommitOutcome) {
        let batch = &results.batch;
        let lease = self
            .leases
            .get(&batch.fence.lease)
            .filter(|row| row.fence == batch.fence);
        assert_eq!(report.mismatches, 0, "other bits");
        assert_eq!(
            report.fenced,
            results.compare_only || lease.is_none(),
            "{:?} and the lease {lease:?}",
            batch.fence
        );

        self.fenced += u64::from(report.fenced);
        self.known += report.already_stored.len() as u64;
        let audits = lease.is_some_and(|row| row.audits.is_some());
        assert!(
            lease.is_none() || results.audit == audits,
            "the lease {lease:?} and a batch for audits: {}",
            results.audit
        );

        assert!(
            !results.audit || report.stored.is_empty(),
            "an audit stored a row under {:?}",
            batch.fence
        );

        for row in &report.stored {
            let key = row.key;
            let granted = lease.is_some_and(|row| row.holds(spec.grid.locate_trial(key)));
            assert!(
                granted,
                "the trial {key} was stored under {:?}, which does not hold it: {lease:?}",
                batch.fence
            );

            let before = self.rows.insert(key, batch.fence.lease);
            assert_eq!(
                before, None,
                "the trial {key} was stored again under the lease {}",
                batch.fence.lease
            );
        }

        // A batch may bring a trial twice; whatever was not stored has a row.
        let lacking: Vec<TrialKey> = batch
            .trial_keys()
            .into_iter()
            .filter(|key| !self.rows.contains_key(key))
            .collect();

        assert!(
            report.fenced || lacking.is_empty(),
            "acknowledged and not stored: {lacking:?}"
        );
    }
}

/// The ledger, kept by whoever lives longer than a coordinator.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    pub(crate) fn look(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().expect("a failed check ends the process")
    }
}

/// A writer that is looked at.
pub(crate) struct Watched {
    pub(crate) writer: Box<dyn StoreWriter>,
    pub(crate) spec: Arc<Spec>,
    pub(crate) ledger: Shared,
}

impl StoreWriter for Watched {
    fn commit_writes(&mut self, writes: &mut [&mut dyn PendingWrite]) -> Result<(), StoreError> {
        self.writer.commit_writes(writes)?;
        let mut ledger = self.ledger.look();
        writes
            .iter()
            .for_each(|write| ledger.note(&self.spec, &**write));
        Ok(())
    }
}
