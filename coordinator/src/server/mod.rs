//! The coordinator process: store, event loop, gRPC services, and an orderly end.

pub mod auth;
pub(crate) mod backup;
mod blob_collection;
pub mod blobs;
mod checkpoints;
pub mod datasets;
pub mod engine;
mod extend;
pub(crate) mod ha;
mod http;
mod limits;
mod listen;
mod lost_blobs;
mod metrics;
mod recovery;
mod removal;
mod reuse;
pub mod services;
mod status;
mod sweep_changes;
mod sweeps;
mod watch_grid;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ergodic_common::ErrorCode;
use ergodic_proto::MAX_MESSAGE_BYTES;
use ergodic_proto::status::UserError;
use ergodic_proto::transfer::CHUNK_BYTES;
use ergodic_proto::v1::admin_service_server::AdminServiceServer;
use ergodic_proto::v1::file_service_server::FileServiceServer;
use ergodic_proto::v1::sweep_service_server::SweepServiceServer;
use ergodic_proto::v1::worker_service_server::WorkerServiceServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::core::Core;
use crate::store::location::StoreLocation;
use crate::store::writer::{WriterHandle, WriterLoop};
use crate::store::{Store, StoreError, StoreWriter};
use auth::{Auth, AuthLayer, AuthOptions, Principal, TokenStore};
pub(crate) use blob_collection::sign_folder;
use blobs::BlobStore;
use checkpoints::{CheckpointFiles, CheckpointWriter};
use datasets::DatasetCatalog;
use engine::{Engine, EngineEvent, EngineHandle};
use ha::leadership::Leadership;
use ha::supervisor::Supervisor;
use limits::{LimitLayer, Limits};
use metrics::Metrics;
pub use recovery::recover_core;

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where the store is.
    pub store: StoreLocation,
    /// Where files of sweeps and trials are kept; beside the results if they are kept in a directory.
    pub files_dir: Option<PathBuf>,
    /// Where dataset files are.
    pub data_dir: Option<PathBuf>,
    /// What other coordinators, and who asks them, are told of where this one is.
    pub advertise: Option<String>,
    /// Where to tell over HTTP how the coordinator is doing; port 0 picks a free one.
    pub http_listen: Option<SocketAddr>,
    /// Whether peers are asked who they are, and how.
    pub auth: Option<AuthOptions>,
    /// A lease ends after this time without a heartbeat.
    pub lease_ttl: Duration,
    /// Whether curves and predictions are checked, too, before it serves.
    pub verify_store: bool,
    /// Requests per second that a token, or an address where nobody is asked for one, may make; none for any number.
    pub rate_limit: Option<u32>,
}

/// A coordinator that is up.
pub struct RunningServer {
    /// Where it listens.
    pub address: SocketAddr,
    uses_tls: bool,
    shutdown: tokio::sync::watch::Sender<bool>,
    supervisor: tokio::task::JoinHandle<()>,
}

/// Shared by all services.
pub(crate) struct ServerContext {
    pub(crate) tokens: Option<Arc<TokenStore>>,
    pub(crate) metrics: Metrics,
    pub(crate) engine: EngineHandle,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) leadership: Leadership,
    pub(crate) catalog: DatasetCatalog,
    pub(crate) checkpoints: CheckpointFiles,
    pub(crate) lease_ttl: Duration,
    pub(crate) limits: Limits,
    /// Held while a sweep is changed.
    pub(crate) change_lock: Arc<tokio::sync::Mutex<()>>,
    pub(crate) launch_state: reuse::LaunchState,
    pub(crate) rate_limit: Option<u32>,
    pub(crate) stopping: tokio::sync::watch::Receiver<bool>,
}

impl ServerContext {
    /// Why results cannot be stored, as far as is known.
    pub(crate) fn storage_trouble(&self) -> Option<String> {
        let lost = || self.store.check_files_in_place().err().map(|error| error.to_string());
        lost().or_else(|| self.metrics.storage_trouble())
    }

    /// What a question is answered with that the core did not answer.
    pub(crate) fn unanswered_status(&self) -> Status {
        let message = match self.leadership {
            Leadership::Leading(_) => "the coordinator is stopping",
            Leadership::Standby(_) => "the coordinator stands by, and cannot read the store",
        };
        UserError::new(ErrorCode::Unreachable, message).into()
    }

    /// Returns when the token that opened a stream opens nothing any more.
    pub(crate) async fn wait_until_revoked(&self, caller: Option<Principal>) {
        match (&self.tokens, caller) {
            (Some(tokens), Some(caller)) => tokens.wait_until_invalid(&caller.token_id).await,
            _ => std::future::pending().await,
        }
    }
}

/// How often the core looks at the clock.
const TICK_INTERVAL: Duration = Duration::from_millis(200);

