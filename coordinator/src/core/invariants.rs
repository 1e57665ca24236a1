//! Invariants that must hold after every event; tests check them after each step.

use crate::core::Sweep;
use crate::core::state::{Core, LeaseState};

impl Core {
    /// Checks that every trial is pending, waiting, leased or done, and in only one of these
    /// states.
    ///
    /// # Errors
    /// Names the trial or count that breaks an invariant.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.leases.check_indexes()?;
        self.workers.check_kinds()?;
        self.sweeps
            .values()
            .filter(|sweep| sweep.withheld.is_none())
            .try_for_each(|sweep| self.check_sweep(sweep))
    }

    /// Checks the invariant for one sweep.
    pub(crate) fn check_sweep(&self, sweep: &Sweep) -> Result<(), String> {
        let pending: u64 = sweep.classes.iter().map(|class| class.pending.len()).sum();
        let leased: u64 = self
            .leases_of(sweep, false)
            .map(|lease| lease.row.trials.len())
            .sum();
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

        let mut checkpointed = sweep.checkpoints.keys();
        if let Some(key) =
            checkpointed.find(|key| !sweep.state.is_open() || !self.is_unfinished(sweep, **key))
        {
            return Err(format!(
                "{}: a checkpoint of {key} is kept, which is not unfinished",
                sweep.id
            ));
        }

        self.check_leased_trials(sweep)?;
        self.check_audits(sweep)
    }

    /// The leases of a sweep: those for audits, or the others.
    fn leases_of(&self, sweep: &Sweep, for_audits: bool) -> impl Iterator<Item = &LeaseState> {
        let leases = self.leases.of_sweep(sweep.number);
        leases.filter(move |lease| lease.row.audits.is_some() == for_audits)
    }

    /// Checks that no trial both waits and is leased.
    fn check_leased_trials(&self, sweep: &Sweep) -> Result<(), String> {
        for lease in self.leases_of(sweep, false) {
            let mut trials = lease.row.trial_indices();
            if let Some(index) = trials.find(|index| {
                sweep.has_pending_trial(*index) || sweep.quarantine.is_waiting(*index)
            }) {
                return Err(format!(
                    "{}: trial {} waits and is leased",
                    sweep.id, index.number
                ));
            }
        }

        Ok(())
    }

    /// Checks that every open audit waits, or is in one lease of a process other than the row's.
    pub(crate) fn check_audits(&self, sweep: &Sweep) -> Result<(), String> {
        let leased: u64 = self
            .leases_of(sweep, true)
            .map(|lease| lease.row.trials.len())
            .sum();
        let waiting = sweep.audits.waiting_count();
        let left = sweep.audits.counts.remaining();
        if leased != sweep.audits.leased || waiting + leased != left {
            let counted = sweep.audits.leased;
            return Err(format!(
                "{}: {left} audits left, {waiting} wait, {leased} leased ({counted})",
                sweep.id
            ));
        }

        let mut audits = self.leases_of(sweep, true);
        match audits.find(|lease| lease.row.audits.as_ref() == Some(&lease.row.worker)) {
            Some(lease) => Err(format!("{}: {} audits itself", sweep.id, lease.row.worker)),
            None => Ok(()),
        }
    }
}
