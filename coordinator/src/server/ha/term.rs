//! A term: a period in which a coordinator leads, or stands by.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ergodic_common::ids::Epoch;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::server::ServerContext;
use crate::server::engine::{EngineEvent, EngineHandle};
use crate::store::{Leader, Store};

/// Time limit for open connections at the end of a term.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// The running services of a term, with their tasks and threads.
pub(crate) struct CoordinatorTerm {
    pub(crate) role: TermRole,
    pub(crate) end_signal: watch::Sender<bool>,
    pub(crate) engine: EngineHandle,
    /// The state of the services, while they run.
    pub(crate) context: Weak<ServerContext>,
    pub(crate) server: JoinHandle<Result<(), tonic::transport::Error>>,
    pub(crate) tasks: Vec<JoinHandle<()>>,
    pub(crate) threads: Vec<std::thread::JoinHandle<()>>,
}

pub(crate) enum TermRole {
    Standby(watch::Sender<Leader>),
    /// The epoch, and the task that renews the claim to lead until it is lost.
    Leading(Epoch, JoinHandle<()>),
}

impl CoordinatorTerm {
    pub(crate) fn is_leading(&self) -> bool {
        matches!(self.role, TermRole::Leading(..))
    }

    /// Ends streams, waits a little for open connections, and returns when everything that the term
    /// began is done: acknowledged results are durable, and nothing more will be written.
    pub(crate) async fn end_term(mut self, store: Arc<dyn Store>) {
        // Streams end on this signal. A client that keeps its connection open gets no more than the
        // grace period.
        let _ = self.end_signal.send(true);
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, &mut self.server).await;
        self.wait_for_renewals().await;
        self.engine.send_event(EngineEvent::Stop);
        drop(self.engine);

        for task in self.tasks {
            let _ = task.await;
        }

        let join = spawn_blocking(move || {
            for thread in self.threads {
                let _ = thread.join();
            }

            if let TermRole::Leading(epoch, _) = self.role {
                store.resign_leadership(epoch);
            }
        });

        let _ = join.await;
    }

    /// Waits for the last renewal of the claim to lead. A renewal reads the store, and SQLite
    /// copies its log into the database only when the last connection closes, which should be the
    /// writer's.
    pub(crate) async fn wait_for_renewals(&mut self) {
        let TermRole::Leading(_, renewals) = &mut self.role else {
            return;
        };
        // A join handle panics if it is awaited twice, and a deposed coordinator has awaited this
        // one.
        if !renewals.is_finished() {
            let _ = renewals.await;
        }
    }
}