/// Opens the store, takes up where it was left, and serves; or stands by while another coordinator leads on that store.
///
/// # Errors
/// The store is taken or damaged, the address cannot be listened on, or the door cannot be kept.
pub async fn start_server(options: ServeOptions) -> Result<RunningServer, UserError> {
    let files = resolve_files_dir(options.files_dir.as_deref(), &options.store)?;
    let internal = |e: std::io::Error| UserError::new(ErrorCode::Internal, e.to_string());
    let place = options.store.clone();
    let private = options.auth.is_some();
    let opened = tokio::task::spawn_blocking(move || place.open_with_privacy(private)).await;
    let store = opened.map_err(|e| UserError::new(ErrorCode::Internal, e.to_string()))?.map_err(store_error)?;
    let listener = Arc::new(bind_listener("--listen", options.listen).await?);
    let address = listener.local_addr().map_err(internal)?;
    let http = match options.http_listen {
        Some(address) => Some(Arc::new(bind_listener("--http", address).await?)),
        None => None,
    };
    if let Some(listener) = &http {
        tracing::info!(address = %listener.local_addr().map_err(internal)?, "health and metrics over http");
    }
    let door = options.auth.as_ref().map(Auth::open).transpose()?;
    let secure = door.is_some();
    let (shutdown, stopping) = tokio::sync::watch::channel(false);
    let url = options.advertise.clone().unwrap_or_else(|| build_url(&guess_reachable_address(address), secure));
    let shelf = BlobStore::new(files);
    let life = Supervisor { options, url, listener, http_listener: http, auth: door, store, blobs: shelf, stopping };
    let first = life.start_first_term().await?;
    Ok(RunningServer { address, uses_tls: secure, shutdown, supervisor: tokio::spawn(life.run_terms(first)) })
}

/// What a coordinator is put together from.
pub struct CoordinatorSetup {
    /// Where results are kept.
    pub store: Arc<dyn Store>,
    /// In which it leads.
    pub epoch: u64,
    /// What it knows.
    pub core: Core,
    /// The store's one writer.
    pub writer: Box<dyn StoreWriter>,
    /// Where files of sweeps and trials are kept.
    pub blobs: BlobStore,
    /// Where dataset files are.
    pub data_dir: Option<PathBuf>,
    /// Who may ask, unless everybody may.
    pub tokens: Option<Arc<TokenStore>>,
    /// A lease ends after this time without a heartbeat.
    pub lease_ttl: Duration,
    /// Requests that a peer may make in a second, if there is a limit.
    pub rate_limit: Option<u32>,
    /// Says when to end.
    pub stopping: tokio::sync::watch::Receiver<bool>,
}

/// A coordinator put together, whose two loops and services are for its owner to run.
pub struct CoordinatorParts {
    /// Decides: [`Engine::run`].
    pub engine: Engine,
    /// Makes durable: [`WriterLoop::run`].
    pub writer: WriterLoop,
    /// Answer workers and users: [`Services::serve`].
    pub services: GrpcServices,
    /// Puts checkpoints into their places, and ends with the engine.
    pub checkpoint_thread: std::thread::JoinHandle<()>,
}

/// Puts a coordinator together.
///
/// # Errors
/// The operating system gives no thread.
pub fn assemble_coordinator(setup: CoordinatorSetup) -> std::io::Result<CoordinatorParts> {
    let (handle, writer) = WriterHandle::new(setup.writer, Box::new(setup.blobs.clone()));
    let metrics = Metrics::new(handle.metrics(), true);
    let checkpoints = CheckpointFiles::new(setup.blobs.folder());
    let (events, waiting) = Engine::new_queue();
    let (keeps, keeper) = CheckpointWriter::start_thread(checkpoints.clone(), events.clone())?;
    let (engine, handle) = Engine::new(setup.core, handle, keeps, (events, waiting));
    let shared = ServerContext {
        metrics,
        tokens: setup.tokens,
        engine: handle,
        store: setup.store,
        leadership: Leadership::Leading(setup.epoch),
        catalog: DatasetCatalog { data_dir: setup.data_dir, blobs: setup.blobs },
        checkpoints,
        lease_ttl: setup.lease_ttl,
        limits: Limits::new(),
        change_lock: Arc::default(),
        launch_state: reuse::LaunchState::default(),
        rate_limit: setup.rate_limit,
        stopping: setup.stopping,
    };
    Ok(CoordinatorParts { engine, writer, services: GrpcServices(Arc::new(shared)), checkpoint_thread: keeper })
}

async fn bind_listener(option: &str, address: SocketAddr) -> Result<TcpListener, UserError> {
    TcpListener::bind(address).await.map_err(|e| {
        let message = format!("cannot listen on {address}: {e}. Choose another address with {option}");
        UserError::new(ErrorCode::Refused, message)
    })
}

