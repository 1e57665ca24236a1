//! Workers' sessions: joining, messages received and messages sent.

use ergodic_common::TrialKey;
use ergodic_common::ids::{Fence, SessionNumber, SweepId, WorkerId};
use ergodic_proto::v1;
use ergodic_proto::v1::session_response::Message;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use crate::core::{Effect, JoiningWorker, SessionEnd};
use crate::records::LeaseRow;
use crate::server::convert::fence_to_wire;
use crate::server::engine::{Engine, SessionSender, WorkerEvent, WorkerMessage};
use crate::store::InsertLease;

/// What a worker does when it is asked; earlier ones know nothing of it.
#[derive(Debug, Clone, Copy)]
pub struct SessionAbilities {
    /// Whether the worker tells what running programs have printed.
    pub sends_output: bool,
    /// Whether the worker leaves.
    pub drains: bool,
}

/// A session that is open.
pub(super) struct OpenSession {
    number: SessionNumber,
    sender: SessionSender,
    pub(super) abilities: SessionAbilities,
}

impl Engine {
    pub(crate) fn handle_worker_event(&mut self, event: WorkerEvent) -> Vec<Effect> {
        match event {
            WorkerEvent::Joined {
                joining,
                sender,
                abilities,
                reply,
            } => return self.join_worker(joining, (sender, abilities), reply),
            WorkerEvent::SessionEnded {
                worker,
                session,
                end,
            } => self.end_session(&worker, session, end),
            WorkerEvent::MessageReceived {
                worker,
                message,
                permit,
            } => {
                drop(permit);
                return self.handle_worker_message(&worker, message);
            }
            WorkerEvent::ResultsReceived {
                batch,
                permit,
                reply,
            } => self.store_results(*batch, permit, reply),
            WorkerEvent::CheckpointReceived(incoming) => {
                self.checkpoint_writer
                    .store_checkpoint(&self.core, incoming);
            }
            WorkerEvent::CheckpointStored { sweep, key, steps } => {
                return self.core.on_checkpoint_stored(sweep, key, steps);
            }
        }

        Vec::new()
    }

    fn join_worker(
        &mut self,
        joining: JoiningWorker,
        (sender, abilities): (SessionSender, SessionAbilities),
        reply: oneshot::Sender<SessionNumber>,
    ) -> Vec<Effect> {
        self.last_session.0 += 1;
        tracing::info!(
            worker = joining.name,
            slots = joining.slots,
            held = joining.held.len(),
            "worker joined"
        );

        // What an earlier session was asked, it answers no more.
        self.open_outputs.forget_worker(&joining.worker);
        let session = OpenSession {
            number: self.last_session,
            sender,
            abilities,
        };
        self.sessions.insert(joining.worker.clone(), session);
        // The session must send Welcome before any message that the join causes.
        let _ = reply.send(self.last_session);
        let worker = joining.worker.clone();
        let effects = self.core.on_worker_joined(joining, self.current_time());
        // Its last session may have ended before it was told.
        if abilities.drains && self.core.is_drain_requested(&worker) {
            self.send_drain(&worker);
        }
        effects
    }

    /// A worker that has opened another session since is not away.
    fn end_session(&mut self, worker: &WorkerId, session: SessionNumber, end: SessionEnd) {
        if self
            .sessions
            .get(worker)
            .is_some_and(|open| open.number == session)
        {
            tracing::info!(worker = worker.as_str(), ?end, "session ended");
            self.close_session(worker);
            self.core.on_session_ended(worker, end, self.current_time());
        }
    }

    fn handle_worker_message(&mut self, worker: &WorkerId, message: WorkerMessage) -> Vec<Effect> {
        let now = self.current_time();
        match message {
            WorkerMessage::Heartbeat {
                running,
                queued,
                held,
            } => {
                self.core.on_heartbeat(worker, running, queued, &held, now);
                let renewed = Message::Renewed(v1::Renewed {});
                self.send_to_worker(worker, renewed);
                Vec::new()
            }
            WorkerMessage::RequestWork { idle_slots } => {
                self.core.on_work_requested(worker, idle_slots, now)
            }
            WorkerMessage::Release { fence, why } => {
                self.core.on_lease_released(worker, fence, why, now)
            }
            WorkerMessage::Retracted { fence, keys } => {
                tracing::debug!(
                    worker = worker.as_str(),
                    lease = fence.lease.0,
                    trials = keys.len(),
                    "trials given back"
                );

                self.core.on_trials_retracted(worker, fence, &keys, now)
            }
            WorkerMessage::Output(part) => {
                self.pass_on_output(worker, part);
                Vec::new()
            }
            WorkerMessage::Goodbye => {
                self.close_session(worker);
                self.core.on_worker_left(worker, now)
            }
        }
    }

