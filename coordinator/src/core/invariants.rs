//! What must hold after every event; tests check it after each step.

use ergodic_common::TrialKey;

use crate::core::Sweep;
use crate::core::state::Core;

impl Core {
    /// Checks the invariant that every trial is in exactly one place.
    ///
    /// # Errors
    /// What does not add up.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.sweeps
            .values()
            .filter(|sweep| sweep.withheld.is_none())
            .try_for_each(|sweep| self.check_sweep(sweep))
    }

    /// The same of one sweep.
    pub(crate) fn check_sweep(&self, sweep: &Sweep) -> Result<(), String> {
        let pending: u64 = sweep.classes.iter().map(|c| c.pending.len()).sum();
        let all = || self.leases.values().filter(|l| l.row.sweep == sweep.number);
        let of_sweep = || all().filter(|l| l.row.audits.is_none());
        let leased: u64 = of_sweep().map(|l| l.row.trials.len()).sum();
        if leased != sweep.leased {
            return Err(format!(
                "{}: {leased} trials in leases, {} counted",
                sweep.id, sweep.leased
            ));
        }

        let sum = pending + sweep.quarantine.waiting_count() + leased + sweep.counts.done();
        if sum != sweep.total_trials() {
            return Err(format!(
                "{}: {sum} trials accounted for, of {}",
                sweep.id,
                sweep.total_trials()
            ));
        }

        let useless = |key: &&TrialKey| !sweep.state.is_open() || !self.is_unfinished(sweep, **key);
        if let Some(key) = sweep.checkpoints.keys().find(useless) {
            return Err(format!(
                "{}: a checkpoint of {key} is kept, which is not unfinished",
                sweep.id
            ));
        }

        for lease in of_sweep() {
            let pending = &sweep.classes[lease.row.class as usize].pending;
            let elsewhere =
                |n: u64| pending.contains(n) || sweep.quarantine.is_waiting((lease.row.class, n));
            if let Some(n) = lease.row.trials.iter().find(|n| elsewhere(*n)) {
                return Err(format!("{}: trial {n} waits and is leased", sweep.id));
            }
        }

        self.check_audits(sweep)
    }

    /// Every audit that is not settled waits or is in one lease, which is not that of the process whose row it is.
    pub(crate) fn check_audits(&self, sweep: &Sweep) -> Result<(), String> {
        let of_sweep = || self.leases.values().filter(|l| l.row.sweep == sweep.number);
        let audits = || of_sweep().filter(|l| l.row.audits.is_some());
        let leased: u64 = audits().map(|l| l.row.trials.len()).sum();
        let waiting = sweep.audits.waiting_count();
        let left = sweep.audits.counts.remaining();
        if leased != sweep.audits.leased || waiting + leased != left {
            let counted = sweep.audits.leased;
            return Err(format!(
                "{}: {left} audits left, {waiting} wait, {leased} leased ({counted})",
                sweep.id
            ));
        }

        match audits().find(|l| l.row.audits.as_ref() == Some(&l.row.worker)) {
            Some(lease) => Err(format!("{}: {} audits itself", sweep.id, lease.row.worker)),
            None => Ok(()),
        }
    }
}
