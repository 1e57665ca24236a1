//! The coordinator process: store, event loop, gRPC services, and an orderly shutdown.

mod assembly;
pub mod auth;
pub(crate) mod backup;
pub mod blob_cache;
mod blob_collection;
pub mod blobs;
mod cell_identities;
mod checkpoints;
mod context;
mod convert;
pub mod datasets;
pub mod engine;
mod extend;
mod findings;
mod grpc;
pub(crate) mod ha;
mod http;
mod limits;
mod listen;
mod lost_blobs;
mod metrics;
mod recovery;
mod removal;
mod result_starts;
mod reuse;
pub mod serve_command;
pub mod services;
mod status;
mod sweep_changes;
pub mod view;
mod watch_grid;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

pub use assembly::{CoordinatorParts, CoordinatorSetup, assemble_coordinator};
use auth::{Auth, AuthOptions};
use blob_cache::BlobCache;
pub(crate) use blob_collection::sign_folder;
use blobs::BlobStore;
pub use context::ProgramPolicy;
pub(crate) use context::ServerContext;
use ergodic_common::ids::SweepId;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::identity::host_name;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
pub use grpc::GrpcServices;
use ha::supervisor::Supervisor;
pub use limits::LimitOptions;
pub(crate) use listen::raise_file_limit;
pub use recovery::recover_core;
use services::access::{Requester, SweepApi, requester_name};
use tokio::net::TcpListener;
use tonic::Request;

use crate::store::location::StoreLocation;
use crate::store::{Store, StoreError};

/// What a coordinator serves, and where.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The store's directory or database.
    pub store: StoreLocation,
    /// Folder for files of sweeps and trials; by default beside a store in a directory.
    pub files_dir: Option<PathBuf>,
    /// The directory of dataset files.
    pub data_dir: Option<PathBuf>,
    /// Folder of datasets that several stores share, if this one shares its own.
    pub cache_dir: Option<PathBuf>,
    /// The URL under which other coordinators, and their clients, reach this one.
    pub advertise: Option<String>,
    /// Address for health and metrics over HTTP; port 0 picks a free one.
    pub http_listen: Option<SocketAddr>,
    /// Authentication of peers, if they are authenticated.
    pub auth: Option<AuthOptions>,
    /// Whose programs are run.
    pub programs: ProgramPolicy,
    /// Time without a heartbeat after which a lease ends.
    pub lease_ttl: Duration,
    /// Whether to check curves and predictions, too, before serving.
    pub verify_store: bool,
    /// The limits that depend on the size of the fleet.
    pub limits: LimitOptions,
}

/// A running coordinator.
pub struct RunningServer {
    /// The address that the coordinator listens on.
    pub address: SocketAddr,
    uses_tls: bool,
    /// The services of the first term, while they run.
    first_term: Weak<ServerContext>,
    shutdown: tokio::sync::watch::Sender<bool>,
    supervisor: tokio::task::JoinHandle<()>,
}

/// Opens the store, recovers its state, and serves; or stands by while another coordinator leads on
/// that store.
///
/// # Errors
/// The store is in use or damaged, the address is not available, authentication cannot be set up, or
/// a limit allows more connections than there can be.
pub async fn start_server(options: ServeOptions) -> Result<RunningServer, UserError> {
    let connections = options.limits.resolve_connections(raise_file_limit())?;
    let files = resolve_files_dir(options.files_dir.as_deref(), &options.store)?;
    let store = open_store(&options).await?;
    let listener = Arc::new(bind_listener("--listen", options.listen).await?);
    let address = listener.local_addr().map_err(internal_error)?;
    let http_listener = bind_http(options.http_listen).await?;

    let auth = options.auth.as_ref().map(Auth::open).transpose()?;
    let uses_tls = auth.is_some();
    let url = options
        .advertise
        .clone()
        .unwrap_or_else(|| build_url(&guess_reachable_address(address), uses_tls));

    let (shutdown, stopping) = tokio::sync::watch::channel(false);
    let cache = options.cache_dir.clone().map(BlobCache::new);
    let supervisor = Supervisor {
        options,
        url,
        listener,
        http_listener,
        connections,
        auth,
        store,
        blobs: BlobStore::new(files).with_cache(cache),
        stopping,
    };
    let first = supervisor.start_first_term().await?;

    Ok(RunningServer {
        address,
        uses_tls,
        first_term: first.context.clone(),
        shutdown,
        supervisor: tokio::spawn(supervisor.run_terms(first)),
    })
}

async fn open_store(options: &ServeOptions) -> Result<Arc<dyn Store>, UserError> {
    let location = options.store.clone();
    let is_private = options.auth.is_some();
    let task = tokio::task::spawn_blocking(move || location.open_with_privacy(is_private));
    task.await
        .map_err(|e| UserError::new(ErrorCode::Internal, e.to_string()))?
        .map_err(store_error)
}

