//! The services of a standby over a store that this process only reads. They have no port: clients in this process reach them by
//! pipes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ergodic_common::ErrorCode;
use ergodic_proto::channel::connect::{ClientChannel, connect_in_process};
use ergodic_proto::status::UserError;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::blobs::BlobStore;
use super::cell_identities::LaunchState;
use super::checkpoints::CheckpointFiles;
use super::datasets::DatasetCatalog;
use super::engine::{EngineEvent, EngineHandle};
use super::grpc::GrpcServices;
use super::ha::leadership::Leadership;
use super::ha::standby::{CoreReading, StandbyView};
use super::ha::supervisor::spawn_thread;
use super::limits::{LimitOptions, Limits};
use super::metrics::Metrics;
use super::{ProgramPolicy, ServerContext, store_error};
use crate::store::location::StoreLocation;
use crate::store::writer::WriterMetrics;
use crate::store::{Leader, ReadableStore};

/// Time for readers to end when the view is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The TTL of the leases that the view shows, and which nothing renews or ends in it.
const LEASE_TTL: Duration = Duration::from_secs(30);

/// Running services over a store that is only read.
pub struct StoreView {
    channel: ClientChannel,
    end_signal: watch::Sender<bool>,
    engine: EngineHandle,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    queries: std::thread::JoinHandle<()>,
}

impl StoreView {
    /// Opens a store, reads it once, and starts the services. `files` is the directory for datasets and weights; by default that
    /// beside a store in a directory.
    ///
    /// # Errors
    /// There is no store, it cannot be read, or it is of another version.
    pub async fn open(location: &StoreLocation, files: Option<PathBuf>) -> Result<Self, UserError> {
        let (view, reading) = open_view(location.clone()).await?;
        let files = files.unwrap_or_else(|| match location {
            StoreLocation::Directory(dir) => dir.join("data"),
            StoreLocation::Database(_) => PathBuf::new(),
        });

        let (engine, questions) = EngineHandle::detached();
        let (end_signal, stopping) = watch::channel(false);
        let context = ServerContext {
            metrics: Metrics::new(Arc::new(WriterMetrics::new()), false),
            tokens: None,
            programs: ProgramPolicy::Nobody,
            engine: engine.clone(),
            store: view.store.clone(),
            leadership: Leadership::Reading(location.describe()),
            checkpoints: CheckpointFiles::new(&files),
            catalog: DatasetCatalog {
                data_dir: None,
                blobs: BlobStore::new(files),
            },
            lease_ttl: LEASE_TTL,
            limits: Limits::new(&LimitOptions::without_rates()),
            change_lock: Arc::default(),
            launch_state: LaunchState::default(),
            stopping,
        };

        let queries = spawn_thread("view", move || {
            view.answer_queries(Some(reading), questions);
        })?;
        let (pipes, connections) = mpsc::unbounded_channel();
        let connections = UnboundedReceiverStream::new(connections)
            .map(|pipe: DuplexStream| Ok::<_, std::io::Error>(pipe));
        let services = GrpcServices(Arc::new(context));
        let server = tokio::spawn(services.serve_connections(connections));
        Ok(Self {
            channel: connect_in_process(pipes)?,
            end_signal,
            engine,
            server,
            queries,
        })
    }

    /// A channel to the services.
    pub fn channel(&self) -> ClientChannel {
        self.channel.clone()
    }

    /// Ends the services. SQLite removes the files that it made for reading when the last reader is gone.
    pub async fn close(self) {
        let _ = self.end_signal.send(true);
        drop(self.channel);
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.server).await;
        self.engine.send_event(EngineEvent::Stop);
        let ended = spawn_blocking(move || self.queries.join());
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, ended).await;
    }
}

/// Opens a store and reads it.
async fn open_view(location: StoreLocation) -> Result<(StandbyView, CoreReading), UserError> {
    let opening = spawn_blocking(move || {
        let store: Arc<dyn ReadableStore> = location.open_view().map_err(store_error)?;
        let view = StandbyView {
            store,
            leader: watch::channel(Leader::unknown()).1,
            lease_ttl: LEASE_TTL,
        };
        let reading = view.read_core()?;
        Ok((view, reading))
    });
    opening
        .await
        .map_err(|e| UserError::new(ErrorCode::Internal, e.to_string()))?
}
