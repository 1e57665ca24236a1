//! Checkpoints of unfinished trials: which there are, and which worker may send or fetch one.

use ergodic_common::TrialKey;

use super::Sweep;
use super::effects::Effect;
use super::state::Core;
use crate::records::Fence;

impl Core {
    /// Whether a worker holds the lease that an unfinished trial is in: only then may it keep the trial, or go on with what was kept.
    pub fn is_working_on(&self, worker: &str, fence: Fence, sweep: i64, key: TrialKey) -> bool {
        let holds = |lease: &super::state::LeaseState| {
            let spec = &self.sweeps[&lease.row.sweep].spec;
            lease.row.fence == fence
                && lease.row.worker == worker
                && lease.row.sweep == sweep
                && lease.row.audits.is_none()
                && spec.has_trial(key)
                && {
                    let (class, n) = spec.grid.locate_trial(key);
                    class == lease.row.class && lease.row.trials.contains(n)
                }
        };

        self.leases.get(&fence.lease).is_some_and(holds)
    }

    /// A checkpoint of a trial, taken after so many steps, is stored. A trial that is not unfinished needs none.
    pub fn on_checkpoint_stored(
        &mut self,
        sweep_number: i64,
        key: TrialKey,
        steps: u64,
    ) -> Vec<Effect> {
        let needs = |sweep: &Sweep| {
            sweep.state.is_open() && sweep.spec.has_trial(key) && self.is_unfinished(sweep, key)
        };
        if !self.sweeps.get(&sweep_number).is_some_and(needs) {
            return vec![Effect::DiscardCheckpoints(sweep_number, vec![key])];
        }

        self.sweeps
            .entry(sweep_number)
            .and_modify(|sweep| _ = sweep.checkpoints.insert(key, steps));
        Vec::new()
    }

    /// The steps after which a trial is kept, if it is.
    pub fn checkpoint_steps(&self, sweep_number: i64, key: TrialKey) -> Option<u64> {
        self.sweeps
            .get(&sweep_number)?
            .checkpoints
            .get(&key)
            .copied()
    }

    /// Trials have ended: what is kept of them is of no use any more.
    pub(super) fn discard_checkpoints(
        &mut self,
        sweep_number: i64,
        ended: impl Iterator<Item = TrialKey>,
    ) -> Vec<Effect> {
        let checkpoints = self
            .sweeps
            .get_mut(&sweep_number)
            .map(|sweep| &mut sweep.checkpoints)
            .filter(|checkpoints| !checkpoints.is_empty());
        let keys: Vec<TrialKey> = checkpoints.map_or_else(Vec::new, |checkpoints| {
            ended
                .filter(|key| checkpoints.remove(key).is_some())
                .collect()
        });

        if keys.is_empty() {
            Vec::new()
        } else {
            vec![Effect::DiscardCheckpoints(sweep_number, keys)]
        }
    }

    /// Forgets and discards the checkpoints of all trials of a sweep.
    pub(super) fn discard_all_checkpoints(&mut self, sweep_number: i64) -> Vec<Effect> {
        let checkpoints = self
            .sweeps
            .get_mut(&sweep_number)
            .map(|sweep| std::mem::take(&mut sweep.checkpoints))
            .unwrap_or_default();
        let keys: Vec<TrialKey> = checkpoints.into_keys().collect();
        if keys.is_empty() {
            Vec::new()
        } else {
            vec![Effect::DiscardCheckpoints(sweep_number, keys)]
        }
    }
}
