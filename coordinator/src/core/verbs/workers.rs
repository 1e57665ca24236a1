//! Workers join, send heartbeats, request work, and leave.

use std::collections::BTreeMap;
use std::time::Duration;

use ergodic_common::TrialKey;
use ergodic_common::ids::{Fence, LeaseId, WorkerId};

use crate::core::state::{MAX_KNOWN_WORKERS, WorkerSupply};
use crate::core::{Core, CoreTime, Effect, Worker};
use crate::experiments::KnownExperiment;
use crate::interval_set::IntervalSet;

/// A worker that opens a session.
#[derive(Debug, Clone)]
pub struct JoiningWorker {
    /// The id of the worker's process.
    pub worker: WorkerId,
    /// The worker's name, for people.
    pub name: String,
    /// The build of the worker's program.
    pub build: String,
    /// Number of trials at a time.
    pub slots: u32,
    /// Numerics classes that the worker offers.
    pub numerics: Vec<String>,
    /// Whether the worker runs programs.
    pub programs: bool,
    /// The experiments of the worker program.
    pub experiments: Vec<KnownExperiment>,
    /// What programs can take besides slots; `None` for a worker that does not tell.
    pub supply: Option<WorkerSupply>,
    /// Time for which the worker begins trials; `None` if it is not limited.
    pub begins_for: Option<Duration>,
    /// Leases that the worker still holds.
    pub held: Vec<Fence>,
}

/// How a worker's session ended without a goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// The worker's side ended the stream or closed the connection, as a system does when a process ends.
    ByPeer,
    /// Nothing was heard of the worker for too long.
    BySilence,
    /// The coordinator ended it: the worker did not read its messages, broke the protocol, or may not be here any more.
    ByCoordinator,
}

impl Core {
    /// Handles a worker that opens a session, perhaps not its first.
    pub fn on_worker_joined(&mut self, joining: JoiningWorker, now: CoreTime) -> Vec<Effect> {
        let gone: Vec<Fence> = joining
            .held
            .iter()
            .copied()
            .filter(|fence| !self.holds_lease(&joining.worker, *fence))
            .collect();

        let known = self.workers.get(&joining.worker);
        let (trials, pace) = known.map_or((0, 1.0), |w| (w.stored_rows, w.pace));
        let drain_requested = known.is_some_and(|w| w.drain_requested);
        let begins_until = joining.begins_for.map(|time| now.saturating_add(time));
        let worker = Worker {
            name: joining.name,
            build: joining.build,
            slots: joining.slots,
            numerics: joining.numerics,
            programs: joining.programs,
            experiments: joining.experiments,
            supply: joining.supply,
            begins_until: if drain_requested {
                Some(now)
            } else {
                begins_until
            },
            drain_requested,
            connected: true,
            session_broke_off: false,
            last_seen_at: now,
            running: Vec::new(),
            queued: 0,
            stored_rows: trials,
            pace,
            last_results_at: now,
            requested_slots: None,
            unable_sweeps: BTreeMap::new(),
        };
        self.forget_absent_workers(&joining.worker);

        self.workers.insert(joining.worker.clone(), worker);
        self.acquit_worker(&joining.worker);
        let forgotten = self.worker_fences(&joining.worker, |fence| !joining.held.contains(&fence));

        // A process does not forget leases, so it never received these or has delivered all their
        // results.
        let mut effects = self.end_leases(&forgotten, false);
        self.renew_leases(&joining.worker, &joining.held, now);

        if !gone.is_empty() {
            effects.push(Effect::RevokeLeases(joining.worker, gone));
        }

        effects.extend(self.assign_leases(now));
        effects
    }

    /// A worker's session ended without a goodbye. Its leases live on until they expire: it may come back.
    ///
    /// A session that the worker's side ends within half of the time to live of a lease after the worker was last heard of has
    /// broken off: when a process ends, its system closes the connection at once. A machine or a network that fails is only
    /// silent. One that is there again after a while may close the connection then: hence the time. A worker whose session broke
    /// off has crashed, unless it comes back before its leases expire.
    pub fn on_session_ended(&mut self, worker: &WorkerId, end: SessionEnd, now: CoreTime) {
        let limit = self.timing.lease_ttl / 2;
        self.workers.edit_presence(worker, |worker| {
            let silence = now.saturating_sub(worker.last_seen_at);
            worker.connected = false;
            worker.session_broke_off = end == SessionEnd::ByPeer && silence <= limit;
            worker.requested_slots = None;
        });
    }

    /// Handles a worker that leaves for good.
    pub fn on_worker_left(&mut self, worker: &WorkerId, now: CoreTime) -> Vec<Effect> {
        let leases = self.worker_fences(worker, |_| true);
        let mut effects = self.end_leases(&leases, false);
        self.workers.remove(worker);
        effects.extend(self.assign_leases(now));
        effects
    }

    /// Handles a heartbeat. It renews only the leases that the worker names, because it has lost
    /// the others.
    pub fn on_heartbeat(
        &mut self,
        worker: &WorkerId,
        running: Vec<(LeaseId, TrialKey)>,
        queued: u64,
        held: &[Fence],
        now: CoreTime,
    ) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.running = running;
            worker.queued = queued;
        }
        self.renew_leases(worker, held, now);
    }

    /// Handles a worker's request for a lease.
    pub fn on_work_requested(
        &mut self,
        worker: &WorkerId,
        idle_slots: u32,
        now: CoreTime,
    ) -> Vec<Effect> {
        self.workers.edit_presence(worker, |worker| {
            worker.requested_slots = Some(idle_slots.max(1));
            worker.last_seen_at = now;
        });
        self.assign_leases(now)
    }

    /// Handles that a worker was asked to leave: it is offered nothing more.
    pub fn on_drain_requested(&mut self, worker: &WorkerId, now: CoreTime) {
        self.workers.edit_presence(worker, |worker| {
            worker.begins_until = Some(now);
            worker.drain_requested = true;
            worker.requested_slots = None;
        });
    }

    /// Whether somebody has asked a worker to leave.
    pub fn is_drain_requested(&self, worker: &WorkerId) -> bool {
        let worker = self.workers.get(worker);
        worker.is_some_and(|worker| worker.drain_requested)
    }

    /// Forgets absent workers beyond a limit, because a peer could join under ever new ids.
    pub(crate) fn forget_absent_workers(&mut self, joining: &WorkerId) {
        if self.workers.len() < MAX_KNOWN_WORKERS || self.workers.contains_key(joining) {
            return;
        }

        let leases = &self.leases;
        self.workers
            .retain(|id, worker| worker.connected || leases.has_worker(id));
    }

    pub(crate) fn renew_leases(&mut self, worker: &WorkerId, held: &[Fence], now: CoreTime) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.last_seen_at = now;
        }

        let expires = now + self.timing.lease_ttl;
        for fence in held
            .iter()
            .filter(|fence| self.holds_lease(worker, **fence))
            .copied()
            .collect::<Vec<_>>()
        {
            if let Some(lease) = self.leases.get_mut(fence.lease) {
                lease.expires_at = expires;
            }
        }
    }

    /// Takes back the crash of a worker that has come back: it counts against no trial any more.
    pub(crate) fn acquit_worker(&mut self, worker: &WorkerId) {
        for sweep in self.sweeps.values_mut() {
            for index in sweep.quarantine.acquit_worker(worker) {
                let back = IntervalSet::from_range(index.number, index.number + 1);
                sweep.classes[index.class.position()]
                    .pending
                    .insert_all(&back);
                sweep.reopen_cells(index.class, &back);
            }
            sweep.audits.acquit_worker(worker);
        }
    }
}