impl RunningServer {
    /// Ends streams, waits a little for open connections, and makes sure that what was acknowledged is on disk.
    pub async fn stop(self) {
        let _ = self.shutdown.send(true);
        let _ = self.supervisor.await;
    }

    /// The address to tell workers and clients of this machine.
    pub fn url(&self) -> String {
        build_url(&self.address.to_string(), self.uses_tls)
    }
}

fn build_url(address: &str, secure: bool) -> String {
    format!("{}://{address}", if secure { "https" } else { "http" })
}

/// Where others reach who listens there, as far as it can be guessed: by the machine's name, if it is everywhere.
fn guess_reachable_address(address: SocketAddr) -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        name if address.ip().is_unspecified() && !name.is_empty() => format!("{name}:{}", address.port()),
        _ => address.to_string(),
    }
}

/// A store in a directory has its files beside it. With a database, any coordinator may need them after a take-over.
pub(crate) fn resolve_files_dir(files: Option<&Path>, store: &StoreLocation) -> Result<PathBuf, UserError> {
    match (files, store) {
        (Some(dir), _) => match std::fs::create_dir_all(dir) {
            Ok(()) => Ok(dir.to_owned()),
            Err(e) => Err(UserError::new(ErrorCode::Refused, format!("--files {}: {e}", dir.display()))),
        },
        (None, StoreLocation::Directory(dir)) => Ok(dir.join("data")),
        (None, StoreLocation::Database(_)) => {
            let message = "--files: with a database as the store, say in which directory datasets and weights are kept; \
                           coordinators on several machines need one that all of them see";
            Err(UserError::new(ErrorCode::BadInput, message))
        }
    }
}

pub(crate) fn store_error(error: StoreError) -> UserError {
    let code = match error {
        StoreError::Taken(_) | StoreError::Unusable(_) | StoreError::BlobMissing(_) => ErrorCode::Refused,
        StoreError::Disconnected(_) | StoreError::Deposed(_) => ErrorCode::Unreachable,
        StoreError::Failed(_) | StoreError::Damaged(_) | StoreError::FileGone(_) => ErrorCode::Internal,
    };
    UserError::new(code, error.to_string())
}

fn spawn_ticks(handle: EngineHandle, mut stopping: tokio::sync::watch::Receiver<bool>) {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK_INTERVAL);
        loop {
            tokio::select! {
                _ = ticks.tick() => handle.send_event(EngineEvent::Tick),
                _ = stopping.wait_for(|stop| *stop) => return,
            }
        }
    });
}

/// The gRPC services.
pub struct GrpcServices(Arc<ServerContext>);

impl GrpcServices {
    /// Answers on these connections, and has the core look at the clock, until it is time to end.
    ///
    /// # Errors
    /// No more connections can be had.
    pub async fn serve_connections<C>(
        self,
        connections: impl Stream<Item = std::io::Result<C>>,
    ) -> Result<(), tonic::transport::Error>
    where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        spawn_ticks(self.0.engine.clone(), self.0.stopping.clone());
        serve_grpc(connections, self.0).await
    }
}

async fn serve_grpc<C>(
    connections: impl Stream<Item = std::io::Result<C>>,
    shared: Arc<ServerContext>,
) -> Result<(), tonic::transport::Error>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (mut stopping, tokens) = (shared.stopping.clone(), shared.tokens.clone());
    let workers = WorkerServiceServer::new(services::workers::WorkerApi(shared.clone()))
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let files = FileServiceServer::new(blobs::FileApi(shared.clone()))
        .accept_compressed(CompressionEncoding::Zstd)
        // A piece of a file, and what stands around it.
        .max_decoding_message_size(2 * CHUNK_BYTES);
    let guard = AuthLayer::new(tokens.clone(), shared.leadership.clone(), stopping.clone());
    let metrics = shared.metrics.clone();
    let limited = LimitLayer::new(shared.limits.clone(), shared.rate_limit);
    let admin = services::admin::AdminApi { tokens: tokens.clone(), context: shared.clone() };
    let admin = AdminServiceServer::new(admin).max_decoding_message_size(64 << 10);
    let sweeps = SweepServiceServer::new(sweeps::SweepApi(shared))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(64 << 20);
    let stopped = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    Server::builder()
        // The guard comes first: what it turns away is not counted, and names nothing.
        .layer(guard)
        .layer(metrics)
        .layer(limited)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .initial_connection_window_size(8 << 20)
        .initial_stream_window_size(4 << 20)
        .max_concurrent_streams(256)
        .add_service(workers)
        .add_service(files)
        .add_service(sweeps)
        .add_service(admin)
        .serve_with_incoming_shutdown(connections, stopped)
        .await
}
