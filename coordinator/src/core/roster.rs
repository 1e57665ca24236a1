//! The workers that the core knows, and those of each kind that are connected or ask for work.

use std::collections::{BTreeMap, BTreeSet};

use ergodic_common::Spec;
use ergodic_common::ids::WorkerId;

use super::step_count::count_step;
use super::worker_state::{Worker, WorkerSupply};

/// What decides which sweeps a worker can be offered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct WorkerKind {
    numerics: Vec<String>,
    programs: bool,
    slots: u32,
    supply: Option<WorkerSupply>,
}

/// The connected workers of one kind.
#[derive(Debug, Default)]
struct KindMembers {
    connected: BTreeSet<WorkerId>,
    /// Connected workers that have an open request for work.
    requesting: BTreeSet<WorkerId>,
}

/// All known workers, by id.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    workers: BTreeMap<WorkerId, Worker>,
    kinds: BTreeMap<WorkerKind, KindMembers>,
}

impl Roster {
    /// Adds a worker, in place of one with the same id.
    pub(crate) fn insert(&mut self, id: WorkerId, worker: Worker) {
        self.remove(&id);
        self.add_to_kind(&id, &worker);
        self.workers.insert(id, worker);
    }

    /// Removes a worker.
    pub(crate) fn remove(&mut self, id: &WorkerId) -> Option<Worker> {
        let worker = self.workers.remove(id)?;
        self.remove_from_kind(id, &worker);
        Some(worker)
    }

    /// Keeps the workers for which `keep` holds.
    pub(crate) fn retain(&mut self, keep: impl Fn(&WorkerId, &Worker) -> bool) {
        let gone = self.iter().filter(|(id, worker)| !keep(id, worker));
        let gone: Vec<WorkerId> = gone.map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.remove(&id);
        }
    }

    /// Changes whether a worker is connected, and its open request for work.
    pub(crate) fn edit_presence(&mut self, id: &WorkerId, edit: impl FnOnce(&mut Worker)) {
        let Some(mut worker) = self.remove(id) else {
            return;
        };
        edit(&mut worker);
        self.insert(id.clone(), worker);
    }

    /// The worker with an id.
    pub(crate) fn get(&self, id: &WorkerId) -> Option<&Worker> {
        self.workers.get(id)
    }

    /// The worker with an id, to change what [`edit_presence`](Self::edit_presence) does not.
    pub(crate) fn get_mut(&mut self, id: &WorkerId) -> Option<&mut Worker> {
        self.workers.get_mut(id)
    }

    /// Whether a worker is known.
    pub(crate) fn contains_key(&self, id: &WorkerId) -> bool {
        self.workers.contains_key(id)
    }

    /// Number of known workers.
    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    /// All workers by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&WorkerId, &Worker)> {
        self.workers.iter().inspect(|_| count_step())
    }

    /// The ids of all workers.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &WorkerId> {
        self.workers.keys().inspect(|_| count_step())
    }

    /// All workers in the order of their ids.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Worker> + Clone {
        self.workers.values().inspect(|_| count_step())
    }

    /// All workers, to change what [`edit_presence`](Self::edit_presence) does not.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.workers.values_mut().inspect(|_| count_step())
    }

    /// One worker of each kind of which some are connected, and how many are.
    pub(crate) fn connected_kinds(&self) -> impl Iterator<Item = (&Worker, u32)> {
        let connected = self.kinds.values().map(|kind| &kind.connected);
        connected.filter_map(|ids| Some((&self.workers[ids.first()?], ids.len() as u32)))
    }

    /// Number of trials of a sweep that all connected workers of all kinds can run at a time.
    pub(crate) fn count_parallel_trials(&self, spec: &Spec) -> u32 {
        self.connected_kinds()
            .map(|(worker, count)| worker.parallel_trials(spec) * count)
            .sum()
    }

    /// The workers of each kind that ask for work, with one that stands for them. Kinds of which none asks are left out.
    pub(crate) fn requesting_kinds(&self) -> impl Iterator<Item = (&Worker, &BTreeSet<WorkerId>)> {
        let requesting = self.kinds.values().map(|kind| &kind.requesting);
        requesting.filter_map(|ids| Some((&self.workers[ids.first()?], ids)))
    }

    fn add_to_kind(&mut self, id: &WorkerId, worker: &Worker) {
        if !worker.connected {
            return;
        }
        let members = self.kinds.entry(WorkerKind::of(worker)).or_default();
        members.connected.insert(id.clone());
        if worker.requested_slots.is_some() {
            members.requesting.insert(id.clone());
        }
    }

    fn remove_from_kind(&mut self, id: &WorkerId, worker: &Worker) {
        let kind = WorkerKind::of(worker);
        let Some(members) = self.kinds.get_mut(&kind) else {
            return;
        };
        members.connected.remove(id);
        members.requesting.remove(id);
        if members.connected.is_empty() {
            self.kinds.remove(&kind);
        }
    }

    /// Checks that each connected worker is in its kind, and in no other.
    ///
    /// # Errors
    /// Names a worker that is not.
    pub(super) fn check_kinds(&self) -> Result<(), String> {
        let connected = self.workers.values().filter(|worker| worker.connected);
        let members = self.kinds.values().map(|kind| kind.connected.len());
        if members.sum::<usize>() != connected.count() {
            return Err("the kinds of workers name some that are not connected".to_owned());
        }
        let none = KindMembers::default();
        let wrong = self.workers.iter().find(|(id, worker)| {
            let members = self.kinds.get(&WorkerKind::of(worker)).unwrap_or(&none);
            let asks = worker.connected && worker.requested_slots.is_some();
            members.connected.contains(*id) != worker.connected
                || members.requesting.contains(*id) != asks
        });
        match wrong {
            Some((id, _)) => Err(format!("{id} is not in its kind")),
            None => Ok(()),
        }
    }
}

impl WorkerKind {
    fn of(worker: &Worker) -> Self {
        Self {
            numerics: worker.numerics.clone(),
            programs: worker.programs,
            slots: worker.slots,
            supply: worker.supply,
        }
    }
}
