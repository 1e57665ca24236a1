//! Workers that a user asks to leave.

use ergodic_common::ErrorCode;
use ergodic_common::escape::escape_line;
use ergodic_common::ids::WorkerId;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use ergodic_proto::v1::session_response::Message;
use tokio::sync::oneshot;

use crate::server::engine::Engine;
use crate::server::status::worker_statuses;

/// Receives the workers that were asked, as they were then, or why none was.
pub type DrainReply = oneshot::Sender<Result<Vec<v1::WorkerStatus>, UserError>>;

impl Engine {
    /// Asks the workers with these names or ids to leave: all of them, or none.
    pub(crate) fn drain_workers(&mut self, names: &[String], reply: DrainReply) {
        let workers = match self.find_draining_workers(names) {
            Ok(workers) => workers,
            Err(why) => {
                let _ = reply.send(Err(why));
                return;
            }
        };

        let now = self.current_time();
        for worker in &workers {
            tracing::info!(worker = worker.as_str(), "the worker is asked to leave");
            self.core.on_drain_requested(worker, now);
        }
        // One without trials is gone as soon as it is asked.
        let mut statuses = worker_statuses(&self.core, now.as_secs_f64());
        statuses.retain(|status| workers.iter().any(|id| id.as_str() == status.id));
        let _ = reply.send(Ok(statuses));
        for worker in &workers {
            self.send_drain(worker);
        }
    }

    /// Asks a worker to leave.
    pub(super) fn send_drain(&mut self, worker: &WorkerId) {
        self.send_to_worker(worker, Message::Drain(v1::Drain {}));
    }

    /// The workers with these names or ids, each once.
    fn find_draining_workers(&self, names: &[String]) -> Result<Vec<WorkerId>, UserError> {
        let mut chosen = Vec::new();
        for name in names {
            let before = chosen.len();
            let workers = self.core.workers();
            let named = workers.filter(|(id, worker)| {
                worker.connected && (worker.name == *name || id.as_str() == name)
            });
            for (id, _) in named {
                self.check_drains(id, name)?;
                chosen.push(id.clone());
            }
            if chosen.len() == before {
                let message = format!(
                    "no worker that is joined has the name or id {}: `ergodic workers` lists them",
                    escape_line(name)
                );
                return Err(UserError::new(ErrorCode::NotFound, message));
            }
        }

        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }

    /// Refuses a worker that does not know what it would be asked.
    fn check_drains(&self, id: &WorkerId, name: &str) -> Result<(), UserError> {
        let session = self.sessions.get(id);
        if session.is_some_and(|session| session.abilities.drains) {
            return Ok(());
        }
        let message = format!(
            "the worker {} is too old to be asked: send its process SIGTERM, or update it",
            escape_line(name)
        );
        Err(UserError::new(ErrorCode::Version, message))
    }
}
