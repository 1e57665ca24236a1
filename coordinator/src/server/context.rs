//! The state that all services of a coordinator share.

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use tonic::Status;

use crate::server::auth::{Principal, TokenStore};
use crate::server::cell_identities::LaunchState;
use crate::server::checkpoints::CheckpointFiles;
use crate::server::datasets::DatasetCatalog;
use crate::server::engine::EngineHandle;
use crate::server::ha::leadership::Leadership;
use crate::server::limits::Limits;
use crate::server::metrics::Metrics;
use crate::store::ReadableStore;

/// Whose programs a coordinator has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProgramPolicy {
    /// Nobody's.
    #[default]
    Nobody,
    /// Programs of everybody who has the right to it.
    WithRight,
    /// Programs that the process of the coordinator launches itself, and none that come in through its port.
    OwnProcess,
}

/// State that all services share.
pub(crate) struct ServerContext {
    pub(crate) tokens: Option<Arc<TokenStore>>,
    /// Whose programs are run.
    pub(crate) programs: ProgramPolicy,
    pub(crate) metrics: Metrics,
    pub(crate) engine: EngineHandle,
    pub(crate) store: Arc<dyn ReadableStore>,
    pub(crate) leadership: Leadership,
    pub(crate) catalog: DatasetCatalog,
    pub(crate) checkpoints: CheckpointFiles,
    pub(crate) lease_ttl: Duration,
    pub(crate) limits: Limits,
    /// Held while a sweep is being changed.
    pub(crate) change_lock: Arc<tokio::sync::Mutex<()>>,
    pub(crate) launch_state: LaunchState,
    pub(crate) stopping: tokio::sync::watch::Receiver<bool>,
}

impl ServerContext {
    /// The reason why results cannot be stored, as far as is known.
    pub(crate) fn storage_trouble(&self) -> Option<String> {
        match self.store.check_files_in_place() {
            Ok(()) => self.metrics.storage_trouble(),
            Err(error) => Some(error.to_string()),
        }
    }

    /// The status for a query that the core did not answer.
    pub(crate) fn unanswered_status(&self) -> Status {
        let message = match self.leadership {
            Leadership::Leading(_) => "the coordinator is stopping",
            Leadership::Standby(_) => "the coordinator is a standby, and cannot read the store",
            Leadership::Reading(_) => "the store can no longer be read",
        };
        UserError::new(ErrorCode::Unreachable, message).into()
    }

    /// Waits until the token that opened a stream is revoked or has expired.
    pub(crate) async fn wait_until_revoked(&self, principal: Option<Principal>) {
        match (&self.tokens, principal) {
            (Some(tokens), Some(principal)) => tokens.wait_until_invalid(&principal.token_id).await,
            _ => std::future::pending().await,
        }
    }
}
