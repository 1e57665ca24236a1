//! A term: the time that a coordinator leads, or stands by, without a change.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::server::engine::{EngineEvent, EngineHandle};
use crate::server::ha::supervisor::SHUTDOWN_GRACE;
use crate::store::{Leader, Store};

/// Services that are up, and what is behind them.
pub(crate) struct CoordinatorTerm {
    pub(crate) role: TermRole,
    pub(crate) end_signal: watch::Sender<bool>,
    pub(crate) engine: EngineHandle,
    pub(crate) server: JoinHandle<Result<(), tonic::transport::Error>>,
    pub(crate) tasks: Vec<JoinHandle<()>>,
    pub(crate) threads: Vec<std::thread::JoinHandle<()>>,
}

pub(crate) enum TermRole {
    Standby(watch::Sender<Leader>),
    /// In this epoch, until the task ends.
    Leading(u64, JoinHandle<()>),
}

impl CoordinatorTerm {
    pub(crate) fn is_leading(&self) -> bool {
        matches!(self.role, super::term::TermRole::Leading(..))
    }

    /// Ends streams, waits a little for open connections, and returns when all that the turn began is done: what was
    /// acknowledged is durable, and nothing more will be written.
    pub(crate) async fn end_term(mut self, store: Arc<dyn Store>) {
        // Streams end by themselves on this signal; a client that holds its connection open is not waited for.
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

            if let super::term::TermRole::Leading(epoch, _) = self.role {
                store.resign_leadership(epoch);
            }
        });

        let _ = join.await;
    }

    /// Lets the last renewal of the claim to lead end. It reads the store, and SQLite brings its log into the database only
    /// when whoever closes it is the last who has it open: the writer is to be that.
    pub(crate) async fn wait_for_renewals(&mut self) {
        let super::term::TermRole::Leading(_, renewals) = &mut self.role else {
            return;
        };
        // Whoever was deposed has waited for them.
        if !renewals.is_finished() {
            let _ = renewals.await;
        }
    }
}