    /// Stores a lease, and then sends it to its worker.
    pub(crate) fn grant_lease(&self, lease: LeaseRow, sweep: SweepId, keys: Vec<TrialKey>) {
        self.persist(InsertLease(lease.clone()), move |engine, stored| {
            if let Err(error) = stored {
                engine
                    .throttled_log
                    .report_error("a lease could not be stored", &error);
                return engine.core.on_grant_failed(&lease);
            }

            engine.send_grant(&lease, sweep, &keys);
            Vec::new()
        });
    }

    fn send_grant(&mut self, lease: &LeaseRow, sweep: SweepId, keys: &[TrialKey]) {
        if !self.core.holds_lease(&lease.worker, lease.fence) {
            // The lease ended while it was being stored, for example by a cancel. The revocation
            // makes the worker request another one.
            let revoke = v1::Revoke {
                fences: vec![fence_to_wire(lease.fence)],
            };
            self.send_to_worker(&lease.worker, Message::Revoke(revoke));
            return;
        }

        tracing::debug!(
            worker = lease.worker.as_str(),
            lease = lease.fence.lease.0,
            trials = keys.len(),
            "lease granted"
        );

        let grant = self.build_grant(lease, sweep, keys);
        self.send_to_worker(&lease.worker, Message::Grant(grant));
    }

    fn build_grant(&self, lease: &LeaseRow, sweep: SweepId, keys: &[TrialKey]) -> v1::Grant {
        let checkpointed = keys
            .iter()
            .filter(|key| self.core.checkpoint_steps(lease.sweep, **key).is_some());
        v1::Grant {
            fence: Some(fence_to_wire(lease.fence)),
            sweep: sweep.into(),
            cells: keys.iter().map(|key| key.cell.0).collect(),
            repeats: keys.iter().map(|key| key.repeat.0).collect(),
            checkpointed: checkpointed.map(|key| (*key).into()).collect(),
        }
    }

    pub(crate) fn send_retraction(&mut self, worker: &WorkerId, fence: Fence, trials: u64) {
        let retract = v1::Retract {
            fence: Some(fence_to_wire(fence)),
            trials,
        };
        self.send_to_worker(worker, Message::Retract(retract));
    }

    pub(crate) fn send_revocation(&mut self, worker: &WorkerId, fences: Vec<Fence>) {
        tracing::info!(
            worker = worker.as_str(),
            leases = fences.len(),
            "leases revoked"
        );
        let fences = fences.into_iter().map(fence_to_wire).collect();
        self.send_to_worker(worker, Message::Revoke(v1::Revoke { fences }));
    }

    /// Sends a message. A worker that does not read its messages loses its session, and its leases
    /// expire unless it comes back.
    pub(crate) fn send_to_worker(&mut self, worker: &WorkerId, message: Message) {
        let response = v1::SessionResponse {
            message: Some(message),
        };
        let Some(session) = self.sessions.get(worker) else {
            return;
        };
        let (end, why) = match session.sender.try_send(Ok(response)) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => (
                SessionEnd::ByCoordinator,
                "session ended: the worker does not read its messages",
            ),
            // The connection has broken, and the reader of the worker's messages has not told yet.
            Err(TrySendError::Closed(_)) => {
                (SessionEnd::ByPeer, "session ended: its connection broke")
            }
        };

        tracing::info!(worker = worker.as_str(), ?end, "{why}");
        self.close_session(worker);
        self.core.on_session_ended(worker, end, self.current_time());
    }

    fn close_session(&mut self, worker: &WorkerId) {
        self.sessions.remove(worker);
        self.open_outputs.forget_worker(worker);
    }
}
