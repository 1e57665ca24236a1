//! Checkpoints of unfinished trials: which exist, and which worker may send or fetch one.

use ergodic_common::TrialKey;
use ergodic_common::ids::{Fence, SweepNumber, WorkerId};

use super::effects::Effect;
use super::state::{Core, LeaseState};

impl Core {
    /// Whether a worker holds the lease of an unfinished trial, and so may send and fetch its
    /// checkpoint.
    pub fn is_working_on(
        &self,
        worker: &WorkerId,
        fence: Fence,
        sweep: SweepNumber,
        key: TrialKey,
    ) -> bool {
        self.leases.get(fence.lease).is_some_and(|lease| {
            lease.row.fence == fence
                && lease.row.worker == *worker
                && lease.row.sweep == sweep
                && lease.row.audits.is_none()
                && self.has_unfinished(lease, key)
        })
    }

    fn has_unfinished(&self, lease: &LeaseState, key: TrialKey) -> bool {
        let spec = &self.sweeps[&lease.row.sweep].spec;
        if !spec.has_trial(key) {
            return false;
        }

        lease.row.holds(spec.grid.locate_trial(key))
    }

    /// Records that a checkpoint after `steps` steps was stored. Discards it if the trial is not
    /// unfinished.
    pub fn on_checkpoint_stored(
        &mut self,
        sweep_number: SweepNumber,
        key: TrialKey,
        steps: u64,
    ) -> Vec<Effect> {
        let is_needed = self.sweeps.get(&sweep_number).is_some_and(|sweep| {
            sweep.state.is_open() && sweep.spec.has_trial(key) && self.is_unfinished(sweep, key)
        });
        if !is_needed {
            return vec![Effect::DiscardCheckpoints(sweep_number, vec![key])];
        }

        self.sweeps
            .entry(sweep_number)
            .and_modify(|sweep| _ = sweep.checkpoints.insert(key, steps));
        Vec::new()
    }

    /// Number of steps at which a trial's checkpoint was taken, if it has one.
    pub fn checkpoint_steps(&self, sweep_number: SweepNumber, key: TrialKey) -> Option<u64> {
        self.sweeps
            .get(&sweep_number)?
            .checkpoints
            .get(&key)
            .copied()
    }

    /// Discards the checkpoints of trials that have ended.
    pub(super) fn discard_checkpoints(
        &mut self,
        sweep_number: SweepNumber,
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
    pub(super) fn discard_all_checkpoints(&mut self, sweep_number: SweepNumber) -> Vec<Effect> {
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