async fn bind_http(address: Option<SocketAddr>) -> Result<Option<Arc<TcpListener>>, UserError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = bind_listener("--http", address).await?;
    let address = listener.local_addr().map_err(internal_error)?;
    tracing::info!(%address, "health and metrics over http");

    Ok(Some(Arc::new(listener)))
}

fn internal_error(error: std::io::Error) -> UserError {
    UserError::new(ErrorCode::Internal, error.to_string())
}

async fn bind_listener(option: &str, address: SocketAddr) -> Result<TcpListener, UserError> {
    TcpListener::bind(address).await.map_err(|e| {
        let message =
            format!("cannot listen on {address}: {e}. Choose another address with {option}");
        UserError::new(ErrorCode::Refused, message)
    })
}

impl RunningServer {
    /// Ends streams, waits a little for open connections, and ensures that everything acknowledged
    /// is durable.
    pub async fn stop(self) {
        let _ = self.shutdown.send(true);
        let _ = self.supervisor.await;
    }

    /// Launches a sweep whose file this process has read as `spec`, so that it is not read again.
    ///
    /// # Errors
    /// The sweep was refused, or the coordinator no longer leads.
    pub async fn launch_read_sweep(
        &self,
        request: Request<v1::LaunchRequest>,
        spec: Spec,
    ) -> Result<v1::LaunchResponse, UserError> {
        let context = self.leading_context()?;
        let launched_by = requester_name(&request);
        let requester = Requester::own_process(launched_by);
        let launched = SweepApi(context)
            .launch_read_sweep(request.into_inner(), spec, requester)
            .await;
        launched.map_err(|status| UserError::from(&status))
    }

    /// Resumes a sweep for this process, which may be a program that no one else may have run.
    ///
    /// # Errors
    /// The sweep cannot be resumed, or the coordinator no longer leads.
    pub async fn resume_sweep(&self, sweep: &SweepId) -> Result<v1::SweepStatus, UserError> {
        let context = self.leading_context()?;
        let request = v1::SteerRequest {
            sweep: sweep.to_string(),
            steering: v1::Steering::Resume.into(),
            ..Default::default()
        };
        let requester = Requester::own_process(String::new());
        let steered = SweepApi(context).answer_steer(&request, &requester).await;
        let status = steered.map_err(|status| UserError::from(&status))?;
        Ok(status.unwrap_or_default())
    }

    /// What a stored sweep is.
    ///
    /// # Errors
    /// There is no such sweep, it cannot be read, or the coordinator no longer leads.
    pub async fn read_spec(&self, sweep: &SweepId) -> Result<Arc<Spec>, UserError> {
        let context = self.leading_context()?;
        let found = SweepApi(context)
            .with_sweep(sweep, |_, sweep| sweep.spec.clone())
            .await;
        found.map_err(|status| UserError::from(&status))
    }

    fn leading_context(&self) -> Result<Arc<ServerContext>, UserError> {
        self.first_term.upgrade().ok_or_else(|| {
            UserError::new(ErrorCode::Unreachable, "the coordinator no longer leads")
        })
    }

    /// The URL for workers and clients on this machine.
    pub fn url(&self) -> String {
        build_url(&self.address.to_string(), self.uses_tls)
    }
}

fn build_url(address: &str, secure: bool) -> String {
    format!("{}://{address}", if secure { "https" } else { "http" })
}

/// Guesses how others reach a listener: by the machine's name, if it listens on all addresses.
fn guess_reachable_address(address: SocketAddr) -> String {
    let name = host_name();
    if address.ip().is_unspecified() && !name.is_empty() {
        format!("{name}:{}", address.port())
    } else {
        address.to_string()
    }
}

/// The folder for files. A store in a directory has them beside it. With a database it must be
/// given, because any coordinator may need the files after a failover.
pub(crate) fn resolve_files_dir(
    files: Option<&Path>,
    store: &StoreLocation,
) -> Result<PathBuf, UserError> {
    match (files, store) {
        (Some(dir), _) => match std::fs::create_dir_all(dir) {
            Ok(()) => Ok(dir.to_owned()),
            Err(e) => Err(UserError::new(
                ErrorCode::Refused,
                format!("--artifacts {}: {e}", dir.display()),
            )),
        },
        (None, StoreLocation::Directory(dir)) => Ok(dir.join("data")),
        (None, StoreLocation::Database(_)) => {
            let message = "--artifacts: with a database as the store, name the directory for datasets and weights; \
                           coordinators on several machines need one that all of them can access";
            Err(UserError::new(ErrorCode::BadInput, message))
        }
    }
}

pub(crate) fn store_error(error: StoreError) -> UserError {
    let code = match error {
        StoreError::Taken(_) | StoreError::Unusable(_) | StoreError::BlobMissing(_) => {
            ErrorCode::Refused
        }
        StoreError::Missing(_) => ErrorCode::BadInput,
        StoreError::Disconnected(_) | StoreError::Deposed(_) => ErrorCode::Unreachable,
        StoreError::Failed(_) | StoreError::Damaged(_) | StoreError::FileGone(_) => {
            ErrorCode::Internal
        }
    };

    UserError::new(code, error.to_string())
}
