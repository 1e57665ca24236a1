//! How many trials of a sweep a worker can run at a time: as far as its slots, memory and GPUs suffice.

use ergodic_common::Spec;
use ergodic_common::ids::WorkerId;
use ergodic_common::program::needs::{GPU_PARTS, TrialNeeds};

use super::Sweep;
use super::state::{Core, LeaseState, Worker, WorkerSupply};

/// What is free on a worker.
#[derive(Debug, Clone)]
struct FreeRoom {
    slots: u32,
    memory: u64,
    /// The free hundredths of each GPU.
    gpus: Vec<u32>,
}

/// Which parts of a worker are kept free, because a trial that comes first waits for them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeptFree {
    slots: bool,
    memory: bool,
    gpus: bool,
}

impl FreeRoom {
    /// The room of an idle worker. One that does not tell its supply has no memory and no GPU to set apart.
    fn of_idle(worker: &Worker) -> Self {
        let unknown = WorkerSupply {
            memory: Some(0),
            gpus: 0,
        };
        let supply = worker.supply.unwrap_or(unknown);
        Self {
            slots: worker.slots,
            memory: supply.memory.unwrap_or(u64::MAX),
            gpus: vec![GPU_PARTS; supply.gpus as usize],
        }
    }

    /// Number of trials with these needs that run at a time.
    fn count_trials(&self, needs: TrialNeeds) -> u32 {
        let by_slots = u64::from(self.slots / needs.slots.max(1));
        let by_memory = self.memory.checked_div(needs.memory).unwrap_or(u64::MAX);
        by_slots.min(by_memory).min(self.count_by_gpus(needs)) as u32
    }

    fn count_by_gpus(&self, needs: TrialNeeds) -> u64 {
        let share = needs.gpu_parts.min(GPU_PARTS);
        if share == 0 {
            return u64::MAX;
        }

        let shares: u32 = self.gpus.iter().map(|free| free / share).sum();
        u64::from(shares / needs.gpu_parts.div_ceil(GPU_PARTS))
    }

    /// Takes the room of trials with these needs, as many as run at a time and at most `trials`. Shares of GPUs fill one GPU
    /// before the next, as on the worker.
    fn take_trials(&mut self, trials: u64, needs: TrialNeeds) {
        let trials = trials.min(u64::from(self.count_trials(needs))) as u32;
        self.slots -= trials * needs.slots;
        self.memory -= u64::from(trials) * needs.memory;

        let share = needs.gpu_parts.min(GPU_PARTS);
        for _ in 0..trials * needs.gpu_parts.div_ceil(GPU_PARTS) {
            let fitting = self.gpus.iter_mut().filter(|free| **free >= share);
            fitting
                .min_by_key(|free| **free)
                .into_iter()
                .for_each(|free| *free -= share);
        }
    }

    /// What there is too little of for a trial with these needs.
    fn find_lacking(&self, needs: TrialNeeds) -> KeptFree {
        KeptFree {
            slots: self.slots < needs.slots,
            memory: self.memory < needs.memory,
            gpus: self.count_by_gpus(needs) == 0,
        }
    }
}

impl KeptFree {
    /// Whether a trial with these needs would take any of it.
    pub(super) fn is_taken_by(self, needs: TrialNeeds) -> bool {
        self.slots || (self.memory && needs.memory > 0) || (self.gpus && needs.gpu_parts > 0)
    }

    /// Keeps that free, too.
    pub(super) fn add(&mut self, other: Self) {
        self.slots |= other.slots;
        self.memory |= other.memory;
        self.gpus |= other.gpus;
    }
}

impl Worker {
    /// Number of trials of a sweep that the worker can run at a time.
    pub(super) fn parallel_trials(&self, spec: &Spec) -> u32 {
        FreeRoom::of_idle(self).count_trials(spec.trial_needs())
    }

    /// What the worker lacks for a trial of a sweep whose numerics class it offers.
    pub(super) fn explain_lack(&self, spec: &Spec) -> Option<String> {
        let needs = spec.trial_needs();
        if !self.offers_class(&spec.numerics) || self.parallel_trials(spec) > 0 {
            return None;
        }
        if self.slots < needs.slots {
            return Some(format!(
                "a trial takes {} slots, and this worker has {}: start one with --slots {0}",
                needs.slots, self.slots
            ));
        }

        let Some(supply) = self.supply else {
            let message = "a trial takes memory or GPUs, and this worker does not tell what it has: update it";
            return Some(message.to_owned());
        };
        if let Some(all) = supply.memory.filter(|all| *all < needs.memory) {
            return Some(format!(
                "a trial takes {} MiB of memory, and this worker has {} MiB: start one where there is more, or with more --memory",
                needs.memory.div_ceil(1 << 20),
                all >> 20
            ));
        }
        let taken = match needs.gpu_parts < GPU_PARTS {
            true => "a share of a GPU".to_owned(),
            false => format!("GPUs: {}", needs.gpu_parts / GPU_PARTS),
        };
        Some(format!(
            "a trial takes {taken}, and this worker has {}: start one where there are more, or name them with --gpus",
            supply.gpus
        ))
    }
}

impl Core {
    /// Number of trials of a sweep for which a worker has room now, if it says that so many of its slots are idle.
    pub(super) fn count_fitting(&self, id: &WorkerId, sweep: &Sweep, idle: u32) -> u32 {
        match sweep.spec.trial_needs() {
            TrialNeeds::ONE_SLOT => idle,
            needs => self
                .find_free_room(id, idle)
                .map_or(0, |room| room.count_trials(needs)),
        }
    }

    /// What a worker has too little of now for a trial of a sweep.
    pub(super) fn find_lacking(&self, id: &WorkerId, sweep: &Sweep, idle: u32) -> KeptFree {
        self.find_free_room(id, idle)
            .map(|room| room.find_lacking(sweep.spec.trial_needs()))
            .unwrap_or_default()
    }

    /// The room beside the trials that a worker holds. Slots are idle that it called so, and those of trials that have ended since.
    fn find_free_room(&self, id: &WorkerId, idle: u32) -> Option<FreeRoom> {
        let mut room = self.find_room_beside(id, |_| true)?;
        room.slots = room.slots.max(idle);
        Some(room)
    }

    /// Number of trials of a lease that its holder can run beside those of its earlier leases.
    pub(super) fn count_running(&self, lease: &LeaseState) -> u32 {
        let needs = self.sweeps[&lease.row.sweep].spec.trial_needs();
        let is_earlier = |other: &LeaseState| other.row.fence < lease.row.fence;
        self.find_room_beside(&lease.row.worker, is_earlier)
            .map_or(0, |room| room.count_trials(needs))
    }

    /// The room of a worker beside the trials of these of its leases.
    fn find_room_beside(
        &self,
        id: &WorkerId,
        counts: impl Fn(&LeaseState) -> bool,
    ) -> Option<FreeRoom> {
        let mut room = FreeRoom::of_idle(self.workers.get(id)?);
        for lease in self.leases.of_worker(id).filter(|lease| counts(lease)) {
            let needs = self.sweeps[&lease.row.sweep].spec.trial_needs();
            room.take_trials(lease.row.trials.len(), needs);
        }
        Some(room)
    }
}
